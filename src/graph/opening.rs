//! The beginning of a text with a line for each edge: what its form, its head, the files beside it and the user say about the
//! lines that follow. It is read once, so that the lines are read without questions.

use super::GraphError;
use super::claims::Claims;
use super::dimacs;
use super::edges::Weight;
use super::konect::{Kind, Konect};
use super::ldbc::Properties;
use super::matrix_market;
use super::preamble::{Preamble, Table};
use super::read::refused;
use super::reading::{Form, Notes, Reading};
use super::snap::{self, Rows, Taking, trimmed};
use super::text::{Block, Text};

/// What is known before the first edge.
pub struct Opening {
    /// The block in which lines of edges begin.
    pub block: Block,
    /// There is such a block.
    pub is_some: bool,
    /// Where in it they begin.
    pub from: usize,
    /// Lines of the text before that.
    pub lines: u64,
    /// How lines are read.
    pub taking: Taking,
    /// About how large ids are.
    pub largest_id: u64,
    /// What is compared with the whole graph.
    pub claims: Claims,
    /// What is compared with the number of lines.
    pub count: LineCount,
    /// What was recognised so far.
    pub notes: Notes,
}

/// What says how many lines of edges there are.
#[derive(Debug, Clone, Copy)]
pub enum LineCount {
    /// Nothing.
    Unknown,
    /// The head of a matrix.
    Matrix(matrix_market::Head),
    /// The head of a DIMACS file.
    Dimacs(dimacs::Head),
    /// KONECT's first lines.
    Konect(Konect),
}

impl LineCount {
    /// Compares it with what was found.
    ///
    /// # Errors
    ///
    /// The line that says otherwise, and the problem.
    pub fn check(&self, found: u64) -> Result<(), (u64, String)> {
        match self {
            LineCount::Unknown => Ok(()),
            LineCount::Matrix(head) => head.check(found),
            LineCount::Dimacs(head) => head.check(found),
            LineCount::Konect(konect) => konect.check_edges(found),
        }
    }
}

impl Opening {
    /// Reads the beginning of a text whose first block is `block`.
    ///
    /// # Errors
    ///
    /// [`GraphError::Line`] for a head that is none, or leaves a doubt; those of reading further blocks.
    pub fn read<W: Weight>(
        text: &Text,
        block: Block,
        is_some: bool,
        form: Form,
        reading: &Reading,
        properties: Option<&Properties>,
    ) -> Result<Opening, GraphError> {
        let mut opening = Opening {
            block,
            is_some,
            from: 0,
            lines: 0,
            taking: Taking {
                drop_loops: reading.drop_loops,
                ..Taking::default()
            },
            largest_id: 0,
            claims: Claims::default(),
            count: LineCount::Unknown,
            notes: Notes::default(),
        };
        let direction = match form {
            Form::MatrixMarket => opening.read_matrix::<W>(text)?,
            Form::Dimacs => opening.read_dimacs::<W>(text)?,
            _ => {
                opening.read_edge_list(text, reading, W::SOME)?;
                opening.direction_of_list(properties)
            }
        };
        opening.set_direction(direction, reading);
        if let Some(properties) = properties
            && !W::SOME
            && opening.notes.columns.is_none()
        {
            let columns = properties.columns.iter().flatten();
            let ignored = columns.map(|name| format!("column {name:?}"));
            opening.notes.ignored.extend(ignored);
        }
        Ok(opening)
    }

    fn read_matrix<W: Weight>(
        &mut self,
        text: &Text,
    ) -> Result<Option<(bool, String)>, GraphError> {
        let head =
            matrix_market::head(self.block.text()).map_err(|problem| refused(text, problem))?;
        let unfit = match head {
            matrix_market::Head { valued: false, .. } => "its entries have no values",
            matrix_market::Head { complex: true, .. } => "its values are complex",
            matrix_market::Head { skew: true, .. } => {
                "its edges have other weights than their reverse"
            }
            _ => "",
        };
        if W::SOME && !unfit.is_empty() {
            let problem = format!("{unfit}, so it cannot be read with weights");
            return Err(refused(text, (1, problem)));
        }
        if head.valued && !W::SOME {
            self.notes.ignored.push("values".into());
        }
        self.from = head.length;
        self.lines = head.lines;
        self.notes.comment_lines = head.comment_lines;
        self.set_vertices(head.vertices);
        self.count = LineCount::Matrix(head);
        Ok(head.both_ways.then(|| (true, "as its banner says".into())))
    }

