//! A store in S3, or in anything that speaks its protocol: every object is an object, under the store's prefix.
//!
//! Every wait ends: connecting after 5 s, a try of a request after a minute and one more second for each MiB it carries,
//! and a body after the same time, which counts the bytes that have arrived and not those that the server announces. The
//! SDK repeats what may be repeated, 5 tries in all (or `AWS_MAX_ATTEMPTS`) with growing pauses.

mod bucket;
mod endpoint;
mod explain;
mod list;
mod payer;
mod upload;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::config::endpoint::DefaultResolver;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::aws::error_chain;

use super::requests::{Counting, Requests};
use super::{Placed, StoreError, Version, pause_after};

use endpoint::PathStyleForCustomEndpoints;
use explain::{RefusedCertificates, status};
use payer::Payer;
pub(super) use upload::{Upload, abort_open_uploads};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one try of a request may take, besides the time for the bytes it carries.
const TRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The slowest transfer that is still worth waiting for, in bytes a second.
const SLOWEST_BYTES_A_SECOND: u64 = 1 << 20;

/// How often the SDK sends one request, the first time included, if AWS's settings have no other number.
const SEND_TRIES_MAX: u32 = 5;

/// Memory that is reserved for a body before it arrives. Beyond it memory grows with the bytes that have arrived, since the
/// announced length may be wrong.
const RESERVED_BYTES_MAX: usize = 16 << 20;

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
    /// False if AWS's settings want checksums only where S3 requires them.
    checksums: bool,
}

/// A task that does not outlive the one that waits for it.
struct AbortOnDropHandle<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDropHandle<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the first of these reads gives, if it is of the version `etag`; the first of all decides which that is.
async fn first(
    reads: &mut VecDeque<AbortOnDropHandle<Result<Version, StoreError>>>,
    etag: &mut Option<String>,
    url: &str,
) -> Result<Bytes, StoreError> {
    let Some(mut read) = reads.pop_front() else {
        return Ok(Bytes::new());
    };
    let version = (&mut read.0).await.expect("reading does not panic")?;
    if etag.is_some() && version.etag.is_some() && version.etag != *etag {
        return Err(StoreError::Replaced { url: url.into() });
    }
    *etag = version.etag.or(etag.take());
    Ok(version.bytes)
}

