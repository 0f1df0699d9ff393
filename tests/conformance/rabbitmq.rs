//! `pubsub.rabbitmq` with both types of queues.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[
    Case {
        adapter: whimbrel_artifacts::RABBITMQ,
        broker: Broker::Started("rabbitmq", "quorum"),
        // The members of a group share a queue without regard to keys, and a queue has no past.
        not_supported: &["D7", "C9"],
        faults: Some(&["S10"]),
    },
    Case {
        adapter: whimbrel_artifacts::RABBITMQ,
        broker: Broker::Started("rabbitmq", "classic"),
        // Besides: a classic queue does not count deliveries.
        not_supported: &["D7", "B12", "C9"],
        faults: Some(&["S10"]),
    },
];
