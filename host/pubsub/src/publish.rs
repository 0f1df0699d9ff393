//! The spine of a publish, of one message or of several. Called by every door, and by a handler's own publish; its
//! second half by `settle`, for dead letters.
//!
//! Which error wins is part of the contract: broker, topic, `rawPayload`, envelope, scope, broker's answer
//! (pubsub-behaviour, section 0).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::broker::{Broker, Message, Metadata};
use crate::envelope::Draft;
use crate::error::{BrokerError, PublishError};
use crate::metrics::Flow;
use crate::policy::{Attempts, Code, Family, Policed};
use crate::request::{BulkRequest, Caller, FailedEntry, PublishRequest};
use crate::spans::{Recording, SpanKind};
use crate::steps::step;
use crate::topology::Topology;
use crate::{envelope, events, scope};

/// How long one try to publish may take, where no policy says it. A broker that is away answers nobody in this time.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of the messages that are handed to a broker in one call; one message alone may have more.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Calls for one request that wait for the broker at the same time.
const BATCHES_AT_ONCE: usize = 16;

/// What became of one message.
type Stored = Result<(), BrokerError>;

/// The event a message holds, for the log.
type Id<'a> = &'a (dyn fmt::Display + Sync);

/// Where messages go, and by whose list of codes a failure is matched.
#[derive(Clone, Copy)]
struct Target<'a> {
    topology: &'a Topology,
    broker: &'a Broker,
    topic: &'a str,
    family: Family,
}

/// Publishes one message. Success: the broker has confirmed it, as durably as it was configured.
///
/// # Errors
/// See [`PublishError`]; after [`PublishError::Broker`] with [`BrokerError::Unknown`] the message may be stored.
pub async fn publish(topology: &Topology, request: PublishRequest) -> Result<(), PublishError> {
    let PublishRequest { caller, pubsub, topic, data, content_type, metadata, trace } = request;
    let broker = find(topology, &caller, &pubsub, &topic)?;
    let raw = envelope::raw_payload(&metadata)?;
    let draft = Draft {
        app_id: &caller.app_id,
        pubsub: &pubsub,
        topic: &Arc::from(topic),
        data: &data,
        content_type: content_type.as_deref(),
        trace: &trace,
    };
    let (message, id) = envelope::wrap(draft, metadata, raw, &topology.environment, has_ttl(broker))?;
    // The message has what it needs of it; the broker's answer may be long in coming.
    drop(data);
    step("publish.wrapped");
    let egress = topology.environment.metrics.egress(&caller.app_id, &broker.declared.name, &message.topic);
    let begun = Instant::now();
    let result = store(topology, broker, &caller, message, &id, Family::Http).await;
    egress.published(result.is_ok(), begun.elapsed());
    result
}

/// Publishes several messages to one topic, and says which of them failed and why. What is not named is confirmed, as
/// durably as the broker was configured; the order among them is the broker's affair (pubsub-behaviour, section 2).
///
/// # Errors
/// See [`PublishError`]: nothing was published, for the request or one of its entries is wrong.
/// [`PublishError::Broker`] is never among them.
pub async fn publish_bulk(topology: &Topology, request: BulkRequest) -> Result<Vec<FailedEntry>, PublishError> {
    let BulkRequest { caller, pubsub, topic, entries, metadata, mut trace } = request;
    let broker = find(topology, &caller, &pubsub, &topic)?;
    let raw = envelope::raw_payload(&metadata)?;
    let (topic, native_ttl) = (Arc::from(topic), has_ttl(broker));
    let (mut names, mut messages) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    let mut ids = Vec::with_capacity(entries.len());
    let (call, mut spans) = (trace.parent, Vec::new());
    for entry in entries {
        trace.parent = call;
        let span = topology.environment.tracer.begin(&mut trace, SpanKind::Producer, |span| {
            span.name = format!("publish {topic}").into();
            span.set_topic(&topic);
        });
        if span.is_sampled() {
            spans.push((ids.len(), span));
        }
        let draft = Draft {
            app_id: &caller.app_id,
            pubsub: &pubsub,
            topic: &topic,
            data: &entry.data,
            content_type: entry.content_type.as_deref(),
            trace: &trace,
        };
        let metadata = entry.metadata.map(|own| merged(own, &metadata)).unwrap_or_default();
        let (message, id) = envelope::wrap(draft, metadata, raw, &topology.environment, native_ttl)?;
        names.push(entry.id);
        messages.push(message);
        ids.push(id);
    }
    step("publish.wrapped");
    let ids: Vec<Id<'_>> = ids.iter().map(|id| id as Id<'_>).collect();
    let egress = topology.environment.metrics.egress(&caller.app_id, &broker.declared.name, &topic);
    let begun = Instant::now();
    let target = Target { topology, broker, topic: &topic, family: Family::Http };
    let result = store_all(target, &caller, messages, &ids).await;
    end_spans(spans, &result);
    let all_stored = result.as_ref().is_ok_and(|stored| stored.iter().all(Result::is_ok));
    egress.published_bulk(all_stored, begun.elapsed());
    let failed = names.into_iter().zip(result?).filter_map(|(id, stored)| Some((id, stored.err()?)));
    Ok(failed.map(|(id, error)| FailedEntry { id, error }).collect())
}

