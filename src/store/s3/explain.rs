//! The SDK's errors, as errors that say where and what to do.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::S3;
use crate::aws::error_chain;
use crate::store::StoreError;

impl S3 {
    /// Turns the SDK's error into one that says where and what to do.
    pub(super) fn explain<E>(
        &self,
        action: &'static str,
        url: &str,
        error: &SdkError<E>,
    ) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let url = url.to_owned();
        let (code, status) = (error.code().unwrap_or_default(), status(error));
        let advice = match (code, status) {
            ("NoSuchBucket", _) => {
                return StoreError::NoBucket {
                    url,
                    bucket: self.bucket.clone(),
                };
            }
            ("NoSuchKey" | "NotFound", _) | ("", Some(404)) => return StoreError::NotFound { url },
            (
                "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            )
            | (_, Some(301 | 307)) => {
                "is the bucket in another region? name it with --region or AWS_REGION"
            }
            (
                "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken",
                _,
            ) => "AWS does not accept the credentials; renew them, or choose others with --profile",
            (_, Some(401 | 403)) => {
                "the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject on the objects and s3:ListBucket on \
                 the bucket; without the last, even a missing object looks forbidden"
            }
            ("EntityTooLarge", _) => "S3 takes at most 5 GiB at once; write smaller objects",
            ("SlowDown" | "ServiceUnavailable", _) | (_, Some(429 | 500..=599)) => {
                "the service is overloaded or broken; try again later, or with fewer workers"
            }
            (_, Some(_)) => "check the store's location and the bucket's settings",
            (_, None) => match error {
                SdkError::TimeoutError(_) => {
                    "nothing answered in time; check the endpoint and the network"
                }
                SdkError::DispatchFailure(failure)
                    if failure.is_io() || failure.is_timeout() || failure.as_other().is_some() =>
                {
                    "check the network, and that the endpoint (AWS_ENDPOINT_URL_S3 if it is set) can be reached from here"
                }
                _ => {
                    "check AWS's settings: a region (--region or AWS_REGION), credentials (--profile; \"aws sts \
                     get-caller-identity\" shows whose they are), the endpoint"
                }
            },
        };
        StoreError::S3 {
            action,
            url,
            cause: error_chain(error),
            advice,
        }
    }
}

/// The HTTP status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}
