//! Adapters that trap, loop, eat memory, hang or flood, at each step of the contract: their own callers get an error in
//! bounded time, a fresh instance serves again, and a healthy broker in the same host never notices.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{Test, http, plugin, resource, run, until, until_within};

/// How long a healthy broker may take for one publish while its neighbour misbehaves, on a machine under load. Less than a
/// loop is let run.
const HEALTHY_MAX: Duration = Duration::from_secs(6);

/// How long it may take until a fresh instance serves: the longest a loop is let run, and the backoff of restarts.
const RECOVERED_MAX: Duration = Duration::from_secs(60);

/// What a host may write about a neighbour that misbehaves for some seconds.
const LOG_BYTES_MAX: usize = 1 << 20;

/// What a host may take up whose plugins may have 256 MiB at most, bytes. Without a limit a guest takes 4 GiB.
const MEMORY_MAX: u64 = 1 << 30;

/// A publish to `bad` waits two seconds at most.
const TWO_SECONDS: &str = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: \
                           {timeouts: {quick: 2s}}\n  targets: {components: {bad: {outbound: {timeout: quick}}}}\n";

/// A host with a healthy broker `good` and a broker `bad`, which misbehaves so on the topic `poison`.
async fn shop(test: &Test, misbehave: &str) -> Result<(App, Host)> {
    shop_with(test, misbehave, &[]).await
}

/// The same with other settings of the adapter.
async fn shop_with(test: &Test, misbehave: &str, more: &[(&str, &str)]) -> Result<(App, Host)> {
    let app = App::start().await?;
    let metadata = [("misbehave", misbehave), ("misbehave-topic", "poison"), ("mode", "queue")];
    let bad = resource::component("bad", "pubsub.misbehaving", &[&metadata[..], more].concat());
    let plan = test.host("me")?.resource(resource::from_file(&bad, plugin::misbehaving_adapter(), ""))?;
    let plan = plan.resource(resource::queue("good"))?.resource(TWO_SECONDS)?;
    let plan = plan.resource(resource::subscription("good", "t", "/good", None))?;
    let plan = plan.resource(resource::subscription("bad", "t", "/bad", None))?;
    let plan = plan.resource(resource::subscription("bad", "poison", "/poison", None))?;
    let mut host = plan.app(&app).flag("--dapr-graceful-shutdown-seconds", "2").launch()?;
    host.listening().await?;
    Ok((app, host))
}

/// The healthy broker answers and delivers, each publish within its bound.
async fn good_is_served(app: &App, address: std::net::SocketAddr, count: usize) -> Result<()> {
    let before = app.seen_on("/good").len();
    for n in 0..count {
        let start = Instant::now();
        until_within(HEALTHY_MAX * 5, "the healthy broker to be subscribed", async || {
            (http::publish(address, "good/t", &n.to_string()).await.ok()?.status == 204).then_some(())
        })
        .await?;
        ensure!(start.elapsed() < HEALTHY_MAX, "a publish to the healthy broker took {:?}", start.elapsed());
    }
    app.wait_for(before + count, "/good").await?;
    Ok(())
}

/// The broker that misbehaved serves what it does not misbehave on.
async fn bad_serves_again(app: &App, address: std::net::SocketAddr) -> Result<()> {
    let before = app.seen_on("/bad").len();
    until_within(RECOVERED_MAX, "a fresh instance to publish and deliver", async || {
        http::publish(address, "bad/t", "{}").await.ok()?;
        (app.seen_on("/bad").len() > before).then_some(())
    })
    .await
}