/// Ends the spans of the entries at these places.
fn end_spans(spans: Vec<(usize, Recording)>, result: &Result<Vec<Stored>, PublishError>) {
    for (place, span) in spans {
        span.end(|span| {
            span.error = match result {
                Ok(stored) => stored.get(place).and_then(|stored| stored.as_ref().err()).map(ToString::to_string),
                Err(error) => Some(error.to_string()),
            };
        });
    }
}

/// What is wrong with a request before its payload is looked at. For a door that cannot read the payload: which error
/// wins is part of the contract.
///
/// # Errors
/// As [`publish`], as far as `rawPayload`.
pub fn check(
    topology: &Topology,
    caller: &Caller,
    pubsub: &str,
    topic: &str,
    metadata: &Metadata,
) -> Result<(), PublishError> {
    find(topology, caller, pubsub, topic)?;
    envelope::raw_payload(metadata).map(drop)
}

/// An entry's metadata, and what only the request has.
fn merged(mut own: Metadata, request: &Metadata) -> Metadata {
    for (name, value) in request {
        if !own.iter().any(|(known, _)| known == name) {
            own.push((name.clone(), value.clone()));
        }
    }
    own
}

fn find<'a>(topology: &'a Topology, caller: &Caller, pubsub: &str, topic: &str) -> Result<&'a Broker, PublishError> {
    if pubsub.is_empty() {
        return Err(PublishError::PubsubEmpty);
    }
    let broker = topology.broker(pubsub, caller).ok_or_else(|| PublishError::NotFound { pubsub: pubsub.to_owned() })?;
    if topic.is_empty() {
        return Err(PublishError::TopicEmpty { pubsub: pubsub.to_owned() });
    }
    Ok(broker)
}

/// Whether the broker drops what has outlived its time to live.
fn has_ttl(broker: &Broker) -> bool {
    broker.features.get().is_some_and(|features| features.ttl)
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
    event_id: Id<'_>,
    family: Family,
) -> Result<(), PublishError> {
    let topic = Arc::clone(&message.topic);
    let target = Target { topology, broker, topic: &topic, family };
    let stored = store_all(target, caller, vec![message], &[event_id]).await?;
    stored.into_iter().collect::<Stored>().map_err(|error| PublishError::Broker {
        topic: topic.as_ref().to_owned(),
        pubsub: broker.declared.name.clone(),
        error,
    })
}

