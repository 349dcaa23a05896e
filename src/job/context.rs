//! What a rank's program is given: the wire, the store, its arguments, and a way to tell how far it is.

use crate::aws::AwsSettings;
use crate::job::program::ProgramError;
use crate::job::report::{Report, TAG};
use crate::lambda::cost::WorkerUsage;
use crate::net::comm::Comm;
use crate::store::sealed::{Seal, SealedKey, SealedWriter};
use crate::store::{Requests, Store, StoreError, Version, Writer};
use aws_config::SdkConfig;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::Any;
use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tracing::info;

/// Time between two progress reports at least.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What all ranks of a pack share.
pub(crate) struct Surroundings {
    pub(crate) job: String,
    pub(crate) arguments: Value,
    pub(crate) store: String,
    pub(crate) deadline: Instant,
    pub(crate) aws: AwsSettings,
    /// AWS's configuration, loaded once for all ranks, and only when one of them opens a store in S3.
    pub(crate) sdk: OnceCell<SdkConfig>,
    /// Requests to S3 of all ranks.
    pub(crate) requests: Arc<Requests>,
    /// When the invocation began.
    pub(crate) begun: Instant,
    /// Ranks whose programs have not ended.
    pub(crate) running: AtomicU32,
    pub(crate) runtime: Handle,
    /// What ranks hand each other in [`Context::together`], by their places.
    pub(crate) handed: Mutex<Vec<Option<Box<dyn Any + Send>>>>,
}

/// See the module. One for each rank; its calls block.
pub struct Context {
    comm: Comm,
    around: Arc<Surroundings>,
    reported: Option<Instant>,
}

impl Context {
    pub(crate) fn new(comm: Comm, around: Arc<Surroundings>) -> Context {
        Context {
            comm,
            around,
            reported: None,
        }
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.comm.rank()
    }

    /// All ranks of the job.
    pub fn size(&self) -> u32 {
        self.comm.size()
    }

    /// The job's id: of each run another.
    pub fn job(&self) -> &str {
        &self.around.job
    }

    /// True if the job has ended, so that nobody wants what this rank is at.
    pub fn has_ended(&self) -> bool {
        self.comm.has_ended()
    }

    /// The wire.
    pub fn comm(&mut self) -> &mut Comm {
        &mut self.comm
    }

    /// What the ranks of a pack make together, within their process: each gives something, `make` is called once with what
    /// all gave, in the order of ranks, and each gets its own of what comes of it.
    ///
    /// # Errors
    /// Those of `make` at the first rank of the pack, and then at the others that the job has ended.
    ///
    /// # Panics
    /// When `make` does not give one for each rank, or ranks disagree on types.
    pub fn together<P: Send + 'static, T: Send + 'static>(
        &mut self,
        mine: P,
        make: impl FnOnce(Vec<P>) -> Result<Vec<T>, ProgramError>,
    ) -> Result<T, ProgramError> {
        let pack = self.comm.pack();
        let place = pack.place(self.rank());
        let around = Arc::clone(&self.around);
        let handed = || around.handed.lock().expect("no holder of this lock panics");
        {
            let mut handed = handed();
            handed.resize_with(pack.ranks as usize, || None);
            handed[place] = Some(Box::new(mine));
        }
        self.comm.pack_barrier()?;
        if place == 0 {
            let given: Vec<P> = handed().iter_mut().map(take).collect();
            let made = make(given)?;
            assert_eq!(made.len(), pack.ranks as usize, "each rank gets something");
            let made = made
                .into_iter()
                .map(|one| -> Box<dyn Any + Send> { Box::new(one) });
            *handed() = made.map(Some).collect();
        }
        self.comm.pack_barrier()?;
        let own = take(&mut handed()[place]);
        // The next call begins when all have theirs.
        self.comm.pack_barrier()?;
        Ok(own)
    }

