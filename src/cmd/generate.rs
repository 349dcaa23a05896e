//! `lswitch generate`: edge lists and records for people without data.

use crate::cmd::ui::Ui;
use crate::cmd::{Interrupted, UsageError, hold, interrupts};
use crate::graph::{GraphError, generate};
use crate::job::sort::generate::{Layout, put_record};
use anyhow::Context;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Write a random graph as an edge list, or records to sort
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch generate rmat --scale 16 --edge-factor 16 --seed 1 --out graph.txt
  lswitch generate uniform --scale 10 | lswitch preprocess - --parts 4 --out graph.parts
  lswitch generate records --count 1000000 --out records.dat")]
pub struct Generate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A recursive matrix (Kronecker), as in Graph500 and GAP: skewed as social networks are
    Rmat(GraphArgs),
    /// Each edge between two vertices drawn evenly
    Uniform(GraphArgs),
    Records(RecordsArgs),
}

#[derive(Debug, clap::Args)]
struct GraphArgs {
    /// The graph has up to 2^SCALE vertices
    #[arg(long)]
    scale: u32,

    /// Edges for each of the 2^SCALE vertices
    #[arg(long, default_value_t = 16)]
    edge_factor: u32,

    /// Both directions of each edge, each once and without loops, as the GAP benchmark suite has them
    #[arg(long)]
    symmetric: bool,

    /// The same seed gives the same graph on every machine
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// File to write; stdout otherwise
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Records of 100 bytes with keys of 10, in the layouts of the sort benchmark's gensort
#[derive(Debug, clap::Args)]
struct RecordsArgs {
    /// How many
    #[arg(long)]
    count: u64,

    /// Printable lines, or any bytes
    #[arg(long, value_enum, default_value_t = RecordLayout::Ascii)]
    layout: RecordLayout,

    /// The same seed gives the same records on every machine
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// File to write; stdout otherwise
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RecordLayout {
    /// Each record is a line that ends with CR LF
    Ascii,
    /// Keys hold any bytes
    Binary,
}

impl Generate {
    /// Writes what was asked for.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        match &self.what {
            What::Rmat(graph) => {
                let edges = generate::rmat(graph.scale, graph.edge_factor, graph.seed);
                graph.write(ui, "rmat", edges)
            }
            What::Uniform(graph) => {
                let edges = generate::uniform(graph.scale, graph.edge_factor, graph.seed);
                graph.write(ui, "uniform", edges)
            }
            What::Records(records) => records.write(ui),
        }
    }
}

impl GraphArgs {
    fn write<I: Iterator<Item = (u64, u64)>>(
        &self,
        ui: &Ui,
        kind: &str,
        edges: Result<I, GraphError>,
    ) -> anyhow::Result<()> {
        let edges = edges.map_err(|error| UsageError(error.to_string()))?;
        let bar = ui.count_bar("generating", u64::from(self.edge_factor) << self.scale);
        let edges = edges.enumerate().map(|(index, edge)| {
            if index % 65_536 == 0 {
                bar.set_position(index as u64);
            }
            edge
        });
        let mut count = 0u64;
        let edges: &mut dyn Iterator<Item = (u64, u64)> = match self.symmetric {
            true => &mut generate::symmetric(edges),
            false => &mut { edges },
        };
        let edges = edges.inspect(|_| count += 1);
        write(self.out.as_deref(), |out| self.write_to(out, kind, edges))?;
        bar.finish_and_clear();
        if let Some(path) = &self.out {
            let path = path.display();
            ui.say(format!("wrote {count} edges to {path}; next: lswitch preprocess {path} --parts 4 --out {path}.parts"));
        }
        Ok(())
    }

    fn write_to(
        &self,
        out: &mut dyn Write,
        kind: &str,
        edges: impl Iterator<Item = (u64, u64)>,
    ) -> io::Result<()> {
        let symmetric = if self.symmetric { " --symmetric" } else { "" };
        writeln!(
            out,
            "# lswitch generate {kind} --scale {} --edge-factor {} --seed {}{symmetric}",
            self.scale, self.edge_factor, self.seed
        )?;
        writeln!(out, "# FromNodeId\tToNodeId")?;
        for (source, target) in edges {
            writeln!(out, "{source}\t{target}")?;
        }
        Ok(())
    }
}

impl RecordsArgs {
    fn write(&self, ui: &Ui) -> anyhow::Result<()> {
        let layout = match self.layout {
            RecordLayout::Ascii => Layout::Ascii,
            RecordLayout::Binary => Layout::Binary,
        };
        let bar = ui.count_bar("generating", self.count);
        write(self.out.as_deref(), |out| {
            let mut records = Vec::new();
            for number in 0..self.count {
                put_record(layout, self.seed, number, &mut records);
                if records.len() >= 1 << 16 {
                    out.write_all(&records)?;
                    records.clear();
                    bar.set_position(number);
                }
            }
            out.write_all(&records)
        })?;
        bar.finish_and_clear();
        if let Some(path) = &self.out {
            let path = path.display();
            ui.say(format!("wrote {} records to {path}; next: lswitch invoke sort --input {path} --format records --output {path}.sorted", self.count));
        }
        Ok(())
    }
}

/// Has somebody write to a file, or to stdout if there is none.
fn write(
    path: Option<&Path>,
    writes: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    match path {
        None => Ok(write_to(io::stdout().lock(), writes)?),
        Some(path) => match write_file(path, writes) {
            Err(error) if is_interrupted(&error) => Err(Interrupted.into()),
            written => written.with_context(|| format!("cannot write {}", path.display())),
        },
    }
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    let inner = error.and_then(io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<Interrupted>())
}

/// A file that is written until a signal comes.
struct Interruptible<'a>(&'a File);

impl Write for Interruptible<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        interrupts::check()?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A file is renamed into place when it is whole, so that no half-written one is left behind; a pipe or a device is
/// written to as it is.
fn write_file(
    path: &Path,
    writes: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    // The file that a link names is the one to replace.
    let path = path.canonicalize().unwrap_or(path.to_path_buf());
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        return Ok(write_to(File::options().write(true).open(&path)?, writes)?);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // A signal ends the writing, and the file that is not whole is removed.
    let _hold = hold();
    let file = tempfile::NamedTempFile::new_in(folder)?;
    write_to(Interruptible(file.as_file()), writes)?;
    make_readable(file.as_file())?;
    file.persist(&path)?;
    Ok(())
}

fn write_to(
    out: impl Write,
    writes: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    writes(&mut out)?;
    out.flush()
}

/// A temporary file is its owner's alone; this is an ordinary one.
fn make_readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}
