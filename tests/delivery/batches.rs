//! Bulk subscriptions through the whole host: batches as the app sees them, on the in-memory broker and on Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::app::{App, Reply, Seen};
use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until};

/// Of one subscription: how many at a time, how long they wait for one another, milliseconds.
fn bulk(topic: &str, path: &str, dead: Option<&str>, count: u32, wait_ms: u32) -> String {
    let bulk =
        format!("  bulkSubscribe: {{enabled: true, maxMessagesCount: {count}, maxAwaitDurationMs: {wait_ms}}}\n");
    resource::subscription("bus", topic, path, dead) + &bulk
}

async fn shop(test: &Test, broker: String, subscriptions: &[String], policies: Option<String>) -> Result<(App, Host)> {
    let app = App::start().await?;
    let mut plan = test.host("me")?.resource(broker)?;
    for resource in subscriptions.iter().chain(&policies) {
        plan = plan.resource(resource)?;
    }
    let host = plan.app(&app).start().await?;
    Ok((app, host))
}

/// Publishes several in one request, each a text.
async fn publish(host: &Host, topic: &str, data: &[&str]) -> Result<()> {
    let entry = |(number, data): (usize, &&str)| json!({"entryId": format!("{number}"), "event": data, "contentType": "text/plain"});
    let entries: Vec<Value> = data.iter().enumerate().map(entry).collect();
    let headers = [("content-type", "application/json")];
    let path = format!("/v1.0/publish/bulk/bus/{topic}");
    let answer = http::send(host.http()?, "POST", &path, &headers, json!(entries).to_string().as_bytes()).await?;
    anyhow::ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
    Ok(())
}

fn texts(seen: &Seen) -> Result<Vec<String>> {
    seen.batch()?.iter().map(|data| Ok(data.as_str().context("a text")?.to_owned())).collect()
}

#[test]
fn a_batch_comes_when_it_is_full_and_only_what_failed_comes_again() -> Result<()> {
    run(async |test| {
        let retry = resource::inbound(
            "bus",
            "{retries: {r: {policy: constant, duration: 100ms, maxRetries: 3}}}",
            "{retry: r}",
        );
        let dead = resource::subscription("bus", "dead", "/dead", None);
        let subscriptions = [bulk("t", "/in", Some("dead"), 4, 60_000), dead];
        let (app, host) = shop(test, resource::queue("bus"), &subscriptions, Some(retry)).await?;
        app.plan("/in", [Reply::AsAsked, Reply::Each("SUCCESS".into())]);
        publish(&host, "t", &["SUCCESS", "RETRY", "DROP", "what nobody knows"]).await?;
        let seen = app.wait_for(2, "/in").await?;
        assert_eq!(texts(&seen[0])?, ["SUCCESS", "RETRY", "DROP", "what nobody knows"]);
        assert_eq!(texts(&seen[1])?, ["RETRY", "what nobody knows"]);
        let (first, second) = (seen[0].event()?, seen[1].event()?);
        assert_eq!(first["entries"][1]["entryId"], second["entries"][0]["entryId"]);
        assert_eq!(second["entries"][0]["whimbrelAttempt"], 2);
        assert_eq!(seen[1].headers.get("whimbrel-attempt").map(String::as_str), Some("2"));
        let dead = app.wait_for(1, "/dead").await?;
        assert_eq!(dead[0].data()?, "DROP");
        Ok(())
    })
}

#[test]
fn a_batch_that_is_not_full_comes_in_time() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, resource::queue("bus"), &[bulk("t", "/in", None, 100, 300)], None).await?;
        app.plan("/in", [Reply::Each("SUCCESS".into())]);
        let start = Instant::now();
        publish(&host, "t", &["a", "b", "c"]).await?;
        let seen = app.wait_for(1, "/in").await?;
        assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
        assert_eq!(texts(&seen[0])?, ["a", "b", "c"]);
        Ok(())
    })
}

/// Dapr's own tests stand on this: the broker waits for each message's verdict before it gives the next.
#[test]
fn like_daprs_the_in_memory_broker_yields_batches_of_one() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, resource::in_memory("bus"), &[bulk("t", "/in", None, 100, 100)], None).await?;
        app.plan("/in", [Reply::Each("SUCCESS".into())]);
        publish(&host, "t", &["a", "b", "c", "d"]).await?;
        let seen = app.wait_for(4, "/in").await?;
        let batches = seen.iter().map(texts).collect::<Result<Vec<_>>>()?;
        assert_eq!(batches, [["a"], ["b"], ["c"], ["d"]]);
        assert!(seen.windows(2).all(|pair| pair[1].at - pair[0].at >= Duration::from_millis(70)));
        Ok(())
    })
}

