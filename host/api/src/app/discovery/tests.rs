//! What the answer means, and the waits.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::{DiscoveryError, Reply, interpret, waits};

fn check(status: StatusCode, body: &'static str, is_cut: bool, expect: Result<Option<&'static str>, DiscoveryError>) {
    let reply = Reply { status, body: Bytes::from_static(body.as_bytes()), is_cut };
    let expect = expect.map(|body| body.map(|body| Bytes::from_static(body.as_bytes())));
    assert_eq!(interpret(&reply), expect, "{status} {body}");
}

#[test]
fn answers() {
    check(StatusCode::OK, "[]", false, Ok(Some("[]")));
    check(StatusCode::OK, "no json", false, Ok(Some("no json")));
    check(StatusCode::OK, "", false, Ok(None));
    check(StatusCode::OK, "[", true, Err(DiscoveryError::TooLarge));
    check(StatusCode::NOT_FOUND, "nothing here", false, Ok(None));
    check(StatusCode::NO_CONTENT, "", false, Ok(None));
    check(StatusCode::INTERNAL_SERVER_ERROR, "[]", false, Ok(None));
}

#[test]
fn three_waits_that_grow() {
    let waits: Vec<Duration> = waits().collect();
    let bounds = [(250, 750), (375, 1125), (500, 1500)];
    assert_eq!(waits.len(), bounds.len());
    for (wait, (low, high)) in waits.into_iter().zip(bounds) {
        assert!((low..=high).contains(&wait.as_millis()), "{wait:?}");
    }
}
