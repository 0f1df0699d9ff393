//! Messages that take long, and many of them at once: nobody gets one that another has in hand.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::time::Instant;
use whimbrel_pubsub::Arrived;

use super::load::Load;
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{Inbox, Instance, Rig};
use crate::scale::scaled;

/// Unsettled messages that each of the slow consumers may have.
const SLOW_CREDIT: u32 = 5;

/// Messages that wait for the slow consumers.
const SLOW_MESSAGES: u64 = 60;

/// How many leases a slow consumer takes.
const SLOW_LEASES: u32 = 3;

/// The least that it takes, where the broker knows no lease.
const SLOW_MIN: Duration = Duration::from_secs(3);

/// Messages that wait behind those few, which the component may not take into its memory.
const QUEUED: u64 = 100_000;

/// Bytes of linear memory that it may have then.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Publishers that put them there.
const QUEUED_AT_ONCE: u64 = 4;

/// Deliveries that are acknowledged before it is measured, so that some were asked for again and again.
const QUEUED_ACKS: usize = 200;

/// How long the slow consumers wait for what their credit allows.
const FIRST_WAIT: Duration = Duration::from_secs(20);

/// Instances that share the messages of the check of duplicates.
const REPLICAS: usize = 4;

/// Messages they share.
const MESSAGES: u64 = 2_000;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "S7",
        title: "keeps the lease of what takes long, and its credit",
        expects: "a handler takes three times the lease: nobody gets a message that it has in hand, and no subscription has \
                  more unsettled messages than `max-unsettled`; with 100 000 more that wait, the component has less than 64 MiB of memory",
        cause: "a lease that is not renewed while a delivery is open, or a prefetch that is not counted or not bounded",
        read: "wit/README.md, \"Settling\"",
        needs: &[Need::Shared, Need::Groups, Need::Queue],
        bound: Some(Duration::from_secs(240)),
        run: |rig| Box::pin(lasting(rig)),
    },
    Check {
        id: "S8",
        title: "delivers nothing twice while nothing breaks",
        expects: "four instances of one group share some thousand messages: each message is delivered once",
        cause: "one consumer name for all instances, or a message claimed that somebody has in hand",
        read: "wit/README.md, \"Settling\"",
        needs: &[Need::Shared, Need::Groups, Need::Queue],
        bound: Some(Duration::from_secs(120)),
        run: |rig| Box::pin(duplicates(rig)),
    },
];

async fn lasting(rig: &Rig) -> Tested {
    slow(rig).await?;
    queued(rig).await?;
    Ok(Finding::Passed)
}

async fn slow(rig: &Rig) -> Result<(), Wrong> {
    let load = Load::new(rig).await?;
    let (one, two) = (rig.instance("one").await?, rig.instance("two").await?);
    let mut first = load.subscribe_with(&one, SLOW_CREDIT).await?;
    let mut second = load.subscribe_with(&two, SLOW_CREDIT).await?;
    load.fill(&one, SLOW_MESSAGES).await?;
    let slow = (rig.lease() * SLOW_LEASES).max(SLOW_MIN);
    let watching = |inbox| watch(inbox, slow);
    let (held, also) = tokio::join!(watching(&mut first), watching(&mut second));
    if held.is_empty() && also.is_empty() {
        return Err(Wrong::of("D6", format!("no message arrived within {} s", FIRST_WAIT.as_secs())));
    }
    let twice = twice(&load, held.iter().chain(&also));
    if !twice.is_empty() {
        let what = format!(
            "{} messages were delivered again while they were in hand, within {} s (the lease is {:?}): {:?}",
            twice.len(),
            slow.as_secs(),
            rig.lease(),
            &twice[..twice.len().min(10)]
        );
        return Err(Wrong::of("C3", what));
    }
    let most = held.len().max(also.len());
    if most > SLOW_CREDIT as usize {
        let what = format!("{most} messages were delivered and not settled, max-unsettled was {SLOW_CREDIT}");
        return Err(Wrong::of("C1", what));
    }
    load.settle(&mut first, held).await;
    load.settle(&mut second, also).await;
    drain(&load, [(&one, first), (&two, second)].into()).await;
    join_all([one, two].map(Instance::kill)).await;
    load.account().await?.judge().map_err(|wrong| wrong.or_of("D6"))
}

