//! Splitting a graph's vertices into parts, and measuring a split.
//!
//! METIS cuts few edges, `fennel` not many more for a hundredth of the time; `range` and `hash` take no time at all.
//! [`choice`](super::choice) picks one. Whatever the method, each part has at least one vertex.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::fennel::Fennel;
use super::metis::metis_parts;
use super::{Graph, GraphError};

/// The most parts. Each part holds two offsets for each other part, so all together take 16 bytes times the square
/// of their number: 4 GiB at this bound.
pub const PARTS_MAX: u32 = 16_384;

/// How vertices are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// METIS: parts of nearly equal size that cut few edges.
    #[default]
    Metis,
    /// Streaming: one look at each vertex ([`fennel`](super::fennel)).
    Fennel,
    /// Contiguous ranges of ascending ids. Good when near ids are neighbours.
    Range,
    /// A hash of the id (splitmix64) modulo the number of parts.
    Hash,
    /// Made elsewhere, and read from a file.
    Import,
}

impl Partitioner {
    /// Those that make a partition, by the names that users give.
    pub const MAKERS: [Partitioner; 4] = [
        Partitioner::Metis,
        Partitioner::Fennel,
        Partitioner::Range,
        Partitioner::Hash,
    ];
}

impl fmt::Display for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Partitioner::Metis => "metis",
            Partitioner::Fennel => "fennel",
            Partitioner::Range => "range",
            Partitioner::Hash => "hash",
            Partitioner::Import => "import",
        })
    }
}

impl FromStr for Partitioner {
    type Err = GraphError;

    fn from_str(name: &str) -> Result<Partitioner, GraphError> {
        Partitioner::MAKERS
            .into_iter()
            .find(|partitioner| partitioner.to_string() == name)
            .ok_or_else(|| GraphError::Partitioner { name: name.into() })
    }
}

/// What parts have about equally much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// Vertices.
    #[default]
    Vertices,
    /// In-edges, which are the work of a superstep, and vertices.
    Edges,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balance::Vertices => "vertices",
            Balance::Edges => "edges",
        })
    }
}

/// Which part each vertex belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number of parts; each has at least one vertex.
    pub parts: u32,
    /// The part of each vertex, by dense index.
    pub of: Vec<u32>,
}

/// How good a partition is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Directed edges (repeats counted) whose ends lie in different parts.
    pub cut_edges: u64,
    /// Pairs of a vertex and another part that reads it: values through the switch in each iteration, when each
    /// part has a worker of its own.
    pub boundary_values: u64,
    /// Vertices of the largest part over the average; 1 is perfect.
    pub vertex_balance: f64,
    /// In-edges of the part that has most, over the average; 1 is perfect, and what a graph without edges has.
    pub edge_balance: f64,
}

/// Seconds for each in-edge of a part in a superstep of PageRank, measured on one core of an AMD EPYC.
const EDGE_SECONDS: f64 = 1.3e-9;

/// Bytes of values that a switch passes on in a second.
const SWITCH_RATE: f64 = 1.5e9;

impl Quality {
    /// Seconds that a superstep of PageRank is expected to take when each part has a core of its own: the edges of the
    /// largest part, and then all values through one switch.
    pub fn step_seconds(&self, edges: u64, parts: u32) -> f64 {
        let largest = self.edge_balance * edges as f64 / f64::from(parts);
        largest * EDGE_SECONDS + self.boundary_values as f64 * 8.0 / SWITCH_RATE
    }
}

/// Splits the graph's vertices into `parts`.
///
/// # Errors
///
/// [`GraphError::Parts`] for no parts, more than vertices, or more than [`PARTS_MAX`]; those of [`metis_parts`].
pub fn partition(
    graph: &Graph,
    parts: u32,
    partitioner: Partitioner,
    balance: Balance,
) -> Result<Partition, GraphError> {
    check_parts(graph, parts)?;
    let vertices = graph.vertices();
    let weights = || (balance == Balance::Edges).then(|| work(graph));
    let of = match partitioner {
        Partitioner::Metis => metis_parts(graph, parts, weights().as_deref())?,
        Partitioner::Fennel => {
            let mut fennel = Fennel::new(graph, parts, weights());
            fennel.pass();
            fennel.into_parts()
        }
        Partitioner::Range => match weights() {
            None => (0..vertices)
                .map(|v| (v * u64::from(parts) / vertices) as u32)
                .collect(),
            Some(weights) => even_ranges(&weights, parts),
        },
        Partitioner::Hash => graph
            .ids
            .iter()
            .map(|&id| (splitmix64(id) % u64::from(parts)) as u32)
            .collect(),
        Partitioner::Import => {
            let problem = "a partition to import is read from its file".into();
            return Err(GraphError::Parts { problem });
        }
    };
    Ok(Partition::new(parts, of))
}

