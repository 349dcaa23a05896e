//! One job: its packs, the way to each rank, and what has passed through.

use super::Refuse;
use crate::net::collective::{CollectiveError, Collectives, PART_LEN, Part, SEGMENT_MIN, WINDOW};
use crate::net::egress::{ConnectionId, Egress};
use crate::net::element::FoldError;
use crate::net::frame::{
    BODY_MAX, CHECKSUM_LEN, CHUNK_MAX, DRIVER, FLAG_FIRST, FLAG_LAST, Frame, HEADER_LEN, Header,
    SWITCH, TOTAL_LEN, kind,
};
use crate::net::message::{Control, Notice, Peer, Refusal, Span, Start, Traffic};
use crate::net::planted::{Bug, planted};
use crate::net::state::{Asker, Reply, Request, State};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// One job, as the switch knows it.
pub(super) struct Job {
    pub(super) release: String,
    pub(super) epoch: u32,
    pub(super) size: u32,
    /// Of an elastic job: which ranks have ever joined. None comes twice, so nothing that was meant for one that is gone
    /// reaches another.
    used: Option<Vec<bool>>,
    pub(super) driver: ConnectionId,
    driver_mailbox: u32,
    /// Joined packs by their first rank.
    pub(super) packs: BTreeMap<u32, Pack>,
    /// Packs by their number, from the start on: what collectives look up.
    members: Vec<Member>,
    /// The connection of each rank; what routing looks up.
    routes: Vec<Option<ConnectionId>>,
    pub(super) joined: u32,
    pub(super) begun: bool,
    /// A pack was lost or failed: the driver knows the cause and will end the job.
    pub(super) failed: bool,
    /// From the start on.
    collectives: Option<Collectives>,
    /// Counters, queues and vectors.
    pub(super) state: State,
    /// Messages that were announced and not yet granted, by source and destination.
    announced: FxHashMap<(u32, u32), u64>,
    messages: u64,
    bytes: u64,
}

/// One joined pack.
pub(super) struct Pack {
    pub(super) span: Span,
    pub(super) incarnation: u32,
    pub(super) connection: ConnectionId,
    /// Bytes of messages that may wait there for each rank.
    pub(super) mailbox: u32,
    /// See [`Peer::features`].
    pub(super) features: u32,
    /// Its place among the packs by rising rank, from the start on.
    pub(super) index: usize,
}

/// A pack of a job that has begun.
#[derive(Clone, Copy)]
struct Member {
    first_rank: u32,
    connection: ConnectionId,
}

impl Job {
    /// A job that nobody has joined yet.
    pub(super) fn new(
        release: String,
        size: u32,
        driver: ConnectionId,
        driver_mailbox: u32,
        elastic: bool,
    ) -> Job {
        Job {
            release,
            epoch: 0,
            size,
            used: elastic.then(Vec::new),
            driver,
            driver_mailbox,
            packs: BTreeMap::new(),
            members: Vec::new(),
            // Those of an elastic job grow with the ranks that have come.
            routes: vec![None; if elastic { 0 } else { size as usize }],
            joined: 0,
            begun: false,
            failed: false,
            collectives: None,
            state: State::new(0),
            announced: FxHashMap::default(),
            messages: 0,
            bytes: 0,
        }
    }

