//! Functions on AWS, with moto as the control plane.

use crate::support::{Ended, Moto, Place, assert_says, is_ci, sdk_config};
use lswitch::lambda::function::logs::Logs;
use lswitch::lambda::launch::Request;
use rustix::process::Signal;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// A place with something that can be a function's bootstrap.
fn place() -> Place {
    let place = Place::new();
    place.write("bootstrap", "#!/bin/sh\necho this is a worker\n");
    place
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

/// `lswitch function` with these arguments, against this server.
fn function(place: &Place, moto: &Moto, arguments: &str) -> Ended {
    let run = place.lswitch(&format!("function {arguments}"));
    run.envs(&moto.env()).end()
}

fn changed(ended: &Ended) -> Vec<String> {
    let changes = json(ended)["changes"].clone();
    let changes = changes.as_array().expect("it lists them").iter();
    changes
        .map(|change| {
            change["setting"]
                .as_str()
                .expect("it has a name")
                .to_string()
        })
        .collect()
}

#[test]
fn a_function_comes_with_role_bucket_and_logs_and_goes_with_them() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    let made = function(
        &place,
        &moto,
        "create ranker --bootstrap bootstrap --create-role --store s3://graphs/jobs --create-bucket --memory 3538 \
         --storage 1024 --env A=1 --tag team=data --reserved-concurrency 50 --json",
    )
    .ok();
    assert_says(&made.stderr, &["made the bucket of s3://graphs/jobs"]);
    let made = json(&made);
    assert_eq!(made["name"], "ranker");
    assert_eq!(
        (&made["memory_mb"], &made["storage_mb"], &made["timeout_s"]),
        (&3538.into(), &1024.into(), &900.into())
    );
    assert_eq!(made["runtime"], "provided.al2023");
    assert_eq!(made["async_retries"], 0, "lswitch retries itself");
    assert_eq!(made["reserved_concurrency"], 50);
    assert_eq!(made["tags"]["lswitch"], env!("CARGO_PKG_VERSION"));
    assert_eq!(made["tags"]["team"], "data");
    assert_eq!(made["environment"]["A"], "1");
    assert!(
        made["role"]
            .as_str()
            .is_some_and(|role| role.ends_with("role/lswitch-ranker"))
    );

    // The bucket is there, and a store in it.
    place
        .lswitch("generate uniform --scale 6 --edge-factor 2 --seed 1 --out graph.txt")
        .ok();
    place
        .lswitch("preprocess graph.txt --parts 2 --out s3://graphs/jobs/graph")
        .envs(&moto.env())
        .ok();

    let again = function(
        &place,
        &moto,
        "create ranker --bootstrap bootstrap --create-role",
    );
    assert_eq!(again.code, Some(1));
    assert_says(&again.stderr, &["there is a function ranker already"]);

    let listed = function(&place, &moto, "list").ok();
    assert_says(&listed.stdout, &["ranker"]);
    let info = function(&place, &moto, "info ranker").ok();
    assert_says(&info.stdout, &["3538 MB"]);

    let shown = function(&place, &moto, "delete ranker").ok();
    assert_says(&shown.stdout, &["log group  /aws/lambda/ranker"]);
    assert_says(&shown.stderr, &["nothing was deleted"]);
    function(&place, &moto, "info ranker").ok();
    let deleted = function(&place, &moto, "delete ranker --yes --json").ok();
    let deleted = json(&deleted);
    let kinds: Vec<&Value> = deleted["what"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|what| &what["kind"])
        .collect();
    assert_eq!(kinds, ["function", "role", "log group"]);
    let gone = function(&place, &moto, "info ranker");
    assert_eq!(gone.code, Some(1));
    assert_says(&gone.stderr, &["there is no function ranker"]);
    // All of it is gone, or it could not be made again.
    function(
        &place,
        &moto,
        "create ranker --bootstrap bootstrap --create-role",
    )
    .ok();
}

