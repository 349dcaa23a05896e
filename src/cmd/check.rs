//! `lswitch check`: is a result what it should be?

use crate::aws::AwsSettings;
use crate::cmd::ui::{Ui, print_facts, print_json};
use crate::cmd::{UsageError, block_on};
use crate::job::items::Item;
use crate::job::items::cut::Cutting;
use crate::job::items::find::{Items, Wanted};
use crate::job::items::read::{Input, Unpack};
use crate::job::items::select::RESULT_NAME;
use crate::job::sort::check::{Check as Looking, Seen};
use crate::job::sort::generate::{KEY, RECORD};
use crate::job::sort::reader::RecordReader;
use crate::job::sort::record::{Format, RECORD_MAX};
use anyhow::{Context, bail};
use serde_json::json;
use std::path::{Path, PathBuf};

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
///
/// Files and folders are read as "lswitch invoke sort" reads them: packed texts are unpacked, lines may have up to 256 MiB, and a
/// folder with a result.json is the parts that it names.
#[derive(Debug, clap::Args)]
pub struct SortArgs {
    /// Files of this machine in their order, or a folder of parts; not s3://
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,

    /// What they were sorted from: as many records with the same checksum
    #[arg(long, value_name = "FILE|FOLDER")]
    with: Vec<PathBuf>,

    /// Read the folders below a folder of --with too
    #[arg(long)]
    recursive: bool,

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
        if self.record_size == 0 || self.record_size as usize > RECORD_MAX {
            let what = format!("--record-size is between 1 and {RECORD_MAX}");
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
        let seen = self.look(ui, &self.paths, true)?;
        let other = match self.with.is_empty() {
            true => None,
            false => Some(self.look(ui, &self.with, false)?),
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

    /// Looks at all records of files and folders, in their order.
    fn look(&self, ui: &Ui, paths: &[PathBuf], is_output: bool) -> anyhow::Result<Seen> {
        let format = self.records.format()?;
        let cutting = match format {
            Format::Fixed(length) => Cutting::Records(length),
            _ => Cutting::Shares,
        };
        let mut inputs = Vec::new();
        for path in paths {
            inputs.extend(self.inputs(ui, path, cutting, is_output)?);
        }
        let bar = ui.bytes_bar("checking", inputs.iter().map(|(_, length)| length).sum());
        let mut check = Looking::new(format, KEY);
        for (input, length) in inputs {
            let mut reader = RecordReader::new(vec![input], format);
            while let Some(records) = reader.next_records().map_err(anyhow::Error::msg)? {
                check.look(records);
            }
            bar.inc(length);
        }
        bar.finish_and_clear();
        Ok(check.seen())
    }

    /// The files of a path, as the sort reads them, and their lengths.
    fn inputs(
        &self,
        ui: &Ui,
        path: &Path,
        cutting: Cutting,
        is_output: bool,
    ) -> anyhow::Result<Vec<(Input, u64)>> {
        let name = path.display();
        let what = path
            .to_str()
            .with_context(|| format!("cannot read {name}: its path is not UTF-8"))?;
        let find = |what: &str| {
            let wanted = Wanted {
                what,
                cutting,
                recursive: self.recursive,
            };
            let settings = AwsSettings::default();
            block_on(async { Ok(Items::find(wanted, &settings).await?) })
        };
        if what.starts_with("s3://") {
            let what = format!(
                "{name} is in S3, and check reads only files of this machine; copy it first: aws s3 cp --recursive {name} FOLDER"
            );
            return Err(UsageError(what).into());
        }
        let is_bare = path.is_dir() && is_output && !path.join(RESULT_NAME).exists();
        let wanted = match is_bare {
            // Of a folder without a result, that which is called a part.
            true => format!(
                "{}/part-*",
                glob::Pattern::escape(what.trim_end_matches('/'))
            ),
            false => what.into(),
        };
        let found = match find(&wanted) {
            Err(_) if is_bare => bail!("{name} has no files that are called part-..."),
            found => found.with_context(|| format!("cannot read {name}"))?,
        };
        found.notes.lines().iter().for_each(|note| ui.say(note));
        let of_file = |item: &Item| Some((Input::of_file(item)?, item.length()?));
        match found.items {
            Items::Named(items) => Ok(items.iter().filter_map(of_file).collect()),
            Items::Piped(pipe, Cutting::Records(_)) => Ok(vec![(Input::Pipe(pipe, Unpack::No), 0)]),
            Items::Piped(pipe, _) => Ok(vec![(Input::Pipe(pipe, Unpack::Yes), 0)]),
            _ => bail!("{name} is no file"),
        }
    }
}
