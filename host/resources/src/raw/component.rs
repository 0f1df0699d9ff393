//! Dapr's `Component`, as far as it is a pub/sub one (pubsub-behaviour, sections 8 and 9).

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::duration::duration;
use crate::place::{Place, quoted};
use crate::problem::{Position, Problem};
use crate::scopes::TopicScopes;
use crate::snapshot::{Component, Property, Text};
use crate::yaml::{Node, Value, boolean};

/// How long opening may take where the resource does not say.
const DEFAULT_INIT_TIMEOUT: Duration = Duration::from_secs(5);

const SPEC_KEYS: [&str; 5] = ["type", "version", "metadata", "initTimeout", "ignoreErrors"];
const ITEM_KEYS: [&str; 4] = ["name", "value", "secretKeyRef", "envRef"];

/// What Dapr replaces in every value (pubsub-behaviour, section 7). To pass one on as it stands would put all apps of a
/// group named so into one.
const TEMPLATES: [&str; 4] = ["{appID}", "{namespace}", "{podName}", "{uuid}"];

/// The consumer group, as adapters know it.
const CONSUMER_ID: &str = "consumerID";
/// What Dapr's Kafka component calls it, besides; it goes before the other.
const CONSUMER_GROUP: &str = "consumerGroup";

/// Host patterns that the resource grants besides its addresses.
const NETWORK_ANNOTATION: &str = "whimbrel.dev/network";
/// The component's file, in place of the search by type.
const PLUGIN_ANNOTATION: &str = "whimbrel.dev/plugin";

/// Reads a component that is in scope. `None` for one that is no pub/sub component, with a warning, or that lacks what
/// makes a component.
pub(crate) fn read(root: &Place<'_>, scopes: Vec<String>, problems: &mut Vec<Problem>) -> Option<Component> {
    let spec = super::spec(root, problems)?;
    let Some(given) = spec.required("type", "for example pubsub.redis", problems) else {
        super::name(root, problems);
        return None;
    };
    let kind = given.trim().to_ascii_lowercase();
    match kind.strip_prefix("pubsub.") {
        None => {
            let what = format!("{} is not a pub/sub component, ignored", quoted(&kind));
            problems.push(spec.get("type").unwrap_or(spec).warning(what, ""));
            return None;
        }
        Some("") => {
            problems
                .push(spec.get("type").unwrap_or(spec).error("names no broker".to_owned(), "for example pubsub.redis"));
            return None;
        }
        Some(_) => {}
    }
    let name = super::name(root, problems)?;
    root.warn_unknown(&[&super::ROOT_KEYS[..], &["auth"]].concat(), problems);
    spec.warn_unknown(&SPEC_KEYS, problems);
    let (properties, consumer_id, topic_scopes) = Settings::read(&spec, problems).finish();
    Some(Component {
        name,
        kind,
        version: spec.filled("version", problems).unwrap_or("v1").trim().to_owned(),
        properties,
        scopes,
        topic_scopes,
        init_timeout: init_timeout(&spec, problems),
        ignore_errors: spec.flag("ignoreErrors", problems),
        consumer_id,
        network: network(root, problems),
        plugin: plugin(root, problems),
        at: root.at(),
    })
}

/// As in Dapr, a bad value does not keep the component from starting.
fn init_timeout(spec: &Place<'_>, problems: &mut Vec<Problem>) -> Duration {
    let Some(given) = spec.filled("initTimeout", problems) else { return DEFAULT_INIT_TIMEOUT };
    match duration(given.trim()) {
        Some(timeout) if !timeout.is_zero() => timeout,
        _ => {
            let what = format!("{} is no duration above zero; the default of 5s is used", quoted(given));
            problems.push(spec.get("initTimeout").unwrap_or(spec.clone()).warning(what, "write it as 20s or 1m30s"));
            DEFAULT_INIT_TIMEOUT
        }
    }
}

/// `metadata.annotations`, one of them.
fn annotation<'a>(root: &Place<'a>, name: &str, problems: &mut Vec<Problem>) -> Option<(&'a str, Place<'a>)> {
    let annotations = root.get("metadata")?.section("annotations", problems)?;
    Some((annotations.filled(name, problems)?.trim(), annotations.get(name)?))
}

