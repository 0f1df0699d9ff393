//! Web pages that call the API from a browser (pubsub-behaviour, section 12.7).

use anyhow::{Result, ensure};

use crate::harness::host::Host;
use crate::harness::http::Answer;
use crate::harness::{http, resource, run};

const A: &str = "https://a.example";
const B: &str = "https://b.example:8443";

/// What a page of this origin may do, by what the host answers to a preflight and to a request.
async fn check(host: &Host, origin: &str, allowed: Option<&str>) -> Result<()> {
    let answer = preflight(host, origin, "POST").await?;
    ensure!(answer.status == 200, "{origin}: {}", answer.status);
    ensure!(answer.header("access-control-allow-origin") == allowed, "{origin}: {answer:?}");
    let told = (answer.header("access-control-allow-methods"), answer.header("access-control-allow-headers"));
    let expected = allowed.map_or((None, None), |_| (Some("POST"), Some("x-mine, content-type")));
    ensure!(told == expected, "{origin}: {answer:?}");
    ensure!(varies(&answer, "origin"), "{origin}: {answer:?}");
    let headers = [("origin", origin), ("content-type", "application/json"), ("dapr-api-token", "secret")];
    let answer = http::send(host.http()?, "POST", "/v1.0/publish/bus/t", &headers, b"{}").await?;
    ensure!(answer.status == 204, "what is not the browser's to ask is the browser's to refuse: {}", answer.status);
    ensure!(answer.header("access-control-allow-origin") == allowed && varies(&answer, "origin"), "{answer:?}");
    Ok(())
}

async fn preflight(host: &Host, origin: &str, method: &str) -> Result<Answer> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "x-mine, content-type"),
    ];
    http::send(host.http()?, "OPTIONS", "/v1.0/publish/bus/t", &headers, b"").await
}

fn varies(answer: &Answer, on: &str) -> bool {
    answer.headers.iter().any(|(name, value)| name == "vary" && value.eq_ignore_ascii_case(on))
}

fn with(origins: &str, test: impl AsyncFnOnce(&Host) -> Result<()>) -> Result<()> {
    run(async |scene| {
        let plan = scene.host("me")?.resource(resource::in_memory("bus"))?.env("DAPR_API_TOKEN", "secret");
        test(&plan.flag("--allowed-origins", origins).start().await?).await
    })
}

#[test]
fn the_origins_that_are_named_and_no_other() -> Result<()> {
    with(&format!("{A}, {B}"), async |host| {
        check(host, A, Some(A)).await?;
        check(host, B, Some(B)).await?;
        for other in
            ["http://a.example", "https://a.example:443", "https://a.example.evil", "https://b.example", "null"]
        {
            check(host, other, None).await?;
        }
        Ok(())
    })
}

#[test]
fn every_origin() -> Result<()> {
    with("*", async |host| {
        check(host, A, Some("*")).await?;
        check(host, "null", Some("*")).await
    })
}

#[test]
fn methods_that_pages_may_use() -> Result<()> {
    with(A, async |host| {
        for (method, allowed) in [
            ("HEAD", Some(A)),
            ("GET", Some(A)),
            ("POST", Some(A)),
            ("PUT", Some(A)),
            ("PATCH", Some(A)),
            ("DELETE", Some(A)),
            ("TRACE", None),
            ("ODD", None),
        ] {
            let answer = preflight(host, A, method).await?;
            let told = answer.header("access-control-allow-origin");
            ensure!((answer.status, told) == (200, allowed), "{method}: {answer:?}");
        }
        Ok(())
    })
}

/// Section 12.6: a browser cannot send a token with its question; what it may then send needs one.
#[test]
fn the_question_needs_no_token_and_the_request_does() -> Result<()> {
    with(A, async |host| {
        ensure!(preflight(host, A, "POST").await?.status == 200);
        let answer = http::send(host.http()?, "POST", "/v1.0/publish/bus/t", &[("origin", A)], b"{}").await?;
        ensure!(answer.status == 401, "{}", answer.status);
        // A page must be able to read that it was refused.
        ensure!(answer.header("access-control-allow-origin") == Some(A), "{answer:?}");
        // No question of a browser's: the usual way.
        let answer = http::send(host.http()?, "OPTIONS", "/v1.0/publish/bus/t", &[("origin", A)], b"").await?;
        ensure!(answer.status == 401, "{}", answer.status);
        Ok(())
    })
}

/// Unless it is asked for, there is none of it.
#[test]
fn none() -> Result<()> {
    run(async |test| {
        let host = test.host("me")?.resource(resource::in_memory("bus"))?.start().await?;
        let asked = preflight(&host, A, "POST").await?;
        let headers = [("origin", A), ("content-type", "application/json")];
        let called = http::send(host.http()?, "POST", "/v1.0/publish/bus/t", &headers, b"{}").await?;
        ensure!((asked.status, called.status) == (404, 204), "{} {}", asked.status, called.status);
        for answer in [asked, called] {
            let told = answer.headers.iter().any(|(name, _)| name.starts_with("access-control-") || name == "vary");
            ensure!(!told, "{answer:?}");
        }
        Ok(())
    })
}
