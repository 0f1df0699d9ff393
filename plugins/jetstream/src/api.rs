//! The JetStream API: what is asked and answered, as JSON. Only fields that matter here.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Why the broker says no.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) err_code: u32,
    pub(crate) description: String,
}

/// An answer, or an error in its place.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply<T> {
    pub(crate) error: Option<ApiError>,
    #[serde(flatten)]
    pub(crate) answer: Option<T>,
}

/// The answer to a publish.
#[derive(Debug, Deserialize)]
pub(crate) struct PubAck<'a> {
    pub(crate) error: Option<ApiError>,
    #[serde(borrow, default)]
    pub(crate) stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    pub(crate) seq: u64,
}

/// Which streams take a subject?
#[derive(Debug, Serialize)]
pub(crate) struct StreamNamesRequest<'a> {
    pub(crate) subject: &'a str,
}

/// The streams.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamNames {
    pub(crate) streams: Option<Vec<String>>,
}

/// A stream that is there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamInfo {
    pub(crate) config: StreamOrigin,
}

/// Where a stream has its messages from, besides its subjects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamOrigin {
    pub(crate) mirror: Option<IgnoredAny>,
    pub(crate) sources: Vec<IgnoredAny>,
}

/// A stream to be.
#[derive(Debug, Serialize)]
pub(crate) struct StreamConfig<'a> {
    pub(crate) name: &'a str,
    pub(crate) subjects: &'a [String],
    pub(crate) retention: &'static str,
    pub(crate) storage: &'static str,
    pub(crate) discard: &'static str,
    pub(crate) num_replicas: usize,
    /// Nanoseconds. 0: for ever.
    pub(crate) max_age: u64,
    pub(crate) max_bytes: i64,
    pub(crate) max_msgs: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duplicate_window: Option<u64>,
}

/// A consumer to be.
#[derive(Debug, Serialize)]
pub(crate) struct ConsumerRequest<'a> {
    pub(crate) stream_name: &'a str,
    pub(crate) config: &'a ConsumerConfig,
    /// `create`: never change one that is there.
    pub(crate) action: &'static str,
}

/// A consumer, wanted or found. Durations are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerConfig {
    pub(crate) name: String,
    pub(crate) durable_name: String,
    pub(crate) ack_policy: String,
    pub(crate) deliver_policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opt_start_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opt_start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliver_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliver_group: Option<String>,
    pub(crate) filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_subjects: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ack_wait: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_deliver: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) backoff: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_ack_pending: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) num_replicas: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) mem_storage: bool,
    // The rest is only read: limits that an existing consumer may have, and kinds that are not spoken.
    #[serde(skip_serializing)]
    pub(crate) max_batch: usize,
    #[serde(skip_serializing)]
    pub(crate) max_expires: u64,
    #[serde(skip_serializing)]
    pub(crate) max_bytes: usize,
    #[serde(skip_serializing)]
    pub(crate) headers_only: bool,
    #[serde(skip_serializing)]
    pub(crate) priority_policy: Option<String>,
}

/// A consumer that is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsumerInfo {
    pub(crate) name: String,
    pub(crate) stream_name: String,
    pub(crate) config: ConsumerConfig,
    pub(crate) num_pending: u64,
    /// Somebody listens to what it pushes.
    pub(crate) push_bound: bool,
}

/// Give me messages. Durations are nanoseconds.
#[derive(Debug, Serialize)]
pub(crate) struct PullRequest {
    pub(crate) batch: usize,
    pub(crate) expires: u64,
    pub(crate) idle_heartbeat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_bytes: Option<usize>,
}

/// What the subject says that a delivered message is acknowledged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// How often it was delivered, this time included.
    pub(crate) count: u32,
    /// Its number in the stream.
    pub(crate) sequence: u64,
    /// How many messages the consumer still has for its group.
    pub(crate) pending: u64,
}

impl Place {
    /// `$JS.ACK.` and stream, consumer, count, number in the stream, number in the consumer, time, pending; with domains in
    /// use there are domain and account before the stream, and perhaps something at the end.
    pub(crate) fn of(ack_subject: &str) -> Option<Self> {
        let mut words = ack_subject.strip_prefix("$JS.ACK.")?.split('.');
        let skip = if ack_subject.matches('.').count() >= 10 { 4 } else { 2 };
        let count = words.nth(skip)?.parse().ok()?;
        let sequence = words.next()?.parse().ok()?;
        let pending = words.nth(2)?.parse().ok()?;
        Some(Self { count, sequence, pending })
    }
}

/// A text that may be no JSON of this kind: another program answered.
pub(crate) fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}

/// A request's JSON.
pub(crate) fn write(request: &impl Serialize) -> Vec<u8> {
    // These are plain structs: writing them into memory cannot fail.
    serde_json::to_vec(request).unwrap_or_default()
}

#[cfg(test)]
mod tests;
