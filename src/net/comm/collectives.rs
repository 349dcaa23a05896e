//! Collectives: what all ranks of a job do together. All of them must make the same calls in the same order.
//!
//! Within a pack the ranks meet, and the last to come acts for all ([`crate::net::meeting`]). Barrier, broadcast, reduce and
//! all-reduce are computed in the switch: each pack uploads once and downloads once ([`crate::net::collective`]). The
//! others are messages between packs, one for each pair that has something to say, in a group of their own so that
//! the program's tags are its own.

use super::{Comm, CommError};
use crate::net::collective::{Exchange, Operation, Part, WINDOW};
use crate::net::element::{Accumulator, Element, Fold, FoldError, Value};
use crate::net::flow::Channel;
use crate::net::frame::{Cut, Header, SWITCH, kind};
use crate::net::meeting::{Brought, NoResult};
use crate::net::message::Span;
use crate::net::reassembly::Message;
use crate::net::shared::Shared;
use bytes::{Buf, BufMut, Bytes};
use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;
use tracing::warn;

/// The group of messages that collectives consist of.
pub const GROUP: u16 = 0xffff;

/// Which call ranks of a pack meet for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Call {
    /// A barrier.
    Barrier,
    /// A barrier of a pack.
    PackBarrier,
    /// A fold of so many elements, for a root or for all.
    Fold(Fold, Element, usize, Option<u32>),
    /// A broadcast from a root.
    Broadcast(u32),
    /// Messages between packs, with a root or without.
    Exchange(Exchange, Option<u32>),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Call::Barrier => f.write_str("barrier"),
            Call::PackBarrier => f.write_str("pack barrier"),
            Call::Fold(fold, element, count, None) => write!(f, "{fold} of {count} {element}"),
            Call::Fold(fold, element, count, Some(root)) => {
                write!(f, "{fold} of {count} {element} to rank {root}")
            }
            Call::Broadcast(root) => write!(f, "broadcast from rank {root}"),
            Call::Exchange(Exchange::Scatter, Some(root)) => {
                write!(f, "scatter from rank {root}")
            }
            Call::Exchange(exchange, Some(root)) => write!(f, "{exchange} to rank {root}"),
            Call::Exchange(exchange, None) => write!(f, "{exchange}"),
        }
    }
}

impl Comm {
    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// When ranks make different calls, the connection or the job ended, or the deadline passed.
    pub fn barrier(&mut self) -> Result<(), CommError> {
        self.together(Call::Barrier, Brought::new(), |shared, rank, all| {
            // The maximum of no numbers.
            let operation = Operation::Fold(Fold::Max, Element::U64);
            shared.combine_in_switch(rank, operation, None, Some(&[]))?;
            Ok(all)
        })
        .map(drop)
    }

    /// Returns when all ranks of this pack have called it. Others have nothing to do with it.
    ///
    /// # Errors
    /// As [`Comm::barrier`].
    pub fn pack_barrier(&mut self) -> Result<(), CommError> {
        let done = self.together(Call::PackBarrier, Brought::new(), |_, _, all| Ok(all));
        done.map(drop)
    }

    /// Every rank gets the root's bytes; what the others give is not looked at.
    ///
    /// # Errors
    /// As [`Comm::barrier`].
    pub fn broadcast(&mut self, root: u32, bytes: Bytes) -> Result<Bytes, CommError> {
        self.check_root(root)?;
        let mut results = self.together(
            Call::Broadcast(root),
            vec![bytes],
            |shared, rank, mut all| {
                let pack = shared.pack_of(root);
                let given = (pack == shared.number).then(|| {
                    let place = shared.span.place(root);
                    all[place].swap_remove(0)
                });
                let bytes = shared.broadcast(rank, root, given)?;
                Ok(vec![vec![bytes]; all.len()])
            },
        )?;
        Ok(results.swap_remove(0))
    }

