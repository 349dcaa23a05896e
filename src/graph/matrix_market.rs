//! The head of a Matrix Market file (R. Boisvert, R. Pozo, K. Remington, "The Matrix Market Exchange Formats", NIST IR 5935,
//! 1996): a banner, comments, and a line with the matrix's size. What follows are edges, `row column [value]`.

use super::edges::Edge;
use super::snap::{is_comment, trimmed};

/// What the head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of it.
    pub length: usize,
    /// Lines of it.
    pub lines: u64,
    /// Vertices, whose ids are 1 to this.
    pub vertices: u64,
    /// Entries that follow.
    pub entries: u64,
    /// An entry off the diagonal stands for its mirror image too.
    pub both_ways: bool,
    /// The mirror image has the negative value.
    pub skew: bool,
    /// Entries have values.
    pub valued: bool,
}

impl Head {
    /// Whether a file holds what its head says.
    ///
    /// # Errors
    ///
    /// What it holds instead.
    pub fn check<W>(
        &self,
        entries: u64,
        mut edges: impl Iterator<Item = Edge<u64, W>>,
    ) -> Result<(), String> {
        if entries != self.entries {
            return Err(format!(
                "it says {} entries, and has {entries}",
                self.entries
            ));
        }
        let allowed = 1..=self.vertices;
        match edges.find(|(s, t, _)| !allowed.contains(s) || !allowed.contains(t)) {
            None => Ok(()),
            Some((source, target, _)) => Err(format!(
                "it says {} rows, and has an entry at {source} {target}",
                self.vertices
            )),
        }
    }
}

/// True if a text begins as a Matrix Market file does.
pub fn is_one(text: &[u8]) -> bool {
    text.len() >= 14 && text[..14].eq_ignore_ascii_case(b"%%MatrixMarket")
}

/// The head that stands at the start of `text`.
///
/// # Errors
///
/// The line, from 1, and what is wrong with it.
pub fn head(text: &[u8]) -> Result<Head, (u64, String)> {
    let mut lines = 0;
    let mut length = 0;
    let (mut both_ways, mut skew, mut valued) = (false, false, false);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        length += line.len();
        let line = trimmed(line);
        let words = String::from_utf8_lossy(line).to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        if lines == 1 {
            let [_, object, layout, field, symmetry] = words[..] else {
                return Err((
                    1,
                    "the banner has four words: object, layout, field, symmetry".into(),
                ));
            };
            if (object, layout) != ("matrix", "coordinate") {
                return Err((
                    1,
                    format!("a {layout} {object} is no graph; it must be a coordinate matrix"),
                ));
            }
            valued = match field {
                "pattern" => false,
                "real" | "integer" | "double" => true,
                _ => return Err((1, format!("values that are {field} are not read"))),
            };
            both_ways = match symmetry {
                "general" => false,
                "symmetric" | "skew-symmetric" | "hermitian" => true,
                _ => return Err((1, format!("no symmetry is named {symmetry:?}"))),
            };
            skew = symmetry == "skew-symmetric";
            continue;
        }
        if line.is_empty() || is_comment(line) {
            continue;
        }
        let numbers: Option<Vec<u64>> = words.iter().map(|word| word.parse().ok()).collect();
        let Some([rows, columns, entries]) = numbers.as_deref() else {
            return Err((
                lines,
                "expected the matrix's rows, columns and entries".into(),
            ));
        };
        if rows != columns {
            return Err((
                lines,
                format!(
                    "a matrix of {rows} rows and {columns} columns is no graph; it must be square"
                ),
            ));
        }
        return Ok(Head {
            length,
            lines,
            vertices: *rows,
            entries: *entries,
            both_ways,
            skew,
            valued,
        });
    }
    Err((
        lines,
        "the line with the matrix's size is missing, or behind more than 500 KB of comments".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_follows() {
        let text =
            b"%%MatrixMarket matrix coordinate pattern symmetric\n% a comment\n\n 4 4 3\r\n2 1\n";
        assert!(is_one(text));
        let expected = Head {
            length: text.len() - 4,
            lines: 4,
            vertices: 4,
            entries: 3,
            both_ways: true,
            skew: false,
            valued: false,
        };
        assert_eq!(head(text), Ok(expected));
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        let refusal = |text: &str| head(text.as_bytes()).unwrap_err();
        for (banner, word) in [
            ("matrix array real general", "array"),
            ("matrix coordinate complex general", "complex"),
            ("matrix coordinate real odd", "odd"),
            ("matrix coordinate", "four words"),
        ] {
            let (line, problem) = refusal(&format!("%%MatrixMarket {banner}\n3 3 1\n"));
            assert!(line == 1 && problem.contains(word), "{problem}");
        }
        let general = "%%MatrixMarket matrix coordinate real general\n";
        assert_eq!(refusal(&format!("{general}3 4 1\n")).0, 2);
        assert!(refusal(&format!("{general}3 3\n")).1.contains("expected"));
        assert!(refusal(general).1.contains("missing"));
    }
}
