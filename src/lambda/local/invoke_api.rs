//! The Lambda Invoke API, as AWS's SDKs speak it: one path, three kinds of invocation, AWS's errors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::random;

use super::body::{BodyError, BodyTimes, read_body};
use super::function::LocalFunction;
use super::gate::Bounds;
use super::invocation::{
    EVENT_PAYLOAD_BYTES_MAX, Outcome, Refusal, RequestId, SYNC_PAYLOAD_BYTES_MAX,
};
use super::message::{Answer, Invocation, Message, Work};
use super::signature::{LocalKeys, Request};
use crate::lambda::limits::is_function_name;

/// A caller on this machine sends 6 MB in far less, and has them when it begins.
const BODY_TIMES: BodyTimes = BodyTimes {
    whole: Duration::from_secs(60),
    idle: Duration::from_secs(5),
};
/// Long payloads that are read at once, up to 6 MB each; others wait for their turn, short ones never do.
const LONG_BODIES_MAX: usize = 64;
/// Callers of each environment that may run (1,000, unless more was asked for) stay connected until it answers. Headers are a
/// client context of 3.5 KB and a session's token of a few more.
pub(super) const BOUNDS: Bounds = Bounds {
    connections: 16_384,
    header_bytes: 64 * 1024,
};
/// AWS account ids have twelve digits; no account has this one.
const ACCOUNT: &str = "000000000000";

/// What the handlers share.
#[derive(Clone)]
pub(super) struct InvokeApi {
    functions: Arc<BTreeMap<String, Arc<LocalFunction>>>,
    region: Arc<str>,
    /// What calls have to be signed with, if they have to.
    keys: Option<LocalKeys>,
    dispatcher: mpsc::Sender<Message>,
    long_bodies: Arc<Semaphore>,
}

impl InvokeApi {
    pub(super) fn new(
        functions: Arc<BTreeMap<String, Arc<LocalFunction>>>,
        region: &str,
        keys: Option<LocalKeys>,
        dispatcher: mpsc::Sender<Message>,
    ) -> InvokeApi {
        InvokeApi {
            functions,
            region: region.into(),
            keys,
            dispatcher,
            long_bodies: Arc::new(Semaphore::new(LONG_BODIES_MAX)),
        }
    }

    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .fallback(async || Refused::unknown_path().into_response(&RequestId::random()))
            .layer(DefaultBodyLimit::disable()) // The handler reads with the limit of the invocation's kind.
            .with_state(self)
    }
}

async fn invoke(
    State(api): State<InvokeApi>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let request = RequestId::random();
    let mut response = match api.run(&request, &name, &uri, &headers, body).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(&request),
    };
    set_header(&mut response, "x-amzn-requestid", &request.0);
    response
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    RequestResponse,
    Event,
    DryRun,
}

