//! Messages and their headers: what goes to the broker and what comes back.
//!
//! A message is a NATS message whose payload is the data and whose headers are the metadata, as other NATS clients write and
//! read them. Dapr's component writes the same payload, and the header `Nats-Msg-Id`.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use whimbrel_sdk::{Failure, Message};

use crate::config::Deduplication;
use crate::protocol::{HEADER_VERSION, Msg, fields};

/// Carries a pair whose name or value cannot be a header: both percent-encoded, with `=` between them.
const ESCAPED: &str = "Whimbrel-Escaped";

/// What the broker calls the same message published again.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Headers of the broker's own begin with this. A pair of the user's that does is escaped, or it would give orders.
const RESERVED: &str = "nats-";

/// The longest id that becomes part of a header, bytes.
const ID_MAX_BYTES: usize = 256;

/// The longest topic, bytes: a server hangs up on whoever says a line of more than 4096, and a topic is never alone on one.
const TOPIC_MAX_BYTES: usize = 3072;

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Writes the header block. Nothing is written where there is nothing to say.
pub(crate) fn write_head(out: &mut Vec<u8>, message: &Message, deduplication: Deduplication) {
    let id = message_id(message, deduplication);
    if id.is_none() && message.metadata.is_empty() {
        return;
    }
    line(out, &[HEADER_VERSION]);
    if let Some(id) = id {
        line(out, &[MESSAGE_ID, ": ", &id]);
    }
    for (name, value) in &message.metadata {
        if is_header_name(name) && is_header_value(value) {
            line(out, &[name, ": ", value]);
        } else {
            let (name, value) = (utf8_percent_encode(name, PLAIN), utf8_percent_encode(value, PLAIN));
            line(out, &[&format!("{ESCAPED}: {name}={value}")]);
        }
    }
    line(out, &[]);
}

fn line(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether other clients, too, read it as it is written.
fn is_header_name(name: &str) -> bool {
    let reserved = name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
    let plain = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    !name.is_empty() && plain && !reserved && !name.eq_ignore_ascii_case(ESCAPED)
}

fn is_header_value(value: &str) -> bool {
    !value.contains(|c: char| c.is_control()) && value.trim_ascii() == value
}

/// A delivered message.
pub(crate) fn read(msg: Msg<'_>) -> Message {
    let metadata = if msg.head.is_empty() { Vec::new() } else { read_head(msg.head) };
    Message { topic: msg.subject.to_owned(), key: None, data: msg.payload.to_vec(), metadata }
}

/// The metadata in a header block. What the broker added for itself stays out.
fn read_head(head: &[u8]) -> Vec<(String, String)> {
    let pairs = fields(head).filter_map(|(name, value)| {
        if name == ESCAPED {
            let (name, value) = value.split_once('=')?;
            return Some((decoded(name)?, decoded(value)?));
        }
        let reserved = name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
        (!reserved).then(|| (name.to_owned(), value.into_owned()))
    });
    pairs.collect()
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// What the broker shall know the message by, so that a publish that is repeated is stored once.
///
/// The broker looks for the same id in the whole stream, whatever the topic. An event's id alone is therefore not enough: one
/// that is published to a dead-letter topic of the same stream would be taken for a repetition of itself, and lost. Hence
/// `Event`: the id, and a hash of the topic and every byte of the event.
fn message_id(message: &Message, deduplication: Deduplication) -> Option<String> {
    if deduplication == Deduplication::Off || is_raw(message) {
        return None;
    }
    let event = event(&message.data)?;
    let id = event.id.filter(|id| !id.is_empty() && id.len() <= ID_MAX_BYTES && is_header_value(id))?;
    match deduplication {
        Deduplication::Event if event.is_cloud_event => {
            let mut hasher = DefaultHasher::new();
            (&message.topic, &message.data).hash(&mut hasher);
            Some(format!("{id}@{:016x}", hasher.finish()))
        }
        Deduplication::Id => Some(id),
        _ => None,
    }
}

/// Whether the publisher said that this is no event, whatever it looks like.
fn is_raw(message: &Message) -> bool {
    let given = message.metadata.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("rawPayload"));
    given.is_some_and(|(_, value)| {
        ["true", "1", "t", "y", "yes", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
    })
}

/// What matters of a JSON object here.
#[derive(Default)]
struct Event {
    id: Option<String>,
    is_cloud_event: bool,
}

/// The event in the data, if it is a JSON object.
fn event(data: &[u8]) -> Option<Event> {
    if data.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::Deserializer::from_slice(data).deserialize_map(Members).ok()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let mut event = Event::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match name.as_ref() {
                "id" => event.id = map.next_value::<Text>()?.0,
                "specversion" => event.is_cloud_event = map.next_value::<Text>()?.0.is_some(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(event)
    }
}

/// A string; anything else is none.
struct Text(Option<String>);

impl<'de> de::Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Self(value.as_str().map(str::to_owned)))
    }
}

/// Whether a topic can be published to: a subject without wildcards.
///
/// # Errors
/// `Invalid`, naming what NATS forbids.
pub(crate) fn check_topic(topic: &str) -> Result<(), Failure> {
    check_filter(topic)?;
    if topic.split('.').any(|token| token == "*" || token == ">") {
        return Err(refused(topic, "* and > stand for other words there, so nothing can be published to it"));
    }
    Ok(())
}

/// Whether a topic can be subscribed to: a subject, perhaps with wildcards.
///
/// # Errors
/// `Invalid`, naming what NATS forbids.
pub(crate) fn check_filter(topic: &str) -> Result<(), Failure> {
    if topic.is_empty() {
        return Err(Failure::Invalid("the topic is empty".to_owned()));
    }
    if topic.len() > TOPIC_MAX_BYTES {
        let short: String = topic.chars().take(32).collect();
        return Err(refused(&format!("{short}..."), &format!("it has more than {TOPIC_MAX_BYTES} bytes")));
    }
    if let Some(c) = topic.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(refused(topic, &format!("NATS allows no {c:?} in a subject")));
    }
    let mut tokens = topic.split('.').rev();
    let last = tokens.next().unwrap_or_default();
    if last.is_empty() || tokens.clone().any(str::is_empty) {
        return Err(refused(topic, "a subject has words between its dots, and none at its ends"));
    }
    if tokens.any(|token| token == ">") {
        return Err(refused(topic, "> must be the last word of a subject"));
    }
    if topic.starts_with('$') {
        return Err(refused(topic, "subjects that begin with $ belong to the server"));
    }
    Ok(())
}

fn refused(topic: &str, why: &str) -> Failure {
    Failure::Invalid(format!("the topic {topic:?}: {why}"))
}

#[cfg(test)]
mod tests;
