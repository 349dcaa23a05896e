//! Queues: items that each go to one of many who ask.

use super::blob::Blob;
use super::budget::Budget;
use super::request::VALUES_MAX;
use super::waiters::Waiters;
use super::{Asker, Reply, StateError};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// The longest item, in bytes: with the longest name it fits into one frame, alone in its push.
pub const ITEM_MAX: usize = VALUES_MAX;

/// The most items of one push: enough to make the round trip small beside them, and their table takes 32 KiB.
pub const ITEMS_MAX: usize = 1_024;

/// What an item costs beside its own bytes: 32 bytes in its queue's ring, which is up to four times as large as what is
/// in it, and its allocation.
pub const ITEM_COST: usize = 160;

/// The longest wait of a pop, in milliseconds: a day, longer than any function runs, and short enough that a forgotten
/// pop ends some time.
pub const WAIT_MAX_MS: u32 = 24 * 60 * 60 * 1000;

/// What may be asked of a queue. It is there as long as it has items, or is closed; all others are open and empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueVerb {
    /// Appends all items, in order, or none; pops that wait get the first of them at once. The reply is the
    /// [`Reply::Length`] that is left in the queue.
    Push {
        /// The items.
        #[serde(deserialize_with = "items_up_to_the_bound")]
        items: Vec<Blob>,
    },
    /// Takes the oldest item out. The reply is an [`Reply::Item`]; [`Reply::Closed`] at once if there is none and none
    /// will come; or [`Reply::Empty`] when the wait has passed. Who waits longest is served first.
    Pop {
        /// How long to wait for an item, in milliseconds; 0 answers at once.
        wait_ms: u32,
    },
    /// The reply is the [`Reply::Length`], in items.
    Length,
    /// Takes no more items; those that are there can still be popped. All who wait get [`Reply::Closed`]: this is how
    /// workers learn that the work is done. A queue may be closed before anything was pushed, or more than once. The
    /// reply is [`Reply::Done`].
    Close,
    /// Drops all items and forgets the queue, if it is there; all who wait get [`Reply::Closed`]. Under the same name a
    /// new queue may begin, which is open. The reply is [`Reply::Done`].
    Delete,
}

/// All queues of a job, and who waits at them.
#[derive(Default)]
pub(super) struct Queues {
    /// Those that have items or pops that wait, or are closed.
    queues: BTreeMap<Arc<str>, Queue>,
    waiters: Waiters,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Blob>,
    /// Numbers of pops, the oldest lowest. If there are any, there are no items, and it is open.
    waiting: BTreeSet<u64>,
    closed: bool,
}

impl Queue {
    /// Something is kept under its name, which is counted then. Pops alone are not: see [`super::WAITERS_MAX`].
    fn is_kept(&self) -> bool {
        self.closed || !self.items.is_empty()
    }
}

impl Queues {
    pub(super) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// All verbs but pop, which is the only one that may wait.
    pub(super) fn apply(
        &mut self,
        name: &str,
        verb: QueueVerb,
        budget: &mut Budget,
        replies: &mut Vec<(Asker, Reply)>,
    ) -> Result<Reply, StateError> {
        match verb {
            QueueVerb::Push { items } => self.push(name, items, budget, replies),
            QueueVerb::Length => {
                let length = self.queues.get(name).map_or(0, |queue| queue.items.len());
                Ok(Reply::Length(length as u64))
            }
            QueueVerb::Close => self.close(name, budget, replies),
            QueueVerb::Delete => {
                self.delete(name, budget, replies);
                Ok(Reply::Done)
            }
            QueueVerb::Pop { .. } => unreachable!("a pop has an asker, and goes to Queues::pop"),
        }
    }

    /// `None` means that it waits.
    pub(super) fn pop(
        &mut self,
        asker: Asker,
        name: &str,
        wait_ms: u32,
        now_ms: u64,
        budget: &mut Budget,
    ) -> Result<Option<Reply>, StateError> {
        if let Some(queue) = self.queues.get_mut(name) {
            if let Some(item) = queue.items.pop_front() {
                shrink(&mut queue.items);
                let gone = (!queue.is_kept()).then_some(name);
                budget.give_back(gone, item_cost(&item));
                self.drop_if_idle(name);
                return Ok(Some(Reply::Item(item)));
            }
            if queue.closed {
                return Ok(Some(Reply::Closed));
            }
        }
        if wait_ms == 0 {
            return Ok(Some(Reply::Empty));
        }
        if self.waiters.is_full() {
            return Err(StateError::WaitersFull);
        }
        let entry = self.queues.entry(Arc::from(name));
        let deadline_ms = now_ms.saturating_add(u64::from(wait_ms));
        let number = self.waiters.add(asker, entry.key().clone(), deadline_ms);
        entry.or_default().waiting.insert(number);
        Ok(None)
    }

    pub(super) fn tick(&mut self, now_ms: u64, replies: &mut Vec<(Asker, Reply)>) {
        while let Some(number) = self.waiters.due(now_ms) {
            replies.push((self.stop_waiting(number), Reply::Empty));
        }
    }

