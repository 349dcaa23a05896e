//! Collectives that the switch computes: each pack uploads its part once, and downloads the result once. Pure.
//!
//! The client cuts the vector of each call into *segments*, which are numbered over the life of the job. For each
//! segment each pack contributes once, its part or nothing, and gets one answer, the combined bytes or nothing. A
//! vector without bytes is one empty segment: a barrier, if it is folded.
//!
//! - *Folds* combine in pack order where the order matters, so that results repeat to the bit: a part that comes before
//!   its turn is held. All packs are answered when the last part has come.
//! - *Broadcasts* answer each pack as soon as its own contribution and the root's are there. The root is answered last.
//!
//! So each byte that is held belongs to a contribution without an answer, and the number of those is bounded for each
//! pack. Answers of different segments may overtake each other: a broadcast does not wait for an earlier fold.

use crate::net::element::{Accumulator, Element, Fold, FoldError, is_ordered};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// What a collective does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// All packs get the root's vector.
    Broadcast,
    /// The packs' vectors are combined element-wise.
    Fold(Fold, Element),
}

const BROADCAST: u32 = 0x0400;

impl Operation {
    /// Its number on the wire: for a fold its code and the element's, a byte each.
    pub fn code(self) -> u32 {
        match self {
            Operation::Broadcast => BROADCAST,
            Operation::Fold(fold, element) => fold.code() << 8 | element.code(),
        }
    }

    /// The operation of a number on the wire.
    pub fn from_code(code: u32) -> Option<Operation> {
        if code == BROADCAST {
            return Some(Operation::Broadcast);
        }
        let fold = Fold::from_code(code >> 8)?;
        let element = Element::from_code(code & 0xff)?;
        Some(Operation::Fold(fold, element))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Broadcast => write!(f, "broadcast"),
            Operation::Fold(fold, element) => write!(f, "{fold} of {element}"),
        }
    }
}

/// One pack's contribution to one segment.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The code of an [`Operation`].
    pub operation: u32,
    /// The pack that gives the data of a broadcast, or the one that gets the result of a fold; `None` if all get it.
    pub root: Option<u32>,
    /// Bytes of the whole vector, of which this is a segment. 0 for a broadcast's packs other than the root.
    pub total: u64,
    /// This pack's bytes of the segment. Empty for a broadcast's packs other than the root.
    pub data: &'a [u8],
}

/// Segments that a pack may contribute ahead of their answers. Enough to keep the wire busy in both directions.
pub const WINDOW: usize = 4;

/// The shortest piece into which a vector is cut, in bytes, however many packs share the switch's memory.
pub const SEGMENT_MIN: usize = 1024;

/// Length of what a contribution, or its answer, carries ahead of its bytes: total (u64) and root (u32).
pub const PART_LEN: usize = 12;

/// The number on the wire that stands for no root.
const NO_ROOT: u32 = u32::MAX;

impl<'a> Part<'a> {
    /// What goes ahead of the data on the wire.
    pub fn prefix(&self) -> [u8; PART_LEN] {
        let mut prefix = [0; PART_LEN];
        prefix[..8].copy_from_slice(&self.total.to_le_bytes());
        prefix[8..].copy_from_slice(&self.root.unwrap_or(NO_ROOT).to_le_bytes());
        prefix
    }

    /// Splits a frame's body; `None` if it is too short.
    pub fn split(operation: u32, body: &'a [u8]) -> Option<Part<'a>> {
        let (total, rest) = body.split_first_chunk()?;
        let (root, data) = rest.split_first_chunk()?;
        let root = u32::from_le_bytes(*root);
        Some(Part {
            operation,
            root: (root != NO_ROOT).then_some(root),
            total: u64::from_le_bytes(*total),
            data,
        })
    }
}

/// What one pack gets for its contribution to one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who.
    pub pack: usize,
    /// Bytes of the whole vector: what the packs of a broadcast learn with its first segment.
    pub total: u64,
    /// The combined bytes of the segment, shared between answers. Empty for those whom the result is not for: all but
    /// the root of a fold that has one, and a broadcast's root.
    pub data: Bytes,
}

