//! Objects by key, in a directory or in S3: where parts, code, spill and checkpoints are kept.
//!
//! A [`Store`] is opened from what a user wrote (`./.lswitch`, `file:///data/store`, `s3://bucket/prefix`); its
//! [`url`](Store::url) is the absolute form that other processes open. What the objects mean is not known here.
//!
//! # Contract
//!
//! Both kinds of store keep these promises, and one suite of tests (`tests/it/store.rs`) holds both to them:
//!
//! - **Whole objects.** A reader sees an object as one `put` wrote it, never a mixture and never a beginning.
//! - **Writes are seen.** When a write or a deletion has returned, every reader sees it, and `list` shows it.
//! - **One first writer.** Of several [`put_if_absent`](Store::put_if_absent) with different values one wins.
//! - **Repeating is safe.** Every method may be called again after an error; none leaves half an object.
//!
//! Durability differs: S3 answers when the object is safe; the directory does not call `fsync`, so an object that was
//! written just before the machine lost power may be lost or cut short.
//!
//! # Keys
//!
//! A key is a relative path: components separated by `/`, none of them empty, `.` or `..`; no control character; at
//! most 1024 bytes, counting the store's own prefix in S3. The first component `.lswitch-tmp` is reserved. A directory
//! cannot hold both `a` and `a/b`, so no program should use one key as the folder of another.

mod dir;
mod error;
mod location;
mod requests;
mod s3;
pub mod sealed;
mod version;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::aws::AwsSettings;

pub use error::{Refusal, StoreError};
pub use requests::Requests;
pub use version::Version;

use dir::Dir;
use location::Location;
use s3::S3;

/// The longest key, in bytes. S3's own limit, which the store's prefix shares.
pub const KEY_BYTES_MAX: usize = 1024;

/// Where a directory keeps what is not yet an object. No key may begin with it, in any kind of store.
const TEMPORARY_FOLDER: &str = ".lswitch-tmp";

/// Objects that are deleted at the same time.
const DELETES_AT_ONCE: usize = 32;

/// How often `put_if_absent` starts over because the object it met was deleted before it could be read.
const VANISHED_TRIES_MAX: u32 = 5;

/// An open store. Clones are cheap and share one S3 client.
#[derive(Clone)]
pub struct Store {
    url: Arc<str>,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Dir(Dir),
    S3(S3),
}

/// An object as [`Store::list`] names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The key, relative to the store.
    pub key: String,
    /// The size of the object in bytes.
    pub bytes: u64,
    /// When the object was written, by the clock of the file system or of S3, which in a list may count in whole seconds.
    pub modified: SystemTime,
    /// S3's name for this version of the object, as it came, with its quotes; none in a directory.
    pub etag: Option<String>,
}

/// A write that was begun and is neither finished nor given up, as [`Store::unfinished`] names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The key of the object that it was to make, relative to the store; in a directory, of the temporary file.
    pub key: String,
    /// S3's name of the upload; none in a directory.
    pub upload: Option<String>,
    /// What it holds so far. S3 does not say it in a list, so there it is 0.
    pub bytes: u64,
    /// When it was begun, in a directory when it was last written.
    pub modified: SystemTime,
}

/// An object that is being written piece by piece. Nobody sees it before [`finish`](Writer::finish) has returned; dropped
/// before, it leaves what was there. A process that is killed may leave pieces that are no object: a file in the reserved
/// folder, or parts of an upload in S3. [`Store::unfinished`] lists them, and a bucket's lifecycle rule may remove them.
pub struct Writer {
    backend: BackendWriter,
}

enum BackendWriter {
    Dir(dir::Writer),
    S3(Box<s3::Upload>),
}

impl Writer {
    /// Writes the next bytes.
    ///
    /// # Errors
    ///
    /// Those of the backend; what was written is given up.
    pub async fn write(mut self, piece: Bytes) -> Result<Writer, StoreError> {
        match &mut self.backend {
            BackendWriter::Dir(writer) => writer.write(piece).await?,
            BackendWriter::S3(upload) => upload.write(piece).await?,
        }
        Ok(self)
    }

