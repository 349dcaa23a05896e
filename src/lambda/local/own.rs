//! This program as a function of the local Lambda.

use super::{LocalError, LocalFunction};
use crate::aws::AwsSettings;
use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::time::Duration;

/// The name of the function that is this program.
pub const DEFAULT_FUNCTION: &str = "lswitch";

/// Set by the local Lambda's own function, so that a worker does not outlive the process that started it.
pub const LOCAL_VARIABLE: &str = "LSWITCH_LOCAL";

/// What a worker has between SIGTERM and SIGKILL: time to abort the uploads to S3 that it has begun.
const OWN_STOP_GRACE: Duration = Duration::from_secs(1);

/// This program as a function, as [`function_of`] has it.
///
/// # Errors
/// When it cannot be told where this program is.
pub async fn own_function(aws: &AwsSettings) -> Result<LocalFunction, LocalError> {
    let executable = env::current_exe().map_err(|source| LocalError::Executable { source })?;
    function_of(&executable, aws).await
}

/// An lswitch as a function. It gets the most memory that Lambda gives, since a laptop's graph should not fail for a
/// limit that nobody chose.
///
/// Workers have AWS's settings as this process does: by the same home folder, profile and region, and what the profile says
/// of endpoints, trust and checksums. The settings in this process's environment reach every local function.
///
/// # Errors
/// When the program's path is not UTF-8, or AWS's settings cannot be used.
pub async fn function_of(program: &Path, aws: &AwsSettings) -> Result<LocalFunction, LocalError> {
    let executable = program.to_str().ok_or_else(|| LocalError::NotUtf8 {
        path: program.into(),
    })?;
    let mut environment = BTreeMap::from([(LOCAL_VARIABLE.to_string(), "1".to_string())]);
    for name in ["LSWITCH_LOG", "HOME"] {
        if let Some(value) = env::var(name).ok().filter(|value| !value.is_empty()) {
            environment.insert(name.into(), value);
        }
    }
    environment.extend(aws.variables_of_profile().await?);
    Ok(LocalFunction {
        name: DEFAULT_FUNCTION.into(),
        command: vec![executable.to_string()],
        handler: "bootstrap".into(),
        memory_mb: 10_240,
        timeout: Duration::from_secs(900),
        stop_grace: OWN_STOP_GRACE,
        environment,
        ..LocalFunction::default()
    })
}
