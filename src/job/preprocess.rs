//! A raw graph to a graph store: parse, partition, build the parts, write them, and the manifest last.
//!
//! The manifest names what it vouches for, and the names of parts begin with the id of their own run, so a run that breaks
//! off leaves the graph that was there before, or none: never a mixture.

use crate::graph::{
    Balance, Chosen, Graph, GraphError, MANIFEST_KEY, Manifest, Notes, PartBuilder, PartEntry,
    Partitioner, Reading, choose, import, read_graph,
};
use crate::random;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use rayon::prelude::*;
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
    /// How it is read.
    pub reading: Reading,
    /// How many parts.
    pub parts: u32,
    /// How vertices are spread over them; chosen, if nothing is said.
    pub partitioner: Option<Partitioner>,
    /// What parts have equally much of; chosen, if nothing is said.
    pub balance: Option<Balance>,
    /// A partition that was made elsewhere: a line for each vertex, by rising id, with its part.
    pub import: Option<PathBuf>,
    /// Threads that compute; as many as there are processors, if nothing is said.
    pub threads: Option<usize>,
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
    /// It was partitioned; what was tried, in sentences.
    Partitioned(Vec<String>),
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
    /// Time of each attempt to partition.
    pub attempts: Vec<(String, Duration)>,
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
    /// The system gave no threads.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// What the computing threads hand to the writer.
enum Built {
    Event(PreprocessEvent),
    Part(PartEntry, Bytes),
    Done(Box<Finished>),
}

/// All but the parts.
struct Finished {
    manifest: Manifest,
    times: Vec<(&'static str, Duration)>,
    attempts: Vec<(String, Duration)>,
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
            Built::Part(entry, bytes) => {
                let begun = Instant::now();
                let key = entry.key.clone();
                entries.push(entry);
                store.put(&key, bytes).await?;
                writing += begun.elapsed();
                tell(PreprocessEvent::Written(entries.len() as u32));
            }
            Built::Done(done) => finished = Some(done),
        }
    }
    computing
        .await
        .expect("reading and splitting a graph does not panic")?;
    let Finished {
        mut manifest,
        mut times,
        attempts,
    } = *finished.expect("the computing threads said that they were done");
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    manifest.parts = entries.clone();
    store.put(MANIFEST_KEY, manifest.to_json().into()).await?;
    times.push(("write", writing));
    let bytes = manifest.parts.iter().map(|entry| entry.bytes).sum();
    Ok(PreprocessOutcome {
        manifest,
        times,
        attempts,
        bytes,
    })
}

fn compute(
    spec: PreprocessSpec,
    id: &str,
    built: &mpsc::Sender<Built>,
) -> Result<(), PreprocessError> {
    let mut threads = rayon::ThreadPoolBuilder::new();
    if let Some(count) = spec.threads {
        threads = threads.num_threads(count);
    }
    let threads = threads
        .build()
        .map_err(|error| PreprocessError::Threads(error.to_string()))?;
    threads.install(|| compute_here(spec, id, built))
}

fn compute_here(
    spec: PreprocessSpec,
    id: &str,
    built: &mpsc::Sender<Built>,
) -> Result<(), PreprocessError> {
    // A writer that failed is gone, and its error is the one reported.
    let send = |next| built.blocking_send(next).is_ok();
    let mut times = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |stage, times: &mut Vec<(&'static str, Duration)>| {
        times.push((stage, clock.elapsed()));
        clock = Instant::now();
    };
    let (graph, notes): (Graph, Notes) = read_graph(&spec.graph, spec.reading, &|bytes| {
        // Told now and then; what is told too fast is left out.
        let _ = built.try_send(Built::Event(PreprocessEvent::Read(bytes)));
    })?;
    lap("read", &mut times);
    send(Built::Event(PreprocessEvent::Recognised(notes)));
    send(Built::Event(PreprocessEvent::Partitioning));
    let Chosen {
        partition,
        quality,
        partitioner,
        balance,
        why,
        times: attempts,
    } = match &spec.import {
        Some(file) => import(&graph, spec.parts, file)?,
        None => choose(&graph, spec.parts, spec.partitioner, spec.balance)?,
    };
    send(Built::Event(PreprocessEvent::Partitioned(why)));
    lap("partition", &mut times);
    let builder = PartBuilder::new(&graph, &partition);
    (0..partition.parts).into_par_iter().for_each(|number| {
        let part = builder.encoded(number);
        let entry = PartEntry::of(format!("parts/{id}-{number:05}.part"), &part);
        send(Built::Part(entry, part.bytes.into()));
    });
    lap("build parts", &mut times);
    let source = spec
        .graph
        .file_name()
        .unwrap_or(spec.graph.as_os_str())
        .to_string_lossy()
        .into_owned();
    let mut manifest = Manifest::new(id, source, &graph, partitioner, quality, Vec::new());
    manifest.balance = balance;
    send(Built::Done(Box::new(Finished {
        manifest,
        times,
        attempts,
    })));
    Ok(())
}
