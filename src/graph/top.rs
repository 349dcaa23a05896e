//! The vertices with the highest ranks, in an order that rounding cannot change.
//!
//! Ranks that agree in 12 significant digits count as equal, and then the smaller id is first: the last digits
//! of a sum depend on the partition, and a list that people compare should not.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// The number rounded to 12 significant decimal digits.
pub fn round12(value: f64) -> f64 {
    format!("{value:.11e}")
        .parse()
        .expect("a printed number can be read")
}

/// The `k` first by [`round12`] of the rank, descending, then by id, ascending. The ranks given back are not rounded.
pub fn top(k: usize, ranks: impl IntoIterator<Item = (u64, f64)>) -> Vec<(u64, f64)> {
    if k == 0 {
        return Vec::new();
    }
    // The last of the k best so far is on top of the heap.
    let mut best: BinaryHeap<Entry> = BinaryHeap::new();
    for (id, rank) in ranks {
        if best.len() == k {
            let last = best.peek().expect("k is not 0");
            // Rounding is slow and moves a number by less than 1e-11 of itself, so most are turned down without it.
            if rank < last.rounded - last.rounded.abs() * 1e-10 {
                continue;
            }
        }
        best.push(Entry {
            rounded: round12(rank),
            id: Reverse(id),
            rank,
        });
        if best.len() > k {
            best.pop();
        }
    }
    let sorted = best.into_sorted_vec();
    sorted
        .into_iter()
        .map(|entry| (entry.id.0, entry.rank))
        .collect()
}

/// The `k` first of several lists, as [`top`] gives for all their vertices together if each list is the `k` first
/// of its own.
pub fn merge(k: usize, lists: impl IntoIterator<Item = Vec<(u64, f64)>>) -> Vec<(u64, f64)> {
    top(k, lists.into_iter().flatten())
}

/// An entry is less than another when it comes earlier in the list.
struct Entry {
    rounded: f64,
    id: Reverse<u64>,
    rank: f64,
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        let later = self
            .rounded
            .total_cmp(&other.rounded)
            .then(self.id.cmp(&other.id));
        later.reverse()
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_keeps_twelve_significant_digits() {
        assert_eq!(round12(0.123456789012345), 0.123456789012);
        assert_eq!(round12(1.0 / 3e7), 3.33333333333e-8);
        assert_eq!(round12(0.0), 0.0);
    }

    #[test]
    fn equal_ranks_are_ordered_by_id_whatever_their_last_digits() {
        let ranks = [
            (9, 0.2),
            (7, 0.1 + 1e-16),
            (3, 0.1),
            (5, 0.1 - 1e-16),
            (1, 0.05),
            (2, 0.0),
        ];
        let ids = |list: Vec<(u64, f64)>| list.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(top(4, ranks)), [9, 3, 5, 7]);
        assert_eq!(ids(top(3, ranks)), [9, 3, 5]);
        assert_eq!(ids(top(100, ranks)), [9, 3, 5, 7, 1, 2]);
        assert!(top(0, ranks).is_empty());
        let lists = [
            top(3, ranks[..2].iter().copied()),
            top(3, ranks[2..].iter().copied()),
        ];
        assert_eq!(ids(merge(3, lists)), [9, 3, 5]);
    }
}
