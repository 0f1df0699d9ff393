//! `POST|PUT /v1.0/publish/bulk/{pubsub}/{topic...}`: the entries of a request become a `BulkRequest`, its result an
//! answer (pubsub-behaviour, section 2). Called by `http::answer`.

mod entries;

use http::header;
use http::request::Parts;
use whimbrel_pubsub::{BrokerError, BulkRequest, FailedEntry, Metadata, PublishError, Trace};

use super::publish::{metadata, undecodable};
use super::{Answer, Api, Arriving, BodyError, body, empty, refuse};
use crate::error::{self, Asked, EntriesError};
use crate::path;

/// Why nothing was published.
enum Refused {
    Entries(EntriesError),
    Publish(PublishError),
}

/// Where messages go, and how.
struct To<'a> {
    pubsub: &'a str,
    topic: &'a str,
    metadata: &'a Metadata,
}

/// Publishes several messages of this trace.
pub(super) async fn answer(api: &Api, head: &Parts, body: Arriving, pubsub: &str, topic: &str, trace: Trace) -> Answer {
    let (pubsub, topic) = match (path::unescape(pubsub), path::unescape(topic)) {
        (Some(pubsub), Some(topic)) => (pubsub, topic),
        (None, _) => return undecodable("pubsubname"),
        (_, None) => return undecodable("*"),
    };
    let metadata = head.uri.query().map_or_else(Vec::new, metadata);
    let asked = Asked { app_id: &api.doors.caller.app_id, pubsub: &pubsub, metadata: &metadata };
    let to = To { pubsub: &pubsub, topic: &topic, metadata: &metadata };
    match publish(api, head, body, to, trace).await {
        Ok(failed) if failed.is_empty() => empty(),
        Ok(failed) => refuse(&error::failed(&failed)),
        Err(Refused::Entries(error)) => {
            tracing::debug!(app_id = asked.app_id, ?error, "a bulk publish was refused");
            refuse(&error::entries(&error, &topic, asked))
        }
        Err(Refused::Publish(error)) => {
            tracing::debug!(app_id = asked.app_id, %error, "a bulk publish was refused");
            refuse(&error::publish(&error, asked))
        }
    }
}

async fn publish(
    api: &Api,
    head: &Parts,
    body: Arriving,
    to: To<'_>,
    trace: Trace,
) -> Result<Vec<FailedEntry>, Refused> {
    let (caller, To { pubsub, topic, metadata }) = (&api.doors.caller, to);
    let awaits_continue = head.headers.contains_key(header::EXPECT);
    // Held until the broker has answered: the entries are slices of it.
    let held = body::read(body, api.doors.body_bytes_max, &api.bodies, awaits_continue).await;
    let read = match &held {
        Ok(held) => entries::read(&held.bytes).map_err(Refused::Entries),
        Err(error) => Err(unread(error, pubsub, topic)),
    };
    let topology = api.doors.topology.load_full();
    let entries = match read {
        Ok(entries) => entries,
        // What is wrong with the request itself is reported first.
        Err(refused) => {
            whimbrel_pubsub::check(&topology, caller, pubsub, topic, metadata).map_err(Refused::Publish)?;
            return Err(refused);
        }
    };
    let request = BulkRequest {
        caller: caller.clone(),
        pubsub: pubsub.to_owned(),
        topic: topic.to_owned(),
        entries,
        metadata: metadata.clone(),
        trace,
    };
    whimbrel_pubsub::publish_bulk(&topology, request).await.map_err(Refused::Publish)
}

/// Why a body that could not be read is refused.
fn unread(error: &BodyError, pubsub: &str, topic: &str) -> Refused {
    match error {
        BodyError::TooLarge => Refused::Entries(EntriesError::Undecodable("stream too large".to_owned())),
        BodyError::Broken(why) => Refused::Entries(EntriesError::Undecodable(why.clone())),
        BodyError::Busy => Refused::Publish(PublishError::Broker {
            topic: topic.to_owned(),
            pubsub: pubsub.to_owned(),
            error: BrokerError::Overloaded,
        }),
    }
}
