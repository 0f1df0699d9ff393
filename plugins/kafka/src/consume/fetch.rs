//! Fetching: for each broker one long poll, over all partitions of all subscriptions that it leads.
//!
//! What is fetched waits undecoded in its partition. That is bounded in bytes, and does not depend on the credit, so that
//! a poll that waits for one subscription's messages never keeps another from its own.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{log, task, timer};

use super::Consumers;
use super::batches::{self, Aborted};
use super::partition::Partition;
use super::reset;
use super::subscription::Sub;
use crate::cluster::{CallError, Lane, To};
use crate::failure::{may_not_read, text};
use crate::group::Member;
use whimbrel_sdk::signal::Signal;

/// How long a broker may wait for messages before it answers.
const POLL_WAIT: Duration = Duration::from_millis(500);

/// The same while a subscription is left out because it has enough: it may want more soon.
const SHORT_POLL_WAIT: Duration = Duration::from_millis(100);

/// How long a broker may be out of reach before its partitions' leaders are looked up again.
const REACH_WAIT: Duration = Duration::from_secs(2);

/// Bytes of one answer, at most; one larger batch comes all the same.
const ANSWER_MAX_BYTES: i32 = 4 << 20;

/// Bytes that wait undecoded, about, for all subscriptions together.
const WAITING_MAX_BYTES: usize = 16 << 20;

/// The share of it that a subscription has at least.
const SHARE_MIN_BYTES: usize = 64 << 10;

/// Only what was committed by its transaction.
const READ_COMMITTED: i8 = 1;

/// The poll of one broker.
#[derive(Debug)]
pub(super) struct Fetcher {
    broker: i32,
    pub(super) wake: Signal,
}

/// What one poll asks for.
struct Asked {
    member: Rc<Member>,
    sub: Rc<Sub>,
    partition: Rc<Partition>,
    offset: i64,
    max_bytes: i32,
}

impl Fetcher {
    /// For one broker; [`run`](Self::run) serves it.
    pub(super) fn new(broker: i32) -> Rc<Self> {
        Rc::new(Self { broker, wake: Signal::default() })
    }

    /// Polls until the broker leads nothing any more that is read, or the connection closes.
    pub(super) async fn run(self: Rc<Self>, hub: Rc<Consumers>) {
        let mut trouble = Backoff::default();
        while !hub.is_closed() && hub.reads_from(self.broker) {
            let now = timer::now();
            let (mut asked, left_out, rests_until) = self.choose(&hub, now);
            if asked.is_empty() {
                match rests_until {
                    None => self.wake.wait().await,
                    Some(until) => {
                        timer::timeout(until.saturating_duration_since(now), self.wake.wait()).await;
                    }
                }
                continue;
            }
            // The broker fills its answer in this order.
            fastrand::shuffle(&mut asked);
            let wait = if left_out { SHORT_POLL_WAIT } else { POLL_WAIT };
            match poll(&hub, self.broker, &asked, wait).await {
                Ok(answer) => {
                    trouble.reset();
                    take(&hub, &asked, answer);
                }
                Err(error) => {
                    lose_leader(&hub, &asked, &error);
                    timer::sleep(trouble.next_wait()).await;
                }
            }
        }
        hub.has_fetched(self.broker);
    }

    /// What to ask for; whether somebody was left out who has enough; until when something rests that went wrong.
    fn choose(&self, hub: &Consumers, now: Instant) -> (Vec<Asked>, bool, Option<Instant>) {
        let subs = hub.subs();
        let share = (WAITING_MAX_BYTES / subs.len().max(1)).max(SHARE_MIN_BYTES);
        let (mut asked, mut left_out, mut rests_until) = (Vec::new(), false, None::<Instant>);
        for (member, sub) in subs {
            if !sub.is_live.get() || sub.is_paused.get() {
                continue;
            }
            let has_enough = sub.buffered(now) >= share / 2;
            let partitions = sub.partitions.borrow();
            let max_bytes = (share / partitions.len().max(1)).max(SHARE_MIN_BYTES);
            let max_bytes = i32::try_from(max_bytes).unwrap_or(i32::MAX).min(hub.settings().fetch_bytes);
            for partition in partitions.iter().filter(|partition| partition.leader.get() == Some(self.broker)) {
                let Some((offset, _)) = partition.fetch_at(now) else {
                    let rest = partition.rests_until().filter(|_| partition.is_ours.get());
                    rests_until = rests_until.into_iter().chain(rest).min();
                    continue;
                };
                left_out |= has_enough;
                if !has_enough {
                    let (member, sub, partition) = (Rc::clone(&member), Rc::clone(&sub), Rc::clone(partition));
                    asked.push(Asked { member, sub, partition, offset, max_bytes });
                }
            }
        }
        (asked, left_out, rests_until)
    }
}

