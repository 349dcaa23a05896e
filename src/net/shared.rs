//! What the ranks of a pack and its keepers share: who is in the job and the way there, waiting, and why it ended.

use crate::net::answers::Answers;
use crate::net::by_rank::ByRank;
use crate::net::checksum::Checksum;
use crate::net::client::JoinOptions;
use crate::net::comm::{Call, CommError};
use crate::net::flow::{self, Signal};
use crate::net::frame::{DRIVER, Frame, Header, kind};
use crate::net::link::LinkError;
use crate::net::mailbox::{Awaited, Closed, Mailbox};
use crate::net::meeting::Meeting;
use crate::net::message::{FEATURE_CRC32, Peer, Span, Start};
use crate::net::patience::Patience;
use crate::net::wire::{self, PATIENCE, Reading, Wire};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

/// How long a rank waits to be told why its connection ended. The writing side may notice first, and knows no reason.
const REASON_WITHIN: Duration = Duration::from_secs(2);

/// What a rank that waits looks for, and the signals that it leaves.
type Look<'a, S, T> = &'a mut dyn FnMut(&mut S, &mut Vec<Signal>) -> Result<Option<T>, Closed>;

/// See the module.
pub(crate) struct Shared {
    pub(crate) span: Span,
    pub(crate) size: u32,
    pub(crate) epoch: u32,
    /// All packs by rising rank; of an elastic job this one alone.
    pub(crate) packs: Vec<Peer>,
    /// Ranks come and go, and do not know each other.
    pub(crate) elastic: bool,
    /// A pack asks for CRC-32: a look at its features is worth while.
    crc32: bool,
    /// This pack's number among them.
    pub(crate) number: usize,
    pub(crate) driver_mailbox: u32,
    /// The longest piece of a collective's vector, in bytes.
    pub(crate) segment: usize,
    pub(crate) wires: Vec<Wire>,
    pub(crate) mailboxes: Vec<Mailbox>,
    /// The number of each rank's next message to each destination.
    pub(crate) numbers: Vec<Mutex<ByRank<u64>>>,
    pub(crate) meeting: Meeting<Call>,
    pub(crate) answers: Answers,
    pub(crate) deadline: std::time::Instant,
    /// Ranks of each pack, if they are alike.
    alike: Option<u32>,
    /// The switches were told that the pack leaves.
    leaving: AtomicBool,
    /// Which connections have ended in order.
    left: Vec<AtomicBool>,
    failed: AtomicBool,
    /// Ranks that sleep until something is delivered to them.
    sleeping: AtomicUsize,
    /// How many connections are over.
    over: watch::Sender<usize>,
    end: Mutex<Option<LinkError>>,
    /// Why there is nothing more to wait for, and who wants to know.
    reason: Mutex<Option<String>>,
    explained: Condvar,
}

impl Shared {
    /// What a job that has begun looks like from a pack, over connections to its switches; and how many of them are over.
    ///
    /// # Errors
    /// When the start does not name the pack.
    pub(crate) fn new(
        options: &JoinOptions,
        start: &Start,
        wires: Vec<Wire>,
    ) -> Result<(Shared, watch::Receiver<usize>), LinkError> {
        let span = options.span;
        let mut packs = start.each()?;
        let elastic = packs.is_empty();
        if elastic {
            packs.push(Peer {
                span,
                mailbox: options.mailbox(),
                features: 0,
            });
        }
        let number =
            packs
                .iter()
                .position(|pack| pack.span == span)
                .ok_or(LinkError::Misrouted {
                    destination: span.first_rank,
                    span,
                })?;
        let mailbox = packs[number].mailbox;
        let room = || flow::Room::new(mailbox, packs.len());
        let (over, is_over) = watch::channel(0);
        let shared = Shared {
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
            sleeping: AtomicUsize::new(0),
            over,
            end: Mutex::default(),
            reason: Mutex::default(),
            explained: Condvar::new(),
            crc32: packs.iter().any(|pack| pack.features & FEATURE_CRC32 != 0),
            elastic,
            packs,
            wires,
        };
        Ok((shared, is_over))
    }

    /// The number of a rank's pack.
    pub(crate) fn pack_of(&self, rank: u32) -> usize {
        match self.alike {
            Some(ranks) => (rank / ranks) as usize,
            None => self.packs.partition_point(|pack| pack.span.end() <= rank),
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
        let share = flow::share(self.packs[pack].mailbox, self.packs.len());
        (self.wire_to(pack), share)
    }

    /// The flags of messages to a rank or the driver: which checksum they want.
    pub(crate) fn flags_to(&self, destination: u32) -> u8 {
        if !self.crc32 || destination == DRIVER {
            return 0;
        }
        Checksum::flag_for(self.packs[self.pack_of(destination)].features)
    }

    /// True if a rank that waits for anything reads the sockets itself.
    pub(crate) fn leads(&self) -> bool {
        self.span.ranks == 1
    }

    /// True if ranks wait that do not read the sockets themselves.
    pub(crate) fn has_sleepers(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst) > 0
    }

