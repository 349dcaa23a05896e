//! What every job over a graph takes: the graph, where the values go, how the result is printed, and where it runs.

use super::fleet::FleetArgs;
use super::plan::Plan;
use crate::cmd::UsageError;
use crate::cmd::ui::{self, Ui};
use crate::graph::{Manifest, rank_parts};
use crate::job::driver::{JobOutcome, JobSpec};
use crate::job::graph_store::open_graph;
use crate::job::output::finish_output;
use crate::net::token::JobId;
use crate::store::Store;
use serde_json::{Value, json};
use std::time::Duration;

/// See the module.
#[derive(Debug, clap::Args)]
pub(super) struct GraphArgs {
    /// The store that `lswitch preprocess` wrote: a directory or s3://bucket/prefix
    #[arg(long, value_name = "STORE")]
    graph: String,

    /// Write all values to this store: part-NNNNN.tsv with id, tab and value a line, and result.json last
    #[arg(long, value_name = "STORE")]
    output: Option<String>,

    /// Replace the results that --output holds
    #[arg(long)]
    overwrite: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

/// The stores of a job over a graph.
pub(super) struct Opened {
    pub(super) graph: Store,
    pub(super) manifest: Manifest,
    pub(super) output: Option<Store>,
    store: Store,
    ranks: u32,
    id: JobId,
}

impl GraphArgs {
    /// Opens everything that is named.
    pub(super) async fn open(&self, id: JobId) -> anyhow::Result<Opened> {
        let graph = self.fleet.open_store("--graph", &self.graph).await?;
        let manifest = open_graph(&graph).await?;
        let parts = manifest.parts.len() as u32;
        let ranks = self.fleet.workers()?.unwrap_or(parts);
        rank_parts(parts, ranks).map_err(|error| UsageError(error.to_string()))?;
        let store = self.fleet.open_store("--store", &self.fleet.store).await?;
        let output = match &self.output {
            Some(location) => Some(self.fleet.open_output(location, self.overwrite).await?),
            None => None,
        };
        Ok(Opened {
            graph,
            manifest,
            output,
            store,
            ranks,
            id,
        })
    }

    /// Runs a program.
    pub(super) async fn drive(
        &self,
        ui: &Ui,
        opened: &Opened,
        program: &'static str,
        arguments: Value,
        measure: &str,
    ) -> anyhow::Result<JobOutcome> {
        let plan = Plan {
            program,
            workers: opened.ranks,
            is_fixed: true,
            json: self.json,
        };
        self.fleet.plan(&plan).await?;
        let spec = JobSpec {
            id: opened.id,
            program: program.into(),
            arguments,
            ranks: opened.ranks,
            ranks_per_pack: self.fleet.workers_per_function,
            levels: self.fleet.levels(),
            store: opened.store.url().into(),
            timeout: self.fleet.timeout(),
            more: Default::default(),
        };
        self.fleet.drive(ui, &spec, measure).await
    }

    /// What is said of every job, with what is said of this one; times in seconds.
    pub(super) fn summary(
        &self,
        opened: &Opened,
        job: &JobOutcome,
        program: &str,
        load: Duration,
        own: Value,
    ) -> Value {
        let manifest = &opened.manifest;
        let mut summary = json!({
            "program": program,
            "job": job.job,
            "lswitch": crate::RELEASE,
            "graph": manifest.source,
            "vertices": manifest.vertices,
            "edges": manifest.edges,
            "parts": manifest.parts.len(),
            "workers": job.results.len(),
            "workers_per_function": self.fleet.workers_per_function,
            "messages": job.messages,
            "bytes": job.bytes,
            "usage": self.fleet.usage(),
            "seconds": {
                "launch": job.launch.as_secs_f64(),
                "load": load.as_secs_f64(),
                "run": job.run.as_secs_f64(),
            },
            "output": opened.output.as_ref().map(Store::url),
        });
        if let (Some(summary), Value::Object(own)) = (summary.as_object_mut(), own) {
            summary.extend(own);
        }
        summary
    }

    /// Completes the output, if there is one.
    pub(super) async fn finish(&self, opened: &Opened, summary: &Value) -> anyhow::Result<()> {
        if let Some(output) = &opened.output {
            let parts = opened.manifest.parts.len() as u32;
            finish_output(output, parts, "tsv", summary.clone()).await?;
        }
        Ok(())
    }

    /// Says how long it took, what it moved, and where the values are.
    pub(super) fn say_times(&self, ui: &Ui, job: &JobOutcome, load: Duration) {
        ui.say(format!(
            "launch {}, load {}, run {}; {} messages and {} through the switch",
            ui::seconds(job.launch),
            ui::seconds(load),
            ui::seconds(job.run),
            job.messages,
            ui::bytes(job.bytes)
        ));
    }

    /// Says where all values are, if they are anywhere.
    pub(super) fn say_output(&self, ui: &Ui, what: &str) {
        if let Some(output) = &self.output {
            ui.say(format!("all {what} are in {output}"));
        }
    }
}
