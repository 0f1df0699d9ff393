//! What a subscription needs at the broker: an exchange for its topic, a queue for its group, and what binds them. The
//! names and arguments are those of Dapr's component, so that replicas of both can share a queue.

use whimbrel_sdk::Failure;

use crate::channel::Channel;
use crate::config::{QueueType, Settings, invalid, length};
use crate::failure::Lost;
use crate::message::check_name;
use crate::protocol::{Argument, Declare, Request, SHORT_MAX_BYTES, Table};

/// The highest priority a queue can have.
const PRIORITY_MAX: u64 = 255;

/// Bindings of one queue, at most.
const BINDINGS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) topic: String,
    pub(crate) queue: String,
    exchange_kind: &'static str,
    exchange: Declare,
    declare: Declare,
    arguments: Table,
    routing_keys: Vec<String>,
    /// The arguments of the dead-letter queue, if there is to be one.
    dead_letter: Option<Table>,
}

/// Settings of a subscription, compared without regard to case; of two, the last.
struct Wanted<'a>(&'a [(String, String)]);

impl Wanted<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("0" | "f" | "false" | "n" | "no" | "off") => Ok(false),
            Some("1" | "t" | "true" | "y" | "yes" | "on") => Ok(true),
            Some(_) => Err(invalid(name, "is not true or false")),
        }
    }
}

impl Plan {
    /// What a subscription needs.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(crate) fn new(
        settings: &Settings,
        topic: String,
        group: &str,
        metadata: &[(String, String)],
    ) -> Result<Self, Failure> {
        let (wanted, declared) = (Wanted(metadata), &settings.declared);
        let queue = wanted.text("queueName").map_or_else(|| format!("{group}-{topic}"), str::to_owned);
        check_name("topic", &topic)?;
        check_name("queue (metadata queueName, or consumerID and topic)", &queue)?;
        let queue_type = match wanted.text("queueType") {
            None => declared.queue_type,
            Some(text) => QueueType::read(text).ok_or_else(|| invalid("queueType", "must be classic or quorum"))?,
        };
        let lengths = lengths(settings, &wanted)?;
        let mut arguments = lengths.clone();
        if declared.dead_letter {
            check_name("dead-letter queue (metadata enableDeadLetter)", &dead_letter_queue(&queue))?;
            arguments.push(("x-dead-letter-exchange", Argument::Text(dead_letter_exchange(&queue))));
        }
        arguments.extend(priority(&wanted, queue_type)?);
        arguments.push(("x-queue-type", Argument::Text(queue_type.name().to_owned())));
        if wanted.switch("singleActiveConsumer")? {
            arguments.push(("x-single-active-consumer", Argument::Flag(true)));
        }
        if declared.reject_when_full {
            arguments.push(("x-overflow", Argument::Text("reject-publish".to_owned())));
        }
        Ok(Self {
            exchange_kind: declared.exchange_kind,
            exchange: Declare { durable: declared.durable, auto_delete: declared.auto_delete },
            declare: declare(settings, queue_type)?,
            arguments: Table(arguments),
            routing_keys: routing_keys(&wanted)?,
            dead_letter: declared.dead_letter.then(|| {
                let mut arguments = component_lengths(settings);
                arguments.push(("x-queue-mode", Argument::Text("lazy".to_owned())));
                Table(arguments)
            }),
            topic,
            queue,
        })
    }

    /// Makes sure that it is all there.
    ///
    /// # Errors
    /// The channel is gone: something exists with other settings, or may not be made.
    pub(crate) async fn declare(&self, channel: &Channel) -> Result<(), Lost> {
        let Self { topic, queue, exchange: declare, .. } = self;
        channel.call(Request::Exchange { name: topic, kind: self.exchange_kind, declare: *declare }).await?;
        if let Some(arguments) = &self.dead_letter {
            self.declare_dead_letter(channel, arguments).await?;
        }
        channel.call(Request::Queue { name: queue, declare: self.declare, arguments: &self.arguments }).await?;
        self.bind(channel).await
    }

    /// Makes sure that the queue gets what is published.
    ///
    /// # Errors
    /// As for [`Plan::declare`], or the exchange is gone.
    pub(crate) async fn bind(&self, channel: &Channel) -> Result<(), Lost> {
        for routing_key in &self.routing_keys {
            channel.call(Request::Bind { queue: &self.queue, exchange: &self.topic, routing_key }).await?;
        }
        Ok(())
    }

    async fn declare_dead_letter(&self, channel: &Channel, arguments: &Table) -> Result<(), Lost> {
        let (exchange, queue) = (&dead_letter_exchange(&self.queue), &dead_letter_queue(&self.queue));
        let declare = Declare { durable: true, auto_delete: self.exchange.auto_delete };
        channel.call(Request::Exchange { name: exchange, kind: "fanout", declare }).await?;
        channel.call(Request::Queue { name: queue, declare, arguments }).await?;
        channel.call(Request::Bind { queue, exchange, routing_key: "" }).await
    }
}

