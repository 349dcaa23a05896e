//! `lswitch clean`: deletes what jobs have left, after it has shown what that is.
//!
//! Only keys that jobs give to what they keep are looked at, so that nothing of a user's own goes: a store may hold a graph or a
//! result too.

use crate::cmd::block_on;
use crate::cmd::record::all;
use crate::cmd::record::{Facts, Folder, State, parse_id};
use crate::cmd::settings::{AwsArgs, parse_age};
use crate::cmd::ui::{self, Ui, print_json, print_table};
use crate::process::scratch::{self, Abandoned};
use crate::random::parse_hex;
use crate::store::{Entry, Store, Unfinished};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What the keys begin with of what a job keeps in its store: one of these, its id, and more.
const AREAS: [&str; 5] = [MAP, "sort", "wordcount", "reduce", "pagerank"];

/// The area whose objects another job may go on with.
const MAP: &str = "map";

/// Programs and folders that travelled to workers: this and the SHA-256 of their bytes.
const CODE: &str = "code/";

/// A folder without a record belongs to a job that begins just now, unless it is older than this.
const BEGINNING: Duration = Duration::from_secs(3600);

/// Delete what jobs have left: code, spill, outputs, records
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch clean
  lswitch clean --older-than 7d --yes
  lswitch clean --store s3://bucket/jobs --older-than 30d

Shows what can go, and deletes it only with --yes: in the store programs that travelled to workers, and what jobs kept there
that were killed or lost, or that could be gone on with by --resume; on this machine the records of jobs that have ended, with
what they printed in the background, and at any age the temporary folders of processes that were killed. Nothing goes that belongs to a job that runs on this machine. Of jobs that other machines run in the same store nothing is
known here but the age: choose --older-than above their longest. Graphs and results are never touched.

Unfinished writes go, too: temporary files of a store in a folder; in S3 all uploads below the store's location that were begun
longer than --older-than ago and neither completed nor aborted, whoever began them. Their parts cost money and no object holds them;
S3 does not list their bytes.")]
pub struct Clean {
    /// The jobs' own store
    #[arg(
        long,
        value_name = "STORE",
        default_value = "./.lswitch",
        env = "LSWITCH_STORE"
    )]
    store: String,

    /// What is younger stays: a number with s, m, h, d or w; 0s is everything
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = parse_age)]
    older_than: Duration,

    /// Delete it
    #[arg(long)]
    yes: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    aws: AwsArgs,
}

/// Things of one kind that can go.
struct Group {
    what: &'static str,
    count: u64,
    bytes: u64,
}

/// All that can go.
#[derive(Default)]
struct Doomed {
    groups: Vec<Group>,
    objects: Vec<String>,
    unfinished: Vec<Unfinished>,
    records: Vec<Folder>,
    outputs: Vec<Store>,
    temporary: Vec<Abandoned>,
}

