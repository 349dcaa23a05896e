//! What several themes need.

use std::path::PathBuf;

/// A file of the test data, below `$LSWITCH_DATA` or `../shared/data` beside the repository. Data are not part of
/// the repository: without them a test says so and passes, except in CI, where that would hide that nothing ran.
pub fn data(path: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let found = std::env::var_os("LSWITCH_DATA")
        .map_or_else(beside, PathBuf::from)
        .join(path);
    if found.exists() {
        return Some(found);
    }
    let missing = format!(
        "{} does not exist; set LSWITCH_DATA to the test data",
        found.display()
    );
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        panic!("{missing}");
    }
    eprintln!("skipped: {missing}");
    None
}
