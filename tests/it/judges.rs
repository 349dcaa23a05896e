//! What others have written judges both sides of our Lambda: AWS's own runtime client for Node runs in the local one, and
//! our workers run in cargo-lambda's. (AWS's client for Python is in `python/tests/test_lambda.py`.)

use std::future::Future;
use std::time::Duration;

use aws_sdk_lambda::primitives::Blob;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lswitch::lambda::local::LocalFunction;
use serde_json::json;

use crate::local_lambda::stage::{
    Stage, assert_failed, log_of, on_stage_of, payload, pid_of, process_state, until,
};
use crate::support::{CargoLambda, Place, assert_says, perhaps_installed};

/// A module with handlers for Node. Each event says what to do.
const APP: &str = r#"
let count = 0;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export const handler = async (event, context) => {
  count += 1;
  console.log("told to", event.do);
  if (event.do === "throw") throw new RangeError("it was asked to");
  if (event.do === "sleep") await pause(event.s * 1000);
  if (event.do === "exit") process.exit(event.code);
  return { pid: process.pid, count, event, context, left_ms: context.getRemainingTimeInMillis() };
};

export const streams = awslambda.streamifyResponse(async (event, out) => {
  out.write('{"streamed":');
  await pause(20);
  if (event.do === "throw") throw new RangeError("it was asked to");
  out.end("true}");
});
"#;

/// A stage on which AWS's runtime client for Node runs one of the handlers. Its native part is built when it is installed, for
/// which not every machine has what it takes: so it may be missing, in CI too.
fn on_nodes_stage<F: Future<Output = Stage>>(
    handler: &str,
    timeout_s: u64,
    test: impl FnOnce(Stage) -> F,
) {
    let Some(client) = perhaps_installed("LSWITCH_NODE_RIC", "aws-lambda-ric's index.mjs") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("app.mjs"), APP).expect("the module can be written");
    let function = LocalFunction {
        name: "f".to_owned(),
        command: vec!["node".to_owned(), client.display().to_string()],
        handler: handler.to_owned(),
        memory_mb: 512,
        timeout: Duration::from_secs(timeout_s),
        task_root: Some(folder.path().to_owned()),
        ..LocalFunction::default()
    };
    on_stage_of(function, 1, folder, test);
}

#[test]
fn nodes_handler_gets_event_and_context_and_its_result_comes_back() {
    on_nodes_stage("app.handler", 30, async |stage| {
        let event = json!({"text": "Grüße, €"});
        let sent = stage
            .client
            .invoke()
            .function_name("f")
            .client_context(BASE64_STANDARD.encode("{\"custom\":{\"a\":\"b\"}}"))
            .payload(Blob::new(event.to_string()))
            .send()
            .await;
        let answer = payload(&sent.expect("it is accepted"));
        assert_eq!(answer["event"], event);
        let context = &answer["context"];
        for (name, value) in [
            ("functionName", "f"),
            ("functionVersion", "$LATEST"),
            ("memoryLimitInMB", "512"),
            ("logGroupName", "/aws/lambda/f"),
        ] {
            assert_eq!(context[name], value, "{name}");
        }
        assert_eq!(context["clientContext"]["custom"]["a"], "b");
        let arn = context["invokedFunctionArn"].as_str();
        assert!(arn.is_some_and(|arn| arn.ends_with(":function:f")));
        let left_ms = answer["left_ms"].as_i64().expect("it is a number");
        assert!((1..=30_000).contains(&left_ms), "{left_ms} ms are left");
        let id = context["awsRequestId"].as_str().expect("it is a string");
        assert!(stage.has_logged(&format!("START RequestId: {id} ")));
        stage
    });
}

#[test]
fn what_nodes_handler_throws_reaches_the_caller_and_its_environment_lives() {
    on_nodes_stage("app.handler", 30, async |stage| {
        let output = stage.invoke(json!({"do": "throw"})).await;
        assert_eq!(
            (output.status_code(), output.function_error()),
            (200, Some("Unhandled"))
        );
        let said = payload(&output);
        assert_eq!(said["errorType"], "RangeError");
        assert_eq!(said["errorMessage"], "it was asked to");
        let log = log_of(&output);
        assert_says(&log, &["told to throw", "Error Type: RangeError"]);
        assert_eq!(stage.ask(json!({})).await["count"], 2);
        stage
    });
}

