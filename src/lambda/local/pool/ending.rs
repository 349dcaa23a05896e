//! How environments end, and what becomes of the invocations they had.

use std::time::Instant;

use super::super::decision::{Action, EnvironmentId};
use super::super::invocation::{Outcome, Refusal, RequestId};
use super::{Pool, Promise, Queued, State};

impl Pool {
    /// Ends an environment the way Lambda does when nothing is wrong: with a warning to those who registered for it, and to
    /// functions that have a grace.
    pub(super) fn shut_down(&mut self, now: Instant, id: EnvironmentId) {
        let killed = "Runtime exited with error: signal: killed";
        let Some(environment) = self.environments.get(&id) else {
            return;
        };
        if environment.is_ending() {
            return;
        }
        let grace = match environment.extensions.is_empty() {
            true => self.functions[&environment.function].rules.stop_grace,
            false => self.limits.grace,
        };
        if grace.is_zero() {
            self.kill(now, id, |request| {
                Outcome::failed(request, "Runtime.ExitError", killed)
            });
            return;
        }
        self.thaw(id);
        let kill_at = now + grace;
        self.end(now, id, Some(kill_at), |request| {
            Outcome::failed(request, "Runtime.ExitError", killed)
        });
        self.tell_extensions(id);
        self.actions
            .push_back(Action::Terminate { environment: id });
    }

    /// Tells the extensions of an environment in its grace that it ends: each once, as soon as it asks.
    pub(super) fn tell_extensions(&mut self, id: EnvironmentId) {
        let Some(environment) = self.environments.get_mut(&id) else {
            return;
        };
        let State::Ending {
            kill_at: Some(deadline),
        } = environment.state
        else {
            return;
        };
        for (name, extension) in &mut environment.extensions {
            if extension.waits && std::mem::take(&mut extension.wants.shutdown) {
                extension.waits = false;
                let (extension, reason) = (name.clone(), "spindown");
                self.actions.push_back(Action::TellShutdown {
                    environment: id,
                    extension,
                    reason,
                    deadline,
                });
            }
        }
    }

    /// Ends an environment at once and answers whoever waited for it. Nothing happens to one that was killed already.
    pub(super) fn kill(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        outcome_of: impl FnOnce(&RequestId) -> Outcome,
    ) {
        match self
            .environments
            .get(&id)
            .map(|environment| &environment.state)
        {
            None | Some(State::Ending { kill_at: None }) => return,
            Some(_) => {}
        }
        self.actions.push_back(Action::Kill { environment: id });
        self.end(now, id, None, outcome_of);
    }

    fn end(
        &mut self,
        now: Instant,
        id: EnvironmentId,
        kill_at: Option<Instant>,
        outcome_of: impl FnOnce(&RequestId) -> Outcome,
    ) {
        let environment = self
            .environments
            .get_mut(&id)
            .expect("only environments of the pool are ended");
        let function = environment.function.clone();
        match std::mem::replace(&mut environment.state, State::Ending { kill_at }) {
            State::Starting { request, .. } | State::Busy { request, .. } => {
                let outcome = outcome_of(&request);
                self.finish(now, id, request, outcome);
            }
            State::Returning {
                promised: Some(Promise { request, .. }),
                ..
            } if self.stopping => {
                self.actions.push_back(Action::Refuse {
                    request,
                    refusal: Refusal::Stopping,
                });
            }
            // It was accepted, so it is not refused now: it is the next to be placed.
            State::Returning {
                promised: Some(Promise { request, .. }),
                ..
            } => {
                let expires = self.events.get(&request).map(|event| event.expires);
                self.queue.push_front(Queued {
                    request,
                    function,
                    bytes: 0,
                    not_before: None,
                    expires,
                });
            }
            State::Returning { promised: None, .. } | State::Idle { .. } | State::Ending { .. } => {
            }
        }
    }
}
