//! What has to hold, at every moment and at the end.

use super::*;

impl World {
    pub fn check(&self) {
        // A chunk is not cut below an eighth of its message.
        let frame_max = 64 + self.chunk.max(self.length_max / 8 + 1);
        self.out.check(self.read_max, frame_max);
    }

    /// Everything moves until nothing can.
    pub fn drain(&mut self) {
        self.draining = true;
        loop {
            let before = self.moves;
            for id in 0..self.peers.len() {
                (0..self.peers[id].ranks.len()).for_each(|index| self.act(id, index));
                if self.leaves {
                    self.leave(id);
                }
                for _ in 0..8 {
                    self.pack_writes(id, self.read_max);
                }
                self.switch_writes(id, 1_000_000);
                self.check();
            }
            if self.moves == before {
                break;
            }
            assert!(self.moves < 10_000_000, "it never ends");
        }
    }

    /// What must hold when nothing moves any more.
    pub fn check_end(&self) {
        assert_eq!(self.out.queues.total(), 0, "the switch holds nothing");
        assert_eq!(self.out.queues.held().count(), 0, "nobody is held");
        for peer in &self.peers {
            let job = &self.jobs[peer.job];
            assert!(
                peer.life != Life::Here || peer.outgoing.is_empty(),
                "{} is read from",
                peer.span
            );
            assert_ne!(peer.life, Life::Leaving, "{} is not let go", peer.span);
            assert!(
                !peer.refusal_due,
                "{} broke the protocol and was not refused",
                peer.span
            );
            if matches!(peer.life, Life::Lost | Life::Mute) {
                continue;
            }
            for (index, rank) in peer.ranks.iter().enumerate() {
                let own = peer.span.first_rank as usize + index;
                for pending in &rank.pending {
                    let to = match pending.to {
                        DRIVER => Life::Here,
                        to => self.peers[job.of_rank[to as usize]].life,
                    };
                    assert!(
                        job.lossy && !matches!(to, Life::Left | Life::Lost),
                        "rank {own} waits for ever to send to {}, which is {to:?}",
                        pending.to
                    );
                }
                if job.lossy {
                    continue;
                }
                assert!(rank.script.is_empty(), "rank {own} does not go on");
                assert!(
                    !self.programs || rank.finished,
                    "rank {own} waits for ever for {:?}",
                    rank.wanted
                );
            }
            if job.lossy || peer.room.is_some() || peer.life != Life::Here {
                continue;
            }
            self.check_credits(peer, job);
        }
        for job in self.jobs.iter().filter(|job| !job.lossy) {
            for (place, sent) in job.sent.iter().enumerate() {
                let (from, to) = (
                    place / (job.size as usize + 1),
                    place % (job.size as usize + 1),
                );
                let dropped = job.of_rank.get(to).is_some_and(|&id| {
                    let peer = &self.peers[id];
                    peer.ranks[to - peer.span.first_rank as usize].finished
                });
                assert!(
                    dropped || sent.is_empty(),
                    "{} messages of {from} to {to} were lost",
                    sent.len()
                );
            }
        }
    }

    /// What a pack has used of its shares is owed to it, and less than half of each.
    pub fn check_credits(&self, peer: &Peer, job: &Job) {
        for (place, used) in peer.used.iter().enumerate() {
            let (mailbox, open) = match job.of_rank.get(place) {
                None => (job.driver_mailbox, true),
                Some(&id) => {
                    let to = &self.peers[id];
                    (to.mailbox, to.life == Life::Here)
                }
            };
            let share = share(mailbox, job.packs.len());
            assert!(
                !open || *used == 0 || used * 2 < share,
                "{used} bytes of a share of {share} at {place} are not given back"
            );
        }
    }

    /// A driver that granted a message of a pack which was lost waits for it, and would end the job instead.
    pub fn waits_for_driver(&self, peer: &Peer) -> bool {
        let mut pending = peer.ranks.iter().flat_map(|rank| &rank.pending);
        self.jobs[peer.job].lossy && pending.any(|pending| pending.to == DRIVER)
    }

    /// All ranks are done, and all packs leave.
    pub fn end(&mut self) {
        for id in 0..self.peers.len() {
            if self.peers[id].life == Life::Mute {
                self.lose(id);
            }
        }
        for id in 0..self.peers.len() {
            if self.peers[id].life == Life::Here {
                for index in 0..self.peers[id].ranks.len() {
                    if !self.peers[id].ranks[index].finished {
                        self.finish(id, index);
                    }
                }
            }
        }
        self.drain();
        (0..self.peers.len()).for_each(|id| self.leave(id));
        self.drain();
        for peer in self.peers.iter().filter(|peer| peer.room.is_none()) {
            let stuck = peer.life == Life::Here && !self.waits_for_driver(peer);
            assert!(
                !stuck && peer.life != Life::Leaving,
                "{} does not come to leave",
                peer.span
            );
        }
        assert_eq!(self.out.queues.total(), 0, "the switch holds nothing");
        assert_eq!(self.out.queues.held().count(), 0, "nobody is held");
    }
}
