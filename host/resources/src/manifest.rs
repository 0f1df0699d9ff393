//! `plugin.yaml`: what an adapter is called, which settings it takes, and which of them name network addresses.
//!
//! Parsed by whoever finds plugins; a resource is checked against it before its adapter is opened (broker-adapters, 0.4
//! rule 13). Absent on purpose: anything the adapter must check itself, such as two settings that contradict each other.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::address::{addresses, scheme_port};
use crate::duration::duration_or_millis;
use crate::place::{Place, did_you_mean, quoted};
use crate::problem::{Position, Problem, Problems, Severity};
use crate::snapshot::Component;
use crate::yaml;

const ROOT_KEYS: [&str; 7] = ["type", "version", "title", "features", "guarantees", "limits", "metadata"];
const FIELD_KEYS: [&str; 9] =
    ["name", "type", "required", "default", "sensitive", "example", "values", "address", "description"];

/// Settings that every adapter takes without declaring them.
const COMMON_SETTINGS: [&str; 1] = ["consumerID"];

/// An adapter's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginManifest {
    /// `type` in lower case, for example `pubsub.redis`.
    pub kind: String,
    /// `version`; `v1` when absent.
    pub version: String,
    /// `title`: its name for people.
    pub title: String,
    /// `features`: what it declares to be able to do.
    pub features: Vec<String>,
    /// `guarantees`: what its users can rely on, a sentence or two each.
    pub guarantees: Vec<String>,
    /// `limits`: what it does not do, and how far it goes.
    pub limits: Vec<String>,
    /// `metadata`: the settings it takes, in order.
    pub fields: Vec<Field>,
}

/// One setting of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As it is documented. Compared without regard to case.
    pub name: String,
    /// What its values are.
    pub kind: FieldType,
    /// A resource without it is in error.
    pub required: bool,
    /// What the adapter takes where a resource does not say.
    pub default: Option<String>,
    /// Its value must not be shown.
    pub sensitive: bool,
    /// A value as it may look.
    pub example: Option<String>,
    /// It names network addresses, and this is the port of those that do not give one.
    pub address: Option<DefaultPort>,
    /// One sentence.
    pub description: String,
}

/// What the values of a setting are. A blank value is as if it were not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldType {
    /// Anything.
    String,
    /// A number, whole or not.
    Number,
    /// `true`, `false`, and Dapr's other spellings: `1`, `t`, `y`, `yes`, `on`, and their opposites.
    Bool,
    /// A Go duration, or a plain number of milliseconds. Not negative.
    Duration,
    /// One of these (`values`), without regard to case.
    Enum(Vec<String>),
}

/// Where the port of an address comes from that does not give one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultPort {
    /// `address: 6379`.
    Number(u16),
    /// `address: redisPort`: the value of another setting, which has a default. A port, or a scheme that stands for one.
    Of(String),
}

impl PluginManifest {
    /// Reads a manifest. The file is only named in problems.
    ///
    /// # Errors
    /// Everything that is wrong with it. An unknown key is: its author is there to mend it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        let fail = |line, what: String| {
            let at = Position { file: file.to_path_buf(), line };
            Problems(vec![Problem { severity: Severity::Error, at, key: String::new(), what, hint: String::new() }])
        };
        let documents = yaml::parse(text.trim_start_matches('\u{feff}'), 1)
            .map_err(|malformed| fail(malformed.line, format!("not a YAML document: {}", malformed.what)))?;
        let [root] = &documents[..] else { return Err(fail(1, "expected one YAML document".to_owned())) };
        let mut problems = Vec::new();
        let manifest = read(&Place::root(file, root), &mut problems);
        match manifest {
            Some(manifest) if problems.is_empty() => Ok(manifest),
            _ => Err(Problems(errors(problems))),
        }
    }

    /// The addresses that a resource's settings name: what its adapter may connect to. What is no address is left out;
    /// `check` has said so.
    #[must_use]
    pub fn addresses(&self, component: &Component) -> Vec<(String, u16)> {
        let given = Given::of(component);
        let named = self.fields.iter().filter_map(|field| {
            let port = self.default_port(field, &given)?;
            addresses(given.text(&field.name).or(field.default.as_deref())?, port)
        });
        named.flatten().collect()
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    fn default_port(&self, field: &Field, given: &Given<'_>) -> Option<u16> {
        match field.address.as_ref()? {
            DefaultPort::Number(port) => Some(*port),
            DefaultPort::Of(name) => {
                let default = self.field(name).and_then(|field| field.default.as_deref());
                port_of(given.text(name).or(default)?)
            }
        }
    }
}

