//! Child processes: started on a free loopback port, watched, and ended whatever happens.
//!
//! A child dies with its guard ([`Running`], dropped also on errors) and, through `setpriv` of util-linux where there is
//! one, with the thread that started it: start children from `main`'s task or a runtime worker, not from
//! `spawn_blocking`, whose threads come and go. What a child says on stderr goes to a file and into error messages.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time for a server to accept its first connection.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Time between a polite and an impolite end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Ticks of processor time a second, as Linux reports it everywhere.
const CLOCK_TICKS: f64 = 100.0;
const POLL: Duration = Duration::from_millis(5);

/// A server that accepts connections on a loopback port; it ends when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    running: Running,
}

impl Server {
    /// Starts `command(port)` and waits until the port answers. A port can be taken between its choice and its use, so
    /// an early end is tried again with another port.
    ///
    /// # Errors
    /// When the process cannot be started, ends early three times, or does not listen within ten seconds.
    pub async fn start(command: impl Fn(u16) -> Command) -> Result<Server> {
        let mut last = None;
        for _ in 0..3 {
            let port = free_port()?;
            match Server::start_at(port, command(port)).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("three attempts were made"))
    }

    async fn start_at(port: u16, command: Command) -> Result<Server> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut running = Running::start(command)?;
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!(
                    "{} ended early, {status}: {}",
                    running.name,
                    running.errors()
                );
            }
            if begin.elapsed() > START_WITHIN {
                bail!(
                    "{} does not listen at {address} after {START_WITHIN:?}",
                    running.name
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Server { address, running })
    }

    /// Processor time so far and peak memory.
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.running.child.id();
        let proc = |file: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/{file}"))
                .with_context(|| format!("{} (pid {pid}) is gone", self.running.name))
        };
        let stat = proc("stat")?;
        // The name, field 2, may contain spaces but ends with the last parenthesis; utime and stime are fields 14, 15.
        let (_, fields) = stat
            .rsplit_once(')')
            .context("/proc/PID/stat has no name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| -> Result<u64> {
            let field = fields.get(index).context("/proc/PID/stat is short")?;
            Ok(field.parse()?)
        };
        let cpu_s = (ticks(11)? + ticks(12)?) as f64 / CLOCK_TICKS;
        let status = proc("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak_kib = peak
            .and_then(|line| line.trim().strip_suffix("kB"))
            .context("/proc/PID/status has no VmHWM")?
            .trim()
            .parse()?;
        Ok(Usage { cpu_s, peak_kib })
    }
}

/// What a process has used since it started.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub cpu_s: f64,
    pub peak_kib: f64,
}

/// A command that ends with us even when we are killed.
pub fn command(program: impl Into<PathBuf>) -> Command {
    let program = program.into();
    match which("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// A program of the PATH.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Runs a command to its end and returns its stdout.
///
/// # Errors
/// When it fails, or is not done within `limit`.
pub async fn output(command: Command, limit: Duration) -> Result<String> {
    let mut running = Running::start(command)?;
    let begin = Instant::now();
    loop {
        if let Some(status) = running.child.try_wait()? {
            return running.finish(status);
        }
        if begin.elapsed() > limit {
            bail!("{} is not done after {limit:?}", running.name);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A process that is ended when this is dropped.
struct Running {
    name: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    fn start(mut command: Command) -> Result<Running> {
        // The name to tell is that of the program, not of the `setpriv` around it.
        let mut words: Vec<_> = vec![command.get_program().to_string_lossy().into_owned()];
        words.extend(
            command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned()),
        );
        let program = words
            .iter()
            .position(|word| word == "--")
            .map_or(0, |at| at + 1);
        let name = words.get(program).unwrap_or(&words[0]).clone();
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Running {
            name,
            child,
            stdout,
            stderr,
        })
    }

    fn finish(self, status: ExitStatus) -> Result<String> {
        if !status.success() {
            bail!("{} failed, {status}: {}", self.name, self.errors());
        }
        text(&self.stdout)
    }

    fn errors(&self) -> String {
        let all = text(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = all.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join("; ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Politely first: mpirun ends its processes only when it is asked to.
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let begin = Instant::now();
            while begin.elapsed() < END_WITHIN && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(mut file: &File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
