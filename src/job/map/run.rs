//! The driver's side of a map: items in, outcomes out, in the order of the items.

use super::identity::item_identity;
use super::journal::{Journal, JournalError, Known};
use super::json::insert_bytes;
use super::{Answer, Arguments, Output, PROGRAM};
use crate::job::driver::{JobError, SwitchAccess};
use crate::job::farm::driver::{FarmEvent, FarmOutcome, FarmSpec, Further, Outcome, Task};
use crate::job::farm::schedule::Policy;
use crate::job::farm::{self};
use crate::job::items::Item;
use crate::job::items::find::{Items, ItemsError};
use crate::lambda::launch::Launcher;
use crate::net::token::JobId;
use crate::store::Store;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tracing::warn;

/// Bytes of outcomes that wait for those before them, or to be taken, above which one item is run at a time.
const HELD_MAX: usize = 64 << 20;

/// Items that wait for the driver.
const AHEAD: usize = 1024;

/// So many items whose outputs cannot be stored, nor those of others, end the map: the first may be a mistake of one worker's.
const UNSTORABLE_MAX: u32 = 3;

/// How long is waited for outcomes to be taken, or given again, before it is looked whether they are.
const LOOK: Duration = Duration::from_millis(2);

/// What an outcome takes besides its bytes, about.
const OUTCOME_COST: usize = 256;

/// What to run.
#[derive(Debug, Clone)]
pub struct MapSpec {
    /// The job's id; every run has its own.
    pub id: JobId,
    /// What all items have in common.
    pub arguments: Arguments,
    /// How many items the program is given at a time.
    pub batch: u64,
    /// How many workers.
    pub workers: u32,
    /// In how many levels they are started.
    pub levels: u32,
    /// The job's store, absolute.
    pub store: String,
    /// What is done about failures and slowness.
    pub policy: Policy,
    /// When the whole job is given up, if ever.
    pub timeout: Option<Duration>,
    /// Items that may fail; with more, the job ends, or is found to have failed in the end if nobody knows of how many.
    pub tolerance: Tolerance,
}

/// How many items may fail before the job is given up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// All of them.
    Any,
    /// So many.
    Count(u64),
    /// This share, from 0 to 1.
    Share(f64),
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemOutcome {
    /// Counted from 0.
    pub number: u64,
    /// The item, for people.
    pub item: String,
    /// The item's bytes, if it is a line that is not UTF-8.
    pub item_binary: Option<Vec<u8>>,
    /// What went wrong at last, if it failed.
    pub problem: Option<String>,
    /// The exit code, if its program ended by itself.
    pub exit: Option<i32>,
    /// How often it failed.
    pub failures: u32,
    /// What its program printed; of one that failed, the beginning.
    pub output: Output,
    /// The last of what it wrote to stderr.
    pub stderr: Vec<u8>,
    /// How long the last try took.
    pub took: Duration,
}

/// A finished map.
#[derive(Debug, Clone, PartialEq)]
pub struct MapOutcome {
    /// The farm's figures.
    pub farm: FarmOutcome,
    /// Items that were done.
    pub done: u64,
    /// Items that failed.
    pub failed: u64,
    /// The job was given up since more items failed than may.
    pub given_up: bool,
}

/// Outcomes that have been told and not been taken.
#[derive(Debug, Default)]
pub struct Held {
    bytes: AtomicUsize,
    over: AtomicBool,
}

impl Held {
    /// An outcome has been taken.
    pub fn taken(&self, outcome: &ItemOutcome) {
        self.bytes.fetch_sub(outcome.cost(), Ordering::Relaxed);
    }

    /// Nobody wants any more of them: the job ends.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn further(&self) -> Further {
        if self.over.load(Ordering::Relaxed) {
            return Further::Enough;
        }
        match self.bytes.load(Ordering::Relaxed) > HELD_MAX {
            true => Further::Pause,
            false => Further::On,
        }
    }
}

impl ItemOutcome {
    /// Adds the item to an object of JSON: what it is called, or the bytes of a line that is not UTF-8.
    pub fn insert_item(&self, fields: &mut serde_json::Map<String, serde_json::Value>) {
        let bytes = self.item_binary.as_deref();
        insert_bytes(fields, "item", bytes.unwrap_or(self.item.as_bytes()));
    }

    /// What it counts for in [`Held`].
    fn cost(&self) -> usize {
        let output = match &self.output {
            Output::Inline(bytes) => bytes.len(),
            Output::Stored { .. } => 0,
        };
        let item = self.item.len() + self.item_binary.as_ref().map_or(0, Vec::len);
        OUTCOME_COST + output + self.stderr.len() + item
    }
}

/// Why a map failed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// What is done already.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its items.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// Its job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// No output can be stored.
    #[error("the map was ended, since no output can be stored: {0}")]
    Unstorable(String),
}

