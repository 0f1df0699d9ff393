//! The checks, by subject. Each tests one promise, and tolerates that others are broken as far as it can: then it blames
//! the check that is about them.

mod content;
mod ending;
mod groups;
mod opening;
mod publishing;
mod settling;
mod subscribing;

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use whimbrel_pubsub::Arrived;

use crate::check::{Check, Wrong};
use crate::rig::{ARRIVE_WAIT, Inbox, Instance, Payload};

/// How often a message is published until it is confirmed, by a check that is not about publishing.
const PUBLISHES_MAX: usize = 3;

/// Between the second and the third.
const PUBLISH_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// How long past the broker's lease what is left over may take to be delivered again.
const LEASE_SPARE: Duration = Duration::from_secs(5);

/// Where to read.
mod read {
    pub(super) const LIFE: &str = "wit/README.md, section \"A life, in order\"";
    pub(super) const PUBLISHING: &str =
        "wit/README.md, section \"Publishing\"; plugins/README.md, section \"4. Publish\"";
    pub(super) const SUBSCRIBING: &str = "wit/README.md, section \"Subscribing, credit, and order\"; plugins/README.md, section \"5. Subscribe, and feed\"";
    pub(super) const SETTLING: &str = "wit/README.md, section \"Settling\"; plugins/README.md, section \"6. Settle\"";
    pub(super) const ENDING: &str =
        "wit/README.md, section \"When things end\"; plugins/README.md, section \"7. Stop, close\"";
    pub(super) const CONNECTION: &str = "wit/README.md, section \"The connection to the broker\"";
    pub(super) const DESCRIBING: &str =
        "wit/README.md, section \"plugin.yaml\"; plugins/README.md, section \"1. Describe it\"";
    pub(super) const MESSAGE: &str = "wit/types.wit, record message";
}

/// The checks that break nothing: D1 to D12 and B1 to B15 as broker-adapters.md has them, then C, the contract's own.
pub(crate) fn base() -> Vec<&'static Check> {
    let tables = [
        opening::CHECKS,
        publishing::CHECKS,
        content::CHECKS,
        subscribing::CHECKS,
        settling::CHECKS,
        groups::CHECKS,
        ending::CHECKS,
    ];
    let mut all: Vec<&Check> = tables.into_iter().flatten().collect();
    all.sort_by_key(|check| order(check.id));
    all
}

/// By letter (D, B, C), then by number.
fn order(id: &str) -> (usize, u32) {
    let (letter, number) = id.split_at(id.len().min(1));
    ("DBC".find(letter).unwrap_or(usize::MAX), number.parse().unwrap_or(u32::MAX))
}

/// Subscribes, for checks that are not about that.
async fn subscribe(instance: &Instance, topic: &str, group: &str, max_unsettled: u32) -> Result<Inbox, Wrong> {
    let inbox = instance.subscribe(topic, group, max_unsettled).await;
    inbox.map_err(|error| Wrong::of("D3", format!("subscribing failed: {error}")))
}

/// Publishes in one go, and again one by one what was not confirmed: for checks that are not about publishing. Some may be
/// stored twice.
async fn deposit(instance: &Instance, topic: &str, payloads: Vec<Payload>) -> Result<(), Wrong> {
    let results = instance.publish(topic, payloads.clone()).await;
    for (payload, result) in payloads.into_iter().zip(results) {
        let (mut last, mut tries) = (result, 1);
        while let Err(error) = last {
            if tries == PUBLISHES_MAX {
                return Err(Wrong::of("D4", format!("a message was not stored after {tries} tries: {error}")));
            }
            if tries > 1 {
                tokio::time::sleep(PUBLISH_AGAIN_AFTER).await;
            }
            last = instance.publish(topic, vec![payload.clone()]).await.pop().unwrap_or(Ok(()));
            tries += 1;
        }
    }
    Ok(())
}

/// Publishes numbered messages, and receives and acknowledges them meanwhile, for a publish may wait for its subscribers.
async fn exchange(
    instance: &Instance,
    topic: &str,
    inbox: &mut Inbox,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<Arrived>, Wrong> {
    let publishing = deposit(instance, topic, Payload::numbered(numbers.clone()));
    let ((), acked) = tokio::try_join!(publishing, inbox.ack_numbers(numbers, ARRIVE_WAIT))?;
    Ok(acked)
}

/// Takes that many different messages without settling them. Copies of them that come at once are thrown away.
async fn hold(inbox: &mut Inbox, count: usize) -> Result<Vec<Arrived>, Wrong> {
    let (mut held, mut seen) = (Vec::new(), HashSet::new());
    let until = Instant::now() + ARRIVE_WAIT;
    while held.len() < count {
        match inbox.next_until(until).await {
            Some(arrived) if seen.insert(arrived.id.clone()) => held.push(arrived),
            Some(_) => {}
            None => return Err(Wrong::of("D6", format!("only {} of {count} messages arrived", held.len()))),
        }
    }
    Ok(held)
}

/// The first of each message that arrived, in order.
fn distinct(arrived: Vec<Arrived>) -> Vec<Arrived> {
    let mut seen = HashSet::new();
    arrived.into_iter().filter(|arrived| seen.insert(arrived.id.clone())).collect()
}
