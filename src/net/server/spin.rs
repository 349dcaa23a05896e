//! Whether the switch looks for more instead of going to sleep. Pure.
//!
//! To be woken costs more than to handle a short message, a hundred microseconds and more on a virtual machine. Where few
//! pass messages to and fro, the next comes about as soon as the last did; so if that was within the time that a wake-up
//! costs, the switch looks for it for as long, and gives its processor to whoever else wants it meanwhile. Many keep the
//! switch busy anyway; a stream that nobody answers, and signs of life, are not waited for.

use std::time::{Duration, Instant};

/// What a wake-up costs at most, and so the longest time to look for more.
const WAKE_UP: Duration = Duration::from_micros(250);

/// More connections than these at once are many.
const FEW: usize = 2;

/// So many messages in a row come soon before more are expected to.
const IN_A_ROW: u32 = 4;

/// See the module.
pub struct Spin {
    last: Instant,
    in_a_row: u32,
}

impl Spin {
    /// Nothing has passed yet.
    pub fn new(now: Instant) -> Spin {
        Spin {
            last: now,
            in_a_row: 0,
        }
    }

    /// Messages of so many connections passed, and some of those who sent them had been written to before.
    pub fn passed(&mut self, connections: usize, answered: bool, now: Instant) {
        let soon = now.duration_since(self.last) <= WAKE_UP;
        self.last = now;
        self.in_a_row = match soon && answered && connections <= FEW {
            true => IN_A_ROW.min(self.in_a_row + 1),
            false => 0,
        };
    }

    /// True if it is better to look again than to sleep.
    pub fn goes_on(&self, now: Instant) -> bool {
        self.in_a_row == IN_A_ROW && now.duration_since(self.last) <= WAKE_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_to_and_fro_is_looked_for_and_nothing_else() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut spin = Spin::new(start);
        for step in 1..=4 {
            assert!(!spin.goes_on(at(step * 100)), "too early");
            spin.passed(1, true, at(step * 100));
        }
        assert!(spin.goes_on(at(400)) && spin.goes_on(at(650)));
        assert!(!spin.goes_on(at(651)), "it has an end");
        spin.passed(1, true, at(700));
        assert!(!spin.goes_on(at(700)), "that came late");
        for step in 8..=11 {
            spin.passed(1, true, at(step * 100));
        }
        assert!(spin.goes_on(at(1_100)));
        spin.passed(3, true, at(1_150));
        assert!(!spin.goes_on(at(1_150)), "many keep it busy");
        for step in 12..20 {
            spin.passed(1, false, at(step * 100));
            assert!(!spin.goes_on(at(step * 100)), "nobody answers");
        }
    }
}
