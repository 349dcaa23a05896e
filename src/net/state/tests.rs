mod model;

use super::*;
use crate::net::state::blob::Blob;
use proptest::prelude::*;

/// A state with a clock, which numbers requests and sends everything over the wire.
struct Bench {
    state: State,
    now_ms: u64,
    request: u64,
}

type Replies = Vec<(Asker, Reply)>;

impl Bench {
    fn new(bytes_max: usize) -> Bench {
        Bench {
            state: State::new(bytes_max),
            now_ms: 0,
            request: 0,
        }
    }

    /// What a request of pack 1 is answered at once.
    fn ask(&mut self, request: Request) -> Reply {
        let (asker, replies) = self.ask_as(1, request);
        let mut own = replies.into_iter().filter(|(to, _)| *to == asker);
        own.next().expect("an answer at once").1
    }

    fn ask_as(&mut self, pack: u64, request: Request) -> (Asker, Replies) {
        self.request += 1;
        let asker = Asker {
            pack,
            rank: pack as u32,
            request: self.request,
        };
        let mut replies = Vec::new();
        self.state.handle(asker, request, self.now_ms, &mut replies);
        for (_, reply) in &replies {
            assert_eq!(&Reply::decode(&reply.encode()).expect("ours"), reply);
        }
        self.recount();
        (asker, replies)
    }

    /// A pop that must wait.
    fn wait(&mut self, pack: u64, name: &str, wait_ms: u32) -> Asker {
        let (asker, replies) = self.ask_as(pack, pop(name, wait_ms));
        assert_eq!(replies, []);
        asker
    }

    fn tick(&mut self, now_ms: u64) -> Replies {
        self.now_ms = now_ms;
        let mut replies = Vec::new();
        self.state.tick(now_ms, &mut replies);
        self.recount();
        replies
    }

    fn recount(&self) {
        let parts = [
            self.state.counters.recount(),
            self.state.queues.recount(),
            self.state.vectors.recount(),
        ];
        let names: usize = parts.iter().map(|(names, _)| names).sum();
        let bytes: usize = parts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(self.state.bytes(), bytes);
        assert_eq!(self.state.budget.names(), names);
    }
}

fn counter(name: &str, verb: CounterVerb) -> Request {
    let name = name.to_string();
    Request::Counter { name, verb }
}

fn add(name: &str, by: i64) -> Request {
    counter(name, CounterVerb::Add { by })
}

fn queue(name: &str, verb: QueueVerb) -> Request {
    let name = name.to_string();
    Request::Queue { name, verb }
}

