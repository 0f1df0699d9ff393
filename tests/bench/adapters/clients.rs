//! The usual Rust client of each broker, used as its documentation has it.

mod redis;

use bytes::Bytes;

use super::Kind;

/// A connected client that publishes.
pub enum Client {
    Redis(redis::Publisher),
}

impl Client {
    pub async fn connect(kind: Kind, address: &str) -> Self {
        match kind {
            Kind::Redis => Self::Redis(redis::Publisher::connect(address).await),
            other => panic!("{other:?} is not here yet"),
        }
    }

    /// Publishes copies of a message, all on their way at once, and returns when all are confirmed.
    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        match self {
            Self::Redis(publisher) => publisher.publish(topic, data, copies).await,
        }
    }
}

/// Takes and acknowledges messages for as long as `seen` wants more.
pub async fn consume(
    kind: Kind,
    address: &str,
    topic: &str,
    group: &str,
    credit: u32,
    ready: impl FnOnce(),
    seen: impl FnMut(&[u8]) -> bool,
) {
    match kind {
        Kind::Redis => redis::consume(address, topic, group, credit, ready, seen).await,
        other => panic!("{other:?} is not here yet"),
    }
}
