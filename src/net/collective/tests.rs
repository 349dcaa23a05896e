//! The collectives against brute force, with contributions in random orders.

use super::*;
use crate::net::element::Value;
use proptest::prelude::*;

const SEGMENT_MAX: usize = 64;
const SUM_F64: Operation = Operation::Fold(Fold::Sum, Element::F64);
const SUM_I64: Operation = Operation::Fold(Fold::Sum, Element::I64);

/// SplitMix64, of Steele, Lea and Flood: enough to shuffle by.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A vector whose sums fit, with floats of very different magnitudes.
    fn vector(&mut self, element: Element, elements: usize) -> Vec<u8> {
        let mut float = || {
            let magnitude = 2_f64.powi(self.below(120) as i32 - 60);
            (self.next() as i64) as f64 * 2_f64.powi(-63) * magnitude
        };
        match element {
            Element::F64 => {
                f64::le_bytes(&(0..elements).map(|_| float()).collect::<Vec<_>>()).into_owned()
            }
            Element::F32 => {
                f32::le_bytes(&(0..elements).map(|_| float() as f32).collect::<Vec<_>>())
                    .into_owned()
            }
            Element::I64 => {
                i64::le_bytes(&self.integers(elements, |value| value as i64 >> 8)).into_owned()
            }
            Element::U64 => {
                u64::le_bytes(&self.integers(elements, |value| value >> 8)).into_owned()
            }
            Element::I128 => i128::le_bytes(&self.integers(elements, |value| {
                (i128::from(value as i64) << 56) + i128::from(value)
            }))
            .into_owned(),
        }
    }

    fn integers<T>(&mut self, elements: usize, cast: impl Fn(u64) -> T) -> Vec<T> {
        (0..elements).map(|_| cast(self.next())).collect()
    }
}

/// Packs of one rank each.
fn calls_of(packs: usize, window: usize) -> Collectives {
    let spans = (0..packs as u32).map(Span::one).collect();
    Collectives::new(spans, window, SEGMENT_MAX)
}

/// One call of all packs.
#[derive(Debug)]
struct Whole {
    operation: Operation,
    root: Option<u32>,
    /// By pack; all but the root's are empty if it is a broadcast.
    vectors: Vec<Vec<u8>>,
}

impl Whole {
    fn random(
        random: &mut Random,
        packs: usize,
        operation: Operation,
        root: Option<u32>,
        length: usize,
    ) -> Whole {
        let vectors = (0..packs).map(|pack| match operation {
            Operation::Fold(_, element) => random.vector(element, length),
            Operation::Broadcast if root == Some(pack as u32) => {
                (0..length).map(|_| random.next() as u8).collect()
            }
            Operation::Broadcast | Operation::Exchange(_) => Vec::new(),
        });
        Whole {
            operation,
            root,
            vectors: vectors.collect(),
        }
    }

    fn total(&self) -> usize {
        self.vectors.iter().map(Vec::len).max().expect("some pack")
    }

    /// What a pack gets: by brute force, each element for itself, in pack order.
    fn expected(&self, pack: usize) -> Vec<u8> {
        let is_root = self.root == Some(pack as u32);
        match self.operation {
            Operation::Broadcast if is_root => Vec::new(),
            Operation::Exchange(_) => Vec::new(),
            Operation::Broadcast => {
                self.vectors[self.root.expect("broadcasts have one") as usize].clone()
            }
            Operation::Fold(..) if self.root.is_some() && !is_root => Vec::new(),
            Operation::Fold(fold, Element::F64) => self.reduced(fold, |a, b| a + b, f64::total_cmp),
            Operation::Fold(fold, Element::F32) => self.reduced(fold, |a, b| a + b, f32::total_cmp),
            Operation::Fold(fold, Element::I64) => self.reduced(fold, |a, b| a + b, i64::cmp),
            Operation::Fold(fold, Element::U64) => self.reduced(fold, |a, b| a + b, u64::cmp),
            Operation::Fold(fold, Element::I128) => self.reduced(fold, |a, b| a + b, i128::cmp),
        }
    }

