//! A pack: it joins at its switches, gives its ranks what they speak through, and leaves.
//!
//! Joining runs on tokio. From then on threads read and write the sockets: the ranks' own, and a keeper for each connection
//! ([`crate::net::keeper`]), so that ranks which compute starve neither the heartbeat nor the socket. A pack always reads
//! its sockets: what arrives waits in mailboxes, for which there is room ([`crate::net::flow`]).

use crate::net::address::{SwitchAddress, places};
use crate::net::comm::{Comm, TaskComm};
use crate::net::frame::kind;
use crate::net::half::WriteHalf;
use crate::net::keeper;
use crate::net::link::{FrameReader, LinkError, dial, ending};
use crate::net::message::{Control, Hello, Leave, Role, Span, Start, bare_frame, cut_reason};
use crate::net::shared::Shared;
use crate::net::token::{JobId, Token};
use crate::net::wire::Wire;
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use std::collections::BTreeMap;
use std::io::{self, PipeReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

const LOST_AFTER: Duration = Duration::from_millis(LOST_AFTER_MS);

/// How long a connection gets to close after its last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes of messages that may wait at a pack on credit, all of its ranks together; as much again may by grants.
pub const MAILBOX_BYTES: u32 = 32 << 20;

/// The least of them that one rank gets, in bytes.
pub const MAILBOX_MIN: u32 = 256 << 10;

/// What a pack needs to know to join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The switches. All members of a job name the same ones in the same order.
    pub switches: Vec<SwitchAddress>,
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

impl JoinOptions {
    /// Bytes of messages for each of the pack's ranks that may wait at it.
    pub fn mailbox(&self) -> u32 {
        (MAILBOX_BYTES / self.span.ranks.max(1)).max(MAILBOX_MIN)
    }
}

/// A joined pack.
pub struct Pack {
    shared: Arc<Shared>,
    /// Whether each rank has its comm.
    taken: Vec<AtomicBool>,
    keepers: Vec<thread::JoinHandle<()>>,
    over: watch::Receiver<usize>,
}

impl Pack {
    /// Connects, proves itself, and waits until all ranks of the job have joined.
    ///
    /// # Errors
    /// When a switch cannot be reached, refuses, or ends the job, or when not all ranks came in time.
    pub async fn join(options: JoinOptions) -> Result<Pack, LinkError> {
        let deadline = Instant::now() + options.join_within;
        let mut joining = JoinSet::new();
        for (index, switch) in options.switches.iter().enumerate() {
            let connecting = connect(switch.clone(), options.clone(), deadline);
            joining.spawn(async move { (index, connecting.await) });
        }
        let mut ends = BTreeMap::new();
        let mut start: Option<Start> = None;
        let mut beats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
        let mut beat = Vec::new();
        bare_frame(kind::HEARTBEAT, false).put(&mut beat);
        while ends.len() < options.switches.len() {
            let (index, connected) = tokio::select! {
                joined = joining.join_next() => joined
                    .expect("some are missing")
                    .expect("joining does not panic"),
                // Where the job has begun, this pack must not seem silent while it waits for the other switches.
                _ = beats.tick() => {
                    for (_, write) in ends.values_mut() {
                        // A failure shows when it is read.
                        let _ = timeout_at(deadline, give(write, &beat)).await;
                    }
                    continue;
                }
            };
            // The first refusal is the reason; the others end with this future.
            let (reader, write, mut told) = connected?;
            if let Some(start) = &start {
                if start.packs != told.packs {
                    return Err(LinkError::NotASwitch(places(&options.switches)));
                }
                // Each is cut for the switch with the least memory.
                told.segment = told.segment.min(start.segment);
            }
            start = Some(told);
            ends.insert(index, (reader, write));
        }
        let mut wires = Vec::new();
        let mut bells = Vec::new();
        for (index, (reader, write)) in ends {
            let address: Arc<str> = options.switches[index].place().into();
            let io = |source| LinkError::Io {
                address: address.clone(),
                source,
            };
            let (socket, session, already) = reader.into_stream(write);
            let socket = socket.into_std().map_err(io)?;
            let (mut wire, bell) =
                Wire::new((socket, session), &already, address.clone()).map_err(io)?;
            wire.number = index;
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
        let (shared, over) = Shared::new(&options, &start, wires)?;
        let shared = Arc::new(shared);
        let ranks = 0..options.span.ranks;
        let mut pack = Pack {
            taken: ranks.map(|_| AtomicBool::new(false)).collect(),
            keepers: Vec::new(),
            over,
            shared: shared.clone(),
        };
        for (index, bell) in bells.into_iter().enumerate() {
            let shared = shared.clone();
            let address = shared.wires[index].address.clone();
            let keeper = thread::Builder::new()
                .name(format!("keeper {index}"))
                .spawn(move || keeper::keep(shared, index, bell))
                .map_err(|source| LinkError::Io {
                    address: address.clone(),
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
    /// When the pack has several ranks, or the rank has its comm already.
    pub fn task_comm(&self) -> std::io::Result<TaskComm> {
        assert!(self.shared.leads(), "only a lone rank is a task");
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
        if self.shared.begin_to_leave() {
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
        let ended = self.shared.give_up();
        self.shared.wires.iter().for_each(Wire::shut_sending);
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
                address: self.shared.unanswered(),
                seconds: patience.as_secs(),
            }),
        }
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        self.shared.give_up();
        self.shared.close_mailboxes();
        self.shared.wires.iter().for_each(Wire::shut);
    }
}

/// Joins at one switch.
async fn connect(
    switch: SwitchAddress,
    options: JoinOptions,
    deadline: Instant,
) -> Result<(FrameReader, WriteHalf, Start), LinkError> {
    let role = Role::Pack {
        span: options.span,
        incarnation: options.incarnation,
        epoch: options.epoch,
        mailbox: options.mailbox(),
    };
    let hello = Hello::new(options.job, options.token, role);
    let (mut reader, mut write) = dial(&switch, &hello, deadline).await?;
    let started = wait_for_start(switch.place(), &mut reader, &mut write);
    let start = match timeout_at(deadline, started).await {
        Ok(start) => start?,
        Err(_) => {
            return Err(LinkError::NotStarted {
                seconds: options.join_within.as_secs(),
            });
        }
    };
    Ok((reader, write, start))
}

async fn wait_for_start(
    switch: &str,
    reader: &mut FrameReader,
    write: &mut WriteHalf,
) -> Result<Start, LinkError> {
    let mut beats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    let mut beat = Vec::new();
    bare_frame(kind::HEARTBEAT, false).put(&mut beat);
    let mut silent_at = Instant::now() + LOST_AFTER;
    loop {
        let frame = tokio::select! {
            frame = timeout_at(silent_at, reader.next()) => match frame {
                Ok(frame) => frame?,
                Err(_) => return Err(LinkError::Silent { address: switch.into(), seconds: LOST_AFTER.as_secs() }),
            },
            _ = beats.tick() => {
                // A failure to write shows on the reading side too, where the reason is.
                let _ = give(write, &beat).await;
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

/// Writes, and sees it off.
async fn give(write: &mut WriteHalf, bytes: &[u8]) -> io::Result<()> {
    write.write_all(bytes).await?;
    write.flush().await
}
