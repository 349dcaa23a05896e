//! Outputs of a map on their way to whatever goes on with them: short ones are put together, long ones lie in the job's store already.

use super::Output;
use super::json::insert_tail;
use super::run::ItemOutcome;
use crate::job::items::Item;
use crate::store::sealed::{SealedKey, SealedWriter};
use crate::store::{Store, StoreError};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

/// Bytes of short outputs that are one object.
const OBJECT_LEN: usize = 16 << 20;

/// Bytes of the report that are written at once.
const REPORT_PIECE: usize = 1 << 20;

/// What was gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// Objects of the job's store that have all outputs, one after the other in the order of the items.
    pub outputs: Vec<Item>,
    /// An object with a line of JSON for each item: its number, what it was, whether and why it failed, and the bytes of its output.
    pub report: Item,
}

/// Takes outcomes in the order of the items. Its calls block.
pub struct Gatherer {
    store: Store,
    runtime: Handle,
    /// What the names of its objects begin with.
    prefix: String,
    /// Each output ends with a line feed, also one that was printed without.
    lines: bool,
    held: Vec<u8>,
    outputs: Vec<Item>,
    report: Vec<u8>,
    writer: Option<SealedWriter>,
}

fn report_key(prefix: &str) -> String {
    format!("{prefix}report")
}

impl Gatherer {
    /// Nothing yet. The names of its objects in the job's store begin with `prefix`.
    ///
    /// # Errors
    /// When the store takes no such names.
    pub fn new(store: &Store, prefix: &str, lines: bool) -> Result<Gatherer, StoreError> {
        Ok(Gatherer {
            store: store.clone(),
            runtime: Handle::current(),
            prefix: prefix.into(),
            lines,
            held: Vec::new(),
            outputs: Vec::new(),
            report: Vec::new(),
            writer: Some(store.sealed_writer(&report_key(prefix))?),
        })
    }

    /// Takes an item's outcome.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn take(&mut self, outcome: &ItemOutcome) -> Result<(), StoreError> {
        let mut length = 0;
        if outcome.problem.is_none() {
            match &outcome.output {
                Output::Inline(bytes) => {
                    length = bytes.len() as u64;
                    self.held.extend_from_slice(bytes);
                    if self.lines && !bytes.is_empty() && !bytes.ends_with(b"\n") {
                        self.held.push(b'\n');
                    }
                    if self.held.len() >= OBJECT_LEN {
                        self.put()?;
                    }
                }
                Output::Stored {
                    key, bytes, seal, ..
                } => {
                    length = *bytes;
                    self.put()?;
                    let seal = seal.expect("the job's own store has sealed outputs alone");
                    let key = key.clone();
                    self.outputs.push(self.item(SealedKey { key, seal }));
                }
            }
        }
        let mut line = Map::new();
        line.insert("number".into(), outcome.number.into());
        outcome.insert_item(&mut line);
        line.insert("problem".into(), json!(outcome.problem));
        line.insert("exit".into(), json!(outcome.exit));
        line.insert("failures".into(), outcome.failures.into());
        line.insert("bytes".into(), length.into());
        insert_tail(&mut line, "stderr", &outcome.stderr);
        let line = Value::from(line).to_string();
        self.report.extend_from_slice(line.as_bytes());
        self.report.push(b'\n');
        if self.report.len() >= REPORT_PIECE {
            self.write_report()?;
        }
        Ok(())
    }

    /// What was gathered, once all was taken.
    ///
    /// # Errors
    /// When the store does not take the rest.
    pub fn finish(mut self) -> Result<Gathered, StoreError> {
        self.put()?;
        self.write_report()?;
        let writer = self.writer.take().expect("it is taken here alone");
        let report = SealedKey {
            key: report_key(&self.prefix),
            seal: self.runtime.block_on(writer.finish())?,
        };
        Ok(Gathered {
            report: self.item(report),
            outputs: self.outputs,
        })
    }

    fn item(&self, object: SealedKey) -> Item {
        Item::Sealed {
            store: self.store.url().into(),
            object,
            part: None,
        }
    }

    fn put(&mut self) -> Result<(), StoreError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let key = format!("{}{:08}", self.prefix, self.outputs.len());
        let bytes = std::mem::take(&mut self.held);
        let object = self.runtime.block_on(self.store.put_sealed(&key, &bytes))?;
        self.outputs.push(self.item(object));
        Ok(())
    }

    fn write_report(&mut self) -> Result<(), StoreError> {
        let piece = std::mem::take(&mut self.report);
        let writer = self.writer.as_mut().expect("it is not finished");
        self.runtime.block_on(writer.push(&piece))
    }
}