fn push(name: &str, items: &[&'static str]) -> Request {
    let items = items.iter().map(|item| Blob::from_static(item.as_bytes()));
    let items = items.collect();
    queue(name, QueueVerb::Push { items })
}

fn pop(name: &str, wait_ms: u32) -> Request {
    queue(name, QueueVerb::Pop { wait_ms })
}

fn vector(name: &str, verb: VectorVerb) -> Request {
    let name = name.to_string();
    Request::Vector { name, verb }
}

fn create(name: &str, element: Element, length: u32) -> Request {
    vector(name, VectorVerb::Create { element, length })
}

fn add_i64(name: &str, offset: u32, values: &[i64], length: Option<u32>) -> Request {
    let values = i64s(values);
    let element = Element::I64;
    vector(
        name,
        VectorVerb::Add {
            offset,
            element,
            values,
            length,
        },
    )
}

fn add_sparse_i64(name: &str, indices: &[u32], values: &[i64], length: Option<u32>) -> Request {
    let indices = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
    let values = i64s(values);
    let element = Element::I64;
    vector(
        name,
        VectorVerb::AddSparse {
            element,
            indices,
            values,
            length,
        },
    )
}

fn pull_i64(name: &str, offset: u32, count: u32, newer_than: u64) -> Request {
    let element = Element::I64;
    vector(
        name,
        VectorVerb::Pull {
            offset,
            count,
            element,
            newer_than,
        },
    )
}

fn i64s(values: &[i64]) -> Blob {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn item(text: &'static str) -> Reply {
    Reply::Item(Blob::from_static(text.as_bytes()))
}

/// The reply is an error of this kind whose reason has these words.
#[track_caller]
fn expect_error(reply: Reply, kind: ErrorKind, words: &str) {
    match reply {
        Reply::Error(found, reason) => {
            assert_eq!(found, kind, "{reason}");
            assert!(reason.contains(words), "{reason}");
        }
        other => panic!("{other:?} where an error was due"),
    }
}

#[test]
fn the_last_of_a_fan_in_sees_the_whole_count() {
    let mut bench = Bench::new(10_000);
    for arrived in 1..=3 {
        assert_eq!(bench.ask(add("inputs", 1)), Reply::Value(arrived));
    }
    assert_eq!(
        bench.ask(counter("inputs", CounterVerb::Get)),
        Reply::Value(3)
    );
    assert_eq!(
        bench.ask(counter("other", CounterVerb::Get)),
        Reply::Value(0)
    );
}

#[test]
fn a_counter_that_would_overflow_stays_as_it_is() {
    let mut bench = Bench::new(10_000);
    let value = i64::MAX - 1;
    assert_eq!(
        bench.ask(counter("c", CounterVerb::Set { value })),
        Reply::Done
    );
    expect_error(
        bench.ask(add("c", 2)),
        ErrorKind::Overflow,
        "counter \"c\" is 9223372036854775806, and 2 more",
    );
    assert_eq!(
        bench.ask(counter("c", CounterVerb::Get)),
        Reply::Value(value)
    );
    bench.ask(counter("c", CounterVerb::Set { value: -5 }));
    expect_error(bench.ask(add("c", i64::MIN)), ErrorKind::Overflow, "-5");
}

#[test]
fn of_two_that_compare_and_set_the_same_value_one_succeeds() {
    let mut bench = Bench::new(10_000);
    let claim = |new| counter("leader", CounterVerb::CompareAndSet { expected: 0, new });
    assert_eq!(bench.ask(claim(7)), Reply::Done);
    assert_eq!(bench.ask(claim(8)), Reply::CompareFailed(7));
}

#[test]
fn a_failed_compare_keeps_nothing() {
    let mut bench = Bench::new(10_000);
    let verb = CounterVerb::CompareAndSet {
        expected: 1,
        new: 2,
    };
    assert_eq!(bench.ask(counter("c", verb)), Reply::CompareFailed(0));
    assert_eq!(bench.state.bytes(), 0);
}

#[test]
fn items_come_out_in_the_order_in_which_they_went_in() {
    let mut bench = Bench::new(10_000);
    assert_eq!(bench.ask(push("q", &["a", "b"])), Reply::Length(2));
    assert_eq!(bench.ask(push("q", &["c"])), Reply::Length(3));
    assert_eq!(bench.ask(queue("q", QueueVerb::Length)), Reply::Length(3));
    for text in ["a", "b", "c"] {
        assert_eq!(bench.ask(pop("q", 0)), item(text));
    }
    assert_eq!(bench.ask(pop("q", 0)), Reply::Empty);
}

#[test]
fn who_waits_longest_is_served_first() {
    let mut bench = Bench::new(10_000);
    // The first has the latest deadline, so that order of arrival and of deadlines differ.
    let first = bench.wait(3, "q", 900);
    let second = bench.wait(1, "q", 100);
    let third = bench.wait(2, "q", 500);
    let (pusher, replies) = bench.ask_as(9, push("q", &["a", "b"]));
    assert_eq!(
        replies,
        [
            (first, item("a")),
            (second, item("b")),
            (pusher, Reply::Length(0))
        ]
    );
    let (pusher, replies) = bench.ask_as(9, push("q", &["c", "d"]));
    assert_eq!(replies, [(third, item("c")), (pusher, Reply::Length(1))]);
    assert!(!bench.state.is_waiting());
}

#[test]
fn a_wait_that_has_passed_is_told_that_the_queue_is_empty() {
    let mut bench = Bench::new(10_000);
    let late = bench.wait(1, "q", 50);
    let early = bench.wait(2, "r", 20);
    assert_eq!(bench.state.next_deadline_ms(), Some(20));
    assert_eq!(bench.tick(19), []);
    assert_eq!(bench.tick(20), [(early, Reply::Empty)]);
    assert_eq!(bench.state.next_deadline_ms(), Some(50));
    assert_eq!(bench.tick(1_000), [(late, Reply::Empty)]);
    assert_eq!(bench.state.next_deadline_ms(), None);
    assert_eq!(bench.ask(push("q", &["a"])), Reply::Length(1));
}

#[test]
fn an_item_is_never_given_to_a_connection_that_has_ended() {
    let mut bench = Bench::new(10_000);
    bench.wait(1, "q", 100);
    let alive = bench.wait(2, "q", 100);
    bench.wait(1, "r", 100);
    bench.state.forget(1);
    bench.recount();
    let (pusher, replies) = bench.ask_as(9, push("q", &["a", "b"]));
    assert_eq!(replies, [(alive, item("a")), (pusher, Reply::Length(1))]);
    assert_eq!(bench.ask(push("r", &["c"])), Reply::Length(1));
    assert!(!bench.state.is_waiting());
    assert_eq!(bench.tick(1_000), []);
}

#[test]
fn what_a_dead_pack_pushed_stays() {
    let mut bench = Bench::new(10_000);
    bench.ask_as(1, push("q", &["a"]));
    bench.state.forget(1);
    assert_eq!(bench.ask_as(2, pop("q", 0)).1[0].1, item("a"));
}

#[test]
fn workers_learn_from_a_closed_queue_that_the_work_is_done() {
    let mut bench = Bench::new(10_000);
    bench.ask(push("q", &["a"]));
    assert_eq!(bench.ask(queue("q", QueueVerb::Close)), Reply::Done);
    assert_eq!(bench.ask(queue("q", QueueVerb::Close)), Reply::Done);
    expect_error(
        bench.ask(push("q", &["b"])),
        ErrorKind::Closed,
        "queue \"q\" is closed",
    );
    assert_eq!(bench.ask(pop("q", 100)), item("a"));
    assert_eq!(bench.ask(pop("q", 100)), Reply::Closed);
    assert_eq!(bench.ask(pop("q", 0)), Reply::Closed);
    assert!(!bench.state.is_waiting());
}

#[test]
fn a_close_and_a_delete_answer_those_who_wait() {
    let mut bench = Bench::new(10_000);
    for verb in [QueueVerb::Close, QueueVerb::Delete] {
        bench.ask(queue("q", QueueVerb::Delete));
        let (one, two) = (bench.wait(1, "q", 9), bench.wait(2, "q", 9));
        let (asker, replies) = bench.ask_as(3, queue("q", verb));
        let closed = |to| (to, Reply::Closed);
        assert_eq!(replies, [closed(one), closed(two), (asker, Reply::Done)]);
        assert!(!bench.state.is_waiting());
    }
}

#[test]
fn a_queue_may_be_closed_before_it_was_used_and_is_open_again_after_a_delete() {
    let mut bench = Bench::new(10_000);
    bench.ask(queue("q", QueueVerb::Close));
    assert_eq!(bench.ask(pop("q", 100)), Reply::Closed);
    assert_eq!(bench.ask(queue("q", QueueVerb::Delete)), Reply::Done);
    assert_eq!(bench.ask(push("q", &["a"])), Reply::Length(1));
}

#[test]
fn a_push_that_does_not_fit_is_not_half_done() {
    let mut bench = Bench::new(NAME_COST + 1 + 3 * (ITEM_COST + 1));
    bench.ask(push("q", &["a", "b"]));
    let held = bench.state.bytes();
    expect_error(
        bench.ask(push("q", &["c", "d"])),
        ErrorKind::Full,
        "holds 579 of 740 bytes, and 322 more are 161 too many",
    );
    assert_eq!(bench.state.bytes(), held);
    assert_eq!(bench.ask(queue("q", QueueVerb::Length)), Reply::Length(2));
    assert_eq!(bench.ask(push("q", &["c"])), Reply::Length(3));
}

#[test]
fn a_push_that_does_not_fit_wakes_nobody() {
    let mut bench = Bench::new(NAME_COST);
    let waiter = bench.wait(1, "q", 100);
    let (pusher, replies) = bench.ask_as(2, push("q", &["a", "b"]));
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].0, pusher);
    assert!(bench.state.is_waiting());
    // What is handed on at once needs no room.
    let (pusher, replies) = bench.ask_as(2, push("q", &["a"]));
    assert_eq!(replies, [(waiter, item("a")), (pusher, Reply::Length(0))]);
}

