//! Faults at random moments, over all jobs: the result is right, or there is an error and an exit code that says so; nothing
//! hangs, and nothing is left.
//!
//! `LSWITCH_FAULTS_SECONDS` sets for how long, `LSWITCH_FAULTS_SEED` repeats a run. `make faults` runs it for minutes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Place, Run, descendants, marked};

/// How long the short form runs, in seconds.
const SHORT_S: u64 = 20;

/// A job that has not ended after so many seconds hangs.
const HANG_S: u64 = 90;

const JOBS: [&str; 4] = [
    "map --exec sh --items 0..30 --workers 3 --output OUT --overwrite -- script",
    "sort --input records --format records --workers 3 --memory 1MiB --output OUT --overwrite",
    "wordcount --input text --workers 3 --memory 1MiB --output OUT --overwrite",
    "pagerank --graph GRAPH --workers 3 --iterations 200 --output OUT --overwrite",
];

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A signal for a process that descends from the driver.
    Descendant(Signal),
    /// One is stopped for a while.
    Pause,
    Driver(Signal),
    /// A byte of an object is changed, its end is cut off, or it is deleted.
    Flip,
    Cut,
    Delete,
    /// Another job writes to the same output.
    Twin,
}

const FAULTS: [Fault; 14] = [
    Fault::Descendant(Signal::KILL),
    Fault::Descendant(Signal::KILL),
    Fault::Descendant(Signal::KILL),
    Fault::Descendant(Signal::HUP),
    Fault::Descendant(Signal::TERM),
    Fault::Pause,
    Fault::Driver(Signal::KILL),
    Fault::Driver(Signal::HUP),
    Fault::Driver(Signal::TERM),
    Fault::Driver(Signal::INT),
    Fault::Flip,
    Fault::Cut,
    Fault::Delete,
    Fault::Twin,
];

/// SplitMix64: the same seed gives the same faults.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ (value >> 31)) % sides.max(1) as u64) as usize
    }
}

struct Chaos {
    place: Place,
    path: String,
    dice: Dice,
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("it is a number"))
}

#[test]
fn a_fault_at_a_random_moment_gives_the_right_bytes_or_an_error_and_leaves_nothing() {
    let seed = number("LSWITCH_FAULTS_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("it is after 1970").as_nanos() as u64
    });
    let seconds = number("LSWITCH_FAULTS_SECONDS").unwrap_or(SHORT_S);
    eprintln!("LSWITCH_FAULTS_SEED={seed} LSWITCH_FAULTS_SECONDS={seconds}");
    let mut chaos = Chaos::new(seed);
    let expected: Vec<Files> = JOBS.iter().map(|job| chaos.undisturbed(job)).collect();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while Instant::now() < deadline {
        let job = chaos.dice.roll(JOBS.len());
        let fault = FAULTS[chaos.dice.roll(FAULTS.len())];
        let delay = Duration::from_millis(chaos.dice.roll(900) as u64);
        let what = format!(
            "seed {seed}, round {rounds}: {fault:?} after {delay:?} of {}",
            JOBS[job]
        );
        chaos.round(&what, JOBS[job], fault, delay, &expected[job]);
        rounds += 1;
    }
    eprintln!("{rounds} faults");
}

