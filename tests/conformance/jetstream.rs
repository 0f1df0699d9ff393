//! `pubsub.jetstream` against a NATS server that syncs every write. The broker's tool makes the streams.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[Case {
    adapter: whimbrel_artifacts::JETSTREAM,
    broker: Broker::Started("nats", "stream"),
    // A stream keeps no order among the members of a group, and its messages live as long as it.
    not_supported: &["D7", "C11"],
    faults: Some(&["S10", "S12"]),
}];
