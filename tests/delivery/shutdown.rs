//! Stopping: what is in flight finishes and is acknowledged, what is not stays with the broker.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run};

/// Seconds that a host may take to finish: more than any machine needs, and few where it waits in vain.
const LONG: &str = "45";
const SHORT: &str = "2";

async fn shop(test: &Test, grace_seconds: &str) -> Result<(Redis, App, Host)> {
    let redis = Redis::start(test).await?;
    let app = App::start().await?;
    let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &[]))?;
    let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
    let host = plan.app(&app).flag("--dapr-graceful-shutdown-seconds", grace_seconds).start().await?;
    Ok((redis, app, host))
}

fn check_drain(signal: Signal) -> Result<()> {
    run(async |test| {
        let (redis, app, mut host) = shop(test, LONG).await?;
        app.plan("/in", [Reply::After(Duration::from_millis(600), 200, String::new())]);
        for n in 0..5 {
            http::publish_ok(host.http()?, "bus/t", &n.to_string()).await?;
        }
        app.wait_for(5, "/in").await?;
        host.signal(signal)?;
        let ended = host.ended().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert_eq!(redis.pending("t", "me").await?, 0, "what had arrived was acknowledged before the end");
        assert_eq!(app.seen().len(), 5, "nothing was delivered twice");
        Ok(())
    })
}

#[test]
fn sigterm_lets_what_is_in_flight_finish() -> Result<()> {
    check_drain(Signal::TERM)
}

#[test]
fn sigint_lets_what_is_in_flight_finish() -> Result<()> {
    check_drain(Signal::INT)
}

#[test]
fn an_app_that_never_answers_does_not_hold_the_host_for_ever_and_loses_nothing() -> Result<()> {
    run(async |test| {
        let (redis, app, mut host) = shop(test, SHORT).await?;
        app.plan("/in", [Reply::Never]);
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(1, "/in").await?;
        let ended = host.stop().await?;
        assert_eq!(ended.code, Some(1), "a drain that ran out of time is no success: {}", ended.log);
        assert_eq!(redis.pending("t", "me").await?, 1);
        app.plan("/in", [Reply::ok()]);
        host.start_again(|plan| plan).await?;
        app.wait_for(2, "/in").await?;
        Ok(())
    })
}

#[test]
fn an_idle_host_ends_at_once_and_without_a_word_of_error() -> Result<()> {
    run(async |test| {
        let (_redis, _app, mut host) = shop(test, LONG).await?;
        let ended = host.stop().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(!ended.log.contains("ERROR"), "{}", ended.log);
        Ok(())
    })
}
