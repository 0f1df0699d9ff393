//! What a batch looks like, and the table of answers, row by row.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use whimbrel_pubsub::Event;

use super::*;

fn entry(id: u128, event: &'static str, metadata: &[(&str, &str)], attempt: u32) -> BatchEntry {
    let metadata = metadata.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let event = Event::structured(Bytes::from_static(event.as_bytes()), &metadata).expect("an event");
    BatchEntry { id: Uuid::from_u128(id), event: Arc::new(event), attempt, metadata: Arc::new(metadata) }
}

fn info(raw: bool) -> BatchInfo {
    let (pubsub, topic, path) = ("bu\"s".into(), "t".into(), "/in".into());
    BatchInfo { id: Uuid::from_u128(7), pubsub, topic, path, last_attempt: false, raw, trace: None }
}

fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

#[test]
fn events_stand_in_it_as_they_were_stored() {
    const EVENT: &str = r#"{ "id":"e1", "data":12345678901234567890.10, "x":{"y":[1]} }"#;
    let entries = [entry(1, EVENT, &[], 1), entry(2, "{}", &[("a", "1\n"), ("ttl", "5")], 3)];
    let body = body(&entries, &info(false));
    let text = std::str::from_utf8(&body).expect("UTF-8");
    assert!(text.contains(EVENT), "{text}");
    let expect = json!({
        "id": id(7), "type": "com.dapr.event.sent.bulk", "topic": "t", "pubsubname": "bu\"s",
        "metadata": { "pubsubName": "bu\"s" },
        "entries": [
            { "entryId": id(1), "event": serde_json::from_str::<Value>(EVENT).expect("JSON"), "metadata": {},
              "contentType": "application/cloudevents+json" },
            { "entryId": id(2), "event": {}, "metadata": { "a": "1\n", "ttl": "5" },
              "contentType": "application/cloudevents+json", "whimbrelAttempt": 3 },
        ],
    });
    assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON"), expect);
}

#[test]
fn raw_bytes_are_in_base64() {
    let entries = [
        entry(1, r#"{"data_base64":"AP8="}"#, &[], 1),
        entry(2, r#"{"data_base64":""}"#, &[("Content-Type", "image/png")], 1),
    ];
    let body: Value = serde_json::from_slice(&body(&entries, &info(true))).expect("JSON");
    let seen = |number: usize| {
        let entry = &body["entries"][number];
        (entry["event"].as_str().map(str::to_owned), entry["contentType"].as_str().map(str::to_owned))
    };
    assert_eq!(seen(0), (Some("AP8=".into()), Some("application/octet-stream".into())));
    assert_eq!(seen(1), (Some(String::new()), Some("image/png".into())));
}

/// One broken event must not spoil the others.
#[test]
fn bytes_that_are_no_text_are_replaced() {
    let event = Event::structured(Bytes::from_static(b"{\"data\":\"a\xff\"}"), &Vec::new()).expect("an event");
    let entries = [BatchEntry { event: Arc::new(event), ..entry(1, "{}", &[], 1) }];
    let body: Value = serde_json::from_slice(&body(&entries, &info(false))).expect("JSON");
    assert_eq!(body["entries"][0]["event"]["data"], "a\u{fffd}");
}

fn reply(status: u16, body: &str, is_cut: bool) -> Reply {
    let status = StatusCode::from_u16(status).expect("a status");
    Reply { status, body: Bytes::copy_from_slice(body.as_bytes()), is_cut }
}

/// What an answer means for the entries 1 and 2. A number in it stands for an entry's id.
fn outcomes(status: u16, body: &str) -> Result<Outcomes, HandlerError> {
    let body = body.replace("#1", &id(1)).replace("#2", &id(2)).replace("#3", &id(3));
    interpret(&reply(status, &body, false), &[entry(1, "{}", &[], 1), entry(2, "{}", &[], 1)])
}

/// In a word each: success, retry, drop, failed.
fn check(body: &str, expect: [&str; 2]) {
    let words: Vec<_> = outcomes(200, body)
        .expect("a list")
        .iter()
        .map(|outcome| match outcome {
            Ok(Outcome::Success) => "success",
            Ok(Outcome::Retry) => "retry",
            Ok(Outcome::Drop) => "drop",
            Ok(Outcome::Unserved) => "unserved",
            Err(_) => "failed",
        })
        .collect();
    assert_eq!(words, expect, "{body}");
}

#[test]
fn each_entry_has_its_own_outcome() {
    let both = |first: &str, second: &str| {
        format!(r##"{{"statuses":[{{"entryId":"#1","status":{first}}},{{"entryId":"#2","status":{second}}}]}}"##)
    };
    check(&both("\"SUCCESS\"", "\"RETRY\""), ["success", "retry"]);
    check(&both("\"DROP\"", "\"\""), ["drop", "retry"]);
    check(&both("null", "\"success\""), ["retry", "failed"]);
    check(
        r##"{"statuses":[{"entryId":"#2","status":"SUCCESS"},{"entryId":"#1","status":"DROP"}]}"##,
        ["drop", "success"],
    );
    check(r##"{"Statuses":[{"EntryID":"#1","STATUS":"SUCCESS","more":[{}]}],"more":1}"##, ["success", "failed"]);
    check(r##"{"statuses":[{"entryId":"#3","status":"SUCCESS"},{"entryId":"x"},{"status":"DROP"}]}"##, ["failed"; 2]);
    check(
        r##"{"statuses":[{"entryId":"#1","status":"SUCCESS"},{"entryId":"#1","status":"RETRY"}]}"##,
        ["retry", "failed"],
    );
    check(r##"{"statuses":[{"entryId":"#1","status":"SUCCESS"}]} and more"##, ["success", "failed"]);
    check(r#"{"statuses":[]}"#, ["failed"; 2]);
    check(r#"{"statuses":null}"#, ["failed"; 2]);
    check(r#"{"status":"SUCCESS"}"#, ["failed"; 2]);
    check("{}", ["failed"; 2]);
}

/// The opposite of what holds for a single event.
#[test]
fn an_answer_without_a_list_fails_all() {
    for body in ["", "ok", "\"SUCCESS\"", "[]", "5", "null", r#"{"statuses":{}}"#, r#"{"statuses":["SUCCESS"]}"#, "{"] {
        assert!(matches!(outcomes(200, body), Err(HandlerError::Failed(_))), "{body}");
    }
    let wrong = r##"{"statuses":[{"entryId":"#1","status":"SUCCESS"},{"entryId":"#2","status":5}]}"##;
    assert!(matches!(outcomes(200, wrong), Err(HandlerError::Failed(_))));
    let cut = interpret(&reply(200, r#"{"statuses":["#, true), &[entry(1, "{}", &[], 1)]);
    assert_eq!(cut, Err(too_large()));
}

#[test]
fn other_statuses() {
    for status in [301, 400, 404, 429, 500, 503] {
        assert_eq!(outcomes(status, r#"{"statuses":[]}"#), Err(HandlerError::Status(status)));
    }
}
