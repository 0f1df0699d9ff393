//! `pubsub.rabbitmq` with quorum queues and with classic ones.

use super::suite::{Broker, Case};

pub(super) const CASES: &[Case] = &[
    Case { adapter: whimbrel_artifacts::RABBITMQ, broker: Broker::Started("rabbitmq", "quorum"), not_supported: &[] },
    Case { adapter: whimbrel_artifacts::RABBITMQ, broker: Broker::Started("rabbitmq", "classic"), not_supported: &[] },
];