/// Misbehaving when it publishes: not answered with success, and in time.
fn check_publish(misbehave: &str) -> Result<()> {
    run(async |test| {
        let (app, mut host) = shop(test, misbehave).await?;
        host.ready().await?;
        let address = host.http()?;
        bad_serves_again(&app, address).await?;
        for _ in 0..2 {
            let poison = async {
                let start = Instant::now();
                let answer = http::publish(address, "bad/poison", "{}").await?;
                ensure!(answer.status == 500, "answered {}: {}", answer.status, answer.text());
                ensure!(start.elapsed() < Duration::from_secs(30), "answered after {:?}", start.elapsed());
                Ok(())
            };
            let (poison, good) = tokio::join!(poison, good_is_served(&app, address, 30));
            poison?;
            good?;
            bad_serves_again(&app, address).await?;
        }
        let (log, memory) = (host.log()?, host.peak_memory()?);
        assert!(!log.contains("panicked"), "{log}");
        assert!(memory < MEMORY_MAX, "the host took {memory} bytes");
        Ok(())
    })
}

#[test]
fn a_trap_in_publish() -> Result<()> {
    check_publish("trap-on-publish")
}

#[test]
fn a_loop_in_publish() -> Result<()> {
    check_publish("loop-on-publish")
}

#[test]
fn memory_eaten_in_publish() -> Result<()> {
    check_publish("grow-on-publish")
}

#[test]
fn a_publish_that_never_answers() -> Result<()> {
    check_publish("hang-on-publish")
}

#[test]
fn one_result_too_few() -> Result<()> {
    check_publish("wrong-result-count")
}

/// Somebody listens there, so that only the host keeps the adapter from it.
#[test]
fn a_connection_nobody_granted() -> Result<()> {
    run(async |test| {
        let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = elsewhere.local_addr()?.to_string();
        let (_app, mut host) = shop_with(test, "connect-elsewhere", &[("elsewhere", &address)]).await?;
        host.ready().await?;
        let answer = http::publish(host.http()?, "bad/poison", "{}").await?;
        assert_eq!(answer.status, 500);
        let why = format!("{address} is not an address that the resource's metadata names");
        assert!(answer.text().contains(&why), "{}", answer.text());
        let taken = tokio::time::timeout(Duration::ZERO, elsewhere.accept()).await;
        assert!(taken.is_err(), "it was connected to");
        Ok(())
    })
}

/// Whoever asks is told in one word; the reason, which may name addresses, is the log's.
#[test]
fn health_shows_an_adapter_that_dies_again_and_again() -> Result<()> {
    run(async |test| {
        let bad = resource::component("bad", "pubsub.misbehaving", &[("misbehave", "trap-on-open")]);
        let more = "  initTimeout: 1s\n  ignoreErrors: true\n";
        let bad = resource::from_file(&bad, plugin::misbehaving_adapter(), more);
        let mut host = test.host("me")?.resource(bad)?.resource(resource::queue("good"))?.launch()?;
        let address = host.listening().await?;
        let state = async || {
            let metadata = http::get(address, "/v1.0/metadata").await?.json()?;
            Ok::<_, anyhow::Error>(metadata["extended"]["broker.bad"].as_str().unwrap_or_default().to_owned())
        };
        until_within(RECOVERED_MAX, "the metadata to tell", async || {
            (state().await.ok()? == "restarting").then_some(())
        })
        .await?;
        assert!(host.log()?.contains("wasm trap"), "{}", host.log()?);
        assert_eq!(host.stop().await?.code, Some(0), "it can be stopped all the same");
        Ok(())
    })
}

#[test]
fn a_log_flood_is_cut_and_counted_and_slows_nobody() -> Result<()> {
    run(async |test| {
        let (app, mut host) = shop(test, "flood-log").await?;
        host.ready().await?;
        let address = host.http()?;
        let flood = http::publish(address, "bad/poison", "{}");
        let (flood, good) = tokio::join!(flood, good_is_served(&app, address, 30));
        assert_eq!(flood?.status, 204, "a flood is no failure");
        good?;
        let log = host.log()?;
        let lines = log.lines().filter(|line| line.contains("flood, line")).count();
        assert!((1..5_000).contains(&lines), "{lines} of 20000 lines were written");
        until("the number of lines that were dropped", async || {
            http::publish(address, "bad/poison", "{}").await.ok()?;
            host.log().ok()?.contains("log lines dropped").then_some(())
        })
        .await?;
        Ok(())
    })
}

