//! Nothing is left of a job, whatever ends it and whenever: no process, and no folder once another run has been there.
//!
//! `LSWITCH_LEFTOVERS_ROUNDS` runs everything so many times.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::ENDLESS;
use crate::support::{Place, Process, Run, Running, assert_gone, descendants, marked};

const CATCHABLE: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// A program of items that leaves all it can: children in its group, in a session of their own, and without a parent.
const CLINGING: &str = "sleep 600 & setsid sleep 600 & setsid sh -c 'sleep 600 & sleep 600 & exit' & \
     (setsid sh -c '(sleep 600 &) ; sleep 600' &) ; touch flag-$1; sleep 600";

/// When the fault comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// Before anything can be seen of the process.
    Start,
    /// The job's record is there.
    Recorded,
    /// Its workers run.
    Working,
}

const MOMENTS: [Moment; 3] = [Moment::Start, Moment::Recorded, Moment::Working];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Map,
    Sort,
    PageRank,
}

const KINDS: [Kind; 3] = [Kind::Map, Kind::Sort, Kind::PageRank];

/// A place whose processes are found by their PATH, which is passed on to all of them.
struct Marked {
    place: Place,
    path: String,
}

impl Marked {
    fn new() -> Marked {
        let place = Place::new();
        let path = std::env::var("PATH").expect("tests run programs");
        let path = format!("{path}:{}", place.path("mark").display());
        Marked { place, path }
    }

    fn run(&self, arguments: &str) -> Run {
        self.place.lswitch(arguments).env("PATH", &self.path)
    }

    fn processes(&self) -> Vec<Process> {
        marked("PATH", &self.path)
    }

    fn prepare(&self, kind: Kind) {
        match kind {
            Kind::Map => {}
            Kind::Sort => {
                self.run("generate records --count 100000 --out records")
                    .ok();
            }
            Kind::PageRank => self.place.small_graph(),
        }
    }

    fn start(&self, kind: Kind) -> Running {
        match kind {
            Kind::Map => self
                .run("invoke map --exec sh --items 1..3 --workers 2 --retries 0 -- -c")
                .arg(CLINGING.replace("flag", &self.place.path("flag").to_string_lossy()))
                .args(&["sh", "{}"])
                .start(),
            Kind::Sort => self
                .run("invoke sort --input records --format records --output sorted --workers 2 --overwrite")
                .start(),
            Kind::PageRank => self
                .run(&format!("{ENDLESS} --workers 2 --output ranks --overwrite"))
                .start(),
        }
    }

