//! The Lambda Runtime API (2018-06-01) and Extensions API (2020-01-01) of one environment, on a port of its own: the
//! port says who calls, so any runtime that builds its addresses from `AWS_LAMBDA_RUNTIME_API` works.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::random;

use super::body::{BodyError, BodyTimes, WholeBody, read_body};
use super::decision::{EnvironmentId, Misuse, Subscriptions};
use super::function::LocalFunction;
use super::gate::Bounds;
use super::invocation::{Outcome, RequestId, SYNC_PAYLOAD_BYTES_MAX, error_body};
use super::message::{Call, Done, ExtensionEvent, Handed, Message};

/// A response may be streamed as long as the longest invocation takes, whose deadline ends it sooner, with any pauses.
const BODY_TIMES: BodyTimes = BodyTimes {
    whole: Duration::from_secs(900),
    idle: Duration::from_secs(900),
};
/// A runtime and ten extensions have a connection or two each. Runtimes describe a failure's causes to X-Ray in a header, of which this is
/// hyper's own limit.
pub(super) const BOUNDS: Bounds = Bounds {
    connections: 128,
    header_bytes: 400 * 1024,
};
/// Lists of events are short.
const REGISTRATION_BYTES_MAX: usize = 64 * 1024;
/// Lambda's bound on the length of an extension's name.
const EXTENSION_NAME_LENGTH_MAX: usize = 128;
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
/// What a streamed response that fails says about it, in Base64.
const ERROR_BODY: &str = "lambda-runtime-function-error-body";
const IDENTIFIER: &str = "lambda-extension-identifier";

#[derive(Clone)]
struct Api {
    id: EnvironmentId,
    function: Arc<LocalFunction>,
    dispatcher: mpsc::Sender<Message>,
}

/// The API of one environment.
pub(super) fn router(
    id: EnvironmentId,
    function: Arc<LocalFunction>,
    dispatcher: mpsc::Sender<Message>,
) -> Router {
    let runtime = "/2018-06-01/runtime";
    let extension = "/2020-01-01/extension";
    Router::new()
        .route(&format!("{runtime}/invocation/next"), get(runtime_next))
        .route(
            &format!("{runtime}/invocation/{{id}}/response"),
            post(response),
        )
        .route(
            &format!("{runtime}/invocation/{{id}}/error"),
            post(invocation_error),
        )
        .route(&format!("{runtime}/init/error"), post(init_error))
        .route(&format!("{extension}/register"), post(register))
        .route(&format!("{extension}/event/next"), get(extension_next))
        .route(&format!("{extension}/init/error"), post(extension_error))
        .route(&format!("{extension}/exit/error"), post(extension_error))
        .fallback(async || {
            refuse(
                StatusCode::NOT_FOUND,
                "NotFound",
                "the Runtime API has no such path",
            )
        })
        .layer(DefaultBodyLimit::disable()) // Each handler reads with a limit of its own.
        .with_state(Api {
            id,
            function,
            dispatcher,
        })
}

impl Api {
    /// Sends a call and waits for its answer; `None` when environment or server are gone.
    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.dispatcher
            .send(Message::Call(self.id, call(sender)))
            .await
            .ok()?;
        answer.await.ok()
    }

    async fn report(&self, call: impl FnOnce(Done) -> Call) -> Response {
        match self.ask(call).await {
            Some(Ok(())) => reply(StatusCode::ACCEPTED, json!({"status": "OK"})),
            Some(Err(misuse)) => refuse_misuse(misuse),
            None => gone(),
        }
    }
}

async fn runtime_next(State(api): State<Api>) -> Response {
    match api.ask(Call::RuntimeNext).await {
        Some(Ok(handed)) => hand_over(handed),
        Some(Err(misuse)) => refuse_misuse(misuse),
        None => gone(),
    }
}

fn hand_over(
    Handed {
        request,
        deadline_ms,
        work,
    }: Handed,
) -> Response {
    let mut response = Response::new(Body::from(work.payload));
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        // What could not be a header came as one, or is made of safe characters; an odd one is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("content-type", "application/json");
    set("lambda-runtime-aws-request-id", &request.0);
    set("lambda-runtime-deadline-ms", &deadline_ms.to_string());
    set("lambda-runtime-invoked-function-arn", &work.arn);
    set("lambda-runtime-trace-id", &work.trace);
    if let Some(context) = &work.client_context {
        set("lambda-runtime-client-context", context);
    }
    response
}

