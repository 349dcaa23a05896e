//! Each collective of [`Comm`] over real switches, against brute force: what every rank must get, computed from what all
//! ranks give.

use crate::fabric::{Net, pattern};
use bytes::Bytes;
use lswitch::net::comm::{Comm, CommError};
use lswitch::net::element::{Fold, Value};
use lswitch::net::frame::CHUNK_MAX;
use std::fmt::Debug;

/// A segment of a collective is this long in jobs of few packs.
const SEGMENT: usize = CHUNK_MAX;

/// Vectors and messages: none, one, odd, whole segments and a bit more, and more than a window of segments.
const LENGTHS: [usize; 6] = [0, 1, 333, SEGMENT, SEGMENT + 1, 5 * SEGMENT + 77];

/// Packs of one rank, of three and of four, of whatever comes, and one of all.
fn layouts(size: u32) -> Vec<Vec<u32>> {
    let even = |ranks: u32| -> Vec<u32> {
        let firsts = (0..size).step_by(ranks as usize);
        firsts.map(|first| ranks.min(size - first)).collect()
    };
    let mut uneven = Vec::new();
    let mut left = size;
    for ranks in [2, 1, 5, 1, 3].into_iter().cycle() {
        let ranks = left.min(ranks);
        if ranks == 0 {
            break;
        }
        uneven.push(ranks);
        left -= ranks;
    }
    let mut layouts = vec![even(1), even(3), even(4), uneven, vec![size]];
    layouts.sort();
    layouts.dedup();
    layouts
}

/// All ranks if they are few; otherwise the first, the last and some between.
fn roots(size: u32) -> Vec<u32> {
    if size <= 6 {
        return (0..size).collect();
    }
    vec![0, size / 3, size - 1]
}

/// What a rank gives to a call, of which `kind` is a number: a length that differs by rank, too.
fn piece(from: u32, to: u32, kind: u32) -> Bytes {
    pattern(
        from,
        to,
        kind,
        [0, 1, 17, 3000][((from + to + kind) % 4) as usize],
    )
}

/// Floats of very different magnitudes, so that the order of a sum shows in its last bits.
fn floats(rank: u32, length: usize) -> Vec<f64> {
    let float = |at: usize| {
        let mixed =
            (rank as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64 * 0x2545_f491);
        let magnitude = (mixed >> 58) as i32 - 32;
        (mixed as i32) as f64 * 2f64.powi(magnitude)
    };
    (0..length).map(float).collect()
}

fn integers(rank: u32, length: usize) -> Vec<i128> {
    let integer = |at: usize| (i128::from(rank) - 3) * (1 << 90) + at as i128;
    (0..length).map(integer).collect()
}

/// Element by element, in the order of ranks within each pack and then of packs.
fn folded<T: Copy>(
    packs: &[u32],
    vector: impl Fn(u32) -> Vec<T>,
    combine: impl Fn(T, T) -> T + Copy,
) -> Vec<T> {
    let both = |left: Vec<T>, right: Vec<T>| -> Vec<T> {
        let pairs = left.into_iter().zip(right);
        pairs.map(|(left, right)| combine(left, right)).collect()
    };
    let mut first = 0;
    let parts = packs.iter().map(|&ranks| {
        first += ranks;
        let vectors = (first - ranks..first).map(&vector);
        vectors.reduce(both).expect("a pack has ranks")
    });
    parts.reduce(both).expect("a job has packs")
}

/// Floats to the bit.
fn bits<T: Value>(values: &[T]) -> Vec<u8> {
    T::le_bytes(values).into_owned()
}

/// The same, or where they differ: vectors are too long to print.
fn assert_same<T: PartialEq + Debug>(found: &[T], expected: &[T], what: impl FnOnce() -> String) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b);
        panic!(
            "{}: {} elements where {} are due, and the first that differs is {at:?}",
            what(),
            found.len(),
            expected.len()
        );
    }
}

