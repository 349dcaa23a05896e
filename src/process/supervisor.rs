//! A small process between a process and what it has started, which leaves nothing behind.
//!
//! The supervisor is a child subreaper: what descends from its program is handed to it when its parent ends, in whatever session
//! or process group it is. When the program ends, the supervisor kills the rest and ends. When the process that started
//! it ends, however that came, their link breaks, and the supervisor kills all. When the supervisor is killed, the kernel kills
//! the program, and whoever started it looks for what is left ([`super::tree::kill_marked`]).
//!
//! The supervisor is in a process group of its own and not in its program's, so that a frozen program has a supervisor that runs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::{leash, tree, was_ignored};

/// The role's name on the command line; then the program and its arguments.
pub const ROLE: &str = "--lswitch-supervise";

/// How long processes that were killed may take to be gone: those in the middle of a slow disk's or network's work.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at processes that were killed.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Exit code of a supervisor that cannot do its work.
const FAILED: i32 = 70;

/// Bytes of a report: kind, value.
const REPORT_LEN: usize = 8;

/// What a supervisor reports over the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The program's process id, which is its process group's too.
    Started(i32),
    /// The program cannot be started: the system's error code.
    NotStarted(i32),
    /// The program and all that it left behind are gone: its status, as `wait` has it.
    Ended(i32),
}

impl Report {
    /// The report's bytes.
    pub fn encode(self) -> [u8; REPORT_LEN] {
        let (kind, value) = match self {
            Report::Started(id) => (1_i32, id),
            Report::NotStarted(error) => (2, error),
            Report::Ended(status) => (3, status),
        };
        let mut bytes = [0; REPORT_LEN];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; REPORT_LEN]) -> Option<Report> {
        let [a, b, c, d, value @ ..] = bytes;
        let value = i32::from_le_bytes(value);
        match i32::from_le_bytes([a, b, c, d]) {
            1 => Some(Report::Started(value)),
            2 => Some(Report::NotStarted(value)),
            3 => Some(Report::Ended(value)),
            _ => None,
        }
    }
}

/// The end of the link that the supervisor's parent holds. Closing it ends all that is supervised.
#[derive(Debug)]
pub struct Link(UnixStream);

impl Link {
    /// The next report; `None` when the supervisor is gone.
    pub async fn report(&mut self) -> Option<Report> {
        let mut bytes = [0; REPORT_LEN];
        self.0.read_exact(&mut bytes).await.ok()?;
        Report::decode(bytes)
    }
}

/// The command for a supervised program, and the link to its supervisor: the command's standard input is taken. `None` where this
/// binary has no roles. Must be called within a tokio runtime.
///
/// # Errors
/// When there is no room for the link.
pub fn command(
    program: &OsStr,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> io::Result<Option<(Command, Link)>> {
    let Some(mut command) = super::in_role(ROLE) else {
        return Ok(None);
    };
    let (own, other) = StdUnixStream::pair()?;
    own.set_nonblocking(true)?;
    command
        .arg(program)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(other)));
    Ok(Some((command, Link(UnixStream::from_std(own)?))))
}

/// Supervises the program until it ends or the link breaks.
pub(super) fn main(arguments: impl Iterator<Item = OsString>) -> ! {
    super::HAS_ROLES.store(true, std::sync::atomic::Ordering::Relaxed);
    let Some((program, arguments)) = super::program(arguments) else {
        exit(FAILED);
    };
    // Not the binary's own name: who ends all of those leaves the one that clears away.
    let _ = rustix::thread::set_name(c"supervisor");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let supervised = runtime.and_then(|runtime| runtime.block_on(supervise(&program, &arguments)));
    match supervised {
        Ok(()) => exit(0),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(io::stderr(), "lswitch: the supervisor failed: {error}");
            kill_all(None);
            exit(FAILED)
        }
    }
}

async fn supervise(program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    become_subreaper()?;
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    let link = StdUnixStream::from(link);
    link.set_nonblocking(true)?;
    let mut link = UnixStream::from_std(link)?;
    // Before the program starts: none of its children's ends, and no signal, is missed.
    let mut child_ended = signal(SignalKind::child())?;
    let mut hangup = match was_ignored(Signal::HUP) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let worker = start(program, arguments)?;
    let started = Report::Started(worker.as_raw_nonzero().get());
    // A parent that is gone is noticed below.
    let _gone = link.write_all(&started.encode()).await;
    let mut status = None;
    let mut nothing = [0; 1];
    while status.is_none() {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = child_ended.recv() => status = reap(worker),
            // Nothing is ever sent this way.
            _ = link.read(&mut nothing) => break,
            () = hung_up => break,
            _ = interrupt.recv() => break,
            _ = quit.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    let last = kill_all(Some(worker));
    if let Some(status) = status.or(last) {
        let _gone = link.write_all(&Report::Ended(status).encode()).await;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

#[cfg(not(target_os = "linux"))]
fn become_subreaper() -> io::Result<()> {
    Ok(())
}

/// Starts the program from this thread, which is the process's first and lives as long as it does: its end is the program's.
fn start(program: &OsStr, arguments: &[OsString]) -> io::Result<Pid> {
    let mut command = leash::of_supervisor(program, arguments)
        .ok_or_else(|| io::Error::other("this binary has no roles"))?;
    let link = io::stdin().as_fd().try_clone_to_owned()?;
    let child = command.stdin(link).process_group(0).spawn()?;
    Ok(Pid::from_child(&child))
}

/// Takes the status of all that have ended; gives that of the worker if it has.
fn reap(worker: Pid) -> Option<i32> {
    let mut found = None;
    while let Ok(Some((process, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if process == worker {
            found = Some(status.as_raw());
        }
    }
    found
}

/// Kills all that descends from this process, again until there is none: what dies hands its children over. Gives the worker's
/// status if it ended now.
fn kill_all(worker: Option<Pid>) -> Option<i32> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let mut found = None;
    loop {
        for process in tree::descendants(getpid()) {
            let _just_gone = kill_process(process, Signal::KILL);
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((process, status))) if Some(process) == worker => {
                    found = Some(status.as_raw());
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) if Instant::now() < deadline => break,
                // No child is left; or one that cannot die.
                Ok(None) | Err(_) => return found,
            }
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_as_they_were_written() {
        for report in [
            Report::Started(4711),
            Report::NotStarted(2),
            Report::Ended(256),
        ] {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([9; REPORT_LEN]), None);
    }
}
