//! A part of a graph, and its format: one object, laid out so that loading it is reading arrays.
//!
//! # Format, version 4
//!
//! All integers are little-endian. A header of 64 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `LSWPART\0` |
//! | 8..12 | u32 version, 4 |
//! | 12..16 | u32 number of this part, from 0 |
//! | 16..20 | u32 number of parts |
//! | 20..24 | u32 flags: 1 if edges have weights |
//! | 24..32 | u64 vertices |
//! | 32..40 | u64 edges: in-edges of these vertices |
//! | 40..48 | u64 ghosts: distinct vertices of other parts that these edges start at |
//! | 48..56 | u64 sends: pairs of a vertex here and another part that has it as a ghost |
//! | 56..60 | u32 0 |
//! | 60..64 | u32 CRC32C of header bytes 0..60 |
//!
//! Then these arrays, each padded with zeros to a multiple of 8 bytes; at the end a u32 CRC32C of all arrays, where it is
//! known when a part is written piece by piece, and a u32 0. A *local index* is a vertex's place in its part, whose
//! vertices are in ascending order of their ids.
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
//! | out_weights f64\[vertices + ghosts] | only with flag 1: the sum of the weights of the out-edges in the whole graph, of each vertex, then of each ghost |
//!
//! What part p sends to part q is, in order, what part q has as ghosts owned by p. A part has none of itself.

use std::convert::Infallible;

use bytes::{Buf, Bytes};
use zerocopy::{Immutable, IntoBytes};

use super::GraphError;
use super::array::Array;
use super::csr::VERTICES_MAX;
use super::partition::PARTS_MAX;

/// The first bytes of a part.
pub const PART_MAGIC: [u8; 8] = *b"LSWPART\0";

/// The version of the part format that is written and read.
pub const PART_VERSION: u32 = 4;

/// The flag of a part whose edges have weights.
const FLAG_WEIGHTS: u32 = 1;

// What lies in memory is what is written.
const _: () = assert!(cfg!(target_endian = "little"));

/// Bytes of a part's header.
pub const PART_HEADER_BYTES: usize = 64;

/// Bytes behind the arrays.
const TRAILER_BYTES: usize = 8;

/// Bytes that are written together, about: memory that comes back, and large enough for a system call.
const PIECE_BYTES: usize = 1 << 20;

/// A part of a graph. The fields are the format's arrays; see the module's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The number of this part, from 0.
    pub part: u32,
    /// The number of parts of the graph.
    pub parts: u32,
    /// The original id of each vertex, ascending.
    pub ids: Array<u64>,
    /// Out-edges of each vertex in the whole graph, repeats counted.
    pub out_degree: Array<u32>,
    /// Where each vertex's in-edges start in `sources`; one more entry than vertices.
    pub offsets: Array<u64>,
    /// For each in-edge, a local index, or the number of vertices plus a place among the ghosts.
    pub sources: Array<u32>,
    /// Where the ghosts of each owning part start; one more entry than parts.
    pub ghost_offsets: Array<u64>,
    /// The local index of each ghost at its owner.
    pub ghost_index: Array<u32>,
    /// Where the vertices that each other part reads start; one more entry than parts.
    pub send_offsets: Array<u64>,
    /// The local index of each vertex to send.
    pub send_index: Array<u32>,
    /// The weight of each in-edge, if edges have weights.
    pub weights: Option<Array<f64>>,
    /// The sum of the weights of the out-edges in the whole graph, of each vertex and then of each ghost; if edges have weights.
    pub out_weights: Option<Array<f64>>,
}

