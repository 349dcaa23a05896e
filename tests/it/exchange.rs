//! Exchanges: one message to each of some ranks, and so many back, in whatever order they come.

use crate::fabric::Net;
use bytes::Bytes;
use lswitch::net::client::MAILBOX_BYTES;

#[tokio::test(flavor = "multi_thread")]
async fn ranks_that_all_send_before_they_receive_exchange_messages_longer_than_any_room() {
    // Above what a pack lends in credits, and in grants.
    const LENGTH: usize = MAILBOX_BYTES as usize + 1_000_000;
    let net = Net::start().await;
    let mut job = net.job(&[1, 1, 2]).await;
    let sums = job
        .run(|comm| {
            let (rank, size) = (comm.rank(), comm.size());
            let mine = Bytes::from(vec![rank as u8 + 1; LENGTH]);
            let others = (0..size).filter(|other| *other != rank);
            let sends = others.map(|other| (other, mine.clone())).collect();
            let received = comm.exchange(5, sends, size as usize - 1);
            let received = received.expect("nobody waits for anybody");
            assert!(received.iter().all(|message| {
                message.payload.len() == LENGTH
                    && message
                        .payload
                        .iter()
                        .all(|&byte| u32::from(byte) == message.source + 1)
            }));
            received.iter().map(|message| message.source).sum::<u32>()
        })
        .await;
    assert_eq!(sums, [6, 5, 4, 3]);
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_waits_for_more_than_there_is_credit_for_takes_what_is_there() {
    const COUNT: u32 = 200;
    const LENGTH: usize = 64 * 1024;
    // Of a pack of 64 ranks each has 512 KiB for what waits, half of which is one pack's.
    assert!(COUNT as usize * LENGTH > 4 * MAILBOX_BYTES as usize / 64);
    let net = Net::start().await;
    let mut job = net.job(&[64, 64]).await;
    let counts = job
        .run(|comm| match comm.rank() {
            0 => {
                let mine = vec![(1, Bytes::from_static(b"beside"))];
                let received = comm.exchange(5, mine, COUNT as usize).expect("it comes");
                let numbers = received.iter().map(|message| u32::from(message.payload[0]));
                assert!(numbers.eq((0..COUNT).map(|number| number & 0xff)));
                received.len()
            }
            1 => comm.exchange(5, Vec::new(), 1).expect("it comes").len(),
            64 => {
                for number in 0..COUNT {
                    let message = vec![number as u8; LENGTH];
                    comm.send(0, 5, message.into())
                        .expect("there is room in the end");
                }
                0
            }
            _ => 0,
        })
        .await;
    assert_eq!((counts[0], counts[1]), (COUNT as usize, 1));
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_makes_room_for_who_waits_to_send_something_else() {
    // More than a rank of three has room for.
    const LENGTH: usize = MAILBOX_BYTES as usize / 3 + 1;
    let net = Net::start().await;
    let mut job = net.job(&[3, 1]).await;
    let counts = job
        .run(|comm| match comm.rank() {
            0 => {
                let both = comm.exchange(5, Vec::new(), 2).expect("both come");
                comm.receive(Some(2), 6).expect("it has come already");
                both.len()
            }
            1 => {
                let large = vec![(0, Bytes::from(vec![1; LENGTH]))];
                comm.exchange(5, large, 0).expect("it goes");
                comm.send(2, 7, Bytes::new()).expect("it goes");
                0
            }
            2 => {
                comm.receive(Some(1), 7).expect("the large one is there");
                comm.send(0, 6, vec![2; 1000].into())
                    .expect("there will be room");
                let last = vec![(0, Bytes::from_static(b"last"))];
                comm.exchange(5, last, 0).expect("it goes").len()
            }
            _ => 0,
        })
        .await;
    assert_eq!(counts[0], 2);
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_two_messages_for_one_rank_is_refused() {
    let net = Net::start().await;
    let mut job = net.job(&[1, 1]).await;
    let errors = job
        .run(|comm| {
            let twice = vec![(1, Bytes::new()), (1, Bytes::new())];
            (comm.rank() == 0).then(|| {
                comm.exchange(5, twice, 0)
                    .expect_err("one each")
                    .to_string()
            })
        })
        .await;
    let error = errors[0].as_deref().expect("rank 0 has it");
    assert_eq!(
        error,
        "rank 0 gave an exchange two messages for rank 1; it takes one for each"
    );
    job.end().await;
    net.stop().await;
}
