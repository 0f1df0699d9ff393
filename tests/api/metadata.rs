//! The metadata API, field by field (pubsub-behaviour, section 12.1).

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::app::App;
use crate::harness::host::Host;
use crate::harness::{http, resource, run, until};

async fn metadata(host: &Host) -> Result<Value> {
    let answer = http::get(host.http()?, "/v1.0/metadata").await?;
    ensure!(answer.status == 200 && answer.header("content-type") == Some("application/json"), "{answer:?}");
    answer.json()
}

async fn set(host: &Host, key: &str, value: &[u8]) -> Result<u16> {
    Ok(http::send(host.http()?, "PUT", &format!("/v1.0/metadata/{key}"), &[], value).await?.status)
}

/// `^(edge|\d+\.\d+\.\d+(-rc\.\d+)?)$`, which Dapr's tests want.
fn is_version(text: &str) -> bool {
    let (numbers, candidate) = text.split_once("-rc.").map_or((text, "0"), |(numbers, candidate)| (numbers, candidate));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    numbers.split('.').count() == 3 && numbers.split('.').all(is_number) && is_number(candidate)
}

#[test]
fn of_a_host_without_anything() -> Result<()> {
    run(async |test| {
        let host = test.host("me")?.start().await?;
        let mut told = metadata(&host).await?;
        let version = told["runtimeVersion"].take();
        ensure!(is_version(version.as_str().unwrap_or_default()), "{version}");
        let expected = json!({
            "id": "me",
            "runtimeVersion": null,
            "enabledFeatures": ["HotReload"],
            "components": [],
            "extended": {"daprRuntimeVersion": version},
            "actorRuntime": {"runtimeStatus": "DISABLED", "hostReady": false, "placement": "placement: disconnected"},
        });
        ensure!(told == expected, "{told:#}");
        Ok(())
    })
}

#[test]
fn components_and_their_capabilities() -> Result<()> {
    run(async |test| {
        let queue = resource::queue("b-queue");
        let hidden = resource::in_memory("hidden") + "scopes: [other]\n";
        let plan = test.host("me")?.resource(queue)?.resource(resource::in_memory("a-bus"))?.resource(hidden)?;
        let host = plan.start().await?;
        let told = metadata(&host).await?;
        let components = told["components"].as_array().context("components")?;
        let names: Vec<&Value> = components.iter().map(|component| &component["name"]).collect();
        ensure!(names == ["a-bus", "b-queue"], "only what the app may use: {components:#?}");
        for component in components {
            ensure!(component["type"] == "pubsub.in-memory" && component["version"] == "v1", "{component:#}");
            let capabilities = component["capabilities"].as_array().context("capabilities")?;
            ensure!(capabilities.iter().all(Value::is_string), "{component:#}");
        }
        // Ours: how each broker stands.
        ensure!(told["extended"]["broker.a-bus"] == "ready", "{told:#}");
        Ok(())
    })
}

/// Listed whether or not they are active, and in full.
#[test]
fn subscriptions() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.subscribe(
            r#"[{"pubsubname": "bus", "topic": "own", "metadata": {"rawPayload": "true"}, "deadLetterTopic": "dead",
                 "routes": {"rules": [{"match": "event.type == \"a\"", "path": "/a"}], "default": "/b"}}]"#,
        );
        let scoped = resource::component("bus", "pubsub.in-memory", &[("subscriptionScopes", "me=t,own")]);
        let mut plan = test.host("me")?.resource(scoped)?;
        for (pubsub, topic) in [("bus", "t"), ("bus", "denied"), ("nobody", "t")] {
            plan = plan.resource(resource::subscription(pubsub, topic, "/in", None))?;
        }
        let host = plan.app(&app).start().await?;
        let told = metadata(&host).await?;
        let declared = |pubsub: &str, topic: &str| json!({"pubsubname": pubsub, "topic": topic, "rules": [{"path": "/in"}], "deadLetterTopic": "", "type": "DECLARATIVE"});
        let own = json!({
            "pubsubname": "bus", "topic": "own", "metadata": {"rawPayload": "true"}, "deadLetterTopic": "dead",
            "rules": [{"match": "event.type == \"a\"", "path": "/a"}, {"path": "/b"}], "type": "PROGRAMMATIC",
        });
        let listed = told["subscriptions"].as_array().context("subscriptions")?;
        for expected in [declared("bus", "t"), declared("bus", "denied"), declared("nobody", "t"), own] {
            ensure!(listed.iter().filter(|found| **found == expected).count() == 1, "{expected:#} in {told:#}");
        }
        ensure!(listed.len() == 4, "{told:#}");
        Ok(())
    })
}

