//! Memory for frames that have come in part. Pure.
//!
//! A frame is passed on whole, so its beginning lies here until the rest has come: at most one frame for each connection.
//! With thousands of connections that is much, so once all of them together take more than their share, no connection may
//! begin another: they wait in line, each until its turn, and what has begun goes on.

use crate::net::egress::ConnectionId;
use crate::net::frame::FRAME_MAX;
use std::collections::VecDeque;

/// Buffers that are kept: as many as a busy switch has at once.
const SPARE_MAX: usize = 64;

/// Buffers from this length on are kept.
const SPARE_MIN: usize = 8 * 1024;

/// See the module.
pub struct Partials {
    limit: usize,
    /// Bytes that partial frames take when they are whole, and those may take that connections will begin which were called.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    waiting: VecDeque<ConnectionId>,
}

impl Partials {
    /// Room for about `limit` bytes of partial frames.
    pub fn new(limit: usize) -> Partials {
        Partials {
            limit,
            bytes: 0,
            spare: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// True if no other frame may be begun for now, but by those who are called.
    pub fn are_many(&self) -> bool {
        self.bytes >= self.limit || !self.waiting.is_empty()
    }

    /// Keeps the beginning of something that will have `whole` bytes.
    pub fn begin(&mut self, bytes: &[u8], whole: usize) -> Vec<u8> {
        let mut partial = match self.spare.pop() {
            Some(spare) if whole >= SPARE_MIN => spare,
            Some(spare) => {
                self.spare.push(spare);
                Vec::new()
            }
            None => Vec::new(),
        };
        // What an earlier frame left there is written over before anybody looks.
        partial.resize(whole, 0);
        partial[..bytes.len()].copy_from_slice(bytes);
        self.bytes += whole;
        partial
    }

    /// One is whole, or of no use any more.
    pub fn end(&mut self, partial: &[u8]) {
        self.bytes -= partial.len();
    }

    /// Keeps a buffer to be used again.
    pub fn recycle(&mut self, partial: Vec<u8>) {
        let most = SPARE_MAX.min(self.limit / 4 / FRAME_MAX);
        let fits = (SPARE_MIN..=2 * FRAME_MAX).contains(&partial.capacity());
        if fits && self.spare.len() < most {
            self.spare.push(partial);
        }
    }

    /// A connection would begin a frame, and waits until it is called. It does not wait yet.
    pub fn wait(&mut self, id: ConnectionId) {
        self.waiting.push_back(id);
    }

    /// A connection is gone.
    pub fn forget(&mut self, id: ConnectionId) {
        self.waiting.retain(|waiting| *waiting != id);
    }

    /// Those who wait.
    pub fn waiting(&self) -> impl Iterator<Item = ConnectionId> {
        self.waiting.iter().copied()
    }

    /// Calls who has waited longest, if there is room for it and for those who were called before.
    pub fn call(&mut self) -> Option<ConnectionId> {
        if self.bytes >= self.limit {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.bytes += FRAME_MAX;
        Some(next)
    }

    /// One that was called is read, or gone.
    pub fn answered(&mut self) {
        self.bytes -= FRAME_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_begun_in_turn_and_within_the_limit() {
        let mut partials = Partials::new(2 * FRAME_MAX);
        let first = partials.begin(&[1, 2], FRAME_MAX);
        assert_eq!((first.len(), &first[..2]), (FRAME_MAX, &[1, 2][..]));
        assert!(!partials.are_many());
        let second = partials.begin(&[], FRAME_MAX);
        assert!(partials.are_many());
        for id in [7, 8, 9] {
            partials.wait(id);
        }
        assert_eq!(partials.call(), None);
        partials.end(&first);
        assert_eq!(partials.call(), Some(7));
        // That one may take the room that there is.
        assert_eq!(partials.call(), None);
        partials.answered();
        partials.forget(8);
        // Whoever comes now goes to the end of the line.
        assert!(partials.are_many());
        assert_eq!(partials.call(), Some(9));
        partials.answered();
        assert!(!partials.are_many());
        partials.end(&second);
        assert_eq!(partials.call(), None);
    }

    #[test]
    fn buffers_of_large_frames_are_used_again() {
        let mut partials = Partials::new(1 << 20);
        let large = partials.begin(&[1], SPARE_MIN);
        let at = large.as_ptr();
        partials.end(&large);
        partials.recycle(large);
        let small = partials.begin(&[2], 100);
        let again = partials.begin(&[3], SPARE_MIN);
        assert_ne!(small.as_ptr(), at);
        assert_eq!(again.as_ptr(), at);
    }
}
