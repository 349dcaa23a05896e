//! One connection of a pack, for threads: what waits to be sent, and what has been read.
//!
//! A rank's thread writes and reads the socket itself, since each hand-over to another thread costs more than a small
//! message does. Frames are gathered until their rank waits for something, many have come together, or a tick has passed;
//! see [`crate::net::keeper`]. Nothing here waits with a lock held that a reader needs: a pack always reads.

use crate::net::flow::cost;
use crate::net::frame::{BODY_MAX, Cut, Cutter, FRAME_MAX, Frame, FrameError, Header};
use crate::net::mailbox::Arrived;
use crate::net::outgoing::{COPY_MAX, Outgoing};
use crate::net::reassembly::Reassembly;
pub use crate::net::stream::{Came, Reading};
use crate::net::stream::{Sealed, Stream};
use crate::net::tls::Session;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bytes that wait to be sent above which ranks wait to send more.
const WAITING_MAX: usize = 256 * 1024;

/// Bytes that one read asks for.
const READ_LEN: usize = 4 * FRAME_MAX;

/// A read that waits looks up this often.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
pub struct Wire {
    /// Its place among the connections of its pack.
    pub number: usize,
    /// Where its switch is.
    pub address: Arc<str>,
    stream: Stream,
    outgoing: Mutex<Outgoing>,
    incoming: Mutex<Incoming>,
    begun: Instant,
    /// When something was heard last, in milliseconds since `begun`.
    heard_ms: AtomicU64,
    /// Wakes the keeper.
    bell: PipeWriter,
    /// The keeper looks again within a tick.
    pub armed: AtomicBool,
    /// How often a rank has read the socket itself, and whether one does now: the keeper leaves it alone then.
    led: AtomicU64,
    leading: AtomicBool,
    /// The keeper does not watch the socket, since a rank has read it of late.
    left_alone: AtomicBool,
    /// How often something was delivered. It changes only while `incoming` is locked.
    delivered: AtomicU64,
}

/// A rank reads the socket itself, as long as this lives.
pub struct Leading<'a>(&'a AtomicBool);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What has been read.
pub struct Incoming {
    sealed: Sealed,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The messages that are under way.
    pub reassembly: Reassembly,
    /// Empty lists that are used again and again.
    pub batches: Vec<Vec<Arrived>>,
}

/// Short messages that are added with one lock taken.
pub struct Batch<'a> {
    outgoing: MutexGuard<'a, Outgoing>,
    wire: &'a Wire,
}

impl Batch<'_> {
    /// True if it goes over this connection.
    pub fn is_of(&self, wire: &Wire) -> bool {
        self.wire.number == wire.number
    }

    /// Adds a message if it is short, there is credit for it, and nothing stands in its way; otherwise nothing happens, and
    /// it takes the common way.
    pub fn send(&mut self, route: Header, payload: &[u8], share: u64) -> bool {
        let outgoing = &mut *self.outgoing;
        let fits = payload.len() <= COPY_MAX && outgoing.waiting() <= WAITING_MAX;
        let free = fits && !outgoing.is_closed();
        let to = route.destination;
        if !free || !outgoing.credits.spend(to, cost(payload.len()), share) {
            return false;
        }
        for cut in Cutter::new(route, payload) {
            outgoing.add(&self.wire.stream, &cut, None);
        }
        true
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.outgoing.waiting() > 0 {
            self.wire.arm();
        }
    }
}

/// The connection failed; the reading side knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Why the keeper was woken; neither when time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    /// The socket can be read, or has ended.
    pub readable: bool,
    /// The bell was rung.
    pub rung: bool,
}

impl Wire {
    /// A wire over a socket, and the session over that, connected to the switch at `address`, and from which `already` has been
    /// read; and the end of the bell for its keeper.
    ///
    /// # Errors
    /// When the system refuses a pipe, or the socket.
    pub fn new(
        (socket, session): (TcpStream, Option<Session>),
        already: &[u8],
        address: Arc<str>,
    ) -> io::Result<(Wire, PipeReader)> {
        let stream = Stream::new(socket, session, PATIENCE)?;
        let (bell_end, bell) = io::pipe()?;
        let mut buffer = vec![0; READ_LEN + already.len()];
        buffer[..already.len()].copy_from_slice(already);
        let wire = Wire {
            number: 0,
            address,
            stream,
            outgoing: Mutex::default(),
            incoming: Mutex::new(Incoming {
                sealed: Sealed::default(),
                buffer,
                start: 0,
                end: already.len(),
                reassembly: Reassembly::default(),
                batches: Vec::new(),
            }),
            begun: Instant::now(),
            heard_ms: AtomicU64::new(0),
            bell,
            armed: AtomicBool::new(false),
            led: AtomicU64::new(0),
            leading: AtomicBool::new(false),
            left_alone: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
        };
        Ok((wire, bell_end))
    }

