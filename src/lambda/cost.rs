//! What a job has taken from AWS, and what that costs. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What one worker has taken, as it says itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerUsage {
    /// Memory of its function in MB; 0 if nobody has told it.
    pub memory_mb: u32,
    /// It runs on Graviton.
    pub arm: bool,
    /// From the start of its invocation until it said so, in milliseconds.
    pub elapsed_ms: u64,
    /// Requests to S3 that write or list.
    pub store_writes: u64,
    /// Requests to S3 that read.
    pub store_reads: u64,
}

/// What a job has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Calls that Lambda has taken.
    pub calls: u64,
    /// Workers that have said what they took.
    pub workers: u64,
    /// Workers that have not, such as those that were lost, and are counted by the clock from when they joined.
    pub estimated: u64,
    /// Memory times time of those on x86, in MB ms.
    pub x86_mb_ms: u64,
    /// Memory times time of those on Graviton, in MB ms.
    pub arm_mb_ms: u64,
    /// Requests to S3 that write or list, of workers and driver.
    pub store_writes: u64,
    /// Requests to S3 that read.
    pub store_reads: u64,
}

/// AWS's prices in US dollars.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// When, and where: for people.
    pub of: String,
    /// A second of 1,024 MB on x86.
    pub gb_second_x86: f64,
    /// The same on Graviton.
    pub gb_second_arm64: f64,
    /// A million invocations.
    pub million_invocations: f64,
    /// A thousand requests to S3 that write or list.
    pub thousand_writes: f64,
    /// A thousand requests to S3 that read.
    pub thousand_reads: f64,
    /// An hour of a switch's machine.
    pub switch_hour: f64,
}

impl Default for Prices {
    /// The list prices of us-east-1, November 2026; the switch on a c7i.large.
    fn default() -> Prices {
        Prices {
            of: "us-east-1, November 2026".into(),
            gb_second_x86: 0.000_016_666_7,
            gb_second_arm64: 0.000_013_333_4,
            million_invocations: 0.20,
            thousand_writes: 0.005,
            thousand_reads: 0.000_4,
            switch_hour: 0.089_25,
        }
    }
}

/// What a job costs, in US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Memory and time.
    pub functions: f64,
    /// Invocations.
    pub invocations: f64,
    /// Requests to S3.
    pub store: f64,
    /// The machines of the switches, for as long as the job took.
    pub switches: f64,
}

impl Usage {
    /// Adds what a worker has said.
    pub fn add(&mut self, worker: WorkerUsage) {
        self.workers += 1;
        self.add_time(worker.memory_mb, worker.arm, worker.elapsed_ms);
        self.store_writes += worker.store_writes;
        self.store_reads += worker.store_reads;
    }

    /// Adds what another job has taken.
    pub fn add_all(&mut self, other: &Usage) {
        self.calls += other.calls;
        self.workers += other.workers;
        self.estimated += other.estimated;
        self.x86_mb_ms += other.x86_mb_ms;
        self.arm_mb_ms += other.arm_mb_ms;
        self.store_writes += other.store_writes;
        self.store_reads += other.store_reads;
    }

    /// Adds the time of a function with so much memory.
    pub fn add_time(&mut self, memory_mb: u32, arm: bool, elapsed_ms: u64) {
        let mb_ms = u64::from(memory_mb) * elapsed_ms;
        match arm {
            true => self.arm_mb_ms += mb_ms,
            false => self.x86_mb_ms += mb_ms,
        }
    }

    /// Calls of which nothing is known: nobody has joined, or it is not known how much memory they have.
    pub fn unknown(&self) -> u64 {
        self.calls.saturating_sub(self.workers + self.estimated)
    }

    /// Memory times time in GB s, of 1,024 MB each, as AWS counts it.
    pub fn gb_seconds(&self) -> f64 {
        gb_seconds(self.x86_mb_ms + self.arm_mb_ms)
    }
}

fn gb_seconds(mb_ms: u64) -> f64 {
    mb_ms as f64 / 1024.0 / 1000.0
}

impl Prices {
    /// What a job costs that took so long, over so many switches of its own.
    pub fn cost(&self, usage: &Usage, took: Duration, switches: usize) -> Cost {
        Cost {
            functions: gb_seconds(usage.x86_mb_ms) * self.gb_second_x86
                + gb_seconds(usage.arm_mb_ms) * self.gb_second_arm64,
            // Workers may have called others.
            invocations: usage.calls.max(usage.workers + usage.estimated) as f64 / 1e6
                * self.million_invocations,
            store: usage.store_writes as f64 / 1e3 * self.thousand_writes
                + usage.store_reads as f64 / 1e3 * self.thousand_reads,
            switches: took.as_secs_f64() / 3600.0 * self.switch_hour * switches as f64,
        }
    }
}

impl Cost {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.functions + self.invocations + self.store + self.switches
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "${:.4} (functions ${:.4}, invocations ${:.4}, S3 ${:.4}, switches ${:.4})",
            self.total(),
            self.functions,
            self.invocations,
            self.store,
            self.switches
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_workers_for_a_minute_cost_what_aws_would_ask() {
        let worker = WorkerUsage {
            memory_mb: 1769,
            elapsed_ms: 60_000,
            store_writes: 2,
            store_reads: 10,
            ..WorkerUsage::default()
        };
        let mut usage = Usage {
            calls: 1_100,
            ..Usage::default()
        };
        for _ in 0..1000 {
            usage.add(worker);
        }
        assert!((usage.gb_seconds() - 103_652.3).abs() < 0.1);
        let cost = Prices::default().cost(&usage, Duration::from_secs(70), 2);
        assert_eq!(
            cost.to_string(),
            "$1.7452 (functions $1.7275, invocations $0.0002, S3 $0.0140, switches $0.0035)"
        );
        let mut on_arm = Usage::default();
        on_arm.add(WorkerUsage {
            arm: true,
            ..worker
        });
        let cost = Prices::default().cost(&on_arm, Duration::ZERO, 0);
        assert!((cost.functions - 0.001_382).abs() < 1e-6, "{cost}");
    }

    #[test]
    fn prices_of_a_users_own_are_read_and_the_others_stay() {
        let own: Prices =
            toml::from_str("of = \"ours\"\ngb_second_x86 = 0.00001\n").expect("it is a table");
        assert_eq!((own.gb_second_x86, own.thousand_writes), (0.00001, 0.005));
        assert!(toml::from_str::<Prices>("gigabyte = 1").is_err());
    }
}