async fn poll(hub: &Consumers, broker: i32, asked: &[Asked], wait: Duration) -> Result<FetchResponse, CallError> {
    let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
    for one in asked {
        let partition = FetchPartition::default()
            .with_partition(one.partition.id)
            .with_fetch_offset(one.offset)
            .with_partition_max_bytes(one.max_bytes);
        topics.entry(&one.partition.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let topic = TopicName(StrBytes::from_string(topic.to_owned()));
        FetchTopic::default().with_topic(topic).with_partitions(partitions)
    });
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(hub.settings().fetch_min_bytes)
        .with_max_bytes(ANSWER_MAX_BYTES)
        .with_isolation_level(READ_COMMITTED)
        .with_topics(topics.collect());
    // A broker that is gone should be noticed sooner than one that is slow: others lead its partitions by then.
    let to = To::Broker(broker);
    hub.cluster.reach(&to, Lane::Fetch, timer::now() + REACH_WAIT).await?;
    hub.cluster.call(&to, Lane::Fetch, request, wait + hub.settings().answer_wait()).await
}

fn take(hub: &Rc<Consumers>, asked: &[Asked], answer: FetchResponse) {
    let by_name: BTreeMap<(&str, i32), &Asked> =
        asked.iter().map(|one| ((one.partition.topic.as_str(), one.partition.id), one)).collect();
    if let Some(error) = ResponseError::try_from_code(answer.error_code) {
        rest(asked, &error.to_string());
    }
    for topic in answer.responses {
        for data in topic.partitions {
            if let Some(one) = by_name.get(&(&*topic.topic.0, data.partition_index)) {
                take_one(hub, one, data);
            }
        }
    }
}

fn take_one(hub: &Rc<Consumers>, one: &Asked, data: PartitionData) {
    use ResponseError as E;
    let partition = &one.partition;
    match ResponseError::try_from_code(data.error_code) {
        None => {}
        Some(E::OffsetOutOfRange) => {
            let (member, sub) = (Rc::clone(&one.member), Rc::clone(&one.sub));
            partition.rest(timer::now());
            task::spawn(reset::reset(member, sub, Rc::clone(partition), one.offset));
            return;
        }
        Some(error) => {
            let moved = matches!(
                error,
                E::NotLeaderOrFollower
                    | E::FencedLeaderEpoch
                    | E::UnknownLeaderEpoch
                    | E::LeaderNotAvailable
                    | E::ReplicaNotAvailable
                    | E::KafkaStorageError
                    | E::UnknownTopicOrPartition
                    | E::OffsetNotAvailable
            );
            if moved {
                hub.has_no_leader(partition);
            } else if error == E::TopicAuthorizationFailed {
                rest(std::slice::from_ref(one), text(&may_not_read(&partition.topic)));
            } else {
                rest(std::slice::from_ref(one), &error.to_string());
            }
            return;
        }
    }
    let aborted = data.aborted_transactions.unwrap_or_default();
    let aborted: Vec<Aborted> =
        aborted.iter().map(|one| Aborted { producer: one.producer_id.0, first_offset: one.first_offset }).collect();
    let high = if data.last_stable_offset >= 0 { data.last_stable_offset } else { data.high_watermark };
    match batches::split(data.records.unwrap_or_default(), &aborted) {
        Ok(batches) => {
            let any = !batches.is_empty();
            partition.take(one.offset, batches, high);
            if any {
                partition.is_well();
                one.sub.fed.raise();
            }
        }
        Err(why) => rest(std::slice::from_ref(one), &why),
    }
}

/// Leaves partitions alone for a while that grows. Logged when it is news.
fn rest(asked: &[Asked], why: &str) {
    for one in asked {
        let wait = one.partition.rest(timer::now());
        let (topic, id) = (&one.partition.topic, one.partition.id);
        if one.partition.is_news(why) {
            log::warn(&format!("fetching topic {topic:?}, partition {id}: {why}; again in {wait:?}, and so on"));
        }
    }
}

/// The broker does not answer: others may lead its partitions by now.
fn lose_leader(hub: &Consumers, asked: &[Asked], error: &CallError) {
    if let CallError::Failure(failure) = error {
        rest(asked, &format!("{failure:?}"));
    }
    asked.iter().for_each(|one| hub.has_no_leader(&one.partition));
}
