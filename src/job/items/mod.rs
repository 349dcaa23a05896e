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
    /// Which of its bytes it is, or all of them; of a line, none.
    pub fn extent(&self) -> Option<Extent> {
        match self {
            Item::Text(_) => None,
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
