//! What each vertex of a rank reads, and the values that ranks exchange for it: along in-edges, or along both directions.
//!
//! Parts hold in-edges. Who reads along out-edges as well needs to know the targets of its own, most of which are elsewhere:
//! the ranks tell each other once, when they load ([`mirrors`], [`Reads::both`]), so that one store serves all programs.
//!
//! A *place* is where a value stands: first the rank's own vertices, then the ghosts, by the rank that owns them.

use std::ops::Range;

use super::array::Array;
use super::rows;
use super::{GraphError, Shard};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Reads {
    /// Vertices of this rank.
    pub vertices: usize,
    /// Where the places that each vertex reads start in `places`; one more entry than vertices.
    pub offsets: Array<u64>,
    /// The places, by reader; in-edges before out-edges, repeats repeated.
    pub places: Array<u32>,
    /// The weight of the edge to each, if edges have weights.
    pub weights: Option<Array<f64>>,
    /// Values of other ranks that are read here.
    pub ghosts: usize,
    /// From each rank that sends anything, ascending: the places of its values among the ghosts.
    pub receives: Vec<(usize, Range<usize>)>,
    /// To each rank that reads anything, ascending: the vertices whose values to send, in order.
    pub sends: Vec<(usize, Vec<u32>)>,
    /// Where the readers of each place start in `readers`; one more entry than places.
    reader_offsets: Vec<u64>,
    /// The vertices that read each place.
    readers: Vec<u32>,
}

/// What a rank tells another of the edges between them: for each edge from a vertex of theirs to one of ours, the place of
/// the first among what they send us, and of the second among what we will send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Whom it is for.
    pub rank: usize,
    /// The vertices here that edges from there end at, ascending: what they will read.
    pub targets: Vec<u32>,
    /// As bytes.
    pub message: Vec<u8>,
}

/// What this rank has to tell those whose vertices it reads, before [`Reads::both`].
pub fn mirrors(shard: &Shard) -> Vec<Mirror> {
    let vertices = shard.vertices();
    let mut pairs: Vec<Vec<(u32, u32)>> = vec![Vec::new(); shard.receives.len()];
    // Ghosts are ordered by their owners.
    let owner_of = |ghost: usize| {
        let after = shard
            .receives
            .partition_point(|(_, range)| range.start <= ghost);
        after - 1
    };
    let owners: Vec<u32> = (0..shard.ghosts)
        .map(|ghost| owner_of(ghost) as u32)
        .collect();
    for v in 0..vertices {
        let row = shard.offsets[v] as usize..shard.offsets[v + 1] as usize;
        for &source in &shard.sources[row] {
            if let Some(ghost) = (source as usize).checked_sub(vertices) {
                let owner = owners[ghost] as usize;
                let place = ghost - shard.receives[owner].1.start;
                pairs[owner].push((place as u32, v as u32));
            }
        }
    }
    let ranks = shard.receives.iter().map(|(rank, _)| *rank);
    ranks
        .zip(pairs)
        .map(|(rank, pairs)| mirror(rank, pairs))
        .collect()
}

/// The mirror for a rank, of the edges from its vertices to ours, by ours.
fn mirror(rank: usize, pairs: Vec<(u32, u32)>) -> Mirror {
    let mut targets: Vec<u32> = pairs.iter().map(|pair| pair.1).collect();
    targets.dedup();
    let mut message = Vec::with_capacity(8 * pairs.len());
    let mut at = 0;
    for (place, v) in pairs {
        while targets[at] != v {
            at += 1;
        }
        message.extend(place.to_le_bytes());
        message.extend((at as u32).to_le_bytes());
    }
    Mirror {
        rank,
        targets,
        message,
    }
}

impl Reads {
    /// What is read along in-edges.
    pub fn along_in(shard: &Shard) -> Reads {
        Reads {
            vertices: shard.vertices(),
            offsets: shard.offsets.clone(),
            places: shard.sources.clone(),
            weights: shard.weights.clone(),
            ghosts: shard.ghosts,
            receives: shard.receives.clone(),
            sends: shard.sends.clone(),
            reader_offsets: Vec::new(),
            readers: Vec::new(),
        }
        .with_readers()
    }

    /// What is read along both directions: `told` is what this rank has told ([`mirrors`]), `heard` what it was told, by rank,
    /// ascending. An edge in both directions is read twice.
    ///
    /// # Errors
    ///
    /// [`GraphError::Shard`] when what was heard does not fit the shard.
    pub fn both<B: AsRef<[u8]>>(
        shard: &Shard,
        told: Vec<Mirror>,
        heard: &[(usize, B)],
    ) -> Result<Reads, GraphError> {
        both(shard, told, heard).map_err(|problem| GraphError::Shard { problem })
    }

