//! What jobs write as results: files in a folder or prefix, and last the manifest that names them.
//!
//! [`claim`] is the driver's side: one job at a time has the output, an earlier result is deleted before the first new file
//! is written, and the manifest is written when all files are there. [`part`] is the workers' side, [`manifest`] what `result.json`
//! holds, [`overlap`] whether a job would read what it writes. `docs/RESULTS.md` specifies an output.

pub mod claim;
mod claimant;
pub mod manifest;
mod occupancy;
pub mod overlap;
pub mod part;
mod process;

use crate::store::StoreError;
use std::fmt::Write;
use thiserror::Error;

pub use claim::Claim;
pub use claimant::{Claimant, Earlier, Kind};
pub use manifest::{ManifestError, RESULT_KEY, ResultFile, ResultManifest};
pub use part::{Completed, OutputFolder, OutputPart, Target};

/// Why an output cannot be had, or is not what the job's workers have written.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Another job writes there.
    #[error(
        "{url} is being written by job {job} ({program}, {process}); wait until it has ended, or give another --output"
    )]
    Busy {
        /// The output.
        url: String,
        /// The other job.
        job: String,
        /// Its program.
        program: String,
        /// Its driver.
        process: String,
    },
    /// An earlier result is there.
    #[error(
        "{url} holds {files} files of an earlier result; give --overwrite, or another --output"
    )]
    Occupied {
        /// The output.
        url: String,
        /// How many files.
        files: usize,
    },
    /// What a job left was replaced.
    #[error(
        "what job {job} left in {url} was replaced since; start the job again with another --output, or with --overwrite"
    )]
    TakenOver {
        /// The output.
        url: String,
        /// The job that is to be resumed.
        job: String,
    },
    /// Another job has the output now.
    #[error(
        "another job took over {url} while this one ran, so there is no result; run this job again with another --output"
    )]
    Superseded {
        /// The output.
        url: String,
    },
    /// A file is not the one that a worker wrote.
    #[error(
        "{url} {}, but this job wrote {expected} bytes there: it was changed while the job ran; run the job again",
        .found.map_or("is gone".into(), |found| format!("has {found} bytes"))
    )]
    Replaced {
        /// The file.
        url: String,
        /// Its length, if it is there.
        found: Option<u64>,
        /// The length that a worker reported.
        expected: u64,
    },
    /// The job would read what it writes.
    #[error(
        "--output {output} is also read: {input}; give another --output, for the result would replace or join its own input"
    )]
    OwnInput {
        /// The output.
        output: String,
        /// The input.
        input: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OutputError {
    /// True if the command line asks for what cannot be.
    pub fn is_usage(&self) -> bool {
        match self {
            OutputError::Busy { .. }
            | OutputError::Occupied { .. }
            | OutputError::TakenOver { .. }
            | OutputError::OwnInput { .. } => true,
            OutputError::Superseded { .. }
            | OutputError::Replaced { .. }
            | OutputError::Store(_) => false,
        }
    }
}

/// The name of the file that holds a part.
pub fn part_key(part: u32, extension: &str) -> String {
    format!("part-{part:05}.{extension}")
}

/// True for the names that [`part_key`] gives.
fn is_part_key(key: &str) -> bool {
    let number = key.strip_prefix("part-");
    let number = number.and_then(|rest| rest.split_once('.'));
    number.is_some_and(|(digits, extension)| {
        matches!(extension, "tsv" | "txt" | "dat")
            && digits.len() >= 5
            && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// The name of the file that holds an item's output.
pub fn item_key(number: u64) -> String {
    format!("{number:08}")
}

/// True for the names that [`item_key`] gives.
fn is_item_key(key: &str) -> bool {
    key.len() >= 8 && key.bytes().all(|digit| digit.is_ascii_digit())
}

/// The text of a part of a graph: a line `id<TAB>value` for each vertex, ids rising. `value` writes that of a vertex, by its place
/// among `ids`.
pub fn part_text(ids: &[u64], value: impl Fn(&mut String, usize)) -> String {
    let mut text = String::with_capacity(ids.len() * 32);
    for (vertex, id) in ids.iter().enumerate() {
        write!(text, "{id}\t").expect("a string takes whatever is written");
        value(&mut text, vertex);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_results_are_known_by_their_names() {
        assert!(is_part_key(&part_key(0, "tsv")) && is_part_key(&part_key(123_456, "dat")));
        assert!(is_item_key(&item_key(0)) && is_item_key(&item_key(1_234_567_890)));
        for key in [
            "part-list.tsv",
            "part-0.tsv",
            "part-00000",
            "part-00000.csv",
            "a/part-00000.tsv",
        ] {
            assert!(!is_part_key(key), "{key}");
        }
        for key in ["0000000", "00000000.txt", "0000000a", "a/00000000"] {
            assert!(!is_item_key(key), "{key}");
        }
    }
}
