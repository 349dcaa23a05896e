//! Starting packs: one Invoke call each, through aws-sdk-lambda, on AWS or on the local Lambda alike.

use crate::aws::{AwsError, AwsSettings, error_chain};
use crate::lambda::cost::Usage;
use crate::lambda::event::{Event, EventError};
use crate::lambda::local::LocalKeys;
use crate::lambda::meter::{Budget, Meter, Spent};
use crate::lambda::pace::{Pace, Throttle};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::retry::RetryConfig;
use aws_sdk_lambda::config::{Builder, Credentials, StalledStreamProtectionConfig};
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::operation::RequestId;
use aws_sdk_lambda::operation::invoke::{InvokeError, InvokeOutput};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{InvocationType, LogType, ThrottleReason};
use base64::Engine;
use serde::Deserialize;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::Semaphore;

/// How long a call may take that waits for its function: Lambda's longest invocation and a minute for starting it.
const CALL_MAX: Duration = Duration::from_secs(16 * 60);

/// How long a call may take that only starts its function.
const START_MAX: Duration = Duration::from_secs(10);

/// Calls under way that only start their functions.
const STARTS_AT_ONCE: usize = 200;

/// How often a call is repeated for which there was no connection, and the pause before, which grows by itself each time.
const UNSENT_MAX: u32 = 4;
const UNSENT_PAUSE: Duration = Duration::from_millis(200);

/// Of an answer that is not AWS's, how much is shown.
const WORDS_MAX: usize = 200;

/// Where a local Lambda tells its functions that it takes calls.
pub const ENDPOINT_VARIABLE: &str = "LSWITCH_LAMBDA_ENDPOINT";

/// With what calls there are to be signed, `ACCESS_KEY:SECRET_KEY`; not set where they need no signature.
pub const KEYS_VARIABLE: &str = "LSWITCH_LAMBDA_KEYS";

/// Calls the functions of a job, and knows what it takes. Clones share their pace and that.
#[derive(Clone)]
pub struct Launcher {
    client: Client,
    /// By rising rank.
    shares: Vec<Share>,
    way: Way,
    pace: Arc<Mutex<Pace>>,
    starting: Arc<Semaphore>,
    meter: Arc<Mutex<Meter>>,
    budget: Option<Arc<Budget>>,
    begun: Instant,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It stays open until the pack ends, and tells how it did.
    Wait,
    /// It ends when Lambda has taken it (`InvocationType: Event`). The rest is for the switch to tell.
    Start,
}

/// A call that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Called {
    /// The pack has ended, and its handler has returned this.
    Returned(Vec<u8>),
    /// Lambda will start the pack, or has done so, as this request.
    Accepted(Request),
}

/// A call by which what its pack prints can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The function that was called.
    pub function: String,
    /// Lambda's id of the call.
    pub id: String,
    /// When it was made.
    pub at: SystemTime,
}

