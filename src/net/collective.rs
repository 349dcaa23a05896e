//! Collectives that the switch computes: each pack uploads its part once, and downloads the result once. Pure.
//!
//! This version knows one operation, the element-wise sum of i128, which is what fixed-point sums need; a vector of no
//! elements is a barrier. Integer sums do not depend on the order of their operands, so results repeat to the bit.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// The tag of an element-wise sum of little-endian i128.
pub const SUM_I128: u32 = 0x0105;

/// The most elements of one vector: what fits into one frame.
pub const ELEMENTS_MAX: usize = crate::net::frame::CHUNK_MAX / 16;

/// The most calls of one job that wait for parts of some packs. Ranks wait for each result, so that one would do; the
/// bound keeps a pack that does not wait from filling the switch's memory.
pub const PENDING_MAX: usize = 16;

/// Why a contribution cannot be combined.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CollectiveError {
    /// The operation is not one of ours.
    #[error("collective operation {0:#06x} is not known to this switch")]
    UnknownOperation(u32),
    /// The bytes are not whole elements.
    #[error("a contribution of {0} bytes is not a whole number of 16-byte elements")]
    Length(usize),
    /// A pack's calls must be numbered from 0 without gaps.
    #[error("collective call {found} came where number {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The packs disagree about the call.
    #[error(
        "collective call {sequence} has {found} elements here and {expected} elsewhere; all ranks must make the same calls"
    )]
    Mismatch {
        /// The call's number.
        sequence: u64,
        /// Elements that the first pack gave.
        expected: usize,
        /// Elements that this one gave.
        found: usize,
    },
    /// A pack does not wait for results.
    #[error(
        "collective call {0} came while {PENDING_MAX} earlier ones wait for other packs, which is the most"
    )]
    Ahead(u64),
    /// The sum is over an i128.
    #[error("collective call {0}: a sum overflows 128 bits")]
    Overflow(u64),
}

/// The calls of one group that are under way.
#[derive(Default)]
pub struct Collectives {
    /// The number of each pack's next call, by its first rank.
    next: HashMap<u32, u64>,
    pending: BTreeMap<u64, Pending>,
}

struct Pending {
    sums: Vec<i128>,
    contributed: usize,
}

impl Collectives {
    /// True while some pack waits for others.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes one pack's part of call `sequence`; gives the result when it was the last of `packs`.
    ///
    /// # Errors
    /// When the call is not the pack's next, or does not fit those of the other packs.
    pub fn contribute(
        &mut self,
        pack: u32,
        sequence: u64,
        operation: u32,
        body: &Bytes,
        packs: usize,
    ) -> Result<Option<Bytes>, CollectiveError> {
        if operation != SUM_I128 {
            return Err(CollectiveError::UnknownOperation(operation));
        }
        let next = self.next.entry(pack).or_default();
        if sequence != *next {
            return Err(CollectiveError::Sequence {
                expected: *next,
                found: sequence,
            });
        }
        let values = decode(body)?;
        if self.pending.len() >= PENDING_MAX && !self.pending.contains_key(&sequence) {
            return Err(CollectiveError::Ahead(sequence));
        }
        *next += 1;
        let pending = self.pending.entry(sequence).or_insert_with(|| Pending {
            sums: vec![0; values.len()],
            contributed: 0,
        });
        if pending.sums.len() != values.len() {
            return Err(CollectiveError::Mismatch {
                sequence,
                expected: pending.sums.len(),
                found: values.len(),
            });
        }
        add(&mut pending.sums, &values).ok_or(CollectiveError::Overflow(sequence))?;
        pending.contributed += 1;
        if pending.contributed < packs {
            return Ok(None);
        }
        let done = self
            .pending
            .remove(&sequence)
            .expect("it was there a line above");
        Ok(Some(encode(&done.sums)))
    }
}

/// Adds element-wise; `None` when a sum overflows.
pub fn add(sums: &mut [i128], values: &[i128]) -> Option<()> {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.checked_add(*value)?;
    }
    Some(())
}

/// The bytes of a vector, little-endian.
pub fn encode(values: &[i128]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(values.len() * 16);
    values.iter().for_each(|value| bytes.put_i128_le(*value));
    bytes.freeze()
}

/// The vector of some bytes.
///
/// # Errors
/// When they are not whole elements.
pub fn decode(body: &Bytes) -> Result<Vec<i128>, CollectiveError> {
    if !body.len().is_multiple_of(16) {
        return Err(CollectiveError::Length(body.len()));
    }
    Ok(body
        .chunks_exact(16)
        .map(|mut element| element.get_i128_le())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_contribution_gives_the_sum_and_calls_do_not_mix() {
        let mut calls = Collectives::default();
        let mut give = |pack, sequence, values: &[i128]| {
            calls.contribute(pack, sequence, SUM_I128, &encode(values), 2)
        };
        assert_eq!(give(0, 0, &[1, -2]), Ok(None));
        assert_eq!(give(0, 1, &[10]), Ok(None), "a pack may be one call ahead");
        assert_eq!(
            give(4, 0, &[i128::MAX - 1, 5]),
            Ok(Some(encode(&[i128::MAX, 3])))
        );
        assert_eq!(give(4, 1, &[1]), Ok(Some(encode(&[11]))));
        assert_eq!(
            give(0, 3, &[]),
            Err(CollectiveError::Sequence {
                expected: 2,
                found: 3
            })
        );
    }

    #[test]
    fn contributions_that_do_not_fit_are_refused() {
        let mut calls = Collectives::default();
        assert_eq!(
            calls.contribute(0, 0, 7, &Bytes::new(), 2),
            Err(CollectiveError::UnknownOperation(7))
        );
        assert_eq!(
            calls.contribute(0, 0, SUM_I128, &Bytes::from_static(b"abc"), 2),
            Err(CollectiveError::Length(3))
        );
        assert_eq!(calls.contribute(0, 0, SUM_I128, &encode(&[1]), 2), Ok(None));
        let error = calls
            .contribute(1, 0, SUM_I128, &encode(&[1, 2]), 2)
            .expect_err("two elements are not one");
        assert_eq!(
            error,
            CollectiveError::Mismatch {
                sequence: 0,
                expected: 1,
                found: 2
            }
        );
    }

    #[test]
    fn a_pack_that_does_not_wait_for_results_fills_no_memory() {
        let mut calls = Collectives::default();
        for sequence in 0..PENDING_MAX as u64 {
            let outcome = calls.contribute(0, sequence, SUM_I128, &encode(&[1]), 2);
            assert_eq!(outcome, Ok(None));
        }
        let ahead = PENDING_MAX as u64;
        assert_eq!(
            calls.contribute(0, ahead, SUM_I128, &encode(&[1]), 2),
            Err(CollectiveError::Ahead(ahead))
        );
        let done = calls.contribute(1, 0, SUM_I128, &encode(&[1]), 2);
        assert_eq!(done, Ok(Some(encode(&[2]))));
        assert_eq!(
            calls.contribute(0, ahead, SUM_I128, &encode(&[1]), 2),
            Ok(None)
        );
    }
}
