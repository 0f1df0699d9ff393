//! Dapr's `Resiliency`: named timeouts, retries and circuit breakers, and which component uses which (pubsub-behaviour, section 10).
//!
//! Several resources add up, and one may name a policy of another; so they are collected here and resolved at the end.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::duration::duration_or_millis;
use crate::place::{Place, did_you_mean, quoted};
use crate::problem::Problem;
use crate::snapshot::{Backoff, CircuitBreaker, Codes, DISCOVERY_RETRIES_MIN, Matching, Policies, Policy, Retry};
use crate::trip::Trip;

/// Wait between attempts where a constant policy does not say.
const DEFAULT_CONSTANT_WAIT: Duration = Duration::from_secs(5);
/// Longest wait where an exponential policy does not say.
const DEFAULT_MAX_INTERVAL: Duration = Duration::from_secs(60);

/// How long a breaker stays open where it does not say.
const DEFAULT_BREAKER_TIMEOUT: Duration = Duration::from_secs(60);
/// When a breaker opens where it does not say.
const DEFAULT_TRIP: &str = "consecutiveFailures > 5";

/// The retry policy of this name is that of asking the app for its subscriptions.
const DISCOVERY_RETRIES: &str = "DaprBuiltInInitializationRetries";

/// The HTTP status codes that can be matched.
const HTTP_CODES: RangeInclusive<u16> = 100..=599;
/// The gRPC status codes that can be matched.
const GRPC_CODES: RangeInclusive<u16> = 0..=16;

/// What a duration looks like, for problems.
const DURATION: &str = "a duration such as 5s or 500ms";

const BREAKER_KEYS: [&str; 4] = ["maxRequests", "interval", "timeout", "trip"];
const RETRY_KEYS: [&str; 5] = ["policy", "duration", "maxInterval", "maxRetries", "matching"];
const USE_KEYS: [&str; 3] = ["timeout", "retry", "circuitBreaker"];

/// Everything that the resources read so far declare. Later names replace earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Resiliencies {
    /// The name of the last one.
    name: String,
    /// `None`: a timeout of zero, which is none.
    timeouts: BTreeMap<String, Option<Duration>>,
    retries: BTreeMap<String, Retry>,
    breakers: BTreeMap<String, Arc<CircuitBreaker>>,
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
    breaker: Option<(String, Problem)>,
}

impl Resiliencies {
    /// Takes in one resource of this name.
    pub(crate) fn read(&mut self, name: &str, root: &Place<'_>, problems: &mut Vec<Problem>) {
        name.clone_into(&mut self.name);
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
            if let Some(mut retry) = retry(&place, problems) {
                if name == DISCOVERY_RETRIES {
                    enough(&mut retry, &place, problems);
                }
                self.retries.insert(name.to_owned(), retry);
            }
        }
        for (name, place) in policies.entries("circuitBreakers", problems) {
            if let Some(breaker) = breaker(&place, problems) {
                self.breakers.insert(name.to_owned(), Arc::new(breaker));
            }
        }
    }

    /// Names replaced by what they stand for.
    pub(crate) fn resolve(mut self, problems: &mut Vec<Problem>) -> Policies {
        let mut policies = Policies {
            resource: std::mem::take(&mut self.name),
            inbound_default: self.default_policy("Inbound"),
            outbound_default: self.default_policy("Outbound"),
            ..Policies::default()
        };
        if let Some(retry) = self.retries.get(DISCOVERY_RETRIES) {
            policies.discovery.retry = Some(retry.clone());
        }
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
            breaker: named(&self.breakers, used.breaker, problems),
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
            breaker: levels
                .iter()
                .find_map(|level| self.breakers.get(&format!("Default{level}CircuitBreakerPolicy")))
                .cloned(),
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
    Use { timeout: reference("timeout"), retry: reference("retry"), breaker: reference("circuitBreaker") }
}

