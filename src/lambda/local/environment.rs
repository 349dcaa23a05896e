//! One environment: a process in a group of its own, its supervisor, its log, its folder, and the port of its Runtime API.
//!
//! It does what the pool decided and reports what happens to the process. It knows nothing of invocations.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::aws::settings_of_environment;
use crate::lambda::launch::{ENDPOINT_VARIABLE, KEYS_VARIABLE};
use crate::process::supervisor::{self, Link, Report};
use crate::process::{ENVIRONMENT_VARIABLE, scratch, tree};
use crate::{private, random};

use super::decision::EnvironmentId;
use super::function::LocalFunction;
use super::gate::Gate;
use super::log::{Log, LogSink, utc_date};
use super::memory;
use super::message::{Call, Message};
use super::runtime_api;
use super::signature::LocalKeys;

/// How often a busy environment's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);
/// How long what is left of an environment whose supervisor was killed may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// What of this process's environment reaches the functions besides AWS's settings: how to find programs.
const PASSED_ON: [&str; 2] = ["PATH", "LANG"];

/// What all environments of a local Lambda are told of it.
pub(super) struct Surroundings {
    pub(super) region: String,
    /// Where it takes calls.
    pub(super) endpoint: String,
    /// What calls have to be signed with, if they have to.
    pub(super) keys: Option<LocalKeys>,
    /// Who may call their Runtime APIs.
    pub(super) gate: Gate,
}

/// A running environment. Dropping it kills its processes and removes its folder.
pub(super) struct Environment {
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) started: Instant,
    function: Arc<LocalFunction>,
    group: Arc<Group>,
    memory: Arc<MemoryUse>,
    /// API, log reader and supervisor; they end with this.
    _tasks: JoinSet<()>,
    folder: Option<TempDir>,
}

/// What was started: the environment's own process, and mostly a supervisor above it.
struct Group {
    /// The process that this one started: the supervisor, or the environment's own where there is none.
    child: Pid,
    is_supervised: bool,
    state: Mutex<GroupState>,
}

struct GroupState {
    /// The environment's own process, whose process group has its number; until the supervisor has reported it, none.
    leader: Option<Pid>,
    /// Signals for the leader, from before it was known.
    pending: Vec<Signal>,
    /// The child is gone: its number, and that of the group, may be another's.
    reaped: bool,
}

#[derive(Default)]
struct MemoryUse {
    measured: AtomicBool,
    peak_kib: AtomicU64,
}

impl MemoryUse {
    fn measure(&self, group: &Group) -> u64 {
        let used_kib = group.memory_kib();
        self.peak_kib
            .fetch_max(used_kib, Ordering::Relaxed)
            .max(used_kib)
    }
}

impl Environment {
    /// Starts the function's command. The environment's events go to `events`.
    pub(super) fn start(
        id: EnvironmentId,
        function: &Arc<LocalFunction>,
        surroundings: &Surroundings,
        sink: Option<LogSink>,
        events: mpsc::Sender<Message>,
        scratch: &Path,
    ) -> io::Result<Environment> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let api = listener.local_addr()?;
        let folder = private::temporary_folder_in(scratch)?;
        let (output, input) = io::pipe()?;
        let (mut command, link) = command(function, surroundings, api, &folder)?;
        if link.is_none() {
            command.stdin(Stdio::null()).kill_on_drop(true);
        }
        command.stdout(input.try_clone()?).stderr(input);
        let child = command.spawn()?;
        drop(command); // It holds the pipe's writing end, which would keep us from seeing the log's end.
        let id_of_child = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let group = Arc::new(Group::new(
            id_of_child.expect("a child that was just started has a process id"),
            link.is_some(),
        ));

        let mut log = Log::new(&function.name, id.0, sink);
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(output))?;
        log.attach(File::from(
            std::os::fd::AsFd::as_fd(&output).try_clone_to_owned()?,
        ));
        let log = Arc::new(Mutex::new(log));

        let memory = Arc::new(MemoryUse::default());
        memory.measured.store(true, Ordering::Relaxed);
        let limit_kib = u64::from(function.memory_mb) * 1024;
        let mut tasks = JoinSet::new();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = runtime_api::router(id, Arc::clone(function), events.clone());
        tasks.spawn(surroundings.gate.clone().serve(listener, router));
        tasks.spawn(read_log(output, Arc::clone(&log)));
        let process = Process {
            child,
            link,
            folder: folder.path().into(),
            group: Arc::clone(&group),
        };
        tasks.spawn(supervise(
            process,
            id,
            Arc::clone(&memory),
            limit_kib,
            events,
        ));
        Ok(Environment {
            log,
            started: Instant::now(),
            function: Arc::clone(function),
            group,
            memory,
            _tasks: tasks,
            folder: Some(folder),
        })
    }

    pub(super) fn function(&self) -> &LocalFunction {
        &self.function
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// SIGSTOP. The supervisor is not stopped: should this process die, it kills what is.
    pub(super) fn freeze(&self) {
        self.memory.measured.store(false, Ordering::Relaxed);
        self.group.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.memory.measured.store(true, Ordering::Relaxed);
        self.group.signal(Signal::CONT);
    }

    pub(super) fn terminate(&self) {
        self.group.signal(Signal::TERM);
    }

    pub(super) fn kill(&self) {
        self.group.signal(Signal::KILL);
    }

    /// The most memory that it was seen to hold.
    pub(super) fn peak_mb(&self) -> u64 {
        self.memory.measure(&self.group).div_ceil(1024)
    }

    /// Hands out the folder, whose removal may take a while.
    pub(super) fn take_folder(&mut self) -> Option<TempDir> {
        self.folder.take()
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Its task, which ends with this, closes the link: the supervisor then kills what begins just now, and ends.
        self.group.signal(Signal::KILL);
        if let Some(folder) = self.folder.take() {
            remove(folder);
        }
    }
}

