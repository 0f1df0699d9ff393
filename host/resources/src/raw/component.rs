//! Dapr's `Component`, as far as it is a pub/sub one (pubsub-behaviour, sections 8 and 9).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::duration::duration;
use crate::place::{Place, did_you_mean, quoted};
use crate::problem::{Position, Problem};
use crate::scopes::TopicScopes;
use crate::secrets::Store;
use crate::snapshot::{Component, Property, Text};
use crate::surroundings::Surroundings;
use crate::template::{self, Template};
use crate::yaml::{Node, Value, boolean};

/// How long opening may take where the resource does not say.
const DEFAULT_INIT_TIMEOUT: Duration = Duration::from_secs(5);

const SPEC_KEYS: [&str; 5] = ["type", "version", "metadata", "initTimeout", "ignoreErrors"];
const ITEM_KEYS: [&str; 4] = ["name", "value", "secretKeyRef", "envRef"];
const REFERENCE_KEYS: [&str; 2] = ["name", "key"];

/// The consumer group, as adapters know it.
const CONSUMER_ID: &str = "consumerID";
/// What Dapr's Kafka component calls it, besides; it goes before the other.
const CONSUMER_GROUP: &str = "consumerGroup";

/// Host patterns that the resource grants besides its addresses.
const NETWORK_ANNOTATION: &str = "whimbrel.dev/network";
/// The component's file, in place of the search by type.
const PLUGIN_ANNOTATION: &str = "whimbrel.dev/plugin";

/// Where values come from that stand elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// Whose `{appID}` it is.
    pub(crate) app_id: &'a str,
    pub(crate) surroundings: &'a Surroundings,
    /// By their names.
    pub(crate) stores: &'a HashMap<String, Store>,
    /// The files that secrets are looked for in.
    pub(crate) files: &'a RefCell<BTreeSet<PathBuf>>,
}

/// Reads a component that is in scope. `None` for one that is no pub/sub component or has secrets in a store that is
/// not there, with a warning, or that lacks what makes a component.
pub(crate) fn read(
    root: &Place<'_>,
    scopes: Vec<String>,
    sources: &Sources<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Component> {
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
    let store = secret_store(root, problems);
    let ignore_errors = spec.flag("ignoreErrors", problems);
    let reading = Reading { component: &name, store, ignores_errors: ignore_errors, sources };
    let settings = Settings::read(&spec, &reading, problems);
    let topic_prefix = settings.names_namespace.then(|| sources.surroundings.namespace().to_owned());
    let incomplete = settings.incomplete;
    let (properties, consumer_id, topic_scopes) = settings.finish(sources.app_id);
    let component = Component {
        name,
        kind,
        version: spec.filled("version", problems).unwrap_or("v1").trim().to_owned(),
        properties,
        scopes,
        topic_scopes,
        init_timeout: init_timeout(&spec, problems),
        ignore_errors,
        consumer_id,
        topic_prefix,
        network: network(root, problems),
        plugin: plugin(root, problems),
        at: root.at(),
    };
    (!incomplete).then_some(component)
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
    /// A value has `{namespace}` in it.
    names_namespace: bool,
    /// A value is in a secret store that is not there, or names a pod that nobody knows and `ignoreErrors` says so.
    incomplete: bool,
}

/// What a component's values are read with.
struct Reading<'a> {
    component: &'a str,
    /// `auth.secretStore`.
    store: Option<&'a str>,
    /// `spec.ignoreErrors`.
    ignores_errors: bool,
    sources: &'a Sources<'a>,
}

