//! The shell around [`Switch`]: one thread that accepts, reads, writes and keeps the time. Decides nothing.
//!
//! One thread, since that is what is fastest: a switch spends its time in system calls, and what many senders gave in one
//! turn of the loop goes to each receiver in one write, without a lock or a wake-up between. Several processors are
//! used by several switches. The caller owns the listener and the stop signal, so that `serve`, `invoke` and tests
//! run the same code.

mod gather;
mod line;
mod partials;
mod sockets;
mod spin;

use crate::net::egress::{ConnectionId, Egress};
use crate::net::frame::{FRAME_MAX, HEADER_LEN, PREAMBLE};
use crate::net::queues::Queues;
use crate::net::socket;
use crate::net::stream::Came;
use crate::net::switch::{Now, Switch};
use crate::net::tls::{Identity, Room};
use crate::net::token::Secret;
use gather::Gather;
use line::{Line, LineError};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use partials::Partials;
use sockets::{DRAIN, Sockets, Turn};
use spin::Spin;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
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

/// Between two looks at the clock for those who are silent.
const TICK: Duration = Duration::from_millis(250);

/// Bytes that one read asks for. Several chunks; the buffer is shared by all connections.
const READ_LEN: usize = 4 * FRAME_MAX;

/// Turns of the loop are not longer than this many connections, so that what was read is soon written.
const TURN: usize = 64;

/// Of the memory, one part in so many is for what waits to be sent, and one for frames that have come in part. The rest is
/// for collectives and the shared state.
const QUEUES_SHARE: usize = 2;
const PARTIALS_SHARE: usize = 8;

/// Connections over their most that may be told so at once.
const TURNED_AWAY_MAX: usize = 256;

/// Between two ticks, what is taken for a stop of the process. Work takes a fraction of it.
const STOPPED: Duration = Duration::from_secs(3);

const GOING_DOWN: &str = "the switch is going down";

const NEEDS_TLS: &str = "this switch speaks TLS, and the client does not: give its whole address, as \"lswitch serve\" prints it, with # \
    and the SHA-256 of its certificate";

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
    run_as(None, listener, secret, limits, shutdown).await;
}

/// The same for a switch that has a certificate, and speaks TLS with all who connect.
pub async fn run_as(
    identity: Option<Identity>,
    listener: tokio::net::TcpListener,
    secret: Secret,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let started = listener.into_std().and_then(|listener| {
        let listener = TcpListener::from_std(listener);
        Server::new(identity, listener, secret, limits)
    });
    let (mut server, waker) = match started {
        Ok(started) => started,
        Err(error) => return error!("the switch cannot poll its sockets: {error}"),
    };
    let (ended, mut end) = oneshot::channel::<()>();
    let spawned = thread::Builder::new().name("switch".into()).spawn(move || {
        server.run();
        // The receiver waits, unless it was dropped with the future.
        let _ = ended.send(());
    });
    if let Err(error) = spawned {
        return error!("cannot start the switch's thread: {error}");
    }
    // Dropped also when this future is: then the thread ends too.
    let stop = Stop(waker);
    tokio::select! {
        () = shutdown => {}
        _ = &mut end => return,
    }
    drop(stop);
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
    identity: Option<Identity>,
    switch: Switch,
    started: Instant,
    out: Sockets,
    partials: Partials,
    /// Connections that may have something to read, in turn.
    ready: VecDeque<ConnectionId>,
    gather: Gather,
    spin: Spin,
    buffer: Vec<u8>,
    /// Room for what is not opened yet; empty where there is no TLS.
    sealed: Vec<u8>,
    /// Accepting failed, for want of descriptors most likely, and is tried again then.
    accept_again: Option<Instant>,
    /// How long it had something to do, in all.
    busy: Duration,
    stopping: Option<Instant>,
    ticked: Instant,
    /// Kept until the thread ends: when who wakes it drops the last one at once, the system forgets that it was woken.
    _waker: Arc<Waker>,
}

