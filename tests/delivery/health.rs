//! Apps that are asked for their health: while one is ill nothing but the question reaches it, publishing goes on, and
//! what waits comes once it is well.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::harness::app::{App, Reply};
use crate::harness::host::{Host, HostPlan};
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until};

/// How often the app falls ill under load.
const ILLNESSES: usize = 3;

/// Between two messages.
const PACE: Duration = Duration::from_millis(5);

/// A host that asks the app every second.
fn plan(test: &Test, app: &App, broker: &str) -> Result<HostPlan> {
    let plan = test.host("me")?.resource(broker)?.resource(resource::subscription("bus", "t", "/in", Some("dead")))?;
    let plan = plan.flag("--app-health-probe-interval", "1").flag("--app-health-threshold", "2");
    // A switch takes no word behind it.
    Ok(plan.flag("--enable-app-health-check", "--app-health-check-path=well?yes").app(app))
}

fn fall_ill(app: &App) {
    app.plan("/well?yes", [Reply::status(503)]);
}

fn recover(app: &App) {
    app.plan("/well?yes", [Reply::status(204)]);
}

async fn state(host: SocketAddr) -> Result<String> {
    let metadata = http::get(host, "/v1.0/metadata").await?.json()?;
    Ok(metadata["extended"]["appHealth"].as_str().context("appHealth")?.to_owned())
}

async fn wait_for_state(host: SocketAddr, wanted: &str) -> Result<()> {
    until(&format!("the app to be {wanted}"), async || (state(host).await.ok()? == wanted).then_some(())).await
}

/// Waits until the app was asked so many times more.
async fn probes(app: &App, more: usize) -> Result<()> {
    let before = app.seen_on("/well?yes").len();
    app.wait_for(before + more, "/well?yes").await.map(drop)
}

/// Publishes numbers until it is told to stop; those that were confirmed.
fn publisher(host: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<Result<BTreeSet<u64>>> {
    tokio::spawn(async move {
        let mut confirmed = BTreeSet::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            http::publish_ok(host, "bus/t", &number.to_string()).await?;
            confirmed.insert(number);
            tokio::time::sleep(PACE).await;
        }
        Ok(confirmed)
    })
}

/// Ill and well again under load, with requests in flight each time.
async fn rides_out(test: &Test, broker: &str) -> Result<()> {
    let app = App::start().await?;
    recover(&app);
    app.plan("/in", [Reply::After(Duration::from_millis(100), 200, String::new())]);
    let plan = plan(test, &app, broker)?.resource(resource::subscription("bus", "dead", "/dead", None))?;
    let host = plan.start().await?;
    let at = host.http()?;
    let stop = Arc::new(AtomicBool::new(false));
    let publishing = publisher(at, Arc::clone(&stop));
    for _ in 0..ILLNESSES {
        app.wait_for(app.seen_on("/in").len() + 30, "/in").await?;
        fall_ill(&app);
        wait_for_state(at, "unhealthy").await?;
        // By the next question what was on its way has arrived.
        probes(&app, 1).await?;
        let before = app.seen_on("/in").len();
        probes(&app, 2).await?;
        ensure!(app.seen_on("/in").len() == before, "an app that is ill was sent events");
        ensure!(!publishing.is_finished(), "publishing ended while the app was ill");
        recover(&app);
        wait_for_state(at, "healthy").await?;
    }
    stop.store(true, Ordering::Relaxed);
    let confirmed = publishing.await??;
    until("everything to arrive", async || {
        let seen = app.seen_on("/in");
        let arrived: BTreeSet<_> = seen.iter().filter_map(|seen| seen.data().ok()?.as_u64()).collect();
        confirmed.is_subset(&arrived).then_some(())
    })
    .await?;
    ensure!(app.seen_on("/dead").is_empty(), "something was dead-lettered for it");
    Ok(())
}

#[test]
fn an_illness_under_load_costs_nothing_with_a_queue_in_memory() -> Result<()> {
    run(async |test| rides_out(test, &resource::queue("bus")).await)
}

#[test]
fn an_illness_under_load_costs_nothing_with_redis() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        rides_out(test, &resource::redis("bus", redis.address(), &[])).await
    })
}

/// Dapr's in-memory broker has no subscriber then: it takes what is published and forgets it (pubsub-behaviour 6.9).
#[test]
fn daprs_broker_in_memory_does_not_hold_up_publishers() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        fall_ill(&app);
        let host = plan(test, &app, &resource::in_memory("bus"))?.start().await?;
        let at = host.http()?;
        ensure!(state(at).await? == "unhealthy");
        let listed = http::get(at, "/v1.0/metadata").await?.json()?;
        ensure!(listed["subscriptions"][0]["topic"] == "t", "not listed while the app is ill: {listed}");
        for number in 0..10 {
            http::publish_ok(at, "bus/t", &number.to_string()).await?;
        }
        probes(&app, 2).await?;
        ensure!(app.seen_on("/in").is_empty());
        recover(&app);
        until("events to flow", async || {
            http::publish_ok(at, "bus/t", "99").await.ok()?;
            (!app.seen_on("/in").is_empty()).then_some(())
        })
        .await?;
        ensure!(app.seen_on("/in")[0].data()? == 99);
        Ok(())
    })
}

#[test]
fn an_app_that_falls_ill_ends_the_block_before_the_shutdown() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        recover(&app);
        let plan = plan(test, &app, &resource::queue("bus"))?.flag("--dapr-block-shutdown-duration", "10m");
        let mut host: Host = plan.start().await?;
        host.signal(rustix::process::Signal::TERM)?;
        until("the block", async || host.log().ok()?.contains("Blocking graceful shutdown").then_some(())).await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        fall_ill(&app);
        let ended = host.ended().await?;
        ensure!(ended.code == Some(0) && ended.log.contains("App reported unhealthy, entering shutdown..."));
        Ok(())
    })
}

#[test]
fn a_question_that_takes_longer_than_its_turn_is_refused() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = plan(test, &app, &resource::queue("bus"))?.flag("--app-health-probe-timeout", "1001");
        let ended = plan.run_to_the_end().await?;
        let said = "--app-health-probe-timeout (1.001s) must not exceed --app-health-probe-interval (1s)";
        ensure!(ended.code == Some(64) && ended.log.contains(said), "{ended:?}");
        Ok(())
    })
}