    /// The program's arguments.
    ///
    /// # Errors
    /// When they are not what the program takes.
    pub fn arguments<T: DeserializeOwned>(&self) -> Result<T, ProgramError> {
        serde_json::from_value(self.around.arguments.clone()).map_err(|error| {
            ProgramError::Other(format!("the program's arguments do not fit: {error}"))
        })
    }

    /// All other ranks.
    pub fn peers(&self) -> impl Iterator<Item = u32> + use<> {
        let own = self.rank();
        (0..self.size()).filter(move |rank| *rank != own)
    }

    /// Writes a line to the worker's log, which AWS keeps and whose end is shown when the worker fails.
    pub fn log(&self, what: impl Display) {
        info!("rank {}: {what}", self.rank());
    }

    /// The time that is left until the invocation is ended by Lambda.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// When the invocation is ended by Lambda.
    pub fn deadline(&self) -> Instant {
        self.around.deadline
    }

    /// The job's own store.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn store(&self) -> Result<BlockingStore, ProgramError> {
        self.open_store(&self.around.store)
    }

    /// Another store, by its location.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_store(&self, location: &str) -> Result<BlockingStore, ProgramError> {
        let runtime = self.around.runtime.clone();
        let around = &self.around;
        let store = runtime.block_on(async {
            if !location.starts_with("s3://") {
                return Store::open(location, &around.aws).await;
            }
            let sdk = around.sdk.get_or_try_init(|| around.aws.load()).await?;
            Store::open_counted(location, sdk, around.requests.clone())
        })?;
        Ok(BlockingStore::new(store, runtime))
    }

    /// Tells the driver how far the job is. Only rank 0's words are sent, and not more than ten times a second.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub fn progress(&mut self, step: u64, measure: f64) -> Result<(), ProgramError> {
        if self.rank() != 0
            || self
                .reported
                .is_some_and(|last| last.elapsed() < PROGRESS_EVERY)
        {
            return Ok(());
        }
        self.reported = Some(Instant::now());
        self.report(&Report::Progress { step, measure })
    }

    /// Tells the driver what the pack has taken, if this rank's program is the last to end.
    pub(crate) fn report_usage(&mut self) -> Result<(), ProgramError> {
        if self.around.running.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let memory = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE");
        let (store_writes, store_reads) = self.around.requests.so_far();
        self.report(&Report::Usage(WorkerUsage {
            memory_mb: memory.ok().and_then(|size| size.parse().ok()).unwrap_or(0),
            arm: cfg!(target_arch = "aarch64"),
            elapsed_ms: self.around.begun.elapsed().as_millis() as u64,
            store_writes,
            store_reads,
        }))
    }

    /// The program has ended in order, and its result is reported.
    pub(crate) fn end(&self) {
        self.comm.end();
    }

    pub(crate) fn report(&mut self, report: &Report) -> Result<(), ProgramError> {
        let bytes = report.to_bytes().map_err(ProgramError::Other)?;
        Ok(self.comm.send_to_driver(TAG, bytes)?)
    }
}

/// What was handed over, as what it is.
fn take<T: 'static>(handed: &mut Option<Box<dyn Any + Send>>) -> T {
    let one = handed.take().expect("each rank gave its own before");
    *one.downcast().expect("all ranks run the same program")
}

/// A store for a rank's thread: its calls block.
#[derive(Clone)]
pub struct BlockingStore {
    store: Store,
    runtime: Handle,
}

impl BlockingStore {
    /// A store whose calls block on `runtime`.
    pub(crate) fn new(store: Store, runtime: Handle) -> BlockingStore {
        BlockingStore { store, runtime }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// Where an object is, for messages.
    pub fn object_url(&self, key: &str) -> String {
        self.store.object_url(key)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.runtime.block_on(self.store.get(key))
    }

    /// Reads an object of a known length.
    ///
    /// # Errors
    /// As [`Store::get_of_length`].
    pub fn get_of_length(&self, key: &str, length: u64) -> Result<Bytes, StoreError> {
        self.runtime.block_on(self.store.get_of_length(key, length))
    }

    /// Reads a range of an object.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub fn get_range(&self, key: &str, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.runtime.block_on(self.store.get_range(key, range))
    }

