//! How a worker reads an item.

use super::{Extent, Item, list_from_bytes};
use crate::job::context::{BlockingStore, Context};
use crate::job::program::ProgramError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of an object that are read at once.
const READ_LEN: u64 = 8 << 20;

/// Bytes behind an extent of an object that are read with it.
const BEYOND: u64 = 64 << 10;

/// Bytes of a file that are read at once: they stay in the processor's cache.
const FILE_READ_LEN: u64 = 512 << 10;

/// Bytes of numbers that are read at once, about.
const RANGE_READ_LEN: usize = 64 << 10;

/// Takes an extent out of a stream of bytes that begins at [`Cut::first`]. Pure.
struct Cut {
    at: u64,
    to: u64,
    lines: bool,
    /// No line has begun yet.
    skipping: bool,
}

impl Cut {
    fn new(part: Extent) -> Cut {
        Cut {
            at: Cut::first(part),
            to: part.to,
            lines: part.lines,
            skipping: part.lines && part.from > 0,
        }
    }

    /// Where the stream must begin. Whether a line begins with the range is known by the byte before it.
    fn first(part: Extent) -> u64 {
        part.from.saturating_sub(u64::from(part.lines))
    }

    /// Which of the next bytes are wanted, and whether that was all.
    fn take(&mut self, bytes: &[u8]) -> (Range<usize>, bool) {
        let before = self.at;
        self.at += bytes.len() as u64;
        if !self.lines {
            let end = bytes.len().min(self.to.saturating_sub(before) as usize);
            return (0..end, self.at >= self.to);
        }
        let mut start = 0;
        if self.skipping {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                // A line that goes on to the end of the range leaves none that begin in it.
                return (0..0, self.at >= self.to);
            };
            start = end + 1;
            self.skipping = false;
            if before + start as u64 >= self.to {
                return (0..0, true);
            }
        }
        // The line that has the range's last byte is the last.
        let last = start.max((self.to - 1).saturating_sub(before) as usize);
        match bytes
            .get(last..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            Some(end) => (start..last + end + 1, true),
            None => (start..bytes.len(), false),
        }
    }
}

/// Where items lie that a worker has read before.
#[derive(Default)]
pub struct Sources {
    store: Option<BlockingStore>,
}

impl Sources {
    /// Opens the store of an item, unless it was opened for the last.
    fn store(&mut self, context: &Context, url: &str) -> Result<&BlockingStore, ProgramError> {
        if self.store.as_ref().is_none_or(|store| store.url() != url) {
            self.store = Some(context.open_store(url)?);
        }
        Ok(self.store.as_ref().expect("it was just opened"))
    }

    /// What of an item can be read by other threads.
    ///
    /// # Errors
    /// When its store cannot be opened.
    pub fn open(&mut self, context: &Context, item: &Item) -> Result<Input, ProgramError> {
        Ok(match item {
            Item::Text(text) => Input::Text(text.clone()),
            Item::Range { from, to } => Input::Range(*from..*to),
            Item::Batch { items, .. } => self.open_all(context, items)?,
            Item::Listed { store, key } => {
                let list = self.store(context, store)?.get(key)?;
                let items = list_from_bytes(&list).map_err(ProgramError::new)?;
                self.open_all(context, &items)?
            }
            Item::File { path, part, .. } => Input::File(path.into(), *part),
            Item::Object {
                store,
                key,
                length,
                part,
            } => Input::Object {
                store: self.store(context, store)?.clone(),
                key: key.clone(),
                length: *length,
                part: *part,
            },
        })
    }
}

impl Sources {
    fn open_all(&mut self, context: &Context, items: &[Item]) -> Result<Input, ProgramError> {
        let inputs = items.iter().map(|item| self.open(context, item));
        Ok(Input::Batch(inputs.collect::<Result<_, _>>()?))
    }
}

/// An item that is about to be read.
#[derive(Clone)]
pub enum Input {
    /// A line.
    Text(Vec<u8>),
    /// Numbers.
    Range(Range<u64>),
    /// Several, one after the other.
    Batch(Vec<Input>),
    /// A file.
    File(PathBuf, Option<Extent>),
    /// An object.
    Object {
        /// Its store.
        store: BlockingStore,
        /// Its key.
        key: String,
        /// Its length.
        length: u64,
        /// Which of its bytes.
        part: Option<Extent>,
    },
}

impl Input {
    /// The path of a whole file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Input::File(path, None) => Some(path),
            _ => None,
        }
    }

    /// Begins to read it.
    pub fn read(self) -> Reading {
        let part = match &self {
            Input::Text(_) | Input::Range(_) | Input::Batch(_) => None,
            Input::File(_, part) | Input::Object { part, .. } => *part,
        };
        Reading {
            input: self,
            inner: None,
            file: None,
            at: part.map_or(0, Cut::first),
            cut: part.map(Cut::new),
            taken: 0,
            room: Vec::new(),
            over: false,
        }
    }

    /// Writes what the item consists of; a line with its end.
    ///
    /// # Errors
    /// When it cannot be read, in words; or when `to` takes no more, which is the outer error.
    pub fn write_to(&self, to: &mut impl Write) -> io::Result<Result<(), String>> {
        let mut reading = self.clone().read();
        loop {
            match reading.more() {
                Ok(Some(bytes)) => to.write_all(bytes)?,
                Ok(None) => return Ok(Ok(())),
                Err(what) => return Ok(Err(what)),
            }
        }
    }
}

