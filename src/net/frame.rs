//! Bytes to frames and back: a fixed header, written field by field, and a body. No I/O.
//!
//! "Not enough yet" is a value (`None`), so that a reader can feed whatever the socket gave it. The layout is
//! specified in `docs/PROTOCOL.md`, and golden files in `tests/golden` hold the bytes.

use crate::net::checksum::Checksum;
use crate::net::planted::{Bug, planted};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// What each side sends first, before any frame, so that a stranger on the port is known at once.
pub const PREAMBLE: &[u8; 8] = b"LSWITCH\n";

/// The protocol's version, spoken by this build. Draft until recovery is built.
pub const PROTOCOL: u16 = 1;

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 32;

/// Length of what a message's first chunk carries ahead of its payload: the message's length, a u64.
pub const TOTAL_LEN: usize = 8;

/// Length of what a message's last chunk carries after its payload: the checksum of the message, a u32. It comes last, so
/// that a sender computes it while the first chunks are on their way.
pub const CHECKSUM_LEN: usize = 4;

/// The largest payload of one chunk, in bytes. Longer messages travel as several chunks. Small enough that a switch
/// which passes on whole chunks holds a message up by little, and that messages interleave.
pub const CHUNK_MAX: usize = 64 * 1024;

/// The largest body of any frame, in bytes, except that of a job's start ([`crate::net::codec::CONTROL_MAX`]).
pub const BODY_MAX: usize = CHUNK_MAX + TOTAL_LEN + CHECKSUM_LEN;

/// The largest frame, in bytes.
pub const FRAME_MAX: usize = HEADER_LEN + BODY_MAX;

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
/// The checksum of the message is CRC-32 and not CRC32C; on all of its chunks.
pub const FLAG_CRC32: u8 = 0b0000_0100;
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
    /// Rank to rank: may I send this message, for which there is no credit?
    pub const ANNOUNCE: u8 = 0x13;
    /// Rank to rank: the announced message may come.
    pub const GRANT: u8 = 0x14;
    /// Rank to pack: messages were taken, and leave room for others.
    pub const CREDIT: u8 = 0x15;
    /// Both ways: counters, queues and vectors.
    pub const STATE: u8 = 0x16;
    /// Reserved: a lost connection is resumed.
    pub const RESUME: u8 = 0x20;
    /// Reserved: all ranks go back to a checkpoint.
    pub const EPOCH: u8 = 0x21;
    /// Reserved: a line of a worker's log.
    pub const LOG: u8 = 0x22;
    /// Reserved: named groups of an elastic job.
    pub const GROUP: u8 = 0x23;

    /// True for the kinds this version sends and understands.
    pub fn is_known(kind: u8) -> bool {
        matches!(kind, HELLO..=ABORT | DATA..=STATE)
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
    /// Appends the header's bytes.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_slice(&self.to_bytes());
    }

    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.kind;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.group.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.tag.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.source.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.destination.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// The header of some bytes.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Header {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header {
            kind: bytes[0],
            flags: bytes[1],
            group: u16::from_le_bytes([bytes[2], bytes[3]]),
            epoch: u32_at(4),
            tag: u32_at(8),
            source: u32_at(12),
            destination: u32_at(16),
            sequence: u64::from(u32_at(20)) | u64::from(u32_at(24)) << 32,
            length: u32_at(28),
        }
    }

    /// Bytes of the whole frame.
    pub fn wire_len(&self) -> usize {
        HEADER_LEN + self.length as usize
    }

    /// The header that `bytes` begin with, or `None` while it is incomplete. `limit` bounds the body: a peer that has
    /// not proved itself is held to less. The body may not be there yet.
    ///
    /// # Errors
    /// When the length is over `limit`, or the kind is unknown and not skippable. The stream cannot go on after that.
    pub fn peek(bytes: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
        let Some((header, _)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let header = Header::from_bytes(header);
        if header.length as usize > limit {
            return Err(FrameError::TooLong {
                kind: header.kind,
                length: header.length,
                limit,
            });
        }
        if !kind::is_known(header.kind) && header.flags & FLAG_SKIPPABLE == 0 {
            return Err(FrameError::UnknownKind(header.kind));
        }
        Ok(Some(header))
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
    /// A chunk is too short for the length or the checksum that its flags promise.
    #[error("a chunk has a body of {0} bytes, too short for the message's length or checksum")]
    ShortChunk(usize),
}

impl Frame {
    /// A frame with the body's length filled in.
    pub fn new(mut header: Header, body: Bytes) -> Frame {
        debug_assert!(
            body.len() <= BODY_MAX || header.kind == kind::START,
            "a body is at most {BODY_MAX} bytes"
        );
        header.length = body.len() as u32;
        Frame { header, body }
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Appends the whole frame.
    pub fn put(&self, out: &mut impl BufMut) {
        self.header.put(out);
        out.put_slice(&self.body);
    }

    /// Takes the next frame off `buffer`, or `None` while it is incomplete. Unknown kinds marked skippable are passed
    /// over. `limit` bounds the body: a peer that has not proved itself is held to less.
    ///
    /// # Errors
    /// When a length is over `limit`, or a kind is unknown and not skippable. The stream cannot go on after that.
    pub fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some(header) = Header::peek(buffer, limit)? else {
                return Ok(None);
            };
            let wire_len = header.wire_len();
            if buffer.len() < wire_len {
                buffer.reserve(wire_len - buffer.len());
                return Ok(None);
            }
            let mut whole = buffer.split_to(wire_len);
            if kind::is_known(header.kind) {
                whole.advance(HEADER_LEN);
                return Ok(Some(Frame {
                    header,
                    body: whole.freeze(),
                }));
            }
        }
    }
}

