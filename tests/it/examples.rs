//! The programs in `examples/programs`, as a user runs them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// An example's binary, built if it is not there; cargo has built it with the tests when all of them were asked for.
pub fn example(name: &str) -> PathBuf {
    let lswitch = PathBuf::from(env!("CARGO_BIN_EXE_lswitch"));
    let built = lswitch.with_file_name("examples").join(name);
    if !built.exists() {
        let cargo = Command::new(env!("CARGO"))
            .args(["build", "--example", name])
            .status();
        assert!(cargo.expect("cargo runs").success());
    }
    built
}

fn programs() -> PathBuf {
    example("programs")
}

/// Runs one, and gives its summary.
fn run(program: &str, workers: u32, per_function: u32, event: Option<Value>) -> Value {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(programs());
    command
        .args(["invoke", "run", program, "--json", "-q"])
        .args(["--workers", &workers.to_string()])
        .args(["--workers-per-function", &per_function.to_string()])
        .env("LSWITCH_HOME", folder.path())
        .current_dir(folder.path());
    if let Some(event) = event {
        std::fs::write(folder.path().join("event.json"), event.to_string()).unwrap();
        command.args(["--event", "event.json"]);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_token_goes_round_the_ring() {
    for (workers, per_function) in [(1, 1), (4, 1), (5, 2)] {
        let summary = run("ring", workers, per_function, None);
        let token: Vec<String> = (0..workers).map(|rank| rank.to_string()).collect();
        // A lone 0 is a number.
        let expected = match workers {
            1 => json!(0),
            _ => json!(token.join(" ")),
        };
        assert_eq!(summary["results"][0], expected);
        assert_eq!(
            summary["results"].as_array().unwrap().len(),
            workers as usize
        );
    }
}

#[test]
fn words_are_counted_once_however_many_workers_there_are() {
    let folder = TempDir::new().unwrap();
    let text = folder.path().join("text");
    let line = "The switch, the wire; the END\nand no words: 1 2 3\n\n";
    std::fs::write(&text, format!("{}last", line.repeat(1000))).unwrap();
    let event = json!({ "text": text, "top": 1 });
    for workers in [1, 3, 8] {
        let summary = run("word-count", workers, 1, Some(event.clone()));
        let results = summary["results"].as_array().unwrap();
        let sum = |key: &str| -> u64 { results.iter().map(|r| r[key].as_u64().unwrap()).sum() };
        assert_eq!((sum("words"), sum("distinct")), (9001, 8));
        let the = results
            .iter()
            .any(|result| result["top"] == json!([["the", 3000]]));
        assert!(the, "{results:?}");
    }
}

#[test]
fn the_switch_is_a_parameter_server() {
    let summary = run("parameter-server", 3, 1, Some(json!({ "rounds": 200 })));
    let results = summary["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(result["accuracy"].as_f64().unwrap() > 0.95, "{result}");
        assert_eq!(result["weights"], results[0]["weights"]);
    }
}

#[test]
fn darts_are_thrown_once_whoever_throws_them() {
    let event = json!({ "batches": 20, "darts": 10_000 });
    let one = run("monte-carlo", 1, 1, Some(event.clone()));
    let pi = one["results"][0]["pi"].as_f64().unwrap();
    assert!((pi - std::f64::consts::PI).abs() < 0.02, "{pi}");
    let four = run("monte-carlo", 4, 2, Some(event));
    let results = four["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["pi"] == pi));
    let batches: u64 = results.iter().map(|r| r["batches"].as_u64().unwrap()).sum();
    assert_eq!(batches, 20);
}

#[test]
fn primes_are_counted_by_a_function_on_a_pool() {
    let folder = TempDir::new().unwrap();
    for (arguments, expected) in [
        (
            &["30000", "--workers", "2"][..],
            "3245 primes below 30000\n",
        ),
        (&["100"], "25 primes below 100\n"),
    ] {
        let output = Command::new(example("pool"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert!(
            errors.contains("from 9 to 3 there is nothing to count"),
            "{errors}"
        );
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_what_can() {
    let refusal = |binary: PathBuf, arguments: &[&str]| {
        let output = Command::new(binary)
            .args(["invoke", "run"])
            .args(arguments)
            .env("LSWITCH_HOME", TempDir::new().unwrap().path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = refusal(programs(), &["rinq", "--workers", "2"]);
    let there_is =
        "there is no program \"rinq\"; there is: ring, word-count, parameter-server, monte-carlo";
    assert!(error.contains(there_is), "{error}");
    let error = refusal(programs(), &["--workers", "2"]);
    assert!(error.contains("say which program to run: ring"), "{error}");
    let error = refusal(programs(), &["ring"]);
    assert!(error.contains("--workers N"), "{error}");
    let error = refusal(programs(), &["ring", "--workers", "0"]);
    assert!(error.contains("at least 1"), "{error}");
    let own = PathBuf::from(env!("CARGO_BIN_EXE_lswitch"));
    let error = refusal(own, &["ring", "--workers", "2"]);
    assert!(error.contains("has no programs of its own"), "{error}");
}
