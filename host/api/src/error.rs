//! The one table from what failed to what the client is told: status, error code, reason and details
//! (pubsub-behaviour 1.5). Two texts: the client's is stable and names no address; the log gets the whole.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use whimbrel_pubsub::{BrokerError, FailedEntry, PublishError};

/// An error as the client sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// The JSON body.
    pub(crate) body: Value,
    /// When to come again, whole seconds.
    pub(crate) retry_after_seconds: Option<u64>,
}

/// What the request said, as far as an answer repeats it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Who asked.
    pub(crate) app_id: &'a str,
    /// The broker asked for.
    pub(crate) pubsub: &'a str,
    /// The request's metadata.
    pub(crate) metadata: &'a [(String, String)],
}

/// What `ErrorInfo.metadata` holds.
enum Info {
    Request,
    Topic,
    App,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    code: &'static str,
    reason: &'static str,
    /// Whether the details name the broker.
    resource: bool,
    info: Info,
}

impl Row {
    const fn new(status: StatusCode, code: &'static str, reason: &'static str, info: Info) -> Self {
        Self { status, code, reason, resource: true, info }
    }
}

/// The table.
fn row(error: &PublishError) -> Row {
    use StatusCode as S;
    match error {
        PublishError::NotFound { .. } => Row {
            resource: false,
            ..Row::new(S::NOT_FOUND, "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", Info::Request)
        },
        PublishError::PubsubEmpty => {
            Row::new(S::NOT_FOUND, "ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY", Info::Request)
        }
        PublishError::TopicEmpty { .. } => {
            Row::new(S::NOT_FOUND, "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", Info::Request)
        }
        PublishError::RawPayload { .. } => Row::new(
            S::BAD_REQUEST,
            "ERR_PUBSUB_REQUEST_METADATA",
            "DAPR_PUBSUB_METADATA_DESERIALIZATION",
            Info::Request,
        ),
        PublishError::CloudEvent { .. } => Row::new(
            S::INTERNAL_SERVER_ERROR,
            "ERR_PUBSUB_CLOUD_EVENTS_SER",
            "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
            Info::App,
        ),
        PublishError::Forbidden { .. } => {
            Row::new(S::FORBIDDEN, "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN", Info::Topic)
        }
        PublishError::Broker { error, .. } => Row::new(
            if wait(error).is_some() { S::SERVICE_UNAVAILABLE } else { S::INTERNAL_SERVER_ERROR },
            "ERR_PUBSUB_PUBLISH_MESSAGE",
            "DAPR_PUBSUB_PUBLISH_MESSAGE",
            Info::Topic,
        ),
    }
}

/// How long a client should stay away, for the failures that mean "not so fast". At least a second.
fn wait(error: &BrokerError) -> Option<u64> {
    let wait = match error {
        BrokerError::Overloaded => Duration::ZERO,
        BrokerError::Throttled { retry_after, .. } => *retry_after,
        _ => return None,
    };
    Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
}

/// What a client may read of a broker's failure: all of it where the publisher must mend something, a stable text where
/// an adapter might name addresses.
fn external(error: &BrokerError) -> String {
    match error {
        BrokerError::Transient(_) => "the broker did not take the message; it may be sent again".into(),
        BrokerError::Unknown(_) => "no answer from the broker: the message may be stored or not".into(),
        BrokerError::Throttled { .. } => "the broker asks to wait".into(),
        BrokerError::Unauthorized(_) => "the broker refused the credentials of this host".into(),
        BrokerError::Permanent(text) => text.clone(),
        BrokerError::Invalid(_) | BrokerError::Overloaded | BrokerError::Broken(_) | BrokerError::Closed => {
            error.to_string()
        }
    }
}

/// What the client is told of a publish that failed.
pub(crate) fn publish(error: &PublishError, asked: Asked<'_>) -> Refusal {
    let row = row(error);
    let (message, cause) = match error {
        PublishError::Broker { topic, pubsub, error } => {
            let cause = external(error);
            (format!("error when publishing to topic {topic} in pubsub {pubsub}: {cause}"), cause)
        }
        PublishError::CloudEvent { error } => ("cannot create cloudevent".to_owned(), error.clone()),
        other => (other.to_string(), other.to_string()),
    };
    let metadata = match (&row.info, error) {
        (Info::Topic, PublishError::Forbidden { topic, .. } | PublishError::Broker { topic, .. }) => {
            json!({ "topic": topic, "error": cause })
        }
        (Info::App, _) => json!({ "appID": asked.app_id, "error": cause }),
        _ => asked.metadata.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect(),
    };
    let retry_after_seconds = if let PublishError::Broker { error, .. } = error { wait(error) } else { None };
    Refusal { retry_after_seconds, ..detailed(&row, &message, &metadata, asked.pubsub) }
}

