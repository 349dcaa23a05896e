//! Another user of the machine, played by uid 65534, and whom a local Lambda serves: both of its APIs, wherever one runs.
//!
//! Playing another user takes root. Without it, or without a python3 that others may run, the tests that need one say so and pass.

use crate::local_lambda::stage::{function, invoke, on_stage, on_stage_of, payload, until};
use crate::support::{Place, assert_says};
use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::{BehaviorVersion, Credentials, Region};
use lswitch::lambda::local::{Admission, LocalFunction, LocalLambda, LocalOptions};
use rustix::process::geteuid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `nobody`, as most systems call it.
const STRANGER: u32 = 65534;

/// Sends what comes over standard input and prints what is answered. `rude` does not wait for an answer.
const CLIENT: &str = r#"
import socket, struct, sys
host, port, count, manner = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
request = sys.stdin.buffer.read()
for _ in range(count):
    connection = socket.create_connection((host, port), timeout=20)
    try:
        connection.sendall(request)
        if manner == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while manner == "polite":
            part = connection.recv(65536)
            if not part:
                break
            sys.stdout.buffer.write(part)
    except ConnectionError as error:
        print(error)
    connection.close()
"#;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq)]
enum User {
    Own,
    Stranger,
}

/// A python3 that this user may run.
fn python_of(user: User) -> Option<&'static str> {
    if user == User::Stranger && !geteuid().is_root() {
        eprintln!("skipped: only root can play another user");
        return None;
    }
    let runs = |python: &&str| {
        let status = client(user, python).args(["-c", "pass"]).status();
        status.is_ok_and(|status| status.success())
    };
    let found = ["/usr/bin/python3", "/usr/local/bin/python3", "python3"]
        .into_iter()
        .find(runs);
    if found.is_none() {
        eprintln!("skipped: there is no python3 that {user:?} may run");
    }
    found
}

fn client(user: User, python: &str) -> Command {
    let mut command = Command::new(python);
    command.arg("-I").current_dir("/");
    if user == User::Stranger {
        command.uid(STRANGER).gid(STRANGER);
    }
    command
}

