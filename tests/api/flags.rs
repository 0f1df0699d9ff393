//! The command line of daprd (pubsub-behaviour, section 12.8): every flag is taken, what has no effect is named once.

use anyhow::{Context, Result, ensure};

use crate::harness::host::HostPlan;
use crate::harness::{Test, http, resource, run};

/// Flags that mean something here, with a value that changes nothing for a host without an app.
const ACTING: [(&str, &str); 30] = [
    ("app-protocol", "http"),
    ("app-channel-address", "127.0.0.1"),
    ("app-max-concurrency", "-1"),
    ("app-ssl", "false"),
    ("enable-api-logging", "false"),
    ("app-health-check-path", "/healthz"),
    ("app-health-probe-interval", "0"),
    ("app-health-probe-timeout", "500"),
    ("app-health-threshold", "0"),
    ("enable-app-health-check", "false"),
    ("dapr-http-port", "0"),
    ("dapr-listen-addresses", "127.0.0.1"),
    ("dapr-public-port", "0"),
    ("dapr-public-listen-address", "127.0.0.1"),
    ("metrics-port", "0"),
    ("metrics-listen-address", "127.0.0.1"),
    ("enable-metrics", "true"),
    ("log-level", "info"),
    ("log-as-json", "false"),
    ("allowed-origins", "*"),
    ("max-body-size", "4Mi"),
    ("read-buffer-size", "4Ki"),
    ("dapr-http-max-request-size", "4"),
    ("dapr-http-read-buffer-size", "4"),
    ("dapr-graceful-shutdown-seconds", "5"),
    ("dapr-block-shutdown-duration", "1ms"),
    ("disable-init-endpoints", "subscribe,config"),
    ("hot-reload-reconcile-interval", "0"),
    ("wait", "false"),
    ("plugins", "/nowhere"),
];

/// Flags that have no effect here, or not in this version.
const IGNORED: [(&str, &str); 22] = [
    ("dapr-grpc-port", "0"),
    ("dapr-internal-grpc-port", "0"),
    ("dapr-internal-grpc-listen-address", ""),
    ("profile-port", "7777"),
    ("enable-profiling", "false"),
    ("log-file", ""),
    ("mode", "standalone"),
    ("enable-mtls", "false"),
    ("unix-domain-socket", ""),
    ("app-binding-options-timeout", "3s"),
    ("placement-host-address", "localhost:50005"),
    ("scheduler-host-address", "localhost:50006"),
    ("scheduler-job-streams", "3"),
    ("actors-disseminate-timeout", "1s"),
    ("sentry-address", "localhost:50001"),
    ("sentry-request-jwt-audiences", "a"),
    ("control-plane-address", "localhost"),
    ("control-plane-namespace", "default"),
    ("control-plane-trust-domain", "localhost"),
    ("disable-builtin-k8s-secret-store", "true"),
    ("actors-service", "a:1"),
    ("reminders-service", "a:1"),
];

fn plan(test: &Test) -> Result<HostPlan> {
    test.host("me")?.resource(resource::in_memory("bus"))
}

/// With one dash, with two; with `=` and the value in one word.
fn check_all(dashes: &str) -> Result<()> {
    run(async |test| {
        let mut plan = plan(test)?;
        let mut words = ACTING.iter().chain(&IGNORED).map(|(name, value)| format!("{dashes}{name}={value}"));
        while let Some(word) = words.next() {
            // The harness takes them two by two.
            let next = words.next().unwrap_or_else(|| format!("{dashes}log-level=info"));
            plan = plan.flag(&word, &next);
        }
        let host = plan.start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        let log = host.log()?;
        let named: Vec<&str> = log.lines().filter(|line| line.contains("without effect in this version: ")).collect();
        let [line] = named[..] else { anyhow::bail!("{} lines name flags: {log}", named.len()) };
        let (_, named) = line.split_once("version: ").context("flags")?;
        let mut named: Vec<&str> = named.trim().split(", ").map(|flag| flag.trim_start_matches('-')).collect();
        let mut expected: Vec<&str> = IGNORED.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        expected.sort_unstable();
        ensure!(named == expected, "{named:?}");
        Ok(())
    })
}

