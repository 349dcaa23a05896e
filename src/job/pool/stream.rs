//! A function over many items: the results in order, a bounded way ahead of who takes them.
//!
//! Items travel several in a call, as many as take about [`CHUNK`] together. A worker that finds them longer gives the rest back, so
//! that a guess that was wrong holds nobody up; a call that is lost with its worker is given again item by item, so that
//! the one that is the cause pays alone.

use super::board::Answered;
use super::pending::{CallError, misread, output_of, read};
use super::{Inner, too_long};
use crate::job::farm::message::PAYLOAD_MAX;
use crate::job::function::{Function, ITEM_LEN, Verdict, begin_call, next_result, put_item};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What the items of one call should take together.
const CHUNK: Duration = Duration::from_millis(2);

/// The most items of one call, and about the most bytes of them.
const CHUNK_MAX: usize = 512;
const CHUNK_BYTES: usize = 64 << 10;

/// Calls ahead of the one whose results are taken.
const AHEAD_MAX: usize = 1024;

/// Bytes of them, and of results that nobody has taken yet, above which none is added.
const AHEAD_BYTES: usize = 32 << 20;

/// The weight of the last call in the mean of what an item takes: one in so many.
const RECENT: f64 = 4.0;

/// See [`crate::Pool::stream`].
pub struct Outputs<'a, Items: Iterator, Output, Error> {
    inner: Arc<Inner>,
    function: &'a Function<Items::Item, Output, Error>,
    items: std::iter::Fuse<Items>,
    /// Calls in the order of their items.
    chunks: VecDeque<Chunk>,
    /// Bytes of them.
    ahead_bytes: usize,
    ready: VecDeque<Result<Output, CallError>>,
    /// Seconds that an item takes, once that is known.
    mean_s: Option<f64>,
}

/// Items that travel together.
struct Chunk {
    /// The whole call, and where in it the items are.
    call: Bytes,
    items: Vec<Range<usize>>,
    state: State,
}

enum State {
    Ungiven,
    Given(u64),
    /// There is no call: the one item cannot be sent.
    Never(CallError),
}

