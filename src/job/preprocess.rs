//! A raw graph to a graph store: parse, partition, build the parts, write them, and the manifest last.
//!
//! The manifest names what it vouches for, and the names of parts begin with the id of their own run, so a run that breaks
//! off leaves the graph that was there before, or none: never a mixture.

use crate::graph::{
    Balance, Chosen, Graph, GraphError, MANIFEST_KEY, Manifest, Notes, PartBuilder, PartEntry,
    Partitioner, Reading, Split, choose, import, read_graph,
};
use crate::random;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use rayon::prelude::*;
use std::future::Future;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What computing threads have to say, at most, before the writer has heard of it.
const SAID_AHEAD: usize = 2;

/// Parts that are written at a time, at most.
const WRITES: usize = 8;

/// Pieces of a part that are built ahead of being written, at most.
const PIECES_AHEAD: usize = 2;

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
    /// Try even if the graph seems too large for memory.
    pub force: bool,
    /// A graph that is in the store is replaced.
    pub overwrite: bool,
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
    /// It would not fit.
    #[error(
        "{graph} has about {edges} edges, for which {needed} MiB of memory are needed, and {available} MiB are available; use a larger machine, or --force to try"
    )]
    Memory {
        /// The file.
        graph: String,
        /// Edges, by the length of its first lines.
        edges: u64,
        /// Memory for them.
        needed: u64,
        /// Memory that the system says is available.
        available: u64,
    },
    /// A graph is there.
    #[error("{0} holds a graph; give --overwrite, or another --out")]
    Occupied(String),
    /// Another run wrote its graph there meanwhile.
    #[error(
        "another run of preprocess wrote its graph to {0} while this one ran; that graph stays, give this one another --out"
    )]
    Superseded(String),
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
    /// The key of a part, and its pieces as they come.
    Begun(String, mpsc::Receiver<Piece>),
    /// All its pieces were given.
    Part(PartEntry),
    Done(Box<Finished>),
}

/// What a part is written from.
enum Piece {
    Some(Bytes),
    /// That was all. What ends without this was given up.
    End,
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
    if earlier.is_some() && !spec.overwrite {
        return Err(PreprocessError::Occupied(store.url().into()));
    }
    let mut keys = Vec::new();
    let mut writes = JoinSet::new();
    let outcome = tokio::select! {
        outcome = write(spec, store, &mut keys, &mut writes, tell) => outcome,
        () = cancel => Err(PreprocessError::Interrupted),
    };
    // All are over before anything is removed: those whose builders are gone give up.
    while writes.join_next().await.is_some() {}
    let obsolete = match &outcome {
        Ok(_) => earlier.unwrap_or_default(),
        Err(_) => keys,
    };
    for key in obsolete {
        // What counts is done or has its error already; an object too many harms nobody.
        let _ = store.delete(&key).await;
    }
    outcome
}

