//! What goes over a pool's standard input and output: calls in, answers out. `docs/FARM.md` specifies the bytes.

use super::driver::{Outcome, Task};
use super::message::PAYLOAD_MAX;
use bytes::{Buf, BufMut, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// Bytes ahead of a call's payload, without its length: its number.
const CALL_LEN: usize = 8;

/// Bytes of calls above which no more are read until the driver has taken them.
const QUEUED_MAX: usize = 64 << 20;

/// How long is waited before it is looked whether it has.
const LOOK: Duration = Duration::from_millis(2);

/// Bytes that one read asks for.
const READ_LEN: usize = 64 << 10;

/// What is said to the program that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// What became of a call.
    Settled(Outcome),
    /// The job's id, before everything else.
    Created(String),
    /// So many workers are there.
    Workers(u32),
    /// A worker was lost, and why.
    Lost(String),
}

impl Said {
    /// Appends the frame: u32 length of what follows; u8 kind; and
    ///
    /// | kind | fields |
    /// |---|---|
    /// | 0 settled | u8 how: 0 done, 1 failed, 2 lost with its worker; u32 failures; u64 number; u64 microseconds; payload |
    /// | 1 created | the job's id |
    /// | 2 workers | u32 |
    /// | 3 lost | why |
    pub fn put(&self, bytes: &mut Vec<u8>) {
        let at = bytes.len();
        bytes.put_u32_le(0);
        match self {
            Said::Settled(outcome) => {
                let how = match (outcome.done, outcome.fatal) {
                    (true, _) => 0,
                    (false, false) => 1,
                    (false, true) => 2,
                };
                bytes.put_u8(0);
                bytes.put_u8(how);
                bytes.put_u32_le(outcome.failures);
                bytes.put_u64_le(outcome.task);
                bytes.put_u64_le(outcome.took.as_micros() as u64);
                bytes.put_slice(&outcome.payload);
            }
            Said::Created(job) => {
                bytes.put_u8(1);
                bytes.put_slice(job.as_bytes());
            }
            Said::Workers(count) => {
                bytes.put_u8(2);
                bytes.put_u32_le(*count);
            }
            Said::Lost(why) => {
                bytes.put_u8(3);
                bytes.put_slice(why.as_bytes());
            }
        }
        let length = (bytes.len() - at - 4) as u32;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads calls until `from` ends, and gives them to the driver: u32 length of what follows, u64 number, payload.
///
/// # Errors
/// When a call is too long, or `from` ends within one.
pub async fn read_calls(
    mut from: impl AsyncRead + Unpin,
    tasks: mpsc::Sender<Task>,
) -> Result<(), String> {
    let mut bytes = BytesMut::new();
    let mut queued = 0;
    loop {
        while let Some(task) = next_call(&mut bytes)? {
            queued += task.payload.len();
            while queued > QUEUED_MAX && tasks.capacity() < tasks.max_capacity() {
                tokio::time::sleep(LOOK).await;
            }
            if tasks.capacity() == tasks.max_capacity() {
                queued = task.payload.len();
            }
            if tasks.send(task).await.is_err() {
                // The driver has ended, and says why.
                return Ok(());
            }
        }
        bytes.reserve(READ_LEN);
        match from.read_buf(&mut bytes).await {
            Ok(0) if bytes.is_empty() => return Ok(()),
            Ok(0) => return Err("standard input ended within a call".into()),
            Ok(_) => {}
            Err(error) => return Err(format!("cannot read standard input: {error}")),
        }
    }
}

/// The call that the bytes begin with, if it is whole.
fn next_call(bytes: &mut BytesMut) -> Result<Option<Task>, String> {
    let Some(length) = bytes
        .first_chunk()
        .map(|length| u32::from_le_bytes(*length))
    else {
        return Ok(None);
    };
    let length = length as usize;
    if !(CALL_LEN..=CALL_LEN + PAYLOAD_MAX).contains(&length) {
        return Err(format!(
            "a call of {length} bytes came over standard input; it has {CALL_LEN} to {}",
            CALL_LEN + PAYLOAD_MAX
        ));
    }
    if bytes.len() < 4 + length {
        return Ok(None);
    }
    bytes.advance(4);
    let mut call = bytes.split_to(length).freeze();
    let number = call.get_u64_le();
    Ok(Some(Task {
        number,
        payload: call,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn calls_are_read_however_the_bytes_come() {
        let mut bytes = Vec::new();
        for (number, payload) in [(7_u64, &b"one"[..]), (8, b""), (1 << 40, b"three")] {
            bytes.put_u32_le((CALL_LEN + payload.len()) as u32);
            bytes.put_u64_le(number);
            bytes.put_slice(payload);
        }
        let (sender, mut tasks) = mpsc::channel(10);
        read_calls(&bytes[..], sender).await.unwrap();
        for (number, payload) in [(7, &b"one"[..]), (8, b""), (1 << 40, b"three")] {
            let payload = Bytes::from(payload);
            assert_eq!(tasks.recv().await, Some(Task { number, payload }));
        }
        for (damaged, words) in [
            (&bytes[..bytes.len() - 1], "ended within a call"),
            (&[1, 0, 0, 0, 0][..], "a call of 1 bytes"),
            (&[255; 9], "it has 8 to"),
        ] {
            let (sender, _tasks) = mpsc::channel(10);
            let error = read_calls(damaged, sender).await.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
