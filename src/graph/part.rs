//! A part of a graph, and its format: one object, laid out so that loading it is reading arrays.
//!
//! # Format, version 2
//!
//! All integers are little-endian. A header of 64 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `LSWPART\0` |
//! | 8..12 | u32 version, 2 |
//! | 12..16 | u32 number of this part, from 0 |
//! | 16..20 | u32 number of parts |
//! | 20..24 | u32 flags: 1 if edges have weights |
//! | 24..32 | u64 vertices |
//! | 32..40 | u64 edges: in-edges of these vertices |
//! | 40..48 | u64 ghosts: distinct vertices of other parts that these edges start at |
//! | 48..56 | u64 sends: pairs of a vertex here and another part that has it as a ghost |
//! | 56..60 | u32 CRC32C of everything after the header |
//! | 60..64 | u32 CRC32C of header bytes 0..60 |
//!
//! Then these arrays, each padded with zeros to a multiple of 8 bytes, and nothing after them. A *local index* is a
//! vertex's place in its part, whose vertices are in ascending order of their ids.
//!
//! | array | meaning |
//! |---|---|
//! | ids u64\[vertices] | original ids, ascending |
//! | out_degree u32\[vertices] | out-edges in the whole graph, repeats counted |
//! | offsets u64\[vertices + 1] | where each vertex's in-edges start in `sources` |
//! | sources u32\[edges] | below `vertices`: a local index; otherwise `vertices` + a place among the ghosts. In the whole graph's order of ids for each vertex |
//! | ghost_offsets u64\[parts + 1] | where the ghosts of each owning part start |
//! | ghost_index u32\[ghosts] | local index at the owner, ascending for each owner |
//! | send_offsets u64\[parts + 1] | where the vertices that each other part reads start |
//! | send_index u32\[sends] | local index here, ascending for each reader |
//! | weights f64\[edges] | only with flag 1: the weight of each in-edge, in the order of `sources` |
//!
//! What part p sends to part q is, in order, what part q has as ghosts owned by p. A part has none of itself.

use rayon::prelude::*;
use zerocopy::{Immutable, IntoBytes};

use super::GraphError;
use super::csr::VERTICES_MAX;
use super::partition::{Members, PARTS_MAX};
use super::{Graph, Partition};

/// The first bytes of a part.
pub const PART_MAGIC: [u8; 8] = *b"LSWPART\0";

/// The version of the part format that is written and read.
pub const PART_VERSION: u32 = 2;

/// The flag of a part whose edges have weights.
const FLAG_WEIGHTS: u32 = 1;

// What lies in memory is what is written.
const _: () = assert!(cfg!(target_endian = "little"));

/// Bytes of a part's header.
pub const PART_HEADER_BYTES: usize = 64;

/// A part of a graph. The fields are the format's arrays; see the module's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The number of this part, from 0.
    pub part: u32,
    /// The number of parts of the graph.
    pub parts: u32,
    /// The original id of each vertex, ascending.
    pub ids: Vec<u64>,
    /// Out-edges of each vertex in the whole graph, repeats counted.
    pub out_degree: Vec<u32>,
    /// Where each vertex's in-edges start in `sources`; one more entry than vertices.
    pub offsets: Vec<u64>,
    /// For each in-edge, a local index, or the number of vertices plus a place among the ghosts.
    pub sources: Vec<u32>,
    /// Where the ghosts of each owning part start; one more entry than parts.
    pub ghost_offsets: Vec<u64>,
    /// The local index of each ghost at its owner.
    pub ghost_index: Vec<u32>,
    /// Where the vertices that each other part reads start; one more entry than parts.
    pub send_offsets: Vec<u64>,
    /// The local index of each vertex to send.
    pub send_index: Vec<u32>,
    /// The weight of each in-edge, if edges have weights.
    pub weights: Option<Vec<f64>>,
}

impl Part {
    /// The ghosts that `owner` owns, as local indexes there.
    ///
    /// # Panics
    ///
    /// When there is no such part.
    pub fn ghosts_of(&self, owner: u32) -> &[u32] {
        group(&self.ghost_offsets, &self.ghost_index, owner)
    }

