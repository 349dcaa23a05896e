//! The driver's connections to all switches of its job, as one.
//!
//! No switch knows another: each tells of itself, and what they say is put together here. A pack has joined when it has
//! joined at each, has left when it has left each, and the job has begun when each says so. When a pack is lost at one of
//! several switches, another switch may be the cause, since a pack that loses one leaves the others: so the others are
//! listened to for a moment before the pack is blamed.

use crate::net::address::SwitchAddress;
use crate::net::driver_link::{DriverLink, Membership, News};
use crate::net::link::LinkError;
use crate::net::message::{Notice, Span, Traffic};
use crate::net::token::{JobId, Token};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long the other switches get to confirm that a pack was lost, or to turn out to be the cause.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(500);

/// See the module.
pub struct JobLink {
    links: Vec<DriverLink>,
    /// Whose turn it is to be asked first.
    turn: usize,
    /// At how many switches each pack has joined, and left, by its first rank.
    joined: BTreeMap<u32, usize>,
    left: BTreeMap<u32, usize>,
    /// At how many the job has begun.
    started: usize,
    /// What passed through each.
    traffic: Vec<Traffic>,
    /// Packs that were lost at some switch.
    lost: Vec<Lost>,
}

/// A pack that was lost, before the other switches have confirmed it.
struct Lost {
    span: Span,
    reason: String,
    /// How many switches say so.
    switches: usize,
    until: Instant,
}

impl JobLink {
    /// Connects to the switches at `addresses` and creates a job at each.
    ///
    /// # Errors
    /// When one of them cannot be reached within `within`, or refuses.
    pub async fn create(
        addresses: &[SwitchAddress],
        job: JobId,
        token: Token,
        membership: Membership,
        within: Duration,
    ) -> Result<JobLink, LinkError> {
        let mut creating = JoinSet::new();
        for (index, address) in addresses.iter().enumerate() {
            let address = address.clone();
            creating.spawn(async move {
                DriverLink::create(&address, job, token, membership, within)
                    .await
                    .map(|link| (index, link))
            });
        }
        let mut links = Vec::new();
        while let Some(created) = creating.join_next().await {
            links.push(created.expect("connecting does not panic")?);
        }
        links.sort_by_key(|(index, _)| *index);
        let links: Vec<DriverLink> = links.into_iter().map(|(_, link)| link).collect();
        Ok(JobLink {
            turn: 0,
            joined: BTreeMap::new(),
            left: BTreeMap::new(),
            started: 0,
            traffic: vec![Traffic::default(); links.len()],
            lost: Vec::new(),
            links,
        })
    }

    /// Waits for the next news. Cancel-safe.
    ///
    /// # Errors
    /// When a connection or the job ended.
    pub async fn next(&mut self) -> Result<News, LinkError> {
        loop {
            let all = self.links.len();
            let is_certain = |lost: &Lost| lost.switches == all || Instant::now() >= lost.until;
            if let Some(at) = self.lost.iter().position(is_certain) {
                let Lost { span, reason, .. } = self.lost.remove(at);
                return Ok(News::Notice(Notice::Lost { span, reason }));
            }
            let news = match self.lost.iter().map(|lost| lost.until).min() {
                None => self.any().await,
                Some(until) => match timeout_at(until, self.any()).await {
                    Ok(news) => news,
                    Err(_) => continue,
                },
            };
            let (index, news) = news?;
            let told = match news {
                News::Notice(notice) => self.put_together(index, notice).map(News::Notice),
                message => Some(message),
            };
            if let Some(news) = told {
                return Ok(news);
            }
        }
    }

    /// Sends a message to a rank of an elastic job, over the first switch; see [`DriverLink::send`].
    pub fn send(&mut self, to: u32, tag: u32, payload: &[u8]) -> bool {
        self.links[0].send(to, tag, payload)
    }

    /// The next news of any switch.
    async fn any(&mut self) -> Result<(usize, News), LinkError> {
        if let [link] = &mut self.links[..] {
            return link.next().await.map(|news| (0, news));
        }
        let count = self.links.len();
        self.turn = (self.turn + 1) % count;
        let turn = self.turn;
        let mut waiting: Vec<(usize, Pin<Box<_>>)> = self
            .links
            .iter_mut()
            .map(|link| Box::pin(link.next()))
            .enumerate()
            .collect();
        waiting.rotate_left(turn);
        poll_fn(|context| {
            for (index, next) in &mut waiting {
                if let Poll::Ready(news) = next.as_mut().poll(context) {
                    return Poll::Ready(news.map(|news| (*index, news)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What the word of one switch means for the job, if it means anything yet.
    fn put_together(&mut self, index: usize, notice: Notice) -> Option<Notice> {
        let all = self.links.len();
        match notice {
            Notice::Joined { span, .. } => {
                let joined = self.joined.entry(span.first_rank).or_default();
                *joined += 1;
                (*joined == all).then_some(notice)
            }
            Notice::Started => {
                self.started += 1;
                (self.started == all).then_some(notice)
            }
            Notice::Left {
                span,
                failure: None,
            } => {
                let left = self.left.entry(span.first_rank).or_default();
                *left += 1;
                (*left == all).then_some(notice)
            }
            Notice::Left { .. } => Some(notice),
            Notice::Lost { span, reason } => {
                match self.lost.iter_mut().find(|lost| lost.span == span) {
                    Some(lost) => lost.switches += 1,
                    None => self.lost.push(Lost {
                        span,
                        reason,
                        switches: 1,
                        until: Instant::now() + CONFIRMED_WITHIN,
                    }),
                }
                None
            }
            Notice::Traffic(traffic) => {
                self.traffic[index] = traffic;
                Some(Notice::Traffic(self.all_traffic()))
            }
        }
    }

    fn all_traffic(&self) -> Traffic {
        let sum = |what: fn(&Traffic) -> u64| self.traffic.iter().map(what).sum();
        Traffic {
            messages: sum(|traffic| traffic.messages),
            bytes: sum(|traffic| traffic.bytes),
            switch_cpu_us: sum(|traffic| traffic.switch_cpu_us),
        }
    }

    /// Ends the job: every member is told why. Returns once the switches have confirmed it, or after a short time.
    pub async fn abort(self, reason: &str) {
        let mut ending = JoinSet::new();
        for link in self.links {
            let reason = reason.to_string();
            ending.spawn(async move { link.abort(&reason).await });
        }
        ending.join_all().await;
    }

    /// Ends the job in order, after its ranks have left; gives what passed through the switches in all.
    pub async fn leave(mut self) -> Traffic {
        let mut leaving = JoinSet::new();
        for (index, link) in self.links.drain(..).enumerate() {
            leaving.spawn(async move { (index, link.leave().await) });
        }
        while let Some(left) = leaving.join_next().await {
            let (index, heard) = left.expect("leaving does not panic");
            for notice in heard {
                if let Notice::Traffic(traffic) = notice {
                    self.traffic[index] = traffic;
                }
            }
        }
        self.all_traffic()
    }
}
