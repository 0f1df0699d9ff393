//! The one exit of a delivery: the only place that acts on a `Disposition`. Called by `deliver`.
//!
//! Dead-lettering is a publish like any other (scope, outbound policy, confirm) of the message as it came, and the
//! acknowledgement follows the confirm. Absent on purpose: deciding anything.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::{Message, Verdict};
use crate::delivery::{Delivery, Disposition, Reason};
use crate::events::{self, About};
use crate::metrics::Ingress;
use crate::policy::Family;
use crate::publish;
use crate::steps::step;
use crate::topology::{Subscription, Topology};

/// The wait before the next delivery of a message that was given back after its first attempt; it doubles with each
/// further one, so that a message that always fails is never a hot loop.
pub(crate) const RETRY_WAIT_MIN: Duration = Duration::from_secs(1);

/// The longest such wait.
pub(crate) const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// The metadata entry that Dapr's runtime adds to what it delivers, and so to what it dead-letters.
const PUBSUB_NAME: &str = "pubsubName";

/// What a disposition is carried out with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit<'a> {
    /// The rules this delivery began with.
    pub(crate) topology: &'a Topology,
    /// The subscription it came on.
    pub(crate) subscription: &'a Subscription,
    /// Its counters.
    pub(crate) counts: &'a Ingress,
    /// Where dead letters go.
    pub(crate) dead_letter_topic: Option<&'a Arc<str>>,
    /// The event's id, for the log; empty if there is none.
    pub(crate) event_id: &'a str,
    /// The number of the delivery's last attempt.
    pub(crate) attempt: u32,
    /// How far the subscription is on its way to its end.
    pub(crate) stopping: &'a Stopping,
}

/// The two steps of an orderly stop.
#[derive(Debug)]
pub(crate) struct Stopping {
    /// Nothing is begun or given back any more.
    pub(crate) stop: CancellationToken,
    /// What is under way is not waited for any more.
    pub(crate) abandoned: CancellationToken,
}

impl Stopping {
    /// An end of its own, that also comes with that of the whole.
    pub(crate) fn within(stop: &CancellationToken) -> Self {
        Self { stop: stop.child_token(), abandoned: CancellationToken::new() }
    }
}

/// What became of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// What the broker calls the message.
    pub(crate) message_id: String,
    /// Whether the broker delivers it again, as far as this host knows.
    pub(crate) comes_back: bool,
}

/// How long a message that has had so many attempts waits at the broker for its next delivery.
pub(crate) fn retry_wait(attempts: u32) -> Duration {
    RETRY_WAIT_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(RETRY_WAIT_MAX)
}

/// Carries out what was decided.
pub(crate) async fn settle(exit: Exit<'_>, mut delivery: Delivery, disposition: Disposition) -> Settled {
    let message_id = std::mem::take(&mut delivery.id);
    let topic = Arc::clone(&delivery.message.topic);
    let Exit { subscription, counts, event_id, attempt, .. } = exit;
    let about = About { subscription, counts, topic: &topic, message_id: &message_id, event_id, attempt };
    let comes_back = match disposition {
        Disposition::Ack => finish(about, delivery, Verdict::Ack, || events::delivered(about)).await,
        Disposition::Drop(reason) => finish(about, delivery, Verdict::Ack, || events::dropped(about, &reason)).await,
        Disposition::RetryAfter(wait, reason) => give_back(about, delivery, wait, &reason).await,
        Disposition::DeadLetter(reason) => dead_letter(exit, about, delivery, &reason).await,
        Disposition::Hold => hold(about, delivery),
    };
    Settled { message_id, comes_back }
}

/// Tells the broker, and says so where it took it. Whether the message comes back.
async fn finish(about: About<'_>, delivery: Delivery, verdict: Verdict, told: impl FnOnce()) -> bool {
    step("settle.before-ack");
    match delivery.finish(verdict).await {
        Ok(()) => {
            step("settle.acked");
            told();
        }
        Err(error) => {
            events::unsettled(about, &error);
            return true;
        }
    }
    verdict != Verdict::Ack
}

async fn give_back(about: About<'_>, delivery: Delivery, wait: Duration, reason: &Reason) -> bool {
    finish(about, delivery, Verdict::Retry(wait), || events::retried(about, reason, wait)).await
}

fn hold(about: About<'_>, delivery: Delivery) -> bool {
    delivery.hold();
    events::held(about);
    true
}

/// Publishes to the dead-letter topic, waits for the confirm, then acknowledges. Without the confirm it does neither,
/// save for what has expired: nobody wants that, so it goes in any case.
async fn dead_letter(exit: Exit<'_>, about: About<'_>, mut delivery: Delivery, reason: &Reason) -> bool {
    let Some(topic) = exit.dead_letter_topic else {
        return give_back(about, delivery, retry_wait(exit.attempt), reason).await;
    };
    let message = letter(&exit.subscription.declared.pubsub, topic, &mut delivery.message);
    let caller = &exit.subscription.caller;
    step("settle.before-dead-letter");
    let published = async {
        let Some(broker) = exit.topology.broker(&exit.subscription.declared.pubsub, caller) else {
            return Err("there is no such broker any more".to_owned());
        };
        let stored = publish::store(exit.topology, broker, caller, message, &about.event_id, Family::Grpc).await;
        stored.map_err(|error| error.to_string())
    };
    let published = tokio::select! {
        biased;
        published = published => published,
        () = exit.stopping.abandoned.cancelled() => return hold(about, delivery),
    };
    match published {
        Ok(()) => {
            step("settle.dead-lettered");
            finish(about, delivery, Verdict::Ack, || events::dead_lettered(about, reason, topic)).await
        }
        Err(error) => {
            events::dead_letter_failed(about, reason, topic, &error);
            if *reason == Reason::Expired {
                return finish(about, delivery, Verdict::Ack, || events::dropped(about, reason)).await;
            }
            if exit.stopping.stop.is_cancelled() {
                return hold(about, delivery);
            }
            give_back(about, delivery, retry_wait(exit.attempt), reason).await
        }
    }
}

/// The message as it came, addressed to the dead-letter topic.
fn letter(pubsub: &str, topic: &Arc<str>, original: &mut Message) -> Message {
    let mut metadata = std::mem::take(&mut original.metadata);
    if !metadata.iter().any(|(name, _)| name == PUBSUB_NAME) {
        metadata.push((PUBSUB_NAME.to_owned(), pubsub.to_owned()));
    }
    Message { topic: Arc::clone(topic), key: original.key.take(), data: original.data.clone(), metadata }
}

#[cfg(test)]
mod tests;
