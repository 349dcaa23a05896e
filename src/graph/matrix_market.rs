//! The head of a Matrix Market file (R. Boisvert, R. Pozo, K. Remington, "The Matrix Market Exchange Formats", NIST IR 5935,
//! 1996): a banner, comments, and a line with the matrix's size. What follows are edges, `row column [value]`.

use super::error::excerpt;
use super::snap::{is_comment, trimmed};

/// What the head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of it.
    pub length: usize,
    /// Lines of it.
    pub lines: u64,
    /// Comments among them.
    pub comment_lines: u64,
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
    /// Values are of two numbers.
    pub complex: bool,
}

impl Head {
    /// Compares the number of entries with what the head says.
    ///
    /// # Errors
    ///
    /// The line that says otherwise, and the problem.
    pub fn check(&self, entries: u64) -> Result<(), (u64, String)> {
        match self.entries == entries {
            true => Ok(()),
            false => Err((
                self.lines,
                format!("it says {} entries, and has {entries}", self.entries),
            )),
        }
    }
}

/// True if a text begins as a Matrix Market file does.
pub fn is_one(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    text.len() >= 14 && text[..14].eq_ignore_ascii_case(b"%%MatrixMarket")
}

/// The head that stands at the start of `text`.
///
/// # Errors
///
/// The line, from 1, and what is wrong with it.
pub fn head(text: &[u8]) -> Result<Head, (u64, String)> {
    let (mut lines, mut length, mut comment_lines) = (0, 0, 0);
    let mut banner = None;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        length += line.len();
        let line = trimmed(line);
        let words = String::from_utf8_lossy(line).to_lowercase();
        let words: Vec<&str> = words.split_whitespace().collect();
        if line.is_empty() {
            continue;
        }
        if banner.is_none() {
            banner = Some(Banner::parse(&words).map_err(|problem| (lines, problem))?);
            continue;
        }
        if is_comment(line) {
            comment_lines += 1;
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
        let Banner {
            both_ways,
            skew,
            valued,
            complex,
        } = banner.unwrap_or_default();
        return Ok(Head {
            length,
            lines,
            comment_lines,
            vertices: *rows,
            entries: *entries,
            both_ways,
            skew,
            valued,
            complex,
        });
    }
    Err((
        lines,
        "the line with the matrix's size is missing, or behind more than 500 KB of comments".into(),
    ))
}

/// What the first line says.
#[derive(Default)]
struct Banner {
    both_ways: bool,
    skew: bool,
    valued: bool,
    complex: bool,
}

impl Banner {
    /// Words behind the fifth one say nothing about the graph.
    fn parse(words: &[&str]) -> Result<Banner, String> {
        let [_, object, layout, field, symmetry, ..] = words else {
            return Err("the banner has four words: object, layout, field, symmetry".into());
        };
        match (*object, *layout) {
            ("matrix", "coordinate") => {}
            ("matrix", "array") => {
                return Err(
                    "an array lists every entry of a dense matrix, and is read as no graph; write the matrix as coordinate".into(),
                );
            }
            _ => {
                let found = excerpt(format!("{object} {layout}").as_bytes());
                return Err(format!(
                    "{found} is no graph; it must be a coordinate matrix"
                ));
            }
        }
        let (valued, complex) = match *field {
            "pattern" => (false, false),
            "real" | "double" | "integer" | "unsigned-integer" | "unsigned" => (true, false),
            "complex" => (true, true),
            _ => {
                let field = excerpt(field.as_bytes());
                return Err(format!(
                    "no field is named {field}; there are pattern, real, double, integer, unsigned-integer and complex"
                ));
            }
        };
        let both_ways = match *symmetry {
            "general" => false,
            "symmetric" | "skew-symmetric" | "hermitian" => true,
            _ => {
                let symmetry = excerpt(symmetry.as_bytes());
                return Err(format!(
                    "no symmetry is named {symmetry}; there are general, symmetric, skew-symmetric and hermitian"
                ));
            }
        };
        Ok(Banner {
            both_ways,
            skew: *symmetry == "skew-symmetric",
            valued,
            complex,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_what_follows() {
        let text =
            b"\n%%MatrixMarket matrix coordinate pattern symmetric as made\n% a comment\n\n 4 4 3\r\n2 1\n";
        assert!(is_one(text));
        let expected = Head {
            length: text.len() - 4,
            lines: 5,
            comment_lines: 1,
            vertices: 4,
            entries: 3,
            both_ways: true,
            skew: false,
            valued: false,
            complex: false,
        };
        assert_eq!(head(text), Ok(expected));
        assert!(expected.check(3).is_ok());
        assert_eq!(
            expected.check(2),
            Err((5, "it says 3 entries, and has 2".into()))
        );
    }

    #[test]
    fn every_field_has_a_structure() {
        for (field, valued, complex) in [
            ("pattern", false, false),
            ("real", true, false),
            ("unsigned-integer", true, false),
            ("Complex", true, true),
        ] {
            let text = format!("%%MatrixMarket matrix coordinate {field} general\n3 3 1\n");
            let head = head(text.as_bytes()).unwrap();
            assert_eq!((head.valued, head.complex), (valued, complex), "{field}");
        }
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        let refusal = |text: &str| head(text.as_bytes()).unwrap_err();
        for (banner, word) in [
            ("matrix array real general", "an array lists every entry"),
            ("vector coordinate real general", "\"vector coordinate\""),
            ("matrix coordinate quaternion general", "\"quaternion\""),
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
