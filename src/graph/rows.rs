//! Edges sorted into rows, side by side: compressed sparse rows, and their transpose.
//!
//! Threads have spread their edges over buckets, each a range of rows ([`Edges`]); here each bucket is sorted by counting, by
//! itself.

use std::ops::Range;

use rayon::prelude::*;

use super::edges::{Bucket, Edges, Piece, Spreader, Weight};

/// Compressed sparse rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<W> {
    /// Where each row starts in `columns`; one more entry than rows.
    pub offsets: Vec<u64>,
    /// The columns, by row, ascending within a row.
    pub columns: Vec<u32>,
    /// As many weights.
    pub weights: Vec<W>,
}

impl<W> Rows<W> {
    /// The columns of a row.
    ///
    /// # Panics
    ///
    /// When there is no such row.
    #[inline]
    pub fn of(&self, row: usize) -> &[u32] {
        &self.columns[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

/// The same pairs from the other end: `into_rows` rows, one for each column.
pub fn transposed(offsets: &[u64], columns: &[u32], into_rows: usize) -> Rows<()> {
    let largest = into_rows.saturating_sub(1) as u64;
    let spread = |(number, rows): (usize, Range<usize>)| {
        let mut edges = Spreader::new(largest);
        edges.begin_block(number);
        for row in rows {
            for &column in &columns[offsets[row] as usize..offsets[row + 1] as usize] {
                edges.push(row as u64, column.into(), ());
            }
        }
        edges.finish()
    };
    let shares = shares(offsets, rayon::current_num_threads());
    let edges = shares.into_par_iter().enumerate().map(spread);
    sorted(edges.collect(), into_rows, |row| row, |_| ())
}

/// What all threads have of one range of targets, and where it goes.
struct Slot<'a, W> {
    /// The lowest target, and one more than the highest.
    targets: Range<u64>,
    /// The dense index of its first row.
    first: u32,
    sizes: &'a mut [u64],
    columns: &'a mut [u32],
    weights: &'a mut [W],
    bucket: Bucket<W>,
}

/// Sorts edges into so many rows, by their targets; within a row by sources, and then by weights. Gives their memory up on the
/// way. `index` turns ids into dense indexes and does not change their order; `count` hears of all sources, some at
/// a time.
///
/// # Panics
///
/// When an id is 2^32 or more.
pub fn sorted<W: Weight>(
    edges: Vec<Edges<W>>,
    rows: usize,
    index: impl Fn(u32) -> u32 + Sync,
    count: impl Fn(&[u32]) + Sync,
) -> Rows<W> {
    let all = edges.iter().map(Edges::len).sum();
    // Threads that saw large ids have wider buckets.
    let shift = edges.iter().map(Edges::shift).max().unwrap_or_default();
    let mut buckets: Vec<Bucket<W>> = Vec::new();
    for edges in edges {
        let finer = shift - edges.shift();
        let (of_thread, wide) = edges.into_parts();
        assert!(wide.is_empty(), "long ids became dense indexes before");
        for (at, bucket) in of_thread.into_iter().enumerate() {
            let at = at >> finer;
            if at >= buckets.len() {
                buckets.resize_with(at + 1, Bucket::new);
            }
            buckets[at].extend(bucket);
        }
    }
    let mut offsets = vec![0u64; rows + 1];
    let mut columns = vec![0u32; all];
    let mut weights = vec![W::default(); all];
    let mut slots = Vec::with_capacity(buckets.len());
    let (mut sizes_left, mut columns_left, mut weights_left) =
        (&mut offsets[1..], &mut columns[..], &mut weights[..]);
    let mut first = 0;
    for (number, bucket) in (0u64..).zip(buckets) {
        let targets = number << shift..(number + 1) << shift;
        let end = u32::try_from(targets.end).map_or(rows, |id| rows.min(index(id) as usize));
        let length = bucket.iter().map(Piece::len).sum();
        slots.push(Slot {
            targets,
            first: first as u32,
            sizes: split(&mut sizes_left, end - first),
            columns: split(&mut columns_left, length),
            weights: split(&mut weights_left, length),
            bucket,
        });
        first = end;
    }
    slots
        .into_par_iter()
        .for_each(|slot| slot.sort(&index, &count));
    accumulate(&mut offsets);
    Rows {
        offsets,
        columns,
        weights,
    }
}

fn split<'a, T>(slice: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    slice.split_off_mut(..count).expect("there are so many")
}

impl<W: Weight> Slot<'_, W> {
    fn sort(self, index: impl Fn(u32) -> u32, count: impl Fn(&[u32])) {
        // How often each target occurs, and then where its next source goes.
        let width = (self.targets.end - self.targets.start) as usize;
        let base = self.targets.start as u32;
        let mut next = vec![0usize; width];
        for piece in &self.bucket {
            let counts = &mut next[(piece.base() - base) as usize..];
            for &low in piece.targets() {
                counts[usize::from(low)] += 1;
            }
        }
        let mut sum = 0;
        for (low, next) in next.iter_mut().enumerate() {
            let size = std::mem::replace(next, sum);
            if size > 0 {
                let row = index(base + low as u32) - self.first;
                self.sizes[row as usize] = size as u64;
                sum += size;
            }
        }
        // In the order of the text, in which rows are often sorted already.
        let mut blocks: Vec<(usize, usize, Range<usize>)> = Vec::new();
        for (place, piece) in self.bucket.iter().enumerate() {
            let of_piece = piece.blocks();
            blocks.extend(of_piece.map(|(block, range)| (block, place, range)));
        }
        blocks.sort_unstable_by_key(|(block, place, _)| (*block, *place));
        let mut sources = Vec::new();
        for (_, place, range) in blocks {
            let piece = &self.bucket[place];
            let next = &mut next[(piece.base() - base) as usize..];
            let targets = &piece.targets()[range.clone()];
            sources.clear();
            sources.extend(piece.sources()[range.clone()].iter().map(|&id| index(id)));
            // Here, where they stand as in the text and not yet by target, equal ones are close together.
            count(&sources);
            let edges = sources.iter().zip(targets).zip(&piece.weights()[range]);
            for ((&source, &low), &weight) in edges {
                let at = &mut next[usize::from(low)];
                self.columns[*at] = source;
                self.weights[*at] = weight;
                *at += 1;
            }
        }
        let mut start = 0;
        for &size in &*self.sizes {
            let end = start + size as usize;
            sort_row(&mut self.columns[start..end], &mut self.weights[start..end]);
            start = end;
        }
    }
}

