//! What an app publishes comes back as its SDK reads it, and what its SDK answers is done.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::app::{Pair, Sdk, run};
use crate::harness::host::HostPlan;
use crate::harness::redis::Redis;
use crate::harness::{http, resource};

#[derive(Debug, Clone, Copy)]
pub(super) enum Bus {
    InMemory,
    Redis,
}

#[test]
fn fastapi_in_memory() -> Result<()> {
    everything(Sdk::FastApi, Bus::InMemory)
}

#[test]
fn fastapi_on_redis() -> Result<()> {
    everything(Sdk::FastApi, Bus::Redis)
}

#[test]
fn flask_in_memory() -> Result<()> {
    everything(Sdk::Flask, Bus::InMemory)
}

#[test]
fn flask_on_redis() -> Result<()> {
    everything(Sdk::Flask, Bus::Redis)
}

#[test]
fn javascript_in_memory() -> Result<()> {
    everything(Sdk::JavaScript, Bus::InMemory)
}

#[test]
fn javascript_on_redis() -> Result<()> {
    everything(Sdk::JavaScript, Bus::Redis)
}

/// One pair for all, for starting it takes longest.
fn everything(sdk: Sdk, bus: Bus) -> Result<()> {
    on(sdk, bus, async |pair| {
        subscribed(pair).await.context("its subscriptions")?;
        kinds(pair).await.context("kinds of data")?;
        raw(pair).await.context("raw payloads")?;
        answers(pair).await.context("answers")?;
        dead_letters(pair).await.context("dead letters")?;
        if sdk == Sdk::JavaScript {
            batches(pair).await.context("batches")?;
        }
        refused(pair).await.context("what is refused")
    })
}

/// A pair on a broker, with three retries for the app.
pub(super) fn on(sdk: Sdk, bus: Bus, body: impl AsyncFnOnce(&Pair) -> Result<()>) -> Result<()> {
    on_with(sdk, bus, Ok, body)
}

/// The same with more declared.
pub(super) fn on_with(
    sdk: Sdk,
    bus: Bus,
    more: impl FnOnce(HostPlan) -> Result<HostPlan>,
    body: impl AsyncFnOnce(&Pair) -> Result<()>,
) -> Result<()> {
    run(async |test| {
        let redis = match bus {
            Bus::InMemory => None,
            Bus::Redis => Some(Redis::start(test).await?),
        };
        // A lease that no pause of the machine outlives: nothing here is delivered twice.
        let lease = [("processingTimeout", "60s")];
        let broker = match &redis {
            None => resource::in_memory("bus"),
            Some(redis) => resource::redis("bus", redis.address(), &lease),
        };
        let policies = "{retries: {again: {policy: constant, duration: 50ms, maxRetries: 3}}}";
        let plan =
            test.host("shop")?.resource(broker)?.resource(resource::inbound("bus", policies, "{retry: again}"))?;
        body(&Pair::start(test, sdk, more(plan)?, &[]).await?).await
    })
}

async fn subscribed(pair: &Pair) -> Result<()> {
    let metadata = http::get(pair.host.http()?, "/v1.0/metadata").await?.json()?;
    let subscriptions = metadata["subscriptions"].as_array().context("no subscriptions")?;
    let mut found: Vec<_> = subscriptions.iter().map(|found| (&found["topic"], &found["deadLetterTopic"])).collect();
    found.sort_by_key(|(topic, _)| topic.to_string());
    // Only JavaScript's SDK knows batches over HTTP, and rules.
    found.retain(|(topic, _)| pair.sdk != Sdk::JavaScript || (**topic != "batches" && **topic != "sorted"));
    let topics = [json!("dead"), json!("doomed"), json!("orders"), json!("raw")];
    let letters = [json!(""), json!("dead"), json!(""), json!("")];
    ensure!(found == topics.iter().zip(&letters).collect::<Vec<_>>(), "{metadata:#}");
    Ok(())
}

async fn kinds(pair: &Pair) -> Result<()> {
    let (text, bytes) = ("größer als 2 \u{1f409}", "\u{0}\u{1}é");
    let json = json!({"key": "json", "n": 9_007_199_254_740_991_i64, "text": text, "none": null, "list": [1, 2.5]});
    let event = json!({
        "specversion": "1.0", "id": "mine-1", "source": "/till/3", "type": "order.made", "subject": "s", "shop": "north",
        "datacontenttype": "application/json", "data": {"key": "event"}
    });
    let sent = [
        ("json", json.clone(), json, "application/json"),
        ("text", json!(text), json!(text), "text/plain"),
        ("bytes", json!(STANDARD.encode(bytes)), json!(bytes), "application/octet-stream"),
        ("event", event.clone(), event["data"].clone(), "application/json"),
    ];
    for (n, (kind, data, expected, content_type)) in sent.into_iter().enumerate() {
        pair.publish_ok("orders", kind, data, json!({})).await?;
        let seen = pair.wait_for(n + 1, "orders", "").await?.pop().context(kind)?;
        assert_eq!(seen["data"], expected, "{kind}");
        assert_eq!(seen["headers"]["content-type"], "application/cloudevents+json", "{kind}");
        assert_eq!(seen["headers"]["pubsubname"], "bus", "{kind}");
        if pair.sdk.shows_events() {
            assert_eq!(seen["event"]["datacontenttype"], content_type, "{kind}");
            attributes(&seen["event"], (kind == "event").then_some(&event));
        }
    }
    Ok(())
}