/// What the packs must agree about, and what one of them said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What is to be done.
    pub operation: Operation,
    /// See [`Part::root`].
    pub root: Option<usize>,
    /// Bytes of the whole vector. 0 for broadcasts, where only the root knows.
    pub total: u64,
    /// Bytes of this segment. 0 for broadcasts.
    pub length: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call {
            operation,
            root,
            total,
            length,
        } = self;
        match (operation, root) {
            (Operation::Broadcast, Some(root)) => write!(f, "{operation} from pack {root}"),
            (Operation::Broadcast, None) => write!(f, "{operation} from no pack"),
            (_, Some(root)) => write!(
                f,
                "{operation} to pack {root}, {length} of {total} bytes here"
            ),
            (_, None) => write!(
                f,
                "{operation} to all packs, {length} of {total} bytes here"
            ),
        }
    }
}

/// Why a contribution cannot be combined.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CollectiveError {
    /// The operation is not one of ours.
    #[error(
        "collective segment {sequence}: operation {code:#06x} is not known to this switch; use the same release everywhere"
    )]
    UnknownOperation {
        /// The segment's number.
        sequence: u64,
        /// What came instead of an operation's code.
        code: u32,
    },
    /// A pack's segments must be numbered from 0 without gaps.
    #[error(
        "collective segment {found} of pack {pack} came where number {expected} was due; segments are numbered from 0 without gaps"
    )]
    Sequence {
        /// Whose.
        pack: usize,
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A pack does not wait for answers.
    #[error(
        "collective segment {sequence} of pack {pack} came while {window} earlier ones are unanswered, which is the most; wait for answers"
    )]
    Ahead {
        /// The segment's number.
        sequence: u64,
        /// Whose.
        pack: usize,
        /// The most contributions without an answer.
        window: usize,
    },
    /// A pack that had not contributed to it is gone.
    #[error(
        "collective segment {sequence} came after other ranks had left; all ranks must make the same calls"
    )]
    Deserted {
        /// The segment's number.
        sequence: u64,
    },
    /// There is no such pack.
    #[error(
        "collective segment {sequence}: root {root} is not one of the {packs} packs; give 0 to {}", packs - 1
    )]
    RootRange {
        /// The segment's number.
        sequence: u64,
        /// The root that was named.
        root: u32,
        /// How many packs there are.
        packs: usize,
    },
    /// A broadcast must come from somewhere.
    #[error(
        "collective segment {sequence}: a broadcast without a root; name the pack that gives the data"
    )]
    NoRoot {
        /// The segment's number.
        sequence: u64,
    },
    /// Data for a broadcast from one that only receives.
    #[error(
        "collective segment {sequence}: pack {pack} gives {length} bytes of a vector of {total} to a broadcast from pack {root}; only the root gives data"
    )]
    NotRoot {
        /// The segment's number.
        sequence: u64,
        /// Who gave data.
        pack: usize,
        /// Who should.
        root: usize,
        /// Bytes that came.
        length: usize,
        /// Bytes that the whole vector is said to have.
        total: u64,
    },
    /// The client cuts vectors too coarsely.
    #[error(
        "collective segment {sequence} has {length} bytes, and {segment_max} is the most; cut it smaller"
    )]
    TooLong {
        /// The segment's number.
        sequence: u64,
        /// Its bytes.
        length: usize,
        /// The most.
        segment_max: usize,
    },
    /// A segment that cannot be one of its vector: longer, or empty though there is something to give.
    #[error(
        "collective segment {sequence} has {length} bytes of a vector of {total}; give at least one and not more than there are"
    )]
    Total {
        /// The segment's number.
        sequence: u64,
        /// Its bytes.
        length: usize,
        /// Bytes of the whole vector.
        total: u64,
    },
    /// The packs disagree about the call.
    #[error(
        "collective segment {sequence}: pack {pack} calls {found}, but pack {first} calls {expected}; all ranks must make the same calls"
    )]
    Mismatch {
        /// The segment's number.
        sequence: u64,
        /// The pack whose contribution came first.
        first: usize,
        /// What that one called.
        expected: Call,
        /// Who differs.
        pack: usize,
        /// What this one called.
        found: Call,
    },
    /// The vectors cannot be combined: no whole elements, or a sum that does not fit.
    #[error("collective segment {sequence}: {error}")]
    Fold {
        /// The segment's number.
        sequence: u64,
        /// Why.
        error: FoldError,
    },
}

