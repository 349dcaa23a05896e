//! The driver: creates a job at the switch, starts its packs, watches, collects.
//!
//! It hears of a worker from two sides, the switch (joined, left, lost) and the Invoke call (returned, failed), and waits
//! for neither for ever: joining, the job and each closing step have deadlines. The first cause ends the job and is the
//! one reported; what follows from it is not.

use crate::job::output::OutputError;
use crate::job::report::{RESULTS_MAX, Report, TAG};
use crate::job::start::{Starter, fan_out, join_within};
use crate::lambda::event::Event;
use crate::lambda::launch::{Called, LaunchError, Launcher, Request, Way};
use crate::lambda::meter::Spent;
use crate::lambda::pace::time_to_start;
use crate::net::address::{SwitchAddress, places};
use crate::net::driver_link::{Membership, News};
use crate::net::job_link::JobLink;
use crate::net::link::LinkError;
use crate::net::message::{Notice, Span, Traffic};
use crate::net::token::{JobId, Secret};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::task::JoinSet;
use tracing::warn;

/// Lines of a failed worker's log that are shown.
pub const LOG_LINES: usize = 20;

/// How long an Invoke call gets to tell why its worker was lost, and workers get to end after an abort.
const AFTERMATH: Duration = Duration::from_secs(3);

/// How long a worker may take to join whose call does not tell of its end, before it is called again. A second one of the same
/// worker is refused by the switch, so none runs twice.
const COME_WITHIN: Duration = Duration::from_secs(10);

/// How often a worker is called.
const CALLS_MAX: u32 = 4;

/// How often it is looked whether workers have come, and what the job has cost.
const LOOK: Duration = Duration::from_millis(500);

/// How long the driver tries to reach the switch.
const SWITCH_WITHIN: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its id; every run has its own.
    pub id: JobId,
    /// The program every rank runs.
    pub program: String,
    /// Its arguments.
    pub arguments: Value,
    /// How many ranks.
    pub ranks: u32,
    /// How many ranks share a worker; the last worker may have fewer.
    pub ranks_per_pack: u32,
    /// In how many levels workers are started: those that the driver starts start others if it is more than one, and all are of one
    /// function, which must be allowed to invoke itself.
    pub levels: u32,
    /// The job's store, absolute.
    pub store: String,
    /// When the whole job is given up, if ever.
    pub timeout: Option<Duration>,
    /// Further fields of the events that start workers, for handlers that look for them.
    pub more: Map<String, Value>,
}

/// The most switches of a job: each is a connection of every pack.
pub const SWITCHES_MAX: usize = 16;

/// Where the switches are, for the driver and for workers, and what is shared with them.
#[derive(Debug, Clone)]
pub struct SwitchAccess {
    /// Where they are; 1 to [`SWITCHES_MAX`].
    pub addresses: Vec<SwitchAddress>,
    /// The switches' secret.
    pub secret: Secret,
}

/// What the driver tells while the job runs.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The job exists at the switch, and so many workers are being started.
    Created {
        /// The job's id.
        job: String,
        /// How many packs.
        packs: u32,
    },
    /// So many ranks have joined.
    Joined(u32),
    /// All ranks have joined.
    Begun,
    /// A superstep was completed.
    Progress {
        /// Its number.
        step: u64,
        /// The program's measure of it.
        measure: f64,
    },
    /// What passed through the switches so far.
    Traffic(Traffic),
    /// A worker is done.
    Left(u32),
}

/// A finished job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutcome {
    /// The job's id.
    pub job: String,
    /// What each rank returned, by rank.
    pub results: Vec<Vec<u8>>,
    /// Messages that passed through the switch.
    pub messages: u64,
    /// Bytes that passed through the switch.
    pub bytes: u64,
    /// From the first Invoke call until all ranks had joined.
    pub launch: Duration,
    /// From then until the last rank's result.
    pub run: Duration,
}

/// A worker by its number and ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Counted from 0.
    pub number: u32,
    /// Its ranks.
    pub span: Span,
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "worker {} ({})", self.number, self.span)
    }
}

