//! The one place where bincode is used: little-endian, fixed-width integers, and a size limit on every decode.
//!
//! Bulk payloads never pass through here; they travel as raw bytes.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::error::{DecodeError, EncodeError};
use serde::{Serialize, de::DeserializeOwned};

/// The largest control message, in bytes: a job of 20,000 packs announces itself in less.
pub const CONTROL_MAX: usize = 320 * 1024;

/// The largest hello, in bytes: what is read from a peer that has proved nothing yet.
pub const HELLO_MAX: usize = 512;

/// The largest result or report of one rank that is encoded here, in bytes.
pub const REPORT_MAX: usize = 16 * 1024 * 1024;

const fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<LIMIT>()
}

/// Encodes a value; a value that encodes to more than `LIMIT` bytes is an error.
///
/// # Errors
/// When the value is larger than `LIMIT` bytes.
pub fn encode<const LIMIT: usize>(value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    let bytes = bincode::serde::encode_to_vec(value, config::<LIMIT>())?;
    if bytes.len() > LIMIT {
        return Err(EncodeError::OtherString(format!(
            "{} bytes are over the limit of {LIMIT}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// Appends a value's encoding, of any length: who sends it looks at that.
///
/// # Errors
/// When the value cannot be encoded, such as a sequence of unknown length.
pub fn encode_onto(value: &impl Serialize, to: &mut Vec<u8>) -> Result<(), EncodeError> {
    bincode::serde::encode_into_std_write(value, to, config::<0>()).map(drop)
}

/// Decodes a value from the whole of `bytes`; bytes left over are an error.
///
/// # Errors
/// When the bytes are no such value, say a length over `LIMIT`, or are longer than the value.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config::<LIMIT>())?;
    if used != bytes.len() {
        return Err(DecodeError::OtherString(format!(
            "{} bytes are left over",
            bytes.len() - used
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_length_is_refused_without_an_allocation() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"abc");
        assert!(decode::<String, HELLO_MAX>(&bytes).is_err());
        let bytes = (1u64 << 40).to_le_bytes();
        assert!(decode::<Vec<u64>, CONTROL_MAX>(&bytes).is_err());
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut bytes = encode::<64>(&7u32).expect("seven fits");
        assert_eq!(bytes, [7, 0, 0, 0]);
        bytes.push(0);
        assert!(decode::<u32, 64>(&bytes).is_err());
    }
}
