//! Random schedules of everything that decides who may send what: the real switch, its queues, credits, rooms,
//! mailboxes and chunks, driven without a socket, a thread or a clock, against a small model.
//!
//! A schedule is a job or two of a few packs, with mailboxes, queues and chunks of a few bytes, and some hundred random
//! events: a rank sends, receives or is done, a pack writes some bytes to the switch or the switch to a pack, a pack leaves,
//! is lost, or breaks the protocol. Then all is drained. Half of the schedules are programs in which every send may wait
//! for its receive: they must complete. `LSWITCH_SCHEDULES` says how many, `LSWITCH_SCHEDULE` names the one that failed.

use lswitch::net::egress::{ConnectionId, Egress};
use lswitch::net::flow::{Announced, Channel, Credits, Room, Signal, Wanted, cost, share};
use lswitch::net::frame::{BODY_MAX, Cutter, DRIVER, Frame, Header, PREAMBLE, kind};
use lswitch::net::mailbox::{Arrived, Mailbox};
use lswitch::net::message::{Control, Hello, Leave, Role, Span};
use lswitch::net::queues::Queues;
use lswitch::net::reassembly::{Message, Reassembly};
use lswitch::net::switch::{Now, Switch};
use lswitch::net::token::{Bearer, JobId, Secret, Token};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// Schedules of one run of the tests.
const SCHEDULES: u64 = 100_000;

pub const NOW: Now = Now { ms: 0, unix_s: 0 };

/// Tags of messages that several receives may match.
const TAGS: u32 = 3;

/// A driver always waits for whatever comes.
const REPORTS: Wanted = Wanted {
    source: None,
    channel: Channel { group: 0, tag: 0 },
};

/// A small generator (splitmix64): a schedule is its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    pub fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// The shell of the switch: real queues, and a second opinion on who is held.
struct Out {
    queues: Queues,
    budget: usize,
    queue_max: usize,
    from: Option<ConnectionId>,
    /// The job of each connection.
    jobs: Vec<usize>,
    open: Vec<bool>,
    closing: Vec<bool>,
    /// Bytes of the switch's own frames.
    own: usize,
    /// Who waits for which queue, and who for all of them.
    holds: Vec<(ConnectionId, ConnectionId)>,
    held_by_total: Vec<ConnectionId>,
}

impl Egress for Out {
    fn forward(&mut self, to: ConnectionId, frame: &[u8]) {
        let place = to as usize;
        assert!(
            self.open[place] && !self.closing[place],
            "a frame for connection {to}, which has gone"
        );
        self.queues.push(to, frame, self.from);
        let Some(from) = self.from else {
            self.own += frame.len();
            return;
        };
        let (job, other) = (self.jobs[place], self.jobs[from as usize]);
        assert_eq!(job, other, "a frame that another job caused");
        if self.queues.waiting(to).len() > self.queue_max && !self.holds.contains(&(from, to)) {
            self.holds.push((from, to));
        }
        if self.queues.total() > self.budget && !self.held_by_total.contains(&from) {
            self.held_by_total.push(from);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        self.closing[id as usize] = true;
    }
}

impl Out {
    fn written(&mut self, to: ConnectionId, count: usize) {
        self.queues.written(to, count);
        if self.queues.waiting(to).len() <= self.queue_max / 2 {
            self.holds.retain(|(_, queue)| *queue != to);
        }
        self.look_at_total();
    }

    fn remove(&mut self, id: ConnectionId) {
        self.queues.remove(id);
        self.open[id as usize] = false;
        self.holds.retain(|(from, to)| *from != id && *to != id);
        self.held_by_total.retain(|from| *from != id);
        self.look_at_total();
    }

    fn look_at_total(&mut self) {
        if self.waiting() <= self.budget / 2 {
            self.held_by_total.clear();
        }
    }

    fn waiting(&self) -> usize {
        (0..self.open.len() as u64)
            .map(|id| self.queues.waiting(id).len())
            .sum()
    }

