//! Graphs as people have them: what is read, what is refused, and what a failure leaves behind.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::support::{Place, assert_says, data};

/// A line from 1 to 2 in front, so that a file's second line is where things go wrong.
fn edges_then(line: &str) -> Vec<u8> {
    format!("1 2\n{line}\n3 1\n").into_bytes()
}

/// Random enough that gzip cannot shrink it to nothing, and long enough for several buffers.
fn many_edges() -> Vec<u8> {
    (0..100_000u64)
        .flat_map(|n| {
            let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            format!("{scattered} {n}\n").into_bytes()
        })
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// What is wrong with a file, its name, its content, and what the message must say.
type Bad = (&'static str, &'static str, Vec<u8>, &'static [&'static str]);

fn bad_files() -> Vec<Bad> {
    let whole = gzip(&many_edges());
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    for byte in &mut damaged[middle..middle + 64] {
        *byte ^= 0xff;
    }
    vec![
        (
            "one column",
            "one.txt",
            edges_then("4"),
            &["one.txt:2: ", "expected two vertex ids", "\"4\"", "skipped"],
        ),
        (
            "a word",
            "word.txt",
            edges_then("4 x"),
            &["word.txt:2: ", "\"x\" is not a vertex id", "whole numbers"],
        ),
        (
            "a negative number",
            "negative.txt",
            edges_then("4 -5"),
            &["negative.txt:2: ", "\"-5\" is negative", "from 0"],
        ),
        (
            "an id over u64",
            "large.txt",
            edges_then("18446744073709551616 1"),
            &["large.txt:2: ", "too large", "18446744073709551615"],
        ),
        (
            "a real number",
            "real.txt",
            edges_then("4 1.5"),
            &["real.txt:2: ", "\"1.5\" is not a vertex id"],
        ),
        (
            "an empty column",
            "empty-column.csv",
            edges_then("4,,5"),
            &["empty-column.csv:2: ", "a column is empty"],
        ),
        (
            "nothing",
            "empty.txt",
            Vec::new(),
            &["empty.txt: no edges", "\"source target\""],
        ),
        (
            "comments only",
            "comments.txt",
            b"# FromNodeId ToNodeId\n% and nothing else\n\n".to_vec(),
            &["comments.txt: no edges", "\"source target\""],
        ),
        (
            "a gzip that ends early",
            "short.txt.gz",
            whole[..whole.len() / 2].to_vec(),
            &["short.txt.gz: ", "truncated", "after line ", "again"],
        ),
        (
            "a gzip without its last bytes",
            "shorter.txt.gz",
            whole[..whole.len() - 4].to_vec(),
            &["shorter.txt.gz: ", "truncated", "after line "],
        ),
        (
            "a gzip that is damaged",
            "damaged.txt.gz",
            damaged,
            &["damaged.txt.gz"],
        ),
        (
            "an empty gzip",
            "nothing.txt.gz",
            gzip(b""),
            &["nothing.txt.gz: no edges"],
        ),
        (
            "binary",
            "binary.bin",
            (0..=255u8).cycle().take(5000).collect(),
            &["binary.bin:1: "],
        ),
        (
            "a zip",
            "graph.zip",
            b"PK\x03\x04\x14\0\0\0\x08\0rest".to_vec(),
            &["graph.zip: "],
        ),
    ]
}

/// No later command may take `store` for a graph.
fn assert_no_graph(place: &Place, store: &str) {
    let invoked = place
        .lswitch(&format!("invoke pagerank --graph {store}"))
        .end();
    assert_says(
        invoked.fails_with(1),
        &[
            "holds no graph",
            "manifest.json is missing",
            "lswitch preprocess",
        ],
    );
}

#[test]
fn a_bad_file_is_refused_with_its_line_and_leaves_no_graph() {
    for (what, name, content, words) in bad_files() {
        for partitioner in ["metis", "hash"] {
            let place = Place::new();
            place.write(name, &content);
            let arguments =
                format!("preprocess {name} --parts 2 --partitioner {partitioner} --out graph");
            let ended = place.lswitch(&arguments).end();
            assert_eq!(ended.code, Some(1), "{what}: {ended}");
            assert_says(ended.fails_with(1), words);
            assert_no_graph(&place, "graph");
        }
    }
}

#[test]
fn a_failed_preprocess_leaves_the_graph_that_was_there_usable() {
    let place = Place::new();
    place.small_graph();
    let ranks = |output: &str| {
        let arguments = format!("invoke pagerank --graph graph --output {output} --json");
        let json = place.lswitch(&arguments).ok().json();
        (json["graph"].clone(), place.output(output))
    };
    let before = ranks("before");
    for (what, name, content, _) in bad_files() {
        place.write(name, &content);
        let arguments = format!("preprocess {name} --parts 2 --out graph --overwrite");
        assert_eq!(place.lswitch(&arguments).end().code, Some(1), "{what}");
    }
    let too_many = place
        .lswitch("preprocess graph.txt --parts 100000 --out graph --overwrite")
        .end();
    assert_eq!(too_many.code, Some(2));
    assert!(before == ranks("after"), "the graph changed");
}

