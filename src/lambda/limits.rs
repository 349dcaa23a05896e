//! What AWS takes for a function's settings, so that a wrong one is refused before any call, here and by the local Lambda alike.
//!
//! The numbers are those of AWS's published quotas and of the API reference of `CreateFunction`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// `MemorySize`, in MB.
pub const MEMORY_MB: RangeInclusive<u32> = 128..=10_240;
/// `Timeout`, in seconds.
pub const TIMEOUT_S: RangeInclusive<u64> = 1..=900;
/// `EphemeralStorage`, in MB: what `/tmp` holds.
pub const STORAGE_MB: RangeInclusive<u32> = 512..=10_240;
/// The length of a function's name.
const NAME_LENGTH_MAX: usize = 64;
/// All of a function's variables together, names and values.
const ENVIRONMENT_BYTES_MAX: usize = 4096;
/// Variables through which Lambda talks to its runtime; AWS refuses functions that set them.
const RESERVED_VARIABLES: [&str; 5] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_EXECUTION_ENV",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
];
const RESERVED_PREFIXES: [&str; 3] = [
    "AWS_LAMBDA_FUNCTION_",
    "AWS_LAMBDA_LOG_",
    "AWS_LAMBDA_RUNTIME_API",
];

/// # Errors
/// When it is no function's name.
pub fn check_name(name: &str) -> Result<(), String> {
    if is_function_name(name) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no function name; use 1 to {NAME_LENGTH_MAX} of a-z, A-Z, 0-9, - and _"
    ))
}

/// Whether AWS would take this as a function's name.
pub fn is_function_name(name: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// # Errors
/// When Lambda gives no function so much memory, or so little.
pub fn check_memory(memory_mb: u32) -> Result<(), String> {
    let (least, most) = (MEMORY_MB.start(), MEMORY_MB.end());
    match MEMORY_MB.contains(&memory_mb) {
        true => Ok(()),
        false => Err(format!(
            "{memory_mb} is outside Lambda's {least} to {most} MB"
        )),
    }
}

/// # Errors
/// When a name is reserved or none, or all are too much.
pub fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), String> {
    for name in environment.keys() {
        let reserved = RESERVED_VARIABLES.contains(&name.as_str())
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if reserved {
            return Err(format!("{name} is set by Lambda itself; use another name"));
        }
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} is no variable name"));
        }
    }
    let bytes: usize = environment
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        return Err(format!(
            "{bytes} bytes of variables, and Lambda takes {ENVIRONMENT_BYTES_MAX}"
        ));
    }
    Ok(())
}