/// Removes an environment's folder, which may take a while.
pub(super) fn remove(folder: TempDir) {
    let path = folder.keep();
    if let Err(error) = scratch::remove_folder(&path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

impl Group {
    fn new(child: Pid, is_supervised: bool) -> Group {
        let leader = (!is_supervised).then_some(child);
        Group {
            child,
            is_supervised,
            state: Mutex::new(GroupState {
                leader,
                pending: Vec::new(),
                reaped: false,
            }),
        }
    }

    fn signal(&self, signal: Signal) {
        let mut state = lock(&self.state);
        if state.reaped {
            return;
        }
        if signal == Signal::KILL {
            // Groups of their own too, such as an item's program's.
            for process in tree::descendants(self.child) {
                let _just_gone = rustix::process::kill_process(process, signal);
            }
            if self.is_supervised {
                // Somebody may have stopped it. It sees that its program has ended, clears the rest away, and ends.
                let _just_gone = rustix::process::kill_process(self.child, Signal::CONT);
            }
        }
        match state.leader {
            Some(leader) => signal_group(leader, signal),
            // SIGKILL too: the supervisor may be about to start it.
            None => state.pending.push(signal),
        }
    }

    /// The supervisor has started it.
    fn started(&self, leader: Pid) {
        let mut state = lock(&self.state);
        state.leader = Some(leader);
        if !state.reaped {
            for signal in std::mem::take(&mut state.pending) {
                signal_group(leader, signal);
            }
        }
    }

    /// The child is gone: whatever it left behind goes with it.
    fn end(&self) {
        if !self.is_supervised {
            self.signal(Signal::KILL);
        }
        lock(&self.state).reaped = true;
    }

    /// The supervisor was killed. The kernel kills the leader; this kills the rest of its group.
    fn kill_rest(&self) {
        if let Some(leader) = lock(&self.state).leader {
            signal_group(leader, Signal::KILL);
        }
    }

    fn memory_kib(&self) -> u64 {
        // What a supervisor holds is none of the function's.
        let own = match self.is_supervised {
            true => 0,
            false => memory::resident_kib(self.child),
        };
        own + memory::descendants_kib(self.child)
    }
}

fn signal_group(leader: Pid, signal: Signal) {
    if let Err(error) = rustix::process::kill_process_group(leader, signal) {
        tracing::debug!(group = ?leader, ?signal, %error, "cannot signal an environment; it just ended");
    }
}

/// How Lambda words an end that nobody asked for.
pub(super) fn describe_exit(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(0), _) => "Runtime exited without providing a reason".to_owned(),
            (Some(code), _) => format!("Runtime exited with error: exit status {code}"),
            (None, signal) => {
                let core = if status.core_dumped() {
                    " (core dumped)"
                } else {
                    ""
                };
                format!(
                    "Runtime exited with error: signal: {}{core}",
                    signal_name(signal.unwrap_or_default())
                )
            }
        },
        Err(error) => format!("Runtime exited with error: {error}"),
    }
}

/// The words of Lambda's own supervisor, which is written in Go.
fn signal_name(signal: i32) -> String {
    let names = [
        (Signal::HUP, "hangup"),
        (Signal::INT, "interrupt"),
        (Signal::QUIT, "quit"),
        (Signal::ILL, "illegal instruction"),
        (Signal::TRAP, "trace/breakpoint trap"),
        (Signal::ABORT, "aborted"),
        (Signal::BUS, "bus error"),
        (Signal::FPE, "floating point exception"),
        (Signal::KILL, "killed"),
        (Signal::SEGV, "segmentation fault"),
        (Signal::PIPE, "broken pipe"),
        (Signal::ALARM, "alarm clock"),
        (Signal::TERM, "terminated"),
    ];
    let name = names
        .iter()
        .find(|(known, _)| known.as_raw() == signal)
        .map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("signal {signal}"))
}

