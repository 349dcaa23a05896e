//! Elements of typed vectors and how they are combined: the arithmetic that ranks, packs and the switch share. Pure.
//!
//! Vectors are bytes, little-endian. Of all combinations only the sum of floats depends on the order of its operands
//! (see [`is_ordered`]); whoever folds gives those in rank order, so that results repeat to the bit.
//!
//! - A float result that is NaN is *the* positive quiet NaN without payload: which NaN the hardware would give depends
//!   on the machine. Minimum and maximum are those of IEEE 754-2019: NaN if any operand is, and -0.0 < +0.0.
//! - An integer sum that does not fit its type is an error. [`Accumulator`] judges the whole sum, so that neither the
//!   order of the operands nor a partial sum matters; [`fold_into`] has only two operands to judge.
//! - One operand alone is its own result, byte for byte.

use std::borrow::Cow;
use std::fmt;
use thiserror::Error;
use zerocopy::IntoBytes;

/// The type of a vector's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 128-bit integer.
    I128,
}

impl Element {
    /// All of them.
    pub const ALL: [Element; 5] = [
        Element::F64,
        Element::F32,
        Element::I64,
        Element::U64,
        Element::I128,
    ];

    /// The bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F64 | Element::I64 | Element::U64 => 8,
            Element::I128 => 16,
        }
    }

    /// Checks that so many bytes are whole elements.
    ///
    /// # Errors
    /// When they are not.
    pub fn check(self, length: usize) -> Result<(), FoldError> {
        if !length.is_multiple_of(self.size()) {
            return Err(FoldError::Length {
                element: self,
                length,
            });
        }
        Ok(())
    }

    /// Its number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Element::F64 => 1,
            Element::F32 => 2,
            Element::I64 => 3,
            Element::U64 => 4,
            Element::I128 => 5,
        }
    }

    /// The element of a number on the wire.
    pub fn from_code(code: u32) -> Option<Element> {
        Element::ALL
            .into_iter()
            .find(|element| element.code() == code)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Element::F64 => "f64",
            Element::F32 => "f32",
            Element::I64 => "i64",
            Element::U64 => "u64",
            Element::I128 => "i128",
        })
    }
}

/// How elements at the same place of several vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fold {
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

impl Fold {
    /// All of them.
    pub const ALL: [Fold; 3] = [Fold::Sum, Fold::Min, Fold::Max];

    /// Its number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Fold::Sum => 1,
            Fold::Min => 2,
            Fold::Max => 3,
        }
    }

    /// The fold of a number on the wire.
    pub fn from_code(code: u32) -> Option<Fold> {
        Fold::ALL.into_iter().find(|fold| fold.code() == code)
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fold::Sum => "sum",
            Fold::Min => "minimum",
            Fold::Max => "maximum",
        })
    }
}

/// Why vectors cannot be combined.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum FoldError {
    /// The bytes are not whole elements.
    #[error("{length} bytes are not a whole number of {element} ({} bytes each)", element.size())]
    Length {
        /// What the bytes should be.
        element: Element,
        /// How many there are.
        length: usize,
    },
    /// The vectors are not of one length.
    #[error(
        "a vector of {found} bytes cannot be combined with one of {expected}; all ranks must give the same length"
    )]
    Mismatch {
        /// Bytes of the earlier vectors.
        expected: usize,
        /// Bytes of this one.
        found: usize,
    },
    /// A sum does not fit.
    #[error("a sum does not fit into {0}; give smaller values or a wider type")]
    Overflow(Element),
}

/// True if the result depends on the order of the operands.
pub fn is_ordered(fold: Fold, element: Element) -> bool {
    fold == Fold::Sum && matches!(element, Element::F64 | Element::F32)
}

/// Combines `part` into `accumulator`, which is the left operand.
///
/// # Errors
/// When the vectors do not fit together, which leaves `accumulator` as it was, or a sum overflows, which spoils it.
pub fn fold_into(
    fold: Fold,
    element: Element,
    accumulator: &mut [u8],
    part: &[u8],
) -> Result<(), FoldError> {
    check_both(element, accumulator.len(), part.len())?;
    if typed!(element, fold_typed(fold, accumulator, part)) {
        return Err(FoldError::Overflow(element));
    }
    Ok(())
}

/// A vector that others are combined into, one after the other.
#[derive(Debug)]
pub struct Accumulator {
    fold: Fold,
    element: Element,
    /// For integers the sums modulo 2^bits.
    bytes: Vec<u8>,
    /// How often 2^bits must be added to each sum to make it true. Empty until a sum wraps, which is next to always.
    carries: Vec<i32>,
}

