//! How drivers and packs come to a job: the hello, its proof, and each reason to turn it down.

use super::job::{Job, Pack};
use super::{JOBS_MAX, Now, Refuse, Switch, Who, protocol};
use crate::net::egress::{ConnectionId, Egress};
use crate::net::frame::{Header, PROTOCOL, RANKS_MAX, kind};
use crate::net::message::{
    Control, FEATURE_PROOF, FEATURES, Hello, Notice, Refusal, Refused, Role, Welcome,
};
use crate::net::token::JobId;
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};

impl Switch {
    pub(super) fn hello(
        &mut self,
        id: ConnectionId,
        header: Header,
        body: &[u8],
        now: Now,
        out: &mut impl Egress,
    ) -> Result<(), Refuse> {
        if header.kind != kind::HELLO {
            return Err((
                Refusal::Protocol,
                format!(
                    "the first frame is of kind {:#04x} and not a hello",
                    header.kind
                ),
            ));
        }
        // Before the rest, which another version may lay out differently.
        if let Some((lowest, highest)) = Hello::protocols_in(body)
            && !(lowest..=highest).contains(&PROTOCOL)
        {
            return Err((
                Refusal::Version,
                format!(
                    "the client speaks protocol {lowest} to {highest}, this switch speaks {PROTOCOL} (lswitch {}); \
                     run the same release on both sides, with \"lswitch function update\" for a function",
                    crate::RELEASE
                ),
            ));
        }
        let hello = Hello::from_body(body).map_err(protocol)?;
        let key = self.secret.job_key(hello.job);
        let (bearer, now_s) = (hello.bearer(), now.unix_s);
        let proof = match &hello.nonce {
            None => key.verify(&hello.token, bearer, now_s).then_some(None),
            Some(nonce) => key
                .verify_sealed(&hello.token, nonce, bearer, now_s)
                .map(Some),
        };
        let Some(proof) = proof else {
            return Err((
                Refusal::Token,
                "the token is wrong or has expired; do driver and switch have the same secret, and their clocks the same time?".into(),
            ));
        };
        let who = match hello.role {
            Role::Driver {
                size,
                mailbox,
                elastic,
            } => self.create(id, &hello, size, mailbox, elastic)?,
            Role::Pack {
                span,
                incarnation,
                epoch,
                mailbox,
            } => {
                let pack = Pack {
                    span,
                    incarnation,
                    connection: id,
                    mailbox,
                    features: (hello.features & FEATURES) as u32,
                    index: 0,
                };
                self.join(&hello, pack, epoch, out)?
            }
        };
        self.connections
            .get_mut(&id)
            .expect("received() looked it up")
            .who = Some((hello.job, who));
        let welcome = Welcome {
            protocol: PROTOCOL,
            features: hello.features & (FEATURES | FEATURE_PROOF),
            heartbeat_ms: HEARTBEAT_MS as u32,
            lost_after_ms: LOST_AFTER_MS as u32,
            proof,
        };
        out.send(id, &welcome.to_frame(true));
        if let Who::Pack(_) = who {
            self.joined(hello.job, id, out);
        }
        Ok(())
    }

    fn create(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        size: u32,
        mailbox: u32,
        elastic: bool,
    ) -> Result<Who, Refuse> {
        if self.jobs.contains_key(&hello.job) {
            return Err((
                Refusal::JobExists,
                format!("job {} exists already", hello.job),
            ));
        }
        if size == 0 || size > RANKS_MAX {
            return Err((
                Refusal::Ranks,
                format!("a job has 1 to {RANKS_MAX} ranks, not {size}"),
            ));
        }
        if self.jobs.len() >= JOBS_MAX {
            return Err((
                Refusal::Full,
                format!("this switch has {JOBS_MAX} jobs, which is its most; try again later"),
            ));
        }
        let job = Job::new(hello.release.clone(), size, id, mailbox, elastic);
        self.jobs.insert(hello.job, job);
        Ok(Who::Driver)
    }

    fn join(
        &mut self,
        hello: &Hello,
        pack: Pack,
        epoch: u32,
        out: &mut impl Egress,
    ) -> Result<Who, Refuse> {
        let Pack {
            span, incarnation, ..
        } = pack;
        let job = self.jobs.get_mut(&hello.job).ok_or_else(|| {
            (
                Refusal::UnknownJob,
                format!(
                    "job {} is not known to this switch: it has ended or was never created",
                    hello.job
                ),
            )
        })?;
        if hello.release != job.release {
            return Err((
                Refusal::Version,
                format!(
                    "the worker is lswitch {} and the job was started by lswitch {}; run \"lswitch function update\" so that both are the same",
                    hello.release, job.release
                ),
            ));
        }
        if epoch != job.epoch {
            return Err((
                Refusal::Epoch,
                format!(
                    "the worker is of epoch {epoch} and the job is in epoch {}",
                    job.epoch
                ),
            ));
        }
        if span.ranks == 0 || span.end() > job.size {
            return Err((
                Refusal::Ranks,
                format!("{span} is not within the job's {} ranks", job.size),
            ));
        }
        let overlapping = job
            .packs
            .values()
            .find(|pack| pack.span.first_rank < span.end() && span.first_rank < pack.span.end());
        let replaced = match overlapping {
            None => None,
            Some(pack) if pack.span != span => {
                return Err((
                    Refusal::Ranks,
                    format!(
                        "{span} overlaps with {}, which joined as one pack",
                        pack.span
                    ),
                ));
            }
            Some(pack) if pack.incarnation >= incarnation => {
                return Err((
                    Refusal::Incarnation,
                    format!(
                        "{span} joined already with incarnation {}; this one, {incarnation}, is a duplicate",
                        pack.incarnation
                    ),
                ));
            }
            Some(pack) => Some(pack.connection),
        };
        if job.has_used(span) {
            return Err((
                Refusal::Begun,
                format!("{span} has been in the job before; ranks of an elastic job are used once"),
            ));
        }
        if job.begun && !job.is_elastic() {
            return Err((
                Refusal::Begun,
                "the job has begun; a fixed job takes nobody in after its start".into(),
            ));
        }
        if let Some(old) = replaced {
            job.remove(span);
            self.connections.remove(&old);
            let reason =
                format!("a later start of {span}, incarnation {incarnation}, took its place");
            let refused = Refused {
                code: Refusal::Incarnation,
                reason,
            };
            out.send(old, &refused.to_frame(true));
            out.close(old);
        }
        let notice = Notice::Joined {
            span,
            incarnation,
            mailbox: pack.mailbox,
            features: pack.features,
        };
        job.add(pack);
        out.send(job.driver, &notice.to_frame(true));
        Ok(Who::Pack(span))
    }

    /// The last rank to join starts the job, each pack of an elastic one its own part of it.
    fn joined(&mut self, id: JobId, pack: ConnectionId, out: &mut impl Egress) {
        let job = self.jobs.get_mut(&id).expect("join() looked it up");
        if job.is_elastic() {
            out.send(pack, &job.start_alone().to_frame(true));
            if !std::mem::replace(&mut job.begun, true) {
                out.send(job.driver, &Notice::Started.to_frame(true));
            }
            return;
        }
        if job.joined < job.size {
            return;
        }
        job.begun = true;
        let start = job.start(self.memory).to_frame(true);
        for pack in job.packs.values() {
            out.send(pack.connection, &start);
        }
        out.send(job.driver, &Notice::Started.to_frame(true));
    }
}
