//! All jobs of which this machine has a record: found by the beginning of their ids, newest first, the oldest forgotten.

use super::{Facts, Folder, State};
use crate::cmd::{UsageError, settings};
use anyhow::Context;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// With more records than this the oldest of jobs that have ended are deleted when the next one begins.
const RECORDS_MAX: usize = 1000;

/// How many stay then, so that not every job looks through all of them.
const RECORDS_KEPT: usize = 900;

/// The least digits that name a job.
const DIGITS_MIN: usize = 4;

/// The least digits of an id that are shown.
const SHOWN_MIN: usize = 8;

/// How many jobs an error names at most.
const NAMED_MAX: usize = 8;

/// A job's folder and what is written there.
pub type Record = (Folder, Facts);

/// Where the folders of jobs are.
///
/// # Errors
/// When there is no home.
pub fn home() -> anyhow::Result<PathBuf> {
    Ok(settings::home()?.join("jobs"))
}

/// All folders that are named for a job.
///
/// # Errors
/// When they cannot be listed.
pub fn folders() -> anyhow::Result<Vec<Folder>> {
    let home = home()?;
    let what = || format!("cannot list the jobs in {}", home.display());
    let entries = match fs::read_dir(&home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(what),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.with_context(what)?.path();
        let folder = Folder { path };
        if folder.id().is_some() {
            folders.push(folder);
        }
    }
    Ok(folders)
}

/// All records that can be read, the newest first.
///
/// # Errors
/// When they cannot be listed.
pub fn records() -> anyhow::Result<Vec<Record>> {
    let (records, unread) = read_all()?;
    for (_, error) in unread {
        tracing::warn!("{error:#}");
    }
    Ok(records)
}

/// A folder whose record cannot be read, and why.
type Unread = (Folder, anyhow::Error);

/// All records that can be read, the newest first, and those that cannot.
fn read_all() -> anyhow::Result<(Vec<Record>, Vec<Unread>)> {
    let (mut records, mut unread) = (Vec::new(), Vec::new());
    for folder in folders()? {
        match folder.read() {
            Ok(Some(facts)) => records.push((folder, facts)),
            // Of one that begins just now.
            Ok(None) => {}
            Err(error) => unread.push((folder, error)),
        }
    }
    records.sort_by(|(_, a), (_, b)| (b.began_ms, &b.id).cmp(&(a.began_ms, &a.id)));
    Ok((records, unread))
}

/// The job that a user means by the first digits of its id.
///
/// # Errors
/// When no job or several begin so, which is wrong usage.
pub fn find(digits: &str) -> anyhow::Result<Record> {
    let (records, unread) = read_all()?;
    let ids: Vec<&str> = records.iter().map(|(_, facts)| &facts.id[..]).collect();
    // A job whose record is damaged is not one that was never there.
    let is_meant = |folder: &Folder| {
        let id = folder.id().map(|id| id.to_string()).unwrap_or_default();
        digits.len() >= DIGITS_MIN && id.starts_with(&digits.to_ascii_lowercase())
    };
    let mut unread = unread.into_iter().filter(|(folder, _)| is_meant(folder));
    let resolved = resolve(digits, &ids);
    if resolved == Err(Unresolved::Absent)
        && let Some((_, error)) = unread.next()
    {
        return Err(error);
    }
    match resolved {
        Ok(index) => Ok(records.into_iter().nth(index).expect("it was found there")),
        Err(Unresolved::NoDigits) => Err(UsageError(format!(
            "{digits:?} names no job: give at least the first {DIGITS_MIN} digits of its id, as \"lswitch jobs\" shows it"
        ))
        .into()),
        Err(Unresolved::Absent) => {
            let all = (0..records.len()).collect();
            let known = match records.is_empty() {
                true => "there are none".into(),
                false => format!("the newest are {}", named(&records, all)),
            };
            Err(UsageError(format!(
                "no job of this machine begins with {digits}; {known} (\"lswitch jobs --all\" lists all)"
            ))
            .into())
        }
        Err(Unresolved::Several(which)) => Err(UsageError(format!(
            "{} jobs begin with {digits}: {}; give more digits",
            which.len(),
            named(&records, which)
        ))
        .into()),
    }
}

