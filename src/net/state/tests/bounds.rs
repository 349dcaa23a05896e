//! Bounds on everything, and bytes of requests and replies.

use super::*;

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
