//! Graphs from files to ranks, without a network: real graphs against their published facts, and properties.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use lswitch::graph::edges::Edges;
use lswitch::graph::fixed::from_fixed;
use lswitch::graph::pagerank::sequential;
use lswitch::graph::read::{Read as TextRead, read_edges, read_text};
use lswitch::graph::text::{Packing, Text};
use lswitch::graph::{
    Balance, Dangling, Form, Graph, GraphError, Manifest, Notes, PageRank, Part, PartBuilder,
    PartEntry, Partition, Partitioner, Precision, Reading, Settings, Shard, Split, build_parts,
    generate, import, quality, rank_parts, top,
};
use proptest::prelude::*;

use crate::support::data;

const PARTITIONERS: [Partitioner; 4] = Partitioner::MAKERS;

fn read(path: &Path) -> Graph {
    read_graph(path).unwrap().0
}

fn read_graph(path: &Path) -> Result<(Graph, Notes), GraphError> {
    lswitch::graph::read_graph(path, Reading::default(), &|_| {})
}

fn read_edge_list(path: &Path) -> Result<TextRead<()>, GraphError> {
    read_edges(path, Reading::default(), &|_| {})
}

fn parse(text: &[u8]) -> Result<TextRead<()>, GraphError> {
    let text = Text::new("t", Box::new(std::io::Cursor::new(text.to_vec()))).unwrap();
    read_text(&text, Reading::default(), &|_| {})
}

/// The edges that were read, sorted.
fn edges(read: &TextRead<()>) -> Vec<(u64, u64)> {
    let edges = read.edges.iter().flat_map(Edges::iter);
    let mut edges: Vec<(u64, u64)> = edges.map(|(source, target, ())| (source, target)).collect();
    edges.sort_unstable();
    edges
}

fn partition(graph: &Graph, parts: u32, by: Partitioner) -> Result<Partition, GraphError> {
    lswitch::graph::partition(graph, parts, by, Balance::Vertices)
}

/// Ranks that exchange bytes in this thread: iterates, and gives each vertex's rank by id, and the last change.
fn distributed(
    parts: &[Part],
    groups: &[Range<u32>],
    settings: Settings,
    iterations: u32,
) -> (HashMap<u64, f64>, f64) {
    let shard = |(me, group): (usize, &Range<u32>)| {
        let own = parts[group.start as usize..group.end as usize].to_vec();
        Arc::new(Shard::merge(own, groups, me).unwrap())
    };
    let shards: Vec<Arc<Shard>> = groups.iter().enumerate().map(shard).collect();
    let new = |shard: &Arc<Shard>| PageRank::new(Arc::clone(shard), settings).unwrap();
    let mut ranks: Vec<PageRank> = shards.iter().map(new).collect();
    let mut dangling: i128 = ranks.iter().map(PageRank::dangling).sum();
    let mut change = f64::NAN;
    for _ in 0..iterations {
        let mut wire: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
        for (from, (rank, shard)) in ranks.iter_mut().zip(&shards).enumerate() {
            rank.contribute();
            wire.extend(
                shard
                    .sends
                    .iter()
                    .map(|(to, vertices)| ((from, *to), rank.gather(vertices, Precision::F64))),
            );
        }
        for (to, (rank, shard)) in ranks.iter_mut().zip(&shards).enumerate() {
            for (from, ghosts) in &shard.receives {
                let payload = wire
                    .remove(&(*from, to))
                    .expect("who is to receive is sent to");
                rank.scatter(ghosts.clone(), &payload, Precision::F64)
                    .unwrap();
            }
        }
        assert!(wire.is_empty(), "somebody sent what nobody receives");
        let mass = from_fixed(dangling);
        let steps: Vec<_> = ranks.iter_mut().map(|rank| rank.update(mass)).collect();
        dangling = steps.iter().map(|step| step.dangling).sum();
        change = from_fixed(steps.iter().map(|step| step.l1_change).sum());
        assert_eq!(dangling, ranks.iter().map(PageRank::dangling).sum::<i128>());
    }
    let of_rank = |rank: &PageRank| {
        let pairs = rank
            .shard()
            .ids
            .iter()
            .copied()
            .zip(rank.ranks().iter().copied());
        pairs.collect::<Vec<_>>()
    };
    (ranks.iter().flat_map(of_rank).collect(), change)
}

