//! Texts to graphs: real files against their published facts, every form and packing, and hostile lines.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use flate2::Compression;
use flate2::write::GzEncoder;
use lswitch::graph::edges::Edges;
use lswitch::graph::read::{Read as TextRead, read_edges, read_text};
use lswitch::graph::text::{Packing, Text};
use lswitch::graph::{Form, Graph, GraphError, Notes, Reading, import};
use proptest::prelude::*;

use crate::graph::read;
use crate::support::data;

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
            "edge list, gzip, header row \"source,target\", edges from column \"source\" to \"target\"",
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

/// Files in a folder of their own, of which the first is the graph.
fn graph_of(files: &[(&str, &str)], reading: Reading) -> Result<(Graph, Notes), GraphError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    lswitch::graph::read_graph(&folder.path().join(files[0].0), reading, &|_| {})
}

/// The edges of a graph by ids, sorted; with weights, 0 for none.
fn edges_of(graph: &Graph) -> Vec<(u64, u64, f64)> {
    let mut edges = Vec::new();
    for target in 0..graph.vertices() as usize {
        let start = graph.in_offsets[target] as usize;
        for (place, &source) in graph.sources_of(target).iter().enumerate() {
            let weights = graph.in_weights.as_ref();
            let weight = weights.map_or(0.0, |weights| weights[start + place]);
            edges.push((graph.ids[source as usize], graph.ids[target], weight));
        }
    }
    edges.sort_by(|a, b| a.partial_cmp(b).unwrap());
    edges
}

/// The edges of one file without options.
fn plainly(name: &str, content: &str) -> Vec<(u64, u64)> {
    let (graph, _) = graph_of(&[(name, content)], Reading::default()).unwrap();
    let edges = edges_of(&graph).into_iter();
    edges.map(|(source, target, _)| (source, target)).collect()
}

#[test]
fn the_names_of_a_header_choose_the_columns() {
    let triangle = vec![(7, 8), (8, 9), (9, 7)];
    for content in [
        "id,source,target\n0,7,8\n1,8,9\n2,9,7\n",
        ",source,target\n0,7,8\n1,8,9\n2,9,7\n",
        "\tsource\ttarget\n0\t7\t8\n1\t8\t9\n2\t9\t7\n",
        "target,source\n8,7\n9,8\n7,9\n",
        "Weight;To;From\n1;8;7\n1;9;8\n1;7;9\n",
        "\"Label\",\"Target\",\"Source\"\n\"a, b\",\"8\",\"7\"\n\"\"\"\",\"9\",\"8\"\n,\"7\",\"9\"\n",
        "src|dst\r\n7.0|8.0\r\n\r\n8.0|9.0\r\n9.0|7.0\r\n",
        "# ToNodeId\tFromNodeId\n8\t7\n9\t8\n7\t9\n",
        ",0,1\n0,7,8\n1,8,9\n2,9,7\n",
        "\"from\" \"to\"\n\"1\" 7 8\n\"2\" 8 9\n\"3\" 9 7\n",
    ] {
        assert_eq!(plainly("g.csv", content), triangle, "{content}");
    }
    let weights = Reading {
        weights: true,
        ..Reading::default()
    };
    let gephi =
        "Source,Target,Type,Id,Label,timeset,Weight\n7,8,Directed,0,,,0.5\n8,9,Directed,1,,,2\n";
    let (graph, notes) = graph_of(&[("g.csv", gephi)], weights).unwrap();
    assert_eq!(edges_of(&graph), [(7, 8, 0.5), (8, 9, 2.0)]);
    assert!(
        notes
            .to_string()
            .contains("edges from column \"Source\" to \"Target\", weight \"Weight\""),
        "{notes}"
    );
}