    /// A pack joins; its ranks are free, which the caller has checked.
    pub(super) fn add(&mut self, pack: Pack) {
        let span = pack.span;
        let ranks = span.first_rank as usize..span.end() as usize;
        if let Some(used) = &mut self.used
            && used.len() < ranks.end
        {
            used.resize(ranks.end, false);
            self.routes.resize(ranks.end, None);
        }
        self.routes[ranks.clone()].fill(Some(pack.connection));
        if let Some(used) = &mut self.used {
            used[ranks].fill(true);
        }
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

    /// True if it takes packs in as long as it lives.
    pub(super) fn is_elastic(&self) -> bool {
        self.used.is_some()
    }

    /// True if one of these ranks has been in the job, which is elastic, and cannot come again.
    pub(super) fn has_used(&self, span: Span) -> bool {
        let ranks = span.first_rank as usize..span.end() as usize;
        let used = self.used.as_deref().unwrap_or_default();
        let end = ranks.end.min(used.len());
        used.get(ranks.start..end)
            .is_some_and(|used| used.contains(&true))
    }

    /// What each pack of an elastic job is told when it joins.
    pub(super) fn start_alone(&self) -> Start {
        Start {
            driver_mailbox: self.driver_mailbox,
            ..std::iter::empty().collect()
        }
    }

    /// All ranks are there: what every pack is told. `memory` is what the switch may hold, in bytes; collectives get a
    /// quarter of it.
    pub(super) fn start(&mut self, memory: usize) -> Start {
        for (index, pack) in self.packs.values_mut().enumerate() {
            pack.index = index;
        }
        let share = memory / 4 / self.packs.len() / WINDOW;
        self.members = self
            .packs
            .values()
            .map(|pack| Member {
                first_rank: pack.span.first_rank,
                connection: pack.connection,
            })
            .collect();
        // Whole elements of every type.
        let segment = share.clamp(SEGMENT_MIN, CHUNK_MAX) / 16 * 16;
        let spans = self.packs.values().map(|pack| pack.span).collect();
        self.collectives = Some(Collectives::new(spans, WINDOW, segment));
        Start {
            driver_mailbox: self.driver_mailbox,
            segment: segment as u32,
            ..self
                .packs
                .values()
                .map(|pack| Peer {
                    span: pack.span,
                    mailbox: pack.mailbox,
                    features: pack.features,
                })
                .collect()
        }
    }

    /// A pack leaves in order. Gives the reason if it deserts others, which wait for it in a collective.
    pub(super) fn leave(&mut self, span: Span) -> Option<String> {
        let index = self.packs.get(&span.first_rank).map(|pack| pack.index);
        let deserts = match (&mut self.collectives, index) {
            (Some(collectives), Some(index)) => collectives.leave(index),
            _ => None,
        };
        self.remove(span);
        deserts
    }

    /// What passed through so far, for the driver.
    pub(super) fn traffic(&self, switch_cpu_us: u64) -> Frame {
        Notice::Traffic(Traffic {
            messages: self.messages,
            bytes: self.bytes,
            switch_cpu_us,
        })
        .to_frame(true)
    }

    /// Passes on the frames that `bytes` begin with, as long as they are whole, from the connection's own ranks (`None`: the
    /// driver) and to somebody who is there; gives how many bytes they were. This is the hot path: whatever else comes, faults included, is left
    /// for [`Job::route`].
    pub(super) fn pass(
        &mut self,
        span: Option<Span>,
        bytes: &[u8],
        out: &mut impl Egress,
    ) -> usize {
        if !self.begun {
            return 0;
        }
        let mut at = 0;
        // Frames behind each other that go to the same connection, from `begun` on, go together.
        let (mut begun, mut to, mut longest) = (0, None, 0);
        while let Some(header) = bytes[at..].first_chunk::<HEADER_LEN>() {
            let header = Header::from_bytes(header);
            let own = match span {
                Some(span) => span.contains(header.source),
                None => header.source == DRIVER,
            } || planted(Bug::SourceUnchecked);
            let Some(connection) = self.route_to(span, header.destination) else {
                break;
            };
            let length = header.wire_len();
            if !matches!(header.kind, kind::DATA | kind::CREDIT)
                || !own
                || (header.epoch != self.epoch && !planted(Bug::EpochUnchecked))
                || header.length as usize > BODY_MAX
                || bytes.len() - at < length
            {
                break;
            }
            self.count(header);
            if to != Some(connection) {
                if let Some(to) = to.replace(connection) {
                    out.forward_all(to, &bytes[begun..at], longest);
                }
                (begun, longest) = (at, 0);
            }
            longest = longest.max(length);
            at += length;
        }
        if let Some(to) = to {
            out.forward_all(to, &bytes[begun..at], longest);
        }
        at
    }

    fn route_to(&self, span: Option<Span>, destination: u32) -> Option<ConnectionId> {
        match self.routes.get(destination as usize) {
            Some(None) if planted(Bug::DepartedMisrouted) => {
                self.packs.values().next().map(|pack| pack.connection)
            }
            Some(route) => *route,
            None => (destination == DRIVER && span.is_some()).then_some(self.driver),
        }
    }

    fn count(&mut self, header: Header) {
        if header.kind != kind::DATA {
            return;
        }
        let mut payload = header.length as usize;
        if header.flags & FLAG_FIRST != 0 {
            self.messages += 1;
            payload = payload.saturating_sub(TOTAL_LEN);
        }
        if header.flags & FLAG_LAST != 0 {
            payload = payload.saturating_sub(CHECKSUM_LEN);
        }
        self.bytes += payload as u64;
    }

    /// Refuses a frame that the connection may not send, or not now.
    pub(super) fn check(&self, span: Option<Span>, header: Header) -> Result<(), Refuse> {
        let Header {
            source,
            destination,
            epoch,
            ..
        } = header;
        if !self.begun {
            let reason = "a message came before the job's start".into();
            return Err((Refusal::Protocol, reason));
        }
        match span {
            Some(span) if !span.contains(source) && !planted(Bug::SourceUnchecked) => {
                let reason = format!("a connection of {span} spoke as rank {source}");
                return Err((Refusal::Protocol, reason));
            }
            None if source != DRIVER => {
                let reason = format!("the driver's connection spoke as rank {source}");
                return Err((Refusal::Protocol, reason));
            }
            _ => {}
        }
        if epoch != self.epoch && !planted(Bug::EpochUnchecked) {
            let reason = format!("a frame of epoch {epoch} came in epoch {}", self.epoch);
            return Err((Refusal::Epoch, reason));
        }
        let to_driver = destination == DRIVER && span.is_some();
        let to_switch = matches!(header.kind, kind::CONTRIBUTE | kind::STATE);
        if destination >= self.size
            && !to_driver
            && !to_switch
            && !planted(Bug::DestinationUnchecked)
        {
            let reason = format!(
                "a message to rank {destination} of a job of {} ranks",
                self.size
            );
            return Err((Refusal::Ranks, reason));
        }
        Ok(())
    }

    /// A frame between ranks that [`Job::pass`] left: one that is wrong, an announcement or its grant, or one for a rank
    /// that has left.
    pub(super) fn route(
        &mut self,
        span: Option<Span>,
        header: Header,
        body: &[u8],
        out: &mut impl Egress,
    ) -> Result<(), Refuse> {
        self.check(span, header)?;
        let to = self.route_to(span, header.destination);
        match header.kind {
            kind::ANNOUNCE if to.is_none() => {
                // Its message will be dropped, but the sender must not wait for that.
                if !planted(Bug::AnnouncementToDepartedDropped) {
                    self.grant(header.source, header.destination, header.sequence, out);
                }
            }
            kind::ANNOUNCE => {
                let pair = (header.source, header.destination);
                if self.announced.insert(pair, header.sequence).is_some() {
                    let reason = format!(
                        "rank {} announced a message to rank {} before the one it announced last was granted",
                        header.source, header.destination
                    );
                    return Err((Refusal::Protocol, reason));
                }
            }
            kind::GRANT if planted(Bug::AnnouncementKeptAfterGrant) => {}
            kind::GRANT => {
                let pair = (header.destination, header.source);
                if self.announced.remove(&pair) != Some(header.sequence) {
                    let reason = format!(
                        "rank {} granted a message that rank {} has not announced",
                        header.source, header.destination
                    );
                    return Err((Refusal::Protocol, reason));
                }
            }
            _ => self.count(header),
        }
        // A rank that left has ended its program without this message, which is not the sender's fault.
        if let Some(to) = to {
            out.send(to, &Frame::new(header, body.to_vec().into()));
        }
        Ok(())
    }

    /// Some ranks have left: who waits to send to them may, and it will be dropped.
    pub(super) fn grant_for(&mut self, span: Span, out: &mut impl Egress) {
        let waiting: Vec<(u32, u32, u64)> = self
            .announced
            .extract_if(|(_, to), _| {
                span.contains(*to) && !planted(Bug::AnnouncementForgottenOnLeave)
            })
            .map(|((from, to), sequence)| (from, to, sequence))
            .collect();
        for (from, to, sequence) in waiting {
            self.grant(from, to, sequence, out);
        }
    }

    /// Grants a message in the name of its destination.
    fn grant(&self, from: u32, to: u32, sequence: u64, out: &mut impl Egress) {
        let connection = match self.routes.get(from as usize) {
            Some(route) => *route,
            None => Some(self.driver),
        };
        let header = Header {
            kind: kind::GRANT,
            epoch: self.epoch,
            source: to,
            destination: if planted(Bug::GrantForDepartedToItself) {
                to
            } else {
                from
            },
            sequence,
            ..Header::default()
        };
        if let Some(connection) = connection {
            out.send(connection, &Frame::new(header, Default::default()));
        }
    }

    /// A rank asks something of the shared state, which may hold up to `bytes_max`.
    pub(super) fn ask(
        &mut self,
        id: ConnectionId,
        header: Header,
        body: &[u8],
        bytes_max: usize,
        now_ms: u64,
        out: &mut impl Egress,
    ) {
        let asker = Asker {
            pack: id,
            rank: header.source,
            request: header.sequence,
        };
        let mut replies = Vec::new();
        match Request::decode(body) {
            Ok(request) => {
                self.state.limit(bytes_max);
                self.state.handle(asker, request, now_ms, &mut replies);
            }
            Err(error) => replies.push((asker, error.into())),
        }
        self.reply(replies, out);
    }

    /// Sends replies of the shared state.
    pub(super) fn reply(&self, replies: Vec<(Asker, Reply)>, out: &mut impl Egress) {
        for (asker, reply) in replies {
            let header = Header {
                kind: kind::STATE,
                epoch: self.epoch,
                source: SWITCH,
                destination: asker.rank,
                sequence: asker.request,
                ..Header::default()
            };
            out.send(asker.pack, &Frame::new(header, reply.encode().into()));
        }
    }

    /// A pack's part of a collective. `Some` when the packs disagree, which ends the job.
    pub(super) fn contribute(
        &mut self,
        span: Span,
        header: Header,
        body: &[u8],
        out: &mut impl Egress,
    ) -> Result<Option<String>, Refuse> {
        let refuse = |reason: String| (Refusal::Protocol, reason);
        if self.failed {
            // It cannot complete; how the job ends is the driver's to say, with the cause that it was told.
            return Ok(None);
        }
        let part = Part::split(header.tag, body).ok_or_else(|| {
            let length = body.len();
            refuse(format!(
                "a contribution has a body of {length} bytes, too short for its total and root"
            ))
        })?;
        let part = Part {
            shape: header.group,
            ..part
        };
        self.bytes += part.data.len() as u64;
        let Some(collectives) = self.collectives.as_mut() else {
            return Err(refuse("an elastic job has no collectives".into()));
        };
        let index = self.packs[&span.first_rank].index;
        let answers = match collectives.contribute(index, header.sequence, part) {
            Ok(answers) => answers,
            // Faults of the program, not of this pack's build.
            Err(
                error @ (CollectiveError::Deserted { .. }
                | CollectiveError::Mismatch { .. }
                | CollectiveError::RootRange { .. }
                | CollectiveError::Fold {
                    error: FoldError::Overflow(_),
                    ..
                }),
            ) => return Ok(Some(format!("{span}: {error}"))),
            Err(error) => return Err(refuse(error.to_string())),
        };
        if !answers.is_empty() {
            out.hurry();
        }
        // Answers that are alike share one frame, but for its destination.
        let mut frame: Vec<u8> = Vec::new();
        let mut shared: Option<(*const u8, usize)> = None;
        for answer in answers {
            let member = self.members[answer.pack];
            let data = (answer.data.as_ptr(), answer.data.len());
            let header = Header {
                kind: kind::COMBINED,
                group: 0,
                epoch: self.epoch,
                source: SWITCH,
                destination: member.first_rank,
                length: (PART_LEN + answer.data.len()) as u32,
                ..header
            };
            if shared != Some(data) {
                frame.clear();
                let part = Part {
                    total: answer.total,
                    data: &[],
                    ..part
                };
                header.put(&mut frame);
                frame.extend_from_slice(&part.prefix());
                frame.extend_from_slice(&answer.data);
                shared = Some(data);
            }
            frame[..HEADER_LEN].copy_from_slice(&header.to_bytes());
            out.forward(member.connection, &frame);
        }
        Ok(None)
    }
}
