//! The pool's vocabulary: the bounds it keeps, what it decides, and what it says to calls that do not fit.

use std::time::{Duration, Instant};

use super::invocation::{Outcome, Refusal, RequestId};
use super::scaling::Scaling;

/// One environment, never reused for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EnvironmentId(pub(super) u64);

/// The bounds the pool keeps.
#[derive(Debug, Clone)]
pub(super) struct PoolLimits {
    /// Environments at once, over all functions.
    pub(super) concurrency: usize,
    /// How fast each function may get new ones; without it, at once.
    pub(super) scaling: Option<Scaling>,
    /// How long an environment may take from its start to its readiness.
    pub(super) init: Duration,
    /// How long an idle environment is kept.
    pub(super) idle: Duration,
    /// How long a promised invocation waits for a Returning environment before it looks elsewhere.
    pub(super) patience: Duration,
    /// From SIGTERM to SIGKILL, for environments with extensions.
    pub(super) grace: Duration,
    /// Asynchronous invocations that may wait for room, or to be tried again.
    pub(super) queue: usize,
    /// Their payloads together.
    pub(super) queue_bytes: usize,
}

/// Something for the shell to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a process for the function.
    Start {
        environment: EnvironmentId,
        function: String,
    },
    /// SIGSTOP.
    Freeze { environment: EnvironmentId },
    /// SIGCONT.
    Thaw { environment: EnvironmentId },
    /// Answer the runtime's waiting `next`.
    Deliver {
        environment: EnvironmentId,
        request: RequestId,
        deadline: Instant,
    },
    /// Answer an extension's waiting `next` with INVOKE.
    TellInvoke {
        environment: EnvironmentId,
        extension: String,
        request: RequestId,
        deadline: Instant,
    },
    /// Answer an extension's waiting `next` with SHUTDOWN.
    TellShutdown {
        environment: EnvironmentId,
        extension: String,
        reason: &'static str,
        deadline: Instant,
    },
    /// SIGTERM.
    Terminate { environment: EnvironmentId },
    /// SIGKILL.
    Kill { environment: EnvironmentId },
    /// The process is gone: remove what belonged to it.
    Remove { environment: EnvironmentId },
    /// Answer the caller of an invocation that ran.
    Finish {
        environment: EnvironmentId,
        request: RequestId,
        outcome: Outcome,
        /// Whether it is an event that is delivered once more.
        again: bool,
    },
    /// Forget an event that has waited too long.
    Drop { request: RequestId },
    /// Answer the caller of an invocation that did not run.
    Refuse {
        request: RequestId,
        refusal: Refusal,
    },
}

/// A call of the Runtime or Extensions API that does not fit the environment's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misuse {
    /// The request id is not that of the running invocation.
    UnknownRequest,
    /// Nothing of that kind is expected now.
    WrongState,
    /// The extension was never registered.
    UnknownExtension,
}

/// Which events an extension wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Subscriptions {
    pub(super) invoke: bool,
    pub(super) shutdown: bool,
}
