//! rdkafka, which is librdkafka. Its threads are this process's, so their CPU time is counted with it.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

/// Until the broker has confirmed, a message may wait so long in the client.
const SEND_WAIT: Duration = Duration::from_secs(30);

pub struct Publisher(FutureProducer);

impl Publisher {
    pub fn connect(address: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address).set("acks", "all").set("enable.idempotence", "true");
        // No lingering: ours has none either.
        config.set("linger.ms", "0");
        Self(config.create().unwrap())
    }

    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        let one = async || {
            let record = FutureRecord::<(), _>::to(topic).payload(data.as_ref());
            self.0.send(record, SEND_WAIT).await.unwrap();
        };
        join_all((0..copies).map(|_| one())).await;
    }
}

pub async fn consume(
    address: &str,
    topic: &str,
    group: &str,
    ready: impl FnOnce(),
    mut seen: impl FnMut(&[u8]) -> bool,
) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", group).set("auto.offset.reset", "earliest");
    config.set("fetch.wait.max.ms", "100");
    let consumer: StreamConsumer = config.create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    while consumer.assignment().unwrap().count() == 0 {
        tokio::time::timeout(Duration::from_millis(50), consumer.recv()).await.ok();
    }
    ready();
    loop {
        let message = consumer.recv().await.unwrap();
        consumer.store_offset_from_message(&message).ok();
        if !seen(message.payload().unwrap_or_default()) {
            break;
        }
    }
    consumer.commit_consumer_state(CommitMode::Sync).ok();
}
