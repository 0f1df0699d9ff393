//! The W3C trace context of a request (https://www.w3.org/TR/trace-context/). What is not valid counts as absent.

use http::{HeaderMap, HeaderValue};
use whimbrel_pubsub::Trace;

/// The header that names the caller's span.
pub(crate) const PARENT: &str = "traceparent";

/// The header with vendors' data.
const STATE: &str = "tracestate";

/// What daprd answers, and tells apps, when there is no trace.
pub(crate) const NONE: &str = "00-00000000000000000000000000000000-0000000000000000-00";

/// List members of `tracestate` (section 3.3.1.1 of the standard).
const STATE_MEMBERS_MAX: usize = 32;

/// The trace of a request.
pub(crate) fn of(headers: &HeaderMap) -> Trace {
    match headers.get(PARENT).and_then(text).filter(|parent| is_parent(parent)) {
        None => Trace::default(),
        Some(parent) => Trace { parent: Some(parent.to_owned()), state: state(headers) },
    }
}

/// The `traceparent` for a header: the given one if it is valid, else all zeros.
pub(crate) fn header(parent: Option<&str>) -> HeaderValue {
    let valid = parent.filter(|parent| is_parent(parent));
    valid.and_then(|parent| HeaderValue::from_str(parent).ok()).unwrap_or(HeaderValue::from_static(NONE))
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

/// `version-trace-span-flags` in lower-case hexadecimal, neither id all zeros. Version 00 ends there; of a later version
/// whatever follows is none of our business.
fn is_parent(parent: &str) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        parent.as_bytes()[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| parent.as_bytes()[range].iter().all(|&byte| byte == b'0');
    let bytes = parent.as_bytes();
    let shaped = bytes.len() >= 55 && bytes[2] == b'-' && bytes[35] == b'-' && bytes[52] == b'-';
    shaped
        && hex(0..2)
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && !zero(3..35)
        && !zero(36..52)
        && match &bytes[..2] {
            b"ff" => false,
            b"00" => bytes.len() == 55,
            _ => bytes.len() == 55 || bytes[55] == b'-',
        }
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
