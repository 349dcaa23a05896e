//! Damaged bytes for everything that decodes what a peer sends: the switch, as a stranger, a pack and a driver meet it,
//! frames, chunks, control messages and requests of the shared state. Frames of the golden file are flipped, cut, spliced
//! and given lying lengths, from a seed; nothing may panic, ask for more than a frame, or reach another job.
//!
//! Runs for `LSWITCH_FUZZ_SECONDS`. An input that fails is repeated by `LSWITCH_FUZZ_SEED` alone, since every few inputs
//! begin with everything new.

use crate::random::{Random, variable};
use crate::schedules::{NOW, hello, secret};
use crate::wire::golden_frames;
use bytes::{Bytes, BytesMut};
use lswitch::net::codec::HELLO_MAX;
use lswitch::net::collective::Part;
use lswitch::net::egress::{ConnectionId, Egress};
use lswitch::net::frame::{
    BODY_MAX, CHUNK_MAX, Chunk, DRIVER, FRAME_MAX, Frame, HEADER_LEN, Header, PREAMBLE, SWITCH,
    chunks, kind,
};
use lswitch::net::message::{
    Abort, Control, End, Hello, Leave, Notice, Refused, Role, Span, Start, Welcome,
};
use lswitch::net::reassembly::Reassembly;
use lswitch::net::state::{
    Blob, CounterVerb, Element, QueueVerb, Reply, Request, VALUES_MAX, VectorVerb,
};
use lswitch::net::switch::Switch;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Seconds that a run of the tests takes for this.
const SECONDS: u64 = 5;

/// Inputs for one switch, after which all begins anew.
const INPUTS: u64 = 64;

/// What the switch may hold.
const MEMORY: usize = 1 << 20;

/// Packs of the job that the inputs are sent to, of two ranks each; the other job has as many.
const PACKS: u64 = 3;

/// What the switch did, in short.
#[derive(Default)]
struct Out {
    /// Connections that were closed.
    closed: Vec<ConnectionId>,
    /// Who was welcomed last: a stranger who has a token is none any more.
    welcomed: ConnectionId,
    /// Frames for the job that is to be left alone.
    to_other: Vec<(ConnectionId, Vec<u8>)>,
    bytes: usize,
}

/// Connections of the job that gets the inputs are below this one, the driver's first; those of the other follow.
const OTHER: ConnectionId = PACKS + 1;

/// Connections from here on are strangers.
const STRANGER: ConnectionId = 2 * OTHER;

impl Egress for Out {
    fn forward(&mut self, to: ConnectionId, frame: &[u8]) {
        let header = Header::peek(frame, BODY_MAX.max(CHUNK_MAX * 4));
        let header = header.expect("it is a frame").expect("it is whole");
        assert_eq!(header.wire_len(), frame.len(), "one whole frame");
        self.bytes += frame.len();
        if header.kind == kind::WELCOME {
            self.welcomed = to;
        }
        if (OTHER..STRANGER).contains(&to) {
            self.to_other.push((to, frame.to_vec()));
        }
    }

    fn close(&mut self, id: ConnectionId) {
        self.closed.push(id);
    }
}

/// A switch with two jobs.
struct Target {
    switch: Switch,
    out: Out,
    strangers: ConnectionId,
    /// Messages between the first two packs of the other job.
    sequence: u64,
}

impl Target {
    fn new() -> Target {
        let mut target = Target {
            switch: Switch::new(secret(), MEMORY),
            out: Out::default(),
            strangers: STRANGER,
            sequence: 0,
        };
        target.begin(0, 0);
        target.begin(1, OTHER);
        target.out = Out::default();
        target
    }

    fn begin(&mut self, job: usize, first: ConnectionId) {
        let size = 2 * PACKS as u32;
        let mailbox = 1 << 20;
        let packs = (0..PACKS as u32).map(|pack| pack_of(2 * pack));
        let roles = [Role::Driver {
            size,
            mailbox,
            elastic: false,
        }]
        .into_iter()
        .chain(packs);
        for (id, role) in (first..).zip(roles) {
            self.switch.connected(id, NOW);
            let bytes = hello(job, role);
            self.switch.received(id, &bytes, NOW, &mut self.out);
        }
    }

