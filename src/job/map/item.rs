//! The items of a map: where they come from, what travels of one, and how a worker reads it.

use crate::aws::AwsSettings;
use crate::job::context::{BlockingStore, Context};
use crate::job::program::ProgramError;
use crate::net::codec;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The longest item that is given as a line, in bytes.
pub const TEXT_MAX: usize = 4 << 20;

/// Bytes of an object that are read at once.
const READ_LEN: u64 = 8 << 20;

/// Bytes behind an extent of an object that are read with it.
const BEYOND: u64 = 64 << 10;

/// Bytes of a file that are read at once: they stay in the processor's cache.
const FILE_READ_LEN: u64 = 512 << 10;

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A line, without its end, or a number.
    Text(Vec<u8>),
    /// A file that the workers see too, or some lines of it.
    File {
        /// Absolute.
        path: String,
        /// Which of its bytes; all if none are named.
        part: Option<Extent>,
    },
    /// An object in a store, or some lines of it.
    Object {
        /// The store.
        store: String,
        /// The object's key there.
        key: String,
        /// Its length in bytes.
        length: u64,
        /// Which of its bytes; all if none are named.
        part: Option<Extent>,
    },
}

/// A range of bytes, or the lines that begin in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first byte of the range.
    pub from: u64,
    /// One past its last.
    pub to: u64,
    /// The lines that begin in it, and not its bytes.
    pub lines: bool,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let lines = if self.lines { "lines of " } else { "" };
        write!(f, "{lines}bytes {}..{}", self.from, self.to)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let part = match self {
            Item::Text(text) => return f.write_str(&String::from_utf8_lossy(text)),
            Item::File { path, part } => {
                f.write_str(path)?;
                part
            }
            Item::Object {
                store, key, part, ..
            } => {
                write!(f, "{store}/{key}")?;
                part
            }
        };
        match part {
            Some(part) => write!(f, " ({part})"),
            None => Ok(()),
        }
    }
}

impl Item {
    /// What travels.
    pub fn to_bytes(&self) -> Bytes {
        codec::encode::<{ TEXT_MAX + 4096 }>(self)
            .expect("texts are bounded where they are read, and paths by the system")
            .into()
    }

    /// Reads what travelled.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Item, String> {
        codec::decode::<Item, { TEXT_MAX + 4096 }>(bytes)
            .map_err(|error| format!("an item does not decode: {error}"))
    }
}

/// Why there are no items.
#[derive(Debug, Error)]
pub enum ItemsError {
    /// A file, or the folder of some.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line is too long.
    #[error(
        "line {line} of {path} has more than {TEXT_MAX} bytes; give long items as files or objects"
    )]
    LongLine {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
    /// There is nothing of this name.
    #[error("{0}")]
    Nothing(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where items come from.
pub enum Items {
    /// Numbers.
    Range(Range<u64>),
    /// The lines of a file; of standard input if it has no path.
    Lines(Option<PathBuf>),
    /// Files or objects.
    Named(Vec<Item>),
}

impl Items {
    /// Finds them: `START..END` are numbers without the last, `-` the lines of standard input, `s3://bucket/prefix` objects, a
    /// pattern with `*`, `?` or `[` files, and any other name a file: its lines, or, with `split`, pieces of about so many bytes
    /// that end with a line.
    ///
    /// # Errors
    /// When there are none of this kind.
    pub async fn find(
        what: &str,
        split: Option<u64>,
        aws: &AwsSettings,
    ) -> Result<Items, ItemsError> {
        let nothing = |what: String| Err(ItemsError::Nothing(what));
        if let Some((from, to)) = what.split_once("..")
            && let (Ok(from), Ok(to)) = (from.parse(), to.parse())
        {
            if from > to {
                return nothing(format!("--items {what} ends before it begins"));
            }
            return Ok(Items::Range(from..to));
        }
        if what == "-" {
            return Ok(Items::Lines(None));
        }
        if what.starts_with("s3://") {
            return Ok(Items::Named(objects(what, split, aws).await?));
        }
        let path = Path::new(what);
        if path.is_file() {
            if split.is_none() {
                return Ok(Items::Lines(Some(path.into())));
            }
            return Ok(Items::Named(files(&[path.into()], split)?));
        }
        if !what.contains(['*', '?', '[']) {
            return nothing(format!(
                "--items {what}: there is no such file; a range is START..END, a pattern has a *"
            ));
        }
        let paths = glob::glob(what).map_err(|error| {
            ItemsError::Nothing(format!("--items {what} is no pattern: {error}"))
        })?;
        let mut found = Vec::new();
        for path in paths {
            let path = path.map_err(|error| ItemsError::Read {
                path: error.path().display().to_string(),
                source: error.into(),
            })?;
            if path.is_file() {
                found.push(path);
            }
        }
        if found.is_empty() {
            return nothing(format!("--items {what} matches no file"));
        }
        Ok(Items::Named(files(&found, split)?))
    }

    /// True if workers must see the files of this machine.
    pub fn are_files(&self) -> bool {
        let is_file = |item: &Item| matches!(item, Item::File { .. });
        matches!(self, Items::Named(items) if items.iter().any(is_file))
    }

    /// How many there are, if that is known before they are read.
    pub fn count(&self) -> Option<u64> {
        match self {
            Items::Range(range) => Some(range.end - range.start),
            Items::Lines(_) => None,
            Items::Named(items) => Some(items.len() as u64),
        }
    }

    /// One after the other.
    ///
    /// # Errors
    /// When the file cannot be opened; each item, when it cannot be read.
    pub fn each(
        self,
    ) -> Result<Box<dyn Iterator<Item = Result<Item, ItemsError>> + Send>, ItemsError> {
        match self {
            Items::Range(range) => {
                Ok(Box::new(range.map(|number| {
                    Ok(Item::Text(number.to_string().into_bytes()))
                })))
            }
            Items::Named(items) => Ok(Box::new(items.into_iter().map(Ok))),
            Items::Lines(None) => {
                let reader = BufReader::new(io::stdin());
                Ok(Box::new(TextLines::new(reader, "standard input".into())))
            }
            Items::Lines(Some(path)) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|source| ItemsError::Read {
                    path: name.clone(),
                    source,
                })?;
                let reader = BufReader::with_capacity(1 << 16, file);
                Ok(Box::new(TextLines::new(reader, name)))
            }
        }
    }
}

