//! The bytes on the wire against `tests/golden/wire.txt`, and the documents' tables and examples against the code.
//!
//! Each entry of the golden file is spelled here a second time, field by field as `docs/PROTOCOL.md` says, and must be
//! what the code makes. `LSWITCH_GOLDEN=rewrite cargo test --test it wire` writes the file anew; review the difference.

use bytes::{Bytes, BytesMut};
use lswitch::graph::part::{PART_HEADER_BYTES, PART_MAGIC, PART_VERSION};
use lswitch::graph::{Manifest, Part};
use lswitch::job::driver::SWITCHES_MAX;
use lswitch::job::report::{Report, TAG};
use lswitch::lambda::cost::WorkerUsage;
use lswitch::lambda::event::{EVENT_MAX, Event, EventError, EventToken, VERSION};
use lswitch::net::client::{MAILBOX_BYTES, MAILBOX_MIN};
use lswitch::net::codec::{CONTROL_MAX, HELLO_MAX};
use lswitch::net::collective::{
    ANNOUNCED_MAX, ANSWER_INTERVAL, Exchange, Operation, PART_LEN, SEGMENT_MIN, WINDOW,
};
use lswitch::net::comm::GROUP;
use lswitch::net::driver_link::DRIVER_MAILBOX;
use lswitch::net::element::{Element, Fold};
use lswitch::net::flow::MESSAGE_COST;
use lswitch::net::frame::{
    BODY_MAX, CHECKSUM_LEN, CHUNK_MAX, DRIVER, FLAG_CRC32, FLAG_FIRST, FLAG_LAST, FLAG_SKIPPABLE,
    Frame, FrameError, HEADER_LEN, Header, MESSAGE_MAX, PREAMBLE, RANKS_MAX, SWITCH, TOTAL_LEN,
    chunks, kind,
};
use lswitch::net::message::{
    Abort, Alike, Control, End, FEATURE_CRC32, FEATURE_PROOF, Hello, Leave, Notice, Peer,
    REASON_MAX, Refusal, Refused, Role, Span, Start, Traffic, Welcome, bare_frame,
};
use lswitch::net::queues::QUEUE_MAX;
use lswitch::net::server::{CONNECTIONS_MAX, MEMORY, MEMORY_MIN};
use lswitch::net::shared::switch_between;
use lswitch::net::switch::{HELLO_WITHIN_MS, JOBS_MAX};
use lswitch::net::token::{Bearer, JobId, Nonce, Secret};
use lswitch::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use lswitch::random::parse_hex;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

const JOB: JobId = JobId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const SECRET: &str = "an example, and nobody's secret";
const EXPIRY_S: u64 = 1_900_000_000;
const NONCE: Nonce = [0xa5; 32];

/// Each rank's mailbox in the examples, in bytes.
const MAILBOX: u32 = 1 << 20;

/// Bytes, and what each of them means.
struct Spelling {
    title: &'static str,
    bytes: Vec<u8>,
    text: String,
}

impl Spelling {
    fn new(title: &'static str) -> Spelling {
        Spelling {
            title,
            bytes: Vec::new(),
            text: String::new(),
        }
    }

    fn put(mut self, bytes: &[u8], meaning: &str) -> Self {
        for (index, line) in bytes.chunks(16).enumerate() {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let meaning = if index == 0 { meaning } else { "" };
            let line = format!("{:<47}  {meaning}", hex.join(" "));
            writeln!(self.text, "{}", line.trim_end()).expect("strings take everything");
        }
        self.bytes.extend(bytes);
        self
    }

    fn u8(self, value: u8, meaning: &str) -> Self {
        self.put(&[value], meaning)
    }
    fn u16(self, value: u16, meaning: &str) -> Self {
        self.put(&value.to_le_bytes(), meaning)
    }
    fn u32(self, value: u32, meaning: &str) -> Self {
        self.put(&value.to_le_bytes(), meaning)
    }
    fn u64(self, value: u64, meaning: &str) -> Self {
        self.put(&value.to_le_bytes(), meaning)
    }
    fn string(self, value: &str, meaning: &str) -> Self {
        self.u64(value.len() as u64, &format!("{meaning}: length"))
            .put(value.as_bytes(), &format!("{meaning}: {value:?}"))
    }
    fn span(self, first_rank: u32, ranks: u32) -> Self {
        self.u32(first_rank, "first rank").u32(ranks, "ranks")
    }

    /// The header of a frame that a client or the switch addresses to the other.
    fn control(self, kind: u8, name: &str, from_switch: bool, length: u32) -> Self {
        let (source, destination) = if from_switch {
            ((SWITCH, "SWITCH"), (DRIVER, "DRIVER"))
        } else {
            ((DRIVER, "DRIVER"), (SWITCH, "SWITCH"))
        };
        self.header((kind, name), (0, ""), 0, source, destination, 0, length)
    }

    #[allow(clippy::too_many_arguments)]
    fn header(
        self,
        kind: (u8, &str),
        flags: (u8, &str),
        tag: u32,
        source: (u32, &str),
        destination: (u32, &str),
        sequence: u64,
        length: u32,
    ) -> Self {
        let named = |field: &str, name: &str| format!("{field} {name}").trim_end().to_owned();
        self.u8(kind.0, &named("kind", kind.1))
            .u8(flags.0, &named("flags", flags.1))
            .u16(0, "group")
            .u32(0, "epoch")
            .u32(tag, "tag")
            .u32(source.0, &named("source", source.1))
            .u32(destination.0, &named("destination", destination.1))
            .u64(sequence, "sequence")
            .u32(length, "length")
    }

    /// Spelled as the code makes it?
    fn of(self, made: &[u8]) -> String {
        assert_eq!(
            self.bytes, made,
            "{} is spelled otherwise than it is made",
            self.title
        );
        format!("== {}\n{}", self.title, self.text)
    }

    fn of_frame(self, frame: Frame) -> String {
        let mut made = BytesMut::new();
        frame.put(&mut made);
        self.of(&made)
    }
}

