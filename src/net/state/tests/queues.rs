//! Queues: their order, and who waits.

use super::*;

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
