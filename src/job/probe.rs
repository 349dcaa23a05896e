//! A worker that tells what it finds where it runs: for `lswitch doctor`.

use crate::job::context::{BlockingStore, Context};
use crate::job::program::{Program, ProgramError};

use serde::{Deserialize, Serialize};

/// The program; its arguments are [`Asked`], its result is [`Found`] as JSON.
pub const PROGRAM: Program = Program { name: "probe", run };

/// What the worker is to try.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// Write to the job's store, read it again, and delete it.
    pub store: bool,
}

/// What the worker has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// Seconds that its invocation still had.
    pub remaining_s: u64,
    /// What is wrong with the store, if it was tried.
    pub store_problem: Option<String>,
}

fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let asked: Asked = context.arguments()?;
    let store_problem = match asked.store {
        true => try_store(context).err().map(|error| error.to_string()),
        false => None,
    };
    let found = Found {
        remaining_s: context.remaining().as_secs(),
        store_problem,
    };
    Ok(serde_json::to_vec(&found)?)
}

fn try_store(context: &Context) -> Result<(), ProgramError> {
    let store: BlockingStore = context.store()?;
    let key = format!("probe/{}", context.job());
    let value = context.job().as_bytes().to_vec();
    store.put(&key, value.clone().into())?;
    let read = store.get(&key)?;
    store.delete(&key)?;
    match read == value {
        true => Ok(()),
        false => Err(ProgramError::new(
            "it gave back other bytes than were written",
        )),
    }
}
