//! A pool: warm workers that run a program's own functions, called like functions of its own.
//!
//! A call goes through the switch to a worker that is there already, and not through an invocation. The driver of the pool is a farm's
//! ([`crate::job::farm`]); it works in the thread that waits for a call (`drive`), and in one of its own otherwise. The local
//! Lambda has another thread, since its processes end with the thread that started them.

mod board;
mod drive;
mod host;
mod pending;
mod stream;

pub use pending::{CallError, Pending};
pub use stream::Outputs;

use crate::aws::AwsSettings;
use crate::job::driver::JobError;
use crate::job::farm::driver::{self as farm, FarmEvent, FarmOutcome, FarmSpec, Further};
use crate::job::farm::message::PAYLOAD_MAX;
use crate::job::farm::schedule::Policy;
use crate::job::fleet::FleetError;
use crate::job::function::{self, Function, begin_call, put_item};
use crate::job::settings::SettingsError;
use crate::net::token::JobId;
use crate::store::StoreError;
use board::{Board, UNDONE_MAX};
use bytes::Bytes;
use drive::Drive;
use host::Host;
use serde::{Serialize, de::DeserializeOwned};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// Why a pool does not start, or has ended before its time.
#[derive(Debug, Error)]
pub enum PoolError {
    /// Asked for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The settings that were looked for.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the workers run on.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The job of the workers.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The system gives no thread, or nothing to wait with.
    #[error("cannot start the pool: {0}")]
    System(#[from] std::io::Error),
}

/// Warm workers for functions that were given to [`crate::init`]. Calls block, may come from any thread, and are not for the
/// threads of an asynchronous program, which awaits what [`Pool::apply_async`] gives.
///
/// ```no_run
/// use lswitch::{Function, Pool};
///
/// fn square(number: u64) -> Result<u64, String> {
///     number.checked_mul(number).ok_or_else(|| format!("{number} is too large"))
/// }
///
/// const SQUARE: Function<u64, u64> = Function::new("square", square);
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // Workers are this program too: they stay in this call.
///     lswitch::init(&[&SQUARE]);
///     let pool = Pool::builder().workers(4).start()?;
///     assert_eq!(pool.apply(&SQUARE, 12)?, 144);
///     let later = pool.apply_async(&SQUARE, 13)?;
///     let squares: Result<Vec<u64>, _> = pool.map(&SQUARE, 0..10_000).into_iter().collect();
///     println!("{} and {:?}", later.wait()?, squares?.last());
///     pool.join()?;
///     Ok(())
/// }
/// ```
///
/// Workers are started with the first call, let go after [`PoolBuilder::idle_timeout`], and started again with the next. A call whose
/// worker is lost is tried on others, so it should not matter if it runs twice; one that returns an error or panics is
/// not tried again. A call and its result have at most 256 MiB each.
///
/// A pool that is dropped ends at once, and what is not done with it; [`Pool::join`] waits for that.
#[derive(Debug)]
pub struct Pool {
    inner: Arc<Inner>,
    keeper: Option<JoinHandle<Result<FarmOutcome, JobError>>>,
    cancel: Option<oneshot::Sender<()>>,
}

/// What calls, which may outlive the pool, share with it.
struct Inner {
    board: Arc<Board>,
    drive: Drive,
    workers: Arc<AtomicU32>,
    workers_max: u32,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Inner({} workers)", self.workers_max)
    }
}

/// What a pool runs on; see [`Pool::builder`].
#[derive(Debug, Clone)]
pub struct PoolBuilder {
    workers: Option<u32>,
    function: Option<String>,
    program: Option<PathBuf>,
    switches: Vec<String>,
    plaintext: bool,
    secret: Option<String>,
    store: String,
    idle: Duration,
    retries: u32,
    timeout: Option<Duration>,
    backups: bool,
    aws: AwsSettings,
}

impl PoolBuilder {
    /// How many workers there are at most; one for each processor of this machine otherwise.
    pub fn workers(mut self, workers: u32) -> PoolBuilder {
        self.workers = Some(workers);
        self
    }

