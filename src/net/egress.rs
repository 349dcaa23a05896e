//! What the switch does to the world outside: the seam between its decisions and the shell that carries them out.
//!
//! [`crate::net::server`] is the real form, a list of [`Action`]s the recording one, for tests.

use crate::net::frame::{Frame, HEADER_LEN, Header};
use bytes::Bytes;

/// The number the shell gives a connection.
pub type ConnectionId = u64;

/// See the module.
pub trait Egress {
    /// Sends a frame on as it came: its header and its whole body. Never waits; what the socket does not take is queued.
    fn forward(&mut self, to: ConnectionId, frame: &[u8]);

    /// The same for several frames, one behind the other, of which the longest has so many bytes.
    fn forward_all(&mut self, to: ConnectionId, mut frames: &[u8], _longest: usize) {
        while let Some(header) = frames.first_chunk::<HEADER_LEN>() {
            let (frame, rest) = frames.split_at(Header::from_bytes(header).wire_len());
            self.forward(to, frame);
            frames = rest;
        }
    }

    /// Sends what is queued, then closes the connection. The switch has forgotten it already.
    fn close(&mut self, id: ConnectionId);

    /// What was just sent is waited for by many: nothing more is to be gathered before it goes.
    fn hurry(&mut self) {}

    /// True if so much waits because of a connection that nothing more of it is to be decided on for now.
    fn is_held(&self, _id: ConnectionId) -> bool {
        false
    }

    /// Processor time that the switch used so far, in microseconds.
    fn cpu_us(&self) -> u64 {
        0
    }

    /// Sends a frame of the switch's own.
    fn send(&mut self, to: ConnectionId, frame: &Frame) {
        let mut bytes = Vec::with_capacity(frame.wire_len());
        frame.put(&mut bytes);
        self.forward(to, &bytes);
    }
}

/// What the switch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sent a frame.
    Send(ConnectionId, Frame),
    /// Closed a connection.
    Close(ConnectionId),
}

impl Egress for Vec<Action> {
    fn forward(&mut self, to: ConnectionId, frame: &[u8]) {
        let (header, body) = frame
            .split_first_chunk::<HEADER_LEN>()
            .expect("the switch sends whole frames");
        let frame = Frame {
            header: Header::from_bytes(header),
            body: Bytes::copy_from_slice(body),
        };
        self.push(Action::Send(to, frame));
    }

    fn close(&mut self, id: ConnectionId) {
        self.push(Action::Close(id));
    }
}