/// Some jobs, for an error.
fn named(records: &[Record], which: Vec<usize>) -> String {
    let ids: Vec<&str> = records.iter().map(|(_, facts)| &facts.id[..]).collect();
    let digits = digits_shown(&ids);
    let more = which.len().saturating_sub(NAMED_MAX);
    let shown = which.into_iter().take(NAMED_MAX).map(|index| {
        let facts = &records[index].1;
        format!(
            "{} ({}, {})",
            &facts.id[..digits],
            facts.program,
            facts.state()
        )
    });
    let mut shown = shown.collect::<Vec<_>>().join(", ");
    if more > 0 {
        shown += &format!(" and {more} more");
    }
    shown
}

/// Why digits name no job.
#[derive(Debug, PartialEq, Eq)]
enum Unresolved {
    /// Too few of them, or something else.
    NoDigits,
    /// No id begins so.
    Absent,
    /// These begin so.
    Several(Vec<usize>),
}

/// Which of the ids begins with the digits.
fn resolve(digits: &str, ids: &[&str]) -> Result<usize, Unresolved> {
    let digits = digits.to_ascii_lowercase();
    if digits.len() < DIGITS_MIN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Unresolved::NoDigits);
    }
    let matching = (0..ids.len()).filter(|&index| ids[index].starts_with(&digits));
    match matching.collect::<Vec<_>>()[..] {
        [] => Err(Unresolved::Absent),
        [only] => Ok(only),
        ref several => Err(Unresolved::Several(several.into())),
    }
}

/// How many digits tell these ids from each other.
pub fn digits_shown(ids: &[&str]) -> usize {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let shared = sorted.windows(2).map(|pair| {
        let digits = pair[0].bytes().zip(pair[1].bytes());
        digits.take_while(|(a, b)| a == b).count()
    });
    let longest = shared.max().unwrap_or(0);
    // Of one id there are no more digits than it has.
    (longest + 1).clamp(SHOWN_MIN, 32)
}

/// The first digits of an id, for people.
pub fn short(id: &str) -> &str {
    &id[..SHOWN_MIN.min(id.len())]
}

/// Deletes the oldest records of jobs that have ended and cannot be gone on with, if there are too many. That it cannot is no reason not to begin a job.
pub fn forget_old() {
    let is_full = folders().is_ok_and(|folders| folders.len() > RECORDS_MAX);
    if !is_full {
        return;
    }
    for (folder, facts) in records().unwrap_or_default().iter().skip(RECORDS_KEPT) {
        if facts.state() != State::Running
            && !folder.has_journal()
            && let Err(error) = folder.delete()
        {
            tracing::warn!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_digits_that_begin_no_other() {
        let ids = ["abcd1234", "abcd1299", "00ff0000"];
        assert_eq!(resolve("00ff", &ids), Ok(2));
        assert_eq!(resolve("00FF", &ids), Ok(2));
        assert_eq!(resolve("abcd1234", &ids), Ok(0));
        assert_eq!(resolve("abcd129", &ids), Ok(1));
        assert_eq!(resolve("abcd", &ids), Err(Unresolved::Several(vec![0, 1])));
        assert_eq!(resolve("1234", &ids), Err(Unresolved::Absent));
        for digits in ["", "00f", "00fg", "../00ff", "00ff "] {
            assert_eq!(resolve(digits, &ids), Err(Unresolved::NoDigits), "{digits}");
        }
    }

    #[test]
    fn as_many_digits_are_shown_as_tell_ids_apart() {
        assert_eq!(digits_shown(&[]), 8);
        assert_eq!(digits_shown(&["0123456789ab", "1123456789ab"]), 8);
        assert_eq!(digits_shown(&["0123456789ab", "5123", "0123456789ff"]), 11);
    }
}
