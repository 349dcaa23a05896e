//! What jobs are given to work on: lines, numbers, files and objects, whole or in part. [`find`] is where they come from, [`read`] how a
//! worker reads one; here is what travels of them.

pub mod find;
pub mod read;

use crate::net::codec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest item that is given as a line, in bytes.
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
        /// The object's key there; [`list_to_bytes`] made it.
        key: String,
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
            Item::Listed { store, key } => return write!(f, "all that {store}/{key} lists"),
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
            Some(part) => write!(f, " ({part})"),
            None => Ok(()),
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

    /// Which of its bytes it is, or all of them; of what is neither a file nor an object, none.
    pub fn extent(&self) -> Option<Extent> {
        match self {
            Item::Text(_) | Item::Range { .. } | Item::Listed { .. } | Item::Batch { .. } => None,
            Item::File { length, part, .. } | Item::Object { length, part, .. } => {
                Some(part.unwrap_or(Extent {
                    from: 0,
                    to: *length,
                    lines: false,
                }))
            }
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