    /// The function on AWS whose instances are the workers: a zip with this program as `bootstrap`. It needs
    /// [`workers`](PoolBuilder::workers), a [`switch`](PoolBuilder::switch) and a [`store`](PoolBuilder::store) that it can
    /// reach. Without it workers run on this machine, in a local Lambda.
    pub fn function(mut self, name: impl Into<String>) -> PoolBuilder {
        self.function = Some(name.into());
        self
    }

    /// The program that the workers on this machine run, if it is not this one; it must give the same functions to
    /// [`crate::init`].
    pub fn program(mut self, program: impl Into<PathBuf>) -> PoolBuilder {
        self.program = Some(program.into());
        self
    }

    /// The switch as workers reach it, `HOST:PORT#SHA256` as `lswitch serve` prints it, or several by commas. Without it one runs
    /// in this process.
    pub fn switch(mut self, addresses: &str) -> PoolBuilder {
        let named = addresses.split(',').map(str::trim);
        self.switches = named
            .filter(|address| !address.is_empty())
            .map(str::to_string)
            .collect();
        self
    }

    /// That switch may be off loopback and speak plain TCP, so that its address names no certificate. `LSWITCH_PLAINTEXT=1` says
    /// the same.
    pub fn plaintext(mut self) -> PoolBuilder {
        self.plaintext = true;
        self
    }

    /// The secret of that switch. Without it, it is found as `lswitch invoke` finds it: `LSWITCH_SECRET`, `LSWITCH_SECRET_FILE`,
    /// `$LSWITCH_HOME/secret`.
    pub fn secret(mut self, secret: impl Into<String>) -> PoolBuilder {
        self.secret = Some(secret.into());
        self
    }

    /// The store that functions find in their context: a directory or `s3://bucket/prefix`; `./.lswitch` otherwise.
    pub fn store(mut self, location: impl Into<String>) -> PoolBuilder {
        self.store = location.into();
        self
    }

    /// Workers that had nothing to do for so long are let go; 60 s otherwise. Idle seconds cost money on AWS.
    pub fn idle_timeout(mut self, idle: Duration) -> PoolBuilder {
        self.idle = idle;
        self
    }

    /// How often a call is tried again that has lost its worker; 2 times otherwise.
    pub fn retries(mut self, retries: u32) -> PoolBuilder {
        self.retries = retries;
        self
    }

    /// The pool ends after so long, whatever it is at; never otherwise.
    pub fn timeout(mut self, timeout: Duration) -> PoolBuilder {
        self.timeout = Some(timeout);
        self
    }

    /// Idle workers run copies of the slowest calls, and the first answer counts.
    pub fn backups(mut self, backups: bool) -> PoolBuilder {
        self.backups = backups;
        self
    }

    /// AWS's region; AWS's own rules otherwise.
    pub fn region(mut self, region: impl Into<String>) -> PoolBuilder {
        self.aws.region = Some(region.into());
        self
    }

    /// AWS's profile; AWS's own rules otherwise.
    pub fn profile(mut self, profile: impl Into<String>) -> PoolBuilder {
        self.aws.profile = Some(profile.into());
        self
    }

