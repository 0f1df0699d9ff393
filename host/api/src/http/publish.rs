//! `POST|PUT /v1.0/publish/{pubsub}/{topic...}`: the bytes of a request become a `PublishRequest`, its result an answer.
//! Called by `http::answer`. All that is decided about the message is decided by `whimbrel_pubsub::publish`.

use http::request::Parts;
use http::{StatusCode, header};
use whimbrel_pubsub::{BrokerError, Metadata, PublishError, PublishRequest, Trace};

use super::{Answer, Api, Arriving, BodyError, body, empty, parameters, refuse, text};
use crate::error::{self, Asked};
use crate::path;

/// What a query parameter's name starts with to be metadata of the message.
const METADATA_PREFIX: &str = "metadata.";

/// Publishes one message of this trace.
pub(super) async fn answer(api: &Api, head: &Parts, body: Arriving, pubsub: &str, topic: &str, trace: Trace) -> Answer {
    let (pubsub, topic) = match (path::unescape(pubsub), path::unescape(topic)) {
        (Some(pubsub), Some(topic)) => (pubsub, topic),
        (None, _) => return undecodable("pubsubname"),
        (_, None) => return undecodable("*"),
    };
    let awaits_continue = head.headers.contains_key(header::EXPECT);
    let held = match body::read(body, api.doors.body_bytes_max, &api.bodies, awaits_continue).await {
        Ok(held) => held,
        Err(error) => return refuse_body(api, head, &pubsub, topic, error),
    };
    let request = PublishRequest {
        caller: api.doors.caller.clone(),
        pubsub,
        topic,
        data: held.bytes.clone(),
        content_type: content_type(head),
        metadata: head.uri.query().map_or_else(Vec::new, metadata),
        trace,
    };
    let topology = api.doors.topology.load_full();
    match whimbrel_pubsub::publish(&topology, request).await {
        Ok(()) => empty(),
        Err(error) => refuse_publish(api, head, &error),
    }
}

/// The message's metadata: what the query says under `metadata.`, the first of a name.
pub(super) fn metadata(query: &str) -> Metadata {
    let mut metadata: Metadata = Vec::new();
    for (name, value) in parameters(query) {
        if let Some(name) = name.strip_prefix(METADATA_PREFIX)
            && !metadata.iter().any(|(known, _)| known == name)
        {
            metadata.push((name.to_owned(), value));
        }
    }
    metadata
}

/// The content type verbatim; none if it is empty.
fn content_type(head: &Parts) -> Option<String> {
    let value = head.headers.get(header::CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    (!text.is_empty()).then(|| text.into_owned())
}

pub(super) fn undecodable(parameter: &str) -> Answer {
    let message = format!("failed to unescape request parameter \"{parameter}\". Error: it is not UTF-8");
    text(StatusCode::BAD_REQUEST, message)
}

/// A body that could not be read is reported after a broker that is not there (pubsub-behaviour 0: the order shows).
fn refuse_body(api: &Api, head: &Parts, pubsub: &str, topic: String, error: BodyError) -> Answer {
    let pubsub = pubsub.to_owned();
    if api.doors.topology.load().broker(&pubsub, &api.doors.caller).is_none() {
        return refuse_publish(api, head, &PublishError::NotFound { pubsub });
    }
    let error = match error {
        BodyError::TooLarge => BrokerError::Permanent("stream too large".into()),
        BodyError::Busy => BrokerError::Overloaded,
        BodyError::Broken(why) => BrokerError::Permanent(why),
    };
    refuse_publish(api, head, &PublishError::Broker { topic, pubsub, error })
}

fn refuse_publish(api: &Api, head: &Parts, error: &PublishError) -> Answer {
    let app_id = &*api.doors.caller.app_id;
    tracing::debug!(app_id, %error, "a publish was refused");
    let metadata = head.uri.query().map_or_else(Vec::new, metadata);
    let pubsub = asked_pubsub(head);
    refuse(&error::publish(error, Asked { app_id, pubsub: &pubsub, metadata: &metadata }))
}

/// The broker's name again, for an error: the request that held it is gone.
fn asked_pubsub(head: &Parts) -> String {
    let cleaned = path::clean(head.uri.path());
    let name = cleaned.split('/').nth(3).unwrap_or_default();
    path::unescape_lossy(name)
}

#[cfg(test)]
mod tests;
