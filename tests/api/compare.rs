//! Whether two answers or two deliveries are the same, as the recording's README says: order of keys, escapes and the
//! spelling of numbers do not matter, and placeholders stand for what changes from run to run. Called by `golden`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::recorded::{Delivery, Response};
use crate::harness::app::Seen;
use crate::harness::http::Answer;

/// What is wrong with a body, or `None`.
pub(crate) fn body(expected: &str, actual: &[u8]) -> Option<String> {
    let differs = || Some(format!("body\n      is     {}\n      not    {expected}", String::from_utf8_lossy(actual)));
    // The one placeholder that stands for a number.
    let quoted = expected.replace(r#":<port>"#, r#":"<port>""#);
    let same = match (serde_json::from_str::<Value>(&quoted), serde_json::from_slice::<Value>(actual)) {
        (Ok(expected), Ok(actual)) => same(&expected, &actual),
        (Err(_), Err(_)) => expected.as_bytes() == actual,
        _ => false,
    };
    if same { None } else { differs() }
}

/// What is wrong with an answer, or `None`.
pub(crate) fn answer(expected: &Response, actual: &Answer) -> Option<String> {
    if expected.status != actual.status {
        return Some(format!("status is {}, not {}: {}", actual.status, expected.status, actual.text()));
    }
    // That route belongs to another building block: only its status is ours.
    if expected.body.contains("ERR_DIRECT_INVOKE") {
        return None;
    }
    let kind = expected.headers.get("content-type").map(String::as_str);
    if kind != actual.header("content-type") && !actual.body.is_empty() {
        return Some(format!("content type is {:?}, not {kind:?}", actual.header("content-type")));
    }
    body(&expected.body, &actual.body)
}

/// What is wrong with the deliveries of a step, in any order.
pub(crate) fn deliveries(expected: &[Delivery], actual: &[Seen]) -> Vec<String> {
    let mut rest: Vec<_> = actual.iter().collect();
    let mut wrong = vec![];
    for delivery in expected {
        if let Some(found) = rest.iter().position(|seen| one(delivery, seen).is_none()) {
            rest.swap_remove(found);
        } else {
            let nearest = rest.iter().find(|seen| seen.path == delivery.path);
            let why = nearest.and_then(|seen| one(delivery, seen));
            let why = why.unwrap_or_else(|| format!("nothing came with {}", delivery.body));
            wrong.push(format!("delivery to {}: {why}", delivery.path));
        }
    }
    if wrong.is_empty() {
        let more =
            |seen: &&Seen| format!("unexpected delivery to {}: {}", seen.path, String::from_utf8_lossy(&seen.body));
        wrong.extend(rest.iter().map(more));
    }
    wrong
}

fn one(expected: &Delivery, actual: &Seen) -> Option<String> {
    if expected.path != actual.path {
        return Some(format!("path is {}", actual.path));
    }
    for (name, value) in &expected.headers {
        let found = actual.headers.get(name);
        if found.is_none_or(|found| !text(value, found)) {
            return Some(format!("header {name} is {found:?}, not {value:?}"));
        }
    }
    match expected.bytes {
        Some(bytes) => {
            let found = length_with_placeholders(actual);
            (found != Some(bytes)).then(|| format!("{found:?} bytes with placeholders, not {bytes}"))
        }
        None => body(&expected.body, &actual.body),
    }
}

/// The length of a body as it was recorded: with `<uuid>` and `<time>` in the places of both.
fn length_with_placeholders(seen: &Seen) -> Option<usize> {
    let event = seen.event().ok()?;
    let replaced = event["id"].as_str()?.len() + event["time"].as_str()?.len();
    (seen.body.len() + "<uuid><time>".len()).checked_sub(replaced)
}

fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            expected.len() == actual.len()
                && expected.iter().all(|(key, value)| actual.get(key).is_some_and(|found| same(value, found)))
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(a, b)| same(a, b))
        }
        (Value::Number(expected), Value::Number(actual)) => expected == actual || expected.as_f64() == actual.as_f64(),
        (Value::String(expected), Value::Number(_)) => expected == "<port>",
        (Value::String(expected), Value::String(actual)) => text(expected, actual),
        (expected, actual) => expected == actual,
    }
}

fn text(expected: &str, actual: &str) -> bool {
    if let Some(decoded) = expected.strip_prefix("base64 of ") {
        return STANDARD.decode(actual).is_ok_and(|bytes| body(decoded, &bytes).is_none());
    }
    match expected {
        "<uuid>" => is_uuid(actual),
        "<time>" => is_time(actual),
        "<trace>" => is_trace(actual),
        _ => expected == actual,
    }
}

fn is_uuid(text: &str) -> bool {
    shape(text) == "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
}

fn is_trace(text: &str) -> bool {
    shape(text) == "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx"
}

/// RFC 3339, section 5.6, with seconds.
fn is_time(text: &str) -> bool {
    let (moment, zone) = text.split_at_checked(19).unwrap_or_default();
    shape(moment) == "xxxx-xx-xxTxx:xx:xx" && (zone == "Z" || (shape(zone) == "+xx:xx" || shape(zone) == "-xx:xx"))
}

/// Every lower-case hexadecimal digit as `x`.
fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() || ('a'..='f').contains(&c) { 'x' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, actual: &str, same: bool) {
        assert_eq!(body(expected, actual.as_bytes()).is_none(), same, "{expected} and {actual}");
    }

    #[test]
    fn only_what_matters_makes_a_difference() {
        check(r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1.0}"#, true);
        check(r#"{"a":"\u003c"}"#, r#"{"a":"<"}"#, true);
        check(r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false);
        check(r#"{"a":1}"#, r#"{"a":"1"}"#, false);
        check(r#"{"a":null}"#, "{}", false);
        check("[1,2]", "[2,1]", false);
        check("text", "text", true);
        check("text", "Text", false);
        check("", "", true);
        check("{}", "", false);
    }

    #[test]
    fn placeholders_stand_for_their_kind_only() {
        check(r#"{"id":"<uuid>"}"#, r#"{"id":"6b6bd9ab-9c4a-4e8c-8a8f-8c0f1a2b3c4d"}"#, true);
        check(r#"{"id":"<uuid>"}"#, r#"{"id":"my-id"}"#, false);
        check(r#"{"t":"<time>"}"#, r#"{"t":"2026-11-24T02:10:00Z"}"#, true);
        check(r#"{"t":"<time>"}"#, r#"{"t":"2026-11-24T02:10:00+01:00"}"#, true);
        check(r#"{"t":"<time>"}"#, r#"{"t":"now"}"#, false);
        check(r#"{"p":<port>}"#, r#"{"p":4711}"#, true);
        check(r#"{"d":"base64 of {\"a\":1}"}"#, r#"{"d":"eyJhIjogMX0="}"#, true);
        check(r#"{"d":"base64 of {\"a\":1}"}"#, r#"{"d":"eyJhIjogMn0="}"#, false);
    }
}
