//! What an edge list says before its first edge: comments that are known, and a header row.

use super::columns::{ColumnChoice, ColumnRequest, Delimiter, Layout, Places, Sides};
use super::error::{Column, excerpt};
use super::header;
use super::konect::Konect;
use super::snap::{self, Rows, id_of, is_comment, trimmed, unended};

/// The lines before the first line of data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preamble {
    /// Lines, whatever they hold.
    pub lines: u64,
    /// Those that start with `#` or `%`.
    pub comment_lines: u64,
    /// Those without content.
    pub blank_lines: u64,
    /// KONECT's first lines.
    pub konect: Option<Konect>,
    /// A comment says that the graph is undirected.
    pub says_undirected: bool,
    /// SNAP's `# Nodes: N Edges: M`.
    pub counts: Option<(u64, u64)>,
    /// The last comment, without the sign before it: perhaps names of columns.
    last_comment: Vec<u8>,
}

/// The longest comment whose words are looked at, in bytes.
const COMMENT_BYTES_MAX: usize = 1000;

impl Preamble {
    /// Takes lines from the start of `text`; gives where the first line of data begins, if it is there.
    pub fn take(&mut self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let trimmed = trimmed(line);
            if trimmed.is_empty() {
                self.blank_lines += 1;
            } else if is_comment(trimmed) {
                self.comment_lines += 1;
                if trimmed.len() <= COMMENT_BYTES_MAX {
                    self.take_comment(trimmed);
                }
            } else {
                return Some(at);
            }
            self.lines += 1;
            at += line.len();
        }
        None
    }

    fn take_comment(&mut self, line: &[u8]) {
        match (self.comment_lines, &mut self.konect) {
            (1, konect) => *konect = Konect::of_first_line(line),
            (2, Some(konect)) => konect.take_second_line(line, self.lines + 1),
            _ => {}
        }
        let text = &line[line.iter().take_while(|&&byte| byte == line[0]).count()..];
        let words = String::from_utf8_lossy(text).to_lowercase();
        self.says_undirected |= words
            .split(|letter: char| !letter.is_alphanumeric())
            .any(|word| word == "undirected");
        self.counts = nodes_and_edges(&words).or(self.counts);
        self.last_comment = text.to_vec();
    }
}

/// The numbers of `nodes: N edges: M`.
fn nodes_and_edges(comment: &str) -> Option<(u64, u64)> {
    let mut words = comment.split_whitespace();
    let mut after = |name: &str| (words.next()? == name).then(|| words.next()?.parse().ok())?;
    Some((after("nodes:")?, after("edges:")?))
}

/// How the lines of an edge list are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The lines.
    pub rows: Rows,
    /// The header row, if the first line of data is one.
    pub header: Option<String>,
    /// What the columns are, in words; nothing for the first two of a table without names.
    pub columns: Option<String>,
    /// Names of columns that are not read.
    pub ignored: Vec<String>,
}

impl Table {
    /// Decides how lines are read, by the first of them, the one behind it, and the comment before.
    ///
    /// # Errors
    ///
    /// What is in doubt, and how to say it.
    pub fn choose(
        first: &[u8],
        second: Option<&[u8]>,
        preamble: &Preamble,
        request: &ColumnRequest,
        weighted: bool,
    ) -> Result<Table, String> {
        let sides = match preamble.konect {
            Some(konect) => konect.sides()?,
            None => None,
        };
        let first = unended(first);
        let mut table = Table::of_lines(first, second.map(unended), preamble, request, weighted)?;
        if sides.is_some() {
            let delimiter = match Delimiter::of_line(first) {
                Delimiter::Byte(b'\t') => Delimiter::Blanks,
                other => other,
            };
            table.set_sides(sides, delimiter, weighted);
        }
        Ok(table)
    }

