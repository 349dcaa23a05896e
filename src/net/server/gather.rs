//! How long what waits for many receivers is kept back, so that what several senders give goes to each in one write. Pure.
//!
//! Programs that exchange in rounds send when they have received. So while little waits for each of many, and some of
//! those are due to send again, they are likely to be about to. It is waited for them, for as long as that has paid of
//! late: where nobody answers, the wait falls to next to nothing.

use std::time::{Duration, Instant};

/// The longest wait for the next that sends.
const PATIENCE: Duration = Duration::from_micros(80);

/// What is left of it when it has never paid.
const PATIENCE_MIN: Duration = Duration::from_micros(2);

/// The longest wait altogether.
const WINDOW: Duration = Duration::from_micros(400);

/// See the module.
pub struct Gather {
    /// When it began to wait.
    since: Option<Instant>,
    /// When somebody sent last who was waited for, or it began.
    news: Instant,
    /// Somebody has since it began.
    pays: bool,
    patience: Duration,
}

impl Gather {
    /// Does not wait.
    pub fn new(now: Instant) -> Gather {
        Gather {
            since: None,
            news: now,
            pays: false,
            patience: PATIENCE,
        }
    }

    /// True while it waits.
    pub fn waits(&self) -> bool {
        self.since.is_some()
    }

    /// True if it is better to look for more than to write: somebody is still `wanted` to send, and `came` says that one of
    /// those has since the last call.
    pub fn goes_on(&mut self, wanted: bool, came: bool, now: Instant) -> bool {
        let Some(since) = self.since else {
            if wanted {
                (self.since, self.news, self.pays) = (Some(now), now, false);
            }
            return wanted;
        };
        if came {
            self.news = now;
            self.pays = true;
            self.patience = PATIENCE;
        }
        let idle = now.duration_since(self.news) >= self.patience;
        if wanted && !idle && now.duration_since(since) < WINDOW {
            return true;
        }
        if wanted && idle && !self.pays {
            self.patience = (self.patience / 2).max(PATIENCE_MIN);
        }
        self.since = None;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many microseconds it waits when somebody sends at these times, and all have sent at the last of them.
    fn waited(gather: &mut Gather, start: Instant, times: &[u64], all: bool) -> u64 {
        for micros in 0..10_000 {
            let wanted = !all || times.last().is_none_or(|last| micros < *last);
            let now = start + Duration::from_micros(micros);
            if !gather.goes_on(wanted, times.contains(&micros), now) {
                return micros;
            }
        }
        panic!("it waits for ever");
    }

    #[test]
    fn it_waits_until_all_have_sent_and_no_longer() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        assert_eq!(waited(&mut gather, start, &[30, 90, 150], true), 150);
        assert!(!gather.waits());
        assert!(!gather.goes_on(false, true, start), "nobody is wanted");
    }

    #[test]
    fn it_has_an_end_whoever_goes_on_sending() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        let always: Vec<u64> = (1..5_000).collect();
        assert_eq!(waited(&mut gather, start, &always, false), 400);
    }

    #[test]
    fn it_learns_that_nobody_answers_and_that_they_do_again() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        let waits: Vec<u64> = (0..8)
            .map(|_| waited(&mut gather, start, &[], false))
            .collect();
        assert_eq!(waits, [80, 40, 20, 10, 5, 3, 2, 2]);
        assert_eq!(waited(&mut gather, start, &[1], false), 81);
        assert_eq!(waited(&mut gather, start, &[70], false), 150);
    }
}
