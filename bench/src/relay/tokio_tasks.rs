//! The relay of tasks: a whole frame is read, then queued to a writer task that writes small frames together.

use super::{HEADER, parse};
use anyhow::Result;
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, RwLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const READ: usize = 64 << 10;
/// Bytes queued for a destination; beyond, its senders wait.
const ROOM: usize = 2 << 20;
/// Frames below this are copied together.
const SMALL: usize = 16 << 10;

struct Route {
    queue: UnboundedSender<Bytes>,
    room: Semaphore,
}

type Routes = Arc<RwLock<HashMap<u32, Arc<Route>>>>;

#[tokio::main]
pub async fn serve(listener: std::net::TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let routes = Routes::default();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(read(stream, routes.clone()));
    }
}

async fn read(stream: TcpStream, routes: Routes) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, writer) = stream.into_split();
    let mut buffer = BytesMut::new();
    let (me, own) = frame(&mut reader, &mut buffer).await?;
    let (queue, frames) = unbounded_channel();
    let _ = queue.send(own);
    let route = Arc::new(Route {
        queue,
        room: Semaphore::new(ROOM),
    });
    routes
        .write()
        .expect("no holder panics")
        .insert(me, route.clone());
    tokio::spawn(write(writer, frames, route));
    let mut known: HashMap<u32, Arc<Route>> = HashMap::new();
    loop {
        let (to, frame) = frame(&mut reader, &mut buffer).await?;
        let route = match known.entry(to) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let route = routes.read().expect("no holder panics").get(&to).cloned();
                new.insert(route.ok_or(io::ErrorKind::NotFound)?)
            }
        };
        let bytes = frame.len().min(ROOM) as u32;
        let room = route.room.acquire_many(bytes).await;
        room.expect("never closed").forget();
        let _ = route.queue.send(frame);
    }
}

async fn frame(reader: &mut OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<(u32, Bytes)> {
    loop {
        let missing = match parse(buffer) {
            Some((to, length)) if buffer.len() >= HEADER + length => {
                return Ok((to, buffer.split_to(HEADER + length).freeze()));
            }
            Some((_, length)) => HEADER + length - buffer.len(),
            None => HEADER - buffer.len(),
        };
        if buffer.capacity() - buffer.len() < missing {
            buffer.reserve(missing.max(READ));
        }
        if reader.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut frames: UnboundedReceiver<Bytes>,
    route: Arc<Route>,
) -> io::Result<()> {
    let (mut batch, mut small) = (Vec::new(), Vec::new());
    while frames.recv_many(&mut batch, 1024).await > 0 {
        let bytes = batch.iter().map(|frame| frame.len().min(ROOM)).sum();
        for frame in batch.drain(..) {
            if frame.len() < SMALL {
                small.extend_from_slice(&frame);
            } else {
                writer.write_all(&small).await?;
                small.clear();
                writer.write_all(&frame).await?;
            }
        }
        writer.write_all(&small).await?;
        small.clear();
        route.room.add_permits(bytes);
    }
    Ok(())
}
