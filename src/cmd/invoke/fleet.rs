//! Where a job runs: its workers, its switch, its store.

use super::cost::CostArgs;
use super::functions::Functions;
use super::progress::ProgressLine;
use crate::aws::AwsSettings;
use crate::cmd::record::own;
use crate::cmd::settings::{AwsArgs, asks_for_plaintext, find_secret, variable};
use crate::cmd::ui::Ui;
use crate::cmd::{Interrupted, UsageError, hold, interrupted, raise_descriptor_limit};
use crate::job::driver::{
    self, JobError, JobEvent, JobOutcome, JobSpec, LOG_LINES, SWITCHES_MAX, SwitchAccess,
};
use crate::job::fleet::{self, Fleet, OwnSwitch, Place};
use crate::job::output::{Claim, Claimant, OutputError};
use crate::job::pack::RANKS_PER_PACK_MAX;
use crate::lambda::function::logs::Logs;
use crate::lambda::launch::{Share, Way};
use crate::lambda::local::{DEFAULT_FUNCTION, own_function};
use crate::net::address::{AddressError, SwitchAddress};
use crate::net::token::JobId;
use crate::store::Store;
use std::time::{Duration, Instant};

/// How long is waited for what a failed worker has printed: Lambda hands it on after some seconds.
const LOG_WITHIN: Duration = Duration::from_secs(10);

/// AWS's own name of the variable that leads to a stand-in for its logs.
const LOGS_ENDPOINT: &str = "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS";

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

    /// Who starts workers: this command alone, or those that it has started too, for which the function must be allowed to invoke itself
    #[arg(long, value_name = "WAY", value_enum, default_value_t)]
    launch: Launch,

    #[command(flatten)]
    pub(super) cost: CostArgs,

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