/// The collectives of one job.
#[derive(Debug)]
pub struct Collectives {
    packs: Vec<Progress>,
    window: usize,
    segment_max: usize,
    /// The segments that some pack waits for, by number.
    pending: BTreeMap<u64, Pending>,
    /// The first segment to which a pack that is gone has not contributed: from there on nothing completes.
    deserted: Option<u64>,
}

/// How far a pack is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The number of its next segment: it has contributed to all before.
    next: u64,
    unanswered: usize,
}

#[derive(Debug)]
struct Pending {
    /// The pack whose contribution came first.
    first: usize,
    /// What that one called.
    call: Call,
    arrived: usize,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// The segment and its vector's bytes, once the root has given them.
    Broadcast(Option<(Bytes, u64)>),
    Fold(Folding),
}

#[derive(Debug)]
struct Folding {
    fold: Fold,
    element: Element,
    accumulator: Option<Accumulator>,
    /// How many parts are in the accumulator. If the order matters, those of the packs before this number.
    folded: usize,
    /// Parts that wait for those of earlier packs.
    early: BTreeMap<usize, Vec<u8>>,
}

impl Collectives {
    /// For so many packs, each with at most `window` contributions without an answer, of `segment_max` bytes at most.
    /// Not more than the product of the three is held.
    ///
    /// # Panics
    /// Without packs or without a window.
    pub fn new(packs: usize, window: usize, segment_max: usize) -> Collectives {
        assert!(packs > 0 && window > 0, "nothing could be contributed");
        Collectives {
            packs: vec![Progress::default(); packs],
            window,
            segment_max,
            pending: BTreeMap::new(),
            deserted: None,
        }
    }

    /// Takes one pack's part of a segment; gives the answers that are due with it, all to this segment.
    ///
    /// # Errors
    /// When the part is not the pack's next, or does not fit those of the other packs. All is then as it was before,
    /// except after a sum that overflows: that segment has no answers, and the job should end.
    ///
    /// # Panics
    /// When there is no pack of this number.
    pub fn contribute(
        &mut self,
        pack: usize,
        sequence: u64,
        part: Part<'_>,
    ) -> Result<Vec<Answer>, CollectiveError> {
        let progress = self.packs[pack];
        if sequence != progress.next {
            return Err(CollectiveError::Sequence {
                pack,
                expected: progress.next,
                found: sequence,
            });
        }
        if self.deserted.is_some_and(|from| sequence >= from) {
            return Err(CollectiveError::Deserted { sequence });
        }
        if progress.unanswered == self.window {
            return Err(CollectiveError::Ahead {
                sequence,
                pack,
                window: self.window,
            });
        }
        let call = self.check(pack, sequence, part)?;
        let pending = self
            .pending
            .entry(sequence)
            .or_insert_with(|| Pending::new(pack, call));
        if pending.call != call {
            return Err(CollectiveError::Mismatch {
                sequence,
                first: pending.first,
                expected: pending.call,
                pack,
                found: call,
            });
        }
        self.packs[pack].next += 1;
        self.packs[pack].unanswered += 1;
        pending.arrived += 1;
        let complete = pending.arrived == self.packs.len();
        let answers = match &mut pending.work {
            Work::Fold(folding) => {
                folding.give(pack, part.data);
                if complete {
                    self.finish_fold(sequence)?
                } else {
                    Vec::new()
                }
            }
            Work::Broadcast(given) => {
                let root = call.root.expect("check() refuses broadcasts without");
                if pack == root {
                    *given = Some((Bytes::copy_from_slice(part.data), part.total));
                }
                let given = given.clone();
                if complete {
                    self.pending.remove(&sequence);
                }
                given.map_or_else(Vec::new, |(data, total)| {
                    self.serve(pack, root, sequence, total, data, complete)
                })
            }
        };
        for answer in &answers {
            self.packs[answer.pack].unanswered -= 1;
        }
        Ok(answers)
    }

