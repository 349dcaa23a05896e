//! A worker's side of an output: files that grow, get a checksum, and get their names only while the job holds the output.

use super::manifest::ResultFile;
use crate::job::context::{BlockingStore, BlockingWriter, Context};
use crate::job::program::ProgramError;
use crate::store::StoreError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Bytes that are written to the store at once.
const WRITE_LEN: usize = 1 << 20;

/// Bytes of a file that are read at once to compare it.
const READ_LEN: u64 = 8 << 20;

/// Where workers write: a part of their program's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The store, absolute.
    pub store: String,
    /// What the keys begin with. Empty in an output; results that only the job itself reads lie in the job's store.
    pub prefix: String,
    /// The key of the claim ([`super::claim`]), in an output.
    pub claim: Option<String>,
}

/// The output as a worker has it open.
#[derive(Clone)]
pub struct OutputFolder {
    store: BlockingStore,
    prefix: String,
    claim: Option<String>,
    /// A look for the claim is good for so long.
    trusted_for: Duration,
    seen: Option<Instant>,
}

/// A file of an output that is being written.
pub struct OutputPart {
    name: String,
    /// None once the store has failed: the file is dropped then.
    writer: Option<BlockingWriter>,
    gathered: Vec<u8>,
    bytes: u64,
    crc32c: u32,
}

/// What stands under the name of a file that was completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completed {
    /// The bytes of this writer.
    Own(ResultFile),
    /// Other bytes, which were there first.
    Other(ResultFile),
}

impl OutputFolder {
    /// Opens the output. The claim is looked for each time that a file is completed.
    ///
    /// # Errors
    /// As [`Context::open_store`].
    pub fn open(context: &Context, target: &Target) -> Result<OutputFolder, ProgramError> {
        Ok(OutputFolder {
            store: context.open_store(&target.store)?,
            prefix: target.prefix.clone(),
            claim: target.claim.clone(),
            trusted_for: Duration::ZERO,
            seen: None,
        })
    }

    /// The same for many short files: a look for the claim is good for so long.
    pub fn trusting_for(self, time: Duration) -> OutputFolder {
        OutputFolder {
            trusted_for: time,
            ..self
        }
    }

    /// Begins a file of this name.
    ///
    /// # Errors
    /// As [`BlockingStore::writer`].
    pub fn create(&self, name: &str) -> Result<OutputPart, StoreError> {
        Ok(OutputPart {
            name: name.into(),
            writer: Some(self.store.writer(&self.key(name))?),
            gathered: Vec::new(),
            bytes: 0,
            crc32c: 0,
        })
    }

    /// Gives a file its name, unless there is one: a worker never replaces what another has completed.
    ///
    /// # Errors
    /// When the job no longer holds the output, or the store fails.
    pub fn complete(&mut self, mut part: OutputPart) -> Result<Completed, ProgramError> {
        part.write()?;
        self.check_claim()?;
        let file = ResultFile {
            name: part.name,
            bytes: part.bytes,
            crc32c: part.crc32c,
        };
        let writer = part.writer.take().expect("it was just written to");
        if writer.finish_new()? {
            return Ok(Completed::Own(file));
        }
        // A try whose answer was lost finds its own bytes, and so does the worker of a try before this one.
        let there = self.read(&file.name)?;
        Ok(match there == file {
            true => Completed::Own(file),
            false => Completed::Other(there),
        })
    }

    /// The same for files that no other worker of the job writes.
    ///
    /// # Errors
    /// When other bytes stand under the name, and as [`complete`](Self::complete).
    pub fn complete_alone(&mut self, part: OutputPart) -> Result<ResultFile, ProgramError> {
        match self.complete(part)? {
            Completed::Own(file) => Ok(file),
            Completed::Other(file) => Err(ProgramError::new(format!(
                "{} was written meanwhile by another job, or by an earlier try of this one; run the job again, with an --output of its own",
                self.file_url(&file.name)
            ))),
        }
    }

    /// Writes a whole file that no other worker of the job writes.
    ///
    /// # Errors
    /// As [`complete_alone`](Self::complete_alone).
    pub fn put(&mut self, name: &str, contents: Bytes) -> Result<ResultFile, ProgramError> {
        let mut part = self.create(name)?;
        part.store(contents)?;
        self.complete_alone(part)
    }

    /// Where the file of this name is, for messages.
    pub fn file_url(&self, name: &str) -> String {
        self.store.object_url(&self.key(name))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Looks for the claim of this try of the job.
    fn check_claim(&mut self) -> Result<(), ProgramError> {
        let Some(claim) = &self.claim else {
            return Ok(());
        };
        let is_fresh = |seen: &Instant| seen.elapsed() < self.trusted_for;
        if self.seen.as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        // From before the answer, so that the time on the way counts.
        let asked = Instant::now();
        match self.store.get(claim) {
            Ok(_) => {
                self.seen = Some(asked);
                Ok(())
            }
            Err(StoreError::NotFound { .. }) => Err(ProgramError::new(format!(
                "this try of the job no longer holds {}: it was given up, or another job took the output over",
                self.store.url()
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Length and checksum of a file that is there.
    fn read(&self, name: &str) -> Result<ResultFile, StoreError> {
        let key = self.key(name);
        let mut file = ResultFile {
            name: name.into(),
            bytes: 0,
            crc32c: 0,
        };
        let length = self.store.length(&key)?;
        while file.bytes < length {
            let end = (file.bytes + READ_LEN).min(length);
            let piece = self.store.get_range(&key, file.bytes..end)?;
            file.crc32c = crc32c::crc32c_append(file.crc32c, &piece);
            file.bytes = end;
        }
        Ok(file)
    }
}

impl OutputPart {
    /// Adds bytes.
    ///
    /// # Errors
    /// When the store does not take them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.gathered.extend_from_slice(bytes);
        match self.gathered.len() >= WRITE_LEN {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let piece = std::mem::take(&mut self.gathered);
        self.store(piece.into())
    }

    fn store(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.bytes += piece.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &piece);
        let writer = self.writer.take().expect("a file that failed is dropped");
        self.writer = Some(writer.write(piece)?);
        Ok(())
    }
}
