//! Requests over HTTP, those of the API and those to the app (pubsub-behaviour, section 13.2): by method and status, and by path
//! where the operator wants that. Counted by `api`, which knows what a request is; to us its labels are plain values.
//!
//! Dapr's rules. Usually the API's have the name of the call for a method, the app's have the status alone, and there are no
//! paths. With patterns: method and pattern. Of increased cardinality: method and path, which has a bound here, for clients
//! choose the paths.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tokio::time::Instant;
use whimbrel_resources::HttpMetrics;

use super::families::{Family, Registered};
use super::{Metrics, millis};

/// Series by path, method and status, of the API's requests and of those to the app each. Beyond these all paths are one.
const SERIES_MAX: usize = 1000;

/// The path that all others are counted under.
const OTHER_PATHS: &str = "(other)";

/// Dapr's word for a path that no pattern fits.
const UNMATCHED: &str = "_";

/// The status of a request that got no answer, as Dapr counts it.
const UNANSWERED: u16 = 500;

/// Requests of each kind.
#[derive(Debug)]
pub(super) struct Requests {
    options: HttpMetrics,
    served: Kind,
    sent: Kind,
    probes: Kind,
}

/// Requests of one kind.
#[derive(Debug)]
struct Kind {
    labels: &'static [&'static str],
    count: Family<IntCounterVec>,
    latency: Family<HistogramVec>,
    /// Bytes of the request and of its answer, each with its labels.
    sizes: Option<[(Family<HistogramVec>, &'static [&'static str]); 2]>,
    /// What was counted already, by path. Replaced when something is counted for the first time.
    known: ArcSwap<HashMap<String, OfPath>>,
}

/// What was counted of one path, by method and status.
type OfPath = HashMap<(&'static str, u16), Arc<Series>>;

/// The counters of one path, method and status.
#[derive(Debug)]
struct Series {
    count: IntCounter,
    latency: Histogram,
    sizes: Option<[Histogram; 2]>,
}

impl Requests {
    pub(super) fn new(registered: &Registered<'_>, options: &HttpMetrics) -> prometheus::Result<Self> {
        const APP: &[&str] = &["app_id"];
        const STATUS: &[&str] = &["app_id", "status"];
        const PATH: &[&str] = &["app_id", "method", "path", "status"];
        let (server, client) =
            if options.has_paths() { (PATH, PATH) } else { (&["app_id", "method", "status"][..], STATUS) };
        let size = |name: &str, help: &str, labels: &'static [&'static str]| {
            registered.sizes(name, help, labels).map(|family| (family, labels))
        };
        let kind = |[count, latency]: [&str; 2], what: &str, labels, sizes| {
            prometheus::Result::Ok(Kind {
                labels,
                count: registered.counter(count, what, labels)?,
                latency: registered.latencies(latency, &format!("How long they took, milliseconds. {what}"), labels)?,
                sizes,
                known: ArcSwap::default(),
            })
        };
        let served = [
            size("dapr_http_server_request_bytes", "Bodies of requests to the API, bytes.", APP)?,
            size("dapr_http_server_response_bytes", "Bodies of the API's answers, bytes.", APP)?,
        ];
        let sent = [
            size("dapr_http_client_sent_bytes", "Bodies of requests to the app, bytes.", client)?,
            size("dapr_http_client_received_bytes", "Bodies of the app's answers, bytes.", APP)?,
        ];
        Ok(Self {
            options: options.clone(),
            served: kind(
                ["dapr_http_server_request_count", "dapr_http_server_latency"],
                "Requests to the API.",
                server,
                Some(served),
            )?,
            sent: kind(
                ["dapr_http_client_completed_count", "dapr_http_client_roundtrip_latency"],
                "Requests to the app.",
                client,
                Some(sent),
            )?,
            probes: kind(
                ["dapr_http_healthprobes_completed_count", "dapr_http_healthprobes_roundtrip_latency"],
                "Questions whether the app is well.",
                STATUS,
                None,
            )?,
        })
    }

    /// The labels of a request: method and path.
    fn labels<'a>(&'a self, name: &'static str, verb: &'static str, path: &'a str) -> (&'static str, &'a str) {
        let HttpMetrics { increased_cardinality, paths, exclude_verbs } = &self.options;
        if !self.options.has_paths() {
            return (name, "");
        }
        let method = if *exclude_verbs { "" } else { verb };
        match paths.iter().find(|pattern| pattern.fits(path)) {
            Some(pattern) => (method, pattern.text()),
            None if *increased_cardinality => (method, path),
            None => (method, UNMATCHED),
        }
    }
}