/// Folds of every type with this root, or for all.
fn check_folds(comm: &mut Comm, packs: &[u32], length: usize, root: Option<u32>) {
    let me = comm.rank();
    let what = || format!("rank {me} of {packs:?}, {length} elements, root {root:?}");
    fn fold<T: Value>(
        comm: &mut Comm,
        fold: Fold,
        mine: &[T],
        root: Option<u32>,
    ) -> Option<Vec<T>> {
        match root {
            None => Some(comm.all_reduce(fold, mine).expect("all take part")),
            Some(root) => comm.reduce(root, fold, mine).expect("all take part"),
        }
    }
    let is_for_me = root.is_none_or(|root| root == me);
    macro_rules! check {
        ($fold:expr, $vector:expr, $combine:expr) => {{
            let vector = $vector;
            let found = fold(comm, $fold, &vector(me), root);
            assert_eq!(found.is_some(), is_for_me, "{}", what());
            if let Some(found) = found {
                let expected = folded(packs, vector, $combine);
                assert_same(&bits(&found), &bits(&expected), || {
                    format!("{}, {}", $fold, what())
                });
            }
        }};
    }
    let small = |rank: u32| -> Vec<f32> {
        floats(rank, length)
            .iter()
            .map(|&float| (float / 3.0) as f32)
            .collect()
    };
    let signed = |rank: u32| -> Vec<i64> {
        (0..length as i64)
            .map(|at| (5 - i64::from(rank)) * (at * at + 1))
            .collect()
    };
    let unsigned = |rank: u32| -> Vec<u64> {
        (0..length as u64)
            .map(|at| (u64::from(rank) * at) ^ (at << 40))
            .collect()
    };
    check!(Fold::Sum, |rank| floats(rank, length), |a: f64, b: f64| a
        + b);
    check!(Fold::Min, |rank| floats(rank, length), f64::min);
    check!(Fold::Max, small, f32::max);
    check!(Fold::Sum, small, |a: f32, b: f32| a + b);
    check!(
        Fold::Sum,
        |rank| integers(rank, length),
        |a: i128, b: i128| a + b
    );
    check!(Fold::Max, |rank| integers(rank, length), std::cmp::Ord::max);
    check!(Fold::Min, signed, std::cmp::Ord::min);
    check!(Fold::Sum, unsigned, |a: u64, b: u64| a + b);
}

/// Every collective once with this root.
fn check_root(comm: &mut Comm, packs: &[u32], root: u32, length: usize) {
    let (me, size) = (comm.rank(), comm.size());
    let what = || format!("rank {me} of {packs:?}, root {root}, {length} bytes");
    let news = pattern(root, 99, 0, length);
    let mine = if me == root {
        news.clone()
    } else {
        piece(me, 98, 1)
    };
    let found = comm.broadcast(root, mine).expect("all take part");
    assert_same(&found, &news, || format!("broadcast, {}", what()));

    let of = |from: u32| {
        if from.is_multiple_of(3) {
            piece(from, root, 2)
        } else {
            pattern(from, 0, 7, length)
        }
    };
    let found = comm.gather(root, of(me)).expect("all take part");
    assert_eq!(found.is_some(), me == root, "{}", what());
    if let Some(found) = found {
        let expected: Vec<Bytes> = (0..size).map(of).collect();
        assert_same(&found, &expected, || format!("gather, {}", what()));
    }

    let to = |rank: u32| {
        if rank.is_multiple_of(2) {
            piece(root, rank, 3)
        } else {
            pattern(root, rank, 8, length)
        }
    };
    let pieces = if me == root {
        (0..size).map(to).collect()
    } else {
        Vec::new()
    };
    let found = comm.scatter(root, pieces).expect("all take part");
    assert_same(&found, &to(me), || format!("scatter, {}", what()));

    // Associative, and not commutative: the order of operands shows.
    let join = |left: Bytes, right: Bytes| Bytes::from([left, right].concat());
    let found = comm
        .reduce_with(root, piece(me, 5, root), join)
        .expect("all take part");
    assert_eq!(found.is_some(), me == root, "{}", what());
    if let Some(found) = found {
        let expected: Vec<Bytes> = (0..size).map(|rank| piece(rank, 5, root)).collect();
        assert_same(&found, &expected.concat(), || {
            format!("reduce_with, {}", what())
        });
    }
}

