//! Messages to lines, and JetStream's confirmations to results.

use std::rc::Rc;
use std::time::Duration;

use whimbrel_sdk::{Failure, Message, timer};

use crate::api::{self, PubAck};
use crate::failure::{self, of_api};
use crate::hub::Hub;
use crate::message::{check_topic, write_head};
use crate::protocol::{Msg, publish as write, publish_with_headers, status};
use crate::streams;
use crate::wire::{Request, Wire, gather};

/// Bytes of a line besides its subject and data: room to be made at once.
const LINE_BYTES: usize = 192;

/// Between two tries to publish where no stream listens yet.
const NO_STREAM_WAIT: Duration = Duration::from_millis(200);

/// One result for each message.
type Results = Vec<Result<(), Failure>>;

/// What is known of a message. None: it is to be sent.
type Known = Option<Result<(), Failure>>;

/// Publishes in one write, and returns when JetStream has confirmed each.
///
/// Where nobody listens, the server says so at once, and nothing was stored. Then it is looked for a stream, which is created
/// if that was asked for, and the message sent again.
pub(crate) async fn publish(hub: &Hub, messages: Vec<Message>, deadline: Duration) -> Results {
    let until = timer::now() + deadline;
    let messages = Rc::new(messages);
    let mut known: Vec<Known> = messages.iter().map(|message| check_topic(&message.topic).err().map(Err)).collect();
    loop {
        let homeless = attempt(hub, &messages, &mut known, until).await;
        if homeless.is_empty() {
            break;
        }
        let again = find_streams(hub, &messages, &homeless, &mut known).await;
        if again.is_empty() {
            break;
        }
        let left = until.saturating_duration_since(timer::now());
        if left < NO_STREAM_WAIT {
            let nobody = || Failure::Transient("not stored: no stream took the message in time".to_owned());
            again.into_iter().for_each(|index| known[index] = Some(Err(nobody())));
            break;
        }
        if !hub.streams_created.take() {
            timer::sleep(NO_STREAM_WAIT).await;
        }
    }
    let missing = || Err(Failure::Unknown("the connection to NATS was closed".to_owned()));
    known.into_iter().map(|known| known.unwrap_or_else(missing)).collect()
}

/// Sends all of which nothing is known. Returns those that nobody listened to.
async fn attempt(hub: &Hub, messages: &Rc<Vec<Message>>, known: &mut [Known], until: std::time::Instant) -> Vec<usize> {
    let number = hub.wire.number();
    let (parts, bytes) = encode(hub, number, messages, known);
    if parts.is_empty() {
        return Vec::new();
    }
    let (all, order) = (Rc::clone(messages), Rc::new(parts.clone()));
    let (others, same) = (Rc::clone(messages), Rc::clone(&order));
    let topic = |messages: &[Message], order: &[usize], part: usize| {
        order.get(part).and_then(|index| messages.get(*index)).map_or("", |message| &message.topic).to_owned()
    };
    let (taker, answered) = gather(
        parts.len(),
        move |part, subject| topic(&all, &order, part) == subject,
        move |part, msg| confirmed(msg, || topic(&others, &same, part)),
    );
    let answers = hub.wire.ask(Request { number, bytes, taker, deadline: until }, answered).await.unwrap_or_default();
    let mut homeless = Vec::new();
    for (index, answer) in parts.into_iter().zip(answers) {
        match answer {
            Ok(None) => homeless.push(index),
            Ok(Some(result)) => known[index] = Some(result),
            Err(lost) => known[index] = Some(Err(lost.failure())),
        }
    }
    homeless
}

/// Writes what is to be sent, and tells which messages those are. What is too large is not.
fn encode(hub: &Hub, number: u64, messages: &[Message], known: &mut [Known]) -> (Vec<usize>, Vec<u8>) {
    let (wire, deduplication): (&Wire, _) = (&hub.wire, hub.settings.deduplication);
    let (max, max_payload) = (wire.max_message(), wire.max_payload());
    let (mut parts, mut head, mut reply) = (Vec::with_capacity(messages.len()), Vec::new(), String::new());
    let size = |message: &Message| message.data.len() + 2 * message.topic.len() + LINE_BYTES;
    let mut bytes = Vec::with_capacity(messages.iter().map(size).sum());
    for (index, (message, known)) in messages.iter().zip(known).enumerate() {
        if known.is_some() {
            continue;
        }
        head.clear();
        write_head(&mut head, message, deduplication);
        let metadata: usize = message.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let size = message.data.len() + metadata;
        if max > 0 && (size > max || head.len() + message.data.len() > max_payload) {
            *known = Some(Err(Failure::Invalid(format!(
                "the message has {size} bytes, metadata included, and {} as headers; with the server's max_payload of \
                 {max_payload} it may have {max}",
                head.len()
            ))));
            continue;
        }
        wire.reply_to(&mut reply, number, parts.len());
        if head.is_empty() {
            write(&mut bytes, &message.topic, Some(&reply), &message.data);
        } else {
            publish_with_headers(&mut bytes, &message.topic, Some(&reply), &head, &message.data);
        }
        parts.push(index);
    }
    (parts, bytes)
}

/// What an answer means. None: nobody listens to the subject, and nothing was stored.
fn confirmed(msg: Msg<'_>, topic: impl Fn() -> String) -> Option<Result<(), Failure>> {
    if let Some(status) = status(msg.head) {
        return (status.code != 503).then(|| {
            Err(Failure::Unknown(format!(
                "NATS answered {} {} to a publish to {:?}",
                status.code,
                status.text,
                topic()
            )))
        });
    }
    let foreign = || {
        Failure::Unknown(format!(
            "something else than JetStream answers to the subject {:?}: is a service there?",
            topic()
        ))
    };
    Some(match api::read::<PubAck<'_>>(msg.payload) {
        Some(PubAck { error: Some(error), .. }) => Err(of_api(&error, &format!("publish to {:?}", topic()))),
        Some(ack) if !ack.stream.is_empty() && ack.seq > 0 => Ok(()),
        _ => Err(foreign()),
    })
}

/// Looks for streams for these messages. Returns those that are worth another try.
async fn find_streams(hub: &Hub, messages: &[Message], homeless: &[usize], known: &mut [Known]) -> Vec<usize> {
    let mut topics: Vec<&str> = homeless.iter().map(|index| messages[*index].topic.as_str()).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut again = Vec::new();
    for topic in topics {
        let of_topic = homeless.iter().copied().filter(|index| messages[*index].topic == topic);
        match streams::provide(hub, topic).await {
            Ok(_) | Err(Failure::Transient(_) | Failure::Unknown(_)) => again.extend(of_topic),
            Err(failure) => of_topic.for_each(|index| known[index] = Some(Err(not_stored(&failure)))),
        }
    }
    again
}

/// A publish failed since there is no stream: whatever became of the question about streams, the message was not stored.
fn not_stored(failure: &Failure) -> Failure {
    match failure {
        Failure::Unknown(_) => Failure::Transient(failure::text(failure.clone())),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
