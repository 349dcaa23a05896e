//! Switch, packs and drivers over real sockets on loopback, and what strangers on the port are told.

use crate::fabric::{Job, Net, next_notice, on_thread, one, pattern, within};
use bytes::{Bytes, BytesMut};
use lswitch::net::client::{MAILBOX_BYTES, Pack};
use lswitch::net::comm::{Comm, CommError};
use lswitch::net::driver_link::News;
use lswitch::net::element::Fold;
use lswitch::net::flow::{MESSAGE_COST, cost, share};
use lswitch::net::frame::{
    BODY_MAX, CHUNK_MAX, FLAG_SKIPPABLE, Frame, Header, PREAMBLE, chunks, kind,
};
use lswitch::net::link::{FrameReader, LinkError};
use lswitch::net::message::{Control, Notice, Refusal, Refused, Role, Span, bare_frame};
use lswitch::net::reassembly::Reassembly;
use lswitch::net::token::JobId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

/// The preamble and one refusal, and then the end.
async fn refusal_on(stream: &mut TcpStream) -> Refused {
    let mut answer = Vec::new();
    let read = within(8, "the switch's answer", stream.read_to_end(&mut answer)).await;
    read.expect("the connection is closed and not reset");
    let mut answer = BytesMut::from(
        answer
            .strip_prefix(PREAMBLE)
            .expect("a preamble comes first"),
    );
    let frame = Frame::decode(&mut answer, BODY_MAX).expect("a frame");
    let frame = frame.expect("the whole frame");
    assert_eq!((frame.header.kind, answer.len()), (kind::REFUSED, 0));
    Refused::from_body(&frame.body).expect("a reason")
}

/// What a switch answers to these bytes, until it closes.
async fn answer_to(net: &Net, bytes: &[u8]) -> Refused {
    let mut stream = TcpStream::connect(&net.addresses[0])
        .await
        .expect("the switch listens");
    stream.write_all(bytes).await.expect("it takes some bytes");
    refusal_on(&mut stream).await
}

