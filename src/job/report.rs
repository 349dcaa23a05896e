//! What ranks tell the driver.

use crate::lambda::cost::WorkerUsage;
use crate::net::codec::{self, REPORT_MAX};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The tag of reports to the driver.
pub const TAG: u32 = 0;

/// One report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// How far the job is; rank 0 says so, a few times a second at most.
    Progress {
        /// The superstep that was completed.
        step: u64,
        /// The program's measure of it, for PageRank the L1 change.
        measure: f64,
    },
    /// What the rank's program returned.
    Result(Vec<u8>),
    /// What the pack has taken; the last of its ranks says so, before its result.
    Usage(WorkerUsage),
}

impl Report {
    /// The report's bytes, or why it cannot be sent.
    ///
    /// # Errors
    /// When it is over [`REPORT_MAX`] bytes.
    pub fn to_bytes(&self) -> Result<Bytes, String> {
        codec::encode::<REPORT_MAX>(self)
            .map(Bytes::from)
            .map_err(|error| {
                format!(
                    "a rank's result cannot be reported: {error}; write large results to the store"
                )
            })
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Report, String> {
        codec::decode::<Report, REPORT_MAX>(bytes)
            .map_err(|error| format!("a rank's report does not decode: {error}"))
    }
}

/// What each rank's program returned, read; at least one.
///
/// # Errors
/// When there is none, or one does not decode.
pub fn decode_results<T: DeserializeOwned>(results: &[Vec<u8>]) -> Result<Vec<T>, String> {
    if results.is_empty() {
        return Err("no rank reported a result".into());
    }
    let decode = |bytes: &Vec<u8>| {
        codec::decode::<T, REPORT_MAX>(bytes)
            .map_err(|error| format!("a rank's result does not decode: {error}"))
    };
    results.iter().map(decode).collect()
}
