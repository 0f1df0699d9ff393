//! Messages with a time to live (pubsub-behaviour, sections 6.6 and 11.1): what the envelope says, what is still delivered,
//! and where what came too late goes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::harness::app::{App, Seen};
use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until};

/// What becomes of a message with such metadata, where the broker knows no time to live.
enum Fate {
    /// It is delivered and never expires.
    Lasts,
    /// It is delivered, and expires after so many seconds.
    For(i64),
    /// It has expired at once.
    Late,
}
use Fate::{For, Lasts, Late};

/// Every edge of the two names and their values, in one run: the body is the number of the case.
const CASES: [(&str, Fate); 17] = [
    ("", Lasts),
    ("?metadata.ttlInSeconds=60", For(60)),
    ("?metadata.ttl=60", For(60)),
    ("?metadata.TTLINSECONDS=60", For(60)),
    ("?metadata.ttlInSeconds=60&metadata.ttl=1h", For(3600)),
    ("?metadata.ttlInSeconds=1m30s", For(90)),
    ("?metadata.ttlInSeconds=%2B60", For(60)),
    ("?metadata.ttlInSeconds=99999999999", For(9_223_372_036)),
    ("?metadata.ttlInSeconds=99999999999999999999", Lasts),
    ("?metadata.ttlInSeconds=0", Late),
    ("?metadata.ttlInSeconds=0s", Late),
    ("?metadata.ttlInSeconds=-1s", Late),
    ("?metadata.ttlInSeconds=-1", Lasts),
    ("?metadata.ttlInSeconds=1.5", Lasts),
    ("?metadata.ttlInSeconds=soon", Lasts),
    ("?metadata.ttlInSeconds=", Lasts),
    ("?ttlInSeconds=0", Lasts),
];

async fn shop(test: &Test, broker: &str) -> Result<(App, Host)> {
    let app = App::start().await?;
    let plan = test.host("me")?.resource(broker)?.resource(resource::subscription("bus", "t", "/in", Some("dead")))?;
    let host = plan.app(&app).start().await?;
    Ok((app, host))
}

/// When an event expires; `None`: never.
fn expiration(event: &Value) -> Result<Option<DateTime<Utc>>> {
    let Some(text) = event["expiration"].as_str() else { return Ok(None) };
    ensure!(text.ends_with('Z') && !text.contains('.'), "{text} is not UTC in whole seconds");
    Ok(Some(DateTime::parse_from_rfc3339(text)?.to_utc()))
}

/// The dead letters. A subscriber would not get them: they have expired there, too.
async fn dead_letters(redis: &Redis, count: usize) -> Result<Vec<Bytes>> {
    until(&format!("{count} dead letters"), async || {
        let entries = redis.entries("dead").await.ok()?;
        Some(entries.into_iter().map(|entry| entry.data).collect::<Vec<_>>()).filter(|letters| letters.len() >= count)
    })
    .await
}

/// Events by the number of their case.
fn by_case(events: impl Iterator<Item = Result<Value>>) -> Result<BTreeMap<u64, Value>> {
    events.map(|event| event.and_then(|event| Ok((event["data"].as_u64().context("a case")?, event)))).collect()
}

#[test]
fn each_way_to_say_it() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let (app, host) = shop(test, &resource::redis("bus", redis.address(), &[])).await?;
        let begun = Utc::now();
        for (number, (query, _)) in CASES.iter().enumerate() {
            http::publish_ok(host.http()?, &format!("bus/t{query}"), &number.to_string()).await?;
        }
        let late = CASES.iter().filter(|(_, fate)| matches!(fate, Late)).count();
        let delivered = by_case(app.wait_for(CASES.len() - late, "/in").await?.iter().map(Seen::event))?;
        let letters = dead_letters(&redis, late).await?;
        let dead = by_case(letters.iter().map(|letter| Ok(serde_json::from_slice(letter)?)))?;
        for ((query, fate), number) in CASES.iter().zip(0..) {
            match fate {
                Late => {
                    let expired =
                        expiration(dead.get(&number).context("it was delivered")?)?.context("no expiration")?;
                    ensure!(expired <= Utc::now(), "{query}: {expired}");
                }
                Lasts => {
                    let event = delivered.get(&number).with_context(|| format!("{query} was not delivered"))?;
                    ensure!(event.get("expiration").is_none(), "{query}: {event}");
                }
                For(seconds) => {
                    let event = delivered.get(&number).with_context(|| format!("{query} was not delivered"))?;
                    let left = expiration(event)?.context("no expiration")? - begun;
                    let around = TimeDelta::seconds(*seconds - 1)..=TimeDelta::seconds(*seconds + 60);
                    ensure!(around.contains(&left), "{query}: {left}");
                }
            }
        }
        Ok(())
    })
}

/// An event's own expiration gives way; raw bytes have none to be given.
#[test]
fn of_events_and_of_raw_bytes() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let raw = resource::subscription("bus", "raw", "/raw", None) + "  metadata: {rawPayload: \"true\"}\n";
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(raw)?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let host = plan.app(&app).start().await?;
        let event = br#"{"id":"1","data":1,"expiration":"2001-01-01T00:00:00Z"}"#;
        let kind = [("content-type", "application/cloudevents+json")];
        let path = "/v1.0/publish/bus/t?metadata.ttlInSeconds=60";
        ensure!(http::send(host.http()?, "POST", path, &kind, event).await?.status == 204);
        let seen = app.wait_for(1, "/in").await?;
        ensure!(expiration(&seen[0].event()?)?.context("no expiration")? > Utc::now());
        http::publish_ok(host.http()?, "bus/raw?metadata.rawPayload=true&metadata.ttlInSeconds=0", "raw").await?;
        let seen = app.wait_for(1, "/raw").await?;
        let event = seen[0].event()?;
        ensure!(event.get("expiration").is_none() && event["data_base64"] == STANDARD.encode("raw"), "{event}");
        Ok(())
    })
}

/// The broker keeps the time itself: nothing is said in the envelope, and nothing late comes out.
#[test]
fn where_the_broker_knows_it() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, &resource::queue("bus")).await?;
        for (query, data) in [("?metadata.ttlInSeconds=0", "1"), ("?metadata.ttlInSeconds=60", "2")] {
            http::publish_ok(host.http()?, &format!("bus/t{query}"), data).await?;
        }
        let seen = app.wait_for(1, "/in").await?;
        let event = seen[0].event()?;
        ensure!(event["data"] == 2 && event.get("expiration").is_none(), "{event}");
        Ok(())
    })
}

/// What expires while nobody takes it goes to the dead-letter topic unseen, as it was stored.
#[test]
fn what_waited_too_long_is_dead_lettered() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[]);
        let publisher = test.host("shop")?.resource(&broker)?.start().await?;
        http::publish_ok(publisher.http()?, "bus/t?metadata.ttlInSeconds=1", "1").await?;
        http::publish_ok(publisher.http()?, "bus/t", "2").await?;
        let stored = redis.entries("t").await?;
        let late = expiration(&serde_json::from_slice(&stored[0].data)?)?.context("no expiration")?;
        until("it to be late", async || (Utc::now() > late).then_some(())).await?;
        let (app, _host) = shop(test, &broker).await?;
        ensure!(app.wait_for(1, "/in").await?[0].data()? == 2);
        let dead = dead_letters(&redis, 1).await?;
        ensure!(dead == [stored[0].data.clone()], "the dead letter is not what was stored");
        ensure!(app.seen_on("/in").len() == 1);
        Ok(())
    })
}
