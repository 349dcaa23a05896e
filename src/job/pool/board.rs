//! The calls of a pool: what was given to the driver, and what became of it. Callers and the driver meet here.

use super::pending::CallError;
use crate::job::farm::driver::{Outcome, Task};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::mpsc;

/// Calls that are not done above which callers wait before they give another one.
pub(super) const UNDONE_MAX: usize = 65_536;

/// Bytes of what those are given, likewise; one call is always taken.
const UNDONE_BYTES_MAX: usize = 64 << 20;

/// What a call's worker said, and how long it was at it.
pub(super) type Answered = Result<(Bytes, Duration), CallError>;

/// See the module.
pub(super) struct Board {
    state: Mutex<State>,
}

struct State {
    next: u64,
    /// Those that somebody waits for; of one whose handle was dropped the driver alone knows.
    calls: FxHashMap<u64, Call>,
    undone: usize,
    undone_bytes: usize,
    /// Of answers that nobody has taken yet.
    answered_bytes: usize,
    /// The way to the driver, until the pool is closed.
    tasks: Option<mpsc::Sender<Task>>,
    /// Why there is no driver any more.
    over: Option<String>,
    /// Who waits until there is room for another call.
    roomless: Vec<Waker>,
}

enum Call {
    Undone(Option<Waker>),
    Answered(Answered),
}

impl Board {
    /// No calls yet; the driver takes them from `tasks`, which has [`UNDONE_MAX`] places.
    pub(super) fn new(tasks: mpsc::Sender<Task>) -> Board {
        let state = State {
            next: 0,
            calls: FxHashMap::default(),
            undone: 0,
            undone_bytes: 0,
            answered_bytes: 0,
            tasks: Some(tasks),
            over: None,
            roomless: Vec::new(),
        };
        Board {
            state: Mutex::new(state),
        }
    }

    /// Gives a call to the driver, when there is room; gives its number.
    pub(super) fn poll_give(
        &self,
        context: &mut Context<'_>,
        payload: &Bytes,
    ) -> Poll<Result<u64, CallError>> {
        let state = &mut *self.state();
        if let Some(why) = &state.over {
            return Poll::Ready(Err(CallError::Ended(why.clone())));
        }
        let Some(tasks) = &state.tasks else {
            return Poll::Ready(Err(CallError::Closed));
        };
        let is_full = state.undone >= UNDONE_MAX
            || state.undone > 0 && state.undone_bytes + payload.len() > UNDONE_BYTES_MAX;
        if is_full {
            if !state.roomless.iter().any(|w| w.will_wake(context.waker())) {
                state.roomless.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        let number = state.next;
        let task = Task {
            number,
            payload: payload.clone(),
        };
        if tasks.try_send(task).is_err() {
            // There is a place for each undone call, so the driver is about to end, and to say why.
            let why = "its driver takes no more calls".into();
            return Poll::Ready(Err(CallError::Ended(why)));
        }
        state.next += 1;
        state.undone += 1;
        state.undone_bytes += payload.len();
        state.calls.insert(number, Call::Undone(None));
        Poll::Ready(Ok(number))
    }

    /// Takes the answer to a call, once.
    pub(super) fn poll_answer(&self, context: &mut Context<'_>, number: u64) -> Poll<Answered> {
        let state = &mut *self.state();
        match state.calls.get_mut(&number) {
            Some(Call::Undone(waker)) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            _ => Poll::Ready(state.take(number)),
        }
    }

    /// True if there is an answer to a call.
    pub(super) fn is_answered(&self, number: u64) -> bool {
        matches!(self.state().calls.get(&number), Some(Call::Answered(_)))
    }

    /// Waits until there is.
    pub(super) fn poll_answered(&self, context: &mut Context<'_>, number: u64) -> Poll<()> {
        match self.state().calls.get_mut(&number) {
            Some(Call::Undone(waker)) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Nobody wants to know any more what becomes of a call.
    pub(super) fn forget(&self, number: u64) {
        let state = &mut *self.state();
        match state.calls.get(&number) {
            None => {}
            Some(Call::Undone(_)) => drop(state.calls.remove(&number)),
            Some(Call::Answered(_)) => drop(state.take(number)),
        }
    }

    /// Bytes of answers that nobody has taken yet.
    pub(super) fn answered_bytes(&self) -> usize {
        self.state().answered_bytes
    }

    /// The driver says what became of a call.
    pub(super) fn settled(&self, outcome: Outcome) {
        let mut state = self.state();
        state.undone -= 1;
        state.undone_bytes -= outcome.given.len();
        let answered = match (outcome.done, outcome.fatal) {
            (true, _) => Ok((outcome.payload, outcome.took)),
            (false, true) => Err(CallError::Lost {
                tries: outcome.failures,
                reason: String::from_utf8_lossy(&outcome.payload).into_owned(),
            }),
            (false, false) => {
                let words = String::from_utf8_lossy(&outcome.payload).into_owned();
                Err(CallError::Refused(words))
            }
        };
        let waker = state.answer(outcome.task, answered);
        let roomless = std::mem::take(&mut state.roomless);
        drop(state);
        waker.into_iter().chain(roomless).for_each(Waker::wake);
    }

    /// No more calls are taken.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.tasks = None;
        let roomless = std::mem::take(&mut state.roomless);
        drop(state);
        roomless.into_iter().for_each(Waker::wake);
    }

    /// There is no driver any more: what is not done never will be.
    pub(super) fn end(&self, why: &str) {
        let mut state = self.state();
        state.tasks = None;
        state.over.get_or_insert_with(|| why.to_string());
        let mut wakers = std::mem::take(&mut state.roomless);
        for call in state.calls.values_mut() {
            if let Call::Undone(waker) = call {
                wakers.extend(waker.take());
                *call = Call::Answered(Err(CallError::Ended(why.to_string())));
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// Notes an answer; gives whom to wake.
    fn answer(&mut self, number: u64, answered: Answered) -> Option<Waker> {
        let call = self.calls.get_mut(&number)?;
        if let Ok((bytes, _)) = &answered {
            self.answered_bytes += bytes.len();
        }
        match std::mem::replace(call, Call::Answered(answered)) {
            Call::Undone(waker) => waker,
            Call::Answered(_) => None,
        }
    }

    fn take(&mut self, number: u64) -> Answered {
        match self.calls.remove(&number) {
            Some(Call::Answered(answered)) => {
                if let Ok((bytes, _)) = &answered {
                    self.answered_bytes -= bytes.len();
                }
                answered
            }
            // Whoever asks twice.
            _ => Err(CallError::Ended("its answer was taken before".into())),
        }
    }
}
