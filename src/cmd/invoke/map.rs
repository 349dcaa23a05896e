//! `lswitch invoke map`: any program on many items.

use super::data::{check_reach, copy_object};
use super::fleet::{FleetArgs, failed};
use crate::cmd::ui::{self, Ui};
use crate::cmd::{InPart, UsageError, block_on, interrupted, raise_descriptor_limit};
use crate::job::farm::schedule::Policy;
use crate::job::items::find::Items;
use crate::job::map::code::Code;
use crate::job::map::run::{
    self, Held, ItemOutcome, MapError, MapEvent, MapOutcome, MapSpec, Tolerance,
};
use crate::job::map::{Arguments, Output};
use crate::net::token::JobId;
use crate::store::Store;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Failed items that are shown; all are counted, and `--json` has all.
const SHOWN: u64 = 20;

/// Lines of a failed item's stderr that are shown.
const LINES: usize = 5;

/// Run a program on each of many items: lines, numbers, files or objects
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke map --exec wc --items 'texts/*.txt' --workers 4
  lswitch invoke map --exec factor --items 100..110 -- {}
  lswitch invoke map --exec ./resize.py --items s3://bucket/photos/ --output s3://bucket/small --function F --switch S

Each item is given to the program on its standard input: a file's or an object's contents, a line, a number. Where an
argument has {}, the item stands there instead: its text, or the path of a file. What the program prints goes to
standard output in the order of the items, or with --output into one object an item.")]
pub struct MapArgs {
    /// The program: a file, which travels to the workers, or the name of one that they have
    #[arg(long, value_name = "PROGRAM")]
    exec: String,

    /// A folder that travels to the workers; --exec is a file in it
    #[arg(long, value_name = "FOLDER")]
    code: Option<PathBuf>,

    /// The items: a file's lines, - for those of standard input, START..END, a pattern of files, s3://bucket/prefix
    #[arg(long, value_name = "ITEMS")]
    items: String,

    /// Cut files and objects into items of about this size that end with a line, such as 64MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    split: Option<u64>,

    /// Where outputs go, one object an item; without it they go to standard output
    #[arg(long, value_name = "STORE")]
    output: Option<String>,

    /// How often an item is tried again after it has failed
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    retries: u32,

    /// Kill the program after so many seconds on one item; an item's invocation ends it anyway
    #[arg(long, value_name = "SECONDS")]
    item_timeout: Option<f64>,

    /// How many items may fail, or which share of them, such as 10%: with more the job is given up, with fewer it is done
    #[arg(long, value_name = "COUNT|SHARE", value_parser = tolerance)]
    tolerate_failures: Option<Tolerance>,

    /// The most that the program may print for one item
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    max_output: u64,

    /// Do not run copies of the slowest items on idle workers
    #[arg(long)]
    no_backups: bool,

    /// Print a line of JSON for each item, and one for the job
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    fleet: FleetArgs,

    /// The program's arguments
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl MapArgs {
    /// True if standard input has its items.
    pub fn reads_standard_input(&self) -> bool {
        self.items == "-"
    }

    /// Runs the job and prints its outputs.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let workers = self.fleet.elastic_workers()?;
        block_on(async {
            let aws = self.fleet.aws_settings();
            let items = Items::find(&self.items, self.split, &aws)
                .await
                .map_err(|error| UsageError(format!("--items: {error}")))?;
            check_reach(&self.fleet, "--items", &self.items, &items)?;
            let store = self.fleet.open_store("--store", &self.fleet.store).await?;
            let output = match &self.output {
                Some(location) => Some(self.fleet.open_store("--output", location).await?),
                None => None,
            };
            let spec = MapSpec {
                id,
                arguments: self.arguments_of(id, &store, output.as_ref()).await?,
                workers,
                store: store.url().into(),
                policy: Policy {
                    retries: self.retries,
                    backups: !self.no_backups,
                },
                timeout: self.fleet.timeout(),
                tolerance: self.tolerate_failures.unwrap_or(Tolerance::Any),
            };
            let outcome = self.drive(ui, &spec, items, &store).await?;
            self.conclude(ui, &outcome)
        })
    }

