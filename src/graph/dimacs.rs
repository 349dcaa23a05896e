//! Graphs of the DIMACS challenges: a line `p KIND VERTICES EDGES`, then a line for each edge. `sp` is for shortest paths
//! (`a SOURCE TARGET WEIGHT`, each an arc), `edge` and `col` for colouring (`e ONE OTHER`, without direction). Lines `c ...` are
//! comments. Ids are 1 to the number of vertices.

use super::error::Column;
use super::snap::{Edge, Misread, edge, is_blank, trimmed};

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
    /// Lines of edges that follow.
    pub edges: u64,
    /// What each of them is.
    pub kind: Kind,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `a`: with a direction and a weight.
    Arc,
    /// `e`: with neither.
    Edge,
}

/// True if a text begins as such a file does: with comments of the letter c, and a problem line.
pub fn is_one(text: &[u8]) -> bool {
    for line in text.split(|&byte| byte == b'\n').map(trimmed) {
        match line {
            [] => {}
            line if is_comment(line) => {}
            [b'p', blank, rest @ ..] if is_blank(*blank) => {
                let mut words = rest
                    .split(|&byte| is_blank(byte))
                    .filter(|word| !word.is_empty());
                let has_name = words
                    .next()
                    .is_some_and(|word| word[0].is_ascii_alphabetic());
                let is_number = |word: &[u8]| word.iter().all(u8::is_ascii_digit);
                return has_name && words.next().is_some_and(is_number);
            }
            _ => return false,
        }
    }
    false
}

/// True for a comment.
pub fn is_comment(line: &[u8]) -> bool {
    matches!(line, [b'c'] | [b'c', b' ' | b'\t', ..])
}

/// The head that stands at the start of `text`.
///
/// # Errors
///
/// The line, from 1, and what is wrong with it.
pub fn head(text: &[u8]) -> Result<Head, (u64, String)> {
    let (mut lines, mut length, mut comment_lines) = (0, 0, 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        length += line.len();
        let line = trimmed(line);
        if line.is_empty() {
            continue;
        }
        if is_comment(line) {
            comment_lines += 1;
            continue;
        }
        let text = String::from_utf8_lossy(line);
        let words: Vec<&str> = text.split_whitespace().collect();
        let refused = |problem: String| Err((lines, problem));
        let ["p", kind, counts @ ..] = &words[..] else {
            return refused("expected \"p sp VERTICES ARCS\" before the first arc".into());
        };
        let kind = match *kind {
            "sp" => Kind::Arc,
            "edge" | "col" => Kind::Edge,
            other => {
                let other = super::error::excerpt(other.as_bytes());
                return refused(format!(
                    "problems of the kind {other} are not read; sp, edge and col are"
                ));
            }
        };
        let counts: Option<Vec<u64>> = counts.iter().map(|word| word.parse().ok()).collect();
        return match counts.as_deref() {
            Some(&[vertices, edges]) => Ok(Head {
                length,
                lines,
                comment_lines,
                vertices,
                edges,
                kind,
            }),
            _ => refused("expected the numbers of vertices and of edges at the end".into()),
        };
    }
    Err((
        lines,
        "the line \"p sp VERTICES ARCS\" is missing, or behind more than 500 KB of comments".into(),
    ))
}

impl Head {
    /// Compares the number of edges with what the head says.
    ///
    /// # Errors
    ///
    /// The line that says otherwise, and the problem.
    pub fn check(&self, edges: u64) -> Result<(), (u64, String)> {
        match self.edges == edges {
            true => Ok(()),
            false => Err((
                self.lines,
                format!("it says {} edges, and has {edges}", self.edges),
            )),
        }
    }
}

impl Kind {
    /// The edge of a line, with its weight if it has to have one.
    pub(crate) fn edge(self, line: &[u8], weighted: bool) -> Result<Edge, Misread<'_>> {
        let letter = match self {
            Kind::Arc => b'a',
            Kind::Edge => b'e',
        };
        match line {
            [first, blank, rest @ ..] if *first == letter && is_blank(*blank) => {
                edge(trimmed(rest), weighted)
            }
            _ => Err((Column::Letter { letter }, line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_behind_comments() {
        let text = b"c made\r\nc\n\np sp 3 2\na 1 2 5\n";
        assert!(is_one(text));
        let head = head(text).unwrap();
        assert_eq!(
            (head.lines, head.comment_lines, head.length),
            (4, 2, text.len() - 8)
        );
        assert_eq!((head.vertices, head.edges, head.kind), (3, 2, Kind::Arc));
        assert!(head.check(2).is_ok());
        assert_eq!(head.check(1), Err((4, "it says 2 edges, and has 1".into())));
        for text in [
            "",
            "c\n",
            "1 2\n",
            "p x\n1 2\n",
            "source target\n",
            "cat p\n",
        ] {
            assert!(!is_one(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        for (text, line, word) in [
            ("a 1 2 3\n", 1, "p sp"),
            ("c\np max 3 2\n", 2, "\"max\""),
            ("p sp 3\n", 1, "numbers"),
            ("p sp 3 x\n", 1, "numbers"),
            ("c\n", 1, "missing"),
        ] {
            let (found, problem) = head(text.as_bytes()).unwrap_err();
            assert!(found == line && problem.contains(word), "{text}: {problem}");
        }
        assert!(Kind::Arc.edge(b"e 1 2", false).is_err());
        let edge = Kind::Edge.edge(b"e 1\t2", false).ok().unwrap();
        assert_eq!((edge.source, edge.target), (1, 2));
    }
}
