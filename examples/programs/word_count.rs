//! Word count: each rank counts the words of its share of a text, and sends each count to the rank that has the word.
//!
//! The event is `{"text": FILE, "top": 5}`: a file that every worker can read. A share is a run of bytes, moved on to the next
//! line end. Words are lower-case letters a to z.

use lswitch::{Context, ProgramError};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

#[derive(Deserialize)]
struct Event {
    text: String,
    #[serde(default)]
    top: usize,
}

type Counts = HashMap<String, u64>;

pub fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let event: Event = context.arguments()?;
    let (rank, size) = (context.rank(), context.size());
    let counts = count(&event.text, rank.into(), size.into()).map_err(ProgramError::new)?;

    let mut by_rank = vec![Counts::new(); size as usize];
    for (word, count) in counts {
        let of = crc32c::crc32c(word.as_bytes()) % size;
        by_rank[of as usize].insert(word, count);
    }
    let mut pieces = Vec::new();
    for counts in by_rank {
        pieces.push(serde_json::to_vec(&counts)?.into());
    }
    let mut own = Counts::new();
    for piece in context.comm().all_to_all(pieces)? {
        for (word, count) in serde_json::from_slice::<Counts>(&piece)? {
            *own.entry(word).or_default() += count;
        }
    }
    let mut top: Vec<(&String, &u64)> = own.iter().collect();
    top.sort_by_key(|(word, count)| (std::cmp::Reverse(**count), *word));
    top.truncate(event.top);
    let words: u64 = own.values().sum();
    Ok(serde_json::to_vec(
        &json!({ "words": words, "distinct": own.len(), "top": top }),
    )?)
}

/// Counts the words of the lines that begin in share `rank` of `size`.
fn count(text: &str, rank: u64, size: u64) -> std::io::Result<Counts> {
    let mut file = BufReader::new(File::open(text)?);
    let length = file.get_ref().metadata()?.len();
    let (mut at, end) = (length * rank / size, length * (rank + 1) / size);
    let mut line = Vec::new();
    if at > 0 {
        // A line that began before is another's, also one that ends just here.
        file.seek(SeekFrom::Start(at - 1))?;
        at += file.read_until(b'\n', &mut line)? as u64 - 1;
    }
    let mut counts = Counts::new();
    while at < end {
        line.clear();
        at += file.read_until(b'\n', &mut line)? as u64;
        line.make_ascii_lowercase();
        for word in line.split(|byte| !byte.is_ascii_lowercase()) {
            if !word.is_empty() {
                let word = String::from_utf8_lossy(word).into_owned();
                *counts.entry(word).or_default() += 1;
            }
        }
    }
    Ok(counts)
}