fn command(
    function: &LocalFunction,
    surroundings: &Surroundings,
    api: SocketAddr,
    folder: &TempDir,
) -> io::Result<(Command, Option<Link>)> {
    let (home, temporary) = (folder.path().join("home"), folder.path().join("tmp"));
    std::fs::create_dir(&home)?;
    std::fs::create_dir(&temporary)?;
    let task_root = function.task_root.clone().unwrap_or_else(|| home.clone());
    let (program, arguments) = function
        .command
        .split_first()
        .expect("functions without a command are refused");
    let (mut command, link) = match supervisor::command(program.as_ref(), arguments)? {
        Some((command, link)) => (Command::from(command), Some(link)),
        None => {
            let mut command = Command::new(program);
            command.args(arguments);
            (command, None)
        }
    };
    command.current_dir(&task_root).process_group(0).env_clear();
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(settings_of_environment());
    let (year, month, day) = utc_date(SystemTime::now());
    let stream = format!(
        "{year}/{month:02}/{day:02}/[$LATEST]{}",
        random::to_hex(&random::bytes::<16>())
    );
    command
        .env("AWS_REGION", &surroundings.region)
        .env("AWS_DEFAULT_REGION", &surroundings.region)
        .env("TZ", ":UTC")
        .env("HOME", &home)
        .env("TMPDIR", &temporary)
        .env("LAMBDA_TASK_ROOT", &task_root)
        .env("_HANDLER", &function.handler)
        .env("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023")
        .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env(
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
            function.memory_mb.to_string(),
        )
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env(
            "AWS_LAMBDA_LOG_GROUP_NAME",
            format!("/aws/lambda/{}", function.name),
        )
        .env("AWS_LAMBDA_LOG_STREAM_NAME", stream)
        .env("AWS_LAMBDA_RUNTIME_API", api.to_string())
        .env(ENDPOINT_VARIABLE, &surroundings.endpoint)
        .envs(&function.environment)
        .env(ENVIRONMENT_VARIABLE, folder.path());
    if let Some(keys) = &surroundings.keys {
        command.env(KEYS_VARIABLE, keys.written());
    }
    Ok((command, link))
}

/// What is waited for.
struct Process {
    child: Child,
    link: Option<Link>,
    folder: PathBuf,
    group: Arc<Group>,
}

impl Process {
    /// How the environment's own process has ended.
    async fn end(&mut self) -> Call {
        let mut status = None;
        let mut failure = None;
        if let Some(link) = &mut self.link {
            while let Some(report) = link.report().await {
                match report {
                    Report::Started(leader) => {
                        if let Some(leader) = Pid::from_raw(leader) {
                            self.group.started(leader);
                        }
                    }
                    Report::NotStarted(error) => failure = Some(error),
                    Report::Ended(raw) => status = Some(ExitStatus::from_raw(raw)),
                }
            }
        }
        let own = self.child.wait().await;
        if self.link.is_some() && status.is_none() {
            // The supervisor was killed, and has cleared nothing away.
            self.group.kill_rest();
            let folder = self.folder.clone();
            let kill = move || tree::kill_marked(&folder, KILL_TIMEOUT);
            let _no_panic = tokio::task::spawn_blocking(kill).await;
        }
        match (failure, status) {
            (Some(error), _) => Call::NotStarted(io::Error::from_raw_os_error(error)),
            (None, Some(status)) => Call::Exited(Ok(status)),
            (None, None) => Call::Exited(own),
        }
    }
}

/// Waits for the process's end, and looks at its memory meanwhile.
async fn supervise(
    mut process: Process,
    id: EnvironmentId,
    memory: Arc<MemoryUse>,
    limit_kib: u64,
    events: mpsc::Sender<Message>,
) {
    let group = Arc::clone(&process.group);
    let mut interval = tokio::time::interval(MEMORY_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut exceeded = false;
    let mut end = pin!(process.end());
    let ended = loop {
        tokio::select! {
            ended = &mut end => break ended,
            _ = interval.tick() => {}
        }
        if !exceeded && memory.measured.load(Ordering::Relaxed) {
            let used_kib = memory.measure(&group);
            if used_kib > limit_kib {
                exceeded = true;
                group.signal(Signal::KILL); // Now: what it takes while the message waits is this machine's memory.
                let call = Call::MemoryExceeded {
                    used_mb: used_kib.div_ceil(1024),
                };
                let _gone = events.send(Message::Call(id, call)).await;
            }
        }
    };
    group.end();
    let _gone = events.send(Message::Call(id, ended)).await;
}

async fn read_log(output: pipe::Receiver, log: Arc<Mutex<Log>>) {
    let mut buffer = [0; 8192];
    while output.readable().await.is_ok() {
        let mut log = lock(&log);
        // Read and take under one lock, or another reader's later bytes could come first.
        match output.try_read(&mut buffer) {
            Ok(0) => return log.end_line(),
            Ok(bytes) => log.push(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A panic elsewhere leaves logs and flags usable, so it is no reason for another one here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_worded_as_on_lambda() {
        let described = |raw| describe_exit(&Ok(ExitStatus::from_raw(raw)));
        assert_eq!(described(0), "Runtime exited without providing a reason");
        assert_eq!(
            described(3 << 8),
            "Runtime exited with error: exit status 3"
        );
        assert_eq!(described(9), "Runtime exited with error: signal: killed");
        assert_eq!(
            described(11),
            "Runtime exited with error: signal: segmentation fault"
        );
        assert_eq!(
            described(64),
            "Runtime exited with error: signal: signal 64"
        );
    }
}
