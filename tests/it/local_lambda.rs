//! The local Lambda from outside: aws-sdk-lambda calls it, and a runtime that is not ours (a page of Python, written
//! from AWS's description of the Runtime API) runs in it. Without python3 these tests say so and pass.

mod hardships;
pub mod stage;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lswitch::lambda::local::{Admission, LocalFunction, LocalLambda, LocalOptions};
use serde_json::{Value, json};

use stage::{
    Stage, assert_failed, function, invoke, log_of, on_stage, payload, pid_of, process_state, until,
};

#[test]
fn an_invocation_reaches_the_function_and_its_answer_comes_back() {
    on_stage(
        2,
        "app.main",
        |_| {},
        async |stage| {
            let output = stage.invoke(json!({"hello": "world"})).await;
            assert_eq!(output.executed_version(), Some("$LATEST"));
            let answer = payload(&output);
            assert_eq!(answer["event"], json!({"hello": "world"}));
            let headers = &answer["headers"];
            assert_eq!(
                headers["lambda-runtime-invoked-function-arn"]
                    .as_str()
                    .map(|arn| arn.ends_with(":function:f")),
                Some(true)
            );
            assert_eq!(headers["content-type"], "application/json");
            assert!(
                headers["lambda-runtime-trace-id"]
                    .as_str()
                    .is_some_and(|trace| trace.starts_with("Root=1-"))
            );
            let deadline_ms: u128 = headers["lambda-runtime-deadline-ms"]
                .as_str()
                .and_then(|ms| ms.parse().ok())
                .expect("a number");
            let now_ms = SystemTime::UNIX_EPOCH
                .elapsed()
                .expect("it is after 1970")
                .as_millis();
            assert!(
                (now_ms..=now_ms + 30_000).contains(&deadline_ms),
                "{deadline_ms} is no epoch time 30 s from {now_ms}"
            );
            stage
        },
    );
}

#[test]
fn names_may_have_qualifiers_or_be_arns_and_client_contexts_are_passed_on() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let context = BASE64_STANDARD.encode("{\"custom\":\n{\"a\":\"b\"}}");
            for (name, arn_ends) in [
                ("f:live", ":f:live"),
                ("arn:aws:lambda:eu-west-1:123456789012:function:f", ":f"),
                ("123456789012:function:f:$LATEST", ":f:$LATEST"),
            ] {
                let sent = stage
                    .client
                    .invoke()
                    .function_name(name)
                    .client_context(&context)
                    .send()
                    .await;
                let answer = payload(&sent.expect("it is accepted"));
                assert_eq!(answer["event"], json!({}), "no payload is an empty object");
                assert_eq!(
                    answer["headers"]["lambda-runtime-client-context"],
                    "{\"custom\":{\"a\":\"b\"}}"
                );
                let arn = answer["headers"]["lambda-runtime-invoked-function-arn"]
                    .as_str()
                    .expect("an ARN");
                assert!(
                    arn.starts_with("arn:aws:lambda:") && arn.ends_with(arn_ends),
                    "{arn}"
                );
            }
            stage
        },
    );
}

#[test]
fn the_environment_is_lambdas_and_its_folder_goes_with_it() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |mut stage| {
            let answer = stage.ask(json!({"do": "environment"})).await;
            let variables = &answer["environment"];
            for (name, value) in [
                ("AWS_LAMBDA_FUNCTION_NAME", "f"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
                ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/f"),
                ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
                ("_HANDLER", "app.main"),
                ("TZ", ":UTC"),
                ("GREETING", "hello"),
            ] {
                assert_eq!(variables[name], value, "{name}");
            }
            assert_eq!(
                variables["CARGO_MANIFEST_DIR"],
                Value::Null,
                "the caller's variables are not passed on"
            );
            let temporary = Path::new(variables["TMPDIR"].as_str().expect("it is set")).to_owned();
            let home = Path::new(variables["HOME"].as_str().expect("it is set")).to_owned();
            assert!(temporary.is_dir() && home.is_dir());
            let again = Stage::start(Vec::new(), 1, tempfile::tempdir().expect("a folder")).await;
            std::mem::replace(&mut stage.lambda, again.lambda)
                .stop()
                .await;
            assert!(!temporary.exists() && !home.exists());
            stage
        },
    );
}

