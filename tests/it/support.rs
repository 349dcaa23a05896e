//! What several themes need: test data, the built binary run as a user runs it, and an S3 server in this process.
//!
//! Every process that a test starts is ended with it, and a process that does not end by itself fails the test with
//! what it had printed.

mod cargo_lambda;
mod input_s3;
mod moto;
mod s3;
mod strict_s3;

pub use cargo_lambda::CargoLambda;
pub use input_s3::{InputS3, Objects};
pub use moto::{Moto, sdk_config};
pub use s3::{Fate, S3Server, s3_server, s3_server_with};
pub use strict_s3::{Asked, StrictS3, Verdict};

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lswitch::net::token::Secret;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A file of the test data, below `$LSWITCH_DATA` or `../shared/data` beside the repository. Data are not part of
/// the repository: without them a test says so and passes, except in CI, where that would hide that nothing ran.
pub fn data(path: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let found = std::env::var_os("LSWITCH_DATA")
        .map_or_else(beside, PathBuf::from)
        .join(path);
    if found.exists() {
        return Some(found);
    }
    let missing = format!(
        "{} does not exist; set LSWITCH_DATA to the test data",
        found.display()
    );
    assert!(!is_ci(), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

/// Where `make test` has installed what some tests need, from the variable that it sets. None, and plain words, without it.
pub fn perhaps_installed(variable: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|path| !path.is_empty());
    if path.is_none() {
        eprintln!("skipped: {}", missing(variable, what));
    }
    path.map(PathBuf::from)
}

/// The same for what can be installed everywhere, and so is not missing in CI.
pub fn installed(variable: &str, what: &str) -> Option<PathBuf> {
    let path = perhaps_installed(variable, what);
    assert!(path.is_some() || !is_ci(), "{}", missing(variable, what));
    path
}

fn missing(variable: &str, what: &str) -> String {
    format!("{variable} does not say where {what} is; \"make test\" installs it")
}

/// True where nothing may be skipped.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// For tests with thousands of connections, which take the machine for themselves: one at a time.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}

/// How long a run may take if nothing else is said.
const BOUND: Duration = Duration::from_secs(120);

/// Between two looks at what another process does.
const LOOK: Duration = Duration::from_millis(5);

/// The secret that switches and drivers of tests share.
pub const SECRET: &str = "a secret of the tests";

/// A folder to work in, with a home that has no settings. It is removed at its end.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::Builder::new()
            .prefix("lswitch-it-")
            .tempdir()
            .expect("a temporary folder can be made");
        for name in ["home", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a folder can be made in a new one");
        }
        Place { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().expect("it is below the place");
        fs::create_dir_all(folder).expect("a folder can be made");
        fs::write(&path, content).expect("a file can be written");
        path
    }

    /// The binary with these arguments, which blanks separate.
    pub fn lswitch(&self, arguments: &str) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lswitch"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path());
        self.run(command)
    }

    /// The binary with these arguments, started by a shell that first does `before`.
    pub fn lswitch_after(&self, before: &str, arguments: &str) -> Run {
        let mut command = Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_lswitch");
        command
            .arg("-c")
            .arg(format!("{before}; exec {binary} {arguments}"))
            .current_dir(self.folder.path());
        self.run(command)
    }

    fn run(&self, mut command: Command) -> Run {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("LSWITCH_HOME", self.path("home/.lswitch"))
            .env("TMPDIR", self.path("tmp"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Run {
            command,
            bound: BOUND,
        }
    }

    /// A graph of 256 vertices and 1024 edges in 4 parts, as the store `graph`.
    pub fn small_graph(&self) {
        self.lswitch("generate uniform --scale 8 --edge-factor 4 --seed 7 --out graph.txt")
            .ok();
        self.lswitch("preprocess graph.txt --parts 4 --out graph")
            .ok();
    }

    /// A switch on a free port, and its address. It makes a secret in this place's home if there is none.
    pub fn switch(&self) -> (Running, String) {
        self.switch_with("")
    }

    /// The same, with arguments of its own.
    pub fn switch_with(&self, arguments: &str) -> (Running, String) {
        let serve = format!("serve --listen 127.0.0.1:0 --json {arguments}");
        let serve = self.lswitch(&serve).start();
        let line = serve.first_line();
        let line: Value = serde_json::from_str(&line).expect("serve --json prints JSON");
        let address = line["switch"].as_str().expect("it is a string");
        let address = address.to_owned();
        (serve, address)
    }

    /// The secret in this place's home.
    pub fn secret(&self) -> Secret {
        let text = fs::read_to_string(self.path("home/.lswitch/secret")).expect("serve made one");
        Secret::new(text.trim()).expect("it is long enough")
    }

    /// A local Lambda on a free port, and its endpoint.
    pub fn local(&self) -> (Running, String) {
        self.local_with(&[])
    }

    /// The same with these variables, which its functions get too.
    pub fn local_with(&self, variables: &[(String, String)]) -> (Running, String) {
        fs::create_dir_all(self.path("home/.lswitch/functions")).expect("a folder can be made");
        let local = self.lswitch("local --listen 127.0.0.1:0 --json");
        let local = local.envs(variables).start();
        let line = local.first_line();
        let line: Value = serde_json::from_str(&line).expect("local --json prints JSON");
        let endpoint = line["endpoint"].as_str().expect("it is a string");
        let endpoint = endpoint.to_owned();
        (local, endpoint)
    }

    /// What `invoke --output NAME` wrote.
    pub fn output(&self, name: &str) -> Output {
        let folder = self.path(name);
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("a folder can be read").path());
        let is_part = |path: &PathBuf| path.extension().is_some_and(|end| end == "tsv");
        let files = entries.filter(is_part).map(|path| {
            let name = path.file_name().expect("it has a name").to_string_lossy();
            let bytes = fs::read(&path).expect("a file can be read");
            (name.into_owned(), bytes)
        });
        Output {
            files: files.collect(),
        }
    }

    /// Fails if a local Lambda left folders of its functions behind.
    pub fn assert_nothing_is_left_in_tmp(&self) {
        let left: Vec<_> = fs::read_dir(self.path("tmp"))
            .expect("it was made with the place")
            .map(|entry| entry.expect("a folder can be read").file_name())
            .collect();
        assert!(left.is_empty(), "left in TMPDIR: {left:?}");
    }
}