    /// The element-wise combination of every rank's vector, for every rank. Sums of floats are made in the order of ranks
    /// within each pack, and then of packs: they repeat to the bit for the same packing.
    ///
    /// # Errors
    /// As [`Comm::barrier`], and when vectors differ in length or a sum of integers does not fit its type.
    pub fn all_reduce<T: Value>(&mut self, fold: Fold, values: &[T]) -> Result<Vec<T>, CommError> {
        let result = self.fold(fold, None, values)?;
        Ok(result.expect("every rank has the result"))
    }

    /// As [`Comm::all_reduce`], but only the root gets the result; the others get `None`.
    ///
    /// # Errors
    /// As [`Comm::all_reduce`].
    pub fn reduce<T: Value>(
        &mut self,
        root: u32,
        fold: Fold,
        values: &[T],
    ) -> Result<Option<Vec<T>>, CommError> {
        self.check_root(root)?;
        self.fold(fold, Some(root), values)
    }

    /// The root gets every rank's bytes, by rank; the others get `None`. Lengths may differ.
    ///
    /// # Errors
    /// As [`Comm::barrier`].
    pub fn gather(&mut self, root: u32, bytes: Bytes) -> Result<Option<Vec<Bytes>>, CommError> {
        self.check_root(root)?;
        let exchange = (Exchange::Gather, Some(root));
        let call = Call::Exchange(exchange.0, exchange.1);
        let results = self.together(call, vec![bytes], |shared, rank, all| {
            let pieces = shared.gather(rank, exchange, root, all)?;
            Ok(shared.only_for(root, pieces))
        })?;
        Ok((self.rank == root).then_some(results))
    }

    /// Every rank gets every rank's bytes, by rank. Lengths may differ.
    ///
    /// # Errors
    /// As [`Comm::barrier`].
    pub fn all_gather(&mut self, bytes: Bytes) -> Result<Vec<Bytes>, CommError> {
        let exchange = (Exchange::AllGather, None);
        let call = Call::Exchange(exchange.0, exchange.1);
        self.together(call, vec![bytes], |shared, rank, all| {
            let here = all.len();
            let pieces = shared.gather(rank, exchange, 0, all)?;
            let packed = (shared.number == 0).then(|| pack(&pieces));
            let packed = shared.broadcast(rank, 0, packed)?;
            Ok(vec![unpack(packed, shared.size as usize)?; here])
        })
    }

    /// Each rank gets the piece that the root has for it; lengths may differ. What the others give is not looked at.
    ///
    /// # Errors
    /// As [`Comm::barrier`], and when the root does not give one piece for each rank.
    pub fn scatter(&mut self, root: u32, pieces: Vec<Bytes>) -> Result<Bytes, CommError> {
        self.check_root(root)?;
        if self.rank == root {
            self.check_pieces(&pieces)?;
        }
        let exchange = (Exchange::Scatter, Some(root));
        let call = Call::Exchange(exchange.0, exchange.1);
        let mut results = self.together(call, pieces, |shared, rank, mut all| {
            let own = shared.span.first_rank as usize..shared.span.end() as usize;
            let pieces = if shared.span.contains(root) {
                let pieces = all.swap_remove(root as usize - own.start);
                let sends = shared
                    .others()
                    .map(|(number, span)| (number, pack(&pieces[range(span)])))
                    .collect();
                shared.exchange(rank, exchange, sends, 0)?;
                pieces[own].to_vec()
            } else {
                let mut received = shared.exchange(rank, exchange, Vec::new(), 1)?;
                let (_, packed) = received.pop().expect("one was asked for");
                unpack(packed, own.len())?
            };
            Ok(pieces.into_iter().map(|piece| vec![piece]).collect())
        })?;
        Ok(results.swap_remove(0))
    }

