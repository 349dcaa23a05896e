//! What the two APIs and the processes tell the dispatcher, and what they are answered.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::decision::{EnvironmentId, Misuse, Subscriptions};
use super::function::LocalFunction;
use super::invocation::{Outcome, Refusal, RequestId};

/// Something that happened.
pub(super) enum Message {
    Invoke(Box<Invocation>),
    Call(EnvironmentId, Call),
    /// Answered when all environments are gone, or after [`STOP_LIMIT`](super::dispatcher::STOP_LIMIT).
    Stop(oneshot::Sender<()>),
}

/// An invocation as it came from the Invoke API.
pub(super) struct Invocation {
    pub(super) request: RequestId,
    pub(super) function: Arc<LocalFunction>,
    pub(super) work: Work,
    /// Whether the caller wants to know no more than that it was accepted.
    pub(super) is_event: bool,
    pub(super) answer: Option<oneshot::Sender<Answer>>,
}

/// What a runtime is told about an invocation.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) payload: Bytes,
    pub(super) arn: String,
    pub(super) trace: String,
    pub(super) client_context: Option<String>,
}

/// What the caller of an invocation is told.
pub(super) enum Answer {
    Accepted,
    Ran { outcome: Outcome, log_tail: Vec<u8> },
    Refused(Refusal),
}

/// What comes from an environment: calls of its Runtime and Extensions API, and its process's fate.
pub(super) enum Call {
    RuntimeNext(oneshot::Sender<Result<Handed, Misuse>>),
    Finished {
        request: RequestId,
        outcome: Outcome,
        done: Done,
    },
    InitFailed {
        outcome: Outcome,
        done: Done,
    },
    Register {
        extension: String,
        wants: Subscriptions,
        done: Done,
    },
    ExtensionNext {
        extension: String,
        event: oneshot::Sender<Result<ExtensionEvent, Misuse>>,
    },
    ExtensionFailed {
        extension: String,
        error_type: String,
        done: Done,
    },
    MemoryExceeded {
        used_mb: u64,
    },
    /// The environment's command cannot be started.
    NotStarted(io::Error),
    Exited(io::Result<ExitStatus>),
}

pub(super) type Done = oneshot::Sender<Result<(), Misuse>>;

/// An invocation handed to a runtime.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) request: RequestId,
    pub(super) deadline_ms: u64,
    pub(super) work: Work,
}

/// What an extension is told.
#[derive(Debug)]
pub(super) enum ExtensionEvent {
    Invoke {
        deadline_ms: u64,
        request: RequestId,
        arn: String,
        trace: String,
    },
    Shutdown {
        deadline_ms: u64,
        reason: &'static str,
    },
}
