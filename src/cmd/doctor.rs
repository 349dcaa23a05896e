//! `lswitch doctor`: would a job run here, and if not, what is to be done?

use crate::aws::error_chain;
use crate::cmd::invoke::fleet::FleetArgs;
use crate::cmd::ui::{Ui, print, print_json};
use crate::cmd::{UsageError, block_on};
use crate::job::driver::JobSpec;
use crate::job::probe::{Asked, Found};
use crate::lambda::function::account::account;
use crate::lambda::function::manage::Manager;
use crate::lambda::function::{Deployed, OWN, PACKAGE_TAG, TAG};
use crate::net::token::JobId;
use aws_config::SdkConfig;
use serde::Serialize;
use serde_json::json;

/// Environments at once below which a user will want more: AWS's usual limit.
const CONCURRENCY: u32 = 1000;

/// Check that jobs would run: account, function, store, switch, and a worker
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch doctor                                            this machine alone
  lswitch doctor --function ranker --store s3://bucket/jobs --switch 10.0.0.7:7000#SHA256

Starts one worker, which joins the switch and uses the store. Each finding says what to do; exit code 1 if one is a problem.")]
pub struct Doctor {
    #[command(flatten)]
    fleet: FleetArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    Warning,
    Problem,
}

/// What was found out about one thing.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    words: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Something is not as it should be; what, was printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} of these are problems")]
struct Problems(usize);

impl Finding {
    fn good(what: &'static str, words: impl Into<String>) -> Finding {
        Finding {
            what,
            state: State::Good,
            words: words.into(),
            advice: None,
        }
    }

    fn warning(what: &'static str, words: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            state: State::Warning,
            advice: Some(advice.into()),
            ..Finding::good(what, words)
        }
    }

    fn problem(what: &'static str, words: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            state: State::Problem,
            ..Finding::warning(what, words, advice)
        }
    }

    fn line(&self) -> String {
        let mark = match self.state {
            State::Good => "ok",
            State::Warning => "warning",
            State::Problem => "PROBLEM",
        };
        let mut line = format!("{mark:8} {:12} {}\n", self.what, self.words);
        if let Some(advice) = &self.advice {
            line += &format!("{:22}-> {advice}\n", "");
        }
        line
    }
}

impl Doctor {
    /// Tries everything, and prints what was found.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        self.fleet.check()?;
        self.fleet.check_alone()?;
        block_on(async {
            let mut findings = Vec::new();
            let mut note = |finding: Finding| -> anyhow::Result<bool> {
                let good = finding.state != State::Problem;
                if !self.json {
                    print(finding.line())?;
                }
                findings.push(finding);
                Ok(good)
            };
            let functions = self.fleet.far_functions()?.unwrap_or_default();
            let mut reachable = true;
            if !functions.is_empty() {
                let config = self.fleet.aws_settings().load().await?;
                reachable &= note(credentials(&config).await)?;
                if reachable {
                    let manager = Manager::new(&config);
                    note(concurrency(&manager).await)?;
                    for function in &functions {
                        for finding in examine(&manager, function).await {
                            reachable &= note(finding)?;
                        }
                    }
                }
            }
            let store = self.store().await?;
            note(store)?;
            if reachable {
                for finding in self.worker(ui, functions.first()).await {
                    note(finding)?;
                }
            }
            let problems = findings
                .iter()
                .filter(|finding| finding.state == State::Problem)
                .count();
            if self.json {
                print_json(&json!({ "findings": findings, "problems": problems }))?;
            }
            match problems {
                0 => Ok(()),
                problems => Err(Problems(problems).into()),
            }
        })
    }

    /// The store as this machine sees it.
    async fn store(&self) -> anyhow::Result<Finding> {
        let location = &self.fleet.store;
        let store = match self.fleet.open_store("--store", location).await {
            Ok(store) => store,
            Err(error) if error.is::<UsageError>() => return Err(error),
            Err(error) => {
                return Ok(Finding::problem(
                    "store",
                    error.to_string(),
                    "see --store in \"lswitch help doctor\"",
                ));
            }
        };
        let key = format!("probe/{}", JobId::random());
        let tried = async {
            store.put(&key, "probe".into()).await?;
            store.get(&key).await?;
            store.delete(&key).await
        };
        Ok(match tried.await {
            Ok(()) => Finding::good(
                "store",
                format!("{} can be written and read from here", store.url()),
            ),
            Err(error) => Finding::problem(
                "store",
                error_chain(&error),
                "\"lswitch function iam launcher\" prints the permissions that the driver needs",
            ),
        })
    }

    /// Runs a job of one worker, whose call tells how it ends.
    async fn worker(&self, ui: &Ui, function: Option<&String>) -> Vec<Finding> {
        let quiet = Ui::new(true);
        let ui = if self.json { &quiet } else { ui };
        let outcome = async {
            let store = self.fleet.open_store("--store", &self.fleet.store).await?;
            let job = JobSpec {
                id: JobId::random(),
                program: "probe".into(),
                arguments: serde_json::to_value(Asked { store: true })?,
                ranks: 1,
                ranks_per_pack: 1,
                levels: 1,
                store: store.url().into(),
                timeout: self.fleet.timeout(),
                more: Default::default(),
            };
            let outcome = self.fleet.with_open_calls().drive(ui, &job, "").await?;
            let found: Found = serde_json::from_slice(&outcome.results[0])?;
            anyhow::Ok((outcome.launch, found))
        };
        let (launch, found) = match outcome.await {
            Ok(found) => found,
            Err(error) => {
                let advice = match function {
                    Some(function) => format!(
                        "what the worker printed: lswitch function logs {function}; a function in a network needs a security group that lets it reach the switch's port, one outside needs a public address of the switch"
                    ),
                    None => "run it again with LSWITCH_LOG=lswitch=debug".into(),
                };
                return vec![Finding::problem(
                    "worker",
                    crate::cmd::ui::message(&error),
                    advice,
                )];
            }
        };
        let (seconds, left) = (launch.as_secs_f64(), found.remaining_s);
        let mut findings = vec![Finding::good(
            "worker",
            format!("joined the switch in {seconds:.1} s and had {left} s left"),
        )];
        findings.push(match found.store_problem {
            None => Finding::good("its store", "can be written and read by the worker"),
            Some(problem) => Finding::problem(
                "its store",
                problem,
                "the function's role must reach the store: lswitch function iam worker --store ..., or in a network without a way out an S3 gateway endpoint",
            ),
        });
        findings
    }
}

