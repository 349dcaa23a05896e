//! `lswitch result`: what a job in the background has printed to standard output.

use crate::cmd::attach::{Follow, again, lost, not_detached};
use crate::cmd::record::State;
use crate::cmd::record::all::{self, short};
use crate::cmd::ui::Ui;
use crate::cmd::{EndedSo, UsageError};
use anyhow::bail;
use std::io;
use std::time::{Duration, Instant};

/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Print the result of a job that ran in the background
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch result 1f3a
  lswitch result 1f3a --wait --timeout 600 > result.txt

Prints what the job has printed to standard output, and exits as the job did.")]
pub struct Result {
    /// The first digits of its id, at least 4; \"lswitch jobs\" lists them
    #[arg(value_name = "JOB")]
    job: String,

    /// Wait until it has ended
    #[arg(long)]
    wait: bool,

    /// Wait no longer than so many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<f64>,
}

impl Result {
    /// Prints it.
    pub fn run(&self, _ui: &Ui) -> anyhow::Result<()> {
        let deadline = match self.timeout.map(Duration::try_from_secs_f64) {
            None => None,
            // One that is too far away is none.
            Some(Ok(timeout)) => Instant::now().checked_add(timeout),
            Some(Err(_)) => {
                let what = "--timeout is a number of seconds, at least 0";
                return Err(UsageError(what.into()).into());
            }
        };
        let (folder, mut facts) = all::find(&self.job)?;
        let id = short(&facts.id).to_string();
        if !facts.detached {
            return Err(not_detached(&facts));
        }
        let mut state = facts.state();
        while state == State::Running {
            if !self.wait {
                bail!(
                    "job {id} still runs; wait for it: lswitch result {id} --wait, or follow it: lswitch attach {id}"
                );
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let seconds = self.timeout.unwrap_or_default();
                bail!("job {id} still runs after {seconds} s; it goes on: lswitch attach {id}");
            }
            std::thread::sleep(LOOK);
            facts = again(&folder)?;
            state = facts.state();
        }
        if let Some(printed) = facts.end.as_ref().and_then(|end| end.stdout) {
            printed.check(&folder.output())?;
        }
        Follow::new(folder.output()).copy(&mut io::stdout().lock())?;
        match facts.end {
            None => Err(lost(&facts)),
            Some(end) if end.exit == 0 => Ok(()),
            Some(end) => {
                let why = end
                    .error
                    .map_or(String::new(), |error| format!(": {error}"));
                let said = format!(
                    "job {id} ended: {state}{why}; lswitch attach {id} shows all that it said"
                );
                let (exit, said) = (end.exit, Some(said));
                Err(EndedSo { exit, said }.into())
            }
        }
    }
}
