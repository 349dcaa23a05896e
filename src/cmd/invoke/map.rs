//! `lswitch invoke map`: any program on many items, and what goes on with what it has printed.

mod job;
mod printer;

use super::data::{MemoryArgs, check_reach, copy_piped};
use super::fleet::{FleetArgs, refused, release};
use super::plan::Plan;
use crate::cmd::record::{Folder, all, parse_id};
use crate::cmd::settings::parse_size;
use crate::cmd::ui::Ui;
use crate::cmd::{UsageError, block_on, hold};
use crate::job::command::Command;
use crate::job::command::code::CodeError;
use crate::job::farm::schedule::Policy;
use crate::job::items::Item;
use crate::job::items::cut::Cutting;
use crate::job::items::find::{Items, Wanted};
use crate::job::items::lines::Text;
use crate::job::items::pipe::is_own_descriptor;
use crate::job::map::run::{MapSpec, Tolerance};
use crate::job::map::{Arguments, PLACEHOLDER};
use crate::job::output::overlap::check_inputs;
use crate::job::output::{Claim, Claimant, Earlier, Kind, OutputError};
use crate::net::token::JobId;
use crate::store::{Store, StoreError};
use job::MapJob;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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

A file or an object that is an item is given as it lies, also if it is packed. Where lines are read, those of a file or the
pieces of --split, a text that is packed with gzip or zstd is unpacked; it is one piece. A line that is an item may have 4 MiB.
Of a folder or a prefix that a job of lswitch wrote, the parts that its result.json names are items; of other folders all files
but hidden ones and markers such as _SUCCESS. With --json, what is not UTF-8 is base64: output_base64 stands for output,
item_base64 for item, stderr_base64 for stderr.

If a job was interrupted or items failed, run the same command with --resume JOB: only unfinished items run.")]
pub struct MapArgs {
    /// The program: a file, which travels to the workers, or the name of one that they have
    #[arg(long, value_name = "PROGRAM")]
    exec: String,

    /// A folder that travels to the workers; --exec is a file in it
    #[arg(long, value_name = "FOLDER")]
    code: Option<PathBuf>,

    /// The items: a file's lines, - for those of standard input, START..END (from 0, without END), a folder or a pattern of files,
    /// s3://bucket/prefix with all below it
    #[arg(long, value_name = "ITEMS")]
    items: String,

    /// Take the files in folders below a folder too
    #[arg(long)]
    recursive: bool,

    /// Cut files and objects into items of about this size that end with a line, such as 64MiB; each has a line at least
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

    /// Where outputs go: one object an item, or what comes of --reduce or --combine, and result.json last; without it to
    /// standard output
    #[arg(long, value_name = "STORE")]
    output: Option<String>,

    /// Replace the results that --output holds
    #[arg(long, requires = "output")]
    overwrite: bool,

    /// Resume a job that has not come to its end: only items that are not done are run. Program, arguments, --split,
    /// --batch-size and items must be those that the job had
    #[arg(long, value_name = "JOB")]
    resume: Option<String>,

    /// Resume a job although the program or its arguments have changed, or its journal is damaged: outputs that it has
    /// are kept, and items that have changed are run again
    #[arg(long, requires = "resume")]
    resume_anyway: bool,

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

    /// Start workers in so many levels: those that this command starts start others, so that thousands are there in seconds. The
    /// function must be allowed to invoke itself
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u32).range(1..=4))]
    levels: Option<u32>,

    /// Do not run copies of the slowest items on idle workers
    #[arg(long)]
    no_backups: bool,

    /// Print a line of JSON for each item, and one for the job
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) fleet: FleetArgs,

    /// The program's arguments
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

impl MapArgs {
    /// True if standard input, or another descriptor of this process alone, has its items.
    pub fn reads_standard_input(&self) -> bool {
        is_own_descriptor(&self.items)
    }

