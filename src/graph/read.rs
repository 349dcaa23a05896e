//! A graph's text to a [`Graph`], on all threads: which form it has, its lines, and what was noticed on the way.
//!
//! Every thread of the pool takes blocks of lines ([`Text`]) and parses them into chunks of edges of its own. What is found
//! beside edges is put together in the order of the blocks, so that messages and counts do not depend on threads.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::edges::{Edges, Spreader, Weight};
use super::error::excerpt;
use super::matrix_market::{self, Head};
use super::metis_text::MetisText;
use super::numbering::Declared;
use super::reading::{Form, Notes, Reading};
use super::snap::{self, Found, Problem, Taking};
use super::text::{Block, BlockError, Text};
use super::{Graph, GraphError};

/// The edges of a text, and what else it says.
#[derive(Debug, Default)]
pub struct Read<W> {
    /// The edges that each thread has parsed.
    pub edges: Vec<Edges<W>>,
    /// Vertices that it declares.
    pub declared: Declared,
    /// What was recognised.
    pub notes: Notes,
}

/// Told, now and then, how many bytes of the file were read.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Reads a graph: the file at `path` (`-` is standard input) and, when `path` is `NAME.e` (perhaps with `.gz` or `.zst`) and
/// `NAME.v` lies beside it, the vertices declared there, which may have no edge at all.
///
/// # Errors
///
/// Those of [`read_edges`] and [`Graph::build`].
pub fn read_graph(
    path: &Path,
    reading: Reading,
    progress: Progress<'_>,
) -> Result<(Graph, Notes), GraphError> {
    match reading.weights {
        true => read_with::<f64>(path, reading, progress),
        false => read_with::<()>(path, reading, progress),
    }
}

fn read_with<W: Weight>(
    path: &Path,
    reading: Reading,
    progress: Progress<'_>,
) -> Result<(Graph, Notes), GraphError> {
    let beside = vertex_list_beside(path);
    let mut read = match read_edges::<W>(path, reading, progress) {
        // With declared vertices a graph may well have no edges.
        Err(GraphError::NoEdges { .. }) if beside.is_some() => Read::default(),
        other => other?,
    };
    if let Some(beside) = beside {
        let vertices = read_vertex_list(&beside)?;
        read.notes.declared_vertices = Some(vertices.len() as u64);
        read.declared = Declared::Ids(vertices);
    }
    let edges = read.edges.iter().map(Edges::len).sum::<usize>() as u64;
    let graph = Graph::build(read.edges, &read.declared, reading.unique)?;
    read.notes.dropped_repeats = edges - graph.edges();
    Ok((graph, read.notes))
}

/// Reads the edges of the file at `path`.
///
/// # Errors
///
/// Those of [`Text::open`]; [`GraphError::Line`] for the first line that is no edge, [`GraphError::NoEdges`] when there is
/// none, [`GraphError::Truncated`] and [`GraphError::Damaged`] for packed data, [`GraphError::Read`].
pub fn read_edges<W: Weight>(
    path: &Path,
    reading: Reading,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    let form = reading.form.or_else(|| form_of_name(path));
    read_text(&Text::open(path)?, Reading { form, ..reading }, progress)
}

/// Reads the edges of a text. Without a form it is an edge list or, if its first line says so, Matrix Market.
///
/// # Errors
///
/// As for [`read_edges`].
pub fn read_text<W: Weight>(
    text: &Text,
    reading: Reading,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    let mut first = Block::default();
    let is_some = text
        .next(&mut first)
        .map_err(|error| text.failure(error, 0))?;
    let form = reading
        .form
        .unwrap_or(match matrix_market::is_one(first.text()) {
            true => Form::MatrixMarket,
            false => Form::EdgeList,
        });
    let mut read = match form {
        Form::Metis => read_metis(text, first, is_some, reading, progress),
        _ => read_lines(text, first, is_some, reading, form, progress),
    }?;
    read.notes.packing = text.packing();
    read.notes.trailing_bytes = text.ignored_bytes();
    read.notes.form = form;
    read.notes.weighted = W::SOME;
    Ok(read)
}

