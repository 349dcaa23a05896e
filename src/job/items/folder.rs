//! The files of a folder, or of several that a pattern names.

use super::Item;
use super::find::{Found, ItemsError, Notes};
use super::raw::modified_ns;
use super::select::{
    Customs, Listed, RESULT_MAX, RESULT_NAME, ResultPart, UNFINISHED_NAME, result_parts, select,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Files that were found, in the order in which they were named.
#[derive(Default)]
pub(super) struct Files {
    files: Vec<(PathBuf, Metadata)>,
    /// Their paths: a pattern may match a file, and a folder that it is in.
    seen: BTreeSet<PathBuf>,
    /// Folders that were not, since that was not asked for.
    subfolders: Vec<PathBuf>,
    /// Pipes, sockets, devices, and links to folders, which could lead in a circle.
    others: Vec<PathBuf>,
    /// Folders with writes that were never finished.
    unfinished: Vec<PathBuf>,
}

impl Files {
    /// Adds what is in a folder; in those below only if `recursive`.
    pub(super) fn walk(&mut self, folder: &Path, recursive: bool) -> Result<(), ItemsError> {
        let failed = |source| read_error(folder, source);
        let entries = fs::read_dir(folder).map_err(failed)?;
        let entries: io::Result<Vec<_>> = entries.collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // Editors leave hidden links that lead nowhere.
                Err(error) if is_hidden && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(read_error(&path, error)),
            };
            match (metadata.is_dir(), is_hidden) {
                (false, _) => self.add(path, metadata),
                (true, false) if path.is_symlink() => self.others.push(path),
                (true, false) if recursive => self.walk(&path, true)?,
                (true, false) => self.subfolders.push(path),
                (true, true) => {
                    let is_used =
                        || fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_some());
                    if name == UNFINISHED_NAME && is_used() {
                        self.unfinished.push(folder.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what a pattern matches.
    pub(super) fn matched(&mut self, path: PathBuf, recursive: bool) -> Result<(), ItemsError> {
        let metadata = fs::metadata(&path).map_err(|error| read_error(&path, error))?;
        match (metadata.is_dir(), recursive) {
            (false, _) => self.add(path, metadata),
            (true, true) => self.walk(&path, true)?,
            (true, false) => self.subfolders.push(path),
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, metadata: Metadata) {
        match metadata.is_file() {
            true if !self.seen.insert(path.clone()) => {}
            true => self.files.push((path, metadata)),
            false => self.others.push(path),
        }
    }

    /// The data among them, whole. `skip` are the bytes of each path that are not a name within what was asked for;
    /// `is_complete` says that all files of each folder were looked at.
    pub(super) fn choose(
        self,
        skip: usize,
        is_complete: bool,
    ) -> Result<Found<Vec<Item>>, ItemsError> {
        let listed: Vec<Listed> = self
            .files
            .iter()
            .map(|(path, metadata)| Listed {
                key: path.to_string_lossy().into_owned(),
                length: metadata.len(),
            })
            .collect();
        let results = self.results(&listed, is_complete)?;
        let customs = Customs {
            dots_hide: true,
            is_complete,
            skip,
        };
        let selection = select(&listed, &results, customs).map_err(ItemsError::Unusable)?;
        let mut notes = Notes::default();
        let name = |path: &PathBuf| path.display().to_string();
        // Of a folder that ** matches, the files were matched too.
        let is_unread = |folder: &&PathBuf| {
            let mut after = self
                .seen
                .range::<Path, _>((Bound::Excluded(folder.as_path()), Bound::Unbounded));
            after.next().is_none_or(|path| !path.starts_with(folder))
        };
        let subfolders = self.subfolders.iter().filter(is_unread);
        notes.subfolders(&subfolders.map(name).collect::<Vec<_>>());
        let over = selection.passed_over.iter();
        let mut over: Vec<String> = over.map(|place| listed[*place].key.clone()).collect();
        over.extend(self.others.iter().map(name));
        notes.passed_over(&over);
        for folder in &self.unfinished {
            let key = format!("{}/", folder.display());
            if !results.keys().any(|result| key.starts_with(&result[..])) {
                notes.add(format!(
                    "{} has writes that are not finished ({UNFINISHED_NAME}) and no {RESULT_NAME}: the job that writes there still runs \
                     or has failed",
                    folder.display()
                ));
            }
        }
        let mut items = Vec::with_capacity(selection.data.len());
        for (place, crc32c) in selection.data {
            let (path, metadata) = &self.files[place];
            items.push(file_item(path, metadata, crc32c)?);
        }
        Ok(Found { items, notes })
    }

    /// The parts of the results among them, by their folders. A result that was matched by a pattern counts only where one of
    /// its parts was matched too.
    fn results(
        &self,
        listed: &[Listed],
        is_complete: bool,
    ) -> Result<BTreeMap<String, Vec<ResultPart>>, ItemsError> {
        let mut results = BTreeMap::new();
        let keys: BTreeSet<&str> = listed.iter().map(|file| &file.key[..]).collect();
        for (file, (path, metadata)) in listed.iter().zip(&self.files) {
            if path.file_name().is_none_or(|name| name != RESULT_NAME)
                || metadata.len() > RESULT_MAX
            {
                continue;
            }
            let mut bytes = Vec::new();
            let file_of = fs::File::open(path).map_err(|error| read_error(path, error))?;
            file_of
                .take(RESULT_MAX)
                .read_to_end(&mut bytes)
                .map_err(|error| read_error(path, error))?;
            let parts = result_parts(&bytes)
                .map_err(|what| ItemsError::Unusable(format!("{}: {what}", path.display())))?;
            let folder = file.folder();
            let is_there = |part: &ResultPart| keys.contains(&format!("{folder}{}", part.name)[..]);
            if let Some(parts) = parts
                && (is_complete || parts.iter().any(is_there))
            {
                results.insert(folder.to_string(), parts);
            }
        }
        Ok(results)
    }
}

/// A whole file as an item.
pub(super) fn file_item(
    path: &Path,
    metadata: &Metadata,
    crc32c: Option<u32>,
) -> Result<Item, ItemsError> {
    let absolute = std::path::absolute(path).map_err(|error| read_error(path, error))?;
    let utf8 = absolute
        .to_str()
        .ok_or_else(|| read_error(path, io::Error::other("its path is not UTF-8")))?;
    Ok(Item::File {
        path: utf8.into(),
        length: metadata.len(),
        modified: modified_ns(metadata),
        crc32c,
        part: None,
    })
}

pub(super) fn read_error(path: &Path, source: io::Error) -> ItemsError {
    ItemsError::Read {
        path: path.display().to_string(),
        source,
    }
}
