//! What is measured: cases, the systems of each, and one measurement of one system.

use crate::bare::Bare;
use crate::child;
use crate::lswitch;
use crate::nats::Nats;
use crate::peer::{self, Peer};
use crate::redis::Redis;
use crate::relay::Relay;
use crate::traffic::{Latency, Traffic, Window};
use anyhow::Result;

/// Clients of all-to-all.
const CLIENTS: usize = 16;
/// Ranks of the packed all-to-all, and the packs they are in.
const RANKS: usize = 64;
const PACKS: usize = 4;
const REDUCE_PROCESSES: usize = 8;
const REDUCE_BYTES: usize = 1 << 20;
const REDUCE_CALLS: usize = 200;
const BARRIER_PROCESSES: usize = 16;
const BARRIER_THREADS: usize = 4;

/// A part of the run that `--only` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    AllToAll,
    Packs,
    PingPong,
    AllReduce,
    Barrier,
}

/// One thing to measure, in one round once for each of its systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    AllToAll(usize),
    Packs(usize),
    PingPong(usize),
    AllReduce,
    Barrier,
    RoundTrip,
}

pub const CASES: [Case; 11] = [
    Case::AllToAll(64),
    Case::AllToAll(1 << 10),
    Case::AllToAll(64 << 10),
    Case::AllToAll(1 << 20),
    Case::Packs(64),
    Case::PingPong(64),
    Case::PingPong(64 << 10),
    Case::PingPong(1 << 20),
    Case::AllReduce,
    Case::Barrier,
    Case::RoundTrip,
];

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Lswitch,
    Nats,
    Redis,
    RelayTokio,
    RelayThreads,
    OpenMpi,
    BareC,
}

pub const SYSTEMS: [System; 7] = [
    System::Lswitch,
    System::Nats,
    System::Redis,
    System::RelayTokio,
    System::RelayThreads,
    System::OpenMpi,
    System::BareC,
];

/// What a measurement yields; the name has the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    MessagesPerSecond,
    MegabytesPerSecond,
    CpuPerMessage,
    CpuPerGigabyte,
    PeakMemory,
    P50,
    P99,
}

/// What measurements share.
pub struct Setting {
    pub window: Window,
    pub nats: Nats,
    pub bare: Bare,
}

impl Case {
    pub fn section(self) -> Section {
        match self {
            Case::AllToAll(_) => Section::AllToAll,
            Case::Packs(_) => Section::Packs,
            Case::PingPong(_) => Section::PingPong,
            Case::AllReduce => Section::AllReduce,
            Case::Barrier | Case::RoundTrip => Section::Barrier,
        }
    }

    pub fn name(self) -> String {
        match self {
            Case::AllToAll(size) => format!("all-to-all, {CLIENTS} clients, {}", bytes(size)),
            Case::Packs(size) => format!("all-to-all, {RANKS} ranks, {}", bytes(size)),
            Case::PingPong(size) => format!("ping-pong, {}", bytes(size)),
            Case::AllReduce => {
                format!(
                    "all-reduce, {REDUCE_PROCESSES} processes, {}",
                    bytes(REDUCE_BYTES)
                )
            }
            Case::Barrier => format!(
                "barrier, {} ranks, {BARRIER_PROCESSES} processes",
                BARRIER_PROCESSES * BARRIER_THREADS
            ),
            Case::RoundTrip => "bare round trip, 1 B".into(),
        }
    }

