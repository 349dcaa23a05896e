//! A pack's connection to the switch: join, heartbeat, deliver, leave.
//!
//! Everything here runs on the tokio runtime, so that ranks which compute on threads of their own starve neither the
//! heartbeat nor the socket. A pack always reads its socket: what arrives waits in mailboxes.

use crate::net::comm::{Comm, Shared};
use crate::net::frame::{Frame, kind};
use crate::net::link::{FrameReader, LinkError, dial, ending, write_outbox};
use crate::net::message::{Control, Hello, Leave, Role, Span, Start, bare_frame, cut_reason};
use crate::net::outbox::Outbox;
use crate::net::reassembly::Reassembly;
use crate::net::token::{JobId, Token};
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

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
    tasks: Vec<JoinHandle<()>>,
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
                let _ = write_outbox(
                    &outbox,
                    write,
                    Duration::from_millis(LOST_AFTER_MS),
                    "switch",
                )
                .await;
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
        let started = timeout_at(deadline, wait_for_start(&mut reader)).await;
        let packs = match started {
            Ok(Ok(start)) => start.packs,
            failed => {
                heartbeat.abort();
                outbox.discard();
                return Err(match failed {
                    Ok(Err(error)) => error,
                    _ => LinkError::Silent {
                        peer: "start of the job, for which all ranks must join,",
                        seconds: options.join_within.as_secs(),
                    },
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
            tasks: vec![reading, heartbeat, writer],
        })
    }

    /// What one rank of the pack speaks through. `index` counts from 0 within the pack.
    pub fn comm(&self, index: u32) -> Comm {
        Comm::new(self.shared.clone(), self.shared.span.first_rank + index)
    }

    /// Ends every wait of the pack's ranks, now and later: one of them failed.
    pub fn interrupt(&self) {
        self.shared.close_mailboxes();
    }

    /// Says that the pack is done, or why its program failed; waits for the answer and closes.
    ///
    /// # Errors
    /// When the connection or the job ended first, which an orderly end does not.
    pub async fn leave(mut self, failure: Option<String>) -> Result<(), LinkError> {
        let failure = failure.map(cut_reason);
        self.shared.outbox.push(Leave { failure }.to_frame(false));
        let reading = self.tasks.remove(0);
        let answered = timeout(Duration::from_millis(LOST_AFTER_MS), reading).await;
        self.shared.outbox.close();
        let ended = self.shared.end_error();
        match (answered, ended) {
            (_, Some(error)) => Err(error),
            (Ok(_), None) => Ok(()),
            (Err(_), None) => Err(LinkError::Silent {
                peer: "switch",
                seconds: LOST_AFTER_MS / 1000,
            }),
        }
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        // The writer ends by itself once its outbox is closed and empty; the others have nothing left to do.
        self.shared.outbox.close();
        self.shared.close_mailboxes();
        if let [.., heartbeat, _writer] = &self.tasks[..] {
            heartbeat.abort();
        }
        if let [reading, _, _] = &self.tasks[..] {
            reading.abort();
        }
    }
}

async fn wait_for_start(reader: &mut FrameReader) -> Result<Start, LinkError> {
    loop {
        let frame = live(reader).await?;
        match frame.header.kind {
            kind::HEARTBEAT => {}
            kind::START => return Ok(Start::from_body(&frame.body)?),
            _ => return Err(ending(&frame)),
        }
    }
}

/// The next frame from a switch that must answer our heartbeats.
async fn live(reader: &mut FrameReader) -> Result<Frame, LinkError> {
    match timeout(Duration::from_millis(LOST_AFTER_MS), reader.next()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(LinkError::Silent {
            peer: "switch",
            seconds: LOST_AFTER_MS / 1000,
        }),
    }
}

/// Reads until the connection ends, and tells the ranks why if it ended out of order.
async fn deliver(shared: Arc<Shared>, mut reader: FrameReader) {
    let mut reassembly = Reassembly::default();
    let error = loop {
        let frame = match live(&mut reader).await {
            Ok(frame) => frame,
            Err(error) => break error,
        };
        match frame.header.kind {
            kind::DATA => match reassembly.accept(frame) {
                Ok(None) => {}
                Ok(Some((destination, message))) => {
                    if let Err(full) = shared.deliver(destination, message) {
                        break full;
                    }
                }
                Err(error) => break LinkError::Damaged(error),
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