fn hello(role: Role) -> Hello {
    let key = Secret::new(SECRET).expect("long enough").job_key(JOB);
    let mut hello = Hello::new(JOB, key.token(Bearer::Driver, EXPIRY_S), role);
    hello.token = key.token(hello.bearer(), EXPIRY_S);
    // Not this build's, so that the file outlives it.
    hello.release = "0.1.0".into();
    hello
}

fn data(flags: u8, body: &[u8]) -> Frame {
    let header = Header {
        kind: kind::DATA,
        flags,
        tag: 7,
        source: 4,
        destination: 1,
        sequence: 2,
        ..Header::default()
    };
    Frame::new(header, Bytes::copy_from_slice(body))
}

/// Every entry of the golden file.
fn entries() -> Vec<String> {
    let new = Spelling::new;
    let pack = Role::Pack {
        span: Span {
            first_rank: 4,
            ranks: 2,
        },
        incarnation: 1,
        epoch: 0,
        mailbox: MAILBOX,
    };
    let driver_hello = hello(Role::Driver {
        size: 8,
        mailbox: MAILBOX,
        elastic: false,
    });
    let pack_hello = hello(pack);
    let key = Secret::new(SECRET).expect("long enough").job_key(JOB);
    let greeting = |spelling: Spelling, hello: &Hello, length: u32| {
        let (features, code) = match hello.nonce {
            None => ("features", "token's code"),
            Some(_) => ("features: PROOF", "token's code, sealed"),
        };
        spelling
            .control(kind::HELLO, "HELLO", false, length)
            .u16(1, "lowest protocol version")
            .u16(1, "highest protocol version")
            .u64(hello.features, features)
            .string("0.1.0", "release")
            .put(&JOB.0, "job")
            .u64(EXPIRY_S, "token's expiry")
            .put(&hello.token.code, code)
    };
    let asking_hello = pack_hello.challenging(NONCE);
    let welcome = Welcome {
        protocol: 1,
        features: 0,
        heartbeat_ms: 2_000,
        lost_after_ms: 10_000,
        proof: None,
    };
    let proved_welcome = Welcome {
        features: FEATURE_PROOF,
        proof: Some(pack_hello.token.proof(&NONCE)),
        ..welcome
    };
    let message = Bytes::from_static(b"one message");
    let crc = crc32c::crc32c(&message);
    let route = data(0, b"").header;
    let result = Report::Result(b"ok".to_vec()).to_bytes().expect("small");
    let to_driver = Header {
        source: 4,
        destination: DRIVER,
        tag: TAG,
        ..Header::default()
    };
    let sum = Operation::Fold(Fold::Sum, Element::I128).code();
    let barrier = Operation::Fold(Fold::Max, Element::U64).code();
    let collective = |kind, tag, source, destination, segment, body: &[&[u8]]| {
        let header = Header {
            kind,
            tag,
            source,
            destination,
            sequence: segment,
            ..Header::default()
        };
        Frame::new(header, body.concat().into())
    };
    let to_all = u32::MAX.to_le_bytes();
    let flow = |kind, tag, sequence, bytes: Option<u64>| {
        let header = Header {
            kind,
            tag,
            source: 4,
            destination: 1,
            sequence,
            ..Header::default()
        };
        let body = bytes.map(|bytes| bytes.to_le_bytes().to_vec());
        Frame::new(header, body.unwrap_or_default().into())
    };
    let notice = |title, length| new(title).control(kind::NOTICE, "NOTICE", true, length);
    let span = Span {
        first_rank: 4,
        ranks: 2,
    };
    let mut all = vec![
        new("> < the preamble, both ways")
            .put(b"LSWITCH\n", "LSWITCH\\n")
            .of(PREAMBLE),
        greeting(new("> the hello of a driver"), &driver_hello, 94)
            .u32(0, "role: driver")
            .u32(8, "size")
            .u32(MAILBOX, "mailbox")
            .u8(0, "elastic: no")
            .of_frame(driver_hello.to_frame(false)),
        greeting(new("> the hello of a pack"), &pack_hello, 105)
            .u32(1, "role: pack")
            .span(4, 2)
            .u32(1, "incarnation")
            .u32(0, "epoch")
            .u32(MAILBOX, "mailbox")
            .of_frame(pack_hello.to_frame(false)),
        greeting(
            new("> the hello of a pack that asks for a proof"),
            &asking_hello,
            137,
        )
        .u32(1, "role: pack")
        .span(4, 2)
        .u32(1, "incarnation")
        .u32(0, "epoch")
        .u32(MAILBOX, "mailbox")
        .put(&NONCE, "nonce")
        .of_frame(asking_hello.to_frame(false)),
        new("< welcome")
            .control(kind::WELCOME, "WELCOME", true, 18)
            .u16(1, "protocol version")
            .u64(0, "features")
            .u32(2_000, "heartbeat_ms")
            .u32(10_000, "lost_after_ms")
            .of_frame(welcome.to_frame(true)),
        new("< welcome, with the proof")
            .control(kind::WELCOME, "WELCOME", true, 50)
            .u16(1, "protocol version")
            .u64(2, "features: PROOF")
            .u32(2_000, "heartbeat_ms")
            .u32(10_000, "lost_after_ms")
            .put(&pack_hello.token.proof(&NONCE), "proof")
            .of_frame(proved_welcome.to_frame(true)),
        new("< refused, by the code of a wrong token")
            .control(kind::REFUSED, "REFUSED", true, 30)
            .u32(2, "code: Token")
            .string("the token is wrong", "reason")
            .of_frame(
                Refused {
                    code: Refusal::Token,
                    reason: "the token is wrong".into(),
                }
                .to_frame(true),
            ),
        new("< start, of four packs of two ranks, the last with larger mailboxes")
            .control(kind::START, "START", true, 48)
            .u64(2, "packs: count")
            .u32(3, "packs")
            .u32(2, "ranks of each")
            .u32(MAILBOX, "mailbox of each rank")
            .u32(0, "features")
            .u32(1, "packs")
            .u32(2, "ranks of each")
            .u32(2 * MAILBOX, "mailbox of each rank")
            .u32(1, "features: CRC32")
            .u32(MAILBOX, "driver_mailbox")
            .u32(65_536, "segment")
            .of_frame(
                Start {
                    packs: vec![
                        Alike {
                            packs: 3,
                            ranks: 2,
                            mailbox: MAILBOX,
                            features: 0,
                        },
                        Alike {
                            packs: 1,
                            ranks: 2,
                            mailbox: 2 * MAILBOX,
                            features: FEATURE_CRC32,
                        },
                    ],
                    driver_mailbox: MAILBOX,
                    segment: 65_536,
                }
                .to_frame(true),
            ),
        new("> heartbeat of a client")
            .control(kind::HEARTBEAT, "HEARTBEAT", false, 0)
            .of_frame(bare_frame(kind::HEARTBEAT, false)),
        new("< heartbeat of the switch")
            .control(kind::HEARTBEAT, "HEARTBEAT", true, 0)
            .of_frame(bare_frame(kind::HEARTBEAT, true)),
        new("> leave, done")
            .control(kind::LEAVE, "LEAVE", false, 1)
            .u8(0, "failure: none")
            .of_frame(Leave { failure: None }.to_frame(false)),
        new("> leave, failed")
            .control(kind::LEAVE, "LEAVE", false, 17)
            .u8(1, "failure: some")
            .string("it broke", "failure")
            .of_frame(
                Leave {
                    failure: Some("it broke".into()),
                }
                .to_frame(false),
            ),
        new("< left")
            .control(kind::LEFT, "LEFT", true, 0)
            .of_frame(bare_frame(kind::LEFT, true)),
        new("< end")
            .control(kind::END, "END", true, 14)
            .string("enough", "reason")
            .of_frame(
                End {
                    reason: "enough".into(),
                }
                .to_frame(true),
            ),
        new("> abort")
            .control(kind::ABORT, "ABORT", false, 14)
            .string("enough", "reason")
            .of_frame(
                Abort {
                    reason: "enough".into(),
                }
                .to_frame(false),
            ),
        notice("< notice: joined", 24)
            .u32(0, "joined")
            .span(4, 2)
            .u32(1, "incarnation")
            .u32(MAILBOX, "mailbox of each rank")
            .u32(0, "features")
            .of_frame(
                Notice::Joined {
                    span,
                    incarnation: 1,
                    mailbox: MAILBOX,
                    features: 0,
                }
                .to_frame(true),
            ),
        notice("< notice: started", 4)
            .u32(1, "started")
            .of_frame(Notice::Started.to_frame(true)),
        notice("< notice: left, done", 13)
            .u32(2, "left")
            .span(4, 2)
            .u8(0, "failure: none")
            .of_frame(
                Notice::Left {
                    span,
                    failure: None,
                }
                .to_frame(true),
            ),
        notice("< notice: left, failed", 29)
            .u32(2, "left")
            .span(4, 2)
            .u8(1, "failure: some")
            .string("it broke", "failure")
            .of_frame(
                Notice::Left {
                    span,
                    failure: Some("it broke".into()),
                }
                .to_frame(true),
            ),
        notice("< notice: lost", 25)
            .u32(3, "lost")
            .span(4, 2)
            .string("reset", "reason")
            .of_frame(
                Notice::Lost {
                    span,
                    reason: "reset".into(),
                }
                .to_frame(true),
            ),
        notice("< notice: traffic", 28)
            .u32(4, "traffic")
            .u64(3, "messages")
            .u64(1_000, "bytes")
            .u64(250, "switch_cpu_us")
            .of_frame(
                Notice::Traffic(Traffic {
                    messages: 3,
                    bytes: 1_000,
                    switch_cpu_us: 250,
                })
                .to_frame(true),
            ),
    ];
    let data_header = |title, flags, length| {
        new(title).header((kind::DATA, "DATA"), flags, 7, (4, ""), (1, ""), 2, length)
    };
    all.extend([
        data_header("> < data: a message in one chunk", (3, "FIRST, LAST"), 23)
            .u64(11, "total")
            .put(&message, "payload")
            .u32(crc, "CRC32C")
            .of_frame(chunks(route, &message).next().expect("one chunk")),
        data_header(
            "> < data: the same message in two chunks, the first",
            (1, "FIRST"),
            11,
        )
        .u64(11, "total")
        .put(b"one", "payload")
        .of_frame(data(
            FLAG_FIRST,
            &[&11u64.to_le_bytes()[..], b"one"].concat(),
        )),
        data_header(
            "> < data: the same message in two chunks, the last",
            (2, "LAST"),
            12,
        )
        .put(b" message", "payload")
        .u32(crc, "CRC32C")
        .of_frame(data(
            FLAG_LAST,
            &[b" message", &crc.to_le_bytes()[..]].concat(),
        )),
        data_header(
            "> < data: a message for a rank that asks for CRC-32",
            (7, "FIRST, LAST, CRC32"),
            23,
        )
        .u64(11, "total")
        .put(&message, "payload")
        .u32(crc32fast::hash(&message), "CRC-32")
        .of_frame({
            let flags = FLAG_CRC32;
            chunks(Header { flags, ..route }, &message)
                .next()
                .expect("one chunk")
        }),
        data_header("> < data: an empty message", (3, "FIRST, LAST"), 12)
            .u64(0, "total")
            .u32(0, "CRC32C")
            .of_frame(chunks(route, &[]).next().expect("one chunk")),
        new("> data: a rank's result for the driver")
            .header(
                (kind::DATA, "DATA"),
                (3, "FIRST, LAST"),
                0,
                (4, ""),
                (DRIVER, "DRIVER"),
                0,
                26,
            )
            .u64(14, "total")
            .u32(1, "result")
            .u64(2, "bytes: count")
            .put(b"ok", "bytes")
            .u32(crc32c::crc32c(&result), "CRC32C")
            .of_frame(chunks(to_driver, &result).next().expect("one chunk")),
        new("> < announce: a message of 20,000,000 bytes")
            .header(
                (kind::ANNOUNCE, "ANNOUNCE"),
                (0, ""),
                7,
                (4, ""),
                (1, ""),
                3,
                8,
            )
            .u64(20_000_000, "total")
            .of_frame(flow(kind::ANNOUNCE, 7, 3, Some(20_000_000))),
        new("> < grant: of message 3 from rank 1")
            .header((kind::GRANT, "GRANT"), (0, ""), 0, (4, ""), (1, ""), 3, 0)
            .of_frame(flow(kind::GRANT, 0, 3, None)),
        new("> < credit: back to the pack whose first rank is 1")
            .header((kind::CREDIT, "CREDIT"), (0, ""), 0, (4, ""), (1, ""), 0, 8)
            .u64(350_000, "bytes")
            .of_frame(flow(kind::CREDIT, 0, 0, Some(350_000))),
        new("> contribute: two elements to a sum")
            .header(
                (kind::CONTRIBUTE, "CONTRIBUTE"),
                (0, ""),
                0x0105,
                (4, ""),
                (SWITCH, "SWITCH"),
                0,
                44,
            )
            .u64(32, "total")
            .u32(u32::MAX, "root: none")
            .put(&5i128.to_le_bytes(), "5")
            .put(&(-1i128).to_le_bytes(), "-1")
            .of_frame(collective(
                kind::CONTRIBUTE,
                sum,
                4,
                SWITCH,
                0,
                &[
                    &32u64.to_le_bytes(),
                    &to_all,
                    &5i128.to_le_bytes(),
                    &(-1i128).to_le_bytes(),
                ],
            )),
        new("< combined: their sum")
            .header(
                (kind::COMBINED, "COMBINED"),
                (0, ""),
                0x0105,
                (SWITCH, "SWITCH"),
                (4, ""),
                0,
                44,
            )
            .u64(32, "total")
            .u32(u32::MAX, "root: none")
            .put(&(1i128 << 100).to_le_bytes(), "2^100")
            .put(&7i128.to_le_bytes(), "7")
            .of_frame(collective(
                kind::COMBINED,
                sum,
                SWITCH,
                4,
                0,
                &[
                    &32u64.to_le_bytes(),
                    &to_all,
                    &(1i128 << 100).to_le_bytes(),
                    &7i128.to_le_bytes(),
                ],
            )),
        new("> contribute: a barrier")
            .header(
                (kind::CONTRIBUTE, "CONTRIBUTE"),
                (0, ""),
                0x0304,
                (4, ""),
                (SWITCH, "SWITCH"),
                1,
                12,
            )
            .u64(0, "total")
            .u32(u32::MAX, "root: none")
            .of_frame(collective(
                kind::CONTRIBUTE,
                barrier,
                4,
                SWITCH,
                1,
                &[&0u64.to_le_bytes(), &to_all],
            )),
        new("> contribute: to a broadcast from rank 0")
            .header(
                (kind::CONTRIBUTE, "CONTRIBUTE"),
                (0, ""),
                0x0400,
                (4, ""),
                (SWITCH, "SWITCH"),
                2,
                12,
            )
            .u64(0, "total")
            .u32(0, "root")
            .of_frame(collective(
                kind::CONTRIBUTE,
                Operation::Broadcast.code(),
                4,
                SWITCH,
                2,
                &[&0u64.to_le_bytes(), &0u32.to_le_bytes()],
            )),
        new("> contribute: the announcement of a gather to rank 1")
            .header(
                (kind::CONTRIBUTE, "CONTRIBUTE"),
                (0, ""),
                0x0501,
                (4, ""),
                (SWITCH, "SWITCH"),
                3,
                12,
            )
            .u64(0, "total")
            .u32(1, "root")
            .of_frame(collective(
                kind::CONTRIBUTE,
                Operation::Exchange(Exchange::Gather).code(),
                4,
                SWITCH,
                3,
                &[&0u64.to_le_bytes(), &1u32.to_le_bytes()],
            )),
        new("a progress report, as the driver reads it")
            .u32(0, "progress")
            .u64(12, "superstep")
            .put(&0.5f64.to_le_bytes(), "measure 0.5")
            .of(&Report::Progress {
                step: 12,
                measure: 0.5,
            }
            .to_bytes()
            .expect("small")),
        new("what a pack has taken, as the driver reads it")
            .u32(2, "usage")
            .u32(1769, "memory in MB")
            .put(&[1], "on Graviton")
            .u64(61_250, "milliseconds")
            .u64(0, "requests that write")
            .u64(0, "requests that read")
            .of(&Report::Usage(WorkerUsage {
                memory_mb: 1769,
                arm: true,
                elapsed_ms: 61_250,
                store_writes: 0,
                store_reads: 0,
            })
            .to_bytes()
            .expect("small")),
        {
            let driver = key.token(Bearer::Driver, EXPIRY_S).code;
            let pack = Bearer::Pack {
                first_rank: 4,
                ranks: 2,
                incarnation: 1,
            };
            let pack = key.token(pack, EXPIRY_S).code;
            new("tokens: HMAC-SHA256, see Tokens in PROTOCOL.md")
                .put(SECRET.as_bytes(), &format!("secret: {SECRET:?}"))
                .put(&JOB.0, "job")
                .u64(EXPIRY_S, "expiry")
                .put(&driver, "the driver's code")
                .put(&pack, "the code of ranks 4-5, incarnation 1")
                .of(&[
                    SECRET.as_bytes(),
                    &JOB.0,
                    &EXPIRY_S.to_le_bytes(),
                    &driver,
                    &pack,
                ]
                .concat())
        },
    ]);
    all
}

fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const GOLDEN: &str = "tests/golden/wire.txt";

#[test]
fn bytes_on_the_wire_are_those_of_the_golden_file() {
    let head = "# The bytes of protocol version 1 (docs/PROTOCOL.md), spelled field by field: > from a client, < from the switch.\n\
                # Made and compared by tests/it/wire.rs; LSWITCH_GOLDEN=rewrite writes it anew.\n\n";
    let text = format!("{head}{}", entries().join("\n"));
    if std::env::var("LSWITCH_GOLDEN").is_ok_and(|value| value == "rewrite") {
        std::fs::write(in_repository(GOLDEN), &text).expect("the golden file can be written");
    }
    let golden = read(GOLDEN);
    for (number, (found, golden)) in (1..).zip(text.lines().zip(golden.lines())) {
        assert_eq!(
            found, golden,
            "{GOLDEN}:{number}; LSWITCH_GOLDEN=rewrite if that is meant"
        );
    }
    assert_eq!(text.len(), golden.len(), "{GOLDEN} ends earlier or later");
}

/// The frames of the golden file, read back from its hexadecimal digits alone.
pub fn golden_frames() -> Vec<(String, BytesMut)> {
    let golden = read(GOLDEN);
    let mut frames: Vec<(String, BytesMut)> = Vec::new();
    for line in golden.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            frames.push((title.to_owned(), BytesMut::new()));
        } else if let Some((_, bytes)) = frames.last_mut() {
            let hex = &line[..line.len().min(47)];
            bytes.extend(
                hex.split_whitespace()
                    .map(|byte| parse_hex::<1>(byte).expect("two digits")[0]),
            );
        }
    }
    frames.retain(|(title, _)| title.starts_with(['>', '<']) && !title.contains("preamble"));
    frames
}