/// What a server answers to a request of this user, which is made `count` times.
fn ask(
    user: User,
    (host, port): (&str, u16),
    request: &[u8],
    (count, manner): (u32, &str),
) -> String {
    let python = python_of(user).expect("it was asked for before");
    let mut child = client(user, python)
        .args([
            "-c",
            CLIENT,
            host,
            &port.to_string(),
            &count.to_string(),
            manner,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it ran before");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(request).expect("it reads all first");
    drop(stdin);
    let output = child
        .wait_with_output()
        .expect("it ends by its own time-outs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

fn post(path: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

const NEXT: &str = "/2018-06-01/runtime/invocation/next";

fn invocations(function: &str) -> String {
    format!("/2015-03-31/functions/{function}/invocations")
}

fn port_of(endpoint: &str) -> u16 {
    let (_, port) = endpoint.rsplit_once(':').expect("it has a port");
    port.parse().expect("it is a number")
}

/// The ports of 127.0.0.1 at which a process listens.
fn listening(process: u32) -> BTreeSet<u16> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        let inode = target
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[3] == "0A" && inodes.contains(row[9]))
        .map(|row| {
            let (_, port) = row[1].split_once(':').expect("an address and a port");
            u16::from_str_radix(port, 16).expect("a number")
        })
        .collect()
}

/// Each API of a local Lambda in this process answers its own user, and not the other one. Waits until there are `count`.
fn assert_serves_its_own_user_alone(process: u32, count: usize) {
    let end = Instant::now() + Duration::from_secs(30);
    let ask_own = |port| ask(User::Own, ("127.0.0.1", port), &get("/"), (1, "polite"));
    let apis = loop {
        let ports = listening(process).into_iter();
        let apis: Vec<u16> = ports
            .filter(|&port| ask_own(port).starts_with("HTTP/1.1 404"))
            .collect();
        if apis.len() >= count {
            break apis;
        }
        assert!(
            Instant::now() < end,
            "{count} APIs were expected, and there are {apis:?}"
        );
        std::thread::yield_now();
    };
    for port in apis {
        for request in [get("/"), get(NEXT), post(&invocations("lswitch"), "", "{}")] {
            let answer = ask(User::Stranger, ("127.0.0.1", port), &request, (1, "polite"));
            assert_says(
                &answer,
                &[
                    "HTTP/1.1 403 Forbidden",
                    "AccessDeniedException",
                    "of uid 65534",
                ],
            );
        }
    }
}

#[test]
fn a_local_lambda_serves_its_own_user_alone() {
    if python_of(User::Stranger).is_none() {
        return;
    }
    let place = Place::new();
    let (local, endpoint) = place.local();
    assert_serves_its_own_user_alone(local.id(), 1);
    let port = port_of(&endpoint);
    assert!(listening(local.id()).contains(&port));
}

#[test]
fn an_idle_pool_and_the_workers_of_a_map_serve_their_own_user_alone() {
    if python_of(User::Stranger).is_none() {
        return;
    }
    let place = Place::new();
    // A pool that nobody has called yet, which is what an Executor has.
    let mut pool = Command::new(env!("CARGO_BIN_EXE_lswitch"))
        .args(["invoke", "pool", "-q", "--workers", "2", "map"])
        .current_dir(place.path("."))
        .env("LSWITCH_HOME", place.path("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built");
    assert_serves_its_own_user_alone(pool.id(), 1);
    drop(pool.stdin.take());
    assert!(pool.wait().expect("it ends with its input").success());

    // The Invoke API, and the Runtime API of a worker that is busy.
    let map = place
        .lswitch("invoke map -q --workers 1 --items 1..2 --exec sleep -- 60")
        .start();
    assert_serves_its_own_user_alone(map.id(), 2);
    map.signal(rustix::process::Signal::INT);
    map.wait();
}

/// A function that says where its Runtime API is, and calls nothing of it.
fn waiting(folder: &tempfile::TempDir) -> LocalFunction {
    let script = "echo \"$AWS_LAMBDA_RUNTIME_API $(stat -c %a \"$HOME/..\")\" > \"$0.new\" && mv \"$0.new\" \"$0\" && exec sleep 60";
    let file = folder.path().join("begun");
    LocalFunction {
        name: "f".into(),
        command: ["sh", "-c", script, file.to_str().expect("it is UTF-8")]
            .map(str::to_owned)
            .to_vec(),
        ..LocalFunction::default()
    }
}

#[test]
fn an_environment_that_has_not_begun_hands_its_event_to_its_own_user_alone() {
    if python_of(User::Stranger).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("begun");
    on_stage_of(waiting(&folder), 1, folder, async |stage| {
        stage.start_event(json!({"secret": "of the event"})).await;
        until("the environment has begun", || file.exists()).await;
        let begun = fs::read_to_string(&file).expect("it is there");
        let (api, mode) = begun.trim().split_once(' ').expect("two words");
        assert_eq!(
            mode, "700",
            "nobody else looks into an environment's folder"
        );
        let api: SocketAddr = api.parse().expect("an address");
        let next = |user| ask(user, ("127.0.0.1", api.port()), &get(NEXT), (1, "polite"));
        let answer = next(User::Stranger);
        assert_says(&answer, &["HTTP/1.1 403 Forbidden", "of uid 65534"]);
        assert!(!answer.contains("of the event"), "{answer}");
        let answer = next(User::Own);
        assert_says(&answer, &["HTTP/1.1 200 OK", "of the event"]);
        stage
    });
}

#[test]
fn who_does_not_wait_for_the_answer_invokes_nothing_either() {
    if python_of(User::Stranger).is_none() {
        return;
    }
    on_stage(
        2,
        "app.main",
        |_| {},
        async |stage| {
            let port = port_of(&stage.lambda.endpoint());
            let folder = stage.folder.path();
            // The kernel shows a closed socket as root's, who is the user of this test.
            for manner in ["closed", "reset"] {
                let event = json!({"do": "touch", "file": folder.join(manner)}).to_string();
                let kind = "X-Amz-Invocation-Type: Event\r\n";
                let request = post(&invocations("f"), kind, &event);
                ask(User::Stranger, ("127.0.0.1", port), &request, (200, manner));
            }
            // Connections are taken in turn, so those were looked at before this one.
            let answer = stage.ask(json!({})).await;
            assert_eq!(answer["count"], 1, "{answer}");
            for manner in ["closed", "reset"] {
                assert!(!folder.join(manner).exists(), "{manner}");
            }
            stage
        },
    );
}

#[test]
fn a_client_of_the_newer_internet_protocol_is_known_by_its_user_too() {
    let Some(_) = python_of(User::Own) else {
        return;
    };
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let port = port_of(&stage.lambda.endpoint());
            let mapped = ("::ffff:127.0.0.1", port);
            let request = post(&invocations("f"), "", "{}");
            if TcpStream::connect(mapped).is_ok() {
                let answer = ask(User::Own, mapped, &request, (1, "polite"));
                assert_says(&answer, &["HTTP/1.1 200 OK", "\"count\": 1"]);
            }
            stage
        },
    );
}

/// What a server answers to these bytes before it closes or 20 s have passed.
fn answer_to(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("it is no zero");
    let _refused_before_all_was_read = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _reset_after_the_answer = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_for_other_hosts_and_of_web_pages_are_refused_by_both_apis() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("begun");
    on_stage_of(waiting(&folder), 1, folder, async |stage| {
        stage.start_event(json!({"secret": "of the event"})).await;
        until("the environment has begun", || file.exists()).await;
        let begun = fs::read_to_string(&file).expect("it is there");
        let runtime_api = begun.split(' ').next().expect("a word").to_owned();
        let endpoint = stage.lambda.endpoint();
        let invoke_api = endpoint.strip_prefix("http://").expect("it is plain");
        let request = |line: &str, headers: &str| {
            format!(
                "{line} HTTP/1.1\r\n{headers}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            )
        };
        for (api, method, path) in [
            (invoke_api, "POST", invocations("f")),
            (&runtime_api, "GET", NEXT.to_owned()),
        ] {
            let (line, absolute) = (
                format!("{method} {path}"),
                format!("{method} http://rebound.example{path}"),
            );
            for (line, headers, words) in [
                (&line, "Host: rebound.example:9001\r\n", "for the host"),
                (&line, "Host: 127.0.0.1.example\r\n", "for the host"),
                (&absolute, "Host: localhost\r\n", "for the host"),
                (&line, "", "names no host"),
                (
                    &line,
                    "Host: localhost\r\nHost: localhost\r\n",
                    "several headers Host",
                ),
                (
                    &line,
                    "Host: localhost\r\nOrigin: http://localhost\r\n",
                    "web pages",
                ),
                (&line, "Host: localhost\r\nOrigin: null\r\n", "web pages"),
                (
                    &line,
                    "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
                    "web pages",
                ),
            ] {
                let answer = answer_to(api, request(line, headers).as_bytes());
                assert_says(&answer, &["HTTP/1.1 403 Forbidden", words]);
            }
            let many = format!("Host: localhost\r\n{}", "X-Header: x\r\n".repeat(200));
            let answer = answer_to(api, request(&line, &many).as_bytes());
            assert_says(&answer, &["HTTP/1.1 431 "]);
            // The rest of this one may reset the connection before the answer is read.
            let long = format!("Host: localhost\r\nX-Header: {}\r\n", "x".repeat(5_000_000));
            let answer = answer_to(api, request(&line, &long).as_bytes());
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
                "{answer}"
            );
        }
        let answer = answer_to(&runtime_api, &get(NEXT));
        assert_says(&answer, &["HTTP/1.1 200 OK", "of the event"]);
        stage
    });
}

#[test]
fn calls_do_not_wait_for_the_bodies_of_others() {
    on_stage(
        1,
        "app.main",
        |_| {},
        async |stage| {
            let endpoint = stage.lambda.endpoint();
            let address = endpoint.strip_prefix("http://").expect("it is plain");
            let path = invocations("f");
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6000000\r\n\r\n"
            );
            stage.ask(json!({})).await; // An environment is there now.
            // More than take a turn, with little of their bodies and with much.
            let mut slow = Vec::new();
            for length in [1_000, 1_000_000] {
                for _ in 0..70 {
                    let mut stream = TcpStream::connect(address).expect("it listens");
                    stream.set_nonblocking(true).expect("it is a socket");
                    let _as_much_as_it_takes =
                        stream.write_all(&[head.as_bytes(), &b" ".repeat(length)[..]].concat());
                    slow.push(stream);
                }
            }
            let begun = Instant::now();
            let answer = stage.ask(json!({"event": "x".repeat(100_000)})).await;
            assert_eq!(answer["count"], 2);
            // The others are given up after 5 s.
            let waited = begun.elapsed();
            assert!(waited < Duration::from_secs(4), "{waited:?}");
            stage
        },
    );
}

#[tokio::test]
async fn where_users_are_not_known_calls_are_signed_with_keys_of_the_run() {
    let Some(python) = crate::local_lambda::stage::python() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let options = LocalOptions {
        listen: "127.0.0.1:0".parse().expect("it is an address"),
        functions: vec![function(&python, folder.path(), "app.main")],
        concurrency: 2,
        scaling: None,
        admission: Admission::Signature,
        log_sink: None,
    };
    let lambda = LocalLambda::start(options).await.expect("it starts");
    let keys = lambda.keys().expect("it has some");
    let client = |access_key: &str, secret_key: &str| {
        let config = aws_sdk_lambda::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .endpoint_url(lambda.endpoint())
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
            .retry_config(RetryConfig::disabled());
        Client::from_conf(config.build())
    };
    for (access_key, secret_key) in [
        ("local", "local"),
        (&keys.access_key[..], "another"),
        ("another", &keys.secret_key[..]),
    ] {
        let call = client(access_key, secret_key)
            .invoke()
            .function_name("f")
            .send();
        let error = format!("{:?}", call.await.expect_err("the keys are others"));
        assert_says(&error, &["InvalidSignatureException"]);
    }
    let unsigned = post(&invocations("f"), "", "{}");
    let endpoint = lambda.endpoint();
    let address = endpoint
        .strip_prefix("http://")
        .expect("it is plain")
        .to_owned();
    let answer = tokio::task::spawn_blocking(move || answer_to(&address, &unsigned)).await;
    assert_says(
        &answer.expect("it does not panic"),
        &["HTTP/1.1 403 Forbidden", "not signed"],
    );
    let genuine = client(&keys.access_key, &keys.secret_key);
    let answer: Value = payload(&invoke(&genuine, json!({"do": "environment"})).await);
    assert_eq!(answer["count"], 1, "the others have run nothing");
    let written = format!("{}:{}", keys.access_key, keys.secret_key);
    assert_eq!(answer["environment"]["LSWITCH_LAMBDA_KEYS"], written);
    // With a qualifier and an ARN, which are written in more than one way.
    let arn = "arn:aws:lambda:eu-central-1:000000000000:function:f";
    let call = genuine
        .invoke()
        .function_name(arn)
        .qualifier("$LATEST")
        .send();
    let output = call.await.expect("it is signed");
    assert_eq!(payload(&output)["count"], 2);
    lambda.stop().await;
}