#[test]
fn subscriptions_of_an_app_that_is_not_there() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", Some("dead")))?.start().await?;
        let told = metadata(&host).await?;
        ensure!(told["subscriptions"][0]["topic"] == "t" && told["subscriptions"][0]["deadLetterTopic"] == "dead");
        ensure!(told.get("appConnectionProperties").is_none(), "{told:#}");
        Ok(())
    })
}

#[test]
fn how_the_app_is_reached() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.app(&app);
        let host = plan.clone().start().await?;
        let expected = json!({"port": app.port(), "protocol": "http", "channelAddress": "127.0.0.1"});
        let told = metadata(&host).await?;
        ensure!(told["appConnectionProperties"] == expected, "{told:#}");
        let plan = plan.flag("--app-max-concurrency", "7").flag("--app-channel-address", "localhost");
        let plan = plan.flag("--enable-app-health-check=true", "--app-health-check-path=well");
        let plan = plan.flag("--app-health-probe-interval", "3").flag("--app-health-probe-timeout", "1500");
        let host = plan.flag("--app-health-threshold", "2").start().await?;
        let expected = json!({
            "port": app.port(), "protocol": "http", "channelAddress": "localhost", "maxConcurrency": 7,
            "health": {
                "healthCheckPath": "/well", "healthProbeInterval": "3s", "healthProbeTimeout": "1.5s", "healthThreshold": 2,
            },
        });
        let told = metadata(&host).await?;
        ensure!(told["appConnectionProperties"] == expected, "{told:#}");
        let is_well = async || (metadata(&host).await.ok()?["extended"]["appHealth"] == "healthy").then_some(());
        until("the app's health", is_well).await
    })
}

#[test]
fn resiliencies() -> Result<()> {
    run(async |test| {
        let policies = resource::inbound("bus", "{timeouts: {short: 1s}}", "{timeout: short}");
        let host = test.host("me")?.resource(resource::in_memory("bus"))?.resource(policies)?.start().await?;
        ensure!(metadata(&host).await?["resiliencies"] == json!([{"name": "policies"}]));
        Ok(())
    })
}

#[test]
fn what_the_app_leaves_there() -> Result<()> {
    run(async |test| {
        let host = test.host("me")?.resource(resource::in_memory("bus"))?.start().await?;
        let extended = async || anyhow::Ok(metadata(&host).await?["extended"].take());
        ensure!(set(&host, "label", b"one").await? == 204);
        ensure!(set(&host, "with%20space", "größe".as_bytes()).await? == 204);
        ensure!(set(&host, "empty", b"").await? == 204);
        let told = extended().await?;
        ensure!(told["label"] == "one" && told["with space"] == "größe" && told["empty"] == "", "{told:#}");
        ensure!(set(&host, "label", b"two").await? == 204);
        ensure!(extended().await?["label"] == "two");
        // What is the host's to say stays so.
        ensure!(set(&host, "daprRuntimeVersion", b"99").await? == 204);
        ensure!(set(&host, "broker.bus", b"broken").await? == 204);
        let told = extended().await?;
        ensure!(told["daprRuntimeVersion"] != "99" && told["broker.bus"] == "ready", "{told:#}");
        for path in ["/v1.0/metadata/", "/v1.0/metadata"] {
            let answer = http::send(host.http()?, "PUT", path, &[], b"x").await?;
            ensure!(answer.status == 404, "{path}: {}", answer.status);
        }
        ensure!(http::send(host.http()?, "POST", "/v1.0/metadata/label", &[], b"x").await?.status == 404);
        Ok(())
    })
}

/// `spec.features`.
#[test]
fn a_feature_that_is_off_is_not_listed() -> Result<()> {
    run(async |test| {
        let spec = "{features: [{name: HotReload, enabled: false}]}";
        let host = super::configuration::plan(test, spec)?.start().await?;
        ensure!(metadata(&host).await?["enabledFeatures"] == json!([]));
        Ok(())
    })
}