/// Why a job failed.
#[derive(Debug, Error)]
pub enum JobError {
    /// Asked for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The switch cannot be reached, refuses, or went away.
    #[error(transparent)]
    Switch(#[from] LinkError),
    /// A worker failed or was lost.
    #[error("{worker} failed: {reason}{}", shown(.log))]
    Worker {
        /// It was lost, and has not said itself that its program failed: another try may go well.
        lost: bool,
        /// Which.
        worker: Worker,
        /// Why.
        reason: String,
        /// The end of its log, if its call has told.
        log: Vec<String>,
        /// The call that started it, by which its log can be found otherwise.
        request: Option<Box<Request>>,
    },
    /// Not all ranks joined in time.
    #[error(
        "{missing} did not join within {seconds} s; are the workers able to reach the switch at {switch}?{more}"
    )]
    NotJoined {
        /// The workers that are missing.
        missing: String,
        /// How long was waited.
        seconds: u64,
        /// The address they were given.
        switch: String,
        /// Where to look for what their calls have not told.
        more: String,
    },
    /// `--timeout` passed.
    #[error("the job was given up after its time-out of {0} s")]
    TimedOut(u64),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
    /// `--max-cost` is reached.
    #[error("the job was ended: {0}; more is allowed with a higher --max-cost")]
    Spent(#[from] Spent),
    /// The job's output cannot be prepared.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Ranks sent what the driver cannot read, or nothing.
    #[error("{0}")]
    Report(String),
}

/// Where to look for what a worker's call has not told, and what the last one said that broke off.
pub(crate) fn more(way: Way, said: Option<&str>) -> String {
    let look = match way {
        Way::Wait => "",
        Way::Start => {
            " \"lswitch doctor\" tries it with one, and \"lswitch function logs\" shows what they print"
        }
    };
    match said {
        None => look.into(),
        Some(said) => format!("{look}; the last call that failed: {said}"),
    }
}

fn shown(log: &[String]) -> String {
    if log.is_empty() {
        return String::new();
    }
    let tail = &log[log.len().saturating_sub(LOG_LINES)..];
    let lines: String = tail.iter().map(|line| format!("\n  | {line}")).collect();
    format!("\nthe last lines of its output:{lines}")
}

/// Runs one fixed job to its end. `cancel` completing stops it.
///
/// # Errors
/// The first cause for which the job cannot go on. By then its workers were told to end.
pub async fn run(
    spec: &JobSpec,
    switch: &SwitchAccess,
    launcher: &Launcher,
    cancel: impl Future<Output = ()>,
    tell: &mut dyn FnMut(JobEvent),
) -> Result<JobOutcome, JobError> {
    run_prepared(spec, switch, launcher, async { Ok(()) }, cancel, tell).await
}

/// The same, with what has to be done once the switch has the job, and before workers are started: a job that does not come so far
/// has changed nothing.
///
/// # Errors
/// As [`run`], and those of `prepare`.
pub async fn run_prepared(
    spec: &JobSpec,
    switch: &SwitchAccess,
    launcher: &Launcher,
    prepare: impl Future<Output = Result<(), OutputError>>,
    cancel: impl Future<Output = ()>,
    tell: &mut dyn FnMut(JobEvent),
) -> Result<JobOutcome, JobError> {
    if spec.ranks == 0 || spec.ranks_per_pack == 0 {
        return Err(JobError::Usage(
            "a job needs at least one worker, and a function at least one of them".into(),
        ));
    }
    let workers = workers(spec.ranks, spec.ranks_per_pack);
    let program = (&spec.program[..], &spec.arguments);
    let mut starter = Starter::new(
        spec.id,
        switch,
        program,
        &spec.store,
        spec.ranks,
        workers.len() as u32,
    );
    starter.more = Event::without_own(spec.more.clone());
    let (job, token) = (starter.job(), starter.driver_token());
    let mut cancel = pin!(cancel);
    let link = tokio::select! {
        biased;
        () = &mut cancel => return Err(JobError::Interrupted),
        link = JobLink::create(&switch.addresses, job, token, Membership::Fixed(spec.ranks), SWITCH_WITHIN) => link?,
    };
    tell(JobEvent::Created {
        job: job.to_string(),
        packs: workers.len() as u32,
    });
    tokio::select! {
        biased;
        () = &mut cancel => return Err(JobError::Interrupted),
        prepared = prepare => prepared?,
    }
    let mut watch = Watch::new(spec, switch, workers, (starter, launcher));
    watch.call_all(spec.levels);
    watch
        .see_through(link, cancel, tell)
        .await
        .map(|(launch, run)| JobOutcome {
            job: job.to_string(),
            results: std::mem::take(&mut watch.results).into_values().collect(),
            messages: watch.traffic.0,
            bytes: watch.traffic.1,
            launch,
            run,
        })
}

