//! What goes wrong while a job runs, on purpose: every fault ends the job in time, with an error that says where, and
//! leaves no process behind.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lswitch::job::driver::{self, JobEvent, JobSpec, SwitchAccess};
use lswitch::lambda::event::Event;
use lswitch::lambda::launch::Launcher;
use lswitch::net::client::{JoinOptions, Pack};
use lswitch::net::driver_link::{DriverLink, News};
use lswitch::net::link::{LinkError, dial};
use lswitch::net::message::{Hello, Refusal, Role, Span};
use lswitch::net::server;
use lswitch::net::token::{Bearer, JobId, Secret, Token};
use lswitch::random::parse_hex;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Place, Process, Run, Running, SECRET, Worker, assert_gone, assert_says};

/// A job that does not end by itself, on a graph that [`Place::small_graph`] made.
const ENDLESS: &str = "invoke pagerank --graph graph --iterations 4294967295 --delay-ms 5";

/// A place with a small graph in which an endless job runs, and its workers.
fn endless(workers: u32) -> (Place, Running, Vec<Worker>) {
    let place = Place::new();
    place.small_graph();
    let job = place.lswitch(&format!("{ENDLESS} --workers {workers} --output ranks"));
    let job = job.start();
    let workers = job.workers(workers);
    (place, job, workers)
}

fn processes(workers: &[Worker]) -> impl Iterator<Item = &Process> {
    workers.iter().map(|worker| &worker.process)
}

/// Nothing of the job is left: no process, no folder, and no result that would pass for a whole one.
fn assert_nothing_is_left(place: &Place, workers: &[Worker]) {
    assert_gone(processes(workers), 1);
    place.assert_nothing_is_left_in_tmp();
    assert!(!place.path("ranks/result.json").exists());
}

/// With a switch of its own the job knows it at this address.
fn with_switch(run: Run, address: &str) -> Run {
    run.arg("--switch")
        .arg(address)
        .env("LSWITCH_SECRET", SECRET)
}

/// A switch in a place of its own, with [`SECRET`].
fn serve(place: &Place) -> (Running, String) {
    place.write("home/.lswitch/secret", SECRET);
    make_private(place.path("home/.lswitch/secret"), 0o600);
    place.switch()
}

fn make_private(path: PathBuf, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is our own file");
}

#[test]
fn a_killed_worker_ends_the_job_with_its_name_and_its_last_words() {
    let (place, job, workers) = endless(4);
    assert_eq!(workers[2].ranks, [2]);
    workers[2].process.signal(Signal::KILL);
    let ended = job.within_s(10).wait();
    let message = ended.fails_with(1);
    assert_says(
        message,
        &[
            "lswitch: worker 2 (rank 2) failed: ",
            "killed",
            "the last lines of its output:",
            "rank 2 of 4 joins",
        ],
    );
    assert_nothing_is_left(&place, &workers);
}

#[test]
fn a_killed_pack_is_named_with_all_its_ranks() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("preprocess graph.txt --parts 8 --out graph")
        .ok();
    let job = place
        .lswitch(&format!("{ENDLESS} --workers 8 --workers-per-function 3"))
        .start();
    let workers = job.workers(8);
    let ranks: Vec<&[u32]> = workers.iter().map(|worker| &worker.ranks[..]).collect();
    assert_eq!(ranks, [&[0, 1, 2][..], &[3, 4, 5], &[6, 7]]);
    workers[1].process.signal(Signal::KILL);
    let ended = job.within_s(10).wait();
    assert_says(ended.fails_with(1), &["worker 1 (ranks 3-5) failed: "]);
    assert_nothing_is_left(&place, &workers);
}

#[test]
fn at_most_the_last_twenty_lines_of_a_worker_are_shown() {
    let place = Place::new();
    place.small_graph();
    let job = place
        .lswitch(&format!("{ENDLESS} --workers 2"))
        .env("LSWITCH_LOG", "off")
        .start();
    let quiet = job.workers(2);
    quiet[0].process.signal(Signal::KILL);
    let ended = job.within_s(10).wait();
    assert_says(ended.fails_with(1), &["worker 0 (rank 0) failed: "]);

    let job = place
        .lswitch(&format!("{ENDLESS} --workers 2"))
        .env("LSWITCH_LOG", "trace")
        .start();
    let loud = job.workers(2);
    loud[1].process.signal(Signal::KILL);
    let ended = job.within_s(10).wait();
    assert_eq!(ended.code, Some(1), "{ended}");
    let at = ended.stderr.find("lswitch: worker 1 (rank 1) failed: ");
    let message = &ended.stderr[at.unwrap_or_else(|| panic!("{ended}"))..];
    let shown = message
        .lines()
        .filter(|line| line.starts_with("  | "))
        .count();
    assert!((1..=20).contains(&shown), "{shown} lines: {ended}");
}

