//! The certificate of a switch: the one that is given, or one of its own in the home folder, which is made once.

use crate::cmd::settings::home;
use crate::cmd::ui::Ui;
use crate::net::tls::Identity;
use anyhow::{Context, bail};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Its certificate and key, in the home folder: one file, so that they go together whoever writes it at the same time.
const FILE: &str = "switch.pem";

/// A certificate and its key from two files.
///
/// # Errors
/// When one of them cannot be read, or they do not go together.
pub fn given(certificate: &Path, key: &Path) -> anyhow::Result<Identity> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Identity::from_pem(&read(certificate)?, &read(key)?)
        .with_context(|| format!("{} with {}", certificate.display(), key.display()))
}

/// The switch's own certificate. It is the same for every switch of this home, and stays: addresses name it.
///
/// # Errors
/// When it cannot be read or made, or others may read its key.
pub fn own(ui: &Ui) -> anyhow::Result<Identity> {
    let path = home()?.join(FILE);
    if !path.exists() {
        make(&path)?;
        ui.say(format!("made a certificate in {}", path.display()));
    }
    let metadata =
        fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        bail!("others may read the switch's key in {path}; run: chmod 600 {path}");
    }
    let pem = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Identity::from_pem(&pem, &pem).with_context(|| {
        let path = path.display();
        format!("{path} is damaged; delete it, and the next \"lswitch serve\" makes another")
    })
}

/// Makes it, unless somebody else has meanwhile.
fn make(path: &PathBuf) -> anyhow::Result<()> {
    let cannot = || format!("cannot make {}", path.display());
    let folder = path.parent().with_context(cannot)?;
    fs::create_dir_all(folder).with_context(cannot)?;
    let (certificate, key) = Identity::make_pem()?;
    // Such files are their owner's alone.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    file.write_all(format!("{certificate}{key}").as_bytes())
        .with_context(cannot)?;
    match file.persist_noclobber(path) {
        Err(error) if path.exists() => drop(error),
        outcome => drop(outcome.with_context(cannot)?),
    }
    Ok(())
}
