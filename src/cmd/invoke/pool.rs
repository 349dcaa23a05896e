//! `lswitch invoke pool`: warm workers for a program that speaks over this one's standard input and output, such as the
//! Executor of the Python client. `docs/FARM.md` specifies what is spoken.

use super::fleet::{FleetArgs, failed};
use super::plan::Plan;
use super::run::read_event;
use crate::cmd::ui::Ui;
use crate::cmd::{UsageError, hold, interrupted, raise_descriptor_limit};
use crate::job::farm::driver::{self, FarmEvent, FarmSpec, Further};
use crate::job::farm::schedule::Policy;
use crate::job::farm::stdio::{Said, read_calls};
use crate::net::token::JobId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Calls that wait for the driver.
const AHEAD: usize = 4096;

/// Bytes of answers that are written at once.
const WRITE_LEN: usize = 64 << 10;

/// Keep workers warm, and hand them the calls that come over standard input
#[derive(Debug, clap::Args)]
#[command(before_help = "\
This is what the Executor of the Python client starts; see python/README.md. What goes over standard input and output is
in docs/FARM.md: calls in, answers out, until standard input ends.

  lswitch invoke pool --local-function worker.toml --workers 4")]
pub struct PoolArgs {
    /// The program that the workers run, or a name for a function of your own
    #[arg(default_value = "pool")]
    program: String,

    /// A file with JSON that the program gets as its arguments
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,

    /// How often a call is tried again after it has lost its worker, or has failed in a way that may pass
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    retries: u32,

    /// Let workers go that had nothing to do for so many seconds; idle seconds cost money on AWS
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    idle_timeout: f64,

    /// Run copies of the slowest calls on idle workers
    #[arg(long)]
    backups: bool,

    /// Let workers take Python's pickles, which run code
    #[arg(long)]
    allow_pickle: bool,

    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

impl PoolArgs {
    /// Runs until standard input ends and all is answered.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let workers = self.fleet.elastic_workers()?;
        let idle = Duration::try_from_secs_f64(self.idle_timeout)
            .map_err(|_| UsageError("--idle-timeout is a number of seconds, at least 0".into()))?;
        // One thread: each hand-over between threads would cost more than a call does.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(async {
            raise_descriptor_limit();
            let store = self.fleet.open_store("--store", &self.fleet.store).await?;
            let plan = Plan {
                program: &self.program,
                workers,
                is_fixed: false,
                json: false,
            };
            self.fleet.plan(&plan).await?;
            let _hold = hold();
            let stop = stopped()?;
            let fleet = self.fleet.start(workers as usize + 2).await?;
            let spec = FarmSpec {
                id,
                program: self.program.clone(),
                arguments: match &self.event {
                    Some(path) => read_event(path)?,
                    None => serde_json::Value::Null,
                },
                workers,
                levels: self.fleet.levels(),
                store: store.url().into(),
                policy: Policy {
                    retries: self.retries,
                    backups: self.backups,
                },
                timeout: self.fleet.timeout(),
                lazy: true,
                idle: Some(idle),
                more: [("allow_pickle".to_string(), self.allow_pickle.into())]
                    .into_iter()
                    .collect(),
            };
            let (sender, tasks) = mpsc::channel(AHEAD);
            let stdin = io::stdin().as_fd().try_clone_to_owned()?;
            let stdin = pipe::Receiver::from_owned_fd(stdin).map_err(|error| {
                UsageError(format!(
                    "standard input is no pipe ({error}); this command is for programs"
                ))
            })?;
            let reading = tokio::spawn(read_calls(stdin, sender));
            let mut answers = Answers::default();
            let ran = driver::run(
                &spec,
                &fleet.switch,
                &fleet.launcher,
                stop,
                tasks,
                &mut |event| answers.hear(event),
            )
            .await;
            answers.write();
            self.fleet.end(fleet).await;
            let misread = match reading.is_finished() {
                true => reading.await.expect("reading does not panic").err(),
                false => None,
            };
            if let Some(error) = answers.broken {
                return Err(error.into());
            }
            match (ran, misread) {
                (Err(error), _) => Err(failed(error)),
                (Ok(_), Some(what)) => Err(UsageError(what).into()),
                (Ok(outcome), None) => {
                    ui.say(format!(
                        "{} messages through the switch, {} workers lost",
                        outcome.traffic.0, outcome.lost
                    ));
                    Ok(())
                }
            }
        });
        runtime.shutdown_timeout(Duration::from_millis(500));
        outcome
    }
}

/// Completes when a signal comes, or when nobody can read the answers any more: the program that started this one is gone.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let interrupted = interrupted();
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let (tell, told) = oneshot::channel();
    // It waits as long as the process lives. What is no pipe has no reader that could go.
    let waiting = std::thread::Builder::new().name("reader".into());
    waiting.spawn(move || {
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        while poll(&mut polled, None) == Err(Errno::INTR) {}
        let _ended = tell.send(());
    })?;
    Ok(async move {
        tokio::select! {
            () = interrupted => {}
            Ok(()) = told => {}
        }
    })
}

/// What is told to the program that started this one.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    broken: Option<io::Error>,
}

impl Answers {
    fn hear(&mut self, event: FarmEvent) -> Further {
        match event {
            FarmEvent::Settled(outcome) => Said::Settled(outcome).put(&mut self.bytes),
            FarmEvent::Workers(count) => Said::Workers(count).put(&mut self.bytes),
            FarmEvent::Lost(why) => Said::Lost(why).put(&mut self.bytes),
            FarmEvent::Created { job } => Said::Created(job).put(&mut self.bytes),
            FarmEvent::Traffic(_) => {}
            FarmEvent::Waiting => self.write(),
        }
        if self.bytes.len() >= WRITE_LEN {
            self.write();
        }
        match self.broken {
            None => Further::On,
            Some(_) => Further::Enough,
        }
    }

    fn write(&mut self) {
        if self.bytes.is_empty() || self.broken.is_some() {
            return;
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.bytes).and_then(|()| out.flush());
        self.broken = written.err();
        self.bytes.clear();
    }
}
