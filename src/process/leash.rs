//! What a supervisor watches, which dies with it.
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

/// The role's name on the command line: then the parent's process id, the program, its arguments.
pub const ROLE: &str = "--lswitch-leash";

/// Exit code of a leash whose program cannot be started, as a shell has it.
const CANNOT_START: i32 = 127;

/// Exit code of a leash whose parent was gone before it could be tied to it: that of a process killed by SIGKILL.
const PARENT_GONE: i32 = 137;

/// How long a program that was just written may seem busy, since another thread forked meanwhile.
const BUSY_FOR: Duration = Duration::from_secs(2);

/// A supervisor's command for what it watches. Its standard input must be the link.
pub(super) fn of_supervisor(program: &OsStr, arguments: &[OsString]) -> Option<Command> {
    let mut command = super::in_role(ROLE)?;
    let parent = getpid().as_raw_nonzero().to_string();
    command.arg(parent).arg(program).args(arguments);
    Some(command)
}

/// Ties this process to its parent and becomes the program.
pub(super) fn main(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let parent = arguments.next().and_then(|id| id.to_str()?.parse().ok());
    let parent: Option<Pid> = parent.and_then(Pid::from_raw);
    let Some((program, arguments)) = super::program(arguments) else {
        exit(CANNOT_START);
    };
    let mut link = match take_link() {
        Ok(link) => link,
        // The supervisor hears nothing of it, and sees the end.
        Err(_) => exit(CANNOT_START),
    };
    if let Err(error) = tie(parent) {
        fail(&mut link, &error);
    }
    let begun = Instant::now();
    loop {
        let error = Command::new(&program).args(&arguments).exec();
        if error.kind() != ErrorKind::ExecutableFileBusy || begun.elapsed() > BUSY_FOR {
            fail(&mut link, &error);
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

fn fail(link: &mut UnixStream, error: &io::Error) -> ! {
    let code = error.raw_os_error().unwrap_or(0);
    // The parent may be gone, which ends this process too.
    let _unheard = link.write_all(&Report::NotStarted(code).encode());
    exit(CANNOT_START)
}
