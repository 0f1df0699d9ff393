//! The broker's side of a subscription: a durable consumer for each group and topic.
//!
//! It is found or made, never changed: others may share it. Normally messages are pulled from it. One that Dapr's component
//! made, or `queueGroupName` asks for, pushes them to whoever listens in its group, and is shared with Dapr's replicas.

use std::time::Duration;

use whimbrel_sdk::Failure;

use crate::api::{self, ApiError, ConsumerConfig, ConsumerInfo, ConsumerRequest};
use crate::config::Start;
use crate::failure::{number, of_api};
use crate::hub::{Hub, nanos};
use crate::streams;

/// What the broker takes for `ackWait` by itself.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// How often one that is created by somebody else meanwhile is looked for again.
const TRIES: usize = 3;

/// What a subscription wants of the broker.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) topic: String,
    pub(crate) group: String,
    /// The consumer's name, if the user gave one.
    pub(crate) durable: Option<String>,
    pub(crate) start: Start,
}

/// A consumer that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) stream: String,
    pub(crate) name: String,
    /// Where it pushes to, and the group that shares that. None: it is pulled from.
    pub(crate) push: Option<(String, String)>,
    /// How long a delivered message may be left alone.
    pub(crate) lease: Duration,
    /// The most messages, and bytes, that may be pulled at once, and how long a pull may wait. 0: as you like.
    pub(crate) max_batch: usize,
    pub(crate) max_bytes: usize,
    pub(crate) max_expires: Duration,
    /// Messages it has for the group.
    pub(crate) pending: u64,
}

