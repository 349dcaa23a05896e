//! `result.json`: the manifest of a finished output. It is written last, and vouches for the length and the CRC32C of
//! each file that it names.
//!
//! ```json
//! {"format": "lswitch-result", "version": 2, "lswitch": "1.2.0", "program": "sort", ...,
//!  "files": [{"name": "part-00000.txt", "bytes": 123, "crc32c": "0a1b2c3d"}]}
//! ```
//!
//! Pure: bytes in, a value or a named error out. Readers check what they read with [`ResultFile::check`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use thiserror::Error;

/// The key of the manifest in an output.
pub const RESULT_KEY: &str = "result.json";

/// What the field `format` of a manifest says.
pub const RESULT_FORMAT: &str = "lswitch-result";

/// The version of the manifest that is written, and the only one that is read. Version 1 had neither of the two fields, and named
/// files by strings, without lengths or checksums.
pub const RESULT_VERSION: u64 = 2;

/// A finished output: what the job reports of itself, and the files that it wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultManifest {
    /// The job's summary; its fields `format`, `version` and `files` are replaced when the manifest is written.
    pub summary: Map<String, Value>,
    /// The files in the order of the output.
    pub files: Vec<ResultFile>,
}

/// A file of an output, as its writer counted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultFile {
    /// The key in the output, without folders.
    pub name: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The CRC32C of all bytes; 8 lowercase hexadecimal digits when written.
    #[serde(with = "hex8")]
    pub crc32c: u32,
}

/// Why a manifest, or a file that it names, cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// The bytes are not a manifest of this format.
    #[error("{at} is not the result of an lswitch job: {problem}; run the job again")]
    Malformed {
        /// Where the manifest was read.
        at: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The manifest is of a release that wrote no lengths and checksums, or of a later release.
    #[error(
        "{at} is of version {found}, and this release reads version {RESULT_VERSION}; run the job again with this release"
    )]
    Version {
        /// Where the manifest was read.
        at: String,
        /// The version that it claims; 1 where the field is missing.
        found: u64,
    },
    /// A file is not the one that the manifest vouches for.
    #[error(
        "{name} has {bytes} bytes with CRC32C {crc32c:08x}, but {RESULT_KEY} names {expected_bytes} bytes with {expected_crc32c:08x}; \
         it was changed or damaged after the job; run the job again"
    )]
    Changed {
        /// The file.
        name: String,
        /// The bytes that were read.
        bytes: u64,
        /// Their checksum.
        crc32c: u32,
        /// The length in the manifest.
        expected_bytes: u64,
        /// The checksum in the manifest.
        expected_crc32c: u32,
    },
}

impl ResultManifest {
    /// Reads a manifest. `at` is its place, for errors.
    ///
    /// # Errors
    /// When the bytes are not a manifest of [`RESULT_VERSION`], or name a file twice, by a path, or by a reserved name.
    pub fn parse(text: &[u8], at: &str) -> Result<ResultManifest, ManifestError> {
        let malformed = |problem: String| ManifestError::Malformed {
            at: at.into(),
            problem,
        };
        let mut summary: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
        if !summary.contains_key("lswitch") {
            return Err(malformed("it has no field \"lswitch\"".into()));
        }
        let version = match (summary.remove("format"), summary.remove("version")) {
            (None, None) => 1,
            (Some(Value::String(format)), Some(version)) if format == RESULT_FORMAT => version
                .as_u64()
                .ok_or_else(|| malformed("its version is not a number".into()))?,
            _ => {
                let problem = format!("its field \"format\" is not \"{RESULT_FORMAT}\"");
                return Err(malformed(problem));
            }
        };
        if version != RESULT_VERSION {
            return Err(ManifestError::Version {
                at: at.into(),
                found: version,
            });
        }
        let files = summary.remove("files");
        let files = files.ok_or_else(|| malformed("it has no field \"files\"".into()))?;
        let files: Vec<ResultFile> =
            serde_json::from_value(files).map_err(|error| malformed(format!("files: {error}")))?;
        let mut names = HashSet::with_capacity(files.len());
        for file in &files {
            if let Some(problem) = name_problem(&file.name) {
                return Err(malformed(format!("files: {:?} {problem}", file.name)));
            }
            if !names.insert(&file.name[..]) {
                return Err(malformed(format!("files: {:?} is named twice", file.name)));
            }
        }
        Ok(ResultManifest { summary, files })
    }

    /// The bytes of `result.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut head = self.summary.clone();
        head.remove("files");
        head.insert("format".into(), RESULT_FORMAT.into());
        head.insert("version".into(), RESULT_VERSION.into());
        let mut text = serde_json::to_vec_pretty(&head).expect("a JSON value is written");
        // A line for each file, which may be many: the head's last brace follows them.
        text.truncate(text.len() - "\n}".len());
        text.extend_from_slice(b",\n  \"files\": [");
        for (number, file) in self.files.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            text.extend_from_slice(format!("{comma}\n    ").as_bytes());
            serde_json::to_writer(&mut text, file).expect("memory takes it");
        }
        text.extend_from_slice(b"\n  ]\n}\n");
        text
    }

    /// The length of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The file of this name.
    pub fn file(&self, name: &str) -> Option<&ResultFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

impl ResultFile {
    /// The entry of a file with these contents.
    pub fn of(name: impl Into<String>, contents: &[u8]) -> ResultFile {
        ResultFile {
            name: name.into(),
            bytes: contents.len() as u64,
            crc32c: crc32c::crc32c(contents),
        }
    }

