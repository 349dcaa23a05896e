//! PageRank over a partitioned graph: what each rank does, and how the driver asks for it and puts the results together.
//!
//! A superstep is one message to each rank that reads values of ours, and one all-reduce of two integers. Arithmetic is
//! per part and sums over parts are integers, so the result depends to the bit on the partition alone: not on timing, on
//! packs or on how many ranks share the parts. With values of 32 bits it does depend on which parts share a rank, since
//! only what is sent is rounded.

use crate::graph::fixed::from_fixed;
use crate::graph::pagerank::Settings;
use crate::graph::{Dangling, PageRank, Precision, top};
use crate::job::context::Context;
use crate::job::graph_store::load;
use crate::job::output::{self, RESULT_KEY};
use crate::job::program::{Program, ProgramError};
use crate::job::report::decode_results;
use crate::net::codec::{self, REPORT_MAX};
use crate::net::element::Fold;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Supersteps when nothing is said.
pub const ITERATIONS_DEFAULT: u64 = 20;

/// Supersteps at most when only a tolerance is given.
pub const ITERATIONS_MAX_DEFAULT: u64 = 1_000;

/// Supersteps up to which the change of each is told.
pub const CHANGES_MAX: u64 = 10_000;

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
    /// How exactly ranks tell each other their values.
    #[serde(default)]
    pub precision: Precision,
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
    /// Those of all, for a plot; none where there are more than [`CHANGES_MAX`].
    pub l1_changes: Vec<f64>,
    /// The time of one superstep: of all, by their number, on the rank that took longest.
    pub iteration: Duration,
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

/// What one rank reports.
#[derive(Debug, Serialize, Deserialize)]
struct RankResult {
    iterations: u64,
    l1_change: f64,
    l1_changes: Vec<f64>,
    iteration: Duration,
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
    let results: Vec<RankResult> = decode_results(results)?;
    let first = &results[0];
    let mut arrivals = Vec::new();
    results
        .iter()
        .for_each(|result| arrivals.extend_from_slice(&result.arrivals.to_le_bytes()));
    Ok(Outcome {
        iterations: first.iterations,
        l1_change: first.l1_change,
        l1_changes: first.l1_changes.clone(),
        iteration: results
            .iter()
            .map(|result| result.iteration)
            .max()
            .unwrap_or_default(),
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
    let mut l1_changes = Vec::new();
    let begun = Instant::now();
    while iterations < arguments.iterations && !converged {
        arrivals = exchange(
            context,
            &mut pagerank,
            arguments.precision,
            iterations,
            arrivals,
            &mut delays,
        )?;
        let step = pagerank.update(dangling);
        let sums = context
            .comm()
            .all_reduce(Fold::Sum, &[step.l1_change, step.dangling])?;
        (l1_change, dangling) = (from_fixed(sums[0]), from_fixed(sums[1]));
        iterations += 1;
        // Alike on all ranks; the driver takes them of one.
        if context.rank() == 0 && iterations <= CHANGES_MAX {
            l1_changes.push(l1_change);
        }
        converged = arguments
            .tolerance
            .is_some_and(|tolerance| l1_change < tolerance);
        context.progress(iterations, l1_change)?;
    }

    let iteration = begun.elapsed() / iterations.clamp(1, u64::from(u32::MAX)) as u32;
    if iterations > CHANGES_MAX {
        l1_changes.clear();
    }

    let shard = pagerank.shard();
    if let Some(output) = &arguments.output {
        let output = context.open_store(output)?;
        if context.rank() == 0 {
            // From here on an earlier result counts for nothing, and not before: the new ranks are there.
            output.delete(RESULT_KEY)?;
        }
        context.comm().barrier()?;
        // 17 digits.
        output::write(&output, shard, |text, vertex| {
            write!(text, "{:.16e}", pagerank.ranks()[vertex]).expect("a string takes it");
        })?;
    }
    let result = RankResult {
        iterations,
        l1_change,
        l1_changes,
        iteration,
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

/// Sends what other ranks read of ours, and takes in what we read of theirs, in whatever order it arrives.
fn exchange(
    context: &mut Context,
    pagerank: &mut PageRank,
    precision: Precision,
    iteration: u64,
    mut arrivals: u32,
    delays: &mut Option<Delays>,
) -> Result<u32, ProgramError> {
    pagerank.contribute();
    // A neighbour may be one superstep ahead, never two, since the all-reduce holds it; tags keep the two apart.
    let tag = iteration as u32;
    let mut sends = Vec::with_capacity(pagerank.shard().sends.len());
    for (to, vertices) in &pagerank.shard().sends {
        sends.push((
            *to as u32,
            Bytes::from(pagerank.gather(vertices, precision)),
        ));
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
        pagerank.scatter(ghosts, &message.payload, precision)?;
    }
    Ok(arrivals)
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
