//! The SDK's errors, as errors that say where and what to do.

use std::borrow::Cow;
use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::S3;
use crate::aws::{error_chain, error_within};
use crate::store::{Refusal, StoreError};

/// Where S3 names the bucket's region when the request went to another one.
const BUCKET_REGION_HEADER: &str = "x-amz-bucket-region";

/// What is known of an answer that is an error.
#[derive(Clone, Copy, Default)]
struct Answer<'a> {
    /// S3's code, empty if there is none.
    code: &'a str,
    /// The HTTP status.
    status: u16,
    /// S3's message.
    message: &'a str,
    /// The region of the bucket, if the answer has it.
    region: Option<&'a str>,
}

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
        let code = error.code().unwrap_or_default();
        let status = status(error);
        match (code, status) {
            ("NoSuchBucket", _) => {
                return StoreError::NoBucket {
                    url,
                    bucket: self.bucket.clone(),
                };
            }
            ("NoSuchKey" | "NotFound", _) | ("", Some(404)) => return StoreError::NotFound { url },
            _ => {}
        }
        let header = |response: &'_ aws_sdk_s3::config::http::HttpResponse| {
            let region = response.headers().get(BUCKET_REGION_HEADER);
            region.map(str::to_owned)
        };
        let region = error.raw_response().and_then(header);
        let (refusal, advice) = match status {
            Some(status) => of_answer(Answer {
                code,
                status,
                message: error.message().unwrap_or_default(),
                region: region.as_deref(),
            }),
            None => without_answer(error),
        };
        StoreError::S3 {
            action,
            url,
            cause: error_chain(error),
            advice,
            refusal,
        }
    }
}

/// What an answer means, and what to do about it.
fn of_answer(answer: Answer<'_>) -> (Refusal, Cow<'static, str>) {
    let (refusal, advice) = match (answer.code, answer.status) {
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 307) => {
            let advice = match answer.region {
                Some(region) => format!("the bucket is in {region}: use --region {region}").into(),
                None => "the bucket is in another region; name it with --region or AWS_REGION, and check the endpoint"
                    .into(),
            };
            return (Refusal::WrongRegion, advice);
        }
        ("RequestTimeTooSkewed" | "RequestExpired", _) => (
            Refusal::ClockSkew,
            "this machine's clock is wrong by more than 15 minutes; set it (timedatectl set-ntp true)",
        ),
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => (
            Refusal::ExpiredCredentials,
            "the credentials have expired; renew them (aws sso login, or a new AWS_SESSION_TOKEN), or choose others with --profile",
        ),
        (
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException",
            _,
        ) => (
            Refusal::BadCredentials,
            "AWS does not accept the credentials; renew them, or choose others with --profile",
        ),
        ("InvalidObjectState", _) => (
            Refusal::Archived,
            "the object is archived; restore it first (aws s3api restore-object), and wait until that is done",
        ),
        ("NotImplemented", _) | (_, 501) => (Refusal::NotImplemented, NO_CHECKSUMS),
        // Some servers refuse unknown headers in words alone.
        ("InvalidRequest" | "InvalidArgument", _) if mentions_checksum(answer.message) => {
            (Refusal::NotImplemented, NO_CHECKSUMS)
        }
        (code, _) if code.starts_with("KMS.") || code.starts_with("KMS") => (
            Refusal::EncryptionKey,
            "the KMS key that encrypts the bucket's objects cannot be used; check that it is enabled and in the bucket's region",
        ),
        ("AccessDenied", 401 | 403) if answer.message.contains("kms:") => (
            Refusal::Denied,
            "the bucket's objects are encrypted with a KMS key; the credentials need kms:Decrypt and kms:GenerateDataKey on it",
        ),
        ("AllAccessDisabled" | "AccountProblem" | "NotSignedUp", _) => (
            Refusal::Denied,
            "AWS has closed the account or the bucket; look into AWS's console",
        ),
        (_, 401 | 403) => (
            Refusal::Denied,
            "the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject on the objects and s3:ListBucket on \
             the bucket; without the last, even a missing object looks forbidden. A bucket whose requester pays needs \
             AWS_REQUEST_PAYER=requester",
        ),
        ("EntityTooLarge", _) => (
            Refusal::Other,
            "S3 takes at most 5 GiB at once; write smaller objects",
        ),
        ("XMinioStorageFull" | "QuotaExceeded", _) | (_, 507) => (
            Refusal::StorageFull,
            "the server's storage is full; delete objects (lswitch clean), or use another store",
        ),
        ("RequestTimeout", _) => (
            Refusal::Other,
            "the bytes arrived too slowly; check the network, and try again",
        ),
        ("BadDigest" | "XAmzContentChecksumMismatch" | "InvalidDigest", _) => (
            Refusal::Other,
            "the bytes changed on their way to the server; check the network and proxies between, and try again",
        ),
        ("SlowDown" | "ServiceUnavailable", _) | (_, 429 | 500..=599) => (
            Refusal::Other,
            "the service is overloaded or broken; try again later, or with fewer workers",
        ),
        _ => (
            Refusal::Other,
            "check the store's location and the bucket's settings",
        ),
    };
    (refusal, advice.into())
}

/// For servers that do not know the checksums which AWS's SDKs send.
const NO_CHECKSUMS: &str = "this server does not know part of the request; if that is the checksums of AWS's SDKs, set \
     AWS_REQUEST_CHECKSUM_CALCULATION=when_required";

fn mentions_checksum(message: &str) -> bool {
    message.to_ascii_lowercase().contains("checksum")
}