    /// Feeds an input as a connection would, in pieces.
    fn feed(&mut self, id: ConnectionId, input: &[u8], random: &mut Random) {
        let mut kept: Vec<u8> = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let count = match random.one_in(3) {
                true => random.within(1..=rest.len().min(40)),
                false => rest.len(),
            };
            let (piece, after) = rest.split_at(count);
            kept.extend_from_slice(piece);
            rest = after;
            let out = self.out.bytes;
            let taken = self.switch.received(id, &kept, NOW, &mut self.out);
            let left = kept.len().checked_sub(taken.bytes);
            let left = left.expect("no more is taken than was given");
            assert!(left == 0 || taken.needed > left, "a whole frame is left");
            let trusted = id < STRANGER || self.out.welcomed == id;
            let limit = match trusted {
                true => FRAME_MAX,
                false => HEADER_LEN + HELLO_MAX,
            };
            assert!(
                taken.needed <= limit,
                "{} bytes are needed where a frame has {limit}",
                taken.needed
            );
            kept.drain(..taken.bytes);
            // Each answer is short, and what passes through was given.
            let said = self.out.bytes - out;
            let most = 64 * (kept.len() + input.len()) + PACKS as usize * CHUNK_MAX;
            assert!(said <= most, "{said} bytes are said to {}", input.len());
        }
    }

    /// The job that got no input works as before.
    fn check_other(&mut self) {
        let said = std::mem::take(&mut self.out.to_other);
        assert!(
            said.is_empty(),
            "another job's connection {} was sent to",
            said[0].0
        );
        assert!(
            !self
                .out
                .closed
                .iter()
                .any(|id| (OTHER..STRANGER).contains(id)),
            "another job's connection was closed"
        );
        let route = Header {
            source: 1,
            destination: 2,
            sequence: self.sequence,
            ..Header::default()
        };
        self.sequence += 1;
        let mut bytes = Vec::new();
        chunks(route, b"unharmed").for_each(|frame| frame.put(&mut bytes));
        self.switch.received(OTHER + 1, &bytes, NOW, &mut self.out);
        let said = std::mem::take(&mut self.out.to_other);
        assert_eq!(said, [(OTHER + 2, bytes)], "a message of the other job");
    }
}

fn pack_of(first_rank: u32) -> Role {
    Role::Pack {
        span: Span {
            first_rank,
            ranks: 2,
        },
        incarnation: 1,
        epoch: 0,
        mailbox: 1 << 20,
    }
}

/// What inputs are made from.
fn corpus() -> Vec<Vec<u8>> {
    let golden = golden_frames().into_iter().map(|(_, bytes)| bytes.to_vec());
    let name = || "name".to_string();
    let values: Blob = (0..64).collect();
    let counters = [
        CounterVerb::Set { value: i64::MAX },
        CounterVerb::CompareAndSet {
            expected: 1,
            new: 2,
        },
        CounterVerb::Delete,
    ];
    let queues = [
        QueueVerb::Push {
            items: vec![Blob::from_static(b"item"), Blob::from_static(b"")],
        },
        QueueVerb::Pop { wait_ms: 1_000 },
        QueueVerb::Length,
        QueueVerb::Close,
        QueueVerb::Delete,
    ];
    let element = Element::I64;
    let length = Some(8);
    let vectors = [
        VectorVerb::Create { element, length: 8 },
        VectorVerb::Set {
            offset: 0,
            element,
            values: values.clone(),
            length,
        },
        VectorVerb::Add {
            offset: 0,
            element,
            values: values.clone(),
            length,
        },
        VectorVerb::AddSparse {
            element,
            indices: (0..32).map(|at| at / 4 % 8).collect(),
            values,
            length,
        },
        VectorVerb::Set {
            offset: 0,
            element,
            values: (0..VALUES_MAX).map(|at| at as u8).collect(),
            length: Some(1 << 20),
        },
        VectorVerb::Length,
        VectorVerb::Delete,
    ];
    let counters = counters.map(|verb| Request::Counter { name: name(), verb });
    let queues = queues.map(|verb| Request::Queue { name: name(), verb });
    let vectors = vectors.map(|verb| Request::Vector { name: name(), verb });
    let requests = counters.into_iter().chain(queues).chain(vectors);
    let requests = requests.filter_map(|request| {
        let body = request.encode().ok()?;
        let header = Header {
            kind: kind::STATE,
            source: 0,
            destination: SWITCH,
            ..Header::default()
        };
        let mut bytes = Vec::new();
        Frame::new(header, body.into()).put(&mut bytes);
        Some(bytes)
    });
    // Jobs that the switch does not know yet, and one that it knows.
    let roles = [
        Role::Driver {
            size: 4,
            mailbox: 1_000,
            elastic: false,
        },
        pack_of(0),
    ];
    let hellos = [0, 2].into_iter().flat_map(|job| {
        roles
            .clone()
            .map(|role| hello(job, role)[PREAMBLE.len()..].to_vec())
    });
    let long = vec![5; CHUNK_MAX + 100];
    let long = chunks(Header::default(), &long).map(|frame| {
        let mut bytes = Vec::new();
        frame.put(&mut bytes);
        bytes
    });
    golden.chain(requests).chain(hellos).chain(long).collect()
}

