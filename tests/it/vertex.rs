//! Vertex programs: against obvious ones on random graphs, and against LDBC Graphalytics.

use crate::support::{Place, data};
use lswitch::graph::lcc::{self, Clustering};
use lswitch::graph::numbering::Declared;
use lswitch::graph::programs::{Bfs, Cdlp, Sssp, UNREACHABLE, Wcc};
use lswitch::graph::vertex::{Superstep, Value, VertexProgram};
use lswitch::graph::{
    Balance, Graph, Partitioner, Reads, Shard, build_parts, mirrors, partition, rank_parts,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

type Edges = Vec<(u64, u64, f64)>;

/// What each rank says to others: (from, to) -> bytes.
type Wire = HashMap<(usize, usize), Vec<u8>>;

fn shards(edges: &Edges, parts: u32, ranks: u32, by: Partitioner) -> (Graph, Vec<Shard>) {
    let all = vec![edges.iter().copied().collect()];
    let graph = Graph::build(all, &Declared::Ids(vec![5]), false).unwrap();
    let parts = parts.min(graph.vertices() as u32);
    let split = partition(&graph, parts, by, Balance::Edges).unwrap();
    let built: Vec<_> = build_parts(&graph, &split).collect();
    let groups = rank_parts(parts, ranks.min(parts)).unwrap();
    let shard = |(me, group): (usize, &std::ops::Range<u32>)| {
        let own = built[group.start as usize..group.end as usize].to_vec();
        Shard::merge(own, &groups, me).unwrap()
    };
    let shards = groups.iter().enumerate().map(shard).collect();
    (graph, shards)
}

fn send(wire: &mut Wire, from: usize, messages: Vec<(usize, Vec<u8>)>) {
    for (to, bytes) in messages {
        assert!(
            wire.insert((from, to), bytes).is_none(),
            "one message a pair"
        );
    }
}

/// What came to a rank, by sender, ascending.
fn received(wire: &mut Wire, to: usize) -> Vec<(usize, Vec<u8>)> {
    let mut from: Vec<usize> = wire
        .keys()
        .filter(|key| key.1 == to)
        .map(|key| key.0)
        .collect();
    from.sort_unstable();
    let take = |from| (from, wire.remove(&(from, to)).unwrap());
    from.into_iter().map(take).collect()
}

fn both(shards: &[Shard]) -> Vec<Reads> {
    let mut wire = Wire::new();
    let told: Vec<_> = shards.iter().map(mirrors).collect();
    for (from, told) in told.iter().enumerate() {
        let messages = told
            .iter()
            .map(|mirror| (mirror.rank, mirror.message.clone()));
        send(&mut wire, from, messages.collect());
    }
    let reads = shards
        .iter()
        .zip(told)
        .enumerate()
        .map(|(me, (shard, told))| {
            let heard = received(&mut wire, me);
            assert_eq!(
                heard.len(),
                shard.sends.len(),
                "those who read here have told"
            );
            Reads::both(shard, told, &heard).unwrap()
        });
    let reads = reads.collect();
    assert!(wire.is_empty());
    reads
}

/// The values of all vertices by id.
fn run<P: VertexProgram>(
    shards: &[Shard],
    reads: Vec<Reads>,
    program: impl Fn() -> P,
) -> BTreeMap<u64, P::Value> {
    let most = program().supersteps().unwrap_or(10_000);
    let mut ranks: Vec<Superstep<P>> = shards
        .iter()
        .zip(reads)
        .map(|(shard, reads)| Superstep::new(program(), Arc::new(reads), &shard.ids))
        .collect();
    for step in 0..most {
        let mut wire = Wire::new();
        for (from, rank) in ranks.iter_mut().enumerate() {
            let messages = rank.outgoing();
            send(&mut wire, from, messages);
        }
        let mut changed = 0;
        for (me, rank) in ranks.iter_mut().enumerate() {
            for (from, message) in received(&mut wire, me) {
                rank.incoming(from, &message).unwrap();
            }
            changed += rank.compute();
        }
        if changed == 0 {
            break;
        }
        assert!(step < 9_999, "it ends");
    }
    let values = |(rank, shard): (&Superstep<P>, &Shard)| -> Vec<(u64, P::Value)> {
        shard
            .ids
            .iter()
            .copied()
            .zip(rank.values().iter().copied())
            .collect()
    };
    ranks.iter().zip(shards).flat_map(values).collect()
}

fn along_in(shards: &[Shard]) -> Vec<Reads> {
    shards.iter().map(Reads::along_in).collect()
}

fn clustering(shards: &[Shard], reads: &[Reads], symmetric: bool) -> BTreeMap<u64, f64> {
    let mut starts = vec![0];
    for shard in shards {
        starts.push(starts.last().unwrap() + shard.vertices() as u64);
    }
    let mut wire = Wire::new();
    for (from, reads) in reads.iter().enumerate() {
        send(&mut wire, from, lcc::introductions(reads));
    }
    let mut ranks: Vec<Clustering> = Vec::new();
    for (me, (shard, reads)) in shards.iter().zip(reads).enumerate() {
        let introduced = received(&mut wire, me);
        let mut rank = Clustering::new(shard, reads, &starts, &introduced).unwrap();
        rank.own_edges(shard, symmetric);
        ranks.push(rank);
    }
    for (from, rank) in ranks.iter().enumerate() {
        send(&mut wire, from, rank.outgoing());
    }
    let mut all = BTreeMap::new();
    for (me, (rank, shard)) in ranks.iter_mut().zip(shards).enumerate() {
        rank.incoming(&received(&mut wire, me)).unwrap();
        all.extend(shard.ids.iter().copied().zip(rank.coefficients()));
    }
    all
}

fn slow_lengths(graph: &Graph, edges: &Edges, source: u64, unit: bool) -> BTreeMap<u64, f64> {
    let mut lengths: BTreeMap<u64, f64> = graph.ids.iter().map(|&id| (id, f64::INFINITY)).collect();
    if let Some(length) = lengths.get_mut(&source) {
        *length = 0.0;
    }
    for _ in 0..graph.ids.len() {
        for &(from, to, weight) in edges {
            let through = lengths[&from] + if unit { 1.0 } else { weight };
            if through < lengths[&to] {
                lengths.insert(to, through);
            }
        }
    }
    lengths
}

fn slow_components(graph: &Graph, edges: &Edges) -> BTreeMap<u64, u64> {
    let mut labels: BTreeMap<u64, u64> = graph.ids.iter().map(|&id| (id, id)).collect();
    for _ in 0..graph.ids.len() {
        for &(a, b, _) in edges {
            let least = labels[&a].min(labels[&b]);
            labels.insert(a, least);
            labels.insert(b, least);
        }
    }
    labels
}

fn slow_communities(graph: &Graph, edges: &Edges, rounds: u64) -> BTreeMap<u64, u64> {
    let mut labels: BTreeMap<u64, u64> = graph.ids.iter().map(|&id| (id, id)).collect();
    for _ in 0..rounds {
        let mut counts: BTreeMap<u64, BTreeMap<u64, u32>> = BTreeMap::new();
        for &(a, b, _) in edges {
            *counts.entry(a).or_default().entry(labels[&b]).or_default() += 1;
            *counts.entry(b).or_default().entry(labels[&a]).or_default() += 1;
        }
        for (id, counts) in counts {
            let most = *counts.values().max().unwrap();
            let label = counts.iter().find(|(_, count)| **count == most).unwrap().0;
            labels.insert(id, *label);
        }
    }
    labels
}

fn slow_coefficients(graph: &Graph, edges: &Edges) -> BTreeMap<u64, f64> {
    let joined: BTreeSet<(u64, u64)> = edges
        .iter()
        .filter(|(a, b, _)| a != b)
        .map(|&(a, b, _)| (a, b))
        .collect();
    let coefficient = |&id: &u64| {
        let of = |&(a, b): &(u64, u64)| match (a == id, b == id) {
            (true, _) => Some(b),
            (_, true) => Some(a),
            _ => None,
        };
        let neighbours: BTreeSet<u64> = joined.iter().filter_map(of).collect();
        let pairs = neighbours
            .iter()
            .flat_map(|&a| neighbours.iter().map(move |&b| (a, b)));
        let count = pairs.filter(|pair| joined.contains(pair)).count() as f64;
        let degree = neighbours.len() as f64;
        (
            id,
            if degree < 2.0 {
                0.0
            } else {
                count / (degree * (degree - 1.0))
            },
        )
    };
    graph.ids.iter().map(coefficient).collect()
}

fn words<V: Value>(values: &BTreeMap<u64, V>) -> BTreeMap<u64, u64> {
    values
        .iter()
        .map(|(id, value)| (*id, value.to_word()))
        .collect()
}

proptest! {
    #[test]
    fn ranks_that_exchange_values_find_what_is_to_be_found(
        mut edges in prop::collection::vec((0u64..40, 0u64..40, 0u32..50), 1..120)
            .prop_map(|edges| edges.into_iter().map(|(a, b, w)| (a * 3, b * 3, f64::from(w) / 8.0)).collect::<Edges>()),
        parts in 1u32..10,
        ranks in 1u32..6,
        by in prop::sample::select(vec![Partitioner::Hash, Partitioner::Range, Partitioner::Fennel]),
        symmetric in any::<bool>(),
    ) {
        if symmetric {
            let mirrored: Edges = edges.iter().map(|&(a, b, w)| (b, a, w)).collect();
            edges.extend(mirrored);
        }
        let (graph, shards) = shards(&edges, parts, ranks, by);
        prop_assert!(graph.symmetric || !symmetric);
        let source = edges[0].0;
        let hops = run(&shards, along_in(&shards), || Bfs { source });
        let expected = slow_lengths(&graph, &edges, source, true);
        let expected = expected.into_iter().map(|(id, hops)| (id, if hops.is_finite() { hops as u64 } else { UNREACHABLE }));
        prop_assert_eq!(hops, expected.collect());
        let lengths = run(&shards, along_in(&shards), || Sssp { source });
        prop_assert_eq!(words(&lengths), words(&slow_lengths(&graph, &edges, source, false)));
        let components = slow_components(&graph, &edges);
        prop_assert_eq!(&run(&shards, both(&shards), || Wcc), &components);
        let communities = slow_communities(&graph, &edges, 4);
        prop_assert_eq!(&run(&shards, both(&shards), || Cdlp::new(4)), &communities);
        let coefficients = words(&slow_coefficients(&graph, &edges));
        prop_assert_eq!(words(&clustering(&shards, &both(&shards), false)), coefficients.clone());
        if graph.symmetric {
            prop_assert_eq!(&run(&shards, along_in(&shards), || Wcc), &components);
            prop_assert_eq!(&run(&shards, along_in(&shards), || Cdlp::new(4)), &communities);
            prop_assert_eq!(words(&clustering(&shards, &along_in(&shards), true)), coefficients);
        }
    }

    #[test]
    fn a_message_of_any_bytes_is_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let edges = (0..20).map(|i| (i, i * 7 % 20, 1.0)).collect();
        let (_, shards) = shards(&edges, 2, 2, Partitioner::Hash);
        let reads = Arc::new(Reads::along_in(&shards[0]));
        let mut rank = Superstep::new(Wcc, Arc::clone(&reads), &shards[0].ids);
        let _ = rank.incoming(1, &bytes);
        let _ = rank.incoming(7, &bytes);
        rank.compute();
        let _ = Reads::both(&shards[0], mirrors(&shards[0]), &[(1, bytes.clone())]);
        let starts = [0, shards[0].vertices() as u64, 20];
        if let Ok(mut clustering) = Clustering::new(&shards[0], &reads, &starts, &[(1, bytes.clone())]) {
            clustering.own_edges(&shards[0], true);
            let _ = clustering.incoming(&[(1, bytes)]);
        }
    }
}

