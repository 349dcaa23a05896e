//! Parsed edges to in-edges by target: their ids become dense indexes, and they rows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::GraphError;
use super::edges::{Edges, Spreader, Weight};
use super::numbering::{Declared, Numbering};
use super::rows::{self, Rows};

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
    let all: usize = edges.iter().map(Edges::len).sum();
    let degrees = Degrees::new(vertices, all);
    let count = |sources: &[u32]| degrees.count(sources);
    let is_close = |edges: &Edges<W>| edges.wide().next().is_none();
    let rows = if matches!(numbering, Numbering::Bitmap { .. }) && edges.iter().all(is_close) {
        rows::sorted(edges, vertices, |id| numbering.index(id.into()), count)
    } else {
        // Ids are spread out: dense indexes are not.
        let largest = vertices.saturating_sub(1) as u64;
        let dense = edges.into_par_iter();
        let dense = dense.map(|edges| densely(edges, &numbering, largest));
        rows::sorted(dense.collect(), vertices, |index| index, count)
    };
    Ok((numbering.into_ids(), rows, degrees.finish()))
}

/// The same edges by dense indexes.
fn densely<W: Weight>(edges: Edges<W>, numbering: &Numbering, largest: u64) -> Edges<W> {
    let mut dense = Spreader::new(largest);
    let mut push = |source: u64, target: u64, weight: W| {
        let (source, target) = (numbering.index(source), numbering.index(target));
        dense.push(source.into(), target.into(), weight);
    };
    let (buckets, wide) = edges.into_parts();
    // Each piece is dropped before the next is looked at.
    for piece in wide {
        for (source, target, weight) in piece {
            push(source, target, weight);
        }
    }
    for piece in buckets.into_iter().flatten() {
        for (source, target, weight) in piece.iter() {
            push(source.into(), target.into(), weight);
        }
    }
    dense.finish()
}

/// How many out-edges vertices have, counted by several threads.
enum Degrees {
    /// A list for each thread.
    Each(Vec<Mutex<Vec<u32>>>),
    /// One list.
    Together(Vec<AtomicU64>),
}

impl Degrees {
    /// For this many vertices, with so many edges altogether.
    fn new(vertices: usize, edges: usize) -> Degrees {
        let threads = rayon::current_num_threads();
        // Counting in one list takes four times as long. Several may take as much memory as edges do, and no count may
        // overflow.
        if vertices.saturating_mul(threads) <= edges && u32::try_from(edges).is_ok() {
            let lists = (0..threads).map(|_| Mutex::new(vec![0; vertices]));
            Degrees::Each(lists.collect())
        } else {
            Degrees::Together((0..vertices).map(|_| AtomicU64::new(0)).collect())
        }
    }

    /// Counts one out-edge for each of these sources.
    fn count(&self, sources: &[u32]) {
        match self {
            Degrees::Each(lists) => {
                let thread = rayon::current_thread_index().unwrap_or_default();
                let list = lists[thread].lock();
                let mut list = list.expect("no holder of this lock panics");
                sources
                    .iter()
                    .for_each(|&source| list[source as usize] += 1);
            }
            Degrees::Together(list) => {
                for &source in sources {
                    list[source as usize].fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn finish(self) -> Vec<u64> {
        match self {
            Degrees::Each(lists) => {
                let lists = lists.into_iter().map(Mutex::into_inner);
                let lists: Vec<Vec<u32>> = lists
                    .map(|list| list.expect("no holder of this lock panics"))
                    .collect();
                let vertices = lists.first().map_or(0, Vec::len);
                let mut sum = vec![0; vertices];
                for list in lists {
                    let pairs = sum.iter_mut().zip(list);
                    pairs.for_each(|(sum, count)| *sum += u64::from(count));
                }
                sum
            }
            Degrees::Together(list) => list.into_iter().map(AtomicU64::into_inner).collect(),
        }
    }
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
            let mut threads: Vec<Spreader<f64>> = (0..3).map(|_| Spreader::new(largest)).collect();
            for (block, lines) in edges.chunks(500).enumerate() {
                let thread = &mut threads[block * block % 3];
                thread.begin_block(block);
                lines.iter().for_each(|&(s, t, w)| thread.push(s, t, w));
            }
            let threads = threads.into_iter().map(Spreader::finish).collect();
            assert_eq!(
                by_target(threads, &Declared::Nothing).unwrap(),
                slowly(&edges),
                "{factor} {offset}"
            );
        }
    }
}
