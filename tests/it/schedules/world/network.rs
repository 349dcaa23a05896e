//! What passes between packs and the switch.

use super::*;

impl World {
    /// A connection ends without a word.
    pub fn lose(&mut self, id: usize) {
        let peer = &mut self.peers[id];
        if matches!(peer.life, Life::Left | Life::Lost) || peer.room.is_some() {
            return;
        }
        self.moves += 1;
        (peer.life, peer.refusal_due) = (Life::Lost, false);
        let job = peer.job;
        self.jobs[job].lossy = true;
        self.out.from = None;
        self.switch
            .disconnected(id as u64, "it was lost", &mut self.out);
        self.out.remove(id as u64);
        self.unpark();
    }

    /// A pack sends something that it must not; from then on it only reads.
    pub fn break_protocol(&mut self, id: usize) {
        let job = self.peers[id].job;
        let size = self.jobs[job].size;
        if self.peers[id].life != Life::Here || self.peers[id].room.is_some() {
            return;
        }
        let span = self.peers[id].span;
        let from = span.first_rank;
        let to = self.other_rank(job, from);
        if span.contains(to) {
            return;
        }
        let victim = self.jobs[job].of_rank[to as usize];
        let sequence = self.peers[id].ranks[0].sequences[to as usize];
        let mut header = Header {
            kind: kind::DATA,
            flags: 3,
            ..route(from, to, 0, sequence)
        };
        let message = [7; 5];
        let (mut total, mut crc32c) = (message.len() as u64, crc32c_of(&message));
        let kind = self.random.below(6);
        match kind {
            0 => header.epoch = 1,
            1 => header.source = to,
            2 => header.destination = size + self.random.below(3) as u32,
            3 => header.sequence += 1,
            4 => crc32c ^= 1 << self.random.below(32),
            _ => total += 1,
        }
        let mut body = total.to_le_bytes().to_vec();
        body.extend_from_slice(&message);
        body.extend_from_slice(&crc32c.to_le_bytes());
        let frame = Frame::new(header, body.into());
        self.jobs[job].poisoned.push((from, to, header.sequence));
        self.jobs[job].lossy = true;
        frame.put(&mut self.peers[id].outgoing);
        let peer = &mut self.peers[id];
        peer.life = Life::Mute;
        peer.refusal_due = kind < 3;
        self.peers[victim].damage_due |= kind >= 3;
    }

    pub fn pack_writes(&mut self, id: usize, count: usize) {
        let peer = &mut self.peers[id];
        let gone = self.out.closing[id] || !self.out.open[id];
        if gone || peer.parked || peer.outgoing.is_empty() {
            return;
        }
        if self.out.queues.is_held(id as u64) {
            // The shell looks again when it is told to.
            peer.parked = true;
            return;
        }
        let count = count.min(peer.outgoing.len());
        peer.kept.extend(peer.outgoing.drain(..count));
        self.moves += 1;
        self.out.from = Some(id as u64);
        let taken = self
            .switch
            .received(id as u64, &peer.kept, NOW, &mut self.out);
        self.out.from = None;
        assert!(
            taken.bytes == peer.kept.len() || taken.needed > peer.kept.len() - taken.bytes,
            "the switch left a whole frame"
        );
        peer.kept.drain(..taken.bytes);
        self.unpark();
    }

    pub fn unpark(&mut self) {
        while let Some(id) = self.out.queues.take_released() {
            self.peers[id as usize].parked = false;
        }
    }

    pub fn switch_writes(&mut self, id: usize, count: usize) {
        if !self.out.open[id] {
            return;
        }
        let waiting = self.out.queues.waiting(id as u64);
        let count = count.min(waiting.len());
        if count > 0 {
            self.moves += 1;
            self.peers[id].incoming.extend_from_slice(&waiting[..count]);
            self.out.written(id as u64, count);
            self.unpark();
            self.deliver(id);
        }
        if self.out.open[id]
            && self.out.closing[id]
            && self.out.queues.waiting(id as u64).is_empty()
        {
            self.out.remove(id as u64);
            self.unpark();
        }
    }