#[test]
fn every_flag_is_taken() -> Result<()> {
    check_all("--")
}

#[test]
fn every_flag_is_taken_with_one_dash() -> Result<()> {
    check_all("-")
}

/// A switch without a value is on, and swallows nothing.
#[test]
fn switches() -> Result<()> {
    run(async |test| {
        let plan = plan(test)?.flag("--enable-mtls", "--log-as-json").flag("-enable-profiling", "--enable-api-logging");
        let host = plan.start().await?;
        let log = host.log()?;
        for line in log.lines() {
            let parsed: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(parsed["level"].is_string() && parsed["message"].is_string(), "{line}");
        }
        ensure!(log.matches("--enable-mtls").count() == 1 && log.matches("--enable-profiling").count() == 1, "{log}");
        Ok(())
    })
}

/// The older name of `--resources-path`.
#[test]
fn components_path() -> Result<()> {
    run(async |test| {
        let folder = test.folder("components")?;
        std::fs::write(folder.join("a.yaml"), resource::in_memory("more"))?;
        let host = plan(test)?.flag("--components-path", &folder.display().to_string()).start().await?;
        http::publish_ok(host.http()?, "bus/t", "{}").await?;
        http::publish_ok(host.http()?, "more/t", "{}").await
    })
}

/// Only what the level asks for is written.
#[test]
fn log_levels() -> Result<()> {
    run(async |test| {
        let ended = plan(test)?.flag("--log-level", "loud").run_to_the_end().await?;
        ensure!(ended.code == Some(64) && ended.log.contains("--log-level loud"), "{ended:?}");
        for level in ["fatal", "ERROR"] {
            // The harness learns from the log where it listens, so there must be an end.
            let ended = plan(test)?.flag("--log-level", level).flag("--app-port", "1").flag("--dapr-http-port", "1");
            let ended = ended.run_to_the_end().await?;
            ensure!(ended.code == Some(64) && ended.log.lines().count() == 1, "{level}: {ended:?}");
        }
        Ok(())
    })
}

/// What is no flag, and values that cannot be: named, with the exit code for it.
fn check_refused(flag: &str, value: &str, said: &str) -> Result<()> {
    run(async |test| {
        let ended = plan(test)?.flag(flag, value).run_to_the_end().await?;
        ensure!(ended.code == Some(64) && ended.log.contains(said), "{ended:?}");
        Ok(())
    })
}

#[test]
fn no_such_flag() -> Result<()> {
    check_refused("--no-such-flag", "1", "--no-such-flag")
}

#[test]
fn an_app_id_with_a_dot() -> Result<()> {
    check_refused("--app-id", "a.b", "--app-id")
}

#[test]
fn no_app_id() -> Result<()> {
    check_refused("--app-id", "", "--app-id is required")
}

#[test]
fn a_port_that_is_none() -> Result<()> {
    check_refused("--dapr-http-port", "65536", "--dapr-http-port")
}

#[test]
fn a_size_that_is_none() -> Result<()> {
    check_refused("--max-body-size", "4Q", "--max-body-size")
}

#[test]
fn a_duration_that_is_none() -> Result<()> {
    check_refused("--dapr-block-shutdown-duration", "soon", "--dapr-block-shutdown-duration")
}

#[test]
fn an_interval_that_is_none() -> Result<()> {
    check_refused("--hot-reload-reconcile-interval", "often", "--hot-reload-reconcile-interval")
}

#[test]
fn a_protocol_that_is_not_spoken() -> Result<()> {
    check_refused("--app-protocol", "smoke", "--app-protocol smoke")
}
