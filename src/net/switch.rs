//! The switch's decisions: membership, routing, collectives. Pure: bytes and the time in, frames out.
//!
//! The shell ([`crate::net::server`]) owns sockets and clocks; it calls [`Switch::received`] with what a socket gave,
//! [`Switch::disconnected`] when a socket ends and [`Switch::tick`] now and then, and does what is asked of it through
//! [`Egress`]. Jobs see nothing of each other: every frame is looked up through its own connection's job.

mod job;
mod joining;

use crate::net::LOST_AFTER_MS;
use crate::net::codec::HELLO_MAX;
use crate::net::egress::{ConnectionId, Egress};
use crate::net::frame::{BODY_MAX, HEADER_LEN, Header, PREAMBLE, kind};
use crate::net::message::{
    Abort, Control, End, Leave, MessageError, Notice, Refusal, Refused, Span, bare_frame,
    cut_reason,
};
use crate::net::planted::{Bug, planted};
use crate::net::token::{JobId, Secret};
use job::Job;
use rustc_hash::FxHashMap;
use std::collections::HashMap;

/// Time in which a new connection must have said a valid hello, in milliseconds: one clock from accept, not per read.
pub const HELLO_WITHIN_MS: u64 = 2_000;

/// The most jobs at once. Each is small until its ranks join; the bound keeps a runaway driver from filling memory.
pub const JOBS_MAX: usize = 4_096;

/// The first byte of a client that speaks TLS.
const HANDSHAKE: u8 = 0x16;

/// The time, as the shell sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Milliseconds since the switch started; never goes back.
    pub ms: u64,
    /// Milliseconds of them in which the shell had something to do, so that what had come may not have been looked at.
    pub busy_ms: u64,
    /// Seconds since 1970, for tokens' expiry.
    pub unix_s: u64,
}

/// How much longer a hello may take at most while the switch itself is busy: with the handshakes of thousands that come at once, say.
const BUSY_MAX_MS: u64 = 10_000;

impl Now {
    /// Milliseconds from then until `now` in which something that came would have been looked at.
    fn silent_ms(self, now: Now) -> u64 {
        let busy = now.busy_ms.saturating_sub(self.busy_ms).min(BUSY_MAX_MS);
        now.ms.saturating_sub(self.ms).saturating_sub(busy)
    }
}

/// The part of a switch's memory that counters, queues and vectors of all jobs may take: one in so many.
const STATE_SHARE: usize = 8;

/// What became of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// So many of them are done with; the rest must be given again, with what follows.
    pub bytes: usize,
    /// So many are needed from there on, at least, for anything to happen. 0: whole frames are left, to be given again when the
    /// connection is no longer held.
    pub needed: usize,
}

/// Everything the switch knows.
pub struct Switch {
    secret: Secret,
    /// Bytes that may wait in the switch; collectives get a share.
    memory: usize,
    connections: FxHashMap<ConnectionId, Connection>,
    jobs: HashMap<JobId, Job>,
}

struct Connection {
    since: Now,
    heard_ms: u64,
    /// Its preamble has come.
    greeted: bool,
    who: Option<(JobId, Who)>,
}

#[derive(Clone, Copy)]
enum Who {
    Driver,
    Pack(Span),
}

impl Who {
    /// The pack's ranks; the driver has none.
    fn span(self) -> Option<Span> {
        match self {
            Who::Driver => None,
            Who::Pack(span) => Some(span),
        }
    }
}

/// A code, and the reason for people.
type Refuse = (Refusal, String);

impl Switch {
    /// A switch that knows nothing but its secret, and the memory in bytes that may be used for what is under way.
    pub fn new(secret: Secret, memory: usize) -> Switch {
        Switch {
            secret,
            memory,
            connections: FxHashMap::default(),
            jobs: HashMap::new(),
        }
    }

    /// A socket was accepted.
    pub fn connected(&mut self, id: ConnectionId, now: Now) {
        self.connections.insert(
            id,
            Connection {
                since: now,
                heard_ms: now.ms,
                greeted: false,
                who: None,
            },
        );
    }

