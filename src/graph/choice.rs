//! Which partitioner, and what parts are to have equally much of, when the user leaves it to us.
//!
//! What is judged is the modelled time of a superstep ([`Quality::step_seconds`]). METIS takes some hundred times as long as
//! streaming, and where a graph has no structure it finds none. A second streaming pass tells: where that saves little, METIS
//! is not tried on large graphs. Where it is tried, it has to save more than 15 % of the values that are exchanged.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::excerpt;
use super::fennel::Fennel;
use super::partition::{check_parts, partition, quality, work};
use super::snap::trimmed;
use super::text::{Block, Text};
use super::{Balance, Graph, GraphError, Partition, Partitioner, Quality};

/// Up to so many edges METIS is tried in any case: it takes a second at most.
const METIS_EDGES: u64 = 1_000_000;

/// What METIS, or a second streaming pass, has to save to count.
const SAVING: f64 = 0.15;

/// A partition, how it was made, and why so.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The parts.
    pub partition: Partition,
    /// How good it is.
    pub quality: Quality,
    /// What made it.
    pub partitioner: Partitioner,
    /// What its parts have equally much of.
    pub balance: Balance,
    /// What else was tried, and what it came to; one sentence each.
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
    let (partition, quality, partitioner, balance) = trials.best.expect("one was tried");
    Ok(Chosen {
        partition,
        quality,
        partitioner,
        balance,
        why: trials.why,
        times: trials.times,
    })
}

/// Takes a partition that was made elsewhere, as METIS and others write them (`GRAPH.part.K`): a line for each vertex, in
/// the order of rising ids, with the number of its part, from 0.
///
/// # Errors
///
/// Those of [`Text::open`] and [`check_parts`]; [`GraphError::Line`] for a line that is no part, and for too few or too many.
pub fn import(graph: &Graph, parts: u32, file: &Path) -> Result<Chosen, GraphError> {
    check_parts(graph, parts)?;
    let begun = Instant::now();
    let text = Text::open(file)?;
    let (mut block, mut of, mut lines, mut blank) = (Block::default(), Vec::new(), 0, 0);
    let refused = |line: usize, problem: String| GraphError::Line {
        name: text.name().to_owned(),
        line: line as u64,
        problem,
    };
    while text
        .next(&mut block)
        .map_err(|error| text.failure(error, lines))?
    {
        for line in block.text().split_inclusive(|&byte| byte == b'\n') {
            lines += 1;
            // Blank lines may stand at the end.
            if trimmed(line).is_empty() {
                blank += 1;
                continue;
            }
            if blank > 0 {
                return Err(refused(of.len() + 1, "the line is blank".into()));
            }
            let word = std::str::from_utf8(trimmed(line)).unwrap_or_default();
            let part = word.parse().ok().filter(|&part: &u32| part < parts);
            of.push(part.ok_or_else(|| {
                let word = excerpt(trimmed(line));
                let range = format!("parts are 0 to {}", parts - 1);
                refused(of.len() + 1, format!("{word} is no part; {range}"))
            })?);
        }
    }
    if of.len() != graph.ids.len() {
        let (found, due) = (of.len(), graph.ids.len());
        let problem = format!("it has {found} lines, and the graph {due} vertices");
        return Err(refused(found.max(1), problem));
    }
    let mut is_used = vec![false; parts as usize];
    of.iter().for_each(|&part| is_used[part as usize] = true);
    if let Some(empty) = is_used.iter().position(|used| !used) {
        let name = text.name();
        let problem = format!(
            "{name} puts no vertex into part {empty} of {parts}; give --parts as many as it has"
        );
        return Err(GraphError::Parts { problem });
    }
    let partition = Partition::new(parts, of);
    Ok(Chosen {
        quality: quality(graph, &partition),
        partition,
        partitioner: Partitioner::Import,
        balance: Balance::default(),
        why: Vec::new(),
        times: vec![("import".into(), begun.elapsed())],
    })
}

struct Trials<'a> {
    graph: &'a Graph,
    parts: u32,
    balance: Option<Balance>,
    best: Option<(Partition, Quality, Partitioner, Balance)>,
    why: Vec<String>,
    times: Vec<(String, Duration)>,
}

