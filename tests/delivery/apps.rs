//! Apps that are down, slow, or answer nonsense: what they were to get comes again until they take it.

use std::time::Duration;

use anyhow::Result;

use crate::harness::app::{App, Reply};
use crate::harness::host::{Host, HostPlan};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::{Test, http, resource, run, until};

fn plan(test: &Test) -> Result<HostPlan> {
    test.host("me")?.resource(resource::queue("bus"))?.resource(resource::subscription("bus", "t", "/in", None))
}

async fn publish(host: &Host, count: usize) -> Result<()> {
    for n in 0..count {
        http::publish_ok(host.http()?, "bus/t", &n.to_string()).await?;
    }
    Ok(())
}

/// The app has seen every one of them.
async fn all_arrive(app: &App, count: u64) -> Result<()> {
    until("every message to arrive", async || {
        let mut numbers: Vec<_> = app.seen_on("/in").iter().filter_map(|seen| seen.data().ok()?.as_u64()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (numbers == (0..count).collect::<Vec<_>>()).then_some(())
    })
    .await
}

/// An app that answers so to the first attempt gets the event once more, or not.
fn check(first: Reply, comes_again: bool) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [first, Reply::ok()]);
        let host = plan(test)?.app(&app).start().await?;
        publish(&host, 1).await?;
        app.wait_for(if comes_again { 2 } else { 1 }, "/in").await?;
        http::publish_ok(host.http()?, "bus/t", "99").await?;
        let seen = app.wait_for(if comes_again { 3 } else { 2 }, "/in").await?;
        let numbers: Vec<_> = seen.iter().map(|seen| seen.data().map(|data| data.as_u64())).collect::<Result<_>>()?;
        let expected = if comes_again { vec![Some(0), Some(0), Some(99)] } else { vec![Some(0), Some(99)] };
        assert_eq!(numbers, expected);
        Ok(())
    })
}

#[test]
fn an_internal_error() -> Result<()> {
    check(Reply::status(500), true)
}

#[test]
fn a_redirect() -> Result<()> {
    check(Reply::status(302), true)
}

#[test]
fn not_found() -> Result<()> {
    check(Reply::status(404), false)
}

#[test]
fn success_with_a_body_that_is_not_json() -> Result<()> {
    check(Reply::With(200, "{\"status\": ".into()), false)
}

#[test]
fn a_status_nobody_knows() -> Result<()> {
    check(Reply::word("PERHAPS"), true)
}

#[test]
fn a_connection_that_breaks() -> Result<()> {
    check(Reply::Cut, true)
}

#[test]
fn an_app_that_comes_up_late_makes_the_host_ready_late() -> Result<()> {
    run(async |test| {
        let mut app = App::start().await?;
        app.crash().await;
        let mut host = plan(test)?.app(&app).launch()?;
        let address = host.listening().await?;
        until("the outbound half to be ready", async || {
            let answer = http::get(address, "/v1.0/healthz/outbound").await.ok()?;
            (answer.status == 204).then_some(())
        })
        .await?;
        let answer = http::get(address, "/v1.0/healthz").await?;
        assert_eq!((answer.status, answer.json()?["errorCode"].as_str()), (500, Some("ERR_HEALTH_NOT_READY")));
        app.start_again().await?;
        host.ready().await?;
        publish(&host, 3).await?;
        all_arrive(&app, 3).await
    })
}

#[test]
fn an_app_that_crashes_and_comes_back() -> Result<()> {
    run(async |test| {
        let mut app = App::start().await?;
        let host = plan(test)?.app(&app).start().await?;
        publish(&host, 5).await?;
        app.wait_for(5, "/in").await?;
        app.crash().await;
        app.take_seen();
        publish(&host, 10).await?;
        app.start_again().await?;
        all_arrive(&app, 10).await
    })
}

#[test]
fn an_app_that_speaks_no_http_for_a_while() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let proxy = Proxy::start(app.address()).await?;
        let host = plan(test)?.app_port(proxy.address().port()).start().await?;
        proxy.set(Mode::Garbage);
        publish(&host, 10).await?;
        // Each was seen and failed once before the nonsense ends, so each that is taken was seen twice.
        let given_back = async || (host.log().ok()?.matches("given back").count() >= 10).then_some(());
        until("all to fail in spite of being seen", given_back).await?;
        proxy.set(Mode::Pass);
        until("every message to come again", async || {
            let seen = app.seen_on("/in");
            let times = |n: u64| seen.iter().filter(|seen| seen.data().is_ok_and(|data| data == n)).count();
            (0..10).all(|n| times(n) >= 2).then_some(())
        })
        .await
    })
}

#[test]
fn a_slow_app_slows_nobody_else() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::After(Duration::from_secs(60), 200, String::new())]);
        let plan = plan(test)?.resource(resource::queue("other"))?;
        let plan = plan.resource(resource::subscription("other", "t", "/other", None))?;
        let host = plan.app(&app).flag("--dapr-graceful-shutdown-seconds", "1").start().await?;
        publish(&host, 20).await?;
        app.wait_for(1, "/in").await?;
        for n in 0..50 {
            http::publish_ok(host.http()?, "other/t", &n.to_string()).await?;
        }
        app.wait_for(50, "/other").await?;
        Ok(())
    })
}
