//! How often each word occurs: ranks take pieces of the inputs as they are free, count, and exchange counts, each word to the rank whose
//! range it is in ([`crate::job::sort::shuffle`]). So the outputs, one after the other, are the words in order.

pub mod words;

use crate::job::context::Context;
use crate::job::items::read::{Input, Sources};
use crate::job::items::{self, Item};
use crate::job::output::{Target, part_key};
use crate::job::program::{Program, ProgramError};
use crate::job::sort::finish_part;
use crate::job::sort::part::{Parts, WrittenPart};
use crate::job::sort::record::Format;
use crate::job::sort::shuffle::{Shuffle, Source, agree};
use crate::net::codec::{self, REPORT_MAX};
use crate::store::sealed::SealedKey;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::Instant;
use words::{Counts, WORD_MAX, Words};

/// The program that workers of a word count run.
pub const PROGRAM: Program = Program {
    name: "wordcount",
    run: count,
};

/// Words that each rank names to choose ranges from.
const SAMPLE: usize = 512;

/// Of a sampled word so many bytes are kept.
const KEY_MAX: usize = 64;

/// The counter of pieces that were taken.
const TAKEN: &str = "wordcount: pieces taken";

/// What the driver asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// What is read: the list of pieces in the job's store.
    pub pieces: SealedKey,
    /// What a word is.
    pub words: Words,
    /// Where the parts go.
    pub output: Target,
    /// Bytes of memory that a rank may take for counts; with more it sends them on before it goes on.
    pub memory: u64,
    /// What the names of spilled runs begin with.
    pub spill: String,
}

/// What a rank did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Bytes of text that it read.
    pub read: u64,
    /// Words that it wrote, and how many they are in all.
    pub written: (u64, u64),
    /// Bytes that it wrote to the job's store since they did not fit into memory.
    pub spilled: u64,
    /// Seconds that it counted, and exchanged and wrote.
    pub seconds: [f64; 2],
    /// The part that it wrote.
    pub part: WrittenPart,
}

fn count(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let store = context.store()?;
    let mut output = Parts::open(context, &arguments.output)?;
    let pieces = store.get_sealed(&arguments.pieces)?;
    let pieces = items::list_from_bytes(&pieces).map_err(ProgramError::new)?;
    let begun = Instant::now();
    let mut counter = Counter {
        pieces,
        counts: Counts::new(arguments.words),
        memory: arguments.memory as usize / 4,
        sources: Sources::default(),
        read: 0,
        is_last: false,
        lines: Vec::new(),
        given: Vec::new(),
    };
    counter.fill(context)?;
    let counted = Instant::now();
    let words = counter.counts.sorted();
    let step = (words.len() / SAMPLE).max(1);
    let sample = words.iter().step_by(step).take(2 * SAMPLE);
    let keys = sample.map(|(word, _)| word[..word.len().min(KEY_MAX)].to_vec());
    let splitters = agree(context, keys.collect())?;
    counter.put(&words);
    drop(words);
    let place = (&store, &arguments.spill[..]);
    let memory = arguments.memory / 2;
    let mut shuffle = Shuffle::new(context, Format::Keyed, splitters, place, memory);
    shuffle.run(context, &mut counter)?;
    let mut part = output.create(&part_key(context.rank(), "tsv"))?;
    let mut last: (Vec<u8>, u64) = Default::default();
    let mut written = (0, 0);
    let mut put = |word: &[u8], count: u64| -> Result<(), ProgramError> {
        if count == 0 {
            return Ok(());
        }
        written = (written.0 + 1, written.1 + count);
        part.push(word)?;
        part.push(format!("\t{count}\n").as_bytes())?;
        Ok(())
    };
    shuffle.in_order(|line| {
        let word = Format::Keyed.key(line);
        let digits = line.get(word.len() + 1..line.len() - 1);
        let count = digits
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .ok_or_else(|| ProgramError::new("a rank sent a count that is no number"))?;
        if last.0 == word {
            last.1 += count;
            return Ok(());
        }
        put(&last.0, last.1)?;
        last.0.clear();
        last.0.extend_from_slice(word);
        last.1 = count;
        Ok(())
    })?;
    put(&last.0, last.1)?;
    let part = finish_part(context, &mut output, part)?;
    let counted = Counted {
        read: counter.read,
        written,
        spilled: shuffle.spilled(),
        seconds: [
            (counted - begun).as_secs_f64(),
            counted.elapsed().as_secs_f64(),
        ],
        part,
    };
    codec::encode::<REPORT_MAX>(&counted).map_err(ProgramError::new)
}

/// Counts the words of pieces, as many as fit into memory at a time, and gives them as lines.
struct Counter {
    pieces: Vec<Item>,
    counts: Counts,
    memory: usize,
    sources: Sources,
    /// Bytes that were read.
    read: u64,
    /// There are no pieces left.
    is_last: bool,
    /// Counts that are given next, and those that were given last.
    lines: Vec<u8>,
    given: Vec<u8>,
}

impl Counter {
    /// Takes pieces, at least one, and counts their words until there are none left or memory is full.
    fn fill(&mut self, context: &mut Context) -> Result<(), ProgramError> {
        loop {
            let number = context.comm().counter(TAKEN).add(1)? - 1;
            let Some(piece) = self.pieces.get(number as usize) else {
                self.is_last = true;
                return Ok(());
            };
            let input: Input = self.sources.open(context, piece)?;
            let mut reading = input.clone().read();
            let mut at = 0;
            while let Some(bytes) = reading.more().map_err(ProgramError::new)? {
                self.read += bytes.len() as u64;
                self.counts.count(bytes);
                if self.counts.is_overlong() {
                    // The word began in what was counted before.
                    return Err(ProgramError::new(format!(
                        "{} has a word of more than {WORD_MAX} bytes, the most of a word; is this a text?",
                        input.place_of(at)
                    )));
                }
                at = reading.position();
            }
            // The end of a file ends a word; that of a piece is the end of a line.
            self.counts.end();
            if self.counts.memory() >= self.memory {
                return Ok(());
            }
        }
    }

    /// Has these counts given next, and begins anew.
    fn put(&mut self, words: &[(Vec<u8>, u64)]) {
        self.lines.clear();
        for (word, count) in words {
            self.lines.extend_from_slice(word);
            writeln!(self.lines, "\t{count}").expect("memory takes it");
        }
        self.counts.clear();
    }
}

impl Source for Counter {
    fn next(&mut self, context: &mut Context) -> Result<Option<&[u8]>, ProgramError> {
        // Pieces may have no words.
        while self.lines.is_empty() && !self.is_last {
            self.fill(context)?;
            let words = self.counts.sorted();
            self.put(&words);
        }
        if self.lines.is_empty() {
            return Ok(None);
        }
        // They are taken whole, and the next call gives others.
        self.given = std::mem::take(&mut self.lines);
        Ok(Some(&self.given))
    }
}
