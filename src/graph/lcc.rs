//! Local clustering coefficients: of all pairs of a vertex's neighbours, the share that an edge joins (D. Watts and S.
//! Strogatz, "Collective dynamics of 'small-world' networks", 1998), as LDBC Graphalytics defines it for directed graphs: the
//! neighbours are those of both directions, and each of the d (d - 1) ordered pairs of them counts by itself.
//!
//! Ranks send each other the out-edges of boundary vertices, once. Vertices are named by a number that is the same on all
//! ranks: those of rank 0 come first.

use super::{GraphError, Reads, Shard};

/// What one rank needs.
pub struct Clustering<'a> {
    reads: &'a Reads,
    /// The number of each place's vertex among those of all ranks.
    numbers: Vec<u32>,
    /// Where the out-edges of each place start.
    offsets: Vec<u64>,
    /// The targets, ascending, each once, none the vertex itself.
    targets: Vec<u32>,
    /// Vertices of all ranks.
    all: u64,
}

/// The number of each place: `starts` has that of the first vertex of each rank, and the number of all at the end.
/// `local` has, for each rank that sends to this one, the local indexes there of what it sends.
fn numbers(
    reads: &Reads,
    me: usize,
    starts: &[u64],
    local: &[(usize, Vec<u32>)],
) -> Result<Vec<u32>, String> {
    let mut numbers = Vec::with_capacity(reads.vertices + reads.ghosts);
    numbers.extend((0..reads.vertices).map(|v| (starts[me] + v as u64) as u32));
    for (rank, range) in &reads.receives {
        let found = local.iter().find(|(from, _)| from == rank);
        let indexes = found.map_or(&[][..], |(_, indexes)| indexes);
        let vertices = starts[rank + 1] - starts[*rank];
        if indexes.len() != range.len() || indexes.iter().any(|&v| u64::from(v) >= vertices) {
            return Err(format!(
                "rank {rank} named other vertices than are read of it"
            ));
        }
        numbers.extend(
            indexes
                .iter()
                .map(|&v| (starts[*rank] + u64::from(v)) as u32),
        );
    }
    Ok(numbers)
}

/// The local indexes of what each rank is sent, as bytes: what tells it their numbers.
pub fn introductions(reads: &Reads) -> Vec<(usize, Vec<u8>)> {
    let message = |(to, vertices): &(usize, Vec<u32>)| {
        let bytes = vertices.iter().flat_map(|v| v.to_le_bytes()).collect();
        (*to, bytes)
    };
    reads.sends.iter().map(message).collect()
}

