//! What can go wrong with a store.

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
        cause: std::io::Error,
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
        advice: &'static str,
    },
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
