//! A graph in memory: vertices numbered densely, in-edges by target (compressed sparse rows).
//!
//! The dense index of a vertex is its place among all ids in ascending order, so it does not depend on the order
//! of the file's lines; nor does anything else here, nor on how many threads built it.

use std::ops::Range;

use rayon::prelude::*;

use super::GraphError;
use super::by_target::by_target;
use super::edges::{Edges, Weight};
use super::numbering::Declared;
use super::partition::splitmix64;
use super::rows::{self, Rows};

/// The most vertices a graph may have: a dense index, and one value that means "none", fit in 32 bits.
pub const VERTICES_MAX: u64 = u32::MAX as u64;

/// A directed graph, indexed for pulling along in-edges.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// The original id of each vertex, ascending: dense index -> id.
    pub ids: Vec<u64>,
    /// Where the in-edges of each vertex start in `in_sources`; one more entry than vertices.
    pub in_offsets: Vec<u64>,
    /// The sources (dense) of the in-edges, by target, ascending within a target; a repeated edge is repeated.
    pub in_sources: Vec<u32>,
    /// The weight of each in-edge, if edges have weights; of repeated edges ascending.
    pub in_weights: Option<Vec<f64>>,
    /// Out-edges of each vertex, repeats counted.
    pub out_degree: Vec<u32>,
    /// Each edge has its reverse, equally often (but for a chance of 2^-64).
    pub symmetric: bool,
}

/// The neighbours of each vertex when directions, repeats and self loops are forgotten: what METIS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symmetric {
    /// Where the neighbours of each vertex start in `adjncy`; one more entry than vertices.
    pub xadj: Vec<i32>,
    /// The neighbours (dense), ascending within a vertex.
    pub adjncy: Vec<i32>,
}

impl Graph {
    /// The graph of these edges. Its vertices are the ids that occur; each pair is one edge, repeats and self
    /// loops included.
    ///
    /// # Errors
    ///
    /// [`GraphError::NoVertices`] without edges, [`GraphError::TooManyVertices`] above [`VERTICES_MAX`].
    pub fn from_edges(edges: impl Into<Vec<(u64, u64)>>) -> Result<Graph, GraphError> {
        Graph::from_edges_and_vertices(edges, &[])
    }

    /// The graph of these edges, with the declared vertices (in any order, repeats are harmless) added to those
    /// that occur.
    ///
    /// # Errors
    ///
    /// As for [`Graph::from_edges`], when there are neither edges nor declared vertices.
    pub fn from_edges_and_vertices(
        edges: impl Into<Vec<(u64, u64)>>,
        declared: &[u64],
    ) -> Result<Graph, GraphError> {
        let edges: Vec<(u64, u64)> = edges.into();
        let edges: Edges<()> = edges.into_iter().map(|(s, t)| (s, t, ())).collect();
        Graph::build(vec![edges], &Declared::Ids(declared.to_vec()), false)
    }

    /// The graph of the edges that threads have parsed, and declared vertices; `unique` drops repeats of an edge, of which
    /// the smallest weight stays. Uses all threads of the pool that it is called in.
    ///
    /// Memory: 4 bytes an edge (8 more with weights) beside the edges themselves, which are given up on the way.
    ///
    /// # Errors
    ///
    /// As for [`Graph::from_edges`]; [`GraphError::Setting`] for 2^32 or more edges that leave one vertex.
    pub fn build<W: Weight>(
        edges: Vec<Edges<W>>,
        declared: &Declared,
        unique: bool,
    ) -> Result<Graph, GraphError> {
        let (ids, mut incoming, out_degree) = by_target(edges, declared)?;
        let mut out_degree = out_degree
            .into_iter()
            .map(|degree| {
                u32::try_from(degree).map_err(|_| GraphError::Setting {
                    what: "the number of out-edges of one vertex",
                    value: degree.to_string(),
                    range: "below 2^32",
                })
            })
            .collect::<Result<Vec<u32>, GraphError>>()?;
        if unique && drop_repeats(&mut incoming) {
            out_degree.fill(0);
            for &source in &incoming.columns {
                out_degree[source as usize] += 1;
            }
        }
        Ok(Graph {
            ids,
            symmetric: is_symmetric(&incoming, &out_degree),
            in_offsets: incoming.offsets,
            in_sources: incoming.columns,
            in_weights: W::numbers(incoming.weights),
            out_degree,
        })
    }

