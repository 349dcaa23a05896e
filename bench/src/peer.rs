//! A system between clients, as the benchmark drives it: nats, redis and the reference relays.

use crate::child::Server;
use crate::traffic::{self, Latency, Receiver, Sender, Traffic, Window};
use anyhow::{Context, Result};
use std::time::Duration;

/// Time for all clients to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A rival or reference: a server of its own for each measurement, and the best client there is for it.
pub trait Peer: Sync {
    type Sender: Sender;
    type Receiver: Receiver;

    /// Starts the server.
    fn start(&self) -> impl Future<Output = Result<Server>>;

    /// Connects client `number` for messages of `size` bytes; messages for it arrive from now on.
    fn connect(
        &self,
        server: &Server,
        number: u32,
        size: usize,
    ) -> impl Future<Output = Result<(Self::Sender, Self::Receiver)>>;
}

/// # Errors
/// When the server does not start, a client fails, or the traffic stalls.
pub async fn all_to_all(
    peer: &impl Peer,
    clients: usize,
    size: usize,
    window: Window,
) -> Result<Traffic> {
    let server = peer.start().await?;
    let clients = connect(peer, &server, clients, size).await?;
    traffic::all_to_all(&server, clients, size, window).await
}

/// # Errors
/// When the server does not start, a client fails, or the traffic stalls.
pub async fn ping_pong(peer: &impl Peer, size: usize, window: Window) -> Result<Latency> {
    let server = peer.start().await?;
    let clients = connect(peer, &server, 2, size).await?;
    traffic::ping_pong(clients, size, window).await
}

async fn connect<P: Peer>(
    peer: &P,
    server: &Server,
    number: usize,
    size: usize,
) -> Result<Vec<(P::Sender, P::Receiver)>> {
    let all = async {
        let mut clients = Vec::new();
        for me in 0..number as u32 {
            clients.push(peer.connect(server, me, size).await?);
        }
        Ok(clients)
    };
    tokio::time::timeout(CONNECT_WITHIN, all)
        .await
        .with_context(|| format!("{number} clients are not connected after {CONNECT_WITHIN:?}"))?
}
