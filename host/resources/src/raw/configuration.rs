//! Dapr's `Configuration`: each key into what it means here, and a line for each that means nothing.

use crate::configuration::{ApiLogging, ApiRule, Configuration, HttpMetrics, Protocol};
use crate::duration::duration_or_millis;
use crate::metrics_rule::{MetricsRule, Replacement};
use crate::path_pattern::PathPattern;
use crate::place::{Place, quoted};
use crate::problem::Problem;
use crate::snapshot::Text;
use crate::traces::{self, Otel, Tracing};
use crate::yaml::{Value, boolean};

/// Upper bounds of latencies that may be asked for.
const BUCKETS_MAX: usize = 100;

/// Labels that may have rules, and replacements in one of them.
const RULES_MAX: usize = 100;

/// Patterns for paths.
const PATHS_MAX: usize = 100;

const SPEC_KEYS: [&str; 7] = ["api", "logging", "tracing", "metrics", "metric", "features", "components"];

/// What Dapr knows and has no meaning for messages, or none in this version.
const WITHOUT_EFFECT: [&str; 11] = [
    "accessControl",
    "actors",
    "appHttpPipeline",
    "entityConfig",
    "httpPipeline",
    "mtls",
    "nameResolution",
    "scheduler",
    "secrets",
    "wasm",
    "workflow",
];

const API_LOGGING_KEYS: [&str; 3] = ["enabled", "obfuscateURLs", "omitHealthChecks"];
const TRACING_KEYS: [&str; 4] = ["samplingRate", "stdout", "zipkin", "otel"];
const OTEL_KEYS: [&str; 5] = ["endpointAddress", "protocol", "isSecure", "headers", "timeout"];
const HEADER_KEYS: [&str; 3] = ["name", "value", "secretKeyRef"];
const ZIPKIN_FORM: &str = "must be an http or https URL, without a user's name and password";
const METRICS_KEYS: [&str; 5] = ["enabled", "latencyDistributionBuckets", "rules", "http", "recordErrorCodes"];
const HTTP_METRICS_KEYS: [&str; 3] = ["increasedCardinality", "pathMatching", "excludeVerbs"];
const RULE_KEYS: [&str; 3] = ["name", "version", "protocol"];

/// Reads one over what was read before.
pub(crate) fn read(root: &Place<'_>, configuration: &mut Configuration, problems: &mut Vec<Problem>) {
    root.warn_unknown(&super::ROOT_KEYS, problems);
    let Some(spec) = super::spec(root, problems) else { return };
    spec.warn_unknown(&[&SPEC_KEYS[..], &WITHOUT_EFFECT].concat(), problems);
    without_effect(&spec, &WITHOUT_EFFECT, problems);
    if let Some(api) = spec.section("api", problems) {
        api.warn_unknown(&["allowed", "denied"], problems);
        let rules = |key: &str, problems: &mut Vec<Problem>| -> Option<Vec<ApiRule>> {
            api.get(key)?;
            Some(api.items(key, problems).iter().filter_map(|item| rule(item, problems)).collect())
        };
        replace(&mut configuration.api.allowed, rules("allowed", problems));
        replace(&mut configuration.api.denied, rules("denied", problems));
    }
    if let Some(logging) = spec.section("logging", problems) {
        logging.warn_unknown(&["apiLogging"], problems);
        if let Some(api) = logging.section("apiLogging", problems) {
            read_api_logging(&api, &mut configuration.api_logging, problems);
        }
    }
    if let Some(tracing) = spec.section("tracing", problems) {
        read_tracing(&tracing, &mut configuration.tracing, problems);
    }
    // `metric` is its older name.
    for metrics in ["metric", "metrics"].iter().filter_map(|key| spec.section(key, &mut *problems)).collect::<Vec<_>>()
    {
        read_metrics(&metrics, configuration, problems);
    }
    for feature in spec.items("features", problems) {
        read_feature(&feature, configuration, problems);
    }
    if let Some(components) = spec.section("components", problems) {
        components.warn_unknown(&["deny"], problems);
        replace(
            &mut configuration.denied_components,
            components.get("deny").map(|_| components.texts("deny", problems)),
        );
    }
}

fn replace<T>(old: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *old = new;
    }
}

fn without_effect(place: &Place<'_>, keys: &[&str], problems: &mut Vec<Problem>) {
    let given = keys.iter().filter_map(|key| place.get(key));
    problems.extend(given.map(|key| key.warning("has no effect in this host, ignored".to_owned(), "")));
}

