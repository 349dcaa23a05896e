//! Elastic jobs: ranks come and go, and the driver gives them what to do.

use crate::fabric::{Net, one, within};
use bytes::Bytes;
use lswitch::net::client::{MAILBOX_BYTES, Pack};
use lswitch::net::comm::{Comm, CommError};
use lswitch::net::driver_link::{Membership, News};
use lswitch::net::flow::cost;
use lswitch::net::job_link::JobLink;
use lswitch::net::link::LinkError;
use lswitch::net::message::{FEATURE_CRC32, Hello, Notice, Refusal, Role};
use lswitch::net::reassembly::Message;
use lswitch::net::token::JobId;
use tokio::task::JoinHandle;

/// The mark of all messages here.
const TAG: u32 = 7;

const SLOTS: u32 = 8;

async fn create(net: &Net) -> (JobId, JobLink) {
    let job = JobId::random();
    let membership = Membership::Elastic {
        slots: SLOTS,
        at_once: 2,
    };
    (job, net.driver_of(job, membership).await)
}

/// A rank that joins, sends each message back as many times as its first byte says, and leaves when one is empty.
fn echo(net: &Net, job: JobId, rank: u32) -> JoinHandle<Result<(), LinkError>> {
    let options = net.options(job, one(rank), SLOTS);
    tokio::spawn(async move {
        let pack = Pack::join(options).await?;
        let mut comm = pack.comm(0);
        let served = tokio::task::spawn_blocking(move || {
            loop {
                let message = comm.receive_from_driver(TAG)?;
                let Some(times) = message.payload.first() else {
                    return Ok::<Comm, CommError>(comm);
                };
                for _ in 0..*times {
                    comm.send_to_driver(TAG, message.payload.clone())?;
                }
                comm.flush();
            }
        });
        drop(served.await.expect("no panic").expect("the wire holds"));
        pack.leave(None).await
    })
}

/// Waits until a rank has left. The driver sends while it listens.
async fn leaves(rank: JoinHandle<Result<(), LinkError>>, driver: &mut JobLink) {
    let listening = async {
        loop {
            driver.next().await.expect("the job goes on");
        }
    };
    let left = async {
        tokio::select! {
            left = rank => left,
            () = listening => unreachable!("it goes on for ever"),
        }
    };
    within(10, "leaving", left)
        .await
        .expect("no panic")
        .expect("it leaves");
}

/// What the driver hears next, but for what passed through the switch.
async fn next(driver: &mut JobLink) -> News {
    loop {
        let news = within(20, "news", driver.next()).await;
        match news.expect("the job goes on") {
            News::Notice(Notice::Traffic(_)) => {}
            news => return news,
        }
    }
}

async fn message(driver: &mut JobLink) -> Message {
    match next(driver).await {
        News::Message(message) => message,
        news => panic!("this is no message: {news:?}"),
    }
}