impl Part {
    /// Replaces the weight of each edge by its share of what leaves its source: weight over the sum of the weights of the source's
    /// out-edges, from 0 to 1. Vertices whose out-edges weigh nothing are then without out-edges. Does nothing without weights.
    ///
    /// # Errors
    ///
    /// [`GraphError::Weights`] for a negative weight, or weights of one vertex whose sum is above what an `f64` holds.
    pub fn weights_to_shares(&mut self) -> Result<(), GraphError> {
        let (Some(weights), Some(out_weights)) = (&self.weights, &self.out_weights) else {
            return Ok(());
        };
        let refused = |problem: &'static str| GraphError::Weights { problem };
        if weights.iter().any(|&weight| weight < 0.0) {
            return Err(refused("some are negative"));
        }
        if out_weights.iter().any(|sum| !sum.is_finite()) {
            return Err(refused("those of one vertex add up to more than 1.8e308"));
        }
        let share = |(&weight, &source): (&f64, &u32)| match out_weights[source as usize] {
            0.0 => 0.0,
            sum => weight / sum,
        };
        let shares: Vec<f64> = weights.iter().zip(&self.sources).map(share).collect();
        let degrees = self.out_degree.iter().zip(out_weights);
        let degrees = degrees.map(|(&degree, &sum)| if sum == 0.0 { 0 } else { degree });
        self.out_degree = degrees.collect::<Vec<u32>>().into();
        self.weights = Some(shares.into());
        Ok(())
    }

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
        let mut bytes = Vec::new();
        let sink = |piece: Bytes| -> Result<(), Infallible> {
            bytes.extend_from_slice(&piece);
            Ok(())
        };
        let Ok(_) = head.write(sink, |writer| {
            writer.put(&self.ids)?;
            writer.put(&self.out_degree)?;
            writer.put(&self.offsets)?;
            writer.put(&self.sources)?;
            writer.put(&self.ghost_offsets)?;
            writer.put(&self.ghost_index)?;
            writer.put(&self.send_offsets)?;
            writer.put(&self.send_index)?;
            writer.put(self.weights.as_deref().unwrap_or_default())?;
            writer.put(self.out_weights.as_deref().unwrap_or_default())
        });
        bytes
    }

    /// The part in these bytes, which messages call `name`. Its arrays stay where they are, if the bytes begin at a multiple of
    /// 8, as those of a file or an object do.
    ///
    /// # Errors
    ///
    /// [`GraphError::Part`] for anything that [`Part::encode`] cannot have made of a graph's part.
    pub fn decode(bytes: impl Into<Bytes>, name: &str) -> Result<Part, GraphError> {
        let bytes = bytes.into();
        decode(&bytes).map_err(|problem| GraphError::Part {
            name: name.to_owned(),
            problem,
        })
    }

    /// Everything that arithmetic and merging rely on. Checksums find accidents; this finds a wrong program.
    fn check(&self) -> Result<(), String> {
        let vertices = self.ids.len();
        let edges = self.sources.len();
        let out_degree = &self.out_degree[..];
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
            .filter_map(|&source| out_degree.get(source as usize));
        if local.into_iter().any(|&degree| degree == 0) {
            return Err("an edge starts at a vertex whose out-degree is 0".into());
        }
        check_offsets("ghost", &self.ghost_offsets, self.ghost_index.len())?;
        let finite = |weights: &Array<f64>| weights.iter().all(|weight| weight.is_finite());
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
                match out_degree.get(index as usize) {
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

/// A part that was written, as its manifest tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPart {
    /// The object's length.
    pub bytes: u64,
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
pub(super) struct Head {
    pub(super) part: u32,
    pub(super) parts: u32,
    pub(super) weighted: bool,
    /// Vertices, edges, ghosts, sends.
    pub(super) counts: [usize; 4],
}

impl Head {
    /// Gives the bytes of a part with this head to `sink`, piece by piece. `arrays` puts them, in order.
    ///
    /// # Errors
    ///
    /// The sink's.
    pub(super) fn write<S: FnMut(Bytes) -> Result<(), E>, E>(
        &self,
        sink: S,
        arrays: impl FnOnce(&mut Writer<S>) -> Result<(), E>,
    ) -> Result<WrittenPart, E> {
        let counts = self.counts.map(|count| count as u64);
        let flags = if self.weighted { FLAG_WEIGHTS } else { 0 };
        let length = encoded_length(self.parts, counts, flags);
        let length = length.expect("what is in memory has a length");
        let mut header = Vec::with_capacity(PART_HEADER_BYTES);
        header.extend(PART_MAGIC);
        for field in [PART_VERSION, self.part, self.parts, flags] {
            header.extend(field.to_le_bytes());
        }
        for count in counts {
            header.extend(count.to_le_bytes());
        }
        header.extend([0; 4]);
        header.extend(crc32c::crc32c(&header).to_le_bytes());

        let mut writer = Writer {
            crc32c: crc32c::crc32c(&header),
            length: 0,
            arrays_crc32c: 0,
            piece: Vec::with_capacity(PIECE_BYTES.min(length as usize)),
            sink,
        };
        writer.piece.extend_from_slice(&header);
        writer.length = writer.piece.len() as u64;
        arrays(&mut writer)?;
        let (crc32c, written) = writer.finish()?;
        assert_eq!(written, length, "the arrays are as long as the head says");
        let [vertices, edges, ghosts, _] = counts;
        Ok(WrittenPart {
            bytes: length,
            crc32c,
            vertices,
            edges,
            ghosts,
        })
    }
}

/// Writes the arrays of a part, in pieces.
pub(super) struct Writer<S> {
    /// Of the header.
    crc32c: u32,
    /// Of all arrays so far.
    arrays_crc32c: u32,
    /// Bytes so far.
    length: u64,
    piece: Vec<u8>,
    sink: S,
}

impl<S: FnMut(Bytes) -> Result<(), E>, E> Writer<S> {
    /// Puts a whole array.
    pub(super) fn put<T: IntoBytes + Immutable>(&mut self, values: &[T]) -> Result<(), E> {
        self.put_some(values)?;
        self.pad()
    }

    /// Puts some values of an array; [`pad`](Writer::pad) ends it.
    pub(super) fn put_some<T: IntoBytes + Immutable>(&mut self, values: &[T]) -> Result<(), E> {
        let mut bytes = values.as_bytes();
        self.arrays_crc32c = crc32c::crc32c_append(self.arrays_crc32c, bytes);
        self.length += bytes.len() as u64;
        loop {
            let room = PIECE_BYTES - self.piece.len();
            if bytes.len() < room {
                self.piece.extend_from_slice(bytes);
                return Ok(());
            }
            let (now, later) = bytes.split_at(room);
            self.piece.extend_from_slice(now);
            let full = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
            (self.sink)(full.into())?;
            bytes = later;
        }
    }

    /// Ends an array with zeros up to a multiple of 8 bytes.
    pub(super) fn pad(&mut self) -> Result<(), E> {
        let zeros = self.length.next_multiple_of(8) - self.length;
        self.put_some(&[0u8; 8][..zeros as usize])
    }

    /// The CRC32C of all bytes, and how many there are.
    fn finish(mut self) -> Result<(u32, u64), E> {
        let arrays = self.arrays_crc32c;
        let trailer = [arrays, 0];
        let length = self.length as usize - PART_HEADER_BYTES;
        let crc32c = crc32c::crc32c_combine(self.crc32c, arrays, length);
        self.put_some(&trailer)?;
        (self.sink)(self.piece.into())?;
        let crc32c = crc32c::crc32c_append(crc32c, trailer.as_bytes());
        Ok((crc32c, self.length))
    }
}

fn group<'a>(offsets: &[u64], entries: &'a [u32], of: u32) -> &'a [u32] {
    &entries[offsets[of as usize] as usize..offsets[of as usize + 1] as usize]
}

