//! `Resiliency` (pubsub-behaviour 10): each policy's edges, by how often an app is asked.
//!
//! | row | where else |
//! |---|---|
//! | 10.1 what does not parse | starting; a difference that is meant: see `better` |
//! | 10.1 conditions of circuit breakers | host/resources/src/trip/tests |
//! | 10.3 exponential waits; one event for all attempts; timeouts of publishing, at Redis | delivery/policies |
//! | 10.3 an open breaker spares the app, half-open probes, `interval` | delivery/policies, host/pubsub/src/policy/breaker/tests |
//! | 10.3 exponential policies end after 15 minutes | host/pubsub/src/policy/tests |
//! | 10.3 each code of a failed publish | host/pubsub/src/publish/tests |
//! | 10.3 `gRPCStatusCodes` of an app's answers | no gRPC apps in this version |
//! | 10.3 what a breaker keeps from the app | a difference that is meant: see `better` |
//! | 10.2 `DaprBuiltInInitializationRetries` | subscriptions |
//! | 10.2 outbox | not here |

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::join_all;
use serde_json::Value;

use super::tally::{Fate, Tally, fate};
use crate::harness::app::{App, Reply};
use crate::harness::{Test, http, resource, run};

/// What a component's inbound policy is, how the app answers, and what becomes of the event.
struct Case {
    row: &'static str,
    policies: String,
    inbound: &'static str,
    replies: Vec<Reply>,
    fate: Fate,
}

fn case(row: &'static str, policies: &str, inbound: &'static str, replies: Vec<Reply>, fate: Fate) -> Case {
    Case { row, policies: policies.to_owned(), inbound, replies, fate }
}

/// What stands in a retry policy.
fn retry(row: &'static str, policy: &'static str, replies: Vec<Reply>, fate: Fate) -> Case {
    case(row, &format!("{{retries: {{p@: {{{policy}}}}}}}"), "{retry: p@}", replies, fate)
}

/// A number of the same answers, then success.
fn fails(times: usize, reply: &Reply) -> Vec<Reply> {
    std::iter::repeat_n(reply.clone(), times).chain([Reply::ok()]).collect()
}

fn always(status: u16) -> Vec<Reply> {
    vec![Reply::status(status)]
}

/// `@` stands for the number of the case.
fn retries() -> Vec<Case> {
    let failed = || always(500);
    let again = || fails(30, &Reply::status(500));
    let word = |word: &str| vec![Reply::word(word)];
    vec![
        case("10.2 an empty target", "{}", "{}", failed(), Fate::Dead(1)),
        case("10.2 a policy nobody declared", "{}", "{retry: nobody}", failed(), Fate::Dead(1)),
        retry("10.1 maxRetries: 0", "maxRetries: 0", failed(), Fate::Dead(1)),
        retry("10.3 maxRetries: 1", "duration: 10ms, maxRetries: 1", failed(), Fate::Dead(2)),
        retry("10.3 maxRetries: 4", "duration: 10ms, maxRetries: 4", failed(), Fate::Dead(5)),
        retry("10.3 until it succeeds", "duration: 1ms, maxRetries: 40", again(), Fate::Done(31)),
        retry("10.1 constant", "policy: constant, duration: 1ms, maxRetries: 2", failed(), Fate::Dead(3)),
        retry("10.1 CONSTANT", "policy: CONSTANT, duration: 1ms, maxRetries: 2", failed(), Fate::Dead(3)),
        retry("10.1 Exponential", "policy: Exponential, maxInterval: 9ms, maxRetries: 3", failed(), Fate::Dead(4)),
        retry("10.1 maxRetries: -1 is no limit", "duration: 1ms, maxRetries: -1", again(), Fate::Done(31)),
        retry("10.1 without maxRetries, too", "duration: 1ms", again(), Fate::Done(31)),
        retry("10.1 a number is milliseconds", "duration: 10, maxRetries: 2", failed(), Fate::Dead(3)),
        retry(DEFAULT_WAIT, "maxRetries: 1", always(503), Fate::Dead(2)),
        retry("10.3 RETRY", "duration: 1ms, maxRetries: 2", word("RETRY"), Fate::Dead(3)),
        retry("10.3 DROP is no failure", "duration: 1ms, maxRetries: 2", word("DROP"), Fate::Dead(1)),
        retry("10.3 404 is no failure", "duration: 1ms, maxRetries: 2", always(404), Fate::Dead(1)),
    ]
}

const DEFAULT_WAIT: &str = "10.1 the default of duration";

