//! The driver's connection to one switch: it creates the job there, hears what becomes of it, and ends it.
//!
//! A job's driver has one for each switch; [`crate::net::job_link`] makes one of them.

use crate::net::LOST_AFTER_MS;
use crate::net::flow::{Announced, Channel, Room, Signal, Wanted, cost};
use crate::net::frame::{DRIVER, Frame, Header, kind};
use crate::net::link::{FrameReader, LinkError, dial, ending, write_frames};
use crate::net::message::{Abort, Control, Hello, Leave, Notice, Role, bare_frame, cut_reason};
use crate::net::reassembly::{Message, Reassembly};
use crate::net::token::{JobId, Token};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
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

/// Frames that may wait to be written. The driver sends little, and reads nothing more while they are so many.
const OUTGOING_MAX: usize = 1024;

/// Bytes of messages for the driver that may be under way on credit.
pub const DRIVER_MAILBOX: u32 = 64 << 20;

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
    /// What is to be sent before anything more is read.
    answers: VecDeque<Frame>,
    reassembly: Reassembly,
    room: Room,
    /// The first rank of each pack that joined.
    packs: BTreeSet<u32>,
    heartbeat: JoinHandle<()>,
}

impl DriverLink {
    /// Connects to the switch at `address` and creates a fixed job of `size` ranks.
    ///
    /// # Errors
    /// When the switch cannot be reached within `within`, or refuses.
    pub async fn create(
        address: &str,
        job: JobId,
        token: Token,
        size: u32,
        within: Duration,
    ) -> Result<DriverLink, LinkError> {
        let hello = Hello::new(
            job,
            token,
            Role::Driver {
                size,
                mailbox: DRIVER_MAILBOX,
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
            address: address.into(),
            reader,
            heard: Instant::now(),
            outgoing,
            answers: VecDeque::new(),
            reassembly: Reassembly::default(),
            room: Room::new(DRIVER_MAILBOX, 1),
            packs: BTreeSet::new(),
            heartbeat,
        })
    }

    /// Waits for the next news. Cancel-safe.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub async fn next(&mut self) -> Result<News, LinkError> {
        loop {
            self.answer().await;
            // The clock goes on while others are listened to.
            let frame = match timeout_at(self.heard + LOST_AFTER, self.reader.next()).await {
                Ok(outcome) => outcome?,
                Err(_) => {
                    return Err(LinkError::Silent {
                        address: self.address.clone(),
                        seconds: LOST_AFTER.as_secs(),
                    });
                }
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
                kind::HEARTBEAT => {}
                _ => return Err(ending(&frame)),
            }
        }
    }

    /// Sends what is due. Cancel-safe. When the connection takes nothing, reading tells why.
    async fn answer(&mut self) {
        while !self.answers.is_empty() {
            let place = self.outgoing.reserve().await;
            let frame = self.answers.pop_front();
            if let (Ok(place), Some(frame)) = (place, frame) {
                place.send(frame);
            }
        }
    }

    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Joined { span, .. } => {
                self.packs.insert(span.first_rank);
            }
            Notice::Started => self.room = Room::new(DRIVER_MAILBOX, self.packs.len()),
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
        let pack = self.packs.range(..=message.source).next_back();
        let pack = pack.copied().unwrap_or_default();
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
            self.answers.push_back(Frame::new(header, body));
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
        self.answers.push_back(last);
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
