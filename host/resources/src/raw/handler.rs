//! Our own kind `Handler` (apiVersion `whimbrel.dev/v1alpha1`): a component that receives events, as an app of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::duration::duration;
use crate::place::Place;
use crate::problem::Problem;
use crate::snapshot::{
    HANDLER_INSTANCES_MAX, HANDLER_MEMORY_BYTES_MAX, HandlerApp, HandlerLimits, Origin, Subscription,
};

const SPEC_KEYS: [&str; 4] = ["file", "appID", "subscriptions", "limits"];
const LIMIT_KEYS: [&str; 4] = ["memory", "deadline", "instances", "eventsPerInstance"];
const SUBSCRIPTION_KEYS: [&str; 4] = ["pubsubname", "topic", "deadLetterTopic", "metadata"];

/// The app id, as far as it can be told before the document is read properly: components are scoped by it.
pub(crate) fn app_id(root: &Place<'_>) -> Option<String> {
    let mut later = Vec::new();
    let given = root.get("spec").and_then(|spec| spec.filled("appID", &mut later));
    let name = || root.get("metadata").and_then(|metadata| metadata.filled("name", &mut Vec::new()));
    given.map(str::trim).or_else(name).map(str::to_owned)
}

/// Reads a handler.
pub(crate) fn read(root: &Place<'_>, problems: &mut Vec<Problem>) -> Option<HandlerApp> {
    let name = super::name(root, problems);
    let spec = super::spec(root, problems)?;
    root.warn_unknown(&super::ROOT_KEYS, problems);
    spec.warn_unknown(&SPEC_KEYS, problems);
    let file = spec.required("file", "the .wasm file, relative to this one", problems);
    // `app_id` passes over what is no text; here it is told.
    spec.text("appID", problems);
    let limits = limits(&spec, problems);
    let subscriptions = subscriptions(&spec, name.as_deref().unwrap_or_default(), problems);
    if subscriptions.is_empty() {
        problems.push(spec.warning("without subscriptions it receives nothing".to_owned(), ""));
    }
    let (name, file) = (name?, file?);
    Some(HandlerApp {
        app_id: app_id(root).unwrap_or_else(|| name.clone()),
        name,
        file: super::beside(root.file, file.trim()),
        subscriptions,
        limits,
        at: root.at(),
    })
}

fn subscriptions(spec: &Place<'_>, name: &str, problems: &mut Vec<Problem>) -> Vec<Arc<Subscription>> {
    let mut seen = HashSet::new();
    let mut read = Vec::new();
    for item in spec.items("subscriptions", problems) {
        let Some(subscription) = subscription(&item, name, problems) else { continue };
        if seen.insert((subscription.pubsub.clone(), subscription.topic.clone())) {
            read.push(Arc::new(subscription));
        } else {
            problems.push(item.warning("the same topic twice; the first one counts".to_owned(), ""));
        }
    }
    read
}

fn subscription(item: &Place<'_>, name: &str, problems: &mut Vec<Problem>) -> Option<Subscription> {
    if !item.is_map(problems) {
        return None;
    }
    item.warn_unknown(&SUBSCRIPTION_KEYS, problems);
    let pubsub = item.required("pubsubname", "the component it subscribes to", problems);
    let topic = item.required("topic", "", problems);
    Some(Subscription {
        name: name.to_owned(),
        pubsub: pubsub?.to_owned(),
        topic: topic?.to_owned(),
        rules: Vec::new(),
        // A handler has one way in, and no path tells it apart from another.
        default_route: Some(String::new()),
        dead_letter_topic: item.filled("deadLetterTopic", problems).map(str::to_owned),
        metadata: item.pairs("metadata", problems),
        // A component takes one event at a time.
        bulk: None,
        scopes: Vec::new(),
        origin: Origin::Handler,
    })
}

fn limits(spec: &Place<'_>, problems: &mut Vec<Problem>) -> HandlerLimits {
    let default = HandlerLimits::default();
    let Some(limits) = spec.section("limits", problems) else { return default };
    limits.warn_unknown(&LIMIT_KEYS, problems);
    let memory = |text: &str| bytes(text).filter(|bytes| (1..=HANDLER_MEMORY_BYTES_MAX).contains(bytes));
    let deadline = |text: &str| duration(text).filter(|deadline| *deadline > Duration::ZERO);
    let instances = |text: &str| text.parse().ok().filter(|count| (1..=HANDLER_INSTANCES_MAX).contains(count));
    let events = |text: &str| text.parse().ok().filter(|count| *count > 0);
    HandlerLimits {
        memory_bytes: limits
            .parsed("memory", "a size such as 64Mi, up to 512Mi", memory, problems)
            .unwrap_or(default.memory_bytes),
        deadline: limits
            .parsed("deadline", "a duration above zero such as 30s", deadline, problems)
            .unwrap_or(default.deadline),
        instances: limits
            .parsed("instances", "a number from 1 to 1000", instances, problems)
            .unwrap_or(default.instances),
        events_per_instance: limits
            .parsed("eventsPerInstance", "a number above zero", events, problems)
            .unwrap_or(default.events_per_instance),
    }
}

/// A number of bytes, with Kubernetes' suffixes.
fn bytes(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 7] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("k", 1_000),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let stripped = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = stripped.unwrap_or((text, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}
