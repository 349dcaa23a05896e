//! Is something sorted, and is it what was to be sorted? Pure, but for reading.

use super::record::Format;
use serde::Serialize;

/// What was seen of records that were looked at in turn.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Seen {
    /// How many.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The sum of the CRC-32 of each: the same for the same records in whatever order, as valsort's.
    pub checksum: u128,
    /// Records whose key is that of the one before.
    pub duplicates: u64,
    /// The first record, counted from 0, whose key is lower than that of the one before.
    pub disorder: Option<u64>,
}

/// Looks at records one after the other.
pub struct Check {
    format: Format,
    /// Of records of a fixed length, so many bytes are the key.
    key_len: usize,
    last: Option<Vec<u8>>,
    seen: Seen,
}

impl Check {
    /// Nothing was seen.
    pub fn new(format: Format, key_len: usize) -> Check {
        Check {
            format,
            key_len,
            last: None,
            seen: Seen::default(),
        }
    }

    /// Looks at whole records.
    pub fn look(&mut self, bytes: &[u8]) {
        for record in self.format.each(bytes) {
            let key = self.format.key(record);
            let key = match self.format {
                Format::Fixed(_) => &key[..self.key_len.min(key.len())],
                Format::Lines | Format::Keyed | Format::Grouped => key,
            };
            match &mut self.last {
                Some(last) => {
                    match key.cmp(last) {
                        std::cmp::Ordering::Less => {
                            self.seen.disorder.get_or_insert(self.seen.records);
                        }
                        std::cmp::Ordering::Equal => self.seen.duplicates += 1,
                        std::cmp::Ordering::Greater => {}
                    }
                    last.clear();
                    last.extend_from_slice(key);
                }
                None => self.last = Some(key.to_vec()),
            }
            self.seen.records += 1;
            self.seen.checksum += u128::from(crc32fast::hash(record));
        }
        self.seen.bytes += bytes.len() as u64;
    }

    /// What was seen.
    pub fn seen(self) -> Seen {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disorder_duplicates_and_other_records_are_seen() {
        let look = |text: &[u8]| {
            let mut check = Check::new(Format::Lines, 0);
            check.look(text);
            check.seen()
        };
        let sorted = look(b"a\nb\nb\nc\n");
        assert_eq!((sorted.records, sorted.bytes, sorted.duplicates), (4, 8, 1));
        assert_eq!(sorted.disorder, None);
        let mixed = look(b"b\nc\na\nb\n");
        assert_eq!((mixed.disorder, mixed.checksum), (Some(2), sorted.checksum));
        assert_ne!(look(b"a\nb\nc\nc\n").checksum, sorted.checksum);
        let mut check = Check::new(Format::Fixed(4), 2);
        check.look(b"ab99ab00ac00");
        let seen = check.seen();
        assert_eq!((seen.disorder, seen.duplicates), (None, 1));
    }
}