    /// Each rank gives one piece for each rank, and gets one from each, by rank. Lengths may differ.
    ///
    /// # Errors
    /// As [`Comm::barrier`], and when there are not as many pieces as ranks.
    pub fn all_to_all(&mut self, pieces: Vec<Bytes>) -> Result<Vec<Bytes>, CommError> {
        self.check_pieces(&pieces)?;
        let exchange = (Exchange::AllToAll, None);
        let call = Call::Exchange(exchange.0, exchange.1);
        self.together(call, pieces, |shared, rank, all| {
            let mut sends = Vec::new();
            for (number, span) in shared.others() {
                let theirs: Vec<Bytes> = all
                    .iter()
                    .flat_map(|mine| mine[range(span)].iter().cloned())
                    .collect();
                sends.push((number, pack(&theirs)));
            }
            let count = sends.len();
            let mut results = vec![vec![Bytes::new(); shared.size as usize]; all.len()];
            let mut give = |sources: Span, mut pieces: std::vec::IntoIter<Bytes>| {
                for source in range(sources) {
                    for result in &mut results {
                        result[source] = pieces.next().expect("they were counted");
                    }
                }
            };
            let own: Vec<Bytes> = all
                .iter()
                .flat_map(|mine| mine[range(shared.span)].iter().cloned())
                .collect();
            give(shared.span, own.into_iter());
            for (number, packed) in shared.exchange(rank, exchange, sends, count)? {
                let span = shared.packs[number].span;
                let pieces = unpack(packed, (span.ranks * shared.span.ranks) as usize)?;
                give(span, pieces.into_iter());
            }
            Ok(results)
        })
    }

    /// The root gets the combination of every rank's bytes by a function of the program's own, which must be associative;
    /// operands meet in the order of ranks. The others get `None`.
    ///
    /// # Errors
    /// As [`Comm::barrier`].
    pub fn reduce_with(
        &mut self,
        root: u32,
        bytes: Bytes,
        combine: impl Fn(Bytes, Bytes) -> Bytes,
    ) -> Result<Option<Bytes>, CommError> {
        self.check_root(root)?;
        let exchange = (Exchange::ReduceWith, Some(root));
        let call = Call::Exchange(exchange.0, exchange.1);
        let results = self.together(call, vec![bytes], |shared, rank, all| {
            let combined = shared.combine(rank, exchange, root, all, &combine)?;
            Ok(shared.only_for(root, combined.into_iter().collect()))
        })?;
        Ok(results.into_iter().next())
    }

    /// As [`Comm::reduce_with`], but every rank gets the result.
    ///
    /// # Errors
    /// As [`Comm::barrier`].
    pub fn all_reduce_with(
        &mut self,
        bytes: Bytes,
        combine: impl Fn(Bytes, Bytes) -> Bytes,
    ) -> Result<Bytes, CommError> {
        let exchange = (Exchange::AllReduceWith, None);
        let call = Call::Exchange(exchange.0, exchange.1);
        let mut results = self.together(call, vec![bytes], |shared, rank, all| {
            let here = all.len();
            let combined = shared.combine(rank, exchange, 0, all, &combine)?;
            let bytes = shared.broadcast(rank, 0, combined)?;
            Ok(vec![vec![bytes]; here])
        })?;
        Ok(results.swap_remove(0))
    }

    /// A typed fold: the result for those who get it.
    fn fold<T: Value>(
        &mut self,
        fold: Fold,
        root: Option<u32>,
        values: &[T],
    ) -> Result<Option<Vec<T>>, CommError> {
        self.check_fixed()?;
        let element = T::ELEMENT;
        let operation = Operation::Fold(fold, element);
        let mut result = Vec::new();
        if self.shared.span.ranks == 1 {
            // Straight from where the values lie, and to where the result will.
            result.reserve_exact(if root.is_none() { values.len() } else { 0 });
            let mine = T::le_bytes(values);
            let take = &mut |segment: &[u8]| typed(&mut result, segment);
            self.shared
                .segments_in_switch(self.rank, operation, root, Some(&mine), take)?;
            return Ok(root.is_none_or(|root| root == self.rank).then_some(result));
        }
        let what = Call::Fold(fold, element, values.len(), root);
        let mine = vec![T::le_bytes(values).into_owned().into()];
        let results = self.together(what, mine, |shared, rank, all| {
            let usage =
                |error: FoldError| CommError::Usage(format!("rank {rank}, {fold}: {error}"));
            let here = all.len();
            let mut pieces = all.into_iter().map(|mut one| one.swap_remove(0));
            let first = pieces.next().expect("a pack has ranks").into();
            let mut combined = Accumulator::new(fold, element, first).map_err(usage)?;
            for piece in pieces {
                combined.add(&piece).map_err(usage)?;
            }
            let mine = combined.finish().map_err(usage)?;
            let result: Bytes = shared
                .combine_in_switch(rank, operation, root, Some(&mine))?
                .into();
            Ok(match root {
                Some(root) => shared.only_for(root, vec![result]),
                None => vec![vec![result]; here],
            })
        })?;
        Ok(results.into_iter().next().map(|bytes| {
            typed(&mut result, &bytes);
            result
        }))
    }