/// A rule that cannot be read is an error: whoever wanted to keep somebody out must not be left with an open door.
fn rule(item: &Place<'_>, problems: &mut Vec<Problem>) -> Option<ApiRule> {
    if !item.is_map(problems) {
        return None;
    }
    item.warn_unknown(&RULE_KEYS, problems);
    let version = |text: &str| match text {
        "" => Some(None),
        "v1" | "v1.0" => Some(Some("v1".to_owned())),
        "v1alpha1" | "v1.0-alpha1" => Some(Some("v1alpha1".to_owned())),
        "v1beta1" | "v1.0-beta1" => Some(Some("v1beta1".to_owned())),
        _ => None,
    };
    let name = item.required("name", "for example publish", problems).map(str::to_owned);
    let version = item.parsed("version", "v1, v1alpha1 or v1beta1", version, problems);
    let protocol = item.parsed("protocol", "http or grpc", protocol, problems);
    Some(ApiRule { name: name?, version: version.flatten(), protocol })
}

fn protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "http" => Some(Protocol::Http),
        "grpc" => Some(Protocol::Grpc),
        _ => None,
    }
}

fn read_api_logging(place: &Place<'_>, logging: &mut ApiLogging, problems: &mut Vec<Problem>) {
    place.warn_unknown(&API_LOGGING_KEYS, problems);
    let mut flag = |key: &str| place.parsed(key, "true or false", boolean, problems);
    let (enabled, obfuscate, omit) = (flag("enabled"), flag("obfuscateURLs"), flag("omitHealthChecks"));
    logging.enabled = enabled.or(logging.enabled);
    replace(&mut logging.obfuscate_urls, obfuscate);
    replace(&mut logging.omit_health_checks, omit);
}

fn read_tracing(place: &Place<'_>, tracing: &mut Tracing, problems: &mut Vec<Problem>) {
    place.warn_unknown(&TRACING_KEYS, problems);
    let rate = |text: &str| text.parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
    let rate = place.parsed("samplingRate", "a number from 0 to 1", rate, problems);
    tracing.sampling_rate = rate.or(tracing.sampling_rate);
    replace(&mut tracing.stdout, place.parsed("stdout", "true or false", boolean, problems));
    if let Some(zipkin) = place.section("zipkin", problems) {
        zipkin.warn_unknown(&["endpointAddress"], problems);
        tracing.zipkin = endpoint(&zipkin, traces::zipkin_endpoint, ZIPKIN_FORM, problems);
    }
    if let Some(otel) = place.section("otel", problems) {
        tracing.otel = read_otel(&otel, problems);
    }
}

fn read_otel(place: &Place<'_>, problems: &mut Vec<Problem>) -> Option<Otel> {
    place.warn_unknown(&OTEL_KEYS, problems);
    let timeout = |text: &str| duration_or_millis(text).filter(|timeout| !timeout.is_zero());
    let timeout = place.parsed("timeout", "a duration such as 10s", timeout, problems);
    let protocol = place.parsed("protocol", "http or grpc", protocol, problems).unwrap_or(Protocol::Grpc);
    let secure = place.parsed("isSecure", "true or false", boolean, problems).unwrap_or(true);
    let headers = place.get("headers").map(|place| read_headers(&place, problems)).unwrap_or_default();
    let parse = |text: &str| traces::otlp_endpoint(text, secure, protocol);
    let endpoint = endpoint(place, parse, traces::ENDPOINT_FORM, problems)?;
    Some(Otel { endpoint, protocol, headers, timeout })
}

/// What is wrong with it is said without it: it may hold a key.
fn endpoint(
    place: &Place<'_>,
    parse: impl Fn(&str) -> Option<Text>,
    form: &str,
    problems: &mut Vec<Problem>,
) -> Option<Text> {
    let text = place.filled("endpointAddress", problems)?.trim();
    let endpoint = parse(text);
    if endpoint.is_none() {
        problems.extend(place.get("endpointAddress").map(|place| place.error(form.to_owned(), "")));
    }
    endpoint
}

/// `NAME=VALUE,NAME=VALUE`, or a list of such, or of `name` and `value`. Their values are secrets, so none is shown.
fn read_headers(place: &Place<'_>, problems: &mut Vec<Problem>) -> Vec<(String, Text)> {
    let mut all = Vec::new();
    let items = if matches!(place.node.value, Value::List(_)) { place.listed(problems) } else { vec![place.clone()] };
    for item in items {
        let read = match &item.node.value {
            Value::Map(_) => {
                item.warn_unknown(&HEADER_KEYS, problems);
                let (name, value) =
                    (item.required("name", "for example x-api-key", problems), item.text("value", problems));
                if let Some(reference) = item.get("secretKeyRef") {
                    problems.push(reference.error("is not read here".to_owned(), "give value: ${VARIABLE}"));
                    continue;
                }
                let Some(name) = name else { continue };
                traces::header(name, value.unwrap_or_default()).map(|header| vec![header])
            }
            _ => item.as_text(problems).and_then(traces::headers),
        };
        match read {
            Some(headers) => all.extend(headers),
            None => problems.push(item.error(traces::HEADERS_FORM.to_owned(), "")),
        }
    }
    all
}

