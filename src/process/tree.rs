//! Which processes descend from another one, or belong to a run, as Linux tells in `/proc`.
//!
//! Elsewhere nothing is found.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::ENVIRONMENT_VARIABLE;

/// Between two looks at processes that were killed and are not gone yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// All that the process has started, and what that has, without the process itself.
pub fn descendants(of: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut waiting = vec![of];
    while let Some(process) = waiting.pop() {
        let children = children(process);
        found.extend(&children);
        waiting.extend(children);
    }
    found
}

/// The children that any thread of the process started. Kernels without this list show none.
pub fn children(of: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", of.as_raw_nonzero());
    let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let lists: Vec<String> = lists.map(Result::unwrap_or_default).collect();
    let ids = lists.iter().flat_map(|list| list.split_whitespace());
    ids.filter_map(|id| Pid::from_raw(id.parse().ok()?))
        .collect()
}

/// Kills every process of this user that belongs to an environment whose folder is `folder` or lies in it, again and again
/// until there is none or the time is over. This finds processes by the variable that all of an environment's processes
/// inherit, also those in sessions of their own whose parents are gone.
pub fn kill_marked(folder: &Path, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let found = marked(folder);
        if found.is_empty() || Instant::now() > deadline {
            return;
        }
        for process in found {
            let _just_gone = kill_process(process, Signal::KILL);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn marked(folder: &Path) -> Vec<Pid> {
    let user = geteuid().as_raw();
    let this = rustix::process::getpid();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let process = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let is_own = entry.metadata().is_ok_and(|entry| entry.uid() == user);
        (is_own && process != this).then_some(process)
    });
    processes
        .filter(|process| {
            environment(*process).is_ok_and(|environment| is_marked(&environment, folder))
        })
        .collect()
}

/// Of a zombie, nothing.
fn environment(process: Pid) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{}/environ", process.as_raw_nonzero()))
}

fn is_marked(environment: &[u8], folder: &Path) -> bool {
    environment.split(|&byte| byte == 0).any(|variable| {
        let value = variable.strip_prefix(ENVIRONMENT_VARIABLE.as_bytes());
        let value = value.and_then(|value| value.strip_prefix(b"="));
        value.is_some_and(|value| Path::new(std::ffi::OsStr::from_bytes(value)).starts_with(folder))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn pid(child: &std::process::Child) -> Pid {
        Pid::from_child(child)
    }

    #[test]
    fn children_are_found_whichever_thread_started_them() {
        let start = || {
            let mut sleep = Command::new("sleep");
            sleep.arg("60").spawn().expect("sleep is on every Linux")
        };
        let mut child = std::thread::spawn(start)
            .join()
            .expect("spawning does not panic");
        let found = children(rustix::process::getpid());
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        // The thread that started it is gone, so Linux has given it to another one.
        assert!(found.contains(&pid(&child)), "{found:?}");
    }

    #[test]
    fn grandchildren_are_descendants() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & echo; wait"]);
        let mut shell = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0];
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        let found = descendants(pid(&shell));
        for process in found.iter().copied().chain([pid(&shell)]) {
            kill_process(process, Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_process_is_marked_by_a_folder_and_not_by_one_whose_name_begins_alike() {
        let environment = b"PATH=/bin\0LSWITCH_ENVIRONMENT=/tmp/a/1\0X=LSWITCH_ENVIRONMENT=/tmp/b";
        for (folder, expected) in [
            ("/tmp/a", true),
            ("/tmp/a/1", true),
            ("/tmp", true),
            ("/tmp/a/1/2", false),
            ("/tmp/b", false),
            ("/t", false),
        ] {
            assert_eq!(is_marked(environment, Path::new(folder)), expected);
        }
    }

    #[test]
    fn marked_processes_are_killed_in_sessions_of_their_own_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "setsid sh -c 'sleep 60 & sleep 60' & echo; wait"]);
        shell.env(ENVIRONMENT_VARIABLE, folder.path().join("1"));
        let mut shell = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0];
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        kill_marked(folder.path(), Duration::from_secs(10));
        assert!(marked(folder.path()).is_empty());
        assert!(!shell.wait().unwrap().success());
    }
}