impl Server {
    fn new(
        identity: Option<Identity>,
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
            out: Sockets::new(Queues::new(memory / QUEUES_SHARE)),
            partials: Partials::new(memory / PARTIALS_SHARE),
            ready: VecDeque::new(),
            gather: Gather::new(Instant::now()),
            spin: Spin::new(Instant::now()),
            buffer: vec![0; READ_LEN],
            sealed: vec![0; if identity.is_some() { READ_LEN } else { 0 }],
            identity,
            accept_again: None,
            busy: Duration::ZERO,
            stopping: None,
            ticked: Instant::now(),
            _waker: waker.clone(),
        };
        Ok((server, waker))
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            let mut timeout = TICK.saturating_sub(self.ticked.elapsed());
            if let Some(at) = self.switch.next_wake_ms() {
                timeout = timeout.min(Duration::from_millis(at.saturating_sub(self.now().ms)));
            }
            let spins = self.spin.goes_on(Instant::now());
            if !self.ready.is_empty() || self.gather.waits() || spins {
                timeout = Duration::ZERO;
            }
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return error!("the switch cannot wait for its sockets: {error}"),
            }
            let woken = Instant::now();
            for event in &events {
                self.happened(event);
            }
            if spins && self.ready.is_empty() {
                thread::yield_now();
            }
            let now = self.now();
            let turn = self.ready.len().min(TURN);
            for _ in 0..turn {
                if let Some(id) = self.ready.pop_front() {
                    self.read(id, now);
                }
            }
            let seen = self.out.take_seen();
            if seen.passed {
                self.spin.passed(turn, seen.answered, Instant::now());
            }
            self.switch.wake(now, &mut self.out);
            let wanted = self.out.gathers();
            if self.gather.goes_on(wanted, seen.awaited, Instant::now()) {
                self.busy += woken.elapsed();
                thread::yield_now();
                continue;
            }
            self.flush();
            self.busy += woken.elapsed();
            if self.ticked.elapsed() >= TICK {
                self.tick();
            }
            if let Some(since) = self.stopping {
                if self.out.open() == 0 {
                    return;
                }
                if since.elapsed() > DRAIN {
                    let seconds = DRAIN.as_secs();
                    return info!(
                        "{} connections did not drain in {seconds} s",
                        self.out.open()
                    );
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
            busy_ms: self.busy.as_millis() as u64,
            unix_s,
        }
    }

    fn happened(&mut self, event: &Event) {
        match event.token() {
            LISTENER => self.accept(),
            WAKER => {
                self.stopping = Some(Instant::now());
                self.switch.close(GOING_DOWN, &mut self.out);
            }
            Token(slot) => {
                let Some(id) = self.out.at(slot) else { return };
                if event.is_writable() {
                    self.out.writable(id);
                }
                if let Some(socket) = self.out.socket(id) {
                    socket.read_closed |= event.is_read_closed();
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.is_ready(id);
                }
            }
        }
    }

    fn accept(&mut self) {
        self.accept_again = None;
        loop {
            match self.listener.accept() {
                Ok((_, peer)) if self.out.open() >= CONNECTIONS_MAX + TURNED_AWAY_MAX => {
                    warn!(%peer, "dropped: too many are being refused already");
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

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> io::Result<ConnectionId> {
        socket::prepare(&stream, peer)?;
        let identity = self.identity.as_ref();
        let session = identity.map(Identity::session).transpose();
        let line = Line::new(stream, session.map_err(io::Error::other)?);
        let (poll, interest) = (&self.poll, Interest::READABLE | Interest::WRITABLE);
        let id = self.out.insert(line, |stream, slot| {
            poll.registry().register(stream, Token(slot), interest)
        })?;
        self.switch.connected(id, self.now());
        self.out.forward(id, PREAMBLE);
        if self.out.open() > CONNECTIONS_MAX {
            warn!(%peer, "refused: this switch has {CONNECTIONS_MAX} connections, which is its most");
            self.switch.turn_away(id, CONNECTIONS_MAX, &mut self.out);
        } else if self.stopping.is_some() {
            self.switch.close(GOING_DOWN, &mut self.out);
        }
        Ok(id)
    }

    /// Reads once from a connection, and has the switch decide on what came.
    fn read(&mut self, id: ConnectionId, now: Now) {
        let held = self.out.holds(id);
        let Some(socket) = self.out.socket(id) else {
            return;
        };
        socket.is_ready = false;
        let closing = socket.closing.is_some();
        if held && !closing {
            // It is looked at again when it is released.
            return;
        }
        let called = socket.turn == Turn::Called;
        match socket.turn {
            Turn::Waits => return,
            Turn::Called => self.partials.answered(),
            Turn::Free => {}
        }
        socket.turn = Turn::Free;
        let is_whole = !socket.partial.is_empty() && socket.filled == socket.partial.len();
        // A part of a header says nothing of what is still to come.
        let begun = is_whole || socket.partial.len() > HEADER_LEN;
        // Hellos are short, and do not wait.
        let scarce =
            self.partials.are_many() && !called && !closing && self.switch.has_proved_itself(id);
        if scarce && !begun {
            socket.turn = Turn::Waits;
            return self.partials.wait(id);
        }
        // When partial frames take too much memory, no new one is begun.
        let room = if scarce {
            &mut []
        } else {
            &mut self.buffer[..]
        };
        let needed = socket.partial.len() - socket.filled;
        let handshaking = socket.line.is_handshaking();
        let outcome = if is_whole {
            // It was held while whole frames were left.
            Ok(Came::Bytes {
                count: 0,
                more: true,
            })
        } else if closing && !handshaking {
            socket.line.drain(&mut self.buffer).map_err(LineError::Io)
        } else {
            let mut room = Room::new(&mut socket.partial[socket.filled..], room);
            let is_proved = || self.switch.has_proved_itself(id);
            socket.line.read(&mut room, &mut self.sealed, is_proved)
        };
        let (count, more) = match outcome {
            Ok(Came::Bytes { count, more }) => (count, more),
            Ok(Came::Nothing) => return,
            Ok(Came::End) => return self.ended(id, "the connection was closed"),
            Err(LineError::Io(error)) => return self.ended(id, &error.to_string()),
            Err(LineError::Plain) => {
                socket.line.unseal();
                return self.switch.malformed(id, NEEDS_TLS, &mut self.out);
            }
        };
        if more || socket.read_closed {
            socket.is_ready = true;
            self.ready.push_back(id);
        }
        if handshaking {
            self.out.shook(id);
        }
        let Some(socket) = self.out.socket(id) else {
            return;
        };
        if closing {
            return;
        }
        if count < needed {
            socket.filled += count;
            self.switch.heard(id, now);
            return;
        }
        let partial = std::mem::take(&mut socket.partial);
        socket.filled = 0;
        self.partials.end(&partial);
        self.out.spoke(id);
        self.out.begin_from(id);
        self.decide(id, partial, count - needed, now);
        self.out.end_from();
    }

    /// Has the switch decide on a whole frame, or nothing, and on as many bytes that lie in the buffer behind it.
    fn decide(&mut self, id: ConnectionId, mut partial: Vec<u8>, mut fresh: usize, now: Now) {
        let mut at = 0;
        while !partial.is_empty() {
            let taken = self.switch.received(id, &partial, now, &mut self.out);
            if taken.bytes == partial.len() {
                self.partials.recycle(partial);
                break;
            }
            // Only its header was there, or it began in the middle of nothing: what is still missing may have come too.
            partial.drain(..taken.bytes);
            let missing = match taken.needed {
                0 => fresh,
                needed => needed.saturating_sub(partial.len()),
            };
            let more = missing.min(fresh);
            partial.extend_from_slice(&self.buffer[at..at + more]);
            at += more;
            fresh -= more;
            if more < missing || taken.needed == 0 {
                return self.keep(id, &partial, taken.needed);
            }
        }
        let bytes = at..at + fresh;
        let taken = self
            .switch
            .received(id, &self.buffer[bytes.clone()], now, &mut self.out);
        if taken.bytes < fresh {
            let rest = self.buffer[bytes][taken.bytes..].to_vec();
            self.keep(id, &rest, taken.needed);
        }
    }

    /// Keeps what is left, until there are `needed` bytes of it; 0: until the connection is not held any more.
    fn keep(&mut self, id: ConnectionId, bytes: &[u8], needed: usize) {
        if let Some(socket) = self.out.socket(id)
            && socket.closing.is_none()
        {
            socket.partial = self.partials.begin(bytes, needed.max(bytes.len()));
            socket.filled = bytes.len();
            socket.partial_since = Instant::now();
        }
    }

    /// A connection ended on its own.
    fn ended(&mut self, id: ConnectionId, why: &str) {
        debug!(id, why, "connection ended");
        self.switch.disconnected(id, why, &mut self.out);
        self.drop_partial(id);
        match self.out.socket(id).map(|socket| socket.turn) {
            Some(Turn::Waits) => self.partials.forget(id),
            Some(Turn::Called) => self.partials.answered(),
            _ => {}
        }
        self.out.remove(id);
    }

    fn drop_partial(&mut self, id: ConnectionId) {
        if let Some(socket) = self.out.socket(id) {
            let partial = std::mem::take(&mut socket.partial);
            socket.filled = 0;
            self.partials.end(&partial);
            self.partials.recycle(partial);
        }
    }

    fn flush(&mut self) {
        while let Some(id) = self.out.take_dirty() {
            if let Err(error) = self.out.write(id) {
                self.ended(id, &error.to_string());
            }
        }
        while let Some(id) = self.out.take_closing() {
            self.drop_partial(id);
            if let Some(socket) = self.out.socket(id)
                && socket.turn == Turn::Waits
            {
                socket.turn = Turn::Free;
                self.partials.forget(id);
            }
            // It is read to its end.
            self.is_ready(id);
        }
        while let Some(id) = self.out.take_released() {
            self.is_ready(id);
        }
        while let Some(id) = self.partials.call() {
            if let Some(socket) = self.out.socket(id) {
                socket.turn = Turn::Called;
            }
            self.is_ready(id);
        }
    }

    /// A connection may have something to read.
    fn is_ready(&mut self, id: ConnectionId) {
        if let Some(socket) = self.out.socket(id)
            && !socket.is_ready
        {
            socket.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.ticked.elapsed() > STOPPED {
            // This process was stopped, or its machine was: what came meanwhile has not been read yet, and nobody was silent.
            warn!(
                "the switch stood still for {} s",
                self.ticked.elapsed().as_secs()
            );
            self.switch.stood_still(now);
            self.out.stood_still();
        }
        self.ticked = Instant::now();
        let held: Vec<ConnectionId> = self.out.held().chain(self.partials.waiting()).collect();
        for id in held {
            self.switch.held_up(id, now, &mut self.out);
            if let Some(socket) = self.out.socket(id) {
                socket.partial_since = Instant::now();
            }
        }
        self.switch.tick(now, &mut self.out);
        self.out.trim();
        if self.accept_again.is_some_and(|at| Instant::now() >= at) {
            self.accept();
        }
        let scarce = self.partials.are_many();
        let late: Vec<(ConnectionId, &str)> = self
            .out
            .iter()
            .filter_map(|socket| socket.is_late(scarce).map(|why| (socket.id, why)))
            .collect();
        for (id, why) in late {
            self.ended(id, why);
        }
        self.flush();
    }
}