#[test]
fn an_error_of_the_function_is_passed_on_and_its_environment_lives() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let output = stage.invoke(json!({"do": "fail"})).await;
            assert_eq!(
                (output.status_code(), output.function_error()),
                (200, Some("Unhandled"))
            );
            assert_eq!(
                payload(&output),
                json!({"errorMessage": "it was asked to", "errorType": "Asked", "stackTrace": ["here"]})
            );
            assert!(
                log_of(&output).contains("Error Type: Handler.Asked"),
                "{}",
                log_of(&output)
            );
            assert_eq!(stage.ask(json!({})).await["count"], 2);
            stage
        },
    );
}

#[test]
fn a_failed_init_answers_the_invocation_that_waits() {
    on_stage(
        1,
        "init.fails",
        |_| {},
        async |stage| {
            let output = stage.invoke(json!({})).await;
            assert_eq!(output.function_error(), Some("Unhandled"));
            assert_eq!(payload(&output)["errorType"], "Runtime.ImportModuleError");
            assert!(
                log_of(&output).contains("cannot import app\n"),
                "{}",
                log_of(&output)
            );
            stage
        },
    );
}

#[test]
fn an_exit_before_the_first_next_answers_the_invocation_that_waits() {
    on_stage(
        1,
        "init.exits",
        |_| {},
        async |stage| {
            let output = stage.invoke(json!({})).await;
            assert_failed(
                &output,
                "Runtime.ExitError",
                "Error: Runtime exited with error: exit status 3",
            );
            assert!(
                log_of(&output).starts_with("going already\n"),
                "{}",
                log_of(&output)
            );
            stage
        },
    );
}

#[test]
fn a_command_that_does_not_exist_is_named_in_the_answer() {
    let change =
        |function: &mut LocalFunction| function.command = vec!["/no/such/program".to_owned()];
    on_stage(1, "app.main", change, async |stage| {
        let output = stage.invoke(json!({})).await;
        let problem =
            "Error: cannot start [\"/no/such/program\"]: No such file or directory (os error 2)";
        assert_failed(&output, "Runtime.InvalidEntrypoint", problem);
        stage
    });
}

#[test]
fn an_exit_in_the_middle_is_answered_at_once_and_a_new_environment_follows() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let first = pid_of(&stage.ask(json!({})).await);
            let exit = |code: i32| json!({"do": "exit", "code": code});
            let output = stage.invoke(exit(3)).await;
            assert_failed(
                &output,
                "Runtime.ExitError",
                "Error: Runtime exited with error: exit status 3",
            );
            let output = stage.invoke(exit(0)).await;
            assert_failed(
                &output,
                "Runtime.ExitError",
                "Error: Runtime exited without providing a reason",
            );
            let output = stage.invoke(json!({"do": "kill"})).await;
            assert_failed(
                &output,
                "Runtime.ExitError",
                "Error: Runtime exited with error: signal: killed",
            );
            let last = stage.ask(json!({})).await;
            assert_ne!(pid_of(&last), first);
            assert_eq!(last["count"], 1);
            stage
        },
    );
}