fn parts_of(graph: &Graph, split: &Partition) -> Vec<Part> {
    build_parts(graph, split).collect()
}

#[test]
fn every_real_graph_has_its_published_counts() {
    let Some(folder) = data("snap") else { return };
    let table = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut seen = 0;
    for row in table
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("` |"))
    {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let number = |cell: usize| cells[cell].parse::<u64>().unwrap();
        let path = folder.join(cells[1]);
        let list = read_edge_list(&path).unwrap();
        let is_gzip = list.notes.packing == Packing::Gzip;
        assert_eq!(is_gzip, cells[1].ends_with(".gz"));
        let mut distinct = edges(&list);
        distinct.dedup();
        let distinct = distinct.len() as u64;
        let graph = read(&path);
        let unique = Reading {
            unique: true,
            ..Reading::default()
        };
        let (once, _) = lswitch::graph::read_graph(&path, unique, &|_| {}).unwrap();
        assert_eq!(once.edges(), distinct);
        let found = [
            graph.vertices(),
            graph.edges(),
            distinct,
            graph.self_loops(),
            graph.dangling(),
        ];
        assert_eq!(found, [3, 4, 5, 6, 7].map(number), "{}", cells[1]);
        let ends = format!("{}..{}", graph.ids[0], graph.ids.last().unwrap());
        assert_eq!(ends, cells[8], "{}", cells[1]);
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
fn variants_of_a_file_give_the_same_graph() {
    let Some(folder) = data("snap") else { return };
    let original = read(&folder.join("p2p-Gnutella08.txt"));
    for (name, notes) in [
        ("g08-lf-mixed.txt.gz", "edge list, gzip, "),
        (
            "g08.csv.gz",
            "edge list, gzip, header row \"source,target\" skipped",
        ),
        (
            "g08-weighted.tsv.gz",
            "edge list, gzip, extra columns of 20777 lines ignored",
        ),
        (
            "g08-konect.txt.gz",
            "edge list, gzip, 2 comment lines skipped",
        ),
    ] {
        let (variant, found) = read_graph(&folder.join("variants").join(name)).unwrap();
        assert!(variant == original, "{name}");
        assert!(found.to_string().starts_with(notes), "{name}: {found}");
    }
}

#[test]
fn progress_ends_at_the_size_of_the_file() {
    let Some(path) = data("snap/soc-Epinions1.txt.gz") else {
        return;
    };
    let told = Mutex::new(Vec::new());
    let tell = |bytes| told.lock().unwrap().push(bytes);
    read_edges::<()>(&path, Reading::default(), &tell).unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.len() > 3);
    assert_eq!(*told.iter().max().unwrap(), path.metadata().unwrap().len());
}

#[test]
fn declared_vertices_are_read_from_the_list_beside() {
    let folder = tempfile::tempdir().unwrap();
    let edges = folder.path().join("g.e");
    std::fs::write(&edges, "1 3 0.5\n").unwrap();
    assert_eq!(read(&edges).ids, [1, 3]);
    std::fs::write(folder.path().join("g.v"), "3\n2\n\n1\n").unwrap();
    let (graph, notes) = read_graph(&edges).unwrap();
    assert_eq!(
        (graph.ids, notes.declared_vertices),
        (vec![1, 2, 3], Some(3))
    );
    std::fs::write(&edges, "").unwrap();
    assert_eq!(read(&edges).vertices(), 3);
    std::fs::write(folder.path().join("g.v"), "3\nx\n").unwrap();
    let error = read_graph(&edges).unwrap_err().to_string();
    assert!(error.contains("g.v:2: \"x\" is not a vertex id"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| read_edge_list(path).unwrap_err().to_string();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(refusal(&folder.path().join("none")).contains("none: cannot read: No such file"));
    assert!(refusal(folder.path()).ends_with("is a directory; name the edge list file in it"));
    assert!(
        refusal(&write("g.zip", b"PK\x03\x04....")).contains("zip is not read; unpack it first")
    );

    let text: String = (0..5000)
        .map(|v| format!("{v} {}\n", v * 7919 % 5003))
        .collect();
    let pack = |text: &str| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let packed = pack(&text);
    for length in [2, 10, 11, packed.len() / 2, packed.len() - 1] {
        let error = refusal(&write("short.txt", &packed[..length]));
        assert!(
            error.contains("the gzip data end early"),
            "{length}: {error}"
        );
    }
    let mut damaged = packed.clone();
    damaged[packed.len() / 2] ^= 0x55;
    assert!(refusal(&write("damaged", &damaged)).contains("damaged"));
    damaged = packed.clone();
    let trailer = packed.len() - 6;
    damaged[trailer] ^= 1;
    assert!(refusal(&write("sum", &damaged)).contains("the gzip data are damaged after line 5000"));

    // Several members, one after the other, are one text; here a line lies across them.
    let (first, second) = text.split_at(text.len() / 2);
    let members = [pack(first), pack(second)].concat();
    let list = edges(&read_edge_list(&write("members", &members)).unwrap());
    assert_eq!((list.len(), list[4999]), (5000, (4999, 4999 * 7919 % 5003)));
}

/// Column of a reference file by id.
fn reference(path: &Path, column: usize) -> HashMap<u64, f64> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let rows = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            (cells[0].parse().unwrap(), cells[column].parse().unwrap())
        });
    rows.collect()
}

