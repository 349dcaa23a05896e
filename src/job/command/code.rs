//! The program of a map on its way to the workers: put into the store once for each content, checked and made ready by each
//! worker before any item runs.

use crate::job::context::{BlockingStore, Context};
use crate::job::program::ProgramError;
use crate::private;
use crate::random::to_hex;
use crate::store::{Entry, Store, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use thiserror::Error;

/// The largest program, unpacked, in bytes: what Lambda's temporary folder has room for at least.
pub const CODE_MAX: u64 = 400 << 20;

/// What was stored longer ago is stored again before it is used.
const FRESH: Duration = Duration::from_secs(3600);

/// Where a worker keeps what it has unpacked, below its temporary folder. Environments are reused.
const CACHE: &str = "lswitch-code";

/// What travels of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The SHA-256 of the object, which is its name.
    pub sha256: String,
    /// The object is an archive (tar) of a folder, and not the program itself.
    pub folder: bool,
    /// The program's name, within the folder if there is one.
    pub program: String,
}

/// Why a program cannot travel.
#[derive(Debug, Error)]
pub enum CodeError {
    /// A file or folder.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is not what can be run.
    #[error("{0}")]
    Unfit(String),
    /// What is in the store under its name is something else.
    #[error("{0} has another value than its name says; delete it and start the job again")]
    Damaged(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Code {
    /// Puts a program, or a folder with it, into the store, unless it is there.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or cannot be stored.
    pub async fn upload(
        program: &str,
        folder: Option<&Path>,
        store: &Store,
    ) -> Result<Code, CodeError> {
        let (bytes, name) = match folder {
            Some(folder) => (archive(folder)?, program.to_string()),
            None => {
                let path = Path::new(program);
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                (read(path)?, name.into_owned())
            }
        };
        let sha256 = to_hex(&Sha256::digest(&bytes));
        let key = key(&sha256);
        // What is used is young, so that nobody takes it for left over.
        let there = store.list(&key).await?;
        let is_old = |entry: &Entry| entry.modified.elapsed().is_ok_and(|age| age > FRESH);
        if there.iter().any(is_old) {
            store.put(&key, bytes.clone().into()).await?;
        }
        if !store.put_if_absent(&key, bytes.into()).await? {
            return Err(CodeError::Damaged(store.object_url(&key)));
        }
        Ok(Code {
            sha256,
            folder: folder.is_some(),
            program: name,
        })
    }

    /// The program on this worker's disk, fetched if it is not there or is not what it was. An environment serves many
    /// jobs, and what ran in it may have changed its files.
    ///
    /// # Errors
    /// When it cannot be fetched, is damaged, or cannot be unpacked.
    pub fn fetch(&self, context: &Context) -> Result<PathBuf, ProgramError> {
        let cache = std::env::temp_dir().join(CACHE);
        let wrong = |error: io::Error| {
            ProgramError::new(format!(
                "cannot put the program into {}: {error}",
                cache.display()
            ))
        };
        // Before what is there is taken: a temporary folder may be shared with other users.
        private::make_folder(&cache).map_err(wrong)?;
        if self.is_intact(&cache) {
            return Ok(cache.join(&self.sha256).join(&self.program));
        }
        let store = context.store()?;
        let bytes = self.download(&store)?;
        self.unpack(&bytes, &cache).map_err(wrong)
    }

    /// Puts the program into the cache, and gives its path.
    fn unpack(&self, bytes: &[u8], cache: &Path) -> io::Result<PathBuf> {
        let place = cache.join(&self.sha256);
        // Whole or not at all: another worker of this machine may be at it too.
        let unpacked = private::temporary_folder_in(cache)?;
        if self.folder {
            tar::Archive::new(bytes).unpack(unpacked.path())?;
        } else {
            let file = unpacked.path().join(&self.program);
            fs::write(&file, bytes)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        if self.folder {
            let mut list = tempfile::NamedTempFile::new_in(cache)?;
            list.write_all(file_list(unpacked.path())?.as_bytes())?;
            list.persist(self.list(cache))?;
        }
        let unpacked = unpacked.keep();
        let mut renamed = fs::rename(&unpacked, &place);
        if renamed.is_err() && place.is_dir() && !self.is_intact(cache) {
            let former = tempfile::tempdir_in(cache)?;
            fs::rename(&place, former.path().join("former"))?;
            renamed = fs::rename(&unpacked, &place);
        }
        match renamed {
            Ok(()) => {}
            Err(_) if self.is_intact(cache) => drop(fs::remove_dir_all(&unpacked)),
            Err(error) => return Err(error),
        }
        Ok(place.join(&self.program))
    }

    /// The list of the files that were unpacked, with their checksums.
    fn list(&self, cache: &Path) -> PathBuf {
        cache.join(format!("{}.list", self.sha256))
    }

    /// True if the cache has all files of the program as they were unpacked. Further files, such as an interpreter writes
    /// beside its modules, do not matter.
    fn is_intact(&self, cache: &Path) -> bool {
        let place = cache.join(&self.sha256);
        if !self.folder {
            let found = file_sha256(&place.join(&self.program));
            return found.as_ref() == Some(&self.sha256);
        }
        let Ok(list) = fs::read_to_string(self.list(cache)) else {
            return false;
        };
        let Some((sum, lines)) = list.split_once('\n') else {
            return false;
        };
        sum == to_hex(&Sha256::digest(lines))
            && lines.lines().all(|line| match line.split_once(' ') {
                Some((sum, path)) => file_sha256(&place.join(path)).as_deref() == Some(sum),
                None => false,
            })
    }

    fn download(&self, store: &BlockingStore) -> Result<Bytes, ProgramError> {
        let key = key(&self.sha256);
        let bytes = store.get(&key)?;
        let found = to_hex(&Sha256::digest(&bytes));
        if found == self.sha256 {
            return Ok(bytes);
        }
        Err(ProgramError::new(format!(
            "{} is damaged: its SHA-256 is {found}; delete it and start the job again",
            store.object_url(&key)
        )))
    }
}

/// The SHA-256 of a file; none if it cannot be read or is larger than a program may be.
pub fn file_sha256(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    if file.metadata().ok()?.len() > CODE_MAX {
        return None;
    }
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Some(to_hex(&hash.finalize())),
            Ok(count) => hash.update(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// A line for each file of a folder: its SHA-256, a space, and its path. Before them the SHA-256 of these lines.
fn file_list(folder: &Path) -> io::Result<String> {
    let mut lines = String::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(relative) = folders.pop() {
        for entry in fs::read_dir(folder.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            // A name that is no text, or has a line end, is not in the list, and its file is not compared.
            let name = path.to_str().filter(|name| !name.contains('\n'));
            if let (Some(name), Some(sum)) = (name, file_sha256(&folder.join(&path))) {
                lines += &format!("{sum} {name}\n");
            }
        }
    }
    Ok(format!("{}\n{lines}", to_hex(&Sha256::digest(&lines))))
}

/// The name of a program's object.
fn key(sha256: &str) -> String {
    format!("code/{sha256}")
}

fn read(path: &Path) -> Result<Vec<u8>, CodeError> {
    let failed = |source| CodeError::Read {
        path: path.display().to_string(),
        source,
    };
    let length = fs::metadata(path).map_err(failed)?.len();
    fits(path, length)?;
    fs::read(path).map_err(failed)
}

fn fits(path: &Path, length: u64) -> Result<(), CodeError> {
    if length <= CODE_MAX {
        return Ok(());
    }
    Err(CodeError::Unfit(format!(
        "{} has {length} bytes, over the limit of {CODE_MAX} for programs; put data into the store",
        path.display()
    )))
}

/// A folder as an archive that is the same for the same contents: by name, without times and owners.
fn archive(folder: &Path) -> Result<Vec<u8>, CodeError> {
    let failed = |path: &Path, source| CodeError::Read {
        path: path.display().to_string(),
        source,
    };
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(true);
    builder.mode(tar::HeaderMode::Deterministic);
    let mut folders = vec![PathBuf::new()];
    let mut length = 0;
    while let Some(relative) = folders.pop() {
        let here = folder.join(&relative);
        let entries = fs::read_dir(&here).map_err(|error| failed(&here, error))?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|error| failed(&here, error))?.file_name());
        }
        names.sort_unstable();
        for name in names {
            let (path, relative) = (here.join(&name), relative.join(&name));
            let kind = fs::metadata(&path).map_err(|error| failed(&path, error))?;
            if kind.is_dir() {
                folders.push(relative);
                continue;
            }
            length += kind.len();
            fits(folder, length)?;
            builder
                .append_path_with_name(&path, &relative)
                .map_err(|error| failed(&path, error))?;
        }
    }
    builder.into_inner().map_err(|error| failed(folder, error))
}

/// Looks for what would keep a program from running here, before any item is tried: another processor's code, a missing
/// interpreter, missing libraries.
///
/// # Errors
/// Names what is missing.
pub fn check(program: &Path) -> Result<(), String> {
    let name = program.display();
    let mut head = Vec::new();
    fs::File::open(program)
        .and_then(|file| file.take(4096).read_to_end(&mut head))
        .map_err(|error| format!("cannot read the program {name}: {error}"))?;
    let mode = fs::metadata(program).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o111 == 0 {
        return Err(format!("{name} is not executable; chmod +x it"));
    }
    if let Some(line) = head.strip_prefix(b"#!") {
        return check_script(program, line);
    }
    if let Some(machine) = elf_machine(&head) {
        return check_binary(program, machine);
    }
    Err(format!(
        "{name} is neither a program of Linux nor a script that begins with #!"
    ))
}

fn check_script(program: &Path, line: &[u8]) -> Result<(), String> {
    let name = program.display();
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let interpreter = words.next().unwrap_or_default();
    if !Path::new(interpreter).exists() {
        return Err(format!(
            "{name} wants the interpreter {interpreter:?}, which is not here"
        ));
    }
    if interpreter.ends_with("/env")
        && let Some(wanted) = words.find(|word| !word.starts_with('-') && !word.contains('='))
        && find(wanted).is_none()
    {
        return Err(format!(
            "{name} wants the interpreter {wanted}, which is not on the path here"
        ));
    }
    Ok(())
}

/// The machine that an ELF file is for, as its name here and its number.
fn elf_machine(head: &[u8]) -> Option<(&'static str, u16)> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let number = u16::from_le_bytes([*head.get(18)?, *head.get(19)?]);
    let name = match number {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => "another machine",
    };
    Some((name, number))
}

fn check_binary(program: &Path, (machine, _): (&str, u16)) -> Result<(), String> {
    let name = program.display();
    let here = std::env::consts::ARCH;
    if machine != here {
        return Err(format!(
            "{name} is made for {machine}, and workers are {here}; build it for {here}, or use a function of the other kind"
        ));
    }
    // The loader itself says what is missing. A program without one needs none.
    let Some(loader) = loader(program) else {
        return Ok(());
    };
    if !Path::new(&loader).exists() {
        return Err(format!(
            "{name} wants the loader {loader}, which is not here; link it statically"
        ));
    }
    let Ok(output) = Command::new(&loader).arg("--list").arg(program).output() else {
        return Ok(());
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let missing: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("not found") || line.contains("cannot open shared object"))
        .map(str::trim)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{name} lacks libraries here: {}",
        missing.join("; ")
    ))
}

