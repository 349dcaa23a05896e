//! `lswitch generate`: edge lists for people without data.

use crate::cmd::UsageError;
use crate::cmd::ui::Ui;
use crate::graph::{GraphError, generate};
use anyhow::Context;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Write a random graph as an edge list
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch generate rmat --scale 16 --edge-factor 16 --seed 1 --out graph.txt
  lswitch generate uniform --scale 10 | lswitch preprocess - --parts 4 --out graph.parts")]
pub struct Generate {
    /// What kind of graph: rmat is skewed as social networks are, uniform is not
    kind: Kind,

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

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Recursive matrix (Kronecker), as in Graph500 and GAP
    Rmat,
    /// Each edge between two vertices drawn evenly
    Uniform,
}

impl Generate {
    /// Writes the graph.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        match self.kind {
            Kind::Rmat => self.write(ui, generate::rmat(self.scale, self.edge_factor, self.seed)),
            Kind::Uniform => self.write(
                ui,
                generate::uniform(self.scale, self.edge_factor, self.seed),
            ),
        }
    }

    fn write<I: Iterator<Item = (u64, u64)>>(
        &self,
        ui: &Ui,
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
        match &self.out {
            None => self.write_to(io::stdout().lock(), edges)?,
            Some(path) => self
                .write_file(path, edges)
                .with_context(|| format!("cannot write {}", path.display()))?,
        }
        bar.finish_and_clear();
        if let Some(path) = &self.out {
            let path = path.display();
            ui.say(format!("wrote {count} edges to {path}; next: lswitch preprocess {path} --parts 4 --out {path}.parts"));
        }
        Ok(())
    }

    /// A file is renamed into place when it is whole, so that no half-written graph is left behind; a pipe or a device
    /// is written to as it is.
    fn write_file(
        &self,
        path: &Path,
        edges: impl Iterator<Item = (u64, u64)>,
    ) -> anyhow::Result<()> {
        // The file that a link names is the one to replace.
        let path = path.canonicalize().unwrap_or(path.to_path_buf());
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Ok(self.write_to(File::options().write(true).open(&path)?, edges)?);
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        self.write_to(file.as_file_mut(), edges)?;
        make_readable(file.as_file())?;
        file.persist(&path)?;
        Ok(())
    }

    fn write_to(&self, out: impl Write, edges: impl Iterator<Item = (u64, u64)>) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let kind = format!("{:?}", self.kind).to_lowercase();
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
        out.flush()
    }
}

/// A temporary file is its owner's alone; a graph is an ordinary file.
fn make_readable(file: &std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}
