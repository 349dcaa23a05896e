//! What ranks tell the driver.

use crate::lambda::cost::WorkerUsage;
use crate::net::codec::{self, REPORT_MAX};
use bytes::{Buf, BufMut, Bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The tag of reports to the driver.
pub const TAG: u32 = 0;

/// The longest result of one rank, in bytes: as long as a call's (`farm`'s payload). The driver keeps the results of all ranks in
/// memory until the job ends.
pub const RESULT_MAX: usize = 256 << 20;

/// What the results of all ranks may have together, in bytes.
pub const RESULTS_MAX: usize = 4 << 30;

/// The variant of [`Report::Result`] on the wire, and what stands ahead of its bytes: that and their count.
const RESULT: u32 = 1;
const RESULT_HEAD: usize = 12;

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
    /// When a result is over [`RESULT_MAX`] bytes.
    pub fn to_bytes(&self) -> Result<Bytes, String> {
        if let Report::Result(result) = self {
            if result.len() > RESULT_MAX {
                return Err(format!(
                    "the program's result has {} bytes, over the limit of {RESULT_MAX} (256 MiB) for the result of a rank; write long results to the store",
                    result.len()
                ));
            }
            let mut bytes = Vec::with_capacity(RESULT_HEAD + result.len());
            bytes.put_u32_le(RESULT);
            bytes.put_u64_le(result.len() as u64);
            bytes.put_slice(result);
            return Ok(bytes.into());
        }
        codec::encode::<REPORT_MAX>(self)
            .map(Bytes::from)
            .map_err(|error| format!("a report cannot be sent: {error}"))
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the bytes are none, or a result is over [`RESULT_MAX`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Report, String> {
        // Results are long, and are not read element by element.
        let result = bytes.split_at_checked(RESULT_HEAD);
        if let Some((mut head, result)) =
            result.filter(|(head, _)| head[..4] == RESULT.to_le_bytes())
        {
            head.advance(4);
            let length = head.get_u64_le();
            if length != result.len() as u64 {
                return Err(format!(
                    "its result does not decode: it names {length} bytes and has {}",
                    result.len()
                ));
            }
            if result.len() > RESULT_MAX {
                return Err(format!(
                    "its result has {length} bytes, over the limit of {RESULT_MAX} (256 MiB)"
                ));
            }
            return Ok(Report::Result(result.to_vec()));
        }
        codec::decode::<Report, REPORT_MAX>(bytes)
            .map_err(|error| format!("its report does not decode: {error}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_back_and_looks_as_the_codec_writes_it() {
        for length in [0, 1, 17, 100_000] {
            let report = Report::Result(vec![b'z'; length]);
            let bytes = report.to_bytes().expect("it is short");
            let encoded = codec::encode::<REPORT_MAX>(&report).expect("it is short");
            assert_eq!(bytes, encoded);
            assert_eq!(Report::from_bytes(&bytes), Ok(report));
        }
        let report = Report::Progress {
            step: 3,
            measure: 0.5,
        };
        let bytes = report.to_bytes().expect("it is short");
        assert_eq!(Report::from_bytes(&bytes), Ok(report));
    }

    #[test]
    fn a_result_longer_than_the_codecs_limit_is_sent() {
        let report = Report::Result(vec![b'z'; REPORT_MAX + 1]);
        let bytes = report.to_bytes().expect("it is under its own limit");
        assert_eq!(Report::from_bytes(&bytes), Ok(report));
    }

    #[test]
    fn a_result_over_the_limit_is_refused_with_its_length() {
        let report = Report::Result(vec![0; RESULT_MAX + 1]);
        assert_eq!(
            report.to_bytes(),
            Err("the program's result has 268435457 bytes, over the limit of 268435456 (256 MiB) for the result of a rank; write long results to the store".into())
        );
    }

    #[test]
    fn bytes_that_are_no_report_are_refused() {
        let good = Report::Result(b"abc".to_vec()).to_bytes().expect("short");
        for length in 0..good.len() {
            assert!(Report::from_bytes(&good[..length]).is_err(), "{length}");
        }
        let longer = [&good[..], b"d"].concat();
        assert!(Report::from_bytes(&longer).is_err());
        assert!(Report::from_bytes(&[9; 40]).is_err());
    }
}
