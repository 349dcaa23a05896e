//! A store in S3, or in anything that speaks its protocol: every object is an object, under the store's prefix.
//!
//! Every wait ends: connecting after 5 s, a try of a request after a minute and one more second for each MiB it carries,
//! and a body after the same time. The SDK repeats what may be repeated, 5 tries in all with growing pauses.

use std::collections::VecDeque;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::endpoint::{DefaultResolver, EndpointFuture, Params, ResolveEndpoint};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_bucket::HeadBucketError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CompletedMultipartUpload, CompletedPart, CreateBucketConfiguration,
    PublicAccessBlockConfiguration,
};
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::aws::error_chain;

use super::requests::{Counting, Requests};
use super::{Entry, Placed, StoreError, pause_after};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one try of a request may take, besides the time for the bytes it carries.
const TRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The slowest transfer that is still worth waiting for, in bytes a second.
const SLOWEST_BYTES_A_SECOND: u64 = 1 << 20;

/// How often the SDK sends one request, the first time included.
const SEND_TRIES_MAX: u32 = 5;

/// How often an object is read whose bytes stop arriving. The SDK repeats requests, but not bodies that break off.
const READ_TRIES_MAX: u32 = 4;

/// How often a write that must not overwrite is tried while S3 says that another such write is under way. With
/// [`pause_after`] that is patience for some 6 s.
const CONFLICT_TRIES_MAX: u32 = 8;

/// Objects above this that are in memory are written in parts. One connection to S3 carries some 80 MB/s, a function's network several times that.
const WHOLE_MAX: usize = 32 << 20;

/// Bytes of each of those parts but the last; S3 takes up to 10,000 of them.
const PART_BYTES: usize = 16 << 20;

/// Parts of one object that are read at a time.
const PARTS_AT_ONCE: usize = 8;

/// Parts of all objects that are written at a time: they share one network, and each has a deadline.
const PARTS_SENT_AT_ONCE: usize = 16;

/// A bucket, and a prefix in it.
#[derive(Clone)]
pub(super) struct S3 {
    client: Client,
    bucket: String,
    /// Empty, or ending with a slash.
    prefix: String,
    /// A permit for each part that is being written.
    sending: Arc<Semaphore>,
}

