//! The requests that an app gets (pubsub-behaviour 5.2, 6.1 and 6.3). Pure; called by `App`.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use whimbrel_pubsub::{BatchInfo, DeliveryInfo};

/// Headers taken from a message's metadata. More are left out: the app's HTTP stack has its limits too.
const METADATA_HEADERS_MAX: usize = 64;

/// Names that a message's metadata may not set: they belong to the connection, to the body, or to us.
const RESERVED: [&str; 20] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "dapr-api-token",
    "dapr-app-id",
    "destination-app-id",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "pubsubname",
    "whimbrel-attempt",
    "whimbrel-last-attempt",
];

/// Where the app is asked for its subscriptions.
pub(crate) const SUBSCRIBE_PATH: &str = "/dapr/subscribe";

/// What every request to the app carries.
#[derive(Debug)]
pub(crate) struct Fixed {
    /// `Host`.
    pub(crate) host: HeaderValue,
    /// `dapr-api-token`, marked as sensitive.
    pub(crate) token: Option<HeaderValue>,
}

/// One event. `None`: the route is no path, whatever is escaped.
pub(crate) fn event(
    fixed: &Fixed,
    path: &str,
    info: &DeliveryInfo,
    body: &Bytes,
    trace: Option<HeaderValue>,
) -> Option<Request<Full<Bytes>>> {
    let mut request = post(path, body)?;
    let headers = request.headers_mut();
    headers.reserve(8 + info.metadata.len().min(METADATA_HEADERS_MAX));
    for (name, value) in info.metadata.iter().take(METADATA_HEADERS_MAX) {
        if let Some((name, value)) = from_metadata(name, value) {
            headers.insert(name, value);
        }
    }
    fix(headers, fixed);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
    if let Some(trace) = trace {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    tell(headers, &info.pubsub, info.attempt, info.last_attempt);
    Some(request)
}

/// Several events. `attempt`: the highest of theirs. `None`: the route is no path, whatever is escaped.
pub(crate) fn batch(
    fixed: &Fixed,
    path: &str,
    info: &BatchInfo,
    attempt: u32,
    body: &Bytes,
    trace: Option<HeaderValue>,
) -> Option<Request<Full<Bytes>>> {
    let mut request = post(path, body)?;
    let headers = request.headers_mut();
    fix(headers, fixed);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(trace) = trace {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    tell(headers, &info.pubsub, attempt, info.last_attempt);
    Some(request)
}

fn post(path: &str, body: &Bytes) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from(PathAndQuery::try_from(path).ok()?);
    Some(request)
}

fn tell(headers: &mut HeaderMap, pubsub: &str, attempt: u32, last_attempt: bool) {
    if let Ok(pubsub) = HeaderValue::from_bytes(pubsub.as_bytes()) {
        headers.insert(HeaderName::from_static("pubsubname"), pubsub);
    }
    let last = HeaderValue::from_static(if last_attempt { "true" } else { "false" });
    headers.insert(HeaderName::from_static("whimbrel-attempt"), HeaderValue::from(attempt));
    headers.insert(HeaderName::from_static("whimbrel-last-attempt"), last);
}

/// The question which subscriptions the app wants.
pub(crate) fn subscriptions(fixed: &Fixed, app_id: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from_static(SUBSCRIBE_PATH);
    let headers = request.headers_mut();
    fix(headers, fixed);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(app_id) = HeaderValue::from_str(app_id) {
        headers.insert(HeaderName::from_static("dapr-app-id"), app_id);
    }
    request
}

/// The question whether it is well, without the app's token (pubsub-behaviour 6.9). `None`: that is no path.
pub(crate) fn health(fixed: &Fixed, path: &str) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from(PathAndQuery::try_from(path).ok()?);
    request.headers_mut().insert(header::HOST, fixed.host.clone());
    Some(request)
}

fn fix(headers: &mut HeaderMap, fixed: &Fixed) {
    headers.insert(header::HOST, fixed.host.clone());
    if let Some(token) = &fixed.token {
        headers.insert(HeaderName::from_static("dapr-api-token"), token.clone());
    }
}

/// A header for an item of a message's metadata, if it may and can be one.
fn from_metadata(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.ends_with("-bin") {
        return None;
    }
    let name = if lower.starts_with("grpc-") { format!("dapr-{lower}") } else { lower };
    Some((HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
}

#[cfg(test)]
mod tests;
