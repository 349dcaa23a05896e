//! The switch's sockets: a table of them, what waits to be written to each, and writing it.

use super::line::Line;
use crate::net::LOST_AFTER_MS;
use crate::net::egress::{ConnectionId, Egress};
use crate::net::queues::Queues;
use crate::net::tls::SEALED_MAX;
use mio::net::TcpStream;
use rustix::time::{ClockId, clock_gettime};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// Time that connections get to send what is queued when they, or the switch, go down.
pub const DRAIN: Duration = Duration::from_secs(2);

const LOST_AFTER: Duration = Duration::from_millis(LOST_AFTER_MS);

/// Frames from this length on are written from where they were read, if their way is free; shorter ones are gathered.
const DIRECT_MIN: usize = 8 * 1024;

/// Little waits for many when at least so many connections have something to be written ...
const GATHER_MIN: usize = 4;
/// ... and less than this each.
const GATHER_BYTES: usize = 16 * 1024;

/// Who was written to so often and sent nothing is not expected to.
const MUTE_AFTER: u8 = 16;

/// See the module.
pub struct Sockets {
    sockets: Vec<Option<Socket>>,
    free: Vec<u32>,
    generation: u32,
    open: usize,
    queues: Queues,
    /// Connections whose queues have grown since they were last written.
    dirty: Vec<ConnectionId>,
    /// How many of them are due to send.
    due: usize,
    /// Connections that have begun to close since somebody asked.
    closing: Vec<ConnectionId>,
    /// Something waits that is to go at once.
    in_hurry: bool,
    /// Who sent what is being decided on.
    from: Option<ConnectionId>,
    seen: Seen,
}

/// What has happened since somebody asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Something was sent to another than who caused it.
    pub passed: bool,
    /// Somebody has sent who was written to before.
    pub answered: bool,
    /// One of those was gathered for.
    pub awaited: bool,
}

/// One of them.
pub struct Socket {
    pub id: ConnectionId,
    pub line: Line,
    /// Sealed bytes that its socket does not take are counted as such that wait.
    counted: bool,
    /// The part of a frame that has arrived, and room for the rest.
    pub partial: Vec<u8>,
    pub filled: usize,
    /// Since when it might have gone on.
    pub partial_since: Instant,
    /// Whether it waits for memory to begin a frame.
    pub turn: Turn,
    /// It stands in the line of those who may have something to read.
    pub is_ready: bool,
    is_dirty: bool,
    /// How often it was written to since it sent last.
    unanswered: u8,
    /// Whose queue took its last long frame, if it had to wait.
    waits_behind: Option<ConnectionId>,
    /// The peer has closed its sending side: it is read until its end, of which nothing more is told.
    pub read_closed: bool,
    /// It takes no bytes for now, since then.
    blocked: Option<Instant>,
    /// The switch has forgotten it; what is queued is still sent, and what comes is dropped.
    pub closing: Option<Instant>,
    /// Its sending side is shut.
    shut: bool,
}

/// Where a connection stands in the line of those who wait for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is not in it.
    Free,
    /// It waits.
    Waits,
    /// It is the next to be read.
    Called,
}

impl Socket {
    /// Why it has been waited for too long, if it has. A frame that does not become whole matters when memory is scarce.
    pub fn is_late(&self, scarce: bool) -> Option<&'static str> {
        let passed = |since: Option<Instant>, limit| since.is_some_and(|at| at.elapsed() > limit);
        if self.shut && passed(self.closing, DRAIN) {
            Some("it did not close in time")
        } else if self.line.is_handshaking() && passed(self.closing, DRAIN) {
            Some("it did not end its handshake in time")
        } else if passed(self.blocked, LOST_AFTER) {
            Some("it took no bytes for too long")
        } else if scarce && !self.partial.is_empty() && self.partial_since.elapsed() > LOST_AFTER {
            Some("it held memory for a frame of which the rest did not come")
        } else {
            None
        }
    }
}

fn find(sockets: &mut [Option<Socket>], id: ConnectionId) -> Option<&mut Socket> {
    sockets
        .get_mut(id as u32 as usize)
        .and_then(Option::as_mut)
        .filter(|socket| socket.id == id)
}

impl Sockets {
    /// No sockets, with these queues.
    pub fn new(queues: Queues) -> Sockets {
        Sockets {
            sockets: Vec::new(),
            free: Vec::new(),
            generation: 0,
            open: 0,
            queues,
            dirty: Vec::new(),
            due: 0,
            closing: Vec::new(),
            in_hurry: false,
            from: None,
            seen: Seen::default(),
        }
    }