#[test]
fn an_update_changes_what_differs_and_nothing_else() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    function(
        &place,
        &moto,
        "create ranker --bootstrap bootstrap --create-role --env A=1",
    )
    .ok();
    let same = function(
        &place,
        &moto,
        "update ranker --bootstrap bootstrap --memory 1769 --json",
    )
    .ok();
    assert!(changed(&same).is_empty(), "{}", same.stdout);
    let more = function(
        &place,
        &moto,
        "update ranker --keep-code --memory 2048 --timeout 60 --env B=2 --tag a=b --json",
    )
    .ok();
    assert_eq!(changed(&more), ["memory", "timeout", "environment", "tag"]);
    let info = json(&function(&place, &moto, "info ranker --json").ok());
    assert_eq!(info["memory_mb"], 2048);
    assert_eq!(
        (&info["environment"]["A"], &info["environment"]["B"]),
        (&"1".into(), &"2".into())
    );
    place.write("bootstrap", "#!/bin/sh\necho this is a better worker\n");
    let code = function(
        &place,
        &moto,
        "update ranker --bootstrap bootstrap --unset-env A --json",
    )
    .ok();
    assert_eq!(changed(&code), ["environment", "code"]);
    let after = json(&function(&place, &moto, "info ranker --json").ok());
    assert_ne!(info["code_sha256"], after["code_sha256"]);
    assert_eq!(
        after["environment"].as_object().map(|all| all.len()),
        Some(1)
    );
    // With files of its own, code changes only when it is said what it is made of.
    place.write("model.bin", "weights");
    let with = "update ranker --bootstrap bootstrap --include model.bin --json";
    assert_eq!(changed(&function(&place, &moto, with).ok()), ["code"]);
    let kept = function(&place, &moto, "update ranker --json").ok();
    assert!(changed(&kept).is_empty());
    assert_says(
        &kept.stderr,
        &["the code is not this program alone and stays"],
    );
}

#[test]
fn functions_of_others_are_left_alone() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    // One that lswitch has made, and from which somebody has taken the tag, is somebody's.
    function(
        &place,
        &moto,
        "create theirs --bootstrap bootstrap --create-role",
    )
    .ok();
    let info = json(&function(&place, &moto, "info theirs --json").ok());
    let arn = info["arn"].as_str().expect("it has one").to_string();
    let untag = format!("{}/2017-03-31/tags/{arn}?tagKeys=lswitch", moto.endpoint);
    let done = std::process::Command::new("python3")
        .arg("-c")
        .arg("import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='DELETE', headers={'Authorization': 'AWS4-HMAC-SHA256 Credential=any/20260101/eu-west-1/lambda/aws4_request'}))")
        .arg(&untag)
        .status()
        .expect("there is a python3");
    assert!(done.success());
    let listed = json(&function(&place, &moto, "list --json").ok());
    assert_eq!(listed["functions"].as_array().map(Vec::len), Some(0));
    for arguments in [
        "info theirs",
        "delete theirs --yes",
        "update theirs --memory 512",
        "logs theirs",
    ] {
        let refused = function(&place, &moto, arguments);
        assert_eq!(refused.code, Some(1), "{arguments}");
        assert_says(&refused.stderr, &["was not made by lswitch"]);
    }
}

#[test]
fn a_function_in_python_is_packaged_with_the_client() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    place.write("app.py", "def handler(event, context):\n    return event\n");
    let code = "--runtime python3.12 --handler app.handler --include app.py";
    let made = function(
        &place,
        &moto,
        &format!("create app {code} --create-role --json"),
    )
    .ok();
    let made = json(&made);
    assert_eq!(
        (&made["runtime"], &made["handler"]),
        (&"python3.12".into(), &"app.handler".into())
    );
    let same = function(&place, &moto, &format!("update app {code} --json")).ok();
    assert!(changed(&same).is_empty(), "{}", same.stdout);
}