    /// The out-edges: by source, targets ascending.
    pub fn out_edges(&self) -> Rows<()> {
        rows::transposed(&self.in_offsets, &self.in_sources, self.ids.len())
    }

    /// The sum of the weights of each vertex's out-edges, added in the order of `in_sources`; `None` if edges have no weights.
    pub fn out_weights(&self) -> Option<Vec<f64>> {
        let weights = self.in_weights.as_ref()?;
        let mut sums = vec![0.0; self.ids.len()];
        for (&source, weight) in self.in_sources.iter().zip(weights) {
            sums[source as usize] += weight;
        }
        Some(sums)
    }

    /// Number of vertices.
    pub fn vertices(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Number of edges, repeats and self loops counted.
    pub fn edges(&self) -> u64 {
        self.in_sources.len() as u64
    }

    /// Number of vertices with no out-edge.
    pub fn dangling(&self) -> u64 {
        self.out_degree
            .iter()
            .filter(|&&degree| degree == 0)
            .count() as u64
    }

    /// Number of edges from a vertex to itself, repeats counted.
    pub fn self_loops(&self) -> u64 {
        let loops_of = |v: usize| {
            self.sources_of(v)
                .iter()
                .filter(|&&s| s as usize == v)
                .count() as u64
        };
        (0..self.ids.len()).map(loops_of).sum()
    }

    /// The sources (dense, ascending) of the in-edges of vertex `v` (dense).
    ///
    /// # Panics
    ///
    /// When there is no vertex `v`.
    pub fn sources_of(&self, v: usize) -> &[u32] {
        &self.in_sources[self.in_offsets[v] as usize..self.in_offsets[v + 1] as usize]
    }

    /// The undirected graph without repeats and loops.
    ///
    /// # Errors
    ///
    /// [`GraphError::TooManyNeighbours`] when it does not fit the 32-bit signed indexes of METIS.
    pub fn symmetric(&self) -> Result<Symmetric, GraphError> {
        let too_many = |entries: u64| GraphError::TooManyNeighbours {
            entries,
            max: i32::MAX as u64,
        };
        i32::try_from(self.ids.len()).map_err(|_| too_many(self.vertices()))?;

        let out = self.out_edges();
        let vertices = self.ids.len();
        let mut xadj = Vec::with_capacity(vertices + 1);
        let mut adjncy: Vec<i32> = Vec::with_capacity(self.in_sources.len());
        xadj.push(0);
        for v in 0..vertices {
            for neighbour in (Union {
                a: self.sources_of(v),
                b: out.of(v),
            }) {
                if neighbour as usize != v {
                    adjncy.push(neighbour as i32);
                }
            }
            xadj.push(i32::try_from(adjncy.len()).map_err(|_| too_many(adjncy.len() as u64))?);
        }
        Ok(Symmetric { xadj, adjncy })
    }
}

/// Whether each edge has its reverse, equally often.
fn is_symmetric<W: Weight>(incoming: &Rows<W>, out_degree: &[u32]) -> bool {
    let degrees = incoming.offsets.windows(2).zip(out_degree);
    for (bounds, &out) in degrees {
        if bounds[1] - bounds[0] != u64::from(out) {
            return false;
        }
    }
    let skew_of = |rows: Range<usize>| {
        rows.fold(0u64, |skew, target| {
            let target_index = target as u32;
            incoming.of(target).iter().fold(skew, |skew, &source| {
                skew.wrapping_add(fingerprint(source, target_index))
                    .wrapping_sub(fingerprint(target_index, source))
            })
        })
    };
    let shares = rows::shares(&incoming.offsets, 4 * rayon::current_num_threads());
    let skews = shares.into_par_iter().map(skew_of);
    skews.reduce(|| 0, u64::wrapping_add) == 0
}

/// A number for a pair: sums of them tell multisets of pairs apart.
fn fingerprint(a: u32, b: u32) -> u64 {
    splitmix64(u64::from(a) << 32 | u64::from(b))
}

/// Keeps the first of equal columns in each row. True if there were any others.
fn drop_repeats<W: Weight>(rows: &mut Rows<W>) -> bool {
    let Rows {
        offsets,
        columns,
        weights,
    } = rows;
    let mut kept = 0;
    let mut start = 0;
    for offset in &mut offsets[1..] {
        let end = *offset as usize;
        let first = kept;
        for at in start..end {
            if kept == first || columns[kept - 1] != columns[at] {
                columns[kept] = columns[at];
                weights[kept] = weights[at];
                kept += 1;
            }
        }
        *offset = kept as u64;
        start = end;
    }
    let dropped = kept < columns.len();
    columns.truncate(kept);
    weights.truncate(kept);
    dropped
}

/// The distinct values of two ascending slices, ascending.
struct Union<'a> {
    a: &'a [u32],
    b: &'a [u32],
}

