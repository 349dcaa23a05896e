//! A local Lambda to test, a client for it, and a runtime that runs in it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::timeout::TimeoutConfig;
use aws_sdk_lambda::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use lswitch::lambda::local::{
    Admission, LocalFunction, LocalLambda, LocalOptions, LogLine, LogSink, Scaling,
};
use serde_json::Value;

/// What a test waits for at most: far more than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime. Each event says what to do.
pub const RUNTIME: &str = r#"
import http.client, json, os, signal, subprocess, sys, threading, time

api = os.environ["AWS_LAMBDA_RUNTIME_API"]

def call(method, path, body=None, headers={}):
    connection = http.client.HTTPConnection(api)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, dict((k.lower(), v) for k, v in reply.getheaders()), reply.read()

handler = os.environ["_HANDLER"]
if handler == "init.fails":
    print("cannot import app", flush=True)
    error = {"errorMessage": "no module named app", "errorType": "Runtime.ImportModuleError", "stackTrace": []}
    status = call("POST", "/2018-06-01/runtime/init/error", json.dumps(error),
                  {"Lambda-Runtime-Function-Error-Type": "Runtime.ImportModuleError"})[0]
    assert status == 202, status
    time.sleep(60)
if handler == "init.exits":
    print("going already", flush=True)
    sys.exit(3)
seen = []
def extend():
    # Python's main thread runs the handlers, and only a signal of its own wakes it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    while True:
        body = json.loads(call("GET", "/2020-01-01/extension/event/next", None, {"Lambda-Extension-Identifier": me})[2])
        print("extension:", body["eventType"], flush=True)
        seen.append(body["eventType"])
def on_term(*_):
    while "SHUTDOWN" not in seen:
        time.sleep(0.005)
    print("told to end", flush=True)
    sys.exit(0)
if handler == "extension":
    signal.signal(signal.SIGTERM, on_term)
    status, headers, body = call("POST", "/2020-01-01/extension/register",
        json.dumps({"events": ["INVOKE", "SHUTDOWN"]}), {"Lambda-Extension-Name": "watcher"})
    assert status == 200 and json.loads(body)["functionName"] == os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    me = headers["lambda-extension-identifier"]
    threading.Thread(target=extend, daemon=True).start()

