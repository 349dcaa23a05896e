//! What jobs write as results: one job at a time has an output, and the manifest vouches for what is there.

use crate::support::{Fate, Place, assert_says, s3_server, s3_server_with};
use lswitch::job::output::{ResultFile, ResultManifest};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All files of an output, claims and reserved folders too, by their names.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    let files = paths.filter(|path| path.is_file()).map(|path| {
        let name = path.file_name().expect("it has a name").to_string_lossy();
        (name.into_owned(), fs::read(&path).unwrap_or_default())
    });
    files.collect()
}

/// Reads the manifest, and holds every file that it names to its length and checksum.
fn verified(folder: &Path) -> ResultManifest {
    let mut files = files(folder);
    let text = files.remove("result.json").expect("the job has finished");
    let manifest = ResultManifest::parse(&text, "result.json").expect("it is a manifest");
    for file in &manifest.files {
        let bytes = files
            .remove(&file.name)
            .unwrap_or_else(|| panic!("{} is there", file.name));
        assert_eq!(*file, ResultFile::of(file.name.clone(), &bytes));
    }
    assert!(files.is_empty(), "nothing else is left: {files:?}");
    manifest
}

fn claims(folder: &Path) -> usize {
    let files = files(folder);
    files
        .keys()
        .filter(|name| name.starts_with(".lswitch-claim-"))
        .count()
}

/// A command for each kind of job that writes an output; all take 2 workers.
fn jobs(place: &Place) -> Vec<(&'static str, String)> {
    place.small_graph();
    let numbers: String = (0..500)
        .map(|number| format!("{}\n", number * 37 % 500))
        .collect();
    place.write("in/a.txt", &numbers);
    place.write("in/b.txt", "b b c\n");
    vec![
        (
            "pagerank",
            "invoke pagerank --graph graph --workers 2".into(),
        ),
        (
            "bfs",
            "invoke bfs --graph graph --source 1 --workers 2".into(),
        ),
        ("wcc", "invoke wcc --graph graph --workers 2".into()),
        ("cdlp", "invoke cdlp --graph graph --workers 2".into()),
        ("lcc", "invoke lcc --graph graph --workers 2".into()),
        ("sort", "invoke sort --input in --workers 2".into()),
        (
            "wordcount",
            "invoke wordcount --input in --workers 2".into(),
        ),
        (
            "map",
            "invoke map --exec cat --items in/*.txt --workers 2".into(),
        ),
        (
            "reduce",
            "invoke map --exec cat --items in/*.txt --reduce cat --workers 2".into(),
        ),
        (
            "combine",
            "invoke map --exec cat --items in/*.txt --combine cat --workers 2".into(),
        ),
    ]
}

#[test]
fn every_job_writes_a_manifest_with_lengths_and_checksums_and_replaces_only_when_asked() {
    let place = Place::new();
    for (name, command) in jobs(&place) {
        let folder = place.path(name);
        place.write(&format!("{name}/notes.md"), "mine");
        place.lswitch(&format!("{command} --output {name}")).ok();
        fs::remove_file(folder.join("notes.md")).expect("a file of the user's own stays");
        let first = verified(&folder);
        assert!(!first.files.is_empty() && first.bytes() > 0, "{name}");
        assert_eq!(
            first.summary["lswitch"],
            env!("CARGO_PKG_VERSION"),
            "{name}"
        );
        let before = files(&folder);
        let again = place.lswitch(&format!("{command} --output {name}")).end();
        assert_says(again.fails_with(2), &["--overwrite"]);
        assert!(files(&folder) == before, "{name}: the result is untouched");
        // The same place in other words.
        let again = place.lswitch(&format!("{command} --output ./{name}/../{name}/"));
        assert_says(again.end().fails_with(2), &["--overwrite"]);
        let over = format!("{command} --output {name} --overwrite");
        place.lswitch(&over).ok();
        assert_eq!(verified(&folder).files, first.files, "{name}");
    }
}

#[test]
fn an_output_that_was_begun_has_no_manifest_of_an_earlier_result() {
    let place = Place::new();
    for (name, command) in jobs(&place) {
        place.lswitch(&format!("{command} --output {name}")).ok();
        let folder = place.path(name);
        let last = verified(&folder).files.pop().expect("it has files").name;
        fs::remove_file(folder.join(&last)).expect("it is there");
        // No file can be written there.
        fs::create_dir_all(folder.join(&last).join("x")).expect("a folder can be made");
        let over = format!("{command} --output {name} --overwrite --retries 0");
        let over = match name {
            "sort" | "wordcount" | "map" | "reduce" | "combine" => over,
            _ => over.replace(" --retries 0", ""),
        };
        let ended = place.lswitch(&over).end();
        assert!(matches!(ended.code, Some(1 | 3)), "{name}: {ended}");
        assert!(!folder.join("result.json").exists(), "{name}");
        fs::remove_dir_all(folder.join(&last)).expect("it can go");
        place
            .lswitch(&format!("{command} --output {name} --overwrite"))
            .ok();
        verified(&folder);
    }
}

