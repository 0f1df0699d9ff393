//! Which path an event goes to: section 5.6 of pubsub-behaviour.
//!
//! | rows | proved by |
//! |---|---|
//! | comparisons, missing keys, wrong types, what is no boolean, functions, what does not compile | scenes `one rule: ...`, `routing rules` |
//! | nothing matches and there is no default | scene `rules without default` |
//! | numbers, texts, loops, bounds | unit tests of `resources::rule` |
//! | events in binary mode | `api::decoding` |
//!
//! Not over HTTP: the path in gRPC's `TopicEventRequest`.

use anyhow::Result;
use serde_json::json;

use super::rows::{ANY, EVENT, Row, check, post};
use crate::harness::app::{App, Reply};
use crate::harness::{resource, run};

/// A subscription to a topic: its rules, as pairs of match and path, its default, and dead letters.
fn subscription(topic: &str, rules: &[(&str, &str)], default: Option<&str>) -> String {
    let rules: Vec<_> = rules.iter().map(|(text, path)| json!({"match": text, "path": path})).collect();
    let mut routes = json!({ "rules": rules });
    if let Some(default) = default {
        routes["default"] = default.into();
    }
    let spec = json!({"pubsubname": "bus", "topic": topic, "deadLetterTopic": "dead", "routes": routes});
    format!("---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {{name: {topic}}}\nspec: {spec}\n")
}

/// Each row is published to the topic whose subscription stands beside it.
fn check_all(cases: Vec<(String, Row)>) -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        let mut plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        plan = plan.resource(resource::subscription("bus", "dead", "/dead", None))?;
        let (subscriptions, rows): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let host = plan.resource(subscriptions.concat())?.app(&app).start().await?;
        check(&host, &app, &rows).await
    })
}

/// A rule, an event as its body, and where it goes: there, elsewhere, or nowhere because the rule fails.
fn one(number: usize, rule: &str, event: &str, path: &'static str) -> (String, Row) {
    let topic = format!("t{number}");
    let row = post("5.6", format!("/v1.0/publish/bus/{topic}")).sends(EVENT, event);
    (subscription(&topic, &[(rule, "/hit")], Some("/rest")), row.comes(path, json!({ "topic": topic })))
}

const HIT: &str = "/hit";
const REST: &str = "/rest";
const DEAD: &str = "/dead";

