//! The in-memory broker through the whole host, in both of its modes.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::{Test, http, resource, run};

async fn shop(test: &Test, broker: String, topic: &str) -> Result<(App, Host)> {
    let app = App::start().await?;
    let plan = test.host("me")?.resource(broker)?.resource(resource::subscription("bus", topic, "/in", None))?;
    let host = plan.app(&app).start().await?;
    Ok((app, host))
}

fn check_order(broker: &str) -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, broker.into(), "t").await?;
        for n in 0..200 {
            http::publish_ok(host.http()?, "bus/t", &n.to_string()).await?;
        }
        let seen = app.wait_for(200, "/in").await?;
        for (seen, n) in seen.iter().zip(0..) {
            assert_eq!(seen.data()?, n);
        }
        Ok(())
    })
}

#[test]
fn one_subscription_sees_the_order_of_publishing() -> Result<()> {
    check_order(&resource::in_memory("bus"))
}

#[test]
fn like_daprs_a_publish_waits_until_the_message_before_it_is_finished() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, resource::in_memory("bus"), "t").await?;
        app.plan("/in", [Reply::After(Duration::from_secs(4), 200, String::new()), Reply::ok()]);
        let start = Instant::now();
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        assert!(start.elapsed() < Duration::from_millis(3500), "the first waits for nobody: {:?}", start.elapsed());
        http::publish_ok(host.http()?, "bus/t", "2").await?;
        assert!(start.elapsed() >= Duration::from_millis(3900), "the second did not wait: {:?}", start.elapsed());
        app.wait_for(2, "/in").await?;
        Ok(())
    })
}

#[test]
fn like_daprs_a_trailing_star_takes_every_longer_topic() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, resource::in_memory("bus"), "ord*").await?;
        for topic in ["ord", "orders", "or", "ord/er", "Orders"] {
            http::publish_ok(host.http()?, &format!("bus/{topic}"), "{}").await?;
        }
        http::publish_ok(host.http()?, "bus/ord-last", "{}").await?;
        let seen = app.wait_for(3, "/in").await?;
        let topics = seen.iter().map(|seen| Ok(seen.event()?["topic"].as_str().context("topic")?.to_owned()));
        assert_eq!(topics.collect::<Result<Vec<_>>>()?, ["orders", "ord/er", "ord-last"]);
        Ok(())
    })
}

#[test]
fn a_queue_delivers_again_until_it_is_acknowledged() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, resource::queue("bus"), "t").await?;
        app.plan("/in", [Reply::status(500), Reply::word("RETRY"), Reply::Cut, Reply::ok()]);
        http::publish_ok(host.http()?, "bus/t", r#"{"a":1}"#).await?;
        let seen = app.wait_for(4, "/in").await?;
        assert!(seen.iter().all(|again| again.body == seen[0].body), "the same event each time");
        Ok(())
    })
}

#[test]
fn in_a_queue_a_message_that_waits_for_its_next_attempt_lets_others_pass() -> Result<()> {
    run(async |test| {
        let (app, host) = shop(test, resource::queue("bus"), "t").await?;
        app.plan("/in", [Reply::status(500), Reply::ok()]);
        for n in 0..20 {
            http::publish_ok(host.http()?, "bus/t", &n.to_string()).await?;
        }
        let seen = app.wait_for(21, "/in").await?;
        let mut numbers: Vec<_> = seen.iter().filter_map(|seen| seen.data().ok()?.as_u64()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn queues_that_are_full_together_take_no_more_and_lose_nothing() -> Result<()> {
    run(async |test| {
        let mut app = App::start().await?;
        let mut plan = test.host("me")?.resource(resource::queue("bus"))?;
        for topic in ["a", "b", "c", "d", "e"] {
            plan = plan.resource(resource::subscription("bus", topic, "/in", None))?;
        }
        let host = plan.app(&app).start().await?;
        app.crash().await;
        let megabyte = "x".repeat(1 << 20);
        let mut stored = 0;
        let refused = loop {
            // Each queue has room for one more when they are full together.
            let topic = ["a", "b", "c", "d", "e"][stored % 5];
            let body = format!(r#"{{"n":{stored},"more":"{megabyte}"}}"#);
            let answer = http::publish(host.http()?, &format!("bus/{topic}"), &body).await?;
            if answer.status != 204 {
                break answer;
            }
            stored += 1;
        };
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!((100..128).contains(&stored), "{stored}");
        app.start_again().await?;
        app.wait_for(stored, "/in").await?;
        let numbers = app.take_seen().into_iter().map(|seen| seen.data()?["n"].as_u64().context("n"));
        let numbers = numbers.collect::<Result<std::collections::BTreeSet<_>>>()?;
        assert_eq!(numbers.len(), stored, "all of them");
        http::publish_ok(host.http()?, "bus/a", &megabyte).await
    })
}
