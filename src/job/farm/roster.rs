//! Who works on a farm: who was called, whom others are to start, who is there, and who is about to be lost. No I/O.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long no further workers are started when Lambda takes no more calls and there are some already.
const THROTTLED_FOR: Duration = Duration::from_secs(5);

/// What is known of the workers, by rank.
#[derive(Debug)]
pub(super) struct Roster {
    /// How many are wanted at once.
    wanted: u32,
    /// Ranks of the job; each start takes one.
    slots: u32,
    /// In how many levels workers are started from now on.
    levels: u32,
    workers: BTreeMap<u32, Worker>,
    present: u32,
    next_rank: u32,
    /// Lambda takes no more calls for now; it is asked again then.
    start_again: Option<Instant>,
    first_called: Option<Instant>,
    first_joined: Option<Instant>,
}

/// One that is there, or on its way.
#[derive(Debug, Default)]
struct Worker {
    /// When it was called, while its call has not returned.
    call: Option<Instant>,
    /// It is to come by itself: since when, and whose call begins it. Others start it, or its own call has ended with that.
    promise: Option<(Instant, u32)>,
    present: bool,
    /// Why it is lost and from when, unless its call tells better until then.
    losing: Option<(Instant, String)>,
}

/// How the Invoke call of a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallEnd {
    /// With an answer.
    Returned,
    /// Its worker will be started, or has been, or nobody knows whether it will.
    Open,
    /// Nobody knows whether the worker runs on.
    BrokeOff,
    /// Lambda did not take it.
    Throttled,
    /// The worker failed.
    Failed,
}

/// What the end of a call means for its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: it is accounted for, or the switch will tell.
    Nothing,
    /// It goes on without its call.
    GoesOn,
    /// It was there and is not any more; the caller takes it off.
    Gone,
    /// It has never been there, and is off the roster.
    NeverCame,
}

impl Roster {
    pub(super) fn new(wanted: u32, slots: u32, levels: u32) -> Roster {
        Roster {
            wanted,
            slots,
            levels,
            workers: BTreeMap::new(),
            present: 0,
            next_rank: 0,
            start_again: None,
            first_called: None,
            first_joined: None,
        }
    }

    /// Takes the ranks of those that are to be started now, so that as many as are wanted are there or on their way.
    pub(super) fn start(&mut self, now: Instant) -> Range<u32> {
        let first = self.next_rank;
        if self.start_again.is_some_and(|at| now < at) {
            return first..first;
        }
        let missing = self.wanted.saturating_sub(self.workers.len() as u32);
        self.next_rank = (first + missing).min(self.slots);
        first..self.next_rank
    }

    /// In how many levels those that are to be started now are started.
    pub(super) fn levels(&self) -> u32 {
        self.levels
    }

    pub(super) fn called(&mut self, rank: u32, now: Instant) {
        self.first_called.get_or_insert(now);
        self.workers.entry(rank).or_default().call = Some(now);
    }

    /// `rank` is to be started by the worker `leader` or those it starts.
    pub(super) fn promised(&mut self, rank: u32, leader: u32, now: Instant) {
        self.workers.entry(rank).or_default().promise = Some((now, leader));
    }

    pub(super) fn joined(&mut self, rank: u32, now: Instant) {
        self.first_joined.get_or_insert(now);
        let worker = self.workers.entry(rank).or_default();
        worker.promise = None;
        self.present += u32::from(!worker.present);
        worker.present = true;
    }

    /// Its connection has ended. True if its call may tell why until `until`, when it is [`overdue`](Self::overdue).
    pub(super) fn disconnected(&mut self, rank: u32, reason: &str, until: Instant) -> bool {
        let worker = self.workers.get_mut(&rank);
        let Some(worker) = worker.filter(|worker| worker.call.is_some()) else {
            return false;
        };
        worker.losing = Some((until, reason.to_string()));
        true
    }

    /// Its Invoke call has ended.
    pub(super) fn returned(
        &mut self,
        rank: u32,
        end: CallEnd,
        now: Instant,
        until: Instant,
    ) -> Meaning {
        // One that has gone already is accounted for.
        let Some(worker) = self.workers.get_mut(&rank) else {
            return Meaning::Nothing;
        };
        if worker.call.take().is_none() {
            return Meaning::Nothing;
        }
        let (present, others) = (worker.present, self.present > 0);
        match end {
            CallEnd::Returned if present => {
                // What it said last, the switch may still tell.
                worker.losing = Some((until, "its call returned".into()));
                Meaning::Nothing
            }
            CallEnd::Open => {
                if !present {
                    worker.promise = Some((now, rank));
                }
                Meaning::Nothing
            }
            CallEnd::BrokeOff if present && worker.losing.is_none() => Meaning::GoesOn,
            CallEnd::Throttled if others => {
                // It never ran.
                self.remove(rank);
                self.unpromise(|_, leader| leader == rank);
                self.start_again = Some(now + THROTTLED_FOR);
                Meaning::Nothing
            }
            _ if present => {
                worker.losing = None;
                Meaning::Gone
            }
            _ => {
                self.remove(rank);
                self.unpromise(|_, leader| leader == rank);
                Meaning::NeverCame
            }
        }
    }