    pub(super) fn forget(&mut self, pack: u64) {
        while let Some(number) = self.waiters.of_pack(pack) {
            self.stop_waiting(number);
        }
    }

    fn push(
        &mut self,
        name: &str,
        items: Vec<Blob>,
        budget: &mut Budget,
        replies: &mut Vec<(Asker, Reply)>,
    ) -> Result<Reply, StateError> {
        let queue = self.queues.get(name);
        if queue.is_some_and(|queue| queue.closed) {
            return Err(StateError::QueueClosed(name.to_string()));
        }
        let given = queue.map_or(0, |queue| queue.waiting.len().min(items.len()));
        let stay = &items[given..];
        let length = queue.map_or(0, |queue| queue.items.len()) + stay.len();
        if !stay.is_empty() {
            let new = (!queue.is_some_and(Queue::is_kept)).then_some(name);
            budget.take(new, stay.iter().map(item_cost).sum())?;
        }
        // From here on nothing fails.
        let queue = self.queues.entry(Arc::from(name)).or_default();
        let mut items = items.into_iter();
        for item in items.by_ref().take(given) {
            let number = queue
                .waiting
                .pop_first()
                .expect("no more are given than wait");
            replies.push((self.waiters.remove(number).asker, Reply::Item(item)));
        }
        queue.items.extend(items);
        self.drop_if_idle(name);
        Ok(Reply::Length(length as u64))
    }

    fn close(
        &mut self,
        name: &str,
        budget: &mut Budget,
        replies: &mut Vec<(Asker, Reply)>,
    ) -> Result<Reply, StateError> {
        if !self.queues.get(name).is_some_and(Queue::is_kept) {
            budget.take(Some(name), 0)?;
        }
        let queue = self.queues.entry(Arc::from(name)).or_default();
        queue.closed = true;
        for number in std::mem::take(&mut queue.waiting) {
            replies.push((self.waiters.remove(number).asker, Reply::Closed));
        }
        Ok(Reply::Done)
    }

    fn delete(&mut self, name: &str, budget: &mut Budget, replies: &mut Vec<(Asker, Reply)>) {
        let Some(queue) = self.queues.remove(name) else {
            return;
        };
        if queue.is_kept() {
            budget.give_back(Some(name), queue.items.iter().map(item_cost).sum());
        }
        for number in queue.waiting {
            replies.push((self.waiters.remove(number).asker, Reply::Closed));
        }
    }

    /// Takes a pop out of the queue at which it waits.
    fn stop_waiting(&mut self, number: u64) -> Asker {
        let waiter = self.waiters.remove(number);
        if let Some(queue) = self.queues.get_mut(&waiter.queue) {
            queue.waiting.remove(&number);
        }
        self.drop_if_idle(&waiter.queue);
        waiter.asker
    }

    /// A queue of which nothing is kept and at which nobody waits is as good as one that was never there.
    fn drop_if_idle(&mut self, name: &str) {
        let idle = |queue: &Queue| !queue.is_kept() && queue.waiting.is_empty();
        if self.queues.get(name).is_some_and(idle) {
            self.queues.remove(name);
        }
    }

    #[cfg(test)]
    pub(super) fn recount(&self) -> (usize, usize) {
        let (mut names, mut bytes) = (0, 0);
        let mut waiting: Vec<u64> = Vec::new();
        for (name, queue) in &self.queues {
            assert!(queue.is_kept() || !queue.waiting.is_empty(), "{name} idles");
            assert!(!queue.is_kept() || queue.waiting.is_empty(), "{name}");
            assert!(queue.items.capacity() <= 4 * queue.items.len().max(1));
            if queue.is_kept() {
                names += 1;
                bytes += super::budget::name_cost(name);
            }
            bytes += queue.items.iter().map(item_cost).sum::<usize>();
            waiting.extend(&queue.waiting);
        }
        waiting.sort_unstable();
        assert_eq!(waiting, self.waiters.numbers());
        (names, bytes)
    }
}

fn item_cost(item: &Blob) -> usize {
    ITEM_COST + item.len()
}

/// Gives up the slots of a ring that has become much too large, so that the memory of a drained queue is free for others.
fn shrink(items: &mut VecDeque<Blob>) {
    if items.capacity() > 4 * items.len() {
        items.shrink_to(2 * items.len());
    }
}

/// Decodes the items of a push, but no more than [`ITEMS_MAX`]: an empty one takes 8 bytes on the wire, and 32 here.
fn items_up_to_the_bound<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Blob>, D::Error> {
    struct Items;

    impl<'de> Visitor<'de> for Items {
        type Value = Vec<Blob>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "at most {ITEMS_MAX} byte strings")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Blob>, A::Error> {
            if let Some(count) = seq.size_hint().filter(|count| *count > ITEMS_MAX) {
                return Err(A::Error::custom(StateError::ItemsMany(count)));
            }
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == ITEMS_MAX {
                    return Err(A::Error::custom(StateError::ItemsMany(ITEMS_MAX + 1)));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    from.deserialize_seq(Items)
}
