//! Objects that change between a job's write and its read: the job names them and fails, and never goes on with other bytes.
//!
//! The jobs wait for a file, `go`, while the test changes what they have written.

use crate::support::{Ended, Place, Running, assert_says};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A program of `sh`. `hold` in it waits for the file `go`, a minute at most.
fn script(place: &Place, name: &str, text: &str) {
    let hold = format!(
        "hold() {{ n=0; while [ ! -e {} ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; }}",
        place.path("go").display()
    );
    let path = place.write(name, format!("#!/bin/sh\n{hold}\n{text}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The objects of a job of this kind in its store whose names begin so, sorted.
fn objects(place: &Place, program: &str, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for job in fs::read_dir(place.path(".lswitch").join(program))
        .into_iter()
        .flatten()
    {
        let (folder, name) = match name.split_once('/') {
            Some((folder, name)) => (job.unwrap().path().join(folder), name),
            None => (job.unwrap().path(), name),
        };
        let files = fs::read_dir(folder).into_iter().flatten();
        let files = files.map(|file| file.unwrap().path());
        found.extend(files.filter(|file| {
            let own = file.file_name().unwrap().to_string_lossy();
            own.starts_with(name)
        }));
    }
    found.sort();
    found
}

/// Waits until there are so many.
fn wait_for(
    running: &Running,
    place: &Place,
    (program, name): (&str, &str),
    count: usize,
) -> Vec<PathBuf> {
    running.until_ok("its objects are there", || {
        Some(objects(place, program, name)).filter(|found| found.len() >= count)
    })
}

/// What happens to an object; `other` is one of the same kind.
type Change = (&'static str, fn(&Path, &Path), &'static str);

const CHANGES: [Change; 6] = [
    (
        "a flipped bit",
        |object, _| {
            let mut bytes = fs::read(object).unwrap();
            let at = bytes.len() - 30;
            bytes[at] ^= 4;
            fs::write(object, bytes).unwrap();
        },
        "is damaged: ",
    ),
    (
        "a cut",
        |object, _| {
            let bytes = fs::read(object).unwrap();
            fs::write(object, &bytes[..bytes.len() - 20]).unwrap();
        },
        "is damaged: ",
    ),
    (
        "emptied",
        |object, _| fs::write(object, "").unwrap(),
        "is damaged: ",
    ),
    (
        "another object in its place",
        |object, other| {
            fs::copy(other, object).unwrap();
        },
        "is damaged: ",
    ),
    (
        "other bytes of the same length",
        |object, _| fs::write(object, vec![b'x'; fs::read(object).unwrap().len()]).unwrap(),
        "is damaged: ",
    ),
    (
        "deleted",
        |object, _| fs::remove_file(object).unwrap(),
        "there is no object",
    ),
];

fn go(place: &Place, running: Running) -> Ended {
    fs::write(place.path("go"), "").unwrap();
    let ended = running.wait();
    fs::remove_file(place.path("go")).unwrap();
    ended
}

#[test]
fn spilled_runs_of_a_reduction_that_change_are_named() {
    let place = Place::new();
    let lines: String = (0..500_000_u64)
        .map(|number| format!("{:012}\n", number * 7_919 % 1_000_003))
        .collect();
    place.write("lines", &lines);
    script(&place, "count", "hold; wc -l");
    for (what, change, words) in CHANGES {
        // The program that the lines are for waits, so that no more than the first of each run is read.
        let running = place
            .lswitch(
                "invoke map --exec cat --items lines --split 1MiB --reduce ./count --workers 1 --memory 34MiB --output out --overwrite",
            )
            .start();
        let key = ("reduce", "spill-");
        // The last run may still be written; the others stay as they are.
        let runs = wait_for(&running, &place, key, 4);
        change(&runs[1], &runs[2]);
        let ended = go(&place, running);
        assert_eq!(ended.code, Some(1), "{what}: {ended}");
        let name = runs[1].file_name().unwrap().to_string_lossy();
        assert_says(&ended.stderr, &[&name, words]);
        assert!(!place.path("out/result.json").exists(), "{what}");
    }
    let running = place
        .lswitch(
            "invoke map --exec cat --items lines --split 1MiB --reduce ./count --workers 1 --memory 34MiB",
        )
        .start();
    wait_for(&running, &place, ("reduce", "spill-"), 4);
    let ended = go(&place, running).ok();
    assert_eq!(ended.stdout.trim(), "500000");
}

/// Prints something short for item 0, something long for 1 and 2, and waits with item 3.
fn outputs(place: &Place) {
    script(
        place,
        "print",
        "read n; case $n in 0) echo short;; 3) hold; echo last;; *) head -c 100000 /dev/zero | tr '\\0' $n; echo;; esac",
    );
}

#[test]
fn outputs_of_a_map_that_change_before_the_next_phase_are_named() {
    let place = Place::new();
    outputs(&place);
    for phase in ["--reduce cat", "--combine cat"] {
        let run = || {
            let map = "invoke map --exec ./print --items 0..4 --workers 2 --no-backups --retries 0";
            place
                .lswitch(&format!("{map} --output out --overwrite {phase}"))
                .start()
        };
        for gathered in [true, false] {
            for (what, change, words) in CHANGES {
                let running = run();
                let long = wait_for(&running, &place, ("map", "outputs/"), 2);
                let short = wait_for(&running, &place, ("map", "gathered/0"), 1);
                let (object, other) = match gathered {
                    true => (&short[0], &long[0]),
                    false => (&long[0], &long[1]),
                };
                change(object, other);
                let ended = go(&place, running);
                assert_eq!(ended.code, Some(1), "{phase}, {what}: {ended}");
                let name = object.file_name().unwrap().to_string_lossy();
                assert_says(&ended.stderr, &[&name, words]);
                assert!(!place.path("out/result.json").exists(), "{phase}, {what}");
                // What is kept for --resume is not of the next run.
                fs::remove_dir_all(place.path(".lswitch/map")).unwrap();
            }
        }
        let running = run();
        wait_for(&running, &place, ("map", "gathered/0"), 1);
        go(&place, running).ok();
        let bytes = fs::read(place.path("out/part-00000.txt"))
            .unwrap_or_default()
            .len();
        let more = fs::read(place.path("out/part-00001.txt"))
            .unwrap_or_default()
            .len();
        assert_eq!(bytes + more, 200_000 + "short\n\n\nlast\n".len(), "{phase}");
        fs::remove_dir_all(place.path("out")).unwrap();
    }
}

#[test]
fn a_long_output_that_changes_before_it_is_printed_is_named_and_can_be_made_again() {
    let place = Place::new();
    script(
        &place,
        "print",
        "read n; case $n in 0) hold; echo first;; *) head -c 100000 /dev/zero | tr '\\0' $n; echo;; esac",
    );
    let command = "invoke map --exec ./print --items 0..3 --workers 2 --no-backups";
    let long = |number: u32| format!("{}\n", number.to_string().repeat(100_000));
    for (what, change, words) in CHANGES {
        let running = place.lswitch(command).start();
        let stored = wait_for(&running, &place, ("map", "outputs/"), 2);
        change(&stored[1], &stored[0]);
        let ended = go(&place, running);
        assert_eq!(ended.code, Some(1), "{what}: {ended}");
        let name = stored[1].file_name().unwrap().to_string_lossy();
        assert_says(&ended.stderr, &[&name, words, "--resume"]);
        // What was printed is right, as far as it goes.
        assert_eq!(ended.stdout, format!("first\n{}", long(1)), "{what}");
        fs::write(place.path("go"), "").unwrap();
        let resume = |ended: &Ended| {
            let (_, job) = ended
                .stderr
                .split_once("the same with --resume ")
                .expect("it is kept");
            let job = job.split_whitespace().next().unwrap();
            place.lswitch(&format!("{command} --resume {job}")).end()
        };
        let mut again = resume(&ended);
        if again.code != Some(0) {
            // As long as it was: only reading it shows the damage.
            assert_says(&again.stderr, &["is damaged", "Delete it"]);
            fs::remove_file(&stored[1]).unwrap();
            again = resume(&again);
        }
        let again = again.ok();
        assert!(
            again.stdout == format!("first\n{}{}", long(1), long(2)),
            "{what}"
        );
        fs::remove_file(place.path("go")).unwrap();
    }
}

#[test]
fn code_that_changes_in_the_store_or_on_the_worker_does_not_run() {
    let place = Place::new();
    script(&place, "work", "echo right");
    // What travelled before is compared when it is used again.
    place.lswitch("invoke map --exec ./work --items 0..1").ok();
    let code = fs::read_dir(place.path(".lswitch/code")).unwrap().next();
    let code = code.unwrap().unwrap().path();
    fs::write(&code, "#!/bin/sh\necho wrong\n").unwrap();
    let ended = place.lswitch("invoke map --exec ./work --items 0..1").end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert_says(ended.message(), &["has another value than its name says"]);
}

#[test]
fn a_copy_of_a_pipe_that_changes_is_named() {
    let place = Place::new();
    // More than one read, so that the last piece is read after the change.
    let line = format!("{}\n", "x".repeat(63));
    let lines = place.write("lines", line.repeat(16 << 10));
    script(&place, "count", "hold; wc -l");
    let command = "invoke map --exec ./count --items - --split 128KiB --workers 1 --no-backups";
    let run = || {
        let lines = fs::File::open(&lines).unwrap();
        place
            .lswitch(&format!("{command} --retries 0"))
            .stdin(lines)
            .start()
    };
    for (what, change, words) in CHANGES {
        if what == "another object in its place" {
            continue;
        }
        let running = run();
        let copy = wait_for(&running, &place, ("map", "input"), 1);
        change(&copy[0], &copy[0]);
        let ended = go(&place, running);
        assert!(matches!(ended.code, Some(1 | 3)), "{what}: {ended}");
        assert_says(&ended.stderr, &["/input", words]);
        // A map of which nothing is done has deleted it.
        let _ = fs::remove_dir_all(place.path(".lswitch/map"));
    }
    let running = run();
    wait_for(&running, &place, ("map", "input"), 1);
    let ended = go(&place, running).ok();
    let counted: u64 = ended
        .stdout
        .lines()
        .map(|line| line.trim().parse::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 16 << 10);
}