impl Accumulator {
    /// Starts with the first operand.
    ///
    /// # Errors
    /// When it is not whole elements.
    pub fn new(fold: Fold, element: Element, first: Vec<u8>) -> Result<Accumulator, FoldError> {
        element.check(first.len())?;
        Ok(Accumulator {
            fold,
            element,
            bytes: first,
            carries: Vec::new(),
        })
    }

    /// Combines with one more operand; see [`is_ordered`] for when the order matters.
    ///
    /// # Errors
    /// When it is not as long as the first.
    pub fn add(&mut self, part: &[u8]) -> Result<(), FoldError> {
        check_both(self.element, self.bytes.len(), part.len())?;
        if typed!(self.element, fold_typed(self.fold, &mut self.bytes, part)) {
            self.carries
                .resize(self.bytes.len() / self.element.size(), 0);
            typed!(
                self.element,
                carry_typed(&mut self.carries, &self.bytes, part)
            );
        }
        Ok(())
    }

    /// The memory that it holds.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.carries.as_slice())
    }

    /// The result.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub fn finish(self) -> Result<Vec<u8>, FoldError> {
        if self.carries.iter().any(|carry| *carry != 0) {
            return Err(FoldError::Overflow(self.element));
        }
        Ok(self.bytes)
    }
}

/// A Rust type that is an [`Element`].
pub trait Value: Copy {
    /// Which.
    const ELEMENT: Element;

    /// The bytes of a vector, where they lie on machines whose own order is that of the wire.
    fn le_bytes(values: &[Self]) -> Cow<'_, [u8]>;

    /// Adds the elements of some bytes to a vector. False if they are not whole elements, and then nothing is added.
    fn extend(values: &mut Vec<Self>, bytes: &[u8]) -> bool;
}

fn check_both(element: Element, expected: usize, found: usize) -> Result<(), FoldError> {
    element.check(found)?;
    if found != expected {
        return Err(FoldError::Mismatch { expected, found });
    }
    Ok(())
}

/// What a fold needs of a type of `N` bytes.
trait Arithmetic<const N: usize>: Copy {
    fn read(bytes: [u8; N]) -> Self;
    fn write(self) -> [u8; N];
    fn lesser(self, other: Self) -> Self;
    fn greater(self, other: Self) -> Self;

    /// Adds element-wise, integers modulo 2^bits; true if some sum wrapped.
    fn add_all(sums: &mut [[u8; N]], part: &[[u8; N]]) -> bool;

    /// Given the sums after `add_all`: 1 if this one wrapped at the upper end, -1 at the lower, 0 if not.
    fn carry(sum: Self, part: Self) -> i32;
}

/// Applies element-wise. Arrays by value and no bounds to check: the compiler vectorises it for each type.
fn each<T: Arithmetic<N>, const N: usize>(
    accumulator: &mut [[u8; N]],
    part: &[[u8; N]],
    mut combine: impl FnMut(T, T) -> T,
) {
    for (left, right) in accumulator.iter_mut().zip(part) {
        *left = combine(T::read(*left), T::read(*right)).write();
    }
}

/// True if some sum wrapped.
fn fold_typed<T: Arithmetic<N>, const N: usize>(
    fold: Fold,
    accumulator: &mut [u8],
    part: &[u8],
) -> bool {
    let (accumulator, _) = accumulator.as_chunks_mut::<N>();
    let (part, _) = part.as_chunks::<N>();
    match fold {
        Fold::Sum => return T::add_all(accumulator, part),
        Fold::Min => each(accumulator, part, T::lesser),
        Fold::Max => each(accumulator, part, T::greater),
    }
    false
}

fn carry_typed<T: Arithmetic<N>, const N: usize>(carries: &mut [i32], sums: &[u8], part: &[u8]) {
    let (sums, _) = sums.as_chunks::<N>();
    let (part, _) = part.as_chunks::<N>();
    for ((carry, sum), part) in carries.iter_mut().zip(sums).zip(part) {
        *carry += T::carry(T::read(*sum), T::read(*part));
    }
}

/// Calls a function that is generic over the type and its size with those of an element.
macro_rules! typed {
    ($element:expr, $function:ident($($argument:expr),*)) => {
        match $element {
            Element::F64 => $function::<f64, 8>($($argument),*),
            Element::F32 => $function::<f32, 4>($($argument),*),
            Element::I64 => $function::<i64, 8>($($argument),*),
            Element::U64 => $function::<u64, 8>($($argument),*),
            Element::I128 => $function::<i128, 16>($($argument),*),
        }
    };
}
use typed;

