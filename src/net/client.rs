//! A pack's connections to its switches: join, read, deliver, leave.
//!
//! Joining runs on tokio. From then on threads read and write the sockets: the ranks' own, and a keeper for each connection
//! ([`crate::net::keeper`]), so that ranks which compute starve neither the heartbeat nor the socket. A pack always reads
//! its sockets: what arrives waits in mailboxes, for which there is room ([`crate::net::flow`]).

use crate::net::answers::Answers;
use crate::net::comm::{Comm, CommError, TaskComm};
use crate::net::flow::{self, Announced, Channel, Signal};
use crate::net::frame::{DRIVER, Frame, Header, MESSAGE_MAX, kind};
use crate::net::keeper;
use crate::net::link::{FrameReader, LinkError, dial, ending};
use crate::net::mailbox::{Arrived, Awaited, Closed, Mailbox};
use crate::net::meeting::Meeting;
use crate::net::message::{Control, Hello, Leave, Role, Span, Start, bare_frame, cut_reason};
use crate::net::patience::Patience;
use crate::net::token::{JobId, Token};
use crate::net::wire::{Incoming, PATIENCE, Reading, Wire};
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use rustc_hash::FxHashMap;
use std::io::PipeReader;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

const LOST_AFTER: Duration = Duration::from_millis(LOST_AFTER_MS);

/// How long a connection gets to close after its last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a rank waits to be told why its connection ended. The writing side may notice first, and knows no reason.
const REASON_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of messages that may wait at a pack on credit, all of its ranks together; as much again may by grants.
pub const MAILBOX_BYTES: u32 = 32 << 20;

/// The least of them that one rank gets, in bytes.
pub const MAILBOX_MIN: u32 = 256 << 10;

/// What a pack needs to know to join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The switches, `HOST:PORT` each. All members of a job name the same ones in the same order.
    pub switches: Vec<String>,
    /// The job.
    pub job: JobId,
    /// The proof for this start of these ranks.
    pub token: Token,
    /// The pack's ranks.
    pub span: Span,
    /// All ranks of the job.
    pub size: u32,
    /// The number of this start.
    pub incarnation: u32,
    /// The job's epoch.
    pub epoch: u32,
    /// How long to wait for the switch and for the other ranks.
    pub join_within: Duration,
    /// When every wait of a rank ends at the latest.
    pub deadline: std::time::Instant,
}

/// A joined pack.
pub struct Pack {
    shared: Arc<Shared>,
    /// Whether each rank has its comm.
    taken: Vec<AtomicBool>,
    keepers: Vec<thread::JoinHandle<()>>,
    over: watch::Receiver<usize>,
}

/// What a rank that waits looks for, and the signals that it leaves.
type Look<'a, S, T> = &'a mut dyn FnMut(&mut S, &mut Vec<Signal>) -> Result<Option<T>, Closed>;

/// What the ranks of a pack and its keepers share.
pub(crate) struct Shared {
    pub(crate) span: Span,
    pub(crate) size: u32,
    pub(crate) epoch: u32,
    /// All packs by rising rank, and the bytes that may wait for each of their ranks.
    pub(crate) packs: Vec<(Span, u32)>,
    /// This pack's number among them.
    pub(crate) number: usize,
    pub(crate) driver_mailbox: u32,
    /// The longest piece of a collective's vector, in bytes.
    pub(crate) segment: usize,
    pub(crate) wires: Vec<Wire>,
    pub(crate) mailboxes: Vec<Mailbox>,
    /// The number of each rank's next message to each destination.
    pub(crate) numbers: Vec<Mutex<FxHashMap<u32, u64>>>,
    pub(crate) meeting: Meeting,
    pub(crate) answers: Answers,
    pub(crate) deadline: std::time::Instant,
    /// Ranks of each pack, if they are alike.
    alike: Option<u32>,
    /// The switches were told that the pack leaves.
    leaving: AtomicBool,
    /// Which connections have ended in order.
    left: Vec<AtomicBool>,
    failed: AtomicBool,
    /// How many connections are over.
    over: watch::Sender<usize>,
    end: Mutex<Option<LinkError>>,
    /// Why there is nothing more to wait for, and who wants to know.
    reason: Mutex<Option<String>>,
    explained: Condvar,
}

