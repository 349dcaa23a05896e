//! `lswitch preprocess`: a raw graph to parts in a store.

use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::{self, Ui, print_facts, print_json};
use crate::cmd::{Interrupted, UsageError, block_on, hold, interrupted};
use crate::graph::{
    Balance, ColumnChoice, ColumnRequest, Delimiter, GraphError, Manifest, Partitioner, Quality,
    Reading,
};
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
  lswitch preprocess trades.csv --source-column seller --target-column buyer --parts 4 --out trades.parts

Reads edge lists as SNAP, KONECT, LDBC Graphalytics and CSV writers publish them, a line for each edge, and Matrix Market, METIS
and DIMACS files (--format says which, if the first lines do not); plain, gzip or zstd.

What a file says about itself is used, and the line \"recognised:\" shows what that was:
  a header row     names such as source, target, src, dst, from, to, weight choose columns in any order
  LDBC             NAME.properties beside NAME.e: directed, and the counts, which are checked
  KONECT           % sym is both ways; of % bip the ids on the right are raised by the number on the left; counts are checked
  other comments   with # or % are skipped; SNAP's \"Undirected\" and \"Nodes: N Edges: M\" give a note if the graph differs
Ids may stand in quotes or have .0 behind them. Columns are separated by blanks, a comma, a tab, ; or |. What leaves a doubt is
refused with the options that decide.")]
pub struct Preprocess {
    /// The graph, - for standard input; with NAME.e the files NAME.v and NAME.properties beside it are read, as LDBC Graphalytics has them
    graph: PathBuf,

    /// How many parts; a job has at most as many workers
    #[arg(long, value_name = "K")]
    parts: u32,

    /// Where the parts go: a directory or s3://bucket/prefix
    #[arg(long, value_name = "STORE")]
    out: String,

    /// Replace the graph that --out holds
    #[arg(long)]
    overwrite: bool,

    /// How vertices are spread: metis cuts few edges, fennel not many more for little time, range and hash take none; auto tries
    /// those that are worth it and says why it chose
    #[arg(long, default_value = "auto", value_parser = ["auto", "metis", "fennel", "range", "hash"])]
    partitioner: String,

    /// What parts have equally much of; edges are the work of a superstep, and auto takes what models faster
    #[arg(long, default_value = "auto", value_parser = ["auto", "vertices", "edges"])]
    balance: String,

    /// Take the partition from a file, as METIS and others write GRAPH.part.K: by rising id, a line with each vertex's part
    #[arg(long, value_name = "FILE", conflicts_with_all = ["partitioner", "balance"])]
    import: Option<PathBuf>,

    /// What the file is, where its name and first line do not say it
    #[arg(long, value_parser = ["edges", "mtx", "metis", "dimacs"])]
    format: Option<String>,

    /// Each line is an edge in both directions, whatever the file says
    #[arg(long)]
    undirected: bool,

    /// Each line is an edge in one direction, whatever the file says
    #[arg(long, conflicts_with = "undirected")]
    directed: bool,

    /// Drop repeats of an edge; of their weights the smallest stays
    #[arg(long)]
    unique: bool,

    /// Drop edges from a vertex to itself; the vertex stays
    #[arg(long)]
    drop_loops: bool,

    /// Edges have weights, in the column that the header row names or else the third one (sssp needs them)
    #[arg(long)]
    weights: bool,

    /// The column of an edge list where edges begin: its name in the header row, or its number from 1
    #[arg(long, value_name = "COLUMN")]
    source_column: Option<ColumnChoice>,

    /// The column where edges end
    #[arg(long, value_name = "COLUMN")]
    target_column: Option<ColumnChoice>,

    /// The column of weights; implies --weights
    #[arg(long, value_name = "COLUMN")]
    weight_column: Option<ColumnChoice>,

    /// What separates the columns of an edge list: tab, comma, space or a character; seen from the first line otherwise
    #[arg(long, value_name = "CHARACTER", allow_hyphen_values = true)]
    delimiter: Option<Delimiter>,

