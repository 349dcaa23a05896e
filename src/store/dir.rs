//! A store in a directory: every object is a file, and its key is the file's path.
//!
//! A write fills a file in the folder `.lswitch-tmp` of the store and then gives it its name in one step, so readers
//! never see a part of it; a process that is killed may leave such a file behind, which is never listed. A writer keeps its
//! file locked, so that a file that can be locked has no writer and may be deleted: `sweep` does. Objects take the permissions that the umask leaves. Symbolic links are the user's business:
//! reads and writes follow them wherever they lead, also out of the store, but `list` does not show them.
//!
//! File work runs on tokio's blocking threads and has no deadline: on a network file system it waits as long as that does.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::NamedTempFile;

use super::{Entry, Placed, StoreError, TEMPORARY_FOLDER};
use crate::process::scratch::{Lock, is_at, try_lock};

/// What the names of files begin with that are being written.
const UNFINISHED: &str = "put-";

/// How often a file is made that a sweep takes away before it can be locked: each time is a coincidence of microseconds.
const CREATE_TRIES: usize = 16;

/// The directory. It need not exist before the first write.
#[derive(Clone)]
pub(super) struct Dir {
    root: Arc<Path>,
}

impl Dir {
    pub(super) fn new(root: PathBuf) -> Dir {
        Dir { root: root.into() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) async fn get(&self, key: &str, url: String) -> Result<Bytes, StoreError> {
        let path = self.root.join(key);
        blocking(move || match fs::read(path) {
            Ok(value) => Ok(value.into()),
            Err(error) => Err(read_error(error, url)),
        })
        .await
    }

    pub(super) async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
        url: String,
    ) -> Result<Bytes, StoreError> {
        let path = self.root.join(key);
        blocking(move || match read_range(&path, &range) {
            Ok(Some(value)) => Ok(value.into()),
            Ok(None) => Err(StoreError::ShortObject {
                url,
                start: range.start,
                end: range.end,
            }),
            Err(error) => Err(read_error(error, url)),
        })
        .await
    }

    pub(super) async fn put(&self, key: &str, value: Bytes, url: String) -> Result<(), StoreError> {
        let (root, path) = (self.root.clone(), self.root.join(key));
        blocking(move || {
            let written = fill(&root, &path, &value)
                .and_then(|file| file.persist(&path).map_err(|error| error.error));
            match written {
                Ok(_) => Ok(()),
                Err(cause) => Err(StoreError::Directory {
                    action: "write",
                    url,
                    cause,
                }),
            }
        })
        .await
    }

    pub(super) fn writer(&self, key: &str, url: String) -> Writer {
        Writer {
            root: self.root.clone(),
            path: self.root.join(key),
            url,
            file: None,
        }
    }

    pub(super) async fn put_if_absent(
        &self,
        key: &str,
        value: Bytes,
        url: String,
    ) -> Result<Placed, StoreError> {
        let (root, path) = (self.root.clone(), self.root.join(key));
        blocking(move || {
            // The name is given without replacing, in one step of the file system, so of two racers one wins.
            let written = fill(&root, &path, &value)
                .and_then(|file| file.persist_noclobber(&path).map_err(|error| error.error));
            match written {
                Ok(_) => Ok(Placed::Written),
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists && !path.is_dir() => {
                    Ok(Placed::Present)
                }
                Err(cause) => Err(StoreError::Directory {
                    action: "write",
                    url,
                    cause,
                }),
            }
        })
        .await
    }

    pub(super) async fn list(&self, prefix: &str, url: String) -> Result<Vec<Entry>, StoreError> {
        list(self.root.to_path_buf(), "", prefix, url).await
    }

    pub(super) async fn unfinished(&self, url: String) -> Result<Vec<Entry>, StoreError> {
        let folder = self.root.join(TEMPORARY_FOLDER);
        list(folder, &format!("{TEMPORARY_FOLDER}/"), "", url).await
    }