#[test]
fn a_worker_that_is_stopped_is_noticed_by_its_silence() {
    let (place, job, workers) = endless(3);
    workers[1].process.signal(Signal::STOP);
    let ended = job.within_s(17).wait();
    assert_says(
        ended.fails_with(1),
        &["worker 1 (rank 1) failed: ", "nothing was heard for 10 s"],
    );
    assert_nothing_is_left(&place, &workers);
}

#[test]
fn an_interrupt_stops_the_workers_and_exits_with_130() {
    for signal in [Signal::INT, Signal::TERM] {
        let (place, job, workers) = endless(4);
        job.signal(signal);
        let ended = job.within_s(5).wait();
        assert_eq!(ended.fails_with(130), "lswitch: interrupted");
        assert_nothing_is_left(&place, &workers);
    }
}

#[test]
fn a_second_interrupt_skips_the_clean_up() {
    let (_place, job, workers) = endless(3);
    // A worker that takes no orders holds up an orderly end for seconds.
    workers[1].process.signal(Signal::STOP);
    let job = job.within_s(3);
    let begun = Instant::now();
    while job.is_running() && begun.elapsed() < Duration::from_secs(2) {
        // Signals that wait to be handled count as one, so more than two may be needed until two were.
        job.signal(Signal::INT);
        thread::sleep(Duration::from_millis(50));
    }
    let ended = job.wait();
    assert_eq!(ended.code, Some(130), "{ended}");
    assert_gone(processes(&workers), 5);
}

#[test]
fn workers_do_not_outlive_a_killed_invoke() {
    let (_place, job, workers) = endless(4);
    job.signal(Signal::KILL);
    assert_eq!(job.within_s(5).wait().signal, Some(9));
    assert_gone(processes(&workers), 10);
}

#[test]
fn workers_of_a_killed_invoke_leave_a_switch_that_goes_on_serving() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = serve(&place);
    let job = with_switch(place.lswitch(&format!("{ENDLESS} --workers 4")), &address).start();
    let workers = job.workers(4);
    // A frozen worker must go too.
    workers[3].process.signal(Signal::STOP);
    job.signal(Signal::KILL);
    assert_eq!(job.within_s(5).wait().signal, Some(9));
    assert_gone(processes(&workers), 10);
    with_switch(place.lswitch("invoke pagerank --graph graph"), &address).ok();
    switch.signal(Signal::TERM);
    switch.within_s(5).wait().ok();
}

#[test]
fn a_killed_switch_ends_the_job_with_a_clear_error() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = serve(&place);
    let job = place.lswitch(&format!("{ENDLESS} --workers 4 --output ranks"));
    let job = with_switch(job, &address).start();
    let workers = job.workers(4);
    switch.signal(Signal::KILL);
    switch.within_s(5).wait();
    let ended = job.within_s(15).wait();
    let message = ended.fails_with(1);
    assert_says(message, &["the connection to the switch"]);
    assert_nothing_is_left(&place, &workers);
}

#[test]
fn a_switch_that_is_stopped_is_noticed_by_its_silence() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = serve(&place);
    let job = place.lswitch(&format!("{ENDLESS} --workers 2 --output ranks"));
    let job = with_switch(job, &address).start();
    let workers = job.workers(2);
    switch.signal(Signal::STOP);
    let ended = job.within_s(20).wait();
    assert_says(ended.fails_with(1), &["the switch was silent for 10 s"]);
    assert_nothing_is_left(&place, &workers);
}

#[test]
fn a_switch_that_goes_down_in_order_tells_its_jobs() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = serve(&place);
    let job = place.lswitch(&format!("{ENDLESS} --workers 3 --output ranks"));
    let job = with_switch(job, &address).start();
    let workers = job.workers(3);
    switch.signal(Signal::TERM);
    switch.within_s(10).wait().ok();
    let ended = job.within_s(10).wait();
    assert_says(ended.fails_with(1), &["the switch is going down"]);
    assert_nothing_is_left(&place, &workers);
}

