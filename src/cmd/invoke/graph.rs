//! What every job over a graph takes: the graph, where the values go, how the result is printed, and where it runs.

use super::fleet::{FleetArgs, refused, release};
use super::plan::Plan;
use crate::cmd::ui::{self, Ui};
use crate::cmd::{UsageError, hold};
use crate::graph::{Manifest, rank_parts};
use crate::job::driver::{JobOutcome, JobSpec};
use crate::job::graph_store::open_graph;
use crate::job::output::overlap::check_store;
use crate::job::output::{Claim, Claimant, Earlier, Kind, ResultFile, Target};
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
    pub(super) store: Store,
    ranks: u32,
    who: Claimant,
}

/// A job over a graph that went well.
pub(super) struct Finished<O> {
    pub(super) job: JobOutcome,
    pub(super) outcome: O,
    pub(super) summary: Value,
}

/// A program that runs over a graph.
pub(super) struct GraphProgram<A, C> {
    pub(super) name: &'static str,
    /// What its measure of a superstep is called.
    pub(super) measure: &'static str,
    /// Its arguments, with where its values go.
    pub(super) arguments: A,
    /// Puts the ranks' results together: the outcome, its summary, and the files that were written.
    pub(super) collect: C,
}

impl GraphArgs {
    /// Opens everything that is named.
    pub(super) async fn open(&self, id: JobId, program: &'static str) -> anyhow::Result<Opened> {
        let graph = self.fleet.open_store("--graph", &self.graph).await?;
        let manifest = open_graph(&graph).await?;
        let parts = manifest.parts.len() as u32;
        let ranks = self.fleet.workers()?.unwrap_or(parts);
        rank_parts(parts, ranks).map_err(|error| UsageError(error.to_string()))?;
        let store = self.fleet.open_store("--store", &self.fleet.store).await?;
        let who = Claimant {
            job: id,
            program,
            kind: Kind::Parts,
            earlier: Earlier::of(self.overwrite),
        };
        let output = match &self.output {
            Some(location) => Some(self.fleet.open_output(location, &who).await?),
            None => None,
        };
        if let Some(output) = &output {
            check_store(output, &graph).map_err(refused)?;
        }
        Ok(Opened {
            graph,
            manifest,
            output,
            store,
            ranks,
            who,
        })
    }

    /// Runs a program, and completes its output if there is one.
    pub(super) async fn run<O>(
        &self,
        ui: &Ui,
        opened: &Opened,
        program: GraphProgram<
            impl FnOnce(Option<Target>) -> anyhow::Result<Value>,
            impl FnOnce(&JobOutcome) -> anyhow::Result<(O, Value, Vec<ResultFile>)>,
        >,
    ) -> anyhow::Result<Finished<O>> {
        let plan = Plan {
            program: program.name,
            workers: opened.ranks,
            is_fixed: true,
            json: self.json,
        };
        self.fleet.plan(&plan).await?;
        // The job's claim on the output is deleted before a signal ends this.
        let _hold = hold();
        let claim = match &opened.output {
            Some(output) => Some(Claim::acquire(output, &opened.who).await.map_err(refused)?),
            None => None,
        };
        let finished = self.run_into(ui, opened, program, claim.as_ref()).await;
        if let Some(claim) = claim {
            release(ui, claim, true).await;
        }
        finished
    }

    async fn run_into<O>(
        &self,
        ui: &Ui,
        opened: &Opened,
        program: GraphProgram<
            impl FnOnce(Option<Target>) -> anyhow::Result<Value>,
            impl FnOnce(&JobOutcome) -> anyhow::Result<(O, Value, Vec<ResultFile>)>,
        >,
        claim: Option<&Claim>,
    ) -> anyhow::Result<Finished<O>> {
        let target = match claim {
            Some(claim) => Some(claim.target().await),
            None => None,
        };
        let spec = JobSpec {
            id: opened.who.job,
            program: program.name.into(),
            arguments: (program.arguments)(target)?,
            ranks: opened.ranks,
            ranks_per_pack: self.fleet.workers_per_function,
            levels: self.fleet.levels(),
            store: opened.store.url().into(),
            timeout: self.fleet.timeout(),
            more: Default::default(),
        };
        let measure = program.measure;
        let job = self.fleet.drive_into(ui, &spec, measure, claim).await?;
        let (outcome, summary, files) = (program.collect)(&job)?;
        if let Some(claim) = claim {
            let finished = claim.finish(files, summary.clone()).await;
            finished.map_err(refused)?;
        }
        Ok(Finished {
            job,
            outcome,
            summary,
        })
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
