//! Programs over vertices other than PageRank: what each rank does, and how the driver asks and puts the results together.
//!
//! A superstep is one message to each rank that reads values of ours, which holds those that have changed, and one all-reduce
//! of how many have. [`crate::graph::vertex`] has the arithmetic; here is the wire around it.

use crate::graph::lcc::{self, Clustering};
use crate::graph::programs::{Bfs, Cdlp, Sssp, TOO_LONG, UNREACHABLE, Wcc};
use crate::graph::vertex::{Along, Superstep, VertexProgram};
use crate::graph::{Manifest, Reads, Shard, mirrors};
use crate::job::context::Context;
use crate::job::graph_store::load;
use crate::job::output::{OutputFolder, ResultFile, Target, part_key, part_text};
use crate::job::program::{Program, ProgramError};
use crate::job::report::decode_results;
use crate::net::codec::{self, REPORT_MAX};
use crate::net::element::Fold;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds of label propagation when nothing is said.
pub const ITERATIONS_DEFAULT: u64 = 10;

/// Tags of what is sent before the first superstep; those of supersteps follow.
const TAG_MIRROR: u32 = 0;
const TAG_INTRODUCTION: u32 = 1;
const TAG_EDGES: u32 = 2;
const TAG_LABELS: u32 = 3;
const TAG_SUPERSTEP: u32 = 4;

/// All of them.
pub const PROGRAMS: [Program; 5] = [
    Program {
        name: "bfs",
        run: bfs,
    },
    Program {
        name: "wcc",
        run: wcc,
    },
    Program {
        name: "sssp",
        run: sssp,
    },
    Program {
        name: "cdlp",
        run: cdlp,
    },
    Program {
        name: "lcc",
        run: lcc,
    },
];

/// What the driver asks for; the arguments of each of these programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arguments {
    /// The store that `preprocess` wrote, absolute.
    pub graph: String,
    /// The id to start at, for `bfs` and `sssp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<u64>,
    /// Rounds of `cdlp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u64>,
    /// Where all values go, one file a part.
    pub output: Option<Target>,
}

/// The result of a run. What a program does not look for is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Supersteps that were made.
    pub supersteps: u64,
    /// Vertices that the source reaches, itself included.
    pub reached: Option<u64>,
    /// The largest finite distance.
    pub farthest: Option<f64>,
    /// Components, or communities.
    pub groups: Option<u64>,
    /// The mean of all coefficients.
    pub mean_coefficient: Option<f64>,
    /// The longest that any rank took to load its parts.
    pub load: Duration,
    /// The longest that any rank took to compute, once all had loaded.
    pub compute: Duration,
    /// The files of the output, by part.
    pub files: Vec<ResultFile>,
}

/// What a rank has found among its own vertices.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Findings {
    reached: Option<u64>,
    farthest: Option<f64>,
    groups: Option<u64>,
    /// The sum of the coefficients of each part.
    coefficients: Option<Vec<f64>>,
}

/// What one rank reports.
#[derive(Debug, Serialize, Deserialize)]
struct RankResult {
    supersteps: u64,
    findings: Findings,
    load: Duration,
    compute: Duration,
    files: Vec<ResultFile>,
}

/// Puts the ranks' results together.
///
/// # Errors
/// When a result does not decode.
pub fn collect(results: &[Vec<u8>], manifest: &Manifest) -> Result<Outcome, String> {
    let results: Vec<RankResult> = decode_results(results)?;
    let found = || results.iter().map(|result| &result.findings);
    // In the order of parts, so that the sum is the same however ranks share them.
    let coefficients = found().filter_map(|found| found.coefficients.as_ref());
    let coefficients = coefficients.flatten().copied().reduce(|a, b| a + b);
    Ok(Outcome {
        supersteps: results[0].supersteps,
        reached: found().map(|found| found.reached).sum(),
        farthest: found().filter_map(|found| found.farthest).reduce(f64::max),
        groups: found().map(|found| found.groups).sum(),
        mean_coefficient: coefficients.map(|sum| sum / manifest.vertices as f64),
        load: results
            .iter()
            .map(|result| result.load)
            .max()
            .unwrap_or_default(),
        compute: results
            .iter()
            .map(|result| result.compute)
            .max()
            .unwrap_or_default(),
        files: results
            .iter()
            .flat_map(|result| result.files.iter().cloned())
            .collect(),
    })
}

/// What a rank has loaded.
struct Loaded {
    arguments: Arguments,
    manifest: Manifest,
    shard: Shard,
    reads: Arc<Reads>,
    load: Duration,
    begun: Instant,
}

impl Loaded {
    fn new(context: &mut Context, along: Along) -> Result<Loaded, ProgramError> {
        let arguments: Arguments = context.arguments()?;
        let begun = Instant::now();
        let graph = context.open_store(&arguments.graph)?;
        let (manifest, shard) = load(&graph, context.rank(), context.size())?;
        // Where each edge has its reverse, both directions are one.
        let reads = match along {
            Along::Both if !manifest.symmetric => {
                let mut told = mirrors(&shard);
                let sends = told
                    .iter_mut()
                    .map(|mirror| (mirror.rank, std::mem::take(&mut mirror.message)));
                let heard = exchange(context, TAG_MIRROR, sends.collect(), shard.sends.len())?;
                Reads::both(&shard, told, &heard)?
            }
            _ => Reads::along_in(&shard),
        };
        let load = begun.elapsed();
        context.comm().barrier()?;
        Ok(Loaded {
            arguments,
            manifest,
            shard,
            reads: Arc::new(reads),
            load,
            begun: Instant::now(),
        })
    }

