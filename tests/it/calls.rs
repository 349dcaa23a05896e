//! `lswitch::Pool`, as a user's own program uses it. Its workers are `worker.rs`.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use lswitch::{CallError, Function, Pool, PoolBuilder, PoolError};
use rustix::process::{Pid, Signal, kill_process};

use crate::examples::example;
use crate::functions::{DIES, DOUBLE, ECHO, PANICS, PLACE, SLEEP, ZEROS};
use crate::support::{Place, assert_says};

/// What nothing here takes unless it hangs.
const LONG: Duration = Duration::from_secs(60);

fn builder(place: &Place, workers: u32) -> PoolBuilder {
    Pool::builder()
        .workers(workers)
        .program(example("test-worker"))
        .store(place.path("store").to_str().unwrap())
        .timeout(Duration::from_secs(300))
}

fn pool(place: &Place, workers: u32) -> Pool {
    builder(place, workers).start().unwrap()
}

/// Waits for something that will be.
fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn results_come_in_the_order_of_the_calls() {
    let place = Place::new();
    let pool = pool(&place, 3);
    assert_eq!(pool.apply(&DOUBLE, 21), Ok(42));
    let pending: Vec<_> = (0..2000)
        .map(|number| pool.apply_async(&DOUBLE, number).unwrap())
        .collect();
    for (number, pending) in (0..).zip(pending) {
        assert_eq!(pending.wait(), Ok(2 * number));
    }
    let results = pool.map(
        &DOUBLE,
        (0..5000).map(|number| match number % 7 {
            3 => u64::MAX - number,
            _ => number,
        }),
    );
    assert_eq!(results.len(), 5000);
    for (number, result) in (0..).zip(results) {
        let expected = match number % 7 {
            3 => Err(CallError::Failed(format!(
                "{} is too large",
                u64::MAX - number
            ))),
            _ => Ok(2 * number),
        };
        assert_eq!(result, expected);
    }
    // Several arguments are a tuple; slow ones among quick ones hold nobody up for good.
    let items = (0..60).map(|number| (number, if number % 20 == 0 { 150 } else { 1 }));
    let results: Result<Vec<u64>, _> = pool.map(&SLEEP, items).into_iter().collect();
    assert_eq!(results, Ok((0..60).collect()));
    assert!(pool.map(&DOUBLE, []).is_empty());
    let outcome = pool.join().unwrap();
    assert_eq!(outcome.lost, 0);
    assert!(outcome.traffic.0 > 0);
}

#[test]
fn items_are_taken_a_bounded_way_ahead() {
    let place = Place::new();
    let pool = pool(&place, 2);
    let taken = Cell::new(0u64);
    let items = (0..).inspect(|_| taken.set(taken.get() + 1));
    let found: Result<Vec<u64>, _> = pool.stream(&DOUBLE, items).take(3000).collect();
    assert_eq!(found.unwrap()[2999], 5998);
    assert!(taken.get() < 1_000_000, "{} were taken", taken.get());
    // What nobody took is forgotten, and the pool goes on; an iterator may call it too.
    let nested = (0..20).map(|number| pool.apply(&DOUBLE, number).unwrap());
    let found: Result<Vec<u64>, _> = pool.map(&DOUBLE, nested).into_iter().collect();
    assert_eq!(found.unwrap()[19], 76);
    let long = (0..40).map(|_| vec![1; 3 << 20]);
    let lengths = pool.stream(&ECHO, long).map(|bytes| bytes.unwrap().len());
    assert_eq!(lengths.sum::<usize>(), 40 * (3 << 20));
}

#[test]
fn what_fails_in_a_call_has_its_words_and_the_worker_goes_on() {
    let place = Place::new();
    let pool = pool(&place, 1);
    let (rank, left, store, process) = pool.apply(&PLACE, ()).unwrap();
    assert_eq!(rank, 0);
    assert!(left > 1000);
    assert_says(&store, &["store"]);
    let failed = pool.apply(&DOUBLE, u64::MAX);
    let words = format!("{} is too large", u64::MAX);
    assert_eq!(failed, Err(CallError::Failed(words)));
    let panicked = pool.apply(&PANICS, "so".into()).unwrap_err();
    assert_eq!(panicked, CallError::Panicked("it says so".into()));
    assert_eq!(panicked.to_string(), "the function panicked: it says so");
    for panicked in pool.map(&PANICS, ["a".to_string(), "b".to_string()]) {
        assert_says(&panicked.unwrap_err().to_string(), &["it says"]);
    }
    fn nowhere(_: ()) -> Result<(), String> {
        Ok(())
    }
    const NOWHERE: Function<(), ()> = Function::new("nowhere", nowhere);
    let unknown = pool.apply(&NOWHERE, ()).unwrap_err().to_string();
    assert_says(
        &unknown,
        &[
            "has no function \"nowhere\"",
            "it has: echo, double, panics",
        ],
    );
    for unknown in pool.map(&NOWHERE, [(), (), ()]) {
        assert_says(&unknown.unwrap_err().to_string(), &["has no function"]);
    }
    fn unlike(_: bool) -> Result<bool, String> {
        Ok(true)
    }
    const UNLIKE: Function<bool, bool> = Function::new("double", unlike);
    let unlike = pool.apply(&UNLIKE, true).unwrap_err().to_string();
    assert_says(
        &unlike,
        &["what double was given does not decode", "same build"],
    );
    assert_eq!(
        pool.apply(&PLACE, ()).unwrap().3,
        process,
        "the worker lives"
    );
    assert_eq!(pool.join().unwrap().lost, 0);
}

