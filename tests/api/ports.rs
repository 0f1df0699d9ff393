//! The addresses a host listens on (pubsub-behaviour, sections 12.1, 12.2 and 12.8): all of them that are asked for, and on the
//! public one health and metadata alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::host::{Host, HostPlan};
use crate::harness::{Test, http, resource, run};

/// Longer than an answer takes.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Where a host serves this, as its log says.
pub(super) fn listens(host: &Host, what: &str) -> Result<SocketAddr> {
    let log = host.log()?;
    let (_, rest) = log.split_once(&format!("listening {what}=")).with_context(|| format!("nothing serves {what}"))?;
    Ok(rest.split_whitespace().next().context("an address")?.parse()?)
}

fn plan(test: &Test) -> Result<HostPlan> {
    let plan = test.host("me")?.resource(resource::in_memory("bus"))?.env("DAPR_API_TOKEN", "secret");
    Ok(plan.flag("--dapr-public-port", "0").flag("--dapr-public-listen-address", "127.0.0.1"))
}

/// Sections 12.1, 12.2 and 12.6: whoever can reach it may ask, without a token.
#[test]
fn the_public_port_has_health_and_metadata() -> Result<()> {
    run(async |test| {
        let host = plan(test)?.start().await?;
        let public = listens(&host, "public")?;
        for path in ["/v1.0/healthz", "/v1.0/healthz?appid=me", "/v1.0/healthz/outbound"] {
            let answer = http::get(public, path).await?;
            ensure!(answer.status == 204 && answer.body.is_empty(), "{path}: {} {}", answer.status, answer.text());
        }
        let other = http::get(public, "/v1.0/healthz?appid=you").await?;
        ensure!(other.status == 500 && other.json()?["errorCode"] == "ERR_HEALTH_APPID_NOT_MATCH", "{}", other.text());
        let answer = http::get(public, "/v1.0/metadata").await?;
        ensure!(answer.status == 200, "{}", answer.text());
        let token = [("dapr-api-token", "secret")];
        let usual = http::send(host.http()?, "GET", "/v1.0/metadata", &token, b"").await?;
        ensure!(answer.json()? == usual.json()?, "{}\n{}", answer.text(), usual.text());
        Ok(())
    })
}

/// Section 12.8: nothing changes there, and nothing is published.
#[test]
fn the_public_port_has_nothing_else() -> Result<()> {
    run(async |test| {
        let host = plan(test)?.start().await?;
        let public = listens(&host, "public")?;
        let token = [("dapr-api-token", "secret"), ("content-type", "application/json")];
        for (method, path) in [
            ("POST", "/v1.0/publish/bus/t"),
            ("POST", "/v1.0/publish/bulk/bus/t"),
            ("POST", "/v1.0-alpha1/publish/bulk/bus/t"),
            ("PUT", "/v1.0/metadata/key"),
            ("POST", "/v1.0/shutdown"),
            ("GET", "/v1.0/openapi.json"),
            ("POST", "/v1.0/healthz"),
            ("GET", "/"),
        ] {
            let answer = http::send(public, method, path, &token, b"[]").await?;
            let known = answer.json().is_ok_and(|body| body["errorCode"] == "ERR_DIRECT_INVOKE");
            ensure!(answer.status == 404 && known, "{method} {path}: {} {}", answer.status, answer.text());
        }
        // It has not been stopped.
        ensure!(http::get(public, "/v1.0/healthz").await?.status == 204);
        Ok(())
    })
}

#[test]
fn without_being_asked_for_there_is_no_public_port() -> Result<()> {
    run(async |test| {
        let host = test.host("me")?.resource(resource::in_memory("bus"))?.start().await?;
        ensure!(listens(&host, "public").is_err());
        Ok(())
    })
}

/// Section 12.8, `--dapr-listen-addresses`.
#[test]
fn the_api_is_on_every_address_that_is_named() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let host = plan.flag("--dapr-listen-addresses", "127.0.0.1, 127.0.0.2").start().await?;
        let log = host.log()?;
        let mut served = Vec::new();
        for found in log.split("listening http=").skip(1) {
            let at: SocketAddr = found.split_whitespace().next().context("an address")?.parse()?;
            http::publish_ok(at, "bus/t", "{}").await?;
            served.push(at.ip().to_string());
        }
        ensure!(served == ["127.0.0.1", "127.0.0.2"], "{served:?}");
        Ok(())
    })
}

/// What a host answers to the first words of HTTP/2 (RFC 9113, section 3.4): whether these are words of it, too.
async fn speaks_http2(at: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(at).await?;
    // The preface and an empty SETTINGS frame.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut head = [0; 9];
    let told = tokio::time::timeout(WAIT_MAX, stream.read_exact(&mut head)).await.context("no answer")?;
    // Length, type, flags, stream: SETTINGS is 4.
    Ok(told.is_ok() && head[3] == 4 && head[5..] == [0; 4])
}

/// Sections 1.1 and 12.9, `DAPR_HTTP_DISABLE_H2C`.
#[test]
fn http2_can_be_switched_off() -> Result<()> {
    run(async |test| {
        for (disabled, speaks) in [(None, true), (Some("false"), true), (Some("true"), false), (Some("1"), false)] {
            let mut plan = test.host("me")?.resource(resource::in_memory("bus"))?;
            if let Some(disabled) = disabled {
                plan = plan.env("DAPR_HTTP_DISABLE_H2C", disabled);
            }
            let host = plan.start().await?;
            ensure!(speaks_http2(host.http()?).await? == speaks, "{disabled:?}");
            http::publish_ok(host.http()?, "bus/t", "{}").await?;
        }
        Ok(())
    })
}

/// Section 12.8: two programs cannot have one port.
fn check_conflict(flag: &str) -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        // Whatever port it is, nothing listens there: the flags alone are wrong.
        let ended = plan.flag("--app-port", "3999").flag(flag, "3999").run_to_the_end().await?;
        ensure!(ended.code == Some(64) && ended.log.contains(flag), "{ended:?}");
        Ok(())
    })
}

#[test]
fn the_apps_port_is_not_that_of_the_api() -> Result<()> {
    check_conflict("--dapr-http-port")
}

#[test]
fn the_apps_port_is_not_that_of_the_metrics() -> Result<()> {
    check_conflict("--metrics-port")
}

#[test]
fn the_apps_port_is_not_the_public_one() -> Result<()> {
    check_conflict("--dapr-public-port")
}
