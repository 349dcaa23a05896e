//! lswitch under measurement: the only file here that knows it.
//!
//! Not written yet: each function answers [`NotBuilt`], which the report turns into rows that say so. A function that
//! is filled in begins to count by itself; nothing else has to change.
//!
//! [`start`] is called for each measurement anew, so that peak memory is that measurement's. The clients run in this
//! process, on its runtime of two worker threads, as those of the rivals do; where a measurement wants processes
//! (all-reduce, barrier), start `lswitch-bench worker ARGUMENTS...` ([`crate::child::command`] of
//! `std::env::current_exe()`), which calls [`worker`].

use crate::child::Server;
use crate::traffic::{Latency, Traffic, Window};
use anyhow::Result;

/// What a function that is not written yet answers.
#[derive(Debug)]
pub struct NotBuilt;

impl std::fmt::Display for NotBuilt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("not built")
    }
}

impl std::error::Error for NotBuilt {}

/// Starts a switch as a child process: `Server::start(|port| ...)` gives its address, its pid's usage and its end.
pub async fn start() -> Result<Server> {
    Err(NotBuilt.into())
}

/// Each of `ranks` sends one message of `size` bytes to each rank of another pack and waits for as many, repeatedly.
/// With one rank a pack that is every other rank; with more, what stays inside a pack is not sent and not counted:
/// [`Traffic`] has what crossed the switch. Lengths of what arrives are checked.
///
/// [`crate::traffic::all_to_all`] does it for ranks that implement `Sender` and `Receiver`; with packs, count received
/// messages in one counter a rank and let [`crate::traffic::watch`] take the window and the switch's usage.
pub async fn all_to_all(
    _switch: &Server,
    _ranks: usize,
    _ranks_per_pack: usize,
    _size: usize,
    _window: Window,
) -> Result<Traffic> {
    Err(NotBuilt.into())
}

/// Round trips of `size` bytes between two ranks in two packs; [`crate::traffic::ping_pong`] does the rest.
pub async fn ping_pong(_switch: &Server, _size: usize, _window: Window) -> Result<Latency> {
    Err(NotBuilt.into())
}

/// The time of `calls` all-reduces (sum) of `bytes` bytes of f64 over `processes` processes of one rank, as rank 0 sees
/// it: after some calls to warm up, and after a barrier each, as in `mpi/allreduce.c`.
pub async fn all_reduce(
    _switch: &Server,
    _processes: usize,
    _bytes: usize,
    _calls: usize,
) -> Result<Latency> {
    Err(NotBuilt.into())
}

/// The time of a barrier of `processes` packs of `ranks_per_process` ranks, one thread a rank, as one rank sees it;
/// back to back, as in `barrier/barrier.c`.
pub async fn barrier(
    _switch: &Server,
    _processes: usize,
    _ranks_per_process: usize,
    _window: Window,
) -> Result<Latency> {
    Err(NotBuilt.into())
}

/// Resident memory in KiB that each of `number` idle connections adds to the switch: VmHWM (`Server::usage`) after they
/// are there, less VmHWM before, over `number`. The limit of open files has to be raised on both sides.
pub async fn idle_connections(_switch: &Server, _number: usize) -> Result<f64> {
    Err(NotBuilt.into())
}

/// What a worker process does; it ends by itself.
pub fn worker(_arguments: &[String]) -> Result<()> {
    Err(NotBuilt.into())
}
