//! Graphs, from a text file to the numbers of one PageRank step: pure code that knows no network and no clock.
//!
//! | step | file | result |
//! |---|---|---|
//! | read a text on all threads | [`read`] over [`text`]: [`snap`], [`matrix_market`], [`metis_text`], [`dimacs`]; as [`reading`] says | [`edges`] |
//! | find out what its lines are | [`opening`] over [`preamble`] ([`konect`], [`header`], [`columns`]) and [`ldbc`]; checked by [`claims`] | [`snap::Rows`] |
//! | number its vertices, index its in-edges | [`csr`] over [`by_target`], [`numbering`], [`rows`] | [`Graph`] |
//! | split the vertices | [`mod@partition`] ([`metis`], [`fennel`]), picked by [`choice`], or [`mod@import`] | [`Split`] |
//! | write each piece | [`builder`] as [`part`] says (over [`mod@array`]), listed by [`manifest`] | [`Part`], [`Manifest`] |
//! | join the pieces of one rank or pack | [`shard`] | [`Shard`] |
//! | compute | [`pagerank`] (sums in [`fixed`], order in [`top`]) | ranks |
//! | compute something else | [`programs`] on [`vertex`], [`lcc`]; both over [`reads`] | values |
//!
//! [`generate`] makes synthetic edge lists. Objects, messages and progress bars are the callers' business.

pub mod array;
pub mod builder;
pub mod by_target;
pub mod choice;
pub mod claims;
pub mod columns;
pub mod csr;
pub mod dimacs;
pub mod edges;
pub mod error;
pub mod fennel;
pub mod fixed;
pub mod generate;
pub mod header;
pub mod import;
pub mod konect;
pub mod lcc;
pub mod ldbc;
pub mod manifest;
pub mod matrix_market;
pub mod metis;
pub mod metis_text;
pub mod numbering;
pub mod opening;
pub mod pagerank;
pub mod part;
pub mod partition;
pub mod preamble;
pub mod programs;
pub mod read;
pub mod reading;
pub mod reads;
pub mod restart;
pub mod rows;
pub mod shard;
pub mod snap;
pub mod text;
pub mod top;
pub mod vertex;

pub use builder::{PartBuilder, build_parts};
pub use choice::{Chosen, Split, choose};
pub use columns::{ColumnChoice, ColumnRequest, Delimiter};
pub use csr::Graph;
pub use error::GraphError;
pub use import::import;
pub use manifest::{MANIFEST_KEY, Manifest, PartEntry};
pub use pagerank::{Dangling, PageRank, Precision, Settings, Step};
pub use part::Part;
pub use partition::{Balance, Partition, Partitioner, Quality, partition, quality};
pub use read::read_graph;
pub use reading::{Form, Notes, Reading};
pub use reads::{Reads, mirrors};
pub use restart::Restart;
pub use shard::{Shard, rank_parts};
