//! The event that starts a pack: versioned JSON, specified in `docs/EVENT.md`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// The version of the event that this build writes and reads.
pub const VERSION: u32 = 1;

/// The largest event, in bytes. AWS takes 1 MB asynchronously; staying far below leaves room for the user's own part
/// everywhere.
pub const EVENT_MAX: usize = 100 * 1024;

/// See the module. Ids and codes are hexadecimal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The event's version.
    pub version: u32,
    /// The release of the lswitch that drives the job.
    pub release: String,
    /// The job's id, 32 digits.
    pub job: String,
    /// The switches, `HOST:PORT` each.
    pub switches: Vec<String>,
    /// The proof for this start of these ranks.
    pub token: EventToken,
    /// The pack's lowest rank.
    pub first_rank: u32,
    /// How many ranks the pack has.
    pub ranks: u32,
    /// All ranks of the job.
    pub size: u32,
    /// The job's epoch.
    pub epoch: u32,
    /// The number of this start of the pack.
    pub incarnation: u32,
    /// How long to wait for the switch and for all other ranks, in seconds.
    pub join_within_s: u64,
    /// What every rank runs.
    pub program: String,
    /// The program's arguments.
    pub arguments: Value,
    /// The job's store, absolute.
    pub store: String,
    /// The user's own event.
    #[serde(default)]
    pub event: Value,
    /// Further fields, for handlers that look for them at the top; none is one of the above.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A token as it is written in an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventToken {
    /// Seconds since 1970 after which it is refused.
    pub expiry_s: u64,
    /// HMAC-SHA256, 64 digits.
    pub code: String,
}

/// An event that cannot start a pack.
#[derive(Debug, Error)]
pub enum EventError {
    /// Made by another lswitch.
    #[error(
        "this worker (lswitch {}) reads events of version {VERSION} and got version {found}; run \"lswitch function update\" so that driver and worker are the same release",
        crate::RELEASE
    )]
    Version {
        /// The version it names.
        found: u64,
    },
    /// Not an event of ours.
    #[error("this is no lswitch event: {0}; a worker is started by \"lswitch invoke\"")]
    Malformed(String),
    /// Over the limit.
    #[error(
        "the event has {bytes} bytes, over the limit of {EVENT_MAX}; put large arguments into the store and pass their location"
    )]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
}

/// What an event's own fields are called, which `more` cannot be.
const FIELDS: [&str; 15] = [
    "version",
    "release",
    "job",
    "switches",
    "token",
    "first_rank",
    "ranks",
    "size",
    "epoch",
    "incarnation",
    "join_within_s",
    "program",
    "arguments",
    "store",
    "event",
];

impl Event {
    /// Those of some fields that do not stand in the way of an event's own.
    pub fn without_own(mut fields: Map<String, Value>) -> Map<String, Value> {
        fields.retain(|name, _| !FIELDS.contains(&&name[..]));
        fields
    }

    /// Reads an event; another version is refused before anything else is looked at.
    ///
    /// # Errors
    /// When it is of another version, or is no event of ours.
    pub fn parse(value: Value) -> Result<Event, EventError> {
        let version = value.get("version").and_then(Value::as_u64);
        let version = version.ok_or_else(|| EventError::Malformed("it has no version".into()))?;
        if version != u64::from(VERSION) {
            return Err(EventError::Version { found: version });
        }
        serde_json::from_value(value).map_err(|error| EventError::Malformed(error.to_string()))
    }

    /// The event's bytes.
    ///
    /// # Errors
    /// When there are more than [`EVENT_MAX`].
    pub fn to_json(&self) -> Result<Vec<u8>, EventError> {
        let bytes =
            serde_json::to_vec(self).expect("an event has no maps with keys that are not strings");
        if bytes.len() > EVENT_MAX {
            Err(EventError::TooLarge { bytes: bytes.len() })
        } else {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn another_version_is_told_what_to_do_and_a_stranger_what_is_missing() {
        let error = Event::parse(json!({"version": 2, "whatever": 1}))
            .expect_err("version 2 is not ours")
            .to_string();
        assert!(
            error.contains("got version 2") && error.contains("lswitch function update"),
            "{error}"
        );
        let error = Event::parse(json!({"key1": "value1"}))
            .expect_err("a test event of the console")
            .to_string();
        assert!(
            error.contains("it has no version") && error.contains("lswitch invoke"),
            "{error}"
        );
        let error = Event::parse(json!({"version": 1}))
            .expect_err("nothing else is there")
            .to_string();
        assert!(error.contains("missing field"), "{error}");
    }
}
