//! Edges as they come from a text, by original ids, already spread over ranges of targets.
//!
//! What a graph needs is edges sorted by target. So each thread that parses puts its edges into some hundred buckets, each a
//! range of targets, and sorting a bucket later stays within a processor's caches: a radix sort whose first digit is taken
//! on the way, with a cache line or two before each bucket (as in J. Wassenberg and P. Sanders, "Engineering a Multi-core
//! Radix Sort", Euro-Par 2011). Dense indexes rise with ids, so a range of ids is a range of rows.
//!
//! A bucket is a range of at most 2^16 targets, so an edge takes 6 bytes: fresh memory is what costs most here. Edges with
//! an id of 2^32 or more take 16, so that a few long ids do not double a graph. A weight is a type: `()` takes no room at
//! all.

use std::fmt::Debug;
use std::ops::Range;

/// Buckets that the ids which are expected are spread over.
const BUCKETS: u64 = 256;

/// Buckets up to which ranges stay as narrow as they are when larger ids come.
const BUCKETS_MAX: u64 = 1024;

/// Bits of a target within its bucket, at most.
const SHIFT_MAX: u32 = 16;

/// Edges that are gathered before they go to their bucket together.
const STAGED: usize = 16;

/// Edges of one piece of a bucket, so that memory comes and goes in even pieces.
const PIECE: usize = 1 << 12;

/// What an edge carries: nothing, or a number.
pub trait Weight: Copy + Default + PartialOrd + Debug + Send + Sync + 'static {
    /// Whether it carries anything.
    const SOME: bool;

    /// The weight that a number is.
    fn of(value: f64) -> Self;

    /// As numbers, if they are.
    fn numbers(weights: Vec<Self>) -> Option<Vec<f64>>;
}

impl Weight for () {
    const SOME: bool = false;

    fn of(_: f64) {}

    fn numbers(_: Vec<()>) -> Option<Vec<f64>> {
        None
    }
}

impl Weight for f64 {
    const SOME: bool = true;

    fn of(value: f64) -> f64 {
        // There is one zero.
        value + 0.0
    }

    fn numbers(weights: Vec<f64>) -> Option<Vec<f64>> {
        Some(weights)
    }
}

/// A source, a target, and a weight.
pub type Edge<I, W> = (I, I, W);

/// Some of the edges whose targets are in one range, in the order of the text.
#[derive(Debug)]
pub struct Piece<W> {
    /// Where the range begins.
    base: u32,
    sources: Vec<u32>,
    /// Less `base`.
    targets: Vec<u16>,
    weights: Vec<W>,
    /// Where the edges of each block begin.
    marks: Vec<(usize, usize)>,
}

