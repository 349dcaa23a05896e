//! Edge lists in text, in the forms that SNAP, KONECT, CSV exports and LDBC Graphalytics use: one block of lines.
//!
//! A line is one edge, `source target`, between blanks or one comma, and perhaps a weight; more columns are ignored. Lines
//! that are blank or start with `#` or `%` are skipped. Ids are any `u64`, perhaps in quotes or with `.0` behind them. What the
//! lines before the first edge mean is the [`preamble`](super::preamble)'s matter, and other tables are a
//! [`Layout`]'s.
//!
//! Most lines are two short numbers, which are read eight digits at a time without a branch for each (D. Lemire and
//! others, "Number Parsing at a Gigabyte per Second", Software: Practice and Experience 51, 2021). All others take
//! their time.

use super::GraphError;
use super::columns::Layout;
use super::dimacs;
use super::edges::{Spreader, Weight};
use super::error::Column;
use super::text::Block;

/// The largest vertex id.
pub const ID_MAX: u64 = u64::MAX;

/// What lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// The first two columns are an edge, the third one its weight.
    #[default]
    Plain,
    /// A table of another layout.
    Table(Layout),
    /// Lines of a DIMACS file.
    Dimacs(dimacs::Kind),
}

/// What is to become of edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taking {
    /// What lines are.
    pub rows: Rows,
    /// Each line is an edge in both directions (a loop is one edge).
    pub both_ways: bool,
    /// Edges from a vertex to itself are dropped.
    pub drop_loops: bool,
    /// Ids are 1 to this.
    pub ids_up_to: Option<u64>,
}

impl Rows {
    fn is_comment(self, line: &[u8]) -> bool {
        match self {
            Rows::Dimacs(_) => dimacs::is_comment(line),
            _ => is_comment(line),
        }
    }

    /// The edge of a line, whose end may be there.
    fn edge(self, line: &[u8], weighted: bool) -> Result<Edge, Misread<'_>> {
        match self {
            Rows::Plain => edge(trimmed(line), weighted),
            Rows::Table(layout) => layout.edge(unended(line), weighted),
            Rows::Dimacs(kind) => kind.edge(trimmed(line), weighted),
        }
    }
}

/// What was found in a block beside edges.
#[derive(Debug, Default)]
pub struct Found {
    /// Lines, whatever they hold.
    pub lines: u64,
    /// Lines that start with `#` or `%`.
    pub comment_lines: u64,
    /// Lines without content.
    pub blank_lines: u64,
    /// Data lines with more columns than were read.
    pub extra_column_lines: u64,
    /// Data lines that were read.
    pub data_lines: u64,
    /// Edges from a vertex to itself.
    pub loops: u64,
    /// Vertices of loops that were dropped: an edge or not, the text mentions them.
    pub loop_ids: Vec<u64>,
    /// Edges to a larger id than their source's, and to a smaller one; counted where ids have a bound.
    pub rising: u64,
    /// See [`Found::rising`].
    pub falling: u64,
    /// The first line that is no edge, by its number within the block: it and what follows was not read.
    pub problem: Option<(u64, Problem)>,
}

/// What is wrong with a line.
#[derive(Debug)]
pub struct Problem {
    why: Column,
    column: Vec<u8>,
    line: Vec<u8>,
}

impl Problem {
    /// The error that it is on line `line` of the text `name`.
    pub fn error(&self, name: &str, line: u64) -> GraphError {
        GraphError::column(name, line, &self.column, &self.line, self.why)
    }

    fn new((why, column): Misread<'_>, line: &[u8]) -> Problem {
        Problem {
            why,
            column: column.to_vec(),
            line: line.to_vec(),
        }
    }
}

/// Adds the edges of a block, from byte `from` on, to `edges`.
pub fn parse<W: Weight>(
    block: &Block,
    from: usize,
    taking: Taking,
    edges: &mut Spreader<W>,
) -> Found {
    match taking.ids_up_to {
        Some(last) => parse_rows::<W, true>(block, from, taking, last, edges),
        None => parse_rows::<W, false>(block, from, taking, u64::MAX, edges),
    }
}

