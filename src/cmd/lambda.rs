//! `lswitch lambda`: the worker. Lambda starts the same binary as `bootstrap`, without a subcommand.

use crate::cmd::{UsageError, block_on};
use crate::job::pack;
use crate::lambda::runtime;

/// Set by the local Lambda's own function, so that a worker does not outlive the process that started it.
pub const LOCAL_VARIABLE: &str = "LSWITCH_LOCAL";

/// Run as a worker; Lambda does this, on AWS or locally
#[derive(Debug, clap::Args)]
pub struct Lambda {}

impl Lambda {
    /// Serves invocations until the runtime goes away.
    pub fn run(&self) -> anyhow::Result<()> {
        if !runtime::is_lambda() {
            let what = "AWS_LAMBDA_RUNTIME_API is not set, so there is no Lambda to work for; workers are started by \"lswitch invoke\"";
            return Err(UsageError(what.into()).into());
        }
        #[cfg(target_os = "linux")]
        if std::env::var_os(LOCAL_VARIABLE).is_some() {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        }
        block_on(async {
            runtime::run(pack::run)
                .await
                .map_err(|error| anyhow::anyhow!("the Lambda runtime failed: {error}"))
        })
    }
}
