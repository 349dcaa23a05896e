//! `lswitch invoke`: starts a job's workers, shows how far it is, prints the result.

mod functions;
mod graph;
mod map;
mod pagerank;
mod pool;
mod run;
mod sort;
mod vertex;
mod wordcount;

use crate::aws::AwsSettings;
use crate::cmd::local::{DEFAULT_FUNCTION, own_function};
use crate::cmd::settings::{AwsArgs, find_secret, variable};
use crate::cmd::ui::{self, Ui};
use crate::cmd::{Interrupted, UsageError, interrupted, raise_descriptor_limit};
use crate::job::driver::{
    self, JobError, JobEvent, JobOutcome, JobSpec, SWITCHES_MAX, SwitchAccess,
};
use crate::job::map::item::{Item, Items};
use crate::job::output::earlier_output;
use crate::job::pack::RANKS_PER_PACK_MAX;
use crate::job::sort::share::Sized;
use crate::lambda::launch::{Launcher, Share};
use crate::lambda::local::{LocalLambda, LocalOptions};
use crate::net::server;
use crate::net::token::Secret;
use crate::store::Store;
use anyhow::Context;
use clap::Subcommand;
use functions::Functions;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Start a job, watch it, collect its result
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke pagerank --graph graph.parts --workers 4
  lswitch invoke bfs --graph graph.parts --source 0 --output hops
  lswitch invoke wordcount --input 'texts/*.txt'
  lswitch invoke sort --input lines.txt --output sorted
  lswitch invoke map --exec wc --items 'texts/*.txt'
  lswitch help invoke pagerank")]
pub struct Invoke {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    Pagerank(pagerank::PagerankArgs),
    Bfs(vertex::BfsArgs),
    Wcc(vertex::WccArgs),
    Sssp(vertex::SsspArgs),
    Cdlp(vertex::CdlpArgs),
    Lcc(vertex::LccArgs),
    Run(run::RunArgs),
    Map(map::MapArgs),
    Sort(sort::SortArgs),
    Wordcount(wordcount::WordcountArgs),
    Pool(pool::PoolArgs),
}

impl Invoke {
    /// Runs the job.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        match &self.job {
            Job::Pagerank(job) => job.run(ui),
            Job::Bfs(job) => job.job().run(ui),
            Job::Wcc(job) => job.job().run(ui),
            Job::Sssp(job) => job.job().run(ui),
            Job::Cdlp(job) => job.job().run(ui),
            Job::Lcc(job) => job.job().run(ui),
            Job::Run(job) => job.run(ui),
            Job::Map(job) => job.run(ui),
            Job::Sort(job) => job.run(ui),
            Job::Wordcount(job) => job.run(ui),
            Job::Pool(job) => job.run(ui),
        }
    }
}

/// Where a job runs; the same for every job.
#[derive(Debug, clap::Args)]
pub(super) struct FleetArgs {
    /// How many workers (ranks); as many as a graph has parts if not given
    #[arg(long, value_name = "N")]
    workers: Option<u32>,

    /// Workers that share one function instance, as threads with one connection
    #[arg(long, value_name = "P", default_value_t = 1)]
    pub(super) workers_per_function: u32,

    /// Function on AWS to run the workers; without it they run on this machine, in a local Lambda.
    /// Several share a job as NAME=COUNT,NAME=COUNT
    #[arg(long, value_name = "NAME", env = "LSWITCH_FUNCTION")]
    function: Option<String>,

    /// Function of the local Lambda to run the workers, instead of this binary: a file NAME.toml, or its name in
    /// $LSWITCH_HOME/functions. Several share a job as NAME=COUNT,NAME=COUNT
    #[arg(long, value_name = "NAME|FILE")]
    local_function: Option<String>,

