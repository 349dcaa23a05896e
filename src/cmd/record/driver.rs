//! The process that drives a job: is it there, and how is it told to end?

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;

/// A process, which is not taken for another one that has its number later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Its number.
    pub pid: i32,
    /// When it was started, as Linux counts: in ticks since the machine was. Elsewhere the number has to do.
    pub started: Option<u64>,
}

impl Driver {
    /// This process.
    pub fn this() -> Driver {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Driver {
            pid,
            started: look(pid).map(|seen| seen.started),
        }
    }

    /// True as long as it is there. One that has ended and that nobody waited for is gone.
    pub fn is_there(&self) -> bool {
        match (self.started, look(self.pid)) {
            (Some(started), Some(seen)) => seen.started == started && !seen.is_zombie,
            // Linux would have told.
            (Some(_), None) => false,
            (None, _) => match Pid::from_raw(self.pid).map(test_kill_process) {
                None => false,
                Some(tested) => tested != Err(rustix::io::Errno::SRCH),
            },
        }
    }

    /// Sends it a signal, if it is there; tells whether it was.
    ///
    /// # Errors
    /// When that is not allowed.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_there()) else {
            return Ok(false);
        };
        match kill_process(pid, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What Linux tells of a process.
struct Seen {
    started: u64,
    is_zombie: bool,
}

fn look(pid: i32) -> Option<Seen> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`, as `proc_pid_stat(5)` has it.
fn parse(line: &str) -> Option<Seen> {
    // The program's name is in brackets and may have brackets and blanks in it. The state follows, as field 3.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Seen {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        started: fields.get(22 - 3)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_the_program_is_called() {
        let line = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        let seen = parse(line).unwrap();
        assert_eq!((seen.started, seen.is_zombie), (98765, false));
        assert!(parse(&line.replace(" S ", " Z ")).unwrap().is_zombie);
        assert!(parse("12 (short) S 1").is_none());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_driver() {
        let this = Driver::this();
        assert!(this.is_there());
        if let Some(started) = this.started {
            let earlier = Driver {
                started: Some(started - 1),
                ..this
            };
            assert!(!earlier.is_there());
            assert!(!earlier.signal(Signal::KILL).unwrap(), "we are still here");
        }
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        child.wait().unwrap();
        assert!(!Driver { pid, started: None }.is_there());
        let no_process = Driver {
            pid: 0,
            started: None,
        };
        assert!(!no_process.is_there());
    }
}