#[test]
fn a_time_out_ends_a_long_job() {
    let place = Place::new();
    place.small_graph();
    for (timeout_s, within_s) in [(2, 8), (0, 6)] {
        let ended = place
            .lswitch(&format!("{ENDLESS} --workers 4 --timeout {timeout_s}"))
            .within_s(within_s)
            .end();
        assert!(ended.took >= Duration::from_secs(timeout_s), "{ended}");
        assert_says(
            ended.fails_with(1),
            &[&format!("given up after its time-out of {timeout_s} s")],
        );
        place.assert_nothing_is_left_in_tmp();
    }
    // A job that is done in time is none the worse.
    place
        .lswitch("invoke pagerank --graph graph --timeout 100")
        .ok();
}

#[test]
fn two_jobs_at_once_on_one_switch_do_not_disturb_each_other() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("generate rmat --scale 9 --edge-factor 3 --seed 2 --out other.txt")
        .ok();
    place
        .lswitch("preprocess other.txt --parts 3 --out other")
        .ok();
    for graph in ["graph", "other"] {
        let arguments =
            format!("invoke pagerank --graph {graph} --iterations 40 --output alone-{graph}");
        place.lswitch(&arguments).ok();
    }
    let (switch, address) = serve(&place);
    let start = |graph: &str, number: u32| {
        let arguments = format!(
            "invoke pagerank --graph {graph} --iterations 40 --delay-ms 3 --output {graph}-{number}"
        );
        with_switch(place.lswitch(&arguments), &address).start()
    };
    let jobs: Vec<_> = (0..2)
        .flat_map(|number| [("graph", number), ("other", number)])
        .map(|(graph, number)| (graph, number, start(graph, number)))
        .collect();
    // One that is killed meanwhile ends alone.
    let doomed = with_switch(place.lswitch(ENDLESS), &address).start();
    let workers = doomed.workers(4);
    workers[0].process.signal(Signal::KILL);
    for (graph, number, job) in jobs {
        job.wait().ok();
        let (found, alone) = (
            place.output(&format!("{graph}-{number}")),
            place.output(&format!("alone-{graph}")),
        );
        assert!(found == alone, "{graph}-{number}");
    }
    let ended = doomed.within_s(10).wait();
    assert_says(ended.fails_with(1), &["worker 0 (rank 0) failed"]);
    assert_gone(processes(&workers), 1);
    switch.signal(Signal::TERM);
    switch.within_s(5).wait().ok();
}

#[test]
fn a_switch_that_is_not_there_is_an_error_in_time() {
    let place = Place::new();
    place.small_graph();
    for address in [
        "127.0.0.1:1",
        "no.such.host.invalid:7000",
        "127.0.0.1",
        "127.0.0.1:x",
    ] {
        let run = with_switch(place.lswitch("invoke pagerank --graph graph"), address);
        let ended = run.within_s(16).end();
        assert_ne!(ended.code, Some(0), "{ended}");
        let message = ended.message();
        assert_says(
            message,
            &[
                &format!("cannot reach the switch at {address}"),
                "is \"lswitch serve\" running there?",
            ],
        );
    }
}

/// Listens where a switch is looked for, and answers every connection with these bytes.
fn stranger(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener
        .local_addr()
        .expect("it has an address")
        .to_string();
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let Ok(mut stream) = stream else { return };
                let _gone = stream.write_all(answer);
                let mut rest = [0; 1024];
                while !answer.is_empty() && matches!(stream.read(&mut rest), Ok(1..)) {}
                if answer.is_empty() {
                    thread::sleep(Duration::from_secs(60));
                }
            });
        }
    });
    address
}

#[test]
fn a_stranger_at_the_switchs_address_is_told_apart_from_a_switch() {
    let place = Place::new();
    place.small_graph();
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"l",
        b"",
    ] {
        let address = stranger(answer);
        let run = with_switch(place.lswitch("invoke pagerank --graph graph"), &address);
        let ended = run.within_s(16).end();
        assert_says(
            ended.fails_with(1),
            &[
                &format!("what listens at {address} is no lswitch switch"),
                "check the address",
            ],
        );
    }
}

