//! The switch's decisions, without a socket: frames and the time in, actions out.

use bytes::{BufMut, Bytes, BytesMut};
use lswitch::net::LOST_AFTER_MS;
use lswitch::net::collective::{Exchange, Operation, Part};
use lswitch::net::egress::{Action, ConnectionId};
use lswitch::net::element::{Element, Fold, Value};
use lswitch::net::frame::{
    BODY_MAX, CHUNK_MAX, DRIVER, FLAG_FIRST, FLAG_LAST, Frame, Header, PREAMBLE, RANKS_MAX, SWITCH,
    TOTAL_LEN, chunks, kind,
};
use lswitch::net::message::{
    Abort, Control, End, FEATURE_PROOF, Hello, Leave, Notice, Refusal, Refused, Role, Span, Start,
    Traffic, Welcome, bare_frame,
};
use lswitch::net::reassembly::Reassembly;
use lswitch::net::switch::{HELLO_WITHIN_MS, Now, Switch, Taken};
use lswitch::net::token::{Bearer, JobId, Secret};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

const UNIX_S: u64 = 1_000_000;
const EXPIRY_S: u64 = UNIX_S + 60;

/// What the switch may hold, and each rank's mailbox, in bytes.
const MEMORY: usize = 64 << 20;
const MAILBOX: u32 = 1 << 20;

const RED: JobId = JobId([1; 16]);
const BLUE: JobId = JobId([2; 16]);

/// A switch with a clock that only tests move.
struct Bench {
    switch: Switch,
    secret: Secret,
    now: Now,
    connections: ConnectionId,
}

/// What came out, in the words of the protocol.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Welcome,
    Refused(Refusal, String),
    Start(Vec<Span>),
    Heartbeat,
    Left,
    End(String),
    Notice(Notice),
    Data(Frame),
    /// An announcement, a grant or a credit.
    Flow(Frame),
    Combined {
        destination: u32,
        call: u64,
        body: Bytes,
    },
    Closed,
}

fn span(first_rank: u32, ranks: u32) -> Span {
    Span { first_rank, ranks }
}

impl Bench {
    fn new() -> Bench {
        Bench {
            switch: Switch::new(secret(), MEMORY),
            secret: secret(),
            now: Now {
                ms: 0,
                busy_ms: 0,
                unix_s: UNIX_S,
            },
            connections: 0,
        }
    }

    fn connect(&mut self) -> ConnectionId {
        self.connections += 1;
        self.switch.connected(self.connections, self.now);
        assert_eq!(self.feed(self.connections, PREAMBLE), []);
        self.connections
    }

    /// What whole frames, or the preamble, cause.
    fn feed(&mut self, from: ConnectionId, bytes: &[u8]) -> Vec<(ConnectionId, Said)> {
        let mut actions = Vec::new();
        let taken = self.switch.received(from, bytes, self.now, &mut actions);
        assert_eq!(taken.bytes, bytes.len(), "nothing is left");
        said(actions)
    }

    /// What bytes cause that come in pieces, of which a shell keeps what the switch does not take.
    fn trickle<'a>(
        &mut self,
        from: ConnectionId,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<(ConnectionId, Said)> {
        let mut actions = Vec::new();
        let mut kept = Vec::new();
        for piece in pieces {
            kept.extend_from_slice(piece);
            let Taken { bytes, needed } = self.switch.received(from, &kept, self.now, &mut actions);
            kept.drain(..bytes);
            assert!(
                kept.is_empty() || needed > kept.len(),
                "{needed} bytes are needed where {} are there",
                kept.len()
            );
        }
        assert!(kept.is_empty(), "nothing is left");
        said(actions)
    }

    /// Everything that one frame causes. It passes through bytes on the way in and out, as on a socket.
    fn send(&mut self, from: ConnectionId, frame: Frame) -> Vec<(ConnectionId, Said)> {
        self.feed(from, &bytes_of(&frame))
    }

    fn act(
        &mut self,
        act: impl FnOnce(&mut Switch, Now, &mut Vec<Action>),
    ) -> Vec<(ConnectionId, Said)> {
        let mut actions = Vec::new();
        act(&mut self.switch, self.now, &mut actions);
        said(actions)
    }

    fn tick_after(&mut self, ms: u64) -> Vec<(ConnectionId, Said)> {
        self.now.ms += ms;
        self.act(|switch, now, actions| switch.tick(now, actions))
    }

    fn hello(&self, job: JobId, role: Role) -> Hello {
        let mut hello = Hello::new(job, self.secret.job_key(job).token(Bearer::Driver, 0), role);
        hello.token = self.secret.job_key(job).token(hello.bearer(), EXPIRY_S);
        hello
    }

    /// A new connection says this hello.
    fn greet(&mut self, hello: &Hello) -> (ConnectionId, Vec<(ConnectionId, Said)>) {
        let id = self.connect();
        (id, self.send(id, hello.to_frame(false)))
    }

    fn create(&mut self, job: JobId, size: u32) -> ConnectionId {
        let (id, said) = self.greet(&self.hello(
            job,
            Role::Driver {
                size,
                mailbox: MAILBOX,
                elastic: false,
            },
        ));
        assert_eq!(said, [(id, Said::Welcome)]);
        id
    }

    fn join(
        &mut self,
        job: JobId,
        span: Span,
        incarnation: u32,
    ) -> (ConnectionId, Vec<(ConnectionId, Said)>) {
        self.greet(&self.hello(
            job,
            Role::Pack {
                span,
                incarnation,
                epoch: 0,
                mailbox: MAILBOX,
            },
        ))
    }

    /// A job of packs of one rank that has begun: the driver and the packs.
    fn begun(&mut self, job: JobId, size: u32) -> (ConnectionId, Vec<ConnectionId>) {
        let driver = self.create(job, size);
        let packs = (0..size)
            .map(|rank| self.join(job, span(rank, 1), 1).0)
            .collect();
        (driver, packs)
    }

    /// The one refusal of a hello, which must be all that is said to the client, and close its connection.
    fn refusal(&mut self, hello: &Hello) -> (Refusal, String) {
        let (id, said) = self.greet(hello);
        refusal_of(id, said)
    }
}

fn secret() -> Secret {
    Secret::new("a secret for the tests of the switch").expect("long enough")
}

fn bytes_of(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.put(&mut bytes);
    bytes
}

fn recoded(frame: &Frame) -> Frame {
    let mut bytes = bytes_of(frame);
    let decoded = Frame::decode(&mut bytes, BODY_MAX).expect("the frame is one of ours");
    decoded.expect("the frame is whole")
}

fn said(actions: Vec<Action>) -> Vec<(ConnectionId, Said)> {
    let said = |action| match action {
        Action::Close(id) => (id, Said::Closed),
        Action::Send(id, frame) => (id, said_by(recoded(&frame))),
    };
    actions.into_iter().map(said).collect()
}

fn said_by(frame: Frame) -> Said {
    let Header {
        kind,
        destination,
        sequence,
        ..
    } = frame.header;
    let body = &frame.body;
    const DECODES: &str = "what the switch sends decodes";
    match kind {
        kind::WELCOME => {
            let welcome = Welcome::from_body(body).expect(DECODES);
            assert_eq!(u64::from(welcome.lost_after_ms), LOST_AFTER_MS);
            Said::Welcome
        }
        kind::REFUSED => {
            let Refused { code, reason } = Refused::from_body(body).expect(DECODES);
            Said::Refused(code, reason)
        }
        kind::START => {
            let packs = Start::from_body(body).expect(DECODES).each();
            let packs = packs.expect("the ranks are within the limits").into_iter();
            Said::Start(packs.map(|peer| peer.span).collect())
        }
        kind::HEARTBEAT => Said::Heartbeat,
        kind::LEFT => Said::Left,
        kind::END => Said::End(End::from_body(body).expect(DECODES).reason),
        kind::NOTICE => Said::Notice(Notice::from_body(body).expect(DECODES)),
        kind::DATA => Said::Data(frame),
        kind::ANNOUNCE | kind::GRANT | kind::CREDIT => Said::Flow(frame),
        kind::COMBINED => Said::Combined {
            destination,
            call: sequence,
            body: frame.body,
        },
        other => panic!("the switch sent a frame of kind {other:#04x}"),
    }
}