/// The lines of a text as items.
struct TextLines<R> {
    reader: R,
    name: String,
    line: u64,
    over: bool,
}

impl<R: BufRead> TextLines<R> {
    fn new(reader: R, name: String) -> TextLines<R> {
        TextLines {
            reader,
            name,
            line: 0,
            over: false,
        }
    }
}

impl<R: BufRead> Iterator for TextLines<R> {
    type Item = Result<Item, ItemsError>;

    fn next(&mut self) -> Option<Result<Item, ItemsError>> {
        if self.over {
            return None;
        }
        self.line += 1;
        let mut text = Vec::new();
        let mut limited = (&mut self.reader).take(TEXT_MAX as u64 + 2);
        let outcome = limited.read_until(b'\n', &mut text);
        self.over = !matches!(outcome, Ok(1..));
        match outcome {
            Ok(0) => None,
            Ok(_) => {
                if text.last() == Some(&b'\n') {
                    text.pop();
                    if text.last() == Some(&b'\r') {
                        text.pop();
                    }
                }
                if text.len() > TEXT_MAX {
                    self.over = true;
                    return Some(Err(ItemsError::LongLine {
                        path: self.name.clone(),
                        line: self.line,
                    }));
                }
                Some(Ok(Item::Text(text)))
            }
            Err(source) => Some(Err(ItemsError::Read {
                path: self.name.clone(),
                source,
            })),
        }
    }
}

/// Files, or pieces of them.
fn files(paths: &[PathBuf], split: Option<u64>) -> Result<Vec<Item>, ItemsError> {
    let mut items = Vec::new();
    for path in paths {
        let read = |source| ItemsError::Read {
            path: path.display().to_string(),
            source,
        };
        let absolute = std::path::absolute(path).map_err(read)?;
        let length = std::fs::metadata(path).map_err(read)?.len();
        let utf8 = absolute
            .to_str()
            .ok_or_else(|| read(io::Error::other("its path is not UTF-8")))?;
        items.extend(pieces(length, split).map(|part| Item::File {
            path: utf8.into(),
            part,
        }));
    }
    Ok(items)
}

/// The objects under a prefix, or pieces of them.
async fn objects(
    what: &str,
    split: Option<u64>,
    aws: &AwsSettings,
) -> Result<Vec<Item>, ItemsError> {
    // As in S3, a prefix need not end with a name.
    let rest = what.trim_start_matches("s3://");
    let (store, prefix) = match rest.rsplit_once('/') {
        Some((folder, prefix)) => (format!("s3://{folder}"), prefix),
        None => (what.to_string(), ""),
    };
    let store = Store::open(&store, aws).await?;
    let entries = store.list(prefix).await?;
    if entries.is_empty() {
        return Err(ItemsError::Nothing(format!(
            "--items {what}: there are no objects whose names begin so"
        )));
    }
    let items = entries.into_iter().flat_map(|entry| {
        let store = store.url().to_string();
        pieces(entry.bytes, split)
            .map(move |part| Item::Object {
                store: store.clone(),
                key: entry.key.clone(),
                length: entry.bytes,
                part,
            })
            .collect::<Vec<_>>()
    });
    Ok(items.collect())
}

/// The ranges that cut so many bytes, or none if they are not cut.
fn pieces(length: u64, split: Option<u64>) -> impl Iterator<Item = Option<Extent>> {
    let split = split
        .filter(|split| length > *split)
        .unwrap_or(u64::MAX)
        .max(1);
    let whole = split == u64::MAX;
    let count = if whole { 1 } else { length.div_ceil(split) };
    (0..count).map(move |number| {
        (!whole).then(|| Extent {
            from: number * split,
            to: ((number + 1) * split).min(length),
            lines: true,
        })
    })
}

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
            Item::File { path, part } => Input::File(path.into(), *part),
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

/// An item that is about to be read.
#[derive(Clone)]
pub enum Input {
    /// A line.
    Text(Vec<u8>),
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
            Input::Text(_) => None,
            Input::File(_, part) | Input::Object { part, .. } => *part,
        };
        Reading {
            input: self,
            file: None,
            at: part.map_or(0, Cut::first),
            cut: part.map(Cut::new),
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
    file: Option<File>,
    at: u64,
    cut: Option<Cut>,
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
    use super::*;

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

    #[test]
    fn lines_of_a_text_are_items() {
        let text: &[u8] = b"one\r\ntwo\n\nlast";
        let items = TextLines::new(text, "text".into());
        let items: Vec<Item> = items.map(Result::unwrap).collect();
        let expected = ["one", "two", "", "last"].map(|text| Item::Text(text.into()));
        assert_eq!(items, expected);
        for item in items {
            assert_eq!(Item::from_bytes(&item.to_bytes()), Ok(item));
        }
    }
}
