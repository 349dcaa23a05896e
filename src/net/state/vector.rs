//! Vectors: numbers that many add to and read, range by range. What a parameter server keeps.

use super::blob::Blob;
use super::budget::Budget;
use super::{Reply, StateError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The type of a vector's elements. They travel little-endian, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Element {
    /// 4 bytes.
    F32,
    /// 8 bytes.
    F64,
    /// 8 bytes. Sums do not depend on the order of arrival, which those of the others do.
    I64,
}

impl Element {
    /// Bytes of one.
    pub fn width(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F64 | Element::I64 => 8,
        }
    }

    /// Bytes of so many.
    pub(super) fn bytes_of(self, count: u32) -> usize {
        (count as usize).saturating_mul(self.width())
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Element::F32 => "f32",
            Element::F64 => "f64",
            Element::I64 => "i64",
        })
    }
}

/// What may be asked of a vector.
///
/// Its version is raised by one with each request that creates, sets or adds, from 1 when it is created; one that is
/// created after others were deleted goes on above the versions of those, so that no version comes back. A vector that
/// is written or read in several ranges is so in several requests, and others may come between them: ranges of the same
/// version belong together.
///
/// Sums of floats follow IEEE 754, infinities included; a sum over an i64 is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VectorVerb {
    /// Creates it, all zero, or finds that it is there with this type and length, and then changes nothing: every rank
    /// may ask for it. The reply is its [`Reply::Version`].
    Create {
        /// The elements' type.
        element: Element,
        /// How many there are.
        length: u32,
    },
    /// Sets a range, or all of it. The reply is the [`Reply::Version`] after it.
    Set {
        /// The first element to set.
        offset: u32,
        /// The elements' type.
        element: Element,
        /// The elements.
        values: Blob,
        /// With which length to create it, all zero, if it is not there; it must have this length if it is.
        length: Option<u32>,
    },
    /// Adds to a range, each value to its element, all or none. The reply is the [`Reply::Version`] after it.
    Add {
        /// The first element to add to.
        offset: u32,
        /// The elements' type.
        element: Element,
        /// What to add.
        values: Blob,
        /// As for [`VectorVerb::Set`].
        length: Option<u32>,
    },
    /// Adds to single elements, in the order given, all or none; an index may come more than once. The reply is the
    /// [`Reply::Version`] after it.
    AddSparse {
        /// The elements' type.
        element: Element,
        /// The elements to add to, each a u32, little-endian.
        indices: Blob,
        /// What to add to each.
        values: Blob,
        /// As for [`VectorVerb::Set`].
        length: Option<u32>,
    },
    /// The reply is a range as a [`Reply::Vector`], or [`Reply::Unchanged`].
    Pull {
        /// The first element.
        offset: u32,
        /// How many.
        count: u32,
        /// The elements' type.
        element: Element,
        /// Only if the version is higher than this; 0 is lower than all.
        newer_than: u64,
    },
    /// The reply is its [`Reply::Length`], in elements.
    Length,
    /// Forgets it, if it is there. The reply is [`Reply::Done`].
    Delete,
}

/// All vectors of a job.
#[derive(Default)]
pub(super) struct Vectors {
    vectors: BTreeMap<String, Vector>,
    /// The highest version of all that were deleted.
    deleted_version: u64,
}

struct Vector {
    version: u64,
    values: Values,
}

enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

/// New values, or values to add, checked for everything but the vector that they are for.
struct Change<'a> {
    element: Element,
    places: Places<'a>,
    values: &'a [u8],
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Set,
    Add,
}

enum Places<'a> {
    From(u32),
    At(&'a [[u8; 4]]),
}

impl Vectors {
    pub(super) fn apply(
        &mut self,
        name: String,
        verb: VectorVerb,
        budget: &mut Budget,
    ) -> Result<Reply, StateError> {
        match verb {
            VectorVerb::Create { element, length } => self.create(name, element, length, budget),
            VectorVerb::Set {
                offset,
                element,
                values,
                length,
            } => {
                let change = Change::range(offset, element, &values, How::Set)?;
                self.change(name, &change, length, budget)
            }
            VectorVerb::Add {
                offset,
                element,
                values,
                length,
            } => {
                let change = Change::range(offset, element, &values, How::Add)?;
                self.change(name, &change, length, budget)
            }
            VectorVerb::AddSparse {
                element,
                indices,
                values,
                length,
            } => {
                let change = Change::sparse(element, &indices, &values)?;
                self.change(name, &change, length, budget)
            }
            VectorVerb::Pull {
                offset,
                count,
                element,
                newer_than,
            } => self.pull(name, offset, count, element, newer_than),
            VectorVerb::Length => match self.vectors.get(&name) {
                Some(vector) => Ok(Reply::Length(u64::from(vector.values.length()))),
                None => Err(StateError::VectorMissing(name)),
            },
            VectorVerb::Delete => {
                if let Some(vector) = self.vectors.remove(&name) {
                    budget.give_back(Some(&name), vector.values.bytes());
                    self.deleted_version = self.deleted_version.max(vector.version);
                }
                Ok(Reply::Done)
            }
        }
    }

