//! A line in the log for each call of the API, where the operator asks for it (pubsub-behaviour 13.4). Called by `http`.

use std::time::Instant;

use http::header::USER_AGENT;
use http::{HeaderValue, request};
use hyper::body::Body as _;
use whimbrel_resources::ApiLogging;

use super::route::Route;
use super::{Answer, Api};
use crate::path;

/// The target of these lines in the log: who asks for them wants each of them.
pub const CALLS_TARGET: &str = "whimbrel_api::calls";

/// How much of what a client says it is goes into the log, bytes.
const USER_AGENT_BYTES_MAX: usize = 256;

/// A call that has begun.
pub(super) struct Call {
    method: String,
    user_agent: String,
    begun: Instant,
}

impl Call {
    /// `None`: nobody wants to read of it.
    pub(super) fn begin(api: &Api, head: &request::Parts) -> Option<Self> {
        let logging = &api.doors.api_logging;
        if logging.enabled != Some(true) {
            return None;
        }
        let cleaned = path::clean(head.uri.path());
        let method = describe(logging, head, &Route::of(&head.method, &cleaned))?;
        let agent = head.headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
        let agent = &agent[..agent.len().min(USER_AGENT_BYTES_MAX)];
        Some(Self { method, user_agent: String::from_utf8_lossy(agent).into_owned(), begun: Instant::now() })
    }

    /// It has its answer.
    pub(super) fn end(self, answer: &Answer) {
        let Self { method, user_agent: useragent, begun } = self;
        let (code, size) = (answer.status().as_u16(), answer.body().size_hint().lower());
        let duration = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(target: CALLS_TARGET, method, useragent, code, size, duration, "HTTP API Called");
    }
}

/// Never a query: it may hold anything. Names of topics are kept back where the operator wants that.
fn describe(logging: &ApiLogging, head: &request::Parts, route: &Route<'_>) -> Option<String> {
    if logging.omit_health_checks && matches!(route, Route::Health | Route::OutboundHealth) {
        return None;
    }
    if logging.obfuscate_urls {
        return Some(route.name().to_owned());
    }
    Some(format!("{} {}", head.method, head.uri.path()))
}
