//! A raw graph to a graph store: parse, partition, build the parts, write them, and the manifest last.
//!
//! The manifest names what it vouches for, and the names of parts begin with the id of their own run, so a run that breaks
//! off leaves the graph that was there before, or none: never a mixture.

use crate::graph::{
    Graph, GraphError, MANIFEST_KEY, Manifest, Notes, Part, PartEntry, Partitioner, build_parts,
    partition, quality, read_graph,
};
use crate::random;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;

/// Parts that are built ahead of being written, at most.
const BUILT_AHEAD: usize = 2;

/// What to do.
#[derive(Debug, Clone)]
pub struct PreprocessSpec {
    /// The edge list.
    pub graph: PathBuf,
    /// How many parts.
    pub parts: u32,
    /// How vertices are spread over them.
    pub partitioner: Partitioner,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub enum PreprocessEvent {
    /// So many bytes of the file were read.
    Read(u64),
    /// What was recognised in the file.
    Recognised(Notes),
    /// The graph stands; it is being partitioned.
    Partitioning,
    /// So many parts were written.
    Written(u32),
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct PreprocessOutcome {
    /// What was written.
    pub manifest: Manifest,
    /// Time by stage.
    pub times: Vec<(&'static str, Duration)>,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// Why it failed.
#[derive(Debug, Error)]
pub enum PreprocessError {
    /// The graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// What the computing thread hands to the writer.
enum Built {
    Event(PreprocessEvent),
    Part(Part),
    Done {
        manifest: Box<Manifest>,
        times: Vec<(&'static str, Duration)>,
    },
}

/// Runs it. When it fails or `cancel` completes, what it had written is removed; when it is done, the parts that the
/// store's earlier manifest named are.
///
/// # Errors
/// When the graph cannot be read or split, the store cannot be written, or it was stopped.
pub async fn run(
    spec: PreprocessSpec,
    store: &Store,
    cancel: impl Future<Output = ()>,
    tell: &mut dyn FnMut(PreprocessEvent),
) -> Result<PreprocessOutcome, PreprocessError> {
    let earlier = earlier_parts(store).await?;
    let mut entries = Vec::new();
    let outcome = tokio::select! {
        outcome = write(spec, store, &mut entries, tell) => outcome,
        () = cancel => Err(PreprocessError::Interrupted),
    };
    let obsolete = match &outcome {
        Ok(_) => earlier,
        Err(_) => entries.into_iter().map(|entry| entry.key).collect(),
    };
    for key in obsolete {
        // What counts is done or has its error already; an object too many harms nobody.
        let _ = store.delete(&key).await;
    }
    outcome
}

/// The parts that this store's manifest names, if it has one that this release reads. Also the first touch of the store:
/// a missing bucket shows here, and not after an hour of partitioning.
async fn earlier_parts(store: &Store) -> Result<Vec<String>, StoreError> {
    let manifest = match store.get(MANIFEST_KEY).await {
        Ok(bytes) => Manifest::parse(&bytes, &store.object_url(MANIFEST_KEY)),
        Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let parts = manifest.map(|manifest| manifest.parts).unwrap_or_default();
    Ok(parts.into_iter().map(|entry| entry.key).collect())
}

/// Writes the parts as they are built, and the manifest last.
async fn write(
    spec: PreprocessSpec,
    store: &Store,
    entries: &mut Vec<PartEntry>,
    tell: &mut dyn FnMut(PreprocessEvent),
) -> Result<PreprocessOutcome, PreprocessError> {
    let id = random::to_hex(&random::bytes::<8>());
    let (built, mut to_write) = mpsc::channel(BUILT_AHEAD);
    let computing = tokio::task::spawn_blocking({
        let id = id.clone();
        move || compute(spec, &id, &built)
    });
    let mut finished = None;
    let mut writing = Duration::ZERO;
    while let Some(next) = to_write.recv().await {
        match next {
            Built::Event(event) => {
                if event == PreprocessEvent::Partitioning {
                    // Better now than when the parts are there.
                    let probe = format!("probe-{id}");
                    store.put(&probe, Bytes::new()).await?;
                    store.delete(&probe).await?;
                }
                tell(event);
            }
            Built::Part(part) => {
                let begun = Instant::now();
                let key = format!("parts/{id}-{:05}.part", part.part);
                let bytes = part.encode();
                entries.push(PartEntry::new(&key, &part, &bytes));
                store.put(&key, bytes.into()).await?;
                writing += begun.elapsed();
                tell(PreprocessEvent::Written(entries.len() as u32));
            }
            Built::Done { manifest, times } => finished = Some((*manifest, times)),
        }
    }
    computing
        .await
        .expect("reading and splitting a graph does not panic")?;
    let (mut manifest, mut times) = finished.expect("the computing thread said that it was done");
    manifest.parts = entries.clone();
    store.put(MANIFEST_KEY, manifest.to_json().into()).await?;
    times.push(("write", writing));
    let bytes = manifest.parts.iter().map(|entry| entry.bytes).sum();
    Ok(PreprocessOutcome {
        manifest,
        times,
        bytes,
    })
}

fn compute(
    spec: PreprocessSpec,
    id: &str,
    built: &mpsc::Sender<Built>,
) -> Result<(), PreprocessError> {
    // A writer that failed is gone, and its error is the one reported.
    let send = |next| drop(built.blocking_send(next));
    let mut times = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |stage, times: &mut Vec<(&'static str, Duration)>| {
        times.push((stage, clock.elapsed()));
        clock = Instant::now();
    };
    let (graph, notes): (Graph, Notes) = read_graph(&spec.graph, &mut |bytes| {
        send(Built::Event(PreprocessEvent::Read(bytes)))
    })?;
    lap("read", &mut times);
    send(Built::Event(PreprocessEvent::Recognised(notes)));
    send(Built::Event(PreprocessEvent::Partitioning));
    let split = partition(&graph, spec.parts, spec.partitioner)?;
    let quality = quality(&graph, &split);
    lap("partition", &mut times);
    let mut build = Duration::ZERO;
    let mut parts = build_parts(&graph, &split);
    loop {
        let begun = Instant::now();
        let Some(part) = parts.next() else { break };
        build += begun.elapsed();
        if built.blocking_send(Built::Part(part)).is_err() {
            return Ok(());
        }
    }
    times.push(("build parts", build));
    let source = spec
        .graph
        .file_name()
        .unwrap_or(spec.graph.as_os_str())
        .to_string_lossy()
        .into_owned();
    let manifest = Manifest::new(id, source, &graph, spec.partitioner, quality, Vec::new());
    send(Built::Done {
        manifest: Box::new(manifest),
        times,
    });
    Ok(())
}