impl S3 {
    pub(super) fn new(
        bucket: String,
        mut prefix: String,
        sdk_config: &SdkConfig,
        requests: Option<Arc<Requests>>,
    ) -> S3 {
        let retries = sdk_config.retry_config().cloned();
        let retries =
            retries.unwrap_or_else(|| RetryConfig::standard().with_max_attempts(SEND_TRIES_MAX));
        let mut config = aws_sdk_s3::config::Builder::from(sdk_config)
            .endpoint_resolver(PathStyleForCustomEndpoints(DefaultResolver::new()))
            .retry_config(retries)
            .retry_classifier(RefusedCertificates)
            .timeout_config(timeouts(0));
        if let Some(payer) = Payer::of_environment() {
            config = config.interceptor(payer);
        }
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
            checksums: sdk_config.request_checksum_calculation()
                != Some(RequestChecksumCalculation::WhenRequired),
        }
    }

    /// What the store's prefix takes of the length that a key may have.
    pub(super) fn prefix_bytes(&self) -> usize {
        self.prefix.len()
    }

    pub(super) async fn get(&self, key: &str, url: String) -> Result<Bytes, StoreError> {
        Ok(self.read(key, None, None, url).await?.bytes)
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
        Ok(self.get_version(key, range, None, url).await?.bytes)
    }

    /// Reads a range that is not empty, of the version with this ETag or of any.
    pub(super) async fn get_version(
        &self,
        key: &str,
        range: Range<u64>,
        etag: Option<&str>,
        url: String,
    ) -> Result<Version, StoreError> {
        let version = self.read(key, Some(&range), etag, url.clone()).await?;
        if version.bytes.len() as u64 == range.end - range.start {
            Ok(version)
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
        // All ranges are of one version: that of the first.
        let mut etag = None;
        let mut under_way = VecDeque::new();
        for start in (0..length).step_by(PART_BYTES) {
            if under_way.len() == PARTS_AT_ONCE {
                all.extend_from_slice(&first(&mut under_way, &mut etag, &url).await?);
            }
            let range = start..length.min(start + PART_BYTES as u64);
            let (this, key, url) = (self.clone(), key.to_owned(), url.clone());
            let known = etag.clone();
            let read = async move { this.get_version(&key, range, known.as_deref(), url).await };
            // Ends with whoever waits for it.
            under_way.push_back(AbortOnDropHandle(tokio::spawn(read)));
        }
        while !under_way.is_empty() {
            all.extend_from_slice(&first(&mut under_way, &mut etag, &url).await?);
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
                    // Not everything that speaks S3's protocol knows writes on a condition. Looking first is the best it has.
                    Some(501) => {
                        return match self.read(key, None, None, url.clone()).await {
                            Ok(_) => Ok(Placed::Present),
                            Err(StoreError::NotFound { .. }) => {
                                let written = self.put_whole(key, value, url).await;
                                written.map(|()| Placed::Written)
                            }
                            Err(error) => Err(error),
                        };
                    }
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

    /// Reads an object or a range of it, again if its bytes break off, of the version with this ETag or of any. The range may
    /// come back shorter than asked for.
    async fn read(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        etag: Option<&str>,
        url: String,
    ) -> Result<Version, StoreError> {
        let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let mut tries = 1;
        loop {
            let get = self
                .client
                .get_object()
                .bucket(&self.bucket)
                .key(self.key(key))
                .set_range(header.clone())
                .set_if_match(etag.map(str::to_owned));
            let output = match (get.send().await, range) {
                (Ok(output), _) => output,
                (Err(error), _) if etag.is_some() && status(&error) == Some(412) => {
                    return Err(StoreError::Replaced { url });
                }
                (Err(error), Some(range)) if status(&error) == Some(416) => {
                    return Err(StoreError::ShortObject {
                        url,
                        start: range.start,
                        end: range.end,
                    });
                }
                (Err(error), _) => return Err(self.explain("read", &url, &error)),
            };
            // Not every server that speaks S3's protocol looks at If-Match.
            let found = output.e_tag().map(str::to_owned);
            if etag.is_some() && found.is_some() && found.as_deref() != etag {
                return Err(StoreError::Replaced { url });
            }
            let announced = output
                .content_length()
                .and_then(|bytes| u64::try_from(bytes).ok());
            let asked = range.map(|range| range.end - range.start);
            let cause = match collect(output.body, announced, asked).await {
                Ok(bytes) => return Ok(Version { bytes, etag: found }),
                Err(BodyError::TooLong) => {
                    let range = range.cloned().unwrap_or_default();
                    return Err(StoreError::LongAnswer {
                        url,
                        start: range.start,
                        end: range.end,
                    });
                }
                Err(BodyError::Broken(cause)) => cause,
            };
            if tries == READ_TRIES_MAX {
                return Err(StoreError::BrokenRead { url, tries, cause });
            }
            tokio::time::sleep(pause_after(tries)).await;
            tries += 1;
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

/// Why a body cannot be read.
enum BodyError {
    /// It has more bytes than were asked for.
    TooLong,
    /// It broke off, or its bytes stopped arriving.
    Broken(String),
}

/// Reads a body into one piece of memory: of `announced` bytes if the server is right, and at most `asked` bytes.
async fn collect(
    mut body: ByteStream,
    announced: Option<u64>,
    asked: Option<u64>,
) -> Result<Bytes, BodyError> {
    if let (Some(announced), Some(asked)) = (announced, asked)
        && announced > asked
    {
        return Err(BodyError::TooLong);
    }
    let reserved = announced.and_then(|bytes| usize::try_from(bytes).ok());
    let mut value = BytesMut::with_capacity(reserved.unwrap_or(0).min(RESERVED_BYTES_MAX));
    let begin = Instant::now();
    loop {
        let patience = patience(value.len() as u64);
        let left = patience.saturating_sub(begin.elapsed());
        let piece = match tokio::time::timeout(left, body.try_next()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return Ok(value.freeze()),
            Ok(Err(error)) => return Err(BodyError::Broken(error_chain(&error))),
            Err(_) => {
                let (bytes, seconds) = (value.len(), patience.as_secs());
                let cause = format!("only {bytes} bytes arrived in {seconds} s");
                return Err(BodyError::Broken(cause));
            }
        };
        if asked.is_some_and(|asked| (value.len() + piece.len()) as u64 > asked) {
            return Err(BodyError::TooLong);
        }
        value.extend_from_slice(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_bounded_by_what_was_asked_for_and_memory_by_what_arrives() {
        let body = || ByteStream::from_static(b"12345");
        let whole = collect(body(), Some(1 << 50), None).await;
        assert!(matches!(whole, Ok(value) if value == "12345"));
        let range = collect(body(), None, Some(5)).await;
        assert!(matches!(range, Ok(value) if value == "12345"));
        for (announced, asked) in [(None, 4), (Some(1 << 50), 5)] {
            let range = collect(body(), announced, Some(asked)).await;
            assert!(matches!(range, Err(BodyError::TooLong)), "{asked}");
        }
    }

    #[test]
    fn patience_grows_with_the_bytes_that_arrived() {
        assert_eq!(patience(0), Duration::from_secs(60));
        assert_eq!(patience(100 << 20), Duration::from_secs(160));
    }
}
