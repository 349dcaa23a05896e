//! The rivals: how each is run, and what its time is. One that is not here gives `None`, once with a word.

use anyhow::{Context, Result, bail};
use graph::prelude::{CsrLayout, DirectedCsrGraph, EdgeListInput, Graph, GraphBuilder};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Prints the seconds of one library's loading and 20 iterations; scipy with the formula written out.
const LIBRARY: &str = r#"
import sys, time
name, path = sys.argv[1:]
begun = time.time()
if name == "polars":
    import polars as pl
    begun = time.time()
    pl.read_csv(path, separator="\t", has_header=False, schema={"a": pl.UInt32, "b": pl.UInt32})
elif name == "scipy":
    import numpy as np, polars as pl, scipy.sparse as sp
    begun = time.time()
    e = pl.read_csv(path, separator="\t", has_header=False, schema={"a": pl.UInt32, "b": pl.UInt32})
    s, t = e["a"].to_numpy(), e["b"].to_numpy()
    ids = np.unique(np.concatenate([s, t])); n = len(ids)
    s, t = np.searchsorted(ids, s), np.searchsorted(ids, t)
    out = np.bincount(s, minlength=n)
    a = sp.csr_matrix((np.ones(len(s)), (t, s)), shape=(n, n))
    r = np.full(n, 1 / n); d = 0.85
    for _ in range(20):
        c = np.divide(r, out, out=np.zeros(n), where=out > 0)
        r = (1 - d) / n + d * (a @ c + r[out == 0].sum() / n)
elif name == "igraph":
    import igraph
    begun = time.time()
    igraph.Graph.Read_Edgelist(path, directed=True).pagerank(damping=0.85)
elif name == "rustworkx":
    import rustworkx as rx
    begun = time.time()
    g = rx.PyDiGraph.read_edge_list(path, deliminator="\t")
    try: rx.pagerank(g, max_iter=20, tol=0)
    except rx.FailedToConverge: pass
elif name == "networkx":
    import networkx as nx
    begun = time.time()
    g = nx.read_edgelist(path, create_using=nx.DiGraph, nodetype=int)
    try: nx.pagerank(g, max_iter=20, tol=0)
    except nx.PowerIterationFailedConvergence: pass
print(time.time() - begun)
"#;

/// Libraries that take minutes on large graphs are run once only by hand; these are the fast ones.
const LIBRARIES: [&str; 2] = ["scipy", "igraph"];

/// Where they are.
pub struct Peers {
    python: Option<PathBuf>,
    gapbs: Option<PathBuf>,
    gpmetis: bool,
}

impl Peers {
    /// Looks for them, and says what is not here.
    pub fn find() -> Peers {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let peers = Peers {
            python: named("PYTHON"),
            gapbs: named("GAPBS"),
            gpmetis: Command::new("gpmetis").arg("-help").output().is_ok(),
        };
        for (is_there, what) in [
            (
                peers.python.is_some(),
                "PYTHON names no interpreter with polars, scipy and igraph",
            ),
            (
                peers.gapbs.is_some(),
                "GAPBS names no folder with GAP's pr_spmv and converter",
            ),
            (peers.gpmetis, "gpmetis is not installed (Debian: metis)"),
        ] {
            if !is_there {
                println!("left out: {what}");
            }
        }
        peers
    }

    /// Seconds that the graph crate loads a text, in a process of its own.
    pub fn graph_crate(&self, own: &Path, text: &Path) -> Result<Option<f64>> {
        let child = Command::new(own)
            .args(["--child", "graph"])
            .arg(text)
            .output()?;
        Ok(Some(String::from_utf8_lossy(&child.stdout).trim().parse()?))
    }

    /// Seconds that polars reads it.
    pub fn polars(&self, text: &Path) -> Result<Option<f64>> {
        self.library("polars", text)
    }

    /// Seconds of the fastest library from text to ranks.
    pub fn libraries(&self, text: &Path) -> Result<Option<f64>> {
        let mut fastest: Option<f64> = None;
        for name in LIBRARIES {
            if let Some(seconds) = self.library(name, text)? {
                println!("  {name}: {seconds:.2} s");
                fastest = Some(fastest.map_or(seconds, |least| least.min(seconds)));
            }
        }
        Ok(fastest)
    }