    /// Starts the pool; workers are started with the first call.
    ///
    /// # Errors
    /// When something is missing, or the switch or the store cannot be reached.
    pub fn start(self) -> Result<Pool, PoolError> {
        let workers = self.check()?;
        let drive = Drive::new()?;
        let host = Host::start(&self, workers)?;
        let spec = FarmSpec {
            id: JobId::random(),
            program: function::PROGRAM.name.into(),
            arguments: serde_json::Value::Null,
            workers,
            levels: 1,
            store: host.store.clone(),
            policy: Policy {
                retries: self.retries,
                backups: self.backups,
            },
            timeout: self.timeout,
            lazy: true,
            idle: Some(self.idle),
            more: serde_json::Map::new(),
        };
        let (sender, tasks) = mpsc::channel(UNDONE_MAX);
        let inner = Arc::new(Inner {
            board: Arc::new(Board::new(sender)),
            drive,
            workers: Arc::default(),
            workers_max: workers,
        });
        let (cancel, cancelled) = oneshot::channel();
        let (created, creation) = oneshot::channel();
        let running = inner.drive.runtime().spawn({
            let (board, workers) = (Arc::clone(&inner.board), Arc::clone(&inner.workers));
            let (switch, launcher) = (host.switch.clone(), host.launcher.clone());
            async move {
                let mut created = Some(created);
                let cancel = async {
                    if cancelled.await.is_err() {
                        // The pool was joined: there is nothing to cancel any more.
                        std::future::pending::<()>().await;
                    }
                };
                let mut hear = |event| {
                    match event {
                        FarmEvent::Settled(outcome) => board.settled(outcome),
                        FarmEvent::Workers(count) => workers.store(count, Ordering::Relaxed),
                        FarmEvent::Lost(why) => warn!("a worker was lost: {why}"),
                        FarmEvent::Created { .. } => {
                            let _ = created.take().map(|created| created.send(()));
                        }
                        FarmEvent::Traffic(_) | FarmEvent::Waiting => {}
                    }
                    Further::On
                };
                let ran = farm::run(&spec, &switch, &launcher, cancel, tasks, &mut hear).await;
                workers.store(0, Ordering::Relaxed);
                board.end(&match &ran {
                    Ok(_) => "it was closed, and all calls are done".to_string(),
                    Err(JobError::Interrupted) => "it was dropped".to_string(),
                    Err(error) => error.to_string(),
                });
                ran
            }
        });
        let keeper = thread::Builder::new().name("lswitch pool".into()).spawn({
            let inner = Arc::clone(&inner);
            move || {
                let ran = inner.drive.keep(running);
                host.stop();
                ran.unwrap_or_else(|error| {
                    let what = format!("the pool's driver panicked: {error}");
                    inner.board.end(&what);
                    Err(JobError::Report(what))
                })
            }
        })?;
        let pool = Pool {
            inner,
            keeper: Some(keeper),
            cancel: Some(cancel),
        };
        match pool.inner.drive.wait(creation) {
            Ok(()) => Ok(pool),
            // It has ended, and says why.
            Err(_) => pool.join().and_then(|_| {
                let what = "the pool ended before it began".to_string();
                Err(PoolError::Usage(what))
            }),
        }
    }

    /// Refuses what cannot be; gives how many workers there are.
    fn check(&self) -> Result<u32, PoolError> {
        let usage = |what: &str| Err(PoolError::Usage(what.into()));
        if self.function.is_none() && crate::lambda::runtime::is_lambda() {
            return usage(
                "this process was started as a worker, which starts no pool of its own; call lswitch::init first in main",
            );
        }
        if self.function.is_none() && self.program.is_none() && !function::is_registered() {
            return usage(
                "workers run this program: call lswitch::init with its functions first in main",
            );
        }
        match (self.workers, &self.function) {
            (Some(0), _) => usage("a pool needs at least one worker"),
            (Some(workers), _) => Ok(workers),
            (None, Some(_)) => usage("say how many workers the pool has on AWS"),
            (None, None) => {
                Ok(thread::available_parallelism().map_or(1, |count| count.get() as u32))
            }
        }
    }
}

