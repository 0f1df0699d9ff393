//! The W3C trace context of a request (https://www.w3.org/TR/trace-context/). What is not valid counts as absent.

use http::{HeaderMap, HeaderValue};
use whimbrel_pubsub::{Trace, TraceParent};

/// The header that names the caller's span.
pub(super) const PARENT: &str = "traceparent";

/// The header with vendors' data.
const STATE: &str = "tracestate";

/// List members of `tracestate` (section 3.3.1.1 of the standard).
const STATE_MEMBERS_MAX: usize = 32;

/// The trace of a request.
pub(super) fn of(headers: &HeaderMap) -> Trace {
    match headers.get(PARENT).and_then(text).and_then(TraceParent::parse) {
        None => Trace::default(),
        parent => Trace { parent, state: state(headers) },
    }
}

/// The `traceparent` for a header.
pub(crate) fn header(parent: &TraceParent) -> HeaderValue {
    // It is ASCII.
    HeaderValue::from_str(parent.as_str()).unwrap_or(HeaderValue::from_static(""))
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

/// All `tracestate` headers as one list; none if a member has no key or there are too many.
fn state(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(STATE).iter();
    let first = text(values.next()?)?.to_owned();
    let all = values.try_fold(first, |all, value| Some(all + "," + text(value)?))?;
    let members = all.split(',').map(str::trim).filter(|member| !member.is_empty());
    let valid = |member: &str| member.split_once('=').is_some_and(|(key, _)| !key.is_empty());
    let well_formed = members.clone().all(valid) && members.clone().count() <= STATE_MEMBERS_MAX;
    (well_formed && members.count() > 0).then_some(all)
}

#[cfg(test)]
mod tests;
