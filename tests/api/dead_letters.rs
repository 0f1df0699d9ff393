//! What goes to the dead-letter topic, and how (pubsub-behaviour 6.7).
//!
//! | row | where else |
//! |---|---|
//! | 6.7 DROP, 404, failures; not for a batch answered 404 | statuses, golden; at Redis delivery/dead_letter |
//! | 6.7 late | lateness |
//! | 6.7 publish scopes; the message stays with the broker if it cannot be dead-lettered | delivery/dead_letter, security/scopes |
//! | 6.7 the namespace | templates |
//! | 6.7 not for what a stop cuts off | delivery/shutdown, delivery/loss |
//! | 6.7 the topic of a wildcard's message | delivery/wildcards |
//! | 6.7 what the breaker or an illness keeps from the app | a difference that is meant: see `better` |

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::tally::Tally;
use crate::harness::app::{App, Reply, Seen};
use crate::harness::{http, resource, run, until};

/// What is published, as it is stored, and where it goes.
struct Case {
    row: &'static str,
    /// What stands in `spec` for the routes.
    routes: &'static str,
    content_type: &'static str,
    query: &'static str,
    stored: &'static str,
    /// How often the app is asked before.
    asked: usize,
}

const RAW: &str = "?metadata.rawPayload=true";
const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":0}}"#;

const CASES: [Case; 8] = [
    Case { row: "6.7 no JSON", stored: "no event", ..UNREADABLE },
    Case { row: "6.7 JSON that is no object", stored: "[1,2]", ..UNREADABLE },
    Case { row: "6.7 JSON cut short", stored: r#"{"specversion":"1.0","#, ..UNREADABLE },
    Case { row: "6.7 not text", stored: "\u{0}\u{1}", ..UNREADABLE },
    Case {
        row: "6.7 no rule matches",
        routes: "rules: [{match: event.type == \"x\", path: /in}]",
        stored: EVENT,
        ..UNREADABLE
    },
    Case {
        row: "6.7 a rule that fails",
        routes: "rules: [{match: 1 / event.data.n == 1, path: /in}]",
        stored: EVENT,
        ..UNREADABLE
    },
    Case { row: "6.7 the app fails", stored: EVENT, asked: 1, ..UNREADABLE },
    Case {
        row: "6.7 other metadata",
        stored: EVENT,
        query: "?metadata.rawPayload=true&metadata.mine=yes&metadata.partitionKey=k",
        asked: 1,
        ..UNREADABLE
    },
];

const UNREADABLE: Case = Case {
    row: "",
    routes: "default: /in",
    content_type: "application/octet-stream",
    query: RAW,
    stored: "",
    asked: 0,
};

fn bytes(seen: &Seen) -> Result<Vec<u8>> {
    Ok(STANDARD.decode(seen.event()?["data_base64"].as_str().context("raw bytes")?)?)
}

/// Byte for byte, with its metadata.
#[test]
fn what_goes_there_and_what_of_it() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::status(500)]);
        let mut plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        for (number, case) in CASES.iter().enumerate() {
            let dead = resource::subscription("bus", &format!("dead-{number}"), &format!("/dead-{number}"), None);
            let routes = format!(
                "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {{name: s{number}}}\nspec:\n  \
                 pubsubname: bus\n  topic: t{number}\n  deadLetterTopic: dead-{number}\n  routes: {{{}}}\n",
                case.routes
            );
            plan = plan.resource(dead + "  metadata: {rawPayload: \"true\"}\n" + &routes)?;
        }
        let host = plan.app(&app).start().await?;
        let mut rows = Tally::default();
        for (number, case) in CASES.iter().enumerate() {
            let path = format!("/v1.0/publish/bus/t{number}{}", case.query);
            let headers = [("content-type", case.content_type)];
            ensure!(http::send(host.http()?, "POST", &path, &headers, case.stored.as_bytes()).await?.status == 204);
            let letters = app.wait_for(1, &format!("/dead-{number}")).await?;
            let letter = bytes(&letters[0])?;
            rows.check(case.row, String::from_utf8_lossy(&letter).as_ref(), case.stored);
            let asked = app.seen_on("/in").len();
            rows.check(&format!("{}: the app was asked", case.row), asked, case.asked);
            app.take_seen();
            let header = |name: &str| letters[0].headers.get(name).cloned();
            rows.check(&format!("{}: pubsubname", case.row), header("pubsubname").as_deref(), Some("bus"));
            let mine = case.query.contains("mine").then_some("yes");
            rows.check(&format!("{}: metadata", case.row), header("mine").as_deref(), mine);
        }
        rows.end()
    })
}

/// An ordinary message on that topic: the event is as it was, and the topic's own subscription has its own dead letters.
#[test]
fn what_it_is_there() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        for path in ["/in", "/second"] {
            app.plan(path, [Reply::word("DROP")]);
        }
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "first", "/in", Some("second")))?;
        let plan = plan.resource(resource::subscription("bus", "second", "/second", Some("third")))?;
        let plan = plan.resource(resource::subscription("bus", "third", "/third", None))?;
        let host = plan.app(&app).start().await?;
        http::publish_ok(host.http()?, "bus/first?metadata.ttlInSeconds=600", r#"{"a":1}"#).await?;
        let last = app.wait_for(1, "/third").await?;
        let (first, second) = (app.wait_for(1, "/in").await?, app.wait_for(1, "/second").await?);
        let mut rows = Tally::default();
        rows.check("6.7 the event is unchanged", &second[0].body, &first[0].body);
        rows.check("6.7 and again", &last[0].body, &first[0].body);
        let event = last[0].event()?;
        rows.check("6.7 its topic", &event["topic"], &json!("first"));
        rows.check("6.7 its id", &event["id"], &first[0].event()?["id"]);
        rows.check("6.7 its expiration", event["expiration"].is_string(), true);
        rows.check("6.7 its data", &event["data"], &json!({"a": 1}));
        rows.end()
    })
}

/// The outbound policy is around it as around any other publish.
#[test]
fn how_it_is_published() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/in", [Reply::word("DROP")]);
        app.plan("/dead", [Reply::Never]);
        let policies = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies:\n    \
                        timeouts: {quick: 200ms}\n    retries: {thrice: {duration: 10ms, maxRetries: 2}}\n  \
                        targets: {components: {bus: {outbound: {timeout: quick, retry: thrice}}}}\n";
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?.resource(policies)?;
        let plan = plan.resource(resource::subscription("bus", "t", "/in", Some("dead")))?;
        let host = plan.resource(resource::subscription("bus", "dead", "/dead", None))?.app(&app).start().await?;
        // The first stays with the app for ever, so the broker takes no second.
        http::publish_ok(host.http()?, "bus/t", "1").await?;
        app.wait_for(1, "/dead").await?;
        http::publish_ok(host.http()?, "bus/t", "2").await?;
        until("the dead letter to be given up", async || {
            host.log().ok()?.contains("cannot be dead-lettered").then_some(())
        })
        .await?;
        let log = host.log()?;
        let tries = log.lines().filter(|line| line.contains("publishing failed and is tried again")).count();
        let mut rows = Tally::default();
        rows.check("6.7 outbound retries", tries, 2);
        rows.check("6.7 if it fails the message is given back", log.matches("given back").count(), 1);
        rows.check("6.7 the app is not asked again for it", app.seen_on("/in").len(), 2);
        rows.check("6.7 the first letter", app.seen_on("/dead")[0].data()?, Value::from(1));
        rows.end()
    })
}