impl<'a, Items, Output, Error> Outputs<'a, Items, Output, Error>
where
    Items: Iterator<Item: Serialize>,
    Output: DeserializeOwned,
{
    pub(super) fn new(
        inner: Arc<Inner>,
        function: &'a Function<Items::Item, Output, Error>,
        items: Items,
    ) -> Outputs<'a, Items, Output, Error> {
        Outputs {
            inner,
            function,
            items: items.fuse(),
            chunks: VecDeque::new(),
            ahead_bytes: 0,
            ready: VecDeque::new(),
            mean_s: None,
        }
    }

    /// Takes items as far ahead as is allowed. The user's iterator runs here, and not where the driver does.
    fn prepare(&mut self) {
        // One for each worker and one to follow, until it is known how long they take.
        let least = 2 * self.inner.workers_max as usize;
        let most = match self.mean_s {
            None => least,
            Some(_) => least.max(AHEAD_MAX),
        };
        let is_room = |stream: &Self| {
            let ahead = stream.chunks.len();
            let untaken = stream.inner.board.answered_bytes();
            ahead < most
                && stream.ahead_bytes < AHEAD_BYTES
                && (ahead < least || untaken < AHEAD_BYTES)
        };
        while self.chunks.is_empty() || is_room(self) {
            let Some(chunk) = self.next_chunk() else {
                return;
            };
            self.ahead_bytes += chunk.call.len();
            self.chunks.push_back(chunk);
        }
    }

    fn next_chunk(&mut self) -> Option<Chunk> {
        let count = match self.mean_s {
            None => 1,
            Some(mean) => {
                (CHUNK.as_secs_f64() / mean.max(1e-9)).clamp(1.0, CHUNK_MAX as f64) as usize
            }
        };
        let name = self.function.name();
        let mut call = begin_call(name);
        let head = call.len();
        let mut items = Vec::with_capacity(count);
        while items.len() < count && call.len() < CHUNK_BYTES {
            let Some(item) = self.items.next() else { break };
            let at = call.len();
            let put = put_item(&mut call, &item);
            let length = call.len() - at;
            let last = match put {
                Err(error) => Chunk::never(CallError::Refused(error)),
                Ok(()) if head + length > PAYLOAD_MAX => {
                    Chunk::never(too_long(name, length - ITEM_LEN))
                }
                // A long one travels alone.
                Ok(()) if at > head && call.len() > CHUNK_BYTES => {
                    let alone = [&call[..head], &call[at..]].concat();
                    let item = head..alone.len();
                    Chunk::new(alone.into(), std::iter::once(item).collect())
                }
                Ok(()) => {
                    items.push(at..call.len());
                    continue;
                }
            };
            call.truncate(at);
            if !items.is_empty() {
                let before = Chunk::new(call.into(), items);
                self.ahead_bytes += before.call.len();
                self.chunks.push_back(before);
            }
            return Some(last);
        }
        (!items.is_empty()).then(|| Chunk::new(call.into(), items))
    }

    /// Gives calls to the driver while it takes them, and looks for the answer of the first.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Answered> {
        for chunk in &mut self.chunks {
            if let State::Ungiven = chunk.state {
                match self.inner.board.poll_give(context, &chunk.call) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(number)) => chunk.state = State::Given(number),
                    Poll::Ready(Err(error)) => chunk.state = State::Never(error),
                }
            }
        }
        match self.chunks.front().map(|chunk| &chunk.state) {
            Some(State::Given(number)) => self.inner.board.poll_answer(context, *number),
            Some(State::Never(error)) => Poll::Ready(Err(error.clone())),
            Some(State::Ungiven) => Poll::Pending,
            None => unreachable!("who looks has seen one"),
        }
    }

    /// The first chunk has an answer.
    fn answered(&mut self, answered: Answered) {
        let chunk = self.chunks.pop_front().expect("it was answered");
        self.ahead_bytes -= chunk.call.len();
        let (mut answer, took) = match answered {
            Ok(answered) => answered,
            Err(CallError::Lost { .. }) if chunk.items.len() > 1 => {
                for item in chunk.items.iter().rev() {
                    self.again(&chunk, std::slice::from_ref(item));
                }
                return;
            }
            Err(error) => {
                let count = chunk.items.len().max(1);
                self.ready.extend((0..count).map(|_| Err(error.clone())));
                return;
            }
        };
        if chunk.items.len() == 1 {
            self.learn(took, 1);
            self.ready.push_back(output_of(Ok((answer, took))));
            return;
        }
        for index in 0..chunk.items.len() {
            match next_result(&mut answer) {
                None => {
                    let rest = index..chunk.items.len();
                    self.ready.extend(rest.map(|_| Err(misread("is none"))));
                    return;
                }
                Some((Verdict::Later, _)) if index > 0 => {
                    self.learn(took, index);
                    self.again(&chunk, &chunk.items[index..]);
                    return;
                }
                Some((verdict, bytes)) => self.ready.push_back(read(verdict, &bytes)),
            }
        }
        self.learn(took, chunk.items.len());
    }

    /// Gives items of a call another one, ahead of all others.
    fn again(&mut self, chunk: &Chunk, items: &[Range<usize>]) {
        let mut call = begin_call(self.function.name());
        let mut ranges = Vec::with_capacity(items.len());
        for item in items {
            let at = call.len();
            call.extend_from_slice(&chunk.call[item.clone()]);
            ranges.push(at..call.len());
        }
        self.ahead_bytes += call.len();
        self.chunks.push_front(Chunk::new(call.into(), ranges));
    }

    fn learn(&mut self, took: Duration, items: usize) {
        let each = took.as_secs_f64() / items as f64;
        self.mean_s = Some(match self.mean_s {
            None => each,
            Some(mean) => mean + (each - mean) / RECENT,
        });
    }
}

impl Chunk {
    fn new(call: Bytes, items: Vec<Range<usize>>) -> Chunk {
        let state = State::Ungiven;
        Chunk { call, items, state }
    }

    /// An item that cannot be sent.
    fn never(error: CallError) -> Chunk {
        Chunk {
            call: Bytes::new(),
            items: Vec::new(),
            state: State::Never(error),
        }
    }
}

impl<Items, Output, Error> Iterator for Outputs<'_, Items, Output, Error>
where
    Items: Iterator<Item: Serialize>,
    Output: DeserializeOwned,
{
    type Item = Result<Output, CallError>;

    fn next(&mut self) -> Option<Result<Output, CallError>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            self.prepare();
            if self.chunks.is_empty() {
                return None;
            }
            let inner = Arc::clone(&self.inner);
            let answered = inner
                .drive
                .wait(poll_fn(|context| self.poll_first(context)));
            self.answered(answered);
        }
    }
}

impl<Items: Iterator, Output, Error> Drop for Outputs<'_, Items, Output, Error> {
    fn drop(&mut self) {
        for chunk in &self.chunks {
            if let State::Given(number) = chunk.state {
                self.inner.board.forget(number);
            }
        }
    }
}
