//! Frames that wait to be written to one connection, bounded in bytes.
//!
//! Any thread may push; one writer takes. Whoever pushes looks for room first, a task with [`Outbox::room`], a rank's
//! thread with [`Outbox::push_when_room`]: so a connection that does not drain slows those who send to it, and fills no
//! memory.

use crate::net::frame::Frame;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::Notify;

/// Bytes above which senders wait. Several chunks, so that a writer never idles while senders wake up.
pub const HIGH_WATER: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes tasks that wait for room.
    drained: Notify,
    /// Wakes threads that wait for room.
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Bytes in `frames` and in the batch that is being written.
    bytes: usize,
    writing: usize,
    closed: bool,
    /// Threads that look for room are turned away; see [`Outbox::interrupt`].
    interrupted: bool,
}

impl Outbox {
    /// Adds a frame, whether there is room or not: for answers, which are small, and for callers that looked for room.
    /// Does nothing after [`Outbox::close`].
    pub fn push(&self, frame: Frame) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.bytes += frame.wire_len();
            queue.frames.push_back(frame);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Waits for room, then adds the frame. For threads outside the runtime. False if the outbox was closed or
    /// interrupted, or the deadline passed first.
    pub fn push_when_room(&self, frame: Frame, deadline: Instant) -> bool {
        let mut queue = self.lock();
        while queue.bytes > HIGH_WATER && !queue.closed && !queue.interrupted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self
                .room
                .wait_timeout(queue, left)
                .expect("no holder of this lock panics")
                .0;
        }
        if queue.closed || queue.interrupted {
            return false;
        }
        queue.bytes += frame.wire_len();
        queue.frames.push_back(frame);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// True if senders need not wait.
    pub fn has_room(&self) -> bool {
        let queue = self.lock();
        queue.bytes <= HIGH_WATER || queue.closed
    }

    /// Waits until there is room or the outbox is closed. Has no deadline of its own; the writer's stall deadline closes
    /// an outbox that does not drain.
    pub async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.has_room() {
                return;
            }
            drained.await;
        }
    }

    /// Turns away every thread that looks for room, now and later. [`Outbox::push`] still works: a pack whose rank failed
    /// has yet to say so.
    pub fn interrupt(&self) {
        self.lock().interrupted = true;
        self.room.notify_all();
    }

    /// No frame is added after this; what is queued can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.drained.notify_waiters();
        self.room.notify_all();
    }

    /// Closes and drops what is queued: the connection is gone.
    pub fn discard(&self) {
        {
            let mut queue = self.lock();
            queue.closed = true;
            queue.frames.clear();
            queue.bytes = 0;
        }
        self.close();
    }

    /// Takes everything that is queued, up to about `limit` bytes; waits while nothing is. `None` once the outbox is
    /// closed and empty. The batch counts against the bound until [`Outbox::written`].
    pub async fn take(&self, limit: usize) -> Option<Vec<Frame>> {
        loop {
            {
                let mut queue = self.lock();
                if !queue.frames.is_empty() {
                    let mut batch = Vec::new();
                    let mut bytes = 0;
                    while bytes < limit
                        && let Some(frame) = queue.frames.pop_front()
                    {
                        bytes += frame.wire_len();
                        batch.push(frame);
                    }
                    queue.writing = bytes;
                    return Some(batch);
                }
                if queue.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// The last batch was written.
    pub fn written(&self) {
        {
            let mut queue = self.lock();
            let written = std::mem::take(&mut queue.writing);
            queue.bytes = queue.bytes.saturating_sub(written);
        }
        self.drained.notify_waiters();
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }
}
