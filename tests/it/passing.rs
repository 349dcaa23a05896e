//! Frames pass through the switch as they were sent, whatever way they come and are taken.

use crate::fabric::{Net, next_notice, pattern, within};
use crate::random::Random;
use lswitch::net::frame::{Header, chunks, kind};
use lswitch::net::half::WriteHalf;
use lswitch::net::link::FrameReader;
use lswitch::net::message::{Notice, bare_frame};
use lswitch::net::reassembly::Reassembly;
use lswitch::net::token::JobId;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

/// Lengths of messages: some are written at once, some are gathered, some are several frames.
const LENGTHS: [usize; 9] = [
    65_536, 65_536, 0, 300_000, 40_000, 32_768, 31_000, 1_000_000, 17,
];

/// The bytes of `count` messages of a rank to each of some others, in turn.
fn stream(from: u32, to: &[u32], count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        for &to in to {
            let route = Header {
                source: from,
                destination: to,
                sequence: number.into(),
                ..Header::default()
            };
            let message = pattern(from, to, number, LENGTHS[number as usize % LENGTHS.len()]);
            chunks(route, &message).for_each(|frame| frame.put(&mut bytes));
        }
    }
    bytes
}

/// Writes bytes in pieces of any length, now and then one by one; then gives signs of life.
fn dribble(mut write: WriteHalf, bytes: Vec<u8>, seed: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut random = Random(seed);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (pieces, most) = random.pick(&[(1, 400_000), (1, 70_000), (3, 5_000), (600, 1)]);
            for _ in 0..pieces {
                let (piece, left) = rest.split_at(random.within(1..=most).min(rest.len()));
                write.write_all(piece).await.expect("the switch reads");
                rest = left;
            }
            if random.one_in(8) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut beat = Vec::new();
        bare_frame(kind::HEARTBEAT, false).put(&mut beat);
        while write.write_all(&beat).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Reads until so many messages have come from each of these ranks, slowly now and then.
async fn collect(rank: u32, reader: &mut FrameReader, from: &[u32], count: u32) {
    let mut random = Random(rank.into());
    let mut reassembly = Reassembly::default();
    let mut left = from.len() as u32 * count;
    while left > 0 {
        let frame = within(30, "a frame", reader.next()).await;
        let frame = frame.expect("the connection holds");
        if frame.header.kind == kind::DATA {
            let message = reassembly.accept(frame.header, &frame.body);
            if let Some(message) = message.expect("in order and whole") {
                let number = frame.header.sequence as u32;
                let length = LENGTHS[number as usize % LENGTHS.len()];
                let expected = pattern(message.source, rank, number, length);
                assert!(message.payload == expected, "message {number} differs");
                left -= 1;
            }
        }
        if random.one_in(200) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_any_length_arrive_however_they_are_cut_and_taken() {
    pass_cut(Net::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_frames_of_any_length_arrive_however_they_are_cut_and_taken() {
    pass_cut(Net::sealed(1).await).await;
}

async fn pass_cut(net: Net) {
    const COUNT: u32 = 90;
    let job = JobId::random();
    let mut driver = net.driver(job, 4).await;
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    for rank in 0..4 {
        let (reader, write) = net.by_hand(job, rank, 1 << 20).await;
        readers.push(reader);
        writers.push(write);
    }
    next_notice(&mut driver, |notice| matches!(notice, Notice::Started)).await;
    // All send to rank 0, which is slow; what it holds up, rank 2 gets later and whole.
    let to: [&[u32]; 4] = [&[], &[0, 2], &[0], &[0]];
    for (rank, write) in (0..4).zip(writers) {
        let bytes = stream(rank, to[rank as usize], COUNT);
        dribble(write, bytes, 7 + u64::from(rank));
    }
    let mut slow = readers.remove(0);
    let slow = tokio::spawn(async move { collect(0, &mut slow, &[1, 2, 3], COUNT).await });
    collect(2, &mut readers[1], &[1], COUNT).await;
    within(60, "reading", slow).await.expect("all is as it was");
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_which_the_rest_never_comes_ends_its_sender_alone() {
    let net = Net::start().await;
    let job = JobId::random();
    let mut driver = net.driver(job, 2).await;
    let (unread, mut write) = net.by_hand(job, 0, 1 << 20).await;
    let (mut reader, _write) = net.by_hand(job, 1, 1 << 20).await;
    next_notice(&mut driver, |notice| matches!(notice, Notice::Started)).await;
    let bytes = stream(0, &[1], 2);
    // The second frame comes in part, and is never passed on.
    write.write_all(&bytes[..100_000]).await.expect("room");
    let header = next(&mut reader, kind::DATA).await;
    assert_eq!((header.source, header.sequence), (0, 0));
    tokio::time::sleep(Duration::from_millis(400)).await;
    drop((unread, write));
    let lost = next_notice(&mut driver, |notice| matches!(notice, Notice::Lost { .. })).await;
    assert!(matches!(lost, Notice::Lost { span, .. } if span.first_rank == 0));
    // The other is told by the driver, over a connection that holds.
    driver.abort("rank 0 is lost").await;
    next(&mut reader, kind::END).await;
    net.stop().await;
}

/// The header of the next frame, which is of this kind; beats aside.
async fn next(reader: &mut FrameReader, wanted: u8) -> Header {
    loop {
        let frame = within(10, "a frame", reader.next()).await;
        let header = frame.expect("the connection holds").header;
        if !matches!(header.kind, kind::HEARTBEAT | kind::START) {
            assert_eq!(header.kind, wanted);
            return header;
        }
    }
}
