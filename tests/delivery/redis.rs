//! Redis, end to end: what is stored, what comes back, who takes over.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::app::{App, Reply};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::redis::{Credentials, Redis};
use crate::harness::{http, resource, run, until};

#[test]
fn stores_the_event_and_its_metadata_under_daprs_field_names() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let host = test.host("me")?.resource(resource::redis("bus", redis.address(), &[]))?.start().await?;
        http::publish_ok(host.http()?, "bus/t?metadata.colour=red&metadata.empty=", r#"{"a":1}"#).await?;
        let entries = redis.entries("t").await?;
        let entry = entries.first().context("an entry")?;
        let event: Value = serde_json::from_slice(&entry.data)?;
        assert_eq!((&event["data"], &event["source"], &event["topic"]), (&json!({"a": 1}), &json!("me"), &json!("t")));
        let metadata: Value = serde_json::from_str(entry.metadata.as_deref().context("metadata")?)?;
        assert_eq!((&metadata["colour"], &metadata["empty"]), (&json!("red"), &json!("")));
        Ok(())
    })
}

#[test]
fn carries_any_bytes_unchanged() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let app = App::start().await?;
        let raw = resource::subscription("bus", "t", "/in", None) + "  metadata:\n    rawPayload: \"true\"\n";
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let host = plan.resource(raw)?.app(&app).start().await?;
        let every_byte: Vec<u8> = (0..=255).collect();
        let payloads: Vec<Vec<u8>> = vec![
            vec![],
            vec![0],
            every_byte.clone(),
            b"\r\n$-1\r\n*3\r\n+OK\r\n".to_vec(),
            b"\xff\xfe\xc3(".to_vec(),
            vec![b'x'; 65_535],
            vec![b'x'; 65_536],
            every_byte.repeat(4096),
        ];
        for payload in &payloads {
            let headers = [("content-type", "application/octet-stream")];
            let path = "/v1.0/publish/bus/t?metadata.rawPayload=true";
            assert_eq!(http::send(host.http()?, "POST", path, &headers, payload).await?.status, 204);
        }
        let mut came: Vec<Vec<u8>> = vec![];
        for seen in app.wait_for(payloads.len(), "/in").await? {
            came.push(STANDARD.decode(seen.event()?["data_base64"].as_str().context("data_base64")?)?);
        }
        assert!(came.into_iter().collect::<BTreeSet<_>>() == payloads.into_iter().collect(), "some bytes were altered");
        Ok(())
    })
}

/// With `countRedeliveries` a message that ends the host at each attempt ends itself: in the dead-letter topic, unseen.
#[test]
fn a_message_that_kills_its_host_does_not_come_back_for_ever() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        // Long enough for a host to start before it gets what the one before had.
        let broker = resource::redis("bus", redis.address(), &[("processingTimeout", "5s")]);
        let publisher = test.host("shop")?.resource(&broker)?.start().await?;
        let app = App::start().await?;
        let policies = "{retries: {again: {policy: constant, duration: 50ms, maxRetries: 1}}}";
        let counted =
            resource::subscription("bus", "t", "/in", Some("dead")) + "  metadata: {countRedeliveries: \"true\"}\n";
        let plan = test.host("me")?.resource(&broker)?.resource(counted)?;
        let plan = plan.resource(resource::inbound("bus", policies, "{retry: again}"))?.app(&app);
        let mut host = plan.env("WHIMBREL_CRASH_AT", "deliver.handled").start().await?;
        http::publish_ok(publisher.http()?, "bus/t", "1").await?;
        for attempt in ["1", "2"] {
            host.ended().await?;
            let seen = app.seen_on("/in");
            let last = seen.last().context("it was not sent")?;
            assert_eq!(last.headers.get("whimbrel-attempt").map(String::as_str), Some(attempt));
            host.start_again(|plan| plan).await?;
        }
        let dead = until("the dead letter", async || redis.entries("dead").await.ok().filter(|dead| !dead.is_empty()));
        assert_eq!(dead.await?.len(), 1);
        assert_eq!(app.seen_on("/in").len(), 2, "the app was asked a third time");
        http::get(host.http()?, "/v1.0/healthz").await.map(drop)
    })
}

#[test]
fn a_new_group_reads_what_was_published_before_it() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let publisher = test.host("shop")?.resource(resource::redis("bus", redis.address(), &[]))?.start().await?;
        for n in 0..50 {
            http::publish_ok(publisher.http()?, "bus/t", &n.to_string()).await?;
        }
        let app = App::start().await?;
        let plan = test.host("late")?.resource(resource::redis("bus", redis.address(), &[]))?;
        let _late = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        app.wait_for(50, "/in").await?;
        Ok(())
    })
}

