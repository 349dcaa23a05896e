//! Collectives that the switch computes: each pack uploads its part once, and downloads the result once. Pure.
//!
//! The client cuts the vector of each call into *segments*, which are numbered over the life of the job. For each
//! segment each pack contributes once, its part or nothing, and gets one answer, the combined bytes or nothing. A
//! vector without bytes is one empty segment: a barrier, if it is folded.
//!
//! - *Folds* combine in pack order where the order matters, so that results repeat to the bit: a part that comes before
//!   its turn is held. All packs are answered when the last part has come.
//! - *Broadcasts* answer each pack as soon as its own contribution and the root's are there. The root is answered last.
//! - *Exchanges* travel as messages between packs. The switch only compares which exchange each pack makes, so a pack
//!   announces it and does not wait: of the announcements every [`ANSWER_INTERVAL`]th is answered, which bounds how far a
//!   pack can be ahead of the others.
//!
//! So each byte that is held belongs to a contribution without an answer, and the number of those is bounded for each
//! pack. Answers of different segments may overtake each other: a broadcast does not wait for an earlier fold.

use crate::net::element::{Accumulator, Element, Fold, FoldError, is_ordered};
use crate::net::message::Span;
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
    /// The packs send each other messages, and the switch compares what for.
    Exchange(Exchange),
}

/// A collective that consists of messages between packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// Pieces of all ranks for the root.
    Gather,
    /// Pieces of all ranks for all.
    AllGather,
    /// A piece for each rank from the root.
    Scatter,
    /// A piece from each rank for each rank.
    AllToAll,
    /// A reduction by a function of the program's own, for the root.
    ReduceWith,
    /// The same for all.
    AllReduceWith,
}

const BROADCAST: u32 = 0x0400;
const EXCHANGE: u32 = 0x0500;

impl Exchange {
    /// All of them, by number.
    pub const ALL: [Exchange; 6] = [
        Exchange::Gather,
        Exchange::AllGather,
        Exchange::Scatter,
        Exchange::AllToAll,
        Exchange::ReduceWith,
        Exchange::AllReduceWith,
    ];

    /// Its number on the wire, 1 to 6.
    pub fn number(self) -> u32 {
        self as u32 + 1
    }

    /// True if one rank gives or gets all of it.
    pub fn has_root(self) -> bool {
        matches!(
            self,
            Exchange::Gather | Exchange::Scatter | Exchange::ReduceWith
        )
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exchange::Gather => "gather",
            Exchange::AllGather => "all-gather",
            Exchange::Scatter => "scatter",
            Exchange::AllToAll => "all-to-all",
            Exchange::ReduceWith => "reduce by a function",
            Exchange::AllReduceWith => "all-reduce by a function",
        })
    }
}

impl Operation {
    /// Its number on the wire: for a fold its code and the element's, a byte each.
    pub fn code(self) -> u32 {
        match self {
            Operation::Broadcast => BROADCAST,
            Operation::Exchange(exchange) => EXCHANGE | exchange.number(),
            Operation::Fold(fold, element) => fold.code() << 8 | element.code(),
        }
    }

    /// The operation of a number on the wire.
    pub fn from_code(code: u32) -> Option<Operation> {
        if code == BROADCAST {
            return Some(Operation::Broadcast);
        }
        if code & !0xff == EXCHANGE {
            let index = (code & 0xff).checked_sub(1)? as usize;
            return Exchange::ALL.get(index).copied().map(Operation::Exchange);
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
            Operation::Exchange(exchange) => write!(f, "{exchange}"),
            Operation::Fold(fold, element) => write!(f, "{fold} of {element}"),
        }
    }
}

