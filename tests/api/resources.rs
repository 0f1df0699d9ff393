//! Components and secrets (pubsub-behaviour 9): which are loaded, and what their values come to. A value is seen by what it
//! allows: it is the component's `allowedTopics`.
//!
//! | row | where else |
//! |---|---|
//! | 9 what is fatal, what is skipped, how long opening may take | starting |
//! | 9 a folder that does not exist | security/resources |
//! | 9 documents that are no YAML; unknown keys; secrets are never shown | security/resources, cli/check |
//! | 9 types that the configuration denies; configurations are expanded | configuration; host/resources/tests/configuration |
//! | 9 templates and groups at a broker | templates |
//! | 9 in-memory: publishers wait, `*`, nothing comes again | delivery/modes, delivery/wildcards, guarantees |
//! | 9 hot reload | reload |
//! | 9 a thousand names | host/resources/src/fuzz |
//! | 9 a document over 64 KiB; wrong values are errors | differences that are meant: see `better` |
//! | 9 pluggable gRPC components | not planned |

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::tally::Tally;
use crate::harness::host::{Host, HostPlan};
use crate::harness::{Test, http, resource, run};

/// An item of a component's metadata that allows topics, and the topic it allows; none: the item is empty, all are allowed.
const VALUES: [(&str, &str, Option<&str>); 30] = [
    ("9 a text", "{name: allowedTopics, value: t1}", Some("t1")),
    ("9 a number", "{name: allowedTopics, value: 5}", Some("5")),
    ("9 a fraction", "{name: allowedTopics, value: 0.5}", Some("0.5")),
    ("9 a boolean", "{name: allowedTopics, value: true}", Some("true")),
    ("9 a map", "{name: allowedTopics, value: {a: 1}}", Some("{\"a\":1}")),
    ("9 the case of its name", "{name: ALLOWEDtopics, value: t1}", Some("t1")),
    ("9 the case of keys", "{Name: allowedTopics, VALUE: t1}", Some("t1")),
    ("9 no expansion", "{name: allowedTopics, value: $PROBE}", Some("$PROBE")),
    ("9 no expansion in braces", "{name: allowedTopics, value: \"${PROBE}\"}", Some("${PROBE}")),
    ("9 envRef", "{name: allowedTopics, envRef: PROBE}", Some("probed")),
    ("9 envRef with a value", "{name: allowedTopics, envRef: PROBE, value: own}", Some("own")),
    ("9 envRef with an empty value", "{name: allowedTopics, envRef: PROBE, value: \"\"}", Some("probed")),
    ("9 envRef, not set", "{name: allowedTopics, envRef: NOWHERE}", None),
    ("9 envRef, the API token", "{name: allowedTopics, envRef: APP_API_TOKEN}", None),
    ("9 envRef, ours", "{name: allowedTopics, envRef: DAPR_PROBE}", None),
    ("9 envRef with a blank", "{name: allowedTopics, envRef: A B}", None),
    ("7 {appID}", "{name: allowedTopics, value: \"{appID}-{appID}\"}", Some("me-me")),
    ("7 {podName}", "{name: allowedTopics, value: \"{podName}\"}", Some("pod-7")),
    ("7 {namespace}", "{name: allowedTopics, value: \"{namespace}\"}", Some("ns1.me")),
    ("7 a template of a variable's value", "{name: allowedTopics, envRef: TEMPLATE}", Some("me")),
    ("9 a secret without a key", "{name: allowedTopics, secretKeyRef: {name: flat}}", Some("flat-1")),
    ("9 a secret with a key", "{name: allowedTopics, secretKeyRef: {name: flat, key: flat}}", Some("flat-1")),
    ("9 a secret before a value", "{name: allowedTopics, value: own, secretKeyRef: {name: flat}}", Some("flat-1")),
    ("9 a nested secret", "{name: allowedTopics, secretKeyRef: {name: \"outer:inner\"}}", Some("nested-1")),
    ("9 a secret that is a number", "{name: allowedTopics, secretKeyRef: {name: number}}", Some("7")),
    ("9 no such secret", "{name: allowedTopics, secretKeyRef: {name: nobody, key: x}}", None),
    ("9 no such key", "{name: allowedTopics, secretKeyRef: {name: flat, key: x}}", None),
    ("9 a value that is null", "{name: allowedTopics, value: null}", None),
    ("9 a value that is empty", "{name: allowedTopics, value: \"\"}", None),
    ("9 no value", "{name: allowedTopics}", None),
];