macro_rules! value {
    ($type:ident, $element:expr) => {
        impl Value for $type {
            const ELEMENT: Element = $element;

            fn le_bytes(values: &[$type]) -> Cow<'_, [u8]> {
                if cfg!(target_endian = "little") {
                    return Cow::Borrowed(IntoBytes::as_bytes(values));
                }
                Cow::Owned(
                    values
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                )
            }

            fn extend(values: &mut Vec<$type>, bytes: &[u8]) -> bool {
                let (chunks, rest) = bytes.as_chunks();
                if rest.is_empty() {
                    values.extend(chunks.iter().map(|chunk| $type::from_le_bytes(*chunk)));
                }
                rest.is_empty()
            }
        }
    };
}

macro_rules! float {
    ($type:ident, $element:expr, $nan:literal) => {
        value!($type, $element);

        impl Arithmetic<{ size_of::<$type>() }> for $type {
            fn read(bytes: [u8; size_of::<$type>()]) -> $type {
                $type::from_le_bytes(bytes)
            }

            fn write(self) -> [u8; size_of::<$type>()] {
                let bits = if self.is_nan() { $nan } else { self.to_bits() };
                bits.to_le_bytes()
            }

            // Equal numbers have equal bits, except that of two zeros the minimum is negative if either is.
            fn lesser(self, other: $type) -> $type {
                let (left, right) = (self.to_bits(), other.to_bits());
                let ordered = if self < other {
                    left
                } else if other < self {
                    right
                } else {
                    left | right
                };
                $type::from_bits(if self.is_nan() | other.is_nan() {
                    $nan
                } else {
                    ordered
                })
            }

            fn greater(self, other: $type) -> $type {
                let (left, right) = (self.to_bits(), other.to_bits());
                let ordered = if self > other {
                    left
                } else if other > self {
                    right
                } else {
                    left & right
                };
                $type::from_bits(if self.is_nan() | other.is_nan() {
                    $nan
                } else {
                    ordered
                })
            }

            fn add_all(
                sums: &mut [[u8; size_of::<$type>()]],
                part: &[[u8; size_of::<$type>()]],
            ) -> bool {
                each(sums, part, |left: $type, right| left + right);
                false
            }

            fn carry(_: $type, _: $type) -> i32 {
                0
            }
        }
    };
}

macro_rules! integer {
    // `$wraps` gives a value whose highest bit is set if the sum of two wrapped: unlike `overflowing_add` it vectorises.
    ($type:ident, $element:expr, $wraps:expr) => {
        value!($type, $element);

        impl Arithmetic<{ size_of::<$type>() }> for $type {
            fn read(bytes: [u8; size_of::<$type>()]) -> $type {
                $type::from_le_bytes(bytes)
            }

            fn write(self) -> [u8; size_of::<$type>()] {
                self.to_le_bytes()
            }

            fn lesser(self, other: $type) -> $type {
                self.min(other)
            }

            fn greater(self, other: $type) -> $type {
                self.max(other)
            }

            fn add_all(
                sums: &mut [[u8; size_of::<$type>()]],
                part: &[[u8; size_of::<$type>()]],
            ) -> bool {
                let mut wrapped: $type = 0;
                each(sums, part, |left: $type, right| {
                    let sum = left.wrapping_add(right);
                    wrapped |= $wraps(left, right, sum);
                    sum
                });
                wrapped.leading_zeros() == 0
            }

            fn carry(sum: $type, part: $type) -> i32 {
                let before = sum.wrapping_sub(part);
                let wrapped: $type = $wraps(before, part, sum);
                match wrapped.leading_zeros() {
                    0 if sum < before => 1,
                    0 => -1,
                    _ => 0,
                }
            }
        }
    };
}