    /// Counts the files of writers that are gone, and deletes them if `remove` says so, with the folder once it is empty.
    pub(super) async fn sweep(&self, remove: bool, url: String) -> Result<(u64, u64), StoreError> {
        let folder = self.root.join(TEMPORARY_FOLDER);
        blocking(move || {
            sweep(&folder, remove).map_err(|cause| StoreError::Directory {
                action: "clean",
                url,
                cause,
            })
        })
        .await
    }

    pub(super) async fn delete(&self, key: &str, url: String) -> Result<(), StoreError> {
        let path = self.root.join(key);
        blocking(move || match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(cause) if is_absence(&cause) || path.is_dir() => Ok(()),
            Err(cause) => Err(StoreError::Directory {
                action: "delete",
                url,
                cause,
            }),
        })
        .await
    }
}

impl Dir {
    /// Deletes a folder and those in it, but for those that hold something.
    pub(super) async fn delete_folder(&self, key: &str) {
        let path = self.root.join(key);
        // That one stays is no error: an empty folder is no object.
        let _ = tokio::task::spawn_blocking(move || delete_folders(&path)).await;
    }
}

/// What [`walk`] finds.
async fn list(
    folder: PathBuf,
    key: &str,
    prefix: &str,
    url: String,
) -> Result<Vec<Entry>, StoreError> {
    let (key, prefix) = (key.to_owned(), prefix.to_owned());
    blocking(move || {
        let mut entries = Vec::new();
        match walk(&folder, &key, &prefix, &mut entries) {
            Ok(()) => Ok(entries),
            Err(cause) => Err(StoreError::Directory {
                action: "list",
                url,
                cause,
            }),
        }
    })
    .await
}

fn delete_folders(path: &Path) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                delete_folders(&entry.path());
            }
        }
        let _ = fs::remove_dir(path);
    }
}

/// A file that is being written.
pub(super) struct Writer {
    root: Arc<Path>,
    path: PathBuf,
    url: String,
    /// With the first bytes.
    file: Option<NamedTempFile>,
}

impl Writer {
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let (root, path, file) = (self.root.clone(), self.path.clone(), self.file.take());
        let written = blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => create(&root, &path)?,
            };
            file.write_all(&piece)?;
            Ok(file)
        });
        self.file = Some(written.await.map_err(|cause| self.error(cause))?);
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
        if self.file.is_none() {
            self.write(Bytes::new()).await?;
        }
        let (path, file) = (self.path.clone(), self.file.take());
        let file = file.expect("it was just made");
        let named = blocking(move || file.persist(&path).map(drop));
        named.await.map_err(|error| self.error(error.error))
    }

    /// As `finish`, unless there is a file of that name.
    pub(super) async fn finish_new(mut self) -> Result<Placed, StoreError> {
        if self.file.is_none() {
            self.write(Bytes::new()).await?;
        }
        let (path, file) = (self.path.clone(), self.file.take());
        let file = file.expect("it was just made");
        let named = blocking(move || match file.persist_noclobber(&path) {
            Ok(_) => Ok(Placed::Written),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists && !path.is_dir() => {
                Ok(Placed::Present)
            }
            Err(error) => Err(error.error),
        });
        named.await.map_err(|error| self.error(error))
    }

    fn error(&self, cause: io::Error) -> StoreError {
        StoreError::Directory {
            action: "write",
            url: self.url.clone(),
            cause,
        }
    }
}

/// Runs file work where it cannot hold up the tasks of others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Whether the error says that no file is there: no such name, a folder of that name, or a file where a folder would be.
fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

fn read_error(cause: io::Error, url: String) -> StoreError {
    if is_absence(&cause) {
        StoreError::NotFound { url }
    } else {
        StoreError::Directory {
            action: "read",
            url,
            cause,
        }
    }
}