fn dead_letter_exchange(queue: &str) -> String {
    format!("dlx-{queue}")
}

fn dead_letter_queue(queue: &str) -> String {
    format!("dlq-{queue}")
}

/// Quorum queues always outlive a restart, and never go by themselves. What a default says otherwise does not count for
/// them; what the resource says is a contradiction.
fn declare(settings: &Settings, queue_type: QueueType) -> Result<Declare, Failure> {
    let declared = &settings.declared;
    let (durable, auto_delete) = (declared.durable, declared.auto_delete);
    match queue_type {
        QueueType::Classic => Ok(Declare { durable, auto_delete }),
        QueueType::Quorum if !durable => Err(invalid("durable", "must be true for quorum queues (metadata queueType)")),
        QueueType::Quorum if auto_delete && declared.auto_delete_given => {
            Err(invalid("deletedWhenUnused", "must be false for quorum queues (metadata queueType)"))
        }
        QueueType::Quorum => Ok(Declare { durable, auto_delete: false }),
    }
}

fn component_lengths(settings: &Settings) -> Vec<(&'static str, Argument)> {
    let declared = &settings.declared;
    let bounds = [("x-max-length", declared.max_len), ("x-max-length-bytes", declared.max_len_bytes)];
    bounds.into_iter().filter_map(|(name, bound)| Some((name, Argument::Number(bound?)))).collect()
}

fn lengths(settings: &Settings, wanted: &Wanted<'_>) -> Result<Vec<(&'static str, Argument)>, Failure> {
    let mut bounds = component_lengths(settings);
    for (argument, name) in [("x-max-length", "maxLen"), ("x-max-length-bytes", "maxLenBytes")] {
        if let Some(bound) = length(name, wanted.text(name))? {
            bounds.retain(|(known, _)| *known != argument);
            bounds.push((argument, Argument::Number(bound)));
        }
    }
    Ok(bounds)
}

fn priority(wanted: &Wanted<'_>, queue_type: QueueType) -> Result<Option<(&'static str, Argument)>, Failure> {
    let name = "maxPriority";
    let Some(text) = wanted.text(name) else { return Ok(None) };
    let number: u64 = text.parse().map_err(|_| invalid(name, "is not a whole number from 0 to 255"))?;
    if queue_type == QueueType::Quorum {
        return Err(invalid(name, "is for classic queues alone (metadata queueType)"));
    }
    // As Dapr's component does it: more than the most is the most.
    let number = u8::try_from(number.min(PRIORITY_MAX)).unwrap_or(u8::MAX);
    Ok(Some(("x-max-priority", Argument::Small(number))))
}

/// One binding for each key of a comma-separated list; without a list one with an empty key.
fn routing_keys(wanted: &Wanted<'_>) -> Result<Vec<String>, Failure> {
    let name = "routingKey";
    let keys: Vec<String> = wanted.text(name).unwrap_or_default().split(',').map(str::to_owned).collect();
    if keys.len() > BINDINGS_MAX {
        return Err(invalid(name, "has more than 256 keys"));
    }
    if keys.iter().any(|key| key.len() > SHORT_MAX_BYTES) {
        return Err(invalid(name, "has a key of more than 255 bytes"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