#[test]
fn the_golden_bytes_decode_to_what_they_say_and_to_nothing_when_cut() {
    let frames = golden_frames();
    let kinds: BTreeSet<u8> = frames.iter().map(|(_, bytes)| bytes[0]).collect();
    let known: BTreeSet<u8> = (0..=u8::MAX)
        .filter(|&number| kind::is_known(number) && number != kind::STATE)
        .collect();
    assert_eq!(kinds, known, "each kind has its bytes in the file");
    for (title, whole) in frames {
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(
                Frame::decode(&mut part, BODY_MAX),
                Ok(None),
                "{title} cut at {cut}"
            );
        }
        let frame = Frame::decode(&mut whole.clone(), BODY_MAX)
            .expect(&title)
            .expect(&title);
        let mut again = BytesMut::new();
        frame.put(&mut again);
        assert_eq!(again, whole, "{title}");
        let body = &frame.body;
        // Each control message is what it was, and neither a byte less nor a byte more.
        macro_rules! round_trip {
            ($type:ident) => {{
                let message = $type::from_body(body).expect(&title);
                assert_eq!(message.to_frame(title.starts_with('<')), frame, "{title}");
                assert!(
                    $type::from_body(&body.slice(..body.len() - 1)).is_err(),
                    "{title}, cut"
                );
                let longer = Bytes::from([body, b"\0".as_slice()].concat());
                assert!($type::from_body(&longer).is_err(), "{title}, and a byte");
            }};
        }
        match frame.header.kind {
            kind::HELLO => round_trip!(Hello),
            kind::WELCOME => round_trip!(Welcome),
            kind::REFUSED => round_trip!(Refused),
            kind::START => round_trip!(Start),
            kind::LEAVE => round_trip!(Leave),
            kind::END => round_trip!(End),
            kind::NOTICE => round_trip!(Notice),
            kind::ABORT => round_trip!(Abort),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn control_messages_made_of_noise_are_errors_and_not_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        let _ = (Hello::from_body(&body), Welcome::from_body(&body), Refused::from_body(&body), Start::from_body(&body));
        let _ = (Leave::from_body(&body), End::from_body(&body), Notice::from_body(&body), Abort::from_body(&body));
        let _ = (Report::from_bytes(&body), Hello::protocols_in(&body), Part::decode(body.clone(), "noise"));
    }
}

