//! `pubsub.kafka` with one broker and with three.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[
    Case { adapter: whimbrel_artifacts::KAFKA, broker: Broker::Started("kafka", "one"), not_supported: &[] },
    Case { adapter: whimbrel_artifacts::KAFKA, broker: Broker::Started("kafka", "three"), not_supported: &[] },
];