/// Who starts workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Launch {
    /// The driver
    #[default]
    Flat,
    /// The driver, and those that it has started
    Tree,
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

    /// Refuses what only a job of "lswitch invoke" can do.
    pub(in crate::cmd) fn check_alone(&self) -> anyhow::Result<()> {
        if self.launch == Launch::Tree || self.cost.is_dry_run() || self.cost.has_limit() {
            let what = "--launch, --max-cost and --dry-run are for \"lswitch invoke\"";
            return Err(UsageError(what.into()).into());
        }
        Ok(())
    }

    /// Refuses ways to launch that there cannot be, and prices that cannot be read.
    pub(in crate::cmd) fn check_launch(&self) -> anyhow::Result<()> {
        self.cost.prices()?;
        Ok(self.check_levels(self.levels())?)
    }

    /// Refuses workers that start others of another function.
    pub(super) fn check_levels(&self, levels: u32) -> Result<(), UsageError> {
        let several = self.functions()?.is_some_and(|named| named.are_several());
        if levels > 1 && several {
            let what =
                "--launch tree and --levels are for one function; here several share the job";
            return Err(UsageError(what.into()));
        }
        Ok(())
    }

    /// In how many levels workers are started.
    pub(in crate::cmd) fn levels(&self) -> u32 {
        match self.launch {
            Launch::Flat => 1,
            Launch::Tree => 2,
        }
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
        let settings = self.aws_settings();
        let store = match location.starts_with("s3://") {
            false => Store::open(location, &settings).await?,
            true => Store::open_counted(location, &settings.load().await?, self.cost.requests())?,
        };
        match flag {
            "--store" => own::stores_at(store.url()),
            "--output" => own::writes_to(store.url()),
            _ => {}
        }
        self.cost.opened(&store);
        if self.is_far() && !store.url().starts_with("s3://") {
            let what = format!(
                "{flag} is {}, which a function on AWS cannot see; give {flag} s3://bucket/prefix",
                store.url()
            );
            return Err(UsageError(what).into());
        }
        Ok(store)
    }

    /// Opens the store that `--output` gives, if `who` may write there; nothing is changed yet.
    pub(in crate::cmd) async fn open_output(
        &self,
        location: &str,
        who: &Claimant,
    ) -> anyhow::Result<Store> {
        let output = self.open_store("--output", location).await?;
        Claim::check(&output, who).await.map_err(refused)?;
        Ok(output)
    }

    /// Opens the job's own store, which must be there before work begins.
    pub(in crate::cmd) async fn open_own_store(&self, id: JobId) -> anyhow::Result<Store> {
        let store = self.open_store("--store", &self.store).await?;
        if store.bucket().is_some() {
            // Nothing has this prefix: only whether the bucket answers counts.
            store.list(&format!("probe-{id}")).await?;
        }
        Ok(store)
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
    pub(super) fn switches(&self) -> Result<Vec<SwitchAddress>, UsageError> {
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

    /// Starts what a job needs, for so many function instances at once.
    pub(in crate::cmd) async fn start(&self, packs: usize) -> anyhow::Result<Fleet> {
        self.check_launch()?;
        let budget = self.budget().await?;
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
        let mut fleet = Fleet::start((switch, own_switch), place).await?;
        if let Some(budget) = budget {
            fleet.launcher = fleet.launcher.with_budget(budget);
            fleet.launcher.check_budget().map_err(JobError::from)?;
        }
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
        self.drive_prepared(ui, spec, measure, async { Ok(()) }, hear)
            .await
    }

    /// The same for a job that writes into an output, whose earlier result is deleted before workers are started.
    pub(in crate::cmd) async fn drive_into(
        &self,
        ui: &Ui,
        spec: &JobSpec,
        measure: &str,
        output: Option<&Claim>,
    ) -> anyhow::Result<JobOutcome> {
        let prepare = async {
            match output {
                Some(claim) => claim.clear().await,
                None => Ok(()),
            }
        };
        self.drive_prepared(ui, spec, measure, prepare, &mut |_| {})
            .await
    }

    async fn drive_prepared(
        &self,
        ui: &Ui,
        spec: &JobSpec,
        measure: &str,
        prepare: impl Future<Output = Result<(), OutputError>>,
        hear: &mut dyn FnMut(&JobEvent),
    ) -> anyhow::Result<JobOutcome> {
        let packs = spec.ranks.div_ceil(spec.ranks_per_pack.max(1));
        ui.say(format!(
            "{}: {} workers in {packs} function instances",
            spec.program, spec.ranks
        ));
        raise_descriptor_limit();
        let stop = interrupted();
        // Until workers are gone, and what was made for them.
        let _hold = hold();
        let fleet = self.start(packs as usize).await?;
        let mut line = ProgressLine::new(ui, spec.ranks, packs, measure);
        let (switch, launcher) = (&fleet.switch, &fleet.launcher);
        let outcome = driver::run_prepared(spec, switch, launcher, prepare, stop, &mut |event| {
            hear(&event);
            line.update(event)
        })
        .await;
        line.clear();
        self.end(fleet).await;
        outcome.map_err(failed)
    }

    /// The error with what its worker has printed last, if its call has not told it.
    pub(super) async fn with_log(&self, ui: &Ui, error: anyhow::Error) -> anyhow::Error {
        let (lost, worker, reason, request) = match error.downcast() {
            Ok(JobError::Worker {
                lost,
                worker,
                reason,
                log,
                request: Some(request),
            }) if log.is_empty() => (lost, worker, reason, request),
            Ok(error) => return error.into(),
            Err(error) => return error,
        };
        let mut log = Vec::new();
        // Where Lambda is a stand-in, logs are nowhere, unless they have one too.
        if self.is_far() || variable(LOGS_ENDPOINT).is_some() {
            ui.say(format!("{worker} failed; its log is awaited"));
            let tail = async {
                let config = self.aws_settings().load().await?;
                let lines = Logs::new(&config)
                    .tail(&request, LOG_LINES, LOG_WITHIN)
                    .await;
                lines.map_err(anyhow::Error::from)
            };
            tokio::select! {
                found = tail => match found {
                    Ok(lines) => log = lines,
                    Err(error) => tracing::warn!("{error}"),
                },
                // A service that does not answer, and somebody who does not want to know.
                () = tokio::time::sleep(LOG_WITHIN * 2) => tracing::warn!("CloudWatch Logs does not answer"),
                () = interrupted() => {}
            }
        }
        let request = Some(request);
        let error = JobError::Worker {
            lost,
            worker,
            reason,
            log,
            request,
        };
        error.into()
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

/// An output's error, as the command's.
pub(in crate::cmd) fn refused(error: OutputError) -> anyhow::Error {
    match error.is_usage() {
        true => UsageError(error.to_string()).into(),
        false => error.into(),
    }
}

/// Ends the claim on an output, when the job's outcome is settled. With `forget` unset what was written can be resumed.
pub(in crate::cmd) async fn release(ui: &Ui, claim: Claim, forget: bool) {
    if let Some(error) = claim.release(forget).await {
        ui.say(format!(
            "warning: this job's claim on its output stays behind, and the next job there removes it: {error}"
        ));
    }
}

/// A job's error, as the command's.
pub(in crate::cmd) fn failed(error: JobError) -> anyhow::Error {
    match error {
        JobError::Interrupted => Interrupted.into(),
        JobError::Usage(what) => UsageError(what).into(),
        JobError::Output(error) => refused(error),
        other => other.into(),
    }
}
