//! How AWS's settings are found, by AWS's own rules with the region and the profile a user may name, how they reach the
//! workers on this machine, and how the SDK's errors are told.

mod passing;
#[cfg(feature = "cli")]
mod profile;
mod trust;
#[cfg(not(feature = "cli"))]
mod within;

use aws_config::SdkConfig;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::region::ProfileFileRegionProvider;
#[cfg(feature = "cli")]
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use std::env;
use std::error::Error;
use std::io;

pub use passing::settings_of_environment;

/// How often the SDK sends one request, the first time included, unless `AWS_MAX_ATTEMPTS` or `max_attempts` says otherwise.
const TRIES_MAX: u32 = 5;

/// Why AWS's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// A profile was named that is nowhere.
    #[error(
        "there is no profile {profile:?} in AWS's files ({files}), which have {known}; name one of them with --profile or AWS_PROFILE"
    )]
    NoProfile {
        /// The profile that was named.
        profile: String,
        /// Where it was looked for.
        files: String,
        /// The profiles that are there.
        known: String,
    },
    /// A file of AWS's settings is no such file.
    #[error(
        "cannot read AWS's settings: {problem}; correct the file, or name another with AWS_CONFIG_FILE"
    )]
    Files {
        /// What is wrong, and where.
        problem: String,
    },
    /// The file of trusted certificates.
    #[error("cannot use {setting}={path}: {problem}; it must be a file of certificates in PEM")]
    Bundle {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a user may say about AWS on the command line; everything else comes from AWS's own files and variables.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// `--region`, else AWS's own rules.
    pub region: Option<String>,
    /// `--profile`, else AWS's own rules.
    pub profile: Option<String>,
}

impl AwsSettings {
    /// The region as far as variables and files tell it, without asking a server, as the SDK's own chain would in the end.
    pub async fn region_without_asking(&self) -> Option<String> {
        let known = self.region.clone().or_else(|| variable("AWS_REGION"));
        if known.is_some() {
            return known;
        }
        let mut provider = ProfileFileRegionProvider::builder();
        if let Some(profile) = &self.profile {
            provider = provider.profile_name(profile);
        }
        let region = provider.build().region().await;
        region.map(|region| region.to_string())
    }

    /// Loads the SDK's configuration. Reads files and variables; asks no server until credentials are needed. A build without the
    /// feature `cli` reads variables alone, which Lambda sets for each of its functions.
    ///
    /// # Errors
    /// When a profile is named that is not there, or a file of settings cannot be read.
    pub async fn load(&self) -> Result<SdkConfig, AwsError> {
        #[cfg(feature = "cli")]
        return self.load_all().await;
        #[cfg(not(feature = "cli"))]
        return within::load(self.region.as_deref());
    }

    #[cfg(feature = "cli")]
    async fn load_all(&self) -> Result<SdkConfig, AwsError> {
        let profiles = profile::Profiles::load(self.profile.as_deref()).await?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(client) = trust::http_client(profiles.get("ca_bundle"))? {
            loader = loader.http_client(client);
        }
        let config = loader.load().await;
        if variable("AWS_MAX_ATTEMPTS").is_some() || profiles.get("max_attempts").is_some() {
            return Ok(config);
        }
        // The SDK's own default is 3, too few for jobs of thousands of requests.
        let retries = config.retry_config().cloned();
        let retries = retries.unwrap_or_else(RetryConfig::standard);
        let config = config.into_builder();
        Ok(config
            .retry_config(retries.with_max_attempts(TRIES_MAX))
            .build())
    }
}

/// A variable that says something: an empty one is as none.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first error of this type, from the outermost to what is below it.
pub fn error_within<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An I/O error gives as its source that of the error which it wraps, and so would skip that one.
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// An error and everything below it, outermost first. The SDK's own `DisplayErrorContext` would add a debug print of the
/// whole answer; here what the service said stands at the end in its own words.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let message = error.to_string();
        // Some layers only repeat the one below.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        below = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_within_nested_io_errors() {
        let inner = AwsError::Files {
            problem: "line 3".into(),
        };
        let nested = io::Error::other(io::Error::other(inner));
        let found = error_within::<AwsError>(&nested);
        assert!(matches!(found, Some(AwsError::Files { .. })));
        assert!(error_within::<AwsError>(&io::Error::other("plain")).is_none());
    }
}
