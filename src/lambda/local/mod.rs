//! A Lambda on this machine: the Invoke API on one loopback port, the Runtime API for each environment, one process for
//! each invocation that runs at a time. Whatever runs on AWS through these two APIs runs here without an account.
//!
//! [`LocalLambda::start`] takes [`LocalFunction`]s and gives an endpoint for any AWS SDK. As on AWS: environments are
//! reused, and frozen while idle; time-out and memory are enforced by killing; payloads are limited; what is above the
//! concurrency gets `TooManyRequestsException`; a caller who leaves does not end an invocation. Unlike AWS: there is one
//! version of each function, callers are known by their user instead of their keys ([`Admission`]), and CPU is not rationed.
//!
//! What makes jobs slow or hurts them on AWS happens to those who ask for it: [`LocalFunction`] has switches for cold
//! starts, environments that are not reused, a concurrency of the function's own, and events that are tried again when
//! they fail, dropped when they are old, or come twice; [`LocalOptions`] has one for Lambda's [`Scaling`] rate. Without
//! them an environment serves as soon as it is up, and an event runs once, whether it fails or not.
//!
//! ```text
//! gate ─ invoke_api ──┐                    ┌─ pool: what to do (pure)
//!                     ├─ messages ─ dispatcher
//! gate ─ runtime_api ─┘                    └─ environment: a process, its log, its memory
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

mod body;
mod decision;
mod dispatcher;
mod environment;
mod error;
mod function;
mod gate;
mod invocation;
mod invoke_api;
mod log;
mod memory;
mod message;
mod own;
#[cfg(target_os = "linux")]
mod peer;
mod pool;
#[cfg(target_os = "linux")]
mod proc_net;
mod runtime_api;
mod scaling;
mod signature;
#[cfg(target_os = "linux")]
mod sock_diag;

pub use error::LocalError;
pub use function::LocalFunction;
pub use log::{LogLine, LogSink};
pub use own::{DEFAULT_FUNCTION, LOCAL_VARIABLE, function_of, own_function};
pub use scaling::Scaling;
pub use signature::LocalKeys;

use decision::PoolLimits;
use dispatcher::{Dispatcher, STOP_LIMIT};
use environment::Surroundings;
use gate::Gate;
use invoke_api::InvokeApi;
use message::Message;

/// Lambda's limit for the time from an environment's start to its readiness.
const INIT_LIMIT: Duration = Duration::from_secs(10);
/// AWS keeps idle environments for some minutes and does not say how many.
const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// A runtime asks for the next invocation within a millisecond of its answer, unless it has something to clear away.
const RETURN_PATIENCE: Duration = Duration::from_millis(50);
/// What Lambda gives processes with internal extensions between SIGTERM and SIGKILL.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// Events that wait for room or to be tried again, and their payloads together: AWS keeps hours of them, a laptop has
/// bounded memory.
const EVENTS_MAX: usize = 1024;
const EVENTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Where the functions think they are, if nothing else says so.
const DEFAULT_REGION: &str = "us-east-1";

/// Whose calls a local Lambda takes. Its functions run with the rights and keys of the user that started it, so nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Connections of this process's own user, to both APIs. Clients need nothing for it. On Linux alone.
    SameUser,
    /// Invocations that are signed with the keys of [`LocalLambda::keys`]. The Runtime API, whose clients do not sign, then has
    /// only the order of its calls and its port, which nobody is told.
    Signature,
}

/// What this system has: the first on Linux, the second elsewhere.
impl Default for Admission {
    fn default() -> Admission {
        if cfg!(target_os = "linux") {
            Admission::SameUser
        } else {
            Admission::Signature
        }
    }
}

/// What a local Lambda serves, and how much of it at once.
pub struct LocalOptions {
    /// The Invoke API's address, on loopback; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The functions, each with a name of its own.
    pub functions: Vec<LocalFunction>,
    /// Environments at once, over all functions; synchronous invocations above it are refused with 429, events wait.
    pub concurrency: usize,
    /// How fast each function gets new environments. Synchronous invocations that need one sooner are refused with 429,
    /// events wait. Without it they start as fast as this machine starts processes.
    pub scaling: Option<Scaling>,
    /// Whose calls are taken.
    pub admission: Admission,
    /// Gets each line that the functions, and Lambda about them, log.
    pub log_sink: Option<LogSink>,
}

