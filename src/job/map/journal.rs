//! What is done of a map, in a file of the driver's machine, from which `--resume` continues a job that has not come to its end.
//!
//! The file (journal/file.rs) is a list of entries, each vouched for by a checksum. It belongs to one process at a time, which has
//! a lock on it.

mod file;

use super::identity::Identity;
use super::{ANSWER_MAX, Answer, Output};
use crate::job::items::Item;
use crate::net::codec;
use crate::random;
use file::{Chain, Foreign, HEAD, HEADER, Next};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
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

/// The most bytes of an entry.
const ENTRY_MAX: usize = ANSWER_MAX + 4096;

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
    #[error("{0} is in use: the job still runs, or another process has resumed it")]
    Busy(String),
    /// Outputs were to go elsewhere.
    #[error("the job's outputs went {0}; resume it with the same --output")]
    Elsewhere(String),
    /// It is something else.
    #[error("{0} is no journal of this release; start the job anew, without --resume")]
    Foreign(String),
    /// It is not what was written.
    #[error(
        "{path} is damaged at byte {at}, behind {done} of the items that were done: {problem}. Start the job anew, without --resume; or take --resume-anyway, which runs all items again that were recorded behind this place"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where its first damaged entry is.
        at: u64,
        /// Items that were recorded before.
        done: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The job is another one than it was.
    #[error(
        "{difference}. Give what the job had, or start the job anew, without --resume; or take --resume-anyway, which keeps the {done} outputs that it has"
    )]
    Differs {
        /// In what.
        difference: String,
        /// Items that were done.
        done: u64,
    },
    /// An item is another one than it was.
    #[error(
        "item {number} is now {item}, and was something else when it was done, or has been written since. Give the items that the job had, or start the job anew, without --resume; or take --resume-anyway, which runs this item again"
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
    /// What its outputs depend on.
    pub identity: Identity,
}

/// An item that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Which, counted from 0.
    pub number: u64,
    /// What it was: see [`super::identity::item_identity`].
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
    chain: Chain,
}

/// What a journal had when it was opened.
pub struct Known {
    path: PathBuf,
    file: File,
    places: BTreeMap<u64, Place>,
    /// An item that is another one now is run again, and is no error.
    anyway: bool,
    /// Which of the jobs that worked on it differ from the one that begins.
    differs: Vec<bool>,
}

/// What a user should know of a journal that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remarks {
    /// Its last entry was never finished: the item is run again.
    pub is_torn: bool,
    /// It is damaged, and what is recorded behind that place is run again.
    pub damage: Option<String>,
    /// In what the job that begins differs from one that worked on it.
    pub difference: Option<String>,
}