/// Why there is no answer, and what to do about it.
fn without_answer<E: Error + 'static>(error: &SdkError<E>) -> (Refusal, Cow<'static, str>) {
    if let Some(error) = error_within::<rustls::Error>(error)
        && let Some(advice) = certificate_advice(error)
    {
        return (Refusal::Untrusted, advice.into());
    }
    if let Some(error) = error_within::<CredentialsError>(error) {
        return match error {
            CredentialsError::CredentialsNotLoaded(_) => (
                Refusal::NoCredentials,
                "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile \
                 with --profile (\"aws sts get-caller-identity\" shows whose credentials there are), and the region with --region"
                    .into(),
            ),
            CredentialsError::InvalidConfiguration(_) => (
                Refusal::NoCredentials,
                "the settings of the credentials are wrong; correct the profile, or name another with --profile, \
                 and the region with --region"
                    .into(),
            ),
            _ => (
                Refusal::Other,
                "no credentials could be had; renew them (aws sso login), or choose others with --profile".into(),
            ),
        };
    }
    let advice = match error {
        SdkError::TimeoutError(_) => {
            "nothing answered in time; check the endpoint, the network and the proxy"
        }
        SdkError::DispatchFailure(failure)
            if failure.is_io() || failure.is_timeout() || failure.as_other().is_some() =>
        {
            "check the network, the proxy if one is set (HTTPS_PROXY, NO_PROXY), and that the endpoint \
             (AWS_ENDPOINT_URL_S3 if it is set) can be reached from here"
        }
        _ => {
            let advice = "check AWS's settings: a region (--region or AWS_REGION), credentials (--profile; \"aws sts \
                          get-caller-identity\" shows whose they are), the endpoint";
            // The SDK has no type for it.
            let refusal = match error_chain(error).contains("region must be set") {
                true => Refusal::NoRegion,
                false => Refusal::Other,
            };
            return (refusal, advice.into());
        }
    };
    (Refusal::Other, advice.into())
}

/// What to do about an error of TLS that comes again with each try; none for one that may not.
fn certificate_advice(error: &rustls::Error) -> Option<&'static str> {
    use rustls::CertificateError as Certificate;
    let advice = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => {
                "the server's certificate has expired or is not valid yet; renew it, and check this machine's clock"
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "the server's certificate is for another name; use the endpoint's name as the certificate has it"
            }
            _ => {
                "the server's certificate is not trusted here; if its authority is one of your own, name the \
                 authority's certificate with AWS_CA_BUNDLE=FILE, or ca_bundle in the profile"
            }
        },
        rustls::Error::InvalidMessage(_) => {
            "the server does not answer in TLS; is the endpoint one of http:// instead of https://?"
        }
        _ => return None,
    };
    Some(advice)
}

/// Keeps the SDK from trying again where a certificate is refused: it takes that for a fault of the network.
#[derive(Debug)]
pub(super) struct RefusedCertificates;

impl ClassifyRetry for RefusedCertificates {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = match context.output_or_error() {
            Some(Err(error)) => error.as_connector_error(),
            _ => None,
        };
        let refused = error
            .and_then(|error| error_within::<rustls::Error>(error))
            .and_then(certificate_advice);
        match refused {
            Some(_) => RetryAction::RetryForbidden,
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "lswitch refused certificates"
    }
}

/// The HTTP status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error
        .raw_response()
        .map(|response| response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_the_advice_that_mends_it() {
        let table = [
            ("RequestTimeTooSkewed", 403, Refusal::ClockSkew, "clock"),
            ("InvalidObjectState", 403, Refusal::Archived, "restore"),
            (
                "NotImplemented",
                501,
                Refusal::NotImplemented,
                "when_required",
            ),
            ("", 501, Refusal::NotImplemented, "when_required"),
            (
                "KMS.DisabledException",
                400,
                Refusal::EncryptionKey,
                "KMS key",
            ),
            (
                "KMSInvalidStateException",
                400,
                Refusal::EncryptionKey,
                "KMS key",
            ),
            (
                "ExpiredToken",
                400,
                Refusal::ExpiredCredentials,
                "have expired",
            ),
            (
                "InvalidAccessKeyId",
                403,
                Refusal::BadCredentials,
                "does not accept",
            ),
            ("AccessDenied", 403, Refusal::Denied, "AWS_REQUEST_PAYER"),
            ("", 403, Refusal::Denied, "s3:ListBucket"),
            ("PermanentRedirect", 301, Refusal::WrongRegion, "--region"),
            ("", 301, Refusal::WrongRegion, "--region"),
            ("XMinioStorageFull", 507, Refusal::StorageFull, "full"),
            ("SlowDown", 503, Refusal::Other, "overloaded"),
            ("InternalError", 500, Refusal::Other, "overloaded"),
            ("Teapot", 418, Refusal::Other, "check the store's location"),
        ];
        for (code, status, refusal, words) in table {
            let (found, advice) = of_answer(Answer {
                code,
                status,
                ..Answer::default()
            });
            assert_eq!(found, refusal, "{code} {status}");
            assert!(advice.contains(words), "{code} {status}: {advice}");
        }
    }

    #[test]
    fn a_redirect_names_the_region_that_the_answer_has() {
        let (_, advice) = of_answer(Answer {
            code: "",
            status: 301,
            region: Some("eu-west-3"),
            ..Answer::default()
        });
        assert!(advice.contains("--region eu-west-3"), "{advice}");
    }

    #[test]
    fn a_request_that_is_refused_for_its_checksums_is_told_from_others() {
        let refused = |message| {
            of_answer(Answer {
                code: "InvalidRequest",
                status: 400,
                message,
                region: None,
            })
        };
        let (refusal, _) = refused("Checksum Type mismatch occurred");
        assert_eq!(refusal, Refusal::NotImplemented);
        let (refusal, _) = refused("The specified copy source is not supported");
        assert_eq!(refusal, Refusal::Other);
    }
}
