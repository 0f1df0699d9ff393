//! Each answer, in each version that is chosen, as the codec crate writes it; and with claims that it does not keep.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::*;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};

use super::*;

/// What an answer is made of stands here twice, so that every list has a second entry.
fn twice<T: Clone>(one: T) -> Vec<T> {
    vec![one.clone(), one]
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// As a broker would write it.
fn written<T: Encodable>(answer: &T, version: i16, has_tags: bool) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(7);
    header.encode(&mut bytes, i16::from(has_tags)).unwrap();
    answer.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

/// In every version the answer is sound, and a length in it that is far too large is found wherever it stands: after
/// each change of a byte, what is said to be sound is decoded, which would end the test if that made room for it.
fn check<R: Request>(answer: impl Fn(i16) -> R::Response)
where
    R::Response: Encodable + Message,
{
    assert!(newest(R::KEY) >= R::Response::VERSIONS.min);
    for version in R::Response::VERSIONS.min..=newest(R::KEY).min(R::Response::VERSIONS.max) {
        let has_tags = R::Response::header_version(version) > 0;
        let bytes = written(&answer(version), version, has_tags);
        let sound = |bytes: &[u8]| is_sound(bytes, R::KEY, version, has_tags);
        assert!(sound(&bytes), "{} version {version}", R::KEY);
        for cut in 0..bytes.len() {
            assert!(!sound(&bytes[..cut]), "{} version {version}, cut at {cut}", R::KEY);
        }
        for at in 4..bytes.len() {
            for claim in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x00, 0x7f, 0xff, 0xff]] {
                let mut hostile = bytes.clone();
                let end = bytes.len().min(at + claim.len());
                hostile.splice(at..end, claim.iter().copied());
                if sound(&hostile) {
                    let mut rest = Bytes::from(hostile);
                    ResponseHeader::decode(&mut rest, i16::from(has_tags)).unwrap();
                    R::Response::decode(&mut rest, version).ok();
                }
            }
        }
    }
}

#[test]
fn metadata() {
    check::<MetadataRequest>(|version| {
        let partition = MetadataResponsePartition::default()
            .with_replica_nodes(twice(1.into()))
            .with_isr_nodes(twice(2.into()))
            .with_offline_replicas(if version >= 5 { twice(3.into()) } else { Vec::new() });
        let topic =
            MetadataResponseTopic::default().with_name(Some(text("orders").into())).with_partitions(twice(partition));
        let broker = MetadataResponseBroker::default().with_host(text("localhost")).with_port(9092);
        let cluster = (version >= 2).then(|| text("cluster"));
        MetadataResponse::default().with_brokers(twice(broker)).with_topics(twice(topic)).with_cluster_id(cluster)
    });
}

#[test]
fn produce_and_fetch() {
    check::<ProduceRequest>(|version| {
        let error = BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text("broken")));
        let mut partition = PartitionProduceResponse::default().with_index(3);
        if version >= 8 {
            partition = partition.with_record_errors(twice(error)).with_error_message(Some(text("broken")));
        }
        let topic =
            TopicProduceResponse::default().with_name(text("orders").into()).with_partition_responses(twice(partition));
        ProduceResponse::default().with_responses(twice(topic))
    });
    check::<FetchRequest>(|_| {
        let partition = PartitionData::default()
            .with_aborted_transactions(Some(twice(AbortedTransaction::default())))
            .with_records(Some(Bytes::from_static(b"records")));
        let topic =
            FetchableTopicResponse::default().with_topic(text("orders").into()).with_partitions(twice(partition));
        FetchResponse::default().with_responses(twice(topic))
    });
}

