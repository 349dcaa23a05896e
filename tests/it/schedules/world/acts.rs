//! What ranks and the driver do.

use super::*;

impl World {
    /// A rank goes on with its program, or does something.
    pub fn act(&mut self, id: usize, index: usize) {
        if self.peers[id].life != Life::Here {
            return;
        }
        self.go_on_sending(id, index);
        if self.peers[id].ranks[index].finished {
            return;
        }
        if self.draining && !self.programs {
            return self.receive_anything(id, index);
        }
        self.look(id, index);
        let rank = &mut self.peers[id].ranks[index];
        if self.programs {
            if !rank.pending.is_empty() || rank.wanted.is_some() {
                return;
            }
            match rank.script.pop_front() {
                None => self.finish(id, index),
                Some(Step::Send { to, tag, length }) => self.send(id, index, to, tag, length),
                Some(Step::Receive { from: source, tag }) => {
                    // Others may be able to go on since it waits.
                    self.moves += 1;
                    self.want(id, index, source, tag);
                }
            }
            return;
        }
        let (idle, quiet) = (rank.wanted.is_none(), rank.pending.is_empty());
        let (job, own) = (
            self.peers[id].job,
            self.peers[id].span.first_rank + index as u32,
        );
        match self.random.below(10) {
            0 if idle && quiet && self.random.one_in(6) => self.finish(id, index),
            1..=3 if idle => {
                let tag = self.random.below(TAGS as usize) as u32;
                let source = match self.random.one_in(2) {
                    true => None,
                    false => Some(self.other_rank(job, own)),
                };
                self.want(id, index, source, tag);
            }
            4.. => {
                let to = match self.random.one_in(12) {
                    true => DRIVER,
                    false => self.other_rank(job, own),
                };
                let rank = &self.peers[id].ranks[index];
                if rank.pending.iter().all(|pending| pending.to != to) {
                    let tag = self.random.below(TAGS as usize) as u32;
                    let length = self.length();
                    self.send(id, index, to, tag, length);
                }
            }
            _ => {}
        }
    }

    /// A rank waits for each tag in turn, which it can since waits have deadlines.
    pub fn receive_anything(&mut self, id: usize, index: usize) {
        for tag in 0..TAGS {
            self.want(id, index, None, tag);
            self.peers[id].ranks[index].wanted = None;
        }
    }

    pub fn send(&mut self, id: usize, index: usize, to: u32, tag: u32, length: usize) {
        self.moves += 1;
        let job = self.peers[id].job;
        let place = self.place_of(job, to);
        let peer = &mut self.peers[id];
        let from = peer.span.first_rank + index as u32;
        let rank = &mut peer.ranks[index];
        let number = rank.numbers[place];
        rank.numbers[place] += 1;
        let mut pending = Pending {
            to,
            tag,
            length,
            number,
            state: Sending::Chunks(Vec::new(), VecDeque::new()),
        };
        let mut way = Way::Local;
        let mut on_wire = None;
        if peer.span.contains(to) {
            pending.state = Sending::Local(Message {
                source: from,
                tag,
                payload: payload(job, from, to, number, tag, length).into(),
            });
        } else {
            let sequence = rank.sequences[place];
            rank.sequences[place] += 1;
            on_wire = Some(sequence);
            let of = &self.jobs[job];
            let mailbox = match to {
                DRIVER => of.driver_mailbox,
                _ => self.peers[of.of_rank[place]].mailbox,
            };
            let share = share(mailbox, of.packs.len());
            let peer = &mut self.peers[id];
            let enough = peer.used[place] + cost(length) <= share;
            assert_eq!(
                peer.credits.spend(to, cost(length), share),
                enough,
                "is there credit for {length} bytes from {from} to {to}?"
            );
            if enough {
                peer.used[place] += cost(length);
                way = Way::Credit;
                pending.state = self.chunks(job, from, &pending, sequence);
            } else {
                way = Way::Grant;
                let header = Header {
                    kind: kind::ANNOUNCE,
                    ..route(from, to, tag, sequence)
                };
                let total = (length as u64).to_le_bytes().to_vec();
                Frame::new(header, total.into()).put(&mut peer.outgoing);
                pending.state = Sending::Announced {
                    sequence,
                    granted: false,
                };
            }
        }
        self.sent(job, from, to).push_back(Sent {
            number,
            sequence: on_wire,
            tag,
            length,
            way,
        });
        self.peers[id].ranks[index].pending.push(pending);
        self.go_on_sending(id, index);
    }

