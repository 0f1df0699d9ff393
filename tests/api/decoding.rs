//! What is taken off a message: section 4.5 of pubsub-behaviour.
//!
//! | rows | proved by |
//! |---|---|
//! | raw subscriptions to what was wrapped and what was not | scene `raw payload to a raw subscription` |
//! | raw bytes to other subscriptions | scenes `publish metadata`, `raw payload to a raw subscription` |
//! | what is no event is dead-lettered as it is | `delivery::dead_letter` |
//! | batches of raw bytes | `delivery::batches` |

use anyhow::{Result, ensure};
use serde_json::json;

use super::rows::{ANY, Row, check, post};
use crate::harness::app::{App, Reply};
use crate::harness::{http, resource, run};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const RAW: &str = "  metadata: {rawPayload: \"true\"}\n";

/// By attributes that only metadata can have brought.
const RULES: &str = r#"
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: rules}
spec:
  pubsubname: box
  topic: t
  routes:
    rules:
    - {match: "has(event.level) && event.level == '5' && event.type == 'gold'", path: /binary}
    - {match: "has(event.data_base64) && event.data_base64 == 'aGk='", path: /data}
    - {match: "has(event.traceparent) && event.traceparent.startsWith('00-0af')", path: /traced}
    default: /in
"#;

/// `bus` is Dapr's in-memory broker, `box` carries metadata.
fn check_all(rows: &[Row]) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", Some("dead")))?;
        let maybe = resource::subscription("bus", "maybe", "/maybe", Some("dead"));
        let plan = plan.resource(maybe + "  metadata: {rawPayload: \"maybe\"}\n")?;
        let plan = plan.resource(resource::subscription("bus", "dead", "/dead", None) + RAW)?;
        let plan = plan.resource(resource::queue("box") + "---" + RULES)?;
        let plan = plan.resource(resource::subscription("box", "raw", "/raw", None) + RAW)?;
        let host = plan.app(&app).start().await?;
        check(&host, &app, rows).await
    })
}

#[test]
fn raw_subscriptions() -> Result<()> {
    let row = |query: &str| post("4.5.1", format!("/v1.0/publish/box/raw?metadata.rawPayload=true{query}"));
    let maybe = post("4.5", "/v1.0/publish/bus/maybe");
    check_all(&[
        row("&metadata.traceparent=p&metadata.tracestate=a=b")
            .comes("/raw", json!({"traceid": "p", "traceparent": "p", "tracestate": "a=b", "time": null})),
        row("&metadata.traceid=i").comes("/raw", json!({"traceid": "i", "traceparent": null, "tracestate": null})),
        row("&metadata.traceid=i&metadata.TraceParent=p").comes("/raw", json!({"traceid": "p", "traceparent": "p"})),
        row("").comes("/raw", json!({"data_base64": "", "id": ANY, "traceid": null})),
        // A setting that is no boolean makes every message fail.
        maybe.clone().json("1").comes("/dead", json!({"data_base64": ANY, "topic": "dead"})),
        maybe.sends("text/plain", "x").comes("/dead", json!({"topic": "dead"})),
    ])
}

#[test]
fn events_in_binary_mode() -> Result<()> {
    let row = |query: &str| {
        let query = format!("?metadata.rawPayload=true&metadata.content-type=application/octet-stream{query}");
        post("4.5.2", format!("/v1.0/publish/box/t{query}"))
    };
    check_all(&[
        row("&metadata.ce_type=gold&metadata.CE_Level=5")
            .sends("a/b", "any")
            .comes("/binary", json!({}))
            .holding("any"),
        row("&metadata.ce_type=gold").sends("a/b", "hi").comes("/data", json!({})).holding("hi"),
        row("").sends("a/b", "ho").comes("/in", json!({})).holding("ho"),
        row(&format!("&metadata.ce_traceparent={TRACE}"))
            .sends("a/b", "ho")
            .comes("/traced", json!({}))
            .under("traceparent", Some(TRACE)),
        row("&metadata.ce_expiration=2001-01-01T00:00:00Z").sends("a/b", "late"),
        row("&metadata.ce_expiration=2099-01-01T00:00:00Z")
            .sends("a/b", "soon")
            .comes("/in", json!({}))
            .holding("soon"),
    ])
}

#[test]
fn events_as_json() -> Result<()> {
    let row = |query: &str, body: &str| {
        post("4.5.3", format!("/v1.0/publish/box/t?metadata.rawPayload=true{query}")).sends("text/plain", body)
    };
    let traced = |body: &'static str| {
        row(&format!("&metadata.traceparent={TRACE}"), body)
            .comes("/traced", json!({}))
            .under("traceparent", Some(TRACE))
    };
    // As it was stored, in the data of an event of its own.
    let dead = |body: &str, encoded: &str| {
        let row = post("4.5.3", "/v1.0/publish/bus/t?metadata.rawPayload=true").sends("text/plain", body);
        row.comes("/dead", json!({"data_base64": encoded, "topic": "dead"}))
    };
    check_all(&[
        row("", " {\"a\" : 1} ").comes("/in", json!({"a": 1, "id": null, "traceid": null})).holding(" {\"a\" : 1} "),
        traced("{\"a\":1}").holding("{\"a\":1}"),
        row(&format!("&metadata.traceparent={TRACE}"), r#"{"traceparent":"own"}"#)
            .comes("/in", json!({"traceparent": "own", "traceid": null})),
        dead("[{}]", "W3t9XQ=="),
        dead("5", "NQ=="),
        dead("\"x\"", "Ingi"),
        dead("null", "bnVsbA=="),
        dead("{\"a\":1} x", "eyJhIjoxfSB4"),
        dead("", ""),
    ])
}

#[test]
fn a_raw_event_has_another_id_when_it_comes_again() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/raw", [Reply::status(500), Reply::ok()]);
        let plan = test.host("me")?.resource(resource::queue("box"))?;
        let plan = plan.resource(resource::subscription("box", "raw", "/raw", None) + RAW)?;
        let host = plan.app(&app).start().await?;
        http::publish_ok(host.http()?, "box/raw?metadata.rawPayload=true", "1").await?;
        let seen = app.wait_for(2, "/raw").await?;
        let (first, second) = (seen[0].event()?, seen[1].event()?);
        ensure!(first["data_base64"] == "MQ==" && second["data_base64"] == "MQ==", "row 4.5.1: {first}, {second}");
        ensure!(first["id"] != second["id"], "row 4.5.1: {first}, {second}");
        Ok(())
    })
}
