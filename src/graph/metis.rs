//! METIS, behind a function: multilevel k-way partitioning (G. Karypis and V. Kumar, "Multilevel k-way Partitioning
//! Scheme for Irregular Graphs", JPDC 48, 1998).
//!
//! METIS draws from the C library's random numbers, so even with a fixed seed its result differs between systems.
//! It may leave parts empty on tiny graphs; [`partition`](super::partition()) repairs that.

use std::sync::{Mutex, PoisonError};

use ::metis::option;

use super::{Graph, GraphError};

/// The seed given to METIS, so that one machine repeats its own results.
const SEED: i32 = 20_240_601;

/// METIS seeds the process's one random number generator and swaps signal handlers while it runs, so two calls at
/// a time would disturb each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Splits the vertices into `parts` of nearly equal size, or weight if there are weights (METIS tolerates 3 %), cutting few edges. Directions are
/// ignored. Gives the part of each vertex, by dense index.
///
/// # Errors
///
/// [`GraphError::TooManyNeighbours`] above METIS's 32-bit indexes, [`GraphError::Metis`] when METIS fails.
pub fn metis_parts(
    graph: &Graph,
    parts: u32,
    weights: Option<&[u64]>,
) -> Result<Vec<u32>, GraphError> {
    let vertices = graph.ids.len();
    if parts == 1 || vertices == 0 {
        return Ok(vec![0; vertices]);
    }
    let failed = |cause: String| GraphError::Metis { parts, cause };
    let symmetric = graph.symmetric()?;
    if symmetric.adjncy.is_empty() {
        // METIS divides by the number of edges in places; without edges every equal split is as good.
        return Ok((0..vertices as u64)
            .map(|v| (v * u64::from(parts) / vertices as u64) as u32)
            .collect());
    }
    let count =
        i32::try_from(parts).map_err(|_| failed("it takes fewer than 2^31 parts".into()))?;
    // METIS adds weights up in 32 bits.
    let weights: Option<Vec<i32>> = weights.map(|weights| {
        let scale = weights.iter().sum::<u64>() / (i32::MAX as u64 / 2) + 1;
        let scaled = |&weight: &u64| (weight / scale).max(1) as i32;
        weights.iter().map(scaled).collect()
    });
    let mut of = vec![0i32; vertices];
    {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = ::metis::Graph::new(1, count, &symmetric.xadj, &symmetric.adjncy)
            .map_err(|cause| failed(cause.to_string()))?;
        let graph = match &weights {
            Some(weights) => graph.set_vwgt(weights),
            None => graph,
        };
        graph
            .set_option(option::Seed(SEED))
            .part_kway(&mut of)
            .map_err(|cause| failed(cause.to_string()))?;
    }
    of.into_iter()
        .map(|part| u32::try_from(part).ok().filter(|&part| part < parts))
        .collect::<Option<Vec<u32>>>()
        .ok_or_else(|| failed("it gave a part that does not exist".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_of_awkward_shapes_are_split_without_complaint() {
        let star = (1..300).map(|v| (0, v)).collect::<Vec<_>>();
        let clique = (0..40)
            .flat_map(|v| (0..40).map(move |w| (v, w)))
            .collect::<Vec<_>>();
        let pairs = (0..100).map(|v| (2 * v, 2 * v + 1)).collect::<Vec<_>>();
        let loops = (0..50).map(|v| (v, v)).collect::<Vec<_>>();
        let alone = (0..500).collect::<Vec<_>>();
        for (edges, declared) in [
            (star, &[][..]),
            (clique, &[]),
            (pairs, &[]),
            (loops, &[]),
            (vec![(0, 1)], &alone),
        ] {
            let graph = Graph::from_edges_and_vertices(edges, declared).unwrap();
            let vertices = graph.ids.len() as u32;
            for parts in [1, 2, 3, 7, 16, vertices / 2, vertices] {
                let of = metis_parts(&graph, parts, None).unwrap();
                assert_eq!(of.len(), vertices as usize);
                assert!(of.iter().all(|&part| part < parts));
            }
        }
    }
}
