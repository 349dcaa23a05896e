//! The bytes of a file or an object as they lie, all of them of one version: what was listed is what is read, or there is an
//! error that says what has changed.

use super::Extent;
use crate::job::context::BlockingStore;
use crate::store::sealed::SealedKey;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// Bytes of an object that are read at once.
const OBJECT_READ_LEN: u64 = 8 << 20;

/// Bytes behind an extent of an object that are read with it: its last line may go on.
const BEYOND: u64 = 64 << 10;

/// Bytes of a file that are read at once: they stay in the processor's cache.
const FILE_READ_LEN: u64 = 512 << 10;

/// A file or an object that is about to be read, or a part of it.
#[derive(Clone)]
pub struct Source {
    pub(super) place: Place,
    pub(super) length: u64,
    /// The checksum of the whole, where it is known.
    pub(super) crc32c: Option<u32>,
    pub(super) part: Option<Extent>,
}

/// Where it lies.
#[derive(Clone)]
pub(super) enum Place {
    File {
        path: PathBuf,
        modified: Option<u64>,
    },
    Object {
        store: BlockingStore,
        key: String,
        etag: Option<String>,
    },
    /// What a job wrote into its own store: each block is checked as it is read.
    Sealed {
        store: BlockingStore,
        object: SealedKey,
    },
}

impl Source {
    /// Its name in messages.
    pub fn name(&self) -> String {
        match &self.place {
            Place::File { path, .. } => path.display().to_string(),
            Place::Object { store, key, .. } => store.version_url(key),
            Place::Sealed { store, object } => store.object_url(&object.key),
        }
    }

    /// The path of a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::File { path, .. } => Some(path),
            Place::Object { .. } | Place::Sealed { .. } => None,
        }
    }

    /// Looks whether a file is still what was listed. Of an object that shows when it is read.
    ///
    /// # Errors
    /// When it is not, in words.
    pub fn check(&self) -> Result<(), String> {
        match self.path() {
            Some(path) => match std::fs::metadata(path) {
                Ok(found) => self.check_metadata(&found),
                Err(error) => Err(format!("cannot read {}: {error}", path.display())),
            },
            None => Ok(()),
        }
    }

    fn check_metadata(&self, found: &Metadata) -> Result<(), String> {
        let Place::File { path, modified } = &self.place else {
            return Ok(());
        };
        // Files of /proc have no length, and a time of their own each time.
        let is_same = found.len() == self.length
            && (self.length == 0 || modified.is_none() || modified_ns(found) == *modified);
        match is_same {
            true => Ok(()),
            false => Err(format!(
                "{} was replaced or changed while it was read: it had {} bytes when the job began and has {} now, or was written \
                 again; run the job again when no other program writes there",
                path.display(),
                self.length,
                found.len()
            )),
        }
    }
}

/// When a file was changed last, in nanoseconds since 1970.
pub fn modified_ns(metadata: &Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// A reader of a [`Source`], from some byte on.
pub(super) struct RawReader {
    source: Source,
    at: u64,
    file: Option<File>,
    /// Of what was read so far, if that is all from the first byte on.
    crc32c: Option<u32>,
}

impl RawReader {
    pub(super) fn new(source: Source, at: u64) -> RawReader {
        RawReader {
            crc32c: (at == 0 && source.crc32c.is_some()).then_some(0),
            source,
            at,
            file: None,
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Puts the next bytes into `room`, none at the end. Bytes behind `enough` are not needed unless a line goes on there.
    pub(super) fn next(&mut self, room: &mut Vec<u8>, enough: u64) -> Result<(), String> {
        room.clear();
        let end = (self.at + OBJECT_READ_LEN)
            .min(enough.saturating_add(BEYOND).max(self.at + BEYOND))
            .min(self.source.length);
        match &mut self.source.place {
            Place::File { .. } => self.next_of_file(room)?,
            Place::Sealed { store, object } => {
                if self.at < end {
                    let read =
                        store.get_sealed_range(&object.key, &object.seal, self.at..end, room);
                    read.map_err(|error| error.to_string())?;
                }
            }
            Place::Object { store, key, etag } => {
                if self.at < end {
                    let version = store.get_version(key, self.at..end, etag.as_deref());
                    let version = version.map_err(|error| error.to_string())?;
                    // A list without ETags: what comes first decides.
                    if etag.is_none() {
                        *etag = version.etag;
                    }
                    *room = version.bytes.into();
                }
            }
        }
        self.at += room.len() as u64;
        if let Some(sum) = &mut self.crc32c {
            *sum = crc32c::crc32c_append(*sum, room);
        }
        Ok(())
    }

    fn next_of_file(&mut self, room: &mut Vec<u8>) -> Result<(), String> {
        let length = self.source.length;
        let failed =
            |source: &Source, error: io::Error| format!("cannot read {}: {error}", source.name());
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = self.source.path().expect("the caller has a file");
                let mut file = File::open(path).map_err(|error| failed(&self.source, error))?;
                let found = file
                    .metadata()
                    .map_err(|error| failed(&self.source, error))?;
                self.source.check_metadata(&found)?;
                file.seek(SeekFrom::Start(self.at))
                    .map_err(|error| failed(&self.source, error))?;
                self.file.insert(file)
            }
        };
        // What has no length, such as a file of /proc, is read to its end.
        let left = match length {
            0 => FILE_READ_LEN,
            length => FILE_READ_LEN.min(length.saturating_sub(self.at)),
        };
        let read = file.take(left).read_to_end(room);
        read.map_err(|error| failed(&self.source, error))?;
        Ok(())
    }

    /// Looks whether what was read is what was listed, once nothing more is read.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        if let Some(file) = &self.file {
            let found = file.metadata().map_err(|error| error.to_string())?;
            self.source.check_metadata(&found)?;
        }
        match (self.crc32c, self.source.crc32c) {
            (Some(found), Some(expected)) if self.at == self.source.length && found != expected => {
                Err(format!(
                    "{} has the checksum {found:08x} (CRC32C), and its result.json names {expected:08x}: it was damaged or changed; \
                     write the result again",
                    self.source.name()
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Why bytes that are being unpacked cannot be read: not the unpacking's fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RawError(String);

/// A raw reader that an unpacker reads from, and that is looked at afterwards.
#[derive(Clone)]
pub(super) struct SharedReader {
    reader: Arc<Mutex<RawReader>>,
    room: Vec<u8>,
    taken: usize,
}

impl SharedReader {
    pub(super) fn new(reader: RawReader) -> SharedReader {
        SharedReader {
            reader: Arc::new(Mutex::new(reader)),
            room: Vec::new(),
            taken: 0,
        }
    }

    /// As [`RawReader::finish`].
    pub(super) fn finish(&self) -> Result<(), String> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.finish()
    }
}

impl Read for SharedReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.room.len() {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            let next = reader.next(&mut self.room, u64::MAX);
            next.map_err(|what| io::Error::other(RawError(what)))?;
            self.taken = 0;
        }
        let count = into.len().min(self.room.len() - self.taken);
        into[..count].copy_from_slice(&self.room[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
