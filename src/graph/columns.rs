//! Which columns of a table hold an edge's ends and its weight, and a line of it as an edge.
//!
//! [`snap`](super::snap) reads lines whose first columns are the ends, whatever separates them. A [`Layout`] is for all other
//! tables: one delimiter, columns anywhere, fields in double quotes (RFC 4180, without fields of several lines).

use std::fmt;
use std::str::FromStr;

use super::GraphError;
use super::error::Column;
use super::snap::{Edge, Misread, id_of, is_blank, weight_of};

/// What separates columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimiter {
    /// Blanks and tabs, any number of them.
    Blanks,
    /// Exactly one of this byte.
    Byte(u8),
}

impl FromStr for Delimiter {
    type Err = GraphError;

    fn from_str(text: &str) -> Result<Delimiter, GraphError> {
        match (text, text.as_bytes()) {
            ("tab" | "\\t", _) => Ok(Delimiter::Byte(b'\t')),
            ("comma", _) => Ok(Delimiter::Byte(b',')),
            ("space" | "blank" | "blanks" | " ", _) => Ok(Delimiter::Blanks),
            (_, &[byte]) if is_delimiter(byte) => Ok(Delimiter::Byte(byte)),
            _ => Err(GraphError::Setting {
                what: "the delimiter",
                value: format!("{text:?}"),
                range: "tab, comma, space, or one character such as ; or |",
            }),
        }
    }
}

/// Whether a byte can separate columns: it is no part of a number, a name or a quoted field.
fn is_delimiter(byte: u8) -> bool {
    byte == b'\t'
        || (byte.is_ascii_punctuation()
            && !matches!(byte, b'"' | b'\'' | b'.' | b'+' | b'-' | b'_'))
}

impl Delimiter {
    /// The delimiter of a line: the first of comma, semicolon, bar and tab outside of quotes, or blanks.
    pub fn of_line(line: &[u8]) -> Delimiter {
        let mut quoted = false;
        for &byte in line {
            match byte {
                b'"' => quoted = !quoted,
                b',' | b';' | b'|' | b'\t' if !quoted => return Delimiter::Byte(byte),
                _ => {}
            }
        }
        Delimiter::Blanks
    }

    /// The fields of a line, without blanks around them and with their quotes.
    pub fn fields(self, line: &[u8]) -> Fields<'_> {
        Fields {
            delimiter: self,
            rest: Some(line),
            is_open: false,
        }
    }

    fn is_blank(self, byte: u8) -> bool {
        is_blank(byte) && self != Delimiter::Byte(byte)
    }
}

/// The fields of a line, one after the other.
pub struct Fields<'a> {
    delimiter: Delimiter,
    rest: Option<&'a [u8]>,
    /// A quote was not closed.
    is_open: bool,
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let delimiter = self.delimiter;
        let blanks = |text: &[u8]| {
            let blanks = text.iter().take_while(|&&byte| delimiter.is_blank(byte));
            blanks.count()
        };
        let text = self.rest.take()?;
        let text = &text[blanks(text)..];
        if text.is_empty() && delimiter == Delimiter::Blanks {
            return None;
        }
        let quoted = match text {
            [b'"', ..] => closing_quote(text).unwrap_or_else(|| {
                self.is_open = true;
                text.len()
            }),
            _ => 0,
        };
        let end = text[quoted..].iter().position(|&byte| match delimiter {
            Delimiter::Blanks => is_blank(byte),
            Delimiter::Byte(delimiter) => byte == delimiter,
        });
        let mut field = text;
        if let Some(end) = end {
            field = &text[..quoted + end];
            self.rest = Some(&text[quoted + end + 1..]);
        }
        while let [rest @ .., last] = field
            && delimiter.is_blank(*last)
        {
            field = rest;
        }
        Some(field)
    }
}

/// Where the quoted field at the start of `text` has ended; a quote within it is doubled.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr(b'"', &text[at..])? + 1;
        match text.get(at) {
            Some(b'"') => at += 1,
            _ => return Some(at),
        }
    }
}

/// A column as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnChoice {
    /// Its place, from 0.
    Place(usize),
    /// Its name in the header row.
    Name(String),
}

impl FromStr for ColumnChoice {
    type Err = GraphError;

