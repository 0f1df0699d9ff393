//! Many topics and many subscriptions of one instance, over few connections.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::behind::behind;
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{Inbox, Payload, Rig};
use crate::scale::scaled;
use crate::wait::until_within;

/// Topics that are published to once.
const TOPICS: u64 = 300;

/// Subscriptions at the same time.
const SUBSCRIPTIONS: usize = 60;

/// The same where a command has to make each topic ready.
const PREPARED_TOPICS: u64 = 12;

/// Connections of an instance, however many subscriptions it has.
const CONNECTIONS_MAX: usize = 10;

/// How long one subscription may take to open, all but one of a hundred.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(2);

/// What is done at the same time.
const AT_ONCE: usize = 8;

/// How long the connections of subscriptions that are over may take to close.
const CLOSE_WAIT: Duration = Duration::from_secs(20);

/// How long a message may take to arrive.
const ARRIVE_WAIT: Duration = Duration::from_secs(20);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S14",
    title: "serves many topics over few connections",
    expects: "hundreds of topics are published to and many are subscribed at the same time: at most 10 connections, 99 of 100 \
              subscriptions open within 2 s, each gets its message, and nothing is left when they have stopped",
    cause: "a connection for each subscription, or a subscription that leaves its connection or its tasks behind",
    read: "wit/README.md, \"What may run at the same time\"",
    needs: &[Need::Proxy, Need::Queue],
    bound: Some(Duration::from_secs(180)),
    run: |rig| Box::pin(many(rig)),
}];

async fn many(rig: &Rig) -> Tested {
    let proxies = rig.proxies().await?;
    let instance = behind(rig, &proxies).await?;
    let topics = topics(rig).await?;
    publish_each(&instance, &topics, "first").await?;
    let before = proxies.counts().open;
    let (mut inboxes, times) = subscribe_each(rig, &instance, &topics).await?;
    let open = proxies.counts().open;
    publish_each(&instance, &topics[..inboxes.len()], "second").await?;
    for (inbox, topic) in inboxes.iter_mut().zip(&topics) {
        receives(inbox, topic).await?;
    }
    for inbox in &mut inboxes {
        inbox.stop().await?;
    }
    let closed = until_within(CLOSE_WAIT, "", async || (proxies.counts().open <= before).then_some(())).await;
    let left = proxies.counts().open;
    instance.kill().await;
    if open > CONNECTIONS_MAX {
        let what = format!("{} subscriptions hold {open} connections (at most {CONNECTIONS_MAX})", times.len());
        return Err(Wrong::new(what));
    }
    judge_times(times)?;
    if closed.is_err() {
        let what =
            format!("{left} connections are open after all subscriptions have stopped, {before} were before them");
        return Err(Wrong::new(what));
    }
    Ok(Finding::Passed)
}

async fn topics(rig: &Rig) -> Result<Vec<String>, Wrong> {
    let prepared = !rig.profile().conformance.prepare.is_empty();
    let count = if prepared { PREPARED_TOPICS } else { scaled(TOPICS) };
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(rig.topic("many").await?);
    }
    Ok(topics)
}

async fn publish_each(instance: &crate::rig::Instance, topics: &[String], text: &'static str) -> Result<(), Wrong> {
    let publishing = stream::iter(topics).map(async |topic| {
        let answers = instance.publish(topic, vec![Payload::of(text)]).await;
        let failed = answers.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |error| Err(Wrong::of("D4", format!("publishing to {topic} failed: {error}"))))
    });
    publishing.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect()
}

/// All subscriptions, in the order of their topics, and how long each took.
async fn subscribe_each(
    rig: &Rig,
    instance: &crate::rig::Instance,
    topics: &[String],
) -> Result<(Vec<Inbox>, Vec<Duration>), Wrong> {
    let group = rig.group("many");
    let subscribing = stream::iter(topics.iter().take(SUBSCRIPTIONS)).map(async |topic| {
        let since = Instant::now();
        let inbox = instance.subscribe(topic, &group, 4).await;
        let inbox = inbox.map_err(|error| Wrong::of("D3", format!("subscribing to {topic} failed: {error}")))?;
        Ok((inbox, since.elapsed()))
    });
    let opened: Result<Vec<_>, Wrong> = subscribing.buffered(AT_ONCE).collect::<Vec<_>>().await.into_iter().collect();
    Ok(opened?.into_iter().unzip())
}

async fn receives(inbox: &mut Inbox, topic: &str) -> Result<(), Wrong> {
    let until = Instant::now() + ARRIVE_WAIT;
    while let Some(arrived) = inbox.next_until(until).await {
        inbox.ack(&arrived).await?;
        if &*arrived.message.topic != topic {
            let what = format!("a subscription of {topic} got a message of {}", arrived.message.topic);
            return Err(Wrong::of("D10", what));
        }
        if arrived.message.data == "second" {
            return Ok(());
        }
    }
    Err(Wrong::new(format!(
        "one of many subscriptions, that of {topic}, got nothing within {} s",
        ARRIVE_WAIT.as_secs()
    )))
}

fn judge_times(mut times: Vec<Duration>) -> Result<(), Wrong> {
    times.sort_unstable();
    let slow = times.get(times.len().saturating_sub(1 + times.len() / 100)).copied().unwrap_or_default();
    if slow <= SUBSCRIBE_MAX {
        return Ok(());
    }
    Err(Wrong::new(format!("{} subscriptions took up to {slow:?} to open (at most {SUBSCRIBE_MAX:?})", times.len())))
}
