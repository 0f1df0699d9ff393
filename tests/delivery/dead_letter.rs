//! The dead-letter topic: what goes there, unchanged, and acknowledged only once it is there.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::redis::{Entry, Redis};
use crate::harness::{Test, http, resource, run, until};

struct Shop {
    redis: Redis,
    app: App,
    host: Host,
}

impl Shop {
    async fn open(test: &Test, metadata: &[(&str, &str)]) -> Result<Self> {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), metadata))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", Some("dead")))?;
        let host = plan.app(&app).start().await?;
        Ok(Self { redis, app, host })
    }

    /// The first entry of the dead-letter topic, as an independent client reads it.
    async fn dead(&self) -> Result<Entry> {
        let first = async || self.redis.entries("dead").await.ok()?.into_iter().next();
        until("an entry in the dead-letter topic", first).await
    }

    async fn acknowledged(&self) -> Result<()> {
        let none = async || (self.redis.pending("t", "me").await.ok()? == 0).then_some(());
        until("the original to be acknowledged", none).await
    }
}

/// An app that answers so has this event in the dead-letter topic, as it was stored, after so many requests.
fn check(reply: Reply, requests: std::ops::RangeInclusive<usize>) -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[]).await?;
        shop.app.plan("/in", [reply]);
        http::publish_ok(shop.host.http()?, "bus/t", r#"{"a":1}"#).await?;
        let dead = shop.dead().await?;
        let event: Value = serde_json::from_slice(&dead.data)?;
        assert_eq!((&event["topic"], &event["data"]), (&json!("t"), &json!({"a": 1})));
        let stored = shop.redis.entries("t").await?;
        assert_eq!(stored.first().context("the original")?.data, dead.data, "the very bytes");
        shop.acknowledged().await?;
        let seen = shop.app.seen_on("/in").len();
        assert!(requests.contains(&seen), "{seen} requests, and no policy");
        Ok(())
    })
}

#[test]
fn dropped() -> Result<()> {
    check(Reply::word("DROP"), 1..=1)
}

#[test]
fn not_found() -> Result<()> {
    check(Reply::status(404), 1..=1)
}

#[test]
fn failed_without_a_policy() -> Result<()> {
    check(Reply::status(503), 1..=1)
}

#[test]
fn asked_for_retry_without_a_policy() -> Result<()> {
    check(Reply::word("RETRY"), 1..=1)
}

#[test]
fn cut_off_by_the_app_without_a_policy() -> Result<()> {
    // A connection that was idle may have been closed at that very moment: then the request goes out once more.
    check(Reply::Cut, 1..=2)
}

#[test]
fn what_is_no_event_goes_there_byte_for_byte_and_never_to_the_app() -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[]).await?;
        let bytes = b"no \xff event \x00 at all";
        let path = "/v1.0/publish/bus/t?metadata.rawPayload=true";
        let headers = [("content-type", "application/octet-stream")];
        assert_eq!(http::send(shop.host.http()?, "POST", path, &headers, bytes).await?.status, 204);
        assert_eq!(&shop.dead().await?.data[..], bytes);
        shop.acknowledged().await?;
        assert!(shop.app.seen().is_empty());
        Ok(())
    })
}

#[test]
fn what_has_expired_is_not_delivered() -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[]).await?;
        let event = r#"{"specversion":"1.0","id":"old","source":"s","type":"t","expiration":"2020-01-01T00:00:00Z"}"#;
        let headers = [("content-type", "application/cloudevents+json")];
        let answer = http::send(shop.host.http()?, "POST", "/v1.0/publish/bus/t", &headers, event.as_bytes()).await?;
        assert_eq!(answer.status, 204);
        let dead: Value = serde_json::from_slice(&shop.dead().await?.data)?;
        assert_eq!(dead["id"], "old");
        shop.acknowledged().await?;
        assert!(shop.app.seen().is_empty());
        Ok(())
    })
}

#[test]
fn a_dead_letter_topic_that_may_not_be_published_to_keeps_the_message_at_the_broker() -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[("publishingScopes", "me=t")]).await?;
        shop.app.plan("/in", [Reply::word("DROP"), Reply::word("DROP"), Reply::ok()]);
        http::publish_ok(shop.host.http()?, "bus/t", r#"{"a":1}"#).await?;
        shop.app.wait_for(2, "/in").await?;
        assert_eq!(shop.redis.pending("t", "me").await?, 1, "neither acknowledged nor dropped");
        assert!(shop.redis.entries("dead").await?.is_empty());
        shop.app.wait_for(3, "/in").await?;
        shop.acknowledged().await
    })
}
