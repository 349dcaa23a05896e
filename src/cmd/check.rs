//! `lswitch check`: is a result what it should be?

use crate::cmd::UsageError;
use crate::cmd::ui::{Ui, print_facts, print_json};
use crate::job::sort::check::{Check as Looking, Seen};
use crate::job::sort::generate::{KEY, RECORD};
use crate::job::sort::record::{Format, LINE_MAX};
use anyhow::{Context, bail};
use serde_json::json;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const READ_LEN: usize = 1 << 20;

/// Check a result
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch check sort sorted --with records.dat --format records")]
pub struct Check {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Sort(SortArgs),
}

/// Are records in order, across files, and are they those of the input?
#[derive(Debug, clap::Args)]
pub struct SortArgs {
    /// Files of this machine in their order, or a folder of parts; not s3://
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,

    /// What they were sorted from: as many records with the same checksum
    #[arg(long, value_name = "FILE|FOLDER")]
    with: Vec<PathBuf>,

    #[command(flatten)]
    records: RecordArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How records lie in files.
#[derive(Debug, clap::Args)]
pub struct RecordArgs {
    /// Lines, or records of a fixed length as gensort's
    #[arg(long, value_enum, default_value_t = Records::Lines)]
    format: Records,

    /// The length of records that are no lines, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = RECORD as u32)]
    record_size: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Records {
    /// Each ends with a line feed
    Lines,
    /// All have the same length
    Records,
}

impl RecordArgs {
    /// As the sort has it.
    pub fn format(&self) -> Result<Format, UsageError> {
        if self.format == Records::Lines {
            return Ok(Format::Lines);
        }
        if self.record_size == 0 || self.record_size as usize > LINE_MAX {
            let what = format!("--record-size is between 1 and {LINE_MAX}");
            return Err(UsageError(what));
        }
        Ok(Format::Fixed(self.record_size))
    }
}

impl Check {
    /// Looks, and says what was seen.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        match &self.what {
            What::Sort(sort) => sort.run(ui),
        }
    }
}

impl SortArgs {
    fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let seen = self.look(ui, &self.paths)?;
        let other = match self.with.is_empty() {
            true => None,
            false => Some(self.look(ui, &self.with)?),
        };
        if self.json {
            print_json(&json!({
                "records": seen.records,
                "bytes": seen.bytes,
                "checksum": format!("{:x}", seen.checksum),
                "duplicates": seen.duplicates,
                "disorder": seen.disorder,
            }))?;
        } else {
            print_facts(&[
                ("records", seen.records.to_string()),
                ("bytes", seen.bytes.to_string()),
                ("checksum", format!("{:x}", seen.checksum)),
                ("duplicate keys", seen.duplicates.to_string()),
            ])?;
        }
        if let Some(at) = seen.disorder {
            bail!("record {at}, counted from 0, is lower than the one before it");
        }
        if let Some(other) = other
            && (other.records, other.checksum) != (seen.records, seen.checksum)
        {
            bail!(
                "these are other records: {} with checksum {:x}, and the input has {} with checksum {:x}",
                seen.records,
                seen.checksum,
                other.records,
                other.checksum
            );
        }
        Ok(())
    }

    fn look(&self, ui: &Ui, paths: &[PathBuf]) -> anyhow::Result<Seen> {
        let format = self.records.format()?;
        let mut files = Vec::new();
        for path in paths {
            if path.to_str().is_some_and(|path| path.starts_with("s3://")) {
                let path = path.display();
                let what = format!(
                    "{path} is in S3, and check reads only files of this machine; copy it first: aws s3 cp --recursive {path} FOLDER"
                );
                return Err(UsageError(what).into());
            }
            match path.is_dir() {
                true => files.extend(parts(path)?),
                false => files.push(path.clone()),
            }
        }
        let length = |file: &PathBuf| std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        let bar = ui.bytes_bar("checking", files.iter().map(length).sum());
        let mut check = Looking::new(format, KEY);
        for file in &files {
            let name = file.display();
            let mut reader = File::open(file).with_context(|| format!("cannot read {name}"))?;
            let mut held = Vec::new();
            loop {
                let room = (&mut reader).take(READ_LEN as u64);
                let mut room = room;
                let count = room
                    .read_to_end(&mut held)
                    .with_context(|| format!("cannot read {name}"))?;
                if count == 0 {
                    break;
                }
                bar.inc(count as u64);
                let whole = format.whole(&held);
                check.look(&held[..whole]);
                held.drain(..whole);
                if held.len() > LINE_MAX {
                    bail!("{name} has a line of more than {LINE_MAX} bytes; are these lines?");
                }
            }
            match (held.is_empty(), format) {
                (true, _) => {}
                // As the sort takes it.
                (false, Format::Lines) => {
                    held.push(b'\n');
                    check.look(&held);
                }
                (false, _) => bail!("{name} ends within a record"),
            }
        }
        bar.finish_and_clear();
        Ok(check.seen())
    }
}

/// The parts in a folder, in order.
fn parts(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let name = folder.display();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {name}"))? {
        let path = entry.with_context(|| format!("cannot read {name}"))?.path();
        let is_part = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("part-"));
        if is_part {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("{name} has no files that are called part-...");
    }
    files.sort_unstable();
    Ok(files)
}
