//! One pack: joins its job, runs its ranks on threads of their own, and leaves.
//!
//! Nothing of a job outlives its invocation, since environments are reused: the threads are joined and the connection is
//! closed before the handler replies.

use crate::aws::AwsSettings;
use crate::job::context::{Context, Surroundings};
use crate::job::driver::SWITCHES_MAX;
use crate::job::program::{self, Program, ProgramError};
use crate::job::report::Report;
use crate::lambda::event::Event;
use crate::lambda::launch::{Launcher, Share};
use crate::lambda::runtime::{Failure, Invocation};
use crate::net::address::{AddressError, SwitchAddress, places};
use crate::net::client::{JoinOptions, Pack};
use crate::net::link::LinkError;
use crate::net::message::Span;
use crate::net::token::{JobId, Token};
use crate::random::parse_hex;
use serde_json::{Value, json};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinSet;
use tracing::{error, info};

/// Kept between the last wait of a rank and the end of the invocation, so that there is time to say what was waited for.
const MARGIN: Duration = Duration::from_secs(2);

/// The most ranks in one pack: each is a thread, and a function has at most six processors.
pub const RANKS_PER_PACK_MAX: u32 = 256;

/// Serves one invocation: the whole life of a pack.
///
/// # Errors
/// When the event is none for this build, the pack cannot join, or a rank's program fails; the message is meant for the
/// person who started the job.
pub async fn run(event: Event, invocation: Invocation) -> Result<Value, Failure> {
    let invoked = Instant::now();
    let (options, program) = prepare(&event, &invocation)?;
    let (span, deadline) = (options.span, options.deadline);
    info!(
        "job {}: {span} of {} joins at {} to run {}",
        event.job,
        event.size,
        places(&options.switches),
        program.name
    );
    // Others are on their way while this one joins and works. Nothing of it outlives the invocation.
    let mut starting = JoinSet::new();
    starting.spawn(start_others(event.clone()));
    let pack = Pack::join(options)
        .await
        .map_err(|error| refused(span, &error))?;
    info!("job {}: {span} started", event.job);
    let begun = Instant::now();
    let around = Arc::new(Surroundings {
        job: event.job.clone(),
        arguments: event.arguments,
        store: event.store,
        deadline,
        aws: AwsSettings::default(),
        sdk: OnceCell::new(),
        requests: Arc::default(),
        begun: invoked,
        running: AtomicU32::new(span.ranks),
        runtime: Handle::current(),
        handed: Mutex::default(),
    });
    let failure = run_ranks(&pack, span, program, around).await;
    if let Some(failure) = &failure {
        error!("{failure}");
    }
    let left = pack.leave(failure.clone()).await;
    starting.shutdown().await;
    match (failure, left) {
        (Some(message), _) => Err(Failure {
            kind: "Lswitch.ProgramFailed",
            message,
        }),
        (None, Err(error)) => Err(Failure {
            kind: "Lswitch.ConnectionLost",
            message: format!("{span}: {error}"),
        }),
        (None, Ok(())) => {
            info!(
                "job {}: {span} done in {:.3} s",
                event.job,
                begun.elapsed().as_secs_f64()
            );
            Ok(json!({ "ranks": span.ranks, "seconds": begun.elapsed().as_secs_f64() }))
        }
    }
}

/// Starts the packs that the event names. The driver starts those that do not come.
async fn start_others(event: Event) {
    let others = event.others();
    let Some(start) = &event.start else {
        return;
    };
    info!("job {}: {} others are started", event.job, others.len());
    let shares = Share::all(&start.function);
    let launcher = match Launcher::within_lambda(&AwsSettings::default(), shares).await {
        Ok(launcher) => launcher,
        Err(problem) => {
            error!("job {}: {problem}", event.job);
            return;
        }
    };
    let launcher = launcher.among(start.among);
    let within = Duration::from_secs(event.join_within_s);
    let mut calls = JoinSet::new();
    for other in others {
        let launcher = launcher.clone();
        calls.spawn(async move { launcher.start(&other, within).await });
    }
    while let Some(call) = calls.join_next().await {
        if let Ok(Err(problem)) = call {
            error!("job {}: {problem}", event.job);
        }
    }
}

