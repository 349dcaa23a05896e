//! What a program over a graph writes: one object a part, with a line for each vertex, and last the result that names them.

pub mod manifest;

use crate::job::context::BlockingStore;
use crate::store::{Store, StoreError};
use std::fmt::Write;

pub use manifest::{ManifestError, RESULT_KEY, ResultFile, ResultManifest};

/// The name of the object that holds one part's ranks.
pub fn output_key(part: u32) -> String {
    part_key(part, "tsv")
}

/// The name of the object that holds a part.
pub fn part_key(part: u32, extension: &str) -> String {
    format!("part-{part:05}.{extension}")
}

/// True for the names that [`part_key`] gives.
fn is_part_key(key: &str) -> bool {
    let number = key.strip_prefix("part-");
    let number = number.and_then(|rest| rest.split_once('.'));
    number.is_some_and(|(digits, extension)| {
        matches!(extension, "tsv" | "txt" | "dat")
            && digits.len() >= 5
            && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

/// The objects of an earlier result in an output store.
///
/// # Errors
/// When the store cannot be listed.
pub async fn earlier_output(output: &Store) -> Result<Vec<String>, StoreError> {
    let keys = output.list("").await?.into_iter().map(|entry| entry.key);
    Ok(keys
        .filter(|key| key == RESULT_KEY || is_part_key(key))
        .collect())
}

/// Completes an output of `parts`: what an earlier result left is removed, and `result` is written, naming the files.
///
/// # Errors
/// When the store cannot be written.
pub async fn finish_output(
    output: &Store,
    parts: u32,
    extension: &str,
    mut result: serde_json::Value,
) -> Result<(), StoreError> {
    let files: Vec<String> = (0..parts).map(|part| part_key(part, extension)).collect();
    for key in earlier_output(output).await? {
        if is_part_key(&key) && !files.contains(&key) {
            output.delete(&key).await?;
        }
    }
    result["files"] = files.into();
    let text = serde_json::to_vec_pretty(&result).expect("a JSON value is written");
    output.put(RESULT_KEY, text.into()).await
}

/// Writes the object of one part: a line `id<TAB>value` for each vertex, ids rising. `value` writes that of a vertex, by its
/// place among `ids`.
///
/// # Errors
/// When the store cannot be written.
pub fn write_part(
    output: &BlockingStore,
    part: u32,
    ids: &[u64],
    value: impl Fn(&mut String, usize),
) -> Result<(), StoreError> {
    let mut text = String::with_capacity(ids.len() * 32);
    for (vertex, id) in ids.iter().enumerate() {
        write!(text, "{id}\t").expect("a string takes whatever is written");
        value(&mut text, vertex);
        text.push('\n');
    }
    output.put(&output_key(part), text.into())
}
