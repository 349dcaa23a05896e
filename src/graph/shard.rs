//! What one member of a job computes on: a contiguous run of parts, merged. A member is a rank, or for PageRank a pack, whose
//! ranks share a shard.
//!
//! Vertices are numbered through the parts in order. A value that several parts of this member read is received
//! once; where it comes from a part of this same member it is not received at all. Sender and receiver order the
//! values in the same way (by owning part, then by index there), so that messages carry values only.

use std::ops::Range;

use rayon::prelude::*;

use super::array::Array;
use super::csr::VERTICES_MAX;
use super::{GraphError, Part};

/// Vertices that nobody reads between two that somebody does, up to which all are one run.
const RUN_GAP: usize = 32;

/// The merged parts of one member.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    /// The member that these parts belong to.
    pub member: usize,
    /// The parts merged here.
    pub parts: Range<u32>,
    /// The vertices of each part, as a range of local indexes. Sums are made for each part by itself.
    pub part_ranges: Vec<Range<usize>>,
    /// Of each part, the vertices that any other part reads and some between them, as runs of local indexes: those which are
    /// computed first, so that they travel while the others are. Like all that sums depend on, it is the part's alone.
    pub boundary: Vec<Vec<Range<usize>>>,
    /// Of each part, all other vertices.
    pub interior: Vec<Vec<Range<usize>>>,
    /// The original id of each vertex; ascending within a part.
    pub ids: Array<u64>,
    /// Out-edges of each vertex in the whole graph, repeats counted.
    pub out_degree: Array<u32>,
    /// Where each vertex's in-edges start in `sources`; one more entry than vertices.
    pub offsets: Array<u64>,
    /// For each in-edge, a local index, or the number of vertices plus a place among the ghosts.
    pub sources: Array<u32>,
    /// The weight of each in-edge, if edges have weights.
    pub weights: Option<Array<f64>>,
    /// Number of ghosts: distinct vertices of other members that are read here.
    pub ghosts: usize,
    /// From each member that sends anything, ascending: the places of its values among the ghosts.
    pub receives: Vec<(usize, Range<usize>)>,
    /// To each member that reads anything, ascending: the local indexes of the values to send, in order.
    pub sends: Vec<(usize, Vec<u32>)>,
}

/// Which parts each rank takes: contiguous runs that differ by at most one part in length.
///
/// # Errors
///
/// [`GraphError::Parts`] when there are more ranks than parts, or no ranks.
pub fn rank_parts(parts: u32, ranks: u32) -> Result<Vec<Range<u32>>, GraphError> {
    if ranks == 0 {
        let problem = "0 ranks were asked for; a job has at least 1".to_owned();
        return Err(GraphError::Parts { problem });
    }
    if ranks > parts {
        let problem = format!(
            "{ranks} ranks cannot share {parts} parts, since a part is not divided; \
             use at most {parts} ranks, or preprocess the graph into {ranks} parts"
        );
        return Err(GraphError::Parts { problem });
    }
    let start = |rank: u32| (u64::from(rank) * u64::from(parts) / u64::from(ranks)) as u32;
    Ok((0..ranks)
        .map(|rank| start(rank)..start(rank + 1))
        .collect())
}

impl Shard {
    /// Number of vertices of this member.
    pub fn vertices(&self) -> usize {
        self.ids.len()
    }

    /// Number of in-edges of these vertices.
    pub fn edges(&self) -> usize {
        self.sources.len()
    }

    /// Merges the parts of member `me`, where `groups` has the range of parts of each member. `parts` are those of
    /// `groups[me]`, in order, each from [`Part::decode`] or [`build_parts`](super::build_parts()).
    ///
    /// # Errors
    ///
    /// [`GraphError::Shard`] when the parts are not those of the member, or contradict each other.
    pub fn merge(parts: Vec<Part>, groups: &[Range<u32>], me: usize) -> Result<Shard, GraphError> {
        merge(parts, groups, me).map_err(|problem| GraphError::Shard { problem })
    }
}