/// Numbers at which something changes.
const EDGES: &[u32] = &[
    0,
    1,
    3,
    4,
    7,
    8,
    11,
    12,
    31,
    32,
    511,
    512,
    513,
    CHUNK_MAX as u32,
    BODY_MAX as u32,
    BODY_MAX as u32 + 1,
    FRAME_MAX as u32,
    1 << 20,
    1 << 31,
    SWITCH,
    DRIVER,
];

/// An input for a connection: some frames of the corpus, damaged, some of them addressed so that they get far.
fn input(random: &mut Random, corpus: &[Vec<u8>], id: ConnectionId) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.within(1..=3) {
        let mut frame = corpus[random.below(corpus.len())].clone();
        let damages = random.pick(&[0, 1, 1, 2, 3, 6]);
        for _ in 0..damages {
            damage(random, corpus, &mut frame);
        }
        if random.one_in(3) {
            bytes.extend_from_slice(&frame);
            continue;
        }
        // An address that is right more often than not, and the true length.
        let Some((head, body)) = frame.split_first_chunk_mut::<HEADER_LEN>() else {
            bytes.extend_from_slice(&frame);
            continue;
        };
        let mut header = Header::from_bytes(head);
        header.epoch = 0;
        header.length = body.len() as u32;
        let control = header.kind < kind::DATA;
        if !control {
            header.source = match id {
                0 => DRIVER,
                _ => 2 * (id as u32 - 1).min(6) + random.below(2) as u32,
            };
            header.sequence = random.below(4) as u64;
            header.destination = match header.kind {
                kind::CONTRIBUTE | kind::STATE => SWITCH,
                _ => random.pick(&[0, 1, 2, 3, 4, 5, 6, DRIVER]),
            };
        }
        *head = header.to_bytes();
        bytes.extend_from_slice(&frame);
    }
    bytes
}

fn damage(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let at = random.below(bytes.len());
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => {
            let more: Vec<u8> = (0..random.within(1..=16))
                .map(|_| random.next() as u8)
                .collect();
            bytes.splice(at..at, more);
        }
        3 => {
            let end = (at + random.within(1..=16)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let other = &corpus[random.below(corpus.len())];
            let (begin, end) = (random.below(other.len()), random.below(other.len()));
            let piece = &other[begin.min(end)..begin.max(end)];
            bytes.splice(at..at, piece.iter().copied());
        }
        5 => bytes.truncate(at),
        6 | 7 => {
            // A lying length: the frame's own, or wherever.
            let edge = random
                .pick(EDGES)
                .wrapping_add(random.below(3) as u32)
                .wrapping_sub(1);
            let at = if random.one_in(3) { HEADER_LEN - 4 } else { at };
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&edge.to_le_bytes());
            }
        }
        _ => {
            *bytes = (0..random.below(200))
                .map(|_| random.next() as u8)
                .collect();
        }
    }
    bytes.truncate(2 * FRAME_MAX);
}

