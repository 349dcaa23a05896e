//! Running one program on one item: its input, its output as it comes, and an end whatever it does.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a pipe is waited for before it is looked whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// How long a program's pipes are read after its end, when something that it has left behind holds them.
const DRAIN: Duration = Duration::from_millis(500);

/// Of what a program writes to stderr, the last so many bytes are kept.
pub const STDERR_TAIL: usize = 8 << 10;

/// Bytes of output that are read at once.
const READ_LEN: usize = 64 << 10;

/// How long a program that was just written may seem busy, since another thread forked meanwhile.
const BUSY_FOR: Duration = Duration::from_secs(2);

/// What to run.
pub struct Exec {
    /// The program's path, or its name on the path.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub folder: PathBuf,
    /// What is added to its environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// How long it may run.
    pub within: Duration,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed after its time.
    TimedOut,
    /// It was killed since its output was not wanted any more, and why.
    Stopped(String),
}

/// A program that has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// The last of what it wrote to stderr.
    pub stderr: Vec<u8>,
    /// Why it could not be given its input, if that failed.
    pub input: Option<String>,
}

/// Runs a program: `input` writes what it reads, `output` takes what it writes, and stops it with an error; `nobody_wants_it` is asked now and then, and stops
/// it too. What the program has started and left behind is ended with it; what has left its process group is not waited for.
///
/// # Errors
/// When it cannot be started.
pub fn run(
    exec: &Exec,
    input: impl FnOnce(&mut Feed) -> io::Result<Result<(), String>> + Send,
    output: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    nobody_wants_it: &dyn Fn() -> bool,
) -> io::Result<Ran> {
    let deadline = Instant::now() + exec.within;
    let mut child = start(exec)?;
    let stdin = child.stdin.take().expect("it is piped");
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    rustix::io::ioctl_fionbio(&stdin, true)?;
    // All is read or given up: threads look at it.
    let over = AtomicBool::new(false);
    let pid = Pid::from_child(&child);
    thread::scope(|scope| {
        let over = &over;
        let feeding = scope.spawn(move || {
            let mut feed = Feed { stdin, over };
            match input(&mut feed) {
                // It need not read all of it, or any.
                Ok(outcome) => outcome.err(),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => None,
                Err(error) => Some(format!("it cannot be given its input: {error}")),
            }
        });
        let listening = scope.spawn(move || tail(&mut stderr, over));
        let mut room = vec![0; READ_LEN];
        let mut open = true;
        let mut stopped = None;
        let mut late = false;
        let mut ended: Option<(io::Result<ExitStatus>, Instant)> = None;
        let mut pause = Duration::from_micros(200);
        loop {
            if open {
                if is_ready(&stdout, PollFlags::IN, LOOK) {
                    match stdout.read(&mut room) {
                        Ok(0) => open = false,
                        Ok(count) if stopped.is_none() => {
                            if let Err(why) = output(&room[..count]) {
                                stopped = Some(why);
                                kill(pid);
                            }
                        }
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => open = false,
                    }
                }
            } else if ended.is_none() {
                // Its end is near, mostly; but it may have closed its output and go on.
                thread::sleep(pause);
                pause = (pause * 2).min(LOOK);
            }
            if ended.is_none() {
                match child.try_wait() {
                    Ok(None) if !late && Instant::now() >= deadline => {
                        late = true;
                        kill(pid);
                    }
                    Ok(None) if stopped.is_none() && nobody_wants_it() => {
                        stopped = Some("its job has ended".into());
                        kill(pid);
                    }
                    Ok(None) => {}
                    // Whatever it has left behind in its group ends with it, and holds its pipes no longer.
                    Ok(Some(status)) => {
                        kill(pid);
                        ended = Some((Ok(status), Instant::now()));
                    }
                    Err(error) => ended = Some((Err(error), Instant::now())),
                }
            }
            let gone = |(_, at): &(_, Instant)| !open || at.elapsed() > DRAIN;
            if ended.as_ref().is_some_and(gone) {
                break;
            }
        }
        over.store(true, Ordering::SeqCst);
        let stderr = listening.join().unwrap_or_default();
        let input = feeding.join().unwrap_or_default();
        let (status, _) = ended.expect("the loop ends with it");
        let end = match (stopped, late) {
            (Some(why), _) => End::Stopped(why),
            (None, true) => End::TimedOut,
            (None, false) => End::Exited(status?),
        };
        Ok(Ran { end, stderr, input })
    })
}

