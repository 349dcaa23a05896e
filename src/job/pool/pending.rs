//! A call that was given to a pool, and why one has no result.

use super::Inner;
use super::board::Answered;
use crate::job::farm::message::PAYLOAD_MAX;
use crate::job::function::{self, Verdict};
use crate::net::codec;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The function returned an error; its words.
    #[error("{0}")]
    Failed(String),
    /// The function panicked; its words. The worker goes on.
    #[error("the function panicked: {0}")]
    Panicked(String),
    /// Its worker was lost while it was at this call alone, as often as the pool tries.
    #[error("its worker was lost, {tries} times: {reason}")]
    Lost {
        /// How often.
        tries: u32,
        /// Why the last time.
        reason: String,
    },
    /// The arguments are too long for a message.
    #[error(
        "the arguments of {function} have {bytes} bytes, over the limit of {most}; put long inputs into the store"
    )]
    TooLong {
        /// Whose.
        function: &'static str,
        /// How long they are, encoded.
        bytes: usize,
        /// How long they may be.
        most: usize,
    },
    /// It cannot be called so: there is no such function, or values do not encode or decode.
    #[error("{0}")]
    Refused(String),
    /// The pool was closed before.
    #[error("the pool was closed and takes no more calls")]
    Closed,
    /// The pool has ended.
    #[error("the pool has ended: {0}")]
    Ended(String),
}

/// A call that was given; dropped, its result is not wanted any more. It is a future too, for programs that have a runtime.
#[must_use = "what is not waited for may not be done when the pool is dropped"]
pub struct Pending<Output> {
    inner: Arc<Inner>,
    number: u64,
    output: PhantomData<fn() -> Output>,
}

impl<Output: DeserializeOwned> Pending<Output> {
    pub(super) fn new(inner: Arc<Inner>, number: u64) -> Pending<Output> {
        Pending {
            inner,
            number,
            output: PhantomData,
        }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// As the call failed.
    pub fn wait(self) -> Result<Output, CallError> {
        let (board, number) = (&self.inner.board, self.number);
        let answered = match board.is_answered(number) {
            true => board.poll_answer(&mut Context::from_waker(std::task::Waker::noop()), number),
            false => Poll::Pending,
        };
        match answered {
            Poll::Ready(answered) => output_of(answered),
            Poll::Pending => {
                let answer = poll_fn(|context| board.poll_answer(context, number));
                output_of(self.inner.drive.wait(answer))
            }
        }
    }

    /// Waits for the result so long at most; true if it is there.
    pub fn wait_timeout(&self, most: Duration) -> bool {
        let (board, number) = (&self.inner.board, self.number);
        let answered = poll_fn(|context| board.poll_answered(context, number));
        board.is_answered(number) || self.inner.drive.wait_for(answered, most).is_some()
    }

    /// True if the result is there; does not wait.
    pub fn is_done(&self) -> bool {
        let is_done = self.inner.board.is_answered(self.number);
        if !is_done {
            self.inner.drive.want();
        }
        is_done
    }
}

impl<Output: DeserializeOwned> Future for Pending<Output> {
    type Output = Result<Output, CallError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = self.inner.board.poll_answer(context, self.number);
        if answered.is_pending() {
            self.inner.drive.want();
        }
        answered.map(output_of)
    }
}

impl<Output> Drop for Pending<Output> {
    fn drop(&mut self) {
        self.inner.board.forget(self.number);
    }
}

impl<Output> fmt::Debug for Pending<Output> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pending({})", self.number)
    }
}

/// The result of a call of one item.
pub(super) fn output_of<Output: DeserializeOwned>(answered: Answered) -> Result<Output, CallError> {
    let (mut answer, _) = answered?;
    match function::next_result(&mut answer) {
        Some((verdict, bytes)) if answer.is_empty() => read(verdict, &bytes),
        _ => Err(misread("is none")),
    }
}

/// What a verdict and its bytes mean.
pub(super) fn read<Output: DeserializeOwned>(
    verdict: Verdict,
    bytes: &Bytes,
) -> Result<Output, CallError> {
    let words = || String::from_utf8_lossy(bytes).into_owned();
    match verdict {
        Verdict::Done => codec::decode::<Output, PAYLOAD_MAX>(bytes)
            .map_err(|error| misread(&format!("does not decode: {error}"))),
        Verdict::Failed => Err(CallError::Failed(words())),
        Verdict::Panicked => Err(CallError::Panicked(words())),
        Verdict::Refused => Err(CallError::Refused(words())),
        Verdict::Later => Err(misread("puts off what was asked for alone")),
    }
}

pub(super) fn misread(how: &str) -> CallError {
    CallError::Refused(format!(
        "the worker's answer {how}; is it of the same build?"
    ))
}