    /// What all items have in common; the program is in the store then, if it travels.
    async fn arguments_of(
        &self,
        id: JobId,
        store: &Store,
        output: Option<&Store>,
    ) -> anyhow::Result<Arguments> {
        let is_file = Path::new(&self.exec).is_file();
        let code = match (&self.code, is_file) {
            (Some(folder), _) => {
                if !folder.join(&self.exec).is_file() {
                    let what = format!("there is no {} in {}", self.exec, folder.display());
                    return Err(UsageError(what).into());
                }
                Some(Code::upload(&self.exec, Some(folder), store).await?)
            }
            (None, true) => Some(Code::upload(&self.exec, None, store).await?),
            (None, false) if self.exec.contains('/') => {
                return Err(UsageError(format!("there is no file {}", self.exec)).into());
            }
            (None, false) => None,
        };
        let within = self.item_timeout.map(|seconds| (seconds * 1000.0) as u64);
        if within == Some(0) {
            return Err(UsageError("--item-timeout is more than 0".into()).into());
        }
        Ok(Arguments {
            code,
            program: self.exec.clone(),
            arguments: self.arguments.clone(),
            within_ms: within,
            output_max: self.max_output,
            output: output.map(|store| store.url().to_string()),
            prefix: match output {
                Some(_) => String::new(),
                None => format!("map/{id}/outputs/"),
            },
        })
    }

    async fn drive(
        &self,
        ui: &Ui,
        spec: &MapSpec,
        items: Items,
        store: &Store,
    ) -> anyhow::Result<MapOutcome> {
        raise_descriptor_limit();
        let stop = interrupted();
        let bar = ui.count_bar("items", items.count().unwrap_or(0));
        // A worker that was lost may not be gone when the next one starts.
        let fleet = self.fleet.start(spec.workers as usize + 2).await?;
        let held = Arc::new(Held::default());
        let (tell, told) = mpsc::unbounded_channel();
        let printer = Printer {
            json: self.json,
            quiet: ui.is_quiet(),
            keeps: self.output.is_some(),
            store: store.clone(),
            runtime: Handle::current(),
            held: held.clone(),
            shown: 0,
            broken: None,
        };
        let printing = tokio::task::spawn_blocking(move || printer.print(told));
        let ran = run::run(
            spec,
            items,
            &fleet.switch,
            &fleet.launcher,
            stop,
            &held,
            &mut |event| match event {
                // Its receiver takes everything.
                MapEvent::Item(outcome) => drop(tell.send(outcome)),
                MapEvent::Settled => bar.inc(1),
                MapEvent::Lost(why) => bar.suspend(|| {
                    ui.say(format!("a worker was lost: {why}"));
                }),
                MapEvent::Workers(count) => bar.set_message(format!("{count} workers")),
            },
        )
        .await;
        drop(tell);
        bar.finish_and_clear();
        fleet.stop().await;
        let printed = printing.await.expect("printing does not panic");
        if self.output.is_none() {
            // What nobody has copied, of items that were run twice or of a job that was given up.
            store.delete_all(&spec.arguments.prefix).await?;
        }
        printed?;
        ran.map_err(|error| match error {
            MapError::Job(error) => failed(error),
            MapError::Items(error) => error.into(),
        })
    }

    fn conclude(&self, ui: &Ui, outcome: &MapOutcome) -> anyhow::Result<()> {
        let MapOutcome {
            farm,
            done,
            failed,
            given_up,
        } = outcome;
        if self.json {
            ui::print_json(&json!({
                "job": farm.job,
                "lswitch": crate::RELEASE,
                "done": done,
                "failed": failed,
                "given_up": given_up,
                "workers_lost": farm.lost,
                "messages": farm.traffic.0,
                "bytes": farm.traffic.1,
                "seconds": { "launch": farm.launch.as_secs_f64(), "run": farm.run.as_secs_f64() },
            }))?;
        }
        let mut words = format!(
            "{} items: {done} done, {failed} failed; launch {}, run {}",
            done + failed,
            ui::seconds(farm.launch),
            ui::seconds(farm.run)
        );
        if let Some(location) = &self.output {
            words += &format!("; outputs are in {location}");
        }
        ui.say(words);
        if *given_up {
            anyhow::bail!(
                "the job was given up: {failed} items have failed, more than --tolerate-failures allows"
            );
        }
        if *failed > 0 && self.tolerate_failures.is_none() {
            return Err(InPart(format!("{failed} of {} items have failed", done + failed)).into());
        }
        Ok(())
    }
}

/// Shows outcomes as they come, in order.
struct Printer {
    json: bool,
    quiet: bool,
    /// Outputs stay where they were stored.
    keeps: bool,
    store: Store,
    runtime: Handle,
    held: Arc<Held>,
    /// Failed items that were shown.
    shown: u64,
    /// The first error of standard output; nothing more is printed then, but everything is taken.
    broken: Option<io::Error>,
}

