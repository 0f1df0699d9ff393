//! One request to the HTTP API, from its head to its answer: the spine that calls the routes. Called by `server` for each
//! request of each connection.

mod baggage;
pub(crate) mod body;
mod bulk;
mod call;
mod calls;
mod counted;
mod metadata;
mod publish;
mod route;
mod trace;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use whimbrel_pubsub::Metrics;
use whimbrel_resources::{ApiAccess, Protocol, Text};

use crate::doors::Doors;
use crate::error::{self, Refusal};
use crate::path;
use body::BodyError;
use route::Route;

pub(crate) use body::Arriving;
pub use calls::CALLS_TARGET;
pub(crate) use trace::header as trace_header;

/// An answer: all of it is in memory.
pub(crate) type Answer = Response<Full<Bytes>>;

/// The API as an OpenAPI 3.1 document. The tests hold it against the routes and the error table.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// What daprd's HTTP stack lets headers exceed their limit by, bytes; clients that fit there fit here.
const HEAD_SLACK_BYTES: u64 = 4096;

/// What a header costs besides its name and value, bytes: `: ` and the end of the line.
const HEADER_OVERHEAD_BYTES: usize = 4;

/// The doors and what all requests share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) doors: Arc<Doors>,
    metrics: Metrics,
    bodies: Semaphore,
}

impl Api {
    pub(crate) fn new(doors: Arc<Doors>) -> Self {
        let metrics = doors.topology.load().environment.metrics.clone();
        Self { doors, metrics, bodies: Semaphore::new(body::BUDGET_KIB) }
    }
}

/// Answers a request.
pub(crate) async fn answer(api: &Api, request: Request<Arriving>) -> Answer {
    let (head, body) = request.into_parts();
    let told = calls::Call::begin(api, &head);
    let request = counted::Request::begin(&head, &body);
    let answer = welcomed(api, head, body).await;
    request.end(&api.metrics, &answer);
    if let Some(call) = told {
        call.end(&answer);
    }
    answer
}

/// What a request is answered, with what its page must know.
async fn welcomed(api: &Api, head: http::request::Parts, body: Arriving) -> Answer {
    let Some(origins) = &api.doors.origins else { return with_code_counted(api, called(api, head, body).await) };
    if let Some(answer) = origins.preflight(&head) {
        return answer;
    }
    let added = origins.headers(&head);
    let mut answer = with_code_counted(api, called(api, head, body).await);
    answer.headers_mut().extend(added);
    answer
}

/// The error code in an answer's body, for who counts them.
#[derive(Debug, Clone)]
struct ErrorCode(String);

/// An answer, its error code counted.
fn with_code_counted(api: &Api, answer: Answer) -> Answer {
    if let Some(ErrorCode(code)) = answer.extensions().get() {
        api.metrics.error_code(&api.doors.caller.app_id, error::category(code), code);
    }
    answer
}

/// Answers a request on the public port: who is well, and what there is. It asks for no token and changes nothing
/// (pubsub-behaviour, sections 12.1 and 12.2).
pub(crate) fn answer_public(api: &Api, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let request = counted::Request::begin(&head, &body);
    let answer = public(api, &head);
    request.end(&api.metrics, &answer);
    answer
}

fn public(api: &Api, head: &http::request::Parts) -> Answer {
    match Route::of(&head.method, &path::clean(head.uri.path())) {
        Route::Health => health(api, head.uri.query()),
        Route::OutboundHealth => outbound_health(api),
        Route::Metadata => metadata::get(api),
        _ => refuse(&error::no_route()),
    }
}

/// What a request is answered, wherever the page that sent it is from.
async fn called(api: &Api, head: http::request::Parts, body: Arriving) -> Answer {
    if head_bytes(&head) > api.doors.head_bytes_max + HEAD_SLACK_BYTES {
        return text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request header fields too large");
    }
    if !path::is_well_escaped(head.uri.path()) {
        return text(StatusCode::BAD_REQUEST, "400 Bad Request");
    }
    let cleaned = path::clean(head.uri.path());
    let route = Route::of(&head.method, &cleaned);
    if !is_admitted(api.doors.api_token.as_ref(), &route, &head.headers) {
        return text(StatusCode::UNAUTHORIZED, "invalid api token");
    }
    if !may_be_called(&api.doors.access, &route, &cleaned) {
        return refuse(&error::no_route());
    }
    if matches!(route, Route::Publish { .. } | Route::BulkPublish { .. })
        && let Err(why) = baggage::of(&head.headers)
    {
        return text(StatusCode::BAD_REQUEST, format!("invalid baggage header: {why}"));
    }
    match route {
        Route::Publish { pubsub, topic } => {
            let (trace, call) = call::begin(api, &head, topic);
            with_baggage(&head, call.end(publish::answer(api, &head, body, pubsub, topic, trace).await))
        }
        // Boxed: every other request needs no room for it.
        Route::BulkPublish { pubsub, topic } => {
            let (trace, call) = call::begin(api, &head, topic);
            with_baggage(&head, call.end(Box::pin(bulk::answer(api, &head, body, pubsub, topic, trace)).await))
        }
        Route::Health => health(api, head.uri.query()),
        Route::OutboundHealth => outbound_health(api),
        Route::Metadata => metadata::get(api),
        Route::SetMetadata(key) => metadata::set(api, key, body).await,
        Route::Shutdown => shutdown(api, &head.headers),
        Route::OpenApi => with_body(StatusCode::OK, "application/json", OPENAPI),
        Route::Other => refuse(&error::no_route()),
    }
}