/// Contiguous runs of ranks, one for each pack.
fn workers(ranks: u32, ranks_per_pack: u32) -> Vec<Worker> {
    let firsts = (0..ranks).step_by(ranks_per_pack as usize);
    firsts
        .zip(0..)
        .map(|(first_rank, number)| Worker {
            number,
            span: Span {
                first_rank,
                ranks: ranks_per_pack.min(ranks - first_rank),
            },
        })
        .collect()
}

/// What is known of a running job.
struct Watch<'a> {
    starter: Starter,
    launcher: &'a Launcher,
    workers: Vec<Worker>,
    /// How often each was called.
    called: Vec<u32>,
    /// Workers that are to come though no call is open, and since when (or from when on).
    coming: BTreeMap<u32, Instant>,
    /// Workers that others start, by those.
    led: BTreeMap<u32, Vec<u32>>,
    /// The only calls of workers, where these ended with a start.
    requests: BTreeMap<u32, Request>,
    /// When it is looked next what the job has cost.
    look_at_cost: Instant,
    ranks: u32,
    ranks_per_pack: u32,
    switch: String,
    join_within: Duration,
    timeout: Option<Duration>,
    calls: JoinSet<(u32, Result<Called, LaunchError>)>,
    /// First rank and ranks of the packs that joined.
    joined: BTreeMap<u32, u32>,
    left: u32,
    /// Workers that will come or have come, and whose calls tell nothing of their end.
    unheard: u32,
    /// What the last call said that broke off before its worker had joined.
    said: Option<String>,
    results: BTreeMap<u32, Vec<u8>>,
    /// The bytes of all of them.
    results_len: usize,
    traffic: (u64, u64),
}

/// The first cause, before the log of its worker is known.
enum Cause {
    Job(JobError),
    Worker {
        number: u32,
        /// See `lost` of [`JobError::Worker`].
        lost: bool,
        reason: String,
        log: Vec<String>,
    },
}

impl From<JobError> for Cause {
    fn from(error: JobError) -> Cause {
        Cause::Job(error)
    }
}

impl<'a> Watch<'a> {
    fn new(
        spec: &JobSpec,
        switch: &SwitchAccess,
        workers: Vec<Worker>,
        (starter, launcher): (Starter, &'a Launcher),
    ) -> Watch<'a> {
        Watch {
            starter,
            launcher,
            called: vec![0; workers.len()],
            coming: BTreeMap::new(),
            led: BTreeMap::new(),
            requests: BTreeMap::new(),
            look_at_cost: Instant::now(),
            join_within: join_within(workers.len() as u32),
            workers,
            ranks: spec.ranks,
            ranks_per_pack: spec.ranks_per_pack,
            switch: places(&switch.addresses),
            timeout: spec.timeout,
            calls: JoinSet::new(),
            joined: BTreeMap::new(),
            left: 0,
            unheard: 0,
            said: None,
            results: BTreeMap::new(),
            results_len: 0,
            traffic: (0, 0),
        }
    }

    /// Calls each worker, or has workers call others.
    fn call_all(&mut self, levels: u32) {
        let packs = self.workers.len() as u32;
        let fan_out = fan_out(packs, levels);
        let function = self.launcher.only_function().unwrap_or_default();
        let spans = self.workers.iter().map(|worker| worker.span);
        // By Lambda's rule the last of them come no sooner, and after those that start them.
        let by_then = Instant::now() + time_to_start(packs) + COME_WITHIN;
        for event in self.starter.events(spans, function, fan_out) {
            let leader = event.first_rank / self.ranks_per_pack;
            for other in event.start.iter().flat_map(|others| &others.packs) {
                let number = other.first_rank / self.ranks_per_pack;
                self.called[number as usize] += 1;
                self.is_coming(number, by_then);
                self.led.entry(leader).or_default().push(number);
            }
            self.send(leader, event);
        }
    }

