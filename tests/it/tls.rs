//! TLS between the switch and who connects to it: the same messages, collectives and jobs, and who is not let in.

use crate::fabric::{Net, identity, one, pattern, within};
use crate::faults::ENDLESS;
use crate::support::{Place, Run, assert_gone, assert_says};
use bytes::Bytes;
use lswitch::net::address::SwitchAddress;
use lswitch::net::client::Pack;
use lswitch::net::driver_link::{Membership, News};
use lswitch::net::element::Fold;
use lswitch::net::frame::CHUNK_MAX;
use lswitch::net::link::{LinkError, dial};
use lswitch::net::message::{Notice, Role};
use lswitch::net::tls::Identity;
use lswitch::net::token::JobId;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// A switch with a certificate of its own, and the address that names it.
fn sealed(place: &Place) -> (crate::support::Running, String) {
    let (switch, address) = place.switch_with("--tls");
    assert!(address.contains('#'), "{address}");
    (switch, address)
}

fn place_of(address: &str) -> &str {
    address.split_once('#').map_or(address, |(place, _)| place)
}

/// The same address with another fingerprint.
fn another(address: &str) -> String {
    format!("{}#{}", place_of(address), "ab".repeat(32))
}

fn with(run: Run, address: &str) -> Run {
    run.arg("--switch").arg(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_size_arrive_whole_and_in_order() {
    const SIZES: [usize; 9] = [
        0,
        1,
        64,
        16_384,
        CHUNK_MAX,
        CHUNK_MAX + 1,
        500_000,
        3_000_017,
        20 << 20,
    ];
    for switches in [1, 2] {
        let net = Net::sealed(switches).await;
        let mut job = net.job(&[1, 3, 1]).await;
        job.run(|comm| {
            let (me, size) = (comm.rank(), comm.size());
            for (number, length) in (0..).zip(SIZES) {
                // Each to each, whatever the length: none waits to send before it receives.
                let sends = (0..size).filter(|to| *to != me);
                let sends: Vec<(u32, Bytes)> = sends
                    .map(|to| (to, pattern(me, to, number, length)))
                    .collect();
                let count = sends.len();
                let found = comm.exchange(number, sends, count).expect("all is sent");
                for message in found {
                    let expected = pattern(message.source, me, number, length);
                    assert!(message.payload == expected, "{length} bytes to {me}");
                }
            }
            for number in 0..2_000 {
                let to = (me + 1 + number % (size - 1)) % size;
                comm.send(to, 99, pattern(me, to, number, 64))
                    .expect("sent");
            }
            for _ in 0..2_000 {
                let message = comm.receive(None, 99).expect("it was sent");
                assert_eq!(message.payload.len(), 64);
            }
        })
        .await;
        job.end().await;
        net.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collectives_and_the_shared_state_are_what_they_are_without() {
    for switches in [1, 2] {
        let net = Net::sealed(switches).await;
        let mut job = net.job(&[2, 1, 1]).await;
        job.run(|comm| {
            let (me, size) = (comm.rank(), comm.size());
            for length in [1, 1_000, 100_000] {
                comm.barrier().expect("all take part");
                let whole = pattern(1, 0, 0, length);
                let given = if me == 1 { whole.clone() } else { Bytes::new() };
                assert!(comm.broadcast(1, given).expect("all take part") == whole);
                let mine: Vec<u64> = (0..length as u64).map(|at| at + u64::from(me)).collect();
                let sums = comm.all_reduce(Fold::Sum, &mine).expect("all take part");
                let sum = |at: u64| u64::from(size) * at + u64::from(size * (size - 1) / 2);
                assert!(sums.iter().zip(0..).all(|(&found, at)| found == sum(at)));
                let all = comm.all_gather(pattern(me, 0, 1, length)).expect("all do");
                for (piece, from) in all.iter().zip(0..) {
                    assert!(*piece == pattern(from, 0, 1, length));
                }
            }
            comm.counter("arrivals").add(1).expect("the switch counts");
            comm.barrier().expect("all take part");
            let counted = comm.counter("arrivals").get().expect("the switch counts");
            assert_eq!(counted, i64::from(size));
            let mut vector = comm.vector("long");
            vector.create::<f64>(50_000).expect("there is room");
            drop(vector);
        })
        .await;
        job.end().await;
        net.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_that_computes_starves_neither_its_connection_nor_its_senders() {
    let net = Net::sealed(1).await;
    let mut job = net.job(&[1, 1]).await;
    let begun = Instant::now();
    job.run(|comm| {
        if comm.rank() == 0 {
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            for number in 0..200 {
                let message = comm.receive(Some(1), number).expect("it was sent");
                assert!(message.payload == pattern(1, 0, number, 100_000));
            }
        } else {
            for number in 0..200 {
                let message = pattern(1, 0, number, 100_000);
                comm.send(0, number, message).expect("there is room");
            }
            comm.flush();
        }
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    job.end().await;
    net.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_of_an_elastic_job_speaks_with_its_driver() {
    let net = Net::sealed(2).await;
    let job = JobId::random();
    let membership = Membership::Elastic {
        slots: 4,
        at_once: 2,
    };
    let mut driver = net.driver_of(job, membership).await;
    let options = net.options(job, one(2), 4);
    let rank = tokio::spawn(async move {
        let pack = Pack::join(options).await.expect("there is a place");
        let mut comm = pack.comm(0);
        let served = tokio::task::spawn_blocking(move || {
            for _ in 0..20 {
                let message = comm.receive_from_driver(7).expect("it is sent");
                comm.send_to_driver(7, message.payload)
                    .expect("it is heard");
            }
        });
        served.await.expect("no panic");
        pack.leave(None).await.expect("it leaves in order");
    });
    let load = |number: u32| pattern(9, 9, number, 150_000 * number as usize);
    let (mut given, mut back) = (0, 0);
    let answers = async {
        while back < 20 {
            // The driver may send once the rank is there, and writes while it listens.
            if given == back && driver.send(2, 7, &load(given)) {
                given += 1;
            }
            if let News::Message(message) = driver.next().await.expect("the job goes on") {
                assert!(message.payload == load(back), "the bytes differ");
                back += 1;
            }
        }
    };
    within(60, "all answers", answers).await;
    let listening = tokio::spawn(async move {
        while let Ok(news) = driver.next().await {
            if matches!(news, News::Notice(Notice::Left { .. })) {
                break;
            }
        }
        driver.leave().await;
    });
    within(20, "leaving", rank).await.expect("no panic");
    within(20, "the driver", listening).await.expect("no panic");
    net.stop().await;
}

#[test]
fn jobs_run_over_one_and_two_switches_with_certificates() {
    let place = Place::new();
    place.small_graph();
    let plain = "invoke pagerank --graph graph --iterations 30 --output plain";
    place.lswitch(plain).ok();
    let (_first, first) = sealed(&place);
    let (_second, second) = sealed(&place);
    let both = format!("{first},{second}");
    for (name, address, packs) in [
        ("one", &first, "--workers 4"),
        ("two", &both, "--workers 4"),
        ("packs", &both, "--workers 4 --workers-per-function 2"),
    ] {
        let job = format!("invoke pagerank --graph graph --iterations 30 {packs} --output {name}");
        with(place.lswitch(&job), address).ok();
        assert!(place.output(name) == place.output("plain"), "{name}");
    }
    // An elastic one, and tasks instead of threads; the variable does as well as the flag.
    let items = "invoke map --exec cat --items 0..50 --workers 2";
    let printed = place
        .lswitch(items)
        .env("LSWITCH_SWITCH", &both)
        .ok()
        .stdout;
    let expected: String = (0..50).map(|number| format!("{number}\n")).collect();
    assert_eq!(printed, expected);
    for bench in [
        "all-to-all --workers 4 --size 64,100KiB",
        "pair --size 2MB",
        "all-reduce --workers 3 --size 300KB --processes",
    ] {
        let bench = format!("-q bench {bench} --seconds 0.2 --warm-up 0 --json");
        let printed = with(place.lswitch(&bench), &both).ok().stdout;
        assert!(printed.contains("\"rounds\":"), "{printed}");
    }
}

#[test]
fn a_worker_that_is_killed_is_noticed_at_once_and_the_switch_goes_on() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = sealed(&place);
    let job = with(place.lswitch(ENDLESS), &address).arg("--workers=3");
    let job = job.start();
    let workers = job.workers(3);
    workers[1].process.signal(Signal::KILL);
    let ended = job.within_s(8).wait();
    assert_says(ended.fails_with(1), &["worker 1 (rank 1) failed"]);
    assert_gone(workers.iter().map(|worker| &worker.process), 3);
    with(
        place.lswitch("invoke pagerank --graph graph --workers 2"),
        &address,
    )
    .ok();
    // And the other way round.
    let job = with(place.lswitch(ENDLESS), &address).arg("--workers=2");
    let job = job.start();
    let workers = job.workers(2);
    switch.signal(Signal::KILL);
    let ended = job.within_s(15).wait();
    assert_says(
        ended.fails_with(1),
        &["the connection to the switch at ", place_of(&address)],
    );
    assert_gone(workers.iter().map(|worker| &worker.process), 3);
}

#[test]
fn a_switch_that_goes_down_in_order_tells_why() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = sealed(&place);
    let job = with(place.lswitch(ENDLESS), &address).arg("--workers=2");
    let job = job.start();
    job.workers(2);
    switch.signal(Signal::TERM);
    switch.within_s(10).wait().ok();
    let ended = job.within_s(10).wait();
    assert_says(ended.fails_with(1), &["the switch is going down"]);
}

#[test]
fn another_certificate_is_refused_with_what_to_do() {
    let place = Place::new();
    place.small_graph();
    let (_switch, address) = sealed(&place);
    let job = || {
        place
            .lswitch("invoke pagerank --graph graph --workers 2")
            .within_s(8)
    };
    let ended = with(job(), &another(&address)).end();
    assert_says(
        ended.fails_with(1),
        &[
            "has another certificate than its address names",
            &address[address.len() - 64..],
            &"ab".repeat(32),
            "\"lswitch serve\" prints",
        ],
    );
    for broken in ["#", "#12", "#xyz", &format!("#{}0", "ab".repeat(32))] {
        let ended = with(job(), &format!("{}{broken}", place_of(&address))).end();
        assert_says(ended.fails_with(2), &["64 hexadecimal digits"]);
    }
}

#[test]
fn who_does_not_speak_tls_and_who_does_where_none_is_are_told_at_once() {
    let place = Place::new();
    place.small_graph();
    let (_switch, address) = sealed(&place);
    let job = || {
        place
            .lswitch("invoke pagerank --graph graph --workers 2")
            .within_s(8)
    };
    let ended = with(job(), place_of(&address)).end();
    assert_says(
        ended.fails_with(1),
        &[
            "this switch speaks TLS",
            "its whole address",
            "\"lswitch serve\" prints",
        ],
    );
    let (_plain, plain) = place.switch();
    assert!(!plain.contains('#'), "{plain}");
    let ended = with(job(), &another(&plain)).end();
    assert_says(
        ended.fails_with(1),
        &[
            "speaks plain TCP",
            "its address names a certificate",
            "--tls",
        ],
    );
    // Both go on.
    with(job(), &address).ok();
    with(job(), &plain).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_listens_there_and_is_no_switch_is_told_in_time() {
    let net = Net::start().await;
    let role = Role::Pack {
        span: one(0),
        incarnation: 1,
        epoch: 0,
        mailbox: 1 << 20,
    };
    let hello = net.hello(JobId::random(), role);
    let pin = identity().fingerprint();
    // One says nothing, one closes, one speaks another language, and one sends a handshake without end.
    for (answer, words) in [
        (None, "no lswitch switch"),
        (Some(Vec::new()), "no TLS with what listens"),
        (
            Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            "no lswitch switch",
        ),
        (
            Some([0x16, 3, 3, 0x40, 0].repeat(100_000)),
            "no TLS with what listens",
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a loopback port is free");
        let address = SwitchAddress::new(listener.local_addr().expect("it has one"), Some(pin));
        let stranger = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            match answer {
                Some(answer) => drop(stream.write_all(&answer).await),
                None => tokio::time::sleep(Duration::from_secs(60)).await,
            }
        });
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let dialled = within(5, "dialling", dial(&address, &hello, deadline)).await;
        let error: LinkError = dialled.map(drop).expect_err("it is a stranger");
        assert_says(&error.to_string(), &[words]);
        stranger.abort();
    }
    net.stop().await;
}

/// What a switch that speaks TLS sends to who says this, and for how long it holds the connection.
fn answer_to(address: &str, bytes: &[u8], slowly: bool) -> (Vec<u8>, Duration) {
    let mut stream = TcpStream::connect(place_of(address)).expect("the switch listens");
    let bound = Some(Duration::from_secs(10));
    stream.set_read_timeout(bound).expect("it can be set");
    let begun = Instant::now();
    if slowly {
        let mut stream = stream.try_clone().expect("there are descriptors");
        let bytes = bytes.to_vec();
        std::thread::spawn(move || {
            for byte in bytes {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    } else {
        // It may close before it has taken all.
        let _ = stream.write_all(bytes);
    }
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut answer);
    (answer, begun.elapsed())
}

#[test]
fn handshakes_that_do_not_end_are_dropped_and_cost_no_memory() {
    let place = Place::new();
    place.small_graph();
    let (switch, address) = sealed(&place);
    // As docs/PROTOCOL.md has it: 2 s for a hello, and 2 s to close.
    let bound = Duration::from_secs(6);
    let (silent, took) = answer_to(&address, b"", false);
    assert!(silent.is_empty() && took < bound, "{took:?}");
    // A record of 16 KiB that is never whole, at once and byte by byte; one that is broken; and no end of an announced one.
    let long = [&[0x16, 3, 1, 0x40, 0][..], &[1; 8000]].concat();
    for (bytes, slowly) in [
        (&long[..], false),
        (&long[..], true),
        (&[0x16, 3, 1, 0, 4, 1, 0, 0, 0][..], false),
        (&[0x16; 100_000][..], false),
    ] {
        let (answer, took) = answer_to(&address, bytes, slowly);
        assert!(took < bound, "{took:?}");
        assert!(answer.len() < 100, "{} bytes", answer.len());
    }
    let before = switch.memory("VmRSS");
    let held: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = TcpStream::connect(place_of(&address)).expect("the switch listens");
            stream.write_all(&long).expect("it takes some bytes");
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let grown = switch.memory("VmRSS").saturating_sub(before);
    assert!(
        grown < 500 * 64 * 1024,
        "{} KiB for 500 strangers",
        grown >> 10
    );
    drop(held);
    // Who has nothing to hide is served meanwhile.
    with(
        place.lswitch("invoke pagerank --graph graph --workers 2"),
        &address,
    )
    .ok();
}

#[test]
fn a_switch_keeps_its_certificate_and_its_key_to_itself() {
    let place = Place::new();
    let (switch, first) = sealed(&place);
    switch.signal(Signal::TERM);
    let said = switch.within_s(10).wait().ok().stderr;
    assert_says(
        &said,
        &[
            "made a certificate in ",
            "switch.pem",
            &format!("--switch {first}"),
        ],
    );
    let file = place.path("home/.lswitch/switch.pem");
    let mode = || {
        fs::metadata(&file)
            .expect("it was made")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(), 0o600);
    let (switch, second) = sealed(&place);
    assert_eq!(first[first.len() - 64..], second[second.len() - 64..]);
    switch.signal(Signal::TERM);
    let said = switch.within_s(10).wait().ok().stderr;
    assert!(!said.contains("made a certificate"), "{said}");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is our own");
    let open = place
        .lswitch("serve --listen 127.0.0.1:0 --tls")
        .within_s(10)
        .end();
    assert_says(
        open.fails_with(1),
        &["others may read the switch's key", "chmod 600"],
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is our own");
    fs::write(&file, "nothing of use").expect("it is our own");
    let damaged = place
        .lswitch("serve --listen 127.0.0.1:0 --tls")
        .within_s(10)
        .end();
    assert_says(damaged.fails_with(1), &["switch.pem", "is damaged"]);
}

#[test]
fn a_certificate_of_ones_own_is_taken() {
    let place = Place::new();
    place.small_graph();
    let (certificate, key) = Identity::make_pem().expect("it can be made");
    let (_, other) = Identity::make_pem().expect("it can be made");
    place.write("cert.pem", &certificate);
    place.write("key.pem", &key);
    place.write("other.pem", &other);
    let expected = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
    let expected = expected
        .expect("they go together")
        .fingerprint()
        .to_string();
    let (_switch, address) = place.switch_with("--tls-cert cert.pem --tls-key key.pem");
    assert!(address.ends_with(&format!("#{expected}")), "{address}");
    assert!(!place.path("home/.lswitch/switch.pem").exists());
    with(
        place.lswitch("invoke pagerank --graph graph --workers 2"),
        &address,
    )
    .ok();
    for (arguments, code, words) in [
        (
            "--tls-cert cert.pem --tls-key other.pem",
            1,
            "cert.pem with other.pem",
        ),
        (
            "--tls-cert cert.pem --tls-key none.pem",
            1,
            "cannot read none.pem",
        ),
        (
            "--tls-cert graph.txt --tls-key key.pem",
            1,
            "no certificate in PEM",
        ),
        ("--tls-cert cert.pem", 2, "--tls-key"),
        ("--tls --plaintext", 2, "cannot be used with"),
    ] {
        let serve = format!("serve --listen 127.0.0.1:0 {arguments}");
        let ended = place.lswitch(&serve).within_s(10).end();
        assert_eq!(ended.code, Some(code), "{ended}");
        assert_says(&ended.stderr, &[words]);
    }
}

#[test]
fn off_loopback_tls_is_the_default_and_plain_tcp_is_asked_for_on_both_sides() {
    let place = Place::new();
    place.small_graph();
    place.switch().0.signal(Signal::TERM);
    let line = |arguments: &str| {
        let serve = place.lswitch(&format!("serve --listen 0.0.0.0:0 --json {arguments}"));
        let serve = serve.start();
        let line: serde_json::Value = serde_json::from_str(&serve.first_line()).expect("JSON");
        serve.signal(Signal::TERM);
        serve.within_s(10).wait().ok();
        line["switch"].as_str().expect("an address").to_owned()
    };
    assert!(line("").contains('#'));
    assert!(!line("--plaintext").contains('#'));

    let job = || {
        place
            .lswitch("invoke pagerank --graph graph --workers 2")
            .within_s(20)
    };
    let far = "no.such.host.invalid:7000";
    let refused = with(job(), far).end();
    assert_says(
        refused.fails_with(2),
        &[
            "names no certificate",
            "--plaintext",
            "\"lswitch serve\" prints",
        ],
    );
    for asked in [
        with(job(), far).arg("--plaintext"),
        with(job(), far).env("LSWITCH_PLAINTEXT", "1"),
        with(job(), &another(far)),
    ] {
        let ended = asked.end();
        assert_says(
            ended.fails_with(1),
            &["cannot reach the switch at no.such.host.invalid:7000 "],
        );
    }
}
