//! The pool's decisions: which environment gets which invocation, when one starts, freezes and ends, what is refused.
//!
//! Pure: callers say what happened and when, then carry out the [`Action`]s. No clock, process or socket is touched
//! here; `dispatcher.rs` is the shell around it. An environment belongs to one function and goes through
//!
//! ```text
//! Starting -> Busy -> Returning -> Idle (frozen) -> Busy ... -> Ending -> gone
//! ```
//!
//! It is *ready* when its runtime and all its extensions ask for the next event; only then is an invocation handed
//! over, the first not before the cold start that its function asks for, and only then is it frozen. An invocation may
//! be promised to an environment that is still Returning: a caller who invokes again at once finds the environment it
//! just used, as on AWS, and not a second one. Where a function's environments are not reused, one that has answered ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::decision::{Action, EnvironmentId, Misuse, PoolLimits, Subscriptions};
use super::function::LocalFunction;
use super::invocation::{Outcome, Refusal, RequestId};
use super::scaling::Rates;

mod ending;
mod events;
mod placing;
#[cfg(test)]
mod tests;

use events::{Event, Queued};

#[derive(Debug)]
struct Extension {
    wants: Subscriptions,
    waits: bool,
}

#[derive(Debug)]
struct Environment {
    function: String,
    state: State,
    frozen: bool,
    runtime_waits: bool,
    extensions: BTreeMap<String, Extension>,
}

#[derive(Debug)]
enum State {
    Starting {
        request: RequestId,
        not_before: Instant,
        until: Instant,
    },
    Busy {
        request: RequestId,
        deadline: Instant,
    },
    Returning {
        until: Instant,
        promised: Option<Promise>,
    },
    Idle {
        since: Instant,
    },
    Ending {
        kill_at: Option<Instant>,
    },
}

#[derive(Debug)]
struct Promise {
    request: RequestId,
    look_elsewhere_at: Instant,
}

impl Environment {
    fn is_ready(&self) -> bool {
        self.runtime_waits && self.extensions.values().all(|extension| extension.waits)
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }
}

#[derive(Debug)]
struct Function {
    rules: Arc<LocalFunction>,
    /// Events so far.
    events: u64,
    rates: Option<Rates>,
}

/// All environments and all invocations that wait for one. See the module.
#[derive(Debug)]
pub(super) struct Pool {
    limits: PoolLimits,
    functions: BTreeMap<String, Function>,
    environments: BTreeMap<EnvironmentId, Environment>,
    /// Those that were accepted and are not over, wherever they are.
    events: BTreeMap<RequestId, Event>,
    queue: VecDeque<Queued>,
    queue_bytes: usize,
    /// When a function may have one more environment that could not have it just now.
    room_at: Option<Instant>,
    next_environment: u64,
    stopping: bool,
    actions: VecDeque<Action>,
}

impl Pool {
    pub(super) fn new(
        limits: PoolLimits,
        functions: &BTreeMap<String, Arc<LocalFunction>>,
    ) -> Pool {
        let function = |rules: &Arc<LocalFunction>| {
            let reserved = rules.reserved_concurrency.map(|count| count as usize);
            let concurrency = reserved.unwrap_or(limits.concurrency);
            Function {
                rules: Arc::clone(rules),
                events: 0,
                rates: limits.scaling.map(|rate| Rates::new(rate, concurrency)),
            }
        };
        let functions = functions
            .iter()
            .map(|(name, rules)| (name.clone(), function(rules)))
            .collect();
        Pool {
            limits,
            functions,
            environments: BTreeMap::new(),
            events: BTreeMap::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            room_at: None,
            next_environment: 0,
            stopping: false,
            actions: VecDeque::new(),
        }
    }

