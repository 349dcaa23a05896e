//! Stores with damaged parts, with no graph, or with results that are there already.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Place, assert_says};

/// The paths of a graph's parts by their numbers.
fn parts(place: &Place, store: &str) -> Vec<PathBuf> {
    let manifest = fs::read(place.path(store).join("manifest.json")).expect("it is a graph");
    let manifest: Value = serde_json::from_slice(&manifest).expect("the manifest is JSON");
    let parts = manifest["parts"].as_array().expect("parts is a list");
    parts
        .iter()
        .map(|part| place.path(store).join(part["key"].as_str().expect("a key")))
        .collect()
}

#[test]
fn damaged_missing_and_foreign_parts_are_named_by_the_worker_that_reads_them() {
    let again = "run preprocess again";
    for (what, spoil, words) in [
        (
            "a flipped bit",
            (|part, _| {
                let mut bytes = fs::read(part).expect("it is there");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(part, bytes).expect("it can be written");
            }) as fn(&PathBuf, &PathBuf),
            ["00002.part", again],
        ),
        (
            "a part that was cut",
            |part, _| {
                let bytes = fs::read(part).expect("it is there");
                fs::write(part, &bytes[..bytes.len() - 1]).expect("it can be written");
            },
            ["00002.part", again],
        ),
        (
            "an empty part",
            |part, _| fs::write(part, b"").expect("it can be written"),
            ["00002.part", again],
        ),
        (
            "a missing part",
            |part, _| fs::remove_file(part).expect("it is there"),
            ["00002.part", "there is no object"],
        ),
        (
            "a part of another run",
            |part, other| {
                fs::copy(other, part).expect("both are there");
            },
            ["00002.part", again],
        ),
    ] {
        let place = Place::new();
        place.small_graph();
        place
            .lswitch("preprocess graph.txt --parts 4 --partitioner hash --out other")
            .ok();
        let (part, other) = (&parts(&place, "graph")[2], &parts(&place, "other")[2]);
        spoil(part, other);
        for (workers, name) in [
            (4, "worker 2 (rank 2) failed: "),
            (1, "worker 0 (rank 0) failed: "),
        ] {
            let arguments =
                format!("invoke pagerank --graph graph --workers {workers} --output ranks");
            let ended = place.lswitch(&arguments).within_s(15).end();
            assert_says(ended.fails_with(1), &[name]);
            assert_says(ended.message(), &words);
            assert!(!place.path("ranks/result.json").exists(), "{what}");
            place.assert_nothing_is_left_in_tmp();
        }
    }
}

#[test]
fn a_store_that_holds_no_graph_of_ours_is_refused() {
    let place = Place::new();
    place.small_graph();
    let manifest = fs::read_to_string(place.path("graph/manifest.json")).expect("it is a graph");
    fs::create_dir(place.path("empty")).expect("a folder can be made");
    place.write("file", "no folder");
    place.write("strange/manifest.json", "{\"format\": \"something else\"}");
    place.write("cut/manifest.json", &manifest[..manifest.len() / 2]);
    let newer = manifest.replace("\"version\": 4", "\"version\": 5");
    assert_ne!(newer, manifest);
    place.write("newer/manifest.json", newer);
    let fewer = manifest.replacen("\"vertices\": 256", "\"vertices\": 255", 1);
    assert_ne!(fewer, manifest);
    place.write("fewer/manifest.json", fewer);
    // Changes that fit each other.
    let more = manifest.replacen("\"vertices\": 256", "\"vertices\": 356", 1);
    let mut more: Value = serde_json::from_str(&more).expect("it is JSON");
    let vertices = more["parts"][3]["vertices"].as_u64().expect("a number");
    more["parts"][3]["vertices"] = (vertices + 100).into();
    place.write("more/manifest.json", more.to_string());
    let flag = manifest.replacen("\"symmetric\": false", "\"symmetric\": true", 1);
    assert_ne!(flag, manifest);
    place.write("flag/manifest.json", flag);
    for (graph, words) in [
        ("nowhere", ["holds no graph", "lswitch preprocess"]),
        ("empty", ["holds no graph", "lswitch preprocess"]),
        ("file", ["file", ""]),
        ("graph.txt", ["graph.txt", ""]),
        (
            "strange",
            ["not the manifest of an lswitch graph", "preprocess wrote"],
        ),
        ("cut", ["manifest.json: not JSON", "run preprocess again"]),
        (
            "newer",
            [
                "made by a newer lswitch; its format is version 5",
                "upgrade lswitch",
            ],
        ),
        ("fewer", ["a damaged manifest", "run preprocess again"]),
        ("more", ["do not fit its checksum", "run preprocess again"]),
        ("flag", ["do not fit its checksum", "run preprocess again"]),
    ] {
        let ended = place
            .lswitch("invoke pagerank --output ranks --graph")
            .arg(graph)
            .within_s(15)
            .end();
        assert_says(ended.fails_with(1), &words);
        assert!(!place.path("ranks").exists());
    }
}

#[test]
fn results_that_are_there_are_kept_unless_overwriting_is_asked_for() {
    let place = Place::new();
    place.small_graph();
    let invoke = |more: &str| {
        place
            .lswitch(&format!(
                "invoke pagerank --graph graph --output ranks {more}"
            ))
            .end()
    };
    invoke("").ok();
    let first = place.output("ranks");
    let refused = invoke("--damping 0.5");
    assert_says(
        refused.fails_with(2),
        &[
            "ranks holds 5 files of an earlier result",
            "--overwrite",
            "another --output",
        ],
    );
    assert!(place.output("ranks") == first);
    assert!(place.path("ranks/result.json").exists());

    place.write("ranks/notes.md", "mine");
    place
        .lswitch("preprocess graph.txt --parts 2 --out graph --overwrite")
        .ok();
    invoke("--damping 0.5 --overwrite").ok();
    let second = place.output("ranks");
    assert_eq!(second.files.len(), 2, "the old parts are gone");
    assert!(second != first);
    assert!(
        place.path("ranks/notes.md").exists(),
        "other files are the user's"
    );

    // A result that was not finished does not pass for one, but is in the way as well.
    fs::remove_file(place.path("ranks/result.json")).expect("it is there");
    assert_says(
        invoke("").fails_with(2),
        &["holds 2 files of an earlier result"],
    );
    invoke("--overwrite").ok();
}
