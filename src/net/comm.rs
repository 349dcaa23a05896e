//! What a rank sees: its rank and the job's size, send, receive, and collectives.
//!
//! A message to a rank of the same pack is a pointer hand-over; any other goes to the switch. All calls block the
//! calling thread, which must not be one of the runtime's.

use crate::net::collective::{ELEMENTS_MAX, SUM_I128, encode};
use crate::net::frame::{DRIVER, Frame, Header, MESSAGE_MAX, SWITCH, chunks, kind};
use crate::net::link::LinkError;
use crate::net::mailbox::{Mailbox, NoMessage};
use crate::net::meeting::{Meeting, NoResult};
use crate::net::message::Span;
use crate::net::outbox::Outbox;
use crate::net::reassembly::Message;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use thiserror::Error;
use tracing::warn;

/// Bytes of messages that may wait in the mailboxes of one pack, those included of which only the first chunks have
/// arrived. A program that lets more pile up is ended with an error
/// rather than by the system's.
pub const MAILBOXES_MAX: usize = 1 << 30;

/// What a waiting message takes besides its payload, in bytes, so that empty ones do not wait for nothing.
const MESSAGE_COST: usize = 64;

/// How long a rank waits to be told why its connection ended. The writing side may notice first, and knows no reason.
const REASON_WITHIN: Duration = Duration::from_secs(2);

/// Why a rank's call failed.
#[derive(Debug, Error)]
pub enum CommError {
    /// The connection or the job ended.
    #[error("{0}")]
    Ended(String),
    /// A wait lasted until the invocation's deadline.
    #[error("rank {rank} waited for {what} until its deadline")]
    Deadline {
        /// The rank that waited.
        rank: u32,
        /// For what, and whom.
        what: String,
    },
    /// The program made a call that cannot be served.
    #[error("{0}")]
    Usage(String),
}

/// What the ranks of a pack and its connection's tasks share.
pub(crate) struct Shared {
    pub(crate) span: Span,
    pub(crate) size: u32,
    pub(crate) epoch: u32,
    pub(crate) packs: Vec<Span>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) meeting: Meeting,
    pub(crate) deadline: Instant,
    mailboxes: Vec<Mailbox>,
    mailbox_bytes: AtomicUsize,
    end: Mutex<Option<LinkError>>,
    /// Why there is nothing more to wait for, and who wants to know.
    reason: Mutex<Option<String>>,
    explained: Condvar,
}

impl Shared {
    pub(crate) fn new(
        span: Span,
        size: u32,
        epoch: u32,
        packs: Vec<Span>,
        outbox: Arc<Outbox>,
        deadline: Instant,
    ) -> Shared {
        Shared {
            span,
            size,
            epoch,
            packs,
            outbox,
            meeting: Meeting::new(span.ranks as usize),
            deadline,
            mailboxes: (0..span.ranks).map(|_| Mailbox::default()).collect(),
            mailbox_bytes: AtomicUsize::new(0),
            end: Mutex::default(),
            reason: Mutex::default(),
            explained: Condvar::new(),
        }
    }

    /// Puts a message into the mailbox of a rank of this pack.
    pub(crate) fn deliver(&self, destination: u32, message: Message) -> Result<(), LinkError> {
        let index = destination.wrapping_sub(self.span.first_rank) as usize;
        let Some(mailbox) = self.mailboxes.get(index) else {
            return Err(LinkError::Misrouted {
                destination,
                span: self.span,
            });
        };
        let cost = message.payload.len() + MESSAGE_COST;
        let waiting = self.mailbox_bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        if waiting > MAILBOXES_MAX {
            self.mailbox_bytes.fetch_sub(cost, Ordering::Relaxed);
            return Err(LinkError::MailboxesFull {
                destination,
                source_rank: message.source,
                tag: message.tag,
            });
        }
        mailbox.deliver(message);
        Ok(())
    }

    /// True if `pending` bytes of incomplete messages are more than may wait besides the complete ones.
    pub(crate) fn is_full(&self, pending: usize) -> bool {
        self.mailbox_bytes.load(Ordering::Relaxed) + pending > MAILBOXES_MAX
    }

    /// Ranks whose calls fail from here on are told this, unless they were told something before.
    pub(crate) fn explain(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
        self.explained.notify_all();
    }

    /// The connection or the job ended out of order: every rank that waits, or will, is told why.
    pub(crate) fn fail(&self, error: LinkError) {
        self.explain(error.to_string());
        lock(&self.end).get_or_insert(error);
        self.outbox.discard();
        self.close_mailboxes();
    }

    pub(crate) fn close_mailboxes(&self) {
        self.mailboxes.iter().for_each(Mailbox::close);
        self.meeting.close();
    }

    pub(crate) fn end_error(&self) -> Option<LinkError> {
        lock(&self.end).take()
    }

