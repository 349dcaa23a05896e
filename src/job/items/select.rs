//! Which of the files that lie in a place are data. Pure.
//!
//! A folder that a job of lswitch wrote is the parts that its `result.json` names, and nothing else. In other folders
//! everything is data but the markers that such systems as Spark leave there.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The file of a result that names its parts.
pub const RESULT_NAME: &str = "result.json";

/// The most bytes of a `result.json` that are read: some 100 bytes for each of 100,000 parts, and more.
pub const RESULT_MAX: u64 = 64 << 20;

/// What the names of files begin with that jobs of lswitch keep beside their outputs while they run.
pub const OWN_PREFIX: &str = ".lswitch-";

/// The folder of unfinished writes of a store in a directory.
pub const UNFINISHED_NAME: &str = ".lswitch-tmp";

/// A part that a result names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultPart {
    /// Its name in the folder.
    pub name: String,
    /// Its length in bytes; results of older releases do not say.
    pub bytes: Option<u64>,
    /// Its CRC32C; results of older releases do not say.
    pub crc32c: Option<u32>,
}

/// The parts that a `result.json` names, or none if it is a file of somebody else.
///
/// # Errors
/// When it is one of lswitch's and cannot be understood, in words.
pub fn result_parts(bytes: &[u8]) -> Result<Option<Vec<ResultPart>>, String> {
    let Ok(Value::Object(result)) = serde_json::from_slice(bytes) else {
        return Ok(None);
    };
    if !result.get("lswitch").is_some_and(Value::is_string) {
        return Ok(None);
    }
    let Some(Value::Array(files)) = result.get("files") else {
        return Err("it names no files".into());
    };
    let mut names = BTreeSet::new();
    let mut parts = Vec::with_capacity(files.len());
    for file in files {
        let wrong = || format!("it names a file as {file}");
        let part = match file {
            Value::String(name) => ResultPart {
                name: name.clone(),
                bytes: None,
                crc32c: None,
            },
            Value::Object(fields) => {
                let name = fields.get("name").and_then(Value::as_str);
                let bytes = fields.get("bytes").and_then(Value::as_u64);
                let sum = fields.get("crc32c").and_then(Value::as_str);
                let sum = sum.filter(|sum| sum.len() == 8);
                ResultPart {
                    name: name.ok_or_else(wrong)?.into(),
                    bytes: Some(bytes.ok_or_else(wrong)?),
                    crc32c: match fields.get("crc32c") {
                        None => None,
                        Some(_) => Some(
                            sum.and_then(|sum| u32::from_str_radix(sum, 16).ok())
                                .ok_or_else(wrong)?,
                        ),
                    },
                }
            }
            _ => return Err(wrong()),
        };
        let is_plain =
            !part.name.is_empty() && !part.name.contains('/') && part.name != RESULT_NAME;
        if !is_plain || !names.insert(part.name.clone()) {
            return Err(wrong());
        }
        parts.push(part);
    }
    Ok(Some(parts))
}

/// A file or an object of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name with the folders above it, which `/` separates.
    pub key: String,
    /// Its length in bytes.
    pub length: u64,
}

impl Listed {
    /// The folders above it, with a slash at the end.
    pub fn folder(&self) -> &str {
        &self.key[..self.key.rfind('/').map_or(0, |slash| slash + 1)]
    }

    fn name(&self) -> &str {
        &self.key[self.folder().len()..]
    }
}

/// How names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Customs {
    /// Names that begin with a dot are hidden, as in a file system.
    pub dots_hide: bool,
    /// All of each folder was listed, so that a part that is not there is missing.
    pub is_complete: bool,
    /// Bytes of each key that are the place's own, and not a name in it.
    pub skip: usize,
}

/// What was selected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// The places of those that are data in the list, each with its CRC32C if a result says it.
    pub data: Vec<(usize, Option<u32>)>,
    /// The places of those that are not, and that a user may have taken for data.
    pub passed_over: Vec<usize>,
}