/// Misbehaving when it subscribes to one topic: the healthy broker is subscribed and served.
fn check_subscribe(misbehave: &str) -> Result<()> {
    run(async |test| {
        let (app, mut host) = shop(test, misbehave).await?;
        let address = host.listening().await?;
        // The in-memory broker keeps nothing for a group that it has not seen yet.
        let live = |line: &str| line.contains("subscribed") && line.contains("pubsub=\"good\"");
        until_within(RECOVERED_MAX, "the healthy broker to be subscribed", async || {
            host.log().ok()?.lines().any(live).then_some(())
        })
        .await?;
        good_is_served(&app, address, 30).await?;
        let ended = host.stop().await?;
        assert!(ended.code.is_some(), "the host ended by a signal");
        let bytes = ended.log.len();
        assert!(bytes < LOG_BYTES_MAX, "the host wrote {bytes} bytes of log: {}", &ended.log[..2000]);
        assert!(!ended.log.contains("panicked"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn a_trap_in_subscribe() -> Result<()> {
    check_subscribe("trap-on-subscribe")
}

#[test]
fn a_loop_in_subscribe() -> Result<()> {
    check_subscribe("loop-on-subscribe")
}

#[test]
fn memory_eaten_in_subscribe() -> Result<()> {
    check_subscribe("grow-on-subscribe")
}

#[test]
fn a_subscribe_that_never_answers() -> Result<()> {
    check_subscribe("hang-on-subscribe")
}

#[test]
fn a_log_flood_in_subscribe() -> Result<()> {
    check_subscribe("flood-log-on-subscribe")
}

#[test]
fn deliveries_without_end() -> Result<()> {
    check_subscribe("flood-deliveries")
}

/// Misbehaving when it settles: the healthy broker is served, and so is the bad one's other topic.
fn check_settle(misbehave: &str) -> Result<()> {
    run(async |test| {
        let (app, mut host) = shop(test, misbehave).await?;
        host.ready().await?;
        let address = host.http()?;
        http::publish_ok(address, "bad/poison", "{}").await?;
        app.wait_for(1, "/poison").await?;
        good_is_served(&app, address, 30).await?;
        bad_serves_again(&app, address).await?;
        assert!(!host.log()?.contains("panicked"), "{}", host.log()?);
        Ok(())
    })
}

#[test]
fn a_trap_in_settle() -> Result<()> {
    check_settle("trap-on-settle")
}

#[test]
fn a_loop_in_settle() -> Result<()> {
    check_settle("loop-on-settle")
}

#[test]
fn a_settle_that_never_answers() -> Result<()> {
    check_settle("hang-on-settle")
}

#[test]
fn a_close_that_never_answers_does_not_hold_the_host() -> Result<()> {
    run(async |test| {
        let (_app, mut host) = shop(test, "close-hangs").await?;
        host.ready().await?;
        let ended = host.stop().await?;
        assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
        Ok(())
    })
}

/// Misbehaving when it opens: a failed start that names the component, never a hang.
fn check_open(misbehave: &str) -> Result<()> {
    run(async |test| {
        let bad = resource::component("bad", "pubsub.misbehaving", &[("misbehave", misbehave)]);
        let bad = resource::from_file(&bad, plugin::misbehaving_adapter(), "  initTimeout: 2s\n");
        let ended = test.host("me")?.resource(bad)?.run_to_the_end().await?;
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("bad"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn a_trap_in_open() -> Result<()> {
    check_open("trap-on-open")
}

#[test]
fn a_loop_in_open() -> Result<()> {
    check_open("loop-on-open")
}

#[test]
fn an_open_that_never_answers() -> Result<()> {
    check_open("hang-on-open")
}
