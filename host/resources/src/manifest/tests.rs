//! Reading `plugin.yaml`, checking settings against it, and the addresses they name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{PluginManifest, check};
use crate::problem::{Position, Severity};
use crate::scopes::TopicScopes;
use crate::snapshot::{Component, Property, Text};

const REDIS: &str = "
type: pubsub.Redis
title: Redis Streams
features: [durable, groups]
guarantees:
  - 'A confirmed message: kept.'
  - >-
    Order is
    not promised.
limits: [One server.]
metadata:
  - {name: redisHost, type: string, required: true, address: redisPort, example: 'localhost:6379'}
  - {name: redisPort, type: number, default: 6379}
  - {name: redisPassword, type: string, sensitive: true}
  - {name: pin, type: number, sensitive: true, example: 1234}
  - {name: enableTLS, type: bool, default: false}
  - {name: processingTimeout, type: duration, default: 60s}
  - {name: redisType, type: enum, values: [node, cluster], default: node}
  - {name: sentinels, type: string, address: 26379}
";

fn manifest() -> PluginManifest {
    PluginManifest::parse(REDIS, Path::new("plugin.yaml")).expect("a manifest")
}

fn component(settings: &[(&str, &str)]) -> Component {
    let at = |line| Position { file: PathBuf::from("bus.yaml"), line };
    let property = |(index, (name, value)): (usize, &(&str, &str))| Property {
        name: (*name).to_owned(),
        value: Text::new((*value).to_owned()),
        at: at(index + 10),
    };
    Component {
        name: "bus".to_owned(),
        kind: "pubsub.redis".to_owned(),
        version: "v1".to_owned(),
        properties: settings.iter().enumerate().map(property).collect(),
        scopes: Vec::new(),
        topic_scopes: TopicScopes::default(),
        init_timeout: Duration::from_secs(5),
        ignore_errors: false,
        consumer_id: None,
        topic_prefix: None,
        network: Vec::new(),
        plugin: None,
        at: at(1),
    }
}