/// A function, and which ranks of a job it runs: those that follow the one before it, up to `end`. Several with the end
/// [`u32::MAX`] take packs in turns.
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
    /// Lambda refused the call; the function has not run.
    #[error("cannot invoke function {function}: {reason}")]
    Refused {
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
    pub fn on_aws(config: &SdkConfig, shares: Vec<Share>, way: Way) -> Launcher {
        Launcher::new(Builder::from(config), shares, way)
    }

    /// Calls functions on a local Lambda, whose keys are needed if it has some. The endpoint is set on this client alone, never in the
    /// environment; a proxy for the web is not asked for this machine's own loopback.
    pub fn local(endpoint: &str, keys: Option<&LocalKeys>, shares: Vec<Share>) -> Launcher {
        let (access_key, secret_key) = match keys {
            Some(keys) => (&keys.access_key[..], &keys.secret_key[..]),
            None => ("local", "local"),
        };
        let config = aws_sdk_lambda::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(
                access_key,
                secret_key,
                None,
                None,
                "lswitch local Lambda",
            ))
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Launcher::new(config, shares, Way::Wait)
    }

    /// Calls functions from within one: on AWS, or on the local Lambda that runs it.
    ///
    /// # Errors
    /// When AWS's settings cannot be used.
    pub async fn within_lambda(
        aws: &AwsSettings,
        shares: Vec<Share>,
    ) -> Result<Launcher, AwsError> {
        Ok(match std::env::var(ENDPOINT_VARIABLE) {
            Ok(endpoint) => {
                let keys = std::env::var(KEYS_VARIABLE).ok();
                let keys = keys.as_deref().and_then(LocalKeys::parse);
                Launcher::local(&endpoint, keys.as_ref(), shares)
            }
            Err(_) => Launcher::on_aws(&aws.load().await?, shares, Way::Start),
        })
    }

    fn new(config: Builder, shares: Vec<Share>, way: Way) -> Launcher {
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
            way,
            pace: Arc::default(),
            starting: Arc::new(Semaphore::new(STARTS_AT_ONCE)),
            meter: Arc::default(),
            budget: None,
            begun: Instant::now(),
        }
    }

    /// The same, for a job that may cost so much.
    pub fn with_budget(self, budget: Arc<Budget>) -> Launcher {
        Launcher {
            meter: Arc::new(Mutex::new(budget.meter())),
            budget: Some(budget),
            ..self
        }
    }

    /// The same, as one of so many that start packs of the same functions at the same time.
    pub fn among(self, launchers: u32) -> Launcher {
        Launcher {
            pace: Arc::new(Mutex::new(Pace::among(launchers))),
            ..self
        }
    }

    /// What the job takes; its driver tells.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the job has taken so far.
    pub fn usage(&self) -> Usage {
        self.meter().usage(Instant::now())
    }

    /// Since it was made.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// May the job cost more than it has?
    ///
    /// # Errors
    /// When it may not.
    pub fn check_budget(&self) -> Result<(), Spent> {
        match &self.budget {
            None => Ok(()),
            Some(budget) => budget.check(&self.usage(), self.elapsed()),
        }
    }

    /// What its calls are for.
    pub fn way(&self) -> Way {
        self.way
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
    pub async fn start(&self, event: &Event, within: Duration) -> Result<Request, LaunchError> {
        let at = SystemTime::now();
        let reply = self.call(event, InvocationType::Event, within).await?;
        Ok(Request {
            function: self.function_of(event).into(),
            id: reply.request_id().unwrap_or_default().into(),
            at,
        })
    }

    /// The function that runs a pack; the last ones run all that are left, in turns.
    fn function_of(&self, event: &Event) -> &str {
        let rank = event.first_rank;
        let first = self.shares.iter().position(|share| rank < share.end);
        let first = first.unwrap_or(self.shares.len().saturating_sub(1));
        let turns = self.shares.get(first..).unwrap_or_default();
        let share = match turns {
            [] => return "",
            [share, ..] if share.end < u32::MAX => share,
            turns => &turns[(rank / event.ranks.max(1)) as usize % turns.len()],
        };
        &share.function
    }

    /// Starts a pack, and waits for its end if that is the launcher's way. A throttled call was not run, and is repeated for as long as
    /// `within`; whether a pack runs whose call failed in another way, nobody knows.
    ///
    /// # Errors
    /// When the call or the function fails.
    pub async fn invoke(&self, event: &Event, within: Duration) -> Result<Called, LaunchError> {
        if self.way == Way::Start {
            return self.start(event, within).await.map(Called::Accepted);
        }
        let reply = self
            .call(event, InvocationType::RequestResponse, within)
            .await?;
        let payload = reply
            .payload()
            .map(|blob| blob.as_ref().to_vec())
            .unwrap_or_default();
        let Some(handled) = reply.function_error() else {
            return Ok(Called::Returned(payload));
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
        let function = self.function_of(event);
        let mut call = self
            .client
            .invoke()
            .function_name(function)
            .payload(Blob::new(event.to_json()?));
        if kind == InvocationType::RequestResponse {
            call = call.log_type(LogType::Tail);
        }
        let starts = kind == InvocationType::Event;
        let call = call.invocation_type(kind);
        let mut unsent = 0;
        loop {
            // Who waits for the pace of one function does not hold up another's.
            self.admitted(function).await;
            // One that waits for its function's end is not under way in this sense.
            let under_way = match starts {
                true => self.starting.acquire().await.ok(),
                false => None,
            };
            let sent = match starts {
                false => call.clone().send().await,
                true => {
                    let timeouts = TimeoutConfig::builder()
                        .connect_timeout(Duration::from_secs(5))
                        .operation_timeout(START_MAX);
                    let brief = Builder::new().timeout_config(timeouts.build());
                    call.clone().customize().config_override(brief).send().await
                }
            };
            drop(under_way);
            let error = match sent {
                Ok(reply) => {
                    self.pace().accepted(function, Instant::now());
                    let mut meter = self.meter();
                    meter.called();
                    if starts {
                        meter.starts(event.first_rank, Instant::now());
                    }
                    return Ok(reply);
                }
                Err(error) => error,
            };
            if never_sent(&error) && unsent < UNSENT_MAX {
                unsent += 1;
                tokio::time::sleep(UNSENT_PAUSE * unsent).await;
                continue;
            }
            let refused = never_sent(&error) || has_no_credentials(&error);
            let (function, reason) = (function.to_string(), reason(&error));
            let Some(InvokeError::TooManyRequestsException(refusal)) = error.as_service_error()
            else {
                let status = error.raw_response().map(|answer| answer.status().as_u16());
                return Err(match status {
                    None if refused => LaunchError::Refused { function, reason },
                    Some(400..=499) => LaunchError::Refused { function, reason },
                    _ => LaunchError::Call { function, reason },
                });
            };
            if Instant::now() > deadline {
                return Err(LaunchError::Throttled { function, reason });
            }
            let what = match refusal.reason() {
                Some(
                    ThrottleReason::ConcurrentInvocationLimitExceeded
                    | ThrottleReason::ReservedFunctionConcurrentInvocationLimitExceeded,
                ) => Throttle::Environments,
                _ => Throttle::Calls,
            };
            let retry_after = refusal
                .retry_after_seconds()
                .and_then(|text| text.parse().ok());
            let retry_after = retry_after.map(Duration::from_secs);
            self.pace()
                .throttled(&function, what, retry_after, Instant::now());
        }
    }

    /// Waits until the function may be called.
    async fn admitted(&self, function: &str) {
        loop {
            let again = match self.pace().admit(function, Instant::now()) {
                Ok(()) => return,
                Err(again) => again,
            };
            tokio::time::sleep_until(again.into()).await;
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service says; of one that says nothing as AWS does, what it answered.
fn reason(error: &SdkError<InvokeError>) -> String {
    let chain = error_chain(error);
    let (SdkError::ServiceError(_), None, Some(answer)) =
        (error, error.code(), error.raw_response())
    else {
        return chain;
    };
    let body = answer.body().bytes().unwrap_or_default();
    let words: String = String::from_utf8_lossy(body)
        .chars()
        .take(WORDS_MAX)
        .collect();
    format!("it answered {}: {words}", answer.status())
}

/// True if the call could not be signed, and so was not sent.
fn has_no_credentials(error: &SdkError<InvokeError>) -> bool {
    let mut below = Some(error as &(dyn Error + 'static));
    while let Some(error) = below {
        if error.is::<CredentialsError>() {
            return true;
        }
        below = error.source();
    }
    matches!(error, SdkError::ConstructionFailure(_))
}

/// True if there was no connection over which a call could have been sent.
fn never_sent(error: &SdkError<InvokeError>) -> bool {
    let mut below = Some(error as &(dyn Error + 'static));
    while let Some(error) = below {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::ConnectionRefused;
        }
        below = error.source();
    }
    false
}

/// The lines with which Lambda frames what a function printed.
fn is_lambdas_own(line: &str) -> bool {
    ["START", "END", "REPORT"]
        .iter()
        .any(|word| line.starts_with(&format!("{word} RequestId: ")))
}