/// Checks what an event asks for before anything is connected.
fn prepare(event: &Event, invocation: &Invocation) -> Result<(JoinOptions, Program), Failure> {
    let bad = |message: String| Failure {
        kind: "Lswitch.Event",
        message,
    };
    let program = program::find(&event.program).ok_or_else(|| {
        let known: Vec<&str> = program::all().map(|program| program.name).collect();
        bad(format!(
            "this worker (lswitch {}) has no program {:?}; it has: {}",
            crate::RELEASE,
            event.program,
            known.join(", ")
        ))
    })?;
    if event.switches.is_empty() || event.switches.len() > SWITCHES_MAX {
        return Err(bad(format!(
            "the event names {} switches; a job has 1 to {SWITCHES_MAX}",
            event.switches.len()
        )));
    }
    if event.ranks == 0 || event.ranks > RANKS_PER_PACK_MAX {
        return Err(bad(format!(
            "a pack has 1 to {RANKS_PER_PACK_MAX} ranks, not {}",
            event.ranks
        )));
    }
    let switches = event.switches.iter().map(|address| address.parse());
    let switches: Vec<SwitchAddress> = switches
        .collect::<Result<_, AddressError>>()
        .map_err(|error| bad(format!("the event: {error}")))?;
    let job = JobId(
        parse_hex(&event.job)
            .ok_or_else(|| bad("the event's job is not 32 hexadecimal digits".into()))?,
    );
    let code = parse_hex(&event.token.code)
        .ok_or_else(|| bad("the event's token is not 64 hexadecimal digits".into()))?;
    let left = invocation
        .deadline
        .saturating_duration_since(Instant::now());
    let margin = MARGIN.min(left / 2);
    let options = JoinOptions {
        switches,
        job,
        token: Token {
            expiry_s: event.token.expiry_s,
            code,
        },
        span: Span {
            first_rank: event.first_rank,
            ranks: event.ranks,
        },
        size: event.size,
        incarnation: event.incarnation,
        epoch: event.epoch,
        join_within: Duration::from_secs(event.join_within_s),
        deadline: invocation.deadline - margin,
    };
    Ok((options, program))
}

fn refused(span: Span, error: &LinkError) -> Failure {
    let kind = match error {
        LinkError::Refused(_) => "Lswitch.Refused",
        LinkError::Unreachable { .. }
        | LinkError::NotASwitch(_)
        | LinkError::NotProved(_)
        | LinkError::OtherCertificate { .. }
        | LinkError::Plain(_)
        | LinkError::Handshake { .. } => "Lswitch.Unreachable",
        _ => "Lswitch.ConnectionLost",
    };
    Failure {
        kind,
        message: format!("{span}: {error}"),
    }
}

/// Runs every rank to its end; gives the first failure. When one rank fails, the others' waits end too.
async fn run_ranks(
    pack: &Pack,
    span: Span,
    program: Program,
    around: Arc<Surroundings>,
) -> Option<String> {
    let mut failure = None;
    let (ended, mut ends) = mpsc::channel(span.ranks as usize);
    for index in 0..span.ranks {
        let context = Context::new(pack.comm(index), around.clone());
        let ended = ended.clone();
        let name = format!("rank {}", span.first_rank + index);
        let spawned = thread::Builder::new().name(name.clone()).spawn(move || {
            let outcome = run_rank(program, context).err();
            // The channel has a place for each rank.
            let _ = ended.blocking_send(outcome.map(|error| format!("{name}: {error}")));
        });
        if let Err(error) = spawned {
            let what = format!("{span}: cannot start a thread for each rank: {error}");
            pack.fail(&what);
            failure = Some(what);
            break;
        }
    }
    drop(ended);
    // Every thread that was started is waited for: the environment will serve other jobs.
    while let Some(outcome) = ends.recv().await {
        if let (Some(what), None) = (outcome, &failure) {
            pack.fail(&what);
            failure = Some(what);
        }
    }
    failure
}

fn run_rank(program: Program, mut context: Context) -> Result<(), ProgramError> {
    let run = AssertUnwindSafe(|| {
        let result = (program.run)(&mut context)?;
        context.report_usage()?;
        context.report(&Report::Result(result))?;
        context.end();
        Ok(())
    });
    catch_unwind(run).unwrap_or_else(|panic| {
        let words = words_of(&*panic);
        Err(ProgramError::Other(format!(
            "the program panicked: {words}"
        )))
    })
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}
