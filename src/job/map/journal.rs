//! What is done of a map, in a file of the driver's machine: a map that did not come to its end is gone on with from there.
//!
//! The file begins with `lswjnl`, a zero and the version. Entries follow: a u32 length and a u32 CRC-32 of what comes then, an entry in the project's codec.
//! An entry that is cut off or damaged, and all behind it, was never written. Whoever uses the file has a lock on it.

use super::{ANSWER_MAX, Answer, Output};
use crate::job::items::Item;
use crate::net::codec;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How often a journal's lock is tried, and how long in between.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What the file begins with: its kind and its version.
const MAGIC: &[u8; 8] = b"lswjnl\x00\x02";

/// The most bytes of an entry.
const ENTRY_MAX: usize = ANSWER_MAX + 4096;

/// Bytes ahead of each entry.
const HEAD: usize = 8;

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody has it.
    #[error("{0} is in use: the job still runs, or is gone on with elsewhere")]
    Busy(String),
    /// Outputs were to go elsewhere.
    #[error("the job's outputs went {0}; go on with the same --output")]
    Elsewhere(String),
    /// It is something else.
    #[error("{0} is no journal of this release")]
    Foreign(String),
    /// An item is another one than it was.
    #[error(
        "item {number} is now {item}, and was something else when it was done; go on with the items that the job had, or start another one"
    )]
    Changed {
        /// Which, counted from 0.
        number: u64,
        /// What it is.
        item: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    /// A job begins.
    Begun(Begun),
    /// An item is done.
    Done(Done),
}

/// What a job that begins says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// What the names of its long outputs in the job's store begin with.
    pub prefix: String,
    /// Where all outputs go instead, if they do.
    pub output: Option<String>,
}

/// An item that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which, counted from 0.
    pub number: u64,
    /// What the item's bytes hash to.
    item: [u8; 8],
    /// How often it failed before.
    pub failures: u32,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub answer: Answer,
}

/// See the module.
pub struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
    begun: Vec<Begun>,
    entries: u64,
}

/// What a journal had when it was opened.
pub struct Known {
    file: File,
    places: BTreeMap<u64, Place>,
}

/// Where an item's last entry is.
struct Place {
    at: u64,
    length: u32,
    /// The key of its output, if that is in a store.
    stored: Option<String>,
}

impl Journal {
    /// A new one.
    ///
    /// # Errors
    /// When there is one, or it cannot be written.
    pub fn create(path: &Path, begun: Begun) -> Result<Journal, JournalError> {
        let failed = |source| file_error(path, source);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.map_err(failed)?;
        lock(&file, path)?;
        let mut journal = Journal {
            path: path.into(),
            file: BufWriter::new(file),
            begun: Vec::new(),
            entries: 0,
        };
        journal.file.write_all(MAGIC).map_err(failed)?;
        journal.begin(begun).map_err(failed)?;
        Ok(journal)
    }

    /// Takes over the journal of a job that did not come to its end: it lies at `to` then.
    ///
    /// # Errors
    /// When there is none, somebody uses it, outputs went elsewhere, or it cannot be written.
    pub fn take_over(
        from: &Path,
        to: &Path,
        begun: Begun,
    ) -> Result<(Journal, Known), JournalError> {
        let failed = |source| file_error(from, source);
        let file = OpenOptions::new().read(true).write(true).open(from);
        let mut file = file.map_err(failed)?;
        lock(&file, from)?;
        let (places, before, end) = read(&file, from)?;
        if let Some(other) = before.iter().find(|job| job.output != begun.output) {
            let place = match &other.output {
                Some(output) => format!("to {output}"),
                None => "to nowhere but the driver".into(),
            };
            return Err(JournalError::Elsewhere(place));
        }
        file.set_len(end).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        std::fs::rename(from, to).map_err(failed)?;
        let known = Known {
            file: file.try_clone().map_err(failed)?,
            places,
        };
        let mut journal = Journal {
            path: to.into(),
            file: BufWriter::new(file),
            begun: before,
            entries: known.places.len() as u64,
        };
        journal.begin(begun).map_err(failed)?;
        Ok((journal, known))
    }

    fn begin(&mut self, begun: Begun) -> io::Result<()> {
        self.begun.push(begun.clone());
        self.add(&Entry::Begun(begun))?;
        self.flush()
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let body = codec::encode::<ENTRY_MAX>(entry).map_err(io::Error::other)?;
        self.file.write_all(&(body.len() as u32).to_le_bytes())?;
        self.file.write_all(&crc32fast::hash(&body).to_le_bytes())?;
        self.file.write_all(&body)
    }

    /// An item is done. It is sure to be in the file after [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the file does not take it.
    pub fn done(
        &mut self,
        number: u64,
        item: &[u8],
        failures: u32,
        took: Duration,
        answer: &Answer,
    ) -> io::Result<()> {
        self.entries += 1;
        self.add(&Entry::Done(Done {
            number,
            item: hash(item),
            failures,
            took,
            answer: answer.clone(),
        }))
    }

    /// Gives the file what is held back.
    ///
    /// # Errors
    /// When it does not take it.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// True if no item is done.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// What the names of long outputs begin with, of all jobs that worked on this.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.begun.iter().map(|job| &job.prefix[..])
    }

    /// Deletes it: all is done.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn delete(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

impl Known {
    /// How many items were done.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if none was.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The keys of outputs in stores.
    pub fn stored(&self) -> impl Iterator<Item = &str> {
        self.places
            .values()
            .filter_map(|place| place.stored.as_deref())
    }

    /// Forgets items whose output is in a store where it is no more, as `is_there` says of its key.
    pub fn keep_stored(&mut self, is_there: impl Fn(&str) -> bool) {
        let whole = |place: &Place| place.stored.as_deref().is_none_or(&is_there);
        self.places.retain(|_, place| whole(place));
    }

