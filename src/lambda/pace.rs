//! How fast packs are started: as fast as Lambda makes environments, and no faster. Pure; times are given.
//!
//! Lambda makes at most 1,000 new environments of a function at once, and from then on 100 more each second (its published scaling
//! rate: 1,000 in 10 s, refilled continuously and never more than 1,000). An asynchronous call beyond that is accepted all the same and
//! then waits in Lambda's own queue, with pauses that double up to minutes; so calls are held back here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// New environments of a function at once.
const BURST: f64 = 1000.0;

/// New environments of a function each second after that.
const RATE: f64 = 100.0;

/// The first pause after Lambda refused a call because there are too many, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What there are too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttle {
    /// Calls.
    Calls,
    /// Environments, of this function or in the account.
    Environments,
}

/// When functions may be called.
#[derive(Debug)]
pub struct Pace {
    functions: BTreeMap<String, Function>,
    burst: f64,
    rate: f64,
}

/// How long it takes at least until so many environments of a function are started.
pub fn time_to_start(packs: u32) -> Duration {
    Duration::from_secs_f64((f64::from(packs) - BURST).max(0.0) / RATE)
}

#[derive(Debug)]
struct Function {
    /// Calls that may be made at once.
    room: f64,
    /// When that was so.
    at: Instant,
    /// Nothing is called before.
    hold: Option<Instant>,
    pause: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::among(1)
    }
}

impl Pace {
    /// One of so many that call the same functions at the same time: each has an equal part of the rate.
    pub fn among(launchers: u32) -> Pace {
        let launchers = f64::from(launchers.max(1));
        Pace {
            functions: BTreeMap::new(),
            burst: (BURST / launchers).max(1.0),
            rate: RATE / launchers,
        }
    }

    /// Takes the room of one call of `function`, or says when to ask again.
    ///
    /// # Errors
    /// The time at which there may be room.
    pub fn admit(&mut self, function: &str, now: Instant) -> Result<(), Instant> {
        let rate = self.rate;
        let function = self.function(function, now);
        if let Some(hold) = function.hold.filter(|hold| now < *hold) {
            return Err(hold);
        }
        if function.room < 1.0 {
            let wait = (1.0 - function.room) / rate;
            return Err(now + Duration::from_secs_f64(wait));
        }
        function.room -= 1.0;
        Ok(())
    }

    /// Lambda took a call.
    pub fn accepted(&mut self, function: &str, now: Instant) {
        let function = self.function(function, now);
        if function.hold.is_none_or(|hold| hold <= now) {
            function.pause = PAUSE_MIN;
        }
    }

    /// Lambda refused a call since there are too many, and wants to be left alone for a time if it says so. Nothing was started.
    pub fn throttled(
        &mut self,
        function: &str,
        what: Throttle,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        let burst = self.burst;
        let function = self.function(function, now);
        function.room = match what {
            Throttle::Calls => (function.room + 1.0).min(burst),
            // Others use it too, or have just used it.
            Throttle::Environments => 0.0,
        };
        let held = function.hold.is_some_and(|hold| now < hold);
        if held && retry_after.is_none() {
            // Of calls that were made together, one is enough to know.
            return;
        }
        let pause = retry_after.unwrap_or(function.pause).min(PAUSE_MAX);
        function.hold = function.hold.max(Some(now + pause));
        function.pause = (function.pause * 2).min(PAUSE_MAX);
    }

