//! What jobs read: results of other jobs, packed texts, long lines, pipes, objects under unusual keys, and inputs that change
//! while they are read. One reader serves map, sort, wordcount and check.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::{Ended, InputS3, Objects, Place, assert_says};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    // As the command zstd does, and without it no reader could see the damage below.
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn wordcount(place: &Place, input: &str) -> Ended {
    place
        .lswitch(&format!(
            "invoke wordcount --words space --workers 2 --input {input}"
        ))
        .end()
}

/// The parts of an output, one after the other.
fn sorted(place: &Place, folder: &str) -> String {
    let mut text = String::new();
    for part in 0.. {
        match fs::read_to_string(place.path(&format!("{folder}/part-{part:05}.txt"))) {
            Ok(part) => text += &part,
            Err(_) => return text,
        }
    }
    text
}

/// The items and the outputs of a map that prints what it is given.
fn outputs(ended: &Ended) -> Vec<String> {
    let lines = ended.stdout.lines();
    let lines: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let items = lines.iter().filter(|line| line.get("number").is_some());
    items
        .map(|line| line["output"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn a_result_is_read_as_the_parts_that_it_names_and_as_nothing_else() {
    let place = Place::new();
    place.write("text", "the cat\nthe dog\na bird\n");
    place
        .lswitch("invoke sort --input text --output out --workers 2")
        .ok();
    place.write("out/.hidden", "hidden\n");
    place.write("out/notes.txt", "notes\n");
    place.write("out/part-00007.txt", "left from another run\n");
    let counts = "a\t1\nbird\t1\ncat\t1\ndog\t1\nthe\t2\n";
    for input in ["out", "out/", "out/*"] {
        let ended = wordcount(&place, input).ok();
        assert_eq!(ended.stdout, counts, "{input}");
        assert_says(&ended.stderr, &["files are not read: out/"]);
    }
    place
        .lswitch("invoke sort --input out --output again --workers 3")
        .ok();
    assert_eq!(sorted(&place, "again"), "a bird\nthe cat\nthe dog\n");
    place.lswitch("check sort out --with again").ok();
    let ended = place
        .lswitch("invoke map --exec cat --items out --json")
        .ok();
    assert_eq!(outputs(&ended).concat(), "a bird\nthe cat\nthe dog\n");
    // What is named alone is taken.
    let ended = wordcount(&place, "out/notes.txt").ok();
    assert_eq!(ended.stdout, "notes\t1\n");

    let part = place.path("out/part-00000.txt");
    let whole = fs::read(&part).unwrap();
    fs::remove_file(&part).unwrap();
    let ended = wordcount(&place, "out");
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_says(
        &ended.stderr,
        &["out/part-00000.txt is missing", "result.json names it"],
    );
    fs::write(&part, whole).unwrap();
    assert_eq!(wordcount(&place, "out").ok().stdout, counts);
}

#[test]
fn a_part_with_another_length_or_checksum_than_its_result_names_is_an_error() {
    let place = Place::new();
    place.write("out/part-00000.tsv", "one\t1\n");
    let result = |bytes: u64, crc32c: u32| {
        let file =
            json!({ "name": "part-00000.tsv", "bytes": bytes, "crc32c": format!("{crc32c:08x}") });
        let result =
            json!({ "format": 2, "lswitch": "9.9.9", "program": "wordcount", "files": [file] });
        place.write("out/result.json", result.to_string());
    };
    let sum = crc32c::crc32c(b"one\t1\n");
    result(6, sum);
    assert_eq!(wordcount(&place, "out").ok().stdout, "1\t1\none\t1\n");
    result(7, sum);
    let ended = wordcount(&place, "out");
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_says(
        &ended.stderr,
        &["out/part-00000.tsv has 6 bytes", "names 7"],
    );
    result(6, sum ^ 1);
    for arguments in [
        "wordcount --input out",
        "sort --output sorted --input out",
        "map --exec cat --retries 0 --items out",
    ] {
        let ended = place.lswitch(&format!("invoke {arguments}")).end();
        assert!(matches!(ended.code, Some(1 | 3)), "{ended}");
        assert_says(
            &ended.stderr,
            &["out/part-00000.tsv", "checksum", "result.json names"],
        );
    }
    // A file of somebody else that is called so is a file.
    place.write("out/result.json", "{\"a\": 1}");
    assert_says(&wordcount(&place, "out").ok().stdout, &["{\"a\":\t1"]);
    // A job that is at it.
    fs::remove_file(place.path("out/result.json")).unwrap();
    place.write("out/.lswitch-claim", "job");
    let ended = wordcount(&place, "out");
    assert_eq!(ended.code, Some(2), "{ended}");
    assert_says(&ended.stderr, &["has not finished", "out/.lswitch-claim"]);
}

#[test]
fn folders_below_a_folder_are_named_or_read() {
    let place = Place::new();
    for name in [
        "in/a",
        "in/sub/b",
        "in/sub/deep/c",
        "in/other/d",
        "in/.git/e",
    ] {
        place.write(name, format!("{}\n", &name[name.len() - 1..]));
    }
    std::os::unix::fs::symlink(place.path("in"), place.path("in/sub/back")).unwrap();
    for input in ["in", "in/*"] {
        let ended = wordcount(&place, input).ok();
        assert_eq!(ended.stdout, "a\t1\n");
        assert_says(
            &ended.stderr,
            &["2 subfolders are not read: in/other and 1 more; --recursive reads them"],
        );
        let ended = wordcount(&place, &format!("{input} --recursive")).ok();
        assert_eq!(ended.stdout, "a\t1\nb\t1\nc\t1\nd\t1\n", "{input}");
        let ended = place
            .lswitch(&format!(
                "invoke map --exec cat --recursive --items {input}"
            ))
            .ok();
        assert_eq!(ended.stdout, "a\nd\nb\nc\n");
    }
    place
        .lswitch("invoke sort --recursive --input in --output out --workers 1")
        .ok();
    assert_eq!(sorted(&place, "out"), "a\nb\nc\nd\n");
    place.write("out/sub/more", "more\n");
    place.write("markers/_SUCCESS", "");
    place.write("markers/part", "x\n");
    let ended = wordcount(&place, "markers").ok();
    assert_eq!(ended.stdout, "x\t1\n");
    assert_says(&ended.stderr, &["1 file is not read: markers/_SUCCESS"]);
    std::os::unix::fs::symlink("nowhere", place.path("markers/broken")).unwrap();
    let ended = wordcount(&place, "markers");
    assert_says(&ended.stderr, &["cannot read markers/broken"]);
}

#[test]
fn packed_texts_are_unpacked_where_lines_are_read() {
    let place = Place::new();
    let text: String = (0..30_000)
        .map(|line| format!("w{} x\n", line % 5000))
        .collect();
    let padded = [&gzip(text.as_bytes())[..], &[0; 600]].concat();
    let two = text.split_at(text.len() / 2);
    let members = [gzip(two.0.as_bytes()), gzip(two.1.as_bytes())].concat();
    place.write("plain", &text);
    let expected = wordcount(&place, "plain").ok().stdout;
    assert_eq!(expected.lines().count(), 5001);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let in_order: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    for (name, bytes) in [
        ("t.gz", gzip(text.as_bytes())),
        ("t.zst", zstd(text.as_bytes())),
        ("padded", padded),
        ("members", members),
    ] {
        place.write(name, &bytes);
        assert!(wordcount(&place, name).ok().stdout == expected, "{name}");
        place
            .lswitch(&format!(
                "invoke sort --overwrite --output out --workers 3 --input {name}"
            ))
            .ok();
        assert!(sorted(&place, "out") == in_order, "{name}");
        place.lswitch(&format!("check sort out --with {name}")).ok();
        for items in ["", "--split 1kB"] {
            let map = format!("invoke map --exec cat --batch-size 1000 {items} --items {name}");
            assert!(place.lswitch(&map).ok().stdout == text, "{name} {items}");
        }
    }
    // A whole file is given as it is.
    let ended = place
        .lswitch("invoke map --exec sha256sum --items t.g[z]")
        .ok();
    let sum = Command::new("sha256sum")
        .stdin(fs::File::open(place.path("t.gz")).unwrap())
        .output()
        .unwrap();
    assert_eq!(ended.stdout.as_bytes(), sum.stdout);

    let whole = gzip(text.as_bytes());
    place.write("cut.gz", &whole[..whole.len() / 2]);
    let mut damaged = zstd(text.as_bytes());
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    place.write("damaged.zst", damaged);
    for (name, words) in [("cut.gz", "end early"), ("damaged.zst", "damaged")] {
        for job in ["wordcount", "sort --output out --overwrite"] {
            let ended = place.lswitch(&format!("invoke {job} --input {name}")).end();
            assert_eq!(ended.code, Some(1), "{ended}");
            assert_says(&ended.stderr, &[name, words]);
        }
        let ended = place
            .lswitch(&format!(
                "invoke map --exec cat --items {name} --split 10MB --retries 0"
            ))
            .end();
        assert_eq!(ended.code, Some(3), "{ended}");
        assert_says(&ended.stderr, &[name, words]);
    }
    place.write("t.bz2", b"BZh91AY&SY\x00\x01\x02\x03");
    place.write("records.gz", &[&gzip(b"x")[..], &[0; 100]].concat()[..100]);
    for (arguments, words) in [
        (
            "wordcount --input t.bz2",
            "is packed with bzip2, which is not read",
        ),
        ("sort --output o --input t.bz2", "is packed with bzip2"),
        (
            "map --exec cat --split 1kB --items t.bz2",
            "is packed with bzip2",
        ),
        (
            "sort --output o --format records --input records.gz",
            "unpack it first",
        ),
    ] {
        let ended = place.lswitch(&format!("invoke {arguments}")).end();
        assert_eq!(ended.code, Some(2), "{ended}");
        assert_says(&ended.stderr, &[words]);
    }
}

#[test]
fn words_and_lines_are_whole_however_long_they_are() {
    let place = Place::new();
    let word = "x".repeat(5_000_000);
    place.write("words", format!("{word} a {word}\nb {word}\n"));
    let ended = place
        .lswitch("invoke wordcount --words letters --workers 3 --input words")
        .ok();
    assert!(ended.stdout == format!("a\t1\nb\t1\n{word}\t3\n"));
    let long: Vec<String> = (0..4).map(|line| format!("{line}{word}")).collect();
    place.write(
        "lines",
        format!(
            "{}\nshort\n{}\n{}\n9\n{}",
            long[3], long[1], long[0], long[2]
        ),
    );
    for memory in ["1GiB", "1MiB"] {
        place
            .lswitch(&format!(
                "invoke sort --input lines --output out --workers 2 --overwrite --memory {memory}"
            ))
            .ok();
        let expected = format!(
            "{}\n{}\n{}\n{}\n9\nshort\n",
            long[0], long[1], long[2], long[3]
        );
        assert!(sorted(&place, "out") == expected, "{memory}");
    }
    place.lswitch("check sort out --with lines").ok();
    place.write("items", format!("a\nb\n{}\n", "y".repeat((4 << 20) + 1)));
    let ended = place.lswitch("invoke map --exec wc --items items").end();
    assert_says(
        &ended.stderr,
        &["line 3 of", "items has more than 4194304 bytes"],
    );
    for (job, limit) in [
        ("map", "4 MiB"),
        ("sort", "256 MiB"),
        ("wordcount", "256 MiB"),
    ] {
        let help = place.lswitch(&format!("help invoke {job}")).ok();
        assert_says(&help.stdout, &[limit]);
    }
}

#[test]
fn no_program_runs_on_a_piece_without_a_line() {
    let place = Place::new();
    place.write("text", format!("{}\nshort\n", "x".repeat(300_000)));
    place.write("empty", "");
    let ended = place
        .lswitch("invoke map --exec wc --split 64KiB --json --items text -- -c")
        .ok();
    let counts: Vec<String> = outputs(&ended)
        .iter()
        .map(|count| count.trim().into())
        .collect();
    assert_eq!(counts, ["300001", "6"]);
    let ended = place
        .lswitch("invoke map --exec wc --split 64KiB --items empty")
        .ok();
    assert_says(&ended.stderr, &["0 items"]);
}

#[test]
fn what_can_be_read_once_is_an_input_of_every_job() {
    let place = Place::new();
    let text = "b\nc\na\n";
    place.write("text", text);
    let binary = env!("CARGO_BIN_EXE_lswitch");
    let shell = |command: &str| {
        let output = Command::new("bash")
            .args(["-c", &command.replace("lswitch", binary)])
            .current_dir(place.path("."))
            .env("HOME", place.path("home"))
            .env("TMPDIR", place.path("tmp"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    };
    place.write("t.gz", gzip(text.as_bytes()));
    for input in [
        "- < text",
        "/dev/stdin < text",
        "/dev/stdin < t.gz",
        "<(cat text)",
        "<(cat t.gz)",
    ] {
        assert_eq!(
            shell(&format!("lswitch invoke map --exec cat --items {input}")).0,
            text,
            "{input}"
        );
        let split = format!("lswitch invoke map --exec cat --split 2B --items {input}");
        assert_eq!(shell(&split).0, text, "{input}");
        let (counts, _) = shell(&format!("lswitch invoke wordcount --input {input}"));
        assert_eq!(counts, "a\t1\nb\t1\nc\t1\n", "{input}");
        shell(&format!(
            "lswitch invoke sort --overwrite --output out --input {input}"
        ));
        assert_eq!(sorted(&place, "out"), "a\nb\nc\n", "{input}");
        shell(&format!("lswitch check sort out --with {input}"));
    }
    let (_, said) = shell("lswitch invoke wordcount --input <(cat text)");
    assert_says(
        &said,
        &["can be read only once, so that it is copied first"],
    );
    let kept = fs::read_dir(place.path(".lswitch/wordcount")).unwrap();
    let kept: Vec<_> = kept
        .flat_map(|job| fs::read_dir(job.unwrap().path()).unwrap())
        .collect();
    assert!(kept.is_empty(), "the copy is removed: {kept:?}");
    // A text without a line end, as numbers of /proc.
    assert_eq!(shell("lswitch invoke wordcount --input /dev/null").0, "");
    assert_says(
        &shell("lswitch invoke wordcount --input /proc/self/status").0,
        &["name\t1"],
    );
    for (input, words) in [
        ("/dev/zero", "this is a device"),
        ("-2..2", "a range is of whole numbers from 0"),
    ] {
        let ended = place
            .lswitch("invoke map --exec cat")
            .arg(format!("--items={input}"))
            .end();
        assert_says(ended.fails_with(2), &[words]);
    }
}

#[test]
fn what_is_not_utf8_is_base64_in_json() {
    let place = Place::new();
    place.write("lines", b"caf\xe9\nplain\n");
    let ended = place
        .lswitch("invoke map --exec cat --json --items lines")
        .ok();
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["output_base64"], "Y2Fm6Qo=");
    assert_eq!(lines[0]["item_base64"], "Y2Fm6Q==");
    assert_eq!(lines[0]["bytes"], 5);
    for name in ["output", "item"] {
        assert!(lines[0].get(name).is_none(), "{}", lines[0]);
        assert_eq!(lines[1][name].as_str().unwrap().trim_end(), "plain");
    }
    // So is what a program that sees all finds of each item.
    let ended = place
        .lswitch("invoke map --exec cat --items lines --combine")
        .arg("sh -c 'cat $LSWITCH_REPORT'")
        .ok();
    let report: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(report[0]["item_base64"], "Y2Fm6Q==");
    assert_eq!(report[1]["item"], "plain");
}

fn objects(of: &[(&str, &str)]) -> Objects {
    of.iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_inputs_whatever_their_keys_are() {
    let place = Place::new();
    let keys = [
        "in/a",
        "in/2026//b",
        "in/c/",
        "in/./d",
        "in/../e",
        "in/tab\tf",
        "in/%2B+ &g",
        "p//x",
        "p/y",
    ];
    let mut all: Objects = keys
        .iter()
        .map(|key| ((*key).into(), b"x\n".to_vec()))
        .collect();
    all.insert("in/marker/".into(), Vec::new());
    let server = InputS3::start(all, |_, _| {}).await;
    let map = "invoke map --exec cat --workers 2 --items";
    for (job, stdout) in [
        (format!("{map} s3://inputs/in/"), "x\n".repeat(7)),
        (
            "invoke wordcount --input s3://inputs/in/".into(),
            "x\t7\n".into(),
        ),
        (format!("{map} s3://inputs/p//"), "x\n".into()),
        (format!("{map} s3://inputs/p"), "x\nx\n".into()),
    ] {
        let ended = place.lswitch(&job).envs(&server.env()).ok();
        assert_eq!(ended.stdout, stdout, "{job}");
        if job.ends_with("in/") {
            assert_says(&ended.stderr, &["1 folder marker is not read"]);
        }
    }
    let ended = place
        .lswitch("invoke sort --output out --workers 2 --json --input s3://inputs/in/")
        .envs(&server.env())
        .ok();
    assert_eq!(ended.json()["records"], 7);
    let ended = place
        .lswitch(&format!("{map} s3://inputs/p///"))
        .envs(&server.env())
        .end();
    assert_says(&ended.stderr, &["no objects whose names begin so"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_below_a_prefix_is_the_parts_that_it_names() {
    let place = Place::new();
    let result = r#"{"lswitch": "1", "files": ["part-00000.txt"]}"#;
    let server = InputS3::start(
        objects(&[
            ("out/part-00000.txt", "a\n"),
            ("out/part-00001.txt", "old\n"),
            ("out/result.json", result),
            ("other/_SUCCESS", ""),
            ("other/part-0", "b\n"),
        ]),
        |_, _| {},
    )
    .await;
    for (prefix, expected) in [
        ("out/", "a\t1\n"),
        ("o", "a\t1\nb\t1\n"),
        ("out/part", "a\t1\nold\t1\n"),
    ] {
        let ended = place
            .lswitch(&format!("invoke wordcount --input s3://inputs/{prefix}"))
            .envs(&server.env())
            .ok();
        assert_eq!(ended.stdout, expected, "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_while_it_is_read_is_an_error() {
    let place = Place::new();
    let old = "old word\n".repeat(1 << 20);
    for knows_if_match in [true, false] {
        for (when, length) in [("", 5), ("", 1), ("in/a", 0)] {
            for job in [
                "map --exec cat --retries 0 --workers 1 --items",
                "map --exec cat --retries 0 --workers 1 --split 100MB --items",
                "wordcount --workers 1 --input",
                "sort --output out --overwrite --workers 1 --input",
            ] {
                // Of the same length, but for what is added.
                let mut new = Some(old.replace("old", "new") + &"x".repeat(length));
                let after = move |key: &str, objects: &mut Objects| {
                    if key == when
                        && let Some(new) = new.take()
                    {
                        objects.insert("in/a".into(), new.into());
                    }
                };
                let server = InputS3::start(objects(&[("in/a", &old)]), after).await;
                if !knows_if_match {
                    server.ignore_if_match();
                }
                let job = format!("invoke {job} s3://inputs/in/");
                let ended = place.lswitch(&job).envs(&server.env()).end();
                assert!(matches!(ended.code, Some(1..=3)), "{job}: {ended}");
                assert_says(
                    &ended.stderr,
                    &["s3://inputs/in/a was replaced while it was read"],
                );
            }
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let place = Place::new();
    // The first item changes the second, which one worker reads afterwards.
    place.write("in/a", "x\n");
    place.write("in/b", "old\n");
    let change = place.path("in/b");
    for more in ["", "--split 1MB"] {
        place.write("in/b", "old\n");
        let script = format!(
            "read line; if [ $LSWITCH_ITEM = 0 ]; then echo new >> {}; fi; echo $line",
            change.display()
        );
        let ended = place
            .lswitch(&format!(
                "invoke map --exec sh --retries 0 --no-backups --workers 1 {more} --items in -- -c"
            ))
            .arg(script)
            .end();
        assert_eq!(ended.code, Some(3), "{ended}");
        assert_says(
            &ended.stderr,
            &["in/b was replaced or changed while it was read"],
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_object_is_one_request_and_an_empty_one_is_none() {
    let place = Place::new();
    let mut all: Objects = (0..50)
        .map(|number| (format!("in/{number:02}"), b"word\n".to_vec()))
        .collect();
    all.insert("in/empty".into(), Vec::new());
    for job in [
        "map --exec cat --items",
        "map --exec cat --split 1MB --items",
        "wordcount --input",
    ] {
        let server = InputS3::start(all.clone(), |_, _| {}).await;
        place
            .lswitch(&format!("invoke {job} s3://inputs/in/"))
            .envs(&server.env())
            .ok();
        let requests = server.requests();
        assert!(
            requests.iter().all(|(method, _)| *method == Method::GET),
            "{requests:?}"
        );
        assert_eq!(requests.len(), 51, "a list and 50 objects: {requests:?}");
    }
}
