//! Jobs of ranks that share a list of inputs, and what is the same for each of them.

use super::fleet::{FleetArgs, refused};
use super::map::size;
use crate::cmd::ui::Ui;
use crate::cmd::{Interrupted, UsageError, interrupted};
use crate::job::driver::{JobError, JobOutcome, JobSpec};
use crate::job::items::find::{Items, Wanted};
use crate::job::items::list_to_bytes;
use crate::job::output::{Claim, Target};
use crate::net::token::JobId;
use crate::store::Store;
use crate::store::sealed::{Seal, SealedKey};
use serde::Serialize;
use std::io::{self, Write};
use std::time::Instant;

/// Of a function on AWS whose memory nobody has told, the ranks may take so many bytes together.
const FAR_MEMORY: u64 = 512 << 20;

/// What a worker takes besides its records.
const PROGRAM_MEMORY: u64 = 32 << 20;

/// What a job over inputs may take.
#[derive(Debug, clap::Args)]
pub(super) struct MemoryArgs {
    /// Memory that each worker may take, 32MiB of it for itself and the rest (at least half) for records; of this machine's free memory
    /// an equal share of half otherwise
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

impl MemoryArgs {
    /// Bytes for each rank's records: without --memory an equal share of half of the memory that is free here, or of half of what Lambda
    /// gives at most.
    pub(super) fn bytes(&self, fleet: &FleetArgs, ranks: u32) -> u64 {
        let free = match fleet.is_far() {
            true => None,
            false => free_memory(),
        };
        match (self.memory, free) {
            (Some(memory), _) => memory.saturating_sub(PROGRAM_MEMORY).max(memory / 2),
            (None, Some(free)) => free / 2 / u64::from(ranks.max(1)),
            (None, None) => FAR_MEMORY / u64::from(fleet.workers_per_function.max(1)),
        }
    }
}

/// Bytes of memory that nobody uses, as Linux tells it.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes << 10)
}

/// The files or objects that --input names, or what can be read once.
pub(super) async fn find_inputs(
    ui: &Ui,
    fleet: &FleetArgs,
    wanted: Wanted<'_>,
) -> anyhow::Result<Items> {
    let what = wanted.what;
    let found = Items::find(wanted, &fleet.aws_settings())
        .await
        .map_err(|error| UsageError(format!("--input {error}")))?;
    found.notes.lines().iter().for_each(|note| ui.say(note));
    check_reach(fleet, "--input", what, &found.items)?;
    match found.items {
        Items::Named(_) | Items::Piped(..) => Ok(found.items),
        _ => Err(UsageError(format!("--input: {what} names no files or objects")).into()),
    }
}

/// Has input that can be read only once copied into a store, which takes until it ends or the user stops it; gives other
/// input back.
pub(super) async fn copy_piped(
    ui: &Ui,
    items: Items,
    store: &Store,
    key: &str,
) -> anyhow::Result<Items> {
    let Some(pipe) = items.pipe() else {
        return Ok(items);
    };
    ui.say(format!(
        "{} can be read only once, so that it is copied first, to {}",
        pipe.name(),
        store.object_url(key)
    ));
    let stop = interrupted();
    tokio::select! {
        stored = items.stored(store, key) => Ok(stored?),
        () = stop => Err(Interrupted.into()),
    }
}

/// Refuses files of this machine for workers that cannot see them.
pub(super) fn check_reach(
    fleet: &FleetArgs,
    flag: &str,
    what: &str,
    items: &Items,
) -> Result<(), UsageError> {
    if items.are_files() && fleet.is_far() {
        return Err(UsageError(format!(
            "{flag} {what} are files of this machine, which a function on AWS cannot see; put them into S3"
        )));
    }
    Ok(())
}

/// A job over inputs, of which the list lies in its store while it runs.
pub(super) struct DataJob<'a> {
    fleet: &'a FleetArgs,
    id: JobId,
    program: &'static str,
    ranks: u32,
    begun: Instant,
    pub(super) store: Store,
    /// What the names of all begin with that it keeps in its store.
    pub(super) base: String,
    /// The same of its results, where they do not go to an output.
    results: String,
    /// The list of inputs, in its store.
    pub(super) inputs: SealedKey,
}

impl<'a> DataJob<'a> {
    /// Opens the store, and puts the list there, under the id by which the user knows what the job is part of.
    pub(super) async fn new(
        (ui, fleet): (&Ui, &'a FleetArgs),
        (id, record): (JobId, JobId),
        program: &'static str,
        ranks: u32,
        inputs: Items,
    ) -> anyhow::Result<DataJob<'a>> {
        let store = fleet.open_store("--store", &fleet.store).await?;
        let base = format!("{program}/{record}/");
        let inputs = match put_list(ui, &store, &base, inputs).await {
            Ok(inputs) => inputs,
            Err(error) => {
                delete_own(ui, &store, &base).await;
                return Err(error);
            }
        };
        Ok(DataJob {
            fleet,
            id,
            program,
            ranks,
            begun: Instant::now(),
            store,
            results: base.clone(),
            base,
            inputs,
        })
    }

