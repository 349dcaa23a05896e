//! What a function, or the one who serves it, asks for: it then suffers what it would on AWS.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_sdk_lambda::primitives::Blob;
use lswitch::lambda::local::LocalFunction;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::stage::{
    Stage, invoke, log_of, on_scaled_stage, on_stage, payload, pid_of, process_state, until,
};
use crate::support::{Place, assert_says};

/// Calls the function, which runs until the file `gate` is there.
fn hold(stage: &Stage) -> tokio::task::JoinHandle<Value> {
    let event = json!({"do": "wait", "file": stage.folder.path().join("gate")});
    let client = stage.client.clone();
    tokio::spawn(async move { payload(&invoke(&client, event).await) })
}

fn let_go(stage: &Stage) {
    std::fs::write(stage.folder.path().join("gate"), "").expect("the file can be written");
}

/// What a call is told that Lambda does not take since there are too many.
async fn throttled(stage: &Stage) -> String {
    let call = stage.client.invoke().function_name("f");
    let refused = call.payload(Blob::new("{}")).send().await;
    let refused = refused
        .expect_err("there are too many")
        .into_service_error();
    assert!(refused.is_too_many_requests_exception(), "{refused:?}");
    format!("{refused:?}")
}

#[test]
fn a_cold_start_takes_as_long_as_it_should_and_happens_once() {
    const COLD: Duration = Duration::from_millis(500);
    on_stage(
        1,
        "app.main",
        |function| function.cold_start = COLD,
        async |stage| {
            let begun = Instant::now();
            let first = stage.invoke(json!({})).await;
            assert!(begun.elapsed() >= COLD, "{:?}", begun.elapsed());
            assert!(
                log_of(&first).contains("Init Duration: "),
                "{}",
                log_of(&first)
            );
            let second = stage.invoke(json!({})).await;
            assert_eq!(pid_of(&payload(&second)), pid_of(&payload(&first)));
            assert!(
                !log_of(&second).contains("Init Duration: "),
                "{}",
                log_of(&second)
            );
            stage
        },
    );
}

#[test]
fn without_reuse_each_invocation_has_an_environment_of_its_own() {
    on_stage(
        1,
        "app.main",
        |function| function.reuse = false,
        async |stage| {
            let mut pids = BTreeSet::new();
            for _ in 0..3 {
                let answer = stage.ask(json!({})).await;
                assert_eq!(answer["count"], 1);
                pids.insert(pid_of(&answer));
            }
            assert_eq!(pids.len(), 3);
            until("all of them are gone", || {
                pids.iter().all(|pid| process_state(*pid).is_none())
            })
            .await;
            stage
        },
    );
}

#[test]
fn a_function_keeps_to_its_reserved_concurrency() {
    on_stage(
        9,
        "app.main",
        |function| function.reserved_concurrency = Some(1),
        async |stage| {
            let held = hold(&stage);
            until("it runs", || stage.requests("START").len() == 1).await;
            let told = throttled(&stage).await;
            assert_says(
                &told,
                &["ReservedFunctionConcurrentInvocationLimitExceeded"],
            );
            stage.start_event(json!({})).await;
            let_go(&stage);
            held.await.expect("the call does not panic");
            until("the event ran", || stage.requests("REPORT").len() == 2).await;
            assert!(!stage.has_logged("f[2]: "), "one environment ran both");
            stage
        },
    );
}

#[test]
fn beyond_the_scaling_rate_calls_are_throttled_and_events_run_later() {
    // The third environment would come after 100 s.
    let scaling = "2,0.01".parse().expect("it is a scaling");
    on_scaled_stage(
        (9, Some(scaling)),
        "app.main",
        |_| {},
        async |stage| {
            let held = [hold(&stage), hold(&stage)];
            until("both run", || stage.requests("START").len() == 2).await;
            let told = throttled(&stage).await;
            assert_says(
                &told,
                &["ConcurrentInvocationLimitExceeded", "scaling rate"],
            );
            for _ in 0..6 {
                stage.start_event(json!({})).await;
            }
            assert_eq!(stage.requests("START").len(), 2, "events wait");
            let_go(&stage);
            for call in held {
                call.await.expect("no call panics");
            }
            until("all ran", || stage.requests("REPORT").len() == 8).await;
            assert!(!stage.has_logged("f[3]: "), "two environments ran all");
            stage
        },
    );
}

