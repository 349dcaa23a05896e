//! A pack's connection to the switch: join, heartbeat, deliver, leave.
//!
//! Everything here runs on the tokio runtime, so that ranks which compute on threads of their own starve neither the
//! heartbeat nor the socket. A pack always reads its socket: what arrives waits in mailboxes.

use crate::net::comm::{Comm, Shared};
use crate::net::frame::kind;
use crate::net::link::{FrameReader, LinkError, dial, ending, write_outbox};
use crate::net::message::{Control, Hello, Leave, Role, Span, Start, bare_frame, cut_reason};
use crate::net::outbox::Outbox;
use crate::net::reassembly::Reassembly;
use crate::net::token::{JobId, Token};
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

const LOST_AFTER: Duration = Duration::from_millis(LOST_AFTER_MS);

/// How long a connection gets to close after its last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a pack needs to know to join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The switch, `HOST:PORT`.
    pub switch: String,
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
    /// Whether the switch was told that the pack leaves.
    leaving: AtomicBool,
    reading: JoinHandle<()>,
    sending: Sending,
}

/// The tasks that send. Dropped, also by a join that is given up, they end: the heartbeat at once, the writer when what
/// is queued is written.
struct Sending {
    outbox: Arc<Outbox>,
    heartbeat: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.heartbeat.abort();
        self.outbox.close();
    }
}

impl Pack {
    /// Connects, proves itself, and waits until all ranks of the job have joined.
    ///
    /// # Errors
    /// When the switch cannot be reached, refuses, or ends the job, or when not all ranks came in time.
    pub async fn join(options: JoinOptions) -> Result<Pack, LinkError> {
        let JoinOptions {
            span,
            incarnation,
            epoch,
            ..
        } = options;
        let deadline = Instant::now() + options.join_within;
        let hello = Hello::new(
            options.job,
            options.token,
            Role::Pack {
                span,
                incarnation,
                epoch,
            },
        );
        let (mut reader, write) = dial(&options.switch, &hello, deadline).await?;
        let outbox = Arc::new(Outbox::default());
        let writer = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                // A failure to write shows on the reading side too, where it is reported.
                let _ = write_outbox(&outbox, write, LOST_AFTER, "switch").await;
            }
        });
        let heartbeat = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                let mut beats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
                loop {
                    beats.tick().await;
                    outbox.push(bare_frame(kind::HEARTBEAT, false));
                }
            }
        });
        let sending = Sending {
            outbox: outbox.clone(),
            heartbeat,
            writer,
        };
        let started = timeout_at(deadline, wait_for_start(&mut reader)).await;
        let packs = match started {
            Ok(start) => start?.packs,
            Err(_) => {
                return Err(LinkError::NotStarted {
                    seconds: options.join_within.as_secs(),
                });
            }
        };
        let shared = Arc::new(Shared::new(
            span,
            options.size,
            epoch,
            packs,
            outbox,
            options.deadline,
        ));
        let reading = tokio::spawn(deliver(shared.clone(), reader));
        Ok(Pack {
            shared,
            taken: (0..span.ranks).map(|_| AtomicBool::new(false)).collect(),
            leaving: AtomicBool::new(false),
            reading,
            sending,
        })
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

    /// One of the pack's ranks failed: the switch is told why at once, and every wait of the others ends, now and later.
    pub fn fail(&self, failure: &str) {
        self.shared
            .explain("another rank of this pack failed".into());
        // What others still send would come after the leave.
        self.shared.outbox.interrupt();
        self.say_leave(Some(failure.to_string()));
        self.shared.close_mailboxes();
    }

    fn say_leave(&self, failure: Option<String>) {
        if !self.leaving.swap(true, Ordering::Relaxed) {
            let failure = failure.map(cut_reason);
            self.shared.outbox.push(Leave { failure }.to_frame(false));
        }
    }

    /// Says that the pack is done, or why its program failed unless [`Pack::fail`] has said so; waits for the answer and closes. Messages that were sent
    /// before may still wait for slow receivers: as long as the switch lives, a pack that is done waits with them until
    /// its deadline, and one that failed for a short time.
    ///
    /// # Errors
    /// When the connection or the job ended first, which an orderly end does not.
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
        // It ends by itself when the switch is silent.
        let answered = timeout(patience, &mut self.reading).await;
        self.shared.explain("the pack has left the job".into());
        self.shared.outbox.close();
        // So that nothing of this pack is left when a worker replies.
        let _ = timeout(FAREWELL, &mut self.sending.writer).await;
        let ended = self.shared.end_error();
        match (answered, ended) {
            (_, Some(error)) => Err(error),
            (Ok(_), None) => Ok(()),
            (Err(_), None) => Err(LinkError::Silent {
                peer: "switch",
                seconds: patience.as_secs(),
            }),
        }
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        self.reading.abort();
        self.shared.explain("the pack has left the job".into());
        self.shared.close_mailboxes();
    }
}

async fn wait_for_start(reader: &mut FrameReader) -> Result<Start, LinkError> {
    loop {
        let frame = reader.next_within(LOST_AFTER).await?;
        match frame.header.kind {
            kind::HEARTBEAT => {}
            kind::START => return Ok(Start::from_body(&frame.body)?),
            _ => return Err(ending(&frame)),
        }
    }
}

/// Reads until the connection ends, and tells the ranks why if it ended out of order.
async fn deliver(shared: Arc<Shared>, mut reader: FrameReader) {
    let mut reassembly = Reassembly::default();
    let error = loop {
        let frame = match reader.next_within(LOST_AFTER).await {
            Ok(frame) => frame,
            Err(error) => break error,
        };
        match frame.header.kind {
            kind::DATA => match (frame.header, reassembly.accept(frame)) {
                (header, Ok(None)) if shared.is_full(reassembly.pending_bytes()) => {
                    break LinkError::MailboxesFull {
                        destination: header.destination,
                        source_rank: header.source,
                        tag: header.tag,
                    };
                }
                (_, Ok(None)) => {}
                (_, Ok(Some((destination, message)))) => {
                    if let Err(full) = shared.deliver(destination, message) {
                        break full;
                    }
                }
                (_, Err(error)) => break LinkError::Damaged(error),
            },
            kind::COMBINED => {
                if !shared.meeting.complete(frame.header.sequence, &frame.body) {
                    break ending(&frame);
                }
            }
            kind::HEARTBEAT => {}
            kind::LEFT => return,
            _ => break ending(&frame),
        }
    };
    shared.fail(error);
}
