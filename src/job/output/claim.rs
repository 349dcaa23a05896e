//! The claim on an output: while a job writes into a folder or prefix, an object there says so, and no other job writes.
//!
//! The key of a claim has the id of its own job, or of one try of it, so a claim is never another job's. To acquire an
//! output a job writes its claim, and then lists the output. Of two jobs that both acquired it each would have listed before the
//! other wrote, and after its own write: that is impossible, since a store shows a write from when it has returned. Jobs that
//! see each other withdraw, and try again after a random pause.
//!
//! A claim whose job is gone is deleted by the next job that acquires the output. On the same machine, that is seen from the process.
//! For another machine, the holder writes its claim again and again, and is taken for gone when ten of these beats did not arrive. Both
//! times are those that the store shows, so no two clocks are compared.
//!
//! Workers look for the claim of their try before they give a part its name ([`super::part`]). A worker of a job that is gone,
//! or of a try that was given up, finds none, and its part stays unnamed.

use super::claimant::{Claimant, Earlier, Kind, Record};
use super::manifest::{RESULT_KEY, ResultFile, ResultManifest};
use super::occupancy::{earlier_files, is_file_of, key_of, look};
use super::part::Target;
use super::process::Process;
use super::{OutputError, is_item_key};
use crate::net::token::JobId;
use crate::random;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

/// How often a holder writes its claim again.
const BEAT_INTERVAL: Duration = Duration::from_secs(60);

/// How often an output is tried whose holder may be about to withdraw, or to end.
const ACQUIRE_TRIES: u32 = 4;

/// The pause before the next try: this, and up to as much again.
const ACQUIRE_PAUSE: Duration = Duration::from_millis(150);