    /// Queues, holds and memory are what they should be.
    fn check(&self, read_max: usize, frame_max: usize) {
        assert_eq!(
            self.queues.total(),
            self.waiting(),
            "the total of all queues"
        );
        for id in 0..self.open.len() as u64 {
            let expected =
                self.holds.iter().any(|(from, _)| *from == id) || self.held_by_total.contains(&id);
            assert_eq!(
                self.queues.is_held(id),
                expected,
                "is connection {id} held?"
            );
        }
        // Each sender may go one read over a bound before it is held.
        let slack = self.open.len() * (read_max + frame_max) + self.own;
        let total = self.waiting();
        assert!(
            total <= self.budget + slack,
            "{total} bytes wait where {} may",
            self.budget
        );
        for id in 0..self.open.len() as u64 {
            let waiting = self.queues.waiting(id).len();
            assert!(
                waiting <= self.queue_max + slack,
                "{waiting} bytes wait for a connection where {} may",
                self.queue_max
            );
        }
    }
}

/// Says nothing to anybody: what is told while a job begins is known.
struct Deaf;

impl Egress for Deaf {
    fn forward(&mut self, _: ConnectionId, _: &[u8]) {}
    fn close(&mut self, id: ConnectionId) {
        panic!("connection {id} is refused while the job begins");
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Here,
    /// It broke the protocol on purpose, and does nothing more but read.
    Mute,
    /// It has said that it leaves.
    Leaving,
    Left,
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Credit,
    Grant,
    Local,
}

/// A message that was sent and not received, as the model knows it.
struct Sent {
    number: u64,
    /// Its number on the wire, if it goes there.
    sequence: Option<u64>,
    tag: u32,
    length: usize,
    way: Way,
}

/// A step of a program.
#[derive(Clone, Copy)]
enum Step {
    Send { to: u32, tag: u32, length: usize },
    Receive { from: Option<u32>, tag: u32 },
}

/// A send that is not complete.
struct Pending {
    to: u32,
    tag: u32,
    length: usize,
    number: u64,
    state: Sending,
}

enum Sending {
    Local(Message),
    Announced {
        sequence: u64,
        granted: bool,
    },
    /// Frames that are left, and where each ends.
    Chunks(Vec<u8>, VecDeque<usize>),
}

#[derive(Default)]
struct Rank {
    script: VecDeque<Step>,
    pending: Vec<Pending>,
    wanted: Option<Wanted>,
    /// What its mailbox knows it to wait for.
    noted: Option<Wanted>,
    /// By destination: messages over the switch, and all.
    sequences: Vec<u64>,
    numbers: Vec<u64>,
    /// Announcements that have arrived and were not granted.
    announced: Vec<Announced>,
    /// Those that were, until the message arrives.
    under_way: Vec<Announced>,
    /// Costs of what waits here, or is granted.
    on_credit: u64,
    granted: u64,
    local: u64,
    finished: bool,
}

/// A pack, or the driver, which has no ranks.
struct Peer {
    job: usize,
    span: Span,
    mailbox: u32,
    life: Life,
    /// It may no more be read from until it is released.
    parked: bool,
    outgoing: Vec<u8>,
    /// What the switch has read and not taken.
    kept: Vec<u8>,
    incoming: Vec<u8>,
    reassembly: Reassembly,
    credits: Credits,
    /// What the model believes to be used, by destination.
    used: Vec<u64>,
    mailboxes: Vec<Mailbox>,
    ranks: Vec<Rank>,
    /// A driver's.
    room: Option<Room>,
    /// Something damaged is on its way here.
    damage_due: bool,
    /// It must be refused.
    refusal_due: bool,
}

struct Job {
    /// Connections of its packs, by rising rank.
    packs: Vec<usize>,
    driver_mailbox: u32,
    /// The pack of each rank, as a connection.
    of_rank: Vec<usize>,
    size: u32,
    /// By source and destination.
    sent: Vec<VecDeque<Sent>>,
    /// Messages that must not be accepted: source, destination and number.
    poisoned: Vec<(u32, u32, u64)>,
    /// A pack was lost: programs need not complete.
    lossy: bool,
}

struct World {
    random: Random,
    switch: Switch,
    out: Out,
    peers: Vec<Peer>,
    jobs: Vec<Job>,
    chunk: usize,
    length_max: usize,
    read_max: usize,
    programs: bool,
    /// Packs that are done leave before all others are.
    leaves: bool,
    draining: bool,
    /// Counts what has changed, to see when nothing does.
    moves: u64,
}

thread_local! {
    /// Tokens are slow to make.
    static TOKENS: RefCell<HashMap<(usize, u32, u32), Token>> = RefCell::default();
}

pub fn secret() -> Secret {
    Secret::new("a secret for the tests of schedules").expect("long enough")
}

pub fn hello(job: usize, role: Role) -> Vec<u8> {
    let id = JobId([job as u8 + 1; 16]);
    let (bearer, key) = match role {
        Role::Driver { .. } => (Bearer::Driver, (job, 0, 0)),
        Role::Pack { span, .. } => {
            let bearer = Bearer::Pack {
                first_rank: span.first_rank,
                ranks: span.ranks,
                incarnation: 1,
            };
            (bearer, (job, span.first_rank, span.ranks))
        }
    };
    let token = TOKENS.with_borrow_mut(|tokens| {
        *tokens
            .entry(key)
            .or_insert_with(|| secret().job_key(id).token(bearer, 0))
    });
    let mut bytes = PREAMBLE.to_vec();
    Hello::new(id, token, role).to_frame(false).put(&mut bytes);
    bytes
}

/// What a message carries: nobody else's bytes.
fn payload(job: usize, from: u32, to: u32, number: u64, tag: u32, length: usize) -> Vec<u8> {
    let mut random = Random(
        (job as u64) << 60
            ^ u64::from(from) << 40
            ^ u64::from(to) << 20
            ^ number
            ^ u64::from(tag) << 50,
    );
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let two_jobs = random.one_in(8);
        let chunk = random.pick(&[1, 8, 40, 200]);
        let packs_of = |random: &mut Random| match two_jobs {
            true => random.within(2..=4),
            false => random.pick(&[2, 2, 3, 3, 4, 4, 5, 6, 8]),
        };
        let budget = random.pick(&[400, 1_000, 4_000, 100_000]);
        let queue_max = random.pick(&[100, 300, 1_000, 50_000]);
        let mut world = World {
            switch: Switch::new(secret(), 1 << 20),
            out: Out {
                queues: Queues::with(budget, queue_max),
                budget,
                queue_max,
                from: None,
                jobs: Vec::new(),
                open: Vec::new(),
                closing: Vec::new(),
                own: 0,
                holds: Vec::new(),
                held_by_total: Vec::new(),
            },
            peers: Vec::new(),
            jobs: Vec::new(),
            chunk,
            length_max: 0,
            read_max: random.pick(&[10, 100, 700]),
            programs: random.one_in(2),
            leaves: random.one_in(2),
            draining: false,
            moves: 0,
            random,
        };
        for job in 0..1 + usize::from(two_jobs) {
            let packs = packs_of(&mut world.random);
            world.begin(job, packs);
        }
        world.length_max = world.length_max.min(2_000);
        if world.programs {
            (0..world.jobs.len()).for_each(|job| world.write_scripts(job));
        }
        world
    }