#[test]
fn a_wrong_secret_is_refused_with_what_to_do() {
    let place = Place::new();
    place.small_graph();
    let (_switch, address) = serve(&place);
    let ended = place
        .lswitch("invoke pagerank --graph graph --switch")
        .arg(&address)
        .env("LSWITCH_SECRET", "another secret, and long enough")
        .within_s(15)
        .end();
    assert_says(
        ended.fails_with(1),
        &[
            "the switch refused",
            "the token is wrong",
            "the same secret",
        ],
    );
    assert!(!ended.stderr.contains("another secret"), "{ended}");
}

#[test]
fn secrets_that_are_missing_short_or_open_to_others_are_refused() {
    let place = Place::new();
    place.small_graph();
    let invoke = || place.lswitch("invoke pagerank --graph graph --switch 127.0.0.1:1");
    let missing = invoke().end();
    assert_says(
        missing.fails_with(2),
        &["secret is not to be found", "LSWITCH_SECRET_FILE"],
    );

    place.write("open", "a secret that others may read\n");
    make_private(place.path("open"), 0o644);
    place.write("short", "short\n");
    make_private(place.path("short"), 0o600);
    for (file, words) in [
        ("open", ["others may read", "chmod 600 "]),
        (
            "short",
            [
                "has 5 bytes and needs at least 16",
                "head -c 32 /dev/urandom",
            ],
        ),
        ("nowhere", ["cannot read the switch's secret", "nowhere"]),
    ] {
        for run in [invoke(), place.lswitch("serve --listen 127.0.0.1:0")] {
            let ended = run.env("LSWITCH_SECRET_FILE", file).within_s(15).end();
            assert_says(ended.fails_with(1), &words);
            assert!(!ended.stderr.contains("a secret that"), "{ended}");
        }
    }
    let short = invoke().env("LSWITCH_SECRET", "short").end();
    assert_says(
        short.fails_with(1),
        &["in LSWITCH_SECRET", "needs at least 16"],
    );
}

#[test]
fn a_switch_makes_a_secret_that_only_its_owner_reads_and_drivers_find() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.small_graph();
    for _ in 0..2 {
        let (switch, address) = place.switch();
        let secret = place.path("home/.lswitch/secret");
        let mode = fs::metadata(&secret)
            .expect("it was made")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        place
            .lswitch("invoke pagerank --graph graph --switch")
            .arg(&address)
            .ok();
        switch.signal(Signal::TERM);
        let ended = switch.within_s(5).wait().ok();
        let secret = fs::read_to_string(secret).expect("it is ours");
        assert!(!format!("{ended}").contains(secret.trim()));
    }
}

#[test]
fn a_port_in_use_is_named_with_another_to_try() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    let ended = place
        .lswitch("serve --listen")
        .arg(&address)
        .within_s(10)
        .end();
    assert_says(
        ended.fails_with(1),
        &[
            &format!("cannot listen at {address}"),
            "in use",
            "--listen 127.0.0.1:0",
        ],
    );
    fs::create_dir_all(place.path("home/.lswitch/functions")).expect("a folder can be made");
    let ended = place
        .lswitch("local --listen")
        .arg(&address)
        .within_s(10)
        .end();
    assert_says(ended.fails_with(1), &[&address, "in use"]);
}

#[test]
fn a_switch_off_loopback_must_be_wanted_and_have_a_secret() {
    let place = Place::new();
    let plain = place.lswitch("serve --listen 0.0.0.0:0").within_s(10).end();
    assert_says(
        plain.fails_with(1),
        &["off loopback", "--insecure-plaintext"],
    );
    let without = place
        .lswitch("serve --listen 0.0.0.0:0 --insecure-plaintext")
        .within_s(10)
        .end();
    assert_says(
        without.fails_with(1),
        &["needs a secret", "LSWITCH_SECRET_FILE", "chmod 600"],
    );
    assert!(!place.path("home/.lswitch/secret").exists());
    let with = place
        .lswitch("serve --listen 0.0.0.0:0 --insecure-plaintext --json")
        .env("LSWITCH_SECRET", SECRET)
        .start();
    assert_says(&with.first_line(), &["0.0.0.0:"]);
    with.signal(Signal::TERM);
    with.within_s(5).wait().ok();
}

/// The paths of a graph's parts by their numbers.
fn parts(place: &Place, store: &str) -> Vec<PathBuf> {
    let manifest = fs::read(place.path(store).join("manifest.json")).expect("it is a graph");
    let manifest: Value = serde_json::from_slice(&manifest).expect("the manifest is JSON");
    let parts = manifest["parts"].as_array().expect("parts is a list");
    parts
        .iter()
        .map(|part| place.path(store).join(part["key"].as_str().expect("a key")))
        .collect()
}

