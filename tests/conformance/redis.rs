//! `pubsub.redis` against a Redis that syncs every write.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[Case {
    adapter: whimbrel_artifacts::REDIS,
    broker: Broker::Started("redis", "node"),
    // A stream keeps no order among the members of a group, and its entries live as long as it.
    not_supported: &["D7", "C11"],
    faults: Some(&["S10", "S12"]),
}];
