//! Where a store is, from what a user or an event says, and back to the absolute URL that goes into events.

use std::path::{Component, Path, PathBuf};

use super::StoreError;
use super::key_problem;

/// A place for a store, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A directory: an absolute path in UTF-8, which need not exist.
    Dir(PathBuf),
    /// A bucket, and the prefix of every key in it without the slash that follows; empty when there is none.
    S3 { bucket: String, prefix: String },
}

impl Location {
    /// Understands `s3://bucket[/prefix]`, `file:///absolute/path`, and paths.
    ///
    /// In a `file` URL, `%XX` stands for a byte; a `%` that two hexadecimal digits do not follow stands for itself, and
    /// so do `#` and `?`, so that an absolute path with `file://` before it mostly means what its writer thought.
    pub(super) fn parse(text: &str) -> Result<Location, StoreError> {
        let problem = match scheme(text) {
            Some(("s3", rest)) => match parse_s3(rest) {
                Ok(location) => return Ok(location),
                Err(problem) => problem,
            },
            Some(("file", rest)) if rest.starts_with('/') => match decode(rest) {
                Some(path) if !path.contains('\0') => {
                    return Ok(Location::Dir(tidy(Path::new(&path))));
                }
                _ => "its %XX escapes do not spell a path in UTF-8".to_owned(),
            },
            Some(("file", rest)) => {
                format!("a file URL needs an absolute path; write file:///{rest} or the path alone")
            }
            Some((other, _)) => format!(
                "{other}:// is not a kind of store; use s3://bucket/prefix, file:///absolute/path, or a path"
            ),
            None if text.is_empty() => {
                "it is empty; use s3://bucket/prefix, file:///absolute/path, or a path".to_owned()
            }
            None if text.starts_with("s3:") => {
                "an S3 location starts with s3:// (two slashes)".to_owned()
            }
            None if text.starts_with("file:") => {
                "a file URL starts with file:/// (three slashes)".to_owned()
            }
            None if text.contains('\0') => "a path cannot contain a NUL character".to_owned(),
            None => match std::path::absolute(text) {
                Ok(path) if path.to_str().is_some() => return Ok(Location::Dir(tidy(&path))),
                Ok(_) => {
                    "the current directory's path is not UTF-8; give an absolute path".to_owned()
                }
                Err(error) => {
                    format!("the current directory is not known ({error}); give an absolute path")
                }
            },
        };
        Err(StoreError::BadLocation {
            location: text.to_owned(),
            problem,
        })
    }

    /// The absolute form; parsing it gives this location again.
    pub(super) fn url(&self) -> String {
        match self {
            Location::Dir(path) => {
                format!(
                    "file://{}",
                    encode(path.to_str().expect("parsing takes only paths in UTF-8"))
                )
            }
            Location::S3 { bucket, prefix } if prefix.is_empty() => format!("s3://{bucket}"),
            Location::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        }
    }
}

/// Writes the characters that would end or change a URL's path as `%XX`. Letters beyond ASCII stay readable.
pub(super) fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_ascii_control() || matches!(c, ' ' | '%' | '#' | '?') {
            encoded.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            encoded.push(c);
        }
    }
    encoded
}

/// Undoes [`encode`]; `None` when the bytes are not UTF-8.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        match (first, hex(after)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The byte that two hexadecimal digits spell.
fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Splits `scheme://rest`. A scheme is what URLs allow, so a path with `/` before `://` has none.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let letters = scheme
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (letters && scheme.starts_with(|c: char| c.is_ascii_alphabetic())).then_some((scheme, rest))
}

/// The path without `.` components, doubled slashes and a slash at its end. `..` stays: after a symbolic link it does
/// not lead back.
fn tidy(path: &Path) -> PathBuf {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .collect()
}

