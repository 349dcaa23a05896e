//! Why a request is refused: in detail for people, and by kind for programs.

use super::budget::NAMES_MAX;
use super::queue::{ITEM_MAX, ITEMS_MAX, WAIT_MAX_MS};
use super::request::{ENCODED_MAX, NAME_MAX, VALUES_MAX};
use super::vector::Element;
use super::waiters::WAITERS_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a program may want to do differently. On the wire its number, in this order from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The bytes are no request, or its parts do not fit each other.
    Malformed,
    /// The request is over a fixed bound and will always be.
    TooLarge,
    /// The job's state is full; the same request may work once something was taken out.
    Full,
    /// A sum would be over an i64.
    Overflow,
    /// There is no such vector.
    Missing,
    /// The queue is closed.
    Closed,
    /// The vector has another element type or length.
    Mismatch,
    /// The range or an index is not inside the vector.
    Range,
}

/// Why a request is refused. Nothing has changed then.
#[derive(Debug, Error)]
pub enum StateError {
    /// The bytes are no request.
    #[error("a request to the job's state does not decode: {0}")]
    Decode(#[source] bincode::error::DecodeError),
    /// The request does not fit into a frame.
    #[error(
        "a request to the job's state must fit into {ENCODED_MAX} bytes: {0}; send fewer items, or shorter ranges"
    )]
    Encode(#[source] bincode::error::EncodeError),
    /// The values are not whole elements.
    #[error("{bytes} bytes of values are not a whole number of {element} elements")]
    Ragged {
        /// Bytes of values.
        bytes: usize,
        /// Their type.
        element: Element,
    },
    /// A sparse addition has not one value for each index.
    #[error(
        "a sparse addition has {indices} bytes of indices (4 each) and {values} bytes of {element} values; give one value for each index"
    )]
    Unpaired {
        /// Bytes of indices.
        indices: usize,
        /// Bytes of values.
        values: usize,
        /// Their type.
        element: Element,
    },
    /// A name is too long.
    #[error("a name of {0} bytes is {over} over the limit of {NAME_MAX}; shorten it", over = .0 - NAME_MAX)]
    NameLong(usize),
    /// An item is too long.
    #[error(
        "item {index} of a push has {length} bytes, {over} over the limit of {ITEM_MAX}; keep it in the store and push its name",
        over = length - ITEM_MAX
    )]
    ItemLong {
        /// Its place in the push.
        index: usize,
        /// Its bytes.
        length: usize,
    },
    /// A push has too many items.
    #[error(
        "a push of {0} items is {over} over the limit of {ITEMS_MAX}; push them in several requests",
        over = .0 - ITEMS_MAX
    )]
    ItemsMany(usize),
    /// A wait is too long.
    #[error(
        "a wait of {0} ms is {over} ms over the limit of {WAIT_MAX_MS}; wait less, and pop again when the reply is empty",
        over = .0 - WAIT_MAX_MS
    )]
    WaitLong(u32),
    /// The values of one request or reply are too many.
    #[error(
        "a range or sparse addition of {0} bytes is {over} over the limit of {VALUES_MAX}; cut it into several requests",
        over = .0 - VALUES_MAX
    )]
    ValuesLong(usize),
    /// There are too many names.
    #[error(
        "the job's state has {NAMES_MAX} names, which is the most, and this is one more; delete counters, queues or vectors that are done with"
    )]
    NamesFull,
    /// There is no room.
    #[error(
        "the job's state holds {held} of {max} bytes, and {more} more are {over} too many; pop or delete something first, send less, or raise the limit"
    )]
    BytesFull {
        /// Bytes that are held.
        held: usize,
        /// Bytes that may be held.
        max: usize,
        /// Bytes that the request would add, with the cost of names and items.
        more: usize,
        /// By how many that is too much.
        over: usize,
    },
    /// Too many pops wait.
    #[error(
        "{WAITERS_MAX} pops of the job wait, which is the most, and this is one more; pop without waiting, or let fewer ranks wait"
    )]
    WaitersFull,
    /// A counter would be over an i64.
    #[error(
        "counter {name:?} is {value}, and {by} more does not fit into 64 bits; set it back first"
    )]
    CounterOverflow {
        /// The counter.
        name: String,
        /// What it is.
        value: i64,
        /// What was to be added.
        by: i64,
    },
    /// An element would be over an i64.
    #[error(
        "the sum at index {index} of vector {name:?} does not fit into 64 bits; scale the values down, or use f64"
    )]
    VectorOverflow {
        /// The vector.
        name: String,
        /// The element's place.
        index: usize,
    },
    /// There is no such vector.
    #[error("there is no vector {0:?}; create it, or say with which length to create it")]
    VectorMissing(String),
    /// The queue takes no more.
    #[error("queue {0:?} is closed; push before closing it, or delete it to begin anew")]
    QueueClosed(String),
    /// The vector's elements are of another type.
    #[error(
        "vector {name:?} has elements of {found}, and the request is for {asked}; use one type for a name"
    )]
    ElementOther {
        /// The vector.
        name: String,
        /// Its type.
        found: Element,
        /// The request's.
        asked: Element,
    },
    /// The vector has another length.
    #[error(
        "vector {name:?} has {found} elements, and the request creates it with {asked}; delete it first to change its length"
    )]
    LengthOther {
        /// The vector.
        name: String,
        /// Its length.
        found: u32,
        /// The request's.
        asked: u32,
    },
    /// The range ends outside.
    #[error("elements {first} to {end} are not all inside vector {name:?}, which has {length}")]
    RangeOutside {
        /// The vector.
        name: String,
        /// The first element.
        first: u32,
        /// One past the last element.
        end: u64,
        /// The vector's length.
        length: u32,
    },
    /// An index is outside.
    #[error("index {index} is not inside vector {name:?}, which has {length} elements")]
    IndexOutside {
        /// The vector.
        name: String,
        /// The index.
        index: u32,
        /// The vector's length.
        length: u32,
    },
}

impl StateError {
    /// What sort of refusal it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StateError::Decode(_) | StateError::Ragged { .. } | StateError::Unpaired { .. } => {
                ErrorKind::Malformed
            }
            StateError::Encode(_)
            | StateError::NameLong(_)
            | StateError::ItemLong { .. }
            | StateError::ItemsMany(_)
            | StateError::WaitLong(_)
            | StateError::ValuesLong(_) => ErrorKind::TooLarge,
            StateError::NamesFull | StateError::BytesFull { .. } | StateError::WaitersFull => {
                ErrorKind::Full
            }
            StateError::CounterOverflow { .. } | StateError::VectorOverflow { .. } => {
                ErrorKind::Overflow
            }
            StateError::VectorMissing(_) => ErrorKind::Missing,
            StateError::QueueClosed(_) => ErrorKind::Closed,
            StateError::ElementOther { .. } | StateError::LengthOther { .. } => ErrorKind::Mismatch,
            StateError::RangeOutside { .. } | StateError::IndexOutside { .. } => ErrorKind::Range,
        }
    }
}