fn refusal_of(id: ConnectionId, said: Vec<(ConnectionId, Said)>) -> (Refusal, String) {
    match &said[..] {
        [
            (to, Said::Refused(code, reason)),
            (closed, Said::Closed),
            ..,
        ] if (*to, *closed) == (id, id) => (*code, reason.clone()),
        other => panic!("{other:?} is no refusal of connection {id}"),
    }
}

fn data(source: u32, destination: u32, sequence: u64, payload: &[u8]) -> Frame {
    let route = Header {
        tag: 7,
        source,
        destination,
        sequence,
        ..Header::default()
    };
    let message = Bytes::copy_from_slice(payload);
    let frame = chunks(route, &message).next();
    frame.expect("a message has a chunk")
}

/// The sum of i128, which all packs get.
fn sum() -> u32 {
    Operation::Fold(Fold::Sum, Element::I128).code()
}

/// The body of a contribution to a sum, or of its answer.
fn encode(values: &[i128]) -> Bytes {
    let data = &*i128::le_bytes(values);
    let part = Part {
        operation: sum(),
        root: None,
        shape: 0,
        total: data.len() as u64,
        data,
    };
    [&part.prefix()[..], data].concat().into()
}

fn contribution(source: u32, call: u64, values: &[i128]) -> Frame {
    let header = Header {
        kind: kind::CONTRIBUTE,
        tag: sum(),
        source,
        destination: SWITCH,
        sequence: call,
        ..Header::default()
    };
    Frame::new(header, encode(values))
}

fn leave(failure: Option<&str>) -> Frame {
    let failure = failure.map(str::to_owned);
    Leave { failure }.to_frame(false)
}

#[test]
fn a_job_starts_when_its_last_rank_joins_in_whatever_order() {
    let mut bench = Bench::new();
    let driver = bench.create(RED, 4);
    let joined = |first, ranks| {
        Said::Notice(Notice::Joined {
            span: span(first, ranks),
            incarnation: 1,
            mailbox: MAILBOX,
            features: 0,
        })
    };
    let (high, said) = bench.join(RED, span(3, 1), 1);
    assert_eq!(said, [(driver, joined(3, 1)), (high, Said::Welcome)]);
    let (low, said) = bench.join(RED, span(0, 1), 1);
    assert_eq!(said, [(driver, joined(0, 1)), (low, Said::Welcome)]);
    let (middle, said) = bench.join(RED, span(1, 2), 1);
    let start = Said::Start(vec![span(0, 1), span(1, 2), span(3, 1)]);
    assert_eq!(
        said,
        [
            (driver, joined(1, 2)),
            (middle, Said::Welcome),
            (low, start.clone()),
            (middle, start.clone()),
            (high, start),
            (driver, Said::Notice(Notice::Started)),
        ]
    );
}

#[test]
fn messages_go_to_the_pack_of_the_rank_and_to_the_driver() {
    let mut bench = Bench::new();
    let driver = bench.create(RED, 3);
    let (low, _) = bench.join(RED, span(0, 2), 1);
    let (high, _) = bench.join(RED, span(2, 1), 1);
    for (source, from, destination, to) in [
        (0, low, 2, high),
        (1, low, 2, high),
        (2, high, 1, low),
        (2, high, 2, high),
        (0, low, DRIVER, driver),
    ] {
        let frame = data(source, destination, 0, b"payload");
        assert_eq!(bench.send(from, frame.clone()), [(to, Said::Data(frame))]);
    }
    let frame = data(DRIVER, 1, 0, b"from the driver");
    assert_eq!(
        bench.send(driver, frame.clone()),
        [(low, Said::Data(frame))]
    );
}

#[test]
fn the_driver_is_told_the_traffic_in_messages_and_bytes_of_payload() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 2);
    let long = Bytes::from(vec![0; CHUNK_MAX + 5]);
    let route = Header {
        source: 0,
        destination: 1,
        ..Header::default()
    };
    for frame in chunks(route, &long) {
        bench.send(packs[0], frame);
    }
    bench.send(packs[1], data(1, DRIVER, 0, b"abc"));
    bench.send(packs[1], contribution(1, 0, &[4]));
    let traffic = Notice::Traffic(Traffic {
        messages: 2,
        bytes: (CHUNK_MAX + 5 + 3 + 16) as u64,
        switch_cpu_us: 0,
    });
    assert_eq!(
        bench.send(driver, bare_frame(kind::HEARTBEAT, false)),
        [(driver, Said::Notice(traffic))]
    );
}

#[test]
fn a_token_that_is_not_for_this_bearer_this_job_and_this_time_is_refused() {
    let mut bench = Bench::new();
    bench.create(RED, 8);
    let role = |first, ranks, incarnation| Role::Pack {
        span: span(first, ranks),
        incarnation,
        epoch: 0,
        mailbox: MAILBOX,
    };
    let genuine = bench.hello(RED, role(2, 2, 1));
    let stranger = Secret::random().job_key(RED);
    let mut flipped = genuine.token;
    flipped.code[31] ^= 1;
    let mut later = genuine.token;
    later.expiry_s += 1;
    let tokens = [
        (
            "another secret's",
            stranger.token(genuine.bearer(), EXPIRY_S),
        ),
        ("a flipped bit's", flipped),
        ("a stretched expiry's", later),
        ("another job's", bench.hello(BLUE, role(2, 2, 1)).token),
        ("another rank's", bench.hello(RED, role(3, 2, 1)).token),
        ("a bigger pack's", bench.hello(RED, role(2, 3, 1)).token),
        ("another start's", bench.hello(RED, role(2, 2, 2)).token),
        (
            "the driver's",
            bench
                .hello(
                    RED,
                    Role::Driver {
                        size: 8,
                        mailbox: MAILBOX,
                        elastic: false,
                    },
                )
                .token,
        ),
    ];
    for (whose, token) in tokens {
        let hello = Hello {
            token,
            ..genuine.clone()
        };
        let (code, reason) = bench.refusal(&hello);
        assert_eq!(code, Refusal::Token, "{whose}");
        assert!(reason.contains("wrong or has expired"), "{whose}: {reason}");
    }
    bench.now.unix_s = EXPIRY_S + 1;
    assert_eq!(bench.refusal(&genuine).0, Refusal::Token, "expired");
    bench.now.unix_s = EXPIRY_S;
    let (id, said) = bench.greet(&genuine);
    assert!(said.contains(&(id, Said::Welcome)), "in its last second");
}

#[test]
fn a_switch_that_is_asked_proves_that_it_knows_the_token_and_is_not_shown_it() {
    let mut bench = Bench::new();
    let role = Role::Driver {
        size: 8,
        mailbox: MAILBOX,
        elastic: false,
    };
    let (genuine, nonce) = (bench.hello(RED, role), [7; 32]);
    let asking = genuine.challenging(nonce);
    let unsealed = Hello {
        token: genuine.token,
        ..asking.clone()
    };
    let of_another_nonce = Hello {
        nonce: Some([8; 32]),
        ..asking.clone()
    };
    let unasked = Hello {
        token: asking.token,
        ..genuine.clone()
    };
    for hello in [unsealed, of_another_nonce, unasked] {
        assert_eq!(bench.refusal(&hello).0, Refusal::Token, "{hello:?}");
    }
    let id = bench.connect();
    let mut actions = Vec::new();
    let bytes = bytes_of(&asking.to_frame(false));
    bench.switch.received(id, &bytes, bench.now, &mut actions);
    let [Action::Send(to, frame)] = &actions[..] else {
        panic!("one welcome and nothing else");
    };
    let welcome = Welcome::from_body(&frame.body).expect("it is one");
    assert_eq!((*to, welcome.features), (id, FEATURE_PROOF));
    let proof = welcome.proof.expect("it was asked for");
    assert!(genuine.token.is_proved_by(&proof, &nonce));
    assert!(!genuine.token.is_proved_by(&proof, &[8; 32]));
}

