//! Messages that have arrived for one rank and wait to be received, by mark and then by source, in order of arrival; and
//! the room for them ([`Room`]).

use crate::net::flow::{Announced, Channel, Passage, Room, Signal, Wanted, cost};
use crate::net::planted::{Bug, planted};
use crate::net::reassembly::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

/// Messages that a queue which is kept for the next channel has room for.
const SPARE_MAX: usize = 256;

/// See the module.
pub struct Mailbox {
    /// What it holds.
    pub state: Mutex<State>,
    /// Something changed that the rank, or a rank of its pack that sends to it, may wait for.
    pub changed: Condvar,
}

/// What the lock of a mailbox guards.
pub struct State {
    by_channel: BTreeMap<Channel, VecDeque<(Message, Passage)>>,
    /// An empty queue with room, for the next channel.
    spare: VecDeque<(Message, Passage)>,
    room: Room,
    /// What the rank waits for, and how many of them are still to come before it is woken.
    wanted: Option<Wanted>,
    missing: usize,
    /// It may sleep although something is there for it.
    patient: bool,
    /// Grants for messages that this rank announced: destination and number.
    grants: Vec<(u32, u64)>,
    /// Replies of the switch to this rank's requests, by number.
    replies: Vec<(u64, Vec<u8>)>,
    /// Threads that sleep until something changes: the rank, and ranks of its pack that wait to send to it. To tell of a
    /// change costs a system call, so it is not done for nobody.
    sleeping: usize,
    /// The connection or the job ended: nothing arrives any more.
    closed: bool,
    /// The rank is done, and looks at nothing any more.
    finished: bool,
}

/// What threads wait for a change of.
pub trait Awaited {
    /// It changes by what comes from the switch alone, and while a rank waits for that no other of its pack waits for
    /// anything to come, since all are in the same collective: so this rank may read the socket itself.
    const BY_SWITCH: bool = false;

    /// How many sleep until it changes.
    fn sleeping(&mut self) -> &mut usize;
}

