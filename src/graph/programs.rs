//! Vertex programs: four of the six algorithms of LDBC Graphalytics (A. Iosup and others, "The LDBC Graphalytics Benchmark",
//! arXiv 2011.15028), by its definitions.

use rustc_hash::FxHashMap;

use super::vertex::{Along, VertexProgram};

/// What breadth-first search says of a vertex that cannot be reached.
pub const UNREACHABLE: u64 = i64::MAX as u64;

/// Breadth-first search: the least number of edges from the source.
#[derive(Debug, Clone)]
pub struct Bfs {
    /// The id to start at.
    pub source: u64,
}

impl VertexProgram for Bfs {
    type Value = u64;
    const ALONG: Along = Along::In;
    const MONOTONE: bool = true;

    fn start(&self, id: u64) -> u64 {
        if id == self.source { 0 } else { UNREACHABLE }
    }

    fn next(&mut self, own: u64, neighbours: impl Iterator<Item = (u64, f64)>) -> u64 {
        let least = neighbours.map(|(hops, _)| hops).min();
        let through = least.map_or(UNREACHABLE, |hops| hops.saturating_add(1));
        own.min(through).min(UNREACHABLE)
    }
}

/// The length of a shortest path that is at least this long. Infinity would say that there is no path.
pub const TOO_LONG: f64 = f64::MAX;

/// Single-source shortest paths: the least sum of weights, which are not negative, from the source (R. Bellman, "On a
/// Routing Problem", 1958); infinite where there is no path, and [`TOO_LONG`] where an `f64` does not hold the length.
#[derive(Debug, Clone)]
pub struct Sssp {
    /// The id to start at.
    pub source: u64,
}

impl VertexProgram for Sssp {
    type Value = f64;
    const ALONG: Along = Along::In;
    const MONOTONE: bool = true;

    fn start(&self, id: u64) -> f64 {
        if id == self.source {
            0.0
        } else {
            f64::INFINITY
        }
    }

    fn next(&mut self, own: f64, neighbours: impl Iterator<Item = (f64, f64)>) -> f64 {
        let through = |(length, weight): (f64, f64)| match length {
            f64::INFINITY => f64::INFINITY,
            length => (length + weight).min(TOO_LONG),
        };
        neighbours.map(through).fold(own, f64::min)
    }
}

/// Weakly connected components: the smallest id that can be reached when directions are forgotten.
#[derive(Debug, Clone)]
pub struct Wcc;

impl VertexProgram for Wcc {
    type Value = u64;
    const ALONG: Along = Along::Both;
    const MONOTONE: bool = true;

    fn start(&self, id: u64) -> u64 {
        id
    }

    fn next(&mut self, own: u64, neighbours: impl Iterator<Item = (u64, f64)>) -> u64 {
        neighbours.map(|(label, _)| label).fold(own, u64::min)
    }
}

/// Communities by label propagation (U. Raghavan, R. Albert, S. Kumara, "Near linear time algorithm to detect community
/// structures in large-scale networks", 2007), as Graphalytics makes it repeatable: all vertices at once take the label
/// that most of their neighbours have, and of those the smallest. An edge in both directions counts twice.
#[derive(Debug, Clone)]
pub struct Cdlp {
    iterations: u64,
    counts: FxHashMap<u64, u32>,
}

impl Cdlp {
    /// With so many rounds.
    pub fn new(iterations: u64) -> Cdlp {
        Cdlp {
            iterations,
            counts: FxHashMap::default(),
        }
    }
}

impl VertexProgram for Cdlp {
    type Value = u64;
    const ALONG: Along = Along::Both;
    const MONOTONE: bool = false;

    fn start(&self, id: u64) -> u64 {
        id
    }

    fn next(&mut self, own: u64, neighbours: impl Iterator<Item = (u64, f64)>) -> u64 {
        self.counts.clear();
        for (label, _) in neighbours {
            *self.counts.entry(label).or_default() += 1;
        }
        let most = self
            .counts
            .iter()
            .max_by_key(|(label, count)| (**count, !**label));
        most.map_or(own, |(label, _)| *label)
    }

    fn supersteps(&self) -> Option<u64> {
        Some(self.iterations)
    }
}