fn said(settings: &[(&str, &str)]) -> String {
    let problems = check(&component(settings), &manifest());
    let line = |problem: &crate::Problem| {
        let severity = if problem.severity == Severity::Error { "E" } else { "W" };
        format!("{severity} {problem}")
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn settings_are_checked() {
    fn case(name: &str, value: &str, expect: &str) {
        assert_eq!(said(&[("redisHost", "h"), (name, value)]), expect, "{name} = {value:?}");
    }
    case("REDISHOST", "h:1,i", "");
    case("consumerid", "x", "");
    case("redisPassword", "anything", "");
    case("enableTLS", "Yes", "");
    case("enableTLS", "", "");
    case("redisType", " Cluster ", "");
    case("processingTimeout", "250", "");
    case("processingTimeout", "1m30s", "");
    case(
        "redisHots",
        "x",
        "W bus.yaml:11: spec.metadata.redisHots: not a setting of pubsub.redis (did you mean redisHost?)",
    );
    case("colour", "x", "W bus.yaml:11: spec.metadata.colour: not a setting of pubsub.redis");
    case("enableTLS", "maybe", "E bus.yaml:11: spec.metadata.enableTLS: \"maybe\" is not true or false");
    case("redisPort", "inf", "E bus.yaml:11: spec.metadata.redisPort: \"inf\" is not a number");
    case("pin", "geheim", "E bus.yaml:11: spec.metadata.pin: the value is not a number");
    case(
        "processingTimeout",
        "-5s",
        "E bus.yaml:11: spec.metadata.processingTimeout: \"-5s\" is not a duration such as 15s or 500ms",
    );
    case("redisType", "ring", "E bus.yaml:11: spec.metadata.redisType: \"ring\" is not one of node, cluster");
    case(
        "sentinels",
        "redis://u:pw@",
        "E bus.yaml:11: spec.metadata.sentinels: the value is not an address: host, host:port, or a list of them",
    );
}

#[test]
fn what_is_required() {
    let missing = "E bus.yaml:1: spec.metadata.redisHost: is missing, and pubsub.redis cannot do without it (for example localhost:6379)";
    assert_eq!(said(&[]), missing);
    assert_eq!(said(&[("redisHost", " ")]), missing);
    assert_eq!(said(&[("redisHost", ""), ("redishost", "h")]), "");
}

#[test]
fn addresses() {
    fn case(settings: &[(&str, &str)], expect: &str) {
        let found = manifest().addresses(&component(settings));
        let shown: Vec<String> = found.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        assert_eq!(shown.join(" "), expect, "{settings:?}");
    }
    case(&[], "");
    case(&[("redisHost", "a")], "a:6379");
    case(&[("redisHost", "a"), ("redisPort", "7000")], "a:7000");
    case(&[("redisHost", "a:1,b"), ("redisPort", "x")], "");
    case(&[("redisHost", "a:1,b"), ("sentinels", "s")], "a:1 b:6379 s:26379");
    case(&[("redisHost", "not an address")], "");
}

#[test]
fn defaults_name_addresses_too() {
    let text = "type: pubsub.x\nmetadata: [{name: url, type: string, default: 'nats://localhost', address: 4222}]";
    let manifest = PluginManifest::parse(text, Path::new("p")).expect("a manifest");
    assert_eq!(manifest.addresses(&component(&[])), [("localhost".to_owned(), 4222)]);
}

#[test]
fn a_scheme_in_another_setting_is_a_port() {
    let text = "type: pubsub.x\nmetadata: [{name: host, type: string, address: protocol}, {name: protocol, type: string, default: amqp}]";
    let manifest = PluginManifest::parse(text, Path::new("plugin.yaml")).unwrap();
    let port = |settings: &[(&str, &str)]| manifest.addresses(&component(settings))[0].1;
    assert_eq!(port(&[("host", "a")]), 5672);
    assert_eq!(port(&[("host", "a"), ("protocol", "AMQPS")]), 5671);
    assert_eq!(port(&[("host", "a:7"), ("protocol", "amqps")]), 7);
}

#[test]
fn bad_manifests() {
    fn case(text: &str, expect: &str) {
        let problems = PluginManifest::parse(text, Path::new("p.yaml")).expect_err("refused");
        assert!(problems.to_string().contains(expect), "{text}\ngave {problems}\nnot {expect}");
        assert!(problems.0.iter().all(|problem| problem.severity == Severity::Error));
    }
    case("", "expected one YAML document");
    case("[", "not a YAML document");
    case("text", "expected a map, found a text");
    case("title: x", "p.yaml:1: type: is missing");
    case("type: t\nmetdata: []", "p.yaml:2: metdata: unknown key (did you mean metadata?)");
    case("type: t\nmetadata: [{type: string}]", "metadata[0].name: is missing");
    case("type: t\nmetadata: [{name: a}]", "metadata[0].type: is missing");
    case("type: t\nmetadata: [{name: a, type: text}]", "\"text\" is no type");
    case("type: t\nmetadata: [{name: a, type: enum}]", "an enum without values");
    case("type: t\nmetadata: [{name: a, type: number, default: x}]", "the default of a is not a number");
    case("type: t\nmetadata: [{name: a, type: bool}, {name: A, type: bool}]", "metadata[1]: A is declared twice");
    case("type: t\nmetadata: [{name: a, type: string, address: b}]", "the address of a");
    case("type: t\nmetadata: [{name: a, type: string, required: perhaps}]", "is not true or false");
}

#[test]
fn nothing_panics() {
    let bytes = REDIS.as_bytes();
    let mut random = fastrand::Rng::with_seed(17);
    let mut refused = 0;
    for _ in 0..2_000 * crate::test_scale() {
        let mut damaged = bytes[..random.usize(1..=bytes.len())].to_vec();
        let at = random.usize(..damaged.len());
        damaged[at] = random.u8(..128);
        let text = String::from_utf8(damaged).expect("ASCII");
        match PluginManifest::parse(&text, Path::new("p")) {
            Ok(manifest) => drop(check(&component(&[("redisHost", "h"), ("x", "y")]), &manifest)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

#[test]
fn guarantees_and_limits_are_sentences() {
    let manifest = manifest();
    assert_eq!(manifest.guarantees, ["A confirmed message: kept.", "Order is not promised."]);
    assert_eq!(manifest.limits, ["One server."]);
    let wrong =
        PluginManifest::parse("type: pubsub.x\nlimits: [{one: two}]\nguarantee: []\n", Path::new("plugin.yaml"));
    let wrong = wrong.expect_err("a map is no sentence").to_string();
    assert!(wrong.contains("limits") && wrong.contains("guarantee"), "{wrong}");
}
