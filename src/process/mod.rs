//! Processes of this machine: what a process starts ends with it, and what it keeps in temporary folders is removed.
//!
//! * [`supervisor`]: a small process between the local Lambda and each environment. It ends everything that descends from the
//!   environment when the environment ends, or when the process that started it is gone, whatever killed it.
//! * [`leash`]: how a supervisor starts what it watches, so that this dies with it.
//! * [`tree`]: which processes descend from another one, or belong to a run.
//! * [`scratch`]: temporary folders that a later run removes when their process could not.
//!
//! Supervisor and leash are this binary under another role: only a process that is about to `exec` may set its own death signal,
//! and Rust has no safe way to run code between `fork` and `exec`.

pub mod leash;
pub mod scratch;
pub mod supervisor;
pub mod tree;

use std::ffi::OsString;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

/// The variable that names an environment's folder to all processes in it. It finds those that have escaped their supervisor.
pub const ENVIRONMENT_VARIABLE: &str = "LSWITCH_ENVIRONMENT";

/// True once [`take_role`] has run: this binary can be started again in one of its roles.
static HAS_ROLES: AtomicBool = AtomicBool::new(false);

/// The first call of a process: it does not return in a process that was started as a supervisor or a leash.
pub fn take_role() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(role) if role == supervisor::ROLE => supervisor::main(arguments),
        Some(role) if role == leash::ROLE => leash::main(arguments),
        _ => HAS_ROLES.store(cfg!(target_os = "linux"), Ordering::Relaxed),
    }
}

/// This binary in a role; `None` where it has none, as in a program whose `main` does not begin with lswitch's.
fn in_role(role: &str) -> Option<Command> {
    use std::os::unix::process::CommandExt;
    if !HAS_ROLES.load(Ordering::Relaxed) {
        return None;
    }
    // This very file, even if another one has taken its name since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("lswitch").arg(role);
    Some(command)
}

/// The program and its arguments that end a role's command line.
fn program(arguments: impl Iterator<Item = OsString>) -> Option<(OsString, Vec<OsString>)> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.is_empty() {
        return None;
    }
    let program = arguments.remove(0);
    Some((program, arguments))
}

/// True if this process was started with the signal ignored, as `nohup` does for SIGHUP. Only Linux says.
pub fn was_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, signal.as_raw())
}

/// Reads the mask of ignored signals in `/proc/PID/status`, as `proc_pid_status(5)` has it.
fn ignored_in(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001003\nSigCgt:\t0\n";
        let found: Vec<i32> = (1..=64)
            .filter(|&signal| ignored_in(status, signal))
            .collect();
        assert_eq!(found, [1, 2, 13]);
        assert!(!ignored_in("", 1));
    }
}