/// The objects with ranks that a job wrote.
#[derive(PartialEq)]
pub struct Output {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Output {
    /// Every vertex and its rank, by rising id.
    pub fn ranks(&self) -> Vec<(u64, f64)> {
        let mut ranks = Vec::new();
        for (name, bytes) in &self.files {
            let text = std::str::from_utf8(bytes).expect("ranks are text");
            for line in text.lines() {
                let (id, rank) = line
                    .split_once('\t')
                    .unwrap_or_else(|| panic!("{name}: {line:?} is not id<TAB>rank"));
                let id = id.parse().unwrap_or_else(|_| panic!("{name}: {line:?}"));
                let rank = rank.parse().unwrap_or_else(|_| panic!("{name}: {line:?}"));
                ranks.push((id, rank));
            }
        }
        ranks.sort_by_key(|&(id, _)| id);
        ranks
    }
}

/// A run that is being prepared.
pub struct Run {
    command: Command,
    bound: Duration,
}

impl Run {
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Run {
        self.command.arg(argument);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Run {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub fn envs(mut self, variables: &[(String, String)]) -> Run {
        self.command
            .envs(variables.iter().map(|(name, value)| (name, value)));
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Run {
        self.command.stdin(stdin);
        self
    }

    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Run {
        self.command.stdout(stdout);
        self
    }

    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Run {
        self.command.stderr(stderr);
        self
    }

    /// It has to end in this time.
    pub fn within_s(mut self, seconds: u64) -> Run {
        self.bound = Duration::from_secs(seconds);
        self
    }

    pub fn start(mut self) -> Running {
        let shown = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let begun = Instant::now();
        let mut child = self.command.spawn().expect("the binary was built");
        let stdout = Heard::of(child.stdout.take());
        let stderr = Heard::of(child.stderr.take());
        Running {
            child,
            stdout,
            stderr,
            bound: self.bound,
            begun,
            shown,
        }
    }

    pub fn end(self) -> Ended {
        self.start().wait()
    }

    /// Runs it to its end, which must be a good one.
    pub fn ok(self) -> Ended {
        self.end().ok()
    }
}

/// What a process prints, read as it comes.
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: Option<thread::JoinHandle<()>>,
}

impl Heard {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Heard {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let reading = pipe.map(|mut pipe| {
            let bytes = bytes.clone();
            thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    let mut bytes = bytes.lock().expect("no reader panics");
                    bytes.extend_from_slice(&buffer[..count]);
                }
            })
        });
        Heard { bytes, reading }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }

    /// All of it, once nobody can write any more.
    fn all(&mut self) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.reading.as_ref().is_some_and(|it| !it.is_finished()) {
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(LOOK);
        }
        Some(self.so_far())
    }
}

/// A run that goes on. Dropping it kills the process.
pub struct Running {
    child: Child,
    stdout: Heard,
    stderr: Heard,
    bound: Duration,
    begun: Instant,
    shown: String,
}

impl Running {
    /// The first line that it prints to stdout.
    pub fn first_line(&self) -> String {
        let line = || {
            let heard = self.stdout.so_far();
            heard.split_once('\n').map(|(line, _)| line.to_owned())
        };
        self.until("it printed a line", Duration::from_secs(20), line)
    }

    /// What it has printed to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has printed to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has in memory, or had at most, in bytes: `VmRSS` or `VmHWM`.
    pub fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(what));
        let line = line.expect("Linux tells what is resident");
        let number = line.split_whitespace().nth(1).expect("a number follows");
        number.parse::<u64>().expect("it is in KiB") * 1024
    }

    /// True until it ends.
    pub fn is_running(&self) -> bool {
        stat(self.child.id()).is_some_and(|stat| !stat.is_zombie)
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).expect("it was not waited for yet");
    }

    /// Waits until all of so many ranks run in processes that this one started; gives the processes by their ranks.
    pub fn workers(&self, ranks: u32) -> Vec<Worker> {
        self.until("its workers ran", Duration::from_secs(30), || {
            // Each has a supervisor above it, which runs no ranks.
            let mut workers: Vec<Worker> = descendants(self.child.id())
                .into_iter()
                .map(|process| Worker {
                    ranks: ranks_of(process.id),
                    process,
                })
                .filter(|worker| !worker.ranks.is_empty())
                .collect();
            workers.sort_by(|a, b| a.ranks.cmp(&b.ranks));
            let running = workers.iter().flat_map(|worker| &worker.ranks);
            running.copied().eq(0..ranks).then_some(workers)
        })
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if self.begun.elapsed() > self.bound {
                panic!("{} did not end within {:?}", self.so_far(), self.bound);
            }
            thread::sleep(LOOK);
        };
        let took = self.begun.elapsed();
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            panic!(
                "{} ended, but another process holds its output",
                self.so_far()
            );
        };
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr,
            took,
            shown: self.shown.clone(),
        }
    }

    /// Waits until something is so, which this process need not bring about.
    pub fn until_ok<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.until(what, Duration::from_secs(30), look)
    }

    /// From now on it has to end in so many seconds.
    pub fn within_s(mut self, seconds: u64) -> Running {
        self.bound = self.begun.elapsed() + Duration::from_secs(seconds);
        self
    }

    fn until<T>(&self, what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(found) = look() {
                return found;
            }
            let so_far = || self.so_far();
            assert!(
                Instant::now() < deadline,
                "waited {bound:?} until {what}; {}",
                so_far()
            );
            assert!(self.is_running(), "ended before {what}; {}", so_far());
            thread::sleep(LOOK);
        }
    }

    fn so_far(&self) -> String {
        format!(
            "lswitch {}\nstdout: {}\nstderr: {}\n",
            self.shown,
            self.stdout.so_far(),
            self.stderr.so_far()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    shown: String,
}

impl Ended {
    /// Fails unless it exited with 0.
    pub fn ok(self) -> Ended {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Fails unless it exited with `code`, printed nothing to stdout and exactly one message; gives the message.
    pub fn fails_with(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self}");
        assert_eq!(self.stdout, "", "{self}");
        self.message()
    }

    /// The one message of what went wrong, without what was said before it.
    pub fn message(&self) -> &str {
        let starts: Vec<usize> = self
            .stderr
            .match_indices("lswitch: ")
            .map(|(at, _)| at)
            .filter(|&at| at == 0 || self.stderr.as_bytes()[at - 1] == b'\n')
            .collect();
        assert_eq!(starts.len(), 1, "there must be one message: {self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        let message = self.stderr[starts[0]..].trim_end();
        // Only what a worker printed may follow on further lines.
        let more = message.lines().skip(1);
        for line in more {
            let of_worker = line.starts_with("  | ") || line == "the last lines of its output:";
            assert!(of_worker, "{line:?} follows the message: {self}");
        }
        message
    }

    /// What `--json` printed: one line, and nothing else.
    pub fn json(&self) -> Value {
        let lines: Vec<&str> = self.stdout.lines().collect();
        assert!(lines.len() == 1 && self.stdout.ends_with('\n'), "{self}");
        serde_json::from_str(lines[0]).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "lswitch {} ended with {:?} (signal {:?}) after {:.1?}\nstdout: {}\nstderr: {}",
            self.shown, self.code, self.signal, self.took, self.stdout, self.stderr
        )
    }
}

/// Fails unless `message` has every one of these words in it.
pub fn assert_says(message: &str, words: &[&str]) {
    for words in words {
        assert!(
            message.contains(words),
            "{words:?} is missing in: {message}"
        );
    }
}

/// A worker's process and the ranks that run in it.
#[derive(Debug)]
pub struct Worker {
    pub ranks: Vec<u32>,
    pub process: Process,
}

/// A process that some other process started: its number and when it began, since numbers are used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    id: u32,
    began: String,
}

