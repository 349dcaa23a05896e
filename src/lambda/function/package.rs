//! The zip file with a function's code: the same bytes for the same code, so that their hash tells whether it has changed.

use super::{Architecture, CUSTOM, OWN, Runtime, elf, python};
use crate::private;
use base64::Engine;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};
use thiserror::Error;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Lambda's limit for what the files of a package have together, in bytes.
const UNZIPPED_MAX: u64 = 250 << 20;

/// Lambda's limit for a package that comes with the call, in bytes; a longer one lies in S3.
pub const DIRECT_MAX: usize = 50_000_000;

/// What to package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What runs it.
    pub runtime: Runtime,
    /// The program that becomes `bootstrap`, for a runtime that has none of its own.
    pub bootstrap: PathBuf,
    /// That program is the one that packages.
    pub is_own: bool,
    /// What AWS's runtime calls, for one that does so.
    pub handler: Option<String>,
    /// What pip installs.
    pub requirements: Option<PathBuf>,
    /// Further files and folders: each by its own name at the root of the package, and a folder whose path ends with a slash
    /// without its own name.
    pub include: Vec<PathBuf>,
    /// The machine that it must be for.
    pub architecture: Option<Architecture>,
}

/// A package.
#[derive(Debug, Clone)]
pub struct Package {
    /// The zip file.
    pub zip: Vec<u8>,
    /// Its SHA-256 in base64, as Lambda tells it.
    pub sha256: String,
    /// The machine that it is for.
    pub architecture: Architecture,
    /// [`OWN`] or [`CUSTOM`].
    pub kind: &'static str,
    /// How many files it has.
    pub files: usize,
    /// Their bytes.
    pub unzipped: u64,
}

/// Why there is no package.
#[derive(Debug, Error)]
pub enum PackageError {
    /// A file or folder.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Lambda would not run it.
    #[error("{} cannot be a function's bootstrap: {problem}", path.display())]
    Unfit {
        /// The program.
        path: PathBuf,
        /// Why not, and what to do.
        problem: String,
    },
    /// What the user said does not fit.
    #[error("{0}")]
    Usage(String),
    /// pip.
    #[error("pip could not install the requirements: {0}")]
    Pip(String),
    /// It is too much for Lambda.
    #[error(
        "the package's files have {bytes} bytes, and Lambda takes {UNZIPPED_MAX}; the longest is {longest}"
    )]
    TooLarge {
        /// Bytes of all.
        bytes: u64,
        /// Path of the longest.
        longest: String,
    },
    /// The zip file.
    #[error("cannot make the zip file: {0}")]
    Zip(#[from] zip::result::ZipError),
}

/// A file of the package.
struct File {
    bytes: Vec<u8>,
    executable: bool,
}

/// Makes the package.
///
/// # Errors
/// When something cannot be read, would not run on Lambda, or is too much for it.
pub fn package(contents: &Contents) -> Result<Package, PackageError> {
    let mut files = BTreeMap::new();
    let mut architecture = contents.architecture;
    match &contents.runtime {
        Runtime::Python(version) => {
            let asked = architecture.unwrap_or(Architecture::X86_64);
            architecture = Some(asked);
            if let Some(requirements) = &contents.requirements {
                let folder = private::temporary_folder("lswitch-package-").map_err(|source| {
                    PackageError::Read {
                        path: std::env::temp_dir(),
                        source,
                    }
                })?;
                python::install(requirements, version, asked, folder.path())?;
                add(&mut files, folder.path(), "")?;
            }
            for (path, bytes) in python::client() {
                let executable = false;
                files.insert(path, File { bytes, executable });
            }
        }
        provided => {
            if contents.requirements.is_some() {
                let what = "--requirements is for functions in Python; say --runtime python3.x";
                return Err(PackageError::Usage(what.into()));
            }
            let path = &contents.bootstrap;
            let bytes = read(path)?;
            let found = fit(&bytes, provided, architecture);
            let found = found.map_err(|problem| PackageError::Unfit {
                path: path.clone(),
                problem,
            })?;
            architecture = architecture.or(found);
            let executable = true;
            files.insert("bootstrap".into(), File { bytes, executable });
        }
    }
    let alone = contents.include.is_empty() && contents.runtime.glibc().is_some();
    let kind = match alone && contents.is_own {
        true => OWN,
        false => CUSTOM,
    };
    for path in &contents.include {
        let name = match path.to_string_lossy().ends_with('/') {
            true => "",
            false => path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default(),
        };
        add(&mut files, path, name)?;
    }
    if let (Runtime::Python(_), Some(handler)) = (&contents.runtime, &contents.handler) {
        check_handler(handler, &files)?;
    }
    let unzipped: u64 = files.values().map(|file| file.bytes.len() as u64).sum();
    if unzipped > UNZIPPED_MAX {
        let longest = files.iter().max_by_key(|(_, file)| file.bytes.len());
        return Err(PackageError::TooLarge {
            bytes: unzipped,
            longest: longest.map(|(path, _)| path.clone()).unwrap_or_default(),
        });
    }
    let count = files.len();
    let zip = compress(files)?;
    Ok(Package {
        sha256: base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&zip)),
        zip,
        architecture: architecture.unwrap_or(Architecture::X86_64),
        kind,
        files: count,
        unzipped,
    })
}

