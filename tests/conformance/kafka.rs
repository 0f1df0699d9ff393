//! `pubsub.kafka` with one broker and with three.

use super::suite::{Broker, Case};

/// Kafka counts no deliveries, and keeps messages for as long as their topic says.
const NOT_SUPPORTED: &[&str] = &["B12", "C11"];

/// Nor can it be had full without its end.
const FAULTS_NOT_SUPPORTED: &[&str] = &["S12", "S16"];

pub(super) const CASES: &[Case] = &[
    Case {
        adapter: whimbrel_artifacts::KAFKA,
        broker: Broker::Started("kafka", "one"),
        not_supported: NOT_SUPPORTED,
        faults: Some(FAULTS_NOT_SUPPORTED),
    },
    Case {
        adapter: whimbrel_artifacts::KAFKA,
        broker: Broker::Started("kafka", "three"),
        not_supported: NOT_SUPPORTED,
        faults: Some(FAULTS_NOT_SUPPORTED),
    },
];