/// The loader that a 64-bit little-endian ELF file names.
fn loader(program: &Path) -> Option<String> {
    const INTERPRETER: u32 = 3;
    let mut file = fs::File::open(program).ok()?;
    let mut head = vec![0; 64 << 10];
    let length = file.read(&mut head).ok()?;
    head.truncate(length);
    let u16_at = |at: usize| Some(u16::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let (table, width, count) = (u64_at(32)? as usize, u16_at(54)? as usize, u16_at(56)?);
    for number in 0..count as usize {
        let at = table.checked_add(number * width)?;
        let kind = u32::from_le_bytes(*head.get(at..)?.first_chunk()?);
        if kind != INTERPRETER {
            continue;
        }
        let (from, length) = (u64_at(at + 8)? as usize, u64_at(at + 32)? as usize);
        let name = head.get(from..from.checked_add(length)?)?;
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        return String::from_utf8(name.to_vec()).ok();
    }
    None
}

/// A program by its name, on the path of this process.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("program");
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, file)
    }

    #[test]
    fn what_would_not_run_is_named() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let (_folder, file) = program(&own);
        check(&file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(check(&file).unwrap_err().contains("chmod +x"));

        let mut foreign = own[..4096].to_vec();
        foreign[18] = 243;
        let (_folder, file) = program(&foreign);
        assert!(check(&file).unwrap_err().contains("made for riscv64"));

        for (script, missing) in [
            ("#!/bin/sh\nexit 0\n", None),
            ("#!/usr/bin/env sh\n", None),
            ("#!/nowhere/python\n", Some("/nowhere/python")),
            ("#!/usr/bin/env python-of-mars\n", Some("python-of-mars")),
            ("echo no first line\n", Some("neither a program")),
        ] {
            let (_folder, file) = program(script.as_bytes());
            match (check(&file), missing) {
                (Ok(()), None) => {}
                (Err(what), Some(missing)) => assert!(what.contains(missing), "{what}"),
                other => panic!("{script}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_program_in_the_cache_that_has_changed_is_unpacked_again() {
        let (source, _) = program(b"#!/bin/sh\nexec ./more/data\n");
        fs::create_dir(source.path().join("more")).unwrap();
        fs::write(source.path().join("more/data"), b"data").unwrap();
        let tar = archive(source.path()).unwrap();
        let cache = tempfile::tempdir().unwrap();
        for (folder, bytes) in [(true, &tar[..]), (false, b"#!/bin/sh\n")] {
            let code = Code {
                sha256: to_hex(&Sha256::digest(bytes)),
                folder,
                program: "program".into(),
            };
            assert!(!code.is_intact(cache.path()), "there is none");
            let path = code.unpack(bytes, cache.path()).unwrap();
            assert!(code.is_intact(cache.path()));
            // What an interpreter adds does not matter.
            fs::write(path.with_file_name("program.pyc"), "more").unwrap();
            assert!(code.is_intact(cache.path()));
            let right = fs::read(&path).unwrap();
            let spoil: [&dyn Fn(); 3] = [
                &|| fs::write(&path, "#!/bin/sh\nexec true").unwrap(),
                &|| fs::remove_file(&path).unwrap(),
                &|| match folder {
                    true => fs::write(code.list(cache.path()), "0\n").unwrap(),
                    false => fs::write(&path, "").unwrap(),
                },
            ];
            for spoil in spoil {
                spoil();
                assert!(!code.is_intact(cache.path()));
                assert_eq!(code.unpack(bytes, cache.path()).unwrap(), path);
                assert!(code.is_intact(cache.path()));
                assert_eq!(fs::read(&path).unwrap(), right);
            }
        }
        let left = fs::read_dir(cache.path()).unwrap().count();
        assert_eq!(left, 3, "two programs, and the list of the folder");
    }

    #[test]
    fn the_same_folder_is_the_same_archive() {
        let (folder, file) = program(b"#!/bin/sh\n");
        fs::create_dir(folder.path().join("more")).unwrap();
        fs::write(folder.path().join("more/data"), b"data").unwrap();
        let first = archive(folder.path()).unwrap();
        fs::File::open(&file)
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!(archive(folder.path()).unwrap() == first);
        let other = tempfile::tempdir().unwrap();
        tar::Archive::new(&first[..]).unpack(other.path()).unwrap();
        assert_eq!(fs::read(other.path().join("more/data")).unwrap(), b"data");
        check(&other.path().join("program")).unwrap();
    }
}
