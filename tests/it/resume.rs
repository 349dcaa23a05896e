//! `--resume`: a job is resumed only as what it was, and nothing of it is lost or doubled.

use crate::support::{Ended, Place, assert_says};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn script(place: &Place, name: &str, text: &str) {
    let path = place.write(name, format!("#!/bin/sh\n{text}"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A program that prints `word` and its input, and fails with an input that begins with `bad` unless the file `go` is there.
fn program(place: &Place, word: &str) {
    let go = place.path("go");
    let text = format!(
        "read n; case $n in bad*) [ -e {} ] || exit 1;; esac; echo {word} $n\n",
        go.display()
    );
    script(place, "work", &text);
}

fn run(place: &Place, more: &str) -> Ended {
    place
        .lswitch(&format!("invoke map --workers 2 --retries 0 {more}"))
        .end()
}

/// Runs a map of which an item fails; gives its id.
fn begin(place: &Place, command: &str) -> String {
    let _ = fs::remove_file(place.path("go"));
    let ended = run(place, command);
    assert_eq!(ended.code, Some(3), "{ended}");
    fs::write(place.path("go"), "").unwrap();
    kept(&ended)
}

/// The job that a run says can be resumed.
fn kept(ended: &Ended) -> String {
    let kept = ended.stderr.split_once("the same with --resume ");
    let (_, job) = kept.unwrap_or_else(|| panic!("{ended}"));
    job.split_whitespace().next().unwrap().to_owned()
}

fn journal(place: &Place, job: &str) -> PathBuf {
    place.path(&format!("home/.lswitch/jobs/{job}/journal"))
}

#[test]
fn a_job_is_not_resumed_with_another_program_arguments_or_pieces() {
    let place = Place::new();
    program(&place, "v1");
    place.write("items", "a\nb\nbad\nc\n");
    place.write("script", "read n; echo v1 $n; [ $n != bad ] || [ -e go ]");
    let script = place.path("script");
    let go = place.path("go");
    let arguments = format!(
        "read n; [ $n != bad ] || [ -e {} ] && echo $n",
        go.display()
    );
    let own = |more: &str| format!("--exec ./work --items items {more}");
    let shell = |text: &str, job: &str| {
        let resume = match job {
            "" => String::new(),
            job => format!("--resume {job}"),
        };
        place
            .lswitch(&format!(
                "invoke map --exec sh --items items --workers 2 --retries 0 {resume} -- -c"
            ))
            .arg(text)
            .end()
    };

    let job = begin(&place, &own(""));
    program(&place, "v2");
    let ended = run(&place, &own(&format!("--resume {job}")));
    let message = ended.fails_with(2);
    let had = format!("the program is another than job {} had", &job[..8]);
    assert_says(message, &[&had, "--resume-anyway", "3 outputs"]);
    // As it was, it is resumed.
    program(&place, "v1");
    for (more, words) in [
        ("--batch-size 2", "--batch-size is another"),
        ("--split 1KiB", "--split is another"),
    ] {
        let ended = run(&place, &own(&format!("{more} --resume {job}")));
        assert_says(ended.fails_with(2), &[words, "--resume-anyway"]);
    }
    let ended = run(&place, &own(&format!("--resume {job}"))).ok();
    assert_eq!(ended.stdout, "v1 a\nv1 b\nv1 bad\nv1 c\n");
    assert!(!journal(&place, &job).exists());

    // Arguments, and a script among them.
    let _ = fs::remove_file(&go);
    let ended = shell(&arguments, "");
    let ended = shell(&format!("{arguments} x"), &kept(&ended));
    assert_says(
        ended.fails_with(2),
        &["arguments are others than job", "--resume-anyway"],
    );
    let with_script = format!(
        "invoke map --exec sh --items items --workers 2 --retries 0 --resume JOB -- {}",
        script.display()
    );
    let ended = place
        .lswitch(&with_script.replace("--resume JOB", ""))
        .end();
    let job = kept(&ended);
    place.write("script", "read n; echo v2 $n");
    let ended = place.lswitch(&with_script.replace("JOB", &job)).end();
    assert_says(
        ended.fails_with(2),
        &["script, an argument of the program, has changed"],
    );
}

#[test]
fn a_job_is_not_resumed_with_other_items() {
    let place = Place::new();
    program(&place, "v1");
    for number in 0..4 {
        place.write(&format!("f/{number}"), format!("{number}\n"));
    }
    place.write("f/9", "bad\n");
    let command = "--exec ./work --items f/*";
    let job = begin(&place, command);
    // The same length, and another time.
    place.write("f/1", "7\n");
    let ended = run(&place, &format!("{command} --resume {job}"));
    assert_eq!(ended.code, Some(1), "{ended}");
    assert_says(&ended.stderr, &["item 1 is now", "f/1", "written since"]);
    let job = kept(&ended);
    place.write("f/5", "5\n");
    let ended = run(&place, &format!("{command} --resume {job}"));
    assert_says(ended.fails_with(2), &["there are 6, and were 5"]);
    fs::remove_file(place.path("f/5")).unwrap();
    let ended = run(&place, &format!("{command} --resume {job} --resume-anyway")).ok();
    assert_eq!(ended.stdout, "v1 0\nv1 7\nv1 2\nv1 3\nv1 bad\n");
}

#[test]
fn a_job_that_is_resumed_anyway_says_which_outputs_are_of_the_former() {
    let place = Place::new();
    program(&place, "v1");
    place.write("items", "a\nb\nbad\nc\n");
    let command = "--exec ./work --items items";
    let job = begin(&place, command);
    program(&place, "v2");
    let ended = run(&place, &format!("{command} --resume {job} --resume-anyway")).ok();
    assert_eq!(ended.stdout, "v1 a\nv1 b\nv2 bad\nv1 c\n");
    assert_says(
        &ended.stderr,
        &[
            "3 outputs are of the job as it was",
            "the program is another",
        ],
    );
    let ended = run(&place, &format!("{command} --resume-anyway"));
    assert_eq!(ended.code, Some(2), "it is nothing by itself: {ended}");
}

#[test]
fn a_damaged_journal_is_named_and_a_torn_one_loses_its_last_entry_alone() {
    let place = Place::new();
    program(&place, "v1");
    let items: String = (0..50).map(|number| format!("{number}\n")).collect();
    place.write("items", format!("{items}bad\n"));
    let expected: String = (0..50).map(|number| format!("v1 {number}\n")).collect();
    let expected = format!("{expected}v1 bad\n");
    let command = "--exec ./work --items items";
    let job = begin(&place, command);
    let whole = fs::read(journal(&place, &job)).unwrap();
    let middle = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[middle] ^= 1;
    let without = [&whole[..middle], &whole[middle + 40..]].concat();
    let longer = [&whole[..], &[b'x'; 64]].concat();
    for changed in [&flipped, &without, &longer] {
        fs::write(journal(&place, &job), changed).unwrap();
        let ended = run(&place, &format!("{command} --resume {job}"));
        assert_says(
            ended.fails_with(1),
            &["journal is damaged at byte", "--resume-anyway"],
        );
    }
    let empty = b"".to_vec();
    for none in [&empty, &whole[..10].to_vec()] {
        fs::write(journal(&place, &job), none).unwrap();
        let ended = run(&place, &format!("{command} --resume {job}"));
        assert_says(
            ended.fails_with(1),
            &["no journal of this release", "without --resume"],
        );
    }
    fs::write(journal(&place, &job), &flipped).unwrap();
    let ended = run(&place, &format!("{command} --resume {job} --resume-anyway")).ok();
    assert_eq!(ended.stdout, expected);
    assert_says(&ended.stderr, &["the journal is damaged (byte"]);

    let job = begin(&place, command);
    let torn = fs::read(journal(&place, &job)).unwrap();
    fs::write(journal(&place, &job), &torn[..torn.len() - 3]).unwrap();
    let ended = run(&place, &format!("{command} --resume {job}")).ok();
    assert_eq!(ended.stdout, expected);
    assert_says(
        &ended.stderr,
        &["49 items were done", "ends within an entry"],
    );
}

#[test]
fn a_record_that_was_changed_or_half_written_is_named() {
    let place = Place::new();
    program(&place, "v1");
    place.write("items", "a\nbad\n");
    let command = "--exec ./work --items items";
    let job = begin(&place, command);
    let record = place.path(&format!("home/.lswitch/jobs/{job}/job.json"));
    let right = fs::read_to_string(&record).unwrap();
    let changed = right.replace("\"exit\":3", "\"exit\":0");
    assert_ne!(changed, right);
    for (content, words) in [
        (&changed[..], "do not fit its checksum"),
        (&right[..right.len() / 2], "is no record of a job"),
        ("", "is no record of a job"),
    ] {
        fs::write(&record, content).unwrap();
        let ended = run(&place, &format!("{command} --resume {job}"));
        assert_says(ended.fails_with(1), &["job.json", words]);
        let listed = place.lswitch("jobs --all --json").ok().json();
        let listed = listed["jobs"].as_array().unwrap();
        assert!(listed.iter().all(|other| other["job"] != job), "{listed:?}");
    }
    fs::write(&record, right).unwrap();
    let ended = run(&place, &format!("{command} --resume {job}")).ok();
    assert_eq!(ended.stdout, "v1 a\nv1 bad\n");
}

#[test]
fn outputs_in_a_store_that_were_cut_are_made_again() {
    let place = Place::new();
    program(&place, "v1");
    place.write("items", "a\nb\nbad\nc\n");
    let command = "--exec ./work --items items --output out";
    let job = begin(&place, command);
    let cut = place.path("out/00000001");
    assert_eq!(fs::read_to_string(&cut).unwrap(), "v1 b\n");
    fs::write(&cut, "v1").unwrap();
    fs::remove_file(place.path("out/00000003")).unwrap();
    let ended = run(&place, &format!("{command} --resume {job}")).ok();
    assert_says(&ended.stderr, &["1 item was done"]);
    for (number, output) in ["v1 a\n", "v1 b\n", "v1 bad\n", "v1 c\n"]
        .iter()
        .enumerate()
    {
        let path = place.path(&format!("out/{number:08}"));
        assert_eq!(fs::read_to_string(path).unwrap(), *output);
    }
}

#[test]
fn an_item_that_has_changed_gets_a_new_file_in_the_output() {
    let place = Place::new();
    program(&place, "v1");
    for number in 0..3 {
        place.write(&format!("f/{number}"), format!("{number}\n"));
    }
    place.write("f/9", "bad\n");
    let command = "--exec ./work --items f/* --output out";
    let job = begin(&place, command);
    // The output of the new item has the length of the former one.
    place.write("f/1", "7\n");
    let ended = run(&place, &format!("{command} --resume {job}"));
    assert_eq!(ended.code, Some(1), "{ended}");
    assert_says(&ended.stderr, &["item 1 is now"]);
    let job = kept(&ended);
    run(&place, &format!("{command} --resume {job} --resume-anyway")).ok();
    let outputs = ["v1 0\n", "v1 7\n", "v1 2\n", "v1 bad\n"];
    for (number, output) in outputs.iter().enumerate() {
        let path = place.path(&format!("out/{number:08}"));
        assert_eq!(fs::read_to_string(path).unwrap(), *output);
    }
    assert!(place.path("out/result.json").exists());
}
