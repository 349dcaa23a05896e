//! PageRank (L. Page, S. Brin, R. Motwani, T. Winograd, "The PageRank Citation Ranking", 1999) by power iteration,
//! pulling along in-edges, in steps between which a program exchanges values.
//!
//! With N vertices and damping d, starting from 1/N:
//!
//! ```text
//! r'(m) = (1 - d)/N + d * (sum over edges v->m of r(v)/outdeg(v) + D/N)
//! ```
//!
//! where D is the rank held by vertices without out-edges (dangling), or 0 if that mass is to be dropped: with
//! damping 1 that is the plain form r'(m) = sum r(v)/outdeg(v). A repeated edge counts each time.
//!
//! Where edges have weights, an edge carries its share of what leaves its source: r(v) * w(v, m) / (sum of w(v, *)) in place of
//! r(v)/outdeg(v), and a vertex whose out-edges weigh nothing is dangling. With a [`Restart`] its probability p(m)
//! takes the place of 1/N in both terms. Both are as NetworkX defines them; in any case ranks start from 1/N.
//!
//! D and the L1 change are summed for each part by itself, in a fixed order of its vertices, and then over parts as
//! integers ([`fixed`](super::fixed)), so results depend to the bit on the partition, not on which rank has what.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use super::fixed::to_fixed;
use super::{Graph, GraphError, Restart, Shard};

/// Edges between two pauses: about a millisecond.
const EDGES_AT_ONCE: u64 = 1 << 19;

/// What becomes of the rank of vertices without out-edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dangling {
    /// It is spread evenly over all vertices in each iteration, so ranks sum to 1.
    #[default]
    Redistribute,
    /// It is lost in each iteration.
    Drop,
}

impl fmt::Display for Dangling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dangling::Redistribute => "redistribute",
            Dangling::Drop => "drop",
        })
    }
}

impl FromStr for Dangling {
    type Err = GraphError;

    fn from_str(name: &str) -> Result<Dangling, GraphError> {
        match name {
            "redistribute" => Ok(Dangling::Redistribute),
            "drop" => Ok(Dangling::Drop),
            _ => Err(GraphError::Setting {
                what: "dangling",
                value: format!("{name:?}"),
                range: "redistribute or drop",
            }),
        }
    }
}

/// How exactly ranks tell each other their values. They compute with 64 bits in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 64 bits: results are within 1e-9 of one thread's.
    #[default]
    F64,
    /// 32 bits: half the bytes, and ranks within about 1e-7 of what they are.
    F32,
}

/// Which PageRank is computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The probability of following an edge, 0 to 1.
    pub damping: f64,
    /// What becomes of the rank of vertices without out-edges.
    pub dangling: Dangling,
    /// N: the vertices of the whole graph.
    pub vertices: u64,
}

impl Settings {
    /// Damping 0.85 with dangling mass spread, for a graph of this many vertices.
    pub fn new(vertices: u64) -> Settings {
        Settings {
            damping: 0.85,
            dangling: Dangling::Redistribute,
            vertices,
        }
    }

    /// Refuses settings that no PageRank has.
    ///
    /// # Errors
    ///
    /// [`GraphError::Setting`] for a damping outside 0 to 1, [`GraphError::NoVertices`] for no vertices.
    pub fn check(&self) -> Result<(), GraphError> {
        if !(0.0..=1.0).contains(&self.damping) {
            return Err(GraphError::Setting {
                what: "damping",
                value: self.damping.to_string(),
                range: "from 0 to 1",
            });
        }
        if self.vertices == 0 {
            return Err(GraphError::NoVertices);
        }
        Ok(())
    }

    /// The new rank of a vertex whose in-edges bring `incoming`, without a restart of its own.
    fn rank(&self, incoming: f64, dangling_mass: f64) -> f64 {
        let n = self.vertices as f64;
        let spread = match self.dangling {
            Dangling::Redistribute => dangling_mass / n,
            Dangling::Drop => 0.0,
        };
        (1.0 - self.damping) / n + self.damping * (incoming + spread)
    }