    /// A number counts from 1; everything else is a name.
    fn from_str(text: &str) -> Result<ColumnChoice, GraphError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(ColumnChoice::Name(text.to_owned()));
        }
        let place = text
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_sub(1));
        let place = place.filter(|&place| place < COLUMNS_MAX);
        place
            .map(ColumnChoice::Place)
            .ok_or_else(|| GraphError::Setting {
                what: "the number of a column",
                value: text.to_owned(),
                range: "1 to 10000, or a name",
            })
    }
}

/// The most columns of a table, so that a line of nothing but delimiters is no table.
pub const COLUMNS_MAX: usize = 10_000;

/// What a user says about the columns; the rest is taken from the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnRequest {
    /// What separates them.
    pub delimiter: Option<Delimiter>,
    /// Where an edge begins.
    pub source: Option<ColumnChoice>,
    /// Where an edge ends.
    pub target: Option<ColumnChoice>,
    /// Its weight.
    pub weight: Option<ColumnChoice>,
}

impl ColumnRequest {
    /// True if everything is left to the file.
    pub fn is_empty(&self) -> bool {
        *self == ColumnRequest::default()
    }

    /// True if a column is given by name, so that there has to be a header row.
    pub fn has_names(&self) -> bool {
        let all = [&self.source, &self.target, &self.weight];
        all.iter()
            .any(|choice| matches!(choice, Some(ColumnChoice::Name(_))))
    }
}

/// Where the columns of an edge are, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Where an edge begins.
    pub source: usize,
    /// Where an edge ends.
    pub target: usize,
    /// Its weight, if weights are read.
    pub weight: Option<usize>,
}

/// Two id spaces, as bipartite graphs have them: each counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// Vertices on the left, where edges begin; those on the right get ids above this.
    pub left: u64,
    /// Vertices on the right.
    pub right: u64,
}

/// How a line of a table becomes an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What separates columns.
    pub delimiter: Delimiter,
    /// Where the edge is.
    pub places: Places,
    /// Columns that are known; a line with more of them has some that are ignored.
    pub width: usize,
    /// The ids of ends are of two spaces.
    pub sides: Option<Sides>,
}

