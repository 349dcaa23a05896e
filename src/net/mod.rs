//! The wire: frames, the switch, and the client through which a pack's ranks and the driver speak.
//!
//! [`frame`], [`message`], [`reassembly`] and [`switch`] are pure: bytes and events in, values and actions out.
//! [`server`], [`client`] and [`driver_link`] are the tokio around them. The bytes are specified in
//! `docs/PROTOCOL.md`. Nothing here knows a graph, a program or AWS.

pub mod client;
pub mod codec;
pub mod collective;
pub mod comm;
pub mod driver_link;
pub mod frame;
pub mod link;
pub mod mailbox;
pub mod meeting;
pub mod message;
pub mod outbox;
pub mod patience;
pub mod reassembly;
pub mod server;
pub mod switch;
pub mod token;

/// Silence after which a peer counts as lost, in milliseconds. Five heartbeats.
pub const LOST_AFTER_MS: u64 = 10_000;

/// Time between two heartbeats of a pack, in milliseconds.
pub const HEARTBEAT_MS: u64 = 2_000;
