//! The `pubsub.kafka` adapter: topics are Kafka topics, groups are consumer groups, a key's order is its partition's.
//!
//! ```text
//! publish    publish (an appender for each partition) ──► cluster ──► Kafka
//! deliver    group (who reads what) and consume (fetch, hand over, settle, commit) ──► host
//! both       cluster (connections, leaders), records (what is stored), failure, health, config
//! ```
//!
//! Absent on purpose: TLS (the host's part), dead-lettering (the host's part), transactions, schemas, tokens as
//! credentials, and creating topics beyond what the broker does by itself.

mod cluster;
mod config;
mod consume;
mod failure;
mod group;
mod health;
mod publish;
mod records;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use kafka_protocol::messages::MetadataRequest;
use whimbrel_sdk::{
    Adapter, Config, DeliverySink, Failure, Feature, FeatureSet, Message, StatusSink, SubscribeOptions, log, task,
};

use crate::cluster::{CallError, Cluster, Lane, To};
use crate::config::Settings;
use crate::consume::Consumers;
use crate::health::Health;
use crate::publish::Producer;

pub use crate::consume::KafkaSubscription;

/// Messages of one publish call, at most: enough to make what a call costs small, and few enough to be answered soon.
pub const BATCH_MAX: u32 = 512;

/// How long a sign of life may take.
const PING_WAIT: Duration = Duration::from_secs(5);

whimbrel_sdk::export_adapter!(crate::Kafka);

/// One component's connection to Kafka.
pub struct Kafka {
    cluster: Rc<Cluster>,
    producer: Rc<Producer>,
    consumers: Rc<Consumers>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Kafka {
    /// Settlements that came too late to mean anything, since the connection was opened.
    #[must_use]
    pub fn stale_settlements(&self) -> u64 {
        self.consumers.stale.get()
    }
}

impl Adapter for Kafka {
    type Subscription = KafkaSubscription;

    async fn open(config: Config, status: StatusSink) -> Result<Self, Failure> {
        let settings = Rc::new(Settings::of(&config)?);
        let cluster = Cluster::new(settings, Rc::new(Health::new(status)));
        cluster.first_contact().await?;
        task::spawn(Rc::clone(&cluster).keep());
        let (producer, consumers) = (Producer::new(Rc::clone(&cluster)), Consumers::new(Rc::clone(&cluster)));
        Ok(Self { cluster, producer, consumers })
    }

    fn features(&self) -> FeatureSet {
        FeatureSet {
            abilities: Feature::DURABLE | Feature::ORDERING | Feature::GROUPS | Feature::DELAY,
            max_batch: BATCH_MAX,
            max_message_bytes: u64::try_from(self.producer.message_max_bytes()).unwrap_or(u64::MAX),
        }
    }

    async fn publish(&self, messages: Vec<Message>, deadline: Duration) -> Vec<Result<(), Failure>> {
        self.producer.publish(messages, deadline).await
    }

    async fn subscribe(
        &self,
        topic: String,
        group: String,
        options: SubscribeOptions,
        deliveries: DeliverySink,
    ) -> Result<KafkaSubscription, Failure> {
        self.consumers.subscribe(topic, group, options, deliveries).await
    }

    async fn ping(&self) -> Result<(), Failure> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let answer = self.cluster.call(&To::Any, Lane::Main, request, PING_WAIT).await;
        answer.map(|_| ()).map_err(CallError::harmless)
    }

    async fn close(self: Rc<Self>) {
        self.consumers.close().await;
        self.cluster.close();
        let stale = self.stale_settlements();
        if stale > 0 {
            log::info(&format!("{stale} settlements came after their partition had gone to another member"));
        }
    }
}
