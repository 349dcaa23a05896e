//! Where the ranks of one pack meet for a collective: their parts are combined here, travel once, and the result is
//! handed to each.

use crate::net::collective::{add, decode};
use crate::net::patience::Patience;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// See the module.
pub struct Meeting {
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the call that ranks are arriving for.
    call: u64,
    arrived: usize,
    sums: Vec<i128>,
    /// Results that some ranks have yet to fetch, and how many did.
    results: HashMap<u64, (Arc<Vec<i128>>, usize)>,
    closed: bool,
}

/// Why a meeting had no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoResult {
    /// The connection or the job ended.
    Closed,
    /// The deadline passed.
    Deadline,
    /// Ranks of this pack gave vectors of different lengths.
    Mismatch {
        /// Elements that the first rank gave.
        expected: usize,
        /// Elements that this one gave.
        found: usize,
    },
    /// The sum is over an i128.
    Overflow,
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

    /// Gives one rank's part and waits for the result. The last rank of the pack to come calls `upload` with the call's
    /// number and the pack's sum. After [`LONG`](crate::net::patience::LONG) `impatient` is called once.
    ///
    /// # Errors
    /// When there is no result; see [`NoResult`].
    pub fn sum(
        &self,
        values: &[i128],
        deadline: Instant,
        upload: impl FnOnce(u64, &[i128]),
        impatient: impl FnOnce(),
    ) -> Result<Arc<Vec<i128>>, NoResult> {
        let mut patience = Patience::new(deadline, impatient);
        let mut state = self.state.lock().expect("no holder of this lock panics");
        if state.arrived == 0 {
            state.sums = vec![0; values.len()];
        } else if state.sums.len() != values.len() {
            return Err(NoResult::Mismatch {
                expected: state.sums.len(),
                found: values.len(),
            });
        }
        add(&mut state.sums, values).ok_or(NoResult::Overflow)?;
        state.arrived += 1;
        let call = state.call;
        if state.arrived == self.ranks {
            state.arrived = 0;
            state.call += 1;
            let sums = std::mem::take(&mut state.sums);
            // The lock is not held while the part is uploaded, which may wait for room.
            drop(state);
            upload(call, &sums);
            state = self.state.lock().expect("no holder of this lock panics");
        }
        loop {
            if let Some((result, fetched)) = state.results.get_mut(&call) {
                let result = result.clone();
                *fetched += 1;
                if *fetched == self.ranks {
                    state.results.remove(&call);
                }
                return Ok(result);
            }
            if state.closed {
                return Err(NoResult::Closed);
            }
            state = patience
                .wait(&self.changed, state)
                .ok_or(NoResult::Deadline)?;
        }
    }

    /// The result of a call arrived. False if the bytes are no vector.
    pub fn complete(&self, call: u64, body: &Bytes) -> bool {
        let Ok(values) = decode(body) else {
            return false;
        };
        self.state
            .lock()
            .expect("no holder of this lock panics")
            .results
            .insert(call, (Arc::new(values), 0));
        self.changed.notify_all();
        true
    }

    /// No result will arrive any more.
    pub fn close(&self) {
        self.state
            .lock()
            .expect("no holder of this lock panics")
            .closed = true;
        self.changed.notify_all();
    }
}
