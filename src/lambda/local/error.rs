//! What can keep a local Lambda from being set up. What goes wrong later is answered over HTTP, as on AWS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::aws::AwsError;

/// Why a local Lambda, or one of its functions, could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The Invoke API's port could not be opened.
    #[error(
        "cannot listen on {listen} for the local Lambda: {source}; is another one running? Port 0 takes a free one"
    )]
    Listen {
        /// The address that was asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Callers are known by their user on this machine, so the Invoke API stays on it.
    #[error(
        "the local Lambda runs commands for the user that started it, so it listens on loopback only, not on {listen}; use 127.0.0.1"
    )]
    NotLoopback {
        /// The address that was asked for.
        listen: SocketAddr,
    },
    /// Everybody's calls would have to be taken, or nobody's.
    #[error("the local Lambda serves its own user alone and cannot tell who connects: {source}")]
    Users {
        /// What the system said.
        source: io::Error,
    },
    /// No environment would ever be allowed to start.
    #[error("the local Lambda's concurrency is 0, so nothing could ever run; give 1 or more")]
    NoConcurrency,
    /// Two functions have one name.
    #[error("two local functions are named {name:?}; rename one of them")]
    DuplicateFunction {
        /// The name that occurs twice.
        name: String,
    },
    /// A value of a function breaks one of Lambda's rules.
    #[error("function {function}: {key}: {problem}")]
    FunctionValue {
        /// The function's name, or the file that describes it.
        function: String,
        /// The key in the function's file, for example `memory_mb`.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A function's file is no TOML, or has keys that mean nothing.
    #[error("{}:{line}: {problem}; a function has the keys command, handler, memory_mb, timeout_s, task_root and [environment], and for tests cold_start_ms, reuse, reserved_concurrency, event_retries, event_retry_s, event_age_s and event_twice_every", file.display())]
    FunctionFile {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the TOML reader said.
        problem: String,
    },
    /// A function's file, or the folder of functions, could not be read.
    #[error("cannot read {}: {source}; a local function is a file NAME.toml", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not tell where this program is.
    #[error("cannot tell where this program is, which workers must run: {source}")]
    Executable {
        /// What the system says.
        source: io::Error,
    },
    /// AWS's settings, which workers need, cannot be used.
    #[error(transparent)]
    Settings(#[from] AwsError),
    /// A function's command is text.
    #[error("the path of this program is not UTF-8: {}", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
}