impl Trials<'_> {
    /// Cheap ones first.
    fn try_all(&mut self) -> Result<(), GraphError> {
        self.try_balances(Partitioner::Range)?;
        self.try_balances(Partitioner::Fennel)?;
        let values = |quality: &Quality| quality.boundary_values as f64;
        if self.graph.edges() > METIS_EDGES {
            let weights = (self.best_balance() == Balance::Edges).then(|| work(self.graph));
            let begun = Instant::now();
            let mut fennel = Fennel::new(self.graph, self.parts, weights);
            fennel.pass();
            let first = self.quality(&Partition::new(self.parts, fennel.parts().to_vec()));
            fennel.pass();
            let second = Partition::new(self.parts, fennel.into_parts());
            let second_quality = self.quality(&second);
            self.times.push(("look again".into(), begun.elapsed()));
            let saved = 1.0 - values(&second_quality) / values(&first).max(1.0);
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
        let saved = 1.0 - values(&metis.1) / values(&before.1).max(1.0);
        let step = |of: &(Partition, Quality, Partitioner, Balance)| {
            of.1.step_seconds(self.graph.edges(), self.parts)
        };
        let wins = saved > SAVING && step(&metis) < step(&before);
        self.why.push(format!(
            "metis saves {:.0} % of the values, modelled step {} against {} with {}",
            100.0 * saved,
            milliseconds(step(&metis)),
            milliseconds(step(&before)),
            before.2
        ));
        self.best = Some(if wins { metis } else { before });
        Ok(())
    }

    fn best_balance(&self) -> Balance {
        self.best.as_ref().map_or(Balance::Vertices, |best| best.3)
    }

    /// With the balance that was asked for, or that which models best. The second is left out where it cannot help much.
    fn try_balances(&mut self, partitioner: Partitioner) -> Result<(), GraphError> {
        let first = self.balance.unwrap_or_default();
        let quality = self.attempt(partitioner, first)?;
        // A hash knows no balance.
        if self.balance.is_some() || self.parts == 1 || partitioner == Partitioner::Hash {
            return Ok(());
        }
        let now = quality.step_seconds(self.graph.edges(), self.parts);
        let even = Quality {
            edge_balance: 1.0,
            ..quality
        };
        if even.step_seconds(self.graph.edges(), self.parts) < (1.0 - SAVING) * now {
            self.attempt(partitioner, Balance::Edges)?;
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        partitioner: Partitioner,
        balance: Balance,
    ) -> Result<Quality, GraphError> {
        let begun = Instant::now();
        let split = partition(self.graph, self.parts, partitioner, balance)?;
        let name = format!("{partitioner} by {balance}");
        self.times.push((name, begun.elapsed()));
        let quality = self.quality(&split);
        self.consider(split, quality, partitioner, balance);
        Ok(quality)
    }

    fn quality(&self, partition: &Partition) -> Quality {
        quality(self.graph, partition)
    }

    fn consider(
        &mut self,
        partition: Partition,
        quality: Quality,
        partitioner: Partitioner,
        balance: Balance,
    ) {
        let step = |quality: &Quality| quality.step_seconds(self.graph.edges(), self.parts);
        self.why.push(format!(
            "{partitioner} by {balance}: {} values, largest part {:.2} of the average by edges, modelled step {}",
            quality.boundary_values,
            quality.edge_balance,
            milliseconds(step(&quality))
        ));
        let better =
            |best: &(Partition, Quality, Partitioner, Balance)| step(&quality) < step(&best.1);
        if self.best.as_ref().is_none_or(better) {
            self.best = Some((partition, quality, partitioner, balance));
        }
    }
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
        assert_eq!(chosen.partitioner, Partitioner::Metis, "{:?}", chosen.why);
        let noise: Vec<_> = generate::uniform(9, 16, 1).unwrap().collect();
        let noise = Graph::from_edges(noise).unwrap();
        let chosen = choose(&noise, 4, None, None).unwrap();
        assert_ne!(chosen.partitioner, Partitioner::Metis, "{:?}", chosen.why);
    }

    #[test]
    fn a_balance_is_chosen_by_what_a_step_takes() {
        // All edges end in the low ids.
        let mut edges: Vec<(u64, u64)> = (0..40_000).map(|i| (i % 50, i * 7 % 100)).collect();
        edges.extend((100..400).map(|v| (v, v + 1)));
        let graph = Graph::from_edges(edges).unwrap();
        let chosen = choose(&graph, 4, Some(Partitioner::Range), None).unwrap();
        assert_eq!(chosen.balance, Balance::Edges);
        assert!(chosen.quality.edge_balance < 1.5);
        let chosen = choose(&graph, 4, Some(Partitioner::Range), Some(Balance::Vertices)).unwrap();
        assert!(chosen.quality.edge_balance > 3.0);
    }
}
