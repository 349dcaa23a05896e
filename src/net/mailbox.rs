//! Messages that have arrived for one rank and wait to be received, by tag and then by source, in order of arrival.

use crate::net::patience::Patience;
use crate::net::reassembly::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

/// See the module.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    by_tag: HashMap<u32, VecDeque<Message>>,
    closed: bool,
}

/// Why no message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMessage {
    /// The mailbox was closed: the connection or the job ended.
    Closed,
    /// The deadline passed.
    Deadline,
}

impl Mailbox {
    /// Adds a message and wakes the rank.
    pub fn deliver(&self, message: Message) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        state
            .by_tag
            .entry(message.tag)
            .or_default()
            .push_back(message);
        drop(state);
        self.arrived.notify_one();
    }

    /// Takes the first message with this tag, from `source` if one is named. Waits until the deadline; after
    /// [`LONG`](crate::net::patience::LONG) calls `impatient` once. A message that is there is given even after [`Mailbox::close`].
    ///
    /// # Errors
    /// When none came.
    pub fn receive(
        &self,
        source: Option<u32>,
        tag: u32,
        deadline: Instant,
        impatient: impl FnOnce(),
    ) -> Result<Message, NoMessage> {
        let mut patience = Patience::new(deadline, impatient);
        let mut state = self.state.lock().expect("no holder of this lock panics");
        loop {
            if let Some(message) = state.take(source, tag) {
                return Ok(message);
            }
            if state.closed {
                return Err(NoMessage::Closed);
            }
            state = patience
                .wait(&self.arrived, state)
                .ok_or(NoMessage::Deadline)?;
        }
    }

    /// Nothing will arrive any more: the rank is woken.
    pub fn close(&self) {
        self.state
            .lock()
            .expect("no holder of this lock panics")
            .closed = true;
        self.arrived.notify_all();
    }
}

impl State {
    fn take(&mut self, source: Option<u32>, tag: u32) -> Option<Message> {
        let queue = self.by_tag.get_mut(&tag)?;
        let at = match source {
            None => 0,
            Some(source) => queue.iter().position(|message| message.source == source)?,
        };
        let message = queue.remove(at)?;
        if queue.is_empty() {
            self.by_tag.remove(&tag);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(source: u32, tag: u32, text: &'static str) -> Message {
        Message {
            source,
            tag,
            payload: text.into(),
        }
    }

    #[test]
    fn messages_are_taken_by_tag_and_source_in_order_of_arrival() {
        let mailbox = Mailbox::default();
        for arrived in [
            message(1, 7, "a"),
            message(2, 7, "b"),
            message(1, 7, "c"),
            message(2, 8, "d"),
        ] {
            mailbox.deliver(arrived);
        }
        let soon = Instant::now() + Duration::from_secs(5);
        let take = |source, tag| {
            mailbox
                .receive(source, tag, soon, || {})
                .map(|message| message.payload)
        };
        assert_eq!(take(Some(2), 7), Ok("b".into()));
        assert_eq!(take(None, 7), Ok("a".into()));
        assert_eq!(take(None, 8), Ok("d".into()));
        assert_eq!(take(Some(1), 7), Ok("c".into()));
        mailbox.close();
        assert_eq!(take(None, 7), Err(NoMessage::Closed));
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let outcome =
            Mailbox::default().receive(None, 0, Instant::now() + Duration::from_millis(10), || {
                panic!("not for so short a wait")
            });
        assert_eq!(outcome, Err(NoMessage::Deadline));
    }
}
