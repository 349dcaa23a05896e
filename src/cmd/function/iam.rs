//! `lswitch function iam`: policies for whoever keeps the account's permissions.

use super::check_name;
use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::print;
use crate::cmd::{UsageError, block_on};
use crate::lambda::function::account::{Account, account};
use crate::lambda::function::policy::{Part, Scope, policy, trust};
use crate::store::Store;
use clap::ValueEnum;
use serde_json::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// The role of the functions
    Worker,
    /// Whoever runs "lswitch invoke"
    Launcher,
    /// The machine of "lswitch serve"
    Switch,
    /// Whoever runs "lswitch function"
    Manager,
    /// Who may take the functions' role
    Trust,
}

/// Print the least permissions that each part needs, as policies for IAM
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch function iam worker --function ranker --store s3://bucket/jobs
  lswitch function iam --function ranker --store s3://bucket/jobs --account 123456789012 --region eu-west-1

Without a part all of them are printed as one JSON object. Without --account AWS is asked whose the credentials are.")]
pub struct Iam {
    /// Whose permissions
    part: Option<Who>,

    /// The functions, by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    function: Vec<String>,

    /// The jobs' store
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    store: Option<String>,

    /// The functions are in a network of the account
    #[arg(long)]
    vpc: bool,

    /// Workers start workers, as "invoke map --levels" does
    #[arg(long)]
    may_invoke_itself: bool,

    /// The account, 12 digits
    #[arg(long, value_name = "ID")]
    account: Option<String>,

    #[command(flatten)]
    aws: AwsArgs,
}

impl Iam {
    /// Prints them.
    pub fn run(&self) -> anyhow::Result<()> {
        for name in &self.function {
            check_name(name)?;
        }
        block_on(async {
            let scope = self.scope().await?;
            let of = |who| match who {
                Who::Worker => policy(Part::Worker, &scope),
                Who::Launcher => policy(Part::Launcher, &scope),
                Who::Switch => policy(Part::Switch, &scope),
                Who::Manager => policy(Part::Manager, &scope),
                Who::Trust => trust(),
            };
            let printed = match self.part {
                Some(who) => of(who),
                None => json!({
                    "worker": of(Who::Worker),
                    "launcher": of(Who::Launcher),
                    "switch": of(Who::Switch),
                    "manager": of(Who::Manager),
                    "trust": of(Who::Trust),
                }),
            };
            print(format!("{}\n", serde_json::to_string_pretty(&printed)?))
        })
    }

    async fn scope(&self) -> anyhow::Result<Scope> {
        let settings = self.aws.settings();
        let found = match &self.account {
            None => account(&settings.load().await?).await?,
            Some(id) => {
                if id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(UsageError(format!("--account {id}: it has 12 digits")).into());
                }
                let region = settings.region_without_asking().await;
                let missing = || UsageError("no region is set; give --region or AWS_REGION".into());
                let region = region.ok_or_else(missing)?;
                Account {
                    partition: partition(&region).into(),
                    region,
                    account: id.clone(),
                    caller: String::new(),
                }
            }
        };
        let store = match &self.store {
            None => None,
            Some(location) => {
                let store = Store::open(location, &settings).await?;
                let Some((bucket, prefix)) = store.bucket() else {
                    let what = format!("--store {location} is none in S3");
                    return Err(UsageError(what).into());
                };
                Some((bucket.to_string(), prefix.to_string()))
            }
        };
        Ok(Scope {
            partition: found.partition,
            region: found.region,
            account: found.account,
            functions: self.function.clone(),
            store,
            vpc: self.vpc,
            tree: self.may_invoke_itself,
        })
    }
}

fn partition(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}
