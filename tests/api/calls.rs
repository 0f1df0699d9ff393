//! A line in the log for each call of the API (pubsub-behaviour 13.4).

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::harness::host::HostPlan;
use crate::harness::{http, resource, run};

/// The lines about calls, without what differs each time.
fn lines(log: &str) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for line in log.lines().filter(|line| line.contains("HTTP API Called")) {
        let mut line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let fields = line.as_object_mut().context("an object")?;
        assert!(fields.remove("duration").is_some_and(|millis| millis.is_u64()), "{fields:?}");
        fields.remove("timestamp").context("its time")?;
        fields.remove("target");
        lines.push(line);
    }
    Ok(lines)
}

/// What is called.
const CALLS: [(&str, &str); 3] =
    [("POST", "/v1.0/publish/bus/a%20b?metadata.x=secret"), ("GET", "/v1.0/healthz"), ("GET", "/x")];

/// A host is called; of these calls there are lines, by their number and what stands in place of the method.
fn check(change: impl Fn(HostPlan) -> Result<HostPlan>, expected: &[(usize, &str)]) -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.flag("--log-as-json", "--log-level=info");
        let mut host = change(plan)?.start().await?;
        let mut answers = Vec::new();
        for (method, path) in CALLS {
            let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nuser-agent: me\r\nconnection: close\r\n");
            answers.push(http::raw(host.http()?, format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).await?);
        }
        host.stop().await?;
        let log = host.log()?;
        assert!(!log.contains("secret"), "a query is nobody's business");
        // Whoever started the host asks for its health, too, and says not who it is.
        let found: Vec<_> = lines(&log)?.into_iter().filter(|line| line["useragent"] == "me").collect();
        let line = |(number, method): &(usize, &str)| {
            let (code, size) = (answers[*number].status, answers[*number].body.len());
            let message = "HTTP API Called";
            json!({"level": "INFO", "message": message, "method": method, "useragent": "me", "code": code, "size": size})
        };
        assert_eq!(found, expected.iter().map(line).collect::<Vec<_>>());
        Ok(())
    })
}

/// A configuration with such `apiLogging`.
fn configured(logging: &str) -> impl Fn(HostPlan) -> Result<HostPlan> {
    let head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: { name: c }\nspec:\n";
    let yaml = format!("{head}  logging: {{ apiLogging: {logging} }}\n");
    move |plan| {
        let file = plan.file("configuration.yaml", &yaml)?;
        Ok(plan.flag("--config", &file.display().to_string()))
    }
}

const WHOLE: [(usize, &str); 3] = [(0, "POST /v1.0/publish/bus/a%20b"), (1, "GET /v1.0/healthz"), (2, "GET /x")];

#[test]
fn nobody_asked() -> Result<()> {
    check(Ok, &[])
}

#[test]
fn the_flag() -> Result<()> {
    check(|plan| Ok(plan.flag("--enable-api-logging", "--wait=false")), &WHOLE)
}

#[test]
fn the_configuration() -> Result<()> {
    check(configured("{ enabled: true }"), &WHOLE)
}

#[test]
fn the_flag_wins() -> Result<()> {
    let configured = configured("{ enabled: true }");
    check(move |plan| Ok(configured(plan)?.flag("--enable-api-logging=false", "--wait=false")), &[])
}

#[test]
fn without_paths_and_without_health() -> Result<()> {
    let logging = "{ enabled: true, obfuscateURLs: true, omitHealthChecks: true }";
    check(configured(logging), &[(0, "PublishEvent"), (2, "Unknown")])
}
