//! `lswitch invoke pagerank`.

use super::FleetArgs;
use crate::cmd::ui::{self, Ui, print, print_json};
use crate::cmd::{UsageError, block_on};
use crate::graph::{Dangling, Manifest, rank_parts};
use crate::job::driver::{JobOutcome, JobSpec};
use crate::job::pagerank::{
    self, Arguments, ITERATIONS_DEFAULT, ITERATIONS_MAX_DEFAULT, Outcome, PROGRAM, TOP_MAX,
    earlier_output, finish_output, open_graph,
};
use crate::store::Store;
use anyhow::anyhow;
use serde_json::{Value, json};

/// Compute PageRank over a graph store
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke pagerank --graph wiki-Vote.parts --workers 4
  lswitch invoke pagerank --graph wiki-Vote.parts --tolerance 1e-10 --output ranks --json
  lswitch invoke pagerank --graph s3://bucket/epinions --workers 64 --workers-per-function 4 \\
      --function lswitch --switch 10.0.0.5:7000 --store s3://bucket/jobs")]
pub struct PagerankArgs {
    /// The store that `lswitch preprocess` wrote: a directory or s3://bucket/prefix
    #[arg(long, value_name = "STORE")]
    graph: String,

    /// Probability of following an edge
    #[arg(long, default_value_t = 0.85)]
    damping: f64,

    /// Supersteps at most [default: 20, or 1000 when only a tolerance is given]
    #[arg(long, value_name = "COUNT")]
    iterations: Option<u64>,

    /// Stop when the ranks change by less than this in all (L1)
    #[arg(long, value_name = "T")]
    tolerance: Option<f64>,

    /// What becomes of the rank of vertices without out-edges
    #[arg(long, default_value = "redistribute", value_parser = ["redistribute", "drop"])]
    dangling: String,

    /// How many of the highest vertices to print
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    top: usize,

    /// Write all ranks to this store: part-NNNNN.tsv with id, tab and rank a line, and result.json last
    #[arg(long, value_name = "STORE")]
    output: Option<String>,

    /// Replace the results that --output holds
    #[arg(long)]
    overwrite: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// For tests: sleep up to so many milliseconds before each send
    #[arg(long, hide = true, value_name = "MS")]
    delay_ms: Option<u64>,

    #[command(flatten)]
    fleet: FleetArgs,
}

