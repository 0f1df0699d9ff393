//! What is counted about messages: Dapr's names and labels (pubsub-behaviour, section 13.1), and ours, which begin with
//! `whimbrel_`. Called by the spines and `events`.
//!
//! A message costs a few atomic additions: whoever handles it holds its counters already, or finds them without a lock.
//! A counter shows up once something was counted. Never a label from data; topics that are only published to are
//! bounded. Absent on purpose: HTTP; `api` serves the text.

mod handles;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

pub use handles::Ingress;
pub(crate) use handles::{Egress, InFlight, Status};

/// Upper bounds of latencies, milliseconds: Dapr's, and ours below one.
const LATENCY_BUCKETS_MS: [f64; 37] = [
    0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0, 40.0, 50.0, 65.0, 80.0,
    100.0, 130.0, 160.0, 200.0, 250.0, 300.0, 400.0, 500.0, 650.0, 800.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0,
    50_000.0, 100_000.0,
];

/// Topics published to that are counted by name, those of all apps and components. Clients choose the names.
const TOPICS_MAX: usize = 1000;

/// The topic that all others are counted under.
const OTHER_TOPICS: &str = "(other)";

const EGRESS_LABELS: [&str; 5] = ["app_id", "component", "namespace", "success", "topic"];
const INGRESS_LABELS: [&str; 6] = ["app_id", "component", "namespace", "process_status", "status", "topic"];
const INGRESS_BULK_LABELS: [&str; 5] = ["app_id", "component", "namespace", "process_status", "topic"];
const OWN_LABELS: [&str; 3] = ["app_id", "component", "topic"];
const REASON_LABELS: [&str; 4] = ["app_id", "component", "topic", "reason"];

/// All that is counted in this process, or in one test.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

/// What is published to each topic.
type Topics = HashMap<String, Arc<Egress>>;

#[derive(Debug)]
struct Inner {
    registry: Registry,
    namespace: String,
    /// None: they could not be made, and nothing is counted.
    families: Option<Families>,
    /// By app, component and topic. Replaced when a topic is published to for the first time.
    egress: ArcSwap<HashMap<String, HashMap<String, Topics>>>,
}

/// The metrics without their labels.
#[derive(Debug)]
struct Families {
    egress_count: IntCounterVec,
    egress_latencies: HistogramVec,
    egress_bulk_count: IntCounterVec,
    egress_bulk_latencies: HistogramVec,
    ingress_count: IntCounterVec,
    ingress_latencies: HistogramVec,
    ingress_bulk_count: IntCounterVec,
    ingress_bulk_latencies: HistogramVec,
    ingress_bulk_events: IntCounterVec,
    in_flight: IntGaugeVec,
    attempts: IntCounterVec,
    further: IntCounterVec,
    dropped: IntCounterVec,
    dead_letters: IntCounterVec,
    given_back: IntCounterVec,
}

impl Metrics {
    /// Nothing counted yet. `namespace` is the label of that name, empty where none is set.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self::with_buckets(namespace, &LATENCY_BUCKETS_MS)
    }

    /// The same with other upper bounds of latencies, milliseconds, ascending.
    #[must_use]
    pub fn with_buckets(namespace: &str, latency_buckets_ms: &[f64]) -> Self {
        let registry = Registry::new();
        // Constant names and labels, which a test makes all of: this does not fail.
        let failed = |error: &prometheus::Error| tracing::error!(%error, "bug: nothing is counted");
        let families = Families::new(&registry, latency_buckets_ms).inspect_err(failed).ok();
        Self(Arc::new(Inner { registry, namespace: namespace.to_owned(), families, egress: ArcSwap::default() }))
    }

    /// All of it, in Prometheus' text format (version 0.0.4).
    #[must_use]
    pub fn text(&self) -> String {
        // Encoding fails only for a metric without labels or name, and there is none.
        TextEncoder::new().encode_to_string(&self.0.registry.gather()).unwrap_or_default()
    }

    /// The counter of spans that are not exported, by `reason`. Registered by the first who asks for it.
    #[must_use]
    pub fn spans_dropped(&self) -> Option<IntCounterVec> {
        let (name, help) = ("whimbrel_spans_dropped_total", "Spans that were not exported, and why.");
        Registered(&self.0.registry, &[]).counter(name, help, &["reason"]).ok()
    }

    /// The counters of one subscription.
    #[must_use]
    pub fn ingress(&self, app_id: &str, component: &str, topic: &str) -> Arc<Ingress> {
        Arc::new(Ingress::new(self.clone(), app_id, component, topic))
    }

    /// The counters of what one app publishes to one topic.
    pub(crate) fn egress(&self, app_id: &str, component: &str, topic: &str) -> Arc<Egress> {
        let found = |topic: &str| Some(Arc::clone(self.0.egress.load().get(app_id)?.get(component)?.get(topic)?));
        if let Some(egress) = found(topic) {
            return egress;
        }
        let known: usize = self.0.egress.load().values().flat_map(HashMap::values).map(HashMap::len).sum();
        if known < TOPICS_MAX {
            return self.add_egress(app_id, component, topic);
        }
        found(OTHER_TOPICS).unwrap_or_else(|| self.add_egress(app_id, component, OTHER_TOPICS))
    }

    /// Two that come at once both add, and the counters behind both are the same.
    fn add_egress(&self, app_id: &str, component: &str, topic: &str) -> Arc<Egress> {
        let egress = Arc::new(Egress::new(self.clone(), app_id, component, topic));
        self.0.egress.rcu(|map| {
            let mut map = HashMap::clone(map);
            let topics = map.entry(app_id.to_owned()).or_default().entry(component.to_owned()).or_default();
            topics.insert(topic.to_owned(), Arc::clone(&egress));
            map
        });
        egress
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new("")
    }
}