impl Layout {
    /// The edge of a line without its end, with its weight if it has to have one.
    ///
    /// # Errors
    ///
    /// What is wrong, and with which column.
    pub(crate) fn edge<'a>(&self, line: &'a [u8], weighted: bool) -> Result<Edge, Misread<'a>> {
        let mut fields = self.delimiter.fields(line);
        let (mut source, mut target, mut weight) = (None, None, None);
        let (mut count, mut width) = (0, 0);
        for field in fields.by_ref() {
            let place = Some(count);
            count += 1;
            if !field.is_empty() {
                // Delimiters at the end of a line make no columns.
                width = count;
            }
            if place == Some(self.places.source) {
                source = Some(field);
            }
            if place == Some(self.places.target) {
                target = Some(field);
            }
            if place == self.places.weight {
                weight = Some(field);
            }
        }
        if fields.is_open {
            return Err((Column::OpenQuote, line));
        }
        let id = |field: Option<&'a [u8]>, place: usize| match field {
            None => Err((Column::Short { number: place + 1 }, line)),
            Some([]) => Err((Column::Void { number: place + 1 }, line)),
            Some(field) => id_of(field),
        };
        let mut edge = Edge {
            source: id(source, self.places.source)?,
            target: id(target, self.places.target)?,
            weight: 0.0,
            more: width > self.width,
        };
        if weighted {
            let column = weight.unwrap_or_default();
            let decimal_comma = self.delimiter != Delimiter::Byte(b',');
            edge.weight = weight_of(column, decimal_comma)?;
        }
        if let Some(Sides { left, right }) = self.sides {
            for (id, last) in [(edge.source, left), (edge.target, right)] {
                if !(1..=last).contains(&id) {
                    return Err((Column::Outside { id, last }, line));
                }
            }
            edge.target = left
                .checked_add(edge.target)
                .ok_or((Column::TooLarge, line))?;
        }
        Ok(edge)
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Delimiter::Blanks => f.write_str("blanks"),
            Delimiter::Byte(b'\t') => f.write_str("tab"),
            Delimiter::Byte(b',') => f.write_str("comma"),
            Delimiter::Byte(byte) => write!(f, "\"{}\"", char::from(*byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(delimiter: Delimiter, line: &str) -> Vec<String> {
        let fields = delimiter.fields(line.as_bytes());
        fields
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect()
    }

    #[test]
    fn fields_are_split_outside_of_quotes() {
        let comma = Delimiter::Byte(b',');
        assert_eq!(fields(comma, "1, 2 ,"), ["1", "2", ""]);
        assert_eq!(fields(comma, ",a"), ["", "a"]);
        assert_eq!(
            fields(comma, r#""a,""b""" ,"c"x,2"#),
            [r#""a,""b""""#, r#""c"x"#, "2"]
        );
        assert_eq!(fields(comma, r#"1,"a,2"#), ["1", "\"a,2"]);
        assert_eq!(
            fields(Delimiter::Byte(b'\t'), "\t1 \t\t2"),
            ["", "1", "", "2"]
        );
        assert_eq!(fields(Delimiter::Blanks, " 1 \t 2  "), ["1", "2"]);
        assert_eq!(fields(Delimiter::Blanks, "\"a b\" c"), ["\"a b\"", "c"]);
    }

    #[test]
    fn the_delimiter_is_the_first_that_is_not_quoted() {
        for (line, delimiter) in [
            ("1;2;0,5", Delimiter::Byte(b';')),
            ("1,2,a;b", Delimiter::Byte(b',')),
            ("from id,to id", Delimiter::Byte(b',')),
            ("\"a,b\"|c", Delimiter::Byte(b'|')),
            ("a\tb", Delimiter::Byte(b'\t')),
            ("a b", Delimiter::Blanks),
        ] {
            assert_eq!(Delimiter::of_line(line.as_bytes()), delimiter, "{line}");
        }
        assert_eq!("\\t".parse::<Delimiter>().unwrap(), Delimiter::Byte(b'\t'));
        assert_eq!(";".parse::<Delimiter>().unwrap(), Delimiter::Byte(b';'));
        for text in ["", ";;", "1", "\"", ".", "x"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text}");
        }
    }

    #[test]
    fn columns_are_numbers_from_1_or_names() {
        assert_eq!("1".parse::<ColumnChoice>().unwrap(), ColumnChoice::Place(0));
        assert_eq!(
            "to".parse::<ColumnChoice>().unwrap(),
            ColumnChoice::Name("to".into())
        );
        assert!("0".parse::<ColumnChoice>().is_err());
        assert!("99999999999999999999".parse::<ColumnChoice>().is_err());
    }

    fn layout(delimiter: Delimiter, places: [usize; 3]) -> Layout {
        Layout {
            delimiter,
            places: Places {
                source: places[0],
                target: places[1],
                weight: Some(places[2]),
            },
            width: 4,
            sides: None,
        }
    }

    #[test]
    fn a_line_is_an_edge_wherever_its_columns_are() {
        let semicolon = layout(Delimiter::Byte(b';'), [3, 1, 2]);
        let edge = semicolon.edge(b"x;\"2\";0,5;1.0;", true).ok().unwrap();
        assert_eq!(
            (edge.source, edge.target, edge.weight, edge.more),
            (1, 2, 0.5, false)
        );
        assert!(semicolon.edge(b"x;2;1;1;y", false).ok().unwrap().more);
        for (line, problem) in [
            ("x;2;1", Column::Short { number: 4 }),
            ("x;;1;1", Column::Void { number: 2 }),
            ("\"x;2;1;1", Column::OpenQuote),
            ("x;2;;1", Column::NoWeight),
            ("x;2;nan;1", Column::Weight),
            ("x;a;1;1", Column::Word),
        ] {
            let found = semicolon.edge(line.as_bytes(), true).err().unwrap().0;
            assert_eq!(found, problem, "{line}");
        }
    }

    #[test]
    fn the_ids_of_the_right_side_come_after_those_of_the_left() {
        let mut bipartite = layout(Delimiter::Blanks, [0, 1, 2]);
        bipartite.sides = Some(Sides { left: 3, right: 2 });
        let edge = bipartite.edge(b"1 1", false).ok().unwrap();
        assert_eq!((edge.source, edge.target), (1, 4));
        for line in [&b"4 1"[..], b"1 3", b"0 1", b"1 0"] {
            let (column, _) = bipartite.edge(line, false).err().unwrap();
            assert!(matches!(column, Column::Outside { .. }), "{column:?}");
        }
    }
}
