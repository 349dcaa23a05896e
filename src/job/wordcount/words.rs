//! Words in a text, and how often each occurs. Pure.

use rustc_hash::FxHasher;
use serde::{Deserialize, Serialize};
use std::hash::Hasher;

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Words {
    /// A longest run of A-Z and a-z, in lower case.
    LettersLower,
    /// The same as it is.
    Letters,
    /// A longest run of bytes other than space, tab, line feed, vertical tab, form feed, carriage return.
    Space,
}

/// Bytes up to this make a word that is its own key.
const SHORT: usize = 8;

/// The longest word, in bytes. A file that has nothing between its words is found by it before it fills the memory of a worker.
pub const WORD_MAX: usize = 256 << 20;

impl Words {
    /// The highest bit of each of eight bytes that ends a word.
    fn ends(self, eight: u64) -> u64 {
        match self {
            Words::LettersLower | Words::Letters => {
                !within(eight | each(0x20), b'a', b'z') & HIGHEST
            }
            Words::Space => within(eight, 9, 13) | zeros(eight ^ each(b' ')),
        }
    }

    /// Eight bytes as they stand in words.
    fn cased(self, eight: u64) -> u64 {
        match self {
            Words::LettersLower => eight | each(0x20),
            Words::Letters | Words::Space => eight,
        }
    }

    fn is_in(self, byte: u8) -> bool {
        match self {
            Words::LettersLower | Words::Letters => byte.is_ascii_alphabetic(),
            Words::Space => !matches!(byte, b' ' | 9..=13),
        }
    }
}

/// The highest bit of each of eight bytes, and the others.
const HIGHEST: u64 = each(0x80);
const LOWER: u64 = each(0x7f);

/// Eight times a byte.
const fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The highest bit of each byte that is at least `low` and at most `high`, which are below 127. No sum reaches the next byte.
fn within(eight: u64, low: u8, high: u8) -> u64 {
    let rest = eight & LOWER;
    let reaches = rest + each(0x80 - low);
    let exceeds = rest + each(0x80 - high - 1);
    reaches & !exceeds & !eight & HIGHEST
}

/// The highest bit of each byte that is 0.
fn zeros(eight: u64) -> u64 {
    !(((eight & LOWER) + LOWER) | eight) & HIGHEST
}

/// How often words occur.
pub struct Counts {
    words: Words,
    /// Words of up to eight bytes without a NUL, as numbers: open addressing, 0 is free.
    short: Vec<(u64, u64)>,
    used: usize,
    /// Other words by their hash: open addressing, a count of 0 is free.
    long: Vec<Long>,
    long_used: usize,
    /// The bytes of those.
    bytes: Vec<u8>,
    /// A word that goes on in the next bytes.
    begun: Vec<u8>,
    word_max: usize,
    is_overlong: bool,
}

#[derive(Clone, Copy, Default)]
struct Long {
    hash: u64,
    count: u64,
    at: u64,
    length: u32,
}

const FIRST_LEN: usize = 1 << 12;

impl Counts {
    /// None.
    pub fn new(words: Words) -> Counts {
        Counts {
            words,
            short: vec![(0, 0); FIRST_LEN],
            used: 0,
            long: vec![Long::default(); FIRST_LEN],
            long_used: 0,
            bytes: Vec::new(),
            begun: Vec::new(),
            word_max: WORD_MAX,
            is_overlong: false,
        }
    }

    /// True once a word had more than [`WORD_MAX`] bytes; the counts are of no use then.
    pub fn is_overlong(&self) -> bool {
        self.is_overlong
    }

