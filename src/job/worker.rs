//! A process that works: it serves invocations until Lambda, on AWS or locally, has no more.

use crate::job::pack;
use crate::lambda::local::LOCAL_VARIABLE;
use crate::lambda::runtime;
use crate::store;
use std::io;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// What lambda_runtime takes from the environment and panics without.
const RUNTIME_VARIABLES: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
];

/// The exit code of a worker that SIGTERM has ended, as shells have it.
const TERMINATED: i32 = 128 + 15;

/// How long blocking work that was abandoned may hold the process.
const ABANDONED_MAX: Duration = Duration::from_millis(500);

/// Why a process does not work for Lambda.
#[derive(Debug, Error)]
pub enum WorkError {
    /// Nobody is there to work for.
    #[error(
        "AWS_LAMBDA_RUNTIME_API is not set, so there is no Lambda to work for; workers are started by \"lswitch invoke\""
    )]
    NoLambda,
    /// Something has set some of what Lambda sets.
    #[error(
        "AWS_LAMBDA_RUNTIME_API is set but {0} is not, so this is no whole Lambda runtime; it must set {all}",
        all = RUNTIME_VARIABLES.join(", ")
    )]
    NoRuntime(&'static str),
    /// It works no more.
    #[error("the Lambda runtime failed: {0}")]
    Runtime(String),
    /// The system does not let it begin.
    #[error("cannot begin to work for Lambda: {0}")]
    System(#[from] io::Error),
}

impl WorkError {
    /// True if it was started in a wrong way.
    pub fn is_usage(&self) -> bool {
        matches!(self, WorkError::NoLambda | WorkError::NoRuntime(_))
    }
}

/// Serves invocations until the runtime goes away.
///
/// # Errors
/// When this process is no function's, or its runtime fails.
pub fn work() -> Result<(), WorkError> {
    if !runtime::is_lambda() {
        return Err(WorkError::NoLambda);
    }
    let is_missing = |name: &&str| std::env::var_os(name).is_none();
    if let Some(name) = RUNTIME_VARIABLES.into_iter().find(|name| is_missing(name)) {
        return Err(WorkError::NoRuntime(name));
    }
    #[cfg(target_os = "linux")]
    if std::env::var_os(LOCAL_VARIABLE).is_some() {
        use rustix::process::{Signal, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    }
    let threads = Runtime::new()?;
    let worked = threads.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let handler = async |event, invocation| {
            let outcome = pack::run(event, invocation).await;
            // Lambda may freeze this process with its answer, and then nothing would abort them.
            store::abort_unfinished_writes().await;
            outcome
        };
        tokio::select! {
            worked = runtime::run(handler) => Ok(worked),
            _ = terminate.recv() => {
                store::abort_unfinished_writes().await;
                // Programs on other threads need not end: nobody waits for their outcome.
                std::process::exit(TERMINATED);
            }
        }
    });
    let worked = worked.map_err(WorkError::System)?;
    threads.shutdown_timeout(ABANDONED_MAX);
    worked.map_err(|error| WorkError::Runtime(error.to_string()))
}