#[test]
fn a_passed_deadline_kills_the_function() {
    on_stage(
        1,
        "app.main",
        |function| function.timeout = Duration::from_secs(1),
        async |stage| {
            let pid = pid_of(&stage.ask(json!({})).await);
            let output = stage.invoke(json!({"do": "sleep", "s": 30})).await;
            assert_failed(
                &output,
                "Sandbox.Timedout",
                "Error: Task timed out after 1.00 seconds",
            );
            assert!(
                log_of(&output).contains("Status: timeout"),
                "{}",
                log_of(&output)
            );
            until("the process is gone", || process_state(pid).is_none()).await;
            assert_ne!(pid_of(&stage.ask(json!({})).await), pid);
            stage
        },
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_function_that_takes_more_memory_than_it_has_is_killed() {
    on_stage(
        1,
        "app.main",
        |function| function.memory_mb = 128,
        async |stage| {
            let output = stage.invoke(json!({"do": "hog", "mb": 200})).await;
            assert_failed(
                &output,
                "Runtime.ExitError",
                "Error: Runtime exited with error: signal: killed",
            );
            let log = log_of(&output);
            assert!(
                log.contains("more than its function's memory: killed"),
                "{log}"
            );
            stage
        },
    );
}

#[test]
fn concurrent_invocations_run_in_processes_that_are_alive_at_once() {
    const TOGETHER: usize = 6;
    on_stage(
        TOGETHER,
        "app.main",
        |_| {},
        async |stage| {
            let folder = stage.folder.path().join("meeting");
            std::fs::create_dir(&folder).expect("the folder can be made");
            let event = json!({"do": "meet", "folder": folder, "count": TOGETHER});
            let calls: Vec<_> = (0..TOGETHER)
                .map(|_| {
                    let (client, event) = (stage.client.clone(), event.clone());
                    tokio::spawn(async move { payload(&invoke(&client, event).await) })
                })
                .collect();
            let mut pids = BTreeSet::new();
            for call in calls {
                pids.insert(pid_of(&call.await.expect("no call panics")));
            }
            assert_eq!(pids.len(), TOGETHER);
            stage
        },
    );
}

#[test]
fn an_environment_is_reused_and_frozen_while_it_idles() {
    on_stage(
        4,
        "app.main",
        |_| {},
        async |stage| {
            let first = stage.ask(json!({})).await;
            let pid = pid_of(&first);
            for count in 2..20 {
                let answer = stage.ask(json!({})).await;
                assert_eq!((pid_of(&answer), &answer["count"]), (pid, &json!(count)));
            }
            #[cfg(target_os = "linux")]
            until("the idle process is stopped", || {
                process_state(pid) == Some('T')
            })
            .await;
            assert_eq!(pid_of(&stage.ask(json!({})).await), pid);
            stage
        },
    );
}

#[test]
fn an_event_is_accepted_at_once_and_runs_later() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let (gate, mark) = (
                stage.folder.path().join("gate"),
                stage.folder.path().join("mark"),
            );
            for event in [
                json!({"do": "wait", "file": gate}),
                json!({"do": "touch", "file": mark}),
            ] {
                let call = stage
                    .client
                    .invoke()
                    .function_name("f")
                    .invocation_type(InvocationType::Event);
                let output = call
                    .payload(Blob::new(event.to_string()))
                    .send()
                    .await
                    .expect("it is accepted");
                assert_eq!(output.status_code(), 202);
                assert!(output.payload().is_none_or(|blob| blob.as_ref().is_empty()));
            }
            assert!(
                !mark.exists(),
                "the first event still holds the only environment"
            );
            std::fs::write(&gate, "").expect("the file can be written");
            until("the second event ran", || mark.exists()).await;
            let dry = stage
                .client
                .invoke()
                .function_name("f")
                .invocation_type(InvocationType::DryRun)
                .send()
                .await;
            assert_eq!(dry.expect("it is fine").status_code(), 204);
            stage
        },
    );
}

#[test]
fn refusals_have_aws_types() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let call = || stage.client.invoke().function_name("f");
            let unknown = stage
                .client
                .invoke()
                .function_name("nobody")
                .send()
                .await
                .expect_err("there is none")
                .into_service_error();
            assert!(unknown.is_resource_not_found_exception(), "{unknown:?}");
            let text = unknown.to_string();
            assert!(
                text.contains("function:nobody (local functions: f)"),
                "{text}"
            );
            let odd = call()
                .payload(Blob::new("{no json"))
                .send()
                .await
                .expect_err("it is no JSON")
                .into_service_error();
            assert!(odd.is_invalid_request_content_exception(), "{odd:?}");
            let large = Blob::new(format!("\"{}\"", "x".repeat(6_291_556)));
            let large = call()
                .payload(large)
                .send()
                .await
                .expect_err("it is too large")
                .into_service_error();
            assert!(large.is_request_too_large_exception(), "{large:?}");
            let event = Blob::new(format!("\"{}\"", "x".repeat(1 << 20)));
            let event = call()
                .invocation_type(InvocationType::Event)
                .payload(event)
                .send()
                .await;
            let event = event
                .expect_err("it is too large for an event")
                .into_service_error();
            assert!(event.is_request_too_large_exception(), "{event:?}");

            let gate = stage.folder.path().join("gate");
            let held = tokio::spawn(
                call()
                    .payload(Blob::new(json!({"do": "wait", "file": gate}).to_string()))
                    .send(),
            );
            until("the first invocation runs", || {
                stage.has_logged("START RequestId")
            })
            .await;
            let busy = call()
                .send()
                .await
                .expect_err("the only environment is taken")
                .into_service_error();
            assert!(busy.is_too_many_requests_exception(), "{busy:?}");
            let text = format!("{busy:?}");
            assert!(text.contains("ConcurrentInvocationLimitExceeded"), "{text}");
            std::fs::write(&gate, "").expect("the file can be written");
            held.await
                .expect("no panic")
                .expect("the first invocation is answered");
            stage
        },
    );
}

