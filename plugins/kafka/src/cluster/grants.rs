//! What the user may do with a topic, as the brokers tell.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::Failure;

use super::{CallError, Cluster, Lane, To};
use crate::failure::{error, may_not_create, of_topic};

/// The first version of the question in which a broker lists what the user may do (Kafka 2.3).
const GRANTS_VERSION: i16 = 8;

/// The place of READ in that list, and a list that was not made.
const READ: i32 = 1 << 3;
const UNTOLD: i32 = i32::MIN;

impl Cluster {
    /// Whether the user may read a topic; true where the broker does not say. Asked anew each time: what it may do changes
    /// behind our back, and whoever was just granted something tries again at once.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) async fn may_read(&self, topic: &str, patience: Duration) -> Result<bool, Failure> {
        let told = self.look_only(topic, patience).await?;
        let grants = told.map_or(UNTOLD, |told| told.topic_authorized_operations);
        Ok(grants == UNTOLD || grants & READ != 0)
    }

    /// Why a broker denies a topic: to whoever may not see it, and to whoever may not create it where it does not exist.
    pub(super) async fn why_denied(&self, topic: &str, patience: Duration) -> Failure {
        match self.look_only(topic, patience).await {
            Ok(Some(told)) if error(told.error_code) == Some(ResponseError::UnknownTopicOrPartition) => {
                may_not_create(topic)
            }
            Ok(_) => of_topic(ResponseError::TopicAuthorizationFailed, topic),
            Err(failure) => failure,
        }
    }

    /// Asks about a topic without having it created.
    async fn look_only(&self, topic: &str, patience: Duration) -> Result<Option<MetadataResponseTopic>, Failure> {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let named = MetadataRequestTopic::default().with_name(Some(name));
        let request = |version: i16| {
            MetadataRequest::default()
                .with_topics(Some(vec![named.clone()]))
                .with_allow_auto_topic_creation(false)
                .with_include_topic_authorized_operations(version >= GRANTS_VERSION)
        };
        let asking = self.call_with::<MetadataRequest, _>(&To::Any, Lane::Main, patience, request);
        let (answer, _) = Box::pin(asking).await.map_err(CallError::harmless)?;
        Ok(answer.topics.into_iter().next())
    }
}