#[test]
fn a_preprocess_that_succeeds_takes_the_place_of_the_graph_that_was_there() {
    let place = Place::new();
    place.small_graph();
    place.write("triangle.txt", "1 2\n2 3\n3 1\n");
    let old: Vec<_> = parts(&place, "graph");
    place
        .lswitch("preprocess triangle.txt --parts 3 --out graph --overwrite")
        .ok();
    let new = parts(&place, "graph");
    assert_eq!(new.len(), 3);
    assert!(old.iter().all(|part| !new.contains(part)), "{old:?}");
    let summary = place
        .lswitch("invoke pagerank --graph graph --json")
        .ok()
        .json();
    assert_eq!(summary["vertices"], 3);
}

#[test]
fn files_that_are_nobodys_parts_are_left_alone() {
    let place = Place::new();
    place.small_graph();
    place.write("graph/parts/movie.mkv.part", "half a film");
    place.write("graph/parts/0123-00000.part", "a run that is under way");
    place
        .lswitch("preprocess graph.txt --parts 2 --out graph --overwrite")
        .ok();
    for (name, content) in [
        ("movie.mkv.part", "half a film"),
        ("0123-00000.part", "a run that is under way"),
    ] {
        let kept = fs::read_to_string(place.path("graph/parts").join(name));
        assert_eq!(kept.expect("it is still there"), content);
    }
}

#[test]
fn two_runs_at_once_into_one_store_leave_one_whole_graph() {
    let place = Place::new();
    place.small_graph();
    for _ in 0..5 {
        let command = "preprocess graph.txt --parts 8 --out both --overwrite";
        let runs = [
            place.lswitch(command).start(),
            place.lswitch(command).start(),
        ];
        runs.into_iter().for_each(|run| drop(run.wait().ok()));
        place
            .lswitch("invoke pagerank --graph both --workers 2")
            .ok();
    }
}

/// The paths of all parts in a graph store, below it.
fn parts(place: &Place, store: &str) -> Vec<String> {
    let manifest = fs::read(place.path(store).join("manifest.json")).expect("it is a graph");
    let manifest: Value = serde_json::from_slice(&manifest).expect("the manifest is JSON");
    let named: Vec<String> = manifest["parts"]
        .as_array()
        .expect("parts is a list")
        .iter()
        .map(|part| part["key"].as_str().expect("a key").to_owned())
        .collect();
    let mut found = Vec::new();
    for part in fs::read_dir(place.path(store).join("parts")).expect("it has parts") {
        let part = part.expect("a folder can be read").path();
        let key = part.strip_prefix(place.path(store)).expect("it is in it");
        found.push(key.to_string_lossy().into_owned());
    }
    found.sort();
    assert_eq!(found, named, "parts that the manifest does not name");
    found
}

#[test]
fn more_parts_than_vertices_or_none_is_wrong_usage() {
    let place = Place::new();
    place.write("edges.txt", "1 2\n2 3\n");
    for partitioner in ["metis", "range", "hash"] {
        for (parts, words) in [
            ("4", ["3 vertices", "4 were asked for"]),
            ("0", ["0 parts", "at least 1"]),
        ] {
            let arguments = format!(
                "preprocess edges.txt --parts {parts} --partitioner {partitioner} --out graph"
            );
            assert_says(place.lswitch(&arguments).end().fails_with(2), &words);
            assert_no_graph(&place, "graph");
        }
        // As many as there are is right.
        let arguments = format!(
            "preprocess edges.txt --parts 3 --partitioner {partitioner} --out {partitioner}"
        );
        place.lswitch(&arguments).ok();
        let arguments = format!("invoke pagerank --graph {partitioner} --workers 3");
        place.lswitch(&arguments).ok();
    }
}

#[test]
fn a_missing_file_a_folder_and_an_unusable_store_are_named() {
    let place = Place::new();
    let missing = place
        .lswitch("preprocess nowhere.txt --parts 2 --out graph")
        .end();
    assert_says(
        missing.fails_with(1),
        &["nowhere.txt: cannot read", "No such file"],
    );
    let folder = place.lswitch("preprocess home --parts 2 --out graph").end();
    assert_says(
        folder.fails_with(1),
        &["home: is a directory", "name the edge list"],
    );
    assert_no_graph(&place, "graph");

    place.write("edges.txt", "1 2\n2 3\n");
    place.write("file", "not a folder");
    let unusable = place
        .lswitch("preprocess edges.txt --parts 2 --out file")
        .end();
    assert_says(unusable.fails_with(1), &["file"]);
    let strange = place
        .lswitch("preprocess edges.txt --parts 2 --out gs://bucket/prefix")
        .end();
    assert_ne!(strange.code, Some(0), "{strange}");
    assert_says(strange.message(), &["gs://"]);
    assert!(!place.path("gs:").exists());
}