#[test]
fn whoever_takes_out_is_served_when_the_memory_is_full() {
    let mut bench = Bench::new(NAME_COST + 1 + ITEM_COST + 1);
    bench.ask(push("q", &["a"]));
    expect_error(bench.ask(add("c", 1)), ErrorKind::Full, "257 too many");
    bench.wait(1, "results", 100);
    assert_eq!(bench.ask(pop("q", 0)), item("a"));
    assert_eq!(bench.ask(add("c", 1)), Reply::Value(1));
}

#[test]
fn a_push_of_nothing_tells_the_length() {
    let mut bench = Bench::new(10_000);
    assert_eq!(bench.ask(push("q", &[])), Reply::Length(0));
    assert_eq!(bench.state.bytes(), 0);
    bench.ask(push("q", &["a"]));
    assert_eq!(bench.ask(push("q", &[])), Reply::Length(1));
}

#[test]
fn a_drained_queue_gives_its_ring_back() {
    let mut bench = Bench::new(10_000_000);
    let items = vec![Blob::from_static(b"x"); ITEMS_MAX];
    for _ in 0..4 {
        let items = items.clone();
        bench.ask(queue("q", QueueVerb::Push { items }));
    }
    // The recount after each pop looks at the ring.
    for _ in 0..4 * ITEMS_MAX {
        assert_eq!(bench.ask(pop("q", 0)), item("x"));
    }
    assert_eq!(bench.state.bytes(), 0);
}