    /// The vertex to start at. All ranks fail alike when none of them has it.
    fn source(&self, context: &mut Context) -> Result<u64, ProgramError> {
        let missing = || ProgramError::Other("no source was given".into());
        let source = self.arguments.source.ok_or_else(missing)?;
        let here = i64::from(self.shard.ids.contains(&source));
        match context.comm().all_reduce(Fold::Sum, &[here])?[0] {
            0 => {
                let graph = &self.manifest.source;
                let what = format!("{graph} has no vertex {source} to start at");
                Err(ProgramError::Other(what))
            }
            _ => Ok(source),
        }
    }

    /// Writes all values, if that was asked for, and reports.
    fn finish(
        self,
        context: &mut Context,
        supersteps: u64,
        findings: Findings,
        value: impl Fn(&mut String, usize),
    ) -> Result<Vec<u8>, ProgramError> {
        let compute = self.begun.elapsed();
        let mut files = Vec::new();
        if let Some(target) = &self.arguments.output {
            let mut output = OutputFolder::open(context, target)?;
            // A rank of a run that was given up does not pass, and names no file.
            context.comm().barrier()?;
            let parts = self.shard.parts.clone();
            for (part, range) in parts.zip(&self.shard.part_ranges) {
                let ids = &self.shard.ids[range.clone()];
                let value = |text: &mut String, vertex| value(text, range.start + vertex);
                let text = part_text(ids, value);
                files.push(output.put(&part_key(part, "tsv"), text.into())?);
            }
        }
        let result = RankResult {
            supersteps,
            findings,
            load: self.load,
            compute,
            files,
        };
        codec::encode::<REPORT_MAX>(&result)
            .map_err(|error| ProgramError::Other(format!("the result is too large: {error}")))
    }
}

/// Sends what there is to other ranks, and takes as many messages, by rank.
fn exchange(
    context: &mut Context,
    tag: u32,
    sends: Vec<(usize, Vec<u8>)>,
    count: usize,
) -> Result<Vec<(usize, Bytes)>, ProgramError> {
    let sends = sends
        .into_iter()
        .map(|(to, bytes)| (to as u32, Bytes::from(bytes)));
    let messages = context.comm().exchange(tag, sends.collect(), count)?;
    let mut received: Vec<(usize, Bytes)> = messages
        .into_iter()
        .map(|message| (message.source as usize, message.payload))
        .collect();
    received.sort_unstable_by_key(|(rank, _)| *rank);
    Ok(received)
}

/// Makes supersteps until nothing changes, or as many as the program says. Gives the values, and how many it made.
fn supersteps<P: VertexProgram>(
    context: &mut Context,
    loaded: &Loaded,
    program: P,
) -> Result<(Vec<P::Value>, u64), ProgramError> {
    let most = program.supersteps().unwrap_or(u64::MAX);
    let reads = Arc::clone(&loaded.reads);
    let due = reads.receives.len();
    let mut rank = Superstep::new(program, reads, &loaded.shard.ids);
    let mut made = 0;
    while made < most {
        // A neighbour may be one superstep ahead, never two, since the all-reduce holds it.
        let tag = TAG_SUPERSTEP + (made % 2) as u32;
        for (from, message) in exchange(context, tag, rank.outgoing(), due)? {
            rank.incoming(from, &message)?;
        }
        let changed = rank.compute() as i64;
        made += 1;
        let changed = context.comm().all_reduce(Fold::Sum, &[changed])?[0];
        context.progress(made, changed as f64)?;
        if changed == 0 {
            break;
        }
    }
    Ok((rank.values().to_vec(), made))
}

fn bfs(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let loaded = Loaded::new(context, Bfs::ALONG)?;
    let source = loaded.source(context)?;
    let (hops, made) = supersteps(context, &loaded, Bfs { source })?;
    let reached = || hops.iter().filter(|&&hops| hops != UNREACHABLE);
    let findings = Findings {
        reached: Some(reached().count() as u64),
        farthest: reached().max().map(|&hops| hops as f64),
        ..Findings::default()
    };
    loaded.finish(context, made, findings, |text, vertex| {
        let _ = write!(text, "{}", hops[vertex]);
    })
}