impl Kind {
    fn add(&self, app_id: &str, (method, path): (&'static str, &str), status: u16, took: Duration, bytes: [u64; 2]) {
        let series = self.series(app_id, method, path, status);
        series.count.inc();
        series.latency.observe(millis(took));
        for (size, bytes) in series.sizes.iter().flatten().zip(bytes) {
            size.observe(bytes as f64);
        }
    }

    fn series(&self, app_id: &str, method: &'static str, path: &str, status: u16) -> Arc<Series> {
        let found = |path: &str| Some(Arc::clone(self.known.load().get(path)?.get(&(method, status))?));
        if let Some(series) = found(path) {
            return series;
        }
        let known: usize = self.known.load().values().map(HashMap::len).sum();
        if path.is_empty() || known < SERIES_MAX {
            return self.make(app_id, method, path, status);
        }
        found(OTHER_PATHS).unwrap_or_else(|| self.make(app_id, method, OTHER_PATHS, status))
    }

    /// Two that come at once both make them, and the counters behind both are the same.
    fn make(&self, app_id: &str, method: &'static str, path: &str, status: u16) -> Arc<Series> {
        let text = status.to_string();
        let values = |labels: &[&'static str], status| -> Vec<&str> {
            let value = |label: &&'static str| match *label {
                "app_id" => app_id,
                "method" => method,
                "path" => path,
                _ => status,
            };
            labels.iter().map(value).collect()
        };
        let series = Arc::new(Series {
            count: self.count.with(&values(self.labels, &text)),
            latency: self.latency.with(&values(self.labels, &text)),
            // As for Dapr, sizes have no status.
            sizes: self.sizes.as_ref().map(|sizes| {
                let [request, answer] = sizes;
                [request, answer].map(|(family, labels)| family.with(&values(labels, "")))
            }),
        });
        self.known.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.entry(path.to_owned()).or_default().insert((method, status), Arc::clone(&series));
            map
        });
        series
    }
}

/// A request of the API, as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// What is called, in Dapr's words: `PublishEvent`.
    pub name: &'static str,
    /// Its method.
    pub verb: &'static str,
    /// Its path, without the query.
    pub path: &'a str,
    /// What it was answered.
    pub status: u16,
    /// How long that took.
    pub took: Duration,
    /// Bytes of the body, and of the answer's.
    pub bytes: [u64; 2],
}

/// A request to the app under way. Dropped without an answer, it has failed.
#[derive(Debug)]
#[must_use]
pub struct Sent<'a> {
    metrics: &'a Metrics,
    /// Method and path; none: it asks whether the app is well.
    request: Option<(&'static str, &'a str)>,
    bytes: u64,
    begun: Instant,
    has_ended: bool,
}

impl Metrics {
    /// A request of the API has its answer.
    pub fn served(&self, request: Served<'_>) {
        let Served { name, verb, path, status, took, bytes } = request;
        if let Some(requests) = self.requests() {
            requests.served.add(&self.0.app_id, requests.labels(name, verb, path), status, took, bytes);
        }
    }

    /// A request goes to the app, with a body of so many bytes.
    pub fn sends<'a>(&'a self, verb: &'static str, path: &'a str, bytes: u64) -> Sent<'a> {
        Sent { metrics: self, request: Some((verb, path)), bytes, begun: Instant::now(), has_ended: false }
    }

    /// The app is asked whether it is well.
    pub fn probes(&self) -> Sent<'_> {
        Sent { metrics: self, request: None, bytes: 0, begun: Instant::now(), has_ended: false }
    }

    fn requests(&self) -> Option<&Requests> {
        self.0.families.as_ref().map(|families| &families.requests)
    }
}

impl Sent<'_> {
    /// The app has answered, with a body of so many bytes.
    pub fn answered(mut self, status: u16, bytes: u64) {
        self.end(status, bytes);
    }

    fn end(&mut self, status: u16, bytes: u64) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let Some(requests) = self.metrics.requests() else { return };
        let (kind, labels) = match self.request {
            Some((verb, path)) => (&requests.sent, requests.labels("", verb, path)),
            None => (&requests.probes, ("", "")),
        };
        kind.add(&self.metrics.0.app_id, labels, status, self.begun.elapsed(), [self.bytes, bytes]);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.end(UNANSWERED, 0);
    }
}

#[cfg(test)]
mod tests;