impl Pack {
    /// Connects, proves itself, and waits until all ranks of the job have joined.
    ///
    /// # Errors
    /// When a switch cannot be reached, refuses, or ends the job, or when not all ranks came in time.
    pub async fn join(options: JoinOptions) -> Result<Pack, LinkError> {
        let deadline = Instant::now() + options.join_within;
        let mut joining = Vec::new();
        for switch in &options.switches {
            joining.push(tokio::spawn(connect(
                switch.clone(),
                options.clone(),
                deadline,
            )));
        }
        let mut wires = Vec::new();
        let mut bells = Vec::new();
        let mut start: Option<Start> = None;
        // They end with this future.
        let mut joining = Abort(joining);
        for connecting in &mut joining.0 {
            let (mut wire, bell, mut told) = connecting.await.expect("joining does not panic")?;
            if let Some(start) = &start {
                if start.packs != told.packs {
                    return Err(LinkError::NotASwitch(options.switches.join(", ")));
                }
                // Each is cut for the switch with the least memory.
                told.segment = told.segment.min(start.segment);
            }
            start = Some(told);
            wire.number = wires.len();
            wires.push(wire);
            bells.push(bell);
        }
        let start = start.expect("there is at least one switch");
        Pack::start(options, start, wires, bells)
    }

    fn start(
        options: JoinOptions,
        start: Start,
        wires: Vec<Wire>,
        bells: Vec<PipeReader>,
    ) -> Result<Pack, LinkError> {
        let span = options.span;
        let packs = start.each()?;
        let number =
            packs
                .iter()
                .position(|(other, _)| *other == span)
                .ok_or(LinkError::Misrouted {
                    destination: span.first_rank,
                    span,
                })?;
        let mailbox = packs[number].1;
        let room = || flow::Room::new(mailbox, packs.len());
        let (over, is_over) = watch::channel(0);
        let shared = Arc::new(Shared {
            span,
            size: options.size,
            epoch: options.epoch,
            number,
            driver_mailbox: start.driver_mailbox,
            segment: start.segment.max(16) as usize,
            left: wires.iter().map(|_| AtomicBool::new(false)).collect(),
            mailboxes: (0..span.ranks).map(|_| Mailbox::new(room())).collect(),
            numbers: (0..span.ranks).map(|_| Mutex::default()).collect(),
            meeting: Meeting::new(span.ranks as usize),
            answers: Answers::new(wires.len()),
            deadline: options.deadline,
            alike: (start.packs.len() == 1).then(|| start.packs[0].ranks),
            leaving: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            over,
            end: Mutex::default(),
            reason: Mutex::default(),
            explained: Condvar::new(),
            packs,
            wires,
        });
        let mut pack = Pack {
            taken: (0..span.ranks).map(|_| AtomicBool::new(false)).collect(),
            keepers: Vec::new(),
            over: is_over,
            shared: shared.clone(),
        };
        for (index, bell) in bells.into_iter().enumerate() {
            let shared = shared.clone();
            let keeper = thread::Builder::new()
                .name(format!("keeper {index}"))
                .spawn(move || keeper::keep(shared, index, bell))
                .map_err(|source| LinkError::Io {
                    peer: "switch",
                    source,
                })?;
            pack.keepers.push(keeper);
        }
        Ok(pack)
    }

    /// The pack's ranks.
    pub fn span(&self) -> Span {
        self.shared.span
    }

    /// What one rank of the pack speaks through. `index` counts from 0 within the pack.
    ///
    /// # Panics
    /// When the rank is not of this pack, or has its comm already: a second one would number its messages from 0 again.
    pub fn comm(&self, index: u32) -> Comm {
        let taken = self.taken[index as usize].swap(true, Ordering::Relaxed);
        assert!(!taken, "a rank has one comm");
        Comm::new(self.shared.clone(), self.shared.span.first_rank + index)
    }