/// Reads exactly `range`; `None` when the file ends earlier.
fn read_range(path: &Path, range: &Range<u64>) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    // Before memory is taken for it: a range is whatever the caller says.
    if metadata.len() < range.end {
        return Ok(None);
    }
    let mut value =
        Vec::with_capacity(usize::try_from(range.end - range.start).map_err(io::Error::other)?);
    file.seek(SeekFrom::Start(range.start))?;
    file.take(range.end - range.start).read_to_end(&mut value)?;
    Ok((value.len() as u64 == range.end - range.start).then_some(value))
}

/// Writes `value` to a fresh file that is ready to be renamed to `path`. It is removed if that does not happen.
fn fill(root: &Path, path: &Path, value: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = create(root, path)?;
    file.write_all(value)?;
    Ok(file)
}

/// A fresh file that can be renamed to `path`.
fn create(root: &Path, path: &Path) -> io::Result<NamedTempFile> {
    let temporary = root.join(TEMPORARY_FOLDER);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.prefix(UNFINISHED);
    for _ in 1..CREATE_TRIES {
        match create_locked(&builder, &temporary) {
            Ok(Some(file)) => return Ok(file),
            // A sweep has taken the file, or the folder, before the file was locked.
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let taken = "other processes delete the files that are being written";
    create_locked(&builder, &temporary)?.ok_or_else(|| io::Error::other(taken))
}

/// A fresh file that this process has locked; `None` if another process took it for one without a writer.
fn create_locked(builder: &tempfile::Builder, folder: &Path) -> io::Result<Option<NamedTempFile>> {
    fs::create_dir_all(folder)?;
    let file = builder.tempfile_in(folder)?;
    let is_own = match try_lock(file.as_file()) {
        Lock::Taken => is_at(file.as_file(), file.path()),
        Lock::Held => false,
        // Nor can a sweep lock it.
        Lock::Impossible => true,
    };
    Ok(is_own.then_some(file))
}

fn sweep(folder: &Path, remove: bool) -> io::Result<(u64, u64)> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if is_absence(&error) => return Ok((0, 0)),
        Err(error) => return Err(error),
    };
    let (mut count, mut bytes) = (0, 0);
    for file in files {
        let file = file?;
        let is_file = file.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file
            || !file
                .file_name()
                .as_encoded_bytes()
                .starts_with(UNFINISHED.as_bytes())
        {
            continue;
        }
        let path = file.path();
        // It may be finished by now, or another user's.
        let Ok(open) = File::open(&path) else {
            continue;
        };
        if try_lock(&open) != Lock::Taken || !is_at(&open, &path) {
            continue;
        }
        count += 1;
        bytes += open.metadata().map_or(0, |metadata| metadata.len());
        if remove {
            match fs::remove_file(&path) {
                Err(error) if !is_absence(&error) => return Err(error),
                _ => {}
            }
        }
    }
    if remove {
        // Not while somebody writes.
        let _ = fs::remove_dir(folder);
    }
    Ok((count, bytes))
}

/// Adds the files below `folder` whose keys begin with `prefix`. `key` is the folder's own key with a slash at its end,
/// or nothing for the root. Folders where no such key can be are not opened.
fn walk(folder: &Path, key: &str, prefix: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        // Gone since its parent was read, or a store that nothing was written to.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for file in files {
        let file = file?;
        let Ok(name) = file.file_name().into_string() else {
            continue;
        };
        if key.is_empty() && name == TEMPORARY_FOLDER {
            continue;
        }
        let mut key = format!("{key}{name}");
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            key.push('/');
            if key.starts_with(prefix) || prefix.starts_with(&key) {
                walk(&file.path(), &key, prefix, entries)?;
            }
        } else if metadata.is_file() && key.starts_with(prefix) {
            entries.push(entry(key, &metadata)?);
        }
    }
    Ok(())
}

fn entry(key: String, metadata: &fs::Metadata) -> io::Result<Entry> {
    Ok(Entry {
        key,
        bytes: metadata.len(),
        modified: metadata.modified()?,
        etag: None,
    })
}
