//! Messages of the contract to properties of AMQP, and back.
//!
//! Some names of metadata are properties, as in Dapr's component (compared without regard to case); all others travel as
//! headers under their own name.

use std::hash::{DefaultHasher, Hash, Hasher};

use whimbrel_sdk::{Failure, Message};

use crate::config::{Settings, expiry};
use crate::protocol::{Content, MESSAGE_MAX_BYTES, Properties, SHORT_MAX_BYTES};

/// Ids that we give messages begin so. They are not handed out as metadata.
const OWN_ID: &str = "whimbrel-";

/// What RabbitMQ itself puts into headers, or takes from them.
const RESERVED: [&str; 4] = ["CC", "BCC", "x-death", "x-delivery-count"];

/// The header in which a quorum queue counts how often a message came back.
const COUNT: &str = "x-delivery-count";

/// Headers that tell how a message came through the broker begin so: they are the broker's, not the publisher's.
const BROKERS: [&str; 4] = ["x-death", "x-first-death-", "x-last-death-", COUNT];

/// Bytes of a content header besides headers: flags, sizes, and four short strings.
const HEADER_BYTES: usize = 2048;

/// Bytes of a header besides its name and value.
const ENTRY_BYTES: usize = 6;

/// Names of metadata that are properties, as they are given back.
#[derive(Debug, Clone, Copy)]
struct Names {
    content_type: &'static str,
    message_id: &'static str,
    correlation_id: &'static str,
    kind: &'static str,
}

const OURS: Names =
    Names { content_type: "contentType", message_id: "messageID", correlation_id: "correlationID", kind: "type" };

const DAPRS: Names =
    Names { content_type: "contenttype", message_id: "messageid", correlation_id: "correlationid", kind: "type" };

/// A message as it goes out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) routing_key: String,
    pub(crate) properties: Properties,
    pub(crate) body: Vec<u8>,
}

/// Turns a message into what goes out.
///
/// # Errors
/// `Invalid`: what AMQP cannot carry, by name.
pub(crate) fn outgoing(settings: &Settings, frame_max: usize, message: Message) -> Result<(String, Outgoing), Failure> {
    let Message { topic, metadata, data, .. } = message;
    check_name("topic", &topic)?;
    let mut properties = Properties { delivery_mode: settings.delivery_mode, ..Properties::default() };
    let mut routing_key = String::new();
    let (mut expires, mut headers_bytes) = (settings.ttl, 0);
    for (name, value) in metadata {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("routingKey") => routing_key = short("routingKey", value)?,
            () if is("priority") => properties.priority = priority(&value)?,
            () if is("ttlInSeconds") || is("ttl") => {
                if !value.trim().is_empty() {
                    expires = Some(expiry(&name, &value)?);
                }
            }
            () if is(OURS.content_type) => properties.content_type = given(short(OURS.content_type, value)?),
            () if is(OURS.message_id) => properties.message_id = given(short(OURS.message_id, value)?),
            () if is(OURS.correlation_id) => properties.correlation_id = given(short(OURS.correlation_id, value)?),
            () if is(OURS.kind) => properties.kind = given(short(OURS.kind, value)?),
            () => {
                check_header(&name)?;
                headers_bytes += name.len() + value.len() + ENTRY_BYTES;
                // Of a name that stands twice, the last value.
                properties.headers.retain(|(known, _)| *known != name);
                properties.headers.push((name, value));
            }
        }
    }
    check_size(frame_max, headers_bytes, data.len())?;
    properties.expiration = expires.map(|expires| expires.as_millis().to_string());
    if properties.content_type.is_none() {
        properties.content_type = settings.content_type.map(str::to_owned);
    }
    Ok((topic, Outgoing { routing_key, properties, body: data }))
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Checks the name of an exchange or a queue.
///
/// # Errors
/// `Invalid`, naming what is wrong.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::Invalid(format!("{what} {name:?}: {why}")));
    match name {
        "" => wrong("it is empty"),
        _ if name.len() > SHORT_MAX_BYTES => wrong("RabbitMQ takes names of at most 255 bytes"),
        _ if name.starts_with("amq.") => wrong("names that begin with amq. belong to RabbitMQ"),
        // The broker leaves them out without a word, and then there is no exchange of that name.
        _ if name.contains(['\r', '\n']) => wrong("RabbitMQ takes no line ends in names"),
        _ => Ok(()),
    }
}

