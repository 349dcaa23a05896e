//! Requests to S3, counted as AWS asks money for them: each try of those that write or list, and of those that read.

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many there were so far.
#[derive(Debug, Default)]
pub struct Requests {
    writes: AtomicU64,
    reads: AtomicU64,
}

impl Requests {
    /// Those that wrote or listed, and those that read. Deleting costs nothing.
    pub fn so_far(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.writes), read(&self.reads))
    }

    fn note(&self, method: &str, uri: &str) {
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let lists = query.contains("list-type=") || query.starts_with("uploads");
        let count = match method {
            "DELETE" => return,
            "GET" | "HEAD" if !lists => &self.reads,
            _ => &self.writes,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts what a client sends.
#[derive(Debug)]
pub(super) struct Counting(pub(super) Arc<Requests>);

impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "lswitch requests"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        self.0.note(request.method(), request.uri());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_cost() {
        let requests = Requests::default();
        for (method, uri) in [
            ("GET", "/bucket/key"),
            ("HEAD", "/bucket/uploads/key"),
            ("GET", "/bucket?list-type=2&prefix=a"),
            ("PUT", "/bucket/key"),
            ("POST", "/bucket/key?uploads"),
            ("PUT", "/bucket/key?partNumber=1&uploadId=x"),
            ("DELETE", "/bucket/key"),
        ] {
            requests.note(method, uri);
        }
        assert_eq!(requests.so_far(), (4, 2));
    }
}
