//! Handler components: what each outcome means, and what they publish onwards under their own identity.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::{Test, http, plugin, resource, run, until};

struct Shop {
    redis: Redis,
    host: Host,
}

impl Shop {
    /// A handler component with the identity `worker` on the topic `t`; no app.
    async fn open(test: &Test, metadata: &[(&str, &str)], limits: &str) -> Result<Self> {
        let redis = Redis::start(test).await?;
        let file = plugin::misbehaving_handler();
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), metadata))?;
        let plan = plan.resource(resource::handler("worker", file, &[("bus", "t", Some("dead"))], limits))?;
        let policies = "{retries: {again: {policy: constant, duration: 50ms, maxRetries: 2}}}";
        let host = plan.resource(resource::inbound("bus", policies, "{retry: again}"))?.start().await?;
        Ok(Self { redis, host })
    }

    async fn publish(&self, data: &Value) -> Result<()> {
        http::publish_ok(self.host.http()?, "bus/t", &data.to_string()).await
    }

    /// The events in a topic, as an independent client reads them, once there are so many.
    async fn events(&self, topic: &str, count: usize) -> Result<Vec<Value>> {
        let what = format!("{count} entries in {topic}");
        let enough = async || self.redis.entries(topic).await.ok().filter(|found| found.len() >= count);
        let entries = until(&what, enough).await?;
        entries.iter().map(|entry| Ok(serde_json::from_slice(&entry.data)?)).collect()
    }

    async fn acknowledged(&self) -> Result<()> {
        let none = async || (self.redis.pending("t", "worker").await.ok()? == 0).then_some(());
        until("everything to be acknowledged", none).await
    }
}

fn onwards(what: &Value) -> Value {
    json!({"do": what, "pubsub": "bus", "topic": "done"})
}

/// What is done at each attempt, and the attempt at which the event was handled; `None`: it ended in the dead-letter
/// topic.
fn check(words: &Value, handled_at: Option<u64>) -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[], "{}").await?;
        shop.publish(&onwards(words)).await?;
        match handled_at {
            Some(attempt) => {
                let done = shop.events("done", 1).await?;
                assert_eq!(done[0]["data"]["attempt"], attempt);
                assert_eq!(done[0]["source"], "worker", "it publishes under its own identity");
                shop.acknowledged().await?;
                assert!(shop.redis.entries("dead").await?.is_empty());
            }
            None => {
                let dead = shop.events("dead", 1).await?;
                assert_eq!(&dead[0]["data"]["do"], words);
                shop.acknowledged().await?;
                assert!(shop.redis.entries("done").await?.is_empty());
            }
        }
        Ok(())
    })
}

#[test]
fn success_is_the_end() -> Result<()> {
    check(&json!("publish"), Some(1))
}

#[test]
fn retry_comes_again() -> Result<()> {
    check(&json!(["retry", "publish"]), Some(2))
}

#[test]
fn an_error_comes_again() -> Result<()> {
    check(&json!(["error", "error", "publish"]), Some(3))
}

#[test]
fn a_trap_comes_again() -> Result<()> {
    check(&json!(["trap", "publish"]), Some(2))
}

#[test]
fn a_drop_never_comes_again() -> Result<()> {
    check(&json!(["drop", "publish"]), None)
}

#[test]
fn errors_end_in_the_dead_letter_topic_when_the_attempts_are_used_up() -> Result<()> {
    check(&json!("error"), None)
}

#[test]
fn traps_end_in_the_dead_letter_topic_when_the_attempts_are_used_up() -> Result<()> {
    check(&json!("trap"), None)
}

#[test]
fn what_it_publishes_is_checked_against_its_own_scopes() -> Result<()> {
    run(async |test| {
        let scopes = [("publishingScopes", "me=t;worker=dead")];
        let shop = Shop::open(test, &scopes, "{}").await?;
        shop.publish(&onwards(&json!("publish"))).await?;
        shop.events("dead", 1).await?;
        assert!(shop.redis.entries("done").await?.is_empty(), "it may not publish there");
        let answer = http::publish(shop.host.http()?, "bus/done", "{}").await?;
        assert_eq!(answer.status, 403, "nor may the app");
        Ok(())
    })
}

#[test]
fn instances_are_reused() -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[], "{instances: 2}").await?;
        for _ in 0..100 {
            shop.publish(&onwards(&json!("publish"))).await?;
        }
        let done = shop.events("done", 100).await?;
        let handled: BTreeSet<_> = done.iter().filter_map(|event| event["data"]["handled"].as_u64()).collect();
        let most = handled.last().copied().context("handled")?;
        assert!(most >= 50, "two instances handled at most {most} of 100 each");
        Ok(())
    })
}

#[test]
fn a_fresh_instance_for_each_event_on_request() -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[], "{instances: 2, eventsPerInstance: 1}").await?;
        for _ in 0..30 {
            shop.publish(&onwards(&json!("publish"))).await?;
        }
        let done = shop.events("done", 30).await?;
        assert!(done.iter().all(|event| event["data"]["handled"] == 1));
        Ok(())
    })
}

/// The handler's own deadline is far away, and there is one instance: only the policy's timeout frees it.
#[test]
fn an_attempt_that_the_policy_gave_up_on_ends() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let (file, limits) = (plugin::misbehaving_handler(), "{instances: 1, deadline: 100s}");
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let plan = plan.resource(resource::handler("worker", file, &[("bus", "t", Some("dead"))], limits))?;
        let host = plan.resource(resource::inbound("bus", "{timeouts: {short: 300ms}}", "{timeout: short}"))?;
        let shop = Shop { redis, host: host.start().await? };
        shop.publish(&json!({"do": "loop"})).await?;
        assert_eq!(shop.events("dead", 1).await?[0]["data"]["do"], "loop");
        shop.publish(&onwards(&json!("publish"))).await?;
        shop.events("done", 1).await?;
        shop.acknowledged().await
    })
}

/// It has not even enough memory to begin with: that is no event's fault, so none is given up for it.
#[test]
fn a_handler_that_cannot_start_costs_no_attempt() -> Result<()> {
    run(async |test| {
        let shop = Shop::open(test, &[], "{memory: 64Ki}").await?;
        shop.publish(&onwards(&json!("publish"))).await?;
        let tried = async || (shop.host.log().ok()?.matches("did not start").count() >= 4).then_some(());
        until("several tries to start it", tried).await?;
        assert!(shop.redis.entries("dead").await?.is_empty(), "three attempts are allowed, and none was made");
        assert_eq!(shop.redis.pending("t", "worker").await?, 1);
        Ok(())
    })
}
