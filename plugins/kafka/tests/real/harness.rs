//! An adapter, a consumer, and how to wait. Brokers are in `server`, what stands before one in `proxy`.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use whimbrel_kafka::{Kafka, KafkaSubscription};
use whimbrel_sdk::{Config, Delivery, Failure, Message, StartPosition, SubscribeOptions, testing};

pub(crate) use super::server::*;
pub(crate) use whimbrel_sdk::testing::{A_WHILE, SOON, number, run, run_within, until, until_within};

thread_local! {
    /// Every test has a thread, and so names of its own on the broker that all share.
    static NUMBER: u32 = {
        static TESTS: AtomicU32 = AtomicU32::new(1);
        TESTS.fetch_add(1, Ordering::Relaxed)
    };
}

/// What a topic or a group of this test is called at the broker.
pub(crate) fn real(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}.{}", NUMBER.with(|number| *number)) }
}

/// An open adapter, whose topics and groups are this test's own.
#[derive(Debug)]
pub(crate) struct Bus(testing::Bus<Kafka>);

/// The host's end of a subscription.
pub(crate) type Inbox = testing::Inbox<KafkaSubscription>;

/// Settings of every test: without credentials, from the beginning, and quick to miss a member.
const SETTINGS: [(&str, &str); 4] =
    [("authType", "none"), ("initialOffset", "oldest"), ("sessionTimeout", "2s"), ("heartbeatInterval", "300ms")];

/// How long closing may take: the group's last commit is waited for.
const CLOSE_MAX: Duration = Duration::from_secs(6);

/// A configuration as the host would hand it in.
pub(crate) fn config(host: &str, instance: &str, settings: &[(&str, &str)]) -> Config {
    let all: Vec<_> = [("brokers", host)].into_iter().chain(SETTINGS).chain(settings.iter().copied()).collect();
    testing::config(instance, &all)
}

impl Deref for Bus {
    type Target = testing::Bus<Kafka>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Bus {
    pub(crate) async fn open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Self {
        Self(testing::Bus::open(config(host, instance, settings)).await)
    }

    pub(crate) async fn try_open(host: &str, instance: &str, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        Ok(Self(testing::Bus::try_open(config(host, instance, settings)).await?))
    }

    pub(crate) async fn publish(&self, topic: &str, data: &[u8]) -> Result<(), Failure> {
        self.send(message(topic, data)).await
    }

    /// Publishes the numbers.
    pub(crate) async fn publish_numbers(&self, topic: &str, numbers: std::ops::Range<u32>) {
        self.0.publish_numbers(&real(topic), numbers).await;
    }

    /// Publishes the numbers, each under one of so many keys.
    pub(crate) async fn publish_keyed(&self, topic: &str, numbers: std::ops::Range<u32>, keys: u32) {
        let keyed = |number: u32| {
            let key = Some(format!("key-{}", number % keys));
            Message { key, ..message(topic, number.to_string().as_bytes()) }
        };
        self.send_all(numbers.map(keyed).collect()).await;
    }

    pub(crate) async fn subscribe(&self, topic: &str, group: &str, max_unsettled: u32) -> Inbox {
        self.subscribe_from(topic, group, max_unsettled, None).await
    }

    pub(crate) async fn subscribe_from(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Inbox {
        self.try_subscribe(topic, group, max_unsettled, start).await.unwrap()
    }

    pub(crate) async fn try_subscribe(
        &self,
        topic: &str,
        group: &str,
        max_unsettled: u32,
        start: Option<StartPosition>,
    ) -> Result<Inbox, Failure> {
        let options = SubscribeOptions { start, ..testing::options(max_unsettled) };
        self.0.try_subscribe(&real(topic), &real(group), options).await
    }

    pub(crate) async fn close(self) {
        self.0.close_within(CLOSE_MAX).await;
    }
}

pub(crate) fn message(topic: &str, data: &[u8]) -> Message {
    testing::message(&real(topic), data)
}

/// One entry of a delivery's metadata.
pub(crate) fn metadata<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    let pairs = &delivery.message.metadata;
    pairs
        .iter()
        .rev()
        .find(|(known, _)| known == name)
        .map_or_else(|| panic!("no {name}: {pairs:?}"), |(_, value)| value)
}

/// Where a delivery stands in its partition.
pub(crate) fn offset(delivery: &Delivery) -> i64 {
    metadata(delivery, "__offset").parse().unwrap()
}
