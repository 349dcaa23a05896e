//! Edge lists in text, in the forms that SNAP, KONECT, CSV exports and LDBC Graphalytics use.
//!
//! A line is one edge, `source target`, between blanks or one comma; more columns are ignored. Lines that are
//! blank or start with `#` or `%` are skipped, and so is a header row of column names. Ids are any `u64`.
//! [`read_graph`] goes all the way to a [`Graph`], and adds the vertices that a `.v` file declares.

use std::ffi::OsStr;
use std::fmt;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::error::Column;
use super::lines::{self, Lines, is_blank};
use super::{Graph, GraphError};

/// The largest vertex id.
pub const ID_MAX: u64 = u64::MAX;

/// The edges of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeList {
    /// Source and target of each data line; repeated lines are repeated here.
    pub edges: Vec<(u64, u64)>,
    /// What was recognised on the way.
    pub notes: Notes,
}

/// What was recognised in a file: worth telling a user, who may have expected something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The file is gzip.
    pub gzip: bool,
    /// The header row that was skipped, shortened.
    pub header: Option<String>,
    /// Lines that start with `#` or `%`.
    pub comment_lines: u64,
    /// Lines without content.
    pub blank_lines: u64,
    /// Data lines with more columns than two (than one, in a vertex list), which were ignored.
    pub extra_column_lines: u64,
    /// Vertices declared by a vertex list beside the edge list, if there is one.
    pub declared_vertices: Option<u64>,
}

impl fmt::Display for Notes {
    /// A list in words, such as `gzip, 4 comment lines skipped`; empty when there is nothing to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        if self.gzip {
            said.push("gzip".to_owned());
        }
        if let Some(header) = &self.header {
            said.push(format!("header row {header} skipped"));
        }
        match self.comment_lines {
            0 => {}
            1 => said.push("1 comment line skipped".to_owned()),
            n => said.push(format!("{n} comment lines skipped")),
        }
        match self.extra_column_lines {
            0 => {}
            1 => said.push("extra columns of 1 line ignored".to_owned()),
            n => said.push(format!("extra columns of {n} lines ignored")),
        }
        if let Some(vertices) = self.declared_vertices {
            said.push(format!("{vertices} vertices declared"));
        }
        f.write_str(&said.join(", "))
    }
}

/// Reads a graph: the edge list at `path` and, when `path` is `NAME.e` (or `NAME.e.gz`) and `NAME.v` lies beside
/// it, the vertices declared there, which may have no edge at all. `progress` gets the bytes of the edge list's
/// file read so far.
///
/// # Errors
///
/// Those of [`read_edge_list`], [`read_vertex_list`] and [`Graph::from_edges_and_vertices`].
pub fn read_graph(
    path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<(Graph, Notes), GraphError> {
    let Some(beside) = vertex_list_beside(path) else {
        let list = read_edge_list(path, progress)?;
        return Ok((Graph::from_edges(list.edges)?, list.notes));
    };
    let mut list = match read_edge_list(path, progress) {
        // With declared vertices a graph may well have no edges.
        Err(GraphError::NoEdges { .. }) => EdgeList::default(),
        other => other?,
    };
    let vertices = read_vertex_list(&beside)?;
    list.notes.declared_vertices = Some(vertices.len() as u64);
    let graph = Graph::from_edges_and_vertices(list.edges, &vertices)?;
    Ok((graph, list.notes))
}

/// Reads an edge list. `progress` gets the bytes of the file read so far, now and then.
///
/// # Errors
///
/// Those of [`lines::open`] and [`parse_edge_list`].
pub fn read_edge_list(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<EdgeList, GraphError> {
    let text = lines::open(path)?;
    let bytes = text.bytes;
    let mut told = 0;
    let mut tick = || {
        if bytes.get() != told {
            told = bytes.get();
            progress(told);
        }
    };
    let mut list = parse(
        Lines::new(text.reader, &path.display().to_string(), text.gzip),
        &mut tick,
    )?;
    list.notes.gzip = text.gzip;
    Ok(list)
}

/// Parses an edge list in plain text. Messages call the reader `name`.
///
/// # Errors
///
/// [`GraphError::Line`] for the first line that is no edge, [`GraphError::NoEdges`] when there is none, and those
/// of [`Lines::next_line`].
pub fn parse_edge_list(reader: impl BufRead, name: &str) -> Result<EdgeList, GraphError> {
    parse(Lines::new(reader, name, false), &mut || {})
}

/// Reads a vertex list: one id a line, in the same forms as an edge list. Repeats are kept.
///
/// # Errors
///
/// As for [`read_edge_list`], but an empty list is fine.
pub fn read_vertex_list(path: &Path) -> Result<Vec<u64>, GraphError> {
    let text = lines::open(path)?;
    let mut lines = Lines::new(text.reader, &path.display().to_string(), text.gzip);
    let mut vertices = Vec::new();
    while let Some(line) = lines.next_line()? {
        if line.is_empty() || is_comment(line) {
            continue;
        }
        match id_column(line) {
            Ok((id, _)) => vertices.push(id),
            Err((why, column)) => {
                let (column, line) = (column.to_vec(), line.to_vec());
                return Err(GraphError::column(
                    lines.name(),
                    lines.number(),
                    &column,
                    &line,
                    why,
                ));
            }
        }
    }
    Ok(vertices)
}

fn parse(mut lines: Lines<impl BufRead>, tick: &mut dyn FnMut()) -> Result<EdgeList, GraphError> {
    let mut edges = Vec::new();
    let mut notes = Notes::default();
    let mut first = true;
    let mut read = 0u64;
    while let Some(line) = lines.next_line()? {
        // Looking at the progress on every line would cost as much as parsing it.
        read += 1;
        if read.is_multiple_of(1024) {
            tick();
        }
        if line.is_empty() {
            notes.blank_lines += 1;
            continue;
        }
        if is_comment(line) {
            if line.starts_with(b"%%MatrixMarket") {
                // Its first data line is the matrix's size, which must not become an edge.
                return Err(GraphError::Form {
                    name: lines.name().to_owned(),
                    form: "MatrixMarket",
                    advice: "remove its banner and its size line, so that only edges remain",
                });
            }
            notes.comment_lines += 1;
            continue;
        }
        let is_first = std::mem::take(&mut first);
        match edge(line) {
            Ok((source, target, more)) => {
                notes.extra_column_lines += u64::from(more);
                edges.push((source, target));
            }
            Err(_) if is_first && is_header(line) => {
                notes.header = Some(super::error::excerpt(line))
            }
            Err((why, column)) => {
                let (column, line) = (column.to_vec(), line.to_vec());
                return Err(GraphError::column(
                    lines.name(),
                    lines.number(),
                    &column,
                    &line,
                    why,
                ));
            }
        }
    }
    tick();
    if edges.is_empty() {
        let found = if lines.number() == 0 {
            "the file is empty"
        } else if notes.header.is_some() {
            "there is only a header row"
        } else if notes.comment_lines > 0 {
            "there are only comments"
        } else {
            "there are only blank lines"
        };
        let name = lines.name().to_owned();
        return Err(GraphError::NoEdges { name, found });
    }
    Ok(EdgeList { edges, notes })
}

fn is_comment(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'#' | b'%'))
}