    /// Takes a worker off. True if it was there.
    pub(super) fn remove(&mut self, rank: u32) -> bool {
        let present = self
            .workers
            .remove(&rank)
            .is_some_and(|worker| worker.present);
        self.present -= u32::from(present);
        present
    }

    /// Those whose calls have not told in time why they were lost, and what else is known.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(u32, String)> {
        let overdue = |(rank, worker): (&u32, &mut Worker)| {
            let reason = worker.losing.take_if(|(until, _)| *until <= now)?.1;
            Some((*rank, reason))
        };
        self.workers.iter_mut().filter_map(overdue).collect()
    }

    /// Gives up those that were to come by themselves `patience` ago, and says how many.
    pub(super) fn give_up_promised(&mut self, now: Instant, patience: Duration) -> u32 {
        self.unpromise(|since, _| now.duration_since(since) > patience)
    }

    /// Those that take the places of the ones that will not come are started directly.
    fn unpromise(&mut self, is_gone: impl Fn(Instant, u32) -> bool) -> u32 {
        let before = self.workers.len();
        let gone = |worker: &Worker| worker.promise.is_some_and(|(at, by)| is_gone(at, by));
        self.workers.retain(|_, worker| !gone(worker));
        let gone = (before - self.workers.len()) as u32;
        if gone > 0 {
            self.levels = 1;
        }
        gone
    }

    /// How many have been called in vain, if nobody is there and all have had `patience`.
    pub(super) fn nobody_comes(&self, now: Instant, patience: Duration) -> Option<u32> {
        let calls = || self.workers.values().filter_map(|worker| worker.call);
        let waits = calls().all(|since| now.duration_since(since) > patience);
        let count = calls().count() as u32;
        (self.present == 0 && count > 0 && waits).then_some(count)
    }

    /// True if a worker is there, or on its way.
    pub(super) fn has(&self, rank: u32) -> bool {
        self.workers.contains_key(&rank)
    }

    /// How many have come and gone, if nobody is left and there is no rank for another one.
    pub(super) fn used_up(&self) -> Option<u32> {
        (self.workers.is_empty() && self.next_rank >= self.slots).then_some(self.next_rank)
    }

    /// How many are there.
    pub(super) fn count(&self) -> u32 {
        self.present
    }

    /// Those that are there, and whether each is about to be lost.
    pub(super) fn present(&self) -> impl Iterator<Item = (u32, bool)> {
        let workers = self.workers.iter().filter(|(_, worker)| worker.present);
        workers.map(|(rank, worker)| (*rank, worker.losing.is_some()))
    }

    /// From the first call until the first worker had joined, and from then until `finished`.
    pub(super) fn times(&self, finished: Instant) -> (Duration, Duration) {
        let called = self.first_called.unwrap_or(finished);
        let joined = self.first_joined.unwrap_or(finished);
        (
            joined.saturating_duration_since(called),
            finished.saturating_duration_since(joined),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn places_of_the_lost_are_filled_with_new_ranks_until_there_are_none() {
        let now = Instant::now();
        let mut roster = Roster::new(2, 3, 1);
        assert_eq!(roster.start(now), 0..2);
        for rank in 0..2 {
            roster.called(rank, now);
            roster.joined(rank, now);
        }
        assert!(roster.start(now).is_empty());
        assert!(roster.remove(0) && !roster.remove(0));
        assert_eq!(roster.start(now), 2..3);
        roster.called(2, now);
        assert!(roster.remove(1) && !roster.remove(2));
        assert!(roster.start(now).is_empty());
        assert_eq!(roster.used_up(), Some(3));
    }

    #[test]
    fn a_call_may_tell_why_its_worker_was_lost_until_it_is_overdue() {
        let now = Instant::now();
        let mut roster = Roster::new(2, 9, 1);
        for rank in roster.start(now) {
            roster.called(rank, now);
            roster.joined(rank, now);
            assert!(roster.disconnected(rank, "closed", now + SECOND));
        }
        assert!(roster.overdue(now).is_empty());
        let end = roster.returned(0, CallEnd::Failed, now, now + SECOND);
        assert_eq!(end, Meaning::Gone);
        assert!(roster.remove(0));
        assert_eq!(roster.overdue(now + SECOND), [(1, "closed".to_string())]);
        // Its call tells nothing any more once it is off.
        assert!(roster.remove(1));
        let end = roster.returned(1, CallEnd::Failed, now, now + SECOND);
        assert_eq!(end, Meaning::Nothing);
        // Without a call there is nothing to wait for.
        assert!(!roster.disconnected(1, "closed", now));
    }

    #[test]
    fn whoever_is_there_goes_on_when_its_call_breaks_off_but_not_when_it_returns() {
        let now = Instant::now();
        let mut roster = Roster::new(3, 9, 1);
        for rank in roster.start(now) {
            roster.called(rank, now);
        }
        roster.joined(0, now);
        roster.joined(1, now);
        let broke = roster.returned(0, CallEnd::BrokeOff, now, now + SECOND);
        assert_eq!((broke, roster.count()), (Meaning::GoesOn, 2));
        let returned = roster.returned(1, CallEnd::Returned, now, now + SECOND);
        assert_eq!(returned, Meaning::Nothing);
        assert_eq!(roster.overdue(now + SECOND)[0].0, 1);
        let never = roster.returned(2, CallEnd::BrokeOff, now, now + SECOND);
        assert_eq!((never, roster.count()), (Meaning::NeverCame, 2));
    }

    #[test]
    fn a_throttled_call_waits_if_there_are_others_and_fails_if_not() {
        let now = Instant::now();
        let mut roster = Roster::new(2, 9, 1);
        for rank in roster.start(now) {
            roster.called(rank, now);
        }
        let first = roster.returned(0, CallEnd::Throttled, now, now);
        assert_eq!(first, Meaning::NeverCame);
        roster.joined(1, now);
        assert_eq!(roster.start(now), 2..3);
        roster.called(2, now);
        let third = roster.returned(2, CallEnd::Throttled, now, now);
        assert_eq!(third, Meaning::Nothing);
        assert!(roster.start(now).is_empty());
        assert_eq!(roster.start(now + THROTTLED_FOR), 3..4);
    }

    #[test]
    fn whoever_was_promised_in_vain_is_replaced_directly() {
        let now = Instant::now();
        let mut roster = Roster::new(4, 9, 2);
        assert_eq!((roster.start(now), roster.levels()), (0..4, 2));
        for leader in [0, 2] {
            roster.called(leader, now);
            roster.promised(leader + 1, leader, now);
        }
        roster.joined(0, now);
        roster.joined(1, now);
        // The others of a leader that never came will not come either.
        let end = roster.returned(2, CallEnd::Failed, now, now);
        assert_eq!(end, Meaning::NeverCame);
        assert_eq!((roster.start(now), roster.levels()), (4..6, 1));
        roster.promised(4, 0, now);
        assert_eq!(roster.give_up_promised(now + SECOND, SECOND), 0);
        assert_eq!(roster.give_up_promised(now + 2 * SECOND, SECOND), 1);
        assert_eq!(roster.count(), 2);
    }

    #[test]
    fn a_call_that_only_starts_its_worker_leaves_a_promise() {
        let now = Instant::now();
        let mut roster = Roster::new(2, 9, 1);
        for rank in roster.start(now) {
            roster.called(rank, now);
        }
        roster.joined(0, now);
        for rank in 0..2 {
            let end = roster.returned(rank, CallEnd::Open, now, now);
            assert_eq!(end, Meaning::Nothing);
        }
        assert!(roster.start(now).is_empty());
        assert_eq!(roster.give_up_promised(now + 2 * SECOND, SECOND), 1);
        assert_eq!(roster.start(now + 2 * SECOND), 2..3);
        // Of who is there the switch alone tells the end.
        assert!(!roster.disconnected(0, "closed", now));
        assert!(roster.remove(0));
    }

    #[test]
    fn nobody_comes_when_all_that_were_called_have_had_their_time() {
        let now = Instant::now();
        let mut roster = Roster::new(1, 9, 1);
        assert_eq!(roster.nobody_comes(now + 2 * SECOND, SECOND), None);
        roster.called(0, now);
        assert_eq!(roster.nobody_comes(now + SECOND, SECOND), None);
        assert_eq!(roster.nobody_comes(now + 2 * SECOND, SECOND), Some(1));
        roster.joined(0, now);
        assert_eq!(roster.nobody_comes(now + 2 * SECOND, SECOND), None);
    }
}