/// One pack's contribution to one segment.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The code of an [`Operation`].
    pub operation: u32,
    /// The rank that gives the data of a broadcast, or the one that gets the result of a fold; `None` if all get it.
    pub root: Option<u32>,
    /// A mark of the shape of a fold's array, so that arrays of different shapes are not combined; 0 for vectors without
    /// one, which agree with every shape of their length.
    pub shape: u16,
    /// Bytes of the whole vector, of which this is a segment. 0 for a broadcast's packs other than the root, and for exchanges.
    pub total: u64,
    /// This pack's bytes of the segment. Empty for a broadcast's packs other than the root.
    pub data: &'a [u8],
}

/// Segments that a pack may contribute ahead of their answers. Enough to keep the wire busy in both directions.
pub const WINDOW: usize = 4;

/// Of a pack's announcements of exchanges at one switch every so manyth is answered, when all packs have made it.
pub const ANSWER_INTERVAL: u64 = 16;

/// The exchanges that a pack may announce at one switch while others have not. The switch keeps some 100 bytes for each. A pack that
/// waits for the last answer before it asks for the next is never further ahead.
pub const ANNOUNCED_MAX: u64 = 2 * ANSWER_INTERVAL;

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

    /// Splits a frame's body; `None` if it is too short. The shape is the header's.
    pub fn split(operation: u32, body: &'a [u8]) -> Option<Part<'a>> {
        let (total, rest) = body.split_first_chunk()?;
        let (root, data) = rest.split_first_chunk()?;
        let root = u32::from_le_bytes(*root);
        Some(Part {
            operation,
            root: (root != NO_ROOT).then_some(root),
            shape: 0,
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
    pub root: Option<u32>,
    /// See [`Part::shape`].
    pub shape: u16,
    /// Bytes of the whole vector. 0 for broadcasts, where only the root knows.
    pub total: u64,
    /// Bytes of this segment. 0 for broadcasts.
    pub length: usize,
}

impl Call {
    /// True if one call can be made of both.
    fn agrees(&self, other: &Call) -> bool {
        let shapeless = |call: &Call| Call { shape: 0, ..*call };
        shapeless(self) == shapeless(other)
            && (self.shape == other.shape || self.shape == 0 || other.shape == 0)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call {
            operation,
            root,
            shape,
            total,
            length,
        } = *self;
        let (fold, element) = match (operation, root) {
            (Operation::Broadcast, Some(root)) => {
                return write!(f, "{operation} from rank {root}");
            }
            (Operation::Broadcast, None) => return write!(f, "{operation} from no rank"),
            (Operation::Exchange(Exchange::Scatter), Some(root)) => {
                return write!(f, "scatter from rank {root}");
            }
            (Operation::Exchange(exchange), Some(root)) => {
                return write!(f, "{exchange} to rank {root}");
            }
            (Operation::Exchange(exchange), None) => return write!(f, "{exchange}"),
            // A barrier is the maximum of no numbers.
            (Operation::Fold(Fold::Max, Element::U64), None) if total == 0 => {
                return f.write_str("barrier");
            }
            (Operation::Fold(fold, element), _) => (fold, element),
        };
        write!(
            f,
            "{fold} of {} {element} to ",
            total / element.size() as u64
        )?;
        match root {
            Some(root) => write!(f, "rank {root}")?,
            None => f.write_str("all ranks")?,
        }
        if shape != 0 {
            write!(f, " in the shape {shape:#06x}")?;
        }
        // Segments of vectors that are alike are too, unless a client cuts them in its own way.
        if length as u64 != total {
            write!(f, ", {length} of {total} bytes here")?;
        }
        Ok(())
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
        "collective segment {sequence}: {call} came after other ranks had left without that call; all ranks must make the same calls"
    )]
    Deserted {
        /// The segment's number.
        sequence: u64,
        /// The call that cannot complete.
        call: Call,
    },
    /// There is no such rank.
    #[error(
        "collective segment {sequence}: root {root} is not one of the {ranks} ranks; give 0 to {}", ranks - 1
    )]
    RootRange {
        /// The segment's number.
        sequence: u64,
        /// The root that was named.
        root: u32,
        /// How many ranks there are.
        ranks: u32,
    },
    /// A pack announces exchange after exchange and does not wait for the others.
    #[error(
        "collective segment {sequence}: pack {pack} announced an exchange while others have not made its last {most}, which is the most; wait for every {}th answer",
        ANSWER_INTERVAL
    )]
    FarAhead {
        /// The segment's number.
        sequence: u64,
        /// Whose.
        pack: usize,
        /// The most exchanges that are not complete.
        most: u64,
    },
    /// An exchange that carries data, lacks its root, or has one and needs none.
    #[error(
        "collective segment {sequence}: {exchange} was announced with {length} bytes of a vector of {total} and the root {root:?}; exchanges have no data, and a root if one rank gives or gets all of it"
    )]
    Announcement {
        /// The segment's number.
        sequence: u64,
        /// What was announced.
        exchange: Exchange,
        /// The root that was named.
        root: Option<u32>,
        /// Bytes that came.
        length: usize,
        /// Bytes that the whole vector is said to have.
        total: u64,
    },
    /// A broadcast must come from somewhere.
    #[error(
        "collective segment {sequence}: a broadcast without a root; name the rank that gives the data"
    )]
    NoRoot {
        /// The segment's number.
        sequence: u64,
    },
    /// Data for a broadcast from one that only receives.
    #[error(
        "collective segment {sequence}: pack {pack} gives {length} bytes of a vector of {total} to a broadcast from rank {root}; only the root gives data"
    )]
    NotRoot {
        /// The segment's number.
        sequence: u64,
        /// Who gave data.
        pack: usize,
        /// Who should.
        root: u32,
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
        "collective segment {sequence}: {span} calls {found}, but {first} calls {expected}; all ranks must make the same calls"
    )]
    Mismatch {
        /// The segment's number.
        sequence: u64,
        /// The ranks whose contribution came first.
        first: Span,
        /// What those called.
        expected: Call,
        /// Who differs.
        span: Span,
        /// What these called.
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
    /// The ranks of each pack.
    spans: Vec<Span>,
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
    /// Exchanges that it has announced, and how many of them not all packs have.
    announced: u64,
    incomplete: u64,
    /// It is gone, and is sent nothing more.
    has_left: bool,
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
    /// Messages between packs; the announcement may be one that is answered.
    Exchange {
        is_answered: bool,
    },
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
    /// For packs with these ranks, which rise from 0 without gaps, each with at most `window` contributions without an answer, of
    /// `segment_max` bytes at most. Not more bytes of data than the product of the three are held.
    ///
    /// # Panics
    /// Without packs or without a window.
    pub fn new(spans: Vec<Span>, window: usize, segment_max: usize) -> Collectives {
        assert!(
            !spans.is_empty() && window > 0,
            "nothing could be contributed"
        );
        Collectives {
            packs: vec![Progress::default(); spans.len()],
            spans,
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
        if progress.unanswered == self.window {
            return Err(CollectiveError::Ahead {
                sequence,
                pack,
                window: self.window,
            });
        }
        let call = self.check(pack, sequence, part)?;
        if self.deserted.is_some_and(|from| sequence >= from) {
            return Err(CollectiveError::Deserted { sequence, call });
        }
        let is_exchange = matches!(call.operation, Operation::Exchange(_));
        if is_exchange && progress.incomplete == ANNOUNCED_MAX {
            return Err(CollectiveError::FarAhead {
                sequence,
                pack,
                most: ANNOUNCED_MAX,
            });
        }
        let pending = self
            .pending
            .entry(sequence)
            .or_insert_with(|| Pending::new(pack, call, progress.announced));
        if !pending.call.agrees(&call) {
            return Err(CollectiveError::Mismatch {
                sequence,
                first: self.spans[pending.first],
                expected: pending.call,
                span: self.spans[pack],
                found: call,
            });
        }
        if pending.call.shape == 0 {
            pending.call.shape = call.shape;
        }
        let progress = &mut self.packs[pack];
        progress.next += 1;
        if is_exchange {
            progress.announced += 1;
            progress.incomplete += 1;
        } else {
            progress.unanswered += 1;
        }
        pending.arrived += 1;
        let complete = pending.arrived == self.packs.len();
        let answers = match &mut pending.work {
            Work::Exchange { is_answered } => {
                let is_answered = *is_answered;
                return Ok(if complete {
                    self.finish_exchange(sequence, is_answered)
                } else {
                    Vec::new()
                });
            }
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
                let root = pack_of(&self.spans, root);
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

    /// A pack leaves. Gives why that is a fault of the program: some pack waits for it, has announced an exchange that this one has not
    /// made, or it did not wait for its own answers. That others wait for each other, in a broadcast that was answered to this
    /// one, is none.
    pub fn leave(&mut self, pack: usize) -> Option<String> {
        let Progress {
            next, unanswered, ..
        } = self.packs[pack];
        self.packs[pack].has_left = true;
        self.deserted = Some(self.deserted.map_or(next, |from| from.min(next)));
        let span = self.spans[pack];
        if let Some(Pending { first, call, .. }) = self
            .pending
            .range(next..)
            .next()
            .map(|(_, pending)| pending)
        {
            let first = self.spans[*first];
            return Some(format!(
                "{span} left without {call}, which {first} calls, while others wait in a collective call; all ranks must make the same calls"
            ));
        }
        (unanswered > 0).then(|| {
            format!("{span} left before the answer to its collective call had come; wait for it")
        })
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
            shape,
            total,
            data,
        } = part;
        let length = data.len();
        let operation = Operation::from_code(code)
            .ok_or(CollectiveError::UnknownOperation { sequence, code })?;
        let ranks = self.spans[self.spans.len() - 1].end();
        if let Some(root) = root.filter(|root| *root >= ranks) {
            return Err(CollectiveError::RootRange {
                sequence,
                root,
                ranks,
            });
        }
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
                if pack != pack_of(&self.spans, root) && (total > 0 || length > 0) {
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
                    shape: 0,
                    total: 0,
                    length: 0,
                }
            }
            Operation::Exchange(exchange) => {
                if total > 0 || length > 0 || root.is_some() != exchange.has_root() {
                    return Err(CollectiveError::Announcement {
                        sequence,
                        exchange,
                        root,
                        length,
                        total,
                    });
                }
                Call {
                    operation,
                    root,
                    shape: 0,
                    total,
                    length,
                }
            }
            Operation::Fold(_, element) => {
                element
                    .check(length)
                    .map_err(|error| CollectiveError::Fold { sequence, error })?;
                Call {
                    operation,
                    root,
                    shape,
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

    /// All packs have announced an exchange: the answers, if it is one that is answered.
    fn finish_exchange(&mut self, sequence: u64, is_answered: bool) -> Vec<Answer> {
        self.pending.remove(&sequence);
        for progress in &mut self.packs {
            progress.incomplete -= 1;
        }
        if !is_answered {
            return Vec::new();
        }
        let answer = |pack| Answer {
            pack,
            total: 0,
            data: Bytes::new(),
        };
        // Who has announced it may be gone.
        let here = (0..self.packs.len()).filter(|pack| !self.packs[*pack].has_left);
        here.map(answer).collect()
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
        let root = root.map(|root| pack_of(&self.spans, root));
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

/// The pack of a rank that there is.
fn pack_of(spans: &[Span], rank: u32) -> usize {
    spans.partition_point(|span| span.end() <= rank)
}

impl Pending {
    /// A call that a pack has made first, after it had announced so many exchanges. All packs announce the same ones, so the first
    /// one's count is everybody's.
    fn new(first: usize, call: Call, announced: u64) -> Pending {
        let work = match call.operation {
            Operation::Exchange(_) => Work::Exchange {
                is_answered: (announced + 1).is_multiple_of(ANSWER_INTERVAL),
            },
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
            Work::Exchange { .. } => 0,
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