    /// Those that a worker starts have all the time they need from when it is there itself.
    fn leads(&mut self, span: Span) {
        let now = Instant::now();
        for number in self
            .led
            .remove(&(span.first_rank / self.ranks_per_pack))
            .into_iter()
            .flatten()
        {
            if let Some(since) = self.coming.get_mut(&number) {
                *since = now.max(*since);
            }
        }
    }

    /// Calls a worker again.
    fn call(&mut self, number: u32) {
        let span = self.workers[number as usize].span;
        let start = self.called[number as usize] + 1;
        self.send(number, self.starter.start(span, start));
    }

    fn send(&mut self, number: u32, event: Event) {
        self.called[number as usize] += 1;
        let (launcher, within) = (self.launcher.clone(), self.join_within);
        self.calls
            .spawn(async move { (number, launcher.invoke(&event, within).await) });
    }

    /// Calls workers again that should have come by now.
    fn call_again(&mut self) {
        let now = Instant::now();
        let overdue = |since: &Instant| now.saturating_duration_since(*since) > COME_WITHIN;
        let coming = self.coming.iter().filter(|(_, since)| overdue(since));
        let overdue: Vec<u32> = coming.map(|(number, _)| *number).collect();
        for number in overdue {
            if self.has_joined(number) || self.called[number as usize] == CALLS_MAX {
                self.coming.remove(&number);
            } else {
                warn!(
                    "{} has not come; it is started again",
                    self.workers[number as usize]
                );
                self.coming.remove(&number);
                self.unheard -= 1;
                self.call(number);
            }
        }
    }

    /// Watches until every rank's result is there and every call has returned; gives the times of launching and running.
    async fn see_through(
        &mut self,
        mut link: JobLink,
        cancel: impl Future<Output = ()>,
        tell: &mut dyn FnMut(JobEvent),
    ) -> Result<(Duration, Duration), JobError> {
        match self.watch(&mut link, cancel, tell).await {
            Ok(times) => {
                let traffic = link.leave().await;
                self.traffic = (traffic.messages, traffic.bytes);
                Ok(times)
            }
            Err(cause) => Err(self.fail(link, cause).await),
        }
    }

    async fn watch(
        &mut self,
        link: &mut JobLink,
        cancel: impl Future<Output = ()>,
        tell: &mut dyn FnMut(JobEvent),
    ) -> Result<(Duration, Duration), Cause> {
        let begun = Instant::now();
        let mut started = None;
        let join_deadline = tokio::time::sleep(self.join_within);
        let timeout =
            tokio::time::sleep(self.timeout.unwrap_or(Duration::from_secs(365 * 24 * 3600)));
        tokio::pin!(cancel, join_deadline, timeout);
        let mut looks = tokio::time::interval(LOOK);
        // When what the workers have to say is overdue, once nothing but their last words is to come.
        let mut last_words = tokio::time::Instant::now() + AFTERMATH;
        let mut overdue = false;
        loop {
            // By the clock, since there may always be something else to do.
            if Instant::now() >= self.look_at_cost {
                self.launcher.check_budget().map_err(JobError::from)?;
                self.look_at_cost = Instant::now() + LOOK;
            }
            let complete = self.results.len() as u32 == self.ranks;
            let all_left = self.left as usize == self.workers.len();
            // Who is not heard of otherwise gets to leave in order.
            let over = self.calls.is_empty() && (self.unheard == 0 || all_left);
            if complete && (over || overdue) {
                let launch = started.map_or(begun.elapsed(), |at: Instant| at - begun);
                return Ok((launch, begun.elapsed() - launch));
            }
            // In this order, so that what the switch says of a worker comes before what follows from it elsewhere.
            tokio::select! {
                biased;
                () = &mut cancel => return Err(JobError::Interrupted.into()),
                () = &mut timeout => return Err(JobError::TimedOut(self.timeout.unwrap_or_default().as_secs()).into()),
                () = &mut join_deadline, if started.is_none() => return Err(self.not_joined().into()),
                news = link.next() => match news.map_err(JobError::from)? {
                    News::Notice(Notice::Started) => {
                        started = Some(Instant::now());
                        tell(JobEvent::Begun);
                    }
                    News::Notice(notice) => {
                        if matches!(notice, Notice::Left { .. }) {
                            last_words = tokio::time::Instant::now() + AFTERMATH;
                        }
                        self.noticed(notice, tell)?;
                    }
                    News::Message(message) if message.tag == TAG => {
                        last_words = tokio::time::Instant::now() + AFTERMATH;
                        let named = |error| JobError::Report(format!("rank {}: {error}", message.source));
                        match Report::from_bytes(&message.payload).map_err(named)? {
                            Report::Progress { step, measure } => tell(JobEvent::Progress { step, measure }),
                            Report::Usage(usage) => {
                                let first = message.source / self.ranks_per_pack * self.ranks_per_pack;
                                self.launcher.meter().said(first, usage);
                            }
                            Report::Result(result) => self.keep_result(message.source, result)?,
                        }
                    }
                    News::Message(message) => {
                        let what = format!("rank {} sent the driver a message with tag {}, which is none of its own", message.source, message.tag);
                        return Err(JobError::Report(what).into());
                    }
                },
                // Results may still be under way when all calls have returned. And a call whose worker left in order
                // may never return: its connection may have been dropped on the way.
                () = tokio::time::sleep_until(last_words), if all_left || self.calls.is_empty() && (complete || self.unheard == 0) => {
                    if !complete {
                        return Err(self.returned_without_result().into());
                    }
                    overdue = true;
                }
                _ = looks.tick() => self.call_again(),
                Some(call) = self.calls.join_next() => {
                    self.returned(call.expect("an Invoke call does not panic"))?;
                    last_words = tokio::time::Instant::now() + AFTERMATH;
                }
            }
        }
    }