impl Families {
    fn new(registry: &Registry, latency_buckets_ms: &[f64]) -> prometheus::Result<Self> {
        let registered = Registered(registry, latency_buckets_ms);
        Ok(Self {
            egress_count: registered.counter(
                "dapr_component_pubsub_egress_count",
                "Publishes, by whether they succeeded.",
                &EGRESS_LABELS,
            )?,
            egress_latencies: registered.latencies(
                "dapr_component_pubsub_egress_latencies",
                "How long publishes took, milliseconds.",
                &EGRESS_LABELS,
            )?,
            egress_bulk_count: registered.counter(
                "dapr_component_pubsub_egress_bulk_count",
                "Bulk publishes, by whether all of their messages were published.",
                &EGRESS_LABELS,
            )?,
            egress_bulk_latencies: registered.latencies(
                "dapr_component_pubsub_egress_bulk_latencies",
                "How long bulk publishes took, milliseconds.",
                &EGRESS_LABELS,
            )?,
            ingress_count: registered.counter(
                "dapr_component_pubsub_ingress_count",
                "Attempts to deliver, and what became of deliveries that had none that succeeded.",
                &INGRESS_LABELS,
            )?,
            ingress_latencies: registered.latencies(
                "dapr_component_pubsub_ingress_latencies",
                "How long the app took for an attempt, milliseconds.",
                &INGRESS_LABELS,
            )?,
            ingress_bulk_count: registered.counter(
                "dapr_component_pubsub_ingress_bulk_count",
                "Attempts to deliver a batch.",
                &INGRESS_BULK_LABELS,
            )?,
            ingress_bulk_latencies: registered.latencies(
                "dapr_component_pubsub_ingress_bulk_latencies",
                "How long the app took for a batch, milliseconds.",
                &INGRESS_BULK_LABELS,
            )?,
            ingress_bulk_events: registered.counter(
                "dapr_component_pubsub_ingress_bulk_event_count",
                "Attempts to deliver an event in a batch.",
                &INGRESS_BULK_LABELS,
            )?,
            in_flight: registered.gauge("whimbrel_deliveries_in_flight", "Deliveries under way.", &OWN_LABELS)?,
            attempts: registered.counter("whimbrel_delivery_attempts_total", "Attempts to deliver.", &OWN_LABELS)?,
            further: registered.counter(
                "whimbrel_delivery_further_attempts_total",
                "Attempts after the first of a message, across redeliveries.",
                &OWN_LABELS,
            )?,
            dropped: registered.counter("whimbrel_dropped_total", "Messages dropped, and why.", &REASON_LABELS)?,
            dead_letters: registered.counter(
                "whimbrel_dead_letters_total",
                "Messages dead-lettered, and why.",
                &REASON_LABELS,
            )?,
            given_back: registered.counter(
                "whimbrel_given_back_total",
                "Messages given back to the broker for another delivery, and why.",
                &REASON_LABELS,
            )?,
        })
    }
}

/// Where metrics are registered, and the buckets of latencies.
struct Registered<'a>(&'a Registry, &'a [f64]);

impl Registered<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn latencies(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(self.1.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }
}

fn millis(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests;
