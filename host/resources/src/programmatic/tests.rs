//! What an app may answer to `GET /dapr/subscribe`; the cases named "golden" were recorded from daprd 1.18.1.

use super::programmatic;
use crate::snapshot::{Origin, Subscription};

fn line(subscription: &Subscription) -> String {
    assert_eq!(subscription.origin, Origin::Programmatic);
    let rules: String =
        subscription.rules.iter().map(|rule| format!("{:?}:{} ", rule.expression(), rule.path())).collect();
    let route = format!("{rules}{}", subscription.default_route.as_deref().unwrap_or("nowhere"));
    let metadata: String = subscription.metadata.iter().map(|(key, value)| format!(" {key}:{value}")).collect();
    let dead = subscription.dead_letter_topic.as_ref().map(|topic| format!(" dead:{topic}")).unwrap_or_default();
    let bulk = subscription.bulk.map(|bulk| format!(" bulk:{}/{:?}", bulk.max_messages, bulk.max_wait));
    format!("{}/{} -> {route}{metadata}{dead}{}", subscription.pubsub, subscription.topic, bulk.unwrap_or_default())
}

fn check(json: &str, expect: &[&str], warnings: usize) {
    let (subscriptions, warned) = programmatic(json.as_bytes()).expect("a list");
    assert_eq!(subscriptions.iter().map(line).collect::<Vec<_>>(), expect, "{json}");
    assert_eq!(warned.len(), warnings, "{json} warned {warned:?}");
}

fn refused(json: &[u8], what: &str) {
    let error = programmatic(json).expect_err("refused");
    assert!(error.contains(what), "{error}");
}

