//! Two reference relays, the least a switch can do, and the client for both.
//!
//! A frame is a u32 destination, a u32 length (both little-endian) and the payload. The first frame of a connection
//! tells its own number and comes back when messages for it are delivered. The relays are child processes of this very
//! binary: `lswitch-bench relay tokio|threads --port N`.

mod client;
mod threads;
mod tokio_tasks;

use crate::child::{self, Server};
use crate::peer::Peer;
use anyhow::Result;
use client::{RelayReceiver, RelaySender};
use std::net::TcpListener;

const HEADER: usize = 8;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Relay {
    /// A task a connection, whole frames, small ones written together.
    Tokio,
    /// A thread a connection, forwarding as bytes arrive.
    Threads,
}

impl Relay {
    /// Serves until killed.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn serve(self, port: u16) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        match self {
            Relay::Tokio => tokio_tasks::serve(listener),
            Relay::Threads => threads::serve(&listener),
        }
    }
}

impl Peer for Relay {
    type Sender = RelaySender;
    type Receiver = RelayReceiver;

    async fn start(&self) -> Result<Server> {
        let name = match self {
            Relay::Tokio => "tokio",
            Relay::Threads => "threads",
        };
        let program = std::env::current_exe()?;
        Server::start(|port| {
            let mut command = child::command(&program);
            command.args(["relay", name, "--port", &port.to_string()]);
            command
        })
        .await
    }

    async fn connect(
        &self,
        server: &Server,
        number: u32,
        size: usize,
    ) -> Result<(RelaySender, RelayReceiver)> {
        client::connect(server.address, number, size).await
    }
}

fn header(destination: u32, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&destination.to_le_bytes());
    header[4..].copy_from_slice(&(length as u32).to_le_bytes());
    header
}

/// Destination and length of the payload, when the header is there.
fn parse(bytes: &[u8]) -> Option<(u32, usize)> {
    let (destination, rest) = bytes.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    Some((
        u32::from_le_bytes(*destination),
        u32::from_le_bytes(*length) as usize,
    ))
}