#[test]
fn a_vector_is_pulled_in_ranges_with_its_version() {
    let mut bench = Bench::new(10_000);
    assert_eq!(bench.ask(create("v", Element::I64, 4)), Reply::Version(1));
    assert_eq!(bench.ask(create("v", Element::I64, 4)), Reply::Version(1));
    assert_eq!(bench.ask(add_i64("v", 1, &[5, 6], None)), Reply::Version(2));
    assert_eq!(
        bench.ask(add_i64("v", 2, &[10, 20], None)),
        Reply::Version(3)
    );
    let pulled = |version, values: &[i64]| Reply::Vector {
        version,
        values: i64s(values),
    };
    assert_eq!(
        bench.ask(pull_i64("v", 0, 4, 0)),
        pulled(3, &[0, 5, 16, 20])
    );
    assert_eq!(bench.ask(pull_i64("v", 1, 2, 2)), pulled(3, &[5, 16]));
    assert_eq!(bench.ask(pull_i64("v", 1, 2, 3)), Reply::Unchanged);
    assert_eq!(bench.ask(pull_i64("v", 4, 0, 0)), pulled(3, &[]));
    assert_eq!(bench.ask(vector("v", VectorVerb::Length)), Reply::Length(4));
}

#[test]
fn floats_of_both_widths_are_added() {
    let mut bench = Bench::new(10_000);
    let f32s: Blob = [1.5f32, -2.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let f64s: Blob = [1.5f64, -2.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    for (name, element, values) in [("f", Element::F32, f32s), ("d", Element::F64, f64s)] {
        let verb = VectorVerb::Add {
            offset: 0,
            element,
            values: values.clone(),
            length: Some(2),
        };
        assert_eq!(bench.ask(vector(name, verb)), Reply::Version(1));
        let verb = VectorVerb::Pull {
            offset: 0,
            count: 2,
            element,
            newer_than: 0,
        };
        let version = 1;
        assert_eq!(
            bench.ask(vector(name, verb)),
            Reply::Vector { version, values }
        );
    }
}

#[test]
fn a_vector_is_set_whole_in_one_request() {
    let mut bench = Bench::new(10_000);
    let set = |values: &[i64]| {
        let verb = VectorVerb::Set {
            offset: 0,
            element: Element::I64,
            values: i64s(values),
            length: Some(2),
        };
        vector("v", verb)
    };
    assert_eq!(bench.ask(set(&[1, 2])), Reply::Version(1));
    assert_eq!(bench.ask(set(&[3, i64::MAX])), Reply::Version(2));
    let values = i64s(&[3, i64::MAX]);
    let version = 2;
    assert_eq!(
        bench.ask(pull_i64("v", 0, 2, 0)),
        Reply::Vector { version, values }
    );
}

#[test]
fn an_index_that_comes_twice_is_added_twice() {
    let mut bench = Bench::new(10_000);
    bench.ask(add_sparse_i64("v", &[2, 0, 2], &[1, 5, 10], Some(3)));
    let values = i64s(&[5, 0, 11]);
    assert_eq!(
        bench.ask(pull_i64("v", 0, 3, 0)),
        Reply::Vector { version: 1, values }
    );
}

#[test]
fn an_addition_that_overflows_adds_nothing() {
    let mut bench = Bench::new(10_000);
    bench.ask(add_i64("v", 0, &[1, i64::MAX - 2, 3], Some(3)));
    let before = bench.ask(pull_i64("v", 0, 3, 0));
    expect_error(
        bench.ask(add_i64("v", 0, &[4, 5, 6], None)),
        ErrorKind::Overflow,
        "index 1 of vector \"v\"",
    );
    // The sums on the way fit: only the third is too much.
    let twice = add_sparse_i64("v", &[0, 1, 1, 2], &[7, 2, 1, 7], None);
    expect_error(bench.ask(twice), ErrorKind::Overflow, "index 1");
    assert_eq!(bench.ask(pull_i64("v", 0, 3, 0)), before);
}

#[test]
fn an_addition_that_fails_creates_nothing() {
    let mut bench = Bench::new(10_000);
    let much = add_sparse_i64("v", &[0, 0], &[i64::MAX, 1], Some(1));
    expect_error(bench.ask(much), ErrorKind::Overflow, "index 0");
    expect_error(
        bench.ask(add_i64("v", 1, &[1], Some(1))),
        ErrorKind::Range,
        "1 to 2",
    );
    assert_eq!(bench.state.bytes(), 0);
    expect_error(
        bench.ask(add_i64("v", 0, &[1], None)),
        ErrorKind::Missing,
        "no vector \"v\"; create it",
    );
    expect_error(bench.ask(pull_i64("v", 0, 0, 0)), ErrorKind::Missing, "v");
    expect_error(
        bench.ask(vector("v", VectorVerb::Length)),
        ErrorKind::Missing,
        "v",
    );
}

#[test]
fn requests_that_do_not_fit_the_vector_are_refused() {
    let mut bench = Bench::new(10_000);
    bench.ask(create("v", Element::I64, 3));
    let cases = [
        (
            create("v", Element::F64, 3),
            ErrorKind::Mismatch,
            "elements of i64",
        ),
        (
            create("v", Element::I64, 4),
            ErrorKind::Mismatch,
            "creates it with 4",
        ),
        (
            add_i64("v", 0, &[1], Some(4)),
            ErrorKind::Mismatch,
            "has 3 elements",
        ),
        (
            add_i64("v", 2, &[1, 2], None),
            ErrorKind::Range,
            "2 to 4 are not all inside",
        ),
        (
            add_i64("v", u32::MAX, &[1], None),
            ErrorKind::Range,
            "4294967295 to 4294967296",
        ),
        (
            add_sparse_i64("v", &[1, 3], &[1, 1], None),
            ErrorKind::Range,
            "index 3",
        ),
        (
            add_sparse_i64("v", &[1, 2], &[1], None),
            ErrorKind::Malformed,
            "8 bytes of indices",
        ),
        (pull_i64("v", 1, 3, 0), ErrorKind::Range, "1 to 4"),
        (pull_i64("v", 1, 3, 99), ErrorKind::Range, "1 to 4"),
    ];
    for (request, kind, words) in cases {
        expect_error(bench.ask(request), kind, words);
    }
    let verb = VectorVerb::Add {
        offset: 0,
        element: Element::I64,
        values: Blob::from_static(b"123456789"),
        length: None,
    };
    expect_error(
        bench.ask(vector("v", verb)),
        ErrorKind::Malformed,
        "9 bytes of values",
    );
    let version = 1;
    let values = i64s(&[0; 3]);
    assert_eq!(
        bench.ask(pull_i64("v", 0, 3, 0)),
        Reply::Vector { version, values }
    );
}

#[test]
fn a_vector_that_is_made_anew_is_newer_than_the_old_one() {
    let mut bench = Bench::new(10_000);
    bench.ask(add_i64("v", 0, &[1], Some(1)));
    assert_eq!(bench.ask(add_i64("v", 0, &[1], None)), Reply::Version(2));
    bench.ask(vector("v", VectorVerb::Delete));
    assert_eq!(bench.ask(create("v", Element::I64, 1)), Reply::Version(3));
}

#[test]
fn a_long_vector_goes_through_frames_in_ranges() {
    let mut bench = Bench::new(10_000_000);
    let length = 20_000u32;
    let range = VALUES_MAX as u32 / 8;
    for offset in (0..length).step_by(range as usize) {
        let end = length.min(offset + range);
        let values: Vec<i64> = (offset..end).map(i64::from).collect();
        let request = add_i64("v", offset, &values, Some(length));
        let request = Request::decode(&request.encode().expect("fits")).expect("ours");
        assert!(matches!(bench.ask(request), Reply::Version(_)));
    }
    let mut pulled = Vec::new();
    for offset in (0..length).step_by(range as usize) {
        match bench.ask(pull_i64("v", offset, range.min(length - offset), 0)) {
            Reply::Vector { values, .. } => pulled.extend_from_slice(&values),
            other => panic!("{other:?}"),
        }
    }
    let whole: Vec<i64> = (0..i64::from(length)).collect();
    assert!(pulled[..] == i64s(&whole)[..]);
}

#[test]
fn what_is_over_a_fixed_bound_is_refused_on_both_sides() {
    let long = "n".repeat(NAME_MAX + 1);
    let item = Blob::from(vec![0; ITEM_MAX + 3]);
    let items = vec![Blob::from_static(b"a"), item];
    let many = vec![Blob::default(); ITEMS_MAX + 2];
    let elements = VALUES_MAX as u32 / 8 + 1;
    let indices = vec![0; VALUES_MAX / 12 + 1];
    let cases = [
        (
            add(&long, 1),
            "a name of 257 bytes is 1 over the limit of 256; shorten it",
        ),
        (
            queue("q", QueueVerb::Push { items }),
            "item 1 of a push has 65027 bytes, 3 over",
        ),
        (
            queue("q", QueueVerb::Push { items: many }),
            "a push of 1026 items is 2 over",
        ),
        (
            pop("q", WAIT_MAX_MS + 1),
            "a wait of 86400001 ms is 1 ms over",
        ),
        (
            pull_i64("v", 0, elements, 0),
            "of 65032 bytes is 8 over the limit of 65024; cut it",
        ),
        (pull_i64("v", 0, u32::MAX, 0), "cut it"),
        (
            add_i64("v", 0, &vec![0; elements as usize], Some(1)),
            "cut it",
        ),
        (
            add_sparse_i64("v", &indices, &vec![0; indices.len()], None),
            "cut it",
        ),
    ];
    let mut bench = Bench::new(usize::MAX);
    for (request, words) in cases {
        let error = request.encode().expect_err("is over a bound");
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        expect_error(bench.ask(request), ErrorKind::TooLarge, words);
        assert_eq!(bench.state.bytes(), 0);
        assert!(!bench.state.is_waiting());
    }
}

#[test]
fn the_largest_of_everything_fits_into_a_frame() {
    let mut bench = Bench::new(usize::MAX);
    let name = "n".repeat(NAME_MAX);
    let elements = VALUES_MAX as u32 / 8;
    let largest = vec![Blob::from(vec![1; ITEM_MAX])];
    let pairs = vec![0; VALUES_MAX / 12];
    let requests = [
        queue(&name, QueueVerb::Push { items: largest }),
        pop(&name, 0),
        add_i64(&name, 0, &vec![1; elements as usize], Some(elements)),
        add_sparse_i64(&name, &pairs, &vec![1; pairs.len()], Some(elements)),
        pull_i64(&name, 0, elements, 0),
    ];
    for request in requests {
        let body = request.encode().expect("fits");
        let request = Request::decode(&body).expect("ours");
        let reply = bench.ask(request);
        assert!(!matches!(reply, Reply::Error(..)), "{reply:?}");
        assert!(reply.encode().len() <= ENCODED_MAX);
    }
}

#[test]
fn a_push_that_is_over_a_frame_says_so_before_it_is_sent() {
    let items = vec![Blob::from(vec![1; ITEM_MAX]); 2];
    let error = queue("q", QueueVerb::Push { items })
        .encode()
        .expect_err("two of the longest items are over a frame");
    assert!(
        error.to_string().contains("must fit into 65536 bytes"),
        "{error}"
    );
    assert!(error.to_string().contains("send fewer items"), "{error}");
}

#[test]
fn the_number_of_names_is_bounded_over_all_kinds() {
    let mut state = State::new(usize::MAX);
    let asker = Asker {
        pack: 1,
        rank: 1,
        request: 1,
    };
    let mut ask = |request| {
        let mut replies = Vec::new();
        state.handle(asker, request, 0, &mut replies);
        replies.pop().map(|(_, reply)| reply)
    };
    for number in 0..NAMES_MAX - 2 {
        assert_eq!(ask(add(&number.to_string(), 1)), Some(Reply::Value(1)));
    }
    ask(push("q", &["a"]));
    ask(create("v", Element::F32, 1));
    for request in [
        add("new", 1),
        push("new", &["a"]),
        queue("new", QueueVerb::Close),
        create("new", Element::F32, 1),
    ] {
        let reply = ask(request).expect("an answer");
        expect_error(reply, ErrorKind::Full, "has 65536 names");
    }
    assert_eq!(ask(add("0", 1)), Some(Reply::Value(2)));
    assert_eq!(ask(push("q", &["b"])), Some(Reply::Length(2)));
    assert_eq!(ask(pop("new", 10)), None);
    ask(counter("7", CounterVerb::Delete));
    assert_eq!(ask(add("new", 1)), Some(Reply::Value(1)));
}

#[test]
fn the_number_of_pops_that_wait_is_bounded() {
    let mut state = State::new(0);
    let mut replies = Vec::new();
    let asker = |request| Asker {
        pack: request % 16,
        rank: 1,
        request,
    };
    for request in 0..WAITERS_MAX as u64 {
        state.handle(asker(request), pop("q", 10), 0, &mut replies);
    }
    assert_eq!(replies, []);
    state.handle(asker(0), pop("r", 10), 0, &mut replies);
    let (_, reply) = replies.pop().expect("a refusal");
    expect_error(reply, ErrorKind::Full, "65536 pops of the job wait");
    // One that does not wait is no waiter.
    state.handle(asker(0), pop("r", 0), 0, &mut replies);
    assert_eq!(replies.pop().map(|(_, reply)| reply), Some(Reply::Empty));
    state.forget(3);
    state.handle(asker(0), pop("r", 10), 0, &mut replies);
    assert_eq!(replies, []);
    state.tick(10, &mut replies);
    assert_eq!(replies.len(), WAITERS_MAX / 16 * 15 + 1);
    assert_eq!(state.bytes(), 0);
}

#[test]
fn a_vector_that_does_not_fit_is_refused_before_it_takes_memory() {
    let mut bench = Bench::new(10_000);
    expect_error(
        bench.ask(create("v", Element::F64, u32::MAX)),
        ErrorKind::Full,
        "holds 0 of 10000 bytes, and 34359738617 more are 34359728617 too many",
    );
    assert_eq!(bench.state.bytes(), 0);
}

#[test]
fn nothing_is_counted_after_everything_was_deleted() {
    let mut bench = Bench::new(100_000);
    bench.ask(add("c", 1));
    bench.ask(push("q", &["a", "b"]));
    bench.ask(queue("closed", QueueVerb::Close));
    bench.ask(create("v", Element::F32, 100));
    let names = 4 * NAME_COST + "cqclosedv".len();
    assert_eq!(bench.state.bytes(), names + 2 * (ITEM_COST + 1) + 400);
    bench.ask(counter("c", CounterVerb::Delete));
    bench.ask(queue("q", QueueVerb::Delete));
    bench.ask(queue("closed", QueueVerb::Delete));
    bench.ask(vector("v", VectorVerb::Delete));
    assert_eq!(bench.state.bytes(), 0);
    // Again, when nothing is there.
    for request in [
        counter("c", CounterVerb::Delete),
        queue("q", QueueVerb::Delete),
        vector("v", VectorVerb::Delete),
    ] {
        assert_eq!(bench.ask(request), Reply::Done);
    }
    assert_eq!(bench.state.bytes(), 0);
}

#[test]
fn counters_queues_and_vectors_do_not_share_names() {
    let mut bench = Bench::new(10_000);
    bench.ask(add("x", 5));
    bench.ask(push("x", &["a"]));
    bench.ask(create("x", Element::I64, 1));
    bench.ask(queue("x", QueueVerb::Delete));
    assert_eq!(bench.ask(counter("x", CounterVerb::Get)), Reply::Value(5));
    assert_eq!(bench.ask(vector("x", VectorVerb::Length)), Reply::Length(1));
}

#[test]
fn the_bytes_of_requests_and_replies_do_not_change() {
    let body = push("q", &["ab"]).encode().expect("fits");
    let mut expected = vec![1, 0, 0, 0]; // Queue
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, b'q']);
    expected.extend([0, 0, 0, 0]); // Push
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
    assert_eq!(body, expected);
    let body = add_i64("v", 3, &[-1], Some(9)).encode().expect("fits");
    let mut expected = vec![2, 0, 0, 0]; // Vector
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0, b'v']);
    expected.extend([2, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]); // Add, offset, i64
    expected.extend([8, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0xff; 8]);
    expected.extend([1, 9, 0, 0, 0]);
    assert_eq!(body, expected);
    assert_eq!(Reply::Value(-2).encode()[..5], [1, 0, 0, 0, 0xfe]);
    assert_eq!(
        item("x").encode(),
        [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'x']
    );
}

