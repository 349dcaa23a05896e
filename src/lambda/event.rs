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
    /// The switches, `HOST:PORT` or `HOST:PORT#SHA256` each.
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
    /// Further packs, which this one starts before it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Others>,
    /// Further fields, for handlers that look for them at the top; none is one of the above.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Packs that a pack starts, so that many start in few steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Others {
    /// The function that runs them.
    pub function: String,
    /// How many of them it starts itself, at most; each of those starts an equal share of the others.
    pub fan_out: u32,
    /// How many packs start others at the same time as this one, itself included: it has as small a part of Lambda's rate.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub among: u32,
    /// They.
    pub packs: Vec<OtherPack>,
}

/// A pack that another one starts; everything else is as in the event of that one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OtherPack {
    /// Its lowest rank.
    pub first_rank: u32,
    /// How many ranks it has.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ranks: u32,
    /// The proof for this start of it.
    pub token: EventToken,
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
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
const FIELDS: [&str; 16] = [
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
    "start",
];

impl Event {
    /// Those of some fields that do not stand in the way of an event's own.
    pub fn without_own(mut fields: Map<String, Value>) -> Map<String, Value> {
        fields.retain(|name, _| !FIELDS.contains(&&name[..]));
        fields
    }

    /// The events of packs that a pack starts itself; the others' are in them.
    pub fn others(&self) -> Vec<Event> {
        let Some(others) = &self.start else {
            return Vec::new();
        };
        let among = others.among.saturating_mul(others.fan_out.max(1));
        let events = deal(&others.packs, others.fan_out).map(|packs| Event {
            first_rank: packs[0].first_rank,
            ranks: packs[0].ranks,
            token: packs[0].token.clone(),
            start: (packs.len() > 1).then(|| Others {
                function: others.function.clone(),
                fan_out: others.fan_out,
                among,
                packs: packs[1..].to_vec(),
            }),
            ..self.clone()
        });
        events.collect()
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

/// Cuts into so many runs at most, of which none is more than one longer than another, and none is empty.
pub fn deal<T>(all: &[T], runs: u32) -> impl Iterator<Item = &[T]> {
    let runs = all.len().min(runs.max(1) as usize);
    let bound = move |run: usize| run * all.len() / runs;
    (0..runs).map(move |run| &all[bound(run)..bound(run + 1)])
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

    #[test]
    fn packs_that_start_others_start_each_of_them_once() {
        let token = |rank: u32| EventToken {
            expiry_s: rank.into(),
            code: String::new(),
        };
        for (count, fan_out) in [(0, 3), (1, 3), (3, 3), (4, 3), (100, 4), (1000, 10), (7, 0)] {
            let root = Event {
                version: VERSION,
                release: String::new(),
                job: String::new(),
                switches: Vec::new(),
                token: token(0),
                first_rank: 0,
                ranks: 1,
                size: 1 << 20,
                epoch: 0,
                incarnation: 1,
                join_within_s: 30,
                program: String::new(),
                arguments: Value::Null,
                store: String::new(),
                event: Value::Null,
                start: Some(Others {
                    function: "f".into(),
                    fan_out,
                    among: 1,
                    packs: (1..=count)
                        .map(|rank| OtherPack {
                            first_rank: rank,
                            ranks: 1,
                            token: token(rank),
                        })
                        .collect(),
                }),
                more: Map::new(),
            };
            let mut found = Vec::new();
            let (mut level, mut levels) = (vec![root], 0);
            while !level.is_empty() {
                let mut next = Vec::new();
                for event in &level {
                    assert_eq!(event.token, token(event.first_rank));
                    let others = event.others();
                    assert!(others.len() <= fan_out.max(1) as usize);
                    found.extend(others.iter().map(|other| other.first_rank));
                    next.extend(others);
                }
                level = next;
                levels += 1;
                assert!(levels <= 12);
            }
            found.sort_unstable();
            assert!(found.into_iter().eq(1..=count), "{count} of {fan_out}");
        }
        assert_eq!(
            deal(&[1, 2, 3, 4, 5], 2).collect::<Vec<_>>(),
            [&[1, 2][..], &[3, 4, 5]]
        );
    }
}