    /// The switch, as workers reach it, or several by commas; without it one runs in this process
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "LSWITCH_SWITCH",
        value_delimiter = ','
    )]
    switch: Vec<String>,

    /// The job's own store, for what is neither input nor output
    #[arg(
        long,
        value_name = "STORE",
        default_value = "./.lswitch",
        env = "LSWITCH_STORE"
    )]
    pub(super) store: String,

    /// Give the job up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,

    #[command(flatten)]
    aws: AwsArgs,
}

/// What is started for one job and ended with it.
struct Fleet {
    launcher: Launcher,
    switch: SwitchAccess,
    local: Option<LocalLambda>,
    own_switch: OwnSwitch,
}

/// A switch in this process, if there is one.
pub(super) struct OwnSwitch(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl OwnSwitch {
    /// Ends it.
    pub(super) async fn stop(self) {
        if let Some((stop, serving)) = self.0 {
            let _ = stop.send(());
            let _ = serving.await;
        }
    }
}

impl FleetArgs {
    fn aws_settings(&self) -> AwsSettings {
        self.aws.settings()
    }

    /// The functions that were named; an empty variable names none.
    fn functions(&self) -> Result<Option<Functions>, UsageError> {
        let named = self.local_function.as_deref().or(self.function());
        Functions::parse(named.unwrap_or_default())
    }

    /// How many workers were asked for, in either way.
    pub(super) fn workers(&self) -> Result<Option<u32>, UsageError> {
        let counted = self.functions()?.and_then(|functions| functions.workers());
        match (self.workers, counted) {
            (Some(asked), Some(counted)) if asked != counted => Err(UsageError(format!(
                "--workers says {asked}, and the functions have {counted} in all"
            ))),
            (asked, counted) => Ok(asked.or(counted)),
        }
    }

    /// Refuses numbers of workers that there cannot be.
    pub(super) fn check(&self) -> Result<(), UsageError> {
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
    fn elastic_workers(&self) -> Result<u32, UsageError> {
        if self.workers_per_function != 1 {
            let what = "--workers-per-function is for jobs whose workers speak with each other; here each is a function";
            return Err(UsageError(what.into()));
        }
        self.workers_or_processors()
    }

    /// How many workers a job has that can have any number: on this machine one for each processor, if nobody says.
    fn workers_or_processors(&self) -> Result<u32, UsageError> {
        match (self.workers()?, self.function()) {
            (Some(workers), _) => Ok(workers),
            (None, None) => {
                Ok(std::thread::available_parallelism().map_or(1, |count| count.get() as u32))
            }
            (None, Some(_)) => Err(UsageError("say how many workers: --workers N".into())),
        }
    }

    /// An equal share of half of the memory that is free here, or of half of what Lambda gives at most, in bytes.
    fn memory_share(&self, ranks: u32) -> u64 {
        let free = match self.is_far() {
            true => None,
            false => free_memory(),
        };
        match free {
            Some(free) => free / 2 / u64::from(ranks.max(1)),
            None => FAR_MEMORY / u64::from(self.workers_per_function.max(1)),
        }
    }

    /// The files or objects that are named, cut into pieces of about so many bytes that end with a line.
    async fn find_pieces(&self, what: &str, length: u64) -> anyhow::Result<Vec<Item>> {
        let pattern = match std::path::Path::new(what).is_dir() {
            true => format!("{}/*", what.trim_end_matches('/')),
            false => what.to_string(),
        };
        let found = Items::find(&pattern, Some(length), &self.aws_settings())
            .await
            .map_err(|error| UsageError(error.to_string().replace("--items", "--input")))?;
        if found.are_files() && self.is_far() {
            let what = format!(
                "--input {what} are files of this machine, which a function on AWS cannot see; put them into S3"
            );
            return Err(UsageError(what).into());
        }
        match found {
            Items::Named(items) => Ok(items),
            _ => Err(UsageError(format!("--input {what} names no files or objects")).into()),
        }
    }

    /// The files or objects that are named, whole, with their lengths.
    async fn find_inputs(&self, what: &str) -> anyhow::Result<Vec<Sized>> {
        let items = self.find_pieces(what, u64::MAX).await?;
        let mut inputs = Vec::new();
        for item in items {
            let length = match &item {
                Item::Object { length, .. } => *length,
                Item::File { path, .. } => std::fs::metadata(path)
                    .with_context(|| format!("cannot read {path}"))?
                    .len(),
                Item::Text(_) => 0,
            };
            inputs.push(Sized { item, length });
        }
        Ok(inputs)
    }

    /// True if workers run on other machines than this.
    fn is_far(&self) -> bool {
        // An endpoint of the user's own may be this machine.
        let own_endpoint = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA"]
            .iter()
            .any(|name| variable(name).is_some());
        self.function().is_some() && !own_endpoint
    }

    /// The function that was named; an empty variable names none.
    pub(super) fn function(&self) -> Option<&str> {
        // A variable may name one; what is asked for by a flag wins.
        if self.local_function.is_some() {
            return None;
        }
        self.function.as_deref().filter(|name| !name.is_empty())
    }

    /// Opens the store that `flag` gives, which the workers must be able to open too.
    pub(super) async fn open_store(&self, flag: &str, location: &str) -> anyhow::Result<Store> {
        let store = Store::open(location, &self.aws_settings()).await?;
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
    async fn open_output(&self, location: &str, overwrite: bool) -> anyhow::Result<Store> {
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
    pub(super) async fn switch(&self) -> anyhow::Result<(SwitchAccess, OwnSwitch)> {
        let addresses = self.switches()?;
        if !addresses.is_empty() {
            let what = "the switch's secret is not to be found: set LSWITCH_SECRET_FILE to the file that \"lswitch serve\" uses";
            let secret = find_secret()?.ok_or_else(|| UsageError(what.into()))?;
            return Ok((SwitchAccess { addresses, secret }, OwnSwitch(None)));
        }
        if self.function().is_some() {
            let what = "a function on AWS cannot reach a switch in this process; run \"lswitch serve\" where it can, and give --switch HOST:PORT";
            return Err(UsageError(what.into()).into());
        }
        start_switch().await
    }

    /// The switches that were named; an empty variable names none.
    fn switches(&self) -> Result<Vec<String>, UsageError> {
        let named = self.switch.iter().map(|address| address.trim().to_string());
        let addresses: Vec<String> = named.filter(|address| !address.is_empty()).collect();
        if addresses.len() > SWITCHES_MAX {
            let what = format!(
                "--switch names {} switches; a job has at most {SWITCHES_MAX}",
                addresses.len()
            );
            return Err(UsageError(what));
        }
        for (index, address) in addresses.iter().enumerate() {
            if addresses[..index].contains(address) {
                return Err(UsageError(format!("--switch names {address} twice")));
            }
        }
        Ok(addresses)
    }

    async fn start(&self, packs: usize) -> anyhow::Result<Fleet> {
        let (switch, own_switch) = self.switch().await?;
        let functions = self.functions()?;
        let (launcher, local) = match self.function() {
            Some(_) => {
                let shares = functions.map(|functions| functions.shares());
                let config = self.aws_settings().load().await;
                (Launcher::on_aws(&config, shares.unwrap_or_default()), None)
            }
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
                let listen = "127.0.0.1:0".parse().expect("this is an address");
                let options = LocalOptions {
                    listen,
                    functions,
                    concurrency: packs,
                    log_sink: None,
                };
                let local = LocalLambda::start(options)
                    .await
                    .context("cannot start the local Lambda")?;
                (Launcher::local(&local.endpoint(), shares), Some(local))
            }
        };
        Ok(Fleet {
            launcher,
            switch,
            local,
            own_switch,
        })
    }

    /// Runs a job and ends whatever was started for it, however the job ends.
    async fn drive(&self, ui: &Ui, spec: &JobSpec, measure: &str) -> anyhow::Result<JobOutcome> {
        self.drive_with(ui, spec, measure, &mut |_| {}).await
    }

    /// The same, for who wants to hear what happens.
    pub(super) async fn drive_with(
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
        outcome.map_err(failed)
    }

    /// Runs a job, and again when a worker of it is lost, so many times at most. Its inputs must still be there, and its outputs may be
    /// written twice.
    async fn drive_again(
        &self,
        ui: &Ui,
        spec: &JobSpec,
        measure: &str,
        retries: u32,
    ) -> anyhow::Result<JobOutcome> {
        let mut tries = 0;
        loop {
            let error = match self.drive(ui, spec, measure).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let lost = matches!(
                error.downcast_ref(),
                Some(JobError::Worker { lost: true, .. })
            );
            if !lost || tries == retries {
                return Err(error);
            }
            tries += 1;
            let words = error.to_string();
            let words = words.lines().next().unwrap_or_default();
            ui.say(format!("{words}; the job is started again"));
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_secs)
    }
}

/// Of a function on AWS whose memory nobody has told, each rank may take so many bytes.
const FAR_MEMORY: u64 = 512 << 20;

/// Bytes of memory that nobody uses, as Linux tells it.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes << 10)
}

/// A job's error, as the command's.
fn failed(error: JobError) -> anyhow::Error {
    match error {
        JobError::Interrupted => Interrupted.into(),
        JobError::Usage(what) => UsageError(what).into(),
        other => other.into(),
    }
}

async fn start_switch() -> anyhow::Result<(SwitchAccess, OwnSwitch)> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen on loopback for the switch")?;
    let access = SwitchAccess {
        addresses: vec![listener.local_addr()?.to_string()],
        secret: Secret::random(),
    };
    let (stop, stopped) = oneshot::channel();
    let secret = access.secret.clone();
    let serving = tokio::spawn(server::run(
        listener,
        secret,
        server::Limits::default(),
        async {
            let _ = stopped.await;
        },
    ));
    Ok((access, OwnSwitch(Some((stop, serving)))))
}

impl Fleet {
    async fn stop(self) {
        self.own_switch.stop().await;
        if let Some(local) = self.local {
            local.stop().await;
        }
    }
}

/// The live line: started, joined, superstep, measure, bytes.
struct ProgressLine {
    bar: indicatif::ProgressBar,
    ranks: u32,
    packs: u32,
    measure: String,
    joined: u32,
    begun: bool,
    step: Option<(u64, f64)>,
    bytes: u64,
    left: u32,
}

impl ProgressLine {
    fn new(ui: &Ui, ranks: u32, packs: u32, measure: &str) -> ProgressLine {
        let bar = ui.spinner("starting");
        ProgressLine {
            bar,
            ranks,
            packs,
            measure: measure.into(),
            joined: 0,
            begun: false,
            step: None,
            bytes: 0,
            left: 0,
        }
    }

    fn update(&mut self, event: JobEvent) {
        match event {
            JobEvent::Created { .. } => {}
            JobEvent::Joined(ranks) => self.joined = ranks,
            JobEvent::Begun => self.begun = true,
            JobEvent::Progress { step, measure } => self.step = Some((step, measure)),
            JobEvent::Traffic(traffic) => self.bytes = traffic.bytes,
            JobEvent::Left(packs) => self.left = packs,
        }
        let started = if self.joined > 0 {
            "started"
        } else {
            "starting"
        };
        let mut line = format!(
            "{started} {}  joined {}/{}",
            self.packs, self.joined, self.ranks
        );
        if let Some((step, measure)) = self.step {
            line += &format!("  superstep {step}  {} {measure:.3e}", self.measure);
        } else if self.begun {
            line += "  loading";
        }
        line += &format!("  moved {}", ui::bytes(self.bytes));
        if self.left > 0 {
            line += &format!("  done {}/{}", self.left, self.packs);
        }
        self.bar.set_message(line);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
