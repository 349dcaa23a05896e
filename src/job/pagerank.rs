//! PageRank over a partitioned graph: what each rank does, and how the driver asks for it and puts the results together.
//!
//! The ranks of a pack have one shard together, of which each computes its own parts. A superstep is one message to each pack
//! that reads values of ours, and one all-reduce of two integers. Vertices that others read are computed first, so that their
//! values travel while the rest is computed; messages are spread over the ranks of both packs. Arithmetic is per part and
//! sums over parts are integers, so the result depends to the bit on the partition alone: not on timing, on packs or on how
//! many ranks share the parts. With values of 32 bits it does depend on which parts share a pack, since only what is sent
//! is rounded.

use crate::graph::fixed::from_fixed;
use crate::graph::pagerank::Settings;
use crate::graph::{Dangling, PageRank, Part, Precision, Restart, Shard, top};
use crate::job::context::{BlockingStore, Context};
use crate::job::graph_store::{fetch, shares};
use crate::job::output::{OutputFolder, ResultFile, Target, part_key, part_text};
use crate::job::program::{Program, ProgramError};
use crate::job::report::decode_results;
use crate::net::codec::{self, REPORT_MAX};
use crate::net::comm::Exchange;
use crate::net::element::Fold;
use crate::net::message::Span;
use crate::net::token::JobId;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::ops::Range;
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

/// Vertices of a restart that are looked up together: 512 KiB of answers in one collective.
const RESTART_IDS_AT_ONCE: usize = 1 << 16;

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
    /// Where all ranks go, one file a part.
    pub output: Option<Target>,
    /// True if weights of edges are not used.
    #[serde(default)]
    pub ignore_weights: bool,
    /// Where a walk restarts; at each vertex alike if nothing is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartObject>,
    /// For tests: before each send, sleep a random time up to so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
}

/// A [`Restart`] in the job's own store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestartObject {
    /// Its key there.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC32C of its bytes.
    pub crc32c: u32,
}

impl RestartObject {
    /// Puts a restart into the store of a job.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn put(
        store: &Store,
        job: JobId,
        restart: &Restart,
    ) -> Result<RestartObject, StoreError> {
        let bytes = restart.to_bytes();
        let object = RestartObject {
            key: format!("{}/{job}/restart", PROGRAM.name),
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        };
        store.put(&object.key, bytes.into()).await?;
        Ok(object)
    }

    fn get(&self, store: &BlockingStore) -> Result<Restart, ProgramError> {
        let bytes = store.get(&self.key)?;
        let is_whole = bytes.len() as u64 == self.bytes && crc32c::crc32c(&bytes) == self.crc32c;
        let restart = Restart::from_bytes(&bytes).filter(|_| is_whole);
        restart.ok_or_else(|| {
            ProgramError::Other(format!(
                "{} is damaged, or not what this job has put there; run the job again",
                store.object_url(&self.key)
            ))
        })
    }
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
    /// The files of the output, by part.
    #[serde(skip)]
    pub files: Vec<ResultFile>,
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
    files: Vec<ResultFile>,
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
        files: results
            .iter()
            .flat_map(|result| result.files.iter().cloned())
            .collect(),
        top: top::merge(top_count, results.into_iter().map(|result| result.top)),
    })
}

fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let begun = Instant::now();
    let (mut pagerank, first_part) = load(context, &arguments)?;
    let load = begun.elapsed();

    let dangling = context
        .comm()
        .all_reduce(Fold::Sum, &[pagerank.dangling()])?;
    let mut dangling = from_fixed(dangling[0]);
    let mut messages = Messages::new(context, &pagerank, &arguments);
    let (mut iterations, mut l1_change, mut converged) = (0, f64::INFINITY, false);
    let mut l1_changes = Vec::new();
    let begun = Instant::now();
    if arguments.iterations > 0 {
        pagerank.begin();
        let exchange = messages.begin(context, &pagerank, 0)?;
        messages.finish(context, &mut pagerank, exchange)?;
        context.comm().pack_barrier()?;
        pagerank.advance();
    }
    while iterations < arguments.iterations && !converged {
        iterations += 1;
        pagerank.update_boundary(dangling);
        // After the last superstep nobody reads anything.
        let is_last = iterations == arguments.iterations;
        let mut exchange = match is_last {
            true => None,
            false => Some(messages.begin(context, &pagerank, iterations)?),
        };
        let mut outcome = Ok(());
        let step = pagerank.update_interior(dangling, &mut || {
            if let (Some(exchange), Ok(())) = (&mut exchange, &outcome) {
                outcome = context.comm().further_exchange(exchange);
            }
        });
        outcome?;
        if let Some(exchange) = exchange {
            messages.finish(context, &mut pagerank, exchange)?;
        }
        let sums = context
            .comm()
            .all_reduce(Fold::Sum, &[step.l1_change, step.dangling])?;
        pagerank.advance();
        (l1_change, dangling) = (from_fixed(sums[0]), from_fixed(sums[1]));
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
    let mut files = Vec::new();
    if let Some(target) = &arguments.output {
        let mut output = OutputFolder::open(context, target)?;
        // A rank of a run that was given up does not pass, and names no file.
        context.comm().barrier()?;
        for place in pagerank.parts() {
            let (part, ranks) = (first_part + place as u32, pagerank.ranks_of(place));
            let ids = &pagerank.shard().ids[pagerank.shard().part_ranges[place].clone()];
            // 17 digits.
            let text = part_text(ids, |text, vertex| {
                write!(text, "{:.16e}", ranks[vertex]).expect("a string takes it");
            });
            files.push(output.put(&part_key(part, "tsv"), text.into())?);
        }
    }
    let pairs = pagerank.ids().iter().copied();
    let result = RankResult {
        iterations,
        l1_change,
        l1_changes,
        iteration,
        converged,
        part_sums: pagerank
            .parts()
            .map(|place| pagerank.ranks_of(place).iter().sum())
            .collect(),
        top: top::top(arguments.top, pairs.zip(pagerank.ranks().iter().copied())),
        values_per_iteration: messages.values(&pagerank),
        load,
        arrivals: messages.arrivals,
        files,
    };
    codec::encode::<REPORT_MAX>(&result).map_err(|error| {
        ProgramError::Other(format!(
            "the result is too large: {error}; ask for fewer with --top"
        ))
    })
}

/// Fetches the parts of this rank, and puts them together with those of the other ranks of its pack. Gives also the number of
/// the pack's first part.
fn load(context: &mut Context, arguments: &Arguments) -> Result<(PageRank, u32), ProgramError> {
    let graph = context.open_store(&arguments.graph)?;
    let (manifest, groups) = shares(&graph, context.size())?;
    let mut parts = fetch(&graph, &manifest, groups[context.rank() as usize].clone())?;
    for part in &mut parts {
        match arguments.ignore_weights {
            true => part.weights = None,
            false => part.weights_to_shares()?,
        }
    }
    let restart = match &arguments.restart {
        None => None,
        Some(object) => Some(object.get(&context.store()?)?),
    };
    if let Some(restart) = &restart {
        check_restart(context, restart, &parts)?;
    }
    let of_pack =
        |pack: Span| groups[pack.first_rank as usize].start..groups[pack.end() as usize - 1].end;
    let pack = context.comm().pack();
    let number = context.comm().pack_of(pack.first_rank);
    let packs: Vec<Range<u32>> = context.comm().packs().map(of_pack).collect();
    let first = packs[number].start;
    let settings = Settings {
        damping: arguments.damping,
        dangling: arguments.dangling,
        vertices: manifest.vertices,
    };
    let pagerank = context.together(parts, |parts| {
        let parts = parts.into_iter().flatten().collect();
        let shard = Shard::merge(parts, &packs, number)?;
        let ranks = &groups[pack.first_rank as usize..pack.end() as usize];
        let own = ranks
            .iter()
            .map(|of_rank| (of_rank.start - first) as usize..(of_rank.end - first) as usize);
        let own: Vec<Range<usize>> = own.collect();
        Ok(PageRank::team(
            Arc::new(shard),
            settings,
            restart.as_ref(),
            &own,
        )?)
    })?;
    Ok((pagerank, first))
}

