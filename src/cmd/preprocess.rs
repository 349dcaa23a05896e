//! `lswitch preprocess`: a raw graph to parts in a store.

use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::{self, Ui, print_facts, print_json};
use crate::cmd::{Interrupted, UsageError, block_on, interrupted};
use crate::graph::{GraphError, Partitioner};
use crate::job::preprocess::{
    self, PreprocessError, PreprocessEvent, PreprocessOutcome, PreprocessSpec,
};
use crate::store::Store;
use serde_json::json;
use std::path::PathBuf;

/// Split a graph into parts that workers load
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch preprocess wiki-Vote.txt --parts 8 --out wiki-Vote.parts
  lswitch preprocess soc-Epinions1.txt.gz --parts 64 --out s3://bucket/epinions --partitioner hash

Reads edge lists as SNAP publishes them: two ids a line, separated by blanks or a comma; plain or gzip; comments with
# or %, a header row and further columns are passed over.")]
pub struct Preprocess {
    /// The edge list; NAME.e beside NAME.v is read as LDBC Graphalytics has them
    graph: PathBuf,

    /// How many parts; a job has at most as many workers
    #[arg(long, value_name = "K")]
    parts: u32,

    /// Where the parts go: a directory or s3://bucket/prefix
    #[arg(long, value_name = "STORE")]
    out: String,

    /// How vertices are spread: metis cuts few edges, range and hash are quick baselines
    #[arg(long, default_value = "metis", value_parser = ["metis", "range", "hash"])]
    partitioner: String,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

impl Preprocess {
    /// Reads, splits and writes the graph.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let partitioner: Partitioner = self.partitioner.parse()?;
        let outcome = block_on(async {
            let store = Store::open(&self.out, &self.aws.settings()).await?;
            let spec = PreprocessSpec {
                graph: self.graph.clone(),
                parts: self.parts,
                partitioner,
            };
            let length = std::fs::metadata(&self.graph).map_or(0, |file| file.len());
            let reading = ui.bytes_bar("reading", length);
            let mut then = None;
            let mut tell = |event| match event {
                PreprocessEvent::Read(bytes) => reading.set_position(bytes),
                PreprocessEvent::Recognised(notes) => {
                    reading.finish_and_clear();
                    let notes = notes.to_string();
                    if !notes.is_empty() {
                        ui.say(format!("recognised: {notes}"));
                    }
                }
                PreprocessEvent::Partitioning => {
                    then = Some(ui.spinner(&format!("partitioning with {partitioner}")))
                }
                PreprocessEvent::Written(parts) => {
                    if parts == 1 {
                        then = Some(ui.count_bar("writing", u64::from(self.parts)));
                    }
                    if let Some(bar) = &then {
                        bar.set_position(u64::from(parts));
                    }
                }
            };
            preprocess::run(spec, &store, interrupted(), &mut tell)
                .await
                .map_err(explain)
        })?;
        self.print(ui, &outcome)
    }

    fn print(&self, ui: &Ui, outcome: &PreprocessOutcome) -> anyhow::Result<()> {
        let PreprocessOutcome {
            manifest,
            times,
            bytes,
        } = outcome;
        if self.json {
            let mut value = serde_json::to_value(manifest)?;
            value["bytes"] = json!(bytes);
            value["seconds"] = times
                .iter()
                .map(|(stage, time)| (stage.to_string(), json!(time.as_secs_f64())))
                .collect::<serde_json::Map<_, _>>()
                .into();
            value["peak_memory_bytes"] = json!(peak_memory_bytes());
            print_json(&value)?;
        } else {
            let share = 100.0 * manifest.cut_edges as f64 / manifest.edges.max(1) as f64;
            let times: Vec<String> = times
                .iter()
                .map(|(stage, time)| format!("{stage} {}", ui::seconds(*time)))
                .collect();
            print_facts(&[
                ("vertices", manifest.vertices.to_string()),
                ("edges", manifest.edges.to_string()),
                ("dangling vertices", manifest.dangling.to_string()),
                ("self loops", manifest.self_loops.to_string()),
                (
                    "parts",
                    format!("{} by {}", manifest.parts.len(), manifest.partitioner),
                ),
                (
                    "cut edges",
                    format!("{} ({share:.1} %)", manifest.cut_edges),
                ),
                (
                    "boundary values",
                    format!("{} an iteration", manifest.boundary_values),
                ),
                (
                    "balance",
                    format!(
                        "{:.3} by vertices, {:.3} by edges (largest part over average)",
                        manifest.vertex_balance, manifest.edge_balance
                    ),
                ),
                ("written", format!("{} to {}", ui::bytes(*bytes), self.out)),
                ("time", times.join(", ")),
                (
                    "peak memory",
                    peak_memory_bytes().map_or("not known on this system".into(), ui::bytes),
                ),
            ])?;
        }
        ui.say(format!(
            "next: lswitch invoke pagerank --graph {} --workers {}",
            self.out, self.parts
        ));
        Ok(())
    }
}

/// More parts than the graph can have is a matter of the arguments.
fn explain(error: PreprocessError) -> anyhow::Error {
    match error {
        PreprocessError::Graph(error @ GraphError::Parts { .. }) => {
            UsageError(error.to_string()).into()
        }
        PreprocessError::Interrupted => Interrupted.into(),
        other => other.into(),
    }
}

/// The most memory that this process had resident.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