float!(f64, Element::F64, 0x7ff8_0000_0000_0000_u64);
float!(f32, Element::F32, 0x7fc0_0000_u32);
integer!(i64, Element::I64, |a, b, sum| (a ^ sum) & (b ^ sum));
integer!(i128, Element::I128, |a, b, sum| (a ^ sum) & (b ^ sum));
integer!(u64, Element::U64, |a, b, sum: u64| (a & b)
    | ((a | b) & !sum));

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values<T: Value>(bytes: &[u8]) -> Vec<T> {
        let mut values = Vec::new();
        assert!(T::extend(&mut values, bytes), "whole elements");
        values
    }

    fn folded<T: Value>(fold: Fold, vectors: &[&[T]]) -> Result<Vec<T>, FoldError> {
        let (first, rest) = vectors.split_first().expect("some vector");
        let mut accumulator = Accumulator::new(fold, T::ELEMENT, T::le_bytes(first).into_owned())?;
        for vector in rest {
            accumulator.add(&T::le_bytes(vector))?;
        }
        let bytes = accumulator.finish()?;
        Ok(values(&bytes))
    }

    #[test]
    fn minimum_and_maximum_of_floats_are_those_of_ieee_754_2019() {
        let nan = f64::from_bits(0x7ff8_0000_0000_0000);
        let odd_nan = f64::from_bits(0xfff0_0000_0000_beef);
        for (a, b, least, greatest) in [
            (1.0, 2.0, 1.0, 2.0),
            (-0.0, 0.0, -0.0, 0.0),
            (-0.0, -0.0, -0.0, -0.0),
            (0.0, 0.0, 0.0, 0.0),
            (f64::NEG_INFINITY, 5e-324, f64::NEG_INFINITY, 5e-324),
            (odd_nan, 1.0, nan, nan),
            (odd_nan, f64::INFINITY, nan, nan),
            (nan, -odd_nan, nan, nan),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                let bits = |fold| folded(fold, &[&[a], &[b]]).expect("no overflow")[0].to_bits();
                assert_eq!(bits(Fold::Min), least.to_bits(), "minimum of {a} and {b}");
                assert_eq!(
                    bits(Fold::Max),
                    greatest.to_bits(),
                    "maximum of {a} and {b}"
                );
                let narrow = |fold| folded(fold, &[&[a as f32], &[b as f32]]).expect("fits")[0];
                assert_eq!(narrow(Fold::Min).to_bits(), (least as f32).to_bits());
                assert_eq!(narrow(Fold::Max).to_bits(), (greatest as f32).to_bits());
            }
        }
    }

    #[test]
    fn a_sum_that_is_nan_is_always_the_same_nan() {
        for (a, b) in [
            (f64::INFINITY, f64::NEG_INFINITY),
            (f64::from_bits(0xfff8_dead_0000_beef), 1.0),
            (2.0, f64::from_bits(0x7ff0_0000_0000_0001)),
        ] {
            // Nine of them, to see the vectorised loop and its remainder.
            let sums = folded(Fold::Sum, &[&[a; 9], &[b; 9]]).expect("no overflow");
            let expected = f64::from_bits(0x7ff8_0000_0000_0000);
            assert!(sums.iter().all(|sum| sum.to_bits() == expected.to_bits()));
        }
    }

    #[test]
    fn only_the_whole_sum_must_fit_and_the_order_does_not_matter() {
        let (max, min) = (i64::MAX, i64::MIN);
        let vectors: [&[i64]; 4] = [
            &[max, 1, min],
            &[max, 2, min],
            &[min, 3, max],
            &[-max, 4, 2],
        ];
        for shift in 0..4 {
            let mut turned = vectors;
            turned.rotate_left(shift);
            assert_eq!(
                folded(Fold::Sum, &turned),
                Ok(vec![-1, 10, min + 1]),
                "turned by {shift}"
            );
        }
        let overflow = Err(FoldError::Overflow(Element::I64));
        assert_eq!(folded(Fold::Sum, &[&[max, 0], &[1, 0]]), overflow);
        assert_eq!(folded(Fold::Sum, &[&[0, min], &[0, -1]]), overflow);
        let wide = folded(Fold::Sum, &[&[i128::MAX], &[1], &[-1]]);
        assert_eq!(wide, Ok(vec![i128::MAX]));
        let unsigned = folded(Fold::Sum, &[&[u64::MAX, 1], &[0, u64::MAX]]);
        let error = unsigned.expect_err("2^64 does not fit");
        assert_eq!(
            error.to_string(),
            "a sum does not fit into u64; give smaller values or a wider type"
        );
        assert_eq!(
            folded(Fold::Sum, &[&[u64::MAX - 1], &[1]]),
            Ok(vec![u64::MAX])
        );
    }

    #[test]
    fn vectors_that_do_not_fit_together_are_refused() {
        let mut accumulator = [1; 16];
        let error = fold_into(Fold::Min, Element::F64, &mut accumulator, &[0; 15])
            .expect_err("15 is not 16");
        assert_eq!(
            error.to_string(),
            "15 bytes are not a whole number of f64 (8 bytes each)"
        );
        let error =
            fold_into(Fold::Min, Element::F64, &mut accumulator, &[0; 8]).expect_err("8 is not 16");
        assert_eq!(
            error.to_string(),
            "a vector of 8 bytes cannot be combined with one of 16; all ranks must give the same length"
        );
        assert_eq!(accumulator, [1; 16], "it is as it was");
        let mut sum = i64::le_bytes(&[i64::MAX]).into_owned();
        let overflow = fold_into(Fold::Sum, Element::I64, &mut sum, &i64::le_bytes(&[1]));
        assert_eq!(overflow, Err(FoldError::Overflow(Element::I64)));
        let mut none: Vec<i64> = Vec::new();
        assert!(!i64::extend(&mut none, &[0; 9]) && none.is_empty());
    }

    #[test]
    fn codes_are_read_back() {
        for element in Element::ALL {
            assert_eq!(Element::from_code(element.code()), Some(element));
        }
        for fold in Fold::ALL {
            assert_eq!(Fold::from_code(fold.code()), Some(fold));
        }
        assert_eq!((Element::from_code(0), Element::from_code(6)), (None, None));
        assert_eq!((Fold::from_code(0), Fold::from_code(4)), (None, None));
    }

    /// `fold_into` of unaligned bytes against the same written for one pair.
    fn agrees<T: Value + PartialEq + fmt::Debug>(
        fold: Fold,
        left: &[T],
        right: &[T],
        combine: impl Fn(T, T) -> Option<T>,
    ) {
        let unaligned = |values: &[T]| [&[0], &*T::le_bytes(values)].concat();
        let (mut accumulator, part) = (unaligned(left), unaligned(right));
        let outcome = fold_into(fold, T::ELEMENT, &mut accumulator[1..], &part[1..]);
        let expected = left.iter().zip(right).map(|(a, b)| combine(*a, *b));
        match expected.collect::<Option<Vec<T>>>() {
            Some(expected) => assert_eq!(*T::le_bytes(&expected), accumulator[1..]),
            None => assert_eq!(outcome, Err(FoldError::Overflow(T::ELEMENT))),
        }
        assert_eq!(values::<T>(&T::le_bytes(left)), left);
    }

    proptest! {
        #[test]
        fn elements_are_combined_as_pairs_are(
            signed in prop::collection::vec(any::<(i64, i64)>(), 0..40),
            shift in 0..3,
        ) {
            let (left, right): (Vec<i64>, Vec<i64>) =
                signed.iter().map(|(a, b)| (a >> shift, b >> shift)).unzip();
            let cast = |values: &[i64]| values.iter().map(|value| *value as u64 >> shift).collect::<Vec<u64>>();
            let wide = |values: &[i64]| values.iter().map(|value| i128::from(*value) << 63).collect::<Vec<i128>>();
            let float = |values: &[i64]| values.iter().map(|value| *value as f64).collect::<Vec<f64>>();
            let narrow = |values: &[i64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
            agrees(Fold::Sum, &left, &right, i64::checked_add);
            agrees(Fold::Min, &left, &right, |a, b| Some(a.min(b)));
            agrees(Fold::Max, &left, &right, |a, b| Some(a.max(b)));
            agrees(Fold::Sum, &cast(&left), &cast(&right), u64::checked_add);
            agrees(Fold::Min, &cast(&left), &cast(&right), |a, b| Some(a.min(b)));
            agrees(Fold::Max, &cast(&left), &cast(&right), |a, b| Some(a.max(b)));
            agrees(Fold::Sum, &wide(&left), &wide(&right), i128::checked_add);
            agrees(Fold::Min, &wide(&left), &wide(&right), |a, b| Some(a.min(b)));
            agrees(Fold::Max, &wide(&left), &wide(&right), |a, b| Some(a.max(b)));
            agrees(Fold::Sum, &float(&left), &float(&right), |a, b| Some(a + b));
            agrees(Fold::Min, &float(&left), &float(&right), |a, b| Some(a.min(b)));
            agrees(Fold::Max, &float(&left), &float(&right), |a, b| Some(a.max(b)));
            agrees(Fold::Sum, &narrow(&left), &narrow(&right), |a, b| Some(a + b));
            agrees(Fold::Min, &narrow(&left), &narrow(&right), |a, b| Some(a.min(b)));
            agrees(Fold::Max, &narrow(&left), &narrow(&right), |a, b| Some(a.max(b)));
        }
    }
}
