//! What a job in the background has printed to standard output: its result, which is read when the job has ended.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Bytes that are read at once.
const READ_LEN: usize = 64 << 10;

/// How long a result is, and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Bytes of the file.
    pub bytes: u64,
    /// CRC32C of all of them.
    pub crc32c: u32,
}

impl Printed {
    /// Of what is in a file now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> io::Result<Printed> {
        let mut file = File::open(path)?;
        let mut printed = Printed {
            bytes: 0,
            crc32c: 0,
        };
        let mut piece = vec![0; READ_LEN];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(printed),
                Ok(count) => {
                    printed.bytes += count as u64;
                    printed.crc32c = crc32c::crc32c_append(printed.crc32c, &piece[..count]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks whether a file still has what the job printed.
    ///
    /// # Errors
    /// When it has not, or cannot be read.
    pub fn check(&self, path: &Path) -> anyhow::Result<()> {
        let found = Printed::of(path).with_context(|| format!("cannot read {}", path.display()))?;
        if found != *self {
            bail!(
                "{} is damaged: it has {} bytes that are not the {} that the job printed; start the job again",
                path.display(),
                found.bytes,
                self.bytes
            );
        }
        Ok(())
    }
}
