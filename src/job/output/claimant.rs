//! Who asks for an output, and what a claim says of it.

use super::process::Process;
use crate::net::token::JobId;
use serde::{Deserialize, Serialize};

/// The kinds of outputs, by the names of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A part for each worker or part of a graph.
    Parts,
    /// An object for each item of a map.
    Items,
}

/// What becomes of an earlier result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// The job is refused.
    Refuse,
    /// The earlier result is deleted before the first new file is written.
    Replace,
    /// The unfinished files of this job stay; a finished result is refused.
    Resume(JobId),
}

impl Earlier {
    /// What `--overwrite` says.
    pub fn of(overwrite: bool) -> Earlier {
        match overwrite {
            true => Earlier::Replace,
            false => Earlier::Refuse,
        }
    }
}

/// Who asks for an output.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The job.
    pub job: JobId,
    /// Its program, for people.
    pub program: &'static str,
    /// What it writes.
    pub kind: Kind,
    /// What becomes of an earlier result.
    pub earlier: Earlier,
}

/// The contents of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) lswitch: String,
    pub(super) job: String,
    pub(super) program: String,
    pub(super) process: Process,
}
