//! Jobs, packs and what lies between them: everything that a schedule changes, and which event comes next.

mod acts;
mod checks;
mod network;

use super::out::{Deaf, Out};
use crate::random::Random;
use lswitch::net::egress::ConnectionId;
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

pub const NOW: Now = Now {
    ms: 0,
    busy_ms: 0,
    unix_s: 0,
};

/// Tags of messages that several receives may match.
const TAGS: u32 = 3;

/// A driver always waits for whatever comes.
const REPORTS: Wanted = Wanted {
    source: None,
    channel: Channel { group: 0, tag: 0 },
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Here,
    /// It broke the protocol on purpose, and does nothing more but read.
    Mute,
    /// It has said that it leaves.
    Leaving,
    Left,
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Credit,
    Grant,
    Local,
}

/// A message that was sent and not received, as the model knows it.
pub struct Sent {
    number: u64,
    /// Its number on the wire, if it goes there.
    sequence: Option<u64>,
    tag: u32,
    length: usize,
    way: Way,
}

/// A step of a program.
#[derive(Clone, Copy)]
pub enum Step {
    Send { to: u32, tag: u32, length: usize },
    Receive { from: Option<u32>, tag: u32 },
}

/// A send that is not complete.
pub struct Pending {
    to: u32,
    tag: u32,
    length: usize,
    number: u64,
    state: Sending,
}

pub enum Sending {
    Local(Message),
    Announced {
        sequence: u64,
        granted: bool,
    },
    /// Frames that are left, and where each ends.
    Chunks(Vec<u8>, VecDeque<usize>),
}

#[derive(Default)]
pub struct Rank {
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
pub struct Peer {
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

pub struct Job {
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

pub struct World {
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
    pub fn new(seed: u64) -> World {
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

    pub fn begin(&mut self, job: usize, packs: usize) {
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
                elastic: false,
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
    pub fn write_scripts(&mut self, job: usize) {
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

    pub fn length(&mut self) -> usize {
        let most = match self.random.below(4) {
            0 => return 0,
            1 => 8,
            2 => 2 * self.chunk,
            _ => self.length_max,
        };
        self.random.within(0..=most)
    }

    pub fn other_rank(&mut self, job: usize, rank: u32) -> u32 {
        let size = self.jobs[job].size;
        (rank + 1 + self.random.below(size as usize - 1) as u32) % size
    }

    pub fn rank(&mut self, job: usize, rank: u32) -> &mut Rank {
        let peer = &mut self.peers[self.jobs[job].of_rank[rank as usize]];
        &mut peer.ranks[(rank - peer.span.first_rank) as usize]
    }

    pub fn place_of(&self, job: usize, destination: u32) -> usize {
        destination.min(self.jobs[job].size) as usize
    }

    pub fn sent(&mut self, job: usize, from: u32, to: u32) -> &mut VecDeque<Sent> {
        let width = self.jobs[job].size as usize + 1;
        let to = self.place_of(job, to);
        &mut self.jobs[job].sent[from as usize * width + to]
    }

    /// One random event.
    pub fn step(&mut self, faulty: bool) {
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
}

/// Runs one schedule; panics if something is wrong. Gives how many of its events changed something.
pub fn run(seed: u64) -> u64 {
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