async fn response(State(api): State<Api>, Path(id): Path<String>, body: Body) -> Response {
    let request = RequestId(id);
    match read_body(body, SYNC_PAYLOAD_BYTES_MAX, BODY_TIMES, None).await {
        Ok(WholeBody { bytes, trailers }) => {
            // A streamed response that fails midway says so behind its body.
            let outcome = match header_text(&trailers, ERROR_TYPE) {
                None => Outcome::Response(bytes),
                Some(error_type) => {
                    let said = header_text(&trailers, ERROR_BODY);
                    let said = said.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
                    let said = said
                        .map(Bytes::from)
                        .filter(|body| error_of(body).is_some());
                    let body = said.unwrap_or_else(|| {
                        let what = "the function failed while it streamed its response";
                        error_body(&error_type, what)
                    });
                    Outcome::FunctionError { error_type, body }
                }
            };
            api.report(|done| Call::Finished {
                request,
                outcome,
                done,
            })
            .await
        }
        Err(BodyError::TooLarge) => {
            let limit = SYNC_PAYLOAD_BYTES_MAX;
            let message = format!(
                "Response payload size exceeded maximum allowed payload size ({limit} bytes)."
            );
            let error_type = "Function.ResponseSizeTooLarge".to_owned();
            let outcome = Outcome::FunctionError {
                body: error_body(&error_type, &message),
                error_type,
            };
            match api
                .ask(|done| Call::Finished {
                    request,
                    outcome,
                    done,
                })
                .await
            {
                Some(Ok(())) => refuse(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "RequestEntityTooLarge",
                    &message,
                ),
                Some(Err(misuse)) => refuse_misuse(misuse),
                None => gone(),
            }
        }
        Err(BodyError::Broken(problem)) => {
            refuse(StatusCode::BAD_REQUEST, "InvalidRequest", &problem)
        }
    }
}

async fn invocation_error(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match read_error(&headers, body).await {
        Ok(outcome) => {
            api.report(|done| Call::Finished {
                request: RequestId(id),
                outcome,
                done,
            })
            .await
        }
        Err(refusal) => refusal,
    }
}

async fn init_error(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    match read_error(&headers, body).await {
        Ok(outcome) => api.report(|done| Call::InitFailed { outcome, done }).await,
        Err(refusal) => refusal,
    }
}

/// A runtime's description of an error. What is no JSON is wrapped, so that callers always get an error's shape.
async fn read_error(headers: &HeaderMap, body: Body) -> Result<Outcome, Response> {
    let bytes = match read_body(body, SYNC_PAYLOAD_BYTES_MAX, BODY_TIMES, None).await {
        Ok(body) => body.bytes,
        Err(BodyError::TooLarge) => Bytes::new(),
        Err(BodyError::Broken(problem)) => {
            return Err(refuse(StatusCode::BAD_REQUEST, "InvalidRequest", &problem));
        }
    };
    let said = error_of(&bytes);
    let of_body = || Some(said.as_ref()?.get("errorType")?.as_str()?.to_owned());
    let of_header = header_text(headers, ERROR_TYPE).filter(|error_type| !error_type.is_empty());
    let error_type = of_header
        .or_else(of_body)
        .unwrap_or_else(|| "Runtime.UnknownReason".to_owned());
    let body = match said {
        Some(_) => bytes,
        None => error_body(&error_type, &String::from_utf8_lossy(&bytes)),
    };
    Ok(Outcome::FunctionError { error_type, body })
}

/// A runtime's description of an error, if it is one.
fn error_of(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().filter(Value::is_object)
}