#[test]
fn offsets() {
    check::<ListOffsetsRequest>(|_| {
        let topic = ListOffsetsTopicResponse::default()
            .with_name(text("orders").into())
            .with_partitions(twice(ListOffsetsPartitionResponse::default()));
        ListOffsetsResponse::default().with_topics(twice(topic))
    });
    check::<OffsetCommitRequest>(|_| {
        let topic = OffsetCommitResponseTopic::default()
            .with_name(text("orders").into())
            .with_partitions(twice(OffsetCommitResponsePartition::default()));
        OffsetCommitResponse::default().with_topics(twice(topic))
    });
    check::<OffsetFetchRequest>(|version| {
        if version <= 7 {
            let partition = OffsetFetchResponsePartition::default().with_metadata(Some(text("note")));
            let topic =
                OffsetFetchResponseTopic::default().with_name(text("orders").into()).with_partitions(twice(partition));
            return OffsetFetchResponse::default().with_topics(twice(topic));
        }
        let partition = OffsetFetchResponsePartitions::default().with_metadata(Some(text("note")));
        let topic =
            OffsetFetchResponseTopics::default().with_name(text("orders").into()).with_partitions(twice(partition));
        let group = OffsetFetchResponseGroup::default().with_group_id(text("app").into()).with_topics(twice(topic));
        OffsetFetchResponse::default().with_groups(twice(group))
    });
}

#[test]
fn groups() {
    check::<FindCoordinatorRequest>(|_| FindCoordinatorResponse::default().with_host(text("localhost")));
    check::<JoinGroupRequest>(|_| {
        let member = JoinGroupResponseMember::default()
            .with_member_id(text("member"))
            .with_metadata(Bytes::from_static(b"subscription"));
        JoinGroupResponse::default().with_protocol_name(Some(text("range"))).with_members(twice(member))
    });
    check::<HeartbeatRequest>(|_| HeartbeatResponse::default());
    check::<LeaveGroupRequest>(|version| {
        let member = MemberResponse::default().with_member_id(text("member"));
        LeaveGroupResponse::default().with_members(if version >= 3 { twice(member) } else { Vec::new() })
    });
    check::<SyncGroupRequest>(|_| SyncGroupResponse::default().with_assignment(Bytes::from_static(b"assignment")));
}

#[test]
fn identity() {
    check::<InitProducerIdRequest>(|_| InitProducerIdResponse::default());
    check::<SaslHandshakeRequest>(|_| SaslHandshakeResponse::default().with_mechanisms(twice(text("PLAIN"))));
    check::<SaslAuthenticateRequest>(|_| SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from_static(b"x")));
}

/// Two thousand million brokers, in the words of old versions and of new ones; and entries that are there, but too many.
#[test]
fn more_than_there_is_room_for() {
    let check = |version: i16, lists: &[u8], entries: usize, expected: bool| {
        let has_tags = MetadataResponse::header_version(version) > 0;
        let mut bytes = vec![0; CORRELATION_BYTES + usize::from(has_tags) + if version >= 3 { 4 } else { 0 }];
        bytes.extend(lists);
        bytes.resize(bytes.len() + entries, 0);
        assert_eq!(is_sound(&bytes, ApiKey::Metadata as i16, version, has_tags), expected, "{version} {lists:?}");
    };
    check(0, &[0x7f, 0xff, 0xff, 0xff], 100, false);
    check(0, &[0, 0, 0, 0], 4, true);
    check(9, &[0xff, 0xff, 0xff, 0xff, 0x0f], 100, false);
    // No broker, no name, 2^19 topics of which each has its bytes.
    let topics = [&[1, 0, 0, 0, 0, 0][..], &[0x81, 0x80, 0x20]].concat();
    check(9, &topics, 16 << 19, false);
    check(99, &[], 100, false);
}

/// What the codec takes at face value is not handed to it.
#[test]
fn hostile_answers_are_refused_before_they_are_decoded() {
    use crate::cluster::frame;
    let hostile = Bytes::from_static(b"\0\0\0\x07\0\0\0\0\0\x7f\xff\xff\xff");
    let refused = frame::decode::<FetchRequest>(hostile, 11);
    assert!(refused.unwrap_err().contains("entries"));
}
