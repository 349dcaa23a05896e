//! Folders on this machine that other users do not look into: they hold items, programs and whatever functions put there.

use rustix::process::geteuid;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tempfile::TempDir;

/// For the owner alone.
const MODE: u32 = 0o700;
const OTHERS_WRITE: u32 = 0o002;

/// A fresh temporary folder, which is removed with the value. Its name begins with `prefix`.
///
/// # Errors
/// There is no room, or no permission.
pub fn temporary_folder(prefix: &str) -> io::Result<TempDir> {
    builder().prefix(prefix).tempdir()
}

/// The same within another folder.
///
/// # Errors
/// There is no room, or no permission.
pub fn temporary_folder_in(folder: &Path) -> io::Result<TempDir> {
    builder().tempdir_in(folder)
}

/// Makes a folder, and those above it, unless it is there.
///
/// # Errors
/// There is no room, or no permission; or it is there and another user may change what is in it.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    let is_own = found.uid() == geteuid().as_raw() && found.mode() & OTHERS_WRITE == 0;
    if found.is_dir() && is_own {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} is there already, and other users may write to it; delete it",
            folder.display()
        ),
    ))
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.permissions(Permissions::from_mode(MODE));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_their_owners_alone() {
        let outer = temporary_folder("lswitch-test-").expect("there is room");
        let inner = temporary_folder_in(outer.path()).expect("there is room");
        let made = outer.path().join("above/below");
        make_folder(&made).expect("there is room");
        make_folder(&made).expect("it is there already");
        for path in [
            outer.path(),
            inner.path(),
            &made,
            &outer.path().join("above"),
        ] {
            let mode = fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, MODE, "{}", path.display());
        }
    }

    #[test]
    fn a_folder_in_which_others_may_write_is_not_used() {
        let outer = temporary_folder("lswitch-test-").expect("there is room");
        let open = outer.path().join("open");
        make_folder(&open).expect("there is room");
        fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("it is ours");
        let link = outer.path().join("link");
        std::os::unix::fs::symlink(outer.path(), &link).expect("there is room");
        for folder in [open, link] {
            let error = make_folder(&folder).expect_err("others may write to it");
            assert!(error.to_string().contains("other users"), "{error}");
        }
        if geteuid().is_root() {
            let other = outer.path().join("other");
            make_folder(&other).expect("there is room");
            std::os::unix::fs::chown(&other, Some(65534), None).expect("root may");
            make_folder(&other).expect_err("it is another user's");
        }
    }
}