impl InvokeApi {
    async fn run(
        &self,
        request: &RequestId,
        name: &str,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Refused> {
        let kind = match text(headers, "x-amz-invocation-type").as_deref() {
            None | Some("RequestResponse") => Kind::RequestResponse,
            Some("Event") => Kind::Event,
            Some("DryRun") => Kind::DryRun,
            Some(other) => {
                return Err(Refused::parameter(&format!(
                    "X-Amz-Invocation-Type {other:?} is none of RequestResponse, Event, DryRun"
                )));
            }
        };
        let limit = if kind == Kind::Event {
            EVENT_PAYLOAD_BYTES_MAX
        } else {
            SYNC_PAYLOAD_BYTES_MAX
        };
        let payload = self.read_payload(body, limit).await?;
        if let Some(keys) = &self.keys {
            let request = Request {
                method: "POST",
                path: uri.path(),
                query: uri.query().unwrap_or_default(),
                headers,
                body: &payload,
            };
            let verified = keys.verify(request, unix_s());
            verified.map_err(|error| Refused::signature(&error.to_string()))?;
        }
        let (function, arn) = self.find(name, uri.query())?;
        let payload = parse_payload(payload)?;
        if kind == Kind::DryRun {
            return Ok(respond(StatusCode::NO_CONTENT, Bytes::new()));
        }
        let wants_log = text(headers, "x-amz-log-type").is_some_and(|kind| kind == "Tail");
        let client_context = match text(headers, "x-amz-client-context") {
            None => None,
            Some(encoded) => Some(read_client_context(&encoded)?),
        };
        let trace = text(headers, "x-amzn-trace-id").unwrap_or_else(new_trace);
        let (answer, answered) = oneshot::channel();
        let invocation = Box::new(Invocation {
            request: request.clone(),
            function,
            work: Work {
                payload,
                arn,
                trace,
                client_context,
            },
            is_event: kind == Kind::Event,
            answer: Some(answer),
        });
        let stopping = || Refused::of(Refusal::Stopping);
        self.dispatcher
            .send(Message::Invoke(invocation))
            .await
            .map_err(|_| stopping())?;
        match answered.await.map_err(|_| stopping())? {
            Answer::Accepted => Ok(respond(StatusCode::ACCEPTED, Bytes::new())),
            Answer::Refused(refusal) => Err(Refused::of(refusal)),
            Answer::Ran { outcome, log_tail } => Ok(show(outcome, wants_log.then_some(log_tail))),
        }
    }

    /// The function that a plain name, `name:qualifier`, or a whole or partial ARN means, and its ARN. There is one
    /// version; a qualifier is taken for an alias of it, and passed on.
    fn find(
        &self,
        written: &str,
        query: Option<&str>,
    ) -> Result<(Arc<LocalFunction>, String), Refused> {
        let parts: Vec<&str> = written.split(':').collect();
        let (name, qualifier) = match *parts.as_slice() {
            ["arn", _, "lambda", _, _, "function", name] | [_, "function", name] | [name] => {
                (name, None)
            }
            ["arn", _, "lambda", _, _, "function", name, qualifier]
            | [_, "function", name, qualifier]
            | [name, qualifier] => (name, Some(qualifier)),
            _ => {
                return Err(Refused::parameter(&format!(
                    "{written:?} is neither a function's name nor its ARN"
                )));
            }
        };
        let of_query = query.and_then(|query| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix("Qualifier="))
        });
        let qualifier = of_query
            .map(|qualifier| qualifier.replace("%24", "$"))
            .or(qualifier.map(str::to_owned));
        let qualifier = qualifier.filter(|qualifier| !qualifier.is_empty());
        let is_safe = |text: &String| {
            text.strip_prefix('$')
                .map_or(is_function_name(text), is_function_name)
        };
        if !is_function_name(name) || !qualifier.as_ref().is_none_or(is_safe) {
            return Err(Refused::parameter(&format!(
                "{written:?} is neither a function's name nor its ARN"
            )));
        }
        let mut arn = format!("arn:aws:lambda:{}:{ACCOUNT}:function:{name}", self.region);
        if let Some(qualifier) = qualifier {
            arn = format!("{arn}:{qualifier}");
        }
        match self.functions.get(name) {
            Some(function) => Ok((Arc::clone(function), arn)),
            None => Err(Refused::unknown_function(&arn, self.functions.keys())),
        }
    }

    async fn read_payload(&self, body: Body, limit: usize) -> Result<Bytes, Refused> {
        match read_body(body, limit, BODY_TIMES, Some(&self.long_bodies)).await {
            Ok(body) => Ok(body.bytes),
            Err(BodyError::TooLarge) => {
                let message = format!(
                    "Request must be smaller than {limit} bytes for the InvokeFunction operation"
                );
                Err(Refused::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestTooLargeException",
                    &message,
                ))
            }
            Err(BodyError::Broken(problem)) => Err(Refused::content(&problem)),
        }
    }
}

fn parse_payload(payload: Bytes) -> Result<Bytes, Refused> {
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}")); // What functions on AWS get from callers who send nothing.
    }
    let utf8 = std::str::from_utf8(&payload).map_err(|error| error.to_string());
    utf8.and_then(|text| {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string())
    })
    .map_err(|problem| {
        Refused::content(&format!(
            "Could not parse request body into json: {problem}"
        ))
    })?;
    Ok(payload)
}

/// The header comes in Base64; runtimes get the JSON in it.
fn read_client_context(encoded: &str) -> Result<String, Refused> {
    let wrong = || Refused::content("X-Amz-Client-Context is no JSON in Base64");
    let decoded = BASE64_STANDARD.decode(encoded).map_err(|_| wrong())?;
    let value: Value = serde_json::from_slice(&decoded).map_err(|_| wrong())?;
    Ok(value.to_string()) // On one line, as a header has to be.
}

fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn new_trace() -> String {
    let seconds = unix_s();
    let (root, parent) = (
        random::to_hex(&random::bytes::<12>()),
        random::to_hex(&random::bytes::<8>()),
    );
    format!("Root=1-{seconds:08x}-{root};Parent={parent};Sampled=0")
}

