//! The tokio shell around [`Switch`]: accepts, reads, writes, keeps the time. Decides nothing.
//!
//! The caller owns the listener and the stop signal, so that `serve`, `invoke` and tests run the same code.

use crate::net::LOST_AFTER_MS;
use crate::net::frame::{Frame, PREAMBLE};
use crate::net::link::{FrameReader, LinkError, write_outbox};
use crate::net::message::{Control, Refusal, Refused};
use crate::net::outbox::Outbox;
use crate::net::switch::{Action, ConnectionId, Now, Switch};
use crate::net::token::Secret;
use bytes::BytesMut;
use std::collections::HashMap;
use std::future::Future;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// The most connections at once. Below the descriptor limit of common systems, so that a full switch still answers.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Time that connections get to send what is queued when the switch goes down.
const DRAIN: Duration = Duration::from_secs(2);

struct Shared {
    state: Mutex<State>,
    started: Instant,
    next_id: AtomicU64,
}

struct State {
    switch: Switch,
    outboxes: HashMap<ConnectionId, Arc<Outbox>>,
}

/// Runs a switch on `listener` until `shutdown` completes; then every job is ended with the reason, and connections are
/// drained for a short time.
pub async fn run(listener: TcpListener, secret: Secret, shutdown: impl Future<Output = ()>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            switch: Switch::new(secret),
            outboxes: HashMap::new(),
        }),
        started: Instant::now(),
        next_id: AtomicU64::new(1),
    });
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut pause = Duration::from_millis(5);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            _ = &mut shutdown => break,
            _ = ticks.tick() => shared.with(|switch, now, actions| switch.tick(now, actions)),
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if connections.len() >= CONNECTIONS_MAX => {
                    warn!(%peer, "refused: this switch has {CONNECTIONS_MAX} connections, which is its most");
                    turn_away(stream);
                }
                Ok((stream, peer)) => {
                    pause = Duration::from_millis(5);
                    let shared = shared.clone();
                    connections.spawn(async move {
                        let why = shared.serve(stream).await;
                        debug!(%peer, %why, "connection ended");
                    });
                }
                // Out of descriptors, or the peer gave up: neither may stop the switch, nor make it spin.
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            },
        }
    }
    shared.with(|switch, _, actions| switch.close("the switch is going down", actions));
    let drained = tokio::time::timeout(DRAIN, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        info!(
            "{} connections did not drain in {} s",
            connections.len(),
            DRAIN.as_secs()
        );
    }
}

/// Refuses a connection that there is no place for. A new socket takes so few bytes without waiting.
fn turn_away(stream: TcpStream) {
    let reason = format!(
        "this switch has {CONNECTIONS_MAX} connections, which is its most; try again later"
    );
    let refused = Refused {
        code: Refusal::Full,
        reason,
    };
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    refused.to_frame(true).put(&mut bytes);
    // A peer that is gone already misses nothing.
    let _ = stream
        .into_std()
        .and_then(|mut stream| stream.write_all(&bytes));
}

impl Shared {
    fn now(&self) -> Now {
        let unix_s = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        Now {
            ms: self.started.elapsed().as_millis() as u64,
            unix_s,
        }
    }

    /// Lets the switch decide, and queues what it wants sent.
    fn with(&self, decide: impl FnOnce(&mut Switch, Now, &mut Vec<Action>)) {
        self.with_destinations(decide, |_| {});
    }

    fn with_destinations(
        &self,
        decide: impl FnOnce(&mut Switch, Now, &mut Vec<Action>),
        mut sent_to: impl FnMut(&Arc<Outbox>),
    ) {
        let now = self.now();
        let mut actions = Vec::new();
        let state = &mut *self
            .state
            .lock()
            .expect("a panic while deciding ends the switch");
        decide(&mut state.switch, now, &mut actions);
        for action in actions {
            match action {
                Action::Send(id, frame) => {
                    if let Some(outbox) = state.outboxes.get(&id) {
                        outbox.push(frame);
                        sent_to(outbox);
                    }
                }
                Action::Close(id) => {
                    if let Some(outbox) = state.outboxes.remove(&id) {
                        outbox.close();
                    }
                }
            }
        }
    }

