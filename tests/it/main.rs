//! One test crate, so that everything links once: one file a theme.

mod graph;
mod local_lambda;
mod readme;
mod store;
mod support;
