//! The first lines of KONECT's `out.*` files (J. Kunegis, "Handbook of Network Analysis: The KONECT Project", 2017):
//! `% FORMAT WEIGHTS`, then `% EDGES LEFT RIGHT` with the counts, of which the first line may stand alone.

use super::columns::Sides;

/// What the edges of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each line is an edge without direction.
    Sym,
    /// Each line is an edge with a direction.
    Asym,
    /// Ids in the two columns are of different vertices.
    Bip,
}

impl Kind {
    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sym => "sym",
            Kind::Asym => "asym",
            Kind::Bip => "bip",
        }
    }
}

/// What the first lines say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Konect {
    /// What edges are.
    pub kind: Kind,
    /// An edge may stand for several, so that lines are fewer than edges.
    pub is_multiple: bool,
    /// The second line.
    pub counts: Option<Counts>,
}

/// What a file holds, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The number of the line that says it.
    pub line: u64,
    /// Edges.
    pub edges: u64,
    /// Vertices, or those on the left, and those on the right.
    pub vertices: Option<(u64, u64)>,
}

/// KONECT's words for what weights are; those that say that edges repeat.
const SINGLE: [&str; 5] = [
    "unweighted",
    "weighted",
    "posweighted",
    "signed",
    "interval",
];
const MULTIPLE: [&str; 6] = [
    "positive",
    "multi",
    "multiweighted",
    "multisigned",
    "multiposweighted",
    "dynamic",
];

impl Konect {
    /// What the first line of a file says, if it is one of KONECT's.
    pub fn of_first_line(line: &[u8]) -> Option<Konect> {
        let text = std::str::from_utf8(line.strip_prefix(b"%")?).ok()?;
        let mut words = text.split_whitespace();
        let kind = match words.next()? {
            "sym" => Kind::Sym,
            "asym" => Kind::Asym,
            "bip" => Kind::Bip,
            _ => return None,
        };
        let is_multiple = match words.next() {
            None => false,
            Some(word) if SINGLE.contains(&word) => false,
            Some(word) if MULTIPLE.contains(&word) => true,
            // A comment that happens to begin so.
            Some(_) => return None,
        };
        words.next().is_none().then_some(Konect {
            kind,
            is_multiple,
            counts: None,
        })
    }

    /// Takes the second line, which has the number `number` in the file, if it is one of counts.
    pub fn take_second_line(&mut self, line: &[u8], number: u64) {
        let numbers = || -> Option<Vec<u64>> {
            let text = std::str::from_utf8(line.strip_prefix(b"%")?).ok()?;
            text.split_whitespace()
                .map(|word| word.parse().ok())
                .collect()
        };
        self.counts = match numbers().as_deref() {
            Some([edges]) => Some((*edges, None)),
            Some([edges, left, right]) => Some((*edges, Some((*left, *right)))),
            _ => None,
        }
        .map(|(edges, vertices)| Counts {
            line: number,
            edges,
            vertices,
        });
    }

    /// The two id spaces of a bipartite graph.
    ///
    /// # Errors
    ///
    /// When it does not say how large they are.
    pub fn sides(&self) -> Result<Option<Sides>, String> {
        if self.kind != Kind::Bip {
            return Ok(None);
        }
        match self.counts.and_then(|counts| counts.vertices) {
            Some((left, right)) => Ok(Some(Sides { left, right })),
            None => Err(
                "the graph is bipartite (\"% bip\"), so that the same number is another vertex on the right, and no line \
                 \"% EDGES LEFT RIGHT\" says how many there are on the left; add it, or renumber the right column and remove this line"
                    .into(),
            ),
        }
    }

    /// Compares the number of lines with what the file says.
    ///
    /// # Errors
    ///
    /// The line that says otherwise, and the problem. Of graphs with multiple edges nothing is known.
    pub fn check_edges(&self, found: u64) -> Result<(), (u64, String)> {
        match self.counts {
            Some(Counts { line, edges, .. }) if edges != found && !self.is_multiple => {
                Err((line, format!("it says {edges} edges, and has {found}")))
            }
            _ => Ok(()),
        }
    }

    /// Compares the vertices, which count from 1 or from 0, with what the file says. For graphs that are not bipartite.
    ///
    /// # Errors
    ///
    /// The line that says otherwise, and the problem.
    pub fn check_vertices(&self, found: u64, largest: u64) -> Result<(), (u64, String)> {
        match self.counts {
            Some(Counts {
                line,
                vertices: Some((left, right)),
                ..
            }) if self.kind != Kind::Bip => {
                let declared = left.max(right);
                if found > declared {
                    return Err((
                        line,
                        format!("it says {declared} vertices, and has {found}"),
                    ));
                }
                if largest > declared {
                    let problem = format!("it says {declared} vertices, and has an id {largest}");
                    return Err((line, problem));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Konect {
    /// What a user may have expected otherwise.
    pub fn hint(&self, vertices: u64, lines: u64, is_decided: bool) -> Vec<String> {
        let mut hints = Vec::new();
        if let Some(Counts {
            edges,
            vertices: claimed,
            ..
        }) = self.counts
        {
            let claimed = claimed.map(|(left, right)| match self.kind {
                Kind::Bip => left.saturating_add(right),
                _ => left.max(right),
            });
            if let Some(claimed) = claimed.filter(|&claimed| claimed > vertices) {
                hints.push(format!(
                    "the head says {claimed} vertices, and {vertices} are in edges; the others are not in the graph"
                ));
            }
            if edges != lines {
                hints.push(format!(
                    "the head says {edges} edges, some of them multiple, in {lines} lines"
                ));
            }
        }
        if self.kind == Kind::Bip && !is_decided {
            hints.push(
                "the graph is bipartite, and its edges go from the left to the right; --undirected reads each line both ways".into(),
            );
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn konect(first: &str, second: &str) -> Konect {
        let mut konect = Konect::of_first_line(first.as_bytes()).unwrap();
        konect.take_second_line(second.as_bytes(), 2);
        konect
    }

    #[test]
    fn the_first_lines_say_what_edges_are_and_how_many() {
        let bipartite = konect("% bip unweighted", "% 3 3 2");
        let sides = Sides { left: 3, right: 2 };
        assert_eq!(bipartite.sides(), Ok(Some(sides)));
        assert!(bipartite.check_edges(3).is_ok());
        assert_eq!(
            bipartite.check_edges(2),
            Err((2, "it says 3 edges, and has 2".into()))
        );
        assert_eq!(konect("%\tsym posweighted", "").counts, None);
        assert!(konect("% sym", "% 9").check_edges(8).is_err());
        assert!(konect("% asym positive", "% 9 4 4").check_edges(8).is_ok());
        assert!(
            konect("% bip", "% 9")
                .sides()
                .unwrap_err()
                .contains("LEFT RIGHT")
        );
    }

    #[test]
    fn more_vertices_than_it_says_are_a_problem() {
        let four = konect("% sym unweighted", "% 3 4 4");
        assert!(four.check_vertices(4, 4).is_ok() && four.check_vertices(2, 4).is_ok());
        assert!(four.check_vertices(4, 3).is_ok(), "they may count from 0");
        assert!(four.check_vertices(5, 4).is_err() && four.check_vertices(2, 9).is_err());
    }

    #[test]
    fn other_comments_are_no_first_line() {
        for line in [
            "% symmetric",
            "# sym",
            "% sym is a word",
            "sym",
            "%",
            "% asym unweighted x",
        ] {
            assert_eq!(Konect::of_first_line(line.as_bytes()), None, "{line}");
        }
    }
}
