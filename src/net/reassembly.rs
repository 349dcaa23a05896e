//! Chunks to messages: what a receiver does with data frames. Pure.
//!
//! Checks what the protocol promises: each message's number follows the last one from the same source, its chunks add
//! up to the length it named, and its checksum holds. Memory grows with the bytes that arrived, never with the length
//! that a first chunk names.

use crate::net::frame::{FLAG_FIRST, FLAG_LAST, FirstChunk, Frame, FrameError, MESSAGE_MAX};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use thiserror::Error;

/// A whole message, as a rank or the driver receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The rank that sent it, or the driver's address.
    pub source: u32,
    /// The program's own mark.
    pub tag: u32,
    /// The bytes.
    pub payload: Bytes,
}

/// A stream of chunks that breaks the protocol or was damaged on the way.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReassemblyError {
    /// A first chunk that is no first chunk.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message was lost, doubled or reordered.
    #[error(
        "message {found} from rank {from} to rank {to} arrived where number {expected} was due"
    )]
    Sequence {
        /// Source rank.
        from: u32,
        /// Destination rank.
        to: u32,
        /// The number that was due.
        expected: u64,
        /// The number that arrived.
        found: u64,
    },
    /// The chunks are not those of one message.
    #[error("message {sequence} from rank {from} to rank {to} is broken: {what}")]
    Broken {
        /// Source rank.
        from: u32,
        /// Destination rank.
        to: u32,
        /// The message's number.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
}

struct Partial {
    tag: u32,
    first: FirstChunk,
    payload: BytesMut,
}

#[derive(Default)]
struct Stream {
    next: u64,
    partial: Option<Partial>,
}

/// The messages that are under way to this process.
#[derive(Default)]
pub struct Reassembly {
    streams: HashMap<(u32, u32), Stream>,
    pending_bytes: usize,
}

impl Reassembly {
    /// Takes one data frame and gives the message that it completes, if it does, with its destination.
    ///
    /// # Errors
    /// When the frame breaks the protocol or the message's checksum does not hold; the stream cannot go on.
    pub fn accept(&mut self, frame: Frame) -> Result<Option<(u32, Message)>, ReassemblyError> {
        let Frame { header, mut body } = frame;
        let (from, to, sequence) = (header.source, header.destination, header.sequence);
        let stream = self.streams.entry((from, to)).or_default();
        let broken = |what: String| ReassemblyError::Broken {
            from,
            to,
            sequence,
            what,
        };
        if sequence != stream.next {
            return Err(ReassemblyError::Sequence {
                from,
                to,
                expected: stream.next,
                found: sequence,
            });
        }
        let last = header.flags & FLAG_LAST != 0;
        if header.flags & FLAG_FIRST != 0 {
            if stream.partial.is_some() {
                return Err(broken("it begins twice".into()));
            }
            let first = FirstChunk::take(&mut body)?;
            if first.total > MESSAGE_MAX {
                return Err(broken(format!(
                    "it names {} bytes, over the limit of {MESSAGE_MAX}",
                    first.total
                )));
            }
            if last {
                stream.next += 1;
                return check(first, body).map_err(broken).map(|payload| {
                    Some((
                        to,
                        Message {
                            source: from,
                            tag: header.tag,
                            payload,
                        },
                    ))
                });
            }
            self.pending_bytes += body.len();
            stream.partial = Some(Partial {
                tag: header.tag,
                first,
                payload: BytesMut::from(&body[..]),
            });
            return Ok(None);
        }
        let Some(partial) = stream.partial.as_mut() else {
            return Err(broken("its first chunk is missing".into()));
        };
        if (partial.payload.len() + body.len()) as u64 > partial.first.total {
            return Err(broken(format!(
                "it is longer than the {} bytes it named",
                partial.first.total
            )));
        }
        partial.payload.extend_from_slice(&body);
        self.pending_bytes += body.len();
        if !last {
            return Ok(None);
        }
        stream.next += 1;
        let Partial {
            tag,
            first,
            payload,
        } = stream
            .partial
            .take()
            .expect("the message was under way a line above");
        self.pending_bytes -= payload.len();
        check(first, payload.freeze())
            .map_err(broken)
            .map(|payload| {
                Some((
                    to,
                    Message {
                        source: from,
                        tag,
                        payload,
                    },
                ))
            })
    }

    /// Bytes of messages that are not complete yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }
}

fn check(first: FirstChunk, payload: Bytes) -> Result<Bytes, String> {
    if payload.len() as u64 != first.total {
        return Err(format!(
            "it has {} bytes where it named {}",
            payload.len(),
            first.total
        ));
    }
    let found = crc32c::crc32c(&payload);
    if found != first.crc32c {
        return Err(format!(
            "its checksum is {found:#010x} where the sender made {:#010x}",
            first.crc32c
        ));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::frame::{CHUNK_MAX, Header, chunks};

    fn route(sequence: u64) -> Header {
        Header {
            source: 3,
            destination: 5,
            tag: 9,
            sequence,
            ..Header::default()
        }
    }

    #[test]
    fn chunks_become_the_message_they_were_cut_from() {
        let mut reassembly = Reassembly::default();
        for (sequence, length) in [0, 1, CHUNK_MAX, CHUNK_MAX + 1, 3 * CHUNK_MAX + 17]
            .into_iter()
            .enumerate()
        {
            let payload: Bytes = (0..length)
                .map(|i| (i * 31) as u8)
                .collect::<Vec<u8>>()
                .into();
            let mut whole = None;
            for frame in chunks(route(sequence as u64), &payload) {
                assert!(whole.is_none(), "complete before its last chunk");
                whole = reassembly.accept(frame).expect("valid chunks");
            }
            assert_eq!(
                whole,
                Some((
                    5,
                    Message {
                        source: 3,
                        tag: 9,
                        payload
                    }
                ))
            );
        }
        assert_eq!(reassembly.pending_bytes(), 0);
    }

    #[test]
    fn a_flipped_bit_a_gap_and_a_repeat_are_noticed() {
        let payload = Bytes::from_static(b"some bytes");
        let frame = chunks(route(0), &payload).next().expect("one chunk");
        let mut damaged = frame.clone();
        let mut body = damaged.body.to_vec();
        *body.last_mut().expect("not empty") ^= 1;
        damaged.body = body.into();
        let error = Reassembly::default()
            .accept(damaged)
            .expect_err("the checksum is wrong");
        assert!(
            error
                .to_string()
                .contains("message 0 from rank 3 to rank 5 is broken: its checksum"),
            "{error}"
        );

        let mut reassembly = Reassembly::default();
        reassembly.accept(frame.clone()).expect("the first is fine");
        assert!(matches!(
            reassembly.accept(frame),
            Err(ReassemblyError::Sequence {
                expected: 1,
                found: 0,
                ..
            })
        ));
        let later = chunks(route(2), &payload).next().expect("one chunk");
        assert!(matches!(
            reassembly.accept(later),
            Err(ReassemblyError::Sequence {
                expected: 1,
                found: 2,
                ..
            })
        ));
    }
}