/// The collectives that have no root.
fn check_all(comm: &mut Comm, packs: &[u32], length: usize) {
    let (me, size) = (comm.rank(), comm.size());
    let what = || format!("rank {me} of {packs:?}, {length} bytes");
    let of = |from: u32| {
        if from % 3 == 1 {
            piece(from, 1, 4)
        } else {
            pattern(from, 0, 9, length / size as usize)
        }
    };
    let found = comm.all_gather(of(me)).expect("all take part");
    let expected: Vec<Bytes> = (0..size).map(of).collect();
    assert_same(&found, &expected, || format!("all_gather, {}", what()));

    let pair = |from: u32, to: u32| {
        if (from + to).is_multiple_of(2) {
            piece(from, to, 6)
        } else {
            pattern(from, to, 6, length / size as usize)
        }
    };
    let pieces = (0..size).map(|to| pair(me, to)).collect();
    let found = comm.all_to_all(pieces).expect("all take part");
    let expected: Vec<Bytes> = (0..size).map(|from| pair(from, me)).collect();
    assert_same(&found, &expected, || format!("all_to_all, {}", what()));

    let join = |left: Bytes, right: Bytes| Bytes::from([left, right].concat());
    let found = comm
        .all_reduce_with(piece(me, 7, 7), join)
        .expect("all take part");
    let expected: Vec<Bytes> = (0..size).map(|rank| piece(rank, 7, 7)).collect();
    assert_same(&found, &expected.concat(), || {
        format!("all_reduce_with, {}", what())
    });
    comm.barrier().expect("all take part");
}