#[test]
fn answers_may_be_streamed_but_not_larger_than_lambdas() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            assert_eq!(
                stage.ask(json!({"do": "stream"})).await,
                json!({"streamed": true})
            );
            let large = stage.ask(json!({"do": "large", "bytes": 6_291_554})).await;
            assert_eq!(large.as_str().map(str::len), Some(6_291_554));
            let output = stage
                .invoke(json!({"do": "large", "bytes": 6_291_555}))
                .await;
            assert_eq!(
                payload(&output)["errorType"],
                "Function.ResponseSizeTooLarge"
            );
            until("the runtime hears of it", || {
                stage.has_logged("response: 413")
            })
            .await;
            stage
        },
    );
}

#[test]
fn the_log_tail_has_what_the_invocation_wrote_and_no_more_than_4_kb() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let output = stage.invoke(json!({"do": "print", "bytes": 3})).await;
            let id = payload(&output)["id"]
                .as_str()
                .expect("the runtime says its request's id")
                .to_owned();
            let log = log_of(&output);
            let before = format!(
                "START RequestId: {id} Version: $LATEST\nto stdout\nto stderr\nxxx\nthe last line\nEND RequestId: {id}\nREPORT RequestId: {id}\tDuration: "
            );
            assert!(log.starts_with(&before), "{log}");
            assert!(
                log.contains("Memory Size: 512 MB\tMax Memory Used: ")
                    && log.contains("Init Duration: "),
                "{log}"
            );
            let second = log_of(&stage.invoke(json!({"do": "print", "bytes": 5000})).await);
            assert!(
                second.len() == 4096
                    && second.starts_with("xxx")
                    && second.contains("xxx\nthe last line\nEND"),
                "{second}"
            );
            assert!(!second.contains("Init Duration"), "{second}");
            assert!(stage.has_logged("f[1]: to stdout"));
            stage
        },
    );
}

#[test]
fn a_runtime_that_breaks_the_protocol_is_told() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let answer = stage.ask(json!({"do": "misuse"})).await;
            for (what, status) in [
                ("wrong_id", 400),
                ("next_while_busy", 403),
                ("late_register", 403),
                ("unknown_extension", 403),
                ("init_error_after_init", 403),
                ("unknown_path", 404),
            ] {
                assert_eq!(answer[what], status, "{what}");
            }
            until("the second response is refused", || {
                stage.has_logged("twice: 400")
            })
            .await;
            stage
        },
    );
}

#[test]
fn extensions_hear_of_invocations_and_have_time_to_end() {
    on_stage(
        1,
        "extension",
        |_| {},
        async |mut stage| {
            let first = pid_of(&stage.ask(json!({})).await);
            assert_eq!(pid_of(&stage.ask(json!({})).await), first);
            let again = Stage::start(Vec::new(), 1, tempfile::tempdir().expect("a folder")).await;
            std::mem::replace(&mut stage.lambda, again.lambda)
                .stop()
                .await;
            for text in ["extension: INVOKE", "extension: SHUTDOWN", "told to end"] {
                assert!(stage.has_logged(text), "{text}: {:?}", stage.log);
            }
            stage
        },
    );
}

#[test]
fn a_caller_who_leaves_does_not_end_the_invocation() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let gate = stage.folder.path().join("gate");
            let payload = Blob::new(json!({"do": "wait", "file": gate}).to_string());
            let left = tokio::spawn(
                stage
                    .client
                    .invoke()
                    .function_name("f")
                    .payload(payload)
                    .send(),
            );
            until("it runs", || stage.has_logged("START RequestId")).await;
            left.abort();
            assert!(left.await.is_err_and(|error| error.is_cancelled()));
            std::fs::write(&gate, "").expect("the file can be written");
            until("it ended well", || stage.has_logged("REPORT RequestId")).await;
            assert_eq!(stage.ask(json!({})).await["count"], 2);
            stage
        },
    );
}