/// The payload of a chunk, and what the chunk says of the whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Of a first chunk: the message's length in bytes.
    pub total: Option<u64>,
    /// This chunk's part of the message.
    pub payload: &'a [u8],
    /// Of a last chunk: the checksum of the whole message, made by the sending rank and checked by the receiver.
    pub checksum: Option<u32>,
}

impl<'a> Chunk<'a> {
    /// Splits the body of a data frame.
    ///
    /// # Errors
    /// When the body is too short for what its flags promise.
    pub fn split(flags: u8, body: &'a [u8]) -> Result<Chunk<'a>, FrameError> {
        let short = || FrameError::ShortChunk(body.len());
        let (mut total, mut payload, mut checksum) = (None, body, None);
        if flags & FLAG_FIRST != 0 {
            let (head, rest) = payload.split_first_chunk().ok_or_else(short)?;
            (total, payload) = (Some(u64::from_le_bytes(*head)), rest);
        }
        if flags & FLAG_LAST != 0 {
            let (rest, tail) = payload.split_last_chunk().ok_or_else(short)?;
            (payload, checksum) = (rest, Some(u32::from_le_bytes(*tail)));
        }
        Ok(Chunk {
            total,
            payload,
            checksum,
        })
    }
}

/// A message that is cut into chunks as it is sent, so that its checksum is computed on the way.
pub struct Cutter<'a> {
    route: Header,
    message: &'a [u8],
    /// The longest payload of a frame.
    chunk_max: usize,
    at: usize,
    checksum: u32,
    done: bool,
}

/// The most that goes ahead of a frame's payload besides the header, in bytes.
pub const PREFIX_MAX: usize = 12;

/// One frame, in the pieces that it is written from.
pub struct Cut<'a> {
    /// The header and what else goes ahead: so many of these bytes.
    head: [u8; HEADER_LEN + PREFIX_MAX],
    head_len: usize,
    /// A piece of the message.
    pub payload: &'a [u8],
    /// The checksum, if it is the last.
    tail: [u8; CHECKSUM_LEN],
    tail_len: usize,
}