/// Whether the configuration lets a route be called. Health always may; what may not is as if there were no such route
/// (pubsub-behaviour, section 12.6).
fn may_be_called(access: &ApiAccess, route: &Route<'_>, path: &str) -> bool {
    let name = match route {
        Route::Publish { .. } | Route::BulkPublish { .. } => "publish",
        Route::Metadata | Route::SetMetadata(_) => "metadata",
        Route::Shutdown => "shutdown",
        Route::Health | Route::OutboundHealth | Route::OpenApi | Route::Other => return true,
    };
    let version = if path.starts_with("/v1.0-alpha1/") { "v1alpha1" } else { "v1" };
    access.allows(Protocol::Http, name, version)
}

/// An answer with the baggage of its request.
fn with_baggage(head: &http::request::Parts, mut answer: Answer) -> Answer {
    if let Ok(Some(baggage)) = baggage::of(&head.headers) {
        answer.headers_mut().insert(baggage::NAME, baggage.clone());
    }
    answer
}

/// The bytes of a request's line and headers, near enough.
fn head_bytes(head: &http::request::Parts) -> u64 {
    let target = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    let lines = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES);
    (target + lines.sum::<usize>()) as u64
}

/// Every request but the two of health needs the token, if there is one. Compared in a time that does not depend on where
/// it differs.
fn is_admitted(token: Option<&Text>, route: &Route<'_>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let given = headers.get("dapr-api-token").map_or(&b""[..], HeaderValue::as_bytes);
    matches!(route, Route::Health | Route::OutboundHealth) || token.reveal().as_bytes().ct_eq(given).into()
}

fn health(api: &Api, query: Option<&str>) -> Answer {
    let doors = &api.doors;
    let asked = query.and_then(|query| parameters(query).find(|(name, _)| name == "appid"));
    if asked.is_some_and(|(_, app_id)| app_id != *doors.caller.app_id) {
        let message = "dapr app-id does not match";
        return refuse(&error::plain(StatusCode::INTERNAL_SERVER_ERROR, "ERR_HEALTH_APPID_NOT_MATCH", message));
    }
    if doors.health.is_ready() {
        return empty();
    }
    let message = format!("dapr is not ready: [{}]", doors.health.missing().join("; "));
    refuse(&error::plain(StatusCode::INTERNAL_SERVER_ERROR, "ERR_HEALTH_NOT_READY", &message))
}

fn outbound_health(api: &Api) -> Answer {
    if api.doors.health.is_outbound_ready() {
        return empty();
    }
    let message = format!("dapr outbound is not ready: [{}]", api.doors.health.missing().join("; "));
    refuse(&error::plain(StatusCode::INTERNAL_SERVER_ERROR, "ERR_OUTBOUND_HEALTH_NOT_READY", &message))
}

fn shutdown(api: &Api, headers: &HeaderMap) -> Answer {
    let force = headers.get("dapr-force-shutdown").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if force {
        api.doors.force_shutdown.cancel();
    } else {
        tracing::info!("Shutdown requested via API");
        api.doors.shutdown.cancel();
    }
    empty()
}

/// The parameters of a query, unescaped, in order. A pair with a malformed escape or a semicolon is passed over, as Go does.
fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs.filter(|pair| path::is_well_escaped(pair)).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (path::unescape_lossy(name), path::unescape_lossy(value))
    })
}

/// 204.
fn empty() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn with_body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_body(status, "text/plain; charset=utf-8", body)
}

fn refuse(refusal: &Refusal) -> Answer {
    let mut answer = with_body(refusal.status, "application/json", refusal.body.to_string());
    if let Some(seconds) = refusal.retry_after_seconds {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(code) = refusal.body["errorCode"].as_str() {
        answer.extensions_mut().insert(ErrorCode(code.to_owned()));
    }
    answer
}

#[cfg(test)]
mod tests;