/// Checks a resource's settings against its adapter's description: what is missing or does not parse is an error, what
/// is unknown a warning.
#[must_use]
pub fn check(component: &Component, manifest: &PluginManifest) -> Vec<Problem> {
    let given = Given::of(component);
    let mut problems = Vec::new();
    let fields: HashMap<String, &Field> =
        manifest.fields.iter().map(|field| (field.name.to_ascii_lowercase(), field)).collect();
    for property in &component.properties {
        let value = property.value.reveal().trim();
        let wrong = match fields.get(&property.name.to_ascii_lowercase()) {
            None => unknown(&property.name, manifest),
            Some(_) if value.is_empty() => None,
            Some(field) => mismatch(field, value, manifest.default_port(field, &given)),
        };
        let key = format!("spec.metadata.{}", property.name);
        problems.extend(wrong.map(|(severity, what, hint)| Problem {
            severity,
            at: property.at.clone(),
            key,
            what,
            hint,
        }));
    }
    for field in manifest.fields.iter().filter(|field| field.required && given.text(&field.name).is_none()) {
        problems.push(Problem {
            severity: Severity::Error,
            at: component.at.clone(),
            key: format!("spec.metadata.{}", field.name),
            what: format!("is missing, and {} cannot do without it", manifest.kind),
            hint: field.example.as_ref().map(|example| format!("for example {example}")).unwrap_or_default(),
        });
    }
    problems
}

/// A resource's settings by name in lower case, without the blank ones; of two, the last.
struct Given<'a>(HashMap<String, &'a str>);

impl<'a> Given<'a> {
    fn of(component: &'a Component) -> Self {
        let all = component
            .properties
            .iter()
            .map(|property| (property.name.to_ascii_lowercase(), property.value.reveal().trim()));
        let mut last: HashMap<String, &str> = all.collect();
        last.retain(|_, value| !value.is_empty());
        Self(last)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(&name.to_ascii_lowercase()).copied()
    }
}

type Wrong = (Severity, String, String);

fn unknown(name: &str, manifest: &PluginManifest) -> Option<Wrong> {
    if COMMON_SETTINGS.iter().any(|common| common.eq_ignore_ascii_case(name)) {
        return None;
    }
    let known: Vec<&str> = manifest.fields.iter().map(|field| field.name.as_str()).chain(COMMON_SETTINGS).collect();
    let what = format!("not a setting of {}", manifest.kind);
    Some((Severity::Warning, what, did_you_mean(name, &known)))
}

/// What is wrong with a value. It is shown only if it is no secret; an address may hold a password.
fn mismatch(field: &Field, value: &str, default_port: Option<u16>) -> Option<Wrong> {
    let expected = match default_port {
        Some(port) if addresses(value, port).is_none() => "an address: host, host:port, or a list of them".to_owned(),
        _ => field.kind.refuses(value)?,
    };
    let shown = if field.sensitive || field.address.is_some() { "the value".to_owned() } else { quoted(value) };
    let hint = field.example.as_ref().filter(|_| !field.sensitive);
    let hint = hint.map(|example| format!("for example {example}")).unwrap_or_default();
    Some((Severity::Error, format!("{shown} is not {expected}"), hint))
}

impl FieldType {
    /// What was expected, if a value is not of this type.
    fn refuses(&self, value: &str) -> Option<String> {
        const SWITCHES: [&str; 12] = ["1", "t", "true", "y", "yes", "on", "0", "f", "false", "n", "no", "off"];
        let any_case = |known: &&str| known.eq_ignore_ascii_case(value);
        let (fits, expected) = match self {
            Self::String => (true, String::new()),
            Self::Number => (value.parse::<f64>().is_ok_and(f64::is_finite), "a number".to_owned()),
            Self::Bool => (SWITCHES.iter().any(any_case), "true or false".to_owned()),
            Self::Duration => (duration_or_millis(value).is_some(), "a duration such as 15s or 500ms".to_owned()),
            Self::Enum(values) => (
                values.iter().map(String::as_str).any(|known| any_case(&known)),
                format!("one of {}", values.join(", ")),
            ),
        };
        (!fits).then_some(expected)
    }
}

