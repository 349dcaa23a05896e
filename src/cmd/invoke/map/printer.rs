//! What a map shows: outputs and failures, in the order of the items.

use crate::cmd::invoke::data::copy_sealed;
use crate::cmd::ui;
use crate::job::map::Output;
use crate::job::map::gather::{Gathered, Gatherer};
use crate::job::map::json::{insert_bytes, insert_tail};
use crate::job::map::run::{Held, ItemOutcome};
use crate::job::output::ResultFile;
use crate::store::Store;
use crate::store::sealed::Seal;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Failed items that are shown; all are counted, and `--json` has all.
const SHOWN: u64 = 20;

/// Lines of a failed item's stderr that are shown.
const LINES: usize = 5;

/// Where outputs go.
pub(super) enum Outputs {
    /// To standard output.
    Printed,
    /// They stay where they were stored, as these files.
    Kept(Vec<ResultFile>),
    /// To what goes on with them.
    Gathered(Box<Gatherer>),
}

/// What became of the outputs.
pub(super) enum Collected {
    /// They were printed.
    Nothing,
    /// They are these files.
    Files(Vec<ResultFile>),
    /// They were gathered.
    Gathered(Gathered),
}

/// Shows outcomes as they come, in order.
pub(super) struct Printer {
    /// What is said of the item if there is only one.
    pub(super) what: &'static str,
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) outputs: Outputs,
    /// The job's store.
    pub(super) store: Store,
    pub(super) runtime: Handle,
    pub(super) held: Arc<Held>,
    /// Failed items that were shown.
    pub(super) shown: u64,
    /// The first error of standard output; nothing more is printed then, but everything is taken.
    pub(super) broken: Option<io::Error>,
}

impl Printer {
    /// Takes outcomes until there are no more; gives the files that were stored, or what was gathered.
    pub(super) fn print(
        mut self,
        mut told: mpsc::UnboundedReceiver<ItemOutcome>,
    ) -> anyhow::Result<Collected> {
        // Of what goes elsewhere all is wanted, also when nobody reads the lines about it any more.
        let is_printed = matches!(self.outputs, Outputs::Printed);
        let mut failure: Option<anyhow::Error> = None;
        let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout());
        while let Some(outcome) = self.runtime.block_on(told.recv()) {
            self.held.taken(&outcome);
            if failure.is_none()
                && let Err(error) = self.one(outcome, &mut out)
            {
                match ui::is_closed_pipe(&error) && !is_printed {
                    true => self.broken = Some(io::ErrorKind::BrokenPipe.into()),
                    false => failure = Some(error),
                }
            }
            if told.is_empty() && self.broken.is_none() {
                self.broken = out.flush().err();
            }
            if failure.is_some() || (self.broken.is_some() && is_printed) {
                self.held.end();
            }
        }
        if self.broken.is_none() {
            self.broken = out.flush().err();
        }
        match (failure, self.broken) {
            (Some(error), _) => Err(error),
            (None, Some(error)) if is_printed || error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error.into())
            }
            (None, _) => match self.outputs {
                Outputs::Gathered(gatherer) => Ok(Collected::Gathered(gatherer.finish()?)),
                Outputs::Kept(files) => Ok(Collected::Files(files)),
                Outputs::Printed => Ok(Collected::Nothing),
            },
        }
    }

    fn one(&mut self, outcome: ItemOutcome, out: &mut impl Write) -> anyhow::Result<()> {
        if let Some(problem) = &outcome.problem {
            self.shown += 1;
            if self.shown <= SHOWN {
                self.complain(&outcome, problem);
            } else if self.shown == SHOWN + 1 {
                ui::echo(self.quiet, "more items have failed; --json tells of each");
            }
        }
        match (&mut self.outputs, &outcome.output) {
            (Outputs::Gathered(gatherer), _) => gatherer.take(&outcome)?,
            (
                Outputs::Kept(files),
                Output::Stored {
                    key, bytes, crc32c, ..
                },
            ) if outcome.problem.is_none() => {
                files.push(ResultFile {
                    name: key.clone(),
                    bytes: *bytes,
                    crc32c: *crc32c,
                });
            }
            (Outputs::Kept(_) | Outputs::Printed, _) => {}
        }
        if self.json && self.broken.is_some() {
            return Ok(());
        }
        if self.json {
            return Ok(writeln!(out, "{}", self.as_json(&outcome)?)?);
        }
        if outcome.problem.is_some() || !matches!(self.outputs, Outputs::Printed) {
            return Ok(());
        }
        match &outcome.output {
            Output::Inline(bytes) => Ok(out.write_all(bytes)?),
            Output::Stored { key, seal, .. } => self.copy(key, *seal, out),
        }
    }

    fn complain(&self, outcome: &ItemOutcome, problem: &str) {
        let times = match outcome.failures {
            1 => String::new(),
            times => format!(" ({times} times)"),
        };
        let (number, item) = (outcome.number, &outcome.item);
        let name = match self.what {
            "" => format!("item {number} ({item})"),
            what => what.to_string(),
        };
        ui::echo(false, format!("{name} failed{times}: {problem}"));
        let words = String::from_utf8_lossy(&outcome.stderr);
        let lines: Vec<&str> = words.lines().collect();
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            ui::echo(false, format!("  | {line}"));
        }
    }

    fn as_json(&self, outcome: &ItemOutcome) -> anyhow::Result<Value> {
        let mut line = Map::new();
        line.insert("number".into(), outcome.number.into());
        outcome.insert_item(&mut line);
        line.insert("exit".into(), json!(outcome.exit));
        line.insert("failures".into(), outcome.failures.into());
        line.insert("seconds".into(), outcome.took.as_secs_f64().into());
        let length = match (&outcome.output, &self.outputs) {
            (Output::Inline(bytes), outputs) => {
                if !matches!(outputs, Outputs::Gathered(_)) {
                    insert_bytes(&mut line, "output", bytes);
                }
                bytes.len() as u64
            }
            (Output::Stored { bytes, .. }, Outputs::Gathered(_)) => *bytes,
            (Output::Stored { key, bytes, .. }, Outputs::Kept(_)) => {
                line.insert("object".into(), key.clone().into());
                *bytes
            }
            (
                Output::Stored {
                    key, bytes, seal, ..
                },
                Outputs::Printed,
            ) => {
                let mut copied = Vec::new();
                self.copy(key, *seal, &mut copied)?;
                insert_bytes(&mut line, "output", &copied);
                *bytes
            }
        };
        line.insert("bytes".into(), length.into());
        if let Some(problem) = &outcome.problem {
            line.insert("problem".into(), problem.clone().into());
            insert_tail(&mut line, "stderr", &outcome.stderr);
        }
        Ok(line.into())
    }

    /// Copies a long output out of the job's store.
    fn copy(&self, key: &str, seal: Option<Seal>, out: &mut impl Write) -> anyhow::Result<()> {
        let seal = seal.expect("the job's own store has sealed outputs alone");
        self.runtime
            .block_on(copy_sealed(&self.store, key, &seal, out))
    }
}
