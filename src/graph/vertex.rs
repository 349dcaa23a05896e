//! Programs that think like a vertex (G. Malewicz and others, "Pregel: A System for Large-Scale Graph Processing", SIGMOD
//! 2010), pulling: each vertex has a value, and computes the next one from those of its neighbours.
//!
//! A vertex is looked at again only when something that it reads has changed. Ranks exchange the values of boundary
//! vertices that have changed: all of them where most have, by their places where few have.

use std::sync::Arc;

use super::{GraphError, Reads};

/// What vertices hold: eight bytes on the wire.
pub trait Value: Copy + PartialEq + Send + 'static {
    /// As a word.
    fn to_word(self) -> u64;

    /// Of a word.
    fn of_word(word: u64) -> Self;
}

impl Value for u64 {
    fn to_word(self) -> u64 {
        self
    }

    fn of_word(word: u64) -> u64 {
        word
    }
}

impl Value for f64 {
    fn to_word(self) -> u64 {
        self.to_bits()
    }

    fn of_word(word: u64) -> f64 {
        f64::from_bits(word)
    }
}

/// Along which edges a vertex reads the values of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Its in-edges.
    In,
    /// Its in-edges and its out-edges.
    Both,
}

/// A program. The same on all ranks.
pub trait VertexProgram {
    /// What a vertex holds.
    type Value: Value;

    /// Whose values it reads.
    const ALONG: Along;

    /// Values only fall, and what they come to does not depend on the order in which vertices are looked at. Then a rank goes
    /// on by itself until nothing changes, before it exchanges.
    const MONOTONE: bool;

    /// What a vertex begins with, by its id.
    fn start(&self, id: u64) -> Self::Value;

    /// What a vertex holds next, of what it holds and the values and weights of its neighbours: one for each edge.
    fn next(
        &mut self,
        own: Self::Value,
        neighbours: impl Iterator<Item = (Self::Value, f64)>,
    ) -> Self::Value;

    /// How many supersteps are made; as many as change anything, if it does not say.
    fn supersteps(&self) -> Option<u64> {
        None
    }
}

/// A program on the vertices of one rank.
pub struct Superstep<P: VertexProgram> {
    program: P,
    reads: Arc<Reads>,
    /// Of each place.
    values: Vec<P::Value>,
    /// Vertices to be looked at, and whether each is among them.
    active: Vec<u32>,
    is_active: Vec<bool>,
    /// Vertices that have changed since the last exchange.
    changed: Vec<bool>,
}

impl<P: VertexProgram> Superstep<P> {
    /// At its start, on vertices with these ids.
    ///
    /// # Panics
    ///
    /// When there are not as many ids as vertices.
    pub fn new(program: P, reads: Arc<Reads>, ids: &[u64]) -> Superstep<P> {
        assert_eq!(ids.len(), reads.vertices, "each vertex has an id");
        let mut values: Vec<P::Value> = ids.iter().map(|&id| program.start(id)).collect();
        values.resize(reads.vertices + reads.ghosts, P::Value::of_word(0));
        Superstep {
            program,
            values,
            active: (0..reads.vertices as u32).collect(),
            is_active: vec![true; reads.vertices],
            changed: vec![true; reads.vertices],
            reads,
        }
    }

    /// The value of each vertex.
    pub fn values(&self) -> &[P::Value] {
        &self.values[..self.reads.vertices]
    }

    /// What to send to each rank that reads values of ours: those that have changed since the last call.
    pub fn outgoing(&mut self) -> Vec<(usize, Vec<u8>)> {
        let message = |(to, vertices): &(usize, Vec<u32>)| {
            let changed = || {
                let places = (0u32..).zip(vertices);
                places.filter(|(_, v)| self.changed[**v as usize])
            };
            let count = changed().count();
            let word = |v: u32| self.values[v as usize].to_word().to_le_bytes();
            let mut message = Vec::new();
            // A place takes half as much as a value; lengths tell the two forms apart.
            if 3 * count >= 2 * vertices.len() {
                message.reserve(8 * vertices.len());
                vertices.iter().for_each(|&v| message.extend(word(v)));
            } else if count > 0 {
                message.reserve(12 * count);
                for (place, &v) in changed() {
                    message.extend(place.to_le_bytes());
                    message.extend(word(v));
                }
            }
            (*to, message)
        };
        let messages = self.reads.sends.iter().map(message).collect();
        self.changed.fill(false);
        messages
    }

    /// Takes what another rank sent.
    ///
    /// # Errors
    ///
    /// [`GraphError::Values`] when nothing of that rank is read here, or it is not what its length says.
    pub fn incoming(&mut self, from: usize, message: &[u8]) -> Result<(), GraphError> {
        let reads = Arc::clone(&self.reads);
        let range = reads.receives.iter().find(|(rank, _)| *rank == from);
        let range = range.map_or(0..0, |(_, range)| range.clone());
        let refused = |problem: String| GraphError::Values {
            start: range.start,
            end: range.end,
            problem,
        };
        if message.len() == 8 * range.len() {
            let (words, _) = message.as_chunks::<8>();
            for (ghost, &word) in range.clone().zip(words) {
                self.take(ghost, u64::from_le_bytes(word));
            }
            return Ok(());
        }
        let (entries, rest) = message.as_chunks::<12>();
        if !rest.is_empty() {
            return Err(refused(format!("{} bytes came", message.len())));
        }
        for entry in entries {
            let (place, word) = entry.split_first_chunk::<4>().expect("twelve bytes");
            let place = u32::from_le_bytes(*place) as usize;
            if place >= range.len() {
                return Err(refused(format!("a value came for place {place}")));
            }
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            self.take(range.start + place, word);
        }
        Ok(())
    }

    fn take(&mut self, ghost: usize, word: u64) {
        let place = self.reads.vertices + ghost;
        let value = P::Value::of_word(word);
        if self.values[place] != value {
            self.values[place] = value;
            wake(&self.reads, place, &mut self.active, &mut self.is_active);
        }
    }

    /// Looks at all vertices that read something new. Gives how many have changed since the last exchange.
    pub fn compute(&mut self) -> u64 {
        let mut updates: Vec<(u32, P::Value)> = Vec::new();
        while !self.active.is_empty() {
            let reads = &self.reads;
            let (places, weights) = (&reads.places[..], reads.weights.as_deref());
            let values = &self.values;
            for &v in &self.active {
                self.is_active[v as usize] = false;
                let own = values[v as usize];
                let range = reads.of(v as usize);
                let places = places[range.clone()].iter();
                let value_at = |&place: &u32| values[place as usize];
                let new = match weights {
                    Some(weights) => {
                        let weights = weights[range].iter().copied();
                        self.program.next(own, places.map(value_at).zip(weights))
                    }
                    None => self
                        .program
                        .next(own, places.map(|place| (value_at(place), 1.0))),
                };
                if new != own {
                    updates.push((v, new));
                }
            }
            self.active.clear();
            for (v, new) in updates.drain(..) {
                self.values[v as usize] = new;
                self.changed[v as usize] = true;
                wake(
                    &self.reads,
                    v as usize,
                    &mut self.active,
                    &mut self.is_active,
                );
            }
            if !P::MONOTONE {
                break;
            }
        }
        self.changed.iter().filter(|changed| **changed).count() as u64
    }
}

fn wake(reads: &Reads, place: usize, active: &mut Vec<u32>, is_active: &mut [bool]) {
    for &reader in reads.readers(place) {
        if !std::mem::replace(&mut is_active[reader as usize], true) {
            active.push(reader);
        }
    }
}
