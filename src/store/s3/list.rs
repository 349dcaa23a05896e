//! Listing the objects of a store in S3.

use std::time::SystemTime;

use super::S3;
use crate::store::{Entry, StoreError};

impl S3 {
    pub(in crate::store) async fn list(
        &self,
        prefix: &str,
        url: &str,
    ) -> Result<Vec<Entry>, StoreError> {
        let list = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.key(prefix));
        let mut pages = list.into_paginator().send();
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.explain("list", url, &error))?;
            for object in page.contents() {
                let key = object.key().and_then(|key| key.strip_prefix(&self.prefix));
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok());
                // One without a time counts as new, so that nobody takes it for old.
                let modified = object
                    .last_modified()
                    .and_then(|time| SystemTime::try_from(*time).ok())
                    .unwrap_or_else(SystemTime::now);
                if let (Some(key), Some(bytes)) = (key, bytes) {
                    entries.push(Entry {
                        key: key.to_owned(),
                        bytes,
                        modified,
                    });
                }
            }
        }
        Ok(entries)
    }
}
