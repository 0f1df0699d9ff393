//! An adapter's reference page, as Markdown, from its `plugin.yaml`. Called by `whimbrel plugins page`. The committed pages,
//! `plugins/NAME/README.md`, are what it prints; a test compares them.

use std::fmt::Write as _;

use whimbrel_resources::{DefaultPort, Field, FieldType, PluginManifest};

/// Each feature, what it means where it is there, and what where it is not.
const FEATURES: [(&str, &str, &str); 8] = [
    (
        "durable",
        "What was published with success survives a restart of the broker.",
        "What was published may be gone after a restart of the broker. The host does not replace the running adapter by \
         another file once it is in use.",
    ),
    (
        "groups",
        "Subscribers of one group (by default: one app id) share the messages.",
        "Every subscription gets every message, whatever its group.",
    ),
    (
        "ordering",
        "Messages of one key are delivered in the order they were published, until one of them is retried.",
        "No order is promised.",
    ),
    ("wildcards", "A subscribed topic may hold wildcards.", "A subscription names its topic exactly."),
    (
        "delay",
        "A message that waits for its next delivery lets others pass.",
        "A message that waits for its next delivery may hold up those behind it.",
    ),
    (
        "delivery-count",
        "Deliveries are counted at the broker, and so across restarts of the host.",
        "Deliveries are counted by each host for itself.",
    ),
    (
        "ttl",
        "The broker drops what has expired (`ttlInSeconds`).",
        "The host stamps each event with its expiry (`ttlInSeconds`) and drops what has expired when it is delivered.",
    ),
    (
        "topic-flow",
        "A publish may wait until the topic's subscribers have taken the message before it.",
        "A publish never waits for subscribers.",
    ),
];

/// The page.
pub(crate) fn page(manifest: &PluginManifest) -> String {
    let mut text = String::new();
    let PluginManifest { kind, version, title, .. } = manifest;
    writeln!(text, "# {kind}: {title}\n").ok();
    text.push_str(
        "<!-- From plugin.yaml. To make it anew, in this folder: whimbrel plugins page plugin.yaml > README.md -->\n\n",
    );
    writeln!(text, "Type `{kind}`, version `{version}`. A resource that uses it:\n").ok();
    resource(&mut text, manifest);
    sentences(&mut text, "What it guarantees", &manifest.guarantees);
    sentences(&mut text, "Limits", &manifest.limits);
    features(&mut text, manifest);
    settings(&mut text, manifest);
    reach(&mut text, manifest);
    text
}

/// What the values of a setting are, in a word.
pub(crate) fn kind(field: &Field) -> String {
    match &field.kind {
        FieldType::String => "string".to_owned(),
        FieldType::Number => "number".to_owned(),
        FieldType::Bool => "bool".to_owned(),
        FieldType::Duration => "duration".to_owned(),
        FieldType::Enum(values) => values.join("|"),
    }
}

fn resource(text: &mut String, manifest: &PluginManifest) {
    let PluginManifest { kind, version, .. } = manifest;
    text.push_str("```yaml\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: bus\nspec:\n");
    writeln!(text, "  type: {kind}\n  version: {version}").ok();
    let required: Vec<&Field> = manifest.fields.iter().filter(|field| field.required).collect();
    text.push_str(if required.is_empty() { "  metadata: []\n" } else { "  metadata:\n" });
    for field in required {
        let example = field.example.as_deref().unwrap_or("...").replace('"', "\\\"");
        writeln!(text, "  - name: {}\n    value: \"{example}\"", field.name).ok();
    }
    text.push_str("```\n");
}

fn sentences(text: &mut String, heading: &str, sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    writeln!(text, "\n## {heading}\n").ok();
    for sentence in sentences {
        writeln!(text, "- {}", sentence.trim()).ok();
    }
}

fn features(text: &mut String, manifest: &PluginManifest) {
    text.push_str("\n## Features\n\n| feature | | so |\n|---|---|---|\n");
    for (feature, with, without) in FEATURES {
        let has = manifest.features.iter().any(|declared| declared == feature);
        writeln!(text, "| `{feature}` | {} | {} |", if has { "yes" } else { "no" }, if has { with } else { without })
            .ok();
    }
}

fn settings(text: &mut String, manifest: &PluginManifest) {
    text.push_str("\n## Settings\n\nNames are compared without regard to case. ");
    if !manifest.fields.iter().any(|field| field.name.eq_ignore_ascii_case("consumerID")) {
        text.push_str("Besides these, every adapter takes `consumerID`: the group in place of the app id. ");
    }
    text.push_str("A secret may come from a secret store, and is never shown.\n\n");
    text.push_str("| setting | type | default | example | meaning |\n|---|---|---|---|---|\n");
    for field in &manifest.fields {
        let mut kind = kind(field);
        for (is, mark) in [(field.required, "**required**"), (field.sensitive, "secret")] {
            if is {
                write!(kind, ", {mark}").ok();
            }
        }
        let code = |value: Option<&String>| value.map(|value| format!("`{}`", cell(value))).unwrap_or_default();
        let (default, example) = (code(field.default.as_ref()), code(field.example.as_ref()));
        let (name, meaning) = (&field.name, cell(&field.description));
        writeln!(text, "| `{name}` | {} | {default} | {example} | {meaning} |", cell(&kind)).ok();
    }
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}

fn reach(text: &mut String, manifest: &PluginManifest) {
    text.push_str("\n## What it may reach\n\n");
    let addresses: Vec<(&Field, &DefaultPort)> =
        manifest.fields.iter().filter_map(|field| Some((field, field.address.as_ref()?))).collect();
    if addresses.is_empty() {
        text.push_str("No setting names an address, so it reaches no network.\n");
        return;
    }
    text.push_str("The host lets it connect to the addresses in these settings, and to nothing else:\n\n");
    for (field, port) in addresses {
        let port = match port {
            DefaultPort::Number(port) => format!("port {port}"),
            DefaultPort::Of(other) => format!("the port in `{other}`"),
        };
        writeln!(text, "- `{}`; {port} where it gives none", field.name).ok();
    }
    text.push_str(
        "\nA broker that advertises other addresses than the configured ones needs a grant in its resource. Patterns are \
         separated by commas; `*.` stands for any subdomain, `:*` for any port:\n\n```yaml\nmetadata:\n  name: bus\n  \
         annotations:\n    whimbrel.dev/network: \"*.broker.local:9092, 10.0.0.7:*\"\n```\n",
    );
}
