//! `Resiliency` around delivery and around publishing.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::harness::app::{App, Reply, Seen};
use crate::harness::host::Host;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until};

async fn shop(test: &Test, policies: &str, inbound: &str) -> Result<(App, Host)> {
    let app = App::start().await?;
    let plan = test.host("me")?.resource(resource::queue("bus"))?;
    let plan = plan.resource(resource::subscription("bus", "t", "/in", Some("dead")))?;
    let plan = plan.resource(resource::subscription("bus", "dead", "/dead", None))?;
    let host = plan.resource(resource::inbound("bus", policies, inbound))?.app(&app).start().await?;
    Ok((app, host))
}

fn waits(seen: &[Seen]) -> Vec<Duration> {
    seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

#[test]
fn three_retries_are_four_attempts_with_the_same_event_and_then_the_dead_letter_topic() -> Result<()> {
    run(async |test| {
        let policies = "{retries: {again: {policy: constant, duration: 120ms, maxRetries: 3}}}";
        let (app, host) = shop(test, policies, "{retry: again}").await?;
        app.plan("/in", [Reply::status(500)]);
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(1, "/dead").await?;
        let attempts = app.seen_on("/in");
        assert_eq!(attempts.len(), 4);
        assert!(attempts.iter().all(|seen| seen.body == attempts[0].body));
        assert!(waits(&attempts).iter().all(|wait| *wait >= Duration::from_millis(115)), "{:?}", waits(&attempts));
        Ok(())
    })
}

/// One message of a key fails and waits a second; the next of its key waits behind it, that of another key does not.
#[test]
fn a_key_keeps_its_order_through_a_failure() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500), Reply::ok()]);
        let subscription = resource::subscription("bus", "t", "/in", None) + "  metadata: {orderPerKey: \"true\"}\n";
        let plan = test.host("me")?.resource(resource::queue("bus"))?.resource(subscription)?;
        let host = plan.app(&app).start().await?;
        for (key, data) in [("a", "1"), ("a", "2"), ("b", "3")] {
            http::publish_ok(host.http()?, &format!("bus/t?metadata.partitionKey={key}"), data).await?;
        }
        let seen = app.wait_for(4, "/in").await?;
        let order =
            seen.iter().map(|seen| Ok(seen.data()?.as_u64().unwrap_or_default())).collect::<Result<Vec<_>>>()?;
        assert_eq!(order, [1, 3, 1, 2]);
        Ok(())
    })
}

/// Ten messages, two at a time, though many more may be unsettled.
#[test]
fn a_subscription_has_a_concurrency_of_its_own() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::Never, Reply::Never]);
        let limits = "  metadata: {maxConcurrency: \"2\"}\n";
        let subscriptions = [
            resource::subscription("bus", "t", "/in", None) + limits,
            resource::subscription("bus", "other", "/other", None),
        ];
        let mut plan = test.host("me")?.resource(resource::queue("bus"))?;
        for subscription in subscriptions {
            plan = plan.resource(subscription)?;
        }
        let host = plan.app(&app).start().await?;
        for number in 0..10 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        http::publish_ok(host.http()?, "bus/other", "{}").await?;
        app.wait_for(1, "/other").await?;
        assert_eq!(app.wait_for(2, "/in").await?.len(), 2, "two never end, so no third begins");
        Ok(())
    })
}

#[test]
fn a_retry_that_succeeds_ends_it() -> Result<()> {
    run(async |test| {
        let policies = "{retries: {again: {policy: constant, duration: 10ms, maxRetries: 10}}}";
        let (app, host) = shop(test, policies, "{retry: again}").await?;
        app.plan("/in", [Reply::word("RETRY"), Reply::word("WHAT"), Reply::Cut, Reply::ok()]);
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        app.wait_for(4, "/in").await?;
        http::publish_ok(host.http()?, "bus/t", "2").await?;
        let seen = app.wait_for(5, "/in").await?;
        assert_eq!(seen.get(4).context("the fifth")?.data()?, 2);
        assert!(app.seen_on("/dead").is_empty());
        Ok(())
    })
}