impl<W: Weight> Piece<W> {
    fn new(base: u32, length: usize) -> Piece<W> {
        Piece {
            base,
            sources: Vec::with_capacity(length),
            targets: Vec::with_capacity(length),
            weights: Vec::with_capacity(length),
            marks: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Where the range of its targets begins.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// How far each target is above the base.
    pub fn targets(&self) -> &[u16] {
        &self.targets
    }

    /// The source of each.
    pub fn sources(&self) -> &[u32] {
        &self.sources
    }

    /// The weight of each.
    pub fn weights(&self) -> &[W] {
        &self.weights
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Edge<u32, W>> + '_ {
        let targets = self.targets.iter().map(|&low| self.base + u32::from(low));
        let ends = self.sources.iter().copied().zip(targets);
        ends.zip(&self.weights)
            .map(|((source, target), &weight)| (source, target, weight))
    }

    /// Each block that gave any, and where its edges are. Where ids are spread widely several may be one.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let ends = self.marks.iter().skip(1).map(|&(_, start)| start);
        let blocks = self.marks.iter().zip(ends.chain([self.len()]));
        blocks.map(|(&(block, start), end)| (block, start..end))
    }

    /// Adds some. Small graphs are many, and their only pieces grow; later ones have their length from the start.
    fn extend(&mut self, edges: &[(u32, u16, W)]) {
        if self.sources.capacity() - self.len() < edges.len() {
            let length = (4 * self.len()).clamp(STAGED, PIECE) - self.len();
            let length = length.max(edges.len());
            self.sources.reserve_exact(length);
            self.targets.reserve_exact(length);
            self.weights.reserve_exact(length);
        }
        self.sources.extend(edges.iter().map(|edge| edge.0));
        self.targets.extend(edges.iter().map(|edge| edge.1));
        self.weights.extend(edges.iter().map(|edge| edge.2));
    }
}

/// The edges of one range of targets.
pub type Bucket<W> = Vec<Piece<W>>;

/// The edges that one thread has parsed.
#[derive(Debug)]
pub struct Edges<W> {
    shift: u32,
    buckets: Vec<Bucket<W>>,
    /// Those with an id of 2^32 or more.
    wide: Vec<Vec<Edge<u64, W>>>,
    /// The bits of all ids.
    bits: u64,
}

impl<W: Weight> Edges<W> {
    /// How many there are.
    pub fn len(&self) -> usize {
        let narrow: usize = self.pieces().map(Piece::len).sum();
        narrow + self.wide.iter().map(Vec::len).sum::<usize>()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No id is larger than this, which is less than twice the largest. 0 also if there are none.
    pub fn bound(&self) -> u64 {
        match self.bits.checked_ilog2() {
            Some(log) => u64::MAX >> (63 - log),
            None => 0,
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Edge<u64, W>> + '_ {
        let narrow = self.pieces().flat_map(Piece::iter);
        let narrow = narrow.map(|(source, target, weight)| (source.into(), target.into(), weight));
        narrow.chain(self.wide().copied())
    }

    /// All whose ids are below 2^32, by pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece<W>> {
        self.buckets.iter().flatten()
    }

    /// Those with an id of 2^32 or more.
    pub fn wide(&self) -> impl Iterator<Item = &Edge<u64, W>> {
        self.wide.iter().flatten()
    }

    /// How many bits a target is shifted to find its bucket.
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// The buckets, and the pieces of what has ids of 2^32 or more.
    #[allow(clippy::type_complexity, reason = "two lists of lists")]
    pub fn into_parts(self) -> (Vec<Bucket<W>>, Vec<Vec<Edge<u64, W>>>) {
        (self.buckets, self.wide)
    }
}

impl<W: Weight> FromIterator<Edge<u64, W>> for Edges<W> {
    fn from_iter<T: IntoIterator<Item = Edge<u64, W>>>(edges: T) -> Edges<W> {
        let mut all = Spreader::new(1 << 20);
        for (source, target, weight) in edges {
            all.push(source, target, weight);
        }
        all.finish()
    }
}

/// Edges on their way into a bucket: source, target less where the bucket begins, weight.
type Stage<W> = [(u32, u16, W); STAGED];

/// Spreads the edges that one thread parses over buckets.
#[derive(Debug)]
pub struct Spreader<W> {
    /// One before each bucket.
    stages: Vec<Stage<W>>,
    /// How many edges are in each.
    staged: Vec<u8>,
    edges: Edges<W>,
    block: usize,
}

impl<W: Weight> Spreader<W> {
    /// For ids up to about `largest`; more is harmless.
    pub fn new(largest: u64) -> Spreader<W> {
        let mut shift = 0;
        while shift < SHIFT_MAX && largest >> shift >= BUCKETS {
            shift += 1;
        }
        Spreader {
            stages: Vec::new(),
            staged: Vec::new(),
            edges: Edges {
                shift,
                buckets: Vec::new(),
                wide: Vec::new(),
                bits: 0,
            },
            block: 0,
        }
    }

    /// What is pushed from here on is of the block with this number; they rise.
    pub fn begin_block(&mut self, number: usize) {
        // With so many buckets a block has hardly an edge for each, and where it begins is not worth its bytes.
        if self.staged.len() <= BUCKETS_MAX as usize {
            self.empty_all();
            self.block = number;
        }
    }

    /// Adds an edge.
    #[inline]
    pub fn push(&mut self, source: u64, target: u64, weight: W) {
        self.edges.bits |= source | target;
        if (source | target) >> 32 != 0 {
            return self.push_wide((source, target, weight));
        }
        let mut at = (target >> self.edges.shift) as usize;
        if at >= self.staged.len() {
            at = self.make_room(target);
        }
        let low = (target & !(!0 << self.edges.shift)) as u16;
        let staged = &mut self.staged[at];
        self.stages[at][usize::from(*staged) % STAGED] = (source as u32, low, weight);
        *staged += 1;
        if usize::from(*staged) == STAGED {
            self.empty(at);
        }
    }

    /// All that was pushed.
    pub fn finish(mut self) -> Edges<W> {
        self.empty_all();
        self.edges
    }

    #[cold]
    fn push_wide(&mut self, edge: Edge<u64, W>) {
        match self.edges.wide.last_mut() {
            Some(last) if last.len() < PIECE => last.push(edge),
            _ => {
                let length = if self.edges.wide.is_empty() { 4 } else { PIECE };
                let mut piece = Vec::with_capacity(length);
                piece.push(edge);
                self.edges.wide.push(piece);
            }
        }
    }