/// The next frame of this kind; the others before it are dropped.
async fn next_of(reader: &mut FrameReader, kind: u8) -> Frame {
    loop {
        let frame = reader.next().await.expect("the switch lives");
        if frame.header.kind == kind {
            return frame;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size_arrive_in_order_between_packs_and_inside_one() {
    const SIZES: [usize; 8] = [
        0,
        1,
        1000,
        CHUNK_MAX - 1,
        CHUNK_MAX,
        CHUNK_MAX + 1,
        2 * CHUNK_MAX,
        3_000_017,
    ];
    let net = Net::start().await;
    let mut job = net.job(&[1, 3, 2]).await;
    job.run(|comm| {
        let (me, size) = (comm.rank(), comm.size());
        for (number, length) in (0..).zip(SIZES) {
            for to in 0..size {
                comm.send(to, 5, pattern(me, to, number, length))
                    .expect("sent");
            }
        }
        // By source, from the last to the first, and each source's in order.
        for from in (0..size).rev() {
            for (number, length) in (0..).zip(SIZES) {
                let message = comm.receive(Some(from), 5).expect("it was sent");
                assert_eq!((message.source, message.tag), (from, 5));
                assert_eq!(
                    message.payload,
                    pattern(from, me, number, length),
                    "{from}->{me} {number}"
                );
            }
        }
    })
    .await;
    job.run(|comm| {
        let (me, size) = (comm.rank(), comm.size());
        for number in 0..20 {
            for to in 0..size {
                let tag = 10 + number % 2;
                comm.send(to, tag, pattern(me, to, number, 64))
                    .expect("sent");
            }
        }
        // From any source, the later tag first; order is kept for each source.
        for tag in [11, 10] {
            let mut next = vec![tag - 10; size as usize];
            for _ in 0..10 * size {
                let message = comm.receive(None, tag).expect("it was sent");
                let number = &mut next[message.source as usize];
                assert_eq!(message.payload, pattern(message.source, me, *number, 64));
                *number += 2;
            }
            assert!(next.iter().all(|&number| number == 20 + tag - 10));
        }
        let refused = comm.send(size, 0, Bytes::new()).expect_err("no such rank");
        assert_eq!(
            refused.to_string(),
            format!("rank {me} sent to rank 6 of a job of 6 ranks")
        );
    })
    .await;
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_waits_for_room_in_its_pack_goes_on_when_its_message_is_received_first() {
    let net = Net::start().await;
    let mut job = net.job(&[3]).await;
    let begun = Instant::now();
    job.run(|comm| {
        let whole = MAILBOX_BYTES as usize / 3;
        let early = pattern(2, 0, 1, whole);
        let late = pattern(1, 0, 2, whole);
        for _ in 0..4 {
            // The first lies in the mailbox, so that there is no room for the second.
            if comm.rank() == 2 {
                comm.send(0, 1, early.clone()).expect("sent");
            }
            comm.barrier().expect("all ranks take part");
            if comm.rank() == 1 {
                comm.send(0, 2, late.clone()).expect("sent");
            }
            if comm.rank() == 0 {
                // Meanwhile rank 1 has come to wait.
                assert_eq!(pattern(1, 0, 2, whole), late);
                let second = comm.receive(Some(1), 2).expect("it waits to be sent");
                assert!(second.payload == late, "it is what was sent");
                let first = comm.receive(Some(2), 1).expect("it was sent");
                assert!(first.payload == early, "it is what was sent");
            }
        }
    })
    .await;
    // A wait that nobody ends looks again after 5 s.
    let seconds = begun.elapsed().as_secs_f64();
    assert!(seconds < 5.0, "it took {seconds} s");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rank_passes_a_barrier_before_the_last_has_come() {
    let net = Net::start().await;
    let mut job = net.job(&[2, 1, 1]).await;
    let come = Arc::new(AtomicU64::new(0));
    job.run(move |comm| {
        for round in 1..=50 {
            come.fetch_add(1, Ordering::SeqCst);
            comm.barrier().expect("all ranks take part");
            assert!(come.load(Ordering::SeqCst) >= 4 * round);
        }
    })
    .await;
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_that_all_send_before_they_receive_do_not_deadlock() {
    const LENGTH: usize = 256 * 1024;
    let net = Net::start().await;
    let mut job = net.job(&[1, 1, 1, 1]).await;
    // 200 messages in rounds; in each, all of a round is sent before any of it is received.
    let message = pattern(1, 2, 3, LENGTH);
    job.run(move |comm| {
        let others: Vec<u32> = (0..comm.size())
            .filter(|&rank| rank != comm.rank())
            .collect();
        for round in 0..5 {
            for _ in 0..40 {
                for &to in &others {
                    comm.send(to, round, message.clone()).expect("sent");
                }
            }
            for &from in &others {
                for _ in 0..40 {
                    let received = comm.receive(Some(from), round).expect("it was sent");
                    assert_eq!(received.payload, message);
                }
            }
        }
        assert_eq!(comm.sent(), (600, 600 * LENGTH as u64));
    })
    .await;
    job.end().await;
    net.stop().await;
}

/// A rank by hand that receives what it is sent, as docs/PROTOCOL.md says: it grants what is announced, and gives credit
/// back message by message.
async fn receive_by_hand(
    rank: u32,
    reader: &mut FrameReader,
    write: &mut OwnedWriteHalf,
    mut done: impl FnMut(lswitch::net::reassembly::Message) -> bool,
) {
    let mut reassembly = Reassembly::default();
    let mut granted = std::collections::HashSet::new();
    loop {
        let Frame { header, body } = reader.next().await.expect("the switch lives");
        let back = Header {
            source: rank,
            destination: header.source,
            ..Header::default()
        };
        let answer = match header.kind {
            kind::ANNOUNCE => {
                granted.insert((header.source, header.sequence));
                let sequence = header.sequence;
                let kind = kind::GRANT;
                Frame::new(
                    Header {
                        kind,
                        sequence,
                        ..back
                    },
                    Bytes::new(),
                )
            }
            kind::DATA => {
                let message = reassembly
                    .accept(header, &body)
                    .expect("in order and whole");
                let Some(message) = message else { continue };
                let bytes = cost(message.payload.len());
                if done(message) {
                    return;
                }
                if granted.remove(&(header.source, header.sequence)) {
                    continue;
                }
                let body = Bytes::copy_from_slice(&bytes.to_le_bytes());
                Frame::new(
                    Header {
                        kind: kind::CREDIT,
                        ..back
                    },
                    body,
                )
            }
            kind::HEARTBEAT | kind::START => continue,
            other => panic!("a frame of kind {other:#04x}"),
        };
        let mut bytes = BytesMut::new();
        answer.put(&mut bytes);
        write.write_all(&bytes).await.expect("the switch listens");
    }
}

/// Two ranks that exchange messages, each in a process of its own.
fn talk(comm: Comm, peer: u32) -> tokio::sync::oneshot::Receiver<()> {
    on_thread(comm, move |comm| {
        for number in 0..200 {
            let mine = pattern(comm.rank(), peer, number, 5_000);
            comm.send(peer, 1, mine).expect("sent");
            let received = comm.receive(Some(peer), 1).expect("it was sent");
            assert_eq!(received.payload, pattern(peer, comm.rank(), number, 5_000));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_reads_nothing_holds_up_only_those_who_send_to_it_and_fills_no_memory() {
    const MAILBOX: u32 = 1 << 20;
    const LENGTH: usize = 100_000;
    const COUNT: u32 = 300;
    let net = Net::start().await;
    let id = JobId::random();
    let driver = net.driver(id, 4).await;
    let joining = [0, 2, 3].map(|rank| tokio::spawn(Pack::join(net.options(id, one(rank), 4))));
    // Rank 1 joins, and then reads nothing.
    let (mut reader, mut write) = net.by_hand(id, 1, MAILBOX).await;
    let mut packs = Vec::new();
    for join in joining {
        let pack = within(10, "joining", join).await.expect("no panic");
        packs.push(pack.expect("it joins"));
    }
    let sent = Arc::new(AtomicU64::new(0));
    let sender = on_thread(packs[0].comm(0), {
        let sent = sent.clone();
        move |comm| {
            for number in 0..COUNT {
                comm.send(1, number, pattern(0, 1, number, LENGTH))?;
                sent.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<(), CommError>(())
        }
    });
    let (two, three) = (talk(packs[1].comm(0), 3), talk(packs[2].comm(0), 2));
    within(10, "the others' talk", async { (two.await, three.await) })
        .await
        .0
        .expect("no panic");
    // What the credit allows arrives, then the announcement, and then nothing, however long one waits: whole heartbeats here.
    let on_credit = share(MAILBOX, 4) / (LENGTH as u64 + MESSAGE_COST);
    let mut arrived = Vec::new();
    let mut beats = 0;
    within(10, "what is under way", async {
        while beats < 3 {
            let mut beat = BytesMut::new();
            let frame = reader.next().await.expect("the switch lives");
            match frame.header.kind {
                kind::HEARTBEAT => beats += 1,
                kind::START => {}
                _ => {
                    let is_last = frame.header.kind == kind::ANNOUNCE;
                    arrived.push(frame);
                    if !is_last {
                        continue;
                    }
                }
            }
            bare_frame(kind::HEARTBEAT, false).put(&mut beat);
            write.write_all(&beat).await.expect("the switch listens");
        }
    })
    .await;
    let announcement = arrived.pop().expect("something came").header;
    assert_eq!(
        (announcement.kind, announcement.sequence, announcement.tag),
        (kind::ANNOUNCE, on_credit, on_credit as u32)
    );
    assert!(arrived.iter().all(|frame| frame.header.kind == kind::DATA));
    assert_eq!(
        sent.load(Ordering::SeqCst),
        on_credit,
        "the sender still waits"
    );
    let bytes: u64 = arrived.iter().map(|frame| frame.body.len() as u64).sum();
    assert!(bytes <= share(MAILBOX, 4), "{bytes} bytes were under way");

    let granted = Frame::new(
        Header {
            kind: kind::GRANT,
            source: 1,
            destination: 0,
            sequence: on_credit,
            ..Header::default()
        },
        Bytes::new(),
    );
    let mut bytes = BytesMut::new();
    granted.put(&mut bytes);
    write.write_all(&bytes).await.expect("the switch listens");
    let first = next_of(&mut reader, kind::DATA);
    let first = within(5, "the granted message", first).await;
    assert_eq!(first.header.sequence, on_credit);
    // When it is lost the rest goes nowhere, and the sender need not wait for that.
    drop((reader, write));
    let outcome = within(10, "the sender", sender).await.expect("no panic");
    outcome.expect("what it sends is dropped");
    drop((packs, driver));
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_written_from_the_protocol_receives_more_than_its_mailbox_holds() {
    const LENGTHS: [usize; 4] = [0, 1000, 300_000, 2_000_000];
    const COUNT: u32 = 100;
    let net = Net::start().await;
    let id = JobId::random();
    let _driver = net.driver(id, 3).await;
    let joining = [0, 2].map(|rank| tokio::spawn(Pack::join(net.options(id, one(rank), 3))));
    let (mut reader, mut write) = net.by_hand(id, 1, 1 << 20).await;
    let mut senders = Vec::new();
    let mut packs = Vec::new();
    for join in joining {
        let pack = within(10, "joining", join).await.expect("no panic");
        let pack = pack.expect("it joins");
        senders.push(on_thread(pack.comm(0), |comm| {
            for number in 0..COUNT {
                let length = LENGTHS[number as usize % LENGTHS.len()];
                comm.send(1, 0, pattern(comm.rank(), 1, number, length))
                    .expect("sent");
            }
        }));
        packs.push(pack);
    }
    let mut next = [0; 3];
    let receiving = receive_by_hand(1, &mut reader, &mut write, |message| {
        let number = &mut next[message.source as usize];
        let length = LENGTHS[*number as usize % LENGTHS.len()];
        assert_eq!(message.payload, pattern(message.source, 1, *number, length));
        *number += 1;
        next == [COUNT, 0, COUNT]
    });
    within(20, "receiving", receiving).await;
    for sender in senders {
        within(5, "a sender", sender).await.expect("no panic");
    }
    drop(packs);
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_does_not_receive_holds_up_only_those_who_send_to_it() {
    const LENGTH: usize = 1 << 20;
    const COUNT: u64 = 100;
    let net = Net::start().await;
    let job = net.job(&[1, 1, 1, 1]).await;
    let (receive, told) = std::sync::mpsc::channel::<()>();
    let receiver = on_thread(job.packs[1].comm(0), move |comm| {
        told.recv().expect("it is told to receive");
        for number in 0..COUNT as u32 {
            let message = comm.receive(Some(0), number).expect("it was sent");
            assert_eq!(message.payload, pattern(0, 1, number, LENGTH));
        }
    });
    let sent = Arc::new(AtomicU64::new(0));
    let sender = on_thread(job.packs[0].comm(0), {
        let sent = sent.clone();
        move |comm| {
            for number in 0..COUNT {
                let message = pattern(0, 1, number as u32, LENGTH);
                comm.send(1, number as u32, message).expect("sent");
                sent.store(number + 1, Ordering::SeqCst);
            }
        }
    });
    let (two, three) = (talk(job.packs[2].comm(0), 3), talk(job.packs[3].comm(0), 2));
    within(10, "the others' talk", async { (two.await, three.await) })
        .await
        .0
        .expect("no panic");
    // Its share in credit, and as much as there is room for in grants.
    let most = share(MAILBOX_BYTES, 4) + u64::from(MAILBOX_BYTES);
    let so_far = sent.load(Ordering::SeqCst);
    assert!(so_far * cost(LENGTH) <= most, "{so_far} messages are away");
    receive.send(()).expect("it listens");
    within(10, "the sender", sender).await.expect("no panic");
    within(10, "the receiver", receiver)
        .await
        .expect("no panic");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_any_credit_waits_until_it_is_received() {
    const LENGTH: usize = MAILBOX_BYTES as usize + 1_000_000;
    let net = Net::start().await;
    let job = net.job(&[1, 1]).await;
    let received = Arc::new(AtomicU64::new(0));
    let sender = on_thread(job.packs[0].comm(0), {
        let received = received.clone();
        move |comm| {
            comm.send(1, 5, pattern(0, 1, 0, LENGTH)).expect("sent");
            let asked_for = received.load(Ordering::SeqCst);
            let message = comm.receive(Some(1), 5).expect("it was sent");
            assert_eq!(message.payload, pattern(1, 0, 0, LENGTH));
            asked_for
        }
    });
    let receiver = on_thread(job.packs[1].comm(0), move |comm| {
        // To itself and back, which gives the other time to send what it may not.
        for _ in 0..50 {
            comm.flush();
            std::thread::yield_now();
            comm.send(1, 0, Bytes::new()).expect("sent");
            comm.receive(Some(1), 0).expect("it was sent");
        }
        received.store(1, Ordering::SeqCst);
        let message = comm.receive(Some(0), 5).expect("it was sent");
        assert_eq!(message.payload, pattern(0, 1, 0, LENGTH));
        comm.send(0, 5, pattern(1, 0, 0, LENGTH)).expect("sent");
    });
    let asked_for = within(20, "the sender", sender).await.expect("no panic");
    assert_eq!(asked_for, 1, "it was sent before it was received");
    within(20, "the receiver", receiver)
        .await
        .expect("no panic");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_work_with_synchronous_sends_work_whatever_their_messages_lengths() {
    const RANKS: u32 = 10;
    let net = Net::start().await;
    // Eight ranks share a pack's room: a message of 6,000,000 bytes is more than a mailbox, one of 3,000,000 than a share.
    for layout in [&[8, 2][..], &[5, 5], &[10], &[1, 8, 1]] {
        let mut job = net.job(layout).await;
        for seed in 0..3u64 {
            // One order of all messages, which every rank keeps: each in turn could be handed over.
            let mut random = seed;
            let mut below = move |bound: u32| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as u32 % bound
            };
            let messages: Vec<(u32, u32, u32, usize)> = (0..60)
                .map(|_| {
                    let source = below(RANKS);
                    let destination = (source + 1 + below(RANKS - 1)) % RANKS;
                    let length = [0, 1, 5_000, 100_000, 3_000_000, 6_000_000][below(6) as usize];
                    (source, destination, below(3), length)
                })
                .collect();
            job.run(move |comm| {
                for (number, &(source, destination, tag, length)) in (0..).zip(&messages) {
                    let payload = || pattern(source, destination, number, length);
                    if comm.rank() == source {
                        comm.send(destination, tag, payload()).expect("sent");
                    } else if comm.rank() == destination {
                        let message = comm.receive(Some(source), tag).expect("it was sent");
                        assert_eq!(message.payload.len(), length, "{source}->{destination}");
                        assert!(message.payload == payload(), "{source}->{destination}");
                    }
                }
            })
            .await;
        }
        job.end().await;
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_to_a_rank_that_is_done_does_not_wait_for_it() {
    const LENGTH: usize = MAILBOX_BYTES as usize + 1_000_000;
    let net = Net::start().await;
    let job = net.job(&[1, 2]).await;
    // More than there is room for, from its own pack and from another; at the time it ends some of it waits.
    let send = |comm: &mut Comm| {
        let message = Bytes::from(vec![1; LENGTH]);
        for _ in 0..3 {
            comm.send(1, 0, message.clone()).expect("sent");
        }
        for _ in 0..500 {
            comm.send(1, 0, message.slice(..200_000)).expect("sent");
        }
    };
    let far = on_thread(job.packs[0].comm(0), send);
    let near = on_thread(job.packs[1].comm(1), send);
    let done = on_thread(job.packs[1].comm(0), |comm| {
        comm.receive(Some(0), 0).expect("it was sent");
        comm.receive(Some(2), 0).expect("it was sent");
    });
    within(20, "the rank that is done", done)
        .await
        .expect("no panic");
    within(20, "the other pack", far).await.expect("no panic");
    within(20, "its own pack", near).await.expect("no panic");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_receives_a_message_larger_than_any_credit() {
    const LENGTH: usize = 70 << 20;
    let net = Net::start().await;
    let mut job = net.job(&[1]).await;
    let sender = on_thread(job.packs[0].comm(0), |comm| {
        for number in 0..3 {
            let length = if number == 1 { LENGTH } else { 10 };
            let message = Bytes::from(vec![number as u8; length]);
            comm.send_to_driver(number, message).expect("sent");
        }
    });
    let hear = async {
        let mut next = 0;
        while next < 3 {
            if let News::Message(message) = job.driver.next().await.expect("the job goes on") {
                let length = if next == 1 { LENGTH } else { 10 };
                assert_eq!((message.tag, message.payload.len()), (next, length));
                assert!(message.payload.iter().all(|&byte| byte == next as u8));
                next += 1;
            }
        }
    };
    within(20, "the driver's messages", hear).await;
    within(5, "the sender", sender).await.expect("no panic");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_port_are_told_so_and_disturb_nobody() {
    let net = Net::start().await;
    let mut job = net.job(&[1, 1]).await;
    let mut garbage = pattern(1, 2, 3, 200_000).to_vec();
    garbage[0] = b'x';
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n".as_slice(),
        b"LSWITCX\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &garbage,
    ] {
        let refused = answer_to(&net, bytes).await;
        assert_eq!(refused.code, Refusal::Protocol);
        assert_eq!(
            refused.reason,
            "these are not the first bytes of an lswitch client"
        );
    }
    let with_preamble = |frame: &[u8]| [PREAMBLE.as_slice(), frame].concat();
    let mut huge = BytesMut::new();
    bare_frame(kind::HELLO, false).put(&mut huge);
    huge[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = answer_to(&net, &with_preamble(&huge)).await;
    assert!(
        refused
            .reason
            .contains("4294967295 bytes, over the limit of 512"),
        "{}",
        refused.reason
    );
    let mut unknown = BytesMut::new();
    bare_frame(0x7f, false).put(&mut unknown);
    let refused = answer_to(&net, &with_preamble(&unknown)).await;
    assert!(
        refused.reason.contains("unknown kind 0x7f"),
        "{}",
        refused.reason
    );
    let mut early = BytesMut::new();
    bare_frame(kind::HEARTBEAT, false).put(&mut early);
    let refused = answer_to(&net, &with_preamble(&early)).await;
    assert!(refused.reason.contains("not a hello"), "{}", refused.reason);

    job.run(|comm| comm.barrier().expect("the job goes on"))
        .await;
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_no_hello_is_closed_after_two_seconds() {
    let net = Net::start().await;
    let begun = Instant::now();
    let connect = async || {
        TcpStream::connect(&net.addresses[0])
            .await
            .expect("it listens")
    };
    let (mut mute, mut half) = (connect().await, connect().await);
    half.write_all(&PREAMBLE[..3]).await.expect("sent");
    let mut trickling = connect().await;
    let hello = net.hello(
        JobId::random(),
        Role::Driver {
            size: 1,
            mailbox: 0,
        },
    );
    let mut bytes = BytesMut::from(&PREAMBLE[..]);
    hello.to_frame(false).put(&mut bytes);
    let last = bytes.len() - 1;
    trickling.write_all(&bytes[..last]).await.expect("sent");
    for stream in [&mut mute, &mut half, &mut trickling] {
        let refused = refusal_on(stream).await;
        assert_eq!(refused.code, Refusal::Silent);
        assert_eq!(refused.reason, "no valid hello came within 2 s");
    }
    let took = begun.elapsed().as_secs_f64();
    assert!((2.0..6.0).contains(&took), "it took {took} s");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_compute_in_silence_are_kept_by_their_heartbeats() {
    let net = Net::start().await;
    let mut job = net.job(&[1, 2]).await;
    let ranks = job.run(|comm| {
        std::thread::sleep(Duration::from_millis(12_500));
        comm.barrier().expect("the job lives")
    });
    ranks.await;
    let lost = |notice: &Notice| matches!(notice, Notice::Lost { .. } | Notice::Traffic(_));
    let news = next_notice(&mut job.driver, lost).await;
    assert!(matches!(news, Notice::Traffic(_)), "{news:?}");
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_leaves_waits_until_what_it_sent_is_through() {
    let net = Net::start().await;
    let job = net.job(&[1, 1]).await;
    let Job {
        driver, mut packs, ..
    } = job;
    let (receiver, sender) = (packs.pop().expect("two"), packs.pop().expect("two"));
    let sent = on_thread(sender.comm(0), |comm| {
        for number in 0..100 {
            comm.send(1, 3, pattern(0, 1, number, 300_000))
                .expect("sent");
        }
    });
    within(10, "sending", sent).await.expect("no panic");
    within(10, "leaving", sender.leave(None))
        .await
        .expect("in order");
    let received = on_thread(receiver.comm(0), |comm| {
        for number in 0..100 {
            let message = comm
                .receive(Some(0), 3)
                .expect("it was sent before the leave");
            assert_eq!(message.payload, pattern(0, 1, number, 300_000));
        }
        // To a rank that left: not the sender's fault.
        comm.send(0, 3, Bytes::from_static(b"too late"))
            .expect("sent");
    });
    within(10, "receiving", received).await.expect("no panic");
    within(10, "leaving", receiver.leave(None))
        .await
        .expect("in order");
    within(10, "the driver", driver.leave()).await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_leaves_waits_for_a_slow_receiver_as_long_as_the_switch_lives() {
    let net = Net::start().await;
    let id = JobId::random();
    let _driver = net.driver(id, 2).await;
    let joining = tokio::spawn(Pack::join(net.options(id, one(0), 2)));
    let (mut reader, write) = net.by_hand(id, 1, u32::MAX).await;
    let pack = within(10, "joining", joining)
        .await
        .expect("no panic")
        .expect("it joins");
    let payload = pattern(0, 1, 0, 1 << 20);
    const COUNT: u32 = 100;
    // Since when everything is sent, and the pack only waits to leave.
    let leaving = Arc::new(OnceLock::<Instant>::new());
    let slow = tokio::spawn({
        let (leaving, payload) = (leaving.clone(), payload.clone());
        let mut write = write;
        async move {
            let mut reassembly = Reassembly::default();
            let mut number = 0;
            while number < COUNT {
                let frame = reader.next().await.expect("the switch has more");
                if frame.header.kind == kind::DATA
                    && let Some(message) = reassembly
                        .accept(frame.header, &frame.body)
                        .expect("in order and whole")
                {
                    assert_eq!((message.tag, &message.payload), (number, &payload));
                    number += 1;
                    let mut beat = BytesMut::new();
                    bare_frame(kind::HEARTBEAT, false).put(&mut beat);
                    write.write_all(&beat).await.expect("the switch listens");
                    // So slow that the leave lasts longer than any peer may be silent.
                    let pause_ms = match leaving.get() {
                        None => 10,
                        Some(since) if since.elapsed().as_millis() < 11_000 => 2_000,
                        Some(_) => 0,
                    };
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                }
            }
            (reader, write)
        }
    });
    let sent = on_thread(pack.comm(0), move |comm| {
        for number in 0..COUNT {
            comm.send(1, number, payload.clone()).expect("sent");
        }
        leaving.set(Instant::now()).expect("set once");
    });
    within(30, "sending", sent).await.expect("no panic");
    within(30, "leaving", pack.leave(None))
        .await
        .expect("in order");
    within(30, "the slow receiver", slow)
        .await
        .expect("it got everything");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_lasts_until_the_deadline_names_whom_it_waited_for() {
    let net = Net::start().await;
    let id = JobId::random();
    let driver = net.driver(id, 3).await;
    let mut options = net.options(
        id,
        Span {
            first_rank: 0,
            ranks: 2,
        },
        3,
    );
    options.deadline = Instant::now() + Duration::from_millis(2_500);
    let joining = tokio::spawn(Pack::join(options));
    // It joins and neither sends nor reads.
    let by_hand = net.by_hand(id, 2, 1 << 20).await;
    let pack = within(10, "joining", joining)
        .await
        .expect("no panic")
        .expect("it joins");
    let receiving = on_thread(pack.comm(0), |comm| {
        let from_one = comm.receive(Some(2), 9).expect_err("nobody sends");
        let from_any = comm.receive(None, 8).expect_err("nobody sends");
        let summing = comm
            .all_reduce(Fold::Sum, &[1i128])
            .expect_err("rank 1 does not come");
        [from_one, from_any, summing].map(|error| error.to_string())
    });
    let sending = on_thread(pack.comm(1), |comm| {
        let message = Bytes::from(vec![0; 1 << 20]);
        loop {
            if let Err(error) = comm.send(2, 0, message.clone()) {
                return error.to_string();
            }
        }
    });
    let errors = within(10, "the waits", receiving).await.expect("no panic");
    assert_eq!(
        errors[0],
        "rank 0 waited for a message with tag 9 from rank 2 until its deadline"
    );
    assert_eq!(
        errors[1],
        "rank 0 waited for a message with tag 8 from any rank until its deadline"
    );
    assert_eq!(
        errors[2],
        "rank 0 waited for the other ranks of its pack to call sum of 1 i128 until its deadline"
    );
    let error = within(10, "the wait for room", sending)
        .await
        .expect("no panic");
    assert_eq!(
        error,
        "rank 1 waited for rank 2 to receive a message of 1048576 bytes with tag 0 until its deadline"
    );
    drop((by_hand, pack, driver));
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_every_wait_of_a_pack_and_the_driver_hears_why_it_leaves() {
    let net = Net::start().await;
    let id = JobId::random();
    let mut driver = net.driver(id, 5).await;
    let span = Span {
        first_rank: 0,
        ranks: 4,
    };
    let joining = tokio::spawn(Pack::join(net.options(id, span, 5)));
    let (mut reader, _write) = net.by_hand(id, 4, 1 << 20).await;
    let pack = within(10, "joining", joining)
        .await
        .expect("no panic")
        .expect("it joins");
    let receiving = on_thread(pack.comm(0), |comm| comm.receive(None, 1).map(drop));
    let summing = on_thread(pack.comm(1), |comm| comm.barrier());
    let sending = on_thread(pack.comm(2), |comm| {
        comm.send(4, 0, Bytes::from(vec![0; 1 << 20]))
    });
    within(10, "the announcement", next_of(&mut reader, kind::ANNOUNCE)).await;
    pack.fail("rank 3: it broke");
    let ended = async { [receiving.await, summing.await, sending.await] };
    for outcome in within(2, "the interrupted waits", ended).await {
        let error: CommError = outcome.expect("no panic").expect_err("it was interrupted");
        assert_eq!(error.to_string(), "another rank of this pack failed");
    }
    let reading = tokio::spawn(async move { while reader.next().await.is_ok() {} });
    within(10, "leaving", pack.leave(Some("rank 3: it broke".into())))
        .await
        .expect("the switch hears it");
    let left = next_notice(&mut driver, |notice| {
        !matches!(
            notice,
            Notice::Traffic(_) | Notice::Joined { .. } | Notice::Started
        )
    })
    .await;
    let failure = Some("rank 3: it broke".to_string());
    assert_eq!(left, Notice::Left { span, failure });
    drop((_write, driver));
    within(10, "the other's end", reading)
        .await
        .expect("no panic");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_in_full_traffic_are_told_why_their_job_ended() {
    for _ in 0..5 {
        let net = Net::start().await;
        let Job { driver, packs, .. } = net.job(&[1, 1, 1, 1]).await;
        let received = Arc::new(AtomicU64::new(0));
        let mut ends = Vec::new();
        for pack in &packs {
            let received = received.clone();
            ends.push(on_thread(pack.comm(0), move |comm| {
                let message = Bytes::from(vec![1; 200_000]);
                loop {
                    for to in 0..comm.size() {
                        comm.send(to, 0, message.clone())?;
                    }
                    for _ in 0..comm.size() {
                        comm.receive(None, 0)?;
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        let busy = async {
            while received.load(Ordering::Relaxed) < 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(20, "traffic", busy).await;
        within(5, "the abort", driver.abort("enough of it")).await;
        for end in ends {
            let end: Result<(), CommError> =
                within(5, "a rank's end", end).await.expect("no panic");
            assert_eq!(
                end.expect_err("the job ended").to_string(),
                "the job was ended: enough of it"
            );
        }
        for pack in packs {
            let error = within(5, "leaving", pack.leave(None))
                .await
                .expect_err("the job ended");
            assert_eq!(error.to_string(), "the job was ended: enough of it");
        }
        net.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_reads_late_still_finds_the_reason_it_was_refused_for() {
    let net = Net::start().await;
    let id = JobId::random();
    let mut driver = net.driver(id, 2).await;
    let (mut reader, mut write) = net.by_hand(id, 0, 1 << 20).await;
    let (_other, _other_write) = net.by_hand(id, 1, 1 << 20).await;
    // Much that the switch has to send back to it first, then what it may not say, then bytes without end.
    let message = Bytes::from(vec![3; 200_000]);
    let mut sequence = 0;
    let mut bytes = BytesMut::new();
    while bytes.len() < 3_000_000 {
        let route = Header {
            source: 0,
            destination: 0,
            sequence,
            ..Header::default()
        };
        chunks(route, &message).for_each(|chunk| chunk.put(&mut bytes));
        sequence += 1;
    }
    let route = Header {
        source: 1,
        destination: 0,
        ..Header::default()
    };
    let forged = chunks(route, &Bytes::from_static(b"x"))
        .next()
        .expect("one chunk");
    forged.put(&mut bytes);
    next_notice(&mut driver, |notice| matches!(notice, Notice::Started)).await;
    let writing = tokio::spawn(async move { while write.write_all(&bytes).await.is_ok() {} });
    next_notice(&mut driver, |notice| matches!(notice, Notice::Lost { .. })).await;
    let refused = async {
        loop {
            let frame = reader.next().await.expect("the reason is not lost");
            if frame.header.kind == kind::REFUSED {
                return Refused::from_body(&frame.body).expect("a reason");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let refused = within(10, "the reason", refused).await;
    assert_eq!(refused.reason, "a connection of rank 0 spoke as rank 1");
    drop(reader);
    within(10, "writing", writing).await.expect("it ended");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_given_up_leaves_no_heart_beating() {
    let net = Net::start().await;
    let id = JobId::random();
    let mut driver = net.driver(id, 2).await;
    let joining = tokio::spawn(Pack::join(net.options(id, one(0), 2)));
    next_notice(&mut driver, |notice| {
        matches!(notice, Notice::Joined { .. })
    })
    .await;
    joining.abort();
    let lost = |notice: &Notice| matches!(notice, Notice::Lost { .. });
    let Notice::Lost { span, .. } = within(5, "noticing", next_notice(&mut driver, lost)).await
    else {
        unreachable!("only a loss was let through");
    };
    assert_eq!(span, one(0));

    // One that waits in vain says for what.
    let mut options = net.options(id, one(0), 2);
    options.join_within = Duration::from_millis(300);
    let error = Pack::join(options)
        .await
        .err()
        .expect("rank 1 does not come");
    assert_eq!(
        error.to_string(),
        "the job did not start within 0 s: not all of its ranks have joined"
    );
    next_notice(&mut driver, lost).await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_whose_process_dies_is_lost_at_once() {
    let net = Net::start().await;
    let mut job = net.job(&[1, 2]).await;
    drop(job.packs.pop());
    let begun = Instant::now();
    let lost = next_notice(&mut job.driver, |notice| {
        matches!(notice, Notice::Lost { .. })
    })
    .await;
    let span = Span {
        first_rank: 1,
        ranks: 2,
    };
    assert!(
        matches!(lost, Notice::Lost { span: found, .. } if found == span),
        "{lost:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_receives_what_ranks_send_it() {
    let net = Net::start().await;
    let mut job = net.job(&[2]).await;
    let sent = job.run(|comm| {
        for (number, length) in [(0, 0), (1, 10), (2, 2 * CHUNK_MAX + 1)] {
            let message = pattern(comm.rank(), 99, number, length);
            comm.send_to_driver(number, message).expect("sent");
        }
    });
    sent.await;
    let mut next = [0, 0];
    let hear = async {
        while next != [3, 3] {
            if let News::Message(message) = job.driver.next().await.expect("the job goes on") {
                let number = &mut next[message.source as usize];
                assert_eq!(message.tag, *number);
                let length = [0, 10, 2 * CHUNK_MAX + 1][*number as usize];
                assert_eq!(
                    message.payload,
                    pattern(message.source, 99, *number, length)
                );
                *number += 1;
            }
        }
    };
    within(10, "the driver's messages", hear).await;
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_later_versions_are_skipped_if_they_say_so_and_refused_otherwise() {
    let net = Net::start().await;
    let id = JobId::random();
    let _driver = net.driver(id, 2).await;
    let (mut reader, mut write) = net.by_hand(id, 0, 1 << 20).await;
    let later = |flags| {
        let header = Header {
            kind: kind::LOG,
            flags,
            ..Header::default()
        };
        Frame::new(header, Bytes::from_static(b"a line"))
    };
    let mut bytes = BytesMut::new();
    later(FLAG_SKIPPABLE).put(&mut bytes);
    bare_frame(kind::HEARTBEAT, false).put(&mut bytes);
    later(0).put(&mut bytes);
    write.write_all(&bytes).await.expect("sent");
    let answers = async {
        let first = reader.next().await.expect("an answer");
        (first, reader.next().await.expect("an answer"))
    };
    let (first, second) = within(5, "the answers", answers).await;
    assert_eq!(
        (first.header.kind, second.header.kind),
        (kind::HEARTBEAT, kind::REFUSED)
    );
    let refused = Refused::from_body(&second.body).expect("a reason");
    assert!(
        refused.reason.contains("unknown kind 0x22"),
        "{}",
        refused.reason
    );
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_join_is_told_why() {
    let join = async |options| match within(15, "the answer", Pack::join(options)).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("nobody should be let in"),
    };
    let net = Net::start().await;
    let id = JobId::random();
    let _driver = net.driver(id, 2).await;
    let mut options = net.options(id, one(0), 2);
    options.token.code[0] ^= 1;
    let error = join(options).await;
    assert!(
        error.starts_with("the switch refused the connection: the token is wrong"),
        "{error}"
    );
    let error = join(net.options(JobId::random(), one(0), 2)).await;
    assert!(error.contains("is not known to this switch"), "{error}");

    // A port where nobody listens, and one where somebody else does.
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let mut options = net.options(id, one(0), 2);
    options.switches = vec![free.local_addr().expect("it has an address").to_string()];
    options.join_within = Duration::from_secs(2);
    drop(free);
    let error = join(options.clone()).await;
    assert!(
        error.contains("cannot reach the switch at 127.0.0.1:"),
        "{error}"
    );
    assert!(
        error.contains("is \"lswitch serve\" running there?"),
        "{error}"
    );
    for words in [
        Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice()),
        Some(b""),
        None,
    ] {
        let other = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        options.switches = vec![other.local_addr().expect("it has an address").to_string()];
        let mute = tokio::spawn(async move {
            let (mut stream, _) = other.accept().await.expect("somebody dials");
            match words {
                Some(words) => {
                    // With the hello unread, closing is a reset.
                    stream.peek(&mut [0]).await.expect("the hello comes");
                    stream.write_all(words).await.expect("sent");
                }
                None => std::future::pending().await,
            }
        });
        let error = join(options.clone()).await;
        assert_eq!(
            error,
            format!(
                "what listens at {} is no lswitch switch; check the address",
                options.switches[0]
            )
        );
        mute.abort();
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_goes_down_tells_its_members() {
    let net = Net::start().await;
    let Job {
        mut driver, packs, ..
    } = net.job(&[1, 1]).await;
    let waiting = on_thread(packs[0].comm(0), |comm| comm.receive(None, 0).map(drop));
    net.stop().await;
    let error = within(5, "the wait", waiting)
        .await
        .expect("no panic")
        .expect_err("it ended");
    assert_eq!(
        error.to_string(),
        "the job was ended: the switch is going down"
    );
    let ended = async {
        loop {
            if let Err(error) = driver.next().await {
                return error;
            }
        }
    };
    let error = within(5, "the driver's news", ended).await;
    assert!(matches!(error, LinkError::Ended(_)), "{error}");
}