fn l1(a: &HashMap<u64, f64>, b: &HashMap<u64, f64>) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().map(|(id, value)| (value - b[id]).abs()).sum()
}

#[test]
fn ranks_equal_the_reference_for_every_partitioner_and_number_of_parts() {
    let Some(folder) = data("reference") else {
        return;
    };
    let best = std::fs::read_to_string(folder.join("top20.tsv")).unwrap();
    for name in ["wiki-Vote", "p2p-Gnutella08"] {
        let graph = read(&folder.join(format!("../snap/{name}.txt")));
        let pr85 = reference(&folder.join(format!("{name}.tsv.gz")), 2);
        let plain10 = reference(&folder.join(format!("{name}.tsv.gz")), 1);
        let rows = best
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let best: Vec<u64> = rows
            .filter(|row| row[..3] == [name, "directed", "pr85"])
            .map(|row| row[4].parse().unwrap())
            .collect();
        let settings = Settings::new(graph.vertices());
        let plain = Settings {
            damping: 1.0,
            dangling: Dangling::Drop,
            ..settings
        };
        for partitioner in PARTITIONERS {
            for count in [1, 2, 3, 8] {
                let split = partition(&graph, count, partitioner).unwrap();
                let parts = parts_of(&graph, &split);
                let groups = rank_parts(count, count).unwrap();
                let (ranks, change) = distributed(&parts, &groups, settings, 80);
                let case = format!("{name}, {count} parts by {partitioner}");
                assert!(l1(&ranks, &pr85) <= 1e-9, "{case}");
                assert!(change < 1e-10, "{case}");
                assert!(
                    (ranks.values().sum::<f64>() - 1.0).abs() < 1e-12 * graph.vertices() as f64,
                    "{case}"
                );
                let found = top::top(20, ranks.iter().map(|(&id, &rank)| (id, rank)));
                assert_eq!(
                    found.iter().map(|&(id, _)| id).collect::<Vec<_>>(),
                    best,
                    "{case}"
                );
                let (ranks, _) = distributed(&parts, &groups, plain, 10);
                assert!(l1(&ranks, &plain10) <= 1e-9, "{case}");
            }
        }
    }
}

#[test]
fn ranks_equal_those_of_graphalytics() {
    let Some(folder) = data("graphalytics") else {
        return;
    };
    for (name, iterations) in [("example-directed", 2), ("test-pr-directed", 14)] {
        let graph = read(&folder.join(format!("{name}.e")));
        let expected = std::fs::read_to_string(folder.join(format!("{name}-PR"))).unwrap();
        let settings = Settings::new(graph.vertices());
        let split = partition(&graph, 3, Partitioner::Hash).unwrap();
        let groups = rank_parts(3, 2).unwrap();
        let (ranks, _) = distributed(&parts_of(&graph, &split), &groups, settings, iterations);
        let mut seen = 0;
        for line in expected.lines() {
            let (id, value) = line.split_once(' ').unwrap();
            let value: f64 = value.trim().parse().unwrap();
            assert!(
                (ranks[&id.parse().unwrap()] - value).abs() <= 1e-4 * value,
                "{name}: {id}"
            );
            seen += 1;
        }
        assert_eq!(seen, ranks.len());
    }
}