fn read_metrics(place: &Place<'_>, configuration: &mut Configuration, problems: &mut Vec<Problem>) {
    place.warn_unknown(&METRICS_KEYS, problems);
    if let Some(http) = place.section("http", problems) {
        read_http_metrics(&http, &mut configuration.http_metrics, problems);
    }
    let record = place.parsed("recordErrorCodes", "true or false", boolean, problems);
    replace(&mut configuration.record_error_codes, record);
    if place.get("rules").is_some() {
        configuration.metrics_rules = read_rules(place, problems);
    }
    let enabled = place.parsed("enabled", "true or false", boolean, problems);
    configuration.metrics_enabled = enabled.or(configuration.metrics_enabled);
    let Some(list) = place.get("latencyDistributionBuckets") else { return };
    let texts = place.texts("latencyDistributionBuckets", problems);
    let bound = |text: &String| text.trim().parse::<f64>().ok().filter(|bound| bound.is_finite() && *bound > 0.0);
    let bounds: Option<Vec<f64>> = texts.iter().map(bound).collect();
    match bounds {
        Some(bounds) if bounds.len() <= BUCKETS_MAX && bounds.windows(2).all(|pair| pair[0] < pair[1]) => {
            configuration.latency_buckets_ms = bounds;
        }
        _ => {
            let what =
                format!("must be at most {BUCKETS_MAX} numbers of milliseconds, each larger than the one before");
            problems.push(list.error(what, "for example [1, 5, 25, 100, 1000]"));
        }
    }
}

fn read_http_metrics(place: &Place<'_>, http: &mut HttpMetrics, problems: &mut Vec<Problem>) {
    place.warn_unknown(&HTTP_METRICS_KEYS, problems);
    let mut flag = |key: &str| place.parsed(key, "true or false", boolean, problems);
    let (increased, exclude) = (flag("increasedCardinality"), flag("excludeVerbs"));
    replace(&mut http.increased_cardinality, increased);
    replace(&mut http.exclude_verbs, exclude);
    let Some(list) = place.get("pathMatching") else { return };
    let items = place.items("pathMatching", problems);
    if items.len() > PATHS_MAX {
        problems.push(list.error(format!("more than {PATHS_MAX} paths"), ""));
    }
    http.paths.clear();
    for item in items {
        let Some(text) = item.as_text(problems) else { continue };
        match PathPattern::new(text) {
            Ok(pattern) => http.paths.push(pattern),
            Err(why) => problems.push(item.error(format!("{}: {why}", quoted(text)), "for example /orders/{id}")),
        }
    }
    http.paths.sort_by(PathPattern::by_width);
}

/// `rules[] { name, labels[] { name, regex { REPLACEMENT: EXPRESSION } } }`.
fn read_rules(place: &Place<'_>, problems: &mut Vec<Problem>) -> Vec<MetricsRule> {
    let mut rules = Vec::new();
    for item in place.items("rules", problems) {
        if !item.is_map(problems) {
            continue;
        }
        item.warn_unknown(&["name", "labels"], problems);
        let name = item.required("name", "a metric, for example dapr_component_pubsub_ingress_count", problems);
        for label in item.items("labels", problems) {
            if !label.is_map(problems) {
                continue;
            }
            label.warn_unknown(&["name", "regex"], problems);
            let replacements = read_replacements(&label, problems);
            let of = label.required("name", "a label, for example topic", problems);
            if let (Some(metric), Some(label)) = (name, of) {
                rules.push(MetricsRule::new(metric, label, replacements));
            }
        }
    }
    if rules.len() > RULES_MAX {
        problems.push(place.error(format!("more than {RULES_MAX} labels in rules"), ""));
    }
    rules
}

fn read_replacements(label: &Place<'_>, problems: &mut Vec<Problem>) -> Vec<Replacement> {
    let entries = label.entries("regex", problems);
    if entries.len() > RULES_MAX {
        problems.push(label.error(format!("more than {RULES_MAX} expressions"), ""));
    }
    let mut replacements = Vec::new();
    for (by, place) in entries {
        let Some(expression) = place.as_text(problems) else { continue };
        match Replacement::new(expression, by) {
            Ok(replacement) => replacements.push(replacement),
            Err(why) => problems.push(place.error(format!("{} is no expression: {why}", quoted(expression)), "")),
        }
    }
    replacements
}

fn read_feature(place: &Place<'_>, configuration: &mut Configuration, problems: &mut Vec<Problem>) {
    if !place.is_map(problems) {
        return;
    }
    place.warn_unknown(&["name", "enabled"], problems);
    let enabled = place.parsed("enabled", "true or false", boolean, problems).unwrap_or_default();
    match place.required("name", "for example HotReload", problems) {
        Some("HotReload") => configuration.hot_reload = Some(enabled),
        Some(_) => problems.push(place.warning("has no effect in this host, ignored".to_owned(), "")),
        None => {}
    }
}