/// Chooses the data of a place. `results` are the parts that the `result.json` of each folder names.
///
/// # Errors
/// When a result is not whole, or a job has not finished writing, in words.
pub fn select(
    listed: &[Listed],
    results: &BTreeMap<String, Vec<ResultPart>>,
    customs: Customs,
) -> Result<Selection, String> {
    let mut selection = Selection::default();
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (place, file) in listed.iter().enumerate() {
        let inside = file.key.get(customs.skip..).unwrap_or_default();
        let names = || inside.split('/');
        // The outermost: a result has no folders.
        let result = results
            .iter()
            .find(|(folder, _)| file.key.starts_with(&folder[..]));
        if let Some((folder, parts)) = result {
            let part = parts
                .iter()
                .find(|part| file.folder() == folder && part.name == file.name());
            if let Some(part) = part {
                if let Some(bytes) = part.bytes.filter(|bytes| *bytes != file.length) {
                    return Err(format!(
                        "{} has {} bytes, and {folder}{RESULT_NAME} names {bytes}: it was damaged or is of another run; write the \
                         result again",
                        file.key, file.length
                    ));
                }
                found.entry(folder).or_default().insert(&part.name);
                selection.data.push((place, part.crc32c));
            } else if file.name() != RESULT_NAME
                && !names().any(|name| name.starts_with(OWN_PREFIX))
            {
                selection.passed_over.push(place);
            }
            continue;
        }
        if let Some(own) = names().find(|name| name.starts_with(OWN_PREFIX)) {
            if own == UNFINISHED_NAME {
                continue;
            }
            return Err(format!(
                "a job that has not finished writes there ({} is there, and no {RESULT_NAME}); wait for it or run it again, and if \
                 there is no such job any more, remove that file",
                file.key
            ));
        }
        let is_hidden = customs.dots_hide && names().any(|name| name.starts_with('.'));
        if is_hidden || names().any(is_marker_folder) || is_marker(file.name(), file.length) {
            selection.passed_over.push(place);
        } else {
            selection.data.push((place, None));
        }
    }
    for (folder, parts) in results.iter().filter(|_| customs.is_complete) {
        // A result in a folder of another is none.
        let is_inner = |other: &String| other != folder && folder.starts_with(&other[..]);
        if results.keys().any(is_inner) {
            continue;
        }
        let found = found.get(&folder[..]);
        let missing =
            |part: &&ResultPart| found.is_none_or(|found| !found.contains(&part.name[..]));
        if let Some(part) = parts.iter().find(missing) {
            return Err(format!(
                "{folder}{} is missing, and {folder}{RESULT_NAME} names it; write the result again, or name the files that are to \
                 be read",
                part.name
            ));
        }
    }
    Ok(selection)
}

/// Files that systems leave beside data to say something about them.
fn is_marker(name: &str, length: u64) -> bool {
    let known = ["_SUCCESS", "_metadata", "_common_metadata"];
    let is_known =
        known.contains(&name) || name.starts_with("_committed_") || name.starts_with("_started_");
    is_known || length == 0 && (name.starts_with('_') || name.is_empty())
}

