//! A row finds what is wrong: each expectation fails where it is not met.

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::harness::{resource, run};

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, headers: vec![("a".into(), "b".into())], body: body.to_owned().into() }
}

#[track_caller]
fn check_answer(row: &Row, answer: &Answer, faults: usize) {
    let found = row.check_answer(answer);
    assert_eq!(found.len(), faults, "{found:?}");
}

#[test]
fn answers() {
    let row = || post("0", "/").refused(400, "CODE").answers("a", "b").answers("c", Value::Null).tells("in it");
    check_answer(&row(), &answer(400, r#"{"errorCode":"CODE","text":"is in it"}"#), 0);
    check_answer(&row(), &answer(500, r#"{"errorCode":"CODE","text":"is in it"}"#), 1);
    check_answer(&row(), &answer(400, r#"{"errorCode":"OTHER","text":"is in it"}"#), 1);
    check_answer(&row(), &answer(400, r#"{"errorCode":"CODE"}"#), 1);
    check_answer(&row().answers("a", Value::Null), &answer(400, r#"{"errorCode":"CODE","text":"is in it"}"#), 1);
    check_answer(&row().answers("c", ANY), &answer(400, r#"{"errorCode":"CODE","text":"is in it"}"#), 1);
    check_answer(&post("0", "/"), &answer(204, ""), 0);
    check_answer(&post("0", "/"), &answer(204, "{}"), 1);
    check_answer(&post("0", "/").answers("/x", NULL), &answer(204, ""), 1);
}

fn seen(path: &str, body: &str) -> Seen {
    let headers = [("h".to_owned(), "1".to_owned())].into();
    let (method, path, body) = ("POST".to_owned(), path.to_owned(), body.to_owned().into());
    Seen { method, path, headers, body, at: Instant::now() }
}

#[track_caller]
fn check_arrivals(row: &Row, seen: &[Seen], sound: bool) {
    let found = row.check_arrivals(seen.to_vec());
    assert_eq!(found.is_empty(), sound, "{found:?}");
}

#[test]
fn arrivals() {
    let one = || post("0", "/").comes("/in", json!({"a": 1, "b": null, "c": NULL, "d": ANY}));
    let body = r#"{"a":1,"c":null,"d":2}"#;
    check_arrivals(&one(), &[seen("/in", body)], true);
    check_arrivals(&one(), &[], false);
    check_arrivals(&one(), &[seen("/out", body)], false);
    check_arrivals(&one(), &[seen("/in", body), seen("/in", body)], false);
    check_arrivals(&one(), &[seen("/in", r#"{"a":2,"c":null,"d":2}"#)], false);
    check_arrivals(&one(), &[seen("/in", r#"{"a":1,"b":1,"c":null,"d":2}"#)], false);
    check_arrivals(&one(), &[seen("/in", r#"{"a":1,"d":2}"#)], false);
    check_arrivals(&one(), &[seen("/in", r#"{"a":1,"c":null}"#)], false);
    check_arrivals(&one().holding("\"a\":1"), &[seen("/in", body)], true);
    check_arrivals(&one().holding("\"a\": 1"), &[seen("/in", body)], false);
    check_arrivals(&one().under("h", Some("1")).under("g", None), &[seen("/in", body)], true);
    check_arrivals(&one().under("h", None), &[seen("/in", body)], false);
    check_arrivals(&one().under("g", Some("1")), &[seen("/in", body)], false);
    let two = one().comes("/in", json!({"a": 2}));
    check_arrivals(&two, &[seen("/in", r#"{"a":2}"#), seen("/in", body)], true);
    check_arrivals(&two, &[seen("/in", body), seen("/in", body)], false);
}

#[test]
fn fences_are_known_in_any_disguise() {
    let encoded = STANDARD.encode(FENCE);
    assert!(is_fence(&seen("/", FENCE)) && !is_fence(&seen("/", "{}")));
    assert!(is_fence(&seen("/", &json!({"data_base64": encoded}).to_string())));
    assert!(is_fence(&seen("/", &json!({"entries": [{"event": encoded}]}).to_string())));
}

/// What comes and is not expected is found at once, and told with the row.
#[test]
fn what_comes_unexpected_is_found() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        check(&host, &app, &[publish("0", "").json("1").comes("/in", json!({"data": 1}))]).await?;
        let Err(error) = check(&host, &app, &[publish("7.7", "").json("1")]).await else { bail!("nothing was found") };
        let told = error.to_string();
        anyhow::ensure!(
            told.contains("row 7.7, POST /v1.0/publish/bus/t") && told.contains("unexpected to /in"),
            "{told}"
        );
        Ok(())
    })
}
