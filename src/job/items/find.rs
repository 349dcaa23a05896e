//! Where items come from.

use super::{BATCH_BYTES, Extent, Item, TEXT_MAX};
use crate::aws::AwsSettings;
use crate::store::{Store, StoreError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there are no items.
#[derive(Debug, Error)]
pub enum ItemsError {
    /// A file, or the folder of some.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line is too long.
    #[error(
        "line {line} of {path} has more than {TEXT_MAX} bytes; give long items as files or objects"
    )]
    LongLine {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
    /// There is nothing of this name.
    #[error("{0}")]
    Nothing(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where items come from.
pub enum Items {
    /// Numbers.
    Range(Range<u64>),
    /// The lines of a file; of standard input if it has no path.
    Lines(Option<PathBuf>),
    /// Files or objects.
    Named(Vec<Item>),
}

impl Items {
    /// Finds them: `START..END` are numbers without the last, `-` the lines of standard input, `s3://bucket/prefix` objects, a
    /// pattern with `*`, `?` or `[` files, and any other name a file: its lines, or, with `split`, pieces of about so many bytes
    /// that end with a line.
    ///
    /// # Errors
    /// When there are none of this kind.
    pub async fn find(
        what: &str,
        split: Option<u64>,
        aws: &AwsSettings,
    ) -> Result<Items, ItemsError> {
        let nothing = |what: String| Err(ItemsError::Nothing(what));
        if let Some((from, to)) = what.split_once("..")
            && let (Ok(from), Ok(to)) = (from.parse(), to.parse())
        {
            if from > to {
                return nothing(format!("{what}: it ends before it begins"));
            }
            return Ok(Items::Range(from..to));
        }
        if what == "-" {
            return Ok(Items::Lines(None));
        }
        if what.starts_with("s3://") {
            return Ok(Items::Named(objects(what, split, aws).await?));
        }
        let path = Path::new(what);
        if path.is_file() {
            if split.is_none() {
                return Ok(Items::Lines(Some(path.into())));
            }
            return Ok(Items::Named(files(&[path.into()], split)?));
        }
        if !what.contains(['*', '?', '[']) {
            return nothing(format!(
                "{what}: there is no such file; a range is START..END, a pattern has a *"
            ));
        }
        let paths = glob::glob(what)
            .map_err(|error| ItemsError::Nothing(format!("{what}: this is no pattern: {error}")))?;
        let mut found = Vec::new();
        for path in paths {
            let path = path.map_err(|error| ItemsError::Read {
                path: error.path().display().to_string(),
                source: error.into(),
            })?;
            if path.is_file() {
                found.push(path);
            }
        }
        if found.is_empty() {
            return nothing(format!("{what}: no file matches"));
        }
        Ok(Items::Named(files(&found, split)?))
    }

    /// True if workers must see the files of this machine.
    pub fn are_files(&self) -> bool {
        let is_file = |item: &Item| matches!(item, Item::File { .. });
        matches!(self, Items::Named(items) if items.iter().any(is_file))
    }

    /// How many there are, or how many batches of so many, if that is known before they are read.
    pub fn count(&self, batch: u64) -> Option<u64> {
        match self {
            Items::Range(range) => Some((range.end - range.start).div_ceil(batch.max(1))),
            Items::Named(items) if batch <= 1 => Some(items.len() as u64),
            // A batch ends early when its items are long.
            Items::Lines(_) | Items::Named(_) => None,
        }
    }

    /// One after the other, or so many at a time if `batch` is more than one.
    ///
    /// # Errors
    /// When the file cannot be opened; each item, when it cannot be read.
    pub fn each(self, batch: u64) -> Result<EachItem, ItemsError> {
        if let Items::Range(range) = self {
            let begins = (range.start..range.end).step_by(batch.max(1) as usize);
            return Ok(Box::new(begins.map(move |from| {
                Ok(match batch {
                    0 | 1 => Item::Text(from.to_string().into_bytes()),
                    _ => Item::Range {
                        from,
                        to: from.saturating_add(batch).min(range.end),
                    },
                })
            })));
        }
        let each = self.one_by_one()?;
        Ok(match batch {
            0 | 1 => each,
            _ => Box::new(Batches {
                each,
                length: batch,
                first: 0,
            }),
        })
    }

    fn one_by_one(self) -> Result<EachItem, ItemsError> {
        match self {
            Items::Range(_) => unreachable!("the caller has them"),
            Items::Named(items) => Ok(Box::new(items.into_iter().map(Ok))),
            Items::Lines(None) => {
                let reader = BufReader::new(io::stdin());
                Ok(Box::new(TextLines::new(reader, "standard input".into())))
            }
            Items::Lines(Some(path)) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|source| ItemsError::Read {
                    path: name.clone(),
                    source,
                })?;
                let reader = BufReader::with_capacity(1 << 16, file);
                Ok(Box::new(TextLines::new(reader, name)))
            }
        }
    }
}

