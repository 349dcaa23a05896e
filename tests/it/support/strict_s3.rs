//! A strict S3 in memory: it takes only what AWS's documents allow where kinder servers take anything, and a test may answer
//! in its place.
//!
//! It does not look at signatures, and knows the one bucket `bucket`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Objects on one page of a list.
const PAGE: usize = 1000;

/// A request as a test sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Without the bucket; empty for the bucket itself.
    pub key: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    pub fn has(&self, parameter: &str) -> bool {
        self.query.contains_key(parameter)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A list of objects.
    pub fn is_list(&self) -> bool {
        self.method == "GET" && self.key.is_empty() && self.has("list-type")
    }

    pub fn is_complete(&self) -> bool {
        self.method == "POST" && self.has("uploadId")
    }
}

/// What a test makes of a request.
pub enum Verdict {
    /// It is served.
    Serve,
    /// It is answered so, and not served.
    Answer(u16, String),
    /// It is served, but the answer is this one.
    ServeButAnswer(u16, String),
}

impl Verdict {
    /// An error of S3 in place of serving.
    pub fn refuse(status: u16, code: &str) -> Verdict {
        Verdict::Answer(status, error_text(code, "arranged by a test"))
    }

    /// Served, but the client hears of an error.
    pub fn lose(status: u16, code: &str) -> Verdict {
        Verdict::ServeButAnswer(status, error_text(code, "arranged by a test"))
    }
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    metadata: Vec<(String, String)>,
}

struct PendingUpload {
    key: String,
    checksums: bool,
    metadata: Vec<(String, String)>,
    parts: BTreeMap<u32, (Bytes, Option<String>)>,
}

struct State {
    judge: Box<dyn Fn(&Asked) -> Verdict + Send + Sync>,
    bucket_exists: Mutex<bool>,
    objects: Mutex<BTreeMap<String, Object>>,
    uploads: Mutex<BTreeMap<String, PendingUpload>>,
    log: Mutex<Vec<Asked>>,
    /// Connections that broke off before a request, as those of clients that do not trust the certificate.
    broken_handshakes: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no request panics")
}

/// A running server. It stops when it is dropped.
pub struct StrictS3 {
    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    pub endpoint: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StrictS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StrictS3 {
    /// Starts a server that asks `judge` about each request.
    pub async fn start(judge: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) -> StrictS3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        StrictS3::serve(listener, format!("http://{address}"), State::new(judge))
    }

    /// Starts a server with a certificate for `localhost` from an authority of its own, whose certificate it writes to
    /// `authority`.
    pub async fn start_with_tls(authority: &Path) -> StrictS3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let state = State::new(|_| Verdict::Serve);
        let listener = TlsListener {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(server_config(authority))),
            state: state.clone(),
        };
        StrictS3::serve(listener, format!("https://localhost:{port}"), state)
    }

    fn serve<L: Listener<Addr = SocketAddr>>(
        listener: L,
        endpoint: String,
        state: Arc<State>,
    ) -> StrictS3 {
        let served = state.clone();
        let router = axum::Router::new().fallback(move |request| {
            let state = served.clone();
            async move { state.answer(request).await }
        });
        let task = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("serving never ends by itself")
        });
        StrictS3 {
            endpoint,
            state,
            task,
        }
    }

    /// The environment in which lswitch uses this server and nothing of the machine's own settings.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_S3", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "any"),
            ("AWS_SECRET_ACCESS_KEY", "any"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    pub fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        let object = Object {
            bytes: bytes.into(),
            metadata: Vec::new(),
        };
        lock(&self.state.objects).insert(key.into(), object);
    }

    pub fn get(&self, key: &str) -> Option<Bytes> {
        let objects = lock(&self.state.objects);
        objects.get(key).map(|object| object.bytes.clone())
    }

    pub fn keys(&self) -> Vec<String> {
        lock(&self.state.objects).keys().cloned().collect()
    }

    /// Begins an upload, as somebody else would.
    pub fn begin_upload(&self, key: &str) {
        let upload = PendingUpload {
            key: key.into(),
            checksums: false,
            metadata: Vec::new(),
            parts: BTreeMap::new(),
        };
        lock(&self.state.uploads).insert(format!("of {key}"), upload);
    }

    /// The keys of the uploads that are neither completed nor aborted.
    pub fn uploads(&self) -> Vec<String> {
        let uploads = lock(&self.state.uploads);
        uploads.values().map(|upload| upload.key.clone()).collect()
    }

    /// What was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        lock(&self.state.log).clone()
    }

    pub fn remove_bucket(&self) {
        *lock(&self.state.bucket_exists) = false;
    }

    pub fn broken_handshakes(&self) -> u32 {
        *lock(&self.state.broken_handshakes)
    }
}

