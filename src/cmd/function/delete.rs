//! `lswitch function delete`.

use super::check_name;
use crate::cmd::block_on;
use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::{Ui, print_json, print_table};
use crate::lambda::function::logs::{Logs, group_of};
use crate::lambda::function::manage::{ManageError, Manager};
use crate::lambda::function::role::Roles;
use serde_json::json;

/// Delete a function that lswitch has made, its role and its logs
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function delete ranker
  lswitch function delete ranker --yes --keep-logs

Shows what goes, and deletes it only with --yes. A role that lswitch did not make stays, and so do bucket and store.")]
pub struct Delete {
    /// The function's name
    name: String,

    /// Delete; without it only shown
    #[arg(long)]
    yes: bool,

    /// Keep what the function has printed
    #[arg(long)]
    keep_logs: bool,

    #[command(flatten)]
    aws: AwsArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Delete {
    /// Shows what goes, and deletes it if that was asked for.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        block_on(async {
            let config = self.aws.settings().load().await?;
            let manager = Manager::new(&config);
            check_name(&self.name)?;
            let roles = Roles::new(&config);
            // It may have been given another one since.
            let role = roles.own(&self.name).await?;
            let function = match manager.find_own(&self.name).await {
                Ok(function) => Some(function),
                // What is left of one that is gone goes too.
                Err(ManageError::Missing(_)) if role.is_some() => None,
                Err(error) => return Err(error.into()),
            };
            let in_network = function
                .as_ref()
                .is_some_and(|function| !function.vpc.subnets.is_empty());
            let role = role.filter(|_| !in_network);
            let mut doomed = Vec::new();
            doomed.extend(
                function
                    .iter()
                    .map(|function| ("function", function.arn.clone())),
            );
            doomed.extend(role.clone().map(|role| ("role", role)));
            if !self.keep_logs {
                doomed.push(("log group", group_of(&self.name)));
            }
            if self.yes {
                if let Some(function) = &function {
                    manager.delete(function).await?;
                }
                if let Some(role) = &role {
                    roles.delete(role).await?;
                }
                if !self.keep_logs {
                    Logs::new(&config).delete_group(&self.name).await?;
                }
            }
            if self.json {
                let what: Vec<_> = doomed
                    .iter()
                    .map(|(kind, name)| json!({ "kind": kind, "name": name }))
                    .collect();
                return print_json(&json!({ "deleted": self.yes, "what": what }));
            }
            let rows: Vec<Vec<String>> = doomed
                .into_iter()
                .map(|(kind, name)| vec![kind.into(), name])
                .collect();
            print_table(&["WHAT", "NAME"], &rows)?;
            if in_network {
                ui.say(
                    "its role stays: Lambda needs it to take the function's network interfaces away, which may take 20 minutes; \
                     after that the same command deletes the role",
                );
            }
            ui.say(match self.yes {
                true => "deleted",
                false => "nothing was deleted; the same command with --yes does",
            });
            Ok(())
        })
    }
}
