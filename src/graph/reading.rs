//! How a text is to be read, and what was recognised in it.

use std::fmt;
use std::str::FromStr;

use super::GraphError;
use super::columns::ColumnRequest;
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
    /// A line for each edge, which begins with a letter.
    Dimacs,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::EdgeList => "edge list",
            Form::MatrixMarket => "Matrix Market",
            Form::Metis => "METIS graph",
            Form::Dimacs => "DIMACS graph",
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
            "dimacs" => Ok(Form::Dimacs),
            _ => Err(GraphError::Setting {
                what: "format",
                value: format!("{name:?}"),
                range: "edges, mtx, metis or dimacs",
            }),
        }
    }
}

/// How a text is to be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Its form, unless that is to be seen from its name and first line.
    pub form: Option<Form>,
    /// Each line is an edge in both directions, whatever the file says.
    pub undirected: bool,
    /// Each line is an edge in one direction, whatever the file says.
    pub directed: bool,
    /// Repeats of an edge are dropped.
    pub unique: bool,
    /// Edges from a vertex to itself are dropped.
    pub drop_loops: bool,
    /// Edges have weights.
    pub weights: bool,
    /// Which columns an edge list has.
    pub columns: ColumnRequest,
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
    /// The header row, shortened.
    pub header: Option<String>,
    /// The columns that edges were read from, where they are not the first ones of a table without names.
    pub columns: Option<String>,
    /// What was recognised and is of no use, such as further columns; each in words.
    pub ignored: Vec<String>,
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
    /// What says so, or says that it did not, if the file or one beside it does.
    pub direction_source: Option<String>,
    /// Ids on the right of a bipartite graph were raised by this.
    pub raised: Option<u64>,
    /// Edges have weights.
    pub weighted: bool,
    /// Edges from a vertex to itself that were dropped.
    pub dropped_loops: u64,
    /// Repeats of an edge that were dropped.
    pub dropped_repeats: u64,
    /// What a user may have expected otherwise, each in a sentence.
    pub hints: Vec<String>,
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
            count(1, &format!("header row {header}"), "");
        }
        if let Some(columns) = &self.columns {
            count(1, &format!("edges from column {columns}"), "");
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
        for ignored in &self.ignored {
            count(1, &format!("{ignored} ignored"), "");
        }
        count(
            self.declared_vertices.unwrap_or_default(),
            "1 vertex declared",
            "# vertices declared",
        );
        let direction = match self.both_ways {
            true => "each line both ways",
            false => "each line one way",
        };
        match &self.direction_source {
            Some(source) => count(1, &format!("{direction} ({source})"), ""),
            None => count(u64::from(self.both_ways), direction, ""),
        }
        if let Some(raised) = self.raised {
            count(1, &format!("ids on the right raised by {raised}"), "");
        }
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
