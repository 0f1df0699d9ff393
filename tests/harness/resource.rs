//! The YAML that most tests declare. What is particular to one test is written out there.

use std::fmt::{Display, Write};
use std::path::Path;

/// A broker of a type, with its metadata.
pub(crate) fn component(name: &str, kind: &str, metadata: &[(&str, &str)]) -> String {
    let mut yaml = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: {kind}\n  version: v1\n"
    );
    yaml.push_str(if metadata.is_empty() { "  metadata: []\n" } else { "  metadata:\n" });
    for (key, value) in metadata {
        write!(yaml, "  - name: {key}\n    value: \"{value}\"\n").ok();
    }
    yaml
}

/// The same, from a file instead of the search by type, and other keys of `spec` as they stand in the YAML.
pub(crate) fn from_file(yaml: &str, file: &Path, more: &str) -> String {
    let annotated = format!("metadata:\n  annotations:\n    whimbrel.dev/plugin: \"{}\"\n  name:", file.display());
    yaml.replacen("metadata:\n  name:", &annotated, 1).replacen("spec:\n", &format!("spec:\n{more}"), 1)
}

/// The in-memory broker as Dapr's.
pub(crate) fn in_memory(name: &str) -> String {
    component(name, "pubsub.in-memory", &[])
}

/// The in-memory broker as a queue.
pub(crate) fn queue(name: &str) -> String {
    component(name, "pubsub.in-memory", &[("mode", "queue")])
}

/// Redis at an address, with leases short enough for tests.
pub(crate) fn redis(name: &str, host: impl Display, more: &[(&str, &str)]) -> String {
    let host = host.to_string();
    let mut metadata = vec![("redisHost", host.as_str())];
    let given = |key: &str| more.iter().any(|(name, _)| *name == key);
    for (key, value) in [("processingTimeout", "2s"), ("redeliverInterval", "500ms")] {
        if !given(key) {
            metadata.push((key, value));
        }
    }
    metadata.extend_from_slice(more);
    component(name, "pubsub.redis", &metadata)
}

/// A subscription with one route, and a dead-letter topic if one is named.
pub(crate) fn subscription(pubsub: &str, topic: &str, path: &str, dead: Option<&str>) -> String {
    let dead = dead.map(|topic| format!("  deadLetterTopic: {topic}\n")).unwrap_or_default();
    format!(
        "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata:\n  name: {pubsub}-{}\nspec:\n  \
         pubsubname: {pubsub}\n  topic: \"{topic}\"\n{dead}  routes:\n    default: {path}\n",
        topic.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    )
}

/// Policies around delivery from a broker: `policies` and `inbound` as they stand in the YAML, in flow style.
pub(crate) fn inbound(pubsub: &str, policies: &str, inbound: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata:\n  name: policies\nspec:\n  policies: {policies}\n  \
         targets:\n    components:\n      {pubsub}:\n        inbound: {inbound}\n"
    )
}

/// A handler component: its file, its identity, what it subscribes to (pubsub, topic, dead-letter topic).
pub(crate) fn handler(name: &str, file: &Path, subscriptions: &[(&str, &str, Option<&str>)], limits: &str) -> String {
    let file = file.display();
    let mut yaml = format!(
        "---\napiVersion: whimbrel.dev/v1alpha1\nkind: Handler\nmetadata:\n  name: {name}\nspec:\n  file: \"{file}\"\n  \
         appID: {name}\n  limits: {limits}\n  subscriptions:\n"
    );
    for (pubsub, topic, dead) in subscriptions {
        write!(yaml, "  - pubsubname: {pubsub}\n    topic: {topic}\n").ok();
        if let Some(dead) = dead {
            writeln!(yaml, "    deadLetterTopic: {dead}").ok();
        }
    }
    yaml
}