async fn credentials(config: &SdkConfig) -> Finding {
    match account(config).await {
        Ok(account) => Finding::good(
            "credentials",
            format!("{} in {}", account.caller, account.region),
        ),
        Err(error) => Finding::problem(
            "credentials",
            error.to_string(),
            "run \"aws configure\", or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
    }
}

async fn concurrency(manager: &Manager) -> Finding {
    const MORE: &str =
        "ask for more in AWS's console: Service Quotas, AWS Lambda, Concurrent executions";
    match manager.concurrency().await {
        Ok((all, free)) if free < CONCURRENCY => Finding::warning(
            "limit",
            format!(
                "{all} environments at once in this account and region, {free} of them not reserved"
            ),
            MORE,
        ),
        Ok((all, free)) => Finding::good(
            "limit",
            format!("{all} environments at once, {free} of them not reserved"),
        ),
        Err(error) => Finding::warning(
            "limit",
            error.to_string(),
            "it needs lambda:GetAccountSettings",
        ),
    }
}

/// A function as it is deployed.
async fn examine(manager: &Manager, name: &str) -> Vec<Finding> {
    let function = match manager.find(name).await {
        Ok(Some(function)) => function,
        Ok(None) => {
            return vec![Finding::problem(
                "function",
                format!("there is no function {name} here"),
                format!("lswitch function create {name} --create-role"),
            )];
        }
        // Whoever only launches may do so without looking.
        Err(error) => {
            return vec![Finding::warning(
                "function",
                error.to_string(),
                "it needs lambda:GetFunction",
            )];
        }
    };
    let mut findings = vec![version(&function)];
    if function.async_retries != Some(0) {
        findings.push(Finding::warning(
            "retries",
            format!("Lambda itself repeats what fails in {name}, and lswitch does so too"),
            format!("lswitch function update {name}"),
        ));
    }
    if function.timeout_s < 60 {
        findings.push(Finding::warning(
            "timeout",
            format!("workers of {name} are ended after {} s", function.timeout_s),
            format!("lswitch function update {name} --timeout 900"),
        ));
    }
    if function.state != "Active" && !function.state.is_empty() {
        findings.push(Finding::warning(
            "state",
            format!("{name} is {}", function.state),
            "Lambda makes it ready with the first call, which may take a minute",
        ));
    }
    findings
}

fn version(function: &Deployed) -> Finding {
    let name = &function.name;
    let own = env!("CARGO_PKG_VERSION");
    match function.tags.get(TAG) {
        None => Finding::warning(
            "function",
            format!(
                "{name} was not made by lswitch; {} MB, {} s",
                function.memory_mb, function.timeout_s
            ),
            "it must hold a worker of this release; the check of a worker below tells",
        ),
        Some(version)
            if version != own
                && function
                    .tags
                    .get(PACKAGE_TAG)
                    .is_some_and(|kind| kind == OWN) =>
        {
            Finding::warning(
                "function",
                format!("{name} was made by lswitch {version}, and this one is {own}"),
                format!("lswitch function update {name}"),
            )
        }
        Some(version) => Finding::good(
            "function",
            format!(
                "{name}: lswitch {version}, {}, {}, {} MB, {} s",
                function.runtime, function.architecture, function.memory_mb, function.timeout_s
            ),
        ),
    }
}