    fn create(
        &mut self,
        name: String,
        element: Element,
        length: u32,
        budget: &mut Budget,
    ) -> Result<Reply, StateError> {
        if let Some(vector) = self.vectors.get(&name) {
            vector.expect_element(&name, element)?;
            vector.expect_length(&name, length)?;
            return Ok(Reply::Version(vector.version));
        }
        budget.take(Some(&name), element.bytes_of(length))?;
        let mut vector = self.zero(element, length);
        let version = vector.raise();
        self.vectors.insert(name, vector);
        Ok(Reply::Version(version))
    }

    fn change(
        &mut self,
        name: String,
        change: &Change,
        length: Option<u32>,
        budget: &mut Budget,
    ) -> Result<Reply, StateError> {
        if let Some(vector) = self.vectors.get_mut(&name) {
            vector.expect_element(&name, change.element)?;
            if let Some(length) = length {
                vector.expect_length(&name, length)?;
            }
            return vector.change(&name, change).map(Reply::Version);
        }
        let Some(length) = length else {
            return Err(StateError::VectorMissing(name));
        };
        change.expect_inside(&name, length)?;
        let bytes = change.element.bytes_of(length);
        budget.take(Some(&name), bytes)?;
        let mut vector = self.zero(change.element, length);
        let changed = vector.change(&name, change);
        match changed {
            Ok(_) => drop(self.vectors.insert(name, vector)),
            // Two values for one index can be too much even for a zero.
            Err(_) => budget.give_back(Some(&name), bytes),
        }
        changed.map(Reply::Version)
    }

    fn pull(
        &self,
        name: String,
        offset: u32,
        count: u32,
        element: Element,
        newer_than: u64,
    ) -> Result<Reply, StateError> {
        let Some(vector) = self.vectors.get(&name) else {
            return Err(StateError::VectorMissing(name));
        };
        vector.expect_element(&name, element)?;
        expect_range(&name, offset, count as usize, vector.values.length())?;
        if vector.version <= newer_than {
            return Ok(Reply::Unchanged);
        }
        Ok(Reply::Vector {
            version: vector.version,
            values: vector.values.range(offset as usize, count as usize).into(),
        })
    }

    /// A vector of zeros that has had no request yet.
    fn zero(&self, element: Element, length: u32) -> Vector {
        let length = length as usize;
        Vector {
            version: self.deleted_version,
            values: match element {
                Element::F32 => Values::F32(vec![0.0; length]),
                Element::F64 => Values::F64(vec![0.0; length]),
                Element::I64 => Values::I64(vec![0; length]),
            },
        }
    }

    #[cfg(test)]
    pub(super) fn recount(&self) -> (usize, usize) {
        let cost = |(name, vector): (&String, &Vector)| {
            let values = match &vector.values {
                Values::F32(held) => 4 * held.capacity(),
                Values::F64(held) => 8 * held.capacity(),
                Values::I64(held) => 8 * held.capacity(),
            };
            super::budget::name_cost(name) + values
        };
        (self.vectors.len(), self.vectors.iter().map(cost).sum())
    }
}

impl Vector {
    fn raise(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn change(&mut self, name: &str, change: &Change) -> Result<u64, StateError> {
        change.expect_inside(name, self.values.length())?;
        self.values
            .change(change)
            .map_err(|index| StateError::VectorOverflow {
                name: name.to_string(),
                index,
            })?;
        Ok(self.raise())
    }

    fn expect_element(&self, name: &str, asked: Element) -> Result<(), StateError> {
        let found = self.values.element();
        if asked == found {
            return Ok(());
        }
        Err(StateError::ElementOther {
            name: name.to_string(),
            found,
            asked,
        })
    }

    fn expect_length(&self, name: &str, asked: u32) -> Result<(), StateError> {
        let found = self.values.length();
        if asked == found {
            return Ok(());
        }
        Err(StateError::LengthOther {
            name: name.to_string(),
            found,
            asked,
        })
    }
}

impl Values {
    fn element(&self) -> Element {
        match self {
            Values::F32(_) => Element::F32,
            Values::F64(_) => Element::F64,
            Values::I64(_) => Element::I64,
        }
    }