/// The same of other secret stores.
const SECRETS: [(&str, &str, &str, Option<&str>); 10] = [
    ("9 another separator", "dotted", "{name: outer.inner}", Some("nested-1")),
    ("9 several values", "multi", "{name: outer, key: inner}", Some("nested-1")),
    ("9 several values, deeper", "multi", "{name: outer, key: \"deep:er\"}", Some("nested-2")),
    ("9 the environment", "env", "{name: PROBE}", Some("probed")),
    ("9 the environment, with a key", "env", "{name: PROBE, key: PROBE}", Some("probed")),
    ("9 the environment, another key", "env", "{name: PROBE, key: x}", None),
    ("9 the environment, the API token", "env", "{name: APP_API_TOKEN}", None),
    ("9 the environment, ours", "env", "{name: DAPR_PROBE}", None),
    ("9 the environment, with a prefix", "prefixed", "{name: BE}", Some("probed")),
    ("9 mounted", "mounted", "{name: outer, key: inner}", Some("mounted-1")),
];

fn with_item(name: &str, item: &str, store: Option<&str>) -> String {
    let store = store.map(|store| format!("auth: {{secretStore: {store}}}\n")).unwrap_or_default();
    resource::in_memory(name).replace("metadata: []\n", &format!("metadata:\n  - {item}\n")) + &store
}

/// Secrets of every store, in files beside the resources.
fn stores(test: &Test, plan: HostPlan) -> Result<HostPlan> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let secrets = r#"{"flat": "flat-1", "number": 7, "outer": {"inner": "nested-1", "deep": {"er": "nested-2"}}}"#;
    let folder = test.folder("secrets")?;
    std::fs::create_dir(folder.join("outer"))?;
    std::fs::write(folder.join("outer/inner"), "mounted-1")?;
    std::fs::write(folder.join("secrets.json"), secrets)?;
    let (file, folder) = (text(&folder.join("secrets.json"))?, text(&folder)?);
    let file = ("secretsFile", file.as_str());
    let of = |name, kind, metadata: &[_]| resource::component(name, &format!("secretstores.{kind}"), metadata);
    plan.resource(of("file", "local.file", &[file]))?
        .resource(of("dotted", "Local.File", &[file, ("nestedSeparator", ".")]))?
        .resource(of("multi", "local.file", &[file, ("MultiValued", "true")]))?
        .resource(of("env", "local.env", &[]))?
        .resource(of("prefixed", "local.env", &[("prefix", "PRO")]))?
        .resource(of("mounted", "kubernetes", &[("mountPath", &folder)]))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What a component allows: everything, or this topic.
async fn allows<'a>(host: &Host, component: &str, topic: Option<&'a str>) -> Result<Option<&'a str>> {
    let status = async |topic: &str| {
        anyhow::Ok(http::publish(host.http()?, &format!("{component}/{}", escaped(topic)), "1").await?.status)
    };
    match (status("any").await?, topic) {
        (204, _) => Ok(None),
        (403, Some(topic)) if status(topic).await? == 204 => Ok(Some(topic)),
        (other, _) => {
            anyhow::bail!("{other}: {}", http::publish(host.http()?, &format!("{component}/any"), "1").await?.text())
        }
    }
}

#[test]
fn what_values_come_to() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.env("PROBE", "probed").env("TEMPLATE", "{appID}").env("DAPR_PROBE", "probed");
        let plan = plan.env("APP_API_TOKEN", "probed").env("POD_NAME", "pod-7").env("NAMESPACE", "ns1");
        let mut plan = stores(test, plan)?;
        for (number, (_, item, _)) in VALUES.iter().enumerate() {
            plan = plan.resource(with_item(&format!("v{number}"), item, Some("file")))?;
        }
        for (number, (_, store, reference, _)) in SECRETS.iter().enumerate() {
            let item = format!("{{name: allowedTopics, secretKeyRef: {reference}}}");
            plan = plan.resource(with_item(&format!("s{number}"), &item, Some(store)))?;
        }
        let host = plan.start().await?;
        let mut rows = Tally::default();
        for (number, (row, _, topic)) in VALUES.iter().enumerate() {
            rows.check_all([(*row, allows(&host, &format!("v{number}"), *topic).await, *topic)]);
        }
        for (number, (row, _, _, topic)) in SECRETS.iter().enumerate() {
            rows.check_all([(*row, allows(&host, &format!("s{number}"), *topic).await, *topic)]);
        }
        let log = host.log()?;
        rows.check("9 what is missing is said", log.matches("the value stays empty").count(), 9);
        rows.end()
    })
}

