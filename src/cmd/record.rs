//! What this machine knows of its jobs: a folder for each, `$LSWITCH_HOME/jobs/<id>/`, whose `job.json` says what was asked
//! for, who drives it and how it ended. `docs/JOBS.md` specifies it.
//!
//! A record is written by the driver of its job ([`own`]) and read by every command that takes a job ([`all`]). Whether a job
//! runs is not written down: it does if its driver is there ([`driver`]), since one that was killed could not say otherwise.

pub mod all;
pub mod driver;
pub mod own;
pub mod printed;

use crate::net::token::JobId;
use crate::random::parse_hex;
use anyhow::{Context, bail};
use driver::Driver;
use printed::Printed;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of [`Facts`] that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The file in a job's folder that has its [`Facts`].
const FACTS: &str = "job.json";

/// A job's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// What is known of a job: the contents of `job.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// 1.
    pub version: u32,
    /// 32 hexadecimal digits.
    pub id: String,
    /// Which job of `lswitch invoke`.
    pub program: String,
    /// The command line, with the program's own name first.
    pub arguments: Vec<String>,
    /// Where it was given.
    pub folder: String,
    /// The URL of the job's own store, once it is open.
    pub store: Option<String>,
    /// The URL of its output store, once it is open.
    #[serde(default)]
    pub output: Option<String>,
    /// It runs in the background: `stdout` and `log` beside this file are what it prints.
    pub detached: bool,
    /// Its workers are being started: nothing was wrong with what was asked for.
    pub under_way: bool,
    /// The process that drives it.
    pub driver: Driver,
    /// Milliseconds since 1970.
    pub began_ms: u64,
    /// How it ended, if it has said so.
    pub end: Option<End>,
    /// The driver was there when this was read and had not said how it ended.
    #[serde(skip)]
    pub is_there: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The exit code of its driver.
    pub exit: u8,
    /// The first line of what went wrong.
    pub error: Option<String>,
    /// What a job in the background had printed to standard output then.
    #[serde(default)]
    pub stdout: Option<Printed>,
}

/// How it is with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its driver is there.
    Running,
    /// Exit code 0.
    Done,
    /// Exit code 3: items have failed.
    InPart,
    /// Any other exit code.
    Failed,
    /// Exit code 129, 130, 131 or 143: a signal ended it.
    Cancelled,
    /// Its driver is gone without having said how it ended.
    Lost,
}

impl State {
    /// From how it ended, if it has said so, and whether its driver is there.
    fn of(exit: Option<u8>, is_there: bool) -> State {
        match (exit, is_there) {
            (Some(0), _) => State::Done,
            (Some(3), _) => State::InPart,
            (Some(129..=131 | 143), _) => State::Cancelled,
            (Some(_), _) => State::Failed,
            (None, true) => State::Running,
            (None, false) => State::Lost,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            State::Running => "running",
            State::Done => "done",
            State::InPart => "done in part",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Lost => "lost",
        })
    }
}

impl Folder {
    /// The folder of a job, which need not exist.
    ///
    /// # Errors
    /// When there is no home.
    pub fn of(id: JobId) -> anyhow::Result<Folder> {
        let path = all::home()?.join(id.to_string());
        Ok(Folder { path })
    }

