//! Who may send how much to whom: credits, announcements and grants. Pure.
//!
//! The memory for messages that wait to be received is lent by those who receive. A rank's pack says how many bytes may
//! wait for it, its *mailbox*, and every pack of the job has an equal *share* of them as credit, from the start. A message
//! for which there is credit is sent at once, whatever its length. Any other is announced, and sent when its destination
//! grants it: when a receive matches it, or when there is room for the whole. Taken messages give their credit back.
//!
//! So what waits for a rank is at most its mailbox in credits, as much again in grants, and what it receives just now; it
//! never waits in the switch. A program that would complete if every send waited for its receive completes, since an
//! announcement always arrives, and the receive that matches it grants it.

use crate::net::by_rank::ByRank;
use crate::net::planted::{Bug, planted};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// What a message takes besides its payload, in bytes, so that empty ones do not wait for nothing.
pub const MESSAGE_COST: u64 = 64;

/// What a message of so many bytes takes of a credit.
pub fn cost(bytes: usize) -> u64 {
    bytes as u64 + MESSAGE_COST
}

/// The credit that each of `packs` packs has at a rank with such a mailbox.
pub fn share(mailbox: u32, packs: usize) -> u64 {
    u64::from(mailbox) / packs.max(1) as u64
}

/// The sending side, of one pack: what it may still send to each rank.
#[derive(Debug, Default)]
pub struct Credits {
    /// What was used of each rank's share.
    used: ByRank<u64>,
}

impl Credits {
    /// Spends credit on a message to a rank, at which the pack has `share` bytes. False if there is not enough.
    pub fn spend(&mut self, to: u32, cost: u64, share: u64) -> bool {
        let used = self.used.of(to);
        let enough = *used + cost <= share;
        if enough {
            *used += cost;
        }
        enough
    }

    /// A rank gave credit back. False if it gives more than was used.
    pub fn returned(&mut self, by: u32, bytes: u64) -> bool {
        let used = self.used.of(by);
        let enough = *used >= bytes;
        if enough {
            *used -= bytes;
        }
        enough
    }
}

/// How a message came to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// On the credit of a pack, by the number of that pack.
    Credit(u32),
    /// By a grant.
    Grant,
    /// From a rank of the same pack.
    Local,
}

/// A message that waits to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The rank that wants to send it.
    pub source: u32,
    /// Which receives it matches: group and tag.
    pub channel: Channel,
    /// Its number.
    pub sequence: u64,
    /// What it takes.
    pub cost: u64,
}

/// A group and a tag: what a receive names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// 0 for the program's own messages.
    pub group: u16,
    /// The program's mark.
    pub tag: u32,
}

/// What a receive waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// From whom; `None`: from anybody.
    pub source: Option<u32>,
    /// With which mark.
    pub channel: Channel,
}

impl Wanted {
    /// True if a message from `source` with this mark is what is waited for.
    pub fn matches(&self, source: u32, channel: Channel) -> bool {
        (self.channel == channel || planted(Bug::WantedTagIgnored))
            && self
                .source
                .is_none_or(|wanted| wanted == source || planted(Bug::WantedSourceIgnored))
    }
}

/// What the receiving side has to tell a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The announced message may be sent.
    Grant {
        /// By this rank.
        source: u32,
        /// The message's number.
        sequence: u64,
    },
    /// The pack of this number gets so many bytes of credit back.
    Credit {
        /// The pack's number, by rising rank.
        pack: u32,
        /// Bytes.
        bytes: u64,
    },
}

/// The receiving side, of one rank: the room for messages that wait to be received.
#[derive(Debug)]
pub struct Room {
    mailbox: u64,
    share: u64,
    /// Credit that was used by messages which have been taken, by pack, and not yet given back.
    owed: ByRank<u64>,
    /// Bytes of granted messages that have not been taken.
    granted: u64,
    /// Bytes of local messages that have not been taken.
    local: u64,
    announced: VecDeque<Announced>,
    /// Granted messages that are under way, by source.
    under_way: FxHashMap<u32, Announced>,
    /// The rank is done: whoever wants to send to it may, and nobody will look.
    closed: bool,
}

