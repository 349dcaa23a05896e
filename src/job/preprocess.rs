//! A raw graph to a graph store: parse, partition, build the parts, write them, and the manifest last.
//!
//! The manifest names what it vouches for, and parts lie under a folder of their own run, so a run that breaks off
//! leaves the graph that was there before, or none: never a mixture.

use crate::graph::{
    Graph, GraphError, MANIFEST_KEY, Manifest, Notes, Part, PartEntry, Partitioner, build_parts,
    partition, quality, read_graph,
};
use crate::store::{Store, StoreError};
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

/// Runs it. When it fails, what it had written is removed.
///
/// # Errors
/// When the graph cannot be read or split, or the store cannot be written.
pub async fn run(
    spec: PreprocessSpec,
    store: &Store,
    tell: &mut dyn FnMut(PreprocessEvent),
) -> Result<PreprocessOutcome, PreprocessError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).expect("the system's random numbers are there");
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut entries = Vec::new();
    let outcome = write(spec, store, &id, &mut entries, tell).await;
    match &outcome {
        Ok(_) => remove_older(store, &id).await?,
        Err(_) => {
            for entry in &entries {
                // The first error is the one to report; the next run removes what is left.
                let _ = store.delete(&entry.key).await;
            }
        }
    }
    outcome
}

/// Writes the parts as they are built, and the manifest last.
async fn write(
    spec: PreprocessSpec,
    store: &Store,
    id: &str,
    entries: &mut Vec<PartEntry>,
    tell: &mut dyn FnMut(PreprocessEvent),
) -> Result<PreprocessOutcome, PreprocessError> {
    let (built, mut to_write) = mpsc::channel(BUILT_AHEAD);
    let computing = tokio::task::spawn_blocking({
        let id = id.to_string();
        move || compute(spec, &id, &built)
    });
    let mut finished = None;
    let mut writing = Duration::ZERO;
    while let Some(next) = to_write.recv().await {
        match next {
            Built::Event(event) => tell(event),
            Built::Part(part) => {
                let begun = Instant::now();
                let key = format!("parts/{id}/{:05}.part", part.part);
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

/// The parts of earlier runs are named by no manifest any more.
async fn remove_older(store: &Store, id: &str) -> Result<(), StoreError> {
    let own = format!("parts/{id}/");
    for entry in store.list("parts/").await? {
        if !entry.key.starts_with(&own) && entry.key.ends_with(".part") {
            store.delete(&entry.key).await?;
        }
    }
    Ok(())
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