/// A task that does not outlive the one that waits for it.
struct AbortOnDropHandle<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDropHandle<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the first of these reads gives.
async fn first(
    reads: &mut VecDeque<AbortOnDropHandle<Result<Bytes, StoreError>>>,
) -> Result<Bytes, StoreError> {
    match reads.pop_front() {
        Some(mut read) => (&mut read.0).await.expect("reading does not panic"),
        None => Ok(Bytes::new()),
    }
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

impl S3 {
    pub(super) fn new(
        bucket: String,
        mut prefix: String,
        sdk_config: &SdkConfig,
        requests: Option<Arc<Requests>>,
    ) -> S3 {
        let mut config = aws_sdk_s3::config::Builder::from(sdk_config)
            .endpoint_resolver(PathStyleForCustomEndpoints(DefaultResolver::new()))
            .retry_config(RetryConfig::standard().with_max_attempts(SEND_TRIES_MAX))
            .timeout_config(timeouts(0));
        if let Some(requests) = requests {
            config = config.interceptor(Counting(requests));
        }
        let config = config.build();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        S3 {
            client: Client::from_conf(config),
            bucket,
            prefix,
            sending: Arc::new(Semaphore::new(PARTS_SENT_AT_ONCE)),
        }
    }

    pub(super) async fn make_bucket(&self, url: &str) -> Result<bool, StoreError> {
        let head = self.client.head_bucket().bucket(&self.bucket).send().await;
        match head {
            Ok(_) => return Ok(false),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(HeadBucketError::is_not_found) => {}
            Err(error) => return Err(self.explain("look at the bucket of", url, &error)),
        }
        let region = self.client.config().region().map(Region::as_ref);
        // S3's first region is named by naming none.
        let place = region
            .filter(|region| *region != "us-east-1")
            .map(|region| {
                CreateBucketConfiguration::builder()
                    .location_constraint(BucketLocationConstraint::from(region))
                    .build()
            });
        let create = self.client.create_bucket().bucket(&self.bucket);
        let created = create.set_create_bucket_configuration(place).send().await;
        created.map_err(|error| self.explain("make the bucket of", url, &error))?;
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_acls(true)
            .ignore_public_acls(true)
            .block_public_policy(true)
            .restrict_public_buckets(true)
            .build();
        let close = self.client.put_public_access_block().bucket(&self.bucket);
        let closed = close.public_access_block_configuration(block).send().await;
        closed.map_err(|error| self.explain("close the bucket of", url, &error))?;
        Ok(true)
    }

    /// What the store's prefix takes of the length that a key may have.
    pub(super) fn prefix_bytes(&self) -> usize {
        self.prefix.len()
    }

    pub(super) async fn get(&self, key: &str, url: String) -> Result<Bytes, StoreError> {
        self.read(key, None, url).await
    }

    pub(super) async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
        url: String,
    ) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            // HTTP has no way to ask for no bytes, but the contract wants to know whether the object reaches that far.
            let head = self
                .client
                .head_object()
                .bucket(&self.bucket)
                .key(self.key(key))
                .send()
                .await;
            let head = head.map_err(|error| self.explain("read", &url, &error))?;
            return match head
                .content_length()
                .and_then(|bytes| u64::try_from(bytes).ok())
            {
                Some(bytes) if bytes >= range.end => Ok(Bytes::new()),
                _ => Err(StoreError::ShortObject {
                    url,
                    start: range.start,
                    end: range.end,
                }),
            };
        }
        let value = self.read(key, Some(&range), url.clone()).await?;
        if value.len() as u64 == range.end - range.start {
            Ok(value)
        } else {
            Err(StoreError::ShortObject {
                url,
                start: range.start,
                end: range.end,
            })
        }
    }

    pub(super) async fn put(&self, key: &str, value: Bytes, url: String) -> Result<(), StoreError> {
        if value.len() > WHOLE_MAX {
            let mut upload = self.writer(key, url);
            upload.write(value).await?;
            return upload.finish().await;
        }
        self.put_whole(key, value, url).await
    }

    async fn put_whole(&self, key: &str, value: Bytes, url: String) -> Result<(), StoreError> {
        let bytes = value.len() as u64;
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .body(ByteStream::from(value));
        let put = put
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts(bytes)));
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain("write", &url, &error)),
        }
    }

    pub(super) fn writer(&self, key: &str, url: String) -> Upload {
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

    /// Reads an object of a known length, in ranges side by side.
    pub(super) async fn get_of_length(
        &self,
        key: &str,
        length: u64,
        url: String,
    ) -> Result<Bytes, StoreError> {
        if length <= WHOLE_MAX as u64 {
            return self.get(key, url).await;
        }
        // It grows with what comes, whatever the length is said to be.
        let mut all = BytesMut::new();
        let mut under_way = VecDeque::new();
        for start in (0..length).step_by(PART_BYTES) {
            if under_way.len() == PARTS_AT_ONCE {
                all.extend_from_slice(&first(&mut under_way).await?);
            }
            let range = start..length.min(start + PART_BYTES as u64);
            let (this, key, url) = (self.clone(), key.to_owned(), url.clone());
            let read = async move { this.get_range(&key, range, url).await };
            // Ends with whoever waits for it.
            under_way.push_back(AbortOnDropHandle(tokio::spawn(read)));
        }
        while !under_way.is_empty() {
            all.extend_from_slice(&first(&mut under_way).await?);
        }
        Ok(all.freeze())
    }

    pub(super) async fn put_if_absent(
        &self,
        key: &str,
        value: Bytes,
        url: String,
    ) -> Result<Placed, StoreError> {
        let bytes = value.len() as u64;
        for tries in 1..=CONFLICT_TRIES_MAX {
            let put = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(self.key(key));
            let put = put.if_none_match("*").body(ByteStream::from(value.clone()));
            let put = put
                .customize()
                .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts(bytes)));
            match put.send().await {
                Ok(_) => return Ok(Placed::Written),
                Err(error) => match status(&error) {
                    Some(412) => return Ok(Placed::Present),
                    // Another conditional write of this key is under way; S3 asks to try again.
                    Some(409) if error.code() == Some("ConditionalRequestConflict") => {}
                    _ => return Err(self.explain("write", &url, &error)),
                },
            }
            if tries < CONFLICT_TRIES_MAX {
                tokio::time::sleep(pause_after(tries)).await;
            }
        }
        Err(StoreError::Conflict {
            url,
            tries: CONFLICT_TRIES_MAX,
        })
    }

    pub(super) async fn list(&self, prefix: &str, url: &str) -> Result<Vec<Entry>, StoreError> {
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

    pub(super) async fn delete(&self, key: &str, url: String) -> Result<(), StoreError> {
        match self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .send()
            .await
        {
            Ok(_) => Ok(()),
            // S3 says yes to deleting what is not there; not everything that speaks its protocol does.
            Err(error) => match self.explain("delete", &url, &error) {
                StoreError::NotFound { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Reads an object or a range of it, again if its bytes break off. The range may come back shorter than asked for.
    async fn read(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        url: String,
    ) -> Result<Bytes, StoreError> {
        let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let mut tries = 1;
        loop {
            let get = self
                .client
                .get_object()
                .bucket(&self.bucket)
                .key(self.key(key))
                .set_range(header.clone());
            let output = match (get.send().await, range) {
                (Ok(output), _) => output,
                (Err(error), Some(range)) if status(&error) == Some(416) => {
                    return Err(StoreError::ShortObject {
                        url,
                        start: range.start,
                        end: range.end,
                    });
                }
                (Err(error), _) => return Err(self.explain("read", &url, &error)),
            };
            let bytes = output
                .content_length()
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(0);
            let patience = patience(bytes as u64);
            let cause = match tokio::time::timeout(patience, collect(output.body, bytes)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error_chain(&error),
                Err(_) => format!("{bytes} bytes took longer than {} s", patience.as_secs()),
            };
            if tries == READ_TRIES_MAX {
                return Err(StoreError::BrokenRead { url, tries, cause });
            }
            tokio::time::sleep(pause_after(tries)).await;
            tries += 1;
        }
    }

    /// Turns the SDK's error into one that says where and what to do.
    fn explain<E>(&self, action: &'static str, url: &str, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let url = url.to_owned();
        let (code, status) = (error.code().unwrap_or_default(), status(error));
        let advice = match (code, status) {
            ("NoSuchBucket", _) => {
                return StoreError::NoBucket {
                    url,
                    bucket: self.bucket.clone(),
                };
            }
            ("NoSuchKey" | "NotFound", _) | ("", Some(404)) => return StoreError::NotFound { url },
            (
                "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            )
            | (_, Some(301 | 307)) => {
                "is the bucket in another region? name it with --region or AWS_REGION"
            }
            (
                "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken",
                _,
            ) => "AWS does not accept the credentials; renew them, or choose others with --profile",
            (_, Some(401 | 403)) => {
                "the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject on the objects and s3:ListBucket on \
                 the bucket; without the last, even a missing object looks forbidden"
            }
            ("EntityTooLarge", _) => "S3 takes at most 5 GiB at once; write smaller objects",
            ("SlowDown" | "ServiceUnavailable", _) | (_, Some(429 | 500..=599)) => {
                "the service is overloaded or broken; try again later, or with fewer workers"
            }
            (_, Some(_)) => "check the store's location and the bucket's settings",
            (_, None) => match error {
                SdkError::TimeoutError(_) => {
                    "nothing answered in time; check the endpoint and the network"
                }
                SdkError::DispatchFailure(failure)
                    if failure.is_io() || failure.is_timeout() || failure.as_other().is_some() =>
                {
                    "check the network, and that the endpoint (AWS_ENDPOINT_URL_S3 if it is set) can be reached from here"
                }
                _ => {
                    "check AWS's settings: a region (--region or AWS_REGION), credentials (--profile; \"aws sts \
                     get-caller-identity\" shows whose they are), the endpoint"
                }
            },
        };
        StoreError::S3 {
            action,
            url,
            cause: error_chain(error),
            advice,
        }
    }
}

/// An object that is being written, in parts if it is long: nobody sees it before it is whole. Parts of an upload that is
/// not completed cost money, so one that fails or is dropped is aborted.
pub(super) struct Upload {
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

impl Upload {
    pub(super) async fn write(&mut self, mut piece: Bytes) -> Result<(), StoreError> {
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

    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
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
    pub(super) async fn abort(&mut self) {
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

/// The SDK's own rules for endpoints, except that the bucket goes into the path whenever the endpoint was set by hand
/// (AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, a profile, a caller's configuration): `bucket.localhost` rarely has an address.
#[derive(Debug)]
struct PathStyleForCustomEndpoints(DefaultResolver);

impl ResolveEndpoint for PathStyleForCustomEndpoints {
    fn resolve_endpoint<'a>(&'a self, params: &'a Params) -> EndpointFuture<'a> {
        if params.endpoint().is_none() {
            return ResolveEndpoint::resolve_endpoint(&self.0, params);
        }
        let in_path = Params::builder()
            .force_path_style(true)
            .set_endpoint(params.endpoint().map(str::to_owned))
            .set_bucket(params.bucket().map(str::to_owned))
            .set_key(params.key().map(str::to_owned))
            .set_prefix(params.prefix().map(str::to_owned))
            .set_region(params.region().map(str::to_owned))
            .set_use_fips(params.use_fips())
            .set_use_dual_stack(params.use_dual_stack())
            .set_accelerate(params.accelerate())
            .set_use_global_endpoint(params.use_global_endpoint())
            .set_disable_multi_region_access_points(params.disable_multi_region_access_points())
            .set_disable_s3_express_session_auth(params.disable_s3_express_session_auth())
            .build();
        match in_path {
            Ok(params) => EndpointFuture::new(async move {
                ResolveEndpoint::resolve_endpoint(&self.0, &params).await
            }),
            Err(error) => EndpointFuture::ready(Err(error.into())),
        }
    }
}

/// How long to wait for a transfer of `bytes`.
fn patience(bytes: u64) -> Duration {
    TRY_TIMEOUT + Duration::from_secs(bytes / SLOWEST_BYTES_A_SECOND)
}

/// The deadlines of one try of a request that carries `bytes`.
fn timeouts(bytes: u64) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(patience(bytes))
        .build()
}

/// The HTTP status of the answer, if there was one.
fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

/// Reads a body of probably `bytes` into one piece of memory.
async fn collect(
    mut body: ByteStream,
    bytes: usize,
) -> Result<Bytes, aws_sdk_s3::primitives::ByteStreamError> {
    let mut value = BytesMut::with_capacity(bytes);
    while let Some(piece) = body.try_next().await? {
        value.extend_from_slice(&piece);
    }
    Ok(value.freeze())
}