#[test]
fn metis_balances_and_cuts_less_than_the_others() {
    let Some(path) = data("snap/facebook_combined.txt.gz") else {
        return;
    };
    let graph = read(&path);
    let measured = PARTITIONERS.map(|by| quality(&graph, &partition(&graph, 8, by).unwrap()));
    let [metis, fennel, range, hash] = measured;
    assert!(metis.vertex_balance < 1.05, "{metis:?}");
    assert!(range.vertex_balance < 1.01, "{range:?}");
    assert!(metis.cut_edges * 4 < hash.cut_edges, "{metis:?} {hash:?}");
    assert!(fennel.vertex_balance < 1.11, "{fennel:?}");
    assert!(fennel.cut_edges * 2 < hash.cut_edges, "{fennel:?} {hash:?}");
    assert!(
        metis.boundary_values * 2 < hash.boundary_values,
        "{metis:?} {hash:?}"
    );
}

#[test]
fn a_manifest_of_a_real_graph_agrees_with_itself() {
    let graph = Graph::from_edges(generate::rmat(8, 8, 1).unwrap().collect::<Vec<_>>()).unwrap();
    for partitioner in PARTITIONERS {
        let made = partition(&graph, 5, partitioner).unwrap();
        let builder = PartBuilder::new(&graph, &made);
        let entry = |part| PartEntry::of(format!("part-{part}"), &builder.encoded(part));
        let entries: Vec<PartEntry> = (0..5).map(entry).collect();
        for (part, entry) in build_parts(&graph, &made).zip(&entries) {
            let bytes = part.encode();
            assert_eq!(
                (bytes.len() as u64, crc32c::crc32c(&bytes)),
                (entry.bytes, entry.crc32c)
            );
        }
        let split = Split::new(&graph, made, partitioner, Balance::Vertices);
        let manifest = Manifest::new("1f", "rmat", &graph, &split, entries);
        assert_eq!(
            Manifest::parse(manifest.to_json().as_bytes(), "m").unwrap(),
            manifest
        );
    }
}

#[test]
fn every_changed_byte_and_every_missing_byte_of_a_part_is_refused() {
    let graph = Graph::from_edges(generate::rmat(5, 3, 1).unwrap().collect::<Vec<_>>()).unwrap();
    let split = partition(&graph, 3, Partitioner::Hash).unwrap();
    for part in build_parts(&graph, &split) {
        let bytes = part.encode();
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(Part::decode(&bytes, "p").unwrap(), part);
        for at in 0..bytes.len() {
            assert!(
                Part::decode(&bytes[..at], "p").is_err(),
                "{at} bytes were accepted"
            );
            for flip in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let error = Part::decode(&changed, "p").unwrap_err();
                assert!(
                    matches!(&error, GraphError::Part { name, .. } if name == "p"),
                    "{error}"
                );
            }
        }
        let longer = [bytes.as_slice(), &[0; 8]].concat();
        assert!(Part::decode(&longer, "p").is_err());
    }
}

/// The part's bytes with one byte changed and both checksums made to fit: what a wrong program could write.
fn forged(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    let body = crc32c::crc32c(&bytes[64..]);
    bytes[56..60].copy_from_slice(&body.to_le_bytes());
    let header = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&header.to_le_bytes());
    bytes
}

#[test]
fn a_part_with_right_checksums_and_wrong_content_never_panics() {
    let graph = Graph::from_edges(generate::rmat(4, 3, 1).unwrap().collect::<Vec<_>>()).unwrap();
    let split = partition(&graph, 3, Partitioner::Hash).unwrap();
    let groups = rank_parts(3, 3).unwrap();
    for part in build_parts(&graph, &split) {
        let bytes = part.encode();
        for at in 0..bytes.len() {
            for value in [0, 1, 7, 0x7f, 0xff] {
                // What is accepted must be safe to merge and compute with.
                if let Ok(part) = Part::decode(&forged(&bytes, at, value), "p") {
                    let me = part.part as usize;
                    if let Ok(shard) = Shard::merge(vec![part], &groups, me) {
                        let mut rank = PageRank::new(Arc::new(shard), Settings::new(1000)).unwrap();
                        rank.contribute();
                        rank.update(0.1);
                    }
                }
            }
        }
    }
    let bytes = parts_of(&graph, &split)[0].encode();
    let refusal = |at, value| {
        Part::decode(&forged(&bytes, at, value), "p")
            .unwrap_err()
            .to_string()
    };
    assert!(refusal(8, 1).contains("its format is version 1, and this lswitch reads version 2"));
    assert!(refusal(20, 1).contains("which is not what its counts need"));
    assert!(refusal(20, 2).contains("flags 0x2"));
    assert!(refusal(12, 9).contains("it is part 9 of 3"));
    for count in [24, 32, 40, 48] {
        assert!(refusal(count + 7, 0xff).contains("which is not what its counts need"));
    }
}