    /// Takes credit for a message, if there is enough.
    pub fn spend(&self, to: u32, cost: u64, share: u64) -> bool {
        self.outgoing().credits.spend(to, cost, share)
    }

    /// A rank gave credit back. False if it gives more than was used.
    pub fn returned(&self, by: u32, bytes: u64) -> bool {
        self.outgoing().credits.returned(by, bytes)
    }

    /// Adds a data frame; its payload may be kept if it is a part of `owner`. Waits until `deadline` while too much waits to
    /// be sent, and calls `meanwhile` when something can be read. False if the deadline passed.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn send(
        &self,
        cut: &Cut<'_>,
        owner: Option<&Bytes>,
        deadline: Instant,
        mut meanwhile: impl FnMut(),
    ) -> Result<bool, Broken> {
        let mut outgoing = self.outgoing();
        while outgoing.waiting() > WAITING_MAX && !outgoing.is_closed() {
            drop(outgoing);
            if Instant::now() >= deadline {
                return Ok(false);
            }
            if self.wait(PATIENCE, true) {
                meanwhile();
            }
            self.flush();
            outgoing = self.outgoing();
        }
        drop(outgoing);
        self.try_send(cut, owner).map(|()| true)
    }

    /// Several short messages, behind each other.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            outgoing: self.outgoing(),
            wire: self,
        }
    }

    /// True if a rank need not wait to send.
    pub fn has_room(&self) -> bool {
        let outgoing = self.outgoing();
        outgoing.waiting() <= WAITING_MAX || outgoing.is_closed()
    }

    /// The same, for who has looked for room.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn try_send(&self, cut: &Cut<'_>, owner: Option<&Bytes>) -> Result<(), Broken> {
        let mut outgoing = self.outgoing();
        if outgoing.is_closed() {
            return Err(Broken);
        }
        outgoing.add(&self.stream, cut, owner);
        let left = outgoing.waiting() > 0;
        drop(outgoing);
        if left {
            self.arm();
        }
        Ok(())
    }

    /// The socket under another descriptor, to be watched by a runtime. Reads do not wait from then on.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn watched(&self) -> io::Result<TcpStream> {
        self.stream.watched()
    }

    /// Adds a frame that may not wait: those are short, and bounded by what they answer.
    pub fn push(&self, frame: &Frame) {
        let mut outgoing = self.outgoing();
        if !outgoing.is_closed() {
            outgoing.push(frame);
            drop(outgoing);
            self.arm();
        }
    }

    /// Adds the last frame that is sent on the connection.
    pub fn push_last(&self, frame: &Frame) {
        let mut outgoing = self.outgoing();
        if !outgoing.is_closed() {
            outgoing.push(frame);
            outgoing.over = true;
        }
    }

    /// Sends what waits, as far as the socket takes it now. True if nothing is left.
    pub fn flush(&self) -> bool {
        let mut outgoing = self.outgoing();
        outgoing.write(&self.stream);
        outgoing.waiting() == 0
    }

    /// True if something waits that the socket did not take.
    pub fn is_blocked(&self) -> bool {
        self.outgoing().blocked
    }

    /// True if something waits to be sent.
    pub fn is_waiting(&self) -> bool {
        self.outgoing().waiting() > 0
    }

    /// Drops what waits; nothing is sent any more.
    pub fn break_off(&self) {
        self.outgoing().fail();
        self.ring();
    }

    /// Shuts the socket: whoever reads or writes it ends.
    pub fn shut(&self) {
        self.break_off();
        self.stream.shut();
    }

    /// Shuts the sending side, after what was sent.
    pub fn shut_sending(&self) {
        self.stream.shut_sending();
    }

    /// A rank begins to read the socket itself. What the keeper delivers meanwhile shows in [`Wire::delivered`], to be
    /// looked at with `incoming` locked: later the keeper delivers nothing.
    pub fn lead(&self) -> Leading<'_> {
        self.led.fetch_add(1, Ordering::Relaxed);
        self.leading.store(true, Ordering::SeqCst);
        Leading(&self.leading)
    }

    /// True while a rank reads the socket itself.
    pub fn is_led(&self) -> bool {
        self.leading.load(Ordering::SeqCst)
    }

    /// True if nobody reads the socket unless a rank does.
    pub fn is_left_alone(&self) -> bool {
        self.left_alone.load(Ordering::SeqCst)
    }

    /// The keeper is about to leave the socket to a rank, or not to.
    pub fn leave_alone(&self, alone: bool) {
        self.left_alone.store(alone, Ordering::SeqCst);
    }

    /// How often a rank began to.
    pub fn led(&self) -> u64 {
        self.led.load(Ordering::Relaxed)
    }

    /// How often something was delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    /// Something was delivered; `incoming` is locked.
    pub fn has_delivered(&self) {
        self.delivered.fetch_add(1, Ordering::SeqCst);
    }

    /// How long nothing was heard.
    pub fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }

    /// The right to read.
    pub fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().expect("no holder of this lock panics")
    }

    /// The right to read, unless somebody has it.
    pub fn try_incoming(&self) -> Option<MutexGuard<'_, Incoming>> {
        self.incoming.try_lock().ok()
    }

    /// Reads once.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn read(&self, incoming: &mut Incoming, how: Reading) -> io::Result<Came> {
        incoming.make_room();
        let room = &mut incoming.buffer[incoming.end..];
        let came = self.stream.read(room, &mut incoming.sealed, how)?;
        if let Came::Bytes { count, .. } = came {
            incoming.end += count;
            let now = self.begun.elapsed().as_millis() as u64;
            self.heard_ms.store(now, Ordering::Relaxed);
        }
        Ok(came)
    }

    /// Waits until the socket can be read, or written too if that is wanted; true if it can be read.
    pub fn wait(&self, most: Duration, writable: bool) -> bool {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, writable);
        let mut sockets = [PollFd::new(&self.stream, flags)];
        // An interruption is a change like any other.
        let _ = poll(&mut sockets, Some(&timespec(most)));
        !sockets[0].revents().difference(PollFlags::OUT).is_empty()
    }

    /// For the keeper: waits until the bell is rung or, if it is to `watch` the socket, until that can be read, or written
    /// when what waits did not go at once.
    pub fn wait_or_bell(&self, bell: &mut PipeReader, most: Duration, watch: bool) -> Woken {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.is_blocked());
        let woken = {
            let mut both = [
                PollFd::new(&*bell, PollFlags::IN),
                PollFd::new(&self.stream, flags),
            ];
            let count = if watch { 2 } else { 1 };
            // An interruption is a change like any other.
            let _ = poll(&mut both[..count], Some(&timespec(most)));
            Woken {
                readable: !both[1].revents().difference(PollFlags::OUT).is_empty(),
                rung: !both[0].revents().is_empty(),
            }
        };
        if woken.rung {
            // One read takes the rings of a moment; there is at least one.
            let _ = bell.read(&mut [0; 64]);
        }
        woken
    }

    /// Wakes the keeper.
    pub fn ring(&self) {
        // It ends with its reader.
        let _ = (&self.bell).write(&[1]);
    }

    /// Makes sure that the keeper looks within a tick.
    fn arm(&self) {
        if !self.armed.load(Ordering::Relaxed) && !self.armed.swap(true, Ordering::Relaxed) {
            self.ring();
        }
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().expect("no holder of this lock panics")
    }
}

