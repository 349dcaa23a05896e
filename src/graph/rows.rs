//! Pairs sorted into rows, side by side: how an edge list becomes compressed sparse rows, and those their transpose.
//!
//! Two steps, each of which stays within a processor's caches. First every thread spreads its pairs over some hundred
//! buckets, each a range of rows; then each bucket is sorted by counting. That is a radix sort whose first digit is chosen
//! so that the second fits (as in J. Wassenberg and P. Sanders, "Engineering a Multi-core Radix Sort", Euro-Par 2011).

use rayon::prelude::*;

use super::edges::Weight;

/// Buckets at most.
const BUCKETS_MAX: usize = 256;

/// Pairs of a bucket at least, so that small graphs take few.
const BUCKET_PAIRS: usize = 1 << 14;

/// Pairs of one piece of a bucket.
const PIECE: usize = 1 << 11;

/// A row, a column, and a weight.
pub type Pair<W> = (u32, u32, W);

/// Compressed sparse rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<W> {
    /// Where each row starts in `columns`; one more entry than rows.
    pub offsets: Vec<u64>,
    /// The columns, by row.
    pub columns: Vec<u32>,
    /// As many weights.
    pub weights: Vec<W>,
}

/// How rows are spread over buckets.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    rows: usize,
    shift: u32,
    buckets: usize,
}

impl Spread {
    /// For so many rows with so many pairs.
    pub fn new(rows: usize, pairs: usize) -> Spread {
        let wanted = (pairs / BUCKET_PAIRS).clamp(1, BUCKETS_MAX);
        let in_bucket = rows.div_ceil(wanted).max(1).next_power_of_two();
        Spread {
            rows,
            shift: in_bucket.trailing_zeros(),
            buckets: rows.div_ceil(in_bucket).max(1),
        }
    }
}

/// What one thread has spread.
pub struct Buckets<W> {
    shift: u32,
    pieces: Vec<Vec<Vec<Pair<W>>>>,
}

impl<W: Weight> Buckets<W> {
    /// Empty ones.
    pub fn new(spread: Spread) -> Buckets<W> {
        Buckets {
            shift: spread.shift,
            pieces: (0..spread.buckets).map(|_| Vec::new()).collect(),
        }
    }

    /// Adds a pair.
    #[inline]
    pub fn push(&mut self, row: u32, column: u32, weight: W) {
        let pieces = &mut self.pieces[row as usize >> self.shift];
        match pieces.last_mut() {
            Some(piece) if piece.len() < piece.capacity() => piece.push((row, column, weight)),
            last => {
                let length = last.map_or(64, |piece| (2 * piece.len()).min(PIECE));
                let mut piece = Vec::with_capacity(length);
                piece.push((row, column, weight));
                pieces.push(piece);
            }
        }
    }
}

/// One bucket of the result: its rows' sizes, and where its pairs go.
struct Slot<'a, W> {
    first_row: usize,
    sizes: &'a mut [u64],
    columns: &'a mut [u32],
    weights: &'a mut [W],
    pieces: Vec<Vec<Pair<W>>>,
}

/// The rows of what several threads have spread. Within a row pairs keep the order of the threads, and of each thread's
/// pushes.
pub fn collect<W: Weight>(spread: Spread, threads: Vec<Buckets<W>>) -> Rows<W> {
    let mut by_bucket: Vec<Vec<Vec<Pair<W>>>> = (0..spread.buckets).map(|_| Vec::new()).collect();
    for thread in threads {
        for (bucket, mut pieces) in by_bucket.iter_mut().zip(thread.pieces) {
            bucket.append(&mut pieces);
        }
    }
    let lengths: Vec<usize> = by_bucket
        .iter()
        .map(|pieces| pieces.iter().map(Vec::len).sum())
        .collect();
    let all = lengths.iter().sum();
    let mut offsets = vec![0u64; spread.rows + 1];
    let mut columns = vec![0u32; all];
    let mut weights = vec![W::default(); all];
    let mut slots = Vec::with_capacity(spread.buckets);
    let (mut sizes, mut columns_left, mut weights_left) =
        (&mut offsets[1..], &mut columns[..], &mut weights[..]);
    for (bucket, (pieces, &length)) in by_bucket.into_iter().zip(&lengths).enumerate() {
        let rows = sizes.len().min(1 << spread.shift);
        slots.push(Slot {
            first_row: bucket << spread.shift,
            sizes: sizes.split_off_mut(..rows).expect("there are so many"),
            columns: columns_left
                .split_off_mut(..length)
                .expect("there are so many"),
            weights: weights_left
                .split_off_mut(..length)
                .expect("there are so many"),
            pieces,
        });
    }
    slots.into_par_iter().for_each(Slot::sort);
    accumulate(&mut offsets);
    Rows {
        offsets,
        columns,
        weights,
    }
}

