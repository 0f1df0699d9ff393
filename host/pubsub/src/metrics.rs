//! What is counted about messages: Dapr's names and labels (pubsub-behaviour, section 13.1), and ours, which begin with
//! `whimbrel_`. Called by the spines and `events`.
//!
//! A message costs a few atomic additions: whoever handles it holds its counters already, or finds them without a lock.
//! A counter shows up once something was counted. Never a label from data; topics that are only published to are
//! bounded, and so are paths. Absent on purpose: HTTP; `api` serves the text and knows what a request is.

mod families;
mod handles;
mod plugins;
mod policies;
mod requests;
mod starts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};
use whimbrel_resources::{HttpMetrics, MetricsRule};

use families::{Families, Registered};
pub use handles::Ingress;
pub(crate) use handles::{Egress, InFlight, Status};
pub use plugins::{Lags, PluginKind, Usage};
pub(crate) use policies::{Flow, PolicyCounters, PolicyCounts};
pub use requests::{Sent, Served};
pub use starts::StartFailure;

/// Topics published to that are counted by name, those of all apps and components. Clients choose the names.
const TOPICS_MAX: usize = 1000;

/// The topic that all others are counted under.
const OTHER_TOPICS: &str = "(other)";

/// How it is counted.
#[derive(Debug, Clone, Default)]
pub struct MetricsOptions {
    /// The host's own app, for what is counted of the host: policies, components.
    pub app_id: String,
    /// Upper bounds of latencies, milliseconds, ascending. Empty: the usual ones.
    pub latency_buckets_ms: Vec<f64>,
    /// What becomes of the values of labels; of two for one label the last.
    pub rules: Vec<MetricsRule>,
    /// Whether the error codes of the API are counted.
    pub error_codes: bool,
    /// How requests over HTTP are counted.
    pub http: HttpMetrics,
}

/// All that is counted in this process, or in one test.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

/// What is published to each topic.
type Topics = HashMap<String, Arc<Egress>>;

#[derive(Debug)]
struct Inner {
    registry: Registry,
    app_id: String,
    namespace: String,
    /// None: they could not be made, and nothing is counted.
    families: Option<Families>,
    error_codes: bool,
    /// By app, component and topic. Replaced when a topic is published to for the first time.
    egress: ArcSwap<HashMap<String, HashMap<String, Topics>>>,
}

impl Metrics {
    /// Nothing counted yet. `namespace` is the label of that name, empty where none is set.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self::with_options(namespace, &MetricsOptions::default())
    }

    /// The same as the operator wants it.
    #[must_use]
    pub fn with_options(namespace: &str, options: &MetricsOptions) -> Self {
        let registry = Registry::new();
        // Constant names and labels, which a test makes all of: this does not fail.
        let failed = |error: &prometheus::Error| tracing::error!(%error, "bug: nothing is counted");
        let families = Families::new(&Registered { registry: &registry, options }).inspect_err(failed).ok();
        Self(Arc::new(Inner {
            registry,
            app_id: options.app_id.clone(),
            namespace: namespace.to_owned(),
            families,
            error_codes: options.error_codes,
            egress: ArcSwap::default(),
        }))
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
        let counter = IntCounterVec::new(Opts::new(name, help), &["reason"]).ok()?;
        self.0.registry.register(Box::new(counter.clone())).ok()?;
        Some(counter)
    }

    /// The counters of one subscription.
    #[must_use]
    pub fn ingress(&self, app_id: &str, component: &str, topic: &str) -> Arc<Ingress> {
        Arc::new(Ingress::new(self.clone(), app_id, component, topic))
    }

    /// A request of an app was answered with this error code, if that is to be counted.
    pub fn error_code(&self, app_id: &str, category: &str, code: &str) {
        if let Some(families) = self.0.families.as_ref().filter(|_| self.0.error_codes) {
            families.error_codes.with(&[app_id, category, code]).inc();
        }
    }

    /// What a plugin takes up, counted under the name of its resource.
    #[must_use]
    pub fn usage(&self, kind: PluginKind, name: &str) -> Usage {
        Usage::new(self.0.families.as_ref(), kind, name)
    }

    /// How far groups are behind at a component's broker. `topic_prefix`: what its topics have there and their names have
    /// not.
    #[must_use]
    pub fn lags(&self, component: &str, topic_prefix: Option<&str>) -> Lags {
        Lags::new(self.clone(), component, topic_prefix)
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

fn millis(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests;