impl Printer {
    fn print(mut self, mut told: mpsc::UnboundedReceiver<ItemOutcome>) -> anyhow::Result<()> {
        let mut failure: Option<anyhow::Error> = None;
        let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout());
        while let Some(outcome) = self.runtime.block_on(told.recv()) {
            self.held.taken(&outcome);
            if failure.is_none() {
                failure = self.one(outcome, &mut out).err();
            }
            if told.is_empty() && self.broken.is_none() {
                self.broken = out.flush().err();
            }
            if failure.is_some() || self.broken.is_some() {
                self.held.end();
            }
        }
        if self.broken.is_none() {
            self.broken = out.flush().err();
        }
        match (failure, self.broken) {
            (Some(error), _) => Err(error),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Ok(()),
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
        if self.json {
            return Ok(writeln!(out, "{}", self.as_json(&outcome)?)?);
        }
        if outcome.problem.is_some() || self.keeps {
            return Ok(());
        }
        match &outcome.output {
            Output::Inline(bytes) => Ok(out.write_all(bytes)?),
            Output::Stored { key, bytes } => self.copy(key, *bytes, out),
        }
    }

    fn complain(&self, outcome: &ItemOutcome, problem: &str) {
        let times = match outcome.failures {
            1 => String::new(),
            times => format!(" ({times} times)"),
        };
        let (number, item) = (outcome.number, &outcome.item);
        ui::echo(
            false,
            format!("item {number} ({item}) failed{times}: {problem}"),
        );
        let words = String::from_utf8_lossy(&outcome.stderr);
        let lines: Vec<&str> = words.lines().collect();
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            ui::echo(false, format!("  | {line}"));
        }
    }

    fn as_json(&self, outcome: &ItemOutcome) -> anyhow::Result<Value> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output = match &outcome.output {
            Output::Inline(bytes) => json!({ "output": text(bytes), "bytes": bytes.len() }),
            Output::Stored { key, bytes } if self.keeps => json!({ "object": key, "bytes": bytes }),
            Output::Stored { key, bytes } => {
                let mut copied = Vec::new();
                self.copy(key, *bytes, &mut copied)?;
                json!({ "output": text(&copied), "bytes": bytes })
            }
        };
        let mut line = json!({
            "number": outcome.number,
            "item": outcome.item,
            "exit": outcome.exit,
            "failures": outcome.failures,
            "seconds": outcome.took.as_secs_f64(),
        });
        if let (Some(line), Value::Object(output)) = (line.as_object_mut(), output) {
            line.extend(output);
            if let Some(problem) = &outcome.problem {
                line.insert("problem".into(), problem.clone().into());
                line.insert("stderr".into(), text(&outcome.stderr).into());
            }
        }
        Ok(line)
    }

    /// Copies a long output out of the job's store, and removes it there.
    fn copy(&self, key: &str, bytes: u64, out: &mut impl Write) -> anyhow::Result<()> {
        self.runtime
            .block_on(copy_object(&self.store, key, bytes, out))?;
        Ok(self.runtime.block_on(self.store.delete(key))?)
    }
}

/// A size in bytes, such as 64MiB, 10kB, 4096.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("a size is a number with B, kB, KiB, MB, MiB, GB or GiB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a size begins with a number")?;
    number
        .checked_mul(factor)
        .filter(|size| *size > 0)
        .ok_or_else(|| "a size is more than 0 and less than 2^64 bytes".into())
}

/// A number of items, or a share of them.
fn tolerance(text: &str) -> Result<Tolerance, String> {
    if let Some(share) = text.strip_suffix('%') {
        let share: f64 = share.parse().map_err(|_| "a share is a number and %")?;
        if !(0.0..=100.0).contains(&share) {
            return Err("a share is between 0% and 100%".into());
        }
        return Ok(Tolerance::Share(share / 100.0));
    }
    let count = text
        .parse()
        .map_err(|_| "this is a number of items, or a share such as 10%");
    Ok(Tolerance::Count(count?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_understood_or_refused() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("10kB", 10_000),
            ("1g", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in [
            "",
            "MiB",
            "0",
            "1.5GiB",
            "12 parsecs",
            "99999999999999999999",
            "-1",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(tolerance("5"), Ok(Tolerance::Count(5)));
        assert_eq!(tolerance("12.5%"), Ok(Tolerance::Share(0.125)));
        for text in ["", "%", "101%", "-1", "NaN%", "some"] {
            assert!(tolerance(text).is_err(), "{text}");
        }
    }
}