impl<'a> Cut<'a> {
    /// A frame whose body is `prefix`, of at most [`PREFIX_MAX`] bytes, and `payload`.
    pub fn new(mut header: Header, prefix: &[u8], payload: &'a [u8]) -> Cut<'a> {
        header.length = (prefix.len() + payload.len()) as u32;
        let mut cut = Cut {
            head: [0; HEADER_LEN + PREFIX_MAX],
            head_len: HEADER_LEN + prefix.len(),
            payload,
            tail: [0; CHECKSUM_LEN],
            tail_len: 0,
        };
        cut.head[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        cut.head[HEADER_LEN..cut.head_len].copy_from_slice(prefix);
        cut
    }

    fn with_tail(mut self, tail: [u8; CHECKSUM_LEN]) -> Cut<'a> {
        self.tail = tail;
        self.tail_len = tail.len();
        let length = (self.head_len - HEADER_LEN + self.payload.len() + self.tail_len) as u32;
        self.head[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// What goes ahead of the payload.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    /// What follows the payload.
    pub fn tail(&self) -> &[u8] {
        &self.tail[..self.tail_len]
    }

    /// All of it, in order.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [self.head(), self.payload, self.tail()]
    }
}

impl<'a> Cutter<'a> {
    /// Cuts `message`; `route` gives everything of its headers but kind and length, and of the flags whether the checksum is CRC-32.
    pub fn new(route: Header, message: &'a [u8]) -> Cutter<'a> {
        Cutter::with(route, message, CHUNK_MAX)
    }

    /// The same, in chunks of at most `chunk_max` bytes, which are more than none and not more than [`CHUNK_MAX`].
    pub fn with(route: Header, message: &'a [u8], chunk_max: usize) -> Cutter<'a> {
        Cutter {
            route,
            message,
            chunk_max,
            at: 0,
            checksum: 0,
            done: false,
        }
    }
}

impl<'a> Iterator for Cutter<'a> {
    type Item = Cut<'a>;

    fn next(&mut self) -> Option<Cut<'a>> {
        if self.done {
            return None;
        }
        let first = self.at == 0;
        let end = self.message.len().min(self.at + self.chunk_max);
        let payload = &self.message[self.at..end];
        self.at = end;
        self.done = end == self.message.len();
        let before = if planted(Bug::ChecksumOfLastChunk) {
            0
        } else {
            self.checksum
        };
        self.checksum = Checksum::of(self.route.flags).append(before, payload);
        let mut header = Header {
            kind: kind::DATA,
            ..self.route
        };
        let total = (self.message.len() as u64).to_le_bytes();
        let prefix = if first {
            header.flags |= FLAG_FIRST;
            &total[..]
        } else {
            &[]
        };
        if !self.done {
            return Some(Cut::new(header, prefix, payload));
        }
        header.flags |= FLAG_LAST;
        Some(Cut::new(header, prefix, payload).with_tail(self.checksum.to_le_bytes()))
    }
}

/// The frames of one message. `route` gives everything but kind, flags and length.
pub fn chunks(route: Header, message: &[u8]) -> impl Iterator<Item = Frame> {
    Cutter::new(route, message).map(|cut| {
        let (header, ahead) = cut
            .head()
            .split_first_chunk()
            .expect("a head begins with a header");
        let body = [ahead, cut.payload, cut.tail()].concat();
        Frame::new(Header::from_bytes(header), body.into())
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
            let message = vec![7; length];
            let frames: Vec<Frame> = chunks(Header::default(), &message).collect();
            assert_eq!(frames.len(), count, "{length} bytes");
            assert_eq!(frames[0].header.flags & FLAG_FIRST, FLAG_FIRST);
            assert_eq!(frames[count - 1].header.flags & FLAG_LAST, FLAG_LAST);
            let bytes: usize = frames.iter().map(|frame| frame.body.len()).sum();
            assert_eq!(bytes, length + TOTAL_LEN + CHECKSUM_LEN);
        }
    }
}
