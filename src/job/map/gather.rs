//! Outputs of a map on their way to whatever goes on with them: short ones are put together, long ones lie in the job's store already.

use super::Output;
use super::json::insert_tail;
use super::run::ItemOutcome;
use crate::job::items::Item;
use crate::store::{Store, StoreError, Writer};
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
    reported: u64,
    writer: Option<Writer>,
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
            reported: 0,
            writer: Some(store.writer(&format!("{prefix}report"))?),
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
                Output::Stored { key, bytes, .. } => {
                    length = *bytes;
                    self.put()?;
                    self.outputs.push(self.object(key.clone(), *bytes));
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
        let writer = self.writer.take().expect("it is put back after each piece");
        self.runtime.block_on(writer.finish())?;
        Ok(Gathered {
            report: self.object(format!("{}report", self.prefix), self.reported),
            outputs: self.outputs,
        })
    }

    fn object(&self, key: String, length: u64) -> Item {
        Item::Object {
            store: self.store.url().into(),
            key,
            length,
            etag: None,
            crc32c: None,
            part: None,
        }
    }

    fn put(&mut self) -> Result<(), StoreError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let key = format!("{}{:08}", self.prefix, self.outputs.len());
        let bytes = std::mem::take(&mut self.held);
        self.outputs
            .push(self.object(key.clone(), bytes.len() as u64));
        self.runtime.block_on(self.store.put(&key, bytes.into()))
    }

    fn write_report(&mut self) -> Result<(), StoreError> {
        let piece = std::mem::take(&mut self.report);
        self.reported += piece.len() as u64;
        let writer = self.writer.take().expect("it is put back after each piece");
        self.writer = Some(self.runtime.block_on(writer.write(piece.into()))?);
        Ok(())
    }
}
