//! A program that dies with the process that started it.
//!
//! The kernel sends a death signal when the *thread* that forked ends, so a leashed program is started by a thread that stays
//! until the program has ended.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, getppid};

use super::supervisor::Report;
use crate::random;

/// The role's name on the command line: then the parent's process id, how a failure is reported, the program, its arguments.
pub const ROLE: &str = "--lswitch-leash";

/// In place of a mark: a failure is reported over standard input, which is a supervisor's socket, and the program reads nothing.
const OVER_THE_LINK: &str = "link";

/// Exit code of a leash whose program cannot be started, as a shell has it.
const CANNOT_START: i32 = 127;

/// Exit code of a leash whose parent was gone before it could be tied to it: that of a process killed by SIGKILL.
const PARENT_GONE: i32 = 137;

/// How long a program that was just written may seem busy, since another thread forked meanwhile.
const BUSY_FOR: Duration = Duration::from_secs(2);

/// A program that dies with this process, and how it reports that it could not be started.
pub struct Leashed {
    mark: String,
}

impl Leashed {
    /// The command for a program; `None` where this binary has no roles.
    pub fn new(program: &OsStr, arguments: &[OsString]) -> Option<(Command, Leashed)> {
        // Nothing that the program writes to stderr begins with this by chance.
        let mark = random::to_hex(&random::bytes::<16>());
        let command = command(&mark, program, arguments)?;
        Some((command, Leashed { mark }))
    }

    /// Why the program could not be started, from how its process ended and what it wrote to stderr.
    pub fn failure(&self, exit_code: Option<i32>, stderr: &[u8]) -> Option<io::Error> {
        let text = stderr.strip_prefix(self.mark.as_bytes())?;
        let error = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
        (exit_code == Some(CANNOT_START)).then(|| io::Error::from_raw_os_error(error))
    }
}

/// A supervisor's command for what it watches. Its standard input must be the link.
pub(super) fn of_supervisor(program: &OsStr, arguments: &[OsString]) -> Option<Command> {
    command(OVER_THE_LINK, program, arguments)
}

fn command(mark: &str, program: &OsStr, arguments: &[OsString]) -> Option<Command> {
    let mut command = super::in_role(ROLE)?;
    let parent = getpid().as_raw_nonzero().to_string();
    command.arg(parent).arg(mark).arg(program).args(arguments);
    Some(command)
}

/// Ties this process to its parent and becomes the program.
pub(super) fn main(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let parent = arguments.next().and_then(|id| id.to_str()?.parse().ok());
    let parent: Option<Pid> = parent.and_then(Pid::from_raw);
    let mark = arguments.next().unwrap_or_default();
    let Some((program, arguments)) = super::program(arguments) else {
        exit(CANNOT_START);
    };
    if let Err(error) = tie(parent) {
        fail(&mark, None, &error);
    }
    let mut link = None;
    if mark == OVER_THE_LINK {
        match take_link() {
            Ok(taken) => link = Some(taken),
            Err(error) => fail(&mark, None, &error),
        }
    }
    let begun = Instant::now();
    loop {
        let error = Command::new(&program).args(&arguments).exec();
        if error.kind() != ErrorKind::ExecutableFileBusy || begun.elapsed() > BUSY_FOR {
            fail(&mark, link, &error);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
fn tie(parent: Option<Pid>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that was gone before the call above sends nothing any more.
    if getppid() != parent {
        exit(PARENT_GONE);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn tie(_parent: Option<Pid>) -> io::Result<()> {
    Ok(())
}

/// Takes the link from standard input, which the program finds empty. The copy is closed when the program begins.
fn take_link() -> io::Result<UnixStream> {
    let link: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(link.into())
}

fn fail(mark: &OsStr, link: Option<UnixStream>, error: &io::Error) -> ! {
    let code = error.raw_os_error().unwrap_or(0);
    // The parent may be gone, which ends this process too.
    let _unheard = match link {
        Some(mut link) => link.write_all(&Report::NotStarted(code).encode()),
        None => writeln!(io::stderr(), "{}{code}", mark.to_string_lossy()),
    };
    exit(CANNOT_START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leash_with_the_right_mark_reports_a_failure() {
        let leashed = Leashed {
            mark: "00ff".into(),
        };
        let error = leashed.failure(Some(127), b"00ff2\n").unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(leashed.failure(Some(1), b"00ff2\n").is_none());
        assert!(leashed.failure(Some(127), b"sh: x: not found\n").is_none());
        assert!(leashed.failure(Some(127), b"00ff and more").is_none());
    }
}
