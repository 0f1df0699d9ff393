//! Circuit breakers and policies around publishing, and how policies and the broker's own redelivery go together
//! (pubsub-behaviour 10.3 and 10.4). What stands elsewhere is listed in `resiliency`.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::tally::Tally;
use crate::harness::app::{App, Reply};
use crate::harness::host::Host;
use crate::harness::{http, resource, run, until};

pub(super) fn resiliency(policies: &str, components: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: r}}\nspec:\n  policies: {policies}\n  \
         targets: {{components: {components}}}\n"
    )
}

/// Lines that say something of a component.
fn lines(host: &Host, component: &str, what: &str) -> Result<usize> {
    let named = format!("pubsub=\"{component}\"");
    Ok(host.log()?.lines().filter(|line| line.contains(what) && line.contains(&named)).count())
}

const TRIED_AGAIN: &str = "publishing failed and is tried again";

/// A publish that fails, and how often it is tried again: first those that are refused (429, 8), then one that takes too
/// long. (Whether that has a code depends on who sees it first, the adapter or the host: `publish`'s own tests have both.)
const PUBLISHES: [(&str, &str, &str, usize); 7] = [
    ("10.2 nothing", "full0", "{}", 0),
    ("10.3 any code", "full1", "{duration: 1ms, maxRetries: 3}", 3),
    ("10.3 the code of HTTP", "full2", "{duration: 1ms, maxRetries: 3, matching: {httpStatusCodes: \"429\"}}", 3),
    ("10.3 another code", "full3", "{duration: 1ms, maxRetries: 3, matching: {httpStatusCodes: \"430-599\"}}", 0),
    (
        "10.3 codes of gRPC are not for HTTP",
        "full4",
        "{duration: 1ms, maxRetries: 3, matching: {gRPCStatusCodes: \"1\"}}",
        3,
    ),
    ("10.3 none", "full5", "{maxRetries: 0}", 0),
    ("10.3 a timeout", "slow0", "{duration: 1ms, maxRetries: 2}", 2),
];

#[test]
fn how_often_a_publish_is_tried() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::Never]);
        let (mut retries, mut targets) = (String::new(), String::new());
        let mut plan = test.host("me")?;
        for (_, bus, retry, _) in PUBLISHES {
            let (mode, timeout) = if bus.starts_with("full") { ("queue", "") } else { ("dapr", "timeout: short, ") };
            let settings = [("mode", mode), ("maxQueueMessages", "1")];
            plan = plan.resource(resource::component(bus, "pubsub.in-memory", &settings))?;
            plan = plan.resource(resource::subscription(bus, "t", "/in", None))?;
            let named = if retry == "{}" { String::new() } else { format!("retry: {bus}") };
            retries += &format!("{bus}: {retry}, ");
            targets += &format!("{bus}: {{outbound: {{{timeout}{named}}}}}, ");
        }
        let policies = format!("{{timeouts: {{short: 300ms}}, retries: {{{retries}}}}}");
        let host = plan.resource(resiliency(&policies, &format!("{{{targets}}}")))?.app(&app).start().await?;
        let mut rows = Tally::default();
        for (row, bus, _, tries) in PUBLISHES {
            let place = format!("{bus}/t");
            // The app keeps it, and so the broker has no room for another, or waits for the app.
            http::publish_ok(host.http()?, &place, "1").await?;
            let answer = http::publish(host.http()?, &place, "2").await?;
            let status = if bus.starts_with("full") { 503 } else { 500 };
            rows.check(row, (answer.status, lines(&host, bus, TRIED_AGAIN)?), (status, tries));
        }
        rows.end()
    })
}

/// By default it opens after six failures in a row. What comes then goes to the dead-letter topic unseen where the broker
/// delivers nothing again.
#[test]
fn a_breaker_as_it_is_by_default() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500)]);
        let policies = resiliency("{circuitBreakers: {cb: {}}}", "{bus: {inbound: {circuitBreaker: cb}}}");
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(policies)?;
        // Nobody takes the dead letters: that would be a success.
        let host = plan.resource(resource::subscription("bus", "t", "/in", Some("dead")))?.app(&app).start().await?;
        for number in 1..=9 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        until("all to be dead-lettered", async || (lines(&host, "bus", " dead-lettered ").ok()? == 9).then_some(()))
            .await?;
        let mut rows = Tally::default();
        rows.check("10.3 consecutiveFailures > 5", app.seen_on("/in").len(), 6);
        rows.end()
    })
}

#[test]
fn a_drop_is_a_success_to_a_breaker() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let failed = || Reply::status(500);
        app.plan("/in", [failed(), Reply::word("DROP"), failed(), Reply::status(404), failed(), failed(), Reply::ok()]);
        let breaker = "{circuitBreakers: {cb: {trip: consecutiveFailures > 1}}}";
        let policies = resiliency(breaker, "{bus: {inbound: {circuitBreaker: cb}}}");
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(policies)?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        for number in 1..=8 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        ensure!(app.seen_on("/in").len() == 6, "10.3 asked {} times", app.seen_on("/in").len());
        Ok(())
    })
}

/// What fails on the way to the app stops what comes in, and nothing is tried again meanwhile.
#[test]
fn a_breaker_is_both_directions_own() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500)]);
        let policies =
            "{retries: {long: {duration: 60s, maxRetries: 9}}, circuitBreakers: {cb: {trip: totalFailures > 1}}}";
        let targets = "{bus: {inbound: {circuitBreaker: cb}, outbound: {retry: long, circuitBreaker: cb}}, other: {outbound: {circuitBreaker: cb}}}";
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(resource::in_memory("other"))?;
        let plan = plan.resource(resiliency(policies, targets))?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        for number in 1..=2 {
            http::publish_ok(host.http()?, "bus/t", &number.to_string()).await?;
        }
        until("both to have failed", async || (lines(&host, "bus", "given back").ok()? == 2).then_some(())).await?;
        let answer = http::publish(host.http()?, "bus/t", "3").await?;
        let mut rows = Tally::default();
        rows.check("10.3 a publish while it is open", answer.status, 500);
        rows.check("10.3 its error", answer.text().contains("circuit breaker is open"), true);
        rows.check("10.3 no retry", lines(&host, "bus", TRIED_AGAIN)?, 0);
        rows.check("10.3 each component has its own", http::publish(host.http()?, "other/t", "1").await?.status, 204);
        rows.end()
    })
}

/// The policy first, then the broker, then the policy again, for ever.
#[test]
fn the_policy_is_within_the_brokers_redelivery() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500)]);
        let policies = resiliency("{retries: {p: {duration: 1ms, maxRetries: 2}}}", "{bus: {inbound: {retry: p}}}");
        let plan = test.host("me")?.resource(resource::queue("bus"))?.resource(policies)?;
        let host = plan.resource(resource::subscription("bus", "t", "/in", None))?.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        let seen = app.wait_for(6, "/in").await?;
        let mut rows = Tally::default();
        for (number, seen) in seen.iter().enumerate() {
            let attempt = seen.headers.get("whimbrel-attempt").cloned();
            rows.check("10.4 attempts go on", attempt, Some((number + 1).to_string()));
            rows.check("10.4 of one event", &seen.body, &app.seen()[0].body);
        }
        // The policy waits next to nothing, the broker longer for each attempt there was.
        let wait = seen[3].at - seen[2].at;
        rows.check("10.4 the broker waits", wait >= Duration::from_millis(3950), true);
        rows.end()
    })
}