    /// Different words.
    pub fn len(&self) -> usize {
        self.used + self.long_used
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that they take, about.
    pub fn memory(&self) -> usize {
        self.short.len() * size_of::<(u64, u64)>()
            + self.long.len() * size_of::<Long>()
            + self.bytes.len()
    }

    /// Counts the words of some bytes. A word at their end may go on in the next.
    pub fn count(&mut self, mut text: &[u8]) {
        if !self.begun.is_empty() {
            let end = text.iter().position(|byte| !self.words.is_in(*byte));
            let (head, rest) = text.split_at(end.unwrap_or(text.len()));
            self.begin(head);
            if end.is_none() {
                return;
            }
            self.end();
            text = rest;
        }
        let last = text.iter().rposition(|byte| !self.words.is_in(*byte));
        let whole = last.map_or(0, |last| last + 1);
        self.count_whole(&text[..whole]);
        self.begin(&text[whole..]);
    }

    /// The text is over, and a word with it.
    pub fn end(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        if !begun.is_empty() {
            self.add(&begun, 1);
        }
        self.begun = begun;
        self.begun.clear();
    }

    fn begin(&mut self, bytes: &[u8]) {
        if self.begun.len() + bytes.len() > self.word_max {
            self.is_overlong = true;
            return;
        }
        let lower = self.words == Words::LettersLower;
        let bytes = bytes.iter();
        self.begun.extend(bytes.map(|byte| {
            if lower {
                byte.to_ascii_lowercase()
            } else {
                *byte
            }
        }));
    }

    /// Counts the words of bytes that end with none: short ones eight bytes at a time, without a branch for each byte, and others, of
    /// which there are few, one by one.
    fn count_whole(&mut self, text: &[u8]) {
        let words = self.words;
        let mut at = 0;
        while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk()) {
            let eight = u64::from_le_bytes(*eight);
            let length = words.ends(eight).trailing_zeros() / 8;
            let inside = (1u64 << (8 * length % 64)).wrapping_sub(1);
            if length == 8 || words == Words::Space && zeros(eight) & inside != 0 {
                let rest = &text[at..];
                let end = rest.iter().position(|byte| !words.is_in(*byte));
                let end = end.expect("the bytes end with a separator");
                self.begin(&rest[..end]);
                self.end();
                at += end + 1;
                continue;
            }
            let key = words.cased(eight) & inside;
            if key != 0 {
                self.add_short(key, 1);
            }
            at += length as usize + 1;
        }
        let rest = text.get(at..).unwrap_or_default();
        for word in rest.split(|byte| !words.is_in(*byte)) {
            self.begin(word);
            self.end();
        }
    }

    /// Adds to the count of a word, which is as it will be told.
    pub fn add(&mut self, word: &[u8], count: u64) {
        if word.len() <= SHORT && !word.contains(&0) {
            let mut key = [0; SHORT];
            key[..word.len()].copy_from_slice(word);
            return self.add_short(u64::from_le_bytes(key), count);
        }
        let mut hasher = FxHasher::default();
        hasher.write(word);
        let hash = hasher.finish();
        let mask = self.long.len() - 1;
        let mut place = (hash >> 20) as usize & mask;
        loop {
            let entry = &mut self.long[place];
            if entry.count == 0 {
                *entry = Long {
                    hash,
                    count,
                    at: self.bytes.len() as u64,
                    length: word.len() as u32,
                };
                self.bytes.extend_from_slice(word);
                self.long_used += 1;
                if self.long_used * 2 > self.long.len() {
                    self.grow_long();
                }
                return;
            }
            let (at, length) = (entry.at as usize, entry.length as usize);
            if entry.hash == hash && self.bytes[at..at + length] == *word {
                entry.count += count;
                return;
            }
            place = (place + 1) & mask;
        }
    }

    fn add_short(&mut self, key: u64, count: u64) {
        let mask = self.short.len() - 1;
        let mut place = spread(key) & mask;
        loop {
            let entry = &mut self.short[place];
            if entry.0 == key {
                entry.1 += count;
                return;
            }
            if entry.0 == 0 {
                *entry = (key, count);
                self.used += 1;
                if self.used * 2 > self.short.len() {
                    self.grow_short();
                }
                return;
            }
            place = (place + 1) & mask;
        }
    }

    fn grow_short(&mut self) {
        let larger = vec![(0, 0); self.short.len() * 2];
        let before = std::mem::replace(&mut self.short, larger);
        let mask = self.short.len() - 1;
        for (key, count) in before.into_iter().filter(|(key, _)| *key != 0) {
            let mut place = spread(key) & mask;
            while self.short[place].0 != 0 {
                place = (place + 1) & mask;
            }
            self.short[place] = (key, count);
        }
    }