/// `BOUNDED`: ids have to be 1 to `last`. A type, so that lines of other files are not slower for it.
fn parse_rows<W: Weight, const BOUNDED: bool>(
    block: &Block,
    from: usize,
    taking: Taking,
    last_id: u64,
    edges: &mut Spreader<W>,
) -> Found {
    let (text, end) = (block.padded(), block.text().len());
    let mut found = Found::default();
    let mut at = from;
    let mut take = |found: &mut Found, source: u64, target: u64, weight: W| {
        found.data_lines += 1;
        if BOUNDED {
            found.rising += u64::from(source < target);
            found.falling += u64::from(source > target);
        }
        if source == target {
            found.loops += 1;
            if taking.drop_loops {
                found.loop_ids.push(source);
                return;
            }
        } else if taking.both_ways {
            edges.push(target, source, weight);
        }
        edges.push(source, target, weight);
    };
    let is_allowed = |id: u64| !BOUNDED || (1..=last_id).contains(&id);
    let is_fast = !W::SOME && taking.rows == Rows::Plain;
    let mut last = Source::default();
    while at < end {
        found.lines += 1;
        if is_fast
            && let Some((source, after)) = last.at(text, at).or_else(|| last.read(text, at))
            && let Some((target, after)) = id_at(text, after)
        {
            let next = match text[after] {
                b'\n' => after + 1,
                b'\r' if text[after + 1] == b'\n' => after + 2,
                _ => 0,
            };
            if next > 0 && is_allowed(source) && is_allowed(target) {
                take(&mut found, source, target, W::default());
                at = next;
                continue;
            }
        }
        let length = memchr::memchr(b'\n', &text[at..end]).unwrap_or(end - at);
        let whole = &text[at..at + length];
        let line = trimmed(whole);
        at += length + 1;
        if line.is_empty() {
            found.blank_lines += 1;
            continue;
        }
        if taking.rows.is_comment(line) {
            found.comment_lines += 1;
            continue;
        }
        let read = taking.rows.edge(whole, W::SOME).and_then(|edge| {
            let outside = [edge.source, edge.target]
                .into_iter()
                .find(|&id| !is_allowed(id));
            match outside {
                None => Ok(edge),
                Some(id) => Err((Column::Outside { id, last: last_id }, line)),
            }
        });
        match read {
            Ok(edge) => {
                found.extra_column_lines += u64::from(edge.more);
                take(&mut found, edge.source, edge.target, W::of(edge.weight));
            }
            Err(misread) => {
                found.problem = Some((found.lines, Problem::new(misread, line)));
                break;
            }
        }
    }
    found
}

/// The source of the line before, which lines often begin with: then it need not be read again.
#[derive(Default)]
struct Source {
    id: u64,
    /// Its digits and what separates it from the target; their length in bytes, 0 if there is none.
    bytes: u128,
    length: usize,
}

impl Source {
    /// The source and where the target begins, if the line at `at` begins like the one before.
    #[inline]
    fn at(&self, text: &[u8], at: usize) -> Option<(u64, usize)> {
        let word = u128::from_le_bytes(*text.get(at..)?.first_chunk()?);
        let differ = word ^ self.bytes;
        let is_same = self.length > 0 && differ.trailing_zeros() as usize >= 8 * self.length;
        is_same.then_some((self.id, at + self.length))
    }

    /// The source of the line at `at`, and where the target begins.
    #[inline]
    fn read(&mut self, text: &[u8], at: usize) -> Option<(u64, usize)> {
        let (id, after) = id_at(text, at)?;
        if !matches!(text[after], b'\t' | b' ' | b',') {
            return None;
        }
        let length = after + 1 - at;
        *self = match text.get(at..)?.first_chunk() {
            Some(&word) if length <= 16 => Source {
                id,
                bytes: u128::from_le_bytes(word),
                length,
            },
            _ => Source::default(),
        };
        Some((id, after + 1))
    }
}

/// The largest of the short ids at the start of lines, and behind them: about how large ids are.
pub fn largest_id(block: &Block) -> u64 {
    let text = block.padded();
    let mut largest = 0;
    let mut at = 0;
    while at < block.text().len() {
        if let Some((source, after)) = id_at(text, at) {
            let target = id_at(text, after + 1).map_or(0, |(target, _)| target);
            largest = [largest, source, target]
                .into_iter()
                .filter(|id| *id <= u64::from(u32::MAX))
                .max()
                .unwrap_or_default();
        }
        let end = memchr::memchr(b'\n', &text[at..]).unwrap_or(text.len());
        at += end + 1;
    }
    largest
}

/// The ids of a block of a vertex list: one a line, in the same forms.
pub fn parse_ids(block: &Block, ids: &mut Vec<u64>) -> Found {
    let mut found = Found::default();
    for line in block.text().split_inclusive(|&byte| byte == b'\n') {
        found.lines += 1;
        let line = trimmed(line);
        if line.is_empty() || is_comment(line) {
            continue;
        }
        match id_column(line) {
            Ok((id, _)) => ids.push(id),
            Err(misread) => {
                found.problem = Some((found.lines, Problem::new(misread, line)));
                break;
            }
        }
    }
    found
}

