//! The bytes of a journal's file: entries with checksums that form a chain.
//!
//! All integers are little-endian. The file begins with a header of 20 bytes: the 8 bytes `lswjnl`, 0, 2 (the kind and
//! the version), a random u64, and the CRC32C of these 16 bytes. Entries follow. An entry is a head of 12 bytes and a
//! body in the project's codec:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | u32 length of the body |
//! | 4..8 | u32 CRC32C of the header's first 16 bytes and all bodies up to this one |
//! | 8..12 | u32 CRC32C of the checksum before this one (u32), and of bytes 0..8 |
//!
//! So an entry that was changed, removed, moved or taken from another file does not fit. A driver that is killed leaves
//! a file that ends within an entry, or within the header: that entry was never written. The head has a checksum of its
//! own, since a changed length would else look like such an end.

use std::io::{self, Read};

/// The kind and the version of the file.
const MAGIC: &[u8; 8] = b"lswjnl\x00\x02";

/// Bytes of the header.
pub(super) const HEADER: usize = 20;

/// Bytes ahead of each body.
pub(super) const HEAD: usize = 12;

/// The header of a new file.
pub(super) fn header(nonce: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&nonce.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..16]);
    header[16..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// The checksum of what is in a file up to some entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain(u32);

impl Chain {
    /// Of a file without entries.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub(super) fn begin(header: &[u8; HEADER]) -> Result<Chain, Foreign> {
        if header[..8] != *MAGIC {
            return Err(match header[..6] == MAGIC[..6] {
                true => Foreign::Version,
                false => Foreign::Kind,
            });
        }
        let checksum = crc32c::crc32c(&header[..16]);
        match checksum.to_le_bytes() == header[16..] {
            true => Ok(Chain(checksum)),
            false => Err(Foreign::Changed),
        }
    }

    /// The chain with this body, and the body's head.
    pub(super) fn add(self, body: &[u8]) -> (Chain, [u8; HEAD]) {
        let next = Chain(crc32c::crc32c_append(self.0, body));
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&next.0.to_le_bytes());
        let checksum = self.head_checksum(&head[..8]);
        head[8..].copy_from_slice(&checksum.to_le_bytes());
        (next, head)
    }

    fn head_checksum(self, head: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.0.to_le_bytes()), head)
    }
}

/// Why a file is not a journal of this release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It is something else.
    Kind,
    /// Another release wrote it.
    Version,
    /// Its header has changed.
    Changed,
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An entry's body, and the chain with it.
    Body(Vec<u8>, Chain),
    /// Nothing.
    End,
    /// The beginning of an entry whose rest was never written.
    Torn,
    /// An entry that is not what was written.
    Damaged(&'static str),
}

/// Reads the next entry of at most `body_max` bytes, of a file of which `rest` bytes are left.
pub(super) fn next(
    reader: &mut impl Read,
    chain: Chain,
    rest: u64,
    body_max: usize,
) -> io::Result<Next> {
    if rest == 0 {
        return Ok(Next::End);
    }
    if rest < HEAD as u64 {
        return Ok(Next::Torn);
    }
    let mut head = [0; HEAD];
    reader.read_exact(&mut head)?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if chain.head_checksum(&head[..8]) != word(8) {
        return Ok(Next::Damaged("an entry's head does not fit its checksum"));
    }
    let length = word(0);
    if length as usize > body_max {
        return Ok(Next::Damaged("an entry is longer than one can be"));
    }
    if rest - (HEAD as u64) < u64::from(length) {
        return Ok(Next::Torn);
    }
    let mut body = vec![0; length as usize];
    reader.read_exact(&mut body)?;
    let (next, _) = chain.add(&body);
    match next.0 == word(4) {
        true => Ok(Next::Body(body, next)),
        false => Ok(Next::Damaged("an entry does not fit its checksum")),
    }
}