/// How long a beat that is under way may take when the claim is released.
const LAST_BEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// A claim that this process holds.
pub struct Claim {
    store: Store,
    kind: Kind,
    /// The claim of the job that is resumed.
    resumed: Option<String>,
    key: Arc<Mutex<String>>,
    record: Bytes,
    beat: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Claim {
    /// Whether a job may have an output, before anything is written: a job that is only planned leaves no trace.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn check(store: &Store, who: &Claimant) -> Result<(), OutputError> {
        match look(store, None).await?.refusal(store, who) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Acquires an output. An earlier result stays until [`clear`](Self::clear).
    ///
    /// # Errors
    /// When another job writes there, or there is an earlier result that must not be replaced, or the store fails: this is the first write
    /// to the store, so a missing bucket and missing rights show here.
    pub async fn acquire(store: &Store, who: &Claimant) -> Result<Claim, OutputError> {
        let record = Record {
            lswitch: crate::RELEASE.into(),
            job: who.job.to_string(),
            program: who.program.into(),
            process: Process::this(),
        };
        let bytes = Bytes::from(serde_json::to_vec(&record).expect("a record is plain JSON"));
        let key = key_of(who.job);
        let mut tries = 1;
        loop {
            // Nothing is written where the answer is no already.
            let found = look(store, None).await?;
            let outcome = match found.refusal(store, who) {
                Some(refusal) => Err(refusal),
                None => place(store, who, &key, &bytes).await,
            };
            match outcome {
                Ok(()) => break,
                Err(OutputError::Busy { .. }) if tries < ACQUIRE_TRIES => {
                    let share = f64::from(random::bytes::<1>()[0]) / 256.0;
                    tokio::time::sleep(ACQUIRE_PAUSE.mul_f64(1.0 + share)).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let key = Arc::new(Mutex::new(key));
        let beat = Beat {
            store: store.clone(),
            key: key.clone(),
            record: bytes.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let beat = tokio::spawn(beat.run(stopped));
        Ok(Claim {
            store: store.clone(),
            kind: who.kind,
            resumed: resumed(who),
            key,
            record: bytes,
            beat: Some((stop, beat)),
        })
    }

    /// The output.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the job's workers write.
    pub async fn target(&self) -> Target {
        Target {
            store: self.store.url().into(),
            prefix: String::new(),
            claim: Some(self.key().await),
        }
    }

    /// The key of the claim, which workers look for.
    pub async fn key(&self) -> String {
        self.key.lock().await.clone()
    }

    /// Deletes an earlier result, its manifest first: from then on nothing vouches for what is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn clear(&self) -> Result<(), OutputError> {
        let entries = self.store.list("").await?;
        let mut earlier = earlier_files(&self.store, &entries, self.kind).await?;
        if earlier.remove(RESULT_KEY).is_some() {
            self.store.delete(RESULT_KEY).await?;
        }
        self.store.delete_each(earlier.into_keys()).await?;
        Ok(())
    }

    /// What the resumed job left is this job's from now on.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn adopt(&self) -> Result<(), OutputError> {
        if let Some(key) = &self.resumed {
            self.store.delete(key).await?;
        }
        Ok(())
    }

    /// Deletes the outputs of items that are not among these keys.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep_items(&self, keys: &BTreeSet<&str>) -> Result<(), OutputError> {
        let entries = self.store.list("").await?;
        let others = entries.into_iter().map(|entry| entry.key);
        let others = others.filter(|key| is_item_key(key) && !keys.contains(&key[..]));
        self.store.delete_each(others).await?;
        Ok(())
    }

    /// Gives the job another claim, for another try of it: workers of the tries before no longer find theirs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew(&self) -> Result<(), OutputError> {
        let mut key = self.key.lock().await;
        let next = key_of(JobId::random());
        self.store.put(&next, self.record.clone()).await?;
        let before = std::mem::replace(&mut *key, next);
        self.store.delete(&before).await?;
        Ok(())
    }

    /// Completes the output: compares what is there with `files`, which the job's own workers have reported, deletes others that are
    /// named like files of an output, and writes the manifest unless there is one.
    ///
    /// # Errors
    /// When another job has taken over the output or changed it, or the store fails.
    pub async fn finish(&self, files: Vec<ResultFile>, summary: Value) -> Result<(), OutputError> {
        let entries = self.store.list("").await?;
        let lengths: BTreeMap<&str, u64> = entries
            .iter()
            .map(|entry| (&entry.key[..], entry.bytes))
            .collect();
        let superseded = || OutputError::Superseded {
            url: self.store.url().into(),
        };
        if !lengths.contains_key(&self.key().await[..]) || lengths.contains_key(RESULT_KEY) {
            return Err(superseded());
        }
        for file in &files {
            let there = lengths.get(&file.name[..]);
            if there != Some(&file.bytes) {
                return Err(OutputError::Replaced {
                    url: self.store.object_url(&file.name),
                    found: there.copied(),
                    expected: file.bytes,
                });
            }
        }
        // A worker of a job that is gone may have named one between its look for the claim and the claim's end.
        let named: HashSet<&str> = files.iter().map(|file| &file.name[..]).collect();
        let others = lengths.keys().filter(|key| {
            !named.contains(**key) && is_file_of(self.kind, key) && **key != RESULT_KEY
        });
        let others: Vec<String> = others.map(|key| key.to_string()).collect();
        self.store.delete_each(others).await?;
        let summary = match summary {
            Value::Object(summary) => summary,
            _ => Map::new(),
        };
        let manifest = ResultManifest { summary, files };
        let text = Bytes::from(manifest.to_json());
        match self.store.put_if_absent(RESULT_KEY, text).await? {
            true => Ok(()),
            false => Err(superseded()),
        }
    }

    /// Ends the claim, and forgets it if `forget`: otherwise it stays, as that of a job that can be resumed. The job's outcome does not
    /// depend on it, so that it cannot be deleted is given back for a warning.
    pub async fn release(mut self, forget: bool) -> Option<StoreError> {
        if let Some((stop, mut beat)) = self.beat.take() {
            let _ = stop.send(());
            let last = tokio::time::timeout(LAST_BEAT_TIMEOUT, &mut beat).await;
            if last.is_err() {
                // It holds the lock of the key.
                beat.abort();
                let _ = beat.await;
            }
        }
        match forget {
            true => self.store.delete(&self.key().await).await.err(),
            false => None,
        }
    }
}

/// The claim of the job that is resumed: it stays until [`Claim::adopt`].
fn resumed(who: &Claimant) -> Option<String> {
    match who.earlier {
        Earlier::Resume(job) => Some(key_of(job)),
        Earlier::Refuse | Earlier::Replace => None,
    }
}

/// Writes the claim, and withdraws it if there is a reason.
async fn place(
    store: &Store,
    who: &Claimant,
    key: &str,
    record: &Bytes,
) -> Result<(), OutputError> {
    store.put(key, record.clone()).await?;
    let judged = async {
        let found = look(store, Some(key)).await?;
        if let Some(refusal) = found.refusal(store, who) {
            return Err(refusal);
        }
        let resumed = resumed(who);
        for gone in found.gone {
            if resumed.as_ref() != Some(&gone) {
                store.delete(&gone).await?;
            }
        }
        Ok(())
    };
    let outcome = judged.await;
    if outcome.is_err()
        && let Err(error) = store.delete(key).await
    {
        warn!("the claim of this job stays behind: {error}");
    }
    outcome
}
/// Writes a claim again and again, so that other machines see that its holder is there.
struct Beat {
    store: Store,
    key: Arc<Mutex<String>>,
    record: Bytes,
}

impl Beat {
    async fn run(self, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(BEAT_INTERVAL) => {}
            }
            // The lock keeps a claim that was renewed from being written again under its old key.
            let key = self.key.lock().await;
            match self.store.get(&key).await {
                // Another machine took this job for gone: the output is its own now.
                Err(StoreError::NotFound { .. }) => return,
                Err(error) => warn!("the claim of this job cannot be read: {error}"),
                Ok(_) => {
                    if let Err(error) = self.store.put(&key, self.record.clone()).await {
                        warn!("the claim of this job cannot be renewed: {error}");
                    }
                }
            }
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(job: u8, earlier: Earlier) -> Claimant {
        Claimant {
            job: JobId([job; 16]),
            program: "sort",
            kind: Kind::Parts,
            earlier,
        }
    }