#[test]
fn damaged_missing_and_foreign_parts_are_named_by_the_worker_that_reads_them() {
    let again = "run preprocess again";
    for (what, spoil, words) in [
        (
            "a flipped bit",
            (|part, _| {
                let mut bytes = fs::read(part).expect("it is there");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(part, bytes).expect("it can be written");
            }) as fn(&PathBuf, &PathBuf),
            ["00002.part", again],
        ),
        (
            "a part that was cut",
            |part, _| {
                let bytes = fs::read(part).expect("it is there");
                fs::write(part, &bytes[..bytes.len() - 1]).expect("it can be written");
            },
            ["00002.part", again],
        ),
        (
            "an empty part",
            |part, _| fs::write(part, b"").expect("it can be written"),
            ["00002.part", again],
        ),
        (
            "a missing part",
            |part, _| fs::remove_file(part).expect("it is there"),
            ["00002.part", "there is no object"],
        ),
        (
            "a part of another run",
            |part, other| {
                fs::copy(other, part).expect("both are there");
            },
            ["00002.part", again],
        ),
    ] {
        let place = Place::new();
        place.small_graph();
        place
            .lswitch("preprocess graph.txt --parts 4 --partitioner hash --out other")
            .ok();
        let (part, other) = (&parts(&place, "graph")[2], &parts(&place, "other")[2]);
        spoil(part, other);
        for (workers, name) in [
            (4, "worker 2 (rank 2) failed: "),
            (1, "worker 0 (rank 0) failed: "),
        ] {
            let arguments =
                format!("invoke pagerank --graph graph --workers {workers} --output ranks");
            let ended = place.lswitch(&arguments).within_s(15).end();
            assert_says(ended.fails_with(1), &[name]);
            assert_says(ended.message(), &words);
            assert!(!place.path("ranks/result.json").exists(), "{what}");
            place.assert_nothing_is_left_in_tmp();
        }
    }
}