    /// Go on even if the graph seems too large for this machine's memory
    #[arg(long)]
    force: bool,

    /// Threads that compute, all processors otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

impl Preprocess {
    /// Reads, splits and writes the graph.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let partitioner = unless_auto(&self.partitioner)?;
        let balance = match self.balance.as_str() {
            "vertices" => Some(Balance::Vertices),
            "edges" => Some(Balance::Edges),
            _ => None,
        };
        let reading = Reading {
            form: self.format.as_deref().map(str::parse).transpose()?,
            undirected: self.undirected,
            unique: self.unique,
            directed: self.directed,
            drop_loops: self.drop_loops,
            weights: self.weights || self.weight_column.is_some(),
            columns: ColumnRequest {
                delimiter: self.delimiter,
                source: self.source_column.clone(),
                target: self.target_column.clone(),
                weight: self.weight_column.clone(),
            },
        };
        let outcome = block_on(async {
            let store = Store::open(&self.out, &self.aws.settings()).await?;
            let spec = PreprocessSpec {
                graph: self.graph.clone(),
                reading,
                parts: self.parts,
                partitioner,
                balance,
                import: self.import.clone(),
                force: self.force,
                overwrite: self.overwrite,
                threads: self.threads.map(usize::from),
            };
            let length = std::fs::metadata(&self.graph).map_or(0, |file| file.len());
            let reading = ui.bytes_bar("reading", length);
            let mut then = None;
            let mut tell = |event| match event {
                PreprocessEvent::Read(bytes) => reading.set_position(bytes),
                PreprocessEvent::Recognised(notes) => {
                    reading.finish_and_clear();
                    ui.say(format!("recognised: {notes}"));
                    for hint in &notes.hints {
                        ui.say(format!("note: {hint}"));
                    }
                }
                PreprocessEvent::Partitioning => {
                    then = Some(ui.spinner("partitioning"));
                }
                PreprocessEvent::Partitioned(why) => {
                    then = None;
                    why.into_iter().for_each(|sentence| ui.say(sentence));
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
            let _hold = hold();
            let outcome = preprocess::run(spec, &store, interrupted(), &mut tell).await;
            if let Err(error) = store.sweep().await {
                tracing::warn!("{error}");
            }
            outcome.map_err(explain)
        })?;
        self.print(ui, &outcome)
    }

    fn print(&self, ui: &Ui, outcome: &PreprocessOutcome) -> anyhow::Result<()> {
        let PreprocessOutcome {
            manifest,
            times,
            attempts,
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
            value["partition_seconds"] = attempts
                .iter()
                .map(|(attempt, time)| (attempt.clone(), json!(time.as_secs_f64())))
                .collect::<serde_json::Map<_, _>>()
                .into();
            value["modelled_step_seconds"] = json!(step_seconds(manifest));
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
                    format!(
                        "{} by {}, even by {}",
                        manifest.parts.len(),
                        manifest.partitioner,
                        manifest.balance
                    ),
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
                (
                    "modelled step",
                    format!(
                        "{:.3} ms on a core for each part",
                        1000.0 * step_seconds(manifest)
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

fn unless_auto(partitioner: &str) -> Result<Option<Partitioner>, GraphError> {
    match partitioner {
        "auto" => Ok(None),
        name => name.parse().map(Some),
    }
}

fn step_seconds(manifest: &Manifest) -> f64 {
    let quality = Quality {
        cut_edges: manifest.cut_edges,
        boundary_values: manifest.boundary_values,
        vertex_balance: manifest.vertex_balance,
        edge_balance: manifest.edge_balance,
    };
    quality.step_seconds(manifest.edges, manifest.parts.len() as u32)
}

/// More parts than the graph can have is a matter of the arguments.
fn explain(error: PreprocessError) -> anyhow::Error {
    match error {
        PreprocessError::Graph(error @ GraphError::Parts { .. }) => {
            UsageError(error.to_string()).into()
        }
        error @ PreprocessError::Occupied(_) => UsageError(error.to_string()).into(),
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
