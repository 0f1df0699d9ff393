//! Publishing several messages: section 2 of pubsub-behaviour.
//!
//! | rows | proved by |
//! |---|---|
//! | 2 both paths, both methods, the content type of the request, ids, `rawPayload` | scene `bulk publish` |
//! | 2 what is no list, no entry, no text | scene `bulk publish` |
//! | 2.1 scopes; unknown components | scenes `scopes`, `no component at all` |
//! | 2.2 only what failed is sent again | unit tests of `pubsub::publish` |
//!
//! Not to be told apart over HTTP: `maxBulkPubBytes`; how many entries are under way at the same time; a component that
//! vanishes within a request.

use anyhow::Result;
use serde_json::{Value, json};

use super::rows::{ANY, Row, bulk, check, post};
use crate::harness::app::App;
use crate::harness::{resource, run};

const ENTRIES: &str = "ERR_PUBSUB_EVENTS_SER";
const MISMATCH: &str = "error: mismatch between contentType and event";

/// `bus` is Dapr's in-memory broker, `box` carries metadata and takes no more than 3000 bytes.
fn check_all(rows: &[Row]) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let small = [("mode", "queue"), ("maxQueueBytes", "3000")];
        let plan = plan.resource(resource::component("box", "pubsub.in-memory", &small))?;
        let plan = plan.resource(resource::subscription("box", "t", "/box", None))?;
        let host = plan.app(&app).start().await?;
        check(&host, &app, rows).await
    })
}

