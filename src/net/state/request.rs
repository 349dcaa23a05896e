//! What may be asked: a kind of thing, its name, and a verb.

use super::queue::{ITEM_MAX, ITEMS_MAX, WAIT_MAX_MS};
use super::{CounterVerb, QueueVerb, StateError, VectorVerb};
use crate::net::codec;
use serde::{Deserialize, Serialize};

/// The largest request or reply, encoded, in bytes: one frame, well below the largest, so that a lying length costs
/// little memory and other traffic waits little for it. Everything else that travels is bounded so that it fits.
pub const ENCODED_MAX: usize = 64 * 1024;

/// The longest name, in bytes: names are for people and are quoted in errors.
pub const NAME_MAX: usize = 256;

/// What of [`ENCODED_MAX`] is left to names and fixed fields, in bytes: a [`NAME_MAX`], and a few integers.
const FIXED_MAX: usize = 512;

/// The most bytes of elements in one request or reply, with the indices of a sparse addition. Longer vectors are cut
/// into ranges by the client.
pub const VALUES_MAX: usize = ENCODED_MAX - FIXED_MAX;

/// A request. Counters, queues and vectors do not share names: each kind has its own.
///
/// Items and values are taken as they are. [`Request::decode`] gives them memory of their own, which is what
/// [`super::State::bytes`] counts; a slice of something larger would keep the whole of it alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// To a counter.
    Counter {
        /// Which.
        name: String,
        /// What to do.
        verb: CounterVerb,
    },
    /// To a queue.
    Queue {
        /// Which.
        name: String,
        /// What to do.
        verb: QueueVerb,
    },
    /// To a vector.
    Vector {
        /// Which.
        name: String,
        /// What to do.
        verb: VectorVerb,
    },
}

impl Request {
    /// The body of a frame.
    ///
    /// # Errors
    /// When something is over its bound, or all of it over a frame.
    pub fn encode(&self) -> Result<Vec<u8>, StateError> {
        self.check()?;
        codec::encode::<ENCODED_MAX>(self).map_err(StateError::Encode)
    }

    /// Reads a request from the body of a frame. No more is allocated than the body's limit allows, whatever lengths it
    /// names.
    ///
    /// # Errors
    /// When the bytes are not one. The shell answers with it: it is a [`super::Reply`] like any other refusal.
    pub fn decode(body: &[u8]) -> Result<Request, StateError> {
        codec::decode::<Request, ENCODED_MAX>(body).map_err(StateError::Decode)
    }

    /// Is each part within its bound? A client is told before it sends, and the switch asks again.
    pub(super) fn check(&self) -> Result<(), StateError> {
        let (Request::Counter { name, .. }
        | Request::Queue { name, .. }
        | Request::Vector { name, .. }) = self;
        if name.len() > NAME_MAX {
            return Err(StateError::NameLong(name.len()));
        }
        match self {
            Request::Counter { .. } => Ok(()),
            Request::Queue { verb, .. } => check_queue(verb),
            Request::Vector { verb, .. } => check_vector(verb),
        }
    }
}

fn check_queue(verb: &QueueVerb) -> Result<(), StateError> {
    match verb {
        QueueVerb::Push { items } => {
            if items.len() > ITEMS_MAX {
                return Err(StateError::ItemsMany(items.len()));
            }
            match items.iter().position(|item| item.len() > ITEM_MAX) {
                Some(index) => Err(StateError::ItemLong {
                    index,
                    length: items[index].len(),
                }),
                None => Ok(()),
            }
        }
        QueueVerb::Pop { wait_ms } if *wait_ms > WAIT_MAX_MS => Err(StateError::WaitLong(*wait_ms)),
        QueueVerb::Pop { .. } | QueueVerb::Length | QueueVerb::Close | QueueVerb::Delete => Ok(()),
    }
}

fn check_vector(verb: &VectorVerb) -> Result<(), StateError> {
    let bytes = match verb {
        VectorVerb::Set { values, .. } | VectorVerb::Add { values, .. } => values.len(),
        VectorVerb::AddSparse {
            indices, values, ..
        } => indices.len() + values.len(),
        VectorVerb::Pull { element, count, .. } => element.bytes_of(*count),
        VectorVerb::Create { .. } | VectorVerb::Length | VectorVerb::Delete => 0,
    };
    if bytes > VALUES_MAX {
        return Err(StateError::ValuesLong(bytes));
    }
    Ok(())
}
