//! Reading a request's body into memory, with a bound and a deadline.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};

/// How much of a body that is too long is read on, so that its sender gets to read the refusal instead of a reset.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a body was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    TooLarge,
    /// The sender broke off or took too long.
    Broken(String),
}

/// A whole body and the trailers behind it.
#[derive(Debug)]
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    pub(super) trailers: HeaderMap,
}

/// Reads a body of at most `limit` bytes, however it is sent.
pub(super) async fn read_body(
    body: Body,
    limit: usize,
    patience: Duration,
) -> Result<WholeBody, BodyError> {
    tokio::time::timeout(patience, read(body, limit))
        .await
        .unwrap_or_else(|_| {
            Err(BodyError::Broken(format!(
                "the body did not arrive within {} s",
                patience.as_secs()
            )))
        })
}

async fn read(mut body: Body, limit: usize) -> Result<WholeBody, BodyError> {
    let mut bytes = BytesMut::new();
    let mut trailers = HeaderMap::new();
    let mut arrived = 0;
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        match frame.into_data() {
            Ok(data) => {
                arrived += data.len();
                if arrived <= limit {
                    bytes.extend_from_slice(&data);
                } else if arrived > DISCARD_BYTES_MAX {
                    break;
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    if arrived > limit {
        Err(BodyError::TooLarge)
    } else {
        Ok(WholeBody {
            bytes: bytes.freeze(),
            trailers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let patience = Duration::from_secs(10);
        let whole = read_body(Body::from("12345"), 5, patience)
            .await
            .expect("it fits");
        assert_eq!(whole.bytes, "12345");
        assert_eq!(
            read_body(Body::from("123456"), 5, patience)
                .await
                .expect_err("it does not"),
            BodyError::TooLarge
        );
    }
}
