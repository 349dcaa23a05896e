//! A partition from a file.

use std::path::Path;

use super::error::excerpt;
use super::partition::check_parts;
use super::snap::trimmed;
use super::text::{Block, Text};
use super::{Graph, GraphError, Partition};

/// Takes a partition that was made elsewhere, as METIS and others write them (`GRAPH.part.K`): a line for each vertex, in
/// the order of rising ids, with the number of its part, from 0.
///
/// # Errors
///
/// Those of [`Text::open`] and [`check_parts`]; [`GraphError::Line`] for a line that is no part, and for too few or too many;
/// [`GraphError::Parts`] when a part has no vertex.
pub fn import(graph: &Graph, parts: u32, file: &Path) -> Result<Partition, GraphError> {
    check_parts(graph, parts)?;
    let text = Text::open(file)?;
    let (mut block, mut of, mut lines, mut blank) = (Block::default(), Vec::new(), 0, 0);
    let refused = |line: usize, problem: String| GraphError::Line {
        name: text.name().to_owned(),
        line: line as u64,
        problem,
    };
    while text
        .next(&mut block)
        .map_err(|error| text.failure(error, lines))?
    {
        for line in block.text().split_inclusive(|&byte| byte == b'\n') {
            lines += 1;
            // Blank lines may stand at the end.
            if trimmed(line).is_empty() {
                blank += 1;
                continue;
            }
            if blank > 0 {
                return Err(refused(of.len() + 1, "the line is blank".into()));
            }
            let word = std::str::from_utf8(trimmed(line)).unwrap_or_default();
            let part = word.parse().ok().filter(|&part: &u32| part < parts);
            of.push(part.ok_or_else(|| {
                let word = excerpt(trimmed(line));
                let range = format!("parts are 0 to {}", parts - 1);
                refused(of.len() + 1, format!("{word} is no part; {range}"))
            })?);
        }
    }
    if of.len() != graph.ids.len() {
        let (found, due) = (of.len(), graph.ids.len());
        let problem = format!("it has {found} lines, and the graph {due} vertices");
        return Err(refused(found.max(1), problem));
    }
    let mut is_used = vec![false; parts as usize];
    of.iter().for_each(|&part| is_used[part as usize] = true);
    if let Some(empty) = is_used.iter().position(|used| !used) {
        let name = text.name();
        let problem = format!(
            "{name} puts no vertex into part {empty} of {parts}; give --parts as many as it has"
        );
        return Err(GraphError::Parts { problem });
    }
    Ok(Partition::new(parts, of))
}
