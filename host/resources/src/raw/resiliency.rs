//! Dapr's `Resiliency`: named timeouts and retries, and which component uses which (pubsub-behaviour, section 10).
//!
//! Several resources add up, and one may name a policy of another; so they are collected here and resolved at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::duration::duration_or_millis;
use crate::place::{Place, did_you_mean};
use crate::problem::Problem;
use crate::snapshot::{Backoff, Policies, Policy, Retry};

/// Wait between attempts where a constant policy does not say.
const DEFAULT_CONSTANT_WAIT: Duration = Duration::from_secs(5);
/// Longest wait where an exponential policy does not say.
const DEFAULT_MAX_INTERVAL: Duration = Duration::from_secs(60);

const RETRY_KEYS: [&str; 5] = ["policy", "duration", "maxInterval", "maxRetries", "matching"];
const USE_KEYS: [&str; 3] = ["timeout", "retry", "circuitBreaker"];

/// Everything that the resources read so far declare. Later names replace earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Resiliencies {
    /// `None`: a timeout of zero, which is none.
    timeouts: BTreeMap<String, Option<Duration>>,
    retries: BTreeMap<String, Retry>,
    /// In order, so that problems come in order; resolved into maps.
    targets: Vec<Target>,
}

/// What one component uses. A direction that is not given has no policy, not the default one.
#[derive(Debug)]
struct Target {
    component: String,
    inbound: Use,
    outbound: Use,
}

/// The names of policies, each with the problem to report if there is none of that name.
#[derive(Debug, Default)]
struct Use {
    timeout: Option<(String, Problem)>,
    retry: Option<(String, Problem)>,
}

impl Resiliencies {
    /// Takes in one resource.
    pub(crate) fn read(&mut self, root: &Place<'_>, problems: &mut Vec<Problem>) {
        root.warn_unknown(&super::ROOT_KEYS, problems);
        let Some(spec) = super::spec(root, problems) else { return };
        spec.warn_unknown(&["policies", "targets"], problems);
        if let Some(policies) = spec.section("policies", problems) {
            policies.warn_unknown(&["timeouts", "retries", "circuitBreakers"], problems);
            self.read_policies(&policies, problems);
        }
        if let Some(targets) = spec.section("targets", problems) {
            targets.warn_unknown(&["components", "apps", "actors"], problems);
            for (name, place) in targets.entries("components", problems) {
                self.targets.extend(target(name, &place, problems));
            }
        }
    }

    fn read_policies(&mut self, policies: &Place<'_>, problems: &mut Vec<Problem>) {
        for (name, place) in policies.entries("timeouts", problems) {
            let Some(text) = place.as_text(problems) else { continue };
            match duration_or_millis(text.trim()) {
                Some(timeout) => {
                    self.timeouts.insert(name.to_owned(), Some(timeout).filter(|timeout| !timeout.is_zero()));
                }
                None => problems.push(place.error(format!("{text:?} is no duration"), "write it as 5s or 1m30s")),
            }
        }
        for (name, place) in policies.entries("retries", problems) {
            if let Some(retry) = retry(&place, problems) {
                self.retries.insert(name.to_owned(), retry);
            }
        }
        if let Some(breakers) = policies.get("circuitBreakers") {
            problems.push(breakers.warning("not applied by this version".to_owned(), ""));
        }
    }

    /// Names replaced by what they stand for.
    pub(crate) fn resolve(mut self, problems: &mut Vec<Problem>) -> Policies {
        let mut policies = Policies {
            inbound_default: self.default_policy("Inbound"),
            outbound_default: self.default_policy("Outbound"),
            ..Policies::default()
        };
        for target in std::mem::take(&mut self.targets) {
            let inbound = self.policy(target.inbound, problems);
            let outbound = self.policy(target.outbound, problems);
            policies.inbound.insert(target.component.clone(), inbound);
            policies.outbound.insert(target.component, outbound);
        }
        policies
    }

    fn policy(&self, used: Use, problems: &mut Vec<Problem>) -> Policy {
        Policy {
            timeout: named(&self.timeouts, used.timeout, problems).flatten(),
            retry: named(&self.retries, used.retry, problems),
        }
    }

    /// The policies with reserved names, the most specific that there is.
    fn default_policy(&self, direction: &str) -> Policy {
        let levels =
            [format!("PubsubComponent{direction}"), format!("Component{direction}"), "Component".into(), String::new()];
        Policy {
            timeout: levels
                .iter()
                .find_map(|level| self.timeouts.get(&format!("Default{level}TimeoutPolicy")))
                .copied()
                .flatten(),
            retry: levels.iter().find_map(|level| self.retries.get(&format!("Default{level}RetryPolicy"))).cloned(),
        }
    }
}

/// The policy of that name. Dapr silently goes on without one that does not exist; we say so.
fn named<T: Clone>(
    policies: &BTreeMap<String, T>,
    used: Option<(String, Problem)>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let (name, missing) = used?;
    let found = policies.get(&name).cloned();
    if found.is_none() {
        let known: Vec<&str> = policies.keys().map(String::as_str).collect();
        problems.push(Problem { hint: did_you_mean(&name, &known), ..missing });
    }
    found
}

fn target(name: &str, place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Target> {
    if !place.is_map(problems) {
        return None;
    }
    place.warn_unknown(&["inbound", "outbound"], problems);
    Some(Target {
        component: name.to_owned(),
        inbound: direction(place, "inbound", problems),
        outbound: direction(place, "outbound", problems),
    })
}

fn direction(place: &Place<'_>, name: &str, problems: &mut Vec<Problem>) -> Use {
    let Some(used) = place.section(name, problems) else { return Use::default() };
    used.warn_unknown(&USE_KEYS, problems);
    let mut reference = |key: &str| {
        let name = used.filled(key, problems)?;
        let missing = used.get(key)?.warning(format!("there is no {key} policy {name:?}; none is applied"), "");
        Some((name.to_owned(), missing))
    };
    Use { timeout: reference("timeout"), retry: reference("retry") }
}

fn retry(place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Retry> {
    if !place.is_map(problems) {
        return None;
    }
    place.warn_unknown(&RETRY_KEYS, problems);
    if let Some(matching) = place.get("matching") {
        problems.push(matching.warning("not applied by this version".to_owned(), "every failure is retried"));
    }
    let exponential = |text: &str| match text.to_ascii_lowercase().as_str() {
        "constant" => Some(false),
        "exponential" => Some(true),
        _ => None,
    };
    let expected = "a duration such as 5s or 500ms";
    let exponential = place.parsed("policy", "constant or exponential", exponential, problems).unwrap_or_default();
    let wait = place.parsed("duration", expected, duration_or_millis, problems);
    let most = place.parsed("maxInterval", expected, duration_or_millis, problems);
    let max_retries = place.parsed("maxRetries", "a number; -1 is no limit", max_retries, problems).flatten();
    let backoff = if exponential {
        Backoff::Exponential(most.unwrap_or(DEFAULT_MAX_INTERVAL))
    } else {
        Backoff::Constant(wait.unwrap_or(DEFAULT_CONSTANT_WAIT))
    };
    Some(Retry { backoff, max_retries })
}

/// Any negative number is no limit.
fn max_retries(text: &str) -> Option<Option<u32>> {
    let number: i64 = text.parse().ok()?;
    if number < 0 { Some(None) } else { Some(Some(u32::try_from(number).ok()?)) }
}
