//! Bytes to frames and back: a fixed header, written field by field, and a body. No I/O.
//!
//! "Not enough yet" is a value (`None`), so that a reader can feed whatever the socket gave it. The layout is
//! specified in `docs/PROTOCOL.md`, and golden files in `tests/golden` hold the bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// What each side sends first, before any frame, so that a stranger on the port is known at once.
pub const PREAMBLE: &[u8; 8] = b"LSWITCH\n";

/// The protocol's version, spoken by this build. Draft until recovery is built.
pub const PROTOCOL: u16 = 1;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 32;

/// Length of what a message's first chunk carries ahead of its payload: total length (u64) and CRC32C (u32).
pub const FIRST_CHUNK_LEN: usize = 12;

/// The largest payload of one chunk, in bytes. Longer messages travel as several chunks.
pub const CHUNK_MAX: usize = 256 * 1024;

/// The largest body of any frame, in bytes.
pub const BODY_MAX: usize = CHUNK_MAX + FIRST_CHUNK_LEN;

/// The largest message, in bytes: 4 GiB, as long as DESIGN promises.
pub const MESSAGE_MAX: u64 = 4 << 30;

/// The address of the driver, which has no rank.
pub const DRIVER: u32 = u32::MAX;

/// The address of the switch itself: source of its answers, destination of control frames and contributions.
pub const SWITCH: u32 = u32::MAX - 1;

/// The most ranks a job may have; addresses above are reserved.
pub const RANKS_MAX: u32 = 1 << 20;

/// The chunk begins a message.
pub const FLAG_FIRST: u8 = 0b0000_0001;
/// The chunk ends a message.
pub const FLAG_LAST: u8 = 0b0000_0010;
/// A receiver that does not know this kind skips the frame instead of failing.
pub const FLAG_SKIPPABLE: u8 = 0b1000_0000;

/// The numbers of the kinds. Those from 0x20 on are reserved and not sent by this version.
pub mod kind {
    /// Client to switch: who it is; the first frame on a connection.
    pub const HELLO: u8 = 0x01;
    /// Switch to client: the hello was accepted.
    pub const WELCOME: u8 = 0x02;
    /// Switch to client: the hello, or something later, was refused; the connection ends.
    pub const REFUSED: u8 = 0x03;
    /// Switch to pack: all ranks are there, the program may begin.
    pub const START: u8 = 0x04;
    /// Both ways: the sender lives.
    pub const HEARTBEAT: u8 = 0x05;
    /// Client to switch: it is done, or failed, and wants to go.
    pub const LEAVE: u8 = 0x06;
    /// Switch to client: it may close the connection.
    pub const LEFT: u8 = 0x07;
    /// Switch to client: the job ended before its time.
    pub const END: u8 = 0x08;
    /// Switch to driver: news of the job.
    pub const NOTICE: u8 = 0x09;
    /// Driver to switch: end the job, with the reason.
    pub const ABORT: u8 = 0x0a;
    /// Rank to rank, rank to driver: a chunk of a message.
    pub const DATA: u8 = 0x10;
    /// Pack to switch: its part of a collective.
    pub const CONTRIBUTE: u8 = 0x11;
    /// Switch to pack: a collective's result.
    pub const COMBINED: u8 = 0x12;
    /// Reserved: a large message is announced.
    pub const ANNOUNCE: u8 = 0x20;
    /// Reserved: credit is granted.
    pub const CREDIT: u8 = 0x21;
    /// Reserved: a lost connection is resumed.
    pub const RESUME: u8 = 0x22;
    /// Reserved: all ranks go back to a checkpoint.
    pub const EPOCH: u8 = 0x23;
    /// Reserved: a line of a worker's log.
    pub const LOG: u8 = 0x24;
    /// Reserved: named groups of an elastic job.
    pub const GROUP: u8 = 0x25;
    /// Reserved: counters, queues and vectors.
    pub const STATE: u8 = 0x26;

    /// True for the kinds this version sends and understands.
    pub fn is_known(kind: u8) -> bool {
        matches!(kind, HELLO..=ABORT | DATA..=COMBINED)
    }
}