    /// A pack leaves. True if some pack waits for it, or it did not wait for its own answers; that others wait for each
    /// other, in a broadcast that was answered to this one, is no fault.
    pub fn leave(&mut self, pack: usize) -> bool {
        let Progress { next, unanswered } = self.packs[pack];
        self.deserted = Some(self.deserted.map_or(next, |from| from.min(next)));
        unanswered > 0 || self.pending.range(next..).next().is_some()
    }

    /// True while some pack waits for others.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The memory that parts and unfinished results hold. Answers that were given away are not counted.
    pub fn held_bytes(&self) -> usize {
        self.pending.values().map(Pending::held_bytes).sum()
    }

    /// What a part alone must fulfil.
    fn check(&self, pack: usize, sequence: u64, part: Part<'_>) -> Result<Call, CollectiveError> {
        let Part {
            operation: code,
            root,
            total,
            data,
        } = part;
        let length = data.len();
        let operation = Operation::from_code(code)
            .ok_or(CollectiveError::UnknownOperation { sequence, code })?;
        let packs = self.packs.len();
        let root = match root {
            Some(root) if root as usize >= packs => {
                return Err(CollectiveError::RootRange {
                    sequence,
                    root,
                    packs,
                });
            }
            root => root.map(|root| root as usize),
        };
        if length > self.segment_max {
            return Err(CollectiveError::TooLong {
                sequence,
                length,
                segment_max: self.segment_max,
            });
        }
        let call = match operation {
            Operation::Broadcast => {
                let root = root.ok_or(CollectiveError::NoRoot { sequence })?;
                if pack != root && (total > 0 || length > 0) {
                    return Err(CollectiveError::NotRoot {
                        sequence,
                        pack,
                        root,
                        length,
                        total,
                    });
                }
                Call {
                    operation,
                    root: Some(root),
                    total: 0,
                    length: 0,
                }
            }
            Operation::Fold(_, element) => {
                element
                    .check(length)
                    .map_err(|error| CollectiveError::Fold { sequence, error })?;
                Call {
                    operation,
                    root,
                    total,
                    length,
                }
            }
        };
        if length as u64 > total || (length == 0 && total > 0) {
            return Err(CollectiveError::Total {
                sequence,
                length,
                total,
            });
        }
        Ok(call)
    }

    /// The answers of a fold to which all have contributed.
    fn finish_fold(&mut self, sequence: u64) -> Result<Vec<Answer>, CollectiveError> {
        let pending = self.pending.remove(&sequence);
        let Some(Pending {
            call: Call { root, total, .. },
            work: Work::Fold(folding),
            ..
        }) = pending
        else {
            unreachable!("the caller has just seen that it is a fold");
        };
        let data = folding
            .finish()
            .map_err(|error| CollectiveError::Fold { sequence, error })?;
        let data = Bytes::from(data);
        let answer = |pack| Answer {
            pack,
            total,
            data: match root {
                Some(root) if root != pack => Bytes::new(),
                _ => data.clone(),
            },
        };
        Ok((0..self.packs.len()).map(answer).collect())
    }

    /// The answers of a broadcast whose data is there, now that `pack` has contributed.
    fn serve(
        &self,
        pack: usize,
        root: usize,
        sequence: u64,
        total: u64,
        data: Bytes,
        complete: bool,
    ) -> Vec<Answer> {
        // With the root come the answers of all that wait for it.
        let served = if pack == root {
            0..self.packs.len()
        } else {
            pack..pack + 1
        };
        let mut answers: Vec<Answer> = served
            .filter(|pack| *pack != root && self.packs[*pack].next > sequence)
            .map(|pack| Answer {
                pack,
                total,
                data: data.clone(),
            })
            .collect();
        if complete {
            answers.push(Answer {
                pack: root,
                total,
                data: Bytes::new(),
            });
        }
        answers
    }
}

