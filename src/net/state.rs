//! Small state that the ranks of one job share in the switch: counters, queues and vectors, by name. Pure: requests and
//! the time in, replies out.
//!
//! A counter is what a fan-in needs (the last to add goes on), a queue what workers take their tasks from, a vector what
//! a parameter server keeps. The shell decodes a [`Request`] from a frame, calls [`State::handle`], and sends each reply
//! to its [`Asker`]; it calls [`State::tick`] at [`State::next_deadline_ms`], and [`State::forget`] when a connection
//! ends, before it handles anything that came later.
//!
//! Each request is handled once, in the order of arrival, and in whole or not at all: an error reply means that nothing
//! has changed. Nothing here recognises a request that comes twice. It does not need to, since a connection is reliable
//! and ends with its pack: whoever resends requests over a new connection adds and pushes twice.
//!
//! An item that was given to a pack is gone from here, and lost if the pack ends before it is done with it. Jobs that
//! outlive their packs push such work again.
//!
//! Memory is bounded by the job's `bytes_max` for all that is kept ([`State::bytes`]), and by [`WAITERS_MAX`] for pops
//! that wait. The latter are not counted in the former: who takes something out is never refused because others have
//! filled the memory.

mod blob;
mod budget;
mod counter;
mod error;
mod queue;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod vector;
mod waiters;

pub use blob::Blob;
pub use budget::{NAME_COST, NAMES_MAX};
pub use counter::CounterVerb;
pub use error::{ErrorKind, StateError};
pub use queue::{ITEM_COST, ITEM_MAX, ITEMS_MAX, QueueVerb, WAIT_MAX_MS};
pub use reply::Reply;
pub use request::{ENCODED_MAX, NAME_MAX, Request, VALUES_MAX};
pub use vector::{Element, VectorVerb};
pub use waiters::WAITERS_MAX;

use budget::Budget;
use counter::Counters;
use queue::Queues;
use vector::Vectors;

/// Who asks, and under which number: where a reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The connection; its number means nothing here but that [`State::forget`] names it again.
    pub pack: u64,
    /// The rank that asks.
    pub rank: u32,
    /// The rank's own number for the request.
    pub request: u64,
}

/// The counters, queues and vectors of one job.
pub struct State {
    budget: Budget,
    counters: Counters,
    queues: Queues,
    vectors: Vectors,
}

impl State {
    /// Holds nothing yet, and never more than `bytes_max`, as [`State::bytes`] counts.
    pub fn new(bytes_max: usize) -> Self {
        State {
            budget: Budget::new(bytes_max),
            counters: Counters::default(),
            queues: Queues::default(),
            vectors: Vectors::default(),
        }
    }

    /// From here on it holds no more than `bytes_max`; what it holds already stays.
    pub fn limit(&mut self, bytes_max: usize) {
        self.budget.limit(bytes_max);
    }

    /// Handles one request. The asker's reply is among `replies`, unless it is a pop that waits: that one comes from a
    /// later call. A push, a close and a delete also answer those who wait.
    pub fn handle(
        &mut self,
        asker: Asker,
        request: Request,
        now_ms: u64,
        replies: &mut Vec<(Asker, Reply)>,
    ) {
        match self.apply(asker, request, now_ms, replies) {
            Ok(Some(reply)) => replies.push((asker, reply)),
            Ok(None) => {}
            Err(error) => replies.push((asker, error.into())),
        }
    }

    /// Answers the waits that have passed with [`Reply::Empty`]. A pop waits until it is told so here: an item that
    /// arrives after its deadline and before this call is still given to it.
    pub fn tick(&mut self, now_ms: u64, replies: &mut Vec<(Asker, Reply)>) {
        self.queues.tick(now_ms, replies);
    }

    /// When the next wait will have passed, if any pop waits.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.queues.waiters().next_deadline_ms()
    }

    /// A connection has ended: its pops wait no more, and no item is given to them.
    pub fn forget(&mut self, pack: u64) {
        self.queues.forget(pack);
    }

    /// What is kept, in bytes: names, counters, items and vectors, each with a flat cost for what surrounds it
    /// ([`NAME_COST`], [`ITEM_COST`]).
    pub fn bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// True while some pop waits.
    pub fn is_waiting(&self) -> bool {
        !self.queues.waiters().is_empty()
    }

    /// `None` is a pop that waits.
    fn apply(
        &mut self,
        asker: Asker,
        request: Request,
        now_ms: u64,
        replies: &mut Vec<(Asker, Reply)>,
    ) -> Result<Option<Reply>, StateError> {
        request.check()?;
        let budget = &mut self.budget;
        match request {
            Request::Counter { name, verb } => self.counters.apply(name, verb, budget).map(Some),
            Request::Queue { name, verb } => match verb {
                QueueVerb::Pop { wait_ms } => {
                    self.queues.pop(asker, &name, wait_ms, now_ms, budget)
                }
                verb => self.queues.apply(&name, verb, budget, replies).map(Some),
            },
            Request::Vector { name, verb } => self.vectors.apply(name, verb, budget).map(Some),
        }
    }
}
