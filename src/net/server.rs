//! The shell around [`Switch`]: one thread that accepts, reads, writes and keeps the time. Decides nothing.
//!
//! One thread, since that is what is fastest: a switch spends its time in system calls, and what many senders gave in one
//! turn of the loop goes to each receiver in one write, without a lock or a wake-up between. Several processors are
//! used by several switches. The caller owns the listener and the stop signal, so that `serve`, `invoke` and tests
//! run the same code.

use crate::net::LOST_AFTER_MS;
use crate::net::egress::{ConnectionId, Egress};
use crate::net::frame::{FRAME_MAX, PREAMBLE};
use crate::net::message::{Control, Refusal, Refused};
use crate::net::queues::Queues;
use crate::net::socket;
use crate::net::switch::{Now, Switch};
use crate::net::token::Secret;
use bytes::BytesMut;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

/// The most connections at once. Below the descriptor limit of common systems, so that a full switch still answers.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Bytes that wait in a switch which is not told how many may, in bytes.
pub const MEMORY: usize = 256 << 20;

/// The least memory a switch may be given, in bytes: some hundred chunks.
pub const MEMORY_MIN: usize = 16 << 20;

/// Time that connections get to send what is queued when they, or the switch, go down.
const DRAIN: Duration = Duration::from_secs(2);

/// Between two looks at the clock for those who are silent.
const TICK: Duration = Duration::from_millis(250);

/// Bytes that one read asks for. Several chunks; the buffer is shared by all connections.
const READ_LEN: usize = 4 * FRAME_MAX;

/// Frames from this length on are written from where they were read, if their way is free; shorter ones are gathered.
const DIRECT_MIN: usize = 8 * 1024;

/// Turns of the loop are not longer than this many connections, so that what was read is soon written.
const TURN: usize = 64;

/// When at least so many connections have something to be written ...
const GATHER_MIN: usize = 4;
/// ... and less than this each, the thread yields up to so often before it writes.
const GATHER_BYTES: usize = 16 * 1024;
const GATHER: u32 = 4;

/// Buffers for partial frames that are kept: as many as a busy switch has at once.
const SPARE_MAX: usize = 64;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// What a switch may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that may wait in it, at least [`MEMORY_MIN`].
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: MEMORY }
    }
}

/// Runs a switch on `listener` until `shutdown` completes; then every job is ended with the reason, and connections are
/// drained for a short time.
pub async fn run(
    listener: tokio::net::TcpListener,
    secret: Secret,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let started = listener
        .into_std()
        .and_then(|listener| Server::new(TcpListener::from_std(listener), secret, limits));
    let (mut server, waker) = match started {
        Ok(started) => started,
        Err(error) => return error!("the switch cannot poll its sockets: {error}"),
    };
    let (ended, end) = oneshot::channel::<()>();
    let spawned = thread::Builder::new().name("switch".into()).spawn(move || {
        server.run();
        // The receiver waits, unless it was dropped with the future.
        let _ = ended.send(());
    });
    if let Err(error) = spawned {
        return error!("cannot start the switch's thread: {error}");
    }
    // Dropped also when this future is: then the thread ends too.
    let _stop = Stop(waker);
    let mut end = end;
    tokio::select! {
        () = shutdown => {}
        _ = &mut end => return,
    }
    drop(_stop);
    let _ = end.await;
}

/// Tells the thread to end.
struct Stop(Arc<Waker>);

