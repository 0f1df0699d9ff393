//! Counters with their labels, held by whoever counts. Each is made when it first counts, and found without a lock after.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::families::{Families, Family};
use super::{Metrics, millis};
use crate::delivery::Reason;
use crate::error::HandlerError;
use crate::handler::Outcome;

/// A count and, where something took time, how long.
type Measured = OnceLock<Option<(IntCounter, Histogram)>>;

/// What one app publishes to one topic.
#[derive(Debug)]
pub(crate) struct Egress {
    labels: Labels,
    /// One message a request: what failed, what succeeded.
    single: [Measured; 2],
    /// Several.
    bulk: [Measured; 2],
}

/// What is delivered on one subscription.
pub struct Ingress {
    labels: Labels,
    success: Measured,
    retry: Measured,
    drop: Measured,
    dead: Measured,
    in_flight: OnceLock<Option<IntGauge>>,
    attempts: OnceLock<Option<IntCounter>>,
    further: OnceLock<Option<IntCounter>>,
    batches: Measured,
    batch_events: [OnceLock<Option<IntCounter>>; 3],
}

/// Dapr's words for what became of a delivery or of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The app has it.
    Success,
    /// It comes again.
    Retry,
    /// It is not wanted.
    Drop,
    /// It stands in the dead-letter topic.
    Dead,
}

impl Status {
    /// What an attempt comes to.
    pub(crate) fn of(result: &Result<Outcome, HandlerError>) -> Self {
        match result {
            Ok(Outcome::Success) => Self::Success,
            Ok(Outcome::Drop | Outcome::Unserved) => Self::Drop,
            Ok(Outcome::Retry) | Err(_) => Self::Retry,
        }
    }

    /// `process_status` and `status` (pubsub-behaviour, section 13.1).
    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Success => ["success", "success"],
            Self::Retry => ["retry", "retry"],
            Self::Drop => ["drop", "success"],
            Self::Dead => ["drop", "drop"],
        }
    }
}

/// What the counters of one handle have in common.
struct Labels {
    metrics: Metrics,
    app_id: String,
    component: String,
    topic: String,
}

impl Labels {
    fn new(metrics: Metrics, app_id: &str, component: &str, topic: &str) -> Self {
        Self { metrics, app_id: app_id.to_owned(), component: component.to_owned(), topic: topic.to_owned() }
    }

    fn families(&self) -> Option<&Families> {
        self.metrics.0.families.as_ref()
    }

    fn own(&self) -> [&str; 3] {
        [&self.app_id, &self.component, &self.topic]
    }

    /// Adds to a count that has a reason. Only for what is no everyday matter.
    fn count_reason(&self, family: impl Fn(&Families) -> &Family<IntCounterVec>, reason: &Reason) {
        if let Some(families) = self.families() {
            let [app_id, component, topic] = self.own();
            family(families).with(&[app_id, component, topic, word(reason)]).inc();
        }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.app_id, self.component, self.topic)
    }
}

impl fmt::Debug for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ingress").field(&self.labels).finish()
    }
}

impl Egress {
    pub(super) fn new(metrics: Metrics, app_id: &str, component: &str, topic: &str) -> Self {
        let labels = Labels::new(metrics, app_id, component, topic);
        Self { labels, single: Default::default(), bulk: Default::default() }
    }

    /// A publish has ended, its retries included.
    pub(crate) fn published(&self, succeeded: bool, took: Duration) {
        self.count(&self.single, |families| (&families.egress_count, &families.egress_latencies), succeeded, took);
    }

    /// The same of several messages in one request; it succeeded if all of them are published.
    pub(crate) fn published_bulk(&self, succeeded: bool, took: Duration) {
        self.count(
            &self.bulk,
            |families| (&families.egress_bulk_count, &families.egress_bulk_latencies),
            succeeded,
            took,
        );
    }

    fn count(
        &self,
        [failed, succeeded]: &[Measured; 2],
        choose: impl Fn(&Families) -> (&Family<IntCounterVec>, &Family<HistogramVec>),
        all_is_well: bool,
        took: Duration,
    ) {
        let (measured, word) = if all_is_well { (succeeded, "true") } else { (failed, "false") };
        let made = measured.get_or_init(|| {
            let (families, [app_id, component, topic]) = (self.labels.families()?, self.labels.own());
            let labels = [app_id, component, &self.labels.metrics.0.namespace, word, topic];
            let (count, latencies) = choose(families);
            Some((count.with(&labels), latencies.with(&labels)))
        });
        if let Some((count, latencies)) = made {
            count.inc();
            latencies.observe(millis(took));
        }
    }
}