#[test]
fn each_hello_that_cannot_be_served_is_told_why() {
    let mut bench = Bench::new();
    let driver = bench.create(RED, 8);
    let (old, _) = bench.join(RED, span(2, 2), 5);
    let pack = |first, ranks, incarnation, epoch| Role::Pack {
        span: span(first, ranks),
        incarnation,
        epoch,
        mailbox: MAILBOX,
    };
    let cases = [
        (
            BLUE,
            pack(0, 1, 1, 0),
            Refusal::UnknownJob,
            "is not known to this switch",
        ),
        (
            RED,
            Role::Driver {
                size: 8,
                mailbox: MAILBOX,
                elastic: false,
            },
            Refusal::JobExists,
            "exists already",
        ),
        (
            BLUE,
            Role::Driver {
                size: 0,
                mailbox: MAILBOX,
                elastic: false,
            },
            Refusal::Ranks,
            "not 0",
        ),
        (
            BLUE,
            Role::Driver {
                size: RANKS_MAX + 1,
                mailbox: MAILBOX,
                elastic: false,
            },
            Refusal::Ranks,
            "1 to 1048576 ranks",
        ),
        (
            RED,
            pack(0, 0, 1, 0),
            Refusal::Ranks,
            "no ranks at 0 is not within",
        ),
        (
            RED,
            pack(8, 1, 1, 0),
            Refusal::Ranks,
            "rank 8 is not within the job's 8 ranks",
        ),
        (
            RED,
            pack(7, 2, 1, 0),
            Refusal::Ranks,
            "ranks 7-8 is not within",
        ),
        (
            RED,
            pack(u32::MAX, u32::MAX, 1, 0),
            Refusal::Ranks,
            "is not within",
        ),
        (
            RED,
            pack(3, 1, 9, 0),
            Refusal::Ranks,
            "rank 3 overlaps with ranks 2-3",
        ),
        (
            RED,
            pack(1, 2, 9, 0),
            Refusal::Ranks,
            "ranks 1-2 overlaps with ranks 2-3",
        ),
        (RED, pack(0, 8, 9, 0), Refusal::Ranks, "overlaps"),
        (
            RED,
            pack(2, 2, 5, 0),
            Refusal::Incarnation,
            "5, is a duplicate",
        ),
        (
            RED,
            pack(2, 2, 4, 0),
            Refusal::Incarnation,
            "4, is a duplicate",
        ),
        (
            RED,
            pack(0, 1, 1, 1),
            Refusal::Epoch,
            "of epoch 1 and the job is in epoch 0",
        ),
    ];
    for (job, role, code, words) in cases {
        let hello = bench.hello(job, role);
        let (found, reason) = bench.refusal(&hello);
        assert_eq!(found, code, "{role:?}: {reason}", role = hello.role);
        assert!(reason.contains(words), "{words:?} is not in {reason:?}");
    }
    assert_eq!(
        bench.switch.population(),
        (1, 2),
        "only the first two remain"
    );
    let beat = bench.send(old, bare_frame(kind::HEARTBEAT, false));
    assert_eq!(beat, [(old, Said::Heartbeat)], "the pack is undisturbed");
    let (_, said) = bench.join(RED, span(0, 1), 1);
    assert_eq!(said[0].0, driver, "the job still takes packs in");
}

#[test]
fn another_release_is_told_to_update_the_function() {
    let mut bench = Bench::new();
    bench.create(RED, 1);
    let role = Role::Pack {
        span: span(0, 1),
        incarnation: 1,
        epoch: 0,
        mailbox: MAILBOX,
    };
    let mut hello = bench.hello(RED, role);
    hello.release = "0.0.9".into();
    let (code, reason) = bench.refusal(&hello);
    assert_eq!(code, Refusal::Version);
    assert!(
        reason.contains("lswitch 0.0.9") && reason.contains("lswitch function update"),
        "{reason}"
    );
}

#[test]
fn another_protocol_version_is_named_whatever_the_rest_of_its_hello_is() {
    let mut bench = Bench::new();
    let mut body = BytesMut::new();
    body.put_u16_le(2);
    body.put_u16_le(3);
    body.put_slice(b"what version 2 says is not known yet");
    let header = Header {
        kind: kind::HELLO,
        ..Header::default()
    };
    let id = bench.connect();
    let said = bench.send(id, Frame::new(header, body.freeze()));
    let (code, reason) = refusal_of(id, said);
    assert_eq!(code, Refusal::Version);
    assert!(
        reason.contains("speaks protocol 2 to 3, this switch speaks 1"),
        "{reason}"
    );
    // Who speaks this one among others is welcome.
    let mut hello = bench.hello(
        RED,
        Role::Driver {
            size: 1,
            mailbox: MAILBOX,
            elastic: false,
        },
    );
    hello.protocols = (0, 9);
    assert_eq!(bench.greet(&hello).1, [(id + 1, Said::Welcome)]);
    let broken = Frame::new(header, Bytes::from_static(&[1, 0]));
    let id = bench.connect();
    let said = bench.send(id, broken);
    assert_eq!(refusal_of(id, said).0, Refusal::Protocol);
}

#[test]
fn a_higher_incarnation_takes_the_place_of_a_lower_and_the_old_one_is_told() {
    let mut bench = Bench::new();
    let driver = bench.create(RED, 2);
    let (old, _) = bench.join(RED, span(0, 1), 1);
    let (new, said) = bench.join(RED, span(0, 1), 2);
    let reason = "a later start of rank 0, incarnation 2, took its place".to_string();
    let notice = Notice::Joined {
        span: span(0, 1),
        incarnation: 2,
        mailbox: MAILBOX,
        features: 0,
    };
    assert_eq!(
        said,
        [
            (old, Said::Refused(Refusal::Incarnation, reason)),
            (old, Said::Closed),
            (driver, Said::Notice(notice)),
            (new, Said::Welcome),
        ]
    );
    // The old one's frames and its end are nobody's business any more.
    assert_eq!(bench.send(old, leave(None)), []);
    assert_eq!(
        bench.act(|switch, _, out| switch.disconnected(old, "closed", out)),
        []
    );
    let (_, said) = bench.join(RED, span(1, 1), 1);
    assert!(said.contains(&(driver, Said::Notice(Notice::Started))));
    let frame = data(0, 1, 0, b"x");
    assert_eq!(bench.send(new, frame).len(), 1, "the new one speaks");
    let (_, said) = bench.join(RED, span(0, 1), 3);
    assert!(
        matches!(&said[0].1, Said::Refused(Refusal::Begun, reason) if reason.contains("takes nobody in after its start")),
        "{said:?}"
    );
}

#[test]
fn what_a_connection_may_not_say_ends_it_and_the_driver_hears() {
    type Case = (&'static str, Frame, Refusal, &'static str);
    let mut wrong_epoch = data(0, 1, 0, b"x");
    wrong_epoch.header.epoch = 1;
    let mut unknown_operation = contribution(0, 0, &[1]);
    unknown_operation.header.tag = 3;
    let mut half = contribution(0, 0, &[1]);
    half.body = half.body.slice(..20);
    let half = Frame::new(half.header, half.body);
    let short = Frame::new(half.header, half.body.slice(..11));
    let hello = Bench::new().hello(
        RED,
        Role::Driver {
            size: 2,
            mailbox: MAILBOX,
            elastic: false,
        },
    );
    let cases: [Case; 11] = [
        (
            "another rank",
            data(1, 1, 0, b"x"),
            Refusal::Protocol,
            "a connection of rank 0 spoke as rank 1",
        ),
        (
            "the driver",
            data(DRIVER, 1, 0, b"x"),
            Refusal::Protocol,
            "spoke as rank 4294967295",
        ),
        (
            "another's part",
            contribution(1, 0, &[1]),
            Refusal::Protocol,
            "spoke as rank 1",
        ),
        (
            "nobody",
            data(0, 2, 0, b"x"),
            Refusal::Ranks,
            "a message to rank 2 of a job of 2 ranks",
        ),
        (
            "the switch",
            data(0, SWITCH, 0, b"x"),
            Refusal::Ranks,
            "of a job of 2 ranks",
        ),
        (
            "an epoch",
            wrong_epoch,
            Refusal::Epoch,
            "a frame of epoch 1 came in epoch 0",
        ),
        (
            "a call ahead",
            contribution(0, 1, &[1]),
            Refusal::Protocol,
            "collective segment 1 of pack 0 came where number 0 was due",
        ),
        (
            "an operation",
            unknown_operation,
            Refusal::Protocol,
            "operation 0x0003 is not known",
        ),
        (
            "half a number",
            half,
            Refusal::Protocol,
            "not a whole number",
        ),
        (
            "no prefix",
            short,
            Refusal::Protocol,
            "a body of 11 bytes, too short",
        ),
        (
            "hello again",
            hello.to_frame(false),
            Refusal::Protocol,
            "kind 0x01 is none that a pack sends",
        ),
    ];
    for (what, frame, code, words) in cases {
        let mut bench = Bench::new();
        let (driver, packs) = bench.begun(RED, 2);
        let said = bench.send(packs[0], frame);
        let Some((
            to,
            Said::Notice(Notice::Lost {
                span: lost,
                reason: told,
            }),
        )) = said.get(2)
        else {
            panic!("{what}: {said:?}");
        };
        assert_eq!((*to, *lost), (driver, span(0, 1)), "{what}");
        let told = told.clone();
        let (found, reason) = refusal_of(packs[0], said);
        assert_eq!((found, &told), (code, &reason), "{what}");
        assert!(reason.contains(words), "{what}: {reason}");
        assert_eq!(bench.switch.population(), (1, 2), "{what}");
    }
}