    fn read_dimacs<W: Weight>(
        &mut self,
        text: &Text,
    ) -> Result<Option<(bool, String)>, GraphError> {
        let head = dimacs::head(self.block.text()).map_err(|problem| refused(text, problem))?;
        match (head.kind, W::SOME) {
            (dimacs::Kind::Edge, true) => {
                let problem = "its edges have no weights, so it cannot be read with weights";
                return Err(refused(text, (head.lines, problem.into())));
            }
            (dimacs::Kind::Arc, false) => self.notes.ignored.push("weights".into()),
            _ => {}
        }
        self.from = head.length;
        self.lines = head.lines;
        self.notes.comment_lines = head.comment_lines;
        self.set_vertices(head.vertices);
        self.taking.rows = Rows::Dimacs(head.kind);
        self.count = LineCount::Dimacs(head);
        let is_edge = head.kind == dimacs::Kind::Edge;
        Ok(is_edge.then(|| (true, "e lines have no direction".into())))
    }

    fn read_edge_list(
        &mut self,
        text: &Text,
        reading: &Reading,
        weighted: bool,
    ) -> Result<(), GraphError> {
        let mut preamble = Preamble::default();
        let mut data = preamble.take(self.block.text());
        // Comments may fill several blocks.
        while self.is_some && data.is_none() {
            self.is_some = text
                .next(&mut self.block)
                .map_err(|error| text.failure(error, preamble.lines))?;
            if self.is_some {
                data = preamble.take(self.block.text());
            }
        }
        self.lines = preamble.lines;
        self.claims = Claims {
            konect: preamble.konect,
            says_undirected: preamble.says_undirected,
            counts: preamble.counts,
        };
        if let Some(konect) = preamble.konect {
            self.count = LineCount::Konect(konect);
        }
        self.notes.comment_lines = preamble.comment_lines;
        self.notes.blank_lines = preamble.blank_lines;
        let Some(at) = data else {
            self.is_some = false;
            return Ok(());
        };
        self.from = at;
        let lines = &self.block.text()[at..];
        let length = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
        let (first, rest) = lines.split_at(length);
        let second = rest.split_inclusive(|&byte| byte == b'\n').find(|line| {
            let line = trimmed(line);
            !line.is_empty() && !snap::is_comment(line)
        });
        let table = Table::choose(first, second, &preamble, &reading.columns, weighted)
            .map_err(|problem| refused(text, (preamble.lines + 1, problem)))?;
        if table.header.is_some() {
            self.from += length;
            self.lines += 1;
        }
        self.taking.rows = table.rows;
        if let Rows::Table(layout) = table.rows {
            self.notes.raised = layout.sides.map(|sides| sides.left);
        }
        self.notes.header = table.header;
        self.notes.columns = table.columns;
        if !table.ignored.is_empty() {
            let columns = if table.ignored.len() == 1 {
                "column"
            } else {
                "columns"
            };
            let ignored = format!("{columns} {}", table.ignored.join(", "));
            self.notes.ignored.push(ignored);
        }
        self.largest_id = snap::largest_id(&self.block);
        Ok(())
    }

    /// What the file or the one beside it says about the direction of edges.
    fn direction_of_list(&self, properties: Option<&Properties>) -> Option<(bool, String)> {
        if let Some((properties, directed)) =
            properties.and_then(|properties| Some((properties, properties.directed?)))
        {
            let source = format!("{}: directed = {directed}", properties.name);
            return Some((!directed, source));
        }
        let kind = self.claims.konect?.kind;
        let source = format!("its first line: {}", kind.name());
        match kind {
            Kind::Sym => Some((true, source)),
            Kind::Asym => Some((false, source)),
            Kind::Bip => None,
        }
    }

    /// What the user says goes before what the file says.
    fn set_direction(&mut self, said: Option<(bool, String)>, reading: &Reading) {
        let asked = match (reading.undirected, reading.directed) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let (both_ways, source) = match (asked, said) {
            (Some(asked), Some((said, source))) if asked != said => {
                let source = format!("as asked, not as {source}");
                (asked, Some(source))
            }
            (None, Some((said, source))) => (said, Some(source)),
            (asked, _) => (asked.unwrap_or(false), None),
        };
        self.taking.both_ways = both_ways;
        self.notes.both_ways = both_ways;
        self.notes.direction_source = source;
    }

    /// Vertices are 1 to this.
    fn set_vertices(&mut self, vertices: u64) {
        self.taking.ids_up_to = Some(vertices);
        self.largest_id = vertices;
        self.notes.declared_vertices = Some(vertices);
    }
}
