//! What is put around a message: sections 4.1 to 4.4 of pubsub-behaviour.
//!
//! | rows | proved by |
//! |---|---|
//! | 4.1 all attributes but those below | every scene; `subject`: scene `cloud event overrides by query` |
//! | 4.1, 4.3, 4.4 `expiration` | `delivery::expiry` |
//! | 4.2 each content type, JSON, text and bytes | scenes `json bodies`, `content types, ...` |
//! | 4.3 what is missing, what is overwritten, what is kept | scenes `cloud events`, `cloud events, content type variants` |
//! | 4.3 overrides have no effect | scene `cloud event overrides by query` |
//! | 4.4 | scenes `raw payload to a raw subscription`, `publish metadata`, `traces` |

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::rows::{ANY, EVENT, NULL, Row, check, post, publish};
use crate::harness::app::App;
use crate::harness::{http, resource, run};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A message in Protocol Buffers that is an event: id, source, specversion and type.
const PROTOBUF_EVENT: &[u8] = b"\x0a\x011\x12\x01s\x1a\x031.0\x22\x01t";

/// A subscription that is raw, besides one that is not; a component whose topics have a prefix at the broker.
fn check_all(rows: &[Row]) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let raw = resource::subscription("bus", "raw", "/raw", None) + "  metadata: {rawPayload: \"true\"}\n";
        let spaced = resource::component("spaced", "pubsub.in-memory", &[("consumerID", "{namespace}")]);
        let plan = plan.resource(raw)?.resource(spaced + &resource::subscription("spaced", "t", "/spaced", None))?;
        let host = plan.env("NAMESPACE", "space").app(&app).start().await?;
        check(&host, &app, rows).await
    })
}

#[test]
fn attributes_and_data() -> Result<()> {
    let row = |kind: &str, body: &[u8]| publish("4.2", "").sends(kind, body);
    let octets = |kind: &str, body: &[u8], encoded: &str| {
        row(kind, body).comes("/in", json!({"data_base64": encoded, "datacontenttype": kind, "data": null}))
    };
    let text = |kind: &str, body: &str| {
        row(kind, body.as_bytes()).comes("/in", json!({"data": body, "datacontenttype": kind, "data_base64": null}))
    };
    let protobuf = "CgExEgFzGgMxLjAiAXQ=";
    check_all(&[
        post("4.1", "/v1.0/publish/spaced/t").json("1").comes("/spaced", json!({"topic": "t", "pubsubname": "spaced"})),
        publish("4.1", "").comes("/in", json!({"subject": null, "expiration": null, "tracestate": "", "traceid": ""})),
        publish("4.1", "").json("\"<&>\"").differs("4.1 escapes").comes("/in", json!({"data": "<&>"})).holding("<&>"),
        octets("application/cloudevents+protobuf", b"\xff", "/w=="),
        octets("application/x-protobuf", PROTOBUF_EVENT, protobuf),
        octets("Application/Octet-Stream; x=y", b"a", "YQ=="),
        text("application/x-protobuf", "not one"),
        text("application/problem+json; charset=utf-8", "{}"),
        text("application/jsonp", "{}"),
        text("text/plain", ""),
        // Numbers are as they were written.
        publish("4.2", "")
            .json("0.10000000000000000555")
            .comes("/in", json!({"id": ANY}))
            .holding("0.10000000000000000555"),
        publish("4.2", "").json("[1.10,1E3,-0.0]").comes("/in", json!({"id": ANY})).holding("[1.10,1E3,-0.0]"),
        publish("4.2", "").json("{\"a\":1}{\"a\":2}").comes("/in", json!({"data": {"a": 1}})),
        publish("4.2", "").json("  ").comes("/in", json!({"data": "  ", "datacontenttype": "application/json"})),
    ])
}

