//! What control frames mean: the bodies that are encoded with [`codec`], and how they become frames.
//!
//! One type a kind. Data, heartbeats and collectives carry raw bytes and are not here.

use crate::net::codec::{self, CONTROL_MAX, HELLO_MAX};
use crate::net::frame::{DRIVER, Frame, FrameError, Header, PROTOCOL, RANKS_MAX, SWITCH, kind};
use crate::net::token::{Bearer, JobId, Nonce, Proof, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;
use thiserror::Error;

/// The longest reason that travels in a control message, in bytes; longer ones are cut.
pub const REASON_MAX: usize = 16 * 1024;

/// A run of ranks that share one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The lowest rank.
    pub first_rank: u32,
    /// How many ranks, at least one.
    pub ranks: u32,
}

impl Span {
    /// One rank.
    pub fn one(rank: u32) -> Span {
        Span {
            first_rank: rank,
            ranks: 1,
        }
    }

    /// One past the highest rank, saturating.
    pub fn end(&self) -> u32 {
        self.first_rank.saturating_add(self.ranks)
    }

    /// The place of one of these ranks among them.
    pub fn place(&self, rank: u32) -> usize {
        (rank - self.first_rank) as usize
    }

    /// True if the rank is in it.
    pub fn contains(&self, rank: u32) -> bool {
        (self.first_rank..self.end()).contains(&rank)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.ranks {
            // A peer may claim this; it is refused in words.
            0 => write!(f, "no ranks at {}", self.first_rank),
            1 => write!(f, "rank {}", self.first_rank),
            _ => write!(f, "ranks {}-{}", self.first_rank, self.end() - 1),
        }
    }
}

/// The feature of packs whose ranks check CRC-32 faster than CRC32C: messages to them carry it.
pub const FEATURE_CRC32: u32 = 1;

/// The features of members that this build knows, which the others are told.
pub const FEATURES: u64 = FEATURE_CRC32 as u64;

/// The feature of clients that want a switch to prove itself: the hello ends with a nonce, and the welcome with a proof. It is a
/// matter of the one connection.
pub const FEATURE_PROOF: u64 = 2;

/// Where the features are in the bodies of a hello and of a welcome, in bytes.
const HELLO_FEATURES_AT: usize = 4;
const WELCOME_FEATURES_AT: usize = 2;

/// As what a client connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The driver, which creates a job.
    Driver {
        /// The job's size in ranks; of an elastic job, how many may ever join.
        size: u32,
        /// Bytes of messages for the driver that may wait at it; the packs of a fixed job share them, each of an elastic
        /// job has as many.
        mailbox: u32,
        /// The job begins with its first pack, and takes others in as long as it lives.
        elastic: bool,
    },
    /// One start of a pack.
    Pack {
        /// Its ranks.
        span: Span,
        /// The number of this start; a higher one takes the place of a lower.
        incarnation: u32,
        /// The epoch that it believes the job to be in.
        epoch: u32,
        /// Bytes of messages for each of its ranks that may wait at it; the packs of the job share them.
        mailbox: u32,
    },
}

/// The first message on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest and the highest protocol version that the client speaks.
    pub protocols: (u16, u16),
    /// Optional features that it asks for, one bit each.
    pub features: u64,
    /// The release of its lswitch.
    pub release: String,
    /// The job.
    pub job: JobId,
    /// Its proof; beside a nonce, sealed with it.
    pub token: Token,
    /// As what it connects.
    pub role: Role,
    /// What the switch must prove itself with, if [`FEATURE_PROOF`] is among the features.
    #[serde(skip)]
    pub nonce: Option<Nonce>,
}

impl Hello {
    /// A hello of this build.
    pub fn new(job: JobId, token: Token, role: Role) -> Hello {
        Hello {
            protocols: (PROTOCOL, PROTOCOL),
            features: 0,
            release: crate::RELEASE.into(),
            job,
            token,
            role,
            nonce: None,
        }
    }

    /// The same, which asks the switch for a proof and does not show it the token.
    pub fn challenging(&self, nonce: Nonce) -> Hello {
        Hello {
            features: self.features | FEATURE_PROOF,
            token: self.token.sealed(&nonce),
            nonce: Some(nonce),
            ..self.clone()
        }
    }

