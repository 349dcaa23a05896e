//! The switch's decisions: membership, routing, collectives. Pure: frames and the time in, actions out.
//!
//! The shell ([`crate::net::server`]) owns sockets and clocks; it calls [`Switch::received`] for each frame,
//! [`Switch::disconnected`] when a socket ends and [`Switch::tick`] once a second, and does what the actions say. Jobs
//! see nothing of each other: every frame is looked up through its own connection's job.

mod job;

use crate::net::collective::CollectiveError;
use crate::net::frame::{DRIVER, Frame, Header, PROTOCOL, RANKS_MAX, SWITCH, kind};
use crate::net::message::{
    Abort, Control, End, Hello, Leave, MessageError, Notice, Refusal, Refused, Role, Span, Start,
    Welcome, bare_frame, cut_reason,
};
use crate::net::token::{JobId, Secret};
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use job::{Job, Pack};
use std::collections::HashMap;

/// Time in which a new connection must have said a valid hello, in milliseconds: one clock from accept, not per read.
pub const HELLO_WITHIN_MS: u64 = 2_000;

/// The most jobs at once. Each is small until its ranks join; the bound keeps a runaway driver from filling memory.
pub const JOBS_MAX: usize = 4_096;

/// The number the shell gives a connection.
pub type ConnectionId = u64;

/// The time, as the shell sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Milliseconds since the switch started; never goes back.
    pub ms: u64,
    /// Seconds since 1970, for tokens' expiry.
    pub unix_s: u64,
}

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a frame.
    Send(ConnectionId, Frame),
    /// Send what is queued, then close the connection. It is forgotten here already.
    Close(ConnectionId),
}

/// Everything the switch knows.
pub struct Switch {
    secret: Secret,
    connections: HashMap<ConnectionId, Connection>,
    jobs: HashMap<JobId, Job>,
}

struct Connection {
    since_ms: u64,
    heard_ms: u64,
    who: Option<(JobId, Who)>,
}

#[derive(Clone, Copy)]
enum Who {
    Driver,
    Pack(Span),
}

/// A code, and the reason for people.
type Refuse = (Refusal, String);

impl Switch {
    /// A switch that knows nothing but its secret.
    pub fn new(secret: Secret) -> Switch {
        Switch {
            secret,
            connections: HashMap::new(),
            jobs: HashMap::new(),
        }
    }

    /// A socket was accepted.
    pub fn connected(&mut self, id: ConnectionId, now: Now) {
        self.connections.insert(
            id,
            Connection {
                since_ms: now.ms,
                heard_ms: now.ms,
                who: None,
            },
        );
    }

    /// True once the connection has proved who it is: only then may it send more than a hello.
    pub fn is_known(&self, id: ConnectionId) -> bool {
        self.connections
            .get(&id)
            .is_some_and(|connection| connection.who.is_some())
    }

