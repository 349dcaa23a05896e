//! Objects that are written in parts.
//!
//! Parts of an upload that is neither completed nor aborted cost money and are seen by nobody. So each process knows the
//! uploads that it has begun, and aborts them before it ends: [`abort_open_uploads`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::explain::status;
use super::{PART_BYTES, S3, timeouts};
use crate::random;
use crate::store::{Placed, StoreError};

/// An object's metadata that names the upload which wrote it. By it a writer knows its own object again when the answer to
/// the last request of the upload was lost.
const MARK: &str = "lswitch-upload";

/// Uploads of this process that were begun and are neither completed nor aborted.
static OPEN: Mutex<BTreeMap<Mark, OpenUpload>> = Mutex::new(BTreeMap::new());

/// A random name of an upload.
type Mark = [u8; 16];

/// What aborting an upload needs.
#[derive(Clone)]
struct OpenUpload {
    s3: S3,
    key: String,
    id: String,
}

/// Between two tries to abort an upload at the end of a process.
const ABORT_PAUSE: Duration = Duration::from_millis(50);

/// Aborts all uploads that this process has begun and not finished, and waits for that, at most `patience`. What writes
/// them fails. Gives the number of uploads that are left.
pub(in crate::store) async fn abort_open_uploads(patience: Duration) -> usize {
    let aborting = async {
        loop {
            let uploads: Vec<OpenUpload> = open().values().cloned().collect();
            if uploads.is_empty() {
                return;
            }
            let aborts: JoinSet<()> = uploads.into_iter().map(OpenUpload::abort).collect();
            aborts.join_all().await;
            // One that is still listed was refused, or has begun meanwhile.
            tokio::time::sleep(ABORT_PAUSE).await;
        }
    };
    // What is left is counted below.
    let _ = tokio::time::timeout(patience, aborting).await;
    open().len()
}

fn open() -> MutexGuard<'static, BTreeMap<Mark, OpenUpload>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenUpload {
    /// Gives up the upload. What counts for its writer is the error that there is already, so that of the abort is not told.
    async fn abort(self) {
        let abort = self.s3.client.abort_multipart_upload();
        let abort = abort
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.key))
            .upload_id(&self.id);
        let gone = match abort.send().await {
            Ok(_) => true,
            Err(error) => status(&error) == Some(404),
        };
        if gone {
            open().retain(|_, upload| upload.id != self.id || upload.key != self.key);
        }
    }
}

/// An object that is being written, in parts if it is long: nobody sees it before it is whole. One that fails or is dropped
/// is aborted.
pub(in crate::store) struct Upload {
    s3: S3,
    key: String,
    url: String,
    mark: Mark,
    /// A part at most.
    waiting: BytesMut,
    /// S3's name for it, once a part is full.
    id: Option<String>,
    /// Of the part that was sent last.
    number: i32,
    /// Bytes of all parts that were sent.
    sent: u64,
    under_way: JoinSet<Result<CompletedPart, StoreError>>,
    parts: Vec<CompletedPart>,
}

impl S3 {
    pub(in crate::store) fn writer(&self, key: &str, url: String) -> Upload {
        Upload {
            s3: self.clone(),
            key: key.to_owned(),
            url,
            mark: random::bytes(),
            waiting: BytesMut::new(),
            id: None,
            number: 0,
            sent: 0,
            under_way: JoinSet::new(),
            parts: Vec::new(),
        }
    }

    /// Aborts an upload that [`unfinished`](Self::unfinished) has listed. That there is none is no error.
    pub(in crate::store) async fn discard(
        &self,
        key: &str,
        id: &str,
        url: &str,
    ) -> Result<(), StoreError> {
        let abort = self.client.abort_multipart_upload();
        let abort = abort.bucket(&self.bucket).key(self.key(key)).upload_id(id);
        match abort.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(self.explain("abort the upload of", url, &error)),
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
        let completed = self.complete(rest, false).await.map(drop);
        self.or_abort(completed).await?;
        self.forget();
        Ok(())
    }

    /// As `finish`, unless there is an object of that name.
    pub(in crate::store) async fn finish_new(mut self) -> Result<Placed, StoreError> {
        let rest = self.waiting.split().freeze();
        if self.id.is_none() {
            let (s3, key, url) = (&self.s3, &self.key, self.url.clone());
            return s3.put_if_absent(key, rest, url).await;
        }
        let completed = self.complete(rest, true).await;
        match completed {
            Ok(Placed::Written) => self.forget(),
            _ => self.abort().await,
        }
        completed
    }

    /// There is nothing left to abort.
    fn forget(&mut self) {
        self.id = None;
        open().remove(&self.mark);
    }