#[test]
fn golden_shapes() {
    check("", &[], 0);
    check("null", &[], 0);
    check("[]", &[], 0);
    refused(b"{}", "no list");
    refused(b"hello", "no JSON");
    refused(br#"[{"pubsubname":1}]"#, "item 0: pubsubname: expected a text");
    check(r#"[{"pubsubname":"bus","topic":"t","route":"/in","colour":"red"}]"#, &["bus/t -> /in"], 0);
    check(r#"[{"pubsubname":"bus","route":"/in"}]"#, &["bus/ -> /in"], 0);
    check(r#"[{"PubsubName":"bus","Topic":"t","Route":"/in"}]"#, &["bus/t -> /in"], 0);
}

#[test]
fn golden_programmatic_subscriptions() {
    let json = r#"[
        {"pubsubname": "bus", "topic": "p1", "route": "/p1"},
        {"pubsubname": "bus", "topic": "p2", "route": "p2"},
        {"pubsubname": "bus", "topic": "p3", "routes": {"default": "/p3", "rules": [{"match": "event.type==\"g\"", "path": "/p3g"}]}},
        {"pubsubname": "bus", "topic": "p4", "route": "/p4", "metadata": {"rawPayload": "true"}},
        {"pubsubname": "bus", "topic": "p5"},
        {"pubsubname": "nobus", "topic": "p6", "route": "/p6"},
        {"pubsubname": "bus", "topic": "p1", "route": "/again"},
        {"pubsubname": "bus", "topic": "p7", "route": "/p7", "deadLetterTopic": "dead7"},
        {"pubsubname": "bus", "topic": "dead7", "route": "/dead7"}
    ]"#;
    let expect = [
        "bus/p1 -> /again",
        "bus/p2 -> p2",
        "bus/p3 -> \"event.type==\\\"g\\\"\":/p3g /p3",
        "bus/p4 -> /p4 rawPayload:true",
        "nobus/p6 -> /p6",
        "bus/p7 -> /p7 dead:dead7",
        "bus/dead7 -> /dead7",
    ];
    check(json, &expect, 2);
}

#[test]
fn routes() {
    fn route(fields: &str, expect: &str) {
        check(&format!(r#"[{{"pubsubname":"b","topic":"t",{fields}}}]"#), &[&format!("b/t -> {expect}")], 0);
    }
    route(r#""route":"/old","routes":{"default":"/new"}"#, "/new");
    route(r#""route":"/old","routes":{"default":""}"#, "/old");
    route(r#""route":"/old","routes":null"#, "/old");
    route(
        r#""routes":{"rules":[{"match":"  ","path":"/any"},{"match":"x","path":"/x"}],"default":"/d"}"#,
        r#""":/any "x":/x /d"#,
    );
    route(r#""routes":{"rules":[{"match":"event.n > 1","path":"/n"}]}"#, r#""event.n > 1":/n nowhere"#);
    route(r#""route":"/old","routes":{"rules":[{"match":"true","path":"/n"}]}"#, r#""true":/n /old"#);
    route(r#""routes":{"Rules":[],"Default":"/d"}"#, "/d");
    check(r#"[{"pubsubname":"b","topic":"t","routes":{}}, null]"#, &[], 2);
}

#[test]
fn bulk() {
    fn bulk(fields: &str, expect: &str, warnings: usize) {
        let item = format!(r#"[{{"pubsubname":"b","topic":"t","route":"/a","bulkSubscribe":{{{fields}}}}}]"#);
        check(&item, &[&format!("b/t -> /a{expect}")], warnings);
    }
    bulk(r#""enabled":true"#, " bulk:100/1s", 0);
    bulk(r#""enabled":true,"maxMessagesCount":0,"maxAwaitDurationMs":0"#, " bulk:100/1s", 0);
    bulk(r#""Enabled":true,"MaxMessagesCount":7,"maxAwaitDurationMS":40"#, " bulk:7/40ms", 0);
    bulk(r#""enabled":true,"maxMessagesCount":-1,"maxAwaitDurationMs":-5"#, " bulk:100/1s", 2);
    bulk(r#""enabled":true,"maxMessagesCount":10001,"maxAwaitDurationMs":600001"#, " bulk:10000/600s", 2);
    bulk(r#""enabled":false,"maxMessagesCount":7"#, "", 0);
    bulk(r#""maxMessagesCount":7"#, "", 0);
}

#[test]
fn wrong_types() {
    refused(b"[1]", "item 0: expected an object");
    refused(b"[{}, {\"topic\":{}}]", "item 1: topic");
    refused(b"[{\"metadata\":{\"rawPayload\":true}}]", "metadata: expected a text");
    refused(b"[{\"metadata\":[]}]", "metadata: expected an object");
    refused(b"[{\"routes\":{\"rules\":{}}}]", "routes.rules");
    refused(b"[{\"bulkSubscribe\":true}]", "bulkSubscribe: expected an object");
    refused(b"[{\"bulkSubscribe\":{\"enabled\":1}}]", "bulkSubscribe.enabled: expected true or false");
    refused(b"[{\"bulkSubscribe\":{\"maxMessagesCount\":\"7\"}}]", "bulkSubscribe.maxMessagesCount: expected a whole");
    refused(
        b"[{\"bulkSubscribe\":{\"maxAwaitDurationMs\":0.5}}]",
        "bulkSubscribe.maxAwaitDurationMs: expected a whole",
    );
    refused(b"[{\"routes\":{\"rules\":[{\"match\":1}]}}]", "match");
    refused(
        br#"[{"pubsubname":"b","topic":"t","route":"/a"},{"routes":{"rules":[{"match":"a >"}]}}]"#,
        "item 1: routes.rules[0].match: no CEL expression",
    );
    let rules = vec!["{}"; crate::rule::RULES_MAX + 1].join(",");
    refused(format!(r#"[{{"routes":{{"rules":[{rules}]}}}}]"#).as_bytes(), "more than 256");
    refused(b"[] []", "no JSON");
}

#[test]
fn nothing_panics() {
    let whole = br#"[{"pubsubname":"bus","topic":"t\u00e9","route":"/in","routes":{"rules":[{"match":"","path":"/x"}],"default":"/d"},"metadata":{"a":"b"},"bulkSubscribe":{"enabled":true}}]"#;
    for end in 1..whole.len() {
        assert!(programmatic(&whole[..end]).is_err(), "cut at {end}");
    }
    let mut random = fastrand::Rng::with_seed(11);
    let mut read = 0;
    for _ in 0..4_000 * crate::test_scale() {
        let mut bytes = whole.to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        read += usize::from(programmatic(&bytes).is_ok());
    }
    assert!(read > 0, "some changed bytes are harmless");
    assert!(programmatic(&vec![b'['; 100_000]).is_err());
}
