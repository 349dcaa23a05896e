//! lswitch under measurement: the only file here that knows it.
//!
//! The product measures itself: `lswitch serve` is the switch, `lswitch bench` the clients, and this reads what the
//! latter prints. So what is compared with the rivals is what users run. The binary is `LSWITCH`, or `lswitch` beside
//! this one.

use crate::child::{Server, command};
use crate::traffic::{Latency, Traffic, Window};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// What stands for a secret: nothing but loopback sees it.
const SECRET: &str = "a secret for a benchmark on loopback";

/// Beyond its window, a measurement that takes this much longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary is not there.
#[derive(Debug)]
pub struct NotBuilt;

impl std::fmt::Display for NotBuilt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter
            .write_str("there is no lswitch binary; run \"cargo build --release\" or set LSWITCH")
    }
}

impl std::error::Error for NotBuilt {}

fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("LSWITCH") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("lswitch"),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(NotBuilt.into())
    }
}

/// Starts a switch as a child process.
pub async fn start() -> Result<Server> {
    let binary = binary()?;
    Server::start(|port| {
        let mut command = command(&binary);
        command
            .args(["--quiet", "serve", "--listen", &format!("127.0.0.1:{port}")])
            .env("LSWITCH_SECRET", SECRET);
        command
    })
    .await
}

/// Runs `lswitch bench` against a switch, and gives the line of JSON that it prints.
async fn bench(switch: &Server, arguments: &[String], window: Window) -> Result<Value> {
    let mut command = Command::new(binary()?);
    command
        .args(["--quiet", "bench"])
        .args(arguments)
        .args(["--json", "--switch", &switch.address.to_string()])
        .args(["--warm-up", &window.warm_up.as_secs_f64().to_string()])
        .args(["--seconds", &window.duration.as_secs_f64().to_string()])
        .env("LSWITCH_SECRET", SECRET)
        // As many as the rivals' clients have.
        .env("TOKIO_WORKER_THREADS", "2")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let limit = window.warm_up + window.duration + PATIENCE;
    let output = timeout(limit, command.output())
        .await
        .with_context(|| format!("lswitch bench is not done after {limit:?}"))??;
    ensure!(
        output.status.success(),
        "lswitch bench {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("lswitch bench prints one line of JSON")
}

fn arguments(pattern: &str, ranks: usize, ranks_per_pack: usize, size: usize) -> Vec<String> {
    vec![
        pattern.into(),
        "--workers".into(),
        ranks.to_string(),
        "--workers-per-function".into(),
        ranks_per_pack.to_string(),
        "--size".into(),
        size.to_string(),
    ]
}

fn number(value: &Value, path: &str) -> Result<f64> {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.with_context(|| format!("lswitch bench printed no {path}"))
}

fn latency(value: &Value) -> Result<Latency> {
    Ok(Latency {
        p50_us: number(value, "/latency/p50_us")?,
        p99_us: number(value, "/latency/p99_us")?,
    })
}

/// Each of `ranks` sends one message of `size` bytes to each rank of another pack and waits for as many, repeatedly.
/// What stays inside a pack is not sent and not counted.
pub async fn all_to_all(
    switch: &Server,
    ranks: usize,
    ranks_per_pack: usize,
    size: usize,
    window: Window,
) -> Result<Traffic> {
    let arguments = arguments("all-to-all", ranks, ranks_per_pack, size);
    let figures = bench(switch, &arguments, window).await?;
    let messages = number(&figures, "/messages")?;
    Ok(Traffic {
        messages: messages as u64,
        size,
        seconds: number(&figures, "/seconds")?,
        switch_cpu_s: number(&figures, "/switch_cpu_us_per_message")? * messages / 1e6,
        switch_peak_kib: switch.usage()?.peak_kib,
    })
}

/// Round trips of `size` bytes between two ranks in two packs.
pub async fn ping_pong(switch: &Server, size: usize, window: Window) -> Result<Latency> {
    latency(&bench(switch, &arguments("pair", 2, 1, size), window).await?)
}

/// The time of all-reduces (sum) of `bytes` bytes of f64 over `processes` processes of one rank, as rank 0 sees it.
pub async fn all_reduce(switch: &Server, processes: usize, bytes: usize) -> Result<Latency> {
    let window = Window {
        warm_up: Duration::from_millis(300),
        duration: Duration::from_secs(2),
    };
    let mut arguments = arguments("all-reduce", processes, 1, bytes);
    arguments.push("--processes".into());
    latency(&bench(switch, &arguments, window).await?)
}

/// The time of a barrier of `processes` packs of `ranks_per_process` ranks, one thread a rank, as one rank sees it.
pub async fn barrier(
    switch: &Server,
    processes: usize,
    ranks_per_process: usize,
    window: Window,
) -> Result<Latency> {
    let ranks = processes * ranks_per_process;
    let mut arguments = arguments("barrier", ranks, ranks_per_process, 0);
    arguments.push("--processes".into());
    latency(&bench(switch, &arguments, window).await?)
}
