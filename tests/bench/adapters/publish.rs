//! Publishers that wait for their confirm before their next message, one message or a hundred in each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use whimbrel::pubsub::{Broker, Message};

use super::clients::Client;

/// Who publishes.
pub enum Publisher {
    /// A component or its code natively, behind the host's queue.
    Broker(Broker),
    /// A client crate.
    Client(Box<Client>),
}

impl Publisher {
    /// Publishes copies of one message to a topic, and returns when all are confirmed.
    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        match self {
            Self::Broker(broker) => {
                let message = || Message { topic: topic.into(), key: None, data: data.clone(), metadata: Vec::new() };
                let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
                let results = broker.publish((0..copies).map(|_| message()).collect(), deadline).await;
                assert!(results.iter().all(Result::is_ok), "{results:?}");
            }
            Self::Client(client) => client.publish(topic, data, copies).await,
        }
    }
}

/// So many publishers for a while. Sorted latencies of their calls.
pub async fn run(
    publisher: &Publisher,
    topic: &str,
    publishers: usize,
    copies: usize,
    duration: Duration,
) -> Vec<Duration> {
    let data = Bytes::from(vec![b'x'; super::PAYLOAD_BYTES]);
    let started = Instant::now();
    let one = async || {
        let mut latencies = Vec::new();
        while started.elapsed() < duration {
            let sent = Instant::now();
            publisher.publish(topic, &data, copies).await;
            latencies.push(sent.elapsed());
        }
        latencies
    };
    let all = futures::future::join_all((0..publishers).map(|_| one())).await;
    let mut latencies: Vec<Duration> = all.into_iter().flatten().collect();
    latencies.sort_unstable();
    latencies
}
