//! AWS's settings on their way to the workers on this machine.
//!
//! A worker must reach the store as its driver does: through the same proxies, with the same trusted authorities,
//! endpoints and checksums. So there is one rule for all settings instead of a list for each place: what the SDK may
//! read from this process's environment is passed on, and what only the profile has becomes a variable.

use super::{AwsError, AwsSettings};
#[cfg(feature = "cli")]
use super::{profile::Profiles, variable};
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Variables of the environment besides `AWS_...` that the SDK's client reads.
const OF_CONNECTIONS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Those whose values are paths. A worker has a folder of its own, so they must be absolute there.
const OF_PATHS: [&str; 7] = [
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Variables that Lambda itself sets, on AWS or here. One that is in the driver's environment belongs to the driver.
const OF_LAMBDA: [&str; 3] = ["AWS_LAMBDA_", "AWS_EXECUTION_ENV", "AWS_XRAY_"];

/// Properties of a profile, and the variables that mean the same.
#[cfg(feature = "cli")]
const OF_PROFILE: [(&str, &str); 8] = [
    ("ca_bundle", "AWS_CA_BUNDLE"),
    (
        "request_checksum_calculation",
        "AWS_REQUEST_CHECKSUM_CALCULATION",
    ),
    (
        "response_checksum_validation",
        "AWS_RESPONSE_CHECKSUM_VALIDATION",
    ),
    ("use_fips_endpoint", "AWS_USE_FIPS_ENDPOINT"),
    ("use_dualstack_endpoint", "AWS_USE_DUALSTACK_ENDPOINT"),
    ("max_attempts", "AWS_MAX_ATTEMPTS"),
    ("retry_mode", "AWS_RETRY_MODE"),
    (
        "ignore_configured_endpoint_urls",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    ),
];

/// Services that workers use, as the SDK names them, and the variables of their endpoints.
#[cfg(feature = "cli")]
const SERVICES: [(&str, &str); 3] = [
    ("S3", "AWS_ENDPOINT_URL_S3"),
    ("Lambda", "AWS_ENDPOINT_URL_LAMBDA"),
    ("STS", "AWS_ENDPOINT_URL_STS"),
];

/// The settings in this process's environment, for a process in another folder.
pub fn settings_of_environment() -> impl Iterator<Item = (OsString, OsString)> {
    let settings = env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_setting));
    settings.map(|(name, value)| {
        let is_path = OF_PATHS.iter().any(|path| name == *path);
        let value = match is_path {
            true => absolute(&value),
            false => value,
        };
        (name, value)
    })
}

/// A path, or several with colons between them, from the root. `~` is the home folder of both processes, and the SDK
/// knows it.
fn absolute(paths: &OsStr) -> OsString {
    let full = |path: PathBuf| match path.as_os_str().is_empty() || path.starts_with("~") {
        true => path,
        false => std::path::absolute(&path).unwrap_or(path),
    };
    let joined = env::join_paths(env::split_paths(paths).map(full));
    joined.unwrap_or_else(|_| paths.to_owned())
}

/// True for a variable that the SDK, or a connection of its, may heed.
fn is_setting(name: &str) -> bool {
    let of_aws =
        name.starts_with("AWS_") && !OF_LAMBDA.iter().any(|lambda| name.starts_with(lambda));
    of_aws || OF_CONNECTIONS.contains(&name)
}

impl AwsSettings {
    /// The variables that another process needs for the same settings besides
    /// [those of this process's environment](settings_of_environment): the profile and the region that the user has named, and what the profile has besides credentials.
    /// Asks no server.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn variables_of_profile(&self) -> Result<BTreeMap<String, String>, AwsError> {
        let mut variables = BTreeMap::new();
        match self.add_profile(&mut variables).await {
            // A job that needs nothing of AWS must not fail for a variable. One that does fails when it opens its store.
            Err(error) if self.profile.is_none() => tracing::debug!("{error}"),
            added => added?,
        }
        if let Some(profile) = &self.profile {
            variables.insert("AWS_PROFILE".into(), profile.clone());
        }
        if let Some(region) = self.region_without_asking().await {
            variables.insert("AWS_REGION".into(), region.clone());
            variables.insert("AWS_DEFAULT_REGION".into(), region);
        }
        Ok(variables)
    }

    #[cfg(feature = "cli")]
    async fn add_profile(&self, variables: &mut BTreeMap<String, String>) -> Result<(), AwsError> {
        use aws_types::service_config::ServiceConfigKey;

        let profiles = Profiles::load(self.profile.as_deref()).await?;
        for (property, name) in OF_PROFILE {
            if variable(name).is_none()
                && let Some(value) = profiles.get(property)
            {
                let value = match OF_PATHS.contains(&name) {
                    true => absolute(value.as_ref()).to_string_lossy().into_owned(),
                    false => value.to_owned(),
                };
                variables.insert(name.into(), value);
            }
        }
        if variable("AWS_ENDPOINT_URL").is_some() {
            // It wins over every endpoint of the profile.
            return Ok(());
        }
        // A region that is known, or that there is none, keeps the SDK from asking this machine's metadata for it.
        let region = self.region_without_asking().await;
        let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .region(region.map(aws_config::Region::new));
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        let config = loader.load().await;
        let Some(services) = config.service_config() else {
            return Ok(());
        };
        for (service, name) in SERVICES {
            let key = ServiceConfigKey::builder()
                .service_id(service)
                .profile("endpoint_url")
                .env("AWS_ENDPOINT_URL")
                .build();
            let endpoint = key.ok().and_then(|key| services.load_config(key));
            let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
            if let Some(endpoint) = endpoint
                && variable(name).is_none()
            {
                variables.insert(name.into(), endpoint);
            }
        }
        Ok(())
    }

    /// Without the feature `cli` no files are read.
    #[cfg(not(feature = "cli"))]
    async fn add_profile(&self, _: &mut BTreeMap<String, String>) -> Result<(), AwsError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_one_by_one() {
        let here = env::current_dir().unwrap();
        let here = here.display();
        for (paths, expected) in [
            ("", String::new()),
            ("/etc/ca.pem", "/etc/ca.pem".into()),
            ("ca.pem", format!("{here}/ca.pem")),
            ("~/ca.pem", "~/ca.pem".into()),
            ("a:/b:c", format!("{here}/a:/b:{here}/c")),
        ] {
            assert_eq!(absolute(paths.as_ref()), *expected, "{paths}");
        }
    }

    #[test]
    fn settings_are_all_of_aws_and_of_connections_but_not_those_of_lambda() {
        for name in [
            "AWS_REQUEST_CHECKSUM_CALCULATION",
            "AWS_RESPONSE_CHECKSUM_VALIDATION",
            "AWS_CA_BUNDLE",
            "AWS_ENDPOINT_URL_S3",
            "AWS_MAX_ATTEMPTS",
            "AWS_USE_FIPS_ENDPOINT",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "https_proxy",
            "HTTP_PROXY",
            "no_proxy",
            "SSL_CERT_DIR",
        ] {
            assert!(is_setting(name), "{name}");
        }
        for name in [
            "AWS_LAMBDA_RUNTIME_API",
            "AWS_LAMBDA_FUNCTION_NAME",
            "AWS_EXECUTION_ENV",
            "HOME",
            "LD_PRELOAD",
            "LSWITCH_SECRET",
        ] {
            assert!(!is_setting(name), "{name}");
        }
    }
}
