//! Where packs run: the invocation event, the worker's runtime, launching, functions on AWS, and the local Lambda.
//!
//! Nothing here knows what a job computes. The same launcher and the same runtime serve AWS and the local Lambda.

pub mod cost;
pub mod event;
#[cfg(feature = "cli")]
pub mod function;
pub mod launch;
pub mod limits;
pub mod local;
pub mod meter;
pub mod pace;
pub mod runtime;
