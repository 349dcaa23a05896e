//! Sorted runs in a store, and records merged from them.

use super::record::{Format, prefix};
use super::run::Run;
use crate::job::context::{BlockingStore, BlockingWriter};
use crate::job::program::ProgramError;
use crate::store::StoreError;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bytes that are written at once.
const WRITE_LEN: usize = 1 << 20;

/// The least and the most of a run that is read at once, in bytes.
const READ_MIN: u64 = 128 << 10;
const READ_MAX: u64 = 4 << 20;

/// An object that grows record by record.
pub struct Output {
    writer: Option<BlockingWriter>,
    gathered: Vec<u8>,
    bytes: u64,
}

impl Output {
    /// An empty object.
    ///
    /// # Errors
    /// As [`BlockingStore::writer`].
    pub fn create(store: &BlockingStore, key: &str) -> Result<Output, StoreError> {
        Ok(Output {
            writer: Some(store.writer(key)?),
            gathered: Vec::with_capacity(WRITE_LEN + (64 << 10)),
            bytes: 0,
        })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When the store does not take them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= WRITE_LEN {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.bytes += self.gathered.len() as u64;
        let room = Vec::with_capacity(self.gathered.capacity());
        let piece = std::mem::replace(&mut self.gathered, room);
        let writer = self.writer.take().expect("it is put back below");
        self.writer = Some(writer.write(piece.into())?);
        Ok(())
    }

    /// Gives it its name; and its length in bytes.
    ///
    /// # Errors
    /// When the store does not.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.write()?;
        let writer = self.writer.take().expect("it was just written to");
        writer.finish()?;
        Ok(self.bytes)
    }
}

/// Runs that were written to a store since they did not fit into memory. They are deleted with this.
pub struct Spill<'a> {
    store: &'a BlockingStore,
    prefix: String,
    format: Format,
    /// The length of each in bytes.
    runs: Vec<u64>,
}

impl Drop for Spill<'_> {
    fn drop(&mut self) {
        for number in 0..self.runs.len() {
            // What cannot be deleted now, the driver deletes.
            let _ = self.store.delete(&self.key(number));
        }
    }
}

impl<'a> Spill<'a> {
    /// None yet; their names begin with `prefix`.
    pub fn new(store: &'a BlockingStore, prefix: String, format: Format) -> Spill<'a> {
        Spill {
            store,
            prefix,
            format,
            runs: Vec::new(),
        }
    }

    /// Bytes that were written.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().sum()
    }

    /// True if nothing was.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    fn key(&self, number: usize) -> String {
        format!("{}{number:05}", self.prefix)
    }

    /// Sorts a run, writes it, and clears it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn add(&mut self, run: &mut Run) -> Result<(), StoreError> {
        run.sort();
        let mut output = Output::create(self.store, &self.key(self.runs.len()))?;
        for record in run.each() {
            output.push(record)?;
        }
        self.runs.push(output.finish()?);
        run.clear();
        Ok(())
    }

    /// Gives all records in their order, with about so many bytes of memory.
    ///
    /// # Errors
    /// When the store does not give them, or `take` fails.
    pub fn merge(
        &self,
        memory: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), ProgramError>,
    ) -> Result<(), ProgramError> {
        let read_len = (memory / self.runs.len().max(1) as u64).clamp(READ_MIN, READ_MAX);
        let mut readers = Vec::new();
        for (number, length) in self.runs.iter().enumerate() {
            readers.push(Reader {
                store: self.store,
                key: self.key(number),
                length: *length,
                read_len,
                format: self.format,
                read: 0,
                held: Bytes::new(),
            });
        }
        // By the beginning of each reader's next record; those that are alike are compared whole.
        let mut heap = BinaryHeap::new();
        for (number, reader) in readers.iter_mut().enumerate() {
            if reader.fill()? {
                heap.push(Reverse((reader.next_key(), number)));
            }
        }
        while let Some(Reverse((_, number))) = heap.pop() {
            let reader = &mut readers[number];
            // As long as it is ahead of the others, nothing moves.
            loop {
                let record = reader.format.first(&reader.held).len();
                take(&reader.held[..record])?;
                let _ = reader.held.split_to(record);
                if !reader.fill()? {
                    break;
                }
                let key = reader.next_key();
                match heap.peek() {
                    Some(Reverse((other, _))) if *other < key => {
                        heap.push(Reverse((key, number)));
                        break;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// A key of a record in the heap, compared by its beginning first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct HeapKey {
    prefix: u64,
    key: Bytes,
}

struct Reader<'a> {
    store: &'a BlockingStore,
    key: String,
    length: u64,
    read_len: u64,
    format: Format,
    /// Bytes of the object that were read.
    read: u64,
    /// Those that were not taken.
    held: Bytes,
}

impl Reader<'_> {
    /// Sees to it that a whole record is held. False if there is none.
    fn fill(&mut self) -> Result<bool, ProgramError> {
        loop {
            let whole = match self.format {
                Format::Fixed(length) => self.held.len() >= length as usize,
                Format::Lines | Format::Keyed | Format::Grouped => {
                    memchr::memchr(b'\n', &self.held).is_some()
                }
            };
            if whole {
                return Ok(true);
            }
            if self.read == self.length {
                return match self.held.is_empty() {
                    true => Ok(false),
                    false => Err(ProgramError::new(format!(
                        "{} ends within a record",
                        self.store.object_url(&self.key)
                    ))),
                };
            }
            // Of a long record twice as much each time, so that it is not copied over and over.
            let step = self.read_len.max(self.held.len() as u64);
            let end = (self.read + step).min(self.length);
            let next = self.store.get_range(&self.key, self.read..end)?;
            self.read = end;
            self.held = match self.held.is_empty() {
                true => next,
                false => [&self.held[..], &next].concat().into(),
            };
        }
    }

    fn next_key(&self) -> HeapKey {
        let record = self.format.first(&self.held).len();
        let key = self.format.key(&self.held[..record]).len();
        let key = self.held.slice(..key);
        HeapKey {
            prefix: prefix(&key),
            key,
        }
    }
}
