//! PageRank end to end, on real graphs, against what others computed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use lswitch::graph::top::round12;
use serde_json::Value;

use crate::support::{Output, Place, data};

const PARTITIONERS: [&str; 4] = ["metis", "fennel", "range", "hash"];

/// A graph of the test data and its reference.
struct Known {
    edges: std::path::PathBuf,
    /// Columns of the reference by name: a value for each id, ids rising.
    columns: BTreeMap<String, Vec<(u64, f64)>>,
    top: std::path::PathBuf,
    name: &'static str,
}

/// `None` if there are no test data.
fn known(name: &'static str, file: &str) -> Option<Known> {
    let edges = data(&format!("snap/{file}"))?;
    let reference = data(&format!("reference/{name}.tsv.gz"))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(reference).expect("it exists"))
        .read_to_string(&mut text)
        .expect("the reference is gzipped text");
    let mut lines = text.lines();
    let header = lines.next().expect("the reference has a header");
    let names: Vec<&str> = header.trim_start_matches('#').split('\t').collect();
    let mut columns: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let id = fields[0].parse().expect("the first column is an id");
        for (name, field) in names.iter().zip(&fields).skip(1) {
            let value = field.parse().expect("the other columns are numbers");
            columns
                .entry(name.to_string())
                .or_default()
                .push((id, value));
        }
    }
    Some(Known {
        edges,
        columns,
        top: data("reference/top20.tsv")?,
        name,
    })
}

impl Known {
    fn assert_near(&self, column: &str, output: &Output) {
        let (expected, found) = (&self.columns[column], output.ranks());
        let distance = l1(expected, &found);
        assert!(distance <= 1e-9, "{} {column}: L1 {distance:e}", self.name);
    }

    /// The same 20 vertices in the same order.
    fn assert_top(&self, column: &str, summary: &Value) {
        let text = std::fs::read_to_string(&self.top).expect("it exists");
        let mut expected: Vec<(u64, f64)> = text
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .filter(|fields| fields[..3] == [self.name, "directed", column])
            .map(|fields| {
                let id = fields[4].parse().expect("an id");
                (id, fields[5].parse().expect("a number"))
            })
            .collect();
        assert_eq!(expected.len(), 20, "{} {column}", self.name);
        expected.sort_by(|a, b| round12(b.1).total_cmp(&round12(a.1)).then(a.0.cmp(&b.0)));
        let found: Vec<(u64, f64)> = summary["top"]
            .as_array()
            .expect("top is a list")
            .iter()
            .map(|entry| {
                let id = entry["id"].as_u64().expect("ids are whole numbers");
                (id, entry["rank"].as_f64().expect("ranks are numbers"))
            })
            .collect();
        let ids = |list: &[(u64, f64)]| list.iter().map(|&(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&expected), "{} {column}", self.name);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found.1 - expected.1).abs() <= 1e-11,
                "{}: {found:?} is not {expected:?}",
                self.name
            );
        }
    }
}

/// The sum of absolute differences of two vectors over the same vertices.
fn l1(expected: &[(u64, f64)], found: &[(u64, f64)]) -> f64 {
    assert_eq!(found.len(), expected.len(), "the vertices differ in number");
    let pairs = expected.iter().zip(found);
    pairs
        .map(|(expected, found)| {
            assert_eq!(found.0, expected.0, "the vertices are not the same");
            (found.1 - expected.1).abs()
        })
        .sum()
}

fn preprocess(place: &Place, edges: &Path, parts: u32, partitioner: &str, out: &str) -> Value {
    let arguments = format!(
        "preprocess --parts {parts} --partitioner {partitioner} --out {out} --overwrite --json"
    );
    place.lswitch(&arguments).arg(edges).ok().json()
}

/// Fails unless the two summaries tell of the same result; what they tell of the way there may differ.
fn assert_same_result(found: &Value, expected: &Value) {
    for key in [
        "vertices",
        "edges",
        "parts",
        "iterations",
        "l1_change",
        "converged",
        "sum",
        "top",
    ] {
        assert_eq!(found[key], expected[key], "{key}");
        assert!(!found[key].is_null(), "{key} is missing");
    }
}

