//! The driver of a farm: an elastic job whose workers it starts, feeds, replaces and lets go.

use super::message::{Answer, ORDER_LEN, Order, PAYLOAD_MAX, PIECE_MAX, Pieces, Said, TAG, pieces};
use super::roster::{CallEnd, Meaning, Roster};
use super::schedule::{Assignment, Ending, Final, Micros, Policy, Schedule, Settled};
use crate::job::driver::{JobError, SwitchAccess, Worker, more};
use crate::job::report::{self, Report};
use crate::job::start::{Starter, fan_out};
use crate::lambda::event::Event;
use crate::lambda::launch::{Called, LaunchError, Launcher, Request, Way};
use crate::net::address::places;
use crate::net::driver_link::{Membership, News};
use crate::net::flow::cost;
use crate::net::frame::RANKS_MAX;
use crate::net::job_link::JobLink;
use crate::net::message::{Notice, Span, Traffic};
use crate::net::reassembly::Message;
use crate::net::token::JobId;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

/// How long the driver tries to reach the switch.
const SWITCH_WITHIN: Duration = Duration::from_secs(10);

/// How long the Invoke call of a lost worker gets to tell why, and workers get to leave when all is done.
const AFTERMATH: Duration = Duration::from_secs(2);

/// How long a worker may take to come whose call does not tell of its end, while nobody is there: long for a start, and short for who
/// waits.
const COME_WITHIN: Duration = Duration::from_secs(15);

/// The same while others are there: as long as Lambda keeps an event that it cannot start yet, and a start.
const QUEUED_WITHIN: Duration = Duration::from_secs(75);

/// How often it is looked what the job has cost.
const LOOK: Duration = Duration::from_millis(500);

/// How often slow tasks and lost workers are looked at.
const TICK: Duration = Duration::from_millis(20);

/// Bytes of unsettled tasks above which no more are taken.
const UNSETTLED_BYTES_MAX: usize = 128 << 20;

/// Unsettled tasks above which no more are taken.
const UNSETTLED_MAX: usize = 200_000;

/// Tasks that are taken at once.
const BATCH: usize = 256;

/// What to run, and on how many workers.
#[derive(Debug, Clone)]
pub struct FarmSpec {
    /// The job's id; every run has its own.
    pub id: JobId,
    /// The program of the workers, which must serve a farm.
    pub program: String,
    /// Its arguments.
    pub arguments: Value,
    /// How many workers at once.
    pub workers: u32,
    /// In how many levels workers are started: those that the driver starts start others if it is more than one, and all are of one
    /// function, which must be allowed to invoke itself.
    pub levels: u32,
    /// The job's store, absolute.
    pub store: String,
    /// What is done about failures and slowness.
    pub policy: Policy,
    /// When the whole job is given up, if ever.
    pub timeout: Option<Duration>,
    /// Workers are started with the first task, and not before.
    pub lazy: bool,
    /// Workers are let go when there was nothing to do for so long, and started again with the next task.
    pub idle: Option<Duration>,
    /// Further fields of the events that start workers.
    pub more: Map<String, Value>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number; each is used once.
    pub number: u64,
    /// What the program is given; at most [`PAYLOAD_MAX`] bytes.
    pub payload: Bytes,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its number.
    pub task: u64,
    /// What it was given.
    pub given: Bytes,
    /// True if it was done.
    pub done: bool,
    /// The result, or why the last try failed: the program's own bytes, or words when a worker was lost.
    pub payload: Bytes,
    /// True if the last try cost a worker.
    pub fatal: bool,
    /// How often it failed.
    pub failures: u32,
    /// How long the last try took.
    pub took: Duration,
}

/// What the driver tells while the farm runs.
#[derive(Debug)]
pub enum FarmEvent {
    /// The job exists.
    Created {
        /// Its id.
        job: String,
    },
    /// So many workers are there.
    Workers(u32),
    /// A worker was lost, and why; another one takes its place if there is work.
    Lost(String),
    /// A task is settled.
    Settled(Outcome),
    /// What passed through the switches so far.
    Traffic(Traffic),
    /// Nothing more is known for now: who gathers what it was told can let go of it.
    Waiting,
}

/// What to do after a task has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Further {
    /// Go on.
    On,
    /// Begin nothing more for now. It is asked again when something happens, and soon.
    Pause,
    /// End the job.
    Enough,
}