    fn record_of(process: Process) -> Bytes {
        let record = Record {
            lswitch: "0".into(),
            job: "other".into(),
            program: "sort".into(),
            process,
        };
        serde_json::to_vec(&record).unwrap().into()
    }

    async fn folder() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join("out");
        let aws = crate::aws::AwsSettings::default();
        let store = Store::open(location.to_str().unwrap(), &aws).await.unwrap();
        (folder, store)
    }

    async fn keys(store: &Store) -> Vec<String> {
        let entries = store.list("").await.unwrap();
        entries.into_iter().map(|entry| entry.key).collect()
    }

    #[tokio::test]
    async fn an_output_has_one_holder_and_the_next_comes_after_its_release() {
        let (_folder, store) = folder().await;
        let first = Claim::acquire(&store, &claimant(1, Earlier::Refuse)).await;
        let first = first.unwrap();
        let second = Claim::acquire(&store, &claimant(2, Earlier::Replace)).await;
        let error = second.err().unwrap();
        assert!(matches!(error, OutputError::Busy { .. }), "{error}");
        assert!(error.to_string().contains(&JobId([1; 16]).to_string()));
        assert_eq!(keys(&store).await, [key_of(JobId([1; 16]))]);
        assert!(first.release(true).await.is_none());
        let second = Claim::acquire(&store, &claimant(2, Earlier::Refuse)).await;
        assert!(second.unwrap().release(true).await.is_none());
        assert!(keys(&store).await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_many_that_ask_at_once_never_two_hold_an_output() {
        let (_folder, store) = folder().await;
        let holders = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut asking = tokio::task::JoinSet::new();
        for job in 1..=8 {
            let (store, holders) = (store.clone(), holders.clone());
            asking.spawn(async move {
                let claim = Claim::acquire(&store, &claimant(job, Earlier::Refuse)).await;
                let Ok(claim) = claim else { return 0 };
                use std::sync::atomic::Ordering::SeqCst;
                assert_eq!(holders.fetch_add(1, SeqCst), 0, "two hold it");
                tokio::time::sleep(Duration::from_millis(5)).await;
                holders.fetch_sub(1, SeqCst);
                assert!(claim.release(true).await.is_none());
                1
            });
        }
        asking.join_all().await;
        assert!(keys(&store).await.is_empty());
    }

    #[tokio::test]
    async fn the_claim_of_a_process_that_is_gone_is_taken_over() {
        let (_folder, store) = folder().await;
        let mut gone = Process::this();
        gone.started = gone.started.map(|started| started + 1);
        let key = key_of(JobId([9; 16]));
        store.put(&key, record_of(gone)).await.unwrap();
        store
            .put("part-00000.txt", Bytes::from_static(b"half"))
            .await
            .unwrap();
        let refused = Claim::acquire(&store, &claimant(1, Earlier::Refuse)).await;
        assert!(matches!(refused, Err(OutputError::Occupied { .. })));
        let claim = Claim::acquire(&store, &claimant(1, Earlier::Replace)).await;
        let claim = claim.unwrap();
        assert!(!keys(&store).await.contains(&key));
        claim.clear().await.unwrap();
        assert_eq!(keys(&store).await, [claim.key().await]);
        claim.release(true).await;
    }

    #[tokio::test]
    async fn an_output_is_completed_only_with_the_files_that_its_workers_reported() {
        let (_folder, store) = folder().await;
        store.put(RESULT_KEY, "{}".into()).await.unwrap();
        store.put("part-00007.txt", "old".into()).await.unwrap();
        store.put("mine.txt", "kept".into()).await.unwrap();
        let claim = Claim::acquire(&store, &claimant(1, Earlier::Replace)).await;
        let claim = claim.unwrap();
        claim.clear().await.unwrap();
        assert_eq!(
            keys(&store).await,
            [claim.key().await, "mine.txt".to_string()]
        );
        let file = ResultFile::of("part-00000.txt", b"new");
        let finish = || claim.finish(vec![file.clone()], serde_json::json!({ "lswitch": "0" }));
        let error = finish().await.unwrap_err();
        assert!(matches!(error, OutputError::Replaced { .. }), "{error}");
        store.put("part-00000.txt", "other".into()).await.unwrap();
        let error = finish().await.unwrap_err();
        assert!(matches!(error, OutputError::Replaced { .. }), "{error}");
        assert!(!keys(&store).await.contains(&RESULT_KEY.to_string()));
        store.put("part-00000.txt", "new".into()).await.unwrap();
        store.put("part-00003.txt", "late".into()).await.unwrap();
        finish().await.unwrap();
        let text = store.get(RESULT_KEY).await.unwrap();
        let manifest = ResultManifest::parse(&text, "m").unwrap();
        assert_eq!(manifest.files, std::slice::from_ref(&file));
        assert!(!keys(&store).await.contains(&"part-00003.txt".to_string()));
        let error = finish().await.unwrap_err();
        assert!(matches!(error, OutputError::Superseded { .. }), "{error}");
        claim.release(true).await;
    }

    #[tokio::test]
    async fn a_try_that_was_given_up_no_longer_finds_its_claim() {
        let (_folder, store) = folder().await;
        let claim = Claim::acquire(&store, &claimant(1, Earlier::Refuse)).await;
        let claim = claim.unwrap();
        let before = claim.key().await;
        claim.renew().await.unwrap();
        assert_ne!(claim.key().await, before);
        assert_eq!(keys(&store).await, [claim.key().await]);
        claim.release(true).await;
    }

    #[tokio::test]
    async fn a_job_is_resumed_only_into_what_is_still_its_own() {
        let (_folder, store) = folder().await;
        let first = JobId([1; 16]);
        let items = |job, earlier| Claimant {
            kind: Kind::Items,
            ..claimant(job, earlier)
        };
        let claim = Claim::acquire(&store, &items(1, Earlier::Refuse)).await;
        store.put("00000000", "a".into()).await.unwrap();
        claim.unwrap().release(false).await;
        // The process that wrote it is gone.
        let mut gone = Process::this();
        gone.started = gone.started.map(|started| started + 1);
        store.put(&key_of(first), record_of(gone)).await.unwrap();
        let resumed = Claim::acquire(&store, &items(2, Earlier::Resume(first))).await;
        let resumed = resumed.unwrap();
        assert!(keys(&store).await.contains(&key_of(first)));
        resumed.adopt().await.unwrap();
        resumed.release(true).await;
        // Now what is there is the second's, and the first finds nothing of its own.
        let late = Claim::acquire(&store, &items(3, Earlier::Resume(first))).await;
        assert!(matches!(late, Err(OutputError::TakenOver { .. })));
    }
}
