//! The driver's connection to one switch: it creates the job there, hears what becomes of it, gives the ranks of an
//! elastic job what to do, and ends it.
//!
//! A job's driver has one for each switch; [`crate::net::job_link`] makes one of them.

use crate::net::LOST_AFTER_MS;
use crate::net::address::SwitchAddress;
use crate::net::by_rank::ByRank;
use crate::net::checksum::Checksum;
use crate::net::flow::{Announced, Channel, Credits, Room, Signal, Wanted, cost};
use crate::net::frame::{DRIVER, Frame, Header, chunks, kind};
use crate::net::link::{FrameReader, LinkError, dial, ending, write_frames};
use crate::net::message::{
    Abort, Control, Hello, Leave, Notice, Peer, Role, bare_frame, cut_reason,
};
use crate::net::reassembly::{Message, Reassembly};
use crate::net::token::{JobId, Token};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// How often the driver asks what passed through the switch; the answer feeds the progress line.
const ASK: Duration = Duration::from_millis(250);

/// How long the switch gets to answer the driver's last word.
const FAREWELL: Duration = Duration::from_secs(2);

const LOST_AFTER: Duration = Duration::from_millis(LOST_AFTER_MS);

/// Frames that are written together at most.
const OUTGOING_MAX: usize = 1024;

/// Bytes of messages for the driver that may be under way on credit.
pub const DRIVER_MAILBOX: u32 = 64 << 20;

/// The least of them for each worker of an elastic job.
const DRIVER_MAILBOX_MIN: u32 = 64 << 10;

/// Who may be in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// So many ranks, which all join before it starts.
    Fixed(u32),
    /// Ranks come and go.
    Elastic {
        /// How many may ever come; each rank is used once.
        slots: u32,
        /// How many are there at once, about: they share the driver's memory for what they send.
        at_once: u32,
    },
}

/// What the driver always waits for: whatever its ranks report, under one mark.
const REPORTS: Wanted = Wanted {
    source: None,
    channel: Channel { group: 0, tag: 0 },
};

/// What the driver hears.
#[derive(Debug)]
pub enum News {
    /// The switch says something of the job.
    Notice(Notice),
    /// A rank sent a message.
    Message(Message),
}

/// See the module.
pub struct DriverLink {
    address: Arc<str>,
    reader: FrameReader,
    /// When something was heard last.
    heard: Instant,
    outgoing: mpsc::Sender<Frame>,
    /// What is to be sent: answers, and messages for which there is credit.
    due: VecDeque<Frame>,
    membership: Membership,
    /// The packs that are there, by their first rank.
    peers: BTreeMap<u32, Peer>,
    /// What is under way to each rank, and the number of the next message to it.
    credits: Credits,
    numbers: ByRank<u64>,
    reassembly: Reassembly,
    room: Room,
    heartbeat: JoinHandle<()>,
}