/// Hands finished messages of one topic to their broker. One result for each, in order.
async fn store_all(
    target: Target<'_>,
    caller: &Caller,
    messages: Vec<Message>,
    ids: &[Id<'_>],
) -> Result<Vec<Stored>, PublishError> {
    let Target { broker, topic, .. } = target;
    if !scope::allow_publish(&broker.declared.topic_scopes, &caller.app_id, topic) {
        return Err(PublishError::Forbidden { topic: topic.to_owned(), app_id: caller.app_id.as_ref().to_owned() });
    }
    let stored = attempts(target, messages, ids).await;
    for (stored, id) in stored.iter().zip(ids) {
        if let Err(error) = stored {
            events::publish_failed(broker, topic, *id, error);
        }
    }
    Ok(stored)
}

/// Whether the broker can take a message of this size; so a plugin never has to hold one that it cannot pass on.
fn fits(broker: &Broker, message: &Message) -> Result<(), BrokerError> {
    let bytes_max = broker.features.get().map_or(0, |features| features.max_message_bytes);
    let bytes = bytes(message) as u64;
    if bytes_max > 0 && bytes > bytes_max {
        return Err(BrokerError::Invalid(format!("the message has {bytes} bytes, the broker takes {bytes_max}")));
    }
    Ok(())
}

fn bytes(message: &Message) -> usize {
    let pairs: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    message.data.len() + pairs
}

/// As many attempts as the outbound policy allows, each only with what failed in the one before and may succeed later.
/// A retry sends the same message again: the broker may then have it twice, with one event id.
async fn attempts(target: Target<'_>, messages: Vec<Message>, ids: &[Id<'_>]) -> Vec<Stored> {
    let Target { topology, broker, topic, family } = target;
    let policed = Policed::begin(topology, &broker.declared.name, Some(broker), Flow::Outbound);
    let mut attempts = Attempts::new(policed.policy, &topology.environment.random);
    let mut stored: Vec<Stored> = messages.iter().map(|message| fits(broker, message)).collect();
    let mut places: Vec<usize> = (0..stored.len()).filter(|place| stored[*place].is_ok()).collect();
    let mut due = messages;
    if places.len() < due.len() {
        let mut fitting = stored.iter().map(Result::is_ok);
        due.retain(|_| fitting.next().unwrap_or_default());
    }
    while !due.is_empty() {
        // Only an attempt that another may follow needs copies.
        let mut kept = if attempts.is_last() { Vec::new() } else { due.clone() };
        for place in &places {
            events::publishing(broker, topic, ids[*place]);
        }
        for (place, answer) in places.iter().zip(guarded(broker, due, &policed).await) {
            stored[*place] = answer;
        }
        let asked = |place: &usize| {
            let error = stored[*place].as_ref().err();
            let error = error.filter(|error| attempts.retries(Code::of_publish(error, family)));
            error.and_then(worth_a_retry)
        };
        let Some(least) = places.iter().filter_map(asked).max() else { break };
        let mut again = places.iter().map(|place| asked(place).is_some());
        kept.retain(|_| again.next().unwrap_or_default());
        places.retain(|place| asked(place).is_some());
        let Some(wait) = attempts.advance() else { break };
        policed.retried();
        let wait = wait.max(least);
        for place in &places {
            if let Err(error) = &stored[*place] {
                events::publish_retried(broker, topic, ids[*place], error, wait);
            }
        }
        tokio::time::sleep(wait).await;
        due = kept;
    }
    stored
}

/// One attempt, if the circuit breaker lets it pass. It counts as one, however many messages it has.
async fn guarded(broker: &Broker, messages: Vec<Message>, policed: &Policed<'_>) -> Vec<Stored> {
    let leave = match policed.enter() {
        Ok(leave) => leave,
        Err(refused) => return vec![Err(BrokerError::Broken(refused.to_string())); messages.len()],
    };
    let (begun, timeout) = (Instant::now(), policed.policy.timeout);
    let answers = attempt(broker, messages, timeout).await;
    let succeeded = answers.iter().all(Result::is_ok);
    // The adapter, which knows the deadline too, may have been the one to give up.
    if !succeeded && timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
        policed.timed_out();
    }
    leave.end(succeeded);
    answers
}

/// Hands messages to the broker, in as few calls as it allows. One answer for each, in order.
async fn attempt(broker: &Broker, messages: Vec<Message>, timeout: Option<Duration>) -> Vec<Stored> {
    let deadline = Instant::now() + timeout.unwrap_or(PUBLISH_DEADLINE);
    if messages.len() == 1 {
        return call(broker, messages, deadline).await;
    }
    let calls = stream::iter(batches(broker, messages)).map(|batch| call(broker, batch, deadline));
    // Boxed: a message that comes alone needs no room for all of these.
    Box::pin(calls.buffered(BATCHES_AT_ONCE).concat()).await
}

/// Hands over what goes into one call.
async fn call(broker: &Broker, batch: Vec<Message>, deadline: Instant) -> Vec<Stored> {
    let count = batch.len();
    let mut answers = broker.publish(batch, deadline).await;
    if answers.iter().all(Result::is_ok) && answers.len() == count {
        step("publish.confirmed");
    }
    // A worker that answers for fewer messages than it was given has not confirmed them.
    answers.resize_with(count, || Err(BrokerError::Unknown("the adapter gave no result".to_owned())));
    answers
}

/// Messages in lists that the broker takes in one call.
fn batches(broker: &Broker, messages: Vec<Message>) -> Vec<Vec<Message>> {
    // What a broker takes that is not open yet is its worker's to know.
    let messages_max = broker.features.get().map_or(u32::MAX, |features| features.max_batch.max(1));
    let messages_max = usize::try_from(messages_max).unwrap_or(usize::MAX);
    let mut batches = Vec::with_capacity(1);
    let (mut batch, mut held) = (Vec::with_capacity(messages.len().min(messages_max)), 0);
    for message in messages {
        let more = bytes(&message);
        if !batch.is_empty() && (batch.len() >= messages_max || held + more > BATCH_BYTES_MAX) {
            batches.push(std::mem::take(&mut batch));
            held = 0;
        }
        held += more;
        batch.push(message);
    }
    batches.push(batch);
    batches
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