#[test]
fn nodes_environment_is_reused_after_it_was_frozen() {
    on_nodes_stage("app.handler", 30, async |stage| {
        let pid = pid_of(&stage.ask(json!({})).await);
        for count in 2..6 {
            #[cfg(target_os = "linux")]
            until("the idle process is stopped", || {
                process_state(pid) == Some('T')
            })
            .await;
            let answer = stage.ask(json!({})).await;
            assert_eq!((pid_of(&answer), &answer["count"]), (pid, &json!(count)));
        }
        stage
    });
}

#[test]
fn a_passed_deadline_kills_node() {
    on_nodes_stage("app.handler", 1, async |stage| {
        let pid = pid_of(&stage.ask(json!({})).await);
        let output = stage.invoke(json!({"do": "sleep", "s": 30})).await;
        assert_failed(
            &output,
            "Sandbox.Timedout",
            "Error: Task timed out after 1.00 seconds",
        );
        until("the process is gone", || process_state(pid).is_none()).await;
        let next = stage.ask(json!({})).await;
        assert_ne!(pid_of(&next), pid);
        assert_eq!(next["count"], 1);
        stage
    });
}

#[test]
fn node_that_exits_in_the_middle_is_answered_at_once() {
    on_nodes_stage("app.handler", 30, async |stage| {
        let output = stage.invoke(json!({"do": "exit", "code": 3})).await;
        assert_failed(
            &output,
            "Runtime.ExitError",
            "Error: Runtime exited with error: exit status 3",
        );
        stage
    });
}

#[test]
fn a_handler_that_node_does_not_find_answers_the_invocation_that_waits() {
    on_nodes_stage("app.nobody", 30, async |stage| {
        let output = stage.invoke(json!({})).await;
        assert_eq!(output.function_error(), Some("Unhandled"));
        let said = payload(&output);
        assert_eq!(said["errorType"], "Runtime.HandlerNotFound");
        assert_eq!(
            said["errorMessage"],
            "app.nobody is undefined or not exported"
        );
        stage
    });
}

#[test]
fn node_may_stream_its_answer_and_fail_while_it_does() {
    on_nodes_stage("app.streams", 30, async |stage| {
        assert_eq!(stage.ask(json!({})).await, json!({"streamed": true}));
        let output = stage.invoke(json!({"do": "throw"})).await;
        assert_eq!(output.function_error(), Some("Unhandled"));
        assert_eq!(payload(&output)["errorType"], "RangeError");
        assert_eq!(payload(&output)["errorMessage"], "it was asked to");
        assert_eq!(stage.ask(json!({})).await, json!({"streamed": true}));
        stage
    });
}

/// Where it is not like Lambda: its deadlines are in 1970, it answers with status 500 when a function fails, and answers a call
/// that only starts a worker when the worker has ended.
#[test]
fn our_workers_run_under_cargo_lambda() {
    const WORKERS: usize = 3;
    let place = Place::new();
    let Some(lambda) = CargoLambda::start(&place, WORKERS) else {
        return;
    };
    place.small_graph();
    let pagerank = "invoke pagerank --graph graph --tolerance 1e-12 --output";
    place.lswitch(&format!("{pagerank} alone --workers 2")).ok();
    let alone = place.output("alone").ranks();
    let (_switch, address) = place.switch();
    let job = |output: &str| {
        let job =
            format!("{pagerank} {output} --workers {WORKERS} --function ranker --switch {address}");
        place.lswitch(&job).envs(&lambda.env())
    };

    job("cold").arg("--keep-calls-open").ok();
    assert!(place.output("cold").ranks() == alone);
    let workers = lambda.workers();
    assert_eq!(workers.len(), WORKERS);
    job("warm").arg("--keep-calls-open").ok();
    assert!(place.output("warm").ranks() == alone);
    job("started").ok();
    assert!(place.output("started").ranks() == alone);
    // It may start more of them when a call comes before the one that is free has said so.
    let all_live = || {
        let now = lambda.workers();
        workers.iter().all(|worker| now.contains(worker))
    };
    assert!(all_live(), "the same ones serve all jobs");

    let parts = std::fs::read_dir(place.path("graph/parts")).expect("a graph has parts");
    let part = parts.map(|entry| entry.expect("a folder can be read").path());
    let part = part.max().expect("it has four");
    let away = place.path("away");
    std::fs::rename(&part, &away).expect("it can be moved");
    let failed = job("failed").arg("--keep-calls-open").end();
    assert_says(failed.fails_with(1), &["failed: ", "there is no object"]);
    std::fs::rename(&away, &part).expect("it can be moved back");
    job("again").arg("--keep-calls-open").ok();
    assert!(place.output("again").ranks() == alone);
    assert!(all_live(), "a job's failure is not theirs");
    lambda.stop();
}