impl fmt::Debug for LocalOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LocalOptions {
            listen,
            functions,
            concurrency,
            scaling,
            admission,
            log_sink,
        } = self;
        formatter
            .debug_struct("LocalOptions")
            .field("listen", listen)
            .field("functions", functions)
            .field("concurrency", concurrency)
            .field("scaling", scaling)
            .field("admission", admission)
            .field("log_sink", &log_sink.is_some())
            .finish()
    }
}

/// A running local Lambda. Dropping it kills its environments without waiting for them; [`LocalLambda::stop`] waits.
#[derive(Debug)]
pub struct LocalLambda {
    address: SocketAddr,
    keys: Option<LocalKeys>,
    messages: mpsc::Sender<Message>,
    server: AbortHandle,
    dispatcher: JoinHandle<()>,
}

impl LocalLambda {
    /// Starts serving, in tasks of the current tokio runtime. No function is started before it is invoked.
    ///
    /// # Errors
    /// A function breaks AWS's limits, two have one name, the address cannot be had, or users cannot be told apart.
    pub async fn start(options: LocalOptions) -> Result<LocalLambda, LocalError> {
        let LocalOptions {
            listen,
            functions: given,
            concurrency,
            scaling,
            admission,
            log_sink,
        } = options;
        if !listen.ip().is_loopback() {
            return Err(LocalError::NotLoopback { listen });
        }
        if concurrency == 0 {
            return Err(LocalError::NoConcurrency);
        }
        let mut functions = BTreeMap::new();
        for function in given {
            function.check()?;
            if let Some(former) = functions.insert(function.name.clone(), Arc::new(function)) {
                return Err(LocalError::DuplicateFunction {
                    name: former.name.clone(),
                });
            }
        }
        let functions = Arc::new(functions);
        let listen_error = |source| LocalError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let same_user = admission == Admission::SameUser;
        let gate = Gate::new(address, same_user, invoke_api::BOUNDS)
            .map_err(|source| LocalError::Users { source })?;
        let keys = (!same_user).then(LocalKeys::random);
        let limits = PoolLimits {
            concurrency,
            scaling,
            init: INIT_LIMIT,
            idle: IDLE_LIMIT,
            patience: RETURN_PATIENCE,
            grace: SHUTDOWN_GRACE,
            queue: EVENTS_MAX,
            queue_bytes: EVENTS_BYTES_MAX,
        };
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .iter()
            .find_map(|name| std::env::var(name).ok());
        let region = region
            .filter(|region| !region.is_empty())
            .unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let (dispatcher, messages) = Dispatcher::new(
            limits,
            Arc::clone(&functions),
            Surroundings {
                region: region.clone(),
                endpoint: format!("http://{address}"),
                keys: keys.clone(),
                gate: gate.with(runtime_api::BOUNDS),
            },
            log_sink,
        );
        let dispatcher = tokio::spawn(dispatcher.run());
        let api = InvokeApi::new(functions, &region, keys.clone(), messages.clone());
        let server = tokio::spawn(gate.serve(listener, api.router())).abort_handle();
        tracing::debug!(%address, concurrency, "the local Lambda serves");
        Ok(LocalLambda {
            address,
            keys,
            messages,
            server,
            dispatcher,
        })
    }

    /// What to give an AWS SDK as its endpoint, such as `http://127.0.0.1:9001`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What clients have to sign with, if they have to ([`Admission::Signature`]).
    pub fn keys(&self) -> Option<&LocalKeys> {
        self.keys.as_ref()
    }

    /// Refuses new invocations, ends all environments, and waits until their processes and folders are gone. Those
    /// with extensions get half a second to end by themselves, those of functions with a grace as long as that; the whole
    /// takes a few seconds at most.
    pub async fn stop(self) {
        self.server.abort();
        let (stopped, all_gone) = oneshot::channel();
        let stop = async {
            if self.messages.send(Message::Stop(stopped)).await.is_ok() {
                let _ended = all_gone.await;
            }
        };
        if tokio::time::timeout(STOP_LIMIT + STOP_LIMIT, stop)
            .await
            .is_err()
        {
            tracing::warn!("the local Lambda did not stop in time; its environments are killed");
        }
    }
}

impl Drop for LocalLambda {
    fn drop(&mut self) {
        self.server.abort();
        self.dispatcher.abort();
    }
}