async fn joined(driver: &mut JobLink, rank: u32) {
    let news = next(driver).await;
    let is_it = matches!(&news, News::Notice(Notice::Joined { span, .. }) if *span == one(rank));
    assert!(is_it, "{news:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_come_and_go_and_the_driver_speaks_with_each() {
    for switches in [1, 2] {
        let net = Net::of(switches).await;
        let (job, mut driver) = create(&net).await;
        let first = echo(&net, job, 0);
        joined(&mut driver, 0).await;
        assert!(matches!(
            next(&mut driver).await,
            News::Notice(Notice::Started)
        ));
        assert!(!driver.send(1, TAG, b"nobody is there"));
        assert!(driver.send(0, TAG, b"\x02to the first"));
        for _ in 0..2 {
            let message = message(&mut driver).await;
            assert_eq!(
                (message.source, &message.payload[1..]),
                (0, &b"to the first"[..])
            );
        }

        let second = echo(&net, job, 5);
        joined(&mut driver, 5).await;
        assert!(driver.send(0, TAG, b""));
        let left = next(&mut driver).await;
        assert!(
            matches!(left, News::Notice(Notice::Left { span, failure: None }) if span == one(0))
        );
        assert!(!driver.send(0, TAG, b"it has left"));
        leaves(first, &mut driver).await;

        // A rank is used once, whatever the number of its start.
        let mut again = net.options(job, one(0), SLOTS);
        again.incarnation = 2;
        let role = Role::Pack {
            span: one(0),
            incarnation: 2,
            epoch: 0,
            mailbox: 0,
        };
        again.token = net.hello(job, role).token;
        let Err(LinkError::Refused(refused)) = Pack::join(again).await.map(drop) else {
            panic!("a rank that has been there joins again");
        };
        assert_eq!(refused.code, Refusal::Begun);
        assert!(refused.reason.contains("used once"), "{}", refused.reason);

        assert!(driver.send(5, TAG, b"\x01"));
        assert_eq!(message(&mut driver).await.source, 5);
        assert!(driver.send(5, TAG, b""));
        leaves(second, &mut driver).await;
        driver.leave().await;
        net.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_is_sent_no_more_than_it_has_room_for_and_all_of_it_arrives() {
    let net = Net::of(1).await;
    let (job, mut driver) = create(&net).await;
    let worker = echo(&net, job, 3);
    joined(&mut driver, 3).await;
    let most = MAILBOX_BYTES as u64 - cost(0);
    assert!(!driver.send(3, TAG, &vec![1; most as usize + 1]));
    // Some megabytes at a time: more than its mailbox in all.
    let mut load = vec![9_u8; 3 << 20];
    load[0] = 1;
    let (mut sent, mut back) = (0, 0);
    while back < 40 {
        while sent < 40 && driver.send(3, TAG, &load) {
            sent += 1;
        }
        assert!(sent - back <= 11, "the mailbox is 32 MiB");
        if let News::Message(message) = next(&mut driver).await {
            assert!(message.payload == load, "the bytes differ");
            back += 1;
        }
    }
    assert!(driver.send(3, TAG, b""));
    leaves(worker, &mut driver).await;
    driver.leave().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_is_told_and_the_others_go_on() {
    let net = Net::of(1).await;
    let (job, mut driver) = create(&net).await;
    let worker = echo(&net, job, 0);
    joined(&mut driver, 0).await;
    next(&mut driver).await;
    let other = net.by_hand(job, 1, 1 << 20).await;
    joined(&mut driver, 1).await;
    assert!(driver.send(1, TAG, b"\x01lost with it"));
    drop(other);
    let lost = next(&mut driver).await;
    assert!(matches!(lost, News::Notice(Notice::Lost { span, .. }) if span == one(1)));
    assert!(!driver.send(1, TAG, b"it is gone"));
    assert!(driver.send(0, TAG, b"\x01still there"));
    assert_eq!(message(&mut driver).await.source, 0);
    assert!(driver.send(0, TAG, b""));
    leaves(worker, &mut driver).await;
    driver.leave().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_need_the_others_are_refused_in_words() {
    let net = Net::of(1).await;
    let (job, driver) = create(&net).await;
    let pack = Pack::join(net.options(job, one(0), SLOTS)).await.unwrap();
    let mut comm = pack.comm(0);
    let said = tokio::task::spawn_blocking(move || {
        let barrier = comm.barrier().expect_err("there are no collectives");
        let sent = comm.send(1, 0, Bytes::new()).expect_err("who is that?");
        comm.counter("kept").add(2).expect("shared state is there");
        comm.send(0, 0, Bytes::from_static(b"to itself")).unwrap();
        comm.receive(None, 0).unwrap();
        (barrier.to_string(), sent.to_string())
    });
    let (barrier, sent) = said.await.unwrap();
    assert!(
        barrier.contains("only fixed jobs have collectives"),
        "{barrier}"
    );
    assert!(sent.contains("do not know each other"), "{sent}");
    pack.leave(None).await.unwrap();
    driver.leave().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_a_rank_that_asks_for_crc_32_carry_it() {
    use lswitch::net::frame::{DRIVER, FLAG_CRC32, Header, chunks, kind};
    use lswitch::net::link::dial;
    use tokio::io::AsyncWriteExt;

    let net = Net::of(1).await;
    let (job, mut driver) = create(&net).await;
    let role = Role::Pack {
        span: one(2),
        incarnation: 1,
        epoch: 0,
        mailbox: 1 << 20,
    };
    let hello = Hello {
        features: u64::from(FEATURE_CRC32),
        ..net.hello(job, role)
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let (mut reader, mut write) = dial(&net.addresses[0], &hello, deadline).await.unwrap();
    joined(&mut driver, 2).await;
    next(&mut driver).await;
    let long: Vec<u8> = (0..200_000_u32).map(|at| (at * 7) as u8).collect();
    assert!(driver.send(2, TAG, &long));
    // The driver writes while it listens.
    let listening = tokio::spawn(async move { (message(&mut driver).await, driver) });
    let mut found = Vec::new();
    loop {
        let frame = within(10, "a chunk", reader.next()).await.unwrap();
        if frame.header.kind != kind::DATA {
            continue;
        }
        assert_ne!(frame.header.flags & FLAG_CRC32, 0);
        found.extend_from_slice(&frame.body);
        if found.len() == 8 + long.len() + 4 {
            break;
        }
    }
    let (head, tail) = found.split_at(8 + long.len());
    assert_eq!(head[8..], long);
    assert_eq!(tail, crc32fast::hash(&long).to_le_bytes());

    // And one of this kind is taken.
    let route = Header {
        flags: FLAG_CRC32,
        tag: TAG,
        source: 2,
        destination: DRIVER,
        ..Header::default()
    };
    let mut bytes = bytes::BytesMut::new();
    chunks(route, &long).for_each(|frame| frame.put(&mut bytes));
    write.write_all(&bytes).await.unwrap();
    let (heard, driver) = within(10, "the message", listening).await.unwrap();
    assert!(heard.payload == long);
    driver.leave().await;
    net.stop().await;
}
