//! Which environment gets which invocation.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::decision::{Action, EnvironmentId};
use super::super::invocation::{Refusal, RequestId};
use super::{Environment, Pool, Promise, State};

impl Pool {
    /// Finds an environment for an invocation: an idle one, one about to be idle, a new one, in this order.
    pub(super) fn place(
        &mut self,
        now: Instant,
        request: &RequestId,
        function: &str,
    ) -> Result<(), Refusal> {
        if self.place_in_idle(now, request, function) || self.promise(now, request, function) {
            return Ok(());
        }
        self.place_in_new(now, request, function)
    }

    /// Takes the one used last: those that are too many then idle long enough to end.
    pub(super) fn place_in_idle(
        &mut self,
        now: Instant,
        request: &RequestId,
        function: &str,
    ) -> bool {
        let own = self.idle().filter(|(_, _, of)| *of == function);
        let Some((_, id, _)) = own.max() else {
            return false;
        };
        self.deliver(now, id, request.clone());
        true
    }

    fn promise(&mut self, now: Instant, request: &RequestId, function: &str) -> bool {
        let look_elsewhere_at = now + self.limits.patience;
        for environment in self.environments.values_mut() {
            if environment.function == function
                && let State::Returning {
                    promised: promised @ None,
                    ..
                } = &mut environment.state
            {
                *promised = Some(Promise {
                    request: request.clone(),
                    look_elsewhere_at,
                });
                return true;
            }
        }
        false
    }

    /// Starts one; where there is no room, in place of the one that has idled longest.
    pub(super) fn place_in_new(
        &mut self,
        now: Instant,
        request: &RequestId,
        function: &str,
    ) -> Result<(), Refusal> {
        let alive = || {
            let environments = self.environments.values();
            environments.filter(|environment| !environment.is_ending())
        };
        let own = alive().filter(|environment| environment.function == function);
        if let Some(reserved) = self.functions[function].rules.reserved_concurrency
            && own.count() >= reserved as usize
        {
            return Err(Refusal::ReservedConcurrency);
        }
        let in_place_of = match alive().count() >= self.limits.concurrency {
            true => Some(self.idle().min().ok_or(Refusal::Concurrency)?.1),
            false => None,
        };
        if let Some(rates) = &mut self.function(function).rates
            && let Err(room_at) = rates.environments.take(now)
        {
            self.room_at = Some(self.room_at.map_or(room_at, |at| at.min(room_at)));
            return Err(Refusal::ScalingRate);
        }
        if let Some(longest_idle) = in_place_of {
            self.shut_down(now, longest_idle);
        }
        self.start(now, request.clone(), function);
        Ok(())
    }

    fn idle(&self) -> impl Iterator<Item = (Instant, EnvironmentId, &str)> {
        self.environments
            .iter()
            .filter_map(|(id, environment)| match environment.state {
                State::Idle { since } => Some((since, *id, environment.function.as_str())),
                _ => None,
            })
    }

    fn start(&mut self, now: Instant, request: RequestId, function: &str) {
        self.next_environment += 1;
        let id = EnvironmentId(self.next_environment);
        let environment = Environment {
            function: function.to_owned(),
            state: State::Starting {
                request,
                not_before: now + self.functions[function].rules.cold_start,
                until: now + self.limits.init,
            },
            frozen: false,
            runtime_waits: false,
            extensions: BTreeMap::new(),
        };
        self.environments.insert(id, environment);
        self.actions.push_back(Action::Start {
            environment: id,
            function: function.to_owned(),
        });
    }

    /// Hands over what the environment was started for or promised, or lets it idle.
    pub(super) fn if_ready(&mut self, now: Instant, id: EnvironmentId) {
        let Some(environment) = self.environments.get_mut(&id) else {
            return;
        };
        if !environment.is_ready() {
            return;
        }
        let waiting = match &mut environment.state {
            State::Starting { not_before, .. } if now < *not_before => return,
            State::Starting { request, .. } => Some(request.clone()),
            State::Returning { promised, .. } => promised.take().map(|promise| promise.request),
            State::Busy { .. } | State::Idle { .. } | State::Ending { .. } => return,
        };
        if let Some(request) = waiting {
            self.deliver(now, id, request);
            return;
        }
        environment.state = State::Idle { since: now };
        self.serve_queue(now);
        if let Some(environment) = self.environments.get_mut(&id)
            && matches!(environment.state, State::Idle { .. })
        {
            environment.frozen = true;
            self.actions.push_back(Action::Freeze { environment: id });
        }
    }

    fn deliver(&mut self, now: Instant, id: EnvironmentId, request: RequestId) {
        self.thaw(id);
        let environment = self
            .environments
            .get_mut(&id)
            .expect("only environments of the pool are delivered to");
        let deadline = now + self.functions[&environment.function].rules.timeout;
        environment.runtime_waits = false;
        for (name, extension) in environment
            .extensions
            .iter_mut()
            .filter(|(_, extension)| extension.wants.invoke)
        {
            extension.waits = false;
            let (extension, request) = (name.clone(), request.clone());
            self.actions.push_back(Action::TellInvoke {
                environment: id,
                extension,
                request,
                deadline,
            });
        }
        environment.state = State::Busy {
            request: request.clone(),
            deadline,
        };
        self.actions.push_back(Action::Deliver {
            environment: id,
            request,
            deadline,
        });
    }

    pub(super) fn thaw(&mut self, id: EnvironmentId) {
        if let Some(environment) = self.environments.get_mut(&id)
            && std::mem::take(&mut environment.frozen)
        {
            self.actions.push_back(Action::Thaw { environment: id });
        }
    }
}