    fn grow_long(&mut self) {
        let larger = vec![Long::default(); self.long.len() * 2];
        let before = std::mem::replace(&mut self.long, larger);
        let mask = self.long.len() - 1;
        for entry in before.into_iter().filter(|entry| entry.count != 0) {
            let mut place = (entry.hash >> 20) as usize & mask;
            while self.long[place].count != 0 {
                place = (place + 1) & mask;
            }
            self.long[place] = entry;
        }
    }

    /// The words in the order of their bytes, each with its count.
    pub fn sorted(&self) -> Vec<(Vec<u8>, u64)> {
        let short = self.short.iter().filter(|(key, _)| *key != 0);
        let short = short.map(|(key, count)| {
            let bytes = key.to_le_bytes();
            let length = bytes.iter().position(|byte| *byte == 0);
            (bytes[..length.unwrap_or(SHORT)].to_vec(), *count)
        });
        let long = self.long.iter().filter(|entry| entry.count != 0);
        let long = long.map(|entry| {
            let at = entry.at as usize;
            (
                self.bytes[at..at + entry.length as usize].to_vec(),
                entry.count,
            )
        });
        let mut all: Vec<(Vec<u8>, u64)> = short.chain(long).collect();
        all.sort_unstable();
        all
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Counts {
            begun: std::mem::take(&mut self.begun),
            ..Counts::new(self.words)
        };
    }
}

/// Where a short word is looked for first.
fn spread(key: u64) -> usize {
    // Fibonacci hashing.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The same, the plain way.
    fn plain(words: Words, text: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let mut counts = BTreeMap::new();
        for word in text.split(|byte| !words.is_in(*byte)) {
            if !word.is_empty() {
                let word = match words {
                    Words::LettersLower => word.to_ascii_lowercase(),
                    _ => word.to_vec(),
                };
                *counts.entry(word).or_default() += 1;
            }
        }
        counts.into_iter().collect()
    }

    #[test]
    fn words_are_counted_as_the_plain_way_does_wherever_the_text_is_cut() {
        let mut text =
            b"The cat, the CAT and the caterpillars of caterpillar-land; a\0b \0\0 a\0b ".to_vec();
        for number in 0..20_000_u32 {
            let mixed = number.wrapping_mul(2_654_435_761);
            text.extend_from_slice(
                format!("w{:x}", mixed % 7000)
                    .replace(|digit: char| digit.is_ascii_digit(), "Q")
                    .as_bytes(),
            );
            text.extend_from_slice(&[b" \n\t.,-\x0b\x01\xff"[(mixed % 9) as usize]]);
            if number % 50 == 0 {
                text.extend_from_slice("Longer".repeat(number as usize % 9).as_bytes());
            }
        }
        for words in [Words::LettersLower, Words::Letters, Words::Space] {
            let expected = plain(words, &text);
            assert!(expected.len() > 100);
            for step in [1, 7, 1000, text.len()] {
                let mut counts = Counts::new(words);
                text.chunks(step).for_each(|piece| counts.count(piece));
                counts.end();
                assert!(counts.sorted() == expected, "{words:?} in steps of {step}");
                assert_eq!(counts.len(), expected.len());
                counts.clear();
                assert!(counts.is_empty());
            }
        }
    }

    #[test]
    fn long_words_are_whole_and_the_limit_is_exact_wherever_the_text_is_cut() {
        let long = vec![b'x'; 200_000];
        for step in [1, 4096, 131_072, long.len()] {
            let mut counts = Counts::new(Words::Letters);
            long.chunks(step).for_each(|piece| counts.count(piece));
            counts.count(b" ");
            assert!(counts.sorted() == [(long.clone(), 1)], "in steps of {step}");
            assert!(!counts.is_overlong());
        }
        for (length, step) in [
            (1000, 1),
            (1000, 300),
            (1000, 2000),
            (1001, 1),
            (1001, 300),
            (1001, 2000),
        ] {
            let mut counts = Counts::new(Words::Space);
            counts.word_max = 1000;
            let text = [&vec![b'y'; length][..], b" z\n"].concat();
            text.chunks(step).for_each(|piece| counts.count(piece));
            assert_eq!(counts.is_overlong(), length > 1000, "{length} by {step}");
        }
    }
}