#[test]
fn the_driver_speaks_only_as_itself_and_after_the_start() {
    for (frame, words) in [
        (
            data(0, 1, 0, b"x"),
            "the driver's connection spoke as rank 0",
        ),
        (
            data(DRIVER, 2, 0, b"x"),
            "a message to rank 2 of a job of 2 ranks",
        ),
        (data(DRIVER, DRIVER, 0, b"x"), "of a job of 2 ranks"),
        (
            contribution(DRIVER, 0, &[1]),
            "kind 0x11 is none that a driver sends",
        ),
    ] {
        let mut bench = Bench::new();
        let (driver, packs) = bench.begun(RED, 2);
        let said = bench.send(driver, frame);
        for pack in packs {
            let ended = |(to, said): &(ConnectionId, Said)| {
                *to == pack
                    && matches!(said, Said::End(reason) if reason.contains("the driver of the job was lost"))
            };
            assert!(said.iter().any(ended), "{said:?}");
        }
        let (_, reason) = refusal_of(driver, said);
        assert!(reason.contains(words), "{reason}");
        assert_eq!(bench.switch.population(), (0, 0));
    }
    let mut bench = Bench::new();
    let driver = bench.create(RED, 2);
    let (pack, _) = bench.join(RED, span(0, 1), 1);
    let said = bench.send(pack, data(0, 0, 0, b"x"));
    assert!(refusal_of(pack, said).1.contains("before the job's start"));
    let said = bench.send(driver, data(DRIVER, 0, 0, b"x"));
    assert!(
        refusal_of(driver, said)
            .1
            .contains("before the job's start")
    );
}

#[test]
fn the_first_frame_must_be_a_hello() {
    for frame in [
        bare_frame(kind::HEARTBEAT, false),
        data(0, 1, 0, b"x"),
        leave(None),
    ] {
        let mut bench = Bench::new();
        let id = bench.connect();
        let said = bench.send(id, frame);
        let (code, reason) = refusal_of(id, said);
        assert_eq!(code, Refusal::Protocol);
        assert!(reason.contains("and not a hello"), "{reason}");
        assert_eq!(bench.switch.population(), (0, 0));
    }
}

#[test]
fn a_connection_that_says_no_hello_is_let_go_after_two_seconds_whatever_trickles_in() {
    let mut bench = Bench::new();
    let id = bench.connect();
    assert_eq!(bench.tick_after(HELLO_WITHIN_MS), []);
    let said = bench.tick_after(1);
    let (code, reason) = refusal_of(id, said);
    assert_eq!(code, Refusal::Silent);
    assert_eq!(reason, "no valid hello came within 2 s");
    assert_eq!(bench.switch.population(), (0, 0));
}

#[test]
fn a_hello_that_waits_for_a_busy_switch_is_not_late() {
    let mut bench = Bench::new();
    let id = bench.connect();
    // Others' handshakes took three seconds, in which nobody looked at this one.
    bench.now.busy_ms += 3_000;
    assert_eq!(bench.tick_after(HELLO_WITHIN_MS + 3_000), []);
    let said = bench.tick_after(1);
    assert_eq!(refusal_of(id, said).0, Refusal::Silent);
    // But nobody may hold a place for ever, however busy it is.
    bench.connect();
    bench.now.busy_ms += 60_000;
    assert_eq!(bench.tick_after(60_000).len(), 2, "a reason, and the end");
}

#[test]
fn a_silent_pack_is_lost_after_ten_seconds_and_one_that_is_held_up_is_not() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 3);
    let beat = || bare_frame(kind::HEARTBEAT, false);
    bench.now.ms += LOST_AFTER_MS;
    bench.send(driver, beat());
    assert_eq!(bench.send(packs[0], beat()), [(packs[0], Said::Heartbeat)]);
    let held = bench.act(|switch, now, actions| switch.held_up(packs[1], now, actions));
    assert_eq!(
        held,
        [(packs[1], Said::Heartbeat)],
        "it must not take us for lost"
    );
    assert_eq!(bench.tick_after(0), [], "ten seconds are allowed");
    let said = bench.tick_after(1);
    let lost = Notice::Lost {
        span: span(2, 1),
        reason: "nothing was heard for 10 s".into(),
    };
    assert_eq!(said.last(), Some(&(driver, Said::Notice(lost))));
    assert_eq!(refusal_of(packs[2], said).0, Refusal::Silent);
    assert_eq!(bench.switch.population(), (1, 3));
}

#[test]
fn a_job_ends_with_its_driver_and_every_member_is_told() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 2);
    let (_, others) = bench.begun(BLUE, 2);
    let said = bench.act(|switch, _, out| switch.disconnected(driver, "reset", out));
    let end = Said::End("the driver of the job was lost: reset".into());
    let expected: Vec<_> = packs
        .iter()
        .flat_map(|&pack| [(pack, end.clone()), (pack, Said::Closed)])
        .collect();
    assert_eq!(said, expected);
    assert_eq!(bench.switch.population(), (1, 3));
    let frame = data(0, 1, 0, b"x");
    let said = bench.send(others[0], frame.clone());
    assert_eq!(
        said,
        [(others[1], Said::Data(frame))],
        "the other job goes on"
    );

    // A silent driver is a lost one.
    let mut bench = Bench::new();
    let (_, packs) = bench.begun(RED, 1);
    bench.now.ms += LOST_AFTER_MS;
    bench.send(packs[0], bare_frame(kind::HEARTBEAT, false));
    let said = bench.tick_after(1);
    assert!(
        said.iter().any(|(to, said)| *to == packs[0]
            && matches!(said, Said::End(reason) if reason.contains("nothing was heard"))),
        "{said:?}"
    );
    assert_eq!(bench.switch.population(), (0, 0));
}

#[test]
fn an_abort_tells_every_member_the_reason() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 2);
    let abort = Abort {
        reason: "enough".into(),
    };
    let said = bench.send(driver, abort.to_frame(false));
    let expected: Vec<_> = [packs[0], packs[1], driver]
        .into_iter()
        .flat_map(|member| [(member, Said::End("enough".into())), (member, Said::Closed)])
        .collect();
    assert_eq!(said, expected);
    assert_eq!(bench.switch.population(), (0, 0));
}

#[test]
fn packs_leave_one_by_one_and_messages_to_those_that_left_are_dropped() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 3);
    let left = |rank, failure: Option<&str>| {
        Said::Notice(Notice::Left {
            span: span(rank, 1),
            failure: failure.map(str::to_owned),
        })
    };
    assert_eq!(
        bench.send(packs[0], leave(None)),
        [
            (driver, left(0, None)),
            (packs[0], Said::Left),
            (packs[0], Said::Closed)
        ]
    );
    assert_eq!(bench.send(packs[1], data(1, 0, 0, b"late")), []);
    let frame = data(1, 2, 0, b"in time");
    assert_eq!(
        bench.send(packs[1], frame.clone()),
        [(packs[2], Said::Data(frame))]
    );
    assert_eq!(
        bench.send(packs[1], leave(Some("it broke")))[0],
        (driver, left(1, Some("it broke")))
    );
    bench.send(packs[2], leave(None));
    assert_eq!(bench.switch.population(), (1, 1));
    let said = bench.send(driver, leave(None));
    assert!(
        matches!(
            &said[..],
            [(a, Said::Notice(Notice::Traffic(Traffic { messages: 2, .. }))), (b, Said::Left), (c, Said::Closed)]
                if [*a, *b, *c] == [driver; 3]
        ),
        "{said:?}"
    );
    assert_eq!(bench.switch.population(), (0, 0));
}