#[test]
fn a_failed_event_is_tried_three_times_under_one_request_id() {
    let change = |function: &mut LocalFunction| {
        function.event_retries = 2;
        function.event_retry = Duration::from_millis(10);
    };
    on_stage(1, "app.main", change, async |stage| {
        stage.start_event(json!({"do": "fail"})).await;
        until("it was tried", || stage.requests("REPORT").len() == 3).await;
        assert_eq!(stage.ask(json!({})).await["count"], 4);
        let tries = stage.requests("START");
        assert_eq!(tries.len(), 4, "{tries:?}");
        assert!(
            tries[0] == tries[1] && tries[1] == tries[2] && tries[2] != tries[3],
            "{tries:?}"
        );
        stage
    });
}

#[test]
fn every_so_many_events_one_comes_twice_with_one_request_id() {
    on_stage(
        4,
        "app.main",
        |function| function.event_twice_every = 2,
        async |stage| {
            for _ in 0..4 {
                stage.start_event(json!({})).await;
            }
            until("all ran", || stage.requests("REPORT").len() == 6).await;
            let requests = stage.requests("START");
            assert_eq!(requests.len(), 6, "{requests:?}");
            let different: BTreeSet<&String> = requests.iter().collect();
            assert_eq!(different.len(), 4, "{requests:?}");
            stage
        },
    );
}

#[test]
fn a_job_whose_workers_start_slowly_and_come_twice_has_the_right_result() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph --tolerance 1e-12 --output alone")
        .ok();
    // Each environment serves one call, so those that were started are the calls.
    let starts = place.path("starts");
    let binary = env!("CARGO_BIN_EXE_lswitch");
    let command = format!("echo >> {} && exec {binary}", starts.display());
    let toml = format!(
        "command = [\"sh\", \"-c\", {command:?}]\nmemory_mb = 512\ntimeout_s = 60\ncold_start_ms = 200\nreuse = false\n\
         event_retries = 2\nevent_retry_s = 0\nevent_twice_every = 1\n"
    );
    place.write("home/.lswitch/functions/hard.toml", toml);
    let (_switch, address) = place.switch();
    let local = place
        .lswitch("local --listen 127.0.0.1:0 --json --scaling 2,10")
        .start();
    let line: Value = serde_json::from_str(&local.first_line()).expect("it is JSON");
    place
        .lswitch("invoke pagerank --graph graph --tolerance 1e-12 --output hard --function hard")
        .arg("--switch")
        .arg(&address)
        .env(
            "AWS_ENDPOINT_URL_LAMBDA",
            line["endpoint"].as_str().expect("it is a string"),
        )
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "any")
        .env("AWS_SECRET_ACCESS_KEY", "any")
        .ok();
    assert!(place.output("hard") == place.output("alone"));
    local.until_ok("each worker came twice", || {
        let calls = std::fs::read_to_string(&starts).unwrap_or_default();
        (calls.lines().count() >= 8).then_some(())
    });
    local.signal(Signal::TERM);
    local.within_s(60).wait().ok();
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn a_scaling_that_is_none_is_refused_and_alone_it_is_lambdas() {
    let place = Place::new();
    let ended = place.lswitch("local --scaling 0,5").end();
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_says(&ended.stderr, &["BURST,RATE", "1 or more"]);
    let local = place
        .lswitch("local --listen 127.0.0.1:0 --scaling --json")
        .start();
    assert_says(&local.first_line(), &["endpoint"]);
    local.signal(Signal::TERM);
    local.within_s(10).wait().ok();
}