impl Ingress {
    pub(super) fn new(metrics: Metrics, app_id: &str, component: &str, topic: &str) -> Self {
        Self {
            labels: Labels::new(metrics, app_id, component, topic),
            success: OnceLock::new(),
            retry: OnceLock::new(),
            drop: OnceLock::new(),
            dead: OnceLock::new(),
            in_flight: OnceLock::new(),
            attempts: OnceLock::new(),
            further: OnceLock::new(),
            batches: OnceLock::new(),
            batch_events: Default::default(),
        }
    }

    /// An attempt has ended. `number` is that of the message's attempt, from 1.
    pub(crate) fn attempted(&self, number: u32, status: Status, took: Duration) {
        self.count(status, Some(took));
        let own = || self.labels.own();
        let attempts = || Some(self.labels.families()?.attempts.with(&own()));
        if let Some(attempts) = self.attempts.get_or_init(attempts) {
            attempts.inc();
        }
        let further = || Some(self.labels.families()?.further.with(&own()));
        if number > 1
            && let Some(further) = self.further.get_or_init(further)
        {
            further.inc();
        }
    }

    /// A request with several events has ended; each of them is an attempt besides.
    pub(crate) fn attempted_batch(&self, took: Duration) {
        let made = self.batches.get_or_init(|| {
            let (families, labels) = (self.labels.families()?, self.bulk_labels(""));
            let count = families.ingress_bulk_count.with(&labels);
            Some((count, families.ingress_bulk_latencies.with(&labels)))
        });
        if let Some((count, latencies)) = made {
            count.inc();
            latencies.observe(millis(took));
        }
    }

    /// An attempt with an event of a batch has ended.
    pub(crate) fn attempted_in_batch(&self, number: u32, status: Status, took: Duration) {
        self.attempted(number, status, took);
        let [success, retry, drop] = &self.batch_events;
        let events = match status {
            Status::Success => success,
            Status::Retry => retry,
            Status::Drop | Status::Dead => drop,
        };
        let [process_status, _] = status.labels();
        let made = || Some(self.labels.families()?.ingress_bulk_events.with(&self.bulk_labels(process_status)));
        if let Some(events) = events.get_or_init(made) {
            events.inc();
        }
    }

    fn bulk_labels<'a>(&'a self, process_status: &'a str) -> [&'a str; 5] {
        let [app_id, component, topic] = self.labels.own();
        [app_id, component, &self.labels.metrics.0.namespace, process_status, topic]
    }

    /// Dropped. Dapr counts it here, unless an attempt has said so already.
    pub(crate) fn dropped(&self, reason: &Reason) {
        if !matches!(reason, Reason::Dropped | Reason::Unserved) {
            self.count(Status::Drop, None);
        }
        self.labels.count_reason(|families| &families.dropped, reason);
    }

    /// It stands in the dead-letter topic.
    pub(crate) fn dead_lettered(&self, reason: &Reason) {
        self.count(Status::Dead, None);
        self.labels.count_reason(|families| &families.dead_letters, reason);
    }

    /// Given back, for another delivery.
    pub(crate) fn given_back(&self, reason: &Reason) {
        self.count(Status::Retry, None);
        self.labels.count_reason(|families| &families.given_back, reason);
    }

    /// A delivery is under way, until this is dropped.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        let made = || Some(self.labels.families()?.in_flight.with(&self.labels.own()));
        let gauge = self.in_flight.get_or_init(made).as_ref();
        gauge.inspect(|gauge| gauge.inc());
        InFlight(gauge)
    }

    fn count(&self, status: Status, took: Option<Duration>) {
        let measured = match status {
            Status::Success => &self.success,
            Status::Retry => &self.retry,
            Status::Drop => &self.drop,
            Status::Dead => &self.dead,
        };
        let made = measured.get_or_init(|| {
            let (families, [app_id, component, topic]) = (self.labels.families()?, self.labels.own());
            let [process_status, status] = status.labels();
            let labels = [app_id, component, &self.labels.metrics.0.namespace, process_status, status, topic];
            let count = families.ingress_count.with(&labels);
            Some((count, families.ingress_latencies.with(&labels)))
        });
        if let Some((count, latencies)) = made {
            count.inc();
            took.inspect(|took| latencies.observe(millis(*took)));
        }
    }
}

/// A delivery under way.
#[derive(Debug)]
pub(crate) struct InFlight<'a>(Option<&'a IntGauge>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.inspect(|gauge| gauge.dec());
    }
}

/// A reason as a label: never what an app or a broker said.
fn word(reason: &Reason) -> &'static str {
    match reason {
        Reason::Dropped => "dropped",
        Reason::Unserved => "unserved",
        Reason::Exhausted(_) => "exhausted",
        Reason::HandlerGone => "handler_gone",
        Reason::BreakerOpen => "breaker_open",
        Reason::Unwell => "app_unhealthy",
        Reason::Unparsable(_) => "unparsable",
        Reason::Expired => "expired",
        Reason::Unrouted => "unrouted",
        Reason::Unruled(_) => "unruled",
        Reason::Forbidden => "forbidden",
    }
}