    fn keep_result(&mut self, rank: u32, result: Vec<u8>) -> Result<(), JobError> {
        self.results_len += result.len();
        if self.results_len > RESULTS_MAX {
            return Err(JobError::Report(format!(
                "rank {rank}: with its result of {} bytes the results of all ranks are over the limit of {RESULTS_MAX} bytes (4 GiB); write long results to the store",
                result.len()
            )));
        }
        self.results.insert(rank, result);
        Ok(())
    }

    fn noticed(&mut self, notice: Notice, tell: &mut dyn FnMut(JobEvent)) -> Result<(), Cause> {
        let now = Instant::now();
        match &notice {
            Notice::Joined { span, .. } => self.launcher.meter().joined(span.first_rank, now),
            Notice::Left { span, .. } | Notice::Lost { span, .. } => {
                self.launcher.meter().ended(span.first_rank, now);
            }
            _ => {}
        }
        match notice {
            Notice::Joined { span, .. } => {
                self.joined.insert(span.first_rank, span.ranks);
                self.leads(span);
                tell(JobEvent::Joined(self.joined.values().sum()));
            }
            Notice::Left { failure: None, .. } => {
                self.left += 1;
                tell(JobEvent::Left(self.left));
            }
            Notice::Left {
                span,
                failure: Some(reason),
            } => return Err(self.worker_failed(span, reason, false)),
            // It had nothing left to say.
            Notice::Lost { .. } if self.results.len() as u32 == self.ranks => self.left += 1,
            Notice::Lost { span, reason } => return Err(self.worker_failed(span, reason, true)),
            Notice::Traffic(traffic) => {
                self.traffic = (traffic.messages, traffic.bytes);
                tell(JobEvent::Traffic(traffic));
            }
            Notice::Started => {}
        }
        Ok(())
    }

    fn worker_failed(&self, span: Span, reason: String, lost: bool) -> Cause {
        Cause::Worker {
            lost,
            number: span.first_rank / self.ranks_per_pack,
            reason,
            log: Vec::new(),
        }
    }

