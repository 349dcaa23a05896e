//! Parsed edges to in-edges by target: their ids become dense indexes, and they rows.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::GraphError;
use super::edges::{Bucket, Edges, Weight};
use super::numbering::{Declared, Numbering};
use super::rows::{self, Rows};

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
    edges: Vec<Edges<W>>,
    declared: &Declared,
) -> Result<Sorted<W>, GraphError> {
    let numbering = Numbering::new(&edges, declared)?;
    let vertices = numbering.vertices();
    let out_degree: Vec<AtomicU64> = (0..vertices).map(|_| AtomicU64::new(0)).collect();
    let count = |source: u32| {
        out_degree[source as usize].fetch_add(1, Ordering::Relaxed);
    };
    let rows = if let Numbering::Bitmap { .. } = numbering
        && !needs_spreading(&edges)
    {
        rows::sorted(edges, vertices, |id| numbering.index(id.into()), count)
    } else {
        // Ids are spread out, or unevenly: dense indexes are not.
        let largest = vertices.saturating_sub(1) as u64;
        let dense = edges.into_par_iter();
        let dense = dense.map(|edges| densely(edges, &numbering, largest));
        rows::sorted(dense.collect(), vertices, |index| index, count)
    };
    let out_degree = out_degree.into_iter().map(AtomicU64::into_inner).collect();
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

#[cfg(test)]
mod tests {
    use super::super::rows::accumulate;
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