    fn begin(&mut self, job: usize, packs: usize) {
        let random = &mut self.random;
        let one_chunk = packs * (self.chunk + 64);
        let sizes = [
            packs * 64,
            one_chunk,
            one_chunk,
            2 * one_chunk + 50,
            300,
            1_000,
            20_000,
        ];
        let usual = random.pick(&sizes) as u32;
        let driver_mailbox = random.pick(&sizes) as u32;
        let mut of_rank = Vec::new();
        let driver = self.peers.len();
        let mut roles = Vec::new();
        let mut mailboxes = Vec::new();
        for pack in 0..packs {
            let span = Span {
                first_rank: of_rank.len() as u32,
                ranks: random.pick(&[1, 1, 2, 3]),
            };
            of_rank.extend((0..span.ranks).map(|_| driver + 1 + pack));
            let mailbox = match random.one_in(4) {
                true => random.pick(&sizes) as u32,
                false => usual,
            };
            mailboxes.push(mailbox);
            roles.push(Role::Pack {
                span,
                incarnation: 1,
                epoch: 0,
                mailbox,
            });
        }
        let size = of_rank.len() as u32;
        let least = *mailboxes.iter().min().expect("there are packs") as usize;
        self.length_max = self
            .length_max
            .max(4 * self.chunk)
            .max((least * 3 / 2).min(700));
        roles.insert(
            0,
            Role::Driver {
                size,
                mailbox: driver_mailbox,
            },
        );
        for role in roles {
            let id = self.peers.len() as ConnectionId;
            self.switch.connected(id, NOW);
            let bytes = hello(job, role.clone());
            let taken = self.switch.received(id, &bytes, NOW, &mut Deaf);
            assert_eq!(taken.bytes, bytes.len(), "hellos are whole");
            self.out.jobs.push(job);
            self.out.open.push(true);
            self.out.closing.push(false);
            let (span, mailbox, room) = match role {
                Role::Driver { mailbox, .. } => {
                    let nobody = Span {
                        first_rank: 0,
                        ranks: 0,
                    };
                    (nobody, mailbox, Some(Room::new(mailbox, packs)))
                }
                Role::Pack { span, mailbox, .. } => (span, mailbox, None),
            };
            self.peers.push(Peer {
                job,
                span,
                mailbox,
                life: Life::Here,
                parked: false,
                outgoing: Vec::new(),
                kept: Vec::new(),
                incoming: Vec::new(),
                reassembly: Reassembly::default(),
                credits: Credits::default(),
                used: vec![0; size as usize + 1],
                mailboxes: (0..span.ranks)
                    .map(|_| Mailbox::new(Room::new(mailbox, packs)))
                    .collect(),
                ranks: (0..span.ranks)
                    .map(|_| Rank {
                        sequences: vec![0; size as usize + 1],
                        numbers: vec![0; size as usize + 1],
                        ..Rank::default()
                    })
                    .collect(),
                room,
                damage_due: false,
                refusal_due: false,
            });
        }
        let pairs = size as usize * (size as usize + 1);
        self.jobs.push(Job {
            packs: (driver + 1..=driver + packs).collect(),
            driver_mailbox,
            of_rank,
            size,
            sent: (0..pairs).map(|_| VecDeque::new()).collect(),
            poisoned: Vec::new(),
            lossy: false,
        });
    }