/// Waits until one of some sockets can be read, or written where something waits to be; tells with a bit for each which can
/// be read.
pub fn wait_for_any(wires: &[Wire], most: Duration) -> u32 {
    let mut sockets: Vec<PollFd> = wires
        .iter()
        .map(|wire| {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, wire.is_blocked());
            PollFd::new(&wire.stream, flags)
        })
        .collect();
    // An interruption is a change like any other.
    let _ = poll(&mut sockets, Some(&timespec(most)));
    let readable = |socket: &PollFd| !socket.revents().difference(PollFlags::OUT).is_empty();
    (0..32)
        .zip(&sockets)
        .filter(|(_, socket)| readable(socket))
        .fold(0, |bits, (index, _)| bits | 1 << index)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

impl Incoming {
    /// The next whole frame, and where its body lies; see [`Incoming::body`].
    ///
    /// # Errors
    /// When the bytes are no frame.
    pub fn next_frame(&mut self) -> Result<Option<(Header, std::ops::Range<usize>)>, FrameError> {
        let bytes = &self.buffer[self.start..self.end];
        match Header::peek(bytes, BODY_MAX)? {
            Some(header) if bytes.len() >= header.wire_len() => {
                let end = self.start + header.wire_len();
                let body = end - header.length as usize..end;
                self.start = end;
                Ok(Some((header, body)))
            }
            _ => Ok(None),
        }
    }

    /// Hands a body and the messages under way to who looks at them.
    pub fn body(&mut self, range: std::ops::Range<usize>) -> (&[u8], &mut Reassembly) {
        (&self.buffer[range], &mut self.reassembly)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < FRAME_MAX {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}