    fn reduced<T: Value>(
        &self,
        fold: Fold,
        add: impl Fn(T, T) -> T,
        compare: impl Fn(&T, &T) -> std::cmp::Ordering,
    ) -> Vec<u8> {
        let values = |bytes: &Vec<u8>| {
            let mut values = Vec::new();
            assert!(T::extend(&mut values, bytes), "whole elements");
            values
        };
        let vectors: Vec<Vec<T>> = self.vectors.iter().map(values).collect();
        let column = |at: usize| {
            let column = vectors.iter().map(move |vector| vector[at]);
            match fold {
                Fold::Sum => column.reduce(&add),
                Fold::Min => column.min_by(&compare),
                Fold::Max => column.max_by(&compare),
            }
        };
        let result: Option<Vec<T>> = (0..vectors[0].len()).map(column).collect();
        T::le_bytes(&result.expect("some pack")).into_owned()
    }
}

/// What the packs do: contributions in a random order, as far as their windows allow. Checks all that is promised.
fn run(random: &mut Random, packs: usize, window: usize, calls: &[Whole]) {
    let mut collectives = calls_of(packs, window);
    // Of each segment its call and where it starts.
    let segments: Vec<(usize, usize)> = calls
        .iter()
        .enumerate()
        .flat_map(|(index, call)| {
            let count = call.total().div_ceil(SEGMENT_MAX).max(1);
            (0..count).map(move |segment| (index, segment * SEGMENT_MAX))
        })
        .collect();
    let mut next = vec![0; packs];
    let mut answers = vec![vec![None; segments.len()]; packs];
    let mut unanswered = vec![0; packs];
    loop {
        let able = |pack: &usize| next[*pack] < segments.len() && unanswered[*pack] < window;
        let able: Vec<usize> = (0..packs).filter(able).collect();
        if able.is_empty() {
            break;
        }
        let pack = able[random.below(able.len())];
        let sequence = next[pack];
        let (index, start) = segments[sequence];
        let call = &calls[index];
        let vector = &call.vectors[pack];
        let part = Part {
            operation: call.operation.code(),
            root: call.root,
            shape: 0,
            total: vector.len() as u64,
            data: &vector[start.min(vector.len())..vector.len().min(start + SEGMENT_MAX)],
        };
        next[pack] += 1;
        unanswered[pack] += 1;
        for answer in collectives
            .contribute(pack, sequence as u64, part)
            .expect("the packs agree")
        {
            assert_eq!(answer.total, call.total() as u64);
            unanswered[answer.pack] -= 1;
            let earlier = answers[answer.pack][sequence].replace(answer.data);
            assert_eq!(earlier, None, "an answer comes once");
        }
        if call.operation == Operation::Broadcast {
            let root = call.root.expect("broadcasts have one") as usize;
            for other in (0..packs).filter(|other| *other != root) {
                let due = next[root] > sequence && next[other] > sequence;
                let served = answers[other][sequence].is_some();
                assert_eq!(served, due, "a broadcast waits only for the root");
            }
            let complete = next.iter().all(|next| *next > sequence);
            assert_eq!(answers[root][sequence].is_some(), complete);
        }
        assert!(collectives.held_bytes() <= packs * window * SEGMENT_MAX);
    }
    assert!(!collectives.is_pending());
    assert_eq!(collectives.held_bytes(), 0);
    for (pack, answers) in answers.into_iter().enumerate() {
        let mut results = vec![Vec::new(); calls.len()];
        for ((index, _), answer) in segments.iter().zip(answers) {
            results[*index].extend_from_slice(&answer.expect("all are answered"));
        }
        for (call, result) in calls.iter().zip(results) {
            assert_eq!(result, call.expected(pack), "{} for {pack}", call.operation);
        }
    }
}

fn operations() -> impl Iterator<Item = Operation> {
    let folds = Fold::ALL.into_iter().flat_map(|fold| {
        let of = move |element| Operation::Fold(fold, element);
        Element::ALL.into_iter().map(of)
    });
    folds.chain([Operation::Broadcast])
}

