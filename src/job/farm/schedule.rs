//! Which worker gets which task: pure, events and the time in, assignments and settled tasks out.
//!
//! Tasks wait in one line, and whoever has room takes the next; nobody has a share of his own. A worker has more than one
//! task at a time only while tasks are so short that it would otherwise wait for the wire. When the line is empty, idle
//! workers get copies of what others have not begun or have been at for long; the first answer counts (backup tasks, as in
//! Dean and Ghemawat, "MapReduce", OSDI 2004). Tasks of which one may have ended its worker are run alone from then on: so it is found
//! out which, it alone pays, and it takes no other with it.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Microseconds on the driver's clock.
pub type Micros = u64;

/// The work that a worker should have before it, so that it never waits for the wire.
const AHEAD_US: f64 = 2_000.0;

/// The most tasks of one worker at a time.
const WINDOW_MAX: usize = 256;

/// The weight of the last task in the mean of what tasks take: one in so many.
const RECENT: f64 = 16.0;

/// A task is copied after so many times the mean, and not before so many microseconds.
const COPY_AFTER_MEANS: f64 = 3.0;
const COPY_AFTER_US: Micros = 1_000_000;

/// What is done about tasks that fail and tasks that are slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How often a task is run again after it has failed, or lost its worker.
    pub retries: u32,
    /// Idle workers get copies of the slowest tasks.
    pub backups: bool,
}

/// How one run of a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It gave a result.
    Done,
    /// It failed, and may not the next time.
    Failed,
    /// It failed, and would again.
    FailedForGood,
}

/// A task to be sent to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// To whom.
    pub rank: u32,
    /// Its number.
    pub task: u64,
    /// How often it has failed before.
    pub failures: u32,
    /// What it is given.
    pub payload: Bytes,
}

/// A task that is done, or has failed for the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// Its number.
    pub task: u64,
    /// What it was given.
    pub given: Bytes,
    /// How often it failed.
    pub failures: u32,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is the task's outcome.
    Final(Final),
    /// It is, or was, run elsewhere too, or will be run again.
    NotYet,
}

struct Task {
    payload: Bytes,
    /// Who has it.
    copies: Vec<u32>,
    failures: u32,
    /// It may have ended a worker.
    suspect: bool,
}

struct Worker {
    /// Its tasks in the order in which they were sent, and since when it has been at the first.
    queue: VecDeque<u64>,
    since: Micros,
    /// A suspect is run alone.
    alone: bool,
    /// Its room was full when it was sent something.
    blocked: bool,
}

/// See the module.
pub struct Schedule {
    policy: Policy,
    tasks: FxHashMap<u64, Task>,
    waiting: VecDeque<u64>,
    workers: BTreeMap<u32, Worker>,
    /// Workers that may get something, those with the fewest tasks first.
    free: BTreeSet<(usize, u32)>,
    /// What a task takes, of late; none was answered before there is one.
    mean_us: Option<f64>,
    /// Bytes of what tasks are given that are not settled.
    bytes: usize,
}

impl Schedule {
    /// Nothing to do, and nobody to do it.
    pub fn new(policy: Policy) -> Schedule {
        Schedule {
            policy,
            tasks: FxHashMap::default(),
            waiting: VecDeque::new(),
            workers: BTreeMap::new(),
            free: BTreeSet::new(),
            mean_us: None,
            bytes: 0,
        }
    }

