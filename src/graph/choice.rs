//! Which partitioner, and what parts are to have equally much of, when the user leaves it to us.
//!
//! What is judged is the modelled time of a superstep ([`Quality::step_seconds`]). METIS takes some hundred times as long as
//! streaming, and where a graph has no structure it finds none. A second streaming pass tells: where that saves little, METIS
//! is not tried on large graphs. Where it is tried, it has to save more than 15 % of the values that are exchanged.

use std::time::{Duration, Instant};

use super::fennel::Fennel;
use super::partition::{check_parts, partition, quality, work};
use super::{Balance, Graph, GraphError, Partition, Partitioner, Quality};

/// Up to so many edges METIS is tried in any case: it takes a second at most.
const METIS_EDGES: u64 = 1_000_000;

/// What METIS, or a second streaming pass, has to save to count.
const SAVING: f64 = 0.15;

/// A partition, how it was made, and how good it is.
#[derive(Debug, Clone)]
pub struct Split {
    /// The parts.
    pub partition: Partition,
    /// What made it.
    pub partitioner: Partitioner,
    /// What its parts have equally much of.
    pub balance: Balance,
    /// How good it is.
    pub quality: Quality,
}

impl Split {
    /// Measures a partition that was made so.
    pub fn new(
        graph: &Graph,
        partition: Partition,
        partitioner: Partitioner,
        balance: Balance,
    ) -> Split {
        Split {
            quality: quality(graph, &partition),
            partition,
            partitioner,
            balance,
        }
    }

    /// Seconds that a superstep is expected to take; see [`Quality::step_seconds`].
    fn step_seconds(&self, graph: &Graph) -> f64 {
        let parts = self.partition.parts;
        self.quality.step_seconds(graph.edges(), parts)
    }
}

/// What was chosen, and why.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The best.
    pub split: Split,
    /// What was tried, and what it came to; one sentence each.
    pub why: Vec<String>,
    /// The time of each attempt.
    pub times: Vec<(String, Duration)>,
}

/// Splits a graph; what is `None` is chosen.
///
/// # Errors
///
/// Those of [`partition`].
pub fn choose(
    graph: &Graph,
    parts: u32,
    partitioner: Option<Partitioner>,
    balance: Option<Balance>,
) -> Result<Chosen, GraphError> {
    check_parts(graph, parts)?;
    let mut trials = Trials {
        graph,
        parts,
        balance,
        best: None,
        why: Vec::new(),
        times: Vec::new(),
    };
    match partitioner {
        Some(partitioner) => trials.try_balances(partitioner)?,
        None if parts == 1 => trials.try_balances(Partitioner::Range)?,
        None => trials.try_all()?,
    }
    Ok(Chosen {
        split: trials.best.expect("one was tried"),
        why: trials.why,
        times: trials.times,
    })
}

struct Trials<'a> {
    graph: &'a Graph,
    parts: u32,
    balance: Option<Balance>,
    best: Option<Split>,
    why: Vec<String>,
    times: Vec<(String, Duration)>,
}

