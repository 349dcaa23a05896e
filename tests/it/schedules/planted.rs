//! Bugs planted on purpose, all of which some schedule has to catch.

use super::run;
use lswitch::net::planted::{Bug, plant};
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::Mutex;
use std::thread;

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
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.into()));
            let words = words.unwrap_or_default();
            return Some((seed + 1, words.lines().next().unwrap_or_default().into()));
        }
    }
    None
}
