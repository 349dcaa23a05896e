//! `--dry-run`: what a job would start, and what that costs.

use super::cost::largest;
use super::fleet::FleetArgs;
use crate::cmd::ui::{print_facts, print_json};
use crate::cmd::{Planned, UsageError};
use crate::lambda::cost::{Prices, Usage};
use crate::lambda::function::Deployed;
use crate::lambda::pace::time_to_start;
use serde_json::{Value, json};
use std::time::Duration;

/// A job that is to be started.
pub(super) struct Plan<'a> {
    pub(super) program: &'a str,
    pub(super) workers: u32,
    /// Its workers are there from its start to its end.
    pub(super) is_fixed: bool,
    /// It is shown as JSON.
    pub(super) json: bool,
}

/// What would be started.
struct Forecast<'a> {
    plan: &'a Plan<'a>,
    /// Function instances.
    packs: u32,
    /// Those on AWS.
    functions: Vec<Deployed>,
    /// Why nothing is known of them.
    unknown: Option<String>,
    switches: Vec<String>,
    store: &'a str,
    /// Until all instances are started, by Lambda's scaling rate.
    launch: Duration,
    prices: Prices,
}

impl FleetArgs {
    /// With --dry-run shows what a job would start, and ends with that.
    pub(super) async fn plan(&self, plan: &Plan<'_>) -> anyhow::Result<()> {
        if !self.cost.is_dry_run() {
            return Ok(());
        }
        self.check_launch()?;
        let (functions, unknown) = match self.far().await {
            Ok(found) => (found, None),
            Err(error) if error.is::<UsageError>() => return Err(error),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        let switches = self.switches()?;
        if self.function().is_some() && switches.is_empty() {
            // It says what to do.
            self.switch().await?;
        }
        let named = self.functions()?;
        if let (None, Some(named)) = (self.function(), &named) {
            named.load(&self.aws_settings()).await?;
        }
        let packs = plan.workers.div_ceil(self.workers_per_function.max(1));
        let share = named.map_or(packs, |named| named.largest_share(packs));
        let forecast = Forecast {
            plan,
            packs,
            functions,
            unknown,
            switches: switches.iter().map(ToString::to_string).collect(),
            store: &self.store,
            launch: time_to_start(share),
            prices: self.cost.prices()?,
        };
        match plan.json {
            true => print_json(&forecast.json())?,
            false => print_facts(&forecast.facts())?,
        }
        Err(Planned.into())
    }
}

impl Forecast<'_> {
    /// US dollars for so long; none where nothing is known of the functions.
    fn cost(&self, time: Duration) -> Option<f64> {
        if self.functions.is_empty() {
            return None;
        }
        let size = largest(&self.functions);
        let mut usage = Usage {
            calls: self.packs.into(),
            ..Usage::default()
        };
        let ms = time.as_millis() as u64 * u64::from(self.packs);
        usage.add_time(size.memory_mb, size.arm, ms);
        let cost = self.prices.cost(&usage, time, self.switches.len());
        Some(cost.total())
    }

    fn minute(&self) -> Option<f64> {
        self.cost(Duration::from_secs(60))
    }

    /// What it costs if all stay until Lambda ends them. Workers of an elastic job are replaced then.
    fn most(&self) -> Option<f64> {
        let timeouts = self.functions.iter().map(|function| function.timeout_s);
        let timeout = timeouts.max().filter(|_| self.plan.is_fixed)?;
        self.cost(Duration::from_secs(timeout.into()))
    }

    fn json(&self) -> Value {
        let functions = self.functions.iter().map(|function| {
            json!({
                "name": function.name,
                "memory_mb": function.memory_mb,
                "timeout_s": function.timeout_s,
                "architecture": function.architecture,
            })
        });
        json!({
            "dry_run": true,
            "program": self.plan.program,
            "workers": self.plan.workers,
            "instances": self.packs,
            "functions": functions.collect::<Vec<_>>(),
            "switches": self.switches,
            "store": self.store,
            "seconds": { "launch": self.launch.as_secs_f64() },
            "cost": { "minute": self.minute(), "most": self.most(), "prices": self.prices.of },
        })
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Plan {
            program, workers, ..
        } = self.plan;
        let packs = self.packs;
        let mut facts = vec![
            (
                "job",
                format!("{program}: {workers} workers in {packs} function instances"),
            ),
            ("store", self.store.to_string()),
        ];
        let functions = self.functions.iter().map(|function| {
            let Deployed {
                name,
                memory_mb,
                architecture,
                timeout_s,
                ..
            } = function;
            format!("{name} ({memory_mb} MB, {architecture}, time-out {timeout_s} s)")
        });
        let functions: Vec<String> = functions.collect();
        match (&self.unknown, functions.is_empty()) {
            (Some(unknown), _) => facts.push(("functions", unknown.clone())),
            (None, false) => facts.push(("functions", functions.join(", "))),
            (None, true) => {
                facts.push(("functions", "processes of this machine".into()));
                facts.push(("cost", "nothing".into()));
                return facts;
            }
        }
        facts.push(("switches", self.switches.join(", ")));
        if self.launch > Duration::ZERO {
            let seconds = self.launch.as_secs_f64();
            facts.push((
                "all there in",
                format!("{seconds:.0} s, by Lambda's scaling rate"),
            ));
        }
        if let Some(minute) = self.minute() {
            let most = self.most().map(|most| {
                format!(", at most ${most:.4} until the functions' time-out (one try, without S3)")
            });
            let (most, of) = (most.unwrap_or_default(), &self.prices.of);
            facts.push((
                "cost",
                format!("about ${minute:.4} a minute{most}, at prices of {of}"),
            ));
        }
        facts
    }
}