impl State {
    fn new(judge: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) -> Arc<State> {
        Arc::new(State {
            judge: Box::new(judge),
            bucket_exists: Mutex::new(true),
            objects: Mutex::default(),
            uploads: Mutex::default(),
            log: Mutex::default(),
            broken_handshakes: Mutex::default(),
        })
    }

    async fn answer(self: Arc<State>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let path = decode(parts.uri.path());
        let path = path.trim_start_matches('/');
        let key = path.split_once('/').map_or("", |(_, key)| key).to_owned();
        let query = parts.uri.query().unwrap_or_default().split('&');
        let query = query.filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        let asked = Asked {
            method: parts.method.to_string(),
            key,
            query: query.collect(),
            headers: parts.headers,
            body,
        };
        lock(&self.log).push(asked.clone());
        // A judge may wait, to hold an answer back.
        let (state, for_judge) = (self.clone(), asked.clone());
        let verdict = tokio::task::spawn_blocking(move || (state.judge)(&for_judge));
        let say = |status, text: String| {
            let status = StatusCode::from_u16(status).expect("a test names a real status");
            (status, [("content-type", "application/xml")], text).into_response()
        };
        match verdict.await.expect("judges do not panic") {
            Verdict::Serve => self.serve(&asked),
            Verdict::Answer(status, text) => say(status, text),
            Verdict::ServeButAnswer(status, text) => {
                self.serve(&asked);
                say(status, text)
            }
        }
    }

    fn serve(&self, asked: &Asked) -> Response {
        if asked.key.is_empty() {
            return self.serve_bucket(asked);
        }
        if !*lock(&self.bucket_exists) {
            return refusal(404, "NoSuchBucket", "");
        }
        if let Some(given) = asked.header("x-amz-checksum-crc32")
            && given != crc32(&asked.body)
        {
            return refusal(400, "BadDigest", "the CRC32 is another");
        }
        if asked.has("uploadId") {
            return self.serve_upload(asked);
        }
        match asked.method.as_str() {
            "POST" if asked.has("uploads") => self.begin(asked),
            "PUT" => {
                let mut objects = lock(&self.objects);
                if asked.header("if-none-match") == Some("*") && objects.contains_key(&asked.key) {
                    return refusal(412, "PreconditionFailed", "");
                }
                let object = Object {
                    bytes: asked.body.clone(),
                    metadata: metadata(asked),
                };
                objects.insert(asked.key.clone(), object);
                [("etag", etag(&asked.body))].into_response()
            }
            "DELETE" => {
                lock(&self.objects).remove(&asked.key);
                StatusCode::NO_CONTENT.into_response()
            }
            "GET" | "HEAD" => self.read(asked),
            _ => refusal(501, "NotImplemented", ""),
        }
    }

    fn serve_bucket(&self, asked: &Asked) -> Response {
        let mut exists = lock(&self.bucket_exists);
        match asked.method.as_str() {
            "PUT" if asked.query.is_empty() && *exists => {
                refusal(409, "BucketAlreadyOwnedByYou", "")
            }
            "PUT" if asked.query.is_empty() => {
                *exists = true;
                StatusCode::OK.into_response()
            }
            _ if !*exists => refusal(404, "NoSuchBucket", ""),
            "HEAD" | "PUT" => StatusCode::OK.into_response(),
            "GET" if asked.has("uploads") => self.list_uploads(asked),
            "GET" if asked.has("list-type") => self.list(asked),
            _ => refusal(501, "NotImplemented", ""),
        }
    }

