//! Objects that other programs wrote, under any key that S3 takes, and read as one version: a user's inputs.

use std::ops::Range;

use bytes::Bytes;

use super::{Backend, Store, StoreError};

/// Some bytes of an object, and which version of it they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The bytes.
    pub bytes: Bytes,
    /// The version's ETag, where the store has ETags.
    pub etag: Option<String>,
}

impl Store {
    /// Reads exactly the bytes `range` of the object `key`, counted from 0; with `etag` of that version and of no other. In S3
    /// `key` may be one that no method writes to: [`list_all`](Self::list_all) gives such keys. An empty range asks for
    /// nothing, not even whether there is an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::Replaced`] when the object is another version by now; otherwise as [`Store::get_range`].
    pub async fn get_version(
        &self,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Version, StoreError> {
        if range.start == range.end {
            return Ok(Version {
                bytes: Bytes::new(),
                etag: etag.map(str::to_owned),
            });
        }
        match &self.backend {
            // A key that leads out of the folder is refused here.
            Backend::Dir(_) => Ok(Version {
                bytes: self.get_range(key, range).await?,
                etag: None,
            }),
            Backend::S3(s3) => {
                let url = self.version_url(key);
                if range.start > range.end || usize::try_from(range.end - range.start).is_err() {
                    return Err(StoreError::BadRange {
                        url,
                        start: range.start,
                        end: range.end,
                    });
                }
                s3.get_version(key, range, etag, url).await
            }
        }
    }

    /// The URL of an object with any key, for messages: control characters are escaped.
    pub fn version_url(&self, key: &str) -> String {
        let mut shown = String::with_capacity(key.len());
        for c in key.chars() {
            match c.is_control() {
                true => shown.extend(c.escape_default()),
                false => shown.push(c),
            }
        }
        self.object_url(&shown)
    }
}
