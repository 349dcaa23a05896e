//! How AWS's settings are found: by AWS's own rules, with the region and the profile a user may name.

use aws_config::{BehaviorVersion, Region, SdkConfig};

/// What a user may say about AWS on the command line; everything else comes from AWS's own files and variables.
#[derive(Debug, Clone, Default)]
pub struct AwsSettings {
    /// `--region`, else AWS's own rules.
    pub region: Option<String>,
    /// `--profile`, else AWS's own rules.
    pub profile: Option<String>,
}

impl AwsSettings {
    /// Loads the SDK's configuration. Reads files and variables; asks no server until credentials are needed.
    pub async fn load(&self) -> SdkConfig {
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