    /// What the one rank of this pack speaks through if it is a task.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    ///
    /// # Panics
    /// When the pack has several ranks or switches, or the rank has its comm already.
    pub fn task_comm(&self) -> std::io::Result<TaskComm> {
        assert!(
            self.shared.leads(),
            "only a lone rank with one switch is a task"
        );
        let taken = self.taken[0].swap(true, Ordering::Relaxed);
        assert!(!taken, "a rank has one comm");
        TaskComm::new(self.shared.clone(), self.shared.span.first_rank)
    }

    /// One of the pack's ranks failed: the switches are told why at once, and every wait of the others ends, now and later.
    pub fn fail(&self, failure: &str) {
        self.shared
            .explain("another rank of this pack failed".into());
        self.say_leave(Some(failure.to_string()));
        self.shared.close_mailboxes();
    }

    fn say_leave(&self, failure: Option<String>) {
        if !self.shared.leaving.swap(true, Ordering::Relaxed) {
            let leave = Leave {
                failure: failure.map(cut_reason),
            }
            .to_frame(false);
            for wire in &self.shared.wires {
                wire.push_last(&leave);
                wire.flush();
                wire.ring();
            }
        }
    }

    /// Says that the pack is done, or why its program failed unless [`Pack::fail`] has said so; waits for the answers and closes. Messages that were sent
    /// before may still wait for slow receivers: as long as the switch lives, a pack that is done waits with them until
    /// its deadline, and one that failed for a short time.
    ///
    /// # Errors
    /// When a connection or the job ended first, which an orderly end does not.
    pub async fn leave(mut self, failure: Option<String>) -> Result<(), LinkError> {
        let mut patience = LOST_AFTER;
        if failure.is_none() {
            let left = self
                .shared
                .deadline
                .saturating_duration_since(std::time::Instant::now());
            patience = patience.max(left);
        }
        self.say_leave(failure);
        let wires = self.shared.wires.len();
        // It ends by itself when the switch is silent.
        let answered = timeout(patience, self.over.wait_for(|over| *over >= wires))
            .await
            .is_ok();
        self.shared.explain("the pack has left the job".into());
        let ended = lock(&self.shared.end).take();
        self.shared.wires.iter().for_each(Wire::shut_sending);
        self.shared.failed.store(true, Ordering::Relaxed);
        self.shared.wires.iter().for_each(Wire::ring);
        let keepers = std::mem::take(&mut self.keepers);
        // So that nothing of this pack is left when a worker replies.
        let joined = tokio::task::spawn_blocking(move || {
            keepers.into_iter().for_each(|keeper| drop(keeper.join()));
        });
        let _ = timeout(FAREWELL, joined).await;
        match (answered, ended) {
            (_, Some(error)) => Err(error),
            (true, None) => Ok(()),
            (false, None) => Err(LinkError::Silent {
                peer: "switch",
                seconds: patience.as_secs(),
            }),
        }
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        self.shared.explain("the pack has left the job".into());
        self.shared.failed.store(true, Ordering::Relaxed);
        self.shared.close_mailboxes();
        self.shared.wires.iter().for_each(Wire::shut);
    }
}

