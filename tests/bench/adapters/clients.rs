//! The usual Rust client of each broker, used as its documentation has it.

#[cfg(feature = "rdkafka")]
mod kafka;
mod nats;
mod rabbitmq;
mod redis;

use bytes::Bytes;

use super::consume::{CREDIT, GROUP};
use super::{Kind, Place};

/// A connected client that publishes.
pub enum Client {
    Redis(redis::Publisher),
    Nats(nats::Publisher),
    Rabbitmq(rabbitmq::Publisher),
    #[cfg(feature = "rdkafka")]
    Kafka(kafka::Publisher),
}

impl Client {
    pub async fn connect(kind: Kind, address: &str) -> Self {
        match kind {
            Kind::Redis => Self::Redis(redis::Publisher::connect(address).await),
            Kind::Jetstream => Self::Nats(nats::Publisher::connect(address).await),
            Kind::Rabbitmq => Self::Rabbitmq(rabbitmq::Publisher::connect(address).await),
            #[cfg(feature = "rdkafka")]
            Kind::Kafka => Self::Kafka(kafka::Publisher::connect(address)),
            #[cfg(not(feature = "rdkafka"))]
            Kind::Kafka => panic!("built without rdkafka, a C library: tests/bench/run builds with it"),
        }
    }

    /// Publishes copies of a message, all on their way at once, and returns when all are confirmed.
    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        match self {
            Self::Redis(publisher) => publisher.publish(topic, data, copies).await,
            Self::Nats(publisher) => publisher.publish(topic, data, copies).await,
            Self::Rabbitmq(publisher) => publisher.publish(topic, data, copies).await,
            #[cfg(feature = "rdkafka")]
            Self::Kafka(publisher) => publisher.publish(topic, data, copies).await,
        }
    }
}

/// Takes and acknowledges messages for as long as `seen` wants more.
pub async fn consume(place: &Place<'_>, ready: impl FnOnce(), seen: impl FnMut(&[u8]) -> bool) {
    let Place { address, topic, .. } = *place;
    match place.kind {
        Kind::Redis => redis::consume(address, topic, GROUP, CREDIT, ready, seen).await,
        Kind::Jetstream => nats::consume(address, topic, GROUP, CREDIT, ready, seen).await,
        Kind::Rabbitmq => rabbitmq::consume(address, topic, GROUP, CREDIT, ready, seen).await,
        #[cfg(feature = "rdkafka")]
        Kind::Kafka => kafka::consume(address, topic, GROUP, ready, seen).await,
        #[cfg(not(feature = "rdkafka"))]
        Kind::Kafka => panic!("built without rdkafka, a C library: tests/bench/run builds with it"),
    }
}