/// The ids of a vertex list: one a line, in the same forms as an edge list. Repeats are kept.
///
/// # Errors
///
/// As for [`read_edges`], but an empty list is fine.
pub fn read_vertex_list(path: &Path) -> Result<Vec<u64>, GraphError> {
    let text = Text::open(path)?;
    let (mut block, mut vertices, mut lines) = (Block::default(), Vec::new(), 0);
    while text
        .next(&mut block)
        .map_err(|error| text.failure(error, lines))?
    {
        let found = snap::parse_ids(&block, &mut vertices);
        if let Some((line, problem)) = found.problem {
            return Err(problem.error(text.name(), lines + line));
        }
        lines += found.lines;
    }
    Ok(vertices)
}

/// What one thread makes of its blocks.
struct Share<W> {
    edges: Spreader<W>,
    found: Vec<(usize, Result<Found, BlockError>)>,
}

impl<W: Weight> Share<W> {
    /// For ids up to about `largest`.
    fn new(largest: u64) -> Share<W> {
        Share {
            edges: Spreader::new(largest),
            found: Vec::new(),
        }
    }

    /// Parses a block, from byte `from` on. False if something is wrong with it.
    fn parse(&mut self, block: &Block, from: usize, taking: Taking) -> bool {
        self.edges.begin_block(block.number);
        let found = snap::parse(block, from, taking, &mut self.edges);
        let is_good = found.problem.is_none();
        self.found.push((block.number, Ok(found)));
        is_good
    }

    /// Parses what is left of a text, one block after the other.
    fn parse_all(&mut self, text: &Text, taking: Taking, progress: Progress<'_>) {
        let mut block = Block::default();
        loop {
            match text.next(&mut block) {
                Ok(false) => return,
                Ok(true) => {
                    if !self.parse(&block, 0, taking) {
                        // Nobody needs to read on; blocks before this one are being read.
                        return text.stop();
                    }
                    progress(text.file_bytes());
                }
                Err(error) => return self.found.push((block.number, Err(error))),
            }
        }
    }
}

/// A line of a text that is refused.
fn refused(text: &Text, (line, problem): (u64, String)) -> GraphError {
    GraphError::Line {
        name: text.name().to_owned(),
        line,
        problem,
    }
}

fn read_lines<W: Weight>(
    text: &Text,
    first: Block,
    is_some: bool,
    reading: Reading,
    form: Form,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    let head = match form {
        Form::MatrixMarket => Some(read_head::<W>(text, &first)?),
        _ => None,
    };
    let taking = Taking {
        both_ways: reading.undirected || head.is_some_and(|head| head.both_ways),
        drop_loops: reading.drop_loops,
    };
    let largest = match head {
        Some(head) => head.vertices,
        None => snap::largest_id(&first),
    };
    let mut shares = vec![Share::new(largest)];
    let from = head.map_or(0, |head| head.length);
    if is_some && shares[0].parse(&first, from, taking) {
        progress(text.file_bytes());
        shares.extend(rayon::broadcast(|_| {
            let mut share = Share::new(largest);
            share.parse_all(text, taking, progress);
            share
        }));
    }
    let mut edges = Vec::with_capacity(shares.len());
    let mut found = Vec::new();
    for share in shares {
        edges.push(share.edges.finish());
        found.extend(share.found);
    }
    let mut notes = Notes {
        both_ways: taking.both_ways,
        declared_vertices: head.map(|head| head.vertices),
        ..Notes::default()
    };
    let lines_before = head.map_or(0, |head| head.lines);
    let data_lines = put_together(text, found, lines_before, taking, &mut notes)?;
    match head {
        Some(head) => head
            .check(data_lines, edges.iter().flat_map(Edges::iter))
            .map_err(|problem| refused(text, (head.lines, problem)))?,
        None if data_lines == 0 => {
            let found = if notes.header.is_some() {
                "there is only a header row"
            } else if notes.comment_lines > 0 {
                "there are only comments"
            } else if notes.blank_lines > 0 {
                "there are only blank lines"
            } else {
                "the file is empty"
            };
            let name = text.name().to_owned();
            return Err(GraphError::NoEdges { name, found });
        }
        None => {}
    }
    Ok(Read {
        edges,
        declared: head.map_or(Declared::Nothing, |head| Declared::UpTo(head.vertices)),
        notes,
    })
}

