//! Switches, packs and drivers in this process, over real sockets on loopback.

use bytes::Bytes;
use lswitch::net::address::SwitchAddress;
use lswitch::net::client::{JoinOptions, Pack};
use lswitch::net::comm::Comm;
use lswitch::net::driver_link::{Membership, News};
use lswitch::net::half::WriteHalf;
use lswitch::net::job_link::JobLink;
use lswitch::net::link::{FrameReader, dial};
use lswitch::net::message::{Hello, Notice, Role, Span};
use lswitch::net::server;
use lswitch::net::tls::Identity;
use lswitch::net::token::{Bearer, JobId, Secret};
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A hang ends here, with a message from the test.
pub async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than {seconds} s"),
    }
}

/// Switches on loopback ports, and what is needed to speak with them.
pub struct Net {
    pub addresses: Vec<SwitchAddress>,
    secret: Secret,
    stop: Vec<oneshot::Sender<()>>,
    servers: Vec<JoinHandle<()>>,
}

impl Net {
    /// One switch.
    pub async fn start() -> Net {
        Net::of(1).await
    }

    /// So many switches with one secret.
    pub async fn of(switches: usize) -> Net {
        Net::all((0..switches).map(|_| None)).await
    }

    /// The same, each with a certificate of its own.
    pub async fn sealed(switches: usize) -> Net {
        Net::all((0..switches).map(|_| Some(identity()))).await
    }

    async fn all(identities: impl Iterator<Item = Option<Identity>>) -> Net {
        let mut net = Net {
            addresses: Vec::new(),
            secret: Secret::random(),
            stop: Vec::new(),
            servers: Vec::new(),
        };
        for identity in identities {
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a loopback port is free");
            let address = listener.local_addr().expect("a listener has an address");
            let (stop, stopped) = oneshot::channel();
            let secret = net.secret.clone();
            let pin = identity.as_ref().map(Identity::fingerprint);
            net.servers.push(tokio::spawn(server::run_as(
                identity,
                listener,
                secret,
                server::Limits::default(),
                async {
                    let _ = stopped.await;
                },
            )));
            net.addresses.push(SwitchAddress::new(address, pin));
            net.stop.push(stop);
        }
        net
    }

    /// Switches that run elsewhere, with this secret.
    pub fn at(addresses: Vec<SwitchAddress>, secret: Secret) -> Net {
        Net {
            addresses,
            secret,
            stop: Vec::new(),
            servers: Vec::new(),
        }
    }

    /// Stops the switches and waits until they have.
    pub async fn stop(self) {
        drop(self.stop);
        for server in self.servers {
            within(10, "stopping the switch", server)
                .await
                .expect("the switch did not panic");
        }
    }

    pub fn hello(&self, job: JobId, role: Role) -> Hello {
        let key = self.secret.job_key(job);
        let mut hello = Hello::new(job, key.token(Bearer::Driver, 0), role);
        hello.token = key.token(hello.bearer(), expiry_s());
        hello
    }

    /// The driver of a new job.
    pub async fn driver(&self, job: JobId, size: u32) -> JobLink {
        self.driver_of(job, Membership::Fixed(size)).await
    }

    /// The driver of a new job with this membership.
    pub async fn driver_of(&self, job: JobId, membership: Membership) -> JobLink {
        let token = self.secret.job_key(job).token(Bearer::Driver, expiry_s());
        let within = Duration::from_secs(10);
        let created = JobLink::create(&self.addresses, job, token, membership, within);
        created.await.expect("the switches are there")
    }

