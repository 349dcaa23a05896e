//! A thousand packs through a Lambda that refuses calls, breaks connections and loses answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Place, alone, assert_says, sdk_config};
use lswitch::job::driver::{self, JobError, JobSpec, SwitchAccess};
use lswitch::job::pack;
use lswitch::job::probe::Asked;
use lswitch::lambda::event::Event;
use lswitch::lambda::launch::{Launcher, Share, Way};
use lswitch::lambda::runtime::Invocation;
use lswitch::net::server;
use lswitch::net::token::{JobId, Secret};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

const PACKS: u32 = 1000;

/// What Lambda has seen.
#[derive(Default)]
struct Seen {
    /// Calls, by first rank.
    calls: BTreeMap<u32, u32>,
    /// Packs that have joined and ended well.
    done: BTreeMap<u32, u32>,
    /// Packs that were not let in.
    refused: u32,
}

/// What becomes of a call, the same in each run: of a hundred 30 are refused, 5 break off before they are taken and 5 after.
fn fate(rank: u32, call: u32) -> u32 {
    let mut mixed = u64::from(rank) << 32 | u64::from(call);
    for _ in 0..3 {
        mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    (mixed >> 33) as u32 % 100
}

/// Serves calls on a connection until it is told to break it.
async fn converse(stream: TcpStream, seen: Arc<Mutex<Seen>>) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    loop {
        let (mut length, mut is_event, mut lines) = (0, false, 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            lines += 1;
            let line = line.trim().to_ascii_lowercase();
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().expect("it is a number");
            }
            is_event |= line == "x-amz-invocation-type: event";
            if line.is_empty() && lines > 1 {
                break;
            }
        }
        assert!(is_event, "a call that waits for its function");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let event: Event = serde_json::from_slice(&body).expect("the driver sends events");
        let Some(answer) = answer(event, &seen) else {
            return Ok(());
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// What Lambda answers to a call, if it does; the pack may have been started.
fn answer(event: Event, seen: &Arc<Mutex<Seen>>) -> Option<String> {
    const THROTTLED: &str = "HTTP/1.1 429 Too Many Requests\r\nx-amzn-errortype: TooManyRequestsException\r\n\
        content-length: 36\r\n\r\n{\"Reason\":\"CallerRateLimitExceeded\"}";
    let rank = event.first_rank;
    let call = {
        let mut seen = seen.lock().expect("no one panics");
        let calls = seen.calls.entry(rank).or_default();
        *calls += 1;
        *calls
    };
    let fate = match event.size {
        PACKS => fate(rank, call),
        // A small job has no bad luck.
        _ => 99,
    };
    match fate {
        0..30 => return Some(THROTTLED.into()),
        30..35 => return None,
        _ => {}
    }
    let seen = seen.clone();
    tokio::spawn(async move {
        let invocation = Invocation {
            request_id: format!("{rank}-{call}"),
            deadline: Instant::now() + Duration::from_secs(120),
        };
        let ended = pack::run(event, invocation).await;
        let mut seen = seen.lock().expect("no one panics");
        match ended {
            Ok(_) => *seen.done.entry(rank).or_default() += 1,
            Err(_) => seen.refused += 1,
        }
    });
    let accepted = format!(
        "HTTP/1.1 202 Accepted\r\nx-amzn-requestid: request-{rank}\r\ncontent-length: 0\r\n\r\n"
    );
    (fate >= 40).then_some(accepted)
}

async fn lambda(seen: Arc<Mutex<Seen>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a loopback port is free");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, seen.clone()));
        }
    });
    format!("http://{address}")
}

/// A switch in this process.
async fn switch() -> SwitchAccess {
    let listener = TcpListener::bind("127.0.0.1:0").await;
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
    switch
}

