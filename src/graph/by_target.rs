//! Parsed edges to in-edges by target: numbers their ids, and sorts each bucket by itself.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::GraphError;
use super::edges::{Bucket, Edges, Weight};
use super::numbering::{Declared, Numbering};
use super::rows::{Rows, accumulate};

/// Edges of a bucket above which it is too large for what a processor has in its caches, if others are much smaller.
const LARGE: usize = 1 << 20;

/// The ids, ascending; the in-edges of each, by sources ascending and then by weight; and how many out-edges each has.
type Sorted<W> = (Vec<u64>, Rows<W>, Vec<u64>);

/// Sorts edges by target. Gives their memory up on the way.
///
/// # Errors
///
/// Those of [`Numbering::new`].
pub fn by_target<W: Weight>(
    mut edges: Vec<Edges<W>>,
    declared: &Declared,
) -> Result<Sorted<W>, GraphError> {
    let numbering = Numbering::new(&edges, declared)?;
    let vertices = numbering.vertices();
    if let Numbering::Bitmap { .. } = numbering
        && !needs_spreading(&edges)
    {
        let (rows, out_degree) = sorted(edges, vertices, |id| numbering.index(id.into()));
        return Ok((numbering.into_ids(), rows, out_degree));
    }
    // Ids are spread out, or unevenly: dense indexes are not.
    let largest = vertices.saturating_sub(1) as u64;
    let mut dense = Vec::with_capacity(edges.len());
    edges
        .par_drain(..)
        .map(|edges| densely(edges, &numbering, largest))
        .collect_into_vec(&mut dense);
    let (rows, out_degree) = sorted(dense, vertices, |index| index);
    Ok((numbering.into_ids(), rows, out_degree))
}

/// Some ids are long, or most targets are in one bucket.
fn needs_spreading<W: Weight>(edges: &[Edges<W>]) -> bool {
    let longest = |edges: &Edges<W>| edges.buckets().0.iter().map(Bucket::len).max();
    edges.iter().any(|edges| {
        let longest = longest(edges).unwrap_or_default();
        !edges.wide.is_empty() || longest > LARGE && longest > edges.len() / 16
    })
}

/// The same edges by dense indexes.
fn densely<W: Weight>(edges: Edges<W>, numbering: &Numbering, largest: u64) -> Edges<W> {
    let mut dense = Edges::spread(largest);
    let mut push = |source: u64, target: u64, weight: W| {
        let (source, target) = (numbering.index(source), numbering.index(target));
        dense.push(source.into(), target.into(), weight);
    };
    for &(source, target, weight) in &edges.wide {
        push(source, target, weight);
    }
    for bucket in edges.into_buckets() {
        for piece in bucket.into_pieces() {
            for (source, target, weight) in piece {
                push(source.into(), target.into(), weight);
            }
        }
    }
    dense
}

/// What all threads have of one bucket, and where it goes.
struct Slot<'a, W> {
    /// The dense index of its first row.
    first: u32,
    sizes: &'a mut [u64],
    columns: &'a mut [u32],
    weights: &'a mut [W],
    buckets: Vec<Bucket<W>>,
}

fn sorted<W: Weight>(
    edges: Vec<Edges<W>>,
    vertices: usize,
    index: impl Fn(u32) -> u32 + Sync,
) -> (Rows<W>, Vec<u64>) {
    let all = edges.iter().map(Edges::len).sum();
    let count = edges.iter().map(|edges| edges.buckets().0.len()).max();
    let count = count.unwrap_or_default();
    let shift = edges.first().map_or(0, |edges| edges.buckets().1);
    let mut by_range: Vec<Vec<Bucket<W>>> = (0..count).map(|_| Vec::new()).collect();
    for edges in edges {
        for (range, bucket) in by_range.iter_mut().zip(edges.into_buckets()) {
            range.push(bucket);
        }
    }
    let mut offsets = vec![0u64; vertices + 1];
    let mut columns = vec![0u32; all];
    let mut weights = vec![W::default(); all];
    let mut slots = Vec::with_capacity(count);
    let (mut sizes_left, mut columns_left, mut weights_left) =
        (&mut offsets[1..], &mut columns[..], &mut weights[..]);
    let mut first = 0;
    for (number, buckets) in by_range.into_iter().enumerate() {
        // The last bucket has all rows that are left.
        let end = match u32::try_from((number as u64 + 1) << shift) {
            Ok(id) if number + 1 < count => index(id) as usize,
            _ => vertices,
        };
        let length = buckets.iter().map(Bucket::len).sum();
        slots.push(Slot {
            first: first as u32,
            sizes: split(&mut sizes_left, end - first),
            columns: split(&mut columns_left, length),
            weights: split(&mut weights_left, length),
            buckets,
        });
        first = end;
    }
    let out_degree: Vec<AtomicU64> = (0..vertices).map(|_| AtomicU64::new(0)).collect();
    slots
        .into_par_iter()
        .for_each(|slot| slot.sort(&index, &out_degree));
    accumulate(&mut offsets);
    let out_degree = out_degree.into_iter().map(AtomicU64::into_inner).collect();
    let rows = Rows {
        offsets,
        columns,
        weights,
    };
    (rows, out_degree)
}

