//! The command line: arguments, printing, exit codes. One file a subcommand; how anything works is below.

mod attach;
mod bench;
mod cancel;
mod certificate;
mod check;
mod clean;
mod doctor;
mod function;
mod generate;
mod interrupts;
mod invoke;
mod jobs;
mod lambda;
mod local;
mod preprocess;
mod record;
mod result;
mod serve;
mod settings;
mod ui;

use clap::{Parser, Subcommand};
use interrupts::{hold, interrupted};
use std::process::ExitCode;

pub(crate) use interrupts::listen as listen_for_signals;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    done in part: items have failed
  129, 130, 131, 143
       interrupted by SIGHUP, SIGINT (Ctrl-C), SIGQUIT, SIGTERM";

const EXAMPLES: &str = "\
Examples:
  lswitch generate rmat --scale 12 --edge-factor 8 --seed 1 --out graph.txt
  lswitch preprocess graph.txt --parts 4 --out graph.parts
  lswitch invoke pagerank --graph graph.parts --workers 4

Run \"lswitch help COMMAND\" for what a command takes.";

/// The missing wire between serverless functions: a TCP switch, and the jobs that run on it.
#[derive(Debug, Parser)]
#[command(name = "lswitch", version, before_help = EXAMPLES, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say only what went wrong
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Preprocess(preprocess::Preprocess),
    Serve(serve::Serve),
    Invoke(invoke::Invoke),
    Jobs(jobs::Jobs),
    Attach(attach::Attach),
    Result(result::Result),
    Cancel(cancel::Cancel),
    Clean(clean::Clean),
    Lambda(lambda::Lambda),
    Generate(generate::Generate),
    Check(check::Check),
    Bench(bench::Bench),
    Local(local::Local),
    Function(function::Function),
    Doctor(doctor::Doctor),
}

/// How a command ended, for the shell. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    InPart = 3,
    /// A signal ended it: 128 and the signal's number.
    Interrupted = 130,
}

impl Exit {
    /// What an outcome is to the shell.
    fn of<T>(outcome: &anyhow::Result<T>) -> Exit {
        match outcome {
            Ok(_) => Exit::Done,
            Err(error) if ui::is_closed_pipe(error) => Exit::Done,
            Err(error) if error.is::<Planned>() => Exit::Done,
            Err(error) if error.is::<UsageError>() => Exit::Usage,
            Err(error) if error.is::<InPart>() => Exit::InPart,
            Err(error) if error.is::<Interrupted>() => Exit::Interrupted,
            Err(_) => Exit::Failed,
        }
    }

    /// Its number.
    fn code(self) -> u8 {
        match self {
            Exit::Interrupted => interrupts::exit_code(),
            other => other as u8,
        }
    }
}

/// Wrong usage that only shows after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Some of what was to be done has failed, which was told where it happened.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InPart(String);

/// The user stopped it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// What would be started was shown, and that was all that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("nothing was started")]
struct Planned;

/// Another process has ended so, and this one does as it did. It may have said why already.
#[derive(Debug, thiserror::Error)]
#[error("{}", .said.as_deref().unwrap_or_default())]
struct EndedSo {
    exit: u8,
    said: Option<String>,
}

/// The whole command line.
pub(crate) fn command() -> ExitCode {
    let cli = Cli::parse();
    let ui = ui::Ui::new(cli.quiet);
    finish(match cli.command {
        Command::Preprocess(command) => command.run(&ui),
        Command::Serve(command) => command.run(&ui),
        Command::Invoke(command) => command.run(&ui),
        Command::Jobs(command) => command.run(&ui),
        Command::Attach(command) => command.run(&ui),
        Command::Result(command) => command.run(&ui),
        Command::Cancel(command) => command.run(&ui),
        Command::Clean(command) => command.run(&ui),
        Command::Lambda(command) => command.run(),
        Command::Generate(command) => command.run(&ui),
        Command::Check(command) => command.run(&ui),
        Command::Bench(command) => command.run(&ui),
        Command::Local(command) => command.run(&ui),
        Command::Function(command) => command.run(&ui),
        Command::Doctor(command) => command.run(&ui),
    })
}

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    ExitCode::from(told(outcome))
}

/// How a command ended, after that was said.
fn told(outcome: anyhow::Result<()>) -> u8 {
    let exit = Exit::of(&outcome);
    let Some(error) = outcome.err().filter(|_| exit != Exit::Done) else {
        return exit.code();
    };
    let other = error.downcast_ref::<EndedSo>();
    if other.is_none_or(|other| other.said.is_some()) {
        ui::print_error(&error);
    }
    other.map_or(exit.code(), |other| other.exit)
}

/// Runs a command's asynchronous part.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let outcome = work.await;
        crate::store::abort_unfinished_writes().await;
        outcome
    });
    // Blocking work that was abandoned, say by Ctrl-C, must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    outcome
}

/// Open files that are asked for, if the system allows so many: above the most connections of a switch.
const DESCRIPTORS: u64 = 65_536;

/// Lifts the soft limit on open files: a switch, or a local Lambda, has a connection for each worker, and
/// common soft limits are 1,024. A system that refuses leaves things as they are.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Programs that are started inherit it, and some look at each descriptor they may have.
    let current = maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    let raised = Rlimit {
        current: Some(current),
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
