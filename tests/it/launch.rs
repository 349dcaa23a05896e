//! A thousand packs through a Lambda that refuses calls, breaks connections and loses answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::alone;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::config::{Credentials, SharedCredentialsProvider};
use lswitch::job::driver::{self, JobSpec, SwitchAccess};
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
fn answer(event: Event, seen: &Arc<Mutex<Seen>>) -> Option<&'static str> {
    const THROTTLED: &str = "HTTP/1.1 429 Too Many Requests\r\nx-amzn-errortype: TooManyRequestsException\r\n\
        content-length: 36\r\n\r\n{\"Reason\":\"CallerRateLimitExceeded\"}";
    const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    let rank = event.first_rank;
    let call = {
        let mut seen = seen.lock().expect("no one panics");
        let calls = seen.calls.entry(rank).or_default();
        *calls += 1;
        *calls
    };
    let fate = fate(rank, call);
    match fate {
        0..30 => return Some(THROTTLED),
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
    (fate >= 40).then_some(ACCEPTED)
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

fn config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("any", "any", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
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
    let seen = Arc::<Mutex<Seen>>::default();
    let endpoint = lambda(seen.clone()).await;
    let launcher = Launcher::on_aws(&config(&endpoint), Share::all("f"), Way::Start);
    let spec = JobSpec {
        id: JobId::random(),
        program: "probe".into(),
        arguments: serde_json::to_value(Asked { store: false }).expect("it is JSON"),
        ranks: PACKS,
        ranks_per_pack: 1,
        store: "file:///nowhere".into(),
        timeout: Some(Duration::from_secs(100)),
        more: Default::default(),
    };
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
