//! What the answer means.

use bytes::Bytes;
use http::StatusCode;

use super::{DiscoveryError, Reply, interpret};

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
