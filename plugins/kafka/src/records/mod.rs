//! Messages as Kafka stores them: records, in batches.

use bytes::Bytes;
use whimbrel_sdk::Message;

use crate::config::Settings;

/// One record, without what it shares with its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Bytes>,
    /// `None`: a tombstone.
    pub(crate) value: Option<Bytes>,
    /// Names are UTF-8 by Kafka's rules, and not checked here.
    pub(crate) headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What a fetch brought of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// In the order of their offsets, none before the one that was asked for. No control records.
    pub(crate) records: Vec<Record>,
    /// Where the next fetch begins: behind the last whole batch, also where compaction left holes.
    pub(crate) next_offset: i64,
}

/// Reads the `records` of one partition in a fetch response. What is cut off at the end is left for the next fetch.
///
/// # Errors
/// A batch is broken; the text says how. `Fetched` that came before it are lost with it: fetch from there again.
pub(crate) fn read(_bytes: Bytes, _from_offset: i64) -> Result<Fetched, String> {
    Err("soon".to_owned())
}

/// A record as the host knows it, with the metadata that Dapr's component gives: `__key`, `__offset`, `__topic`,
/// `__timestamp`, `__partition`, and the headers.
pub(crate) fn to_delivery_message(topic: &str, _partition: i32, _record: Record, _settings: &Settings) -> Message {
    Message { topic: topic.to_owned(), key: None, data: Vec::new(), metadata: Vec::new() }
}
