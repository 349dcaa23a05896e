//! What goes wrong while a job runs, on purpose: every fault ends the job in time, with an error that says where, and
//! leaves no process behind.

mod chaos;
mod input;
mod launch;
mod switch;
mod worker;

use std::fs;
use std::path::PathBuf;

use crate::support::{Place, Process, Run, Running, SECRET, Worker, assert_gone};

/// A job that does not end by itself, on a graph that [`Place::small_graph`] made.
pub const ENDLESS: &str = "invoke pagerank --graph graph --iterations 4294967295 --delay-ms 5";

/// A place with a small graph in which an endless job runs, and its workers.
fn endless(workers: u32) -> (Place, Running, Vec<Worker>) {
    let place = Place::new();
    place.small_graph();
    let job = place.lswitch(&format!("{ENDLESS} --workers {workers} --output ranks"));
    let job = job.start();
    let workers = job.workers(workers);
    (place, job, workers)
}

fn processes(workers: &[Worker]) -> impl Iterator<Item = &Process> {
    workers.iter().map(|worker| &worker.process)
}

/// Nothing of the job is left: no process, no folder, and no result that would pass for a whole one.
fn assert_nothing_is_left(place: &Place, workers: &[Worker]) {
    assert_gone(processes(workers), 1);
    place.assert_nothing_is_left_in_tmp();
    assert!(!place.path("ranks/result.json").exists());
}

/// With a switch of its own the job knows it at this address.
fn with_switch(run: Run, address: &str) -> Run {
    run.arg("--switch")
        .arg(address)
        .env("LSWITCH_SECRET", SECRET)
}

/// A switch in a place of its own, with [`SECRET`].
fn serve(place: &Place) -> (Running, String) {
    place.write("home/.lswitch/secret", SECRET);
    make_private(place.path("home/.lswitch/secret"), 0o600);
    place.switch()
}

fn make_private(path: PathBuf, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is our own file");
}
