//! TLS to a real Redis, spoken by the host for the sandboxed adapter: whom it trusts, whom it refuses, and what it says.

use anyhow::{Context, Result, ensure};

use crate::harness::app::App;
use crate::harness::certificates::Authority;
use crate::harness::redis::Redis;
use crate::harness::{Test, http, resource, run, until};

/// The resource of a broker over TLS, with some PEM texts and other settings.
fn broker(redis: &Redis, host: &str, pem: &[(&str, &str)], more: &[(&str, &str)]) -> Result<String> {
    let port = redis.tls_port().context("a Redis with TLS")?;
    let mut yaml = resource::redis("bus", format!("{host}:{port}"), &[&[("enableTLS", "true")], more].concat());
    yaml = yaml.replace("spec:\n", "spec:\n  initTimeout: 2s\n");
    for (name, text) in pem {
        let lines: String = text.lines().map(|line| format!("      {line}\n")).collect();
        yaml += &format!("  - name: {name}\n    value: |\n{lines}");
    }
    Ok(yaml)
}

/// Publishes and is delivered to, before and after the connections broke.
async fn works(test: &Test, redis: &mut Redis, broker: &str) -> Result<()> {
    let app = App::start().await?;
    let plan = test.host("me")?.resource(broker)?.resource(resource::subscription("bus", "t", "/in", None))?;
    let host = plan.app(&app).start().await?;
    http::publish_ok(host.http()?, "bus/t", "1").await?;
    app.wait_for(1, "/in").await?;
    assert_eq!(redis.entries("t").await?.len(), 1, "an independent client sees it, without TLS");
    redis.kill().await?;
    redis.start_again().await?;
    until("publishing to work again", async || {
        (http::publish(host.http().ok()?, "bus/t", "2").await.ok()?.status == 204).then_some(())
    })
    .await?;
    until("the message after the gap", async || {
        app.seen_on("/in").iter().any(|seen| seen.data().is_ok_and(|data| data == 2)).then_some(())
    })
    .await
}

/// The start fails, says why in these words, and shows no key.
async fn fails(test: &Test, broker: &str, words: &[&str]) -> Result<()> {
    let ended = test.host("me")?.resource(broker)?.run_to_the_end().await?;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    for word in words {
        ensure!(ended.log.contains(word), "{word:?} is not in\n{}", ended.log);
    }
    ensure!(!ended.log.contains("PRIVATE KEY"), "{}", ended.log);
    Ok(())
}

#[test]
fn an_authority_of_the_resource_is_trusted() -> Result<()> {
    run(async |test| {
        let authority = Authority::new(test)?;
        let mut redis = Redis::start_tls(test, authority.sign_server("127.0.0.1")?, false).await?;
        let broker = broker(&redis, "127.0.0.1", &[("caCert", &authority.pem)], &[])?;
        works(test, &mut redis, &broker).await
    })
}

#[test]
fn a_name_is_checked_as_well_as_an_address() -> Result<()> {
    run(async |test| {
        let authority = Authority::new(test)?;
        let mut redis = Redis::start_tls(test, authority.sign_server("localhost")?, false).await?;
        let pem = [("caCert", authority.pem.as_str())];
        let by_name = broker(&redis, "localhost", &pem, &[])?;
        works(test, &mut redis, &by_name).await?;
        fails(test, &broker(&redis, "127.0.0.1", &pem, &[])?, &["bus", "TLS", "127.0.0.1", "not valid for name"]).await
    })
}

#[test]
fn a_stranger_is_refused() -> Result<()> {
    run(async |test| {
        let (authority, other) = (Authority::new(test)?, Authority::new(test)?);
        let redis = Redis::start_tls(test, authority.sign_server("127.0.0.1")?, false).await?;
        let broker = broker(&redis, "127.0.0.1", &[("caCert", &other.pem)], &[])?;
        fails(test, &broker, &["bus", "TLS", "certificate"]).await
    })
}

#[test]
fn a_stranger_is_taken_by_whoever_says_so() -> Result<()> {
    run(async |test| {
        let authority = Authority::new(test)?;
        let mut redis = Redis::start_tls(test, authority.sign_server("elsewhere.example")?, false).await?;
        let broker = broker(&redis, "127.0.0.1", &[], &[("insecureSkipTLSVerify", "true")])?;
        works(test, &mut redis, &broker).await
    })
}

#[test]
fn a_server_that_asks_gets_this_sides_certificate() -> Result<()> {
    run(async |test| {
        let authority = Authority::new(test)?;
        let mut redis = Redis::start_tls(test, authority.sign_server("127.0.0.1")?, true).await?;
        let me = authority.sign("me")?;
        let pem = [("caCert", authority.pem.as_str()), ("clientCert", &me.certificate), ("clientKey", &me.key)];
        let known = broker(&redis, "127.0.0.1", &pem, &[])?;
        works(test, &mut redis, &known).await?;
        fails(test, &broker(&redis, "127.0.0.1", &pem[..1], &[])?, &["bus"]).await
    })
}

#[test]
fn a_broken_key_is_named_and_not_shown() -> Result<()> {
    run(async |test| {
        let authority = Authority::new(test)?;
        let redis = Redis::start_tls(test, authority.sign_server("127.0.0.1")?, true).await?;
        let me = authority.sign("me")?;
        let key = me.key.replace('A', "*");
        let pem = [("caCert", authority.pem.as_str()), ("clientCert", &me.certificate), ("clientKey", &key)];
        fails(test, &broker(&redis, "127.0.0.1", &pem, &[])?, &["bus", "clientKey"]).await
    })
}

#[test]
fn a_server_without_tls_is_no_hang() -> Result<()> {
    run(async |test| {
        let redis = Redis::start(test).await?;
        let yaml = resource::redis("bus", redis.address(), &[("enableTLS", "true"), ("insecureSkipTLSVerify", "true")]);
        let yaml = yaml.replace("spec:\n", "spec:\n  initTimeout: 2s\n");
        fails(test, &yaml, &["bus", "TLS"]).await
    })
}