#[test]
fn a_driver_that_leaves_early_ends_the_job_for_the_others() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 1);
    let said = bench.send(driver, leave(None));
    assert!(said.contains(&(driver, Said::Left)));
    assert!(said.contains(&(packs[0], Said::End("its driver left".into()))));
    assert_eq!(bench.switch.population(), (0, 0));
}

#[test]
fn a_failure_too_long_to_pass_on_is_cut_and_the_switch_lives() {
    // The longest that a frame holds, less the option's byte and the length.
    for length in [16 * 1024, 40_000, BODY_MAX - 9] {
        let mut bench = Bench::new();
        let (driver, packs) = bench.begun(RED, 1);
        let said = bench.send(packs[0], leave(Some(&"é".repeat(length / 2))));
        match &said[0] {
            (
                to,
                Said::Notice(Notice::Left {
                    failure: Some(failure),
                    ..
                }),
            ) if *to == driver => {
                assert!(failure.len() <= 16 * 1024, "{}", failure.len());
            }
            other => panic!("{other:?}"),
        }
        let (driver, _) = bench.begun(BLUE, 1);
        let abort = Abort {
            reason: "x".repeat(length),
        };
        let said = bench.send(driver, abort.to_frame(false));
        assert!(matches!(&said[0].1, Said::End(reason) if reason.len() <= 16 * 1024));
    }
}

#[test]
fn a_collective_gives_each_pack_the_sum_and_calls_do_not_mix() {
    let mut bench = Bench::new();
    bench.create(RED, 3);
    let (low, _) = bench.join(RED, span(0, 2), 1);
    let (high, _) = bench.join(RED, span(2, 1), 1);
    let combined = |first, call, values: &[i128]| Said::Combined {
        destination: first,
        call,
        body: encode(values),
    };
    assert_eq!(bench.send(low, contribution(0, 0, &[1, -5])), []);
    assert_eq!(
        bench.send(high, contribution(2, 0, &[i128::MAX - 1, 2])),
        [
            (low, combined(0, 0, &[i128::MAX, -3])),
            (high, combined(2, 0, &[i128::MAX, -3]))
        ]
    );
    assert_eq!(bench.send(high, contribution(2, 1, &[])), []);
    let said = bench.send(low, contribution(1, 1, &[]));
    assert_eq!(
        said,
        [(low, combined(0, 1, &[])), (high, combined(2, 1, &[]))]
    );
}

#[test]
fn packs_that_disagree_about_a_collective_end_the_job() {
    let ended = |said: Vec<(ConnectionId, Said)>, members: &[ConnectionId], words: &str| {
        for &member in members {
            let told = |(to, said): &(ConnectionId, Said)| {
                *to == member && matches!(said, Said::End(reason) if reason.contains(words))
            };
            assert!(said.iter().any(told), "{words}: {said:?}");
        }
    };
    let start = || {
        let mut bench = Bench::new();
        let (driver, packs) = bench.begun(RED, 2);
        (bench, driver, packs)
    };
    let (mut bench, driver, packs) = start();
    bench.send(packs[0], contribution(0, 0, &[1]));
    let said = bench.send(packs[1], contribution(1, 0, &[1, 2]));
    let all = [driver, packs[0], packs[1]];
    ended(
        said,
        &all,
        "rank 1: collective segment 0: rank 1 calls sum of 2 i128 to all ranks, but rank 0 calls sum of 1 i128 to all ranks",
    );
    assert_eq!(bench.switch.population(), (0, 0));

    let (mut bench, driver, packs) = start();
    bench.send(packs[0], contribution(0, 0, &[1]));
    let said = bench.send(packs[1], leave(None));
    ended(
        said,
        &[driver, packs[0]],
        "rank 1 left without sum of 1 i128 to all ranks, which rank 0 calls, while others wait in a collective call",
    );

    let (mut bench, driver, packs) = start();
    bench.send(packs[0], leave(None));
    let said = bench.send(packs[1], contribution(1, 0, &[1]));
    ended(
        said,
        &[driver, packs[1]],
        "rank 1: collective segment 0: sum of 1 i128 to all ranks came after other ranks had left without that call",
    );
    assert_eq!(bench.switch.population(), (0, 0));

    let (mut bench, driver, packs) = start();
    bench.send(packs[0], contribution(0, 0, &[i128::MAX]));
    let said = bench.send(packs[1], contribution(1, 0, &[1]));
    let all = [driver, packs[0], packs[1]];
    ended(said, &all, "a sum does not fit into i128");
    assert_eq!(bench.switch.population(), (0, 0));
}

/// An announcement of an exchange.
fn exchange_announcement(source: u32, call: u64, exchange: Exchange, root: Option<u32>) -> Frame {
    let part = Part {
        operation: Operation::Exchange(exchange).code(),
        root,
        shape: 0,
        total: 0,
        data: &[],
    };
    let header = Header {
        tag: part.operation,
        ..contribution(source, call, &[]).header
    };
    Frame::new(header, part.prefix().to_vec().into())
}

#[test]
fn different_exchanges_end_the_job_though_nobody_waits_for_an_answer() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 2);
    let same = |source, call| exchange_announcement(source, call, Exchange::AllToAll, None);
    assert_eq!(bench.send(packs[0], same(0, 0)), []);
    assert_eq!(bench.send(packs[1], same(1, 0)), []);
    assert_eq!(
        bench.send(
            packs[0],
            exchange_announcement(0, 1, Exchange::Scatter, Some(0))
        ),
        []
    );
    // It waits for nothing, and is gone when the other comes.
    bench.send(packs[0], leave(None));
    let said = bench.send(
        packs[1],
        exchange_announcement(1, 1, Exchange::Scatter, Some(1)),
    );
    let words = "rank 1: collective segment 1: rank 1 calls scatter from rank 1, but rank 0 calls scatter from rank 0; all ranks must make the same calls";
    for member in [driver, packs[1]] {
        let told = |(to, said): &(ConnectionId, Said)| {
            *to == member && matches!(said, Said::End(reason) if reason.contains(words))
        };
        assert!(said.iter().any(told), "{said:?}");
    }
    assert_eq!(bench.switch.population(), (0, 0));
}

#[test]
fn a_pack_that_has_its_broadcast_may_leave_while_others_wait_for_theirs() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 3);
    let part = |source: u32, data: &[u8]| {
        let part = Part {
            operation: Operation::Broadcast.code(),
            root: Some(0),
            shape: 0,
            total: data.len() as u64,
            data,
        };
        let header = Header {
            tag: part.operation,
            ..contribution(source, 0, &[]).header
        };
        Frame::new(header, [&part.prefix()[..], data].concat().into())
    };
    let words = |said: &[(ConnectionId, Said)]| -> Vec<(ConnectionId, &'static str)> {
        said.iter().map(|(to, said)| (*to, word(said))).collect()
    };
    assert_eq!(bench.send(packs[0], part(0, b"news")), []);
    let said = bench.send(packs[1], part(1, b""));
    assert_eq!(words(&said), [(packs[1], "combined")]);
    let said = bench.send(packs[1], leave(None));
    assert_eq!(
        words(&said),
        [(driver, "gone"), (packs[1], "left"), (packs[1], "close")]
    );
    let said = bench.send(packs[2], part(2, b""));
    assert_eq!(
        words(&said),
        [(packs[2], "combined"), (packs[0], "combined")]
    );
}

/// A frame that says how much a rank may send: an announcement of so many bytes, a grant, or a credit of so many.
fn flow(kind: u8, source: u32, destination: u32, sequence: u64, bytes: u64) -> Frame {
    let header = Header {
        kind,
        tag: if kind == kind::ANNOUNCE { 7 } else { 0 },
        source,
        destination,
        sequence,
        ..Header::default()
    };
    let body = match kind {
        kind::GRANT => Bytes::new(),
        _ => Bytes::copy_from_slice(&bytes.to_le_bytes()),
    };
    Frame::new(header, body)
}