/// A Lambda of two workers. Rank 1 leaves with a failure, which the switch tells the driver; only then does the call of
/// rank 0 fail, as a consequence. `failed` hears of it.
async fn lambda_with_a_cause_and_a_consequence(failed: std::sync::mpsc::Sender<()>) -> String {
    let caused = Arc::new(tokio::sync::Notify::new());
    let invoke = move |body: axum::body::Bytes| {
        let (caused, failed) = (caused.clone(), failed.clone());
        async move {
            let event: Event = serde_json::from_slice(&body).expect("the driver sends events");
            let span = Span {
                first_rank: event.first_rank,
                ranks: event.ranks,
            };
            let options = JoinOptions {
                switches: event.switches.clone(),
                job: JobId(parse_hex(&event.job).expect("an id")),
                token: Token {
                    expiry_s: event.token.expiry_s,
                    code: parse_hex(&event.token.code).expect("a code"),
                },
                span,
                size: event.size,
                incarnation: event.incarnation,
                epoch: event.epoch,
                join_within: Duration::from_secs(5),
                deadline: Instant::now() + Duration::from_secs(10),
            };
            let pack = Pack::join(options).await.expect("the switch takes it in");
            let message = if event.first_rank == 1 {
                let left = pack.leave(Some("the cause".into())).await;
                left.expect("the switch lets it go");
                caused.notify_one();
                "the cause"
            } else {
                caused.notified().await;
                failed.send(()).expect("the test waits for it");
                "a consequence"
            };
            let body = json!({ "errorType": "Error", "errorMessage": message }).to_string();
            ([("x-amz-function-error", "Unhandled")], body)
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a loopback port is free");
    let address = listener.local_addr().expect("it has one");
    let router = axum::Router::new().fallback(invoke);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_cause_is_reported_and_not_what_follows_from_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a loopback port is free");
    let switch = SwitchAccess {
        address: listener.local_addr().expect("it has one").to_string(),
        secret: Secret::random(),
    };
    tokio::spawn(server::run(
        listener,
        switch.secret.clone(),
        server::Limits::default(),
        std::future::pending(),
    ));
    let (failed, consequence) = std::sync::mpsc::channel();
    let endpoint = lambda_with_a_cause_and_a_consequence(failed).await;
    let launcher = Launcher::local(&endpoint, "f");
    let spec = JobSpec {
        program: "pagerank",
        arguments: Value::Null,
        ranks: 2,
        ranks_per_pack: 1,
        store: String::new(),
        timeout: None,
    };
    for run in 0..10 {
        // The driver is held up until it can hear of both, and then must know which came first.
        let mut tell = |event| {
            if event == JobEvent::Begun {
                let bound = Duration::from_secs(5);
                consequence.recv_timeout(bound).expect("rank 0 fails");
                thread::sleep(Duration::from_millis(100));
            }
        };
        let never = std::future::pending();
        let outcome = driver::run(&spec, &switch, &launcher, never, &mut tell).await;
        let message = outcome.expect_err("both ranks failed").to_string();
        assert_says(&message, &["worker 1 (rank 1) failed: the cause"]);
        assert!(!message.contains("consequence"), "run {run}: {message}");
    }
}

#[test]
fn a_call_that_fails_is_told_in_words() {
    let place = Place::new();
    place.small_graph();
    let (_switch, address) = serve(&place);
    let ended = place
        .lswitch("invoke pagerank --graph graph --function f --switch")
        .arg(&address)
        .env("LSWITCH_SECRET", SECRET)
        .env("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:1")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .within_s(30)
        .end();
    let message = ended.fails_with(1);
    assert_says(message, &["cannot invoke function f", "onnection refused"]);
    for debris in ["DispatchFailure", "ConnectorError", "Some(", "kind:"] {
        assert!(
            !message.contains(debris),
            "{debris} is no word for people: {message}"
        );
    }
}

#[test]
fn a_store_that_holds_no_graph_of_ours_is_refused() {
    let place = Place::new();
    place.small_graph();
    let manifest = fs::read_to_string(place.path("graph/manifest.json")).expect("it is a graph");
    fs::create_dir(place.path("empty")).expect("a folder can be made");
    place.write("file", "no folder");
    place.write("strange/manifest.json", "{\"format\": \"something else\"}");
    place.write("cut/manifest.json", &manifest[..manifest.len() / 2]);
    let newer = manifest.replace("\"version\": 1", "\"version\": 2");
    assert_ne!(newer, manifest);
    place.write("newer/manifest.json", newer);
    let fewer = manifest.replacen("\"vertices\": 256", "\"vertices\": 255", 1);
    assert_ne!(fewer, manifest);
    place.write("fewer/manifest.json", fewer);
    for (graph, words) in [
        ("nowhere", ["holds no graph", "lswitch preprocess"]),
        ("empty", ["holds no graph", "lswitch preprocess"]),
        ("file", ["file", ""]),
        ("graph.txt", ["graph.txt", ""]),
        (
            "strange",
            ["not the manifest of an lswitch graph", "preprocess wrote"],
        ),
        ("cut", ["manifest.json: not JSON", "run preprocess again"]),
        (
            "newer",
            [
                "made by a newer lswitch; its format is version 2",
                "upgrade lswitch",
            ],
        ),
        ("fewer", ["a damaged manifest", "run preprocess again"]),
    ] {
        let ended = place
            .lswitch("invoke pagerank --output ranks --graph")
            .arg(graph)
            .within_s(15)
            .end();
        assert_says(ended.fails_with(1), &words);
        assert!(!place.path("ranks").exists());
    }
}

#[test]
fn results_that_are_there_are_kept_unless_overwriting_is_asked_for() {
    let place = Place::new();
    place.small_graph();
    let invoke = |more: &str| {
        place
            .lswitch(&format!(
                "invoke pagerank --graph graph --output ranks {more}"
            ))
            .end()
    };
    invoke("").ok();
    let first = place.output("ranks");
    let refused = invoke("--damping 0.5");
    assert_says(
        refused.fails_with(2),
        &[
            "ranks holds 5 files of an earlier result",
            "--overwrite",
            "another --output",
        ],
    );
    assert!(place.output("ranks") == first);
    assert!(place.path("ranks/result.json").exists());

    place.write("ranks/notes.md", "mine");
    place
        .lswitch("preprocess graph.txt --parts 2 --out graph")
        .ok();
    invoke("--damping 0.5 --overwrite").ok();
    let second = place.output("ranks");
    assert_eq!(second.files.len(), 2, "the old parts are gone");
    assert!(second != first);
    assert!(
        place.path("ranks/notes.md").exists(),
        "other files are the user's"
    );

    // A result that was not finished does not pass for one, but is in the way as well.
    fs::remove_file(place.path("ranks/result.json")).expect("it is there");
    assert_says(
        invoke("").fails_with(2),
        &["holds 2 files of an earlier result"],
    );
    invoke("--overwrite").ok();
}

#[test]
fn a_function_on_aws_needs_a_switch_and_stores_that_it_can_reach() {
    let place = Place::new();
    place.small_graph();
    let own_endpoint = || {
        place
            .lswitch("invoke pagerank --graph graph --function f")
            .env("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:1")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .within_s(30)
    };
    let without_switch = own_endpoint().end();
    assert_says(
        without_switch.fails_with(2),
        &[
            "cannot reach a switch in this process",
            "lswitch serve",
            "--switch HOST:PORT",
        ],
    );
    let directory = place
        .lswitch("invoke pagerank --graph graph --function f --switch 127.0.0.1:1")
        .env("LSWITCH_SECRET", SECRET)
        .within_s(15)
        .end();
    assert_says(
        directory.fails_with(2),
        &[
            "a function on AWS cannot see",
            "graph",
            "s3://bucket/prefix",
        ],
    );
    let (_switch, address) = serve(&place);
    let nobody = own_endpoint().arg("--switch").arg(&address).end();
    assert_says(
        nobody.fails_with(1),
        &["worker ", "cannot invoke function f"],
    );
}

#[test]
fn the_job_runs_in_functions_of_a_local_lambda_in_another_process() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph --tolerance 1e-12 --output alone")
        .ok();
    let toml = format!(
        "command = [{:?}]\nmemory_mb = 512\ntimeout_s = 60\n",
        env!("CARGO_BIN_EXE_lswitch")
    );
    place.write("home/.lswitch/functions/registered.toml", toml);
    let (switch, address) = place.switch();
    let (local, endpoint) = place.local();
    let invoke = |function: &str, more: &str| {
        place
            .lswitch("invoke pagerank --graph graph --tolerance 1e-12 --json")
            .arg("--function")
            .arg(function)
            .arg("--switch")
            .arg(&address)
            .arg(format!("--output={function}{more}"))
            .arg(format!(
                "--workers-per-function={}",
                if more.is_empty() { 1 } else { 3 }
            ))
            .env("AWS_ENDPOINT_URL_LAMBDA", &endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .end()
    };
    for function in ["lswitch", "registered"] {
        for more in ["", "-packs"] {
            let ended = invoke(function, more).ok();
            assert_eq!(ended.json()["workers"], 4);
            let output = place.output(&format!("{function}{more}"));
            assert!(output == place.output("alone"), "{function}{more}");
        }
    }
    let unknown = invoke("unknown", "");
    assert_eq!(unknown.code, Some(1), "{unknown}");
    assert_says(
        unknown.message(),
        &["cannot invoke function unknown", "ResourceNotFound"],
    );
    // Environments that wait for more work go with the server, whose folders go too.
    let waiting = crate::support::children(local.id());
    assert!(
        !waiting.is_empty(),
        "environments are kept for the next call"
    );
    local.signal(Signal::TERM);
    local.within_s(10).wait().ok();
    assert_gone(&waiting, 1);
    place.assert_nothing_is_left_in_tmp();
    switch.signal(Signal::TERM);
    switch.within_s(5).wait().ok();
}

#[test]
fn a_function_that_ends_before_it_joins_is_named_with_what_it_said() {
    let place = Place::new();
    place.small_graph();
    place.write(
        "home/.lswitch/functions/broken.toml",
        "command = [\"sh\", \"-c\", \"echo no luck today >&2; exit 3\"]\n",
    );
    let (_switch, address) = place.switch();
    let (_local, endpoint) = place.local();
    let ended = place
        .lswitch("invoke pagerank --graph graph --function broken --switch")
        .arg(&address)
        .env("AWS_ENDPOINT_URL_LAMBDA", &endpoint)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .within_s(15)
        .end();
    assert_says(
        ended.fails_with(1),
        &[
            "worker ",
            "exit status 3",
            "the last lines of its output:",
            "no luck today",
        ],
    );
}

#[test]
fn an_interrupt_ends_the_search_for_a_switch() {
    let place = Place::new();
    place.small_graph();
    // It accepts connections and says nothing, so the search goes on for seconds.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener.local_addr().expect("it has one").to_string();
    let job = with_switch(place.lswitch("invoke pagerank --graph graph"), &address).start();
    let _connection = listener.accept().expect("the job looks for its switch");
    job.signal(Signal::INT);
    let ended = job.within_s(3).wait();
    // What a shell calls 130: the exit code, or the signal itself.
    assert!(
        ended.code == Some(130) || ended.signal == Some(2),
        "{ended}"
    );
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_proxy_for_the_web_is_not_asked_for_this_machines_own_lambda() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .within_s(60)
        .ok();
}

#[test]
fn functions_do_not_outlive_a_killed_local_lambda() {
    let place = Place::new();
    place.small_graph();
    let toml = format!("command = [{:?}]\n", env!("CARGO_BIN_EXE_lswitch"));
    place.write("home/.lswitch/functions/registered.toml", toml);
    let (_switch, address) = place.switch();
    let (local, endpoint) = place.local();
    for function in ["lswitch", "registered"] {
        place
            .lswitch("invoke pagerank --graph graph")
            .arg("--function")
            .arg(function)
            .arg("--switch")
            .arg(&address)
            .env("AWS_ENDPOINT_URL_LAMBDA", &endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .ok();
    }
    let waiting = crate::support::children(local.id());
    assert_eq!(waiting.len(), 8, "both functions have warm environments");
    local.signal(Signal::KILL);
    local.within_s(5).wait();
    assert_gone(&waiting, 10);
}

#[test]
fn a_killed_local_lambda_ends_the_job_that_runs_in_it() {
    let place = Place::new();
    place.small_graph();
    let (_switch, address) = place.switch();
    let (local, endpoint) = place.local();
    let job = place
        .lswitch(&format!("{ENDLESS} --function lswitch --switch {address}"))
        .env("AWS_ENDPOINT_URL_LAMBDA", &endpoint)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .start();
    let workers = local.workers(4);
    local.signal(Signal::KILL);
    local.within_s(5).wait();
    let ended = job.within_s(15).wait();
    assert_says(ended.fails_with(1), &["worker "]);
    assert_gone(processes(&workers), 10);
}

#[tokio::test]
async fn a_worker_of_another_release_is_refused_with_what_to_do() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port is free");
    let address = listener.local_addr().expect("it has one").to_string();
    let secret = Secret::new(SECRET).expect("it is long enough");
    let switch = tokio::spawn(server::run(
        listener,
        secret.clone(),
        server::Limits::default(),
        std::future::pending(),
    ));

    let (job, expiry_s) = (JobId::random(), u64::MAX);
    let key = secret.job_key(job);
    let token = key.token(Bearer::Driver, expiry_s);
    let within = Duration::from_secs(5);
    let mut driver = DriverLink::create(&address, job, token, 1, within)
        .await
        .expect("the switch takes the job");
    let role = Role::Pack {
        span: Span {
            first_rank: 0,
            ranks: 1,
        },
        incarnation: 1,
        epoch: 0,
        mailbox: 1 << 20,
    };
    let bearer = Bearer::Pack {
        first_rank: 0,
        ranks: 1,
        incarnation: 1,
    };
    let ours = Hello::new(job, key.token(bearer, expiry_s), role);
    let older = Hello {
        release: "0.0.1-old".into(),
        ..ours.clone()
    };
    let future = Hello {
        protocols: (77, 78),
        ..ours.clone()
    };
    let deadline = tokio::time::Instant::now() + within;
    for (hello, words) in [
        (
            older,
            ["0.0.1-old", lswitch::RELEASE, "lswitch function update"],
        ),
        (
            future,
            [
                "protocol 77 to 78",
                lswitch::RELEASE,
                "the same release on both sides",
            ],
        ),
    ] {
        let Err(refused) = dial(&address, &hello, deadline).await else {
            panic!("{} was taken in", hello.release);
        };
        assert_says(&refused.to_string(), &words);
        let LinkError::Refused(refused) = refused else {
            panic!("{refused}");
        };
        assert_eq!(refused.code, Refusal::Version);
    }
    // The refusals did not disturb the job: one of the same release joins it.
    let joined = dial(&address, &ours, deadline).await.map(drop);
    joined.expect("the same release is taken in");
    let news = tokio::time::timeout(within, async {
        loop {
            if let News::Notice(notice) = driver.next().await.expect("the job goes on") {
                return format!("{notice:?}");
            }
        }
    });
    let _some = news.await.expect("the driver hears of its job");
    switch.abort();
}
