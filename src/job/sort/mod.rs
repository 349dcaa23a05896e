//! Sorting: each rank reads a share of the input, records travel to the rank whose range they are in, and each rank writes
//! its own in order. So the outputs, one after the other, are the whole in order (sample sort, as in Frazer and McKellar 1970; the ranges
//! are chosen from a sample of all ranks).
//!
//! [`record`] is what records are, [`mod@share`] which of them a rank reads, [`reader`] how, [`shuffle`] how they travel, [`run`] those in memory, [`spill`] those that do not fit there, [`part`] what a rank writes that may be read again; [`generate`] and [`check`] are for tests and benchmarks. Records are compared byte by byte, in whole:
//! the result does not depend on the number of workers.

pub mod check;
pub mod generate;
pub mod part;
pub mod reader;
pub mod record;
pub mod run;
pub mod share;
pub mod shuffle;
pub mod spill;

use crate::job::context::{BlockingStore, Context};
use crate::job::items::read::{Input, Sources};
use crate::job::items::{self, Item};
use crate::job::output::{OutputFolder, OutputPart, ResultFile, Target, part_key};
use crate::job::program::{Program, ProgramError};
use crate::net::codec::{self, REPORT_MAX};
use crate::store::sealed::SealedKey;
use part::{Part, Parts, WrittenPart};
use reader::RecordReader;
use record::{Format, Splitters};
use serde::{Deserialize, Serialize};
use share::{share, windows};
use shuffle::{Shuffle, Source, agree};
use std::time::Instant;

/// The program that workers of a sort run.
pub const PROGRAM: Program = Program {
    name: "sort",
    run: sort,
};

/// Places of its share at which each rank looks for its sample, and the records that it takes at each.
const WINDOWS: u64 = 64;
const RECORDS_PER_WINDOW: usize = 8;

/// Bytes of each.
const WINDOW_LEN: u64 = 4096;

/// Of a sampled key so many bytes are kept.
const KEY_MAX: usize = 64;

/// Bytes after which no more of a window are read, however few records they are: the beginning of a long line is its key.
const SAMPLED_MAX: usize = 1 << 20;

/// What the driver asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// What is read: the list of inputs in the job's store.
    pub inputs: SealedKey,
    /// How records lie in them.
    pub format: Format,
    /// Where the parts go.
    pub output: Target,
    /// Bytes of memory that a rank may take for records; with more it writes them to the job's store.
    pub memory: u64,
    /// What the names of spilled runs begin with.
    pub spill: String,
}

/// What a rank did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sorted {
    /// Records that it read, and their bytes.
    pub read: (u64, u64),
    /// Records that it wrote, and their bytes.
    pub written: (u64, u64),
    /// Bytes that it wrote to the job's store since they did not fit into memory.
    pub spilled: u64,
    /// Seconds that it sampled, exchanged, and wrote.
    pub seconds: [f64; 3],
    /// The part that it wrote.
    pub file: ResultFile,
}

fn sort(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let store = context.store()?;
    let mut output = OutputFolder::open(context, &arguments.output)?;
    let inputs = store.get_sealed(&arguments.inputs)?;
    let inputs = items::list_from_bytes(&inputs).map_err(ProgramError::new)?;
    let format = arguments.format;
    let place = (&store, &arguments.spill[..]);
    let (mut shuffle, seconds) = exchange(context, &inputs, format, place, arguments.memory)?;
    let exchanged = Instant::now();
    let mut part = output.create(&part_key(context.rank(), extension(format)))?;
    let mut records = 0;
    shuffle.in_order(|record| {
        records += 1;
        Ok(part.push(record)?)
    })?;
    let file = finish(context, &mut output, part)?;
    let sorted = Sorted {
        read: shuffle.read(),
        written: (records, file.bytes),
        spilled: shuffle.spilled(),
        seconds: [seconds[0], seconds[1], exchanged.elapsed().as_secs_f64()],
        file,
    };
    codec::encode::<REPORT_MAX>(&sorted).map_err(ProgramError::new)
}

/// Reads this rank's share of whole files or objects, and has the records of its range then; and the seconds that it sampled and exchanged.
///
/// # Errors
/// When records cannot be read, or the wire or the store fails.
pub fn exchange<'a>(
    context: &mut Context,
    inputs: &[Item],
    format: Format,
    place: (&'a BlockingStore, &str),
    memory: u64,
) -> Result<(Shuffle<'a>, [f64; 2]), ProgramError> {
    let mine = share(inputs, context.rank(), context.size(), format);
    let begun = Instant::now();
    let splitters = sample(context, format, &mine)?;
    let sampled = Instant::now();
    let mut shuffle = Shuffle::new(context, format, splitters, place, memory);
    let mut reader = ShareReader::new(context, &mine, format)?;
    shuffle.run(context, &mut reader)?;
    let seconds = [
        (sampled - begun).as_secs_f64(),
        sampled.elapsed().as_secs_f64(),
    ];
    Ok((shuffle, seconds))
}

/// Gives a part its name once all ranks have written theirs: a rank of a run that was given up does not come so far, and writes
/// over nobody's part.
///
/// # Errors
/// When the run has ended, or the store fails.
pub fn finish(
    context: &mut Context,
    output: &mut OutputFolder,
    part: OutputPart,
) -> Result<ResultFile, ProgramError> {
    context.comm().barrier()?;
    output.complete_alone(part)
}

/// The same for a part that goes to an output, or is read by the job again.
///
/// # Errors
/// As [`finish`].
pub fn finish_part(
    context: &mut Context,
    parts: &mut Parts,
    part: Part,
) -> Result<WrittenPart, ProgramError> {
    context.comm().barrier()?;
    parts.complete(part)
}

/// How the parts of an output are called.
pub fn extension(format: Format) -> &'static str {
    match format {
        Format::Fixed(_) => "dat",
        Format::Lines | Format::Grouped => "txt",
        Format::Keyed => "tsv",
    }
}

/// The ranges of the ranks, chosen from a sample that all of them take.
fn sample(context: &mut Context, format: Format, mine: &[Item]) -> Result<Splitters, ProgramError> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut sources = Sources::default();
    for window in windows(mine, WINDOWS, WINDOW_LEN, RECORDS_PER_WINDOW, format) {
        let input = sources.open(context, &window.item)?;
        let mut bytes = Vec::new();
        let mut reading = input.read();
        while bytes.len() < SAMPLED_MAX
            && let Some(more) = reading.more().map_err(ProgramError::new)?
        {
            bytes.extend_from_slice(more);
        }
        let whole = match (format.whole(&bytes), format) {
            (0, Format::Lines | Format::Keyed | Format::Grouped) if !bytes.is_empty() => {
                bytes.push(b'\n');
                bytes.len()
            }
            (whole, _) => whole,
        };
        for record in format.each(&bytes[..whole]).take(window.records) {
            let key = format.group(record);
            keys.push(key[..key.len().min(KEY_MAX)].to_vec());
        }
    }
    agree(context, keys)
}

/// The records of a rank's share, whole ones at a time.
struct ShareReader(RecordReader);

impl ShareReader {
    fn new(context: &Context, mine: &[Item], format: Format) -> Result<ShareReader, ProgramError> {
        let mut sources = Sources::default();
        let inputs: Result<Vec<Input>, ProgramError> = mine
            .iter()
            .map(|item| sources.open(context, item))
            .collect();
        Ok(ShareReader(RecordReader::new(inputs?, format)))
    }
}

impl Source for ShareReader {
    fn next(&mut self, _: &mut Context) -> Result<Option<&[u8]>, ProgramError> {
        self.0.next_records().map_err(ProgramError::new)
    }
}
