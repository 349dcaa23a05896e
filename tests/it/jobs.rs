//! Jobs as things: `invoke --detach`, `jobs`, `attach`, `result`, `cancel` and `clean`, as a user runs them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getsid};
use serde_json::{Value, json};

use crate::support::{Place, Process, Running, assert_gone, assert_says, children};

/// A job in the background, which is killed with the test.
struct Background {
    id: String,
    driver: Process,
    pid: u32,
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.driver.is_there() {
            self.driver.signal(Signal::KILL);
        }
    }
}

/// Starts a job that waits for the file `gate`, a minute at most, before its items print themselves.
fn start(place: &Place, items: &str, more: &str) -> Background {
    let started = place
        .lswitch(&format!(
            "invoke map --exec sh --items {items} --workers 2 --detach {more} -- -c"
        ))
        .arg(waiting(place))
        .ok();
    let id = started.stdout.trim_end().to_owned();
    assert_eq!(
        started.stdout,
        format!("{id}\n"),
        "the id and nothing else: {started}"
    );
    assert_eq!(id.len(), 32, "{started}");
    assert_says(
        &started.stderr,
        &["runs in the background", "lswitch attach"],
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    let pid = loop {
        // On a busy machine it may not be under way yet when its id is told, but soon.
        let seen = listed(place).into_iter().find(|job| job["job"] == *id);
        match seen.filter(|job| !job["store"].is_null()) {
            Some(job) => break job["pid"].as_u64().unwrap() as u32,
            None => assert!(Instant::now() < deadline, "{started}"),
        }
    };
    let driver = Process::of(pid);
    Background { id, driver, pid }
}

/// What a shell does to wait for the gate.
fn waiting(place: &Place) -> String {
    format!(
        "n=0; while [ ! -e {} ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; echo {{}}",
        place.path("gate").display()
    )
}

fn listed(place: &Place) -> Vec<Value> {
    let listed = place.lswitch("jobs --all --json").ok().json();
    listed["jobs"].as_array().unwrap().clone()
}

/// What `jobs` says of one.
fn job(place: &Place, id: &str) -> Value {
    let found = listed(place).into_iter().find(|job| job["job"] == id);
    found.unwrap_or_else(|| panic!("{id} is not listed"))
}

/// The job that a process in the foreground drives, once it has begun.
fn job_of(place: &Place, running: &Running) -> String {
    let id = running.until_ok("its job was listed", || {
        let jobs = listed(place);
        let own = jobs.iter().find(|job| job["pid"] == running.id())?;
        Some(own["job"].as_str().unwrap().to_owned())
    });
    assert_eq!(job(place, &id)["detached"], false);
    id
}

/// Writes a record as a driver does that ended long ago.
fn record(place: &Place, id: &str, began_ms: u64) {
    let record = json!({
        "version": 1, "id": id, "program": "map", "arguments": ["lswitch", "invoke", "map"], "folder": "/", "store": null,
        "detached": true, "under_way": true, "driver": { "pid": 1, "started": 0 }, "began_ms": began_ms,
        "end": { "at_ms": began_ms + 1500, "exit": 0, "error": null },
    });
    let name = format!("home/.lswitch/jobs/{id}/job.json");
    place.write(&name, record.to_string());
}

#[test]
fn a_job_in_the_background_is_listed_followed_and_keeps_its_result() {
    let place = Place::new();
    let job = start(&place, "0..3", "");
    let id = &job.id[..8];
    let seen = self::job(&place, &job.id);
    assert_eq!(
        (&seen["state"], &seen["detached"]),
        (&"running".into(), &true.into())
    );
    let session = getsid(Pid::from_raw(job.pid as i32)).unwrap();
    assert_eq!(
        session.as_raw_nonzero().get(),
        job.pid as i32,
        "it has a session of its own, which no terminal ends"
    );

    let early = place.lswitch(&format!("result {id}")).end();
    assert_says(
        early.fails_with(1),
        &["still runs", "--wait", "lswitch attach"],
    );
    let early = place
        .lswitch(&format!("result {id} --wait --timeout 0.2"))
        .end();
    assert_says(early.fails_with(1), &["still runs after 0.2 s"]);
    let watching = place.lswitch(&format!("attach {id}")).start();
    let waiting = place.lswitch(&format!("result {id} --wait")).start();
    // One who has seen enough leaves it running.
    let leaving = place.lswitch(&format!("attach {id}")).start();
    leaving.until_ok("it said what Ctrl-C does", || {
        leaving.stderr().contains("Ctrl-C leaves").then_some(())
    });
    leaving.signal(Signal::INT);
    let left = leaving.wait();
    assert_eq!(left.code, Some(130), "{left}");
    assert_says(left.message(), &["runs on", "lswitch cancel"]);
    assert!(job.driver.is_there());

    place.write("gate", "");
    let watched = watching.wait().ok();
    assert_eq!(watched.stdout, "0\n1\n2\n");
    assert_says(
        &watched.stderr,
        &["Ctrl-C leaves it running", "3 items: 3 done"],
    );
    assert_eq!(waiting.wait().ok().stdout, "0\n1\n2\n");
    for again in ["result", "attach"] {
        let ended = place.lswitch(&format!("{again} {}", &job.id)).ok();
        assert_eq!(ended.stdout, "0\n1\n2\n");
    }
    assert_gone([&job.driver], 20);
    let seen = self::job(&place, &job.id);
    assert_eq!((&seen["state"], &seen["exit"]), (&"done".into(), &0.into()));
    let store = format!("file://{}", place.path(".lswitch").display());
    assert_eq!(seen["store"], store);
    let table = place.lswitch("jobs").ok().stdout;
    let row = table.lines().nth(1).unwrap();
    assert!(row.starts_with(&format!("{id}  map  done ")), "{table}");
    assert_says(row, &["lswitch invoke map --exec sh --items 0..3"]);
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_job_in_the_background_ends_for_others_as_it_did() {
    let place = Place::new();
    let started = place
        .lswitch("invoke --detach map --exec sh --items 0..4 --retries 0 --json -- -c")
        .arg("echo {}; exit $(( {} == 2 ))")
        .ok();
    let id = started.json()["job"].as_str().unwrap().to_owned();
    let result = place.lswitch(&format!("result {id} --wait")).end();
    assert_eq!(result.code, Some(3), "{result}");
    assert_eq!(result.stdout.lines().count(), 5, "its own --json: {result}");
    assert_says(
        result.message(),
        &["done in part", "1 of 4 items have failed"],
    );
    let attached = place.lswitch(&format!("attach {id}")).end();
    assert_eq!(attached.code, Some(3), "{attached}");
    assert_says(attached.message(), &["lswitch: 1 of 4 items have failed"]);
    let seen = job(&place, &id);
    assert_eq!(seen["state"], "done in part");
    assert_eq!(seen["error"], "1 of 4 items have failed");
}

#[test]
fn what_is_wrong_with_a_job_is_said_before_it_goes_to_the_background() {
    let place = Place::new();
    for (arguments, words) in [
        (
            "map --exec ./nothing --items 0..3",
            "there is no file ./nothing",
        ),
        ("map --exec cat --items nothing", "there is no"),
        ("map --exec cat --items 0..3 --workers 0", "at least 1"),
        ("map --exec cat --items -", "--items - reads standard input"),
        (
            "run some --workers 2 --event -",
            "--event - reads standard input",
        ),
        ("pool --workers 2", "a pool answers over standard input"),
    ] {
        let ended = place.lswitch(&format!("invoke --detach {arguments}")).end();
        assert_says(ended.fails_with(2), &[words]);
    }
    for job in listed(&place) {
        assert_eq!((&job["state"], &job["exit"]), (&"failed".into(), &2.into()));
    }
    let place = Place::new();
    place.write("file", "");
    let run = |more: &str| {
        place
            .lswitch(&format!("invoke {more} map --exec cat --items 0..3"))
            .env("LSWITCH_HOME", place.path("file"))
    };
    assert_says(
        run("--detach").end().fails_with(1),
        &["where a job's record is kept", "LSWITCH_HOME"],
    );
    let ended = run("").ok();
    assert_eq!(ended.stdout, "0\n1\n2\n");
    assert_says(&ended.stderr, &["will not be among \"lswitch jobs\""]);
}

#[test]
fn jobs_in_the_foreground_are_listed_too_and_can_be_cancelled() {
    let place = Place::new();
    place.lswitch("invoke map --exec cat --items 0..2").ok();
    place.lswitch("invoke map --exec ./no --items 0..2").end();
    let (code, states) = (2, ["failed", "done"]);
    let jobs = listed(&place);
    let seen: Vec<&Value> = jobs.iter().map(|job| &job["state"]).collect();
    assert_eq!(seen, states, "the newest first: {jobs:?}");
    assert_eq!(jobs[0]["exit"], code);
    assert_eq!(jobs[0]["error"], "there is no file ./no");
    for command in ["attach", "result"] {
        let id = jobs[1]["job"].as_str().unwrap();
        let ended = place.lswitch(&format!("{command} {id}")).end();
        assert_says(
            ended.fails_with(1),
            &["printed its result where it ran", "--detach"],
        );
    }

    let running = place
        .lswitch("invoke map --exec sh --items 0..3 --workers 2 -- -c")
        .arg(waiting(&place))
        .start();
    let id = job_of(&place, &running);
    let ended = place.lswitch(&format!("attach {id}")).end();
    assert_says(ended.fails_with(1), &["in a terminal of its own"]);
    let ended = place.lswitch(&format!("cancel {id}")).ok();
    assert_says(&ended.stderr, &["is asked to end", "has ended: cancelled"]);
    let ended = running.wait();
    assert_eq!(ended.code, Some(143), "{ended}");
    assert_eq!(job(&place, &id)["state"], "cancelled");
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_job_that_still_looks_for_its_input_can_be_cancelled() {
    let place = Place::new();
    let pipe = place.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let running = place
        .lswitch("invoke run --local-function some.toml --workers 1 --event pipe")
        .start();
    let id = job_of(&place, &running);
    place.lswitch(&format!("cancel {id}")).ok();
    let ended = running.wait();
    assert_eq!(ended.code, Some(143), "{ended}");
    assert_eq!(ended.message(), "lswitch: interrupted");
    let seen = job(&place, &id);
    assert_eq!(
        (&seen["state"], &seen["exit"]),
        (&"cancelled".into(), &143.into())
    );
}

#[test]
fn a_job_that_is_cancelled_ends_with_its_workers_and_says_so() {
    let place = Place::new();
    let job = start(&place, "0..3", "");
    let workers = children(job.pid);
    let ended = place.lswitch(&format!("cancel {}", &job.id[..6])).ok();
    assert_says(&ended.stderr, &["has ended: cancelled"]);
    assert_gone(&workers, 5);
    assert!(!job.driver.is_there());
    let again = place.lswitch(&format!("cancel {}", job.id)).end();
    assert_says(again.fails_with(1), &["does not run any more: cancelled"]);
    let attached = place.lswitch(&format!("attach {}", job.id)).end();
    assert_eq!(attached.code, Some(143), "{attached}");
    assert_says(&attached.stderr, &["was cancelled"]);
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_driver_that_does_not_answer_is_killed_with_force() {
    let place = Place::new();
    let job = start(&place, "0..3", "");
    job.driver.signal(Signal::STOP);
    let ended = place
        .lswitch(&format!("cancel {} --force", job.id))
        .within_s(60)
        .ok();
    assert_says(&ended.stderr, &["was killed", "lswitch clean"]);
    let seen = self::job(&place, &job.id);
    assert_eq!(seen["state"], "cancelled");
    assert_says(
        seen["error"].as_str().unwrap(),
        &["killed by lswitch cancel"],
    );
}

#[test]
fn a_job_whose_driver_was_killed_is_lost() {
    let place = Place::new();
    let job = start(&place, "0..3", "");
    let workers = children(job.pid);
    job.driver.signal(Signal::KILL);
    assert_gone([&job.driver], 5);
    assert_gone(&workers, 20);
    let seen = self::job(&place, &job.id);
    assert_eq!(seen["state"], "lost");
    assert!(seen["exit"].is_null());
    for command in ["attach", "result", "result --wait", "cancel"] {
        let ended = place.lswitch(&format!("{command} {}", job.id)).end();
        assert_says(
            ended.fails_with(1),
            &["is lost", "without having said how it ended", "invoke map"],
        );
    }
}

#[test]
fn the_first_digits_of_an_id_name_a_job_if_they_begin_no_other() {
    let place = Place::new();
    let first = format!("abcd{}", "0".repeat(28));
    let second = format!("abcd{}", "1".repeat(28));
    record(&place, &first, 1000);
    record(&place, &second, 2000);
    for command in ["attach", "result", "cancel"] {
        let fails = |digits: &str| {
            let ended = place.lswitch(&format!("{command} {digits}")).end();
            ended.fails_with(2).to_owned()
        };
        assert_says(
            &fails("abcd"),
            &[
                "2 jobs begin with abcd",
                "abcd0000 (map, done)",
                "abcd1111 (map, done)",
            ],
        );
        assert_says(&fails("ffff"), &["no job of this machine", "abcd0000"]);
        assert_says(&fails("abc"), &["at least the first 4 digits"]);
        assert_says(&fails("../../x"), &["at least the first 4 digits"]);
    }
    place.lswitch("attach ABCD0").ok();
    let empty = Place::new();
    let ended = empty.lswitch("attach abcd").end();
    assert_says(ended.fails_with(2), &["there are none"]);
}

#[test]
fn the_newest_are_listed_and_the_oldest_are_forgotten() {
    let place = Place::new();
    assert_eq!(place.lswitch("jobs").ok().stdout, "");
    for number in 0..1010 {
        record(&place, &format!("{number:08}{:024}", 0), 1000 + number);
    }
    let newest = place.lswitch("jobs").ok();
    assert_eq!(newest.stdout.lines().count(), 21, "{newest}");
    assert_says(&newest.stderr, &["and 990 more: lswitch jobs --all"]);
    assert_says(&newest.stdout, &["00001009", "1.5 s"]);
    assert_eq!(listed(&place).len(), 1010);
    place.lswitch("invoke map --exec cat --items 0..2").ok();
    let left = listed(&place);
    assert_eq!(left.len(), 900);
    assert_eq!(left[0]["state"], "done");
    let oldest = left[899]["job"].as_str().unwrap();
    assert!(oldest.starts_with("00000111"), "{oldest}");
}

#[test]
fn clean_shows_what_jobs_have_left_and_deletes_it_only_when_told() {
    let place = Place::new();
    let old = Duration::from_secs(30 * 3600);
    let aged = |name: &str| {
        let file = fs::File::options().write(true).open(place.path(name));
        let when = std::time::SystemTime::now() - old;
        file.unwrap().set_modified(when).unwrap();
    };
    let sum = "0f".repeat(32);
    let lost = "ab".repeat(16);
    let gone = [
        format!(".lswitch/code/{sum}"),
        format!(".lswitch/map/{lost}/outputs/00000001-1"),
        format!(".lswitch/sort/{lost}/inputs"),
        format!(".lswitch/sort/{lost}/spill-00001"),
        ".lswitch/.lswitch-tmp/put-x".into(),
    ];
    let kept = [
        ".lswitch/code/mine.py",
        ".lswitch/map/mine/1",
        ".lswitch/manifest.json",
        ".lswitch/part-00000.tsv",
        "elsewhere",
    ];
    for name in gone.iter().map(String::as_str).chain(kept) {
        place.write(name, "12345");
        aged(name);
    }
    let young = format!(".lswitch/sort/{}/inputs", "cd".repeat(16));
    place.write(&young, "12345");
    let running = start(&place, "0..3", "--store other");
    let kept_record = place.path(&format!("home/.lswitch/jobs/{}", running.id));
    record(&place, &lost, 1000);

    let shown = place.lswitch("clean").ok();
    assert_says(
        &shown.stdout,
        &["code ", "map ", "sort ", "unfinished writes", "in all"],
    );
    assert!(!shown.stdout.contains("records"), "they are young: {shown}");
    assert_says(&shown.stderr, &["nothing was deleted", "--yes"]);
    let json = place.lswitch("clean --json").ok().json();
    assert_eq!((&json["count"], &json["bytes"]), (&5.into(), &25.into()));
    assert_eq!(json["deleted"], false);
    let is_there = |name: &str| place.path(name).exists();
    assert!(gone.iter().all(|name| is_there(name)));

    let done = place.lswitch("clean --yes").ok();
    assert_says(&done.stderr, &["deleted: 5, with 25 B"]);
    assert!(!gone.iter().any(|name| is_there(name)));
    assert!(is_there(&young) && kept.iter().all(|name| is_there(name)));
    let nothing = place.lswitch("clean --yes").ok();
    assert_eq!(nothing.stdout, "");
    assert_says(&nothing.stderr, &["nothing to clean"]);

    // What is young goes if one wants, but nothing of a job that runs.
    let own = format!("other/map/{}/outputs/00000001-1", running.id);
    for name in [
        &own,
        &format!("other/code/{sum}"),
        &format!("other/map/{lost}/x"),
        &format!("other/sort/{lost}/x"),
    ] {
        place.write(name, "12345");
    }
    let more = place.lswitch("clean --store other --older-than 0s --yes --json");
    let json = more.ok().json();
    let groups: Vec<&Value> = json["groups"].as_array().unwrap().iter().collect();
    let what: Vec<&Value> = groups.iter().map(|group| &group["what"]).collect();
    assert_eq!(what, ["sort", "records of jobs"], "{json}");
    assert_eq!(
        (&groups[0]["count"], &json["deleted"]),
        (&1.into(), &true.into())
    );
    assert!(is_there(&own) && is_there(&format!("other/code/{sum}")));
    // It may go on with what others have left.
    assert!(is_there(&format!("other/map/{lost}/x")));
    assert!(kept_record.exists() && listed(&place).len() == 1);
    assert!(is_there(&young), "it is in another store");
    place.write("gate", "");
    let result = place.lswitch(&format!("result {} --wait", running.id)).ok();
    assert_eq!(result.stdout, "0\n1\n2\n");
    assert_gone([&running.driver], 20);
    place.lswitch("clean --older-than 0s --yes").ok();
    assert!(!kept_record.exists() && !is_there(&young));
    assert!(kept.iter().all(|name| is_there(name)));
    for age in ["", "5", "5 parsecs", "-1h"] {
        let ended = place.lswitch("clean --older-than").arg(age).end();
        assert_eq!(ended.code, Some(2), "{ended}");
    }
}

#[test]
fn a_job_goes_to_the_background_at_once() {
    let place = Place::new();
    let begun = Instant::now();
    let job = start(&place, "0..3", "");
    // The job waits for a minute; whoever started it does not.
    assert!(begun.elapsed() < Duration::from_secs(30));
    place.lswitch(&format!("cancel {}", job.id)).ok();
}
