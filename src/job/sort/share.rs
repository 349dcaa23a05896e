//! Which part of the inputs each rank reads. Pure.

use super::record::Format;
use crate::job::items::{Extent, Item};

/// What a rank reads of inputs that lie behind each other: an equal share of their bytes, in whole records. An input that is a
/// part already cannot be divided.
pub fn share(inputs: &[Item], rank: u32, ranks: u32, format: Format) -> Vec<Item> {
    let length = |item: &Item| item.length().unwrap_or(0);
    let total: u64 = inputs.iter().map(length).sum();
    let bound = |rank: u32| (u128::from(total) * u128::from(rank) / u128::from(ranks)) as u64;
    let (from, to) = (bound(rank), bound(rank + 1));
    let mut mine = Vec::new();
    let mut begin = 0;
    for input in inputs {
        let length = length(input);
        let end = begin + length;
        let part = (from.max(begin) - begin, to.clamp(begin, end) - begin);
        if input.part().is_some() {
            // The rank in whose share it begins reads all of it.
            if length > 0 && (from..to).contains(&begin) {
                mine.push(input.clone());
            }
        } else if part.0 < part.1 {
            // A record belongs to the rank in whose share it begins.
            let (from, to) = match format {
                Format::Lines | Format::Keyed | Format::Grouped => part,
                Format::Fixed(record) => (
                    part.0.next_multiple_of(record.into()),
                    part.1.next_multiple_of(record.into()).min(length),
                ),
            };
            if from < to {
                mine.push(of(input, from, to, format));
            }
        }
        begin = end;
    }
    mine
}

/// A place that a sample is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// It.
    pub item: Item,
    /// Records at its beginning that are sampled.
    pub records: usize,
}

/// Places in a share that a sample is taken from: so many, evenly spread, of about so many bytes and so many records each. Of
/// an input that cannot be divided the beginning stands for all of it.
pub fn windows(
    mine: &[Item],
    count: u64,
    length: u64,
    records: usize,
    format: Format,
) -> Vec<Window> {
    let total: u64 = mine.iter().map(range_len).sum();
    if total <= count * length {
        let each = records.max(records * count as usize / mine.len().max(1));
        let window = |item: &Item| Window {
            item: item.clone(),
            records: match is_divisible(item) {
                true => records,
                false => each,
            },
        };
        return mine.iter().map(window).collect();
    }
    let mut found: Vec<Window> = Vec::new();
    for number in 0..count {
        let mut at = total / count * number;
        for item in mine {
            let here = range_len(item);
            if at >= here {
                at -= here;
                continue;
            }
            if !is_divisible(item) {
                match found.last_mut() {
                    Some(last) if last.item == *item => last.records += records,
                    _ => found.push(Window {
                        item: item.clone(),
                        records,
                    }),
                }
                break;
            }
            let part = item.part().expect("a share consists of parts");
            let from = part.from
                + match format {
                    Format::Lines | Format::Keyed | Format::Grouped => at,
                    Format::Fixed(length) => at - at % u64::from(length),
                };
            let wanted = match format {
                Format::Lines | Format::Keyed | Format::Grouped => length,
                Format::Fixed(record) => length.next_multiple_of(record.into()),
            };
            found.push(Window {
                item: of(item, from, (from + wanted).min(part.to), format),
                records,
            });
            break;
        }
    }
    found
}

/// True if a range of its bytes can be read without what lies ahead of it.
fn is_divisible(item: &Item) -> bool {
    item.part().is_some_and(|part| !part.unpack)
}

/// Bytes of a part of an input, as they lie.
fn range_len(item: &Item) -> u64 {
    match item.part() {
        Some(part) if !part.unpack => part.to - part.from,
        _ => item.length().unwrap_or(0),
    }
}

fn of(item: &Item, from: u64, to: u64, format: Format) -> Item {
    item.clone().with_part(Some(Extent {
        from,
        to,
        lines: !matches!(format, Format::Fixed(_)),
        unpack: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lengths: &[u64]) -> Vec<Item> {
        let file = |(number, length): (usize, &u64)| Item::File {
            path: format!("/{number}"),
            length: *length,
            modified: None,
            crc32c: None,
            part: None,
        };
        lengths.iter().enumerate().map(file).collect()
    }

    #[test]
    fn shares_are_all_of_it_and_nothing_twice() {
        for lengths in [&[1000_u64][..], &[100, 0, 300, 100], &[], &[100, 100]] {
            for format in [Format::Lines, Format::Fixed(100)] {
                for ranks in 1..9 {
                    let inputs = inputs(lengths);
                    let all: Vec<Item> = (0..ranks)
                        .flat_map(|rank| share(&inputs, rank, ranks, format))
                        .collect();
                    let mut found = vec![0; lengths.len()];
                    for item in &all {
                        let Item::File { path, .. } = item else {
                            panic!("{item}");
                        };
                        let input: usize = path[1..].parse().unwrap();
                        let part = item.part().unwrap();
                        assert_eq!(part.from, found[input], "in order, without gaps");
                        found[input] = part.to;
                        if let Format::Fixed(length) = format {
                            assert_eq!(part.from % u64::from(length), 0);
                        }
                    }
                    assert_eq!(found, lengths);
                }
            }
        }
    }

    #[test]
    fn windows_lie_within_a_share() {
        let inputs = inputs(&[100_000, 50_000, 200_000]);
        for format in [Format::Lines, Format::Fixed(100)] {
            let mine = share(&inputs, 1, 3, format);
            let found = windows(&mine, 8, 1000, 3, format);
            assert_eq!(found.len(), 8);
            for Window {
                item: window,
                records,
            } in &found
            {
                assert_eq!(*records, 3);
                let part = window.part().unwrap();
                assert!(part.to - part.from <= 1000 && part.from < part.to);
                let inside = |item: &Item| {
                    let all = item.part().unwrap();
                    let (Item::File { path: a, .. }, Item::File { path: b, .. }) = (item, window)
                    else {
                        return false;
                    };
                    a == b && all.from <= part.from && part.to <= all.to
                };
                assert!(mine.iter().any(inside));
            }
            let whole = windows(&mine, 1000, 1000, 3, format);
            assert!(whole.iter().map(|window| &window.item).eq(&mine));
        }
    }

    #[test]
    fn an_input_that_cannot_be_divided_is_read_by_one_rank() {
        let mut inputs = inputs(&[1000, 50, 700, 5000]);
        for place in [1, 2] {
            inputs[place] = inputs[place].clone().with_part(Some(Extent::ALL_LINES));
        }
        for ranks in 1..9 {
            let mut readers = [0; 2];
            let mut bytes = 0;
            for rank in 0..ranks {
                let mine = share(&inputs, rank, ranks, Format::Lines);
                for item in &mine {
                    match item.part() {
                        Some(Extent::ALL_LINES) => {
                            readers[usize::from(item.length() == Some(700))] += 1;
                        }
                        Some(part) => bytes += part.to - part.from,
                        None => panic!("{item} is no share"),
                    }
                }
                let sampled = windows(&mine, 64, 10, 2, Format::Lines);
                let of_whole = |window: &Window| window.item.part() == Some(Extent::ALL_LINES);
                for window in sampled.iter().filter(|window| of_whole(window)) {
                    assert!(mine.contains(&window.item));
                    assert!(window.records >= 2);
                }
            }
            assert_eq!((readers, bytes), ([1, 1], 6000), "{ranks} ranks");
        }
    }
}
