//! `lswitch lambda`: the worker. Lambda starts the same binary as `bootstrap`, without a subcommand.

use crate::cmd::UsageError;
use crate::job::worker;

/// Run as a worker; Lambda does this, on AWS or locally
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  cp lswitch bootstrap && zip function.zip bootstrap    a function for provided.al2023: Lambda runs it without arguments
  lswitch invoke pagerank --graph graph.parts           workers on this machine, started by a local Lambda")]
pub struct Lambda {}

impl Lambda {
    /// Serves invocations until the runtime goes away.
    pub fn run(&self) -> anyhow::Result<()> {
        worker::work().map_err(|error| match error.is_usage() {
            true => UsageError(error.to_string()).into(),
            false => error.into(),
        })
    }
}