fn split<'a, T>(slice: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    slice.split_off_mut(..count).expect("there are so many")
}

impl<W: Weight> Slot<'_, W> {
    fn sort(mut self, index: impl Fn(u32) -> u32, out_degree: &[AtomicU64]) {
        let mut last = None;
        for (source, target, _) in self.buckets.iter_mut().flat_map(Bucket::iter_mut) {
            // Texts are often sorted by source.
            let found = match last {
                Some((id, found)) if id == *source => found,
                _ => index(*source),
            };
            last = Some((*source, found));
            *source = found;
            *target = index(*target) - self.first;
            out_degree[*source as usize].fetch_add(1, Ordering::Relaxed);
            self.sizes[*target as usize] += 1;
        }
        let mut next = Vec::with_capacity(self.sizes.len());
        let mut sum = 0usize;
        for &size in &*self.sizes {
            next.push(sum);
            sum += size as usize;
        }
        // In the order of the text, in which rows are often sorted already.
        let mut blocks: Vec<(usize, usize, std::ops::Range<usize>)> = Vec::new();
        for (bucket, of_thread) in self.buckets.iter().enumerate() {
            blocks.extend(
                of_thread
                    .blocks()
                    .map(|(block, range)| (block, bucket, range)),
            );
        }
        blocks.sort_unstable_by_key(|(block, bucket, _)| (*block, *bucket));
        for (_, bucket, range) in blocks {
            for &(source, target, weight) in self.buckets[bucket].range(range) {
                let at = &mut next[target as usize];
                self.columns[*at] = source;
                self.weights[*at] = weight;
                *at += 1;
            }
        }
        let mut start = 0;
        for end in next {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by a sort.
    fn slowly(edges: &[(u64, u64, f64)]) -> Sorted<f64> {
        let mut ids: Vec<u64> = edges.iter().flat_map(|&(s, t, _)| [s, t]).collect();
        ids.sort_unstable();
        ids.dedup();
        let index = |id| ids.binary_search(&id).unwrap();
        let mut dense: Vec<(usize, usize, f64)> = Vec::new();
        let mut out_degree = vec![0; ids.len()];
        let mut offsets = vec![0; ids.len() + 1];
        for &(source, target, weight) in edges {
            dense.push((index(target), index(source), weight));
            out_degree[index(source)] += 1;
            offsets[index(target) + 1] += 1;
        }
        dense.sort_by(|a, b| a.partial_cmp(b).unwrap());
        accumulate(&mut offsets);
        let rows = Rows {
            offsets,
            columns: dense.iter().map(|edge| edge.1 as u32).collect(),
            weights: dense.iter().map(|edge| edge.2).collect(),
        };
        (ids, rows, out_degree)
    }

    #[test]
    fn what_several_threads_parsed_is_sorted_whatever_its_ids() {
        for (factor, offset, largest) in [
            (1, 0, 1000),
            (1, 0, 100),
            (3, 7, 1 << 30),
            (1 << 20, 1 << 31, 1 << 20),
            (1 << 33, 5, 0),
            (0xdead_beef_cafe, 1, 0),
        ] {
            let mut state = 3u64;
            let mut next = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) % 3000 * factor + offset
            };
            let edges: Vec<(u64, u64, f64)> = (0..20_000)
                .map(|i| (next(), next(), f64::from(i % 7)))
                .collect();
            let mut threads: Vec<Edges<f64>> = (0..3).map(|_| Edges::spread(largest)).collect();
            for (block, lines) in edges.chunks(500).enumerate() {
                let thread = &mut threads[block * block % 3];
                thread.begin_block(block);
                lines.iter().for_each(|&(s, t, w)| thread.push(s, t, w));
            }
            assert_eq!(
                by_target(threads, &Declared::Nothing).unwrap(),
                slowly(&edges),
                "{factor} {offset}"
            );
        }
    }
}
