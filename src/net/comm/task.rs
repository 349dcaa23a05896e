//! A rank as a task: the same wire for programs that are asynchronous, say many ranks in one process for a test of load.
//!
//! The task itself reads and writes the socket while it waits, as a rank's thread does; the pack's keeper does when it
//! does not. Only packs of one rank have such ranks.

use super::CommError;
use crate::net::flow::{Channel, Wanted, cost};
use crate::net::frame::Cutter;
use crate::net::mailbox::Closed;
use crate::net::reassembly::Message;
use crate::net::shared::Shared;
use crate::net::wire::{Reading, Wire};
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How long a task waits at most before it looks whether its pack has ended.
const LOOK_UP: Duration = Duration::from_secs(1);

/// One rank's end of the wire, for a task on tokio.
pub struct TaskComm {
    shared: Arc<Shared>,
    rank: u32,
    /// For their readiness, one for each wire; reading and writing are the wires'.
    sockets: Vec<TcpStream>,
}

impl TaskComm {
    pub(crate) fn new(shared: Arc<Shared>, rank: u32) -> io::Result<TaskComm> {
        let sockets = shared.wires.iter();
        Ok(TaskComm {
            sockets: sockets
                .map(|wire| TcpStream::from_std(wire.watched()?))
                .collect::<io::Result<_>>()?,
            shared,
            rank,
        })
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// All ranks of the job.
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// Sends a message to another rank; see [`super::Comm::send`].
    ///
    /// # Errors
    /// When there is no such rank, the connection or the job ended, or the deadline passed.
    pub async fn send(&mut self, to: u32, tag: u32, payload: Bytes) -> Result<(), CommError> {
        let shared = self.shared.clone();
        if to >= shared.size || to == self.rank {
            let what = format!("rank {} cannot send to rank {to} from a task", self.rank);
            return Err(CommError::Usage(what));
        }
        let route = shared.route(self.rank, to, Channel { group: 0, tag });
        let (wire, share) = shared.way_to(to);
        if !wire.spend(to, cost(payload.len()), share) {
            shared.announce(route, payload.len());
            self.until("a grant", |shared| {
                let mut state = super::lock(&shared.mailboxes[0].state);
                Ok(state.take_grant(to, route.sequence)?.then_some(()))
            })
            .await?;
        }
        for cut in Cutter::new(route, &payload) {
            while !wire.has_room() {
                self.write().await?;
            }
            wire.try_send(&cut, Some(&payload))
                .map_err(|_| shared.ended())?;
        }
        Ok(())
    }

    /// Sends what has been gathered.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn flush(&mut self) -> Result<(), CommError> {
        while !self.shared.flush() {
            self.write().await?;
        }
        Ok(())
    }

    /// Receives the next message with this tag, from one rank or from any.
    ///
    /// # Errors
    /// When the connection or the job ended, or the deadline passed.
    pub async fn receive(&mut self, from: Option<u32>, tag: u32) -> Result<Message, CommError> {
        let channel = Channel { group: 0, tag };
        let wanted = Wanted {
            source: from,
            channel,
        };
        let rank = self.rank;
        self.until("a message", |shared| {
            let mut signals = Vec::new();
            let taken = super::lock(&shared.mailboxes[0].state).take(wanted, &mut signals);
            shared.signal(rank, &mut signals);
            taken
        })
        .await
    }

    /// Writes what waits, and reads meanwhile.
    async fn write(&mut self) -> Result<(), CommError> {
        let seen = self.shared.delivered();
        // Now and then it looks up, in case the pack has ended otherwise.
        let stepped = tokio::time::timeout(LOOK_UP, self.step(seen)).await;
        if std::time::Instant::now() >= self.shared.deadline {
            return Err(CommError::Deadline {
                rank: self.rank,
                what: "room to send".into(),
            });
        }
        stepped.unwrap_or(Ok(()))
    }

    /// Reads and writes until `look` finds something.
    async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Shared) -> Result<Option<T>, Closed>,
    ) -> Result<T, CommError> {
        loop {
            let seen = self.shared.delivered();
            match look(&self.shared) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(Closed) => return Err(self.shared.ended()),
            }
            // Now and then it looks up, in case the pack has ended otherwise.
            let _ = tokio::time::timeout(LOOK_UP, self.step(seen)).await;
            if std::time::Instant::now() >= self.shared.deadline {
                return Err(CommError::Deadline {
                    rank: self.rank,
                    what: what.into(),
                });
            }
        }
    }

    /// Writes what waits, and reads once when something has come; unless something was delivered since `seen`.
    async fn step(&mut self, seen: u64) -> Result<(), CommError> {
        let shared = &*self.shared;
        // With one wire there are no others, and nothing is allocated.
        let _leading = shared.wires[0].lead();
        let _others: Vec<_> = shared.wires[1..].iter().map(Wire::lead).collect();
        // A keeper that was in the midst of reading has delivered then.
        shared.wires.iter().for_each(|wire| drop(wire.incoming()));
        if shared.delivered() != seen {
            return Ok(());
        }
        shared.flush();
        poll_fn(|context| self.ready(context))
            .await
            .map_err(|error| CommError::Ended(error.to_string()))?;
        // Inside, so that tokio does not take what comes meanwhile for what was found to be over.
        let done = |done| {
            if done {
                Ok(())
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        };
        for (index, (socket, wire)) in self.sockets.iter().zip(&shared.wires).enumerate() {
            if wire.is_waiting() {
                let _ = socket.try_io(Interest::WRITABLE, || done(wire.flush()));
            }
            let _ = socket.try_io(Interest::READABLE, || {
                let drained = shared.pump(index, &mut wire.incoming(), Reading::AtOnce);
                done(!drained)
            });
        }
        Ok(())
    }

    /// Waits until a socket can be read, or written where something waits to be.
    fn ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for (socket, wire) in self.sockets.iter().zip(&self.shared.wires) {
            if let Poll::Ready(outcome) = socket.poll_read_ready(context) {
                return Poll::Ready(outcome);
            }
            if wire.is_waiting()
                && let Poll::Ready(outcome) = socket.poll_write_ready(context)
            {
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    }
}
