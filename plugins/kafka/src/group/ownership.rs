//! Taking partitions up, and giving them up: what is delivered when the group is rebalanced, and what is committed before
//! somebody else goes on.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use whimbrel_sdk::backoff::Backoff;
use whimbrel_sdk::{StartPosition, log, task, timer};

use super::Member;
use super::assignors::Topics;
use super::join::Part;
use super::member::Name;
use super::offsets;
use super::refusal::Refusal;
use crate::consume::partition::Partition;
use crate::consume::subscription::Sub;

/// How long a rebalance that stops everybody waits for messages that the host works on. What takes longer is delivered
/// again by the partition's next reader. Well below what the group waits for its members.
const STANDSTILL_WAIT: Duration = Duration::from_secs(15);

/// The same where a partition moves while everybody reads on. Only that partition waits; but it does, also for a message
/// that the host tries again for ever.
const HANDOVER_WAIT: Duration = Duration::from_secs(60);

/// How long a last commit may take.
const LAST_COMMIT_WAIT: Duration = Duration::from_secs(3);

/// Partitions whose edges are asked for at once.
const EDGES_MAX: usize = 64;

/// What it reads.
pub(super) fn owned(member: &Member) -> Topics {
    let mut topics = Topics::new();
    for (topic, id) in member.owned.borrow().keys() {
        topics.entry(topic.clone()).or_default().push(*id);
    }
    topics
}

/// Before it joins again: what is done is committed, and where everybody starts afresh everything is given up.
pub(super) async fn prepare(member: &Rc<Member>) -> Result<(), Refusal> {
    if !member.is_joined() {
        return Ok(());
    }
    let keeps = member.strategy.get().is_some_and(super::assignors::Strategy::is_cooperative);
    let gone = if keeps { Vec::new() } else { member.owned.borrow().values().cloned().collect() };
    member.beat_while(give_up(member, gone)).await
}

/// Takes up its part. In the cooperative way, what it was not given any more is given up from now on, while everything else
/// is read on.
pub(super) async fn take_up(member: &Rc<Member>, part: Part) -> Result<(), Refusal> {
    let subs = member.subs.borrow().clone();
    let target: BTreeSet<Name> = part
        .assigned
        .into_iter()
        .filter(|(topic, _)| subs.contains_key(topic))
        .flat_map(|(topic, ids)| ids.into_iter().map(move |id| (topic.clone(), id)))
        .collect();
    let gone: Vec<Rc<Partition>> = {
        let owned = member.owned.borrow();
        owned.iter().filter(|(name, _)| !target.contains(*name)).map(|(_, partition)| Rc::clone(partition)).collect()
    };
    let mut new = Vec::new();
    for (topic, id) in target {
        if member.owned.borrow().contains_key(&(topic.clone(), id)) {
            continue;
        }
        let partition = Rc::new(Partition::new(topic.clone(), id));
        if let Some(sub) = subs.get(&topic) {
            sub.partitions.borrow_mut().push(Rc::clone(&partition));
        }
        member.owned.borrow_mut().insert((topic, id), Rc::clone(&partition));
        new.push(partition);
    }
    let reads: Vec<String> = owned(member).iter().map(|(topic, ids)| format!("{topic} {ids:?}")).collect();
    let (group, generation) = (&member.group, member.generation.get());
    log::info(&format!("group {group:?}, generation {generation}: reads {}", reads.join(", ")));
    task::spawn(begin(Rc::clone(member), new));
    if part.strategy.is_cooperative() {
        // What leaves already has a task that sees to it.
        let leaving = gone.into_iter().filter(|partition| partition.is_ours.get()).collect();
        begin_to_hand_over(member, leaving);
    } else if !gone.is_empty() {
        member.beat_while(give_up(member, gone)).await?;
    }
    Ok(())
}

/// Lets partitions go as soon as nothing of them is in hand, and then joins again, so that others get them. Until then this
/// member answers every other rebalance and claims them in it: nobody else is given them, and nobody waits.
fn begin_to_hand_over(member: &Rc<Member>, leaving: Vec<Rc<Partition>>) {
    if leaving.is_empty() {
        return;
    }
    release(member, &leaving);
    let member = Rc::clone(member);
    task::spawn(async move {
        timer::timeout(HANDOVER_WAIT, drained(&member, &leaving)).await;
        last_commit(&member).await;
        // All of them: one that was let go already, with the membership or its subscription, is nobody's news.
        let let_go = leaving.iter().filter(|partition| let_go(&member, partition)).count();
        if let_go > 0 {
            member.join_again();
        }
    });
}

/// Gives partitions up, for everybody waits: delivers nothing more of them, waits for what the host works on, commits.
async fn give_up(member: &Rc<Member>, gone: Vec<Rc<Partition>>) {
    release(member, &gone);
    timer::timeout(STANDSTILL_WAIT, drained(member, &gone)).await;
    last_commit(member).await;
    for partition in &gone {
        let_go(member, partition);
    }
}

fn release(member: &Member, gone: &[Rc<Partition>]) {
    for partition in gone {
        with_sub(member, partition, |sub| sub.release(partition));
    }
}