/// An entry of this content type, with an event that is written as JSON.
fn entry(kind: &str, event: &str) -> Row {
    bulk("2", "", &format!(r#"[{{"entryId":"1","event":{event},"contentType":"{kind}"}}]"#))
}

fn mismatch(kind: &str, event: &str) -> Row {
    entry(kind, event)
        .refused(400, ENTRIES)
        .tells(MISMATCH)
        .answers("/details/1/reason", "DAPR_PUBSUB_MARSHAL_ENVELOPE")
}

#[test]
fn entries_are_read_leniently_and_events_by_their_content_type() -> Result<()> {
    let data = |kind: &str, event: &str, data: Value| {
        entry(kind, event).comes("/in", json!({"data": data, "datacontenttype": kind}))
    };
    let named =
        |entry: &str| bulk("2", "", entry).comes("/in", json!({"data": 1, "datacontenttype": "application/json"}));
    check_all(&[
        // Names in any case, unknown ones, nothing where there may be nothing.
        named(r#"[{"ENTRYID":"1","Event":1,"contenttype":"application/json"}]"#),
        named(r#"[{"entryId":"1","event":1,"contentType":"application/json","colour":"red","metadata":null}]"#),
        bulk("2", "", "null"),
        // Conversions.
        data("text/html", r#""<b>""#, json!("<b>")),
        data("TEXT/plain; charset=utf-8", r#""a\nb""#, json!("a\nb")),
        data("application/xml", r#""<a/>""#, json!("<a/>")),
        data("application/json; charset=utf-8", r#"{"a":[1,null]}"#, json!({"a": [1, null]})),
        data("Application/JSON", r#""text""#, json!("text")),
        entry("application/octet-stream", r#""AP8=""#).comes("/in", json!({"data_base64": "AP8=", "data": null})),
        entry("application/cloudevents+json; charset=utf-8", r#"{"id":"x"}"#).comes("/in", json!({"id": "x"})),
        // Mismatches.
        mismatch("text/plain", "1"),
        mismatch("text/html", "null"),
        mismatch("application/xml", "{}"),
        mismatch("application/octet-stream", "[1]"),
        mismatch("", r#""x""#),
        mismatch("image/png", r#""AAEC""#),
        mismatch("application/vnd.api+json", "{}"),
        mismatch("application/cloudevents-batch+json", "[]"),
        entry("application/octet-stream", r#""***""#).refused(400, ENTRIES).tells("illegal base64 data"),
        entry("application/json", r#"{"n":9007199254740993}"#)
            .differs("2 large integers")
            .comes("/in", json!({"id": ANY}))
            .holding("9007199254740993"),
    ])
}

fn many(count: usize) -> String {
    let entry = |number: usize| format!(r#"{{"entryId":"{number}","event":1,"contentType":"application/json"}}"#);
    format!("[{}]", (0..count).map(entry).collect::<Vec<_>>().join(","))
}

/// One that is wrong, at the end, keeps all of them from being published.
#[test]
fn nothing_is_published_where_one_is_wrong() -> Result<()> {
    let with = |section: &'static str, wrong: &str| {
        let sound = r#"{"entryId":"1","event":1,"contentType":"application/json"}"#;
        bulk(section, "", &format!("[{sound},{wrong}]"))
    };
    let event = |event: &str| {
        with("2", &format!(r#"{{"entryId":"2","event":{event},"contentType":"application/cloudevents+json"}}"#))
            .refused(500, "ERR_PUBSUB_CLOUD_EVENTS_SER")
            .answers("/message", "cannot create cloudevent")
            .answers("/details/1/metadata/appID", "me")
    };
    let row = |wrong: &str, reason: &str| with("2", wrong).refused(400, ENTRIES).answers("/details/1/reason", reason);
    let first = |entries: &str| bulk("2", "", entries).refused(400, ENTRIES);
    check_all(&[
        row(r#"{"entryId":"1","event":1,"contentType":"application/json"}"#, "DAPR_PUBSUB_MARSHAL_EVENTS"),
        row(r#"{"event":1,"contentType":"application/json"}"#, "DAPR_PUBSUB_MARSHAL_EVENTS"),
        row(r#"{"entryId":"2","event":1,"contentType":"text/plain"}"#, "DAPR_PUBSUB_MARSHAL_ENVELOPE"),
        row(r#"{"entryId":2,"event":1,"contentType":"application/json"}"#, "DAPR_PUBSUB_UNMARSHAL_EVENTS"),
        row("5", "DAPR_PUBSUB_UNMARSHAL_EVENTS"),
        event("[]"),
        event("null"),
        event(r#""x""#),
        // The first that is wrong is told.
        first(r#"[{"entryId":"1","event":1,"contentType":"a/b"},{"event":1}]"#).tells(MISMATCH),
        with("2", "").status(400).tells("ERR_PUBSUB_EVENTS_SER"),
        bulk("2", "", &many(10_001))
            .differs("2 number of entries")
            .refused(400, ENTRIES)
            .tells("more than 10000 entries"),
        bulk("2", "?metadata.rawPayload=maybe", "[]").refused(400, "ERR_PUBSUB_REQUEST_METADATA"),
    ])
}

/// What the request says reaches only entries that say something themselves, and what they say goes before.
#[test]
fn metadata_is_merged_into_entries_that_have_their_own() -> Result<()> {
    let row = |query: &str, metadata: &str| {
        let own = format!(r#"{{"entryId":"1","event":1,"contentType":"application/json","metadata":{metadata}}}"#);
        bulk("2", query, &format!(r#"[{own},{{"entryId":"2","event":2,"contentType":"application/json"}}]"#))
    };
    let kinds = |row: Row, first: &str| {
        let row = row.comes("/in", json!({"data": 1, "type": first}));
        row.comes("/in", json!({"data": 2, "type": "com.dapr.event.sent"}))
    };
    let boxed = |query: &str, metadata: &str| {
        let entry = format!(r#"[{{"entryId":"1","event":1,"contentType":"application/json","metadata":{metadata}}}]"#);
        post("2", format!("/v1.0/publish/bulk/box/t{query}")).json(&entry).comes("/box", json!({"data": 1}))
    };
    check_all(&[
        kinds(row("?metadata.cloudevent.type=request", r#"{"k":"v"}"#), "request"),
        kinds(row("?metadata.cloudevent.type=request", r#"{"cloudevent.type":"own"}"#), "own"),
        kinds(row("?metadata.cloudevent.type=request", "null"), "com.dapr.event.sent"),
        row("?metadata.ttlInSeconds=60", "{}")
            .comes("/in", json!({"data": 1, "expiration": ANY}))
            .comes("/in", json!({"data": 2, "expiration": null})),
        row("", r#"{"ttlInSeconds":"0"}"#).comes("/in", json!({"data": 2})),
        row("", r#"{"rawPayload":"maybe"}"#).comes("/in", json!({"data": 1})).comes("/in", json!({"data": 2})),
        boxed("?metadata.x-both=request&metadata.x-one=request", r#"{"x-both":"own"}"#)
            .under("x-both", Some("own"))
            .under("x-one", Some("request")),
    ])
}

/// Each entry has an answer of its own: what could be published is.
#[test]
fn what_failed_is_named_and_the_rest_is_published() -> Result<()> {
    let large = "x".repeat(6000);
    let entries = format!(
        r#"[{{"entryId":"one","event":"1","contentType":"text/plain"}},
            {{"entryId":"two","event":"{large}","contentType":"text/plain"}},
            {{"entryId":"three","event":"3","contentType":"text/plain"}}]"#
    );
    let row = || {
        let row = post("2.1", "/v1.0/publish/bulk/box/t").json(&entries).refused(500, "ERR_PUBSUB_PUBLISH_MESSAGE");
        row.comes("/box", json!({"data": "1"})).comes("/box", json!({"data": "3"}))
    };
    check_all(&[
        row().answers("/failedEntries/0/entryId", "two").answers("/failedEntries/0/error", ANY),
        row()
            .answers("/failedEntries/1", Value::Null)
            .answers("/message", Value::Null)
            .answers("/details", Value::Null),
        row().differs("2.1 headers of failures").answers("metadata.error", Value::Null),
    ])
}