    /// The same, where a walk restarts at this vertex with probability `restart`.
    fn rank_with_restart(&self, incoming: f64, dangling_mass: f64, restart: f64) -> f64 {
        let spread = match self.dangling {
            Dangling::Redistribute => dangling_mass * restart,
            Dangling::Drop => 0.0,
        };
        (1.0 - self.damping) * restart + self.damping * (incoming + spread)
    }
}

/// What an iteration did to this rank's vertices, in units of [`to_fixed`]. Add both over all ranks as integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// The sum over vertices of |r' - r|.
    pub l1_change: i128,
    /// The new rank held by vertices without out-edges.
    pub dangling: i128,
}

/// What all ranks of a pack share: r(v)/outdeg(v), or with weights r(v), of each vertex of the shard, then of each ghost, which is
/// what `sources` points into; for this superstep and the next in turn.
#[derive(Debug)]
struct Contributions([RwLock<Vec<f64>>; 2]);

impl Contributions {
    fn read(&self, step: usize) -> RwLockReadGuard<'_, Vec<f64>> {
        self.0[step % 2].read().expect("no holder of it panics")
    }

    fn write(&self, step: usize) -> RwLockWriteGuard<'_, Vec<f64>> {
        self.0[step % 2].write().expect("no holder of it panics")
    }
}

/// The state of one rank, which computes some parts of a shard; the other parts are other ranks' of its pack.
///
/// It starts with [`begin`](PageRank::begin), an exchange, and [`advance`](PageRank::advance). A superstep is
/// [`update_boundary`](PageRank::update_boundary), an exchange, [`update_interior`](PageRank::update_interior) and `advance`.
/// An exchange is, over the ranks of a pack, a [`gather`](PageRank::gather) for each of the shard's `sends`, once all
/// have updated their boundaries, and a [`scatter`](PageRank::scatter) for each of its `receives`; it may last until
/// `advance`, which all ranks of a pack call before any goes on.
#[derive(Debug)]
pub struct PageRank {
    shard: Arc<Shard>,
    settings: Settings,
    /// The places of its parts in the shard, and its vertices.
    parts: Range<usize>,
    vertices: Range<usize>,
    /// Of each of its vertices.
    ranks: Vec<f64>,
    /// The probability of a restart at each of its vertices, if it is not 1/N for all.
    restart: Option<Vec<f64>>,
    /// What each of its vertices gives in the next superstep.
    gives: Vec<f64>,
    contributions: Arc<Contributions>,
    step: usize,
    /// The change and the dangling mass of each of its parts in this superstep, so far.
    sums: Vec<[f64; 2]>,
}

impl PageRank {
    /// All ranks 1/N, of all parts of a shard.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::check`], and [`GraphError::Setting`] for fewer vertices than the shard has.
    pub fn new(shard: Arc<Shard>, settings: Settings) -> Result<PageRank, GraphError> {
        let all = 0..shard.part_ranges.len();
        let mut team = PageRank::team(shard, settings, None, &[all])?;
        Ok(team.swap_remove(0))
    }

    /// As [`PageRank::new`] for the ranks of a pack, of which each computes some parts: `owns` has their places in the shard.
    /// The shard's weights, if it has some, are shares: [`Part::weights_to_shares`](super::Part::weights_to_shares).
    ///
    /// # Errors
    ///
    /// As for [`PageRank::new`].
    ///
    /// # Panics
    ///
    /// When the shard has no such parts.
    pub fn team(
        shard: Arc<Shard>,
        settings: Settings,
        restart: Option<&Restart>,
        owns: &[Range<usize>],
    ) -> Result<Vec<PageRank>, GraphError> {
        settings.check()?;
        if settings.vertices < shard.vertices() as u64 {
            return Err(GraphError::Setting {
                what: "the number of vertices",
                value: settings.vertices.to_string(),
                range: "no less than its ranks have",
            });
        }
        let places = shard.vertices() + shard.ghosts;
        let none = || RwLock::new(vec![0.0; places]);
        let contributions = Arc::new(Contributions([none(), none()]));
        let member = |parts: &Range<usize>| {
            let ranges = &shard.part_ranges[parts.clone()];
            let vertices = match ranges {
                [] => 0..0,
                [only] => only.clone(),
                [first, .., last] => first.start..last.end,
            };
            PageRank {
                settings,
                ranks: vec![1.0 / settings.vertices as f64; vertices.len()],
                restart: restart.map(|restart| {
                    let ids = shard.ids[vertices.clone()].iter();
                    ids.map(|&id| restart.probability(id)).collect()
                }),
                gives: vec![0.0; vertices.len()],
                contributions: Arc::clone(&contributions),
                step: 0,
                sums: vec![[0.0; 2]; parts.len()],
                parts: parts.clone(),
                vertices,
                shard: Arc::clone(&shard),
            }
        };
        Ok(owns.iter().map(member).collect())
    }

