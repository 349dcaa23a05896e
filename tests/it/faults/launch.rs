//! Functions that cannot be called, fail, or lose their Lambda; and what follows from a fault and is not its cause.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lswitch::job::driver::{self, JobEvent, JobSpec, SwitchAccess};
use lswitch::lambda::event::Event;
use lswitch::lambda::launch::{Launcher, Share};
use lswitch::net::client::{JoinOptions, Pack};
use lswitch::net::message::Span;
use lswitch::net::server;
use lswitch::net::token::{JobId, Secret, Token};
use lswitch::random::parse_hex;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{ENDLESS, processes, serve};
use crate::support::{Place, SECRET, assert_gone, assert_says};

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
                switches: event
                    .switches
                    .iter()
                    .map(|address| address.parse().expect("an address"))
                    .collect(),
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
        addresses: vec![listener.local_addr().expect("it has one").into()],
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
    let launcher = Launcher::local(&endpoint, None, Share::all("f"));
    let spec = JobSpec {
        id: JobId::random(),
        program: "pagerank".into(),
        arguments: Value::Null,
        ranks: 2,
        ranks_per_pack: 1,
        levels: 1,
        store: String::new(),
        timeout: None,
        more: Default::default(),
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
        .lswitch("invoke pagerank --graph graph --function broken --keep-calls-open --switch")
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
    // A call that only starts a worker says nothing of its end.
    let ended = place
        .lswitch("invoke pagerank --graph graph --function broken --switch")
        .arg(&address)
        .env("AWS_ENDPOINT_URL_LAMBDA", &endpoint)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .within_s(45)
        .end();
    let told = ["did not join within 30 s", "lswitch function logs"];
    assert_says(ended.fails_with(1), &told);
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
