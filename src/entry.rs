//! Where a process begins: as a worker if Lambda started it, else as the command line.
//!
//! Without the feature `cli` a process is a worker or nothing: that is what a function's `bootstrap` needs, and all that it has.

use crate::job::function::{self as functions, AnyFunction};
use crate::job::program::{self, Program};
use crate::job::worker::{self, WorkError};
use crate::lambda::runtime;
use crate::process;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Exit code of what failed.
const FAILED: u8 = 1;

/// Exit code of wrong usage.
const USAGE: u8 = 2;

/// Why a process does nothing.
#[derive(Debug, Error)]
enum EntryError {
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The names that this program registers are no good.
    #[error("{0}")]
    Names(String),
    /// It has no command line.
    #[cfg(not(feature = "cli"))]
    #[error(
        "this is a worker alone, built for a function's bootstrap; the commands are in an lswitch that is built with the feature cli"
    )]
    NoCommands,
}

impl EntryError {
    fn told(&self) -> u8 {
        let _ = writeln!(io::stderr(), "lswitch: {self}");
        match self {
            EntryError::Work(error) if !error.is_usage() => FAILED,
            _ => USAGE,
        }
    }
}

/// The whole program, with more programs for `lswitch invoke run`.
pub fn main(programs: &'static [Program]) -> ExitCode {
    Lswitch::new().programs(programs).main()
}

/// Makes this program one whose workers run `functions` for a [`crate::Pool`]: the first call in `main`. Returns at once, except
/// in a process that was started as a worker: there it serves, and the process ends with it. For a program with other
/// [`Program`]s too, see [`Lswitch`].
///
/// # Panics
/// When a name is empty or given twice, or it is called twice.
pub fn init(functions: &[&'static dyn AnyFunction]) {
    Lswitch::new().functions(functions).init();
}

/// What a crate adds to an lswitch of its own: programs for `lswitch invoke run`, and functions for a [`crate::Pool`].
///
/// ```no_run
/// use lswitch::{Context, Function, Lswitch, Program, ProgramError};
///
/// fn hello(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
///     Ok(format!("hello from {}", context.rank()).into_bytes())
/// }
///
/// fn square(number: u64) -> Result<u64, String> {
///     Ok(number * number)
/// }
///
/// const SQUARE: Function<u64, u64> = Function::new("square", square);
///
/// fn main() -> std::process::ExitCode {
///     let programs = &[Program { name: "hello", run: hello }];
///     Lswitch::new().programs(programs).functions(&[&SQUARE]).main()
/// }
/// ```
#[derive(Default)]
#[must_use = "it does nothing before main or init"]
pub struct Lswitch {
    programs: &'static [Program],
    functions: Vec<&'static dyn AnyFunction>,
}

impl Lswitch {
    /// An lswitch as it is.
    pub fn new() -> Lswitch {
        Lswitch::default()
    }

    /// With these programs.
    pub fn programs(mut self, programs: &'static [Program]) -> Lswitch {
        self.programs = programs;
        self
    }

    /// With these functions, and those before.
    pub fn functions(mut self, functions: &[&'static dyn AnyFunction]) -> Lswitch {
        self.functions.extend_from_slice(functions);
        self
    }

    /// The whole program: command, switch and worker.
    pub fn main(self) -> ExitCode {
        process::take_role();
        listen_for_signals();
        start_logging();
        let worked = self.register().map_err(EntryError::Names).and_then(|()| {
            if is_worker() {
                return Ok(worker::work().map(|()| ExitCode::SUCCESS)?);
            }
            command()
        });
        worked.unwrap_or_else(|error| error.told().into())
    }

    /// The worker alone, for a program with a `main` of its own, which goes on behind this call: see [`init`].
    ///
    /// # Panics
    /// When a name is empty or given twice, or programs and functions were registered before.
    pub fn init(self) {
        process::take_role();
        if let Err(problem) = self.register() {
            panic!("{problem}");
        }
        if is_worker() {
            start_logging();
            let exit = worker::work().map_or_else(|error| EntryError::from(error).told(), |()| 0);
            std::process::exit(exit.into());
        }
    }

    fn register(&self) -> Result<(), String> {
        program::register(self.programs)?;
        functions::register(&self.functions)
    }
}

/// Before anything else: what a signal would leave behind is not there yet.
fn listen_for_signals() {
    #[cfg(feature = "cli")]
    {
        // A worker's signals are Lambda's business.
        if !is_worker() {
            crate::cmd::listen_for_signals();
        }
    }
}

/// True if Lambda, on AWS or locally, started this process to work.
fn is_worker() -> bool {
    runtime::is_lambda() && std::env::args_os().len() <= 1
}

#[cfg(feature = "cli")]
fn command() -> Result<ExitCode, EntryError> {
    Ok(crate::cmd::command())
}

#[cfg(not(feature = "cli"))]
fn command() -> Result<ExitCode, EntryError> {
    Err(EntryError::NoCommands)
}

/// Sends what the library logs to stderr: warnings, or what `LSWITCH_LOG` asks for.
fn start_logging() {
    let worker = runtime::is_lambda();
    let default = Targets::new().with_target(
        "lswitch",
        if worker {
            LevelFilter::INFO
        } else {
            LevelFilter::WARN
        },
    );
    let asked = std::env::var("LSWITCH_LOG").unwrap_or_default();
    let filter = match asked.parse() {
        _ if asked.trim().is_empty() => default,
        Ok(filter) => filter,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "lswitch: LSWITCH_LOG is {asked:?}, which is no filter: {error}; such as lswitch=debug"
            );
            default
        }
    };
    let colour = !worker && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
}
