//! Pops that wait for an item, found by their number, by the end of their wait, and by their connection.

use super::Asker;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most pops of one job that wait. Each takes some 200 bytes, 13 MiB in all; if each waits at a queue of its own, with
/// the longest of names, it is 750 bytes and 47 MiB. In a larger job a pack can wait once for several of its ranks.
pub const WAITERS_MAX: usize = 65_536;

/// A pop that waits.
pub(super) struct Waiter {
    pub(super) asker: Asker,
    pub(super) queue: Arc<str>,
    deadline_ms: u64,
}

/// All pops of a job that wait. Numbers rise, so that their order is the order of arrival.
#[derive(Default)]
pub(super) struct Waiters {
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Deadlines and numbers.
    deadlines: BTreeSet<(u64, u64)>,
    /// Connections and numbers.
    packs: BTreeSet<(u64, u64)>,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiters.len() >= WAITERS_MAX
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Adds one and gives its number, which is higher than all before.
    pub(super) fn add(&mut self, asker: Asker, queue: Arc<str>, deadline_ms: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.deadlines.insert((deadline_ms, number));
        self.packs.insert((asker.pack, number));
        let waiter = Waiter {
            asker,
            queue,
            deadline_ms,
        };
        self.waiters.insert(number, waiter);
        number
    }

    /// Takes one out by its number, which must be there.
    pub(super) fn remove(&mut self, number: u64) -> Waiter {
        let waiter = self
            .waiters
            .remove(&number)
            .expect("queues know only numbers of pops that wait");
        self.deadlines.remove(&(waiter.deadline_ms, number));
        self.packs.remove(&(waiter.asker.pack, number));
        waiter
    }

    /// The one whose wait passed first, if it has.
    pub(super) fn due(&self, now_ms: u64) -> Option<u64> {
        self.deadlines
            .first()
            .filter(|(deadline_ms, _)| *deadline_ms <= now_ms)
            .map(|(_, number)| *number)
    }

    /// One of a connection, if it has any.
    pub(super) fn of_pack(&self, pack: u64) -> Option<u64> {
        self.packs
            .range((pack, 0)..=(pack, u64::MAX))
            .next()
            .map(|(_, number)| *number)
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<u64> {
        assert_eq!(self.deadlines.len(), self.waiters.len());
        assert_eq!(self.packs.len(), self.waiters.len());
        self.waiters.keys().copied().collect()
    }
}