    /// Bytes arrived that are no whole frame yet: the connection lives.
    pub fn heard(&mut self, id: ConnectionId, now: Now) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard_ms = now.ms;
        }
    }

    /// True if a connection has said a valid hello.
    pub fn has_proved_itself(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| connection.who.is_some())
    }

    /// The switch itself was stopped: what came meanwhile has not been read yet, so nobody was silent.
    pub fn stood_still(&mut self, now: Now) {
        for connection in self.connections.values_mut() {
            connection.heard_ms = now.ms;
            if connection.who.is_none() {
                connection.since = now;
            }
        }
    }

    /// There is no place for a connection beyond `most`.
    pub fn turn_away(&mut self, id: ConnectionId, most: usize, out: &mut impl Egress) {
        let reason =
            format!("this switch has {most} connections, which is its most; try again later");
        self.refuse(id, (Refusal::Full, reason), out);
    }

    /// The connection's frames wait for room at their destination, so its silence is not its own.
    pub fn held_up(&mut self, id: ConnectionId, now: Now, out: &mut impl Egress) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard_ms = now.ms;
            // Its heartbeats wait with its other frames, but it must know that the switch lives.
            out.send(id, &bare_frame(kind::HEARTBEAT, true));
        }
    }

    /// Bytes arrived: as many whole frames as there are, and perhaps a part of one more.
    pub fn received(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        now: Now,
        out: &mut impl Egress,
    ) -> Taken {
        let mut at = 0;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard_ms = now.ms;
            if !connection.greeted {
                let length = bytes.len().min(PREAMBLE.len());
                if bytes[..length] != PREAMBLE[..length] {
                    let what = match bytes[0] {
                        // Who so begins does not understand it, but whoever looks on may.
                        HANDSHAKE => "this switch speaks plain TCP, and the client TLS",
                        _ => "these are not the first bytes of an lswitch client",
                    };
                    self.malformed(id, what, out);
                } else if length < PREAMBLE.len() {
                    return Taken {
                        bytes: 0,
                        needed: PREAMBLE.len(),
                    };
                } else {
                    connection.greeted = true;
                    at = length;
                }
            }
        }
        loop {
            let Some(connection) = self.connections.get(&id) else {
                // What follows the end of a connection is dropped.
                return Taken {
                    bytes: bytes.len(),
                    needed: 0,
                };
            };
            let limit = match &connection.who {
                None => HELLO_MAX,
                Some((job, who)) => {
                    if let Some(job) = self.jobs.get_mut(job) {
                        at += job.pass(who.span(), &bytes[at..], out);
                    }
                    BODY_MAX
                }
            };
            let header = match Header::peek(&bytes[at..], limit) {
                Ok(Some(header)) if bytes.len() - at >= header.wire_len() => header,
                Ok(header) => {
                    return Taken {
                        bytes: at,
                        needed: header.map_or(HEADER_LEN, |header| header.wire_len()),
                    };
                }
                Err(error) => {
                    self.malformed(id, &error.to_string(), out);
                    continue;
                }
            };
            let frame = &bytes[at..at + header.wire_len()];
            at += header.wire_len();
            if kind::is_known(header.kind)
                && let Err(refused) = self.frame(id, header, frame, now, out)
            {
                self.refuse(id, refused, out);
            }
            // Each request may have a long answer.
            if out.is_held(id) && at < bytes.len() && self.connections.contains_key(&id) {
                return Taken {
                    bytes: at,
                    needed: 0,
                };
            }
        }
    }

    /// A frame that does not merely pass through, or should not.
    fn frame(
        &mut self,
        id: ConnectionId,
        header: Header,
        frame: &[u8],
        now: Now,
        out: &mut impl Egress,
    ) -> Result<(), Refuse> {
        let body = &frame[HEADER_LEN..];
        match self
            .connections
            .get(&id)
            .and_then(|connection| connection.who)
        {
            None => self.hello(id, header, body, now, out),
            Some((job, Who::Driver)) => self.driver_sent(id, job, header, body, out),
            Some((job, Who::Pack(span))) => self.pack_sent(id, job, span, header, body, now, out),
        }
    }

    /// The bytes on a connection break the protocol.
    pub fn malformed(&mut self, id: ConnectionId, what: &str, out: &mut impl Egress) {
        self.refuse(id, (Refusal::Protocol, what.to_string()), out);
    }

    /// A socket ended, and `why`.
    pub fn disconnected(&mut self, id: ConnectionId, why: &str, out: &mut impl Egress) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        match connection.who {
            None => {}
            Some((job, Who::Driver)) => {
                self.end(job, &format!("the driver of the job was lost: {why}"), out)
            }
            Some((job, Who::Pack(span))) => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.state.forget(id);
                }
                self.lost(job, span, why, out);
            }
        }
    }

    /// Time passes: silent connections are let go.
    pub fn tick(&mut self, now: Now, out: &mut impl Egress) {
        let silent: Vec<(ConnectionId, Refuse)> = self
            .connections
            .iter()
            .filter_map(|(&id, connection)| match connection.who {
                None if connection.since.silent_ms(now) > HELLO_WITHIN_MS => Some((
                    id,
                    (
                        Refusal::Silent,
                        format!("no valid hello came within {} s", HELLO_WITHIN_MS / 1000),
                    ),
                )),
                Some(_) if now.ms.saturating_sub(connection.heard_ms) > LOST_AFTER_MS => Some((
                    id,
                    (
                        Refusal::Silent,
                        format!("nothing was heard for {} s", LOST_AFTER_MS / 1000),
                    ),
                )),
                _ => None,
            })
            .collect();
        for (id, refused) in silent {
            self.refuse(id, refused, out);
        }
        self.wake(now, out);
    }

    /// Answers requests of the shared state that have waited long enough.
    pub fn wake(&mut self, now: Now, out: &mut impl Egress) {
        for job in self.jobs.values_mut() {
            if job.state.next_deadline_ms().is_some_and(|at| at <= now.ms) {
                let mut replies = Vec::new();
                job.state.tick(now.ms, &mut replies);
                job.reply(replies, out);
            }
        }
    }

    /// When [`Switch::wake`] has something to do, by the clock of [`Now::ms`].
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.jobs
            .values()
            .filter_map(|job| job.state.next_deadline_ms())
            .min()
    }

    /// The switch goes down: every job ends with the reason.
    pub fn close(&mut self, reason: &str, out: &mut impl Egress) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.end(job, reason, out));
        let rest: Vec<ConnectionId> = self.connections.keys().copied().collect();
        rest.into_iter()
            .for_each(|id| self.refuse(id, (Refusal::Closing, reason.to_string()), out));
    }

    /// How many jobs and connections there are.
    pub fn population(&self) -> (usize, usize) {
        (self.jobs.len(), self.connections.len())
    }

    /// Answers with the reason and closes; to the rest of the job the client is lost.
    fn refuse(&mut self, id: ConnectionId, (code, reason): Refuse, out: &mut impl Egress) {
        let refused = Refused {
            code,
            reason: cut_reason(reason.clone()),
        };
        out.send(id, &refused.to_frame(true));
        out.close(id);
        self.disconnected(id, &reason, out);
    }

    fn driver_sent(
        &mut self,
        id: ConnectionId,
        job_id: JobId,
        header: Header,
        body: &[u8],
        out: &mut impl Egress,
    ) -> Result<(), Refuse> {
        let job = self.jobs.get_mut(&job_id).ok_or_else(ended)?;
        match header.kind {
            kind::HEARTBEAT => {
                out.send(id, &job.traffic(out.cpu_us()));
                Ok(())
            }
            kind::DATA | kind::ANNOUNCE | kind::GRANT | kind::CREDIT => {
                job.route(None, header, body, out)
            }
            kind::ABORT => {
                let Abort { reason } = Abort::from_body(body).map_err(protocol)?;
                self.end(job_id, &reason, out);
                Ok(())
            }
            kind::LEAVE => {
                self.connections.remove(&id);
                out.send(id, &job.traffic(out.cpu_us()));
                out.send(id, &bare_frame(kind::LEFT, true));
                out.close(id);
                self.end(job_id, "its driver left", out);
                Ok(())
            }
            other => Err(unexpected(other, "a driver")),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a frame, where it comes from and where answers go"
    )]
    fn pack_sent(
        &mut self,
        id: ConnectionId,
        job_id: JobId,
        span: Span,
        header: Header,
        body: &[u8],
        now: Now,
        out: &mut impl Egress,
    ) -> Result<(), Refuse> {
        let job = self.jobs.get_mut(&job_id).ok_or_else(ended)?;
        match header.kind {
            kind::HEARTBEAT => {
                out.send(id, &bare_frame(kind::HEARTBEAT, true));
                Ok(())
            }
            kind::DATA | kind::ANNOUNCE | kind::GRANT | kind::CREDIT => {
                job.route(Some(span), header, body, out)
            }
            kind::CONTRIBUTE => {
                job.check(Some(span), header)?;
                match job.contribute(span, header, body, out)? {
                    None => Ok(()),
                    // Members that disagree about a collective are a fault of the program: all of it ends, with the reason.
                    Some(disagreement) => {
                        self.end(job_id, &disagreement, out);
                        Ok(())
                    }
                }
            }
            kind::STATE => {
                job.check(Some(span), header)?;
                let held: usize = self.jobs.values().map(|job| job.state.bytes()).sum();
                let job = self.jobs.get_mut(&job_id).ok_or_else(ended)?;
                let free = (self.memory / STATE_SHARE).saturating_sub(held);
                let bytes_max = job.state.bytes() + free;
                job.ask(id, header, body, bytes_max, now.ms, out);
                Ok(())
            }
            kind::LEAVE => {
                let Leave { failure } = Leave::from_body(body).map_err(protocol)?;
                let failure = failure.map(cut_reason);
                let deserts = job.leave(span);
                job.state.forget(id);
                job.grant_for(span, out);
                job.failed |= job.begun && failure.is_some();
                let deserts = deserts.filter(|_| !job.failed);
                out.send(job.driver, &Notice::Left { span, failure }.to_frame(true));
                self.connections.remove(&id);
                out.send(id, &bare_frame(kind::LEFT, true));
                out.close(id);
                if let Some(reason) = deserts {
                    self.end(job_id, &reason, out);
                }
                Ok(())
            }
            other => Err(unexpected(other, "a pack")),
        }
    }

    fn lost(&mut self, job: JobId, span: Span, why: &str, out: &mut impl Egress) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        if planted(Bug::LostPackKept) {
            return;
        }
        job.remove(span);
        job.grant_for(span, out);
        job.failed |= job.begun;
        let reason = cut_reason(why.to_string());
        out.send(job.driver, &Notice::Lost { span, reason }.to_frame(true));
    }

    /// Ends a job: every member is told why and let go.
    fn end(&mut self, id: JobId, reason: &str, out: &mut impl Egress) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        let end = End {
            reason: cut_reason(reason.to_string()),
        }
        .to_frame(true);
        let members = job
            .packs
            .values()
            .map(|pack| pack.connection)
            .chain([job.driver]);
        for member in members {
            if self.connections.remove(&member).is_some() {
                out.send(member, &end);
                out.close(member);
            }
        }
    }
}

fn protocol(error: MessageError) -> Refuse {
    (Refusal::Protocol, error.to_string())
}

fn ended() -> Refuse {
    (Refusal::UnknownJob, "the job has ended".into())
}

fn unexpected(kind: u8, whom: &str) -> Refuse {
    (
        Refusal::Protocol,
        format!("a frame of kind {kind:#04x} is none that {whom} sends"),
    )
}
