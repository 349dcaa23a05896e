//! What the outputs of a map depend on, so that two runs are one job only if it is the same: the program, its arguments,
//! how the items were cut, and the items.

use super::Arguments;
use crate::job::command::code;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Digits of a checksum that messages show.
const DIGITS_SHOWN: usize = 12;

/// What all items of a map have in common. Items are compared one by one: [`item_identity`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The program's name, within its folder if that travels.
    pub program: String,
    /// The SHA-256 of the program, or of the folder that travels; none for a program that only the workers have.
    pub sha256: Option<String>,
    /// The program's arguments.
    pub arguments: Vec<String>,
    /// The arguments that are files of this machine which workers see too, and the SHA-256 of each: a script for an
    /// interpreter.
    pub files: Vec<(String, String)>,
    /// Bytes of the pieces into which items were cut, if they were.
    pub split: Option<u64>,
    /// How many items the program is given at a time.
    pub batch: u64,
    /// How many items there are, if that was known before they were read.
    pub count: Option<u64>,
}

impl Identity {
    /// Of a map with these arguments. Workers see the files of this machine if they are `near`.
    pub fn of(
        arguments: &Arguments,
        (split, batch, count): (Option<u64>, u64, Option<u64>),
        near: bool,
    ) -> Identity {
        let command = &arguments.command;
        let (program, sha256) = match &command.code {
            Some(code) if code.folder => (code.program.clone(), Some(code.sha256.clone())),
            // A program that moved is the same one.
            Some(code) => (String::new(), Some(code.sha256.clone())),
            None => {
                let here = code::find(&command.program).filter(|_| near);
                let sha256 = here.and_then(|path| code::file_sha256(&path));
                (command.program.clone(), sha256)
            }
        };
        let paths = command.arguments.iter().map(|argument| {
            let value = argument
                .split_once('=')
                .map_or(&argument[..], |(_, value)| value);
            value.to_string()
        });
        // The working folder of a program is another one, so that a relative path names no file of this folder.
        let files = paths.filter(|path| near && path.starts_with('/') && Path::new(path).is_file());
        let files = files.filter_map(|path| {
            let sha256 = code::file_sha256(Path::new(&path))?;
            Some((path, sha256))
        });
        Identity {
            program,
            sha256,
            arguments: command.arguments.clone(),
            files: files.collect(),
            split,
            batch,
            count,
        }
    }

    /// How a map that begins `now` differs from this one of the job called `job`, in words; none if it does not.
    pub fn difference(&self, now: &Identity, job: &str) -> Option<String> {
        let short = |sum: &Option<String>| match sum {
            Some(sum) => format!("SHA-256 {}", &sum[..DIGITS_SHOWN.min(sum.len())]),
            None => "no file of this machine".into(),
        };
        if (&self.program, &self.sha256) != (&now.program, &now.sha256) {
            let names = match self.program == now.program {
                true => String::new(),
                false => format!("{:?} was {:?}; ", now.program, self.program),
            };
            return Some(format!(
                "the program is another than job {job} had ({names}{}, was {})",
                short(&now.sha256),
                short(&self.sha256)
            ));
        }
        if self.arguments != now.arguments {
            return Some(format!(
                "the program's arguments are others than job {job} had ({}, were {})",
                shlex_join(&now.arguments),
                shlex_join(&self.arguments)
            ));
        }
        if let Some((path, _)) = now.files.iter().find(|file| !self.files.contains(file)) {
            return Some(format!(
                "{path}, an argument of the program, has changed since job {job} began"
            ));
        }
        if self.files.len() != now.files.len() {
            return Some(format!(
                "a file among the program's arguments is gone that job {job} had"
            ));
        }
        let size = |split: Option<u64>| match split {
            Some(bytes) => format!("{bytes} bytes"),
            None => "none".into(),
        };
        if self.split != now.split {
            return Some(format!(
                "--split is another than job {job} had ({}, was {})",
                size(now.split),
                size(self.split)
            ));
        }
        if self.batch != now.batch {
            return Some(format!(
                "--batch-size is another than job {job} had ({}, was {})",
                now.batch, self.batch
            ));
        }
        match (self.count, now.count) {
            (Some(before), Some(now)) if before != now => Some(format!(
                "the items are others than job {job} had (there are {now}, and were {before})"
            )),
            _ => None,
        }
    }
}

