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
mod tests;