    /// Reads a range of one version of an object with any key.
    ///
    /// # Errors
    /// As [`Store::get_version`].
    pub fn get_version(
        &self,
        key: &str,
        range: std::ops::Range<u64>,
        etag: Option<&str>,
    ) -> Result<Version, StoreError> {
        self.runtime
            .block_on(self.store.get_version(key, range, etag))
    }

    /// Where an object with any key is, for messages.
    pub fn version_url(&self, key: &str) -> String {
        self.store.version_url(key)
    }

    /// Begins to write an object piece by piece.
    ///
    /// # Errors
    /// As [`Store::writer`].
    pub fn writer(&self, key: &str) -> Result<BlockingWriter, StoreError> {
        Ok(BlockingWriter {
            writer: self.store.writer(key)?,
            runtime: self.runtime.clone(),
        })
    }

    /// The length of an object.
    ///
    /// # Errors
    /// As [`Store::length`].
    pub fn length(&self, key: &str) -> Result<u64, StoreError> {
        self.runtime.block_on(self.store.length(key))
    }

    /// Reads the payload of a sealed object.
    ///
    /// # Errors
    /// As [`Store::get_sealed`].
    pub fn get_sealed(&self, sealed: &SealedKey) -> Result<Bytes, StoreError> {
        self.runtime.block_on(self.store.get_sealed(sealed))
    }

    /// Appends a range of a sealed object's payload.
    ///
    /// # Errors
    /// As [`Store::get_sealed_range`].
    pub fn get_sealed_range(
        &self,
        key: &str,
        seal: &Seal,
        range: std::ops::Range<u64>,
        payload: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let reading = self.store.get_sealed_range(key, seal, range, payload);
        self.runtime.block_on(reading)
    }

    /// Begins to write a sealed object piece by piece.
    ///
    /// # Errors
    /// As [`Store::sealed_writer`].
    pub fn sealed_writer(&self, key: &str) -> Result<BlockingSealedWriter, StoreError> {
        Ok(BlockingSealedWriter {
            writer: self.store.sealed_writer(key)?,
            runtime: self.runtime.clone(),
        })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.delete(key))
    }

    /// Writes an object.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn put(&self, key: &str, value: Bytes) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.put(key, value))
    }
}

/// An object that is being written, for a rank's thread; see [`Writer`].
pub struct BlockingWriter {
    writer: Writer,
    runtime: Handle,
}

impl BlockingWriter {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write(self, piece: Bytes) -> Result<BlockingWriter, StoreError> {
        let BlockingWriter { writer, runtime } = self;
        let writer = runtime.block_on(writer.write(piece))?;
        Ok(BlockingWriter { writer, runtime })
    }

    /// Gives the object its name.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn finish(self) -> Result<(), StoreError> {
        self.runtime.block_on(self.writer.finish())
    }

    /// Gives the object its name, unless there is one; true if it is the new one.
    ///
    /// # Errors
    /// As [`Writer::finish_new`].
    pub fn finish_new(self) -> Result<bool, StoreError> {
        self.runtime.block_on(self.writer.finish_new())
    }
}

/// A sealed object that is being written, for a rank's thread; see [`SealedWriter`].
pub struct BlockingSealedWriter {
    writer: SealedWriter,
    runtime: Handle,
}

impl BlockingSealedWriter {
    /// Adds bytes to the payload.
    ///
    /// # Errors
    /// As [`SealedWriter::push`].
    pub fn push(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        match self.writer.add(payload) {
            Some(piece) => self.runtime.block_on(self.writer.write(piece)),
            None => Ok(()),
        }
    }

    /// Gives the object its name.
    ///
    /// # Errors
    /// As [`SealedWriter::finish`].
    pub fn finish(self) -> Result<Seal, StoreError> {
        self.runtime.block_on(self.writer.finish())
    }
}