#[test]
fn all_operations_roots_and_lengths_agree_with_brute_force_and_floats_to_the_bit() {
    let mut random = Random(1);
    for packs in (1..=17).chain([64]) {
        for operation in operations() {
            let mut calls = Vec::new();
            for root in (0..packs as u32).map(Some).chain([None]) {
                if root.is_none() && operation == Operation::Broadcast {
                    continue;
                }
                // Nothing, one, an odd number in one segment or more, and more than a window of segments.
                for length in [0, 1, 3, 8, 33] {
                    calls.push(Whole::random(&mut random, packs, operation, root, length));
                }
            }
            let window = 1 + random.below(4);
            run(&mut random, packs, window, &calls);
        }
    }
}

proptest! {
    #[test]
    fn programs_of_mixed_calls_agree_with_brute_force(
        seed in any::<u64>(), packs in 1..18_usize, window in 1..9_usize, calls in 0..12_usize,
    ) {
        let mut random = Random(seed);
        let operations: Vec<Operation> = operations().collect();
        let calls: Vec<Whole> = (0..calls)
            .map(|_| {
                // Broadcasts are as likely as folds.
                let operation = operations[random.below(30).min(operations.len() - 1)];
                let root = Some(random.below(packs) as u32)
                    .filter(|_| operation == Operation::Broadcast || seed % 2 == 0);
                let length = random.below(200);
                Whole::random(&mut random, packs, operation, root, length)
            })
            .collect();
        run(&mut random, packs, window, &calls);
    }
}

fn fold_of<'a>(operation: Operation, data: &'a [u8]) -> Part<'a> {
    Part {
        operation: operation.code(),
        root: None,
        shape: 0,
        total: data.len() as u64,
        data,
    }
}

fn broadcast(root: u32, data: &[u8]) -> Part<'_> {
    Part {
        root: Some(root),
        ..fold_of(Operation::Broadcast, data)
    }
}

/// The message of the refusal, which must have changed nothing.
fn refusal(collectives: &mut Collectives, pack: usize, sequence: u64, part: Part<'_>) -> String {
    let before = format!("{collectives:?}");
    let error = collectives
        .contribute(pack, sequence, part)
        .expect_err("it is to be refused");
    assert_eq!(format!("{collectives:?}"), before);
    error.to_string()
}

#[test]
fn codes_are_those_of_the_wire() {
    assert_eq!(
        Operation::Fold(Fold::Sum, Element::I128).code(),
        0x0105,
        "as it always was"
    );
    assert_eq!(Operation::Fold(Fold::Max, Element::F32).code(), 0x0302);
    assert_eq!(Operation::Broadcast.code(), 0x0400);
    assert_eq!(Operation::Exchange(Exchange::Gather).code(), 0x0501);
    assert_eq!(Operation::Exchange(Exchange::AllReduceWith).code(), 0x0506);
    for operation in operations().chain(Exchange::ALL.into_iter().map(Operation::Exchange)) {
        assert_eq!(Operation::from_code(operation.code()), Some(operation));
    }
    let known: Vec<u32> = (0..0x1_0000)
        .filter(|code| Operation::from_code(*code).is_some())
        .collect();
    let exchanges = Exchange::ALL.into_iter().map(Operation::Exchange);
    let mut codes: Vec<u32> = operations().chain(exchanges).map(Operation::code).collect();
    codes.sort_unstable();
    assert_eq!(known, codes);
    assert_eq!(Operation::from_code(0x0001_0105), None);
    assert_eq!(Operation::from_code(u32::MAX), None);
}