/// The head of a Matrix Market file, whose edges can be read with weights like these.
fn read_head<W: Weight>(text: &Text, first: &Block) -> Result<Head, GraphError> {
    let head = matrix_market::head(first.text()).map_err(|problem| refused(text, problem))?;
    let unfit = match head {
        Head { valued: false, .. } if W::SOME => "its entries have no values",
        Head { skew: true, .. } if W::SOME => "its edges have other weights than their reverse",
        _ => return Ok(head),
    };
    let problem = format!("{unfit}, so it cannot be read with weights");
    Err(refused(text, (1, problem)))
}

/// What was found in all blocks: counts into `notes`, the number of data lines, or the first problem.
fn put_together(
    text: &Text,
    mut found: Vec<(usize, Result<Found, BlockError>)>,
    mut lines: u64,
    taking: Taking,
    notes: &mut Notes,
) -> Result<u64, GraphError> {
    found.sort_by_key(|(number, _)| *number);
    let mut data_lines = 0;
    for (_, block) in found {
        let block = block.map_err(|error| text.failure(error, lines))?;
        if let Some((line, header)) = block.header {
            if data_lines > 0 || notes.header.is_some() {
                let problem = Problem::of_line(&header).expect("a header is no edge");
                return Err(problem.error(text.name(), lines + line));
            }
            notes.header = Some(excerpt(&header));
        }
        if let Some((line, problem)) = block.problem {
            return Err(problem.error(text.name(), lines + line));
        }
        lines += block.lines;
        data_lines += block.data_lines;
        notes.comment_lines += block.comment_lines;
        notes.blank_lines += block.blank_lines;
        notes.extra_column_lines += block.extra_column_lines;
        if taking.drop_loops {
            notes.dropped_loops += block.loops;
        }
    }
    Ok(data_lines)
}

/// A line's vertex is its number, so lines are read one after the other.
fn read_metis<W: Weight>(
    text: &Text,
    mut block: Block,
    mut is_some: bool,
    reading: Reading,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    let refused = |problem| refused(text, problem);
    let mut reader = MetisText::new(reading.drop_loops);
    while is_some {
        reader.take(block.text()).map_err(refused)?;
        progress(text.file_bytes());
        let more = text.next(&mut block);
        is_some = more.map_err(|error| text.failure(error, reader.lines()))?;
    }
    let dropped_loops = reader.dropped_loops();
    let (edges, vertices) = reader.finish().map_err(refused)?;
    let notes = Notes {
        declared_vertices: Some(vertices),
        dropped_loops,
        ..Notes::default()
    };
    Ok(Read {
        edges: vec![edges],
        declared: Declared::UpTo(vertices),
        notes,
    })
}

/// The form that a file's name promises.
fn form_of_name(path: &Path) -> Option<Form> {
    let name = unpacked_name(path)?;
    if name.ends_with(".graph") || name.ends_with(".metis") {
        return Some(Form::Metis);
    }
    name.ends_with(".mtx").then_some(Form::MatrixMarket)
}

/// A file's name without the ending that says how it is packed.
fn unpacked_name(path: &Path) -> Option<&str> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    let endings = [".gz", ".zst", ".zstd"];
    let unpacked = endings.iter().find_map(|ending| name.strip_suffix(ending));
    Some(unpacked.unwrap_or(name))
}

