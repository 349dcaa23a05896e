//! lswitch: the missing wire between serverless functions.
//!
//! Functions on AWS Lambda accept no connection, so they cannot talk to each other. They can connect *out*: a
//! *switch* that all of them reach forwards their messages and computes their collectives. This crate is the switch,
//! the client that functions use, the jobs that run on it, and a local Lambda on which all of it runs without an
//! account.
//!
//! # Programs of your own
//!
//! A crate that calls [`main`] with programs is an lswitch that has them too: as command, switch and worker.
//!
//! ```no_run
//! use lswitch::{Context, Program, ProgramError};
//!
//! fn hello(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
//!     let (rank, size) = (context.rank(), context.size());
//!     context.comm().send((rank + 1) % size, 0, format!("from {rank}").into())?;
//!     let message = context.comm().receive(None, 0)?;
//!     Ok(message.payload.to_vec())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     lswitch::main(&[Program { name: "hello", run: hello }])
//! }
//! ```
//!
//! `cargo run -- invoke run hello --workers 4` runs it on four workers of a local Lambda and prints what each has returned.
//!
//! # Functions on warm workers
//!
//! A [`Pool`] calls functions of a crate's own on workers that stay there between calls.
//!
//! ```no_run
//! use lswitch::{Function, Pool};
//!
//! fn divide((dividend, divisor): (u64, u64)) -> Result<u64, String> {
//!     dividend.checked_div(divisor).ok_or_else(|| "there is no quotient".into())
//! }
//!
//! const DIVIDE: Function<(u64, u64), u64> = Function::new("divide", divide);
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     lswitch::init(&[&DIVIDE]);
//!     let pool = Pool::builder().workers(4).start()?;
//!     println!("{}", pool.apply(&DIVIDE, (12, 3))?);
//!     for quotient in pool.map(&DIVIDE, (0..10).map(|number| (100, number))) {
//!         println!("{quotient:?}");
//!     }
//!     pool.join()?;
//!     Ok(())
//! }
//! ```
//!
//! # Layout
//!
//! | module | what lives there | what it does not know |
//! |---|---|---|
//! | [`cmd`] | arguments, printing, exit codes; one file a subcommand | how anything works |
//! | [`job`] | programs and the driver: what ranks do | sockets, Lambda's HTTP API |
//! | [`net`] | frames, switch, client, communicator | graphs, AWS |
//! | [`graph`] | parsing, partitioning, the part format, kernels: pure | network, tokio |
//! | [`lambda`] | where packs run: event, worker runtime, launching, the local Lambda | what a job computes |
//! | [`store`] | objects in a directory or S3 | what the objects mean |
//! | `entry` | where a process begins: as a worker or as the command line | what either does |
//! | [`process`] | supervised processes, temporary folders: what is left behind by none | everything else |
//! | [`aws`] | how AWS's settings are found and its SDK's errors are told | everything else |
//! | [`random`] | random bytes, and bytes as hexadecimal | everything else |
//! | [`unpack`] | streams that may be packed with gzip or zstd | everything else |
//!
//! Imports go down only: `main -> entry -> cmd -> job -> { net, graph, lambda, store } -> process`.
//!
//! # A bootstrap of your own
//!
//! Built with `default-features = false` a program has no commands, and is a worker alone: what a function needs, in 10 MB. It finds
//! AWS's settings in variables, as Lambda sets them, and nowhere else; so a [`Pool`] for functions on AWS is for the other build.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod aws;
#[cfg(feature = "cli")]
pub mod cmd;
mod entry;
pub mod graph;
pub mod job;
pub mod lambda;
pub mod net;
mod private;
pub mod process;
pub mod random;
pub mod store;
pub mod unpack;

pub use entry::{Lswitch, init, main};
pub use job::context::Context;
pub use job::function::{AnyFunction, Function};
pub use job::pool::{CallError, Outputs, Pending, Pool, PoolBuilder, PoolError};
pub use job::program::{Program, ProgramError};

/// The release of this build. A worker of another release is refused by the switch, since jobs' messages and parts may differ.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
