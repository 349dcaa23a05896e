//! Streaming partitioning: one look at each vertex, in the order of ids (C. Tsourakakis, C. Gkantsidis, B. Radunović, M.
//! Vojnović, "FENNEL: Streaming Graph Partitioning for Massive Scale Graphs", WSDM 2014, with gamma 1.5), and again, if
//! asked (J. Nishimura and J. Ugander, "Restreaming Graph Partitioning", KDD 2013).
//!
//! A vertex goes to the part where the number of its neighbours there, less a price for how full it is, is highest. Only
//! parts with neighbours and the emptiest one can win, so the time does not grow with the number of parts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Graph;
use super::rows::Rows;

/// How much fuller than the average a part may become.
const SLACK: f64 = 1.1;

/// No part yet.
const NOWHERE: u32 = u32::MAX;

/// A partition in the making.
pub struct Fennel<'a> {
    graph: &'a Graph,
    /// The out-edges, unless they are the in-edges.
    out: Option<Rows<()>>,
    /// What each vertex weighs; 1 on average.
    weights: Option<Vec<f32>>,
    /// The price of one more in a part that holds `load`: this times its root.
    price: f64,
    capacity: f64,
    loads: Vec<f64>,
    of: Vec<u32>,
}

impl<'a> Fennel<'a> {
    /// To split a graph into `parts`, each of about as many vertices, or of as much weight if vertices have any.
    pub fn new(graph: &'a Graph, parts: u32, weights: Option<Vec<u64>>) -> Fennel<'a> {
        let vertices = graph.ids.len().max(1) as f64;
        let edges = graph.edges() as f64;
        // The paper counts undirected edges; a directed one is as much of a reason to be together as half of two.
        let edges = if graph.symmetric { edges / 2.0 } else { edges };
        let k = f64::from(parts);
        let weights = weights.map(|weights| {
            let mean = weights.iter().sum::<u64>() as f64 / vertices;
            let relative = |&weight: &u64| (weight as f64 / mean) as f32;
            weights.iter().map(relative).collect()
        });
        Fennel {
            out: (!graph.symmetric).then(|| graph.out_edges()),
            graph,
            weights,
            price: 1.5 * edges * k.sqrt() / vertices.powf(1.5),
            capacity: SLACK * vertices / k,
            loads: vec![0.0; parts as usize],
            of: vec![NOWHERE; graph.ids.len()],
        }
    }

    /// Places each vertex, or places it anew.
    pub fn pass(&mut self) {
        let parts = self.loads.len();
        let mut neighbours = vec![0u32; parts];
        let mut touched: Vec<u32> = Vec::with_capacity(parts);
        let mut prices: Vec<f64> = self
            .loads
            .iter()
            .map(|load| self.price * load.sqrt())
            .collect();
        let mut emptiest: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::with_capacity(2 * parts);
        let order = |load: f64| load.to_bits();
        for (part, &load) in self.loads.iter().enumerate() {
            emptiest.push(Reverse((order(load), part as u32)));
        }
        for v in 0..self.of.len() {
            let weight = match &self.weights {
                Some(weights) => f64::from(weights[v]),
                None => 1.0,
            };
            let before = std::mem::replace(&mut self.of[v], NOWHERE);
            if before != NOWHERE {
                let load = &mut self.loads[before as usize];
                *load = (*load - weight).max(0.0);
                prices[before as usize] = self.price * load.sqrt();
                emptiest.push(Reverse((order(*load), before)));
            }
            let out = self.out.as_ref().map_or(&[][..], |out| out.of(v));
            for &neighbour in self.graph.sources_of(v).iter().chain(out) {
                let part = self.of[neighbour as usize];
                if part != NOWHERE {
                    let count = &mut neighbours[part as usize];
                    if *count == 0 {
                        touched.push(part);
                    }
                    *count += 1;
                }
            }
            let empty = loop {
                let &Reverse((load, part)) = emptiest.peek().expect("each part is in it");
                if load == order(self.loads[part as usize]) {
                    break part;
                }
                emptiest.pop();
            };
            // Among equals the emptiest, then the first.
            let mut best = (
                -prices[empty as usize] + f64::from(neighbours[empty as usize]),
                empty,
            );
            for &part in &touched {
                let place = part as usize;
                let score = f64::from(neighbours[place]) - prices[place];
                neighbours[place] = 0;
                let better = score > best.0 || score == best.0 && part < best.1 && best.1 != empty;
                if better && self.loads[place] + weight <= self.capacity {
                    best = (score, part);
                }
            }
            touched.clear();
            let part = best.1;
            let load = &mut self.loads[part as usize];
            *load += weight;
            prices[part as usize] = self.price * load.sqrt();
            emptiest.push(Reverse((order(*load), part)));
            if emptiest.len() > 64 + 8 * parts {
                let loads = &self.loads;
                emptiest = (0..parts as u32)
                    .map(|part| Reverse((order(loads[part as usize]), part)))
                    .collect();
            }
            self.of[v] = part;
        }
    }

    /// The part of each vertex.
    pub fn parts(&self) -> &[u32] {
        &self.of
    }

    /// The part of each vertex.
    pub fn into_parts(self) -> Vec<u32> {
        self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some cliques of ten, of which each is tied to the next by one edge.
    fn cliques(count: u64) -> Graph {
        let mut edges = Vec::new();
        for clique in 0..count {
            let base = clique * 10;
            for a in 0..10 {
                edges.extend((0..10).filter(|&b| a != b).map(|b| (base + a, base + b)));
            }
            edges.push((base, (base + 10) % (count * 10)));
        }
        Graph::from_edges(edges).unwrap()
    }

    #[test]
    fn cliques_stay_together_and_parts_are_even() {
        let graph = cliques(40);
        for parts in [2, 4, 8] {
            let mut fennel = Fennel::new(&graph, parts, None);
            fennel.pass();
            fennel.pass();
            let of = fennel.parts();
            let whole = of
                .chunks(10)
                .filter(|clique| clique.iter().all(|part| part == &clique[0]));
            assert!(whole.count() >= 36, "{parts} parts");
            for part in 0..parts {
                let size = of.iter().filter(|&&of| of == part).count() as f64;
                assert!(size <= 1.1 * 400.0 / f64::from(parts) + 1.0, "{size}");
            }
        }
    }

    #[test]
    fn weight_is_what_is_even_if_vertices_have_any() {
        let graph = cliques(40);
        let weights: Vec<u64> = (0..400).map(|v| if v < 100 { 9 } else { 1 }).collect();
        let mut fennel = Fennel::new(&graph, 4, Some(weights.clone()));
        fennel.pass();
        for part in 0..4 {
            let pairs = fennel.parts().iter().zip(&weights);
            let weight: u64 = pairs
                .filter(|(of, _)| **of == part)
                .map(|(_, weight)| weight)
                .sum();
            assert!(weight as f64 <= 1.1 * 1200.0 / 4.0 + 9.0, "{weight}");
        }
    }
}
