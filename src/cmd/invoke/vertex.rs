//! `lswitch invoke bfs|wcc|sssp|cdlp|lcc`: the other algorithms of LDBC Graphalytics.

use super::fleet::FleetArgs;
use super::graph::{GraphArgs, GraphProgram};
use crate::cmd::block_on;
use crate::cmd::ui::{Ui, print_facts, print_json};
use crate::job::driver::JobOutcome;
use crate::job::output::Target;
use crate::job::vertex::{self, Arguments, ITERATIONS_DEFAULT, Outcome};
use crate::net::token::JobId;
use anyhow::anyhow;
use serde_json::json;

/// Breadth-first search: the number of edges from one vertex to each other
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke bfs --graph graph.parts --source 30 --output hops

Vertices that cannot be reached have 9223372036854775807.")]
pub struct BfsArgs {
    /// The vertex to start at
    #[arg(long, value_name = "ID")]
    source: u64,

    #[command(flatten)]
    on: GraphArgs,
}

/// Shortest paths from one vertex to each other, by weights
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch preprocess roads.txt --weights --parts 4 --out roads.parts
  lswitch invoke sssp --graph roads.parts --source 7 --output lengths

Vertices that cannot be reached have infinity.")]
pub struct SsspArgs {
    /// The vertex to start at
    #[arg(long, value_name = "ID")]
    source: u64,

    #[command(flatten)]
    on: GraphArgs,
}

/// Weakly connected components: each vertex gets the smallest id of its own
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke wcc --graph graph.parts --workers 4 --output components")]
pub struct WccArgs {
    #[command(flatten)]
    on: GraphArgs,
}

/// Communities by label propagation
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke cdlp --graph graph.parts --iterations 10 --output communities")]
pub struct CdlpArgs {
    /// Rounds
    #[arg(long, value_name = "COUNT", default_value_t = ITERATIONS_DEFAULT)]
    iterations: u64,

    #[command(flatten)]
    on: GraphArgs,
}

/// Local clustering coefficients: how many of a vertex's neighbours know each other
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke lcc --graph graph.parts --workers 4 --output coefficients")]
pub struct LccArgs {
    #[command(flatten)]
    on: GraphArgs,
}

/// One of these jobs, as it was asked for.
pub struct VertexJob<'a> {
    name: &'static str,
    source: Option<u64>,
    iterations: Option<u64>,
    /// What the values are.
    values: &'static str,
    on: &'a GraphArgs,
}

impl BfsArgs {
    /// As a job.
    pub fn job(&self) -> VertexJob<'_> {
        VertexJob {
            source: Some(self.source),
            ..VertexJob::new("bfs", "distances", &self.on)
        }
    }
}

impl SsspArgs {
    /// As a job.
    pub fn job(&self) -> VertexJob<'_> {
        VertexJob {
            source: Some(self.source),
            ..VertexJob::new("sssp", "lengths", &self.on)
        }
    }
}

impl WccArgs {
    /// As a job.
    pub fn job(&self) -> VertexJob<'_> {
        VertexJob::new("wcc", "components", &self.on)
    }
}

impl CdlpArgs {
    /// As a job.
    pub fn job(&self) -> VertexJob<'_> {
        VertexJob {
            iterations: Some(self.iterations),
            ..VertexJob::new("cdlp", "communities", &self.on)
        }
    }
}

impl LccArgs {
    /// As a job.
    pub fn job(&self) -> VertexJob<'_> {
        VertexJob::new("lcc", "coefficients", &self.on)
    }
}

impl<'a> VertexJob<'a> {
    fn new(name: &'static str, values: &'static str, on: &'a GraphArgs) -> VertexJob<'a> {
        VertexJob {
            name,
            source: None,
            iterations: None,
            values,
            on,
        }
    }

    /// Where it runs.
    pub(super) fn fleet(&self) -> &'a FleetArgs {
        &self.on.fleet
    }

    /// True if the result is printed for programs.
    pub fn json(&self) -> bool {
        self.on.json
    }

    /// Runs the job and prints its result.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.on.fleet.check()?;
        block_on(async {
            let opened = self.on.open(id, self.name).await?;
            let program = GraphProgram {
                name: self.name,
                measure: "changed",
                arguments: |output: Option<Target>| {
                    Ok(serde_json::to_value(Arguments {
                        graph: opened.graph.url().into(),
                        source: self.source,
                        iterations: self.iterations,
                        output,
                    })?)
                },
                collect: |job: &JobOutcome| {
                    let outcome = vertex::collect(&job.results, &opened.manifest)
                        .map_err(|error| anyhow!(error))?;
                    let own = json!({
                        "source": self.source,
                        "supersteps": outcome.supersteps,
                        "reached": outcome.reached,
                        "farthest": outcome.farthest,
                        "groups": outcome.groups,
                        "mean_coefficient": outcome.mean_coefficient,
                        "compute_seconds": outcome.compute.as_secs_f64(),
                    });
                    let summary = self.on.summary(&opened, job, self.name, outcome.load, own);
                    let files = outcome.files.clone();
                    Ok((outcome, summary, files))
                },
            };
            let finished = self.on.run(ui, &opened, program).await?;
            if self.on.json {
                return print_json(&finished.summary);
            }
            let outcome = finished.outcome;
            print_facts(&self.facts(&outcome))?;
            self.on.say_times(ui, &finished.job, outcome.load);
            self.on.say_output(ui, self.values);
            Ok(())
        })
    }

    fn facts(&self, outcome: &Outcome) -> Vec<(&'static str, String)> {
        let mut facts = vec![("supersteps", outcome.supersteps.to_string())];
        if let Some(reached) = outcome.reached {
            facts.push((
                "reached",
                format!("{reached} vertices, the source included"),
            ));
        }
        if let Some(farthest) = outcome.farthest {
            facts.push(("farthest", farthest.to_string()));
        }
        if let Some(groups) = outcome.groups {
            facts.push((self.values, groups.to_string()));
        }
        if let Some(mean) = outcome.mean_coefficient {
            facts.push(("mean coefficient", format!("{mean:.6}")));
        }
        facts
    }
}