/// The values of an output or a reference, by id.
fn values(text: &str) -> BTreeMap<u64, String> {
    let pair = |line: &str| {
        let (id, value) = line.split_once(char::is_whitespace).expect("id and value");
        (id.parse().expect("an id"), value.trim().to_owned())
    };
    text.lines().map(pair).collect()
}

/// Every algorithm on the example graph, by Graphalytics' rules: exactly, by equal partitions, or within 0.01 %.
#[test]
fn all_six_algorithms_give_what_graphalytics_expects() {
    let Some(folder) = data("graphalytics") else {
        return;
    };
    let place = Place::new();
    let edges = folder.join("example-directed.e");
    for (parts, workers) in [(1, 1), (3, 3), (5, 2)] {
        let graph = format!("graph-{parts}");
        let arguments = format!(
            "preprocess --parts {parts} --weights --partitioner hash --out {graph} --overwrite"
        );
        place.lswitch(&arguments).arg(&edges).ok();
        for (program, settings, reference) in [
            ("pagerank", "--iterations 2 --ignore-weights", "PR"),
            ("bfs", "--source 1", "BFS"),
            ("sssp", "--source 1", "SSSP"),
            ("wcc", "", "WCC"),
            ("cdlp", "--iterations 2", "CDLP"),
            ("lcc", "", "LCC"),
        ] {
            let output = format!("{program}-{parts}");
            let arguments = format!(
                "invoke {program} --graph {graph} --workers {workers} {settings} --output {output} --json"
            );
            place.lswitch(&arguments).ok();
            let files = place.output(&output).files.into_iter();
            let files = files.filter(|(name, _)| name.ends_with(".tsv"));
            let files = files.map(|(_, bytes)| String::from_utf8(bytes).expect("text"));
            let found: String = files.collect();
            let found = values(&found);
            let file = folder.join(format!("example-directed-{reference}"));
            let expected = values(&std::fs::read_to_string(file).expect("a reference"));
            assert!(found.keys().eq(expected.keys()), "{program}");
            let number = |text: &str| match text {
                "infinity" => f64::INFINITY,
                other => other.parse().expect("a number"),
            };
            match program {
                "bfs" | "cdlp" => assert_eq!(found, expected, "{program}"),
                "wcc" => {
                    let mut pairs: BTreeSet<(&str, &str)> = BTreeSet::new();
                    pairs.extend(
                        found
                            .iter()
                            .map(|(id, label)| (&label[..], &expected[id][..])),
                    );
                    let labels: BTreeSet<&String> = found.values().collect();
                    let others: BTreeSet<&String> = expected.values().collect();
                    assert!(pairs.len() == labels.len() && pairs.len() == others.len());
                }
                _ => {
                    for (id, value) in &found {
                        let (value, due) = (number(value), number(&expected[id]));
                        assert!(
                            value == due || (value - due).abs() <= 1e-4 * due,
                            "{program} {id}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_computed_is_refused_with_the_reason() {
    let place = Place::new();
    place.write("edges.txt", "1 2 3\n2 3 -1\n");
    place
        .lswitch("preprocess edges.txt --parts 2 --out plain")
        .ok();
    place
        .lswitch("preprocess edges.txt --parts 2 --weights --out weighted")
        .ok();
    place
        .lswitch("invoke bfs --graph plain --source 1 --output hops")
        .ok();
    let again = "invoke bfs --graph plain --source 9 --output hops --overwrite";
    place.lswitch(again).end().fails_with(1);
    assert!(
        !place.path("hops/result.json").exists(),
        "nothing vouches for the output of a job that failed"
    );
    for (arguments, words) in [
        (
            "invoke bfs --graph plain --source 9",
            "has no vertex 9 to start at",
        ),
        (
            "invoke sssp --graph plain --source 1",
            "run preprocess with --weights",
        ),
        (
            "invoke sssp --graph weighted --source 1",
            "negative weights",
        ),
    ] {
        let ended = place.lswitch(arguments).end();
        let message = ended.fails_with(1);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_shortest_path_that_no_number_holds_is_an_error_and_not_unreachable() {
    let place = Place::new();
    place.write("edges.txt", "1 2 1e308\n2 3 1e308\n4 1 1\n");
    place
        .lswitch("preprocess edges.txt --parts 2 --weights --out graph")
        .ok();
    let ended = place.lswitch("invoke sssp --graph graph --source 1").end();
    let message = ended.fails_with(1);
    let words = "the shortest path from 1 to vertex 3 is longer than 1.8e308";
    assert!(message.contains(words), "{message}");
    // A second path that is short enough is the answer.
    place.write("edges.txt", "1 2 1e308\n2 3 1e308\n1 3 5\n4 1 1\n");
    place
        .lswitch("preprocess edges.txt --parts 2 --weights --out detour")
        .ok();
    place
        .lswitch("invoke sssp --graph detour --source 1 --output lengths")
        .ok();
}