fn read(root: &Place<'_>, problems: &mut Vec<Problem>) -> Option<PluginManifest> {
    if !root.is_map(problems) {
        return None;
    }
    root.warn_unknown(&ROOT_KEYS, problems);
    let kind = root.required("type", "for example pubsub.redis", problems);
    let mut names = HashSet::new();
    let mut fields = Vec::new();
    for item in root.items("metadata", problems) {
        let Some(field) = field(&item, problems) else { continue };
        if names.insert(field.name.to_ascii_lowercase()) {
            fields.push(field);
        } else {
            problems.push(item.error(format!("{} is declared twice", field.name), ""));
        }
    }
    let manifest = PluginManifest {
        kind: kind?.trim().to_ascii_lowercase(),
        version: root.filled("version", problems).unwrap_or("v1").trim().to_owned(),
        title: root.text("title", problems).unwrap_or_default().to_owned(),
        features: root.texts("features", problems),
        guarantees: root.texts("guarantees", problems),
        limits: root.texts("limits", problems),
        fields,
    };
    check_ports(root, &manifest, problems);
    Some(manifest)
}

fn field(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Field> {
    if !item.is_map(problems) {
        return None;
    }
    item.warn_unknown(&FIELD_KEYS, problems);
    let name = item.required("name", "each setting has a name and a type", problems)?;
    let kind = field_type(item, problems)?;
    let default = item.text("default", problems).map(str::to_owned);
    if let Some(expected) = default.as_deref().filter(|value| !value.is_empty()).and_then(|value| kind.refuses(value)) {
        problems.push(item.error(format!("the default of {name} is not {expected}"), ""));
    }
    Some(Field {
        name: name.to_owned(),
        kind,
        required: item.flag("required", problems),
        default: default.filter(|value| !value.is_empty()),
        sensitive: item.flag("sensitive", problems),
        example: item.filled("example", problems).map(str::to_owned),
        address: item.text("address", problems).map(|text| match text.parse() {
            Ok(port) => DefaultPort::Number(port),
            Err(_) => DefaultPort::Of(text.to_owned()),
        }),
        description: item.text("description", problems).unwrap_or_default().to_owned(),
    })
}

fn field_type(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<FieldType> {
    match item.required("type", "string, number, bool, duration or enum", problems)? {
        "string" => Some(FieldType::String),
        "number" => Some(FieldType::Number),
        "bool" => Some(FieldType::Bool),
        "duration" => Some(FieldType::Duration),
        "enum" => {
            let values = item.texts("values", problems);
            if values.is_empty() {
                problems.push(item.error("an enum without values".to_owned(), "list them under `values`"));
            }
            Some(FieldType::Enum(values))
        }
        other => {
            let what = format!("{} is no type", quoted(other));
            problems.push(item.error(what, "string, number, bool, duration or enum"));
            None
        }
    }
}

/// A port as a setting gives it: a number, or a scheme such as `amqps`.
fn port_of(text: &str) -> Option<u16> {
    let text = text.trim();
    text.parse().ok().or_else(|| scheme_port(text))
}

/// A port that stands in another setting must be there whatever a resource says.
fn check_ports(root: &Place<'_>, manifest: &PluginManifest, problems: &mut Vec<Problem>) {
    for field in &manifest.fields {
        let Some(DefaultPort::Of(name)) = &field.address else { continue };
        let default = manifest.field(name).and_then(|other| other.default.as_deref());
        if default.and_then(port_of).is_none() {
            let what = format!(
                "the address of {}: {} is no port, and no setting with a default port",
                field.name,
                quoted(name)
            );
            problems.push(root.error(what, "for example address: 6379"));
        }
    }
}

/// A manifest has no warnings: whoever sees them is the one who can mend it.
fn errors(problems: Vec<Problem>) -> Vec<Problem> {
    problems.into_iter().map(|problem| Problem { severity: Severity::Error, ..problem }).collect()
}

#[cfg(test)]
mod tests;