    /// Sees to it that there is a bucket for this target, and gives its place.
    #[cold]
    fn make_room(&mut self, target: u64) -> usize {
        while self.edges.shift < SHIFT_MAX && target >> self.edges.shift >= BUCKETS_MAX {
            self.widen();
        }
        let at = (target >> self.edges.shift) as usize;
        if at >= self.stages.len() {
            self.stages.resize(at + 1, [Default::default(); STAGED]);
            self.staged.resize(at + 1, 0);
            self.edges.buckets.resize_with(at + 1, Vec::new);
        }
        at
    }

    /// Makes one bucket of each two.
    fn widen(&mut self) {
        self.empty_all();
        self.edges.shift += 1;
        let mut narrow = std::mem::take(&mut self.edges.buckets).into_iter();
        while let Some(mut bucket) = narrow.next() {
            bucket.extend(narrow.next().unwrap_or_default());
            self.edges.buckets.push(bucket);
        }
        self.stages.truncate(self.edges.buckets.len());
        self.staged.truncate(self.edges.buckets.len());
    }

    fn empty_all(&mut self) {
        for at in 0..self.stages.len() {
            self.empty(at);
        }
    }

    /// Moves what is before a bucket into it.
    fn empty(&mut self, at: usize) {
        let length = usize::from(std::mem::take(&mut self.staged[at]));
        let mut edges = &self.stages[at][..length];
        let bucket = &mut self.edges.buckets[at];
        let base = (at << self.edges.shift) as u32;
        while !edges.is_empty() {
            let piece = match bucket.last_mut() {
                Some(piece) if piece.base == base && piece.len() < PIECE => piece,
                last => {
                    let length = if last.is_none() { STAGED } else { PIECE };
                    bucket.push(Piece::new(base, length));
                    bucket.last_mut().expect("it was just pushed")
                }
            };
            if piece.marks.last().is_none_or(|mark| mark.0 != self.block) {
                piece.marks.push((self.block, piece.len()));
            }
            let (now, later) = edges.split_at(edges.len().min(PIECE - piece.len()));
            piece.extend(now);
            edges = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_both_widths_are_kept() {
        let edges: Edges<()> = (0..100_000u64)
            .map(|i| match i % 3 {
                0 => (i, i + 1, ()),
                1 => (i, u64::MAX - i, ()),
                _ => (1 << 32, i, ()),
            })
            .collect();
        assert_eq!(edges.len(), 100_000);
        assert_eq!(edges.wide().count(), 66_666);
        assert!(edges.iter().any(|edge| edge == (1, u64::MAX - 1, ())));
        assert_eq!(edges.bound(), u64::MAX);
    }

    #[test]
    fn a_bucket_holds_a_range_of_targets_and_its_pieces_know_their_blocks() {
        // Ids far above what was expected, and about as expected; in buckets of all widths that there are.
        for (expected, ids, shift) in [
            (1 << 16, 1 << 20, 10),
            (1 << 20, 1 << 20, 13),
            (0, 1 << 22, 12),
            (9, 1 << 32, 16),
            (1 << 40, 1 << 10, 16),
        ] {
            let mut spreader: Spreader<f64> = Spreader::new(expected);
            let mut pushed = Vec::new();
            for block in 0..5u64 {
                spreader.begin_block(block as usize * 2);
                for i in 0..30_000u64 {
                    // They grow, so that buckets become wider on the way.
                    let target = (i * 7919 + 104_729 * block) % (ids >> (8 - 2 * block));
                    spreader.push(block, target, i as f64);
                    pushed.push((block, target, i as f64));
                }
            }
            let edges = spreader.finish();
            assert!(
                edges.shift() <= shift,
                "{expected} {ids}: {}",
                edges.shift()
            );
            let largest = pushed.iter().map(|edge| edge.1).max().unwrap();
            assert!((largest..2 * largest).contains(&edges.bound()));
            for (at, bucket) in edges.buckets.iter().enumerate() {
                for piece in bucket {
                    assert!(piece.len() <= PIECE);
                    let mut seen = 0;
                    for (block, range) in piece.blocks() {
                        seen += range.len();
                        let mut sources = piece.sources[range].iter();
                        // With more buckets a run may be of several blocks.
                        let is_whole = edges.buckets.len() <= BUCKETS_MAX as usize;
                        assert!(!is_whole || sources.all(|&found| 2 * found as usize == block));
                    }
                    assert_eq!(seen, piece.len());
                    let targets = piece.iter().map(|edge| edge.1 as usize >> edges.shift());
                    assert!(targets.into_iter().all(|found| found == at));
                }
            }
            let mut found: Vec<(u64, u64, f64)> = edges.iter().collect();
            found.sort_by(|a, b| a.partial_cmp(b).unwrap());
            pushed.sort_by(|a, b| a.partial_cmp(b).unwrap());
            assert!(found == pushed);
        }
    }
}
