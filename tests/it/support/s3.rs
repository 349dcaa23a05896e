//! An S3 server in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

/// What becomes of a request to an [`S3Server`].
pub enum Fate {
    /// It is served.
    Served,
    /// It is not served but answered with this status and this error code of S3.
    Refused(u16, &'static str),
    /// It is served, but the client hears only that the server broke.
    AnswerLost,
}

/// An S3 server on a loopback port, which keeps its buckets as folders of a directory. It stops when it is dropped.
pub struct S3Server {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// The one access key that it accepts.
    pub access_key: String,
    /// The secret that belongs to it.
    pub secret_key: String,
    /// A bucket that exists.
    pub bucket: String,
    task: tokio::task::JoinHandle<()>,
}

/// Starts an S3 server whose objects are in `dir`, with one bucket.
pub async fn s3_server(dir: &Path) -> S3Server {
    s3_server_with(dir, |_| Fate::Served).await
}

/// Starts an S3 server that asks `fate` about every request.
pub async fn s3_server_with(
    dir: &Path,
    fate: impl Fn(&Parts) -> Fate + Send + Sync + 'static,
) -> S3Server {
    let (access_key, secret_key, bucket) = ("lswitch-test", "not-a-secret", "lswitch-test");
    std::fs::create_dir_all(dir.join(bucket)).expect("the bucket's folder can be made");
    let files = s3s_fs::FileSystem::new(dir).expect("the directory can be served");
    let mut service = s3s::service::S3ServiceBuilder::new(files);
    service.set_auth(s3s::auth::SimpleAuth::from_single(access_key, secret_key));
    let backend = Arc::new(Backend {
        service: service.build(),
        fate: Box::new(fate),
        dir: dir.to_owned(),
        writing: tokio::sync::Mutex::default(),
    });

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a loopback port is free");
    let address = listener.local_addr().expect("a listener has an address");
    let router = axum::Router::new().fallback(move |request| {
        let backend = backend.clone();
        async move { backend.answer(request).await }
    });
    let task = tokio::spawn(async move {
        axum::serve(listener, router)
            .await
            .expect("serving never ends by itself")
    });
    S3Server {
        endpoint: format!("http://{address}"),
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
        bucket: bucket.to_owned(),
        task,
    }
}

impl S3Server {
    /// The environment in which AWS's SDKs and tools, and so `lswitch`, use this server and nothing of the machine's own
    /// settings.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_SESSION_TOKEN", ""),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Backend {
    service: s3s::service::S3Service,
    fate: Box<dyn Fn(&Parts) -> Fate + Send + Sync>,
    dir: PathBuf,
    /// Held by a write on a condition. s3s-fs looks for the object and writes it in two steps; S3 promises one.
    writing: tokio::sync::Mutex<()>,
}

impl Backend {
    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let fate = (self.fate)(&parts);
        if let Fate::Refused(status, code) = fate {
            return refusal(status, code);
        }
        // s3s-fs would create the bucket with its first object.
        let bucket = parts.uri.path().split('/').nth(1).unwrap_or_default();
        if !bucket.is_empty() && !self.dir.join(bucket).is_dir() {
            return refusal(404, "NoSuchBucket");
        }
        let _one_at_a_time = match parts.headers.contains_key("if-none-match") {
            true => Some(self.writing.lock().await),
            false => None,
        };
        let request = axum::http::Request::from_parts(parts, s3s::Body::http_body_unsync(body));
        let response = match self.service.call(request).await {
            Ok(response) => response.map(Body::new),
            Err(error) => {
                return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response();
            }
        };
        match fate {
            Fate::AnswerLost => refusal(500, "InternalError"),
            Fate::Served | Fate::Refused(..) => response,
        }
    }
}

fn refusal(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a test names a real status");
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>arranged by a test</Message></Error>"
    );
    (status, [("content-type", "application/xml")], body).into_response()
}