    /// Begins the upload. Servers take checksums of parts only if they were announced here, and want them again at the end.
    async fn begin(&mut self) -> Result<String, StoreError> {
        let algorithm = self.s3.checksums.then_some(ChecksumAlgorithm::Crc32);
        let begin = self
            .s3
            .client
            .create_multipart_upload()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.key))
            .metadata(MARK, random::to_hex(&self.mark))
            .set_checksum_algorithm(algorithm);
        let begun = begin.send().await;
        let begun = begun.map_err(|error| self.s3.explain("write", &self.url, &error))?;
        let id = begun.upload_id.unwrap_or_default();
        let upload = OpenUpload {
            s3: self.s3.clone(),
            key: self.key.clone(),
            id: id.clone(),
        };
        open().insert(self.mark, upload);
        Ok(self.id.insert(id).clone())
    }

    /// Sends a part, once few enough are under way.
    async fn send(&mut self, part: Bytes) -> Result<(), StoreError> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.begin().await?,
        };
        while let Some(sent) = self.under_way.try_join_next() {
            self.parts.push(sent.expect("writing does not panic")?);
        }
        let sending = Arc::clone(&self.s3.sending).acquire_owned().await;
        let sending = sending.expect("it is never closed");
        self.number += 1;
        self.sent += part.len() as u64;
        let number = self.number;
        let timeouts = timeouts(part.len() as u64);
        // Given here and not by the SDK, since the list of parts needs it too, and not every server repeats it in its answer.
        let checksum = self.s3.checksums.then(|| crc32(&part));
        let put = self
            .s3
            .client
            .upload_part()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.key))
            .upload_id(id)
            .part_number(number)
            .set_checksum_crc32(checksum.clone())
            .body(ByteStream::from(part))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts));
        let (s3, url) = (self.s3.clone(), self.url.clone());
        self.under_way.spawn(async move {
            let put = put.send().await;
            drop(sending);
            let put = put.map_err(|error| s3.explain("write", &url, &error))?;
            let part = CompletedPart::builder()
                .part_number(number)
                .set_checksum_crc32(checksum);
            Ok(part.set_e_tag(put.e_tag).build())
        });
        Ok(())
    }

    /// Sends the last part, waits for all, and makes them an object; with `is_new` unless there is one.
    async fn complete(&mut self, rest: Bytes, is_new: bool) -> Result<Placed, StoreError> {
        self.send(rest).await?;
        while !self.under_way.is_empty() {
            self.parts.extend(next(&mut self.under_way).await?);
        }
        self.parts.sort_by_key(CompletedPart::part_number);
        let parts = std::mem::take(&mut self.parts);
        let all = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let mut condition = is_new.then(|| "*".to_owned());
        loop {
            let completed = self
                .s3
                .client
                .complete_multipart_upload()
                .bucket(&self.s3.bucket)
                .key(self.s3.key(&self.key))
                .set_upload_id(self.id.clone())
                .set_if_none_match(condition.clone())
                .multipart_upload(all.clone())
                .send()
                .await;
            let error = match completed {
                Ok(_) => return Ok(Placed::Written),
                Err(error) => error,
            };
            // The server may have done it, and only its answer was lost. The SDK's next try then finds no upload.
            if self.is_there().await {
                return Ok(Placed::Written);
            }
            match status(&error) {
                Some(412) if is_new => return Ok(Placed::Present),
                // A server that knows no writes on a condition: looking first is the best it has.
                Some(501) if condition.is_some() => {
                    let head = self.s3.client.head_object().bucket(&self.s3.bucket);
                    let head = head.key(self.s3.key(&self.key)).send().await;
                    match head.map_err(|error| self.s3.explain("read", &self.url, &error)) {
                        Ok(_) => return Ok(Placed::Present),
                        Err(StoreError::NotFound { .. }) => condition = None,
                        Err(error) => return Err(error),
                    }
                }
                _ => return Err(self.s3.explain("write", &self.url, &error)),
            }
        }
    }

    /// True if the object is there that this upload was to make, whole.
    async fn is_there(&self) -> bool {
        let head = self.s3.client.head_object().bucket(&self.s3.bucket);
        let Ok(head) = head.key(self.s3.key(&self.key)).send().await else {
            return false;
        };
        let length = head
            .content_length
            .and_then(|bytes| u64::try_from(bytes).ok());
        let mark = head.metadata().and_then(|metadata| metadata.get(MARK));
        length == Some(self.sent) && mark.is_some_and(|mark| *mark == random::to_hex(&self.mark))
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
        if let Some(upload) = self.take() {
            self.under_way.shutdown().await;
            upload.abort().await;
        }
    }

    /// The upload, if there is one, which from now on is the caller's to abort.
    fn take(&mut self) -> Option<OpenUpload> {
        let id = self.id.take()?;
        Some(OpenUpload {
            s3: self.s3.clone(),
            key: std::mem::take(&mut self.key),
            id,
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(upload) = self.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let mut under_way = std::mem::take(&mut self.under_way);
            runtime.spawn(async move {
                under_way.shutdown().await;
                upload.abort().await;
            });
        }
    }
}

/// The CRC-32 of a part, as S3 writes it: big-endian, in base64.
fn crc32(part: &[u8]) -> String {
    BASE64.encode(crc32fast::hash(part).to_be_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_written_as_s3_writes_it() {
        // The check value of CRC-32, of the nine digits: cbf43926.
        assert_eq!(crc32(b"123456789"), "y/Q5Jg==");
    }
}
