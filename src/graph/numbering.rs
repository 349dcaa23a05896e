//! Original ids to dense indexes: the place of an id among all that occur, ascending.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rustc_hash::{FxHashSet, FxHasher};

use super::GraphError;
use super::csr::VERTICES_MAX;
use super::edges::{Edges, Piece, Weight};

/// Ids for each edge up to which a bitmap is used: 8 bytes an edge at most.
const BITMAP_SPREAD: u64 = 32;

/// The same where there are few edges.
const BITMAP_IDS: u64 = 1 << 20;

/// Vertices that a text declares, whether edges touch them or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Declared {
    /// None.
    #[default]
    Nothing,
    /// These, in any order; repeats are harmless.
    Ids(Vec<u64>),
    /// 1 to this.
    UpTo(u64),
}

impl Declared {
    /// The largest of them.
    fn largest(&self) -> Option<u64> {
        match self {
            Declared::UpTo(last) => (*last > 0).then_some(*last),
            _ => self.iter().max(),
        }
    }

    /// Each of them.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Declared::Nothing => Box::new(std::iter::empty()),
            Declared::Ids(ids) => Box::new(ids.iter().copied()),
            Declared::UpTo(last) => Box::new(1..=*last),
        }
    }
}

/// How an id becomes a dense index.
pub enum Numbering {
    /// Ids lie close together: a bit for each, and how many there are before.
    Bitmap {
        /// Of 64 ids each.
        words: Vec<Word>,
        /// Ids in all words.
        vertices: usize,
    },
    /// Ids are spread out: a hash table of places among the sorted ones.
    Table {
        /// Ascending.
        ids: Vec<u64>,
        /// A power of two of them: each the largest u32, or a place in `ids`.
        slots: Vec<u32>,
    },
}

/// Which of 64 ids occur, and how many lower ones do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Word {
    bits: u64,
    before: u32,
}

/// No place is this large: there are at most [`VERTICES_MAX`] vertices.
const EMPTY: u32 = u32::MAX;

impl Numbering {
    /// Numbers the ids that occur in what threads have parsed, or are declared.
    ///
    /// # Errors
    ///
    /// [`GraphError::NoVertices`] when there are none, [`GraphError::TooManyVertices`] above [`VERTICES_MAX`].
    pub fn new<W: Weight>(
        edges: &[Edges<W>],
        declared: &Declared,
    ) -> Result<Numbering, GraphError> {
        if let Declared::UpTo(vertices) = *declared
            && vertices > VERTICES_MAX
        {
            let max = VERTICES_MAX;
            return Err(GraphError::TooManyVertices { vertices, max });
        }
        let bounds = edges.iter().filter(|edges| !edges.is_empty());
        let bound = (bounds.map(Edges::bound).max())
            .max(declared.largest())
            .ok_or(GraphError::NoVertices)?;
        let count: usize = edges.iter().map(Edges::len).sum();
        let spread = (count as u64 * BITMAP_SPREAD).max(BITMAP_IDS);
        let numbering = match declared {
            Declared::UpTo(_) => Numbering::bitmap(edges, declared, bound),
            _ if bound <= spread => Numbering::bitmap(edges, declared, bound),
            _ => Numbering::table(edges, declared),
        };
        match numbering.vertices() as u64 {
            vertices if vertices > VERTICES_MAX => Err(GraphError::TooManyVertices {
                vertices,
                max: VERTICES_MAX,
            }),
            _ => Ok(numbering.ready()),
        }
    }

    /// How many there are.
    pub fn vertices(&self) -> usize {
        match self {
            Numbering::Bitmap { vertices, .. } => *vertices,
            Numbering::Table { ids, .. } => ids.len(),
        }
    }

    /// How many ids below this one occur: its dense index, if it does.
    ///
    /// # Panics
    ///
    /// When ids are spread out and it does not occur.
    #[inline]
    pub fn index(&self, id: u64) -> u32 {
        match self {
            Numbering::Bitmap { words, vertices } => match words.get((id >> 6) as usize) {
                Some(word) => word.before + (word.bits & ((1 << (id & 63)) - 1)).count_ones(),
                None => *vertices as u32,
            },
            Numbering::Table { ids, slots } => {
                let mut slot = slot(id, slots.len());
                loop {
                    let place = slots[slot];
                    if ids[place as usize] == id {
                        return place;
                    }
                    slot = (slot + 1) & (slots.len() - 1);
                }
            }
        }
    }

    /// The ids, ascending.
    pub fn into_ids(self) -> Vec<u64> {
        match self {
            Numbering::Table { ids, .. } => ids,
            Numbering::Bitmap { words, vertices } => {
                let mut ids = Vec::with_capacity(vertices);
                for (word, base) in words.iter().zip((0..).step_by(64)) {
                    let mut bits = word.bits;
                    while bits != 0 {
                        ids.push(base + u64::from(bits.trailing_zeros()));
                        bits &= bits - 1;
                    }
                }
                ids
            }
        }
    }