    /// Makes it, for this user alone: what a job prints may be nobody else's business.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self) -> anyhow::Result<()> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path);
        made.with_context(|| {
            format!(
                "cannot make {}, where a job's record is kept; LSWITCH_HOME names another place",
                self.path.display()
            )
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a detached job prints to standard output.
    pub fn output(&self) -> PathBuf {
        self.path.join("stdout")
    }

    /// What a detached job prints to standard error.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where a map says what is done of it.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// True if the job can be gone on with.
    pub fn has_journal(&self) -> bool {
        self.journal().exists()
    }

    /// The job that the folder's name says.
    pub fn id(&self) -> Option<JobId> {
        parse_id(self.path.file_name()?.to_str()?)
    }

    /// What is written there; `None` if nothing is yet.
    ///
    /// # Errors
    /// When it cannot be read, or is of a version that this release does not know.
    pub fn read(&self) -> anyhow::Result<Option<Facts>> {
        let mut facts = match self.read_once()? {
            Some(facts) if facts.end.is_none() => facts,
            settled => return Ok(settled),
        };
        facts.is_there = facts.driver.is_there();
        if facts.is_there {
            return Ok(Some(facts));
        }
        // It may have said how it ended after this was read and before it was looked for; once it is gone nothing changes.
        self.read_once()
    }

    fn read_once(&self) -> anyhow::Result<Option<Facts>> {
        let path = self.path.join(FACTS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let what = || format!("{} is no record of a job", path.display());
        let Versioned { version } = serde_json::from_slice(&bytes).with_context(what)?;
        if version != VERSION {
            bail!(
                "{} is of version {version}, and this release of lswitch reads version {VERSION}",
                path.display()
            );
        }
        let written: Written<Facts> = serde_json::from_slice(&bytes).with_context(what)?;
        let facts = written.facts;
        if written
            .crc32c
            .is_some_and(|checksum| checksum != facts.checksum())
        {
            bail!(
                "{} is damaged: its values do not fit its checksum. The job itself is not changed by that; delete {} to forget it",
                path.display(),
                self.path.display()
            );
        }
        if parse_id(&facts.id) != self.id() {
            bail!(
                "{} is the record of another job, {}",
                path.display(),
                facts.id
            );
        }
        Ok(Some(facts))
    }

    /// Writes what is known, in place of what was: a reader sees one or the other, whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, facts: &Facts) -> anyhow::Result<()> {
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix("job-")
                .tempfile_in(&self.path)?;
            let written = Written {
                facts,
                crc32c: Some(facts.checksum()),
            };
            serde_json::to_writer(&mut file, &written)?;
            file.write_all(b"\n")?;
            file.persist(self.path.join(FACTS))?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {} in {}", FACTS, self.path.display()))
    }

    /// Its bytes, and when the newest file in it was written.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn size(&self) -> io::Result<(u64, SystemTime)> {
        let (mut bytes, mut newest) = (0, fs::metadata(&self.path)?.modified()?);
        for file in fs::read_dir(&self.path)? {
            let metadata = file?.metadata()?;
            bytes += metadata.len();
            newest = newest.max(metadata.modified()?);
        }
        Ok((bytes, newest))
    }

    /// Deletes it. That it is gone already is no error.
    ///
    /// # Errors
    /// When something in it cannot be deleted.
    pub fn delete(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The contents of `job.json`: what is known, and its checksum, which records of earlier releases do not have.
#[derive(Serialize, Deserialize)]
struct Written<F> {
    #[serde(flatten)]
    facts: F,
    #[serde(default)]
    crc32c: Option<u32>,
}

impl Facts {
    /// CRC32C of the facts as compact JSON.
    fn checksum(&self) -> u32 {
        let json = serde_json::to_vec(self).expect("its fields are plain values");
        crc32c::crc32c(&json)
    }

    /// How it was with the job when this was read.
    pub fn state(&self) -> State {
        let exit = self.end.as_ref().map(|end| end.exit);
        State::of(exit, self.is_there)
    }

    /// How long it took, or has taken until now; of a lost one nobody knows.
    pub fn took(&self) -> Option<Duration> {
        let until = match (&self.end, self.state()) {
            (Some(end), _) => end.at_ms,
            (None, State::Running) => now_ms(),
            (None, _) => return None,
        };
        Some(Duration::from_millis(until.saturating_sub(self.began_ms)))
    }

    /// The command line, as one may paste it.
    pub fn command(&self) -> String {
        let mut words = self.arguments.iter().map(|word| quoted(word));
        let program = self.arguments.first().map(Path::new);
        let name = program.and_then(Path::file_name).unwrap_or_default();
        let mut command = name.to_string_lossy().into_owned();
        words.next();
        for word in words {
            command.push(' ');
            command.push_str(&word);
        }
        command
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "_-+=:,./@%".contains(letter);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A job's id from its 32 digits.
pub fn parse_id(text: &str) -> Option<JobId> {
    parse_hex(text).map(JobId)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_exit_code_and_from_whether_the_driver_is_there() {
        for (exit, is_there, state) in [
            (None, true, State::Running),
            (None, false, State::Lost),
            (Some(0), false, State::Done),
            // It has said how it ended, and ends now.
            (Some(0), true, State::Done),
            (Some(1), false, State::Failed),
            (Some(2), false, State::Failed),
            (Some(101), false, State::Failed),
            (Some(3), false, State::InPart),
            (Some(129), false, State::Cancelled),
            (Some(130), false, State::Cancelled),
            (Some(143), false, State::Cancelled),
            (Some(137), false, State::Failed),
        ] {
            assert_eq!(State::of(exit, is_there), state, "{exit:?} {is_there}");
        }
    }

    fn facts() -> Facts {
        Facts {
            version: VERSION,
            id: JobId([7; 16]).to_string(),
            program: "map".into(),
            arguments: ["/opt/lswitch", "invoke", "map", "--items", "it's *.txt", ""]
                .map(String::from)
                .into(),
            folder: "/work".into(),
            store: None,
            output: None,
            detached: false,
            under_way: false,
            driver: Driver::this(),
            began_ms: 1000,
            end: None,
            is_there: true,
        }
    }

    #[test]
    fn a_command_can_be_pasted() {
        assert_eq!(
            facts().command(),
            r"lswitch invoke map --items 'it'\''s *.txt' ''"
        );
    }

    #[test]
    fn a_record_is_read_as_it_was_written_or_refused_by_name() {
        let home = tempfile::tempdir().unwrap();
        let folder = |id: JobId| Folder {
            path: home.path().join(id.to_string()),
        };
        let own = folder(JobId([7; 16]));
        own.make().unwrap();
        assert!(own.read().unwrap().is_none());
        let mut facts = facts();
        for end in [
            None,
            Some(End {
                at_ms: 3500,
                exit: 1,
                error: Some("why".into()),
                stdout: None,
            }),
        ] {
            facts.is_there = end.is_none();
            facts.end = end;
            own.write(&facts).unwrap();
            assert_eq!(own.read().unwrap().as_ref(), Some(&facts));
        }
        assert_eq!(facts.took(), Some(Duration::from_millis(2500)));
        assert_eq!(fs::read_dir(own.path()).unwrap().count(), 1);

        facts.version = 2;
        own.write(&facts).unwrap();
        let error = own.read().unwrap_err().to_string();
        assert!(error.contains("is of version 2"), "{error}");
        facts.version = 1;
        let other = folder(JobId([8; 16]));
        other.make().unwrap();
        other.write(&facts).unwrap();
        let error = other.read().unwrap_err().to_string();
        assert!(error.contains("record of another job"), "{error}");
        own.write(&facts).unwrap();
        let right = fs::read_to_string(own.path().join(FACTS)).unwrap();
        let changed = right.replace("\"exit\":1", "\"exit\":0");
        assert_ne!(changed, right);
        fs::write(own.path().join(FACTS), changed).unwrap();
        let error = own.read().unwrap_err().to_string();
        assert!(error.contains("do not fit its checksum"), "{error}");
        // As releases before wrote it.
        let plain = serde_json::to_string(&facts).unwrap();
        fs::write(own.path().join(FACTS), plain).unwrap();
        assert_eq!(own.read().unwrap(), Some(facts));
        fs::write(own.path().join(FACTS), "{").unwrap();
        let error = own.read().unwrap_err().to_string();
        assert!(error.contains("is no record of a job"), "{error}");
        own.delete().unwrap();
        own.delete().unwrap();
    }
}