impl<'a> Clustering<'a> {
    /// From what others have introduced ([`introductions`]), by rank. `reads` is along both directions, or along in-edges
    /// where the graph is symmetric; `starts` has the number of the first vertex of each rank, and all.
    ///
    /// # Errors
    ///
    /// [`GraphError::Shard`] when the introductions do not fit, [`GraphError::TooManyVertices`].
    pub fn new(
        shard: &Shard,
        reads: &'a Reads,
        starts: &[u64],
        introduced: &[(usize, impl AsRef<[u8]>)],
    ) -> Result<Clustering<'a>, GraphError> {
        let all = starts[starts.len() - 1];
        if all > u64::from(u32::MAX) {
            let max = u32::MAX.into();
            return Err(GraphError::TooManyVertices { vertices: all, max });
        }
        let words = |bytes: &[u8]| {
            let words = bytes.as_chunks::<4>().0.iter();
            words.map(|&word| u32::from_le_bytes(word)).collect()
        };
        let local: Vec<(usize, Vec<u32>)> = introduced
            .iter()
            .map(|(rank, bytes)| (*rank, words(bytes.as_ref())))
            .collect();
        let numbers = numbers(reads, shard.member, starts, &local)
            .map_err(|problem| GraphError::Shard { problem })?;
        Ok(Clustering {
            reads,
            numbers,
            offsets: vec![0],
            targets: Vec::new(),
            all,
        })
    }

    /// The out-edges of the rank's own vertices: those behind the in-edges in what each reads, or all where the graph is
    /// symmetric.
    pub fn own_edges(&mut self, shard: &Shard, symmetric: bool) {
        for v in 0..self.reads.vertices {
            let mut range = self.reads.of(v);
            if !symmetric {
                range.start += (shard.offsets[v + 1] - shard.offsets[v]) as usize;
            }
            let row = self.reads.places[range].iter();
            let mut row: Vec<u32> = row.map(|&place| self.numbers[place as usize]).collect();
            self.push_row(v, &mut row);
        }
    }

    /// The out-edges of what each rank is sent: for each vertex their number, and their targets.
    pub fn outgoing(&self) -> Vec<(usize, Vec<u8>)> {
        let message = |(to, vertices): &(usize, Vec<u32>)| {
            let mut bytes = Vec::new();
            for &v in vertices {
                let row = self.row(v as usize);
                bytes.extend((row.len() as u32).to_le_bytes());
                bytes.extend(row.iter().flat_map(|target| target.to_le_bytes()));
            }
            (*to, bytes)
        };
        self.reads.sends.iter().map(message).collect()
    }

    /// Takes what the ranks have sent, ascending.
    ///
    /// # Errors
    ///
    /// [`GraphError::Shard`] when it is not what is read here.
    pub fn incoming(&mut self, messages: &[(usize, impl AsRef<[u8]>)]) -> Result<(), GraphError> {
        for (rank, range) in &self.reads.receives {
            let refused = || GraphError::Shard {
                problem: format!("rank {rank} sent other edges than are read of it"),
            };
            let message = messages.iter().find(|(from, _)| from == rank);
            let (words, rest) = message.ok_or_else(refused)?.1.as_ref().as_chunks::<4>();
            let mut words = words.iter().map(|&word| u32::from_le_bytes(word));
            for ghost in range.clone() {
                let count = words.next().ok_or_else(refused)? as usize;
                if count > words.len() {
                    return Err(refused());
                }
                let mut row: Vec<u32> = words.by_ref().take(count).collect();
                if row.iter().any(|&target| u64::from(target) >= self.all) {
                    return Err(refused());
                }
                self.push_row(self.reads.vertices + ghost, &mut row);
            }
            if words.next().is_some() || !rest.is_empty() {
                return Err(refused());
            }
        }
        Ok(())
    }

    /// The coefficient of each vertex; 0 for fewer than two neighbours.
    pub fn coefficients(&self) -> Vec<f64> {
        // Who is a neighbour of the vertex looked at.
        let mut marked = vec![0u64; self.all as usize / 64 + 1];
        let bit = |number: u32| (number as usize / 64, 1u64 << (number % 64));
        let mut neighbours: Vec<(u32, u32)> = Vec::new();
        let mut coefficient = |v: usize| {
            neighbours.clear();
            let places = self.reads.places[self.reads.of(v)].iter();
            neighbours.extend(places.map(|&place| (self.numbers[place as usize], place)));
            neighbours.sort_unstable();
            neighbours.dedup_by_key(|neighbour| neighbour.0);
            neighbours.retain(|neighbour| neighbour.0 != self.numbers[v]);
            let degree = neighbours.len() as f64;
            if neighbours.len() < 2 {
                return 0.0;
            }
            for &(number, _) in &neighbours {
                let (word, bit) = bit(number);
                marked[word] |= bit;
            }
            let mut joined = 0u64;
            for &(_, place) in &neighbours {
                for &target in self.row(place as usize) {
                    let (word, bit) = bit(target);
                    joined += u64::from(marked[word] & bit != 0);
                }
            }
            for &(number, _) in &neighbours {
                marked[bit(number).0] = 0;
            }
            joined as f64 / (degree * (degree - 1.0))
        };
        (0..self.reads.vertices).map(&mut coefficient).collect()
    }

    fn row(&self, place: usize) -> &[u32] {
        &self.targets[self.offsets[place] as usize..self.offsets[place + 1] as usize]
    }

    fn push_row(&mut self, place: usize, row: &mut Vec<u32>) {
        row.sort_unstable();
        row.dedup();
        row.retain(|&target| target != self.numbers[place]);
        self.targets.extend_from_slice(row);
        self.offsets.push(self.targets.len() as u64);
    }
}
