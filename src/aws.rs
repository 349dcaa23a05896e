//! How AWS's settings are found, by AWS's own rules with the region and the profile a user may name, and how its SDK's
//! errors are told.

use aws_config::SdkConfig;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::region::ProfileFileRegionProvider;
#[cfg(feature = "cli")]
use aws_config::{BehaviorVersion, Region};
use std::error::Error;

#[cfg(not(feature = "cli"))]
mod within;

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
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
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
    pub async fn load(&self) -> SdkConfig {
        #[cfg(feature = "cli")]
        return self.load_all().await;
        #[cfg(not(feature = "cli"))]
        return within::load(self.region.as_deref());
    }

    #[cfg(feature = "cli")]
    async fn load_all(&self) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        loader.load().await
    }
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
