//! Subscribing: what arrives, how much at a time, in which order, how often, from where on.

use std::collections::HashSet;
use std::time::Duration;

use whimbrel_pubsub::StartPosition;

use super::{deposit, distinct, exchange, read, subscribe};
use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{ARRIVE_WAIT, Payload, Rig, number};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "D3",
        title: "subscribes, and delivery starts",
        expects: "`subscribe` succeeds, and a message that is published afterwards arrives",
        cause: "`subscribe` that returns before the broker has the subscription, or a stream that nobody feeds",
        read: read::SUBSCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(starts(rig)),
    },
    Check {
        id: "D6",
        title: "delivers everything",
        expects: "100 confirmed messages arrive, each with the topic it was published to",
        cause: "a fetch that drops what it has no credit for, or messages that fell between two fetches",
        read: read::SUBSCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(everything(rig)),
    },
    Check {
        id: "D7",
        title: "keeps the order of a key",
        expects: "100 messages of one key arrive in the order they were published in",
        cause: "several fetches or publishes at once, a list that is turned around, a key that is not handed to the broker",
        read: read::SUBSCRIBING,
        needs: &[Need::Ordering],
        bound: None,
        run: |rig| Box::pin(in_order(rig)),
    },
    Check {
        id: "D10",
        title: "keeps topics apart",
        expects: "two subscriptions of one connection each get the messages of their own topic and no other",
        cause: "one queue for all subscriptions of a connection, or a topic's name that is cut or changed",
        read: read::SUBSCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(apart(rig)),
    },
    Check {
        id: "B8",
        title: "takes topics that do not exist yet",
        expects: "subscribing before the topic exists, and publishing before anybody subscribes, end in time; what was published is delivered later where the broker keeps it",
        cause: "a topic that is looked for and never made, or a group that begins at the end although it was asked for the beginning",
        read: read::SUBSCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(unknown_topics(rig)),
    },
    Check {
        id: "C1",
        title: "never goes beyond its credit",
        expects: "with max-unsettled 8 at most 8 messages are in hand, those that wait for a retry included",
        cause: "credit counted per fetch, messages fetched ahead and not counted, or a retry that frees its place",
        read: read::SUBSCRIBING,
        needs: &[Need::Queue],
        bound: None,
        run: |rig| Box::pin(credit(rig)),
    },
    Check {
        id: "C2",
        title: "delivers once where nothing fails",
        expects: "300 messages that are acknowledged at once arrive once each",
        cause: "two readers of one queue, an acknowledgement that is not sent, a fetch that begins too early",
        read: read::SUBSCRIBING,
        needs: &[],
        bound: None,
        run: |rig| Box::pin(once(rig)),
    },
    Check {
        id: "C9",
        title: "begins where it is told",
        expects: "a new group that starts at the earliest gets what was published before, one that starts at the latest does not",
        cause: "the option `start` not handed to the broker",
        read: read::SUBSCRIBING,
        needs: &[Need::History, Need::Queue],
        bound: None,
        run: |rig| Box::pin(start_positions(rig)),
    },
];

/// How long nothing may come.
const QUIET: Duration = Duration::from_secs(1);

/// How long after the last message another copy may come.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// The credit of the check that is about it.
const CREDIT: usize = 8;

async fn starts(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    exchange(&instance, &topic, &mut inbox, 0..1).await.map_err(Wrong::own)?;
    Ok(Finding::Passed)
}

async fn everything(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 20).await?;
    for begin in (0..100).step_by(25) {
        let acked = exchange(&instance, &topic, &mut inbox, begin..begin + 25).await?;
        if let Some(other) = acked.iter().find(|arrived| *arrived.message.topic != *topic) {
            return Err(Wrong::new(format!("a message of {topic} arrived as one of {}", other.message.topic)));
        }
    }
    Ok(Finding::Passed)
}

async fn in_order(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 10).await?;
    let publishing = async {
        for begin in (0..100).step_by(20) {
            let keyed = Payload::numbered(begin..begin + 20).into_iter().map(|payload| payload.keyed("one"));
            deposit(&instance, &topic, keyed.collect()).await?;
        }
        Ok(())
    };
    let ((), acked) = tokio::try_join!(publishing, inbox.ack_numbers(0..100, ARRIVE_WAIT))?;
    let mut highest = None;
    for arrived in distinct(acked) {
        let number = number(&arrived)?;
        if highest.is_some_and(|highest| number < highest) {
            return Err(Wrong::new(format!("number {number} came after number {}", highest.unwrap_or_default())));
        }
        highest = Some(number);
    }
    Ok(Finding::Passed)
}

async fn apart(rig: &Rig) -> Tested {
    let (instance, group) = (rig.instance("one").await?, rig.group("g"));
    let (one, two) = (rig.topic("one").await?, rig.topic("two").await?);
    let mut first = subscribe(&instance, &one, &group, 10).await?;
    let mut second = subscribe(&instance, &two, &group, 10).await?;
    let publishing = async {
        for number in 0..10 {
            let topic = if number % 2 == 0 { &one } else { &two };
            deposit(&instance, topic, Payload::numbered(number..number + 1)).await?;
        }
        Ok(())
    };
    let evens = first.ack_numbers((0..10).step_by(2), ARRIVE_WAIT);
    let odds = second.ack_numbers((1..10).step_by(2), ARRIVE_WAIT);
    let ((), evens, odds) = tokio::try_join!(publishing, evens, odds)?;
    for (acked, rest) in [(evens, 0), (odds, 1)] {
        for arrived in acked {
            if number(&arrived)? % 2 != rest {
                return Err(Wrong::new("a message of one topic was delivered to the subscription of the other"));
            }
        }
    }
    Ok(Finding::Passed)
}