#[test]
fn a_worker_that_is_lost_costs_nothing_but_time() {
    let place = Place::new();
    let pool = builder(&place, 2).retries(1).start().unwrap();
    let marker = |name: &str| Some(place.path(name).to_str().unwrap().to_string());
    assert_eq!(pool.apply(&DIES, marker("once")), Ok(7));
    let lost = pool.apply(&DIES, None).unwrap_err();
    assert!(matches!(lost, CallError::Lost { tries: 2, .. }), "{lost}");
    assert_says(&lost.to_string(), &["its worker was lost, 2 times"]);
    // One among many is lost alone.
    let items = (0..300).map(|number| match number {
        150 => None,
        _ => marker("once"),
    });
    for (number, result) in pool.map(&DIES, items).into_iter().enumerate() {
        match number {
            150 => assert!(matches!(result, Err(CallError::Lost { .. })), "{result:?}"),
            _ => assert_eq!(result, Ok(7), "{number}"),
        }
    }
    // Killed from without, in the midst of other calls.
    let (.., process) = pool.apply(&PLACE, ()).unwrap();
    let pending: Vec<_> = (0..40)
        .map(|number| pool.apply_async(&SLEEP, (number, 20)).unwrap())
        .collect();
    kill_process(Pid::from_raw(process as i32).unwrap(), Signal::KILL).unwrap();
    for (number, pending) in (0..).zip(pending) {
        assert_eq!(pending.wait(), Ok(number));
    }
    assert!(pool.join().unwrap().lost >= 5);
}

#[test]
fn idle_workers_of_a_pool_are_let_go_and_come_back() {
    let place = Place::new();
    let idle = Duration::from_millis(300);
    let pool = builder(&place, 2).idle_timeout(idle).start().unwrap();
    assert_eq!(pool.workers(), 0, "the first call starts them");
    for number in 0..3 {
        assert_eq!(pool.apply(&DOUBLE, number), Ok(2 * number));
        until("they are let go", || pool.workers() == 0);
    }
    pool.join().unwrap();
}

#[test]
fn a_pool_that_is_closed_finishes_and_one_that_is_dropped_does_not() {
    let place = Place::new();
    // Never used, each ends at once.
    drop(pool(&place, 2));
    pool(&place, 2).join().unwrap();

    let closed = pool(&place, 2);
    let pending: Vec<_> = (0..20)
        .map(|number| closed.apply_async(&SLEEP, (number, 10)).unwrap())
        .collect();
    closed.close();
    assert_eq!(closed.apply(&DOUBLE, 1), Err(CallError::Closed));
    assert_eq!(
        closed.apply_async(&DOUBLE, 1).unwrap_err(),
        CallError::Closed
    );
    assert_eq!(
        closed.map(&DOUBLE, [1, 2]),
        [Err(CallError::Closed), Err(CallError::Closed)]
    );
    closed.join().unwrap();
    for (number, pending) in (0..).zip(pending) {
        assert!(pending.is_done());
        assert_eq!(pending.wait(), Ok(number));
    }

    let dropped = pool(&place, 2);
    assert_eq!(dropped.apply(&DOUBLE, 1), Ok(2));
    let done = dropped.apply_async(&DOUBLE, 4).unwrap();
    assert!(done.wait_timeout(LONG));
    let pending = dropped.apply_async(&SLEEP, (1, 600_000)).unwrap();
    assert!(!pending.wait_timeout(Duration::from_millis(50)));
    let begun = Instant::now();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pending.wait());
        drop(dropped);
        let ended = waiting.join().unwrap().unwrap_err();
        assert_eq!(ended, CallError::Ended("it was dropped".into()));
    });
    assert_eq!(done.wait(), Ok(8), "what was done before is not lost");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_is_too_long_is_said_to_be() {
    let place = Place::new();
    let pool = pool(&place, 2);
    // In pieces.
    let echoed = pool.apply(&ECHO, vec![7; 9 << 20]).unwrap();
    assert!(echoed.len() == 9 << 20 && echoed.iter().all(|byte| *byte == 7));
    let refused = pool.apply(&ECHO, vec![7; 256 << 20]).unwrap_err();
    assert_says(
        &refused.to_string(),
        &[
            "arguments of echo have 268435464 bytes",
            "over the limit of 26843",
            "store",
        ],
    );
    let refused = pool.apply(&ZEROS, 256 << 20).unwrap_err();
    assert_says(
        &refused.to_string(),
        &[
            "the result of zeros has 268435464 bytes, over the limit",
            "store",
        ],
    );
    // Results that do not fit beside each other come all the same, each in its place.
    let lengths = [1, 9 << 20, 2, 3, 3 << 20, 3 << 20, 3 << 20, 4];
    for (result, length) in pool.map(&ZEROS, lengths).into_iter().zip(lengths) {
        assert_eq!(result.map(|bytes| bytes.len()), Ok(length));
    }
    let items = lengths.map(|length| vec![1; length]);
    for (result, length) in pool.map(&ECHO, items).into_iter().zip(lengths) {
        assert_eq!(result.map(|bytes| bytes.len()), Ok(length));
    }
}