    /// Bytes arrived that are no whole frame yet: the connection lives.
    pub fn heard(&mut self, id: ConnectionId, now: Now) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.heard_ms = now.ms;
        }
    }

    /// The connection's frames wait for room at their destination, so its silence is not its own.
    pub fn held_up(&mut self, id: ConnectionId, now: Now, actions: &mut Vec<Action>) {
        if self.connections.contains_key(&id) {
            self.heard(id, now);
            // Its heartbeats wait with its other frames, but it must know that the switch lives.
            actions.push(Action::Send(id, bare_frame(kind::HEARTBEAT, true)));
        }
    }

    /// A frame arrived.
    pub fn received(
        &mut self,
        id: ConnectionId,
        frame: Frame,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.heard_ms = now.ms;
        let outcome = match connection.who {
            None => self.hello(id, &frame, now, actions),
            Some((job, Who::Driver)) => self.driver_sent(id, job, frame, actions),
            Some((job, Who::Pack(span))) => self.pack_sent(id, job, span, frame, actions),
        };
        if let Err(refused) = outcome {
            self.refuse(id, refused, actions);
        }
    }

    /// The bytes on a connection break the protocol.
    pub fn malformed(&mut self, id: ConnectionId, what: &str, actions: &mut Vec<Action>) {
        self.refuse(id, (Refusal::Protocol, what.to_string()), actions);
    }

    /// A socket ended, and `why`.
    pub fn disconnected(&mut self, id: ConnectionId, why: &str, actions: &mut Vec<Action>) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        match connection.who {
            None => {}
            Some((job, Who::Driver)) => self.end(
                job,
                &format!("the driver of the job was lost: {why}"),
                actions,
            ),
            Some((job, Who::Pack(span))) => self.lost(job, span, why, actions),
        }
    }

    /// Time passes: silent connections are let go.
    pub fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let silent: Vec<(ConnectionId, Refuse)> = self
            .connections
            .iter()
            .filter_map(|(&id, connection)| match connection.who {
                None if now.ms.saturating_sub(connection.since_ms) > HELLO_WITHIN_MS => Some((
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
            self.refuse(id, refused, actions);
        }
    }

    /// The switch goes down: every job ends with the reason.
    pub fn close(&mut self, reason: &str, actions: &mut Vec<Action>) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter()
            .for_each(|job| self.end(job, reason, actions));
        let rest: Vec<ConnectionId> = self.connections.keys().copied().collect();
        rest.into_iter()
            .for_each(|id| self.refuse(id, (Refusal::Closing, reason.to_string()), actions));
    }

    /// How many jobs and connections there are.
    pub fn population(&self) -> (usize, usize) {
        (self.jobs.len(), self.connections.len())
    }

    /// Answers with the reason and closes; to the rest of the job the client is lost.
    fn refuse(&mut self, id: ConnectionId, (code, reason): Refuse, actions: &mut Vec<Action>) {
        actions.push(Action::Send(
            id,
            Refused {
                code,
                reason: cut_reason(reason.clone()),
            }
            .to_frame(true),
        ));
        actions.push(Action::Close(id));
        self.disconnected(id, &reason, actions);
    }

    fn hello(
        &mut self,
        id: ConnectionId,
        frame: &Frame,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refuse> {
        if frame.header.kind != kind::HELLO {
            return Err((
                Refusal::Protocol,
                format!(
                    "the first frame is of kind {:#04x} and not a hello",
                    frame.header.kind
                ),
            ));
        }
        // Before the rest, which another version may lay out differently.
        if let Some((lowest, highest)) = Hello::protocols_in(&frame.body)
            && !(lowest..=highest).contains(&PROTOCOL)
        {
            return Err((
                Refusal::Version,
                format!(
                    "the client speaks protocol {lowest} to {highest}, this switch speaks {PROTOCOL} (lswitch {}); \
                     run the same release on both sides, with \"lswitch function update\" for a function",
                    crate::RELEASE
                ),
            ));
        }
        let hello = Hello::from_body(&frame.body).map_err(protocol)?;
        if !self
            .secret
            .job_key(hello.job)
            .verify(&hello.token, hello.bearer(), now.unix_s)
        {
            return Err((
                Refusal::Token,
                "the token is wrong or has expired; do driver and switch have the same secret, and their clocks the same time?".into(),
            ));
        }
        let who = match hello.role {
            Role::Driver { size } => self.create(id, &hello, size)?,
            Role::Pack {
                span,
                incarnation,
                epoch,
            } => self.join(id, &hello, span, incarnation, epoch, actions)?,
        };
        self.connections
            .get_mut(&id)
            .expect("received() looked it up")
            .who = Some((hello.job, who));
        let welcome = Welcome {
            protocol: PROTOCOL,
            features: 0,
            heartbeat_ms: HEARTBEAT_MS as u32,
            lost_after_ms: LOST_AFTER_MS as u32,
        };
        actions.push(Action::Send(id, welcome.to_frame(true)));
        if let Who::Pack(_) = who {
            self.joined(hello.job, actions);
        }
        Ok(())
    }

    fn create(&mut self, id: ConnectionId, hello: &Hello, size: u32) -> Result<Who, Refuse> {
        if self.jobs.contains_key(&hello.job) {
            return Err((
                Refusal::JobExists,
                format!("job {} exists already", hello.job),
            ));
        }
        if size == 0 || size > RANKS_MAX {
            return Err((
                Refusal::Ranks,
                format!("a job has 1 to {RANKS_MAX} ranks, not {size}"),
            ));
        }
        if self.jobs.len() >= JOBS_MAX {
            return Err((
                Refusal::Full,
                format!("this switch has {JOBS_MAX} jobs, which is its most; try again later"),
            ));
        }
        let job = Job::new(hello.release.clone(), size, id);
        self.jobs.insert(hello.job, job);
        Ok(Who::Driver)
    }

    fn join(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        span: Span,
        incarnation: u32,
        epoch: u32,
        actions: &mut Vec<Action>,
    ) -> Result<Who, Refuse> {
        let job = self.jobs.get_mut(&hello.job).ok_or_else(|| {
            (
                Refusal::UnknownJob,
                format!(
                    "job {} is not known to this switch: it has ended or was never created",
                    hello.job
                ),
            )
        })?;
        if hello.release != job.release {
            return Err((
                Refusal::Version,
                format!(
                    "the worker is lswitch {} and the job was started by lswitch {}; run \"lswitch function update\" so that both are the same",
                    hello.release, job.release
                ),
            ));
        }
        if epoch != job.epoch {
            return Err((
                Refusal::Epoch,
                format!(
                    "the worker is of epoch {epoch} and the job is in epoch {}",
                    job.epoch
                ),
            ));
        }
        if span.ranks == 0 || span.end() > job.size {
            return Err((
                Refusal::Ranks,
                format!("{span} is not within the job's {} ranks", job.size),
            ));
        }
        let overlapping = job
            .packs
            .values()
            .find(|pack| pack.span.first_rank < span.end() && span.first_rank < pack.span.end());
        let replaced = match overlapping {
            None => None,
            Some(pack) if pack.span != span => {
                return Err((
                    Refusal::Ranks,
                    format!(
                        "{span} overlaps with {}, which joined as one pack",
                        pack.span
                    ),
                ));
            }
            Some(pack) if pack.incarnation >= incarnation => {
                return Err((
                    Refusal::Incarnation,
                    format!(
                        "{span} joined already with incarnation {}; this one, {incarnation}, is a duplicate",
                        pack.incarnation
                    ),
                ));
            }
            Some(pack) => Some(pack.connection),
        };
        if job.begun {
            return Err((
                Refusal::Begun,
                "the job has begun; a fixed job takes nobody in after its start".into(),
            ));
        }
        if let Some(old) = replaced {
            job.remove(span);
            self.connections.remove(&old);
            let reason =
                format!("a later start of {span}, incarnation {incarnation}, took its place");
            actions.push(Action::Send(
                old,
                Refused {
                    code: Refusal::Incarnation,
                    reason,
                }
                .to_frame(true),
            ));
            actions.push(Action::Close(old));
        }
        job.add(Pack {
            span,
            incarnation,
            connection: id,
        });
        let notice = Notice::Joined { span, incarnation };
        actions.push(Action::Send(job.driver, notice.to_frame(true)));
        Ok(Who::Pack(span))
    }

    /// The last rank to join starts the job.
    fn joined(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let job = self.jobs.get_mut(&id).expect("join() looked it up");
        if job.joined < job.size {
            return;
        }
        job.begun = true;
        let start = Start {
            packs: job.packs.values().map(|pack| pack.span).collect(),
        }
        .to_frame(true);
        actions.extend(
            job.packs
                .values()
                .map(|pack| Action::Send(pack.connection, start.clone())),
        );
        actions.push(Action::Send(job.driver, Notice::Started.to_frame(true)));
    }

    fn driver_sent(
        &mut self,
        id: ConnectionId,
        job_id: JobId,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refuse> {
        let job = self.jobs.get_mut(&job_id).ok_or_else(ended)?;
        match frame.header.kind {
            kind::HEARTBEAT => {
                actions.push(Action::Send(id, job.traffic()));
                Ok(())
            }
            kind::DATA if !job.begun => Err(early()),
            kind::DATA if frame.header.source != DRIVER => Err((
                Refusal::Protocol,
                format!(
                    "the driver's connection spoke as rank {}",
                    frame.header.source
                ),
            )),
            kind::DATA if frame.header.epoch != job.epoch => Err(job.wrong_epoch(&frame)),
            kind::DATA => job.route(DRIVER, frame, actions),
            kind::ABORT => {
                let Abort { reason } = Abort::from_body(&frame.body).map_err(protocol)?;
                self.end(job_id, &reason, actions);
                Ok(())
            }
            kind::LEAVE => {
                self.connections.remove(&id);
                actions.push(Action::Send(id, job.traffic()));
                actions.push(Action::Send(id, bare_frame(kind::LEFT, true)));
                actions.push(Action::Close(id));
                self.end(job_id, "its driver left", actions);
                Ok(())
            }
            other => Err(unexpected(other, "a driver")),
        }
    }

    fn pack_sent(
        &mut self,
        id: ConnectionId,
        job_id: JobId,
        span: Span,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refuse> {
        let job = self.jobs.get_mut(&job_id).ok_or_else(ended)?;
        let source = frame.header.source;
        match frame.header.kind {
            kind::HEARTBEAT => {
                actions.push(Action::Send(id, bare_frame(kind::HEARTBEAT, true)));
                Ok(())
            }
            kind::DATA | kind::CONTRIBUTE if !job.begun => Err(early()),
            kind::DATA | kind::CONTRIBUTE if !span.contains(source) => Err((
                Refusal::Protocol,
                format!("a connection of {span} spoke as rank {source}"),
            )),
            kind::DATA | kind::CONTRIBUTE if frame.header.epoch != job.epoch => {
                Err(job.wrong_epoch(&frame))
            }
            kind::DATA => job.route(source, frame, actions),
            kind::CONTRIBUTE => self.contribute(job_id, span, frame, actions),
            kind::LEAVE => {
                let Leave { failure } = Leave::from_body(&frame.body).map_err(protocol)?;
                let failure = failure.map(cut_reason);
                job.remove(span);
                job.failed |= job.begun && failure.is_some();
                let deserted = !job.failed && job.collectives.is_pending();
                actions.push(Action::Send(
                    job.driver,
                    Notice::Left { span, failure }.to_frame(true),
                ));
                self.connections.remove(&id);
                actions.push(Action::Send(id, bare_frame(kind::LEFT, true)));
                actions.push(Action::Close(id));
                if deserted {
                    let reason = format!(
                        "{span} left while others wait in a collective call; all ranks must make the same calls"
                    );
                    self.end(job_id, &reason, actions);
                }
                Ok(())
            }
            other => Err(unexpected(other, "a pack")),
        }
    }

    fn contribute(
        &mut self,
        job_id: JobId,
        span: Span,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refuse> {
        let job = self
            .jobs
            .get_mut(&job_id)
            .expect("pack_sent() looked it up");
        let Header {
            sequence,
            tag,
            group,
            ..
        } = frame.header;
        if job.failed {
            // It cannot complete; how the job ends is the driver's to say, with the cause that it was told.
            return Ok(());
        }
        if job.joined < job.size {
            let reason = format!(
                "{span} made collective call {sequence} after other ranks had left; all ranks must make the same calls"
            );
            self.end(job_id, &reason, actions);
            return Ok(());
        }
        job.bytes += frame.body.len() as u64;
        let combined = match job.collectives.contribute(
            span.first_rank,
            sequence,
            tag,
            &frame.body,
            job.packs.len(),
        ) {
            Ok(None) => return Ok(()),
            Ok(Some(combined)) => combined,
            // Members that disagree about a collective are a fault of the program: all of it ends, with the reason.
            Err(error @ CollectiveError::Mismatch { .. }) => {
                self.end(job_id, &format!("{span}: {error}"), actions);
                return Ok(());
            }
            Err(error) => return Err((Refusal::Protocol, error.to_string())),
        };
        let header = Header {
            kind: kind::COMBINED,
            group,
            epoch: job.epoch,
            tag,
            source: SWITCH,
            sequence,
            ..Header::default()
        };
        for pack in job.packs.values() {
            let header = Header {
                destination: pack.span.first_rank,
                ..header
            };
            actions.push(Action::Send(
                pack.connection,
                Frame::new(header, combined.clone()),
            ));
        }
        Ok(())
    }

    fn lost(&mut self, job: JobId, span: Span, why: &str, actions: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        job.remove(span);
        job.failed |= job.begun;
        let reason = cut_reason(why.to_string());
        actions.push(Action::Send(
            job.driver,
            Notice::Lost { span, reason }.to_frame(true),
        ));
    }

    /// Ends a job: every member is told why and let go.
    fn end(&mut self, id: JobId, reason: &str, actions: &mut Vec<Action>) {
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
                actions.push(Action::Send(member, end.clone()));
                actions.push(Action::Close(member));
            }
        }
    }
}

fn protocol(error: MessageError) -> Refuse {
    (Refusal::Protocol, error.to_string())
}

fn early() -> Refuse {
    (
        Refusal::Protocol,
        "a message came before the job's start".into(),
    )
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