#[test]
fn of_two_jobs_into_one_output_one_is_refused_and_parts_are_never_mixed() {
    let place = Place::new();
    place.small_graph();
    let job = |damping: &str| {
        let more = if damping == "0.5" { "--overwrite" } else { "" };
        format!("invoke pagerank --graph graph --workers 4 --damping {damping} {more} --output out")
    };
    let mut refused = 0;
    for _ in 0..12 {
        let _gone = fs::remove_dir_all(place.path("out"));
        let running = ["0.85", "0.5"].map(|damping| place.lswitch(&job(damping)).start());
        let ended = running.map(|job| job.wait());
        let manifest = verified(&place.path("out"));
        let winner = manifest.summary["damping"].to_string();
        let codes = ended.each_ref().map(|job| job.code);
        match codes {
            // One after the other.
            [Some(0), Some(0)] => assert_eq!(winner, "0.5", "only that one may replace"),
            [Some(0), Some(2)] => assert_eq!(winner, "0.85"),
            [Some(2), Some(0)] => assert_eq!(winner, "0.5"),
            _ => panic!("{} {}", ended[0], ended[1]),
        }
        refused += codes.iter().filter(|code| **code == Some(2)).count();
        for job in ended.iter().filter(|job| job.code == Some(2)) {
            let words = job.message();
            assert!(
                words.contains("is being written by job") || words.contains("earlier result"),
                "{words}"
            );
        }
    }
    assert!(refused > 0, "in no run were both there at once");
}

#[test]
fn a_job_that_runs_keeps_its_output_and_one_that_was_killed_does_not() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph --output out")
        .ok();
    let before = verified(&place.path("out"));
    let slow = "invoke pagerank --graph graph --workers 2 --output out --overwrite --iterations 100000 --delay-ms 50";
    for signal in [Signal::KILL, Signal::INT] {
        let running = place.lswitch(slow).start();
        running.workers(2);
        let folder = place.path("out");
        running.until_ok("the earlier result was deleted", || {
            (!folder.join("result.json").exists()).then_some(())
        });
        let other = place
            .lswitch("invoke wcc --graph graph --output out --overwrite")
            .end();
        assert_says(
            other.fails_with(2),
            &["is being written by job", "pagerank", "process"],
        );
        running.signal(signal);
        let ended = running.wait();
        assert_ne!(ended.code, Some(0));
        assert!(!folder.join("result.json").exists());
        assert_eq!(claims(&folder), usize::from(signal == Signal::KILL));
        place
            .lswitch("invoke pagerank --graph graph --output out --overwrite")
            .ok();
        assert_eq!(verified(&folder).files, before.files);
    }
}

#[test]
fn an_output_that_is_its_own_input_is_refused_before_anything_is_deleted() {
    let place = Place::new();
    place.write("in/a.txt", "b\na\n");
    place
        .lswitch("invoke sort --input in --output sorted --workers 1")
        .ok();
    std::os::unix::fs::symlink(place.path("sorted"), place.path("link")).expect("a link");
    let before = files(&place.path("sorted"));
    for (input, output) in [
        ("sorted", "sorted"),
        ("./sorted/", "sorted"),
        ("link", "sorted"),
        ("sorted", "link/."),
        ("sorted/part-00000.txt", "sorted"),
        ("sorted/*.txt", "in/../sorted"),
        ("link/part-*", "sorted"),
    ] {
        for job in [
            format!("invoke sort --input {input}"),
            format!("invoke wordcount --input {input}"),
            format!("invoke map --exec cat --items {input}"),
            format!("invoke map --exec cat --items {input} --reduce cat"),
        ] {
            // A folder is no item of a map.
            if job.contains("--items") && !input.contains("part-") && !input.contains('*') {
                continue;
            }
            let ended = place
                .lswitch(&format!("{job} --output {output} --overwrite"))
                .end();
            assert_says(ended.fails_with(2), &["is also read"]);
            assert!(files(&place.path("sorted")) == before, "{job}");
        }
    }
    place.small_graph();
    let ended = place
        .lswitch("invoke wcc --graph graph --output ./graph/ --overwrite")
        .end();
    assert_says(ended.fails_with(2), &["is also read"]);
    // A file that is named by itself may lie beside the result.
    place.write("alone/x.txt", "b\na\n");
    place
        .lswitch("invoke sort --input alone/x.txt --output alone --workers 1")
        .ok();
    place
        .lswitch("invoke sort --input alone/x.txt --output alone --workers 1 --overwrite")
        .ok();
    assert_eq!(fs::read(place.path("alone/x.txt")).unwrap(), b"b\na\n");
}

