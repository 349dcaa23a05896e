//! Edges as they come from a text, by original ids, already spread over ranges of targets.
//!
//! What a graph needs is edges sorted by target. So each thread that parses puts its edges into some hundred buckets, each a
//! range of targets, and sorting a bucket later stays within a processor's caches: a radix sort whose first digit is taken
//! on the way (as in J. Wassenberg and P. Sanders, "Engineering a Multi-core Radix Sort", Euro-Par 2011). Dense indexes
//! rise with ids, so a range of ids is a range of rows.
//!
//! Ids below 2^32 take 4 bytes each and others 8, edge by edge, so that a few long ids do not double a graph. A weight is
//! a type: `()` takes no room at all.

use std::fmt::Debug;
use std::ops::Range;

/// Buckets that the first block's ids are spread over.
const BUCKETS: u64 = 256;

/// Buckets at most; the last one takes what lies above.
const BUCKETS_MAX: usize = 1024;

/// Edges of one piece of a bucket, so that memory comes and goes in even pieces.
const PIECE: usize = 1 << 11;

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

/// Some of the edges whose targets are in one range.
#[derive(Debug)]
pub struct Bucket<W> {
    /// Full ones.
    pieces: Vec<Vec<Edge<u32, W>>>,
    /// The last one, to which edges are added.
    open: Vec<Edge<u32, W>>,
    length: usize,
    /// Where the edges of each block begin.
    marks: Vec<(usize, usize)>,
}

impl<W> Default for Bucket<W> {
    fn default() -> Bucket<W> {
        Bucket {
            pieces: Vec::new(),
            open: Vec::new(),
            length: 0,
            marks: Vec::new(),
        }
    }
}

impl<W: Copy> Bucket<W> {
    /// Small graphs are many, and their only piece grows; later ones have their length from the start.
    #[cold]
    fn grow(&mut self) {
        if self.open.len() < PIECE {
            let length = (4 * self.open.len()).clamp(16, PIECE);
            self.open.reserve_exact(length - self.open.len());
        } else {
            let full = std::mem::replace(&mut self.open, Vec::with_capacity(PIECE));
            self.pieces.push(full);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Edge<u32, W>> {
        self.pieces.iter().flatten().chain(&self.open)
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Edge<u32, W>> {
        self.pieces.iter_mut().flatten().chain(&mut self.open)
    }

    /// The pieces.
    pub fn into_pieces(mut self) -> Vec<Vec<Edge<u32, W>>> {
        self.pieces.push(self.open);
        self.pieces
    }

    /// Each block that gave any, and where its edges are.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let ends = self.marks.iter().skip(1).map(|&(_, start)| start);
        let ends = ends.chain([self.length]);
        let blocks = self.marks.iter().zip(ends);
        blocks.map(|(&(block, start), end)| (block, start..end))
    }

    /// Those that lie in a range.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &Edge<u32, W>> {
        let pieces = self.pieces.iter().chain([&self.open]);
        let pieces = pieces.skip(range.start / PIECE);
        let first = range.start % PIECE;
        pieces
            .enumerate()
            .flat_map(move |(index, piece)| &piece[if index == 0 { first } else { 0 }..])
            .take(range.len())
    }
}

/// The edges that one thread has parsed.
#[derive(Debug)]
pub struct Edges<W> {
    /// The same for all threads.
    shift: u32,
    buckets: Vec<Bucket<W>>,
    /// Those with an id of 2^32 or more.
    pub wide: Vec<Edge<u64, W>>,
    block: usize,
}

impl<W> Default for Edges<W> {
    fn default() -> Edges<W> {
        Edges::spread(0)
    }
}

impl<W> Edges<W> {
    /// For ids up to about `largest`. Those of all threads must be told the same.
    pub fn spread(largest: u64) -> Edges<W> {
        let mut shift = 0;
        while largest >> shift >= BUCKETS {
            shift += 1;
        }
        Edges {
            shift,
            buckets: Vec::new(),
            wide: Vec::new(),
            block: 0,
        }
    }
}

impl<W: Weight> Edges<W> {
    /// What is pushed from here on is of the block with this number; they rise.
    pub fn begin_block(&mut self, number: usize) {
        self.block = number;
    }

    /// Adds an edge.
    #[inline]
    pub fn push(&mut self, source: u64, target: u64, weight: W) {
        if (source | target) >> 32 != 0 {
            return self.wide.push((source, target, weight));
        }
        let at = ((target >> self.shift) as usize).min(BUCKETS_MAX - 1);
        if at >= self.buckets.len() {
            self.buckets.resize_with(at + 1, Bucket::default);
        }
        let bucket = &mut self.buckets[at];
        if bucket.marks.last().is_none_or(|mark| mark.0 != self.block) {
            bucket.marks.push((self.block, bucket.length));
        }
        bucket.length += 1;
        let edge = (source as u32, target as u32, weight);
        if bucket.open.len() >= bucket.open.capacity().min(PIECE) {
            bucket.grow();
        }
        bucket.open.push(edge);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let narrow: usize = self.buckets.iter().map(Bucket::len).sum();
        narrow + self.wide.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Edge<u64, W>> + '_ {
        let narrow = self.buckets.iter().flat_map(Bucket::iter);
        let narrow = narrow.map(|&(source, target, weight)| (source.into(), target.into(), weight));
        narrow.chain(self.wide.iter().copied())
    }

    /// The buckets, and how many bits a target is shifted to find its own. The last may hold higher ones too.
    pub fn buckets(&self) -> (&[Bucket<W>], u32) {
        (&self.buckets, self.shift)
    }

    /// The buckets.
    pub fn into_buckets(self) -> Vec<Bucket<W>> {
        self.buckets
    }
}

impl<W: Weight> FromIterator<Edge<u64, W>> for Edges<W> {
    fn from_iter<T: IntoIterator<Item = Edge<u64, W>>>(edges: T) -> Edges<W> {
        let mut all = Edges::spread(1 << 20);
        for (source, target, weight) in edges {
            all.push(source, target, weight);
        }
        all
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
        assert_eq!(edges.wide.len(), 66_666);
        assert!(edges.iter().any(|edge| edge == (1, u64::MAX - 1, ())));
    }

    #[test]
    fn a_bucket_holds_a_range_of_targets_and_knows_its_blocks() {
        let mut edges: Edges<()> = Edges::spread(1 << 16);
        for block in 0..5 {
            edges.begin_block(block * 2);
            for i in 0..30_000u64 {
                edges.push(block as u64, i * 7919 % (1 << 20), ());
            }
        }
        let (buckets, shift) = edges.buckets();
        assert_eq!((buckets.len(), shift), (BUCKETS_MAX, 9));
        for (at, bucket) in buckets.iter().enumerate() {
            assert!(
                bucket
                    .iter()
                    .all(|edge| (edge.1 as usize >> shift).min(BUCKETS_MAX - 1) == at)
            );
            let mut seen = 0;
            for (block, range) in bucket.blocks() {
                seen += range.len();
                assert!(bucket.range(range).all(|edge| edge.0 as usize * 2 == block));
            }
            assert_eq!(seen, bucket.len());
        }
        assert!(buckets[BUCKETS_MAX - 1].len() > 3 * PIECE);
    }
}
