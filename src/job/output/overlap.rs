//! Whether a job would read what it writes: an output that is the folder or prefix of its own input is refused before anything is
//! deleted.

use super::{OutputError, RESULT_KEY, is_item_key, is_part_key};
use crate::job::items::Item;
use crate::store::Store;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Refuses an output that is the folder or prefix in which an input lies: its files would be among the inputs of the same command the
/// next time. A single file that is named by itself may lie beside the result, unless its name is that of a file of a result.
/// `input` is what the user wrote. Paths are compared without symbolic links.
///
/// # Errors
/// [`OutputError::OwnInput`].
pub fn check_inputs<'a>(
    output: &Store,
    input: &str,
    items: impl IntoIterator<Item = &'a Item>,
) -> Result<(), OutputError> {
    let root = Root::of(output);
    let refuse = |input: &str| {
        Err(OutputError::OwnInput {
            output: output.url().into(),
            input: input.into(),
        })
    };
    if root.is(input) {
        return refuse(input);
    }
    let is_literal = Path::new(input).is_file();
    for item in items {
        let place = match item {
            Item::File { path, .. } => Place::Path(path),
            Item::Object { store, key, .. } => Place::Object(store, key),
            _ => continue,
        };
        let is_alone = is_literal
            || matches!(place, Place::Object(store, key) if input == format!("{store}/{key}"));
        let Some(name) = root.name_of(&place) else {
            continue;
        };
        if !is_alone || is_result_name(&name) {
            return refuse(&place.to_string());
        }
    }
    Ok(())
}

/// Refuses an output that is the store of a job's graph.
///
/// # Errors
/// [`OutputError::OwnInput`].
pub fn check_store(output: &Store, input: &Store) -> Result<(), OutputError> {
    let is_same = match (output.folder(), input.folder()) {
        (Some(output), Some(input)) => real(output) == real(input),
        _ => output.url() == input.url(),
    };
    match is_same {
        false => Ok(()),
        true => Err(OutputError::OwnInput {
            output: output.url().into(),
            input: input.url().into(),
        }),
    }
}

fn is_result_name(name: &str) -> bool {
    name == RESULT_KEY || is_part_key(name) || is_item_key(name)
}

/// Where an output is.
enum Root {
    Folder(PathBuf),
    /// With a slash at its end.
    Prefix(String),
}

/// Where an input is.
enum Place<'a> {
    Path(&'a str),
    Object(&'a str, &'a str),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Path(path) => f.write_str(path),
            Place::Object(store, key) => write!(f, "{store}/{key}"),
        }
    }
}

impl Root {
    fn of(output: &Store) -> Root {
        match output.folder() {
            Some(folder) => Root::Folder(real(folder)),
            None => Root::Prefix(format!("{}/", output.url())),
        }
    }

    /// True if what the user wrote is this folder itself, or a prefix under which parts would be listed too.
    fn is(&self, input: &str) -> bool {
        match self {
            Root::Folder(root) => Path::new(input).is_dir() && real(Path::new(input)) == *root,
            Root::Prefix(root) => {
                input.starts_with("s3://")
                    && (format!("{root}part-").starts_with(input)
                        || format!("{}/", input.trim_end_matches('/')) == *root)
            }
        }
    }

    /// The name of an input that lies directly in the output.
    fn name_of(&self, place: &Place) -> Option<String> {
        match (self, place) {
            (Root::Folder(root), Place::Path(path)) => {
                let path = real(Path::new(path));
                let name = path.file_name()?.to_string_lossy().into_owned();
                (path.parent() == Some(root.as_path())).then_some(name)
            }
            (Root::Prefix(root), Place::Object(store, key)) => {
                let whole = format!("{store}/{key}");
                let name = whole.strip_prefix(root)?;
                (!name.contains('/')).then(|| name.to_string())
            }
            _ => None,
        }
    }
}

/// The path without symbolic links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut rest: Vec<OsString> = Vec::new();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let absolute = without_missing_parents(&absolute);
    let mut known = absolute.as_path();
    loop {
        if let Ok(real) = known.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (known.file_name(), known.parent()) {
            (Some(name), Some(parent)) => {
                rest.push(name.into());
                known = parent;
            }
            _ => return absolute,
        }
    }
}

