//! What a file says about its whole graph, compared with the graph.
//!
//! A count that a format defines is checked: a graph that is not whole looks like any other. A count in a comment is only worth
//! a hint, since comments are copied along.

use super::konect::Konect;
use super::{Graph, GraphError};

/// What the text of an edge list says beside its edges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims {
    /// KONECT's first lines.
    pub konect: Option<Konect>,
    /// A comment says that the graph is undirected.
    pub says_undirected: bool,
    /// Vertices and edges, as a comment counts them.
    pub counts: Option<(u64, u64)>,
}

impl Claims {
    /// Compares them with the graph of a text that has so many lines of edges. `is_decided`: the user, or the format, says
    /// whether edges have directions.
    ///
    /// # Errors
    ///
    /// [`GraphError::Line`] when the graph cannot be the one that the file speaks of.
    pub fn check(
        &self,
        name: &str,
        graph: &Graph,
        lines: u64,
        is_decided: bool,
    ) -> Result<Vec<String>, GraphError> {
        let mut hints = Vec::new();
        let vertices = graph.vertices();
        if let Some(konect) = self.konect {
            let largest = graph.ids.last().copied().unwrap_or_default();
            konect
                .check_vertices(vertices, largest)
                .map_err(|(line, problem)| GraphError::Line {
                    name: name.to_owned(),
                    line,
                    problem,
                })?;
            hints.extend(konect.hint(vertices, lines, is_decided));
        }
        if self.says_undirected && !is_decided && !graph.symmetric {
            hints.push(
                "a comment says that the graph is undirected, and its edges stand with one direction each; \
                 --undirected reads each line both ways, --directed keeps them as they are"
                    .into(),
            );
        }
        if let Some((nodes, edges)) = self.counts {
            // Lines count: a reader may have dropped or doubled edges, as the user asked.
            let found = [(nodes, vertices, "nodes"), (edges, lines, "edges")];
            for (said, found, what) in found.into_iter().filter(|(said, found, _)| said != found) {
                hints.push(format!(
                    "a comment says {said} {what}, and {found} were read; the file may not be whole, or have been changed"
                ));
            }
        }
        Ok(hints)
    }
}

/// That every edge of a METIS file stands with both of its ends.
///
/// # Errors
///
/// [`GraphError::Claim`] with the first edge that does not.
pub fn check_both_ends(name: &str, graph: &Graph) -> Result<(), GraphError> {
    if graph.symmetric {
        return Ok(());
    }
    let times = |source: u32, target: u32| {
        let sources = graph.sources_of(target as usize);
        let start = sources.partition_point(|&other| other < source);
        sources[start..].partition_point(|&other| other == source)
    };
    for target in 0..graph.vertices() as u32 {
        for &source in graph.sources_of(target as usize) {
            if times(source, target) > times(target, source) {
                let (source, target) = (graph.ids[source as usize], graph.ids[target as usize]);
                return Err(GraphError::Claim {
                    name: name.to_owned(),
                    problem: format!(
                        "the line of vertex {source} has {target}, and the line of {target} does not have {source} as often; \
                         METIS files have each edge with both of its ends"
                    ),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(u64, u64)]) -> Graph {
        Graph::from_edges(edges).unwrap()
    }

    fn konect(first: &str, second: &str) -> Option<Konect> {
        let mut konect = Konect::of_first_line(first.as_bytes()).unwrap();
        konect.take_second_line(second.as_bytes(), 2);
        Some(konect)
    }

    #[test]
    fn a_comment_that_differs_is_a_hint() {
        let claims = Claims {
            says_undirected: true,
            counts: Some((4, 2)),
            ..Claims::default()
        };
        let path = graph(&[(1, 2), (2, 3)]);
        let hints = claims.check("g", &path, 2, false).unwrap();
        assert!(hints[0].contains("--undirected") && hints[1].contains("4 nodes, and 3"));
        assert_eq!(hints.len(), 2);
        assert_eq!(claims.check("g", &path, 2, true).unwrap().len(), 1);
        let both = graph(&[(1, 2), (2, 1), (3, 4), (4, 3)]);
        assert!(claims.check("g", &both, 2, false).unwrap().is_empty());
    }

    #[test]
    fn a_count_of_the_format_that_cannot_be_is_refused() {
        let claims = |second| Claims {
            konect: konect("% asym unweighted", second),
            ..Claims::default()
        };
        let path = graph(&[(1, 2), (2, 3)]);
        assert!(
            claims("% 2 3 3")
                .check("g", &path, 2, true)
                .unwrap()
                .is_empty()
        );
        let hints = claims("% 2 5 5").check("g", &path, 2, true).unwrap();
        assert!(hints[0].contains("5 vertices"), "{hints:?}");
        let error = claims("% 2 2 2").check("g", &path, 2, true).unwrap_err();
        assert_eq!(error.to_string(), "g:2: it says 2 vertices, and has 3");
    }

    #[test]
    fn an_edge_with_one_end_is_named() {
        assert!(check_both_ends("g", &graph(&[(1, 2), (2, 1), (3, 3)])).is_ok());
        let error = check_both_ends("g", &graph(&[(1, 2), (2, 3), (3, 2)])).unwrap_err();
        assert!(error.to_string().contains("vertex 1 has 2"), "{error}");
        let error = check_both_ends("g", &graph(&[(1, 2), (2, 1), (1, 2)])).unwrap_err();
        assert!(error.to_string().contains("as often"), "{error}");
    }
}