#[test]
fn a_disk_that_fills_up_leaves_no_graph() {
    let place = Place::new();
    place.write("edges.txt", many_edges());
    // Files may have 64 blocks of 512 bytes, which is less than a part.
    let full = place
        .lswitch_after(
            "trap '' XFSZ; ulimit -f 64",
            "preprocess edges.txt --parts 2 --partitioner hash --out graph",
        )
        .end();
    assert_says(full.fails_with(1), &["graph", "File too large"]);
    assert_no_graph(&place, "graph");
    let parts = fs::read_dir(place.path("graph/parts"));
    let runs: Vec<_> = parts.map_or(Vec::new(), |runs| {
        let run = |entry: std::io::Result<fs::DirEntry>| entry.expect("it can be read").path();
        runs.map(run)
            .filter(|run| fs::read_dir(run).is_ok_and(|mut it| it.next().is_some()))
            .collect()
    });
    assert!(
        runs.is_empty(),
        "parts that no graph names are left: {runs:?}"
    );
}

#[test]
fn an_interrupted_preprocess_exits_with_130_and_leaves_no_graph() {
    use rustix::process::Signal;
    let place = Place::new();
    // A pipe that nobody closes: reading it never ends.
    let (reader, mut writer) = std::io::pipe().expect("pipes can be made");
    let running = place
        .lswitch("preprocess /dev/stdin --parts 2 --out graph")
        .stdin(reader)
        .start();
    // More than the pipe holds: once this is written, the process is reading, and so it has begun its work.
    let line = b"1 2\n".repeat(50_000);
    writer.write_all(&line).expect("the process reads");
    running.signal(Signal::INT);
    let ended = running.within_s(5).wait();
    drop(writer);
    assert_eq!(ended.fails_with(130), "lswitch: interrupted");
    assert_no_graph(&place, "graph");
}

#[test]
fn every_graph_of_the_test_data_has_the_counts_of_its_readme() {
    let Some(folder) = data("snap") else {
        return;
    };
    let readme = fs::read_to_string(folder.join("README.md")).expect("it exists");
    let place = Place::new();
    let mut files = 0;
    for line in readme.lines().filter(|line| line.starts_with("| ")) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let path = folder.join(fields[1]);
        if fields[1] == "file" {
            continue;
        }
        let facts = facts(&place, &path);
        for (column, key) in [
            (3, "vertices"),
            (4, "edges"),
            (6, "self_loops"),
            (7, "dangling"),
        ] {
            assert_eq!(
                facts[key].to_string(),
                fields[column],
                "{key} of {}",
                fields[1]
            );
        }
        files += 1;
    }
    assert_eq!(files, 12);
    let plain = facts(&place, &folder.join("p2p-Gnutella08.txt"));
    let plain_parts = part_bytes(&place);
    for variant in [
        "g08-lf-mixed.txt.gz",
        "g08.csv.gz",
        "g08-weighted.tsv.gz",
        "g08-konect.txt.gz",
    ] {
        let found = facts(&place, &folder.join("variants").join(variant));
        for key in ["vertices", "edges", "self_loops", "dangling"] {
            assert_eq!(found[key], plain[key], "{key} of {variant}");
        }
        assert!(
            part_bytes(&place) == plain_parts,
            "{variant} is another graph"
        );
    }
}

fn facts(place: &Place, path: &Path) -> Value {
    place
        .lswitch("preprocess --parts 1 --partitioner range --out graph --overwrite --json")
        .arg(path)
        .ok()
        .json()
}

/// All vertices of the graph store, with the ranks of one iteration: what a graph is, without its id.
fn part_bytes(place: &Place) -> Vec<(u64, f64)> {
    place
        .lswitch("invoke pagerank --graph graph --iterations 5 --output ranks --overwrite")
        .ok();
    place.output("ranks").ranks()
}