#[test]
fn a_drop_is_never_tried_again() -> Result<()> {
    run(async |test| {
        let policies = "{retries: {again: {policy: constant, duration: 10ms, maxRetries: 10}}}";
        let (app, host) = shop(test, policies, "{retry: again}").await?;
        app.plan("/in", [Reply::word("DROP")]);
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(1, "/dead").await?;
        assert_eq!(app.seen_on("/in").len(), 1);
        Ok(())
    })
}

#[test]
fn exponential_waits_grow_from_half_a_second_within_a_half() -> Result<()> {
    run(async |test| {
        let policies = "{retries: {again: {policy: exponential, maxInterval: 10s, maxRetries: 3}}}";
        let (app, host) = shop(test, policies, "{retry: again}").await?;
        app.plan("/in", [Reply::status(500)]);
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(1, "/dead").await?;
        let attempts = app.seen_on("/in");
        assert_eq!(attempts.len(), 4);
        for (wait, middle) in waits(&attempts).into_iter().zip([500, 750, 1125]) {
            let (least, most) = (Duration::from_millis(middle / 2 - 5), Duration::from_millis(middle * 3 / 2 + 400));
            assert!((least..=most).contains(&wait), "{wait:?} is not {middle} ms, give or take a half");
        }
        Ok(())
    })
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_and_tried_again() -> Result<()> {
    run(async |test| {
        let policies =
            "{timeouts: {quick: 200ms}, retries: {again: {policy: constant, duration: 10ms, maxRetries: 2}}}";
        let (app, host) = shop(test, policies, "{timeout: quick, retry: again}").await?;
        app.plan("/in", [Reply::Never, Reply::After(Duration::from_secs(5), 200, String::new()), Reply::ok()]);
        let start = Instant::now();
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(3, "/in").await?;
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(4, "/in").await?;
        assert!(app.seen_on("/dead").is_empty());
        Ok(())
    })
}

/// An app that fails for a while costs no message its turn: what the breaker keeps from it comes again.
#[test]
fn an_open_circuit_breaker_spares_the_app_and_dead_letters_nothing() -> Result<()> {
    run(async |test| {
        let policies = "{circuitBreakers: {fuse: {trip: consecutiveFailures > 1, timeout: 2s}}, \
                        retries: {again: {policy: constant, duration: 10ms, maxRetries: 2}}}";
        let (app, host) = shop(test, policies, "{retry: again, circuitBreaker: fuse}").await?;
        app.plan("/in", [Reply::status(500), Reply::status(500), Reply::ok()]);
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        // The app has answered twice, and the host has heard it: the breaker is open.
        let heard = async || (host.log().ok()?.matches("an attempt failed").count() == 2).then_some(());
        until("the host to hear of the second failure", heard).await?;
        http::publish_ok(host.http()?, "bus/t", "2").await?;
        http::publish_ok(host.http()?, "bus/t", "3").await?;
        let seen = app.wait_for(5, "/in").await?;
        assert!(waits(&seen)[1] >= Duration::from_millis(1900), "called while it is open: {:?}", waits(&seen));
        let mut data = seen[2..].iter().map(|seen| Ok(seen.data()?.to_string())).collect::<Result<Vec<_>>>()?;
        data.sort();
        assert_eq!(data, ["1", "2", "3"]);
        assert!(app.seen_on("/dead").is_empty());
        Ok(())
    })
}

#[test]
fn a_publish_that_takes_too_long_is_answered_within_its_timeout() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let proxy = Proxy::start(redis.address()).await?;
        let policies = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: \
                        {timeouts: {quick: 300ms}}\n  targets: {components: {bus: {outbound: {timeout: quick}}}}\n";
        let plan = test.host("me")?.resource(resource::redis("bus", proxy.address(), &[]))?;
        let host = plan.resource(policies)?.start().await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        proxy.set(Mode::BlackHole);
        let start = Instant::now();
        let answer = http::publish(host.http()?, "bus/t", "2").await?;
        assert_eq!((answer.status, answer.json()?["errorCode"].as_str()), (500, Some("ERR_PUBSUB_PUBLISH_MESSAGE")));
        let took = start.elapsed();
        assert!((Duration::from_millis(250)..Duration::from_secs(20)).contains(&took), "{took:?}");
        proxy.set(Mode::Pass);
        http::publish_ok(host.http()?, "bus/t", "3").await
    })
}