    /// Serves one connection to its end, and says why it ended.
    async fn serve(self: Arc<Self>, stream: TcpStream) -> String {
        if let Err(error) = stream.set_nodelay(true) {
            return error.to_string();
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::default());
        {
            let now = self.now();
            let mut state = self
                .state
                .lock()
                .expect("a panic while deciding ends the switch");
            state.outboxes.insert(id, outbox.clone());
            state.switch.connected(id, now);
        }
        let (read, mut write) = stream.into_split();
        let mut reader = FrameReader::new(read, "client");
        let writing = async {
            if let Err(source) = write.write_all(PREAMBLE).await {
                return Err(LinkError::Io {
                    peer: "client",
                    source,
                });
            }
            write_outbox(
                &outbox,
                write,
                Duration::from_millis(LOST_AFTER_MS),
                "client",
            )
            .await
        };
        tokio::pin!(writing);
        let (why, written) = tokio::select! {
            why = self.read(id, &mut reader) => (why, None),
            written = &mut writing => match written {
                Ok(()) => ("closed by the switch".to_string(), Some(true)),
                Err(error) => (error.to_string(), Some(false)),
            },
        };
        self.with(|switch, _, actions| switch.disconnected(id, &why, actions));
        self.state
            .lock()
            .expect("a panic while deciding ends the switch")
            .outboxes
            .remove(&id);
        outbox.close();
        let written = match written {
            Some(written) => written,
            // What was queued for it may still go out: the peer may have closed its sending side only.
            None => matches!(tokio::time::timeout(DRAIN, writing).await, Ok(Ok(()))),
        };
        if written {
            // A socket that is closed with unread bytes is reset, and its peer may never see the reason that was sent last.
            let _ = tokio::time::timeout(DRAIN, reader.discard()).await;
        }
        why
    }

    async fn read(&self, id: ConnectionId, reader: &mut FrameReader) -> String {
        match reader.preamble().await {
            Ok(true) => {}
            Ok(false) => {
                self.with(|switch, _, actions| {
                    switch.malformed(
                        id,
                        "these are not the first bytes of an lswitch client",
                        actions,
                    )
                });
                return "no lswitch client".into();
            }
            Err(error) => return error.to_string(),
        }
        let mut known = false;
        let mut full: Vec<Arc<Outbox>> = Vec::new();
        loop {
            // All frames that one read brought are handled under one lock.
            let mut batch: Vec<Frame> = Vec::new();
            let malformed = loop {
                match reader.buffered() {
                    Ok(Some(frame)) => batch.push(frame),
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                }
                if !known {
                    break None;
                }
            };
            let was_known = known;
            let batch_was_empty = batch.is_empty();
            if !batch.is_empty() || malformed.is_some() {
                self.with_destinations(
                    |switch, now, actions| {
                        batch
                            .into_iter()
                            .for_each(|frame| switch.received(id, frame, now, actions));
                        if let Some(what) = &malformed {
                            switch.malformed(id, what, actions);
                        }
                        known = switch.is_known(id);
                    },
                    |outbox| {
                        if !outbox.has_room()
                            && !full.iter().any(|other| Arc::ptr_eq(other, outbox))
                        {
                            full.push(outbox.clone());
                        }
                    },
                );
                if let Some(what) = malformed {
                    return what;
                }
            }
            if batch_was_empty && known {
                self.with(|switch, now, _| switch.heard(id, now));
            }
            if known && !was_known {
                reader.trust();
                continue;
            }
            for outbox in full.drain(..) {
                self.wait_for_room(id, &outbox).await;
            }
            if let Err(error) = reader.more().await {
                return error.to_string();
            }
        }
    }

    /// A full destination holds its sender up, and the sender's silence meanwhile is not its own.
    async fn wait_for_room(&self, id: ConnectionId, outbox: &Outbox) {
        while tokio::time::timeout(Duration::from_secs(1), outbox.room())
            .await
            .is_err()
        {
            self.with(|switch, now, actions| switch.held_up(id, now, actions));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::link::dial;
    use crate::net::message::{Hello, Role};
    use crate::net::token::{Bearer, JobId};

    #[tokio::test]
    async fn a_connection_too_many_is_told_so() {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let address = listener
            .local_addr()
            .expect("a listener has an address")
            .to_string();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("somebody dials");
            turn_away(stream);
        });
        let job = JobId::random();
        let token = Secret::random().job_key(job).token(Bearer::Driver, 0);
        let hello = Hello::new(job, token, Role::Driver { size: 1 });
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        match dial(&address, &hello, deadline).await {
            Err(LinkError::Refused(refused)) => assert_eq!(refused.code, Refusal::Full),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("nobody said welcome"),
        }
    }
}
