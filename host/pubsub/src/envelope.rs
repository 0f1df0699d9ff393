//! What is put around a message, and what is taken off it (pubsub-behaviour, section 4). Called by the two spines.
//!
//! `wrap` writes straight into one buffer; JSON passes through as it was written, only its syntax is checked. Absent on
//! purpose: any decision about scopes, expiry or errors of a broker.

mod protobuf;
mod writer;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use cloudevents::event::SpecVersion;
use serde::Deserialize as _;
use serde_json::value::RawValue;
use uuid::Uuid;
use whimbrel_resources::go_duration;

use crate::broker::{Message, Metadata};
use crate::delivery::Reason;
use crate::environment::{Environment, Random};
use crate::error::PublishError;
use crate::event::{self, Event, is_media_type};
use crate::trace::Trace;

use writer::Writer;

/// The `type` of an event whose publisher gave none.
const TYPE: &str = "com.dapr.event.sent";

/// The `source` of an event that nobody gave one.
const SOURCE: &str = "Dapr";

/// The content type of data whose publisher gave none.
const TEXT: &str = "text/plain";

/// The content type of a body that is an event already.
const CLOUD_EVENT: &str = "application/cloudevents+json";

/// The content type of opaque data, and of an event in binary mode.
const OCTETS: &str = "application/octet-stream";

/// The longest time to live: what Go's durations hold. Longer ones count as this.
const TTL_SECONDS_MAX: i64 = i64::MAX / 1_000_000_000;

/// The id of an event that is published, for the log: the message itself is the broker's by then. Costs nothing where
/// nothing is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventId {
    /// Made here.
    Made(Uuid),
    /// The publisher's.
    Given(String),
    /// The message is no event.
    None,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(id) => id.fmt(f),
            Self::Given(id) => f.write_str(id),
            Self::None => Ok(()),
        }
    }
}

/// What a message is made of, whether it came alone or with others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    /// The app that publishes.
    pub(crate) app_id: &'a str,
    /// The broker's name.
    pub(crate) pubsub: &'a str,
    /// The topic.
    pub(crate) topic: &'a Arc<str>,
    /// The payload.
    pub(crate) data: &'a Bytes,
    /// Its content type, verbatim.
    pub(crate) content_type: Option<&'a str>,
    /// The trace of the request.
    pub(crate) trace: &'a Trace,
}

/// Whether metadata asks for the bytes to be stored as they are.
///
/// # Errors
/// [`PublishError::RawPayload`].
pub(crate) fn raw_payload(metadata: &Metadata) -> Result<bool, PublishError> {
    let given = metadata.iter().rev().find(|(name, _)| name == "rawPayload").map_or("", |(_, value)| value);
    boolean(given).ok_or_else(|| PublishError::RawPayload { actual: given.to_owned() })
}

/// Makes the message that is stored (an envelope of ours, the event that was given, or the bytes as they are), and says
/// which event it is. `raw`: the bytes as they are.
///
/// # Errors
/// [`PublishError::CloudEvent`] for a body that claims to be an event and is none.
pub(crate) fn wrap(
    draft: Draft<'_>,
    metadata: Metadata,
    raw: bool,
    environment: &Environment,
    native_ttl: bool,
) -> Result<(Message, EventId), PublishError> {
    let options = Options::read(&metadata);
    let (data, id) = if raw {
        (draft.data.clone(), EventId::None)
    } else {
        let expiration = if native_ttl { None } else { expiration(&options, environment.clock.now()) };
        match draft.content_type {
            Some(given) if is_media_type(given, CLOUD_EVENT) => {
                pass(draft, environment, expiration.as_deref()).map_err(|error| PublishError::CloudEvent { error })?
            }
            _ => envelop(draft, &options, environment, expiration.as_deref()),
        }
    };
    let key = options.key.map(str::to_owned);
    Ok((Message { topic: Arc::clone(draft.topic), key, data, metadata }, id))
}

