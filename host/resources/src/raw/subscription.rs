//! Dapr's `Subscription`, v1alpha1 and v2alpha1 (pubsub-behaviour, section 5.4).

use crate::place::Place;
use crate::problem::{Problem, Severity};
use crate::snapshot::{Origin, Subscription};

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
    warn_of_bulk(&spec, problems);
    let default_route = match version {
        Version::V1Alpha1 => spec.text("route", problems).filter(|path| !path.is_empty()).map(str::to_owned),
        Version::V2Alpha1 => default_route(&spec, problems),
    };
    let name = root.section("metadata", problems).and_then(|metadata| metadata.text("name", problems));
    let subscription = Subscription {
        name: name.unwrap_or_default().to_owned(),
        pubsub: spec.text("pubsubname", problems).unwrap_or_default().to_owned(),
        topic: spec.text("topic", problems).unwrap_or_default().to_owned(),
        default_route,
        dead_letter_topic: spec.filled("deadLetterTopic", problems).map(str::to_owned),
        metadata: spec.pairs("metadata", problems),
        scopes,
        origin: Origin::Declarative,
    };
    if problems[before..].iter().all(|problem| problem.severity == Severity::Warning) {
        warn_of_gaps(&spec, &subscription, problems);
    }
    Some(subscription)
}

/// The one route there is in this version. A content rule is refused: to ignore it would send events where they must
/// not go.
fn default_route(spec: &Place<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let routes = spec.section("routes", problems)?;
    routes.warn_unknown(&["rules", "default"], problems);
    for rule in routes.items("rules", problems) {
        if rule.filled("match", problems).is_none() {
            // Without a match a rule is always true where it stands, and nothing after it is ever reached.
            return Some(rule.text("path", problems).unwrap_or_default().to_owned());
        }
        problems.push(rule.error(
            "content rules come with a later version".to_owned(),
            "use routes.default alone, or a rule without match",
        ));
    }
    routes.text("default", problems).filter(|path| !path.is_empty()).map(str::to_owned)
}

fn warn_of_bulk(spec: &Place<'_>, problems: &mut Vec<Problem>) {
    let Some(bulk) = spec.section("bulkSubscribe", problems) else { return };
    if bulk.flag("enabled", problems) {
        problems.push(bulk.warning("not applied by this version".to_owned(), "events are delivered one by one"));
    }
}

/// Dapr starts with such subscriptions, and so do we; but nobody wants them.
fn warn_of_gaps(spec: &Place<'_>, subscription: &Subscription, problems: &mut Vec<Problem>) {
    if subscription.pubsub.is_empty() || subscription.topic.is_empty() {
        problems.push(spec.warning("without pubsubname and topic it receives nothing".to_owned(), ""));
    } else if subscription.default_route.is_none() {
        let what = "without a route every event is dropped, or dead-lettered if there is a topic for that";
        problems.push(spec.warning(what.to_owned(), "give it a route"));
    }
}