/// Items as they are read.
pub type EachItem = Box<dyn Iterator<Item = Result<Item, ItemsError>> + Send>;

/// So many items at a time.
struct Batches {
    each: EachItem,
    length: u64,
    first: u64,
}

impl Iterator for Batches {
    type Item = Result<Item, ItemsError>;

    fn next(&mut self) -> Option<Result<Item, ItemsError>> {
        let first = self.first;
        let mut items = Vec::new();
        let mut bytes = 0;
        while (items.len() as u64) < self.length
            && bytes < BATCH_BYTES
            && let Some(item) = self.each.next()
        {
            match item {
                Ok(item) => {
                    bytes += match &item {
                        Item::Text(text) => text.len() + 8,
                        Item::File { path, .. } => path.len() + 32,
                        Item::Object { store, key, .. } => store.len() + key.len() + 40,
                        Item::Range { .. } | Item::Listed { .. } | Item::Batch { .. } => 0,
                    };
                    items.push(item);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.first += items.len() as u64;
        (!items.is_empty()).then_some(Ok(Item::Batch { first, items }))
    }
}

/// The lines of a text as items.
struct TextLines<R> {
    reader: R,
    name: String,
    line: u64,
    over: bool,
}

impl<R: BufRead> TextLines<R> {
    fn new(reader: R, name: String) -> TextLines<R> {
        TextLines {
            reader,
            name,
            line: 0,
            over: false,
        }
    }
}

impl<R: BufRead> Iterator for TextLines<R> {
    type Item = Result<Item, ItemsError>;

    fn next(&mut self) -> Option<Result<Item, ItemsError>> {
        if self.over {
            return None;
        }
        self.line += 1;
        let mut text = Vec::new();
        let mut limited = (&mut self.reader).take(TEXT_MAX as u64 + 2);
        let outcome = limited.read_until(b'\n', &mut text);
        self.over = !matches!(outcome, Ok(1..));
        match outcome {
            Ok(0) => None,
            Ok(_) => {
                if text.last() == Some(&b'\n') {
                    text.pop();
                    if text.last() == Some(&b'\r') {
                        text.pop();
                    }
                }
                if text.len() > TEXT_MAX {
                    self.over = true;
                    return Some(Err(ItemsError::LongLine {
                        path: self.name.clone(),
                        line: self.line,
                    }));
                }
                Some(Ok(Item::Text(text)))
            }
            Err(source) => Some(Err(ItemsError::Read {
                path: self.name.clone(),
                source,
            })),
        }
    }
}

/// Files, or pieces of them.
fn files(paths: &[PathBuf], split: Option<u64>) -> Result<Vec<Item>, ItemsError> {
    let mut items = Vec::new();
    for path in paths {
        let read = |source| ItemsError::Read {
            path: path.display().to_string(),
            source,
        };
        let absolute = std::path::absolute(path).map_err(read)?;
        let length = std::fs::metadata(path).map_err(read)?.len();
        let utf8 = absolute
            .to_str()
            .ok_or_else(|| read(io::Error::other("its path is not UTF-8")))?;
        items.extend(pieces(length, split).map(|part| Item::File {
            path: utf8.into(),
            length,
            part,
        }));
    }
    Ok(items)
}

/// The objects under a prefix, or pieces of them.
async fn objects(
    what: &str,
    split: Option<u64>,
    aws: &AwsSettings,
) -> Result<Vec<Item>, ItemsError> {
    // As in S3, a prefix need not end with a name.
    let rest = what.trim_start_matches("s3://");
    let (store, prefix) = match rest.rsplit_once('/') {
        Some((folder, prefix)) => (format!("s3://{folder}"), prefix),
        None => (what.to_string(), ""),
    };
    let store = Store::open(&store, aws).await?;
    let entries = store.list(prefix).await?;
    if entries.is_empty() {
        return Err(ItemsError::Nothing(format!(
            "{what}: there are no objects whose names begin so"
        )));
    }
    let items = entries.into_iter().flat_map(|entry| {
        let store = store.url().to_string();
        pieces(entry.bytes, split)
            .map(move |part| Item::Object {
                store: store.clone(),
                key: entry.key.clone(),
                length: entry.bytes,
                part,
            })
            .collect::<Vec<_>>()
    });
    Ok(items.collect())
}

/// The ranges that cut so many bytes, or none if they are not cut.
pub fn pieces(length: u64, split: Option<u64>) -> impl Iterator<Item = Option<Extent>> {
    let split = split
        .filter(|split| length > *split)
        .unwrap_or(u64::MAX)
        .max(1);
    let whole = split == u64::MAX;
    let count = if whole { 1 } else { length.div_ceil(split) };
    (0..count).map(move |number| {
        (!whole).then(|| Extent {
            from: number * split,
            to: ((number + 1) * split).min(length),
            lines: true,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_batches() {
        let each = |items: Items, batch| -> Vec<Item> {
            items.each(batch).unwrap().map(Result::unwrap).collect()
        };
        let text = |number: u64| Item::Text(number.to_string().into_bytes());
        assert_eq!(each(Items::Range(3..5), 1), [text(3), text(4)]);
        let ranges = [(0, 4), (4, 8), (8, 9)].map(|(from, to)| Item::Range { from, to });
        assert_eq!(each(Items::Range(0..9), 4), ranges);
        assert_eq!(each(Items::Range(5..5), 4), []);
        let top = u64::MAX;
        let last = [Item::Range {
            from: top - 1,
            to: top,
        }];
        assert_eq!(each(Items::Range(top - 1..top), 4), last);
        let named = Items::Named((0..5).map(text).collect());
        let batches = [0..2, 2..4, 4..5].map(|part: Range<u64>| Item::Batch {
            first: part.start,
            items: part.map(text).collect(),
        });
        assert_eq!(each(named, 2), batches);
        // Long lines are not kept until there are enough of them.
        let mixed = [600 << 10, TEXT_MAX].map(|length| Item::Text(vec![b'x'; length]));
        let mixed = each(Items::Named(mixed.to_vec()), 1000);
        assert_eq!(mixed.len(), 1);
        assert!(mixed[0].to_bytes().is_ok());
        let long = Items::Named(vec![Item::Text(vec![b'x'; 600 << 10]); 5]);
        let long = each(long, 1000);
        assert_eq!(long.len(), 3);
        assert!(long.iter().all(|batch| batch.to_bytes().is_ok()));
    }

    #[test]
    fn lines_of_a_text_are_items() {
        let text: &[u8] = b"one\r\ntwo\n\nlast";
        let items = TextLines::new(text, "text".into());
        let items: Vec<Item> = items.map(Result::unwrap).collect();
        let expected = ["one", "two", "", "last"].map(|text| Item::Text(text.into()));
        assert_eq!(items, expected);
        for item in items {
            assert_eq!(Item::from_bytes(&item.to_bytes().unwrap()), Ok(item));
        }
    }
}
