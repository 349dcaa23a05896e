//! What a job on AWS may cost, and has cost.

use super::fleet::FleetArgs;
use crate::cmd::UsageError;
use crate::cmd::ui::Ui;
use crate::job::fleet::Fleet;
use crate::lambda::cost::{Prices, Usage};
use crate::lambda::function::Deployed;
use crate::lambda::function::manage::Manager;
use crate::lambda::limits::MEMORY_MB;
use crate::lambda::meter::{Budget, Size};
use crate::store::{Requests, Store};
use anyhow::Context;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long is waited for what Lambda says of a function's memory.
const SIZE_WITHIN: Duration = Duration::from_secs(5);

/// What a user says about money.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cmd) struct CostArgs {
    /// Prices by which a job on AWS says what it cost, as a TOML file; see docs/AWS.md
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,

    /// End the job when it has cost about so many US dollars on AWS, by those prices; what is done of a map is kept for --resume
    #[arg(long, value_name = "USD", value_parser = dollars)]
    max_cost: Option<f64>,

    /// Start nothing, and show what would be started and what it costs
    #[arg(long)]
    dry_run: bool,

    #[arg(skip)]
    account: Arc<Account>,
}

/// What the jobs of this command have taken.
#[derive(Debug, Default)]
struct Account {
    /// This process's own requests.
    requests: Arc<Requests>,
    /// What workers took, and how long jobs took.
    taken: Mutex<(Usage, Duration)>,
    budget: OnceCell<Arc<Budget>>,
    /// Where the jobs of this command write.
    stores: Mutex<Vec<Store>>,
}

impl CostArgs {
    /// The jobs of this command write there.
    pub(super) fn opened(&self, store: &Store) {
        let stores = &self.account.stores;
        let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.push(store.clone());
    }

    /// Removes what writers that are gone have left in the stores of this command's jobs: workers that were lost, and drivers that
    /// were killed.
    pub(super) async fn sweep_stores(&self) {
        let stores = &self.account.stores;
        let stores = std::mem::take(&mut *stores.lock().unwrap_or_else(PoisonError::into_inner));
        for store in stores {
            if let Err(error) = store.sweep().await {
                tracing::warn!("{error}");
            }
        }
    }

    /// Counts this process's own requests to S3.
    pub(super) fn requests(&self) -> Arc<Requests> {
        self.account.requests.clone()
    }

    /// True if nothing is to be started.
    pub(in crate::cmd) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// True if there is a most that jobs may cost.
    pub(in crate::cmd) fn has_limit(&self) -> bool {
        self.max_cost.is_some()
    }

    /// The prices that were given, or AWS's.
    pub(super) fn prices(&self) -> anyhow::Result<Prices> {
        let Some(path) = &self.prices else {
            return Ok(Prices::default());
        };
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("--prices {name}"))?;
        toml::from_str(&text)
            .map_err(|error| UsageError(format!("--prices {name}: {error}")).into())
    }

    fn taken(&self) -> (Usage, Duration) {
        let taken = &self.account.taken;
        let (mut usage, took) = *taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (writes, reads) = self.account.requests.so_far();
        usage.store_writes += writes;
        usage.store_reads += reads;
        (usage, took)
    }
}

impl FleetArgs {
    /// Ends what a job was started with, and notes what it took.
    pub(in crate::cmd) async fn end(&self, fleet: Fleet) {
        if self.function().is_some() && fleet.launcher.meter().wants_size() {
            // Nobody has said how large workers are: none did well, or they are not of Rust.
            let known = tokio::time::timeout(SIZE_WITHIN, self.far()).await;
            if let Ok(Ok(known)) = known {
                fleet.launcher.meter().suppose(largest(&known));
            }
        }
        let (usage, took) = (fleet.launcher.usage(), fleet.launcher.elapsed());
        fleet.stop().await;
        let account = &self.cost.account;
        if let Some(budget) = account.budget.get() {
            budget.settle(&usage, took);
        }
        let mut taken = account.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.0.add_all(&usage);
        taken.1 += took;
    }

    /// What all jobs of this command have taken so far, and the command itself.
    pub(in crate::cmd) fn usage(&self) -> Usage {
        self.cost.taken().0
    }

    /// Says what jobs on AWS have cost.
    pub(in crate::cmd) fn say_cost(&self, ui: &Ui) -> anyhow::Result<()> {
        let (usage, took) = self.cost.taken();
        if self.function().is_none() || usage.calls == 0 {
            return Ok(());
        }
        let prices = self.cost.prices()?;
        let cost = prices.cost(&usage, took, self.switches()?.len());
        let mut but = String::new();
        if usage.estimated > 0 {
            but += &format!(
                "; {} workers have not said what they took and are counted by the clock",
                usage.estimated
            );
        }
        if usage.unknown() > 0 {
            but += &format!(
                "; of {} of {} calls nothing is known",
                usage.unknown(),
                usage.calls
            );
        }
        ui.say(format!(
            "cost: about {cost} for {:.1} GB s, at prices of {}{but}",
            usage.gb_seconds(),
            prices.of
        ));
        Ok(())
    }

    /// What the jobs of this command may cost, if there is a limit: one for all of them.
    pub(super) async fn budget(&self) -> anyhow::Result<Option<Arc<Budget>>> {
        let (Some(max), Some(_)) = (self.cost.max_cost, self.function()) else {
            return Ok(None);
        };
        let make = async {
            let size = match self.far().await {
                Ok(found) => (largest(&found), false),
                Err(error) if error.is::<UsageError>() => return Err(error),
                Err(error) => {
                    let memory_mb = *MEMORY_MB.end();
                    tracing::warn!(
                        "{error:#}; --max-cost counts workers as of {memory_mb} MB until the first has said how much it has"
                    );
                    let arm = false;
                    (Size { memory_mb, arm }, true)
                }
            };
            let (prices, switches) = (self.cost.prices()?, self.switches()?.len());
            Ok(Arc::new(Budget::new(max, prices, size, switches)))
        };
        let budget = self.cost.account.budget.get_or_try_init(|| make).await?;
        Ok(Some(budget.clone()))
    }

    /// The functions on AWS that were named.
    pub(super) async fn far(&self) -> anyhow::Result<Vec<Deployed>> {
        let manager = Manager::new(&self.aws_settings().load().await?);
        let mut found = Vec::new();
        for name in self.far_functions()?.unwrap_or_default() {
            let function = manager.find(&name).await?;
            let none = || {
                UsageError(format!(
                    "there is no function {name}; \"lswitch function create {name}\" makes one"
                ))
            };
            found.push(function.ok_or_else(none)?);
        }
        Ok(found)
    }
}

/// The size of the largest of these functions; on Graviton only if all are.
pub(super) fn largest(functions: &[Deployed]) -> Size {
    let memory = functions.iter().map(|function| function.memory_mb).max();
    Size {
        memory_mb: memory.unwrap_or(0),
        arm: !functions.is_empty()
            && functions
                .iter()
                .all(|function| function.architecture == "arm64"),
    }
}

/// An amount of money.
fn dollars(text: &str) -> Result<f64, String> {
    match text.trim_start_matches('$').parse() {
        Ok(amount) if amount > 0.0 && f64::is_finite(amount) => Ok(amount),
        _ => Err("this is an amount in US dollars, more than 0, such as 2.50".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_understood_or_refused() {
        assert_eq!(dollars("2.50"), Ok(2.5));
        assert_eq!(dollars("$1"), Ok(1.0));
        for text in ["", "0", "-1", "NaN", "inf", "free"] {
            assert!(dollars(text).is_err(), "{text}");
        }
    }
}
