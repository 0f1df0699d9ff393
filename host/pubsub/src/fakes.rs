//! What the tests of this crate put in place of the rest of the host: a declared broker, a snapshot around it, and
//! events at the ends of the real channels.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use tokio::time::Instant;
use whimbrel_resources::{
    CircuitBreaker, Component, Origin, Policies, Policy, Position, Subscription as Declared, TopicScopes, Trip,
};

use crate::{Arrived, Broker, Caller, Clock, Environment, Handler, Message, Metadata, Metrics, PublishRequest, Random};
use crate::{Subscription, Topology, Trace, Tracer};

pub(crate) fn component(topic_scopes: TopicScopes) -> Component {
    Component {
        name: "bus".into(),
        kind: "pubsub.fake".into(),
        version: "v1".into(),
        properties: Vec::new(),
        scopes: Vec::new(),
        topic_scopes,
        init_timeout: Duration::from_secs(5),
        ignore_errors: false,
        consumer_id: None,
        topic_prefix: None,
        network: Vec::new(),
        plugin: None,
        at: Position { file: "bus.yaml".into(), line: 1 },
    }
}

pub(crate) fn environment(seed: u64) -> Environment {
    let start = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    Environment {
        clock: Clock::Simulated(start, Instant::now()),
        random: Random::seeded(seed),
        metrics: Metrics::default(),
        tracer: Tracer::default(),
    }
}

pub(crate) fn topology(bus: Broker, policies: Policies, seed: u64) -> Topology {
    Topology { environment: environment(seed), brokers: HashMap::from([("bus".to_owned(), bus)]), policies }
}

/// The same policy around publishing and delivering.
pub(crate) fn policies(policy: Policy) -> Policies {
    Policies { inbound_default: policy.clone(), outbound_default: policy, ..Policies::default() }
}

/// A breaker that lets one attempt find out after a minute.
pub(crate) fn breaker(trip: &str) -> Arc<CircuitBreaker> {
    let trip = Trip::parse(trip).expect("a condition");
    Arc::new(CircuitBreaker { max_requests: 1, interval: None, timeout: Duration::from_secs(60), trip })
}

pub(crate) fn caller(app_id: &str) -> Caller {
    Caller { app_id: Arc::from(app_id) }
}

pub(crate) fn declared(topic: &str, dead_letter_topic: Option<&str>, metadata: &[(&str, &str)]) -> Declared {
    Declared {
        name: String::new(),
        pubsub: "bus".into(),
        topic: topic.to_owned(),
        rules: Vec::new(),
        default_route: Some("/in".into()),
        dead_letter_topic: dead_letter_topic.map(str::to_owned),
        metadata: pairs(metadata),
        bulk: None,
        scopes: Vec::new(),
        origin: Origin::Declarative,
    }
}

pub(crate) fn subscription(declared: Declared, app_id: &str, handler: Handler) -> Subscription {
    Subscription { declared: Arc::new(declared), caller: caller(app_id), group: app_id.to_owned(), handler }
}

pub(crate) fn pairs(metadata: &[(&str, &str)]) -> Metadata {
    metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn request(topic: &str, data: &'static str, metadata: &[(&str, &str)]) -> PublishRequest {
    PublishRequest {
        caller: caller("me"),
        pubsub: "bus".into(),
        topic: topic.to_owned(),
        data: data.into(),
        content_type: None,
        metadata: pairs(metadata),
        trace: Trace::default(),
    }
}

/// A small event, as it arrives.
pub(crate) fn arrived(token: u64, id: &str, count: Option<u32>) -> Arrived {
    let data = format!("{{\"id\":\"event-{id}\",\"data\":{token}}}").into();
    let message = Message { topic: Arc::from("t"), key: None, data, metadata: pairs(&[("k", "v")]) };
    Arrived { token, id: id.to_owned(), message, count }
}

/// What was counted of policies, every line of it: `LABEL=VALUE,... COUNT`, without what all of them have in common.
pub(crate) fn policies_counted(metrics: &Metrics) -> Vec<String> {
    let text = metrics.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("dapr_resiliency_"));
    let common = [r#"{app_id="","#, r#"name="r",namespace="","#, r#",target="Pubsub_bus"}"#, "\""];
    lines.map(|line| common.iter().fold(line.to_owned(), |line, common| line.replace(common, ""))).collect()
}