async fn unknown_topics(rig: &Rig) -> Tested {
    let instance = rig.instance("one").await?;
    let topic = rig.unprepared("new");
    match instance.subscribe(&topic, &rig.group("g"), 10).await {
        Ok(mut inbox) => {
            let wrong = |wrong: Wrong| Wrong::new(format!("subscribed before the topic existed: {wrong}"));
            exchange(&instance, &topic, &mut inbox, 0..5).await.map_err(wrong)?;
        }
        // Who must prepare topics has been told that they are not made by themselves.
        Err(_) if !rig.profile().conformance.prepare.is_empty() => {}
        Err(error) => return Err(Wrong::new(format!("subscribing before the topic exists: {error}"))),
    }
    let topic = rig.topic("early").await?;
    let wrong = |wrong: Wrong| Wrong::new(format!("published before anybody subscribed: {wrong}"));
    deposit(&instance, &topic, Payload::numbered(0..5)).await.map_err(wrong)?;
    let inbox = instance.subscribe_from(&topic, &rig.group("g"), 10, Some(StartPosition::Earliest)).await;
    let mut inbox = inbox.map_err(|error| wrong(Wrong::from(error)))?;
    if rig.profile().conformance.history {
        inbox.ack_numbers(0..5, ARRIVE_WAIT).await.map_err(wrong)?;
    }
    exchange(&instance, &topic, &mut inbox, 5..10).await.map_err(wrong)?;
    Ok(Finding::Passed)
}

async fn credit(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), u32::try_from(CREDIT).unwrap_or(1)).await?;
    deposit(&instance, &topic, Payload::numbered(0..CREDIT * 5)).await?;
    let mut all = inbox.take(CREDIT, ARRIVE_WAIT).await;
    all.extend(inbox.watch(QUIET).await);
    let held = distinct(all);
    if held.len() < CREDIT {
        return Err(Wrong::of("D6", format!("only {} of {CREDIT} messages were delivered", held.len())));
    }
    let mut seen: HashSet<String> = held.iter().map(|arrived| arrived.id.clone()).collect();
    // What was acknowledged behind the host's back frees its place, too.
    within(&seen, CREDIT).map_err(|wrong| wrong.or_of("B9"))?;
    for arrived in &held[..3] {
        inbox.ack(arrived).await?;
    }
    seen.extend(inbox.watch(QUIET).await.into_iter().map(|arrived| arrived.id));
    within(&seen, CREDIT + 3)?;
    for arrived in &held[3..] {
        inbox.retry(arrived, QUIET * 10).await?;
    }
    seen.extend(inbox.watch(QUIET).await.into_iter().map(|arrived| arrived.id));
    // A retry that was taken for an acknowledgement frees its place, too.
    within(&seen, CREDIT + 3).map_err(|wrong| wrong.or_of("D5"))?;
    Ok(Finding::Passed)
}

fn within(seen: &HashSet<String>, allowed: usize) -> Result<(), Wrong> {
    if seen.len() <= allowed {
        return Ok(());
    }
    let acked = allowed - CREDIT;
    Err(Wrong::new(format!(
        "{} messages were delivered, {acked} of them acknowledged; max-unsettled is {CREDIT}",
        seen.len()
    )))
}

async fn once(rig: &Rig) -> Tested {
    let (instance, topic) = (rig.instance("one").await?, rig.topic("t").await?);
    let mut inbox = subscribe(&instance, &topic, &rig.group("g"), 50).await?;
    let mut acked = Vec::new();
    let mut twice_published = HashSet::new();
    for begin in (0..300).step_by(50) {
        let publishing = async {
            let results = instance.publish(&topic, Payload::numbered(begin..begin + 50)).await;
            let failed = results.iter().enumerate().filter(|(_, result)| result.is_err());
            let again: Vec<usize> = failed.map(|(index, _)| begin + index).collect();
            for number in &again {
                deposit(&instance, &topic, Payload::numbered(*number..number + 1)).await?;
            }
            Ok(again)
        };
        let (again, more) = tokio::try_join!(publishing, inbox.ack_numbers(begin..begin + 50, ARRIVE_WAIT))?;
        twice_published.extend(again);
        acked.extend(more);
    }
    acked.extend(inbox.watch(AFTERWARDS).await);
    let mut seen = HashSet::new();
    for arrived in acked {
        let number = number(&arrived)?;
        if !seen.insert(number) && !twice_published.contains(&number) {
            return Err(Wrong::new(format!("message {number} was delivered more than once")));
        }
    }
    Ok(Finding::Passed)
}

async fn start_positions(rig: &Rig) -> Tested {
    let instance = rig.instance("one").await?;
    for (start, begin) in [(StartPosition::Earliest, 0), (StartPosition::Latest, 5)] {
        let topic = rig.topic("t").await?;
        deposit(&instance, &topic, Payload::numbered(0..5)).await?;
        let inbox = instance.subscribe_from(&topic, &rig.group(&format!("g{begin}")), 10, Some(start)).await;
        let mut inbox = inbox.map_err(|error| Wrong::of("D3", format!("subscribing failed: {error}")))?;
        deposit(&instance, &topic, Payload::numbered(5..10)).await?;
        let acked = inbox.ack_numbers(begin..10, ARRIVE_WAIT).await.map_err(Wrong::own)?;
        for arrived in acked {
            if number(&arrived)? < begin {
                return Err(Wrong::new("a group that starts at the latest got a message published before it"));
            }
        }
    }
    Ok(Finding::Passed)
}
