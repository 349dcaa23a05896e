//! redis-server's publish and subscribe with the redis crate: one connection a client and direction, since a subscriber
//! has a connection to itself, and all messages of a round in one pipeline, the best case for redis.

use crate::child::{self, Server};
use crate::peer::Peer;
use crate::traffic::{Receiver, Sender};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::ReadyChunks;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, IntoConnectionInfo, Pipeline};

/// Messages the client takes in one go.
const CHUNK: usize = 1024;

pub struct Redis;

impl Peer for Redis {
    type Sender = RedisSender;
    type Receiver = RedisReceiver;

    async fn start(&self) -> Result<Server> {
        Server::start(|port| {
            let mut command = child::command("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
            // Without it redis drops subscribers that are a round of 1 MiB messages behind.
            command.args(["--client-output-buffer-limit", "pubsub 0 0 0"]);
            command
        })
        .await
    }

    async fn connect(
        &self,
        server: &Server,
        number: u32,
        size: usize,
    ) -> Result<(RedisSender, RedisReceiver)> {
        let address = format!("redis://{}/", server.address).into_connection_info()?;
        let settings = address.tcp_settings().clone().set_nodelay(true);
        let client = redis::Client::open(address.set_tcp_settings(settings))?;
        // A pipeline of large messages takes longer than the half second that is the default; the round is bounded.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        let publish = client
            .get_multiplexed_async_connection_with_config(&patient)
            .await?;
        let (mut sink, messages) = client.get_async_pubsub().await?.split();
        sink.subscribe(channel(number)).await?;
        let sender = RedisSender {
            publish,
            pipeline: Pipeline::new(),
        };
        let messages = messages.ready_chunks(CHUNK);
        Ok((
            sender,
            RedisReceiver {
                messages,
                _sink: sink,
                size,
            },
        ))
    }
}

pub struct RedisSender {
    publish: MultiplexedConnection,
    pipeline: Pipeline,
}

impl Sender for RedisSender {
    async fn send(&mut self, to: &[u32], payload: &Bytes) -> Result<()> {
        self.pipeline.clear();
        for &number in to {
            self.pipeline
                .cmd("PUBLISH")
                .arg(channel(number))
                .arg(&payload[..])
                .ignore();
        }
        self.pipeline.query_async::<()>(&mut self.publish).await?;
        Ok(())
    }
}

pub struct RedisReceiver {
    messages: ReadyChunks<PubSubStream>,
    _sink: PubSubSink,
    size: usize,
}

impl Receiver for RedisReceiver {
    async fn receive(&mut self) -> Result<u64> {
        let chunk = self
            .messages
            .next()
            .await
            .context("redis-server closed the connection")?;
        for message in &chunk {
            let length = message.get_payload_bytes().len();
            ensure!(
                length == self.size,
                "redis: {length} bytes arrived, not {}",
                self.size
            );
        }
        Ok(chunk.len() as u64)
    }
}

fn channel(number: u32) -> String {
    format!("c{number}")
}