impl Process {
    /// The process that has this number now.
    pub fn of(id: u32) -> Process {
        let began = stat(id).expect("it is there").began;
        Process { id, began }
    }

    /// The same for one that may be gone.
    pub fn try_signal(&self, signal: Signal) {
        if self.is_there() {
            let _just_gone = kill_process(pid(self.id), signal);
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// True of the process with this number.
    pub fn is(&self, id: u32) -> bool {
        self.id == id
    }

    /// The processes that it started.
    pub fn children(&self) -> Vec<Process> {
        children(self.id)
    }

    /// Ends or stops it. The test's own runs started it.
    pub fn signal(&self, signal: Signal) {
        assert!(self.is_there(), "{self:?} is gone already");
        kill_process(pid(self.id), signal).expect("it was there");
    }

    /// True as long as it runs; a zombie that nobody waited for is gone.
    pub fn is_there(&self) -> bool {
        stat(self.id).is_some_and(|stat| stat.began == self.began && !stat.is_zombie)
    }
}

/// Fails unless all of them are gone within the time.
pub fn assert_gone<'a>(processes: impl IntoIterator<Item = &'a Process>, within_s: u64) {
    let deadline = Instant::now() + Duration::from_secs(within_s);
    for process in processes {
        while process.is_there() {
            assert!(
                Instant::now() < deadline,
                "{process:?} is still there after {within_s} s"
            );
            thread::sleep(LOOK);
        }
    }
}

/// The processes that `parent` started.
pub fn children(parent: u32) -> Vec<Process> {
    let numbers = fs::read_dir("/proc")
        .expect("tests of processes need /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|id| Some((id, stat(id)?)))
        .filter(|(_, stat)| stat.parent == parent && !stat.is_zombie)
        .map(|(id, stat)| Process {
            id,
            began: stat.began,
        })
        .collect()
}

/// The processes that `parent` started, and what they have.
pub fn descendants(parent: u32) -> Vec<Process> {
    let mut found = children(parent);
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let more = children(process.id);
        found.extend(more);
        next += 1;
    }
    found
}

/// All processes in whose environment this variable has this value, as all that a test starts has it, in whatever session it is.
pub fn marked(name: &str, value: &str) -> Vec<Process> {
    let variable = format!("{name}={value}");
    let entries = fs::read_dir("/proc").expect("tests of processes need /proc");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found = numbers.filter(|id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        variables.any(|found| found == variable.as_bytes())
    });
    let found = found.filter_map(|id| Some((id, stat(id)?)));
    found
        .filter(|(_, stat)| !stat.is_zombie)
        .map(|(id, stat)| Process {
            id,
            began: stat.began,
        })
        .collect()
}

struct Stat {
    parent: u32,
    began: String,
    is_zombie: bool,
}

fn stat(id: u32) -> Option<Stat> {
    let text = fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    // The program's name is in brackets and may have brackets and blanks in it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        began: (*fields.get(19)?).to_owned(),
    })
}

/// Ranks run on threads that have their names.
fn ranks_of(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let mut ranks: Vec<u32> = threads
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .filter_map(|name| name.trim().strip_prefix("rank ")?.parse().ok())
        .collect();
    ranks.sort_unstable();
    // A thread has the name of the one that started it until it takes its own.
    ranks.dedup();
    ranks
}

fn pid(id: u32) -> Pid {
    let id = i32::try_from(id).expect("process numbers are small");
    Pid::from_raw(id).expect("no process of a test has number 0")
}
