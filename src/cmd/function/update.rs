//! `lswitch function update`.

use super::args::{PackageArgs, SettingArgs, place};
use super::own;
use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::{Ui, print_json, print_table};
use crate::cmd::{UsageError, block_on};
use crate::lambda::function::account::account;
use crate::lambda::function::manage::Manager;
use crate::lambda::function::role::Roles;
use crate::lambda::function::{OWN, PACKAGE_TAG};
use serde_json::json;

/// Change what differs of a function: its settings, and its code
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function update ranker                      the code of this program, after it was updated itself
  lswitch function update ranker --memory 3538 --env LSWITCH_LOG=lswitch=debug
  lswitch function update ranker --unset-env LSWITCH_LOG --no-vpc

Settings that are not named stay. The code of a function that was made with --bootstrap or --include, or in Python, is left alone
unless options say what it is made of.")]
pub struct Update {
    /// The function's name
    name: String,

    #[command(flatten)]
    package: PackageArgs,

    #[command(flatten)]
    settings: SettingArgs,

    /// Take a variable away
    #[arg(long, value_name = "NAME", help_heading = "Settings")]
    unset_env: Vec<String>,

    /// Take the function out of its network
    #[arg(long, help_heading = "Settings", conflicts_with_all = ["subnet", "security_group"])]
    no_vpc: bool,

    /// Leave the code as it is
    #[arg(long, help_heading = "Code")]
    keep_code: bool,

    #[command(flatten)]
    aws: AwsArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Update {
    /// Changes what differs, and says what that was.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let mut settings = self.settings.settings(&self.package)?;
        settings.unset = self.unset_env.iter().cloned().collect();
        if self.no_vpc {
            settings.vpc = Some(Default::default());
        }
        if self.keep_code && self.package.are_given() {
            let what =
                "--keep-code leaves the code alone, and other options say what it is made of";
            return Err(UsageError(what.into()).into());
        }
        block_on(async {
            let config = self.aws.settings().load().await?;
            let manager = Manager::new(&config);
            let deployed = own(&manager, &self.name).await?;
            let store = self.settings.store(&config).await?;
            let is_own = deployed
                .tags
                .get(PACKAGE_TAG)
                .is_some_and(|kind| kind == OWN);
            let package = match (self.package.are_given(), is_own) {
                _ if self.keep_code => None,
                (false, false) => {
                    ui.say("the code is not this program alone and stays; say what it is made of to change it");
                    None
                }
                _ => Some(self.package.package()?),
            };
            if let Some(package) = &package
                && package.architecture.to_string() != deployed.architecture
                && !self.package.names_architecture()
            {
                let what = format!(
                    "function {} is for {}, and this code for {}; --architecture {} changes that, --keep-code leaves the code alone",
                    self.name, deployed.architecture, package.architecture, package.architecture
                );
                return Err(UsageError(what).into());
            }
            let place = match &package {
                Some(package) if package.sha256 != deployed.code_sha256 => {
                    Some(place(ui, package, store.as_ref()).await?)
                }
                _ => None,
            };
            if self.settings.creates_role() {
                let account = account(&config).await?;
                let vpc = settings.vpc.as_ref().unwrap_or(&deployed.vpc);
                let vpc = !vpc.subnets.is_empty();
                let scope = self
                    .settings
                    .scope(&self.name, account, store.as_ref(), vpc);
                settings.role = Some(Roles::new(&config).make(&self.name, &scope).await?);
            }
            let code = package.as_ref().zip(place.as_ref());
            let changes = manager.update(&deployed, &settings, code).await?;
            if self.json {
                return print_json(&json!({ "function": self.name, "changes": changes }));
            }
            if changes.is_empty() {
                ui.say(format!("function {} is as it should be", self.name));
                return Ok(());
            }
            let rows: Vec<Vec<String>> = changes
                .into_iter()
                .map(|change| vec![change.setting.into(), change.from, change.to])
                .collect();
            print_table(&["CHANGED", "FROM", "TO"], &rows)
        })
    }
}
