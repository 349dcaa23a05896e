//! A header row: which columns its names mean.
//!
//! Names are compared without case, blanks and punctuation, and without words such as "node" and "id" around them, so that
//! `Source`, `source_id` and `FromNodeId` are known. A header whose names leave a doubt is refused, since a graph of the wrong
//! columns looks like any other.

use super::columns::{ColumnChoice, ColumnRequest, Places};

/// Pairs of names for where an edge begins and ends. The first words stand for each other: `src` may go with `to`.
const PAIRS: [(&[&str], &[&str]); 6] = [
    (
        &[
            "source", "src", "from", "start", "origin", "sender", "tailnode",
        ],
        &[
            "target",
            "dst",
            "dest",
            "destination",
            "to",
            "end",
            "sink",
            "receiver",
            "headnode",
        ],
    ),
    (&["u"], &["v"]),
    (&["i"], &["j"]),
    (&["a"], &["b"]),
    (&["1"], &["2"]),
    (&["init"], &["term"]),
];

/// Names of weights, and then those that may be one.
const WEIGHTS: [&[&str]; 2] = [
    &["weight", "weights", "w", "wt", "edgeweight"],
    &[
        "cost", "distance", "dist", "length", "len", "capacity", "value", "strength", "score",
        "rating",
    ],
];

/// Names of columns that number the rows.
const INDEXES: [&str; 9] = [
    "", "index", "idx", "id", "row", "rownames", "rowid", "edgeid", "eid",
];

/// Names of other columns that no vertex has: Gephi's, and times.
const OTHERS: [&str; 8] = [
    "type",
    "label",
    "kind",
    "timeset",
    "timestamp",
    "time",
    "date",
    "interval",
];

/// Where the columns of an edge are, by the names of the header and what the user asks for.
///
/// # Errors
///
/// What is in doubt, and how to say it.
pub fn places(names: &[String], request: &ColumnRequest, weighted: bool) -> Result<Places, String> {
    let asked = |choice: &Option<ColumnChoice>| {
        let place = choice.as_ref().map(|choice| place_of(choice, names));
        place.transpose()
    };
    let (source, target) = (asked(&request.source)?, asked(&request.target)?);
    let weight = asked(&request.weight)?;
    let (source, target) = match (source, target) {
        (Some(source), Some(target)) => (source, target),
        (None, None) => ends(names, weight)?,
        (source, target) => {
            // One end is given, so the other has to be clear by itself.
            let (ends, option) = match source {
                Some(_) => (1, "--target-column"),
                None => (0, "--source-column"),
            };
            let given = source.or(target).expect("one of them is given");
            let other = other_end(names, ends, given)
                .ok_or_else(|| format!("{}; name the other end with {option}", shown(names)))?;
            match source {
                Some(source) => (source, other),
                None => (other, target.expect("it is given")),
            }
        }
    };
    if source == target {
        return Err(format!(
            "column {} cannot be both ends of an edge; {}",
            source + 1,
            shown(names)
        ));
    }
    let weight = match (weighted, weight) {
        (false, _) => None,
        (true, Some(place)) => Some(place),
        (true, None) => Some(weight_place(names, source, target)?),
    };
    Ok(Places {
        source,
        target,
        weight,
    })
}

/// Whether names contain one pair that is known, so that a comment line with them is a header.
pub fn known_pair(names: &[String]) -> Option<(usize, usize)> {
    match &complete_pairs(names)[..] {
        [pair] => Some(*pair),
        _ => None,
    }
}

/// The place of a column that the user names.
fn place_of(choice: &ColumnChoice, names: &[String]) -> Result<usize, String> {
    match choice {
        ColumnChoice::Place(place) if *place < names.len() => Ok(*place),
        ColumnChoice::Place(place) => {
            let number = place + 1;
            Err(format!("there is no column {number}; {}", shown(names)))
        }
        ColumnChoice::Name(name) => {
            let found = |same: &dyn Fn(&str) -> bool| {
                let mut places = (0..names.len()).filter(|&place| same(&names[place]));
                (places.next(), places.next().is_none())
            };
            let exact = found(&|other| other == name);
            let loose = found(&|other| other.to_lowercase() == name.to_lowercase());
            match (exact, loose) {
                ((Some(place), true), _) | ((None, _), (Some(place), true)) => Ok(place),
                ((None, _), (None, _)) => {
                    Err(format!("no column is named {name:?}; {}", shown(names)))
                }
                _ => Err(format!(
                    "several columns are named {name:?}; give the number of one of them"
                )),
            }
        }
    }
}

