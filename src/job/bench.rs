//! The traffic of `lswitch bench`: what each rank does, and what is measured. Also a program, for workers of a job.
//!
//! All-to-all is a superstep without a barrier: each rank sends one message to each rank of another pack, waits for as many,
//! and repeats. Rank 0 keeps the time and says in its messages which round is the last.

pub mod crew;

use crate::job::context::Context;
use crate::job::program::{Program, ProgramError};
use crate::net::comm::{Comm, CommError};
use crate::net::element::Fold;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What is done over and over. The command line has these too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Round trips between the first rank and the last
    Pair,
    /// Each rank sends to each in another pack, waits for as many, and repeats
    AllToAll,
    /// Rank 0's bytes to all
    Broadcast,
    /// Vectors of f64, added
    AllReduce,
    /// All wait for all
    Barrier,
    /// Workers are started, join, and end
    Launch,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// What is done.
    pub pattern: Pattern,
    /// Bytes of one message or vector.
    pub size: usize,
    /// Seconds before the window, in which nothing is counted.
    pub warm_up_s: f64,
    /// Seconds of the window.
    pub seconds: f64,
}

/// What rank 0 saw in the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Rounds, or calls.
    pub rounds: u64,
    /// Messages that all ranks sent through the switch.
    pub messages: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Time of one round or call, as rank 0 sees it, in microseconds.
    pub latency: Option<Latency>,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// Nine of ten are shorter.
    pub p90_us: f64,
    /// 99 of 100 are shorter.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Latency {
    /// Of some times in microseconds, if there are any.
    pub fn of(mut times_us: Vec<f64>) -> Option<Latency> {
        times_us.sort_by(f64::total_cmp);
        let last = times_us.len().checked_sub(1)?;
        let at = |share: f64| times_us[(last as f64 * share).round() as usize];
        Some(Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            max_us: times_us[last],
        })
    }
}

/// The mark of a round: those that can meet have different ones. Ranks that send each other something in each round are at most one
/// round apart.
const ROUND: u32 = 0;

/// Takes one rank's part in a measurement. All ranks call it alike.
///
/// # Errors
/// When the wire fails.
pub fn measure(comm: &mut Comm, spec: Spec) -> Result<Figures, CommError> {
    let window = Window::of(spec);
    match spec.pattern {
        Pattern::Pair => pair(comm, spec.size, window),
        Pattern::AllToAll => all_to_all(comm, spec.size, window),
        Pattern::Broadcast => {
            let bytes = Bytes::from(vec![7; spec.size]);
            repeat(comm, window, |comm| {
                comm.broadcast(0, bytes.clone()).map(drop)
            })
        }
        Pattern::AllReduce => {
            let vector = vec![1.5f64; spec.size / 8];
            repeat(comm, window, |comm| {
                comm.all_reduce(Fold::Sum, &vector).map(drop)
            })
        }
        Pattern::Barrier => repeat(comm, window, Comm::barrier),
        Pattern::Launch => Ok(Figures::default()),
    }
}

/// The program that workers run; its arguments are a [`Spec`], and rank 0's result [`Figures`].
pub const PROGRAM: Program = Program { name: "bench", run };

fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let spec = context.arguments()?;
    let figures = measure(context.comm(), spec)?;
    serde_json::to_vec(&figures).map_err(|error| ProgramError::Other(error.to_string()))
}

#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    warm_up: Duration,
    end: Duration,
}

impl Window {
    fn of(spec: Spec) -> Window {
        Window {
            begin: Instant::now(),
            warm_up: Duration::from_secs_f64(spec.warm_up_s),
            end: Duration::from_secs_f64(spec.warm_up_s + spec.seconds),
        }
    }
}

/// What rank 0 keeps of the rounds in the window.
struct Times {
    window: Window,
    begun: Option<Instant>,
    ended: Instant,
    times_us: Vec<f64>,
}

impl Times {
    fn new(window: Window) -> Times {
        Times {
            window,
            begun: None,
            ended: window.begin,
            times_us: Vec::new(),
        }
    }

