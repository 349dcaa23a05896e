//! Making the events that start packs of one job, and the proofs in them.

use crate::job::driver::SwitchAccess;
use crate::lambda::event::{Event, EventToken, OtherPack, Others, VERSION};
use crate::net::message::Span;
use crate::net::token::{Bearer, JobId, JobKey, Token};
use crate::random::to_hex;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};

/// How long a token is good: Lambda's longest invocation and a minute.
const TOKEN_LIFE_S: u64 = 16 * 60;

/// That of the first start of a pack; where every start has a rank of its own there is no other.
const INCARNATION: u32 = 1;

/// How long all ranks get to join: 30 s and 10 s for each thousand workers, since Lambda starts a thousand in ten seconds.
pub fn join_within(packs: u32) -> Duration {
    Duration::from_secs(30 + 10 * u64::from(packs / 1000))
}

/// The most packs that an event names for its pack to start.
const OTHERS_MAX: u32 = 500;

/// How many workers each starts if so many are started in so many levels, and the event of none names too many others.
pub(crate) fn fan_out(workers: u32, levels: u32) -> u32 {
    if levels <= 1 {
        return workers;
    }
    let even = f64::from(workers).powf(1.0 / f64::from(levels)).ceil() as u32;
    even.max(workers.div_ceil(OTHERS_MAX))
}

/// What all packs of a job are told alike.
pub(crate) struct Starter {
    job: JobId,
    key: JobKey,
    switches: Vec<String>,
    pub(crate) program: String,
    pub(crate) arguments: Value,
    pub(crate) store: String,
    pub(crate) size: u32,
    pub(crate) join_within: Duration,
    /// Further fields of the events.
    pub(crate) more: Map<String, Value>,
}

impl Starter {
    /// A new job of up to `size` ranks, of which about `packs` packs are started at once.
    pub(crate) fn new(
        job: JobId,
        switch: &SwitchAccess,
        (program, arguments): (&str, &Value),
        store: &str,
        size: u32,
        packs: u32,
    ) -> Starter {
        Starter {
            job,
            key: switch.secret.job_key(job),
            switches: switch.addresses.iter().map(ToString::to_string).collect(),
            program: program.into(),
            arguments: arguments.clone(),
            store: store.into(),
            size,
            join_within: join_within(packs),
            more: Map::new(),
        }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    /// The driver's proof.
    pub(crate) fn driver_token(&self) -> Token {
        self.key.token(Bearer::Driver, expiry_s())
    }

    /// Events that start workers with these ranks: one for each of the first, which start the others, so many at most each.
    pub(crate) fn events(
        &self,
        packs: impl Iterator<Item = Span>,
        function: &str,
        fan_out: u32,
    ) -> Vec<Event> {
        let packs = packs.map(|span| OtherPack {
            first_rank: span.first_rank,
            ranks: span.ranks,
            token: self.token(span, INCARNATION),
        });
        let root = Event {
            start: Some(Others {
                function: function.into(),
                fan_out,
                among: 1,
                packs: packs.collect(),
            }),
            ..self.start(Span::one(0), INCARNATION)
        };
        root.others()
    }

    fn token(&self, span: Span, incarnation: u32) -> EventToken {
        let bearer = Bearer::Pack {
            first_rank: span.first_rank,
            ranks: span.ranks,
            incarnation,
        };
        let token = self.key.token(bearer, expiry_s());
        EventToken {
            expiry_s: token.expiry_s,
            code: to_hex(&token.code),
        }
    }

    /// The event of the so many-th start of a pack of these ranks, counted from 1.
    pub(crate) fn start(&self, span: Span, incarnation: u32) -> Event {
        Event {
            version: VERSION,
            release: crate::RELEASE.into(),
            job: self.job.to_string(),
            switches: self.switches.clone(),
            token: self.token(span, incarnation),
            first_rank: span.first_rank,
            ranks: span.ranks,
            size: self.size,
            epoch: 0,
            incarnation,
            join_within_s: self.join_within.as_secs(),
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            store: self.store.clone(),
            event: Value::Null,
            start: None,
            more: self.more.clone(),
        }
    }
}

fn expiry_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |elapsed| elapsed.as_secs()) + TOKEN_LIFE_S
}
