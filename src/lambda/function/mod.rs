//! Functions on AWS: what they are to be, what they are, and how the one becomes the other.
//!
//! [`Settings`] say what is wanted, and are checked against AWS's limits before any call. [`package`] makes the zip file with
//! the code, the same bytes for the same code. [`manage`] speaks with Lambda, [`role`] with IAM, [`logs`] with CloudWatch Logs;
//! [`policy`] says which permissions each part of lswitch needs. Functions that lswitch has made carry its tag, and no other
//! one is ever changed or deleted.

pub mod account;
pub mod elf;
pub mod logs;
pub mod manage;
pub mod package;
pub mod policy;
pub mod python;
pub mod role;
mod settings;

pub use settings::{Change, Deployed, SettingError, Settings, Vpc};

use std::fmt;
use std::str::FromStr;

/// The tag of functions and roles that lswitch has made; its value is the version that did.
pub const TAG: &str = "lswitch";

/// Says what a function's code is: [`OWN`], or anything else if more than that executable is in its package.
pub const PACKAGE_TAG: &str = "lswitch-package";

/// The package is the lswitch that made it, alone.
pub const OWN: &str = "own";

/// The package is of another program, has other files, or is of another runtime.
pub const CUSTOM: &str = "custom";

/// What runs a function's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// Amazon Linux 2023 and the package's own `bootstrap`.
    ProvidedAl2023,
    /// Amazon Linux 2 and the package's own `bootstrap`.
    ProvidedAl2,
    /// AWS's Python, such as 3.12.
    Python(String),
}

/// What is wrong with a runtime's name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no runtime for lswitch; there are provided.al2023, provided.al2 and python3.x")]
pub struct UnknownRuntime(String);

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(name: &str) -> Result<Runtime, UnknownRuntime> {
        match name {
            "provided.al2023" => Ok(Runtime::ProvidedAl2023),
            "provided.al2" => Ok(Runtime::ProvidedAl2),
            _ => {
                let version = name.strip_prefix("python").unwrap_or_default();
                let minor = version.strip_prefix("3.").unwrap_or_default();
                if minor.is_empty() || !minor.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(UnknownRuntime(name.into()));
                }
                Ok(Runtime::Python(version.into()))
            }
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Runtime::ProvidedAl2023 => formatter.write_str("provided.al2023"),
            Runtime::ProvidedAl2 => formatter.write_str("provided.al2"),
            Runtime::Python(version) => write!(formatter, "python{version}"),
        }
    }
}

impl Runtime {
    /// The C library that it has, if executables of the package run on it.
    pub fn glibc(&self) -> Option<(u32, u32)> {
        match self {
            Runtime::ProvidedAl2023 => Some((2, 34)),
            Runtime::ProvidedAl2 => Some((2, 26)),
            Runtime::Python(_) => None,
        }
    }
}

/// The instructions that a function's machine understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD, 64 bit.
    X86_64,
    /// Graviton.
    Arm64,
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Architecture, String> {
        match name {
            "x86_64" => Ok(Architecture::X86_64),
            "arm64" => Ok(Architecture::Arm64),
            _ => Err(format!("{name:?} is neither x86_64 nor arm64")),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Arm64 => "arm64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_and_architectures_are_named_as_aws_does() {
        for name in ["provided.al2023", "provided.al2", "python3.12", "python3.9"] {
            let runtime: Runtime = name.parse().expect("AWS has it");
            assert_eq!(runtime.to_string(), name);
        }
        for name in [
            "",
            "python",
            "python3",
            "python3.",
            "python2.7",
            "nodejs22.x",
            "python3.x",
        ] {
            assert!(name.parse::<Runtime>().is_err(), "{name}");
        }
        for name in ["x86_64", "arm64"] {
            let architecture: Architecture = name.parse().expect("AWS has it");
            assert_eq!(architecture.to_string(), name);
        }
        assert!("aarch64".parse::<Architecture>().is_err());
    }
}