impl Drop for Stop {
    fn drop(&mut self) {
        if let Err(error) = self.0.wake() {
            error!("cannot stop the switch: {error}");
        }
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    switch: Switch,
    started: Instant,
    out: Out,
    /// Connections that may have something to read, in turn.
    ready: VecDeque<ConnectionId>,
    buffer: Vec<u8>,
    /// Accepting failed, for want of descriptors most likely, and is tried again then.
    accept_again: Option<Instant>,
    stopping: Option<Instant>,
    /// Kept until the thread ends: when who wakes it drops the last one at once, the system forgets that it was woken.
    _waker: Arc<Waker>,
}

/// The writing half: sockets and queues.
struct Out {
    sockets: Vec<Option<Socket>>,
    free: Vec<u32>,
    generation: u32,
    open: usize,
    queues: Queues,
    /// Connections whose queues have grown since they were last written.
    dirty: Vec<ConnectionId>,
    /// Who sent what is being decided on.
    from: Option<ConnectionId>,
    /// Buffers of partial frames, to be used again.
    spare: Vec<Vec<u8>>,
}

struct Socket {
    id: ConnectionId,
    stream: TcpStream,
    /// The part of a frame that has arrived, and room for the rest.
    partial: Vec<u8>,
    filled: usize,
    is_ready: bool,
    is_dirty: bool,
    /// The peer has closed its sending side: it is read until its end, of which nothing more is told.
    read_closed: bool,
    /// It takes no bytes for now, since then.
    blocked: Option<Instant>,
    /// The switch has forgotten it; what is queued is still sent, and what comes is dropped.
    closing: Option<Instant>,
    /// Its sending side is shut.
    shut: bool,
}

impl Server {
    fn new(
        mut listener: TcpListener,
        secret: Secret,
        limits: Limits,
    ) -> io::Result<(Server, Arc<Waker>)> {
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let memory = limits.memory.max(MEMORY_MIN);
        let server = Server {
            poll,
            listener,
            switch: Switch::new(secret, memory),
            started: Instant::now(),
            out: Out {
                sockets: Vec::new(),
                free: Vec::new(),
                generation: 0,
                open: 0,
                // The rest is for what is read at once, partial frames and collectives.
                queues: Queues::new(memory / 2),
                dirty: Vec::new(),
                from: None,
                spare: Vec::new(),
            },
            ready: VecDeque::new(),
            buffer: vec![0; READ_LEN],
            accept_again: None,
            stopping: None,
            _waker: waker.clone(),
        };
        Ok((server, waker))
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        let mut ticked = Instant::now();
        let mut gathered = 0;
        loop {
            let mut timeout = TICK.saturating_sub(ticked.elapsed());
            if let Some(at) = self.switch.next_wake_ms() {
                timeout = timeout.min(Duration::from_millis(at.saturating_sub(self.now().ms)));
            }
            if !self.ready.is_empty() || gathered > 0 {
                timeout = Duration::ZERO;
            }
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return error!("the switch cannot wait for its sockets: {error}"),
            }
            for event in &events {
                self.happened(event);
            }
            let now = self.now();
            for _ in 0..self.ready.len().min(TURN) {
                if let Some(id) = self.ready.pop_front() {
                    self.read(id, now);
                }
            }
            self.switch.wake(now, &mut self.out);
            if self.out.gathers() && gathered < GATHER {
                // Who else is about to send may do so first: what goes to each receiver goes in fewer writes then.
                gathered += 1;
                thread::yield_now();
                continue;
            }
            gathered = 0;
            self.flush();
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
            if let Some(since) = self.stopping {
                if self.out.open == 0 {
                    return;
                }
                if since.elapsed() > DRAIN {
                    let seconds = DRAIN.as_secs();
                    return info!("{} connections did not drain in {seconds} s", self.out.open);
                }
            }
        }
    }

    fn now(&self) -> Now {
        let unix_s = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        Now {
            ms: self.started.elapsed().as_millis() as u64,
            unix_s,
        }
    }

    fn happened(&mut self, event: &Event) {
        match event.token() {
            LISTENER => self.accept(),
            WAKER => {
                self.stopping = Some(Instant::now());
                self.switch.close("the switch is going down", &mut self.out);
            }
            Token(slot) => {
                let Some(socket) = self.out.sockets.get_mut(slot).and_then(Option::as_mut) else {
                    return;
                };
                if event.is_writable() && socket.blocked.take().is_some() && !socket.is_dirty {
                    socket.is_dirty = true;
                    self.out.dirty.push(socket.id);
                }
                socket.read_closed |= event.is_read_closed();
                let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                if readable && !socket.is_ready {
                    socket.is_ready = true;
                    self.ready.push_back(socket.id);
                }
            }
        }
    }

