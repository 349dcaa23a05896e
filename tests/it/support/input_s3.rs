//! A server with objects under any key, which s3s-fs cannot keep as files, and whose objects a test replaces while they are
//! read. It lists and reads, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::header::{HeaderMap, IF_MATCH, RANGE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

/// Objects by their keys in the bucket `inputs`.
pub type Objects = BTreeMap<String, Vec<u8>>;

/// See the module. It stops when it is dropped.
pub struct InputS3 {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

type Hook = Box<dyn FnMut(&str, &mut Objects) + Send>;

struct State {
    objects: Objects,
    /// Method and key of each request; the key of a list is empty.
    log: Vec<(Method, String)>,
    after: Hook,
    knows_if_match: bool,
}

impl InputS3 {
    /// Starts a server with these objects. `after` is called with the key of each request (empty for a list) once its answer
    /// is made, and may change the objects.
    pub async fn start(
        objects: Objects,
        after: impl FnMut(&str, &mut Objects) + Send + 'static,
    ) -> InputS3 {
        let state = Arc::new(Mutex::new(State {
            objects,
            log: Vec::new(),
            after: Box::new(after),
            knows_if_match: true,
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = state.clone();
        let router = axum::Router::new().fallback(move |request: Request| {
            let shared = shared.clone();
            async move { shared.lock().unwrap().answer(&request) }
        });
        let task = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("serving never ends by itself")
        });
        InputS3 {
            endpoint: format!("http://{address}"),
            state,
            task,
        }
    }

    /// From now on it is a server that does not look at If-Match.
    pub fn ignore_if_match(&self) {
        self.state.lock().unwrap().knows_if_match = false;
    }

    /// The requests so far: methods and keys.
    pub fn requests(&self) -> Vec<(Method, String)> {
        self.state.lock().unwrap().log.clone()
    }

    /// The environment in which `lswitch` uses this server for S3.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "any"),
            ("AWS_SECRET_ACCESS_KEY", "any"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

impl Drop for InputS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        let path = request.uri().path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (decoded(bucket), decoded(key));
        self.log.push((request.method().clone(), key.clone()));
        if bucket != "inputs" {
            return refusal(404, "NoSuchBucket");
        }
        let query = request.uri().query().unwrap_or_default();
        let response = match (key.is_empty(), request.method()) {
            (true, &Method::GET) => self.list(query),
            (false, &Method::GET) => self.object(&key, request.headers()),
            _ => refusal(405, "MethodNotAllowed"),
        };
        (self.after)(&key, &mut self.objects);
        response
    }

    fn list(&self, query: &str) -> Response {
        let prefix = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("prefix="));
        let prefix = decoded(prefix.unwrap_or_default());
        let contents = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix));
        let contents: String = contents
            .map(|(key, value)| {
                let key = key.replace('&', "&amp;").replace('<', "&lt;").replace('\t', "&#9;");
                format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size><ETag>{}</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>",
                    value.len(),
                    etag(value).replace('"', "&quot;")
                )
            })
            .collect();
        let list = format!(
            "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        );
        ([("content-type", "application/xml")], list).into_response()
    }

    fn object(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some(value) = self.objects.get(key) else {
            return refusal(404, "NoSuchKey");
        };
        let etag = etag(value);
        let wanted = headers.get(IF_MATCH);
        if self.knows_if_match && wanted.is_some_and(|wanted| wanted.as_bytes() != etag.as_bytes())
        {
            return refusal(412, "PreconditionFailed");
        }
        let Some(range) = headers.get(RANGE) else {
            return ([("etag", etag)], value.clone()).into_response();
        };
        let range = range.to_str().expect("it is ASCII");
        let (first, last) = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
            .expect("it is a range");
        let first: usize = first.parse().expect("it has a beginning");
        let last: usize = last.parse().expect("it has an end");
        if first >= value.len() {
            return refusal(416, "InvalidRange");
        }
        let part = value[first..value.len().min(last + 1)].to_vec();
        (StatusCode::PARTIAL_CONTENT, [("etag", etag)], part).into_response()
    }
}

fn etag(value: &[u8]) -> String {
    format!("\"{:08x}\"", crc32c::crc32c(value))
}

fn refusal(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("it is a real status");
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>arranged</Message></Error>"
    );
    (status, [("content-type", "application/xml")], body).into_response()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).expect("they are hexadecimal");
                bytes.push(u8::from_str_radix(digits, 16).expect("they are hexadecimal"));
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).expect("keys are UTF-8")
}
