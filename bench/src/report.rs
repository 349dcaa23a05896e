//! The report: tables for people, JSON for programs.

use crate::case::{CASES, Metric, SYSTEMS, Section, System};
use crate::samples::{Samples, Spread};
use crate::target::{Bound, Over, Target};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::Command;

const METRICS: [Metric; 7] = [
    Metric::MessagesPerSecond,
    Metric::MegabytesPerSecond,
    Metric::CpuPerMessage,
    Metric::CpuPerGigabyte,
    Metric::PeakMemory,
    Metric::P50,
    Metric::P99,
];

/// All figures (medians over the rounds), then the targets, then what there is to say.
pub fn text(samples: &Samples, targets: &[Target], sections: &[Section]) -> String {
    let mut table = vec![];
    let mut head = vec!["case".to_string(), "system".into()];
    head.extend(METRICS.map(|metric| metric.name().to_string()));
    head.push("over nats".into());
    table.push(head);
    for case in CASES
        .into_iter()
        .filter(|case| sections.contains(&case.section()))
    {
        for &system in case.systems() {
            let mut row = vec![case.name(), system.name().into()];
            for metric in METRICS {
                row.push(
                    samples
                        .median(case, system, metric)
                        .map_or("".into(), figure),
                );
            }
            // The figure of this case that the targets look at.
            let main = [Metric::P50, Metric::MessagesPerSecond]
                .into_iter()
                .find_map(|metric| {
                    Spread::of(samples.of(case, system, metric).filter_map(|own| {
                        Some(own.value / samples.value(own.round, case, System::Nats, metric)?)
                    }))
                });
            row.push(main.map_or("".into(), |ratio| format!("{:.2}x", ratio.median)));
            if let Some(absence) = samples.absence(case, system)
                && METRICS
                    .iter()
                    .all(|metric| samples.median(case, system, *metric).is_none())
            {
                row[2] = crate::target::Verdict::Absent(absence).name().into();
            }
            table.push(row);
        }
    }
    let mut text = columns(&table, 2);

    let head = ["target", "measured", "(least-most)", "bound", ""]
        .map(str::to_string)
        .to_vec();
    let mut table = vec![head];
    for target in targets {
        let unit = if matches!(target.over, Over::Nothing) {
            ""
        } else {
            "x"
        };
        let bound = match target.bound {
            Bound::AtLeast(bound) => format!(">= {bound}{unit}"),
            Bound::AtMost(bound) => format!("<= {bound}{unit}"),
            Bound::None => "-".into(),
        };
        let (measured, spread) = match target.measured(samples) {
            Some(Spread { low, median, high }) => {
                let shown = if unit.is_empty() { high } else { median };
                (format!("{shown:.2}{unit}"), format!("({low:.2}-{high:.2})"))
            }
            None => ("-".into(), "".into()),
        };
        let verdict = target.verdict(samples).name().into();
        table.push(vec![target.name(), measured, spread, bound, verdict]);
    }
    text.push('\n');
    text.push_str(&columns(&table, 1));
    if !samples.notes().is_empty() {
        text.push('\n');
    }
    for note in samples.notes() {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// Every figure as it was measured, with the machine and the versions.
pub fn json(samples: &Samples, targets: &[Target], load_before: &str) -> Value {
    let figures: Vec<Value> = samples
        .all()
        .iter()
        .map(|sample| {
            json!({
                "round": sample.round, "case": sample.case.name(), "system": sample.system.name(),
                "metric": sample.metric.name(), "value": sample.value,
            })
        })
        .collect();
    let lines: Vec<Value> = targets
        .iter()
        .map(|target| {
            let measured = target.measured(samples);
            let (kind, bound) = match target.bound {
                Bound::AtLeast(bound) => ("at least", Some(bound)),
                Bound::AtMost(bound) => ("at most", Some(bound)),
                Bound::None => ("none", None),
            };
            json!({
                "name": target.name(), "verdict": target.verdict(samples).name(),
                "bound": bound, "bound_kind": kind,
                "median": measured.map(|it| it.median),
                "least": measured.map(|it| it.low), "most": measured.map(|it| it.high),
            })
        })
        .collect();
    let versions: serde_json::Map<String, Value> = SYSTEMS
        .into_iter()
        .filter_map(|system| {
            let program = match system {
                System::Nats => "nats-server",
                System::Redis => "redis-server",
                System::OpenMpi => "mpirun",
                System::BareC => "cc",
                System::Lswitch | System::RelayTokio | System::RelayThreads => return None,
            };
            let said = Command::new(program).arg("--version").output().ok()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            Some((program.to_string(), said.lines().next()?.into()))
        })
        .collect();
    json!({
        "machine": {
            "processor": processor(),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": read("/proc/sys/kernel/osrelease"),
        },
        "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
        "load_before": load_before,
        "load_after": load(),
        "versions": versions,
        "figures": figures,
        "targets": lines,
        "notes": samples.notes(),
    })
}

/// The machine's load averages.
pub fn load() -> String {
    read("/proc/loadavg")
}

fn processor() -> String {
    let all = read("/proc/cpuinfo");
    let line = all.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or(String::new(), |(_, name)| name.into())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .into()
}

/// Three digits or so.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Columns as wide as they need to be; the first `left` and the last stand at the left. Empty columns are left out.
fn columns(rows: &[Vec<String>], left: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let used = |column: &usize| {
        *column < left || rows.len() < 2 || rows[1..].iter().any(|row| !row[*column].is_empty())
    };
    let shown: Vec<usize> = (0..rows[0].len()).filter(used).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for &column in &shown {
            let (cell, width) = (&row[column], width(column));
            if column < left {
                let _ = write!(line, "{cell:<width$}  ");
            } else {
                let _ = write!(line, "{cell:>width$}  ");
            }
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