/// Nothing will come: the connection or the job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Mailbox {
    /// An empty mailbox with this room.
    pub fn new(room: Room) -> Mailbox {
        Mailbox {
            state: Mutex::new(State {
                by_channel: BTreeMap::new(),
                spare: VecDeque::new(),
                room,
                wanted: None,
                missing: 1,
                patient: false,
                grants: Vec::new(),
                replies: Vec::new(),
                sleeping: 0,
                closed: false,
                finished: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Adds messages that have arrived from other packs, by their pack's number, and wakes the rank if it waits for one.
    pub fn deliver(&self, messages: &mut Vec<Arrived>, signals: &mut Vec<Signal>) {
        let mut state = self.lock();
        let mut wake = false;
        for Arrived {
            message,
            channel,
            pack,
            sequence,
        } in messages.drain(..)
        {
            let passage = state.room.arrived(message.source, pack, sequence);
            if state.finished {
                state
                    .room
                    .taken(passage, cost(message.payload.len()), signals);
                continue;
            }
            wake |= state.came(message.source, channel);
            let queue = state.queue(channel);
            if planted(Bug::MessagesReversed) {
                queue.push_front((message, passage));
            } else {
                queue.push_back((message, passage));
            }
        }
        wake &= state.sleeping > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// A message for the rank is announced.
    pub fn announced(&self, message: Announced, signals: &mut Vec<Signal>) {
        let mut state = self.lock();
        let wanted = state.wanted;
        state.room.announced(message, wanted, signals);
        // Who sends has run out of credit: what is there must be taken, however much more the rank waits for.
        let wake = state.hurry() && state.sleeping > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// A message that the rank has announced may be sent.
    pub fn granted(&self, destination: u32, sequence: u64) {
        let mut state = self.lock();
        state.grants.push((destination, sequence));
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// The switch replied to a request of this rank.
    pub fn replied(&self, request: u64, body: Vec<u8>) {
        let mut state = self.lock();
        state.replies.push((request, body));
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// Takes the first message that is wanted, as [`State::take`] does, and wakes ranks of the pack that may send now.
    ///
    /// # Errors
    /// When none is there, nor will be.
    pub fn take(
        &self,
        state: &mut State,
        wanted: Wanted,
        signals: &mut Vec<Signal>,
    ) -> Result<Option<Message>, Closed> {
        let waited = state.waits_for(wanted);
        let message = state.take(wanted, signals)?;
        // There is room again, or what a rank of this pack waits to send is wanted now.
        if (message.is_some() || !waited) && state.sleeping > 0 {
            self.changed.notify_all();
        }
        Ok(message)
    }

    /// Takes messages of a channel, from whomever, as [`Mailbox::take`] does until `taken` holds `count`, or no more are
    /// there.
    ///
    /// # Errors
    /// When not so many are there, nor will be.
    pub fn take_all(
        &self,
        state: &mut State,
        channel: Channel,
        count: usize,
        taken: &mut Vec<Message>,
        signals: &mut Vec<Signal>,
    ) -> Result<(), Closed> {
        // Who is told of the last is told of all.
        state.take_there(
            channel,
            count.saturating_sub(taken.len() + 1),
            taken,
            signals,
        );
        if taken.len() < count {
            let source = None;
            taken.extend(self.take(state, Wanted { source, channel }, signals)?);
        }
        Ok(())
    }

    /// Nothing will arrive any more: whoever waits is woken.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        drop(state);
        self.changed.notify_all();
    }

    /// True after [`Mailbox::close`].
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The rank is done: what waits for it is dropped, and who waits to send to it may.
    pub fn finish(&self, signals: &mut Vec<Signal>) {
        let mut state = self.lock();
        state.finished = true;
        for (message, passage) in std::mem::take(&mut state.by_channel)
            .into_values()
            .flatten()
        {
            state
                .room
                .taken(passage, cost(message.payload.len()), signals);
        }
        if !planted(Bug::FinishedRankGrantsNobody) {
            state.room.close(signals);
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// A message that has arrived whole.
pub struct Arrived {
    /// The message.
    pub message: Message,
    /// Its group and tag.
    pub channel: Channel,
    /// The number of the pack it came from.
    pub pack: u32,
    /// Its number.
    pub sequence: u64,
}

impl State {
    /// Takes the first message that is wanted. A message that is there is given even after [`Mailbox::close`]. When none
    /// is there the rank is noted to wait for it.
    ///
    /// # Errors
    /// When none is there, nor will be.
    pub fn take(
        &mut self,
        wanted: Wanted,
        signals: &mut Vec<Signal>,
    ) -> Result<Option<Message>, Closed> {
        if let Some(queue) = self.by_channel.get_mut(&wanted.channel) {
            let at = match wanted.source {
                None => Some(0),
                Some(_) if planted(Bug::TakenSourceIgnored) => Some(0),
                Some(source) => queue
                    .iter()
                    .position(|(message, _)| message.source == source),
            };
            if let Some((message, passage)) = at.and_then(|at| queue.remove(at)) {
                if queue.is_empty() {
                    self.drop_queue(wanted.channel);
                }
                self.wanted = self.wanted.filter(|_| planted(Bug::WantedKept));
                self.room
                    .taken(passage, cost(message.payload.len()), signals);
                return Ok(Some(message));
            }
        }
        if self.closed {
            return Err(Closed);
        }
        if self.wanted != Some(wanted) {
            self.wanted = Some(wanted);
            self.room.waits(wanted, signals);
        }
        self.hurry();
        Ok(None)
    }

    /// Takes messages that are there, at most `most`, in order of arrival.
    fn take_there(
        &mut self,
        channel: Channel,
        most: usize,
        taken: &mut Vec<Message>,
        signals: &mut Vec<Signal>,
    ) {
        let Some(queue) = self.by_channel.get_mut(&channel) else {
            return;
        };
        for (message, passage) in queue.drain(..most.min(queue.len())) {
            self.wanted = None;
            self.room
                .taken(passage, cost(message.payload.len()), signals);
            taken.push(message);
        }
        if queue.is_empty() {
            self.drop_queue(channel);
        }
    }

    /// The queue of a channel, which may be a new one.
    fn queue(&mut self, channel: Channel) -> &mut VecDeque<(Message, Passage)> {
        let spare = &mut self.spare;
        self.by_channel
            .entry(channel)
            .or_insert_with(|| std::mem::take(spare))
    }

    /// An empty queue is dropped; its room is kept for the next, if it is not large.
    fn drop_queue(&mut self, channel: Channel) {
        self.spare = self
            .by_channel
            .remove(&channel)
            .filter(|queue| queue.capacity() <= SPARE_MAX)
            .unwrap_or_default();
    }

    /// The rank, which has just found nothing more, waits until so many have come, unless somebody waits for room.
    pub fn wait_for_all(&mut self, missing: usize) {
        if !self.room.has_announced() {
            self.missing = missing;
            self.patient = true;
        }
    }

    /// The rank is to take what is there, since somebody waits for room. True if it must be woken for that.
    pub fn hurry(&mut self) -> bool {
        self.missing = 1;
        std::mem::take(&mut self.patient)
    }

    /// Takes the grant of a message that this rank announced, if it has come.
    ///
    /// # Errors
    /// When none has come, nor will.
    pub fn take_grant(&mut self, destination: u32, sequence: u64) -> Result<bool, Closed> {
        let at = self
            .grants
            .iter()
            .position(|grant| *grant == (destination, sequence));
        match at {
            Some(at) => {
                self.grants.swap_remove(at);
                Ok(true)
            }
            None if self.closed => Err(Closed),
            None => Ok(false),
        }
    }

    /// Takes the reply to a request, if it has come.
    ///
    /// # Errors
    /// When none has come, nor will.
    pub fn take_reply(&mut self, request: u64) -> Result<Option<Vec<u8>>, Closed> {
        match self
            .replies
            .iter()
            .position(|(number, _)| *number == request)
        {
            Some(at) => Ok(Some(self.replies.swap_remove(at).1)),
            None if self.closed => Err(Closed),
            None => Ok(None),
        }
    }

    /// Puts in a message from a rank of the same pack. Gives it back if there is no room for now.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub fn put_local(
        &mut self,
        message: Message,
        channel: Channel,
    ) -> Result<Option<Message>, Closed> {
        if self.closed {
            return Err(Closed);
        }
        if self.finished {
            return Ok(None);
        }
        let matches = self.wants(message.source, channel);
        if !self.room.admit_local(cost(message.payload.len()), matches) {
            return Ok(Some(message));
        }
        self.queue(channel).push_back((message, Passage::Local));
        Ok(None)
    }

    /// Puts in a message from a rank of the same pack, whether there is room or not.
    ///
    /// # Errors
    /// When the connection or the job ended.
    pub fn force_local(&mut self, message: Message, channel: Channel) -> Result<(), Closed> {
        if self.closed {
            return Err(Closed);
        }
        if !self.finished {
            self.room.admit_local(cost(message.payload.len()), true);
            self.queue(channel).push_back((message, Passage::Local));
        }
        Ok(())
    }

    /// The rank does something else before it waits again.
    pub fn stop_waiting(&mut self) {
        self.wanted = None;
    }

    /// True if just this is what the rank waits for.
    pub fn waits_for(&self, wanted: Wanted) -> bool {
        self.wanted == Some(wanted)
    }

    /// Such a message has come. True if the rank waits for it, and for no more.
    pub fn came(&mut self, source: u32, channel: Channel) -> bool {
        let wanted = self.wants(source, channel);
        if wanted {
            self.missing = self.missing.saturating_sub(1);
        }
        wanted && self.missing == 0
    }

    /// True if the rank waits for such a message.
    pub fn wants(&self, source: u32, channel: Channel) -> bool {
        self.wanted
            .is_some_and(|wanted| wanted.matches(source, channel))
    }
}

impl Awaited for State {
    fn sleeping(&mut self) -> &mut usize {
        &mut self.sleeping
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const CHANNEL: Channel = Channel { group: 0, tag: 7 };

    fn arrived(source: u32, sequence: u64, tag: u32) -> Arrived {
        let payload = Bytes::from(vec![sequence as u8; 36]);
        Arrived {
            message: Message {
                source,
                tag,
                payload,
            },
            channel: Channel { group: 0, tag },
            pack: source,
            sequence,
        }
    }

    #[test]
    fn many_are_taken_as_one_by_one_in_order_and_with_their_credit() {
        // Each message costs 100 of a share of 500.
        let mailbox = Mailbox::new(Room::new(1_000, 2));
        let mut signals = Vec::new();
        let mut batch: Vec<Arrived> = (0..6).map(|number| arrived(1, number, 7)).collect();
        batch.push(arrived(0, 0, 8));
        mailbox.deliver(&mut batch, &mut signals);
        let mut state = mailbox.lock();
        let mut taken = Vec::new();
        for (count, left) in [(4, 4), (8, 6)] {
            mailbox
                .take_all(&mut state, CHANNEL, count, &mut taken, &mut signals)
                .expect("it is open");
            assert_eq!(taken.len(), left);
        }
        let numbers: Vec<u8> = taken.iter().map(|message| message.payload[0]).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        // Half a share at a time.
        let credit = Signal::Credit {
            pack: 1,
            bytes: 300,
        };
        assert_eq!(signals, [credit, credit]);
        let wanted = Wanted {
            source: None,
            channel: CHANNEL,
        };
        assert!(state.waits_for(wanted), "two are still missing");
        assert_eq!(state.by_channel.len(), 1, "the other tag's message stays");
        state.closed = true;
        let closed = mailbox.take_all(&mut state, CHANNEL, 8, &mut taken, &mut signals);
        assert_eq!(closed, Err(Closed));
    }
}