/// Sorts a row by column, and then by weight.
fn sort_row<W: Weight>(columns: &mut [u32], weights: &mut [W]) {
    if !W::SOME {
        if !columns.is_sorted() {
            columns.sort_unstable();
        }
        return;
    }
    let mut row: Vec<(u32, W)> = columns
        .iter()
        .copied()
        .zip(weights.iter().copied())
        .collect();
    row.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    for (at, (column, weight)) in row.into_iter().enumerate() {
        (columns[at], weights[at]) = (column, weight);
    }
}

/// Rows in so many runs of about as many pairs each, ascending.
pub fn shares(offsets: &[u64], count: usize) -> Vec<Range<usize>> {
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

    /// Some pairs of a row and a column, by row and column, and where each row starts.
    fn random_rows(rows: usize, pairs: usize) -> (Vec<u64>, Vec<u32>) {
        let mut state = 7u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut pairs: Vec<(usize, u32)> = (0..pairs)
            .map(|_| (next(rows), next(1000) as u32))
            .collect();
        pairs.sort_unstable();
        let start = |row| pairs.partition_point(|pair| pair.0 < row) as u64;
        let offsets = (0..=rows).map(start).collect();
        (offsets, pairs.into_iter().map(|pair| pair.1).collect())
    }

    #[test]
    fn a_transpose_has_each_pair_from_the_other_end_and_its_own_is_what_was() {
        for (rows, count) in [
            (1, 0),
            (1, 10),
            (7, 100),
            (5_000, 300_000),
            (300_000, 50_000),
        ] {
            let (offsets, columns) = random_rows(rows, count);
            let across = transposed(&offsets, &columns, 1000);
            assert_eq!(across.offsets.len(), 1001);
            for column in [0, 1, 500, 999] {
                let has = |row: usize| {
                    let row = &columns[offsets[row] as usize..offsets[row + 1] as usize];
                    row.iter().filter(|&&found| found == column).count()
                };
                let expected = (0..rows).flat_map(|row| vec![row as u32; has(row)]);
                assert!(across.of(column as usize).iter().copied().eq(expected));
            }
            let again = transposed(&across.offsets, &across.columns, rows);
            assert!(again.offsets == offsets && again.columns == columns);
        }
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