/// Returns once nothing of these is in the host's hands.
async fn drained(member: &Member, gone: &[Rc<Partition>]) {
    let settled = member.settlements();
    while gone.iter().any(|partition| open(member, partition) > 0) {
        settled.wait().await;
    }
}

/// Commits what is done. If it cannot be done in time, the next reader delivers it again.
pub(crate) async fn last_commit(member: &Member) {
    if member.is_joined() && member.owned.borrow().values().any(|partition| partition.is_dirty.get()) {
        timer::timeout(LAST_COMMIT_WAIT, member.commits.confirm()).await;
    }
}

/// The membership was lost, and with it everything it read.
pub(super) fn lose(member: &Member) {
    member.generation.set(-1);
    drop_all(member);
}

/// Gives everything up at once.
pub(super) fn drop_all(member: &Member) {
    let all: Vec<Rc<Partition>> = member.owned.borrow().values().cloned().collect();
    for partition in &all {
        let_go(member, partition);
    }
    if !all.is_empty() {
        member.commits.lose();
    }
    member.notice_settled();
}

/// Whether it was its own until now.
fn let_go(member: &Member, partition: &Rc<Partition>) -> bool {
    with_sub(member, partition, |sub| sub.forget(partition));
    let mut owned = member.owned.borrow_mut();
    let name = (partition.topic.clone(), partition.id);
    let is_owned = owned.get(&name).is_some_and(|other| Rc::ptr_eq(other, partition));
    if is_owned {
        owned.remove(&name);
    }
    is_owned
}

fn open(member: &Member, partition: &Rc<Partition>) -> usize {
    let mut open = 0;
    with_sub(member, partition, |sub| open = sub.ledger.borrow().open_of(partition));
    open
}

fn with_sub(member: &Member, partition: &Partition, mut act: impl FnMut(&Rc<Sub>)) {
    let sub = member.subs.borrow().get(&partition.topic).cloned();
    if let Some(sub) = sub {
        act(&sub);
    }
}

/// Finds out where new partitions begin, and lets them be fetched. Tries for as long as they are ours.
async fn begin(member: Rc<Member>, mut new: Vec<Rc<Partition>>) {
    let mut trouble = Backoff::default();
    let mut told = String::new();
    loop {
        new.retain(|partition| partition.is_ours.get());
        let Err(refusal) = begin_once(&member, &new).await else { break };
        if let Refusal::Fatal(failure) = &refusal {
            let refuse = |sub: &Rc<Sub>| {
                if !sub.is_ready.get() {
                    sub.fail(failure.clone());
                }
            };
            new.iter().for_each(|partition| with_sub(&member, partition, refuse));
        }
        let text = refusal.text();
        if text != told {
            log::warn(&format!("where to begin: {text}"));
            told = text;
        }
        timer::sleep(trouble.next_wait()).await;
    }
    member.hub.find_leaders();
    if new.iter().any(|partition| partition.is_dirty.get()) {
        // Whoever takes the partition next goes on from here, even if nothing was done until then.
        member.commits.confirm().await.ok();
    }
    tell_ready(&member);
}

async fn begin_once(member: &Member, new: &[Rc<Partition>]) -> Result<(), Refusal> {
    let new: Vec<Rc<Partition>> = new.iter().filter(|partition| !partition.has_begun()).cloned().collect();
    if new.is_empty() {
        return Ok(());
    }
    let committed = offsets::committed(member, &new).await?;
    let (known, fresh): (Vec<_>, Vec<_>) =
        new.iter().partition(|partition| committed.contains_key(&(partition.topic.clone(), partition.id)));
    for partition in known {
        if let Some(found) = committed.get(&(partition.topic.clone(), partition.id)) {
            partition.begin(found.offset, &found.note);
        }
    }
    for some in fresh.chunks(EDGES_MAX) {
        let edges = some.iter().map(|partition| begin_fresh(member, partition));
        join_all(edges).await.into_iter().collect::<Result<(), Refusal>>()?;
    }
    Ok(())
}

/// A partition of which the group has no commit.
async fn begin_fresh(member: &Member, partition: &Rc<Partition>) -> Result<(), Refusal> {
    let mut start = StartPosition::Earliest;
    with_sub(member, partition, |sub| start = sub.start_of(partition.id));
    let offset = offsets::edge(member, partition, start).await?;
    if start == StartPosition::Latest && partition.id == 0 {
        log::warn(&format!(
            "group {:?} is new to topic {:?} and begins with what is published from now on; \
             metadata initialOffset: oldest begins with all that is there",
            member.group, partition.topic
        ));
    }
    partition.begin(offset, "");
    partition.is_dirty.set(true);
    Ok(())
}

/// Tells the subscriptions whose topics were joined with, and that know where all they were given begins.
fn tell_ready(member: &Member) {
    let joined = member.joined.borrow();
    for (topic, sub) in member.subs.borrow().iter().filter(|(topic, _)| joined.contains(*topic)) {
        let begun = sub.partitions.borrow().iter().all(|partition| partition.has_begun() || !partition.is_ours.get());
        if begun && member.is_joined() && !member.is_joining.get() && !topic.is_empty() {
            sub.is_ready.set(true);
            sub.readied.raise();
        }
    }
}
