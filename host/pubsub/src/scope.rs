//! Which app may publish and subscribe where (pubsub-behaviour, section 8.2). Called by the spines, on every way in and
//! out. Absent on purpose: component scopes, which decide whether an app sees a broker at all (`Topology::broker`).

use std::collections::HashMap;

use whimbrel_resources::TopicScopes;

/// What marks a subscribed name as a pattern, over all brokers that have patterns.
const PATTERN: [char; 4] = ['*', '#', '+', '>'];

/// Whether an app may publish to a topic.
pub(crate) fn allow_publish(scopes: &TopicScopes, app_id: &str, topic: &str) -> bool {
    allow(scopes, &scopes.publishing, app_id, topic)
}

/// Whether an app may subscribe to a topic, as it named it.
pub(crate) fn allow_subscribe(scopes: &TopicScopes, app_id: &str, topic: &str) -> bool {
    allow(scopes, &scopes.subscription, app_id, topic)
}

/// Whether an app may have a message of this actual topic, on a subscription to that name. A pattern that was itself
/// granted grants what it matches, but never a protected topic: that needs a grant of its own.
pub(crate) fn allow_delivery(
    scopes: &TopicScopes,
    app_id: &str,
    subscribed: &str,
    actual: &str,
    wildcards: bool,
) -> bool {
    if allow_subscribe(scopes, app_id, actual) {
        return true;
    }
    let pattern = wildcards && subscribed != actual && subscribed.contains(PATTERN);
    pattern && allow_subscribe(scopes, app_id, subscribed) && !contains(&scopes.protected, actual)
}

fn allow(scopes: &TopicScopes, granted: &HashMap<String, Vec<String>>, app_id: &str, topic: &str) -> bool {
    if !scopes.allowed.is_empty() && !contains(&scopes.allowed, topic) {
        return false;
    }
    match granted.get(app_id).filter(|topics| !topics.is_empty()) {
        None => !contains(&scopes.protected, topic),
        Some(topics) => contains(topics, topic),
    }
}

fn contains(topics: &[String], topic: &str) -> bool {
    topics.iter().any(|known| known == topic)
}

#[cfg(test)]
mod tests;
