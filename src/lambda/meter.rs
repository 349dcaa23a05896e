//! What a job takes while it runs, and the most that it may cost. Pure; times are given.

use crate::lambda::cost::{Prices, Usage, WorkerUsage};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Of a function: what decides how much a second of it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its memory in MB.
    pub memory_mb: u32,
    /// It runs on Graviton.
    pub arm: bool,
}

/// Counts what workers take: as they say, or by the clock while they have not said, which a worker that was lost never does.
#[derive(Debug, Default)]
pub struct Meter {
    /// The functions' size, once anybody has told it; the largest if they differ.
    size: Option<Size>,
    /// That is not what anybody has told, but what is taken for it.
    guessed: bool,
    said: Usage,
    /// Whom Lambda starts, and since when.
    coming: BTreeMap<u32, Instant>,
    /// Who is there and has not said, and since when.
    running: BTreeMap<u32, Instant>,
    /// Those that have ended without a word, and their time together.
    silent: u64,
    silent_ms: u64,
    calls: u64,
}

impl Meter {
    /// Nobody is there yet. The size is what is taken for it if it is `guessed`.
    pub fn new(size: Size, guessed: bool) -> Meter {
        Meter {
            size: Some(size),
            guessed,
            ..Meter::default()
        }
    }

    /// The functions have this size, if no worker has said another.
    pub fn suppose(&mut self, size: Size) {
        if self.size.is_none() || self.guessed {
            self.size = Some(size);
        }
    }

    /// True if the functions' size is neither known nor said.
    pub fn wants_size(&self) -> bool {
        self.size.is_none()
    }

    /// Lambda has taken a call.
    pub fn called(&mut self) {
        self.calls += 1;
    }

    /// Lambda has taken a call and will start this worker.
    pub fn starts(&mut self, worker: u32, now: Instant) {
        if self.running.contains_key(&worker) {
            return;
        }
        if let Some(since) = self.coming.insert(worker, now) {
            self.silent += 1;
            self.silent_ms += coming_ms(since, now);
        }
    }

    /// The worker with this lowest rank is there.
    pub fn joined(&mut self, worker: u32, now: Instant) {
        let since = self.coming.remove(&worker).unwrap_or(now);
        self.running.insert(worker, since);
    }

    /// A worker has said what it took, at its end.
    pub fn said(&mut self, worker: u32, usage: WorkerUsage) {
        self.coming.remove(&worker);
        self.running.remove(&worker);
        self.said.add(usage);
        let said = Size {
            memory_mb: usage.memory_mb,
            arm: usage.arm,
        };
        let known = self.size.filter(|_| !self.guessed);
        if said.memory_mb > known.map_or(0, |size| size.memory_mb) {
            self.size = Some(said);
            self.guessed = false;
        }
    }

    /// A worker is gone, whether it has said anything or not.
    pub fn ended(&mut self, worker: u32, now: Instant) {
        if let Some(since) = self.running.remove(&worker) {
            self.silent += 1;
            self.silent_ms += elapsed_ms(since, now);
        }
    }

    /// What was taken until now.
    pub fn usage(&self, now: Instant) -> Usage {
        let mut usage = Usage {
            calls: self.calls,
            ..self.said
        };
        if let Some(size) = self.size {
            let coming = self.coming.values().map(|since| coming_ms(*since, now));
            let running = self.running.values().map(|since| elapsed_ms(*since, now));
            usage.estimated = self.silent + (self.coming.len() + self.running.len()) as u64;
            let ms = self.silent_ms + coming.sum::<u64>() + running.sum::<u64>();
            usage.add_time(size.memory_mb, size.arm, ms);
        }
        usage
    }
}

/// What one takes at most of which nobody has heard: it waits for the switch no longer.
const COMING_MAX: Duration = Duration::from_secs(60);

fn coming_ms(since: Instant, now: Instant) -> u64 {
    elapsed_ms(since, now).min(COMING_MAX.as_millis() as u64)
}

fn elapsed_ms(since: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(since).as_millis() as u64
}

/// The most that a job may cost, over all that it goes on with.
#[derive(Debug)]
pub struct Budget {
    max: f64,
    prices: Prices,
    /// The functions' size; the largest if they differ.
    size: Size,
    /// It is not known, and that is the most that it can be.
    guessed: bool,
    switches: usize,
    /// What has ended has cost so much.
    spent: Mutex<f64>,
}

/// A budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("it has cost about ${cost:.4}, and may cost ${max}")]
pub struct Spent {
    /// US dollars.
    pub cost: f64,
    /// US dollars.
    pub max: f64,
}

impl Budget {
    /// So many dollars for functions of this size, which may be `guessed`, and so many switches.
    pub fn new(max: f64, prices: Prices, (size, guessed): (Size, bool), switches: usize) -> Budget {
        Budget {
            max,
            prices,
            size,
            guessed,
            switches,
            spent: Mutex::default(),
        }
    }

    /// A meter for one job of it.
    pub fn meter(&self) -> Meter {
        Meter::new(self.size, self.guessed)
    }