#[test]
fn raw_bytes_come_in_base64_and_a_programmatic_subscription_asks_for_it() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let asked = json!([{
            "pubsubname": "bus", "topic": "t", "route": "/in", "metadata": {"rawPayload": "true"},
            "bulkSubscribe": {"enabled": true, "maxMessagesCount": 2, "maxAwaitDurationMs": 60_000},
        }]);
        app.subscribe(&asked.to_string());
        app.plan("/in", [Reply::Each("SUCCESS".into())]);
        let host = test.host("me")?.resource(resource::queue("bus"))?.app(&app).start().await?;
        for body in ["one", "two"] {
            http::publish_ok(host.http()?, "bus/t?metadata.rawPayload=true", body).await?;
        }
        let seen = app.wait_for(1, "/in").await?;
        let batch = seen[0].event()?;
        let entry = |number: usize| {
            (batch["entries"][number]["event"].clone(), batch["entries"][number]["contentType"].clone())
        };
        assert_eq!(entry(0), (json!("b25l"), json!("application/octet-stream")));
        assert_eq!(entry(1).0, json!("dHdv"));
        Ok(())
    })
}

#[test]
fn an_app_that_takes_no_batches_there_drops_them_without_a_dead_letter() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let subscriptions =
            [bulk("t", "/in", Some("dead"), 2, 60_000), resource::subscription("bus", "dead", "/dead", None)];
        let (app, host) = shop(test, resource::redis("bus", redis.address(), &[]), &subscriptions, None).await?;
        app.plan("/in", [Reply::status(404)]);
        publish(&host, "t", &["a", "b"]).await?;
        app.wait_for(1, "/in").await?;
        let acknowledged = async || (redis.pending("t", "me").await.ok()? == 0).then_some(());
        until("both to be acknowledged", acknowledged).await?;
        assert!(app.seen_on("/dead").is_empty());
        assert!(redis.entries("dead").await?.is_empty());
        Ok(())
    })
}

/// Answers of every kind, and in the end everything has come; nothing is left with the broker.
#[test]
fn redis_loses_nothing_whatever_the_app_answers() -> Result<()> {
    const MESSAGES: usize = 400;
    run(async |test| {
        let redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[]);
        let (app, host) = shop(test, broker, &[bulk("t", "/in", None, 40, 50)], None).await?;
        let empty = || Reply::With(200, String::new());
        let half = || Reply::With(200, r#"{"statuses":[]}"#.into());
        app.plan("/in", [Reply::status(500), empty(), half(), Reply::Cut, Reply::Each("SUCCESS".into())]);
        let data: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
        for part in data.chunks(100) {
            publish(&host, "t", &part.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        let arrived = || -> Result<BTreeSet<String>> {
            let batches = app.seen_on("/in").iter().skip(4).map(texts).collect::<Result<Vec<_>>>()?;
            Ok(batches.into_iter().flatten().collect())
        };
        let all = async || (arrived().ok()?.len() == MESSAGES).then_some(());
        until("all messages after the failures", all).await?;
        let acknowledged = async || (redis.pending("t", "me").await.ok()? == 0).then_some(());
        until("all to be acknowledged", acknowledged).await?;
        let largest = app.seen_on("/in").iter().filter_map(|seen| Some(seen.batch().ok()?.len())).max();
        assert_eq!(largest, Some(40));
        Ok(())
    })
}

#[test]
fn a_stop_lets_a_waiting_batch_go_and_acknowledges_it() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[]);
        let subscriptions = [bulk("t", "/in", None, 100, 60_000), resource::subscription("bus", "last", "/last", None)];
        let (app, mut host) = shop(test, broker, &subscriptions, None).await?;
        app.plan("/in", [Reply::Each("SUCCESS".into())]);
        publish(&host, "t", &["a", "b"]).await?;
        let fetched = async || (redis.pending("t", "me").await.ok()? == 2).then_some(());
        until("both to be fetched", fetched).await?;
        // What the adapter fetched before this is with the host when this is with the app.
        http::publish_ok(host.http()?, "bus/last", "{}").await?;
        app.wait_for(1, "/last").await?;
        let ended = host.stop().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert_eq!(texts(&app.wait_for(1, "/in").await?[0])?, ["a", "b"]);
        assert_eq!(redis.pending("t", "me").await?, 0);
        Ok(())
    })
}