    /// What a pack does with what it has read.
    pub fn deliver(&mut self, id: usize) {
        let bytes = std::mem::take(&mut self.peers[id].incoming);
        // Handed over rank by rank, at the latest before an announcement: what came before it is not under way any more.
        let mut batches = Vec::new();
        batches.resize_with(self.peers[id].ranks.len(), Vec::new);
        let mut at = 0;
        while let Some(header) =
            Header::peek(&bytes[at..], BODY_MAX).expect("the switch speaks well")
        {
            if bytes.len() - at < header.wire_len() || self.peers[id].life == Life::Lost {
                break;
            }
            let body = &bytes[at + 32..at + header.wire_len()];
            at += header.wire_len();
            if matches!(
                header.kind,
                kind::DATA | kind::ANNOUNCE | kind::GRANT | kind::CREDIT
            ) {
                self.check_address(id, header);
            }
            if header.kind == kind::DATA {
                self.accept(id, header, body, &mut batches);
                continue;
            }
            if header.kind == kind::ANNOUNCE {
                self.hand_over(id, &mut batches);
            }
            self.control(id, header, body);
        }
        self.hand_over(id, &mut batches);
        self.peers[id].incoming.extend_from_slice(&bytes[at..]);
    }

    pub fn check_address(&self, id: usize, header: Header) {
        let peer = &self.peers[id];
        assert_eq!(header.epoch, 0, "a frame of another epoch passed");
        let here = match peer.room {
            Some(_) => header.destination == DRIVER,
            None => peer.span.contains(header.destination),
        };
        assert!(
            here,
            "a frame for {} came to {}",
            header.destination, peer.span
        );
        let known = header.source == DRIVER || header.source < self.jobs[peer.job].size;
        assert!(
            known && !peer.span.contains(header.source),
            "who is {}?",
            header.source
        );
    }

    pub fn accept(&mut self, id: usize, header: Header, body: &[u8], batches: &mut [Vec<Arrived>]) {
        let peer = &mut self.peers[id];
        match peer.reassembly.accept(header, body) {
            Ok(None) => {}
            Ok(Some(message)) => {
                let (from, to, sequence) = (header.source, header.destination, header.sequence);
                let job = peer.job;
                assert!(
                    !self.jobs[job].poisoned.contains(&(from, to, sequence)),
                    "a damaged message of {from} was accepted"
                );
                let source = self.jobs[job].of_rank[from as usize];
                let packs = &self.jobs[job].packs;
                let pack = packs.iter().position(|pack| *pack == source);
                let pack = pack.expect("it is of the job") as u32;
                if to == DRIVER {
                    return self.driver_takes(id, header, pack, &message);
                }
                // What is sent to a rank counts from here on.
                self.note_arrival(id, header, &message);
                let place = (to - self.peers[id].span.first_rank) as usize;
                batches[place].push(Arrived {
                    channel: channel_of(message.tag),
                    message,
                    pack,
                    sequence,
                });
            }
            Err(error) => {
                assert!(peer.damage_due, "{error}");
                peer.damage_due = false;
                self.lose(id);
            }
        }
    }

    pub fn note_arrival(&mut self, id: usize, header: Header, message: &Message) {
        let job = self.peers[id].job;
        let (from, to) = (header.source, header.destination);
        let length = message.payload.len();
        let sequence = header.sequence;
        let mut sent = self.sent(job, from, to).iter();
        let sent = sent.find(|sent| sent.sequence == Some(sequence));
        let way = sent.map(|sent| sent.way);
        let peer = &mut self.peers[id];
        let rank = &mut peer.ranks[(to - peer.span.first_rank) as usize];
        match way {
            None => panic!("message {sequence} of {from} to {to} was not sent, or came twice"),
            Some(Way::Grant) => rank.under_way.retain(|message| message.source != from),
            Some(Way::Credit) if !rank.finished => {
                rank.on_credit += cost(length);
                assert!(
                    rank.on_credit <= peer.mailbox.into(),
                    "{} bytes wait on credit in a mailbox of {}",
                    rank.on_credit,
                    peer.mailbox
                );
            }
            Some(_) => {}
        }
    }

