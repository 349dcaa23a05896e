//! Where a job runs: its workers, its switch, its store.

use super::functions::Functions;
use super::progress::ProgressLine;
use crate::aws::AwsSettings;
use crate::cmd::record::own;
use crate::cmd::settings::{AwsArgs, asks_for_plaintext, find_secret, variable};
use crate::cmd::ui::Ui;
use crate::cmd::{Interrupted, UsageError, interrupted, raise_descriptor_limit};
use crate::job::driver::{
    self, JobError, JobEvent, JobOutcome, JobSpec, SWITCHES_MAX, SwitchAccess,
};
use crate::job::fleet::{self, Fleet, OwnSwitch, Place};
use crate::job::output::earlier_output;
use crate::job::pack::RANKS_PER_PACK_MAX;
use crate::lambda::cost::{Prices, Usage};
use crate::lambda::launch::{Share, Way};
use crate::lambda::local::{DEFAULT_FUNCTION, own_function};
use crate::net::address::{AddressError, SwitchAddress};
use crate::store::Store;
use anyhow::Context;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where a job runs; the same for every job.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cmd) struct FleetArgs {
    /// How many workers (ranks); as many as a graph has parts if not given
    #[arg(long, value_name = "N", visible_alias = "max-parallel")]
    workers: Option<u32>,

    /// Workers that share one function instance, as threads with one connection
    #[arg(long, value_name = "P", default_value_t = 1)]
    pub(in crate::cmd) workers_per_function: u32,

    /// Function on AWS to run the workers; without it they run on this machine, in a local Lambda. Several, as NAME,NAME, run them in
    /// turns and start faster than one; NAME=COUNT,NAME=COUNT says how many each
    #[arg(long, value_name = "NAME", env = "LSWITCH_FUNCTION")]
    function: Option<String>,

    /// Keep a call open to each worker on AWS, so that Lambda itself tells how it ended and what it printed last; without it calls
    /// only start workers
    #[arg(long)]
    keep_calls_open: bool,

    /// Prices by which a job on AWS says what it cost, as a TOML file; see docs/AWS.md
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,

    /// Function of the local Lambda to run the workers, instead of this binary: a file NAME.toml, or its name in
    /// $LSWITCH_HOME/functions. Several share a job as NAME=COUNT,NAME=COUNT
    #[arg(long, value_name = "NAME|FILE")]
    local_function: Option<String>,

    /// The switch, as workers reach it and "lswitch serve" prints it, or several by commas; without it one runs in this process.
    /// With the SHA-256 of its certificate the connection is TLS, and to just that switch
    #[arg(
        long,
        value_name = "HOST:PORT[#SHA256]",
        env = "LSWITCH_SWITCH",
        value_delimiter = ','
    )]
    switch: Vec<String>,

    /// Speak plain TCP with a switch off loopback, for which its address names no certificate [env: LSWITCH_PLAINTEXT]
    #[arg(long)]
    plaintext: bool,

    /// The job's own store, for what is neither input nor output
    #[arg(
        long,
        value_name = "STORE",
        default_value = "./.lswitch",
        env = "LSWITCH_STORE"
    )]
    pub(in crate::cmd) store: String,

    /// Give the job up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,

    #[command(flatten)]
    aws: AwsArgs,
}

impl FleetArgs {
    pub(in crate::cmd) fn aws_settings(&self) -> AwsSettings {
        self.aws.settings()
    }

    /// The functions that were named; an empty variable names none.
    pub(super) fn functions(&self) -> Result<Option<Functions>, UsageError> {
        let named = self.local_function.as_deref().or(self.function());
        Functions::parse(named.unwrap_or_default())
    }

    /// The same, with a call kept open to each worker.
    pub(in crate::cmd) fn with_open_calls(&self) -> FleetArgs {
        FleetArgs {
            keep_calls_open: true,
            ..self.clone()
        }
    }

    /// The functions on AWS that were named, without their counts.
    pub(in crate::cmd) fn far_functions(&self) -> Result<Option<Vec<String>>, UsageError> {
        if self.function().is_none() {
            return Ok(None);
        }
        let functions = self.functions()?;
        Ok(functions.map(|functions| {
            let shares = functions.shares().into_iter();
            shares.map(|share| share.function).collect()
        }))
    }

    /// How many workers were asked for, in either way.
    pub(in crate::cmd) fn workers(&self) -> Result<Option<u32>, UsageError> {
        let counted = self.functions()?.and_then(|functions| functions.workers());
        match (self.workers, counted) {
            (Some(asked), Some(counted)) if asked != counted => Err(UsageError(format!(
                "--workers says {asked}, and the functions have {counted} in all"
            ))),
            (asked, counted) => Ok(asked.or(counted)),
        }
    }