#[test]
fn a_part_that_makes_no_sense_alone_is_refused() {
    let mut calls = calls_of(3, 2);
    let mut refused = |part| refusal(&mut calls, 1, 0, part);
    let unknown = Part {
        operation: 0x0106,
        ..fold_of(SUM_F64, &[])
    };
    assert_eq!(
        refused(unknown),
        "collective segment 0: operation 0x0106 is not known to this switch; use the same release everywhere"
    );
    assert_eq!(
        refused(fold_of(SUM_F64, &[0; 12])),
        "collective segment 0: 12 bytes are not a whole number of f64 (8 bytes each)"
    );
    assert_eq!(
        refused(fold_of(SUM_F64, &[0; 72])),
        "collective segment 0 has 72 bytes, and 64 is the most; cut it smaller"
    );
    assert_eq!(
        refused(broadcast(3, &[])),
        "collective segment 0: root 3 is not one of the 3 ranks; give 0 to 2"
    );
    let no_root = Part {
        root: None,
        ..broadcast(1, b"abc")
    };
    assert_eq!(
        refused(no_root),
        "collective segment 0: a broadcast without a root; name the rank that gives the data"
    );
    assert_eq!(
        refused(broadcast(2, b"abc")),
        "collective segment 0: pack 1 gives 3 bytes of a vector of 3 to a broadcast from rank 2; only the root gives data"
    );
    for (total, length) in [(8, 16), (8, 0), (0, 8)] {
        let part = Part {
            total,
            ..fold_of(SUM_F64, &[0; 16][..length])
        };
        assert_eq!(
            refused(part),
            format!(
                "collective segment 0 has {length} bytes of a vector of {total}; give at least one and not more than there are"
            )
        );
    }
}

#[test]
fn segments_out_of_turn_are_refused() {
    let mut calls = calls_of(2, 2);
    let part = fold_of(SUM_I64, &[0; 8]);
    assert_eq!(calls.contribute(1, 0, part), Ok(Vec::new()));
    for found in [0, 2] {
        assert_eq!(
            refusal(&mut calls, 1, found, part),
            format!(
                "collective segment {found} of pack 1 came where number 1 was due; segments are numbered from 0 without gaps"
            )
        );
    }
}

#[test]
fn a_pack_that_does_not_wait_for_answers_fills_no_memory() {
    let mut calls = calls_of(2, 2);
    let part = fold_of(SUM_I64, &[0; 8]);
    let ahead = |sequence| {
        format!(
            "collective segment {sequence} of pack 0 came while 2 earlier ones are unanswered, which is the most; wait for answers"
        )
    };
    assert_eq!(calls.contribute(0, 0, part), Ok(Vec::new()));
    assert_eq!(calls.contribute(0, 1, part), Ok(Vec::new()));
    assert_eq!(refusal(&mut calls, 0, 2, part), ahead(2));
    assert_eq!(calls.contribute(1, 0, part).map(|all| all.len()), Ok(2));
    // The root of a broadcast is bounded by the slowest pack.
    let part = broadcast(0, b"abc");
    assert_eq!(calls.contribute(0, 2, part), Ok(Vec::new()));
    assert_eq!(refusal(&mut calls, 0, 3, part), ahead(3));
}

