//! A graph's text to a [`Graph`], on all threads: which form it has, its lines, and what was noticed on the way.
//!
//! Every thread of the pool takes blocks of lines ([`Text`]) and parses them into chunks of edges of its own. What is found
//! beside edges is put together in the order of the blocks, so that messages and counts do not depend on threads.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::claims::{self, Claims};
use super::dimacs;
use super::edges::{Edges, Spreader, Weight};
use super::ldbc::Properties;
use super::matrix_market;
use super::metis_text::MetisText;
use super::numbering::Declared;
use super::opening::{LineCount, Opening};
use super::reading::{Form, Notes, Reading};
use super::snap::{self, Found, Taking};
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
    /// Lines that are an edge each.
    pub data_lines: u64,
    /// What it says about the whole graph.
    pub claims: Claims,
}

/// Told, now and then, how many bytes of the file were read.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Reads a graph: the file at `path` (`-` is standard input) and, when `path` is `NAME.e` (perhaps with `.gz` or `.zst`), what
/// lies beside it: the vertices declared in `NAME.v`, which may have no edge at all, and `NAME.properties`.
///
/// # Errors
///
/// Those of [`read_edges`], [`Properties::read`] and [`Graph::build`]; [`GraphError::Claim`] and [`GraphError::Line`] when a
/// graph is another than its files say.
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
    mut reading: Reading,
    progress: Progress<'_>,
) -> Result<(Graph, Notes), GraphError> {
    let list = beside(path, &["v", "v.gz", "v.zst", "v.zstd"]);
    let properties = match beside(path, &["properties"]) {
        Some(path) => Some(Properties::read(&path)?),
        None => None,
    };
    reading.form = reading.form.or_else(|| form_of_name(path));
    if let Some(properties) = &properties {
        reading.columns.weight = properties.weight_column(&reading)?;
    }
    let text = Text::open(path)?;
    let mut read = match read_text_with::<W>(&text, &reading, properties.as_ref(), progress) {
        // With declared vertices a graph may well have no edges.
        Err(GraphError::NoEdges { .. }) if list.is_some() => Read::default(),
        other => other?,
    };
    let mut listed = None;
    if let Some(list) = list {
        let mut vertices = read_vertex_list(&list)?;
        read.notes.declared_vertices = Some(vertices.len() as u64);
        vertices.sort_unstable();
        vertices.dedup();
        listed = Some(vertices.len() as u64);
        if let Declared::Ids(loops) = &read.declared {
            vertices.extend(loops);
        }
        read.declared = Declared::Ids(vertices);
    }
    let edges = read.edges.iter().map(Edges::len).sum::<usize>() as u64;
    let graph = Graph::build(read.edges, &read.declared, reading.unique)?;
    let mut notes = read.notes;
    notes.dropped_repeats = edges - graph.edges();
    if notes.form == Form::Metis {
        claims::check_both_ends(text.name(), &graph)?;
    }
    if let Some(properties) = &properties {
        properties.check("edges", properties.edges, read.data_lines, text.name())?;
        if let Some(listed) = listed {
            properties.check("vertices", properties.vertices, listed, "the vertex list")?;
        }
        properties.check(
            "vertices",
            properties.vertices,
            graph.vertices(),
            "the graph",
        )?;
    }
    if let Some(listed) = listed.filter(|&listed| listed < graph.vertices()) {
        let others = graph.vertices() - listed;
        notes.hints.push(format!(
            "{others} vertices of edges are not in the vertex list beside the edge list; they are in the graph"
        ));
    }
    let is_decided = reading.directed || notes.both_ways || notes.direction_source.is_some();
    let hints = read
        .claims
        .check(text.name(), &graph, read.data_lines, is_decided)?;
    notes.hints.extend(hints);
    Ok((graph, notes))
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

/// Reads the edges of a text. Without a form it is an edge list or, if its first lines say so, Matrix Market or DIMACS.
///
/// # Errors
///
/// As for [`read_edges`].
pub fn read_text<W: Weight>(
    text: &Text,
    reading: Reading,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    read_text_with(text, &reading, None, progress)
}

fn read_text_with<W: Weight>(
    text: &Text,
    reading: &Reading,
    properties: Option<&Properties>,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    let mut first = Block::default();
    let is_some = text
        .next(&mut first)
        .map_err(|error| text.failure(error, 0))?;
    let form = reading.form.unwrap_or_else(|| match first.text() {
        text if matrix_market::is_one(text) => Form::MatrixMarket,
        text if reading.columns.is_empty() && dimacs::is_one(text) => Form::Dimacs,
        _ => Form::EdgeList,
    });
    if form != Form::EdgeList && !reading.columns.is_empty() {
        return Err(GraphError::Claim {
            name: text.name().to_owned(),
            problem: format!(
                "it is read as a {form}, whose columns are known; --delimiter and the options of columns are for edge lists \
                 (--format edges)"
            ),
        });
    }
    let mut read = match form {
        Form::Metis => read_metis(text, first, is_some, reading, progress),
        _ => {
            let opening = Opening::read::<W>(text, first, is_some, form, reading, properties)?;
            read_lines(text, opening, progress)
        }
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
pub(super) fn refused(text: &Text, (line, problem): (u64, String)) -> GraphError {
    GraphError::Line {
        name: text.name().to_owned(),
        line,
        problem,
    }
}

/// Reads all lines behind the opening, on all threads.
fn read_lines<W: Weight>(
    text: &Text,
    opening: Opening,
    progress: Progress<'_>,
) -> Result<Read<W>, GraphError> {
    let Opening {
        block,
        from,
        lines,
        taking,
        largest_id,
        claims,
        mut notes,
        count,
        is_some,
    } = opening;
    let mut shares = vec![Share::new(largest_id)];
    if is_some && shares[0].parse(&block, from, taking) {
        progress(text.file_bytes());
        shares.extend(rayon::broadcast(|_| {
            let mut share = Share::new(largest_id);
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
    let sum = put_together(text, found, lines, taking, &mut notes)?;
    count
        .check(sum.data_lines)
        .map_err(|problem| refused(text, problem))?;
    if sum.data_lines == 0 && taking.ids_up_to.is_none() {
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
    if !notes.ignored.is_empty() {
        // They are named, which says more than how many lines have them.
        notes.extra_column_lines = 0;
    }
    if matches!(count, LineCount::Matrix(_))
        && taking.both_ways
        && sum.rising > 0
        && sum.falling > 0
    {
        notes.hints.push(format!(
            "the matrix is symmetric, and has {} entries above its diagonal and {} below; each is an edge both ways, \
             and --unique drops repeats",
            sum.rising, sum.falling
        ));
    }
    let declared = match taking.ids_up_to {
        Some(last) => Declared::UpTo(last),
        None if sum.loop_ids.is_empty() => Declared::Nothing,
        None => Declared::Ids(sum.loop_ids),
    };
    Ok(Read {
        edges,
        declared,
        notes,
        data_lines: sum.data_lines,
        claims,
    })
}

/// What was found in all blocks.
#[derive(Default)]
struct Sum {
    data_lines: u64,
    rising: u64,
    falling: u64,
    loop_ids: Vec<u64>,
}

/// What was found in all blocks: counts into `notes`, or the first problem.
fn put_together(
    text: &Text,
    mut found: Vec<(usize, Result<Found, BlockError>)>,
    mut lines: u64,
    taking: Taking,
    notes: &mut Notes,
) -> Result<Sum, GraphError> {
    found.sort_by_key(|(number, _)| *number);
    let mut sum = Sum::default();
    for (_, block) in found {
        let block = block.map_err(|error| text.failure(error, lines))?;
        if let Some((line, problem)) = block.problem {
            return Err(problem.error(text.name(), lines + line));
        }
        lines += block.lines;
        sum.data_lines += block.data_lines;
        sum.rising += block.rising;
        sum.falling += block.falling;
        sum.loop_ids.extend(block.loop_ids);
        notes.comment_lines += block.comment_lines;
        notes.blank_lines += block.blank_lines;
        notes.extra_column_lines += block.extra_column_lines;
        if taking.drop_loops {
            notes.dropped_loops += block.loops;
        }
    }
    sum.loop_ids.sort_unstable();
    sum.loop_ids.dedup();
    Ok(sum)
}

/// A line's vertex is its number, so lines are read one after the other.
fn read_metis<W: Weight>(
    text: &Text,
    mut block: Block,
    mut is_some: bool,
    reading: &Reading,
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
    let graph = reader.finish().map_err(refused)?;
    let mut hints = Vec::new();
    if reading.undirected || reading.directed {
        hints.push(
            "METIS files have each edge both ways, so --undirected and --directed change nothing"
                .into(),
        );
    }
    let notes = Notes {
        hints,
        declared_vertices: Some(graph.vertices),
        dropped_loops: graph.dropped_loops,
        ignored: graph.ignored,
        ..Notes::default()
    };
    Ok(Read {
        edges: vec![graph.edges],
        declared: Declared::UpTo(graph.vertices),
        notes,
        ..Read::default()
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

/// A file that belongs to an edge list by its name, if it exists.
fn beside(path: &Path, endings: &[&str]) -> Option<PathBuf> {
    let stem = unpacked_name(path)?.strip_suffix(".e")?;
    endings
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
            "edge list, header row \"src,dst,w\", edges from column \"src\" to \"dst\", 2 comment lines skipped, column \"w\" ignored"
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
                "g.txt:2: \"x\" is not a vertex id, in \"4 x\"; ids are whole numbers from 0 to 18446744073709551615; \
                 --source-column, --target-column and --delimiter say where they are",
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
            ",1,2", "1.5 2", "1 2x", "1:2", "+1 2", "1e3 4", "a 1", "1 b", "a", "1 2\na b",
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
        let all = read::<f64>("a b w\n1 2 0.5\n2,3,-1e3,x\n", reading.clone()).unwrap();
        let mut edges = list(&all);
        edges.sort_by_key(|edge| edge.0);
        assert_eq!(edges, [(1, 2, 0.5), (2, 3, -1000.0)]);
        for (text, word) in [
            ("1 2\n", "no weight"),
            ("1 2 x\n", "\"x\""),
            ("1 2 nan\n", "nan"),
        ] {
            let refusal = read::<f64>(text, reading.clone()).unwrap_err().to_string();
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
        let read = read::<()>("1 2\n3 3\n3 3\n1 1\n", reading).unwrap();
        assert_eq!((count(&read), read.notes.dropped_loops), (1, 3));
        assert_eq!(read.declared, Declared::Ids(vec![1, 3]));
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
        let outside = refusal(format!("{banner}2 1 7\n4 1 1\n"));
        assert_eq!(
            outside,
            "g.txt:5: \"4 1 1\" has the id 4, and ids are 1 to 3, as the head of the file says"
        );
        let zero = refusal(format!("{banner}2 1 7\n1 0 1\n"));
        assert!(
            zero.starts_with("g.txt:5:") && zero.contains("ids are 1 to 3"),
            "{zero}"
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
