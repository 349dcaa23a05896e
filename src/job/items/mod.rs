//! What jobs are given to work on: lines, numbers, files and objects, whole or in part. This module is what travels of them.
//!
//! [`find`] turns what a user wrote into items: [`folder`] and [`prefix`] list places, [`select`] decides which of the files
//! there are data, [`cut`] divides them, [`lines`] reads items that are lines, [`pipe`] is input that can be read once.
//! [`read`] is how a worker reads an item, on top of the bytes as they lie ([`raw`]).

pub mod cut;
pub mod find;
pub mod folder;
pub mod lines;
pub mod pipe;
pub mod prefix;
pub mod raw;
pub mod read;
pub mod select;

use crate::net::codec;
use crate::store::sealed::SealedKey;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest item that is given as a line, in bytes without its end. The driver holds thousands of items at a time.
pub const TEXT_MAX: usize = 4 << 20;

/// Bytes of lines after which a batch has no more of them, however few they are.
const BATCH_BYTES: usize = 1 << 20;

/// The most bytes that travel of an item.
const ITEM_MAX: usize = TEXT_MAX + BATCH_BYTES + (64 << 10);

/// The most bytes of a list of items.
const LIST_MAX: usize = 64 << 20;

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A line, without its end, or a number.
    Text(Vec<u8>),
    /// A file that the workers see too, or some lines of it.
    File {
        /// Absolute.
        path: String,
        /// Its length in bytes.
        length: u64,
        /// When it was changed last, in nanoseconds since 1970, where the file system says so.
        modified: Option<u64>,
        /// The CRC32C of the whole file, where a result names it.
        crc32c: Option<u32>,
        /// Which of its bytes; all if none are named.
        part: Option<Extent>,
    },
    /// An object in a store, or some lines of it.
    Object {
        /// The store.
        store: String,
        /// The object's key there. Of a user's input it may be one that no store writes.
        key: String,
        /// Its length in bytes.
        length: u64,
        /// The version that was listed, where the store has ETags.
        etag: Option<String>,
        /// The CRC32C of the whole object, where a result names it.
        crc32c: Option<u32>,
        /// Which of its bytes; all if none are named.
        part: Option<Extent>,
    },
    /// What a job wrote into its own store and reads again, or some lines of it.
    Sealed {
        /// The store.
        store: String,
        /// The object's key there, and its seal.
        object: SealedKey,
        /// Which bytes of its payload; all if none are named.
        part: Option<Extent>,
    },
    /// Numbers, one after the other; each is as a line.
    Range {
        /// The first.
        from: u64,
        /// One past the last.
        to: u64,
    },
    /// All that an object in a store lists, one after the other.
    Listed {
        /// The store.
        store: String,
        /// The list there, sealed; [`list_to_bytes`] made it.
        list: SealedKey,
    },
    /// Several that are given together, and are none of them a batch.
    Batch {
        /// Which of all items the first is, counted from 0.
        first: u64,
        /// They.
        items: Vec<Item>,
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
    /// It begins at 0, and is of a text that is unpacked if its first bytes say that it is packed with gzip or zstd. The
    /// range counts the unpacked bytes then.
    pub unpack: bool,
}

impl Extent {
    /// All lines of a text that may be packed.
    pub const ALL_LINES: Extent = Extent {
        from: 0,
        to: u64::MAX,
        lines: true,
        unpack: true,
    };
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
            Item::Range { from, to } => return write!(f, "{from}..{to}"),
            Item::Listed { store, list } => {
                return write!(f, "all that {store}/{} lists", list.key);
            }
            Item::Sealed {
                store,
                object,
                part,
            } => {
                write!(f, "{store}/{}", object.key)?;
                part
            }
            Item::Batch { first, items } => {
                return write!(f, "items {first}..{}", first + items.len() as u64);
            }
            Item::File { path, part, .. } => {
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
            Some(part) if *part != Extent::ALL_LINES => write!(f, " ({part})"),
            _ => Ok(()),
        }
    }
}

impl Item {
    /// Of several, which: the numbers of a range, or where a batch is among all items.
    pub fn range(&self) -> Option<(u64, u64)> {
        match self {
            Item::Range { from, to } => Some((*from, *to)),
            Item::Batch { first, items } => Some((*first, first + items.len() as u64)),
            _ => None,
        }
    }

    /// The length in bytes of the file or object that it is, or is of.
    pub fn length(&self) -> Option<u64> {
        match self {
            Item::File { length, .. } | Item::Object { length, .. } => Some(*length),
            Item::Sealed { object, .. } => Some(object.seal.bytes),
            Item::Text(_) | Item::Range { .. } | Item::Listed { .. } | Item::Batch { .. } => None,
        }
    }

    /// The part of a file or object that it is, if it is not all of it.
    pub fn part(&self) -> Option<Extent> {
        match self {
            Item::File { part, .. } | Item::Object { part, .. } | Item::Sealed { part, .. } => {
                *part
            }
            Item::Text(_) | Item::Range { .. } | Item::Listed { .. } | Item::Batch { .. } => None,
        }
    }

    /// The same file or object, and this part of it.
    pub fn with_part(mut self, extent: Option<Extent>) -> Item {
        if let Item::File { part, .. } | Item::Object { part, .. } | Item::Sealed { part, .. } =
            &mut self
        {
            *part = extent;
        }
        self
    }

    /// The bytes of a line that is not UTF-8, which its name for people does not show.
    pub fn binary(&self) -> Option<&[u8]> {
        match self {
            Item::Text(text) if std::str::from_utf8(text).is_err() => Some(text),
            _ => None,
        }
    }

    /// What travels.
    ///
    /// # Errors
    /// When a batch is too long; texts are bounded where they are read, and paths by the system.
    pub fn to_bytes(&self) -> Result<Bytes, String> {
        codec::encode::<ITEM_MAX>(self)
            .map(Bytes::from)
            .map_err(|error| format!("{self} cannot travel together: {error}"))
    }

    /// Reads what travelled.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Item, String> {
        codec::decode::<Item, ITEM_MAX>(bytes)
            .map_err(|error| format!("an item does not decode: {error}"))
    }
}

/// Items as they travel to workers that share them.
///
/// # Errors
/// When they are too many.
pub fn list_to_bytes(items: &[Item]) -> Result<Bytes, String> {
    codec::encode::<LIST_MAX>(&items)
        .map(Bytes::from)
        .map_err(|error| format!("there are too many inputs: {error}"))
}

/// Reads what travelled.
///
/// # Errors
/// When the bytes are none.
pub fn list_from_bytes(bytes: &[u8]) -> Result<Vec<Item>, String> {
    codec::decode::<Vec<Item>, LIST_MAX>(bytes)
        .map_err(|error| format!("the list of inputs does not decode: {error}"))
}