    /// A round that began then has ended.
    fn round(&mut self, began: Instant) {
        let now = Instant::now();
        if began - self.window.begin >= self.window.warm_up {
            self.begun.get_or_insert(began);
            self.times_us.push((now - began).as_secs_f64() * 1e6);
            self.ended = now;
        }
    }

    fn is_over(&self) -> bool {
        self.window.begin.elapsed() >= self.window.end
    }

    fn figures(self, messages_a_round: u64) -> Figures {
        let rounds = self.times_us.len() as u64;
        let seconds = self
            .begun
            .map_or(0.0, |begun| (self.ended - begun).as_secs_f64());
        Figures {
            rounds,
            messages: rounds * messages_a_round,
            seconds,
            latency: Latency::of(self.times_us),
        }
    }
}

fn pair(comm: &mut Comm, size: usize, window: Window) -> Result<Figures, CommError> {
    let far = comm.size() - 1;
    let mut times = Times::new(window);
    let (go, stop) = (payload(size, 0), payload(size, 1));
    comm.barrier()?;
    if comm.rank() == far {
        loop {
            let message = comm.receive(Some(0), ROUND)?;
            let last = message.payload[0] == 1;
            comm.send(0, ROUND, message.payload)?;
            if last {
                break;
            }
        }
    } else if comm.rank() == 0 {
        loop {
            let last = times.is_over();
            let began = Instant::now();
            comm.send(far, ROUND, if last { stop.clone() } else { go.clone() })?;
            comm.receive(Some(far), ROUND)?;
            if last {
                break;
            }
            times.round(began);
        }
    }
    comm.barrier()?;
    Ok(times.figures(2))
}

fn all_to_all(comm: &mut Comm, size: usize, window: Window) -> Result<Figures, CommError> {
    let (ranks, rank) = (comm.size(), comm.rank());
    let own = comm
        .packs()
        .find(|span| span.contains(rank))
        .expect("every rank has a pack");
    // Each begins with its neighbour, so that not all begin with the same destination.
    let others: Vec<u32> = (1..ranks)
        .map(|step| (rank + step) % ranks)
        .filter(|other| !own.contains(*other))
        .collect();
    let crossing: u64 = comm
        .packs()
        .map(|span| u64::from(span.ranks) * u64::from(ranks - span.ranks))
        .sum();
    let mut times = Times::new(window);
    let (go, stop) = (payload(size, 0), payload(size, 1));
    comm.barrier()?;
    let mut round = 0;
    loop {
        let began = Instant::now();
        // Ranks of rank 0's own pack hear of the end from it too, inside the pack.
        let mut last = rank == 0 && times.is_over();
        let mates = if rank == 0 { 1..own.end() } else { 0..0 };
        let payload = if last { &stop } else { &go };
        let sends = others.iter().copied().chain(mates);
        let sends = sends.map(|to| (to, payload.clone())).collect();
        let due = others.len() + usize::from(rank != 0 && own.contains(0));
        // Rank 0 hears nothing from the others of its pack, so it may be two rounds ahead of them.
        for message in comm.exchange(ROUND + round % 3, sends, due)? {
            last |= message.source == 0 && message.payload[0] == 1;
        }
        if last {
            break;
        }
        times.round(began);
        round = round.wrapping_add(1);
    }
    comm.barrier()?;
    Ok(times.figures(crossing))
}

/// A collective, until rank 0's time is over. It says so every 16 calls, and not more often, since that is a call too.
fn repeat(
    comm: &mut Comm,
    window: Window,
    mut call: impl FnMut(&mut Comm) -> Result<(), CommError>,
) -> Result<Figures, CommError> {
    let mut times = Times::new(window);
    comm.barrier()?;
    loop {
        for _ in 0..16 {
            let began = Instant::now();
            call(comm)?;
            times.round(began);
        }
        let over = u64::from(comm.rank() == 0 && times.is_over());
        if comm.all_reduce(Fold::Max, &[over])?[0] == 1 {
            break;
        }
    }
    Ok(times.figures(0))
}

/// A message of so many bytes, at least one, whose first byte says whether it belongs to the last round.
fn payload(size: usize, first: u8) -> Bytes {
    let mut payload = vec![0; size.max(1)];
    payload[0] = first;
    payload.into()
}
