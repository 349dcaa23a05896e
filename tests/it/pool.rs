//! `lswitch invoke pool`, as a program uses it: calls over standard input, answers over standard output.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, assert_says, children};

/// A frame of a call.
fn call(number: u64, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u32;
    [&length.to_le_bytes()[..], &number.to_le_bytes(), payload].concat()
}

/// The whole frames of an output: their kinds, and what follows.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((frame, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        else {
            break;
        };
        frames.push((frame[0], frame[1..].to_vec()));
        bytes = rest;
    }
    frames
}

/// A pool of two workers.
fn start(place: &Place, more: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_lswitch"))
        .args(["invoke", "pool", "-q", "--workers", "2"])
        .args(more)
        .current_dir(place.path("."))
        .env("LSWITCH_HOME", place.path("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built")
}

#[test]
fn everything_is_answered_before_it_ends_and_who_misuses_it_is_told() {
    let place = Place::new();
    // Workers that cannot serve say why, and the job ends with it.
    let mut pool = start(&place, &["no-such-program"]);
    pool.stdin
        .as_mut()
        .unwrap()
        .write_all(&call(1, b"x"))
        .unwrap();
    let output = pool.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_says(&said, &["has no program \"no-such-program\""]);
    assert_eq!(frames(&output.stdout)[0].0, 1, "the job was created first");

    // Nothing is asked, nothing is started.
    let begun = Instant::now();
    let pool = start(&place, &["map"]);
    let output = pool.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(frames(&output.stdout).len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(10));

    for (bytes, words) in [
        (&[255; 12][..], "came over standard input; it has 8 to"),
        (&call(1, b"x")[..9], "ended within a call"),
    ] {
        let mut pool = start(&place, &["map"]);
        pool.stdin.as_mut().unwrap().write_all(bytes).unwrap();
        let output = pool.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_says(&String::from_utf8_lossy(&output.stderr), &[words]);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_lswitch"))
        .args(["invoke", "pool"])
        .current_dir(place.path("."))
        .env("LSWITCH_HOME", place.path("home"))
        .stdin(std::fs::File::open("/dev/zero").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["standard input is no pipe"],
    );
}

#[test]
fn idle_workers_are_let_go_and_come_back_with_the_next_call() {
    let place = Place::new();
    let arguments = serde_json::json!({
        "command": { "code": null, "program": "cat", "arguments": [], "within_ms": null },
        "output_max": 1000, "output": null, "prefix": "", "name": null, "report": null,
    });
    place.write("arguments", arguments.to_string());
    let mut pool = start(
        &place,
        &["map", "--idle-timeout", "0.3", "--event", "arguments"],
    );
    let id = pool.id();
    let mut stdin = pool.stdin.take().unwrap();
    let mut stdout = pool.stdout.take().unwrap();
    let mut heard = Vec::new();
    let mut settled = |stdin: &mut std::process::ChildStdin, number: u64| {
        use lswitch::job::items::Item;
        let item = Item::Text(format!("item {number}").into_bytes());
        stdin
            .write_all(&call(number, &item.to_bytes().unwrap()))
            .unwrap();
        stdin.flush().unwrap();
        let mut room = [0; 4096];
        loop {
            let mine = frames(&heard)
                .into_iter()
                .find(|(kind, rest)| *kind == 0 && rest[5..13] == number.to_le_bytes());
            if let Some((_, rest)) = mine {
                assert_eq!(rest[0], 0, "it is done");
                return;
            }
            let count = stdout.read(&mut room).unwrap();
            assert!(count > 0, "it ended");
            heard.extend_from_slice(&room[..count]);
        }
    };
    settled(&mut stdin, 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while children(id).into_iter().any(|child| child.is_there()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    settled(&mut stdin, 2);
    // More often than any bound on starts that is not meant for it.
    for number in 1000..1008 {
        std::thread::sleep(Duration::from_millis(400));
        settled(&mut stdin, number);
    }
    // Several at once, and the end right behind them: all are answered.
    for number in 3..40_u64 {
        let item = lswitch::job::items::Item::Text(b"last".to_vec());
        stdin
            .write_all(&call(number, &item.to_bytes().unwrap()))
            .unwrap();
    }
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    heard.extend_from_slice(&rest);
    let settled = frames(&heard).iter().filter(|(kind, _)| *kind == 0).count();
    assert_eq!(settled, 2 + 8 + 37);
    assert!(pool.wait().unwrap().success());
}