impl Pool {
    /// What a pool runs on. As it is: this machine, a switch in this process, a worker for each processor.
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            workers: None,
            function: None,
            program: None,
            switches: Vec::new(),
            plaintext: false,
            secret: None,
            store: "./.lswitch".into(),
            idle: Duration::from_secs(60),
            retries: 2,
            timeout: None,
            backups: false,
            aws: AwsSettings::default(),
        }
    }

    /// Calls a function on a worker, and waits for its result.
    ///
    /// # Errors
    /// As the call fails.
    pub fn apply<Arguments: Serialize, Output: DeserializeOwned, Error>(
        &self,
        function: &Function<Arguments, Output, Error>,
        arguments: Arguments,
    ) -> Result<Output, CallError> {
        let call = call_of(function, &arguments)?;
        let board = &self.inner.board;
        // The order is given within the runtime, where nobody must be woken for it.
        let mut number = None;
        let answered = self.inner.drive.wait(poll_fn(|context| {
            if number.is_none() {
                match std::task::ready!(board.poll_give(context, &call)) {
                    Ok(given) => number = Some(given),
                    Err(error) => return std::task::Poll::Ready(Err(error)),
                }
            }
            let number = number.expect("it was just given");
            board.poll_answer(context, number)
        }));
        pending::output_of(answered)
    }

    /// Gives a call to the workers, and does not wait for its result. It waits only while there are 65,536 calls, or calls of 64 MiB,
    /// that are not done.
    ///
    /// # Errors
    /// When the arguments are too long, or the pool was closed or has ended.
    pub fn apply_async<Arguments: Serialize, Output: DeserializeOwned, Error>(
        &self,
        function: &Function<Arguments, Output, Error>,
        arguments: Arguments,
    ) -> Result<Pending<Output>, CallError> {
        let call = call_of(function, &arguments)?;
        let Inner { board, drive, .. } = &*self.inner;
        let mut at_once = std::task::Context::from_waker(std::task::Waker::noop());
        let number = match board.poll_give(&mut at_once, &call) {
            std::task::Poll::Ready(given) => given?,
            std::task::Poll::Pending => {
                drive.wait(poll_fn(|context| board.poll_give(context, &call)))?
            }
        };
        drive.want();
        Ok(Pending::new(Arc::clone(&self.inner), number))
    }

    /// Calls a function on each item, several items in a message while they are short; gives all results in the order of the items.
    /// For a function of several arguments items are tuples.
    pub fn map<Items, Output, Error>(
        &self,
        function: &Function<Items::Item, Output, Error>,
        items: Items,
    ) -> Vec<Result<Output, CallError>>
    where
        Items: IntoIterator<Item: Serialize>,
        Output: DeserializeOwned,
    {
        self.stream(function, items).collect()
    }

    /// As [`Pool::map`], for who takes the results one by one: items are taken a bounded way ahead of them.
    pub fn stream<'a, Items, Output, Error>(
        &self,
        function: &'a Function<Items::Item, Output, Error>,
        items: Items,
    ) -> Outputs<'a, Items::IntoIter, Output, Error>
    where
        Items: IntoIterator<Item: Serialize>,
        Output: DeserializeOwned,
    {
        Outputs::new(Arc::clone(&self.inner), function, items.into_iter())
    }

    /// How many workers are there now.
    pub fn workers(&self) -> u32 {
        self.inner.workers.load(Ordering::Relaxed)
    }

    /// Takes no more calls. Those that were given are finished.
    pub fn close(&self) {
        self.inner.board.close();
    }

    /// Closes the pool, waits until all calls are done, and ends its workers.
    ///
    /// # Errors
    /// Why the pool ended before its time, if it did.
    pub fn join(mut self) -> Result<FarmOutcome, PoolError> {
        self.close();
        self.end().map_or_else(
            || Err(PoolError::Usage("the pool was joined before".into())),
            |ran| Ok(ran?),
        )
    }

    fn end(&mut self) -> Option<Result<FarmOutcome, JobError>> {
        let keeper = self.keeper.take()?;
        self.inner.drive.want();
        let what = || Err(JobError::Report("the pool's keeper panicked".into()));
        Some(keeper.join().unwrap_or_else(|_| what()))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take()
            && self.keeper.is_some()
        {
            let _ = cancel.send(());
            let _ = self.end();
        }
    }
}

/// A call of one item.
fn call_of<Arguments: Serialize, Output, Error>(
    function: &Function<Arguments, Output, Error>,
    arguments: &Arguments,
) -> Result<Bytes, CallError> {
    let mut call = begin_call(function.name());
    let head = call.len() + function::ITEM_LEN;
    put_item(&mut call, arguments).map_err(CallError::Refused)?;
    if call.len() > PAYLOAD_MAX {
        return Err(too_long(function.name(), call.len() - head));
    }
    Ok(call.into())
}

fn too_long(function: &'static str, bytes: usize) -> CallError {
    let most = PAYLOAD_MAX - 1 - function.len() - function::ITEM_LEN;
    CallError::TooLong {
        function,
        bytes,
        most,
    }
}
