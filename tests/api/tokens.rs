//! The token of the API and that of the app (pubsub-behaviour, section 12.6).

use anyhow::{Result, ensure};

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{http, resource, run};

/// Every path of the API, and one that is none; whether it is for health.
const PATHS: [(&str, &str, bool); 11] = [
    ("POST", "/v1.0/publish/bus/t", false),
    ("PUT", "/v1.0/publish/bus/t", false),
    ("POST", "/v1.0/publish/bulk/bus/t", false),
    ("POST", "/v1.0-alpha1/publish/bulk/bus/t", false),
    ("GET", "/v1.0/metadata", false),
    ("PUT", "/v1.0/metadata/key", false),
    ("GET", "/v1.0/openapi.json", false),
    ("GET", "/nothing/of/ours", false),
    ("POST", "/v1.0/healthz", false),
    ("GET", "/v1.0/healthz", true),
    ("GET", "/v1.0/healthz/outbound", true),
];

async fn check(host: &Host, headers: &[(&str, &str)], is_admitted: bool) -> Result<()> {
    for (method, path, is_health) in PATHS {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        let answer = http::send(host.http()?, method, path, &headers, b"[]").await?;
        let what = format!("{method} {path} {headers:?}: {} {}", answer.status, answer.text());
        ensure!((answer.status != 401) == (is_admitted || is_health), "{what}");
        if answer.status == 401 {
            ensure!(answer.text() == "invalid api token", "{what}");
            ensure!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{what}");
        }
    }
    Ok(())
}

#[test]
fn every_path_but_those_of_health_needs_the_token() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.env("DAPR_API_TOKEN", "Secret-1");
        let mut host = plan.start().await?;
        for wrong in ["", "secret-1", "Secret-", "Secret-11", "Bearer Secret-1"] {
            check(&host, &[("dapr-api-token", wrong)], false).await?;
        }
        check(&host, &[], false).await?;
        check(&host, &[("authorization", "Bearer Secret-1")], false).await?;
        check(&host, &[("Dapr-API-Token", "Secret-1")], true).await?;
        // Who has none cannot stop the host either.
        for force in [&[][..], &[("dapr-force-shutdown", "true")]] {
            ensure!(http::send(host.http()?, "POST", "/v1.0/shutdown", force, b"").await?.status == 401);
        }
        ensure!(http::get(host.http()?, "/v1.0/healthz").await?.status == 204);
        let token = [("dapr-api-token", "Secret-1")];
        ensure!(http::send(host.http()?, "POST", "/v1.0/shutdown", &token, b"").await?.status == 204);
        let ended = host.ended().await?;
        ensure!(ended.code == Some(0) && !ended.log.contains("Secret-1"), "{ended:?}");
        Ok(())
    })
}

/// A variable that is set and empty is none, as an orchestrator leaves it.
#[test]
fn an_empty_token_is_none() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.env("DAPR_API_TOKEN", "");
        check(&plan.start().await?, &[], true).await
    })
}

/// Sent with each event.
#[test]
fn the_app_is_shown_its_token() -> Result<()> {
    run(async |test| {
        for (token, expected) in [("Secret-2", Some("Secret-2")), ("", None)] {
            let app = App::start().await?;
            let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
            let plan = plan.resource(resource::subscription("bus", "t", "/in", None))?.env("APP_API_TOKEN", token);
            let host = plan.app(&app).flag("--enable-app-health-check=true", "--log-level=debug").start().await?;
            http::publish_ok(host.http()?, "bus/t", "{}").await?;
            // Section 6.9: whoever asks for its health shows none.
            for (path, expected) in [("/in", expected), ("/healthz", None)] {
                let seen = app.wait_for(1, path).await?;
                let shown = seen[0].headers.get("dapr-api-token").map(String::as_str);
                ensure!(shown == expected, "{path}: {:?}", seen[0].headers);
            }
            ensure!(!host.log()?.contains("Secret-2"));
        }
        Ok(())
    })
}