#[test]
fn rules_over_events() -> Result<()> {
    let cases = [
        // Attributes and extensions by name.
        ("event.topic.startsWith('t') && event.pubsubname == 'bus'", "{}", HIT),
        ("event.source == 'Dapr' && event.specversion == '1.0'", "{}", HIT),
        ("event.ext == 5 && event.nested.a == 'b'", r#"{"ext":5,"nested":{"a":"b"}}"#, HIT),
        ("event['UPPER'] == 'x'", r#"{"UPPER":"x"}"#, HIT),
        ("event.upper == 'x'", r#"{"UPPER":"x"}"#, DEAD),
        ("has(event.data.x)", r#"{"data":{"x":null}}"#, HIT),
        ("has(event.data.x)", r#"{"data":{}}"#, REST),
        ("has(event.data)", "{}", REST),
        ("has(event.data.x)", "{}", DEAD),
        ("!has(event.id)", "{}", HIT),
        ("'a' in event.data", r#"{"data":{"a":1}}"#, HIT),
        ("'a' in event.data", r#"{"data":["b"]}"#, REST),
        ("event.data == 'text'", r#"{"data":"text"}"#, HIT),
        ("event.data == null", r#"{"data":null}"#, HIT),
        ("event.data_base64 == 'AAEC'", r#"{"data_base64":"AAEC"}"#, HIT),
        // Numbers are doubles.
        ("event.data.n == 9007199254740992.0", r#"{"data":{"n":9007199254740993}}"#, HIT),
        ("type(event.data.n) == double", r#"{"data":{"n":1}}"#, HIT),
        ("event.data.n >= 1.5 && event.data.n < 2", r#"{"data":{"n":1.5}}"#, HIT),
        ("event.data.n % 2 == 0", r#"{"data":{"n":4}}"#, DEAD),
        ("int(event.data.n) % 2 == 0", r#"{"data":{"n":4}}"#, HIT),
        // Other identifiers compile, and fail.
        ("nobody == 1", "{}", DEAD),
        ("data.x == 1", r#"{"data":{"x":1}}"#, DEAD),
        ("event.type == 'a' || nobody", r#"{"type":"a"}"#, HIT),
        ("event.type == 'a' && nobody", r#"{"type":"b"}"#, REST),
        // What is guarded does not fail.
        ("has(event.data.x) && event.data.x > 1", r#"{"data":{"x":2}}"#, HIT),
        ("has(event.data.x) && event.data.x > 1", r#"{"data":{"y":2}}"#, REST),
        ("event.data.x > 1", r#"{"data":{"y":2}}"#, DEAD),
        ("event.data.x > 1", r#"{"data":{"x":"2"}}"#, DEAD),
        ("event.data.x", r#"{"data":{"x":true}}"#, HIT),
        ("event.data.x", r#"{"data":{"x":false}}"#, REST),
        ("event.data.x", r#"{"data":{"x":"true"}}"#, DEAD),
        ("1", "{}", DEAD),
        // The text around it does not count.
        (" \n event.type == 'a' \t", r#"{"type":"a"}"#, HIT),
        (" \n ", "{}", HIT),
        ("false", "{}", REST),
    ];
    check_all(cases.into_iter().zip(1..).map(|((rule, event, path), number)| one(number, rule, event, path)).collect())
}

/// Where the rules of a subscription stand in an order.
#[test]
fn the_order_of_rules() -> Result<()> {
    let gold = ("event.type == 'gold'", "/gold");
    let row = |topic: &str, kind: &str| {
        post("5.6", format!("/v1.0/publish/bus/{topic}?metadata.cloudevent.type={kind}")).json("{}")
    };
    let came = json!({ "id": ANY });
    let case = |topic: &str, rules: &[(&str, &str)], default: Option<&str>, kind: &str, path: &'static str| {
        (subscription(topic, rules, default), row(topic, kind).comes(path, came.clone()))
    };
    check_all(vec![
        case("first", &[gold, ("true", "/late"), ("event.type == 'gold'", "/later")], Some("/rest"), "gold", "/gold"),
        case("second", &[gold, ("true", "/late")], Some("/rest"), "tin", "/late"),
        case("default", &[gold], Some("/rest"), "tin", "/rest"),
        // One that is empty is always true, wherever it stands.
        case("middle", &[gold, ("", "/any"), ("event.type == 'tin'", "/tin")], Some("/rest"), "tin", "/any"),
        case("before", &[gold, ("", "/any")], Some("/rest"), "gold", "/gold"),
        // One that fails is no miss: no later one is asked.
        case("fails", &[("event.missing == 1", "/x"), ("true", "/late")], Some("/rest"), "tin", "/dead"),
        case("behind", &[gold, ("event.missing == 1", "/x")], Some("/rest"), "gold", "/gold"),
        // Nothing takes it, or nothing is there.
        case("none", &[gold], None, "tin", "/dead"),
        case("nothing", &[], None, "tin", "/dead"),
        case("path", &[("true", "gold/bar?x=y")], None, "tin", "/gold/bar?x=y"),
    ])
}

/// What a raw subscription is asked about is the event that it gets; a batch is routed as single events are.
#[test]
fn rules_over_raw_bytes() -> Result<()> {
    run(async |test| {
        let app = App::start().await?;
        app.plan("/batch", [Reply::Each("SUCCESS".into())]);
        let raw = "  metadata: {rawPayload: \"true\"}\n";
        let rule = |text: &'static str, path: &'static str| [(text, path)];
        let synthetic = "event.type == 'com.dapr.event.sent' && event.source == 'Dapr' && event.data_base64 == 'aGk='";
        let single = subscription("raw", &rule(synthetic, "/hit"), Some("/rest"))
            .replace("spec: {", "spec: {\"metadata\":{\"rawPayload\":\"true\"},");
        let batch = "\"bulkSubscribe\":{\"enabled\":true,\"maxAwaitDurationMs\":10},";
        let batched = subscription("batch", &rule(synthetic, "/batch"), Some("/rest"));
        let batched = batched.replace("spec: {", &format!("spec: {{\"metadata\":{{\"rawPayload\":\"true\"}},{batch}"));
        let plan = test.host("me")?.resource(resource::in_memory("bus"))?;
        let plan = plan.resource(resource::subscription("bus", "dead", "/dead", None) + raw)?;
        let host = plan.resource(single + &batched)?.app(&app).start().await?;
        let row = |topic: &str, text: &str| {
            post("5.6", format!("/v1.0/publish/bus/{topic}?metadata.rawPayload=true")).sends("text/plain", text)
        };
        let rows = [
            row("raw", "hi").comes("/hit", json!({"data_base64": "aGk="})),
            row("raw", "ho").comes("/rest", json!({"data_base64": "aG8="})),
            row("batch", "hi")
                .differs("5.6 batches of raw bytes")
                .comes("/batch", json!({"entries": ANY}))
                .holding("aGk="),
        ];
        check(&host, &app, &rows).await
    })
}