/// What the driver tells while a map runs.
#[derive(Debug)]
pub enum MapEvent {
    /// What became of an item; in the order of the items.
    Item(ItemOutcome),
    /// An item is settled, out of order.
    Settled,
    /// A worker was lost, and why.
    Lost(String),
    /// So many workers are there.
    Workers(u32),
}

/// What is done already of a map, and where it is told that more is.
#[derive(Default)]
pub struct Progress {
    /// What an earlier job has done.
    pub known: Option<Known>,
    /// Where it is written that an item is done.
    pub journal: Option<Journal>,
    /// The output in which each item has a file, if there is one. Workers replace no file that is there.
    pub output: Option<Store>,
}

/// Runs a map to its end. What was done already is told with the rest.
///
/// # Errors
/// When items cannot be read or are others than those that were done, or the job fails. That items fail is no error.
pub async fn run(
    spec: &MapSpec,
    items: Items,
    progress: &mut Progress,
    (switch, launcher): (&SwitchAccess, &Launcher),
    cancel: impl Future<Output = ()>,
    held: &Held,
    tell: &mut dyn FnMut(MapEvent),
) -> Result<MapOutcome, MapError> {
    let farm_spec = FarmSpec {
        id: spec.id,
        program: PROGRAM.name.into(),
        arguments: serde_json::to_value(&spec.arguments).expect("arguments are plain"),
        workers: spec.workers,
        levels: spec.levels,
        store: spec.store.clone(),
        policy: spec.policy,
        timeout: spec.timeout,
        lazy: true,
        idle: None,
        more: Default::default(),
    };
    let count = items.count(spec.batch);
    let each = items.each(spec.batch);
    let (sender, tasks) = mpsc::channel(AHEAD);
    let (repeat, mut repeated) = mpsc::channel(AHEAD);
    let known = progress
        .known
        .take()
        .map(|known| (known, progress.output.clone()));
    let reading = tokio::task::spawn_blocking(move || feed(each, known, (&sender, &repeat)));
    let mut order = InOrder {
        next: 0,
        early: BTreeMap::new(),
        held,
        journal: progress.journal.as_mut(),
        tell,
        done: 0,
        failed: 0,
        unstorable: 0,
        refusal: None,
    };
    let mut broken = None;
    let mut is_enough = false;
    let ran = farm::driver::run(&farm_spec, switch, launcher, cancel, tasks, &mut |event| {
        let outcome = match event {
            FarmEvent::Settled(outcome) => outcome,
            FarmEvent::Lost(why) => {
                (order.tell)(MapEvent::Lost(why));
                return Further::On;
            }
            FarmEvent::Workers(count) => {
                (order.tell)(MapEvent::Workers(count));
                return Further::On;
            }
            FarmEvent::Waiting => {
                while order.held.further() == Further::On
                    && let Ok(outcome) = repeated.try_recv()
                {
                    order.told(outcome);
                }
                order.flush();
                return order.held.further();
            }
            FarmEvent::Created { .. } | FarmEvent::Traffic(_) => return Further::On,
        };
        if let Err(what) = order.settled(outcome) {
            broken = Some(what);
            is_enough = true;
            return Further::Enough;
        }
        if order.refusal.is_some() {
            is_enough = true;
            return Further::Enough;
        }
        // A share of nobody knows how many is looked at in the end.
        let total = count.unwrap_or(u64::MAX);
        if !spec.tolerance.admits(order.failed, total) {
            is_enough = true;
            return Further::Enough;
        }
        order.held.further()
    })
    .await;
    // Of what was done already the rest, as it is taken: all items were read, unless it ended before.
    while ran.is_ok() && !is_enough && order.held.further() != Further::Enough {
        match repeated.try_recv() {
            Ok(outcome) => order.told(outcome),
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => tokio::time::sleep(LOOK).await,
        }
        while order.held.further() == Further::Pause {
            tokio::time::sleep(LOOK).await;
        }
    }
    order.flush();
    let (done, failed) = (order.done, order.failed);
    let refusal = order.refusal.take();
    drop(repeated);
    // Its receivers are gone, so it ends; standard input may yet make it wait for ever.
    let mut read_error = None;
    let is_read = ran.is_ok() && !is_enough && order.held.further() != Further::Enough;
    if is_read || reading.is_finished() {
        read_error = reading.await.expect("reading items does not panic").err();
    }
    if let Some(error) = read_error {
        return Err(error);
    }
    if let Some(problem) = refusal {
        return Err(MapError::Unstorable(problem));
    }
    if let Some(what) = broken {
        return Err(JobError::Report(what).into());
    }
    let farm = ran?;
    let total = count.unwrap_or(done + failed);
    Ok(MapOutcome {
        farm,
        done,
        failed,
        given_up: !spec.tolerance.admits(failed, total),
    })
}