    /// What the pack computes on.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The places in the shard of the parts that are computed here.
    pub fn parts(&self) -> Range<usize> {
        self.parts.clone()
    }

    /// The original ids of the vertices that are computed here.
    pub fn ids(&self) -> &[u64] {
        &self.shard.ids[self.vertices.clone()]
    }

    /// The rank of each of these vertices.
    pub fn ranks(&self) -> &[f64] {
        &self.ranks
    }

    /// The ranks of the vertices of a part, by its place in the shard.
    ///
    /// # Panics
    ///
    /// When the part is not computed here.
    pub fn ranks_of(&self, part: usize) -> &[f64] {
        &self.ranks[self.own(&self.shard.part_ranges[part])]
    }

    /// Where vertices of the shard are among those that are computed here.
    fn own(&self, vertices: &Range<usize>) -> Range<usize> {
        vertices.start - self.vertices.start..vertices.end - self.vertices.start
    }

    /// The present rank held by vertices without out-edges, in units of [`to_fixed`]: what the first update
    /// needs, added over all ranks. Later ones get it from [`Step`].
    pub fn dangling(&self) -> i128 {
        let of_part = |part: usize| {
            let shard = &*self.shard;
            let mut mass = 0.0;
            // In the order of updates, so that the sums are alike.
            for rows in shard.boundary[part].iter().chain(&shard.interior[part]) {
                let ranks = &self.ranks[self.own(rows)];
                for (rank, &degree) in ranks.iter().zip(&shard.out_degree[rows.clone()]) {
                    if degree == 0 {
                        mass += rank;
                    }
                }
            }
            to_fixed(mass)
        };
        self.parts.clone().map(of_part).sum()
    }

    /// Tells what each vertex gives at first.
    pub fn begin(&mut self) {
        let degrees = &self.shard.out_degree[self.vertices.clone()];
        let weighted = self.shard.weights.is_some();
        let vertices = self.ranks.iter().zip(degrees);
        for (gives, (rank, &degree)) in self.gives.iter_mut().zip(vertices) {
            *gives = given(*rank, degree, weighted);
        }
        let mut next = self.contributions.write(self.step + 1);
        next[self.vertices.clone()].copy_from_slice(&self.gives);
    }

    /// The next contributions of these vertices (local indexes, from the shard's `sends`) as little-endian numbers.
    ///
    /// # Panics
    ///
    /// When there is no such vertex.
    pub fn gather(&self, vertices: &[u32], precision: Precision) -> Vec<u8> {
        let next = self.contributions.read(self.step + 1);
        let values = vertices.iter().map(|&v| next[v as usize]);
        let mut payload = Vec::with_capacity(vertices.len() * 8);
        match precision {
            Precision::F64 => values.for_each(|value| payload.extend(value.to_le_bytes())),
            Precision::F32 => values.for_each(|value| payload.extend((value as f32).to_le_bytes())),
        }
        payload
    }

    /// Puts contributions that another pack gathered into these ghosts (a range from the shard's `receives`), for the next
    /// superstep.
    ///
    /// # Errors
    ///
    /// [`GraphError::Values`] when the length is not that of the range, or a value is none that ranks have; the
    /// ghosts may then be written in part.
    pub fn scatter(
        &mut self,
        ghosts: Range<usize>,
        payload: &[u8],
        precision: Precision,
    ) -> Result<(), GraphError> {
        match precision {
            Precision::F64 => self.scatter_as(ghosts, payload, f64::from_le_bytes),
            Precision::F32 => {
                self.scatter_as(ghosts, payload, |bytes| f32::from_le_bytes(bytes).into())
            }
        }
    }

