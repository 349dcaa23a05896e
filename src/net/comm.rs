//! What a rank sees: its rank and the job's size, send, receive, and collectives.
//!
//! A message to a rank of the same pack is a pointer hand-over; any other goes to the switch. All calls block the
//! calling thread, which must not be one of the runtime's.

mod collectives;
mod state;
mod task;

pub use state::{Counter, Number, Popped, Queue, StateError, Vector};
pub use task::TaskComm;

pub use collectives::{Call, GROUP};

use crate::net::flow::{Channel, Wanted, cost};
use crate::net::frame::{Cut, Cutter, DRIVER, Frame, Header, MESSAGE_MAX, kind};
use crate::net::mailbox::Awaited;
use crate::net::message::Span;
use crate::net::outgoing::COPY_MAX;
use crate::net::reassembly::Message;
use crate::net::shared::{Shared, lock};
use crate::net::wire::{Batch, Reading, Wire};
use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;

/// Why a rank's call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommError {
    /// The connection or the job ended.
    #[error("{0}")]
    Ended(String),
    /// A wait lasted until the invocation's deadline.
    #[error("rank {rank} waited for {what} until its deadline")]
    Deadline {
        /// The rank that waited.
        rank: u32,
        /// For what, and whom.
        what: String,
    },
    /// The program made a call that cannot be served.
    #[error("{0}")]
    Usage(String),
}

/// An exchange that has begun; see [`Comm::begin_exchange`]. One that is dropped may have sent some of its messages.
#[must_use = "what was announced is sent by finish_exchange"]
pub struct Exchange {
    channel: Channel,
    /// Messages that wait for grants.
    announced: Vec<(Header, Bytes)>,
}

/// One rank's end of the wire.
pub struct Comm {
    shared: Arc<Shared>,
    rank: u32,
    sent_messages: u64,
    sent_bytes: u64,
    /// Requests of the shared state.
    requests: u64,
}

impl Drop for Comm {
    fn drop(&mut self) {
        // The rank is done: what it does not receive any more may not hold up those who sent it.
        let mut signals = Vec::new();
        self.shared.mailboxes[self.place()].finish(&mut signals);
        self.shared.signal(self.rank, &mut signals);
        self.shared.flush();
    }
}

impl Comm {
    pub(crate) fn new(shared: Arc<Shared>, rank: u32) -> Comm {
        Comm {
            shared,
            rank,
            sent_messages: 0,
            sent_bytes: 0,
            requests: 0,
        }
    }

    /// The rank's program has ended in order: ranks of its pack that wait for it in a collective call fail.
    pub(crate) fn end(&self) {
        self.shared.meeting.leave(self.rank);
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// All ranks of the job.
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// The ranks of this pack.
    pub fn pack(&self) -> Span {
        self.shared.span
    }

    /// The number of a rank's pack among [`packs`](Comm::packs).
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn pack_of(&self, rank: u32) -> usize {
        assert!(rank < self.size(), "a job of {} has no {rank}", self.size());
        self.shared.pack_of(rank)
    }

    /// The packs of the job, by rising rank.
    pub fn packs(&self) -> impl ExactSizeIterator<Item = Span> {
        self.shared.packs.iter().map(|pack| pack.span)
    }

    /// True if the connection or the job has ended, so that nothing more will come: for who works long without a call that would say so.
    pub fn has_ended(&self) -> bool {
        self.shared.mailboxes[self.place()].is_closed()
    }

    /// Messages and payload bytes that this rank sent through the switch.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent_messages, self.sent_bytes)
    }

    /// Sends a message to a rank, itself included. Returns when it is handed over: to the mailbox of a rank of this pack, or
    /// to the connection. While there is no room for it at its destination it waits, until the destination receives it. Order
    /// is kept for each source, destination and tag. A long message leaves at once; a short one when its rank waits for
    /// something, when many have gathered, with [`Comm::flush`], or by itself within 20 ms.
    ///
    /// # Errors
    /// When there is no such rank, the connection or the job ended, or the deadline passed.
    pub fn send(&mut self, to: u32, tag: u32, payload: Bytes) -> Result<(), CommError> {
        self.check(to, payload.len())?;
        let channel = Channel { group: 0, tag };
        if self.shared.span.contains(to) {
            return self.send_locally(to, channel, payload);
        }
        self.sent_messages += 1;
        self.sent_bytes += payload.len() as u64;
        self.shared.send(self.rank, to, channel, &payload)
    }