/// Only the variables that are listed, where they are.
#[test]
fn variables_may_be_limited() -> Result<()> {
    run(async |test| {
        let plan = test.host("me")?.env("DAPR_ENV_KEYS", "ONE TWO").env("ONE", "1").env("TWO", "2").env("THREE", "3");
        let mut plan = plan.env("DAPR_FOUR", "4");
        let cases = [("ONE", Some("1")), ("TWO", Some("2")), ("THREE", None), ("DAPR_FOUR", None), ("one", None)];
        for (number, (variable, _)) in cases.iter().enumerate() {
            let item = format!("{{name: allowedTopics, envRef: {variable}}}");
            plan = plan.resource(with_item(&format!("v{number}"), &item, None))?;
        }
        let host = plan.start().await?;
        let mut rows = Tally::default();
        for (number, (_, topic)) in cases.iter().enumerate() {
            rows.check_all([("9 DAPR_ENV_KEYS", allows(&host, &format!("v{number}"), *topic).await, *topic)]);
        }
        rows.end()
    })
}

/// Names as they stand in a resource, and as they are.
const NAMES: [(&str, &str); 9] = [
    ("with blanks", "with blanks"),
    ("5", "5"),
    ("\"007\"", "007"),
    ("gr\u{fc}n-\u{1f426}", "gr\u{fc}n-\u{1f426}"),
    ("it's", "it's"),
    ("'\"quoted\"'", "\"quoted\""),
    ("a:b?c#d&e+f", "a:b?c#d&e+f"),
    ("...", "..."),
    ("UPPER", "UPPER"),
];