fn announcement(source: u32, destination: u32, sequence: u64) -> Frame {
    flow(kind::ANNOUNCE, source, destination, sequence, 1 << 30)
}

fn grant(source: u32, destination: u32, sequence: u64) -> Frame {
    flow(kind::GRANT, source, destination, sequence, 0)
}

#[test]
fn announcements_grants_and_credits_go_to_whom_they_are_for() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 3);
    for (from, frame, to) in [
        (packs[0], announcement(0, 2, 3), packs[2]),
        (packs[1], announcement(1, 2, 0), packs[2]),
        (packs[0], announcement(0, DRIVER, 0), driver),
        (driver, announcement(DRIVER, 1, 0), packs[1]),
        (packs[2], grant(2, 0, 3), packs[0]),
        (driver, grant(DRIVER, 0, 0), packs[0]),
        (packs[1], grant(1, DRIVER, 0), driver),
        (packs[2], flow(kind::CREDIT, 2, 1, 0, 5000), packs[1]),
        (driver, flow(kind::CREDIT, DRIVER, 1, 0, 5000), packs[1]),
        // After its grant, and by another rank, and to another.
        (packs[0], announcement(0, 2, 4), packs[2]),
        (packs[0], announcement(0, 1, 0), packs[1]),
    ] {
        assert_eq!(bench.send(from, frame.clone()), [(to, Said::Flow(frame))]);
    }
    let traffic = Notice::Traffic(Traffic::default());
    assert_eq!(
        bench.send(driver, bare_frame(kind::HEARTBEAT, false)),
        [(driver, Said::Notice(traffic))],
        "none of it counts as messages"
    );
    for kind in [kind::ANNOUNCE, kind::GRANT, kind::CREDIT] {
        let mut bench = Bench::new();
        let (_, packs) = bench.begun(RED, 2);
        let said = bench.send(packs[0], flow(kind, 1, 1, 0, 1));
        let (code, reason) = refusal_of(packs[0], said);
        assert_eq!(code, Refusal::Protocol);
        assert!(reason.contains("spoke as rank 1"), "{reason}");
    }
}

#[test]
fn a_second_announcement_to_a_rank_before_the_first_is_granted_is_refused() {
    let mut bench = Bench::new();
    let (_, packs) = bench.begun(RED, 2);
    bench.send(packs[0], announcement(0, 1, 0));
    let said = bench.send(packs[0], announcement(0, 1, 1));
    let (code, reason) = refusal_of(packs[0], said);
    assert_eq!(code, Refusal::Protocol);
    assert_eq!(
        reason,
        "rank 0 announced a message to rank 1 before the one it announced last was granted"
    );
}

#[test]
fn a_grant_that_nobody_asked_for_is_refused() {
    for sequence in [0, 1] {
        let mut bench = Bench::new();
        let (_, packs) = bench.begun(RED, 2);
        if sequence > 0 {
            // The number is another.
            bench.send(packs[0], announcement(0, 1, 0));
        }
        let said = bench.send(packs[1], grant(1, 0, sequence));
        let (code, reason) = refusal_of(packs[1], said);
        assert_eq!(code, Refusal::Protocol);
        assert_eq!(
            reason,
            "rank 1 granted a message that rank 0 has not announced"
        );
    }
}

#[test]
fn who_waits_to_send_to_ranks_that_are_gone_may_and_what_it_sends_is_dropped() {
    type Go = fn(&mut Bench, ConnectionId) -> Vec<(ConnectionId, Said)>;
    let ways: [(&str, Go); 3] = [
        ("left", |bench, id| bench.send(id, leave(None))),
        ("failed", |bench, id| {
            bench.send(id, leave(Some("it broke")))
        }),
        ("lost", |bench, id| {
            bench.act(|switch, _, out| switch.disconnected(id, "cut", out))
        }),
    ];
    for (way, go) in ways {
        let mut bench = Bench::new();
        let driver = bench.create(RED, 4);
        let (low, _) = bench.join(RED, span(0, 1), 1);
        let (middle, _) = bench.join(RED, span(1, 1), 1);
        let (high, _) = bench.join(RED, span(2, 2), 1);
        bench.send(low, announcement(0, 3, 5));
        bench.send(low, announcement(0, 1, 0));
        bench.send(middle, announcement(1, 2, 6));
        bench.send(driver, announcement(DRIVER, 2, 7));
        // One that has been granted is not granted again.
        bench.send(middle, announcement(1, 3, 8));
        bench.send(high, grant(3, 1, 8));
        // Its own are forgotten.
        bench.send(high, announcement(2, 0, 0));
        let mut granted: Vec<_> = go(&mut bench, high)
            .into_iter()
            .filter(|(_, said)| word(said) == "flow")
            .collect();
        granted.sort_by_key(|(to, _)| *to);
        let expected = [
            (driver, Said::Flow(grant(2, DRIVER, 7))),
            (low, Said::Flow(grant(3, 0, 5))),
            (middle, Said::Flow(grant(2, 1, 6))),
        ];
        assert_eq!(granted, expected, "{way}");
        for frame in [data(1, 2, 6, b"late"), flow(kind::CREDIT, 1, 2, 0, 9)] {
            assert_eq!(bench.send(middle, frame), [], "{way}");
        }
        // Who announces afterwards is told at once, as often as it does.
        for sequence in 7..9 {
            let said = bench.send(middle, announcement(1, 2, sequence));
            let expected = Said::Flow(grant(2, 1, sequence));
            assert_eq!(said, [(middle, expected)], "{way}");
        }
        // The others' are as they were.
        let frame = grant(1, 0, 0);
        assert_eq!(
            bench.send(middle, frame.clone()),
            [(low, Said::Flow(frame))],
            "{way}"
        );
    }
}

#[test]
fn malformed_bytes_are_answered_and_the_pack_is_lost() {
    let mut bench = Bench::new();
    let (driver, packs) = bench.begun(RED, 1);
    let said = bench.act(|switch, _, out| switch.malformed(packs[0], "no frame", out));
    let lost = Notice::Lost {
        span: span(0, 1),
        reason: "no frame".into(),
    };
    assert_eq!(said.last(), Some(&(driver, Said::Notice(lost))));
    assert_eq!(
        refusal_of(packs[0], said),
        (Refusal::Protocol, "no frame".into())
    );
}

#[test]
fn a_switch_that_goes_down_tells_everyone() {
    let mut bench = Bench::new();
    let (red, packs) = bench.begun(RED, 2);
    let blue = bench.create(BLUE, 2);
    let stranger = bench.connect();
    let said = bench.act(|switch, _, out| switch.close("maintenance", out));
    for member in [red, packs[0], packs[1], blue] {
        assert!(
            said.contains(&(member, Said::End("maintenance".into()))),
            "{said:?}"
        );
        assert!(said.contains(&(member, Said::Closed)));
    }
    assert!(said.contains(&(
        stranger,
        Said::Refused(Refusal::Closing, "maintenance".into())
    )));
    assert_eq!(bench.switch.population(), (0, 0));
}

/// What a random schedule does. Ranks, packs and jobs are taken modulo what there is.
#[derive(Debug, Clone)]
enum Op {
    Create {
        job: usize,
    },
    Join {
        job: usize,
        pack: usize,
        incarnation: u32,
    },
    Send {
        job: usize,
        source: u32,
        destination: u32,
        chunked: bool,
    },
    Contribute {
        job: usize,
        pack: usize,
        elements: usize,
        value: i64,
    },
    Leave {
        job: usize,
        pack: usize,
        failed: bool,
    },
    Disconnect {
        job: usize,
        pack: usize,
    },
    LoseDriver {
        job: usize,
    },
    Abort {
        job: usize,
    },
    Beat {
        job: usize,
        pack: usize,
    },
}

