//! What can go wrong with a store.

use std::borrow::Cow;
use std::io;

use crate::aws::AwsError;

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The text names no store.
    #[error("\"{location}\" is no place for a store: {problem}")]
    BadLocation {
        /// What was written.
        location: String,
        /// What is wrong with it, and what to write instead.
        problem: String,
    },
    /// The key breaks a rule of the module's section "Keys".
    #[error(
        "{key:?} cannot be a key in {store}: {problem}; use a relative path such as \"parts/00001\""
    )]
    BadKey {
        /// The store's URL.
        store: String,
        /// The key.
        key: String,
        /// The rule that it breaks.
        problem: &'static str,
    },
    /// The range ends before it starts, or is longer than this machine can address.
    #[error(
        "cannot read bytes {start}..{end} of {url}: a range must not end before it starts, and must fit in memory"
    )]
    BadRange {
        /// The object.
        url: String,
        /// The first byte that was wanted.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// There is no such object.
    #[error("there is no object {url}; was it written, and is this the right store?")]
    NotFound {
        /// The object.
        url: String,
    },
    /// There is no such bucket.
    #[error(
        "there is no bucket \"{bucket}\", which {url} needs; create it (aws s3 mb s3://{bucket}) or correct the store's location"
    )]
    NoBucket {
        /// The object, or the store when it was being listed.
        url: String,
        /// The bucket.
        bucket: String,
    },
    /// The object ends before the range that was asked for does.
    #[error(
        "{url} ends before byte {end} of the bytes {start}..{end} that were asked for; it was cut short, or it is another object than the one expected"
    )]
    ShortObject {
        /// The object.
        url: String,
        /// The first byte that was wanted.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// A sealed object is not what its writer wrote.
    #[error(
        "{url} is damaged: {problem}; its bytes are not those that the job wrote. Delete it and run the job again"
    )]
    Damaged {
        /// The object.
        url: String,
        /// Which block, and how it differs.
        problem: String,
    },
    /// The object is no longer the version that was listed, or that the first range was read of.
    #[error(
        "{url} was replaced while it was read; run the job again when no other program writes there"
    )]
    Replaced {
        /// The object.
        url: String,
    },
    /// Other writers kept changing the object while `put_if_absent` tried to create it.
    #[error(
        "could not create {url} in {tries} tries, because others kept creating and deleting it; try again when they are done"
    )]
    Conflict {
        /// The object.
        url: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The file system refused.
    #[error("cannot {action} {url}: {cause}; check the directory's permissions and free space")]
    Directory {
        /// What was being done: read, write, delete, list.
        action: &'static str,
        /// The object, or the store when it was being listed.
        url: String,
        /// What the file system said.
        cause: io::Error,
    },
    /// S3 refused, or could not be reached.
    #[error("cannot {action} {url}: {cause}; {advice}")]
    S3 {
        /// What was being done: read, write, delete, list.
        action: &'static str,
        /// The object, or the store when it was being listed.
        url: String,
        /// The SDK's error and everything below it, outermost first.
        cause: String,
        /// What to do about it.
        advice: Cow<'static, str>,
        /// What kind of refusal it is.
        refusal: Refusal,
    },
    /// The list of a store in S3 has gaps, or does not say how it continues.
    #[error(
        "cannot list {url}: {problem}; check that the endpoint is an S3 server which knows ListObjectsV2 (and ListMultipartUploads), or use another server"
    )]
    BrokenList {
        /// The store.
        url: String,
        /// What is wrong with the list.
        problem: String,
    },
    /// The answer to a request for a range has more bytes than the range.
    #[error(
        "cannot read bytes {start}..{end} of {url}: the server sent more bytes than that; check that the endpoint is an S3 server which knows ranges"
    )]
    LongAnswer {
        /// The object.
        url: String,
        /// The first byte that was wanted.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// AWS's settings cannot be used.
    #[error(transparent)]
    Settings(#[from] AwsError),
    /// The bytes of an object stopped arriving, each time it was read.
    #[error(
        "cannot read {url}: its bytes did not arrive in {tries} tries, the last time because {cause}; check the network, and try again"
    )]
    BrokenRead {
        /// The object.
        url: String,
        /// How often it was read.
        tries: u32,
        /// What ended the last try.
        cause: String,
    },
}

/// Why S3, or the way to it, refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The credentials lack the right, or the bucket's owner forbids the request.
    Denied,
    /// No credentials were found.
    NoCredentials,
    /// The credentials are not valid.
    BadCredentials,
    /// The credentials have expired.
    ExpiredCredentials,
    /// No region is set.
    NoRegion,
    /// The bucket is in another region.
    WrongRegion,
    /// The server's certificate is not trusted, or the server does not speak TLS.
    Untrusted,
    /// This machine's clock is wrong.
    ClockSkew,
    /// The server does not know the request, or part of it.
    NotImplemented,
    /// The key that encrypts the bucket's objects cannot be used.
    EncryptionKey,
    /// The server has no room.
    StorageFull,
    /// The object is archived. Other objects may be readable.
    Archived,
    /// Anything else: the same request may succeed later.
    Other,
}

impl Refusal {
    /// True if no request to this store can succeed before somebody changes settings, rights or the server.
    pub fn is_permanent(self) -> bool {
        !matches!(self, Refusal::Archived | Refusal::Other)
    }
}

impl StoreError {
    /// True if the same kind of request to the same store fails again, whatever the object, until somebody changes
    /// settings, rights or the store: a missing bucket, credentials that are not accepted, a full disk. A retry is
    /// useless then, and so is other work that needs the store.
    ///
    /// Errors of one object ([`NotFound`](Self::NotFound), [`ShortObject`](Self::ShortObject)) are not permanent in this
    /// sense.
    pub fn is_permanent(&self) -> bool {
        match self {
            StoreError::BadLocation { .. }
            | StoreError::NoBucket { .. }
            | StoreError::Settings(_) => true,
            StoreError::S3 { refusal, .. } => refusal.is_permanent(),
            StoreError::Directory { cause, .. } => matches!(
                cause.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::NotADirectory
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_whole_store_are_permanent_and_errors_of_one_object_are_not() {
        let url = || "s3://bucket/key".to_owned();
        let refused = |refusal| StoreError::S3 {
            action: "write",
            url: url(),
            cause: "no".into(),
            advice: "".into(),
            refusal,
        };
        let directory = |kind: io::ErrorKind| StoreError::Directory {
            action: "write",
            url: url(),
            cause: kind.into(),
        };
        let bucket = "bucket".to_owned();
        for error in [
            StoreError::NoBucket { url: url(), bucket },
            refused(Refusal::Denied),
            refused(Refusal::ExpiredCredentials),
            refused(Refusal::Untrusted),
            directory(io::ErrorKind::PermissionDenied),
            directory(io::ErrorKind::StorageFull),
        ] {
            assert!(error.is_permanent(), "{error}");
        }
        for error in [
            StoreError::NotFound { url: url() },
            refused(Refusal::Other),
            refused(Refusal::Archived),
            directory(io::ErrorKind::Interrupted),
        ] {
            assert!(!error.is_permanent(), "{error}");
        }
    }
}
