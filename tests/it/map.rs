//! `lswitch invoke map`, as a user runs it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lswitch::random::parse_hex;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Place, assert_gone, assert_says, children, s3_server};

/// A script that workers can run.
fn script(place: &Place, name: &str, text: &str) {
    let path = place.write(name, format!("#!/bin/sh\n{text}"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The lines of JSON of a run: those of the items, and the last.
fn lines(stdout: &str) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().expect("the job's line");
    (lines, last)
}

#[test]
fn outputs_come_in_the_order_of_the_items_however_they_are_given() {
    let place = Place::new();
    let text: String = (0..5000)
        .map(|line| format!("{line} {}\n", "x".repeat(line % 70)))
        .collect();
    place.write("text", &text);
    let cases = [
        (
            "--items 0..40",
            "",
            (0..40).map(|number| format!("{number}\n")).collect(),
        ),
        ("--items text", "", text.clone()),
        ("--items text --split 10kB", "", text.clone()),
        // Outputs that are long enough for the store.
        ("--items text --split 100kB --workers 3", "", text.clone()),
        ("--items tex[t]", "", text.clone()),
        ("--items tex[t]", "-- {}", text.clone()),
        ("--items text --split 20kB", "-- {}", text.clone()),
    ];
    for (items, arguments, expected) in cases {
        let ended = place
            .lswitch(&format!("invoke map --exec cat {items} {arguments}"))
            .ok();
        assert!(ended.stdout == expected, "{items} {arguments}: {ended}");
    }
    let left = fs::read_dir(place.path(".lswitch/map")).unwrap().count();
    assert_eq!(left, 0, "what was copied to stdout stays in the store");
    let ended = place
        .lswitch("invoke map --exec cat --items -")
        .stdin(fs::File::open(place.path("text")).unwrap())
        .ok();
    assert!(ended.stdout == text);
    let ended = place
        .lswitch("invoke map --exec echo --items 7..9 -- item-{} {}{}")
        .ok();
    assert_eq!(ended.stdout, "item-7 77\nitem-8 88\n");
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn items_that_crash_hang_or_print_without_end_are_reported_and_cost_no_other() {
    let place = Place::new();
    script(
        &place,
        "poison",
        "read item; echo \"at $item\" >&2\n\
         case $item in\n\
         3) kill -9 $$;;\n\
         5) sleep 600 & sleep 600;;\n\
         7) yes;;\n\
         9) exit 4;;\n\
         11) kill -9 $PPID; sleep 5;;\n\
         esac\necho $item\n",
    );
    let ended = place
        .lswitch(
            "invoke map --exec ./poison --items 0..20 --workers 3 --retries 1 --item-timeout 2 --max-output 1MB --json",
        )
        .end();
    assert_eq!(ended.code, Some(3), "{ended}");
    let (items, job) = lines(&ended.stdout);
    assert_eq!(items.len(), 20);
    let poison = BTreeMap::from([
        (3, "killed by signal 9"),
        (5, "killed after 2.0 s"),
        (7, "printed more than 1000000 bytes"),
        (9, "exit code 4"),
        (11, "its worker was lost"),
    ]);
    for (number, item) in (0..).zip(&items) {
        assert_eq!(item["number"], number);
        match poison.get(&number) {
            None => assert_eq!(item["output"], format!("{number}\n"), "{item}"),
            Some(problem) => {
                assert_says(item["problem"].as_str().unwrap(), &[problem]);
                assert_eq!(item["failures"], 2, "{item}");
                if number != 11 {
                    assert_eq!(item["stderr"], format!("at {number}\n"));
                }
            }
        }
    }
    assert_eq!(items[9]["exit"], 4);
    assert_eq!((&job["done"], &job["failed"]), (&15.into(), &5.into()));
    assert_eq!(job["workers_lost"], 2);
    assert_says(
        &ended.stderr,
        &["item 9 (9) failed (2 times): exit code 4", "  | at 9"],
    );
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_worker_that_is_killed_changes_nothing() {
    let place = Place::new();
    let running = place
        .lswitch("invoke map --exec sh --items 0..40 --workers 3 -- -c")
        .arg("sleep 0.1; echo {}")
        .start();
    let id = running.id();
    let mut killed = Vec::new();
    while killed.len() < 2 {
        std::thread::sleep(Duration::from_millis(300));
        let worker = running.until_ok("it has a worker", || {
            let mut workers = children(id).into_iter();
            workers.find(|worker| worker.is_there() && !killed.contains(worker))
        });
        worker.signal(Signal::KILL);
        killed.push(worker);
    }
    let ended = running.wait().ok();
    let expected: String = (0..40).map(|number| format!("{number}\n")).collect();
    assert_eq!(ended.stdout, expected);
    assert_says(
        &ended.stderr,
        &["a worker was lost", "40 items: 40 done, 0 failed"],
    );
    assert_gone(&killed, 5);
}

#[test]
fn workers_whose_time_is_up_are_replaced_and_cost_no_item_a_try() {
    let place = Place::new();
    let binary = env!("CARGO_BIN_EXE_lswitch");
    place.write(
        "short.toml",
        format!("command = [{binary:?}]\nhandler = \"bootstrap\"\ntimeout_s = 6\n"),
    );
    let run = |items: &str, seconds: &str| {
        place
            .lswitch(&format!(
                "invoke map --exec sh {items} --workers 2 --retries 0 --local-function short.toml -- -c"
            ))
            .arg(format!("sleep {seconds}; echo {{}}"))
            .end()
    };
    let ended = run("--items 0..16", "1").ok();
    let expected: String = (0..16).map(|number| format!("{number}\n")).collect();
    assert_eq!(ended.stdout, expected);
    // One that needs more than an invocation has is not tried for ever.
    let ended = run("--items 0..1 --no-backups", "20");
    assert_eq!(ended.code, Some(3), "{ended}");
    assert_says(&ended.stderr, &["item 0 (0) failed: killed after"]);
}

#[test]
fn a_job_that_may_not_go_on_ends_and_so_does_one_that_nobody_listens_to() {
    let place = Place::new();
    let ended = place
        .lswitch("invoke map --exec sh --items 0..2000 --workers 2 --retries 0 --tolerate-failures 3 -- -c")
        .arg("kill -9 $PPID; sleep 5")
        .end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert_says(ended.message(), &["given up"]);
    let binary = env!("CARGO_BIN_EXE_lswitch");
    let ended = place
        .lswitch_after(
            &format!("{binary} invoke map --exec sh --items 0..100000 --workers 2 -- -c 'echo {{}}; sleep 0.05' | head -2"),
            "--version",
        )
        .within_s(30)
        .ok();
    assert!(ended.stdout.starts_with("0\n1\n"), "{ended}");
}

#[test]
fn a_slow_item_is_copied_to_an_idle_worker_unless_that_is_not_wanted() {
    let place = Place::new();
    // The first try of an item is slow, another one is not.
    let flag = place.path("flag");
    script(
        &place,
        "slow",
        &format!(
            "read item; [ $item = 2 ] && mkdir {} 2>/dev/null && sleep 30\necho $item\n",
            flag.display()
        ),
    );
    let run = |more: &str| {
        place.lswitch(&format!(
            "invoke map --exec ./slow --items 0..6 --workers 2 {more}"
        ))
    };
    let ended = run("").within_s(20).ok();
    assert_eq!(ended.stdout, "0\n1\n2\n3\n4\n5\n");
    fs::remove_dir(&flag).unwrap();
    let ended = run("--no-backups --item-timeout 3 --retries 0").end();
    assert_eq!(
        (ended.code, &ended.stdout[..]),
        (Some(3), "0\n1\n3\n4\n5\n"),
        "{ended}"
    );
}

#[test]
fn programs_that_cannot_run_are_named_before_any_item_is() {
    let place = Place::new();
    script(&place, "mars", "");
    place.write("mars", "#!/usr/bin/env python-of-mars\n");
    let own = fs::read(env!("CARGO_BIN_EXE_lswitch")).unwrap();
    let mut foreign = own[..8192].to_vec();
    foreign[18] = 243;
    place.write("foreign", foreign);
    place.write("plain", "echo\n");
    for name in ["mars", "foreign", "plain"] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (exec, words) in [
        ("./mars", &["wants the interpreter python-of-mars"][..]),
        ("./foreign", &["is made for riscv64, and workers are"]),
        ("./plain", &["neither a program of Linux nor a script"]),
        (
            "no-such-program",
            &["there is no program no-such-program on the workers"],
        ),
    ] {
        let ended = place
            .lswitch(&format!("invoke map --exec {exec} --items 0..9"))
            .end();
        assert_says(ended.fails_with(1), words);
    }
    for (arguments, words) in [
        (
            "--exec ./nothing --items 0..3",
            "there is no file ./nothing",
        ),
        ("--exec cat --items nothing", "there is no such file"),
        ("--exec cat --items no*thing", "no file matches"),
        ("--exec cat --items 5..3", "ends before it begins"),
        (
            "--exec cat --code home --items 0..3",
            "there is no cat in home",
        ),
        ("--exec cat --items 0..3 --item-timeout 0", "more than 0"),
        (
            "--exec cat --items 0..3 --workers-per-function 2",
            "each is a function",
        ),
        (
            "--exec cat --items mars* --function F --workers 2 --switch 127.0.0.1:1",
            "cannot see",
        ),
    ] {
        let ended = place.lswitch(&format!("invoke map {arguments}")).end();
        assert_says(ended.fails_with(2), &[words]);
    }
}

#[test]
fn a_folder_travels_once_for_its_contents() {
    let place = Place::new();
    script(
        &place,
        "code/main",
        "cat $(dirname $0)/more/data; cat; ls\n",
    );
    place.write("code/more/data", "data ");
    let run = || {
        place
            .lswitch("invoke map --exec main --code code --items 0..3")
            .ok()
    };
    for _ in 0..2 {
        assert_eq!(run().stdout, "data 0\ndata 1\ndata 2\n");
    }
    let objects = || -> Vec<String> {
        let folder = fs::read_dir(place.path(".lswitch/code")).unwrap();
        folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let first = objects();
    assert_eq!(first.len(), 1);
    assert!(parse_hex::<32>(&first[0]).is_some());
    place.write("code/more/data", "other ");
    assert_eq!(run().stdout, "other 0\nother 1\nother 2\n");
    assert_eq!(objects().len(), 2);
    // One that was damaged is not run.
    for name in objects() {
        place.write(&format!(".lswitch/code/{name}"), "damaged");
    }
    let ended = place
        .lswitch("invoke map --exec main --code code --items 0..3")
        .end();
    assert_says(ended.fails_with(1), &["another value", "code/"]);
}

#[test]
fn outputs_go_to_a_store_and_failures_may_be_tolerated() {
    let place = Place::new();
    let run = |more: &str| {
        place
            .lswitch(&format!(
                "invoke map --items 0..10 --retries 0 --exec sh {more} -- -c"
            ))
            .arg("echo {}; exit $(( {} == 4 ))")
            .end()
    };
    let ended = run("--output out --tolerate-failures 10%").ok();
    assert_eq!(ended.stdout, "");
    let mut names: Vec<String> = (0..10)
        .filter(|number| *number != 4)
        .map(|number| format!("{number:08}"))
        .collect();
    names.push("result.json".into());
    let mut found: Vec<String> = fs::read_dir(place.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    found.sort_unstable();
    assert_eq!(found, names);
    assert_eq!(fs::read(place.path("out/00000007")).unwrap(), b"7\n");
    run("--tolerate-failures 1").ok();
    for more in ["--tolerate-failures 0", "--tolerate-failures 5%"] {
        let ended = run(more);
        assert_eq!(ended.code, Some(1), "{ended}");
        assert_says(ended.message(), &["given up: 1 items have failed"]);
    }
    assert_eq!(run("").code, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_s3_are_items_and_take_outputs() {
    let place = Place::new();
    let folder = place.path("s3");
    let server = s3_server(&folder).await;
    let bucket = folder.join(&server.bucket);
    fs::create_dir_all(bucket.join("in")).unwrap();
    let mut all = String::new();
    for name in ["a", "b", "c"] {
        let text: String = (0..3000).map(|line| format!("{name} {line}\n")).collect();
        fs::write(bucket.join("in").join(name), &text).unwrap();
        all += &text;
    }
    let base = format!("s3://{}", server.bucket);
    for more in [
        format!("--items {base}/in/"),
        format!("--items {base}/in/ --split 5000"),
        format!("--items {base}/i"),
    ] {
        let ended = place
            .lswitch(&format!(
                "invoke map --exec cat --store {base}/job --workers 2 {more}"
            ))
            .envs(&server.env())
            .ok();
        assert!(ended.stdout == all, "{more}");
    }
    place
        .lswitch(&format!("invoke map --exec wc --items {base}/in/ --store {base}/job --output {base}/out -- -l {{}}"))
        .envs(&server.env())
        .ok();
    let counted = fs::read_to_string(bucket.join("out/00000001")).unwrap();
    assert!(counted.starts_with("3000 "), "{counted}");
    let ended = place
        .lswitch(&format!(
            "invoke map --exec cat --items {base}/nothing/ --store {base}/job"
        ))
        .envs(&server.env())
        .end();
    assert_says(ended.fails_with(2), &["there are no objects"]);
}