    fn list(&self, asked: &Asked) -> Response {
        let of = |name: &str| asked.query.get(name).cloned().unwrap_or_default();
        let (prefix, after) = (of("prefix"), of("continuation-token"));
        let objects = lock(&self.objects);
        let mut found = objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && **key > after);
        let page: Vec<_> = found.by_ref().take(PAGE).collect();
        let more = found.next().is_some();
        let contents: String = page
            .iter()
            .map(|(key, object)| {
                format!(
                    "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag>\
                     <LastModified>2026-01-01T00:00:00Z</LastModified></Contents>",
                    escape(key),
                    object.bytes.len(),
                    escape(&etag(&object.bytes)),
                )
            })
            .collect();
        let token = match (more, page.last()) {
            (true, Some((key, _))) => {
                format!(
                    "<NextContinuationToken>{}</NextContinuationToken>",
                    escape(key)
                )
            }
            _ => String::new(),
        };
        format!(
            "<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{contents}</ListBucketResult>"
        )
        .into_response()
    }

    fn list_uploads(&self, asked: &Asked) -> Response {
        let prefix = asked.query.get("prefix").cloned().unwrap_or_default();
        let uploads = lock(&self.uploads);
        let found = uploads
            .iter()
            .filter(|(_, upload)| upload.key.starts_with(&prefix));
        let listed: String = found
            .map(|(id, upload)| {
                format!(
                    "<Upload><Key>{}</Key><UploadId>{}</UploadId>\
                     <Initiated>2026-01-01T00:00:00Z</Initiated></Upload>",
                    escape(&upload.key),
                    escape(id)
                )
            })
            .collect();
        format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{listed}</ListMultipartUploadsResult>"
        )
        .into_response()
    }

    fn read(&self, asked: &Asked) -> Response {
        let objects = lock(&self.objects);
        let Some(object) = objects.get(&asked.key) else {
            return refusal(404, "NoSuchKey", "");
        };
        let (mut bytes, mut status) = (object.bytes.clone(), StatusCode::OK);
        let etag = etag(&bytes);
        if asked.header("if-match").is_some_and(|given| given != etag) {
            return refusal(412, "PreconditionFailed", "");
        }
        if let Some((first, last)) = asked.header("range").and_then(range) {
            if first >= bytes.len() {
                return refusal(416, "InvalidRange", "");
            }
            bytes = bytes.slice(first..bytes.len().min(last + 1));
            status = StatusCode::PARTIAL_CONTENT;
        }
        let mut response = Response::builder()
            .status(status)
            .header("etag", etag)
            .header("content-length", bytes.len());
        for (name, value) in &object.metadata {
            response = response.header(name, value);
        }
        let body = match asked.method.as_str() {
            "HEAD" => Body::empty(),
            _ => Body::from(bytes),
        };
        response.body(body).expect("the headers are good")
    }

    fn begin(&self, asked: &Asked) -> Response {
        let algorithm = asked.header("x-amz-checksum-algorithm");
        if algorithm.is_some_and(|algorithm| algorithm != "CRC32") {
            return refusal(501, "NotImplemented", "only CRC32 is known");
        }
        let upload = PendingUpload {
            key: asked.key.clone(),
            checksums: algorithm.is_some(),
            metadata: metadata(asked),
            parts: BTreeMap::new(),
        };
        let id = format!("upload-{}", lock(&self.log).len());
        let text = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        lock(&self.uploads).insert(id, upload);
        text.into_response()
    }

    fn serve_upload(&self, asked: &Asked) -> Response {
        let mut uploads = lock(&self.uploads);
        let id = &asked.query["uploadId"];
        let Some(upload) = uploads.get_mut(id) else {
            return refusal(404, "NoSuchUpload", "");
        };
        match asked.method.as_str() {
            "PUT" => {
                let number = asked.query.get("partNumber");
                let Some(number) = number.and_then(|number| number.parse().ok()) else {
                    return refusal(400, "InvalidArgument", "partNumber");
                };
                let given = asked.header("x-amz-checksum-crc32").map(str::to_owned);
                if given.is_some() != upload.checksums {
                    let text = format!(
                        "Checksum Type mismatch occurred, expected {}, got {given:?}",
                        upload.checksums
                    );
                    return refusal(400, "InvalidRequest", &text);
                }
                let etag = etag(&asked.body);
                upload.parts.insert(number, (asked.body.clone(), given));
                [("etag", etag)].into_response()
            }
            "DELETE" => {
                uploads.remove(id);
                StatusCode::NO_CONTENT.into_response()
            }
            "POST" => {
                let text = String::from_utf8_lossy(&asked.body);
                if let Err(problem) = check_parts(&text, upload) {
                    return refusal(400, "InvalidPart", &problem);
                }
                let upload = uploads.remove(id).expect("it was there");
                let all: Vec<u8> = upload
                    .parts
                    .into_values()
                    .flat_map(|(bytes, _)| bytes)
                    .collect();
                let object = Object {
                    bytes: all.into(),
                    metadata: upload.metadata,
                };
                lock(&self.objects).insert(upload.key, object);
                "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>".into_response()
            }
            _ => refusal(501, "NotImplemented", ""),
        }
    }
}

