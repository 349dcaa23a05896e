//! Answers of the switches to a pack's contributions, until the rank that waits for them takes them.

use crate::net::collective::{ANSWER_INTERVAL, Part, WINDOW};
use crate::net::frame::Header;
use crate::net::link::LinkError;
use crate::net::mailbox::{Awaited, Closed};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

/// See the module.
pub struct Answers {
    /// What has come.
    pub state: Mutex<State>,
    /// Something has come, or nothing will.
    pub changed: Condvar,
    /// Segments that this pack has contributed to, over all switches. All packs count alike.
    segments: AtomicU64,
    /// Exchanges of messages that this pack took part in.
    exchanges: AtomicU32,
}

/// What the lock guards.
pub struct State {
    /// Of each connection: number, length of the whole vector, bytes.
    came: Vec<Vec<(u64, u64, Vec<u8>)>>,
    announced: Vec<Announced>,
    closed: bool,
    sleeping: usize,
}

/// The exchanges that this pack has announced at a switch.
#[derive(Debug, Clone, Copy, Default)]
struct Announced {
    count: u64,
    /// The number of the last one that the switch answers, if there was one.
    answered: Option<u64>,
}

/// Answers to announcements that may lie here beside those to contributions: the next may come before the last is taken.
const ANNOUNCED_ANSWERS_MAX: usize = 2;

impl Awaited for State {
    const BY_SWITCH: bool = true;

    fn sleeping(&mut self) -> &mut usize {
        &mut self.sleeping
    }
}

impl Answers {
    /// No answers, from so many switches.
    pub fn new(switches: usize) -> Answers {
        Answers {
            state: Mutex::new(State {
                came: (0..switches).map(|_| Vec::new()).collect(),
                announced: vec![Announced::default(); switches],
                closed: false,
                sleeping: 0,
            }),
            changed: Condvar::new(),
            segments: AtomicU64::new(0),
            exchanges: AtomicU32::new(0),
        }
    }

    /// The switch that computes the next segment, and its number there: they take turns.
    pub fn next_call(&self, switches: usize) -> (usize, u64) {
        let segment = self.segments.fetch_add(1, Ordering::Relaxed);
        (
            (segment % switches as u64) as usize,
            segment / switches as u64,
        )
    }

    /// The number of the next exchange.
    pub fn next_exchange(&self) -> u32 {
        self.exchanges.fetch_add(1, Ordering::Relaxed)
    }

    /// This pack announces an exchange at a switch under this number. Gives the number of an earlier announcement whose answer has to
    /// come first.
    pub fn announce(&self, switch: usize, sequence: u64) -> Option<u64> {
        let mut state = self.lock();
        let announced = &mut state.announced[switch];
        announced.count += 1;
        if announced.count.is_multiple_of(ANSWER_INTERVAL) {
            return announced.answered.replace(sequence);
        }
        None
    }

    /// An answer came over a connection.
    ///
    /// # Errors
    /// When it is none, or more come than were asked for.
    pub fn arrived(&self, switch: usize, header: Header, body: &[u8]) -> Result<(), LinkError> {
        let part = Part::split(header.tag, body).ok_or(LinkError::Answer)?;
        let mut state = self.lock();
        if state.came[switch].len() >= WINDOW + ANNOUNCED_ANSWERS_MAX {
            return Err(LinkError::Answer);
        }
        state.came[switch].push((header.sequence, part.total, part.data.to_vec()));
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Nothing will come any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// Takes an answer by its switch and number: the length of the whole vector, and the bytes.
    ///
    /// # Errors
    /// When it has not come, nor will.
    pub fn take(&mut self, switch: usize, sequence: u64) -> Result<Option<(u64, Vec<u8>)>, Closed> {
        let came = &mut self.came[switch];
        match came.iter().position(|(number, ..)| *number == sequence) {
            Some(at) => {
                let (_, total, bytes) = came.swap_remove(at);
                Ok(Some((total, bytes)))
            }
            None if self.closed => Err(Closed),
            None => Ok(None),
        }
    }
}
