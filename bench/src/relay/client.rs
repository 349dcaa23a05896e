//! The client of both relays: the small messages of a round in one write, large reads, every message whole in memory.

use super::{HEADER, header, parse};
use crate::traffic::{Receiver, Sender};
use anyhow::{Result, ensure};
use bytes::{Buf, Bytes};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Messages below this are copied together.
const SMALL: usize = 16 << 10;
const READ: usize = 256 << 10;

pub async fn connect(
    address: SocketAddr,
    number: u32,
    size: usize,
) -> Result<(RelaySender, RelayReceiver)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&header(number, 0)).await?;
    let mut echo = [0; HEADER];
    stream.read_exact(&mut echo).await?;
    ensure!(
        echo == header(number, 0),
        "the relay answered with another number"
    );
    let (reader, writer) = stream.into_split();
    // A large frame is read alone, up to its last byte: nothing has to move afterwards.
    let frame = HEADER + size;
    let buffer = vec![0; if size < SMALL { READ } else { frame }];
    let receiver = RelayReceiver {
        reader,
        buffer,
        end: 0,
        size,
    };
    Ok((
        RelaySender {
            writer,
            small: Vec::new(),
        },
        receiver,
    ))
}

pub struct RelaySender {
    writer: OwnedWriteHalf,
    small: Vec<u8>,
}

impl Sender for RelaySender {
    async fn send(&mut self, to: &[u32], payload: &Bytes) -> Result<()> {
        for &number in to {
            let header = header(number, payload.len());
            if payload.len() < SMALL {
                self.small.extend_from_slice(&header);
                self.small.extend_from_slice(payload);
            } else {
                self.writer
                    .write_all_buf(&mut Buf::chain(&header[..], &payload[..]))
                    .await?;
            }
        }
        self.writer.write_all(&self.small).await?;
        self.small.clear();
        Ok(())
    }
}

pub struct RelayReceiver {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
    end: usize,
    size: usize,
}

impl Receiver for RelayReceiver {
    async fn receive(&mut self) -> Result<u64> {
        let frame = HEADER + self.size;
        while self.end < frame {
            let read = self.reader.read(&mut self.buffer[self.end..]).await?;
            ensure!(read > 0, "the relay closed the connection");
            self.end += read;
        }
        let mut messages = 0;
        let mut start = 0;
        while self.end - start >= frame {
            let (_, length) = parse(&self.buffer[start..]).expect("a whole frame is there");
            ensure!(
                length == self.size,
                "relay: {length} bytes arrived, not {}",
                self.size
            );
            start += frame;
            messages += 1;
        }
        self.buffer.copy_within(start..self.end, 0);
        self.end -= start;
        Ok(messages)
    }
}