fn retry(place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Retry> {
    if !place.is_map(problems) {
        return None;
    }
    place.warn_unknown(&RETRY_KEYS, problems);
    let exponential = |text: &str| match text.to_ascii_lowercase().as_str() {
        "constant" => Some(false),
        "exponential" => Some(true),
        _ => None,
    };
    let exponential = place.parsed("policy", "constant or exponential", exponential, problems).unwrap_or_default();
    let wait = place.parsed("duration", DURATION, duration_or_millis, problems);
    let most = place.parsed("maxInterval", DURATION, duration_or_millis, problems);
    let max_retries = place.parsed("maxRetries", "a number; -1 is no limit", max_retries, problems).flatten();
    let backoff = if exponential {
        Backoff::Exponential(most.unwrap_or(DEFAULT_MAX_INTERVAL))
    } else {
        Backoff::Constant(wait.unwrap_or(DEFAULT_CONSTANT_WAIT))
    };
    Some(Retry { backoff, max_retries, matching: matching(place, problems) })
}

/// As Dapr has it: what starts the app's subscriptions is not given up at the first failure.
fn enough(retry: &mut Retry, place: &Place<'_>, problems: &mut Vec<Problem>) {
    let Some(few) = retry.max_retries.filter(|retries| *retries < DISCOVERY_RETRIES_MIN) else { return };
    retry.max_retries = Some(DISCOVERY_RETRIES_MIN);
    let place = place.get("maxRetries").unwrap_or_else(|| place.clone());
    let text = format!("{few} is too few for {DISCOVERY_RETRIES}: {DISCOVERY_RETRIES_MIN} retries are made");
    problems.push(place.warning(text, ""));
}

fn matching(retry: &Place<'_>, problems: &mut Vec<Problem>) -> Matching {
    let Some(place) = retry.section("matching", problems) else { return Matching::default() };
    place.warn_unknown(&["httpStatusCodes", "gRPCStatusCodes"], problems);
    let mut listed = |key: &str, known: RangeInclusive<u16>| {
        place.filled(key, problems)?;
        let expected =
            format!("codes and ranges from {} to {}, with commas and without spaces", known.start(), known.end());
        place.parsed(key, &expected, |text| codes(text, &known), problems)
    };
    Matching { http: listed("httpStatusCodes", HTTP_CODES), grpc: listed("gRPCStatusCodes", GRPC_CODES) }
}

/// `429,500-599`.
fn codes(text: &str, known: &RangeInclusive<u16>) -> Option<Codes> {
    let code = |text: &str| text.parse().ok().filter(|code| known.contains(code));
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(code(first)?..=code(last)?).filter(|range| !range.is_empty())
    };
    text.split(',').map(range).collect::<Option<_>>().map(Codes)
}

fn breaker(place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<CircuitBreaker> {
    if !place.is_map(problems) {
        return None;
    }
    place.warn_unknown(&BREAKER_KEYS, problems);
    // Zero is the default, as for Dapr.
    let max_requests = place.parsed("maxRequests", "a number", |text| text.parse().ok(), problems).unwrap_or(1);
    let interval = place.parsed("interval", DURATION, duration_or_millis, problems);
    let timeout = place.parsed("timeout", DURATION, duration_or_millis, problems);
    let text = place.filled("trip", problems).unwrap_or(DEFAULT_TRIP);
    match Trip::parse(text.trim()) {
        Ok(trip) => Some(CircuitBreaker {
            max_requests: max_requests.max(1),
            interval: interval.filter(|interval| !interval.is_zero()),
            timeout: timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_BREAKER_TIMEOUT),
            trip,
        }),
        Err(error) => {
            let trip = place.get("trip").unwrap_or_else(|| place.clone());
            problems.push(trip.error(format!("{}: {error}", quoted(text)), "write it as consecutiveFailures > 5"));
            None
        }
    }
}

/// Any negative number is no limit.
fn max_retries(text: &str) -> Option<Option<u32>> {
    let number: i64 = text.parse().ok()?;
    if number < 0 { Some(None) } else { Some(Some(u32::try_from(number).ok()?)) }
}