/// The path without each ".." behind a folder that does not exist, and without that folder: as it is once the folder was made.
fn without_missing_parents(path: &Path) -> PathBuf {
    let mut folded = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if !folded.exists() => drop(folded.pop()),
            component => folded.push(component),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsSettings;
    use std::fs;

    fn file(path: &Path) -> Item {
        Item::File {
            path: path.to_str().unwrap().into(),
            length: 1,
            modified: None,
            crc32c: None,
            part: None,
        }
    }

    async fn store(path: &Path) -> Store {
        let aws = AwsSettings::default();
        Store::open(path.to_str().unwrap(), &aws).await.unwrap()
    }

    #[tokio::test]
    async fn an_output_that_is_the_folder_of_its_input_is_refused_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        for name in ["a.txt", "part-00000.txt", "sub/b.txt"] {
            fs::write(data.join(name), "x").unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let far = folder.path().join("far.txt");
        std::os::unix::fs::symlink(data.join("a.txt"), &far).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_string();
        let refused =
            |error: Result<(), OutputError>| matches!(error, Err(OutputError::OwnInput { .. }));
        for output in [&data, &link, &data.join("."), &data.join("sub/../")] {
            let output = store(output).await;
            for (input, item) in [
                (text(&data), data.join("a.txt")),
                (text(&link), link.join("a.txt")),
                (format!("{}/", text(&data)), data.join("a.txt")),
                (text(&data.join("*.txt")), data.join("a.txt")),
                (text(&link.join("*")), link.join("a.txt")),
                // Named by itself, and what the result would replace.
                (
                    text(&data.join("part-00000.txt")),
                    data.join("part-00000.txt"),
                ),
            ] {
                let item = file(&item);
                assert!(refused(check_inputs(&output, &input, [&item])), "{input}");
            }
            for (input, item) in [
                (text(&data.join("a.txt")), data.join("a.txt")),
                (text(&data.join("sub")), data.join("sub/b.txt")),
                (text(&far), far.clone()),
            ] {
                check_inputs(&output, &input, [&file(&item)]).unwrap();
            }
        }
        for output in [data.join("sub"), folder.path().join("new/out")] {
            let output = store(&output).await;
            let item = file(&data.join("a.txt"));
            check_inputs(&output, &text(&data), [&item]).unwrap();
        }
        let output = store(&folder.path().join("data/new")).await;
        check_store(&output, &store(&data).await).unwrap();
        let error = check_store(&store(&link).await, &store(&data).await);
        assert!(refused(error));
    }

    #[tokio::test]
    async fn an_output_that_is_the_prefix_of_its_input_is_refused() {
        let sdk = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .build();
        let output = Store::open_with("s3://bucket/a/out/", &sdk).await.unwrap();
        let object = |store: &str, key: &str| Item::Object {
            store: store.into(),
            key: key.into(),
            length: 1,
            etag: None,
            crc32c: None,
            part: None,
        };
        for (input, store, key) in [
            ("s3://bucket/a/out", "s3://bucket/a/out", "x"),
            ("s3://bucket/a/out/", "s3://bucket/a/out", "x"),
            ("s3://bucket/a/", "s3://bucket/a", "out/x"),
            ("s3://bucket/a/o", "s3://bucket/a", "out/x"),
            // What is written below is listed too.
            ("s3://bucket/a/", "s3://bucket/a", "y"),
            ("s3://bucket", "s3://bucket", "y"),
            (
                "s3://bucket/a/out/part-00000.tsv",
                "s3://bucket/a/out",
                "part-00000.tsv",
            ),
        ] {
            let item = object(store, key);
            assert!(check_inputs(&output, input, [&item]).is_err(), "{input}");
        }
        for (input, store, key) in [
            ("s3://bucket/a/out2", "s3://bucket/a", "out2/x"),
            ("s3://bucket/a/out/x", "s3://bucket/a/out", "x"),
            ("s3://bucket/a/out/in/", "s3://bucket/a/out/in", "x"),
            ("s3://other/a/out", "s3://other/a/out", "x"),
        ] {
            check_inputs(&output, input, [&object(store, key)]).unwrap();
        }
    }
}
