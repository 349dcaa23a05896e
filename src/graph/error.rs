//! What can go wrong with a graph: the error of this layer.
//!
//! A message says what was wrong, where, and what to do. An I/O error's text is part of the message, so that
//! printing the chain does not say it twice.

use std::io;

use super::snap::ID_MAX;

/// Why a graph could not be read, split, encoded, decoded or computed on.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The operating system refused to open or read a file.
    #[error("{name}: cannot read: {cause}")]
    Read {
        /// The file, as the user named it.
        name: String,
        /// What the operating system said.
        cause: io::Error,
    },

    /// A folder was named where an edge list is needed.
    #[error("{name}: is a directory; name the edge list file in it")]
    Directory {
        /// The folder, as the user named it.
        name: String,
    },

    /// The file is in a form that is not read, such as zip.
    #[error("{name}: {form} is not read; {advice}")]
    Form {
        /// The file.
        name: String,
        /// The form that was recognised.
        form: &'static str,
        /// What to do instead.
        advice: &'static str,
    },

    /// Packed data stop in the middle.
    #[error(
        "{name}: the {packing} data end early, after line {line}; the file is truncated, copy or download it again"
    )]
    Truncated {
        /// The file.
        name: String,
        /// What it is packed with.
        packing: &'static str,
        /// The last whole line that could be read.
        line: u64,
    },

    /// Packed data contradict their own structure or checksum.
    #[error(
        "{name}: the {packing} data are damaged after line {line} ({cause}); copy or download the file again"
    )]
    Damaged {
        /// The file.
        name: String,
        /// What it is packed with.
        packing: &'static str,
        /// The last whole line that could be read.
        line: u64,
        /// What the decompressor said.
        cause: io::Error,
    },

    /// A line is not what it should be.
    #[error("{name}:{line}: {problem}")]
    Line {
        /// The file.
        name: String,
        /// The line's number, from 1.
        line: u64,
        /// What was wrong with it, and what is expected.
        problem: String,
    },

    /// A file says something about a graph that is not so.
    #[error("{name}: {problem}")]
    Claim {
        /// The file that says something.
        name: String,
        /// What it says, what was found, and what to do.
        problem: String,
    },

    /// The file has no edge at all.
    #[error("{name}: no edges: {found}; an edge list has a line \"source target\" for each edge")]
    NoEdges {
        /// The file.
        name: String,
        /// What the file has instead of edges.
        found: &'static str,
    },

    /// A graph without a single vertex was asked for.
    #[error("the graph has no vertices; there is nothing to compute")]
    NoVertices,

    /// There are more distinct vertices than 32-bit dense indexes.
    #[error(
        "the graph has {vertices} vertices, and at most {max} are supported; split it or drop vertices"
    )]
    TooManyVertices {
        /// Distinct vertices found.
        vertices: u64,
        /// The most that are supported.
        max: u64,
    },

    /// The symmetric adjacency has more entries than METIS's 32-bit indexes.
    #[error(
        "the graph has {entries} neighbour entries, and METIS takes up to {max}; use the partitioner fennel, range or hash"
    )]
    TooManyNeighbours {
        /// Entries of the symmetric adjacency (or vertices), at least.
        entries: u64,
        /// The most that METIS takes.
        max: u64,
    },

    /// The number of parts cannot be had.
    #[error("{problem}")]
    Parts {
        /// What was asked for, the limit, and what to do.
        problem: String,
    },

    /// No such partitioner.
    #[error("no partitioner is named {name:?}; there are auto, metis, fennel, range and hash")]
    Partitioner {
        /// What was asked for.
        name: String,
    },

    /// METIS gave up.
    #[error(
        "METIS cannot split the graph into {parts} parts: {cause}; use fewer parts, or the partitioner fennel, range or hash"
    )]
    Metis {
        /// Parts asked for.
        parts: u32,
        /// What METIS said.
        cause: String,
    },

    /// The bytes of a part contradict the part format.
    #[error("{name}: not a usable graph part: {problem}; fetch it again, or run preprocess again")]
    Part {
        /// The object.
        name: String,
        /// What was found.
        problem: String,
    },

    /// The bytes of a manifest contradict the manifest format.
    #[error("{name}: {problem}")]
    Manifest {
        /// The object.
        name: String,
        /// What was found, and what to do.
        problem: String,
    },

    /// Parts that do not belong together were given to one member.
    #[error("the parts do not fit together: {problem}; run preprocess again")]
    Shard {
        /// What was found.
        problem: String,
    },

    /// Weights of edges with which no PageRank can be computed.
    #[error("weights of edges cannot be used: {problem}; --ignore-weights computes without them")]
    Weights {
        /// What is wrong with them.
        problem: &'static str,
    },

    /// A restart names no vertex at which a walk could restart.
    #[error("{name}: no vertex has a weight above 0 and a finite sum (the sum is {sum})")]
    NoRestart {
        /// The file.
        name: String,
        /// The sum of the weights.
        sum: f64,
    },

    /// A peer's values do not fit the places they are for.
    #[error(
        "values for ghosts {start}..{end} do not fit: {problem}; the sender works on other parts"
    )]
    Values {
        /// First ghost position.
        start: usize,
        /// One past the last ghost position.
        end: usize,
        /// What was found.
        problem: String,
    },

    /// A setting is out of its range.
    #[error("{what} is {value}, and must be {range}")]
    Setting {
        /// The setting's name.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
}