    /// Of ids that are at most `bound`.
    fn bitmap<W: Weight>(edges: &[Edges<W>], declared: &Declared, bound: u64) -> Numbering {
        let words = (bound / 64 + 1) as usize;
        let bits: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let mark = |id: u64| {
            let (word, bit) = (&bits[(id >> 6) as usize], 1 << (id & 63));
            // Most ids occur again and again.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        };
        let pieces: Vec<&Piece<W>> = edges.iter().flat_map(Edges::pieces).collect();
        pieces.par_iter().for_each(|piece| {
            // Texts are often sorted by source.
            let mut last = None;
            for (source, target, _) in piece.iter() {
                if last != Some(source) {
                    mark(source.into());
                    last = Some(source);
                }
                mark(target.into());
            }
        });
        for &(source, target, _) in edges.iter().flat_map(Edges::wide) {
            mark(source);
            mark(target);
        }
        declared.iter().for_each(mark);
        let mut vertices = 0;
        let count = |bits: AtomicU64| {
            let bits = bits.into_inner();
            let before = vertices as u32;
            vertices += bits.count_ones() as usize;
            Word { bits, before }
        };
        let words = bits.into_iter().map(count).collect();
        Numbering::Bitmap { words, vertices }
    }

    fn table<W: Weight>(edges: &[Edges<W>], declared: &Declared) -> Numbering {
        // Each thread collects the ids of its share, which their hash tells.
        let shares = rayon::current_num_threads().min(16) as u64;
        let hasher = BuildHasherDefault::<FxHasher>::default();
        let collect = |share: u64| {
            let mut seen: FxHashSet<u64> = FxHashSet::default();
            let mut add = |id: u64| {
                if (hasher.hash_one(id) >> 32) % shares == share {
                    seen.insert(id);
                }
            };
            for (source, target, _) in edges.iter().flat_map(Edges::iter) {
                add(source);
                add(target);
            }
            declared.iter().for_each(add);
            seen.into_iter().collect::<Vec<u64>>()
        };
        let found: Vec<Vec<u64>> = (0..shares).into_par_iter().map(collect).collect();
        let mut ids = Vec::with_capacity(found.iter().map(Vec::len).sum());
        found.into_iter().for_each(|share| ids.extend(share));
        ids.par_sort_unstable();
        Numbering::Table {
            ids,
            slots: Vec::new(),
        }
    }

    /// Fills the table, now that its ids are known not to be too many.
    fn ready(mut self) -> Numbering {
        if let Numbering::Table { ids, slots } = &mut self {
            *slots = vec![EMPTY; (2 * ids.len()).next_power_of_two()];
            for (place, &id) in ids.iter().enumerate() {
                let mut slot = slot(id, slots.len());
                while slots[slot] != EMPTY {
                    slot = (slot + 1) & (slots.len() - 1);
                }
                slots[slot] = place as u32;
            }
        }
        self
    }
}

/// Where an id is looked for first: Fibonacci hashing, the high bits of a product with 2^64 over the golden ratio.
fn slot(id: u64, slots: usize) -> usize {
    let mixed = (id ^ id >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(ids: &[u64]) -> [Edges<()>; 1] {
        [ids.windows(2).map(|pair| (pair[0], pair[1], ())).collect()]
    }

    #[test]
    fn an_index_is_the_place_among_all_ids() {
        for (factor, offset) in [(1, 0), (3, 5), (1 << 30, 1 << 40), ((1 << 50) + 12_345, 7)] {
            let ids: Vec<u64> = (0..5_000u64)
                .map(|i| (i * 7919 % 5_000) * factor + offset)
                .collect();
            let numbering = Numbering::new(&edges(&ids), &Declared::Ids(vec![1])).unwrap();
            let mut sorted = ids.clone();
            sorted.push(1);
            sorted.sort_unstable();
            sorted.dedup();
            for (index, &id) in sorted.iter().enumerate() {
                assert_eq!(numbering.index(id), index as u32);
            }
            assert_eq!(numbering.into_ids(), sorted);
        }
    }

    #[test]
    fn a_declared_range_counts_whether_edges_touch_it_or_not() {
        let numbering = Numbering::new(&edges(&[3, 9]), &Declared::UpTo(12)).unwrap();
        assert_eq!(numbering.vertices(), 12);
        assert_eq!(numbering.index(9), 8);
        assert!(matches!(
            Numbering::new(&edges(&[]), &Declared::Nothing),
            Err(GraphError::NoVertices)
        ));
    }
}