    /// A program for each rank of a job: what one global order of messages is to each, and then messages that nobody receives.
    fn write_scripts(&mut self, job: usize) {
        let size = self.jobs[job].size;
        for step in 0..self.random.within(5..=40) as u32 {
            let from = self.random.below(size as usize) as u32;
            let to = self.other_rank(job, from);
            let length = self.length();
            // Only one message has a tag that is received from anybody.
            let (tag, source) = match self.random.one_in(3) {
                true => (100 + step, None),
                false => (self.random.below(TAGS as usize) as u32, Some(from)),
            };
            if self.random.one_in(10) {
                let to = DRIVER;
                self.rank(job, from)
                    .script
                    .push_back(Step::Send { to, tag, length });
                continue;
            }
            self.rank(job, from)
                .script
                .push_back(Step::Send { to, tag, length });
            let receive = Step::Receive { from: source, tag };
            self.rank(job, to).script.push_back(receive);
        }
        for from in 0..size - 1 {
            if self.random.one_in(4) {
                let to = from + 1 + self.random.below((size - from - 1) as usize) as u32;
                let (tag, length) = (99, self.length());
                self.rank(job, from)
                    .script
                    .push_back(Step::Send { to, tag, length });
            }
        }
    }

    fn length(&mut self) -> usize {
        let most = match self.random.below(4) {
            0 => return 0,
            1 => 8,
            2 => 2 * self.chunk,
            _ => self.length_max,
        };
        self.random.within(0..=most)
    }

    fn other_rank(&mut self, job: usize, rank: u32) -> u32 {
        let size = self.jobs[job].size;
        (rank + 1 + self.random.below(size as usize - 1) as u32) % size
    }

    fn rank(&mut self, job: usize, rank: u32) -> &mut Rank {
        let peer = &mut self.peers[self.jobs[job].of_rank[rank as usize]];
        &mut peer.ranks[(rank - peer.span.first_rank) as usize]
    }

    fn place_of(&self, job: usize, destination: u32) -> usize {
        destination.min(self.jobs[job].size) as usize
    }

    fn sent(&mut self, job: usize, from: u32, to: u32) -> &mut VecDeque<Sent> {
        let width = self.jobs[job].size as usize + 1;
        let to = self.place_of(job, to);
        &mut self.jobs[job].sent[from as usize * width + to]
    }

    /// One random event.
    fn step(&mut self, faulty: bool) {
        let id = self.random.below(self.peers.len());
        match self.random.below(100) {
            0..45 => {
                let ranks = self.peers[id].ranks.len();
                if ranks > 0 {
                    let index = self.random.below(ranks);
                    self.act(id, index);
                }
            }
            45..70 => {
                let most = self.read_max;
                let count = self.random.within(1..=most);
                self.pack_writes(id, count);
            }
            70..96 => {
                let most = self.random.pick(&[3, 60, 1_000]);
                let count = self.random.within(1..=most);
                self.switch_writes(id, count);
            }
            96 | 97 => self.leave(id),
            98 if faulty && self.random.one_in(2) => self.lose(id),
            99 if faulty => self.break_protocol(id),
            _ => {}
        }
    }