/// Finds or makes the consumer. Whether it was made.
///
/// # Errors
/// It cannot be, or is not as the resource says.
pub(crate) async fn attach(hub: &Hub, wish: &Wish) -> Result<(Consumer, bool), Failure> {
    let stream = streams::provide(hub, &wish.topic).await?;
    let name =
        wish.durable.clone().unwrap_or_else(|| hub.spelled(&wish.group, &format!("{}\0{}", wish.group, wish.topic)));
    let what = format!("the consumer {name} of the stream {stream}");
    for _ in 0..TRIES {
        let error = match info(hub, &stream, &name).await? {
            Ok(info) => return Ok((accept(hub, wish, info)?, false)),
            Err(error) if error.err_code == number::CONSUMER_NOT_FOUND => {
                match create(hub, wish, &stream, &name).await? {
                    Ok(info) => return Ok((accept(hub, wish, info)?, true)),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if error.err_code != number::CONSUMER_EXISTS {
            return Err(of_api(&error, &what));
        }
    }
    Err(Failure::Transient(format!("{what} comes and goes")))
}

/// What the broker knows of a consumer.
///
/// # Errors
/// There is no answer.
pub(crate) async fn info(hub: &Hub, stream: &str, name: &str) -> Result<Result<ConsumerInfo, ApiError>, Failure> {
    hub.api(&format!("CONSUMER.INFO.{stream}.{name}"), b"").await
}

async fn create(hub: &Hub, wish: &Wish, stream: &str, name: &str) -> Result<Result<ConsumerInfo, ApiError>, Failure> {
    let (terms, settings) = (&hub.settings.terms, &hub.settings);
    let (policy, sequence, time) = match &wish.start {
        Start::All => ("all", None, None),
        Start::Last => ("last", None, None),
        Start::New => ("new", None, None),
        Start::Sequence(sequence) => ("by_start_sequence", Some(*sequence), None),
        Start::Time(time) => ("by_start_time", None, Some(time.clone())),
    };
    let config = ConsumerConfig {
        name: name.to_owned(),
        durable_name: name.to_owned(),
        ack_policy: "explicit".to_owned(),
        deliver_policy: policy.to_owned(),
        opt_start_seq: sequence,
        opt_start_time: time,
        deliver_subject: settings.queue_group.as_ref().map(|_| hub.wire.mailbox(hub.wire.number())),
        deliver_group: settings.queue_group.clone(),
        filter_subject: wish.topic.clone(),
        ack_wait: terms.ack_wait.map(nanos),
        max_deliver: terms.max_deliver,
        backoff: terms.back_off.iter().copied().map(nanos).collect(),
        max_ack_pending: terms.max_ack_pending,
        num_replicas: terms.replicas,
        mem_storage: terms.memory_storage,
        ..ConsumerConfig::default()
    };
    let request = api::write(&ConsumerRequest { stream_name: stream, config: &config, action: "create" });
    hub.api(&format!("CONSUMER.CREATE.{stream}.{name}.{}", wish.topic), &request).await
}

/// Checks that a consumer is what this adapter can work with, and what the resource says.
fn accept(hub: &Hub, wish: &Wish, info: ConsumerInfo) -> Result<Consumer, Failure> {
    let config = &info.config;
    let at = format!("the consumer {} of the stream {}", info.name, info.stream_name);
    let differs = |what: &str, remedy: &str| Failure::Invalid(format!("{at} {what}: {remedy}"));
    let ours = [config.filter_subject.as_str()] == [wish.topic.as_str()] && config.filter_subjects.is_empty()
        || config.filter_subjects == [wish.topic.as_str()];
    if !ours {
        let found = if config.filter_subject.is_empty() { "all topics" } else { &config.filter_subject };
        return Err(differs(
            &format!("is for {found}, not for {}", wish.topic),
            "a durable consumer serves one topic: give each subscription a durableName in its own metadata, or remove \
             metadata durableName",
        ));
    }
    if config.ack_policy != "explicit" {
        let remedy = "it must be explicit, or messages that nobody handled would count as handled: delete the consumer";
        return Err(differs(&format!("has the ack policy {}", config.ack_policy), remedy));
    }
    if config.headers_only
        || config.priority_policy.as_deref().is_some_and(|policy| policy != "none" && !policy.is_empty())
    {
        return Err(differs(
            "delivers headers only, or by priority",
            "this adapter cannot use it: choose another durableName",
        ));
    }
    check_terms(hub, config, &differs)?;
    let push = match (&config.deliver_subject, &config.deliver_group) {
        (None, _) => None,
        (Some(subject), Some(group)) => Some((subject.clone(), group.clone())),
        (Some(_), None) => {
            let remedy =
                "only one subscriber can use it: give Dapr's component a queueGroupName, or choose another durableName";
            return Err(differs("pushes, and has no deliver group", remedy));
        }
    };
    if let (Some(wanted), found) = (&hub.settings.queue_group, &push)
        && found.as_ref().is_none_or(|(_, group)| group != wanted)
    {
        let found =
            found.as_ref().map_or("is pulled from".to_owned(), |(_, group)| format!("has the deliver group {group}"));
        return Err(differs(
            &found,
            &format!("metadata queueGroupName says {wanted}: correct it, or delete the consumer"),
        ));
    }
    let shortest = config.backoff.iter().copied().chain(config.ack_wait).filter(|wait| *wait > 0).min();
    Ok(Consumer {
        push,
        lease: shortest.map_or(ACK_WAIT, Duration::from_nanos),
        max_batch: config.max_batch,
        max_bytes: config.max_bytes,
        max_expires: Duration::from_nanos(config.max_expires),
        pending: info.num_pending,
        stream: info.stream_name,
        name: info.name,
    })
}

/// What the resource says must be so. What it does not say may be anything.
fn check_terms(hub: &Hub, config: &ConsumerConfig, differs: &impl Fn(&str, &str) -> Failure) -> Result<(), Failure> {
    let terms = &hub.settings.terms;
    let check = |name: &str, wanted: Option<i128>, found: Option<i128>| match wanted {
        Some(wanted) if Some(wanted) != found => {
            let found = found.map_or("the broker's default".to_owned(), |found| found.to_string());
            let remedy = format!(
                "metadata {name} says {wanted}: make them equal, or delete the consumer, which begins anew then"
            );
            Err(differs(&format!("has {name} {found}"), &remedy))
        }
        _ => Ok(()),
    };
    let back_off: Vec<u64> = terms.back_off.iter().copied().map(nanos).collect();
    let wait = terms.ack_wait.filter(|_| back_off.is_empty()).map(nanos);
    check("ackWait (ns)", wait.map(i128::from), config.ack_wait.map(i128::from))?;
    check("maxDeliver", terms.max_deliver.map(i128::from), config.max_deliver.map(i128::from))?;
    let given = hub.settings.max_ack_pending_given;
    check(
        "maxAckPending",
        terms.max_ack_pending.filter(|_| given).map(i128::from),
        config.max_ack_pending.map(i128::from),
    )?;
    if !back_off.is_empty() && back_off != config.backoff {
        return Err(differs("has another backOff", "make it equal to metadata backOff, or delete the consumer"));
    }
    Ok(())
}
