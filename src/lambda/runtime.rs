//! The worker's side of Lambda: takes invocations from the Runtime API and hands them to a handler.
//!
//! The same on AWS and on the local Lambda, since both speak the Runtime API and lambda_runtime drives it.

use crate::lambda::event::Event;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

/// The time taken for an invocation's when the runtime names a deadline that has passed, as one known emulator does.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(900);

/// What the runtime says of one invocation.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Lambda's id of the request.
    pub request_id: String,
    /// When the invocation is ended by Lambda.
    pub deadline: Instant,
}

/// Why an invocation failed, as Lambda reports it to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A short name for programs, such as `Lswitch.Refused`.
    pub kind: &'static str,
    /// What was wrong, where, and what to do.
    pub message: String,
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Diagnostic {
        Diagnostic {
            error_type: failure.kind.into(),
            error_message: failure.message,
        }
    }
}

/// True if this process was started by Lambda, on AWS or locally: decided before any argument is looked at, since
/// Lambda passes none.
pub fn is_lambda() -> bool {
    std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some()
}

/// Serves invocations until the runtime goes away.
///
/// # Errors
/// When the Runtime API cannot be reached or breaks its contract.
pub async fn run<H, F>(handler: H) -> Result<(), lambda_runtime::Error>
where
    H: Fn(Event, Invocation) -> F,
    F: Future<Output = Result<Value, Failure>>,
{
    let handler = &handler;
    lambda_runtime::run(service_fn(move |request: LambdaEvent<Value>| async move {
        let LambdaEvent { payload, context } = request;
        let event = Event::parse(payload).map_err(|error| Failure {
            kind: "Lswitch.Event",
            message: error.to_string(),
        })?;
        let invocation = Invocation {
            deadline: deadline(context.deadline),
            request_id: context.request_id,
        };
        handler(event, invocation).await.map_err(Diagnostic::from)
    }))
    .await
}

/// The runtime's deadline, milliseconds since 1970, on this process's clock.
fn deadline(epoch_ms: u64) -> Instant {
    let now_ms = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64);
    let left = match epoch_ms.checked_sub(now_ms) {
        Some(left_ms) if left_ms > 0 => Duration::from_millis(left_ms),
        _ => DEADLINE_DEFAULT,
    };
    Instant::now() + left
}