#[test]
fn packs_that_make_different_calls_are_told_which() {
    let reduce = Part {
        root: Some(2),
        ..fold_of(SUM_F64, &[0; 16])
    };
    let longer = Part {
        total: 800,
        ..fold_of(SUM_F64, &[0; 16])
    };
    let cut = Part {
        total: 16,
        ..fold_of(SUM_F64, &[0; 8])
    };
    let sum = (fold_of(SUM_F64, &[0; 16]), "sum of 2 f64 to all ranks");
    let shaped = |shape| Part {
        shape,
        ..fold_of(SUM_F64, &[0; 16])
    };
    let barrier = fold_of(Operation::Fold(Fold::Max, Element::U64), &[]);
    let gather = (exchange(Exchange::Gather, Some(0)), "gather to rank 0");
    let cases = [
        (sum, fold_of(SUM_I64, &[0; 16]), "sum of 2 i64 to all ranks"),
        (sum, reduce, "sum of 2 f64 to rank 2"),
        (
            sum,
            longer,
            "sum of 100 f64 to all ranks, 16 of 800 bytes here",
        ),
        (sum, cut, "sum of 2 f64 to all ranks, 8 of 16 bytes here"),
        (sum, fold_of(SUM_F64, &[]), "sum of 0 f64 to all ranks"),
        (sum, barrier, "barrier"),
        (sum, broadcast(2, &[]), "broadcast from rank 2"),
        (
            (broadcast(2, &[]), "broadcast from rank 2"),
            broadcast(1, b"abc"),
            "broadcast from rank 1",
        ),
        (
            (shaped(1), "sum of 2 f64 to all ranks in the shape 0x0001"),
            shaped(2),
            "sum of 2 f64 to all ranks in the shape 0x0002",
        ),
        (
            gather,
            exchange(Exchange::Gather, Some(1)),
            "gather to rank 1",
        ),
        (
            gather,
            exchange(Exchange::Scatter, Some(0)),
            "scatter from rank 0",
        ),
        (gather, exchange(Exchange::AllGather, None), "all-gather"),
        (
            gather,
            exchange(Exchange::AllReduceWith, None),
            "all-reduce by a function",
        ),
        (gather, barrier, "barrier"),
        (gather, broadcast(0, b""), "broadcast from rank 0"),
    ];
    for ((first, expected), second, found) in cases {
        for turned in [false, true] {
            let (first, second) = if turned {
                (second, first)
            } else {
                (first, second)
            };
            let (expected, found) = if turned {
                (found, expected)
            } else {
                (expected, found)
            };
            let mut calls = calls_of(3, 2);
            assert_eq!(calls.contribute(0, 0, emptied(first, 0)), Ok(Vec::new()));
            assert_eq!(
                refusal(&mut calls, 1, 0, emptied(second, 1)),
                format!(
                    "collective segment 0: rank 1 calls {found}, but rank 0 calls {expected}; all ranks must make the same calls"
                )
            );
        }
    }
}

/// Of a broadcast only the root gives data.
fn emptied(part: Part<'_>, pack: usize) -> Part<'_> {
    if part.operation == Operation::Broadcast.code() && part.root != Some(pack as u32) {
        return Part {
            total: 0,
            data: &[],
            ..part
        };
    }
    part
}

fn exchange(exchange: Exchange, root: Option<u32>) -> Part<'static> {
    Part {
        root,
        ..fold_of(Operation::Exchange(exchange), &[])
    }
}

#[test]
fn a_vector_without_a_shape_is_combined_with_any() {
    let shaped = |shape| Part {
        shape,
        ..fold_of(SUM_I64, &[0; 16])
    };
    let mut calls = calls_of(3, 2);
    assert_eq!(calls.contribute(0, 0, shaped(0)), Ok(Vec::new()));
    assert_eq!(calls.contribute(1, 0, shaped(7)), Ok(Vec::new()));
    assert_eq!(
        refusal(&mut calls, 2, 0, shaped(8)),
        "collective segment 0: rank 2 calls sum of 2 i64 to all ranks in the shape 0x0008, but rank 0 calls sum of 2 i64 to all ranks in the shape 0x0007; all ranks must make the same calls"
    );
    assert_eq!(
        calls.contribute(2, 0, shaped(7)).map(|all| all.len()),
        Ok(3)
    );
}

#[test]
fn ranks_of_one_pack_are_different_roots() {
    let spans = vec![
        Span {
            first_rank: 0,
            ranks: 3,
        },
        Span {
            first_rank: 3,
            ranks: 2,
        },
    ];
    let mut calls = Collectives::new(spans, 2, SEGMENT_MAX);
    assert_eq!(calls.contribute(0, 0, broadcast(1, b"abc")), Ok(Vec::new()));
    assert_eq!(
        refusal(&mut calls, 1, 0, broadcast(2, b"")),
        "collective segment 0: ranks 3-4 calls broadcast from rank 2, but ranks 0-2 calls broadcast from rank 1; all ranks must make the same calls"
    );
    assert_eq!(
        calls
            .contribute(1, 0, broadcast(1, b""))
            .map(|all| all.len()),
        Ok(2)
    );
    assert_eq!(
        refusal(&mut calls, 1, 1, broadcast(5, b"")),
        "collective segment 1: root 5 is not one of the 5 ranks; give 0 to 4"
    );
}