/// Tasks that end with their owner.
struct Abort<T>(Vec<tokio::task::JoinHandle<T>>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Joins at one switch.
async fn connect(
    switch: String,
    options: JoinOptions,
    deadline: Instant,
) -> Result<(Wire, PipeReader, Start), LinkError> {
    let role = Role::Pack {
        span: options.span,
        incarnation: options.incarnation,
        epoch: options.epoch,
        mailbox: (MAILBOX_BYTES / options.span.ranks.max(1)).max(MAILBOX_MIN),
    };
    let hello = Hello::new(options.job, options.token, role);
    let (mut reader, mut write) = dial(&switch, &hello, deadline).await?;
    let start = match timeout_at(deadline, wait_for_start(&mut reader, &mut write)).await {
        Ok(start) => start?,
        Err(_) => {
            return Err(LinkError::NotStarted {
                seconds: options.join_within.as_secs(),
            });
        }
    };
    let io = |source| LinkError::Io {
        peer: "switch",
        source,
    };
    let (stream, already) = reader.into_stream(write);
    let (wire, bell) = Wire::new(stream.into_std().map_err(io)?, &already).map_err(io)?;
    Ok((wire, bell, start))
}

async fn wait_for_start(
    reader: &mut FrameReader,
    write: &mut OwnedWriteHalf,
) -> Result<Start, LinkError> {
    let mut beats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    let mut beat = Vec::new();
    bare_frame(kind::HEARTBEAT, false).put(&mut beat);
    let mut silent_at = Instant::now() + LOST_AFTER;
    loop {
        let frame = tokio::select! {
            frame = timeout_at(silent_at, reader.next()) => match frame {
                Ok(frame) => frame?,
                Err(_) => return Err(LinkError::Silent { peer: "switch", seconds: LOST_AFTER.as_secs() }),
            },
            _ = beats.tick() => {
                // A failure to write shows on the reading side too, where the reason is.
                let _ = write.write_all(&beat).await;
                continue;
            }
        };
        silent_at = Instant::now() + LOST_AFTER;
        match frame.header.kind {
            kind::HEARTBEAT => {}
            kind::START => return Ok(Start::from_body(&frame.body)?),
            _ => return Err(ending(&frame)),
        }
    }
}

impl Shared {
    /// The number of a rank's pack.
    pub(crate) fn pack_of(&self, rank: u32) -> usize {
        match self.alike {
            Some(ranks) => (rank / ranks) as usize,
            None => self.packs.partition_point(|(span, _)| span.end() <= rank),
        }
    }

    /// The connection over which this pack speaks with another; the driver speaks over the first.
    pub(crate) fn wire_to(&self, pack: usize) -> &Wire {
        &self.wires[switch_between(self.number as u32, pack as u32, self.wires.len())]
    }

    /// The connection to a rank or the driver, and what this pack may have under way to it on credit.
    pub(crate) fn way_to(&self, destination: u32) -> (&Wire, u64) {
        if destination == DRIVER {
            return (
                &self.wires[0],
                flow::share(self.driver_mailbox, self.packs.len()),
            );
        }
        let pack = self.pack_of(destination);
        let share = flow::share(self.packs[pack].1, self.packs.len());
        (self.wire_to(pack), share)
    }

    /// True if a rank that waits reads the socket itself.
    fn leads(&self) -> bool {
        self.wires.len() == 1 && self.span.ranks == 1
    }

    /// Reads the socket in the place of the keeper, once, waiting for a short time; unless something was delivered since
    /// `seen`, which the rank has to look at first.
    fn lead(&self, seen: u64) {
        let wire = &self.wires[0];
        let written = wire.flush();
        let leading = wire.lead();
        let mut incoming = wire.incoming();
        if wire.delivered() == seen {
            if written {
                self.pump(0, &mut incoming, Reading::Waiting);
            } else if wire.wait(PATIENCE, true) {
                self.pump(0, &mut incoming, Reading::AtOnce);
            }
        }
        drop(leading);
    }

    /// Sends what waits on all connections.
    pub(crate) fn flush(&self) {
        for wire in &self.wires {
            wire.flush();
        }
    }

    /// Waits until `look` finds something in what `mutex` guards; `what` says what is waited for. The signals that `look`
    /// leaves are sent in the name of rank `of`.
    pub(crate) fn wait<S: Awaited, T>(
        &self,
        (mutex, changed): (&Mutex<S>, &Condvar),
        rank: u32,
        what: &dyn Fn() -> String,
        look: Look<'_, S, T>,
    ) -> Result<T, CommError> {
        let mut signals = Vec::new();
        let mut patience = None;
        loop {
            let seen = self.wires[0].delivered();
            let mut state = lock(mutex);
            let found = look(&mut state, &mut signals);
            if !signals.is_empty() {
                drop(state);
                self.signal(rank, &mut signals);
                match found {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => continue,
                    Err(Closed) => return Err(self.ended()),
                }
            }
            match found {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(Closed) => return Err(self.ended()),
            }
            let deadline = || CommError::Deadline { rank, what: what() };
            let Some(patience) = &mut patience else {
                drop(state);
                let impatient = || warn!("rank {rank} has waited 5 s for {}", what());
                patience = Some(Patience::new(self.deadline, impatient));
                if self.span.ranks > 1 && self.wires.iter().any(Wire::is_waiting) {
                    // Other ranks of the pack may be about to send too: who comes back first sends for all.
                    thread::yield_now();
                }
                self.flush();
                continue;
            };
            if self.leads() {
                drop(state);
                if !patience.is_left() {
                    return Err(deadline());
                }
                self.lead(seen);
            } else {
                *state.sleeping() += 1;
                let mut state = patience.wait(changed, state).ok_or_else(deadline)?;
                *state.sleeping() -= 1;
            }
        }
    }

    /// Reads connection `index` once, and delivers what came. True if nothing is left to read for now.
    pub(crate) fn pump(&self, index: usize, incoming: &mut Incoming, how: Reading) -> bool {
        let wire = &self.wires[index];
        // What was read before the keeper began is delivered too.
        let room = incoming.room();
        let read = wire.read(incoming, how);
        let drained = !matches!(&read, Ok(Some(count)) if *count == room);
        let outcome = match read {
            Ok(Some(0)) => Err(LinkError::Closed("switch")),
            Ok(_) => Ok(()),
            Err(source) => Err(LinkError::Io {
                peer: "switch",
                source,
            }),
        };
        let delivered = self.deliver(index, incoming);
        wire.has_delivered();
        if let Err(error) = delivered.and(outcome) {
            self.fail_on(index, error);
        }
        drained
    }

    fn deliver(&self, index: usize, incoming: &mut Incoming) -> Result<(), LinkError> {
        let wire = &self.wires[index];
        let mut signals = Vec::new();
        // What one read brought is handed over rank by rank, so that each is woken once.
        let mut batches = std::mem::take(&mut incoming.batches);
        batches.resize_with(self.mailboxes.len(), Vec::new);
        let outcome = loop {
            let (header, body) = match incoming.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            let (body, reassembly) = incoming.body(body);
            let step = match header.kind {
                kind::DATA => match reassembly.accept(header, body) {
                    Ok(None) => Ok(()),
                    Ok(Some(message)) => self.place(header.destination).map(|place| {
                        batches[place].push(Arrived {
                            message,
                            channel: channel(header),
                            pack: self.pack_number(header.source),
                            sequence: header.sequence,
                        });
                    }),
                    Err(error) => Err(error.into()),
                },
                kind::ANNOUNCE => {
                    // After what came before it: the same rank's granted message may be there, and is not under way any more.
                    self.hand_over(&mut batches, &mut signals);
                    self.announced(header, body, &mut signals)
                }
                kind::GRANT => self
                    .mailbox(header.destination)
                    .map(|mailbox| mailbox.granted(header.source, header.sequence)),
                kind::CREDIT => match body.first_chunk() {
                    Some(bytes) if wire.returned(header.source, u64::from_le_bytes(*bytes)) => {
                        Ok(())
                    }
                    _ => Err(LinkError::Credit(header.source)),
                },
                kind::STATE => self
                    .mailbox(header.destination)
                    .map(|mailbox| mailbox.replied(header.sequence, body.to_vec())),
                kind::COMBINED => self.answers.arrived(index, header, body),
                kind::HEARTBEAT => Ok(()),
                kind::LEFT => {
                    self.left[index].store(true, Ordering::Relaxed);
                    self.over.send_modify(|over| *over += 1);
                    Ok(())
                }
                _ => Err(ending(&Frame {
                    header,
                    body: body.to_vec().into(),
                })),
            };
            if step.is_err() {
                break step;
            }
        };
        self.hand_over(&mut batches, &mut signals);
        incoming.batches = batches;
        outcome
    }

    fn hand_over(&self, batches: &mut [Vec<Arrived>], signals: &mut Vec<Signal>) {
        for ((rank, mailbox), batch) in (self.span.first_rank..).zip(&self.mailboxes).zip(batches) {
            if !batch.is_empty() {
                mailbox.deliver(batch, signals);
                self.signal(rank, signals);
            }
        }
    }

    fn announced(
        &self,
        header: Header,
        body: &[u8],
        signals: &mut Vec<Signal>,
    ) -> Result<(), LinkError> {
        let total = body
            .first_chunk()
            .map(|total| u64::from_le_bytes(*total))
            .filter(|total| *total <= MESSAGE_MAX)
            .ok_or(LinkError::Announced(header.source))?;
        let message = Announced {
            source: header.source,
            channel: channel(header),
            sequence: header.sequence,
            cost: flow::cost(total as usize),
        };
        self.mailbox(header.destination)?
            .announced(message, signals);
        self.signal(header.destination, signals);
        Ok(())
    }

    /// The place of a rank in this pack.
    fn place(&self, rank: u32) -> Result<usize, LinkError> {
        if self.span.contains(rank) {
            return Ok((rank - self.span.first_rank) as usize);
        }
        Err(LinkError::Misrouted {
            destination: rank,
            span: self.span,
        })
    }

    /// The mailbox of a rank of this pack.
    pub(crate) fn mailbox(&self, rank: u32) -> Result<&Mailbox, LinkError> {
        self.place(rank).map(|place| &self.mailboxes[place])
    }

    /// The number of a source's pack; the driver comes after the last.
    fn pack_number(&self, source: u32) -> u32 {
        if source == DRIVER {
            self.packs.len() as u32
        } else {
            self.pack_of(source) as u32
        }
    }

    /// Tells senders what the room of a rank allows.
    pub(crate) fn signal(&self, rank: u32, signals: &mut Vec<Signal>) {
        for signal in signals.drain(..) {
            let (kind, destination, sequence, body) = match signal {
                Signal::Grant { source, sequence } => (kind::GRANT, source, sequence, Vec::new()),
                Signal::Credit { pack, bytes } => match self.packs.get(pack as usize) {
                    Some((span, _)) => (
                        kind::CREDIT,
                        span.first_rank,
                        0,
                        bytes.to_le_bytes().to_vec(),
                    ),
                    // The driver has no credit; it announces.
                    None => continue,
                },
            };
            let header = Header {
                kind,
                epoch: self.epoch,
                source: rank,
                destination,
                sequence,
                ..Header::default()
            };
            self.way_to(destination)
                .0
                .push(&Frame::new(header, body.into()));
        }
    }

    /// Ranks whose calls fail from here on are told this, unless they were told something before.
    pub(crate) fn explain(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
        self.explained.notify_all();
    }

    fn fail_on(&self, index: usize, error: LinkError) {
        // After the last word a switch closes.
        if !self.left[index].load(Ordering::Relaxed) {
            self.fail(error);
        }
    }

    /// A connection or the job ended out of order: every rank that waits, or will, is told why.
    pub(crate) fn fail(&self, error: LinkError) {
        self.explain(error.to_string());
        lock(&self.end).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
        self.wires.iter().for_each(Wire::break_off);
        self.close_mailboxes();
        let all = self.wires.len();
        self.over.send_modify(|over| *over = all);
    }

    pub(crate) fn close_mailboxes(&self) {
        self.mailboxes.iter().for_each(Mailbox::close);
        self.meeting.close();
        self.answers.close();
    }

    /// True if there is nothing more to read from a connection.
    pub(crate) fn has_ended(&self, index: usize) -> bool {
        self.failed.load(Ordering::Relaxed) || self.left[index].load(Ordering::Relaxed)
    }

    /// True if the switches were told that the pack leaves; nothing is sent after that.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> CommError {
        let reason = lock(&self.reason);
        let (reason, _) = self
            .explained
            .wait_timeout_while(reason, REASON_WITHIN, |reason| reason.is_none())
            .expect("no holder of this lock panics");
        let unknown = || "the connection to the switch was lost".into();
        CommError::Ended(reason.clone().unwrap_or_else(unknown))
    }
}

/// Which of `switches` two packs speak over, by their numbers. The same for both; spread evenly.
pub fn switch_between(a: u32, b: u32, switches: usize) -> usize {
    let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
    // Fibonacci hashing: the high bits of a product with 2^64 divided by the golden ratio.
    let hash = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(hash) * switches as u128) >> 64) as usize
}

fn channel(header: Header) -> Channel {
    Channel {
        group: header.group,
        tag: header.tag,
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