fn show(outcome: Outcome, log_tail: Option<Vec<u8>>) -> Response {
    let failed = outcome.error_type().is_some();
    let mut response = respond(StatusCode::OK, outcome.into_body());
    set_header(&mut response, "x-amz-executed-version", "$LATEST");
    if failed {
        set_header(&mut response, "x-amz-function-error", "Unhandled");
    }
    if let Some(tail) = log_tail {
        set_header(
            &mut response,
            "x-amz-log-result",
            &BASE64_STANDARD.encode(tail),
        );
    }
    response
}

/// An error of the service, in AWS's shape: SDKs read the type from the header.
struct Refused {
    status: StatusCode,
    error_type: &'static str,
    body: Value,
    retry_after_s: Option<u32>,
}

impl Refused {
    fn new(status: StatusCode, error_type: &'static str, message: &str) -> Refused {
        let who = if status.is_server_error() {
            "Service"
        } else {
            "User"
        };
        Refused {
            status,
            error_type,
            body: json!({"Type": who, "message": message}),
            retry_after_s: None,
        }
    }

    fn content(message: &str) -> Refused {
        Refused::new(
            StatusCode::BAD_REQUEST,
            "InvalidRequestContentException",
            message,
        )
    }

    fn signature(message: &str) -> Refused {
        Refused::new(StatusCode::FORBIDDEN, "InvalidSignatureException", message)
    }

    fn parameter(message: &str) -> Refused {
        Refused::new(
            StatusCode::BAD_REQUEST,
            "InvalidParameterValueException",
            message,
        )
    }

    fn unknown_function<'a>(arn: &str, known: impl Iterator<Item = &'a String>) -> Refused {
        let known: Vec<&str> = known.map(String::as_str).take(10).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let message = format!("Function not found: {arn} (local functions: {known})");
        // This one writes Message with a capital letter on AWS.
        let body = json!({"Type": "User", "Message": message});
        Refused {
            body,
            ..Refused::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", "")
        }
    }

    fn unknown_path() -> Refused {
        let message = "the local Lambda knows POST /2015-03-31/functions/NAME/invocations only";
        Refused::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
    }

    fn of(refusal: Refusal) -> Refused {
        let too_many = |reason: &str, message: &str| Refused {
            body: json!({"Type": "User", "Reason": reason, "message": message}),
            retry_after_s: Some(1),
            ..Refused::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequestsException",
                "",
            )
        };
        match refusal {
            Refusal::Concurrency => too_many(
                "ConcurrentInvocationLimitExceeded",
                "Rate Exceeded. All environments of the local Lambda are busy; raise its concurrency",
            ),
            Refusal::ReservedConcurrency => too_many(
                "ReservedFunctionConcurrentInvocationLimitExceeded",
                "Rate Exceeded. All environments that the function's reserved_concurrency allows are busy",
            ),
            // AWS does not say which reason this has there; it is one of environments, not of calls.
            Refusal::ScalingRate => too_many(
                "ConcurrentInvocationLimitExceeded",
                "Rate Exceeded. The function gets no more new environments now; the local Lambda was given a scaling rate",
            ),
            Refusal::CallRate { reserved } => too_many(
                match reserved {
                    true => "ReservedFunctionInvocationRateLimitExceeded",
                    false => "FunctionInvocationRateLimitExceeded",
                },
                "Rate Exceeded. The function takes ten calls a second for each environment that it may have",
            ),
            Refusal::QueueFull => too_many(
                "CallerRateLimitExceeded",
                "Rate Exceeded. Too many events wait for the local Lambda",
            ),
            Refusal::Stopping => Refused::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceException",
                "the local Lambda has been stopped",
            ),
        }
    }

    fn into_response(self, request: &RequestId) -> Response {
        tracing::debug!(%request, error_type = self.error_type, body = %self.body, "an invocation was refused");
        let mut response = respond(self.status, self.body.to_string().into());
        set_header(&mut response, "x-amzn-errortype", self.error_type);
        if let Some(seconds) = self.retry_after_s {
            set_header(&mut response, "retry-after", &seconds.to_string());
        }
        response
    }
}

fn respond(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    set_header(&mut response, "content-type", "application/json");
    response
}

fn set_header(response: &mut Response, name: &'static str, value: &str) {
    let value =
        HeaderValue::from_str(value).expect("names, numbers, UUIDs and Base64 are header values");
    response.headers_mut().insert(name, value);
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}