count = 0
while True:
    status, headers, body = call("GET", "/2018-06-01/runtime/invocation/next")
    assert status == 200, (status, body)
    id = headers["lambda-runtime-aws-request-id"]
    event = json.loads(body)
    do = event.get("do")
    count += 1
    answer = {"pid": os.getpid(), "count": count, "event": event, "headers": headers, "id": id}
    where = "/2018-06-01/runtime/invocation/" + id
    if do == "environment":
        answer.update(environment=dict(os.environ), folder=os.getcwd())
    elif do == "fail":
        error = {"errorMessage": "it was asked to", "errorType": "Asked", "stackTrace": ["here"]}
        call("POST", where + "/error", json.dumps(error), {"Lambda-Runtime-Function-Error-Type": "Handler.Asked"})
        continue
    elif do == "sleep":
        time.sleep(event["s"])
    elif do == "exit":
        sys.exit(event["code"])
    elif do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "child":
        answer["child"] = subprocess.Popen(["sleep", "600"]).pid
    elif do == "hog":
        hog = b"x" * (event["mb"] << 20)
        time.sleep(30)
    elif do == "print":
        print("to stdout", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        print("x" * event["bytes"])
        print("the last line", end="", flush=True)
    elif do == "touch":
        open(event["file"], "w").close()
    elif do == "wait":
        while not os.path.exists(event["file"]):
            time.sleep(0.01)
    elif do == "meet":
        open(os.path.join(event["folder"], str(os.getpid())), "w").close()
        while len(os.listdir(event["folder"])) < event["count"]:
            time.sleep(0.01)
    elif do == "misuse":
        answer["wrong_id"] = call("POST", "/2018-06-01/runtime/invocation/nobody/response", "{}")[0]
        answer["next_while_busy"] = call("GET", "/2018-06-01/runtime/invocation/next")[0]
        answer["late_register"] = call("POST", "/2020-01-01/extension/register", "{}", {"Lambda-Extension-Name": "a"})[0]
        answer["unknown_extension"] = call("GET", "/2020-01-01/extension/event/next", None,
                                           {"Lambda-Extension-Identifier": "a"})[0]
        answer["init_error_after_init"] = call("POST", "/2018-06-01/runtime/init/error", "{}")[0]
        answer["unknown_path"] = call("GET", "/2018-06-01/else")[0]
    if do == "large":
        status, _, body = call("POST", where + "/response", b'"' + b"x" * event["bytes"] + b'"')
        print("response:", status, flush=True)
    elif do == "stream":
        call("POST", where + "/response", (part for part in [b'{"strea', b'med": true}']))
    else:
        status = call("POST", where + "/response", json.dumps(answer))[0]
        assert status == 202, status
    if do == "misuse":
        print("twice:", call("POST", where + "/response", "{}")[0], flush=True)
"#;

/// A local Lambda with one function `f` and whatever else a test adds, a client for it, and all that it logs.
pub struct Stage {
    pub lambda: LocalLambda,
    pub client: Client,
    pub log: Arc<Mutex<Vec<String>>>,
    pub folder: tempfile::TempDir,
}

pub fn python() -> Option<String> {
    let found = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    match found {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => {
            eprintln!("skipped: there is no python3, which these tests run as a worker");
            None
        }
    }
}

pub fn function(python: &str, folder: &Path, handler: &str) -> LocalFunction {
    let script = folder.join("runtime.py");
    std::fs::write(&script, RUNTIME).expect("the script can be written");
    LocalFunction {
        name: "f".to_owned(),
        command: vec![python.to_owned(), script.display().to_string()],
        handler: handler.to_owned(),
        memory_mb: 512,
        timeout: Duration::from_secs(30),
        environment: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        ..LocalFunction::default()
    }
}

/// Starts a stage, runs the test on it, stops it, all in bounded time.
pub fn on_stage<F: Future<Output = Stage>>(
    concurrency: usize,
    handler: &str,
    change: impl FnOnce(&mut LocalFunction),
    test: impl FnOnce(Stage) -> F,
) {
    on_scaled_stage((concurrency, None), handler, change, test);
}

/// The same on a local Lambda that may have a scaling rate.
pub fn on_scaled_stage<F: Future<Output = Stage>>(
    (concurrency, scaling): (usize, Option<Scaling>),
    handler: &str,
    change: impl FnOnce(&mut LocalFunction),
    test: impl FnOnce(Stage) -> F,
) {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut function = function(&python, folder.path(), handler);
    change(&mut function);
    run(function, (concurrency, scaling), folder, test);
}

/// The same with a function that is not that runtime.
pub fn on_stage_of<F: Future<Output = Stage>>(
    function: LocalFunction,
    concurrency: usize,
    folder: tempfile::TempDir,
    test: impl FnOnce(Stage) -> F,
) {
    run(function, (concurrency, None), folder, test);
}

fn run<F: Future<Output = Stage>>(
    function: LocalFunction,
    room: (usize, Option<Scaling>),
    folder: tempfile::TempDir,
    test: impl FnOnce(Stage) -> F,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime can be built").block_on(async {
        let body = async {
            let stage = test(Stage::start_scaled(vec![function], room, folder).await).await;
            stage.lambda.stop().await;
        };
        tokio::time::timeout(PATIENCE, body)
            .await
            .expect("the test ends in time");
    });
}

impl Stage {
    pub async fn start(
        functions: Vec<LocalFunction>,
        concurrency: usize,
        folder: tempfile::TempDir,
    ) -> Stage {
        Stage::start_scaled(functions, (concurrency, None), folder).await
    }