    pub fn options(&self, job: JobId, span: Span, size: u32) -> JoinOptions {
        let role = Role::Pack {
            span,
            incarnation: 1,
            epoch: 0,
            mailbox: 1 << 20,
        };
        JoinOptions {
            switches: self.addresses.clone(),
            job,
            token: self.hello(job, role).token,
            span,
            size,
            incarnation: 1,
            epoch: 0,
            join_within: Duration::from_secs(20),
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    /// A job of packs of these sizes, all joined.
    pub async fn job(&self, packs: &[u32]) -> Job {
        let id = JobId::random();
        let spans = spans(packs);
        let size = packs.iter().sum();
        let driver = self.driver(id, size).await;
        let joining: Vec<_> = spans
            .iter()
            .map(|span| tokio::spawn(Pack::join(self.options(id, *span, size))))
            .collect();
        let mut packs = Vec::new();
        for join in joining {
            let pack = within(20, "joining", join).await;
            packs.push(pack.expect("no panic").expect("the pack joins"));
        }
        Job {
            driver,
            packs,
            spans,
            comms: Vec::new(),
        }
    }

    /// A pack of one rank that the test plays itself, frame by frame, with a mailbox of so many bytes.
    pub async fn by_hand(&self, job: JobId, rank: u32, mailbox: u32) -> (FrameReader, WriteHalf) {
        let role = Role::Pack {
            span: one(rank),
            incarnation: 1,
            epoch: 0,
            mailbox,
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let dialled = dial(&self.addresses[0], &self.hello(job, role), deadline).await;
        dialled.expect("the switch welcomes the pack")
    }
}

/// A new certificate.
pub fn identity() -> Identity {
    let (certificate, key) = Identity::make_pem().expect("it can be made");
    Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("they go together")
}

/// A job that has begun.
pub struct Job {
    pub driver: JobLink,
    pub packs: Vec<Pack>,
    spans: Vec<Span>,
    /// One for each rank, from the first run on.
    comms: Vec<Comm>,
}

impl Job {
    /// Runs every rank on a thread of its own; what they return, by rank.
    pub async fn run<T: Send + 'static>(
        &mut self,
        rank: impl Fn(&mut Comm) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        if self.comms.is_empty() {
            for (pack, span) in self.packs.iter().zip(&self.spans) {
                self.comms
                    .extend((0..span.ranks).map(|index| pack.comm(index)));
            }
        }
        let mut ends = Vec::new();
        for mut comm in self.comms.drain(..) {
            let rank = rank.clone();
            let (ended, end) = oneshot::channel();
            std::thread::spawn(move || drop(ended.send((rank(&mut comm), comm))));
            ends.push(end);
        }
        let mut results = Vec::new();
        for (rank, end) in ends.into_iter().enumerate() {
            let end = within(60, &format!("rank {rank}"), end).await;
            let (result, comm) = end.unwrap_or_else(|_| panic!("rank {rank} panicked"));
            results.push(result);
            self.comms.push(comm);
        }
        results
    }

    pub async fn end(self) {
        for pack in self.packs {
            let left = within(20, "leaving", pack.leave(None)).await;
            left.expect("the pack leaves in order");
        }
        within(10, "the driver's leave", self.driver.leave()).await;
    }
}

/// Runs something that blocks on a thread that a failing test does not wait for.
pub fn on_thread<T: Send + 'static>(
    mut comm: Comm,
    rank: impl FnOnce(&mut Comm) -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || drop(ended.send(rank(&mut comm))));
    end
}

fn expiry_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("it is after 1970").as_secs() + 600
}

pub fn one(rank: u32) -> Span {
    Span {
        first_rank: rank,
        ranks: 1,
    }
}

pub fn spans(packs: &[u32]) -> Vec<Span> {
    let mut first_rank = 0;
    let span = |&ranks: &u32| {
        first_rank += ranks;
        Span {
            first_rank: first_rank - ranks,
            ranks,
        }
    };
    packs.iter().map(span).collect()
}

/// Bytes that differ by rank, number and place.
pub fn pattern(from: u32, to: u32, number: u32, length: usize) -> Bytes {
    let seed = from.wrapping_mul(31) ^ to.wrapping_mul(17) ^ number.wrapping_mul(101);
    let byte = |i: usize| {
        (seed as usize)
            .wrapping_add(i.wrapping_mul(7))
            .wrapping_add(i >> 8) as u8
    };
    (0..length).map(byte).collect::<Vec<u8>>().into()
}

pub async fn next_notice(driver: &mut JobLink, matches: impl Fn(&Notice) -> bool) -> Notice {
    let wanted = async {
        loop {
            match driver.next().await.expect("the job goes on") {
                News::Notice(notice) if matches(&notice) => return notice,
                _ => {}
            }
        }
    };
    within(15, "news for the driver", wanted).await
}
