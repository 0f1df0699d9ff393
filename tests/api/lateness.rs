//! Events that come too late (pubsub-behaviour 6.6): what counts as an expiration, and what becomes of what has expired.
//!
//! | row | where else |
//! |---|---|
//! | 11.1, all of it | delivery/expiry |
//! | 6.6, what waited too long at Redis; at a broker that knows a time to live | delivery/expiry |
//! | 6.6, in a batch among others | batches |

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::tally::Tally;
use crate::harness::app::{App, Reply, Seen};
use crate::harness::host::Host;
use crate::harness::{http, resource, run, until};

/// An event's `expiration`, and whether it is too late for the event.
fn expirations() -> Vec<(&'static str, Value, bool)> {
    vec![
        ("6.6 past", json!("2001-01-01T00:00:00Z"), true),
        ("6.6 past, with a fraction", json!("2001-01-01T00:00:00.123456789Z"), true),
        ("6.6 past, of another zone", json!("2001-01-01T00:00:00+09:30"), true),
        ("6.6 future", json!("2999-01-01T00:00:00Z"), false),
        ("6.6 future, of another zone", json!("2999-01-01T00:00:00-08:00"), false),
        ("6.6 empty", json!(""), false),
        ("6.6 no time", json!("soon"), false),
        ("6.6 a day", json!("2001-01-01"), false),
        ("6.6 without a zone", json!("2001-01-01T00:00:00"), false),
        ("6.6 with a blank for the T", json!("2001-01-01 00:00:00Z"), false),
        ("6.6 with a small T", json!("2001-01-01t00:00:00Z"), false),
        ("6.6 with a small Z", json!("2001-01-01T00:00:00z"), false),
        ("6.6 seconds", json!("978307200"), false),
        ("6.6 a number", json!(978_307_200), false),
        ("6.6 a day that never was", json!("2001-02-30T00:00:00Z"), false),
        ("6.6 no day at all", json!("2001-13-01T00:00:00Z"), false),
    ]
}

async fn publish(host: &Host, place: &str, id: &str, expiration: Option<&Value>) -> Result<()> {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "s", "type": "t", "data": id});
    if let Some(expiration) = expiration {
        event["expiration"] = expiration.clone();
    }
    let headers = [("content-type", "application/cloudevents+json")];
    let path = format!("/v1.0/publish/{place}");
    let answer = http::send(host.http()?, "POST", &path, &headers, event.to_string().as_bytes()).await?;
    ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
    Ok(())
}

/// The `data` of an event, of one in a batch, or of one that came as bytes.
fn ids(seen: &Seen) -> Result<Vec<String>> {
    let event = seen.event()?;
    let of = |event: &Value| event["data"].as_str().map(str::to_owned).context("a text");
    if let Some(bytes) = event["data_base64"].as_str() {
        return Ok(vec![of(&serde_json::from_slice(&STANDARD.decode(bytes)?)?)?]);
    }
    match event["entries"].as_array() {
        Some(entries) => entries.iter().map(|entry| of(&entry["event"])).collect(),
        None => Ok(vec![of(&event)?]),
    }
}

fn all_ids(app: &App, path: &str) -> Result<BTreeSet<String>> {
    Ok(app.seen_on(path).iter().map(ids).collect::<Result<Vec<_>>>()?.concat().into_iter().collect())
}

/// Delivered or dead-lettered, one by one and in batches.
#[test]
fn what_expires_and_when() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/batch", [Reply::Each("SUCCESS".into())]);
        let mut plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        for (topic, more) in [("one", ""), ("batch", "  bulkSubscribe: {enabled: true, maxAwaitDurationMs: 1}\n")] {
            let dead = format!("dead-{topic}");
            plan = plan
                .resource(resource::subscription("bus", topic, &format!("/{topic}"), Some(&dead)) + more)?
                .resource(
                    // As bytes, or it would have expired there, too.
                    resource::subscription("bus", &dead, &format!("/{dead}"), None)
                        + "  metadata: {rawPayload: \"true\"}\n",
                )?;
        }
        let host = plan.app(&app).start().await?;
        let mut rows = Tally::default();
        for topic in ["one", "batch"] {
            for (row, expiration, _) in expirations() {
                publish(&host, &format!("bus/{topic}"), row, Some(&expiration)).await?;
            }
            // The broker takes a message when the one before it is done with.
            for last in [topic, topic, &format!("dead-{topic}")] {
                publish(&host, &format!("bus/{last}"), "last", None).await?;
            }
            let delivered = all_ids(&app, &format!("/{topic}"))?;
            let dead = all_ids(&app, &format!("/dead-{topic}"))?;
            for (row, _, late) in expirations() {
                let found = (delivered.contains(row), dead.contains(row));
                rows.check(&format!("{row}, {topic}: delivered, dead-lettered"), found, (!late, late));
            }
        }
        rows.end()
    })
}

/// Acknowledged in any case: without a dead-letter topic, and with one that takes nothing.
#[test]
fn what_has_expired_never_comes_again() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let closed =
            resource::component("bus", "pubsub.in-memory", &[("mode", "queue"), ("publishingScopes", "me=t,u")]);
        let plan = test.host("me")?.resource(closed)?;
        let plan = plan.resource(resource::subscription("bus", "t", "/t", None))?;
        let host = plan.resource(resource::subscription("bus", "u", "/u", Some("dead")))?.app(&app).start().await?;
        for topic in ["bus/t", "bus/u"] {
            publish(&host, topic, "late", Some(&json!("2001-01-01T00:00:00Z"))).await?;
            publish(&host, topic, "last", None).await?;
        }
        app.wait_for(1, "/t").await?;
        app.wait_for(1, "/u").await?;
        let said = async |what: &str, times: usize| {
            until(what, async || (host.log().ok()?.matches(what).count() == times).then_some(())).await
        };
        said("cannot be dead-lettered", 1).await?;
        said(" dropped ", 2).await?;
        ensure!(!host.log()?.contains("given back"), "6.6 it comes again: {}", host.log()?);
        ensure!(app.seen().len() == 2, "6.6 it was delivered");
        Ok(())
    })
}
