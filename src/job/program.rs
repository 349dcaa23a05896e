//! What every rank of a job runs: a name and a function over a [`Context`].

use crate::graph::GraphError;
use crate::job::bench;
use crate::job::context::Context;
use crate::job::pagerank;
use crate::job::vertex;
use crate::net::comm::CommError;
use crate::store::StoreError;
use thiserror::Error;

/// A program: called once on each rank, on a thread of its own. What it returns goes to the driver.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its name in events.
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

/// The programs of this build.
pub const PROGRAMS: [&[Program]; 2] = [&[pagerank::PROGRAM, bench::PROGRAM], &vertex::PROGRAMS];

/// Finds a program by its name.
pub fn find(name: &str) -> Option<Program> {
    let mut programs = PROGRAMS.iter().copied().flatten().copied();
    programs.find(|program| program.name == name)
}