/// Each partitioner, 1, 2, 3, 8 and 16 workers, packs of 1 and of 3: the last has fewer.
fn assert_every_way_gives_the_reference(name: &'static str, file: &str) {
    let Some(known) = known(name, file) else {
        return;
    };
    let place = Place::new();
    for partitioner in PARTITIONERS {
        preprocess(&place, &known.edges, 16, partitioner, partitioner);
        let mut first: Option<(Output, Value)> = None;
        for workers in [1, 2, 3, 8, 16] {
            for pack in [1, 3] {
                let ranks = format!("ranks-{partitioner}-{workers}-{pack}");
                let arguments = format!(
                    "invoke pagerank --graph {partitioner} --workers {workers} --workers-per-function {pack} \
                     --tolerance 1e-13 --output {ranks} --json"
                );
                let summary = place.lswitch(&arguments).ok().json();
                assert_eq!(summary["workers"], workers);
                assert_eq!(summary["workers_per_function"], pack);
                assert_eq!(summary["converged"], true);
                let output = place.output(&ranks);
                std::fs::remove_dir_all(place.path(&ranks)).expect("it was just written");
                if let Some((output_of_first, of_first)) = &first {
                    assert!(
                        output == *output_of_first,
                        "{ranks} differs from the ranks of one worker"
                    );
                    assert_same_result(&summary, of_first);
                    continue;
                }
                assert_eq!(output.files.len(), 16);
                known.assert_near("pr85", &output);
                known.assert_top("pr85", &summary);
                first = Some((output, summary));
            }
        }
    }
    place.assert_nothing_is_left_in_tmp();
}

#[test]
fn wiki_vote_has_its_reference_ranks_however_it_is_split() {
    assert_every_way_gives_the_reference("wiki-Vote", "wiki-Vote.txt");
}

#[test]
fn p2p_gnutella08_has_its_reference_ranks_however_it_is_split() {
    assert_every_way_gives_the_reference("p2p-Gnutella08", "p2p-Gnutella08.txt");
}

#[test]
fn soc_epinions1_has_its_reference_ranks_however_it_is_split() {
    assert_every_way_gives_the_reference("soc-Epinions1", "soc-Epinions1.txt.gz");
}

#[test]
fn uk_2007_05_has_its_reference_ranks_however_it_is_split() {
    assert_every_way_gives_the_reference("uk-2007-05-100000", "uk-2007-05-100000.txt.gz");
}

#[test]
fn delays_and_packs_change_the_order_of_arrival_and_not_a_bit_of_the_ranks() {
    let Some(known) = known("wiki-Vote", "wiki-Vote.txt") else {
        return;
    };
    let place = Place::new();
    preprocess(&place, &known.edges, 8, "hash", "graph");
    let mut first: Option<(Output, Value)> = None;
    for pack in [1, 2, 4] {
        let mut arrivals = Vec::new();
        for run in 0..5 {
            let arguments = format!(
                "invoke pagerank --graph graph --workers 8 --workers-per-function {pack} --delay-ms 3 \
                 --tolerance 1e-13 --output ranks-{pack}-{run} --json"
            );
            let summary = place.lswitch(&arguments).ok().json();
            let digest = summary["arrivals"].as_u64();
            arrivals.push(digest.expect("arrivals are told with --delay-ms"));
            let output = place.output(&format!("ranks-{pack}-{run}"));
            match &first {
                None => {
                    known.assert_near("pr85", &output);
                    first = Some((output, summary));
                }
                Some((output_of_first, of_first)) => {
                    assert!(output == *output_of_first, "pack {pack}, run {run}");
                    assert_same_result(&summary, of_first);
                }
            }
        }
        arrivals.sort_unstable();
        arrivals.dedup();
        // Of two packs each has one message for the other.
        assert!(
            arrivals.len() > 1 || pack == 4,
            "with packs of {pack} all messages came in one order, so nothing was shown"
        );
    }
}

#[test]
fn without_damping_and_with_lost_dangling_rank_it_is_the_plain_formula() {
    for (name, file) in [
        ("wiki-Vote", "wiki-Vote.txt"),
        ("p2p-Gnutella08", "p2p-Gnutella08.txt"),
        ("soc-Epinions1", "soc-Epinions1.txt.gz"),
        ("uk-2007-05-100000", "uk-2007-05-100000.txt.gz"),
    ] {
        let Some(known) = known(name, file) else {
            return;
        };
        let place = Place::new();
        for partitioner in ["range", "hash"] {
            preprocess(&place, &known.edges, 8, partitioner, partitioner);
            let mut first: Option<Output> = None;
            for (workers, pack) in [(1, 1), (3, 1), (8, 4), (8, 1)] {
                let ranks = format!("ranks-{partitioner}-{workers}-{pack}");
                let arguments = format!(
                    "invoke pagerank --graph {partitioner} --workers {workers} --workers-per-function {pack} \
                     --damping 1 --dangling drop --iterations 10 --output {ranks} --json"
                );
                let summary = place.lswitch(&arguments).ok().json();
                assert_eq!(summary["iterations"], 10);
                assert_eq!(summary["converged"], false);
                known.assert_top("plain10", &summary);
                let output = place.output(&ranks);
                match &first {
                    None => {
                        known.assert_near("plain10", &output);
                        first = Some(output);
                    }
                    Some(first) => assert!(output == *first, "{name} {ranks}"),
                }
            }
        }
    }
}

