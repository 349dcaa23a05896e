//! The task that owns pool and environments: it takes messages from both APIs and from processes, asks the pool, and
//! carries out what the pool decided. Everything that several tasks could race for is decided here, in one place.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::process::scratch::{self, Scratch};

use super::decision::{Action, EnvironmentId, Misuse, PoolLimits};
use super::environment::{self, Environment, Surroundings, describe_exit};
use super::function::LocalFunction;
use super::invocation::{Outcome, RequestId};
use super::log::{Log, LogSink, Report};
use super::message::{Answer, Call, ExtensionEvent, Handed, Invocation, Message};
use super::pool::Pool;

/// Messages that may wait for the dispatcher; senders beyond it wait too. Each may carry a payload.
pub(super) const MESSAGES_MAX: usize = 64;
/// How long a stop waits for processes to be gone, above the grace of those with extensions.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(3);

/// The dispatcher's state. See the module.
pub(super) struct Dispatcher {
    pool: Pool,
    functions: Arc<BTreeMap<String, Arc<LocalFunction>>>,
    surroundings: Surroundings,
    sink: Option<LogSink>,
    environments: HashMap<EnvironmentId, Seat>,
    /// Accepted and not yet answered; an event stays here until it is not delivered any more.
    invocations: HashMap<RequestId, Box<Invocation>>,
    /// Folders of ended environments, being removed.
    removals: JoinSet<()>,
    /// Where the environments' folders are, from the first one on. Removed after them.
    scratch: Option<Scratch>,
    messages: mpsc::Receiver<Message>,
    events: mpsc::Sender<Message>,
}

/// An environment with those of its API calls that wait for an answer.
struct Seat {
    environment: Environment,
    next: Option<oneshot::Sender<Result<Handed, Misuse>>>,
    extensions_next: HashMap<String, oneshot::Sender<Result<ExtensionEvent, Misuse>>>,
    /// When the running invocation was handed over.
    handed: Option<Instant>,
    /// How long it took to get ready; taken by the first invocation's report.
    init: Option<Duration>,
    used: bool,
}

