//! What driver and workers of a farm say to each other: fixed layouts, little-endian, so that a worker in any language can.
//! `docs/FARM.md` specifies them.

use super::schedule::{Ending, Micros};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::ops::Range;

/// The tag of messages of a farm, both ways.
pub const TAG: u32 = 1;

/// Bytes ahead of a task's payload: what is asked for, its number, how often it has failed.
pub const ORDER_LEN: usize = 16;

/// Bytes ahead of an answer's payload: how it ended, the task's number, and the time that it took.
const ANSWER_LEN: usize = 24;

/// The longest payload of one message, in bytes: a worker's mailbox has room for it. What is longer travels in pieces.
pub const PIECE_MAX: usize = 8 << 20;

/// The longest payload of a task or an answer, in bytes; what is longer goes through the store.
pub const PAYLOAD_MAX: usize = 256 << 20;

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
    /// The next piece of what a task is given that will be run.
    Piece {
        /// Its number.
        task: u64,
        /// The piece.
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
pub enum Said {
    /// The next piece of its answer.
    Piece {
        /// The task's number.
        task: u64,
        /// The piece.
        payload: Bytes,
    },
    /// The answer, or the last piece of it.
    Answer(Answer),
}

/// How a task ended.
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
            Order::Piece { task, payload } => (3, 0, *task, &payload[..]),
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
            (3, _) => Some(Order::Piece { task, payload }),
            _ => None,
        }
    }
}

impl Answer {
    /// The messages of an answer: one, or several if the payload is long.
    pub fn to_messages(&self) -> impl Iterator<Item = Bytes> {
        let mut pieces = pieces(self.payload.len());
        let last = pieces.next_back().expect("there is one at least");
        let ending = match self.ending {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::FailedForGood => 2,
        };
        pieces
            .map(|piece| (3, 0, piece))
            .chain([(ending, self.took, last)])
            .map(|(kind, took, piece)| {
                let mut bytes = BytesMut::with_capacity(ANSWER_LEN + piece.len());
                bytes.put_u32_le(kind);
                bytes.put_u32_le(0);
                bytes.put_u64_le(self.task);
                bytes.put_u64_le(took);
                bytes.put_slice(&self.payload[piece]);
                bytes.freeze()
            })
    }
}

impl Said {
    /// Reads a message: u32 how it ended, or that there is more; u32 of 0, u64 task, u64 microseconds, payload. `None` if it is none.
    pub fn from_bytes(bytes: &Bytes) -> Option<Said> {
        let kind = u32::from_le_bytes(*bytes.first_chunk()?);
        let task = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        let took = u64::from_le_bytes(*bytes.get(16..)?.first_chunk()?);
        let payload = bytes.slice(ANSWER_LEN..);
        let ending = match kind {
            0 => Ending::Done,
            1 => Ending::Failed,
            2 => Ending::FailedForGood,
            3 => return Some(Said::Piece { task, payload }),
            _ => return None,
        };
        Some(Said::Answer(Answer {
            ending,
            task,
            took,
            payload,
        }))
    }
}

/// Where the pieces of a payload of so many bytes are, in order; of an empty one, the only one.
pub fn pieces(length: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    let count = length.div_ceil(PIECE_MAX).max(1);
    (0..count).map(move |piece| piece * PIECE_MAX..((piece + 1) * PIECE_MAX).min(length))
}

/// Pieces of payloads that have come, by whose they are.
#[derive(Debug)]
pub struct Pieces<K> {
    held: BTreeMap<K, Vec<Bytes>>,
}

impl<K> Default for Pieces<K> {
    fn default() -> Pieces<K> {
        Pieces {
            held: BTreeMap::new(),
        }
    }
}

impl<K: Ord> Pieces<K> {
    /// One more. False if it is more than a payload can have.
    pub fn add(&mut self, whose: K, piece: Bytes) -> bool {
        let held = self.held.entry(whose).or_default();
        held.push(piece);
        held.iter().map(Bytes::len).sum::<usize>() <= PAYLOAD_MAX
    }

    /// The whole payload, of which this is the last piece.
    pub fn whole(&mut self, whose: &K, last: Bytes) -> Bytes {
        match self.held.remove(whose) {
            None => last,
            Some(mut held) => {
                held.push(last);
                held.concat().into()
            }
        }
    }

    /// Forgets those of which this is not true.
    pub fn keep(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.held.retain(|whose, _| is_wanted(whose));
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
            Order::Piece {
                task: 7,
                payload: Bytes::from_static(b"half"),
            },
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
            let messages: Vec<Bytes> = answer.to_messages().collect();
            assert_eq!(Said::from_bytes(&messages[0]), Some(Said::Answer(answer)));
            assert_eq!(messages.len(), 1);
            for length in 0..ANSWER_LEN {
                assert_eq!(Said::from_bytes(&messages[0].slice(..length)), None);
            }
        }
        assert_eq!(Order::from_bytes(&Bytes::from_static(&[4; 16])), None);
        assert_eq!(Said::from_bytes(&Bytes::from_static(&[4; 24])), None);
    }

    #[test]
    fn long_payloads_travel_in_pieces() {
        for (length, count) in [
            (0, 1),
            (PIECE_MAX, 1),
            (PIECE_MAX + 1, 2),
            (2 * PIECE_MAX, 2),
        ] {
            let payload: Bytes = (0..length).map(|place| place as u8).collect();
            let answer = Answer {
                task: 5,
                ending: Ending::Done,
                took: 1,
                payload: payload.clone(),
            };
            let messages: Vec<Bytes> = answer.to_messages().collect();
            assert_eq!(messages.len(), count);
            let mut pieces = Pieces::default();
            for message in &messages[..count - 1] {
                let Some(Said::Piece { task: 5, payload }) = Said::from_bytes(message) else {
                    panic!("{length}");
                };
                assert!(pieces.add(5, payload));
            }
            let Some(Said::Answer(last)) = Said::from_bytes(&messages[count - 1]) else {
                panic!("{length}");
            };
            assert!(pieces.whole(&5, last.payload) == payload);
        }
        let mut pieces = Pieces::default();
        let piece = Bytes::from(vec![0; PIECE_MAX]);
        assert!((0..PAYLOAD_MAX / PIECE_MAX).all(|_| pieces.add((1, 2), piece.clone())));
        assert!(!pieces.add((1, 2), piece.clone()), "that is too much");
        pieces.keep(|(rank, _)| *rank != 1);
        assert!(pieces.whole(&(1, 2), piece.clone()) == piece);
    }
}