/// Where the ends of an edge are, by names alone. `weight` is a column that is known to be no end.
fn ends(names: &[String], weight: Option<usize>) -> Result<(usize, usize), String> {
    let pairs = complete_pairs(names);
    match &pairs[..] {
        [pair] => return Ok(*pair),
        [] => {}
        _ => return Err(in_doubt(names)),
    }
    if names.len() == 2 {
        // One known name says what the other is; without any the order does.
        return match (half(&names[0]), half(&names[1])) {
            (Some(1), None) | (None, Some(0)) => Ok((1, 0)),
            (Some(0), Some(0)) | (Some(1), Some(1)) => Err(in_doubt(names)),
            _ => Ok((0, 1)),
        };
    }
    let is_known = |name: &str| {
        let name = plain(name);
        name.starts_with("unnamed")
            || INDEXES.contains(&name.as_str())
            || OTHERS.contains(&name.as_str())
            || WEIGHTS.iter().any(|words| words.contains(&name.as_str()))
    };
    let left: Vec<usize> = (0..names.len())
        .filter(|&place| Some(place) != weight && !is_known(&names[place]))
        .collect();
    match left[..] {
        [first, second] => match (half(&names[first]), half(&names[second])) {
            (Some(1), None) | (None, Some(0)) => Ok((second, first)),
            (Some(0), Some(0)) | (Some(1), Some(1)) => Err(in_doubt(names)),
            _ => Ok((first, second)),
        },
        _ => Err(in_doubt(names)),
    }
}

/// The end that is not `given`: the one known name for it, or the only other column.
fn other_end(names: &[String], end: usize, given: usize) -> Option<usize> {
    let others = || (0..names.len()).filter(|&place| place != given);
    let known: Vec<usize> = others()
        .filter(|&place| half(&names[place]) == Some(end))
        .collect();
    match (&known[..], names.len()) {
        ([place], _) => Some(*place),
        ([], 2) => others().next(),
        _ => None,
    }
}

/// The weight's place by name, or the only column that is left.
fn weight_place(names: &[String], source: usize, target: usize) -> Result<usize, String> {
    let others = || (0..names.len()).filter(|&place| place != source && place != target);
    for words in WEIGHTS {
        let known: Vec<usize> = others()
            .filter(|&place| words.contains(&plain(&names[place]).as_str()))
            .collect();
        match known[..] {
            [] => {}
            [place] => return Ok(place),
            _ => return Err(no_weight(names)),
        }
    }
    let left: Vec<usize> = others()
        .filter(|&place| {
            let name = plain(&names[place]);
            !name.starts_with("unnamed") && !INDEXES.contains(&name.as_str())
        })
        .collect();
    match left[..] {
        [place] => Ok(place),
        _ => Err(no_weight(names)),
    }
}

/// Every pair of [`PAIRS`] both of whose names stand in exactly one column.
fn complete_pairs(names: &[String]) -> Vec<(usize, usize)> {
    let only = |words: &[&str]| {
        let mut places = (0..names.len()).filter(|&place| is_one_of(&names[place], words));
        places.next().filter(|_| places.next().is_none())
    };
    let pairs = PAIRS
        .iter()
        .filter_map(|(sources, targets)| only(sources).zip(only(targets)));
    pairs.collect()
}

/// 0 for a name of where edges begin, 1 for one of where they end.
fn half(name: &str) -> Option<usize> {
    let (sources, targets) = PAIRS[0];
    if is_one_of(name, sources) {
        return Some(0);
    }
    is_one_of(name, targets).then_some(1)
}

/// Whether a column's name is one of some words, perhaps with "node" or "id" around it.
fn is_one_of(name: &str, words: &[&str]) -> bool {
    let name = plain(name);
    let bare = bare(&name);
    // A name that is a number and nothing else says nothing.
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && (words.contains(&name.as_str()) || words.contains(&bare))
}

