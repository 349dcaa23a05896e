//! An invocation: its id, how it ends, and what its caller is told.

use crate::random;
use std::fmt;

use bytes::Bytes;
use serde_json::json;

/// The largest payload, and the largest answer, of a synchronous invocation: Lambda's "6 MB".
pub(super) const SYNC_PAYLOAD_BYTES_MAX: usize = 6_291_556;
/// The largest payload of an asynchronous invocation: Lambda's "1 MB".
pub(super) const EVENT_PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// The id of one invocation, shaped like a random UUID, as on AWS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequestId(pub(super) String);

impl RequestId {
    pub(super) fn random() -> RequestId {
        let mut bytes = random::bytes::<16>();
        bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4: random
        bytes[8] = (bytes[8] & 0x3f) | 0x80; // variant 1
        let hex = random::to_hex(&bytes);
        RequestId(format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        ))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How an invocation that was started ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The function answered.
    Response(Bytes),
    /// The function says that it failed, in its own words.
    FunctionError { error_type: String, body: Bytes },
    /// Its environment failed: it exited, was killed, or never started.
    EnvironmentError { error_type: String, message: String },
}

impl Outcome {
    /// A failure that the environment, not the function, describes.
    pub(super) fn failed(request: &RequestId, error_type: &str, message: &str) -> Outcome {
        let message = format!("RequestId: {request} Error: {message}");
        Outcome::EnvironmentError {
            error_type: error_type.to_owned(),
            message,
        }
    }

    /// What the log's REPORT line says about a failure, such as `Runtime.ExitError`.
    pub(super) fn error_type(&self) -> Option<&str> {
        match self {
            Outcome::Response(_) => None,
            Outcome::FunctionError { error_type, .. }
            | Outcome::EnvironmentError { error_type, .. } => Some(error_type),
        }
    }

    /// The body that the caller gets.
    pub(super) fn into_body(self) -> Bytes {
        match self {
            Outcome::Response(body) | Outcome::FunctionError { body, .. } => body,
            Outcome::EnvironmentError {
                error_type,
                message,
            } => error_body(&error_type, &message),
        }
    }
}

/// An error in the shape that Lambda's runtimes and its Runtime API use.
pub(super) fn error_body(error_type: &str, message: &str) -> Bytes {
    json!({"errorType": error_type, "errorMessage": message})
        .to_string()
        .into()
}

/// Why an invocation was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As many environments as allowed are busy (429).
    Concurrency,
    /// As many as the function has reserved are busy (429).
    ReservedConcurrency,
    /// It takes a new environment, and the function has got them too fast (429).
    ScalingRate,
    /// The function is called too often, for what it has reserved or for all that there is (429).
    CallRate { reserved: bool },
    /// As many asynchronous invocations as allowed wait (429).
    QueueFull,
    /// The local Lambda ends (503).
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let (one, two) = (RequestId::random(), RequestId::random());
        assert_ne!(one, two);
        let parts: Vec<usize> = one.0.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one.0[14..15], "4");
    }
}