/// A finished farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmOutcome {
    /// The job's id.
    pub job: String,
    /// Messages through the switch, and bytes.
    pub traffic: (u64, u64),
    /// From the first Invoke call until the first worker had joined.
    pub launch: Duration,
    /// From then on.
    pub run: Duration,
    /// Workers that were lost.
    pub lost: u32,
}

/// Runs tasks as they come, until their channel is closed and all are settled. `cancel` completing stops it.
///
/// # Errors
/// When the switch fails, workers cannot be started or fail one after the other without settling anything, or a worker
/// says that it cannot serve.
pub async fn run(
    spec: &FarmSpec,
    switch: &SwitchAccess,
    launcher: &Launcher,
    cancel: impl Future<Output = ()>,
    tasks: mpsc::Receiver<Task>,
    hear: &mut impl FnMut(FarmEvent) -> Further,
) -> Result<FarmOutcome, JobError> {
    if spec.workers == 0 {
        return Err(JobError::Usage("a job needs at least one worker".into()));
    }
    // Each start has a rank of its own, and a pool may rest and wake for weeks.
    let slots = RANKS_MAX;
    let program = (&spec.program[..], &spec.arguments);
    let mut starter = Starter::new(spec.id, switch, program, &spec.store, slots, spec.workers);
    starter.more = Event::without_own(spec.more.clone());
    let membership = Membership::Elastic {
        slots,
        at_once: spec.workers,
    };
    let mut cancel = pin!(cancel);
    let (job, token) = (starter.job(), starter.driver_token());
    let link = tokio::select! {
        biased;
        () = &mut cancel => return Err(JobError::Interrupted),
        link = JobLink::create(&switch.addresses, job, token, membership, SWITCH_WITHIN) => link?,
    };
    hear(FarmEvent::Created {
        job: job.to_string(),
    });
    let mut farm = Farm {
        spec,
        switch: places(&switch.addresses),
        starter,
        launcher,
        link,
        schedule: Schedule::new(spec.policy),
        begun: Instant::now(),
        calls: JoinSet::new(),
        roster: Roster::new(spec.workers, slots, spec.levels),
        sending: BTreeMap::new(),
        pieces: Pieces::default(),
        fruitless: 0,
        lost: 0,
        resting_since: None,
        traffic: Traffic::default(),
        requests: BTreeMap::new(),
    };
    match farm.work(cancel, tasks, hear).await {
        Ok(()) => Ok(farm.close(job.to_string()).await),
        Err(error) => {
            let brief = error.to_string();
            let brief = brief.lines().next().unwrap_or("the job failed").to_string();
            if launcher.way() == Way::Start {
                farm.calls.abort_all();
            }
            farm.link.abort(&brief).await;
            let _ = tokio::time::timeout(AFTERMATH, async {
                while farm.calls.join_next().await.is_some() {}
            })
            .await;
            Err(error)
        }
    }
}

/// A running farm.
struct Farm<'a> {
    spec: &'a FarmSpec,
    switch: String,
    starter: Starter,
    launcher: &'a Launcher,
    link: JobLink,
    schedule: Schedule,
    begun: Instant,
    calls: JoinSet<(u32, Result<Called, LaunchError>)>,
    roster: Roster,
    /// Long tasks of which a part is sent, by their workers; of each, how many bytes.
    sending: BTreeMap<u32, VecDeque<(Assignment, usize)>>,
    /// What has come of long answers, by worker and task.
    pieces: Pieces<(u32, u64)>,
    /// Workers that ended out of order since something was settled.
    fruitless: u32,
    lost: u32,
    /// Since when there is nothing to do.
    resting_since: Option<Instant>,
    traffic: Traffic,
    /// The calls that started those who are there or on their way, and ended with that.
    requests: BTreeMap<u32, Request>,
}