    fn returned(
        &mut self,
        (number, outcome): (u32, Result<Called, LaunchError>),
    ) -> Result<(), Cause> {
        match outcome {
            Ok(Called::Returned(_)) => Ok(()),
            Ok(Called::Accepted(request)) => {
                if self.called[number as usize] == 1 {
                    self.requests.insert(number, request);
                } else {
                    // Nobody knows which of them runs.
                    self.requests.remove(&number);
                }
                self.is_coming(number, Instant::now());
                Ok(())
            }
            // It may have been taken all the same.
            Err(error @ LaunchError::Call { .. }) if self.launcher.way() == Way::Start => {
                warn!("{}: {error}", self.workers[number as usize]);
                self.said = Some(error.to_string());
                self.is_coming(number, Instant::now());
                Ok(())
            }
            // The call broke off, not the worker, which the switch would miss.
            Err(error @ LaunchError::Call { .. }) if self.has_joined(number) => {
                warn!(
                    "{}: {error}; the worker goes on",
                    self.workers[number as usize]
                );
                self.unheard += 1;
                Ok(())
            }
            Err(error @ (LaunchError::Refused { .. } | LaunchError::Throttled { .. }))
                if self.has_joined(number) =>
            {
                // An earlier call has started it.
                warn!("{}: {error}", self.workers[number as usize]);
                self.unheard += 1;
                Ok(())
            }
            // It was called again, and this is not the call that has started it; or the switch tells.
            Err(LaunchError::Function { message, .. })
                if self.called[number as usize] > 1 && self.has_joined(number) =>
            {
                warn!("{}: {message}", self.workers[number as usize]);
                self.unheard += 1;
                Ok(())
            }
            Err(LaunchError::Function { kind, message, log }) => Err(Cause::Worker {
                // What Lambda says of a process, and not a handler of itself.
                lost: kind.starts_with("Runtime.") || kind.starts_with("Sandbox."),
                number,
                reason: message,
                log,
            }),
            Err(error) => Err(Cause::Worker {
                lost: false,
                number,
                reason: error.to_string(),
                log: Vec::new(),
            }),
        }
    }

    fn is_coming(&mut self, number: u32, since: Instant) {
        self.unheard += 1;
        self.coming.insert(number, since);
    }

    fn returned_without_result(&self) -> JobError {
        let missing = self
            .workers
            .iter()
            .filter(|worker| !self.results.contains_key(&worker.span.first_rank));
        let missing: Vec<String> = missing.map(Worker::to_string).collect();
        JobError::Report(format!(
            "{} returned without a result; is the function that was invoked an lswitch worker?",
            missing[..missing.len().min(10)].join(", ")
        ))
    }

    fn has_joined(&self, number: u32) -> bool {
        self.joined
            .contains_key(&self.workers[number as usize].span.first_rank)
    }

    fn not_joined(&self) -> JobError {
        let missing: Vec<String> = self
            .workers
            .iter()
            .filter(|worker| !self.has_joined(worker.number))
            .map(Worker::to_string)
            .collect();
        let (count, named) = (missing.len(), missing[..missing.len().min(10)].join(", "));
        let missing = if count > 10 {
            format!("{count} workers ({named}, ...)")
        } else {
            named
        };
        JobError::NotJoined {
            missing,
            seconds: self.join_within.as_secs(),
            switch: self.switch.clone(),
            more: more(self.launcher.way(), self.said.as_deref()),
        }
    }

    /// Learns from the failed worker's own call what it has to say, ends the job, and gives the others time to go.
    async fn fail(&mut self, link: JobLink, cause: Cause) -> JobError {
        if self.launcher.way() == Way::Start {
            // They have nothing to tell, and nobody more is to be started.
            self.calls.abort_all();
        }
        let deadline = tokio::time::Instant::now() + AFTERMATH;
        let mut cause = cause;
        if let Cause::Worker {
            number,
            reason,
            log,
            ..
        } = &mut cause
            && log.is_empty()
        {
            while let Ok(Some(Ok((returned, outcome)))) =
                tokio::time::timeout_at(deadline, self.calls.join_next()).await
            {
                if returned != *number {
                    continue;
                }
                if let Err(LaunchError::Function {
                    message,
                    log: lines,
                    ..
                }) = outcome
                {
                    if !message.contains(reason.as_str()) {
                        *reason = format!("{message} ({reason})");
                    } else {
                        *reason = message;
                    }
                    *log = lines;
                }
                break;
            }
        }
        let error = match cause {
            Cause::Job(error) => error,
            Cause::Worker {
                number,
                lost,
                reason,
                log,
            } => JobError::Worker {
                lost,
                worker: self.workers[number as usize],
                reason,
                log,
                request: self.requests.remove(&number).map(Box::new),
            },
        };
        let brief = error.to_string();
        link.abort(brief.lines().next().unwrap_or("the job failed"))
            .await;
        let _ = tokio::time::timeout_at(deadline, async {
            while self.calls.join_next().await.is_some() {}
        })
        .await;
        self.calls.abort_all();
        error
    }
}
