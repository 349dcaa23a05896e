//! `lswitch bench`, as a user runs it. What it measures is not judged here, only that it measures.

use crate::support::Place;
use serde_json::Value;

const SHORT: &str = "--warm-up 0.05 --seconds 0.2";

fn figures(stdout: &str) -> Vec<Value> {
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect()
}

#[test]
fn each_pattern_gives_figures_for_each_size() {
    let place = Place::new();
    for (pattern, crosses) in [
        ("pair --size 64,100KiB", true),
        ("all-to-all --workers 4 --size 0,1KiB", true),
        (
            "all-to-all --workers 6 --workers-per-function 2 --size 64",
            true,
        ),
        ("broadcast --workers 3 --size 1MiB", false),
        ("all-reduce --workers 3 --size 100KB", false),
        ("barrier --workers 4 --workers-per-function 2", false),
    ] {
        let ended = place
            .lswitch(&format!("-q bench {pattern} {SHORT} --json"))
            .ok();
        let figures = figures(&ended.stdout);
        assert_eq!(figures.len(), if pattern.contains(',') { 2 } else { 1 });
        for line in figures {
            let number = |path: &str| line.pointer(path).and_then(Value::as_f64);
            let p50 = number("/latency/p50_us").expect("there is a median");
            let max = number("/latency/max_us").expect("there is a longest");
            assert!(0.0 < p50 && p50 <= max, "{line}");
            assert!(
                number("/rounds").is_some_and(|rounds| rounds > 0.0),
                "{line}"
            );
            let messages = number("/messages_per_s").expect("it is there, if only as 0");
            assert_eq!(messages > 0.0, crosses, "{line}");
        }
    }
}

#[test]
fn workers_and_a_switch_of_its_own_are_measured_too() {
    let place = Place::new();
    let (_switch, address) = place.switch();
    let table = place
        .lswitch(&format!(
            "-q bench all-to-all --workers 4 --workers-per-function 2 --processes --switch {address} {SHORT}"
        ))
        .ok()
        .stdout;
    assert_eq!(table.lines().count(), 2, "a heading and a line:\n{table}");
    let launch = place
        .lswitch("-q bench launch --workers 2 --processes --json")
        .ok();
    let joined = &figures(&launch.stdout)[0]["latency"]["p50_us"];
    assert!(joined.as_f64().is_some_and(|us| us > 0.0), "{joined}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::new();
    for (arguments, reason) in [
        ("pair --workers 1", "--workers 2"),
        (
            "all-to-all --workers 4 --workers-per-function 4",
            "share one function",
        ),
        ("pair --size 5GiB", "at most 4 GiB"),
        ("pair --size 12parsecs", "no unit of bytes"),
    ] {
        let ended = place.lswitch(&format!("bench {arguments}")).end();
        assert_eq!(ended.code, Some(2), "{arguments}");
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
}