    /// Gives up what was written. So does dropping it, but that may need a little longer than the process lasts: see
    /// [`abort_unfinished_writes`].
    pub async fn abort(self) {
        if let BackendWriter::S3(mut upload) = self.backend {
            upload.abort().await;
        }
    }

    /// Gives the object its name, in place of the one that may be there.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn finish(self) -> Result<(), StoreError> {
        match self.backend {
            BackendWriter::Dir(writer) => writer.finish().await,
            BackendWriter::S3(upload) => upload.finish().await,
        }
    }

    /// Gives the object its name unless there is one of that name, which is left alone. True if the object is the new one.
    ///
    /// Unlike [`Store::put_if_absent`] this compares no bytes: a repeated write whose first answer was lost finds its own object.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn finish_new(self) -> Result<bool, StoreError> {
        let placed = match self.backend {
            BackendWriter::Dir(writer) => writer.finish_new().await?,
            BackendWriter::S3(upload) => upload.finish_new().await?,
        };
        Ok(matches!(placed, Placed::Written))
    }
}

/// What a backend answers to a write that must not overwrite.
enum Placed {
    /// The object is new, and ours.
    Written,
    /// An object was there; it was not touched.
    Present,
}

impl Store {
    /// Opens the store that `location` names: `s3://bucket[/prefix]`, `file:///absolute/path`, or a path, which is
    /// made absolute against the current directory. Nothing is created and no server is asked: a directory
    /// appears with the first object, and a bucket that does not exist is reported by the first call that needs it.
    /// A path that looks like a URL can be written with `./` before it.
    ///
    /// For S3, AWS's configuration is loaded through `aws`; for a directory nothing of AWS is touched.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadLocation`] when `location` is none of the three forms, [`StoreError::Settings`] when AWS's settings
    /// cannot be used.
    pub async fn open(location: &str, aws: &AwsSettings) -> Result<Store, StoreError> {
        let location = Location::parse(location)?;
        match &location {
            Location::Dir(_) => Ok(Store::at(location, None)),
            Location::S3 { .. } => Ok(Store::at(location, Some(&aws.load().await?))),
        }
    }

    /// Opens the store that `location` names as [`Store::open`] does, with a configuration of AWS that was loaded
    /// already. It is not used when `location` is a directory.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadLocation`], as for [`Store::open`].
    pub async fn open_with(location: &str, sdk_config: &SdkConfig) -> Result<Store, StoreError> {
        Ok(Store::at(Location::parse(location)?, Some(sdk_config)))
    }

    /// The same, and counts the store's requests to S3 in `requests`.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadLocation`], as for [`Store::open`].
    pub fn open_counted(
        location: &str,
        sdk_config: &SdkConfig,
        requests: Arc<Requests>,
    ) -> Result<Store, StoreError> {
        let location = Location::parse(location)?;
        Ok(Store::counted(location, Some(sdk_config), Some(requests)))
    }

    fn at(location: Location, sdk_config: Option<&SdkConfig>) -> Store {
        Store::counted(location, sdk_config, None)
    }

    fn counted(
        location: Location,
        sdk_config: Option<&SdkConfig>,
        requests: Option<Arc<Requests>>,
    ) -> Store {
        let url = location.url().into();
        let backend = match location {
            Location::Dir(root) => Backend::Dir(Dir::new(root)),
            Location::S3 { bucket, prefix } => {
                let sdk_config = sdk_config
                    .expect("whoever opens an S3 location loads AWS's configuration first");
                Backend::S3(S3::new(bucket, prefix, sdk_config, requests))
            }
        };
        Store { url, backend }
    }

    /// The absolute form of the store's location, which any process can [open](Store::open): `s3://bucket[/prefix]`,
    /// or `file://` and the absolute path, where characters that mean something in a URL (space, `%`, `#`, `?`) are
    /// written as `%XX`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bucket that the store is in, and the prefix of its keys there without a slash at the end; none for a directory.
    pub fn bucket(&self) -> Option<(&str, &str)> {
        let rest = self.url.strip_prefix("s3://")?;
        Some(rest.split_once('/').unwrap_or((rest, "")))
    }