/// The machine of a bootstrap that `runtime` can run; none for a script, which runs on both.
fn fit(
    bytes: &[u8],
    runtime: &Runtime,
    wanted: Option<Architecture>,
) -> Result<Option<Architecture>, String> {
    const OTHER: &str = "\"make lambda-zip\" builds one that fits, and --bootstrap FILE takes it";
    if bytes.starts_with(b"#!") {
        return Ok(None);
    }
    let program = elf::read(bytes).map_err(|what| format!("it is {what}; {OTHER}"))?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != program.architecture) {
        let found = program.architecture;
        return Err(format!(
            "it is for {found}, and the function for {wanted}; {OTHER}"
        ));
    }
    match (program.glibc, runtime.glibc()) {
        (Some(needed), Some(there)) if needed > there => Err(format!(
            "it needs the C library glibc {}.{}, and {runtime} has {}.{}; {OTHER}",
            needed.0, needed.1, there.0, there.1
        )),
        _ => Ok(Some(program.architecture)),
    }
}

/// `module.function` must be a file of the package, or it fails when it is too late to say so.
fn check_handler(handler: &str, files: &BTreeMap<String, File>) -> Result<(), PackageError> {
    let module = handler.rsplit_once('.').map_or("", |(module, _)| module);
    let path = module.replace('.', "/");
    let is_there = files.contains_key(&format!("{path}.py"))
        || files.contains_key(&format!("{path}/__init__.py"));
    if is_there {
        return Ok(());
    }
    Err(PackageError::Usage(format!(
        "--handler {handler} needs {path}.py in the package; add it with --include"
    )))
}

fn read(path: &Path) -> Result<Vec<u8>, PackageError> {
    fs::read(path).map_err(|source| PackageError::Read {
        path: path.into(),
        source,
    })
}

/// Adds a file, or all files of a folder, under `name`. What Python has compiled for itself stays out.
fn add(files: &mut BTreeMap<String, File>, path: &Path, name: &str) -> Result<(), PackageError> {
    let failed = |source| PackageError::Read {
        path: path.into(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let below = entry.file_name();
            let Some(below) = below.to_str() else {
                let what = format!("{}: a package's names are UTF-8", entry.path().display());
                return Err(PackageError::Usage(what));
            };
            if below == "__pycache__" {
                continue;
            }
            let below = match name {
                "" => below.to_string(),
                _ => format!("{name}/{below}"),
            };
            add(files, &entry.path(), &below)?;
        }
        return Ok(());
    }
    let file = File {
        bytes: read(path)?,
        executable: is_executable(&metadata),
    };
    if files.insert(name.to_string(), file).is_some() {
        let what = format!(
            "{name} is in the package twice; the other one is not {}",
            path.display()
        );
        return Err(PackageError::Usage(what));
    }
    Ok(())
}

fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