    /// Takes a socket in, once `register` has made its slot known to the poll.
    ///
    /// # Errors
    /// When that fails.
    pub fn insert(
        &mut self,
        mut line: Line,
        register: impl FnOnce(&mut TcpStream, usize) -> io::Result<()>,
    ) -> io::Result<ConnectionId> {
        let slot = self.free.pop().unwrap_or(self.sockets.len() as u32);
        if let Err(error) = register(line.socket(), slot as usize) {
            self.free.push(slot);
            return Err(error);
        }
        self.generation = self.generation.wrapping_add(1);
        let id = u64::from(self.generation) << 32 | u64::from(slot);
        let socket = Socket {
            id,
            line,
            counted: false,
            partial: Vec::new(),
            filled: 0,
            partial_since: Instant::now(),
            turn: Turn::Free,
            is_ready: false,
            is_dirty: false,
            unanswered: u8::MAX,
            waits_behind: None,
            read_closed: false,
            blocked: None,
            closing: None,
            shut: false,
        };
        if slot as usize == self.sockets.len() {
            self.sockets.push(Some(socket));
        } else {
            self.sockets[slot as usize] = Some(socket);
        }
        self.open += 1;
        Ok(id)
    }

    /// Drops a socket, with what waits for it.
    pub fn remove(&mut self, id: ConnectionId) {
        if let Some(socket) = find(&mut self.sockets, id) {
            self.due -= usize::from(socket.is_dirty && socket.is_due());
            if socket.counted {
                self.queues.sent_elsewhere(SEALED_MAX);
            }
            let slot = id as u32;
            self.sockets[slot as usize] = None;
            self.free.push(slot);
            self.open -= 1;
            self.queues.remove(id);
        }
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().flatten()
    }

    /// Who has a slot.
    pub fn at(&self, slot: usize) -> Option<ConnectionId> {
        Some(self.sockets.get(slot)?.as_ref()?.id)
    }

    /// One of them.
    pub fn socket(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        find(&mut self.sockets, id)
    }

    /// It takes bytes again.
    pub fn writable(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket(id)
            && socket.blocked.take().is_some()
        {
            self.soil(id);
        }
    }

    /// What is queued from here on comes from this connection, until [`Sockets::end_from`].
    pub fn begin_from(&mut self, id: ConnectionId) {
        self.from = Some(id);
    }

    /// What is queued from here on is the switch's own.
    pub fn end_from(&mut self) {
        self.from = None;
    }

    /// True if a connection may not be read for now. Long frames follow each other: who sent its last one to a queue that
    /// others have filled since is held before it brings more.
    pub fn holds(&mut self, id: ConnectionId) -> bool {
        if let Some(socket) = find(&mut self.sockets, id)
            && socket.closing.is_none()
            && let Some(to) = socket.waits_behind.take()
        {
            self.queues.hold_behind(to, id);
        }
        self.queues.is_held(id)
    }

    /// Connections that may not be read for now.
    pub fn held(&self) -> impl Iterator<Item = ConnectionId> {
        self.queues.held()
    }

    /// Takes a connection that may be read again, until there is none.
    pub fn take_released(&mut self) -> Option<ConnectionId> {
        self.queues.take_released()
    }