    pub fn chunks(&self, job: usize, from: u32, pending: &Pending, sequence: u64) -> Sending {
        let Pending {
            to,
            tag,
            length,
            number,
            ..
        } = *pending;
        let message = payload(job, from, to, number, tag, length);
        let mut bytes = Vec::with_capacity(length + 64);
        let mut ends = VecDeque::new();
        let chunk = self.chunk.max(length / 8);
        for cut in Cutter::with(route(from, to, tag, sequence), &message, chunk) {
            bytes.extend_from_slice(cut.head());
            bytes.extend_from_slice(cut.payload);
            bytes.extend_from_slice(cut.tail());
            ends.push_back(bytes.len());
        }
        Sending::Chunks(bytes, ends)
    }

    pub fn go_on_sending(&mut self, id: usize, index: usize) {
        let mut at = 0;
        while at < self.peers[id].ranks[index].pending.len() {
            let mut pending = self.peers[id].ranks[index].pending.swap_remove(at);
            if !self.go_on(id, index, &mut pending) {
                let list = &mut self.peers[id].ranks[index].pending;
                list.push(pending);
                let last = list.len() - 1;
                list.swap(at, last);
                at += 1;
            }
        }
    }

    /// True if the send is complete.
    pub fn go_on(&mut self, id: usize, index: usize, pending: &mut Pending) -> bool {
        let job = self.peers[id].job;
        let from = self.peers[id].span.first_rank + index as u32;
        let (to, tag) = (pending.to, pending.tag);
        let channel = Channel { group: 0, tag };
        match &mut pending.state {
            Sending::Local(message) => {
                let peer = &mut self.peers[id];
                let place = (to - peer.span.first_rank) as usize;
                let cost = cost(pending.length);
                let mut state = peer.mailboxes[place].state.lock().expect("no panics");
                match state.put_local(message.clone(), channel) {
                    Ok(Some(_)) => false,
                    Ok(None) => {
                        let to = &mut peer.ranks[place];
                        if !to.finished {
                            let room = to.local == 0 || to.local + cost <= peer.mailbox.into();
                            let wanted = is_wanted(to.noted, from, channel);
                            assert!(room || wanted, "a local message has no room");
                            to.local += cost;
                        }
                        self.moves += 1;
                        true
                    }
                    Err(_) => panic!("nothing closes a mailbox here"),
                }
            }
            Sending::Announced { sequence, .. } => {
                let sequence = *sequence;
                let mailbox = &self.peers[id].mailboxes[index];
                let mut state = mailbox.state.lock().expect("no panics");
                let granted = state.take_grant(to, sequence).expect("nothing is closed");
                drop(state);
                if !granted {
                    return false;
                }
                pending.state = self.chunks(job, from, pending, sequence);
                self.go_on(id, index, pending)
            }
            Sending::Chunks(bytes, ends) => {
                let sent = self.random.within(1..=ends.len());
                let end = ends[sent - 1];
                ends.drain(..sent);
                self.peers[id].outgoing.extend_from_slice(&bytes[..end]);
                bytes.drain(..end);
                ends.iter_mut().for_each(|left| *left -= end);
                self.moves += 1;
                ends.is_empty()
            }
        }
    }

    pub fn want(&mut self, id: usize, index: usize, source: Option<u32>, tag: u32) {
        let channel = Channel { group: 0, tag };
        self.peers[id].ranks[index].wanted = Some(Wanted { source, channel });
        self.look(id, index);
    }

    /// A rank that waits looks whether what it wants has come.
    pub fn look(&mut self, id: usize, index: usize) {
        let peer = &mut self.peers[id];
        let Some(wanted) = peer.ranks[index].wanted else {
            return;
        };
        // An exchange takes several of any source at once; a program's receives are counted.
        let count = match wanted.source {
            None if !self.programs => self.random.within(1..=3),
            _ => 1,
        };
        let (mut signals, mut taken) = (Vec::new(), Vec::new());
        let mailbox = &peer.mailboxes[index];
        let mut state = mailbox.state.lock().expect("no panics");
        match wanted.source {
            None => mailbox
                .take_all(&mut state, wanted.channel, count, &mut taken, &mut signals)
                .expect("nothing is closed"),
            Some(_) => taken.extend(
                mailbox
                    .take(&mut state, wanted, &mut signals)
                    .expect("nothing is closed"),
            ),
        }
        drop(state);
        let rank = &mut peer.ranks[index];
        if taken.len() < count {
            rank.noted = Some(wanted);
        } else {
            (rank.noted, rank.wanted) = (None, None);
        }
        for message in &taken {
            self.received(id, index, wanted, message);
        }
        self.signal(id, index, signals);
    }