fn compress(files: BTreeMap<String, File>) -> Result<Vec<u8>, PackageError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, file) in files {
        // Neither when nor by whom a file was written is part of the code.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(9))
            .last_modified_time(DateTime::DEFAULT)
            .unix_permissions(if file.executable { 0o755 } else { 0o644 });
        zip.start_file(path, options)?;
        zip.write_all(&file.bytes)
            .map_err(zip::result::ZipError::from)?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use zip::ZipArchive;

    fn script(folder: &Path) -> Contents {
        let bootstrap = folder.join("program");
        fs::write(&bootstrap, "#!/bin/sh\n").expect("it can be written");
        Contents {
            runtime: Runtime::ProvidedAl2023,
            bootstrap,
            is_own: true,
            handler: None,
            requirements: None,
            include: Vec::new(),
            architecture: None,
        }
    }

    fn python(include: Vec<PathBuf>, handler: &str) -> Contents {
        Contents {
            runtime: Runtime::Python("3.12".into()),
            bootstrap: PathBuf::new(),
            is_own: false,
            handler: Some(handler.into()),
            requirements: None,
            include,
            architecture: None,
        }
    }

    fn names(package: &Package) -> Vec<String> {
        let archive = ZipArchive::new(Cursor::new(&package.zip)).expect("it is a zip file");
        let names = archive.file_names();
        names
            .map(|name| name.expect("it is UTF-8").into_owned())
            .collect()
    }

    #[test]
    fn the_same_code_is_the_same_package_and_can_be_run() {
        let folder = tempfile::tempdir().expect("there is room");
        let contents = script(folder.path());
        let first = package(&contents).expect("it is a program");
        // Neither the time of writing nor the place is part of it.
        let other = tempfile::tempdir().expect("there is room");
        std::thread::sleep(std::time::Duration::from_millis(20));
        let second = package(&script(other.path())).expect("it is a program");
        assert_eq!((&first.sha256, first.kind), (&second.sha256, OWN));
        let mut archive = ZipArchive::new(Cursor::new(&first.zip)).expect("it is a zip file");
        let mut bootstrap = archive.by_name("bootstrap").expect("it is there");
        assert_eq!(bootstrap.unix_mode().map(|mode| mode & 0o777), Some(0o755));
        let mut text = String::new();
        bootstrap.read_to_string(&mut text).expect("it can be read");
        assert_eq!(text, "#!/bin/sh\n");
    }

    #[test]
    fn files_and_folders_come_along_by_their_names() {
        let folder = tempfile::tempdir().expect("there is room");
        let more = folder.path().join("more");
        fs::create_dir_all(more.join("deep/__pycache__")).expect("there is room");
        for path in ["a.txt", "deep/b.txt", "deep/__pycache__/c.pyc"] {
            fs::write(more.join(path), path).expect("there is room");
        }
        let mut contents = script(folder.path());
        contents.include = vec![more.clone()];
        let named = package(&contents).expect("all is there");
        assert_eq!(
            names(&named),
            ["bootstrap", "more/a.txt", "more/deep/b.txt"]
        );
        assert_eq!(named.kind, CUSTOM);
        contents.include = vec![format!("{}/", more.display()).into(), more.join("deep")];
        let twice = package(&contents).expect_err("deep/b.txt is there twice");
        assert!(
            twice
                .to_string()
                .contains("deep/b.txt is in the package twice")
        );
        contents.include.truncate(1);
        let bare = package(&contents).expect("all is there");
        assert_eq!(names(&bare), ["a.txt", "bootstrap", "deep/b.txt"]);
        contents.include = vec![folder.path().join("none")];
        assert!(matches!(package(&contents), Err(PackageError::Read { .. })));
    }

    #[test]
    fn a_function_in_python_has_the_client_and_its_handler() {
        let folder = tempfile::tempdir().expect("there is room");
        let app = folder.path().join("app.py");
        fs::write(&app, "def handler(event, context): pass\n").expect("there is room");
        let made = package(&python(vec![app.clone()], "app.handler")).expect("all is there");
        let names = names(&made);
        assert!(names.contains(&"app.py".to_string()));
        assert!(names.contains(&"lswitch/__init__.py".to_string()));
        let missing = package(&python(vec![app], "other.handler")).expect_err("there is no such");
        assert!(missing.to_string().contains("needs other.py"), "{missing}");
    }

    #[test]
    fn a_program_that_would_not_start_is_refused() {
        let own = std::env::current_exe().expect("it has a path");
        let own = fs::read(own).expect("it can be read");
        let other = match elf::read(&own).expect("it is a program").architecture {
            Architecture::X86_64 => Architecture::Arm64,
            Architecture::Arm64 => Architecture::X86_64,
        };
        let refusal = fit(&own, &Runtime::ProvidedAl2023, Some(other)).expect_err("it is not");
        assert!(refusal.contains("and the function for"), "{refusal}");
        if cfg!(target_env = "gnu") && elf::read(&own).is_ok_and(|own| own.glibc > Some((2, 26))) {
            let refusal = fit(&own, &Runtime::ProvidedAl2, None).expect_err("it is too new");
            assert!(refusal.contains("provided.al2 has 2.26"), "{refusal}");
        }
    }
}