#[test]
fn a_plan_and_a_job_that_does_not_start_change_nothing() {
    let place = Place::new();
    for (name, command) in jobs(&place) {
        if name == "reduce" || name == "combine" {
            continue;
        }
        place.lswitch(&format!("{command} --output {name}")).ok();
        let before = files(&place.path(name));
        let over = format!("{command} --output {name} --overwrite");
        place.lswitch(&format!("{over} --dry-run")).ok();
        assert!(files(&place.path(name)) == before, "{name}");
    }
    let over = "invoke sort --input in --output sort --workers 2 --overwrite --switch 127.0.0.1:1";
    let before = files(&place.path("sort"));
    let ended = place
        .lswitch(over)
        .env("LSWITCH_SECRET", "0123456789abcdef")
        .within_s(60)
        .end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(files(&place.path("sort")) == before);
}

#[test]
fn a_map_is_resumed_only_into_what_is_still_its_own() {
    let place = Place::new();
    let ok = place.path("ok");
    place.write(
        "step",
        format!(
            "#!/bin/sh\nif [ \"$1\" = 3 ] && [ ! -e {} ]; then exit 1; fi\necho \"$1\"\n",
            ok.display()
        ),
    );
    place.lswitch_after("chmod +x step", "doctor --help").ok();
    let run = |more: &str| {
        place
            .lswitch(&format!(
                "invoke map --exec ./step --items 0..6 --workers 2 --retries 0 --output out {more} -- {{}}"
            ))
    };
    let id_of = |stderr: &str| {
        let (_, id) = stderr.split_once("--resume ").expect("it can be resumed");
        id.split_whitespace().next().expect("an id").to_string()
    };
    let first = run("").end();
    assert_eq!(first.code, Some(3), "{first}");
    let folder = place.path("out");
    assert!(!folder.join("result.json").exists());
    let again = run("").end();
    assert_says(again.fails_with(2), &["--overwrite"]);
    place.write("ok", "");
    run(&format!("--resume {}", id_of(&first.stderr))).ok();
    let manifest = verified(&folder);
    assert_eq!(manifest.files.len(), 6);
    assert_eq!(manifest.file("00000003").expect("it is there").bytes, 2);

    fs::remove_file(&ok).expect("it is there");
    let second = run("--overwrite").end();
    assert_eq!(second.code, Some(3), "{second}");
    let id = id_of(&second.stderr);
    // Another job takes the output, and does not finish either.
    let third = run("--overwrite").end();
    assert_eq!(third.code, Some(3), "{third}");
    place.write("ok", "");
    let late = run(&format!("--resume {id}")).end();
    assert_says(late.fails_with(2), &["was replaced since"]);
    run(&format!("--resume {}", id_of(&third.stderr))).ok();
    assert_eq!(verified(&folder).files, manifest.files);
}

