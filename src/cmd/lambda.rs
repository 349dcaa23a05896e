//! `lswitch lambda`: the worker. Lambda starts the same binary as `bootstrap`, without a subcommand.

use crate::cmd::{UsageError, block_on};
use crate::job::pack;
use crate::lambda::local::LOCAL_VARIABLE;
use crate::lambda::runtime;

/// What lambda_runtime takes from the environment and panics without.
const RUNTIME_VARIABLES: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
];

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
        if !runtime::is_lambda() {
            let what = "AWS_LAMBDA_RUNTIME_API is not set, so there is no Lambda to work for; workers are started by \"lswitch invoke\"";
            return Err(UsageError(what.into()).into());
        }
        let missing = RUNTIME_VARIABLES
            .iter()
            .find(|name| std::env::var_os(name).is_none());
        if let Some(name) = missing {
            let what = format!(
                "AWS_LAMBDA_RUNTIME_API is set but {name} is not, so this is no whole Lambda runtime; it must set {}",
                RUNTIME_VARIABLES.join(", ")
            );
            return Err(UsageError(what).into());
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
