//! The metrics by name, with their labels and what the operator's rules make of their values. Called by whoever holds counters.

use std::borrow::Cow;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use whimbrel_resources::MetricsRule;

use super::MetricsOptions;
use super::policies::PolicyFamilies;
use super::requests::Requests;
use super::starts::Starts;

/// Upper bounds of latencies, milliseconds: Dapr's, and ours below one.
const LATENCY_BUCKETS_MS: [f64; 37] = [
    0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0, 40.0, 50.0, 65.0, 80.0,
    100.0, 130.0, 160.0, 200.0, 250.0, 300.0, 400.0, 500.0, 650.0, 800.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0,
    50_000.0, 100_000.0,
];

/// Upper bounds of sizes, bytes: Dapr's.
const SIZE_BUCKETS_BYTES: [f64; 13] = [
    1024.0,
    2048.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];

const EGRESS_LABELS: [&str; 5] = ["app_id", "component", "namespace", "success", "topic"];
const INGRESS_LABELS: [&str; 6] = ["app_id", "component", "namespace", "process_status", "status", "topic"];
const INGRESS_BULK_LABELS: [&str; 5] = ["app_id", "component", "namespace", "process_status", "topic"];
const OWN_LABELS: [&str; 3] = ["app_id", "component", "topic"];
const REASON_LABELS: [&str; 4] = ["app_id", "component", "topic", "reason"];
const PLUGIN_LABELS: [&str; 2] = ["component", "kind"];
const ERROR_LABELS: [&str; 3] = ["app_id", "category", "error_code"];
const LAG_LABELS: [&str; 3] = ["component", "group", "topic"];

/// The metrics without their labels.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) egress_count: Family<IntCounterVec>,
    pub(super) egress_latencies: Family<HistogramVec>,
    pub(super) egress_bulk_count: Family<IntCounterVec>,
    pub(super) egress_bulk_latencies: Family<HistogramVec>,
    pub(super) ingress_count: Family<IntCounterVec>,
    pub(super) ingress_latencies: Family<HistogramVec>,
    pub(super) ingress_bulk_count: Family<IntCounterVec>,
    pub(super) ingress_bulk_latencies: Family<HistogramVec>,
    pub(super) ingress_bulk_events: Family<IntCounterVec>,
    pub(super) in_flight: Family<IntGaugeVec>,
    pub(super) attempts: Family<IntCounterVec>,
    pub(super) further: Family<IntCounterVec>,
    pub(super) dropped: Family<IntCounterVec>,
    pub(super) dead_letters: Family<IntCounterVec>,
    pub(super) given_back: Family<IntCounterVec>,
    pub(super) error_codes: Family<IntCounterVec>,
    pub(super) plugins: Plugins,
    pub(super) policies: PolicyFamilies,
    pub(super) starts: Starts,
    pub(super) requests: Requests,
}

/// What is known of plugins, and from them.
#[derive(Debug)]
pub(super) struct Plugins {
    pub(super) cpu: Family<CounterVec>,
    pub(super) memory: Family<IntGaugeVec>,
    pub(super) lag: Family<IntGaugeVec>,
}

impl Families {
    pub(super) fn new(registered: &Registered<'_>) -> prometheus::Result<Self> {
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
            error_codes: registered.counter("dapr_error_code_total", "Errors answered, by code.", &ERROR_LABELS)?,
            plugins: Plugins::new(registered)?,
            policies: PolicyFamilies::new(registered)?,
            starts: Starts::new(registered)?,
            requests: Requests::new(registered, &registered.options.http)?,
        })
    }
}

impl Plugins {
    fn new(registered: &Registered<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            cpu: registered.seconds(
                "whimbrel_plugin_cpu_seconds_total",
                "Time that a plugin has kept a thread busy, what the host does for it in its worker included, seconds.",
                &PLUGIN_LABELS,
            )?,
            memory: registered.gauge(
                "whimbrel_plugin_memory_bytes",
                "Linear memory of a plugin's instances, all together, bytes.",
                &PLUGIN_LABELS,
            )?,
            lag: registered.gauge(
                "whimbrel_lag_messages",
                "Messages that wait at the broker for a group, not counting those in flight, as the broker told last.",
                &LAG_LABELS,
            )?,
        })
    }
}

/// Where metrics are registered, and how they are to be.
pub(super) struct Registered<'a> {
    pub(super) registry: &'a Registry,
    pub(super) options: &'a MetricsOptions,
}

impl Registered<'_> {
    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Family<IntCounterVec>> {
        self.register(name, labels, IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Family<CounterVec>> {
        self.register(name, labels, CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Family<IntGaugeVec>> {
        self.register(name, labels, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn latencies(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<Family<HistogramVec>> {
        let buckets = match &*self.options.latency_buckets_ms {
            [] => LATENCY_BUCKETS_MS.to_vec(),
            buckets => buckets.to_vec(),
        };
        self.register(name, labels, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }

    pub(super) fn sizes(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Family<HistogramVec>> {
        let options = HistogramOpts::new(name, help).buckets(SIZE_BUCKETS_BYTES.to_vec());
        self.register(name, labels, HistogramVec::new(options, labels))
    }

    fn register<V: Collector + Clone + 'static>(
        &self,
        name: &str,
        labels: &[&str],
        made: prometheus::Result<V>,
    ) -> prometheus::Result<Family<V>> {
        let vec = made?;
        self.registry.register(Box::new(vec.clone()))?;
        let rule = |label: &&str| self.options.rules.iter().rfind(|rule| rule.is_for(name, label)).cloned();
        let rules: Vec<_> = labels.iter().map(rule).collect();
        Ok(Family { vec, rules: if rules.iter().any(Option::is_some) { rules } else { Vec::new() } })
    }
}

/// A metric without the values of its labels.
#[derive(Debug)]
pub(super) struct Family<V> {
    vec: V,
    /// What becomes of the value of each label, in their order. Empty: nothing.
    rules: Vec<Option<MetricsRule>>,
}

impl<B: MetricVecBuilder> Family<MetricVec<B>> {
    /// The one with these values, or what becomes of them.
    pub(super) fn with(&self, values: &[&str]) -> B::M {
        if self.rules.is_empty() {
            self.vec.with_label_values(values)
        } else {
            self.vec.with_label_values(&self.ruled(values))
        }
    }

    /// Takes the one with these values away.
    pub(super) fn remove(&self, values: &[&str]) {
        // There may be none.
        self.vec.remove_label_values(&self.ruled(values)).ok();
    }

    fn ruled<'a>(&self, values: &[&'a str]) -> Vec<Cow<'a, str>> {
        let rules = self.rules.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let ruled = |(value, rule): (&&'a str, Option<&MetricsRule>)| match rule {
            Some(rule) => rule.apply(value),
            None => Cow::Borrowed(*value),
        };
        values.iter().zip(rules).map(ruled).collect()
    }
}