#[test]
fn a_replica_takes_over_what_a_killed_one_held() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let broker = resource::redis("bus", redis.address(), &[("processingTimeout", "1s")]);
        let subscription = resource::subscription("bus", "t", "/in", None);
        let (held, healthy) = (App::start().await?, App::start().await?);
        held.plan("/in", [Reply::Never]);
        let plan = test.host("me")?.resource(&broker)?.resource(&subscription)?.app(&held);
        let mut doomed = plan.start().await?;
        for n in 0..10 {
            http::publish_ok(doomed.http()?, "bus/t", &n.to_string()).await?;
        }
        held.wait_for(1, "/in").await?;
        doomed.kill().await?;
        let plan = test.host("me")?.resource(&broker)?.resource(&subscription)?.app(&healthy);
        let _survivor = plan.start().await?;
        let seen = healthy.wait_for(10, "/in").await?;
        let numbers: BTreeSet<_> = seen.iter().filter_map(|seen| seen.data().ok()?.as_u64()).collect();
        assert_eq!(numbers, (0..10).collect());
        let acknowledged = async || (redis.pending("t", "me").await.ok()? == 0).then_some(());
        until("all to be acknowledged", acknowledged).await
    })
}

#[test]
fn a_handler_that_takes_three_leases_is_asked_once() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let short = [("processingTimeout", "500ms"), ("redeliverInterval", "100ms")];
        let broker = resource::redis("bus", redis.address(), &short);
        let subscription = resource::subscription("bus", "t", "/in", None);
        let app = App::start().await?;
        app.plan("/in", [Reply::After(Duration::from_millis(1800), 200, String::new())]);
        let first = test.host("me")?.resource(&broker)?.resource(&subscription)?.app(&app).start().await?;
        let _second = test.host("me")?.resource(&broker)?.resource(&subscription)?.app(&app).start().await?;
        for n in 0..4 {
            http::publish_ok(first.http()?, "bus/t", &n.to_string()).await?;
        }
        until("all to be acknowledged", async || {
            let done = app.seen_on("/in").len() >= 4 && redis.pending("t", "me").await.ok()? == 0;
            done.then_some(())
        })
        .await?;
        assert_eq!(app.seen_on("/in").len(), 4, "a lease that is kept is not claimed by a sibling");
        Ok(())
    })
}

#[test]
fn a_publish_whose_confirm_is_lost_is_not_answered_with_success() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let proxy = Proxy::start(redis.address()).await?;
        let host = test.host("me")?.resource(resource::redis("bus", proxy.address(), &[]))?.start().await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        let address = host.http()?;
        let (cut, answer) = tokio::join!(proxy.strike(Mode::Swallow(1)), http::publish(address, "bus/t", "2"));
        cut?;
        let answer = answer?;
        assert_eq!((answer.status, answer.json()?["errorCode"].as_str()), (500, Some("ERR_PUBSUB_PUBLISH_MESSAGE")));
        http::publish_ok(host.http()?, "bus/t", "3").await?;
        let stored = redis.entries("t").await?.len();
        assert!((2..=3).contains(&stored), "{stored} entries for one confirmed, one unknown and one confirmed publish");
        Ok(())
    })
}

#[test]
fn logs_in_with_user_and_password() -> Result<()> {
    run(async |test| {
        let credentials = Credentials { user: "whimbrel".into(), password: "s3cret-word".into() };
        let redis = Redis::start_for(test, credentials).await?;
        let login = [("redisUsername", "whimbrel"), ("redisPassword", "s3cret-word")];
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &login))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        app.wait_for(1, "/in").await?;
        assert!(!host.log()?.contains("s3cret-word"), "the password is in the log");
        Ok(())
    })
}

#[test]
fn a_wrong_password_ends_the_start_and_names_the_setting_but_not_its_value() -> Result<()> {
    run(async |test| {
        let credentials = Credentials { user: "whimbrel".into(), password: "s3cret-word".into() };
        let redis = Redis::start_for(test, credentials).await?;
        let login = [("redisUsername", "whimbrel"), ("redisPassword", "wr0ng-word")];
        let plan = test.host("me")?.resource(resource::redis("bus", redis.address(), &login))?;
        let ended = plan.run_to_the_end().await?;
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("bus") && ended.log.contains("redisPassword"), "{}", ended.log);
        assert!(!ended.log.contains("wr0ng-word"), "the password is in the log");
        Ok(())
    })
}
