//! The Python side of a package: lswitch's own client, which is in this program, and what a user's requirements name.

use super::Architecture;
use super::package::PackageError;
use rust_embed::RustEmbed;
use std::path::Path;
use std::process::{Command, Stdio};

/// The client's source files.
#[derive(RustEmbed)]
#[folder = "python/src"]
struct Client;

/// The client's files, by path in the package.
pub fn client() -> Vec<(String, Vec<u8>)> {
    let is_source = |path: &str| path.ends_with(".py") || path.ends_with("/py.typed");
    Client::iter()
        .filter(|path| is_source(path))
        .filter_map(|path| Some((path.to_string(), Client::get(&path)?.data.into_owned())))
        .collect()
}

/// Installs what `requirements` names into `folder`, built for AWS's Python `version`. Asks the pip of this machine's Python.
///
/// # Errors
/// When there is no pip, or it fails; its own words are in the error.
pub fn install(
    requirements: &Path,
    version: &str,
    architecture: Architecture,
    folder: &Path,
) -> Result<(), PackageError> {
    let machine = match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Arm64 => "aarch64",
    };
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args([
        "--implementation",
        "cp",
        "--only-binary=:all:",
        "--no-compile",
    ])
    .args(["--python-version", version]);
    // AWS's newer images have glibc 2.34, the others 2.26; pip takes what fits the first of these that has a wheel.
    let minor: u32 = version
        .rsplit('.')
        .next()
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(0);
    if minor >= 12 {
        pip.args(["--platform", &format!("manylinux_2_34_{machine}")]);
        pip.args(["--platform", &format!("manylinux_2_28_{machine}")]);
    }
    let output = pip
        .args(["--platform", &format!("manylinux_2_17_{machine}")])
        .args(["--platform", &format!("manylinux2014_{machine}")])
        .arg("--target")
        .arg(folder)
        .arg("--requirement")
        .arg(requirements)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| PackageError::Pip(format!("cannot start python3: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("ERROR"))
        .collect();
    Err(PackageError::Pip(match errors.is_empty() {
        true => said.trim().to_string(),
        false => errors.join("\n"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_whole() {
        let files = client();
        let has = |path: &str| files.iter().any(|(name, _)| name == path);
        assert!(
            has("lswitch/__init__.py") && has("lswitch/wire.py") && has("softwareforwarder.py")
        );
        assert!(files.iter().all(|(name, _)| !name.contains("__pycache__")));
    }
}