/// The id that stands at `at`, followed by something that is no digit, and where that is. `None` without digits, for more
/// than 2^64 - 1, and near the end of the text.
#[inline]
pub(crate) fn id_at(text: &[u8], at: usize) -> Option<(u64, usize)> {
    let (value, digits) = eight_digits(text, at)?;
    match digits {
        0 => None,
        1..8 => Some((value, at + digits)),
        _ => long_id_at(text, at + 8, value),
    }
}

fn long_id_at(text: &[u8], at: usize, first: u64) -> Option<(u64, usize)> {
    let (more, digits) = eight_digits(text, at)?;
    let value = first * 10u64.pow(digits as u32) + more;
    if digits < 8 {
        return Some((value, at + digits));
    }
    let (more, digits) = eight_digits(text, at + 8)?;
    let value = value
        .checked_mul(10u64.pow(digits as u32))?
        .checked_add(more)?;
    // Leading zeros may make it longer; that is read elsewhere.
    (digits < 8).then_some((value, at + 8 + digits))
}

/// The number that up to eight digits are, and how many there are.
#[inline]
fn eight_digits(text: &[u8], at: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.get(at..)?.first_chunk()?);
    // 0 to 9 in each byte that is a digit.
    let values = word ^ 0x3030_3030_3030_3030;
    let above_nine = (((values & 0x7f7f_7f7f_7f7f_7f7f) + 0x7676_7676_7676_7676) | values)
        & 0x8080_8080_8080_8080;
    let digits = above_nine.trailing_zeros() as usize / 8;
    if digits == 0 {
        return Some((0, 0));
    }
    // The first digit stands in the lowest byte; zeros go before it.
    let values = values << (64 - 8 * digits);
    let pairs = (values.wrapping_mul(10) + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let value = (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff;
    Some((value, digits))
}

/// A line without blanks around it and without its end.
pub(crate) fn trimmed(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line
        && is_blank(*first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && (is_blank(*last) || *last == b'\n' || *last == b'\r')
    {
        line = rest;
    }
    line
}

/// A line without its end.
pub(crate) fn unended(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a byte may stand between columns any number of times.
pub(crate) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

pub(crate) fn is_comment(line: &[u8]) -> bool {
    matches!(line.first(), Some(b'#' | b'%'))
}

/// What is wrong, and with which column.
pub(crate) type Misread<'a> = (Column, &'a [u8]);

/// What a line says.
pub(crate) struct Edge {
    pub source: u64,
    pub target: u64,
    pub weight: f64,
    /// There are columns that were not read.
    pub more: bool,
}

/// The edge of a line, with its weight if it has to have one; or what is wrong with which column.
pub(crate) fn edge(line: &[u8], weighted: bool) -> Result<Edge, Misread<'_>> {
    let (source, rest) = id_column(line)?;
    let rest = next_column(rest)?;
    if rest.is_empty() {
        return Err((Column::Missing, rest));
    }
    let (target, rest) = id_column(rest)?;
    let (mut weight, mut more) = (0.0, !rest.is_empty());
    if weighted {
        let column = first_column(next_column(rest)?);
        weight = weight_of(column, false)?;
        let rest = &next_column(rest)?[column.len()..];
        more = !rest.is_empty();
    }
    Ok(Edge {
        source,
        target,
        weight,
        more,
    })
}

/// A finite number.
pub(crate) fn number(column: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(column).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// The weight in a column, perhaps in quotes, and with a decimal comma where that is no delimiter.
pub(crate) fn weight_of(column: &[u8], decimal_comma: bool) -> Result<f64, Misread<'_>> {
    let text = unquoted(column);
    if text.is_empty() {
        return Err((Column::NoWeight, column));
    }
    let with_point = || {
        let commas = text.iter().filter(|&&byte| byte == b',').count();
        let is_one = decimal_comma && commas == 1 && !text.contains(&b'.');
        let text: Vec<u8> = text
            .iter()
            .map(|&byte| if byte == b',' { b'.' } else { byte })
            .collect();
        is_one.then(|| number(&text)).flatten()
    };
    number(text)
        .or_else(with_point)
        .ok_or((Column::Weight, column))
}

/// The id at the start of the text, and what follows it: nothing, or something that starts with a separator.
fn id_column(text: &[u8]) -> Result<(u64, &[u8]), Misread<'_>> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    let ended = rest
        .first()
        .is_none_or(|&byte| is_blank(byte) || byte == b',');
    if ended && let Some(id) = value(digits) {
        return Ok((id, rest));
    }
    let column = first_column(text);
    id_of(column).map(|id| (id, &text[column.len()..]))
}

