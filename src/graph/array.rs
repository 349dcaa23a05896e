//! Numbers that lie where they were read: in the bytes of a part, which are as a processor wants them, or in a list.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use zerocopy::{FromBytes, Immutable};

/// An array that never changes. Clones of one that lies in bytes share them.
///
/// Taking its slice costs some instructions, so loops do that before they begin.
#[derive(Clone)]
pub struct Array<T>(Numbers<T>);

#[derive(Clone)]
enum Numbers<T> {
    List(Vec<T>),
    /// Aligned, and as long as some `T`s are.
    Bytes(Bytes, PhantomData<T>),
}

impl<T: FromBytes + Immutable> Array<T> {
    /// The first `count` numbers of `bytes`, little-endian, which are taken off it. They are copied only if they are not
    /// aligned.
    ///
    /// # Panics
    ///
    /// When there are fewer.
    pub fn take(bytes: &mut Bytes, count: usize) -> Array<T> {
        let bytes = bytes.split_to(count * size_of::<T>());
        if <[T]>::ref_from_bytes(&bytes).is_ok() {
            return Array(Numbers::Bytes(bytes, PhantomData));
        }
        let each = bytes.chunks_exact(size_of::<T>());
        let number = |bytes| T::read_from_bytes(bytes).expect("it is as long as one");
        Array(Numbers::List(each.map(number).collect()))
    }
}

impl<T: FromBytes + Immutable> Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Numbers::List(list) => list,
            Numbers::Bytes(bytes, _) => match <[T]>::ref_from_bytes(bytes) {
                Ok(numbers) => numbers,
                Err(_) => unreachable!("it was looked at when it was taken"),
            },
        }
    }
}

impl<'a, T: FromBytes + Immutable> IntoIterator for &'a Array<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> From<Vec<T>> for Array<T> {
    fn from(list: Vec<T>) -> Array<T> {
        Array(Numbers::List(list))
    }
}

impl<T> Default for Array<T> {
    fn default() -> Array<T> {
        Vec::new().into()
    }
}

impl<T: FromBytes + Immutable + PartialEq> PartialEq for Array<T> {
    fn eq(&self, other: &Array<T>) -> bool {
        self[..] == other[..]
    }
}

impl<T: FromBytes + Immutable + fmt::Debug> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self[..]).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_whether_their_bytes_are_aligned_or_not() {
        let all: Vec<u8> = (0..100).collect();
        let all = Bytes::from(all);
        let expected: Vec<u64> = (0..5)
            .map(|i| u64::from_le_bytes(std::array::from_fn(|at| 8 * i + at as u8)))
            .collect();
        for shift in 0..9u8 {
            let moved: Vec<u8> = [vec![7; shift.into()], all.to_vec()].concat();
            let mut bytes = Bytes::from(moved).slice(usize::from(shift)..);
            let array: Array<u64> = Array::take(&mut bytes, 5);
            assert_eq!(array[..], expected);
            assert_eq!(array, Array::from(expected.clone()));
            assert_eq!(bytes[..], all[40..]);
            assert!(Array::<u32>::take(&mut bytes, 0).is_empty());
        }
    }
}