#[test]
fn twenty_iterations_are_the_default_and_a_limit_ends_a_run_that_has_not_converged() {
    let place = Place::new();
    place.small_graph();
    let run = |arguments: &str| {
        let arguments = format!("invoke pagerank --graph graph --json {arguments}");
        place.lswitch(&arguments).ok().json()
    };
    let default = run("");
    assert_eq!(default["iterations"], 20);
    assert_eq!(default["workers"], 4, "as many workers as parts");
    assert_eq!(default["damping"], 0.85);
    assert_eq!(default["dangling"], "redistribute");
    assert_eq!(default["top"].as_array().map(Vec::len), Some(20));
    let limited = run("--tolerance 1e-13 --iterations 3");
    assert_eq!(
        (&limited["iterations"], &limited["converged"]),
        (&3.into(), &false.into())
    );
    let none = run("--iterations 0 --top 3");
    assert_eq!(none["iterations"], 0);
    assert_eq!(none["top"][0]["rank"], 1.0 / 256.0);
    let reached = run("--tolerance 1e-6");
    assert_eq!(reached["converged"], true);
    assert!(reached["l1_change"].as_f64().is_some_and(|it| it < 1e-6));
}

#[test]
fn graphalytics_graphs_are_within_its_own_rule() {
    for (name, iterations) in [("example-directed", 2), ("test-pr-directed", 14)] {
        let Some(edges) = data(&format!("graphalytics/{name}.e")) else {
            return;
        };
        let expected = data(&format!("graphalytics/{name}-PR")).expect("it lies beside");
        let expected = std::fs::read_to_string(expected).expect("it exists");
        let expected: BTreeMap<u64, f64> = expected
            .lines()
            .map(|line| line.split_once(' ').expect("id and value"))
            .map(|(id, value)| (id.parse().expect("an id"), value.parse().expect("a value")))
            .collect();
        let place = Place::new();
        for partitioner in PARTITIONERS {
            preprocess(&place, &edges, 3, partitioner, partitioner);
            for workers in [1, 2, 3] {
                let ranks = format!("{partitioner}-{workers}");
                let arguments = format!(
                    "invoke pagerank --graph {partitioner} --workers {workers} --iterations {iterations} --output {ranks}"
                );
                place.lswitch(&arguments).ok();
                let found = place.output(&ranks).ranks();
                assert_eq!(found.len(), expected.len(), "{name} {ranks}");
                for (id, rank) in found {
                    let expected = expected[&id];
                    assert!(
                        (rank - expected).abs() <= 1e-4 * expected,
                        "{name} {ranks}: vertex {id} is {rank} and should be {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn textbook_graphs_have_their_textbook_values() {
    let Some(edges) = data("graphalytics/small-edges.tsv") else {
        return;
    };
    let references = data("graphalytics/small-references.tsv").expect("it lies beside");
    let (edges, references) = (rows(&edges), rows(&references));
    // Letters are no ids: A is 1001, B is 1002.
    let id = |name: &str| match name.parse::<u64>() {
        Ok(id) => id,
        Err(_) => 1000 + u64::from(name.as_bytes()[0] - b'A' + 1),
    };
    for graph in ["wikipedia-11", "lagraph-karate"] {
        let list: String = edges
            .iter()
            .filter(|row| row[0] == graph)
            .map(|row| format!("{} {}\n", id(&row[1]), id(&row[2])))
            .collect();
        let place = Place::new();
        place.write("edges.txt", list);
        place
            .lswitch("preprocess edges.txt --parts 4 --out graph")
            .ok();
        place
            .lswitch("invoke pagerank --graph graph --tolerance 1e-14 --output ranks")
            .ok();
        let found: BTreeMap<u64, f64> = place.output("ranks").ranks().into_iter().collect();
        let expected: Vec<_> = references.iter().filter(|row| row[0] == graph).collect();
        assert!(!expected.is_empty());
        assert_eq!(found.len(), expected.len(), "{graph}");
        for row in expected {
            let number = |column: usize| row[column].parse::<f64>().expect("a number");
            assert_eq!(number(3), 0.85, "the damping of {graph}");
            let (value, tolerance, found) = (number(2), number(4), found[&id(&row[1])]);
            assert!(
                (found - value).abs() <= tolerance,
                "{graph}: vertex {} is {found} and should be {value}",
                row[1]
            );
        }
    }
}

/// The rows of a table below its header.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).expect("it exists");
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().skip(1).map(fields).collect()
}

#[test]
fn ids_anywhere_in_u64_come_back_as_they_were() {
    let place = Place::new();
    place.write(
        "edges.txt",
        "18446744073709551615 0\n0 9007199254740993\n9007199254740993 18446744073709551615\n",
    );
    place
        .lswitch("preprocess edges.txt --parts 3 --out graph")
        .ok();
    let summary = place
        .lswitch("invoke pagerank --graph graph --output ranks --json")
        .ok()
        .json();
    let ids = |ranks: Vec<(u64, f64)>| ranks.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let expected = [0, 9_007_199_254_740_993, u64::MAX];
    assert_eq!(ids(place.output("ranks").ranks()), expected);
    let top: Vec<u64> = summary["top"]
        .as_array()
        .expect("top is a list")
        .iter()
        .filter_map(|entry| entry["id"].as_u64())
        .collect();
    assert_eq!(top, expected, "equal ranks are ordered by id");
}

#[test]
fn all_ranks_are_written_with_17_digits_and_the_result_names_the_files() {
    let place = Place::new();
    place.small_graph();
    let summary = place
        .lswitch("invoke pagerank --graph graph --workers 3 --output ranks --json")
        .ok()
        .json();
    let output = place.output("ranks");
    let line = String::from_utf8_lossy(&output.files["part-00000.tsv"]).into_owned();
    let line = line.lines().next().expect("a part has vertices").to_owned();
    let digits = line.split_once('\t').expect("id<TAB>rank").1;
    let mantissa = digits.split('e').next().expect("it is a number");
    assert_eq!(mantissa.len(), 18, "17 digits and a point: {line}");
    let result = std::fs::read(place.path("ranks/result.json")).expect("it is written last");
    let result: Value = serde_json::from_slice(&result).expect("it is JSON");
    let files: Vec<&str> = result["files"]
        .as_array()
        .expect("a list of names")
        .iter()
        .filter_map(|file| file["name"].as_str())
        .collect();
    assert!(files.iter().copied().eq(output.files.keys()), "{files:?}");
    for (key, value) in summary.as_object().expect("it is an object") {
        assert_eq!(&result[key], value, "{key}");
    }
}

#[test]
fn an_earlier_result_stays_until_there_are_new_ranks() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph --output ranks")
        .ok();
    place.write("ranks/part-list.tsv", "mine");
    let earlier = place.output("ranks");
    place
        .lswitch("invoke pagerank --graph graph --output ranks --overwrite --switch 127.0.0.1:1")
        .env("LSWITCH_SECRET", "0123456789abcdef")
        .within_s(60)
        .end()
        .fails_with(1);
    assert!(place.output("ranks") == earlier, "the old result is whole");
    assert!(place.path("ranks/result.json").exists());

    place
        .lswitch("preprocess graph.txt --parts 2 --out graph --overwrite")
        .ok();
    place
        .lswitch("invoke pagerank --graph graph --output ranks --overwrite")
        .ok();
    let files: Vec<String> = place.output("ranks").files.into_keys().collect();
    assert_eq!(files, ["part-00000.tsv", "part-00001.tsv", "part-list.tsv"]);
}

#[test]
fn an_empty_variable_is_as_none() {
    let place = Place::new();
    place.small_graph();
    place
        .lswitch("invoke pagerank --graph graph")
        .env("LSWITCH_SWITCH", "")
        .env("LSWITCH_FUNCTION", "")
        .env("LSWITCH_HOME", "")
        .ok();
}

#[test]
fn functions_that_say_how_many_workers_they_run_are_believed() {
    let place = Place::new();
    place.small_graph();
    let ended = place
        .lswitch("invoke pagerank --graph graph --local-function lswitch=2 --json")
        .ok();
    assert_eq!(ended.json()["workers"], 2);
    let ended = place
        .lswitch("invoke pagerank --graph graph --local-function lswitch=2 --workers 3")
        .end();
    let said = ended.fails_with(2);
    assert!(
        said.contains("--workers says 3, and the functions have 2"),
        "{said}"
    );
}

/// The ranks of a small graph with these arguments, by id.
fn ranks_of(place: &Place, arguments: &str) -> Vec<f64> {
    let command =
        format!("invoke pagerank --tolerance 1e-12 --overwrite --output ranks {arguments}");
    place.lswitch(&command).ok();
    let ranks = place.output("ranks").ranks();
    ranks.into_iter().map(|(_, rank)| rank).collect()
}

fn assert_ranks(found: &[f64], expected: &[f64]) {
    assert_ranks_within(1e-9, found, expected);
}

fn assert_ranks_within(distance: f64, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let is_near = (found - expected).abs() < distance;
        assert!(is_near, "{found}, not {expected}");
    }
}

#[test]
fn edges_carry_rank_by_weight_unless_weights_are_ignored() {
    let place = Place::new();
    place.write("edges.txt", "1 2 10\n1 3 1\n2 1 1\n3 1 1\n");
    // networkx.pagerank(G, tol=1e-14), then with weight=None.
    let weighted = [0.4864864864864865, 0.4259213759213759, 0.0875921375921376];
    let plain = [0.4864864864864865, 0.25675675675675674, 0.25675675675675674];
    for parts in [1, 3] {
        place
            .lswitch(&format!(
                "preprocess edges.txt --parts {parts} --weights --out weighted{parts}"
            ))
            .ok();
        assert_ranks(
            &ranks_of(&place, &format!("--graph weighted{parts}")),
            &weighted,
        );
        assert_ranks_within(
            1e-6,
            &ranks_of(&place, &format!("--graph weighted{parts} --precision f32")),
            &weighted,
        );
        assert_ranks(
            &ranks_of(&place, &format!("--graph weighted{parts} --ignore-weights")),
            &plain,
        );
    }
    let said = place
        .lswitch("invoke pagerank --graph weighted3")
        .end()
        .stderr;
    assert!(said.contains("edges carry rank by their weights"), "{said}");
}

#[test]
fn a_restart_at_some_vertices_is_personalised_pagerank() {
    let place = Place::new();
    place.write("edges.txt", "1 2\n2 3\n3 1\n3 4\n");
    place.write("restart.csv", "# two vertices\n2,1\n4,3\n");
    // networkx.pagerank(G, personalization={2: 1, 4: 3}, tol=1e-14).
    let expected = [
        0.07766625011757397,
        0.21499307991024114,
        0.18274411792370404,
        0.5245965520484809,
    ];
    for parts in [1, 4] {
        place
            .lswitch(&format!(
                "preprocess edges.txt --parts {parts} --out graph{parts}"
            ))
            .ok();
        assert_ranks(
            &ranks_of(
                &place,
                &format!("--graph graph{parts} --restart restart.csv"),
            ),
            &expected,
        );
    }
    let left = std::fs::read_dir(place.path(".lswitch/pagerank"));
    assert_eq!(
        left.map_or(0, Iterator::count),
        0,
        "the job cleans its store"
    );
    place.write("restart.csv", "2\n5\n");
    let ended = place
        .lswitch("invoke pagerank --graph graph4 --restart restart.csv")
        .end();
    let message = ended.fails_with(1);
    assert!(
        message.contains("the graph has no vertex 5, which --restart names"),
        "{message}"
    );
    place.write("restart.csv", "2\n2\n");
    let ended = place
        .lswitch("invoke pagerank --graph graph4 --restart restart.csv")
        .end();
    let message = ended.fails_with(2);
    assert!(
        message.contains("restart.csv:2: vertex 2 is named twice"),
        "{message}"
    );
}

#[test]
fn negative_weights_are_refused_and_can_be_ignored() {
    let place = Place::new();
    place.write("edges.txt", "1 2 3\n2 1 -1\n");
    place
        .lswitch("preprocess edges.txt --parts 2 --weights --out graph")
        .ok();
    let ended = place.lswitch("invoke pagerank --graph graph").end();
    let message = ended.fails_with(1);
    assert!(
        message.contains("some are negative; --ignore-weights"),
        "{message}"
    );
    assert_ranks(
        &ranks_of(&place, "--graph graph --ignore-weights"),
        &[0.5, 0.5],
    );
}
