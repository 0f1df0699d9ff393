//! `kind: Configuration` (`--config`), as far as it can be told from outside: what it closes is closed, what is wrong with it
//! is said, and the rest is named.

use anyhow::{Context, Result, ensure};

use crate::harness::host::HostPlan;
use crate::harness::{Test, http, resource, run};

/// A host with this as the `spec` of its configuration.
pub(super) fn plan(test: &Test, spec: &str) -> Result<HostPlan> {
    let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
    let text = format!("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {{name: c}}\nspec: {spec}\n");
    // Not YAML by its name: it is no resource.
    let file = plan.file("configuration", text)?;
    Ok(plan.flag("--config", &file.display().to_string()))
}

const PUBLISH: (&str, &str) = ("POST", "/v1.0/publish/bus/t");
const BULK: (&str, &str) = ("POST", "/v1.0/publish/bulk/bus/t");
const ALPHA_BULK: (&str, &str) = ("POST", "/v1.0-alpha1/publish/bulk/bus/t");
const METADATA: (&str, &str) = ("GET", "/v1.0/metadata");
const HEALTH: (&str, &str) = ("GET", "/v1.0/healthz");

/// Of all routes only these are closed, and then they are as if they did not exist.
fn check_closed(api: &str, closed: &[(&str, &str)]) -> Result<()> {
    run(async |test| {
        let host = plan(test, &format!("{{api: {api}}}"))?.start().await?;
        for (method, path) in [PUBLISH, BULK, ALPHA_BULK, METADATA, HEALTH] {
            let answer = http::send(host.http()?, method, path, &[], b"[]").await?;
            let expected = if closed.contains(&(method, path)) { 404 } else { answer.status.min(204) };
            ensure!(answer.status == expected, "{api}: {path}: {} {}", answer.status, answer.text());
            if expected == 404 {
                ensure!(answer.json()?["errorCode"] == "ERR_DIRECT_INVOKE", "{api}: {path}: {}", answer.text());
            }
        }
        Ok(())
    })
}

#[test]
fn what_is_denied_is_closed() -> Result<()> {
    check_closed("{denied: [{name: publish, version: v1, protocol: http}]}", &[PUBLISH, BULK])
}

#[test]
fn in_one_version() -> Result<()> {
    check_closed("{denied: [{name: publish, version: v1alpha1, protocol: http}]}", &[ALPHA_BULK])
}

#[test]
fn for_another_protocol_nothing_is() -> Result<()> {
    check_closed("{denied: [{name: publish, version: v1, protocol: grpc}]}", &[])
}

#[test]
fn what_is_not_listed_is_closed() -> Result<()> {
    check_closed("{allowed: [{name: publish, version: v1, protocol: http}]}", &[ALPHA_BULK, METADATA])
}

#[test]
fn metrics_are_switched_off() -> Result<()> {
    run(async |test| {
        let host = plan(test, "{metrics: {enabled: false}}")?.start().await?;
        ensure!(!host.log()?.contains("listening metrics="));
        Ok(())
    })
}

#[test]
fn latencies_are_counted_in_the_buckets_that_are_asked_for() -> Result<()> {
    run(async |test| {
        let host = plan(test, "{metrics: {latencyDistributionBuckets: [7, 70]}}")?.start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        let log = host.log()?;
        let (_, at) = log.split_once("listening metrics=").context("no metrics")?;
        let page = http::get(at.split_whitespace().next().context("an address")?.parse()?, "/metrics").await?.text();
        let buckets: Vec<_> = page.lines().filter(|line| line.contains("egress_latencies_bucket")).collect();
        ensure!(
            buckets.len() == 3 && ["7", "70", "+Inf"].iter().all(|le| page.contains(&format!("le=\"{le}\""))),
            "{page}"
        );
        Ok(())
    })
}

#[test]
fn a_denied_component_is_not_loaded() -> Result<()> {
    run(async |test| {
        let host = plan(test, "{components: {deny: [pubsub.in-memory/v1]}}")?.start().await?;
        let answer = http::publish(host.http()?, "bus/t", "{}").await?;
        ensure!(answer.status == 404 && answer.json()?["errorCode"] == "ERR_PUBSUB_NOT_FOUND", "{}", answer.text());
        Ok(())
    })
}

#[test]
fn what_means_nothing_here_is_named() -> Result<()> {
    run(async |test| {
        let host = plan(test, "{appHttpPipeline: {handlers: []}, accessControl: {}}")?.start().await?;
        let log = host.log()?;
        for key in ["spec.appHttpPipeline", "spec.accessControl"] {
            ensure!(log.matches(key).count() == 1, "{key}: {log}");
        }
        Ok(())
    })
}

/// The host does not start, and says why.
fn check_refused(spec: &str, said: &str) -> Result<()> {
    run(async |test| {
        let ended = plan(test, spec)?.run_to_the_end().await?;
        ensure!(ended.code == Some(78) && ended.log.contains(said), "{ended:?}");
        Ok(())
    })
}

#[test]
fn a_rule_that_cannot_be_read_closes_nothing_so_the_host_does_not_start() -> Result<()> {
    check_refused("{api: {denied: [{name: publish, version: two}]}}", "configuration:4: spec.api.denied[0].version")
}

#[test]
fn no_yaml() -> Result<()> {
    check_refused("{api: [", "configuration")
}

#[test]
fn no_file() -> Result<()> {
    run(async |test| {
        let ended = test.host("me")?.flag("--config", "/nowhere/at/all").run_to_the_end().await?;
        ensure!(ended.code == Some(78) && ended.log.contains("/nowhere/at/all"), "{ended:?}");
        Ok(())
    })
}