    /// Meets the other ranks of the pack; the last of them acts for all.
    fn together(
        &mut self,
        what: Call,
        brought: Brought,
        act: impl FnOnce(&Shared, u32, Vec<Brought>) -> Result<Vec<Brought>, CommError>,
    ) -> Result<Brought, CommError> {
        if what != Call::PackBarrier {
            self.check_fixed()?;
        }
        let shared = &*self.shared;
        let rank = self.rank;
        if shared.span.ranks == 1 {
            return act(shared, rank, vec![brought]).map(|mut results| results.swap_remove(0));
        }
        let waits = || format!("the other ranks of its pack to call {what}");
        let outcome = shared.meeting.meet(
            self.place(),
            what,
            brought,
            shared.deadline,
            |all| act(shared, rank, all),
            || warn!("rank {rank} has waited 5 s for {}", waits()),
        );
        outcome.map_err(|error| match error {
            NoResult::Closed => shared.ended(),
            NoResult::Deadline => CommError::Deadline {
                rank,
                what: waits(),
            },
            NoResult::Failed(error) => error,
        })
    }

    /// Ranks of an elastic job come and go, so there is nobody to do something together with.
    fn check_fixed(&self) -> Result<(), CommError> {
        if !self.shared.elastic {
            return Ok(());
        }
        Err(CommError::Usage(format!(
            "rank {} of an elastic job made a collective call; only fixed jobs have collectives",
            self.rank
        )))
    }

    fn check_root(&self, root: u32) -> Result<(), CommError> {
        if root < self.shared.size {
            return Ok(());
        }
        Err(CommError::Usage(format!(
            "rank {} named rank {root} as the root in a job of {} ranks",
            self.rank, self.shared.size
        )))
    }

    fn check_pieces(&self, pieces: &[Bytes]) -> Result<(), CommError> {
        let (given, size) = (pieces.len(), self.shared.size);
        if given == size as usize {
            return Ok(());
        }
        Err(CommError::Usage(format!(
            "rank {} gave {given} pieces in a job of {size} ranks; it takes one for each",
            self.rank
        )))
    }
}

impl Shared {
    /// The other packs, by number.
    fn others(&self) -> impl Iterator<Item = (usize, Span)> {
        let spans = self.packs.iter().map(|pack| pack.span);
        spans
            .enumerate()
            .filter(|(number, _)| *number != self.number)
    }

    /// One result for each rank of this pack: `pieces` for the root, nothing for the others.
    fn only_for(&self, root: u32, pieces: Vec<Bytes>) -> Vec<Brought> {
        let mut results = vec![Vec::new(); self.span.ranks as usize];
        if self.span.contains(root) {
            results[self.span.place(root)] = pieces;
        }
        results
    }

    /// Everybody's bytes by rank, in the pack of the root; nothing elsewhere.
    fn gather(
        &self,
        rank: u32,
        exchange: (Exchange, Option<u32>),
        root: u32,
        all: Vec<Brought>,
    ) -> Result<Vec<Bytes>, CommError> {
        let mine: Vec<Bytes> = all.into_iter().flatten().collect();
        let to = self.pack_of(root);
        if to != self.number {
            self.exchange(rank, exchange, vec![(to, pack(&mine))], 0)?;
            return Ok(Vec::new());
        }
        let mut parts = vec![(self.number, mine)];
        for (number, packed) in self.exchange(rank, exchange, Vec::new(), self.packs.len() - 1)? {
            let ranks = self.packs[number].span.ranks as usize;
            parts.push((number, unpack(packed, ranks)?));
        }
        parts.sort_by_key(|(number, _)| *number);
        Ok(parts.into_iter().flat_map(|(_, pieces)| pieces).collect())
    }

