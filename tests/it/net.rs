//! Messages between packs and drivers over real sockets on loopback: their order, and who waits for whom.

use crate::fabric::{Net, on_thread, one, pattern, within};
use bytes::{Bytes, BytesMut};
use lswitch::net::client::{MAILBOX_BYTES, Pack};
use lswitch::net::comm::{Comm, CommError};
use lswitch::net::driver_link::News;
use lswitch::net::flow::{MESSAGE_COST, cost, share};
use lswitch::net::frame::{CHUNK_MAX, Frame, Header, kind};
use lswitch::net::half::WriteHalf;
use lswitch::net::link::FrameReader;
use lswitch::net::message::bare_frame;
use lswitch::net::reassembly::Reassembly;
use lswitch::net::token::JobId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::io::AsyncWriteExt;

/// The next frame of this kind; the others before it are dropped.
pub async fn next_of(reader: &mut FrameReader, kind: u8) -> Frame {
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
    write: &mut WriteHalf,
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
