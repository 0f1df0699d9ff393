//! Where a partition begins: at what the group has committed, else where the subscription says.

use std::collections::BTreeMap;
use std::rc::Rc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{BrokerId, GroupId, ListOffsetsRequest, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::{Failure, StartPosition};

use super::Member;
use super::refusal::Refusal;
use crate::cluster::{Lane, To};
use crate::consume::partition::Partition;
use crate::failure::of_topic;

/// The version from which a request speaks of groups, not of one.
const GROUPS_VERSION: i16 = 8;

/// How a timestamp says "the beginning" and "the end".
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// Only what was committed by its transaction.
const READ_COMMITTED: i8 = 1;

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) note: String,
}

/// What the group has committed, by topic and partition. A partition that is not there has no commit.
///
/// # Errors
/// Not all of them are known.
pub(super) async fn committed(
    member: &Member,
    partitions: &[Rc<Partition>],
) -> Result<BTreeMap<(String, i32), Committed>, Refusal> {
    let to = To::Coordinator(member.group.clone());
    let cluster = &member.hub.cluster;
    let ask = |version| ask_committed(&member.group, partitions, version);
    let answered = cluster.call_with::<OffsetFetchRequest, _>(&to, Lane::Main, member.answer_wait(), ask).await;
    let (answer, _) = answered.map_err(Refusal::of_call)?;
    let codes = answer.groups.iter().map(|group| group.error_code).chain([answer.error_code]);
    let of_groups = answer.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| {
        let entry = |one: &kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions| {
            (topic.name.0.to_string(), one.partition_index, one.committed_offset, one.metadata.clone(), one.error_code)
        };
        topic.partitions.iter().map(entry).collect::<Vec<_>>()
    });
    let of_one = answer.topics.iter().flat_map(|topic| {
        let entry = |one: &kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartition| {
            (topic.name.0.to_string(), one.partition_index, one.committed_offset, one.metadata.clone(), one.error_code)
        };
        topic.partitions.iter().map(entry).collect::<Vec<_>>()
    });
    let entries: Vec<_> = of_groups.chain(of_one).collect();
    let codes = codes.chain(entries.iter().map(|(.., code)| *code));
    if let Some(refusal) = codes.filter_map(|code| Refusal::of(code, &member.group).err()).next() {
        if matches!(refusal, Refusal::Elsewhere(_)) {
            cluster.forget(&to);
        }
        return Err(refusal);
    }
    let known = entries.into_iter().filter(|(_, _, offset, ..)| *offset >= 0);
    Ok(known
        .map(|(topic, id, offset, note, _)| {
            let note = note.map(|note| note.to_string()).unwrap_or_default();
            ((topic, id), Committed { offset, note })
        })
        .collect())
}

fn ask_committed(group: &str, partitions: &[Rc<Partition>], version: i16) -> OffsetFetchRequest {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    partitions.iter().for_each(|partition| topics.entry(&partition.topic).or_default().push(partition.id));
    let name = |topic: &str| TopicName(StrBytes::from_string(topic.to_owned()));
    let group = GroupId(StrBytes::from_string(group.to_owned()));
    // What a transaction is about to commit is waited for.
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version < GROUPS_VERSION {
        let topics = topics
            .into_iter()
            .map(|(topic, ids)| OffsetFetchRequestTopic::default().with_name(name(topic)).with_partition_indexes(ids));
        return request.with_group_id(group).with_topics(Some(topics.collect()));
    }
    let topics = topics
        .into_iter()
        .map(|(topic, ids)| OffsetFetchRequestTopics::default().with_name(name(topic)).with_partition_indexes(ids));
    let group = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(topics.collect()));
    request.with_groups(vec![group])
}

/// The offset at which a partition begins or ends.
///
/// # Errors
/// Its leader does not say.
pub(crate) async fn edge(member: &Member, partition: &Partition, edge: StartPosition) -> Result<i64, Refusal> {
    let timestamp = if edge == StartPosition::Earliest { EARLIEST } else { LATEST };
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition.id)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = TopicName(StrBytes::from_string(partition.topic.clone()));
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(READ_COMMITTED)
        .with_topics(vec![ListOffsetsTopic::default().with_name(topic).with_partitions(vec![asked])]);
    let to = To::Leader { topic: partition.topic.clone(), partition: partition.id };
    let cluster = &member.hub.cluster;
    let answer = cluster.call(&to, Lane::Main, request, member.answer_wait()).await.map_err(Refusal::of_call)?;
    let Some(answer) = answer.topics.iter().flat_map(|topic| &topic.partitions).next() else {
        return Err(Refusal::Later("the answer to ListOffsets lacks the partition".to_owned()));
    };
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok(answer.offset.max(0)),
        Some(error) => {
            cluster.forget(&to);
            let (topic, id) = (&partition.topic, partition.id);
            match of_topic(error, topic) {
                failure @ Failure::Unauthorized(_) => Err(Refusal::Fatal(failure)),
                _ => Err(Refusal::Later(format!("topic {topic:?}, partition {id}: {error}"))),
            }
        }
    }
}
