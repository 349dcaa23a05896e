//! `lswitch invoke map`: any program on many items, and what goes on with what it has printed.

mod printer;

use super::data::{DataJob, MemoryArgs, check_reach, print_parts};
use super::fleet::{FleetArgs, failed};
use crate::cmd::settings::home;
use crate::cmd::ui::{self, Ui};
use crate::cmd::{InPart, UsageError, block_on, interrupted, raise_descriptor_limit};
use crate::job::command::Command;
use crate::job::command::code::CodeError;
use crate::job::farm::schedule::Policy;
use crate::job::items::Item;
use crate::job::items::find::Items;
use crate::job::map::gather::{Gathered, Gatherer};
use crate::job::map::journal::{Begun, Journal};
use crate::job::map::run::{
    self, Held, MapError, MapEvent, MapOutcome, MapSpec, Progress, Tolerance,
};
use crate::job::map::{Arguments, PLACEHOLDER};
use crate::job::output::{finish_output, part_key};
use crate::job::reduce::{self, Reduced};
use crate::job::report::decode_results;
use crate::job::sort::extension;
use crate::net::token::JobId;
use crate::store::Store;
use anyhow::{Context, anyhow};
use printer::{Outputs, Printer};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// The most items that are given together.
const BATCH_MAX: u64 = 100_000;

/// Run a program on each of many items: lines, numbers, files or objects
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke map --exec wc --items 'texts/*.txt' --workers 4
  lswitch invoke map --exec factor --items 100..110 -- {}
  lswitch invoke map --exec ./resize.py --items s3://bucket/photos/ --output s3://bucket/small --function F --switch S
  lswitch invoke map --exec ./words.py --items 'texts/*.txt' --split 64MiB --reduce ./sum.py
  lswitch invoke burst --exec ./simulate --items 0..1000000 --batch-size 1000 --max-parallel 200 --combine ./mean

