//! Where items come from: what a user wrote, as items.

use super::cut::{Cutting, cut};
use super::folder::{Files, file_item, read_error};
use super::lines::{Batches, EachItem, Text};
use super::pipe::{Pipe, is_own_descriptor};
use super::{Item, TEXT_MAX, prefix};
use crate::aws::AwsSettings;
use crate::store::{Store, StoreError};
use glob::MatchOptions;
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Read};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Names that a note lists.
const NAMES_SHOWN: usize = 1;

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
        "line {line} of {path} has more than {TEXT_MAX} bytes, the most of an item that is a line; give long items as files or \
         objects, or with --split"
    )]
    LongLine {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
    /// A text cannot be read, as the message says.
    #[error("{0}")]
    Text(String),
    /// There is nothing of this name.
    #[error("{0}")]
    Nothing(String),
    /// What is there must not be read as data, as the message says.
    #[error("{0}")]
    Unusable(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a user must know of what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes(Vec<String>);

impl Notes {
    /// Sentences without a full stop.
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    /// The lines as the end of an error's sentence.
    fn as_suffix(&self) -> String {
        self.0.iter().map(|line| format!("; {line}")).collect()
    }

    pub(super) fn add(&mut self, line: String) {
        self.0.push(line);
    }

    pub(super) fn passed_over(&mut self, names: &[String]) {
        if !names.is_empty() {
            let are = are_not_read(names.len(), "file", "files");
            self.add(format!(
                "{are}: {} (hidden files, markers, files that are no part of a result, links to folders, and what is no file)",
                first_of(names)
            ));
        }
    }

    pub(super) fn subfolders(&mut self, names: &[String]) {
        if !names.is_empty() {
            let are = are_not_read(names.len(), "subfolder", "subfolders");
            self.add(format!(
                "{are}: {}; --recursive reads them",
                first_of(names)
            ));
        }
    }

    pub(super) fn markers(&mut self, count: usize) {
        if count > 0 {
            let are = are_not_read(count, "folder marker", "folder markers");
            self.add(format!("{are} (empty objects whose names end with /)"));
        }
    }
}

fn are_not_read(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one} is not read"),
        _ => format!("{count} {many} are not read"),
    }
}

/// The first of some names, and how many there are besides.
fn first_of(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN);
    let shown: Vec<&str> = shown.map(String::as_str).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What was found, and what is to be said of it.
#[derive(Debug)]
pub struct Found<T> {
    /// The items.
    pub items: T,
    /// What the user must know.
    pub notes: Notes,
}

/// Where items come from.
#[derive(Debug)]
pub enum Items {
    /// Numbers.
    Range(Range<u64>),
    /// The lines of a text.
    Lines(Text),
    /// Files or objects.
    Named(Vec<Item>),
    /// A text that is to be cut, and can be read only once: [`Items::stored`] has it copied.
    Piped(Pipe, Cutting),
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What the user wrote.
    pub what: &'a str,
    /// How files and objects are divided.
    pub cutting: Cutting,
    /// What is in folders below the one that is named is wanted too.
    pub recursive: bool,
}