fn sssp(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let loaded = Loaded::new(context, Sssp::ALONG)?;
    let source = loaded.source(context)?;
    let what = match &loaded.shard.weights {
        None => Some("has no weights; run preprocess with --weights"),
        Some(weights) if weights.iter().any(|&weight| weight < 0.0) => {
            Some("has negative weights, with which shortest paths may have no end")
        }
        Some(_) => None,
    };
    if let Some(what) = what {
        let graph = &loaded.manifest.source;
        return Err(ProgramError::Other(format!("{graph} {what}")));
    }
    let (lengths, made) = supersteps(context, &loaded, Sssp { source })?;
    let vertices = lengths.iter().zip(&loaded.shard.ids);
    let mut too_long = vertices.filter(|(length, _)| **length >= TOO_LONG && length.is_finite());
    // The smallest of them on any rank, so that all ranks fail with the same words.
    let first = too_long.next().map_or(u64::MAX, |(_, id)| *id);
    let first = too_long.fold(first, |first, (_, id)| first.min(*id));
    let found = u64::from(first != u64::MAX);
    let found = context.comm().all_reduce(Fold::Max, &[found])?[0];
    let first = context.comm().all_reduce(Fold::Min, &[first])?[0];
    if found > 0 {
        return Err(ProgramError::Other(format!(
            "the shortest path from {source} to vertex {first} is longer than 1.8e308, which is more than a number holds; scale the weights"
        )));
    }
    let reached = || lengths.iter().filter(|length| length.is_finite());
    let findings = Findings {
        reached: Some(reached().count() as u64),
        farthest: reached().copied().reduce(f64::max),
        ..Findings::default()
    };
    loaded.finish(context, made, findings, |text, vertex| {
        let _ = match lengths[vertex] {
            f64::INFINITY => write!(text, "infinity"),
            length => write!(text, "{length:.16e}"),
        };
    })
}

fn wcc(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let loaded = Loaded::new(context, Wcc::ALONG)?;
    let (labels, made) = supersteps(context, &loaded, Wcc)?;
    // Each component has its smallest id as its label.
    let pairs = labels.iter().zip(&loaded.shard.ids);
    let findings = Findings {
        groups: Some(pairs.filter(|(label, id)| label == id).count() as u64),
        ..Findings::default()
    };
    loaded.finish(context, made, findings, |text, vertex| {
        let _ = write!(text, "{}", labels[vertex]);
    })
}

fn cdlp(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let loaded = Loaded::new(context, Cdlp::ALONG)?;
    let iterations = loaded.arguments.iterations.unwrap_or(ITERATIONS_DEFAULT);
    let (labels, made) = supersteps(context, &loaded, Cdlp::new(iterations))?;
    let findings = Findings {
        groups: Some(distinct(context, &labels)?),
        ..Findings::default()
    };
    loaded.finish(context, made, findings, |text, vertex| {
        let _ = write!(text, "{}", labels[vertex]);
    })
}

/// How many labels there are; those that this rank is to count, so that the sum over all ranks is their number.
fn distinct(context: &mut Context, labels: &[u64]) -> Result<u64, ProgramError> {
    let (me, size) = (context.rank() as usize, context.size() as usize);
    let mut by_rank: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); size];
    for &label in labels {
        by_rank[(label % size as u64) as usize].insert(label);
    }
    let mut own = std::mem::take(&mut by_rank[me]);
    let bytes = |labels: BTreeSet<u64>| -> Vec<u8> {
        labels.into_iter().flat_map(u64::to_le_bytes).collect()
    };
    let sends = by_rank.into_iter().enumerate();
    let sends = sends.filter(|(rank, _)| *rank != me);
    let sends: Vec<(usize, Vec<u8>)> = sends.map(|(rank, of)| (rank, bytes(of))).collect();
    for (_, message) in exchange(context, TAG_LABELS, sends, size - 1)? {
        let words = message.as_chunks::<8>().0.iter();
        own.extend(words.map(|&word| u64::from_le_bytes(word)));
    }
    Ok(own.len() as u64)
}

fn lcc(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let loaded = Loaded::new(context, Along::Both)?;
    let counts = (loaded.shard.vertices() as u64).to_le_bytes();
    let counts = context.comm().all_gather(Bytes::copy_from_slice(&counts))?;
    let mut starts = vec![0u64];
    for count in counts {
        let count = count[..].try_into().map(u64::from_le_bytes);
        let count = count.map_err(|_| ProgramError::Other("a rank gathered other bytes".into()))?;
        starts.push(starts[starts.len() - 1] + count);
    }
    let due = loaded.reads.receives.len();
    let introductions = lcc::introductions(&loaded.reads);
    let introduced = exchange(context, TAG_INTRODUCTION, introductions, due)?;
    let mut clustering = Clustering::new(&loaded.shard, &loaded.reads, &starts, &introduced)?;
    clustering.own_edges(&loaded.shard, loaded.manifest.symmetric);
    let edges = exchange(context, TAG_EDGES, clustering.outgoing(), due)?;
    clustering.incoming(&edges)?;
    drop(edges);
    let coefficients = clustering.coefficients();
    drop(clustering);
    let findings = Findings {
        coefficients: Some(
            loaded
                .shard
                .part_ranges
                .iter()
                .map(|range| coefficients[range.clone()].iter().sum())
                .collect(),
        ),
        ..Findings::default()
    };
    loaded.finish(context, 1, findings, |text, vertex| {
        let _ = write!(text, "{:.16e}", coefficients[vertex]);
    })
}
