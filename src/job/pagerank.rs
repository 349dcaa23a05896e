//! PageRank over a partitioned graph: what each rank does, and how the driver asks for it and puts the results together.
//!
//! A superstep is one message to each rank that reads values of ours, and one all-reduce of two integers. Arithmetic is
//! per part and sums over parts are integers, so the result depends to the bit on the partition alone: not on timing, on
//! packs or on how many ranks share the parts.

use crate::graph::fixed::from_fixed;
use crate::graph::pagerank::Settings;
use crate::graph::{Dangling, MANIFEST_KEY, Manifest, PageRank, Part, Shard, rank_parts, top};
use crate::job::context::{BlockingStore, Context};
use crate::job::program::{Program, ProgramError};
use crate::net::codec::{self, REPORT_MAX};
use crate::net::element::Fold;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Supersteps when nothing is said.
pub const ITERATIONS_DEFAULT: u64 = 20;

/// Supersteps at most when only a tolerance is given.
pub const ITERATIONS_MAX_DEFAULT: u64 = 1_000;

/// The most top vertices that can be asked for: each rank reports so many.
pub const TOP_MAX: usize = 100_000;

/// The program.
pub const PROGRAM: Program = Program {
    name: "pagerank",
    run,
};

/// What the driver asks for; the program's arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arguments {
    /// The store that `preprocess` wrote, absolute.
    pub graph: String,
    /// The probability of following an edge, 0 to 1.
    pub damping: f64,
    /// What becomes of the rank of vertices without out-edges.
    pub dangling: Dangling,
    /// Supersteps at most.
    pub iterations: u64,
    /// The L1 change below which it stops earlier.
    pub tolerance: Option<f64>,
    /// How many of the highest vertices are reported.
    pub top: usize,
    /// A store for all ranks, one object a part, absolute.
    pub output: Option<String>,
    /// For tests: before each send, sleep a random time up to so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Supersteps that were computed.
    pub iterations: u64,
    /// The L1 change of the last one.
    pub l1_change: f64,
    /// True if it fell below the tolerance; without a tolerance false.
    pub converged: bool,
    /// The sum of all ranks.
    pub sum: f64,
    /// The highest vertices, by value rounded to 12 digits and then by id.
    pub top: Vec<(u64, f64)>,
    /// Values that left a rank in each superstep.
    pub values_per_iteration: u64,
    /// The longest that any rank took to load its parts.
    pub load: Duration,
    /// A digest of the order in which messages arrived, for tests of its irrelevance.
    pub arrivals: u32,
}

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
    Graph(#[from] crate::graph::GraphError),
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

/// What one rank reports.
#[derive(Debug, Serialize, Deserialize)]
struct RankResult {
    iterations: u64,
    l1_change: f64,
    converged: bool,
    part_sums: Vec<f64>,
    top: Vec<(u64, f64)>,
    values_per_iteration: u64,
    load: Duration,
    arrivals: u32,
}

/// Puts the ranks' results together.
///
/// # Errors
/// When a result does not decode.
pub fn collect(results: &[Vec<u8>], top_count: usize) -> Result<Outcome, String> {
    let decode = |bytes: &Vec<u8>| codec::decode::<RankResult, REPORT_MAX>(bytes);
    let results: Vec<RankResult> = results
        .iter()
        .map(decode)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a rank's result does not decode: {error}"))?;
    let first = results.first().ok_or("no rank reported a result")?;
    let mut arrivals = Vec::new();
    results
        .iter()
        .for_each(|result| arrivals.extend_from_slice(&result.arrivals.to_le_bytes()));
    Ok(Outcome {
        iterations: first.iterations,
        l1_change: first.l1_change,
        converged: first.converged,
        // In the order of parts, so that the sum is the same however ranks share them.
        sum: results.iter().flat_map(|result| &result.part_sums).sum(),
        values_per_iteration: results
            .iter()
            .map(|result| result.values_per_iteration)
            .sum(),
        load: results
            .iter()
            .map(|result| result.load)
            .max()
            .unwrap_or_default(),
        arrivals: crc32c::crc32c(&arrivals),
        top: top::merge(top_count, results.into_iter().map(|result| result.top)),
    })
}

/// The object that is written last to an output store, and names what it vouches for.
pub const RESULT_KEY: &str = "result.json";

/// The name of the object that holds one part's ranks.
pub fn output_key(part: u32) -> String {
    format!("part-{part:05}.tsv")
}

/// True for the names that [`output_key`] gives.
fn is_output_key(key: &str) -> bool {
    let number = key
        .strip_prefix("part-")
        .and_then(|rest| rest.strip_suffix(".tsv"));
    number.is_some_and(|digits| {
        digits.len() >= 5 && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// The objects of an earlier result in an output store.
///
/// # Errors
/// When the store cannot be listed.
pub async fn earlier_output(output: &Store) -> Result<Vec<String>, StoreError> {
    let keys = output.list("").await?.into_iter().map(|entry| entry.key);
    Ok(keys
        .filter(|key| key == RESULT_KEY || is_output_key(key))
        .collect())
}

/// Completes an output: what an earlier result of more parts left is removed, and `result` is written, naming the files.
///
/// # Errors
/// When the store cannot be written.
pub async fn finish_output(
    output: &Store,
    parts: u32,
    mut result: serde_json::Value,
) -> Result<(), StoreError> {
    let files: Vec<String> = (0..parts).map(output_key).collect();
    for key in earlier_output(output).await? {
        if is_output_key(&key) && !files.contains(&key) {
            output.delete(&key).await?;
        }
    }
    result["files"] = files.into();
    let text = serde_json::to_vec_pretty(&result).expect("a JSON value is written");
    output.put(RESULT_KEY, text.into()).await
}

fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let begun = Instant::now();
    let graph = context.open_store(&arguments.graph)?;
    let (manifest, shard) = load(&graph, context.rank(), context.size())?;
    let load = begun.elapsed();
    let settings = Settings {
        damping: arguments.damping,
        dangling: arguments.dangling,
        vertices: manifest.vertices,
    };
    let mut pagerank = PageRank::new(Arc::new(shard), settings)?;

    let dangling = context
        .comm()
        .all_reduce(Fold::Sum, &[pagerank.dangling()])?;
    let mut dangling = from_fixed(dangling[0]);
    let mut delays = arguments.delay_ms.map(Delays::new);
    let (mut iterations, mut l1_change, mut converged, mut arrivals) = (0, f64::INFINITY, false, 0);
    while iterations < arguments.iterations && !converged {
        arrivals = exchange(context, &mut pagerank, iterations, arrivals, &mut delays)?;
        let step = pagerank.update(dangling);
        let sums = context
            .comm()
            .all_reduce(Fold::Sum, &[step.l1_change, step.dangling])?;
        (l1_change, dangling) = (from_fixed(sums[0]), from_fixed(sums[1]));
        iterations += 1;
        converged = arguments
            .tolerance
            .is_some_and(|tolerance| l1_change < tolerance);
        context.progress(iterations, l1_change)?;
    }

    let shard = pagerank.shard();
    if let Some(output) = &arguments.output {
        let output = context.open_store(output)?;
        if context.rank() == 0 {
            // From here on an earlier result counts for nothing, and not before: the new ranks are there.
            output.delete(RESULT_KEY)?;
        }
        context.comm().barrier()?;
        write(&output, shard, pagerank.ranks())?;
    }
    let result = RankResult {
        iterations,
        l1_change,
        converged,
        part_sums: shard
            .part_ranges
            .iter()
            .map(|range| pagerank.ranks()[range.clone()].iter().sum())
            .collect(),
        top: top::top(
            arguments.top,
            shard
                .ids
                .iter()
                .copied()
                .zip(pagerank.ranks().iter().copied()),
        ),
        values_per_iteration: shard
            .sends
            .iter()
            .map(|(_, vertices)| vertices.len() as u64)
            .sum(),
        load,
        arrivals,
    };
    codec::encode::<REPORT_MAX>(&result).map_err(|error| {
        ProgramError::Other(format!(
            "the result is too large: {error}; ask for fewer with --top"
        ))
    })
}

/// Fetches the parts of one rank and merges them.
fn load(graph: &BlockingStore, rank: u32, size: u32) -> Result<(Manifest, Shard), ProgramError> {
    let manifest = Manifest::parse(&graph.get(MANIFEST_KEY)?, &graph.object_url(MANIFEST_KEY))?;
    let groups = rank_parts(manifest.parts.len() as u32, size)?;
    let own: Range<u32> = groups[rank as usize].clone();
    let mut parts = Vec::new();
    for part in own {
        let entry = &manifest.parts[part as usize];
        let name = graph.object_url(&entry.key);
        let bytes = graph.get(&entry.key)?;
        // The manifest vouches for exactly these bytes: a part of another run of preprocess is noticed here.
        if bytes.len() as u64 != entry.bytes || crc32c::crc32c(&bytes) != entry.crc32c {
            return Err(ProgramError::Other(format!(
                "{name} is not the object that its manifest names; run preprocess again"
            )));
        }
        parts.push(Part::decode(&bytes, &name)?);
    }
    let shard = Shard::merge(parts, &groups, rank as usize)?;
    Ok((manifest, shard))
}

/// Sends what other ranks read of ours, and takes in what we read of theirs, in whatever order it arrives.
fn exchange(
    context: &mut Context,
    pagerank: &mut PageRank,
    iteration: u64,
    mut arrivals: u32,
    delays: &mut Option<Delays>,
) -> Result<u32, ProgramError> {
    pagerank.contribute();
    // A neighbour may be one superstep ahead, never two, since the all-reduce holds it; tags keep the two apart.
    let tag = iteration as u32;
    let mut sends = Vec::with_capacity(pagerank.shard().sends.len());
    for (to, vertices) in &pagerank.shard().sends {
        sends.push((*to as u32, Bytes::from(pagerank.gather(vertices))));
        if let Some(delays) = delays {
            delays.sleep();
        }
    }
    let due = pagerank.shard().receives.len();
    for message in context.comm().exchange(tag, sends, due)? {
        arrivals = crc32c::crc32c_append(arrivals, &message.source.to_le_bytes());
        let expected = pagerank
            .shard()
            .receives
            .iter()
            .find(|(from, _)| *from as u32 == message.source);
        let Some((_, ghosts)) = expected.cloned() else {
            return Err(ProgramError::Other(format!(
                "rank {} sent values that nobody here reads",
                message.source
            )));
        };
        pagerank.scatter(ghosts, &message.payload)?;
    }
    Ok(arrivals)
}

/// Writes one object a part: a line `id<TAB>rank` for each vertex, ids rising, ranks with 17 digits.
fn write(output: &BlockingStore, shard: &Shard, ranks: &[f64]) -> Result<(), ProgramError> {
    for (part, range) in shard.parts.clone().zip(&shard.part_ranges) {
        let mut text = String::with_capacity(range.len() * 32);
        for vertex in range.clone() {
            writeln!(text, "{}\t{:.16e}", shard.ids[vertex], ranks[vertex])
                .expect("a string takes whatever is written");
        }
        output.put(&output_key(part), text.into())?;
    }
    Ok(())
}

/// Random sleeps, different in each process and run.
struct Delays {
    max_ms: u64,
    state: u64,
}

impl Delays {
    fn new(max_ms: u64) -> Delays {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the system's random numbers are there");
        Delays {
            max_ms,
            state: u64::from_le_bytes(seed) | 1,
        }
    }

    fn sleep(&mut self) {
        // Marsaglia's xorshift; its quality does not matter here.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        std::thread::sleep(Duration::from_micros(self.state % (self.max_ms * 1000 + 1)));
    }
}
