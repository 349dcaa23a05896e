//! `lswitch bench`: how fast messages and collectives are, here or on a fleet.

use crate::cmd::invoke::FleetArgs;
use crate::cmd::settings::parse_size;
use crate::cmd::ui::{Ui, print, print_json};
use crate::cmd::{Interrupted, UsageError, block_on, interrupted, raise_descriptor_limit};
use crate::job::bench::crew::{self, Passed};
use crate::job::bench::{Figures, Latency, Pattern, Spec};
use crate::job::driver::{JobEvent, JobSpec};
use crate::net::frame::MESSAGE_MAX;
use crate::net::message::Traffic;
use crate::net::token::JobId;
use anyhow::Context;
use serde_json::{Value, json};
use std::time::Instant;

/// Measure the switch: latencies, messages and bytes a second
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch bench pair                          round trips of 64 bytes between two ranks in this process
  lswitch bench all-to-all --workers 16 --size 64,1KiB,64KiB,1MiB
  lswitch bench barrier --workers 64 --workers-per-function 4 --processes
  lswitch bench all-reduce --workers 8 --size 1MiB --switch 10.0.0.5:7000#SHA256 --function worker")]
pub struct Bench {
    /// What to measure
    pattern: Pattern,

    /// Bytes of a message or vector; several by commas, as 64,1KiB,1MiB
    #[arg(long, value_name = "SIZE", default_value = "64", value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,

    /// Seconds of the window that is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,

    /// Seconds before it in which nothing is counted
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    warm_up: f64,

    /// Run the ranks in worker processes, in a local Lambda, and not in this process
    #[arg(long, conflicts_with = "function")]
    processes: bool,

    #[command(flatten)]
    fleet: FleetArgs,

    /// Print the figures as JSON, one line a size
    #[arg(long)]
    json: bool,
}

/// True if what is measured depends on the size of a message.
fn has_size(pattern: Pattern) -> bool {
    !matches!(pattern, Pattern::Barrier | Pattern::Launch)
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    if bytes as u64 > MESSAGE_MAX {
        return Err(format!("a message has at most {} GiB", MESSAGE_MAX >> 30));
    }
    Ok(bytes)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write seconds from 0 to 86400, as 1 or 0.5".into()),
    }
}

/// What is printed for one size.
struct Row {
    size: usize,
    figures: Figures,
    /// Through the switches in a stretch of the measurement.
    passed: Option<Traffic>,
}

impl Bench {
    /// Measures and prints.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        self.fleet.check_alone()?;
        raise_descriptor_limit();
        let ranks = self.fleet.workers()?.unwrap_or(2);
        let per_pack = self.fleet.workers_per_function;
        let least = if matches!(self.pattern, Pattern::Pair | Pattern::AllToAll) {
            2
        } else {
            1
        };
        if ranks < least || per_pack == 0 {
            let what = format!("this needs --workers {least} at least, and one of them a function");
            return Err(UsageError(what).into());
        }
        if per_pack >= ranks && matches!(self.pattern, Pattern::Pair | Pattern::AllToAll) {
            let what = "all workers would share one function, and nothing cross the switch; give a smaller --workers-per-function";
            return Err(UsageError(what.into()).into());
        }
        let sizes = if has_size(self.pattern) {
            &self.size[..]
        } else {
            &[0]
        };
        for (index, &size) in sizes.iter().enumerate() {
            let spec = Spec {
                pattern: self.pattern,
                size,
                warm_up_s: self.warm_up,
                seconds: self.seconds,
            };
            let row = block_on(async {
                if self.processes || self.fleet.function().is_some() {
                    self.by_workers(ui, ranks, per_pack, spec).await
                } else {
                    self.in_process(ranks, per_pack, spec).await
                }
            })?;
            if self.json {
                print_json(&self.as_json(&row, ranks, per_pack))?;
            } else {
                let mut lines = Vec::new();
                if index == 0 {
                    lines.push(heading(self.pattern));
                }
                lines.push(line(self.pattern, &row));
                print(lines.join("\n") + "\n")?;
            }
        }
        Ok(())
    }

    async fn in_process(&self, ranks: u32, per_pack: u32, spec: Spec) -> anyhow::Result<Row> {
        let stop = interrupted();
        let (access, own) = self.fleet.switch().await?;
        let begun = Instant::now();
        let outcome = tokio::select! {
            () = stop => Err(Interrupted.into()),
            outcome = crew::run(&access, ranks, per_pack, spec) => outcome.context("the measurement failed"),
        };
        own.stop().await;
        let (figures, said) = outcome?;
        Ok(Row {
            size: spec.size,
            figures,
            passed: between(&said, begun),
        })
    }

    async fn by_workers(
        &self,
        ui: &Ui,
        ranks: u32,
        per_pack: u32,
        spec: Spec,
    ) -> anyhow::Result<Row> {
        let begun = Instant::now();
        let mut said = Vec::new();
        let store = self.fleet.open_store("--store", &self.fleet.store).await?;
        let job = JobSpec {
            id: JobId::random(),
            program: "bench".into(),
            arguments: serde_json::to_value(spec)?,
            ranks,
            ranks_per_pack: per_pack,
            levels: 1,
            store: store.url().into(),
            timeout: self.fleet.timeout(),
            more: Default::default(),
        };
        let outcome = self
            .fleet
            .drive_with(ui, &job, "", &mut |event| {
                if let JobEvent::Traffic(traffic) = event {
                    said.push(Passed {
                        at: Instant::now(),
                        traffic: *traffic,
                    });
                }
            })
            .await?;
        let first = outcome.results.first().context("rank 0 gave no figures")?;
        let mut figures: Figures = serde_json::from_slice(first).context("rank 0's figures")?;
        if spec.pattern == Pattern::Launch {
            figures.latency = Latency::of(vec![outcome.launch.as_secs_f64() * 1e6]);
        }
        Ok(Row {
            size: spec.size,
            figures,
            passed: between(&said, begun),
        })
    }

    fn as_json(&self, row: &Row, ranks: u32, per_pack: u32) -> Value {
        let Figures {
            rounds,
            messages,
            seconds,
            latency,
        } = &row.figures;
        let rate = |count: f64| if *seconds > 0.0 { count / seconds } else { 0.0 };
        let (per_message, per_gb) = cpu(row).unzip();
        json!({
            "pattern": self.pattern,
            "workers": ranks,
            "workers_per_function": per_pack,
            "size": row.size,
            "seconds": seconds,
            "rounds": rounds,
            "rounds_per_s": rate(*rounds as f64),
            "messages": messages,
            "messages_per_s": rate(*messages as f64),
            "megabytes_per_s": rate(*messages as f64 * row.size as f64 / 1e6),
            "latency": latency,
            "switch_cpu_us_per_message": per_message,
            "switch_cpu_s_per_gb": per_gb,
        })
    }
}

