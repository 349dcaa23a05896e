//! Graphs, from a text file to the numbers of one PageRank step: pure code that knows no network and no clock.
//!
//! | step | file | result |
//! |---|---|---|
//! | read an edge list | [`snap`] (over [`lines`]) | [`EdgeList`] |
//! | number its vertices, index its in-edges | [`csr`] | [`Graph`] |
//! | split the vertices | [`mod@partition`] (METIS in [`metis`]) | [`Partition`] |
//! | write each piece | [`part`], listed by [`manifest`] | [`Part`], [`Manifest`] |
//! | join the pieces of one rank | [`shard`] | [`Shard`] |
//! | compute | [`pagerank`] (sums in [`fixed`], order in [`top`]) | ranks |
//!
//! [`generate`] makes synthetic edge lists. Objects, messages and progress bars are the callers' business.

pub mod csr;
pub mod error;
pub mod fixed;
pub mod generate;
pub mod lines;
pub mod manifest;
pub mod metis;
pub mod pagerank;
pub mod part;
pub mod partition;
pub mod shard;
pub mod snap;
pub mod top;

pub use csr::Graph;
pub use error::GraphError;
pub use manifest::{MANIFEST_KEY, Manifest, PartEntry};
pub use pagerank::{Dangling, PageRank, Settings, Step};
pub use part::{Part, build_parts};
pub use partition::{Partition, Partitioner, Quality, partition, quality};
pub use shard::{Shard, rank_parts};
pub use snap::{EdgeList, Notes, read_edge_list, read_graph};
