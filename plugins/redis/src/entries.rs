//! What the replies about streams say.

use std::fmt;
use std::time::Duration;

use serde::de::{MapAccess, Visitor};
use serde::{Deserializer, de};
use whimbrel_sdk::Message;

use crate::protocol::{EntryId, Reply};

/// An entry as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) id: EntryId,
    /// The id as Redis spells it.
    pub(crate) text: &'a str,
    /// Its fields; none when it is pending but was deleted from the stream.
    fields: Option<Reply<'a>>,
}

/// Each stream of an `XREADGROUP` reply with its entries. A null reply has none.
pub(crate) fn streams<'a>(reply: Reply<'a>) -> impl Iterator<Item = (&'a str, Reply<'a>)> {
    let streams = reply.items().into_iter().flatten();
    streams.filter_map(|stream| {
        let [name, entries] = stream.tuple()?;
        Some((std::str::from_utf8(name.bytes()?).ok()?, entries))
    })
}

/// Each entry of a list.
pub(crate) fn entries<'a>(list: Reply<'a>) -> impl Iterator<Item = Entry<'a>> {
    let entries = list.items().into_iter().flatten();
    entries.filter_map(|entry| {
        let [id, fields] = entry.tuple()?;
        let text = id.bytes()?;
        let fields = Some(fields).filter(|fields| !fields.is_null());
        Some(Entry { id: EntryId::parse(text)?, text: std::str::from_utf8(text).ok()?, fields })
    })
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unacked {
    pub(crate) id: EntryId,
    /// How long it was left alone.
    pub(crate) idle: Duration,
    /// How often it was delivered.
    pub(crate) count: u32,
}

/// What an `XPENDING` reply lists, in the order of the ids.
pub(crate) fn unacked(reply: Reply<'_>) -> Vec<Unacked> {
    let entries = reply.items().into_iter().flatten();
    let entry = |entry: Reply<'_>| {
        let [id, _consumer, idle, count] = entry.tuple()?;
        Some(Unacked {
            id: EntryId::parse(id.bytes()?)?,
            idle: Duration::from_millis(u64::try_from(idle.integer()?).unwrap_or(0)),
            count: u32::try_from(count.integer()?).ok()?,
        })
    };
    entries.filter_map(entry).collect()
}

/// One consumer, from an `XINFO CONSUMERS` reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) pending: i64,
    pub(crate) idle_millis: i64,
}

/// The consumers of a group.
pub(crate) fn consumers(reply: Reply<'_>) -> Vec<Consumer> {
    let consumer = |fields: Reply<'_>| {
        let fields: Vec<Reply<'_>> = fields.items()?.collect();
        let value = |name: &[u8]| fields.chunks_exact(2).find(|pair| pair[0].bytes() == Some(name)).map(|pair| pair[1]);
        Some(Consumer {
            name: std::str::from_utf8(value(b"name")?.bytes()?).ok()?.to_owned(),
            pending: value(b"pending")?.integer()?,
            idle_millis: value(b"idle")?.integer()?,
        })
    };
    reply.items().into_iter().flatten().filter_map(consumer).collect()
}

/// How many entries of the stream no consumer of a group has read, from an `XINFO GROUPS` reply. None: the server does not
/// know, because it is older than Redis 7 or because of entries that were deleted.
pub(crate) fn lag(reply: Reply<'_>, group: &str) -> Option<u64> {
    let lag = |fields: Reply<'_>| {
        let fields: Vec<Reply<'_>> = fields.items()?.collect();
        let value = |name: &[u8]| fields.chunks_exact(2).find(|pair| pair[0].bytes() == Some(name)).map(|pair| pair[1]);
        (value(b"name")?.bytes() == Some(group.as_bytes())).then(|| value(b"lag")?.integer())?
    };
    u64::try_from(reply.items()?.find_map(lag)?).ok()
}

impl Entry<'_> {
    /// Whether the entry was deleted from the stream.
    pub(crate) fn is_deleted(&self) -> bool {
        self.fields.is_none()
    }

    /// The message in it. An entry that another program wrote without the field `data` has no data.
    pub(crate) fn message(&self, topic: &str) -> Message {
        let mut message = Message { topic: topic.to_owned(), key: None, data: Vec::new(), metadata: Vec::new() };
        let mut fields = self.fields.and_then(|fields| fields.items()).into_iter().flatten();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let value = value.bytes().unwrap_or_default();
            match name.bytes() {
                Some(b"data") => message.data = value.to_vec(),
                Some(b"metadata") => message.metadata = metadata(value),
                _ => {}
            }
        }
        message
    }

    /// Roughly what the entry takes in memory, bytes.
    pub(crate) fn size(&self) -> usize {
        let fields = self.fields.and_then(|fields| fields.items()).into_iter().flatten();
        fields.map(|field| field.bytes().map_or(0, <[u8]>::len)).sum()
    }
}

/// The metadata of a message: a JSON object. What is none is no metadata, for the data is what matters.
fn metadata(json: &[u8]) -> Vec<(String, String)> {
    serde_json::Deserializer::from_slice(json).deserialize_map(Pairs).unwrap_or_default()
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
            let value = match value {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
