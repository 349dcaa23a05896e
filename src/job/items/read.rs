//! How a worker reads an item.

use super::pipe::Pipe;
use super::raw::{Place, RawError, RawReader, SharedReader, Source};
use super::{Extent, Item, list_from_bytes};
use crate::job::context::{BlockingStore, Context};
use crate::job::program::ProgramError;
use crate::unpack::{Packing, Unpacker, foreign_packing, is_damage};
use std::io::{self, Chain, Cursor, Read, Write};
use std::ops::Range;
use std::path::Path;
use tracing::warn;

/// Bytes of numbers that are read at once, about.
const RANGE_READ_LEN: usize = 64 << 10;

/// Bytes of an unpacked text that are read at once.
const UNPACKED_READ_LEN: u64 = 512 << 10;

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
            Item::Listed { store, list } => {
                let list = self.store(context, store)?.get_sealed(list)?;
                let items = list_from_bytes(&list).map_err(ProgramError::new)?;
                self.open_all(context, &items)?
            }
            Item::File { .. } => Input::of_file(item).expect("it is a file"),
            Item::Sealed {
                store,
                object,
                part,
            } => Input::Bytes(Source {
                place: Place::Sealed {
                    store: self.store(context, store)?.clone(),
                    object: object.clone(),
                },
                length: object.seal.bytes,
                crc32c: None,
                part: *part,
            }),
            Item::Object {
                store,
                key,
                length,
                etag,
                crc32c,
                part,
            } => Input::Bytes(Source {
                place: Place::Object {
                    store: self.store(context, store)?.clone(),
                    key: key.clone(),
                    etag: etag.clone(),
                },
                length: *length,
                crc32c: *crc32c,
                part: *part,
            }),
        })
    }

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
    /// A file or an object, or a part of it.
    Bytes(Source),
    /// What can be read once, in this process; unpacked, if that is wanted and it is packed.
    Pipe(Pipe, Unpack),
}

/// Whether what is packed is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpack {
    /// It is.
    Yes,
    /// Its bytes are given as they come.
    No,
}

impl Input {
    /// A file, for which no store is needed.
    pub fn of_file(item: &Item) -> Option<Input> {
        let Item::File {
            path,
            length,
            modified,
            crc32c,
            part,
        } = item
        else {
            return None;
        };
        Some(Input::Bytes(Source {
            place: Place::File {
                path: path.into(),
                modified: *modified,
            },
            length: *length,
            crc32c: *crc32c,
            part: *part,
        }))
    }

    /// The path of a whole file, once it is known to be the one that was listed.
    ///
    /// # Errors
    /// When it is another one by now, in words.
    pub fn path(&self) -> Result<Option<&Path>, String> {
        match self {
            Input::Bytes(source) if source.part.is_none() && source.path().is_some() => {
                source.check()?;
                Ok(source.path())
            }
            _ => Ok(None),
        }
    }

    /// Its name in messages.
    pub fn name(&self) -> String {
        match self {
            Input::Bytes(source) => source.name(),
            Input::Pipe(pipe, _) => pipe.name(),
            _ => "an item".into(),
        }
    }

    /// Its name in messages, and the number of the line, counted from 1, that has byte `at` of the (unpacked) text. It is
    /// read from its beginning for that.
    pub fn place_of(&self, at: u64) -> String {
        let Input::Bytes(source) = self else {
            return format!("the line at byte {at} of {}", self.name());
        };
        let name = source.name();
        let whole = Source {
            part: Some(Extent::ALL_LINES),
            ..source.clone()
        };
        let mut reading = Input::Bytes(whole).read();
        let (mut line, mut left) = (1, at);
        while left > 0
            && let Ok(Some(bytes)) = reading.more()
        {
            let before = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            line += memchr::memchr_iter(b'\n', before).count();
            left -= before.len() as u64;
        }
        match left {
            0 => format!("line {line} of {name}"),
            _ => format!("the line at byte {at} of {name}"),
        }
    }