    /// Makes the store's bucket if there is none, closed to the public. True if it is new; a directory needs nothing made.
    ///
    /// # Errors
    ///
    /// When S3 refuses: above all when somebody else has a bucket of that name.
    pub async fn make_bucket(&self) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Dir(_) => Ok(false),
            Backend::S3(s3) => s3.make_bucket(&self.url).await,
        }
    }

    /// The full URL of the object `key`, as error messages show it. The key is not checked.
    pub fn object_url(&self, key: &str) -> String {
        match &self.backend {
            Backend::Dir(_) => format!(
                "{}/{}",
                self.url.trim_end_matches('/'),
                location::encode(key)
            ),
            Backend::S3(_) => format!("{}/{key}", self.url),
        }
    }

    /// Reads the whole object `key` into memory.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no such object.
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let url = self.checked(key)?;
        match &self.backend {
            Backend::Dir(dir) => dir.get(key, url).await,
            Backend::S3(s3) => s3.get(key, url).await,
        }
    }

    /// Reads the whole object `key`, which is known to have `length` bytes; a long one in S3 in ranges side by side.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no such object, [`StoreError::ShortObject`] when it is long and ends earlier;
    /// a short one is given as it is.
    pub async fn get_of_length(&self, key: &str, length: u64) -> Result<Bytes, StoreError> {
        let url = self.checked(key)?;
        match &self.backend {
            Backend::Dir(dir) => dir.get(key, url).await,
            Backend::S3(s3) => s3.get_of_length(key, length, url).await,
        }
    }

    /// Reads exactly the bytes `range` of the object `key`, counted from 0. An empty range reads nothing, but the
    /// object must exist and reach that far.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no such object, [`StoreError::ShortObject`] when it ends before the range
    /// does, [`StoreError::BadRange`] when the range ends before it starts.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let url = self.checked(key)?;
        if range.start > range.end || usize::try_from(range.end - range.start).is_err() {
            return Err(StoreError::BadRange {
                url,
                start: range.start,
                end: range.end,
            });
        }
        match &self.backend {
            Backend::Dir(dir) => dir.get_range(key, range, url).await,
            Backend::S3(s3) => s3.get_range(key, range, url).await,
        }
    }

    /// The length of the object `key` in bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no such object.
    pub async fn length(&self, key: &str) -> Result<u64, StoreError> {
        let url = self.checked(key)?;
        let entries = self.list(key).await?;
        let entry = entries.into_iter().find(|entry| entry.key == key);
        entry
            .map(|entry| entry.bytes)
            .ok_or(StoreError::NotFound { url })
    }

    /// The directory that the store is; none for S3.
    pub fn folder(&self) -> Option<&Path> {
        match &self.backend {
            Backend::Dir(dir) => Some(dir.root()),
            Backend::S3(_) => None,
        }
    }

    /// Writes the object `key`, replacing the one that may be there. Readers see the old object or the new one, whole.
    ///
    /// In S3 a long object is written in parts, and seen when the last of them is there; it has 160 GiB at most.
    ///
    /// # Errors
    ///
    /// Those of the backend. After an error either object may be there, still whole.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<(), StoreError> {
        let url = self.checked(key)?;
        match &self.backend {
            Backend::Dir(dir) => dir.put(key, value, url).await,
            Backend::S3(s3) => s3.put(key, value, url).await,
        }
    }

    /// Begins to write the object `key` piece by piece, for objects that are not to be in memory whole.
    ///
    /// # Errors
    ///
    /// [`StoreError::BadKey`].
    pub fn writer(&self, key: &str) -> Result<Writer, StoreError> {
        let url = self.checked(key)?;
        let backend = match &self.backend {
            Backend::Dir(dir) => BackendWriter::Dir(dir.writer(key, url)),
            Backend::S3(s3) => BackendWriter::S3(Box::new(s3.writer(key, url))),
        };
        Ok(Writer { backend })
    }

    /// Writes the object `key` unless there is one, and tells whether the object is now `value`: `true` when it was
    /// written, `false` when another value was there first and was left alone.
    ///
    /// An object that is there already and holds exactly `value` counts as written. Without that rule a write whose
    /// answer was lost on the way would, when repeated, lose against itself. So callers that race for one winner must
    /// write different values, such as their own names.
    ///
    /// # Errors
    ///
    /// Those of the backend, and [`StoreError::Conflict`] when others kept changing the object for so long that no
    /// answer can be given.
    pub async fn put_if_absent(&self, key: &str, value: Bytes) -> Result<bool, StoreError> {
        let url = self.checked(key)?;
        for _ in 0..VANISHED_TRIES_MAX {
            let placed = match &self.backend {
                Backend::Dir(dir) => dir.put_if_absent(key, value.clone(), url.clone()).await?,
                Backend::S3(s3) => s3.put_if_absent(key, value.clone(), url.clone()).await?,
            };
            match placed {
                Placed::Written => return Ok(true),
                Placed::Present => match self.get(key).await {
                    Ok(there) => return Ok(there == value),
                    Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Err(StoreError::Conflict {
            url,
            tries: VANISHED_TRIES_MAX,
        })
    }

    /// Lists the objects whose keys begin with `prefix`, sorted by key. As in S3, `prefix` is a plain string, not a
    /// folder: `a/b` matches `a/b`, `a/bc` and `a/b/c`; the empty prefix matches everything. A directory that does not
    /// exist lists as empty. What is in the place but could not have been written through a store (names that are no
    /// keys, in a directory also symbolic links) is not listed.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let mut entries = self.list_all(prefix).await?;
        entries.retain(|entry| key_problem(&entry.key).is_none());
        Ok(entries)
    }

    /// Lists what [`list`](Self::list) does, and objects whose names are no keys, such as `a//b` or `c/`: other programs
    /// write those to S3. [`get_version`](Self::get_version) reads them.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn list_all(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let mut entries = match &self.backend {
            Backend::Dir(dir) => dir.list(prefix, self.url.to_string()).await?,
            Backend::S3(s3) => s3.list(prefix, &self.url).await?,
        };
        entries.sort_unstable();
        Ok(entries)
    }

    /// Deletes the object `key`. That there is none is no error. A directory keeps the folders that become empty.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let url = self.checked(key)?;
        match &self.backend {
            Backend::Dir(dir) => dir.delete(key, url).await,
            Backend::S3(s3) => s3.delete(key, url).await,
        }
    }

    /// Deletes the objects whose keys begin with `prefix`, some at a time; says how many they were. Of a directory the folder goes
    /// too that a prefix names which ends with `/`, so nobody should write there any more.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list) and [`delete`](Self::delete); the first one, after which nothing more is deleted.
    pub async fn delete_all(&self, prefix: &str) -> Result<u64, StoreError> {
        let entries = self.list(prefix).await?;
        let count = entries.len() as u64;
        let keys = entries.into_iter().map(|entry| entry.key);
        self.delete_each(keys).await?;
        if let (Backend::Dir(dir), Some(folder)) = (&self.backend, prefix.strip_suffix('/')) {
            dir.delete_folder(folder).await;
        }
        Ok(count)
    }

    /// Deletes these objects, some at a time.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete); the first one, after which nothing more is deleted.
    pub async fn delete_each(
        &self,
        keys: impl IntoIterator<Item = String>,
    ) -> Result<(), StoreError> {
        let mut keys = keys.into_iter();
        let mut deleting = JoinSet::new();
        loop {
            while deleting.len() < DELETES_AT_ONCE
                && let Some(key) = keys.next()
            {
                let store = self.clone();
                deleting.spawn(async move { store.delete(&key).await });
            }
            match deleting.join_next().await {
                Some(deleted) => deleted.expect("deleting does not panic")?,
                None => return Ok(()),
            }
        }
    }

    /// What writes that were never finished have left behind: files in the reserved folder of a directory, or uploads below
    /// the store's prefix in S3. They are of processes that were killed, or are still being written.
    ///
    /// # Errors
    ///
    /// Those of the backend. Not every server that speaks S3's protocol can list uploads.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        match &self.backend {
            Backend::Dir(dir) => {
                let files = dir.unfinished(self.url.to_string()).await?;
                let unfinished = |file: Entry| Unfinished {
                    key: file.key,
                    upload: None,
                    bytes: file.bytes,
                    modified: file.modified,
                };
                Ok(files.into_iter().map(unfinished).collect())
            }
            Backend::S3(s3) => s3.unfinished(&self.url).await,
        }
    }

    /// Deletes what an unfinished write has left; if it is still being written, the write fails. That there is nothing is no
    /// error.
    ///
    /// # Errors
    ///
    /// Those of the backend, and [`StoreError::BadKey`] for what [`unfinished`](Self::unfinished) does not give.
    pub async fn discard(&self, unfinished: &Unfinished) -> Result<(), StoreError> {
        let key = &unfinished.key[..];
        let name = key.strip_prefix(TEMPORARY_FOLDER);
        let name = name.and_then(|rest| rest.strip_prefix('/'));
        match (&self.backend, name, &unfinished.upload) {
            (Backend::Dir(dir), Some(name), None) if key_problem(name).is_none() => {
                dir.delete(key, self.object_url(key)).await
            }
            (Backend::S3(s3), _, Some(upload)) => {
                s3.discard(key, upload, &self.object_url(key)).await
            }
            _ => Err(StoreError::BadKey {
                store: self.url.to_string(),
                key: key.to_owned(),
                problem: "it names no unfinished write",
            }),
        }
    }

    /// Removes what writes have left behind whose writers are gone, and the reserved folder if nothing is left in it; gives how many
    /// there were, and their bytes. What is still being written stays.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn sweep(&self) -> Result<(u64, u64), StoreError> {
        match &self.backend {
            Backend::Dir(dir) => dir.sweep(true, self.url.to_string()).await,
            Backend::S3(_) => Ok((0, 0)),
        }
    }

    /// How many such there are, and their bytes.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub async fn abandoned(&self) -> Result<(u64, u64), StoreError> {
        match &self.backend {
            Backend::Dir(dir) => dir.sweep(false, self.url.to_string()).await,
            Backend::S3(_) => Ok((0, 0)),
        }
    }

    /// The URL of the object `key`, once the key is known to be a good one.
    fn checked(&self, key: &str) -> Result<String, StoreError> {
        let prefix_bytes = match &self.backend {
            Backend::Dir(_) => 0,
            Backend::S3(s3) => s3.prefix_bytes(),
        };
        let problem = key_problem(key).or_else(|| {
            (prefix_bytes + key.len() > KEY_BYTES_MAX)
                .then_some("it is longer than 1024 bytes together with the prefix of the store")
        });
        match problem {
            None => Ok(self.object_url(key)),
            Some(problem) => Err(StoreError::BadKey {
                store: self.url.to_string(),
                key: key.to_owned(),
                problem,
            }),
        }
    }
}