/// A name in small letters, without blanks and punctuation.
fn plain(name: &str) -> String {
    let letters = name.chars().filter(|letter| letter.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// A name without the words for a vertex around it.
fn bare(mut name: &str) -> &str {
    const WORDS: [&str; 6] = ["vertex", "node", "ids", "id", "idx", "index"];
    loop {
        let cut = WORDS.iter().find_map(|word| {
            let cut = name.strip_suffix(word).or_else(|| name.strip_prefix(word));
            cut.filter(|rest| !rest.is_empty())
        });
        match cut {
            Some(rest) => name = rest,
            None => return name,
        }
    }
}

fn in_doubt(names: &[String]) -> String {
    format!(
        "{}, which does not say where edges begin and end; name them with --source-column and --target-column",
        shown(names)
    )
}

fn no_weight(names: &[String]) -> String {
    format!(
        "{}, which does not say where weights are; name their column with --weight-column",
        shown(names)
    )
}

/// The most names that a message shows.
const SHOWN_MAX: usize = 20;

fn shown(names: &[String]) -> String {
    let mut shown: Vec<String> = names
        .iter()
        .take(SHOWN_MAX)
        .map(|name| super::error::excerpt(name.as_bytes()))
        .collect();
    if names.len() > SHOWN_MAX {
        shown.push("...".into());
    }
    format!("the header has the columns {}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str) -> Vec<String> {
        header.split(',').map(str::to_owned).collect()
    }

    fn found(header: &str) -> Result<(usize, usize), String> {
        let places = places(&names(header), &ColumnRequest::default(), false)?;
        Ok((places.source, places.target))
    }

    #[test]
    fn names_say_where_edges_begin_and_end() {
        for (header, places) in [
            ("source,target", (0, 1)),
            ("target,source", (1, 0)),
            ("id,source,target", (1, 2)),
            (",source,target", (1, 2)),
            ("Unnamed: 0,from,to", (1, 2)),
            ("Source,Target,Type,Id,Label,timeset,Weight", (0, 1)),
            ("weight,dst,src", (2, 1)),
            ("ToNodeId,FromNodeId", (1, 0)),
            ("to_node,weight,from_node", (2, 0)),
            (":START_ID,:END_ID,:TYPE", (0, 1)),
            ("node_2,node_1", (1, 0)),
            ("id1,id2", (0, 1)),
            ("id_1,id_2", (0, 1)),
            ("w,v,u", (2, 1)),
            ("Source ID,x,Target ID", (0, 2)),
            ("time,node1,node2", (1, 2)),
            // Two columns without known names, in their order; a known one says what the other is.
            ("a,b", (0, 1)),
            ("follower,followee", (0, 1)),
            ("id,friend", (0, 1)),
            ("target,page", (1, 0)),
            ("page,source", (1, 0)),
            // An index, a weight and the like are no ends.
            ("index,page,link", (1, 2)),
            ("a person,weight,another", (0, 2)),
            (",0,1", (1, 2)),
        ] {
            assert_eq!(found(header), Ok(places), "{header}");
        }
    }

    #[test]
    fn a_header_in_doubt_is_refused_with_its_columns_and_the_options() {
        for header in [
            "x,y,z",
            "source,source",
            "source,src,target,z",
            "u,v,source,target",
            "name,age,city,phone",
        ] {
            let problem = found(header).unwrap_err();
            assert!(
                problem.contains("--source-column and --target-column"),
                "{problem}"
            );
            let first = header.split(',').next().unwrap();
            assert!(
                problem.contains(&format!("the columns \"{first}\"")),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_request_goes_before_names() {
        let places = |header: &str, source: &str, target: &str, weight: &str| {
            let choice = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
            let request = ColumnRequest {
                delimiter: None,
                source: choice(source),
                target: choice(target),
                weight: choice(weight),
            };
            super::places(&names(header), &request, true).map(|found| {
                let weight = found.weight.unwrap();
                (found.source, found.target, weight)
            })
        };
        assert_eq!(places("x,y,z", "z", "x", ""), Ok((2, 0, 1)));
        assert_eq!(places("x,y,z", "3", "1", ""), Ok((2, 0, 1)));
        assert_eq!(
            places("source,target,w", "target", "SOURCE", ""),
            Ok((1, 0, 2))
        );
        assert_eq!(places("x,target,w", "x", "", ""), Ok((0, 1, 2)));
        assert_eq!(places("cost,from,to,toll", "", "", "toll"), Ok((1, 2, 3)));
        for (choices, word) in [
            (["q", "x", ""], "no column is named \"q\""),
            (["9", "x", ""], "there is no column 9"),
            (["x", "x", ""], "both ends"),
            (["x", "", ""], "--target-column"),
        ] {
            let [source, target, weight] = choices;
            let problem = places("x,y,z", source, target, weight).unwrap_err();
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn the_weight_is_named_or_the_only_column_that_is_left() {
        let weight = |header: &str| {
            places(&names(header), &ColumnRequest::default(), true).map(|places| places.weight)
        };
        assert_eq!(
            weight("Source,Target,Type,Id,Label,timeset,Weight"),
            Ok(Some(6))
        );
        assert_eq!(weight("from,to,cost"), Ok(Some(2)));
        assert_eq!(weight("cost,from,to,weight"), Ok(Some(3)));
        assert_eq!(weight("from,to,lanes"), Ok(Some(2)));
        for header in ["from,to", "from,to,x,y", "from,to,cost,distance"] {
            assert!(
                weight(header).unwrap_err().contains("--weight-column"),
                "{header}"
            );
        }
    }
}