    /// Begins to read it.
    pub fn read(self) -> Reading {
        let mut cut = None;
        let stage = match self {
            Input::Text(mut text) => {
                text.push(b'\n');
                Stage::Text(text)
            }
            Input::Range(range) => Stage::Range(range),
            Input::Batch(inputs) => Stage::Batch(inputs.into_iter(), None),
            Input::Pipe(pipe, unpack) => Stage::Pipe(pipe, unpack),
            Input::Bytes(source) => {
                cut = source.part.map(Cut::new);
                let from = source.part.map_or(0, Cut::first);
                // Of a text that is read from its beginning, the first bytes say whether it is packed.
                let is_text = source.part.is_some_and(|part| part.unpack);
                let reader = RawReader::new(source, from);
                match is_text {
                    true => Stage::Unknown(reader),
                    false => Stage::Raw(reader),
                }
            }
        };
        Reading {
            stage,
            position: cut.as_ref().map_or(0, |cut| cut.at),
            cut,
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
    stage: Stage,
    cut: Option<Cut>,
    /// Where in the stream the bytes end that were given last.
    position: u64,
    room: Vec<u8>,
    over: bool,
}

enum Stage {
    Text(Vec<u8>),
    Range(Range<u64>),
    /// The items that are left, and the one that is being read.
    Batch(std::vec::IntoIter<Input>, Option<Box<Reading>>),
    /// What was not opened yet.
    Pipe(Pipe, Unpack),
    Stream(String, Packing, Box<dyn Read + Send>),
    /// A text of which nothing was read yet.
    Unknown(RawReader),
    Raw(RawReader),
    Unpacked(Box<UnpackedText>),
    Over,
}

struct UnpackedText {
    name: String,
    raw: SharedReader,
    unpacker: Unpacker<Chain<Cursor<Vec<u8>>, SharedReader>>,
}

impl Reading {
    /// The next bytes of it, or none at its end, once it is known that all were of what was listed.
    ///
    /// # Errors
    /// When it cannot be read, or was changed.
    pub fn more(&mut self) -> Result<Option<&[u8]>, String> {
        let mut wanted = 0..0;
        while wanted.is_empty() && !self.over {
            self.fill()?;
            let before = self.cut.as_ref().map_or(self.position, |cut| cut.at);
            (wanted, self.over) = match &mut self.cut {
                _ if self.room.is_empty() => (0..0, true),
                None => (0..self.room.len(), false),
                Some(cut) => cut.take(&self.room),
            };
            self.position = before + wanted.end as u64;
        }
        if wanted.is_empty() {
            self.finish()?;
            return Ok(None);
        }
        Ok(Some(&self.room[wanted]))
    }

    /// Where in the file or object, or in its unpacked text, the bytes end that were given last.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn finish(&mut self) -> Result<(), String> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Raw(mut reader) => reader.finish(),
            Stage::Unpacked(text) => {
                let ignored = text.unpacker.ignored_bytes();
                if ignored > 0 {
                    warn!(
                        "{}: {ignored} bytes behind the packed data are ignored",
                        text.name
                    );
                }
                text.raw.finish()
            }
            _ => Ok(()),
        }
    }