impl GraphError {
    /// A problem with a column of a line. `column` and `text` are shown shortened and escaped.
    pub(crate) fn column(
        name: &str,
        line: u64,
        column: &[u8],
        text: &[u8],
        why: Column,
    ) -> GraphError {
        let column = excerpt(column);
        let text = excerpt(text);
        let problem = match why {
            Column::Missing => {
                format!(
                    "expected two vertex ids, found {text}; lines starting with # or % are skipped"
                )
            }
            Column::Empty => {
                format!("a column is empty in {text}; put one comma, or blanks, between the ids")
            }
            Column::Word => format!(
                "{column} is not a vertex id, in {text}; ids are whole numbers from 0 to {ID_MAX}; --source-column, \
                 --target-column and --delimiter say where they are"
            ),
            Column::Negative => {
                format!("the id {column} is negative, in {text}; ids go from 0 up to {ID_MAX}")
            }
            Column::NoWeight => {
                format!(
                    "{text} has no weight; with --weights each edge needs one, in the third column or the --weight-column"
                )
            }
            Column::Weight => {
                format!("the weight {column} is no finite number, in {text}")
            }
            Column::TooLarge => {
                format!("the id {column} is too large, in {text}; ids go up to {ID_MAX}")
            }
            Column::Inexact => format!(
                "the id {column} is a floating-point number above 2^53, in {text}: its last digits are not those that it had; \
                 write ids as whole numbers"
            ),
            Column::Short { number } => format!("there is no column {number} in {text}"),
            Column::Void { number } => format!("column {number} is empty in {text}"),
            Column::OpenQuote => format!(
                "a quote is not closed in {text}; fields that go on in the next line are not read"
            ),
            Column::Outside { id, last } => format!(
                "{text} has the id {id}, and ids are 1 to {last}, as the head of the file says"
            ),
            Column::Letter { letter } => format!(
                "expected \"{} SOURCE TARGET\", found {text}",
                char::from(letter)
            ),
        };
        GraphError::Line {
            name: name.to_owned(),
            line,
            problem,
        }
    }
}

/// What is wrong with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Missing,
    Empty,
    Word,
    Negative,
    TooLarge,
    NoWeight,
    Weight,
    /// A floating-point number whose neighbours are not all there.
    Inexact,
    /// A line ends before a column, from 1.
    Short {
        number: usize,
    },
    /// A column, from 1, has nothing in it.
    Void {
        number: usize,
    },
    OpenQuote,
    /// An id that is not 1 to the last.
    Outside {
        id: u64,
        last: u64,
    },
    /// A line that does not start with this letter.
    Letter {
        letter: u8,
    },
}

/// Characters of an offending line that a message shows.
const EXCERPT_CHARS: usize = 60;

/// The bytes in quotes for a message: shortened, and escaped so that no control character reaches a terminal.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    // A character is at most four bytes, so this prefix is enough, and a line of a megabyte is not decoded in full.
    let prefix = &bytes[..bytes.len().min(EXCERPT_CHARS * 4 + 4)];
    let text = String::from_utf8_lossy(prefix);
    let mut shown: String = text
        .chars()
        .take(EXCERPT_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().count() > EXCERPT_CHARS {
        shown.push_str("...");
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_has_no_control_characters() {
        assert_eq!(excerpt(b"4 x"), "\"4 x\"");
        assert_eq!(excerpt(b"\x1b[31m\xff"), "\"\\u{1b}[31m\u{fffd}\"");
        let long = excerpt(&[b'a'; 5000]);
        assert_eq!(long.len(), 60 + 3 + 2);
        assert!(long.ends_with("...\""));
    }
}