fn spec(ranks: u32, program: &str) -> JobSpec {
    JobSpec {
        id: JobId::random(),
        program: program.into(),
        arguments: serde_json::to_value(Asked { store: false }).expect("it is JSON"),
        ranks,
        ranks_per_pack: 1,
        levels: 1,
        store: "file:///nowhere".into(),
        timeout: Some(Duration::from_secs(100)),
        more: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failed_worker_is_told_with_the_call_by_which_its_log_is_found() {
    let switch = switch().await;
    let endpoint = lambda(Arc::default()).await;
    let launcher = Launcher::on_aws(&sdk_config(&endpoint), Share::all("f"), Way::Start);
    // Its arguments are none of pagerank's.
    let spec = spec(3, "pagerank");
    let never = std::future::pending();
    let outcome = driver::run(&spec, &switch, &launcher, never, &mut |_| {}).await;
    let Err(JobError::Worker {
        worker, request, ..
    }) = outcome
    else {
        panic!("a worker fails: {outcome:?}");
    };
    let request = request.expect("Lambda has told the call's id");
    assert_eq!(request.id, format!("request-{}", worker.number));
    assert_eq!(request.function, "f");
}

#[test]
fn workers_of_a_fixed_job_start_each_other() {
    let place = Place::new();
    place.small_graph();
    let ranks = |arguments: &str| {
        let ended = place
            .lswitch(&format!("invoke pagerank --json {arguments}"))
            .ok();
        let (top, usage) = (ended.json()["top"].clone(), ended.json()["usage"].clone());
        (
            top,
            usage["calls"].as_u64().expect("it says so"),
            usage["workers"].clone(),
        )
    };
    let (flat, calls, workers) = ranks("--graph graph");
    assert_eq!((calls, workers), (4, 4.into()));
    let (tree, calls, workers) = ranks("--graph graph --launch tree");
    assert_eq!((calls, workers), (2, 4.into()));
    assert_eq!(flat, tree);
    // Packs of several ranks, of which the last has fewer.
    place
        .lswitch("preprocess graph.txt --parts 9 --out nine")
        .ok();
    let (flat, ..) = ranks("--graph nine --workers 9");
    let (tree, calls, workers) =
        ranks("--graph nine --workers 9 --workers-per-function 2 --launch tree");
    assert_eq!((calls, workers), (3, 5.into()));
    assert_eq!(flat, tree);
    let several = place
        .lswitch("invoke pagerank --graph nine --launch tree --local-function a=4,b=5")
        .end();
    assert_says(
        several.fails_with(2),
        &["--launch tree and --levels are for one function"],
    );
}

#[test]
fn workers_that_are_slow_to_start_have_their_time_in_a_tree_too() {
    let place = Place::new();
    place.small_graph();
    let executable = env!("CARGO_BIN_EXE_lswitch");
    place.write(
        "slow.toml",
        format!("command = [{executable:?}]\ncold_start_ms = 6000\n"),
    );
    // Two starts one after the other are more than one worker is waited for.
    let ended = place
        .lswitch("invoke pagerank --graph graph --launch tree --local-function slow.toml --json")
        .ok();
    assert_eq!(ended.json()["usage"]["calls"], 2);
    assert!(!ended.stderr.contains("started again"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_packs_join_once_each_through_a_lambda_that_refuses_breaks_and_loses() {
    let _alone = alone().await;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the limit may be raised to the hard one");
    let switch = switch().await;
    let seen = Arc::<Mutex<Seen>>::default();
    let endpoint = lambda(seen.clone()).await;
    let launcher = Launcher::on_aws(&sdk_config(&endpoint), Share::all("f"), Way::Start);
    let spec = spec(PACKS, "probe");
    let never = std::future::pending();
    let outcome = driver::run(&spec, &switch, &launcher, never, &mut |_| {}).await;
    let outcome = outcome.expect("all of them come in the end");
    assert_eq!(outcome.results.len() as u32, PACKS);
    // The last ones have told the driver their results, and are about to end.
    let deadline = Instant::now() + Duration::from_secs(10);
    let all = |seen: &Seen| seen.done.len() as u32 == PACKS;
    while !all(&seen.lock().expect("no one panics")) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = seen.lock().expect("no one panics");
    let calls: u32 = seen.calls.values().sum();
    eprintln!(
        "{PACKS} packs joined in {:.1} s with {calls} calls; {} second ones were not let in",
        outcome.launch.as_secs_f64(),
        seen.refused
    );
    assert_eq!(seen.done.len() as u32, PACKS);
    assert!(seen.done.values().all(|done| *done == 1));
    assert!(calls <= PACKS * 16 / 10, "{calls} calls");
}
