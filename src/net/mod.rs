//! The wire: frames, the switch, and the client through which a pack's ranks and the driver speak.
//!
//! [`frame`], [`checksum`], [`message`], [`reassembly`], [`flow`], [`queues`], [`collective`], [`state`] and [`switch`] are pure: bytes and events
//! in, values and frames out. [`server`] is the switch's thread around them, [`client`], [`wire`] and [`keeper`] are a pack's,
//! [`link`] and [`driver_link`] the tokio of joining and of the driver. [`tls`] is a connection's encryption, without its socket;
//! [`stream`], [`half`] and the server's line are the sockets that may have it. The bytes are specified in
//! `docs/PROTOCOL.md`. [`planted`] is for the tests of the tests. Nothing here knows a graph, a program or AWS.

pub mod address;
pub mod answers;
pub mod by_rank;
pub mod checksum;
pub mod client;
pub mod codec;
pub mod collective;
pub mod comm;
mod delivery;
pub mod driver_link;
pub mod egress;
pub mod element;
pub mod flow;
pub mod frame;
pub mod half;
pub mod job_link;
pub mod keeper;
pub mod link;
pub mod mailbox;
pub mod meeting;
pub mod message;
pub mod outgoing;
pub mod patience;
pub mod planted;
pub mod queues;
pub mod reassembly;
pub mod server;
pub mod shared;
pub mod socket;
pub mod state;
pub mod stream;
pub mod switch;
pub mod tls;
pub mod token;
pub mod wire;

/// Silence after which a peer counts as lost, in milliseconds. Five heartbeats.
pub const LOST_AFTER_MS: u64 = 10_000;

/// Time between two heartbeats of a pack, in milliseconds.
pub const HEARTBEAT_MS: u64 = 2_000;
