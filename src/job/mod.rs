//! Jobs: the driver that runs one, the pack that runs its ranks, and the programs.
//!
//! This is where [`crate::net`], [`crate::graph`], [`crate::lambda`] and [`crate::store`] meet. Programs see a
//! [`context::Context`] and nothing of sockets or Lambda's HTTP.

pub mod bench;
pub mod command;
pub mod context;
pub mod driver;
pub mod farm;
pub mod fleet;
pub mod function;
pub mod graph_store;
pub mod items;
pub mod map;
pub mod output;
pub mod pack;
pub mod pagerank;
pub mod pool;
pub mod preprocess;
pub mod probe;
pub mod program;
pub mod reduce;
pub mod report;
pub mod settings;
pub mod sort;
pub mod start;
pub mod vertex;
pub mod wordcount;
pub mod worker;
