//! The two requests of a rebalance. Whoever the coordinator makes the leader assigns the partitions for all.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse, SyncGroupRequest};
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;
use whimbrel_sdk::{Failure, log};

use super::Member;
use super::assignors::{Claim, Strategy, Topics};
use super::claims;
use super::ownership;
use super::refusal::Refusal;

/// How long the others of the group may take to join.
const REBALANCE_WAIT: Duration = Duration::from_secs(60);

/// So many times what an answer may take: that many may a join, which waits for all the others. Then it is asked for
/// anew, which does no harm; a connection that has gone silent would not show otherwise.
const JOIN_ANSWERS: u32 = 2;

/// The part of the session's time that a look at the topics may take: there are no heartbeats meanwhile.
const LOOK_PART: u32 = 4;

/// What kind of group this is.
const PROTOCOL_TYPE: &str = "consumer";

/// What a member was given.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) strategy: Strategy,
    pub(super) assigned: Topics,
}

/// Joins the group, and returns with its part.
pub(super) async fn join(member: &Member) -> Result<Part, Refusal> {
    member.is_joining.set(true);
    let joined = join_and_sync(member).await;
    member.is_joining.set(false);
    member.commits.wake();
    joined
}

async fn join_and_sync(member: &Member) -> Result<Part, Refusal> {
    let topics: BTreeSet<String> = member.subs.borrow().keys().cloned().collect();
    let answer = ask(member, &topics).await?;
    let protocol = answer.protocol_name.as_deref().unwrap_or_default();
    let Some(strategy) = Strategy::of_name(protocol) else {
        return Err(Refusal::Later(format!("the group assigns by {protocol:?}, which was not offered")));
    };
    member.id.replace(answer.member_id.to_string());
    member.generation.set(answer.generation_id);
    member.joins.set(member.joins.get() + 1);
    member.strategy.set(Some(strategy));
    if !strategy.is_cooperative() {
        // Others may have it already.
        ownership::drop_all(member);
    }
    let is_leader = answer.leader == answer.member_id;
    let assignments = if is_leader { assign(member, strategy, &answer).await? } else { Vec::new() };
    if !is_leader {
        look(member, &topics).await?;
    }
    let request = SyncGroupRequest::default()
        .with_group_id(member.group_id())
        .with_generation_id(answer.generation_id)
        .with_member_id(answer.member_id.clone())
        .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
        .with_protocol_name(Some(StrBytes::from_static_str(strategy.name())))
        .with_assignments(assignments);
    let patience = member.answer_wait() * JOIN_ANSWERS;
    let to = member.coordinator();
    let answer = member.hub.cluster.call(&to, member.lane, request, patience).await.map_err(Refusal::of_call)?;
    member.read_code(answer.error_code)?;
    match claims::assigned(&answer.assignment) {
        Some(assigned) => {
            member.joined.replace(topics);
            Ok(Part { strategy, assigned })
        }
        None => Err(Refusal::Later("the group's leader handed out what is not an assignment".to_owned())),
    }
}

async fn ask(member: &Member, topics: &BTreeSet<String>) -> Result<JoinGroupResponse, Refusal> {
    // Twice more at most: without the id that the coordinator does not know any more, and with the one that it gives.
    for _ in 0..3 {
        let request = request(member, topics);
        let patience = member.answer_wait() * JOIN_ANSWERS;
        let to = member.coordinator();
        let answer = member.hub.cluster.call(&to, member.lane, request, patience).await.map_err(Refusal::of_call)?;
        if ResponseError::try_from_code(answer.error_code) == Some(ResponseError::MemberIdRequired) {
            member.id.replace(answer.member_id.to_string());
            continue;
        }
        match member.read_code(answer.error_code) {
            Ok(()) => return Ok(answer),
            Err(Refusal::Lost(_)) => {
                ownership::lose(member);
                member.id.borrow_mut().clear();
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Err(Refusal::Later("the coordinator asks for another member id, again and again".to_owned()))
}

fn request(member: &Member, topics: &BTreeSet<String>) -> JoinGroupRequest {
    let settings = member.hub.settings();
    let preferred = Strategy::from(settings.strategy);
    let others = Strategy::ALL.into_iter().filter(|strategy| *strategy != preferred);
    let owned = ownership::owned(member);
    let offer = |strategy: Strategy| {
        let metadata = claims::subscription(strategy, topics, &owned, member.generation.get());
        JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(strategy.name()))
            .with_metadata(metadata)
    };
    let millis = |wait: Duration| i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    JoinGroupRequest::default()
        .with_group_id(member.group_id())
        .with_session_timeout_ms(millis(settings.session_timeout))
        .with_rebalance_timeout_ms(millis(REBALANCE_WAIT))
        .with_member_id(member.member_id())
        .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
        .with_protocols(std::iter::once(preferred).chain(others).map(offer).collect())
}

/// The leader's part: who reads what.
async fn assign(
    member: &Member,
    strategy: Strategy,
    answer: &JoinGroupResponse,
) -> Result<Vec<SyncGroupRequestAssignment>, Refusal> {
    let claim_of = |joined: &kafka_protocol::messages::join_group_response::JoinGroupResponseMember| {
        claims::claim(strategy, &joined.member_id, &joined.metadata).unwrap_or_else(|| {
            log::warn(&format!("a member of group {:?} joined with what is not a subscription", member.group));
            Claim { member: joined.member_id.to_string(), generation: -1, ..Claim::default() }
        })
    };
    let claims: Vec<Claim> = answer.members.iter().map(claim_of).collect();
    let topics: BTreeSet<String> = claims.iter().flat_map(|claim| claim.topics.iter().cloned()).collect();
    let partitions = look(member, &topics).await?;
    let plan = strategy.assign(&claims, &partitions);
    let assignment = |(id, topics): (&String, &Topics)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(StrBytes::from_string(id.clone()))
            .with_assignment(claims::assignment(topics))
    };
    Ok(plan.iter().map(assignment).collect())
}

/// The partitions of some topics; a topic that is not there has none. What was seen is what `watch` compares with.
async fn look(member: &Member, topics: &BTreeSet<String>) -> Result<Topics, Refusal> {
    let cluster = &member.hub.cluster;
    let patience = member.hub.settings().session_timeout / LOOK_PART;
    let looking = topics.iter().map(|topic| async move { (topic, cluster.topic(topic, patience).await) });
    let mut partitions = Topics::new();
    let mut shape = BTreeMap::new();
    for (topic, found) in join_all(looking).await {
        let ids = match found {
            Ok(list) => list.unwrap_or_default().iter().map(|partition| partition.id).collect::<BTreeSet<i32>>(),
            Err(Failure::Transient(why) | Failure::Unknown(why) | Failure::Throttled((why, _))) => {
                return Err(Refusal::Later(format!("topic {topic:?}: {why}")));
            }
            Err(_) => BTreeSet::new(),
        };
        shape.insert(topic.clone(), ids.len());
        partitions.insert(topic.clone(), ids.into_iter().collect());
    }
    member.shape.replace(shape);
    Ok(partitions)
}