/// A program's standard input: gives up when the program is over.
pub struct Feed<'a> {
    stdin: ChildStdin,
    over: &'a AtomicBool,
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stdin.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.over.load(Ordering::SeqCst) {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                    is_ready(&self.stdin, PollFlags::OUT, LOOK);
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a short time until something can be read or written.
fn is_ready(pipe: &impl AsFd, what: PollFlags, within: Duration) -> bool {
    let within = Timespec {
        tv_sec: 0,
        tv_nsec: within.subsec_nanos().into(),
    };
    let mut polled = [PollFd::new(pipe, what)];
    matches!(poll(&mut polled, Some(&within)), Ok(1..))
}

fn start(exec: &Exec) -> io::Result<Child> {
    let begun = Instant::now();
    loop {
        let mut command = Command::new(&exec.program);
        command
            .args(&exec.arguments)
            .current_dir(&exec.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An lswitch among the items' programs is no worker.
            .env_remove("AWS_LAMBDA_RUNTIME_API")
            .env_remove("_HANDLER")
            .process_group(0);
        for (name, value) in &exec.environment {
            command.env(name, value);
        }
        match command.spawn() {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && begun.elapsed() < BUSY_FOR =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            started => return started,
        }
    }
}

/// Kills a program and what it has started. That nothing is left of it is no error.
fn kill(pid: Pid) {
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
}

/// The last bytes of what a program writes to stderr.
fn tail(from: &mut ChildStderr, over: &AtomicBool) -> Vec<u8> {
    let mut kept = VecDeque::new();
    let mut room = [0; 4096];
    loop {
        if !is_ready(from, PollFlags::IN, LOOK) {
            if over.load(Ordering::SeqCst) {
                break;
            }
            continue;
        }
        match from.read(&mut room) {
            Ok(0) => break,
            Ok(count) => {
                kept.extend(&room[..count]);
                let surplus = kept.len().saturating_sub(STDERR_TAIL);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    kept.into()
}

impl End {
    /// What went wrong, if anything did.
    pub fn problem(&self, within: Duration) -> Option<String> {
        match self {
            End::Exited(status) => match (status.code(), status.signal()) {
                (Some(0), _) => None,
                (Some(code), _) => Some(format!("exit code {code}")),
                (None, Some(signal)) => Some(format!("killed by signal {signal}")),
                (None, None) => Some("ended in an unknown way".into()),
            },
            End::TimedOut => Some(format!("killed after {:.1} s", within.as_secs_f64())),
            End::Stopped(why) => Some(why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Exec {
        Exec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            folder: std::env::temp_dir(),
            environment: vec![("GIVEN", "value".into())],
            within: Duration::from_secs(20),
        }
    }

    fn ran(exec: &Exec, input: &[u8]) -> (Ran, Vec<u8>) {
        let mut found = Vec::new();
        let mut take = |bytes: &[u8]| {
            found.extend_from_slice(bytes);
            Ok(())
        };
        let ran = run(
            exec,
            |stdin| stdin.write_all(input).map(Ok),
            &mut take,
            &|| false,
        );
        (ran.unwrap(), found)
    }

    #[test]
    fn a_program_gets_its_input_and_its_output_is_taken() {
        let long = b"0123456789".repeat(100_000);
        let (ran_, found) = ran(&shell("cat; echo $GIVEN; echo word >&2; exit 3"), &long);
        assert_eq!(
            ran_.end.problem(Duration::ZERO).as_deref(),
            Some("exit code 3")
        );
        assert_eq!(ran_.stderr, b"word\n");
        assert!(found[..long.len()] == long && &found[long.len()..] == b"value\n");
        // One that reads nothing is not given up for it.
        let (ran_, found) = ran(&shell("echo done"), &long);
        assert_eq!(
            (ran_.end.problem(Duration::ZERO), &found[..]),
            (None, &b"done\n"[..])
        );
    }

    #[test]
    fn it_ends_whatever_it_does() {
        let begun = Instant::now();
        let mut exec = shell("sleep 100 & sleep 100");
        exec.within = Duration::from_millis(200);
        let (ran_, _) = ran(&exec, b"");
        assert_eq!(ran_.end, End::TimedOut);
        // What is left behind holds nothing up, in the program's group or out of it.
        for script in ["sleep 100 & echo left", "setsid sleep 5 & echo left"] {
            let left = Instant::now();
            let (ran_, found) = ran(&shell(script), &[b'x'; 1_000_000]);
            assert_eq!(
                (ran_.end.problem(Duration::ZERO), &found[..]),
                (None, &b"left\n"[..])
            );
            assert!(left.elapsed() < Duration::from_secs(3), "{script}");
        }
        // One that closes its output and goes on.
        let mut exec = shell("exec >&- 2>&-; sleep 100");
        exec.within = Duration::from_millis(200);
        assert_eq!(ran(&exec, b"").0.end, End::TimedOut);
        let (ran_, _) = ran(&shell("kill -9 $$"), b"");
        let problem = ran_.end.problem(Duration::ZERO);
        assert_eq!(problem.as_deref(), Some("killed by signal 9"));
        // One that prints without end.
        let mut taken = 0;
        let mut take = |bytes: &[u8]| {
            taken += bytes.len();
            if taken > 1_000_000 {
                return Err("too much".into());
            }
            Ok(())
        };
        let ran_ = run(&shell("yes"), |_| Ok(Ok(())), &mut take, &|| false);
        assert_eq!(ran_.unwrap().end, End::Stopped("too much".into()));
        let (ran_, _) = ran(&shell("yes | head -c 100000 >&2; echo the end >&2"), b"");
        assert!(ran_.stderr.ends_with(b"the end\n") && ran_.stderr.len() == STDERR_TAIL);
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing waits");
    }

    #[test]
    fn what_nobody_wants_any_more_is_stopped() {
        let asked = std::cell::Cell::new(0);
        let nobody_wants_it = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        let begun = Instant::now();
        let exec = shell("sleep 60 & sleep 60");
        let ran = run(&exec, |_| Ok(Ok(())), &mut |_| Ok(()), &nobody_wants_it).unwrap();
        assert_eq!(ran.end, End::Stopped("its job has ended".into()));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