/// An item that is being read.
pub struct Reading {
    input: Input,
    /// Of a batch, the one that is being read.
    inner: Option<Box<Reading>>,
    file: Option<File>,
    at: u64,
    cut: Option<Cut>,
    /// Numbers of a range that were read, or items of a batch.
    taken: u64,
    room: Vec<u8>,
    over: bool,
}

impl Reading {
    /// The next bytes of it, or none at its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn more(&mut self) -> Result<Option<&[u8]>, String> {
        let mut wanted = 0..0;
        while wanted.is_empty() && !self.over {
            self.fill()?;
            self.at += self.room.len() as u64;
            (wanted, self.over) = match &mut self.cut {
                _ if self.room.is_empty() => (0..0, true),
                None => (0..self.room.len(), false),
                Some(cut) => cut.take(&self.room),
            };
        }
        Ok(Some(&self.room[wanted]).filter(|bytes| !bytes.is_empty()))
    }

    /// Reads what is at `at`; nothing at the end.
    fn fill(&mut self) -> Result<(), String> {
        self.room.clear();
        match &self.input {
            Input::Text(text) => {
                if self.at == 0 {
                    self.room.extend_from_slice(text);
                    self.room.push(b'\n');
                }
                Ok(())
            }
            Input::Range(range) => {
                let mut next = range.start + self.taken;
                while next < range.end && self.room.len() < RANGE_READ_LEN {
                    writeln!(self.room, "{next}").expect("memory takes it");
                    next += 1;
                }
                self.taken = next - range.start;
                Ok(())
            }
            Input::Batch(inputs) => {
                while let Some(input) = inputs.get(self.taken as usize) {
                    let inner = self
                        .inner
                        .get_or_insert_with(|| Box::new(input.clone().read()));
                    if let Some(bytes) = inner.more()? {
                        self.room.extend_from_slice(bytes);
                        break;
                    }
                    self.inner = None;
                    self.taken += 1;
                }
                Ok(())
            }
            Input::File(path, _) => fill_from(&mut self.file, path, self.at, &mut self.room)
                .map_err(|error| format!("cannot read {}: {error}", path.display())),
            Input::Object {
                store, key, length, ..
            } => {
                // Of a small part, a little more: its last line may go on.
                let wanted = self.cut.as_ref().map_or(u64::MAX, |cut| cut.to + BEYOND);
                let end = (self.at + READ_LEN)
                    .min(wanted.max(self.at + BEYOND))
                    .min(*length);
                let bytes = store.get_range(key, self.at.min(end)..end);
                self.room = bytes.map_err(|error| error.to_string())?.into();
                Ok(())
            }
        }
    }
}

/// Reads what is next in a file, which is opened at `at` first.
fn fill_from(open: &mut Option<File>, path: &Path, at: u64, room: &mut Vec<u8>) -> io::Result<()> {
    let file = match open {
        Some(file) => file,
        None => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at))?;
            open.insert(file)
        }
    };
    file.take(FILE_READ_LEN).read_to_end(room).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::find::pieces;
    use super::*;

    #[test]
    fn numbers_and_batches_are_read_as_lines_one_after_the_other() {
        let text = |text: &str| Input::Text(text.into());
        let batch = Input::Batch(vec![
            text("a"),
            Input::Range(7..7),
            Input::Range(8..11),
            text(""),
        ]);
        let mut written = Vec::new();
        batch.write_to(&mut written).unwrap().unwrap();
        assert_eq!(written, b"a\n8\n9\n10\n\n");
        let mut written = Vec::new();
        Input::Range(0..100_000)
            .write_to(&mut written)
            .unwrap()
            .unwrap();
        let expected: String = (0..100_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(written, expected.as_bytes());
        let empty = Input::Batch(Vec::new()).write_to(&mut Vec::new());
        assert_eq!(empty.unwrap(), Ok(()));
    }

    /// The lines of a range, read in bits of `step` bytes.
    fn cut(text: &[u8], part: Extent, step: usize) -> Vec<u8> {
        let mut cut = Cut::new(part);
        let mut found = Vec::new();
        for bytes in text[Cut::first(part) as usize..].chunks(step) {
            let (wanted, over) = cut.take(bytes);
            found.extend_from_slice(&bytes[wanted]);
            if over {
                break;
            }
        }
        found
    }

    #[test]
    fn pieces_are_whole_lines_and_together_they_are_the_text() {
        let texts: [&[u8]; 7] = [
            b"",
            b"\n",
            b"one line without an end",
            b"a\nbb\n\nccc\nd\n",
            b"\n\n\n\n\n",
            b"first\na line that is much longer than a piece is\nlast",
            b"ends\nwith\nan\nend\n",
        ];
        for text in texts {
            for split in 1..text.len() as u64 + 2 {
                for step in [1, 2, 3, 7, 1000] {
                    let mut all = Vec::new();
                    for part in pieces(text.len() as u64, Some(split)) {
                        let found = match part {
                            None => text.to_vec(),
                            Some(part) => cut(text, part, step),
                        };
                        if let Some(part) = part {
                            let plain = Extent {
                                lines: false,
                                ..part
                            };
                            let range = part.from as usize..part.to as usize;
                            assert_eq!(cut(text, plain, step), text[range]);
                        }
                        let whole =
                            found.is_empty() || found.ends_with(b"\n") || text.ends_with(&found);
                        assert!(whole, "{found:?} of {text:?}");
                        all.extend_from_slice(&found);
                    }
                    assert_eq!(all, text, "split {split}, step {step}");
                }
            }
        }
    }
}
