//! Sorted runs in a store, and records merged from them.

use super::record::{Format, prefix};
use super::run::Run;
use crate::job::context::BlockingStore;
use crate::job::program::ProgramError;
use crate::store::StoreError;
use crate::store::sealed::{SEALED_BLOCK_LEN, Seal};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The least and the most of a run that is read at once, in bytes: whole blocks, which are checked as they are read.
const READ_MIN: u64 = 2 * SEALED_BLOCK_LEN;
const READ_MAX: u64 = 4 << 20;

/// Runs that were written to a store since they did not fit into memory. They are deleted with this.
pub struct Spill<'a> {
    store: &'a BlockingStore,
    prefix: String,
    format: Format,
    /// What each run must be when it is read again.
    runs: Vec<Seal>,
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
        self.runs.iter().map(|run| run.bytes).sum()
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
        let mut output = self.store.sealed_writer(&self.key(self.runs.len()))?;
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
        let read_len = read_len - read_len % SEALED_BLOCK_LEN;
        let mut readers = Vec::new();
        for (number, seal) in self.runs.iter().enumerate() {
            readers.push(Reader {
                store: self.store,
                key: self.key(number),
                seal: *seal,
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
    seal: Seal,
    read_len: u64,
    format: Format,
    /// Bytes of the run that were read.
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
            if self.read == self.seal.bytes {
                return match self.held.is_empty() {
                    true => Ok(false),
                    false => Err(ProgramError::new(format!(
                        "{} ends within a record",
                        self.store.object_url(&self.key)
                    ))),
                };
            }
            // Of a long record twice as much each time, so that it is not copied over and over; and whole blocks.
            let step = self.read_len.max(self.held.len() as u64);
            let step = step - step % SEALED_BLOCK_LEN;
            let end = (self.read + step).min(self.seal.bytes);
            let mut held = Vec::with_capacity(self.held.len() + (end - self.read) as usize);
            held.extend_from_slice(&self.held);
            let range = self.read..end;
            self.store
                .get_sealed_range(&self.key, &self.seal, range, &mut held)?;
            self.read = end;
            self.held = held.into();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsSettings;
    use crate::store::Store;
    use std::fs;
    use std::path::PathBuf;

    /// A spill of so many runs over a store in `folder`, each of three blocks and a bit, and the files of its runs.
    fn spill<'a>(
        store: &'a BlockingStore,
        folder: &tempfile::TempDir,
    ) -> (Spill<'a>, Vec<PathBuf>) {
        let mut spill = Spill::new(store, "sort/spill-".into(), Format::Fixed(10));
        for number in 0..3 {
            let mut run = Run::new(Format::Fixed(10));
            for record in 0..20_000 {
                run.push(format!("{:010}", record * 3 + number).as_bytes());
            }
            spill.add(&mut run).unwrap();
        }
        let files = (0..3).map(|number| folder.path().join(format!("sort/spill-{number:05}")));
        (spill, files.collect())
    }

    fn merged(spill: &Spill) -> Result<Vec<u8>, ProgramError> {
        let mut records = Vec::new();
        spill.merge(1 << 20, |record| {
            records.extend_from_slice(record);
            Ok(())
        })?;
        Ok(records)
    }

    #[test]
    fn runs_come_in_order_or_the_damaged_one_is_named() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().to_str().unwrap();
        let store = runtime.block_on(Store::open(location, &AwsSettings::default()));
        let store = BlockingStore::new(store.unwrap(), runtime.handle().clone());
        let expected: String = (0..60_000).map(|number| format!("{number:010}")).collect();
        let (runs, files) = spill(&store, &folder);
        assert!(merged(&runs).unwrap() == expected.as_bytes());

        let right: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let (mut flipped, mut end) = (right[1].clone(), right[1].clone());
        flipped[150_000] ^= 4;
        *end.last_mut().unwrap() ^= 1;
        let emptied: &[u8] = &[];
        let cut = &right[1][..right[1].len() - 10];
        for changed in [&flipped, &end, cut, emptied, &right[2]] {
            fs::write(&files[1], changed).unwrap();
            let error = merged(&runs).unwrap_err().to_string();
            let words = ["spill-00001 is damaged", "run the job again"];
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        fs::remove_file(&files[1]).unwrap();
        let error = merged(&runs).unwrap_err().to_string();
        assert!(error.contains("there is no object"), "{error}");
        // The same records under the same key, of a spill before.
        drop(runs);
        let (runs, _) = spill(&store, &folder);
        fs::write(&files[1], &right[1]).unwrap();
        let error = merged(&runs).unwrap_err().to_string();
        assert!(error.contains("it is another object"), "{error}");
    }
}