/// What is wrong with the list of parts, held against the parts.
fn check_parts(text: &str, upload: &PendingUpload) -> Result<(), String> {
    let listed: Vec<&str> = text.split("<Part>").skip(1).collect();
    if listed.len() != upload.parts.len() {
        return Err(format!(
            "{} parts are listed, and {} are there",
            listed.len(),
            upload.parts.len()
        ));
    }
    for (listed, (number, (bytes, checksum))) in listed.iter().zip(&upload.parts) {
        let element = |name: &str| {
            let (_, rest) = listed.split_once(&format!("<{name}>"))?;
            let (value, _) = rest.split_once(&format!("</{name}>"))?;
            Some(value.replace("&quot;", "\""))
        };
        if element("PartNumber") != Some(number.to_string())
            || element("ETag")
                .as_deref()
                .map(|etag| etag.trim_matches('"'))
                != Some(etag(bytes).trim_matches('"'))
            || element("ChecksumCRC32") != *checksum
        {
            return Err(format!("part {number} is listed as {listed}"));
        }
    }
    Ok(())
}

fn metadata(asked: &Asked) -> Vec<(String, String)> {
    let metadata = asked
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
    metadata
        .map(|(name, value)| {
            let value = value.to_str().expect("metadata is text");
            (name.to_string(), value.to_owned())
        })
        .collect()
}

fn range(header: &str) -> Option<(usize, usize)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(usize::MAX - 1)))
}

fn crc32(bytes: &[u8]) -> String {
    BASE64.encode(crc32fast::hash(bytes).to_be_bytes())
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{:08x}-{}\"", crc32fast::hash(bytes), bytes.len())
}

fn error_text(code: &str, message: &str) -> String {
    format!(
        "<Error><Code>{code}</Code><Message>{}</Message></Error>",
        escape(message)
    )
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a real status");
    let text = error_text(code, message);
    (status, [("content-type", "application/xml")], text).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

/// Undoes the escapes of a URL.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes connections with TLS.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match self.acceptor.accept(stream).await {
                Ok(stream) => return (stream, address),
                Err(_) => *lock(&self.state.broken_handshakes) += 1,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A server's settings with a certificate of a new authority, whose own is written to a file.
fn server_config(authority: &Path) -> ServerConfig {
    let key = KeyPair::generate().expect("a key can be made");
    let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("it can sign itself");
    fs::write(authority, own.pem()).expect("a file can be written");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key can be made");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a good name");
    let certificate = params.signed_by(&key, &issuer).expect("it can be signed");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("key and certificate belong together")
}
