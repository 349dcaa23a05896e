//! Ranks in this process, for measurements without workers: packs over loopback or to a switch elsewhere.
//!
//! Packs of one rank are tasks for the patterns that have messages, so that what is measured is the switch and not the
//! scheduling of threads; everything else is a thread a rank, as in a worker.

use super::{Figures, Latency, Pattern, ROUND, Spec, Times, Window, measure, payload};
use crate::job::driver::SwitchAccess;
use crate::net::client::{JoinOptions, Pack};
use crate::net::comm::{CommError, TaskComm};
use crate::net::driver_link::{Membership, News};
use crate::net::job_link::JobLink;
use crate::net::link::LinkError;
use crate::net::message::{Notice, Span, Traffic};
use crate::net::token::{Bearer, JobId};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long the switch and all ranks get to come together.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// Beyond its window, a measurement that takes this much longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a measurement failed.
#[derive(Debug, Error)]
pub enum CrewError {
    /// A connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A rank.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A thread or a socket.
    #[error("cannot start a rank: {0}")]
    Io(#[from] std::io::Error),
}

/// What passed through the switches, as they say themselves, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Passed {
    /// When they said so.
    pub at: Instant,
    /// What.
    pub traffic: Traffic,
}

/// Runs `ranks` ranks here, `ranks_per_pack` of which share a connection, and measures. Also gives what the switch said
/// meanwhile.
///
/// # Errors
/// When a connection or a rank fails.
pub async fn run(
    access: &SwitchAccess,
    ranks: u32,
    ranks_per_pack: u32,
    spec: Spec,
) -> Result<(Figures, Vec<Passed>), CrewError> {
    let job = JobId::random();
    let key = access.secret.job_key(job);
    let expiry_s = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
        + 3600;
    let token = key.token(Bearer::Driver, expiry_s);
    let begun = Instant::now();
    let link = JobLink::create(
        &access.addresses,
        job,
        token,
        Membership::Fixed(ranks),
        JOIN_WITHIN,
    )
    .await?;
    let (stop, stopped) = oneshot::channel();
    let listening = tokio::spawn(listen(link, stopped));
    let deadline =
        begun + JOIN_WITHIN + PATIENCE + Duration::from_secs_f64(spec.warm_up_s + spec.seconds);
    let mut joining = JoinSet::new();
    for first_rank in (0..ranks).step_by(ranks_per_pack as usize) {
        let span = Span {
            first_rank,
            ranks: ranks_per_pack.min(ranks - first_rank),
        };
        let bearer = Bearer::Pack {
            first_rank,
            ranks: span.ranks,
            incarnation: 1,
        };
        joining.spawn(Pack::join(JoinOptions {
            switches: access.addresses.clone(),
            job,
            token: key.token(bearer, expiry_s),
            span,
            size: ranks,
            incarnation: 1,
            epoch: 0,
            join_within: JOIN_WITHIN,
            deadline,
        }));
    }
    let mut packs = Vec::new();
    while let Some(joined) = joining.join_next().await {
        packs.push(joined.expect("joining does not panic")?);
    }
    let mut figures = match spec.pattern {
        Pattern::AllToAll if ranks_per_pack == 1 => tasks(&packs, spec).await?,
        _ => threads(&packs, spec).await?,
    };
    if spec.pattern == Pattern::Launch {
        let joined_us = begun.elapsed().as_secs_f64() * 1e6;
        figures.latency = Latency::of(vec![joined_us]);
    }
    for pack in packs {
        pack.leave(None).await?;
    }
    let _ = stop.send(());
    let said = listening.await.expect("listening does not panic");
    Ok((figures, said))
}

/// Hears what the switch says of its traffic, until it is told to stop.
async fn listen(mut link: JobLink, mut stopped: oneshot::Receiver<()>) -> Vec<Passed> {
    let mut said = Vec::new();
    let mut note = |traffic| {
        let at = Instant::now();
        said.push(Passed { at, traffic });
    };
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            news = link.next() => match news {
                Ok(News::Notice(Notice::Traffic(traffic))) => note(traffic),
                Ok(_) => {}
                // The ranks' own connections tell why.
                Err(_) => return said,
            },
        }
    }
    note(link.leave().await);
    said
}

async fn threads(packs: &[Pack], spec: Spec) -> Result<Figures, CrewError> {
    let mut ends = Vec::new();
    for pack in packs {
        for index in 0..pack.span().ranks {
            let mut comm = pack.comm(index);
            let (tell, told) = oneshot::channel();
            thread::Builder::new()
                .name(format!("rank {}", comm.rank()))
                .spawn(move || {
                    let outcome = measure(&mut comm, spec);
                    // Nobody listens any more when another rank has failed.
                    let _ = tell.send((comm.rank(), outcome));
                })?;
            ends.push(told);
        }
    }
    let mut figures = Figures::default();
    for end in ends {
        let (rank, outcome) = end
            .await
            .map_err(|_| std::io::Error::other("a rank's thread ended without a word"))?;
        let outcome = outcome?;
        if rank == 0 {
            figures = outcome;
        }
    }
    Ok(figures)
}

async fn tasks(packs: &[Pack], spec: Spec) -> Result<Figures, CrewError> {
    let mut ranks = JoinSet::new();
    for pack in packs {
        let comm = pack.task_comm()?;
        ranks.spawn(async move {
            let rank = comm.rank();
            let window = Window::of(spec);
            let outcome = match spec.pattern {
                Pattern::Pair => pair(comm, spec.size, window).await,
                _ => all_to_all(comm, spec.size, window).await,
            };
            outcome.map(|figures| (rank, figures))
        });
    }
    let mut figures = Figures::default();
    while let Some(ended) = ranks.join_next().await {
        let (rank, outcome) = ended.expect("a rank does not panic")?;
        if rank == 0 {
            figures = outcome;
        }
    }
    Ok(figures)
}

async fn pair(mut comm: TaskComm, size: usize, window: Window) -> Result<Figures, CommError> {
    let far = comm.size() - 1;
    let mut times = Times::new(window);
    let (go, stop) = (payload(size, 0), payload(size, 1));
    if comm.rank() == far {
        loop {
            let message = comm.receive(Some(0), ROUND).await?;
            let last = message.payload[0] == 1;
            comm.send(0, ROUND, message.payload).await?;
            if last {
                comm.flush().await?;
                return Ok(times.figures(0));
            }
        }
    }
    while comm.rank() == 0 {
        let last = times.is_over();
        let began = Instant::now();
        comm.send(far, ROUND, if last { stop.clone() } else { go.clone() })
            .await?;
        comm.receive(Some(far), ROUND).await?;
        if last {
            break;
        }
        times.round(began);
    }
    Ok(times.figures(2))
}

async fn all_to_all(mut comm: TaskComm, size: usize, window: Window) -> Result<Figures, CommError> {
    let (ranks, rank) = (comm.size(), comm.rank());
    let mut times = Times::new(window);
    let (go, stop) = (payload(size, 0), payload(size, 1));
    let mut round = 0;
    loop {
        let began = Instant::now();
        let mut last = rank == 0 && times.is_over();
        for step in 1..ranks {
            let payload = if last { stop.clone() } else { go.clone() };
            comm.send((rank + step) % ranks, ROUND + round % 2, payload)
                .await?;
        }
        for _ in 1..ranks {
            let message = comm.receive(None, ROUND + round % 2).await?;
            last |= message.source == 0 && message.payload[0] == 1;
        }
        if last {
            comm.flush().await?;
            return Ok(times.figures(u64::from(ranks) * u64::from(ranks - 1)));
        }
        times.round(began);
        round = round.wrapping_add(1);
    }
}
