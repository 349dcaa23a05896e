//! Many connections at one switch: all join, pass a barrier, and cost little while they are idle.

use crate::fabric::{Net, one, within};
use crate::support::{Place, alone};
use lswitch::net::address::SwitchAddress;
use lswitch::net::collective::{Operation, Part};
use lswitch::net::element::{Element, Fold};
use lswitch::net::frame::{Frame, Header, SWITCH, kind};
use lswitch::net::link::dial;
use lswitch::net::message::Role;
use lswitch::net::token::JobId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// Descriptors of this process that are not connections.
const OTHERS: u64 = 500;

/// As many connections as are asked for, if the system allows so many descriptors.
fn allowed(wanted: u32) -> u32 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX).min(u64::from(wanted) + OTHERS);
    let raised = Rlimit {
        current: Some(most),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the limit may be raised to the hard one");
    wanted.min((most - OTHERS) as u32)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_join_one_job_and_pass_a_barrier() {
    let _alone = alone().await;
    let size = allowed(10_000);
    let place = Place::new();
    // The clients are in this process and the switch in another, since each end takes a descriptor.
    let (switch, address) = place.switch();
    let address: SwitchAddress = address.parse().expect("an address");
    let net = Net::at(vec![address.clone()], place.secret());
    let job = JobId::random();
    let mut driver = net.driver(job, size).await;
    let hearing = tokio::spawn(async move { while driver.next().await.is_ok() {} });
    let before = switch.memory("VmRSS");
    let mut joining = JoinSet::new();
    let mut ends = Vec::new();
    for rank in 0..size {
        let role = Role::Pack {
            span: one(rank),
            incarnation: 1,
            epoch: 0,
            mailbox: 1 << 20,
        };
        let hello = net.hello(job, role);
        let address = address.clone();
        joining.spawn(async move {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            let (reader, writer) = dial(&address, &hello, deadline).await.expect("welcome");
            (rank, reader, writer)
        });
        // Not more at once than a listener's backlog takes.
        if joining.len() == 256 {
            let joined = within(60, "joining", joining.join_next()).await;
            ends.push(joined.expect("one was joining").expect("no panic"));
        }
    }
    while let Some(joined) = within(60, "joining", joining.join_next()).await {
        ends.push(joined.expect("no panic"));
    }
    let operation = Operation::Fold(Fold::Max, Element::U64).code();
    for (rank, _, writer) in &mut ends {
        let part = Part {
            operation,
            root: None,
            shape: 0,
            total: 0,
            data: &[],
        };
        let header = Header {
            kind: kind::CONTRIBUTE,
            tag: operation,
            source: *rank,
            destination: SWITCH,
            ..Header::default()
        };
        let mut bytes = Vec::new();
        Frame::new(header, part.prefix().to_vec().into()).put(&mut bytes);
        within(10, "contributing", writer.write_all(&bytes))
            .await
            .expect("the switch reads");
    }
    for (rank, reader, _) in &mut ends {
        loop {
            let frame = within(30, "the barrier", reader.next()).await;
            let frame = frame.unwrap_or_else(|error| panic!("rank {rank}: {error}"));
            match frame.header.kind {
                kind::COMBINED => break,
                kind::START | kind::HEARTBEAT => {}
                other => panic!("rank {rank} was told {other:#04x}"),
            }
        }
    }
    // What was queued for all at once is given back within two ticks.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let each = (switch.memory("VmRSS") - before) as f64 / 1024.0 / f64::from(size);
    println!("{size} connections passed a barrier; {each:.1} KiB each in the switch");
    assert!(each <= 8.0, "{each:.1} KiB for each of {size} connections");
    drop(ends);
    hearing.abort();
}