#[test]
fn what_a_function_prints_is_shown_and_followed() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    function(
        &place,
        &moto,
        "create ranker --bootstrap bootstrap --create-role",
    )
    .ok();
    let none = function(&place, &moto, "logs ranker").ok();
    assert_eq!(none.stdout, "");
    put_log(
        &moto,
        "ranker",
        "2026/11/22/[$LATEST]0123456789abcdef",
        &["one", "two"],
    );
    let shown = function(&place, &moto, "logs ranker").ok();
    assert_eq!(shown.stdout, "abcdef  one\nabcdef  two\n");
    let following = place
        .lswitch("function logs ranker --follow --json")
        .envs(&moto.env())
        .start();
    following.until_ok("it has told what there was", || {
        following.stdout().contains("two").then_some(())
    });
    put_log(
        &moto,
        "ranker",
        "2026/11/22/[$LATEST]fedcba9876543210",
        &["three"],
    );
    following.until_ok("it tells what came later", || {
        following.stdout().contains("three").then_some(())
    });
    following.signal(Signal::INT);
    let ended = following.wait();
    assert_eq!(
        ended.stdout.matches("\"one\"").count(),
        1,
        "each line once:\n{}",
        ended.stdout
    );
}

/// Lets a function have printed these lines.
fn put_log(moto: &Moto, function: &str, stream: &str, lines: &[&str]) {
    const PUT: &str = "
import json, sys, time, urllib.request as u
endpoint, group, stream, *lines = sys.argv[1:]
def call(what, body):
    headers = {'X-Amz-Target': 'Logs_20140328.' + what, 'Content-Type': 'application/x-amz-json-1.1',
               'Authorization': 'AWS4-HMAC-SHA256 Credential=any/20260101/eu-west-1/logs/aws4_request'}
    u.urlopen(u.Request(endpoint, json.dumps(body).encode(), headers))
call('CreateLogStream', {'logGroupName': group, 'logStreamName': stream})
now = int(time.time() * 1000)
call('PutLogEvents', {'logGroupName': group, 'logStreamName': stream,
                      'logEvents': [{'timestamp': now + at, 'message': line} for at, line in enumerate(lines)]})
";
    let done = std::process::Command::new("python3")
        .args([
            "-c",
            PUT,
            &moto.endpoint,
            &format!("/aws/lambda/{function}"),
            stream,
        ])
        .args(lines)
        .status()
        .expect("there is a python3");
    assert!(done.success());
}

#[test]
fn wrong_settings_are_refused_before_any_call() {
    let place = place();
    for (arguments, reason) in [
        ("create a.b --create-role", "is no function name"),
        ("create ranker", "--create-role makes one"),
        (
            "create ranker --create-role --memory 64",
            "--memory: 64 is outside Lambda's 128 to 10240 MB",
        ),
        (
            "create ranker --create-role --timeout 901",
            "--timeout: 901",
        ),
        (
            "create ranker --create-role --subnet subnet-1",
            "--security-group too",
        ),
        (
            "create ranker --create-role --env AWS_LAMBDA_LOG_FORMAT=x",
            "set by Lambda itself",
        ),
        (
            "create ranker --create-role --runtime nodejs22.x",
            "no runtime for lswitch",
        ),
        (
            "create ranker --create-role --runtime python3.12 --include app.py",
            "--handler",
        ),
        (
            "create ranker --create-role --bootstrap graph.txt",
            "cannot be a function's bootstrap",
        ),
        (
            "package --out f.zip --requirements r.txt --bootstrap bootstrap",
            "say --runtime python3.x",
        ),
        (
            "iam worker --function ranker --account 12 --region eu-west-1",
            "it has 12 digits",
        ),
        (
            "iam worker --function ranker --account 123456789012 --region eu-west-1 --store ./dir",
            "none in S3",
        ),
    ] {
        place.write("graph.txt", "1 2\n");
        let refused = place.lswitch(&format!("function {arguments}")).end();
        assert_eq!(refused.code, Some(2), "{arguments}: {}", refused.stderr);
        assert_says(&refused.stderr, &[reason]);
    }
}

