//! Records on their way to the ranks whose ranges they are in.

use super::record::{Format, Splitters};
use super::run::Run;
use super::spill::Spill;
use crate::job::context::{BlockingStore, Context};
use crate::job::program::ProgramError;
use crate::net::codec::{self, REPORT_MAX};
use crate::net::comm::Exchange;
use bytes::{BufMut, Bytes};

/// The tag of the first round; each round has its own.
const TAG: u32 = 16;

/// The most that a rank sends in one round, in bytes, and the least. With more ranks a round is longer, so that messages
/// stay worth sending.
const ROUND_MAX: usize = 4 << 20;
const ROUND_MIN: usize = 128 << 10;
const ROUND_PER_RANK: usize = 64 << 10;

/// The least that is written to the store at once, in bytes, however little memory there is.
const RUN_MIN: u64 = 128 << 10;

/// What a worker takes for itself, besides records, about.
const OWN_MEMORY: u64 = 24 << 20;

/// A message begins with this: whether it is its sender's last.
const MORE: u8 = 0;
const LAST: u8 = 1;

/// The most bytes of all splitters.
const SPLITTERS_MAX: usize = 64 << 20;

/// Where a rank's records come from.
pub trait Source {
    /// The next whole records, or none at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    fn next(&mut self, context: &mut Context) -> Result<Option<&[u8]>, ProgramError>;
}

/// The ranges of the ranks, chosen from what each has seen.
///
/// # Errors
/// When the wire fails.
pub fn agree(context: &mut Context, keys: Vec<Vec<u8>>) -> Result<Splitters, ProgramError> {
    let keys = codec::encode::<REPORT_MAX>(&keys).map_err(ProgramError::new)?;
    let size = context.size() as usize;
    let gathered = context.comm().gather(0, keys.into())?;
    let mut chosen = Bytes::new();
    if let Some(gathered) = gathered {
        let mut all = Vec::new();
        for keys in gathered {
            let keys = codec::decode::<Vec<Vec<u8>>, REPORT_MAX>(&keys);
            all.extend(keys.map_err(ProgramError::new)?);
        }
        let splitters = Splitters::choose(all, size);
        let splitters = codec::encode::<SPLITTERS_MAX>(&splitters).map_err(ProgramError::new)?;
        chosen = splitters.into();
    }
    let chosen = context.comm().broadcast(0, chosen)?;
    codec::decode::<Splitters, SPLITTERS_MAX>(&chosen).map_err(ProgramError::new)
}

/// See the module.
pub struct Shuffle<'a> {
    format: Format,
    splitters: Splitters,
    own: usize,
    /// Those of this rank.
    run: Run,
    /// Of those, what did not fit into memory.
    spill: Spill<'a>,
    memory: usize,
    /// Those of the others, by rank.
    buckets: Vec<Vec<u8>>,
    /// Those that this rank has read.
    records: u64,
    bytes: u64,
}

impl<'a> Shuffle<'a> {
    /// Nothing has been read yet. What does not fit if the worker is to stay below `memory` bytes goes to the store, under names
    /// that begin with `prefix`.
    pub fn new(
        context: &Context,
        format: Format,
        splitters: Splitters,
        (store, prefix): (&'a BlockingStore, &str),
        memory: u64,
    ) -> Shuffle<'a> {
        // A rank of a run that was given up may still be at its own.
        let prefix = format!("{prefix}{}-{:05}-", context.job(), context.rank());
        Shuffle {
            format,
            splitters,
            own: context.rank() as usize,
            run: Run::new(format),
            spill: Spill::new(store, prefix, format),
            memory: memory.saturating_sub(OWN_MEMORY).max(memory / 4) as usize,
            buckets: vec![Vec::new(); context.size() as usize],
            records: 0,
            bytes: 0,
        }
    }

