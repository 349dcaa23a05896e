//! nats-server with async-nats: one connection and one subject a client.
//!
//! The connection's own task writes when its queue of commands is empty, so a flush a round would only wait: it cost up
//! to a tenth of the rate. A lone message is flushed.

use crate::child::{self, Server};
use crate::peer::Peer;
use crate::traffic::{Receiver, Sender};
use anyhow::{Context, Result, ensure};
use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;

/// Messages up to 8 MB (1 MB is the default) and a queue a client that holds a round of the largest.
const CONFIGURATION: &str = "max_payload: 8MB\nmax_pending: 256MB\n";
/// Messages the client takes in one go.
const CHUNK: usize = 1024;

pub struct Nats {
    configuration: tempfile::NamedTempFile,
}

impl Nats {
    /// # Errors
    /// When the file of settings cannot be written.
    pub fn new() -> Result<Nats> {
        let configuration = tempfile::NamedTempFile::new()?;
        std::fs::write(configuration.path(), CONFIGURATION)?;
        Ok(Nats { configuration })
    }
}

impl Peer for Nats {
    type Sender = NatsSender;
    type Receiver = NatsReceiver;

    async fn start(&self) -> Result<Server> {
        Server::start(|port| {
            let mut command = child::command("nats-server");
            command.args([
                "--addr",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--config",
            ]);
            command.arg(self.configuration.path());
            command
        })
        .await
    }

    async fn connect(
        &self,
        server: &Server,
        number: u32,
        size: usize,
    ) -> Result<(NatsSender, NatsReceiver)> {
        let client = async_nats::ConnectOptions::new()
            .skip_subject_validation(true)
            .read_buffer_capacity(u16::MAX)
            // The server ends with the measurement: nobody has to look for it in the next one.
            .max_reconnects(1)
            .connect(server.address.to_string())
            .await?;
        let mut messages = client.subscribe(subject(number)).await?;
        // Its own message comes back only when the server knows the subscription.
        client.publish(subject(number), Bytes::new()).await?;
        client.flush().await?;
        messages
            .next()
            .await
            .context("nats-server closed the connection")?;
        let messages = messages.ready_chunks(CHUNK);
        Ok((
            NatsSender {
                client,
                subjects: Vec::new(),
            },
            NatsReceiver { messages, size },
        ))
    }
}

pub struct NatsSender {
    client: Client,
    subjects: Vec<Subject>,
}

impl Sender for NatsSender {
    async fn send(&mut self, to: &[u32], payload: &Bytes) -> Result<()> {
        for &number in to {
            while self.subjects.len() <= number as usize {
                self.subjects.push(subject(self.subjects.len() as u32));
            }
            let subject = self.subjects[number as usize].clone();
            self.client.publish(subject, payload.clone()).await?;
        }
        // A lone message is waited for at the other end; measured, this takes a tenth off the round trip of 64 B.
        if to.len() == 1 {
            self.client.flush().await?;
        }
        Ok(())
    }
}

pub struct NatsReceiver {
    messages: ReadyChunks<Subscriber>,
    size: usize,
}

impl Receiver for NatsReceiver {
    async fn receive(&mut self) -> Result<u64> {
        let chunk = self
            .messages
            .next()
            .await
            .context("nats-server closed the connection")?;
        for message in &chunk {
            let length = message.payload.len();
            ensure!(
                length == self.size,
                "nats: {length} bytes arrived, not {}",
                self.size
            );
        }
        Ok(chunk.len() as u64)
    }
}

fn subject(number: u32) -> Subject {
    format!("c{number}").into()
}
