//! What is worth telling: one function for each thing that can happen to a message, which writes its log line. Called
//! by the spines and `settle`; what became of a delivery is counted here too. Every line has the ids, so that a message can be followed; none has data.
//!
//! TRACE: all is well. WARN: it was mended, or the subscriber wanted it so. ERROR: an operator is needed.

use std::fmt;
use std::time::Duration;

use crate::broker::Broker;
use crate::delivery::Reason;
use crate::error::{BrokerError, SettleError};
use crate::metrics::Ingress;
use crate::topology::Subscription;

/// Which delivery a line is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// The subscription it came on.
    pub(crate) subscription: &'a Subscription,
    /// Its counters.
    pub(crate) counts: &'a Ingress,
    /// The actual topic.
    pub(crate) topic: &'a str,
    /// What the broker calls the message.
    pub(crate) message_id: &'a str,
    /// The event's id; empty if the message is no event.
    pub(crate) event_id: &'a str,
    /// The number of the delivery's last attempt; 0 if it was held on arrival.
    pub(crate) attempt: u32,
}

/// One line about a delivery. A macro, because the level must be known at compile time.
macro_rules! tell {
    ($level:ident, $about:expr, $($rest:tt)+) => {{
        let About { subscription, topic, message_id, event_id, attempt, .. } = $about;
        tracing::$level!(
            pubsub = subscription.declared.pubsub,
            topic,
            app_id = &*subscription.caller.app_id,
            event_id,
            message_id,
            attempt,
            $($rest)+
        );
    }};
}

/// A message is on its way to the broker.
pub(crate) fn publishing(broker: &Broker, topic: &str, event_id: &(dyn fmt::Display + Sync)) {
    tracing::trace!(pubsub = broker.declared.name, topic, %event_id, "publishing");
}

/// One try to publish failed, and another follows.
pub(crate) fn publish_retried(
    broker: &Broker,
    topic: &str,
    event_id: &(dyn fmt::Display + Sync),
    error: &BrokerError,
    wait: Duration,
) {
    let pubsub = &broker.declared.name;
    tracing::warn!(pubsub, topic, %event_id, %error, ?wait, "publishing failed and is tried again");
}

/// A message could not be published; its publisher is told.
pub(crate) fn publish_failed(broker: &Broker, topic: &str, event_id: &(dyn fmt::Display + Sync), error: &BrokerError) {
    tracing::warn!(pubsub = broker.declared.name, topic, %event_id, %error, "publishing failed");
}

/// The subscriber has it, and the broker knows.
pub(crate) fn delivered(about: About<'_>) {
    tell!(trace, about, "delivered");
}

/// An attempt failed, and another follows within this delivery.
pub(crate) fn attempt_failed(about: About<'_>, error: &str, wait: Duration) {
    tell!(warn, about, error, ?wait, "an attempt failed and is made again");
}

/// It goes back to the broker for another delivery.
pub(crate) fn retried(about: About<'_>, reason: &Reason, wait: Duration) {
    about.counts.given_back(reason);
    tell!(warn, about, %reason, ?wait, "given back, to be delivered again");
}

/// It was acknowledged and nobody will see it again.
pub(crate) fn dropped(about: About<'_>, reason: &Reason) {
    about.counts.dropped(reason);
    match reason {
        Reason::Forbidden => tell!(error, about, %reason, "dropped"),
        _ => tell!(warn, about, %reason, "dropped"),
    }
}

/// It stands in the dead-letter topic, and was acknowledged.
pub(crate) fn dead_lettered(about: About<'_>, reason: &Reason, dead_letter_topic: &str) {
    about.counts.dead_lettered(reason);
    tell!(warn, about, %reason, dead_letter_topic, "dead-lettered");
}

/// It could not be published to the dead-letter topic, so it was not acknowledged either.
pub(crate) fn dead_letter_failed(about: About<'_>, reason: &Reason, dead_letter_topic: &str, error: &str) {
    tell!(error, about, %reason, dead_letter_topic, error, "cannot be dead-lettered");
}

/// It stays with the broker, for this process stops or the broker's adapter was lost.
pub(crate) fn held(about: About<'_>) {
    tell!(debug, about, "held, the broker keeps it");
}

/// What was decided had no effect at the broker, which delivers the message again.
pub(crate) fn unsettled(about: About<'_>, error: &SettleError) {
    match error {
        SettleError::Stale => tell!(debug, about, %error, "not settled, comes again"),
        SettleError::Failed(_) => tell!(warn, about, %error, "not settled, may come again"),
    }
}

/// Messages flow.
pub(crate) fn subscribed(subscription: &Subscription) {
    let (declared, app_id) = (&subscription.declared, &*subscription.caller.app_id);
    tracing::info!(pubsub = declared.pubsub, topic = declared.topic, app_id, "subscribed");
}

/// Messages do not flow, and another try follows.
pub(crate) fn not_subscribed(subscription: &Subscription, error: &BrokerError) {
    let (declared, app_id) = (&subscription.declared, &*subscription.caller.app_id);
    match error {
        BrokerError::Invalid(_) | BrokerError::Unauthorized(_) | BrokerError::Permanent(_) => {
            tracing::error!(pubsub = declared.pubsub, topic = declared.topic, app_id, %error, "cannot subscribe");
        }
        _ => tracing::warn!(pubsub = declared.pubsub, topic = declared.topic, app_id, %error, "cannot subscribe yet"),
    }
}

/// Messages will not flow: the app may not have them, or there is no such broker for it.
pub(crate) fn never_subscribed(subscription: &Subscription, why: &str) {
    let (declared, app_id) = (&subscription.declared, &*subscription.caller.app_id);
    tracing::error!(pubsub = declared.pubsub, topic = declared.topic, app_id, "not subscribed: {why}");
}

/// A feed is left for one of another instance of the adapter, with so many messages still in work.
pub(crate) fn feed_left(subscription: &Subscription, unfinished: usize) {
    let (declared, app_id) = (&subscription.declared, &*subscription.caller.app_id);
    tracing::info!(pubsub = declared.pubsub, topic = declared.topic, app_id, unfinished, "the subscription moves");
}

/// A feed ended by itself.
pub(crate) fn feed_lost(subscription: &Subscription, error: &BrokerError) {
    let (declared, app_id) = (&subscription.declared, &*subscription.caller.app_id);
    tracing::warn!(pubsub = declared.pubsub, topic = declared.topic, app_id, %error, "the subscription was lost");
}
