//! A program of the user's own: [`code`] is how it gets to the workers, [`exec`] how it is run there.

pub mod code;
pub mod exec;

use crate::job::context::Context;
use crate::job::program::ProgramError;
use crate::store::Store;
use code::{Code, CodeError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kept of an invocation's time for giving back the last answer; of a short one an eighth.
const MARGIN: Duration = Duration::from_secs(5);

/// What workers run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program, if it travels.
    pub code: Option<Code>,
    /// Otherwise its name or path on the workers.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Milliseconds that one run of it may take.
    pub within_ms: Option<u64>,
}

impl Command {
    /// What `program` means: a file of this machine, or one of `folder`, which travel through the store, or the name of a program that
    /// the workers have.
    ///
    /// # Errors
    /// When there is no such file, or it cannot be stored.
    pub async fn new(
        program: &str,
        arguments: Vec<String>,
        folder: Option<&Path>,
        within: Option<Duration>,
        store: &Store,
    ) -> Result<Command, CodeError> {
        let unfit = |what: String| Err(CodeError::Unfit(what));
        let code = match folder {
            Some(folder) if folder.join(program).is_file() => true,
            Some(folder) => return unfit(format!("there is no {program} in {}", folder.display())),
            None if Path::new(program).is_file() => true,
            None if program.contains('/') => return unfit(format!("there is no file {program}")),
            None => false,
        };
        Ok(Command {
            code: match code {
                true => Some(Code::upload(program, folder, store).await?),
                false => None,
            },
            program: program.into(),
            arguments,
            within_ms: within.map(|within| within.as_millis() as u64),
        })
    }

    /// Makes it ready on this worker, and gives its path.
    ///
    /// # Errors
    /// When it is not to be had, or would not run here.
    pub fn prepare(&self, context: &Context) -> Result<PathBuf, ProgramError> {
        let path = match &self.code {
            Some(code) => code.fetch(context)?,
            None => local(&self.program)?,
        };
        code::check(&path).map_err(ProgramError::new)?;
        Ok(path)
    }

    /// How long a run of it may take that begins now, and whether that is what is left of an invocation of so much time in all.
    pub fn within(&self, context: &Context, invocation: Duration) -> (Duration, bool) {
        let margin = MARGIN.min(invocation / 8);
        let left = context.remaining().saturating_sub(margin);
        match self.within_ms.map(Duration::from_millis) {
            Some(within) if within < left => (within, false),
            _ => (left, true),
        }
    }
}

/// A program that is on this worker already.
fn local(name: &str) -> Result<PathBuf, ProgramError> {
    let found = if name.contains('/') {
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    } else {
        code::find(name)
    };
    found.ok_or_else(|| ProgramError::new(format!("there is no program {name} on the workers")))
}