impl Farm<'_> {
    async fn work(
        &mut self,
        cancel: std::pin::Pin<&mut impl Future<Output = ()>>,
        mut tasks: mpsc::Receiver<Task>,
        hear: &mut impl FnMut(FarmEvent) -> Further,
    ) -> Result<(), JobError> {
        const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
        let timeout = tokio::time::sleep(self.spec.timeout.unwrap_or(FOREVER));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut cancel = cancel;
        let mut timeout = pin!(timeout);
        let mut open = true;
        let mut further = Further::On;
        let mut batch = Vec::new();
        let mut burst = 0;
        let mut look_at_cost = Instant::now();
        loop {
            // By the clock, since there may always be something else to do.
            if Instant::now() >= look_at_cost {
                self.launcher.check_budget()?;
                look_at_cost = Instant::now() + LOOK;
            }
            if further == Further::Enough || !open && self.schedule.unsettled() == 0 {
                return Ok(());
            }
            self.start_workers();
            // What has come already is dealt with before anything is sent, so that much goes together.
            if let Some(news) = once(self.link.next()).await {
                match news? {
                    News::Notice(notice) => further = further.max(self.noticed(notice, hear)?),
                    News::Message(message) => further = further.max(self.said(message, hear)?),
                }
                burst += 1;
                if burst < BATCH {
                    continue;
                }
            }
            burst = 0;
            further = further.max(hear(FarmEvent::Waiting));
            // Of what has been taken something is always under way, since others may wait for just that.
            while further != Further::Enough
                && (further == Further::On || !self.schedule.is_any_under_way())
                && let Some(assignment) = self.schedule.next()
            {
                self.send(assignment);
            }
            // Whoever pauses may wait for just the next one.
            let room = (further == Further::On || self.schedule.unsettled() == 0)
                && self.schedule.bytes() < UNSETTLED_BYTES_MAX
                && self.schedule.unsettled() < UNSETTLED_MAX;
            tokio::select! {
                biased;
                () = &mut cancel => return Err(JobError::Interrupted),
                () = &mut timeout => return Err(JobError::TimedOut(self.spec.timeout.unwrap_or_default().as_secs())),
                news = self.link.next() => match news? {
                    News::Notice(notice) => further = further.max(self.noticed(notice, hear)?),
                    News::Message(message) => further = further.max(self.said(message, hear)?),
                },
                count = tasks.recv_many(&mut batch, BATCH), if open && room => {
                    open = count > 0;
                    for task in batch.drain(..) {
                        if task.payload.len() > PAYLOAD_MAX {
                            let (number, bytes) = (task.number, task.payload.len());
                            return Err(JobError::Usage(format!(
                                "task {number} has {bytes} bytes, over the limit of {PAYLOAD_MAX}; put long inputs into the store"
                            )));
                        }
                        let number = task.number;
                        if !self.schedule.submit(number, task.payload) {
                            return Err(JobError::Usage(format!("there are two tasks with the number {number}")));
                        }
                    }
                }
                Some(call) = self.calls.join_next(), if !self.calls.is_empty() => {
                    let (rank, outcome) = call.expect("an Invoke call does not panic");
                    further = further.max(self.returned(rank, outcome, hear)?);
                }
                _ = ticks.tick() => further = further.max(self.tick(hear)?),
            }
            if further == Further::Pause {
                // Whoever wants it says so each time.
                further = Further::On;
            }
            self.rest(hear);
        }
    }

    /// Lets workers go that have had nothing to do for long.
    fn rest(&mut self, hear: &mut impl FnMut(FarmEvent) -> Further) {
        if self.schedule.unsettled() > 0 || self.roster.count() == 0 {
            self.resting_since = None;
            return;
        }
        let since = *self.resting_since.get_or_insert_with(Instant::now);
        if self.spec.idle.is_none_or(|idle| since.elapsed() < idle) {
            return;
        }
        for rank in self.present() {
            self.link.send(rank, TAG, &Order::Leave.to_bytes());
            self.schedule.gone(rank, false);
            self.remove(rank);
        }
        self.resting_since = None;
        hear(FarmEvent::Workers(0));
    }

    fn now(&self) -> Micros {
        self.begun.elapsed().as_micros() as Micros
    }

    /// As many workers as are wanted are there, or on their way.
    fn start_workers(&mut self) {
        let now = Instant::now();
        if self.spec.lazy && self.schedule.unsettled() == 0 {
            return;
        }
        let ranks = self.roster.start(now);
        if ranks.is_empty() {
            return;
        }
        let fan_out = fan_out(ranks.len() as u32, self.roster.levels());
        let function = self.launcher.only_function().unwrap_or_default();
        let packs = ranks.map(Span::one);
        for event in self.starter.events(packs, function, fan_out) {
            let leader = event.first_rank;
            self.roster.called(leader, now);
            for other in event.start.iter().flat_map(|others| &others.packs) {
                self.roster.promised(other.first_rank, leader, now);
            }
            let (launcher, within) = (self.launcher.clone(), self.starter.join_within);
            self.calls
                .spawn(async move { (leader, launcher.invoke(&event, within).await) });
        }
    }

    /// Those that are there.
    fn present(&self) -> Vec<u32> {
        self.roster.present().map(|(rank, _)| rank).collect()
    }

    /// Forgets a worker, and what was half said. True if it was there.
    fn remove(&mut self, rank: u32) -> bool {
        self.sending.remove(&rank);
        self.requests.remove(&rank);
        self.pieces.keep(|(worker, _)| *worker != rank);
        self.roster.remove(rank)
    }

    fn send(&mut self, assignment: Assignment) {
        if assignment.payload.len() > PIECE_MAX {
            let (rank, task) = (assignment.rank, assignment.task);
            self.schedule.sent(rank, task, self.now());
            self.schedule.blocked(rank);
            let sending = self.sending.entry(rank).or_default();
            sending.push_back((assignment, 0));
            return self.send_pieces(rank);
        }
        let Assignment {
            rank,
            task,
            failures,
            payload,
        } = assignment;
        let order = Order::Run {
            task,
            failures,
            payload,
        };
        if self.link.send(rank, TAG, &order.to_bytes()) {
            self.schedule.sent(rank, task, self.now());
        } else {
            self.schedule.blocked(rank);
        }
    }

    /// Sends what there is room for of long tasks.
    fn send_pieces(&mut self, rank: u32) {
        for (assignment, sent) in self.sending.get_mut(&rank).into_iter().flatten() {
            let (task, payload) = (assignment.task, &assignment.payload);
            if *sent == payload.len() {
                continue;
            }
            for piece in pieces(payload.len()).skip(*sent / PIECE_MAX) {
                let end = piece.end;
                let piece = payload.slice(piece);
                let order = match end == payload.len() {
                    false => Order::Piece {
                        task,
                        payload: piece,
                    },
                    true => Order::Run {
                        task,
                        failures: assignment.failures,
                        payload: piece,
                    },
                };
                if !self.link.send(rank, TAG, &order.to_bytes()) {
                    // What is sent whole stays until all is.
                    return;
                }
                *sent = end;
            }
        }
        self.sending.remove(&rank);
        self.schedule.unblocked(rank);
    }

    fn noticed(
        &mut self,
        notice: Notice,
        hear: &mut impl FnMut(FarmEvent) -> Further,
    ) -> Result<Further, JobError> {
        if let Notice::Left { span, .. } | Notice::Lost { span, .. } = &notice {
            self.ended(*span);
        }
        match notice {
            Notice::Joined { span, mailbox, .. } => {
                let least = cost(ORDER_LEN + PIECE_MAX);
                if u64::from(mailbox) < least {
                    let reason = format!("its mailbox has {mailbox} bytes; orders need {least}");
                    let request = self.requests.remove(&span.first_rank);
                    return Err(failed(span.first_rank, reason, Vec::new(), request));
                }
                let now = Instant::now();
                self.roster.joined(span.first_rank, now);
                self.launcher.meter().joined(span.first_rank, now);
                self.schedule.joined(span.first_rank);
                hear(FarmEvent::Workers(self.roster.count()));
            }
            Notice::Left {
                span,
                failure: None,
            } => return Ok(self.gone(span.first_rank, None, hear)),
            // It says itself that it cannot serve; others would not either.
            Notice::Left {
                span,
                failure: Some(reason),
            } => {
                let request = self.requests.remove(&span.first_rank);
                return Err(failed(span.first_rank, reason, Vec::new(), request));
            }
            Notice::Lost { span, reason } => {
                let rank = span.first_rank;
                let until = Instant::now() + AFTERMATH;
                if self.roster.disconnected(rank, &reason, until) {
                    self.schedule.blocked(rank);
                } else {
                    return Ok(self.gone(rank, Some(reason), hear));
                }
            }
            Notice::Traffic(traffic) => {
                self.traffic = traffic;
                hear(FarmEvent::Traffic(traffic));
            }
            Notice::Started => {}
        }
        Ok(Further::On)
    }

    /// A worker is no more; `lost` says why, if it did not leave in order.
    fn gone(
        &mut self,
        rank: u32,
        lost: Option<String>,
        hear: &mut impl FnMut(FarmEvent) -> Further,
    ) -> Further {
        if !self.remove(rank) {
            return Further::On;
        }
        let mut further = hear(FarmEvent::Workers(self.roster.count()));
        let had = self.schedule.has_tasks(rank);
        let given_up = self.schedule.gone(rank, lost.is_some());
        let Some(reason) = lost else { return further };
        self.lost += 1;
        // One that had nothing to do was lost by itself.
        self.fruitless += u32::from(!had);
        for Final {
            task,
            given,
            failures,
        } in given_up
        {
            further = further.max(hear(FarmEvent::Settled(Outcome {
                task,
                given,
                done: false,
                payload: Bytes::from(reason.clone()),
                fatal: true,
                failures,
                took: Duration::ZERO,
            })));
        }
        further.max(hear(FarmEvent::Lost(reason)))
    }

    /// Its last words: what it took, and that its program has ended, which nobody waits for.
    fn reported(&mut self, message: &Message) {
        if let Ok(Report::Usage(usage)) = Report::from_bytes(&message.payload) {
            self.launcher.meter().said(message.source, usage);
        }
    }

    fn ended(&self, span: Span) {
        let mut meter = self.launcher.meter();
        meter.ended(span.first_rank, Instant::now());
    }

    fn said(
        &mut self,
        message: Message,
        hear: &mut impl FnMut(FarmEvent) -> Further,
    ) -> Result<Further, JobError> {
        let rank = message.source;
        if message.tag == report::TAG {
            self.reported(&message);
            return Ok(Further::On);
        }
        let said = Some(&message.payload).filter(|_| message.tag == TAG);
        let Some(said) = said.and_then(Said::from_bytes) else {
            let what = format!(
                "worker {rank} sent the driver a message with tag {}, which is no answer",
                message.tag
            );
            return Err(JobError::Report(what));
        };
        let answer = match said {
            Said::Piece { task, payload } => {
                if self.pieces.add((rank, task), payload) {
                    return Ok(Further::On);
                }
                let what =
                    format!("worker {rank} answers task {task} with more than {PAYLOAD_MAX} bytes");
                return Err(JobError::Report(what));
            }
            Said::Answer(answer) => {
                let payload = self.pieces.whole(&(rank, answer.task), answer.payload);
                Answer { payload, ..answer }
            }
        };
        let now = self.now();
        let settled = self
            .schedule
            .answered(rank, answer.task, answer.ending, answer.took, now);
        self.fruitless = 0;
        let Settled::Final(Final {
            task,
            given,
            failures,
        }) = settled
        else {
            return Ok(Further::On);
        };
        Ok(hear(FarmEvent::Settled(Outcome {
            task,
            given,
            done: answer.ending == Ending::Done,
            payload: answer.payload,
            fatal: false,
            failures,
            took: Duration::from_micros(answer.took),
        })))
    }

    fn returned(
        &mut self,
        rank: u32,
        outcome: Result<Called, LaunchError>,
        hear: &mut impl FnMut(FarmEvent) -> Further,
    ) -> Result<Further, JobError> {
        let end = match &outcome {
            Ok(Called::Returned(_)) => CallEnd::Returned,
            Ok(Called::Accepted(request)) => {
                if self.roster.has(rank) {
                    self.requests.insert(rank, request.clone());
                }
                CallEnd::Open
            }
            Err(LaunchError::Call { .. }) if self.launcher.way() == Way::Start => CallEnd::Open,
            Err(LaunchError::Call { .. }) => CallEnd::BrokeOff,
            Err(LaunchError::Throttled { .. }) => CallEnd::Throttled,
            Err(_) => CallEnd::Failed,
        };
        let now = Instant::now();
        let meaning = self.roster.returned(rank, end, now, now + AFTERMATH);
        let (reason, log) = match outcome {
            Ok(_) => (
                "it returned without joining; is the function that was invoked an lswitch worker?"
                    .into(),
                Vec::new(),
            ),
            Err(LaunchError::Function { message, log, .. }) => (message, log),
            Err(error) => (error.to_string(), Vec::new()),
        };
        let words = match log.last() {
            Some(line) if !reason.contains(line.as_str()) => format!("{reason}: {line}"),
            _ => reason.clone(),
        };
        let request = self.requests.get(&rank).cloned();
        let further = match meaning {
            Meaning::Nothing => return Ok(Further::On),
            Meaning::GoesOn => {
                warn!("worker {rank}: {reason}; the worker goes on");
                return Ok(Further::On);
            }
            Meaning::Gone => self.gone(rank, Some(words), hear),
            Meaning::NeverCame => {
                self.lost += 1;
                self.fruitless += 1;
                hear(FarmEvent::Lost(words))
            }
        };
        if self.is_fruitless() {
            return Err(failed(rank, reason, log, request));
        }
        Ok(further)
    }

    /// True if so many workers were lost in vain that others would be too.
    fn is_fruitless(&self) -> bool {
        self.fruitless > self.spec.workers + self.spec.policy.retries + 2
    }

    fn not_joined(&self, missing: String, waited: Duration) -> JobError {
        JobError::NotJoined {
            missing,
            seconds: waited.as_secs(),
            switch: self.switch.clone(),
            more: more(self.launcher.way(), None),
        }
    }

    fn tick(&mut self, hear: &mut impl FnMut(FarmEvent) -> Further) -> Result<Further, JobError> {
        let now = Instant::now();
        let mut further = Further::On;
        for (rank, reason) in self.roster.overdue(now) {
            further = further.max(self.gone(rank, Some(reason), hear));
        }
        let present: Vec<(u32, bool)> = self.roster.present().collect();
        for (rank, losing) in present {
            if self.sending.contains_key(&rank) {
                self.send_pieces(rank);
            } else if !losing {
                self.schedule.unblocked(rank);
            }
        }
        if let Some(copy) = self.schedule.next_copy(self.now()) {
            self.send(copy);
        }
        // Each call repeats for as long itself, and a worker waits for the switch no longer.
        let patience = self.starter.join_within + AFTERMATH;
        let alone = self.roster.count() == 0;
        let come_within = match (self.launcher.way(), alone) {
            (Way::Wait, _) => patience,
            (Way::Start, true) => patience.min(COME_WITHIN),
            (Way::Start, false) => patience.max(QUEUED_WITHIN),
        };
        let absent = self.roster.give_up_promised(now, come_within);
        if absent > 0 {
            self.lost += absent;
            // Where some are there the others lack room, and not luck.
            self.fruitless += if alone { absent } else { 0 };
            let words = format!(
                "{absent} workers that were started have not come{}",
                match self.spec.levels {
                    0 | 1 => "",
                    _ => "; may the function invoke itself?",
                }
            );
            further = further.max(hear(FarmEvent::Lost(words)));
            if self.is_fruitless() {
                return Err(self.not_joined(format!("{absent} workers"), come_within));
            }
        }
        if let Some(called) = self.roster.nobody_comes(now, patience) {
            return Err(self.not_joined(format!("{called} workers"), patience));
        }
        if self.schedule.unsettled() > 0
            && let Some(gone) = self.roster.used_up()
        {
            let what = format!("{gone} workers have come and gone, which is the most of one job");
            return Err(JobError::Report(what));
        }
        Ok(further)
    }

    /// Lets the workers go.
    async fn close(mut self, job: String) -> FarmOutcome {
        let finished = Instant::now();
        for rank in self.present() {
            self.link.send(rank, TAG, &Order::Leave.to_bytes());
        }
        let deadline = tokio::time::Instant::now() + AFTERMATH;
        while self.roster.count() > 0 {
            match tokio::time::timeout_at(deadline, self.link.next()).await {
                Ok(Ok(News::Notice(Notice::Left { span, .. } | Notice::Lost { span, .. }))) => {
                    self.ended(span);
                    self.roster.remove(span.first_rank);
                }
                Ok(Ok(News::Notice(Notice::Traffic(traffic)))) => self.traffic = traffic,
                Ok(Ok(News::Message(message))) if message.tag == report::TAG => {
                    self.reported(&message);
                }
                Ok(Ok(_)) => {}
                _ => break,
            }
        }
        let traffic = self.link.leave().await;
        if traffic.messages > 0 {
            self.traffic = traffic;
        }
        let _ = tokio::time::timeout_at(deadline, async {
            while self.calls.join_next().await.is_some() {}
        })
        .await;
        let (launch, run) = self.roster.times(finished);
        FarmOutcome {
            job,
            traffic: (self.traffic.messages, self.traffic.bytes),
            launch,
            run,
            lost: self.lost,
        }
    }
}

/// Asks a future once.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

fn failed(rank: u32, reason: String, log: Vec<String>, request: Option<Request>) -> JobError {
    let worker = Worker {
        number: rank,
        span: Span::one(rank),
    };
    JobError::Worker {
        lost: false,
        worker,
        reason,
        log,
        request: request.map(Box::new),
    }
}