/// Many messages wait while few may be in hand: they wait at the broker.
async fn queued(rig: &Rig) -> Result<(), Wrong> {
    let load = Load::new(rig).await?;
    let (publisher, consumer) = (rig.instance("publisher").await?, rig.instance("consumer").await?);
    let mut inbox = load.subscribe_with(&consumer, SLOW_CREDIT).await?;
    try_join_all((0..QUEUED_AT_ONCE).map(|_| load.fill(&publisher, QUEUED / QUEUED_AT_ONCE))).await?;
    for _ in 0..QUEUED_ACKS {
        let arrived = inbox.next(FIRST_WAIT).await;
        let arrived = arrived.ok_or_else(|| Wrong::of("D6", "messages wait, and none is delivered"))?;
        load.settle(&mut inbox, vec![arrived]).await;
    }
    let bytes = consumer.memory_bytes();
    join_all([publisher, consumer].map(Instance::kill)).await;
    if bytes >= QUEUED_BYTES_MAX {
        let what = format!(
            "with {QUEUED} messages that wait at the broker and {SLOW_CREDIT} that may be in hand, the component has {} MiB of \
             memory (less than {} MiB are allowed)",
            bytes >> 20,
            QUEUED_BYTES_MAX >> 20
        );
        return Err(Wrong::new(what));
    }
    Ok(())
}

/// What is delivered to a consumer that settles nothing, from its first delivery on.
async fn watch(inbox: &mut Inbox, slow: Duration) -> Vec<Arrived> {
    let Some(first) = inbox.next(FIRST_WAIT).await else { return Vec::new() };
    let until = Instant::now() + slow;
    let mut all = vec![first];
    while let Some(arrived) = inbox.next_until(until).await {
        all.push(arrived);
    }
    all
}

/// What the broker calls those that are in hand more than once.
fn twice<'a>(load: &Load<'_>, held: impl Iterator<Item = &'a Arrived>) -> Vec<String> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut twice = Vec::new();
    for arrived in held {
        let times = seen.entry(&arrived.id).or_default();
        *times += 1;
        if *times == 2 {
            twice.push(format!("{} of run {}", arrived.id, load.ledger.run()));
        }
    }
    twice
}

/// Consumes until all is at rest.
async fn drain(load: &Load<'_>, consumers: Vec<(&Instance, Inbox)>) {
    let consuming = join_all(consumers.into_iter().map(|(instance, inbox)| load.consume(instance, inbox)));
    tokio::join!(load.end(), consuming);
}

async fn duplicates(rig: &Rig) -> Tested {
    let load = Load::new(rig).await?;
    let mut instances = Vec::new();
    for n in 0..REPLICAS {
        instances.push(rig.instance(&format!("replica{n}")).await?);
    }
    let mut consumers = Vec::new();
    for instance in &instances {
        consumers.push((instance, load.subscribe(instance).await?));
    }
    let consuming = join_all(consumers.into_iter().map(|(instance, inbox)| load.consume(instance, inbox)));
    let publishing = async {
        let published = match instances.first() {
            Some(first) => load.fill(first, scaled(MESSAGES)).await,
            None => Ok(()),
        };
        load.end().await;
        published
    };
    let (published, _) = tokio::join!(publishing, consuming);
    published.map_err(|wrong| wrong.or_of("D4"))?;
    let account = load.account().await?;
    join_all(instances.into_iter().map(Instance::kill)).await;
    if account.duplicates > 0 {
        let what = format!("{} deliveries were not the first of their message; {account}", account.duplicates);
        return Err(Wrong::of("C2", what));
    }
    account.judge().map_err(|wrong| wrong.or_of("D6"))?;
    Ok(Finding::Passed)
}