    /// Its time began then, since it goes on with something else.
    pub(super) fn begun(self, begun: Instant) -> DataJob<'a> {
        DataJob { begun, ..self }
    }

    /// Its results lie under another prefix of its store, and outlive it.
    pub(super) fn with_results_at(self, prefix: &str) -> DataJob<'a> {
        DataJob {
            results: prefix.into(),
            ..self
        }
    }

    /// What the names of spilled runs begin with.
    pub(super) fn spill(&self) -> String {
        format!("{}spill-", self.base)
    }

    /// Runs the job. If a worker is lost, the job is started again, at most `retries` times. Each try has a target of its own: a new claim on the
    /// output, or without an output another prefix in the job's store. So a worker of an earlier try writes into nobody's result.
    /// Gives the target of the try that went well.
    pub(super) async fn drive<A: Serialize>(
        &self,
        ui: &Ui,
        output: Option<&Claim>,
        arguments: impl Fn(Target) -> A,
        retries: u32,
    ) -> anyhow::Result<(JobOutcome, Target)> {
        let mut spec = JobSpec {
            id: self.id,
            program: self.program.into(),
            arguments: Default::default(),
            ranks: self.ranks,
            ranks_per_pack: self.fleet.workers_per_function,
            levels: self.fleet.levels(),
            store: self.store.url().into(),
            timeout: None,
            more: Default::default(),
        };
        let mut tries = 0;
        loop {
            spec.timeout = self.fleet.timeout_since(self.begun);
            let target = match output {
                Some(claim) => claim.target().await,
                None => Target {
                    store: self.store.url().into(),
                    prefix: format!("{}try-{tries}/", self.results),
                    claim: None,
                },
            };
            spec.arguments = serde_json::to_value(arguments(target.clone()))?;
            let error = match self.fleet.drive_into(ui, &spec, "", output).await {
                Ok(outcome) => return Ok((outcome, target)),
                Err(error) => error,
            };
            let lost = matches!(
                error.downcast_ref(),
                Some(JobError::Worker { lost: true, .. })
            );
            if !lost || tries == retries {
                return Err(error);
            }
            tries += 1;
            let words = error.to_string();
            let words = words.lines().next().unwrap_or_default();
            ui.say(format!("{words}; the job is started again"));
            // Of the run that has failed somebody may still be there.
            spec.id = JobId::random();
            if let Some(claim) = output {
                claim.renew().await.map_err(refused)?;
            }
        }
    }

    /// Deletes what it kept in its store, also what workers that were lost have spilled. The outcome does not depend on it.
    pub(super) async fn clean(self, ui: &Ui) {
        delete_own(ui, &self.store, &self.base).await;
    }
}

/// Writes the list of inputs into the job's store.
async fn put_list(ui: &Ui, store: &Store, base: &str, inputs: Items) -> anyhow::Result<SealedKey> {
    let Items::Named(items) = copy_piped(ui, inputs, store, &format!("{base}input")).await? else {
        unreachable!("what is found is named, or piped and copied");
    };
    let list = list_to_bytes(&items).map_err(UsageError)?;
    Ok(store.put_sealed(&format!("{base}inputs"), &list).await?)
}

/// Deletes what a job kept in its store under a prefix. What cannot be deleted is a warning: the job's outcome is settled.
pub(super) async fn delete_own(ui: &Ui, store: &Store, prefix: &str) {
    if let Err(error) = store.delete_all(prefix).await {
        ui.say(format!(
            "warning: temporary objects of this job stay behind; \"lswitch clean\" deletes them later: {error}"
        ));
    }
}

/// Bytes of an object that are copied at once.
const COPY_LEN: u64 = 8 << 20;

/// Writes the sealed parts of a result in the job's store to stdout, one after the other.
pub(super) async fn print_parts(
    store: &Store,
    parts: impl IntoIterator<Item = SealedKey>,
) -> anyhow::Result<()> {
    let print = async {
        let mut out = io::stdout().lock();
        for SealedKey { key, seal } in parts {
            copy_sealed(store, &key, &seal, &mut out).await?;
        }
        Ok::<(), anyhow::Error>(out.flush()?)
    };
    tokio::select! {
        printed = print => printed,
        () = interrupted() => Err(Interrupted.into()),
    }
}

/// Writes the payload of a sealed object. Bytes are checked before they are written.
pub(super) async fn copy_sealed(
    store: &Store,
    key: &str,
    seal: &Seal,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut at = 0;
    let mut bytes = Vec::new();
    while at < seal.bytes {
        let end = (at + COPY_LEN).min(seal.bytes);
        bytes.clear();
        store
            .get_sealed_range(key, seal, at..end, &mut bytes)
            .await?;
        out.write_all(&bytes)?;
        at = end;
    }
    Ok(())
}