impl Dispatcher {
    pub(super) fn new(
        limits: PoolLimits,
        functions: Arc<BTreeMap<String, Arc<LocalFunction>>>,
        surroundings: Surroundings,
        sink: Option<LogSink>,
    ) -> (Dispatcher, mpsc::Sender<Message>) {
        let (events, messages) = mpsc::channel(MESSAGES_MAX);
        let dispatcher = Dispatcher {
            pool: Pool::new(limits, &functions),
            functions,
            surroundings,
            sink,
            environments: HashMap::new(),
            invocations: HashMap::new(),
            removals: JoinSet::new(),
            scratch: None,
            messages,
            events: events.clone(),
        };
        (dispatcher, events)
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        let stopped = loop {
            match self.next_message().await {
                Some(Message::Stop(stopped)) => break stopped,
                Some(message) => self.take(message),
                None => self.pool.tick(Instant::now()),
            }
            self.act();
        };
        self.pool.stop(Instant::now());
        self.act();
        if tokio::time::timeout(STOP_LIMIT, self.run_down())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.environments.len(),
                "some environments did not end in time; they are killed"
            );
        }
        self.environments.clear();
        if let Some(scratch) = self.scratch.take() {
            let _no_panic = tokio::task::spawn_blocking(move || drop(scratch)).await;
        }
        let _gone = stopped.send(());
    }

    async fn run_down(&mut self) {
        while !self.pool.is_empty() {
            match self.next_message().await {
                Some(message) => self.take(message),
                None => self.pool.tick(Instant::now()),
            }
            self.act();
        }
        while self.removals.join_next().await.is_some() {}
    }

    /// The next message, or `None` when the pool has something to do.
    async fn next_message(&mut self) -> Option<Message> {
        while self.removals.try_join_next().is_some() {}
        let messages = self.messages.recv();
        match self.pool.deadline() {
            // Not left to the time-out below, which prefers messages: a flood of them must not hold up deadlines.
            Some(deadline) if deadline <= Instant::now() => None,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), messages)
                .await
                .unwrap_or(None),
            None => messages.await,
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Invoke(invocation) => self.invoke(invocation),
            Message::Call(id, call) => self.call(id, call),
            // Only a second stop comes here, and its caller sees that the first one ended all.
            Message::Stop(_) => {}
        }
    }

    fn invoke(&mut self, mut invocation: Box<Invocation>) {
        let now = Instant::now();
        let (request, name) = (invocation.request.clone(), &invocation.function.name);
        let admitted = if invocation.is_event {
            self.pool
                .enqueue(now, request.clone(), name, invocation.work.payload.len())
        } else {
            self.pool.invoke(now, request.clone(), name)
        };
        let early = match admitted {
            Ok(()) if invocation.is_event => Some(Answer::Accepted),
            Ok(()) => None,
            Err(refusal) => Some(Answer::Refused(refusal)),
        };
        if let Some(early) = early {
            answer(&mut invocation, early);
        }
        if admitted.is_ok() {
            self.invocations.insert(request, invocation);
        }
    }

    fn call(&mut self, id: EnvironmentId, call: Call) {
        let now = Instant::now();
        let Some(seat) = self.environments.get_mut(&id) else {
            return;
        };
        match call {
            Call::RuntimeNext(next) => {
                seat.next = Some(next);
                if let Err(misuse) = self.pool.runtime_waits(now, id)
                    && let Some(next) = seat.next.take()
                {
                    let _gone = next.send(Err(misuse));
                }
            }
            Call::Finished {
                request,
                outcome,
                done,
            } => {
                let _gone = done.send(self.pool.finished(now, id, &request, outcome));
            }
            Call::InitFailed { outcome, done } => {
                let _gone = done.send(self.pool.init_failed(now, id, |_| outcome));
            }
            Call::Register {
                extension,
                wants,
                done,
            } => {
                let _gone = done.send(self.pool.extension_registered(id, extension, wants));
            }
            Call::ExtensionNext { extension, event } => {
                seat.extensions_next.insert(extension.clone(), event);
                if let Err(misuse) = self.pool.extension_waits(now, id, &extension)
                    && let Some(event) = seat.extensions_next.remove(&extension)
                {
                    let _gone = event.send(Err(misuse));
                }
            }
            Call::ExtensionFailed {
                extension,
                error_type,
                done,
            } => {
                let failed = |request: &RequestId| {
                    Outcome::failed(request, &error_type, "an extension gave up")
                };
                let _gone = done.send(self.pool.extension_failed(now, id, &extension, failed));
            }
            Call::MemoryExceeded { used_mb } => {
                seat.environment.log().note(&format!(
                    "The environment held {used_mb} MB, more than its function's memory: killed. Give it more memory_mb"
                ));
                self.pool.memory_exceeded(now, id);
            }
            Call::NotStarted(error) => self.not_started(id, &error),
            Call::Exited(status) => {
                self.pool
                    .gone(now, id, "Runtime.ExitError", &describe_exit(&status))
            }
        }
    }

    /// Carries out the pool's decisions, and those that follow from them.
    fn act(&mut self) {
        while let Some(action) = self.pool.next_action() {
            match action {
                Action::Start {
                    environment,
                    function,
                } => self.start(environment, &function),
                Action::Finish {
                    environment,
                    request,
                    outcome,
                    again,
                } => self.finish(environment, &request, outcome, again),
                Action::Drop { request } => {
                    if let Some(invocation) = self.invocations.remove(&request) {
                        let function = &invocation.function.name;
                        tracing::warn!(%request, function, "an event is dropped: it is older than its function's event_age_s");
                    }
                }
                Action::Refuse { request, refusal } => {
                    if let Some(mut invocation) = self.invocations.remove(&request) {
                        answer(&mut invocation, Answer::Refused(refusal));
                    }
                }
                Action::Remove { environment } => self.remove(environment),
                Action::Freeze { environment }
                | Action::Thaw { environment }
                | Action::Terminate { environment }
                | Action::Kill { environment }
                | Action::Deliver { environment, .. }
                | Action::TellInvoke { environment, .. }
                | Action::TellShutdown { environment, .. } => self.act_on(environment, action),
            }
        }
    }

    fn act_on(&mut self, id: EnvironmentId, action: Action) {
        let Some(seat) = self.environments.get_mut(&id) else {
            return;
        };
        match action {
            // A runtime whose call broke off is not where it can be frozen: it will call again.
            Action::Freeze { .. } if seat.next.as_ref().is_none_or(oneshot::Sender::is_closed) => {
                self.pool.runtime_left(Instant::now(), id);
            }
            Action::Freeze { .. } => seat.environment.freeze(),
            Action::Thaw { .. } => seat.environment.thaw(),
            Action::Terminate { .. } => seat.environment.terminate(),
            Action::Kill { .. } => seat.environment.kill(),
            Action::Deliver {
                request, deadline, ..
            } => {
                let Some(invocation) = self.invocations.get(&request) else {
                    return;
                };
                let Some(next) = seat.next.take().filter(|next| !next.is_closed()) else {
                    return self.pool.runtime_left(Instant::now(), id);
                };
                if !std::mem::replace(&mut seat.used, true) {
                    seat.init = Some(seat.environment.started.elapsed());
                }
                seat.environment.log().start(&request);
                seat.handed = Some(Instant::now());
                let deadline_ms = epoch_ms(deadline);
                if next
                    .send(Ok(Handed {
                        request,
                        deadline_ms,
                        work: invocation.work.clone(),
                    }))
                    .is_err()
                {
                    self.pool.runtime_left(Instant::now(), id);
                }
            }
            Action::TellInvoke {
                extension,
                request,
                deadline,
                ..
            } => {
                let Some(invocation) = self.invocations.get(&request) else {
                    return;
                };
                let (arn, trace) = (invocation.work.arn.clone(), invocation.work.trace.clone());
                let event = ExtensionEvent::Invoke {
                    deadline_ms: epoch_ms(deadline),
                    request,
                    arn,
                    trace,
                };
                tell(seat, &extension, event);
            }
            Action::TellShutdown {
                extension,
                reason,
                deadline,
                ..
            } => {
                tell(
                    seat,
                    &extension,
                    ExtensionEvent::Shutdown {
                        deadline_ms: epoch_ms(deadline),
                        reason,
                    },
                );
            }
            Action::Start { .. }
            | Action::Finish { .. }
            | Action::Drop { .. }
            | Action::Refuse { .. }
            | Action::Remove { .. } => {}
        }
    }

    fn start(&mut self, id: EnvironmentId, name: &str) {
        let function = Arc::clone(&self.functions[name]);
        let started = self.scratch().and_then(|scratch| {
            Environment::start(
                id,
                &function,
                &self.surroundings,
                self.sink.clone(),
                self.events.clone(),
                &scratch,
            )
        });
        match started {
            Ok(environment) => {
                let (next, extensions_next) = (None, HashMap::new());
                let seat = Seat {
                    environment,
                    next,
                    extensions_next,
                    handed: None,
                    init: None,
                    used: false,
                };
                self.environments.insert(id, seat);
            }
            Err(error) => {
                let problem = cannot_start(&function, &error);
                self.pool
                    .gone(Instant::now(), id, "Runtime.InvalidEntrypoint", &problem);
            }
        }
    }

    /// Where environments have their folders.
    fn scratch(&mut self) -> io::Result<PathBuf> {
        if let Some(scratch) = &self.scratch {
            return Ok(scratch.path().into());
        }
        let scratch = Scratch::new(scratch::LOCAL)?;
        let path = scratch.path().into();
        self.scratch = Some(scratch);
        // What earlier runs have left that were killed.
        self.removals.spawn_blocking(scratch::sweep);
        Ok(path)
    }

    fn not_started(&mut self, id: EnvironmentId, error: &io::Error) {
        let Some(seat) = self.environments.get(&id) else {
            return;
        };
        let problem = cannot_start(seat.environment.function(), error);
        self.pool
            .gone(Instant::now(), id, "Runtime.InvalidEntrypoint", &problem);
    }

    fn finish(&mut self, id: EnvironmentId, request: &RequestId, outcome: Outcome, again: bool) {
        let Some(mut invocation) = self.invocations.remove(request) else {
            return;
        };
        let mut seat = self.environments.get_mut(&id);
        let memory_used_mb = seat.as_ref().map_or(0, |seat| seat.environment.peak_mb());
        let duration = seat
            .as_mut()
            .and_then(|seat| seat.handed.take())
            .map_or(Duration::ZERO, |at| at.elapsed());
        let report = Report {
            duration,
            init: seat.as_mut().and_then(|seat| seat.init.take()),
            memory_mb: invocation.function.memory_mb,
            memory_used_mb,
            error_type: outcome.error_type(),
        };
        let write = |log: &mut Log| {
            if let Outcome::EnvironmentError { message, .. } = &outcome {
                log.note(message);
            }
            log.finish(request, &report)
        };
        let log_tail = match seat {
            Some(seat) => write(&mut seat.environment.log()),
            None => write(&mut Log::new(
                &invocation.function.name,
                id.0,
                self.sink.clone(),
            )),
        };
        if invocation.is_event && outcome.error_type().is_some() {
            let (function, body) = (&invocation.function.name, outcome.clone().into_body());
            let then = match again {
                true => "it is delivered again",
                false => "it is not tried again",
            };
            tracing::warn!(%request, function, error = %String::from_utf8_lossy(&body), "an event failed; {then}");
        }
        answer(&mut invocation, Answer::Ran { outcome, log_tail });
        if again {
            self.invocations.insert(request.clone(), invocation);
        }
    }

    fn remove(&mut self, id: EnvironmentId) {
        let Some(mut seat) = self.environments.remove(&id) else {
            return;
        };
        let mut log = seat.environment.log();
        log.drain();
        log.end_line();
        drop(log);
        if let Some(folder) = seat.environment.take_folder() {
            self.removals
                .spawn_blocking(move || environment::remove(folder));
        }
    }
}

fn cannot_start(function: &LocalFunction, error: &io::Error) -> String {
    let folder = function
        .task_root
        .as_ref()
        .map(|root| format!(" in {}", root.display()));
    format!(
        "cannot start {:?}{}: {error}",
        function.command,
        folder.unwrap_or_default()
    )
}

/// Answers once; a caller who left does not hear it.
fn answer(invocation: &mut Invocation, answer: Answer) {
    if let Some(sender) = invocation.answer.take() {
        let _gone = sender.send(answer);
    }
}

/// Extensions whose call broke off miss the event, as they would on AWS.
fn tell(seat: &mut Seat, extension: &str, event: ExtensionEvent) {
    if let Some(sender) = seat.extensions_next.remove(extension) {
        let _gone = sender.send(Ok(event));
    }
}

/// Deadlines are kept on the steady clock and told as wall-clock time.
fn epoch_ms(deadline: Instant) -> u64 {
    let at = SystemTime::now() + deadline.saturating_duration_since(Instant::now());
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