/// Folders of work that is not finished.
fn is_marker_folder(name: &str) -> bool {
    name == "_temporary"
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: Customs = Customs {
        dots_hide: true,
        is_complete: true,
        skip: 0,
    };

    fn listed(files: &[(&str, u64)]) -> Vec<Listed> {
        let file = |(key, length): &(&str, u64)| Listed {
            key: (*key).into(),
            length: *length,
        };
        files.iter().map(file).collect()
    }

    fn keys<'a>(listed: &'a [Listed], selection: &Selection) -> (Vec<&'a str>, Vec<&'a str>) {
        let data = selection.data.iter();
        let over = selection.passed_over.iter();
        (
            data.map(|(place, _)| &listed[*place].key[..]).collect(),
            over.map(|place| &listed[*place].key[..]).collect(),
        )
    }

    fn part(name: &str, bytes: u64) -> ResultPart {
        ResultPart {
            name: name.into(),
            bytes: Some(bytes),
            crc32c: Some(7),
        }
    }

    #[test]
    fn a_result_is_the_parts_that_it_names() {
        let files = listed(&[
            ("out/.hidden", 3),
            ("out/.lswitch-tmp/put-1", 3),
            ("out/part-00000.txt", 5),
            ("out/part-00001.txt", 0),
            ("out/part-00002.txt", 9),
            ("out/result.json", 99),
            ("out/sub/more", 1),
            ("plain", 1),
        ]);
        let parts = vec![part("part-00000.txt", 5), part("part-00001.txt", 0)];
        let results = BTreeMap::from([("out/".to_string(), parts)]);
        let found = select(&files, &results, FOLDER).unwrap();
        let (data, over) = keys(&files, &found);
        assert_eq!(data, ["out/part-00000.txt", "out/part-00001.txt", "plain"]);
        assert_eq!(over, ["out/.hidden", "out/part-00002.txt", "out/sub/more"]);
        assert_eq!(found.data[0].1, Some(7));
        assert_eq!(found.data[2].1, None);
        // One that is missing, and one that is another.
        for (parts, words) in [
            (
                vec![part("part-00003.txt", 1)],
                "out/part-00003.txt is missing",
            ),
            (
                vec![part("part-00000.txt", 6)],
                "out/part-00000.txt has 5 bytes",
            ),
        ] {
            let results = BTreeMap::from([("out/".to_string(), parts)]);
            let what = select(&files, &results, FOLDER).unwrap_err();
            assert!(what.contains(words), "{what}");
        }
    }

    #[test]
    fn markers_and_hidden_files_are_no_data_and_unusual_names_are() {
        let files = listed(&[
            ("_SUCCESS", 0),
            ("_SUCCESS2", 0),
            ("_mine", 4),
            ("_temporary/0/part", 4),
            (".hidden", 4),
            ("a//b", 4),
            ("./d", 4),
            ("../e", 4),
            ("c/", 0),
            ("c/", 4),
        ]);
        let none = BTreeMap::new();
        let all = Customs {
            dots_hide: false,
            ..FOLDER
        };
        let found = select(&files, &none, all).unwrap();
        let (data, over) = keys(&files, &found);
        assert_eq!(data, ["_mine", ".hidden", "a//b", "./d", "../e", "c/"]);
        assert_eq!(over, ["_SUCCESS", "_SUCCESS2", "_temporary/0/part", "c/"]);
        let hidden = select(&files, &none, FOLDER).unwrap();
        assert!(keys(&files, &hidden).1.contains(&".hidden"));
        // What the place itself is called hides nothing.
        let files = listed(&[(".in/a", 4)]);
        let inside = Customs { skip: 4, ..FOLDER };
        assert_eq!(select(&files, &none, inside).unwrap().data.len(), 1);
    }

    #[test]
    fn an_output_that_is_being_written_is_refused() {
        let files = listed(&[("out/.lswitch-claim", 9), ("out/part-00000.txt", 5)]);
        let what = select(&files, &BTreeMap::new(), FOLDER).unwrap_err();
        assert!(what.contains("out/.lswitch-claim"), "{what}");
    }

    #[test]
    fn results_of_this_and_of_older_releases_are_understood_and_others_are_no_results() {
        let parse = |text: &str| result_parts(text.as_bytes());
        let new = r#"{"lswitch": "1", "files": [{"name": "a", "bytes": 3, "crc32c": "0000000f"}]}"#;
        let parts = parse(new).unwrap().unwrap();
        assert_eq!(
            parts,
            [ResultPart {
                crc32c: Some(15),
                ..part("a", 3)
            }]
        );
        let old = parse(r#"{"lswitch": "1", "files": ["a", "b"]}"#)
            .unwrap()
            .unwrap();
        assert_eq!((old.len(), old[1].bytes), (2, None));
        for other in ["", "[]", "{}", r#"{"files": ["a"]}"#, r#"{"lswitch": 1}"#] {
            assert_eq!(parse(other), Ok(None), "{other}");
        }
        for wrong in [
            r#"{"lswitch": "1"}"#,
            r#"{"lswitch": "1", "files": [1]}"#,
            r#"{"lswitch": "1", "files": ["../a"]}"#,
            r#"{"lswitch": "1", "files": ["a", "a"]}"#,
            r#"{"lswitch": "1", "files": [{"name": "a"}]}"#,
            r#"{"lswitch": "1", "files": [{"name": "a", "bytes": 3, "crc32c": "0"}]}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
