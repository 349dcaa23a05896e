//! lswitch beside nats, redis, Open MPI and bare relays: figures of the same machine in the same minutes.
//!
//! Rounds are interleaved: in each round every case is measured once for every system, beginning with another system
//! each time, and ratios are taken within a round, so that a machine that is busier for a while does not favour anyone.
//!
//! # Layout
//!
//! [`case`] says what is measured and dispatches to [`lswitch`] (the seam to the product), [`nats`], [`redis`], [`relay`]
//! (all through [`peer`] and [`traffic`]) and [`bare`] (programs in C). [`child`] owns processes. [`samples`], [`target`]
//! and [`report`] turn figures into verdicts.

mod bare;
mod case;
mod child;
mod lswitch;
mod nats;
mod peer;
mod redis;
mod relay;
mod report;
mod samples;
mod target;
mod traffic;

use anyhow::{Context, Result, bail};
use case::{CASES, Case, SYSTEMS, Section, Setting, System};
use clap::Parser;
use samples::{Absence, Sample, Samples};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use target::Verdict;
use tokio::signal::unix::{SignalKind, signal};
use traffic::Window;

/// The client side of every system: one process, two threads.
const CLIENT_THREADS: usize = 2;
/// Long enough for a few rounds of the largest messages, whose first touch of memory is slow.
const WARM_UP: Duration = Duration::from_millis(500);

/// Compare lswitch with nats, redis, Open MPI and bare relays on this machine
///
/// Examples:
///   lswitch-bench
///   lswitch-bench --only all-to-all,ping-pong --rounds 3 --json figures.json
///
/// Exit codes: 0 every target reached, 1 one is short or failed, 2 wrong usage, 3 some rows are missing, 130 interrupted
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// Only these sections
    #[arg(long, value_delimiter = ',', value_name = "SECTION")]
    only: Vec<Section>,
    /// Rounds; a ratio is the median over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Length of a measured window
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Write all figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    child: Option<ChildCommand>,
}

/// What the benchmark starts itself.
#[derive(clap::Subcommand)]
enum ChildCommand {
    #[command(hide = true)]
    Relay {
        kind: relay::Relay,
        #[arg(long)]
        port: u16,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.child {
        Some(ChildCommand::Relay { kind, port }) => kind.serve(*port).map(|()| ExitCode::SUCCESS),
        None => bench(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn bench(arguments: &Arguments) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CLIENT_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Dropping the run ends its child processes.
        tokio::select! {
            code = run(arguments) => code,
            _ = interrupt.recv() => Ok(ExitCode::from(130)),
            _ = terminate.recv() => Ok(ExitCode::from(143)),
        }
    })
}

async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let sections = match &arguments.only[..] {
        [] => CASES.map(Case::section).to_vec(),
        only => only.to_vec(),
    };
    let duration = Duration::from_secs_f64(arguments.seconds);
    let setting = Setting {
        window: Window {
            warm_up: WARM_UP,
            duration,
        },
        nats: nats::Nats::new()?,
        bare: bare::Bare::new()?,
    };
    let load = report::load();
    let mut samples = Samples::default();
    look_for_rivals(&sections, &mut samples);
    for round in 0..usize::from(arguments.rounds) {
        for case in CASES
            .into_iter()
            .filter(|case| sections.contains(&case.section()))
        {
            let systems = case.systems();
            for turn in 0..systems.len() {
                let system = systems[(round + turn) % systems.len()];
                measure(round, case, system, &setting, &mut samples).await;
            }
        }
    }

    let mut targets = target::targets();
    targets.retain(|target| sections.contains(&target.case.section()));
    print!("{}", report::text(&samples, &targets, &sections));
    if let Some(file) = &arguments.json {
        let json = report::json(&samples, &targets, &load);
        std::fs::write(file, format!("{json:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let verdicts: Vec<Verdict> = targets
        .iter()
        .map(|target| target.verdict(&samples))
        .collect();
    let failed = [Verdict::Short, Verdict::Absent(Absence::Failed)];
    Ok(if verdicts.iter().any(|verdict| failed.contains(verdict)) {
        ExitCode::from(1)
    } else if verdicts
        .iter()
        .any(|verdict| matches!(verdict, Verdict::Absent(_)))
    {
        ExitCode::from(3)
    } else {
        ExitCode::SUCCESS
    })
}

/// Says at once, and again at the end, what is not installed.
fn look_for_rivals(sections: &[Section], samples: &mut Samples) {
    for system in SYSTEMS {
        let Some((program, packages)) = system.missing() else {
            continue;
        };
        let mut needed = false;
        for case in CASES
            .into_iter()
            .filter(|case| sections.contains(&case.section()))
        {
            if case.systems().contains(&system) {
                samples.absent(case, system, Absence::Skipped);
                needed = true;
            }
        }
        if needed {
            let note = format!(
                "{} skipped: {program} is not installed; apt-get install {packages}",
                system.name()
            );
            eprintln!("{note}");
            samples.note(note);
        }
    }
}

/// One measurement. A failure is noted and the run goes on.
async fn measure(
    round: usize,
    case: Case,
    system: System,
    setting: &Setting,
    samples: &mut Samples,
) {
    let absent = samples.absence(case, system);
    if matches!(absent, Some(Absence::Skipped | Absence::NotBuilt)) {
        return;
    }
    let place = format!("round {}, {}, {}", round + 1, case.name(), system.name());
    match case.measure(system, setting).await {
        Ok(figures) => {
            let shown: Vec<String> = figures
                .iter()
                .map(|(metric, value)| format!("{value:.2} {}", metric.name()))
                .collect();
            eprintln!("{place}: {}", shown.join(", "));
            for (metric, value) in figures {
                samples.add(Sample {
                    round,
                    case,
                    system,
                    metric,
                    value,
                });
            }
        }
        Err(error) if error.is::<lswitch::NotBuilt>() => {
            samples.absent(case, system, Absence::NotBuilt);
            samples.note(
                "lswitch: rows that are not built are functions of bench/src/lswitch.rs".into(),
            );
        }
        Err(error) => {
            samples.absent(case, system, Absence::Failed);
            samples.note(format!("{place} failed: {error:#}"));
            eprintln!("{place} failed: {error:#}");
        }
    }
}

fn seconds(text: &str) -> Result<f64> {
    let seconds: f64 = text.parse()?;
    if !(0.1..=60.0).contains(&seconds) {
        bail!("between 0.1 and 60");
    }
    Ok(seconds)
}