#[test]
fn columns_can_be_chosen_by_name_and_by_number() {
    let place = Place::new();
    place.write(
        "trades.csv",
        "day;buyer;amount;seller\n1;7;0,5;8\n2;8;1,5;9\n",
    );
    let facts = |options: &str| {
        let out = format!("graph-{}", options.len());
        let arguments = format!("preprocess trades.csv {options} --parts 1 --out {out} --json");
        place.lswitch(&arguments).end()
    };
    assert_says(
        facts("").fails_with(1),
        &[
            "trades.csv:1: ",
            "\"day\", \"buyer\", \"amount\", \"seller\"",
            "--source-column and --target-column",
        ],
    );
    for options in [
        "--source-column seller --target-column buyer --weight-column amount",
        "--source-column 4 --target-column 2 --weights --weight-column 3 --delimiter ;",
    ] {
        let ended = facts(options);
        assert_says(
            &ended.stderr,
            &[
                "recognised: edge list",
                "edges from column \"seller\" to \"buyer\", weight \"amount\"",
            ],
        );
        let json = ended.ok().json();
        assert_eq!((&json["vertices"], &json["edges"]), (&3.into(), &2.into()));
    }
    assert_says(
        facts("--source-column nobody --target-column buyer").fails_with(1),
        &["no column is named \"nobody\"", "\"buyer\""],
    );
    for wrong in [
        "--delimiter xy",
        "--source-column 0",
        "--directed --undirected",
    ] {
        assert_eq!(facts(wrong).code, Some(2), "{wrong}");
    }
}

#[test]
fn what_a_file_says_about_itself_is_used_and_told() {
    let place = Place::new();
    place.write("u.e", "1 2\n2 3\n3 4\n");
    place.write("u.v", "1\n2\n3\n4\n9\n");
    place.write(
        "u.properties",
        "graph.u.directed = false\ngraph.u.meta.edges = 3\n",
    );
    let read = place.lswitch("preprocess u.e --parts 1 --out u").ok();
    assert_says(
        &read.stderr,
        &[
            "5 vertices declared",
            "each line both ways (u.properties: directed = false)",
        ],
    );
    let bfs = place
        .lswitch("invoke bfs --graph u --source 4 --json")
        .ok()
        .json();
    assert_eq!(bfs["reached"], 4, "{bfs}");
    place.write(
        "graph.txt",
        "# Undirected graph: graph.txt\n# Nodes: 3 Edges: 9\n1 2\n2 3\n",
    );
    let read = place.lswitch("preprocess graph.txt --parts 1 --out g").ok();
    assert_says(
        &read.stderr,
        &[
            "note: a comment says that the graph is undirected",
            "9 edges",
        ],
    );
}

#[test]
fn folders_may_have_any_name() {
    let place = Place::new();
    place.write("edges.txt", "1 2\n2 3\n3 1\n");
    for name in [
        "my graph", "100%25", "a#b?c", "\u{fc}", "-x", "a:b", "deep/er",
    ] {
        place
            .lswitch("preprocess edges.txt --parts 3")
            .arg(format!("--out={name}"))
            .ok();
        let output = format!("ranks of {name}");
        place
            .lswitch("invoke pagerank")
            .arg(format!("--graph={name}"))
            .arg(format!("--output={output}"))
            .arg(format!("--store=store of {name}"))
            .ok();
        assert_eq!(place.output(&output).ranks().len(), 3, "{name}");
    }
}

#[test]
fn a_graph_may_come_through_a_pipe() {
    let place = Place::new();
    let generated = place.lswitch("generate uniform --scale 6 --seed 3").ok();
    place.write("edges.txt", &generated.stdout);
    let file = fs::File::open(place.path("edges.txt")).expect("it was just written");
    let piped = place
        .lswitch("preprocess /dev/stdin --parts 4 --out graph --json")
        .stdin(file)
        .ok()
        .json();
    assert_eq!(piped["edges"], 1024);
}

#[test]
fn the_table_and_the_json_tell_the_same_facts() {
    let place = Place::new();
    place.small_graph();
    let table = place
        .lswitch("preprocess graph.txt --parts 4 --out graph --overwrite")
        .ok();
    let json = place
        .lswitch("preprocess graph.txt --parts 4 --out graph --overwrite --json")
        .ok()
        .json();
    for (row, key) in [
        ("vertices", "vertices"),
        ("edges", "edges"),
        ("dangling vertices", "dangling"),
        ("self loops", "self_loops"),
        ("cut edges", "cut_edges"),
        ("boundary values", "boundary_values"),
    ] {
        let line = table.stdout.lines().find(|line| line.starts_with(row));
        let line = line.unwrap_or_else(|| panic!("no row {row}: {table}"));
        let value = line[row.len()..].split_whitespace().next();
        assert_eq!(
            value,
            Some(json[key].to_string().as_str()),
            "{row}: {table}"
        );
    }
    for row in ["parts", "balance", "written", "time", "peak memory"] {
        assert!(table.stdout.contains(row), "no row {row}: {table}");
    }
    for key in [
        "bytes",
        "peak_memory_bytes",
        "vertex_balance",
        "edge_balance",
    ] {
        assert!(json[key].as_f64().is_some_and(|it| it > 0.0), "{key}");
    }
    for stage in ["read", "partition", "build parts", "write"] {
        assert!(json["seconds"][stage].is_f64(), "{stage}: {json}");
    }
    assert_says(
        &table.stderr,
        &["next: lswitch invoke pagerank --graph graph"],
    );
}
