//! The checksum of a message: CRC32C, or CRC-32 for receivers that are much faster at it, as most interpreters are. Pure.

use crate::net::frame::FLAG_CRC32;
use crate::net::message::FEATURE_CRC32;

/// Which one a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Castagnoli's polynomial, for which processors have an instruction.
    Crc32c,
    /// That of IEEE 802.3, which zlib has in every language.
    Crc32,
}

impl Checksum {
    /// The one that a chunk with these flags is part of.
    pub fn of(flags: u8) -> Checksum {
        match flags & FLAG_CRC32 {
            0 => Checksum::Crc32c,
            _ => Checksum::Crc32,
        }
    }

    /// What the chunks of a message have as flag for a receiver with these features.
    pub fn flag_for(features: u32) -> u8 {
        match features & FEATURE_CRC32 {
            0 => 0,
            _ => FLAG_CRC32,
        }
    }

    /// The checksum of some bytes behind others whose checksum is `before`; of none it is 0.
    pub fn append(self, before: u32, bytes: &[u8]) -> u32 {
        match self {
            Checksum::Crc32c => crc32c::crc32c_append(before, bytes),
            Checksum::Crc32 => {
                let mut hasher = crc32fast::Hasher::new_with_initial(before);
                hasher.update(bytes);
                hasher.finalize()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_the_published_ones_however_the_bytes_are_cut() {
        for (checksum, check) in [
            (Checksum::Crc32c, 0xe306_9283),
            (Checksum::Crc32, 0xcbf4_3926),
        ] {
            let bytes = b"123456789";
            for at in 0..=bytes.len() {
                let head = checksum.append(0, &bytes[..at]);
                assert_eq!(checksum.append(head, &bytes[at..]), check);
            }
        }
    }
}
