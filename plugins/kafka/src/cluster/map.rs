//! What is known about the cluster: where brokers are, who leads which partition, who coordinates which group.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use super::PartitionInfo;
use super::dial::Address;
use crate::failure::error;

/// Topics that are remembered, at most. Beyond that all are forgotten and asked for again.
const TOPICS_MAX: usize = 20_000;

/// What is known about one topic.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) partitions: Vec<PartitionInfo>,
    /// When that was heard.
    pub(super) at: Instant,
    /// Somebody found it wrong.
    pub(super) is_wrong: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) brokers: BTreeMap<i32, Address>,
    topics: HashMap<String, Topic>,
    pub(super) coordinators: HashMap<String, i32>,
}

impl Map {
    /// A topic, unless what is known is older than `max_age` or wrong.
    pub(super) fn topic(&self, name: &str, now: Instant, max_age: Duration) -> Option<&Topic> {
        self.topics.get(name).filter(|topic| !topic.is_wrong && now.saturating_duration_since(topic.at) < max_age)
    }

    /// When a topic was last heard of.
    pub(super) fn heard(&self, name: &str) -> Option<Instant> {
        self.topics.get(name).map(|topic| topic.at)
    }

    /// What is known is wrong.
    pub(super) fn doubt(&mut self, name: &str) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.is_wrong = true;
        }
    }

    /// Takes in where the brokers are.
    pub(super) fn learn_brokers(&mut self, answer: &MetadataResponse) {
        let brokers = answer.brokers.iter().filter_map(|broker| {
            let port = u16::try_from(broker.port).ok().filter(|port| *port != 0)?;
            Some((broker.node_id.0, (broker.host.to_string(), port)))
        });
        let brokers: BTreeMap<i32, Address> = brokers.collect();
        // A broker that is still starting knows nobody.
        if !brokers.is_empty() {
            self.brokers = brokers;
        }
    }

    /// Takes in what a topic is like.
    ///
    /// # Errors
    /// The broker's, about the topic.
    pub(super) fn learn_topic(
        &mut self,
        name: &str,
        answer: &MetadataResponseTopic,
        now: Instant,
    ) -> Result<Vec<PartitionInfo>, ResponseError> {
        if let Some(error) = error(answer.error_code) {
            self.doubt(name);
            return Err(error);
        }
        let partition = |partition: &kafka_protocol::messages::metadata_response::MetadataResponsePartition| {
            let leader = Some(partition.leader_id.0).filter(|leader| *leader >= 0);
            PartitionInfo { id: partition.partition_index, leader }
        };
        let mut partitions: Vec<_> = answer.partitions.iter().map(partition).collect();
        partitions.sort_by_key(|partition| partition.id);
        if partitions.is_empty() {
            return Err(ResponseError::LeaderNotAvailable);
        }
        if self.topics.len() >= TOPICS_MAX {
            self.topics.clear();
        }
        let topic = Topic { partitions: partitions.clone(), at: now, is_wrong: false };
        self.topics.insert(name.to_owned(), topic);
        Ok(partitions)
    }
}