/// What clients read, and what the switch decodes within.
fn decode(input: &[u8], reassembly: &mut Reassembly, random: &mut Random) {
    let limit = random.pick(&[HELLO_MAX, BODY_MAX]);
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(frame)) = Frame::decode(&mut buffer, limit) {
        assert!(frame.body.len() <= limit, "a body over the limit");
        assert_eq!(frame.body.len(), frame.header.length as usize);
        bodies(frame.header, &frame.body, reassembly);
    }
    assert!(
        buffer.capacity() <= 2 * (input.len() + HEADER_LEN + limit),
        "{} bytes were reserved for {}",
        buffer.capacity(),
        input.len()
    );
    if let Some((head, body)) = input.split_first_chunk() {
        bodies(
            Header::from_bytes(head),
            &Bytes::copy_from_slice(body),
            reassembly,
        );
    }
}

fn bodies(header: Header, body: &Bytes, reassembly: &mut Reassembly) {
    let _ = Chunk::split(header.flags, body);
    if let Ok(Some(message)) = reassembly.accept(header, body) {
        assert!(
            message.payload.len() <= 64 * FRAME_MAX,
            "it is longer than what came"
        );
    }
    let _ = Hello::protocols_in(body);
    let _ = Part::split(header.tag, body);
    let _ = Request::decode(body);
    let _ = Reply::decode(body);
    let _ = Welcome::from_body(body);
    let _ = Refused::from_body(body);
    let _ = Leave::from_body(body);
    let _ = End::from_body(body);
    let _ = Notice::from_body(body);
    let _ = Abort::from_body(body);
    if let Ok(hello) = Hello::from_body(body) {
        let _ = hello.bearer();
    }
    if let Ok(start) = Start::from_body(body) {
        // A few bytes may name as many packs as a job may have.
        if let Ok(packs) = start.each() {
            assert!(packs.len() <= 1 << 20, "more packs than ranks");
        }
    }
}

/// Inputs of one seed, on a new switch; gives how many.
fn run(seed: u64, corpus: &[Vec<u8>]) -> u64 {
    let mut random = Random(seed);
    let mut target = Target::new();
    let mut reassembly = Reassembly::default();
    for done in 1..=INPUTS {
        let id = match random.below(8) {
            0..5 => random.below(OTHER as usize) as ConnectionId,
            _ => {
                target.strangers += 1;
                target.strangers
            }
        };
        let mut bytes = input(&mut random, corpus, id);
        decode(&bytes, &mut reassembly, &mut random);
        if id >= STRANGER {
            target.switch.connected(id, NOW);
            if !random.one_in(6) {
                bytes.splice(0..0, *PREAMBLE);
            }
        }
        target.feed(id, &bytes, &mut random);
        if id >= STRANGER || random.one_in(20) {
            target
                .switch
                .disconnected(id, "it was closed", &mut target.out);
        }
        target.check_other();
        if target.out.closed.iter().any(|id| *id < OTHER) {
            // What it kept is gone: the rest of the inputs would meet nobody.
            let (_, connections) = target.switch.population();
            if connections <= OTHER as usize + 1 {
                return done;
            }
        }
    }
    INPUTS
}

/// Prints the seed of inputs that fail.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("LSWITCH_FUZZ_SEED={} repeats this", self.0);
        }
    }
}

#[test]
fn damaged_bytes_are_refused_and_harm_nobody_else() {
    let corpus = corpus();
    if let Some(seed) = variable("LSWITCH_FUZZ_SEED") {
        run(seed, &corpus);
        return;
    }
    let seconds = variable("LSWITCH_FUZZ_SECONDS").unwrap_or(SECONDS);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (next, inputs) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while Instant::now() < end {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let named = Seed(seed);
                    inputs.fetch_add(run(seed, &corpus), Ordering::Relaxed);
                    drop(named);
                }
            });
        }
    });
    let inputs = inputs.load(Ordering::Relaxed);
    println!("{inputs} inputs in {seconds} s");
}
