//! The host's messages as records, and back, as Dapr's component has it: either reads what the other wrote.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use whimbrel_sdk::Message;

use super::Record;
use crate::config::Settings;

/// Publish metadata that names the record's key, the first that is there.
const KEY_NAMES: [&str; 2] = ["partitionKey", "__key"];

/// A payload of these bytes is a tombstone, and a tombstone is delivered as these bytes.
const TOMBSTONE: &[u8] = b"null";

/// What Go's `url.QueryEscape` leaves as it is, spaces apart.
const UNESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A message as a record. All metadata become headers; of a name that stands twice, the last.
pub(crate) fn to_record(message: Message, timestamp: i64, settings: &Settings) -> Record {
    let Message { key, data, metadata, .. } = message;
    let named = || KEY_NAMES.iter().find_map(|name| last(&metadata, name)).map(str::to_owned);
    let key = key.or_else(named).map(Bytes::from);
    let value = (data != TOMBSTONE).then(|| Bytes::from(data));
    let mut headers: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(metadata.len());
    for (name, value) in metadata {
        if is_excluded(&name, settings) {
            continue;
        }
        let name = Bytes::from(name);
        let value = Some(Bytes::from(value));
        match headers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => headers.push((name, value)),
        }
    }
    Record { offset: 0, timestamp, key, value, headers }
}

fn last<'a>(metadata: &'a [(String, String)], name: &str) -> Option<&'a str> {
    metadata.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn is_excluded(name: &str, settings: &Settings) -> bool {
    settings.exclude_headers.as_ref().is_some_and(|excluded| excluded.is_match(name))
}

/// A record as the host knows it, with the metadata that Dapr's component gives: `__key`, `__offset`, `__topic`,
/// `__timestamp`, `__partition`, and then the headers, so that a header of the same name wins.
pub(crate) fn to_delivery_message(topic: &str, partition: i32, record: Record, settings: &Settings) -> Message {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if settings.escape_headers { escaped(&text) } else { text.into_owned() }
    };
    let mut metadata = Vec::with_capacity(5 + record.headers.len());
    if let Some(key) = &record.key {
        metadata.push(("__key".to_owned(), text(key)));
    }
    metadata.push(("__offset".to_owned(), record.offset.to_string()));
    metadata.push(("__topic".to_owned(), topic.to_owned()));
    metadata.push(("__timestamp".to_owned(), record.timestamp.to_string()));
    metadata.push(("__partition".to_owned(), partition.to_string()));
    for (name, value) in &record.headers {
        let name = String::from_utf8_lossy(name);
        if !is_excluded(&name, settings) {
            metadata.push((name.into_owned(), text(value.as_deref().unwrap_or_default())));
        }
    }
    let key = record.key.and_then(|key| String::from_utf8(key.into()).ok());
    let data = record.value.map_or_else(|| TOMBSTONE.to_vec(), Vec::from);
    Message { topic: topic.to_owned(), key, data, metadata }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, UNESCAPED).to_string().replace("%20", "+")
}