impl PagerankArgs {
    /// Runs the job and prints its result.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        self.check()?;
        block_on(async {
            let graph = self.fleet.open_store("--graph", &self.graph).await?;
            let manifest = open_graph(&graph).await?;
            let parts = manifest.parts.len() as u32;
            let ranks = self.fleet.workers.unwrap_or(parts);
            rank_parts(parts, ranks).map_err(|error| UsageError(error.to_string()))?;
            let store = self.fleet.open_store("--store", &self.fleet.store).await?;
            let output = match &self.output {
                Some(location) => Some(self.open_output(location).await?),
                None => None,
            };
            let spec = JobSpec {
                program: PROGRAM.name,
                arguments: serde_json::to_value(self.arguments(&graph, output.as_ref())?)?,
                ranks,
                ranks_per_pack: self.fleet.workers_per_function,
                store: store.url().into(),
                timeout: self.fleet.timeout(),
            };
            let job = self.fleet.drive(ui, &spec, "L1 change").await?;
            let outcome =
                pagerank::collect(&job.results, self.top).map_err(|error| anyhow!(error))?;
            let summary = self.summary(&manifest, &job, &outcome, output.as_ref());
            if let Some(output) = &output {
                finish_output(output, parts, summary.clone()).await?;
            }
            if self.json {
                print_json(&summary)
            } else {
                self.print(ui, &manifest, &job, &outcome)
            }
        })
    }

    fn check(&self) -> Result<(), UsageError> {
        let wrong = |what: String| Err(UsageError(what));
        if !(0.0..=1.0).contains(&self.damping) {
            return wrong(format!(
                "--damping is a probability from 0 to 1, not {}",
                self.damping
            ));
        }
        if let Some(tolerance) = self.tolerance
            && !(tolerance > 0.0 && tolerance.is_finite())
        {
            return wrong(format!("--tolerance is a number over 0, not {tolerance}"));
        }
        if self.top > TOP_MAX {
            return wrong(format!(
                "--top prints at most {TOP_MAX}; --output writes all ranks"
            ));
        }
        if self
            .iterations
            .is_some_and(|iterations| iterations > u64::from(u32::MAX))
        {
            return wrong(format!("--iterations goes up to {}", u32::MAX));
        }
        if self.fleet.workers == Some(0) || self.fleet.workers_per_function == 0 {
            return wrong("--workers and --workers-per-function are at least 1".into());
        }
        let most = crate::job::pack::RANKS_PER_PACK_MAX;
        if self.fleet.workers_per_function > most {
            return wrong(format!("--workers-per-function goes up to {most}"));
        }
        Ok(())
    }

    fn arguments(&self, graph: &Store, output: Option<&Store>) -> anyhow::Result<Arguments> {
        let iterations = match (self.iterations, self.tolerance) {
            (Some(iterations), _) => iterations,
            (None, Some(_)) => ITERATIONS_MAX_DEFAULT,
            (None, None) => ITERATIONS_DEFAULT,
        };
        let dangling: Dangling = self.dangling.parse()?;
        Ok(Arguments {
            graph: graph.url().into(),
            damping: self.damping,
            dangling,
            iterations,
            tolerance: self.tolerance,
            top: self.top,
            output: output.map(|store| store.url().into()),
            delay_ms: self.delay_ms,
        })
    }

    /// Results that are there are not replaced without being asked for.
    async fn open_output(&self, location: &str) -> anyhow::Result<Store> {
        let output = self.fleet.open_store("--output", location).await?;
        let earlier = earlier_output(&output).await?.len();
        if earlier > 0 && !self.overwrite {
            let what = format!(
                "{} holds {earlier} files of an earlier result; give --overwrite, or another --output",
                output.url()
            );
            return Err(UsageError(what).into());
        }
        Ok(output)
    }

    fn summary(
        &self,
        manifest: &Manifest,
        job: &JobOutcome,
        outcome: &Outcome,
        output: Option<&Store>,
    ) -> Value {
        let top: Vec<Value> = outcome
            .top
            .iter()
            .map(|(id, rank)| json!({ "id": id, "rank": rank }))
            .collect();
        let mut summary = json!({
            "program": PROGRAM.name,
            "job": job.job,
            "lswitch": crate::RELEASE,
            "graph": manifest.source,
            "vertices": manifest.vertices,
            "edges": manifest.edges,
            "parts": manifest.parts.len(),
            "workers": job.results.len(),
            "workers_per_function": self.fleet.workers_per_function,
            "damping": self.damping,
            "dangling": self.dangling,
            "iterations": outcome.iterations,
            "l1_change": outcome.l1_change,
            "converged": outcome.converged,
            "sum": outcome.sum,
            "top": top,
            "values_per_iteration": outcome.values_per_iteration,
            "messages": job.messages,
            "bytes": job.bytes,
            "seconds": {
                "launch": job.launch.as_secs_f64(),
                "load": outcome.load.as_secs_f64(),
                "run": job.run.as_secs_f64(),
            },
            "output": output.map(Store::url),
        });
        if self.delay_ms.is_some() {
            summary["arrivals"] = json!(outcome.arrivals);
        }
        summary
    }

    fn print(
        &self,
        ui: &Ui,
        manifest: &Manifest,
        job: &JobOutcome,
        outcome: &Outcome,
    ) -> anyhow::Result<()> {
        let width = outcome
            .top
            .iter()
            .map(|(id, _)| id.to_string().len())
            .max()
            .unwrap_or(0)
            .max(2);
        let mut table = format!("{:>5}  {:>width$}  rank\n", "place", "id");
        for (place, (id, rank)) in outcome.top.iter().enumerate() {
            table += &format!("{:>5}  {id:>width$}  {rank:.16e}\n", place + 1);
        }
        print(table)?;
        let Outcome {
            iterations,
            l1_change,
            ..
        } = outcome;
        let how = match (self.tolerance, outcome.converged) {
            (None, _) => "",
            (Some(_), true) => ", converged",
            (Some(_), false) => ", NOT converged",
        };
        ui.say(format!(
            "{}: {} vertices, {} edges; {iterations} supersteps, L1 change {l1_change:.3e}{how}; sum of ranks {:.12}",
            manifest.source, manifest.vertices, manifest.edges, outcome.sum
        ));
        ui.say(format!(
            "launch {}, load {}, run {}; {} messages and {} through the switch",
            ui::seconds(job.launch),
            ui::seconds(outcome.load),
            ui::seconds(job.run),
            job.messages,
            ui::bytes(job.bytes)
        ));
        if let Some(output) = &self.output {
            ui.say(format!("all ranks are in {output}"));
        }
        Ok(())
    }
}
