//! Where a personalised PageRank restarts: a probability for each of some vertices (T. Haveliwala, "Topic-Sensitive PageRank",
//! 2002). As text it is a line `vertex` or `vertex weight` for each of them; a vertex that is not named has probability 0.

use std::collections::BTreeMap;

use super::GraphError;

/// Bytes of one vertex in [`Restart::to_bytes`].
const ENTRY_BYTES: usize = 16;

/// The vertices at which a random walk restarts, and how likely it is at each.
#[derive(Debug, Clone, PartialEq)]
pub struct Restart {
    /// Ids, ascending, and probabilities, which add up to 1.
    probabilities: Vec<(u64, f64)>,
}

impl Restart {
    /// Reads a text, which messages call `name`: one vertex a line, with a weight or without (1). Columns are separated by blanks,
    /// a comma or a semicolon; lines that are empty or begin with `#` or `%` are skipped. Weights are divided by their sum.
    ///
    /// # Errors
    ///
    /// [`GraphError::Line`] for a line that is none of these, a weight that is negative or not finite, or a vertex that is named
    /// twice; [`GraphError::NoRestart`] when no vertex has a weight above 0.
    pub fn parse(text: &[u8], name: &str) -> Result<Restart, GraphError> {
        let mut weights: BTreeMap<u64, f64> = BTreeMap::new();
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
            let refused = |problem: String| GraphError::Line {
                name: name.to_owned(),
                line: number,
                problem,
            };
            let line = line
                .strip_prefix(b"\xef\xbb\xbf")
                .unwrap_or(line)
                .trim_ascii();
            if line.is_empty() || matches!(line[0], b'#' | b'%') {
                continue;
            }
            let (vertex, weight) = parse_line(line).ok_or_else(|| {
                let shown = String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
                refused(format!(
                    "expected a vertex id and perhaps a weight, found {shown:?}"
                ))
            })?;
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(refused(format!(
                    "the weight of vertex {vertex} is {weight}, and must be a finite number, not below 0"
                )));
            }
            if weights.insert(vertex, weight).is_some() {
                return Err(refused(format!("vertex {vertex} is named twice")));
            }
        }
        let sum: f64 = weights.values().sum();
        // A sum above what an f64 holds would make all probabilities 0.
        if !(sum > 0.0 && sum.is_finite()) {
            let name = name.to_owned();
            return Err(GraphError::NoRestart { name, sum });
        }
        let probabilities = weights.into_iter();
        Ok(Restart {
            probabilities: probabilities
                .map(|(id, weight)| (id, weight / sum))
                .collect(),
        })
    }

    /// The form in which workers get it: for each vertex a u64 and an f64, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.probabilities.len() * ENTRY_BYTES);
        for (id, probability) in &self.probabilities {
            bytes.extend(id.to_le_bytes());
            bytes.extend(probability.to_le_bytes());
        }
        bytes
    }

    /// The inverse of [`Restart::to_bytes`]; `None` for bytes that are none of these.
    pub fn from_bytes(bytes: &[u8]) -> Option<Restart> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let entry = |entry: &[u8; ENTRY_BYTES]| {
            let (id, probability) = entry.split_at(8);
            let id = u64::from_le_bytes(id.try_into().ok()?);
            let probability = f64::from_le_bytes(probability.try_into().ok()?);
            (0.0..=1.0)
                .contains(&probability)
                .then_some((id, probability))
        };
        let probabilities: Vec<(u64, f64)> = entries.iter().map(entry).collect::<Option<_>>()?;
        let is_whole = rest.is_empty() && probabilities.is_sorted_by(|a, b| a.0 < b.0);
        is_whole.then_some(Restart { probabilities })
    }

    /// The number of vertices that are named.
    pub fn len(&self) -> usize {
        self.probabilities.len()
    }

    /// True if no vertex is named, which no parsed one is.
    pub fn is_empty(&self) -> bool {
        self.probabilities.is_empty()
    }

    /// The ids that are named, ascending.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.probabilities.iter().map(|(id, _)| *id)
    }

    /// How likely a restart is at a vertex.
    pub fn probability(&self, id: u64) -> f64 {
        let place = self
            .probabilities
            .binary_search_by_key(&id, |entry| entry.0);
        place.map_or(0.0, |place| self.probabilities[place].1)
    }
}

/// The vertex and the weight of a line that is not empty.
fn parse_line(line: &[u8]) -> Option<(u64, f64)> {
    let is_separator = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b';');
    let text = std::str::from_utf8(line).ok()?;
    let end = line.iter().position(is_separator).unwrap_or(line.len());
    let vertex = text[..end].parse().ok()?;
    let weight = text[end..].trim();
    let weight = weight.strip_prefix([',', ';']).unwrap_or(weight).trim();
    match weight {
        "" => Some((vertex, 1.0)),
        weight => Some((vertex, weight.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_divided_by_their_sum() {
        let text = b"# two vertices\n7 3\n\n5,1\r\n";
        let restart = Restart::parse(text, "r").unwrap();
        assert_eq!(restart.probabilities, [(5, 0.25), (7, 0.75)]);
        assert_eq!(
            [restart.probability(7), restart.probability(6)],
            [0.75, 0.0]
        );
        assert_eq!(Restart::from_bytes(&restart.to_bytes()), Some(restart));
        let plain = Restart::parse(b"1\n2", "r").unwrap();
        assert_eq!(plain.probabilities, [(1, 0.5), (2, 0.5)]);
    }

    #[test]
    fn lines_that_name_no_vertex_are_refused_with_their_number() {
        let refusal = |text: &str| {
            Restart::parse(text.as_bytes(), "r.txt")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refusal("1\nx 2\n"),
            "r.txt:2: expected a vertex id and perhaps a weight, found \"x 2\""
        );
        assert!(refusal("1 2 3\n").starts_with("r.txt:1: expected a vertex id"));
        assert!(refusal("1 -1\n").contains("the weight of vertex 1 is -1"));
        assert!(refusal("1 inf\n").contains("must be a finite number"));
        assert_eq!(refusal("1\n2\n1\n"), "r.txt:3: vertex 1 is named twice");
        assert!(refusal("# nothing\n").starts_with("r.txt: no vertex has a weight above 0"));
        assert!(refusal("1 0\n").starts_with("r.txt: no vertex has a weight above 0"));
    }

    #[test]
    fn bytes_that_are_no_restart_are_refused() {
        let bytes = Restart::parse(b"1\n2", "r").unwrap().to_bytes();
        assert_eq!(Restart::from_bytes(&bytes[1..]), None);
        let swapped = [&bytes[16..], &bytes[..16]].concat();
        assert_eq!(Restart::from_bytes(&swapped), None);
    }
}
