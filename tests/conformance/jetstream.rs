//! `pubsub.jetstream` against a NATS that syncs every write.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[Case {
    adapter: whimbrel_artifacts::JETSTREAM,
    broker: Broker::Started("nats", "node"),
    not_supported: &[],
}];