    /// Is there something left, if what goes on has taken this?
    ///
    /// # Errors
    /// When there is not.
    pub fn check(&self, usage: &Usage, took: Duration) -> Result<(), Spent> {
        let now = self.prices.cost(usage, took, self.switches).total();
        let (cost, max) = (self.spent() + now, self.max);
        if cost < max {
            return Ok(());
        }
        Err(Spent { cost, max })
    }

    /// What went on has ended, and took this.
    pub fn settle(&self, usage: &Usage, took: Duration) {
        let cost = self.prices.cost(usage, took, self.switches).total();
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += cost;
    }

    fn spent(&self) -> f64 {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        memory_mb: 1024,
        arm: false,
    };

    fn worker(elapsed_ms: u64) -> WorkerUsage {
        WorkerUsage {
            memory_mb: 1024,
            elapsed_ms,
            ..WorkerUsage::default()
        }
    }

    #[test]
    fn who_says_nothing_is_counted_by_the_clock() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut meter = Meter::new(SIZE, false);
        for rank in 0..4 {
            meter.joined(rank, begun);
        }
        assert!((meter.usage(at(10)).gb_seconds() - 40.0).abs() < 1e-9);
        // One says so, and is not counted twice when it is gone.
        meter.said(0, worker(11_000));
        meter.ended(0, at(11));
        // One is lost.
        meter.ended(1, at(12));
        let usage = meter.usage(at(20));
        assert!((usage.gb_seconds() - (11.0 + 12.0 + 2.0 * 20.0)).abs() < 1e-9);
        assert_eq!((usage.workers, usage.estimated), (1, 3));
        // Who never came takes nothing.
        meter.ended(9, at(30));
        assert_eq!(meter.usage(at(20)), usage);
    }

    #[test]
    fn the_size_is_what_workers_say_and_without_one_nothing_is_estimated() {
        let begun = Instant::now();
        let mut meter = Meter::default();
        meter.joined(0, begun);
        meter.joined(1, begun);
        meter.ended(0, begun + Duration::from_secs(5));
        let usage = meter.usage(begun + Duration::from_secs(5));
        assert_eq!((usage.estimated, usage.gb_seconds()), (0, 0.0));
        assert!(meter.wants_size());
        meter.suppose(Size {
            memory_mb: 512,
            ..SIZE
        });
        let usage = meter.usage(begun + Duration::from_secs(5));
        assert_eq!((usage.estimated, usage.gb_seconds()), (2, 5.0));
        meter.said(1, worker(6_000));
        let usage = meter.usage(begun + Duration::from_secs(9));
        assert_eq!(usage.estimated, 1);
        assert!((usage.gb_seconds() - 11.0).abs() < 1e-9);
    }

    #[test]
    fn who_does_not_come_is_counted_for_as_long_as_it_may_wait() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut meter = Meter::new(SIZE, false);
        for rank in 0..3 {
            meter.called();
            meter.starts(rank, begun);
        }
        meter.joined(0, at(4));
        assert!((meter.usage(at(10)).gb_seconds() - 30.0).abs() < 1e-9);
        // One is called again, and comes.
        meter.starts(1, at(10));
        meter.joined(1, at(12));
        meter.said(0, worker(15_000));
        meter.said(1, worker(5_000));
        let usage = meter.usage(at(100));
        assert!((usage.gb_seconds() - (15.0 + 5.0 + 10.0 + 60.0)).abs() < 1e-9);
        assert_eq!((usage.workers, usage.estimated), (2, 2));
    }

    #[test]
    fn a_guess_gives_way_to_what_is_said_and_the_largest_stays() {
        let mut meter = Meter::new(
            Size {
                memory_mb: 10_240,
                arm: false,
            },
            true,
        );
        let begun = Instant::now();
        meter.joined(0, begun);
        meter.joined(1, begun);
        meter.said(0, worker(0));
        let second = begun + Duration::from_secs(1);
        assert!((meter.usage(second).gb_seconds() - 1.0).abs() < 1e-9);
        meter.said(
            2,
            WorkerUsage {
                memory_mb: 4096,
                ..worker(0)
            },
        );
        meter.said(3, worker(0));
        assert!((meter.usage(second).gb_seconds() - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_budget_is_one_for_all_that_goes_on() {
        let prices = Prices {
            gb_second_x86: 0.01,
            million_invocations: 0.0,
            switch_hour: 0.0,
            ..Prices::default()
        };
        let budget = Budget::new(1.0, prices, (SIZE, false), 1);
        let of = |seconds: u64| {
            let mut usage = Usage::default();
            usage.add(worker(seconds * 1000));
            usage
        };
        assert_eq!(budget.check(&of(99), Duration::ZERO), Ok(()));
        let spent = budget.check(&of(101), Duration::ZERO);
        let spent = spent.expect_err("a dollar is a hundred of these");
        assert_eq!(
            spent.to_string(),
            "it has cost about $1.0100, and may cost $1"
        );
        budget.settle(&of(60), Duration::ZERO);
        assert_eq!(budget.check(&of(39), Duration::ZERO), Ok(()));
        assert!(budget.check(&of(41), Duration::ZERO).is_err());
    }
}