#[cfg(target_os = "linux")]
#[test]
fn stopping_or_dropping_leaves_no_process() {
    for stops in [true, false] {
        on_stage(
            2,
            "app.main",
            |_| {},
            async |mut stage| {
                let idle = stage.ask(json!({"do": "child"})).await;
                let (idle, child) = (
                    pid_of(&idle),
                    idle["child"].as_u64().expect("the child's process id"),
                );
                let again =
                    Stage::start(Vec::new(), 1, tempfile::tempdir().expect("a folder")).await;
                let lambda = std::mem::replace(&mut stage.lambda, again.lambda);
                let client = stage.client.clone();
                let busy =
                    tokio::spawn(
                        async move { invoke(&client, json!({"do": "sleep", "s": 30})).await },
                    );
                until("the second invocation runs", || {
                    stage
                        .log
                        .lock()
                        .expect("no holder panics")
                        .iter()
                        .filter(|line| line.contains("START"))
                        .count()
                        == 2
                })
                .await;
                if stops {
                    lambda.stop().await;
                    assert_eq!(process_state(idle), None, "stop waits until they are gone");
                    assert_failed(
                        &busy.await.expect("no panic"),
                        "Runtime.ExitError",
                        "signal: killed",
                    );
                    let refused = stage.client.invoke().function_name("f").send().await;
                    refused.expect_err("nobody answers any more");
                } else {
                    drop(lambda);
                }
                until("all processes are gone", || {
                    process_state(idle).is_none() && process_state(child).is_none()
                })
                .await;
                stage
            },
        );
    }
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let refusal = async |listen: &str, functions, concurrency| {
        let listen = listen.parse().expect("it is an address");
        let options = LocalOptions {
            listen,
            functions,
            concurrency,
            scaling: None,
            admission: Admission::default(),
            log_sink: None,
        };
        LocalLambda::start(options)
            .await
            .expect_err("it cannot work")
            .to_string()
    };
    let function = function(
        "python3",
        tempfile::tempdir().expect("a folder").path(),
        "h",
    );
    assert!(
        refusal("0.0.0.0:0", Vec::new(), 1)
            .await
            .ends_with("not on 0.0.0.0:0; use 127.0.0.1")
    );
    assert!(
        refusal("127.0.0.1:0", Vec::new(), 0)
            .await
            .contains("concurrency is 0")
    );
    let twice = refusal("127.0.0.1:0", vec![function.clone(), function.clone()], 1).await;
    assert_eq!(
        twice,
        "two local functions are named \"f\"; rename one of them"
    );
    let small = LocalFunction {
        memory_mb: 64,
        ..function
    };
    let small = refusal("127.0.0.1:0", vec![small], 1).await;
    assert_eq!(
        small,
        "function \"f\": memory_mb: 64 is outside Lambda's 128 to 10240 MB"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().expect("it is bound").to_string();
    assert!(
        refusal(&taken, Vec::new(), 1)
            .await
            .starts_with(&format!("cannot listen on {taken}"))
    );
}

/// Not a test: the worker of the next one, which starts this test program again.
#[test]
fn worker_on_lambda_runtime() {
    use lambda_runtime::{Error, LambdaEvent, run, service_fn};
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    let handler = async |event: LambdaEvent<Value>| {
        let left = event.context.deadline().duration_since(SystemTime::now())?;
        if event.payload["do"] == "panic" {
            panic!("it was asked to");
        }
        if event.payload["do"] == "fail" {
            return Err(Error::from("it was asked to"));
        }
        let name = &event.context.env_config.function_name;
        Ok(json!({"event": event.payload, "left_ms": left.as_millis() as u64, "function": name}))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime
        .expect("a runtime can be built")
        .block_on(run(service_fn(handler)));
    served.expect("the runtime serves until it is killed");
}

#[tokio::test]
async fn awss_own_rust_runtime_runs_in_it() {
    let test = async {
        let folder = tempfile::tempdir().expect("a folder");
        let this = std::env::current_exe().expect("this program has a path");
        let mut rust = function("", folder.path(), "none");
        let worker = "local_lambda::worker_on_lambda_runtime";
        rust.command = vec![
            this.display().to_string(),
            "--exact".into(),
            worker.into(),
            "--nocapture".into(),
        ];
        let stage = Stage::start(vec![rust], 1, folder).await;
        let answer = stage.ask(json!({"a": 1})).await;
        assert_eq!(
            (&answer["event"], &answer["function"]),
            (&json!({"a": 1}), &json!("f"))
        );
        let left_ms = answer["left_ms"].as_u64().expect("a number");
        assert!(
            (20_000..=30_000).contains(&left_ms),
            "{left_ms} ms are left of 30 s"
        );
        for (what, text) in [("fail", "it was asked to"), ("panic", "panicked")] {
            let output = stage.invoke(json!({"do": what})).await;
            assert_eq!(output.function_error(), Some("Unhandled"));
            let said = payload(&output).to_string();
            assert!(said.contains(text), "{said}");
        }
        stage.lambda.stop().await;
    };
    tokio::time::timeout(Duration::from_secs(60), test)
        .await
        .expect("it ends in time");
}
