//! Graphs from files to ranks, without a network: real graphs against their published facts, and properties.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use lswitch::graph::fixed::from_fixed;
use lswitch::graph::pagerank::sequential;
use lswitch::graph::{
    Balance, Dangling, Graph, GraphError, Manifest, PageRank, Part, PartBuilder, PartEntry,
    Partition, Partitioner, Precision, Reading, Settings, Shard, Split, build_parts, generate,
    quality, rank_parts, top,
};
use proptest::prelude::*;

use crate::support::data;

const PARTITIONERS: [Partitioner; 4] = Partitioner::MAKERS;

pub fn read(path: &Path) -> Graph {
    lswitch::graph::read_graph(path, Reading::default(), &|_| {})
        .unwrap()
        .0
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
    ranks.iter_mut().for_each(PageRank::begin);
    exchange(&mut ranks);
    for _ in 0..iterations {
        let mass = from_fixed(dangling);
        ranks.iter_mut().for_each(|rank| rank.update_boundary(mass));
        let steps: Vec<_> = ranks
            .iter_mut()
            .map(|rank| rank.update_interior(mass, &mut || ()))
            .collect();
        exchange(&mut ranks);
        dangling = steps.iter().map(|step| step.dangling).sum();
        change = from_fixed(steps.iter().map(|step| step.l1_change).sum());
        assert_eq!(dangling, ranks.iter().map(PageRank::dangling).sum::<i128>());
    }
    let of_rank = |rank: &PageRank| {
        let pairs = rank.ids().iter().copied();
        pairs.zip(rank.ranks().iter().copied()).collect::<Vec<_>>()
    };
    (ranks.iter().flat_map(of_rank).collect(), change)
}

/// What is to be sent is sent and taken in, and all go on.
fn exchange(ranks: &mut [PageRank]) {
    let mut wire: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
    for (from, rank) in ranks.iter().enumerate() {
        let sends = rank.shard().sends.iter();
        wire.extend(
            sends.map(|(to, vertices)| ((from, *to), rank.gather(vertices, Precision::F64))),
        );
    }
    for (to, rank) in ranks.iter_mut().enumerate() {
        for (from, ghosts) in rank.shard().receives.clone() {
            let payload = wire
                .remove(&(from, to))
                .expect("who is to receive is sent to");
            rank.scatter(ghosts, &payload, Precision::F64).unwrap();
        }
        rank.advance();
    }
    assert!(wire.is_empty(), "somebody sent what nobody receives");
}

fn parts_of(graph: &Graph, split: &Partition) -> Vec<Part> {
    build_parts(graph, split).collect()
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
        let entry = |part| {
            let Ok(written) = builder.write(part, |_| -> Result<(), Infallible> { Ok(()) });
            PartEntry::of(format!("part-{part}"), &written)
        };
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
        assert_eq!(Part::decode(bytes.clone(), "p").unwrap(), part);
        for at in 0..bytes.len() {
            assert!(
                Part::decode(bytes[..at].to_vec(), "p").is_err(),
                "{at} bytes were accepted"
            );
            for flip in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let error = Part::decode(changed, "p").unwrap_err();
                assert!(
                    matches!(&error, GraphError::Part { name, .. } if name == "p"),
                    "{error}"
                );
            }
        }
        let longer = [bytes.as_slice(), &[0; 8]].concat();
        assert!(Part::decode(longer, "p").is_err());
    }
}

/// The part's bytes with one byte changed and both checksums made to fit: what a wrong program could write.
fn forged(bytes: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] = value;
    let trailer = bytes.len() - 8;
    let arrays = crc32c::crc32c(&bytes[64..trailer]);
    if at < trailer {
        bytes[trailer..trailer + 4].copy_from_slice(&arrays.to_le_bytes());
    }
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
                if let Ok(part) = Part::decode(forged(&bytes, at, value), "p") {
                    let me = part.part as usize;
                    if let Ok(shard) = Shard::merge(vec![part], &groups, me) {
                        let mut rank = PageRank::new(Arc::new(shard), Settings::new(1000)).unwrap();
                        rank.begin();
                        rank.advance();
                        rank.update_boundary(0.1);
                        rank.update_interior(0.1, &mut || ());
                    }
                }
            }
        }
    }
    let bytes = parts_of(&graph, &split)[0].encode();
    let refusal = |at, value| {
        Part::decode(forged(&bytes, at, value), "p")
            .unwrap_err()
            .to_string()
    };
    assert!(refusal(8, 1).contains("its format is version 1, and this lswitch reads version 4"));
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
            prop_assert_eq!(&Part::decode(part.encode(), "p").unwrap(), part);
            for other in &parts {
                prop_assert_eq!(part.sends_to(other.part), other.ghosts_of(part.part));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_part_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Part::decode(bytes.clone(), "p").is_err());
        let magic = [b"LSWPART\0".as_slice(), &bytes].concat();
        prop_assert!(Part::decode(magic, "p").is_err());
    }

    #[test]
    fn ranks_that_exchange_values_compute_what_one_thread_does(
        (graph, split, _) in partitions(),
        damping in 0.0..=1.0,
        drop in any::<bool>(),
    ) {
        let dangling = if drop { Dangling::Drop } else { Dangling::Redistribute };
        let settings = Settings { damping, dangling, vertices: graph.vertices() };
        let (expected, _) = sequential(&graph, settings, None, 12, 0.0).unwrap();
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
}
