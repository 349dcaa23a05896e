//! `lswitch invoke wordcount`, as a user runs it.

use std::fs;
use std::io::Read;

use rustix::process::Signal;

use crate::support::{Place, assert_says, children, data};

#[test]
fn little_memory_and_pieces_without_words_lose_nothing() {
    let place = Place::new();
    for number in 0..6 {
        place.write(&format!("in/{number}a.txt"), "  \n\t\n".repeat(100));
        place.write(&format!("in/{number}b.txt"), "one two one\n");
    }
    for more in [
        "--workers 1 --memory 1KiB",
        "--workers 3 --memory 1KiB",
        "--workers 2",
    ] {
        let run = format!("invoke wordcount --words letters --input in {more}");
        assert_eq!(
            place.lswitch(&run).ok().stdout,
            "one\t12\ntwo\t6\n",
            "{more}"
        );
    }
}

#[test]
fn counts_are_those_of_the_reference_for_any_number_of_workers() {
    let Some(folder) = data("text") else {
        return;
    };
    for words in ["letters-lower", "letters", "space"] {
        let counts = fs::read(folder.join(format!("counts-{words}.tsv.gz"))).unwrap();
        let mut expected = String::new();
        flate2::read::GzDecoder::new(&counts[..])
            .read_to_string(&mut expected)
            .unwrap();
        for more in [
            "--workers 1",
            "--workers 2",
            "--workers 5 --workers-per-function 2",
            "--workers 3 --memory 1MiB",
        ] {
            let place = Place::new();
            let ended = place
                .lswitch(&format!("invoke wordcount --words {words} {more} --input"))
                .arg(folder.join("*.txt"))
                .ok();
            assert!(ended.stdout == expected, "{words} {more}");
            let said = place
                .lswitch(&format!(
                    "invoke wordcount --words {words} {more} --output out --json --input"
                ))
                .arg(folder.join("*.txt"))
                .ok()
                .json();
            assert_eq!(said["different"], expected.lines().count());
            let mut parts: Vec<_> = fs::read_dir(place.path("out"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "tsv"))
                .collect();
            parts.sort_unstable();
            let all: String = parts
                .iter()
                .map(|part| fs::read_to_string(part).unwrap())
                .collect();
            assert!(all == expected, "{words} {more}");
        }
    }
}

#[test]
fn more_words_than_memory_holds_and_a_killed_worker_change_nothing() {
    let place = Place::new();
    let mut text = String::new();
    for number in 0..400_000_u32 {
        text += &format!(
            "w{} {:x}\x01\t",
            number % 60_000,
            number.wrapping_mul(2_654_435_761)
        );
        if number % 10 == 9 {
            text.push('\n');
        }
    }
    place.write("text", &text);
    let count = |more: &str| {
        place.lswitch(&format!(
            "invoke wordcount --input text --words space --workers 3 {more}"
        ))
    };
    let expected = count("--memory 1GiB").ok().stdout;
    assert_eq!(expected.lines().count(), 460_000);
    assert!(
        expected
            .lines()
            .is_sorted_by_key(|line| line.rsplit_once('\t').unwrap().0)
    );
    let small = count("--memory 2MiB --json --output out").ok().json();
    assert_eq!(
        (&small["different"], &small["words"]),
        (&460_000.into(), &800_000.into())
    );
    assert!(small["spilled_bytes"].as_u64().unwrap() > 0);
    let again = count("--memory 2MiB").ok();
    assert!(again.stdout == expected);

    let running = count("--memory 2MiB").start();
    let worker = running.until_ok("it has a worker", || {
        children(running.id()).into_iter().next()
    });
    worker.signal(Signal::KILL);
    let ended = running.wait().ok();
    assert!(ended.stdout == expected);
    assert_says(&ended.stderr, &["the job is started again"]);
}

#[test]
fn inputs_that_are_not_there_are_named() {
    let place = Place::new();
    for (arguments, words) in [
        ("--input nothing", "--input nothing: there is no such file"),
        (
            "--input home",
            "home: the folder has no files that are data",
        ),
        ("--input home --json", "--output"),
    ] {
        let ended = place
            .lswitch(&format!("invoke wordcount {arguments}"))
            .end();
        assert_eq!(ended.code, Some(2), "{ended}");
        assert_says(&ended.stderr, &[words]);
    }
}
