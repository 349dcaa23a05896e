//! How a text is to be read, and what was recognised in it.

use std::fmt;
use std::str::FromStr;

use super::GraphError;
use super::text::Packing;

/// How a text says what its edges are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// A line for each edge.
    #[default]
    EdgeList,
    /// The same, with a head that says more.
    MatrixMarket,
    /// A line for each vertex, with its neighbours.
    Metis,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::EdgeList => "edge list",
            Form::MatrixMarket => "Matrix Market",
            Form::Metis => "METIS graph",
        })
    }
}

impl FromStr for Form {
    type Err = GraphError;

    fn from_str(name: &str) -> Result<Form, GraphError> {
        match name {
            "edges" => Ok(Form::EdgeList),
            "mtx" => Ok(Form::MatrixMarket),
            "metis" => Ok(Form::Metis),
            _ => Err(GraphError::Setting {
                what: "format",
                value: format!("{name:?}"),
                range: "edges, mtx or metis",
            }),
        }
    }
}

/// How a text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Its form, unless that is to be seen from its name and first line.
    pub form: Option<Form>,
    /// Each line is an edge in both directions.
    pub undirected: bool,
    /// Repeats of an edge are dropped.
    pub unique: bool,
    /// Edges from a vertex to itself are dropped.
    pub drop_loops: bool,
    /// Edges have weights: the third column.
    pub weights: bool,
}

/// What was recognised in a file: worth telling a user, who may have expected something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// What the file is packed with.
    pub packing: Packing,
    /// Bytes behind the packed data that were ignored.
    pub trailing_bytes: u64,
    /// Its form.
    pub form: Form,
    /// The header row that was skipped, shortened.
    pub header: Option<String>,
    /// Lines that start with `#` or `%`.
    pub comment_lines: u64,
    /// Lines without content.
    pub blank_lines: u64,
    /// Data lines with more columns than were read.
    pub extra_column_lines: u64,
    /// Vertices declared by a vertex list beside the edge list, or by the file itself.
    pub declared_vertices: Option<u64>,
    /// Each line became two edges.
    pub both_ways: bool,
    /// Edges have weights.
    pub weighted: bool,
    /// Edges from a vertex to itself that were dropped.
    pub dropped_loops: u64,
    /// Repeats of an edge that were dropped.
    pub dropped_repeats: u64,
}

impl fmt::Display for Notes {
    /// A list in words, such as `edge list, gzip, 4 comment lines skipped`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = vec![self.form.to_string()];
        let mut count = |count: u64, one: &str, many: &str| match count {
            0 => {}
            1 => said.push(one.to_owned()),
            n => said.push(many.replace('#', &n.to_string())),
        };
        if self.packing != Packing::Plain {
            count(1, self.packing.name(), "");
        }
        count(
            self.trailing_bytes,
            "1 trailing byte ignored",
            "# trailing bytes ignored",
        );
        if let Some(header) = &self.header {
            count(1, &format!("header row {header} skipped"), "");
        }
        count(
            self.comment_lines,
            "1 comment line skipped",
            "# comment lines skipped",
        );
        count(
            self.extra_column_lines,
            "extra columns of 1 line ignored",
            "extra columns of # lines ignored",
        );
        count(
            self.declared_vertices.unwrap_or_default(),
            "1 vertex declared",
            "# vertices declared",
        );
        count(u64::from(self.both_ways), "each line both ways", "");
        count(u64::from(self.weighted), "weighted", "");
        count(self.dropped_loops, "1 loop dropped", "# loops dropped");
        count(
            self.dropped_repeats,
            "1 repeat dropped",
            "# repeats dropped",
        );
        f.write_str(&said.join(", "))
    }
}