    pub fn hand_over(&mut self, id: usize, batches: &mut [Vec<Arrived>]) {
        for (index, batch) in batches.iter_mut().enumerate() {
            if self.peers[id].life == Life::Lost {
                batch.clear();
            }
            if !batch.is_empty() {
                let mut signals = Vec::new();
                self.peers[id].mailboxes[index].deliver(batch, &mut signals);
                self.signal(id, index, signals);
            }
        }
    }

    pub fn control(&mut self, id: usize, header: Header, body: &[u8]) {
        let (from, to, sequence) = (header.source, header.destination, header.sequence);
        let number = || u64::from_le_bytes(body.try_into().expect("a u64"));
        let peer = &mut self.peers[id];
        let index = to.wrapping_sub(peer.span.first_rank) as usize;
        match header.kind {
            kind::ANNOUNCE => {
                let message = Announced {
                    source: from,
                    channel: match to {
                        DRIVER => REPORTS.channel,
                        _ => channel_of(header.tag),
                    },
                    sequence,
                    cost: cost(number() as usize),
                };
                if peer.room.is_some() {
                    return self.driver_is_told(id, message);
                }
                let mut signals = Vec::new();
                peer.ranks[index].announced.push(message);
                peer.mailboxes[index].announced(message, &mut signals);
                self.signal(id, index, signals);
            }
            kind::GRANT if peer.life != Life::Mute => {
                let granted = peer.ranks[index].pending.iter_mut().find_map(|pending| {
                    match &mut pending.state {
                        Sending::Announced {
                            sequence: number,
                            granted,
                        } if pending.to == from && *number == sequence && !*granted => {
                            Some(granted)
                        }
                        _ => None,
                    }
                });
                *granted
                    .unwrap_or_else(|| panic!("{from} grants {to} what it does not wait for")) =
                    true;
                peer.mailboxes[index].granted(from, sequence);
            }
            kind::CREDIT => {
                let place = self.place_of(self.peers[id].job, from);
                let peer = &mut self.peers[id];
                assert_eq!(to, peer.span.first_rank, "credit is for the pack");
                assert!(
                    peer.credits.returned(from, number()),
                    "{from} gave back too much"
                );
                peer.used[place] = peer.used[place].checked_sub(number()).expect("as above");
            }
            kind::GRANT | kind::NOTICE | kind::HEARTBEAT => {}
            kind::LEFT => {
                assert_eq!(peer.life, Life::Leaving, "who did not say it leaves");
                peer.life = Life::Left;
            }
            kind::REFUSED => {
                assert!(
                    peer.refusal_due,
                    "a refusal: {}",
                    String::from_utf8_lossy(body)
                );
                peer.refusal_due = false;
                peer.life = Life::Lost;
            }
            other => panic!("a frame of kind {other:#04x}"),
        }
    }

    pub fn driver_is_told(&mut self, id: usize, message: Announced) {
        let mut signals = Vec::new();
        let room = self.peers[id].room.as_mut().expect("a driver has one");
        room.announced(message, Some(REPORTS), &mut signals);
        self.driver_signals(id, signals);
    }

    pub fn driver_takes(&mut self, id: usize, header: Header, pack: u32, message: &Message) {
        self.moves += 1;
        let job = self.peers[id].job;
        let sent = self.compare(job, DRIVER, message);
        let room = self.peers[id].room.as_mut().expect("a driver has one");
        let mut signals = Vec::new();
        let passage = room.arrived(header.source, pack, header.sequence);
        room.taken(passage, cost(sent.length), &mut signals);
        room.waits(REPORTS, &mut signals);
        self.driver_signals(id, signals);
    }

    pub fn driver_signals(&mut self, id: usize, signals: Vec<Signal>) {
        for signal in signals {
            let frame = match signal {
                Signal::Grant { source, sequence } => grant_frame(DRIVER, source, sequence),
                Signal::Credit { pack, bytes } => {
                    let pack = self.jobs[self.peers[id].job].packs[pack as usize];
                    credit_frame(DRIVER, self.peers[pack].span.first_rank, bytes)
                }
            };
            frame.put(&mut self.peers[id].outgoing);
        }
    }
}