    /// Refuses numbers of workers that there cannot be.
    pub(in crate::cmd) fn check(&self) -> Result<(), UsageError> {
        if self.workers == Some(0) || self.workers_per_function == 0 {
            let what = "--workers and --workers-per-function are at least 1";
            return Err(UsageError(what.into()));
        }
        if self.workers_per_function > RANKS_PER_PACK_MAX {
            let what = format!("--workers-per-function goes up to {RANKS_PER_PACK_MAX}");
            return Err(UsageError(what));
        }
        Ok(())
    }

    /// How many workers an elastic job has: on this machine one for each processor, if nobody says.
    pub(in crate::cmd) fn elastic_workers(&self) -> Result<u32, UsageError> {
        if self.workers_per_function != 1 {
            let what = "--workers-per-function is for jobs whose workers speak with each other; here each is a function";
            return Err(UsageError(what.into()));
        }
        self.workers_or_processors()
    }

    /// How many workers a job has that can have any number: on this machine one for each processor, if nobody says.
    pub(in crate::cmd) fn workers_or_processors(&self) -> Result<u32, UsageError> {
        match (self.workers()?, self.function()) {
            (Some(workers), _) => Ok(workers),
            (None, None) => {
                Ok(std::thread::available_parallelism().map_or(1, |count| count.get() as u32))
            }
            (None, Some(_)) => Err(UsageError("say how many workers: --workers N".into())),
        }
    }

    /// True if workers run on other machines than this.
    pub(in crate::cmd) fn is_far(&self) -> bool {
        // An endpoint of the user's own may be this machine.
        let own_endpoint = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"]
            .iter()
            .any(|name| variable(name).is_some());
        self.function().is_some() && !own_endpoint
    }

    /// The function that was named; an empty variable names none.
    pub(in crate::cmd) fn function(&self) -> Option<&str> {
        // A variable may name one; what is asked for by a flag wins.
        if self.local_function.is_some() {
            return None;
        }
        self.function.as_deref().filter(|name| !name.is_empty())
    }

    /// Opens the store that `flag` gives, which the workers must be able to open too.
    pub(in crate::cmd) async fn open_store(
        &self,
        flag: &str,
        location: &str,
    ) -> anyhow::Result<Store> {
        let store = Store::open(location, &self.aws_settings()).await?;
        if flag == "--store" {
            own::stores_at(store.url());
        }
        if self.is_far() && !store.url().starts_with("s3://") {
            let what = format!(
                "{flag} is {}, which a function on AWS cannot see; give {flag} s3://bucket/prefix",
                store.url()
            );
            return Err(UsageError(what).into());
        }
        Ok(store)
    }

    /// Opens the store that `--output` gives; results that are there are not replaced without being asked for.
    pub(in crate::cmd) async fn open_output(
        &self,
        location: &str,
        overwrite: bool,
    ) -> anyhow::Result<Store> {
        let output = self.open_store("--output", location).await?;
        let earlier = earlier_output(&output).await?.len();
        if earlier > 0 && !overwrite {
            let what = format!(
                "{} holds {earlier} files of an earlier result; give --overwrite, or another --output",
                output.url()
            );
            return Err(UsageError(what).into());
        }
        Ok(output)
    }

    /// The switch that was named, or one in this process.
    pub(in crate::cmd) async fn switch(&self) -> anyhow::Result<(SwitchAccess, OwnSwitch)> {
        let addresses = self.switches()?;
        if !addresses.is_empty() {
            let what = "the switch's secret is not to be found: set LSWITCH_SECRET_FILE to the file that \"lswitch serve\" uses";
            let secret = find_secret()?.ok_or_else(|| UsageError(what.into()))?;
            return Ok((SwitchAccess { addresses, secret }, OwnSwitch::default()));
        }
        if self.function().is_some() {
            let what = "a function on AWS cannot reach a switch in this process; run \"lswitch serve\" where it can, and give --switch HOST:PORT#SHA256, the address that it prints";
            return Err(UsageError(what.into()).into());
        }
        Ok(fleet::start_switch().await?)
    }

