//! The shell of the switch as a model.

use lswitch::net::egress::{ConnectionId, Egress};
use lswitch::net::queues::Queues;

/// The shell of the switch: real queues, and a second opinion on who is held.
pub struct Out {
    pub queues: Queues,
    pub budget: usize,
    pub queue_max: usize,
    pub from: Option<ConnectionId>,
    /// The job of each connection.
    pub jobs: Vec<usize>,
    pub open: Vec<bool>,
    pub closing: Vec<bool>,
    /// Bytes of the switch's own frames.
    pub own: usize,
    /// Who waits for which queue, and who for all of them.
    pub holds: Vec<(ConnectionId, ConnectionId)>,
    pub held_by_total: Vec<ConnectionId>,
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
    pub fn written(&mut self, to: ConnectionId, count: usize) {
        self.queues.written(to, count);
        if self.queues.waiting(to).len() <= self.queue_max / 2 {
            self.holds.retain(|(_, queue)| *queue != to);
        }
        self.look_at_total();
    }

    pub fn remove(&mut self, id: ConnectionId) {
        self.queues.remove(id);
        self.open[id as usize] = false;
        self.holds.retain(|(from, to)| *from != id && *to != id);
        self.held_by_total.retain(|from| *from != id);
        self.look_at_total();
    }

    pub fn look_at_total(&mut self) {
        if self.waiting() <= self.budget / 2 {
            self.held_by_total.clear();
        }
    }

    pub fn waiting(&self) -> usize {
        (0..self.open.len() as u64)
            .map(|id| self.queues.waiting(id).len())
            .sum()
    }

    /// Queues, holds and memory are what they should be.
    pub fn check(&self, read_max: usize, frame_max: usize) {
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
pub struct Deaf;

impl Egress for Deaf {
    fn forward(&mut self, _: ConnectionId, _: &[u8]) {}
    fn close(&mut self, id: ConnectionId) {
        panic!("connection {id} is refused while the job begins");
    }
}
