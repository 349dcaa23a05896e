//! `make bench-graph`: lswitch's graphs beside the graph crate, polars, GAP, gpmetis and Python's libraries, in one sitting.
//!
//! Each round runs everything once, ours beside theirs, and ratios are within a round; the last lines name each target, what
//! was measured (median, least, most), its bound, and whether it was met. Rivals that are not here are left out and named:
//! `PYTHON` is an interpreter with polars, scipy and the others, `GAPBS` a folder with GAP's `pr_spmv` and `converter`.

mod peers;
mod report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use lswitch::graph::fixed::from_fixed;
use lswitch::graph::{Manifest, PageRank, Part, Settings, Shard, rank_parts};
use peers::Peers;
use report::{Bound, Report};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// lswitch's graphs beside others'
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; medians are taken over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// The rmat graph has up to 2^SCALE vertices
    #[arg(long, default_value_t = 20)]
    scale: u32,

    /// A web crawl, as an edge list; rows that need one are left out without it
    #[arg(long, value_name = "FILE")]
    crawl: Option<PathBuf>,

    /// Compare METIS on the rmat graph too, which takes minutes
    #[arg(long)]
    long: bool,

    /// One of the parts of a round, in a process of its own
    #[arg(long, hide = true, num_args = 1..)]
    child: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.child[..] {
        [] => bench(&arguments),
        [what, file] if what == "graph" => peers::load_with_graph_crate(Path::new(file)),
        [what, folder, count] if what == "kernel" => {
            println!("{}", kernel(Path::new(folder), count.parse()?)?);
            Ok(())
        }
        other => bail!("{other:?} is not a part of a round"),
    }
}

