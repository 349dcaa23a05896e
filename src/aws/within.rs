//! AWS's settings within a function: its variables have all of them. The SDK's own chain would bring into a bootstrap what asks
//! sign-in services, containers and machines, and reads profiles.

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use std::env;

/// Finds a service's settings, such as its endpoint, in variables alone.
#[derive(Debug)]
struct Variables;

impl LoadServiceConfig for Variables {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key
            .service_id()
            .to_ascii_uppercase()
            .replace([' ', '-'], "_");
        variable(&format!("{}_{service}", key.env())).or_else(|| variable(key.env()))
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The SDK's configuration, from variables.
pub(super) fn load(region: Option<&str>) -> SdkConfig {
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let region = region.map(str::to_string);
    let region = region.or_else(|| variable("AWS_REGION"));
    let region = region.or_else(|| variable("AWS_DEFAULT_REGION"));
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region.map(Region::new))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .service_config(Variables)
        .build()
}