/// The attributes of an event: as they were published, or as the host made them.
fn attributes(seen: &Value, published: Option<&Value>) {
    let made = json!({"specversion": "1.0", "source": "shop", "type": "com.dapr.event.sent"});
    for (name, value) in published.unwrap_or(&made).as_object().into_iter().flatten() {
        assert_eq!(&seen[name], value, "{name} of {seen:#}");
    }
    assert_eq!((&seen["topic"], &seen["pubsubname"]), (&json!("orders"), &json!("bus")));
    assert!(seen["id"].as_str().is_some_and(|id| !id.is_empty()) && seen["time"].is_string(), "{seen:#}");
}

async fn raw(pair: &Pair) -> Result<()> {
    let payload = json!({"key": "raw", "text": "größer"});
    // What a JavaScript app writes without quotes is a boolean; its SDK makes a text of it.
    let asked = if pair.sdk == Sdk::JavaScript { json!(true) } else { json!("true") };
    pair.publish_ok("raw", "json", payload.clone(), json!({"rawPayload": asked})).await?;
    let seen = pair.wait_for(1, "raw", "").await?.remove(0);
    if pair.sdk.shows_events() {
        let text = seen["data"].as_str().context("the bytes as they are")?;
        assert_eq!(serde_json::from_str::<Value>(text)?, payload);
        assert_eq!((&seen["event"]["type"], &seen["event"]["topic"]), (&json!("com.dapr.event.sent"), &json!("raw")));
        assert_eq!(seen["event"]["datacontenttype"], "application/octet-stream");
    } else {
        // This SDK decodes what it finds in `data_base64`.
        assert_eq!(seen["data"], payload);
    }
    Ok(())
}

async fn answers(pair: &Pair) -> Result<()> {
    // An exception is 500 in both Python extensions; JavaScript's SDK logs it and answers SUCCESS.
    let raised = if pair.sdk == Sdk::JavaScript { 1 } else { 2 };
    let asked = [("again", json!(["RETRY", "RETRY", "SUCCESS"]), 3), ("raised", json!(["RAISE", "SUCCESS"]), raised)];
    let asked = asked.into_iter().chain([("silent", json!([""]), 1), ("last", json!(["SUCCESS"]), 1)]);
    let asked: Vec<_> = asked.collect();
    for (key, answers, _) in &asked {
        pair.publish_ok("orders", "json", json!({"key": key, "answers": answers}), json!({})).await?;
    }
    for (key, _, times) in &asked {
        pair.wait_for(*times, "orders", key).await?;
    }
    for (key, _, times) in &asked {
        let seen = pair.seen("orders", key)?;
        assert_eq!(seen.len(), *times, "{key}");
        let first = seen.first().context("none")?;
        assert!(seen.iter().all(|seen| seen["event"] == first["event"]), "{key}");
    }
    Ok(())
}

async fn dead_letters(pair: &Pair) -> Result<()> {
    for (n, (key, answer, times)) in [("dropped", "DROP", 1), ("lost", "RETRY", 4)].into_iter().enumerate() {
        pair.publish_ok("doomed", "json", json!({"key": key, "answers": [answer]}), json!({})).await?;
        let letter = pair.wait_for(n + 1, "dead", "").await?.pop().context("a letter")?;
        let seen = pair.seen("doomed", key)?;
        assert_eq!((letter["data"]["key"].as_str(), seen.len()), (Some(key), times));
        assert!(seen.iter().all(|seen| seen["event"] == letter["event"]), "{letter:#} came as {seen:#?}");
    }
    Ok(())
}

/// `publishBulk` and `subscribeBulk`: only what asks for it comes again.
async fn batches(pair: &Pair) -> Result<()> {
    let asked =
        [("b1", json!(["SUCCESS"]), 1), ("b2", json!(["RETRY", "RETRY", "SUCCESS"]), 3), ("b3", json!([""]), 1)];
    let data: Vec<Value> = asked.iter().map(|(key, answers, _)| json!({"key": key, "answers": answers})).collect();
    let command = json!({"pubsub": "bus", "topic": "batches", "kind": "bulk", "data": data, "metadata": {}});
    let answer = pair.command(&command).await?;
    assert_eq!(answer["failedMessages"], json!([]), "{answer:#}");
    for (key, _, times) in &asked {
        pair.wait_for(*times, "batches", key).await?;
    }
    for (key, _, times) in &asked {
        assert_eq!(pair.seen("batches", key)?.len(), *times, "{key}");
    }
    Ok(())
}

async fn refused(pair: &Pair) -> Result<()> {
    let command = json!({"pubsub": "nobody", "topic": "t", "kind": "json", "data": {"a": 1}, "metadata": {}});
    let error = pair.command(&command).await?["error"].take();
    let status = if pair.sdk == Sdk::JavaScript { &error["status"] } else { &error["status_code"] };
    assert_eq!(*status, 404, "{error:#}");
    assert!(error.to_string().contains("ERR_PUBSUB_NOT_FOUND"), "{error:#}");
    Ok(())
}