    fn length(&self) -> u32 {
        let length = match self {
            Values::F32(held) => held.len(),
            Values::F64(held) => held.len(),
            Values::I64(held) => held.len(),
        };
        u32::try_from(length).expect("lengths are given as u32")
    }

    fn bytes(&self) -> usize {
        self.element().bytes_of(self.length())
    }

    /// Changes all that is asked for, or nothing; then the error is the index at which a sum is too large.
    fn change(&mut self, change: &Change) -> Result<(), usize> {
        match self {
            Values::F32(held) => apply(held, change),
            Values::F64(held) => apply(held, change),
            Values::I64(held) => apply(held, change),
        }
    }

    fn range(&self, offset: usize, count: usize) -> Vec<u8> {
        match self {
            Values::F32(held) => bytes_of(&held[offset..offset + count]),
            Values::F64(held) => bytes_of(&held[offset..offset + count]),
            Values::I64(held) => bytes_of(&held[offset..offset + count]),
        }
    }
}

impl<'a> Change<'a> {
    fn range(
        offset: u32,
        element: Element,
        values: &'a [u8],
        how: How,
    ) -> Result<Self, StateError> {
        if !values.len().is_multiple_of(element.width()) {
            return Err(StateError::Ragged {
                bytes: values.len(),
                element,
            });
        }
        let places = Places::From(offset);
        Ok(Change {
            element,
            places,
            values,
            how,
        })
    }

    fn sparse(element: Element, indices: &'a [u8], values: &'a [u8]) -> Result<Self, StateError> {
        let (places, left) = indices.as_chunks();
        if !left.is_empty() || places.len() * element.width() != values.len() {
            return Err(StateError::Unpaired {
                indices: indices.len(),
                values: values.len(),
                element,
            });
        }
        let places = Places::At(places);
        Ok(Change {
            element,
            places,
            values,
            how: How::Add,
        })
    }

    fn expect_inside(&self, name: &str, length: u32) -> Result<(), StateError> {
        match &self.places {
            Places::From(offset) => {
                let count = self.values.len() / self.element.width();
                expect_range(name, *offset, count, length)
            }
            Places::At(indices) => {
                let mut indices = indices.iter().map(|bytes| u32::from_le_bytes(*bytes));
                match indices.find(|index| *index >= length) {
                    Some(index) => Err(StateError::IndexOutside {
                        name: name.to_string(),
                        index,
                        length,
                    }),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Places<'_> {
    /// The index of the value at this place of the change.
    fn index(&self, place: usize) -> usize {
        match self {
            Places::From(offset) => *offset as usize + place,
            Places::At(indices) => u32::from_le_bytes(indices[place]) as usize,
        }
    }
}

fn expect_range(name: &str, first: u32, count: usize, length: u32) -> Result<(), StateError> {
    let end = u64::from(first) + count as u64;
    if end <= u64::from(length) {
        return Ok(());
    }
    Err(StateError::RangeOutside {
        name: name.to_string(),
        first,
        end,
        length,
    })
}

/// What the three types have in common.
trait Number: Copy {
    fn read(bytes: &[u8]) -> Self;
    fn put(self, out: &mut Vec<u8>);
    /// `None` if the sum is too large, which only integers can be.
    fn plus(self, other: Self) -> Option<Self>;
    /// Takes back a `plus` of integers.
    fn minus(self, other: Self) -> Self;
}

macro_rules! number {
    ($($type:ty, $plus:expr;)*) => {$(
        impl Number for $type {
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("cut to the type's width"))
            }
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn plus(self, other: Self) -> Option<Self> {
                $plus(self, other)
            }
            fn minus(self, other: Self) -> Self {
                self - other
            }
        }
    )*};
}

number! {
    f32, |a, b| Some(a + b);
    f64, |a, b| Some(a + b);
    i64, i64::checked_add;
}

fn apply<T: Number>(held: &mut [T], change: &Change) -> Result<(), usize> {
    let places = &change.places;
    let values = change.values.chunks_exact(size_of::<T>()).map(T::read);
    for (place, value) in values.clone().enumerate() {
        let index = places.index(place);
        let after = match change.how {
            How::Set => Some(value),
            How::Add => held[index].plus(value),
        };
        let Some(after) = after else {
            // Backwards, through values that were there before, so that nothing overflows on the way.
            for (place, value) in values.enumerate().take(place).rev() {
                let index = places.index(place);
                held[index] = held[index].minus(value);
            }
            return Err(index);
        };
        held[index] = after;
    }
    Ok(())
}

fn bytes_of<T: Number>(held: &[T]) -> Vec<u8> {
    let mut out = Vec::with_capacity(size_of_val(held));
    for element in held {
        element.put(&mut out);
    }
    out
}
