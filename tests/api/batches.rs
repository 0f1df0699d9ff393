//! What a batch is and what comes in it (pubsub-behaviour 6.3). Every entry has its own outcome: `statuses`.
//!
//! | row | where else |
//! |---|---|
//! | 6.3 full, in time, one by one with in-memory, raw entries, programmatic | delivery/batches |
//! | 6.3 the part that waits goes at a stop | delivery/batches |
//! | 6.3 the request, to the field, with in-memory | the scenes `bulk subscribe` (golden) |
//! | 6.3 `BULK_SUBSCRIBE_IMMEDIATE` | no adapter has it |
//! | 6.3 no route, sent to the empty path | a difference that is meant: see `better` |

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::tally::Tally;
use crate::harness::app::{App, Reply, Seen};
use crate::harness::{http, resource, run};

fn event(id: &str, kind: &str, more: &Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "s", "type": kind, "data": id});
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    event
}

async fn publish_events(at: std::net::SocketAddr, place: &str, events: &[Value]) -> Result<()> {
    let entries = events.iter().enumerate().map(|(number, event)| {
        json!({"entryId": format!("mine-{number}"), "event": event, "contentType": "application/cloudevents+json"})
    });
    let body = Value::from_iter(entries).to_string();
    let headers = [("content-type", "application/json")];
    let path = format!("/v1.0/publish/bulk/{place}");
    let answer = http::send(at, "POST", &path, &headers, body.as_bytes()).await?;
    ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
    Ok(())
}

fn data(seen: &Seen) -> Result<BTreeSet<String>> {
    seen.batch()?.iter().map(|data| Ok(data.as_str().context("a text")?.to_owned())).collect()
}

/// Of one batch: each route gets its own request, and the app never sees what is not fit for it.
#[test]
fn what_comes_in_one() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        for path in ["/gold", "/silver"] {
            app.plan(path, [Reply::Each("SUCCESS".into())]);
        }
        let routed = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s}\nspec:\n  pubsubname: bus\n  \
                      topic: t\n  deadLetterTopic: dead\n  routes:\n    rules:\n    - {match: event.type == \"gold\", path: /gold}\n    \
                      - {match: event.type == \"silver\", path: /silver}\n    - {match: event.type == \"odd\" && event.data / 0 == 1, path: /odd}\n  \
                      bulkSubscribe: {enabled: true, maxMessagesCount: 8, maxAwaitDurationMs: 60000}\n";
        let dead = resource::subscription("bus", "dead", "/dead", None) + "  metadata: {rawPayload: \"true\"}\n";
        let plan = test.host("me")?.resource(resource::queue("bus"))?.resource(routed)?.resource(dead)?;
        let host = plan.app(&app).start().await?;
        let at = host.http()?;
        let garbage = "/v1.0/publish/bus/t?metadata.rawPayload=true";
        ensure!(http::send(at, "POST", garbage, &[], b"no event").await?.status == 204);
        let late = json!({"expiration": "2001-01-01T00:00:00Z"});
        let events = [
            event("g1", "gold", &json!({})),
            event("s1", "silver", &json!({})),
            event("late", "gold", &late),
            event("g2", "gold", &json!({})),
            event("none", "bronze", &json!({})),
            event("odd", "odd", &json!({"data": 1})),
            event("s2", "silver", &json!({})),
        ];
        publish_events(at, "bus/t", &events).await?;
        let mut rows = Tally::default();
        let (gold, silver) = (app.wait_for(1, "/gold").await?, app.wait_for(1, "/silver").await?);
        let set = |texts: [&str; 2]| BTreeSet::from(texts.map(str::to_owned));
        rows.check("6.3 one request for each route: /gold", data(&gold[0])?, set(["g1", "g2"]));
        rows.check("6.3 one request for each route: /silver", data(&silver[0])?, set(["s1", "s2"]));
        check_request(&mut rows, &gold[0])?;
        let letters = app.wait_for(4, "/dead").await?.iter().map(letter).collect::<Result<BTreeSet<_>>>()?;
        let expected = ["no event", "late", "none", "odd"].map(str::to_owned);
        rows.check("6.3 no event, late, without a route, with a rule that fails", letters, BTreeSet::from(expected));
        rows.check("6.3 nothing else comes", app.seen().len(), 6);
        rows.end()
    })
}

/// What a dead letter was: the id of its event, or its text.
fn letter(seen: &Seen) -> Result<String> {
    let bytes = STANDARD.decode(seen.event()?["data_base64"].as_str().context("raw bytes")?)?;
    let event: Option<Value> = serde_json::from_slice(&bytes).ok();
    let id = event.as_ref().and_then(|event| event["id"].as_str());
    Ok(id.map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned))
}

fn check_request(rows: &mut Tally, seen: &Seen) -> Result<()> {
    let batch = seen.event()?;
    let names = |value: &Value| -> Vec<String> {
        let mut names: Vec<_> = value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect();
        names.sort();
        names
    };
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    rows.check("6.3 the content type", header("content-type"), Some("application/json"));
    rows.check("6.3 the header pubsubname", header("pubsubname"), Some("bus"));
    rows.check(
        "6.3 members",
        names(&batch),
        ["entries", "id", "metadata", "pubsubname", "topic", "type"].map(str::to_owned).into(),
    );
    rows.check("6.3 type", &batch["type"], &json!("com.dapr.event.sent.bulk"));
    rows.check("6.3 topic", &batch["topic"], &json!("t"));
    rows.check("6.3 pubsubname", &batch["pubsubname"], &json!("bus"));
    rows.check("6.3 metadata", &batch["metadata"], &json!({"pubsubName": "bus"}));
    rows.check("6.3 id", batch["id"].as_str().map(str::len), Some(36));
    let entry = &batch["entries"][0];
    rows.check(
        "6.3 members of an entry",
        names(entry),
        ["contentType", "entryId", "event", "metadata"].map(str::to_owned).into(),
    );
    rows.check("6.3 entryId is ours", entry["entryId"].as_str().map(str::len), Some(36));
    rows.check("6.3 contentType", &entry["contentType"], &json!("application/cloudevents+json"));
    rows.check("6.3 event", &entry["event"]["type"], &json!("gold"));
    Ok(())
}

/// Of the two bounds each is tried alone, and the other is out of reach.
#[test]
fn how_many_and_how_long_by_default() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let mut plan = test.host("me")?.resource(resource::queue("bus"))?;
        let bounds = [("many", "maxAwaitDurationMs: 60000, maxMessagesCount: 0"), ("long", "maxAwaitDurationMs: 0")];
        for (topic, bound) in bounds {
            let bulk = format!("  bulkSubscribe: {{enabled: true, {bound}}}\n");
            plan = plan.resource(resource::subscription("bus", topic, &format!("/{topic}"), None) + &bulk)?;
            app.plan(&format!("/{topic}"), [Reply::Each("SUCCESS".into())]);
        }
        let host = plan.app(&app).start().await?;
        let events: Vec<Value> = (0..100).map(|n| event(&n.to_string(), "x", &json!({}))).collect();
        let begun = Instant::now();
        publish_events(host.http()?, "bus/long", &events[..2]).await?;
        publish_events(host.http()?, "bus/many", &events).await?;
        let mut rows = Tally::default();
        rows.check("6.3 maxMessagesCount", app.wait_for(1, "/many").await?[0].batch()?.len(), 100);
        rows.check("6.3 both came in one", app.wait_for(1, "/long").await?[0].batch()?.len(), 2);
        rows.check("6.3 maxAwaitDurationMs", begun.elapsed() >= Duration::from_millis(990), true);
        rows.end()
    })
}