    /// The vertices that `reader` reads, as local indexes here.
    ///
    /// # Panics
    ///
    /// When there is no such part.
    pub fn sends_to(&self, reader: u32) -> &[u32] {
        group(&self.send_offsets, &self.send_index, reader)
    }

    /// The part as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            part: self.part,
            parts: self.parts,
            weighted: self.weights.is_some(),
            counts: [
                self.ids.len(),
                self.sources.len(),
                self.ghost_index.len(),
                self.send_index.len(),
            ],
        };
        let encoded = head.encode(|bytes| {
            put(bytes, &self.ids);
            put(bytes, &self.out_degree);
            put(bytes, &self.offsets);
            put(bytes, &self.sources);
            put(bytes, &self.ghost_offsets);
            put(bytes, &self.ghost_index);
            put(bytes, &self.send_offsets);
            put(bytes, &self.send_index);
            put(bytes, self.weights.as_deref().unwrap_or_default());
        });
        encoded.bytes
    }

    /// The part in these bytes, which messages call `name`. Takes memory in proportion to the bytes given, whatever
    /// they claim.
    ///
    /// # Errors
    ///
    /// [`GraphError::Part`] for anything that [`Part::encode`] cannot have made of a graph's part.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Part, GraphError> {
        decode(bytes).map_err(|problem| GraphError::Part {
            name: name.to_owned(),
            problem,
        })
    }

    /// Everything that arithmetic and merging rely on. Checksums find accidents; this finds a wrong program.
    fn check(&self) -> Result<(), String> {
        let vertices = self.ids.len();
        let edges = self.sources.len();
        let reachable = vertices as u64 + self.ghost_index.len() as u64;
        if reachable > VERTICES_MAX {
            return Err(format!(
                "it claims {reachable} vertices and ghosts, above {VERTICES_MAX}"
            ));
        }
        if !self.ids.is_sorted_by(|a, b| a < b) {
            return Err("its ids are not ascending".into());
        }
        check_offsets("edge", &self.offsets, edges)?;
        if let Some(source) = self
            .sources
            .iter()
            .find(|&&source| u64::from(source) >= reachable)
        {
            return Err(format!(
                "an edge starts at {source}, and there are {reachable} places"
            ));
        }
        let local = self
            .sources
            .iter()
            .filter_map(|&source| self.out_degree.get(source as usize));
        if local.into_iter().any(|&degree| degree == 0) {
            return Err("an edge starts at a vertex whose out-degree is 0".into());
        }
        check_offsets("ghost", &self.ghost_offsets, self.ghost_index.len())?;
        let finite = |weights: &Vec<f64>| weights.iter().all(|weight| weight.is_finite());
        if !self.weights.iter().all(finite) {
            return Err("an edge's weight is no finite number".into());
        }
        check_offsets("send", &self.send_offsets, self.send_index.len())?;
        for other in 0..self.parts {
            let (ghosts, sends) = (self.ghosts_of(other), self.sends_to(other));
            if other == self.part && !(ghosts.is_empty() && sends.is_empty()) {
                return Err("it exchanges values with itself".into());
            }
            if !ghosts.is_sorted_by(|a, b| a < b) || !sends.is_sorted_by(|a, b| a < b) {
                return Err(format!(
                    "the values exchanged with part {other} are not ascending"
                ));
            }
            for &index in sends {
                match self.out_degree.get(index as usize) {
                    None => return Err(format!("it sends vertex {index}, and has {vertices}")),
                    Some(0) => {
                        return Err(format!("it sends vertex {index}, whose out-degree is 0"));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// A part as bytes, and what its manifest says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPart {
    /// The object.
    pub bytes: Vec<u8>,
    /// CRC32C of the object.
    pub crc32c: u32,
    /// Vertices of the part.
    pub vertices: u64,
    /// In-edges of the part.
    pub edges: u64,
    /// Values that it receives from other parts.
    pub ghosts: u64,
}

/// What a header says.
struct Head {
    part: u32,
    parts: u32,
    weighted: bool,
    /// Vertices, edges, ghosts, sends.
    counts: [usize; 4],
}

impl Head {
    /// The bytes of a part with this head, whose arrays `fill` appends.
    fn encode(&self, fill: impl FnOnce(&mut Vec<u8>)) -> EncodedPart {
        let counts = self.counts.map(|count| count as u64);
        let flags = if self.weighted { FLAG_WEIGHTS } else { 0 };
        let length = encoded_length(self.parts, counts, flags);
        let length = length.expect("what is in memory has a length") as usize;
        let mut bytes = Vec::with_capacity(length);
        bytes.resize(PART_HEADER_BYTES, 0);
        fill(&mut bytes);
        assert_eq!(
            bytes.len(),
            length,
            "the arrays are as long as the head says"
        );

        let body = crc32c::crc32c(&bytes[PART_HEADER_BYTES..]);
        let mut header = Vec::with_capacity(PART_HEADER_BYTES);
        header.extend(PART_MAGIC);
        for field in [PART_VERSION, self.part, self.parts, flags] {
            header.extend(field.to_le_bytes());
        }
        for count in counts {
            header.extend(count.to_le_bytes());
        }
        header.extend(body.to_le_bytes());
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        bytes[..PART_HEADER_BYTES].copy_from_slice(&header);
        let [vertices, edges, ghosts, _] = counts;
        EncodedPart {
            crc32c: crc32c::crc32c_combine(
                crc32c::crc32c(&header),
                body,
                length - PART_HEADER_BYTES,
            ),
            bytes,
            vertices,
            edges,
            ghosts,
        }
    }
}

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
        let encoded = self.encoded(part);
        Part::decode(&encoded.bytes, "a part").expect("it was just made")
    }

    /// Builds one of them as bytes, without having it in memory twice.
    ///
    /// # Panics
    ///
    /// When there is no such part.
    pub fn encoded(&self, part: u32) -> EncodedPart {
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
        head.encode(|bytes| {
            let ids = members.iter().map(|&v| graph.ids[v as usize]);
            put(bytes, &ids.collect::<Vec<u64>>());
            put(bytes, &of_members(&graph.out_degree));
            put(bytes, &offsets);
            let mut buffer: Vec<u32> = Vec::new();
            for row in rows() {
                buffer.clear();
                buffer.extend(row.iter().map(|&source| places[source as usize]));
                bytes.extend_from_slice(buffer.as_bytes());
            }
            pad(bytes);
            put(bytes, &ghost_offsets);
            let ghosts = ghosts.iter().map(|&v| local[v as usize]);
            put(bytes, &ghosts.collect::<Vec<u32>>());
            put(bytes, &send_offsets);
            put(bytes, &send_index);
            if let Some(weights) = &graph.in_weights {
                for &v in members {
                    let v = v as usize;
                    let row = graph.in_offsets[v] as usize..graph.in_offsets[v + 1] as usize;
                    bytes.extend_from_slice(weights[row].as_bytes());
                }
            }
        })
    }
}

/// Where the ghosts of one owner lie.
fn owned_by(ghosts: &[u32], partition: &Partition, owner: u32) -> std::ops::Range<usize> {
    let start = ghosts.partition_point(|&v| partition.of[v as usize] < owner);
    let count = ghosts[start..].partition_point(|&v| partition.of[v as usize] == owner);
    start..start + count
}

fn group<'a>(offsets: &[u64], entries: &'a [u32], of: u32) -> &'a [u32] {
    &entries[offsets[of as usize] as usize..offsets[of as usize + 1] as usize]
}