#[test]
fn an_announcement_has_no_data_and_a_root_if_the_exchange_has_one() {
    let mut calls = calls_of(2, 2);
    let gather = exchange(Exchange::Gather, Some(1));
    for (part, found) in [
        (
            exchange(Exchange::Gather, None),
            "gather was announced with 0 bytes of a vector of 0 and the root None",
        ),
        (
            exchange(Exchange::AllToAll, Some(1)),
            "all-to-all was announced with 0 bytes of a vector of 0 and the root Some(1)",
        ),
        (
            Part {
                total: 3,
                data: b"abc",
                ..gather
            },
            "gather was announced with 3 bytes of a vector of 3 and the root Some(1)",
        ),
    ] {
        assert_eq!(
            refusal(&mut calls, 0, 0, part),
            format!(
                "collective segment 0: {found}; exchanges have no data, and a root if one rank gives or gets all of it"
            )
        );
    }
}

#[test]
fn every_sixteenth_announcement_is_answered_and_bounds_how_far_a_pack_is_ahead() {
    let mut calls = calls_of(2, 1);
    let part = exchange(Exchange::Scatter, Some(0));
    // A barrier in between counts for nothing.
    let barrier = fold_of(SUM_I64, b"");
    assert_eq!(calls.contribute(0, 0, barrier), Ok(Vec::new()));
    assert_eq!(calls.contribute(1, 0, barrier).map(|all| all.len()), Ok(2));
    for sequence in 1..=ANNOUNCED_MAX {
        assert_eq!(calls.contribute(0, sequence, part), Ok(Vec::new()));
    }
    assert_eq!(calls.held_bytes(), 0);
    let next = ANNOUNCED_MAX + 1;
    assert_eq!(
        refusal(&mut calls, 0, next, part),
        format!(
            "collective segment {next}: pack 0 announced an exchange while others have not made its last 32, which is the most; wait for every 16th answer"
        )
    );
    for sequence in 1..=ANNOUNCED_MAX {
        let answers = calls
            .contribute(1, sequence, part)
            .expect("the packs agree");
        let due = if sequence % ANSWER_INTERVAL == 0 {
            2
        } else {
            0
        };
        assert_eq!(answers.len(), due, "{sequence}");
    }
    assert!(!calls.is_pending());
    assert_eq!(calls.contribute(0, next, part), Ok(Vec::new()));
}

#[test]
fn a_sum_overflows_only_if_the_whole_of_it_does() {
    let parts = [i64::MAX, 1, -1].map(|value| i64::le_bytes(&[value]).into_owned());
    let mut calls = calls_of(3, 1);
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for (sequence, order) in orders.into_iter().enumerate() {
        let mut answers = Vec::new();
        for pack in order {
            answers = calls
                .contribute(pack, sequence as u64, fold_of(SUM_I64, &parts[pack]))
                .expect("the whole sum fits");
            assert!(calls.held_bytes() <= 3 * SEGMENT_MAX);
        }
        assert_eq!(answers.len(), 3);
        assert!(answers.iter().all(|answer| answer.data == parts[0]));
    }
    let give = |calls: &mut Collectives, pack, value: &[u8]| {
        calls.contribute(pack, orders.len() as u64, fold_of(SUM_I64, value))
    };
    assert_eq!(give(&mut calls, 2, &parts[1]), Ok(Vec::new()));
    assert_eq!(give(&mut calls, 0, &parts[0]), Ok(Vec::new()));
    let error = give(&mut calls, 1, &parts[1]).expect_err("it does not fit");
    assert_eq!(
        error.to_string(),
        "collective segment 6: a sum does not fit into i64; give smaller values or a wider type"
    );
    assert_eq!(calls.held_bytes(), 0);
}

