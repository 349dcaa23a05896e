//! The objects below a prefix in S3, under whatever keys other programs wrote them.

use super::Item;
use super::find::{Found, ItemsError, Notes};
use super::select::{Customs, Listed, RESULT_MAX, RESULT_NAME, ResultPart, result_parts, select};
use crate::aws::AwsSettings;
use crate::store::{Entry, Store};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Results that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// The store of a bucket, and a prefix in it that may be any string: `s3://bucket/a//` is all that begins with `a//`.
pub(super) async fn open<'a>(
    what: &'a str,
    aws: &AwsSettings,
) -> Result<(Store, &'a str), ItemsError> {
    let rest = what.strip_prefix("s3://").unwrap_or(what);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // A store's own keys have rules, so that the store is the bucket, whatever the prefix.
    Ok((Store::open(&format!("s3://{bucket}"), aws).await?, prefix))
}

/// The data below a prefix, as whole objects.
pub(super) async fn objects(
    what: &str,
    store: &Store,
    prefix: &str,
) -> Result<Found<Vec<Item>>, ItemsError> {
    let mut entries = store.list_all(prefix).await?;
    let mut notes = Notes::default();
    let before = entries.len();
    // Consoles and file system layers make these for folders.
    entries.retain(|entry| entry.bytes > 0 || !entry.key.ends_with('/'));
    notes.markers(before - entries.len());
    let listed: Vec<Listed> = entries
        .iter()
        .map(|entry| Listed {
            key: entry.key.clone(),
            length: entry.bytes,
        })
        .collect();
    let results = results(store, &entries, &listed, prefix).await?;
    let customs = Customs {
        dots_hide: false,
        is_complete: true,
        skip: prefix.rfind('/').map_or(0, |slash| slash + 1),
    };
    let selection = select(&listed, &results, customs)
        .map_err(|problem| ItemsError::Unusable(format!("{what}: {problem}")))?;
    let over = selection.passed_over.iter();
    let over: Vec<String> = over
        .map(|place| store.version_url(&listed[*place].key))
        .collect();
    notes.passed_over(&over);
    if selection.data.is_empty() {
        let problem = match before {
            0 => "there are no objects whose names begin so",
            _ => "there are only objects that are no data",
        };
        let also = notes.lines().join("; ");
        return Err(ItemsError::Nothing(match also.is_empty() {
            true => format!("{what}: {problem}"),
            false => format!("{what}: {problem} ({also})"),
        }));
    }
    let items = selection.data.into_iter().map(|(place, crc32c)| {
        let entry = &entries[place];
        Item::Object {
            store: store.url().into(),
            key: entry.key.clone(),
            length: entry.bytes,
            etag: entry.etag.clone(),
            crc32c,
            part: None,
        }
    });
    Ok(Found {
        items: items.collect(),
        notes,
    })
}

/// The parts of the results below a prefix, by their folders. A folder that the prefix covers in part alone is none: what was
/// listed of it was named.
async fn results(
    store: &Store,
    entries: &[Entry],
    listed: &[Listed],
    prefix: &str,
) -> Result<BTreeMap<String, Vec<ResultPart>>, ItemsError> {
    let mut results = BTreeMap::new();
    let mut reading = JoinSet::new();
    let mut found = entries.iter().zip(listed).filter(|(entry, file)| {
        let is_result = entry.key == format!("{}{RESULT_NAME}", file.folder());
        is_result && file.folder().starts_with(prefix) && entry.bytes <= RESULT_MAX
    });
    loop {
        while reading.len() < READS_AT_ONCE
            && let Some((entry, file)) = found.next()
        {
            let (store, entry, folder) = (store.clone(), entry.clone(), file.folder().to_string());
            reading.spawn(async move {
                let etag = entry.etag.as_deref();
                let read = store.get_version(&entry.key, 0..entry.bytes, etag).await;
                (folder, store.version_url(&entry.key), read)
            });
        }
        let Some(read) = reading.join_next().await else {
            return Ok(results);
        };
        let (folder, url, read) = read.expect("reading does not panic");
        let parts = result_parts(&read?.bytes)
            .map_err(|problem| ItemsError::Unusable(format!("{url}: {problem}")))?;
        if let Some(parts) = parts {
            results.insert(folder, parts);
        }
    }
}