    pub fn received(&mut self, id: usize, index: usize, wanted: Wanted, message: &Message) {
        self.moves += 1;
        let to = self.peers[id].span.first_rank + index as u32;
        assert!(
            is_wanted(Some(wanted), message.source, channel_of(message.tag)),
            "{wanted:?} was given a message of {} with tag {}",
            message.source,
            message.tag
        );
        let sent = self.compare(self.peers[id].job, to, message);
        let rank = &mut self.peers[id].ranks[index];
        let count = match sent.way {
            Way::Credit => &mut rank.on_credit,
            Way::Grant => &mut rank.granted,
            Way::Local => &mut rank.local,
        };
        *count = count
            .checked_sub(cost(sent.length))
            .expect("it waited here");
    }

    /// The message must be the first of its source and tag that was not received.
    pub fn compare(&mut self, job: usize, to: u32, message: &Message) -> Sent {
        let Message {
            source,
            tag,
            payload: found,
        } = message;
        let sent = self.sent(job, *source, to);
        let at = sent.iter().position(|sent| sent.tag == *tag);
        let sent = at.and_then(|at| sent.remove(at)).unwrap_or_else(|| {
            panic!("rank {to} received a message of {source} with tag {tag} that was not sent, or twice")
        });
        let expected = payload(job, *source, to, sent.number, *tag, sent.length);
        assert!(
            expected == found[..],
            "message {} of {source} to {to} with tag {tag} is torn, or another came before it",
            sent.number
        );
        sent
    }

    /// What the room of a rank allows is said to others, if it may be said.
    pub fn signal(&mut self, id: usize, index: usize, signals: Vec<Signal>) {
        let from = self.peers[id].span.first_rank + index as u32;
        for signal in signals {
            self.moves += 1;
            if let Signal::Grant { source, sequence } = signal {
                let peer = &mut self.peers[id];
                let rank = &mut peer.ranks[index];
                let at = rank
                    .announced
                    .iter()
                    .position(|message| (message.source, message.sequence) == (source, sequence))
                    .unwrap_or_else(|| {
                        panic!("rank {from} grants {source} what was not announced")
                    });
                let message = rank.announced.remove(at);
                let room = rank.granted + message.cost <= peer.mailbox.into();
                let wanted =
                    |message: &Announced| is_wanted(rank.noted, message.source, message.channel);
                // What is waited for needs no room, but one at a time.
                let due = wanted(&message) && !rank.under_way.iter().any(wanted);
                assert!(
                    room || rank.finished || due,
                    "rank {from} grants {source} what there is no room for"
                );
                rank.granted += message.cost;
                rank.under_way.push(message);
            }
            let packs = &self.jobs[self.peers[id].job].packs;
            let frame = match signal {
                Signal::Grant { source, sequence } => grant_frame(from, source, sequence),
                Signal::Credit { pack, bytes } => {
                    let span = self.peers[packs[pack as usize]].span;
                    credit_frame(from, span.first_rank, bytes)
                }
            };
            if self.peers[id].life == Life::Here {
                frame.put(&mut self.peers[id].outgoing);
            }
        }
    }

    pub fn finish(&mut self, id: usize, index: usize) {
        self.moves += 1;
        let peer = &mut self.peers[id];
        let rank = &mut peer.ranks[index];
        (rank.finished, rank.wanted) = (true, None);
        let mut signals = Vec::new();
        peer.mailboxes[index].finish(&mut signals);
        self.signal(id, index, signals);
    }

    /// A pack whose ranks are done says so.
    pub fn leave(&mut self, id: usize) {
        let peer = &mut self.peers[id];
        let done = peer
            .ranks
            .iter()
            .all(|rank| rank.finished && rank.pending.is_empty());
        if peer.life == Life::Here && peer.room.is_none() && done {
            self.moves += 1;
            peer.life = Life::Leaving;
            Leave { failure: None }
                .to_frame(false)
                .put(&mut peer.outgoing);
        }
    }
}
