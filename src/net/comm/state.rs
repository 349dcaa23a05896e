//! Counters, queues and vectors that the ranks of a job share in the switch ([`crate::net::state`]).
//!
//! Each call is one round trip, but for vectors that are longer than a frame. With several switches each name lies at one
//! of them, by a hash.

use super::{Comm, CommError};
use crate::net::element::Value;
use crate::net::frame::{Cut, Header, SWITCH, kind};
use crate::net::shared::switch_of;
use crate::net::state::{
    CounterVerb, Element, ErrorKind, QueueVerb, Reply, Request, VALUES_MAX, VectorVerb,
};
use bytes::Bytes;
use std::time::Duration;
use thiserror::Error;

/// Why a request of the shared state failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// The wire failed.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// The switch refused the request, which has changed nothing.
    #[error("{reason}")]
    Refused {
        /// Which kind of refusal.
        kind: ErrorKind,
        /// What was wrong and what to do.
        reason: String,
    },
}

/// A counter; see [`Comm::counter`].
pub struct Counter<'a> {
    comm: &'a mut Comm,
    name: String,
}

/// A queue; see [`Comm::queue`].
pub struct Queue<'a> {
    comm: &'a mut Comm,
    name: String,
}

/// A vector; see [`Comm::vector`].
pub struct Vector<'a> {
    comm: &'a mut Comm,
    name: String,
}

/// What a queue gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Popped {
    /// An item, which is nobody else's.
    Item(Bytes),
    /// Nothing came in time.
    Empty,
    /// It is empty and closed: nothing will come.
    Closed,
}

/// What a shared vector may consist of.
pub trait Number: Value {
    /// Its type on the wire.
    const SHARED: Element;
}

impl Number for f32 {
    const SHARED: Element = Element::F32;
}

impl Number for f64 {
    const SHARED: Element = Element::F64;
}

impl Number for i64 {
    const SHARED: Element = Element::I64;
}