fn short(name: &str, value: String) -> Result<String, Failure> {
    if value.len() > SHORT_MAX_BYTES {
        return Err(Failure::Invalid(format!("metadata {name} has more than 255 bytes, which AMQP cannot carry")));
    }
    Ok(value)
}

fn priority(value: &str) -> Result<Option<u8>, Failure> {
    match value.trim() {
        "" => Ok(None),
        text => {
            let wrong = |_| Failure::Invalid("metadata priority is not a whole number from 0 to 255".to_owned());
            text.parse().map(Some).map_err(wrong)
        }
    }
}

fn check_header(name: &str) -> Result<(), Failure> {
    let why = if name.len() > SHORT_MAX_BYTES {
        "is longer than 255 bytes, which AMQP cannot carry"
    } else if RESERVED.contains(&name) {
        "is a header of RabbitMQ's own: use another name"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(40).collect();
    Err(Failure::Invalid(format!("metadata {shown}: the name {why}")))
}

fn check_size(frame_max: usize, headers: usize, body: usize) -> Result<(), Failure> {
    let room = frame_max.saturating_sub(HEADER_BYTES);
    if headers > room {
        return Err(Failure::Invalid(format!(
            "the metadata has {headers} bytes, more than the {room} that RabbitMQ takes (its frame_max)"
        )));
    }
    if body + headers > MESSAGE_MAX_BYTES {
        let size = body + headers;
        return Err(Failure::Invalid(format!("the message has {size} bytes, more than {MESSAGE_MAX_BYTES}")));
    }
    Ok(())
}

/// The id we give a message that has none.
pub(crate) fn own_id(nonce: &str, number: u64) -> String {
    format!("{OWN_ID}{nonce}-{number:x}")
}

/// A message as it came.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The same each time it is delivered.
    pub(crate) id: String,
    /// How often a quorum queue delivered it before. None: not a quorum queue's, or the first time.
    pub(crate) before: Option<u32>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Turns what came into what is handed out.
pub(crate) fn incoming(settings: &Settings, content: Content) -> Incoming {
    let Content { properties, body, .. } = content;
    let id = match &properties.message_id {
        Some(id) if !id.is_empty() => id.clone(),
        _ => fingerprint(&properties, &body),
    };
    let before = properties.headers.iter().find(|(name, _)| name == COUNT).and_then(|(_, count)| count.parse().ok());
    let metadata = if settings.with_metadata { metadata(settings, properties) } else { Vec::new() };
    Incoming { id, before, metadata, body }
}

fn metadata(settings: &Settings, properties: Properties) -> Vec<(String, String)> {
    let names = if settings.dapr { DAPRS } else { OURS };
    let mut metadata = properties.headers;
    metadata.retain(|(name, _)| !BROKERS.iter().any(|known| name.starts_with(known)));
    let own = |id: &String| id.starts_with(OWN_ID);
    let given = [
        (names.content_type, properties.content_type),
        (names.message_id, properties.message_id.filter(|id| !own(id))),
        (names.correlation_id, properties.correlation_id),
        (names.kind, properties.kind),
        ("priority", properties.priority.filter(|_| !settings.dapr).map(|priority| priority.to_string())),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    metadata.extend(given.filter(|(_, value)| !value.is_empty()));
    metadata
}

/// Names a message that its publisher gave no id by what is in it: the same each time it is delivered.
fn fingerprint(properties: &Properties, body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    properties.correlation_id.hash(&mut hasher);
    let own = properties.headers.iter().filter(|(name, _)| !BROKERS.iter().any(|known| name.starts_with(known)));
    own.for_each(|header| header.hash(&mut hasher));
    body.hash(&mut hasher);
    format!("h-{:016x}-{}", hasher.finish(), body.len())
}

#[cfg(test)]
mod tests;