/// The rows of the table that follows `<!-- table: NAME -->`, without its head.
fn table(document: &str, name: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let mark = format!("<!-- table: {name} -->\n");
    let (_, rest) = text
        .split_once(&mark)
        .unwrap_or_else(|| panic!("{document} has no table {name}"));
    let rows = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "{document}: table {name} is empty");
    rows
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// First columns, as `NAME = VALUE`.
fn named(rows: &[Vec<String>], name: usize, value: usize) -> Vec<(String, u64)> {
    rows.iter()
        .map(|row| (row[name].clone(), number(&row[value])))
        .collect()
}

fn constants<const N: usize>(constants: [(&str, u64); N]) -> Vec<(String, u64)> {
    constants
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}

const PROTOCOL: &str = "docs/PROTOCOL.md";

#[test]
fn the_protocols_header_table_is_the_codes_header() {
    let rows = table(PROTOCOL, "header");
    let mut end = 0;
    for row in &rows {
        let (offset, size) = (number(&row[0]) as usize, number(&row[1]) as usize);
        assert_eq!(offset, end, "{row:?} follows the one before");
        end = offset + size;
        let mut header = Header::default();
        let mut body = Bytes::new();
        match row[2].as_str() {
            "kind" => header.kind = u8::MAX,
            "flags" => header.flags = u8::MAX,
            "group" => header.group = u16::MAX,
            "epoch" => header.epoch = u32::MAX,
            "tag" => header.tag = u32::MAX,
            "source" => header.source = u32::MAX,
            "destination" => header.destination = u32::MAX,
            "sequence" => header.sequence = u64::MAX,
            "length" => body = Bytes::from(vec![0xff; 0x0102]),
            other => panic!("the header has no field {other}"),
        }
        let is_length = !body.is_empty();
        let mut bytes = BytesMut::new();
        Frame::new(header, body).header.put(&mut bytes);
        let set: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 0).collect();
        if is_length {
            assert_eq!(bytes[offset..end], [2, 1, 0, 0]);
        } else {
            assert_eq!(set, (offset..end).collect::<Vec<_>>(), "{row:?}");
        }
    }
    assert_eq!((rows.len(), end), (9, HEADER_LEN));
}