    /// Sends a message to the driver, which has no rank.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub fn send_to_driver(&mut self, tag: u32, payload: Bytes) -> Result<(), CommError> {
        self.sent_messages += 1;
        self.sent_bytes += payload.len() as u64;
        let channel = Channel { group: 0, tag };
        self.shared.send(self.rank, DRIVER, channel, &payload)
    }

    /// Sends what has been gathered.
    pub fn flush(&mut self) {
        self.shared.flush();
    }

    /// Receives the next message with this tag, from one rank or from any.
    ///
    /// # Errors
    /// When the connection or the job ended, or the deadline passed.
    pub fn receive(&mut self, from: Option<u32>, tag: u32) -> Result<Message, CommError> {
        let channel = Channel { group: 0, tag };
        let wanted = Wanted {
            source: from,
            channel,
        };
        let what = || match from {
            Some(source) => format!("a message with tag {tag} from rank {source}"),
            None => format!("a message with tag {tag} from any rank"),
        };
        self.shared.receive(self.rank, wanted, &what)
    }

    /// Receives the next message of the driver with this tag.
    ///
    /// # Errors
    /// As [`Comm::receive`].
    pub fn receive_from_driver(&mut self, tag: u32) -> Result<Message, CommError> {
        let channel = Channel { group: 0, tag };
        let wanted = Wanted {
            source: Some(DRIVER),
            channel,
        };
        let what = || format!("a message with tag {tag} from the driver");
        self.shared.receive(self.rank, wanted, &what)
    }

    /// Sends one message to each of some ranks and receives `count` with the same tag, in whatever order they come. Unlike
    /// sends that are followed by receives, it never waits to send before it receives: so ranks that all send before they
    /// receive cannot stop each other, however long the messages are.
    ///
    /// # Errors
    /// As [`Comm::send`] and [`Comm::receive`].
    pub fn exchange(
        &mut self,
        tag: u32,
        sends: Vec<(u32, Bytes)>,
        count: usize,
    ) -> Result<Vec<Message>, CommError> {
        let exchange = self.begin_exchange(tag, sends)?;
        self.finish_exchange(exchange, count)
    }

    /// Begins an exchange, as [`Comm::exchange`] without the messages that come, for who has something else to do while
    /// messages travel. It waits for nobody, but for the connection while that takes nothing more; messages for which there
    /// is no room yet are sent by [`Comm::further_exchange`].
    ///
    /// # Errors
    /// As [`Comm::send`].
    pub fn begin_exchange(
        &mut self,
        tag: u32,
        sends: Vec<(u32, Bytes)>,
    ) -> Result<Exchange, CommError> {
        let mut destinations: Vec<u32> = sends.iter().map(|(to, _)| *to).collect();
        destinations.sort_unstable();
        if let Some(twice) = destinations.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CommError::Usage(format!(
                "rank {} gave an exchange two messages for rank {}; it takes one for each",
                self.rank, twice[0]
            )));
        }
        for (to, payload) in &sends {
            self.check(*to, payload.len())?;
            if !self.shared.span.contains(*to) {
                self.sent_messages += 1;
                self.sent_bytes += payload.len() as u64;
            }
        }
        let channel = Channel { group: 0, tag };
        let announced = self.shared.send_all(self.rank, channel, sends)?;
        self.shared.flush();
        Ok(Exchange { channel, announced })
    }

    /// Sends what there is room for by now, and reads what has come. It waits as [`Comm::begin_exchange`] does.
    ///
    /// # Errors
    /// As [`Comm::send`].
    pub fn further_exchange(&mut self, exchange: &mut Exchange) -> Result<(), CommError> {
        self.shared.send_granted(self.rank, &mut exchange.announced)
    }

    /// Sends what is left of an exchange, and gives `count` messages with its tag.
    ///
    /// # Errors
    /// As [`Comm::exchange`].
    pub fn finish_exchange(
        &mut self,
        exchange: Exchange,
        count: usize,
    ) -> Result<Vec<Message>, CommError> {
        let tag = exchange.channel.tag;
        let what = || format!("{count} messages with tag {tag} of an exchange");
        self.shared
            .finish_exchange(self.rank, exchange, count, &what)
    }

    fn check(&self, to: u32, length: usize) -> Result<(), CommError> {
        if to >= self.shared.size {
            return Err(CommError::Usage(format!(
                "rank {} sent to rank {to} of a job of {} ranks",
                self.rank, self.shared.size
            )));
        }
        if self.shared.elastic && !self.shared.span.contains(to) {
            return Err(CommError::Usage(format!(
                "rank {} sent to rank {to} of an elastic job, whose workers do not know each other; they have the driver, \
                 counters, queues and vectors",
                self.rank
            )));
        }
        if length as u64 > MESSAGE_MAX {
            return Err(CommError::Usage(format!(
                "rank {} sent a message of {length} bytes to rank {to}; the most is {MESSAGE_MAX}",
                self.rank
            )));
        }
        Ok(())
    }

    fn place(&self) -> usize {
        self.shared.span.place(self.rank)
    }

    fn send_locally(&mut self, to: u32, channel: Channel, payload: Bytes) -> Result<(), CommError> {
        let shared = &self.shared;
        let place = shared.span.place(to);
        let mailbox = &shared.mailboxes[place];
        let mut message = Some(Message {
            source: self.rank,
            tag: channel.tag,
            payload,
        });
        if to == self.rank {
            let message = message.take().expect("it was made above");
            let kept = lock(&mailbox.state).put_local(message, channel);
            return match kept {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(CommError::Usage(format!(
                    "rank {to} sent itself more than there is room for without receiving it"
                ))),
                Err(_) => Err(shared.ended()),
            };
        }
        let rank = self.rank;
        let what = || format!("room for a message to rank {to} of its pack");
        shared.wait(
            (&mailbox.state, &mailbox.changed),
            rank,
            &what,
            &mut |state, _| {
                let given = message.take().expect("it is put back below");
                message = state.put_local(given, channel)?;
                if message.is_some() && state.hurry() && *state.sleeping() > 0 {
                    mailbox.changed.notify_all();
                }
                if message.is_none() && state.came(rank, channel) && *state.sleeping() > 0 {
                    mailbox.changed.notify_all();
                }
                Ok(message.is_none().then_some(()))
            },
        )
    }
}