impl<W: Weight> Slot<'_, W> {
    fn sort(self) {
        for &(row, _, _) in self.pieces.iter().flatten() {
            self.sizes[row as usize - self.first_row] += 1;
        }
        let mut next = Vec::with_capacity(self.sizes.len());
        let mut sum = 0usize;
        for &size in &*self.sizes {
            next.push(sum);
            sum += size as usize;
        }
        // Each piece goes as soon as it is read.
        for piece in self.pieces {
            for (row, column, weight) in piece {
                let at = &mut next[row as usize - self.first_row];
                self.columns[*at] = column;
                self.weights[*at] = weight;
                *at += 1;
            }
        }
    }
}

impl<W: Weight> Rows<W> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The columns of a row.
    ///
    /// # Panics
    ///
    /// When there is no such row.
    #[inline]
    pub fn of(&self, row: usize) -> &[u32] {
        &self.columns[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The same pairs from the other end: rows are columns, of which there are `columns`. In each, ascending.
    pub fn transposed(&self, columns: usize) -> Rows<W> {
        transposed(&self.offsets, &self.columns, &self.weights, columns)
    }
}

/// As [`Rows::transposed`], of rows that are kept in another way.
pub fn transposed<W: Weight>(
    offsets: &[u64],
    columns: &[u32],
    weights: &[W],
    into_rows: usize,
) -> Rows<W> {
    let spread = Spread::new(into_rows, columns.len());
    let shares = shares(offsets, rayon::current_num_threads());
    let spread_share = |rows: std::ops::Range<usize>| {
        let mut buckets = Buckets::new(spread);
        for row in rows {
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            for (&column, &weight) in columns[range.clone()].iter().zip(&weights[range]) {
                buckets.push(column, row as u32, weight);
            }
        }
        buckets
    };
    let threads = shares.into_par_iter().map(spread_share).collect();
    collect(spread, threads)
}

/// Rows in so many runs of about as many pairs each, ascending.
pub fn shares(offsets: &[u64], count: usize) -> Vec<std::ops::Range<usize>> {
    let rows = offsets.len() - 1;
    let all = offsets[rows];
    let mut shares = Vec::with_capacity(count);
    let mut start = 0;
    for share in 1..=count as u64 {
        let end = match share == count as u64 {
            true => rows,
            false => offsets
                .partition_point(|&offset| offset < all * share / count as u64)
                .clamp(start, rows),
        };
        shares.push(start..end);
        start = end;
    }
    shares
}

/// Turns counts, each one place to the right, into offsets.
pub fn accumulate(offsets: &mut [u64]) {
    let mut sum = 0;
    for offset in offsets {
        sum += *offset;
        *offset = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_rows(rows: usize, pairs: usize) -> (Vec<Pair<f64>>, Rows<f64>) {
        let mut state = 7u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) as usize % below) as u32
        };
        let pairs: Vec<Pair<f64>> = (0..pairs)
            .map(|i| (next(rows), next(1000), i as f64))
            .collect();
        let spread = Spread::new(rows, pairs.len());
        let threads = pairs.chunks(pairs.len().div_ceil(3).max(1)).map(|chunk| {
            let mut buckets = Buckets::new(spread);
            for &(row, column, weight) in chunk {
                buckets.push(row, column, weight);
            }
            buckets
        });
        let sorted = collect(spread, threads.collect());
        (pairs, sorted)
    }

    #[test]
    fn pairs_come_to_their_rows_in_the_order_in_which_they_were_given() {
        for (rows, count) in [
            (1, 0),
            (1, 10),
            (7, 100),
            (5_000, 300_000),
            (300_000, 50_000),
        ] {
            let (mut pairs, sorted) = random_rows(rows, count);
            pairs.sort_by_key(|&(row, _, _)| row);
            let columns: Vec<u32> = pairs.iter().map(|pair| pair.1).collect();
            let weights: Vec<f64> = pairs.iter().map(|pair| pair.2).collect();
            assert!(sorted.columns == columns && sorted.weights == weights);
            for row in 0..rows {
                let count = pairs.partition_point(|pair| (pair.0 as usize) < row);
                assert_eq!(sorted.offsets[row], count as u64);
            }
            assert_eq!(sorted.offsets[rows], count as u64);
        }
    }

    #[test]
    fn twice_transposed_is_sorted_within_rows() {
        let (mut pairs, sorted) = random_rows(3_000, 200_000);
        let again = sorted.transposed(1000).transposed(3_000);
        pairs.sort_by_key(|&(row, column, _)| (row, column));
        let columns: Vec<u32> = pairs.iter().map(|pair| pair.1).collect();
        assert!(again.offsets == sorted.offsets && again.columns == columns);
    }

    #[test]
    fn shares_are_all_rows_once() {
        for count in 1..9 {
            let shares = shares(&[0, 5, 5, 9, 20, 21, 21], count);
            assert_eq!(shares.len(), count);
            let rows: Vec<usize> = shares.into_iter().flatten().collect();
            assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
        }
    }
}