/// The fixed part of a frame. Fields that a kind does not use are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// The group of ranks that is spoken to; 0 is the whole job.
    pub group: u16,
    /// The job's epoch; frames of an older one are refused.
    pub epoch: u32,
    /// The program's own mark on a message; for collectives the operation.
    pub tag: u32,
    /// The rank that sent it, or [`DRIVER`] or [`SWITCH`].
    pub source: u32,
    /// The rank it goes to, or [`DRIVER`] or [`SWITCH`].
    pub destination: u32,
    /// For data: the message's number from this source to this destination, from 0; for collectives: the call's number.
    pub sequence: u64,
    /// Bytes that follow the header.
    pub length: u32,
}

impl Header {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_u16_le(self.group);
        out.put_u32_le(self.epoch);
        out.put_u32_le(self.tag);
        out.put_u32_le(self.source);
        out.put_u32_le(self.destination);
        out.put_u64_le(self.sequence);
        out.put_u32_le(self.length);
    }

    fn take(mut bytes: &[u8]) -> Header {
        Header {
            kind: bytes.get_u8(),
            flags: bytes.get_u8(),
            group: bytes.get_u16_le(),
            epoch: bytes.get_u32_le(),
            tag: bytes.get_u32_le(),
            source: bytes.get_u32_le(),
            destination: bytes.get_u32_le(),
            sequence: bytes.get_u64_le(),
            length: bytes.get_u32_le(),
        }
    }
}

/// One frame: a header and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The header; its `length` is the body's.
    pub header: Header,
    /// What follows the header.
    pub body: Bytes,
}

/// Bytes that are no frame of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The header names a body over the limit.
    #[error(
        "a frame of kind {kind:#04x} names a body of {length} bytes, over the limit of {limit}"
    )]
    TooLong {
        /// The frame's kind.
        kind: u8,
        /// The length it names, in bytes.
        length: u32,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The kind is unknown and not marked skippable.
    #[error(
        "a frame of unknown kind {0:#04x} that is not marked as skippable; the peer may be a newer lswitch"
    )]
    UnknownKind(u8),
    /// A first chunk is too short for its total length and checksum.
    #[error(
        "a message's first chunk has a body of {0} bytes, too short for its length and checksum"
    )]
    ShortFirstChunk(usize),
}

impl Frame {
    /// A frame with the body's length filled in.
    pub fn new(mut header: Header, body: Bytes) -> Frame {
        debug_assert!(body.len() <= BODY_MAX, "a body is at most {BODY_MAX} bytes");
        header.length = body.len() as u32;
        Frame { header, body }
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Appends the header alone, for callers that send the body from where it lies.
    pub fn put_header(&self, out: &mut BytesMut) {
        self.header.put(out);
    }

    /// Appends the whole frame.
    pub fn put(&self, out: &mut BytesMut) {
        self.header.put(out);
        out.extend_from_slice(&self.body);
    }

    /// Takes the next frame off `buffer`, or `None` while it is incomplete. Unknown kinds marked skippable are passed
    /// over. `limit` bounds the body: a peer that has not proved itself is held to less.
    ///
    /// # Errors
    /// When a length is over `limit`, or a kind is unknown and not skippable. The stream cannot go on after that.
    pub fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
        loop {
            if buffer.len() < HEADER_LEN {
                return Ok(None);
            }
            let header = Header::take(&buffer[..HEADER_LEN]);
            if header.length as usize > limit {
                return Err(FrameError::TooLong {
                    kind: header.kind,
                    length: header.length,
                    limit,
                });
            }
            let known = kind::is_known(header.kind);
            if !known && header.flags & FLAG_SKIPPABLE == 0 {
                return Err(FrameError::UnknownKind(header.kind));
            }
            let wire_len = HEADER_LEN + header.length as usize;
            if buffer.len() < wire_len {
                buffer.reserve(wire_len - buffer.len());
                return Ok(None);
            }
            let mut whole = buffer.split_to(wire_len);
            if known {
                whole.advance(HEADER_LEN);
                return Ok(Some(Frame {
                    header,
                    body: whole.freeze(),
                }));
            }
        }
    }
}

/// What the first chunk of a message says of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstChunk {
    /// The message's length in bytes.
    pub total: u64,
    /// CRC32C of the whole message, made by the sending rank and checked by the receiver.
    pub crc32c: u32,
}

