//! Chunks to messages: what a receiver does with data frames. Pure.
//!
//! Checks what the protocol promises: each message's number follows the last one from the same source, its chunks add
//! up to the length it named, and its checksum holds. Beyond a bound memory grows with the bytes that arrived, not with
//! the length that a first chunk names.

use crate::net::by_rank::ByRank;
use crate::net::checksum::Checksum;
use crate::net::frame::{Chunk, FrameError, Header, MESSAGE_MAX};
use crate::net::planted::{Bug, planted};
use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;
use thiserror::Error;

/// Bytes that are reserved at once for a message that names as many; a longer one grows as it arrives.
const RESERVED_MAX: usize = 16 << 20;

/// Messages of one chunk up to this length share blocks, since to allocate each costs more than to copy it.
const SHORT_MAX: usize = 128;

/// The length of a block. It lives as long as one of its messages does: at worst a message takes about eight times what it costs
/// ([`crate::net::flow::cost`]).
const BLOCK: usize = 512;

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
    group: u16,
    total: u64,
    /// Which it has, and that of what has come.
    kind: Checksum,
    checksum: u32,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Stream {
    next: u64,
    /// Elsewhere, since most messages are one chunk.
    partial: Option<Box<Partial>>,
}

/// The messages that are under way to this process.
#[derive(Default)]
pub struct Reassembly {
    /// By destination, of which a process has few.
    rows: FxHashMap<u32, Row>,
}

/// What is under way to one rank.
#[derive(Default)]
struct Row {
    /// By source.
    streams: ByRank<Stream>,
    /// Where short messages lie behind each other.
    block: BytesMut,
}

impl Reassembly {
    /// Takes one data frame and gives the message that it completes, if it does.
    ///
    /// # Errors
    /// When the frame breaks the protocol or the message's checksum does not hold; the stream cannot go on.
    pub fn accept(
        &mut self,
        header: Header,
        body: &[u8],
    ) -> Result<Option<Message>, ReassemblyError> {
        let (from, to, sequence) = (header.source, header.destination, header.sequence);
        let source = if planted(Bug::SourcesMixed) { to } else { from };
        let row = self.rows.entry(to).or_default();
        let stream = row.streams.of(source);
        let broken = |what: String| ReassemblyError::Broken {
            from,
            to,
            sequence,
            what,
        };
        if sequence != stream.next && !planted(Bug::SequenceUnchecked) {
            return Err(ReassemblyError::Sequence {
                from,
                to,
                expected: stream.next,
                found: sequence,
            });
        }
        let Chunk {
            total,
            payload,
            checksum,
        } = Chunk::split(header.flags, body)?;
        let kind = Checksum::of(header.flags);
        if let Some(total) = total {
            if stream.partial.is_some() {
                return Err(broken("it begins twice".into()));
            }
            if total > MESSAGE_MAX {
                let what = format!("it names {total} bytes, over the limit of {MESSAGE_MAX}");
                return Err(broken(what));
            }
            if let Some(expected) = checksum {
                stream.next += 1;
                let found = kind.append(0, payload);
                check(total, payload.len(), expected, found).map_err(broken)?;
                return Ok(Some(Message {
                    source: from,
                    tag: header.tag,
                    payload: whole(&mut row.block, payload),
                }));
            }
            stream.partial = Some(Box::new(Partial {
                tag: header.tag,
                group: header.group,
                total,
                kind,
                checksum: 0,
                payload: Vec::with_capacity((total as usize).min(RESERVED_MAX)),
            }));
        }
        let Some(partial) = stream.partial.as_mut() else {
            return Err(broken("its first chunk is missing".into()));
        };
        if (partial.tag, partial.group, partial.kind) != (header.tag, header.group, kind) {
            return Err(broken("its chunks differ in group, tag or checksum".into()));
        }
        if (partial.payload.len() + payload.len()) as u64 > partial.total
            && !planted(Bug::TotalUnchecked)
        {
            let what = format!("it is longer than the {} bytes it named", partial.total);
            return Err(broken(what));
        }
        partial.checksum = kind.append(partial.checksum, payload);
        partial.payload.extend_from_slice(payload);
        let Some(expected) = checksum else {
            return Ok(None);
        };
        stream.next += 1;
        let partial = stream
            .partial
            .take()
            .expect("the message was under way above");
        check(
            partial.total,
            partial.payload.len(),
            expected,
            partial.checksum,
        )
        .map_err(broken)?;
        Ok(Some(Message {
            source: from,
            tag: partial.tag,
            payload: partial.payload.into(),
        }))
    }
}

/// A message of one chunk.
fn whole(block: &mut BytesMut, payload: &[u8]) -> Bytes {
    if payload.is_empty() || payload.len() > SHORT_MAX {
        return Bytes::copy_from_slice(payload);
    }
    if block.capacity() < payload.len() {
        *block = BytesMut::with_capacity(BLOCK);
    }
    block.extend_from_slice(payload);
    block.split().freeze()
}

fn check(total: u64, length: usize, expected: u32, found: u32) -> Result<(), String> {
    if length as u64 != total && !planted(Bug::TotalUnchecked) {
        return Err(format!("it has {length} bytes where it named {total}"));
    }
    if found != expected && !planted(Bug::ChecksumUnchecked) {
        return Err(format!(
            "its checksum is {found:#010x} where the sender made {expected:#010x}"
        ));
    }
    Ok(())
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
                whole = reassembly
                    .accept(frame.header, &frame.body)
                    .expect("valid chunks");
            }
            assert_eq!(
                whole,
                Some(Message {
                    source: 3,
                    tag: 9,
                    payload
                })
            );
        }
    }

    #[test]
    fn a_flipped_bit_a_gap_and_a_repeat_are_noticed() {
        let payload = Bytes::from_static(b"some bytes");
        let frame = chunks(route(0), &payload).next().expect("one chunk");
        let mut damaged = frame.clone();
        let mut body = damaged.body.to_vec();
        body[9] ^= 1;
        damaged.body = body.into();
        let error = Reassembly::default()
            .accept(damaged.header, &damaged.body)
            .expect_err("the checksum is wrong");
        assert!(
            error
                .to_string()
                .contains("message 0 from rank 3 to rank 5 is broken: its checksum"),
            "{error}"
        );

        let mut reassembly = Reassembly::default();
        reassembly
            .accept(frame.header, &frame.body)
            .expect("the first is fine");
        assert!(matches!(
            reassembly.accept(frame.header, &frame.body),
            Err(ReassemblyError::Sequence {
                expected: 1,
                found: 0,
                ..
            })
        ));
        let later = chunks(route(2), &payload).next().expect("one chunk");
        assert!(matches!(
            reassembly.accept(later.header, &later.body),
            Err(ReassemblyError::Sequence {
                expected: 1,
                found: 2,
                ..
            })
        ));
    }
}