#[test]
fn the_protocols_numbers_are_the_codes() {
    let kinds = table(PROTOCOL, "kinds");
    assert_eq!(
        named(&kinds, 1, 0),
        constants([
            ("HELLO", kind::HELLO.into()),
            ("WELCOME", kind::WELCOME.into()),
            ("REFUSED", kind::REFUSED.into()),
            ("START", kind::START.into()),
            ("HEARTBEAT", kind::HEARTBEAT.into()),
            ("LEAVE", kind::LEAVE.into()),
            ("LEFT", kind::LEFT.into()),
            ("END", kind::END.into()),
            ("NOTICE", kind::NOTICE.into()),
            ("ABORT", kind::ABORT.into()),
            ("DATA", kind::DATA.into()),
            ("CONTRIBUTE", kind::CONTRIBUTE.into()),
            ("COMBINED", kind::COMBINED.into()),
            ("ANNOUNCE", kind::ANNOUNCE.into()),
            ("GRANT", kind::GRANT.into()),
            ("CREDIT", kind::CREDIT.into()),
            ("STATE", kind::STATE.into()),
            ("RESUME", kind::RESUME.into()),
            ("EPOCH", kind::EPOCH.into()),
            ("LOG", kind::LOG.into()),
            ("GROUP", kind::GROUP.into()),
        ])
    );
    let told: Vec<u8> = kinds
        .iter()
        .filter(|row| row[2] != "reserved")
        .map(|row| number(&row[0]) as u8)
        .collect();
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|&number| kind::is_known(number))
        .collect();
    assert_eq!(told, known, "what is not reserved is understood");
    assert_eq!(
        named(&table(PROTOCOL, "flags"), 1, 0),
        constants([
            ("FIRST", FLAG_FIRST.into()),
            ("LAST", FLAG_LAST.into()),
            ("CRC32", FLAG_CRC32.into()),
            ("SKIPPABLE", FLAG_SKIPPABLE.into()),
        ])
    );
    assert_eq!(
        named(&table(PROTOCOL, "addresses"), 1, 0),
        constants([("DRIVER", DRIVER.into()), ("SWITCH", SWITCH.into())])
    );
    assert_eq!(
        named(&table(PROTOCOL, "limits"), 0, 1),
        constants([
            ("HEADER_LEN", HEADER_LEN as u64),
            ("TOTAL_LEN", TOTAL_LEN as u64),
            ("CHECKSUM_LEN", CHECKSUM_LEN as u64),
            ("CHUNK_MAX", CHUNK_MAX as u64),
            ("BODY_MAX", BODY_MAX as u64),
            ("HELLO_MAX", HELLO_MAX as u64),
            ("CONTROL_MAX", CONTROL_MAX as u64),
            ("REASON_MAX", REASON_MAX as u64),
            ("MESSAGE_MAX", MESSAGE_MAX),
            ("MESSAGE_COST", MESSAGE_COST),
            ("MAILBOX_BYTES", MAILBOX_BYTES.into()),
            ("MAILBOX_MIN", MAILBOX_MIN.into()),
            ("DRIVER_MAILBOX", DRIVER_MAILBOX.into()),
            ("RANKS_MAX", RANKS_MAX.into()),
            ("SWITCHES_MAX", SWITCHES_MAX as u64),
            ("PART_LEN", PART_LEN as u64),
            ("WINDOW", WINDOW as u64),
            ("ANSWER_INTERVAL", ANSWER_INTERVAL),
            ("ANNOUNCED_MAX", ANNOUNCED_MAX),
            ("SEGMENT_MIN", SEGMENT_MIN as u64),
            ("QUEUE_MAX", QUEUE_MAX as u64),
            ("MEMORY", MEMORY as u64),
            ("MEMORY_MIN", MEMORY_MIN as u64),
            ("JOBS_MAX", JOBS_MAX as u64),
            ("CONNECTIONS_MAX", CONNECTIONS_MAX as u64),
            ("HELLO_WITHIN_MS", HELLO_WITHIN_MS),
            ("HEARTBEAT_MS", HEARTBEAT_MS),
            ("LOST_AFTER_MS", LOST_AFTER_MS),
        ])
    );
}

#[test]
fn the_protocols_operations_are_the_codes() {
    let told = [table(PROTOCOL, "folds"), table(PROTOCOL, "elements")];
    let words = |rows: &[Vec<String>]| named(rows, 1, 0);
    let exchanges = Exchange::ALL.map(|exchange| {
        let code = Operation::Exchange(exchange).code();
        (exchange.to_string(), code.into())
    });
    assert_eq!(words(&table(PROTOCOL, "exchanges")), exchanges);
    let folds = Fold::ALL.map(|fold| (fold.to_string(), fold.code().into()));
    assert_eq!(words(&told[0]), folds);
    let elements = Element::ALL.map(|element| (element.to_string(), element.code().into()));
    assert_eq!(words(&told[1]), elements);
    for (row, element) in told[1].iter().zip(Element::ALL) {
        assert_eq!(number(&row[2]) as usize, element.size(), "{row:?}");
    }
    let text = read(PROTOCOL);
    for (what, code) in [
        ("a broadcast is ", Operation::Broadcast.code()),
        (
            "the reference client's barrier is ",
            Operation::Fold(Fold::Max, Element::U64).code(),
        ),
    ] {
        assert!(text.contains(&format!("{what}0x{code:04x}")), "{what}");
    }
    assert!(text.contains(&format!("group 0x{GROUP:04x}")));
}

#[test]
fn the_protocols_example_of_switches_between_packs_is_the_codes() {
    for row in table(PROTOCOL, "switches") {
        let [low, high, two, three, eight] = &row[..] else {
            panic!("{row:?}");
        };
        let (low, high) = (number(low) as u32, number(high) as u32);
        for (switches, expected) in [(2, two), (3, three), (8, eight)] {
            let found = switch_between(low, high, switches) as u64;
            assert_eq!(found, number(expected), "{row:?} of {switches}");
            assert_eq!(switch_between(high, low, switches) as u64, found);
        }
        assert_eq!(switch_between(low, high, 1), 0);
    }
}

