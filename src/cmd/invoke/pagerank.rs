//! `lswitch invoke pagerank`.

use super::data::delete_own;
use super::fleet::FleetArgs;
use super::graph::{GraphArgs, GraphProgram, Opened};
use crate::cmd::ui::{Ui, print, print_json};
use crate::cmd::{UsageError, block_on, hold};
use crate::graph::{Dangling, Manifest, Precision, Restart};
use crate::job::driver::JobOutcome;
use crate::job::output::Target;
use crate::job::pagerank::{
    self, Arguments, ITERATIONS_DEFAULT, ITERATIONS_MAX_DEFAULT, Outcome, PROGRAM, RestartObject,
    TOP_MAX,
};
use crate::net::token::JobId;
use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Compute PageRank over a graph store
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke pagerank --graph wiki-Vote.parts --workers 4
  lswitch invoke pagerank --graph wiki-Vote.parts --tolerance 1e-10 --output ranks --json
  lswitch invoke pagerank --graph s3://bucket/epinions --workers 64 --workers-per-function 4 \\
      --function lswitch --switch 10.0.0.5:7000#SHA256 --store s3://bucket/jobs

If the graph has weights (preprocess --weights), an edge carries rank in proportion to its weight.")]
pub struct PagerankArgs {
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

    /// How exactly workers tell each other their values: f32 halves the bytes, and ranks are within about 1e-7
    #[arg(long, default_value = "f64", value_parser = ["f64", "f32"])]
    precision: String,

    /// Restart at the vertices of this file alone (personalised PageRank): a line "vertex" or "vertex weight" for each
    #[arg(long, value_name = "FILE")]
    restart: Option<PathBuf>,

    /// Compute without the weights that the graph has
    #[arg(long)]
    ignore_weights: bool,

    /// How many of the highest vertices to print
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    top: usize,

    /// For tests: sleep up to so many milliseconds before each send
    #[arg(long, hide = true, value_name = "MS")]
    delay_ms: Option<u64>,

    #[command(flatten)]
    on: GraphArgs,
}

impl PagerankArgs {
    /// Where it runs.
    pub(super) fn fleet(&self) -> &FleetArgs {
        &self.on.fleet
    }

    /// True if the result is printed for programs.
    pub fn json(&self) -> bool {
        self.on.json
    }

    /// Runs the job and prints its result.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.check()?;
        let restart = self.read_restart()?;
        block_on(async {
            let opened = self.on.open(id, PROGRAM.name).await?;
            if opened.manifest.weighted {
                ui.say(match self.ignore_weights {
                    true => "the weights of edges are not used",
                    false => "edges carry rank by their weights; --ignore-weights computes without",
                });
            }
            // What the job keeps is deleted before a signal ends this.
            let _hold = hold();
            let restart = match &restart {
                Some(restart) => Some(RestartObject::put(&opened.store, id, restart).await?),
                None => None,
            };
            let program = GraphProgram {
                name: PROGRAM.name,
                measure: "L1 change",
                arguments: |output| {
                    let arguments = self.arguments(&opened, output, restart.clone())?;
                    Ok(serde_json::to_value(arguments)?)
                },
                collect: |job: &JobOutcome| {
                    let outcome = pagerank::collect(&job.results, self.top)
                        .map_err(|error| anyhow!(error))?;
                    let summary = self.summary(&opened, job, &outcome);
                    let files = outcome.files.clone();
                    Ok((outcome, summary, files))
                },
            };
            let finished = self.on.run(ui, &opened, program).await;
            if restart.is_some() {
                delete_own(ui, &opened.store, &format!("{}/{id}/", PROGRAM.name)).await;
            }
            let finished = finished?;
            if self.on.json {
                print_json(&finished.summary)
            } else {
                self.print(ui, &opened.manifest, &finished.job, &finished.outcome)
            }
        })
    }

    fn read_restart(&self) -> anyhow::Result<Option<Restart>> {
        let Some(path) = &self.restart else {
            return Ok(None);
        };
        let name = path.display().to_string();
        let text = std::fs::read(path).with_context(|| format!("--restart {name}"))?;
        let restart = Restart::parse(&text, &name)
            .map_err(|error| UsageError(format!("--restart {error}")))?;
        Ok(Some(restart))
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
        self.on.fleet.check()
    }

    fn arguments(
        &self,
        opened: &Opened,
        output: Option<Target>,
        restart: Option<RestartObject>,
    ) -> anyhow::Result<Arguments> {
        let iterations = match (self.iterations, self.tolerance) {
            (Some(iterations), _) => iterations,
            (None, Some(_)) => ITERATIONS_MAX_DEFAULT,
            (None, None) => ITERATIONS_DEFAULT,
        };
        let dangling: Dangling = self.dangling.parse()?;
        Ok(Arguments {
            graph: opened.graph.url().into(),
            damping: self.damping,
            dangling,
            precision: match self.precision.as_str() {
                "f32" => Precision::F32,
                _ => Precision::F64,
            },
            iterations,
            tolerance: self.tolerance,
            top: self.top,
            output,
            ignore_weights: self.ignore_weights,
            restart,
            delay_ms: self.delay_ms,
        })
    }

    fn summary(&self, opened: &Opened, job: &JobOutcome, outcome: &Outcome) -> Value {
        let top: Vec<Value> = outcome
            .top
            .iter()
            .map(|(id, rank)| json!({ "id": id, "rank": rank }))
            .collect();
        let mut own = json!({
            "damping": self.damping,
            "dangling": self.dangling,
            "precision": self.precision,
            "weighted": opened.manifest.weighted && !self.ignore_weights,
            "restart": self.restart,
            "iterations": outcome.iterations,
            "l1_change": outcome.l1_change,
            "l1_changes": outcome.l1_changes,
            "converged": outcome.converged,
            "sum": outcome.sum,
            "top": top,
            "values_per_iteration": outcome.values_per_iteration,
            "iteration_seconds": outcome.iteration.as_secs_f64(),
        });
        if self.delay_ms.is_some() {
            own["arrivals"] = json!(outcome.arrivals);
        }
        self.on
            .summary(opened, job, PROGRAM.name, outcome.load, own)
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
        self.on.say_times(ui, job, outcome.load);
        self.on.say_output(ui, "ranks");
        Ok(())
    }
}
