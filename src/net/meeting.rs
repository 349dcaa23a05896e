//! Where the ranks of one pack meet for a collective: the last to come acts for all, and each gets its own result.

use crate::net::comm::CommError;
use crate::net::patience::Patience;
use bytes::Bytes;
use std::fmt::Display;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// See the module. `C` says what is called: ranks that meet must make the same call.
pub struct Meeting<C> {
    ranks: usize,
    state: Mutex<State<C>>,
    changed: Condvar,
}

/// What a rank brings: one piece for most calls, one for each rank of the job to an all-to-all.
pub type Brought = Vec<Bytes>;

struct State<C> {
    /// How many calls were completed. All ranks have fetched their results of one before the next is complete, since each
    /// must arrive for that first.
    done: u64,
    /// What is called, as the first rank has it.
    what: Option<C>,
    brought: Vec<Brought>,
    arrived: usize,
    /// The results of the last call by place.
    results: Result<Vec<Brought>, CommError>,
    closed: bool,
    /// A rank whose program has ended: no call completes any more.
    left: Option<u32>,
}

/// Why a meeting had no result.
#[derive(Debug, Clone)]
pub enum NoResult {
    /// The connection or the job ended.
    Closed,
    /// The deadline passed.
    Deadline,
    /// It failed for all.
    Failed(CommError),
}

impl<C: Copy + PartialEq + Display> Meeting<C> {
    /// A meeting place for so many ranks.
    pub fn new(ranks: usize) -> Meeting<C> {
        Meeting {
            ranks,
            state: Mutex::new(State {
                done: 0,
                what: None,
                brought: vec![Brought::new(); ranks],
                arrived: 0,
                results: Ok(Vec::new()),
                closed: false,
                left: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Brings one rank's part, by its place in the pack, to the call `what`. The last rank to come calls
    /// `together` with everybody's, in the order of ranks; it gives each one's result. After
    /// [`LONG`](crate::net::patience::LONG) `impatient` is called once.
    ///
    /// # Errors
    /// When there is no result; see [`NoResult`].
    pub fn meet(
        &self,
        place: usize,
        what: C,
        brought: Brought,
        deadline: Instant,
        together: impl FnOnce(Vec<Brought>) -> Result<Vec<Brought>, CommError>,
        impatient: impl FnOnce(),
    ) -> Result<Brought, NoResult> {
        let mut state = self.lock();
        match state.what {
            Some(other) if state.arrived > 0 && other != what => {
                return Err(NoResult::Failed(CommError::Usage(format!(
                    "a rank made the call {what} where others of its pack made {other}; all ranks must make the same calls"
                ))));
            }
            _ => state.what = Some(what),
        }
        state.check_complete(what)?;
        state.brought[place] = brought;
        state.arrived += 1;
        let call = state.done;
        if state.arrived == self.ranks {
            state.arrived = 0;
            let all = std::mem::replace(&mut state.brought, vec![Brought::new(); self.ranks]);
            // The lock is not held meanwhile: the others wait for the result only.
            drop(state);
            let mut results = together(all);
            let own = fetch(&mut results, place);
            state = self.lock();
            state.results = results;
            state.done += 1;
            drop(state);
            // Not with the lock, for which those who are woken would wait again.
            self.changed.notify_all();
            return own;
        }
        let mut patience = Patience::new(deadline, impatient);
        while state.done == call {
            if state.closed {
                return Err(NoResult::Closed);
            }
            state.check_complete(what)?;
            state = patience
                .wait(&self.changed, state)
                .ok_or(NoResult::Deadline)?;
        }
        fetch(&mut state.results, place)
    }

    /// A rank's program has ended: the others must not wait for it.
    pub fn leave(&self, rank: u32) {
        self.lock().left.get_or_insert(rank);
        self.changed.notify_all();
    }

    /// No result will come any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl<C: Display> State<C> {
    /// Fails if a rank that the call `what` needs is gone.
    fn check_complete(&self, what: C) -> Result<(), NoResult> {
        match self.left {
            None => Ok(()),
            Some(rank) => Err(NoResult::Failed(CommError::Usage(format!(
                "rank {rank} ended without the call {what}, which others of its pack make; all ranks must make the same calls"
            )))),
        }
    }
}

/// Takes the result of the rank at a place, once.
fn fetch(results: &mut Result<Vec<Brought>, CommError>, place: usize) -> Result<Brought, NoResult> {
    match results {
        Ok(results) => Ok(std::mem::take(&mut results[place])),
        Err(error) => Err(NoResult::Failed(error.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    fn meet(meeting: &Meeting<&'static str>, place: usize) -> Result<Brought, NoResult> {
        let deadline = Instant::now() + Duration::from_secs(20);
        meeting.meet(place, "barrier", Brought::new(), deadline, Ok, || {})
    }

    #[test]
    fn a_rank_that_ends_without_a_call_fails_those_who_wait_for_it() {
        let meeting = Meeting::new(3);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| meet(&meeting, 0));
            meeting.leave(2);
            let early = waiting.join().expect("no panic");
            for outcome in [early, meet(&meeting, 1)] {
                let Err(NoResult::Failed(error)) = outcome else {
                    panic!("{outcome:?}");
                };
                assert_eq!(
                    error.to_string(),
                    "rank 2 ended without the call barrier, which others of its pack make; all ranks must make the same calls"
                );
            }
        });
    }

    #[test]
    fn a_rank_that_ends_after_its_last_call_costs_nobody_that_call() {
        for _ in 0..100 {
            let meeting = Meeting::new(2);
            thread::scope(|scope| {
                let slower = scope.spawn(|| meet(&meeting, 0));
                assert!(meet(&meeting, 1).is_ok());
                meeting.leave(1);
                assert!(slower.join().expect("no panic").is_ok());
            });
        }
    }
}
