//! `lswitch invoke wordcount`: texts in, words and how often they occur out.

use super::data::{DataJob, MemoryArgs, find_inputs, print_parts};
use super::fleet::{FleetArgs, refused, release};
use super::plan::Plan;
use crate::cmd::ui::{self, Ui, print_json};
use crate::cmd::{block_on, hold};
use crate::job::driver::JobOutcome;
use crate::job::items::cut::Cutting;
use crate::job::items::find::{Items, Wanted};
use crate::job::items::pipe::is_own_descriptor;
use crate::job::output::overlap::check_inputs;
use crate::job::output::{Claim, Claimant, Earlier, Kind};
use crate::job::report::decode_results;
use crate::job::wordcount::words::Words;
use crate::job::wordcount::{Arguments, Counted};
use crate::net::token::JobId;
use anyhow::anyhow;
use serde_json::{Value, json};

/// Bytes of a piece that a worker takes at a time, about.
const PIECE: u64 = 4 << 20;

/// Count words in texts
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke wordcount --input 'texts/*.txt' --workers 2
  lswitch invoke wordcount --input s3://bucket/texts/ --output s3://bucket/counts --function F --switch S --workers 100

Each line is a word, a tab, and how often it occurs, in the order of the words' bytes; without --output they go to
standard output. Words may have up to 256 MiB. Texts that are packed with gzip or zstd are unpacked, each by one worker. Of a
folder that a job of lswitch wrote, the parts that its result.json names are read; of other folders all files but hidden ones
and markers such as _SUCCESS.")]
pub struct WordcountArgs {
    /// The texts: a file, - for standard input, a pattern of files, a folder, s3://bucket/prefix with all below it
    #[arg(long, value_name = "INPUT")]
    input: String,

    /// Read the folders below a folder too
    #[arg(long)]
    recursive: bool,

    /// What a word is
    #[arg(long, value_enum, default_value_t = WordKind::LettersLower)]
    words: WordKind,

    /// Where the counts go: part-NNNNN.tsv for each worker, in order, and result.json last
    #[arg(long, value_name = "STORE")]
    output: Option<String>,

    /// Replace the results that --output holds
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    memory: MemoryArgs,

    /// How often the job is started again when a worker is lost
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    retries: u32,

    /// Print one JSON object, and the counts only to --output
    #[arg(long, requires = "output")]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WordKind {
    /// Letters of ASCII, in lower case
    LettersLower,
    /// Letters of ASCII as they are
    Letters,
    /// What stands between white space
    Space,
}

impl WordcountArgs {
    /// True if standard input, or another descriptor of this process alone, is its input.
    pub fn reads_standard_input(&self) -> bool {
        is_own_descriptor(&self.input)
    }

    /// Runs the job and prints the counts.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let ranks = self.fleet.workers_or_processors()?;
        block_on(async {
            let wanted = Wanted {
                what: &self.input,
                cutting: Cutting::Pieces(PIECE),
                recursive: self.recursive,
            };
            let pieces = find_inputs(ui, &self.fleet, wanted).await?;
            let who = Claimant {
                job: id,
                program: "wordcount",
                kind: Kind::Parts,
                earlier: Earlier::of(self.overwrite),
            };
            let output = match &self.output {
                Some(location) => Some(self.fleet.open_output(location, &who).await?),
                None => None,
            };
            if let Some(output) = &output {
                check_inputs(output, &self.input, pieces.named()).map_err(refused)?;
            }
            let plan = Plan {
                program: "wordcount",
                workers: ranks,
                is_fixed: true,
                json: self.json,
            };
            self.fleet.plan(&plan).await?;
            // What the job keeps, and its claim on the output, are deleted before a signal ends this.
            let _hold = hold();
            let claim = match &output {
                Some(output) => Some(Claim::acquire(output, &who).await.map_err(refused)?),
                None => None,
            };
            let outcome = self.count(ui, (id, ranks), pieces, claim.as_ref()).await;
            if let Some(claim) = claim {
                release(ui, claim, true).await;
            }
            let (job, summary) = outcome?;
            if self.json {
                return print_json(&summary);
            }
            ui.say(format!(
                "{} words, {} different, in {} of text; launch {}, run {}; {} through the switch",
                summary["words"],
                summary["different"],
                ui::bytes(summary["read_bytes"].as_u64().unwrap_or(0)),
                ui::seconds(job.launch),
                ui::seconds(job.run),
                ui::bytes(job.bytes)
            ));
            Ok(())
        })
    }

    /// Counts into an output, or to stdout.
    async fn count(
        &self,
        ui: &Ui,
        (id, ranks): (JobId, u32),
        pieces: Items,
        claim: Option<&Claim>,
    ) -> anyhow::Result<(JobOutcome, Value)> {
        let fleet = (ui, &self.fleet);
        let job = DataJob::new(fleet, (id, id), "wordcount", ranks, pieces).await?;
        let memory = self.memory.bytes(&self.fleet, ranks);
        let arguments = |output| Arguments {
            pieces: job.inputs.clone(),
            words: match self.words {
                WordKind::LettersLower => Words::LettersLower,
                WordKind::Letters => Words::Letters,
                WordKind::Space => Words::Space,
            },
            output,
            memory,
            spill: job.spill(),
        };
        let finished = async {
            let (outcome, _) = job.drive(ui, claim, arguments, self.retries).await?;
            let counted: Vec<Counted> =
                decode_results(&outcome.results).map_err(|error| anyhow!(error))?;
            let summary = self.summary(&outcome, &counted);
            match claim {
                Some(claim) => {
                    let files = counted
                        .iter()
                        .filter_map(|rank| rank.part.file().cloned())
                        .collect();
                    claim
                        .finish(files, summary.clone())
                        .await
                        .map_err(refused)?;
                }
                None => {
                    let parts = counted.iter().filter_map(|rank| rank.part.sealed());
                    print_parts(&job.store, parts.cloned()).await?;
                }
            }
            Ok((outcome, summary))
        };
        let finished = finished.await;
        job.clean(ui).await;
        finished
    }

    fn summary(&self, job: &JobOutcome, counted: &[Counted]) -> Value {
        let sum = |what: fn(&Counted) -> u64| counted.iter().map(what).sum::<u64>();
        json!({
            "program": "wordcount",
            "job": job.job,
            "lswitch": crate::RELEASE,
            "input": self.input,
            "read_bytes": sum(|rank| rank.read),
            "words": sum(|rank| rank.written.1),
            "different": sum(|rank| rank.written.0),
            "spilled_bytes": sum(|rank| rank.spilled),
            "workers": job.results.len(),
            "workers_per_function": self.fleet.workers_per_function,
            "messages": job.messages,
            "bytes": job.bytes,
            "seconds": {
                "launch": job.launch.as_secs_f64(),
                "run": job.run.as_secs_f64(),
                "ranks": counted.iter().map(|rank| rank.seconds).collect::<Vec<_>>(),
            },
        })
    }
}