/// Fails on all ranks alike when a vertex of a restart is in no part of any rank.
fn check_restart(
    context: &mut Context,
    restart: &Restart,
    parts: &[Part],
) -> Result<(), ProgramError> {
    let ids: Vec<u64> = restart.ids().collect();
    for ids in ids.chunks(RESTART_IDS_AT_ONCE) {
        let is_here = |id: &u64| parts.iter().any(|part| part.ids.binary_search(id).is_ok());
        let here: Vec<u64> = ids.iter().map(|id| u64::from(is_here(id))).collect();
        let found = context.comm().all_reduce(Fold::Max, &here)?;
        if let Some(missing) = found.iter().position(|&found| found == 0) {
            return Err(ProgramError::Other(format!(
                "the graph has no vertex {}, which --restart names",
                ids[missing]
            )));
        }
    }
    Ok(())
}

/// The messages of one rank: those of its pack are shared out among its ranks.
struct Messages {
    precision: Precision,
    /// This pack's number, and this rank's place in it.
    pack: usize,
    place: usize,
    packs: Vec<Span>,
    /// Messages that this rank gets in each exchange.
    due: usize,
    /// A digest of the order in which messages came.
    arrivals: u32,
    delays: Option<Delays>,
}

impl Messages {
    fn new(context: &mut Context, pagerank: &PageRank, arguments: &Arguments) -> Messages {
        let rank = context.rank();
        let comm = context.comm();
        let mut messages = Messages {
            precision: arguments.precision,
            pack: comm.pack_of(rank),
            place: comm.pack().place(rank),
            packs: comm.packs().collect(),
            due: 0,
            arrivals: 0,
            delays: arguments.delay_ms.map(Delays::new),
        };
        let receives = pagerank.shard().receives.iter();
        messages.due = receives.filter(|(from, _)| messages.is_own(*from)).count();
        messages
    }

    /// Whether this rank sends to and receives from another pack in the name of its own.
    fn is_own(&self, other: usize) -> bool {
        other % self.packs[self.pack].ranks as usize == self.place
    }

    /// The rank of another pack that sends to and receives from this one.
    fn partner(&self, other: usize) -> u32 {
        let span = self.packs[other];
        span.first_rank + self.pack as u32 % span.ranks
    }

    /// How many values this rank sends in each exchange.
    fn values(&self, pagerank: &PageRank) -> u64 {
        let sends = pagerank.shard().sends.iter();
        let own = sends.filter(|(to, _)| self.is_own(*to));
        own.map(|(_, vertices)| vertices.len() as u64).sum()
    }

    /// Sends what other packs read of ours, once all ranks of this pack have it.
    fn begin(
        &mut self,
        context: &mut Context,
        pagerank: &PageRank,
        iteration: u64,
    ) -> Result<Exchange, ProgramError> {
        context.comm().pack_barrier()?;
        let mut sends = Vec::new();
        for (to, vertices) in &pagerank.shard().sends {
            if self.is_own(*to) {
                let values = pagerank.gather(vertices, self.precision);
                sends.push((self.partner(*to), Bytes::from(values)));
                if let Some(delays) = &mut self.delays {
                    delays.sleep();
                }
            }
        }
        // A neighbour may be one superstep ahead, never two, since the all-reduce holds it; tags keep the two apart.
        Ok(context.comm().begin_exchange(iteration as u32, sends)?)
    }

    /// Takes in what we read of others, in whatever order it arrives.
    fn finish(
        &mut self,
        context: &mut Context,
        pagerank: &mut PageRank,
        exchange: Exchange,
    ) -> Result<(), ProgramError> {
        for message in context.comm().finish_exchange(exchange, self.due)? {
            let source = message.source;
            self.arrivals = crc32c::crc32c_append(self.arrivals, &source.to_le_bytes());
            let from = context.comm().pack_of(source);
            let receives = pagerank.shard().receives.iter();
            let expected = receives
                .filter(|(pack, _)| self.is_own(*pack) && self.partner(*pack) == source)
                .find(|(pack, _)| *pack == from);
            let Some((_, ghosts)) = expected.cloned() else {
                return Err(ProgramError::Other(format!(
                    "rank {source} sent values that nobody here reads"
                )));
            };
            pagerank.scatter(ghosts, &message.payload, self.precision)?;
        }
        Ok(())
    }
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
