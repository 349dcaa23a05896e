//! The record of the job that this process drives. There is one such process for a job and one job for a process, so it is
//! kept for the process: what starts workers says here that they start, what ends the process says here how.
//!
//! Without a record (another command, no place for records) everything here does nothing.

use super::driver::Driver;
use super::printed::Printed;
use super::{End, Facts, Folder, VERSION, all, now_ms};
use crate::cmd::{Exit, ui};
use crate::net::token::JobId;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a job in the background learns that it is one, and its id. Nobody has typed it.
pub const DETACHED_AS: &str = "--detached-as=";

/// The record, from the job's beginning to its end.
static OWN: Mutex<Option<(Folder, Facts)>> = Mutex::new(None);

/// A job that has begun. Dropped without [`end`](Began::end), as by a panic, it has failed.
pub struct Began(());

/// Writes that a job has begun.
///
/// # Errors
/// When there is no place for it; the job has begun all the same.
pub fn begin(id: JobId, program: &str, detached: bool) -> (Began, anyhow::Result<()>) {
    let written = write(id, program, detached);
    if written.is_ok() {
        all::forget_old();
    }
    (Began(()), written)
}

fn write(id: JobId, program: &str, detached: bool) -> anyhow::Result<()> {
    let folder = Folder::of(id)?;
    folder.make()?;
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let words = words.filter(|word| !word.starts_with(DETACHED_AS));
    let facts = Facts {
        version: VERSION,
        id: id.to_string(),
        program: program.into(),
        arguments: words.collect(),
        folder: std::env::current_dir()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        store: None,
        output: None,
        detached,
        under_way: false,
        driver: Driver::this(),
        began_ms: now_ms(),
        end: None,
        is_there: true,
    };
    folder.write(&facts)?;
    *own() = Some((folder, facts));
    Ok(())
}

/// The job's own store is open.
pub fn stores_at(url: &str) {
    change(|facts| facts.store = Some(url.into()));
}

/// The job's output store is open.
pub fn writes_to(url: &str) {
    change(|facts| facts.output = Some(url.into()));
}

/// The job's workers are being started.
pub fn under_way() {
    change(|facts| facts.under_way = true);
}

/// Writes how the job has ended, if it has begun. Nothing changes the record after that.
pub fn end(exit: Exit, error: Option<String>) {
    end_with(exit.code(), error);
}

fn end_with(exit: u8, error: Option<String>) {
    let Some((folder, mut facts)) = own().take() else {
        return;
    };
    // A job that was ended while it printed may yet print what it holds back.
    let is_whole = [Exit::Done as u8, Exit::InPart as u8].contains(&exit);
    let stdout = Some(folder.output()).filter(|_| facts.detached && is_whole);
    facts.end = Some(End {
        at_ms: now_ms(),
        exit,
        error,
        stdout: stdout.and_then(|path| Printed::of(&path).ok()),
    });
    complain(folder.write(&facts));
}

impl Began {
    /// Writes how the job has ended.
    pub fn end<T>(self, outcome: &anyhow::Result<T>) {
        let error = outcome.as_ref().err().map(ui::message);
        let line = error.and_then(|error| error.lines().next().map(String::from));
        let exit = Exit::of(outcome);
        end(exit, line.filter(|_| exit != Exit::Done));
    }
}

impl Drop for Began {
    fn drop(&mut self) {
        // What a panic ends a process with. After an end this does nothing.
        end_with(101, Some("its driver panicked".into()));
    }
}

fn own() -> MutexGuard<'static, Option<(Folder, Facts)>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(what: impl FnOnce(&mut Facts)) {
    if let Some((folder, facts)) = &mut *own() {
        what(facts);
        complain(folder.write(facts));
    }
}

/// The job matters more than its record.
fn complain(written: anyhow::Result<()>) {
    if let Err(error) = written {
        tracing::warn!("the job's record is not complete: {error:#}");
    }
}
