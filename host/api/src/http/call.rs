//! A call of the API as a span (pubsub-behaviour 13.3): what it is told as to a collector of traces, and the trace that its
//! caller is answered. Called by `http` around each publish.

use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use whimbrel_pubsub::{Recording, Span, SpanKind, Trace, TraceParent};

use super::{Answer, Api, trace};
use crate::path;

/// Headers of the caller's own, named `dapr-*`, that a span has at most.
const OWN_HEADERS_MAX: usize = 16;

/// What has begun.
pub(super) struct Call {
    /// What is answered. None: no traces at all.
    context: Option<TraceParent>,
    span: Recording,
}

/// Begins a call. What it publishes belongs to the trace.
pub(super) fn begin(api: &Api, head: &Parts, topic: &str) -> (Trace, Call) {
    let topology = api.doors.topology.load();
    let tracer = &topology.environment.tracer;
    let mut trace = trace::of(&head.headers);
    let span = tracer.begin(&mut trace, SpanKind::Client, |span| describe(span, head, topic));
    let context = if tracer.is_off() { None } else { trace.parent.or(Some(TraceParent::NONE)) };
    (trace, Call { context, span })
}

impl Call {
    /// Ends it with this answer, which names the trace from here on.
    pub(super) fn end(self, mut answer: Answer) -> Answer {
        let status = answer.status();
        self.span.end(|span| conclude(span, status));
        if let Some(context) = self.context {
            answer.headers_mut().insert(trace::PARENT, trace::header(&context));
        }
        answer
    }
}

/// Never a query or a token: the one may hold anything, the other is a secret.
fn describe(span: &mut Span, head: &Parts, topic: &str) {
    let (method, path) = (head.method.as_str(), head.uri.path());
    span.name = path.to_owned().into();
    span.set("dapr.api", format!("{method} {path}"));
    span.set("dapr.protocol", "http");
    span.set_topic(&path::unescape_lossy(topic));
    span.set("http.request.method", method.to_owned());
    let host = head.headers.get(header::HOST).and_then(text);
    span.set("url.full", host.map_or_else(|| path.to_owned(), |host| format!("http://{host}{path}")));
    if let Some(host) = host {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
            _ => (host, None),
        };
        span.set("server.address", name.to_owned());
        if let Some(port) = port {
            span.set("server.port", port.to_owned());
        }
    }
    let own = head.headers.iter().filter(|(name, _)| name.as_str().starts_with("dapr-") && *name != "dapr-api-token");
    for (name, value) in own.take(OWN_HEADERS_MAX) {
        span.set(name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
}

fn conclude(span: &mut Span, status: StatusCode) {
    span.set("dapr.status_code", status.as_u16().to_string());
    if status.is_client_error() || status.is_server_error() {
        let reason = status.canonical_reason().unwrap_or_default();
        span.error = Some(format!("Code({}): {reason}", status.as_u16()));
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}
