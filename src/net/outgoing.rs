//! What waits to be sent over one connection of a pack, and sending it.
//!
//! Short pieces are copied behind each other, long ones wait where they lie; many go in one system call.

use crate::net::flow::Credits;
use crate::net::frame::{Cut, Frame};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

/// Payloads up to this are copied behind what waits.
pub const COPY_MAX: usize = 8 * 1024;

/// Bytes that wait from which on they are sent whoever may add to them.
const FLUSH_AT: usize = 32 * 1024;

/// The same when long pieces are among them: one call takes several.
const FLUSH_LONG_AT: usize = 192 * 1024;

/// Messages longer than this are not kept alive by what waits of them.
const LENT_MAX: usize = 4 << 20;

/// Pieces that one call takes.
const PIECES_MAX: usize = 16;

/// What takes bytes.
pub trait Line {
    /// Takes as many of these bytes as it takes now.
    ///
    /// # Errors
    /// When it takes none for now, or has failed.
    fn give(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// True if nothing that it took waits in it; what does is sent on, as far as that goes now.
    ///
    /// # Errors
    /// When it has failed.
    fn is_clear(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// See the module.
#[derive(Default)]
pub struct Outgoing {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that were sent.
    head: usize,
    waiting: usize,
    /// Of those that wait, pieces that lie elsewhere.
    lent: usize,
    /// Something that the line took waits in it.
    held: bool,
    /// Room that is used again and again.
    spare: Vec<u8>,
    /// What this pack may send on credit.
    pub credits: Credits,
    /// The socket takes no more for now; the keeper, or who waits, sends the rest.
    pub blocked: bool,
    /// The connection failed, or was given up.
    pub broken: bool,
    /// The last frame was added.
    pub over: bool,
}

enum Piece {
    Copied(Vec<u8>),
    Lent(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Copied(bytes) => bytes,
            Piece::Lent(bytes) => bytes,
        }
    }
}

impl Outgoing {
    /// How many bytes wait; what the line holds counts as one.
    pub fn waiting(&self) -> usize {
        self.waiting + usize::from(self.held)
    }

    /// True if nothing more will be sent.
    pub fn is_closed(&self) -> bool {
        self.broken || self.over
    }

    /// Drops what waits; nothing is sent any more.
    pub fn fail(&mut self) {
        self.broken = true;
        (self.blocked, self.held) = (false, false);
        self.pieces.clear();
        (self.head, self.waiting, self.lent) = (0, 0, 0);
    }

    /// Adds a frame that is short.
    pub fn push(&mut self, frame: &Frame) {
        self.append(|bytes| frame.put(bytes));
    }

    /// Adds a frame, and sends if much waits. A long payload is kept by reference if it is a part of `owner`, which is not
    /// all too long; otherwise it is sent now, as far as the socket takes it, and the rest is copied.
    pub fn add(&mut self, line: &impl Line, cut: &Cut<'_>, owner: Option<&Bytes>) {
        let is_short = cut.payload.len() <= COPY_MAX;
        match owner {
            _ if is_short => self.append(|bytes| {
                for piece in cut.pieces() {
                    bytes.extend_from_slice(piece);
                }
            }),
            Some(owner) if owner.len() <= LENT_MAX => {
                let payload = owner.slice_ref(cut.payload);
                self.append(|bytes| bytes.extend_from_slice(cut.head()));
                self.waiting += payload.len();
                self.lent += 1;
                self.pieces.push_back(Piece::Lent(payload));
                self.append(|bytes| bytes.extend_from_slice(cut.tail()));
            }
            _ => return self.send_now(line, cut),
        }
        let most = if self.lent > 0 {
            FLUSH_LONG_AT
        } else {
            FLUSH_AT
        };
        if self.waiting >= most {
            self.write(line);
        }
    }

    /// Sends what waits, as far as the line takes it.
    pub fn write(&mut self, line: &impl Line) {
        while self.waiting > 0 {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let mut skipped = self.head;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(&piece.bytes()[skipped..]);
                skipped = 0;
            }
            let count = self.pieces.len().min(PIECES_MAX);
            match line.give(&slices[..count]) {
                Ok(count) => {
                    self.held = true;
                    self.sent(count);
                }
                Err(error) => {
                    self.refused(&error);
                    if self.broken || self.blocked {
                        return;
                    }
                }
            }
        }
        self.blocked = false;
        if self.held {
            self.clear(line);
        }
    }

    /// Sends what the line holds.
    fn clear(&mut self, line: &impl Line) {
        match line.is_clear() {
            Ok(clear) => (self.held, self.blocked) = (!clear, !clear),
            Err(error) => self.refused(&error),
        }
    }

    /// Sends a frame from where it lies, if nothing waits before it; what the socket does not take is copied.
    fn send_now(&mut self, line: &impl Line, cut: &Cut<'_>) {
        self.write(line);
        let mut sent = 0;
        if self.waiting == 0 && !self.broken {
            match line.give(&cut.pieces().map(IoSlice::new)) {
                Ok(count) => {
                    sent = count;
                    self.clear(line);
                }
                Err(error) => self.refused(&error),
            }
        }
        let length: usize = cut.pieces().iter().map(|piece| piece.len()).sum();
        if self.broken || sent == length {
            return;
        }
        self.append(|bytes| {
            for piece in cut.pieces() {
                let skipped = sent.min(piece.len());
                sent -= skipped;
                bytes.extend_from_slice(&piece[skipped..]);
            }
        });
    }

    /// Has somebody write behind what waits.
    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.pieces.back(), Some(Piece::Copied(_))) {
            let spare = std::mem::take(&mut self.spare);
            self.pieces.push_back(Piece::Copied(spare));
        }
        let Some(Piece::Copied(bytes)) = self.pieces.back_mut() else {
            unreachable!("it was just put there");
        };
        let before = bytes.len();
        write(bytes);
        self.waiting += bytes.len() - before;
    }

    fn sent(&mut self, mut count: usize) {
        self.waiting -= count;
        while let Some(first) = self.pieces.front_mut() {
            let left = first.bytes().len() - self.head;
            if count < left {
                self.head += count;
                // Each byte is moved at most once for each time that as many were sent.
                if let Piece::Copied(bytes) = first
                    && self.head > bytes.len() / 2
                {
                    bytes.drain(..self.head);
                    self.head = 0;
                }
                return;
            }
            count -= left;
            self.head = 0;
            match self.pieces.pop_front() {
                Some(Piece::Copied(mut bytes)) => {
                    bytes.clear();
                    self.spare = bytes;
                }
                _ => self.lent -= 1,
            }
        }
    }

    fn refused(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock => self.blocked = true,
            ErrorKind::Interrupted => {}
            _ => self.fail(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::frame::{Cutter, Header};
    use crate::net::stream;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    impl Line for UnixStream {
        fn give(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            stream::give(self, pieces)
        }
    }

    #[test]
    fn what_waits_comes_in_order_however_it_was_given_and_taken() {
        let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
        far.set_nonblocking(true).expect("it can be set");
        let mut outgoing = Outgoing::default();
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        let mut drain = |found: &mut Vec<u8>| {
            let mut room = [0; 30_000];
            while let Ok(count @ 1..) = far.read(&mut room) {
                found.extend_from_slice(&room[..count]);
            }
        };
        for step in 0..400_usize {
            // Short and long, kept and copied, faster than they are taken.
            let length = [0, 17, COPY_MAX, COPY_MAX + 1, 70_000, 200_000][step % 6];
            let message: Bytes = (0..length).map(|at| (at * 7 + step) as u8).collect();
            let owner = (step % 4 != 3).then_some(&message);
            for cut in Cutter::new(Header::default(), &message) {
                for piece in cut.pieces() {
                    expected.extend_from_slice(piece);
                }
                outgoing.add(&near, &cut, owner);
            }
            if step % 5 == 0 {
                outgoing.write(&near);
                drain(&mut found);
            }
            assert_eq!(outgoing.pieces.is_empty(), outgoing.waiting() == 0);
        }
        while outgoing.waiting() > 0 {
            outgoing.write(&near);
            drain(&mut found);
        }
        drain(&mut found);
        assert!(expected == found, "the bytes differ");
        assert_eq!((outgoing.head, outgoing.lent), (0, 0));
        assert!(!outgoing.blocked && !outgoing.broken);
    }

    #[test]
    fn a_socket_that_is_gone_breaks_it() {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        drop(far);
        let mut outgoing = Outgoing::default();
        let message = Bytes::from_static(b"nobody reads this");
        for cut in Cutter::new(Header::default(), &message) {
            outgoing.add(&near, &cut, Some(&message));
        }
        assert!(outgoing.waiting() > 0);
        outgoing.write(&near);
        assert!(outgoing.broken);
        assert_eq!(outgoing.waiting(), 0);
    }
}