async fn register(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    let name = header_text(&headers, "lambda-extension-name").unwrap_or_default();
    if name.is_empty() || name.len() > EXTENSION_NAME_LENGTH_MAX {
        return refuse(
            StatusCode::FORBIDDEN,
            "Extension.InvalidExtensionName",
            "the header Lambda-Extension-Name names none",
        );
    }
    let body = match read_body(body, REGISTRATION_BYTES_MAX, BODY_TIMES, None).await {
        Ok(body) => body.bytes,
        Err(_) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                "InvalidRequestFormat",
                "the list of events did not arrive",
            );
        }
    };
    let wants = match subscriptions(&body) {
        Ok(wants) => wants,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, "InvalidRequestFormat", &problem),
    };
    let extension = random::to_hex(&random::bytes::<16>());
    let registered = extension.clone();
    match api
        .ask(|done| Call::Register {
            extension,
            wants,
            done,
        })
        .await
    {
        Some(Ok(())) => {}
        Some(Err(misuse)) => return refuse_misuse(misuse),
        None => return gone(),
    }
    let function = &api.function;
    let about = json!({"functionName": function.name, "functionVersion": "$LATEST", "handler": function.handler});
    let mut response = reply(StatusCode::OK, about);
    let identifier =
        HeaderValue::from_str(&registered).expect("hexadecimal digits are a header value");
    response.headers_mut().insert(IDENTIFIER, identifier);
    response
}

fn subscriptions(body: &[u8]) -> Result<Subscriptions, String> {
    let said: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the list of events is no JSON: {error}"))?;
    let mut wants = Subscriptions::default();
    for event in said
        .get("events")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        match event.as_str() {
            Some("INVOKE") => wants.invoke = true,
            Some("SHUTDOWN") => wants.shutdown = true,
            _ => {
                return Err(format!(
                    "{event} is no event; there are INVOKE and SHUTDOWN"
                ));
            }
        }
    }
    Ok(wants)
}

async fn extension_next(State(api): State<Api>, headers: HeaderMap) -> Response {
    let Some(extension) = header_text(&headers, IDENTIFIER) else {
        return refuse_unidentified();
    };
    let event = match api
        .ask(|event| Call::ExtensionNext { extension, event })
        .await
    {
        Some(Ok(event)) => event,
        Some(Err(misuse)) => return refuse_misuse(misuse),
        None => return gone(),
    };
    let body = match event {
        ExtensionEvent::Invoke {
            deadline_ms,
            request,
            arn,
            trace,
        } => json!({
            "eventType": "INVOKE",
            "deadlineMs": deadline_ms,
            "requestId": request.0,
            "invokedFunctionArn": arn,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": trace},
        }),
        ExtensionEvent::Shutdown {
            deadline_ms,
            reason,
        } => {
            json!({"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms})
        }
    };
    let mut response = reply(StatusCode::OK, body);
    let event_id = HeaderValue::from_str(&RequestId::random().0).expect("a UUID is a header value");
    response
        .headers_mut()
        .insert("lambda-extension-event-identifier", event_id);
    response
}

async fn extension_error(State(api): State<Api>, headers: HeaderMap, body: Body) -> Response {
    let Some(extension) = header_text(&headers, IDENTIFIER) else {
        return refuse_unidentified();
    };
    let error_type = match read_error(&headers, body).await {
        Ok(outcome) => outcome.error_type().unwrap_or_default().to_owned(),
        Err(refusal) => return refusal,
    };
    api.report(|done| Call::ExtensionFailed {
        extension,
        error_type,
        done,
    })
    .await
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn refuse_misuse(misuse: Misuse) -> Response {
    match misuse {
        Misuse::UnknownRequest => {
            let message = "this environment is not running an invocation with this id";
            refuse(StatusCode::BAD_REQUEST, "InvalidRequestID", message)
        }
        Misuse::WrongState => refuse(
            StatusCode::FORBIDDEN,
            "InvalidStateTransition",
            "the environment's state does not allow this now",
        ),
        Misuse::UnknownExtension => {
            let message = "no extension was registered with this identifier";
            refuse(
                StatusCode::FORBIDDEN,
                "Extension.UnknownExtensionIdentifier",
                message,
            )
        }
    }
}

fn refuse_unidentified() -> Response {
    let message = "the header Lambda-Extension-Identifier is missing; registering returns it";
    refuse(
        StatusCode::FORBIDDEN,
        "Extension.MissingExtensionIdentifier",
        message,
    )
}

fn gone() -> Response {
    refuse(
        StatusCode::INTERNAL_SERVER_ERROR,
        "ContainerError",
        "this environment has ended; exit promptly",
    )
}

fn refuse(status: StatusCode, error_type: &str, message: &str) -> Response {
    reply(
        status,
        json!({"errorType": error_type, "errorMessage": message}),
    )
}

fn reply(status: StatusCode, body: Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