    /// The places that a vertex reads.
    #[inline]
    pub fn of(&self, v: usize) -> Range<usize> {
        self.offsets[v] as usize..self.offsets[v + 1] as usize
    }

    /// The vertices that read a place.
    #[inline]
    pub fn readers(&self, place: usize) -> &[u32] {
        let range = self.reader_offsets[place] as usize..self.reader_offsets[place + 1] as usize;
        &self.readers[range]
    }

    fn with_readers(mut self) -> Reads {
        let places = self.vertices + self.ghosts;
        let transposed = rows::transposed(&self.offsets, &self.places, places);
        self.reader_offsets = transposed.offsets;
        self.readers = transposed.columns;
        self
    }
}

fn both<B: AsRef<[u8]>>(
    shard: &Shard,
    told: Vec<Mirror>,
    heard: &[(usize, B)],
) -> Result<Reads, String> {
    let vertices = shard.vertices();
    // Ghosts of a rank: first what is read along in-edges, then along out-edges.
    let mut ranks: Vec<usize> = shard.receives.iter().map(|(rank, _)| *rank).collect();
    ranks.extend(heard.iter().map(|(rank, _)| *rank));
    ranks.sort_unstable();
    ranks.dedup();
    let mut shift = vec![0; shard.ghosts];
    let mut out_edges: Vec<(u32, u32)> = Vec::new();
    let mut receives = Vec::with_capacity(ranks.len());
    let mut ghosts = 0;
    for rank in ranks {
        let start = ghosts;
        if let Some((_, range)) = shard.receives.iter().find(|(from, _)| *from == rank) {
            shift[range.clone()].fill((ghosts - range.start) as u32);
            ghosts += range.len();
        }
        if let Some((_, message)) = heard.iter().find(|(from, _)| *from == rank) {
            let refused = |what: &str| format!("rank {rank} told of its edges, {what}");
            let (pairs, rest) = message.as_ref().as_chunks::<8>();
            if !rest.is_empty() {
                return Err(refused("in half pairs"));
            }
            let sends = shard.sends.iter().find(|(to, _)| *to == rank);
            let sends = sends.map_or(&[][..], |(_, vertices)| vertices);
            let mut values = 0;
            for pair in pairs {
                let [a, b, c, d, e, f, g, h] = *pair;
                let place = u32::from_le_bytes([a, b, c, d]) as usize;
                let target = u32::from_le_bytes([e, f, g, h]) as usize;
                let v = sends.get(place);
                let v = v.ok_or_else(|| refused("and not only of vertices that it reads"))?;
                if target > values {
                    return Err(refused("out of order"));
                }
                values = values.max(target + 1);
                out_edges.push((*v, (vertices + ghosts + target) as u32));
            }
            ghosts += values;
        }
        receives.push((rank, start..ghosts));
    }
    let mut sends: Vec<(usize, Vec<u32>)> = shard.sends.clone();
    for mirror in told {
        match sends.iter_mut().find(|(to, _)| *to == mirror.rank) {
            Some((_, vertices)) => vertices.extend(mirror.targets),
            None => sends.push((mirror.rank, mirror.targets)),
        }
    }
    sends.sort_unstable_by_key(|(rank, _)| *rank);

    // Out-edges within the rank are its in-edges from the other end.
    let (in_offsets, sources) = (&shard.offsets[..], &shard.sources[..]);
    for v in 0..vertices {
        let row = in_offsets[v] as usize..in_offsets[v + 1] as usize;
        let own = sources[row]
            .iter()
            .filter(|&&source| (source as usize) < vertices);
        out_edges.extend(own.map(|&source| (source, v as u32)));
    }
    let mut offsets = Vec::with_capacity(vertices + 1);
    let mut counts = vec![0u64; vertices];
    for &(v, _) in &out_edges {
        counts[v as usize] += 1;
    }
    offsets.push(0);
    for (v, count) in counts.iter().enumerate() {
        let incoming = in_offsets[v + 1] - in_offsets[v];
        offsets.push(offsets[v] + incoming + count);
    }
    let mut places = vec![0; offsets[vertices] as usize];
    let mut next: Vec<usize> = Vec::with_capacity(vertices);
    for (bounds, &start) in in_offsets.windows(2).zip(&offsets) {
        let mut at = start as usize;
        for &source in &sources[bounds[0] as usize..bounds[1] as usize] {
            places[at] = match (source as usize).checked_sub(vertices) {
                Some(ghost) => source + shift[ghost],
                None => source,
            };
            at += 1;
        }
        next.push(at);
    }
    for (v, place) in out_edges {
        let at = &mut next[v as usize];
        places[*at] = place;
        *at += 1;
    }
    Ok(Reads {
        vertices,
        offsets: offsets.into(),
        places: places.into(),
        weights: None,
        ghosts,
        receives,
        sends,
        reader_offsets: Vec::new(),
        readers: Vec::new(),
    }
    .with_readers())
}
