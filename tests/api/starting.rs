//! What ends a start, in which words, and how long many components take (pubsub-behaviour 9).
//!
//! | row | where else |
//! |---|---|
//! | 9 wrong resources are told all at once, with file, line and key | security/resources, cli/check |
//! | 9 `ignoreErrors` of what is wrong from the start | resources |
//! | 9 the exit code is 78 where a resource is wrong, and not 1 | a difference that is meant: see `better` |

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tokio::time::Instant;

use super::tally::Tally;
use crate::harness::app::App;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::{Test, http, resource, run, until_within};

/// What opening may take in these tests, as it stands in the resource.
const INIT_TIMEOUT: &str = "spec:\n  initTimeout: 1s\n";

fn wrong_from_the_start() -> Vec<(&'static str, String, i32, &'static str)> {
    let bus = resource::in_memory("bus");
    let with = |from: &str, to: &str| bus.replacen(from, to, 1);
    let pod = "metadata:\n  - {name: client, value: \"{podName}-1\"}\n";
    let named = |name: &str| resource::in_memory(name);
    vec![
        (
            "9 no such type",
            with("pubsub.in-memory", "pubsub.nothing"),
            1,
            "process component bus error: [INIT_COMPONENT_FAILURE]: initialization error occurred for bus \
             (pubsub.nothing/v1): couldn't find message bus pubsub.nothing/v1",
        ),
        (
            "9 no such version",
            with("version: v1", "version: v2"),
            1,
            "process component bus error: [INIT_COMPONENT_FAILURE]: initialization error occurred for bus \
             (pubsub.in-memory/v2): couldn't find message bus pubsub.in-memory/v2",
        ),
        (
            "9 two of one name",
            format!("{bus}---\n{}", with("pubsub.in-memory", "pubsub.redis")),
            78,
            "duplicate definition of Component name bus (pubsub.redis/v1) with existing bus (pubsub.in-memory/v1)",
        ),
        (
            "9 two of one name and type",
            format!("{bus}---\n{bus}"),
            78,
            "duplicate definition of Component name bus (pubsub.in-memory/v1) with existing bus (pubsub.in-memory/v1)",
        ),
        (
            "7 {podName} without a pod",
            with("metadata: []\n", pod),
            78,
            "failed to parse metadata: property client refers to {podName} but podName is not set",
        ),
        ("9 a name with a slash", named("a/b"), 78, "\"a/b\" is no name"),
        ("9 a name with a percent sign", named("a%b"), 78, "\"a%b\" is no name"),
        ("9 the name .", named("."), 78, "\".\" is no name"),
        ("9 the name ..", named(".."), 78, "\"..\" is no name"),
        ("9 no name", named("\"\""), 78, "metadata.name: is missing"),
        ("9 no type", with("  type: pubsub.in-memory\n", ""), 78, "spec.type: is missing"),
        ("9 no list of scopes", bus.clone() + "scopes: me\n", 78, "scopes: expected a list, found a text"),
        ("10.1 a duration that is none", policy("timeouts: {t: soon}"), 78, "spec.policies.timeouts.t: \"soon\""),
        ("10.3 codes with a blank", matching("httpStatusCodes: \"429, 500\""), 78, "httpStatusCodes: \"429, 500\""),
        ("10.3 a code that is none", matching("httpStatusCodes: \"99\""), 78, "httpStatusCodes: \"99\""),
        ("10.3 a code beyond", matching("gRPCStatusCodes: \"17\""), 78, "gRPCStatusCodes: \"17\""),
        ("10.3 a range that ends before it begins", matching("httpStatusCodes: 500-400"), 78, "\"500-400\""),
        (
            "10.3 a trip that is none",
            policy("circuitBreakers: {c: {trip: failures > 1}}"),
            78,
            "circuitBreakers.c.trip",
        ),
    ]
}

fn policy(policies: &str) -> String {
    resource::inbound("bus", &format!("{{{policies}}}"), "{}")
}