fn any_op() -> impl Strategy<Value = Op> {
    let job = 0usize..2;
    let pack = 0usize..3;
    prop_oneof![
        2 => job.clone().prop_map(|job| Op::Create { job }),
        8 => (job.clone(), pack.clone(), 1u32..4).prop_map(|(job, pack, incarnation)| Op::Join { job, pack, incarnation }),
        20 => (job.clone(), 0u32..4, prop_oneof![9 => 0u32..4, 1 => Just(DRIVER)], any::<bool>())
            .prop_map(|(job, source, destination, chunked)| Op::Send { job, source, destination, chunked }),
        8 => (job.clone(), pack.clone(), prop_oneof![15 => Just(1usize), 1 => Just(2usize)], any::<i64>())
            .prop_map(|(job, pack, elements, value)| Op::Contribute { job, pack, elements, value }),
        1 => (job.clone(), pack.clone(), any::<bool>()).prop_map(|(job, pack, failed)| Op::Leave { job, pack, failed }),
        1 => (job.clone(), pack.clone()).prop_map(|(job, pack)| Op::Disconnect { job, pack }),
        1 => job.clone().prop_map(|job| Op::LoseDriver { job }),
        1 => job.clone().prop_map(|job| Op::Abort { job }),
        2 => (job, pack).prop_map(|(job, pack)| Op::Beat { job, pack }),
    ]
}

/// The packs of both jobs: ranks 0, 1-2 and 3. That they are equal is the point.
const SPANS: [(u32, u32); 3] = [(0, 1), (1, 2), (3, 1)];
const JOBS: [JobId; 2] = [RED, BLUE];

/// What must happen, told a second time and more simply than the switch does it.
#[derive(Default)]
struct Model {
    driver: Option<ConnectionId>,
    packs: [Option<(ConnectionId, u32)>; 3],
    begun: bool,
    /// A pack was lost or failed after the start: calls wait for the driver to end the job.
    failed: bool,
    /// Parts given to the open call, by pack; the call's number; elements of its first part.
    given: BTreeMap<usize, i128>,
    call: u64,
    elements: usize,
    next: HashMap<(u32, u32), u64>,
}

fn pack_of(rank: u32) -> usize {
    [0, 1, 1, 2][rank as usize]
}

impl Model {
    fn members(&self) -> Vec<ConnectionId> {
        let packs = self.packs.iter().flatten().map(|(id, _)| *id);
        packs.chain(self.driver).collect()
    }

    /// The job is over for these members.
    fn end(&mut self) -> Vec<(ConnectionId, &'static str)> {
        let members = std::mem::take(self).members();
        let told = |id| [(id, "end"), (id, "close")];
        members.into_iter().flat_map(told).collect()
    }

    fn is_full(&self) -> bool {
        self.packs.iter().all(Option::is_some)
    }
}

fn word(said: &Said) -> &'static str {
    match said {
        Said::Welcome => "welcome",
        Said::Refused(..) => "refused",
        Said::Start(_) => "start",
        Said::Heartbeat => "heartbeat",
        Said::Left => "left",
        Said::End(_) => "end",
        Said::Notice(Notice::Joined { .. }) => "joined",
        Said::Notice(Notice::Started) => "started",
        Said::Notice(Notice::Left { .. }) => "gone",
        Said::Notice(Notice::Lost { .. }) => "lost",
        Said::Notice(Notice::Traffic(_)) => "traffic",
        Said::Data(_) => "data",
        Said::Flow(_) => "flow",
        Said::Combined { .. } => "combined",
        Said::Closed => "close",
    }
}

/// Runs a schedule on a switch and on the model, and compares each step. Gives how many messages arrived.
fn run_schedule(ops: Vec<Op>) -> usize {
    let mut bench = Bench::new();
    let mut models = [Model::default(), Model::default()];
    // What arrived on each connection, and what must have, by source and destination.
    let mut arriving: HashMap<ConnectionId, Reassembly> = HashMap::new();
    let mut arrived: HashMap<(ConnectionId, u32, u32), Vec<Bytes>> = HashMap::new();
    let mut expected_arrivals = arrived.clone();
    let mut count = 0u64;
    for op in ops {
        let mut expected: Vec<(ConnectionId, &str)> = Vec::new();
        let mut sums: Vec<i128> = Vec::new();
        let said = match op.clone() {
            Op::Create { job } => {
                let hello = bench.hello(
                    JOBS[job],
                    Role::Driver {
                        size: 4,
                        mailbox: MAILBOX,
                        elastic: false,
                    },
                );
                let (id, said) = bench.greet(&hello);
                if models[job].driver.is_some() {
                    expected = vec![(id, "refused"), (id, "close")];
                } else {
                    models[job].driver = Some(id);
                    expected = vec![(id, "welcome")];
                }
                said
            }
            Op::Join {
                job,
                pack,
                incarnation,
            } => {
                let (first, ranks) = SPANS[pack];
                let (id, said) = bench.join(JOBS[job], span(first, ranks), incarnation);
                let model = &mut models[job];
                let old = model.packs[pack];
                match model.driver {
                    Some(driver)
                        if !model.begun && old.is_none_or(|(_, before)| before < incarnation) =>
                    {
                        if let Some((old, _)) = old {
                            expected = vec![(old, "refused"), (old, "close")];
                        }
                        expected.extend([(driver, "joined"), (id, "welcome")]);
                        model.packs[pack] = Some((id, incarnation));
                        if model.is_full() {
                            model.begun = true;
                            expected
                                .extend(model.packs.iter().flatten().map(|(id, _)| (*id, "start")));
                            expected.push((driver, "started"));
                        }
                    }
                    _ => expected = vec![(id, "refused"), (id, "close")],
                }
                said
            }
            Op::Send {
                job,
                source,
                destination,
                chunked,
            } => {
                let model = &mut models[job];
                let Some((id, _)) = model.packs[pack_of(source)] else {
                    continue;
                };
                let driver = model.driver.expect("a job with packs has a driver");
                count += 1;
                let payload = Bytes::from(format!("message {count}"));
                let sequence = if model.begun {
                    let next = model.next.entry((source, destination)).or_default();
                    *next += 1;
                    *next - 1
                } else {
                    0
                };
                let mut frames = vec![data(source, destination, sequence, &payload)];
                if chunked {
                    // The same message with its payload cut off the first chunk.
                    let mut first = frames[0].clone();
                    first.header.flags = FLAG_FIRST;
                    let mut rest = first.clone();
                    rest.header.flags = FLAG_LAST;
                    let body = &first.body;
                    let (head, tail) = (body.slice(..TOTAL_LEN), body.slice(TOTAL_LEN..));
                    frames = vec![
                        Frame::new(first.header, head),
                        Frame::new(rest.header, tail),
                    ];
                }
                if !model.begun {
                    expected = vec![(id, "refused"), (id, "close"), (driver, "lost")];
                    model.packs[pack_of(source)] = None;
                } else {
                    let to = match destination {
                        DRIVER => Some(driver),
                        rank => model.packs[pack_of(rank)].map(|(id, _)| id),
                    };
                    if let Some(to) = to {
                        expected = vec![(to, "data"); frames.len()];
                        expected_arrivals
                            .entry((to, source, destination))
                            .or_default()
                            .push(payload);
                    }
                }
                frames
                    .into_iter()
                    .flat_map(|frame| bench.send(id, frame))
                    .collect()
            }
            Op::Contribute {
                job,
                pack,
                elements,
                value,
            } => {
                let model = &mut models[job];
                let Some((id, _)) = model.packs[pack] else {
                    continue;
                };
                let driver = model.driver.expect("a job with packs has a driver");
                // A rank waits for the result before its next call.
                if model.given.contains_key(&pack) {
                    continue;
                }
                let said = bench.send(
                    id,
                    contribution(SPANS[pack].0, model.call, &vec![value.into(); elements]),
                );
                if !model.begun {
                    expected = vec![(id, "refused"), (id, "close"), (driver, "lost")];
                    model.packs[pack] = None;
                } else if model.failed {
                    // The driver knows the cause, and will end the job with it.
                } else if !model.is_full()
                    || (!model.given.is_empty() && model.elements != elements)
                {
                    expected = model.end();
                } else {
                    model.elements = elements;
                    model.given.insert(pack, value.into());
                    if model.given.len() == 3 {
                        sums = vec![model.given.values().sum(); elements];
                        model.given.clear();
                        model.call += 1;
                        expected = model
                            .packs
                            .iter()
                            .flatten()
                            .map(|(id, _)| (*id, "combined"))
                            .collect();
                    }
                }
                said
            }
            Op::Leave { job, pack, failed } => {
                let model = &mut models[job];
                let Some((id, _)) = model.packs[pack].take() else {
                    continue;
                };
                let driver = model.driver.expect("a job with packs has a driver");
                expected = vec![(driver, "gone"), (id, "left"), (id, "close")];
                model.failed |= model.begun && failed;
                if !model.failed && !model.given.is_empty() {
                    expected.extend(model.end());
                }
                bench.send(id, leave(failed.then_some("failed")))
            }
            Op::Disconnect { job, pack } => {
                let model = &mut models[job];
                let Some((id, _)) = model.packs[pack].take() else {
                    continue;
                };
                model.failed |= model.begun;
                expected = vec![(model.driver.expect("a job with packs has a driver"), "lost")];
                bench.act(|switch, _, out| switch.disconnected(id, "cut", out))
            }
            Op::LoseDriver { job } => {
                let Some(driver) = models[job].driver.take() else {
                    continue;
                };
                expected = models[job].end();
                bench.act(|switch, _, out| switch.disconnected(driver, "cut", out))
            }
            Op::Abort { job } => {
                let Some(driver) = models[job].driver else {
                    continue;
                };
                expected = models[job].end();
                let reason = "enough".into();
                bench.send(driver, Abort { reason }.to_frame(false))
            }
            Op::Beat { job, pack } => {
                let Some((id, _)) = models[job].packs[pack] else {
                    continue;
                };
                expected = vec![(id, "heartbeat")];
                bench.send(id, bare_frame(kind::HEARTBEAT, false))
            }
        };
        let words: Vec<_> = said.iter().map(|(to, said)| (*to, word(said))).collect();
        assert_eq!(words, expected, "{op:?}: {said:?}");
        for (to, said) in said {
            match said {
                Said::Data(frame) => {
                    let stream = arriving.entry(to).or_default();
                    let Header { destination, .. } = frame.header;
                    let message = stream.accept(frame.header, &frame.body);
                    if let Some(message) = message.expect("in order and whole") {
                        let key = (to, message.source, destination);
                        arrived.entry(key).or_default().push(message.payload);
                    }
                }
                Said::Combined { body, .. } => assert_eq!(body, encode(&sums)),
                _ => {}
            }
        }
        let alive: usize = models.iter().map(|model| model.members().len()).sum();
        let jobs = models.iter().filter(|model| model.driver.is_some()).count();
        assert_eq!(bench.switch.population(), (jobs, alive), "{op:?}");
    }
    assert_eq!(arrived, expected_arrivals);
    for model in &models {
        if let Some(driver) = model.driver {
            bench.send(driver, leave(None));
        }
    }
    assert_eq!(bench.switch.population(), (0, 0));
    arrived.values().map(Vec::len).sum()
}