    fn of_lines(
        first: &[u8],
        second: Option<&[u8]>,
        preamble: &Preamble,
        request: &ColumnRequest,
        weighted: bool,
    ) -> Result<Table, String> {
        let is_edge = snap::edge(trimmed(first), false).is_ok();
        let delimiter = request.delimiter.unwrap_or(Delimiter::of_line(first));
        let fields: Vec<&[u8]> = delimiter.fields(first).collect();
        let is_named = !(request.is_empty() && is_edge) && is_header(&fields, request);
        if !is_named && request.source.is_none() && request.target.is_none() {
            let comment = &preamble.last_comment;
            if let Some(table) =
                Table::below_comment(comment, fields.len(), delimiter, request, weighted)?
            {
                return Ok(table);
            }
        }
        if request.is_empty() && is_edge {
            return Ok(Table::new(
                delimiter,
                Places::first(weighted),
                None,
                request,
            ));
        }
        if is_named {
            return Table::below_header(first, &fields, second, delimiter, request, weighted);
        }
        if request.has_names() {
            return Err(format!(
                "a column is given by its name, and {} is no row of names; give its number",
                excerpt(first)
            ));
        }
        let place = |choice: &Option<ColumnChoice>| match choice {
            Some(ColumnChoice::Place(place)) => Some(*place),
            _ => None,
        };
        let (source, target) = match (place(&request.source), place(&request.target)) {
            (Some(source), Some(target)) if source == target => {
                return Err("a column cannot be both ends of an edge".into());
            }
            (Some(source), Some(target)) => (source, target),
            (None, None) => (0, 1),
            _ => {
                return Err(
                    "without a header row --source-column and --target-column go together".into(),
                );
            }
        };
        let places = Places {
            source,
            target,
            weight: weighted.then(|| place(&request.weight).unwrap_or(2)),
        };
        let mut table = Table::new(delimiter, places, None, request);
        if places != Places::first(weighted) {
            table.columns = Some(numbered(places));
        }
        Ok(table)
    }

    /// Without a header row; but the comment before may be one, if it names as many columns as there are.
    fn below_comment(
        comment: &[u8],
        columns: usize,
        delimiter: Delimiter,
        request: &ColumnRequest,
        weighted: bool,
    ) -> Result<Option<Table>, String> {
        let names = names(Delimiter::of_line(comment).fields(comment));
        // Only names that are beyond doubt: the comment may be anything.
        let pair = header::known_pair(&names).filter(|_| names.len() == columns);
        // With weights the names say which column has them, too.
        if !pair.is_some_and(|pair| weighted || pair != (0, 1)) {
            return Ok(None);
        }
        let places = match header::places(&names, request, weighted) {
            Ok(places) if places != Places::first(weighted) => places,
            Err(problem) if pair != Some((0, 1)) => return Err(problem),
            // The columns are where they are without names.
            _ => return Ok(None),
        };
        let mut table = Table::new(delimiter, places, Some(names.len()), request);
        table.name_columns(&names, places);
        Ok(Some(table))
    }

    fn below_header(
        first: &[u8],
        fields: &[&[u8]],
        second: Option<&[u8]>,
        delimiter: Delimiter,
        request: &ColumnRequest,
        weighted: bool,
    ) -> Result<Table, String> {
        let names = names(fields.iter().copied());
        let mut places = header::places(&names, request, weighted)?;
        let mut width = names.len();
        if let Some(second) = second {
            let row: Vec<&[u8]> = delimiter.fields(second).collect();
            let found = row.iter().rposition(|field| !field.is_empty());
            if found == Some(width) {
                // R writes row names, and no name for their column.
                let has_row_names =
                    row[0].starts_with(b"\"") && fields.iter().all(|name| name.starts_with(b"\""));
                let is_numbered = matches!(
                    (&request.source, &request.target),
                    (Some(ColumnChoice::Place(_)), Some(ColumnChoice::Place(_)))
                );
                if has_row_names && !is_numbered {
                    places = places.behind_one_more();
                    width += 1;
                } else if !is_numbered {
                    return Err(format!(
                        "the header has {width} names, and the line below it {} columns, so that it is in doubt which are named; \
                         give the numbers of columns with --source-column and --target-column",
                        width + 1
                    ));
                }
            }
        }
        let mut table = Table::new(delimiter, places, Some(width), request);
        table.header = Some(excerpt(trimmed(first)));
        match width == names.len() {
            true => table.name_columns(&names, places),
            false => table.columns = Some(numbered(places)),
        }
        Ok(table)
    }

    fn new(
        delimiter: Delimiter,
        places: Places,
        width: Option<usize>,
        request: &ColumnRequest,
    ) -> Table {
        let weighted = places.weight.is_some();
        // These lines are read fast: see [`snap`].
        let is_plain = places == Places::first(weighted)
            && request.delimiter.is_none()
            && matches!(delimiter, Delimiter::Blanks | Delimiter::Byte(b',' | b'\t'));
        let least = [places.source, places.target, places.weight.unwrap_or(0)];
        let least = least.into_iter().max().unwrap_or(0) + 1;
        Table {
            rows: match is_plain {
                true => Rows::Plain,
                false => Rows::Table(Layout {
                    delimiter,
                    places,
                    width: width.unwrap_or(least),
                    sides: None,
                }),
            },
            header: None,
            columns: None,
            ignored: Vec::new(),
        }
    }

    fn name_columns(&mut self, names: &[String], places: Places) {
        let shown = |place: usize| excerpt(names[place].as_bytes());
        let mut columns = format!("{} to {}", shown(places.source), shown(places.target));
        if let Some(weight) = places.weight {
            columns += &format!(", weight {}", shown(weight));
        }
        self.columns = Some(columns);
        let used = [Some(places.source), Some(places.target), places.weight];
        self.ignored = (0..names.len())
            .filter(|&place| !used.contains(&Some(place)) && !names[place].is_empty())
            .map(shown)
            .collect();
    }