impl Items {
    /// Finds them: `START..END` are numbers without the last, `-` and pipes standard input and the like, `s3://bucket/prefix` objects,
    /// a folder and a pattern with `*`, `?` or `[` files. Any other name is a file: its lines if it is not cut.
    ///
    /// # Errors
    /// When there are none of this kind, or they must not be read as data.
    pub async fn find(wanted: Wanted<'_>, aws: &AwsSettings) -> Result<Found<Items>, ItemsError> {
        let Wanted {
            what,
            cutting,
            recursive,
        } = wanted;
        let nothing = |what: String| Err(ItemsError::Nothing(what));
        let found = |items| {
            let notes = Notes::default();
            Ok(Found { items, notes })
        };
        if let Some(range) = range(what)? {
            return found(Items::Range(range));
        }
        if what == "-" {
            return found(Items::once(Pipe { path: None }, cutting));
        }
        if what.starts_with("s3://") {
            let (store, prefix) = prefix::open(what, aws).await?;
            let Found { items, notes } = prefix::objects(what, &store, prefix).await?;
            let items = Items::Named(cut(items, cutting, Some(&store)).await?);
            return Ok(Found { items, notes });
        }
        let path = Path::new(what);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let mut files = Files::default();
                files.walk(path, recursive)?;
                let skip = what.len() + usize::from(!what.ends_with('/'));
                let Found { items, notes } = files.choose(skip, true)?;
                if items.is_empty() {
                    return nothing(format!(
                        "{what}: the folder has no files that are data{}",
                        notes.as_suffix()
                    ));
                }
                let items = Items::Named(cut(items, cutting, None).await?);
                return Ok(Found { items, notes });
            }
            Ok(metadata) => return found(one(path, &metadata, cutting).await?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(source) => return Err(read_error(path, source)),
        }
        if !what.contains(['*', '?', '[']) {
            return nothing(format!(
                "{what}: there is no such file; a range is START..END, a pattern has a *"
            ));
        }
        // As in a shell, no * matches a hidden file.
        let options = MatchOptions {
            require_literal_leading_dot: true,
            ..MatchOptions::new()
        };
        let paths = glob::glob_with(what, options)
            .map_err(|error| ItemsError::Nothing(format!("{what}: this is no pattern: {error}")))?;
        let mut files = Files::default();
        for path in paths {
            let path = path.map_err(|error| ItemsError::Read {
                path: error.path().display().to_string(),
                source: error.into(),
            })?;
            files.matched(path, recursive)?;
        }
        // A name that the pattern spells out is meant, whatever it is.
        let skip = usize::MAX;
        let Found { items, notes } = files.choose(skip, false)?;
        if items.is_empty() {
            return nothing(format!("{what}: no file matches{}", notes.as_suffix()));
        }
        let items = Items::Named(cut(items, cutting, None).await?);
        Ok(Found { items, notes })
    }

    /// What can be read once.
    fn once(pipe: Pipe, cutting: Cutting) -> Items {
        match cutting {
            Cutting::Whole => Items::Lines(Text::Pipe(pipe)),
            cutting => Items::Piped(pipe, cutting),
        }
    }

    /// What can be read only once and is to be cut.
    pub fn pipe(&self) -> Option<&Pipe> {
        match self {
            Items::Piped(pipe, _) => Some(pipe),
            _ => None,
        }
    }

    /// Has what can be read only once copied into an object, and cuts that. Others stay what they are.
    ///
    /// # Errors
    /// When it cannot be read, or the store does not take it.
    pub async fn stored(self, store: &Store, key: &str) -> Result<Items, ItemsError> {
        match self {
            Items::Piped(pipe, cutting) => {
                let item = pipe.store(store, key).await?;
                Ok(Items::Named(cut(vec![item], cutting, Some(store)).await?))
            }
            items => Ok(items),
        }
    }

    /// The files and objects, where they are known.
    pub fn named(&self) -> &[Item] {
        match self {
            Items::Named(items) => items,
            _ => &[],
        }
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
            Items::Lines(_) | Items::Named(_) | Items::Piped(..) => None,
        }
    }

    /// One after the other, or so many at a time if `batch` is more than one. Each is an error when it cannot be read.
    pub fn each(self, batch: u64) -> EachItem {
        if let Items::Range(range) = self {
            let begins = (range.start..range.end).step_by(batch.max(1) as usize);
            return Box::new(begins.map(move |from| {
                Ok(match batch {
                    0 | 1 => Item::Text(from.to_string().into_bytes()),
                    _ => Item::Range {
                        from,
                        to: from.saturating_add(batch).min(range.end),
                    },
                })
            }));
        }
        let each: EachItem = match self {
            Items::Range(_) => unreachable!("they were given above"),
            Items::Named(items) => Box::new(items.into_iter().map(Ok)),
            Items::Lines(text) => text.lines(),
            Items::Piped(pipe, _) => Box::new(std::iter::once(Err(ItemsError::Unusable(format!(
                "{} can be read once and was not copied",
                pipe.name()
            ))))),
        };
        match batch {
            0 | 1 => each,
            _ => Box::new(Batches {
                each,
                length: batch,
                first: 0,
            }),
        }
    }
}

