//! async-nats.

use async_nats::jetstream::{self, Context, consumer::pull};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;

pub struct Publisher(Context);

async fn context(address: &str) -> Context {
    jetstream::new(async_nats::connect(format!("nats://{address}")).await.unwrap())
}

impl Publisher {
    pub async fn connect(address: &str) -> Self {
        Self(context(address).await)
    }

    pub async fn publish(&self, topic: &str, data: &Bytes, copies: usize) {
        let one = async || {
            let confirm = self.0.publish(topic.to_owned(), data.clone()).await.unwrap();
            confirm.await.unwrap();
        };
        join_all((0..copies).map(|_| one())).await;
    }
}

pub async fn consume(
    address: &str,
    topic: &str,
    group: &str,
    credit: u32,
    ready: impl FnOnce(),
    mut seen: impl FnMut(&[u8]) -> bool,
) {
    let context = context(address).await;
    let stream = context.stream_by_subject(topic).await.unwrap();
    let config = pull::Config {
        durable_name: Some(format!("{group}-{topic}")),
        filter_subject: topic.to_owned(),
        max_ack_pending: i64::from(credit),
        ..pull::Config::default()
    };
    let stream = context.get_stream(stream).await.unwrap();
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(credit as usize).messages().await.unwrap();
    ready();
    loop {
        let message = messages.next().await.unwrap().unwrap();
        message.ack().await.unwrap();
        if !seen(&message.payload) {
            break;
        }
    }
}