fn decode(bytes: &[u8]) -> Result<Part, String> {
    let Some((header, mut body)) = bytes.split_at_checked(PART_HEADER_BYTES) else {
        return Err(format!("it has {} bytes, fewer than a header", bytes.len()));
    };
    if header[..8] != PART_MAGIC {
        return Err("it does not start as a part does".into());
    }
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if crc32c::crc32c(&header[..60]) != word(60) {
        return Err("its header's checksum is wrong".into());
    }
    let [version, part, parts, flags] = [8, 12, 16, 20].map(word);
    if version != PART_VERSION {
        return Err(format!(
            "its format is version {version}, and this lswitch reads version {PART_VERSION}"
        ));
    }
    if flags & !FLAG_WEIGHTS != 0 {
        return Err(format!(
            "it has flags {flags:#x} that this lswitch does not know"
        ));
    }
    if parts > PARTS_MAX || part >= parts {
        return Err(format!("it is part {part} of {parts}"));
    }
    let counts = [24, 32, 40, 48].map(long);
    if encoded_length(parts, counts, flags) != Some(bytes.len() as u64) {
        let length = bytes.len();
        return Err(format!(
            "it has {length} bytes, which is not what its counts need; it may be truncated"
        ));
    }
    if crc32c::crc32c(body) != word(56) {
        return Err("its checksum is wrong".into());
    }

    // The counts add up to the bytes at hand, so each fits, and what is allocated is bounded by them.
    let [vertices, edges, ghosts, sends] = counts.map(|count| count as usize);
    let part = Part {
        part,
        parts,
        ids: take_u64s(&mut body, vertices),
        out_degree: take_u32s(&mut body, vertices),
        offsets: take_u64s(&mut body, vertices + 1),
        sources: take_u32s(&mut body, edges),
        ghost_offsets: take_u64s(&mut body, parts as usize + 1),
        ghost_index: take_u32s(&mut body, ghosts),
        send_offsets: take_u64s(&mut body, parts as usize + 1),
        send_index: take_u32s(&mut body, sends),
        weights: (flags & FLAG_WEIGHTS != 0).then(|| {
            let bits = take_u64s(&mut body, edges);
            bits.into_iter().map(f64::from_bits).collect()
        }),
    };
    part.check()?;
    Ok(part)
}