fn timeouts() -> Vec<Case> {
    const AGAIN: &str = "{timeouts: {p@: 1s}, retries: {p@: {duration: 1ms, maxRetries: 2}}}";
    const TIMED: &str = "{timeouts: {p@: 1s}, retries: {p@: {duration: 1ms, maxRetries: 2, \
                         matching: {httpStatusCodes: \"429\"}}}}";
    let never = || vec![Reply::Never];
    let late = || vec![Reply::After(Duration::from_millis(50), 200, String::new())];
    vec![
        case("10.3 a timeout", "{timeouts: {p@: 1s}}", "{timeout: p@}", never(), Fate::Dead(1)),
        case("10.1 a timeout in milliseconds", "{timeouts: {p@: 1000}}", "{timeout: p@}", never(), Fate::Dead(1)),
        case("10.3 a timeout for each attempt", AGAIN, "{timeout: p@, retry: p@}", never(), Fate::Dead(3)),
        case("10.3 a timeout has no code", TIMED, "{timeout: p@, retry: p@}", never(), Fate::Dead(3)),
        case("10.3 in time", "{timeouts: {p@: 20s}}", "{timeout: p@}", late(), Fate::Done(1)),
        case("10.1 a timeout of zero is none", "{timeouts: {p@: 0s}}", "{timeout: p@}", late(), Fate::Done(1)),
    ]
}

/// Which answers are tried again.
fn codes() -> Vec<Case> {
    const LISTED: &str = "duration: 1ms, maxRetries: 2, matching: {httpStatusCodes: \"429,500-502\"}";
    const OTHERS: &str = "duration: 1ms, maxRetries: 2, matching: {gRPCStatusCodes: \"1,14\"}";
    const EMPTY: &str = "duration: 1ms, maxRetries: 2, matching: {httpStatusCodes: \"\"}";
    const ALL: &str = "duration: 1ms, maxRetries: 2, matching: {httpStatusCodes: \"100-599\"}";
    let two = vec![Reply::status(500), Reply::status(400)];
    vec![
        retry("10.3 a code that is listed", LISTED, always(429), Fate::Dead(3)),
        retry("10.3 a range begins", LISTED, always(500), Fate::Dead(3)),
        retry("10.3 a range goes on", LISTED, always(501), Fate::Dead(3)),
        retry("10.3 a range ends", LISTED, always(502), Fate::Dead(3)),
        retry("10.3 after a range", LISTED, always(503), Fate::Dead(1)),
        retry("10.3 before a range", LISTED, always(499), Fate::Dead(1)),
        retry("10.3 a code that is not listed", LISTED, always(400), Fate::Dead(1)),
        retry("10.3 a redirect", LISTED, always(302), Fate::Dead(1)),
        retry("10.3 one that is, one that is not", LISTED, two, Fate::Dead(2)),
        retry("10.3 RETRY has no code", LISTED, vec![Reply::word("RETRY")], Fate::Dead(3)),
        retry("10.3 an unknown status has none", LISTED, vec![Reply::word("PERHAPS")], Fate::Dead(3)),
        retry("10.3 codes of another family", OTHERS, always(418), Fate::Dead(3)),
        retry("10.3 an empty list is none", EMPTY, always(418), Fate::Dead(3)),
        retry("10.3 all codes", ALL, always(302), Fate::Dead(3)),
    ]
}

/// Each case has a component and a resource of its own, all in one host.
fn check(cases: &[Case]) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let mut plan = test.host("me")?;
        for (number, case) in cases.iter().enumerate() {
            let bus = format!("c{number}");
            let numbered = |text: &str| text.replace('@', &number.to_string());
            let policies = resource::inbound(&bus, &numbered(&case.policies), &numbered(case.inbound));
            plan = plan.resource(policies.replace("name: policies", &format!("name: r{number}")))?;
            let dead = format!("dead-t{number}");
            let topic = resource::subscription(&bus, &format!("t{number}"), &format!("/t{number}"), Some(&dead));
            let dead = resource::subscription(&bus, &dead, &format!("/{dead}"), None);
            plan = plan.resource(resource::in_memory(&bus) + &topic + &dead)?;
            app.plan(&format!("/t{number}"), case.replies.clone());
        }
        let host = plan.app(&app).start().await?;
        let at = host.http()?;
        let fates =
            (0..cases.len()).map(async |number| fate(&app, at, &format!("c{number}"), &format!("t{number}")).await);
        let found = join_all(fates).await;
        let mut rows = Tally::default();
        rows.check_all(cases.iter().zip(found).map(|(case, found)| (case.row, found, case.fate)));
        for (number, _) in cases.iter().enumerate().filter(|(_, case)| case.row == DEFAULT_WAIT) {
            let seen = app.seen_on(&format!("/t{number}"));
            rows.check("10.1 it is 5s", seen[1].at - seen[0].at >= Duration::from_millis(4990), true);
        }
        let metadata = http::get(at, "/v1.0/metadata").await?.json()?;
        let listed: Vec<&str> = names(&metadata["resiliencies"]);
        let expected: Vec<String> = (0..cases.len()).map(|number| format!("r{number}")).collect();
        rows.check("10.1 several add up, and are listed", listed, expected.iter().map(String::as_str).collect());
        rows.end()
    })
}