#[test]
fn policies_are_printed_without_asking_aws() {
    let place = Place::new();
    let all = place
        .lswitch("function iam --function ranker --store s3://graphs/jobs --account 123456789012 --region eu-west-1")
        .ok();
    let all = json(&all);
    for part in ["worker", "launcher", "switch", "manager", "trust"] {
        assert_eq!(all[part]["Version"], "2012-10-17", "{part}");
    }
    let worker = place
        .lswitch("function iam worker --function ranker --account 123456789012 --region cn-north-1")
        .ok();
    assert_says(
        &worker.stdout,
        &["arn:aws-cn:logs:cn-north-1:123456789012:log-group:/aws/lambda/ranker:*"],
    );
}

#[test]
fn a_doctor_finds_nothing_wrong_on_this_machine_alone() {
    let place = Place::new();
    let ended = place.lswitch("doctor").ok();
    assert_says(
        &ended.stdout,
        &["ok       store", "ok       worker", "ok       its store"],
    );
    let ended = place
        .lswitch("doctor --switch 127.0.0.1:1 --json")
        .env("LSWITCH_SECRET", "0".repeat(64))
        .end();
    assert_eq!(ended.code, Some(1));
    let findings = json(&ended)["findings"].clone();
    let worker = findings
        .as_array()
        .expect("a list")
        .iter()
        .find(|finding| finding["what"] == "worker");
    assert_eq!(worker.expect("it was tried")["state"], "problem");
}

#[test]
fn a_doctor_names_a_function_that_is_missing_or_repeats_itself() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    let examine = |function: &str| {
        place
            .lswitch(&format!(
                "doctor --function {function} --store s3://graphs/jobs --switch 127.0.0.1:1"
            ))
            .envs(&moto.env())
            .env("LSWITCH_SECRET", "0".repeat(64))
            .end()
    };
    let ended = examine("ranker");
    assert_eq!(ended.code, Some(1));
    assert_says(
        &ended.stdout,
        &[
            "ok       credentials",
            "PROBLEM  function     there is no function ranker here",
            "-> lswitch function create ranker --create-role",
            "PROBLEM  store",
        ],
    );
    assert!(
        !ended.stdout.contains("worker"),
        "none can be started:\n{}",
        ended.stdout
    );
    function(&place, &moto, "create ranker --bootstrap bootstrap --create-role --timeout 30 --store s3://graphs/jobs --create-bucket").ok();
    let ended = examine("ranker");
    assert_says(
        &ended.stdout,
        &[
            "ok       function",
            "warning  timeout",
            "ok       store",
            "PROBLEM  worker",
        ],
    );
}

#[test]
fn a_doctor_tries_a_worker_with_what_stands_in_for_aws() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    let (_switch, switch) = place.switch();
    let (_local, lambda) = place.local_with(&moto.env());
    function(&place, &moto, "create lswitch --bootstrap bootstrap --create-role --store s3://graphs/jobs --create-bucket").ok();
    let mut env = moto.env();
    env.push(("AWS_ENDPOINT_URL_LAMBDA".into(), lambda));
    let ended = place
        .lswitch(&format!(
            "doctor --function lswitch --store s3://graphs/jobs --switch {switch}"
        ))
        .envs(&env)
        .end();
    // The local Lambda has no control plane, which whoever may only launch has not either.
    assert_says(
        &ended.stdout,
        &[
            "ok       credentials",
            "warning  function",
            "it needs lambda:GetFunction",
            "ok       store",
            "ok       worker",
        ],
    );
}

