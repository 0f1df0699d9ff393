//! What is spoken with the app (pubsub-behaviour 6.8): the same requests and answers over each of them.

use anyhow::Result;
use serde_json::json;

use crate::harness::app::{App, Reply, Speaks};
use crate::harness::{http, resource, run};

/// An app that subscribes by itself, has a word for each event, and goes away for a while.
fn check(speaks: Speaks, protocol: &str) -> Result<()> {
    run(async |test| {
        let mut app = App::start_speaking(speaks).await?;
        app.subscribe(&json!([{"pubsubname": "bus", "topic": "t", "route": "/in?x=1"}]).to_string());
        app.plan("/in?x=1", [Reply::word("RETRY"), Reply::status(500), Reply::Cut, Reply::ok()]);
        let plan = test.host("me")?.resource(resource::queue("bus"))?.env("APP_API_TOKEN", "word");
        let plan = plan.flag("--app-protocol", protocol);
        let plan = plan.flag("--enable-app-health-check=true", "--app-health-check-path=well");
        let host = plan.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/t", r#"{"n":1}"#).await?;
        let seen = app.wait_for(4, "/in?x=1").await?;
        for seen in &seen {
            assert_eq!((seen.data()?, &*seen.method), (json!({"n": 1}), "POST"));
            assert_eq!(seen.headers.get("dapr-api-token").map(String::as_str), Some("word"));
        }
        app.wait_for(1, "/well").await?;
        let metadata = http::get(host.http()?, "/v1.0/metadata").await?.json()?;
        assert_eq!(metadata["appConnectionProperties"]["protocol"], protocol.to_lowercase());
        // The connections that were kept are gone, and the host comes to know it.
        app.crash().await;
        http::publish_ok(host.http()?, "bus/t", r#"{"n":2}"#).await?;
        app.start_again().await?;
        let large = "x".repeat(300_000);
        http::publish_ok(host.http()?, "bus/t", &json!({ "n": large }).to_string()).await?;
        let seen = app.wait_for(6, "/in?x=1").await?;
        assert!(seen.iter().any(|seen| seen.body.len() > 300_000), "one was large");
        Ok(())
    })
}

#[test]
fn https_whose_certificate_nobody_signed() -> Result<()> {
    check(Speaks::Https, "https")
}

#[test]
fn http2_without_tls() -> Result<()> {
    check(Speaks::H2c, "H2C")
}

#[test]
fn http() -> Result<()> {
    check(Speaks::Http, "http")
}

/// Two hundred events, sixteen at a time.
#[test]
fn http2_with_many_at_a_time() -> Result<()> {
    run(async |test| {
        let app = App::start_speaking(Speaks::H2c).await?;
        let plan = test.host("me")?.resource(resource::queue("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?;
        let host = plan.flag("--app-protocol", "h2c").flag("--app-max-concurrency", "16").app(&app).start().await?;
        for n in 0..200 {
            http::publish_ok(host.http()?, "bus/t", &n.to_string()).await?;
        }
        let seen = app.wait_for(200, "/in").await?;
        let numbers =
            seen.iter().map(|seen| Ok(seen.data()?.as_u64())).collect::<Result<std::collections::BTreeSet<_>>>()?;
        assert_eq!(numbers.len(), 200);
        Ok(())
    })
}
