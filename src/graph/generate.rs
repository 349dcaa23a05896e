//! Synthetic edge lists: the same arguments give the same edges on every machine.
//!
//! [`rmat`] makes graphs with hubs, as social networks have; [`uniform`] makes graphs without structure, the worst
//! case for a partitioner. Both have 2^scale possible ids and edge_factor * 2^scale edges, with repeats and loops.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

use super::GraphError;

/// The largest scale: 2^31 ids still fit 32-bit dense indexes.
pub const SCALE_MAX: u32 = 31;

/// The largest edge factor.
pub const EDGE_FACTOR_MAX: u32 = 1024;

/// Probabilities of the first three quadrants, those of Graph500 and of the GAP benchmark suite; 0.05 is left.
const A: f64 = 0.57;
const B: f64 = 0.19;
const C: f64 = 0.19;

/// Edges by recursive quadrants (D. Chakrabarti, Y. Zhan, C. Faloutsos, "R-MAT: A Recursive Model for Graph
/// Mining", SDM 2004) with Graph500's probabilities. Ids are shuffled, so hubs are not the low ones.
///
/// # Errors
///
/// [`GraphError::Setting`] for a scale outside 1 to [`SCALE_MAX`] or an edge factor outside 1 to [`EDGE_FACTOR_MAX`].
pub fn rmat(
    scale: u32,
    edge_factor: u32,
    seed: u64,
) -> Result<impl Iterator<Item = (u64, u64)> + use<>, GraphError> {
    let edges = edges(scale, edge_factor)?;
    let mut random = random(seed);
    let shuffle = Shuffle::new(scale, &mut random);
    Ok((0..edges).map(move |_| {
        let (mut source, mut target) = (0, 0);
        for _ in 0..scale {
            let at = unit(&mut random);
            source = source << 1 | u64::from(at >= A + B);
            target = target << 1 | u64::from((A..A + B).contains(&at) || at >= A + B + C);
        }
        (shuffle.apply(source), shuffle.apply(target))
    }))
}

/// Edges whose ends are any two ids, each equally likely (P. Erdős and A. Rényi, "On Random Graphs", 1959).
///
/// # Errors
///
/// As for [`rmat`].
pub fn uniform(
    scale: u32,
    edge_factor: u32,
    seed: u64,
) -> Result<impl Iterator<Item = (u64, u64)> + use<>, GraphError> {
    let edges = edges(scale, edge_factor)?;
    let mut random = random(seed);
    let mut end = move || random.next_u64() >> (64 - scale);
    Ok((0..edges).map(move |_| (end(), end())))
}

/// The same edges in both directions, each once and without loops, ascending: what the GAP benchmark suite makes of its
/// Kronecker graphs. Takes 16 bytes of memory for each edge given.
pub fn symmetric(edges: impl Iterator<Item = (u64, u64)>) -> impl Iterator<Item = (u64, u64)> {
    let pack = |source: u64, target: u64| source << 32 | target;
    let mut all: Vec<u64> = Vec::new();
    for (source, target) in edges.filter(|(source, target)| source != target) {
        all.extend([pack(source, target), pack(target, source)]);
    }
    all.par_sort_unstable();
    all.dedup();
    all.into_iter()
        .map(|edge| (edge >> 32, edge & u64::from(u32::MAX)))
}

fn edges(scale: u32, edge_factor: u32) -> Result<u64, GraphError> {
    let refused = |what, value: u32, range| GraphError::Setting {
        what,
        value: value.to_string(),
        range,
    };
    if !(1..=SCALE_MAX).contains(&scale) {
        return Err(refused(
            "scale",
            scale,
            "from 1 to 31 (there are 2^scale vertices)",
        ));
    }
    if !(1..=EDGE_FACTOR_MAX).contains(&edge_factor) {
        let range = "from 1 to 1024 (there are edge-factor edges for each vertex)";
        return Err(refused("edge-factor", edge_factor, range));
    }
    Ok(u64::from(edge_factor) << scale)
}

/// A generator whose numbers are fixed by the seed: ChaCha with 8 rounds, the seed as the start of its key.
fn random(seed: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A number from 0 up to, not including, 1, of 53 random bits.
fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A permutation of 0..2^scale that takes no memory: each step (xor with a shift of itself, multiply by an odd
/// number, add) can be undone modulo 2^scale, so their chain can.
struct Shuffle {
    mask: u64,
    shift: u32,
    rounds: [(u64, u64); 4],
}

impl Shuffle {
    fn new(scale: u32, random: &mut ChaCha8Rng) -> Shuffle {
        Shuffle {
            mask: (1 << scale) - 1,
            shift: scale.div_ceil(2),
            rounds: [(); 4].map(|()| (random.next_u64() | 1, random.next_u64())),
        }
    }

    fn apply(&self, mut id: u64) -> u64 {
        for &(factor, addend) in &self.rounds {
            id ^= id >> self.shift;
            id = id.wrapping_mul(factor).wrapping_add(addend) & self.mask;
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_is_a_permutation() {
        for scale in 1..=10 {
            let shuffle = Shuffle::new(scale, &mut random(7));
            let mut ids: Vec<u64> = (0..1 << scale).map(|id| shuffle.apply(id)).collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..1 << scale).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_seed_gives_the_same_edges_again_and_another_gives_others() {
        let edges = |seed| rmat(8, 4, seed).unwrap().collect::<Vec<_>>();
        assert_eq!(edges(1), edges(1));
        assert_ne!(edges(1), edges(2));
        assert_eq!(edges(1).len(), 4 << 8);
        assert!(
            edges(1)
                .iter()
                .all(|&(source, target)| source < 256 && target < 256)
        );
    }

    #[test]
    fn rmat_has_hubs_that_are_not_the_low_ids_and_uniform_has_none() {
        let busiest = |edges: Vec<(u64, u64)>| {
            let mut degree = vec![0; 1 << 12];
            edges
                .iter()
                .for_each(|&(source, _)| degree[source as usize] += 1);
            (0..degree.len()).map(|id| (degree[id], id)).max().unwrap()
        };
        let (degree, id) = busiest(rmat(12, 16, 3).unwrap().collect());
        assert!(degree > 200 && id != 0, "{degree} at {id}");
        let (degree, _) = busiest(uniform(12, 16, 3).unwrap().collect());
        assert!(degree < 60, "{degree}");
    }

    #[test]
    fn symmetric_edges_are_both_ways_once_and_no_loops() {
        let edges = [(3, 1), (1, 3), (2, 2), (0, 3)];
        let all: Vec<_> = symmetric(edges.into_iter()).collect();
        assert_eq!(all, [(0, 3), (1, 3), (3, 0), (3, 1)]);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        let refusal = |scale, factor| rmat(scale, factor, 0).err().unwrap().to_string();
        assert_eq!(
            refusal(0, 1),
            "scale is 0, and must be from 1 to 31 (there are 2^scale vertices)"
        );
        assert!(refusal(32, 1).starts_with("scale is 32"));
        assert!(refusal(4, 0).starts_with("edge-factor is 0"));
        assert!(uniform(4, 1025, 0).is_err());
    }
}
