//! How connections come to the two APIs: who may, how many, and in what time they must say what they want.
//!
//! Each connection is admitted before a byte of it is read: on Linux by the user at its other end ([`super::peer`]). What is refused
//! there is answered with a reason, by a bounded number of tasks, and never waits for those who are admitted, nor they for it.
//! Each request must name this machine as its host and must not come from a web page.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, timeout};

#[cfg(target_os = "linux")]
use super::peer::PeerCheck;

/// From a connection's beginning, or a request's first byte, to the end of the request's headers. Local clients write them at once. A
/// connection may be idle between requests for as long as it likes: a runtime's is while its handler works.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are answered with a refusal at one time; what comes beyond it is closed without an answer.
const REFUSALS_MAX: usize = 32;
/// How long a refused connection is read, so that its client finds the answer instead of a reset, and how much of it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const REFUSAL_BYTES_MAX: u64 = 1024 * 1024;
/// The wait after a failed accept, which fails again as long as this process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of one API. Headers of a request are at most 100, which is hyper's own limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at one time.
    pub(super) connections: usize,
    /// The headers of one request together, in bytes.
    pub(super) header_bytes: usize,
}

/// Decides which connections are served.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    #[cfg(target_os = "linux")]
    peers: Option<Arc<PeerCheck>>,
    bounds: Bounds,
}

impl Gate {
    /// A gate for the listener at `address`. Without `same_user`, and where the system has no such check, it admits every connection.
    ///
    /// # Errors
    /// The system cannot tell users apart.
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables))]
    pub(super) fn new(address: SocketAddr, same_user: bool, bounds: Bounds) -> io::Result<Gate> {
        Ok(Gate {
            #[cfg(target_os = "linux")]
            peers: match same_user {
                true => Some(Arc::new(PeerCheck::new(address)?)),
                false => None,
            },
            bounds,
        })
    }

    /// A gate for the same clients with other bounds.
    pub(super) fn with(&self, bounds: Bounds) -> Gate {
        Gate {
            bounds,
            ..self.clone()
        }
    }

    #[cfg(target_os = "linux")]
    async fn refusal(&self, stream: &TcpStream) -> Option<String> {
        let refused = self.peers.as_ref()?.check(stream).await.err()?;
        Some(refused.to_string())
    }

    #[cfg(not(target_os = "linux"))]
    async fn refusal(&self, _stream: &TcpStream) -> Option<String> {
        None
    }

    /// Serves until it is dropped. Connections that were accepted by then are served to their end.
    pub(super) async fn serve(self, listener: TcpListener, router: Router) {
        let places = Arc::new(Semaphore::new(self.bounds.connections));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let mut has_refused = false;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // The client gave up before it was accepted.
                Err(error) if is_of_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "the local Lambda cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let _best_effort = stream.set_nodelay(true);
            let (status, reason) = match self.refusal(&stream).await {
                Some(reason) => (StatusCode::FORBIDDEN, reason),
                None => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let connection = serve_connection(stream, router.clone(), self.bounds);
                        tokio::spawn(async move {
                            connection.await;
                            drop(place);
                        });
                        continue;
                    }
                    Err(_) => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        format!(
                            "the local Lambda has {} connections, which is its most; close some, or try again later",
                            self.bounds.connections
                        ),
                    ),
                },
            };
            // Whoever is refused can come back as often as they like.
            if std::mem::replace(&mut has_refused, true) {
                tracing::debug!(reason, "the local Lambda refused a connection");
            } else {
                tracing::warn!(reason, "the local Lambda refused a connection");
            }
            if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    let _best_effort =
                        timeout(REFUSAL_TIMEOUT, refuse(stream, status, &reason)).await;
                    drop(turn);
                });
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Answers without having read a request, and then reads what comes so that closing does not reset the connection.
async fn refuse(mut stream: TcpStream, status: StatusCode, reason: &str) -> io::Result<()> {
    let body = refusal_body(status, reason);
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-amzn-errortype: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        error_type(status),
        body.len(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSAL_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => "AccessDeniedException",
        _ => "ServiceException",
    }
}

/// An error in the words of both APIs.
fn refusal_body(status: StatusCode, reason: &str) -> String {
    json!({
        "Type": if status.is_server_error() { "Service" } else { "User" },
        "message": reason,
        "errorType": error_type(status),
        "errorMessage": reason,
    })
    .to_string()
}

async fn serve_connection(stream: TcpStream, router: Router, bounds: Bounds) {
    let in_request = Arc::new(AtomicBool::new(false));
    let stream = TimedHeaders::new(stream, Arc::clone(&in_request), HEADERS_TIMEOUT);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        // From here on, and not from when the answer is first worked on: a body may be read at once.
        let in_request = InRequest::begin(&in_request);
        let answer = match foreign(request.uri(), request.headers()) {
            Some(reason) => Err(reason),
            None => Ok(router.call(request.map(Body::new))),
        };
        async move {
            let _in_request = in_request;
            match answer {
                Ok(answer) => answer.await,
                Err(reason) => {
                    tracing::debug!(reason, "the local Lambda refused a request");
                    Ok::<_, Infallible>(forbidden(&reason))
                }
            }
        }
    });
    let served = http1::Builder::new()
        .max_header_size(bounds.header_bytes)
        .header_read_timeout(None) // It would count idle time too; `TimedHeaders` does not.
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the local Lambda ended");
    }
}

