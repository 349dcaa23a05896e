//! What every rank of a job runs: a name and a function over a [`Context`].

use crate::graph::GraphError;
use crate::job::bench;
use crate::job::context::Context;
use crate::job::function;
use crate::job::map;
use crate::job::pagerank;
use crate::job::probe;
use crate::job::reduce;
use crate::job::sort;
use crate::job::vertex;
use crate::job::wordcount;
use crate::net::comm::{CommError, StateError};
use crate::store::StoreError;
use std::fmt::Display;
use std::sync::OnceLock;
use thiserror::Error;

/// A program: called once on each rank, on a thread of its own. What it returns goes to the driver; `lswitch invoke run` shows
/// it as JSON if it is, and else as text. At most 256 MiB ([`RESULT_MAX`](crate::job::report::RESULT_MAX)); what is longer fails the job,
/// and belongs into the store.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its name in events and for `lswitch invoke run`.
    pub name: &'static str,
    /// What a rank does.
    pub run: fn(&mut Context) -> Result<Vec<u8>, ProgramError>,
}

/// Why a rank's program failed.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The wire.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// The job's shared counters, queues and vectors.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Anything else that the program finds wrong.
    #[error("{0}")]
    Other(String),
}

impl ProgramError {
    /// Whatever a program finds wrong, in words.
    pub fn new(what: impl Display) -> ProgramError {
        ProgramError::Other(what.to_string())
    }
}

impl From<serde_json::Error> for ProgramError {
    fn from(error: serde_json::Error) -> ProgramError {
        ProgramError::new(error)
    }
}

/// The programs of this build.
pub const PROGRAMS: [&[Program]; 2] = [
    &[
        pagerank::PROGRAM,
        map::PROGRAM,
        reduce::PROGRAM,
        sort::PROGRAM,
        wordcount::PROGRAM,
        bench::PROGRAM,
        probe::PROGRAM,
        function::PROGRAM,
    ],
    &vertex::PROGRAMS,
];

/// What the user's own crate has registered.
static OWN: OnceLock<&'static [Program]> = OnceLock::new();

/// Adds the programs of a user's own crate to those of this build; once in a process, before anything is run.
///
/// # Errors
/// When a name is empty or given twice, or something was registered before.
pub fn register(programs: &'static [Program]) -> Result<(), String> {
    for (index, program) in programs.iter().enumerate() {
        let name = program.name;
        if name.is_empty() {
            return Err("a program that is registered has no name".into());
        }
        let others = PROGRAMS.iter().copied().flatten();
        let mut others = others.chain(&programs[..index]);
        if others.any(|other| other.name == name) {
            return Err(format!("there are two programs that are called {name}"));
        }
    }
    OWN.set(programs)
        .map_err(|_| "programs were registered before".into())
}

/// The programs of the user's own crate.
pub fn own() -> &'static [Program] {
    OWN.get().copied().unwrap_or_default()
}

/// All programs.
pub fn all() -> impl Iterator<Item = Program> {
    own()
        .iter()
        .chain(PROGRAMS.iter().copied().flatten())
        .copied()
}

/// Finds a program by its name.
pub fn find(name: &str) -> Option<Program> {
    all().find(|program| program.name == name)
}