    /// Records that this rank has read, and their bytes.
    pub fn read(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// True if this rank has no records.
    pub fn is_empty(&self) -> bool {
        self.run.is_empty() && self.spill.is_empty()
    }

    /// Bytes that went to the store.
    pub fn spilled(&self) -> u64 {
        self.spill.bytes()
    }

    /// Gives this rank's records in their order.
    ///
    /// # Errors
    /// When the store fails, or `take` does.
    pub fn in_order(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), ProgramError>,
    ) -> Result<(), ProgramError> {
        if self.spill.is_empty() {
            self.run.sort();
            return self.run.each().try_for_each(take);
        }
        if !self.run.is_empty() {
            self.spill.add(&mut self.run)?;
        }
        self.run = Run::new(self.format);
        // What the run took may not be the system's again yet.
        self.spill.merge(self.memory as u64 / 4, &mut take)
    }

    /// Reads this rank's share and exchanges records with the others, in rounds: while one is under way the next is read.
    ///
    /// # Errors
    /// When records cannot be read, or the wire or the store fails.
    pub fn run(
        &mut self,
        context: &mut Context,
        source: &mut impl Source,
    ) -> Result<(), ProgramError> {
        let size = context.size() as usize;
        // One is read while another is under way and a third arrives.
        let longest = ROUND_MAX.max(ROUND_PER_RANK * size);
        let round_len = (self.memory / 32).clamp(ROUND_MIN, longest);
        let others: Vec<u32> = context.peers().collect();
        let mut active = vec![true; size];
        active[self.own] = false;
        let mut under_way: Option<(Exchange, usize)> = None;
        let mut finished = false;
        for round in 0.. {
            let mut over = finished;
            let mut filled = 0;
            while !over && filled < round_len {
                match source.next(context)? {
                    None => over = true,
                    Some(bytes) => filled += self.divide(bytes)?,
                }
                if let Some((exchange, _)) = &mut under_way {
                    context.comm().further_exchange(exchange)?;
                }
            }
            if let Some((exchange, count)) = under_way.take() {
                for message in context.comm().finish_exchange(exchange, count)? {
                    let (more, records) = message
                        .payload
                        .split_first()
                        .ok_or_else(|| ProgramError::new("a rank sent a round without a mark"))?;
                    active[message.source as usize] = *more == MORE;
                    self.take(records)?;
                }
            }
            let expected = active.iter().filter(|active| **active).count();
            if finished && expected == 0 {
                return Ok(());
            }
            let mut sends = Vec::new();
            if !finished {
                let mark = if over { LAST } else { MORE };
                for to in &others {
                    let bucket = &mut self.buckets[*to as usize];
                    let mut message = std::mem::take(bucket);
                    match message.first_mut() {
                        Some(first) => *first = mark,
                        None => message.push(mark),
                    }
                    sends.push((*to, Bytes::from(message)));
                }
                finished = over;
            }
            let exchange = context
                .comm()
                .begin_exchange(TAG.wrapping_add(round), sends)?;
            under_way = Some((exchange, expected));
        }
        unreachable!("rounds go on until all have finished")
    }

    /// Puts records where they belong; gives the bytes that go to others.
    fn divide(&mut self, bytes: &[u8]) -> Result<usize, ProgramError> {
        let mut sent = 0;
        for record in self.format.each(bytes) {
            self.records += 1;
            let rank = self.splitters.rank_of(self.format.group(record));
            if rank == self.own {
                self.keep(record)?;
                continue;
            }
            let bucket = &mut self.buckets[rank];
            if bucket.is_empty() {
                bucket.put_u8(MORE);
            }
            bucket.extend_from_slice(record);
            sent += record.len();
        }
        self.bytes += bytes.len() as u64;
        Ok(sent)
    }

    fn take(&mut self, records: &[u8]) -> Result<(), ProgramError> {
        if self.format.whole(records) != records.len() {
            return Err(ProgramError::new("a rank sent a part of a record"));
        }
        for record in self.format.each(records) {
            self.keep(record)?;
        }
        Ok(())
    }

    /// Keeps a record of this rank's range, and writes what there is to the store when memory is full.
    fn keep(&mut self, record: &[u8]) -> Result<(), ProgramError> {
        self.run.push(record);
        let full = self.run.has_grown() && self.run.memory() > self.memory / 2;
        if full && self.run.bytes() >= RUN_MIN {
            self.spill.add(&mut self.run)?;
        }
        Ok(())
    }
}
