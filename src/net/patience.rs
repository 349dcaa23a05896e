//! One wait of a rank's thread: it ends at a deadline, and says for whom it waits when it takes long.

use std::sync::{Condvar, MutexGuard};
use std::time::{Duration, Instant};

/// A wait of this length is worth a line in the log.
pub const LONG: Duration = Duration::from_secs(5);

/// See the module.
pub struct Patience<F> {
    begun: Instant,
    deadline: Instant,
    say: Option<F>,
}

impl<F: FnOnce()> Patience<F> {
    /// A wait that begins now; `say` is called once if it becomes [`LONG`].
    pub fn new(deadline: Instant, say: F) -> Patience<F> {
        Patience {
            begun: Instant::now(),
            deadline,
            say: Some(say),
        }
    }

    /// True until the deadline; says for whom the wait is when it has become long.
    pub fn is_left(&mut self) -> bool {
        let now = Instant::now();
        if now - self.begun >= LONG
            && let Some(say) = self.say.take()
        {
            say();
        }
        now < self.deadline
    }

    /// Waits until `changed` is notified, or for no reason: the caller looks again. `None` once the deadline has passed.
    pub fn wait<'a, T>(
        &mut self,
        changed: &Condvar,
        guard: MutexGuard<'a, T>,
    ) -> Option<MutexGuard<'a, T>> {
        if !self.is_left() {
            return None;
        }
        let until = match self.say {
            Some(_) => self.deadline.min(self.begun + LONG),
            None => self.deadline,
        };
        let waited = changed.wait_timeout(guard, until.saturating_duration_since(Instant::now()));
        Some(waited.expect("no holder of this lock panics").0)
    }
}