    fn function(&mut self, name: &str, now: Instant) -> &mut Function {
        if !self.functions.contains_key(name) {
            let full = Function {
                room: self.burst,
                at: now,
                hold: None,
                pause: PAUSE_MIN,
            };
            self.functions.insert(name.into(), full);
        }
        let function = self.functions.get_mut(name).expect("it is there by now");
        let elapsed = now.saturating_duration_since(function.at).as_secs_f64();
        function.room = (function.room + elapsed * self.rate).min(self.burst);
        function.at = function.at.max(now);
        function
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Lambda by its published rule: so many environments at once, and so many more each second.
    struct Rule {
        room: f64,
        rate: f64,
        at: f64,
    }

    impl Rule {
        fn takes(&mut self, at: f64) -> bool {
            self.room = (self.room + (at - self.at) * self.rate).min(BURST);
            self.at = at;
            let takes = self.room >= 1.0;
            self.room -= f64::from(u8::from(takes));
            takes
        }
    }

    /// What starting `packs` takes when each call takes 30 ms and 200 are under way: seconds until the last is started, and calls.
    fn launch(functions: &[&str], packs: u32, rule: impl Fn() -> Rule) -> (f64, u32) {
        let begun = Instant::now();
        let seconds = |at: Instant| (at - begun).as_secs_f64();
        let mut rules: Vec<Rule> = functions.iter().map(|_| rule()).collect();
        let mut pace = Pace::default();
        let share = packs as usize / functions.len();
        // When something happens: a call ends, or may be made.
        let mut events: BinaryHeap<Reverse<(Instant, usize, bool)>> = BinaryHeap::new();
        let mut waiting: Vec<usize> = functions.iter().map(|_| share).collect();
        let mut asking: Vec<Option<Instant>> = functions.iter().map(|_| None).collect();
        for function in 0..functions.len() {
            events.push(Reverse((begun, function, false)));
        }
        let (mut under_way, mut started, mut calls, mut last) = (0, 0, 0, begun);
        while let Some(Reverse((now, function, ended))) = events.pop() {
            if !ended {
                asking[function] = None;
            } else {
                under_way -= 1;
                if rules[function].takes(seconds(now)) {
                    pace.accepted(functions[function], now);
                    started += 1;
                    last = now;
                } else {
                    pace.throttled(functions[function], Throttle::Environments, None, now);
                    waiting[function] += 1;
                }
            }
            for function in 0..functions.len() {
                while waiting[function] > 0 && under_way < 200 {
                    match pace.admit(functions[function], now) {
                        Ok(()) => {
                            waiting[function] -= 1;
                            under_way += 1;
                            calls += 1;
                            let end = now + Duration::from_millis(30);
                            events.push(Reverse((end, function, true)));
                        }
                        Err(again) => {
                            if asking[function].is_none_or(|at| again < at) {
                                asking[function] = Some(again);
                                events.push(Reverse((again, function, false)));
                            }
                            break;
                        }
                    }
                }
            }
        }
        assert_eq!(started as usize, share * functions.len());
        (seconds(last), calls)
    }

    fn full() -> Rule {
        Rule {
            room: BURST,
            rate: RATE,
            at: 0.0,
        }
    }

    #[test]
    fn the_last_start_is_within_a_tenth_of_the_best_that_the_rule_allows() {
        for packs in [3_000, 10_000] {
            let (took, calls) = launch(&["a"], packs, full);
            let best = (f64::from(packs) - BURST) / RATE;
            assert!(
                took < best * 1.1,
                "{packs} packs: {took} s, at best {best} s"
            );
            assert!(calls < packs * 11 / 10, "{packs} packs: {calls} calls");
        }
        // A thousand is a matter of calls under way.
        let (took, _) = launch(&["a"], 1_000, full);
        assert!(took < 0.2, "{took} s");
    }

    #[test]
    fn several_functions_multiply_the_rate() {
        let (took, _) = launch(&["a", "b", "c"], 6_000, full);
        let best = (2_000.0 - BURST) / RATE;
        assert!(took < best * 1.1, "{took} s, at best {best} s");
    }

    #[test]
    fn where_others_have_used_the_rate_nothing_is_wasted_on_waiting() {
        let used = || Rule {
            room: 100.0,
            ..full()
        };
        let (took, calls) = launch(&["a"], 3_000, used);
        let best = (3_000.0 - 100.0) / RATE;
        assert!(took < best * 1.1, "{took} s, at best {best} s");
        assert!(calls < 3_600, "{calls} calls");
        // Half the rate is left.
        let shared = || Rule {
            rate: RATE / 2.0,
            ..full()
        };
        let (took, calls) = launch(&["a"], 3_000, shared);
        let best = 2.0 * (3_000.0 - BURST) / RATE;
        assert!(took < best * 1.1, "{took} s, at best {best} s");
        assert!(calls < 8_000, "{calls} calls");
    }

    #[test]
    fn many_that_launch_at_once_have_the_rate_together() {
        let begun = Instant::now();
        let takes = |pace: &mut Pace, until: Duration| {
            let mut now = begun;
            let mut taken = 0;
            loop {
                match pace.admit("a", now) {
                    Ok(()) => taken += 1,
                    Err(again) if again > begun + until => return taken,
                    Err(again) => now = again,
                }
            }
        };
        let mut paces: Vec<Pace> = (0..40).map(|_| Pace::among(40)).collect();
        let within = Duration::from_secs(20);
        let all: u32 = paces.iter_mut().map(|pace| takes(pace, within)).sum();
        assert!((2_900..=3_000).contains(&all), "{all}");
        assert_eq!(time_to_start(3_000), within);
        assert_eq!(time_to_start(10), Duration::ZERO);
    }

    #[test]
    fn refused_calls_pause_longer_and_longer_until_one_is_taken() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pace.admit("a", now).expect("the pause is over");
            // Others that were made together change nothing.
            for _ in 0..3 {
                pace.throttled("a", Throttle::Calls, None, now);
            }
            let again = pace.admit("a", now).expect_err("there is a pause");
            pauses.push((again - now).as_millis());
            now = again;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000]);
        pace.admit("b", now)
            .expect("another function has a pace of its own");
        pace.admit("a", now).expect("the pause is over");
        pace.accepted("a", now);
        pace.throttled("a", Throttle::Calls, None, now);
        assert_eq!(pace.admit("a", now), Err(now + PAUSE_MIN));
        // Lambda's own wish is heard.
        let wish = Some(Duration::from_millis(700));
        pace.throttled("a", Throttle::Calls, wish, now);
        assert_eq!(pace.admit("a", now), Err(now + Duration::from_millis(700)));
    }
}
