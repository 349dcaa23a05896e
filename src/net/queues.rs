//! What waits to be written to each connection, and who may go on sending: the switch's memory. Pure.
//!
//! A connection that drains slowly holds up those who send to it: once more than [`QUEUE_MAX`] bytes wait for it, the
//! sender of the next frame is held, that is to say not read from, until the queue has drained to half. Once all queues
//! together exceed the budget, every sender is held. That cannot deadlock: what lies here drains because packs always
//! read their sockets, whatever their programs do; programs that do not receive are the credits' business, end to end
//! ([`crate::net::flow`]).

use crate::net::egress::ConnectionId;
use crate::net::frame::FRAME_MAX;
use crate::net::planted::{Bug, planted};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Bytes that wait for one connection before those who send to it are held. Enough that a receiver never idles while its
/// senders are let go again; with 40 MiB what waits falls out of the processor's caches, and 1 MiB messages go at three
/// quarters of the speed.
pub const QUEUE_MAX: usize = 640 * 1024;

/// A queue that has been emptied keeps this much room for its next bytes, until [`Queues::trim`] finds it unused.
const KEPT: usize = 256 * 1024;

/// What one read brings at most, and so how far a queue goes over its bound.
const READ_MAX: usize = 5 * FRAME_MAX;

/// See the module.
pub struct Queues {
    queues: FxHashMap<ConnectionId, Queue>,
    budget: usize,
    queue_max: usize,
    /// Bytes that wait, here and elsewhere.
    total: usize,
    /// Senders that wait for the total to fall.
    held_by_total: BTreeSet<ConnectionId>,
    /// How many queues each held sender waits for.
    held: FxHashMap<ConnectionId, usize>,
    released: Vec<ConnectionId>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    head: usize,
    holds: BTreeSet<ConnectionId>,
    /// Something was queued since the last look.
    used: bool,
}

impl Queue {
    /// Makes room, twice as much each time, up to what is to be expected; from there on little more than is needed.
    fn reserve(&mut self, more: usize, most: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let room = match needed <= most {
                true => (2 * self.bytes.capacity()).clamp(needed, most),
                false => needed + needed / 4,
            };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
    }
}

impl Queues {
    /// Queues that hold at most about `budget` bytes together.
    pub fn new(budget: usize) -> Queues {
        Queues::with(budget, QUEUE_MAX.min(budget / 4))
    }

    /// The same, with a bound of its own on what waits for one connection before those who send to it are held.
    pub fn with(budget: usize, queue_max: usize) -> Queues {
        Queues {
            queues: FxHashMap::default(),
            budget,
            queue_max,
            total: 0,
            held_by_total: BTreeSet::new(),
            held: FxHashMap::default(),
            released: Vec::new(),
        }
    }

    /// Adds bytes for `to`, sent by `from`, who is held if they are too many. The switch's own frames come from nobody.
    pub fn push(&mut self, to: ConnectionId, bytes: &[u8], from: Option<ConnectionId>) {
        let queue = self.queues.entry(to).or_default();
        queue.reserve(bytes.len(), self.queue_max + READ_MAX);
        if planted(Bug::QueueReordersFrames) {
            let head = queue.head;
            queue.bytes.splice(head..head, bytes.iter().copied());
        } else {
            queue.bytes.extend_from_slice(bytes);
        }
        queue.used = true;
        self.total += bytes.len();
        let is_full = queue.bytes.len() - queue.head > self.queue_max;
        let Some(from) = from else { return };
        if is_full {
            self.hold_behind(to, from);
        }
        if self.total > self.budget && self.held_by_total.insert(from) {
            *self.held.entry(from).or_default() += 1;
        }
    }

    /// Holds a sender if more than enough waits for `to`.
    pub fn hold_behind(&mut self, to: ConnectionId, from: ConnectionId) {
        if let Some(queue) = self.queues.get_mut(&to)
            && queue.bytes.len() - queue.head > self.queue_max
            && queue.holds.insert(from)
        {
            *self.held.entry(from).or_default() += 1;
        }
    }

