//! `lswitch attach`: a job in the background, as if it ran here.

use crate::cmd::record::all::{self, short};
use crate::cmd::record::{Facts, Folder, State};
use crate::cmd::ui::Ui;
use crate::cmd::{EndedSo, Exit, block_on, interrupted};
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at what a job has printed.
const LOOK: Duration = Duration::from_millis(50);

/// Bytes that are copied at once.
const COPY_LEN: usize = 64 << 10;

/// Follow a job that runs in the background, until it ends
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch attach 1f3a
  lswitch attach 1f3a > result.txt

Prints all that the job has printed and prints, and exits as it does. Ctrl-C leaves the job running.")]
pub struct Attach {
    /// The first digits of its id, at least 4; \"lswitch jobs\" lists them
    #[arg(value_name = "JOB")]
    job: String,
}

impl Attach {
    /// Follows it.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        // Before anything is printed that says what Ctrl-C does.
        let stop = interrupted();
        let (folder, facts) = all::find(&self.job)?;
        let id = short(&facts.id);
        if !facts.detached {
            return Err(not_detached(&facts));
        }
        if facts.state() == State::Running {
            ui.say(format!(
                "job {id}: {}; Ctrl-C leaves it running",
                facts.command()
            ));
        }
        block_on(async {
            tokio::pin!(stop);
            let mut log = Follow::new(folder.log());
            let mut output = Follow::new(folder.output());
            loop {
                // In this order: what it printed before it ended is copied.
                let facts = again(&folder)?;
                let state = facts.state();
                log.copy(&mut io::stderr().lock())?;
                output.copy(&mut io::stdout().lock())?;
                if state != State::Running {
                    if let Some(printed) = facts.end.as_ref().and_then(|end| end.stdout) {
                        printed.check(&folder.output())?;
                    }
                    return conclude(&facts, state);
                }
                tokio::select! {
                    () = &mut stop => {
                        let words = format!("job {id} runs on; lswitch attach {id} shows it again, lswitch cancel {id} ends it");
                        return Err(EndedSo { exit: Exit::Interrupted.code(), said: Some(words) }.into());
                    }
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        })
    }
}

/// Exits as the job did; it has said why, if it could.
fn conclude(facts: &Facts, state: State) -> anyhow::Result<()> {
    match &facts.end {
        Some(end) if end.exit == 0 => Ok(()),
        Some(end) => {
            let cancelled = state == State::Cancelled;
            let said = cancelled.then(|| format!("job {} was cancelled", short(&facts.id)));
            let exit = end.exit;
            Err(EndedSo { exit, said }.into())
        }
        None => Err(lost(facts)),
    }
}

/// What is written of a job now.
///
/// # Errors
/// When the record is gone, as `lswitch clean` makes it.
pub fn again(folder: &Folder) -> anyhow::Result<Facts> {
    let gone = || format!("the record in {} is gone", folder.path().display());
    folder.read()?.with_context(gone)
}

/// The error of a job that prints where it was started.
pub fn not_detached(facts: &Facts) -> anyhow::Error {
    let id = short(&facts.id);
    match facts.state() {
        State::Running => anyhow::anyhow!(
            "job {id} runs in a terminal of its own and prints there; with --detach it would run in the background"
        ),
        state => anyhow::anyhow!(
            "job {id} ({state}) printed its result where it ran, and no copy was kept; with --detach one is"
        ),
    }
}

/// The error of a job that cannot say any more how it ended.
pub fn lost(facts: &Facts) -> anyhow::Error {
    anyhow::anyhow!(
        "job {} is lost: its driver (process {}) is gone without having said how it ended, as when it is killed or the machine restarts; start it again (of a map only what is missing, with --resume {}): {}",
        short(&facts.id),
        facts.driver.pid,
        short(&facts.id),
        facts.command()
    )
}

/// A file that is copied as it grows.
pub struct Follow {
    path: PathBuf,
    file: Option<File>,
}

impl Follow {
    /// Of a file that need not be there yet.
    pub fn new(path: PathBuf) -> Follow {
        Follow { path, file: None }
    }

    /// Copies what came since the last time.
    ///
    /// # Errors
    /// When it cannot be read, or nobody takes it.
    pub fn copy(&mut self, to: &mut impl Write) -> anyhow::Result<()> {
        if self.file.is_none() {
            self.file = open(&self.path)?;
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut buffer = vec![0; COPY_LEN];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => bail!("cannot read {}: {error}", self.path.display()),
            };
            to.write_all(&buffer[..count])?;
        }
        Ok(to.flush()?)
    }
}

fn open(path: &Path) -> anyhow::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