/// How long the end of a process, or of an invocation, may wait for uploads to be aborted. Workers on this machine are
/// killed a second after the signal.
pub const ABORT_PATIENCE: Duration = Duration::from_millis(800);

/// Aborts all writes to S3 that this process has begun and not finished, and waits for that, at most [`ABORT_PATIENCE`]:
/// their parts would stay and cost money. To be called where a process ends, or an invocation after which Lambda freezes the
/// process. It returns at once if there are none.
pub async fn abort_unfinished_writes() {
    let left = s3::abort_open_uploads(ABORT_PATIENCE).await;
    if left > 0 {
        tracing::warn!(
            "{left} uploads to S3 could not be aborted in time; their parts stay until \"lswitch clean\" or a lifecycle rule removes them"
        );
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.url).finish()
    }
}

/// What keeps `key` from being a key, if anything does.
fn key_problem(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("it is empty");
    }
    if key.len() > KEY_BYTES_MAX {
        return Some("it is longer than 1024 bytes");
    }
    if key.starts_with('/') {
        return Some("it starts with a slash, but keys are relative to the store");
    }
    if key.chars().any(char::is_control) {
        return Some("it contains a control character");
    }
    if key.split('/').any(str::is_empty) {
        return Some("it has an empty component (two slashes in a row, or one at the end)");
    }
    if key
        .split('/')
        .any(|component| component == "." || component == "..")
    {
        return Some("it has a component \".\" or \"..\"");
    }
    if key.split('/').next() == Some(TEMPORARY_FOLDER) {
        return Some("its first component is reserved for unfinished writes");
    }
    None
}

/// The pause before try number `tries + 1`, after `tries` failed ones: it doubles, from 50 ms to at most 3.2 s.
fn pause_after(tries: u32) -> Duration {
    Duration::from_millis(50) * 2u32.pow(tries.saturating_sub(1).min(6))
}
