//! Starting packs: one Invoke call each, through aws-sdk-lambda, on AWS or on the local Lambda alike.

use crate::aws::{AwsSettings, error_chain};
use crate::lambda::event::{Event, EventError};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::{Builder, Credentials, StalledStreamProtectionConfig};
use aws_sdk_lambda::operation::invoke::{InvokeError, InvokeOutput};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType};
use base64::Engine;
use serde::Deserialize;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long one call may take: Lambda's longest invocation and a minute for starting it.
const CALL_MAX: Duration = Duration::from_secs(16 * 60);

/// Where a local Lambda tells its functions that it takes calls.
pub const ENDPOINT_VARIABLE: &str = "LSWITCH_LAMBDA_ENDPOINT";

/// Calls the functions of a job.
#[derive(Clone)]
pub struct Launcher {
    client: Client,
    /// By rising rank.
    shares: Vec<Share>,
}

/// A function, and which ranks of a job it runs: those that follow the one before it, up to `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its name; a partial or a full ARN.
    pub function: String,
    /// One past its highest rank.
    pub end: u32,
}

/// Why a pack did not run to its end.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The event cannot be sent.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The call failed; the function may or may not have run.
    #[error("cannot invoke function {function}: {reason}")]
    Call {
        /// The function.
        function: String,
        /// What the SDK says.
        reason: String,
    },
    /// Lambda took no more calls for as long as it was asked; the function has not run.
    #[error("cannot invoke function {function}: Lambda takes no more calls: {reason}")]
    Throttled {
        /// The function.
        function: String,
        /// What the SDK says.
        reason: String,
    },
    /// The function ran and failed.
    #[error("{message}")]
    Function {
        /// The error's name, such as `Runtime.ExitError`.
        kind: String,
        /// What it says.
        message: String,
        /// The end of what the function printed.
        log: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionError {
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
}

impl Share {
    /// All ranks.
    pub fn all(function: &str) -> Vec<Share> {
        vec![Share {
            function: function.into(),
            end: u32::MAX,
        }]
    }
}

impl Launcher {
    /// Calls functions on AWS, or wherever the SDK's own settings point.
    pub fn on_aws(config: &SdkConfig, shares: Vec<Share>) -> Launcher {
        Launcher::new(Builder::from(config), shares)
    }

    /// Calls functions on a local Lambda. The endpoint is set on this client alone, never in the environment; the
    /// credentials mean nothing, and a proxy for the web is not asked for this machine's own loopback.
    pub fn local(endpoint: &str, shares: Vec<Share>) -> Launcher {
        let config = aws_sdk_lambda::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(
                "local",
                "local",
                None,
                None,
                "lswitch local Lambda",
            ))
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Launcher::new(config, shares)
    }

    /// Calls functions from within one: on AWS, or on the local Lambda that runs it.
    pub async fn within_lambda(aws: &AwsSettings, shares: Vec<Share>) -> Launcher {
        match std::env::var(ENDPOINT_VARIABLE) {
            Ok(endpoint) => Launcher::local(&endpoint, shares),
            Err(_) => Launcher::on_aws(&aws.load().await, shares),
        }
    }

    fn new(config: Builder, shares: Vec<Share>) -> Launcher {
        // A call that timed out may have run, so none is repeated here; the job's own fences decide about repeats.
        let config = config
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .operation_timeout(CALL_MAX)
                    .build(),
            )
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        Launcher {
            client: Client::from_conf(config.build()),
            shares,
        }
    }

    /// The function that runs all ranks, if it is one.
    pub fn only_function(&self) -> Option<&str> {
        match &self.shares[..] {
            [share] => Some(&share.function),
            _ => None,
        }
    }

    /// Starts a pack, and does not wait for it. A throttled call is repeated for as long as `within`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn start(&self, event: &Event, within: Duration) -> Result<(), LaunchError> {
        self.call(event, InvocationType::Event, within)
            .await
            .map(drop)
    }

    /// The function that runs a rank; the last runs all that are left.
    fn function_of(&self, rank: u32) -> &str {
        let share = self.shares.iter().find(|share| rank < share.end);
        share
            .or(self.shares.last())
            .map_or("", |share| &share.function)
    }

    /// Starts a pack and waits for its end; gives what its handler returned. A throttled call was not run, and is repeated
    /// for as long as `within`.
    ///
    /// # Errors
    /// When the call or the function fails.
    pub async fn invoke(&self, event: &Event, within: Duration) -> Result<Vec<u8>, LaunchError> {
        let reply = self
            .call(event, InvocationType::RequestResponse, within)
            .await?;
        let payload = reply
            .payload()
            .map(|blob| blob.as_ref().to_vec())
            .unwrap_or_default();
        let Some(handled) = reply.function_error() else {
            return Ok(payload);
        };
        let error: FunctionError =
            serde_json::from_slice(&payload).unwrap_or_else(|_| FunctionError {
                error_type: handled.into(),
                error_message: String::from_utf8_lossy(&payload).into(),
            });
        let log = reply.log_result().and_then(|encoded| {
            base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .ok()
        });
        let log = String::from_utf8_lossy(&log.unwrap_or_default())
            .lines()
            .filter(|line| !is_lambdas_own(line))
            .map(str::to_string)
            .collect();
        Err(LaunchError::Function {
            kind: error.error_type,
            message: error.error_message,
            log,
        })
    }
}

impl Launcher {
    async fn call(
        &self,
        event: &Event,
        kind: InvocationType,
        within: Duration,
    ) -> Result<InvokeOutput, LaunchError> {
        let deadline = Instant::now() + within;
        let mut pause = Duration::from_millis(100);
        let function = self.function_of(event.first_rank);
        let mut call = self
            .client
            .invoke()
            .function_name(function)
            .payload(Blob::new(event.to_json()?));
        if kind == InvocationType::RequestResponse {
            call = call.log_type(LogType::Tail);
        }
        let call = call.invocation_type(kind);
        loop {
            let error = match call.clone().send().await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let throttled = error
                .as_service_error()
                .is_some_and(InvokeError::is_too_many_requests_exception);
            if throttled && Instant::now() + pause > deadline {
                return Err(LaunchError::Throttled {
                    function: function.into(),
                    reason: error_chain(&error),
                });
            }
            if !throttled {
                return Err(LaunchError::Call {
                    function: function.into(),
                    reason: error_chain(&error),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// The lines with which Lambda frames what a function printed.
fn is_lambdas_own(line: &str) -> bool {
    ["START", "END", "REPORT"]
        .iter()
        .any(|word| line.starts_with(&format!("{word} RequestId: ")))
}