/// The work of each vertex in a superstep: its in-edges, and as much as one of them for itself.
pub(crate) fn work(graph: &Graph) -> Vec<u64> {
    let degrees = graph.in_offsets.windows(2);
    degrees.map(|bounds| bounds[1] - bounds[0] + 1).collect()
}

/// Ranges of about as much weight each.
fn even_ranges(weights: &[u64], parts: u32) -> Vec<u32> {
    let all: u64 = weights.iter().sum();
    let mut before = 0u64;
    let part_of = |&weight: &u64| {
        // The middle of a vertex says where it belongs.
        let middle = u128::from(2 * before + weight);
        before += weight;
        (middle * u128::from(parts) / u128::from(2 * all.max(1))) as u32
    };
    weights.iter().map(part_of).collect()
}

/// Refuses numbers of parts that a graph cannot have.
///
/// # Errors
///
/// [`GraphError::Parts`].
pub fn check_parts(graph: &Graph, parts: u32) -> Result<(), GraphError> {
    let vertices = graph.vertices();
    let refused = |problem: String| Err(GraphError::Parts { problem });
    if parts == 0 {
        return refused("0 parts were asked for; a graph has at least 1".into());
    }
    if u64::from(parts) > vertices {
        return refused(format!(
            "the graph has {vertices} vertices, so at most {vertices} parts; {parts} were asked for"
        ));
    }
    if parts > PARTS_MAX {
        return refused(format!(
            "{parts} parts were asked for; there can be at most {PARTS_MAX}"
        ));
    }
    Ok(())
}

/// Measures a partition of this graph.
///
/// # Panics
///
/// When the partition is of another graph.
pub fn quality(graph: &Graph, partition: &Partition) -> Quality {
    assert_eq!(
        graph.ids.len(),
        partition.of.len(),
        "the partition is of this graph"
    );
    let members = partition.members();
    let parts: Vec<(u64, u64, u64, u64)> = (0..partition.parts)
        .into_par_iter()
        .map(|part| {
            let members = members.of(part);
            let (mut edges, mut cut, mut values) = (0, 0, 0);
            // A value counts once for the part, however often it is read.
            let mut seen = vec![0u64; graph.ids.len() / 64 + 1];
            for &v in members {
                let sources = graph.sources_of(v as usize);
                edges += sources.len() as u64;
                for &source in sources {
                    if partition.of[source as usize] != part {
                        cut += 1;
                        let (word, bit) = (&mut seen[source as usize / 64], 1 << (source % 64));
                        values += u64::from(*word & bit == 0);
                        *word |= bit;
                    }
                }
            }
            (members.len() as u64, edges, cut, values)
        })
        .collect();
    let largest_vertices = parts.iter().map(|part| part.0).max().unwrap_or_default();
    let largest_edges = parts.iter().map(|part| part.1).max().unwrap_or_default();
    let cut_edges = parts.iter().map(|part| part.2).sum();
    let boundary_values = parts.iter().map(|part| part.3).sum();
    let balance = |largest: u64, all: u64| match all {
        0 => 1.0,
        _ => largest as f64 * f64::from(partition.parts) / all as f64,
    };
    Quality {
        cut_edges,
        boundary_values,
        vertex_balance: balance(largest_vertices, graph.vertices()),
        edge_balance: balance(largest_edges, graph.edges()),
    }
}

impl Partition {
    /// The partition that has vertex after vertex in these parts, once none is empty.
    pub fn new(parts: u32, of: Vec<u32>) -> Partition {
        let mut partition = Partition { parts, of };
        partition.fill_empty_parts();
        partition
    }

