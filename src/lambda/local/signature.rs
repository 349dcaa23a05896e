//! AWS's Signature Version 4, verified: who may invoke where the system does not say which user holds a connection.
//!
//! The keys are made for one local Lambda and given to its own clients; any AWS SDK or command line signs with them. Requests are
//! values here, and so is the time. The steps and their names are those of AWS's page "Create a signed AWS API request".

use std::fmt;

use aws_sdk_lambda::primitives::{DateTime, DateTimeFormat};
use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::random;

/// The difference between a request's time and ours that AWS bears, in seconds.
const CLOCK_SKEW_MAX_S: u64 = 300;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SCOPE_END: &str = "aws4_request";

/// What a client signs with: an access key and its secret, both as the SDKs take them.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalKeys {
    /// Names the keys; as `AWS_ACCESS_KEY_ID`.
    pub access_key: String,
    /// Never sent; as `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: String,
}

impl LocalKeys {
    /// Fresh ones.
    pub(super) fn random() -> LocalKeys {
        LocalKeys {
            access_key: format!("LOCAL{}", random::to_hex(&random::bytes::<8>())),
            secret_key: random::to_hex(&random::bytes::<32>()),
        }
    }

    /// As [`LocalKeys::written`] has them.
    pub(crate) fn parse(text: &str) -> Option<LocalKeys> {
        let (access_key, secret_key) = text.split_once(':')?;
        Some(LocalKeys {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
        })
    }

    /// In one variable of a worker.
    pub(super) fn written(&self) -> String {
        format!("{}:{}", self.access_key, self.secret_key)
    }
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LocalKeys({})", self.access_key)
    }
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// Why a signature is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    #[error(
        "the request is not signed; sign with the keys that this local Lambda printed when it started"
    )]
    Missing,
    #[error("the request's header {0} is none of Signature Version 4")]
    Malformed(&'static str),
    #[error("the request is signed with other keys than this local Lambda printed when it started")]
    OtherKey,
    #[error("the request was signed at another time than this machine's clock has now")]
    Time,
    #[error("the request's signature does not match")]
    Wrong,
}

impl LocalKeys {
    /// Checks that a request was signed with these keys, whole, and now.
    pub(super) fn verify(&self, request: Request<'_>, now_s: u64) -> Result<(), SignatureError> {
        use SignatureError::{Malformed, Missing, OtherKey, Time, Wrong};
        let header = |name: &'static str| {
            let mut values = request.headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Err(Missing),
                (Some(value), None) => value.to_str().map_err(|_| Malformed(name)),
                _ => Err(Malformed(name)),
            }
        };
        let authorization = header("authorization")?;
        let signed = Authorization::parse(authorization).ok_or(Malformed("authorization"))?;
        if signed.access_key != self.access_key {
            return Err(OtherKey);
        }
        let at = header("x-amz-date")?;
        let at_s = unix_s(at).ok_or(Malformed("x-amz-date"))?;
        if !at.starts_with(signed.date) || at_s.abs_diff(now_s) > CLOCK_SKEW_MAX_S {
            return Err(Time);
        }
        // What is not signed may be another's: at least whom it is for and when.
        let names: Vec<&str> = signed.headers.split(';').collect();
        if !names.contains(&"host") || !names.contains(&"x-amz-date") {
            return Err(Malformed("authorization"));
        }
        let canonical =
            canonical_request(request, signed.headers, &names).ok_or(Malformed("authorization"))?;
        let scope = signed.scope;
        let string_to_sign = format!(
            "{ALGORITHM}\n{at}\n{scope}\n{}",
            random::to_hex(&Sha256::digest(canonical.as_bytes()))
        );
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part).finalize().into_bytes().to_vec();
        }
        let signature = random::parse_hex::<32>(signed.signature).ok_or(Wrong)?;
        let genuine = mac(&key, &string_to_sign).verify_slice(&signature);
        genuine.map_err(|_| Wrong)
    }
}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    access_key: &'a str,
    date: &'a str,
    /// `DATE/REGION/SERVICE/aws4_request`.
    scope: &'a str,
    /// Their names, `;` between them.
    headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Option<Authorization<'a>> {
        let fields = text.strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            match field.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => headers = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        let (access_key, scope) = credential?.split_once('/')?;
        let mut parts = scope.split('/');
        let (date, _region, _service) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next()? != SCOPE_END || parts.next().is_some() || date.len() != 8 {
            return None;
        }
        Some(Authorization {
            access_key,
            date,
            scope,
            headers: headers?,
            signature: signature?,
        })
    }
}

/// `None` if a header is named that the request has not.
fn canonical_request(request: Request<'_>, signed: &str, names: &[&str]) -> Option<String> {
    // Services other than S3 encode the path once more than it is sent.
    let path = encode(request.path.as_bytes(), b"/");
    let mut query: Vec<String> = request
        .query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            format!(
                "{}={}",
                encode(&decode(name), b""),
                encode(&decode(value), b"")
            )
        })
        .collect();
    query.sort();
    let mut headers = String::new();
    for name in names {
        let mut values = Vec::new();
        for value in request.headers.get_all(*name) {
            let words: Vec<&str> = value
                .to_str()
                .ok()?
                .split(' ')
                .filter(|word| !word.is_empty())
                .collect();
            values.push(words.join(" "));
        }
        if values.is_empty() {
            return None;
        }
        headers += &format!("{name}:{}\n", values.join(","));
    }
    let body = random::to_hex(&Sha256::digest(request.body));
    Some(format!(
        "{}\n{path}\n{}\n{headers}\n{signed}\n{body}",
        request.method,
        query.join("&"),
    ))
}