fn names(resources: &Value) -> Vec<&str> {
    resources.as_array().into_iter().flatten().filter_map(|resource| resource["name"].as_str()).collect()
}

#[test]
fn how_often() -> Result<()> {
    check(&retries())
}

#[test]
fn how_long() -> Result<()> {
    check(&timeouts())
}

#[test]
fn for_which_answers() -> Result<()> {
    check(&codes())
}

/// A component's subscription in which everything fails, and what becomes of an event.
async fn failing(test: &Test, policies: &[String], expected: &[(&str, Fate)]) -> Result<Tally> {
    let app = App::start().await?;
    let mut plan = test.host("me")?;
    for policies in policies {
        plan = plan.resource(policies)?;
    }
    for (number, _) in expected.iter().enumerate() {
        let (bus, topic) = (format!("c{number}"), format!("t{number}"));
        let dead = format!("dead-{topic}");
        let topics = resource::subscription(&bus, &topic, &format!("/{topic}"), Some(&dead));
        let dead = resource::subscription(&bus, &dead, &format!("/{dead}"), None);
        plan = plan.resource(resource::in_memory(&bus) + &topics + &dead)?;
        app.plan(&format!("/{topic}"), always(500));
    }
    let host = plan.app(&app).start().await?;
    let mut rows = Tally::default();
    for (number, (row, expected)) in expected.iter().enumerate() {
        rows.check(row, fate(&app, host.http()?, &format!("c{number}"), &format!("t{number}")).await?, *expected);
    }
    let metadata = http::get(host.http()?, "/v1.0/metadata").await?.json()?;
    rows.check("10.1 none of another app is listed", names(&metadata["resiliencies"]).contains(&"theirs"), false);
    Ok(rows)
}

/// A resource as others write it: by its name, its policies and its targets, each in flow style, and what follows.
fn resiliency(name: &str, policies: &str, components: &str, more: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: {name}}}\nspec:\n  policies: {policies}\n  \
         targets: {{components: {components}}}\n{more}"
    )
}

/// A document that stands before another in its file.
const BEFORE: &str = "apiVersion: v1\nkind: ConfigMap\n---\n";

/// Later names replace earlier ones, also across resources; another app's policies are not ours.
#[test]
fn of_several_resources() -> Result<()> {
    run(async |test| {
        let retries =
            |name: &str, retries: u32| format!("{{retries: {{{name}: {{duration: 1ms, maxRetries: {retries}}}}}}}");
        let resources = [
            resiliency("first", &retries("p", 1), "{c0: {inbound: {retry: p}}, c1: {inbound: {retry: p}}}", ""),
            format!("{BEFORE}{}", resiliency("second", &retries("p", 2), "{c1: {inbound: {retry: q}}}", "")),
            resiliency("third", &retries("q", 3), "{c2: {inbound: {retry: p}}}", "scopes: [you, me]\n"),
            resiliency("theirs", &retries("p", 4), "{c2: {inbound: {retry: q}}}", "scopes: [you]\n"),
        ];
        let expected = [
            ("10.1 the later policy of a name, not the first document of its file", Fate::Dead(3)),
            ("10.1 the later target of a component, the policy of another resource", Fate::Dead(4)),
            ("10.1 scopes", Fate::Dead(3)),
        ];
        failing(test, &resources, &expected).await?.end()
    })
}

/// For components that no target names, the most specific name counts; one that is named has only what its entry says.
#[test]
fn by_reserved_names() -> Result<()> {
    run(async |test| {
        let names = ["", "Component", "ComponentInbound", "PubsubComponentInbound"];
        let checks = (0..names.len()).map(async |most| {
            let mut policies =
                "{retries: {DefaultPubsubComponentOutboundRetryPolicy: {duration: 1ms, maxRetries: 9}".to_owned();
            for (retries, name) in names.iter().enumerate().take(most + 1) {
                write!(policies, ", Default{name}RetryPolicy: {{duration: 1ms, maxRetries: {}}}", retries + 1)?;
            }
            let targets = "{c1: {outbound: {}}, c2: {inbound: {}}}";
            let resource = resiliency("r", &(policies + "}}"), targets, "");
            let expected = [
                ("10.2 a reserved name", Fate::Dead(most + 2)),
                ("10.2 an entry for the other direction", Fate::Dead(1)),
                ("10.2 an empty entry", Fate::Dead(1)),
            ];
            failing(test, &[resource], &expected).await?.end().with_context(|| format!("Default{}...", names[most]))
        });
        join_all(checks).await.into_iter().collect()
    })
}
