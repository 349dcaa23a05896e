//! `lswitch function`: the functions on AWS that run workers.

mod args;
mod create;
mod delete;
mod iam;
mod list;
mod logs;
mod package;
mod update;

use crate::cmd::UsageError;
use crate::cmd::ui::Ui;
use crate::lambda::function::Deployed;
use crate::lambda::function::manage::Manager;
use crate::lambda::function::package::PackageError;
use clap::Subcommand;

/// Make and manage the functions on AWS that run workers
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function create ranker --create-role --store s3://bucket/jobs --create-bucket
  lswitch function update ranker --memory 3538
  lswitch function list
  lswitch function logs ranker --follow
  lswitch function delete ranker

Only functions that lswitch has made are listed, changed and deleted; they carry the tag \"lswitch\".")]
pub struct Function {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Package(package::Package),
    Create(create::Create),
    Update(update::Update),
    List(list::List),
    Info(list::Info),
    Delete(delete::Delete),
    Logs(logs::Logs),
    Iam(iam::Iam),
}

impl Function {
    /// Runs the subcommand.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        match &self.command {
            Command::Package(command) => command.run(ui),
            Command::Create(command) => command.run(ui),
            Command::Update(command) => command.run(ui),
            Command::List(command) => command.run(ui),
            Command::Info(command) => command.run(),
            Command::Delete(command) => command.run(ui),
            Command::Logs(command) => command.run(),
            Command::Iam(command) => command.run(),
        }
    }
}

/// A package's error, as the command's.
fn refused(error: PackageError) -> anyhow::Error {
    match error {
        PackageError::Usage(_) | PackageError::Unfit { .. } => UsageError(error.to_string()).into(),
        other => other.into(),
    }
}

/// The function of that name, which must be lswitch's.
async fn own(manager: &Manager, name: &str) -> anyhow::Result<Deployed> {
    check_name(name)?;
    Ok(manager.find_own(name).await?)
}

/// Refuses what is no function's name before any call.
fn check_name(name: &str) -> Result<(), UsageError> {
    crate::lambda::limits::check_name(name).map_err(UsageError)
}