impl DriverLink {
    /// Connects to the switch at `address` and creates a job there.
    ///
    /// # Errors
    /// When the switch cannot be reached within `within`, or refuses.
    pub async fn create(
        address: &SwitchAddress,
        job: JobId,
        token: Token,
        membership: Membership,
        within: Duration,
    ) -> Result<DriverLink, LinkError> {
        let (size, mailbox, elastic) = match membership {
            Membership::Fixed(size) => (size, DRIVER_MAILBOX, false),
            Membership::Elastic { slots, at_once } => {
                let each = DRIVER_MAILBOX / at_once.max(1);
                (slots, each.max(DRIVER_MAILBOX_MIN), true)
            }
        };
        let hello = Hello::new(
            job,
            token,
            Role::Driver {
                size,
                mailbox,
                elastic,
            },
        );
        let (reader, write) = dial(address, &hello, Instant::now() + within).await?;
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        // It ends when nobody is left who could send.
        tokio::spawn(write_frames(frames, write, LOST_AFTER));
        let heartbeat = tokio::spawn({
            let outgoing = outgoing.clone();
            async move {
                let mut beats = tokio::time::interval(ASK);
                loop {
                    beats.tick().await;
                    if outgoing
                        .send(bare_frame(kind::HEARTBEAT, false))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        });
        Ok(DriverLink {
            address: address.place().into(),
            reader,
            heard: Instant::now(),
            outgoing,
            due: VecDeque::new(),
            membership,
            peers: BTreeMap::new(),
            credits: Credits::default(),
            numbers: ByRank::default(),
            reassembly: Reassembly::default(),
            room: Room::new(mailbox, 1),
            heartbeat,
        })
    }

    /// Waits for the next news. Cancel-safe.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub async fn next(&mut self) -> Result<News, LinkError> {
        loop {
            // What came with the last read is looked at first: it costs nothing.
            let frame = match self.reader.buffered()? {
                Some(frame) => frame,
                None => self.read_and_write().await?,
            };
            self.heard = Instant::now();
            match frame.header.kind {
                kind::NOTICE => {
                    let notice = Notice::from_body(&frame.body)?;
                    self.note(&notice);
                    return Ok(News::Notice(notice));
                }
                kind::ANNOUNCE => self.announced(&frame),
                kind::DATA => {
                    if let Some(message) = self.reassembly.accept(frame.header, &frame.body)? {
                        self.taken(frame.header, &message);
                        return Ok(News::Message(message));
                    }
                }
                kind::CREDIT => {
                    let bytes = frame
                        .body
                        .first_chunk()
                        .map(|bytes| u64::from_le_bytes(*bytes));
                    let source = frame.header.source;
                    if !bytes.is_some_and(|bytes| self.credits.returned(source, bytes)) {
                        return Err(LinkError::Credit(source));
                    }
                }
                kind::HEARTBEAT => {}
                _ => return Err(ending(&frame)),
            }
        }
    }

    /// Sends what is due, and reads the next frame. Cancel-safe. When the connection takes nothing more, reading tells why.
    async fn read_and_write(&mut self) -> Result<Frame, LinkError> {
        loop {
            self.write();
            // The clock goes on while others are listened to.
            let reading = timeout_at(self.heard + LOST_AFTER, self.reader.next());
            tokio::select! {
                frame = reading => return frame.unwrap_or_else(|_| Err(LinkError::Silent {
                    address: self.address.clone(),
                    seconds: LOST_AFTER.as_secs(),
                })),
                Ok(place) = self.outgoing.reserve(), if !self.due.is_empty() => {
                    if let Some(frame) = self.due.pop_front() {
                        place.send(frame);
                    }
                }
            }
        }
    }

    /// Hands what is due to the connection, as far as it takes it now.
    fn write(&mut self) {
        while !self.due.is_empty() {
            let Ok(place) = self.outgoing.try_reserve() else {
                return;
            };
            if let Some(frame) = self.due.pop_front() {
                place.send(frame);
            }
        }
    }

    /// Sends a message to a rank of an elastic job, while [`DriverLink::next`] is waited for. False if the rank is not there, or
    /// has not room for it before it has taken others.
    pub fn send(&mut self, to: u32, tag: u32, payload: &[u8]) -> bool {
        let Some(peer) = self.peer(to).copied() else {
            return false;
        };
        if !self
            .credits
            .spend(to, cost(payload.len()), peer.mailbox.into())
        {
            return false;
        }
        let number = self.numbers.of(to);
        let route = Header {
            flags: Checksum::flag_for(peer.features),
            tag,
            source: DRIVER,
            destination: to,
            sequence: *number,
            ..Header::default()
        };
        *number += 1;
        self.due.extend(chunks(route, payload));
        true
    }

    /// The pack of a rank of an elastic job, if it is there.
    fn peer(&self, rank: u32) -> Option<&Peer> {
        let elastic = matches!(self.membership, Membership::Elastic { .. });
        let (_, peer) = self.peers.range(..=rank).next_back()?;
        (elastic && peer.span.contains(rank)).then_some(peer)
    }

    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Joined {
                span,
                mailbox,
                features,
                ..
            } => {
                let (span, mailbox, features) = (*span, *mailbox, *features);
                let peer = Peer {
                    span,
                    mailbox,
                    features,
                };
                self.peers.insert(span.first_rank, peer);
            }
            Notice::Started if matches!(self.membership, Membership::Fixed(_)) => {
                self.room = Room::new(DRIVER_MAILBOX, self.peers.len());
            }
            Notice::Left { span, .. } | Notice::Lost { span, .. }
                if self.peer(span.first_rank).is_some() =>
            {
                self.peers.remove(&span.first_rank);
            }
            _ => {}
        }
    }

    /// A pack has a message for which it has no credit. What the driver hears it takes at once.
    fn announced(&mut self, frame: &Frame) {
        let mut signals = Vec::new();
        let total = frame
            .body
            .first_chunk()
            .map_or(0, |total| u64::from_le_bytes(*total));
        let message = Announced {
            source: frame.header.source,
            channel: REPORTS.channel,
            sequence: frame.header.sequence,
            cost: cost(total as usize),
        };
        self.room.announced(message, Some(REPORTS), &mut signals);
        self.signal(frame.header.epoch, signals);
    }

    fn taken(&mut self, header: Header, message: &Message) {
        let mut signals = Vec::new();
        // By the first rank of its pack.
        let pack = self.peers.range(..=message.source).next_back();
        let pack = pack.map(|(first_rank, _)| *first_rank).unwrap_or_default();
        let passage = self.room.arrived(message.source, pack, header.sequence);
        self.room
            .taken(passage, cost(message.payload.len()), &mut signals);
        self.room.waits(REPORTS, &mut signals);
        self.signal(header.epoch, signals);
    }

    fn signal(&mut self, epoch: u32, signals: Vec<Signal>) {
        for signal in signals {
            let (kind, destination, sequence, body) = match signal {
                Signal::Grant { source, sequence } => (kind::GRANT, source, sequence, Bytes::new()),
                Signal::Credit { pack, bytes } => {
                    let body = Bytes::copy_from_slice(&bytes.to_le_bytes());
                    (kind::CREDIT, pack, 0, body)
                }
            };
            let header = Header {
                kind,
                epoch,
                source: DRIVER,
                destination,
                sequence,
                ..Header::default()
            };
            self.due.push_back(Frame::new(header, body));
        }
    }

    /// Ends the job: every member is told why. Returns once the switch has confirmed it, or after a short time.
    pub async fn abort(self, reason: &str) {
        self.finish(
            Abort {
                reason: cut_reason(reason.to_string()),
            }
            .to_frame(false),
        )
        .await;
    }

    /// Ends the job in order, after its ranks have left; gives what is heard until then, the final traffic last.
    pub async fn leave(self) -> Vec<Notice> {
        self.finish(Leave { failure: None }.to_frame(false)).await
    }

    async fn finish(mut self, last: Frame) -> Vec<Notice> {
        let mut heard = Vec::new();
        self.due.push_back(last);
        // The switch answers with the end of the job or with "left", and closes.
        let _ = timeout(FAREWELL, async {
            while let Ok(news) = self.next().await {
                if let News::Notice(notice) = news {
                    heard.push(notice);
                }
            }
        })
        .await;
        heard
    }
}

impl Drop for DriverLink {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}