    fn set_sides(&mut self, sides: Option<Sides>, delimiter: Delimiter, weighted: bool) {
        let layout = match self.rows {
            Rows::Table(layout) => layout,
            _ => Layout {
                delimiter,
                places: Places::first(weighted),
                width: if weighted { 3 } else { 2 },
                sides: None,
            },
        };
        self.rows = Rows::Table(Layout { sides, ..layout });
    }
}

impl Places {
    /// The first columns, as most files have them.
    pub fn first(weighted: bool) -> Places {
        Places {
            source: 0,
            target: 1,
            weight: weighted.then_some(2),
        }
    }

    fn behind_one_more(self) -> Places {
        Places {
            source: self.source + 1,
            target: self.target + 1,
            weight: self.weight.map(|place| place + 1),
        }
    }
}

/// Columns in words, by numbers from 1.
fn numbered(places: Places) -> String {
    let mut columns = format!("{} to {}", places.source + 1, places.target + 1);
    if let Some(weight) = places.weight {
        columns += &format!(", weight {}", weight + 1);
    }
    columns
}

/// The names in fields, without their quotes.
fn names<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let names = fields.map(|field| String::from_utf8_lossy(snap::unquoted(field)).into_owned());
    let mut names: Vec<String> = names.collect();
    // Delimiters at the end of a line make no columns.
    while names.len() > 2 && names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    names
}

