//! A partitioned graph to the bytes of its parts.

use std::convert::Infallible;

use bytes::Bytes;
use rayon::prelude::*;

use super::part::{Head, Part, WrittenPart};
use super::partition::Members;
use super::{Graph, Partition};

/// Sources that are translated at a time: few enough to stay in a processor's caches.
const BUFFER: usize = 1 << 12;

/// Builds the parts of a graph, one at a time and in order; [`PartBuilder`] builds several side by side.
///
/// # Panics
///
/// When the partition is of another graph.
pub fn build_parts<'a>(
    graph: &'a Graph,
    partition: &'a Partition,
) -> impl ExactSizeIterator<Item = Part> + 'a {
    let builder = PartBuilder::new(graph, partition);
    (0..partition.parts as usize).map(move |part| builder.part(part as u32))
}

/// Builds the parts of a graph, so that a caller can write each and drop it.
pub struct PartBuilder<'a> {
    graph: &'a Graph,
    partition: &'a Partition,
    members: Members,
    /// The local index of each vertex in its part.
    local: Vec<u32>,
    /// The ghosts of each part (dense), ordered by owner, then ascending.
    ghosts: Vec<Vec<u32>>,
    /// The sum of the weights of each vertex's out-edges, if edges have weights.
    out_weights: Option<Vec<f64>>,
}

impl<'a> PartBuilder<'a> {
    /// Finds what each part reads of others. Takes memory for each vertex, and each value that is exchanged.
    ///
    /// # Panics
    ///
    /// When the partition is of another graph.
    pub fn new(graph: &'a Graph, partition: &'a Partition) -> PartBuilder<'a> {
        let vertices = graph.ids.len();
        assert_eq!(
            vertices,
            partition.of.len(),
            "the partition is of this graph"
        );
        let members = partition.members();
        let mut local = vec![0; vertices];
        for part in 0..partition.parts {
            for (index, &v) in members.of(part).iter().enumerate() {
                local[v as usize] = index as u32;
            }
        }
        let of = &partition.of;
        let ghosts_of = |part: u32| {
            let mut seen = vec![0u64; vertices / 64 + 1];
            let mut count = 0;
            for &v in members.of(part) {
                for &source in graph.sources_of(v as usize) {
                    let (word, bit) = (&mut seen[source as usize / 64], 1u64 << (source % 64));
                    if *word & bit == 0 && of[source as usize] != part {
                        *word |= bit;
                        count += 1;
                    }
                }
            }
            let mut ghosts = Vec::with_capacity(count);
            for (mut bits, base) in seen.into_iter().zip((0u32..).step_by(64)) {
                while bits != 0 {
                    ghosts.push(base + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
            // Stable: ascending within an owner.
            ghosts.sort_by_key(|&v| of[v as usize]);
            ghosts
        };
        let ghosts = (0..partition.parts).into_par_iter().map(ghosts_of);
        PartBuilder {
            ghosts: ghosts.collect(),
            out_weights: graph.out_weights(),
            graph,
            partition,
            members,
            local,
        }
    }

    /// Builds one of them.
    ///
    /// # Panics
    ///
    /// When there is no such part.
    pub fn part(&self, part: u32) -> Part {
        let mut bytes = Vec::new();
        let Ok(_) = self.write(part, |piece| -> Result<(), Infallible> {
            bytes.extend_from_slice(&piece);
            Ok(())
        });
        Part::decode(bytes, "a part").expect("it was just made")
    }

    /// Gives the bytes of one of them to `sink`, some at a time.
    ///
    /// # Errors
    ///
    /// The sink's; nothing more is given to it then.
    ///
    /// # Panics
    ///
    /// When there is no such part.
    pub fn write<E>(
        &self,
        part: u32,
        sink: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<WrittenPart, E> {
        let PartBuilder {
            graph,
            partition,
            local,
            ..
        } = self;
        let members = self.members.of(part);
        let ghosts = &self.ghosts[part as usize];

        // Where each vertex stands that this part reads.
        let mut places = vec![0u32; graph.ids.len()];
        for (place, &v) in (0u32..).zip(members.iter().chain(ghosts)) {
            places[v as usize] = place;
        }
        let rows = || members.iter().map(|&v| graph.sources_of(v as usize));
        let mut offsets = Vec::with_capacity(members.len() + 1);
        let mut edges = 0;
        offsets.push(0u64);
        for row in rows() {
            edges += row.len();
            offsets.push(edges as u64);
        }
        let mut ghost_offsets = Vec::with_capacity(partition.parts as usize + 1);
        let mut send_offsets = ghost_offsets.clone();
        let mut send_index: Vec<u32> = Vec::new();
        for other in 0..partition.parts {
            ghost_offsets.push(owned_by(ghosts, partition, other).start as u64);
            send_offsets.push(send_index.len() as u64);
            let read = &self.ghosts[other as usize];
            let read = &read[owned_by(read, partition, part)];
            send_index.extend(read.iter().map(|&v| local[v as usize]));
        }
        ghost_offsets.push(ghosts.len() as u64);
        send_offsets.push(send_index.len() as u64);

        let head = Head {
            part,
            parts: partition.parts,
            weighted: graph.in_weights.is_some(),
            counts: [members.len(), edges, ghosts.len(), send_index.len()],
        };
        let of_members =
            |of: &[u32]| -> Vec<u32> { members.iter().map(|&v| of[v as usize]).collect() };
        head.write(sink, |writer| {
            let ids = members.iter().map(|&v| graph.ids[v as usize]);
            writer.put(&ids.collect::<Vec<u64>>())?;
            writer.put(&of_members(&graph.out_degree))?;
            writer.put(&offsets)?;
            let mut buffer: Vec<u32> = Vec::new();
            for row in rows() {
                buffer.extend(row.iter().map(|&source| places[source as usize]));
                if buffer.len() >= BUFFER {
                    writer.put_some(&buffer)?;
                    buffer.clear();
                }
            }
            writer.put(&buffer)?;
            writer.put(&ghost_offsets)?;
            let ghost_index = ghosts.iter().map(|&v| local[v as usize]);
            writer.put(&ghost_index.collect::<Vec<u32>>())?;
            writer.put(&send_offsets)?;
            writer.put(&send_index)?;
            if let Some(weights) = &graph.in_weights {
                for &v in members {
                    let v = v as usize;
                    let row = graph.in_offsets[v] as usize..graph.in_offsets[v + 1] as usize;
                    writer.put_some(&weights[row])?;
                }
            }
            if let Some(out_weights) = &self.out_weights {
                let sums = members
                    .iter()
                    .chain(ghosts)
                    .map(|&v| out_weights[v as usize]);
                writer.put(&sums.collect::<Vec<f64>>())?;
            }
            Ok(())
        })
    }
}

/// Where the ghosts of one owner lie.
fn owned_by(ghosts: &[u32], partition: &Partition, owner: u32) -> std::ops::Range<usize> {
    let start = ghosts.partition_point(|&v| partition.of[v as usize] < owner);
    let count = ghosts[start..].partition_point(|&v| partition.of[v as usize] == owner);
    start..start + count
}