#[test]
fn names_are_anything_that_fits_into_a_path() -> Result<()> {
    run(async |test| {
        let mut plan = test.host("me")?;
        for (name, _) in NAMES {
            plan = plan.resource(resource::in_memory(name))?;
        }
        let host = plan.start().await?;
        let metadata = http::get(host.http()?, "/v1.0/metadata").await?.json()?;
        let listed: Vec<&Value> =
            metadata["components"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
        let mut rows = Tally::default();
        for (spelled, name) in NAMES {
            let answer = http::publish(host.http()?, &format!("{}/t", escaped(name)), "1").await?;
            rows.check(&format!("9 the name {spelled}"), answer.status, 204);
            rows.check(&format!("9 the name {spelled}, listed"), listed.iter().any(|listed| **listed == name), true);
        }
        rows.check("9 the case of a name", http::publish(host.http()?, "upper/t", "1").await?.status, 404);
        rows.end()
    })
}

/// What stands in a file, and whether there is a component `NUMBER` because of it.
fn loaded() -> Vec<(&'static str, String, bool)> {
    let of = resource::in_memory("NUMBER");
    let with = |from: &str, to: &str| of.replacen(from, to, 1);
    let kind = |kind: &str| with("pubsub.in-memory", kind);
    let version = |version: &str| with("version: v1", version);
    let spec = |more: &str| with("spec:\n", &format!("spec:\n  {more}\n"));
    let in_namespace = |name: &str| with("  name: NUMBER\n", &format!("  name: NUMBER\n  namespace: {name}\n"));
    let keys = "APIVersion: dapr.io/v1alpha1\nKIND: Component\nMetadata: {Name: NUMBER}\nSpec: {TYPE: pubsub.in-memory, Version: v1}\n";
    vec![
        ("9 a component", of.clone(), true),
        ("9 the case of keys", keys.to_owned(), true),
        ("9 the case of the kind", with("kind: Component", "kind: component"), false),
        ("9 the case of the version of the API", with("dapr.io", "Dapr.io"), false),
        ("9 another version of the API", with("dapr.io/v1alpha1", "dapr.io/v2alpha1"), false),
        ("9 the case of the type", kind("PubSub.In-Memory"), true),
        ("9 another building block", kind("state.in-memory"), false),
        ("9 version v0", version("version: v0"), true),
        ("9 version V1", version("version: V1"), true),
        ("9 an empty version", version("version: \"\""), true),
        ("9 no version", with("  version: v1\n", ""), true),
        ("9 no metadata", with("  metadata: []\n", ""), true),
        ("9 metadata of null", with("metadata: []", "metadata:"), true),
        ("9 an unknown key", spec("colour: red"), true),
        ("9 initTimeout", spec("initTimeout: 1m30s"), true),
        ("9 initTimeout of zero", spec("initTimeout: 0s"), true),
        ("9 initTimeout that is none", spec("initTimeout: soon"), true),
        ("9 initTimeout below zero", spec("initTimeout: -1s"), true),
        ("9 the same namespace", in_namespace("ns1"), true),
        ("9 another namespace", in_namespace("ns2"), false),
        ("9 the case of a namespace", in_namespace("NS1"), false),
        ("8.1 no scopes", of.clone() + "scopes: []\n", true),
        ("8.1 in scope", of.clone() + "scopes: [you, me]\n", true),
        ("8.1 out of scope", of.clone() + "scopes: [you]\n", false),
        ("8.1 the case of an app", of.clone() + "scopes: [Me]\n", false),
        ("8.1 no part of an app", of.clone() + "scopes: [me2, m]\n", false),
        ("9 out of scope, whatever is wrong", kind("pubsub.nothing") + "scopes: [you]\n", false),
        ("9 elsewhere, whatever is wrong", in_namespace("ns2").replace("in-memory", "nothing"), false),
        ("9 out of scope it is no duplicate", of.clone() + "---\n" + &of + "scopes: [you]\n", true),
        ("9 elsewhere it is no duplicate", of.clone() + "---\n" + &in_namespace("ns2"), true),
        ("9 after another document", format!("apiVersion: v1\nkind: ConfigMap\n---\n{of}"), true),
        ("9 after one that is malformed", format!("a: [\n---\n{of}"), true),
        ("9 before one that is malformed", format!("{of}---\na: b: c\n"), true),
        ("9 after separators", format!("---\n---\n# nothing\n---\n{of}---\n"), true),
        ("9 after a longer line of dashes", format!("a: 1\n-------\n{of}"), true),
        (
            "9 a document over 64 KiB",
            with("spec:", &format!("  annotations: {{note: {}}}\nspec:", "x".repeat(70_000))),
            true,
        ),
        ("9 no secret store of that name", parked("nobody"), false),
        ("9 a secret and no secret store", parked("").replace("auth: {secretStore: }\n", ""), false),
        ("9 ignoreErrors: no such type", ignoring(&kind("pubsub.nothing")), false),
        ("9 ignoreErrors: no such version", ignoring(&version("version: v2")), false),
        (
            "9 ignoreErrors: a value that does not parse",
            ignoring(&with("metadata: []", "metadata: [{name: mode, value: sideways}]")),
            false,
        ),
        (
            "9 ignoreErrors: no pod",
            ignoring(&with("metadata: []", "metadata: [{name: consumerID, value: \"{podName}\"}]")),
            false,
        ),
        ("9 ignoreErrors, and there is none", ignoring(&of), true),
    ]
}

fn parked(store: &str) -> String {
    with_item("NUMBER", "{name: allowedTopics, secretKeyRef: {name: a}}", Some(store))
}

fn ignoring(yaml: &str) -> String {
    yaml.replacen("spec:\n", "spec:\n  ignoreErrors: true\n", 1)
}

#[test]
fn what_is_loaded() -> Result<()> {
    run(async |test| {
        let mut plan = test.host("me")?.env("NAMESPACE", "ns1");
        for (number, (_, yaml, _)) in loaded().iter().enumerate() {
            plan = plan.resource(yaml.replace("NUMBER", &format!("c{number}")))?;
        }
        let host = plan.start().await?;
        let mut rows = Tally::default();
        for (number, (row, _, loaded)) in loaded().into_iter().enumerate() {
            let status = http::publish(host.http()?, &format!("c{number}/t"), "1").await?.status;
            rows.check(row, status, if loaded { 204 } else { 404 });
        }
        rows.end()
    })
}

#[test]
fn which_files_are_read() -> Result<()> {
    run(async |test| {
        let second = test.folder("second")?;
        let plan = test.host("me")?;
        let of = |name: &str| resource::in_memory(name);
        for (file, name) in
            [("a.yaml", "a"), ("B.YAML", "b"), ("c.yml", "c"), ("d.Yml", "d"), ("e.json", "e"), ("yaml", "f")]
        {
            plan.file(file, of(name))?;
        }
        let inside = plan.file("keep.yaml", "")?.with_file_name("inside");
        std::fs::create_dir(&inside)?;
        std::fs::write(inside.join("g.yaml"), of("g"))?;
        std::fs::write(second.join("h.yaml"), of("h"))?;
        let plan = plan.flag("--resources-path", second.to_str().context("a path that is no text")?);
        let host = plan.start().await?;
        let mut rows = Tally::default();
        for (name, read) in
            [("a", 204), ("b", 204), ("c", 204), ("d", 204), ("e", 404), ("f", 404), ("g", 404), ("h", 204)]
        {
            rows.check(
                &format!("9 the file of {name}"),
                http::publish(host.http()?, &format!("{name}/t"), "1").await?.status,
                read,
            );
        }
        let log = host.log()?;
        for other in ["e.json", "/yaml"] {
            let said = log.lines().any(|line| line.contains("WARN") && line.contains(other));
            rows.check(&format!("9 a warning for {other}"), said, true);
        }
        rows.check("9 no warning for a folder", log.contains("/inside"), false);
        ensure!(!log.contains("ERROR"), "{log}");
        rows.end()
    })
}