    /// A rank goes on with its program, or does something.
    fn act(&mut self, id: usize, index: usize) {
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
    fn receive_anything(&mut self, id: usize, index: usize) {
        for tag in 0..TAGS {
            self.want(id, index, None, tag);
            self.peers[id].ranks[index].wanted = None;
        }
    }

    fn send(&mut self, id: usize, index: usize, to: u32, tag: u32, length: usize) {
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

    fn chunks(&self, job: usize, from: u32, pending: &Pending, sequence: u64) -> Sending {
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

    fn go_on_sending(&mut self, id: usize, index: usize) {
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
    fn go_on(&mut self, id: usize, index: usize, pending: &mut Pending) -> bool {
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

    fn want(&mut self, id: usize, index: usize, source: Option<u32>, tag: u32) {
        let channel = Channel { group: 0, tag };
        self.peers[id].ranks[index].wanted = Some(Wanted { source, channel });
        self.look(id, index);
    }

    /// A rank that waits looks whether what it wants has come.
    fn look(&mut self, id: usize, index: usize) {
        let peer = &mut self.peers[id];
        let Some(wanted) = peer.ranks[index].wanted else {
            return;
        };
        let mut signals = Vec::new();
        let mut state = peer.mailboxes[index].state.lock().expect("no panics");
        let found = state.take(wanted, &mut signals).expect("nothing is closed");
        drop(state);
        let rank = &mut peer.ranks[index];
        match found {
            None => rank.noted = Some(wanted),
            Some(message) => {
                (rank.noted, rank.wanted) = (None, None);
                self.received(id, index, wanted, &message);
            }
        }
        self.signal(id, index, signals);
    }

    fn received(&mut self, id: usize, index: usize, wanted: Wanted, message: &Message) {
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
    fn compare(&mut self, job: usize, to: u32, message: &Message) -> Sent {
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
    fn signal(&mut self, id: usize, index: usize, signals: Vec<Signal>) {
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

    fn finish(&mut self, id: usize, index: usize) {
        self.moves += 1;
        let peer = &mut self.peers[id];
        let rank = &mut peer.ranks[index];
        (rank.finished, rank.wanted) = (true, None);
        let mut signals = Vec::new();
        peer.mailboxes[index].finish(&mut signals);
        self.signal(id, index, signals);
    }

    /// A pack whose ranks are done says so.
    fn leave(&mut self, id: usize) {
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

    /// A connection ends without a word.
    fn lose(&mut self, id: usize) {
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
    fn break_protocol(&mut self, id: usize) {
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

    fn pack_writes(&mut self, id: usize, count: usize) {
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

    fn unpark(&mut self) {
        while let Some(id) = self.out.queues.take_released() {
            self.peers[id as usize].parked = false;
        }
    }

    fn switch_writes(&mut self, id: usize, count: usize) {
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
    fn deliver(&mut self, id: usize) {
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

    fn check_address(&self, id: usize, header: Header) {
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

    fn accept(&mut self, id: usize, header: Header, body: &[u8], batches: &mut [Vec<Arrived>]) {
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

    fn note_arrival(&mut self, id: usize, header: Header, message: &Message) {
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

    fn hand_over(&mut self, id: usize, batches: &mut [Vec<Arrived>]) {
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

    fn control(&mut self, id: usize, header: Header, body: &[u8]) {
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

    fn driver_is_told(&mut self, id: usize, message: Announced) {
        let mut signals = Vec::new();
        let room = self.peers[id].room.as_mut().expect("a driver has one");
        room.announced(message, Some(REPORTS), &mut signals);
        self.driver_signals(id, signals);
    }

    fn driver_takes(&mut self, id: usize, header: Header, pack: u32, message: &Message) {
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

    fn driver_signals(&mut self, id: usize, signals: Vec<Signal>) {
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

    fn check(&self) {
        // A chunk is not cut below an eighth of its message.
        let frame_max = 64 + self.chunk.max(self.length_max / 8 + 1);
        self.out.check(self.read_max, frame_max);
    }

    /// Everything moves until nothing can.
    fn drain(&mut self) {
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
    fn check_end(&self) {
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
    fn check_credits(&self, peer: &Peer, job: &Job) {
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
    fn waits_for_driver(&self, peer: &Peer) -> bool {
        let mut pending = peer.ranks.iter().flat_map(|rank| &rank.pending);
        self.jobs[peer.job].lossy && pending.any(|pending| pending.to == DRIVER)
    }

    /// All ranks are done, and all packs leave.
    fn end(&mut self) {
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

fn route(source: u32, destination: u32, tag: u32, sequence: u64) -> Header {
    Header {
        tag,
        source,
        destination,
        sequence,
        ..Header::default()
    }
}

fn channel_of(tag: u32) -> Channel {
    Channel { group: 0, tag }
}

fn is_wanted(wanted: Option<Wanted>, source: u32, channel: Channel) -> bool {
    wanted.is_some_and(|wanted| {
        wanted.channel == channel && (wanted.source.is_none() || wanted.source == Some(source))
    })
}

fn grant_frame(from: u32, to: u32, sequence: u64) -> Frame {
    let header = Header {
        kind: kind::GRANT,
        ..route(from, to, 0, sequence)
    };
    Frame::new(header, Default::default())
}

fn credit_frame(from: u32, to: u32, bytes: u64) -> Frame {
    let header = Header {
        kind: kind::CREDIT,
        ..route(from, to, 0, 0)
    };
    Frame::new(header, bytes.to_le_bytes().to_vec().into())
}

fn crc32c_of(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// Runs one schedule; panics if something is wrong. Gives how many of its events changed something.
fn run(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let faulty = world.random.one_in(4);
    let events = world.random.within(60..=400) as u64;
    for _ in 0..events {
        world.step(faulty);
        world.check();
    }
    let moves = world.moves;
    world.drain();
    world.check_end();
    world.end();
    moves
}

/// Prints the seed of a schedule that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("LSWITCH_SCHEDULE={} repeats this schedule", self.0);
        }
    }
}

pub fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {value}")),
    )
}

#[test]
fn messages_arrive_once_in_order_and_memory_stays_bounded_in_every_schedule() {
    if let Some(seed) = variable("LSWITCH_SCHEDULE") {
        run(seed);
        return;
    }
    let schedules = variable("LSWITCH_SCHEDULES").unwrap_or(SCHEDULES);
    let begun = Instant::now();
    let (next, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= schedules {
                        return;
                    }
                    let named = Seed(seed);
                    events.fetch_add(run(seed), Ordering::Relaxed);
                    drop(named);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let events = events.load(Ordering::Relaxed);
    println!(
        "{schedules} schedules of {} events that changed something, each, in {seconds:.1} s, {:.0} a second",
        events / schedules,
        schedules as f64 / seconds
    );
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use lswitch::net::planted::{Bug, plant};
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::Mutex;

    /// A bug must show within so many schedules.
    const SCHEDULES: u64 = 20_000;

    /// What each planted bug came to: after how many schedules, and with what words.
    #[test]
    fn every_planted_bug_is_caught() {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if thread::current().name() != Some("planted") {
                usual(info);
            }
        }));
        let next = Mutex::new(Bug::ALL.iter());
        let missed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
                let search = || {
                    while let Some(&bug) = { next.lock().expect("no panics").next() } {
                        match caught(bug) {
                            Some((after, how)) => println!("{bug:?}: {after} schedules: {how}"),
                            None => missed.lock().expect("no panics").push(bug),
                        }
                    }
                };
                let builder = thread::Builder::new().name("planted".into());
                builder.spawn_scoped(scope, search).expect("a thread");
            }
        });
        let missed = missed.into_inner().expect("no panics");
        assert!(missed.is_empty(), "not caught: {missed:?}");
    }

    fn caught(bug: Bug) -> Option<(u64, String)> {
        for seed in 0..SCHEDULES {
            plant(Some(bug));
            let outcome = catch_unwind(|| run(seed));
            plant(None);
            if let Err(panic) = outcome {
                let words = panic.downcast_ref::<String>().cloned();
                let words =
                    words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.into()));
                let words = words.unwrap_or_default();
                return Some((seed + 1, words.lines().next().unwrap_or_default().into()));
            }
        }
        None
    }
}