    /// The lowest and the highest protocol version of a hello whose other fields may be of another protocol: the first
    /// four bytes are the same in every version, so that both sides can name what the other speaks.
    pub fn protocols_in(body: &[u8]) -> Option<(u16, u16)> {
        let [a, b, c, d] = *body.first_chunk()?;
        Some((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
    }

    /// For whom its token must have been made.
    pub fn bearer(&self) -> Bearer {
        match self.role {
            Role::Driver { .. } => Bearer::Driver,
            Role::Pack {
                span, incarnation, ..
            } => Bearer::Pack {
                first_rank: span.first_rank,
                ranks: span.ranks,
                incarnation,
            },
        }
    }
}

/// The switch accepted the hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version that is spoken from here on.
    pub protocol: u16,
    /// Those of them that the switch knows.
    pub features: u64,
    /// How often the client must give a sign of life, in milliseconds.
    pub heartbeat_ms: u32,
    /// The silence after which either side takes the other for lost, in milliseconds.
    pub lost_after_ms: u32,
    /// That the switch knows the client's token, if [`FEATURE_PROOF`] is among the features.
    #[serde(skip)]
    pub proof: Option<Proof>,
}

/// Why the switch refuses a connection. The numbers are the protocol's error codes, in this order from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The bytes are not of this protocol, or break it.
    Protocol,
    /// No protocol version in common, or another release than the job's.
    Version,
    /// The token is wrong or has expired.
    Token,
    /// The switch does not know the job: it has ended or was never created.
    UnknownJob,
    /// The job exists already.
    JobExists,
    /// The ranks are not in the job, or another pack has them in part.
    Ranks,
    /// The same or a later start of this pack has joined.
    Incarnation,
    /// The pack is of another epoch.
    Epoch,
    /// The job has begun and takes nobody in; a rank of an elastic job has been used.
    Begun,
    /// Too many connections, jobs or ranks.
    Full,
    /// The client was silent for too long.
    Silent,
    /// The switch is going down.
    Closing,
}

/// A connection is refused; it ends after this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which kind of refusal.
    pub code: Refusal,
    /// What was wrong and what to do, for people.
    pub reason: String,
}

/// The program may begin: all ranks of a fixed job are there, or this pack of an elastic one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// All packs, by rising rank; those in a row that are alike are named once, since every pack is told. Of an elastic job
    /// none: its packs do not know each other.
    pub packs: Vec<Alike>,
    /// Bytes of messages for the driver that may wait at it; of an elastic job, from this pack.
    pub driver_mailbox: u32,
    /// The longest piece of a collective's vector, in bytes; of an elastic job, which has none, 0.
    pub segment: u32,
}

/// A pack, as the others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its ranks.
    pub span: Span,
    /// Bytes of messages for each of its ranks that may wait there.
    pub mailbox: u32,
    /// What it asked for, and its switch knows.
    pub features: u32,
}

/// A row of packs that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// How many packs.
    pub packs: u32,
    /// Ranks of each.
    pub ranks: u32,
    /// Bytes of messages for each rank that may wait there.
    pub mailbox: u32,
    /// See [`Peer::features`].
    pub features: u32,
}

impl Start {
    /// The packs one by one.
    ///
    /// # Errors
    /// When they are more than a job may have.
    pub fn each(&self) -> Result<Vec<Peer>, MessageError> {
        let mut packs = Vec::new();
        let mut first_rank = 0u32;
        for alike in &self.packs {
            let ranks = u64::from(alike.packs) * u64::from(alike.ranks);
            if alike.ranks == 0 || u64::from(first_rank) + ranks > u64::from(RANKS_MAX) {
                return Err(MessageError::Start);
            }
            for _ in 0..alike.packs {
                let span = Span {
                    first_rank,
                    ranks: alike.ranks,
                };
                packs.push(Peer {
                    span,
                    mailbox: alike.mailbox,
                    features: alike.features,
                });
                first_rank = span.end();
            }
        }
        Ok(packs)
    }
}

impl FromIterator<Peer> for Start {
    /// From packs by rising rank.
    fn from_iter<T: IntoIterator<Item = Peer>>(packs: T) -> Start {
        let mut rows: Vec<Alike> = Vec::new();
        for Peer {
            span,
            mailbox,
            features,
        } in packs
        {
            let alike = Alike {
                packs: 1,
                ranks: span.ranks,
                mailbox,
                features,
            };
            match rows.last_mut() {
                Some(last) if (Alike { packs: 1, ..*last }) == alike => last.packs += 1,
                _ => rows.push(alike),
            }
        }
        Start {
            packs: rows,
            driver_mailbox: 0,
            segment: 0,
        }
    }
}

/// A client wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Why its program failed, if it did.
    pub failure: Option<String>,
}

/// The job ended before its time; the connection ends after this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: String,
}

/// News of the job for its driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A pack joined.
    Joined {
        /// Its ranks.
        span: Span,
        /// The number of its start.
        incarnation: u32,
        /// Bytes of messages for each of its ranks that may wait there.
        mailbox: u32,
        /// See [`Peer::features`].
        features: u32,
    },
    /// All ranks of a fixed job, or the first of an elastic one, are there and were told so.
    Started,
    /// A pack left, done or failed.
    Left {
        /// Its ranks.
        span: Span,
        /// Why its program failed, if it did.
        failure: Option<String>,
    },
    /// A pack's connection ended without a word, or was silent for too long.
    Lost {
        /// Its ranks.
        span: Span,
        /// How it was noticed.
        reason: String,
    },
    /// What passed through the switch so far; sent in answer to each heartbeat of the driver.
    Traffic(Traffic),
}

/// What of a job has passed through a switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Messages that ranks sent, to each other or to the driver.
    pub messages: u64,
    /// Bytes of their payload, and of contributions to collectives.
    pub bytes: u64,
    /// Processor time that the switch used since its start, for all jobs, in microseconds.
    pub switch_cpu_us: u64,
}