#[test]
fn the_protocols_refusal_codes_are_the_codes() {
    for row in table(PROTOCOL, "refusals") {
        let code = number(&row[0]) as u32;
        let body = [&code.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
        let refused = Refused::from_body(&body).expect("it is a code");
        assert_eq!(format!("{:?}", refused.code), row[1]);
    }
    let next = table(PROTOCOL, "refusals").len() as u32;
    let body = [&next.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
    assert!(Refused::from_body(&body).is_err(), "a code is not told");
}

#[test]
fn the_largest_start_fits_into_its_frame() {
    // As many packs as there are connections, no two neighbours alike.
    let packs = (0..CONNECTIONS_MAX as u32).map(|first_rank| {
        let span = Span {
            first_rank,
            ranks: 1,
        };
        Peer {
            span,
            mailbox: MAILBOX + first_rank % 2,
            features: 0,
        }
    });
    let start: Start = packs.collect();
    let frame = start.to_frame(true);
    assert!(frame.body.len() <= CONTROL_MAX);
    assert_eq!(
        Start::from_body(&frame.body).expect("within the limit"),
        start
    );
}

#[test]
fn the_protocols_transcript_is_taken_from_the_golden_file() {
    let (text, golden) = (read(PROTOCOL), read(GOLDEN));
    let (_, transcript) = text.split_once("## A transcript").expect("there is one");
    let (_, transcript) = transcript.split_once("```text\n").expect("it is fenced");
    let (transcript, _) = transcript.split_once("```").expect("it ends");
    let blocks: Vec<&str> = transcript.split("\n\n").map(str::trim).collect();
    assert!(blocks.len() >= 6, "{transcript}");
    for block in blocks {
        assert!(
            block.starts_with("== ") && golden.contains(&format!("{block}\n")),
            "{block}"
        );
    }
}

fn json_in(document: &str) -> Value {
    let text = read(document);
    let (_, json) = text.split_once("```json\n").expect("there is an example");
    let (json, _) = json.split_once("```").expect("it ends");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The names of an object's fields, and of the objects in it, dotted; the user's own parts are not looked into.
fn fields(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    let object = match value {
        Value::Object(object) => object,
        Value::Array(list) => {
            return list
                .iter()
                .for_each(|element| fields(element, prefix, into));
        }
        _ => return,
    };
    for (name, value) in object {
        into.insert(format!("{prefix}{name}"));
        if !matches!(name.as_str(), "arguments" | "event") {
            fields(value, &format!("{prefix}{name}."), into);
        }
    }
}

fn assert_documented(document: &str, name: &str, example: &Value) {
    let mut found = BTreeSet::new();
    fields(example, "", &mut found);
    let told: BTreeSet<String> = table(document, name)
        .into_iter()
        .map(|mut row| row.remove(0))
        .collect();
    assert_eq!(
        told, found,
        "{document}: the table has the example's fields"
    );
}

const EVENT: &str = "docs/EVENT.md";

#[test]
fn the_example_event_starts_a_pack_and_holds_every_field() {
    let example = json_in(EVENT);
    let event = Event::parse(example.clone()).expect("the example is an event");
    let again = serde_json::to_value(&event).expect("events are JSON");
    assert_eq!(again, example, "nothing is lost, and nothing is missing");
    assert_documented(EVENT, "event", &example);
    assert_eq!(event.version, VERSION);
    assert!(read(EVENT).contains(&format!("at most {EVENT_MAX} bytes")));
    // Its token is the one of the golden file.
    let job = JobId(parse_hex(&event.job).expect("32 digits"));
    let bearer = Bearer::Pack {
        first_rank: event.first_rank,
        ranks: event.ranks,
        incarnation: event.incarnation,
    };
    let token = Secret::new(SECRET)
        .expect("long enough")
        .job_key(job)
        .token(bearer, event.token.expiry_s);
    let code: String = token
        .code
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        (event.token, job),
        (
            EventToken {
                expiry_s: EXPIRY_S,
                code
            },
            JOB
        )
    );
}

#[test]
fn events_are_refused_as_the_document_says() {
    let example = json_in(EVENT);
    let names: Vec<String> = example
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    for name in names {
        let mut without = example.clone();
        without.as_object_mut().expect("an object").remove(&name);
        match (name.as_str(), Event::parse(without)) {
            ("event", outcome) => {
                assert_eq!(outcome.expect("it may be missing").event, Value::Null)
            }
            (_, Err(EventError::Malformed(_))) => {}
            (_, other) => panic!("without {name}: {other:?}"),
        }
    }
    let mut more = example.clone();
    more["later"] = 1.into();
    Event::parse(more).expect("what is not listed is ignored");
    for (version, words) in [
        (0.into(), "got version 0"),
        (2.into(), "got version 2"),
        ("1".into(), "no version"),
        ((-1).into(), "no version"),
    ] {
        let mut other = example.clone();
        other["version"] = version;
        other["switches"] = Value::Null;
        let error = Event::parse(other)
            .expect_err("another version")
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut large = Event::parse(example).expect("the example is an event");
    assert!(large.to_json().expect("it fits").len() < EVENT_MAX);
    large.event = "x".repeat(EVENT_MAX).into();
    assert!(matches!(large.to_json(), Err(EventError::TooLarge { bytes }) if bytes > EVENT_MAX));
}

const FORMAT: &str = "docs/FORMAT.md";

#[test]
fn the_example_manifest_is_one_and_holds_every_field() {
    let example = json_in(FORMAT);
    let manifest =
        Manifest::parse(example.to_string().as_bytes(), "the example").expect("it is a manifest");
    let again: Value = serde_json::from_str(&manifest.to_json()).expect("JSON");
    assert_eq!(again, example, "nothing is lost, and nothing is missing");
    assert_documented(FORMAT, "manifest", &example);
}

#[test]
fn the_formats_tables_find_every_field_of_a_part() {
    // Part 1 of 2: 0 -> 1 <- 2, with vertices 1 and 2 here; ids are ten times as large.
    let part = Part {
        part: 1,
        parts: 2,
        ids: vec![10, 20, 40].into(),
        out_degree: vec![1, 2, 0].into(),
        offsets: vec![0, 2, 2, 3].into(),
        sources: vec![3, 1, 0].into(),
        ghost_offsets: vec![0, 1, 1].into(),
        ghost_index: vec![0].into(),
        send_offsets: vec![0, 2, 2].into(),
        send_index: vec![0, 1].into(),
        weights: Some(vec![0.5, -1.0, 3.0].into()),
        out_weights: Some(vec![-1.0, 7.5, 0.0, 3.0].into()),
    };
    let bytes = part.encode();
    assert_eq!(
        Part::decode(bytes.clone(), "example").expect("it is a part"),
        part
    );
    let counts = [
        ("vertices", 3u64),
        ("edges", 3),
        ("ghosts", 1),
        ("sends", 2),
        ("parts", 2),
    ];
    let count = |name: &str| {
        counts
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a count")
            .1
    };
    let mut end = 0;
    for row in table(FORMAT, "part") {
        let (offset, size) = (number(&row[0]) as usize, number(&row[1]) as usize);
        assert_eq!(offset, end, "{row:?} follows the one before");
        end = offset + size;
        let field = &bytes[offset..end];
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(field);
        let value = u64::from_le_bytes(wide);
        let expected = match row[2].as_str() {
            "magic" => u64::from_le_bytes(PART_MAGIC),
            "version" => PART_VERSION.into(),
            "part" => 1,
            "flags" => 1,
            "reserved" => 0,
            "header_crc32c" => crc32c::crc32c(&bytes[..60]).into(),
            name => count(name),
        };
        assert_eq!(value, expected, "{row:?}");
    }
    assert_eq!(end, PART_HEADER_BYTES);
    for row in table(FORMAT, "arrays") {
        let entries = match row[1].split_once(" + ") {
            Some((name, more)) => count(name) + more.parse().unwrap_or_else(|_| count(more)),
            None => count(&row[1]),
        } as usize;
        let width = if row[2] == "u32" { 4 } else { 8 };
        let found: Vec<u64> = bytes[end..end + entries * width]
            .chunks(width)
            .map(|entry| {
                let mut wide = [0; 8];
                wide[..width].copy_from_slice(entry);
                u64::from_le_bytes(wide)
            })
            .collect();
        let wide = |narrow: &[u32]| narrow.iter().map(|&value| value.into()).collect();
        let expected: Vec<u64> = match row[0].as_str() {
            "ids" => part.ids.to_vec(),
            "out_degree" => wide(&part.out_degree),
            "offsets" => part.offsets.to_vec(),
            "sources" => wide(&part.sources),
            "ghost_offsets" => part.ghost_offsets.to_vec(),
            "ghost_index" => wide(&part.ghost_index),
            "send_offsets" => part.send_offsets.to_vec(),
            "send_index" => wide(&part.send_index),
            "weights" => {
                let weights = part.weights.iter().flatten();
                weights.map(|weight| weight.to_bits()).collect()
            }
            "out_weights" => {
                let sums = part.out_weights.iter().flatten();
                sums.map(|sum| sum.to_bits()).collect()
            }
            other => panic!("a part has no array {other}"),
        };
        assert_eq!(found, expected, "{}", row[0]);
        let padded = end + (entries * width).next_multiple_of(8);
        assert!(
            bytes[end + entries * width..padded]
                .iter()
                .all(|&byte| byte == 0)
        );
        end = padded;
    }
    let arrays = crc32c::crc32c(&bytes[PART_HEADER_BYTES..end]);
    assert_eq!(bytes[end..], u64::from(arrays).to_le_bytes(), "the trailer");
}

#[test]
fn a_hello_and_a_welcome_say_by_their_features_whether_32_bytes_follow() {
    let role = Role::Driver {
        size: 8,
        mailbox: MAILBOX,
        elastic: false,
    };
    let plain = hello(role);
    let asking = plain.challenging(NONCE);
    assert_eq!(asking.features, FEATURE_PROOF);
    assert_ne!(asking.token, plain.token, "the token is not shown");
    let welcome = Welcome {
        protocol: 1,
        features: FEATURE_PROOF,
        heartbeat_ms: 2_000,
        lost_after_ms: 10_000,
        proof: Some([7; 32]),
    };
    let [plain_body, asking_body, welcome_body] = [
        plain.to_frame(false).body,
        asking.to_frame(false).body,
        welcome.to_frame(true).body,
    ];
    assert_eq!(asking_body.len(), plain_body.len() + NONCE.len());
    assert!(asking_body.len() <= HELLO_MAX);
    assert_eq!(Hello::from_body(&plain_body).expect("it is one"), plain);
    assert_eq!(Hello::from_body(&asking_body).expect("it is one"), asking);
    assert_eq!(
        Welcome::from_body(&welcome_body).expect("it is one"),
        welcome
    );
    for length in 0..asking_body.len() {
        assert!(
            Hello::from_body(&asking_body[..length]).is_err(),
            "{length}"
        );
    }
    for length in 0..welcome_body.len() {
        assert!(
            Welcome::from_body(&welcome_body[..length]).is_err(),
            "{length}"
        );
    }
    // What follows without the feature is too much.
    let more = [&plain_body[..], &NONCE].concat();
    assert!(Hello::from_body(&more).is_err());
}

#[test]
fn a_body_over_its_limit_is_refused_before_it_arrives() {
    for (limit, kind) in [(HELLO_MAX, kind::HELLO), (BODY_MAX, kind::DATA)] {
        let mut bytes = BytesMut::new();
        bare_frame(kind, false).put(&mut bytes);
        let length = limit as u32 + 1;
        bytes[28..32].copy_from_slice(&length.to_le_bytes());
        let expected = FrameError::TooLong {
            kind,
            length,
            limit,
        };
        assert_eq!(Frame::decode(&mut bytes, limit), Err(expected));
    }
}
