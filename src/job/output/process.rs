//! The process that holds a claim: whether it runs on this machine, and whether it is still there.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;

/// A process, which is not taken for another one that gets its number later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// The process id.
    pub(super) pid: u32,
    /// When it was started, in clock ticks since the machine was (`proc_pid_stat(5)`, field 22).
    pub(super) started: Option<u64>,
    /// The boot of the machine and the namespace of process ids. Unknown outside of Linux.
    pub(super) host: Option<String>,
    /// The machine's name, for people.
    pub(super) name: Option<String>,
}

impl Process {
    /// This process.
    pub(super) fn this() -> Process {
        let pid = std::process::id();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        // Containers of one machine share its boot, and not its process ids.
        let namespace = fs::read_link("/proc/self/ns/pid").ok();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Process {
            pid,
            started: started(pid),
            host: boot
                .zip(namespace)
                .map(|(boot, namespace)| format!("{} {}", boot.trim(), namespace.display())),
            name: name.map(|name| name.trim().to_string()),
        }
    }

    /// True if both are on one machine and see the same process ids.
    pub(super) fn is_beside(&self, other: &Process) -> bool {
        self.host.is_some() && self.host == other.host && self.started.is_some()
    }

    /// Whether a process [beside](Self::is_beside) this one runs.
    pub(super) fn is_there(&self) -> bool {
        self.started.is_some() && started(self.pid) == self.started
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("an unknown machine");
        write!(f, "process {} on {name}", self.pid)
    }
}

/// When a process was started, if it runs. One that has ended, and that its parent has not waited for, does not.
fn started(pid: u32) -> Option<u64> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets, and may have brackets and blanks in it. The state follows as field 3.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(22 - 4)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_there_until_it_ends() {
        let this = Process::this();
        assert!(this.is_beside(&Process::this()) && this.is_there());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let other = Process {
            pid: child.id(),
            started: started(child.id()),
            ..this.clone()
        };
        assert!(other.is_beside(&this) && other.is_there());
        let later = Process {
            started: other.started.map(|ticks| ticks + 1),
            ..other.clone()
        };
        assert!(!later.is_there(), "another process with its number");
        child.kill().unwrap();
        // Killed, and not waited for.
        while other.is_there() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!other.is_there());
        let elsewhere = Process {
            host: Some("other".into()),
            ..this.clone()
        };
        assert!(!elsewhere.is_beside(&this));
        assert!(!Process::default().is_beside(&Process::default()));
    }
}
