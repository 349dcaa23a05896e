//! One job: its packs, the way to each rank, and what has passed through.

use super::{Action, ConnectionId, Refuse};
use crate::net::collective::Collectives;
use crate::net::frame::{DRIVER, FIRST_CHUNK_LEN, FLAG_FIRST, Frame};
use crate::net::message::{Control, Notice, Refusal, Span};
use std::collections::BTreeMap;

/// One job, as the switch knows it.
pub(super) struct Job {
    pub(super) release: String,
    pub(super) epoch: u32,
    pub(super) size: u32,
    pub(super) driver: ConnectionId,
    /// Joined packs by their first rank.
    pub(super) packs: BTreeMap<u32, Pack>,
    /// The connection of each rank; what routing looks up.
    pub(super) routes: Vec<Option<ConnectionId>>,
    pub(super) joined: u32,
    pub(super) begun: bool,
    /// A pack was lost or failed: the driver knows the cause and will end the job.
    pub(super) failed: bool,
    pub(super) collectives: Collectives,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// One joined pack.
pub(super) struct Pack {
    pub(super) span: Span,
    pub(super) incarnation: u32,
    pub(super) connection: ConnectionId,
}

impl Job {
    /// A job that nobody has joined yet.
    pub(super) fn new(release: String, size: u32, driver: ConnectionId) -> Job {
        Job {
            release,
            epoch: 0,
            size,
            driver,
            packs: BTreeMap::new(),
            routes: vec![None; size as usize],
            joined: 0,
            begun: false,
            failed: false,
            collectives: Collectives::default(),
            messages: 0,
            bytes: 0,
        }
    }

    /// A pack joins; its ranks are free, which the caller has checked.
    pub(super) fn add(&mut self, pack: Pack) {
        let span = pack.span;
        self.routes[span.first_rank as usize..span.end() as usize].fill(Some(pack.connection));
        self.joined += span.ranks;
        self.packs.insert(span.first_rank, pack);
    }

    /// A pack is gone, if it was there.
    pub(super) fn remove(&mut self, span: Span) {
        if self.packs.remove(&span.first_rank).is_some() {
            self.routes[span.first_rank as usize..span.end() as usize].fill(None);
            self.joined -= span.ranks;
        }
    }

    /// What passed through so far, for the driver.
    pub(super) fn traffic(&self) -> Frame {
        Notice::Traffic {
            messages: self.messages,
            bytes: self.bytes,
        }
        .to_frame(true)
    }

    /// Sends a data frame on to its destination.
    pub(super) fn route(
        &mut self,
        source: u32,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refuse> {
        let destination = frame.header.destination;
        let mut payload = frame.body.len();
        if frame.header.flags & FLAG_FIRST != 0 {
            self.messages += 1;
            payload = payload.saturating_sub(FIRST_CHUNK_LEN);
        }
        self.bytes += payload as u64;
        if destination == DRIVER && source != DRIVER {
            actions.push(Action::Send(self.driver, frame));
            return Ok(());
        }
        match self.routes.get(destination as usize) {
            Some(Some(connection)) => actions.push(Action::Send(*connection, frame)),
            // A rank that left has ended its program without this message, which is not the sender's fault.
            Some(None) => {}
            None => {
                return Err((
                    Refusal::Ranks,
                    format!(
                        "a message to rank {destination} of a job of {} ranks",
                        self.size
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The refusal of a frame of another epoch than the job's.
    pub(super) fn wrong_epoch(&self, frame: &Frame) -> Refuse {
        let (found, epoch) = (frame.header.epoch, self.epoch);
        (
            Refusal::Epoch,
            format!("a frame of epoch {found} came in epoch {epoch}"),
        )
    }
}
