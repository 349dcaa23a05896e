//! Objects that are written in parts.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{PART_BYTES, S3, timeouts};
use crate::store::StoreError;

/// An object that is being written, in parts if it is long: nobody sees it before it is whole. Parts of an upload that is
/// not completed cost money, so one that fails or is dropped is aborted.
pub(in crate::store) struct Upload {
    s3: S3,
    key: String,
    url: String,
    /// A part at most.
    waiting: BytesMut,
    /// S3's name for it, once a part is full.
    id: Option<String>,
    /// Of the part that was sent last.
    number: i32,
    under_way: JoinSet<Result<CompletedPart, StoreError>>,
    parts: Vec<CompletedPart>,
}

impl S3 {
    pub(in crate::store) fn writer(&self, key: &str, url: String) -> Upload {
        Upload {
            s3: self.clone(),
            key: key.to_owned(),
            url,
            waiting: BytesMut::new(),
            id: None,
            number: 0,
            under_way: JoinSet::new(),
            parts: Vec::new(),
        }
    }
}

impl Upload {
    pub(in crate::store) async fn write(&mut self, mut piece: Bytes) -> Result<(), StoreError> {
        while self.waiting.len() + piece.len() > PART_BYTES {
            let part = if self.waiting.is_empty() {
                piece.split_to(PART_BYTES)
            } else {
                let rest = piece.split_to(PART_BYTES - self.waiting.len());
                self.waiting.extend_from_slice(&rest);
                self.waiting.split().freeze()
            };
            let sent = self.send(part).await;
            self.or_abort(sent).await?;
        }
        self.waiting.extend_from_slice(&piece);
        Ok(())
    }

    pub(in crate::store) async fn finish(mut self) -> Result<(), StoreError> {
        let rest = self.waiting.split().freeze();
        if self.id.is_none() {
            let (s3, key, url) = (&self.s3, &self.key, self.url.clone());
            return s3.put_whole(key, rest, url).await;
        }
        let completed = self.complete(rest).await;
        self.or_abort(completed).await?;
        // There is nothing left to abort.
        self.id = None;
        Ok(())
    }

    /// Sends a part, once few enough are under way.
    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let begin = self.s3.client.create_multipart_upload();
                let begun = begin.bucket(&self.s3.bucket).key(self.s3.key(&self.key));
                let begun = begun.send().await;
                let begun = begun.map_err(|error| self.s3.explain("write", &self.url, &error))?;
                let id = begun.upload_id.unwrap_or_default();
                self.id.insert(id).clone()
            }
        };
        while let Some(sent) = self.under_way.try_join_next() {
            self.parts.push(sent.expect("writing does not panic")?);
        }
        let sending = Arc::clone(&self.s3.sending).acquire_owned().await;
        let sending = sending.expect("it is never closed");
        self.number += 1;
        let number = self.number;
        let timeouts = timeouts(part.len() as u64);
        let put = self
            .s3
            .client
            .upload_part()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.key))
            .upload_id(id)
            .part_number(number)
            .body(ByteStream::from(part))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts));
        let (s3, url) = (self.s3.clone(), self.url.clone());
        self.under_way.spawn(async move {
            let put = put.send().await;
            drop(sending);
            let put = put.map_err(|error| s3.explain("write", &url, &error))?;
            let part = CompletedPart::builder().part_number(number);
            Ok(part.set_e_tag(put.e_tag).build())
        });
        Ok(())
    }

    /// Sends the last part, waits for all, and makes them an object.
    async fn complete(&mut self, rest: Bytes) -> Result<(), StoreError> {
        self.send(rest).await?;
        while !self.under_way.is_empty() {
            self.parts.extend(next(&mut self.under_way).await?);
        }
        self.parts.sort_by_key(CompletedPart::part_number);
        let parts = std::mem::take(&mut self.parts);
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts));
        self.s3
            .client
            .complete_multipart_upload()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.key))
            .set_upload_id(self.id.clone())
            .multipart_upload(all.build())
            .send()
            .await
            .map(drop)
            .map_err(|error| self.s3.explain("write", &self.url, &error))
    }

    /// Gives this back, and if it is an error aborts the upload before.
    async fn or_abort(&mut self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        if outcome.is_err() {
            self.abort().await;
        }
        outcome
    }

    /// Gives up what was sent.
    pub(in crate::store) async fn abort(&mut self) {
        if let Some(id) = self.id.take() {
            self.under_way.shutdown().await;
            abort(&self.s3, &self.key, id).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let (s3, key) = (self.s3.clone(), std::mem::take(&mut self.key));
            let mut under_way = std::mem::take(&mut self.under_way);
            runtime.spawn(async move {
                under_way.shutdown().await;
                abort(&s3, &key, id).await;
            });
        }
    }
}

/// Gives up an upload. What counts is the error that there is already.
async fn abort(s3: &S3, key: &str, id: String) {
    let abort = s3.client.abort_multipart_upload();
    let abort = abort.bucket(&s3.bucket).key(s3.key(key)).upload_id(id);
    let _ = abort.send().await;
}

/// What the next of these writes that is done gives.
async fn next<T: 'static>(
    writes: &mut JoinSet<Result<T, StoreError>>,
) -> Result<Option<T>, StoreError> {
    match writes.join_next().await {
        Some(written) => written.expect("writing does not panic").map(Some),
        None => Ok(None),
    }
}
