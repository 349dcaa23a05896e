//! `lswitch cancel`: ends a job.

use crate::cmd::attach::{again, lost};
use crate::cmd::record::all::{self, short};
use crate::cmd::record::{End, Facts, Folder, State, now_ms};
use crate::cmd::ui::Ui;
use anyhow::{Context, bail};
use rustix::process::Signal;
use std::thread;
use std::time::{Duration, Instant};

/// How long a driver may take to end its workers and clean up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a process that was killed may take to be gone.
const KILLED_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at whether it is gone.
const LOOK: Duration = Duration::from_millis(20);

/// Exit code of a driver that the signal of this command has ended.
const TERMINATED: u8 = 128 + Signal::TERM.as_raw() as u8;

/// End a job that runs: its workers stop; what is done of a map is kept for --resume
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch cancel 1f3a
  lswitch cancel 1f3a --force

The job's driver is asked to end, as by Ctrl-C, and has 10 seconds for it.")]
pub struct Cancel {
    /// The first digits of its id, at least 4; \"lswitch jobs\" lists them
    #[arg(value_name = "JOB")]
    job: String,

    /// Kill the driver if it does not end in 10 seconds; \"lswitch clean\" removes what it leaves in its store
    #[arg(long)]
    force: bool,
}

impl Cancel {
    /// Ends it.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let (folder, facts) = all::find(&self.job)?;
        let id = short(&facts.id);
        match facts.state() {
            State::Running => {}
            State::Lost => return Err(lost(&facts)),
            state => bail!("job {id} does not run any more: {}", told(&facts, state)),
        }
        // Ctrl-C's own signal is passed over by what a script has started in the background.
        send(&facts, Signal::TERM)?;
        ui.say(format!("job {id} is asked to end"));
        if !is_gone(&facts, PATIENCE) {
            if !self.force {
                bail!(
                    "job {id} did not end in {} s; \"lswitch cancel --force {id}\" kills its driver",
                    PATIENCE.as_secs()
                );
            }
            send(&facts, Signal::KILL)?;
            if !is_gone(&facts, KILLED_PATIENCE) {
                bail!(
                    "job {id} was killed, and its driver (process {}) is still there",
                    facts.driver.pid
                );
            }
            write_end(&folder, "killed by lswitch cancel --force")?;
            ui.say(format!("job {id} was killed; next: lswitch clean"));
            return Ok(());
        }
        write_end(&folder, "interrupted")?;
        let facts = again(&folder)?;
        ui.say(format!(
            "job {id} has ended: {}",
            told(&facts, facts.state())
        ));
        Ok(())
    }
}

/// A state, and why it is so.
fn told(facts: &Facts, state: State) -> String {
    let error = facts.end.as_ref().and_then(|end| end.error.as_deref());
    match (state, error) {
        (State::Done | State::Cancelled, _) | (_, None) => state.to_string(),
        (_, Some(error)) => format!("{state} ({error})"),
    }
}

fn send(facts: &Facts, signal: Signal) -> anyhow::Result<()> {
    let sent = facts.driver.signal(signal);
    sent.with_context(|| {
        format!(
            "cannot signal the driver of job {}, process {}",
            short(&facts.id),
            facts.driver.pid
        )
    })?;
    Ok(())
}

/// Waits until the driver is gone.
fn is_gone(facts: &Facts, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while facts.driver.is_there() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}

/// Writes that the job was cancelled, for a driver that could not.
fn write_end(folder: &Folder, why: &str) -> anyhow::Result<()> {
    let mut facts = again(folder)?;
    if facts.end.is_some() {
        return Ok(());
    }
    facts.end = Some(End {
        at_ms: now_ms(),
        exit: TERMINATED,
        error: Some(why.into()),
        stdout: None,
    });
    folder.write(&facts)
}