/// The bytes of a part with these counts (vertices, edges, ghosts, sends), unless that overflows.
fn encoded_length(
    parts: u32,
    [vertices, edges, ghosts, sends]: [u64; 4],
    flags: u32,
) -> Option<u64> {
    let u64s = |count: u64| count.checked_mul(8);
    let u32s = |count: u64| count.checked_mul(4)?.checked_next_multiple_of(8);
    let per_part = u64s(u64::from(parts) + 1);
    [
        u64s(vertices),
        u32s(vertices),
        u64s(vertices.checked_add(1)?),
        u32s(edges),
        per_part,
        u32s(ghosts),
        per_part,
        u32s(sends),
        u64s(if flags & FLAG_WEIGHTS != 0 { edges } else { 0 }),
    ]
    .into_iter()
    .try_fold(PART_HEADER_BYTES as u64, |sum, bytes| {
        sum.checked_add(bytes?)
    })
}

fn check_offsets(what: &str, offsets: &[u64], entries: usize) -> Result<(), String> {
    let whole = offsets.first() == Some(&0) && offsets.last() == Some(&(entries as u64));
    if whole && offsets.is_sorted() {
        Ok(())
    } else {
        Err(format!(
            "its {what} offsets do not divide {entries} entries"
        ))
    }
}

/// Appends an array as it lies in memory, and zeros up to a multiple of 8 bytes.
fn put<T: IntoBytes + Immutable>(bytes: &mut Vec<u8>, values: &[T]) {
    bytes.extend_from_slice(values.as_bytes());
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

/// Takes an array off the front of bytes that are known to be long enough.
fn take_u64s(bytes: &mut &[u8], count: usize) -> Vec<u64> {
    let (array, rest) = bytes.split_at(count * 8);
    *bytes = rest;
    array
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&chunk| u64::from_le_bytes(chunk))
        .collect()
}

/// As [`take_u64s`], and drops the padding.
fn take_u32s(bytes: &mut &[u8], count: usize) -> Vec<u32> {
    let (array, rest) = bytes.split_at((count * 4).next_multiple_of(8));
    *bytes = rest;
    array[..count * 4]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&chunk| u32::from_le_bytes(chunk))
        .collect()
}
