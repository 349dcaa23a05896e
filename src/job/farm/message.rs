//! What driver and workers of a farm say to each other: fixed layouts, little-endian, so that a worker in any language can.
//! `docs/FARM.md` specifies them.

use super::schedule::{Ending, Micros};
use bytes::{BufMut, Bytes, BytesMut};

/// The tag of messages of a farm, both ways.
pub const TAG: u32 = 1;

/// Bytes ahead of a task's payload: what is asked for, its number, how often it has failed.
pub const ORDER_LEN: usize = 16;

/// Bytes ahead of an answer's payload: how it ended, the task's number, and the time that it took.
const ANSWER_LEN: usize = 24;

/// The longest payload of a task or an answer, in bytes; what is longer goes through the store.
pub const PAYLOAD_MAX: usize = 8 << 20;

/// What the driver wants of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Run a task, after those that came before.
    Run {
        /// Its number.
        task: u64,
        /// How often it has failed.
        failures: u32,
        /// What it is given.
        payload: Bytes,
    },
    /// Do not begin this task, or end it: nobody waits for its answer.
    Cancel {
        /// Its number.
        task: u64,
    },
    /// There is nothing more to do: leave.
    Leave,
}

/// What a worker says of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The task's number.
    pub task: u64,
    /// How it ended.
    pub ending: Ending,
    /// How long it ran.
    pub took: Micros,
    /// Its result, or why it failed; the program's own bytes.
    pub payload: Bytes,
}

impl Order {
    /// The message's bytes: u32 kind, u32 failures, u64 task, payload.
    pub fn to_bytes(&self) -> Bytes {
        let (kind, failures, task, payload) = match self {
            Order::Run {
                task,
                failures,
                payload,
            } => (0, *failures, *task, &payload[..]),
            Order::Cancel { task } => (1, 0, *task, &[][..]),
            Order::Leave => (2, 0, 0, &[][..]),
        };
        let mut bytes = BytesMut::with_capacity(ORDER_LEN + payload.len());
        bytes.put_u32_le(kind);
        bytes.put_u32_le(failures);
        bytes.put_u64_le(task);
        bytes.put_slice(payload);
        bytes.freeze()
    }

    /// Reads a message; `None` if it is none.
    pub fn from_bytes(bytes: &Bytes) -> Option<Order> {
        let kind = u32::from_le_bytes(*bytes.first_chunk()?);
        let failures = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
        let task = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        let payload = bytes.slice(ORDER_LEN..);
        match (kind, payload.is_empty()) {
            (0, _) => Some(Order::Run {
                task,
                failures,
                payload,
            }),
            (1, true) => Some(Order::Cancel { task }),
            (2, true) => Some(Order::Leave),
            _ => None,
        }
    }
}

impl Answer {
    /// The message's bytes: u32 ending, u32 of 0, u64 task, u64 microseconds, payload.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(ANSWER_LEN + self.payload.len());
        bytes.put_u32_le(match self.ending {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::FailedForGood => 2,
        });
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.task);
        bytes.put_u64_le(self.took);
        bytes.put_slice(&self.payload);
        bytes.freeze()
    }

    /// Reads a message; `None` if it is none.
    pub fn from_bytes(bytes: &Bytes) -> Option<Answer> {
        let ending = match u32::from_le_bytes(*bytes.first_chunk()?) {
            0 => Ending::Done,
            1 => Ending::Failed,
            2 => Ending::FailedForGood,
            _ => return None,
        };
        Some(Answer {
            ending,
            task: u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?),
            took: u64::from_le_bytes(*bytes.get(16..)?.first_chunk()?),
            payload: bytes.slice(ANSWER_LEN..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_and_damaged_ones_do_not() {
        let orders = [
            Order::Run {
                task: 1 << 40,
                failures: 3,
                payload: Bytes::from_static(b"what to do"),
            },
            Order::Run {
                task: 0,
                failures: 0,
                payload: Bytes::new(),
            },
            Order::Cancel { task: 7 },
            Order::Leave,
        ];
        for order in orders {
            let bytes = order.to_bytes();
            assert_eq!(Order::from_bytes(&bytes), Some(order));
            for length in 0..ORDER_LEN {
                assert_eq!(Order::from_bytes(&bytes.slice(..length)), None);
            }
        }
        for ending in [Ending::Done, Ending::Failed, Ending::FailedForGood] {
            let answer = Answer {
                task: 9,
                ending,
                took: 12_345,
                payload: Bytes::from_static(b"result"),
            };
            let bytes = answer.to_bytes();
            assert_eq!(Answer::from_bytes(&bytes), Some(answer));
            for length in 0..ANSWER_LEN {
                assert_eq!(Answer::from_bytes(&bytes.slice(..length)), None);
            }
        }
        assert_eq!(Order::from_bytes(&Bytes::from_static(&[3; 16])), None);
        assert_eq!(Answer::from_bytes(&Bytes::from_static(&[3; 24])), None);
    }
}