/// Why the entries of a bulk publish cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntriesError {
    /// The body is no list of entries; why.
    Undecodable(String),
    /// An event is not what its content type says; why.
    Unconvertible(String),
    /// An entry has no id, or one that another has too.
    EntryId,
}

/// What the client is told of entries that cannot be read.
pub(crate) fn entries(error: &EntriesError, topic: &str, asked: Asked<'_>) -> Refusal {
    const ENTRY_ID: &str = "entryId is duplicated or not present for entry";
    let Asked { app_id, pubsub, .. } = asked;
    let about = format!("topic {topic} pubsub {pubsub}");
    let (reason, message, cause) = match error {
        EntriesError::Undecodable(why) => {
            let message = format!("error when unmarshaling the request for {about}: {why}");
            ("DAPR_PUBSUB_UNMARSHAL_EVENTS", message, None)
        }
        EntriesError::Unconvertible(why) => {
            let message = format!("error when marshalling cloud event envelope for {about}: {why}");
            ("DAPR_PUBSUB_MARSHAL_ENVELOPE", message, Some(why.as_str()))
        }
        EntriesError::EntryId => {
            let message = format!("error marshaling events to bytes for {about}. error: {ENTRY_ID}");
            ("DAPR_PUBSUB_MARSHAL_EVENTS", message, Some(ENTRY_ID))
        }
    };
    let metadata = match cause {
        Some(cause) => json!({ "appID": app_id, "error": cause }),
        None => json!({ "appID": app_id }),
    };
    let row = Row::new(StatusCode::BAD_REQUEST, "ERR_PUBSUB_EVENTS_SER", reason, Info::App);
    detailed(&row, &message, &metadata, pubsub)
}

/// What the client is told of entries that were not published. 503 where the broker has only asked to wait.
pub(crate) fn failed(entries: &[FailedEntry]) -> Refusal {
    let waits: Option<Vec<u64>> = entries.iter().map(|entry| wait(&entry.error)).collect();
    let retry_after_seconds = waits.and_then(|waits| waits.into_iter().max());
    let status =
        if retry_after_seconds.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR };
    let told = entries.iter().map(|entry| json!({ "entryId": entry.id, "error": external(&entry.error) }));
    let body = json!({ "failedEntries": told.collect::<Vec<_>>(), "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE" });
    Refusal { status, body, retry_after_seconds }
}

/// An error with google.rpc's details.
fn detailed(row: &Row, message: &str, metadata: &Value, pubsub: &str) -> Refusal {
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "domain": "dapr.io", "metadata": metadata, "reason": row.reason,
    });
    let resource = json!({
        "@type": "type.googleapis.com/google.rpc.ResourceInfo",
        "description": message, "owner": "", "resource_name": pubsub, "resource_type": "pubsub",
    });
    let details = if row.resource { json!([resource, info]) } else { json!([info]) };
    let body = json!({ "errorCode": row.code, "message": message, "details": details });
    Refusal { status: row.status, body, retry_after_seconds: None }
}

/// An error without details.
pub(crate) fn plain(status: StatusCode, code: &str, message: &str) -> Refusal {
    Refusal { status, body: json!({ "errorCode": code, "message": message }), retry_after_seconds: None }
}

/// What every path and method that nobody serves gets: Dapr takes it for a service invocation without an app.
pub(crate) fn no_route() -> Refusal {
    let message = "failed getting app id either from the URL path or the header dapr-app-id";
    plain(StatusCode::NOT_FOUND, "ERR_DIRECT_INVOKE", message)
}

/// Dapr's word for what an error code is about, in what is counted (pubsub-behaviour, section 13.2).
pub(crate) fn category(code: &str) -> &'static str {
    let code = code.strip_prefix("ERR_").unwrap_or(code);
    match code.split('_').next() {
        Some("HEALTH" | "OUTBOUND") => "health",
        Some("METADATA") => "metadata",
        Some("DIRECT") => "service-invocation",
        _ => "pubsub",
    }
}

#[cfg(test)]
mod tests;