    /// Combines in the order of ranks, first here and then in the pack of the root, which alone gets something.
    fn combine(
        &self,
        rank: u32,
        exchange: (Exchange, Option<u32>),
        root: u32,
        all: Vec<Brought>,
        combine: &impl Fn(Bytes, Bytes) -> Bytes,
    ) -> Result<Option<Bytes>, CommError> {
        let mine = all.into_iter().flatten().reduce(combine);
        let mine = mine.expect("a pack has ranks");
        let to = self.pack_of(root);
        if to != self.number {
            self.exchange(rank, exchange, vec![(to, mine)], 0)?;
            return Ok(None);
        }
        let mut parts = self.exchange(rank, exchange, Vec::new(), self.packs.len() - 1)?;
        parts.push((self.number, mine));
        parts.sort_by_key(|(number, _)| *number);
        Ok(parts.into_iter().map(|(_, part)| part).reduce(combine))
    }

    /// A broadcast through the switch: the root's pack gives the bytes.
    fn broadcast(&self, rank: u32, root: u32, given: Option<Bytes>) -> Result<Bytes, CommError> {
        let operation = Operation::Broadcast;
        let bytes = self.combine_in_switch(rank, operation, Some(root), given.as_deref())?;
        Ok(given.unwrap_or_else(|| bytes.into()))
    }

    /// One collective in the switch, and its whole result.
    fn combine_in_switch(
        &self,
        rank: u32,
        operation: Operation,
        root: Option<u32>,
        given: Option<&[u8]>,
    ) -> Result<Vec<u8>, CommError> {
        let mut result = Vec::new();
        let take = &mut |segment: &[u8]| result.extend_from_slice(segment);
        self.segments_in_switch(rank, operation, root, given, take)?;
        Ok(result)
    }

    /// One collective in the switch: uploads segment by segment, a window ahead of the answers, which `take` gets in
    /// order. `None` is given by those who only get a broadcast; they learn its length with the first answer.
    fn segments_in_switch(
        &self,
        rank: u32,
        operation: Operation,
        root: Option<u32>,
        given: Option<&[u8]>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), CommError> {
        if let ([_], Some(given)) = (&self.packs[..], given) {
            // The only pack has what all have given.
            if self.has_ended(0) {
                return Err(self.ended());
            }
            if Instant::now() >= self.deadline {
                let what = operation.to_string();
                return Err(CommError::Deadline { rank, what });
            }
            take(given);
            return Ok(());
        }
        let segments = |total: usize| total.div_ceil(self.segment).max(1);
        let what = || format!("all ranks to make the same collective call ({operation})");
        let mut count = given.map_or(1, |bytes| segments(bytes.len()));
        let mut due = VecDeque::new();
        let (mut sent, mut done) = (0, 0);
        while done < count {
            while sent < count && sent - done < WINDOW {
                let data = given.map_or(&[][..], |bytes| {
                    let end = bytes.len().min((sent + 1) * self.segment);
                    &bytes[sent * self.segment..end]
                });
                let call = self.answers.next_call(self.wires.len());
                let part = Part {
                    operation: operation.code(),
                    root,
                    shape: 0,
                    total: given.map_or(0, |bytes| bytes.len() as u64),
                    data,
                };
                self.contribute(rank, call, part, &what)?;
                due.push_back(call);
                sent += 1;
            }
            let (switch, sequence) = due.pop_front().expect("something is under way");
            let (total, bytes) = self.wait(
                (&self.answers.state, &self.answers.changed),
                rank,
                &what,
                &mut |state, _| state.take(switch, sequence),
            )?;
            if given.is_none() && done == 0 {
                count = segments(total as usize);
            }
            take(&bytes);
            done += 1;
        }
        Ok(())
    }

    /// Gives this pack's part of a segment to a switch.
    fn contribute(
        &self,
        rank: u32,
        (switch, sequence): (usize, u64),
        part: Part<'_>,
        what: &dyn Fn() -> String,
    ) -> Result<(), CommError> {
        let header = Header {
            kind: kind::CONTRIBUTE,
            group: part.shape,
            epoch: self.epoch,
            tag: part.operation,
            source: self.span.first_rank,
            destination: SWITCH,
            sequence,
            ..Header::default()
        };
        let cut = Cut::new(header, &part.prefix(), part.data);
        self.send_cut(&self.wires[switch], &cut, None, rank, what)
    }

