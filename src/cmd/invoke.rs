//! `lswitch invoke`: starts a job's workers, shows how far it is, prints the result.

mod data;
mod fleet;
mod functions;
mod graph;
mod map;
mod pagerank;
mod pool;
mod progress;
mod run;
mod sort;
mod vertex;
mod wordcount;

use crate::cmd::ui::Ui;
use crate::net::token::JobId;
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
  lswitch help invoke pagerank")]
pub struct Invoke {
    #[command(subcommand)]
    job: Job,
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
    /// Runs the job.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let id = JobId::random();
        match &self.job {
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