    /// Runs the job and prints its outputs.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let workers = self.fleet.elastic_workers()?;
        let levels = self.levels.unwrap_or(self.fleet.levels());
        self.fleet.check_levels(levels)?;
        let within = self.check_batches()?;
        block_on(async {
            let wanted = Wanted {
                what: &self.items,
                cutting: self.split.map_or(Cutting::Whole, Cutting::Lines),
                recursive: self.recursive,
            };
            let found = Items::find(wanted, &self.fleet.aws_settings())
                .await
                .map_err(|error| UsageError(format!("--items {error}")))?;
            found.notes.lines().iter().for_each(|note| ui.say(note));
            let items = found.items;
            check_reach(&self.fleet, "--items", &self.items, &items)?;
            let store = self.fleet.open_own_store(id).await.map_err(unusable)?;
            let who = self.claimant(id)?;
            let output = match &self.output {
                Some(location) => {
                    let output = self.fleet.open_output(location, &who).await;
                    Some(output.map_err(unusable)?)
                }
                None => None,
            };
            if let Some(output) = &output {
                self.check_overlap(output, &items)?;
            }
            let plan = Plan {
                program: "map",
                workers,
                is_fixed: false,
                json: self.json,
            };
            self.fleet.plan(&plan).await?;
            // What the job keeps, and its claim on the output, are deleted before a signal ends this.
            let _hold = hold();
            let claim = match &output {
                Some(output) => {
                    let claim = Claim::acquire(output, &who).await.map_err(refused);
                    Some(claim.map_err(unusable)?)
                }
                None => None,
            };
            let ran = self
                .run_into(
                    ui,
                    (id, workers, levels, within),
                    items,
                    &store,
                    claim.as_ref(),
                )
                .await;
            let (outcome, is_done) = match ran {
                Ok((outcome, is_done)) => (outcome, is_done),
                Err(error) => (Err(error), true),
            };
            if let Some(claim) = claim {
                release(ui, claim, is_done).await;
            }
            outcome
        })
    }

    /// Runs the job; gives its outcome, and whether nothing is left to be resumed.
    async fn run_into(
        &self,
        ui: &Ui,
        (id, workers, levels, within): (JobId, u32, u32, Option<Duration>),
        items: Items,
        store: &Store,
        output: Option<&Claim>,
    ) -> anyhow::Result<(anyhow::Result<()>, bool)> {
        let base = format!("map/{id}/");
        let kept = output.filter(|_| !self.goes_on());
        let claim = match kept {
            Some(claim) => Some(claim.key().await),
            None => None,
        };
        let job = MapJob {
            args: self,
            ui,
            base: &base,
            begun: Instant::now(),
            reduce: self.next_command(&self.reduce, store).await?,
            combine: self.next_command(&self.combine, store).await?,
            spec: MapSpec {
                id,
                arguments: Arguments {
                    command: self
                        .command(&self.exec, self.arguments.clone(), within, store)
                        .await?,
                    output_max: self.max_output,
                    output: kept.map(|output| output.store().url().to_string()),
                    claim,
                    prefix: format!("{base}outputs/"),
                    name: None,
                    report: None,
                },
                batch: self.batch_size,
                workers,
                levels,
                store: store.url().into(),
                policy: Policy {
                    retries: self.retries,
                    backups: !self.no_backups,
                },
                timeout: self.fleet.timeout(),
                tolerance: self.tolerate_failures.unwrap_or(Tolerance::Any),
            },
            store,
            output,
        };
        let mut progress = match job.progress(items.count(self.batch_size)).await {
            Ok(progress) => progress,
            Err(error) => {
                // Where the journal is this job's by now, so are the outputs.
                let own = Folder::of(id).is_ok_and(|folder| folder.has_journal());
                return Ok((Err(error), !own));
            }
        };
        let outcome = match copy_piped(ui, items, store, &format!("{base}input")).await {
            Ok(items) => job.run(items, &mut progress).await,
            Err(error) => Err(error),
        };
        let is_done = job.clean(progress, &outcome).await;
        Ok((outcome, is_done))
    }

    /// Who asks for the output.
    fn claimant(&self, id: JobId) -> anyhow::Result<Claimant> {
        let earlier = match &self.resume {
            None => Earlier::of(self.overwrite),
            Some(job) => {
                let (_, facts) = all::find(job)?;
                parse_id(&facts.id).map_or(Earlier::Refuse, Earlier::Resume)
            }
        };
        Ok(Claimant {
            job: id,
            program: "map",
            kind: match self.goes_on() {
                true => Kind::Parts,
                false => Kind::Items,
            },
            earlier,
        })
    }

    /// Refuses an output in which the items are.
    fn check_overlap(&self, output: &Store, items: &Items) -> anyhow::Result<()> {
        let checked = match items {
            Items::Named(items) => check_inputs(output, &self.items, items),
            Items::Lines(Text::File(path)) => {
                let file = Item::File {
                    path: path.to_string_lossy().into_owned(),
                    length: 0,
                    modified: None,
                    crc32c: None,
                    part: None,
                };
                check_inputs(output, &self.items, [&file])
            }
            Items::Lines(Text::Pipe(_)) | Items::Piped(..) | Items::Range(_) => Ok(()),
        };
        checked.map_err(refused)
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
        let Some(mut arguments) = shlex::split(words) else {
            return Err(UsageError(format!("{words:?} has quotes that do not end")).into());
        };
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

/// A store that no item could use is wrong usage: nothing was run yet.
fn unusable(error: anyhow::Error) -> anyhow::Error {
    let store = match error.downcast_ref() {
        Some(OutputError::Store(error)) => Some(error),
        _ => error.downcast_ref::<StoreError>(),
    };
    let is_permanent = store.is_some_and(StoreError::is_permanent);
    match is_permanent {
        true => UsageError(format!("{error:#}")).into(),
        false => error,
    }
}

/// A size in bytes, such as 64MiB, and not 0.
pub(super) fn size(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("a size is more than 0".into()),
        bytes => Ok(bytes as u64),
    }
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
    fn shares_are_understood_or_refused() {
        assert_eq!(tolerance("5"), Ok(Tolerance::Count(5)));
        assert_eq!(tolerance("12.5%"), Ok(Tolerance::Share(0.125)));
        for text in ["", "%", "101%", "-1", "NaN%", "some"] {
            assert!(tolerance(text).is_err(), "{text}");
        }
    }
}