impl Pending {
    fn new(first: usize, call: Call) -> Pending {
        let work = match call.operation {
            Operation::Broadcast => Work::Broadcast(None),
            Operation::Fold(fold, element) => Work::Fold(Folding {
                fold,
                element,
                accumulator: None,
                folded: 0,
                early: BTreeMap::new(),
            }),
        };
        Pending {
            first,
            call,
            arrived: 0,
            work,
        }
    }

    fn held_bytes(&self) -> usize {
        match &self.work {
            Work::Broadcast(given) => given.as_ref().map_or(0, |(data, _)| data.len()),
            Work::Fold(folding) => {
                let accumulator = folding.accumulator.as_ref();
                accumulator.map_or(0, Accumulator::held_bytes)
                    + folding.early.len() * self.call.length
            }
        }
    }
}

impl Folding {
    /// Takes a part: combines it and those that waited for it, or holds it until its turn.
    fn give(&mut self, pack: usize, data: &[u8]) {
        if is_ordered(self.fold, self.element) && pack != self.folded {
            self.early.insert(pack, data.to_vec());
            return;
        }
        self.combine(data);
        while let Some(data) = self.early.remove(&self.folded) {
            self.combine(&data);
        }
    }

    fn combine(&mut self, data: &[u8]) {
        self.folded += 1;
        match &mut self.accumulator {
            Some(accumulator) => accumulator.add(data).expect("lengths were compared"),
            None => {
                let accumulator = Accumulator::new(self.fold, self.element, data.to_vec());
                self.accumulator = Some(accumulator.expect("the length was checked"));
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, FoldError> {
        self.accumulator
            .expect("all packs have contributed, and there is one at least")
            .finish()
    }
}

#[cfg(test)]
mod tests {
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
                Element::F64 => f64::to_bytes(&(0..elements).map(|_| float()).collect::<Vec<_>>()),
                Element::F32 => {
                    f32::to_bytes(&(0..elements).map(|_| float() as f32).collect::<Vec<_>>())
                }
                Element::I64 => i64::to_bytes(&self.integers(elements, |value| value as i64 >> 8)),
                Element::U64 => u64::to_bytes(&self.integers(elements, |value| value >> 8)),
                Element::I128 => i128::to_bytes(&self.integers(elements, |value| {
                    (i128::from(value as i64) << 56) + i128::from(value)
                })),
            }
        }

        fn integers<T>(&mut self, elements: usize, cast: impl Fn(u64) -> T) -> Vec<T> {
            (0..elements).map(|_| cast(self.next())).collect()
        }
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
                Operation::Broadcast => Vec::new(),
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
                Operation::Broadcast => {
                    self.vectors[self.root.expect("broadcasts have one") as usize].clone()
                }
                Operation::Fold(..) if self.root.is_some() && !is_root => Vec::new(),
                Operation::Fold(fold, Element::F64) => {
                    self.reduced(fold, |a, b| a + b, f64::total_cmp)
                }
                Operation::Fold(fold, Element::F32) => {
                    self.reduced(fold, |a, b| a + b, f32::total_cmp)
                }
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
            let vectors = self.vectors.iter().map(|bytes| T::from_bytes(bytes));
            let vectors: Vec<Vec<T>> = vectors.collect::<Option<_>>().expect("whole elements");
            let column = |at: usize| {
                let column = vectors.iter().map(move |vector| vector[at]);
                match fold {
                    Fold::Sum => column.reduce(&add),
                    Fold::Min => column.min_by(&compare),
                    Fold::Max => column.max_by(&compare),
                }
            };
            let result: Option<Vec<T>> = (0..vectors[0].len()).map(column).collect();
            T::to_bytes(&result.expect("some pack"))
        }
    }

    /// What the packs do: contributions in a random order, as far as their windows allow. Checks all that is promised.
    fn run(random: &mut Random, packs: usize, window: usize, calls: &[Whole]) {
        let mut collectives = Collectives::new(packs, window, SEGMENT_MAX);
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
    fn refusal(
        collectives: &mut Collectives,
        pack: usize,
        sequence: u64,
        part: Part<'_>,
    ) -> String {
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
        let known: Vec<u32> = (0..0x1_0000)
            .filter(|code| Operation::from_code(*code).is_some())
            .collect();
        let mut codes: Vec<u32> = operations().map(Operation::code).collect();
        codes.sort_unstable();
        assert_eq!(known, codes);
        assert_eq!(Operation::from_code(0x0001_0105), None);
        assert_eq!(Operation::from_code(u32::MAX), None);
    }

    #[test]
    fn a_part_that_makes_no_sense_alone_is_refused() {
        let mut calls = Collectives::new(3, 2, SEGMENT_MAX);
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
            "collective segment 0: root 3 is not one of the 3 packs; give 0 to 2"
        );
        let no_root = Part {
            root: None,
            ..broadcast(1, b"abc")
        };
        assert_eq!(
            refused(no_root),
            "collective segment 0: a broadcast without a root; name the pack that gives the data"
        );
        assert_eq!(
            refused(broadcast(2, b"abc")),
            "collective segment 0: pack 1 gives 3 bytes of a vector of 3 to a broadcast from pack 2; only the root gives data"
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
        let mut calls = Collectives::new(2, 2, SEGMENT_MAX);
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
        let mut calls = Collectives::new(2, 2, SEGMENT_MAX);
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
        let sum = (
            fold_of(SUM_F64, &[0; 16]),
            "sum of f64 to all packs, 16 of 16 bytes here",
        );
        let cases = [
            (
                sum,
                fold_of(SUM_I64, &[0; 16]),
                "sum of i64 to all packs, 16 of 16 bytes here",
            ),
            (sum, reduce, "sum of f64 to pack 2, 16 of 16 bytes here"),
            (sum, longer, "sum of f64 to all packs, 16 of 800 bytes here"),
            (sum, cut, "sum of f64 to all packs, 8 of 16 bytes here"),
            (
                sum,
                fold_of(SUM_F64, &[]),
                "sum of f64 to all packs, 0 of 0 bytes here",
            ),
            (sum, broadcast(2, &[]), "broadcast from pack 2"),
            (
                (broadcast(2, &[]), "broadcast from pack 2"),
                broadcast(1, b"abc"),
                "broadcast from pack 1",
            ),
        ];
        for ((first, expected), second, found) in cases {
            let mut calls = Collectives::new(3, 2, SEGMENT_MAX);
            assert_eq!(calls.contribute(0, 0, first), Ok(Vec::new()));
            assert_eq!(
                refusal(&mut calls, 1, 0, second),
                format!(
                    "collective segment 0: pack 1 calls {found}, but pack 0 calls {expected}; all ranks must make the same calls"
                )
            );
        }
    }

    #[test]
    fn a_sum_overflows_only_if_the_whole_of_it_does() {
        let parts = [i64::MAX, 1, -1].map(|value| i64::to_bytes(&[value]));
        let mut calls = Collectives::new(3, 1, SEGMENT_MAX);
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
        let mut calls = Collectives::new(3, 2, SEGMENT_MAX);
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
        let mut collectives = Collectives::new(3, 4, SEGMENT_MAX);
        let whole = broadcast(0, b"news");
        let mut give = |pack, sequence, part| {
            collectives
                .contribute(pack, sequence, part)
                .map(|answers| answers.len())
        };
        assert_eq!(give(0, 0, whole), Ok(0));
        assert_eq!(give(1, 0, broadcast(0, b"")), Ok(1));
        assert!(!collectives.leave(1), "pack 1 has its answer");
        let answers = collectives.contribute(2, 0, broadcast(0, b""));
        assert_eq!(
            answers.map(|answers| answers.len()),
            Ok(2),
            "2 and the root"
        );
        let barrier = fold_of(SUM_I64, b"");
        let error = collectives.contribute(2, 1, barrier);
        assert_eq!(error, Err(CollectiveError::Deserted { sequence: 1 }));

        let mut collectives = Collectives::new(2, 4, SEGMENT_MAX);
        assert!(collectives.contribute(0, 0, barrier).is_ok());
        assert!(collectives.leave(1), "pack 0 waits for it");
        assert!(collectives.leave(0), "it did not wait for its answer");
    }
}
