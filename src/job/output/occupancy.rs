//! What an output holds: claims of jobs that write there or are gone, and files of earlier results. And from that, whether another job
//! may have it.

use super::claimant::{Claimant, Earlier, Kind, Record};
use super::manifest::{RESULT_KEY, ResultManifest};
use super::process::Process;
use super::{OutputError, is_item_key, is_part_key};
use crate::net::token::JobId;
use crate::store::{Entry, Store, StoreError};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

/// What the keys of claims begin with. Readers of folders pass over names that begin with a dot.
pub const CLAIM_PREFIX: &str = ".lswitch-claim-";

/// A holder on another machine is gone when its claim is older than this: ten beats in a row did not arrive.
const LEASE: Duration = Duration::from_secs(600);

/// The key of the claim of a job, or of one of its tries.
pub fn key_of(id: JobId) -> String {
    format!("{CLAIM_PREFIX}{id}")
}

/// What an output holds, besides the own claim.
pub(super) struct Occupancy {
    /// A job that writes there.
    holder: Option<Record>,
    /// Claims of jobs that are gone.
    pub(super) gone: Vec<String>,
    /// Files of an earlier result, by kind.
    parts: usize,
    items: usize,
    is_finished: bool,
}

/// Looks at an output. Without an own claim nothing shows how old others are, and only those count whose process is seen.
pub(super) async fn look(store: &Store, own: Option<&str>) -> Result<Occupancy, OutputError> {
    let entries = store.list("").await?;
    let own = own.map(|key| entries.iter().find(|entry| entry.key == key));
    let now = match own {
        None => None,
        Some(Some(own)) => Some(own.modified),
        // Another job took this claim for that of a job that is gone.
        Some(None) => {
            return Err(OutputError::Superseded {
                url: store.url().into(),
            });
        }
    };
    let this = Process::this();
    let mut found = Occupancy {
        holder: None,
        gone: Vec::new(),
        parts: 0,
        items: 0,
        is_finished: false,
    };
    for entry in &entries {
        if entry.key.starts_with(CLAIM_PREFIX) {
            if own.flatten().is_some_and(|own| own.key == entry.key) {
                continue;
            }
            let Some(record) = read(store, &entry.key).await? else {
                continue;
            };
            match is_held(&this, record.as_ref(), now, entry.modified) {
                true => found.holder = Some(record.unwrap_or_else(unknown)),
                false => found.gone.push(entry.key.clone()),
            }
            continue;
        }
        found.is_finished |= entry.key == RESULT_KEY;
        found.parts += usize::from(is_part_key(&entry.key));
        found.items += usize::from(is_item_key(&entry.key));
    }
    Ok(found)
}

/// Reads a claim: none if it is gone by now, and inside none if it is no claim that this release reads.
async fn read(store: &Store, key: &str) -> Result<Option<Option<Record>>, StoreError> {
    match store.get(key).await {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).ok())),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unknown() -> Record {
    Record {
        lswitch: String::new(),
        job: "of another release".into(),
        program: "a job".into(),
        process: Process::default(),
    }
}

/// Whether the holder of a claim is there. `now` and `modified` are the store's times of the own claim and of the other.
fn is_held(
    this: &Process,
    record: Option<&Record>,
    now: Option<SystemTime>,
    modified: SystemTime,
) -> bool {
    if let Some(record) = record
        && record.process.is_beside(this)
    {
        return record.process.is_there();
    }
    now.is_some_and(|now| now.duration_since(modified).unwrap_or_default() <= LEASE)
}

impl Occupancy {
    /// Why the claimant must not write there, if there is a reason.
    pub(super) fn refusal(&self, store: &Store, who: &Claimant) -> Option<OutputError> {
        let url = || store.url().to_string();
        if let Some(holder) = &self.holder {
            return Some(OutputError::Busy {
                url: url(),
                job: holder.job.clone(),
                program: holder.program.clone(),
                process: holder.process.to_string(),
            });
        }
        let files = match who.kind {
            Kind::Parts => self.parts,
            Kind::Items => self.parts + self.items,
        };
        match who.earlier {
            Earlier::Replace => None,
            Earlier::Refuse if files == 0 && !self.is_finished => None,
            Earlier::Refuse => Some(OutputError::Occupied {
                url: url(),
                files: files + usize::from(self.is_finished),
            }),
            Earlier::Resume(_) if self.is_finished => Some(OutputError::Occupied {
                url: url(),
                files: files + 1,
            }),
            Earlier::Resume(job) => {
                let is_left = self.gone.contains(&key_of(job));
                // Without a claim of its own the job wrote nothing here, or what it wrote is another's now.
                (!is_left && files > 0).then(|| OutputError::TakenOver {
                    url: url(),
                    job: job.to_string(),
                })
            }
        }
    }
}

/// True for names that jobs of this kind give.
pub(super) fn is_file_of(kind: Kind, key: &str) -> bool {
    key == RESULT_KEY || is_part_key(key) || (kind == Kind::Items && is_item_key(key))
}

/// The files of an earlier result with their lengths: those that are named like it, and those that its manifest names.
pub(super) async fn earlier_files(
    store: &Store,
    entries: &[Entry],
    kind: Kind,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut named: HashSet<String> = HashSet::new();
    if entries.iter().any(|entry| entry.key == RESULT_KEY) {
        match store.get(RESULT_KEY).await {
            Ok(text) => {
                // One of an earlier release names nothing that is not named like a part.
                if let Ok(manifest) = ResultManifest::parse(&text, RESULT_KEY) {
                    named.extend(manifest.files.into_iter().map(|file| file.name));
                }
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let earlier = entries
        .iter()
        .filter(|entry| is_file_of(kind, &entry.key) || named.contains(&entry.key));
    Ok(earlier
        .map(|entry| (entry.key.clone(), entry.bytes))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_elsewhere_is_there_until_its_lease_is_over() {
        let this = Process::this();
        let mut record = unknown();
        record.process.host = Some("elsewhere".into());
        let now = SystemTime::now();
        for (age, held) in [(0, true), (600, true), (601, false)] {
            let modified = now - Duration::from_secs(age);
            assert_eq!(
                is_held(&this, Some(&record), Some(now), modified),
                held,
                "{age}"
            );
            assert_eq!(is_held(&this, None, Some(now), modified), held);
        }
        // A time that is ahead of the own claim's is that of a beat.
        let ahead = now + Duration::from_secs(5);
        assert!(is_held(&this, Some(&record), Some(now), ahead));
        assert!(
            !is_held(&this, Some(&record), None, now),
            "no age is known yet"
        );
    }
}