fn parse_s3(rest: &str) -> Result<Location, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("it names no bucket; write s3://bucket/prefix".to_owned());
    }
    if let Some(problem) = bucket_problem(bucket) {
        return Err(format!(
            "\"{bucket}\" cannot be the name of a bucket: {problem}"
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty()
        && let Some(problem) = key_problem(prefix)
    {
        return Err(format!(
            "\"{prefix}\" cannot be the prefix of its keys: {problem}"
        ));
    }
    Ok(Location::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    })
}

/// S3's rules for the names of general purpose buckets, the ones that a name alone can break.
fn bucket_problem(bucket: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = bucket.as_bytes();
    if !bytes.iter().all(|&b| plain(b) || b == b'-' || b == b'.') {
        return Some("only lower-case letters, digits, hyphens and dots are allowed");
    }
    if !(3..=63).contains(&bytes.len()) {
        return Some("it must have 3 to 63 characters");
    }
    if !(plain(bytes[0]) && plain(bytes[bytes.len() - 1])) {
        return Some("it must begin and end with a letter or a digit");
    }
    if bucket.contains("..") {
        return Some("it must not have two dots in a row");
    }
    if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some("it must not look like an IP address");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Location::parse(text)
            .expect_err("this location should be refused")
            .to_string()
    }

    #[test]
    fn s3_locations_are_a_bucket_and_perhaps_a_prefix() {
        for (text, bucket, prefix, url) in [
            ("s3://graphs", "graphs", "", "s3://graphs"),
            ("s3://graphs/", "graphs", "", "s3://graphs"),
            (
                "s3://my.graphs-1/a/b",
                "my.graphs-1",
                "a/b",
                "s3://my.graphs-1/a/b",
            ),
            (
                "s3://graphs/a b/c%20#/",
                "graphs",
                "a b/c%20#",
                "s3://graphs/a b/c%20#",
            ),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(
                location,
                Location::S3 {
                    bucket: bucket.into(),
                    prefix: prefix.into()
                }
            );
            assert_eq!(location.url(), url);
            assert_eq!(Location::parse(url).unwrap(), location);
        }
    }

    #[test]
    fn a_directory_survives_the_way_into_a_url_and_back() {
        for path in [
            "/",
            "/a",
            "/a b/c",
            "/100%/x",
            "/a%20b",
            "/#1?/x",
            "/gr\u{e4}ph/\u{1f980}",
            "/a/../b",
            "/tab\there",
        ] {
            let location = Location::parse(path).unwrap();
            assert_eq!(location, Location::Dir(path.into()));
            let url = location.url();
            assert!(url.starts_with("file:///"), "{url}");
            assert!(!url.contains([' ', '#', '?', '\t']), "{url}");
            assert_eq!(Location::parse(&url).unwrap(), location, "{url}");
        }
    }

    #[test]
    fn a_path_is_made_absolute_and_tidied_though_it_does_not_exist() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            Location::parse("no-such/./dir//").unwrap(),
            Location::Dir(here.join("no-such/dir"))
        );
        assert_eq!(
            Location::parse("./gs://x").unwrap(),
            Location::Dir(here.join("gs:/x"))
        );
        assert_eq!(
            Location::parse("/a//b/").unwrap(),
            Location::Dir("/a/b".into())
        );
    }

    #[test]
    fn a_file_url_may_be_written_by_hand() {
        for (text, path) in [
            ("file:///a b/c", "/a b/c"),
            ("file:///a%20b", "/a b"),
            ("file:///50%/of", "/50%/of"),
            ("file:///x%", "/x%"),
            ("file:///x%2", "/x%2"),
            ("file:///#a?b", "/#a?b"),
            ("file:///gr%C3%A4ph/", "/gr\u{e4}ph"),
        ] {
            assert_eq!(
                Location::parse(text).unwrap(),
                Location::Dir(path.into()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_location_that_is_refused_says_what_to_write() {
        for (text, expected) in [
            ("", "it is empty"),
            (
                "gs://graphs/x",
                "gs:// is not a kind of store; use s3://bucket/prefix",
            ),
            ("http://host/x", "http:// is not a kind of store"),
            ("S3://graphs", "S3:// is not a kind of store; use s3://"),
            (
                "file://relative/dir",
                "needs an absolute path; write file:///relative/dir",
            ),
            ("file:/x", "three slashes"),
            ("file:///%FF", "UTF-8"),
            ("file:///a%00b", "do not spell a path"),
            ("s3:graphs", "two slashes"),
            ("s3://", "it names no bucket"),
            ("s3:///x", "it names no bucket"),
            (
                "s3://Graphs",
                "\"Graphs\" cannot be the name of a bucket: only lower-case",
            ),
            ("s3://ab", "3 to 63"),
            ("s3://-graphs", "begin and end"),
            ("s3://gra..phs", "two dots"),
            ("s3://10.0.0.1/x", "IP address"),
            ("s3://graphs//x", "starts with a slash"),
            ("s3://graphs/a/../b", "\"..\""),
        ] {
            let message = problem(text);
            assert!(message.contains(expected), "{text}: {message}");
            assert!(
                message.contains(&format!("\"{text}\"")),
                "{text}: {message}"
            );
        }
    }
}