fn merge(parts: Vec<Part>, groups: &[Range<u32>], me: usize) -> Result<Shard, String> {
    check_groups(&parts, groups, me)?;
    let own = groups[me].clone();
    check_mirrors(&parts)?;

    let mut part_ranges = Vec::with_capacity(parts.len());
    let mut vertices = 0;
    for part in &parts {
        part_ranges.push(vertices..vertices + part.ids.len());
        vertices += part.ids.len();
    }
    let ghosts = ghosts_elsewhere(&parts, &own);
    let places = vertices as u64 + ghosts.len() as u64;
    if places > VERTICES_MAX {
        return Err(format!(
            "{places} vertices and ghosts in one member, above {VERTICES_MAX}"
        ));
    }
    let sends = sends(&parts, &part_ranges, groups, me);
    let runs = parts.iter().zip(&part_ranges);
    let (boundary, interior) = runs.map(|(part, range)| runs_of(part, range)).unzip();
    let receives = receives(&ghosts, groups);

    let edges = parts.iter().map(|part| part.sources.len()).sum();
    if let [_] = &parts[..] {
        // One part is what it was: its ghosts are in the same order.
        let part = parts.into_iter().next().expect("there is one");
        return Ok(Shard {
            member: me,
            parts: own,
            part_ranges,
            boundary,
            interior,
            ids: part.ids,
            out_degree: part.out_degree,
            offsets: part.offsets,
            sources: part.sources,
            weights: part.weights,
            ghosts: ghosts.len(),
            receives,
            sends,
        });
    }
    let mut ids = Vec::with_capacity(vertices);
    let mut out_degree = Vec::with_capacity(vertices);
    let mut offsets = Vec::with_capacity(vertices + 1);
    let mut weights = parts[0].weights.is_some().then(Vec::new);
    if let Some(part) = parts
        .iter()
        .find(|part| part.weights.is_some() != weights.is_some())
    {
        return Err(format!(
            "part {} differs from part {} in having weights",
            part.part, parts[0].part
        ));
    }
    // The edges are most of it, and a pack's other ranks wait.
    let mut sources = vec![0u32; edges];
    let mut rest = &mut sources[..];
    let mut to_fill = Vec::with_capacity(parts.len());
    for (part, range) in parts.iter().zip(&part_ranges) {
        let own = rest.split_off_mut(..part.sources.len());
        to_fill.push((part, range, own.expect("there are so many")));
    }
    to_fill.into_par_iter().for_each(|(part, range, sources)| {
        // Where each ghost of this part is: with its owner in this member, or among the member's ghosts.
        let mut ghost_place = Vec::with_capacity(part.ghost_index.len());
        for owner in 0..part.parts {
            for &index in part.ghosts_of(owner) {
                ghost_place.push(if own.contains(&owner) {
                    (part_ranges[(owner - own.start) as usize].start + index as usize) as u32
                } else {
                    let place = ghosts.binary_search(&ghost_key(owner, index));
                    (vertices + place.expect("the ghosts are the union over the parts")) as u32
                });
            }
        }
        let here = part.ids.len();
        for (place, &source) in sources.iter_mut().zip(&part.sources) {
            *place = match (source as usize).checked_sub(here) {
                Some(ghost) => ghost_place[ghost],
                None => range.start as u32 + source,
            };
        }
    });
    offsets.push(0);
    for part in parts {
        let before = offsets[offsets.len() - 1];
        offsets.extend(part.offsets[1..].iter().map(|offset| before + offset));
        ids.extend_from_slice(&part.ids);
        out_degree.extend_from_slice(&part.out_degree);
        if let Some(weights) = &mut weights {
            weights.extend_from_slice(&part.weights.unwrap_or_default());
        }
    }

    Ok(Shard {
        member: me,
        parts: own,
        part_ranges,
        boundary,
        interior,
        ids: ids.into(),
        out_degree: out_degree.into(),
        offsets: offsets.into(),
        sources: sources.into(),
        weights: weights.map(Array::from),
        ghosts: ghosts.len(),
        receives,
        sends,
    })
}

/// The runs of a part's vertices that others read, and those of the rest.
fn runs_of(part: &Part, range: &Range<usize>) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let mut read = vec![false; part.ids.len()];
    part.send_index
        .iter()
        .for_each(|&v| read[v as usize] = true);
    let mut boundary: Vec<Range<usize>> = Vec::new();
    for v in (0..read.len()).filter(|&v| read[v]) {
        let v = range.start + v;
        match boundary.last_mut() {
            Some(last) if v - last.end < RUN_GAP => last.end = v + 1,
            _ => boundary.push(v..v + 1),
        }
    }
    let mut interior = Vec::new();
    let mut start = range.start;
    for run in &boundary {
        if start < run.start {
            interior.push(start..run.start);
        }
        start = run.end;
    }
    if start < range.end {
        interior.push(start..range.end);
    }
    (boundary, interior)
}

fn check_groups(parts: &[Part], groups: &[Range<u32>], me: usize) -> Result<(), String> {
    let Some(own) = groups.get(me) else {
        return Err(format!("there is no member {me} of {}", groups.len()));
    };
    let mut end = 0;
    for (rank, group) in groups.iter().enumerate() {
        if group.start != end || group.is_empty() {
            return Err(format!(
                "member {rank} has the parts {group:?} after part {end}"
            ));
        }
        end = group.end;
    }
    if !parts.iter().map(|part| part.part).eq(own.clone()) {
        let given: Vec<u32> = parts.iter().map(|part| part.part).collect();
        return Err(format!(
            "member {me} has the parts {own:?} and was given {given:?}"
        ));
    }
    match parts.iter().find(|part| part.parts != end) {
        Some(part) => Err(format!(
            "part {} is one of {}, and the members have {end}",
            part.part, part.parts
        )),
        None => Ok(()),
    }
}

/// Within this member both sides of each exchange are known, so they can be compared.
fn check_mirrors(parts: &[Part]) -> Result<(), String> {
    for owner in parts {
        for reader in parts {
            if owner.sends_to(reader.part) != reader.ghosts_of(owner.part) {
                let (owner, reader) = (owner.part, reader.part);
                return Err(format!(
                    "part {owner} does not send what part {reader} reads"
                ));
            }
        }
    }
    Ok(())
}