type Files = BTreeMap<String, Vec<u8>>;

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let place = Place::new();
        let path = std::env::var("PATH").expect("tests run programs");
        let path = format!("{path}:{}", place.path("mark").display());
        place.write(
            "script",
            "read n; setsid sleep 0.2 & sleep 0.05; echo $((n * n))\n",
        );
        place
            .lswitch("generate records --count 30000 --out records")
            .ok();
        let words = (0..120_000_u64).map(|word| format!("word{} ", word * word % 5003));
        place.write("text", words.collect::<String>());
        place.small_graph();
        let dice = Dice(seed);
        Chaos { place, path, dice }
    }

    fn run(&self, job: &str) -> Run {
        let job = job
            .replace("OUT", "out")
            .replace("GRAPH", "graph-copy")
            .replace("script", &self.place.path("script").to_string_lossy());
        self.place
            .lswitch(&format!("invoke {job}"))
            .env("LSWITCH_STORE", self.place.path("store"))
            .env("PATH", &self.path)
    }

    /// Without what an earlier round left.
    fn clear(&self) {
        for folder in ["out", "store", "graph-copy"] {
            let _ = fs::remove_dir_all(self.place.path(folder));
        }
        let graph = self.place.path("graph");
        let mut files = Vec::new();
        find_files(&graph, &mut files);
        for file in files {
            let name = file.strip_prefix(&graph).unwrap();
            let to = self.place.path("graph-copy").join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }

    /// What the job writes, without its `result.json`, which has times and ids.
    fn output(&self) -> Files {
        let files = fs::read_dir(self.place.path("out")).into_iter().flatten();
        let files = files.flatten().filter(|file| {
            let name = file.file_name();
            file.path().is_file() && name != "result.json"
        });
        files
            .map(|file| {
                let name = file.file_name().to_string_lossy().into_owned();
                (name, fs::read(file.path()).unwrap())
            })
            .collect()
    }

    fn undisturbed(&self, job: &str) -> Files {
        self.clear();
        self.run(job).ok();
        let output = self.output();
        assert!(!output.is_empty(), "{job} writes something");
        output
    }

    fn round(&mut self, what: &str, job: &str, fault: Fault, delay: Duration, expected: &Files) {
        self.clear();
        let running = self.run(job).start();
        thread::sleep(delay);
        let twin = match fault {
            Fault::Twin => Some(self.run(job).start()),
            _ => None,
        };
        if running.is_running() {
            match fault {
                Fault::Driver(signal) => running.signal(signal),
                Fault::Descendant(signal) => {
                    if let Some(process) = self.pick(descendants(running.id())) {
                        process.try_signal(signal);
                    }
                }
                Fault::Pause => {
                    if let Some(process) = self.pick(descendants(running.id())) {
                        process.try_signal(Signal::STOP);
                        thread::sleep(Duration::from_millis(500));
                        process.try_signal(Signal::CONT);
                    }
                }
                Fault::Flip | Fault::Cut | Fault::Delete => self.damage(fault),
                Fault::Twin => {}
            }
        }
        let ended = running.within_s(HANG_S).wait();
        let twin = twin.map(|twin| twin.within_s(HANG_S).wait());
        let is_done = ended.code == Some(0) || twin.as_ref().is_some_and(|it| it.code == Some(0));
        if is_done {
            let found = self.output();
            assert!(
                &found == expected,
                "{what}: wrong bytes and exit code 0; {ended}"
            );
        }
        for ended in [Some(ended), twin].into_iter().flatten() {
            let was_killed = ended.signal.is_some();
            let says_why = ended.code == Some(0) || ended.stderr.contains("lswitch: ");
            assert!(
                was_killed || says_why,
                "{what}: an error without a word; {ended}"
            );
            assert!(!ended.stderr.contains("panicked"), "{what}: {ended}");
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        while !marked("PATH", &self.path).is_empty() {
            let left = marked("PATH", &self.path);
            assert!(Instant::now() < deadline, "{what}: left {left:?}");
            thread::sleep(Duration::from_millis(10));
        }
        if let Fault::Driver(Signal::KILL) = fault {
            self.clear();
            self.run("map --exec true --items 0..1 --workers 1").ok();
        }
        self.place.assert_nothing_is_left_in_tmp();
    }

    fn pick<T>(&mut self, mut from: Vec<T>) -> Option<T> {
        match from.len() {
            0 => None,
            count => Some(from.swap_remove(self.dice.roll(count))),
        }
    }

    /// Of what the job reads: the graph's parts, and what it keeps in its store.
    fn damage(&mut self, fault: Fault) {
        let mut files = Vec::new();
        for folder in ["graph-copy", "store"] {
            find_files(&self.place.path(folder), &mut files);
        }
        let Some(path) = self.pick(files) else {
            return;
        };
        // A job that is quicker has deleted it.
        let Ok(mut bytes) = fs::read(&path) else {
            return;
        };
        let at = self.dice.roll(bytes.len());
        let _gone = match fault {
            Fault::Delete => fs::remove_file(&path),
            Fault::Cut => {
                bytes.truncate(at);
                replace(&path, &bytes)
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.dice.roll(8);
                }
                replace(&path, &bytes)
            }
        };
    }
}

/// In place, as a disk that fails does.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::options().write(true).truncate(true).open(path)?;
    file.write_all(bytes)
}

fn find_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_files(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let rolls = |seed| {
        let mut dice = Dice(seed);
        (0..20).map(|_| dice.roll(14)).collect::<Vec<_>>()
    };
    assert_eq!(rolls(7), rolls(7));
    assert_ne!(rolls(7), rolls(8));
}