    /// What waits for a connection.
    pub fn waiting(&self, to: ConnectionId) -> &[u8] {
        self.queues
            .get(&to)
            .map_or(&[], |queue| &queue.bytes[queue.head..])
    }

    /// So many bytes of a connection's queue have been written.
    pub fn written(&mut self, to: ConnectionId, count: usize) {
        // All of them together keep a small part of the budget.
        let kept = KEPT.min(self.budget / 8 / self.queues.len().max(1));
        let Some(queue) = self.queues.get_mut(&to) else {
            return;
        };
        queue.head += count;
        self.total -= count;
        if queue.head == queue.bytes.len() {
            queue.bytes.clear();
            queue.head = 0;
            queue.bytes.shrink_to(kept);
        } else if queue.head > queue.bytes.len() / 2 {
            // Each byte is moved at most once for each time that as many were written.
            let dropped = usize::from(planted(Bug::QueueDropsByteAtCut));
            queue.bytes.drain(..queue.head + dropped);
            queue.head = 0;
        }
        let early = if planted(Bug::HeldReleasedEarly) {
            self.queue_max
        } else {
            0
        };
        if queue.bytes.len() - queue.head <= self.queue_max / 2 + early
            && !planted(Bug::HeldNeverReleased)
        {
            for from in std::mem::take(&mut queue.holds) {
                release(&mut self.held, &mut self.released, from);
            }
        }
        self.look_at_total();
    }

    /// So many bytes wait elsewhere, and take memory as those that wait here.
    pub fn lies_elsewhere(&mut self, count: usize) {
        self.total += count;
    }

    /// They do no more.
    pub fn sent_elsewhere(&mut self, count: usize) {
        self.total -= count;
        self.look_at_total();
    }

    /// A connection is gone, with what waited for it.
    pub fn remove(&mut self, id: ConnectionId) {
        if let Some(queue) = self.queues.remove(&id) {
            if !planted(Bug::RemovalKeepsTotal) {
                self.total -= queue.bytes.len() - queue.head;
            }
            if !planted(Bug::RemovalKeepsHolds) {
                for from in queue.holds {
                    release(&mut self.held, &mut self.released, from);
                }
            }
        }
        if self.held.remove(&id).is_some() {
            self.held_by_total.remove(&id);
            for queue in self.queues.values_mut() {
                queue.holds.remove(&id);
            }
        }
        self.look_at_total();
    }

    /// A connection is not held any more, whatever it sent: it closes.
    pub fn let_go(&mut self, id: ConnectionId) {
        if self.held.remove(&id).is_some() {
            self.held_by_total.remove(&id);
            for queue in self.queues.values_mut() {
                queue.holds.remove(&id);
            }
            self.released.push(id);
        }
    }

    /// Gives the memory of queues back that were not used since the last call.
    pub fn trim(&mut self) {
        self.queues.retain(|_, queue| {
            let keep = queue.used || queue.head < queue.bytes.len() || !queue.holds.is_empty();
            queue.used = false;
            keep
        });
    }

    /// True if nothing more may be read from a connection for now.
    pub fn is_held(&self, from: ConnectionId) -> bool {
        self.held.contains_key(&from)
    }

    /// Connections that are held.
    pub fn held(&self) -> impl Iterator<Item = ConnectionId> {
        self.held.keys().copied()
    }

    /// Takes a connection that is no longer held, until there is none.
    pub fn take_released(&mut self) -> Option<ConnectionId> {
        self.released.pop()
    }

    /// Bytes that wait for all connections.
    pub fn total(&self) -> usize {
        self.total
    }

    fn look_at_total(&mut self) {
        if self.total <= self.budget / 2
            && !self.held_by_total.is_empty()
            && !planted(Bug::TotalHoldsForEver)
        {
            for from in std::mem::take(&mut self.held_by_total) {
                release(&mut self.held, &mut self.released, from);
            }
        }
    }
}

fn release(
    held: &mut FxHashMap<ConnectionId, usize>,
    released: &mut Vec<ConnectionId>,
    from: ConnectionId,
) {
    if let Some(count) = held.get_mut(&from) {
        *count -= 1;
        if *count == 0 {
            held.remove(&from);
            released.push(from);
        }
    }
}
