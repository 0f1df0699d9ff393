//! The spine of a publish. Called by every door, and by a handler's own publish; its second half by `settle`, for
//! dead letters.
//!
//! Which error wins is part of the contract: broker, topic, `rawPayload`, envelope, scope, broker's answer
//! (pubsub-behaviour, section 0).

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Broker, Message};
use crate::error::{BrokerError, PublishError};
use crate::policy::{Attempts, Code, Family, Guard};
use crate::request::{Caller, PublishRequest};
use crate::steps::step;
use crate::topology::Topology;
use crate::{envelope, events, scope};

/// How long one try to publish may take, where no policy says it. A broker that is away answers nobody in this time.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(30);

/// Publishes one message. Success: the broker has confirmed it, as durably as it was configured.
///
/// # Errors
/// See [`PublishError`]; after [`PublishError::Broker`] with [`BrokerError::Unknown`] the message may be stored.
pub async fn publish(topology: &Topology, request: PublishRequest) -> Result<(), PublishError> {
    let broker = find(topology, &request)?;
    let caller = request.caller.clone();
    let native_ttl = broker.features.get().is_some_and(|features| features.ttl);
    let (message, id) = envelope::wrap(request, &topology.environment, native_ttl)?;
    step("publish.wrapped");
    let egress = topology.environment.metrics.egress(&caller.app_id, &broker.declared.name, &message.topic);
    let begun = Instant::now();
    let result = store(topology, broker, &caller, message, &id, Family::Http).await;
    egress.published(result.is_ok(), begun.elapsed());
    result
}

fn find<'a>(topology: &'a Topology, request: &PublishRequest) -> Result<&'a Broker, PublishError> {
    let pubsub = &request.pubsub;
    if pubsub.is_empty() {
        return Err(PublishError::PubsubEmpty);
    }
    let broker = topology.broker(pubsub, &request.caller);
    let broker = broker.ok_or_else(|| PublishError::NotFound { pubsub: pubsub.clone() })?;
    if request.topic.is_empty() {
        return Err(PublishError::TopicEmpty { pubsub: pubsub.clone() });
    }
    Ok(broker)
}

/// Hands a finished message to its broker: scope, policy, confirm.
///
/// # Errors
/// [`PublishError::Forbidden`] or [`PublishError::Broker`].
pub(crate) async fn store(
    topology: &Topology,
    broker: &Broker,
    caller: &Caller,
    message: Message,
    event_id: &(dyn fmt::Display + Sync),
    family: Family,
) -> Result<(), PublishError> {
    let topic = message.topic.clone();
    if !scope::allow_publish(&broker.declared.topic_scopes, &caller.app_id, &topic) {
        return Err(PublishError::Forbidden {
            topic: topic.as_ref().to_owned(),
            app_id: caller.app_id.as_ref().to_owned(),
        });
    }
    fits(broker, &message).map_err(|error| PublishError::Broker {
        topic: topic.as_ref().to_owned(),
        pubsub: broker.declared.name.clone(),
        error,
    })?;
    attempts(topology, broker, message, event_id, family).await.map_err(|error| {
        events::publish_failed(broker, &topic, event_id, &error);
        PublishError::Broker { topic: topic.as_ref().to_owned(), pubsub: broker.declared.name.clone(), error }
    })
}

/// Whether the broker can take a message of this size; so a plugin never has to hold one that it cannot pass on.
fn fits(broker: &Broker, message: &Message) -> Result<(), BrokerError> {
    let bytes_max = broker.features.get().map_or(0, |features| features.max_message_bytes);
    let pairs: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = (message.data.len() + pairs) as u64;
    if bytes_max > 0 && bytes > bytes_max {
        return Err(BrokerError::Invalid(format!("the message has {bytes} bytes, the broker takes {bytes_max}")));
    }
    Ok(())
}

/// As many attempts as the outbound policy allows. A retry sends the same message again: the broker may then have it
/// twice, with one event id.
async fn attempts(
    topology: &Topology,
    broker: &Broker,
    message: Message,
    event_id: &(dyn fmt::Display + Sync),
    family: Family,
) -> Result<(), BrokerError> {
    let policy = topology.policies.outbound(&broker.declared.name);
    let mut attempts = Attempts::new(policy, &topology.environment.random);
    let mut next = Some(message);
    loop {
        // Only an attempt that another may follow needs a copy.
        let kept = if attempts.is_last() { None } else { next.clone() };
        let Some(message) = next.take() else { return Err(BrokerError::Closed) };
        let pass = broker.guard(policy).map(Guard::enter).transpose();
        let pass = pass.map_err(|refused| BrokerError::Broken(refused.to_string()))?;
        let result = attempt(broker, message, event_id, policy.timeout).await;
        if let Some(pass) = pass {
            pass.end(result.is_ok());
        }
        let error = match result {
            Ok(()) => {
                step("publish.confirmed");
                return Ok(());
            }
            Err(error) => error,
        };
        let code = Code::of_publish(&error, family);
        let (Some(kept), Some(asked), Some(wait)) = (kept, worth_a_retry(&error), attempts.advance_after(code)) else {
            return Err(error);
        };
        let wait = wait.max(asked);
        events::publish_retried(broker, &kept.topic, event_id, &error, wait);
        tokio::time::sleep(wait).await;
        next = Some(kept);
    }
}

async fn attempt(
    broker: &Broker,
    message: Message,
    event_id: &(dyn fmt::Display + Sync),
    timeout: Option<Duration>,
) -> Result<(), BrokerError> {
    events::publishing(broker, &message.topic, event_id);
    let deadline = Instant::now() + timeout.unwrap_or(PUBLISH_DEADLINE);
    let results = broker.publish(vec![message], deadline).await;
    // A worker that answers for fewer messages than it was given has not confirmed them.
    let missing = || Err(BrokerError::Unknown("the adapter gave no result".to_owned()));
    results.into_iter().next().unwrap_or_else(missing)
}

/// How long the broker asks to wait before the same call may succeed. `None`: it never will.
fn worth_a_retry(error: &BrokerError) -> Option<Duration> {
    match error {
        BrokerError::Transient(_) | BrokerError::Unknown(_) | BrokerError::Overloaded => Some(Duration::ZERO),
        BrokerError::Throttled { retry_after, .. } => Some(*retry_after),
        BrokerError::Permanent(_)
        | BrokerError::Unauthorized(_)
        | BrokerError::Invalid(_)
        | BrokerError::Broken(_)
        | BrokerError::Closed => None,
    }
}

#[cfg(test)]
mod tests;
