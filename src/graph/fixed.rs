//! Sums that do not depend on the order of adding: fixed point in 128 bits.
//!
//! Floating-point addition rounds, so its result depends on which rank adds first. Integers do not round. A unit
//! is 2^-100, so numbers from 2^-48 up keep all 53 bits of an `f64`, and 2^26 numbers below 2 can be added.

/// 2^100.
const SCALE: f64 = (1u128 << 100) as f64;

/// The number in units of 2^-100, with what is smaller cut off. Scaling by a power of two is exact.
///
/// # Panics
///
/// When the number is not finite or not within 2^27 of zero: a kernel is broken, and the sum would be silently wrong.
pub fn to_fixed(value: f64) -> i128 {
    assert!(
        value.abs() < (1u64 << 27) as f64,
        "{value} has no fixed-point form"
    );
    (value * SCALE) as i128
}

/// The nearest `f64`.
pub fn from_fixed(fixed: i128) -> f64 {
    fixed as f64 / SCALE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_sizes_that_ranks_have_come_back_exactly() {
        for value in [
            0.0,
            1.0,
            0.15,
            1e-9,
            -0.3,
            2f64.powi(-47) * 1.1,
            1.0 - f64::EPSILON,
        ] {
            assert_eq!(from_fixed(to_fixed(value)), value);
        }
        assert_eq!(to_fixed(1e-40), 0);
    }

    #[test]
    #[should_panic(expected = "NaN has no fixed-point form")]
    fn not_a_number_is_not_zero() {
        to_fixed(f64::NAN);
    }
}