impl Room {
    /// Room for `mailbox` bytes, shared by `packs` packs.
    pub fn new(mailbox: u32, packs: usize) -> Room {
        Room {
            mailbox: mailbox.into(),
            share: share(mailbox, packs),
            owed: ByRank::default(),
            granted: 0,
            local: 0,
            announced: VecDeque::new(),
            under_way: FxHashMap::default(),
            closed: false,
        }
    }

    /// A message is announced, while the rank waits for `wanted`.
    pub fn announced(
        &mut self,
        message: Announced,
        wanted: Option<Wanted>,
        signals: &mut Vec<Signal>,
    ) {
        self.announced.push_back(message);
        self.look(wanted, signals);
    }

    /// The rank begins to wait, and nothing that has arrived is what it wants.
    pub fn waits(&mut self, wanted: Wanted, signals: &mut Vec<Signal>) {
        self.look(Some(wanted), signals);
    }

    /// A whole message has arrived from another pack: how it came to be sent.
    pub fn arrived(&mut self, source: u32, pack: u32, sequence: u64) -> Passage {
        match self.under_way.get(&source) {
            Some(message) if message.sequence == sequence => {
                self.under_way.remove(&source);
                Passage::Grant
            }
            _ => Passage::Credit(pack),
        }
    }

    /// The rank has taken a message.
    pub fn taken(&mut self, passage: Passage, cost: u64, signals: &mut Vec<Signal>) {
        match passage {
            Passage::Local => self.local -= cost,
            Passage::Grant => {
                // A peer may have announced less than it sent.
                self.granted = self
                    .granted
                    .saturating_sub(if planted(Bug::GrantedRoomForgotten) {
                        0
                    } else {
                        cost
                    });
                self.look(None, signals);
            }
            Passage::Credit(pack) => {
                let owed = self.owed.of(pack);
                *owed += if planted(Bug::CreditLost) { 0 } else { cost };
                // Half a share at a time: seldom for small messages, soon enough for a sender not to run dry.
                if *owed * 2 >= self.share && !planted(Bug::CreditKeptBack) {
                    let bytes = std::mem::take(owed);
                    signals.push(Signal::Credit { pack, bytes });
                    if planted(Bug::CreditReturnedTwice) {
                        signals.push(Signal::Credit { pack, bytes });
                    }
                }
            }
        }
    }

    /// True if a message of this cost from a rank of the same pack has room, and then it takes it.
    pub fn admit_local(&mut self, cost: u64, matches: bool) -> bool {
        // A lone message is let in whatever its length: it lies in this process already.
        let room =
            self.local == 0 || self.local + cost <= self.mailbox || planted(Bug::LocalRoomIgnored);
        if room || matches || self.closed {
            self.local += cost;
        }
        room || matches || self.closed
    }

    /// True if somebody waits for a grant.
    pub fn has_announced(&self) -> bool {
        !self.announced.is_empty()
    }

    /// The rank is done and receives no more: everybody who wants to send to it may.
    pub fn close(&mut self, signals: &mut Vec<Signal>) {
        self.closed = true;
        self.look(None, signals);
    }

    fn look(&mut self, wanted: Option<Wanted>, signals: &mut Vec<Signal>) {
        // One match at a time: a rank whose receives are served otherwise would grant without end.
        if let Some(wanted) = wanted
            && (planted(Bug::GrantsWithoutEnd)
                || !self
                    .under_way
                    .values()
                    .any(|message| wanted.matches(message.source, message.channel)))
            && let Some(at) = self
                .announced
                .iter()
                .position(|message| wanted.matches(message.source, message.channel))
        {
            let message = self.announced.remove(at).expect("it was found above");
            self.grant(message, signals);
        }
        while let Some(first) = self.announced.front()
            && (self.closed || self.granted + first.cost <= self.mailbox)
        {
            let first = self.announced.pop_front().expect("there is a first");
            self.grant(first, signals);
        }
    }

    fn grant(&mut self, message: Announced, signals: &mut Vec<Signal>) {
        self.granted += if planted(Bug::GrantedRoomForgotten) {
            0
        } else {
            message.cost
        };
        self.under_way.insert(message.source, message);
        let grant = Signal::Grant {
            source: message.source ^ u32::from(planted(Bug::GrantToAnotherRank)),
            sequence: message.sequence,
        };
        signals.push(grant);
        if planted(Bug::GrantSentTwice) {
            signals.push(grant);
        }
    }
}