fn matching(codes: &str) -> String {
    policy(&format!("retries: {{r: {{matching: {{{codes}}}}}}}"))
}

#[test]
fn what_ends_it() -> Result<()> {
    run(async |test| {
        let ends = join_all(wrong_from_the_start().into_iter().map(async |(row, yaml, code, said)| {
            let ended = test.host("me")?.resource(yaml)?.run_to_the_end().await?;
            anyhow::Ok((row, ended, code, said))
        }));
        let mut rows = Tally::default();
        for end in ends.await {
            let (row, ended, code, said) = end?;
            rows.check(&format!("{row}: the exit code"), ended.code, Some(code));
            let found = ended.log.contains(said);
            rows.check(&format!("{row}: it says so{}", if found { "" } else { &ended.log }), found, true);
        }
        rows.end()
    })
}

/// A broker that takes connections and never answers.
async fn silent() -> Result<(App, Proxy, SocketAddr)> {
    let app = App::start().await?;
    let proxy = Proxy::start(app.address()).await?;
    proxy.set(Mode::BlackHole);
    let address = proxy.address();
    Ok((app, proxy, address))
}

#[test]
fn a_broker_that_does_not_open_in_time() -> Result<()> {
    run(async |test| {
        let (_app, _proxy, address) = silent().await?;
        let silent = resource::redis("bus", address, &[]).replacen("spec:\n", INIT_TIMEOUT, 1);
        let ended = test.host("me")?.resource(&silent)?.run_to_the_end().await?;
        let said = "process component bus error: [INIT_COMPONENT_FAILURE]: initialization error occurred for bus (pubsub.redis/v1): ";
        ensure!(ended.code == Some(1) && ended.log.contains(said), "9 initTimeout: {ended:?}");
        let ignoring = silent.replacen("spec:\n", "spec:\n  ignoreErrors: true\n", 1);
        let plan = test.host("me")?.resource(ignoring)?.resource(resource::in_memory("other"))?;
        let host = plan.start().await?;
        ensure!(host.log()?.contains("ignoreErrors"), "9 ignoreErrors: {}", host.log()?);
        http::publish_ok(host.http()?, "other/t", "1").await
    })
}

/// Half of a thousand times two components are this app's.
#[test]
fn a_thousand_components() -> Result<()> {
    const COMPONENTS: usize = 1000;
    /// As the harness waits for anything, and the machine may be building.
    const READY_WAIT: Duration = Duration::from_secs(100);
    run(async |test| {
        let plan = many(test, COMPONENTS)?;
        let begun = Instant::now();
        let mut host = plan.launch()?;
        let mut log = String::new();
        until_within(READY_WAIT, "a thousand components to be loaded", async || {
            log = host.log().ok()?;
            log.contains("listening http=").then_some(())
        })
        .await?;
        host.ready().await?;
        let took = begun.elapsed();
        let (at, memory) = (host.http()?, host.peak_memory()? >> 20);
        eprintln!("{COMPONENTS} components, and as many of another app's: ready after {took:?}, {memory} MiB");
        let listed = http::get(at, "/v1.0/metadata").await?.json()?;
        ensure!(listed["components"].as_array().context("components")?.len() == COMPONENTS);
        for (component, status) in [("c0", 204), ("c999", 204), ("other0", 404), ("other999", 404)] {
            ensure!(http::publish(at, &format!("{component}/t"), "1").await?.status == status, "{component}");
        }
        Ok(())
    })
}

fn many(test: &Test, count: usize) -> Result<crate::harness::host::HostPlan> {
    let plan = test.host("me")?;
    for number in 0..count {
        let mut other = resource::in_memory(&format!("other{number}"));
        writeln!(other, "scopes: [you]")?;
        plan.file(&format!("c{number}.yaml"), resource::in_memory(&format!("c{number}")))?;
        plan.file(&format!("other{number}.yaml"), other)?;
    }
    Ok(plan)
}
