//! Counters.

use super::*;

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
