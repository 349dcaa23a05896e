//! Where packs run: the invocation event, the worker runtime, launching, and the local Lambda.

pub mod local;