    /// What has happened since the last call.
    pub fn take_seen(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// Takes a connection for which something waits that is new, until there is none.
    pub fn take_dirty(&mut self) -> Option<ConnectionId> {
        self.in_hurry = false;
        let id = self.dirty.pop()?;
        if let Some(socket) = find(&mut self.sockets, id) {
            socket.is_dirty = false;
            self.due -= usize::from(socket.is_due());
            socket.was_written();
        }
        Some(id)
    }

    /// Takes a connection that has begun to close, until there is none.
    pub fn take_closing(&mut self) -> Option<ConnectionId> {
        self.closing.pop()
    }

    /// The switch itself was stopped: nobody else was late.
    pub fn stood_still(&mut self) {
        let now = Instant::now();
        for socket in self.sockets.iter_mut().flatten() {
            socket.partial_since = now;
            for since in [&mut socket.blocked, &mut socket.closing] {
                *since = since.map(|_| now);
            }
        }
    }

    /// Gives memory back that is not used.
    pub fn trim(&mut self) {
        self.queues.trim();
    }

    /// It has sent something.
    pub fn spoke(&mut self, id: ConnectionId) {
        if let Some(socket) = find(&mut self.sockets, id) {
            if socket.is_dirty && socket.is_due() {
                self.due -= 1;
                self.seen.awaited = true;
            }
            self.seen.answered |= std::mem::take(&mut socket.unanswered) > 0;
        }
    }

    /// True if little waits for each of many, nobody is in a hurry, and some of them are due to send.
    pub fn gathers(&self) -> bool {
        !self.in_hurry
            && self.due > 0
            && self.queues.total() > 0
            && self.dirty.len() >= GATHER_MIN
            && self.queues.total() < self.dirty.len() * GATHER_BYTES
    }

    /// Writes what waits for a connection, as far as its socket takes it.
    ///
    /// # Errors
    /// When the socket failed. One that is closing may be gone; that it was told is all that could be done.
    pub fn write(&mut self, id: ConnectionId) -> io::Result<()> {
        let outcome = self.write_out(id);
        self.count_sealed(id);
        outcome
    }

    fn write_out(&mut self, id: ConnectionId) -> io::Result<()> {
        let Some(socket) = find(&mut self.sockets, id) else {
            return Ok(());
        };
        socket.flush()?;
        if socket.line.is_handshaking() {
            return Ok(());
        }
        while socket.blocked.is_none() {
            let waiting = self.queues.waiting(id);
            if waiting.is_empty() {
                break;
            }
            let count = socket.give(waiting)?;
            self.queues.written(id, count);
        }
        if socket.blocked.is_none() && socket.closing.is_some() && !socket.shut {
            if !socket.line.shut()? {
                socket.blocked = Some(Instant::now());
                return Ok(());
            }
            // A socket that is closed with unread bytes is reset, and its peer may never see the reason that was sent last.
            // So it is read on, until the peer closes or time is up.
            socket.shut = true;
            // From its last byte on it has time to close; until then it is only held to taking bytes.
            socket.closing = Some(Instant::now());
        }
        Ok(())
    }

    /// What lies sealed takes memory as what is queued does.
    fn count_sealed(&mut self, id: ConnectionId) {
        if let Some(socket) = find(&mut self.sockets, id)
            && socket.line.is_waiting() != socket.counted
        {
            socket.counted = !socket.counted;
            match socket.counted {
                true => self.queues.lies_elsewhere(SEALED_MAX),
                false => self.queues.sent_elsewhere(SEALED_MAX),
            }
        }
    }

    /// Writes bytes at once if `directly` and their way is free; what is left, or all of it, is queued.
    fn give_or_queue(&mut self, to: ConnectionId, bytes: &[u8], directly: bool) {
        let Some(socket) = find(&mut self.sockets, to) else {
            return;
        };
        self.seen.passed |= self.from.is_some_and(|from| from != to);
        let mut rest = bytes;
        if directly && socket.blocked.is_none() && !socket.line.is_handshaking() {
            if !self.queues.waiting(to).is_empty() {
                // An error shows again when the queue is written next.
                let _ = self.write(to);
            }
            let Some(socket) = find(&mut self.sockets, to) else {
                return;
            };
            while self.queues.waiting(to).is_empty() && socket.blocked.is_none() && !rest.is_empty()
            {
                match socket.give(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(_) => break,
                }
            }
            if !socket.is_dirty {
                socket.was_written();
            }
            self.count_sealed(to);
        }
        if directly && let Some(from) = self.from.and_then(|id| find(&mut self.sockets, id)) {
            from.waits_behind = (!rest.is_empty()).then_some(to);
        }
        if !rest.is_empty() {
            self.queues.push(to, rest, self.from);
            self.soil(to);
        }
    }

    /// A handshake has gone on, or is over: what was to be written may be.
    pub fn shook(&mut self, id: ConnectionId) {
        self.soil(id);
    }

    fn soil(&mut self, id: ConnectionId) {
        if let Some(socket) = find(&mut self.sockets, id)
            && !socket.is_dirty
        {
            socket.is_dirty = true;
            self.due += usize::from(socket.is_due());
            self.dirty.push(id);
        }
    }
}

impl Socket {
    /// It has sent something before, and nothing since it was last written to.
    fn is_due(&self) -> bool {
        (1..=MUTE_AFTER).contains(&self.unanswered)
    }

    fn was_written(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Writes what was sealed before.
    fn flush(&mut self) -> io::Result<()> {
        if self.blocked.is_none() && !self.line.flush()? {
            self.blocked = Some(Instant::now());
        }
        Ok(())
    }

    /// Writes once; gives how many bytes were taken.
    fn give(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.line.write(bytes) {
            Ok(count) => {
                if self.line.is_waiting() {
                    self.blocked = Some(Instant::now());
                }
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked = Some(Instant::now());
                Ok(0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl Egress for Sockets {
    fn forward(&mut self, to: ConnectionId, frame: &[u8]) {
        let is_long = frame.len() >= DIRECT_MIN;
        self.give_or_queue(to, frame, is_long);
    }

    fn forward_all(&mut self, to: ConnectionId, frames: &[u8], longest: usize) {
        self.give_or_queue(to, frames, longest >= DIRECT_MIN);
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket(id) {
            socket.closing = Some(Instant::now());
            self.closing.push(id);
        }
        // It is read on, so that it sees its end.
        self.queues.let_go(id);
        self.soil(id);
    }

    fn hurry(&mut self) {
        self.in_hurry = true;
    }

    fn is_held(&self, id: ConnectionId) -> bool {
        self.queues.is_held(id)
    }

    fn cpu_us(&self) -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
    }
}