#[test]
fn jobs_run_end_to_end_on_what_stands_in_for_aws_and_say_what_they_cost() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    function(&place, &moto, "create lswitch --bootstrap bootstrap --create-role --store s3://graphs/jobs --create-bucket").ok();
    let (_switch, switch) = place.switch();
    let (_local, lambda) = place.local_with(&moto.env());
    let mut env = moto.env();
    env.push(("AWS_ENDPOINT_URL_LAMBDA".into(), lambda));
    env.push(("LSWITCH_STORE".into(), "s3://graphs/jobs".into()));
    place.small_graph();
    place
        .lswitch("preprocess graph.txt --parts 4 --out s3://graphs/graph")
        .envs(&env)
        .ok();
    let here = place
        .lswitch("invoke pagerank --graph s3://graphs/graph --json --store ./here")
        .envs(&env)
        .ok();
    let there = place
        .lswitch(&format!(
            "invoke pagerank --graph s3://graphs/graph --function lswitch --switch {switch} --output s3://graphs/ranks --json"
        ))
        .envs(&env)
        .ok();
    assert_says(&there.stderr, &["cost: about $", "at prices of us-east-1"]);
    let top = |ended: &Ended| json(ended)["top"].clone();
    assert!(
        top(&here).as_array().is_some_and(|top| !top.is_empty()),
        "{}",
        here.stdout
    );
    assert_eq!(top(&here), top(&there));
    let usage = json(&there)["usage"].clone();
    let reads = usage["store_reads"].as_u64();
    assert!(
        reads.is_some_and(|reads| reads >= 4),
        "a read for each part: {usage}"
    );
    // A map is an elastic job, and its program travels through the store.
    place.write(
        "prices.toml",
        "of = \"a friend\"\ngb_second_x86 = 1000.0\ngb_second_arm64 = 1000.0\n",
    );
    let mapped = place
        .lswitch(&format!(
            "invoke map --exec factor --items 1000..1010 --function lswitch --workers 2 --switch {switch} --prices prices.toml \
             --output s3://graphs/factors --json -- {{}}"
        ))
        .envs(&env)
        .ok();
    assert_says(&mapped.stderr, &["at prices of a friend"]);
    let usage = mapped
        .stdout
        .lines()
        .last()
        .map(serde_json::from_str::<Value>);
    let usage = usage.expect("a summary").expect("it is JSON")["usage"].clone();
    let number = |what: &str| {
        usage[what]
            .as_u64()
            .unwrap_or_else(|| panic!("{what}: {usage}"))
    };
    assert_eq!((number("calls"), number("workers")), (2, 2));
    assert!(number("x86_mb_ms") + number("arm_mb_ms") > 0, "{usage}");
    assert!(
        number("store_writes") >= 10,
        "an output for each item: {usage}"
    );
}

