//! A value for each rank, found without hashing: what is looked up for every message. Pure.

use rustc_hash::FxHashMap;

/// Ranks below this have a place of their own; in larger jobs the others are hashed, so that a rank with few neighbours
/// takes little memory whatever their numbers are.
const DENSE_MAX: u32 = 1 << 12;

/// Values by rank, or by any other number that is mostly small. What was never asked for is the default.
#[derive(Debug, Default)]
pub struct ByRank<T> {
    dense: Vec<T>,
    /// The driver, and ranks of very large jobs.
    others: FxHashMap<u32, T>,
}

impl<T: Default> ByRank<T> {
    /// The value of a rank, which may be changed.
    pub fn of(&mut self, rank: u32) -> &mut T {
        if rank >= DENSE_MAX {
            return self.others.entry(rank).or_default();
        }
        let place = rank as usize;
        if place >= self.dense.len() {
            self.dense.resize_with(place + 1, T::default);
        }
        &mut self.dense[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_value_of_its_own() {
        let mut values = ByRank::<u32>::default();
        let ranks = [0, 5, 3, DENSE_MAX - 1, DENSE_MAX, u32::MAX];
        for rank in ranks {
            assert_eq!(*values.of(rank), 0);
            *values.of(rank) = !rank;
        }
        for rank in ranks {
            assert_eq!(*values.of(rank), !rank);
        }
        assert_eq!(values.dense.len(), DENSE_MAX as usize);
    }
}