impl Trials<'_> {
    /// Cheap ones first.
    fn try_all(&mut self) -> Result<(), GraphError> {
        self.try_balances(Partitioner::Range)?;
        self.try_balances(Partitioner::Fennel)?;
        if self.graph.edges() > METIS_EDGES {
            let saved = self.saved_by_a_second_pass();
            if saved < SAVING {
                self.why.push(format!(
                    "metis was not tried, since a second streaming pass saved {:.0} % of the values: there is little to find",
                    100.0 * saved
                ));
                return Ok(());
            }
        }
        let Some(before) = self.best.take() else {
            return Ok(());
        };
        match self.try_balances(Partitioner::Metis) {
            Ok(()) => {}
            // What stands is good enough to go on with.
            Err(error @ (GraphError::TooManyNeighbours { .. } | GraphError::Metis { .. })) => {
                self.why.push(error.to_string());
                self.best = Some(before);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let metis = self.best.take().expect("it was just tried");
        let saved = saving(&before.quality, &metis.quality);
        let [step, step_before] = [&metis, &before].map(|split| split.step_seconds(self.graph));
        self.why.push(format!(
            "metis saves {:.0} % of the values, modelled step {} against {} with {}",
            100.0 * saved,
            milliseconds(step),
            milliseconds(step_before),
            before.partitioner
        ));
        let wins = saved > SAVING && step < step_before;
        self.best = Some(if wins { metis } else { before });
        Ok(())
    }

    /// What a second streaming pass saves of the values that the first leaves: little where there is no structure.
    fn saved_by_a_second_pass(&mut self) -> f64 {
        let begun = Instant::now();
        let balance = self.best.as_ref().map(|best| best.balance);
        let weights = (balance == Some(Balance::Edges)).then(|| work(self.graph));
        let mut fennel = Fennel::new(self.graph, self.parts, weights);
        let [first, second] = [(); 2].map(|()| {
            fennel.pass();
            let partition = Partition::new(self.parts, fennel.parts().to_vec());
            quality(self.graph, &partition)
        });
        self.times.push(("look again".into(), begun.elapsed()));
        saving(&first, &second)
    }

    /// With the balance that was asked for, or that which models best. The second is left out where it cannot help much.
    fn try_balances(&mut self, partitioner: Partitioner) -> Result<(), GraphError> {
        let quality = self.attempt(partitioner, self.balance.unwrap_or_default())?;
        // A hash knows no balance.
        if self.balance.is_some() || self.parts == 1 || partitioner == Partitioner::Hash {
            return Ok(());
        }
        let even = Quality {
            edge_balance: 1.0,
            ..quality
        };
        let step = |quality: Quality| quality.step_seconds(self.graph.edges(), self.parts);
        if step(even) < (1.0 - SAVING) * step(quality) {
            self.attempt(partitioner, Balance::Edges)?;
        }
        Ok(())
    }

    /// Makes a partition, which stands if it is the best so far.
    fn attempt(
        &mut self,
        partitioner: Partitioner,
        balance: Balance,
    ) -> Result<Quality, GraphError> {
        let begun = Instant::now();
        let made = partition(self.graph, self.parts, partitioner, balance)?;
        let name = format!("{partitioner} by {balance}");
        self.times.push((name.clone(), begun.elapsed()));
        let split = Split::new(self.graph, made, partitioner, balance);
        let (quality, step) = (split.quality, split.step_seconds(self.graph));
        self.why.push(format!(
            "{name}: {} values, largest part {:.2} of the average by edges, modelled step {}",
            quality.boundary_values,
            quality.edge_balance,
            milliseconds(step)
        ));
        let better = |best: &Split| step < best.step_seconds(self.graph);
        if self.best.as_ref().is_none_or(better) {
            self.best = Some(split);
        }
        Ok(quality)
    }
}

/// The share of the values that the second of two partitions does without.
fn saving(before: &Quality, after: &Quality) -> f64 {
    1.0 - after.boundary_values as f64 / before.boundary_values.max(1) as f64
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", 1000.0 * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::generate;

    #[test]
    fn structure_is_left_to_metis_and_its_absence_to_streaming() {
        // A grid, whose ids are shuffled, so that neither ranges nor one look at each vertex find it.
        let id = |x: u64, y: u64| (x * 40 + y).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut edges = Vec::new();
        for (x, y) in (0..40).flat_map(|x| (0..40).map(move |y| (x, y))) {
            for (to_x, to_y) in [(x + 1, y), (x, y + 1)] {
                if to_x < 40 && to_y < 40 {
                    edges.extend([(id(x, y), id(to_x, to_y)), (id(to_x, to_y), id(x, y))]);
                }
            }
        }
        let grid = Graph::from_edges(edges).unwrap();
        let chosen = choose(&grid, 4, None, None).unwrap();
        assert_eq!(
            chosen.split.partitioner,
            Partitioner::Metis,
            "{:?}",
            chosen.why
        );
        let noise: Vec<_> = generate::uniform(9, 16, 1).unwrap().collect();
        let noise = Graph::from_edges(noise).unwrap();
        let chosen = choose(&noise, 4, None, None).unwrap();
        assert_ne!(
            chosen.split.partitioner,
            Partitioner::Metis,
            "{:?}",
            chosen.why
        );
    }

    #[test]
    fn a_balance_is_chosen_by_what_a_step_takes() {
        // All edges end in the low ids.
        let mut edges: Vec<(u64, u64)> = (0..40_000).map(|i| (i % 50, i * 7 % 100)).collect();
        edges.extend((100..400).map(|v| (v, v + 1)));
        let graph = Graph::from_edges(edges).unwrap();
        let chosen = choose(&graph, 4, Some(Partitioner::Range), None).unwrap();
        assert_eq!(chosen.split.balance, Balance::Edges);
        assert!(chosen.split.quality.edge_balance < 1.5);
        let chosen = choose(&graph, 4, Some(Partitioner::Range), Some(Balance::Vertices)).unwrap();
        assert!(chosen.split.quality.edge_balance > 3.0);
    }
}