/// Graphs of few vertices, so that repeats, loops, dangling vertices and empty parts all happen.
fn graphs() -> impl Strategy<Value = Graph> {
    let edge = (0u64..24, 0u64..24).prop_map(|(source, target)| (source * 3, target * 3));
    let declared = prop::collection::vec(0u64..90, 0..4);
    (prop::collection::vec(edge, 1..80), declared)
        .prop_map(|(edges, declared)| Graph::from_edges_and_vertices(edges, &declared).unwrap())
}

/// A graph and a partition of it.
fn partitions() -> impl Strategy<Value = (Graph, Partition, Partitioner)> {
    (graphs(), 1u32..12, 0usize..PARTITIONERS.len()).prop_map(|(graph, parts, by)| {
        let parts = parts.min(graph.vertices() as u32);
        let split = partition(&graph, parts, PARTITIONERS[by]).unwrap();
        (graph, split, PARTITIONERS[by])
    })
}

proptest! {
    #[test]
    fn each_vertex_is_in_exactly_one_part_and_no_part_is_empty((graph, split, _) in partitions()) {
        let parts = parts_of(&graph, &split);
        prop_assert_eq!(parts.len(), split.parts as usize);
        prop_assert!(parts.iter().all(|part| !part.ids.is_empty()));
        let mut ids: Vec<u64> = parts.iter().flat_map(|part| part.ids.iter().copied()).collect();
        ids.sort_unstable();
        prop_assert_eq!(&ids, &graph.ids);
        let edges: usize = parts.iter().map(|part| part.sources.len()).sum();
        prop_assert_eq!(edges as u64, graph.edges());
        let measured = quality(&graph, &split);
        let ghosts: usize = parts.iter().map(|part| part.ghost_index.len()).sum();
        prop_assert_eq!(measured.boundary_values, ghosts as u64);
    }

    #[test]
    fn parts_come_back_from_their_bytes_and_sends_mirror_receives((graph, split, _) in partitions()) {
        let parts = parts_of(&graph, &split);
        for part in &parts {
            prop_assert_eq!(&Part::decode(&part.encode(), "p").unwrap(), part);
            for other in &parts {
                prop_assert_eq!(part.sends_to(other.part), other.ghosts_of(part.part));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_part_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Part::decode(&bytes, "p").is_err());
        let magic = [b"LSWPART\0".as_slice(), &bytes].concat();
        prop_assert!(Part::decode(&magic, "p").is_err());
    }

    #[test]
    fn ranks_that_exchange_values_compute_what_one_thread_does(
        (graph, split, _) in partitions(),
        damping in 0.0..=1.0,
        drop in any::<bool>(),
    ) {
        let dangling = if drop { Dangling::Drop } else { Dangling::Redistribute };
        let settings = Settings { damping, dangling, vertices: graph.vertices() };
        let (expected, _) = sequential(&graph, settings, 12, 0.0).unwrap();
        let expected: HashMap<u64, f64> = graph.ids.iter().copied().zip(expected).collect();
        let parts = parts_of(&graph, &split);
        let mut bits: Option<HashMap<u64, u64>> = None;
        for ranks in 1..=split.parts {
            let groups = rank_parts(split.parts, ranks).unwrap();
            let (found, change) = distributed(&parts, &groups, settings, 12);
            prop_assert!(l1(&found, &expected) <= 1e-12);
            prop_assert!(change.is_finite());
            let found: HashMap<u64, u64> = found.into_iter().map(|(id, rank)| (id, rank.to_bits())).collect();
            // The grouping of parts into ranks must not be seen in a single bit.
            prop_assert_eq!(bits.get_or_insert_with(|| found.clone()), &found);
        }
    }

    #[test]
    fn text_of_any_bytes_is_read_or_refused_with_its_line(text in prop::collection::vec(any::<u8>(), 0..200)) {
        match parse(&text) {
            Ok(list) => prop_assert!(!edges(&list).is_empty()),
            Err(error) => prop_assert!(error.to_string().starts_with("t:")),
        }
    }

    #[test]
    fn edges_come_back_from_their_text(
        mut expected in prop::collection::vec((any::<u64>(), any::<u64>()), 1..50),
        separator in prop::sample::select(vec!["\t", " ", ",", " , ", "  \t"]),
        end in prop::sample::select(vec!["\n", "\r\n", " \n\n", ",x\n", "\n#c\n"]),
    ) {
        let text: String = expected.iter().map(|(s, t)| format!("{s}{separator}{t}{end}")).collect();
        let list = parse(text.as_bytes()).unwrap();
        expected.sort_unstable();
        prop_assert_eq!(edges(&list), expected);
    }
}

/// The edges of a text, or the number of the first line that is none; by splitting and trimming.
fn slowly(text: &[u8]) -> Result<Vec<(u64, u64)>, usize> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut edges = Vec::new();
    let mut header_may_come = true;
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let start = line.iter().take_while(|byte| blank(byte)).count();
        let end = line.iter().rposition(|byte| !blank(byte) && *byte != b'\r');
        let line = &line[start..end.map_or(start, |end| (end + 1).max(start))];
        if line.is_empty() || matches!(line[0], b'#' | b'%') {
            continue;
        }
        let columns = line.splitn(2, |byte| blank(byte) || *byte == b',');
        let columns: Vec<&[u8]> = columns.collect();
        let id = |column: &[u8]| {
            let digits = !column.is_empty() && column.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(column).ok().filter(|_| digits);
            text.and_then(|text| text.parse::<u64>().ok())
        };
        let second = || {
            // Behind the first column: blanks with at most one comma among them.
            let mut rest = &line[columns[0].len()..];
            let mut commas = 0;
            while let [byte, tail @ ..] = rest
                && (blank(byte) || *byte == b',')
            {
                commas += usize::from(*byte == b',');
                rest = tail;
            }
            let column = rest.split(|byte| blank(byte) || *byte == b',').next();
            column.filter(|_| commas <= 1)
        };
        let edge = id(columns[0]).zip(second().and_then(id));
        let name = |column: &[u8]| {
            let first = column.first();
            first.is_some_and(|byte| {
                byte.is_ascii_alphabetic() || matches!(byte, b'"' | b'\'' | b'_' | 0x80..)
            })
        };
        match edge {
            Some(edge) => edges.push(edge),
            None if header_may_come && name(columns[0]) && second().is_some_and(name) => {}
            None => return Err(index + 1),
        }
        header_may_come = false;
    }
    edges.sort_unstable();
    Ok(edges)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn texts_of_many_blocks_are_read_as_by_splitting_and_trimming(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "1 2\n", "12345678\t87654321\n", "123456789,1\r\n", "  7   8  \n", "#c\n", "\n", "4 5 6\n",
                "18446744073709551615 0\n", "00000000000000000000000000001 2\n", "9 , 10\n", "\r\n", "% 3 4\n", "12 \t 13\n",
            ]),
            1..40,
        ),
        rare in prop::sample::select(vec![
            "", "", "", "1\n", "a b\n", "1 x\n", "1 18446744073709551616\n", "-1 2\n", "1,,2\n", "1 2,\n", "\0\n", "3 4", "1 2\r", "1\r 2\n",
        ]),
        place in 0usize..100,
        times in 1usize..6000,
    ) {
        let mut text = pieces.concat().repeat(times).into_bytes();
        let at = text.len() * place / 100;
        let at = text[at..].iter().position(|&byte| byte == b'\n').map_or(0, |end| at + end + 1);
        text.splice(at..at, rare.bytes());
        match (parse(&text), slowly(&text)) {
            (Ok(list), Ok(expected)) => prop_assert!(edges(&list) == expected),
            (Err(GraphError::Line { line, .. }), Err(expected)) => prop_assert_eq!(line, expected as u64),
            (Err(GraphError::NoEdges { .. }), Ok(expected)) => prop_assert!(expected.is_empty()),
            (found, expected) => prop_assert!(false, "{:?} {:?}", found.map(|_| ()), expected.map(|_| ())),
        }
    }
}