fn forbidden(reason: &str) -> Response {
    let status = StatusCode::FORBIDDEN;
    let mut response = Response::new(Body::from(refusal_body(status, reason)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = header::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let error_type = header::HeaderValue::from_static(error_type(status));
    headers.insert("x-amzn-errortype", error_type);
    response
}

/// Why a request comes from elsewhere, if it does. A page in a browser may reach loopback by a name of its own (DNS rebinding), and says
/// so in `Host`; browsers add the other two headers, and programs do not.
fn foreign(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    for name in ["origin", "sec-fetch-site"] {
        if headers.contains_key(name) {
            return Some(format!(
                "requests of web pages are refused, and this one has the header {name}"
            ));
        }
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        (None, _) => return Some("the request names no host; give the header Host".into()),
        _ => return Some("the request has several headers Host".into()),
    };
    let authority = uri.authority().map(Authority::as_str);
    authority
        .into_iter()
        .chain([host])
        .find(|host| !is_loopback(host))
        .map(|host| {
            format!(
                "the request is for the host {host:?}, and the local Lambda is 127.0.0.1, [::1] or localhost; use one of them"
            )
        })
}

/// Whether `HOST` or `HOST:PORT` is a name or address of loopback.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let address = address.parse::<Ipv6Addr>().map(|ip| ip.to_canonical());
            return address.is_ok_and(|ip| ip.is_loopback()) && is_port(port);
        }
        None => match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        },
    };
    let address = name.parse::<Ipv4Addr>();
    let is_local = address.is_ok_and(|ip| ip.is_loopback())
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case("localhost.");
    is_local && is_port(port)
}

/// Nothing, or `:` and a number. Any number: the port may be forwarded.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Marks a connection as being within a request, from the end of its headers to its answer.
struct InRequest(Arc<AtomicBool>);

impl InRequest {
    fn begin(flag: &Arc<AtomicBool>) -> InRequest {
        flag.store(true, Ordering::Relaxed);
        InRequest(Arc::clone(flag))
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A connection on which reading fails when headers take too long. Connection and requests are polled by one task, in turns.
struct TimedHeaders {
    stream: TcpStream,
    in_request: Arc<AtomicBool>,
    timeout: Duration,
    limit: Pin<Box<Sleep>>,
    /// Whether headers are awaited of which the first byte came, or the connection's first ones.
    is_timed: bool,
}

impl TimedHeaders {
    fn new(stream: TcpStream, in_request: Arc<AtomicBool>, timeout: Duration) -> TimedHeaders {
        TimedHeaders {
            stream,
            in_request,
            timeout,
            limit: Box::pin(tokio::time::sleep(timeout)),
            is_timed: true,
        }
    }
}

impl AsyncRead for TimedHeaders {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let in_request = this.in_request.load(Ordering::Relaxed);
        this.is_timed &= !in_request;
        if this.is_timed && this.limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let filled = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if !in_request && !this.is_timed && buffer.filled().len() > filled {
            this.is_timed = true;
            this.limit.as_mut().reset(Instant::now() + this.timeout);
        }
        polled
    }
}

impl AsyncWrite for TimedHeaders {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for host in [
            "localhost",
            "LocalHost:9001",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:9001",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:9001",
            "[::ffff:127.0.0.1]:9001",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "x",
            "example.com",
            "example.com:9001",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "0.0.0.0:9001",
            "10.0.0.1",
            "[::]",
            "[::1",
            "[::1]x",
            "::1",
            "user@localhost",
            "localhost:9001@example.com",
            "localhost:port",
            "localhost:99999",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn requests_of_web_pages_and_for_other_hosts_are_foreign() {
        let reason = |uri: &str, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("a header value"));
            }
            foreign(&uri.parse().expect("an address"), &map)
        };
        let host = ("host", "127.0.0.1:9001");
        assert_eq!(reason("/x", &[host]), None);
        assert_eq!(reason("http://localhost:9001/x", &[host]), None);
        for (uri, headers) in [
            ("/x", vec![]),
            ("/x", vec![("host", "rebound.example:9001")]),
            ("/x", vec![host, host]),
            ("http://rebound.example/x", vec![host]),
            ("/x", vec![host, ("origin", "http://127.0.0.1:9001")]),
            ("/x", vec![host, ("origin", "null")]),
            ("/x", vec![host, ("sec-fetch-site", "none")]),
        ] {
            assert!(reason(uri, &headers).is_some(), "{uri} {headers:?}");
        }
    }

    #[tokio::test]
    async fn headers_have_a_time_and_idle_connections_have_not() {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).await.expect("it listens");
        let (server, _) = listener.accept().await.expect("it has connected");
        let in_request = Arc::new(AtomicBool::new(true));
        // No time at all, so that whatever has a limit is over it.
        let mut server = TimedHeaders::new(server, Arc::clone(&in_request), Duration::ZERO);
        let mut buffer = [0; 16];
        client.write_all(b"body").await.expect("it is open");
        assert_eq!(server.read(&mut buffer).await.expect("it came"), 4);
        for within in [true, false] {
            in_request.store(within, Ordering::Relaxed);
            let mut buffer = ReadBuf::new(&mut buffer);
            let idle = std::future::poll_fn(|context| {
                Poll::Ready(Pin::new(&mut server).poll_read(context, &mut buffer))
            });
            assert!(idle.await.is_pending(), "nothing came, and nothing ended");
        }
        client.write_all(b"G").await.expect("it is open");
        assert_eq!(server.read(&mut buffer).await.expect("it came"), 1);
        let error = server
            .read(&mut buffer)
            .await
            .expect_err("the rest is late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