    /// Reads what comes next; nothing at the end.
    fn fill(&mut self) -> Result<(), String> {
        self.room.clear();
        let enough = self.cut.as_ref().map_or(u64::MAX, |cut| cut.to);
        match &mut self.stage {
            Stage::Over => Ok(()),
            Stage::Text(text) => {
                self.room = std::mem::take(text);
                self.stage = Stage::Over;
                Ok(())
            }
            Stage::Range(range) => {
                while range.start < range.end && self.room.len() < RANGE_READ_LEN {
                    writeln!(self.room, "{}", range.start).expect("memory takes it");
                    range.start += 1;
                }
                Ok(())
            }
            Stage::Batch(inputs, inner) => loop {
                if inner.is_none() {
                    *inner = inputs.next().map(|input| Box::new(input.read()));
                }
                let Some(reading) = inner else {
                    return Ok(());
                };
                if let Some(bytes) = reading.more()? {
                    self.room.extend_from_slice(bytes);
                    return Ok(());
                }
                *inner = None;
            },
            Stage::Pipe(pipe, unpack) => {
                let name = pipe.name();
                let reader = pipe.open();
                let reader = reader.map_err(|error| format!("cannot read {name}: {error}"))?;
                self.stage = match unpack {
                    Unpack::No => Stage::Stream(name, Packing::Plain, reader),
                    Unpack::Yes => {
                        let unpacker = Unpacker::new(reader);
                        let unpacker = unpacker
                            .map_err(|error| unpack_error(&name, Packing::Plain, &error))?;
                        let packing = packing_of(unpacker.head(), &name)?;
                        Stage::Stream(name, packing, Box::new(unpacker))
                    }
                };
                self.fill()
            }
            Stage::Stream(name, packing, reader) => {
                let read = reader.take(UNPACKED_READ_LEN).read_to_end(&mut self.room);
                read.map_err(|error| unpack_error(name, *packing, &error))?;
                Ok(())
            }
            Stage::Raw(reader) => reader.next(&mut self.room, enough),
            Stage::Unpacked(text) => text.next(&mut self.room),
            Stage::Unknown(reader) => {
                reader.next(&mut self.room, enough)?;
                let name = reader.source().name();
                let packing = packing_of(&self.room, &name)?;
                let Stage::Unknown(reader) = std::mem::replace(&mut self.stage, Stage::Over) else {
                    unreachable!("it was matched above");
                };
                if packing == Packing::Plain {
                    self.stage = Stage::Raw(reader);
                    return Ok(());
                }
                let raw = SharedReader::new(reader);
                let head = Cursor::new(std::mem::take(&mut self.room));
                let unpacker = Unpacker::new(head.chain(raw.clone()));
                let unpacker = unpacker.map_err(|error| unpack_error(&name, packing, &error))?;
                let mut text = Box::new(UnpackedText {
                    name,
                    raw,
                    unpacker,
                });
                let read = text.next(&mut self.room);
                self.stage = Stage::Unpacked(text);
                read
            }
        }
    }
}

impl UnpackedText {
    fn next(&mut self, room: &mut Vec<u8>) -> Result<(), String> {
        let packing = self.unpacker.packing();
        let read = (&mut self.unpacker)
            .take(UNPACKED_READ_LEN)
            .read_to_end(room);
        read.map_err(|error| unpack_error(&self.name, packing, &error))?;
        Ok(())
    }
}

/// What the first bytes of a text say that it is packed with.
///
/// # Errors
/// When that is nothing that is unpacked here, in words.
pub fn packing_of(head: &[u8], name: &str) -> Result<Packing, String> {
    // Three letters alone may be those of a text. Of a stream only a few first bytes are known.
    let is_bzip2 = |head: &[u8]| {
        let rest = head.get(4..10.min(head.len())).unwrap_or_default();
        rest.len() > 1 && b"1AY&SY".starts_with(rest)
    };
    match foreign_packing(head) {
        Some("bzip2") if !is_bzip2(head) => Ok(Packing::Plain),
        Some(form) => Err(format!(
            "{name} is packed with {form}, which is not read; unpack it first, or pack it with gzip or zstd"
        )),
        None => Ok(Packing::of(head)),
    }
}

/// Why a packed text cannot be read, in words.
pub(super) fn unpack_error(name: &str, packing: Packing, error: &io::Error) -> String {
    let packing = packing.name();
    if let Some(raw) = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<RawError>())
    {
        return raw.to_string();
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return format!(
            "the {packing} data of {name} end early; the file is truncated, copy or download it again"
        );
    }
    match is_damage(error) {
        true => format!(
            "the {packing} data of {name} are damaged ({error}); copy or download the file again"
        ),
        false => format!("cannot read {name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cut::pieces;
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
