//! The body of a bulk publish: a JSON list of entries, each with an event that its content type tells how to read
//! (pubsub-behaviour, section 2). Pure; called by `bulk`.
//!
//! Read in one pass; what is JSON and stays JSON is never copied: the entries are slices of the body. Why a body cannot be
//! read is looked for only then, in a second pass, and told in the words of Dapr, whose clients may look for them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::DecodeError;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use whimbrel_pubsub::{BulkEntry, Metadata};

use crate::error::EntriesError;

/// Entries of one request. Each takes some hundred bytes for its envelope, however short it is.
const ENTRIES_MAX: usize = 10_000;

/// Base64 as Go reads it: padded, and what the last character has too many bits is passed over.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// An event that is not what its content type says.
const MISMATCH: &str = "error: mismatch between contentType and event";

/// Reads the entries; each has an id of its own. What follows the list is passed over.
///
/// # Errors
/// See [`EntriesError`]; the first that is found.
pub(super) fn read(body: &Bytes) -> Result<Vec<BulkEntry>, EntriesError> {
    // What is no UTF-8 becomes replacement characters, as in Go.
    let body = match String::from_utf8_lossy(body) {
        Cow::Borrowed(_) => body.clone(),
        Cow::Owned(text) => Bytes::from(text),
    };
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let given = Entries::deserialize(&mut serde_json::Deserializer::from_str(text));
    let Entries(given) = given.map_err(|error| EntriesError::Undecodable(explain(text, &error)))?;
    let mut known = HashSet::with_capacity(given.len());
    let mut entries = Vec::with_capacity(given.len());
    for entry in &given {
        let data = data(&body, entry.event, &entry.content_type).map_err(EntriesError::Unconvertible)?;
        if entry.id.is_empty() || !known.insert(&*entry.id) {
            return Err(EntriesError::EntryId);
        }
        let content_type = Some(entry.content_type.to_string());
        entries.push(BulkEntry { id: entry.id.to_string(), data, content_type, metadata: entry.metadata.clone() });
    }
    Ok(entries)
}

/// The bytes of an event, by its content type.
fn data(body: &Bytes, event: Option<&RawValue>, content_type: &str) -> Result<Bytes, String> {
    let essence = content_type.split_once(';').map_or(content_type, |(essence, _)| essence).trim();
    let is = |media_type: &str| essence.eq_ignore_ascii_case(media_type);
    let is_text = content_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    let mismatch = || MISMATCH.to_owned();
    let raw = event.map_or("null", RawValue::get);
    if is("application/json") || is("application/cloudevents+json") {
        return Ok(event.map_or(Bytes::from_static(b"null"), |event| body.slice_ref(event.get().as_bytes())));
    }
    let is_octets = is("application/octet-stream");
    if !(is_octets || is_text || is("application/xml")) || !raw.starts_with('"') {
        return Err(mismatch());
    }
    let Text(text) = serde_json::from_str(raw).map_err(|_| mismatch())?;
    match text {
        text if is_octets => octets(&text),
        Cow::Borrowed(text) => Ok(body.slice_ref(text.as_bytes())),
        Cow::Owned(text) => Ok(Bytes::from(text)),
    }
}

fn octets(text: &str) -> Result<Bytes, String> {
    // Line breaks may be in it, as in Go.
    let text = if text.contains(['\r', '\n']) { Cow::Owned(text.replace(['\r', '\n'], "")) } else { text.into() };
    BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
        };
        format!("error: unable to decode base64 application/octect-stream data: illegal base64 data at input byte {at}")
    })
}

/// A JSON string, borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The entries as they are written.
struct Entries<'a>(Vec<Entry<'a>>);

/// One of them. Names go without regard to case, unknown ones are passed over, `null` is as if it were not there.
#[derive(Default)]
struct Entry<'a> {
    id: Cow<'a, str>,
    event: Option<&'a RawValue>,
    content_type: Cow<'a, str>,
    metadata: Option<Metadata>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Entries(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element::<Entry<'de>>()? {
            if entries.len() == ENTRIES_MAX {
                return Err(de::Error::custom(format_args!("more than {ENTRIES_MAX} entries in one request")));
            }
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Entry::default())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entry = Entry::default();
        while let Some(Text(name)) = map.next_key()? {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("event") {
                entry.event = Some(map.next_value()?);
            } else if is("entryId") {
                entry.id = map.next_value::<Option<Text<'de>>>()?.map_or(entry.id, |Text(id)| id);
            } else if is("contentType") {
                entry.content_type = map.next_value::<Option<Text<'de>>>()?.map_or(entry.content_type, |Text(t)| t);
            } else if is("metadata") {
                entry.metadata = map.next_value::<Option<Pairs>>()?.map(|Pairs(pairs)| pairs);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(entry)
    }
}

/// An object of strings; of several with one name the last counts.
struct Pairs(Metadata);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut pairs = Metadata::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<Option<String>>()?.unwrap_or_default();
            match pairs.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => pairs.push((name, value)),
            }
        }
        Ok(Pairs(pairs))
    }
}

/// Why a body is no list of entries, in the words of Go's JSON parser where those are known.
fn explain(text: &str, error: &serde_json::Error) -> String {
    if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        return "EOF".to_owned();
    }
    match Value::deserialize(&mut serde_json::Deserializer::from_str(text)) {
        Err(error) if error.is_eof() => "unexpected EOF".to_owned(),
        Err(error) => error.to_string(),
        Ok(Value::Array(entries)) => {
            let wrong = entries.iter().take(ENTRIES_MAX).find_map(wrong_entry);
            wrong.unwrap_or_else(|| error.to_string())
        }
        Ok(other) => format!("json: cannot unmarshal {} into Go value of type []{ENTRY}", kind(&other)),
    }
}

/// What Go calls an entry.
const ENTRY: &str = "http.bulkPublishMessageEntry";

fn wrong_entry(entry: &Value) -> Option<String> {
    let fields = match entry {
        Value::Null => return None,
        Value::Object(fields) => fields,
        other => return Some(format!("json: cannot unmarshal {} into Go value of type {ENTRY}", kind(other))),
    };
    let wrong = |value: &Value, field: &str, wanted: &str| {
        let kind = kind(value);
        format!("json: cannot unmarshal {kind} into Go struct field bulkPublishMessageEntry.{field} of type {wanted}")
    };
    let not_text = |value: &Value| !matches!(value, Value::String(_) | Value::Null);
    fields.iter().find_map(|(name, value)| {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let text = ["entryId", "contentType"].into_iter().find(|known| is(known));
        match (text, value) {
            (Some(field), value) if not_text(value) => Some(wrong(value, field, "string")),
            (None, Value::Object(pairs)) if is("metadata") => {
                pairs.values().find(|value| not_text(value)).map(|value| wrong(value, "metadata", "string"))
            }
            (None, value) if is("metadata") && !value.is_null() => Some(wrong(value, "metadata", "map[string]string")),
            _ => None,
        }
    })
}

/// What Go calls a kind of JSON value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