    fn scatter_as<const BYTES: usize>(
        &mut self,
        ghosts: Range<usize>,
        payload: &[u8],
        value: impl Fn([u8; BYTES]) -> f64,
    ) -> Result<(), GraphError> {
        let refused = |problem: String| GraphError::Values {
            start: ghosts.start,
            end: ghosts.end,
            problem,
        };
        let first = self.shard.vertices();
        let places = first + ghosts.start..first + ghosts.end;
        let mut next = self.contributions.write(self.step + 1);
        let places = next.get_mut(places);
        let places =
            places.ok_or_else(|| refused(format!("there are {} ghosts", self.shard.ghosts)))?;
        let (values, rest) = payload.as_chunks::<BYTES>();
        if values.len() != places.len() || !rest.is_empty() {
            return Err(refused(format!(
                "{} bytes came for {} values",
                payload.len(),
                places.len()
            )));
        }
        for (place, &bytes) in places.iter_mut().zip(values) {
            let value = value(bytes);
            // One NaN would spread to all ranks, so it is stopped where it can still be named.
            if !(0.0..=2.0).contains(&value) {
                return Err(refused(format!("{value} came as a rank's share")));
            }
            *place = value;
        }
        Ok(())
    }

    /// Computes the new ranks of the vertices that other parts read. `dangling_mass` is the old rank held by vertices
    /// without out-edges, over all ranks.
    pub fn update_boundary(&mut self, dangling_mass: f64) {
        let shard = Arc::clone(&self.shard);
        self.sums.fill([0.0; 2]);
        for part in self.parts.clone() {
            self.update(part, &shard.boundary[part], dangling_mass, &mut || ());
        }
    }

    /// Computes the new ranks of all other vertices, and gives what this superstep did here. Calls `pause` about once a
    /// millisecond, for who has something else to do meanwhile.
    pub fn update_interior(&mut self, dangling_mass: f64, pause: &mut dyn FnMut()) -> Step {
        let shard = Arc::clone(&self.shard);
        for part in self.parts.clone() {
            self.update(part, &shard.interior[part], dangling_mass, pause);
        }
        let mut step = Step::default();
        for [l1_change, dangling] in &self.sums {
            step.l1_change += to_fixed(*l1_change);
            step.dangling += to_fixed(*dangling);
        }
        step
    }

    /// The next superstep is this one.
    pub fn advance(&mut self) {
        self.step += 1;
    }

    /// Computes the new ranks of some rows of a part, and what they give next.
    fn update(
        &mut self,
        part: usize,
        rows: &[Range<usize>],
        dangling_mass: f64,
        pause: &mut dyn FnMut(),
    ) {
        // Each form is compiled by itself: whether there are weights is asked once and not for each edge.
        let shard = Arc::clone(&self.shard);
        let sources = &shard.sources[..];
        match shard.weights.as_deref() {
            None => self.update_with(part, rows, dangling_mass, pause, false, |values, row| {
                sum_of(values, &sources[row])
            }),
            Some(shares) => {
                self.update_with(part, rows, dangling_mass, pause, true, |values, row| {
                    weighted_sum_of(values, &sources[row.clone()], &shares[row])
                })
            }
        }
    }

    fn update_with(
        &mut self,
        part: usize,
        rows: &[Range<usize>],
        dangling_mass: f64,
        pause: &mut dyn FnMut(),
        weighted: bool,
        incoming: impl Fn(&[f64], Range<usize>) -> f64,
    ) {
        let contributions = self.contributions.read(self.step);
        let offsets = &self.shard.offsets[..];
        let degrees = &self.shard.out_degree[..];
        let first = self.vertices.start;
        let [mut l1_change, mut dangling] = self.sums[part - self.parts.start];
        for rows in rows {
            let mut left = rows.clone();
            while !left.is_empty() {
                let until = offsets[left.start] + EDGES_AT_ONCE;
                let end = left.start + 1;
                let more = offsets[end + 1..=left.end].partition_point(|&at| at <= until);
                for v in left.start..end + more {
                    let row = offsets[v] as usize..offsets[v + 1] as usize;
                    let incoming = incoming(&contributions, row);
                    let new = match &self.restart {
                        None => self.settings.rank(incoming, dangling_mass),
                        Some(restart) => {
                            let settings = &self.settings;
                            settings.rank_with_restart(incoming, dangling_mass, restart[v - first])
                        }
                    };
                    let old = std::mem::replace(&mut self.ranks[v - first], new);
                    l1_change += (new - old).abs();
                    let degree = degrees[v];
                    if degree == 0 {
                        dangling += new;
                    }
                    self.gives[v - first] = given(new, degree, weighted);
                }
                left.start = end + more;
                pause();
            }
        }
        drop(contributions);
        self.sums[part - self.parts.start] = [l1_change, dangling];
        let mut next = self.contributions.write(self.step + 1);
        for rows in rows {
            let own = rows.start - first..rows.end - first;
            next[rows.clone()].copy_from_slice(&self.gives[own]);
        }
    }
}

