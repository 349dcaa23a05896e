//! The signals that end a command: SIGHUP, SIGINT (Ctrl-C), SIGQUIT and SIGTERM. All four do the same, and the exit code says
//! which came.
//!
//! One thread listens from the first instruction of the process. What a signal does depends on what the command has begun:
//!
//! * A command that waits for [`interrupted`] ends what it does in order.
//! * While something must not be cut off, such as the end of workers and the removal of their folders, a [`Hold`] exists: the command
//!   ends when the last one is dropped.
//! * Otherwise there is nothing to clear away, and the process ends at once.
//!
//! A second signal ends the process at once, and so does a clean-up that takes longer than [`END_TIMEOUT`].
//! A signal is of the process, so its state is the process's too.

use std::future::Future;
use std::io;
use std::process::exit;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{Exit, Interrupted, record, ui};
use crate::process::was_ignored;

/// How long an orderly end may take: longer than a local Lambda waits for its environments (6 s), and a switch for its workers.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Signals that come so shortly after each other are one: a terminal and a parent both pass Ctrl-C on.
const TWICE_INTERVAL: Duration = Duration::from_millis(100);

/// What a shell adds to a signal's number for an exit code.
const SIGNAL_BASE: i32 = 128;

/// What has come so far, and who must not be cut off.
static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

/// True from the first signal on.
static HEARD: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

#[derive(Default)]
struct State {
    first: Option<(Signal, Instant)>,
    holds: usize,
    /// Something that waited for the signal has seen it, and ends the command.
    is_taken: bool,
    /// The process ends now: nothing more is begun.
    is_exiting: bool,
}

/// What a signal or a dropped hold asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing: it was heard already, or the command ends by itself.
    Ignore,
    /// The command is to end in order.
    End,
    /// Nothing needs clearing away.
    Exit,
    /// Somebody does not want to wait for the clean-up.
    Abandon,
}

impl State {
    fn hear(&mut self, signal: Signal, now: Instant) -> Verdict {
        match self.first {
            // A terminal that closes says so several times: the kernel, and the shell in it.
            Some(_) if signal == Signal::HUP => Verdict::Ignore,
            Some((_, at)) if now.saturating_duration_since(at) < TWICE_INTERVAL => Verdict::Ignore,
            Some(_) => Verdict::Abandon,
            None => {
                self.first = Some((signal, now));
                match self.holds {
                    0 => {
                        self.is_exiting = true;
                        Verdict::Exit
                    }
                    _ => Verdict::End,
                }
            }
        }
    }

    fn release(&mut self) -> Verdict {
        self.holds -= 1;
        match self.first {
            Some(_) if self.holds == 0 && !self.is_taken => {
                self.is_exiting = true;
                Verdict::Exit
            }
            _ => Verdict::Ignore,
        }
    }
}

/// As long as it exists, a signal does not cut the command off.
#[must_use = "it holds until it is dropped"]
pub struct Hold(());

/// Keeps signals from cutting off what begins now.
pub fn hold() -> Hold {
    loop {
        let mut state = state();
        if !state.is_exiting {
            state.holds += 1;
            return Hold(());
        }
        drop(state);
        // Another thread ends the process, in a moment.
        std::thread::park_timeout(TWICE_INTERVAL);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let verdict = state().release();
        // A panic has its own exit code.
        if verdict == Verdict::Exit && !std::thread::panicking() {
            exit_interrupted();
        }
    }
}

/// Completes at the first signal, also if that has come already. Until then, it keeps signals from cutting the command off.
pub fn interrupted() -> impl Future<Output = ()> {
    let hold = hold();
    let mut heard = HEARD.subscribe();
    async move {
        // The sender is the process's.
        let _ = heard.wait_for(|heard| *heard).await;
        state().is_taken = true;
        drop(hold);
    }
}

