//! Temporary folders of a process, which a later run removes when the process could not.
//!
//! Each folder holds a file that its process keeps locked. The kernel takes the lock away when the process is gone, whatever
//! killed it; so a folder whose file can be locked belongs to nobody. A process id in the name would do less: another process
//! may have the number.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::tree;
use crate::random;

/// What the names of temporary folders begin with: those of the local Lambda, and of the Python client.
pub const PREFIXES: [&str; 2] = [LOCAL, "lswitch-executor-"];

/// A local Lambda's.
pub const LOCAL: &str = "lswitch-local-";

/// The file in a folder that its process keeps locked.
const LOCK: &str = ".lock";

/// How often another name is tried.
const TRIES: usize = 16;

/// How long a folder is removed again and again while a process that was killed still writes into it.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two such tries.
const REMOVE_INTERVAL: Duration = Duration::from_millis(10);

/// How long processes that are left of a run may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A folder of this process, which is removed when this is dropped. Only this user may look into it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Locked until the folder is gone.
    _lock: File,
}

impl Scratch {
    /// Makes a folder in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(prefix: &str) -> io::Result<Scratch> {
        Scratch::new_in(&std::env::temp_dir(), prefix)
    }

    fn new_in(place: &Path, prefix: &str) -> io::Result<Scratch> {
        for _ in 0..TRIES {
            let name = format!("{prefix}{}", random::to_hex(&random::bytes::<6>()));
            let path = place.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            match create_lock(&path) {
                Ok(Some(lock)) => return Ok(Scratch { path, _lock: lock }),
                // Another run took it for one that nobody has, between these two lines.
                Ok(None) => continue,
                Err(error) => {
                    let _ = fs::remove_dir_all(&path);
                    return Err(error);
                }
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_lock_last(&self.path) {
            let folder = self.path.display();
            tracing::warn!("cannot remove {folder}: {error}; \"lswitch clean\" will");
        }
    }
}

/// Makes and locks the file that says that the folder has an owner; `None` if another process has taken the folder.
fn create_lock(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    let lock = match File::options().write(true).create_new(true).open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match try_lock(&lock) {
        Lock::Taken if is_at(&lock, &path) => Ok(Some(lock)),
        // A file system without locks: nobody can take the folder for one without an owner either.
        Lock::Impossible => Ok(Some(lock)),
        _ => Ok(None),
    }
}

/// What came of locking a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Lock {
    /// This process has the lock.
    Taken,
    /// Another process has it.
    Held,
    /// The file system has none, or the system has no more.
    Impossible,
}

/// Locks a file for as long as it is open, if nobody has locked it.
pub fn try_lock(file: &File) -> Lock {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Taken,
        Err(rustix::io::Errno::WOULDBLOCK) => Lock::Held,
        Err(_) => Lock::Impossible,
    }
}

/// True as long as the path is the open file's.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// A temporary folder whose process is gone. It is this process's now, and stays until [`Abandoned::remove`].
#[derive(Debug)]
pub struct Abandoned {
    path: PathBuf,
    _lock: File,
}

impl Abandoned {
    /// Bytes of the files in it, as far as they can be looked at.
    pub fn bytes(&self) -> u64 {
        folder_bytes(&self.path)
    }

    /// Ends processes that are left of its run, and removes it.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        tree::kill_marked(&self.path, KILL_TIMEOUT);
        remove_lock_last(&self.path)
    }
}

/// This user's temporary folders whose processes are gone.
pub fn abandoned() -> Vec<Abandoned> {
    abandoned_in(&std::env::temp_dir())
}

/// Removes the temporary folders of this user whose processes are gone, and what is left of their runs.
pub fn sweep() {
    for folder in abandoned() {
        let shown = folder.path.display().to_string();
        match folder.remove() {
            Ok(()) => tracing::debug!("removed {shown}, which a process that was killed has left"),
            Err(error) => tracing::warn!("cannot remove {shown}: {error}"),
        }
    }
}

fn abandoned_in(place: &Path) -> Vec<Abandoned> {
    let user = rustix::process::geteuid().as_raw();
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    // Of a link, and not of what it names.
    let own = named.filter(|entry| {
        let metadata = entry.metadata();
        metadata.is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user)
    });
    own.filter_map(|entry| {
        let path = entry.path();
        let mut options = File::options();
        options.read(true);
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        // One without a lock is being made, or of a release that had none.
        let lock = options.custom_flags(no_link).open(path.join(LOCK)).ok()?;
        let is_free = try_lock(&lock) == Lock::Taken && is_at(&lock, &path.join(LOCK));
        is_free.then_some(Abandoned { path, _lock: lock })
    })
    .collect()
}

/// Removes a scratch folder, its lock last: what a removal that was cut off has left is still found by it.
fn remove_lock_last(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_name() == LOCK {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_folder(&entry.path())?,
            _ => fs::remove_file(entry.path())?,
        }
    }
    remove_folder(path)
}

/// Removes a folder and all in it, again while something that ends just now still writes into it.
///
/// # Errors
/// When it is still there after two seconds.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                // What a function has made unreadable is its owner's still.
                make_removable(path);
            }
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
        std::thread::sleep(REMOVE_INTERVAL);
    }
}

fn make_removable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_removable(&entry.path());
        }
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_its_owners_alone_and_goes_with_it() {
        let place = tempfile::tempdir().unwrap();
        let scratch = Scratch::new_in(place.path(), LOCAL).unwrap();
        let mode = fs::metadata(scratch.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let locked = scratch.path().join("tmp");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        assert!(abandoned_in(place.path()).is_empty(), "it has an owner");
        drop(scratch);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_folders_without_an_owner_are_abandoned() {
        let place = tempfile::tempdir().unwrap();
        let living = Scratch::new_in(place.path(), LOCAL).unwrap();
        let abandon = |name: &str| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(LOCK), "").unwrap();
            folder
        };
        let dead = abandon("lswitch-local-x");
        fs::create_dir(dead.join("tmp")).unwrap();
        fs::write(dead.join("tmp/file"), "123").unwrap();
        let other = abandon("of-somebody-else");
        fs::create_dir(place.path().join("lswitch-local-without-lock")).unwrap();
        std::os::unix::fs::symlink(&other, place.path().join("lswitch-local-link")).unwrap();

        let mut found = abandoned_in(place.path());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(abandoned_in(place.path()).is_empty(), "it is taken");
        let found = found.pop().unwrap();
        assert_eq!((&found.path, found.bytes()), (&dead, 3));
        found.remove().unwrap();
        assert!(!dead.exists() && living.path().exists() && other.exists());
    }
}
