//! Dapr's `Subscription`, v1alpha1 and v2alpha1 (pubsub-behaviour, section 5.4).

use crate::place::Place;
use crate::problem::{Problem, Severity};
use crate::rule::{RULES_MAX, Rule};
use crate::snapshot::{Bulk, Origin, Subscription};

/// v2alpha1 has `routes`, v1alpha1 has `route`; each reader takes only its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1Alpha1,
    V2Alpha1,
}

const SPEC_KEYS: [&str; 5] = ["pubsubname", "topic", "metadata", "deadLetterTopic", "bulkSubscribe"];

/// Reads a subscription that is in scope.
pub(crate) fn read(
    root: &Place<'_>,
    version: Version,
    scopes: Vec<String>,
    problems: &mut Vec<Problem>,
) -> Option<Subscription> {
    let before = problems.len();
    let spec = super::spec(root, problems)?;
    let own_key = if version == Version::V1Alpha1 { "route" } else { "routes" };
    root.warn_unknown(&super::ROOT_KEYS, problems);
    spec.warn_unknown(&[&SPEC_KEYS[..], &[own_key]].concat(), problems);
    let (rules, default_route) = match version {
        Version::V1Alpha1 => (Vec::new(), path(&spec, "route", problems)),
        Version::V2Alpha1 => routes(&spec, problems),
    };
    let name = root.section("metadata", problems).and_then(|metadata| metadata.text("name", problems));
    let subscription = Subscription {
        name: name.unwrap_or_default().to_owned(),
        pubsub: spec.text("pubsubname", problems).unwrap_or_default().to_owned(),
        topic: spec.text("topic", problems).unwrap_or_default().to_owned(),
        rules,
        default_route,
        dead_letter_topic: spec.filled("deadLetterTopic", problems).map(str::to_owned),
        metadata: spec.pairs("metadata", problems),
        bulk: bulk(&spec, problems),
        scopes,
        origin: Origin::Declarative,
    };
    if problems[before..].iter().all(|problem| problem.severity == Severity::Warning) {
        warn_of_gaps(&spec, &subscription, problems);
    }
    Some(subscription)
}

/// The rules in order, and the default. A rule that does not compile is an error, as in Dapr: to pass over it would send
/// events where they must not go.
fn routes(spec: &Place<'_>, problems: &mut Vec<Problem>) -> (Vec<Rule>, Option<String>) {
    let Some(routes) = spec.section("routes", problems) else { return (Vec::new(), None) };
    routes.warn_unknown(&["rules", "default"], problems);
    let items = routes.items("rules", problems);
    if items.len() > RULES_MAX {
        problems.push(routes.error(format!("more than {RULES_MAX} rules"), "join those that lead to one path by ||"));
    }
    let rules = items.iter().take(RULES_MAX).filter_map(|item| rule(item, problems)).collect();
    (rules, path(&routes, "default", problems))
}

fn rule(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Rule> {
    if !item.is_map(problems) {
        return None;
    }
    item.warn_unknown(&["match", "path"], problems);
    let expression = item.text("match", problems).unwrap_or_default();
    match Rule::new(expression, item.text("path", problems).unwrap_or_default()) {
        Ok(rule) => Some(rule),
        Err(what) => {
            let place = item.get("match").unwrap_or_else(|| item.clone());
            problems.push(place.error(what, "for example event.type == \"order.placed\""));
            None
        }
    }
}

fn path(place: &Place<'_>, name: &str, problems: &mut Vec<Problem>) -> Option<String> {
    place.text(name, problems).filter(|path| !path.is_empty()).map(str::to_owned)
}

/// Its values are looked at also where it is not enabled: whoever enables it later finds them sound.
fn bulk(spec: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Bulk> {
    let place = spec.section("bulkSubscribe", problems)?;
    place.warn_unknown(&["enabled", "maxMessagesCount", "maxAwaitDurationMs"], problems);
    let enabled = place.flag("enabled", problems);
    let number = |text: &str| text.parse().ok();
    let messages = place.parsed("maxMessagesCount", "a whole number of messages", number, problems);
    let wait = place.parsed("maxAwaitDurationMs", "a whole number of milliseconds", number, problems);
    let (bulk, odd) = Bulk::of(messages, wait);
    problems.extend(odd.into_iter().map(|what| place.warning(what, "")));
    enabled.then_some(bulk)
}

/// Dapr starts with such subscriptions, and so do we; but nobody wants them.
fn warn_of_gaps(spec: &Place<'_>, subscription: &Subscription, problems: &mut Vec<Problem>) {
    if subscription.pubsub.is_empty() || subscription.topic.is_empty() {
        problems.push(spec.warning("without pubsubname and topic it receives nothing".to_owned(), ""));
    } else if subscription.rules.is_empty() && subscription.default_route.is_none() {
        let what = "without a route every event is dropped, or dead-lettered if there is a topic for that";
        problems.push(spec.warning(what.to_owned(), "give it a route"));
    }
}