#[test]
fn lying_lengths_do_not_decode() {
    let body = push("q", &["ab"]).encode().expect("fits");
    // Of the name, of the list of items, and of the item.
    for at in [4, 17, 25] {
        for length in [u64::MAX, 1 << 40, 1 << 16, 1_000] {
            let mut body = body.clone();
            body[at..at + 8].copy_from_slice(&length.to_le_bytes());
            let error = Request::decode(&body).expect_err("lies");
            assert_eq!(error.kind(), ErrorKind::Malformed);
            Reply::from(error).encode();
        }
    }
}

#[test]
fn a_push_of_too_many_items_is_refused_while_it_is_decoded() {
    let count = ITEMS_MAX + 1;
    let mut body = push("q", &[]).encode().expect("fits");
    let at = body.len() - 8;
    body[at..].copy_from_slice(&(count as u64).to_le_bytes());
    body.resize(body.len() + 8 * count, 0);
    let error = Request::decode(&body).expect_err("is one too many");
    let words = "a push of 1025 items is 1 over the limit of 1024";
    assert!(error.to_string().contains(words), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_or_are_a_request_of_the_same_bytes(
        kind in 0u32..4,
        verb in 0u32..8,
        noise in prop::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..200),
        shape in 0..3,
    ) {
        let mut body = Vec::new();
        if shape > 0 {
            body.extend(kind.to_le_bytes());
        }
        if shape > 1 {
            body.extend(1u64.to_le_bytes());
            body.push(b'n');
            body.extend(verb.to_le_bytes());
        }
        body.extend(noise);
        // What encodes to the same bytes has no more in it than they have.
        if let Ok(request) = Request::decode(&body) {
            if let Ok(again) = request.encode() {
                prop_assert_eq!(&again, &body);
            }
            let mut bench = Bench::new(100_000);
            bench.ask_as(1, request);
        }
        if let Ok(reply) = Reply::decode(&body) {
            prop_assert_eq!(reply.encode(), body);
        }
    }
}