    fn library(&self, name: &str, text: &Path) -> Result<Option<f64>> {
        let Some(python) = &self.python else {
            return Ok(None);
        };
        let output = Command::new(python)
            .args(["-c", LIBRARY, name])
            .arg(text)
            .output()?;
        if !output.status.success() {
            bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Some(
            String::from_utf8_lossy(&output.stdout).trim().parse()?,
        ))
    }

    /// Makes a file that GAP loads fast.
    pub fn convert(&self, text: &Path, into: &Path) -> Result<()> {
        if let Some(gapbs) = &self.gapbs {
            let mut converter = Command::new(gapbs.join("converter"));
            let output = converter.arg("-f").arg(text).arg("-b").arg(into).output()?;
            if !output.status.success() || !into.exists() {
                bail!("GAP's converter failed on {}", text.display());
            }
        }
        Ok(())
    }

    /// Milliseconds of one iteration of GAP's pr_spmv in one thread.
    pub fn gap(&self, graph: &Path, iterations: usize) -> Result<Option<f64>> {
        let Some(gapbs) = &self.gapbs else {
            return Ok(None);
        };
        let output = Command::new("taskset")
            .args(["-c", "0"])
            .arg(gapbs.join("pr_spmv"))
            .arg("-f")
            .arg(graph)
            .args(["-n", "3", "-t", "0", "-i", &iterations.to_string()])
            .env("OMP_NUM_THREADS", "1")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Average Time:"));
        let seconds: f64 = line
            .context("GAP prints its average time")?
            .trim()
            .parse()?;
        Ok(Some(seconds * 1e3 / iterations as f64))
    }

    /// Seconds that gpmetis partitions a file into 16, and the cut.
    pub fn gpmetis(&self, file: &Path) -> Result<Option<(f64, f64)>> {
        if !self.gpmetis {
            return Ok(None);
        }
        let output = Command::new("gpmetis").arg(file).arg("16").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |after: &str| -> Option<f64> {
            let rest = &text[text.find(after)? + after.len()..];
            let rest = rest.trim_start_matches([':', ' ', '\t']);
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            rest[..end].parse().ok()
        };
        let seconds = number("Partitioning:").context("gpmetis prints its time")?;
        let cut = number("Edgecut:").context("gpmetis prints the cut")?;
        Ok(Some((seconds, cut)))
    }
}

/// Loads a text with the graph crate, sorted both ways, and prints the seconds.
pub fn load_with_graph_crate(text: &Path) -> Result<()> {
    let begun = Instant::now();
    let graph: DirectedCsrGraph<u32> = GraphBuilder::new()
        .csr_layout(CsrLayout::Sorted)
        .file_format(EdgeListInput::default())
        .path(text)
        .build()?;
    let seconds = begun.elapsed().as_secs_f64();
    assert!(graph.node_count() > 0);
    println!("{seconds}");
    Ok(())
}

/// The edges of a text without comments, tab separated.
pub fn write_plain(text: &Path, into: &Path) -> Result<()> {
    let (graph, _) = lswitch::graph::read_graph(text, Default::default(), &|_| {})?;
    let mut out = BufWriter::new(fs::File::create(into)?);
    let edges = graph.out_edges();
    for source in 0..graph.ids.len() {
        for &target in edges.of(source) {
            writeln!(out, "{}\t{}", graph.ids[source], graph.ids[target as usize])?;
        }
    }
    Ok(out.flush()?)
}

/// The undirected graph of a text, as METIS reads it.
pub fn write_metis(text: &Path, into: &Path) -> Result<()> {
    let (graph, _) = lswitch::graph::read_graph(text, Default::default(), &|_| {})?;
    let symmetric = graph.symmetric()?;
    let mut out = BufWriter::new(fs::File::create(into)?);
    writeln!(out, "{} {}", graph.vertices(), symmetric.adjncy.len() / 2)?;
    let mut line = String::new();
    for bounds in symmetric.xadj.windows(2) {
        line.clear();
        for neighbour in &symmetric.adjncy[bounds[0] as usize..bounds[1] as usize] {
            write!(line, "{} ", neighbour + 1)?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out.flush()?)
}
