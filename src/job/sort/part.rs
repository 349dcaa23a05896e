//! A rank's part of a result: a file of the user's output, or a sealed object in the job's own store, for what reads it next.

use crate::job::context::{BlockingSealedWriter, BlockingStore, Context};
use crate::job::output::{OutputFolder, OutputPart, ResultFile, Target};
use crate::job::program::ProgramError;
use crate::store::StoreError;
use crate::store::sealed::SealedKey;
use serde::{Deserialize, Serialize};

/// Where the parts of a result go.
pub enum Parts {
    /// To an output, which a claim holds.
    Output(OutputFolder),
    /// To the job's own store, which reads them again.
    Own {
        /// The store.
        store: BlockingStore,
        /// What the keys begin with.
        prefix: String,
    },
}

/// A part that is being written.
pub enum Part {
    /// For the user.
    File(OutputPart),
    /// For the job itself.
    Sealed {
        /// Its key.
        key: String,
        /// Its writer.
        writer: BlockingSealedWriter,
    },
}

/// A part that was written, as its rank reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrittenPart {
    /// A file of an output.
    File(ResultFile),
    /// An object in the job's own store.
    Sealed(SealedKey),
}

impl Parts {
    /// Opens the place. Only outputs have a claim.
    ///
    /// # Errors
    /// As [`Context::open_store`].
    pub fn open(context: &Context, target: &Target) -> Result<Parts, ProgramError> {
        Ok(match &target.claim {
            Some(_) => Parts::Output(OutputFolder::open(context, target)?),
            None => Parts::Own {
                store: context.open_store(&target.store)?,
                prefix: target.prefix.clone(),
            },
        })
    }

    /// Begins a part of this name.
    ///
    /// # Errors
    /// As [`BlockingStore::writer`].
    pub fn create(&self, name: &str) -> Result<Part, StoreError> {
        Ok(match self {
            Parts::Output(folder) => Part::File(folder.create(name)?),
            Parts::Own { store, prefix } => {
                let key = format!("{prefix}{name}");
                let writer = store.sealed_writer(&key)?;
                Part::Sealed { key, writer }
            }
        })
    }

    /// Gives a part its name.
    ///
    /// # Errors
    /// As [`OutputFolder::complete_alone`], or when the store does not take the rest.
    pub fn complete(&mut self, part: Part) -> Result<WrittenPart, ProgramError> {
        match (self, part) {
            (Parts::Output(folder), Part::File(part)) => {
                folder.complete_alone(part).map(WrittenPart::File)
            }
            (Parts::Own { .. }, Part::Sealed { key, writer }) => {
                let seal = writer.finish()?;
                Ok(WrittenPart::Sealed(SealedKey { key, seal }))
            }
            _ => unreachable!("a part is completed where it was created"),
        }
    }
}

impl Part {
    /// Adds bytes.
    ///
    /// # Errors
    /// When the store does not take them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Part::File(part) => part.push(bytes),
            Part::Sealed { writer, .. } => writer.push(bytes),
        }
    }
}

impl WrittenPart {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            WrittenPart::File(file) => file.bytes,
            WrittenPart::Sealed(object) => object.seal.bytes,
        }
    }

    /// The file, of a part in an output.
    pub fn file(&self) -> Option<&ResultFile> {
        match self {
            WrittenPart::File(file) => Some(file),
            WrittenPart::Sealed(_) => None,
        }
    }

    /// The object, of a part in the job's own store.
    pub fn sealed(&self) -> Option<&SealedKey> {
        match self {
            WrittenPart::File(_) => None,
            WrittenPart::Sealed(object) => Some(object),
        }
    }
}
