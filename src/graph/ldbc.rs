//! `NAME.properties` beside `NAME.e`, as the archives of LDBC Graphalytics have it (ldbc/ldbc_graphalytics, the class
//! `GraphSetLoader`): what the lines of the edge list are, and how many of them there are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::GraphError;
use super::columns::{ColumnChoice, ColumnRequest};
use super::header;
use super::reading::Reading;

/// The longest file that is read, in bytes. They have some dozen lines.
const LENGTH_MAX: u64 = 1 << 20;

/// What such a file says about a graph; what it does not say is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// The file's name, for messages.
    pub name: String,
    /// Each line is an edge with a direction.
    pub directed: Option<bool>,
    /// Vertices in the vertex list.
    pub vertices: Option<u64>,
    /// Lines of the edge list.
    pub edges: Option<u64>,
    /// Names of the columns behind the ids.
    pub columns: Option<Vec<String>>,
}

impl Properties {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`GraphError::Read`]; [`GraphError::Line`] for a value that is none, [`GraphError::Claim`] for a file that is no such.
    pub fn read(path: &Path) -> Result<Properties, GraphError> {
        let failed = |cause| GraphError::Read {
            name: path.display().to_string(),
            cause,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(LENGTH_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > LENGTH_MAX {
            return Err(GraphError::Claim {
                name: path.display().to_string(),
                problem: format!(
                    "it is longer than {LENGTH_MAX} bytes, and no properties of a graph"
                ),
            });
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        let mut properties =
            Properties::parse(&String::from_utf8_lossy(&bytes)).map_err(|(line, problem)| {
                GraphError::Line {
                    name: path.display().to_string(),
                    line,
                    problem,
                }
            })?;
        properties.name = name.to_string_lossy().into_owned();
        Ok(properties)
    }

    /// What a text says. Keys are `graph.NAME.KEY`, whatever the name is; others are of no concern here.
    fn parse(text: &str) -> Result<Properties, (u64, String)> {
        let mut properties = Properties::default();
        for (line, key, value) in entries(text) {
            let Some(key) = key.strip_prefix("graph.") else {
                continue;
            };
            // A graph's name may have dots in it.
            let is = |name: &str| {
                key.strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'))
            };
            let count = |value: &str| {
                let problem = || (line, format!("{value:?} is no number of vertices or edges"));
                value.parse().map_err(|_| problem()).map(Some)
            };
            if is("meta.vertices") {
                properties.vertices = count(&value)?;
            } else if is("meta.edges") {
                properties.edges = count(&value)?;
            } else if is("edge-properties.names") {
                let names = value.split(',').map(|name| name.trim().to_owned());
                properties.columns = Some(names.filter(|name| !name.is_empty()).collect());
            } else if is("directed") {
                properties.directed = match value.to_lowercase().as_str() {
                    "true" => Some(true),
                    "false" => Some(false),
                    _ => {
                        return Err((
                            line,
                            format!("directed is {value:?}, and must be true or false"),
                        ));
                    }
                };
            }
        }
        Ok(properties)
    }

    /// The column of the weight, as the user asks for it or the file names it; none for the first one behind the ids.
    ///
    /// # Errors
    ///
    /// [`GraphError::Claim`] when weights are read and the file names none, or several without saying which.
    pub fn weight_column(&self, reading: &Reading) -> Result<Option<ColumnChoice>, GraphError> {
        let asked = &reading.columns.weight;
        let (Some(columns), true, None) = (&self.columns, reading.weights, asked) else {
            return Ok(asked.clone());
        };
        let refused = |problem: String| GraphError::Claim {
            name: self.name.clone(),
            problem,
        };
        if columns.is_empty() {
            let problem =
                "it names no properties of edges, so the graph cannot be read with weights";
            return Err(refused(problem.into()));
        }
        if columns.len() == 1 {
            return Ok(None);
        }
        let ends = ["source", "target"].map(str::to_owned);
        let names: Vec<String> = ends.into_iter().chain(columns.iter().cloned()).collect();
        let places = header::places(&names, &ColumnRequest::default(), true).map_err(refused)?;
        Ok(places.weight.map(ColumnChoice::Place))
    }

    /// Compares a number of vertices or edges with what the file says.
    ///
    /// # Errors
    ///
    /// [`GraphError::Claim`] when they differ.
    pub fn check(
        &self,
        what: &str,
        claimed: Option<u64>,
        found: u64,
        place: &str,
    ) -> Result<(), GraphError> {
        match claimed {
            Some(claimed) if claimed != found => Err(GraphError::Claim {
                name: self.name.clone(),
                problem: format!(
                    "it says {claimed} {what}, and {place} has {found}; the files do not belong together, or one is not whole"
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// The entries of a file of Java properties: the line's number, the key and the value. A line may be continued by `\` at its end.
fn entries(text: &str) -> Vec<(u64, String, String)> {
    let mut entries = Vec::new();
    let mut lines = text.lines().zip(1u64..);
    while let Some((line, number)) = lines.next() {
        let mut whole = line.trim().to_owned();
        if whole.is_empty() || whole.starts_with(['#', '!']) {
            continue;
        }
        while let Some(begun) = whole.strip_suffix('\\') {
            whole = begun.to_owned() + lines.next().map_or("", |(line, _)| line.trim());
        }
        let end =
            whole.find(|letter: char| letter == '=' || letter == ':' || letter.is_whitespace());
        let (key, value) = whole.split_at(end.unwrap_or(whole.len()));
        let value = value.trim_start();
        let value = value.strip_prefix(['=', ':']).unwrap_or(value).trim();
        entries.push((number, key.to_owned(), value.to_owned()));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_graph_are_read_and_others_passed_over() {
        let text = "# Properties of a graph\n! too\n\ngraph.a.b.vertex-file = a.b.v\ngraph.a.b.meta.vertices=5\n\
            graph.a.b.meta.edges : 3\ngraph.a.b.directed = FALSE\ngraph.a.b.edge-properties.names = weight, \\\n  time\n\
            graph.a.b.bfs.source-vertex = 1\nother.directed = true\n";
        let properties = Properties::parse(text).unwrap();
        assert_eq!((properties.vertices, properties.edges), (Some(5), Some(3)));
        assert_eq!(properties.directed, Some(false));
        assert_eq!(
            properties.columns,
            Some(vec!["weight".to_owned(), "time".to_owned()])
        );
        assert_eq!(Properties::parse("").unwrap(), Properties::default());
    }

    #[test]
    fn a_value_that_is_none_is_refused_with_its_line() {
        let (line, problem) = Properties::parse("\ngraph.g.directed = maybe\n").unwrap_err();
        assert!(line == 2 && problem.contains("\"maybe\""), "{problem}");
        let (line, problem) = Properties::parse("graph.g.meta.edges = 3.5").unwrap_err();
        assert!(line == 1 && problem.contains("\"3.5\""), "{problem}");
    }

    #[test]
    fn the_weight_is_among_the_properties_of_edges() {
        let weight = |names: &[&str]| {
            let properties = Properties {
                columns: Some(names.iter().map(|&name| name.to_owned()).collect()),
                ..Properties::default()
            };
            let reading = Reading {
                weights: true,
                ..Reading::default()
            };
            properties.weight_column(&reading)
        };
        assert_eq!(weight(&["anything"]).unwrap(), None);
        let second = Some(ColumnChoice::Place(3));
        assert_eq!(weight(&["time", "weight"]).unwrap(), second);
        for names in [&[][..], &["x", "y"]] {
            assert!(weight(names).is_err(), "{names:?}");
        }
    }

    #[test]
    fn counts_that_differ_are_named() {
        let properties = Properties {
            name: "g.properties".into(),
            ..Properties::default()
        };
        let check = |claimed| properties.check("edges", claimed, 3, "g.e");
        assert!(check(None).is_ok() && check(Some(3)).is_ok());
        assert_eq!(
            check(Some(4)).unwrap_err().to_string(),
            "g.properties: it says 4 edges, and g.e has 3; the files do not belong together, or one is not whole"
        );
    }
}