#[test]
fn a_broadcast_does_not_wait_for_an_earlier_fold() {
    let mut calls = calls_of(3, 2);
    for pack in 0..2 {
        assert_eq!(
            calls.contribute(pack, 0, fold_of(SUM_F64, &[])),
            Ok(Vec::new())
        );
    }
    assert_eq!(calls.contribute(0, 1, broadcast(0, b"abc")), Ok(Vec::new()));
    let answer = |pack, data: &'static [u8]| Answer {
        pack,
        total: 3,
        data: Bytes::from_static(data),
    };
    assert_eq!(
        calls.contribute(1, 1, broadcast(0, b"")),
        Ok(vec![answer(1, b"abc")])
    );
    assert_eq!(
        calls
            .contribute(2, 0, fold_of(SUM_F64, &[]))
            .map(|all| all.len()),
        Ok(3)
    );
    assert_eq!(
        calls.contribute(2, 1, broadcast(0, b"")),
        Ok(vec![answer(2, b"abc"), answer(0, b"")])
    );
    assert!(!calls.is_pending());
}

#[test]
fn a_pack_may_leave_after_its_last_answer_whoever_else_still_waits() {
    let mut collectives = calls_of(3, 4);
    let whole = broadcast(0, b"news");
    let mut give = |pack, sequence, part| {
        collectives
            .contribute(pack, sequence, part)
            .map(|answers| answers.len())
    };
    assert_eq!(give(0, 0, whole), Ok(0));
    assert_eq!(give(1, 0, broadcast(0, b"")), Ok(1));
    assert_eq!(collectives.leave(1), None, "pack 1 has its answer");
    let answers = collectives.contribute(2, 0, broadcast(0, b""));
    assert_eq!(
        answers.map(|answers| answers.len()),
        Ok(2),
        "2 and the root"
    );
    let barrier = fold_of(SUM_I64, b"");
    assert_eq!(
        refusal(&mut collectives, 2, 1, barrier),
        "collective segment 1: sum of 0 i64 to all ranks came after other ranks had left without that call; all ranks must make the same calls"
    );

    let mut collectives = calls_of(2, 4);
    assert!(collectives.contribute(0, 0, barrier).is_ok());
    let reason = collectives.leave(1).expect("pack 0 waits for it");
    assert_eq!(
        reason,
        "rank 1 left without sum of 0 i64 to all ranks, which rank 0 calls, while others wait in a collective call; all ranks must make the same calls"
    );
    let reason = collectives
        .leave(0)
        .expect("it did not wait for its answer");
    assert_eq!(
        reason,
        "rank 0 left before the answer to its collective call had come; wait for it"
    );
}

#[test]
fn a_pack_that_has_announced_an_exchange_may_leave_and_one_that_has_not_may_not() {
    let gather = exchange(Exchange::Gather, Some(0));
    let mut calls = calls_of(3, 1);
    assert_eq!(calls.contribute(1, 0, gather), Ok(Vec::new()));
    assert_eq!(calls.leave(1), None, "it waits for nothing");
    let reason = calls
        .leave(2)
        .expect("the others make a call that it does not");
    assert_eq!(
        reason,
        "rank 2 left without gather to rank 0, which rank 1 calls, while others wait in a collective call; all ranks must make the same calls"
    );
}

#[test]
fn a_pack_that_has_left_is_not_answered() {
    let mut calls = calls_of(2, 1);
    let gather = exchange(Exchange::Gather, Some(0));
    for sequence in 0..ANSWER_INTERVAL {
        assert_eq!(calls.contribute(1, sequence, gather), Ok(Vec::new()));
    }
    assert_eq!(calls.leave(1), None);
    let mut answered = Vec::new();
    for sequence in 0..ANSWER_INTERVAL {
        let answers = calls.contribute(0, sequence, gather);
        answered.extend(answers.expect("the packs agree"));
    }
    let packs: Vec<usize> = answered.iter().map(|answer| answer.pack).collect();
    assert_eq!(packs, [0]);
}
