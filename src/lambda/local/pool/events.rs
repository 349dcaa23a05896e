//! Events: invocations whose callers do not wait. They stand in line for room, are tried again when they fail, are given
//! up when they are too old, and may come twice, all as their function says.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::decision::{Action, EnvironmentId};
use super::super::invocation::{Outcome, Refusal, RequestId};
use super::Pool;

/// An event that was accepted and is not over.
#[derive(Debug)]
pub(super) struct Event {
    function: String,
    bytes: usize,
    /// When it is dropped if it still waits.
    pub(super) expires: Instant,
    failures: u32,
    /// Deliveries of it that wait or run. All of them have its retries together.
    deliveries: u32,
}

/// An invocation in line.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) request: RequestId,
    pub(super) function: String,
    pub(super) bytes: usize,
    /// When its turn may come, if that is not now.
    pub(super) not_before: Option<Instant>,
    /// When it is dropped. One that a caller waits for never is.
    pub(super) expires: Option<Instant>,
}

impl Queued {
    /// When something happens to it that nobody else brings about.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.into_iter().chain(self.expires).min()
    }
}

impl Pool {
    /// No caller waits: it is placed as soon as there is room.
    pub(in crate::lambda::local) fn enqueue(
        &mut self,
        now: Instant,
        request: RequestId,
        function: &str,
        bytes: usize,
    ) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        if self.queue.len() >= self.limits.queue
            || self.queue_bytes + bytes > self.limits.queue_bytes
        {
            return Err(Refusal::QueueFull);
        }
        let of = self.function(function);
        of.events += 1;
        let twice = of.events.is_multiple_of(of.rules.event_twice_every.into());
        let event = Event {
            function: function.to_owned(),
            bytes,
            expires: now + of.rules.event_age,
            failures: 0,
            deliveries: if twice { 2 } else { 1 },
        };
        for _ in 0..event.deliveries {
            self.stand_in_line(request.clone(), &event, None);
        }
        self.events.insert(request, event);
        self.serve_queue(now);
        Ok(())
    }

    fn stand_in_line(&mut self, request: RequestId, event: &Event, not_before: Option<Instant>) {
        self.queue_bytes += event.bytes;
        self.queue.push_back(Queued {
            request,
            function: event.function.clone(),
            bytes: event.bytes,
            not_before,
            expires: Some(event.expires),
        });
    }

    /// Places what waits, oldest first, until there is no more room. Functions that have all they may have now are
    /// passed over; where the room for all is taken, nobody is, or who has waited longest would wait on.
    pub(super) fn serve_queue(&mut self, now: Instant) {
        self.room_at = None;
        let mut held = BTreeSet::new();
        let mut next = 0;
        while !self.stopping
            && let Some(queued) = self.queue.get(next)
        {
            if queued.not_before.is_some() || held.contains(&queued.function) {
                next += 1;
                continue;
            }
            let (request, function) = (queued.request.clone(), queued.function.clone());
            match self.place(now, &request, &function) {
                Ok(()) => {
                    let placed = self.queue.remove(next).expect("it was just looked at");
                    self.queue_bytes -= placed.bytes;
                }
                Err(Refusal::Concurrency) => return,
                Err(_) => {
                    held.insert(function);
                }
            }
        }
    }

    /// Lets those in whose time has come, and drops those that are too old.
    pub(super) fn tick_queue(&mut self, now: Instant) {
        for mut queued in std::mem::take(&mut self.queue) {
            if queued.expires.is_some_and(|expires| expires <= now) {
                self.queue_bytes -= queued.bytes;
                if !self.delivered(&queued.request) {
                    let request = queued.request;
                    self.actions.push_back(Action::Drop { request });
                }
                continue;
            }
            queued.not_before = queued.not_before.filter(|at| now < *at);
            self.queue.push_back(queued);
        }
    }

    /// A run of an invocation has ended. If it was a failed event, it may be tried again.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        environment: EnvironmentId,
        request: RequestId,
        outcome: Outcome,
    ) {
        let again = !self.stopping
            && (outcome.error_type().is_some() && self.retry(now, &request)
                || self.delivered(&request));
        self.actions.push_back(Action::Finish {
            environment,
            request,
            outcome,
            again,
        });
    }

    /// Has a failed event stand in line again, if it has retries left.
    fn retry(&mut self, now: Instant, request: &RequestId) -> bool {
        let Some(mut event) = self.events.remove(request) else {
            return false;
        };
        let rules = &self.functions[&event.function].rules;
        let retries = event.failures < rules.event_retries;
        if retries {
            let wait = rules.event_retry * (1 << event.failures);
            event.failures += 1;
            self.stand_in_line(request.clone(), &event, Some(now + wait));
        }
        self.events.insert(request.clone(), event);
        retries
    }

    /// One delivery of an event is over. True if there is another.
    pub(super) fn delivered(&mut self, request: &RequestId) -> bool {
        let Some(event) = self.events.get_mut(request) else {
            return false;
        };
        event.deliveries -= 1;
        let others = event.deliveries > 0;
        if !others {
            self.events.remove(request);
        }
        others
    }
}