/// What is wrong, and with which column.
type Misread<'a> = (Column, &'a [u8]);

/// Source, target, and whether there are more columns; or what is wrong with which column.
fn edge(line: &[u8]) -> Result<(u64, u64, bool), Misread<'_>> {
    let (source, rest) = id_column(line)?;
    let rest = next_column(rest)?;
    if rest.is_empty() {
        return Err((Column::Missing, rest));
    }
    let (target, rest) = id_column(rest)?;
    Ok((source, target, !rest.is_empty()))
}

/// The id at the start of the text, and what follows it: nothing, or something that starts with a separator.
fn id_column(text: &[u8]) -> Result<(u64, &[u8]), Misread<'_>> {
    let mut id = 0u64;
    let mut length = 0;
    let mut too_large = false;
    while let Some(digit) = text.get(length).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        match id
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)))
        {
            Some(next) => id = next,
            None => too_large = true,
        }
        length += 1;
    }
    let rest = &text[length..];
    let ended = rest
        .first()
        .is_none_or(|&byte| is_blank(byte) || byte == b',');
    if length > 0 && ended && !too_large {
        return Ok((id, rest));
    }
    let column = first_column(text);
    Err(match column {
        [] => (Column::Empty, column),
        [b'-', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            (Column::Negative, column)
        }
        _ if ended => (Column::TooLarge, column),
        _ => (Column::Word, column),
    })
}

/// Skips blanks and at most one comma.
fn next_column(text: &[u8]) -> Result<&[u8], Misread<'_>> {
    let text = skip_blanks(text);
    let text = match text {
        [b',', rest @ ..] => skip_blanks(rest),
        _ => text,
    };
    match text {
        [b',', ..] => Err((Column::Empty, &text[..0])),
        _ => Ok(text),
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_blank(byte)).count();
    &text[blanks..]
}

fn first_column(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| is_blank(byte) || byte == b',');
    &text[..end.unwrap_or(text.len())]
}

/// Whether the first two columns look like names: each starts with a letter, a quote or an underscore.
fn is_header(line: &[u8]) -> bool {
    let starts_a_name = |text: &[u8]| {
        text.first().is_some_and(|&byte| {
            byte.is_ascii_alphabetic() || matches!(byte, b'"' | b'\'' | b'_' | 0x80..)
        })
    };
    let after = &line[first_column(line).len()..];
    starts_a_name(line) && next_column(after).is_ok_and(starts_a_name)
}

/// The vertex list that belongs to an edge list by its name, if it exists.
fn vertex_list_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    let stem = name
        .strip_suffix(".gz")
        .unwrap_or(name)
        .strip_suffix(".e")?;
    ["v", "v.gz"]
        .iter()
        .map(|ending| path.with_file_name(format!("{stem}.{ending}")))
        .find(|beside| beside.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(text: &str) -> Vec<(u64, u64)> {
        parse_edge_list(text.as_bytes(), "g.txt").unwrap().edges
    }

    fn refusal(text: impl AsRef<[u8]>) -> String {
        parse_edge_list(text.as_ref(), "g.txt")
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
    }

    #[test]
    fn notes_say_what_was_recognised() {
        let list = parse_edge_list(&b"# a\n% b\nsrc,dst,w\n\n1,2,0.5\n"[..], "g").unwrap();
        assert_eq!(
            list.notes.to_string(),
            "header row \"src,dst,w\" skipped, 2 comment lines skipped, extra columns of 1 line ignored"
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
        assert!(
            refusal("%%MatrixMarket matrix\n3 3 1\n1 2\n").contains("MatrixMarket is not read")
        );
    }
}
