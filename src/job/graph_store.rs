//! A partitioned graph in a store: its manifest, and what one rank computes on.

use crate::graph::{GraphError, MANIFEST_KEY, Manifest, Part, Shard, rank_parts};
use crate::job::context::BlockingStore;
use crate::job::program::ProgramError;
use crate::store::{Store, StoreError};
use std::ops::Range;
use thiserror::Error;

/// A graph store that cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no manifest.
    #[error(
        "{location} holds no graph: {MANIFEST_KEY} is missing; make one with: lswitch preprocess GRAPH --parts K --out {location}"
    )]
    NotAGraph {
        /// The store.
        location: String,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest is damaged or of another release.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Reads the manifest of a graph store.
///
/// # Errors
/// When there is none, or none that this release reads.
pub async fn open_graph(store: &Store) -> Result<Manifest, OpenError> {
    let manifest = store.get(MANIFEST_KEY).await.map_err(|error| match error {
        StoreError::NotFound { .. } => OpenError::NotAGraph {
            location: store.url().into(),
        },
        other => OpenError::Store(other),
    })?;
    Ok(Manifest::parse(&manifest, &store.object_url(MANIFEST_KEY))?)
}

/// Fetches the parts of one rank and merges them.
///
/// # Errors
/// When the store fails, or its objects are not those of the manifest.
pub fn load(
    graph: &BlockingStore,
    rank: u32,
    size: u32,
) -> Result<(Manifest, Shard), ProgramError> {
    let (manifest, groups) = shares(graph, size)?;
    let parts = fetch(graph, &manifest, groups[rank as usize].clone())?;
    let shard = Shard::merge(parts, &groups, rank as usize)?;
    Ok((manifest, shard))
}

/// Reads the manifest, and says which parts each of so many ranks has.
///
/// # Errors
/// When the store fails, holds no graph, or there are more ranks than parts.
pub fn shares(
    graph: &BlockingStore,
    size: u32,
) -> Result<(Manifest, Vec<Range<u32>>), ProgramError> {
    let manifest = Manifest::parse(&graph.get(MANIFEST_KEY)?, &graph.object_url(MANIFEST_KEY))?;
    let groups = rank_parts(manifest.parts.len() as u32, size)?;
    Ok((manifest, groups))
}

/// Fetches some parts.
///
/// # Errors
/// When the store fails, or its objects are not those of the manifest.
pub fn fetch(
    graph: &BlockingStore,
    manifest: &Manifest,
    parts: Range<u32>,
) -> Result<Vec<Part>, ProgramError> {
    let fetch_one = |part: u32| {
        let entry = &manifest.parts[part as usize];
        let name = graph.object_url(&entry.key);
        let bytes = graph.get_of_length(&entry.key, entry.bytes)?;
        // The manifest vouches for exactly these bytes: a part of another run of preprocess is noticed here.
        if bytes.len() as u64 != entry.bytes || crc32c::crc32c(&bytes) != entry.crc32c {
            return Err(ProgramError::Other(format!(
                "{name} is not the object that its manifest names; run preprocess again"
            )));
        }
        let decoded = Part::decode(bytes, &name)?;
        match contradiction(manifest, part, &decoded) {
            None => Ok(decoded),
            Some(what) => Err(ProgramError::Other(format!(
                "the manifest and {name} contradict each other: {what}; run preprocess again"
            ))),
        }
    };
    parts.map(fetch_one).collect()
}

/// In what the manifest says something else of a part than the part itself does, in words.
fn contradiction(manifest: &Manifest, number: u32, part: &Part) -> Option<String> {
    let entry = &manifest.parts[number as usize];
    let count = |length: usize| length as u64;
    let weighted = part.weights.is_some();
    let parts = (number, manifest.parts.len() as u32);
    if (part.part, part.parts) != parts {
        return Some(format!(
            "it is part {} of {}, and not {number} of {}",
            part.part, part.parts, parts.1
        ));
    }
    if weighted != manifest.weighted {
        let words = |weighted: bool| if weighted { "weights" } else { "no weights" };
        return Some(format!(
            "its edges have {}, and the manifest says {}",
            words(weighted),
            words(manifest.weighted)
        ));
    }
    [
        ("vertices", count(part.ids.len()), entry.vertices),
        ("edges", count(part.sources.len()), entry.edges),
        ("ghosts", count(part.ghost_index.len()), entry.ghosts),
    ]
    .into_iter()
    .find(|(_, found, named)| found != named)
    .map(|(what, found, named)| format!("it has {found} {what}, and the manifest says {named}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_manifest_says_of_a_part_is_compared_with_the_part() {
        let part = Part {
            part: 1,
            parts: 2,
            ids: vec![10, 20, 40].into(),
            out_degree: vec![1, 2, 0].into(),
            offsets: vec![0, 2, 2, 3].into(),
            sources: vec![3, 1, 0].into(),
            ghost_offsets: vec![0, 1, 1].into(),
            ghost_index: vec![0].into(),
            send_offsets: vec![0, 2, 2].into(),
            send_index: vec![0, 1].into(),
            weights: None,
            out_weights: None,
        };
        let entry = serde_json::json!({
            "key": "p", "bytes": 1, "crc32c": 1, "vertices": 3, "edges": 3, "ghosts": 1,
        });
        let manifest = serde_json::json!({
            "format": "lswitch-graph", "version": 4, "graph": "g", "source": "s", "vertices": 3, "edges": 3,
            "dangling": 0, "self_loops": 0, "partitioner": "range", "cut_edges": 1, "boundary_values": 1,
            "vertex_balance": 1.0, "edge_balance": 1.0, "parts": [entry, entry],
        });
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        assert_eq!(contradiction(&manifest, 1, &part), None);
        type Change = fn(&mut Manifest);
        let changes: [(Change, &str); 5] = [
            (
                |m| m.parts[1].vertices = 4,
                "it has 3 vertices, and the manifest says 4",
            ),
            (|m| m.parts[1].edges = 2, "it has 3 edges"),
            (|m| m.parts[1].ghosts = 0, "it has 1 ghosts"),
            (|m| m.weighted = true, "its edges have no weights"),
            (|m| drop(m.parts.pop()), ""),
        ];
        for (change, words) in changes {
            let mut manifest = manifest.clone();
            change(&mut manifest);
            let number = 1.min(manifest.parts.len() as u32 - 1);
            let what = contradiction(&manifest, number, &part).unwrap();
            assert!(what.contains(words), "{what}");
        }
    }
}