impl Settings {
    fn read(spec: &Place<'_>, reading: &Reading<'_>, problems: &mut Vec<Problem>) -> Self {
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
            let Some(value) = reading.value(&item, problems) else {
                settings.incomplete = true;
                continue;
            };
            settings.names_namespace |= value.contains(template::NAMESPACE);
            let template = Template { surroundings: reading.sources.surroundings, place: (reading.component, name) };
            match template.fill(&value) {
                Ok(filled) => settings.take(name, &filled, reading.sources.app_id, item.at()),
                Err(what) => {
                    let what = format!("failed to parse metadata: property {name} {what}");
                    let hint = "set POD_NAME in the environment of the host";
                    settings.incomplete |= reading.ignores_errors;
                    let problem =
                        if reading.ignores_errors { item.warning(what, hint) } else { item.error(what, hint) };
                    problems.push(problem);
                }
            }
        }
        settings
    }

    /// Takes a value in which `{appID}` is still to be filled in: the consumer group is each app's own.
    fn take(&mut self, name: &str, value: &str, app_id: &str, at: Position) {
        let own = template::of_app(value, app_id);
        if self.topic_scopes.take(name, &own) {
            return;
        }
        let named = |value: &str| Some((value.trim().to_owned(), at.clone())).filter(|(id, _)| !id.is_empty());
        if name.eq_ignore_ascii_case(CONSUMER_ID) {
            self.consumer = named(value);
        } else {
            if name.eq_ignore_ascii_case(CONSUMER_GROUP) {
                self.group = named(value);
            }
            self.properties.push(Property { name: name.to_owned(), value: Text::new(own), at });
        }
    }

    /// The properties for the adapter, which knows the consumer id by exactly one name.
    fn finish(mut self, app_id: &str) -> (Vec<Property>, Option<String>, TopicScopes) {
        let id = self.group.or(self.consumer).map(|(id, at)| {
            let own = Text::new(template::of_app(&id, app_id));
            self.properties.push(Property { name: CONSUMER_ID.to_owned(), value: own, at });
            id
        });
        (self.properties, id, self.topic_scopes)
    }
}

fn spec_metadata(spec: &Place<'_>) -> String {
    format!("{}.metadata", spec.key)
}

/// `auth.secretStore`.
fn secret_store<'a>(root: &Place<'a>, problems: &mut Vec<Problem>) -> Option<&'a str> {
    root.section("auth", problems)?.filled("secretStore", problems)
}

impl Reading<'_> {
    /// The value of an item: of a secret, its own, or of a variable, in this order. `None`: its secret store is not
    /// there.
    fn value(&self, item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<String> {
        let variable = item.filled("envRef", problems);
        if let Some(reference) = item.section("secretKeyRef", problems) {
            reference.warn_unknown(&REFERENCE_KEYS, problems);
            if let Some(name) = reference.filled("name", problems) {
                return self.secret(item, name, reference.filled("key", problems).unwrap_or(name), problems);
            }
        }
        let text = item.get("value").map(|place| property_text(place.node)).unwrap_or_default();
        match variable {
            Some(name) if text.is_empty() => Some(self.variable(item, name, problems)),
            _ => Some(text),
        }
    }

    fn secret(&self, item: &Place<'_>, name: &str, key: &str, problems: &mut Vec<Problem>) -> Option<String> {
        let Sources { stores, surroundings, files, .. } = self.sources;
        let Some(given) = self.store else {
            let what = "has a secretKeyRef, but there is no auth.secretStore: the component is not used";
            problems.push(item.warning(what.to_owned(), "name the component that has the secret"));
            return None;
        };
        let Some(store) = stores.get(given) else {
            let what = format!("the secret store {} is not declared here: the component is not used", quoted(given));
            let known: Vec<&str> = stores.keys().map(String::as_str).collect();
            problems.push(item.warning(what, did_you_mean(given, &known)));
            return None;
        };
        files.borrow_mut().extend(store.source(name, key));
        let value = store.get(name, key, surroundings);
        if value.is_none() {
            let what =
                format!("{} has no secret {} with a key {}; the value stays empty", given, quoted(name), quoted(key));
            problems.push(item.warning(what, ""));
        }
        Some(value.unwrap_or_default())
    }

    fn variable(&self, item: &Place<'_>, name: &str, problems: &mut Vec<Problem>) -> String {
        let surroundings = self.sources.surroundings;
        let mut empty = |why: &str, hint: &str| {
            problems.push(item.warning(format!("envRef {} {why}; the value stays empty", quoted(name)), hint));
            String::new()
        };
        if !surroundings.may_refer_to(name) {
            return empty("is not for resources", "see DAPR_ENV_KEYS; names of the host's own are never given");
        }
        surroundings.variable(name).map_or_else(|| empty("is not set", ""), str::to_owned)
    }
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
