//! Where the ranks of one pack meet for a collective: the last to come acts for all, and each gets its own result.

use crate::net::comm::CommError;
use crate::net::patience::Patience;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// See the module.
pub struct Meeting {
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a rank brings: one piece for most calls, one for each rank of the job to an all-to-all.
pub type Brought = Vec<Bytes>;

/// The results by place, without those that were fetched.
type Fetched = Vec<Option<Brought>>;

#[derive(Default)]
struct State {
    /// The number of the call that ranks are arriving for.
    call: u64,
    /// What is called, in words, as the first rank has it.
    what: String,
    brought: Vec<Option<Brought>>,
    arrived: usize,
    /// Results that some ranks have yet to fetch.
    results: HashMap<u64, (Result<Fetched, CommError>, usize)>,
    closed: bool,
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

impl Meeting {
    /// A meeting place for so many ranks.
    pub fn new(ranks: usize) -> Meeting {
        Meeting {
            ranks,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Brings one rank's part, by its place in the pack, to the call that is `what` in words. The last rank to come calls
    /// `together` with everybody's, in the order of ranks; it gives each one's result. After
    /// [`LONG`](crate::net::patience::LONG) `impatient` is called once.
    ///
    /// # Errors
    /// When there is no result; see [`NoResult`].
    pub fn meet(
        &self,
        place: usize,
        what: String,
        brought: Brought,
        deadline: Instant,
        together: impl FnOnce(Vec<Brought>) -> Result<Vec<Brought>, CommError>,
        impatient: impl FnOnce(),
    ) -> Result<Brought, NoResult> {
        let mut state = self.lock();
        if state.arrived == 0 {
            state.what = what;
            state.brought = vec![None; self.ranks];
        } else if state.what != what {
            return Err(NoResult::Failed(CommError::Usage(format!(
                "a rank made the call {what} where others of its pack made {}; all ranks must make the same calls",
                state.what
            ))));
        }
        state.brought[place] = Some(brought);
        state.arrived += 1;
        let call = state.call;
        if state.arrived == self.ranks {
            state.arrived = 0;
            state.call += 1;
            let all = std::mem::take(&mut state.brought);
            // The lock is not held meanwhile: the others wait for the result only.
            drop(state);
            let all = all
                .into_iter()
                .map(|one| one.expect("all have come"))
                .collect();
            let outcome = together(all).map(|results| results.into_iter().map(Some).collect());
            state = self.lock();
            state.results.insert(call, (outcome, 0));
            self.changed.notify_all();
        }
        let mut patience = Patience::new(deadline, impatient);
        loop {
            if let Some((outcome, fetched)) = state.results.get_mut(&call) {
                let result = match outcome {
                    Ok(results) => Ok(results[place].take().expect("each rank fetches once")),
                    Err(error) => Err(NoResult::Failed(error.clone())),
                };
                *fetched += 1;
                if *fetched == self.ranks {
                    state.results.remove(&call);
                }
                return result;
            }
            if state.closed {
                return Err(NoResult::Closed);
            }
            state = patience
                .wait(&self.changed, state)
                .ok_or(NoResult::Deadline)?;
        }
    }

    /// No result will come any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}
