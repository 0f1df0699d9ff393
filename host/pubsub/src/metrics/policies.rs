//! What policies do around publishing and delivering (pubsub-behaviour, section 13.2). Held by each broker, for both directions;
//! counted by `policy`.
//!
//! Applied: an operation has begun under a policy, whatever comes of it. Activated: a retry is made, a timeout has passed, a
//! breaker has turned. The state of a breaker is shown as it was when somebody asked last: it has no clock of its own.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use whimbrel_resources::Policy;

use super::Metrics;
use super::families::{Family, Registered};
use crate::policy::BreakerState;

const LABELS: [&str; 7] = ["app_id", "flow_direction", "name", "namespace", "policy", "status", "target"];

/// What a breaker's state may be, as Dapr has it; nobody's here is unknown.
const STATES: [&str; 4] =
    [BreakerState::Closed.word(), BreakerState::HalfOpen.word(), BreakerState::Open.word(), "unknown"];

/// The metrics without their labels.
#[derive(Debug)]
pub(super) struct PolicyFamilies {
    applied: Family<IntCounterVec>,
    activated: Family<IntCounterVec>,
    state: Family<IntGaugeVec>,
}

impl PolicyFamilies {
    pub(super) fn new(registered: &Registered<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            applied: registered.counter("dapr_resiliency_count", "Operations that began under a policy.", &LABELS)?,
            activated: registered.counter(
                "dapr_resiliency_activations_total",
                "Retries made, timeouts that passed, and turns of circuit breakers, by what they turned to.",
                &LABELS,
            )?,
            state: registered.gauge(
                "dapr_resiliency_cb_state",
                "1 for the state that a circuit breaker is in, 0 for the others.",
                &LABELS,
            )?,
        })
    }
}

/// Which way an operation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To the app.
    Inbound,
    /// To the broker.
    Outbound,
}

/// What the policies around one broker do, in each direction.
#[derive(Debug, Default)]
pub(crate) struct PolicyCounters([ArcSwapOption<PolicyCounts>; 2]);

impl PolicyCounters {
    /// Those of one direction, by the name of the resource that the policies are from.
    pub(crate) fn of(&self, metrics: &Metrics, resource: &str, flow: Flow, component: &str) -> Arc<PolicyCounts> {
        let place = &self.0[flow as usize];
        if let Some(known) = place.load_full().filter(|known| known.resource == resource) {
            return known;
        }
        // Two that come at once both make them, and the counters behind both are the same.
        let made = Arc::new(PolicyCounts::new(metrics, resource, flow, component));
        if let Some(old) = place.swap(Some(Arc::clone(&made))).filter(|old| old.resource != resource) {
            old.forget();
        }
        made
    }

    /// The breaker, which both directions share, is in this state now.
    pub(crate) fn show(&self, state: BreakerState) {
        self.0.iter().filter_map(ArcSwapOption::load_full).for_each(|counts| counts.show(state));
    }

    /// The broker is gone, and so is the state of its breaker.
    pub(crate) fn forget(&self) {
        self.0.iter().filter_map(ArcSwapOption::load_full).for_each(|counts| counts.forget());
    }
}

/// What the policies of one direction do.
pub(crate) struct PolicyCounts {
    metrics: Metrics,
    resource: String,
    flow: &'static str,
    target: String,
    timeout: Counted,
    retry: Counted,
    breaker: [Counted; 3],
    states: OnceLock<Option<[IntGauge; STATES.len()]>>,
}

/// Counters of one policy, each made when it first counts.
#[derive(Default)]
struct Counted {
    applied: OnceLock<Option<IntCounter>>,
    activated: OnceLock<Option<IntCounter>>,
}

impl PolicyCounts {
    fn new(metrics: &Metrics, resource: &str, flow: Flow, component: &str) -> Self {
        Self {
            metrics: metrics.clone(),
            resource: resource.to_owned(),
            flow: if flow == Flow::Inbound { "inbound" } else { "outbound" },
            target: format!("Pubsub_{component}"),
            timeout: Counted::default(),
            retry: Counted::default(),
            breaker: Default::default(),
            states: OnceLock::new(),
        }
    }

    /// An operation begins under a policy, with its breaker in this state.
    pub(crate) fn applied(&self, policy: &Policy, breaker: Option<BreakerState>) {
        if policy.timeout.is_some() {
            self.count_applied(&self.timeout, "timeout", "");
        }
        if policy.retry.is_some() {
            self.count_applied(&self.retry, "retry", "");
        }
        if let Some(state) = breaker {
            self.count_applied(&self.breaker[state as usize], "circuitbreaker", state.word());
            self.show(state);
        }
    }

    /// Another attempt follows.
    pub(crate) fn retried(&self) {
        self.count_activated(&self.retry, "retry", "");
    }

    /// An attempt took too long.
    pub(crate) fn timed_out(&self) {
        self.count_activated(&self.timeout, "timeout", "");
    }

    /// An attempt has turned the breaker to this state.
    pub(crate) fn turned(&self, state: BreakerState) {
        self.count_activated(&self.breaker[state as usize], "circuitbreaker", state.word());
    }

    fn show(&self, state: BreakerState) {
        let made = || {
            let family = &self.families()?.state;
            Some(STATES.map(|status| family.with(&self.labels("circuitbreaker", status))))
        };
        for (gauge, status) in self.states.get_or_init(made).iter().flatten().zip(STATES) {
            gauge.set(i64::from(status == state.word()));
        }
    }

    fn forget(&self) {
        if let (Some(families), Some(Some(_))) = (self.families(), self.states.get()) {
            STATES.iter().for_each(|status| families.state.remove(&self.labels("circuitbreaker", status)));
        }
    }

    fn count_applied(&self, counted: &Counted, policy: &str, status: &str) {
        let made = || Some(self.families()?.applied.with(&self.labels(policy, status)));
        counted.applied.get_or_init(made).iter().for_each(IntCounter::inc);
    }

    fn count_activated(&self, counted: &Counted, policy: &str, status: &str) {
        let made = || Some(self.families()?.activated.with(&self.labels(policy, status)));
        counted.activated.get_or_init(made).iter().for_each(IntCounter::inc);
    }

    fn labels<'a>(&'a self, policy: &'a str, status: &'a str) -> [&'a str; LABELS.len()] {
        let inner = &*self.metrics.0;
        [&inner.app_id, self.flow, &self.resource, &inner.namespace, policy, status, &self.target]
    }

    fn families(&self) -> Option<&PolicyFamilies> {
        self.metrics.0.families.as_ref().map(|families| &families.policies)
    }
}

impl fmt::Debug for PolicyCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.resource, self.flow, self.target)
    }
}
