//! One test crate, so that everything links once: one file a theme.

mod graph;
mod local_lambda;
mod store;
mod support;
