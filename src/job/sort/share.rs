//! Which part of the inputs each rank reads. Pure.

use super::record::Format;
use crate::job::items::{Extent, Item};

/// What a rank reads of whole files or objects that lie behind each other: an equal share of their bytes, in whole records.
pub fn share(inputs: &[Item], rank: u32, ranks: u32, format: Format) -> Vec<Item> {
    let length = |item: &Item| item.extent().map_or(0, |whole| whole.to);
    let total: u64 = inputs.iter().map(length).sum();
    let bound = |rank: u32| (u128::from(total) * u128::from(rank) / u128::from(ranks)) as u64;
    let (from, to) = (bound(rank), bound(rank + 1));
    let mut mine = Vec::new();
    let mut begin = 0;
    for input in inputs {
        let length = length(input);
        let end = begin + length;
        let part = (from.max(begin) - begin, to.clamp(begin, end) - begin);
        if part.0 < part.1 {
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

/// Places in a share that a sample is taken from: so many, evenly spread, of about so many bytes each.
pub fn windows(mine: &[Item], count: u64, length: u64, format: Format) -> Vec<Item> {
    let extents: Vec<(&Item, Extent)> = mine
        .iter()
        .filter_map(|item| Some((item, item.extent()?)))
        .collect();
    let total: u64 = extents.iter().map(|(_, part)| part.to - part.from).sum();
    if total <= count * length {
        return mine.to_vec();
    }
    let mut found = Vec::new();
    for number in 0..count {
        let mut at = total / count * number;
        for (item, part) in &extents {
            let here = part.to - part.from;
            if at >= here {
                at -= here;
                continue;
            }
            let from = part.from
                + match format {
                    Format::Lines | Format::Keyed | Format::Grouped => at,
                    Format::Fixed(length) => at - at % u64::from(length),
                };
            let wanted = match format {
                Format::Lines | Format::Keyed | Format::Grouped => length,
                Format::Fixed(record) => length.next_multiple_of(record.into()),
            };
            found.push(of(item, from, (from + wanted).min(part.to), format));
            break;
        }
    }
    found
}

fn of(item: &Item, from: u64, to: u64, format: Format) -> Item {
    let extent = Extent {
        from,
        to,
        lines: !matches!(format, Format::Fixed(_)),
    };
    let mut item = item.clone();
    if let Item::File { part, .. } | Item::Object { part, .. } = &mut item {
        *part = Some(extent);
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lengths: &[u64]) -> Vec<Item> {
        let file = |(number, length): (usize, &u64)| Item::File {
            path: format!("/{number}"),
            length: *length,
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
                        let part = item.extent().unwrap();
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
            let found = windows(&mine, 8, 1000, format);
            assert_eq!(found.len(), 8);
            for window in &found {
                let part = window.extent().unwrap();
                assert!(part.to - part.from <= 1000 && part.from < part.to);
                let inside = |item: &Item| {
                    let all = item.extent().unwrap();
                    let (Item::File { path: a, .. }, Item::File { path: b, .. }) = (item, window)
                    else {
                        return false;
                    };
                    a == b && all.from <= part.from && part.to <= all.to
                };
                assert!(mine.iter().any(inside));
            }
            assert_eq!(windows(&mine, 1000, 1000, format), mine);
        }
    }
}