#[test]
fn the_same_graph_is_read_from_every_form_and_packing() {
    let Some(path) = data("snap/wiki-Vote.txt") else {
        return;
    };
    let graph = read(&path);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let text = std::fs::read(&path).unwrap();
    let packed = zstd::encode_all(&text[..], 3).unwrap();
    let (unpacked, notes) = read_graph(&write("wiki.txt.zst", &packed)).unwrap();
    assert!(unpacked == graph && notes.to_string().contains("zstd"));
    let short = &packed[..packed.len() / 2];
    let error = read_graph(&write("short.zst", short))
        .unwrap_err()
        .to_string();
    assert!(error.contains("the zstd data end early"), "{error}");

    // Matrix Market and METIS count from 1 and declare all between, so ids are made dense first.
    let size = graph.vertices();
    let dense: Vec<(usize, usize)> = (0..size as usize)
        .flat_map(|target| {
            graph
                .sources_of(target)
                .iter()
                .map(move |&source| (source as usize, target))
        })
        .collect();
    let mut matrix = format!(
        "%%MatrixMarket matrix coordinate pattern general\n% c\n{size} {size} {}\n",
        dense.len()
    );
    for (source, target) in &dense {
        matrix += &format!("{} {}\n", source + 1, target + 1);
    }
    let (from_matrix, notes) = read_graph(&write("wiki.mtx", matrix.as_bytes())).unwrap();
    assert_eq!(notes.form, Form::MatrixMarket);
    let same = |other: &Graph| {
        other.in_offsets == graph.in_offsets && other.in_sources == graph.in_sources
    };
    assert!(same(&from_matrix));

    let symmetric = graph.symmetric().unwrap();
    let mut metis = format!("{size} {}\n", symmetric.adjncy.len() / 2);
    for bounds in symmetric.xadj.windows(2) {
        let row = &symmetric.adjncy[bounds[0] as usize..bounds[1] as usize];
        let row: Vec<String> = row.iter().map(|v| (v + 1).to_string()).collect();
        metis += &(row.join(" ") + "\n");
    }
    let (from_metis, notes) = read_graph(&write("wiki.graph", metis.as_bytes())).unwrap();
    assert_eq!(notes.form, Form::Metis);
    assert!(from_metis.symmetric && !graph.symmetric);
    assert_eq!(from_metis.edges(), symmetric.adjncy.len() as u64);
    let both = Reading {
        undirected: true,
        unique: true,
        drop_loops: true,
        ..Reading::default()
    };
    let (both, _) = lswitch::graph::read_graph(&path, both, &|_| {}).unwrap();
    assert!(both.in_sources == from_metis.in_sources && both.in_offsets == from_metis.in_offsets);

    // A partition from elsewhere: a line for each vertex.
    let lines: String = (0..size).map(|v| format!("{}\n", v % 3)).collect();
    let imported = import(&graph, 3, &write("wiki.part.3", lines.as_bytes())).unwrap();
    assert_eq!(
        imported.of,
        (0..size as u32).map(|v| v % 3).collect::<Vec<_>>()
    );
    assert!(
        import(
            &graph,
            3,
            &write("blank.part", format!("{lines}\n\n").as_bytes())
        )
        .is_ok()
    );
    let error = import(&graph, 4, &write("wiki.part.3", lines.as_bytes())).unwrap_err();
    assert!(
        error.to_string().contains("no vertex into part 3 of 4"),
        "{error}"
    );
    for (lines, word) in [
        ("0\n1\n", "2 lines"),
        ("0\n3\n", "\"3\" is no part"),
        ("0\nx\n", "wiki.part:2"),
    ] {
        let error = import(&graph, 3, &write("wiki.part", lines.as_bytes())).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_matrix_without_what_it_says_is_refused() {
    assert!(parse(b"%%MatrixMarket matrix coordinate pattern general\n2 2 1\n").is_err());
    assert!(parse(b"%%MatrixMarket matrix array real general\n2 2\n").is_err());
}