/// For work that waits for nothing: an error once a signal has come.
///
/// # Errors
/// [`Interrupted`], within an [`io::Error`].
pub fn check() -> io::Result<()> {
    if !*HEARD.borrow() {
        return Ok(());
    }
    state().is_taken = true;
    Err(io::Error::other(Interrupted))
}

/// The exit code of a command that a signal has ended: 130 for Ctrl-C.
pub fn exit_code() -> u8 {
    let first = state().first;
    let signal = first.map_or(Signal::INT, |(signal, _)| signal);
    u8::try_from(SIGNAL_BASE + signal.as_raw()).unwrap_or(Exit::Failed as u8)
}

/// Listens from this call on, in a thread of its own.
pub fn listen() {
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name("signals".into());
    let started = thread.spawn(move || {
        if let Err(error) = listen_in_thread(ready) {
            tracing::warn!("cannot listen for signals: {error}");
        }
    });
    if started.is_ok() {
        // The sender is dropped when it cannot listen.
        let _ = is_ready.recv();
    }
}

fn listen_in_thread(ready: mpsc::Sender<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // nohup and the like: nobody wants to hear of a terminal that closes.
        let mut hangup = match was_ignored(Signal::HUP) {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut quit = signal(SignalKind::quit())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let _ = ready.send(());
        let mut deadline = None;
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            let time_is_up = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let signal = tokio::select! {
                () = hung_up => Signal::HUP,
                _ = interrupt.recv() => Signal::INT,
                _ = quit.recv() => Signal::QUIT,
                _ = terminate.recv() => Signal::TERM,
                () = time_is_up => exit_without_cleaning("interrupted, and did not end in time"),
            };
            let verdict = state().hear(signal, Instant::now());
            match verdict {
                Verdict::Ignore => {}
                Verdict::End => {
                    deadline = Some(tokio::time::Instant::now() + END_TIMEOUT);
                    HEARD.send_replace(true);
                }
                Verdict::Exit => exit_interrupted(),
                Verdict::Abandon => {
                    exit_without_cleaning("interrupted, and ended without cleaning up")
                }
            }
        }
    })
}

fn exit_interrupted() -> ! {
    ui::echo(false, "lswitch: interrupted");
    exit_without_cleaning("interrupted")
}

fn exit_without_cleaning(what: &str) -> ! {
    record::own::end(Exit::Interrupted, Some(what.into()));
    exit(exit_code().into())
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(1);

    #[test]
    fn a_signal_ends_a_command_at_once_when_nothing_is_held() {
        let now = Instant::now();
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
            let mut state = State::default();
            assert_eq!(state.hear(signal, now), Verdict::Exit);
            let mut state = State {
                holds: 1,
                ..State::default()
            };
            assert_eq!(state.hear(signal, now), Verdict::End);
        }
    }

    #[test]
    fn a_command_that_nothing_else_ends_ends_with_the_last_hold() {
        let now = Instant::now();
        let mut state = State {
            holds: 2,
            ..State::default()
        };
        state.hear(Signal::TERM, now);
        assert_eq!(state.release(), Verdict::Ignore);
        assert_eq!(state.release(), Verdict::Exit);
        // The signal was taken: the command says itself how it ended.
        let mut state = State {
            holds: 1,
            ..State::default()
        };
        state.hear(Signal::TERM, now);
        state.is_taken = true;
        assert_eq!(state.release(), Verdict::Ignore);
    }

    #[test]
    fn only_a_second_signal_that_somebody_sends_skips_the_clean_up() {
        let now = Instant::now();
        let mut state = State {
            holds: 1,
            ..State::default()
        };
        state.hear(Signal::HUP, now);
        assert_eq!(state.hear(Signal::HUP, now + LATER), Verdict::Ignore);
        assert_eq!(
            state.hear(Signal::INT, now + TWICE_INTERVAL / 2),
            Verdict::Ignore
        );
        assert_eq!(state.hear(Signal::INT, now + LATER), Verdict::Abandon);
    }
}
