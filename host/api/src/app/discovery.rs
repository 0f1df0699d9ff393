//! What an app's answer to `GET /dapr/subscribe` means, and the bounds of asking (pubsub-behaviour 5.2).
//! Called by `App::subscriptions`; the JSON is read by `whimbrel_resources::programmatic`.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::lane::Reply;

/// How much of an answer is read, bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long one answer may take.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// How long an app is asked again in all, also by a policy without an end: files and SIGHUP wait for it.
pub(crate) const ASKING_MAX: Duration = Duration::from_secs(15 * 60);

/// Why an app's subscriptions are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The app could not be asked, also at the last try.
    #[error("cannot ask the app for its subscriptions: {0}")]
    Transport(String),
    /// The answer is larger than 4 MiB.
    #[error("the app's list of subscriptions is larger than 4 MiB")]
    TooLarge,
}

/// What was answered, if it is a list.
pub(crate) fn interpret(reply: &Reply) -> Result<Option<Bytes>, DiscoveryError> {
    match reply.status {
        StatusCode::OK if reply.is_cut => Err(DiscoveryError::TooLarge),
        StatusCode::OK => Ok(Some(reply.body.clone()).filter(|body| !body.is_empty())),
        StatusCode::NOT_FOUND => {
            tracing::debug!("the app has no subscriptions of its own");
            Ok(None)
        }
        other => {
            tracing::error!(status = other.as_u16(), "the app did not tell its subscriptions");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