    /// A rank sleeps until something is delivered: a keeper that has left its socket to a rank looks after it again.
    fn wake_keepers(&self) {
        for wire in &self.wires {
            if wire.is_left_alone() {
                wire.ring();
            }
        }
    }

    /// How often something was delivered. It changes only while `incoming` of a wire is locked.
    pub(crate) fn delivered(&self) -> u64 {
        self.wires.iter().map(Wire::delivered).sum()
    }

    /// Reads the sockets in the place of the keepers, once, waiting for a short time; unless something was delivered since
    /// `seen`, which the rank has to look at first.
    fn lead(&self, seen: u64) {
        let written = self.flush();
        let [wire] = &self.wires[..] else {
            return self.lead_several(seen);
        };
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

    fn lead_several(&self, seen: u64) {
        let leading: Vec<_> = self.wires.iter().map(Wire::lead).collect();
        let mut incoming: Vec<_> = self.wires.iter().map(Wire::incoming).collect();
        if self.delivered() == seen {
            let readable = wire::wait_for_any(&self.wires, PATIENCE);
            for (index, incoming) in incoming.iter_mut().enumerate() {
                if readable & 1 << index != 0 {
                    self.pump(index, incoming, Reading::AtOnce);
                }
            }
        }
        drop(leading);
    }

    /// Sends what waits on all connections, as far as they take it now. True if nothing is left.
    pub(crate) fn flush(&self) -> bool {
        // Each is, whatever becomes of the others.
        self.wires.iter().filter(|wire| !wire.flush()).count() == 0
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
        let leads = self.leads() || S::BY_SWITCH;
        loop {
            let seen = self.delivered();
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
                if !leads && self.wires.iter().any(Wire::is_waiting) {
                    // Other ranks of the pack may be about to send too: who comes back first sends for all.
                    thread::yield_now();
                }
                self.flush();
                continue;
            };
            if leads {
                drop(state);
                if !patience.is_left() {
                    return Err(deadline());
                }
                self.lead(seen);
            } else {
                *state.sleeping() += 1;
                self.sleeping.fetch_add(1, Ordering::SeqCst);
                self.wake_keepers();
                let woken = patience.wait(changed, state);
                self.sleeping.fetch_sub(1, Ordering::SeqCst);
                *woken.ok_or_else(deadline)?.sleeping() -= 1;
            }
        }
    }

    /// The place of a rank in this pack.
    pub(crate) fn place(&self, rank: u32) -> Result<usize, LinkError> {
        if self.span.contains(rank) {
            return Ok(self.span.place(rank));
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

    /// Tells senders what the room of a rank allows.
    pub(crate) fn signal(&self, rank: u32, signals: &mut Vec<Signal>) {
        for signal in signals.drain(..) {
            let (kind, destination, sequence, body) = match signal {
                Signal::Grant { source, sequence } => (kind::GRANT, source, sequence, Vec::new()),
                Signal::Credit { pack, bytes } => match self.packs.get(pack as usize) {
                    Some(Peer { span, .. }) => (
                        kind::CREDIT,
                        span.first_rank,
                        0,
                        bytes.to_le_bytes().to_vec(),
                    ),
                    None if self.elastic => (kind::CREDIT, DRIVER, 0, bytes.to_le_bytes().to_vec()),
                    // The driver of a fixed job has no credit; it announces.
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

    pub(crate) fn fail_on(&self, index: usize, error: LinkError) {
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

    /// The pack begins to leave. False if it did before.
    pub(crate) fn begin_to_leave(&self) -> bool {
        !self.leaving.swap(true, Ordering::Relaxed)
    }

    /// A switch has said that a connection may close.
    pub(crate) fn has_left(&self, index: usize) {
        self.left[index].store(true, Ordering::Relaxed);
        self.over.send_modify(|over| *over += 1);
    }

    /// The address of a switch that has not said yet that its connection may close.
    pub(crate) fn unanswered(&self) -> Arc<str> {
        let silent = self
            .left
            .iter()
            .position(|left| !left.load(Ordering::Relaxed));
        self.wires[silent.unwrap_or_default()].address.clone()
    }

    /// Nothing more is read or written: keepers end. Gives why the job ended out of order, if it did.
    pub(crate) fn give_up(&self) -> Option<LinkError> {
        self.explain("the pack has left the job".into());
        self.failed.store(true, Ordering::Relaxed);
        lock(&self.end).take()
    }

    /// Every wait of a rank ends, now and later.
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

/// At which of `switches` a counter, queue or vector of this name lies.
pub fn switch_of(name: &str, switches: usize) -> usize {
    crc32c::crc32c(name.as_bytes()) as usize % switches
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
