//! Where settings are found: `$LSWITCH_HOME`, the switch's secret, AWS's region and profile.

use crate::aws::AwsSettings;
pub use crate::job::settings::{asks_for_plaintext, find_secret, home, variable};
use crate::net::token::Secret;
use crate::random::{self, to_hex};
use anyhow::Context;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// AWS's settings, as every command that may reach AWS takes them.
#[derive(Debug, Clone, clap::Args)]
pub struct AwsArgs {
    /// AWS region; AWS's own rules otherwise
    #[arg(long, value_name = "REGION", help_heading = "AWS")]
    region: Option<String>,

    /// AWS profile; AWS's own rules otherwise
    #[arg(long, value_name = "PROFILE", help_heading = "AWS")]
    profile: Option<String>,
}

impl AwsArgs {
    /// For the layers below.
    pub fn settings(&self) -> AwsSettings {
        AwsSettings {
            region: self.region.clone(),
            profile: self.profile.clone(),
        }
    }
}

/// Makes a secret in the home folder, readable by its owner alone, and gives its path too.
///
/// # Errors
/// When the file cannot be written.
pub fn make_secret() -> anyhow::Result<(Secret, PathBuf)> {
    let home = home()?;
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let path = home.join("secret");
    let text = to_hex(&random::bytes::<32>());
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let mut file = file.with_context(|| format!("cannot make {}", path.display()))?;
    writeln!(file, "{text}")?;
    Ok((Secret::new(&text)?, path))
}

/// Bytes from a number with or without a unit: KiB, MiB, GiB (or KB, MB, GB, in thousands).
pub fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        _ => {
            return Err(format!("{unit:?} is no unit of bytes; use KiB, MiB or GiB"));
        }
    };
    let number: usize = number
        .parse()
        .map_err(|_| format!("{text:?} is no size; write 64, 64KiB or 256MiB"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text} is too much"))
}

/// A length of time, such as 24h.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("an age is a number with s, m, h, d or w, such as 24h".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "an age begins with a number, such as 24h")?;
    let seconds = number.checked_mul(factor).ok_or("this age is too long")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_understood_or_refused() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("5m", 300),
            ("5min", 300),
            ("24h", 86_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "0",
            "24",
            "h",
            "-1h",
            "1.5h",
            "24 h",
            "1y",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_understood_or_refused() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("10 kB", 10_000),
            ("1g", 1 << 30),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in [
            "",
            "MiB",
            "1.5GiB",
            "12 parsecs",
            "99999999999999999999",
            "99999999999GiB",
            "-1",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