    /// Tells a switch which exchange this pack makes, which compares it with what the other packs do. Nothing is waited for, unless this
    /// pack is far ahead of others.
    fn announce_exchange(
        &self,
        rank: u32,
        exchange: Exchange,
        root: Option<u32>,
        what: &dyn Fn() -> String,
    ) -> Result<(), CommError> {
        if self.packs.len() == 1 {
            return Ok(());
        }
        let (switch, sequence) = self.answers.next_call(self.wires.len());
        if let Some(earlier) = self.answers.announce(switch, sequence) {
            self.wait(
                (&self.answers.state, &self.answers.changed),
                rank,
                what,
                &mut |state, _| state.take(switch, earlier),
            )?;
        }
        let part = Part {
            operation: Operation::Exchange(exchange).code(),
            root,
            shape: 0,
            total: 0,
            data: &[],
        };
        self.contribute(rank, (switch, sequence), part, what)
    }

    /// Sends one message to each of some packs, and receives `count` from others in whatever order they come, by the number
    /// of the pack.
    fn exchange(
        &self,
        rank: u32,
        (exchange, root): (Exchange, Option<u32>),
        sends: Vec<(usize, Bytes)>,
        count: usize,
    ) -> Result<Vec<(usize, Bytes)>, CommError> {
        let what = || {
            let call = Call::Exchange(exchange, root);
            format!("the other packs to make the same collective call ({call})")
        };
        self.announce_exchange(rank, exchange, root, &what)?;
        let channel = Channel {
            group: GROUP,
            tag: exchange_tag(self.answers.next_exchange(), exchange, root),
        };
        // In the name of the packs' first ranks: all ranks of this pack are in this call.
        let sends = sends
            .into_iter()
            .map(|(number, bytes)| (self.packs[number].span.first_rank, bytes))
            .collect();
        let messages = self.send_and_receive(self.span.first_rank, channel, sends, count, &what)?;
        let by_pack = |message: Message| (self.pack_of(message.source), message.payload);
        Ok(messages.into_iter().map(by_pack).collect())
    }
}

/// The tag of an exchange's messages: its number, and above it the call and the root, so that no message of another call is taken for one
/// of this before the switch has compared the two.
fn exchange_tag(number: u32, exchange: Exchange, root: Option<u32>) -> u32 {
    let root = root.unwrap_or_default();
    (root & 0xfff) << 20 | exchange.number() << 16 | number & 0xffff
}

fn range(span: Span) -> std::ops::Range<usize> {
    span.first_rank as usize..span.end() as usize
}

/// Adds the elements of a segment.
fn typed<T: Value>(values: &mut Vec<T>, segment: &[u8]) {
    assert!(
        T::extend(values, segment),
        "segments are whole elements, and so is the result"
    );
}

/// Several pieces in one: each with its length ahead.
fn pack(pieces: &[Bytes]) -> Bytes {
    let length: usize = pieces.iter().map(|piece| 8 + piece.len()).sum();
    let mut packed = Vec::with_capacity(length);
    for piece in pieces {
        packed.put_u64_le(piece.len() as u64);
        packed.put_slice(piece);
    }
    packed.into()
}

/// The pieces that were packed, `count` of them.
fn unpack(mut packed: Bytes, count: usize) -> Result<Vec<Bytes>, CommError> {
    let mut pieces = Vec::with_capacity(count);
    while packed.len() >= 8 {
        let length = packed.get_u64_le();
        if length > packed.len() as u64 {
            break;
        }
        pieces.push(packed.split_to(length as usize));
    }
    if pieces.len() != count || !packed.is_empty() {
        return Err(CommError::Ended(format!(
            "a pack sent {} pieces to a collective call in which {count} were due; all ranks must run the same program",
            pieces.len()
        )));
    }
    Ok(pieces)
}