/// `START..END`, if it is that.
fn range(what: &str) -> Result<Option<Range<u64>>, ItemsError> {
    let Some((from, to)) = what.split_once("..") else {
        return Ok(None);
    };
    let is_number = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
    };
    if !is_number(from) || !is_number(to) {
        return Ok(None);
    }
    let nothing = |problem: String| Err(ItemsError::Nothing(format!("{what}: {problem}")));
    let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else {
        return nothing(format!(
            "a range is of whole numbers from 0 to {}, without a sign; for others give a program that reads lines, as with --items -",
            u64::MAX
        ));
    };
    if from > to {
        return nothing("it ends before it begins".into());
    }
    Ok(Some(from..to))
}

/// What a name that is no folder stands for.
async fn one(path: &Path, metadata: &Metadata, cutting: Cutting) -> Result<Items, ItemsError> {
    let kind = metadata.file_type();
    let what = path.display();
    let once = |path: &Path| {
        let path = Some(path.to_path_buf());
        Ok(Items::once(Pipe { path }, cutting))
    };
    if kind.is_fifo() {
        return once(path);
    }
    if kind.is_char_device() {
        // The two that end.
        let is_null = metadata.rdev() == fs::metadata("/dev/null").map_or(0, |null| null.rdev());
        if is_null || File::open(path).is_ok_and(|file| file.is_terminal()) {
            return once(path);
        }
    }
    if !kind.is_file() {
        let kind = match (kind.is_socket(), kind.is_block_device()) {
            (true, _) => "a socket",
            (_, true) => "a block device",
            _ => "a device",
        };
        return Err(ItemsError::Nothing(format!(
            "{what}: this is {kind}, and no file; have a program read it into a file or a pipe"
        )));
    }
    let mut file = File::open(path).map_err(|source| read_error(path, source))?;
    // Files of /proc have no length and something to read.
    let has_no_length = metadata.len() == 0
        && file
            .read(&mut [0])
            .map_err(|source| read_error(path, source))?
            > 0;
    let named = match is_own_descriptor(&path.to_string_lossy()) {
        // Other processes have other files by that name.
        true => match same_file(path, metadata) {
            Some(named) => named,
            None => return once(path),
        },
        false => path.into(),
    };
    if cutting == Cutting::Whole {
        return Ok(Items::Lines(Text::File(named)));
    }
    if has_no_length {
        return once(&named);
    }
    let items = vec![file_item(&named, metadata, None)?];
    Ok(Items::Named(cut(items, cutting, None).await?))
}

/// The name that a file has for every process, if it has one.
fn same_file(path: &Path, metadata: &Metadata) -> Option<PathBuf> {
    let named = fs::canonicalize(path).ok()?;
    let found = fs::metadata(&named).ok()?;
    ((found.dev(), found.ino()) == (metadata.dev(), metadata.ino())).then_some(named)
}

/// A file of this machine as items.
///
/// # Errors
/// When it cannot be looked at, or is in a form that is not read.
#[cfg(test)]
pub(super) async fn file_items(path: &Path, cutting: Cutting) -> Result<Vec<Item>, ItemsError> {
    let metadata = fs::metadata(path).map_err(|source| read_error(path, source))?;
    cut(vec![file_item(path, &metadata, None)?], cutting, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_batches() {
        let each =
            |items: Items, batch| -> Vec<Item> { items.each(batch).map(Result::unwrap).collect() };
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
    fn ranges_are_of_numbers_without_a_sign() {
        assert_eq!(range("3..5").unwrap(), Some(3..5));
        for other in ["", "..", "a..b", "3..", "..5", "../3..5", "3..5.txt"] {
            assert_eq!(range(other).unwrap(), None, "{other}");
        }
        for (wrong, words) in [
            ("-2..2", "from 0 to 18446744073709551615"),
            ("0..-2", "without a sign"),
            ("0..18446744073709551616", "from 0 to"),
            ("5..3", "ends before it begins"),
        ] {
            let what = range(wrong).unwrap_err().to_string();
            assert!(what.starts_with(wrong) && what.contains(words), "{what}");
        }
    }
}