fn network(root: &Place<'_>, problems: &mut Vec<Problem>) -> Vec<String> {
    let Some((text, place)) = annotation(root, NETWORK_ANNOTATION, problems) else { return Vec::new() };
    let patterns = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|pattern| !pattern.is_empty());
    let mut granted = Vec::new();
    for pattern in patterns {
        let port = pattern.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        if port.is_some_and(|port| port != "*" && port.parse::<u16>().is_err()) {
            problems
                .push(place.error(format!("{} ends in no port", quoted(pattern)), "for example *.kafka.local:9092"));
        }
        granted.push(pattern.to_owned());
    }
    granted
}

fn plugin(root: &Place<'_>, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    let (text, _) = annotation(root, PLUGIN_ANNOTATION, problems)?;
    Some(super::beside(root.file, text))
}

/// What `spec.metadata` comes to.
#[derive(Default)]
struct Settings {
    properties: Vec<Property>,
    topic_scopes: TopicScopes,
    /// The last `consumerID`, trimmed, unless it is blank.
    consumer: Option<(String, Position)>,
    /// The last `consumerGroup`, likewise.
    group: Option<(String, Position)>,
}

impl Settings {
    fn read(spec: &Place<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut settings = Self::default();
        let mut seen = HashSet::new();
        for item in spec.items("metadata", problems) {
            if !item.is_map(problems) {
                continue;
            }
            let Some(name) = item.required("name", "each item is a name and a value", problems) else { continue };
            item.warn_unknown(&ITEM_KEYS, problems);
            let item = Place { key: format!("{}.{name}", spec_metadata(spec)), ..item };
            if !seen.insert(name.to_ascii_lowercase()) {
                problems.push(item.warning("given twice; the last one counts".to_owned(), ""));
            }
            if let Some(value) = value(&item, problems) {
                if let Some(template) = TEMPLATES.into_iter().find(|template| value.contains(template)) {
                    let what = format!("the template {template} comes with a later version");
                    problems.push(item.error(what, "write out what it stands for"));
                }
                settings.take(name, value, item.at());
            }
        }
        settings
    }

    fn take(&mut self, name: &str, value: String, at: Position) {
        if self.topic_scopes.take(name, &value) {
            return;
        }
        let named = |value: &str| Some((value.trim().to_owned(), at.clone())).filter(|(id, _)| !id.is_empty());
        if name.eq_ignore_ascii_case(CONSUMER_ID) {
            self.consumer = named(&value);
        } else {
            if name.eq_ignore_ascii_case(CONSUMER_GROUP) {
                self.group = named(&value);
            }
            self.properties.push(Property { name: name.to_owned(), value: Text::new(value), at });
        }
    }

    /// The properties for the adapter, which knows the consumer id by exactly one name.
    fn finish(mut self) -> (Vec<Property>, Option<String>, TopicScopes) {
        let id = self.group.or(self.consumer).map(|(id, at)| {
            self.properties.push(Property { name: CONSUMER_ID.to_owned(), value: Text::new(id.clone()), at });
            id
        });
        (self.properties, id, self.topic_scopes)
    }
}

fn spec_metadata(spec: &Place<'_>) -> String {
    format!("{}.metadata", spec.key)
}

/// The value of an item. One that stands elsewhere is a problem: to leave it empty would open a broker without its
/// password.
fn value(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let text = item.get("value").map(|place| property_text(place.node)).unwrap_or_default();
    let secret = item.get("secretKeyRef").is_some();
    if secret || (text.is_empty() && item.get("envRef").is_some()) {
        let reference = if secret { "secretKeyRef" } else { "envRef" };
        let what = format!("{reference} comes with a later version");
        problems.push(item.error(what, "give the value itself in `value`"));
        return None;
    }
    Some(text)
}

/// Strings and numbers as they are spelled, a boolean in lower case, anything else as JSON text.
fn property_text(node: &Node) -> String {
    match &node.value {
        Value::Null => String::new(),
        Value::Text { text, plain: true } if boolean(text).is_some() => text.to_ascii_lowercase(),
        Value::Text { text, .. } => text.clone(),
        Value::List(_) | Value::Map(_) => node.json(),
    }
}