    /// The switches that were named; an empty variable names none.
    fn switches(&self) -> Result<Vec<SwitchAddress>, UsageError> {
        let named = self.switch.iter().map(|address| address.trim());
        let addresses: Vec<SwitchAddress> = named
            .filter(|address| !address.is_empty())
            .map(str::parse)
            .collect::<Result<_, AddressError>>()
            .map_err(|error| UsageError(error.to_string()))?;
        if addresses.len() > SWITCHES_MAX {
            let what = format!(
                "--switch names {} switches; a job has at most {SWITCHES_MAX}",
                addresses.len()
            );
            return Err(UsageError(what));
        }
        for (index, address) in addresses.iter().enumerate() {
            let place = address.place();
            if addresses[..index]
                .iter()
                .any(|other| other.place() == place)
            {
                return Err(UsageError(format!("--switch names {place} twice")));
            }
            if address.is_exposed() && !self.plaintext && !asks_for_plaintext() {
                let what = format!(
                    "--switch {place} names no certificate, so that all bytes would go off this machine in the clear: give the address with # and \
                     the SHA-256 that \"lswitch serve\" prints, or --plaintext if the network is your own"
                );
                return Err(UsageError(what));
            }
        }
        Ok(addresses)
    }

    pub(in crate::cmd) async fn start(&self, packs: usize) -> anyhow::Result<Fleet> {
        let (switch, own_switch) = self.switch().await?;
        let functions = self.functions()?;
        let place = match self.function() {
            Some(_) => Place::Aws {
                settings: self.aws_settings(),
                shares: functions.map_or_else(Vec::new, |functions| functions.shares()),
                way: match self.keep_calls_open {
                    true => Way::Wait,
                    false => Way::Start,
                },
            },
            None => {
                let (shares, functions) = match functions {
                    Some(functions) => (
                        functions.shares(),
                        functions.load(&self.aws_settings()).await?,
                    ),
                    None => {
                        let own = own_function(&self.aws_settings()).await?;
                        (Share::all(DEFAULT_FUNCTION), vec![own])
                    }
                };
                Place::Local {
                    functions,
                    shares,
                    concurrency: packs,
                }
            }
        };
        let fleet = Fleet::start((switch, own_switch), place).await?;
        own::under_way();
        Ok(fleet)
    }

    /// Runs a job and ends whatever was started for it, however the job ends.
    pub(in crate::cmd) async fn drive(
        &self,
        ui: &Ui,
        spec: &JobSpec,
        measure: &str,
    ) -> anyhow::Result<JobOutcome> {
        self.drive_with(ui, spec, measure, &mut |_| {}).await
    }

    /// The same, for who wants to hear what happens.
    pub(in crate::cmd) async fn drive_with(
        &self,
        ui: &Ui,
        spec: &JobSpec,
        measure: &str,
        hear: &mut dyn FnMut(&JobEvent),
    ) -> anyhow::Result<JobOutcome> {
        let packs = spec.ranks.div_ceil(spec.ranks_per_pack.max(1));
        ui.say(format!(
            "{}: {} workers in {packs} function instances",
            spec.program, spec.ranks
        ));
        raise_descriptor_limit();
        let stop = interrupted();
        let fleet = self.start(packs as usize).await?;
        let mut line = ProgressLine::new(ui, spec.ranks, packs, measure);
        let outcome = driver::run(spec, &fleet.switch, &fleet.launcher, stop, &mut |event| {
            hear(&event);
            line.update(event)
        })
        .await;
        line.clear();
        fleet.stop().await;
        let outcome = outcome.map_err(failed)?;
        self.say_cost(ui, &outcome.usage, outcome.launch + outcome.run)?;
        Ok(outcome)
    }

    /// Says what a job on AWS has cost.
    pub(in crate::cmd) fn say_cost(
        &self,
        ui: &Ui,
        usage: &Usage,
        took: Duration,
    ) -> anyhow::Result<()> {
        if self.function().is_none() {
            return Ok(());
        }
        let prices = match &self.prices {
            None => Prices::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("--prices {}", path.display()))?;
                let wrong = |error| UsageError(format!("--prices {}: {error}", path.display()));
                toml::from_str(&text).map_err(wrong)?
            }
        };
        let cost = prices.cost(usage, took, self.switches()?.len());
        let silent = usage.calls.saturating_sub(usage.workers);
        let but = match silent {
            0 => String::new(),
            _ => format!(
                "; {silent} of {} calls brought no word of what was taken",
                usage.calls
            ),
        };
        ui.say(format!(
            "cost: about {cost} for {:.1} GB s, at prices of {}{but}",
            usage.gb_seconds(),
            prices.of
        ));
        Ok(())
    }

    pub(in crate::cmd) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }

    /// What is left of it for a job that goes on with one that began then.
    pub(super) fn timeout_since(&self, begun: Instant) -> Option<Duration> {
        self.timeout()
            .map(|timeout| timeout.saturating_sub(begun.elapsed()))
    }
}

/// A job's error, as the command's.
pub(in crate::cmd) fn failed(error: JobError) -> anyhow::Error {
    match error {
        JobError::Interrupted => Interrupted.into(),
        JobError::Usage(what) => UsageError(what).into(),
        other => other.into(),
    }
}
