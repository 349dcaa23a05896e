//! Folders on this machine that other users do not look into: they hold items, programs and whatever functions put there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use tempfile::TempDir;

/// For the owner alone.
const MODE: u32 = 0o700;

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
/// There is no room, or no permission.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(folder)
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
}
