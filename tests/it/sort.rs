//! `lswitch invoke sort`, `generate records` and `check sort`, as a user runs them.

use std::fs;
use std::io::Read;

use lswitch::random::to_hex;
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Place, assert_says, data, s3_server};

/// The parts of an output, one after the other.
fn parts(place: &Place, folder: &str) -> Vec<u8> {
    let mut names: Vec<_> = fs::read_dir(place.path(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("part-")
        })
        .collect();
    names.sort_unstable();
    names
        .iter()
        .flat_map(|name| fs::read(name).unwrap())
        .collect()
}

fn unzipped(path: &std::path::Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    if path.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut plain)
        .unwrap();
    plain
}

#[test]
fn records_of_the_sort_benchmark_come_out_as_the_facts_say() {
    let Some(facts) = data("sort/facts.tsv") else {
        return;
    };
    let facts = fs::read_to_string(facts).unwrap();
    for line in facts.lines().skip(1) {
        let fact: Vec<&str> = line.split('\t').collect();
        let place = Place::new();
        let plain = unzipped(&data(&format!("sort/{}", fact[0])).expect("it is beside the facts"));
        place.write("records", &plain);
        for workers in [1, 2, 3, 7] {
            for more in ["", "--memory 64KiB --workers-per-function 2"] {
                place
                    .lswitch(&format!(
                        "invoke sort --input records --format records --output out --overwrite --workers {workers} {more}"
                    ))
                    .ok();
                let hash = to_hex(&Sha256::digest(parts(&place, "out")));
                assert_eq!(hash, fact[8], "{} with {workers} workers {more}", fact[0]);
            }
        }
        let checked = place
            .lswitch("check sort out --with records --format records --json")
            .ok()
            .json();
        assert_eq!(checked["records"].to_string(), fact[3]);
        assert_eq!(checked["checksum"], fact[4]);
        assert_eq!(checked["duplicates"].to_string(), fact[5]);
        // As lines, where they are.
        if fact[1].starts_with("ASCII") || fact[1].starts_with("REAL") {
            place
                .lswitch("invoke sort --input records --output lines")
                .ok();
            assert_eq!(to_hex(&Sha256::digest(parts(&place, "lines"))), fact[8]);
        }
    }
}

#[test]
fn lines_of_any_length_are_sorted_across_files_whatever_the_memory() {
    let place = Place::new();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for file in 0..5_u32 {
        let mut text = Vec::new();
        for number in 0..3000_u32 {
            let mixed = (number + file * 3000).wrapping_mul(2_654_435_761);
            let mut line = vec![b'a' + (mixed % 7) as u8; (mixed >> 20) as usize % 300];
            line.extend_from_slice(&(mixed % 1000).to_le_bytes()[..2]);
            line.retain(|byte| *byte != b'\n');
            text.extend_from_slice(&line);
            // The last line of a file has no end.
            if number < 2999 {
                text.push(b'\n');
            }
            lines.push(line);
        }
        place.write(&format!("in/{file}"), text);
    }
    lines.sort();
    let expected: Vec<u8> = lines
        .iter()
        .flat_map(|line| [line, &b"\n"[..]].concat())
        .collect();
    for (workers, memory) in [(1, "1GiB"), (4, "1GiB"), (3, "300KiB"), (16, "64KiB")] {
        let ended = place
            .lswitch(&format!(
                "invoke sort --input in --output out --overwrite --workers {workers} --memory {memory} --json"
            ))
            .ok();
        assert!(
            parts(&place, "out") == expected,
            "{workers} workers, {memory}"
        );
        let said = ended.json();
        assert_eq!(said["records"], 15_000);
        let spilled = said["spilled_bytes"].as_u64().unwrap();
        assert_eq!(spilled > 0, memory != "1GiB", "{memory}: {spilled}");
        place.lswitch("check sort out").ok();
    }
    let left: Vec<_> = fs::read_dir(place.path(".lswitch/sort"))
        .unwrap()
        .flat_map(|job| fs::read_dir(job.unwrap().path()).unwrap())
        .collect();
    assert!(left.is_empty(), "what was spilled is removed: {left:?}");
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_worker_that_is_killed_costs_time_and_nothing_else() {
    let place = Place::new();
    place
        .lswitch("generate records --count 1500000 --layout binary --out records")
        .ok();
    let running = place
        .lswitch(
            "invoke sort --input records --format records --output out --workers 3 --memory 40MiB",
        )
        .start();
    running.workers(3)[0].process.signal(Signal::KILL);
    let ended = running.wait().ok();
    assert_says(&ended.stderr, &["the job is started again"]);
    place
        .lswitch("check sort out --with records --format records")
        .ok();
    let ended = place
        .lswitch("invoke sort --input records --format records --output out --workers 3")
        .end();
    assert_says(ended.fails_with(2), &["give --overwrite"]);
}

#[test]
fn what_is_not_sorted_or_is_something_else_is_found() {
    let place = Place::new();
    place.write("a", "a\nb\n");
    place.write("b", "b\nc\n");
    place.write("half", "a\nb");
    let check = |arguments: &str| place.lswitch(&format!("check sort {arguments}")).end();
    check("a b").ok();
    check("a --with half").ok();
    for (arguments, words) in [
        ("b a", "record 2, counted from 0, is lower"),
        ("a --with b", "these are other records"),
        ("a --format records", "a ends within a record"),
        ("nothing", "cannot read nothing"),
        ("home", "no files that are called part-"),
    ] {
        let ended = check(arguments);
        assert_eq!(ended.code, Some(1), "{ended}");
        assert_says(ended.message(), &[words]);
    }
    for (arguments, words) in [
        (
            "--input a --format records",
            "a has 4 bytes, which are no whole records of 100",
        ),
        ("--input nothing", "there is no such file"),
        ("--input 0..5", "names no files or objects"),
        ("--input a --memory 5parsecs", "is no unit of bytes"),
        (
            "--input a --format records --record-size 0",
            "--record-size is between",
        ),
    ] {
        let ended = place
            .lswitch(&format!("invoke sort --output out {arguments}"))
            .end();
        assert_eq!(ended.code, Some(2), "{ended}");
        assert_says(&ended.stderr, &[words]);
    }
    // Nothing is sorted too.
    place.write("empty", "");
    place
        .lswitch("invoke sort --input empty --output out --workers 3")
        .ok();
    assert_eq!(parts(&place, "out"), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_sorted_in_s3() {
    let place = Place::new();
    let folder = place.path("s3");
    let server = s3_server(&folder).await;
    let bucket = folder.join(&server.bucket);
    fs::create_dir_all(bucket.join("in")).unwrap();
    for number in 0..3 {
        place
            .lswitch(&format!(
                "generate records --count 4000 --seed {number} --out s3/{}/in/{number}",
                server.bucket
            ))
            .ok();
    }
    let base = format!("s3://{}", server.bucket);
    let said: Value = place
        .lswitch(&format!(
            "invoke sort --input {base}/in/ --output {base}/out --store {base}/job --workers 3 --memory 200KiB --json"
        ))
        .envs(&server.env())
        .ok()
        .json();
    assert_eq!(said["records"], 12_000);
    assert!(said["spilled_bytes"].as_u64().unwrap() > 0);
    let (out, input) = (bucket.join("out"), bucket.join("in"));
    let ended = place.lswitch("check sort").arg(&out).arg("--with");
    let inputs = (0..3).map(|number| input.join(number.to_string()));
    let mut ended = ended;
    for (number, input) in inputs.enumerate() {
        if number > 0 {
            ended = ended.arg("--with");
        }
        ended = ended.arg(input);
    }
    ended.ok();
}