    /// Tasks that are not settled.
    pub fn unsettled(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of what unsettled tasks are given.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// One more task. False, and nothing happens, if one with this number is not settled.
    pub fn submit(&mut self, task: u64, payload: Bytes) -> bool {
        if self.tasks.contains_key(&task) {
            return false;
        }
        self.bytes += payload.len();
        self.tasks.insert(
            task,
            Task {
                payload,
                copies: Vec::new(),
                failures: 0,
                suspect: false,
            },
        );
        self.waiting.push_back(task);
        true
    }

    /// True if a worker has something to do.
    pub fn has_tasks(&self, rank: u32) -> bool {
        let worker = self.workers.get(&rank);
        worker.is_some_and(|worker| !worker.queue.is_empty())
    }

    /// True if some task is with a worker.
    pub fn is_any_under_way(&self) -> bool {
        self.waiting.len() < self.tasks.len()
    }

    /// A worker is there.
    pub fn joined(&mut self, rank: u32) {
        let worker = Worker {
            queue: VecDeque::new(),
            since: 0,
            alone: false,
            blocked: false,
        };
        self.workers.insert(rank, worker);
        self.free.insert((0, rank));
    }

    /// What is to be sent next, and to whom, if anything; to be followed by [`Schedule::sent`] or [`Schedule::blocked`].
    pub fn next(&self) -> Option<Assignment> {
        let (load, rank) = *self.free.first()?;
        let task = *self.waiting.front()?;
        let suspect = self.tasks[&task].suspect;
        if load >= self.window() || suspect && load > 0 {
            return None;
        }
        Some(self.assignment(rank, task))
    }

    /// A copy for an idle worker, if there is any sense in it: what [`Schedule::next`] is when the line is empty.
    pub fn next_copy(&self, now: Micros) -> Option<Assignment> {
        if !self.policy.backups || !self.waiting.is_empty() {
            return None;
        }
        let (0, rank) = *self.free.first()? else {
            return None;
        };
        let patience = self.mean_us.map_or(COPY_AFTER_US, |mean| {
            COPY_AFTER_US.max((mean * COPY_AFTER_MEANS) as Micros)
        });
        let lone = |task: &u64| {
            let task = &self.tasks.get(task);
            task.is_some_and(|task| task.copies.len() == 1 && task.failures == 0)
        };
        // What nobody has begun, and then what was begun longest ago.
        let unbegun = self
            .workers
            .values()
            .find_map(|worker| worker.queue.iter().skip(1).find(|task| lone(task)));
        let task = unbegun.copied().or_else(|| {
            let heads = self
                .workers
                .values()
                .filter_map(|worker| Some((worker.since, *worker.queue.front()?)));
            let slow = heads.filter(|(since, task)| since + patience <= now && lone(task));
            slow.min().map(|(_, task)| task)
        })?;
        Some(self.assignment(rank, task))
    }

    fn assignment(&self, rank: u32, number: u64) -> Assignment {
        let task = &self.tasks[&number];
        Assignment {
            rank,
            task: number,
            failures: task.failures,
            payload: task.payload.clone(),
        }
    }

    /// An assignment was sent.
    pub fn sent(&mut self, rank: u32, number: u64, now: Micros) {
        if self.waiting.front() == Some(&number) {
            self.waiting.pop_front();
        }
        let task = self.tasks.get_mut(&number).expect("it was assigned");
        task.copies.push(rank);
        let suspect = task.suspect;
        self.change(rank, |worker| {
            if worker.queue.is_empty() {
                worker.since = now;
            }
            worker.queue.push_back(number);
            worker.alone |= suspect;
        });
    }

    /// An assignment could not be sent: the worker has not room for it before it has answered others.
    pub fn blocked(&mut self, rank: u32) {
        self.change(rank, |worker| worker.blocked = true);
    }

    /// A worker has room again.
    pub fn unblocked(&mut self, rank: u32) {
        if self.workers.get(&rank).is_some_and(|worker| worker.blocked) {
            self.change(rank, |worker| worker.blocked = false);
        }
    }

    /// A worker's answer, and how long it was at it.
    pub fn answered(
        &mut self,
        rank: u32,
        number: u64,
        ending: Ending,
        took: Micros,
        now: Micros,
    ) -> Settled {
        if self.workers.contains_key(&rank) {
            self.change(rank, |worker| {
                if let Some(at) = worker.queue.iter().position(|task| *task == number) {
                    worker.queue.remove(at);
                }
                worker.since = now;
                worker.alone = false;
                worker.blocked = false;
            });
        }
        let took = took as f64;
        self.mean_us = Some(match self.mean_us {
            None => took,
            Some(mean) => mean + (took - mean) / RECENT,
        });
        // It is settled, or was taken from this worker, which came back to it too late.
        let holds = |task: &Task| task.copies.contains(&rank);
        if !self.tasks.get(&number).is_some_and(holds) {
            return Settled::NotYet;
        }
        match ending {
            Ending::Done => self.settle(number, 0),
            Ending::FailedForGood => self.settle(number, 1),
            Ending::Failed => self.failed(rank, number),
        }
    }

    /// A worker is gone, in order or `lost`. Gives the tasks that are not tried again. A task costs it a try if the worker had no
    /// other; of several none does, since any may be the cause.
    pub fn gone(&mut self, rank: u32, lost: bool) -> Vec<Final> {
        let Some(worker) = self.workers.remove(&rank) else {
            return Vec::new();
        };
        self.free.remove(&(worker.queue.len(), rank));
        let mut given_up = Vec::new();
        // From the last, so that they stand in the line in their order.
        let alone = worker.queue.len() == 1;
        for number in worker.queue.iter().rev() {
            let Some(task) = self.tasks.get_mut(number) else {
                continue;
            };
            task.suspect |= lost;
            if lost && alone {
                if let Settled::Final(task) = self.failed(rank, *number) {
                    given_up.push(task);
                }
                continue;
            }
            task.copies.retain(|copy| *copy != rank);
            if task.copies.is_empty() {
                self.waiting.push_front(*number);
            }
        }
        given_up
    }

    /// One run of a task has failed.
    fn failed(&mut self, rank: u32, number: u64) -> Settled {
        let task = self.tasks.get_mut(&number).expect("the caller has looked");
        task.copies.retain(|copy| *copy != rank);
        if task.copies.is_empty() && task.failures >= self.policy.retries {
            return self.settle(number, 1);
        }
        task.failures += 1;
        if task.copies.is_empty() {
            // Ahead of the others, which may wait for it where results are wanted in order.
            self.waiting.push_front(number);
        }
        Settled::NotYet
    }

    fn settle(&mut self, number: u64, failures: u32) -> Settled {
        let task = self.tasks.remove(&number).expect("it is not settled yet");
        self.bytes -= task.payload.len();
        Settled::Final(Final {
            task: number,
            given: task.payload,
            failures: task.failures + failures,
        })
    }

    /// How many tasks a worker may have.
    fn window(&self) -> usize {
        match self.mean_us {
            None => 1,
            Some(mean) => (1.0 + AHEAD_US / mean.max(1.0)).min(WINDOW_MAX as f64) as usize,
        }
    }

    /// Changes a worker, and where it stands among those that are free.
    fn change(&mut self, rank: u32, change: impl FnOnce(&mut Worker)) {
        let worker = self.workers.get_mut(&rank).expect("it is there");
        self.free.remove(&(worker.queue.len(), rank));
        change(worker);
        if !worker.alone && !worker.blocked {
            self.free.insert((worker.queue.len(), rank));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        retries: 1,
        backups: true,
    };

    fn schedule(policy: Policy, tasks: u64, workers: u32) -> Schedule {
        let mut schedule = Schedule::new(policy);
        (0..tasks).for_each(|task| {
            assert!(schedule.submit(task, Bytes::from(task.to_le_bytes().to_vec())))
        });
        (0..workers).for_each(|rank| schedule.joined(rank));
        schedule
    }

    /// Sends all that can be; who got what.
    fn assign(schedule: &mut Schedule, now: Micros) -> Vec<(u32, u64)> {
        let mut sent = Vec::new();
        while let Some(assignment) = schedule.next() {
            schedule.sent(assignment.rank, assignment.task, now);
            sent.push((assignment.rank, assignment.task));
        }
        sent
    }

    fn is_final(settled: Settled, failures: u32) -> bool {
        matches!(settled, Settled::Final(task) if task.failures == failures)
    }

    #[test]
    fn whoever_is_free_takes_the_next_one_at_a_time_while_tasks_are_long() {
        let mut schedule = schedule(POLICY, 5, 2);
        assert_eq!(assign(&mut schedule, 0), [(0, 0), (1, 1)]);
        assert!(is_final(
            schedule.answered(1, 1, Ending::Done, 50_000, 50_000),
            0
        ));
        assert_eq!(assign(&mut schedule, 50_000), [(1, 2)]);
        assert!(is_final(
            schedule.answered(1, 2, Ending::Done, 50_000, 100_000),
            0
        ));
        assert_eq!(assign(&mut schedule, 100_000), [(1, 3)]);
    }

    #[test]
    fn short_tasks_are_sent_ahead_to_all_alike() {
        let mut schedule = schedule(POLICY, 1000, 2);
        assign(&mut schedule, 0);
        assert!(is_final(schedule.answered(0, 0, Ending::Done, 100, 100), 0));
        let sent = assign(&mut schedule, 100);
        let to_first = sent.iter().filter(|(rank, _)| *rank == 0).count();
        assert_eq!(
            (to_first, sent.len()),
            (21, 41),
            "2 ms ahead, in tasks of 0.1 ms"
        );
        schedule.blocked(0);
        assert!(schedule.next().is_none());
        assert!(is_final(schedule.answered(1, 1, Ending::Done, 100, 200), 0));
        assert_eq!(schedule.next().map(|next| next.rank), Some(1));
        schedule.unblocked(0);
    }

    #[test]
    fn a_task_that_fails_is_tried_again_and_then_given_up() {
        let mut schedule = schedule(POLICY, 2, 1);
        assert_eq!(assign(&mut schedule, 0), [(0, 0)]);
        let failed = |schedule: &mut Schedule, task| {
            schedule.answered(0, task, Ending::Failed, 9_000, 9_000)
        };
        assert_eq!(failed(&mut schedule, 0), Settled::NotYet);
        assert_eq!(assign(&mut schedule, 0), [(0, 0)]);
        assert!(is_final(failed(&mut schedule, 0), 2));
        assert_eq!(assign(&mut schedule, 0), [(0, 1)]);
        assert!(is_final(
            schedule.answered(0, 1, Ending::FailedForGood, 9_000, 0),
            1
        ));
        assert!(schedule.submit(7, Bytes::new()) && !schedule.submit(7, Bytes::new()));
        assert_eq!(assign(&mut schedule, 0), [(0, 7)]);
        // What is said of a task that was given to another is not listened to.
        schedule.joined(1);
        schedule.gone(0, false);
        assert_eq!(failed(&mut schedule, 7), Settled::NotYet);
        assert_eq!(assign(&mut schedule, 0), [(1, 7)]);
        assert!(is_final(schedule.answered(1, 7, Ending::Done, 1, 1), 0));
        assert_eq!((schedule.unsettled(), schedule.bytes()), (0, 0));
    }

    #[test]
    fn tasks_of_a_lost_worker_are_run_alone_and_one_that_was_alone_pays() {
        let mut schedule = schedule(POLICY, 8, 1);
        assign(&mut schedule, 0);
        assert!(is_final(schedule.answered(0, 0, Ending::Done, 500, 500), 0));
        assert_eq!(assign(&mut schedule, 500).len(), 5);
        assert!(schedule.gone(0, true).is_empty());
        schedule.joined(1);
        // In their order, each alone; the third ends its worker again, and pays for it.
        for task in [1, 2] {
            assert_eq!(assign(&mut schedule, 1_000), [(1, task)]);
            assert!(is_final(
                schedule.answered(1, task, Ending::Done, 500, 1_000),
                0
            ));
        }
        assert_eq!(assign(&mut schedule, 1_000), [(1, 3)]);
        assert!(schedule.gone(1, true).is_empty());
        schedule.joined(2);
        assert_eq!(assign(&mut schedule, 1_000), [(2, 3)]);
        let given_up = schedule.gone(2, true);
        assert_eq!(given_up.len(), 1);
        assert_eq!((given_up[0].task, given_up[0].failures), (3, 2));
        // One that leaves in order costs nothing. Those that were never with a lost worker go together again.
        schedule.joined(3);
        for task in [4, 5] {
            assert_eq!(assign(&mut schedule, 1_000), [(3, task)]);
            assert!(is_final(
                schedule.answered(3, task, Ending::Done, 500, 1_000),
                0
            ));
        }
        assert_eq!(assign(&mut schedule, 1_000), [(3, 6), (3, 7)]);
        assert!(schedule.gone(3, false).is_empty());
        schedule.joined(4);
        assert_eq!(assign(&mut schedule, 4_000), [(4, 6), (4, 7)]);
    }

    #[test]
    fn idle_workers_get_copies_of_the_slowest_and_the_first_answer_counts() {
        let mut schedule = schedule(POLICY, 3, 3);
        assign(&mut schedule, 0);
        assert!(is_final(
            schedule.answered(2, 2, Ending::Done, 100_000, 100_000),
            0
        ));
        assert_eq!(schedule.next_copy(900_000), None, "it is not slow yet");
        let copy = schedule
            .next_copy(1_100_000)
            .expect("an idle worker and a slow task");
        assert_eq!((copy.rank, copy.task), (2, 0));
        schedule.sent(2, 0, 1_100_000);
        assert_eq!(schedule.next_copy(9_000_000), None, "nobody is idle");
        assert!(is_final(
            schedule.answered(2, 0, Ending::Done, 100_000, 1_200_000),
            0
        ));
        // The other slow one; and the first answer comes too late.
        let copy = schedule
            .next_copy(1_300_000)
            .expect("the other is slow too");
        assert_eq!((copy.rank, copy.task), (2, 1));
        assert_eq!(
            schedule.answered(0, 0, Ending::Done, 1_300_000, 1_300_000),
            Settled::NotYet
        );
        let none = Policy {
            backups: false,
            ..POLICY
        };
        let mut schedule = self::schedule(none, 1, 2);
        assign(&mut schedule, 0);
        assert_eq!(schedule.next_copy(1 << 40), None);
    }

    /// Whatever workers do, every task is settled once, nothing is left over, and no task is tried too often.
    #[test]
    fn every_task_is_settled_once_whatever_workers_do() {
        use rand_chacha::ChaCha8Rng;
        use rand_chacha::rand_core::{RngCore, SeedableRng};

        for seed in 0..300 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut roll = |sides: u32| random.next_u32() % sides;
            let policy = Policy {
                retries: roll(3),
                backups: roll(2) == 0,
            };
            let tasks = u64::from(roll(60));
            let mut schedule = schedule(policy, tasks, 0);
            // What each worker has been sent, as it sees it.
            let mut workers: BTreeMap<u32, VecDeque<u64>> = BTreeMap::new();
            let (mut next_rank, mut now) = (0, 0);
            let mut settled: BTreeSet<u64> = BTreeSet::new();
            let mut tries: BTreeMap<u64, u32> = BTreeMap::new();
            let mut settle = |task: Final| {
                assert!(task.failures <= policy.retries + 2, "seed {seed}: {task:?}");
                assert_eq!(task.given[..], task.task.to_le_bytes()[..]);
                assert!(
                    settled.insert(task.task),
                    "seed {seed}: {} is settled twice",
                    task.task
                );
            };
            for step in 0..100_000 {
                now += Micros::from(roll(400_000));
                if schedule.unsettled() == 0 {
                    break;
                }
                assert!(step < 99_999, "seed {seed}: it does not end");
                let copy = schedule.next_copy(now);
                if let Some(next) = schedule.next().or(copy) {
                    schedule.sent(next.rank, next.task, now);
                    *tries.entry(next.task).or_default() += 1;
                    workers
                        .get_mut(&next.rank)
                        .expect("it is there")
                        .push_back(next.task);
                }
                if workers.len() < 4 && roll(3) == 0 {
                    schedule.joined(next_rank);
                    workers.insert(next_rank, VecDeque::new());
                    next_rank += 1;
                }
                let Some((&rank, _)) = workers.iter().nth(roll(4) as usize) else {
                    continue;
                };
                match roll(12) {
                    0 => {
                        let had = workers.remove(&rank).unwrap_or_default();
                        let lost = roll(2) == 0;
                        schedule.gone(rank, lost).into_iter().for_each(&mut settle);
                        // What it said last comes too late.
                        for task in had.into_iter().take(roll(2) as usize) {
                            let ending = [Ending::Done, Ending::Failed][roll(2) as usize];
                            let late = schedule.answered(rank, task, ending, 1, now);
                            assert_eq!(late, Settled::NotYet, "seed {seed}");
                        }
                    }
                    1 => {
                        schedule.blocked(rank);
                        schedule.unblocked(rank);
                    }
                    _ => {
                        let Some(task) = workers.get_mut(&rank).and_then(VecDeque::pop_front)
                        else {
                            continue;
                        };
                        let ending = match roll(8) {
                            0 | 1 => Ending::Failed,
                            2 => Ending::FailedForGood,
                            _ => Ending::Done,
                        };
                        let took = Micros::from(roll(5_000));
                        if let Settled::Final(task) =
                            schedule.answered(rank, task, ending, took, now)
                        {
                            settle(task);
                        }
                    }
                }
            }
            assert_eq!(settled.len() as u64, tasks, "seed {seed}");
            assert_eq!(
                (schedule.bytes(), schedule.waiting()),
                (0, 0),
                "seed {seed}"
            );
        }
    }
}
