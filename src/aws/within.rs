//! AWS's settings within a function: its variables have all of them. The SDK's own chain would bring into a bootstrap what asks
//! sign-in services, containers and machines, and reads profiles.

use super::{AwsError, TRIES_MAX, trust, variable};
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::{RetryConfig, RetryMode};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use std::str::FromStr;

/// Finds a service's settings, such as its endpoint, in variables alone.
#[derive(Debug)]
struct Variables;

impl LoadServiceConfig for Variables {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        if key.env() == "AWS_ENDPOINT_URL" && is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
            return None;
        }
        let service = key
            .service_id()
            .to_ascii_uppercase()
            .replace([' ', '-'], "_");
        variable(&format!("{}_{service}", key.env())).or_else(|| variable(key.env()))
    }
}

fn is_true(name: &str) -> bool {
    variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The value of a variable, if it is one. One that is none is passed over, as the SDK does it.
fn parsed<T: FromStr>(name: &str) -> Option<T> {
    let value = variable(name)?;
    let parsed = value.parse().ok();
    if parsed.is_none() {
        tracing::warn!("{name}={value} is not a value of that setting, and is not used");
    }
    parsed
}

/// The SDK's configuration, from variables.
pub(super) fn load(region: Option<&str>) -> Result<SdkConfig, AwsError> {
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let region = region.map(str::to_string);
    let region = region.or_else(|| variable("AWS_REGION"));
    let region = region.or_else(|| variable("AWS_DEFAULT_REGION"));
    let retries = match parsed::<RetryMode>("AWS_RETRY_MODE") {
        Some(RetryMode::Adaptive) => RetryConfig::adaptive(),
        _ => RetryConfig::standard(),
    };
    let tries = parsed::<u32>("AWS_MAX_ATTEMPTS").filter(|tries| *tries > 0);
    let mut config = SdkConfig::builder();
    config.set_http_client(trust::http_client(None)?);
    config.set_request_checksum_calculation(parsed::<RequestChecksumCalculation>(
        "AWS_REQUEST_CHECKSUM_CALCULATION",
    ));
    config.set_response_checksum_validation(parsed::<ResponseChecksumValidation>(
        "AWS_RESPONSE_CHECKSUM_VALIDATION",
    ));
    Ok(config
        .behavior_version(BehaviorVersion::latest())
        .region(region.map(Region::new))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(retries.with_max_attempts(tries.unwrap_or(TRIES_MAX)))
        .use_fips(is_true("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(is_true("AWS_USE_DUALSTACK_ENDPOINT"))
        .service_config(Variables)
        .build())
}