impl Iterator for Union<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let least = match (self.a.first(), self.b.first()) {
            (Some(&a), Some(&b)) => a.min(b),
            (Some(&only), None) | (None, Some(&only)) => only,
            (None, None) => return None,
        };
        for side in [&mut self.a, &mut self.b] {
            while let [first, rest @ ..] = side
                && *first == least
            {
                *side = rest;
            }
        }
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 -> 20 twice, 30 -> 20, 20 -> 20, 20 -> 10.
    fn small() -> Graph {
        Graph::from_edges([(30, 20), (10, 20), (20, 20), (10, 20), (20, 10)]).unwrap()
    }

    #[test]
    fn vertices_are_numbered_by_id_and_in_edges_ordered_by_source() {
        let graph = small();
        assert_eq!(graph.ids, [10, 20, 30]);
        assert_eq!(graph.in_offsets, [0, 1, 5, 5]);
        assert_eq!(graph.in_sources, [1, 0, 0, 1, 2]);
        assert_eq!(graph.out_degree, [2, 2, 1]);
        assert_eq!(
            (
                graph.vertices(),
                graph.edges(),
                graph.self_loops(),
                graph.dangling()
            ),
            (3, 5, 1, 0)
        );
    }

    #[test]
    fn ids_far_apart_give_the_same_graph_as_ids_close_together() {
        let far = |id: u64| u64::MAX - 1000 + id * 7;
        let edges =
            [(30, 20), (10, 20), (20, 20), (10, 20), (20, 10)].map(|(s, t)| (far(s), far(t)));
        let graph = Graph::from_edges(edges).unwrap();
        assert_eq!(graph.ids, [far(10), far(20), far(30)]);
        let ids = small().ids;
        assert_eq!(Graph { ids, ..graph }, small());
    }

    #[test]
    fn declared_vertices_join_those_that_occur() {
        let graph = Graph::from_edges_and_vertices([(2, 4)], &[9, 2, 2]).unwrap();
        assert_eq!(graph.ids, [2, 4, 9]);
        assert_eq!(graph.dangling(), 2);
        let bare = Graph::from_edges_and_vertices([], &[7]).unwrap();
        assert_eq!((bare.vertices(), bare.edges()), (1, 0));
        assert!(matches!(Graph::from_edges([]), Err(GraphError::NoVertices)));
    }

    #[test]
    fn the_symmetric_graph_has_each_neighbour_once_and_no_loops() {
        let symmetric = small().symmetric().unwrap();
        assert_eq!(symmetric.xadj, [0, 1, 3, 4]);
        assert_eq!(symmetric.adjncy, [1, 0, 2, 1]);
    }

    #[test]
    fn repeats_are_dropped_if_asked_and_their_smallest_weight_stays() {
        let edges = [
            (1, 2, 5.0),
            (3, 2, 2.0),
            (1, 2, 4.0),
            (2, 1, 7.0),
            (1, 2, 6.0),
        ];
        let build = |unique| {
            Graph::build(
                vec![edges.into_iter().collect()],
                &Declared::Nothing,
                unique,
            )
        };
        let all = build(false).unwrap();
        assert_eq!(all.in_sources, [1, 0, 0, 0, 2]);
        assert_eq!(all.in_weights, Some(vec![7.0, 4.0, 5.0, 6.0, 2.0]));
        let once = build(true).unwrap();
        assert_eq!(once.in_sources, [1, 0, 2]);
        assert_eq!(once.in_weights, Some(vec![7.0, 4.0, 2.0]));
        assert_eq!(once.out_degree, [1, 1, 1]);
    }

    #[test]
    fn a_graph_is_symmetric_if_every_edge_has_its_reverse_as_often() {
        let symmetric = |edges: &[(u64, u64)]| Graph::from_edges(edges).unwrap().symmetric;
        assert!(symmetric(&[(1, 2), (2, 1), (3, 3)]));
        assert!(!symmetric(&[(1, 2), (2, 1), (1, 2)]));
        assert!(!symmetric(&[(1, 2), (2, 3), (3, 1)]));
    }
}