/// Reads what arrived, as section 4.5 says.
///
/// # Errors
/// [`Reason::Unparsable`].
pub(crate) fn unwrap(
    message: &Message,
    metadata: &Metadata,
    raw: &Result<bool, String>,
    pubsub: &str,
    random: &Random,
) -> Result<Event, Reason> {
    match raw {
        Err(actual) => Err(Reason::Unparsable(format!("the subscription's rawPayload is no boolean: {actual}"))),
        Ok(true) => {
            Event::structured(synthesise(message, metadata, pubsub, random), metadata).map_err(Reason::Unparsable)
        }
        Ok(false) => match find(metadata, "content-type") {
            Some(given) if is_media_type(given, OCTETS) => Ok(Event::binary(message.data.clone(), given, metadata)),
            _ => Event::structured(message.data.clone(), metadata).map_err(Reason::Unparsable),
        },
    }
}

/// Whether a subscription is raw, from its metadata; what was given, if that is no boolean.
pub(crate) fn raw_subscription(metadata: &Metadata) -> Result<bool, String> {
    let given = metadata.iter().rev().find(|(name, _)| name == "rawPayload").map_or("", |(_, value)| value);
    boolean(given).ok_or_else(|| given.to_owned())
}

/// Whether an event has outlived its `expiration`. One that does not parse is none.
pub(crate) fn expired(event: &Event, now: DateTime<Utc>) -> bool {
    let expiration = event.expiration().filter(|text| is_strict(text));
    let expiration = expiration.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    expiration.is_some_and(|expiration| expiration <= now)
}

/// Whether a time has the `T` and the `Z` of RFC 3339 as Dapr's parser wants them: ours takes a blank, too, and small letters.
fn is_strict(time: &str) -> bool {
    time.as_bytes().get(10) == Some(&b'T') && !time.ends_with('z')
}

/// What the request's metadata asks of the envelope (sections 1.2 and 11.1). Empty text is as if it were not there.
#[derive(Default)]
struct Options<'a> {
    ttl: Option<&'a str>,
    ttl_in_seconds: Option<&'a str>,
    key: Option<&'a str>,
    id: Option<&'a str>,
    source: Option<&'a str>,
    kind: Option<&'a str>,
    subject: Option<&'a str>,
    trace_id: Option<&'a str>,
    trace_parent: Option<&'a str>,
    trace_state: Option<&'a str>,
}

impl<'a> Options<'a> {
    fn read(metadata: &'a Metadata) -> Self {
        let mut options = Self::default();
        for (name, value) in metadata {
            if !value.is_empty()
                && let Some(option) = options.slot(name)
            {
                *option = Some(value);
            }
        }
        options
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let overriding = name.get(..11).is_some_and(|prefix| prefix.eq_ignore_ascii_case("cloudevent."));
        if !overriding {
            return match name.len() {
                3 if is("ttl") => Some(&mut self.ttl),
                12 if is("ttlInSeconds") => Some(&mut self.ttl_in_seconds),
                12 if is("partitionKey") => Some(&mut self.key),
                _ => None,
            };
        }
        match name.get(11..)?.to_ascii_lowercase().as_str() {
            "id" => Some(&mut self.id),
            "source" => Some(&mut self.source),
            "type" => Some(&mut self.kind),
            "subject" => Some(&mut self.subject),
            "traceid" => Some(&mut self.trace_id),
            "traceparent" => Some(&mut self.trace_parent),
            "tracestate" => Some(&mut self.trace_state),
            _ => None,
        }
    }
}

/// A boolean as Go reads it; nothing is `false`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" | "" => Some(false),
        _ => None,
    }
}

