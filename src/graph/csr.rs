//! A graph in memory: vertices numbered densely, in-edges by target (compressed sparse rows).
//!
//! The dense index of a vertex is its place among all ids in ascending order, so it does not depend on the order
//! of the file's lines; nor does anything else here.

use super::GraphError;

/// The most vertices a graph may have: a dense index, and one value that means "none", fit in 32 bits.
pub const VERTICES_MAX: u64 = u32::MAX as u64;

/// A directed graph, indexed for pulling along in-edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The original id of each vertex, ascending: dense index -> id.
    pub ids: Vec<u64>,
    /// Where the in-edges of each vertex start in `in_sources`; one more entry than vertices.
    pub in_offsets: Vec<u64>,
    /// The sources (dense) of the in-edges, by target, ascending within a target; a repeated edge is repeated.
    pub in_sources: Vec<u32>,
    /// Out-edges of each vertex, repeats counted.
    pub out_degree: Vec<u32>,
}

/// The neighbours of each vertex when directions, repeats and self loops are forgotten: what a partitioner needs.
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
        let edges = edges.into();
        let numbering = Numbering::new(&edges, declared)?;
        let ids = numbering.ids();
        let vertices = ids.len();

        let dense: Vec<(u32, u32)> = edges
            .iter()
            .map(|&(source, target)| (numbering.dense(source), numbering.dense(target)))
            .collect();
        drop(edges);

        let mut out_degree = vec![0u64; vertices];
        let mut in_offsets = vec![0u64; vertices + 1];
        for &(source, target) in &dense {
            out_degree[source as usize] += 1;
            in_offsets[target as usize + 1] += 1;
        }
        if let Some(&most) = out_degree
            .iter()
            .find(|&&degree| degree > u64::from(u32::MAX))
        {
            return Err(GraphError::Setting {
                what: "the number of out-edges of one vertex",
                value: most.to_string(),
                range: "below 2^32",
            });
        }
        accumulate(&mut in_offsets);

        // Two counting sorts: by source, then, walking sources upwards, by target. The second is stable, so the
        // in-edges of a vertex end up ordered by source whatever the order of the lines was.
        let mut out_offsets = vec![0u64; vertices + 1];
        out_offsets[1..].copy_from_slice(&out_degree);
        accumulate(&mut out_offsets);
        let mut next = out_offsets.clone();
        let mut targets = vec![0u32; dense.len()];
        for &(source, target) in &dense {
            let at = &mut next[source as usize];
            targets[*at as usize] = target;
            *at += 1;
        }
        drop(dense);
        let in_sources = transposed(&out_offsets, &targets, &in_offsets);

        Ok(Graph {
            ids,
            in_offsets,
            in_sources,
            out_degree: out_degree.into_iter().map(|degree| degree as u32).collect(),
        })
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

        let vertices = self.ids.len();
        let mut out_offsets = vec![0u64; vertices + 1];
        for (offset, &degree) in out_offsets[1..].iter_mut().zip(&self.out_degree) {
            *offset = u64::from(degree);
        }
        accumulate(&mut out_offsets);
        let out_targets = transposed(&self.in_offsets, &self.in_sources, &out_offsets);

        let mut xadj = Vec::with_capacity(vertices + 1);
        let mut adjncy: Vec<i32> = Vec::with_capacity(self.in_sources.len());
        xadj.push(0);
        for v in 0..vertices {
            let targets = &out_targets[out_offsets[v] as usize..out_offsets[v + 1] as usize];
            for neighbour in (Union {
                a: self.sources_of(v),
                b: targets,
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

impl From<super::EdgeList> for Vec<(u64, u64)> {
    fn from(list: super::EdgeList) -> Vec<(u64, u64)> {
        list.edges
    }
}

/// How an id becomes a dense index.
enum Numbering {
    /// Ids lie close together: a table from each id to its index.
    Table { dense: Vec<u32>, vertices: usize },
    /// Ids are spread out: search among the sorted ones.
    Search { ids: Vec<u64> },
}

impl Numbering {
    /// A table may take this many entries for each end of an edge, 4 bytes each, before searching is cheaper.
    const TABLE_SPREAD: u64 = 4;

    fn new(edges: &[(u64, u64)], declared: &[u64]) -> Result<Numbering, GraphError> {
        let ends = || edges.iter().flat_map(|&(source, target)| [source, target]);
        let all = || ends().chain(declared.iter().copied());
        let largest = all().max().ok_or(GraphError::NoVertices)?;
        let occurrences = (edges.len() * 2 + declared.len()) as u64;
        let bounded = |vertices: usize| match vertices as u64 {
            vertices if vertices > VERTICES_MAX => Err(GraphError::TooManyVertices {
                vertices,
                max: VERTICES_MAX,
            }),
            _ => Ok(vertices),
        };

        if largest / Numbering::TABLE_SPREAD > occurrences {
            let mut ids: Vec<u64> = all().collect();
            ids.sort_unstable();
            ids.dedup();
            ids.shrink_to_fit();
            bounded(ids.len())?;
            return Ok(Numbering::Search { ids });
        }
        let mut dense = vec![Numbering::ABSENT; largest as usize + 1];
        for id in all() {
            dense[id as usize] = 0;
        }
        let vertices = dense
            .iter()
            .filter(|&&index| index != Numbering::ABSENT)
            .count();
        bounded(vertices)?;
        for (index, entry) in dense
            .iter_mut()
            .filter(|index| **index != Numbering::ABSENT)
            .enumerate()
        {
            *entry = index as u32;
        }
        Ok(Numbering::Table { dense, vertices })
    }

    /// No dense index is this large, since there are at most [`VERTICES_MAX`] vertices.
    const ABSENT: u32 = u32::MAX;

    fn ids(&self) -> Vec<u64> {
        match self {
            Numbering::Search { ids } => ids.clone(),
            Numbering::Table { dense, vertices } => {
                let mut ids = Vec::with_capacity(*vertices);
                let present = dense
                    .iter()
                    .enumerate()
                    .filter(|&(_, &index)| index != Numbering::ABSENT);
                ids.extend(present.map(|(id, _)| id as u64));
                ids
            }
        }
    }

    fn dense(&self, id: u64) -> u32 {
        match self {
            Numbering::Table { dense, .. } => dense[id as usize],
            Numbering::Search { ids } => {
                ids.binary_search(&id).expect("every id was numbered") as u32
            }
        }
    }
}

/// Turns counts, each one place to the right, into offsets.
fn accumulate(offsets: &mut [u64]) {
    let mut sum = 0;
    for offset in offsets {
        sum += *offset;
        *offset = sum;
    }
}

/// The same pairs from the other end: for each entry of `of`, the rows it occurs in, ascending. `offsets` are the
/// rows of `entries`, `into` those of the result.
fn transposed(offsets: &[u64], entries: &[u32], into: &[u64]) -> Vec<u32> {
    let mut next = into.to_vec();
    let mut rows = vec![0u32; entries.len()];
    for (row, bounds) in offsets.windows(2).enumerate() {
        for &entry in &entries[bounds[0] as usize..bounds[1] as usize] {
            let at = &mut next[entry as usize];
            rows[*at as usize] = row as u32;
            *at += 1;
        }
    }
    rows
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
        assert_eq!(
            Graph {
                ids: small().ids,
                ..graph
            },
            small()
        );
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
}