/// Gives the items to the driver one by one, as tasks, but for those that are done. Ends early when nobody takes them any more.
fn feed(
    items: impl Iterator<Item = Result<Item, ItemsError>>,
    known: Option<(Known, Option<Store>)>,
    (sender, repeat): (&mpsc::Sender<Task>, &mpsc::Sender<ItemOutcome>),
) -> Result<(), MapError> {
    for (number, item) in (0..).zip(items) {
        let item = item?;
        let payload = item.to_bytes().map_err(ItemsError::Nothing)?;
        let identity = item_identity(&payload);
        let done = match &known {
            Some((known, output)) => {
                let done = known.get(number, &item, identity)?;
                if let (None, Some(output), Some(key)) = (&done, output, known.stored_key(number)) {
                    // The file of what the item was before; a worker would take it for the item's output.
                    let deleted = Handle::current().block_on(output.delete(key));
                    deleted.map_err(ItemsError::from)?;
                }
                done
            }
            None => None,
        };
        let open = match done {
            Some(done) => repeat
                .blocking_send(ItemOutcome {
                    number,
                    item: item.to_string(),
                    item_binary: item.binary().map(<[u8]>::to_vec),
                    problem: None,
                    exit: done.answer.exit,
                    failures: done.failures,
                    output: done.answer.output,
                    stderr: done.answer.stderr,
                    took: done.took,
                })
                .is_ok(),
            None => sender.blocking_send(Task { number, payload }).is_ok(),
        };
        if !open {
            break;
        }
    }
    Ok(())
}

impl Tolerance {
    fn admits(self, failed: u64, total: u64) -> bool {
        match self {
            Tolerance::Any => true,
            Tolerance::Count(most) => failed <= most,
            Tolerance::Share(most) => failed as f64 <= most * total as f64,
        }
    }
}

/// Outcomes in the order of the items.
struct InOrder<'a> {
    next: u64,
    early: BTreeMap<u64, ItemOutcome>,
    held: &'a Held,
    journal: Option<&'a mut Journal>,
    tell: &'a mut dyn FnMut(MapEvent),
    done: u64,
    failed: u64,
    /// Items whose outputs the store refused for good, and the last reason once they are enough.
    unstorable: u32,
    refusal: Option<String>,
}

impl InOrder<'_> {
    fn settled(&mut self, outcome: Outcome) -> Result<(), String> {
        let number = outcome.task;
        let item = Item::from_bytes(&outcome.given)?;
        let answer = match outcome.fatal {
            false => Answer::from_bytes(&outcome.payload)?,
            true => Answer {
                problem: Some(format!(
                    "its worker was lost: {}",
                    String::from_utf8_lossy(&outcome.payload)
                )),
                exit: None,
                output: Output::Inline(Vec::new()),
                stderr: Vec::new(),
                is_unstorable: false,
            },
        };
        if let (Some(problem), true) = (&answer.problem, answer.is_unstorable) {
            self.unstorable += 1;
            if self.unstorable >= UNSTORABLE_MAX {
                self.refusal = Some(problem.clone());
            }
        }
        if answer.problem.is_none()
            && let Some(journal) = &mut self.journal
        {
            let identity = item_identity(&outcome.given);
            let (failures, took) = (outcome.failures, outcome.took);
            let written = journal.done(number, identity, failures, took, &answer);
            self.journal_failed(written);
        }
        self.told(ItemOutcome {
            number,
            item: item.to_string(),
            item_binary: item.binary().map(<[u8]>::to_vec),
            problem: answer.problem,
            exit: answer.exit,
            failures: outcome.failures,
            output: answer.output,
            stderr: answer.stderr,
            took: outcome.took,
        });
        Ok(())
    }

    /// The job goes on without a journal that takes no more.
    fn journal_failed(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            warn!(
                "the journal takes no more entries, so that --resume will repeat what is done from now on: {error}"
            );
            self.journal = None;
        }
    }

    fn flush(&mut self) {
        if let Some(journal) = &mut self.journal {
            let flushed = journal.flush();
            self.journal_failed(flushed);
        }
    }

    /// An item is settled.
    fn told(&mut self, outcome: ItemOutcome) {
        (self.tell)(MapEvent::Settled);
        match outcome.problem {
            None => self.done += 1,
            Some(_) => self.failed += 1,
        }
        self.held.bytes.fetch_add(outcome.cost(), Ordering::Relaxed);
        self.early.insert(outcome.number, outcome);
        while let Some(outcome) = self.early.remove(&self.next) {
            self.next += 1;
            (self.tell)(MapEvent::Item(outcome));
        }
    }
}
