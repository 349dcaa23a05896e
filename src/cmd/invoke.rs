//! `lswitch invoke`: starts a job's workers, shows how far it is, prints the result.

mod cost;
mod data;
mod detach;
pub(in crate::cmd) mod fleet;
mod functions;
mod graph;
mod map;
mod pagerank;
mod plan;
mod pool;
mod progress;
mod run;
mod sort;
mod vertex;
mod wordcount;

use crate::cmd::record::{own, parse_id};
use crate::cmd::ui::Ui;
use crate::cmd::{UsageError, block_on, hold};
use crate::net::token::JobId;
use crate::process::scratch;
use clap::Subcommand;
pub(in crate::cmd) use fleet::FleetArgs;

/// Start a job, watch it, collect its result
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke pagerank --graph graph.parts --workers 4
  lswitch invoke bfs --graph graph.parts --source 0 --output hops
  lswitch invoke wordcount --input 'texts/*.txt'
  lswitch invoke sort --input lines.txt --output sorted
  lswitch invoke map --exec wc --items 'texts/*.txt'
  lswitch invoke --detach map --exec factor --items 1000..2000 -- {}
  lswitch help invoke pagerank")]
pub struct Invoke {
    #[command(subcommand)]
    job: Job,

    /// Run the job in the background and print its id; see "lswitch help jobs"
    #[arg(long, global = true)]
    detach: bool,

    /// This process is the background, and the job has this id
    #[arg(long, global = true, hide = true, value_parser = detached_as)]
    detached_as: Option<JobId>,
}

#[derive(Debug, Subcommand)]
enum Job {
    Pagerank(pagerank::PagerankArgs),
    Bfs(vertex::BfsArgs),
    Wcc(vertex::WccArgs),
    Sssp(vertex::SsspArgs),
    Cdlp(vertex::CdlpArgs),
    Lcc(vertex::LccArgs),
    Run(run::RunArgs),
    #[command(visible_alias = "burst")]
    Map(Box<map::MapArgs>),
    Sort(sort::SortArgs),
    Wordcount(wordcount::WordcountArgs),
    Pool(pool::PoolArgs),
}

impl Invoke {
    /// Runs the job, or starts a process that does.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        if let Job::Pool(_) = &self.job {
            if self.detach {
                let what = "a pool answers over standard input and output, which --detach takes from it; leave --detach away";
                return Err(UsageError(what.into()).into());
            }
            return self.job.run_and_say(ui, JobId::random());
        }
        let dry = self.job.fleet().cost.is_dry_run();
        if let (None, true, false) = (self.detached_as, self.detach, dry) {
            if let Some(flag) = self.job.reads_standard_input() {
                let what = format!(
                    "{flag} reads standard input, which a job in the background does not have; give a file, or leave --detach away"
                );
                return Err(UsageError(what).into());
            }
            return detach::start(ui, self.job.prints_json());
        }
        let id = self.detached_as.unwrap_or_else(JobId::random);
        if dry {
            return self.job.run(ui, id);
        }
        if self.detached_as.is_some() {
            // The terminal that it was started from may close.
            rustix::process::setsid()?;
        }
        let (began, written) = own::begin(id, self.job.name(), self.detached_as.is_some());
        match (written, self.detached_as) {
            (Ok(()), _) => {}
            (Err(error), Some(_)) => return Err(error),
            (Err(error), None) => {
                tracing::warn!("this job will not be among \"lswitch jobs\": {error:#}")
            }
        }
        let outcome = self.job.run_and_say(ui, id);
        began.end(&outcome);
        outcome
    }
}

impl Job {
    /// Its name on the command line.
    fn name(&self) -> &'static str {
        match self {
            Job::Pagerank(_) => "pagerank",
            Job::Bfs(_) => "bfs",
            Job::Wcc(_) => "wcc",
            Job::Sssp(_) => "sssp",
            Job::Cdlp(_) => "cdlp",
            Job::Lcc(_) => "lcc",
            Job::Run(_) => "run",
            Job::Map(_) => "map",
            Job::Sort(_) => "sort",
            Job::Wordcount(_) => "wordcount",
            Job::Pool(_) => "pool",
        }
    }

    /// Runs it, and says what it cost however it ended, and what a worker said last that failed.
    fn run_and_say(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        let fleet = self.fleet();
        let outcome = self.run(ui, id);
        let hold = hold();
        block_on(async {
            fleet.cost.sweep_stores().await;
            // A client that was killed could not remove its folder.
            tokio::task::spawn_blocking(scratch::sweep).await?;
            Ok(())
        })?;
        drop(hold);
        let outcome = outcome.or_else(|error| {
            // What the job has left is cleared away by now.
            block_on(async { Err(fleet.with_log(ui, error).await) })
        });
        let said = fleet.say_cost(ui);
        outcome.and(said)
    }

    /// Where it runs.
    fn fleet(&self) -> &FleetArgs {
        match self {
            Job::Pagerank(job) => job.fleet(),
            Job::Bfs(job) => job.job().fleet(),
            Job::Wcc(job) => job.job().fleet(),
            Job::Sssp(job) => job.job().fleet(),
            Job::Cdlp(job) => job.job().fleet(),
            Job::Lcc(job) => job.job().fleet(),
            Job::Run(job) => &job.fleet,
            Job::Map(job) => &job.fleet,
            Job::Sort(job) => &job.fleet,
            Job::Wordcount(job) => &job.fleet,
            Job::Pool(job) => &job.fleet,
        }
    }

    /// The flag that says to read standard input.
    fn reads_standard_input(&self) -> Option<&'static str> {
        match self {
            Job::Map(job) => job.reads_standard_input().then_some("--items -"),
            Job::Sort(job) => job.reads_standard_input().then_some("--input -"),
            Job::Wordcount(job) => job.reads_standard_input().then_some("--input -"),
            Job::Run(job) => job.reads_standard_input().then_some("--event -"),
            _ => None,
        }
    }

    /// True if standard output is for programs.
    fn prints_json(&self) -> bool {
        match self {
            Job::Pagerank(job) => job.json(),
            Job::Bfs(job) => job.job().json(),
            Job::Wcc(job) => job.job().json(),
            Job::Sssp(job) => job.job().json(),
            Job::Cdlp(job) => job.job().json(),
            Job::Lcc(job) => job.job().json(),
            Job::Run(job) => job.json,
            Job::Map(job) => job.json,
            Job::Sort(job) => job.json,
            Job::Wordcount(job) => job.json,
            Job::Pool(_) => false,
        }
    }

    fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        match self {
            Job::Pagerank(job) => job.run(ui, id),
            Job::Bfs(job) => job.job().run(ui, id),
            Job::Wcc(job) => job.job().run(ui, id),
            Job::Sssp(job) => job.job().run(ui, id),
            Job::Cdlp(job) => job.job().run(ui, id),
            Job::Lcc(job) => job.job().run(ui, id),
            Job::Run(job) => job.run(ui, id),
            Job::Map(job) => job.run(ui, id),
            Job::Sort(job) => job.run(ui, id),
            Job::Wordcount(job) => job.run(ui, id),
            Job::Pool(job) => job.run(ui, id),
        }
    }
}

fn detached_as(text: &str) -> Result<JobId, &'static str> {
    parse_id(text).ok_or("a job's id has 32 hexadecimal digits")
}
