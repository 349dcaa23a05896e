//! Records in memory, and their order. Pure.

use super::record::{Format, prefix};
use std::cmp::Ordering;

/// Records lie in blocks of this length, so that memory grows without copying and is used again.
const BLOCK: usize = 256 << 10;

/// What a record takes in memory besides its bytes.
const ENTRY: usize = size_of::<Entry>();

/// The least number of records for which room is made.
const ENTRIES_MIN: usize = 4096;

/// Where a record is, and how its key begins.
#[derive(Clone, Copy)]
struct Entry {
    prefix: u64,
    block: u32,
    at: u32,
}

/// See the module.
pub struct Run {
    format: Format,
    /// The first `used` hold records.
    blocks: Vec<Vec<u8>>,
    used: usize,
    entries: Vec<Entry>,
    bytes: u64,
    /// Memory was added since somebody asked.
    grown: bool,
}

impl Run {
    /// No records.
    pub fn new(format: Format) -> Run {
        Run {
            format,
            blocks: Vec::new(),
            used: 0,
            entries: Vec::new(),
            bytes: 0,
            grown: false,
        }
    }

    /// Adds one record.
    pub fn push(&mut self, record: &[u8]) {
        let fits = self.used > 0 && {
            let block = &self.blocks[self.used - 1];
            block.len() + record.len() <= block.capacity()
        };
        if !fits {
            self.next_block(record.len());
        }
        if self.entries.len() == self.entries.capacity() {
            // A quarter more at a time: what is moved is little beside the records, and so is what stays free.
            self.entries
                .reserve_exact(self.entries.len() / 4 + ENTRIES_MIN);
            self.grown = true;
        }
        let block = &mut self.blocks[self.used - 1];
        self.entries.push(Entry {
            prefix: prefix(self.format.key(record)),
            block: (self.used - 1) as u32,
            at: block.len() as u32,
        });
        block.extend_from_slice(record);
        self.bytes += record.len() as u64;
    }

    fn next_block(&mut self, length: usize) {
        if self.used == self.blocks.len() {
            self.blocks.push(Vec::with_capacity(BLOCK.max(length)));
        }
        self.used += 1;
        self.grown = true;
        self.blocks[self.used - 1].reserve(length);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the records.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True after the first record in each block, and each time that room was made for where they are.
    pub fn has_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// Bytes of memory that they take.
    pub fn memory(&self) -> usize {
        let blocks = self.blocks[..self.used].iter().map(Vec::capacity);
        blocks.sum::<usize>() + self.entries.capacity() * ENTRY
    }

    /// Puts the records in order: by their keys, byte by byte.
    pub fn sort(&mut self) {
        let (format, blocks) = (self.format, &self.blocks);
        self.entries.sort_unstable_by(|a, b| {
            let order = a.prefix.cmp(&b.prefix);
            if order != Ordering::Equal {
                return order;
            }
            let key = |entry: &Entry| format.key(record(format, blocks, *entry));
            key(a).cmp(key(b))
        });
    }

    /// The records in their order.
    pub fn each(&self) -> impl Iterator<Item = &[u8]> {
        let records = self.entries.iter();
        records.map(|entry| record(self.format, &self.blocks, *entry))
    }

    /// Forgets the records, and keeps the memory.
    pub fn clear(&mut self) {
        self.blocks.iter_mut().for_each(Vec::clear);
        self.used = 0;
        self.entries.clear();
        // Short records take more room for where they are than for themselves, and the next ones may be long.
        self.entries.shrink_to(self.bytes as usize / ENTRY / 4);
        self.bytes = 0;
    }
}

fn record(format: Format, blocks: &[Vec<u8>], entry: Entry) -> &[u8] {
    format.first(&blocks[entry.block as usize][entry.at as usize..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_in_order_however_long_they_are_and_again_after_clearing() {
        let mut run = Run::new(Format::Lines);
        for round in 0..3 {
            let mut lines: Vec<Vec<u8>> = (0..2000_usize)
                .map(|number| {
                    let mut line =
                        format!("{:x}", number.wrapping_mul(7919 + round) % 997).into_bytes();
                    line.resize(line.len() + number % 300 * 20, b'x');
                    line.push(b'\n');
                    line
                })
                .collect();
            lines.push(b"\n".to_vec());
            lines.push(vec![b'y'; 5 << 20]);
            lines.last_mut().unwrap().push(b'\n');
            lines.iter().for_each(|line| run.push(line));
            run.sort();
            lines.sort_by(|a, b| a[..a.len() - 1].cmp(&b[..b.len() - 1]));
            assert!(run.each().eq(lines.iter().map(|line| &line[..])));
            assert_eq!(run.len(), lines.len());
            assert!(run.memory() as u64 >= run.bytes());
            run.clear();
            assert!(run.is_empty());
        }
    }
}
