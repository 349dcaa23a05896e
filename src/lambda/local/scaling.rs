//! How fast Lambda makes environments of a function, and how often it may be called. Pure; times are given.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// Calls a second for each environment that a function may have: Lambda's quota for synchronous calls.
const CALLS_PER_ENVIRONMENT: u32 = 10;
/// New environments a second that are taken for a rate.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1e6;

/// How many new environments a function may have at once, and how many more each second: AWS's rule is `1000,100`.
/// Where it is kept, a function also takes at most ten calls a second for each environment that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    burst: u32,
    period: Duration,
}

impl FromStr for Scaling {
    type Err = String;

    /// Reads `BURST,RATE`. A rate may be a fraction, such as 0.5.
    fn from_str(text: &str) -> Result<Scaling, String> {
        let numbers: Option<(u32, f64)> = text.split_once(',').and_then(|(burst, rate)| {
            Some((burst.trim().parse().ok()?, rate.trim().parse().ok()?))
        });
        match numbers {
            Some((burst @ 1.., rate)) if RATES.contains(&rate) => Ok(Scaling {
                burst,
                period: Duration::from_secs_f64(1.0 / rate),
            }),
            _ => Err(format!(
                "{text:?} is not BURST,RATE: the new environments at once, 1 or more, and those each second, {} to {}",
                RATES.start(),
                RATES.end()
            )),
        }
    }
}

/// What one function may still have of its rates.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) environments: Rate,
    pub(super) calls: Rate,
}

impl Rates {
    /// The whole rates of a function that may have so many environments at once.
    pub(super) fn new(scaling: Scaling, concurrency: usize) -> Rates {
        let calls = u32::try_from(concurrency).unwrap_or(u32::MAX).max(1);
        let calls = calls.saturating_mul(CALLS_PER_ENVIRONMENT);
        Rates {
            environments: Rate::new(scaling.burst, scaling.period),
            calls: Rate::new(calls, Duration::from_secs(1) / calls),
        }
    }
}

/// So many at once, and one more each period. Whole nanoseconds, so that what is promised for a time is there at that time.
#[derive(Debug)]
pub(super) struct Rate {
    period: Duration,
    /// How far ahead of now `full_at` may be for one more to be taken.
    ahead_max: Duration,
    /// When everything that was taken is there again.
    full_at: Option<Instant>,
}

impl Rate {
    fn new(burst: u32, period: Duration) -> Rate {
        Rate {
            period,
            ahead_max: period * (burst - 1),
            full_at: None,
        }
    }

    /// Takes one, or says when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        let ahead = full_at.duration_since(now);
        if ahead > self.ahead_max {
            return Err(now + (ahead - self.ahead_max));
        }
        self.full_at = Some(full_at + self.period);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_its_burst_at_once_and_then_one_each_period() {
        let scaling = "3,2".parse().expect("it is a scaling");
        let mut rate = Rates::new(scaling, 1).environments;
        let now = Instant::now();
        let half = Duration::from_millis(500);
        for _ in 0..3 {
            assert_eq!(rate.take(now), Ok(()));
        }
        assert_eq!(rate.take(now), Err(now + half));
        assert_eq!(rate.take(now + half / 2), Err(now + half));
        assert_eq!(rate.take(now + half), Ok(()));
        assert_eq!(rate.take(now + half), Err(now + 2 * half));
        // After a long time it is full again, and no more than that.
        let later = now + Duration::from_secs(3600);
        for _ in 0..3 {
            assert_eq!(rate.take(later), Ok(()));
        }
        assert_eq!(rate.take(later), Err(later + half));
    }

    #[test]
    fn calls_are_ten_a_second_for_each_environment() {
        let scaling = "1000,100".parse().expect("it is a scaling");
        let mut calls = Rates::new(scaling, 2).calls;
        let now = Instant::now();
        for _ in 0..20 {
            assert_eq!(calls.take(now), Ok(()));
        }
        assert_eq!(calls.take(now), Err(now + Duration::from_millis(50)));
    }

    #[test]
    fn what_is_no_scaling_is_refused_in_words() {
        for text in [
            "", "5", "0,1", "5,0", "5,-1", "5,nan", "5,inf", "x,1", "1,2,3", "1,1e9",
        ] {
            let refusal = text.parse::<Scaling>().expect_err(text);
            assert!(
                refusal.ends_with("1 or more, and those each second, 0.001 to 1000000"),
                "{refusal}"
            );
        }
        assert_eq!(
            "2, 0.5".parse(),
            Ok(Scaling {
                burst: 2,
                period: Duration::from_secs(2)
            })
        );
    }
}