    /// What became of an item, if it was done.
    ///
    /// # Errors
    /// When it is another item now, or the file cannot be read.
    pub fn get(
        &self,
        number: u64,
        item: &Item,
        bytes: &[u8],
    ) -> Result<Option<Done>, JournalError> {
        let Some(place) = self.places.get(&number) else {
            return Ok(None);
        };
        let mut body = vec![0; place.length as usize];
        let read = self.file.read_exact_at(&mut body, place.at);
        read.map_err(|source| file_error(Path::new("the journal"), source))?;
        match codec::decode::<Entry, ENTRY_MAX>(&body) {
            Ok(Entry::Done(done)) if done.item == hash(bytes) => Ok(Some(done)),
            _ => Err(JournalError::Changed {
                number,
                item: item.to_string(),
            }),
        }
    }
}

fn file_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Takes the file for this process alone. A process that another thread is about to start has all open files for a moment, and so
/// holds their locks: it is tried a few times.
fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    for _ in 0..LOCK_TRIES {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(JournalError::Busy(path.display().to_string()))
}

fn hash(item: &[u8]) -> [u8; 8] {
    let whole = Sha256::digest(item);
    *whole.first_chunk().expect("SHA-256 has 32 bytes")
}

/// Where items' entries are, the jobs that worked on it, and where whole entries end.
type Contents = (BTreeMap<u64, Place>, Vec<Begun>, u64);

fn read(file: &File, path: &Path) -> Result<Contents, JournalError> {
    let failed = |source| file_error(path, source);
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut magic = [0; MAGIC.len()];
    if reader.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(JournalError::Foreign(path.display().to_string()));
    }
    let (mut places, mut jobs) = (BTreeMap::new(), Vec::new());
    let mut at = MAGIC.len() as u64;
    loop {
        let mut head = [0; HEAD];
        if reader.read_exact(&mut head).is_err() {
            return Ok((places, jobs, at));
        }
        let [length, sum] = [0, 4].map(|place| {
            u32::from_le_bytes([
                head[place],
                head[place + 1],
                head[place + 2],
                head[place + 3],
            ])
        });
        let mut body = Vec::new();
        if length as usize <= ENTRY_MAX {
            let taken = (&mut reader).take(length.into()).read_to_end(&mut body);
            taken.map_err(failed)?;
        }
        let whole = body.len() == length as usize && crc32fast::hash(&body) == sum;
        let Some(entry) = whole
            .then(|| codec::decode::<Entry, ENTRY_MAX>(&body).ok())
            .flatten()
        else {
            return Ok((places, jobs, at));
        };
        match entry {
            Entry::Begun(begun) => jobs.push(begun),
            Entry::Done(done) => {
                let place = Place {
                    at: at + HEAD as u64,
                    length,
                    stored: match done.answer.output {
                        Output::Stored { key, .. } => Some(key),
                        Output::Inline(_) => None,
                    },
                };
                places.insert(done.number, place);
            }
        }
        at += HEAD as u64 + u64::from(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer {
            problem: None,
            exit: Some(0),
            output: Output::Inline(text.into()),
            stderr: Vec::new(),
            is_unstorable: false,
        }
    }

    fn item(number: u64) -> Item {
        Item::Text(number.to_string().into_bytes())
    }

    fn begun(prefix: &str) -> Begun {
        Begun {
            prefix: prefix.into(),
            output: None,
        }
    }

    fn add(journal: &mut Journal, number: u64) {
        let bytes = item(number).to_bytes().unwrap();
        let took = Duration::from_millis(number);
        let answer = answer(&format!("out {number}"));
        journal.done(number, &bytes, 1, took, &answer).unwrap();
    }

    #[test]
    fn what_was_done_is_known_wherever_the_file_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let mut journal = Journal::create(&first, begun("a/")).unwrap();
        assert!(journal.is_empty());
        for number in [3, 0, 7, 3] {
            add(&mut journal, number);
        }
        journal.flush().unwrap();
        assert!(matches!(
            Journal::take_over(&first, &second, begun("b/")),
            Err(JournalError::Busy(_))
        ));
        assert!(
            Journal::create(&first, begun("a/")).is_err(),
            "there is one"
        );
        drop(journal);
        let whole = std::fs::read(&first).unwrap();
        let mut most = 0;
        for length in 0..=whole.len() {
            std::fs::write(&first, &whole[..length]).unwrap();
            let Ok((mut journal, known)) = Journal::take_over(&first, &second, begun("b/")) else {
                assert!(length < MAGIC.len());
                continue;
            };
            assert!(known.len() >= most, "no entry is lost");
            most = known.len();
            for number in [0, 3, 7] {
                let bytes = item(number).to_bytes().unwrap();
                if let Some(done) = known.get(number, &item(number), &bytes).unwrap() {
                    assert_eq!(done.answer, answer(&format!("out {number}")));
                    assert_eq!((done.number, done.failures), (number, 1));
                }
            }
            // It is gone on with behind the last whole entry.
            add(&mut journal, 9);
            journal.flush().unwrap();
            drop((journal, known));
            let third = folder.path().join("third");
            let (journal, known) = Journal::take_over(&second, &third, begun("c/")).unwrap();
            assert_eq!(known.len(), most + 1);
            let prefixes: Vec<&str> = journal.prefixes().collect();
            assert!(prefixes.ends_with(&["b/", "c/"]), "{prefixes:?}");
            assert!(
                known
                    .get(9, &item(8), &item(8).to_bytes().unwrap())
                    .is_err()
            );
            journal.delete().unwrap();
        }
        assert_eq!(most, 3);
    }
}