/// Orders ghosts by owning part, then by index there.
fn ghost_key(owner: u32, index: u32) -> u64 {
    u64::from(owner) << 32 | u64::from(index)
}

/// The distinct ghosts that no part of this member owns, by their keys, ascending.
fn ghosts_elsewhere(parts: &[Part], own: &Range<u32>) -> Vec<u64> {
    let mut keys = Vec::new();
    for part in parts {
        for owner in (0..part.parts).filter(|owner| !own.contains(owner)) {
            keys.extend(
                part.ghosts_of(owner)
                    .iter()
                    .map(|&index| ghost_key(owner, index)),
            );
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn receives(ghosts: &[u64], groups: &[Range<u32>]) -> Vec<(usize, Range<usize>)> {
    let mut start = 0;
    let mut receives = Vec::new();
    for (rank, group) in groups.iter().enumerate() {
        let end = ghosts.partition_point(|&key| key >> 32 < u64::from(group.end));
        if start < end {
            receives.push((rank, start..end));
        }
        start = end;
    }
    receives
}

fn sends(
    parts: &[Part],
    part_ranges: &[Range<usize>],
    groups: &[Range<u32>],
    me: usize,
) -> Vec<(usize, Vec<u32>)> {
    let to = |group: &Range<u32>| {
        let mut vertices = Vec::new();
        for (part, range) in parts.iter().zip(part_ranges) {
            let mut read: Vec<u32> = group
                .clone()
                .flat_map(|reader| part.sends_to(reader))
                .copied()
                .collect();
            read.sort_unstable();
            read.dedup();
            vertices.extend(read.into_iter().map(|index| range.start as u32 + index));
        }
        vertices
    };
    let others = groups.iter().enumerate().filter(|&(rank, _)| rank != me);
    others
        .map(|(rank, group)| (rank, to(group)))
        .filter(|(_, vertices)| !vertices.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Balance, Graph, Partitioner, build_parts, partition};
    use super::*;

    fn parts() -> Vec<Part> {
        // A star that all of 1..=5 read, and an edge back from each.
        let edges: Vec<(u64, u64)> = (1..=5).flat_map(|v| [(0, v), (v, 0)]).collect();
        let graph = Graph::from_edges(edges).unwrap();
        let split = partition(&graph, 6, Partitioner::Range, Balance::Vertices).unwrap();
        build_parts(&graph, &split).collect()
    }

    #[test]
    fn a_value_is_sent_once_to_a_rank_with_several_parts_that_read_it() {
        let groups = rank_parts(6, 2).unwrap();
        assert_eq!(groups, [0..3, 3..6]);
        let first = Shard::merge(parts()[..3].to_vec(), &groups, 0).unwrap();
        let second = Shard::merge(parts()[3..].to_vec(), &groups, 1).unwrap();
        assert_eq!(first.sends, [(1, vec![0])]);
        assert_eq!(second.receives, [(0, 0..1)]);
        assert_eq!(second.sources[..], [3, 3, 3]);
        assert_eq!(second.sends, [(0, vec![0, 1, 2])]);
        assert_eq!(first.receives, [(1, 0..3)]);
        assert_eq!(first.sources[..], [1, 2, 3, 4, 5, 0, 0]);
    }

    #[test]
    fn a_rank_with_all_parts_exchanges_nothing() {
        let whole = Shard::merge(parts(), &rank_parts(6, 1).unwrap(), 0).unwrap();
        assert!(whole.ghosts == 0 && whole.sends.is_empty() && whole.receives.is_empty());
        assert_eq!(
            (whole.vertices(), whole.edges(), whole.part_ranges.len()),
            (6, 10, 6)
        );
    }

    #[test]
    fn more_ranks_than_parts_are_refused_with_what_to_do() {
        assert_eq!(
            rank_parts(2, 3).unwrap_err().to_string(),
            "3 ranks cannot share 2 parts, since a part is not divided; use at most 2 ranks, \
             or preprocess the graph into 3 parts"
        );
        assert_eq!(rank_parts(8, 3).unwrap(), [0..2, 2..5, 5..8]);
        assert!(rank_parts(3, 0).is_err());
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let groups = rank_parts(6, 2).unwrap();
        let refusal = |parts: &[Part], me| {
            Shard::merge(parts.to_vec(), &groups, me)
                .unwrap_err()
                .to_string()
        };
        assert!(
            refusal(&parts()[..2], 0).contains("member 0 has the parts 0..3 and was given [0, 1]")
        );
        assert!(refusal(&parts(), 2).contains("there is no member 2 of 2"));
        let mut other = parts()[..3].to_vec();
        other[1].ghost_index = vec![7].into();
        assert!(refusal(&other, 0).contains("part 0 does not send what part 1 reads"));
        other = parts()[..3].to_vec();
        other[2].parts = 7;
        assert!(
            Shard::merge(other, &groups, 0)
                .unwrap_err()
                .to_string()
                .contains("part 2 is one of 7")
        );
    }
}