#[test]
fn many_threads_call_at_once() {
    let place = Place::new();
    let pool = pool(&place, 3);
    thread::scope(|scope| {
        for thread in 0..12u64 {
            let pool = &pool;
            scope.spawn(move || {
                for number in 0..200 {
                    let number = 1000 * thread + number;
                    match thread % 3 {
                        0 => assert_eq!(pool.apply(&DOUBLE, number), Ok(2 * number)),
                        1 => {
                            let pending = pool.apply_async(&DOUBLE, number).unwrap();
                            assert!(pending.wait_timeout(LONG));
                            assert_eq!(pending.wait(), Ok(2 * number));
                        }
                        _ => {
                            let results = pool.map(&DOUBLE, number..number + 5);
                            let expected = (number..number + 5).map(|number| Ok(2 * number));
                            assert!(results.into_iter().eq(expected));
                        }
                    }
                }
            });
        }
    });
    pool.join().unwrap();
}

#[tokio::test]
async fn calls_are_futures_and_threads_of_a_runtime_may_wait_for_them_too() {
    let place = Place::new();
    let pool = pool(&place, 2);
    let pending: Vec<_> = (0..50)
        .map(|number| pool.apply_async(&DOUBLE, number).unwrap())
        .collect();
    for (number, pending) in (0..).zip(pending) {
        assert_eq!(pending.await, Ok(2 * number));
    }
    let blocking = tokio::task::spawn_blocking(move || {
        assert_eq!(pool.apply(&DOUBLE, 4), Ok(8));
        let results: Result<Vec<u64>, _> = pool.map(&DOUBLE, 0..100).into_iter().collect();
        assert_eq!(results.unwrap()[99], 198);
        let slow = pool.apply_async(&SLEEP, (1, 600_000)).unwrap();
        assert!(!slow.wait_timeout(Duration::from_millis(20)));
        pool
    });
    drop(blocking.await.unwrap());
}

#[test]
fn a_pool_that_cannot_be_is_refused_with_what_to_do() {
    let place = Place::new();
    let far = || Pool::builder().workers(2).function("far");
    let cases = [
        (Pool::builder().workers(2), "call lswitch::init"),
        (builder(&place, 0), "at least one worker"),
        (Pool::builder().function("far"), "say how many workers"),
        (far(), "which a function on AWS cannot see"),
        (
            far().store("s3://bucket/jobs").region("us-east-1"),
            "run \"lswitch serve\"",
        ),
        (
            builder(&place, 1).switch("127.0.0.1:1").secret("short"),
            "secret",
        ),
        (builder(&place, 1).store("s3://"), "no place for a store"),
    ];
    for (builder, words) in cases {
        let error: PoolError = builder.start().unwrap_err();
        assert_says(&error.to_string(), &[words]);
    }
    // Workers that are none: the job fails, and with it every call.
    let stranger = builder(&place, 1).program("/bin/false").retries(0);
    let pool = stranger.start().unwrap();
    let ended = pool.apply(&DOUBLE, 1).unwrap_err();
    assert!(matches!(ended, CallError::Ended(_)), "{ended}");
    assert!(matches!(pool.apply(&DOUBLE, 1), Err(CallError::Ended(_))));
    assert_says(&pool.join().unwrap_err().to_string(), &["worker"]);
}
