//! Counters, queues and vectors of a job, over real switches.

use crate::fabric::{Net, within};
use bytes::Bytes;
use lswitch::net::comm::{Popped, StateError};
use lswitch::net::state::ErrorKind;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn every_rank_that_counts_sees_another_value() {
    for switches in [1, 2] {
        let net = Net::of(switches).await;
        let mut job = net.job(&[1, 2, 1]).await;
        let seen = job
            .run(|comm| {
                let mut counter = comm.counter("arrivals");
                (0..100)
                    .map(|_| counter.add(1).expect("the switch counts"))
                    .collect::<Vec<i64>>()
            })
            .await;
        let mut all: Vec<i64> = seen.into_iter().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (1..=400).collect::<Vec<i64>>());
        let won = job
            .run(|comm| {
                let mut turn = comm.counter("turn");
                turn.compare_and_set(0, 7)
                    .expect("the switch compares")
                    .is_ok()
            })
            .await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        job.end().await;
        net.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_of_a_queue_goes_to_one_rank_and_a_closed_queue_ends_them_all() {
    let net = Net::start().await;
    let mut job = net.job(&[1, 1, 2]).await;
    let taken = job
        .run(|comm| {
            if comm.rank() == 0 {
                for number in 0..300u32 {
                    let item = Bytes::copy_from_slice(&number.to_le_bytes());
                    comm.queue("tasks").push([item]).expect("there is room");
                }
                comm.queue("tasks").close().expect("it can be closed");
                return Vec::new();
            }
            let mut taken = Vec::new();
            loop {
                match comm.queue("tasks").pop(LONG).expect("the switch answers") {
                    Popped::Item(item) => {
                        let item = item[..].try_into().expect("four bytes");
                        taken.push(u32::from_le_bytes(item));
                    }
                    Popped::Closed => return taken,
                    Popped::Empty => panic!("the queue was neither filled nor closed for 20 s"),
                }
            }
        })
        .await;
    let mut all: Vec<u32> = taken.into_iter().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<u32>>());
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_waits_as_long_as_it_said_and_no_longer() {
    let net = Net::start().await;
    let mut job = net.job(&[1]).await;
    let took = job
        .run(|comm| {
            let begun = Instant::now();
            let popped = comm.queue("empty").pop(Duration::from_millis(300));
            assert_eq!(popped, Ok(Popped::Empty));
            begun.elapsed()
        })
        .await;
    // The switch's clock has whole milliseconds.
    assert!(took[0] >= Duration::from_millis(298), "{took:?}");
    assert!(took[0] < Duration::from_secs(5), "{took:?}");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_add_to_a_vector_longer_than_a_frame_and_read_the_sum() {
    const LENGTH: u32 = 50_000;
    let net = Net::start().await;
    let mut job = net.job(&[2, 2]).await;
    let sums = job
        .run(|comm| {
            let mine: Vec<i64> = (0..i64::from(LENGTH)).collect();
            let mut vector = comm.vector("weights");
            vector.create::<i64>(LENGTH).expect("all ask for the same");
            vector.add(0, &mine).expect("it is there");
            vector
                .add_sparse(&[(3, 1000i64), (3, 1000)])
                .expect("indices may repeat");
            comm.barrier().expect("all come");
            let mut vector = comm.vector("weights");
            let (version, sum) = vector
                .pull::<i64>(0, LENGTH, 0)
                .expect("it is there")
                .expect("0 is older than all");
            let again = vector.pull::<i64>(0, LENGTH, version);
            assert_eq!(again, Ok(None), "nothing is newer");
            sum
        })
        .await;
    for sum in sums {
        for (at, value) in sum.into_iter().enumerate() {
            let extra = if at == 3 { 8000 } else { 0 };
            assert_eq!(value, 4 * at as i64 + extra);
        }
    }
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_switch_refuses_changes_nothing_and_says_why() {
    let net = Net::start().await;
    let mut job = net.job(&[1]).await;
    let refusals = job
        .run(|comm| {
            let item = Bytes::from(vec![0; 60_000]);
            let mut pushed = 0;
            let full = loop {
                match comm.queue("hoard").push([item.clone()]) {
                    Ok(_) => pushed += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(comm.queue("hoard").length(), Ok(pushed));
            comm.queue("hoard").delete().expect("room is made");
            comm.counter("high").set(i64::MAX).expect("there is room");
            let over = comm.counter("high").add(1).expect_err("it does not fit");
            assert_eq!(comm.counter("high").get(), Ok(i64::MAX));
            let missing = comm
                .vector("none")
                .add(0, &[1.0f64])
                .expect_err("it is missing");
            [full, over, missing]
        })
        .await
        .remove(0);
    let kinds = refusals.map(|error| match error {
        StateError::Refused { kind, reason } => {
            assert!(!reason.is_empty());
            kind
        }
        other => panic!("{other}"),
    });
    assert_eq!(
        kinds,
        [ErrorKind::Full, ErrorKind::Overflow, ErrorKind::Missing]
    );
    within(20, "the end", job.end()).await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_with_the_same_names_share_nothing() {
    let net = Net::start().await;
    let mut red = net.job(&[1]).await;
    let mut blue = net.job(&[1]).await;
    let add = |comm: &mut lswitch::net::comm::Comm| comm.counter("same").add(1);
    assert_eq!(red.run(add).await, [Ok(1)]);
    assert_eq!(blue.run(add).await, [Ok(1)]);
    assert_eq!(red.run(add).await, [Ok(2)]);
    red.end().await;
    blue.end().await;
    net.stop().await;
}