#[test]
fn events_that_are_given() -> Result<()> {
    let row = |event: &str| publish("4.3", "").event(event);
    let refused = |event: &str| row(event).refused(500, "ERR_PUBSUB_CLOUD_EVENTS_SER");
    let traced = |event: &str| row(event).with("traceparent", TRACE).with("tracestate", "a=b");
    check_all(&[
        refused("null"),
        refused("[{}]"),
        refused("true"),
        row("{\"id\":\"1\"} and more").comes("/in", json!({"id": "1"})),
        row("{\"id\":\"1\"}{\"id\":\"2\"}").comes("/in", json!({"id": "1"})),
        row(r#"{"source":null,"type":null,"specversion":null,"id":null,"time":null}"#).comes(
            "/in",
            json!({"source": "Dapr", "type": "com.dapr.event.sent", "specversion": "1.0", "id": NULL, "time": NULL}),
        ),
        row("{}").comes("/in", json!({"id": null, "datacontenttype": null, "data": null, "time": ANY})),
        row(r#"{"data":1152921504606846977,"x":0.10000000000000000555}"#)
            .comes("/in", json!({"topic": "t", "pubsubname": "bus"}))
            .holding("1152921504606846977")
            .holding("0.10000000000000000555"),
        row(r#"{"topic":5,"pubsubname":null}"#).comes("/in", json!({"topic": "t", "pubsubname": "bus"})),
        row(r#"{"data":1,"data_base64":"AA=="}"#).comes("/in", json!({"data": 1, "data_base64": "AA=="})),
        // The trace of the request, unless the event has one.
        traced("{}").comes("/in", json!({"traceid": TRACE, "traceparent": TRACE, "tracestate": "a=b"})),
        traced(r#"{"tracestate":"own"}"#).comes("/in", json!({"traceid": TRACE, "tracestate": "own"})),
        traced(r#"{"traceid":"own"}"#)
            .comes("/in", json!({"traceid": "own", "traceparent": null, "tracestate": "a=b"})),
        traced(r#"{"traceparent":"own"}"#).comes("/in", json!({"traceid": TRACE, "traceparent": TRACE})),
        traced(r#"{"traceid":"i","traceparent":"p"}"#).comes("/in", json!({"traceid": "i", "traceparent": "p"})),
        // One that is no text breaks nothing.
        row(r#"{"traceid":5}"#).comes("/in", json!({"traceid": 5})),
        row(r#"{"traceid":true,"traceparent":{"a":1}}"#)
            .comes("/in", json!({"traceid": true, "traceparent": {"a": 1}})),
        row(r#"{"traceid":{},"tracestate":[1]}"#).comes("/in", json!({"traceid": {}, "tracestate": [1]})),
        row(r#"{"traceid":null}"#).comes("/in", json!({"traceid": NULL})),
        publish("4.3", "").json("1").comes("/in", json!({"data": 1})),
    ])
}

#[test]
fn raw_payload() -> Result<()> {
    let raw = |query: &str| post("4.4", format!("/v1.0/publish/bus/raw?metadata.rawPayload=true{query}"));
    let synthetic = json!({
        "data_base64": "aGk=", "datacontenttype": "application/octet-stream", "source": "Dapr", "topic": "raw",
        "type": "com.dapr.event.sent", "specversion": "1.0", "id": ANY, "time": null, "traceid": null,
        "traceparent": null, "tracestate": null, "expiration": null,
    });
    check_all(&[
        raw("").sends("text/plain", "hi").comes("/raw", synthetic.clone()),
        raw("&metadata.ttlInSeconds=60").sends("text/plain", "hi").comes("/raw", synthetic.clone()),
        raw("").sends("text/plain", "hi").with("traceparent", TRACE).comes("/raw", synthetic),
        raw("").sends(EVENT, "no event").comes("/raw", json!({"data_base64": "bm8gZXZlbnQ="})),
        raw("").comes("/raw", json!({"data_base64": ""})),
    ])
}

/// The members stand in alphabetical order, and the time is that of the publish, in whole seconds.
#[test]
fn order_and_time() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        let begun = chrono::Utc::now();
        http::publish_ok(host.http()?, "bus/t?metadata.cloudevent.subject=s&metadata.ttl=60", "1").await?;
        let seen = app.wait_for(1, "/in").await?;
        let (body, event) = (String::from_utf8_lossy(&seen[0].body), seen[0].event()?);
        let names = event.as_object().context("an event")?.keys().cloned().collect::<std::collections::BTreeSet<_>>();
        let places = names.iter().map(|name| body.find(&format!("\"{name}\":"))).collect::<Vec<_>>();
        ensure!(names.len() == 14 && places.is_sorted(), "row 4.1: the order of {body}");
        let text = event["time"].as_str().context("time")?;
        let time = chrono::DateTime::parse_from_rfc3339(text)?.to_utc();
        let around = (time - begun).num_seconds().abs();
        ensure!(around <= 20 && !text.contains('.'), "row 4.1: {text}, and it began at {begun}");
        ensure!(event["expiration"].as_str().is_some_and(|at| at.ends_with('Z')), "row 4.1: {body}");
        ensure!(event["data"] == 1, "{body}");
        Ok(())
    })
}