impl Clean {
    /// Shows what can go, and deletes it if that is wanted.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        block_on(async {
            let store = Store::open(&self.store, &self.aws.settings()).await?;
            let mut doomed = self.find(&store).await?;
            let (count, bytes) = doomed.groups.iter().fold((0, 0), |sum, group| {
                (sum.0 + group.count, sum.1 + group.bytes)
            });
            if self.json {
                // What was deleted is said when it is.
                if self.yes {
                    doomed.delete(&store).await?;
                }
                return print_json(&self.summary(&store, &doomed, (count, bytes)));
            }
            if count == 0 {
                ui.say(format!(
                    "nothing to clean: no job has left anything in {} that is old enough, and there are no such records",
                    self.store
                ));
                return Ok(());
            }
            let mut rows: Vec<Vec<String>> = doomed.groups.iter().map(Group::row).collect();
            let what = "in all";
            rows.push(Group { what, count, bytes }.row());
            print_table(&["WHAT", "COUNT", "BYTES"], &rows)?;
            if !self.yes {
                ui.say("nothing was deleted; the same command with --yes does");
                return Ok(());
            }
            doomed.delete(&store).await?;
            ui.say(format!("deleted: {count}, with {}", ui::bytes(bytes)));
            Ok(())
        })
    }

    async fn find(&self, store: &Store) -> anyhow::Result<Doomed> {
        // First the objects, then who runs: a job that begins in between has written its record before its objects.
        let code = store.list(CODE).await?;
        let unfinished = match store.unfinished().await {
            Ok(unfinished) => unfinished,
            // Not every server that speaks S3's protocol can list them, and credentials may lack the right.
            Err(error) => {
                tracing::warn!("unfinished uploads are not looked for: {error}");
                Vec::new()
            }
        };
        let mut areas = Vec::new();
        for area in AREAS {
            areas.push((area, store.list(&format!("{area}/")).await?));
        }
        let folders = all::folders()?;
        let mut running = Vec::new();
        let mut ended = Vec::new();
        let mut outputs = BTreeSet::new();
        let now = SystemTime::now();
        for folder in folders {
            let facts = match folder.read() {
                Ok(facts) => facts,
                // Perhaps of a later release, which knows better.
                Err(error) => {
                    tracing::warn!("{error:#}");
                    continue;
                }
            };
            let least = match facts {
                Some(facts) if facts.state() == State::Running => {
                    running.push(facts);
                    continue;
                }
                Some(facts) => {
                    outputs.extend(facts.output.filter(|url| url.starts_with("file://")));
                    self.older_than
                }
                None => self.older_than.max(BEGINNING),
            };
            // It may be gone by now.
            if let Ok((bytes, newest)) = folder.size()
                && is_older(newest, least, now)
            {
                ended.push((folder, bytes));
            }
        }
        let in_use = running.iter().any(|facts| may_use(facts, store.url()));
        let is_old = |entry: &Entry| is_older(entry.modified, self.older_than, now);
        let runs = |id: &str| running.iter().any(|facts| facts.id == id);

        let mut doomed = Doomed::default();
        let code = code
            .into_iter()
            .filter(|entry| !in_use && is_code(&entry.key) && is_old(entry));
        doomed
            .objects
            .extend(doomed_keys(&mut doomed.groups, "code", code));
        for (area, entries) in areas {
            if area == MAP && in_use {
                // One of those that run may go on with what others have left.
                continue;
            }
            let left = left_by_jobs(area, entries, runs, is_old);
            doomed
                .objects
                .extend(doomed_keys(&mut doomed.groups, area, left));
        }
        let is_left =
            |write: &Unfinished| !in_use && is_older(write.modified, self.older_than, now);
        doomed.unfinished = unfinished.into_iter().filter(is_left).collect();
        if !doomed.unfinished.is_empty() {
            doomed.groups.push(Group {
                what: "unfinished writes",
                count: doomed.unfinished.len() as u64,
                bytes: doomed.unfinished.iter().map(|write| write.bytes).sum(),
            });
        }
        let (unfinished, finished): (Vec<_>, Vec<_>) =
            ended.iter().partition(|(folder, _)| folder.has_journal());
        for (what, records) in [
            ("records of jobs", finished),
            ("maps that --resume could go on with", unfinished),
        ] {
            if !records.is_empty() {
                doomed.groups.push(Group {
                    what,
                    count: records.len() as u64,
                    bytes: records.iter().map(|(_, bytes)| bytes).sum(),
                });
            }
        }
        doomed.records = ended.into_iter().map(|(folder, _)| folder).collect();
        self.find_abandoned(&mut doomed, outputs).await?;
        Ok(doomed)
    }

    /// What processes that are gone have left outside of the store, whose writers are known to be gone at any age.
    async fn find_abandoned(
        &self,
        doomed: &mut Doomed,
        outputs: BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let mut unfinished = Group {
            what: "unfinished writes of outputs",
            count: 0,
            bytes: 0,
        };
        for url in outputs {
            let output = Store::open(&url, &self.aws.settings()).await?;
            // Somebody else's by now, perhaps.
            let (count, bytes) = output.abandoned().await.unwrap_or_default();
            if count > 0 {
                unfinished.count += count;
                unfinished.bytes += bytes;
                doomed.outputs.push(output);
            }
        }
        doomed.temporary = tokio::task::spawn_blocking(scratch::abandoned).await?;
        let temporary = Group {
            what: "temporary folders of processes that are gone",
            count: doomed.temporary.len() as u64,
            bytes: doomed.temporary.iter().map(Abandoned::bytes).sum(),
        };
        let found = [unfinished, temporary].into_iter();
        doomed.groups.extend(found.filter(|group| group.count > 0));
        Ok(())
    }

    fn summary(&self, store: &Store, doomed: &Doomed, (count, bytes): (u64, u64)) -> Value {
        let groups = doomed
            .groups
            .iter()
            .map(|group| json!({ "what": group.what, "count": group.count, "bytes": group.bytes }));
        json!({
            "store": store.url(),
            "older_than_seconds": self.older_than.as_secs(),
            "groups": groups.collect::<Vec<Value>>(),
            "count": count,
            "bytes": bytes,
            "deleted": self.yes,
        })
    }
}

impl Group {
    fn row(&self) -> Vec<String> {
        let count = self.count.to_string();
        vec![self.what.into(), count, ui::bytes(self.bytes)]
    }
}

