//! What comes back.

use super::blob::Blob;
use super::request::ENCODED_MAX;
use super::{ErrorKind, StateError};
use crate::net::codec;
use serde::{Deserialize, Serialize};

/// The answer to one request. Its number on the wire is its place here, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The counter's value, after the addition if it was one.
    Value(i64),
    /// The counter is not what was expected, but this; it stays so.
    CompareFailed(i64),
    /// An item, which is nobody else's.
    Item(Blob),
    /// The queue had no item, and the wait has passed.
    Empty,
    /// The queue has no item and is closed, or was deleted during the wait: none will come.
    Closed,
    /// Items in the queue, after the push if it was one, or elements of the vector.
    Length(u64),
    /// The vector's version after the request.
    Version(u64),
    /// A range of a vector.
    Vector {
        /// The vector's version; ranges of the same version belong together.
        version: u64,
        /// The elements, little-endian.
        values: Blob,
    },
    /// The vector has no newer version.
    Unchanged,
    /// The request is refused and has changed nothing: which kind of refusal, and what was wrong and what to do, for
    /// people.
    Error(ErrorKind, String),
}

impl Reply {
    /// The body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode::<ENCODED_MAX>(self).expect("items, ranges and names are bounded")
    }

    /// Reads a reply from the body of a frame.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn decode(body: &[u8]) -> Result<Reply, bincode::error::DecodeError> {
        codec::decode::<Reply, ENCODED_MAX>(body)
    }
}

impl From<StateError> for Reply {
    fn from(error: StateError) -> Reply {
        Reply::Error(error.kind(), error.to_string())
    }
}