impl Comm {
    /// The counter of this name. One that nobody has set is 0.
    pub fn counter(&mut self, name: &str) -> Counter<'_> {
        Counter {
            comm: self,
            name: name.into(),
        }
    }

    /// The queue of this name. One that nobody has used is open and empty.
    pub fn queue(&mut self, name: &str) -> Queue<'_> {
        Queue {
            comm: self,
            name: name.into(),
        }
    }

    /// The vector of this name.
    pub fn vector(&mut self, name: &str) -> Vector<'_> {
        Vector {
            comm: self,
            name: name.into(),
        }
    }

    /// One request, and its reply.
    fn ask(&mut self, name: &str, request: Request) -> Result<Reply, StateError> {
        let refused = |kind, reason| StateError::Refused { kind, reason };
        let body = request
            .encode()
            .map_err(|error| refused(error.kind(), error.to_string()))?;
        let shared = &*self.shared;
        let wire = &shared.wires[switch_of(name, shared.wires.len())];
        self.requests += 1;
        let number = self.requests;
        let header = Header {
            kind: kind::STATE,
            epoch: shared.epoch,
            source: self.rank,
            destination: SWITCH,
            sequence: number,
            ..Header::default()
        };
        let what = || format!("the switch to answer a request for {name:?}");
        shared.send_cut(wire, &Cut::new(header, &[], &body), None, self.rank, &what)?;
        let mailbox = &shared.mailboxes[self.place()];
        let body = shared.wait(
            (&mailbox.state, &mailbox.changed),
            self.rank,
            &what,
            &mut |state, _| state.take_reply(number),
        )?;
        match Reply::decode(&body) {
            Ok(Reply::Error(kind, reason)) => Err(refused(kind, reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(strange(&error.to_string())),
        }
    }
}

fn strange(what: &str) -> StateError {
    StateError::Refused {
        kind: ErrorKind::Malformed,
        reason: format!("the switch gave a reply that does not fit: {what}"),
    }
}

impl Counter<'_> {
    /// Adds, and gives the value after it. With several that add, each sees another.
    ///
    /// # Errors
    /// When the sum does not fit, the switch is full, or the wire fails.
    pub fn add(&mut self, by: i64) -> Result<i64, StateError> {
        self.value(CounterVerb::Add { by })
    }

    /// The value.
    ///
    /// # Errors
    /// When the wire fails.
    pub fn get(&mut self) -> Result<i64, StateError> {
        self.value(CounterVerb::Get)
    }

    /// Sets it to `new` if it is `expected`; otherwise gives what it is as an error of the inner kind.
    ///
    /// # Errors
    /// When the switch is full, or the wire fails.
    pub fn compare_and_set(
        &mut self,
        expected: i64,
        new: i64,
    ) -> Result<Result<(), i64>, StateError> {
        match self.ask(CounterVerb::CompareAndSet { expected, new })? {
            Reply::Done => Ok(Ok(())),
            Reply::CompareFailed(actual) => Ok(Err(actual)),
            other => Err(strange(&format!("{other:?}"))),
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// When the switch is full, or the wire fails.
    pub fn set(&mut self, value: i64) -> Result<(), StateError> {
        self.ask(CounterVerb::Set { value }).map(drop)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When the wire fails.
    pub fn delete(&mut self) -> Result<(), StateError> {
        self.ask(CounterVerb::Delete).map(drop)
    }

    fn value(&mut self, verb: CounterVerb) -> Result<i64, StateError> {
        match self.ask(verb)? {
            Reply::Value(value) => Ok(value),
            other => Err(strange(&format!("{other:?}"))),
        }
    }

    fn ask(&mut self, verb: CounterVerb) -> Result<Reply, StateError> {
        let name = self.name.clone();
        self.comm.ask(&self.name, Request::Counter { name, verb })
    }
}

impl Queue<'_> {
    /// Appends items, all or none; gives how many are in the queue then.
    ///
    /// # Errors
    /// When they are too many or too long, the queue is closed, the switch is full, or the wire fails.
    pub fn push(&mut self, items: impl IntoIterator<Item = Bytes>) -> Result<u64, StateError> {
        let items = items.into_iter().map(Into::into).collect();
        match self.ask(QueueVerb::Push { items })? {
            Reply::Length(length) => Ok(length),
            other => Err(strange(&format!("{other:?}"))),
        }
    }

    /// Takes the oldest item, or waits for one. Who waits longest is served first.
    ///
    /// # Errors
    /// When the wire fails, or the rank's deadline passes first.
    pub fn pop(&mut self, wait: Duration) -> Result<Popped, StateError> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        match self.ask(QueueVerb::Pop { wait_ms })? {
            Reply::Item(item) => Ok(Popped::Item(item.0)),
            Reply::Empty => Ok(Popped::Empty),
            Reply::Closed => Ok(Popped::Closed),
            other => Err(strange(&format!("{other:?}"))),
        }
    }

    /// How many items wait in it.
    ///
    /// # Errors
    /// When the wire fails.
    pub fn length(&mut self) -> Result<u64, StateError> {
        match self.ask(QueueVerb::Length)? {
            Reply::Length(length) => Ok(length),
            other => Err(strange(&format!("{other:?}"))),
        }
    }

    /// Takes no more items: who pops gets what is left, and then [`Popped::Closed`].
    ///
    /// # Errors
    /// When the switch is full, or the wire fails.
    pub fn close(&mut self) -> Result<(), StateError> {
        self.ask(QueueVerb::Close).map(drop)
    }

    /// Drops it with its items; who waits gets [`Popped::Closed`].
    ///
    /// # Errors
    /// When the wire fails.
    pub fn delete(&mut self) -> Result<(), StateError> {
        self.ask(QueueVerb::Delete).map(drop)
    }

    fn ask(&mut self, verb: QueueVerb) -> Result<Reply, StateError> {
        let name = self.name.clone();
        self.comm.ask(&self.name, Request::Queue { name, verb })
    }
}

impl Vector<'_> {
    /// Creates it, all zero; nothing happens if it is there with this type and length. Gives its version.
    ///
    /// # Errors
    /// When it is there with another type or length, the switch is full, or the wire fails.
    pub fn create<T: Number>(&mut self, length: u32) -> Result<u64, StateError> {
        let element = T::SHARED;
        self.version(VectorVerb::Create { element, length })
    }

    /// Adds to the elements from `offset` on; gives the version after it. What is longer than a frame is added in several
    /// requests, between which others may come.
    ///
    /// # Errors
    /// When the vector is missing, of another type or too short, a sum does not fit, or the wire fails.
    pub fn add<T: Number>(&mut self, offset: u32, values: &[T]) -> Result<u64, StateError> {
        self.in_ranges(offset, values, |offset, element, values| VectorVerb::Add {
            offset,
            element,
            values: values.into(),
            length: None,
        })
    }

    /// Sets the elements from `offset` on; else as [`Vector::add`].
    ///
    /// # Errors
    /// As [`Vector::add`].
    pub fn set<T: Number>(&mut self, offset: u32, values: &[T]) -> Result<u64, StateError> {
        self.in_ranges(offset, values, |offset, element, values| VectorVerb::Set {
            offset,
            element,
            values: values.into(),
            length: None,
        })
    }

    /// Adds to single elements; an index may come more than once. Gives the version after it.
    ///
    /// # Errors
    /// As [`Vector::add`].
    pub fn add_sparse<T: Number>(&mut self, entries: &[(u32, T)]) -> Result<u64, StateError> {
        let most = VALUES_MAX / (4 + T::SHARED.width());
        let mut version = 0;
        for entries in entries.chunks(most) {
            let indices: Vec<u8> = entries
                .iter()
                .flat_map(|(index, _)| index.to_le_bytes())
                .collect();
            let values: Vec<T> = entries.iter().map(|(_, value)| *value).collect();
            let values = T::le_bytes(&values).into_owned();
            version = self.version(VectorVerb::AddSparse {
                element: T::SHARED,
                indices: indices.into(),
                values: values.into(),
                length: None,
            })?;
        }
        Ok(version)
    }

    /// Reads `count` elements from `offset` on, if the version is higher than `newer_than` (0 is lower than all), with the
    /// version. What is longer than a frame is read in several requests, again if others have written in between.
    ///
    /// # Errors
    /// When the vector is missing, of another type or too short, or the wire fails.
    pub fn pull<T: Number>(
        &mut self,
        offset: u32,
        count: u32,
        newer_than: u64,
    ) -> Result<Option<(u64, Vec<T>)>, StateError> {
        let most = (VALUES_MAX / T::SHARED.width()) as u32;
        'again: loop {
            let mut version = None;
            let mut found = Vec::new();
            let mut at = 0;
            while at < count || version.is_none() {
                let verb = VectorVerb::Pull {
                    offset: offset.saturating_add(at),
                    count: most.min(count - at),
                    element: T::SHARED,
                    newer_than: if version.is_none() { newer_than } else { 0 },
                };
                match self.ask(verb)? {
                    Reply::Unchanged => return Ok(None),
                    Reply::Vector {
                        version: is,
                        values,
                    } => {
                        if *version.get_or_insert(is) != is {
                            continue 'again;
                        }
                        if !T::extend(&mut found, &values) {
                            return Err(strange("a vector without whole elements"));
                        }
                    }
                    other => return Err(strange(&format!("{other:?}"))),
                }
                at += most.min(count - at);
            }
            return Ok(version.map(|version| (version, found)));
        }
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When the wire fails.
    pub fn delete(&mut self) -> Result<(), StateError> {
        self.ask(VectorVerb::Delete).map(drop)
    }

    fn in_ranges<T: Number>(
        &mut self,
        offset: u32,
        values: &[T],
        verb: impl Fn(u32, Element, Vec<u8>) -> VectorVerb,
    ) -> Result<u64, StateError> {
        let most = VALUES_MAX / T::SHARED.width();
        let mut version = 0;
        for (number, values) in values.chunks(most).enumerate() {
            let bytes = T::le_bytes(values).into_owned();
            let offset = offset.saturating_add((number * most) as u32);
            version = self.version(verb(offset, T::SHARED, bytes))?;
        }
        Ok(version)
    }

    fn version(&mut self, verb: VectorVerb) -> Result<u64, StateError> {
        match self.ask(verb)? {
            Reply::Version(version) => Ok(version),
            other => Err(strange(&format!("{other:?}"))),
        }
    }

    fn ask(&mut self, verb: VectorVerb) -> Result<Reply, StateError> {
        let name = self.name.clone();
        self.comm.ask(&self.name, Request::Vector { name, verb })
    }
}