/// What a vertex gives along each of its out-edges; with weights what it gives in all, of which each edge has its share.
fn given(rank: f64, out_degree: u32, weighted: bool) -> f64 {
    match (out_degree, weighted) {
        (0, _) => 0.0,
        (_, true) => rank,
        (_, false) => rank / f64::from(out_degree),
    }
}

/// As [`sum_of`], each value times the share of its edge.
fn weighted_sum_of(values: &[f64], row: &[u32], shares: &[f64]) -> f64 {
    let (fours, rest) = row.as_chunks::<4>();
    let (four_shares, rest_shares) = shares.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (four, shares) in fours.iter().zip(four_shares) {
        for ((sum, &place), share) in sums.iter_mut().zip(four).zip(shares) {
            *sum += values[place as usize] * share;
        }
    }
    let rest = rest
        .iter()
        .zip(rest_shares)
        .fold(0.0, |sum, (&place, share)| {
            sum + values[place as usize] * share
        });
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// The sum of the values at these places: four sums side by side, since each addition waits for the one before. The order
/// is that of the row alone.
fn sum_of(values: &[f64], row: &[u32]) -> f64 {
    let (fours, rest) = row.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        for (sum, &place) in sums.iter_mut().zip(four) {
            *sum += values[place as usize];
        }
    }
    let rest = rest
        .iter()
        .fold(0.0, |sum, &place| sum + values[place as usize]);
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// PageRank of a whole graph in one thread, as a judge of the other: at most `iterations`, fewer when the L1 change
/// falls below `tolerance` (0 never stops early). Gives the rank of each vertex by dense index, and the iterations
/// made. N is the graph's; `settings.vertices` is not looked at. Weights are used if the graph has some.
///
/// # Errors
///
/// Those of [`Settings::check`].
pub fn sequential(
    graph: &Graph,
    settings: Settings,
    restart: Option<&Restart>,
    iterations: u32,
    tolerance: f64,
) -> Result<(Vec<f64>, u32), GraphError> {
    let settings = Settings {
        vertices: graph.vertices(),
        ..settings
    };
    settings.check()?;
    // What leaves each vertex in all, and what each in-edge has of it.
    let out: Vec<f64> = match graph.out_weights() {
        Some(sums) => sums,
        None => graph
            .out_degree
            .iter()
            .map(|&degree| degree.into())
            .collect(),
    };
    let weight = |edge: usize| {
        graph
            .in_weights
            .as_ref()
            .map_or(1.0, |weights| weights[edge])
    };
    let mut ranks = vec![1.0 / graph.vertices() as f64; graph.ids.len()];
    for iteration in 1..=iterations {
        let old = ranks.clone();
        let held = old.iter().zip(&out);
        let held = held.filter(|&(_, &out)| out == 0.0);
        let dangling_mass = held.map(|(rank, _)| rank).sum();
        let mut change = 0.0;
        for (v, rank) in ranks.iter_mut().enumerate() {
            let first = graph.in_offsets[v] as usize;
            let sources = graph.sources_of(v).iter().map(|&source| source as usize);
            let flowing = sources.enumerate().filter(|&(_, source)| out[source] > 0.0);
            let incoming = flowing
                .map(|(place, source)| old[source] * weight(first + place) / out[source])
                .sum();
            let new = match restart {
                None => settings.rank(incoming, dangling_mass),
                Some(restart) => {
                    let restart = restart.probability(graph.ids[v]);
                    settings.rank_with_restart(incoming, dangling_mass, restart)
                }
            };
            change += (new - *rank).abs();
            *rank = new;
        }
        if change < tolerance {
            return Ok((ranks, iteration));
        }
    }
    Ok((ranks, iterations))
}

#[cfg(test)]
mod tests {
    use super::super::edges::Edges;
    use super::super::numbering::Declared;
    use super::super::{Balance, Partitioner, build_parts, partition, rank_parts};
    use super::*;

    /// 1 -> 2, 2 -> 1, 2 -> 3; 3 is dangling.
    fn small() -> Graph {
        Graph::from_edges([(1, 2), (2, 1), (2, 3)]).unwrap()
    }

    fn whole(graph: &Graph) -> Shard {
        let split = partition(graph, 1, Partitioner::Range, Balance::Vertices).unwrap();
        Shard::merge(
            build_parts(graph, &split).collect(),
            &rank_parts(1, 1).unwrap(),
            0,
        )
        .unwrap()
    }

    #[test]
    fn one_iteration_is_the_formula() {
        let settings = Settings::new(3);
        let mut pagerank = PageRank::new(Arc::new(whole(&small())), settings).unwrap();
        let third = 1.0 / 3.0;
        assert_eq!(super::super::fixed::from_fixed(pagerank.dangling()), third);
        pagerank.begin();
        pagerank.advance();
        pagerank.update_boundary(third);
        let step = pagerank.update_interior(third, &mut || ());
        let base = 0.05 + 0.85 * third / 3.0;
        let expected = [
            base + 0.85 * third / 2.0,
            base + 0.85 * third,
            base + 0.85 * third / 2.0,
        ];
        for (rank, expected) in pagerank.ranks().iter().zip(expected) {
            assert!((rank - expected).abs() < 1e-15);
        }
        assert_eq!(step.dangling, to_fixed(pagerank.ranks()[2]));
        assert_eq!(step.dangling, pagerank.dangling());
    }

    #[test]
    fn the_plain_form_loses_what_dangling_vertices_hold() {
        let settings = Settings {
            damping: 1.0,
            dangling: Dangling::Drop,
            vertices: 3,
        };
        let (ranks, iterations) = sequential(&small(), settings, None, 1, 0.0).unwrap();
        assert_eq!(
            (ranks, iterations),
            (vec![1.0 / 6.0, 1.0 / 3.0, 1.0 / 6.0], 1)
        );
    }

    #[test]
    fn sequential_stops_at_the_tolerance() {
        let (ranks, iterations) =
            sequential(&small(), Settings::new(0), None, 1000, 1e-12).unwrap();
        assert!(iterations < 200);
        assert!((ranks.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    /// 1 -> 2 weighs 10, 1 -> 3 weighs 1, 2 -> 1 and 3 -> 1 weigh 2; 4 -> 1 weighs nothing.
    fn weighted() -> Graph {
        let edges = [
            (1, 2, 10.0),
            (1, 3, 1.0),
            (2, 1, 2.0),
            (3, 1, 2.0),
            (4, 1, 0.0),
        ];
        let edges: Edges<f64> = edges.into_iter().collect();
        Graph::build(vec![edges], &Declared::Ids(Vec::new()), false).unwrap()
    }

    /// The ranks of a graph in so many parts, after 200 iterations, by id.
    fn ranks_of(graph: &Graph, parts: u32, restart: Option<&Restart>) -> Vec<(u64, f64)> {
        let split = partition(graph, parts, Partitioner::Hash, Balance::Vertices).unwrap();
        let mut parts: Vec<_> = build_parts(graph, &split).collect();
        parts
            .iter_mut()
            .for_each(|part| part.weights_to_shares().unwrap());
        let count = parts.len() as u32;
        let shard = Shard::merge(parts, &rank_parts(count, 1).unwrap(), 0).unwrap();
        let all = 0..shard.part_ranges.len();
        let settings = Settings::new(graph.vertices());
        let team = PageRank::team(Arc::new(shard), settings, restart, &[all]);
        let mut pagerank = team.unwrap().swap_remove(0);
        let mut dangling = pagerank.dangling();
        pagerank.begin();
        pagerank.advance();
        for _ in 0..200 {
            let mass = super::super::fixed::from_fixed(dangling);
            pagerank.update_boundary(mass);
            dangling = pagerank.update_interior(mass, &mut || ()).dangling;
            pagerank.advance();
        }
        let ids = pagerank.ids().iter().copied();
        let mut ranks: Vec<_> = ids.zip(pagerank.ranks().iter().copied()).collect();
        ranks.sort_by_key(|(id, _)| *id);
        ranks
    }

    #[test]
    fn weights_and_restarts_give_what_networkx_gives() {
        // networkx.pagerank(G, tol=1e-14), and with personalization={2: 1, 4: 3}.
        let plain = [
            0.4633204633204625,
            0.4056394056394065,
            0.08342108342108351,
            0.04761904761904763,
        ];
        let personal = [
            0.31686859273066265,
            0.3483012793357614,
            0.02448530034736924,
            0.31034482758620685,
        ];
        let restart = Restart::parse(b"2 1\n4 3\n", "restart").unwrap();
        for (restart, expected) in [(None, plain), (Some(&restart), personal)] {
            for parts in [1, 3] {
                for (&(id, rank), expected) in
                    ranks_of(&weighted(), parts, restart).iter().zip(expected)
                {
                    assert!((rank - expected).abs() < 1e-12, "{id}: {rank}, {expected}");
                }
            }
            let settings = Settings::new(0);
            let (judge, _) = sequential(&weighted(), settings, restart, 1000, 1e-15).unwrap();
            for (rank, expected) in judge.iter().zip(expected) {
                assert!((rank - expected).abs() < 1e-12, "{rank}, {expected}");
            }
        }
    }

    #[test]
    fn weights_that_are_no_shares_are_refused() {
        let refusal = |weights: [f64; 2]| {
            let edges: Edges<f64> = [(1, 2, weights[0]), (1, 3, weights[1])]
                .into_iter()
                .collect();
            let graph = Graph::build(vec![edges], &Declared::Ids(Vec::new()), false).unwrap();
            let split = partition(&graph, 1, Partitioner::Range, Balance::Vertices).unwrap();
            let mut part = build_parts(&graph, &split).next().unwrap();
            part.weights_to_shares().unwrap_err().to_string()
        };
        assert!(refusal([1.0, -1.0]).contains("some are negative"));
        assert!(refusal([1.5e308, 1.5e308]).contains("add up to more than"));
    }

    #[test]
    fn settings_that_no_pagerank_has_are_refused() {
        for damping in [-0.1, 1.1, f64::NAN] {
            let settings = Settings {
                damping,
                ..Settings::new(3)
            };
            let refusal = PageRank::new(Arc::new(whole(&small())), settings)
                .unwrap_err()
                .to_string();
            assert_eq!(
                refusal,
                format!("damping is {damping}, and must be from 0 to 1")
            );
        }
        assert!(PageRank::new(Arc::new(whole(&small())), Settings::new(2)).is_err());
        assert_eq!("drop".parse::<Dangling>().unwrap(), Dangling::Drop);
        assert!("lose".parse::<Dangling>().is_err());
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let graph = small();
        let split = partition(&graph, 3, Partitioner::Range, Balance::Vertices).unwrap();
        let parts: Vec<_> = build_parts(&graph, &split).collect();
        let shard = Shard::merge(parts[..1].to_vec(), &rank_parts(3, 3).unwrap(), 0).unwrap();
        let mut pagerank = PageRank::new(Arc::new(shard), Settings::new(3)).unwrap();
        let mut refusal = |ghosts, payload: &[u8]| {
            pagerank
                .scatter(ghosts, payload, Precision::F64)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refusal(0..1, &[0; 7]),
            "values for ghosts 0..1 do not fit: 7 bytes came for 1 values; the sender works on other parts"
        );
        assert!(refusal(0..1, &f64::NAN.to_le_bytes()).contains("NaN came as a rank's share"));
        assert!(refusal(1..2, &[0; 8]).contains("there are 1 ghosts"));
        assert!(refusal(0..2, &[0; 16]).contains("there are 1 ghosts"));
        assert!(refusal(9..10, &[0; 8]).contains("there are 1 ghosts"));
        pagerank
            .scatter(0..1, &0.5f64.to_le_bytes(), Precision::F64)
            .unwrap();
        assert!(
            pagerank
                .scatter(0..1, &0.5f32.to_le_bytes(), Precision::F32)
                .is_ok()
        );
    }
}
