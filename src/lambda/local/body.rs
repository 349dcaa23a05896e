//! Reading a request's body into memory, with a bound and a deadline.

use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// How much of a body that is too long is read on, so that its sender gets to read the refusal instead of a reset.
const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a body may have without a turn: all of lswitch's own events, so that the calls of a job wait for nobody's bodies.
const SHORT_BYTES_MAX: usize = 128 * 1024;
/// How long a body may have a turn; 6 MB on loopback take some milliseconds.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

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

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyTimes {
    /// From its beginning to its end.
    pub(super) whole: Duration,
    /// Without a byte.
    pub(super) idle: Duration,
}

/// Reads a body of at most `limit` bytes, however it is sent. With `turns` a body takes one of them once it is long, by the bytes that
/// came and not by those that were announced, and gives it back when it takes too long.
pub(super) async fn read_body(
    body: Body,
    limit: usize,
    times: BodyTimes,
    turns: Option<&Semaphore>,
) -> Result<WholeBody, BodyError> {
    tokio::time::timeout(times.whole, read(body, limit, times.idle, turns))
        .await
        .unwrap_or_else(|_| Err(late(times.whole)))
}

fn late(limit: Duration) -> BodyError {
    BodyError::Broken(format!(
        "the body did not arrive within {} s",
        limit.as_secs()
    ))
}

async fn read(
    mut body: Body,
    limit: usize,
    idle: Duration,
    turns: Option<&Semaphore>,
) -> Result<WholeBody, BodyError> {
    let mut bytes = BytesMut::new();
    let mut trailers = HeaderMap::new();
    let mut arrived = 0;
    let mut turn = None;
    loop {
        let turn_ends = turn.as_ref().map(|(_, ends)| *ends);
        let silent_at = Instant::now() + idle;
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let waited = timeout_at(turn_ends.unwrap_or(silent_at).min(silent_at), frame).await;
        let frame = match waited {
            Ok(Some(frame)) => frame.map_err(|error| BodyError::Broken(error.to_string()))?,
            Ok(None) => break,
            Err(_) if turn_ends.is_some_and(|ends| ends < silent_at) => {
                return Err(late(TURN_TIMEOUT));
            }
            Err(_) => {
                return Err(BodyError::Broken(format!(
                    "no byte of the body came for {} s, and its end did not",
                    idle.as_secs()
                )));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                arrived += data.len();
                if arrived <= limit {
                    bytes.extend_from_slice(&data);
                } else if arrived > DISCARD_BYTES_MAX {
                    break;
                } else {
                    bytes = BytesMut::new();
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
        if turn.is_none()
            && arrived > SHORT_BYTES_MAX
            && let Some(turns) = turns
        {
            let permit = turns
                .acquire()
                .await
                .expect("the semaphore is never closed");
            turn = Some((permit, Instant::now() + TURN_TIMEOUT));
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

    const TIMES: BodyTimes = BodyTimes {
        whole: Duration::from_secs(10),
        idle: Duration::from_secs(10),
    };

    #[tokio::test]
    async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let whole = read_body(Body::from("12345"), 5, TIMES, None)
            .await
            .expect("it fits");
        assert_eq!(whole.bytes, "12345");
        assert_eq!(
            read_body(Body::from("123456"), 5, TIMES, None)
                .await
                .expect_err("it does not"),
            BodyError::TooLarge
        );
    }

    /// A body of which the beginning is there and nothing follows.
    struct Stuck(Option<Bytes>);

    impl HttpBody for Stuck {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            match self.get_mut().0.take() {
                Some(bytes) => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes)))),
                None => std::task::Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_stops_is_given_up_and_its_turn_is_free_again() {
        let turns = Semaphore::new(1);
        let times = BodyTimes {
            idle: Duration::from_millis(1),
            ..TIMES
        };
        for length in [0, 1000, SHORT_BYTES_MAX + 1] {
            let body = Body::new(Stuck(Some(vec![b'x'; length].into())));
            let error = read_body(body, 1 << 20, times, Some(&turns)).await;
            let Err(BodyError::Broken(problem)) = error else {
                panic!("{length} bytes: {error:?}");
            };
            assert!(problem.starts_with("no byte of the body came"), "{problem}");
            assert_eq!(turns.available_permits(), 1, "{length} bytes");
        }
    }

    #[tokio::test]
    async fn short_bodies_need_no_turn_and_long_ones_wait_for_one() {
        let none_left = Semaphore::new(0);
        let short = Body::from(vec![b'x'; SHORT_BYTES_MAX]);
        read_body(short, 1 << 20, TIMES, Some(&none_left))
            .await
            .expect("it is short");
        let times = BodyTimes {
            whole: Duration::from_millis(1),
            ..TIMES
        };
        let long = Body::from(vec![b'x'; SHORT_BYTES_MAX + 1]);
        let waited = read_body(long, 1 << 20, times, Some(&none_left)).await;
        assert!(matches!(waited, Err(BodyError::Broken(_))), "{waited:?}");
    }
}