/// Where an item's last entry is.
struct Place {
    at: u64,
    length: u32,
    /// The file's checksum ahead of the entry, and with it.
    chain: (Chain, Chain),
    /// Which of the jobs that worked on this has done it.
    job: usize,
    /// The key and the length of its output, if that is in a store.
    stored: Option<(String, u64)>,
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
        let header = file::header(u64::from_le_bytes(random::bytes()));
        let mut journal = Journal {
            path: path.into(),
            file: BufWriter::new(file),
            begun: Vec::new(),
            entries: 0,
            chain: Chain::begin(&header).expect("it was just made"),
        };
        journal.file.write_all(&header).map_err(failed)?;
        journal.begin(begun).map_err(failed)?;
        Ok(journal)
    }

    /// Takes over the journal of the job called `job`, which did not come to its end: it lies at `to` then. A journal that is
    /// damaged, or of a job that differs, is refused and stays where it is, unless it is to be taken `anyway`.
    ///
    /// # Errors
    /// When there is none, another process uses it, it is refused, or it cannot be written.
    pub fn take_over(
        from: &Path,
        to: &Path,
        begun: Begun,
        job: &str,
        anyway: bool,
    ) -> Result<(Journal, Known, Remarks), JournalError> {
        let failed = |source| file_error(from, source);
        let file = OpenOptions::new().read(true).write(true).open(from);
        let mut file = file.map_err(failed)?;
        lock(&file, from)?;
        let found = read(&file, from)?;
        let done = found.places.len() as u64;
        let mut remarks = Remarks::default();
        match found.end {
            FileEnd::Whole => {}
            FileEnd::Torn => remarks.is_torn = true,
            FileEnd::Damaged(problem) => {
                let (path, at) = (from.display().to_string(), found.length);
                let damaged = JournalError::Damaged {
                    path,
                    at,
                    done,
                    problem,
                };
                if !anyway {
                    return Err(damaged);
                }
                remarks.damage = Some(format!("byte {at}: {problem}"));
            }
        }
        if let Some(other) = found.jobs.iter().find(|job| job.output != begun.output) {
            let place = match &other.output {
                Some(output) => format!("to {output}"),
                None => "to nowhere but the driver".into(),
            };
            return Err(JournalError::Elsewhere(place));
        }
        let differences = found.jobs.iter().map(|before| {
            let identity = &before.identity;
            identity.difference(&begun.identity, job)
        });
        let differences: Vec<Option<String>> = differences.collect();
        let differs = differences.iter().map(Option::is_some).collect();
        if let Some(difference) = differences.into_iter().flatten().next() {
            if !anyway {
                return Err(JournalError::Differs { difference, done });
            }
            remarks.difference = Some(difference);
        }
        file.set_len(found.length).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        std::fs::rename(from, to).map_err(failed)?;
        let known = Known {
            path: to.into(),
            file: file.try_clone().map_err(failed)?,
            places: found.places,
            anyway,
            differs,
        };
        let mut journal = Journal {
            path: to.into(),
            file: BufWriter::new(file),
            begun: found.jobs,
            entries: done,
            chain: found.chain,
        };
        journal.begin(begun).map_err(failed)?;
        Ok((journal, known, remarks))
    }

    fn begin(&mut self, begun: Begun) -> io::Result<()> {
        self.begun.push(begun.clone());
        self.add(&Entry::Begun(begun))?;
        self.flush()
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let body = codec::encode::<ENTRY_MAX>(entry).map_err(io::Error::other)?;
        let (chain, head) = self.chain.add(&body);
        self.file.write_all(&head)?;
        self.file.write_all(&body)?;
        self.chain = chain;
        Ok(())
    }

    /// An item is done: that of this identity. It is sure to be in the file after [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the file does not take it.
    pub fn done(
        &mut self,
        number: u64,
        item: [u8; 8],
        failures: u32,
        took: Duration,
        answer: &Answer,
    ) -> io::Result<()> {
        self.entries += 1;
        self.add(&Entry::Done(Done {
            number,
            item,
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
        let places = self.places.values();
        places.filter_map(|place| Some(&place.stored.as_ref()?.0[..]))
    }

    /// The key of an item's output, if that is in a store.
    pub fn stored_key(&self, number: u64) -> Option<&str> {
        let place = self.places.get(&number)?;
        Some(&place.stored.as_ref()?.0)
    }

    /// How many of them were done by a job that differs from the one that begins.
    pub fn former(&self) -> usize {
        let places = self.places.values();
        places.filter(|place| self.differs[place.job]).count()
    }

    /// Forgets items whose output is in a store and is not there any more, as `is_there` says of its key and its length.
    pub fn keep_stored(&mut self, is_there: impl Fn(&str, u64) -> bool) {
        self.places.retain(|_, place| match &place.stored {
            Some((key, bytes)) => is_there(key, *bytes),
            None => true,
        });
    }

    /// What became of an item of this identity, if it was done.
    ///
    /// # Errors
    /// When it is another item now, unless that is wanted, or the file cannot be read or has changed.
    pub fn get(
        &self,
        number: u64,
        item: &Item,
        identity: [u8; 8],
    ) -> Result<Option<Done>, JournalError> {
        let Some(place) = self.places.get(&number) else {
            return Ok(None);
        };
        let mut body = vec![0; place.length as usize];
        let read = self.file.read_exact_at(&mut body, place.at);
        read.map_err(|source| file_error(&self.path, source))?;
        let entry = codec::decode::<Entry, ENTRY_MAX>(&body);
        match (place.chain.0.add(&body).0 == place.chain.1, entry) {
            (true, Ok(Entry::Done(done))) if done.item == identity => Ok(Some(done)),
            (true, Ok(Entry::Done(_))) if self.anyway => Ok(None),
            (true, Ok(Entry::Done(_))) => Err(JournalError::Changed {
                number,
                item: item.to_string(),
            }),
            _ => Err(JournalError::Damaged {
                path: self.path.display().to_string(),
                at: place.at - HEAD as u64,
                done: self
                    .places
                    .values()
                    .filter(|other| other.at < place.at)
                    .count() as u64,
                problem: "an entry has changed since it was read first",
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

/// What is in a journal's file.
struct Found {
    /// Where the items' entries are.
    places: BTreeMap<u64, Place>,
    /// The jobs that worked on it.
    jobs: Vec<Begun>,
    /// Bytes up to the end of the last whole entry, and their checksum.
    length: u64,
    chain: Chain,
    end: FileEnd,
}

/// How a journal's file ends.
enum FileEnd {
    /// With a whole entry.
    Whole,
    /// Within an entry that was never finished.
    Torn,
    /// With something else than what was written.
    Damaged(&'static str),
}

fn read(file: &File, path: &Path) -> Result<Found, JournalError> {
    let failed = |source| file_error(path, source);
    let foreign = || JournalError::Foreign(path.display().to_string());
    let size = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut header = [0; HEADER];
    if reader.read_exact(&mut header).is_err() {
        return Err(foreign());
    }
    let chain = Chain::begin(&header).map_err(|why| match why {
        Foreign::Kind | Foreign::Version => foreign(),
        Foreign::Changed => JournalError::Damaged {
            path: path.display().to_string(),
            at: 0,
            done: 0,
            problem: "its header does not fit its checksum",
        },
    })?;
    let mut found = Found {
        places: BTreeMap::new(),
        jobs: Vec::new(),
        length: HEADER as u64,
        chain,
        end: FileEnd::Whole,
    };
    loop {
        let rest = size.saturating_sub(found.length);
        let next = file::next(&mut reader, found.chain, rest, ENTRY_MAX).map_err(failed)?;
        let (body, chain) = match next {
            Next::Body(body, chain) => (body, chain),
            Next::End => return Ok(found),
            Next::Torn => {
                found.end = FileEnd::Torn;
                return Ok(found);
            }
            Next::Damaged(problem) => {
                found.end = FileEnd::Damaged(problem);
                return Ok(found);
            }
        };
        match codec::decode::<Entry, ENTRY_MAX>(&body) {
            Ok(Entry::Begun(begun)) => found.jobs.push(begun),
            Ok(Entry::Done(done)) if !found.jobs.is_empty() => {
                let place = Place {
                    at: found.length + HEAD as u64,
                    length: body.len() as u32,
                    chain: (found.chain, chain),
                    job: found.jobs.len() - 1,
                    stored: match done.answer.output {
                        Output::Stored {
                            key, bytes, seal, ..
                        } => Some((key, seal.map_or(bytes, |seal| seal.object_bytes()))),
                        Output::Inline(_) => None,
                    },
                };
                found.places.insert(done.number, place);
            }
            _ => {
                found.end = FileEnd::Damaged("an entry is none of this release");
                return Ok(found);
            }
        }
        found.length += (HEAD + body.len()) as u64;
        found.chain = chain;
    }
}

#[cfg(test)]
mod tests;