/// The vertex list that belongs to an edge list by its name, if it exists.
fn vertex_list_beside(path: &Path) -> Option<PathBuf> {
    let stem = unpacked_name(path)?.strip_suffix(".e")?;
    ["v", "v.gz", "v.zst"]
        .iter()
        .map(|ending| path.with_file_name(format!("{stem}.{ending}")))
        .find(|beside| beside.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Cursor;

    fn read<W: Weight>(text: impl AsRef<[u8]>, reading: Reading) -> Result<Read<W>, GraphError> {
        let text = text.as_ref().to_vec();
        let text = Text::new("g.txt", Box::new(Cursor::new(text))).unwrap();
        read_text(&text, reading, &|_| {})
    }

    fn edges(text: &str) -> Vec<(u64, u64)> {
        let read = read::<()>(text, Reading::default()).unwrap();
        let edges = read.edges.iter().flat_map(Edges::iter);
        edges.map(|(s, t, _)| (s, t)).collect()
    }

    fn list<W: Weight>(read: &Read<W>) -> Vec<(u64, u64, W)> {
        read.edges.iter().flat_map(Edges::iter).collect()
    }

    fn count<W: Weight>(read: &Read<W>) -> usize {
        list(read).len()
    }

    fn refusal(text: impl AsRef<[u8]>) -> String {
        read::<()>(text, Reading::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_separator_and_line_end_gives_the_same_edges() {
        for text in [
            "1\t2\n3\t4\n",
            "1 2\r\n3 4",
            "1,2\n3,4\n",
            "\u{feff}1 2\n3 4\n",
            "# c\n 1 , 2 \n\n% d\n3\t ,4,\n",
            "a,b\n1,2,,x\n3,4,5\n",
            "\"from id\" \"to id\"\n1 2\n003 4\n",
        ] {
            assert_eq!(edges(text), [(1, 2), (3, 4)], "{text:?}");
        }
        assert_eq!(edges("0 18446744073709551615"), [(0, u64::MAX)]);
        // Lines that begin like the one before, and some that only seem to.
        let long = "000000000012345";
        let text = format!(
            "12\t3\n12\t4\n12,5\n123\t6\n12\t 7\n12\t8\n{long} 1\n{long} 2\n0{long} 3\n{long},4\n"
        );
        let found = [
            (12, 3),
            (12, 4),
            (12, 5),
            (12, 7),
            (12, 8),
            (123, 6),
            (12_345, 1),
            (12_345, 2),
            (12_345, 3),
            (12_345, 4),
        ];
        let mut edges = edges(&text);
        edges.sort_unstable();
        assert_eq!(edges, found);
    }

    #[test]
    fn notes_say_what_was_recognised() {
        let list = read::<()>("# a\n% b\nsrc,dst,w\n\n1,2,0.5\n", Reading::default()).unwrap();
        assert_eq!(
            list.notes.to_string(),
            "edge list, header row \"src,dst,w\" skipped, 2 comment lines skipped, extra columns of 1 line ignored"
        );
        assert_eq!(list.notes.blank_lines, 1);
    }

    #[test]
    fn a_line_that_is_no_edge_is_refused_with_its_place() {
        for (text, message) in [
            (
                "1 2\n4\n",
                "g.txt:2: expected two vertex ids, found \"4\"; lines starting with # or % are skipped",
            ),
            (
                "1 2\n4 x\n",
                "g.txt:2: \"x\" is not a vertex id, in \"4 x\"; ids are whole numbers from 0 to 18446744073709551615",
            ),
            (
                "1 -2\n",
                "g.txt:1: the id \"-2\" is negative, in \"1 -2\"; ids go from 0 up to 18446744073709551615",
            ),
            (
                "1 18446744073709551616\n",
                "g.txt:1: the id \"18446744073709551616\" is too large, in \"1 18446744073709551616\"; \
                 ids go up to 18446744073709551615",
            ),
            (
                "1,,2\n",
                "g.txt:1: a column is empty in \"1,,2\"; put one comma, or blanks, between the ids",
            ),
        ] {
            assert_eq!(refusal(text), message);
        }
        for text in [
            ",1,2", "1.0 2", "1 2x", "1;2", "+1 2", "1e3 4", "a 1", "1 b", "a", "1 2\na b",
        ] {
            assert!(refusal(text).starts_with("g.txt:"), "{text:?} was accepted");
        }
        assert!(refusal(b"\0\x01\x02 3").contains("\\0\\u{1}"));
    }

    #[test]
    fn a_file_without_edges_is_refused_with_what_it_has() {
        assert!(refusal("").contains("the file is empty"));
        assert!(refusal("# a\n\n").contains("only comments"));
        assert!(refusal("\n \n").contains("only blank lines"));
        assert!(refusal("a b\n").contains("only a header row"));
    }

    #[test]
    fn a_header_is_the_first_line_of_data_and_no_other() {
        let mut text = b"# comments fill a block\n".repeat(100_000);
        text.extend_from_slice(b"source target\n1 2\n");
        assert_eq!(count(&read::<()>(&text, Reading::default()).unwrap()), 1);
        let mut text = b"1 2\n".repeat(300_000);
        text.extend_from_slice(b"source target\n1 2\n");
        let refusal = refusal(&text);
        assert!(
            refusal.starts_with("g.txt:300001: \"source\" is not"),
            "{refusal}"
        );
    }

    #[test]
    fn weights_are_the_third_column() {
        let reading = Reading {
            weights: true,
            ..Reading::default()
        };
        let all = read::<f64>("a b w\n1 2 0.5\n2,3,-1e3,x\n", reading).unwrap();
        let mut edges = list(&all);
        edges.sort_by_key(|edge| edge.0);
        assert_eq!(edges, [(1, 2, 0.5), (2, 3, -1000.0)]);
        for (text, word) in [
            ("1 2\n", "no weight"),
            ("1 2 x\n", "\"x\""),
            ("1 2 nan\n", "nan"),
        ] {
            let refusal = read::<f64>(text, reading).unwrap_err().to_string();
            assert!(refusal.contains(word), "{refusal}");
        }
    }

    #[test]
    fn lines_become_edges_both_ways_and_loops_are_dropped_if_asked() {
        let reading = Reading {
            undirected: true,
            ..Reading::default()
        };
        let mut found = list(&read::<()>("1 2\n3 3\n", reading).unwrap());
        found.sort_unstable();
        assert_eq!(found, [(1, 2, ()), (2, 1, ()), (3, 3, ())]);
        let reading = Reading {
            drop_loops: true,
            ..Reading::default()
        };
        let read = read::<()>("1 2\n3 3\n", reading).unwrap();
        assert_eq!((count(&read), read.notes.dropped_loops), (1, 1));
    }

    #[test]
    fn a_matrix_is_a_graph_of_its_rows() {
        let banner = "%%MatrixMarket matrix coordinate integer symmetric\n% c\n3 3 2\n";
        let all = read::<f64>(
            format!("{banner}2 1 7\n3 3 8\n"),
            Reading {
                weights: true,
                ..Reading::default()
            },
        )
        .unwrap();
        let mut edges = list(&all);
        edges.sort_by_key(|edge| (edge.0, edge.1));
        assert_eq!(edges, [(1, 2, 7.0), (2, 1, 7.0), (3, 3, 8.0)]);
        assert_eq!(all.declared, Declared::UpTo(3));
        assert!(
            refusal(format!("{banner}2 1 7\n")).contains("g.txt:3: it says 2 entries, and has 1")
        );
        assert!(
            refusal(format!("{banner}2 1 7\n4 1 1\n")).contains("an entry at 4 1")
                || refusal(format!("{banner}2 1 7\n4 1 1\n")).contains("an entry at 1 4")
        );
        assert!(refusal(format!("{banner}2 1 7\nx 1 1\n")).starts_with("g.txt:5:"));
        let skew = banner.replace("symmetric", "skew-symmetric");
        let weighted = Reading {
            weights: true,
            ..Reading::default()
        };
        let error = read::<f64>(format!("{skew}2 1 7\n3 1 8\n"), weighted).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("other weights than their reverse")
        );
        let endless = "%%MatrixMarket matrix coordinate pattern general\n18446744073709551615 18446744073709551615 0\n";
        let read = read::<()>(endless, Reading::default()).unwrap();
        let error = Graph::build(read.edges, &read.declared, false).unwrap_err();
        assert!(
            matches!(error, GraphError::TooManyVertices { .. }),
            "{error}"
        );
    }
}