fn find<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    metadata.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// When the event expires: now and its time to live, in UTC. A negative number and what does not parse are no time to
/// live; nought is over at once.
fn expiration(options: &Options<'_>, now: DateTime<Utc>) -> Option<String> {
    let text = options.ttl.or(options.ttl_in_seconds)?;
    let ttl = match text.parse::<i64>() {
        Ok(seconds) if seconds < 0 => return None,
        Ok(seconds) => TimeDelta::from_std(Duration::from_secs(seconds.min(TTL_SECONDS_MAX).unsigned_abs())).ok()?,
        Err(_) => TimeDelta::nanoseconds(i64::try_from(go_duration(text)?).ok()?),
    };
    Some(now.checked_add_signed(ttl)?.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// How the data stands in the envelope (section 4.2).
enum Data<'a> {
    /// As it is, under `data`.
    Json(Cow<'a, str>),
    /// As a string, under `data`.
    Text(Cow<'a, str>),
    /// As base64, under `data_base64`.
    Octets(&'a [u8]),
}

impl<'a> Data<'a> {
    fn choose(bytes: &'a Bytes, content_type: &str) -> Self {
        let is = |media_type: &str| is_media_type(content_type, media_type);
        if is(OCTETS)
            || is("application/cloudevents+protobuf")
            || (is("application/x-protobuf") && protobuf::is_cloud_event(bytes))
        {
            return Self::Octets(bytes);
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(event::tolerant(bytes)),
        };
        match text {
            text if !is("application/json") => Self::Text(text),
            Cow::Borrowed(text) => match first_value(text) {
                Some(value) => Self::Json(Cow::Borrowed(value)),
                None => Self::Text(Cow::Borrowed(text)),
            },
            // Not UTF-8: no JSON by its standard, and Dapr's reader takes it nevertheless. The rare case may copy
            // twice.
            Cow::Owned(text) => match first_value(&text).map(str::to_owned) {
                Some(value) => Self::Json(Cow::Owned(value)),
                None => Self::Text(Cow::Owned(text)),
            },
        }
    }
}

/// The first JSON value of a text, as it is written; what follows is dropped, as Dapr does. `None`: there is none.
fn first_value(text: &str) -> Option<&str> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = <&RawValue>::deserialize(&mut json).ok()?.get();
    if value.starts_with(['{', '[']) {
        return Some(value);
    }
    // `42x` is no number; `42 x` is one.
    let start = text.find(|character| !matches!(character, ' ' | '\t' | '\r' | '\n'))?;
    let next = text.as_bytes().get(start + value.len());
    next.is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).then_some(value)
}

/// The envelope of section 4.1, members in alphabetical order as Dapr writes them.
fn envelop(
    draft: Draft<'_>,
    options: &Options<'_>,
    environment: &Environment,
    expiration: Option<&str>,
) -> (Bytes, EventId) {
    let content_type = draft.content_type.filter(|given| !given.is_empty()).unwrap_or(TEXT);
    let data = Data::choose(draft.data, content_type);
    let app_id = draft.app_id;
    let (trace_parent, trace_state) = trace(draft.trace);
    let trace_parent = options.trace_parent.or(options.trace_id).unwrap_or(trace_parent);
    let mut made = Uuid::encode_buffer();
    let (id, event_id) = match options.id {
        Some(id) => (id, EventId::Given(id.to_owned())),
        None => {
            let id = environment.random.uuid();
            (&*id.hyphenated().encode_lower(&mut made), EventId::Made(id))
        }
    };

    let texts = [content_type, app_id, draft.pubsub, draft.topic, trace_parent, trace_parent, trace_state, id];
    let mut json = Writer::with_room(data.room() + texts.iter().map(|text| text.len()).sum::<usize>());
    match data {
        Data::Json(raw) => json.raw("data", &raw),
        Data::Text(text) => json.text("data", &text),
        Data::Octets(octets) => json.base64("data_base64", octets),
    }
    json.text("datacontenttype", content_type);
    if let Some(expiration) = expiration {
        json.text("expiration", expiration);
    }
    json.text("id", id);
    json.text("pubsubname", draft.pubsub);
    json.text("source", options.source.or(Some(app_id).filter(|id| !id.is_empty())).unwrap_or(SOURCE));
    json.text("specversion", SpecVersion::V10.as_str());
    if let Some(subject) = options.subject {
        json.text("subject", subject);
    }
    json.text("time", &environment.clock.timestamp());
    json.text("topic", draft.topic);
    json.text("traceid", trace_parent);
    json.text("traceparent", trace_parent);
    json.text("tracestate", options.trace_state.unwrap_or(trace_state));
    json.text("type", options.kind.unwrap_or(TYPE));
    (json.finish(), event_id)
}

impl Data<'_> {
    /// About how many bytes it takes in the envelope.
    fn room(&self) -> usize {
        match self {
            Self::Json(raw) => raw.len(),
            Self::Text(text) => text.len() + text.len() / 8,
            Self::Octets(octets) => octets.len().div_ceil(3) * 4,
        }
    }
}

/// `traceparent` and `tracestate` of the publish; empty without a valid one.
fn trace(trace: &Trace) -> (&str, &str) {
    match &trace.parent {
        Some(parent) => (parent.as_str(), trace.state.as_deref().unwrap_or_default()),
        None => ("", ""),
    }
}

/// An event that was given, with the members that are ours to set (section 4.3). All others stay as they are written.
fn pass(draft: Draft<'_>, environment: &Environment, expiration: Option<&str>) -> Result<(Bytes, EventId), String> {
    let source = match std::str::from_utf8(draft.data) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(event::tolerant(draft.data)),
    };
    let (members, _) = event::members(&source)?;
    let last =
        |name: &str| members.iter().rev().find(|member| member.is(name, &source)).map(|member| member.raw(&source));
    let (trace_parent, trace_state) = trace(draft.trace);
    let traced = last("traceid").is_some();
    let ours = |name: &str| match name {
        "topic" | "pubsubname" => true,
        "expiration" => expiration.is_some(),
        "source" | "type" | "specversion" => last(name) == Some("null"),
        "traceparent" => !traced,
        _ => false,
    };

    let mut json = Writer::with_room(source.len() + draft.topic.len() + draft.pubsub.len() + 2 * trace_parent.len());
    for member in &members {
        let name = member.name(&source);
        if !ours(name) {
            json.foreign(name, member.raw(&source));
        }
    }
    let missing = |name: &str| last(name).is_none_or(|raw| raw == "null");
    for (name, value) in [("source", SOURCE), ("type", TYPE), ("specversion", SpecVersion::V10.as_str())] {
        if missing(name) {
            json.text(name, value);
        }
    }
    if last("time").is_none() {
        json.text("time", &environment.clock.timestamp());
    }
    if !traced {
        json.text("traceid", trace_parent);
        json.text("traceparent", trace_parent);
    }
    if last("tracestate").is_none() {
        json.text("tracestate", trace_state);
    }
    if let Some(expiration) = expiration {
        json.text("expiration", expiration);
    }
    json.text("topic", draft.topic);
    json.text("pubsubname", draft.pubsub);
    let id = last("id").map_or_else(String::new, |id| event::unquote(id).into_owned());
    Ok((json.finish(), EventId::Given(id)))
}

/// The event a raw subscription gets: the message's bytes as they are, and an id that is new at each delivery.
fn synthesise(message: &Message, metadata: &Metadata, pubsub: &str, random: &Random) -> Bytes {
    let mut uuid = Uuid::encode_buffer();
    let mut json = Writer::with_room(message.data.len().div_ceil(3) * 4 + message.topic.len() + pubsub.len());
    json.base64("data_base64", &message.data);
    json.text("datacontenttype", OCTETS);
    json.text("id", random.uuid().hyphenated().encode_lower(&mut uuid));
    json.text("pubsubname", pubsub);
    json.text("source", SOURCE);
    json.text("specversion", SpecVersion::V10.as_str());
    json.text("topic", &message.topic);
    let parent = find(metadata, "traceparent");
    for (name, value) in [
        ("traceid", parent.or_else(|| find(metadata, "traceid"))),
        ("traceparent", parent),
        ("tracestate", find(metadata, "tracestate")),
    ] {
        if let Some(value) = value {
            json.text(name, value);
        }
    }
    json.text("type", TYPE);
    json.finish()
}

#[cfg(test)]
mod tests;