/// All of them, in a job of these packs.
async fn check(net: &Net, packs: Vec<u32>) {
    let size: u32 = packs.iter().sum();
    let mut job = net.job(&packs).await;
    job.run(move |comm| {
        for (number, root) in (0..).zip(roots(size)) {
            check_root(comm, &packs, root, LENGTHS[number % LENGTHS.len()]);
            check_folds(comm, &packs, [0, 1, 5][number % 3], Some(root));
        }
        // Debug builds are slow: long vectors for a few sizes only.
        let longest = if size <= 3 || size == 7 {
            LENGTHS.len()
        } else {
            3
        };
        for &length in &LENGTHS[..longest] {
            check_all(comm, &packs, length);
            check_folds(comm, &packs, length / 8, None);
        }
    })
    .await;
    job.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_collective_agrees_with_brute_force_whatever_the_packs() {
    let net = Net::start().await;
    for size in 1..=17 {
        for packs in layouts(size) {
            check(&net, packs).await;
        }
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_collective_agrees_with_brute_force_for_64_ranks() {
    let net = Net::start().await;
    for packs in layouts(64) {
        check(&net, packs).await;
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_collective_agrees_with_brute_force_over_two_switches() {
    let net = Net::of(2).await;
    for size in [1, 2, 3, 5, 7, 8] {
        for packs in layouts(size) {
            check(&net, packs).await;
        }
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_collectives_share_two_switches_without_mixing() {
    let net = Net::of(2).await;
    let mut job = net.job(&[1, 2, 1, 3]).await;
    job.run(|comm| {
        let (me, size) = (comm.rank(), comm.size());
        for round in 0..20 {
            for to in 0..size {
                comm.send(to, round % 3, pattern(me, to, round, 20_000))
                    .expect("sent");
            }
            let total = comm
                .all_reduce(Fold::Sum, &[i64::from(me), 1])
                .expect("all take part");
            assert_eq!(total, [i64::from(size * (size - 1) / 2), i64::from(size)]);
            for from in 0..size {
                let message = comm.receive(Some(from), round % 3).expect("it was sent");
                assert_eq!(message.payload, pattern(from, me, round, 20_000));
            }
            comm.barrier().expect("all take part");
        }
    })
    .await;
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_of_floats_repeat_to_the_bit_for_the_same_packing() {
    let net = Net::start().await;
    let mut first: Option<Vec<u8>> = None;
    for _ in 0..3 {
        let mut job = net.job(&[2, 1, 3, 1]).await;
        let sums = job
            .run(|comm| {
                let mine = floats(comm.rank(), 3 * SEGMENT / 8 + 5);
                let rounds = (0..5)
                    .map(|_| bits(&comm.all_reduce(Fold::Sum, &mine).expect("all take part")));
                rounds.collect::<Vec<_>>()
            })
            .await;
        for sum in sums.into_iter().flatten() {
            let first = first.get_or_insert_with(|| sum.clone());
            assert_same(&sum, first, || "a sum".into());
        }
        job.end().await;
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exchanges_of_pieces_longer_than_any_credit_complete() {
    let net = Net::start().await;
    // Five ranks in a pack: a mailbox of 6.4 MiB for each, of which each of three packs has a third.
    let packs = [5, 1, 5];
    let mut job = net.job(&packs).await;
    job.run(|comm| {
        const LENGTH: usize = 3 << 20;
        let (me, size) = (comm.rank(), comm.size());
        let gathered = comm
            .gather(7, pattern(me, 7, 0, LENGTH))
            .expect("all take part");
        for (from, bytes) in (0..).zip(gathered.into_iter().flatten()) {
            assert_same(&bytes, &pattern(from, 7, 0, LENGTH), || {
                format!("gather from {from}")
            });
        }
        let pieces: Vec<Bytes> = (0..size).map(|to| pattern(me, to, 1, LENGTH / 4)).collect();
        let exchanged = comm.all_to_all(pieces).expect("all take part");
        for (from, bytes) in (0..).zip(exchanged) {
            assert_same(&bytes, &pattern(from, me, 1, LENGTH / 4), || {
                format!("all_to_all from {from}")
            });
        }
    })
    .await;
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_done_after_a_broadcast_does_not_disturb_those_who_are_slower() {
    let net = Net::start().await;
    for _ in 0..20 {
        let mut job = net.job(&[1, 1, 1, 1, 1]).await;
        let comms: Vec<Comm> = job.packs.iter().map(|pack| pack.comm(0)).collect();
        let ranks: Vec<_> = job
            .packs
            .drain(..)
            .zip(comms)
            .map(|(pack, comm)| {
                let rank = crate::fabric::on_thread(comm, |comm| {
                    comm.broadcast(0, Bytes::from_static(b"news"))
                        .expect("all take part")
                });
                tokio::spawn(async move {
                    assert_eq!(rank.await.expect("no panic"), "news");
                    pack.leave(None).await.expect("the job goes on");
                })
            })
            .collect();
        for rank in ranks {
            crate::fabric::within(10, "a rank", rank)
                .await
                .expect("no panic");
        }
        job.end().await;
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_no_rank_should_make_are_refused_in_words() {
    let net = Net::start().await;
    let mut job = net.job(&[1, 2]).await;
    job.run(|comm| {
        let me = comm.rank();
        let root = comm
            .broadcast(3, Bytes::new())
            .expect_err("there is no rank 3");
        assert_eq!(
            root.to_string(),
            format!("rank {me} named rank 3 as the root in a job of 3 ranks")
        );
        let pieces = comm
            .all_to_all(vec![Bytes::new(); 2])
            .expect_err("one is missing");
        assert_eq!(
            pieces.to_string(),
            format!("rank {me} gave 2 pieces in a job of 3 ranks; it takes one for each")
        );
        if me == 0 {
            let pieces = comm.scatter(0, Vec::new()).expect_err("all are missing");
            assert!(pieces.to_string().contains("gave 0 pieces"), "{pieces}");
        }
        comm.barrier().expect("none of it was heard by others");
        let error = comm
            .all_reduce(Fold::Sum, &[[i64::MAX, 1, 0][me as usize]])
            .expect_err("the sum does not fit");
        assert!(
            error.to_string().contains("a sum does not fit into i64"),
            "{error}"
        );
    })
    .await;
    net.stop().await;

    let net = Net::start().await;
    let mut job = net.job(&[1, 1]).await;
    let errors = job
        .run(|comm| {
            let mine = vec![1u64; comm.rank() as usize + 1];
            let error = comm
                .all_reduce(Fold::Max, &mine)
                .expect_err("lengths differ");
            error.to_string()
        })
        .await;
    for error in errors {
        assert!(
            error.contains("all ranks must make the same calls"),
            "{error}"
        );
    }
    net.stop().await;
}

/// What a rank calls, and how the others are told of it.
type Called = (fn(&mut Comm) -> Result<(), CommError>, &'static str);

const CALLS: [Called; 12] = [
    (|comm| comm.barrier(), "barrier"),
    (
        |comm| comm.broadcast(0, Bytes::from_static(b"news")).map(drop),
        "broadcast from rank 0",
    ),
    (
        |comm| comm.all_reduce(Fold::Sum, &[1u64]).map(drop),
        "sum of 1 u64 to all ranks",
    ),
    (
        |comm| comm.all_reduce(Fold::Sum, &[1i64]).map(drop),
        "sum of 1 i64 to all ranks",
    ),
    (
        |comm| comm.reduce(1, Fold::Sum, &[1u64]).map(drop),
        "sum of 1 u64 to rank 1",
    ),
    (
        |comm| comm.gather(0, Bytes::new()).map(drop),
        "gather to rank 0",
    ),
    (
        |comm| comm.gather(1, Bytes::new()).map(drop),
        "gather to rank 1",
    ),
    (|comm| comm.all_gather(Bytes::new()).map(drop), "all-gather"),
    (
        |comm| {
            let pieces = vec![Bytes::new(); comm.size() as usize];
            comm.scatter(1, pieces).map(drop)
        },
        "scatter from rank 1",
    ),
    (
        |comm| {
            let pieces = vec![Bytes::new(); comm.size() as usize];
            comm.all_to_all(pieces).map(drop)
        },
        "all-to-all",
    ),
    (
        |comm| comm.reduce_with(0, Bytes::new(), |one, _| one).map(drop),
        "reduce by a function to rank 0",
    ),
    (
        |comm| comm.all_reduce_with(Bytes::new(), |one, _| one).map(drop),
        "all-reduce by a function",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_two_calls_that_differ_end_the_job_with_both_named() {
    let net = Net::start().await;
    for first in 0..CALLS.len() {
        for second in first + 1..CALLS.len() {
            let mut job = net.job(&[1, 1]).await;
            let errors = job
                .run(move |comm| {
                    let (call, _) = CALLS[[first, second][comm.rank() as usize]];
                    // Who waits for nothing hears of it in the next call.
                    call(comm)
                        .and_then(|()| comm.barrier())
                        .expect_err("the calls differ")
                        .to_string()
                })
                .await;
            for error in errors {
                for name in [CALLS[first].1, CALLS[second].1] {
                    assert!(error.contains(name), "{name}: {error}");
                }
            }
        }
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_within_one_pack_are_compared_too() {
    let net = Net::start().await;
    type Call = fn(&mut Comm, u32) -> Result<(), CommError>;
    let calls: [Call; 4] = [
        |comm, root| comm.broadcast(root, Bytes::new()).map(drop),
        |comm, root| comm.gather(root, Bytes::new()).map(drop),
        |comm, root| comm.reduce(root, Fold::Max, &[1.0f32]).map(drop),
        |comm, root| {
            let combined = comm.reduce_with(root, Bytes::new(), |one, _| one);
            combined.map(drop)
        },
    ];
    for call in calls {
        let mut job = net.job(&[2, 1]).await;
        let errors = job
            .run(move |comm| {
                let root = u32::from(comm.rank() == 2);
                let made = call(comm, root).and_then(|()| comm.barrier());
                made.expect_err("the roots differ").to_string()
            })
            .await;
        for error in errors {
            let both = |first: &str, second: &str| {
                error.contains(&format!("{first}, but")) && error.contains(&format!("{second};"))
            };
            assert!(
                both("rank 1", "rank 0") || both("rank 0", "rank 1"),
                "{error}"
            );
        }
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_that_only_send_may_be_many_calls_ahead_of_a_slow_root() {
    const CALLS: u32 = 500;
    let net = Net::start().await;
    let mut job = net.job(&[1, 2, 1]).await;
    job.run(|comm| {
        for number in 0..CALLS {
            let mine = Bytes::from(vec![comm.rank() as u8; (number % 7) as usize]);
            let all = comm.gather(0, mine).expect("all take part");
            if let Some(all) = all {
                for (rank, piece) in all.iter().enumerate() {
                    assert_eq!(piece, &vec![rank as u8; (number % 7) as usize]);
                }
            }
        }
    })
    .await;
    job.end().await;
    net.stop().await;
}