#[test]
fn a_graph_is_replaced_only_when_asked() {
    let place = Place::new();
    place.small_graph();
    let manifest = fs::read(place.path("graph/manifest.json")).expect("it is there");
    let again = place
        .lswitch("preprocess graph.txt --parts 2 --out graph")
        .end();
    assert_says(again.fails_with(2), &["holds a graph", "--overwrite"]);
    assert_eq!(
        fs::read(place.path("graph/manifest.json")).unwrap(),
        manifest
    );
    place
        .lswitch("preprocess graph.txt --parts 2 --out graph --overwrite")
        .ok();
    let new = fs::read(place.path("graph/manifest.json")).expect("it is there");
    let new: Value = serde_json::from_slice(&new).expect("it is JSON");
    assert_eq!(new["parts"].as_array().map(Vec::len), Some(2));
    let parts = fs::read_dir(place.path("graph/parts")).expect("it is a folder");
    assert_eq!(parts.count(), 2, "those of the earlier graph are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_deleted_is_a_warning_and_the_job_is_done() {
    let place = Place::new();
    let folder = place.path("s3");
    let server = s3_server_with(&folder, |request| match request.method.as_str() {
        "DELETE" => Fate::Refused(403, "AccessDenied"),
        _ => Fate::Served,
    })
    .await;
    place.write(&format!("s3/{}/in/a", server.bucket), "b\na\n");
    let base = format!("s3://{}", server.bucket);
    for (name, command) in [("sort", "invoke sort"), ("wordcount", "invoke wordcount")] {
        let ended = place
            .lswitch(&format!(
                "{command} --input {base}/in/ --output {base}/{name} --store {base}/jobs --workers 1 --json"
            ))
            .envs(&server.env())
            .ok();
        assert_says(
            &ended.stderr,
            &["warning: temporary objects", "lswitch clean"],
        );
        let out = folder.join(&server.bucket).join(name);
        let text = fs::read(out.join("result.json")).expect("it is written");
        let manifest = ResultManifest::parse(&text, name).expect("it is a manifest");
        assert_eq!(manifest.files.len(), 1);
        assert_eq!(ended.json()["program"], name);
    }
    let ended = place
        .lswitch(&format!(
            "invoke map --exec cat --items {base}/in/ --store {base}/jobs --workers 1"
        ))
        .envs(&server.env())
        .ok();
    assert_eq!(ended.stdout, "b\na\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_that_cannot_be_written_is_seen_before_a_program_runs() {
    let place = Place::new();
    let writes = Arc::new(AtomicUsize::new(0));
    let server = s3_server_with(&place.path("s3"), {
        let writes = writes.clone();
        move |request| {
            let is_closed = request.uri.path().contains("/closed/");
            match request.method.as_str() {
                "PUT" if is_closed => {
                    writes.fetch_add(1, Ordering::Relaxed);
                    Fate::Refused(403, "AccessDenied")
                }
                // The claim passes, and no output does.
                "PUT" if request.uri.path().contains("/later/0") => {
                    writes.fetch_add(1, Ordering::Relaxed);
                    Fate::Refused(403, "ExpiredToken")
                }
                _ => Fate::Served,
            }
        }
    })
    .await;
    let base = format!("s3://{}", server.bucket);
    let runs = place.path("runs");
    place.write(
        "count",
        format!("#!/bin/sh\necho run >> {}\necho out\n", runs.display()),
    );
    place.lswitch_after("chmod +x count", "doctor --help").ok();
    let map = |output: &str, store: &str| {
        place
            .lswitch(&format!(
                "invoke map --exec ./count --items 1..41 --workers 2 --output {output} --store {store} -- {{}}"
            ))
            .envs(&server.env())
            .within_s(60)
            .end()
    };
    for (output, store, words) in [
        ("s3://missing/out", "jobs", "no bucket \"missing\""),
        ("out", "s3://missing/jobs", "no bucket \"missing\""),
        (&format!("{base}/closed/out")[..], "jobs", "AccessDenied"),
    ] {
        assert_says(map(output, store).fails_with(2), &[words]);
        assert!(!runs.exists(), "{output} {store}: no program was run");
    }
    assert_eq!(
        writes.swap(0, Ordering::Relaxed),
        1,
        "it is not tried again"
    );
    let ended = map(&format!("{base}/later"), "jobs");
    assert_says(
        ended.fails_with(1),
        &["no output can be stored", "ExpiredToken"],
    );
    let count = fs::read_to_string(&runs).expect("some ran").lines().count();
    assert!(count < 20, "{count} runs of 40 items");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_in_s3_has_one_job_at_a_time_and_is_taken_over_when_it_was_killed() {
    let place = Place::new();
    let folder = place.path("s3");
    let server = s3_server(&folder).await;
    let base = format!("s3://{}", server.bucket);
    place.small_graph();
    let pagerank = |more: &str| {
        place
            .lswitch(&format!(
                "invoke pagerank --graph graph --workers 2 --output {base}/out {more}"
            ))
            .envs(&server.env())
    };
    pagerank("").ok();
    let out = folder.join(&server.bucket).join("out");
    let before = verified(&out);
    let running = pagerank("--overwrite --iterations 100000 --delay-ms 50").start();
    running.workers(2);
    running.until_ok("the earlier result was deleted", || {
        (!out.join("result.json").exists()).then_some(())
    });
    let other = pagerank("--overwrite").end();
    assert_says(other.fails_with(2), &["is being written by job"]);
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(claims(&out), 1);
    let other = pagerank("").end();
    assert!(
        matches!(other.code, Some(0)),
        "nothing but a claim is left: {other}"
    );
    assert_eq!(verified(&out).files, before.files);
    let own = place
        .lswitch(&format!(
            "invoke sort --input {base}/out/ --output {base}/out --overwrite"
        ))
        .envs(&server.env())
        .end();
    assert_says(own.fails_with(2), &["is also read"]);
    let summary: Value =
        serde_json::from_slice(&fs::read(out.join("result.json")).unwrap()).unwrap();
    let first = &summary["files"][0];
    assert_eq!(
        first,
        &json!({ "name": "part-00000.tsv", "bytes": first["bytes"], "crc32c": first["crc32c"] })
    );
    let sum = first["crc32c"].as_str().expect("it is text");
    assert!(sum.len() == 8 && sum.bytes().all(|b| b"0123456789abcdef".contains(&b)));
}