    pub fn systems(self) -> &'static [System] {
        use System::{BareC, Lswitch, Nats, OpenMpi, Redis, RelayThreads, RelayTokio};
        match self {
            Case::AllToAll(_) | Case::PingPong(_) => {
                &[Lswitch, Nats, Redis, RelayTokio, RelayThreads]
            }
            Case::Packs(_) => &[Lswitch, Nats],
            Case::AllReduce => &[Lswitch, OpenMpi],
            Case::Barrier => &[Lswitch, BareC],
            Case::RoundTrip => &[BareC],
        }
    }

    /// One measurement.
    ///
    /// # Errors
    /// When it cannot be taken, see the system's own file.
    pub async fn measure(self, system: System, setting: &Setting) -> Result<Vec<(Metric, f64)>> {
        match system {
            System::Lswitch => self.lswitch(setting.window).await,
            System::Nats => self.peer(&setting.nats, setting.window).await,
            System::Redis => self.peer(&Redis, setting.window).await,
            System::RelayTokio => self.peer(&Relay::Tokio, setting.window).await,
            System::RelayThreads => self.peer(&Relay::Threads, setting.window).await,
            System::OpenMpi => {
                let bare = &setting.bare;
                Ok(times(
                    bare.all_reduce(REDUCE_PROCESSES, REDUCE_BYTES, REDUCE_CALLS)
                        .await?,
                ))
            }
            System::BareC => {
                let (processes, threads) = match self {
                    Case::RoundTrip => (1, 1),
                    _ => (BARRIER_PROCESSES, BARRIER_THREADS),
                };
                Ok(times(
                    setting
                        .bare
                        .barrier(processes, threads, setting.window)
                        .await?,
                ))
            }
        }
    }

    async fn lswitch(self, window: Window) -> Result<Vec<(Metric, f64)>> {
        let switch = lswitch::start().await?;
        Ok(match self {
            Case::AllToAll(size) => {
                rates(lswitch::all_to_all(&switch, CLIENTS, 1, size, window).await?)
            }
            Case::Packs(size) => {
                rates(lswitch::all_to_all(&switch, RANKS, RANKS / PACKS, size, window).await?)
            }
            Case::PingPong(size) => times(lswitch::ping_pong(&switch, size, window).await?),
            Case::AllReduce => {
                let (processes, bytes) = (REDUCE_PROCESSES, REDUCE_BYTES);
                times(lswitch::all_reduce(&switch, processes, bytes).await?)
            }
            Case::Barrier | Case::RoundTrip => {
                let (processes, threads) = (BARRIER_PROCESSES, BARRIER_THREADS);
                times(lswitch::barrier(&switch, processes, threads, window).await?)
            }
        })
    }

    async fn peer(self, peer: &impl Peer, window: Window) -> Result<Vec<(Metric, f64)>> {
        Ok(match self {
            Case::AllToAll(size) => rates(peer::all_to_all(peer, CLIENTS, size, window).await?),
            Case::Packs(size) => rates(peer::all_to_all(peer, RANKS, size, window).await?),
            Case::PingPong(size) => times(peer::ping_pong(peer, size, window).await?),
            Case::AllReduce | Case::Barrier | Case::RoundTrip => {
                unreachable!("no rival is asked for {}", self.name())
            }
        })
    }
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::Lswitch => "lswitch",
            System::Nats => "nats",
            System::Redis => "redis",
            System::RelayTokio => "relay tokio",
            System::RelayThreads => "relay threads",
            System::OpenMpi => "Open MPI",
            System::BareC => "bare C",
        }
    }

    /// The first program that is needed and not here, and the Debian packages to install.
    pub fn missing(self) -> Option<(&'static str, &'static str)> {
        let (programs, packages): (&'static [&'static str], _) = match self {
            System::Nats => (&["nats-server"], "nats-server"),
            System::Redis => (&["redis-server"], "redis-server"),
            System::OpenMpi => (&["mpirun", "mpicc"], "openmpi-bin libopenmpi-dev"),
            System::BareC => (&["cc"], "gcc libc6-dev"),
            System::Lswitch | System::RelayTokio | System::RelayThreads => (&[], ""),
        };
        let program = programs
            .iter()
            .find(|program| child::which(program).is_none())?;
        Some((program, packages))
    }
}

impl Metric {
    pub fn name(self) -> &'static str {
        match self {
            Metric::MessagesPerSecond => "msg/s",
            Metric::MegabytesPerSecond => "MB/s",
            Metric::CpuPerMessage => "CPU us/msg",
            Metric::CpuPerGigabyte => "CPU s/GB",
            Metric::PeakMemory => "peak MiB",
            Metric::P50 => "p50 us",
            Metric::P99 => "p99 us",
        }
    }
}

fn rates(traffic: Traffic) -> Vec<(Metric, f64)> {
    let messages = traffic.messages as f64;
    let bytes = messages * traffic.size as f64;
    vec![
        (Metric::MessagesPerSecond, messages / traffic.seconds),
        (Metric::MegabytesPerSecond, bytes / traffic.seconds / 1e6),
        (Metric::CpuPerMessage, traffic.switch_cpu_s * 1e6 / messages),
        (Metric::CpuPerGigabyte, traffic.switch_cpu_s * 1e9 / bytes),
        (Metric::PeakMemory, traffic.switch_peak_kib / 1024.0),
    ]
}

fn times(latency: Latency) -> Vec<(Metric, f64)> {
    vec![(Metric::P50, latency.p50_us), (Metric::P99, latency.p99_us)]
}

fn bytes(size: usize) -> String {
    match size {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}