    fn accept(&mut self) {
        self.accept_again = None;
        loop {
            match self.listener.accept() {
                Ok((stream, peer))
                    if self.out.open >= CONNECTIONS_MAX || self.stopping.is_some() =>
                {
                    warn!(%peer, "refused: this switch has {CONNECTIONS_MAX} connections, which is its most");
                    turn_away(stream);
                }
                Ok((stream, peer)) => match self.admit(stream, peer) {
                    Ok(id) => debug!(%peer, id, "connected"),
                    Err(error) => warn!(%peer, %error, "cannot serve a connection"),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer gave up meanwhile.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                // Out of descriptors, most likely: that may not stop the switch, nor make it spin.
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    self.accept_again = Some(Instant::now() + TICK);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<ConnectionId> {
        socket::prepare(&stream, peer)?;
        let out = &mut self.out;
        let slot = out.free.pop().unwrap_or(out.sockets.len() as u32);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) =
            self.poll
                .registry()
                .register(&mut stream, Token(slot as usize), interest)
        {
            out.free.push(slot);
            return Err(error);
        }
        out.generation = out.generation.wrapping_add(1);
        let id = u64::from(out.generation) << 32 | u64::from(slot);
        let socket = Socket {
            id,
            stream,
            partial: Vec::new(),
            filled: 0,
            is_ready: false,
            is_dirty: false,
            read_closed: false,
            blocked: None,
            closing: None,
            shut: false,
        };
        if slot as usize == out.sockets.len() {
            out.sockets.push(Some(socket));
        } else {
            out.sockets[slot as usize] = Some(socket);
        }
        out.open += 1;
        self.switch.connected(id, self.now());
        self.out.forward(id, PREAMBLE);
        Ok(id)
    }

    /// Reads once from a connection, and has the switch decide on what came.
    fn read(&mut self, id: ConnectionId, now: Now) {
        let held = self.out.queues.is_held(id);
        let Some(socket) = self.out.socket(id) else {
            return;
        };
        socket.is_ready = false;
        if held && socket.closing.is_none() {
            // It is looked at again when it is released.
            return;
        }
        let needed = socket.partial.len() - socket.filled;
        let outcome = socket.stream.read_vectored(&mut [
            IoSliceMut::new(&mut socket.partial[socket.filled..]),
            IoSliceMut::new(&mut self.buffer),
        ]);
        let count = match outcome {
            Ok(0) => return self.ended(id, "the connection was closed"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return self.ended(id, &error.to_string()),
        };
        if count == needed + self.buffer.len() || count == 0 || socket.read_closed {
            socket.is_ready = true;
            self.ready.push_back(id);
        }
        if socket.closing.is_some() {
            return;
        }
        if count < needed {
            socket.filled += count;
            self.switch.heard(id, now);
            return;
        }
        let mut partial = std::mem::take(&mut socket.partial);
        socket.filled = 0;
        self.out.from = Some(id);
        let mut fresh = count - needed;
        let mut at = 0;
        if !partial.is_empty() {
            loop {
                let taken = self.switch.received(id, &partial, now, &mut self.out);
                if taken.bytes == partial.len() {
                    self.out.recycle(partial);
                    break;
                }
                // Only its header was there, or it began in the middle of nothing: what is still missing may have come too.
                partial.drain(..taken.bytes);
                let missing = taken.needed.saturating_sub(partial.len());
                let more = missing.min(fresh);
                partial.extend_from_slice(&self.buffer[at..at + more]);
                at += more;
                fresh -= more;
                if more < missing {
                    self.out.keep(id, &partial, taken.needed);
                    self.out.from = None;
                    return;
                }
            }
        }
        let bytes = &self.buffer[at..at + fresh];
        let taken = self.switch.received(id, bytes, now, &mut self.out);
        if taken.bytes < fresh {
            self.out.keep(id, &bytes[taken.bytes..], taken.needed);
        }
        self.out.from = None;
    }

    /// A connection ended on its own.
    fn ended(&mut self, id: ConnectionId, why: &str) {
        debug!(id, why, "connection ended");
        self.switch.disconnected(id, why, &mut self.out);
        self.out.remove(id);
    }

    fn flush(&mut self) {
        while let Some(id) = self.out.dirty.pop() {
            if let Some(socket) = self.out.socket(id) {
                socket.is_dirty = false;
            }
            if let Err(error) = self.out.write(id) {
                self.ended(id, &error.to_string());
            }
        }
        while let Some(id) = self.out.queues.take_released() {
            if let Some(socket) = self.out.socket(id)
                && !socket.is_ready
            {
                socket.is_ready = true;
                self.ready.push_back(id);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let held: Vec<ConnectionId> = self.out.queues.held().collect();
        for id in held {
            self.switch.held_up(id, now, &mut self.out);
        }
        self.switch.tick(now, &mut self.out);
        self.out.queues.trim();
        if self.accept_again.is_some_and(|at| Instant::now() >= at) {
            self.accept();
        }
        let late: Vec<(ConnectionId, &str)> = self
            .out
            .sockets
            .iter()
            .flatten()
            .filter_map(|socket| {
                let passed =
                    |since: Option<Instant>, limit| since.is_some_and(|at| at.elapsed() > limit);
                if socket.shut && passed(socket.closing, DRAIN) {
                    Some((socket.id, "it did not close in time"))
                } else if passed(socket.blocked, Duration::from_millis(LOST_AFTER_MS)) {
                    Some((socket.id, "it took no bytes for too long"))
                } else {
                    None
                }
            })
            .collect();
        for (id, why) in late {
            self.ended(id, why);
        }
        self.flush();
    }
}

impl Out {
    /// True if little waits for each of many.
    fn gathers(&self) -> bool {
        self.dirty.len() >= GATHER_MIN && self.queues.total() < self.dirty.len() * GATHER_BYTES
    }

    fn socket(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        self.sockets
            .get_mut(id as u32 as usize)
            .and_then(Option::as_mut)
            .filter(|socket| socket.id == id)
    }

    /// Keeps the beginning of something that needs `needed` bytes.
    fn keep(&mut self, id: ConnectionId, bytes: &[u8], needed: usize) {
        let mut partial = if needed >= DIRECT_MIN {
            self.spare.pop().unwrap_or_default()
        } else {
            Vec::new()
        };
        // What an earlier frame left there is written over before anybody looks.
        partial.resize(needed, 0);
        partial[..bytes.len()].copy_from_slice(bytes);
        let filled = bytes.len();
        match self.socket(id) {
            Some(socket) if socket.closing.is_none() => {
                (socket.partial, socket.filled) = (partial, filled);
            }
            _ => self.recycle(partial),
        }
    }

    /// Keeps a buffer for the next partial frame.
    fn recycle(&mut self, partial: Vec<u8>) {
        if partial.len() >= DIRECT_MIN && self.spare.len() < SPARE_MAX {
            self.spare.push(partial);
        }
    }

    fn remove(&mut self, id: ConnectionId) {
        if self.socket(id).is_some() {
            let slot = id as u32;
            self.sockets[slot as usize] = None;
            self.free.push(slot);
            self.open -= 1;
            self.queues.remove(id);
        }
    }

    /// Writes what waits for a connection, as far as its socket takes it.
    fn write(&mut self, id: ConnectionId) -> io::Result<()> {
        let slot = id as u32 as usize;
        let Some(socket) = self
            .sockets
            .get_mut(slot)
            .and_then(Option::as_mut)
            .filter(|socket| socket.id == id)
        else {
            return Ok(());
        };
        if socket.blocked.is_some() {
            return Ok(());
        }
        loop {
            let waiting = self.queues.waiting(id);
            if waiting.is_empty() {
                break;
            }
            match socket.stream.write(waiting) {
                Ok(count) => self.queues.written(id, count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.blocked = Some(Instant::now());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // One that is closing may be gone; that it was told is all that could be done.
                Err(error) => return Err(error),
            }
        }
        if socket.closing.is_some() && !socket.shut {
            // A socket that is closed with unread bytes is reset, and its peer may never see the reason that was sent last.
            // So it is read on, until the peer closes or time is up.
            socket.shut = true;
            // From its last byte on it has time to close; until then it is only held to taking bytes.
            socket.closing = Some(Instant::now());
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn soil(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket(id)
            && !socket.is_dirty
        {
            socket.is_dirty = true;
            self.dirty.push(id);
        }
    }
}

impl Egress for Out {
    fn forward(&mut self, to: ConnectionId, frame: &[u8]) {
        let slot = to as u32 as usize;
        let Some(socket) = self
            .sockets
            .get_mut(slot)
            .and_then(Option::as_mut)
            .filter(|socket| socket.id == to)
        else {
            return;
        };
        let mut rest = frame;
        if frame.len() >= DIRECT_MIN && socket.blocked.is_none() {
            if !self.queues.waiting(to).is_empty() {
                // An error shows again when the queue is written next.
                let _ = self.write(to);
            }
            let socket = self.sockets[slot].as_mut().expect("it was there above");
            while self.queues.waiting(to).is_empty() && socket.blocked.is_none() && !rest.is_empty()
            {
                match socket.stream.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        socket.blocked = Some(Instant::now());
                    }
                    Err(_) => break,
                }
            }
        }
        if !rest.is_empty() {
            self.queues.push(to, rest, self.from);
            self.soil(to);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(socket) = self.socket(id) {
            socket.closing = Some(Instant::now());
            socket.partial = Vec::new();
            socket.filled = 0;
        }
        self.soil(id);
    }

    fn cpu_us(&self) -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
    }
}

/// Refuses a connection that there is no place for. A new socket takes so few bytes without waiting.
fn turn_away(mut stream: TcpStream) {
    let reason = format!(
        "this switch has {CONNECTIONS_MAX} connections, which is its most; try again later"
    );
    let refused = Refused {
        code: Refusal::Full,
        reason,
    };
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    refused.to_frame(true).put(&mut bytes);
    // A peer that is gone already misses nothing.
    let _ = stream.write_all(&bytes);
}