Each item is given to the program on its standard input: a file's or an object's contents, a line, a number. Where an
argument has {}, the item stands there instead: its text, or the path of a file. What the program prints goes to
standard output in the order of the items, or with --output into one object an item. --reduce and --combine go on with it.
A job that did not come to its end, or in which items have failed, is gone on with by the same command and --resume JOB.")]
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

    /// Give the program so many items at a time, on lines of its standard input; {} then stands for as many arguments
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=BATCH_MAX))]
    batch_size: u64,

    /// A program that each worker runs on what was printed: sorted lines, those that are alike up to the first tab at one worker
    #[arg(long, value_name = "PROGRAM")]
    reduce: Option<String>,

    /// A program that one worker runs on all that was printed, in order; it finds what became of each item in $LSWITCH_REPORT
    #[arg(long, value_name = "PROGRAM")]
    combine: Option<String>,

    #[command(flatten)]
    memory: MemoryArgs,

    /// Where outputs go: one object an item, or what comes of --reduce or --combine; without it to standard output
    #[arg(long, value_name = "STORE")]
    output: Option<String>,

    /// Replace what --output holds of an earlier --reduce or --combine
    #[arg(long, requires = "output")]
    overwrite: bool,

    /// Go on with a job that did not come to its end: only what is missing is run
    #[arg(long, value_name = "JOB")]
    resume: Option<String>,

    /// How often an item is tried again after it has failed
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    retries: u32,

    /// Kill the program after so many seconds on one item; an item's invocation ends it anyway
    #[arg(long, value_name = "SECONDS", visible_alias = "batch-timeout")]
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
    json: bool,

    #[command(flatten)]
    fleet: FleetArgs,

    /// The program's arguments
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl MapArgs {
    /// Runs the job and prints its outputs.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let workers = self.fleet.elastic_workers()?;
        let within = self.check_batches()?;
        block_on(async {
            let items = Items::find(&self.items, self.split, &self.fleet.aws_settings())
                .await
                .map_err(|error| UsageError(format!("--items {error}")))?;
            check_reach(&self.fleet, "--items", &self.items, &items)?;
            let store = self.fleet.open_store("--store", &self.fleet.store).await?;
            let output = match &self.output {
                Some(location) if self.goes_on() => {
                    Some(self.fleet.open_output(location, self.overwrite).await?)
                }
                Some(location) => Some(self.fleet.open_store("--output", location).await?),
                None => None,
            };
            let base = format!("map/{id}/");
            let kept = output.as_ref().filter(|_| !self.goes_on());
            let job = MapJob {
                args: self,
                ui,
                base: &base,
                reduce: self.next_command(&self.reduce, &store).await?,
                combine: self.next_command(&self.combine, &store).await?,
                spec: MapSpec {
                    id,
                    arguments: Arguments {
                        command: self
                            .command(&self.exec, self.arguments.clone(), within, &store)
                            .await?,
                        output_max: self.max_output,
                        output: kept.map(|store| store.url().to_string()),
                        prefix: format!("{base}outputs/"),
                        name: None,
                        report: None,
                    },
                    batch: self.batch_size,
                    workers,
                    store: store.url().into(),
                    policy: Policy {
                        retries: self.retries,
                        backups: !self.no_backups,
                    },
                    timeout: self.fleet.timeout(),
                    tolerance: self.tolerate_failures.unwrap_or(Tolerance::Any),
                },
                store: &store,
                output: output.as_ref(),
            };
            let mut progress = job.progress().await?;
            let outcome = job.run(items, &mut progress).await;
            job.clean(progress, outcome).await
        })
    }

    /// Something goes on with the outputs.
    fn goes_on(&self) -> bool {
        self.reduce.is_some() || self.combine.is_some()
    }

    /// How long the program may run on one item, or on a batch.
    fn check_batches(&self) -> Result<Option<Duration>, UsageError> {
        let whole = |argument: &String| argument == PLACEHOLDER || !argument.contains(PLACEHOLDER);
        if self.batch_size > 1 && !self.arguments.iter().all(whole) {
            return Err(UsageError(format!(
                "with --batch-size {PLACEHOLDER} stands alone, for as many arguments as there are items"
            )));
        }
        let within = self.item_timeout.map(Duration::try_from_secs_f64);
        match within.transpose() {
            Ok(within) if within.is_none_or(|within| !within.is_zero()) => Ok(within),
            _ => Err(UsageError("--item-timeout is more than 0".into())),
        }
    }

    /// The program and the arguments that --reduce or --combine names.
    async fn next_command(
        &self,
        words: &Option<String>,
        store: &Store,
    ) -> anyhow::Result<Option<Command>> {
        let Some(words) = words else {
            return Ok(None);
        };
        let mut arguments = shlex::split(words).unwrap_or_default();
        if arguments.is_empty() {
            return Err(UsageError(format!("{words:?} names no program")).into());
        }
        let program = arguments.remove(0);
        self.command(&program, arguments, None, store)
            .await
            .map(Some)
    }

    async fn command(
        &self,
        program: &str,
        arguments: Vec<String>,
        within: Option<Duration>,
        store: &Store,
    ) -> anyhow::Result<Command> {
        // A folder need not have them all.
        let folder = self.code.as_deref();
        let folder = folder.filter(|folder| program == self.exec || folder.join(program).is_file());
        let command = Command::new(program, arguments, folder, within, store).await;
        command.map_err(|error| match error {
            CodeError::Unfit(what) => UsageError(what).into(),
            other => other.into(),
        })
    }
}

/// Where jobs keep what they need to be gone on with.
fn journal_of(job: &str) -> anyhow::Result<PathBuf> {
    Ok(home()?.join("jobs").join(job).join("journal"))
}

/// One map, and what goes on with it.
struct MapJob<'a> {
    args: &'a MapArgs,
    ui: &'a Ui,
    /// What the names of all begin with that it keeps in its store.
    base: &'a str,
    spec: MapSpec,
    reduce: Option<Command>,
    combine: Option<Command>,
    store: &'a Store,
    output: Option<&'a Store>,
}