/// The driver ends the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Why; every member is told.
    pub reason: String,
}

/// A control frame whose body is not what its kind says.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The frame itself is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A start names more ranks than a job may have.
    #[error("a start names packs without ranks, or more than {RANKS_MAX} ranks")]
    Start,
    /// The body does not decode.
    #[error("the body of a {name} message does not decode: {source}")]
    Body {
        /// The message's name.
        name: &'static str,
        /// What bincode says.
        source: bincode::error::DecodeError,
    },
}

/// A control message: its kind, its name for errors, and the limit on its size.
pub trait Control: Serialize + DeserializeOwned {
    /// One of [`kind`].
    const KIND: u8;
    /// For errors.
    const NAME: &'static str;

    /// The message in a frame from the switch to a client, or from a client to the switch: both are addressed by the
    /// connection, so source and destination only say the direction.
    fn to_frame(&self, from_switch: bool) -> Frame {
        let body = codec::encode::<CONTROL_MAX>(self)
            .expect("control messages are bounded where they are made");
        control_frame(Self::KIND, body.into(), from_switch)
    }

    /// Reads the message from a frame's body.
    ///
    /// # Errors
    /// When the body is not one.
    fn from_body(body: &[u8]) -> Result<Self, MessageError> {
        decode::<Self, CONTROL_MAX>(body)
    }
}

fn decode<T: Control, const LIMIT: usize>(body: &[u8]) -> Result<T, MessageError> {
    codec::decode::<T, LIMIT>(body).map_err(|source| MessageError::Body {
        name: T::NAME,
        source,
    })
}

impl Control for Hello {
    const KIND: u8 = kind::HELLO;
    const NAME: &'static str = "hello";

    fn to_frame(&self, from_switch: bool) -> Frame {
        frame_with_tail(self, self.nonce, from_switch)
    }

    fn from_body(body: &[u8]) -> Result<Hello, MessageError> {
        let (body, nonce) = split_tail(body, HELLO_FEATURES_AT);
        let hello = decode::<Hello, HELLO_MAX>(body)?;
        Ok(Hello { nonce, ..hello })
    }
}

impl Control for Welcome {
    const KIND: u8 = kind::WELCOME;
    const NAME: &'static str = "welcome";

    fn to_frame(&self, from_switch: bool) -> Frame {
        frame_with_tail(self, self.proof, from_switch)
    }

    fn from_body(body: &[u8]) -> Result<Welcome, MessageError> {
        let (body, proof) = split_tail(body, WELCOME_FEATURES_AT);
        let welcome = decode::<Welcome, CONTROL_MAX>(body)?;
        Ok(Welcome { proof, ..welcome })
    }
}

/// A message whose features decide whether 32 bytes follow its other fields.
fn frame_with_tail<T: Control>(message: &T, tail: Option<[u8; 32]>, from_switch: bool) -> Frame {
    let mut body = codec::encode::<CONTROL_MAX>(message)
        .expect("control messages are bounded where they are made");
    body.extend(tail.into_iter().flatten());
    control_frame(T::KIND, body.into(), from_switch)
}

/// The body of such a message, and what follows it. Where that is missing there is no body, which is too short for its fields.
fn split_tail(body: &[u8], features_at: usize) -> (&[u8], Option<[u8; 32]>) {
    let features = body.get(features_at..).and_then(<[u8]>::first_chunk::<8>);
    match features.map(|bytes| u64::from_le_bytes(*bytes)) {
        Some(features) if features & FEATURE_PROOF != 0 => body
            .split_last_chunk::<32>()
            .map(|(body, tail)| (body, Some(*tail)))
            .unwrap_or_default(),
        _ => (body, None),
    }
}

macro_rules! control {
    ($($type:ident = $kind:ident, $name:literal;)*) => {$(
        impl Control for $type {
            const KIND: u8 = kind::$kind;
            const NAME: &'static str = $name;
        }
    )*};
}

control! {
    Refused = REFUSED, "refused";
    Start = START, "start";
    Leave = LEAVE, "leave";
    End = END, "end";
    Notice = NOTICE, "notice";
    Abort = ABORT, "abort";
}

/// Cuts a reason to what may travel, at a character's edge.
pub fn cut_reason(mut reason: String) -> String {
    if reason.len() > REASON_MAX {
        let mut end = REASON_MAX - 4;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push_str(" ...");
    }
    reason
}

/// A frame without a body: heartbeats and the answer to a leave.
pub fn bare_frame(kind: u8, from_switch: bool) -> Frame {
    control_frame(kind, Bytes::new(), from_switch)
}

fn control_frame(kind: u8, body: Bytes, from_switch: bool) -> Frame {
    let (source, destination) = if from_switch {
        (SWITCH, DRIVER)
    } else {
        (DRIVER, SWITCH)
    };
    let header = Header {
        kind,
        source,
        destination,
        ..Header::default()
    };
    Frame::new(header, body)
}