    /// The vertices of each part.
    pub(crate) fn members(&self) -> Members {
        let mut offsets = vec![0usize; self.parts as usize + 1];
        for &part in &self.of {
            offsets[part as usize + 1] += 1;
        }
        for part in 0..self.parts as usize {
            offsets[part + 1] += offsets[part];
        }
        let mut next = offsets.clone();
        let mut vertices = vec![0u32; self.of.len()];
        for (v, &part) in self.of.iter().enumerate() {
            vertices[next[part as usize]] = v as u32;
            next[part as usize] += 1;
        }
        Members { offsets, vertices }
    }

    /// Gives each empty part a vertex of the part that is largest at that moment: its last vertex, and of equally
    /// large parts the first, so that the result depends on the input alone. Needs as many vertices as parts.
    fn fill_empty_parts(&mut self) {
        let members = self.members();
        let empty: Vec<u32> = (0..self.parts)
            .filter(|&part| members.of(part).is_empty())
            .collect();
        if empty.is_empty() {
            return;
        }
        let mut left: Vec<usize> = (0..self.parts).map(|part| members.of(part).len()).collect();
        let mut largest: BinaryHeap<(usize, Reverse<u32>)> = (0..self.parts)
            .map(|part| (left[part as usize], Reverse(part)))
            .collect();
        for part in empty {
            let (size, Reverse(from)) = largest.pop().expect("there is at least one part");
            let v = members.of(from)[size - 1];
            self.of[v as usize] = part;
            left[from as usize] -= 1;
            largest.push((left[from as usize], Reverse(from)));
        }
    }
}

/// The vertices of each part, ascending.
pub(crate) struct Members {
    offsets: Vec<usize>,
    vertices: Vec<u32>,
}

impl Members {
    /// The vertices (dense, ascending) of a part.
    pub(crate) fn of(&self, part: u32) -> &[u32] {
        &self.vertices[self.offsets[part as usize]..self.offsets[part as usize + 1]]
    }
}

/// The finaliser of splitmix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014) over one step: near ids get unrelated values.
pub(crate) fn splitmix64(id: u64) -> u64 {
    let mut z = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(vertices: u64) -> Graph {
        Graph::from_edges((1..vertices).map(|v| (v - 1, v)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn splitmix64_gives_the_published_values() {
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_partitioner_is_named_as_it_is_printed() {
        for partitioner in Partitioner::MAKERS {
            assert_eq!(
                partitioner.to_string().parse::<Partitioner>().unwrap(),
                partitioner
            );
        }
        let error = "Metis ".parse::<Partitioner>().unwrap_err().to_string();
        assert_eq!(
            error,
            "no partitioner is named \"Metis \"; there are auto, metis, fennel, range and hash"
        );
    }

    #[test]
    fn numbers_of_parts_that_cannot_be_had_are_refused() {
        let refusal = |parts| {
            partition(&path(3), parts, Partitioner::Hash, Balance::Vertices)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refusal(0), "0 parts were asked for; a graph has at least 1");
        assert_eq!(
            refusal(4),
            "the graph has 3 vertices, so at most 3 parts; 4 were asked for"
        );
    }

    #[test]
    fn no_part_is_empty_even_when_there_are_as_many_as_vertices() {
        for partitioner in Partitioner::MAKERS {
            for vertices in 2..20 {
                for balance in [Balance::Vertices, Balance::Edges] {
                    let graph = path(vertices);
                    let split = partition(&graph, vertices as u32, partitioner, balance).unwrap();
                    let mut parts = split.of.clone();
                    parts.sort_unstable();
                    assert_eq!(parts, (0..vertices as u32).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn quality_counts_a_value_once_for_each_part_that_reads_it() {
        // 0 -> 1, 0 -> 2, 0 -> 3, 0 -> 3 again; parts {0, 1} and {2, 3}.
        let graph = Graph::from_edges([(0, 1), (0, 2), (0, 3), (0, 3)]).unwrap();
        let split = partition(&graph, 2, Partitioner::Range, Balance::Vertices).unwrap();
        let found = quality(&graph, &split);
        assert_eq!((found.cut_edges, found.boundary_values), (3, 1));
        assert_eq!((found.vertex_balance, found.edge_balance), (1.0, 1.5));
    }
}