impl Doomed {
    async fn delete(&mut self, store: &Store) -> anyhow::Result<()> {
        store.delete_each(self.objects.iter().cloned()).await?;
        for write in &self.unfinished {
            store.discard(write).await?;
        }
        for folder in &self.records {
            folder.delete()?;
        }
        for output in &self.outputs {
            output.sweep().await?;
        }
        let temporary = std::mem::take(&mut self.temporary);
        let removed = tokio::task::spawn_blocking(move || {
            temporary.into_iter().try_for_each(Abandoned::remove)
        });
        removed.await?.context("cannot remove a temporary folder")?;
        Ok(())
    }
}

/// The keys of entries, which are told as a group if there are any.
fn doomed_keys(
    groups: &mut Vec<Group>,
    what: &'static str,
    entries: impl IntoIterator<Item = Entry>,
) -> Vec<String> {
    let mut bytes = 0;
    let entries = entries.into_iter().inspect(|entry| bytes += entry.bytes);
    let keys: Vec<String> = entries.map(|entry| entry.key).collect();
    if !keys.is_empty() {
        let count = keys.len() as u64;
        groups.push(Group { what, count, bytes });
    }
    keys
}

/// What jobs have left in an area: of each that does not run all or, if some of it is young, nothing.
fn left_by_jobs(
    area: &str,
    entries: Vec<Entry>,
    runs: impl Fn(&str) -> bool,
    is_old: impl Fn(&Entry) -> bool,
) -> Vec<Entry> {
    let mut jobs: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        let id = job_of(area, &entry.key).map(String::from);
        if let Some(id) = id.filter(|id| !runs(id)) {
            jobs.entry(id).or_default().push(entry);
        }
    }
    let old = jobs.into_values().filter(|job| job.iter().all(&is_old));
    old.flatten().collect()
}

/// The job to which a key belongs: `AREA/ID/...`.
fn job_of<'a>(area: &str, key: &'a str) -> Option<&'a str> {
    let (id, _) = key.strip_prefix(area)?.strip_prefix('/')?.split_once('/')?;
    parse_id(id).map(|_| id)
}

fn is_code(key: &str) -> bool {
    let sha256 = key.strip_prefix(CODE).and_then(parse_hex::<32>);
    sha256.is_some()
}

fn is_older(modified: SystemTime, least: Duration, now: SystemTime) -> bool {
    // What was written a moment ago by a clock that is ahead has no age.
    now.duration_since(modified).unwrap_or_default() >= least
}

/// True unless a job is known to have another store.
fn may_use(facts: &Facts, url: &str) -> bool {
    let Some(own) = facts.store.as_deref() else {
        return true;
    };
    // Two ways may lead to one folder.
    let real = |url: &str| Path::new(url.strip_prefix("file://")?).canonicalize().ok();
    own == url || real(own).is_some_and(|own| Some(own) == real(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_job_all_goes_or_nothing_and_only_what_a_job_has_named() {
        let now = SystemTime::now();
        let (a, b, c) = ("a".repeat(32), "b".repeat(32), "c".repeat(32));
        let entry = |key: String, hours: u64| Entry {
            key,
            bytes: 1,
            modified: now - Duration::from_secs(hours * 3600),
            etag: None,
        };
        let entries = vec![
            entry(format!("map/{a}/outputs/1"), 30),
            entry(format!("map/{a}/outputs/2"), 25),
            entry(format!("map/{b}/outputs/1"), 30),
            entry(format!("map/{b}/outputs/2"), 2),
            entry(format!("map/{c}/outputs/1"), 30),
            entry("map/of-my-own/1".into(), 30),
            entry(format!("map/{a}"), 30),
            entry(format!("map/{a}0/1"), 30),
        ];
        let is_old = |entry: &Entry| is_older(entry.modified, Duration::from_secs(86_400), now);
        let left = left_by_jobs("map", entries, |id| id == c, is_old);
        let keys: Vec<&str> = left.iter().map(|entry| &entry.key[..]).collect();
        assert_eq!(
            keys,
            [format!("map/{a}/outputs/1"), format!("map/{a}/outputs/2")]
        );
    }

    #[test]
    fn code_has_the_name_of_its_sum() {
        assert!(is_code(&format!("code/{}", "0f".repeat(32))));
        assert!(!is_code("code/main.py"));
        assert!(!is_code(&format!("code/{}/x", "0f".repeat(32))));
    }

    #[test]
    fn what_is_ahead_of_the_clock_is_young() {
        let now = SystemTime::now();
        let ahead = now + Duration::from_secs(5);
        assert!(!is_older(ahead, Duration::from_secs(1), now));
        assert!(is_older(ahead, Duration::ZERO, now), "0s is everything");
    }
}