impl Shared {
    /// Sends a message of a rank of this pack to a rank of another, or to the driver.
    pub(crate) fn send(
        &self,
        rank: u32,
        to: u32,
        channel: Channel,
        payload: &Bytes,
    ) -> Result<(), CommError> {
        let route = self.route(rank, to, channel);
        let (wire, share) = self.way_to(to);
        if !wire.spend(to, cost(payload.len()), share) {
            self.announce(route, payload.len());
            let mailbox = &self.mailboxes[self.span.place(rank)];
            let what = || {
                format!(
                    "rank {to} to receive a message of {} bytes with tag {}",
                    payload.len(),
                    channel.tag
                )
            };
            self.wait(
                (&mailbox.state, &mailbox.changed),
                rank,
                &what,
                &mut |state, _| Ok(state.take_grant(to, route.sequence)?.then_some(())),
            )?;
        }
        self.transmit(route, payload)
    }

    /// Sends one message to each of some ranks in the name of `rank`, and receives `count` for it.
    pub(crate) fn send_and_receive(
        &self,
        rank: u32,
        channel: Channel,
        sends: Vec<(u32, Bytes)>,
        count: usize,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<Message>, CommError> {
        let announced = self.send_all(rank, channel, sends)?;
        let exchange = Exchange { channel, announced };
        self.finish_exchange(rank, exchange, count, what)
    }

    /// Sends those of these messages whose grants have come, without waiting for any.
    fn send_granted(
        &self,
        rank: u32,
        announced: &mut Vec<(Header, Bytes)>,
    ) -> Result<(), CommError> {
        self.flush();
        if self.leads() {
            for wire in &self.wires {
                if let Some(mut incoming) = wire.try_incoming() {
                    self.pump(wire.number, &mut incoming, Reading::AtOnce);
                }
            }
        }
        let mailbox = &self.mailboxes[self.span.place(rank)];
        let mut at = 0;
        while let Some((route, _)) = announced.get(at) {
            let granted = lock(&mailbox.state).take_grant(route.destination, route.sequence);
            if granted.map_err(|_| self.ended())? {
                let (route, payload) = announced.swap_remove(at);
                self.transmit(route, &payload)?;
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Receives `count` messages for a rank. What is announced is sent when its grant comes, in between.
    fn finish_exchange(
        &self,
        rank: u32,
        exchange: Exchange,
        count: usize,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<Message>, CommError> {
        let Exchange {
            channel,
            mut announced,
        } = exchange;
        let mailbox = &self.mailboxes[self.span.place(rank)];
        let mut received = Vec::with_capacity(count);
        while received.len() < count || !announced.is_empty() {
            let granted = self.wait(
                (&mailbox.state, &mailbox.changed),
                rank,
                what,
                &mut |state, signals| {
                    for (at, (route, _)) in announced.iter().enumerate() {
                        if state.take_grant(route.destination, route.sequence)? {
                            // While it sends it takes nothing, so nothing more is to be granted for it.
                            state.stop_waiting();
                            return Ok(Some(Some(at)));
                        }
                    }
                    mailbox.take_all(state, channel, count, &mut received, signals)?;
                    if received.len() < count {
                        // All of them are needed, so one wake-up will do.
                        state.wait_for_all(count - received.len());
                        return Ok(None);
                    }
                    Ok(announced.is_empty().then_some(None))
                },
            )?;
            if let Some(at) = granted {
                let (route, payload) = announced.swap_remove(at);
                self.transmit(route, &payload)?;
            }
        }
        Ok(received)
    }

    /// Sends messages as far as there is credit, and gives those that were announced. Short ones go behind each other with
    /// one lock taken.
    fn send_all(
        &self,
        rank: u32,
        channel: Channel,
        sends: Vec<(u32, Bytes)>,
    ) -> Result<Vec<(Header, Bytes)>, CommError> {
        let (local, others): (Vec<_>, Vec<_>) = sends
            .into_iter()
            .partition(|(to, _)| self.span.contains(*to));
        let mut rest = Vec::new();
        let mut batch: Option<Batch<'_>> = None;
        // Of this rank alone, so nobody waits for it.
        let mut numbers = lock(&self.numbers[self.span.place(rank)]);
        for (to, payload) in others {
            let route = self.numbered(numbers.of(to), rank, to, channel);
            let (wire, share) = self.way_to(to);
            let batch = match &mut batch {
                Some(batch) if batch.is_of(wire) => batch,
                other => {
                    // Not two locks at once.
                    *other = None;
                    other.insert(wire.batch())
                }
            };
            if !batch.send(route, &payload, share) {
                rest.push((route, payload));
            }
        }
        drop((batch, numbers));
        for (to, payload) in local {
            let place = self.span.place(to);
            self.place_locally(place, rank, channel, payload)?;
        }
        let mut announced = Vec::new();
        for (route, payload) in rest {
            let (wire, share) = self.way_to(route.destination);
            if wire.spend(route.destination, cost(payload.len()), share) {
                self.transmit(route, &payload)?;
            } else {
                self.announce(route, payload.len());
                announced.push((route, payload));
            }
        }
        Ok(announced)
    }

    /// Hands a message to a rank of this pack that is about to receive it, whether there is room or not: its bytes lie in
    /// this process already, and nobody waits.
    fn place_locally(
        &self,
        place: usize,
        source: u32,
        channel: Channel,
        payload: Bytes,
    ) -> Result<(), CommError> {
        let mailbox = &self.mailboxes[place];
        let mut state = lock(&mailbox.state);
        let message = Message {
            source,
            tag: channel.tag,
            payload,
        };
        let wake = state.came(source, channel);
        if state.force_local(message, channel).is_err() {
            drop(state);
            return Err(self.ended());
        }
        if wake && *state.sleeping() > 0 {
            mailbox.changed.notify_all();
        }
        Ok(())
    }

    /// The header of the next message.
    pub(crate) fn route(&self, rank: u32, to: u32, channel: Channel) -> Header {
        let mut numbers = lock(&self.numbers[self.span.place(rank)]);
        self.numbered(numbers.of(to), rank, to, channel)
    }

    fn numbered(&self, number: &mut u64, rank: u32, to: u32, channel: Channel) -> Header {
        let sequence = *number;
        *number += 1;
        Header {
            flags: self.flags_to(to),
            group: channel.group,
            epoch: self.epoch,
            tag: channel.tag,
            source: rank,
            destination: to,
            sequence,
            ..Header::default()
        }
    }

    /// Asks whether a message may be sent.
    pub(crate) fn announce(&self, route: Header, length: usize) {
        let header = Header {
            kind: kind::ANNOUNCE,
            ..route
        };
        let body = (length as u64).to_le_bytes().to_vec();
        self.way_to(route.destination)
            .0
            .push(&Frame::new(header, body.into()));
    }

    /// Sends a message that may be sent.
    fn transmit(&self, route: Header, payload: &Bytes) -> Result<(), CommError> {
        let (wire, _) = self.way_to(route.destination);
        for cut in Cutter::new(route, payload) {
            self.send_cut(wire, &cut, Some(payload), route.source, &|| {
                format!("room to send to rank {}", route.destination)
            })?;
        }
        if payload.len() > COPY_MAX {
            // It is under way while the rank computes.
            wire.flush();
        }
        Ok(())
    }

    /// Sends one frame, and reads what comes while the socket takes none.
    fn send_cut(
        &self,
        wire: &Wire,
        cut: &Cut<'_>,
        owner: Option<&Bytes>,
        rank: u32,
        what: &dyn Fn() -> String,
    ) -> Result<(), CommError> {
        let sent = wire.send(cut, owner, self.deadline, || {
            if let Some(mut incoming) = wire.try_incoming() {
                self.pump(wire.number, &mut incoming, Reading::AtOnce);
            }
        });
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => Err(CommError::Deadline { rank, what: what() }),
            Err(_) => Err(self.ended()),
        }
    }

    /// Receives for a rank of this pack.
    pub(crate) fn receive(
        &self,
        rank: u32,
        wanted: Wanted,
        what: &dyn Fn() -> String,
    ) -> Result<Message, CommError> {
        let mailbox = &self.mailboxes[self.span.place(rank)];
        self.wait(
            (&mailbox.state, &mailbox.changed),
            rank,
            what,
            &mut |state, signals| mailbox.take(state, wanted, signals),
        )
    }
}