fn shlex_join(words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(|word| &word[..]).collect();
    match shlex::try_join(words) {
        Ok(line) if !line.is_empty() => line,
        Ok(_) => "none".into(),
        Err(_) => "with a zero byte".into(),
    }
}

/// What an item is, as eight bytes of a hash of what travels of it. That has the length and the time of modification of a
/// file as they were when it was listed, and the ETag of an object. A worker reads that version or fails.
pub fn item_identity(bytes: &[u8]) -> [u8; 8] {
    let whole = Sha256::digest(bytes);
    *whole.first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsSettings;
    use crate::job::items::Item;
    use crate::job::items::cut::Cutting;
    use crate::job::items::find::{Items, Wanted};
    use std::fs;
    use std::time::{Duration, SystemTime};

    fn identity() -> Identity {
        Identity {
            program: "run.py".into(),
            sha256: Some("aa".repeat(32)),
            arguments: vec!["-c".into(), "echo x2".into()],
            files: vec![("/s.py".into(), "bb".repeat(32))],
            split: Some(1024),
            batch: 1,
            count: Some(10),
        }
    }

    #[test]
    fn each_difference_is_named() {
        let before = identity();
        assert_eq!(before.difference(&before, "1f3a"), None);
        type Change = fn(&mut Identity);
        let changes: [(Change, &str); 9] = [
            (
                |now| now.sha256 = Some("cc".repeat(32)),
                "the program is another than job 1f3a had (SHA-256 cccccccccccc, was SHA-256 aaaaaaaaaaaa)",
            ),
            (|now| now.sha256 = None, "no file of this machine"),
            (
                |now| now.program = "other.py".into(),
                "\"other.py\" was \"run.py\"",
            ),
            (
                |now| now.arguments[1] = "echo x3".into(),
                "(-c 'echo x3', were -c 'echo x2')",
            ),
            (
                |now| now.files[0].1 = "dd".repeat(32),
                "/s.py, an argument of the program, has changed",
            ),
            (|now| now.files.clear(), "is gone that job 1f3a had"),
            (
                |now| now.split = None,
                "--split is another than job 1f3a had (none, was 1024 bytes)",
            ),
            (|now| now.batch = 2, "--batch-size"),
            (|now| now.count = Some(11), "there are 11, and were 10"),
        ];
        for (change, words) in changes {
            let mut now = identity();
            change(&mut now);
            let difference = before.difference(&now, "1f3a").expect(words);
            assert!(difference.contains(words), "{difference}");
        }
        let unknown = Identity {
            count: None,
            ..identity()
        };
        assert_eq!(
            before.difference(&unknown, "1f3a"),
            None,
            "lines are compared as they are read"
        );
    }

    #[test]
    fn a_file_of_the_same_length_that_was_written_since_is_another_item() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("item");
        let write = |content: &str, seconds: u64| {
            fs::write(&path, content).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let of = |batch: bool| {
            let what = path.to_str().unwrap();
            let wanted = Wanted {
                what,
                cutting: Cutting::Pieces(1 << 20),
                recursive: false,
            };
            let found = runtime.block_on(Items::find(wanted, &AwsSettings::default()));
            let mut items = found.unwrap().items.named().to_vec();
            let item = match batch {
                true => Item::Batch { first: 0, items },
                false => items.remove(0),
            };
            item_identity(&item.to_bytes().unwrap())
        };
        write("1", 1000);
        let (first, batch) = (of(false), of(true));
        assert_eq!((of(false), of(true)), (first, batch));
        write("2", 1001);
        assert_ne!(of(false), first);
        assert_ne!(of(true), batch);
        write("1", 1000);
        assert_eq!(of(false), first, "a copy with its time is the same");
    }
}