    fn wait_for(&self, kind: Kind, moment: Moment, running: &Running) {
        let there = || match (moment, kind) {
            (Moment::Start, _) => true,
            (Moment::Recorded, _) => {
                let jobs = fs::read_dir(self.place.path("home/.lswitch/jobs"));
                let jobs = jobs.into_iter().flatten().flatten();
                jobs.into_iter()
                    .any(|job| job.path().join("job.json").exists())
            }
            (Moment::Working, Kind::Map) => {
                (1..3).all(|item| self.place.path(&format!("flag-{item}")).exists())
            }
            (Moment::Working, _) => descendants(running.id()).len() >= 4,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        // A short job may be over before it is seen to work.
        while !there() && running.is_running() {
            assert!(
                Instant::now() < deadline,
                "{kind:?} does not come to {moment:?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn assert_no_process_is_left(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: left {left:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Another run removes what a killed one has left.
    fn sweep(&self) {
        self.run("invoke map --exec true --items 0..1 --workers 1")
            .ok();
    }

    fn assert_no_unfinished_write_is_left(&self, what: &str) {
        for output in ["sorted", "ranks", ".lswitch"] {
            let left = self.place.path(output).join(".lswitch-tmp");
            assert!(!left.exists(), "{what}: {} is left", left.display());
        }
    }
}

fn rounds() -> usize {
    let rounds = std::env::var("LSWITCH_LEFTOVERS_ROUNDS");
    rounds.map_or(1, |rounds| rounds.parse().expect("a number of rounds"))
}

fn end_with(kind: Kind, signal: Signal) {
    for _ in 0..rounds() {
        for moment in MOMENTS {
            let what = format!("{kind:?}, {signal:?}, {moment:?}");
            let marked = Marked::new();
            marked.prepare(kind);
            let running = marked.start(kind);
            marked.wait_for(kind, moment, &running);
            let was_running = running.is_running();
            if was_running {
                running.signal(signal);
            }
            let ended = running.within_s(20).wait();
            let number = signal.as_raw();
            let is_expected = match (signal, moment) {
                (Signal::KILL, _) => ended.signal == Some(number) || ended.code == Some(0),
                // The process need not have come to its first instruction.
                (_, Moment::Start) => {
                    ended.code == Some(128 + number) || ended.signal == Some(number)
                }
                // It may have ended just then.
                _ => ended.code == Some(128 + number) || ended.code == Some(0),
            };
            assert!(is_expected, "{what}: {ended}");
            marked.assert_no_process_is_left(&what);
            if signal == Signal::KILL {
                marked.sweep();
            } else {
                marked.assert_no_unfinished_write_is_left(&what);
            }
            marked.place.assert_nothing_is_left_in_tmp();
        }
    }
}

#[test]
fn no_signal_leaves_anything_of_a_map_and_its_programs() {
    for signal in CATCHABLE {
        end_with(Kind::Map, signal);
    }
}

#[test]
fn no_signal_leaves_anything_of_a_sort() {
    for signal in CATCHABLE {
        end_with(Kind::Sort, signal);
    }
}

#[test]
fn no_signal_leaves_anything_of_a_pagerank() {
    for signal in CATCHABLE {
        end_with(Kind::PageRank, signal);
    }
}

#[test]
fn a_killed_driver_takes_all_with_it() {
    for kind in KINDS {
        end_with(kind, Signal::KILL);
    }
}

#[test]
fn a_signal_while_a_job_ends_leaves_nothing() {
    for round in 0..rounds() {
        for (index, signal) in CATCHABLE.into_iter().cycle().take(12).enumerate() {
            let marked = Marked::new();
            let go = marked.place.path("go");
            let running = marked
                .run("invoke map --exec sh --items 1..5 --workers 2 -- -c")
                .arg(format!(
                    "until [ -e {} ]; do sleep 0.01; done; echo $1",
                    go.display()
                ))
                .args(&["sh", "{}"])
                .start();
            let deadline = Instant::now() + Duration::from_secs(30);
            while marked.processes().len() < 7 {
                assert!(Instant::now() < deadline, "it does not come so far");
                thread::sleep(Duration::from_millis(5));
            }
            fs::write(&go, "").unwrap();
            let delay = (index * 17 + round * 5) as u64 % 150;
            thread::sleep(Duration::from_millis(delay));
            if running.is_running() {
                running.signal(signal);
            }
            let ended = running.within_s(20).wait();
            let codes = [Some(0), Some(128 + signal.as_raw())];
            assert!(codes.contains(&ended.code), "after {delay} ms: {ended}");
            marked.assert_no_process_is_left(&format!("{signal:?} after {delay} ms"));
            marked.place.assert_nothing_is_left_in_tmp();
        }
    }
}

#[test]
fn whichever_process_of_a_map_is_killed_its_programs_end() {
    // The supervisor is the driver's child; the worker is the supervisor's.
    for depth in [1, 2] {
        let marked = Marked::new();
        let running = marked.start(Kind::Map);
        marked.wait_for(Kind::Map, Moment::Working, &running);
        let supervisors = crate::support::children(running.id());
        let programs: Vec<Process> = marked
            .processes()
            .into_iter()
            .filter(|process| !process.is(running.id()))
            .collect();
        assert!(programs.len() > 10, "{programs:?}");
        let doomed: Vec<Process> = match depth {
            1 => supervisors.clone(),
            // The first that it started; the others have lost their parents.
            _ => {
                let workers = supervisors.iter().map(Process::children);
                workers
                    .filter_map(|children| children.into_iter().min_by_key(Process::id))
                    .collect()
            }
        };
        assert_eq!(doomed.len(), 2);
        doomed
            .iter()
            .for_each(|process| process.signal(Signal::KILL));
        assert_gone(&doomed, 5);
        assert_gone(&programs, 10);
        running.signal(Signal::INT);
        running.within_s(20).wait();
        marked.assert_no_process_is_left("after the end");
        marked.place.assert_nothing_is_left_in_tmp();
    }
}

#[test]
fn a_stopped_supervisor_does_not_hold_up_an_end_and_is_not_left() {
    for signal in [Signal::INT, Signal::KILL] {
        let marked = Marked::new();
        let running = marked.start(Kind::Map);
        marked.wait_for(Kind::Map, Moment::Working, &running);
        for supervisor in crate::support::children(running.id()) {
            supervisor.signal(Signal::STOP);
        }
        running.signal(signal);
        running.within_s(20).wait();
        marked.assert_no_process_is_left(&format!("{signal:?}"));
        if signal == Signal::KILL {
            marked.sweep();
        }
        marked.place.assert_nothing_is_left_in_tmp();
    }
}

#[test]
fn a_job_under_nohup_survives_its_terminal() {
    let marked = Marked::new();
    let go = marked.place.path("go");
    let script = format!(
        "until [ -e {} ]; do sleep 0.01; done; echo done",
        go.display()
    );
    fs::write(marked.place.path("waits"), format!("#!/bin/sh\n{script}\n")).unwrap();
    let permissions = fs::Permissions::from_mode(0o755);
    fs::set_permissions(marked.place.path("waits"), permissions).unwrap();
    let running = marked
        .place
        .lswitch_after(
            "trap '' HUP",
            "invoke map --exec ./waits --items 0..1 --workers 1",
        )
        .env("PATH", &marked.path)
        .start();
    let deadline = Instant::now() + Duration::from_secs(30);
    while marked.processes().len() < 4 {
        assert!(Instant::now() < deadline, "it does not come so far");
        thread::sleep(Duration::from_millis(5));
    }
    running.signal(Signal::HUP);
    fs::write(go, "").unwrap();
    assert_eq!(running.wait().ok().stdout, "done\n");
}

#[test]
fn temporary_folders_are_their_owners_alone_and_clean_removes_those_of_the_dead() {
    let marked = Marked::new();
    let running = marked.start(Kind::Map);
    marked.wait_for(Kind::Map, Moment::Working, &running);
    let folders = || -> Vec<_> {
        let entries = fs::read_dir(marked.place.path("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    for folder in folders() {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    // Of a living one nothing goes.
    marked.run("clean --older-than 0s --yes").ok();
    assert_eq!(folders().len(), 1);
    assert!(running.is_running());
    running.signal(Signal::KILL);
    running.wait();
    marked.assert_no_process_is_left("after SIGKILL");
    assert_eq!(folders().len(), 1);
    let shown = marked.run("clean").ok();
    assert!(
        shown
            .stdout
            .contains("temporary folders of processes that are gone"),
        "{shown}"
    );
    assert_eq!(folders().len(), 1, "nothing goes without --yes");
    marked.run("clean --yes").ok();
    assert!(folders().is_empty());
}

#[test]
fn a_sort_that_lost_a_worker_leaves_no_unfinished_write() {
    let marked = Marked::new();
    marked.prepare(Kind::Sort);
    for round in 0..3 * rounds() {
        let running = marked.start(Kind::Sort);
        marked.wait_for(Kind::Sort, Moment::Working, &running);
        thread::sleep(Duration::from_millis(30 * round as u64 % 200));
        if let Some(supervisor) = crate::support::children(running.id()).first()
            && supervisor.is_there()
        {
            supervisor.signal(Signal::KILL);
        }
        running.within_s(60).wait().ok();
        marked.assert_no_unfinished_write_is_left("a sort that went well");
    }
    // What a driver that was killed has left in its output, `clean` finds by the job's record.
    let left = marked.place.write("sorted/.lswitch-tmp/put-killed", "123");
    let shown = marked.run("clean --older-than 0s --json --yes").ok();
    assert!(
        shown.stdout.contains("unfinished writes of outputs"),
        "{shown}"
    );
    assert!(!left.exists() && !left.parent().unwrap().exists());
    assert!(marked.place.path("sorted/result.json").exists());
}
