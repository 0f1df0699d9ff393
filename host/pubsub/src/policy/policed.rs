//! One operation at a broker under its policy: leave for each attempt, and what the policy does is counted. Called by the
//! spines, which make the attempts.

use std::sync::Arc;

use whimbrel_resources::Policy;

use super::breaker::{Guard, Pass, Refused};
use crate::broker::Broker;
use crate::metrics::{Flow, PolicyCounters, PolicyCounts};
use crate::topology::Topology;

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Policed<'a> {
    /// Its policy.
    pub(crate) policy: &'a Policy,
    guard: Option<Guard<'a>>,
    /// None: nothing surrounds it, so there is nothing to count.
    counts: Option<(&'a PolicyCounters, Arc<PolicyCounts>)>,
}

/// Leave to make one attempt. Dropped without an end, it counts as never made.
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    policed: &'a Policed<'a>,
    pass: Option<Pass<'a>>,
}

impl<'a> Policed<'a> {
    /// An operation begins. `broker`: the component's, if it runs.
    pub(crate) fn begin(topology: &'a Topology, component: &str, broker: Option<&'a Broker>, flow: Flow) -> Self {
        let policies = &topology.policies;
        let policy = match flow {
            Flow::Inbound => policies.inbound(component),
            Flow::Outbound => policies.outbound(component),
        };
        let guard = broker.and_then(|broker| broker.guard(policy));
        let is_empty = policy.timeout.is_none() && policy.retry.is_none() && guard.is_none();
        let counts = broker.filter(|_| !is_empty).map(|broker| {
            let counters = &*broker.policed;
            (counters, counters.of(&topology.environment.metrics, &policies.resource, flow, component))
        });
        if let Some((_, counts)) = &counts {
            counts.applied(policy, guard.map(Guard::state));
        }
        Self { policy, guard, counts }
    }

    /// Asks for leave to make an attempt.
    ///
    /// # Errors
    /// The breaker refuses it; there is no use in a retry.
    pub(crate) fn enter(&self) -> Result<Leave<'_>, Refused> {
        Ok(Leave { policed: self, pass: self.guard.map(Guard::enter).transpose()? })
    }

    /// Another attempt follows.
    pub(crate) fn retried(&self) {
        if let Some((_, counts)) = &self.counts {
            counts.retried();
        }
    }

    /// An attempt took longer than the policy allows.
    pub(crate) fn timed_out(&self) {
        if let Some((_, counts)) = &self.counts {
            counts.timed_out();
        }
    }
}

impl Leave<'_> {
    /// The attempt was made.
    pub(crate) fn end(self, succeeded: bool) {
        let turned = self.pass.and_then(|pass| pass.end(succeeded));
        if let (Some(state), Some((all, counts))) = (turned, &self.policed.counts) {
            counts.turned(state);
            all.show(state);
        }
    }
}
