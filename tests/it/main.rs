//! One test crate, so that everything links once: one file a theme.

mod bench;
mod cli;
mod collectives;
mod exchange;
mod fabric;
mod faults;
mod fuzz;
mod graph;
mod local_lambda;
mod many;
mod memory;
mod net;
mod pagerank;
mod passing;
mod preprocess;
mod random;
mod readme;
mod s3;
mod schedules;
mod state;
mod store;
mod support;
mod switch;
mod switches;
mod vertex;
mod wire;