impl FirstChunk {
    /// Splits a first chunk's body into what it says and the payload.
    ///
    /// # Errors
    /// When the body is too short.
    pub fn take(body: &mut Bytes) -> Result<FirstChunk, FrameError> {
        if body.len() < FIRST_CHUNK_LEN {
            return Err(FrameError::ShortFirstChunk(body.len()));
        }
        Ok(FirstChunk {
            total: body.get_u64_le(),
            crc32c: body.get_u32_le(),
        })
    }
}

/// The frames of one message. `route` gives everything but flags and length.
pub fn chunks(route: Header, message: &Bytes) -> impl Iterator<Item = Frame> {
    let total = message.len();
    let crc32c = crc32c::crc32c(message);
    let count = total.div_ceil(CHUNK_MAX).max(1);
    let message = message.clone();
    (0..count).map(move |index| {
        let payload = message.slice(index * CHUNK_MAX..total.min((index + 1) * CHUNK_MAX));
        let mut header = Header {
            kind: kind::DATA,
            ..route
        };
        if index + 1 == count {
            header.flags |= FLAG_LAST;
        }
        if index > 0 {
            return Frame::new(header, payload);
        }
        header.flags |= FLAG_FIRST;
        let mut body = BytesMut::with_capacity(FIRST_CHUNK_LEN + payload.len());
        body.put_u64_le(total as u64);
        body.put_u32_le(crc32c);
        body.extend_from_slice(&payload);
        Frame::new(header, body.freeze())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        (
            prop::sample::select(vec![
                kind::HELLO,
                kind::HEARTBEAT,
                kind::DATA,
                kind::CONTRIBUTE,
                kind::COMBINED,
            ]),
            any::<(u8, u16, u32, u32, u32, u32, u64)>(),
            prop::collection::vec(any::<u8>(), 0..600),
        )
            .prop_map(
                |(kind, (flags, group, epoch, tag, source, destination, sequence), body)| {
                    let header = Header {
                        kind,
                        flags,
                        group,
                        epoch,
                        tag,
                        source,
                        destination,
                        sequence,
                        length: 0,
                    };
                    Frame::new(header, body.into())
                },
            )
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire_however_the_bytes_are_cut(frames in prop::collection::vec(any_frame(), 1..6), cut in 1usize..97) {
            let mut wire = BytesMut::new();
            frames.iter().for_each(|frame| frame.put(&mut wire));
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut buffer, BODY_MAX).expect("valid frames decode") {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_allocate_beyond_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = Frame::decode(&mut buffer, 4096) {
                prop_assert!(frame.body.len() <= 4096);
            }
            prop_assert!(buffer.capacity() <= 2 * (4096 + HEADER_LEN + 400));
        }
    }

    #[test]
    fn an_unknown_kind_is_skipped_only_if_it_says_so() {
        let unknown = |flags| {
            Frame::new(
                Header {
                    kind: 0x7f,
                    flags,
                    ..Header::default()
                },
                Bytes::from_static(b"later"),
            )
        };
        let known = Frame::new(
            Header {
                kind: kind::HEARTBEAT,
                ..Header::default()
            },
            Bytes::new(),
        );
        let mut buffer = BytesMut::new();
        unknown(FLAG_SKIPPABLE).put(&mut buffer);
        known.put(&mut buffer);
        assert_eq!(Frame::decode(&mut buffer, BODY_MAX), Ok(Some(known)));
        unknown(0).put(&mut buffer);
        assert_eq!(
            Frame::decode(&mut buffer, BODY_MAX),
            Err(FrameError::UnknownKind(0x7f))
        );
    }

    #[test]
    fn a_message_is_cut_into_chunks_and_an_empty_one_into_one() {
        for (length, count) in [
            (0, 1),
            (1, 1),
            (CHUNK_MAX, 1),
            (CHUNK_MAX + 1, 2),
            (3 * CHUNK_MAX, 3),
        ] {
            let message = Bytes::from(vec![7; length]);
            let frames: Vec<Frame> = chunks(Header::default(), &message).collect();
            assert_eq!(frames.len(), count, "{length} bytes");
            assert_eq!(frames[0].header.flags & FLAG_FIRST, FLAG_FIRST);
            assert_eq!(frames[count - 1].header.flags & FLAG_LAST, FLAG_LAST);
            let bytes: usize = frames.iter().map(|frame| frame.body.len()).sum();
            assert_eq!(bytes, length + FIRST_CHUNK_LEN);
        }
    }
}
