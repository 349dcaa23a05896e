//! A worker of a farm: takes orders of the driver, runs tasks one after the other, answers each.

use super::message::{Answer, Order, PAYLOAD_MAX, Pieces, TAG};
use super::schedule::{Ending, Micros};
use crate::job::context::Context;
use crate::job::program::ProgramError;
use crate::net::comm::CommError;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How one run of a task ended, for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// The result, or why it failed.
    pub payload: Bytes,
}

impl Ended {
    /// It gave a result.
    pub fn done(payload: impl Into<Bytes>) -> Ended {
        Ended {
            ending: Ending::Done,
            payload: payload.into(),
        }
    }

    /// It failed, and may not the next time.
    pub fn failed(payload: impl Into<Bytes>) -> Ended {
        Ended {
            ending: Ending::Failed,
            payload: payload.into(),
        }
    }
}

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The task's number.
    pub number: u64,
    /// How often it has failed.
    pub failures: u32,
    /// What the driver gave with it.
    pub payload: Bytes,
}

/// A worker takes no more tasks when less than this is left of its invocation, or of a short one a quarter.
const LEAVE_BEFORE: Duration = Duration::from_secs(10);

/// Serves until the driver says that there is nothing more to do. `run` is called for each task; when it gives nothing, its
/// time is up, and the task is another worker's.
///
/// # Errors
/// When the connection or the job ended, the driver says what this worker does not understand, or `run` cannot go on.
pub fn serve(
    context: &mut Context,
    mut run: impl FnMut(&Context, Given) -> Result<Option<Ended>, ProgramError>,
) -> Result<(), ProgramError> {
    let leave_before = LEAVE_BEFORE.min(context.remaining() / 4);
    let mut pieces = Pieces::default();
    loop {
        let message = match context.comm().receive_from_driver(TAG) {
            Ok(message) => message,
            // The invocation's time is up: another worker goes on.
            Err(CommError::Deadline { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let order = Order::from_bytes(&message.payload).ok_or_else(|| {
            ProgramError::new("the driver gave an order that this worker does not understand")
        })?;
        let given = match order {
            Order::Run {
                task,
                failures,
                payload,
            } => Given {
                number: task,
                failures,
                payload: pieces.whole(&task, payload),
            },
            Order::Piece { task, payload } => {
                if !pieces.add(task, payload) {
                    let what = format!("task {task} has more than {PAYLOAD_MAX} bytes");
                    return Err(ProgramError::new(what));
                }
                continue;
            }
            // Tasks are run as they come: what is cancelled has begun, and its answer is dropped.
            Order::Cancel { .. } => continue,
            Order::Leave => return Ok(()),
        };
        if context.remaining() < leave_before {
            return Ok(());
        }
        let (task, begun) = (given.number, Instant::now());
        let Some(mut ended) = run(context, given)? else {
            return Ok(());
        };
        let length = ended.payload.len();
        if length > PAYLOAD_MAX {
            ended = Ended {
                ending: Ending::FailedForGood,
                payload: format!("the result has {length} bytes, over the limit of {PAYLOAD_MAX}; write long results to the store").into(),
            };
        }
        let answer = Answer {
            task,
            ending: ended.ending,
            took: begun.elapsed().as_micros() as Micros,
            payload: ended.payload,
        };
        for message in answer.to_messages() {
            context.comm().send_to_driver(TAG, message)?;
        }
    }
}