    pub async fn start_scaled(
        functions: Vec<LocalFunction>,
        (concurrency, scaling): (usize, Option<Scaling>),
        folder: tempfile::TempDir,
    ) -> Stage {
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&log);
        let log_sink: LogSink = Arc::new(move |line: LogLine<'_>| {
            seen.lock()
                .expect("no holder panics")
                .push(line.to_string())
        });
        let listen = "127.0.0.1:0".parse().expect("it is an address");
        let options = LocalOptions {
            listen,
            functions,
            concurrency,
            scaling,
            admission: Admission::default(),
            log_sink: Some(log_sink),
        };
        let lambda = LocalLambda::start(options)
            .await
            .expect("the local Lambda starts");
        let config = aws_sdk_lambda::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(lambda.endpoint())
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(PATIENCE).build())
            .build();
        Stage {
            lambda,
            client: Client::from_conf(config),
            log,
            folder,
        }
    }

    pub async fn invoke(&self, event: Value) -> InvokeOutput {
        invoke(&self.client, event).await
    }

    /// Invokes and takes the answer of a function that does not fail.
    pub async fn ask(&self, event: Value) -> Value {
        let output = self.invoke(event).await;
        assert_eq!(output.function_error(), None, "{}", payload(&output));
        payload(&output)
    }

    /// Starts an event, which is accepted at once.
    pub async fn start_event(&self, event: Value) {
        let call = self.client.invoke().function_name("f");
        let call = call.invocation_type(InvocationType::Event);
        let sent = call.payload(Blob::new(event.to_string())).send().await;
        assert_eq!(sent.expect("it is accepted").status_code(), 202);
    }

    /// The request ids of invocations that came as far as `word`: START, or REPORT at their end.
    pub fn requests(&self, word: &str) -> Vec<String> {
        let log = self.log.lock().expect("no holder panics");
        let ids = log.iter().filter_map(|line| {
            let (_, id) = line.split_once(&format!("]: {word} RequestId: "))?;
            id.split_whitespace().next().map(str::to_owned)
        });
        ids.collect()
    }

    pub fn has_logged(&self, text: &str) -> bool {
        self.log
            .lock()
            .expect("no holder panics")
            .iter()
            .any(|line| line.contains(text))
    }
}

pub async fn invoke(client: &Client, event: Value) -> InvokeOutput {
    let payload = Blob::new(event.to_string());
    let sent = client
        .invoke()
        .function_name("f")
        .payload(payload)
        .log_type(LogType::Tail)
        .send()
        .await;
    sent.expect("the invocation is accepted")
}

pub fn payload(output: &InvokeOutput) -> Value {
    serde_json::from_slice(output.payload().map(Blob::as_ref).unwrap_or_default())
        .expect("the answer is JSON")
}

pub fn log_of(output: &InvokeOutput) -> String {
    let log = BASE64_STANDARD
        .decode(output.log_result().expect("the log was asked for"))
        .expect("it is Base64");
    String::from_utf8(log).expect("it is text")
}

pub fn pid_of(answer: &Value) -> u64 {
    answer["pid"]
        .as_u64()
        .expect("the runtime says its process id")
}

/// `R`, `S`, `T` and so on; `None` for a process that is gone or a zombie.
pub fn process_state(pid: u64) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rsplit_once(") ")?.1.chars().next()?;
    (state != 'Z').then_some(state)
}

/// Waits for what another process does, by looking often.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let look = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look)
        .await
        .unwrap_or_else(|_| panic!("it never came true: {what}"));
}

pub fn assert_failed(output: &InvokeOutput, error_type: &str, message: &str) {
    let said = payload(output);
    assert_eq!(output.status_code(), 200);
    assert_eq!(output.function_error(), Some("Unhandled"), "{said}");
    assert_eq!(said["errorType"], error_type, "{said}");
    let text = said["errorMessage"].as_str().expect("a message is text");
    assert!(
        text.starts_with("RequestId: ") && text.ends_with(message),
        "{text}"
    );
    assert!(
        log_of(output).contains(&format!("{text}\n")),
        "{}",
        log_of(output)
    );
}
