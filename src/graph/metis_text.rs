//! Graph files of METIS (its manual, section 4.1.1, which KaHIP, Chaco and the DIMACS challenges share): a line with the
//! numbers of vertices and edges, then a line for each vertex with its neighbours, which count from 1. An edge stands with
//! both of its ends.

use super::edges::{Edges, Spreader, Weight};
use super::error::excerpt;
use super::snap::{is_comment, number, trimmed};

/// Reads such a file line by line.
pub struct MetisText<W> {
    /// The edges so far, each in both directions.
    edges: Spreader<W>,
    lines: u64,
    head: Option<Head>,
    row: u64,
    entries: u64,
    drop_loops: bool,
    dropped: u64,
}

#[derive(Clone, Copy)]
struct Head {
    vertices: u64,
    edges: u64,
    /// Numbers before the first neighbour.
    before: usize,
    weighted: bool,
}

impl<W: Weight> MetisText<W> {
    /// At the start of a file; edges from a vertex to itself are dropped, if asked.
    pub fn new(drop_loops: bool) -> MetisText<W> {
        MetisText {
            edges: Spreader::new(0),
            lines: 0,
            head: None,
            row: 0,
            entries: 0,
            drop_loops,
            dropped: 0,
        }
    }

    /// Edges from a vertex to itself that were dropped.
    pub fn dropped_loops(&self) -> u64 {
        self.dropped
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Takes whole lines.
    ///
    /// # Errors
    ///
    /// The line, from 1, and what is wrong with it.
    pub fn take(&mut self, text: &[u8]) -> Result<(), (u64, String)> {
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            self.lines += 1;
            let line = trimmed(line);
            if !is_comment(line) {
                self.line(line).map_err(|problem| (self.lines, problem))?;
            }
        }
        Ok(())
    }

    /// The edges, and the number of vertices.
    ///
    /// # Errors
    ///
    /// The last line, and what is missing.
    pub fn finish(self) -> Result<(Edges<W>, u64), (u64, String)> {
        let problem = match self.head {
            None => "the line with the numbers of vertices and edges is missing".to_owned(),
            Some(head) if self.row < head.vertices => format!(
                "it says {} vertices, and has a line for {}",
                head.vertices, self.row
            ),
            Some(head) if Some(self.entries) != head.edges.checked_mul(2) => format!(
                "it says {} edges, and its lines have {} neighbours instead of twice as many",
                head.edges, self.entries
            ),
            Some(head) => return Ok((self.edges.finish(), head.vertices)),
        };
        Err((self.lines, problem))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let Some(head) = self.head else {
            if !line.is_empty() {
                let read = head(line)?;
                self.edges = Spreader::new(read.vertices);
                self.head = Some(read);
                if W::SOME && !self.head.is_some_and(|head| head.weighted) {
                    return Err("its edges have no weights".into());
                }
            }
            return Ok(());
        };
        if self.row == head.vertices {
            return match line.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "a line after those of its {} vertices",
                    head.vertices
                )),
            };
        }
        self.row += 1;
        let mut words = line
            .split(|&byte| byte == b' ' || byte == b'\t')
            .filter(|word| !word.is_empty());
        for _ in 0..head.before {
            words
                .next()
                .and_then(whole)
                .ok_or("the vertex's size or weight is missing")?;
        }
        while let Some(word) = words.next() {
            let neighbour = whole(word).filter(|id| (1..=head.vertices).contains(id));
            let neighbour = neighbour.ok_or_else(|| {
                let word = excerpt(word);
                format!("{word} is no vertex; they are 1 to {}", head.vertices)
            })?;
            let mut weight = W::default();
            if head.weighted {
                let value = words.next().and_then(number);
                weight = W::of(value.ok_or("an edge's weight is missing or no number")?);
            }
            self.entries += 1;
            if self.drop_loops && self.row == neighbour {
                self.dropped += 1;
                continue;
            }
            self.edges.push(self.row, neighbour, weight);
        }
        Ok(())
    }
}

fn head(line: &[u8]) -> Result<Head, String> {
    let wrong = "expected the numbers of vertices and edges, and perhaps a format of three digits and a number of weights";
    let text = std::str::from_utf8(line).map_err(|_| wrong)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let count = |word: &str| word.parse::<u64>().map_err(|_| wrong.to_owned());
    let (vertices, edges, rest) = match words[..] {
        [vertices, edges, ref rest @ ..] if rest.len() <= 2 => {
            (count(vertices)?, count(edges)?, rest)
        }
        _ => return Err(wrong.into()),
    };
    let format = rest.first().copied().unwrap_or("0");
    if format.len() > 3 || format.bytes().any(|digit| !matches!(digit, b'0' | b'1')) {
        return Err(format!(
            "no format is named {format:?}; it has three digits, each 0 or 1"
        ));
    }
    let has = |place: usize| format.bytes().rev().nth(place) == Some(b'1');
    let weights = match rest.get(1) {
        Some(word) => count(word)?,
        None => u64::from(has(1)),
    };
    if weights > 0 && !has(1) {
        return Err(format!(
            "format {format:?} has no weights of vertices, and {weights} are announced"
        ));
    }
    // Of weights that there are there is at least one.
    let weights = if has(1) { weights.max(1) } else { 0 };
    Ok(Head {
        vertices,
        edges,
        before: weights.min(1 << 20) as usize + usize::from(has(2)),
        weighted: has(0),
    })
}

fn whole(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found<W> = (Vec<(u64, u64, W)>, u64);

    fn read<W: Weight>(text: &str) -> Result<Found<W>, (u64, String)> {
        let mut reader = MetisText::new(false);
        reader.take(text.as_bytes())?;
        let (edges, vertices) = reader.finish()?;
        Ok((edges.iter().collect(), vertices))
    }

    #[test]
    fn each_line_is_a_vertex_with_its_neighbours() {
        let (edges, vertices) = read::<()>("% c\n3 2\n2\n1 3\n% d\n2\n").unwrap();
        let mut edges = edges;
        edges.sort_unstable();
        assert_eq!(edges, [(1, 2, ()), (2, 1, ()), (2, 3, ()), (3, 2, ())]);
        assert_eq!(vertices, 3);
        assert_eq!(read::<()>("2 0\n\n\n").unwrap(), (vec![], 2));
    }

    #[test]
    fn sizes_and_weights_are_told_from_neighbours() {
        let text = "2 1 111 2\n9 8 7 2 0.5\n9 8 7 1 0.5\n";
        assert_eq!(read::<f64>(text).unwrap().0, [(2, 1, 0.5), (1, 2, 0.5)]);
        assert_eq!(read::<()>("2 1 10\n5 2\n5 1\n").unwrap().0.len(), 2);
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let refusal = |text| read::<()>(text).unwrap_err();
        assert!(refusal("").1.contains("missing"));
        assert_eq!(refusal("x y\n").0, 1);
        assert!(refusal("3 1\n2\n1\n").1.contains("3 vertices"));
        assert!(refusal("2 2\n2\n1\n").1.contains("2 edges"));
        assert!(
            refusal("1 9223372036854775808\n\n")
                .1
                .contains("9223372036854775808 edges")
        );
        assert!(
            refusal("2 1 001 1\n2 5\n1 5\n")
                .1
                .contains("no weights of vertices")
        );
        assert!(refusal("2 1\n3\n").1.contains("\"3\" is no vertex"));
        assert_eq!(refusal("2 1\n2\n1\n1\n").0, 4);
        assert!(
            read::<f64>("2 1\n2\n1\n")
                .unwrap_err()
                .1
                .contains("no weights")
        );
    }
}
