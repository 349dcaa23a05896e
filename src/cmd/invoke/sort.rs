//! `lswitch invoke sort`: files or objects in, parts in order out.

use super::data::{DataJob, MemoryArgs, find_inputs};
use super::fleet::{FleetArgs, refused, release};
use super::plan::Plan;
use crate::cmd::check::RecordArgs;
use crate::cmd::ui::{self, Ui, print_facts, print_json};
use crate::cmd::{UsageError, block_on, hold};
use crate::job::driver::JobOutcome;
use crate::job::items::cut::Cutting;
use crate::job::items::find::{Items, Wanted};
use crate::job::items::pipe::is_own_descriptor;
use crate::job::output::overlap::check_inputs;
use crate::job::output::{Claim, Claimant, Earlier, Kind};
use crate::job::report::decode_results;
use crate::job::sort::record::Format;
use crate::job::sort::{Arguments, Sorted};
use crate::net::token::JobId;
use anyhow::{anyhow, bail};
use serde_json::{Value, json};

/// Sort lines, or records of a fixed length, byte by byte
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch generate records --count 1000000 --out records.dat
  lswitch invoke sort --input records.dat --format records --output sorted --workers 4
  lswitch check sort sorted --with records.dat --format records

The parts, one after the other, are the whole in order, the same for any number of workers. What does not fit into
--memory is written to the job's store and merged from there.

Lines may have up to 256 MiB. Texts that are packed with gzip or zstd are unpacked, each by one worker; records are read as
they lie. Of a folder that a job of lswitch wrote, the parts that its result.json names are read; of other folders all files
but hidden ones and markers such as _SUCCESS.")]
pub struct SortArgs {
    /// What is sorted: a file, - for standard input, a pattern of files, a folder, s3://bucket/prefix with all below it
    #[arg(long, value_name = "INPUT")]
    input: String,

    /// Read the folders below a folder too
    #[arg(long)]
    recursive: bool,

    /// Where the parts go: part-NNNNN.txt or .dat for each worker, and result.json last
    #[arg(long, value_name = "STORE")]
    output: String,

    /// Replace the results that --output holds
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    records: RecordArgs,

    #[command(flatten)]
    memory: MemoryArgs,

    /// How often the job is started again when a worker is lost
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    retries: u32,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

impl SortArgs {
    /// True if standard input, or another descriptor of this process alone, is its input.
    pub fn reads_standard_input(&self) -> bool {
        is_own_descriptor(&self.input)
    }

    /// Runs the job and prints what was done.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let format = self.records.format()?;
        let ranks = self.fleet.workers_or_processors()?;
        block_on(async {
            let wanted = Wanted {
                what: &self.input,
                cutting: match format {
                    Format::Fixed(length) => Cutting::Records(length),
                    _ => Cutting::Shares,
                },
                recursive: self.recursive,
            };
            let inputs = find_inputs(ui, &self.fleet, wanted).await?;
            check_lengths(&inputs, format)?;
            let who = Claimant {
                job: id,
                program: "sort",
                kind: Kind::Parts,
                earlier: Earlier::of(self.overwrite),
            };
            let output = self.fleet.open_output(&self.output, &who).await?;
            check_inputs(&output, &self.input, inputs.named()).map_err(refused)?;
            let plan = Plan {
                program: "sort",
                workers: ranks,
                is_fixed: true,
                json: self.json,
            };
            self.fleet.plan(&plan).await?;
            // What the job keeps, and its claim on the output, are deleted before a signal ends this.
            let _hold = hold();
            let claim = Claim::acquire(&output, &who).await.map_err(refused)?;
            let outcome = self.sort(ui, (id, ranks, format), inputs, &claim).await;
            release(ui, claim, true).await;
            let (job, sorted, summary) = outcome?;
            if self.json {
                return print_json(&summary);
            }
            let longest = |phase: usize| {
                let seconds = sorted.iter().map(|rank| rank.seconds[phase]);
                format!("{:.3} s", seconds.fold(0.0, f64::max))
            };
            print_facts(&[
                ("records", summary["records"].to_string()),
                ("bytes", summary["record_bytes"].to_string()),
                (
                    "spilled",
                    ui::bytes(sorted.iter().map(|rank| rank.spilled).sum()),
                ),
                ("exchanging", longest(1)),
                ("writing", longest(2)),
            ])?;
            ui.say(format!(
                "launch {}, run {}; {} through the switch; the parts are in {}",
                ui::seconds(job.launch),
                ui::seconds(job.run),
                ui::bytes(job.bytes),
                self.output
            ));
            Ok(())
        })
    }

    /// Sorts into an output.
    async fn sort(
        &self,
        ui: &Ui,
        (id, ranks, format): (JobId, u32, Format),
        inputs: Items,
        claim: &Claim,
    ) -> anyhow::Result<(JobOutcome, Vec<Sorted>, Value)> {
        let job = DataJob::new((ui, &self.fleet), (id, id), "sort", ranks, inputs).await?;
        let memory = self.memory.bytes(&self.fleet, ranks);
        let arguments = |output| Arguments {
            inputs: job.inputs.clone(),
            format,
            output,
            memory,
            spill: job.spill(),
        };
        let finished = async {
            let (outcome, _) = job.drive(ui, Some(claim), arguments, self.retries).await?;
            let sorted: Vec<Sorted> =
                decode_results(&outcome.results).map_err(|error| anyhow!(error))?;
            let summary = self.summary(&outcome, &sorted, format)?;
            let files = sorted.iter().map(|rank| rank.file.clone()).collect();
            claim
                .finish(files, summary.clone())
                .await
                .map_err(refused)?;
            Ok((outcome, sorted, summary))
        };
        let finished = finished.await;
        job.clean(ui).await;
        finished
    }

    /// What was done; records that were lost or doubled on the way are an error.
    fn summary(
        &self,
        job: &JobOutcome,
        sorted: &[Sorted],
        format: Format,
    ) -> anyhow::Result<Value> {
        let sum = |what: fn(&Sorted) -> (u64, u64)| {
            let each = sorted.iter().map(what);
            each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        let (read, written) = (sum(|rank| rank.read), sum(|rank| rank.written));
        if read != written {
            bail!(
                "{} records of {} bytes were read and {} of {} written; this is a fault of lswitch, please report it",
                read.0,
                read.1,
                written.0,
                written.1
            );
        }
        Ok(json!({
            "program": "sort",
            "job": job.job,
            "lswitch": crate::RELEASE,
            "input": self.input,
            "lines": format == Format::Lines,
            "records": written.0,
            "record_bytes": written.1,
            "spilled_bytes": sorted.iter().map(|rank| rank.spilled).sum::<u64>(),
            "workers": job.results.len(),
            "workers_per_function": self.fleet.workers_per_function,
            "messages": job.messages,
            "bytes": job.bytes,
            "seconds": {
                "launch": job.launch.as_secs_f64(),
                "run": job.run.as_secs_f64(),
                "ranks": sorted.iter().map(|rank| rank.seconds).collect::<Vec<_>>(),
            },
        }))
    }
}

fn check_lengths(inputs: &Items, format: Format) -> Result<(), UsageError> {
    let (Format::Fixed(record), Items::Named(inputs)) = (format, inputs) else {
        return Ok(());
    };
    for input in inputs {
        let bytes = input.length().unwrap_or(0);
        if bytes % u64::from(record) != 0 {
            return Err(UsageError(format!(
                "{input} has {bytes} bytes, which are no whole records of {record}; --format lines is for lines"
            )));
        }
    }
    Ok(())
}
