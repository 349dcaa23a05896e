//! `lswitch function list` and `info`.

use super::own;
use crate::cmd::block_on;
use crate::cmd::settings::AwsArgs;
use crate::cmd::ui::{self, Ui, print_facts, print_json, print_table};
use crate::lambda::function::manage::Manager;
use crate::lambda::function::{Deployed, PACKAGE_TAG, TAG};
use serde_json::json;

/// List the functions that lswitch has made
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    aws: AwsArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Show a function that lswitch has made
#[derive(Debug, clap::Args)]
pub struct Info {
    /// The function's name
    name: String,

    #[command(flatten)]
    aws: AwsArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl List {
    /// Prints them.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        block_on(async {
            let config = self.aws.settings().load().await?;
            let functions = Manager::new(&config).list().await?;
            if self.json {
                return print_json(&json!({ "functions": functions }));
            }
            if functions.is_empty() {
                ui.say("no functions yet; next: lswitch function create NAME --create-role");
                return Ok(());
            }
            let rows: Vec<Vec<String>> = functions.iter().map(row).collect();
            print_table(
                &[
                    "NAME",
                    "VERSION",
                    "RUNTIME",
                    "ARCHITECTURE",
                    "MEMORY",
                    "TIMEOUT",
                    "CODE",
                ],
                &rows,
            )
        })
    }
}

impl Info {
    /// Prints what is known of it.
    pub fn run(&self) -> anyhow::Result<()> {
        block_on(async {
            let config = self.aws.settings().load().await?;
            let function = own(&Manager::new(&config), &self.name).await?;
            show(&function, self.json)
        })
    }
}

fn row(function: &Deployed) -> Vec<String> {
    vec![
        function.name.clone(),
        function.tags.get(TAG).cloned().unwrap_or_default(),
        function.runtime.clone(),
        function.architecture.clone(),
        format!("{} MB", function.memory_mb),
        format!("{} s", function.timeout_s),
        ui::bytes(function.code_bytes),
    ]
}

/// Prints what is known of a function.
pub fn show(function: &Deployed, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&serde_json::to_value(function)?);
    }
    let listed = |items: &[String]| match items {
        [] => "none".to_string(),
        items => items.join(" "),
    };
    let tags: Vec<String> = function
        .tags
        .iter()
        .filter(|(key, _)| ![TAG, PACKAGE_TAG].contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let variables: Vec<String> = function.environment.keys().cloned().collect();
    let network = function.vpc.to_string();
    print_facts(&[
        ("name", function.name.clone()),
        ("arn", function.arn.clone()),
        ("state", function.state.clone()),
        (
            "lswitch",
            function.tags.get(TAG).cloned().unwrap_or_default(),
        ),
        ("runtime", function.runtime.clone()),
        ("handler", function.handler.clone()),
        ("architecture", function.architecture.clone()),
        ("memory", format!("{} MB", function.memory_mb)),
        ("timeout", format!("{} s", function.timeout_s)),
        ("/tmp", format!("{} MB", function.storage_mb)),
        ("layers", listed(&function.layers)),
        ("variables", listed(&variables)),
        (
            "network",
            listed(&[network][..usize::from(!function.vpc.subnets.is_empty())]),
        ),
        (
            "reserved",
            function
                .reserved_concurrency
                .map_or("none".into(), |count| count.to_string()),
        ),
        ("tags", listed(&tags)),
        ("role", function.role.clone()),
        ("code", ui::bytes(function.code_bytes)),
        ("sha256", function.code_sha256.clone()),
        ("modified", function.modified.clone()),
    ])
}
