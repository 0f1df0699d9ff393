//! Brokers that are down at the start, go away, or answer nonsense.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::app::App;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::redis::Redis;
use crate::harness::{http, resource, run, until, until_within};

/// How long a publish to a broker that does not answer may take, with the policy of these tests.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A publish to `bus` waits one second at most.
const ONE_SECOND: &str = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: \
                          {timeouts: {quick: 1s}}\n  targets: {components: {bus: {outbound: {timeout: quick}}}}\n";

#[test]
fn one_that_is_down_at_the_start_ends_it_and_is_named() -> Result<()> {
    run(async |test| {
        let mut redis = Redis::start(test).await?;
        redis.kill().await?;
        let yaml = resource::redis("bus", redis.address(), &[]).replace("spec:\n", "spec:\n  initTimeout: 1s\n");
        let ended = test.host("me")?.resource(yaml)?.run_to_the_end().await?;
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("bus") && ended.log.contains("pubsub.redis"), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn one_that_is_down_at_the_start_and_may_be_is_waited_for() -> Result<()> {
    run(async |test| {
        let mut redis = Redis::start(test).await?;
        redis.kill().await?;
        let app = App::start().await?;
        let lenient = "spec:\n  initTimeout: 1s\n  ignoreErrors: true\n";
        let yaml = resource::redis("bus", redis.address(), &[]).replace("spec:\n", lenient);
        let plan = test.host("me")?.resource(yaml)?.resource(resource::in_memory("other"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let mut host = plan.resource(resource::subscription("other", "t", "/other", None))?.app(&app).launch()?;
        let address = host.listening().await?;
        until("the other broker to serve", async || {
            (http::publish(address, "other/t", "{}").await.ok()?.status == 204).then_some(())
        })
        .await?;
        redis.start_again().await?;
        host.ready().await?;
        until("the late broker to serve", async || {
            (http::publish(address, "bus/t", "{}").await.ok()?.status == 204).then_some(())
        })
        .await?;
        app.wait_for(1, "/in").await?;
        Ok(())
    })
}

/// Publishers are not kept waiting for a broker that was never there, and the host can be stopped.
#[test]
fn one_that_stays_down_keeps_nobody() -> Result<()> {
    run(async |test| {
        let mut redis = Redis::start(test).await?;
        redis.kill().await?;
        let lenient = "spec:\n  initTimeout: 1s\n  ignoreErrors: true\n";
        let yaml = resource::redis("bus", redis.address(), &[]).replace("spec:\n", lenient);
        let mut host = test.host("me")?.resource(yaml)?.launch()?;
        let address = host.listening().await?;
        let answer = http::publish(address, "bus/t", "{}").await?;
        assert_eq!((answer.status, answer.json()?["errorCode"].as_str()), (500, Some("ERR_PUBSUB_PUBLISH_MESSAGE")));
        assert!(answer.text().contains("it may be sent again"), "nothing was sent: {}", answer.text());
        let ended = host.stop().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        Ok(())
    })
}

/// A host that is stopped while it still waits for its broker ends at once and in good order.
#[test]
fn one_that_is_waited_for_does_not_keep_the_host() -> Result<()> {
    run(async |test| {
        let mut redis = Redis::start(test).await?;
        redis.kill().await?;
        let yaml = resource::redis("bus", redis.address(), &[]).replace("spec:\n", "spec:\n  initTimeout: 100s\n");
        let mut host = test.host("me")?.resource(yaml)?.launch()?;
        until("the adapter to try", async || host.log().ok()?.contains("connection to Redis").then_some(())).await?;
        let ended = host.stop().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        Ok(())
    })
}

#[test]
fn one_that_goes_away_leaves_the_other_alone_and_is_taken_up_again() -> Result<()> {
    run(async |test| {
        let mut redis = Redis::start(test).await?;
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let plan = plan.resource(resource::in_memory("other"))?.resource(ONE_SECOND)?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let host = plan.resource(resource::subscription("other", "t", "/other", None))?.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        app.wait_for(1, "/in").await?;
        redis.kill().await?;
        let start = Instant::now();
        let answer = http::publish(host.http()?, "bus/t", "2").await?;
        assert_eq!((answer.status, answer.json()?["errorCode"].as_str()), (500, Some("ERR_PUBSUB_PUBLISH_MESSAGE")));
        assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
        for n in 0..50 {
            http::publish_ok(host.http()?, "other/t", &n.to_string()).await?;
        }
        app.wait_for(50, "/other").await?;
        redis.start_again().await?;
        until("publishing to work again", async || {
            (http::publish(host.http().ok()?, "bus/t", "3").await.ok()?.status == 204).then_some(())
        })
        .await?;
        until("the message after the gap", async || {
            app.seen_on("/in").iter().any(|seen| seen.data().is_ok_and(|data| data == 3)).then_some(())
        })
        .await
    })
}

#[test]
fn one_that_answers_nonsense_for_a_while() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let proxy = Proxy::start(redis.address()).await?;
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::redis("bus", proxy.address(), &[]))?.resource(ONE_SECOND)?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        proxy.set(Mode::Garbage);
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(http::publish(host.http()?, "bus/t", "2").await?.status, 500);
            assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
        }
        proxy.set(Mode::Pass);
        until("publishing to work again", async || {
            (http::publish(host.http().ok()?, "bus/t", "3").await.ok()?.status == 204).then_some(())
        })
        .await?;
        until("a delivery after the nonsense", async || {
            app.seen_on("/in").iter().any(|seen| seen.data().is_ok_and(|data| data == 3)).then_some(())
        })
        .await?;
        let log = host.log()?;
        assert!(!log.contains("trap") && !log.contains("panicked"), "{log}");
        Ok(())
    })
}

/// A server that answers whatever it is sent with these bytes, again and again.
async fn hostile(bytes: &'static [u8]) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    if stream.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

fn check_hostile(bytes: &'static [u8]) -> Result<()> {
    run(async |test| {
        let address = hostile(bytes).await?;
        let lenient = "spec:\n  initTimeout: 1s\n  ignoreErrors: true\n";
        let yaml = resource::redis("bus", address, &[]).replace("spec:\n", lenient);
        let plan = test.host("me")?.resource(yaml)?.resource(resource::in_memory("other"))?;
        let mut host = plan.resource(ONE_SECOND)?.launch()?;
        let address = host.listening().await?;
        for _ in 0..5 {
            until_within(ANSWER_MAX, "the other broker to serve", async || {
                (http::publish(address, "other/t", "{}").await.ok()?.status == 204).then_some(())
            })
            .await?;
            assert_ne!(http::publish(address, "bus/t", "{}").await?.status, 204);
        }
        let log = host.log()?;
        assert!(!log.contains("wasm trap") && !log.contains("panicked"), "{log}");
        Ok(())
    })
}

#[test]
fn one_that_announces_a_gigabyte() -> Result<()> {
    check_hostile(b"$2147483647\r\nx")
}

#[test]
fn one_that_announces_a_list_without_end() -> Result<()> {
    check_hostile(b"*2147483647\r\n$1\r\nx\r\n")
}

#[test]
fn one_that_nests_without_end() -> Result<()> {
    check_hostile(
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
    )
}

#[test]
fn one_that_answers_success_to_everything() -> Result<()> {
    check_hostile(b"+OK\r\n")
}