    /// Compares what was read of the file with its entry.
    ///
    /// # Errors
    /// [`ManifestError::Changed`] when length or checksum differ.
    pub fn check(&self, bytes: u64, crc32c: u32) -> Result<(), ManifestError> {
        if (bytes, crc32c) == (self.bytes, self.crc32c) {
            return Ok(());
        }
        Err(ManifestError::Changed {
            name: self.name.clone(),
            bytes,
            crc32c,
            expected_bytes: self.bytes,
            expected_crc32c: self.crc32c,
        })
    }
}

/// What keeps a name from being that of a file of an output: a reader joins it to the output's folder.
fn name_problem(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        RESULT_KEY => Some("is the manifest itself"),
        _ if name.starts_with('.') => Some("begins with a dot"),
        _ if name.contains('/') => Some("has a slash"),
        _ if name.chars().any(char::is_control) => Some("has a control character"),
        _ => None,
    }
}

/// A checksum as 8 lowercase hexadecimal digits.
mod hex8 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(sum: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{sum:08x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let text = String::deserialize(from)?;
        let is_plain = text.len() == 8
            && text
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_plain
            .then(|| u32::from_str_radix(&text, 16).ok())
            .flatten()
            .ok_or_else(|| {
                de::Error::custom(format!(
                    "{text:?} is no CRC32C; 8 lowercase hexadecimal digits are one"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::codec;
    use serde_json::json;

    fn manifest() -> ResultManifest {
        let summary = json!({ "lswitch": "9.9.9", "program": "sort" });
        ResultManifest {
            summary: summary.as_object().unwrap().clone(),
            files: vec![
                ResultFile::of("part-00000.txt", b"123456789"),
                ResultFile::of("part-00001.txt", b""),
            ],
        }
    }

    #[test]
    fn a_manifest_names_files_with_length_and_checksum() {
        let text = manifest().to_json();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value,
            json!({
                "format": "lswitch-result",
                "version": 2,
                "lswitch": "9.9.9",
                "program": "sort",
                "files": [
                    // The check value of CRC-32C.
                    { "name": "part-00000.txt", "bytes": 9, "crc32c": "e3069283" },
                    { "name": "part-00001.txt", "bytes": 0, "crc32c": "00000000" },
                ],
            })
        );
        let read = ResultManifest::parse(&text, "out/result.json").unwrap();
        assert_eq!(read.files, manifest().files);
        assert_eq!(read.bytes(), 9);
        assert_eq!(read.summary["program"], "sort");
        assert_eq!(read.to_json(), text);
    }

    #[test]
    fn a_manifest_that_is_cut_or_changed_is_refused_with_the_reason() {
        let whole = manifest().to_json();
        for length in 0..whole.len() - 2 {
            assert!(ResultManifest::parse(&whole[..length], "m").is_err());
        }
        let changed = |change: fn(&mut Value)| {
            let mut value: Value = serde_json::from_slice(&whole).unwrap();
            change(&mut value);
            let error = ResultManifest::parse(value.to_string().as_bytes(), "m").unwrap_err();
            error.to_string()
        };
        type Case = (fn(&mut Value), &'static str);
        let cases: [Case; 15] = [
            (
                |value| value["files"][0]["crc32c"] = json!("E3069283"),
                "no CRC32C",
            ),
            (
                |value| value["files"][0]["crc32c"] = json!("+3069283"),
                "no CRC32C",
            ),
            (
                |value| value["files"][0]["crc32c"] = json!(1),
                "invalid type",
            ),
            (|value| value["files"][0]["bytes"] = json!(-1), "files:"),
            (
                |value| value["files"][0]["name"] = json!("../x"),
                "begins with a dot",
            ),
            (|value| value["files"][0]["name"] = json!("a/x"), "slash"),
            (
                |value| value["files"][0]["name"] = json!("result.json"),
                "the manifest itself",
            ),
            (
                |value| value["files"][0]["name"] = json!("part-00001.txt"),
                "named twice",
            ),
            (
                |value| value["files"] = json!(["part-00000.txt"]),
                "invalid type",
            ),
            (
                |value| drop(value.as_object_mut().unwrap().remove("files")),
                "no field \"files\"",
            ),
            (
                |value| drop(value.as_object_mut().unwrap().remove("lswitch")),
                "no field \"lswitch\"",
            ),
            (
                |value| drop(value.as_object_mut().unwrap().remove("format")),
                "its field \"format\" is not",
            ),
            (
                |value| value["format"] = json!("lswitch-graph"),
                "its field \"format\" is not",
            ),
            (|value| value["version"] = json!(3), "is of version 3"),
            (
                |value| {
                    let fields = value.as_object_mut().unwrap();
                    fields.remove("format");
                    fields.remove("version");
                },
                "is of version 1",
            ),
        ];
        for (change, words) in cases {
            let error = changed(change);
            assert!(error.contains(words), "{error}");
            assert!(error.starts_with("m "), "{error}");
        }
    }

    #[test]
    fn a_file_that_differs_from_its_entry_is_named() {
        let file = ResultFile::of("part-00000.txt", b"abc");
        file.check(3, crc32c::crc32c(b"abc")).unwrap();
        for contents in [&b"abd"[..], b"ab", b"abcd"] {
            let sum = crc32c::crc32c(contents);
            let error = file.check(contents.len() as u64, sum).unwrap_err();
            assert!(error.to_string().starts_with("part-00000.txt has "));
        }
    }

    #[test]
    fn an_entry_travels_from_worker_to_driver() {
        let file = ResultFile::of("part-00000.txt", b"abc");
        let bytes = codec::encode::<256>(&file).unwrap();
        assert_eq!(codec::decode::<ResultFile, 256>(&bytes).unwrap(), file);
    }
}
