//! Items that are lines of a text, and items that are given several at a time.

use super::find::ItemsError;
use super::pipe::Pipe;
use super::raw::modified_ns;
use super::read::{packing_of, unpack_error};
use super::{BATCH_BYTES, Item, TEXT_MAX};
use crate::unpack::{Packing, Unpacker};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

/// Items as they are read.
pub type EachItem = Box<dyn Iterator<Item = Result<Item, ItemsError>> + Send>;

/// Bytes of a text that are read at once.
const READ_LEN: usize = 64 << 10;

/// Where lines are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A file.
    File(PathBuf),
    /// What can be read once.
    Pipe(Pipe),
}

impl Text {
    /// Its lines as items. It is opened with the first: a pipe may make its reader wait for a writer.
    pub fn lines(self) -> EachItem {
        Box::new(TextLines {
            text: self,
            line: 0,
            reader: None,
            over: false,
        })
    }

    fn name(&self) -> String {
        match self {
            Text::File(path) => path.display().to_string(),
            Text::Pipe(pipe) => pipe.name(),
        }
    }
}

type Unpacked = BufReader<Unpacker<Box<dyn Read + Send>>>;

/// The lines of a text.
struct TextLines {
    text: Text,
    line: u64,
    reader: Option<(Unpacked, Option<WatchedFile>)>,
    over: bool,
}

/// A file, and what it was when it was opened.
struct WatchedFile {
    file: File,
    opened: (u64, Option<u64>),
}

impl WatchedFile {
    fn state(file: &File) -> io::Result<(u64, Option<u64>)> {
        let metadata = file.metadata()?;
        Ok((metadata.len(), modified_ns(&metadata)))
    }

    /// False if it was written to since. A file of /proc has no length, and a new time whenever it is looked at.
    fn is_same(&self) -> io::Result<bool> {
        Ok(self.opened.0 == 0 || WatchedFile::state(&self.file)? == self.opened)
    }
}

impl TextLines {
    fn open(&self) -> Result<(Unpacked, Option<WatchedFile>), ItemsError> {
        let failed = |source| ItemsError::Read {
            path: self.text.name(),
            source,
        };
        let (reader, watched): (Box<dyn Read + Send>, _) = match &self.text {
            Text::Pipe(pipe) => (pipe.open().map_err(failed)?, None),
            Text::File(path) => {
                let file = File::open(path).map_err(failed)?;
                let watched = WatchedFile {
                    opened: WatchedFile::state(&file).map_err(failed)?,
                    file: file.try_clone().map_err(failed)?,
                };
                (Box::new(file), Some(watched))
            }
        };
        let name = self.text.name();
        let unpacker = Unpacker::new(reader)
            .map_err(|error| ItemsError::Text(unpack_error(&name, Packing::Plain, &error)))?;
        packing_of(unpacker.head(), &name).map_err(ItemsError::Text)?;
        Ok((BufReader::with_capacity(READ_LEN, unpacker), watched))
    }

    fn read(&mut self) -> Result<Option<Item>, ItemsError> {
        if self.reader.is_none() {
            self.reader = Some(self.open()?);
        }
        let (reader, watched) = self.reader.as_mut().expect("it was just opened");
        self.line += 1;
        let mut text = Vec::new();
        let mut limited = reader.by_ref().take(TEXT_MAX as u64 + 2);
        let read = limited.read_until(b'\n', &mut text);
        let packing = reader.get_ref().packing();
        read.map_err(|error| match packing {
            Packing::Plain => ItemsError::Read {
                path: self.text.name(),
                source: error,
            },
            packing => ItemsError::Text(unpack_error(&self.text.name(), packing, &error)),
        })?;
        if text.is_empty() {
            let is_same = watched.as_ref().map_or(Ok(true), WatchedFile::is_same);
            let path = self.text.name();
            return match is_same {
                Ok(true) => Ok(None),
                Ok(false) => Err(ItemsError::Text(format!(
                    "{path} was changed while it was read; run the job again when no other program writes there"
                ))),
                Err(source) => Err(ItemsError::Read { path, source }),
            };
        }
        if text.last() == Some(&b'\n') {
            text.pop();
            if text.last() == Some(&b'\r') {
                text.pop();
            }
        }
        if text.len() > TEXT_MAX {
            return Err(ItemsError::LongLine {
                path: self.text.name(),
                line: self.line,
            });
        }
        Ok(Some(Item::Text(text)))
    }
}

impl Iterator for TextLines {
    type Item = Result<Item, ItemsError>;

    fn next(&mut self) -> Option<Result<Item, ItemsError>> {
        if self.over {
            return None;
        }
        let item = self.read().transpose();
        self.over = !matches!(item, Some(Ok(_)));
        item
    }
}

/// So many items at a time.
pub(super) struct Batches {
    pub(super) each: EachItem,
    pub(super) length: u64,
    pub(super) first: u64,
}

impl Iterator for Batches {
    type Item = Result<Item, ItemsError>;

    fn next(&mut self) -> Option<Result<Item, ItemsError>> {
        let first = self.first;
        let mut items = Vec::new();
        let mut bytes = 0;
        while (items.len() as u64) < self.length
            && bytes < BATCH_BYTES
            && let Some(item) = self.each.next()
        {
            match item {
                Ok(item) => {
                    bytes += match &item {
                        Item::Text(text) => text.len() + 8,
                        Item::File { path, .. } => path.len() + 64,
                        Item::Object { store, key, .. } => store.len() + key.len() + 128,
                        Item::Sealed { store, object, .. } => store.len() + object.key.len() + 48,
                        Item::Range { .. } | Item::Listed { .. } | Item::Batch { .. } => 0,
                    };
                    items.push(item);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.first += items.len() as u64;
        (!items.is_empty()).then_some(Ok(Item::Batch { first, items }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(bytes: &[u8]) -> Result<Vec<Item>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, bytes).unwrap();
        let items: Result<Vec<Item>, ItemsError> = Text::File(path).lines().collect();
        items.map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_a_text_are_items_also_when_it_is_packed() {
        let text = b"one\r\ntwo\n\nlast";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let expected = ["one", "two", "", "last"].map(|text| Item::Text(text.into()));
        for bytes in [&text[..], &gzip, &zstd] {
            let items = lines_of(bytes).unwrap();
            assert_eq!(items, expected);
            for item in items {
                assert_eq!(Item::from_bytes(&item.to_bytes().unwrap()), Ok(item));
            }
        }
        let cut = lines_of(&gzip[..gzip.len() - 4]).unwrap_err();
        assert!(cut.contains("end early"), "{cut}");
        let zip = lines_of(b"PK\x03\x04rest").unwrap_err();
        assert!(zip.contains("is packed with zip"), "{zip}");
    }

    #[test]
    fn the_limit_of_a_line_is_exact_and_names_the_line() {
        let line = vec![b'x'; TEXT_MAX];
        for end in [&b""[..], b"\n", b"\r\n"] {
            let items = lines_of(&[b"a\n", &line[..], end].concat()).unwrap();
            assert_eq!(items[1], Item::Text(line.clone()), "{end:?}");
            let what = lines_of(&[b"a\n", &line[..], b"y", end].concat()).unwrap_err();
            assert!(what.starts_with("line 2 of "), "{what}");
            assert!(what.contains("more than 4194304 bytes"), "{what}");
        }
    }
}
