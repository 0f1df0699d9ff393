//! A batch of events as an app gets it, and what its answer means (pubsub-behaviour 6.3). Pure; called by
//! `App::deliver_batch`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;
use whimbrel_pubsub::{BatchEntry, BatchInfo, HandlerError, Outcome, Outcomes};

use super::answer::{Text, too_large, unknown};
use super::lane::Reply;

/// What stands around the entries, bytes: names, ids, a topic of usual length.
const FRAME_BYTES: usize = 256;

/// The same around each entry's event.
const ENTRY_BYTES: usize = 192;

/// The content type of an entry that is an event.
const EVENT_TYPE: &str = "application/cloudevents+json";

/// The content type of an entry's bytes, if nothing else is known of them.
const RAW_TYPE: &str = "application/octet-stream";

/// The request's body. Events are in it as they were stored.
pub(crate) fn body(entries: &[BatchEntry], info: &BatchInfo) -> Bytes {
    let pairs =
        |entry: &BatchEntry| entry.metadata.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
    let room = |entry: &BatchEntry| ENTRY_BYTES + entry.event.body().len() + pairs(entry);
    let mut json = Json(Vec::with_capacity(FRAME_BYTES + entries.iter().map(room).sum::<usize>()));
    json.raw("{\"id\":\"");
    json.id(info.id);
    json.raw("\",\"type\":\"com.dapr.event.sent.bulk\",\"topic\":");
    json.text(&info.topic);
    json.raw(",\"pubsubname\":");
    json.text(&info.pubsub);
    json.raw(",\"metadata\":{\"pubsubName\":");
    json.text(&info.pubsub);
    json.raw("},\"entries\":[");
    for (number, entry) in entries.iter().enumerate() {
        json.raw(if number == 0 { "{\"entryId\":\"" } else { ",{\"entryId\":\"" });
        json.entry(entry, info.raw);
        json.raw("}");
    }
    json.raw("]}");
    Bytes::from(json.0)
}

/// JSON in the making.
struct Json(Vec<u8>);

impl Json {
    fn raw(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    fn id(&mut self, id: Uuid) {
        self.raw(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    }

    /// A string.
    fn text(&mut self, text: &str) {
        // Writing a text into memory cannot fail; if it did, an empty one would keep the rest whole.
        if serde_json::to_writer(&mut self.0, text).is_err() {
            self.raw("\"\"");
        }
    }

    /// The members of an entry after the name of the first.
    fn entry(&mut self, entry: &BatchEntry, raw: bool) {
        self.id(entry.id);
        self.raw("\",\"event\":");
        if raw {
            // The text of the bytes that the event was made of.
            self.text(entry.event.attribute("data_base64").unwrap_or_default());
        } else {
            self.raw(&entry.event.json());
        }
        self.raw(",\"metadata\":{");
        for (number, (name, value)) in entry.metadata.iter().enumerate() {
            self.raw(if number == 0 { "" } else { "," });
            self.text(name);
            self.raw(":");
            self.text(value);
        }
        self.raw("},\"contentType\":");
        self.text(if raw { raw_type(entry) } else { EVENT_TYPE });
        // Ours, and only where there is something to tell.
        if entry.attempt > 1 {
            // Writing into memory does not fail.
            write!(self.0, ",\"whimbrelAttempt\":{}", entry.attempt).ok();
        }
    }
}

fn raw_type(entry: &BatchEntry) -> &str {
    let given = entry.metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    given.map_or(RAW_TYPE, |(_, value)| value)
}

/// The outcome of each entry, in their order.
///
/// # Errors
/// There is none for any of them.
pub(crate) fn interpret(reply: &Reply, entries: &[BatchEntry]) -> Result<Outcomes, HandlerError> {
    if !reply.status.is_success() {
        return Err(HandlerError::Status(reply.status.as_u16()));
    }
    let missing = || Err(HandlerError::Failed("the app's answer has no status for this event".to_owned()));
    let mut outcomes: Outcomes = entries.iter().map(|_| missing()).collect();
    // Only the first JSON value counts, as with a single event.
    let statuses = match serde_json::Deserializer::from_slice(&reply.body).into_iter::<Answer<'_>>().next() {
        Some(Ok(Answer(statuses))) => statuses,
        Some(Err(error)) if error.is_eof() && reply.is_cut => return Err(too_large()),
        Some(Err(_)) | None => return Err(HandlerError::Failed("the app's answer is no list of statuses".to_owned())),
    };
    let places: HashMap<Uuid, usize> = entries.iter().map(|entry| entry.id).zip(0..).collect();
    let mut strangers = 0_usize;
    for Status { entry_id, status } in statuses {
        let place = Uuid::parse_str(&entry_id).ok().and_then(|id| places.get(&id));
        match place.and_then(|place| outcomes.get_mut(*place)) {
            Some(outcome) => *outcome = said(&status),
            None => strangers += 1,
        }
    }
    if strangers > 0 {
        tracing::warn!(strangers, "the app answered statuses of entries that are not in its batch");
    }
    Ok(outcomes)
}

fn said(status: &str) -> Result<Outcome, HandlerError> {
    match status {
        "SUCCESS" => Ok(Outcome::Success),
        "RETRY" | "" => Ok(Outcome::Retry),
        "DROP" => Ok(Outcome::Drop),
        other => Err(unknown(other)),
    }
}

/// `{"statuses": [...]}`, whatever the case of its names, and whatever stands beside.
#[derive(Default)]
struct Answer<'a>(Vec<Status<'a>>);

/// What the app said of one entry.
#[derive(Default)]
struct Status<'a> {
    entry_id: Cow<'a, str>,
    status: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Answer<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Answer<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with statuses")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut answer = Answer::default();
                while let Some(Text(name)) = map.next_key()? {
                    if name.eq_ignore_ascii_case("statuses") {
                        answer.0 = map.next_value::<Option<_>>()?.unwrap_or_default();
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(answer)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Status<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Status<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with entryId and status")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut said = Status::default();
                while let Some(Text(name)) = map.next_key()? {
                    let member = match &*name {
                        name if name.eq_ignore_ascii_case("entryId") => &mut said.entry_id,
                        name if name.eq_ignore_ascii_case("status") => &mut said.status,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = map.next_value::<Option<Text<'de>>>()?.map_or(Cow::Borrowed(""), |Text(text)| text);
                }
                Ok(said)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