impl MapJob<'_> {
    /// What is done already, and where it is written what is.
    async fn progress(&self) -> anyhow::Result<Progress> {
        let begun = Begun {
            prefix: self.base.into(),
            output: self.spec.arguments.output.clone(),
        };
        let made = journal_of(&self.spec.id.to_string()).and_then(|path| {
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            Ok(path)
        });
        let Some(job) = &self.args.resume else {
            let journal = made.and_then(|path| Ok(Journal::create(&path, begun)?));
            if let Err(error) = &journal {
                self.ui
                    .say(format!("--resume will not work for this job: {error:#}"));
            }
            return Ok(Progress {
                known: None,
                journal: journal.ok(),
            });
        };
        let earlier = journal_of(job)?;
        if !earlier.is_file() {
            let what = format!("--resume {job}: this job has left nothing to go on with");
            return Err(UsageError(what).into());
        }
        let (journal, mut known) = Journal::take_over(&earlier, &made?, begun)
            .with_context(|| format!("cannot go on with job {job}"))?;
        let mut there = BTreeSet::new();
        if let (Some(output), false) = (self.output, self.args.goes_on()) {
            there.extend(output.list("").await?.into_iter().map(|entry| entry.key));
        }
        for prefix in journal.prefixes() {
            let entries = self.store.list(prefix).await?;
            there.extend(entries.into_iter().map(|entry| entry.key));
        }
        known.keep_stored(|key| there.contains(key));
        self.ui
            .say(format!("{} items were done by job {job}", known.len()));
        Ok(Progress {
            known: Some(known),
            journal: Some(journal),
        })
    }

    /// Forgets what is not needed to go on. What came of the job matters more than that something cannot be deleted.
    async fn clean(&self, progress: Progress, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        let journal = progress.journal;
        let is_empty = journal.as_ref().is_none_or(Journal::is_empty);
        if outcome.is_err() && !is_empty {
            self.ui.say(format!(
                "what is done is kept; to go on with the rest, run the same with --resume {}",
                self.spec.id
            ));
            return outcome;
        }
        let mut deleted = self.store.delete_all(self.base).await.map(drop);
        if let Some(journal) = journal {
            for prefix in journal.prefixes() {
                deleted = deleted.and(self.store.delete_all(prefix).await.map(drop));
            }
            if let Err(error) = journal.delete() {
                self.ui
                    .say(format!("cannot delete the job's journal: {error}"));
            }
        }
        outcome?;
        Ok(deleted?)
    }

    async fn run(&self, items: Items, progress: &mut Progress) -> anyhow::Result<()> {
        let outputs = match (self.args.goes_on(), self.output) {
            (true, _) => {
                let prefix = format!("{}gathered/", self.base);
                let gatherer = Gatherer::new(self.store, &prefix, self.reduce.is_some())?;
                Outputs::Gathered(gatherer)
            }
            (false, Some(_)) => Outputs::Kept,
            (false, None) => Outputs::Printed,
        };
        let (outcome, gathered) = self.drive(&self.spec, "", items, progress, outputs).await?;
        self.conclude(&outcome)?;
        let Some(Gathered {
            mut outputs,
            report,
        }) = gathered
        else {
            return Ok(());
        };
        if let Some(command) = &self.reduce {
            outputs = self.reduce(command, &outputs).await?;
        }
        if let Some(command) = &self.combine {
            self.combine(command, outputs, report).await?;
        }
        Ok(())
    }

    /// Has each worker reduce what is its; gives what came of it.
    async fn reduce(&self, command: &Command, inputs: &[Item]) -> anyhow::Result<Vec<Item>> {
        let (fleet, ranks) = (&self.args.fleet, self.spec.workers);
        let target = match (self.output, &self.combine) {
            (Some(output), None) => (output, ""),
            _ => (self.store, self.base),
        };
        let job = DataJob::new(fleet, JobId::random(), "reduce", ranks, inputs).await?;
        let arguments = reduce::Arguments {
            inputs: job.list(),
            command: command.clone(),
            output: (target.0.url().into(), target.1.into()),
            memory: self.args.memory.bytes(fleet, ranks),
            spill: job.spill(),
            retries: self.spec.policy.retries,
        };
        let outcome = job
            .drive(self.ui, &arguments, self.spec.policy.retries)
            .await;
        let job = job.clean(outcome).await?;
        let reduced: Vec<Reduced> = decode_results(&job.results).map_err(|error| anyhow!(error))?;
        let sum = |what: fn(&Reduced) -> u64| reduced.iter().map(what).sum::<u64>();
        let summary = json!({
            "program": "reduce",
            "job": job.job,
            "lswitch": crate::RELEASE,
            "lines": sum(|rank| rank.read.0),
            "line_bytes": sum(|rank| rank.read.1),
            "written_bytes": sum(|rank| rank.written),
            "spilled_bytes": sum(|rank| rank.spilled),
            "failures": sum(|rank| rank.failures.into()),
            "workers": job.results.len(),
            "messages": job.messages,
            "bytes": job.bytes,
            "seconds": {
                "launch": job.launch.as_secs_f64(),
                "run": job.run.as_secs_f64(),
                "ranks": reduced.iter().map(|rank| rank.seconds).collect::<Vec<_>>(),
            },
        });
        let extension = extension(reduce::FORMAT);
        if self.combine.is_none() {
            match self.output {
                Some(output) => finish_output(output, ranks, extension, summary.clone()).await?,
                None if self.args.json => {}
                None => print_parts(self.store, self.base).await?,
            }
        }
        if self.args.json {
            ui::print_json(&summary)?;
        }
        self.ui.say(format!(
            "{} lines reduced; launch {}, run {}; {} through the switch",
            sum(|rank| rank.read.0),
            ui::seconds(job.launch),
            ui::seconds(job.run),
            ui::bytes(job.bytes)
        ));
        let parts = reduced.iter().zip(0..).map(|(rank, part)| Item::Object {
            store: target.0.url().into(),
            key: format!("{}{}", target.1, part_key(part, extension)),
            length: rank.written,
            part: None,
        });
        Ok(parts.collect())
    }

    /// Has one worker go on with everything: a map of one item.
    async fn combine(
        &self,
        command: &Command,
        inputs: Vec<Item>,
        report: Item,
    ) -> anyhow::Result<()> {
        let extension = extension(reduce::FORMAT);
        let spec = MapSpec {
            id: JobId::random(),
            arguments: Arguments {
                command: command.clone(),
                output: self.output.map(|store| store.url().to_string()),
                prefix: format!("{}combined/", self.base),
                name: Some(part_key(0, extension)),
                report: Some(report),
                ..self.spec.arguments.clone()
            },
            batch: 1,
            workers: 1,
            policy: Policy {
                backups: false,
                ..self.spec.policy
            },
            tolerance: Tolerance::Any,
            ..self.spec.clone()
        };
        let items = Items::Named(vec![Item::Batch {
            first: 0,
            items: inputs,
        }]);
        let outputs = match self.output {
            Some(_) => Outputs::Kept,
            None => Outputs::Printed,
        };
        let mut progress = Progress::default();
        let what = "--combine";
        let (outcome, _) = self
            .drive(&spec, what, items, &mut progress, outputs)
            .await?;
        if outcome.failed > 0 {
            anyhow::bail!("--combine has failed");
        }
        if let Some(output) = self.output {
            let result = json!({
                "program": "combine",
                "job": outcome.farm.job,
                "lswitch": crate::RELEASE,
            });
            finish_output(output, 1, extension, result).await?;
        }
        Ok(())
    }

    /// Runs a map. `what` is said of its item if there is only one.
    async fn drive(
        &self,
        spec: &MapSpec,
        what: &'static str,
        items: Items,
        progress: &mut Progress,
        outputs: Outputs,
    ) -> anyhow::Result<(MapOutcome, Option<Gathered>)> {
        raise_descriptor_limit();
        let (ui, stop) = (self.ui, interrupted());
        let count = items.count().unwrap_or(0).div_ceil(spec.batch);
        let bar = ui.count_bar("items", count);
        // A worker that was lost may not be gone when the next one starts.
        let fleet = self.args.fleet.start(spec.workers as usize + 2).await?;
        let held = Arc::new(Held::default());
        let (tell, told) = mpsc::unbounded_channel();
        let printer = Printer {
            what,
            json: self.args.json,
            quiet: ui.is_quiet(),
            outputs,
            store: self.store.clone(),
            runtime: Handle::current(),
            held: held.clone(),
            shown: 0,
            broken: None,
        };
        let printing = tokio::task::spawn_blocking(move || printer.print(told));
        let ran = run::run(
            spec,
            items,
            progress,
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
        let gathered = printing.await.expect("printing does not panic")?;
        let outcome = ran.map_err(|error| match error {
            MapError::Job(error) => failed(error),
            MapError::Items(error) => error.into(),
            MapError::Journal(error) => error.into(),
        })?;
        Ok((outcome, gathered))
    }

    fn conclude(&self, outcome: &MapOutcome) -> anyhow::Result<()> {
        let MapOutcome {
            farm,
            done,
            failed,
            given_up,
        } = outcome;
        if self.args.json {
            ui::print_json(&json!({
                "job": self.spec.id.to_string(),
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
        if let (Some(location), false) = (&self.args.output, self.args.goes_on()) {
            words += &format!("; outputs are in {location}");
        }
        self.ui.say(words);
        if *given_up {
            anyhow::bail!(
                "the job was given up: {failed} items have failed, more than --tolerate-failures allows"
            );
        }
        if *failed > 0 && self.args.tolerate_failures.is_none() {
            let mut words = format!("{failed} of {} items have failed", done + failed);
            if self.args.goes_on() {
                words += ", so nothing goes on with the others; --tolerate-failures allows some";
            }
            return Err(InPart(words).into());
        }
        Ok(())
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