/// Percent-encodes all but letters, digits, `-._~` and what is in `kept`.
fn encode(bytes: &[u8], kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// The reverse; a `%` without two digits behind it is one.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).and_then(random::parse_hex::<1>);
        match digits.filter(|_| bytes[at] == b'%') {
            Some([byte]) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// `20150830T123600Z` in seconds since 1970.
fn unix_s(text: &str) -> Option<u64> {
    let part = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(digits)
    };
    if text.len() != 16 || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let written = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?,
    );
    let time = DateTime::from_str(&written, DateTimeFormat::DateTime).ok()?;
    u64::try_from(time.secs()).ok()
}

fn mac(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "get-vanilla" of AWS's test suite for Signature Version 4.
    const SIGNATURE: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    const AT_S: u64 = 1_440_938_160;

    fn keys() -> LocalKeys {
        LocalKeys {
            access_key: "AKIDEXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        }
    }

    fn authorization(signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={signature}"
        )
    }

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", authorization),
        ] {
            headers.insert(name, value.parse().expect("a header value"));
        }
        headers
    }

    fn request<'a>(headers: &'a HeaderMap) -> Request<'a> {
        Request {
            method: "GET",
            path: "/",
            query: "",
            headers,
            body: b"",
        }
    }

    #[test]
    fn the_example_of_aws_is_taken_and_nothing_else_under_its_signature() {
        let headers = headers(&authorization(SIGNATURE));
        let good = request(&headers);
        assert_eq!(keys().verify(good, AT_S), Ok(()));
        let mut other_host = headers.clone();
        other_host.insert("host", "example.com".parse().expect("a header value"));
        for other in [
            Request {
                method: "POST",
                ..good
            },
            Request { path: "/x", ..good },
            Request {
                query: "a=b",
                ..good
            },
            Request { body: b"x", ..good },
            Request {
                headers: &other_host,
                ..good
            },
        ] {
            let verified = keys().verify(other, AT_S);
            assert_eq!(verified, Err(SignatureError::Wrong), "{other:?}");
        }
        let other_secret = LocalKeys {
            secret_key: "other".into(),
            ..keys()
        };
        assert_eq!(other_secret.verify(good, AT_S), Err(SignatureError::Wrong));
        assert_eq!(
            LocalKeys::random().verify(good, AT_S),
            Err(SignatureError::OtherKey)
        );
    }

    #[test]
    fn a_signature_is_good_for_its_time_alone() {
        let headers = headers(&authorization(SIGNATURE));
        for (at_s, expected) in [
            (AT_S - CLOCK_SKEW_MAX_S, Ok(())),
            (AT_S + CLOCK_SKEW_MAX_S, Ok(())),
            (AT_S - CLOCK_SKEW_MAX_S - 1, Err(SignatureError::Time)),
            (AT_S + CLOCK_SKEW_MAX_S + 1, Err(SignatureError::Time)),
        ] {
            assert_eq!(keys().verify(request(&headers), at_s), expected, "{at_s}");
        }
    }

    #[test]
    fn what_is_no_signature_is_named() {
        assert_eq!(
            keys().verify(request(&HeaderMap::new()), AT_S),
            Err(SignatureError::Missing)
        );
        let good = authorization(SIGNATURE);
        for wrong in [
            String::new(),
            "Bearer x".into(),
            good.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
            good.replace("/aws4_request", ""),
            good.replace("/service", ""),
            good.replace("host;x-amz-date", "x-amz-date"),
            good.replace("host;x-amz-date", "host;x-amz-date;x-not-there"),
            good.replace("SignedHeaders", "Headers"),
        ] {
            let verified = keys().verify(request(&headers(&wrong)), AT_S);
            let expected = Err(SignatureError::Malformed("authorization"));
            assert_eq!(verified, expected, "{wrong}");
        }
        let short = authorization(&SIGNATURE[1..]);
        let verified = keys().verify(request(&headers(&short)), AT_S);
        assert_eq!(verified, Err(SignatureError::Wrong));
        let mut dated = headers(&good);
        for (date, expected) in [
            ("20150830", SignatureError::Malformed("x-amz-date")),
            (
                "2015083\u{e9}T12360Z",
                SignatureError::Malformed("x-amz-date"),
            ),
            ("20151330T123600Z", SignatureError::Malformed("x-amz-date")),
            ("20150831T123600Z", SignatureError::Time),
        ] {
            let value = header_value(date);
            dated.insert("x-amz-date", value);
            assert_eq!(
                keys().verify(request(&dated), AT_S),
                Err(expected),
                "{date}"
            );
        }
    }

    fn header_value(text: &str) -> axum::http::HeaderValue {
        axum::http::HeaderValue::from_bytes(text.as_bytes()).expect("a header value")
    }

    #[test]
    fn parameters_are_sorted_and_encoded_once_however_they_came() {
        assert_eq!(decode("%24LATEST%2"), b"$LATEST%2");
        assert_eq!(encode("\u{e9} /".as_bytes(), b"/"), "%C3%A9%20/");
        let headers = headers(&authorization(SIGNATURE));
        let of = |query| {
            let request = Request {
                query,
                ..request(&headers)
            };
            canonical_request(request, "host", &["host"]).expect("the header is there")
        };
        assert_eq!(of("b=%7e&a=$LATEST"), of("a=%24LATEST&b=~"));
        assert!(of("b&a=1").contains("\na=1&b=\n"), "{}", of("b&a=1"));
    }
}
