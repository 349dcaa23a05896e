//! Workers that are killed, stopped, interrupted or too old.

use std::thread;
use std::time::{Duration, Instant};

use lswitch::net::driver_link::{DriverLink, Membership, News};
use lswitch::net::link::{LinkError, dial};
use lswitch::net::message::{Hello, Refusal, Role, Span};
use lswitch::net::server;
use lswitch::net::token::{Bearer, JobId, Secret};
use rustix::process::Signal;

use super::{ENDLESS, assert_nothing_is_left, endless, processes, serve, with_switch};
use crate::support::{Place, SECRET, assert_gone, assert_says};

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
        .lswitch("preprocess graph.txt --parts 8 --out graph --overwrite")
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
fn an_interrupt_stops_the_workers_and_exits_with_128_and_its_number() {
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        let (place, job, workers) = endless(4);
        job.signal(signal);
        let ended = job.within_s(5).wait();
        assert_eq!(
            ended.fails_with(128 + signal.as_raw()),
            "lswitch: interrupted"
        );
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
        // Those that come within 100 ms count as one.
        job.signal(Signal::INT);
        thread::sleep(Duration::from_millis(120));
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

#[tokio::test]
async fn a_worker_of_another_release_is_refused_with_what_to_do() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port is free");
    let address = listener.local_addr().expect("it has one").into();
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
    let mut driver = DriverLink::create(&address, job, token, Membership::Fixed(1), within)
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
