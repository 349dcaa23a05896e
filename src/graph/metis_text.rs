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
    /// Neighbours so far, loops among them.
    entries: u64,
    loops: u64,
    drop_loops: bool,
}

#[derive(Clone, Copy)]
struct Head {
    vertices: u64,
    edges: u64,
    /// Numbers before the first neighbour.
    before: usize,
    weighted: bool,
}

/// What a whole file holds.
pub struct MetisGraph<W> {
    /// Its edges, each in both directions.
    pub edges: Edges<W>,
    /// Its vertices, which are 1 to this.
    pub vertices: u64,
    /// Edges from a vertex to itself that were dropped.
    pub dropped_loops: u64,
    /// What it has that was not read, in words.
    pub ignored: Vec<String>,
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
            loops: 0,
            drop_loops,
        }
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

    /// The graph.
    ///
    /// # Errors
    ///
    /// The last line, and what is missing.
    pub fn finish(self) -> Result<MetisGraph<W>, (u64, String)> {
        let lines = self.lines;
        let refused = |problem: String| Err((lines, problem));
        let Some(head) = self.head else {
            return refused("the line with the numbers of vertices and edges is missing".into());
        };
        if self.row < head.vertices {
            return refused(format!(
                "it says {} vertices, and has a line for {}",
                head.vertices, self.row
            ));
        }
        if let Some(problem) = self.miscount(head) {
            return refused(problem);
        }
        let mut ignored = Vec::new();
        if head.before > 0 {
            ignored.push("weights of vertices".to_owned());
        }
        if head.weighted && !W::SOME {
            ignored.push("weights of edges".to_owned());
        }
        Ok(MetisGraph {
            edges: self.edges.finish(),
            vertices: head.vertices,
            dropped_loops: if self.drop_loops { self.loops } else { 0 },
            ignored,
        })
    }

    /// What is wrong with the number of neighbours. The format has no loops, so programs that write them differ: a loop may
    /// stand once in its line and count as an edge, as half of one or as none.
    fn miscount(&self, head: Head) -> Option<String> {
        let (edges, entries, loops) = (head.edges, self.entries, self.loops);
        let Some(due) = edges.checked_mul(2) else {
            return Some(format!(
                "it says {edges} edges, and its lines have {entries} neighbours"
            ));
        };
        if due == entries {
            return None;
        }
        let fits_without_loops = due == entries + loops || due == entries - loops;
        match (loops > 0 && fits_without_loops, self.drop_loops) {
            (true, true) => None,
            (true, false) => Some(format!(
                "{loops} of its lines' neighbours are the line's own vertex, and METIS files have no such loops; \
                 --drop-loops reads the graph without them"
            )),
            _ if edges == entries => Some(format!(
                "it says {edges} edges, and its lines have {entries} neighbours instead of twice as many: its edges stand with \
                 one of their ends, and METIS files have them with both; \
                 if its lines are the lists of a directed graph, write an edge list"
            )),
            _ => Some(format!(
                "it says {edges} edges, and its lines have {entries} neighbours instead of twice as many"
            )),
        }
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
            if self.row == neighbour {
                self.loops += 1;
                if self.drop_loops {
                    continue;
                }
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
        let graph = read_graph(text, false)?;
        Ok((graph.edges.iter().collect(), graph.vertices))
    }

    fn read_graph<W: Weight>(text: &str, drop_loops: bool) -> Result<MetisGraph<W>, (u64, String)> {
        let mut reader = MetisText::new(drop_loops);
        reader.take(text.as_bytes())?;
        reader.finish()
    }

    #[test]
    fn loops_may_be_counted_as_they_like_when_they_are_dropped() {
        // The path 1 - 2 - 3 with a loop at 1, which is listed once and counts as an edge, as none, and listed twice.
        for text in [
            "3 3\n1 2\n1 3\n2\n",
            "3 2\n1 2\n1 3\n2\n",
            "3 3\n1 1 2\n1 3\n2\n",
        ] {
            let graph = read_graph::<()>(text, true).ok().unwrap();
            assert_eq!((graph.edges.len(), graph.vertices), (4, 3), "{text}");
            assert!(graph.dropped_loops > 0);
        }
        let (_, problem) = read::<()>("3 3\n1 2\n1 3\n2\n").unwrap_err();
        assert!(problem.contains("--drop-loops"), "{problem}");
        assert_eq!(read::<()>("3 3\n1 1 2\n1 3\n2\n").unwrap().0.len(), 6);
        let (_, problem) = read_graph::<()>("3 5\n1 2\n1 3\n2\n", true).err().unwrap();
        assert!(problem.contains("5 edges"), "{problem}");
    }

    #[test]
    fn edges_with_one_end_and_weights_that_are_not_read_are_named() {
        let (_, problem) = read::<()>("3 2\n2\n3\n\n").unwrap_err();
        assert!(problem.contains("one of their ends"), "{problem}");
        let graph = read_graph::<()>("2 1 011\n9 2 5\n9 1 5\n", false)
            .ok()
            .unwrap();
        assert_eq!(graph.ignored, ["weights of vertices", "weights of edges"]);
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