/// Whether a first line of data is a row of names: ids begin with neither letters nor nothing.
fn is_header(fields: &[&[u8]], request: &ColumnRequest) -> bool {
    let field = |place: usize| fields.get(place).map(|field| snap::unquoted(field));
    let is_name = |field: &[u8]| {
        field
            .first()
            .is_some_and(|&byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':' | 0x80..))
    };
    if request.has_names() {
        return fields.iter().any(|field| is_name(snap::unquoted(field)));
    }
    if let (Some(ColumnChoice::Place(source)), Some(ColumnChoice::Place(target))) =
        (&request.source, &request.target)
    {
        // A number that is no id is a wrong edge, not a name.
        let is_word = |field: &[u8]| {
            let is_number = field
                .first()
                .is_none_or(|byte| byte.is_ascii_digit() || b"-+.".contains(byte));
            !is_number && matches!(id_of(field), Err((Column::Word, _)))
        };
        return [source, target]
            .iter()
            .all(|&&place| field(place).is_some_and(is_word));
    }
    let (Some(first), Some(second)) = (field(0), field(1)) else {
        return false;
    };
    // A data frame without names of columns numbers them from 0, behind its index that has none.
    let is_numbered = || {
        let numbers = fields[1..].iter().map(|field| id_of(field).ok());
        fields.len() > 2 && numbers.eq((0..fields.len() as u64 - 1).map(Some))
    };
    match first.is_empty() {
        true => is_name(second) || is_numbered(),
        false => is_name(first) && is_name(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str, request: &ColumnRequest, weighted: bool) -> Result<Table, String> {
        let mut preamble = Preamble::default();
        let at = preamble
            .take(text.as_bytes())
            .expect("there is a line of data");
        let mut lines = text[at..].split_inclusive('\n').map(str::as_bytes);
        let first = lines.next().unwrap();
        Table::choose(first, lines.next(), &preamble, request, weighted)
    }

    /// Where the columns are; nothing for lines that are read fast.
    fn places(text: &str) -> Option<(usize, usize)> {
        match choose(text, &ColumnRequest::default(), false).unwrap().rows {
            Rows::Table(Layout { places, .. }) => Some((places.source, places.target)),
            _ => None,
        }
    }

    #[test]
    fn lines_whose_first_columns_are_the_ends_are_read_fast() {
        for text in [
            "1 2\n",
            "1,2\n",
            " 1 , 2\n",
            "# FromNodeId\tToNodeId\n1\t2\n",
            "source,target\n1,2\n",
            "a b\n1 2\n",
            "\"from\",\"to\"\n\"1\",\"2\"\n",
            "src,dst,w\n1,2,3\n",
            "src,dst\n1.0,2.0\n",
            "a,b\n1,2,,x\n",
        ] {
            assert_eq!(places(text), None, "{text}");
        }
        let weighted = choose("a\tb\tw\n1\t2\t3\n", &ColumnRequest::default(), true).unwrap();
        assert_eq!(weighted.rows, Rows::Plain);
    }

    #[test]
    fn other_tables_have_a_layout() {
        for (text, expected) in [
            ("id,source,target\n0,7,8\n", (1, 2)),
            ("target,source\n1,2\n", (1, 0)),
            (",source,target\n0,1,2\n", (1, 2)),
            ("\tsource\ttarget\n0\t1\t2\n", (1, 2)),
            (",0,1\n0,5,6\n", (1, 2)),
            ("1;2\n", (0, 1)),
            ("source|target\n1|2\n", (0, 1)),
            ("# ToNodeId FromNodeId\n1 2\n", (1, 0)),
            ("# target;source\n1;2\n", (1, 0)),
            // R's row names.
            ("\"from\" \"to\"\n\"1\" 7 8\n", (1, 2)),
            ("\"\",\"from\",\"to\"\n\"1\",7,8\n", (1, 2)),
        ] {
            assert_eq!(places(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_comment_names_the_column_of_weights_too() {
        let none = ColumnRequest::default();
        let table = choose("# source target time weight\n1 2 17 0.5\n", &none, true).unwrap();
        let Rows::Table(Layout { places, .. }) = table.rows else {
            panic!("its columns have names");
        };
        assert_eq!(
            (places.source, places.target, places.weight),
            (0, 1, Some(3))
        );
        let plain = choose("# FromNodeId ToNodeId\n1 2\n", &none, true).unwrap();
        assert_eq!(plain.rows, Rows::Plain);
    }

    #[test]
    fn numbers_that_are_no_ids_are_no_header() {
        let request = ColumnRequest {
            source: Some(ColumnChoice::Place(0)),
            target: Some(ColumnChoice::Place(1)),
            ..ColumnRequest::default()
        };
        for text in ["-1,-2\n3,4\n", "1.5,2.5\n3,4\n"] {
            let table = choose(text, &request, false).unwrap();
            assert_eq!(table.header, None, "{text}");
        }
        let table = choose("x,y\n3,4\n", &request, false).unwrap();
        assert!(table.header.is_some());
    }

    #[test]
    fn comments_that_are_no_header_change_nothing() {
        for text in [
            "# edges go to a node from another\n1 2\n",
            "# to from\n1 2 3\n",
            "# x y\n1 2\n",
        ] {
            assert_eq!(places(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_refused_with_the_options() {
        let none = ColumnRequest::default();
        for text in [
            "x,y,z\n1,2,3\n",
            "from to\n1 7 8\n",
            "source,target\n0,7,8\n",
        ] {
            let problem = choose(text, &none, false).unwrap_err();
            assert!(problem.contains("--source-column"), "{text}: {problem}");
        }
        let source = ColumnRequest {
            source: Some(ColumnChoice::Place(1)),
            ..none.clone()
        };
        let problem = choose("1 2 3\n", &source, false).unwrap_err();
        assert!(problem.contains("go together"), "{problem}");
        let named = ColumnRequest {
            source: Some(ColumnChoice::Name("a".into())),
            ..none
        };
        let problem = choose("1 2 3\n", &named, false).unwrap_err();
        assert!(problem.contains("no row of names"), "{problem}");
    }

    #[test]
    fn a_request_decides_with_and_without_a_header() {
        let request = ColumnRequest {
            delimiter: Some(Delimiter::Byte(b'-')),
            source: Some(ColumnChoice::Place(2)),
            target: Some(ColumnChoice::Place(0)),
            weight: None,
        };
        let table = choose("x-y-z\n1-2-3\n", &request, false).unwrap();
        assert_eq!(table.columns.as_deref(), Some("\"z\" to \"x\""));
        assert_eq!(table.ignored, ["\"y\""]);
        let table = choose("1-2-3\n", &request, false).unwrap();
        assert_eq!(
            (table.columns.as_deref(), table.header),
            (Some("3 to 1"), None)
        );
    }

    #[test]
    fn known_comments_are_taken() {
        let mut preamble = Preamble::default();
        let snap =
            b"# Undirected graph: x.txt\n# Nodes: 3    Edges: 2\r\n# FromNodeId\tToNodeId\n\n1 2\n";
        assert_eq!(preamble.take(snap), Some(snap.len() - 4));
        assert!(preamble.says_undirected);
        assert_eq!(preamble.counts, Some((3, 2)));
        assert_eq!(
            (preamble.lines, preamble.comment_lines, preamble.blank_lines),
            (4, 3, 1)
        );
        let mut preamble = Preamble::default();
        assert_eq!(preamble.take(b"\n% sym unweighted\n"), None);
        assert_eq!(preamble.take(b"% 3 4 4\n1 2\n"), Some(8));
        let konect = preamble.konect.unwrap();
        assert_eq!(
            konect.counts.map(|counts| (counts.line, counts.edges)),
            Some((3, 3))
        );
    }
}
