//! `lswitch function create`.

use super::args::{PackageArgs, SettingArgs, place};
use super::check_name;
use super::list::show;
use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::{self, Ui};
use crate::cmd::{UsageError, block_on};
use crate::lambda::function::account::account;
use crate::lambda::function::logs::Logs;
use crate::lambda::function::manage::{ManageError, Manager};
use crate::lambda::function::role::Roles;

/// How long what functions print is kept.
const LOG_DAYS: i32 = 30;

/// Make a function of this program, or of another one
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function create ranker --create-role --store s3://bucket/jobs --create-bucket
  lswitch function create ranker --bootstrap bootstrap --role arn:aws:iam::123456789012:role/worker --memory 3538
  lswitch function create ranker --create-role --subnet subnet-0a1b --security-group sg-0a1b
  lswitch function create app --runtime python3.12 --handler app.handler --include app.py --create-role

Lambda itself repeats nothing that fails in it: lswitch does.")]
pub struct Create {
    /// The function's name
    name: String,

    #[command(flatten)]
    package: PackageArgs,

    #[command(flatten)]
    settings: SettingArgs,

    /// Make the bucket of --store if there is none
    #[arg(long, help_heading = "Settings")]
    create_bucket: bool,

    #[command(flatten)]
    aws: AwsArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Create {
    /// Makes it, and what it needs.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        check_name(&self.name)?;
        let mut settings = self.settings.settings(&self.package)?;
        if settings.role.is_none() && !self.settings.creates_role() {
            return Err(UsageError(ManageError::NoRole.to_string()).into());
        }
        let package = self.package.package()?;
        block_on(async {
            let config = self.aws.settings().load().await?;
            let manager = Manager::new(&config);
            let store = self.settings.store(&config).await?;
            if manager.find(&self.name).await?.is_some() {
                return Err(ManageError::Exists(self.name.clone()).into());
            }
            if self.create_bucket {
                let Some(store) = &store else {
                    let what = "--create-bucket makes the bucket of --store; give that too";
                    return Err(UsageError(what.into()).into());
                };
                if store.make_bucket().await? {
                    ui.say(format!("made the bucket of {}", store.url()));
                }
            }
            Logs::new(&config).make_group(&self.name, LOG_DAYS).await?;
            if self.settings.creates_role() {
                let account = account(&config).await?;
                let vpc = settings.vpc.is_some();
                let scope = self
                    .settings
                    .scope(&self.name, account, store.as_ref(), vpc);
                let role = Roles::new(&config).make(&self.name, &scope).await?;
                ui.say(format!("the function's role is {role}"));
                settings.role = Some(role);
            }
            let place = place(ui, &package, store.as_ref()).await?;
            ui.say(format!(
                "making function {} of {}",
                self.name,
                ui::bytes(package.zip.len() as u64)
            ));
            let made = manager
                .create(&self.name, &settings, &package, &place)
                .await?;
            show(&made, self.json)?;
            ui.say(format!(
                "next: lswitch doctor --function {0}, then lswitch invoke ... --function {0}",
                self.name
            ));
            Ok(())
        })
    }
}
