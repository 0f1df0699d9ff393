//! Telling the broker how far the group has come. One request at a time, for all partitions at once: what is settled
//! meanwhile goes with the next one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::oneshot;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{Failure, SettleFailure, log, timer};

use super::Member;
use super::refusal::Refusal;
use crate::cluster::{Lane, To};
use crate::consume::partition::Partition;
use whimbrel_sdk::signal::Signal;

/// Between the beginnings of two requests.
const COMMIT_EVERY: Duration = Duration::from_millis(2);

/// How long what was done beyond a hole may go unnoted.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// While the group's leader assigns, nothing is taken.
const REBALANCE_PAUSE: Duration = Duration::from_millis(20);

/// How long a settlement waits for the broker.
const CONFIRM_WAIT: Duration = Duration::from_secs(10);

type Waiter = oneshot::Sender<Result<(), SettleFailure>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// Whoever waits for a confirmation, and for the how manieth request at least.
    waiters: RefCell<Vec<(u64, Waiter)>>,
    /// How many requests were made up.
    requests: Cell<u64>,
    wake: Signal,
    closed: Cell<bool>,
}

impl Commits {
    /// Returns once everything that is done at this moment is known to the broker.
    ///
    /// # Errors
    /// `Stale` when the membership was lost, `Failed` when the broker does not answer in time or refuses.
    pub(crate) async fn confirm(&self) -> Result<(), SettleFailure> {
        let (sender, answer) = oneshot::channel();
        self.waiters.borrow_mut().push((self.requests.get() + 1, sender));
        self.wake.raise();
        match timer::timeout(CONFIRM_WAIT, answer).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(SettleFailure::Stale),
            None => {
                let why = format!("the group's coordinator has not confirmed within {CONFIRM_WAIT:?}");
                Err(SettleFailure::Failed(Failure::Unknown(why)))
            }
        }
    }

    /// The membership is lost: what waits for a confirmation will not get one.
    pub(crate) fn lose(&self) {
        self.answer(u64::MAX, &Err(SettleFailure::Stale));
    }

    /// Something has changed that a commit may have waited for.
    pub(crate) fn wake(&self) {
        self.wake.raise();
    }

    /// Ends [`run`].
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.wake.raise();
    }

    /// Answers all who waited for a request up to this one.
    fn answer(&self, request: u64, result: &Result<(), SettleFailure>) {
        let (answered, others) = self.waiters.take().into_iter().partition(|(awaited, _)| *awaited <= request);
        self.waiters.replace(others);
        for (_, waiter) in answered {
            // Who does not wait any more needs no answer.
            waiter.send(result.clone()).ok();
        }
    }
}

/// Commits for as long as the membership is wanted.
pub(crate) async fn run(member: Rc<Member>) {
    let commits = &member.commits;
    let mut trouble = Backoff::default();
    while !commits.closed.get() {
        timer::timeout(NOTE_EVERY, commits.wake.wait()).await;
        if !member.is_joined() {
            continue;
        }
        let dirty = member.take_dirty();
        commits.requests.set(commits.requests.get() + 1);
        let request = commits.requests.get();
        if dirty.is_empty() {
            commits.answer(request, &Ok(()));
            continue;
        }
        let since = timer::now();
        let result = commit(&member, &dirty).await;
        if let Err(Refusal::Rebalance | Refusal::Elsewhere(_) | Refusal::Later(_)) = &result {
            dirty.iter().for_each(|partition| partition.is_dirty.set(true));
            let in_between = result == Err(Refusal::Rebalance);
            timer::sleep(if in_between { REBALANCE_PAUSE } else { trouble.next_wait() }).await;
            commits.wake.raise();
            continue;
        }
        trouble.reset();
        commits.answer(request, &verdict(&member, result));
        timer::sleep(COMMIT_EVERY.saturating_sub(timer::now().saturating_duration_since(since))).await;
    }
    commits.lose();
}

fn verdict(member: &Member, result: Result<(), Refusal>) -> Result<(), SettleFailure> {
    match result {
        Ok(()) => Ok(()),
        Err(Refusal::Fatal(failure)) => {
            log::error(&format!("commits of group {:?}: {failure:?}", member.group));
            Err(SettleFailure::Failed(failure))
        }
        Err(refusal) => {
            member.notice_loss(&refusal.text());
            Err(SettleFailure::Stale)
        }
    }
}

async fn commit(member: &Member, dirty: &[Rc<Partition>]) -> Result<(), Refusal> {
    let (generation, joins) = (member.generation.get(), member.joins.get());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(member.group.clone())))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(StrBytes::from_string(member.id.borrow().clone()))
        .with_topics(topics(dirty));
    let to = To::Coordinator(member.group.clone());
    let answer =
        member.hub.cluster.call(&to, Lane::Main, request, member.answer_wait()).await.map_err(Refusal::of_call)?;
    let mut worst = Ok(());
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let refused = Refusal::of(partition.error_code, &member.group);
        // A join that went on meanwhile has begun another generation, in which this one still counts.
        let outdated = member.joins.get() != joins || member.is_joining.get();
        match refused {
            Ok(()) => {}
            Err(Refusal::Lost(_)) if outdated => worst = Err(Refusal::Rebalance),
            Err(refusal) => worst = Err(refusal),
        }
    }
    if matches!(worst, Err(Refusal::Elsewhere(_))) {
        member.hub.cluster.forget(&to);
    }
    worst
}

fn topics(dirty: &[Rc<Partition>]) -> Vec<OffsetCommitRequestTopic> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for partition in dirty {
        let Some(commit) = partition.commit() else { continue };
        let committed = OffsetCommitRequestPartition::default()
            .with_partition_index(partition.id)
            .with_committed_offset(commit.offset)
            .with_committed_metadata(Some(StrBytes::from_string(commit.note)));
        topics.entry(&partition.topic).or_default().push(committed);
    }
    let of_topic = |(topic, partitions): (&str, Vec<_>)| {
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        OffsetCommitRequestTopic::default().with_name(name).with_partitions(partitions)
    };
    topics.into_iter().map(of_topic).collect()
}