/// The number that digits are; none for no digits, other characters, and more than 2^64 - 1.
fn value(digits: &[u8]) -> Option<u64> {
    let add = |value: u64, character: &u8| {
        let digit = char::from(*character).to_digit(10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    };
    let value = digits.iter().try_fold(0, add);
    value.filter(|_| !digits.is_empty())
}

/// Ids up to this are exact as floating-point numbers.
const EXACT_MAX: u64 = 1 << 53;

/// The id that a whole column is: digits, perhaps in quotes; or a floating-point number without a fraction, as data frames
/// write a column of ids in which one was missing.
pub(crate) fn id_of(column: &[u8]) -> Result<u64, Misread<'_>> {
    let text = unquoted(column);
    let (is_negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let point = text.iter().position(|&byte| byte == b'.');
    let (digits, zeros) = text.split_at(point.unwrap_or(text.len()));
    let is_whole = zeros.iter().skip(1).all(|&byte| byte == b'0');
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && is_whole;
    match value(digits).filter(|_| is_number) {
        _ if text.is_empty() && !is_negative => Err((Column::Empty, column)),
        _ if !is_number => Err((Column::Word, column)),
        _ if is_negative => Err((Column::Negative, column)),
        None => Err((Column::TooLarge, column)),
        Some(id) if point.is_some() && id > EXACT_MAX => Err((Column::Inexact, column)),
        Some(id) => Ok(id),
    }
}

/// A column without the quotes around it.
pub(crate) fn unquoted(column: &[u8]) -> &[u8] {
    match column {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => trimmed(inner),
        _ => column,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_all_lengths_are_read_where_they_stand() {
        for id in [
            0,
            7,
            12,
            999_999,
            1_234_567,
            12_345_678,
            123_456_789,
            u64::from(u32::MAX),
            9_999_999_999_999_999,
            1 << 60,
            u64::MAX,
        ] {
            let text = format!("x{id}\t                        ");
            let end = 1 + id.to_string().len();
            assert_eq!(id_at(text.as_bytes(), 1), Some((id, end)), "{id}");
        }
        let padded = |text: &str| format!("{text}                        ").into_bytes();
        assert_eq!(id_at(&padded("18446744073709551616"), 0), None);
        assert_eq!(id_at(&padded("-1"), 0), None);
        assert_eq!(id_at(&padded(""), 0), None);
        assert_eq!(id_at(&padded("00000012 "), 0), Some((12, 8)));
        assert_eq!(id_at(b"12", 0), None, "too near the end");
        for byte in 0..=255u8 {
            let text = [b'4', byte, b'2', b' ', b' ', b' ', b' ', b' ', b' '];
            let expected = match byte.is_ascii_digit() {
                true => (400 + u64::from(byte - b'0') * 10 + 2, 3),
                false => (4, 1),
            };
            assert_eq!(id_at(&text, 0), Some(expected), "{byte}");
        }
    }
    #[test]
    fn ids_in_quotes_and_whole_floating_point_numbers_are_ids() {
        for (column, id) in [
            ("7", 7),
            ("\"7\"", 7),
            ("'7'", 7),
            ("\" 7 \"", 7),
            ("7.0", 7),
            ("7.", 7),
            ("\"7.000\"", 7),
            ("9007199254740992.0", 1 << 53),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(id_of(column.as_bytes()).ok(), Some(id), "{column}");
        }
        for (column, why) in [
            ("", Column::Empty),
            ("\"\"", Column::Empty),
            ("7.5", Column::Word),
            (".0", Column::Word),
            ("7.0.0", Column::Word),
            ("1e3", Column::Word),
            ("+1", Column::Word),
            ("nan", Column::Word),
            ("\"7", Column::Word),
            ("-7", Column::Negative),
            ("-7.0", Column::Negative),
            ("-", Column::Word),
            ("18446744073709551616", Column::TooLarge),
            ("9007199254740993.0", Column::Inexact),
        ] {
            assert_eq!(
                id_of(column.as_bytes()).err(),
                Some((why, column.as_bytes()))
            );
        }
    }

    #[test]
    fn weights_are_finite_numbers_perhaps_with_a_decimal_comma() {
        assert_eq!(weight_of(b"\"-1.5e2\"", false).ok(), Some(-150.0));
        assert_eq!(weight_of(b"0,5", true).ok(), Some(0.5));
        for column in ["0,5", "inf", "nan", "1e999", "x"] {
            let error = weight_of(column.as_bytes(), false).err();
            assert_eq!(error.map(|(why, _)| why), Some(Column::Weight), "{column}");
        }
        assert!(weight_of(b"1,000,000", true).is_err() && weight_of(b"1,000.5", true).is_err());
        assert_eq!(
            weight_of(b"", false).err().map(|(why, _)| why),
            Some(Column::NoWeight)
        );
    }
}
