//! A plain word count: each thread reads its files, goes over them byte by byte, and counts in a hash map. It is what
//! one would write without a system, and what `run.py` compares lswitch's word count with.

use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::thread;

/// How many threads share the files.
const THREADS: usize = 2;

fn main() -> std::io::Result<()> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let counts: Vec<FxHashMap<Vec<u8>, u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let mine = files.iter().skip(number).step_by(THREADS);
                scope.spawn(move || count(mine))
            })
            .collect();
        let joined = threads.into_iter();
        joined
            .map(|thread| thread.join().expect("no thread panics"))
            .collect::<std::io::Result<_>>()
    })?;
    let mut all = BTreeMap::new();
    for (word, count) in counts.into_iter().flatten() {
        *all.entry(word).or_insert(0) += count;
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (word, count) in all {
        out.write_all(&word)?;
        writeln!(out, "\t{count}")?;
    }
    out.flush()
}

fn count<'a>(files: impl Iterator<Item = &'a String>) -> std::io::Result<FxHashMap<Vec<u8>, u64>> {
    let mut counts: FxHashMap<Vec<u8>, u64> = FxHashMap::default();
    let mut text = Vec::new();
    for file in files {
        text.clear();
        File::open(file)?.read_to_end(&mut text)?;
        text.make_ascii_lowercase();
        let words = text.split(|byte| !byte.is_ascii_lowercase());
        for word in words.filter(|word| !word.is_empty()) {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_vec(), 1)),
            }
        }
    }
    Ok(counts)
}