    fn ended(&self) -> CommError {
        let reason = lock(&self.reason);
        let (reason, _) = self
            .explained
            .wait_timeout_while(reason, REASON_WITHIN, |reason| reason.is_none())
            .expect("no holder of this lock panics");
        let unknown = || "the connection to the switch was lost".into();
        CommError::Ended(reason.clone().unwrap_or_else(unknown))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

/// One rank's end of the wire.
pub struct Comm {
    shared: Arc<Shared>,
    rank: u32,
    /// The number of the next message to each destination.
    next: HashMap<u32, u64>,
    sent_messages: u64,
    sent_bytes: u64,
}

impl Comm {
    pub(crate) fn new(shared: Arc<Shared>, rank: u32) -> Comm {
        Comm {
            shared,
            rank,
            next: HashMap::new(),
            sent_messages: 0,
            sent_bytes: 0,
        }
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// All ranks of the job.
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// The packs of the job, by rising rank.
    pub fn packs(&self) -> &[Span] {
        &self.shared.packs
    }

    /// Messages and payload bytes that this rank sent through the switch.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent_messages, self.sent_bytes)
    }

    /// Sends a message to a rank, itself included. Returns when it is handed over: to the mailbox of a rank of this pack,
    /// else to the connection's queue, for room in which it may wait. Order is kept for each source, destination and tag.
    ///
    /// # Errors
    /// When there is no such rank, or the connection or the job ended.
    pub fn send(&mut self, to: u32, tag: u32, payload: Bytes) -> Result<(), CommError> {
        if to >= self.shared.size {
            return Err(CommError::Usage(format!(
                "rank {} sent to rank {to} of a job of {} ranks",
                self.rank, self.shared.size
            )));
        }
        if payload.len() as u64 > MESSAGE_MAX {
            return Err(CommError::Usage(format!(
                "rank {} sent a message of {} bytes to rank {to}; the most is {MESSAGE_MAX}",
                self.rank,
                payload.len()
            )));
        }
        if self.shared.span.contains(to) {
            let message = Message {
                source: self.rank,
                tag,
                payload,
            };
            return self
                .shared
                .deliver(to, message)
                .map_err(|error| CommError::Ended(error.to_string()));
        }
        self.transmit(to, tag, payload)
    }

    /// Sends a message to the driver, which has no rank.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub fn send_to_driver(&mut self, tag: u32, payload: Bytes) -> Result<(), CommError> {
        self.transmit(DRIVER, tag, payload)
    }

    /// Receives the next message with this tag, from one rank or from any.
    ///
    /// # Errors
    /// When the connection or the job ended, or the deadline passed.
    pub fn receive(&mut self, from: Option<u32>, tag: u32) -> Result<Message, CommError> {
        let rank = self.rank;
        let what = || match from {
            Some(source) => format!("a message with tag {tag} from rank {source}"),
            None => format!("a message with tag {tag} from any rank"),
        };
        let mailbox = &self.shared.mailboxes[(rank - self.shared.span.first_rank) as usize];
        let impatient = || warn!("rank {rank} has waited 5 s for {}", what());
        match mailbox.receive(from, tag, self.shared.deadline, impatient) {
            Ok(message) => {
                self.shared
                    .mailbox_bytes
                    .fetch_sub(message.payload.len() + MESSAGE_COST, Ordering::Relaxed);
                Ok(message)
            }
            Err(NoMessage::Closed) => Err(self.shared.ended()),
            Err(NoMessage::Deadline) => Err(CommError::Deadline { rank, what: what() }),
        }
    }

    /// The element-wise sum of every rank's vector. Integers, so the result depends on neither order nor packing. All
    /// ranks must make the same collective calls in the same order.
    ///
    /// # Errors
    /// When vectors differ in length, a sum is over an i128, the connection or the job ended, or the deadline passed.
    pub fn all_reduce_sum(&mut self, values: &[i128]) -> Result<Arc<Vec<i128>>, CommError> {
        if values.len() > ELEMENTS_MAX {
            return Err(CommError::Usage(format!(
                "an all-reduce takes at most {ELEMENTS_MAX} elements, not {}",
                values.len()
            )));
        }
        let Shared {
            span,
            epoch,
            deadline,
            ..
        } = *self.shared;
        let upload = |sequence, sums: &[i128]| {
            let header = Header {
                kind: kind::CONTRIBUTE,
                epoch,
                tag: SUM_I128,
                source: span.first_rank,
                destination: SWITCH,
                sequence,
                ..Header::default()
            };
            // A connection that is gone closes the meeting too, and says why there.
            self.shared
                .outbox
                .push_when_room(Frame::new(header, encode(sums)), deadline);
        };
        let rank = self.rank;
        let impatient =
            || warn!("rank {rank} has waited 5 s for all ranks to make a collective call");
        match self.shared.meeting.sum(values, deadline, upload, impatient) {
            Ok(sums) => Ok(sums),
            Err(NoResult::Closed) => Err(self.shared.ended()),
            Err(NoResult::Deadline) => Err(CommError::Deadline {
                rank: self.rank,
                what: "all ranks to make a collective call".into(),
            }),
            Err(NoResult::Mismatch { expected, found }) => Err(CommError::Usage(format!(
                "rank {} gave {found} elements to an all-reduce in which others gave {expected}",
                self.rank
            ))),
            Err(NoResult::Overflow) => Err(CommError::Usage(
                "a sum of an all-reduce overflows 128 bits".into(),
            )),
        }
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// As [`Comm::all_reduce_sum`].
    pub fn barrier(&mut self) -> Result<(), CommError> {
        self.all_reduce_sum(&[]).map(drop)
    }

    fn transmit(&mut self, destination: u32, tag: u32, payload: Bytes) -> Result<(), CommError> {
        let sequence = self.next.entry(destination).or_default();
        let route = Header {
            epoch: self.shared.epoch,
            tag,
            source: self.rank,
            destination,
            sequence: *sequence,
            ..Header::default()
        };
        *sequence += 1;
        self.sent_messages += 1;
        self.sent_bytes += payload.len() as u64;
        for chunk in chunks(route, &payload) {
            if !self
                .shared
                .outbox
                .push_when_room(chunk, self.shared.deadline)
            {
                let waited = Instant::now() >= self.shared.deadline;
                let what = format!("room to send to rank {destination}");
                return Err(if waited {
                    CommError::Deadline {
                        rank: self.rank,
                        what,
                    }
                } else {
                    self.shared.ended()
                });
            }
        }
        Ok(())
    }
}