#[test]
fn a_header_and_lines_that_leave_a_doubt_are_refused() {
    for (content, words) in [
        (
            "x,y,z\n1,2,3\n",
            "g.csv:1: the header has the columns \"x\", \"y\", \"z\"",
        ),
        (
            "source,target\n0,7,8\n",
            "the header has 2 names, and the line below it 3 columns",
        ),
        ("id,source,target\n0,7\n", "g.csv:2: there is no column 3"),
        ("id,source,target\n0,,8\n", "g.csv:2: column 2 is empty"),
        ("id,source,target\n0,\"7,8\n", "a quote is not closed"),
        ("id,source,target\n0,7,x\n", "\"x\" is not a vertex id"),
        ("9007199254740993.0,1\n", "above 2^53"),
    ] {
        let error = graph_of(&[("g.csv", content)], Reading::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn edge_lists_of_other_programs_are_read() {
    for (name, content) in [
        ("quoted.csv", "\"from\",\"to\"\n\"1\",\"2\"\n\"2\",\"3\"\n"),
        ("single.csv", "'1','2'\n'2','3'\n"),
        ("float.csv", "src,dst\n1.0,2.0\n2.0,3.0\n"),
        ("semicolon.csv", "1;2\n2;3\n"),
        ("bar.csv", "1|2|x\n2|3|y\n"),
        ("bom.csv", "\u{feff}source;target\n1;2\n2;3;\n"),
        ("roads.gr", "c made\np sp 3 2\na 1 2 5\na 2 3 7\n"),
    ] {
        assert_eq!(plainly(name, content), [(1, 2), (2, 3)], "{name}");
    }
    assert_eq!(plainly("g.col", "p edge 3 1\ne 1 2\n"), [(1, 2), (2, 1)]);
    let weights = Reading {
        weights: true,
        ..Reading::default()
    };
    let read = |name, content| graph_of(&[(name, content)], weights.clone());
    let (roads, notes) = read("roads.gr", "p sp 4 2\na 1 2 5\na 2 3 7\n").unwrap();
    assert_eq!(
        (roads.vertices(), edges_of(&roads)),
        (4, vec![(1, 2, 5.0), (2, 3, 7.0)])
    );
    assert_eq!(
        notes.to_string(),
        "DIMACS graph, 4 vertices declared, weighted"
    );
    let (decimals, _) = read("g.csv", "1;2;0,5\n2;3;1,5\n").unwrap();
    assert_eq!(edges_of(&decimals), [(1, 2, 0.5), (2, 3, 1.5)]);
    for (content, words) in [
        (
            "p sp 3 3\na 1 2 5\na 2 3 7\n",
            "roads.gr:1: it says 3 edges, and has 2",
        ),
        (
            "p sp 3 2\na 1 2 5\na 2 4 7\n",
            "roads.gr:3: \"a 2 4 7\" has the id 4",
        ),
        (
            "p sp 3 2\na 1 2 5\nb 2 3 7\n",
            "roads.gr:3: expected \"a SOURCE TARGET\"",
        ),
        ("p max 3 2\na 1 2 5\n", "\"max\" are not read"),
        ("p sp 3 1\na 1 2\n", "has no weight"),
    ] {
        let error = read("roads.gr", content).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// The files of an LDBC graph whose edges stand once each.
fn ldbc(properties: &str) -> [(&str, &str); 3] {
    [
        ("u.e", "1 2 0.5\n2 3 1\n3 4 1\n"),
        ("u.v", "1\n2\n3\n4\n9\n"),
        ("u.properties", properties),
    ]
}

#[test]
fn the_properties_beside_an_edge_list_say_what_its_lines_are() {
    let all = "graph.u.meta.vertices = 5\ngraph.u.meta.edges = 3\ngraph.u.directed = false\n\
        graph.u.edge-properties.names = weight\n";
    let (graph, notes) = graph_of(&ldbc(all), Reading::default()).unwrap();
    assert_eq!((graph.vertices(), graph.edges()), (5, 6));
    assert!(graph.symmetric);
    assert_eq!(
        notes.to_string(),
        "edge list, column \"weight\" ignored, 5 vertices declared, each line both ways (u.properties: directed = false)"
    );
    let edges = |reading: Reading| graph_of(&ldbc(all), reading).unwrap().0.edges();
    let directed = Reading {
        directed: true,
        ..Reading::default()
    };
    assert_eq!(edges(directed), 3);
    for (properties, words) in [
        (
            "graph.u.meta.vertices = 6\n",
            "u.properties: it says 6 vertices",
        ),
        ("graph.u.meta.edges = 4\n", "u.properties: it says 4 edges"),
        ("graph.u.directed = perhaps\n", "must be true or false"),
    ] {
        let error = graph_of(&ldbc(properties), Reading::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let (as_written, _) = graph_of(&ldbc(all)[..2], Reading::default()).unwrap();
    assert_eq!(as_written.edges(), 3);
    let weighted = Reading {
        weights: true,
        ..Reading::default()
    };
    let none = "graph.u.edge-properties.names =\n";
    let error = graph_of(&ldbc(none), weighted).unwrap_err().to_string();
    assert!(error.contains("no properties of edges"), "{error}");
}

#[test]
fn the_first_lines_of_konect_say_what_edges_are() {
    let edges = |content| plainly("out.g", content);
    assert_eq!(
        edges("% bip unweighted\n% 3 3 2\n1 1\n2 1\n3 2\n"),
        [(1, 4), (2, 4), (3, 5)]
    );
    assert_eq!(edges("% sym unweighted\n% 1 2 2\n1 2\n"), [(1, 2), (2, 1)]);
    assert_eq!(edges("% asym unweighted\n% 1 2 2\n1 2\n"), [(1, 2)]);
    for (content, words) in [
        (
            "% sym unweighted\n% 2 2 2\n1 2\n",
            "out.g:2: it says 2 edges, and has 1",
        ),
        (
            "% sym unweighted\n% 1 2 2\n1 3\n",
            "out.g:2: it says 2 vertices",
        ),
        ("% bip unweighted\n1 2\n", "bipartite"),
        (
            "% bip unweighted\n% 1 1 1\n2 1\n",
            "out.g:3: \"2 1\" has the id 2",
        ),
        (
            "% bip unweighted\n% 1 1 1\n1 0\n",
            "out.g:3: \"1 0\" has the id 0",
        ),
    ] {
        let error = graph_of(&[("out.g", content)], Reading::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_comment_that_the_graph_contradicts_is_worth_a_hint() {
    let snap =
        "# Undirected graph: g.txt\n# Nodes: 4 Edges: 2\n# FromNodeId\tToNodeId\n1\t2\n2\t3\n";
    let hints = |reading| {
        let (_, notes) = graph_of(&[("g.txt", snap)], reading).unwrap();
        notes.hints.join("; ")
    };
    let both = hints(Reading::default());
    assert!(both.contains("--undirected") && both.contains("4 nodes, and 3 were read"));
    for (undirected, directed) in [(true, false), (false, true)] {
        let decided = hints(Reading {
            undirected,
            directed,
            ..Reading::default()
        });
        assert!(!decided.contains("--undirected"), "{decided}");
    }
}

#[test]
fn a_vertex_whose_loops_are_dropped_stays() {
    let reading = || Reading {
        drop_loops: true,
        ..Reading::default()
    };
    for (content, vertices, edges) in [("1 2\n5 5\n", 3, 1), ("7 7\n7 7\n", 1, 0)] {
        let (graph, _) = graph_of(&[("g.txt", content)], reading()).unwrap();
        assert_eq!(
            (graph.vertices(), graph.edges()),
            (vertices, edges),
            "{content}"
        );
    }
    let files = [("g.e", "1 1\n2 3\n"), ("g.v", "2\n3\n4\n")];
    let (graph, _) = graph_of(&files, reading()).unwrap();
    assert_eq!(graph.ids, [1, 2, 3, 4]);
}

#[test]
fn a_metis_file_has_each_edge_with_both_ends() {
    let asymmetric = "3 2\n2\n3\n1 2\n";
    let error = graph_of(&[("a.graph", asymmetric)], Reading::default()).unwrap_err();
    assert!(
        error.to_string().contains("vertex 1 has 2")
            || error.to_string().contains("vertex 3 has 1"),
        "{error}"
    );
    let looped = [("l.graph", "3 3\n1 2\n1 3\n2\n")];
    let error = graph_of(&looped, Reading::default()).unwrap_err();
    assert!(error.to_string().contains("--drop-loops"), "{error}");
    let drop_loops = Reading {
        drop_loops: true,
        ..Reading::default()
    };
    let (graph, notes) = graph_of(&looped, drop_loops).unwrap();
    assert_eq!(
        (graph.vertices(), graph.edges(), notes.dropped_loops),
        (3, 4, 1)
    );
}

#[test]
fn every_field_of_a_matrix_is_read_for_its_structure() {
    let matrix = |field: &str, entries: &str| {
        format!("%%MatrixMarket matrix coordinate {field} general\n%\n3 3 2\n{entries}")
    };
    let weighted = || Reading {
        weights: true,
        ..Reading::default()
    };
    let unsigned = matrix("unsigned-integer", "1 2 5\n2 3 6\n");
    let complex = matrix("complex", "1 2 5 0\n2 3 6 1\n");
    assert_eq!(plainly("u.mtx", &unsigned), [(1, 2), (2, 3)]);
    assert_eq!(plainly("c.mtx", &complex), [(1, 2), (2, 3)]);
    let (graph, _) = graph_of(&[("u.mtx", &unsigned)], weighted()).unwrap();
    assert_eq!(edges_of(&graph), [(1, 2, 5.0), (2, 3, 6.0)]);
    let error = graph_of(&[("c.mtx", &complex)], weighted()).unwrap_err();
    assert!(error.to_string().contains("complex"), "{error}");
    let both = "%%MatrixMarket matrix coordinate pattern symmetric\n2 2 2\n1 2\n2 1\n";
    let (_, notes) = graph_of(&[("b.mtx", both)], Reading::default()).unwrap();
    assert!(
        notes.hints[0].contains("above its diagonal"),
        "{:?}",
        notes.hints
    );
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

#[test]
fn padding_and_trailing_bytes_of_a_gzip_file_are_no_part_of_the_graph() {
    let folder = tempfile::tempdir().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(b"1 2\n2 3\n").unwrap();
    let packed = gzip.finish().unwrap();
    let path = folder.path().join("g.txt.gz");
    for (rest, note) in [
        (&[0; 5000][..], "edge list, gzip"),
        (b"garbage", "edge list, gzip, 7 trailing bytes ignored"),
        (b"\0\0x", "edge list, gzip, 1 trailing byte ignored"),
    ] {
        std::fs::write(&path, [&packed[..], rest].concat()).unwrap();
        let (graph, notes) = read_graph(&path).unwrap();
        assert_eq!((graph.vertices(), graph.edges()), (3, 2));
        assert_eq!(notes.to_string(), note);
    }
}

proptest! {
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
            "", "", "", "1\n", "a b c\n", "1 x\n", "1 18446744073709551616\n", "-1 2\n", "1,,2\n", "1 2,\n", "\0\n", "3 4", "1 2\r", "1\r 2\n",
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
