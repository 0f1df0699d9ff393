//! What an app's answer to `GET /dapr/subscribe` means, and how long to wait before asking again (pubsub-behaviour 5.2).
//! Called by `App::subscriptions`; the JSON is read by `whimbrel_resources::programmatic`.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::lane::Reply;

/// How much of an answer is read, bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long one answer may take.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Tries after the first.
const RETRIES: u32 = 3;

/// The first wait; each is half as long again as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(1);

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

/// The waits between tries: exponential, each give or take a half.
pub(crate) fn waits() -> impl Iterator<Item = Duration> {
    (0..RETRIES).map(|retry| {
        let full = FIRST_WAIT.mul_f64(1.5_f64.powi(retry.cast_signed())).min(WAIT_MAX);
        full.mul_f64(0.5 + fastrand::f64())
    })
}

#[cfg(test)]
mod tests;