#[test]
fn two_jobs_with_equal_ranks_never_hear_each_other_and_every_message_arrives_once_in_order() {
    const CASES: u32 = 2_000;
    let arrived = AtomicUsize::new(0);
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let schedules = (prop::collection::vec(any_op(), 1..100), 0usize..10);
    let outcome = TestRunner::new(config).run(&schedules, |(ops, skip)| {
        // Both jobs begin, in most schedules; what follows is chance.
        let begin = (0..2).flat_map(|job| {
            std::iter::once(Op::Create { job }).chain((0..3).map(move |pack| Op::Join {
                job,
                pack,
                incarnation: 1,
            }))
        });
        let begin = begin.skip(skip.saturating_sub(5));
        arrived.fetch_add(run_schedule(begin.chain(ops).collect()), Ordering::Relaxed);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let arrived = arrived.into_inner();
    assert!(
        arrived > 5 * CASES as usize,
        "only {arrived} messages arrived: this tests little"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_a_client_sends_panics_the_switch_or_reaches_another_job(
        frames in prop::collection::vec(any_frame(), 1..40)
    ) {
        let mut bench = Bench::new();
        let (driver, packs) = bench.begun(RED, 3);
        let stranger = bench.connect();
        let (blue_driver, blue_packs) = bench.begun(BLUE, 3);
        for (who, frame) in frames {
            let from = [driver, packs[0], packs[1], packs[2], stranger][who];
            for (to, said) in bench.send(from, frame) {
                prop_assert!(to != blue_driver && !blue_packs.contains(&to), "{to}: {said:?}");
            }
        }
        let frame = data(0, 1, 0, b"x");
        prop_assert_eq!(bench.send(blue_packs[0], frame).len(), 1);
    }

    #[test]
    fn chunks_that_never_were_a_message_are_errors_and_give_no_more_than_they_bring(
        frames in prop::collection::vec(any_frame(), 1..40)
    ) {
        let mut reassembly = Reassembly::default();
        let (mut brought, mut given) = (0, 0);
        for (_, frame) in frames {
            brought += frame.body.len();
            match reassembly.accept(frame.header, &frame.body) {
                Ok(message) => given += message.map_or(0, |message| message.payload.len()),
                Err(_) => break,
            }
            prop_assert!(given <= brought);
        }
    }

    #[test]
    fn frames_mean_the_same_however_their_bytes_are_cut(
        frames in prop::collection::vec(any_frame(), 1..30),
        cut in prop_oneof![Just(1usize), 2usize..100, Just(usize::MAX)],
        who in 0usize..4,
    ) {
        let begin = || {
            let mut bench = Bench::new();
            let (driver, packs) = bench.begun(RED, 3);
            (bench, [driver, packs[0], packs[1], packs[2]][who])
        };
        let (mut whole, from) = begin();
        let mut bytes = BytesMut::new();
        let mut expected = Vec::new();
        for (_, frame) in frames {
            frame.put(&mut bytes);
            expected.extend(whole.send(from, frame));
        }
        let (mut cutting, from) = begin();
        prop_assert_eq!(cutting.trickle(from, bytes.chunks(cut)), expected);
        prop_assert_eq!(cutting.switch.population(), whole.switch.population());
    }
}

/// A frame with plausible and implausible fields, and one of five speakers.
fn any_frame() -> impl Strategy<Value = (usize, Frame)> {
    let address =
        prop_oneof![6 => 0u32..4, 1 => Just(DRIVER), 1 => Just(SWITCH), 1 => any::<u32>()];
    let small = prop_oneof![8 => 0u64..3, 1 => any::<u64>()];
    let body = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(vec![0; 16]),
        1 => Just(vec![0; 12]),
        1 => (prop::collection::vec(any::<i128>(), 0..3)).prop_map(|values| encode(&values).to_vec()),
        1 => (0u64..40, any::<bool>(), 0usize..40).prop_map(|(total, whole, length)| {
            let mut body = total.to_le_bytes().to_vec();
            body.resize(8 + length, 0);
            let crc32c = crc32c::crc32c(&body[8..]);
            body.extend(if whole { crc32c } else { !crc32c }.to_le_bytes());
            body
        }),
    ];
    let kinds = prop::sample::select(vec![
        kind::HELLO,
        kind::WELCOME,
        kind::REFUSED,
        kind::START,
        kind::HEARTBEAT,
        kind::LEAVE,
        kind::LEFT,
        kind::END,
        kind::NOTICE,
        kind::ABORT,
        kind::DATA,
        kind::DATA,
        kind::DATA,
        kind::CONTRIBUTE,
        kind::CONTRIBUTE,
        kind::COMBINED,
        kind::ANNOUNCE,
        kind::GRANT,
        kind::CREDIT,
    ]);
    let tag = prop_oneof![Just(sum()), 0u32..3];
    (
        0usize..5,
        kinds,
        0u8..4,
        tag,
        address.clone(),
        address,
        small.clone(),
        small,
        body,
    )
        .prop_map(
            |(who, kind, flags, tag, source, destination, sequence, epoch, body)| {
                let header = Header {
                    kind,
                    flags,
                    epoch: if epoch == 2 { 1 } else { 0 },
                    tag,
                    source,
                    destination,
                    sequence,
                    ..Header::default()
                };
                (who, Frame::new(header, body.into()))
            },
        )
}
