//! Random schedules of everything that decides who may send what: the real switch, its queues, credits, rooms,
//! mailboxes and chunks, driven without a socket, a thread or a clock, against a small model.
//!
//! A schedule is a job or two of a few packs, with mailboxes, queues and chunks of a few bytes, and some hundred random
//! events: a rank sends, receives or is done, a pack writes some bytes to the switch or the switch to a pack, a pack leaves,
//! is lost, or breaks the protocol. Then all is drained. Half of the schedules are programs in which every send may wait
//! for its receive: they must complete. `LSWITCH_SCHEDULES` says how many, `LSWITCH_SCHEDULE` names the one that failed.

mod out;
#[cfg(feature = "planted-bugs")]
mod planted;
mod world;

use crate::random::variable;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use world::run;
pub use world::{NOW, hello, secret};

/// Schedules of one run of the tests.
const SCHEDULES: u64 = 100_000;

/// Prints the seed of a schedule that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("LSWITCH_SCHEDULE={} repeats this schedule", self.0);
        }
    }
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