/// The parts that this store's manifest names: none without a manifest, and no parts of one that this release does not read. Also the first touch of the store:
/// a missing bucket shows here, and not after an hour of partitioning.
async fn earlier_parts(store: &Store) -> Result<Option<Vec<String>>, StoreError> {
    let manifest = match store.get(MANIFEST_KEY).await {
        Ok(bytes) => Manifest::parse(&bytes, &store.object_url(MANIFEST_KEY)),
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let parts = manifest.map(|manifest| manifest.parts).unwrap_or_default();
    Ok(Some(parts.into_iter().map(|entry| entry.key).collect()))
}

/// Writes the parts while they are built, and the manifest last.
async fn write(
    spec: PreprocessSpec,
    store: &Store,
    keys: &mut Vec<String>,
    writes: &mut JoinSet<Result<(), StoreError>>,
    tell: &mut dyn FnMut(PreprocessEvent),
) -> Result<PreprocessOutcome, PreprocessError> {
    let id = random::to_hex(&random::bytes::<8>());
    let overwrite = spec.overwrite;
    let (built, mut said) = mpsc::channel(SAID_AHEAD);
    let computing = tokio::task::spawn_blocking({
        let id = id.clone();
        move || compute(spec, &id, &built)
    });
    let (mut finished, mut entries, mut written) = (None, Vec::new(), 0);
    let mut waiting = None;
    loop {
        let next = tokio::select! {
            Some(outcome) = writes.join_next() => {
                outcome.expect("writing does not panic")?;
                written += 1;
                tell(PreprocessEvent::Written(written));
                continue;
            }
            next = said.recv(), if writes.len() < WRITES && waiting.is_none() => next,
            else => break,
        };
        match next {
            Some(Built::Event(event)) => {
                if event == PreprocessEvent::Partitioning {
                    // Better now than when the parts are there.
                    let probe = format!("probe-{id}");
                    store.put(&probe, Bytes::new()).await?;
                    // Whoever may not delete has a graph and an empty object.
                    let _ = store.delete(&probe).await;
                }
                tell(event);
            }
            Some(Built::Begun(key, pieces)) => {
                keys.push(key.clone());
                writes.spawn(write_part(store.clone(), key, pieces));
            }
            Some(Built::Part(entry)) => entries.push(entry),
            Some(Built::Done(done)) => finished = Some(done),
            // Nothing more is built; what is written meanwhile is waited for.
            None => waiting = Some(Instant::now()),
        }
    }
    let writing = waiting.map(|since| since.elapsed()).unwrap_or_default();
    computing
        .await
        .expect("reading and splitting a graph does not panic")?;
    let Finished {
        mut manifest,
        mut times,
        attempts,
    } = *finished.expect("the computing threads said that they were done");
    entries.sort_by(|a: &PartEntry, b| a.key.cmp(&b.key));
    manifest.parts = entries;
    let text = Bytes::from(manifest.to_json());
    match overwrite {
        true => store.put(MANIFEST_KEY, text).await?,
        false if store.put_if_absent(MANIFEST_KEY, text).await? => {}
        false => return Err(PreprocessError::Superseded(store.url().into())),
    }
    times.push(("write", writing));
    let bytes = manifest.parts.iter().map(|entry| entry.bytes).sum();
    Ok(PreprocessOutcome {
        manifest,
        times,
        attempts,
        bytes,
    })
}

/// Writes one part from its pieces.
async fn write_part(
    store: Store,
    key: String,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<(), StoreError> {
    let mut object = store.writer(&key)?;
    while let Some(piece) = pieces.recv().await {
        object = match piece {
            Piece::Some(bytes) => object.write(bytes).await?,
            Piece::End => return object.finish().await,
        };
    }
    // Whoever stopped building it has the reason.
    object.abort().await;
    Ok(())
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
    if !spec.force {
        check_memory(&spec)?;
    }
    // A writer that failed is gone, and its error is the one reported.
    let send = |next| built.blocking_send(next).is_ok();
    let mut times = Vec::new();
    let mut clock = Instant::now();
    let mut lap = |stage, times: &mut Vec<(&'static str, Duration)>| {
        times.push((stage, clock.elapsed()));
        clock = Instant::now();
    };
    let (graph, notes): (Graph, Notes) = read_graph(&spec.graph, spec.reading.clone(), &|bytes| {
        // Told now and then; what is told too fast is left out.
        let _ = built.try_send(Built::Event(PreprocessEvent::Read(bytes)));
    })?;
    lap("read", &mut times);
    send(Built::Event(PreprocessEvent::Recognised(notes)));
    send(Built::Event(PreprocessEvent::Partitioning));
    let Chosen {
        split,
        why,
        times: attempts,
    } = match &spec.import {
        Some(file) => {
            let partition = import(&graph, spec.parts, file)?;
            let balance = Balance::default();
            Chosen {
                split: Split::new(&graph, partition, Partitioner::Import, balance),
                why: Vec::new(),
                times: Vec::new(),
            }
        }
        None => choose(&graph, spec.parts, spec.partitioner, spec.balance)?,
    };
    send(Built::Event(PreprocessEvent::Partitioned(why)));
    lap("partition", &mut times);
    let builder = PartBuilder::new(&graph, &split.partition);
    let all = (0..split.partition.parts).into_par_iter();
    let _ = all.try_for_each(|number| {
        let key = format!("parts/{id}-{number:05}.part");
        let (pieces, to_write) = mpsc::channel(PIECES_AHEAD);
        // Without anybody who listens there is nothing more to do.
        let give = |piece| match built.is_closed() {
            true => Err(()),
            false => pieces.blocking_send(piece).map_err(drop),
        };
        send(Built::Begun(key.clone(), to_write)).then_some(())?;
        let part = builder.write(number, |bytes| give(Piece::Some(bytes)));
        let part = part.and_then(|part| give(Piece::End).map(|()| part)).ok()?;
        send(Built::Part(PartEntry::of(key, &part))).then_some(())
    });
    lap("build parts", &mut times);
    let source = spec
        .graph
        .file_name()
        .unwrap_or(spec.graph.as_os_str())
        .to_string_lossy()
        .into_owned();
    let manifest = Manifest::new(id, source, &graph, &split, Vec::new());
    send(Built::Done(Box::new(Finished {
        manifest,
        times,
        attempts,
    })));
    Ok(())
}

/// Bytes that an edge takes, about, while a graph is read and split, vertices and METIS apart; with a weight twice as much.
const EDGE_BYTES: u64 = 16;

/// Refuses a plain file that is much too large for the memory of this machine, before minutes are spent on it. What packed files
/// and pipes hold is not known.
fn check_memory(spec: &PreprocessSpec) -> Result<(), PreprocessError> {
    let Some((edges, available)) = estimate(spec).zip(available_memory()) else {
        return Ok(());
    };
    let edge_bytes = EDGE_BYTES * if spec.reading.weights { 2 } else { 1 };
    let needed = edges * edge_bytes;
    if needed <= available {
        return Ok(());
    }
    Err(PreprocessError::Memory {
        graph: spec.graph.display().to_string(),
        edges,
        needed: needed >> 20,
        available: available >> 20,
    })
}

/// About how many edges a plain file holds.
fn estimate(spec: &PreprocessSpec) -> Option<u64> {
    // A pipe must not be opened twice.
    let length = std::fs::metadata(&spec.graph).ok()?;
    let length = Some(length).filter(|found| found.is_file())?.len();
    let mut file = std::fs::File::open(&spec.graph).ok()?;
    let mut head = Vec::new();
    file.by_ref().take(1 << 18).read_to_end(&mut head).ok()?;
    let is_text = !head.iter().any(|byte| *byte == 0 || *byte >= 0x80);
    let lines = head.iter().filter(|byte| **byte == b'\n').count() as u64;
    let both_ways = if spec.reading.undirected { 2 } else { 1 };
    (is_text && lines > 0).then(|| length * lines / head.len() as u64 * both_ways)
}

/// What the system says can be had without swapping, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_that_cannot_fit_is_refused_before_it_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "1 2\n".repeat(100_000)).unwrap();
        let mut spec = PreprocessSpec {
            graph: file.path().to_path_buf(),
            reading: Reading::default(),
            parts: 1,
            partitioner: None,
            balance: None,
            import: None,
            force: false,
            overwrite: false,
            threads: None,
        };
        assert_eq!(estimate(&spec), Some(100_000));
        check_memory(&spec).unwrap();
        spec.reading.undirected = true;
        assert_eq!(estimate(&spec), Some(200_000));
        // What follows is a hole, which takes no room; the length is what counts.
        file.as_file().set_len(1 << 43).unwrap();
        let error = check_memory(&spec).unwrap_err().to_string();
        assert!(error.contains("has about 4398046511104 edges"), "{error}");
        // Of a pipe nothing is known.
        spec.graph = "-".into();
        assert_eq!(estimate(&spec), None);
    }
}