#[test]
fn a_dry_run_starts_nothing_and_tells_what_it_would_cost() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    function(&place, &moto, "create ranker --bootstrap bootstrap --create-role --memory 2048 --timeout 600 --store s3://graphs/jobs --create-bucket").ok();
    place.small_graph();
    let mut env = moto.env();
    env.push(("LSWITCH_SECRET".into(), "0".repeat(64)));
    env.push(("LSWITCH_STORE".into(), "s3://graphs/jobs".into()));
    let on_aws = "--function ranker --switch 127.0.0.1:1";
    let shown = place
        .lswitch(&format!(
            "invoke pagerank --graph graph {on_aws} --dry-run --json"
        ))
        .envs(&env)
        .ok();
    let shown = json(&shown);
    assert_eq!(
        (&shown["workers"], &shown["instances"]),
        (&4.into(), &4.into())
    );
    assert_eq!(shown["functions"][0]["memory_mb"], 2048);
    // Four workers of 2 GB: 480 GB s a minute, and ten minutes at most; and a switch.
    let cost = |what: &str| shown["cost"][what].as_f64().unwrap_or_default();
    assert!((cost("minute") - 0.0095).abs() < 1e-4, "{shown}");
    assert!((cost("most") - 0.0949).abs() < 1e-4, "{shown}");
    let shown = place
        .lswitch(&format!(
            "invoke --detach map --exec factor --items 1..9 --workers 3000 {on_aws} --dry-run"
        ))
        .envs(&env)
        .ok();
    assert_says(
        &shown.stdout,
        &[
            "map: 3000 workers in 3000 function instances",
            "ranker (2048 MB, x86_64, time-out 600 s)",
            "all there in  20 s",
            "about $6.0",
        ],
    );
    let missing = place
        .lswitch("invoke sort --input graph.txt --output sorted --workers 2 --function other --switch 127.0.0.1:1 --dry-run")
        .envs(&env)
        .end();
    assert_says(missing.fails_with(2), &["there is no function other"]);
    // Nothing is left of any of them, and on this machine it costs nothing.
    let here = place
        .lswitch("invoke pagerank --graph graph --dry-run --store ./here")
        .ok();
    assert_says(
        &here.stdout,
        &["4 workers", "processes of this machine", "nothing"],
    );
    assert!(!place.path("here").exists());
    assert_eq!(
        json(&place.lswitch("jobs --json").ok())["jobs"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_job_that_costs_what_it_may_is_ended_and_says_so() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    let (_switch, switch) = place.switch();
    let (_local, lambda) = place.local_with(&moto.env());
    let mut env = moto.env();
    env.push(("AWS_ENDPOINT_URL_LAMBDA".into(), lambda));
    place.write(
        "prices.toml",
        "of = \"a thief\"\ngb_second_x86 = 10.0\ngb_second_arm64 = 10.0\n",
    );
    place.write("slow", "#!/bin/sh\nsleep 5\necho $1\n");
    let mapped = |most: &str| {
        place
            .lswitch(&format!(
                "invoke map --exec ./slow --items 0..8 --workers 2 --function lswitch --switch {switch} --prices prices.toml --max-cost {most} -- {{}}"
            ))
            .envs(&env)
            .end()
    };
    let ended = mapped("30");
    ended.fails_with(1);
    assert_says(
        &ended.stderr,
        &[
            "until the first has said how much it has",
            "and may cost $30",
            "a higher --max-cost",
            "cost: about $",
            "2 workers have not said what they took",
            "at prices of a thief",
        ],
    );
    let wrong = mapped("0");
    assert_eq!(wrong.code, Some(2));
    assert_says(&wrong.stderr, &["an amount in US dollars"]);
}

#[test]
fn what_a_worker_printed_last_is_found_by_its_call() {
    let Some(moto) = Moto::start() else { return };
    let place = place();
    function(
        &place,
        &moto,
        "create ranker --bootstrap bootstrap --create-role",
    )
    .ok();
    let request = |id: &str| Request {
        function: "arn:aws:lambda:eu-west-1:123456789012:function:ranker".into(),
        id: id.into(),
        at: SystemTime::now(),
    };
    let (first, second) = (request("0f-1"), request("0f-2"));
    let stream = "2026/11/22/[$LATEST]0123456789abcdef";
    let lines = [
        "START RequestId: 0f-1 Version: $LATEST",
        "fine",
        "END RequestId: 0f-1",
        "REPORT RequestId: 0f-1\tDuration: 1 ms",
        "START RequestId: 0f-2 Version: $LATEST",
        "one",
        "two",
        "three",
        "RequestId: 0f-2 Error: Runtime exited with error: signal: killed",
        "END RequestId: 0f-2",
        "REPORT RequestId: 0f-2\tDuration: 1 ms",
        "START RequestId: 0f-3 Version: $LATEST",
        "still here",
    ];
    put_log(&moto, "ranker", stream, &lines);
    let logs = Logs::new(&sdk_config(&moto.endpoint));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let tail = |request: &Request, count: usize| {
        let found = runtime.block_on(logs.tail(request, count, Duration::from_millis(1500)));
        found.expect("moto answers")
    };
    assert_eq!(tail(&first, 20), ["fine"]);
    let killed = "RequestId: 0f-2 Error: Runtime exited with error: signal: killed";
    assert_eq!(tail(&second, 20), ["one", "two", "three", killed]);
    assert_eq!(tail(&second, 2), ["three", killed]);
    // One that has not ended, and one that nobody knows.
    assert_eq!(tail(&request("0f-3"), 20), [""; 0]);
    assert_eq!(tail(&request("0f-4"), 20), [""; 0]);
}

#[test]
fn the_small_bootstrap_is_a_worker_and_nothing_else() {
    let bootstrap = std::env::var("LSWITCH_BOOTSTRAP").unwrap_or_default();
    if bootstrap.is_empty() {
        let words = "skipped: LSWITCH_BOOTSTRAP does not say where the small bootstrap is; \"make lambda-zip\" builds it";
        assert!(!is_ci(), "{words}");
        eprintln!("{words}");
        return;
    }
    let alone = std::process::Command::new(&bootstrap).arg("serve").output();
    let alone = alone.expect("it can be started here");
    assert_eq!(alone.status.code(), Some(2));
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_says(&said, &["a worker alone"]);
    let Some(moto) = Moto::start() else { return };
    let place = place();
    function(
        &place,
        &moto,
        "create any --bootstrap bootstrap --create-role --store s3://graphs/jobs --create-bucket",
    )
    .ok();
    place.small_graph();
    place.write("small.toml", format!("command = [\"{bootstrap}\"]\n"));
    let top = |more: &str| {
        let run = place.lswitch(&format!("invoke pagerank --json {more}"));
        json(&run.envs(&moto.env()).ok())["top"].clone()
    };
    place
        .lswitch("preprocess graph.txt --parts 4 --out s3://graphs/graph")
        .envs(&moto.env())
        .ok();
    let own = top("--graph graph");
    // Where S3 is, and with what it signs, it finds in its variables.
    let small = "--local-function small.toml --graph s3://graphs/graph --output s3://graphs/ranks";
    assert_eq!(own, top(small));
}

#[test]
fn a_machine_becomes_a_switch_by_a_script_that_holds_no_secret() {
    let place = Place::new();
    let said = place
        .lswitch("serve --print-user-data --store s3://graphs/jobs --memory 1GiB")
        .ok();
    let secret = std::fs::read_to_string(place.path("home/.lswitch/secret"));
    let secret = secret.expect("it was made");
    assert!(!said.stdout.contains(secret.trim()) && !said.stderr.contains(secret.trim()));
    assert!(!said.stdout.contains("PRIVATE KEY"));
    let script = place.write("switch.sh", &said.stdout);
    let read = std::process::Command::new("bash")
        .arg("-n")
        .arg(script)
        .status();
    assert!(read.expect("there is a shell").success());
    assert_says(
        &said.stdout,
        &[
            "aws s3 cp s3://graphs/jobs/switch/lswitch",
            "LimitNOFILE=65536",
            "--tls",
        ],
    );
    assert_says(
        &said.stderr,
        &[
            "--name /lswitch/secret",
            "--name /lswitch/certificate",
            "--switch ADDRESS:7000#",
        ],
    );
    // The same certificate each time, since addresses name it.
    let again = place
        .lswitch("serve --print-user-data --store s3://graphs/jobs")
        .ok();
    let pin = |said: &str| said.rsplit_once('#').map(|(_, pin)| pin.trim().to_string());
    assert_eq!(pin(&said.stderr), pin(&again.stderr));
    for (arguments, reason) in [
        ("--store ./here", "a store in S3"),
        ("--store s3://graphs --listen 127.0.0.1:0", "needs a port"),
    ] {
        let refused = place
            .lswitch(&format!("serve --print-user-data {arguments}"))
            .end();
        assert_says(refused.fails_with(2), &[reason]);
    }
}
