//! Order, copies and what a success means (pubsub-behaviour 11.2 to 11.4, and in-memory in 9).
//!
//! | row | where else |
//! |---|---|
//! | 11.1 time to live | delivery/expiry, lateness |
//! | 11.2 the order of publishing; publishers wait; `*` | delivery/modes, delivery/wildcards |
//! | 11.2 order per key, `orderPerKey` | delivery/policies, delivery/hosts |
//! | 11.3 metadata goes on to the broker, and to the app | requests; conformance, of each adapter |
//! | 11.4 which answers acknowledge | statuses, delivery/apps, delivery/dead_letter |
//! | 11.4 nothing is lost through restarts, reloads and stops | delivery/loss, delivery/shutdown, reload/under_load |
//! | 11.4 N retries are N+1 deliveries | resiliency |

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::tally::Tally;
use crate::harness::app::{App, Reply};
use crate::harness::{http, resource, run, until};

/// Dapr's in-memory broker: every subscription has a copy, whatever the others do with theirs, and what one refuses is gone.
#[test]
fn every_subscriber_has_a_copy() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/refuses", [Reply::status(500), Reply::ok()]);
        app.plan("/drops", [Reply::word("DROP")]);
        // They are one app's, and the broker's only group, if it knew any.
        let bus = resource::component("bus", "pubsub.in-memory", &[("consumerID", "shared")]);
        let mut plan = test.host("me")?.resource(bus)?;
        for (topic, path) in [("copied", "/takes"), ("cop*", "/refuses"), ("*", "/drops"), ("copied*", "/never")] {
            plan = plan.resource(resource::subscription("bus", topic, path, None))?;
        }
        let host = plan.app(&app).start().await?;
        for number in 1..=3 {
            http::publish_ok(host.http()?, "bus/copied", &number.to_string()).await?;
        }
        let mut rows = Tally::default();
        for path in ["/takes", "/refuses", "/drops"] {
            let seen = app.wait_for(3, path).await?;
            let numbers = seen.iter().map(|seen| seen.data()).collect::<Result<Vec<_>>>()?;
            rows.check(&format!("9 copies, in order: {path}"), numbers, vec![json!(1), json!(2), json!(3)]);
        }
        rows.check("9 the prefix itself is not matched", app.seen_on("/never").len(), 0);
        rows.end()
    })
}

/// An inbound retry keeps the next message waiting where messages go one by one.
#[test]
fn a_retry_keeps_the_order() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500), Reply::word("RETRY"), Reply::ok()]);
        let policies = resource::inbound("bus", "{retries: {r: {duration: 50ms, maxRetries: 5}}}", "{retry: r}");
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(policies)?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        for number in 1..=3 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        let seen = app.wait_for(5, "/in").await?;
        let order = seen.iter().map(|seen| seen.data()).collect::<Result<Vec<_>>>()?;
        ensure!(order == [1, 1, 1, 2, 3].map(Value::from), "11.2 {order:?}");
        Ok(())
    })
}

/// An event keeps its id when it comes again; of raw bytes each delivery makes another event.
#[test]
fn an_id_is_the_events() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::queue("bus"))?;
        let raw = "  metadata: {rawPayload: \"true\"}\n";
        let plan = plan.resource(resource::subscription("bus", "raw", "/raw", None) + raw)?;
        let host = plan.resource(resource::subscription("bus", "t", "/t", None))?.app(&app).start().await?;
        for (path, place) in [("/t", "bus/t"), ("/raw", "bus/raw?metadata.rawPayload=true")] {
            app.plan(path, [Reply::status(500), Reply::ok()]);
            http::publish_ok(host.http()?, place, "1").await?;
        }
        let mut rows = Tally::default();
        for (path, same) in [("/t", true), ("/raw", false)] {
            let seen = app.wait_for(2, path).await?;
            let id = |number: usize| anyhow::Ok(seen[number].event()?["id"].as_str().context("an id")?.to_owned());
            rows.check(&format!("11.4 the id is the same: {path}"), id(0)? == id(1)?, same);
        }
        rows.end()
    })
}

/// Metadata that some brokers read means nothing to the host: nothing is delayed, and nothing is taken for the same.
#[test]
fn nothing_is_delayed_and_nothing_is_the_same() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let mut plan = test.host("me")?;
        for (name, broker) in [("bus", resource::in_memory("bus")), ("queue", resource::queue("queue"))] {
            plan = plan.resource(broker)?.resource(resource::subscription(name, "t", &format!("/{name}"), None))?;
        }
        let host = plan.app(&app).start().await?;
        let event = br#"{"specversion":"1.0","id":"one","source":"s","type":"t","data":1}"#;
        let headers = [("content-type", "application/cloudevents+json")];
        let metadata = [
            "",
            "?metadata.deliverAfter=1h",
            "?metadata.deliverAt=2999-01-01T00:00:00Z",
            "?metadata.MessageId=1",
            "?metadata.MessageId=1",
            "?metadata.ScheduledEnqueueTimeUtc=2999-01-01T00:00:00Z",
        ];
        for name in ["bus", "queue"] {
            for query in metadata {
                let path = format!("/v1.0/publish/{name}/t{query}");
                ensure!(http::send(host.http()?, "POST", &path, &headers, event).await?.status == 204, "{path}");
            }
            let path = format!("/{name}");
            until(&format!("11.3 all of them on {path}"), async || {
                (app.seen_on(&path).len() == metadata.len()).then_some(())
            })
            .await?;
        }
        Ok(())
    })
}
