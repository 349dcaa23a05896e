//! Records to sort, in the layouts of the sort benchmark's gensort; the numbers are our own. Pure.

/// The length of a record.
pub const RECORD: usize = 100;

/// The length of its key.
pub const KEY: usize = 10;

/// How records look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Printable, and each a line that ends with CR LF.
    Ascii,
    /// Keys of any bytes.
    Binary,
}

/// Appends the record of a number. The same seed gives the same records everywhere.
pub fn put_record(layout: Layout, seed: u64, number: u64, to: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut random = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        // SplitMix64, by Steele, Lea and Flood (OOPSLA 2014).
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    match layout {
        Layout::Ascii => {
            for _ in 0..2 {
                let mut word = next();
                for _ in 0..KEY / 2 {
                    to.push(b' ' + (word % 95) as u8);
                    word /= 95;
                }
            }
            to.extend_from_slice(b"  ");
        }
        Layout::Binary => {
            to.extend_from_slice(&next().to_le_bytes());
            to.extend_from_slice(&next().to_le_bytes()[..2]);
            to.extend_from_slice(&[0x00, 0x11]);
        }
    }
    for place in (0..32).rev() {
        let digit = if place < 16 {
            number >> (4 * place) & 15
        } else {
            0
        };
        to.push(DIGITS[digit as usize]);
    }
    let (ahead, runs, behind): (&[u8], u32, &[u8]) = match layout {
        Layout::Ascii => (b"  ", 13, b"\r\n"),
        Layout::Binary => (&[0x88, 0x99, 0xaa, 0xbb], 12, &[0xcc, 0xdd, 0xee, 0xff]),
    };
    to.extend_from_slice(ahead);
    let mut word = next();
    for _ in 0..runs {
        to.extend_from_slice(&[DIGITS[(word & 15) as usize]; 4]);
        word >>= 4;
    }
    to.extend_from_slice(behind);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn records_have_the_layouts_that_sort_benchmarks_have() {
        let mut keys = BTreeSet::new();
        for number in 0..2000 {
            let mut record = Vec::new();
            put_record(Layout::Ascii, 1, number, &mut record);
            assert_eq!(record.len(), RECORD);
            assert!(record[..98].iter().all(|byte| (0x20..0x7f).contains(byte)));
            assert_eq!(record[12..44], format!("{number:032X}").into_bytes());
            assert_eq!(
                (&record[10..12], &record[44..46], &record[98..]),
                (&b"  "[..], &b"  "[..], &b"\r\n"[..])
            );
            keys.insert(record[..KEY].to_vec());
            let mut record = Vec::new();
            put_record(Layout::Binary, 1, number, &mut record);
            assert_eq!(record.len(), RECORD);
            assert_eq!(record[12..44], format!("{number:032X}").into_bytes());
            keys.insert(record[..KEY].to_vec());
        }
        assert_eq!(keys.len(), 4000);
    }
}
