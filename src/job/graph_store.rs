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
        Ok(Part::decode(bytes, &name)?)
    };
    parts.map(fetch_one).collect()
}