/// Milliseconds of one iteration in one thread: the median.
fn kernel(folder: &Path, iterations: usize) -> Result<f64> {
    let manifest = Manifest::parse(&std::fs::read(folder.join("manifest.json"))?, "manifest")?;
    let mut parts = Vec::new();
    for entry in &manifest.parts {
        let bytes = std::fs::read(folder.join(&entry.key))?;
        parts.push(Part::decode(bytes, &entry.key)?);
    }
    let groups = rank_parts(manifest.parts.len() as u32, 1)?;
    let shard = Shard::merge(parts, &groups, 0)?;
    let mut rank = PageRank::new(Arc::new(shard), Settings::new(manifest.vertices))?;
    let mut dangling = from_fixed(rank.dangling());
    let mut times = Vec::new();
    rank.begin();
    rank.advance();
    for _ in 0..iterations {
        let begun = Instant::now();
        rank.update_boundary(dangling);
        dangling = from_fixed(rank.update_interior(dangling, &mut || ()).dangling);
        rank.advance();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(report::median(&times))
}

/// The programs and files of a run.
struct Bench {
    lswitch: PathBuf,
    own: PathBuf,
    folder: tempfile::TempDir,
    peers: Peers,
}

/// A graph to measure on.
struct Subject {
    name: &'static str,
    text: PathBuf,
    /// Iterations that GAP is given.
    iterations: usize,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs lswitch, and gives what it prints as JSON, and its seconds.
    fn lswitch(&self, arguments: &[&str]) -> Result<(Value, f64)> {
        let begun = Instant::now();
        let output = Command::new(&self.lswitch)
            .args(arguments)
            .args(["--json", "-q"])
            .env("LSWITCH_HOME", self.folder.path())
            .current_dir(self.folder.path())
            .output()?;
        let seconds = begun.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok((serde_json::from_slice(&output.stdout)?, seconds))
    }

    fn preprocess(&self, text: &Path, out: &str, more: &[&str]) -> Result<(Value, f64)> {
        let text = text.to_str().context("a path that is text")?;
        let mut arguments = vec!["preprocess", text, "--out", out, "--overwrite"];
        arguments.extend(more);
        self.lswitch(&arguments)
    }

    fn pagerank(&self, graph: &str, workers: &str, iterations: &str) -> Result<(Value, f64)> {
        self.lswitch(&[
            "invoke",
            "pagerank",
            "--graph",
            graph,
            "--workers",
            workers,
            "--iterations",
            iterations,
        ])
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let own = std::env::current_exe()?;
    let lswitch = own.with_file_name("lswitch");
    let bench = Bench {
        lswitch,
        folder: tempfile::tempdir()?,
        peers: Peers::find(),
        own,
    };
    let rmat = Subject {
        name: "rmat",
        text: bench.path("rmat.txt"),
        iterations: 20,
    };
    let scale = arguments.scale.to_string();
    let out = rmat.text.to_str().context("a path that is text")?;
    let status = Command::new(&bench.lswitch)
        .args([
            "generate",
            "rmat",
            "--scale",
            &scale,
            "--edge-factor",
            "16",
            "--symmetric",
            "-q",
        ])
        .args(["--out", out])
        .status()?;
    if !status.success() {
        bail!("lswitch generate failed");
    }
    let mut subjects = vec![rmat];
    if let Some(crawl) = &arguments.crawl {
        subjects.push(Subject {
            name: "crawl",
            text: crawl.canonicalize()?,
            iterations: 62,
        });
    }
    let mut report = Report::default();
    for subject in &mut subjects {
        // Rivals read plain text without comments.
        let plain = bench.path(&format!("{}.el", subject.name));
        peers::write_plain(&subject.text, &plain)?;
        subject.text = plain;
        bench
            .peers
            .convert(&subject.text, &bench.path(&format!("{}.sg", subject.name)))?;
    }
    for round in 1..=arguments.rounds {
        println!("round {round}");
        texts(&bench, &subjects[0], &mut report)?;
        partitions(&bench, &subjects[0], &mut report)?;
        for subject in &subjects {
            supersteps(&bench, subject, &mut report)?;
        }
        whole_job(&bench, &subjects[0], &mut report)?;
        for subject in &subjects {
            if subject.name == "crawl" || arguments.long && round == 1 {
                metis(&bench, subject, &mut report)?;
            }
        }
    }
    report.print();
    Ok(())
}

/// Memory that a process gave back goes on to the hypervisor after a while, and is several times as slow when it comes from
/// there again: each of those who are compared waits until that is so.
fn settle() {
    std::thread::sleep(Duration::from_secs(4));
}

/// Text to parts beside others' loading, and the memory that it takes.
fn texts(bench: &Bench, rmat: &Subject, report: &mut Report) -> Result<()> {
    settle();
    let (made, seconds) = bench.preprocess(
        &rmat.text,
        "range",
        &[
            "--parts",
            "2",
            "--threads",
            "2",
            "--partitioner",
            "range",
            "--balance",
            "vertices",
        ],
    )?;
    settle();
    if let Some(theirs) = bench.peers.graph_crate(&bench.own, &rmat.text)? {
        report.add(
            "text to parts, over graph crate's load",
            theirs / seconds,
            Bound::AtLeast(1.2),
        );
    }
    settle();
    if let Some(theirs) = bench.peers.polars(&rmat.text)? {
        report.add(
            "text to parts, over polars' read_csv",
            theirs / seconds,
            Bound::AtLeast(1.5),
        );
    }
    let megabytes = rmat.text.metadata()?.len() as f64 / 1e6;
    report.add("text to parts, MB/s", megabytes / seconds, Bound::None);
    let number = |name: &str| made[name].as_f64().context("a number");
    let allowed = 26.0 * number("edges")? + 48.0 * number("vertices")?;
    report.add(
        "peak memory over 26 B an edge and 48 a vertex",
        number("peak_memory_bytes")? / allowed,
        Bound::AtMost(1.0),
    );
    Ok(())
}

/// The streaming partitioner, and what a balance by edges brings.
fn partitions(bench: &Bench, rmat: &Subject, report: &mut Report) -> Result<()> {
    let fennel = ["--parts", "16", "--partitioner", "fennel", "--balance"];
    let (made, _) =
        bench.preprocess(&rmat.text, "fennel", &[&fennel[..], &["vertices"]].concat())?;
    let seconds = made["partition_seconds"]["fennel by vertices"].as_f64();
    report.add(
        "fennel into 16, seconds",
        seconds.context("its time")?,
        Bound::AtMost(0.3),
    );
    let values = made["boundary_values"].as_f64().context("values")?;
    report.add(
        "fennel into 16, million values (rmat 20)",
        values / 1e6,
        Bound::AtMost(2.51 * 1.05),
    );
    let (auto, _) = bench.preprocess(&rmat.text, "auto", &["--parts", "16"])?;
    let step = |made: &Value| made["modelled_step_seconds"].as_f64().context("a step");
    report.add(
        "modelled step of auto over fennel by vertices",
        step(&auto)? / step(&made)?,
        Bound::AtMost(1.0),
    );
    println!(
        "auto: {} by {}, {} values, edge balance {:.2}; fennel by vertices: edge balance {:.2}",
        auto["partitioner"],
        auto["balance"],
        auto["boundary_values"],
        auto["edge_balance"].as_f64().unwrap_or_default(),
        made["edge_balance"].as_f64().unwrap_or_default()
    );
    Ok(())
}

/// The kernel beside GAP's, one worker beside the kernel, two workers beside one, and what they send.
fn supersteps(bench: &Bench, subject: &Subject, report: &mut Report) -> Result<()> {
    let name = subject.name;
    let one = format!("{name}-1");
    let two = format!("{name}-2");
    bench.preprocess(&subject.text, &one, &["--parts", "1"])?;
    let method = match name {
        "crawl" => ["--partitioner", "metis", "--balance", "edges"],
        _ => ["--partitioner", "range", "--balance", "edges"],
    };
    let (parts, _) = bench.preprocess(
        &subject.text,
        &two,
        &[&["--parts", "2"], &method[..]].concat(),
    )?;

    let count = subject.iterations.to_string();
    let sg = bench.path(&format!("{name}.sg"));
    let theirs = bench.peers.gap(&sg, subject.iterations)?;
    let folder = bench.path(&one);
    let folder = folder.to_str().context("a path that is text")?;
    let child = Command::new("taskset")
        .args(["-c", "0"])
        .arg(&bench.own)
        .args(["--child", "kernel", folder, &count])
        .output()?;
    let kernel: f64 = String::from_utf8_lossy(&child.stdout).trim().parse()?;
    if let Some(theirs) = theirs {
        let bound = if name == "crawl" { 1.1 } else { 0.9 };
        report.add(
            &format!("{name}: kernel over GAP's pr_spmv (f32)"),
            kernel / theirs,
            Bound::AtMost(bound),
        );
    }
    let milliseconds = |run: &Value| {
        run["iteration_seconds"]
            .as_f64()
            .map(|s| s * 1e3)
            .context("a time")
    };
    let (first, _) = bench.pagerank(&one, "1", &count)?;
    report.add(
        &format!("{name}: superstep of 1 worker over its kernel"),
        milliseconds(&first)? / kernel,
        Bound::AtMost(1.1),
    );
    let (second, _) = bench.pagerank(&two, "2", &count)?;
    let bound = if name == "crawl" { 1.6 } else { 1.5 };
    report.add(
        &format!("{name}: 1 worker over 2"),
        milliseconds(&first)? / milliseconds(&second)?,
        Bound::AtLeast(bound),
    );
    let values = parts["boundary_values"].as_f64().context("values")?;
    let chunks = 2.0 + values * 8.0 / 65_536.0;
    let allowed = values * 8.0 + 2.0 * 64.0 + chunks * 40.0;
    let bytes = second["bytes"].as_f64().context("bytes")? / subject.iterations as f64;
    report.add(
        &format!("{name}: bytes a superstep over 8 a value and overhead"),
        bytes / allowed,
        Bound::AtMost(1.0),
    );
    Ok(())
}

/// From text to ranks, beside libraries.
fn whole_job(bench: &Bench, rmat: &Subject, report: &mut Report) -> Result<()> {
    let (_, split) = bench.preprocess(
        &rmat.text,
        "job",
        &["--parts", "2", "--partitioner", "range"],
    )?;
    let (_, ranks) = bench.pagerank("job", "2", "20")?;
    if let Some(theirs) = bench.peers.libraries(&rmat.text)? {
        report.add(
            "text to ranks, over the fastest library",
            theirs / (split + ranks),
            Bound::AtLeast(2.5),
        );
    }
    Ok(())
}

/// METIS beside gpmetis, on the same file.
fn metis(bench: &Bench, subject: &Subject, report: &mut Report) -> Result<()> {
    let name = subject.name;
    let file = bench.path(&format!("{name}.graph"));
    if !file.exists() {
        peers::write_metis(&subject.text, &file)?;
    }
    let Some((seconds, cut)) = bench.peers.gpmetis(&file)? else {
        return Ok(());
    };
    let (made, _) = bench.preprocess(
        &file,
        "metis",
        &[
            "--parts",
            "16",
            "--partitioner",
            "metis",
            "--balance",
            "vertices",
        ],
    )?;
    let ours = made["partition_seconds"]["metis by vertices"]
        .as_f64()
        .context("its time")?;
    report.add(
        &format!("{name}: METIS, time over gpmetis"),
        ours / seconds,
        Bound::AtMost(1.15),
    );
    let ours = made["cut_edges"].as_f64().context("a cut")? / 2.0;
    report.add(
        &format!("{name}: METIS, cut over gpmetis"),
        ours / cut,
        Bound::AtMost(1.05),
    );
    Ok(())
}