fn decode(bytes: &Bytes) -> Result<Part, String> {
    let Some((header, body)) = bytes.split_at_checked(PART_HEADER_BYTES) else {
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
    if word(56) != 0 {
        return Err("a reserved field of its header is not 0".into());
    }
    let (arrays, trailer) = body.split_at(body.len() - TRAILER_BYTES);
    if trailer != [crc32c::crc32c(arrays), 0].as_bytes() {
        return Err("its checksum is wrong".into());
    }

    // The counts add up to the bytes at hand, so each fits.
    let [vertices, edges, ghosts, sends] = counts.map(|count| count as usize);
    let mut arrays = bytes.slice_ref(arrays);
    let arrays = &mut arrays;
    let weighted = flags & FLAG_WEIGHTS != 0;
    let part = Part {
        part,
        parts,
        ids: Array::take(arrays, vertices),
        out_degree: take_u32s(arrays, vertices),
        offsets: Array::take(arrays, vertices + 1),
        sources: take_u32s(arrays, edges),
        ghost_offsets: Array::take(arrays, parts as usize + 1),
        ghost_index: take_u32s(arrays, ghosts),
        send_offsets: Array::take(arrays, parts as usize + 1),
        send_index: take_u32s(arrays, sends),
        weights: weighted.then(|| Array::take(arrays, edges)),
        out_weights: weighted.then(|| Array::take(arrays, vertices + ghosts)),
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
    let of_weights = match flags & FLAG_WEIGHTS {
        0 => Some(0),
        _ => u64s(edges.checked_add(vertices)?.checked_add(ghosts)?),
    };
    [
        u64s(vertices),
        u32s(vertices),
        u64s(vertices.checked_add(1)?),
        u32s(edges),
        per_part,
        u32s(ghosts),
        per_part,
        u32s(sends),
        of_weights,
    ]
    .into_iter()
    .try_fold((PART_HEADER_BYTES + TRAILER_BYTES) as u64, |sum, bytes| {
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

/// Takes an array off the front of bytes, and its padding.
fn take_u32s(bytes: &mut Bytes, count: usize) -> Array<u32> {
    let array = Array::take(bytes, count);
    bytes.advance(count % 2 * 4);
    array
}