/// What passed through the switches between two of their words in the midst of the traffic.
fn between(said: &[Passed], begun: Instant) -> Option<Traffic> {
    let all = said.last()?.traffic.messages;
    // Joining comes first and takes a moment; the middle of the traffic is what counts.
    let busy = said
        .iter()
        .find(|passed| passed.traffic.messages * 4 > all && passed.at > begun);
    let first = busy.or(said.first())?.traffic;
    let until = said
        .iter()
        .rev()
        .find(|passed| passed.traffic.messages < all)?
        .traffic;
    (until.messages > first.messages).then(|| Traffic {
        messages: until.messages - first.messages,
        bytes: until.bytes - first.bytes,
        switch_cpu_us: until.switch_cpu_us - first.switch_cpu_us,
    })
}

/// Processor time of the switches: microseconds a message, and seconds for 10^9 bytes.
fn cpu(row: &Row) -> Option<(f64, f64)> {
    let Traffic {
        messages,
        bytes,
        switch_cpu_us,
    } = row.passed?;
    Some((
        switch_cpu_us as f64 / messages as f64,
        switch_cpu_us as f64 / 1e6 / (bytes.max(1) as f64 / 1e9),
    ))
}

fn heading(pattern: Pattern) -> String {
    let what = if has_size(pattern) { "bytes" } else { "" };
    format!(
        "{what:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>12}  {:>9}  {:>14}  {:>11}",
        "p50 us",
        "p90 us",
        "p99 us",
        "max us",
        "messages/s",
        "MB/s",
        "switch us/msg",
        "switch s/GB"
    )
}

fn line(pattern: Pattern, row: &Row) -> String {
    let Figures {
        messages,
        seconds,
        latency,
        ..
    } = &row.figures;
    let Latency {
        p50_us,
        p90_us,
        p99_us,
        max_us,
    } = latency.unwrap_or_default();
    let size = if has_size(pattern) {
        row.size.to_string()
    } else {
        String::new()
    };
    let rate = |count: f64| {
        if *messages == 0 || *seconds <= 0.0 {
            "-".into()
        } else {
            format!("{:.0}", count / seconds)
        }
    };
    let (per_message, per_gb) = cpu(row).unzip();
    let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    format!(
        "{size:>10}  {p50_us:>10.1}  {p90_us:>10.1}  {p99_us:>10.1}  {max_us:>10.1}  {:>12}  {:>9}  {:>14}  {:>11}",
        rate(*messages as f64),
        rate(*messages as f64 * row.size as f64 / 1e6),
        shown(per_message),
        shown(per_gb.filter(|_| row.size >= 1024)),
    )
}
