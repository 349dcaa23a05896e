//! `lswitch invoke wordcount`: texts in, words and how often they occur out.

use super::data::{DataJob, MemoryArgs, find_inputs, print_parts};
use super::fleet::FleetArgs;
use super::plan::Plan;
use crate::cmd::block_on;
use crate::cmd::ui::{self, Ui, print_json};
use crate::job::output::finish_output;
use crate::job::report::decode_results;
use crate::job::wordcount::words::Words;
use crate::job::wordcount::{Arguments, Counted};
use crate::net::token::JobId;
use anyhow::anyhow;
use serde_json::json;

/// Bytes of a piece that a worker takes at a time, about.
const PIECE: u64 = 4 << 20;

/// Count words in texts
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke wordcount --input 'texts/*.txt' --workers 2
  lswitch invoke wordcount --input s3://bucket/texts/ --output s3://bucket/counts --function F --switch S --workers 100

Each line is a word, a tab, and how often it occurs, in the order of the words' bytes; without --output they go to
standard output.")]
pub struct WordcountArgs {
    /// The texts: a file, a pattern of files, a folder, s3://bucket/prefix
    #[arg(long, value_name = "INPUT")]
    input: String,

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
    /// Runs the job and prints the counts.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let ranks = self.fleet.workers_or_processors()?;
        block_on(async {
            let pieces = find_inputs(&self.fleet, &self.input, Some(PIECE)).await?;
            let output = match &self.output {
                Some(location) => Some(self.fleet.open_output(location, self.overwrite).await?),
                None => None,
            };
            let plan = Plan {
                program: "wordcount",
                workers: ranks,
                is_fixed: true,
                json: self.json,
            };
            self.fleet.plan(&plan).await?;
            let job = DataJob::new(&self.fleet, (id, id), "wordcount", ranks, &pieces).await?;
            let arguments = Arguments {
                pieces: job.list(),
                words: match self.words {
                    WordKind::LettersLower => Words::LettersLower,
                    WordKind::Letters => Words::Letters,
                    WordKind::Space => Words::Space,
                },
                output: match &output {
                    Some(output) => (output.url().into(), String::new()),
                    None => (job.store.url().into(), job.base.clone()),
                },
                memory: self.memory.bytes(&self.fleet, ranks),
                spill: job.spill(),
            };
            let mut outcome = job.drive(ui, &arguments, self.retries).await;
            if output.is_none()
                && outcome.is_ok()
                && let Err(error) = print_parts(&job.store, &job.base).await
            {
                outcome = Err(error);
            }
            let job = job.clean(outcome).await?;
            let counted: Vec<Counted> =
                decode_results(&job.results).map_err(|error| anyhow!(error))?;
            let sum = |what: fn(&Counted) -> u64| counted.iter().map(what).sum::<u64>();
            let (different, all) = (sum(|rank| rank.written.0), sum(|rank| rank.written.1));
            let summary = json!({
                "program": "wordcount",
                "job": job.job,
                "lswitch": crate::RELEASE,
                "input": self.input,
                "read_bytes": sum(|rank| rank.read),
                "words": all,
                "different": different,
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
            });
            if let Some(output) = &output {
                finish_output(output, ranks, "tsv", summary.clone()).await?;
            }
            if self.json {
                return print_json(&summary);
            }
            ui.say(format!(
                "{all} words, {different} different, in {} of text; launch {}, run {}; {} through the switch",
                ui::bytes(sum(|rank| rank.read)),
                ui::seconds(job.launch),
                ui::seconds(job.run),
                ui::bytes(job.bytes)
            ));
            Ok(())
        })
    }
}
