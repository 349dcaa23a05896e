//! What an executable asks of the machine that runs it, as far as its file tells.

use super::Architecture;
use object::Endianness;
use object::elf::{EM_AARCH64, EM_X86_64};
use object::read::elf::{ElfFile64, FileHeader};

/// What [`read`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Executable {
    /// Its machine.
    pub architecture: Architecture,
    /// The oldest GNU C library that has all it asks for; none if it asks for none.
    pub glibc: Option<(u32, u32)>,
}

/// Reads what a program for Linux needs.
///
/// # Errors
/// Says what it is instead of an executable that Lambda could run.
pub fn read(bytes: &[u8]) -> Result<Executable, String> {
    if !bytes.starts_with(b"\x7fELF") {
        let other = match bytes.get(..4) {
            Some([0xcf | 0xce, 0xfa, 0xed, 0xfe] | [0xca, 0xfe, 0xba, 0xbe]) => {
                "a program for macOS"
            }
            Some([b'M', b'Z', ..]) => "a program for Windows",
            Some([b'#', b'!', ..]) => "a script",
            _ => "no program",
        };
        return Err(format!("{other}, and Lambda runs programs for Linux"));
    }
    let file: ElfFile64<'_, Endianness> =
        ElfFile64::parse(bytes).map_err(|error| format!("no 64-bit program: {error}"))?;
    let machine = file.elf_header().e_machine(file.endian());
    let architecture = match machine {
        EM_X86_64 => Architecture::X86_64,
        EM_AARCH64 => Architecture::Arm64,
        _ => return Err("a program for another machine than x86_64 and arm64".into()),
    };
    let glibc = glibc(&file, bytes).map_err(|error| format!("a damaged program: {error}"))?;
    Ok(Executable {
        architecture,
        glibc,
    })
}

/// The highest `GLIBC_x.y` among the versions of symbols that it needs.
fn glibc(
    file: &ElfFile64<'_, Endianness>,
    bytes: &[u8],
) -> object::read::Result<Option<(u32, u32)>> {
    let endian = file.endian();
    let sections = file.elf_header().sections(endian, bytes)?;
    let Some((mut libraries, strings)) = sections.gnu_verneed(endian, bytes)? else {
        return Ok(None);
    };
    let strings = sections.strings(endian, bytes, strings)?;
    let mut highest = None;
    while let Some((_, mut versions)) = libraries.next()? {
        while let Some(version) = versions.next()? {
            let name = version.name(endian, strings)?;
            highest = highest.max(std::str::from_utf8(name).ok().and_then(glibc_version));
        }
    }
    Ok(highest)
}

fn glibc_version(symbol: &str) -> Option<(u32, u32)> {
    let version = symbol.strip_prefix("GLIBC_")?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_a_machine_and_a_library() {
        let own = std::env::current_exe().expect("it has a path");
        let own = read(&std::fs::read(own).expect("it can be read")).expect("it is a program");
        let here = match cfg!(target_arch = "aarch64") {
            true => Architecture::Arm64,
            false => Architecture::X86_64,
        };
        assert_eq!(own.architecture, here);
        if cfg!(target_env = "gnu") {
            assert!(own.glibc > Some((2, 2)), "{own:?}");
        }
    }

    #[test]
    fn what_lambda_cannot_run_is_named() {
        for (bytes, what) in [
            (&b"#!/bin/sh\n"[..], "a script"),
            (b"MZ\x90\x00 and so on", "Windows"),
            (b"\xcf\xfa\xed\xfe and so on", "macOS"),
            (b"", "no program"),
            (b"\x7fELF\x01\x01\x01", "no 64-bit program"),
        ] {
            let refusal = read(bytes).expect_err("it is none");
            assert!(refusal.contains(what), "{refusal}");
        }
        // Cut anywhere, it is refused or read, and nothing panics.
        let own = std::env::current_exe().expect("it has a path");
        let own = std::fs::read(own).expect("it can be read");
        for cut in (0..4096).chain((1..64).map(|part| own.len() / 64 * part)) {
            let _ = read(&own[..cut]);
        }
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(glibc_version("GLIBC_2.34"), Some((2, 34)));
        assert_eq!(glibc_version("GLIBC_2.2.5"), Some((2, 2)));
        for none in ["GLIBC_PRIVATE", "GCC_3.0", "GLIBC_2", "GLIBC_"] {
            assert_eq!(glibc_version(none), None, "{none}");
        }
    }
}
