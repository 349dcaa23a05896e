//! The traffic, the same for every system: all-to-all and ping-pong over [`Sender`] and [`Receiver`].
//!
//! All-to-all is a superstep without a barrier: each client sends one message to each of the others, waits for as many
//! as there are others, and repeats. Sending and receiving run side by side, since a message to a peer that is itself
//! sending may not fit into the buffers between them.

use crate::child::Server;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Beyond warm-up and window, a measurement that takes this much longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sending half of a client.
pub trait Sender: Send + 'static {
    /// Gives one copy of `payload` for each of `to` to the system.
    fn send(&mut self, to: &[u32], payload: &Bytes) -> impl Future<Output = Result<()>> + Send;
}

/// The receiving half of a client.
pub trait Receiver: Send + 'static {
    /// Waits for a message and takes what else is there; returns how many. A wrong length is an error.
    fn receive(&mut self) -> impl Future<Output = Result<u64>> + Send;
}

/// When to measure.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub warm_up: Duration,
    pub duration: Duration,
}

/// What an all-to-all window saw, together with the broker's share.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Messages of `size` bytes that crossed the switch.
    pub messages: u64,
    pub size: usize,
    pub seconds: f64,
    /// Processor time of the switch process in the window.
    pub switch_cpu_s: f64,
    /// Peak memory of the switch process since it started.
    pub switch_peak_kib: f64,
}

/// A distribution of times.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Latency {
    /// # Errors
    /// Without a single time.
    pub fn of(mut times_us: Vec<f64>) -> Result<Latency> {
        ensure!(!times_us.is_empty(), "nothing was measured in the window");
        times_us.sort_by(f64::total_cmp);
        let at = |share: f64| times_us[((times_us.len() - 1) as f64 * share).round() as usize];
        Ok(Latency {
            p50_us: at(0.5),
            p99_us: at(0.99),
        })
    }
}

/// Watches counters of received messages, one a client so that they share no cache line, over the window.
///
/// # Errors
/// When the server is gone, or nothing arrives.
pub async fn watch(
    server: &Server,
    counts: &[Arc<AtomicU64>],
    size: usize,
    window: Window,
) -> Result<Traffic> {
    let sum = || {
        counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum::<u64>()
    };
    sleep(window.warm_up).await;
    let (begin, usage, sent) = (Instant::now(), server.usage()?, sum());
    sleep(window.duration).await;
    let (seconds, after, messages) = (begin.elapsed().as_secs_f64(), server.usage()?, sum() - sent);
    ensure!(
        messages > 0,
        "no message arrived within {:?}",
        window.duration
    );
    Ok(Traffic {
        messages,
        size,
        seconds,
        switch_cpu_s: after.cpu_s - usage.cpu_s,
        switch_peak_kib: after.peak_kib,
    })
}

/// All-to-all among clients that are connected already; client i is number i.
///
/// # Errors
/// When a client fails or the traffic stalls.
pub async fn all_to_all<S: Sender, R: Receiver>(
    server: &Server,
    clients: Vec<(S, R)>,
    size: usize,
    window: Window,
) -> Result<Traffic> {
    let payload = payload(size);
    let number = clients.len() as u32;
    let counts: Vec<_> = clients
        .iter()
        .map(|_| Arc::new(AtomicU64::new(0)))
        .collect();
    let mut tasks = JoinSet::new();
    for ((me, (sender, receiver)), count) in (0..).zip(clients).zip(&counts) {
        // Each starts with its neighbour, so that not all begin with the same destination.
        let others = (1..number).map(|step| (me + step) % number).collect();
        tasks.spawn(client(
            sender,
            receiver,
            others,
            payload.clone(),
            count.clone(),
        ));
    }
    let traffic = bounded(window, async {
        tokio::select! {
            traffic = watch(server, &counts, size, window) => traffic,
            Some(ended) = tasks.join_next() => {
                ended??;
                bail!("a client ended before the window did")
            }
        }
    })
    .await;
    // The clients go before the server does, so that none sees it leave.
    tasks.shutdown().await;
    traffic
}

async fn client<S: Sender, R: Receiver>(
    mut sender: S,
    mut receiver: R,
    others: Vec<u32>,
    payload: Bytes,
    count: Arc<AtomicU64>,
) -> Result<()> {
    let due = others.len() as u64;
    // A faster peer may be a round ahead: what comes too early counts for the next round.
    let mut arrived = 0;
    loop {
        let receive = async {
            while arrived < due {
                let messages = receiver.receive().await?;
                count.fetch_add(messages, Ordering::Relaxed);
                arrived += messages;
            }
            Ok(())
        };
        tokio::try_join!(sender.send(&others, &payload), receive)?;
        arrived -= due;
    }
}

/// Round trips between client 0 and client 1.
///
/// # Errors
/// When a client fails or the traffic stalls.
pub async fn ping_pong<S: Sender, R: Receiver>(
    mut clients: Vec<(S, R)>,
    size: usize,
    window: Window,
) -> Result<Latency> {
    let ping = payload(size);
    let pong = ping.clone();
    let (mut far_sender, mut far_receiver) = clients.pop().context("ping-pong takes two")?;
    let (mut sender, mut receiver) = clients.pop().context("ping-pong takes two")?;
    let mut tasks: JoinSet<Result<Vec<f64>>> = JoinSet::new();
    tasks.spawn(async move {
        loop {
            far_receiver.receive().await?;
            far_sender.send(&[0], &pong).await?;
        }
    });
    tasks.spawn(async move {
        let begin = Instant::now();
        let mut times_us = Vec::new();
        loop {
            let sent = Instant::now();
            tokio::try_join!(sender.send(&[1], &ping), receiver.receive())?;
            if begin.elapsed() > window.warm_up + window.duration {
                return Ok(times_us);
            }
            if sent - begin >= window.warm_up {
                times_us.push(sent.elapsed().as_secs_f64() * 1e6);
            }
        }
    });
    let latency = bounded(window, async {
        let ended = tasks.join_next().await.context("no client")?;
        Latency::of(ended??)
    })
    .await;
    tasks.shutdown().await;
    latency
}

async fn bounded<T>(window: Window, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = window.warm_up + window.duration + PATIENCE;
    timeout(limit, work)
        .await
        .with_context(|| format!("the traffic is not done after {limit:?}"))?
}

fn payload(size: usize) -> Bytes {
    (0..size)
        .map(|index| index as u8)
        .collect::<Vec<_>>()
        .into()
}
