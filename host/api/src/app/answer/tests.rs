//! The table of answers, row by row.

use bytes::Bytes;
use http::StatusCode;
use whimbrel_pubsub::{HandlerError, Outcome};

use super::{Reply, interpret};

fn reply(status: u16, body: &str, is_cut: bool) -> Reply {
    let status = StatusCode::from_u16(status).expect("a status");
    Reply { status, body: Bytes::copy_from_slice(body.as_bytes()), is_cut }
}

fn check(status: u16, body: &str, expect: Outcome) {
    assert_eq!(interpret(&reply(status, body, false)), Ok(expect), "{status} {body}");
}

#[test]
fn success() {
    for status in [200, 201, 202, 204, 299] {
        check(status, "", Outcome::Success);
    }
    for body in [
        "ok",
        "\"SUCCESS\"",
        "[]",
        "5",
        "null",
        "true",
        "{}",
        r#"{"status":5}"#,
        r#"{"status":[]}"#,
        r#"{"status":null}"#,
        r#"{"status":""}"#,
        r#"{"status":"SUCCESS"}"#,
        r#"{"other":{"status":"RETRY"}}"#,
        r#"{"status":"SUCCESS"} {"status":"RETRY"}"#,
        r#"{"status":"RETRY""#,
    ] {
        check(200, body, Outcome::Success);
    }
}

#[test]
fn retry_and_drop() {
    check(200, r#"{"status":"RETRY"}"#, Outcome::Retry);
    check(201, r#"{"status":"RETRY"}"#, Outcome::Retry);
    check(200, r#"{"Status":"RETRY"}"#, Outcome::Retry);
    check(200, r#" { "more" : [1, {"a": "b"}], "STATUS" : "RETRY" } trailing"#, Outcome::Retry);
    check(200, r#"{"status":"RE\u0054RY"}"#, Outcome::Retry);
    check(200, r#"{"status":"SUCCESS","status":"DROP"}"#, Outcome::Drop);
    check(200, r#"{"status":"DROP"}"#, Outcome::Drop);
    check(200, r#"{"statuses":[],"status":"DROP"}"#, Outcome::Drop);
}

fn check_error(reply: &Reply, expect: &HandlerError) {
    assert_eq!(interpret(reply).as_ref(), Err(expect), "{reply:?}");
}

#[test]
fn failures() {
    for status in [100, 300, 301, 304, 400, 401, 403, 404, 429, 500, 503] {
        check_error(&reply(status, r#"{"status":"SUCCESS"}"#, false), &HandlerError::Status(status));
    }
    for word in ["success", "retry", "other"] {
        let expect = HandlerError::Failed(format!("the app answered the unknown status {word}"));
        check_error(&reply(200, &format!(r#"{{"status":"{word}"}}"#), false), &expect);
    }
    for body in [r#"{"statuses":[]}"#, r#"{"Statuses":[{"entryId":"1","status":"SUCCESS"}],"status":""}"#] {
        assert!(
            matches!(interpret(&reply(200, body, false)), Err(HandlerError::Failed(what)) if what.contains("list"))
        );
    }
    let long = "x".repeat(1000);
    let expect = HandlerError::Failed(format!("the app answered the unknown status {}", "x".repeat(64)));
    check_error(&reply(200, &format!(r#"{{"status":"{long}"}}"#), false), &expect);
}

#[test]
fn an_answer_that_was_cut() {
    let expect = HandlerError::Failed("the app's answer is larger than 1 MiB".into());
    check_error(&reply(200, r#"{"a":"very lo"#, true), &expect);
    assert_eq!(interpret(&reply(200, "<html>", true)), Ok(Outcome::Success));
    assert_eq!(interpret(&reply(200, r#"{"status":"RETRY"} and mo"#, true)), Ok(Outcome::Retry));
}
