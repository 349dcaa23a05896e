//! Who comes to a switch, stays and goes: strangers, members that are silent or leave, jobs and switches that end.

use crate::fabric::{Job, Net, next_notice, on_thread, one, pattern, within};
use crate::net::next_of;
use crate::support::assert_says;
use bytes::{Bytes, BytesMut};
use lswitch::net::address::SwitchAddress;
use lswitch::net::client::{JoinOptions, Pack};
use lswitch::net::codec::HELLO_MAX;
use lswitch::net::comm::CommError;
use lswitch::net::driver_link::{DriverLink, Membership};
use lswitch::net::element::Fold;
use lswitch::net::frame::{BODY_MAX, FLAG_SKIPPABLE, Frame, Header, PREAMBLE, chunks, kind};
use lswitch::net::link::LinkError;
use lswitch::net::message::{
    Control, FEATURE_PROOF, Notice, Refusal, Refused, Role, Span, Start, Welcome, bare_frame,
};
use lswitch::net::reassembly::Reassembly;
use lswitch::net::token::JobId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let mut stream = TcpStream::connect(net.addresses[0].place())
        .await
        .expect("the switch listens");
    stream.write_all(bytes).await.expect("it takes some bytes");
    refusal_on(&mut stream).await
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
        let expected = match bytes[0] {
            0x16 => "this switch speaks plain TCP, and the client TLS",
            _ => "these are not the first bytes of an lswitch client",
        };
        assert_eq!(refused.reason, expected);
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

/// Takes one connection, welcomes whoever it is, and starts it as a job's only rank. Gives the body of the hello.
async fn impostor(listener: TcpListener, proof: Option<[u8; 32]>) -> Bytes {
    let (mut stream, _) = listener.accept().await.expect("a client comes");
    let mut bytes = BytesMut::new();
    let hello = loop {
        let read = stream.read_buf(&mut bytes).await.expect("it is open");
        assert!(read > 0, "a hello comes first");
        let mut behind = BytesMut::from(bytes.get(PREAMBLE.len()..).unwrap_or_default());
        if let Some(frame) = Frame::decode(&mut behind, HELLO_MAX).expect("it is a frame") {
            break frame.body;
        }
    };
    let welcome = Welcome {
        protocol: 1,
        features: proof.map_or(0, |_| FEATURE_PROOF),
        heartbeat_ms: 2_000,
        lost_after_ms: 10_000,
        proof,
    };
    let mut answer = BytesMut::from(&PREAMBLE[..]);
    welcome.to_frame(true).put(&mut answer);
    Start::from_iter([]).to_frame(true).put(&mut answer);
    let _closed_already = stream.write_all(&answer).await;
    let _until_it_leaves = stream.read_buf(&mut bytes).await;
    hello
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_taken_the_switchs_port_learns_no_token_and_is_not_joined() {
    let net = Net::start().await;
    let job = JobId::random();
    let membership = Membership::Fixed(1);
    for proof in [None, Some([7; 32])] {
        for is_driver in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address: SwitchAddress = listener.local_addr().expect("bound").into();
            let impostor = tokio::spawn(impostor(listener, proof));
            let options = net.options(job, one(0), 1);
            let token = options.token;
            let error = if is_driver {
                let limit = Duration::from_secs(10);
                let created = DriverLink::create(&address, job, token, membership, limit);
                created.await.err()
            } else {
                let switches = vec![address];
                Pack::join(JoinOptions {
                    switches,
                    ..options
                })
                .await
                .err()
            };
            let error = error.expect("it is not the job's switch");
            assert!(matches!(error, LinkError::NotProved(_)), "{error}");
            let words = [
                "does not know the job's secret",
                "another process listens there",
            ];
            assert_says(&error.to_string(), &words);
            let hello = within(10, "the impostor", impostor)
                .await
                .expect("it has a hello");
            let shown = hello.windows(32).any(|bytes| bytes == token.code);
            assert!(!shown, "the token travelled");
        }
    }
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_no_hello_is_closed_after_two_seconds() {
    let net = Net::start().await;
    let begun = Instant::now();
    let connect = async || {
        TcpStream::connect(net.addresses[0].place())
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
            elastic: false,
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
    options.switches = vec![free.local_addr().expect("it has an address").into()];
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
        options.switches = vec![other.local_addr().expect("it has an address").into()];
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
