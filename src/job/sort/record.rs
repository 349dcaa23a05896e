//! What is sorted: records of a fixed length, or lines. Pure.

use serde::{Deserialize, Serialize};

/// The longest line, in bytes without its end: a whole chromosome fits. A text without line ends is found by it before it fills
/// the memory of a worker, and a message between ranks has room for it.
pub const LINE_MAX: usize = 256 << 20;

/// The longest record of a fixed length, in bytes.
pub const RECORD_MAX: usize = 1 << 20;

/// How records lie in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// So many bytes each. gensort's have 100, of which the first 10 are the key.
    Fixed(u32),
    /// Up to a line feed. Compared without it.
    Lines,
    /// Lines of a key, a tab and something else; the key, which may have tabs in it, is compared.
    Keyed,
    /// Lines, compared as such; those that are alike up to the first tab stay together.
    Grouped,
}

impl Format {
    /// The length of the whole records that some bytes begin with; what is left is the beginning of another.
    pub fn whole(self, bytes: &[u8]) -> usize {
        match self {
            Format::Fixed(length) => bytes.len() - bytes.len() % length as usize,
            Format::Lines | Format::Keyed | Format::Grouped => {
                memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1)
            }
        }
    }

    /// The record that some bytes begin with, with its line feed.
    ///
    /// # Panics
    /// When there is none.
    pub fn first(self, bytes: &[u8]) -> &[u8] {
        match self {
            Format::Fixed(length) => &bytes[..length as usize],
            Format::Lines | Format::Keyed | Format::Grouped => {
                let end = memchr::memchr(b'\n', bytes).expect("a whole line");
                &bytes[..end + 1]
            }
        }
    }

    /// The records of some bytes, which are whole.
    pub fn each(self, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let record = self.first(bytes);
            bytes = &bytes[record.len()..];
            Some(record)
        })
    }

    /// What of a record is compared.
    pub fn key(self, record: &[u8]) -> &[u8] {
        match self {
            Format::Fixed(_) => record,
            Format::Lines | Format::Grouped => record.strip_suffix(b"\n").unwrap_or(record),
            Format::Keyed => &record[..memchr::memrchr(b'\t', record).unwrap_or_default()],
        }
    }
}

impl Format {
    /// What of a record decides which rank gets it: its key, or what a group has in common.
    pub fn group(self, record: &[u8]) -> &[u8] {
        let key = self.key(record);
        match self {
            Format::Grouped => &key[..memchr::memchr(b'\t', key).unwrap_or(key.len())],
            _ => key,
        }
    }
}

/// The first eight bytes of a key as a number that compares alike; shorter keys are filled up with zeros.
pub fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(head)
        }
    }
}

/// What decides which rank gets a record: keys, by which the ranges of the ranks begin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Splitters {
    /// The first key of each rank but the first; rising.
    keys: Vec<Vec<u8>>,
    prefixes: Vec<u64>,
}

impl Splitters {
    /// Ranges with as many of the sampled keys each, for so many ranks.
    pub fn choose(mut sample: Vec<Vec<u8>>, ranks: usize) -> Splitters {
        sample.sort_unstable();
        let mut keys = Vec::new();
        for rank in 1..ranks {
            let at = rank * sample.len() / ranks;
            keys.push(sample.get(at).cloned().unwrap_or_default());
        }
        Splitters {
            prefixes: keys.iter().map(|key| prefix(key)).collect(),
            keys,
        }
    }

    /// The rank that gets records with this key.
    pub fn rank_of(&self, key: &[u8]) -> usize {
        let head = prefix(key);
        let mut rank = self.prefixes.partition_point(|splitter| *splitter < head);
        // Those whose first bytes are alike are compared whole.
        while rank < self.keys.len() && self.prefixes[rank] == head && self.keys[rank][..] <= *key {
            rank += 1;
        }
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_apart() {
        let lines = b"one\n\ntwo\nthree";
        assert_eq!(Format::Lines.whole(lines), 9);
        let found: Vec<&[u8]> = Format::Lines.each(&lines[..9]).collect();
        assert_eq!(found, [&b"one\n"[..], b"\n", b"two\n"]);
        assert_eq!(Format::Lines.key(b"one\n"), b"one");
        assert_eq!(Format::Keyed.key(b"a\tkey\t12\n"), b"a\tkey");
        assert_eq!(Format::Keyed.group(b"a\tkey\t12\n"), b"a\tkey");
        assert_eq!(Format::Grouped.key(b"a\tkey\t12\n"), b"a\tkey\t12");
        assert_eq!(Format::Grouped.group(b"a\tkey\t12\n"), b"a");
        assert_eq!(Format::Grouped.group(b"alone\n"), b"alone");
        let fixed = Format::Fixed(4);
        assert_eq!(fixed.whole(b"0123456789"), 8);
        assert_eq!(fixed.each(b"01234567").count(), 2);
    }

    #[test]
    fn a_key_goes_to_the_rank_whose_range_it_is_in() {
        let sample: Vec<Vec<u8>> = (0..100u8).map(|byte| vec![byte; 12]).collect();
        let splitters = Splitters::choose(sample, 4);
        for byte in 0..100u8 {
            assert_eq!(splitters.rank_of(&[byte; 12]), byte as usize / 25);
        }
        assert_eq!(splitters.rank_of(b""), 0);
        assert_eq!(splitters.rank_of(&[255; 3]), 3);
        // Keys that differ behind the eighth byte, and one that is all there is.
        let near = ["aaaaaaaaa", "aaaaaaaab", "aaaaaaaac", "aaaaaaaad"];
        let splitters = Splitters::choose(near.map(|key| key.into()).to_vec(), 4);
        for (rank, key) in near.iter().enumerate() {
            assert_eq!(splitters.rank_of(key.as_bytes()), rank);
        }
        let same = Splitters::choose(vec![b"same".to_vec(); 50], 3);
        assert_eq!(same.rank_of(b"samd"), 0);
        assert_eq!(same.rank_of(b"same"), 2);
        assert_eq!(Splitters::choose(Vec::new(), 1).rank_of(b"x"), 0);
    }
}
