//! Jobs over several switches, as a user runs them: the same results, and every fault told with where it was.

use rustix::process::Signal;

use crate::faults::ENDLESS;
use crate::support::{Place, Run, Running, Worker, assert_gone, assert_says};

/// A place with a small graph and two switches that share its secret.
fn two() -> (Place, [(Running, String); 2]) {
    let place = Place::new();
    place.small_graph();
    let switches = [place.switch(), place.switch()];
    (place, switches)
}

/// An endless job of four workers over these switches.
fn endless(place: &Place, addresses: &[&str]) -> (Running, Vec<Worker>) {
    let job = with(place.lswitch(ENDLESS), addresses).arg("--workers=4");
    let job = job.start();
    let workers = job.workers(4);
    (job, workers)
}

fn with(run: Run, addresses: &[&str]) -> Run {
    run.arg("--switch").arg(addresses.join(","))
}

#[test]
fn the_result_is_the_same_to_the_bit_over_one_two_and_three_switches() {
    let (place, switches) = two();
    let third = place.switch();
    let addresses = [&switches[0].1, &switches[1].1, &third.1].map(String::as_str);
    let run = |name: &str, switches: usize, packs: &str| {
        let job = format!("invoke pagerank --graph graph --iterations 30 {packs} --output {name}");
        with(place.lswitch(&job), &addresses[..switches]).ok();
        place.output(name).files
    };
    let one = run("one", 1, "--workers 4");
    assert!(!one.is_empty());
    assert_eq!(run("two", 2, "--workers 4"), one);
    assert_eq!(run("three", 3, "--workers 4"), one);
    assert_eq!(run("packs", 3, "--workers 4 --workers-per-function 2"), one);
}

#[test]
fn a_switch_that_is_killed_is_named_whichever_it_is() {
    for index in [0, 1] {
        let (place, switches) = two();
        let addresses = [switches[0].1.as_str(), switches[1].1.as_str()];
        let (job, workers) = endless(&place, &addresses);
        switches[index].0.signal(Signal::KILL);
        let ended = job.within_s(15).wait();
        let names = format!("the connection to the switch at {}", addresses[index]);
        assert_says(ended.fails_with(1), &[&names]);
        assert_gone(workers.iter().map(|worker| &worker.process), 5);
    }
}

#[test]
fn a_worker_that_is_killed_is_blamed_and_not_a_switch() {
    let (place, switches) = two();
    let addresses = [switches[0].1.as_str(), switches[1].1.as_str()];
    let (job, workers) = endless(&place, &addresses);
    workers[2].process.signal(Signal::KILL);
    let ended = job.within_s(10).wait();
    assert_says(ended.fails_with(1), &["worker 2 (rank 2) failed"]);
    assert_gone(workers.iter().map(|worker| &worker.process), 5);
    // The switches go on.
    let next = "invoke pagerank --graph graph --workers 2";
    with(place.lswitch(next), &addresses).ok();
}

#[test]
fn a_switch_that_is_missing_or_named_twice_is_told() {
    let (place, switches) = two();
    let address = switches[0].1.as_str();
    let job = || place.lswitch("invoke pagerank --graph graph --workers 2");
    let twice = with(job(), &[address, &switches[1].1, address]).end();
    assert_says(twice.fails_with(2), &["--switch names", address, "twice"]);
    let missing = with(job(), &[address, "127.0.0.1:1"]).end();
    assert_says(
        missing.fails_with(1),
        &["cannot reach the switch at 127.0.0.1:1"],
    );
    let many: Vec<String> = (1..=17).map(|port| format!("127.0.0.1:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let many = with(job(), &many).end();
    assert_says(many.fails_with(2), &["17 switches", "at most 16"]);
}

#[test]
fn benches_run_over_two_switches() {
    let (place, switches) = two();
    let addresses = [switches[0].1.as_str(), switches[1].1.as_str()];
    for bench in [
        "all-to-all --workers 4",
        "all-to-all --workers 4 --workers-per-function 2",
        "all-reduce --workers 3 --size 300KB",
        "pair --size 2MB",
        "barrier --workers 3 --processes",
    ] {
        let bench = format!("-q bench {bench} --seconds 0.1 --warm-up 0 --json");
        let printed = with(place.lswitch(&bench), &addresses).ok().stdout;
        let figures: serde_json::Value = serde_json::from_str(&printed).expect("one line of JSON");
        assert!(figures["rounds"].as_u64() > Some(0), "{bench}: {printed}");
    }
}
