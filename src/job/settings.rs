//! Where settings are found that a job needs: `$LSWITCH_HOME` and the switch's secret.

use crate::net::token::{Secret, ShortSecret};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};
use thiserror::Error;

/// Why a setting cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// There is no place for settings.
    #[error("neither LSWITCH_HOME nor HOME is set, so there is no place for settings")]
    NoHome,
    /// The file of the secret.
    #[error("cannot read the switch's secret from {}: {source}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The secret is none any more.
    #[error(
        "others may read the switch's secret in {}; run: chmod 600 {}", path.display(), path.display()
    )]
    Open {
        /// Where it is.
        path: PathBuf,
    },
    /// It is no secret.
    #[error("in {place}: {source}")]
    Secret {
        /// The variable or the file.
        place: String,
        /// What is wrong with it.
        source: ShortSecret,
    },
}

/// A variable that says something: an empty one is as none.
pub fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// True if `LSWITCH_PLAINTEXT` asks for plain TCP with a switch off loopback.
pub fn asks_for_plaintext() -> bool {
    variable("LSWITCH_PLAINTEXT").is_some_and(|value| value != "0" && value != "false")
}

/// `$LSWITCH_HOME`, else `~/.lswitch`.
///
/// # Errors
/// When neither `LSWITCH_HOME` nor `HOME` is set.
pub fn home() -> Result<PathBuf, SettingsError> {
    if let Some(home) = env::var_os("LSWITCH_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").ok_or(SettingsError::NoHome)?;
    Ok(Path::new(&home).join(".lswitch"))
}

/// The switch's secret: `LSWITCH_SECRET`, else the file `LSWITCH_SECRET_FILE` names, else `secret` in the home folder.
/// `None` if there is none.
///
/// # Errors
/// When the one that is found cannot be read, is too short, or may be read by others.
pub fn find_secret() -> Result<Option<Secret>, SettingsError> {
    let secret = |text: &str, place: &dyn Fn() -> String| {
        Secret::new(text).map_err(|source| SettingsError::Secret {
            place: place(),
            source,
        })
    };
    if let Some(text) = variable("LSWITCH_SECRET") {
        return secret(&text.to_string_lossy(), &|| "LSWITCH_SECRET".into()).map(Some);
    }
    let named = variable("LSWITCH_SECRET_FILE").map(PathBuf::from);
    let path = match &named {
        Some(path) => path.clone(),
        None => home()?.join("secret"),
    };
    if named.is_none() && !path.exists() {
        return Ok(None);
    }
    let read = || Ok((fs::read_to_string(&path)?, fs::metadata(&path)?));
    let (text, metadata) = read().map_err(|source| SettingsError::Read {
        path: path.clone(),
        source,
    })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(SettingsError::Open { path });
    }
    secret(&text, &|| path.display().to_string()).map(Some)
}
