//! A time to live that runs out while nobody consumes.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use whimbrel_pubsub::BrokerError;

use crate::check::{Check, Finding, Need, Tested, Wrong};
use crate::rig::{Inbox, Instance, Payload, Rig};

/// The metadata that says it.
const TTL: &str = "ttlInSeconds";

/// What is to expire, and what is not.
const SHORT: &str = "1";
const LONG: &str = "600";

/// How long nobody consumes.
const ABSENCE: Duration = Duration::from_secs(3);

/// How long what has not expired may take to arrive.
const ARRIVE_WAIT: Duration = Duration::from_secs(20);

/// How long what has expired could still come after that.
const LATE: Duration = Duration::from_secs(1);

/// Values that mean nothing, or more than a broker can.
const ODD: [&str; 5] = ["0", "-1", "abc", "99999999999999999999", ""];

pub(super) const CHECKS: &[Check] = &[Check {
    id: "S12",
    title: "lets messages expire at the broker",
    expects: "of two messages that nobody consumes for a while, the one whose `ttlInSeconds` has run out is not delivered and \
              the other is; a `ttlInSeconds` that makes no sense is answered, one way or the other",
    cause: "a TTL that is only stored, or one that the broker takes in another unit",
    read: "wit/broker.wit, `feature`: ttl",
    needs: &[Need::Shared, Need::Ttl, Need::Queue],
    bound: Some(Duration::from_secs(90)),
    run: |rig| Box::pin(expiry(rig)),
}];

async fn expiry(rig: &Rig) -> Tested {
    let (topic, group) = (rig.topic("ttl").await?, rig.group("ttl"));
    let instance = rig.instance("one").await?;
    // The group has to be known before anything is published, on brokers that keep nothing for others.
    let mut inbox = subscribe(&instance, &topic, &group).await?;
    inbox.stop().await?;
    drop(inbox);
    for ttl in [SHORT, LONG] {
        let answers = instance.publish(&topic, vec![Payload::of(ttl).with(TTL, ttl)]).await;
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            return Err(Wrong::new(format!("a message with {TTL} {ttl} was refused: {error}")));
        }
    }
    sleep_until(Instant::now() + ABSENCE).await;
    let mut inbox = subscribe(&instance, &topic, &group).await?;
    let mut came = Vec::new();
    let mut until = Instant::now() + ARRIVE_WAIT;
    while let Some(arrived) = inbox.next_until(until).await {
        inbox.ack(&arrived).await?;
        let text = String::from_utf8_lossy(&arrived.message.data).into_owned();
        if text == LONG {
            until = Instant::now() + LATE;
        }
        came.push(text);
    }
    if came.iter().any(|ttl| ttl == SHORT) {
        let what = format!("a message with {TTL} {SHORT} was delivered after {} s", ABSENCE.as_secs());
        return Err(Wrong::of("C11", what));
    }
    if !came.iter().any(|ttl| ttl == LONG) {
        return Err(Wrong::new(format!(
            "a message with {TTL} {LONG} was not delivered within {} s",
            ARRIVE_WAIT.as_secs()
        )));
    }
    odd(&instance, &topic).await?;
    Ok(Finding::Passed)
}

async fn subscribe(instance: &Instance, topic: &str, group: &str) -> Result<Inbox, Wrong> {
    let inbox = instance.subscribe(topic, group, 10).await;
    inbox.map_err(|error| Wrong::of("D3", format!("subscribing to {topic} failed: {error}")))
}

/// Taken or refused, but at once, and by an adapter that lives on.
async fn odd(instance: &Instance, topic: &str) -> Result<(), Wrong> {
    for ttl in ODD {
        let answers = instance.publish(topic, vec![Payload::of("odd").with(TTL, ttl)]).await;
        let state = instance.state();
        if let Some(Err(error @ (BrokerError::Unknown(_) | BrokerError::Transient(_)))) = answers.first() {
            let what = format!(
                "a message with {TTL} {ttl:?} must be taken or refused for good, and was answered: {error} ({state:?})"
            );
            return Err(Wrong::new(what));
        }
    }
    Ok(())
}