    pub(super) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.environments.is_empty()
    }

    /// A caller waits for the answer: it is placed now or refused.
    pub(super) fn invoke(
        &mut self,
        now: Instant,
        request: RequestId,
        function: &str,
    ) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        let of = self.function(function);
        if let Some(rates) = &mut of.rates
            && rates.calls.take(now).is_err()
        {
            let reserved = of.rules.reserved_concurrency.is_some();
            return Err(Refusal::CallRate { reserved });
        }
        self.place(now, &request, function)
    }

    fn function(&mut self, name: &str) -> &mut Function {
        self.functions
            .get_mut(name)
            .expect("only functions of the pool are invoked")
    }

    /// The runtime asks for its next invocation. A second call while the first still waits takes its place.
    pub(super) fn runtime_waits(&mut self, now: Instant, id: EnvironmentId) -> Result<(), Misuse> {
        let environment = self.environments.get_mut(&id).ok_or(Misuse::WrongState)?;
        if matches!(environment.state, State::Busy { .. } | State::Ending { .. }) {
            return Err(Misuse::WrongState);
        }
        environment.runtime_waits = true;
        self.if_ready(now, id);
        Ok(())
    }

    /// The runtime's connection that asked for the next invocation is gone: nobody took what was handed over.
    pub(super) fn runtime_left(&mut self, now: Instant, id: EnvironmentId) {
        let Some(environment) = self.environments.get_mut(&id) else {
            return;
        };
        environment.runtime_waits = false;
        let (until, promised) = match &environment.state {
            State::Busy { request, deadline } => (
                *deadline,
                Some(Promise {
                    request: request.clone(),
                    look_elsewhere_at: now + self.limits.patience,
                }),
            ),
            State::Idle { .. } => (now + self.limits.idle, None),
            _ => return,
        };
        environment.state = State::Returning { until, promised };
        self.thaw(id);
    }

    /// The runtime answered, or reported an error of the function.
    pub(super) fn finished(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        request: &RequestId,
        outcome: Outcome,
    ) -> Result<(), Misuse> {
        let environment = self
            .environments
            .get_mut(&id)
            .ok_or(Misuse::UnknownRequest)?;
        let deadline = match &environment.state {
            State::Busy {
                request: running,
                deadline,
            } if running == request => *deadline,
            _ => return Err(Misuse::UnknownRequest),
        };
        environment.state = State::Returning {
            until: deadline,
            promised: None,
        };
        let reuse = self.functions[&environment.function].rules.reuse;
        self.finish(now, id, request.clone(), outcome);
        if !reuse {
            self.shut_down(now, id);
        }
        self.serve_queue(now);
        Ok(())
    }

    /// The runtime, or an extension, cannot start.
    pub(super) fn init_failed(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        outcome_of: impl FnOnce(&RequestId) -> Outcome,
    ) -> Result<(), Misuse> {
        let environment = self.environments.get(&id).ok_or(Misuse::WrongState)?;
        let State::Starting { request, .. } = &environment.state else {
            return Err(Misuse::WrongState);
        };
        let outcome = outcome_of(request);
        self.kill(now, id, |_| outcome);
        self.serve_queue(now);
        Ok(())
    }

    /// An extension registered, which is possible until the first invocation is handed over.
    pub(super) fn extension_registered(
        &mut self,
        id: EnvironmentId,
        extension: String,
        wants: Subscriptions,
    ) -> Result<(), Misuse> {
        let environment = self.environments.get_mut(&id).ok_or(Misuse::WrongState)?;
        let State::Starting { .. } = environment.state else {
            return Err(Misuse::WrongState);
        };
        environment.extensions.insert(
            extension,
            Extension {
                wants,
                waits: false,
            },
        );
        Ok(())
    }

    /// An extension asks for its next event.
    pub(super) fn extension_waits(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        extension: &str,
    ) -> Result<(), Misuse> {
        let environment = self
            .environments
            .get_mut(&id)
            .ok_or(Misuse::UnknownExtension)?;
        environment
            .extensions
            .get_mut(extension)
            .ok_or(Misuse::UnknownExtension)?
            .waits = true;
        self.if_ready(now, id);
        self.tell_extensions(id);
        Ok(())
    }

    /// An extension reported that it cannot start, or has to exit: its environment ends.
    pub(super) fn extension_failed(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        extension: &str,
        outcome_of: impl FnOnce(&RequestId) -> Outcome,
    ) -> Result<(), Misuse> {
        let environment = self.environments.get(&id).ok_or(Misuse::UnknownExtension)?;
        if !environment.extensions.contains_key(extension) {
            return Err(Misuse::UnknownExtension);
        }
        self.kill(now, id, outcome_of);
        self.serve_queue(now);
        Ok(())
    }

    /// The process could not be started, or is gone. `describe` is such as `exit status 3`.
    pub(super) fn gone(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        error_type: &str,
        describe: &str,
    ) {
        self.kill(now, id, |request| {
            Outcome::failed(request, error_type, describe)
        });
        if self.environments.remove(&id).is_some() {
            self.actions.push_back(Action::Remove { environment: id });
        }
        self.serve_queue(now);
    }

    /// The environment took more memory than its function has.
    pub(super) fn memory_exceeded(&mut self, now: Instant, id: EnvironmentId) {
        let killed = "Runtime exited with error: signal: killed";
        self.kill(now, id, |request| {
            Outcome::failed(request, "Runtime.ExitError", killed)
        });
        self.serve_queue(now);
    }

    /// Refuses what waits, ends every environment; those without extensions at once.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.queue_bytes = 0;
        for queued in std::mem::take(&mut self.queue) {
            if self.delivered(&queued.request) {
                // Another delivery of the same event runs, and ends it.
                continue;
            }
            self.actions.push_back(Action::Refuse {
                request: queued.request,
                refusal: Refusal::Stopping,
            });
        }
        for id in self.environments.keys().copied().collect::<Vec<_>>() {
            self.shut_down(now, id);
        }
    }

    /// When [`Pool::tick`] has something to do, at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = |environment: &Environment| match &environment.state {
            State::Starting { not_before, .. } if environment.is_ready() => Some(*not_before),
            State::Starting { until, .. } => Some(*until),
            State::Busy { deadline, .. } => Some(*deadline),
            State::Returning { until, promised } => Some(
                promised
                    .as_ref()
                    .map_or(*until, |promise| promise.look_elsewhere_at.min(*until)),
            ),
            State::Idle { since } => Some(*since + self.limits.idle),
            State::Ending { kill_at } => *kill_at,
        };
        let environments = self.environments.values().filter_map(due);
        let queue = self.queue.iter().filter_map(Queued::due);
        environments.chain(queue).chain(self.room_at).min()
    }

    /// Carries out what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.tick_queue(now);
        for id in self.environments.keys().copied().collect::<Vec<_>>() {
            self.tick_environment(now, id);
        }
        self.serve_queue(now);
    }

    fn tick_environment(&mut self, now: Instant, id: EnvironmentId) {
        let Some(environment) = self.environments.get_mut(&id) else {
            return;
        };
        let ready = environment.is_ready();
        match &mut environment.state {
            // It has started in time; what it waits for is its cold start.
            State::Starting { .. } if ready => self.if_ready(now, id),
            State::Starting { until, .. } if *until <= now => {
                let message = format!(
                    "Init timed out after {:.2} seconds",
                    self.limits.init.as_secs_f64()
                );
                self.kill(now, id, |request| {
                    Outcome::failed(request, "Sandbox.Timedout", &message)
                });
            }
            State::Busy { deadline, .. } if *deadline <= now => {
                let timeout = self.functions[&environment.function].rules.timeout;
                let message = format!("Task timed out after {:.2} seconds", timeout.as_secs_f64());
                self.kill(now, id, |request| {
                    Outcome::failed(request, "Sandbox.Timedout", &message)
                });
            }
            // What was answered stays answered; only what was promised to this environment has to go elsewhere.
            State::Returning { until, .. } if *until <= now => {
                self.kill(now, id, |request| {
                    Outcome::failed(request, "Sandbox.Timedout", "Runtime did not return")
                });
            }
            State::Returning { promised, .. } => {
                if let Some(promise) = promised.take_if(|promise| promise.look_elsewhere_at <= now)
                {
                    let function = environment.function.clone();
                    if !self.place_in_idle(now, &promise.request, &function)
                        && self.place_in_new(now, &promise.request, &function).is_err()
                    {
                        self.promise_again(now, id, promise);
                    }
                }
            }
            State::Idle { since } if *since + self.limits.idle <= now => self.shut_down(now, id),
            State::Ending { kill_at } if kill_at.is_some_and(|at| at <= now) => {
                *kill_at = None;
                self.actions.push_back(Action::Kill { environment: id });
            }
            _ => {}
        }
    }

    fn promise_again(&mut self, now: Instant, id: EnvironmentId, promise: Promise) {
        let Some(Environment {
            state: State::Returning { promised, .. },
            ..
        }) = self.environments.get_mut(&id)
        else {
            return;
        };
        *promised = Some(Promise {
            look_elsewhere_at: now + self.limits.patience,
            ..promise
        });
    }
}
