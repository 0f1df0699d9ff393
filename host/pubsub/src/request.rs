//! What every door turns its bytes into: one publish, and who asks for it.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::Metadata;
use crate::error::BrokerError;
use crate::trace::Trace;

/// The authenticated app a request belongs to. Made by the doors, trusted by the data plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The app id that scopes go by.
    pub app_id: Arc<str>,
}

/// One message to publish, from whichever door.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// Who asks.
    pub caller: Caller,
    /// The broker, by its resource's name.
    pub pubsub: String,
    /// The topic, without the namespace prefix.
    pub topic: String,
    /// The payload.
    pub data: Bytes,
    /// Its content type, verbatim; none means `text/plain`.
    pub content_type: Option<String>,
    /// Request metadata (the `metadata.*` query parameters over HTTP).
    pub metadata: Metadata,
    /// The trace that it belongs to, which the event carries on.
    pub trace: Trace,
}

/// Several messages to publish to one topic, from whichever door.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    /// Who asks.
    pub caller: Caller,
    /// The broker, by its resource's name.
    pub pubsub: String,
    /// The topic, without the namespace prefix.
    pub topic: String,
    /// The messages. The door has checked that their ids are unique.
    pub entries: Vec<BulkEntry>,
    /// Metadata of the request: `rawPayload` for all entries, the rest for those that bring metadata of their own.
    pub metadata: Metadata,
    /// The trace that it belongs to, which the event carries on.
    pub trace: Trace,
}

/// One message of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkEntry {
    /// What the publisher calls it within the request.
    pub id: String,
    /// The payload.
    pub data: Bytes,
    /// Its content type, verbatim.
    pub content_type: Option<String>,
    /// Its own metadata. `None`: the request's does not apply to it either, as with Dapr (pubsub-behaviour, section 2).
    pub metadata: Option<Metadata>,
}

/// A message of several that was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEntry {
    /// What the publisher calls it within the request.
    pub id: String,
    /// The last answer.
    pub error: BrokerError,
}
