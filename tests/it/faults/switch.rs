//! A switch that is not there, is somebody else, goes away, or does not know us.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::{ENDLESS, assert_nothing_is_left, make_private, processes, serve, with_switch};
use crate::support::{Place, SECRET, assert_gone, assert_says};

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
    assert_says(
        ended.fails_with(1),
        &["the switch at ", " was silent for 10 s"],
    );
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
        let run = place.lswitch("invoke pagerank --graph graph --plaintext");
        let ended = with_switch(run, address).within_s(16).end();
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
fn a_switch_off_loopback_must_have_a_secret() {
    let place = Place::new();
    let without = place.lswitch("serve --listen 0.0.0.0:0").within_s(10).end();
    assert_says(
        without.fails_with(1),
        &["needs a secret", "LSWITCH_SECRET_FILE", "chmod 600"],
    );
    assert!(!place.path("home/.lswitch/secret").exists());
    let with = place
        .lswitch("serve --listen 0.0.0.0:0 --plaintext --json")
        .env("LSWITCH_SECRET", SECRET)
        .start();
    assert_says(&with.first_line(), &["0.0.0.0:"]);
    with.signal(Signal::TERM);
    with.within_s(5).wait().ok();
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
