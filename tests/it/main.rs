//! One test crate, so that everything links once: one file a theme.

mod cli;
mod faults;
mod graph;
mod local_lambda;
mod net;
mod pagerank;
mod preprocess;
mod readme;
mod s3;
mod store;
mod support;
mod switch;
mod wire;
