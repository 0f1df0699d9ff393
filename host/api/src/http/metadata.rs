//! The metadata API (pubsub-behaviour 12.1): what runs, as JSON; and a few values that the app may leave here.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use http::StatusCode;
use serde::Serialize;
use whimbrel_pubsub::{Broker, Features};
use whimbrel_resources::{Origin, Subscription};

use super::{Answer, Api, Arriving, body, empty, refuse, text, with_body};
use crate::app::Probe;
use crate::error;
use crate::path;

/// Values that may be set.
const KEYS_MAX: usize = 64;

/// One value, bytes.
const VALUE_BYTES_MAX: u64 = 4 * 1024;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    id: &'a str,
    runtime_version: &'a str,
    enabled_features: &'a [&'static str],
    components: Vec<Component<'a>>,
    extended: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions: Vec<Subscribed<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_connection_properties: Option<Connection<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resiliencies: Vec<Named<'a>>,
    actor_runtime: Actors,
}

#[derive(Serialize)]
struct Component<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    version: &'a str,
    capabilities: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribed<'a> {
    pubsubname: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
    rules: Vec<Rule<'a>>,
    dead_letter_topic: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Rule<'a> {
    #[serde(rename = "match", skip_serializing_if = "str::is_empty")]
    expression: &'a str,
    path: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    port: u16,
    protocol: &'static str,
    channel_address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Probed<'a>>,
}

/// How the app's health is asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probed<'a> {
    health_check_path: &'a str,
    health_probe_interval: String,
    health_probe_timeout: String,
    health_threshold: u32,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

/// There are no actors here; SDKs expect the field.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Actors {
    runtime_status: &'static str,
    host_ready: bool,
    placement: &'static str,
}

/// `GET /v1.0/metadata`.
pub(super) fn get(api: &Api) -> Answer {
    let doors = &api.doors;
    let topology = doors.topology.load();
    let mut brokers: Vec<&Broker> = topology.brokers.values().collect();
    brokers.retain(|broker| broker.declared.visible_to(&doors.caller.app_id));
    brokers.sort_by(|a, b| a.declared.name.cmp(&b.declared.name));
    let subscriptions = doors.subscriptions.load();
    let resiliencies = doors.resiliencies.load();
    let metadata = Metadata {
        id: &doors.caller.app_id,
        runtime_version: env!("CARGO_PKG_VERSION"),
        enabled_features: &doors.enabled_features,
        components: brokers.into_iter().map(component).collect(),
        extended: extended(api),
        subscriptions: subscriptions.iter().map(|subscription| subscribed(subscription)).collect(),
        app_connection_properties: doors.app.as_ref().map(|app| Connection {
            port: app.port,
            protocol: app.protocol.name(),
            channel_address: &app.address,
            max_concurrency: app.concurrency_max,
            health: app.probe.as_ref().map(probed),
        }),
        resiliencies: resiliencies.iter().map(|name| Named { name }).collect(),
        actor_runtime: Actors { runtime_status: "DISABLED", host_ready: false, placement: "placement: disconnected" },
    };
    match serde_json::to_vec(&metadata) {
        Ok(body) => with_body(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// `PUT /v1.0/metadata/{key}`: the body is the value.
pub(super) async fn set(api: &Api, key: &str, body: Arriving) -> Answer {
    let refused = |status, message: &str| refuse(&error::plain(status, "ERR_METADATA_SET", message));
    let Some(key) = path::unescape(key) else {
        return refused(StatusCode::BAD_REQUEST, "the key is not UTF-8");
    };
    let Ok(held) = body::read(body, Some(VALUE_BYTES_MAX), &api.bodies, false).await else {
        return refused(StatusCode::BAD_REQUEST, "the value could not be read or is larger than 4 KiB");
    };
    let value = String::from_utf8_lossy(&held.bytes).into_owned();
    let mut values = api.doors.extended.lock().unwrap_or_else(PoisonError::into_inner);
    if values.len() >= KEYS_MAX && !values.contains_key(&key) {
        return refused(StatusCode::BAD_REQUEST, "there are 64 values already");
    }
    values.insert(key, value);
    empty()
}

/// What the app has set, and over it what is ours: versions, the state of each broker and, where it is asked, the app's.
fn extended(api: &Api) -> BTreeMap<String, String> {
    let mut extended = api.doors.extended.lock().unwrap_or_else(PoisonError::into_inner).clone();
    extended.insert("daprRuntimeVersion".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if let Some(well) = &api.doors.app_health {
        let state = if *well.borrow() { "healthy" } else { "unhealthy" };
        extended.insert("appHealth".to_owned(), state.to_owned());
    }
    extended.extend(api.doors.health.brokers().into_iter().map(|(name, state)| (format!("broker.{name}"), state)));
    extended
}

fn probed(probe: &Probe) -> Probed<'_> {
    Probed {
        health_check_path: &probe.path,
        health_probe_interval: whimbrel_resources::go_text(probe.interval),
        health_probe_timeout: whimbrel_resources::go_text(probe.timeout),
        health_threshold: probe.threshold,
    }
}

fn component(broker: &Broker) -> Component<'_> {
    let declared = &broker.declared;
    let capabilities = capabilities(&broker.features());
    Component { name: &declared.name, kind: &declared.kind, version: &declared.version, capabilities }
}

/// Features under the names that Dapr has for them.
fn capabilities(features: &Features) -> Vec<&'static str> {
    let named = [(features.ttl, "MESSAGE_TTL"), (features.wildcards, "SUBSCRIBE_WILDCARDS")];
    named.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

fn subscribed(declared: &Subscription) -> Subscribed<'_> {
    Subscribed {
        pubsubname: &declared.pubsub,
        topic: &declared.topic,
        metadata: declared.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        rules: rules(declared),
        dead_letter_topic: declared.dead_letter_topic.as_deref().unwrap_or_default(),
        kind: match declared.origin {
            Origin::Declarative | Origin::Handler => "DECLARATIVE",
            Origin::Programmatic => "PROGRAMMATIC",
        },
    }
}

/// The rules in order; the default is the last, without a match.
fn rules(declared: &Subscription) -> Vec<Rule<'_>> {
    let rules = declared.rules.iter().map(|rule| Rule { expression: rule.expression(), path: rule.path() });
    rules.chain(declared.default_route.iter().map(|path| Rule { expression: "", path })).collect()
}
